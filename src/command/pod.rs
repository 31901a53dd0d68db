//! `pod`: manifests for Kubernetes, and what to know before they are used.

use super::{Event, Ui};
use crate::Result;
use crate::pod::{self, DEFAULT_NAMESPACE, Manifest, Setting, Work};
use serde::Serialize;

/// Which nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// `pod manifest --node`.
    One(String),
    /// `pod job --nodes`: one after the other.
    InTurn(Vec<String>),
}

/// What `pod` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRequest {
    /// Where.
    pub nodes: Nodes,
    /// What.
    pub work: Work,
    /// In which surroundings.
    pub setting: Setting,
}

/// The manifest. It serialises as itself.
#[derive(Debug, Serialize)]
#[serde(transparent)]
#[non_exhaustive]
pub struct PodReport {
    /// The objects to create.
    pub manifest: Manifest,
}

impl PodRequest {
    /// Makes the manifest.
    ///
    /// # Errors
    /// As [`pod::pod`] and [`pod::job`].
    pub fn run(&self, ui: &dyn Ui) -> Result<PodReport> {
        let manifest = match &self.nodes {
            Nodes::One(node) => pod::pod(node, &self.work, &self.setting)?,
            Nodes::InTurn(nodes) => pod::job(nodes, &self.work, &self.setting)?,
        };
        if self.setting.image.is_none() {
            ui.event(Event::Warning(format!(
                "without --image the nodes must have {} already, for nothing is pulled: push the image of the release \
                    to \
                 your registry and name it with --image",
                self.setting.image()
            )));
        }
        let namespace = self.setting.namespace();
        if namespace != DEFAULT_NAMESPACE {
            ui.event(Event::Warning(format!(
                "namespace {namespace} must allow privileged pods: \
                 kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged"
            )));
        }
        self.next_steps(manifest.name()).into_iter().for_each(|line| ui.event(Event::Note(line)));
        Ok(PodReport { manifest })
    }

    fn next_steps(&self, name: &str) -> Vec<String> {
        let kubectl = format!("kubectl -n {}", self.setting.namespace());
        let labels = format!("-l app.kubernetes.io/instance={name}");
        let (logs, delete) = match self.nodes {
            Nodes::One(_) => (format!("logs -f pod/{name}"), format!("delete pod {labels}")),
            Nodes::InTurn(_) => {
                let pods = format!("{labels},app.kubernetes.io/component=surgeon");
                (format!("logs {pods} --prefix --tail=-1"), format!("delete job,pod {labels}"))
            }
        };
        let mut steps = vec![
            "start:    kubectl create -f FILE".to_owned(),
            format!("report:   {kubectl} {logs}"),
            format!("clean up: {kubectl} {delete}  (also before it is created again)"),
        ];
        if matches!(self.nodes, Nodes::InTurn(_)) {
            steps.push(
                "          once the job is done and before a node is drained: the job's anchors are pods without a \
                 controller, at which `kubectl drain` stops"
                    .to_owned(),
            );
        }
        steps
    }
}
