//! What every pod that runs this program has in common.

use super::desk::{self, Desk};
use super::{Setting, Work, rollout};
use crate::container::{NODE_ADDRESS, OPTIONS};
use serde_json::{Value, json};

/// The container's name.
pub(crate) const CONTAINER: &str = "bootsurgeon";
/// Where efivarfs is, on the node and in the container.
const EFIVARS: &str = crate::efivars::DEFAULT_DIR;

/// Which part a pod has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// It runs this program.
    Surgeon,
    /// It marks a node for a job, see [`super::job`].
    Anchor,
}

/// Labels of the objects that belong to one pod or job.
pub(super) fn labels(instance: &str, role: Role) -> Value {
    let role = match role {
        Role::Surgeon => "surgeon",
        Role::Anchor => "anchor",
    };
    json!({
        "app.kubernetes.io/name": "bootsurgeon",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/component": role,
    })
}

/// The metadata of an object; `what` tells people what it is for.
pub(super) fn metadata(name: &str, setting: &Setting, labels: Value, what: &str) -> Value {
    json!({
        "name": name,
        "namespace": setting.namespace(),
        "labels": labels,
        "annotations": {"kubernetes.io/description": what},
    })
}

/// Every taint is tolerated: control planes, cordoned nodes, nodes under pressure.
pub(super) fn tolerate_everything() -> Value {
    json!([{"operator": "Exists"}])
}

/// In its usual namespace the pod is as important as the node's own: nothing evicts it or takes its place in the middle
/// of a change. Elsewhere a quota may forbid that priority, and the change survives an interruption anyway.
pub(super) fn priority(setting: &Setting) -> Option<&'static str> {
    (setting.namespace() == super::DEFAULT_NAMESPACE).then_some("system-node-critical")
}

/// The specification of a privileged pod that runs the program once. The node is not chosen yet.
pub(super) fn privileged(work: &Work, setting: &Setting, env: Vec<Value>) -> Value {
    let mut volumes = vec![host_path("dev", "/dev"), scratch()];
    let mut mounts = vec![
        json!({"name": "dev", "mountPath": work.devices.mount_path()}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    if work.efivars {
        volumes.push(host_path("efivars", EFIVARS));
        mounts.push(json!({"name": "efivars", "mountPath": EFIVARS, "readOnly": true}));
    }
    if let Some(name) = &setting.files {
        volumes.push(json!({"name": "files", "configMap": {"name": name}}));
        mounts.push(json!({"name": "files", "mountPath": super::FILES_DIR, "readOnly": true}));
    }
    let stdin = setting.desk.map(|desk| desk.stdin);
    let args: Vec<String> = work.args.iter().map(|arg| literal(arg)).collect();
    json!({
        "containers": [{
            "name": CONTAINER,
            "image": setting.image(),
            "imagePullPolicy": if setting.image.is_some() { "IfNotPresent" } else { "Never" },
            "command": setting.desk.and_then(|desk| desk.carried_blocks).map(carried),
            "args": args,
            "stdin": stdin,
            "stdinOnce": stdin,
            "env": environment(setting, env),
            "resources": resources(),
            "securityContext": {"privileged": true, "readOnlyRootFilesystem": true, "runAsUser": 0},
            // Not at its usual place below /dev: that is the node's.
            "terminationMessagePath": "/tmp/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
        "restartPolicy": "Never",
        "tolerations": tolerate_everything(),
        "priorityClassName": priority(setting),
        // The node's own network and resolver: the factory is reached as the node itself reaches it, also where the pod
        // network is down. With the pod network, the cluster's resolver.
        "hostNetwork": (!setting.pod_network).then_some(true),
        "dnsPolicy": if setting.pod_network { "ClusterFirst" } else { "Default" },
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        // SIGTERM is handled like Ctrl-C: the program stops where it can without a trace, or finishes the few sectors
        // of its commit. What a dying network connection may take is the longest of it.
        "terminationGracePeriodSeconds": 120,
        "imagePullSecrets": setting.pull_secret.as_ref().map(|name| json!([{"name": name}])),
    })
}

/// A directory of the node. It has to be there: with any other type the container runtime tries to create what is
/// missing, and says `mkdir …: operation not permitted` of a board without EFI variables, because that is in sysfs.
fn host_path(name: &str, path: &str) -> Value {
    json!({"name": name, "hostPath": {"path": path, "type": "Directory"}})
}

/// Room for an image from a server that serves no ranges. It is on the node's disk: in memory it would count.
fn scratch() -> Value {
    json!({"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}})
}

/// The program itself takes up to 64 MiB; the rest is for the page cache, which is charged to the container too: a
/// limit without that room would stall every write to the disk. The request is as high as the limit, so that the
/// kubelet never finds the pod above what it asked for when the node runs short.
fn resources() -> Value {
    json!({
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "2", "memory": "256Mi"},
    })
}

/// Takes the program from standard input, so many blocks of it, and becomes it. The rest is for the program to read.
/// Nothing but a shell, `dd`, `wc` and `chmod` is needed.
fn carried(blocks: u64) -> Vec<String> {
    let (block, bytes) = (desk::BLOCK, blocks * desk::BLOCK as u64);
    let script = format!(
        "dd bs={block} count={blocks} iflag=fullblock of=/tmp/bootsurgeon 2>/tmp/dd || {{ cat /tmp/dd >&2; exit 1; }}; \
         [ $(wc -c </tmp/bootsurgeon) -eq {bytes} ] || {{ echo the program did not arrive whole >&2; exit 1; }}; \
         chmod 755 /tmp/bootsurgeon && exec /tmp/bootsurgeon \"$@\""
    );
    ["sh", "-c", &script, "bootsurgeon"].map(literal).to_vec()
}

fn environment(setting: &Setting, more: Vec<Value>) -> Vec<Value> {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let mut all = vec![
        from(rollout::NODE, field("spec.nodeName")),
        from(NODE_ADDRESS, field("status.hostIP")),
        variable(OPTIONS, &Value::from(setting.options()).to_string()),
    ];
    if let Some(secret) = &setting.auth_secret {
        let key = json!({"secretKeyRef": {"name": secret, "key": "token"}});
        all.push(from("BOOTSURGEON_FACTORY_TOKEN", key));
    }
    if let Some(Desk { asks, .. }) = setting.desk {
        all.push(variable(desk::VARIABLE, if asks { desk::ASKS } else { desk::LISTENS }));
    }
    all.extend(setting.env.iter().map(|(name, value)| variable(name, value)));
    all.extend(more);
    all
}

/// An environment variable with this value.
pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": literal(value)})
}

fn from(name: &str, source: Value) -> Value {
    json!({"name": name, "valueFrom": source})
}

/// Text as the container is to get it. The kubelet replaces `$(NAME)` in arguments and variables, and `$$` by `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
