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
use super::{Manifest, Object, Setting, Work, names, request_hash, rollout};
use crate::{Error, Result};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodAffinity, PodAffinityTerm, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::{BTreeMap, BTreeSet};

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
const NOBODY: i64 = 65_534;

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
    let anchors = nodes.iter().enumerate().map(|(i, node)| Object::Pod(Box::new(rollout.anchor(i, node))));
    Ok(Manifest(anchors.chain([Object::Job(Box::new(rollout.job()))]).collect()))
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
    fn labels(&self, role: Role) -> BTreeMap<String, String> {
        let mut labels = spec::labels(&self.name, role);
        labels.insert(NODES_LABEL.into(), self.nodes_hash.clone());
        labels
    }

    /// The pod that marks the node of an index. It runs until it is deleted, and does nothing: it has no right that the
    /// strictest of the Pod Security Standards, `restricted`, takes away.
    fn anchor(&self, index: usize, node: &str) -> Pod {
        let mut labels = self.labels(Role::Anchor);
        labels.insert(INDEX_LABEL.into(), index.to_string());
        let what = format!("marks node {node} as number {index} of job {}; delete it with the job", self.name);
        let container = Container {
            name: "anchor".into(),
            image: Some(self.setting.anchor_image.clone().unwrap_or_else(|| ANCHOR_IMAGE.into())),
            image_pull_policy: Some("IfNotPresent".into()),
            resources: Some(ResourceRequirements {
                requests: spec::quantities([("cpu", "1m"), ("memory", "16Mi")]),
                limits: spec::quantities([("cpu", "50m"), ("memory", "64Mi")]),
                ..ResourceRequirements::default()
            }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
                read_only_root_filesystem: Some(true),
                run_as_group: Some(NOBODY),
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
                ..SecurityContext::default()
            }),
            ..Container::default()
        };
        let spec = PodSpec {
            containers: vec![container],
            node_name: Some(node.to_owned()),
            tolerations: spec::tolerate_everything(),
            priority_class_name: spec::priority(self.setting),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(0),
            ..PodSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(format!("{}-anchor-{index}", self.name)),
            namespace: Some(self.setting.namespace().to_owned()),
            labels: Some(labels),
            annotations: Some(spec::description(what)),
            ..ObjectMeta::default()
        };
        Pod { metadata, spec: Some(spec), status: None }
    }

    fn job(&self) -> Job {
        let mut pod =
            spec::privileged(self.work, self.setting, vec![spec::variable(rollout::NODES, &self.nodes.join(","))]);
        pod.affinity = Some(self.affinity());
        let what = format!(
            "bootsurgeon {} on {}, one after the other, up to the first failure",
            self.work.command,
            self.nodes.join(", ")
        );
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(self.labels(Role::Surgeon)), ..ObjectMeta::default() }),
            spec: Some(pod),
        };
        let count = i32::try_from(self.nodes.len()).ok();
        let spec = JobSpec {
            completion_mode: Some("Indexed".into()),
            completions: count,
            parallelism: Some(1),
            // No second try on a board in an unknown state.
            backoff_limit: Some(0),
            pod_failure_policy: Some(stop_at_any_failure()),
            // A pod on its way out may still hold the disk.
            pod_replacement_policy: Some("Failed".into()),
            template,
            ..JobSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.setting.namespace().to_owned()),
            labels: Some(self.labels(Role::Surgeon)),
            annotations: Some(spec::description(what)),
            ..ObjectMeta::default()
        };
        Job { metadata, spec: Some(spec), status: None }
    }

    /// To the node of the anchor with this pod's index, and to no node that is not in the list.
    fn affinity(&self) -> Affinity {
        let anchors = LabelSelector { match_labels: Some(self.labels(Role::Anchor)), ..LabelSelector::default() };
        let term = PodAffinityTerm {
            label_selector: Some(anchors),
            match_label_keys: Some(vec![INDEX_LABEL.into()]),
            topology_key: "kubernetes.io/hostname".into(),
            ..PodAffinityTerm::default()
        };
        // By the node's name and not by its label, which may be another. A term takes one name; one term is enough.
        let named = |node: &String| NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![node.clone()]),
            }]),
            ..NodeSelectorTerm::default()
        };
        let listed = NodeSelector { node_selector_terms: self.nodes.iter().map(named).collect() };
        Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(listed),
                ..NodeAffinity::default()
            }),
            pod_affinity: Some(PodAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![term]),
                ..PodAffinity::default()
            }),
            ..Affinity::default()
        }
    }
}

/// A pod that was drained away, preempted or evicted fails the job as one that exited with an error does; and the job's
/// condition then names the reason or the exit code, which a plain backoff limit does not.
fn stop_at_any_failure() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".into(), status: "True".into() };
    let exit_code = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some(spec::CONTAINER.into()),
        operator: "NotIn".into(),
        values: vec![0],
    };
    let fail = || "FailJob".to_owned();
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: fail(),
                on_pod_conditions: Some(vec![disrupted]),
                ..PodFailurePolicyRule::default()
            },
            PodFailurePolicyRule { action: fail(), on_exit_codes: Some(exit_code), ..PodFailurePolicyRule::default() },
        ],
    }
}
