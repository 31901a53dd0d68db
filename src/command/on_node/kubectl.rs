//! `kubectl`: the calls that a pod on one node takes. Contexts, certificates and logins are its own business.

use super::node::Node;
use super::tool::Tool;
use crate::command::Ui;
use crate::pod::Manifest;
use crate::{Code, Error, Result};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Which cluster, as `kubectl` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `--context`.
    pub context: Option<String>,
    /// `--kubeconfig`.
    pub kubeconfig: Option<String>,
}

/// The user's `kubectl`, for one namespace.
pub(crate) struct Kubectl {
    tool: Tool,
    namespace: String,
}

impl Kubectl {
    /// The one that `KUBECTL` names, or the one on PATH.
    ///
    /// # Errors
    /// [`Code::NoTool`].
    pub(crate) fn find(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let option = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("--{name}={value}"));
        let options = [option("kubeconfig", &cluster.kubeconfig), option("context", &cluster.context)];
        let tool = Tool::find("kubectl", "KUBECTL")?.with_options(options.into_iter().flatten());
        Ok(Self { tool, namespace: namespace.to_owned() })
    }

    /// The same, whose calls are given up after so long.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Self { tool: self.tool.with_limit(limit), ..self }
    }

    /// A node; `None` where this user may not look at nodes.
    ///
    /// # Errors
    /// [`Code::Cluster`] when there is no such node, and when the cluster does not answer.
    pub(crate) fn node(&self, name: &str, ui: &dyn Ui) -> Result<Option<Node>> {
        let args = ["get", "node", name, "--ignore-not-found", "-o", "json"];
        let answer = self.tool.ask(&args, None, ui)?;
        if !answer.good && answer.stderr.contains("(Forbidden)") {
            return Ok(None);
        }
        let stdout = answer.good_or(|stderr| {
            self.tool.failed(&args, stderr).advise(format!("does `{}` work here?", self.tool.line(&["get", "nodes"])))
        })?;
        if stdout.trim_ascii().is_empty() {
            return Err(Error::new(Code::Cluster, format!("the cluster has no node {name}")).advise(format!(
                "`{}` lists them; another cluster: --context NAME",
                self.tool.line(&["get", "nodes", "-o", "wide"])
            )));
        }
        Ok(Some(Node::read(&self.json(&args, &stdout)?)))
    }

    /// Creates what a manifest describes.
    ///
    /// # Errors
    /// [`Code::Cluster`] with what the cluster says.
    pub(crate) fn create(&self, manifest: &Manifest, ui: &dyn Ui) -> Result<()> {
        let args = ["create", "-n", &self.namespace, "-f", "-", "-o", "name"];
        let document = serde_json::to_vec(manifest).map_err(|e| Error::new(Code::Bug, e.to_string()))?;
        self.tool.ask(&args, Some(&document), ui)?.good_or(|stderr| {
            let error = self.tool.failed(&args, stderr);
            if stderr.contains("PodSecurity") {
                let ns = &self.namespace;
                return error.advise(format!(
                    "the namespace must allow privileged pods: `{}`, or take --namespace kube-system",
                    self.tool.line(&["label", "namespace", ns, "pod-security.kubernetes.io/enforce=privileged"])
                ));
            }
            error
        })?;
        Ok(())
    }

    /// A pod as it is; `None` when it is not there.
    ///
    /// # Errors
    /// [`Code::Cluster`] when the cluster does not answer.
    pub(crate) fn pod(&self, name: &str, ui: &dyn Ui) -> Result<Option<Value>> {
        let args = ["get", "pod", name, "-n", &self.namespace, "--ignore-not-found", "-o", "json"];
        let stdout = self.tool.ask(&args, None, ui)?.good_or(|stderr| self.tool.failed(&args, stderr))?;
        if stdout.trim_ascii().is_empty() { Ok(None) } else { self.json(&args, &stdout).map(Some) }
    }

    /// Every event of a pod from now on, as JSON documents one behind the other: `{"type": "MODIFIED", "object": …}`.
    pub(crate) fn watch_pod(&self, name: &str, ui: &dyn Ui) -> Command {
        let object = ["get", "pod", name, "-n", &self.namespace];
        self.tool.in_background(&[&object[..], &["-o", "json", "--watch", "--output-watch-events"]].concat(), ui)
    }

    /// The pod's log from its beginning, up to the container's end.
    pub(crate) fn follow_log(&self, name: &str, container: &str, ui: &dyn Ui) -> Command {
        self.tool.in_background(&["logs", name, "-n", &self.namespace, "-c", container, "--follow"], ui)
    }

    /// Standard input of the pod's program.
    pub(crate) fn attach(&self, name: &str, container: &str, ui: &dyn Ui) -> Command {
        self.tool.in_background(&["attach", name, "-n", &self.namespace, "-c", container, "--stdin"], ui)
    }

    /// The latest thing that Kubernetes warned about a pod.
    pub(crate) fn latest_warning(&self, pod: &str, ui: &dyn Ui) -> Option<String> {
        let object = format!("involvedObject.name={pod},type=Warning");
        let args = ["get", "events", "-n", &self.namespace, "--field-selector", &object, "-o", "json"];
        let answer = self.tool.ask(&args, None, ui).ok().filter(|answer| answer.good)?;
        let events = self.json(&args, &answer.stdout).ok()?;
        let message = |event: &Value| Some(format!("{}: {}", event["reason"].as_str()?, event["message"].as_str()?));
        let at = |event: &Value| event["lastTimestamp"].as_str().unwrap_or_default().to_owned();
        events["items"].as_array()?.iter().max_by_key(|event| at(event)).and_then(message)
    }

    /// Deletes a pod. Its program gets SIGTERM and has its grace period.
    ///
    /// # Errors
    /// [`Code::Cluster`] with what the cluster says.
    pub(crate) fn delete_pod(&self, name: &str, ui: &dyn Ui) -> Result<()> {
        let args = self.delete_args(name);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.tool.ask(&args, None, ui)?.good_or(|stderr| self.tool.failed(&args, stderr)).map(drop)
    }

    /// The call that deletes a pod, to be typed.
    pub(crate) fn delete_line(&self, name: &str) -> String {
        let args = self.delete_args(name);
        self.tool.line(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The call that prints a pod's log, to be typed.
    pub(crate) fn log_line(&self, name: &str) -> String {
        self.tool.line(&["logs", "-n", &self.namespace, name])
    }

    fn delete_args(&self, name: &str) -> [String; 7] {
        ["delete", "pod", name, "-n", &self.namespace, "--ignore-not-found", "--wait=false"].map(str::to_owned)
    }

    fn json(&self, args: &[&str], text: &[u8]) -> Result<Value> {
        serde_json::from_slice(text)
            .map_err(|e| Error::new(Code::Cluster, format!("what `{}` printed is no JSON: {e}", self.tool.line(args))))
    }
}
