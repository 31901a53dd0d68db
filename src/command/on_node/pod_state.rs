//! A pod, as Kubernetes sees it: has it begun, why not, how did it end.

use serde_json::Value;

/// What `kubectl get pod NAME -o json` says of a pod with one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PodState {
    /// It has not begun.
    Waiting {
        /// Why, where that is known: `ImagePullBackOff`, and more in words.
        reason: Option<String>,
        message: Option<String>,
    },
    /// Its program runs.
    Running,
    /// Its program has ended.
    Ended(End),
    /// It was ended from outside before its program did, or its program never ran: evicted, rejected by the node.
    Failed { reason: Option<String>, message: Option<String> },
}

/// How a pod's program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Its exit code; 137 when it was killed.
    pub(super) exit_code: u8,
    /// `Completed`, `Error`, `OOMKilled`.
    pub(super) reason: Option<String>,
    /// More of it.
    pub(super) message: Option<String>,
}

impl End {
    /// Whether the program never ran, because it could not be started.
    pub(super) fn is_no_start(&self) -> bool {
        matches!(self.reason.as_deref(), Some("StartError" | "ContainerCannotRun"))
    }
}

impl PodState {
    /// Reads it.
    pub(super) fn read(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let state = &pod["status"]["containerStatuses"][0]["state"];
        if let Some(ended) = state.get("terminated") {
            // A code outside of a byte is nothing that a program can say.
            let code = ended["exitCode"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
            let (reason, message) = (text(&ended["reason"]), text(&ended["message"]));
            return Self::Ended(End { exit_code: code, reason, message });
        }
        if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
            return Self::Failed { reason: text(&pod["status"]["reason"]), message: text(&pod["status"]["message"]) };
        }
        if state.get("running").is_some() {
            return Self::Running;
        }
        if let Some(waiting) = state.get("waiting") {
            return Self::Waiting { reason: text(&waiting["reason"]), message: text(&waiting["message"]) };
        }
        let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let unscheduled = conditions.iter().find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
        Self::Waiting {
            reason: unscheduled.and_then(|c| text(&c["reason"])),
            message: unscheduled.and_then(|c| text(&c["message"])),
        }
    }

    /// Whether its program runs or has run, so that there is a log.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self, Self::Running | Self::Ended(_))
    }

    /// Whether no waiting helps: the reason lies in the request or on the node.
    pub(super) fn is_hopeless(&self) -> bool {
        matches!(self, Self::Waiting { reason: Some(reason), .. }
            if matches!(reason.as_str(), "ErrImageNeverPull" | "InvalidImageName" | "CreateContainerConfigError" | "CreateContainerError"))
    }

    /// Why it does not run, in words.
    pub(super) fn why(&self) -> Option<String> {
        let (Self::Waiting { reason, message } | Self::Failed { reason, message }) = self else { return None };
        match (reason, message) {
            (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
            (one, None) | (None, one) => one.clone(),
        }
    }
}

/// Whether this says no more than that a pod is being prepared: every pod passes through it, and one whose volume cannot
/// be mounted stays there.
pub(super) fn says_nothing(why: Option<&str>) -> bool {
    matches!(why, None | Some("ContainerCreating" | "PodInitializing"))
}

/// Why a pod has not begun, from one look to the next: a node that tries again goes through the same reasons again.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    told: Vec<String>,
    /// Why the image was not pulled, which a node that waits before it tries again does not say.
    pull: Option<String>,
}

impl Reasons {
    /// Whether this is to be told: its reason was not told before. What comes after the reason differs with every try,
    /// by a port or a time.
    pub(super) fn is_new(&mut self, why: &str) -> bool {
        const MOST: usize = 32;
        if why.starts_with("ErrImagePull: ") {
            self.pull = Some(why.to_owned());
        }
        let reason = why.split(": ").next().unwrap_or(why);
        if says_nothing(Some(why)) || self.told.len() >= MOST || self.told.iter().any(|told| told == reason) {
            return false;
        }
        self.told.push(reason.to_owned());
        true
    }

    /// What is behind the last reason.
    pub(super) fn cause(&self, why: Option<String>) -> Option<String> {
        match why {
            Some(why) if why.starts_with("ImagePullBackOff") => Some(self.pull.clone().unwrap_or(why)),
            why => why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn states_of_a_pod() {
        let with = |state: Value| json!({"status": {"phase": "Pending", "containerStatuses": [{"state": state}]}});
        let read = |pod: &Value| PodState::read(pod);
        assert_eq!(read(&Value::Null), PodState::Waiting { reason: None, message: None });
        assert_eq!(read(&with(json!({"running": {"startedAt": "x"}}))), PodState::Running);
        let ended = read(&with(json!({"terminated": {"exitCode": 3, "reason": "Error"}})));
        assert_eq!(ended, PodState::Ended(End { exit_code: 3, reason: Some("Error".into()), message: None }));
        let odd = read(&with(json!({"terminated": {"exitCode": 1024}})));
        assert_eq!(odd, PodState::Ended(End { exit_code: 255, reason: None, message: None }));
        let pull = read(&with(json!({"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}})));
        assert!(pull.is_hopeless() && !pull.has_begun());
        assert_eq!(pull.why().as_deref(), Some("ErrImageNeverPull: not present"));
        let creating = read(&with(json!({"waiting": {"reason": "ContainerCreating"}})));
        assert!(!creating.is_hopeless());
        assert_eq!(creating.why().as_deref(), Some("ContainerCreating"));
        let unscheduled = json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}});
        assert_eq!(read(&unscheduled).why().as_deref(), Some("Unschedulable: 0/3 nodes"));
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}});
        assert_eq!(read(&evicted).why().as_deref(), Some("Evicted: low on memory"));
        assert!(!read(&evicted).has_begun());
    }

    #[test]
    fn reasons_are_told_once_and_the_cause_is_kept() {
        let mut reasons = Reasons::default();
        let told: Vec<&str> = [
            "ContainerCreating",
            "ErrImagePull: dial tcp 127.0.0.1:50192: refused",
            "ImagePullBackOff: Back-off pulling image",
            "ErrImagePull: dial tcp 127.0.0.1:50194: refused",
            "ImagePullBackOff: Back-off pulling image",
            "FailedMount: no such directory",
        ]
        .into_iter()
        .filter(|why| reasons.is_new(why))
        .collect();
        assert_eq!(
            told,
            [
                "ErrImagePull: dial tcp 127.0.0.1:50192: refused",
                "ImagePullBackOff: Back-off pulling image",
                "FailedMount: no such directory"
            ]
        );
        let cause = |why: &str| reasons.cause(Some(why.to_owned())).unwrap();
        assert_eq!(
            cause("ImagePullBackOff: Back-off pulling image"),
            "ErrImagePull: dial tcp 127.0.0.1:50194: refused"
        );
        assert_eq!(cause("FailedMount: no"), "FailedMount: no");
        assert_eq!(reasons.cause(None), None);
    }
}
