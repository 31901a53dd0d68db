//! A job over many nodes, one after the other, stopped by the first that fails.
//!
//! An Indexed Job with parallelism 1 runs its pods in the order of their indexes: the job controller always starts the
//! lowest index that is neither active nor done. All pods of a job come from one template, so the template cannot name
//! the node of an index. What ties them together is this:
//!
//! - For each node there is a tiny *anchor* pod, bound to its node by name, with the labels of this job and
//!   `batch.kubernetes.io/job-completion-index: "<i>"`.
//! - The template requires pod affinity to the anchors of this job, by host name, with that index label in
//!   `matchLabelKeys`. The job controller puts the index label on each pod before it creates it, and the API server
//!   then adds `index in (<i>)` to the selector of that pod: it can go to no other node than that of anchor `i`.
//! - Job pods are no anchors themselves (their component label differs): the scheduler's exception for the first pod of
//!   a group, which lets a pod that matches its own affinity run anywhere, does not apply. Without its anchor a pod
//!   waits.
//!
//! `matchLabelKeys` in pod affinity works without a feature gate from Kubernetes 1.31 on. An older API server drops it,
//! and every anchor would do; then node affinity keeps the pods on the nodes of the list, and [`super::rollout`]
//! refuses to work on the wrong one of them.

use super::spec::{self, Role};
use super::{Manifest, Setting, Work, names, object::tidy, request_hash, rollout};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The label and annotation of a job's pods with their index.
const INDEX_LABEL: &str = "batch.kubernetes.io/job-completion-index";
/// A label with a hash of the list of nodes: anchors that were left over from a job of the same name over other nodes
/// are no anchors of this one.
const NODES_LABEL: &str = "bootsurgeon/nodes";
/// More nodes are refused: their names have to fit into one environment variable (128 KiB on Linux).
const MAX_NODES: usize = 500;
/// Kubernetes makes the pods' names and host names from the job's, with the index and five random characters behind it.
const MAX_NAME: usize = 52;
/// The image of the anchors if none is named: Talos has it on every node, as the sandbox of every pod. An anchor does
/// its work even where it cannot be pulled, because being bound to a node is all it is for.
const ANCHOR_IMAGE: &str = "registry.k8s.io/pause:3.10";
/// `nobody`.
const NOBODY: u32 = 65_534;

/// A job that does the work on these nodes in this order, and the pods that tie it to them.
///
/// # Errors
/// [`crate::Kind::Usage`] for no nodes, too many, a node twice, and names that Kubernetes would not take.
pub fn job(nodes: &[String], work: &Work, setting: &Setting) -> Result<Manifest> {
    check_nodes(nodes)?;
    work.check()?;
    setting.check()?;
    let all: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let name = match &setting.name {
        Some(name) if name.len() > MAX_NAME => {
            return Err(Error::usage(format!("{name:?} is too long for a job: up to {MAX_NAME} characters")));
        }
        Some(name) => {
            names::check_label("job", name)?;
            name.clone()
        }
        None => {
            names::short_name(&format!("bootsurgeon-{}", work.command), &request_hash(&all, work, setting), MAX_NAME)
        }
    };
    let rollout = Rollout { name, nodes, nodes_hash: names::hash(all), work, setting };
    let anchors = nodes.iter().enumerate().map(|(i, node)| rollout.anchor(i, node));
    Ok(Manifest(anchors.chain([rollout.job()]).map(tidy).collect()))
}

fn check_nodes(nodes: &[String]) -> Result<()> {
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return Err(Error::usage(format!("a job takes 1 to {MAX_NODES} nodes, not {}", nodes.len())));
    }
    let mut seen = BTreeSet::new();
    for node in nodes {
        names::check_node(node)?;
        if !seen.insert(node) {
            return Err(Error::usage(format!("node {node} is named twice")));
        }
    }
    Ok(())
}

struct Rollout<'a> {
    name: String,
    nodes: &'a [String],
    nodes_hash: String,
    work: &'a Work,
    setting: &'a Setting,
}

impl Rollout<'_> {
    fn labels(&self, role: Role) -> Value {
        let mut labels = spec::labels(&self.name, role);
        labels[NODES_LABEL] = self.nodes_hash.as_str().into();
        labels
    }

    /// The pod that marks the node of an index. It runs until it is deleted, and does nothing: it has no right that the
    /// strictest of the Pod Security Standards, `restricted`, takes away.
    fn anchor(&self, index: usize, node: &str) -> Value {
        let mut labels = self.labels(Role::Anchor);
        labels[INDEX_LABEL] = index.to_string().into();
        let name = format!("{}-anchor-{index}", self.name);
        let what = format!("marks node {node} as number {index} of job {}; delete it with the job", self.name);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": spec::metadata(&name, self.setting, labels, &what),
            "spec": {
                "containers": [{
                    "name": "anchor",
                    "image": self.setting.anchor_image.as_deref().unwrap_or(ANCHOR_IMAGE),
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "16Mi"},
                        "limits": {"cpu": "50m", "memory": "64Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                        "runAsGroup": NOBODY,
                        "runAsNonRoot": true,
                        "runAsUser": NOBODY,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }],
                "nodeName": node,
                "tolerations": spec::tolerate_everything(),
                "priorityClassName": spec::priority(self.setting),
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 0,
            },
        })
    }

    fn job(&self) -> Value {
        let nodes = spec::variable(rollout::NODES, &self.nodes.join(","));
        let mut pod = spec::privileged(self.work, self.setting, vec![nodes]);
        pod["affinity"] = self.affinity();
        let what = format!(
            "bootsurgeon {} on {}, one after the other, up to the first failure",
            self.work.command,
            self.nodes.join(", ")
        );
        let labels = self.labels(Role::Surgeon);
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": spec::metadata(&self.name, self.setting, labels.clone(), &what),
            "spec": {
                "completionMode": "Indexed",
                "completions": self.nodes.len(),
                "parallelism": 1,
                // No second try on a board in an unknown state.
                "backoffLimit": 0,
                "podFailurePolicy": stop_at_any_failure(),
                // A pod on its way out may still hold the disk.
                "podReplacementPolicy": "Failed",
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        })
    }

    /// To the node of the anchor with this pod's index, and to no node that is not in the list.
    fn affinity(&self) -> Value {
        // By the node's name and not by its label, which may be another. A term takes one name; one term is enough.
        let named =
            |node: &String| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        let listed: Vec<Value> = self.nodes.iter().map(named).collect();
        json!({
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": listed}},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "labelSelector": {"matchLabels": self.labels(Role::Anchor)},
                "matchLabelKeys": [INDEX_LABEL],
                "topologyKey": "kubernetes.io/hostname",
            }]},
        })
    }
}

/// A pod that was drained away, preempted or evicted fails the job as one that exited with an error does; and the job's
/// condition then names the reason or the exit code, which a plain backoff limit does not.
fn stop_at_any_failure() -> Value {
    json!({"rules": [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": spec::CONTAINER, "operator": "NotIn", "values": [0]}},
    ]})
}
