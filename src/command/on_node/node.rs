//! A node, as Kubernetes sees it.

use serde_json::Value;

/// What `kubectl get node NAME -o json` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is Ready; `None` while nobody knows.
    pub(crate) ready: Option<bool>,
    /// Why it is not Ready, in the words of Kubernetes.
    pub(crate) not_ready: Option<String>,
    /// Another with each start of the kernel.
    pub(crate) boot_id: String,
    /// `arm64` or `amd64`.
    pub(crate) arch: String,
    /// `Talos (v1.12.4)`
    pub(crate) os_image: String,
    /// Kind (`InternalIP`) and address.
    pub(crate) addresses: Vec<(String, String)>,
}

impl Node {
    /// Reads it.
    pub(crate) fn read(node: &Value) -> Self {
        let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |pointer: &str| node.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let ready = list("/status/conditions").into_iter().find(|c| c["type"] == "Ready").unwrap_or_default();
        let is = match ready["status"].as_str() {
            Some("True") => Some(true),
            Some("False") => Some(false),
            _ => None,
        };
        let why = || ready["message"].as_str().or_else(|| ready["reason"].as_str()).map(str::to_owned);
        Self {
            name: text("/metadata/name"),
            ready: is,
            not_ready: if is == Some(true) { None } else { why() },
            boot_id: text("/status/nodeInfo/bootID"),
            arch: text("/status/nodeInfo/architecture"),
            os_image: text("/status/nodeInfo/osImage"),
            addresses: list("/status/addresses")
                .iter()
                .filter_map(|a| Some((a["type"].as_str()?.to_owned(), a["address"].as_str()?.to_owned())))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_and_what_is_missing_is_not_known() {
        let node = serde_json::json!({
            "metadata": {"name": "altra"},
            "status": {
                "conditions": [
                    {"type": "DiskPressure", "status": "False"},
                    {"type": "Ready", "status": "False", "message": "container runtime is down"}],
                "nodeInfo": {"bootID": "4c0f", "architecture": "arm64", "osImage": "Talos (v1.12.4)"},
                "addresses": [{"type": "InternalIP", "address": "192.168.1.85"}, {"type": "Hostname"}]}});
        let read = Node::read(&node);
        assert_eq!((read.name.as_str(), read.boot_id.as_str(), read.arch.as_str()), ("altra", "4c0f", "arm64"));
        assert_eq!((read.ready, read.not_ready.as_deref()), (Some(false), Some("container runtime is down")));
        assert_eq!(read.addresses, [("InternalIP".to_owned(), "192.168.1.85".to_owned())]);
        assert_eq!(Node::read(&Value::Null), Node::default());
        let unknown = serde_json::json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        assert_eq!(Node::read(&unknown).ready, None);
    }
}
