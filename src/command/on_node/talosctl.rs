//! What the user's own `talosctl` says of a node, and the restart through the firmware.
//!
//! Which node answers is `-n`; the endpoint, the certificates and the context are talosctl's business. Of Talos 1.5 to
//! 1.14 these have not changed (sources: `cmd/talosctl/cmd/talos/{get,reboot,service,version}.go`,
//! `cmd/talosctl/cmd/talos/output/json.go`, `pkg/machinery/resources/runtime/extension_status.go`,
//! `pkg/machinery/resources/v1alpha1/service.go`):
//!
//! - `get TYPE -o json` prints one indented document for each resource, one behind the other, with `metadata` (`id`,
//!   `created`), `spec` and `node`;
//! - a `Services.v1alpha1.talos.dev` is there only while the service runs, and is made anew when it starts again;
//! - `version --json` (an option that its help does not list) prints one document with `version.tag` for each node;
//! - `reboot --wait=false` returns once the node has agreed to restart.

use super::tool::Tool;
use crate::command::Ui;
use crate::{Code, Error, Result};
use serde_json::Value;
use std::time::Duration;

/// The most extensions or services that are believed.
const MAX_RESOURCES: usize = 4096;

/// How long a node may take to answer. talosctl itself goes on trying for minutes.
const LIMIT: Duration = Duration::from_secs(60);

/// `talosctl`, as the user has it.
#[derive(Debug)]
pub(crate) struct Talosctl {
    tool: Tool,
}

/// A service of a node that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunningService {
    /// `ext-tailscale`.
    pub(crate) id: String,
    /// Whether its health check passes; `None` where it has none, or none has been made yet.
    pub(crate) healthy: Option<bool>,
    /// When it started, by the node's clock, where that is said.
    pub(crate) since: Option<String>,
}

/// What a service does that may not be running.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceState {
    /// `Waiting`, `Finished`, …
    pub(crate) state: String,
    /// The last thing that happened to it.
    pub(crate) last: Option<String>,
}

impl Talosctl {
    /// The program in `TALOSCTL`, or the one on the path.
    ///
    /// # Errors
    /// As [`Tool::find`].
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { tool: Tool::find("talosctl", "TALOSCTL")?.with_limit(LIMIT) })
    }

    /// The version of Talos that runs: `v1.12.4`.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(crate) fn version(&self, address: &str, ui: &dyn Ui) -> Result<String> {
        let said = self.ask(address, &["version", "--json"], ui)?;
        let tag = |document: &Value| document["version"]["tag"].as_str().map(str::to_owned);
        documents(&said)?.iter().find_map(tag).ok_or_else(|| not_understood("version --json", "no version in it"))
    }

    /// The random number that the kernel made when it started.
    ///
    /// # Errors
    /// When the node does not answer, or the user's role does not let him read files (`os:admin` does).
    pub(crate) fn boot_id(&self, address: &str, ui: &dyn Ui) -> Result<String> {
        let said = self.ask(address, &["read", "/proc/sys/kernel/random/boot_id"], ui)?;
        Ok(said.trim().to_owned())
    }

    /// Names and versions of the extensions; the factory's schematic is one of them, named `schematic`.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(crate) fn extensions(&self, address: &str, ui: &dyn Ui) -> Result<Vec<(String, String)>> {
        extensions(&self.ask(address, &["get", "extensions", "-o", "json"], ui)?)
    }

    /// The services that run.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(crate) fn services(&self, address: &str, ui: &dyn Ui) -> Result<Vec<RunningService>> {
        services(&self.ask(address, &["get", "services.v1alpha1.talos.dev", "-o", "json"], ui)?)
    }

    /// What a service does that may not be running. `None`: the node has no such service.
    ///
    /// # Errors
    /// When talosctl cannot be run.
    pub(crate) fn service(&self, address: &str, id: &str, ui: &dyn Ui) -> Result<Option<ServiceState>> {
        let answer = self.tool.ask(&["-n", address, "service", id], None, ui)?;
        Ok(service_state(&String::from_utf8_lossy(&answer.stdout)))
    }

    /// Restarts the node through its firmware, and does not wait for it.
    ///
    /// # Errors
    /// When the node does not agree, or does not answer.
    pub(crate) fn reboot(&self, address: &str, ui: &dyn Ui) -> Result<()> {
        self.ask(address, &REBOOT, ui).map(drop)
    }

    /// The output of a call that has to succeed.
    fn ask(&self, address: &str, words: &[&str], ui: &dyn Ui) -> Result<String> {
        let all = [&["-n", address], words].concat();
        let stdout = self.tool.ask(&all, None, ui)?.good_or(|stderr| {
            let line = self.tool.line(&all);
            self.tool.failed(&all, stderr).advise(format!(
                "`{line}` has to work by itself: endpoints, context and role are talosctl's business (TALOSCONFIG)"
            ))
        })?;
        String::from_utf8(stdout).map_err(|_| not_understood(&words.join(" "), "it is no text"))
    }
}

/// The words that restart a node through its firmware. The default mode may start the next kernel by kexec, and then
/// neither firmware nor boot loader are asked.
pub(crate) const REBOOT: [&str; 4] = ["reboot", "--mode", "powercycle", "--wait=false"];

fn not_understood(what: &str, why: &str) -> Error {
    Error::new(Code::Cluster, format!("`talosctl {what}` printed something else than expected: {why}"))
}

/// JSON documents, one behind the other.
fn documents(text: &str) -> Result<Vec<Value>> {
    let all: std::result::Result<Vec<Value>, _> =
        serde_json::Deserializer::from_str(text).into_iter().take(MAX_RESOURCES).collect();
    all.map_err(|e| not_understood("… json", &e.to_string()))
}

fn extensions(text: &str) -> Result<Vec<(String, String)>> {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let of = |document: &Value| {
        let metadata = &document["spec"]["metadata"];
        word(&metadata["name"]).zip(word(&metadata["version"]))
    };
    let all = documents(text)?;
    all.iter().map(|d| of(d).ok_or_else(|| not_understood("get extensions", "no name or no version"))).collect()
}

fn services(text: &str) -> Result<Vec<RunningService>> {
    let of = |document: &Value| {
        let (metadata, spec) = (&document["metadata"], &document["spec"]);
        if spec["running"].as_bool()? {
            let is_known = !spec["unknown"].as_bool().unwrap_or(true);
            let healthy = spec["healthy"].as_bool().filter(|_| is_known);
            let since = metadata["created"].as_str().map(str::to_owned);
            return Some(Some(RunningService { id: metadata["id"].as_str()?.to_owned(), healthy, since }));
        }
        Some(None)
    };
    let all: Option<Vec<_>> = documents(text)?.iter().map(of).collect();
    let all = all.ok_or_else(|| not_understood("get services", "no `metadata.id`, or no `spec.running`"))?;
    Ok(all.into_iter().flatten().collect())
}

/// From the table of `talosctl service ID`: lines of a term and a text, the newest event first.
fn service_state(text: &str) -> Option<ServiceState> {
    let field = |term: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(term));
        lines.filter(|rest| rest.starts_with([' ', '\t'])).map(|rest| rest.trim().to_owned()).next()
    };
    let last = field("EVENTS").filter(|event| !event.is_empty()).map(|event| without_age(&event).to_owned());
    Some(ServiceState { state: field("STATE")?, last })
}

/// An event without how long ago it was, which is another each time it is asked for: `… (5s ago)`.
fn without_age(event: &str) -> &str {
    let age = event.rfind(" (").filter(|_| event.ends_with(" ago)"));
    age.map_or(event, |at| &event[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `output/json.go` prints it.
    const EXTENSIONS: &str = r#"{
    "metadata": {"created": "2026-02-14T10:00:00Z", "id": "0", "namespace": "runtime", "owner":
        "runtime.ExtensionStatusController", "phase": "running", "type": "ExtensionStatuses.runtime.talos.dev",
        "updated": "2026-02-14T10:00:00Z", "version": 1},
    "node": "192.168.1.85",
    "spec": {"image": "0.sqsh", "metadata": {"author": "Sidero Labs", "compatibility": {"talos": {"version":
        ">= v1.0.0"}}, "description": "…", "name": "tailscale", "version": "1.90.6"}}
}
{
    "metadata": {"id": "1"}, "node": "192.168.1.85",
    "spec": {"image": "1.sqsh", "metadata": {"name": "schematic", "version": "4a0d"}}
}
"#;

    #[test]
    fn extensions_are_read_by_name_and_version() {
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(extensions(EXTENSIONS).unwrap(), [pair("tailscale", "1.90.6"), pair("schematic", "4a0d")]);
        assert!(extensions("").unwrap().is_empty());
        for bad in ["{", "{}", "[]", r#"{"spec":{"metadata":{"name":"a"}}}"#, "NODE NAME"] {
            assert_eq!(extensions(bad).unwrap_err().code(), Code::Cluster, "{bad}");
        }
    }

    #[test]
    fn services_run_or_are_not_listed() {
        let service = |id: &str, spec: &str| {
            format!(r#"{{"metadata":{{"id":"{id}","created":"{id}-time"}},"node":"a","spec":{spec}}}"#)
        };
        let text = [
            service("apid", r#"{"running":true,"healthy":true,"unknown":false}"#),
            service("sick", r#"{"running":true,"healthy":false,"unknown":false}"#),
            service("ext-a", r#"{"running":true,"healthy":false,"unknown":true}"#),
            service("ext-b", r#"{"running":false,"healthy":false,"unknown":true}"#),
        ];
        let all = services(&text.join("\n")).unwrap();
        let short: Vec<_> = all.iter().map(|s| (s.id.as_str(), s.healthy)).collect();
        assert_eq!(short, [("apid", Some(true)), ("sick", Some(false)), ("ext-a", None)]);
        assert_eq!(all[0].since.as_deref(), Some("apid-time"));
        for bad in ["{}", r#"{"metadata":{},"spec":{"running":true}}"#, r#"{"metadata":{"id":"a"},"spec":"x"}"#] {
            services(bad).unwrap_err();
        }
    }

    #[test]
    fn a_service_that_does_not_run_says_what_it_does() {
        let rows = [
            ("NODE", "192.168.1.85"),
            ("ID", "ext-tailscale"),
            ("STATE", "Waiting"),
            ("HEALTH", "?"),
            ("EVENTS", "[Waiting]: Waiting for extension service config (5s ago)"),
            ("", "[Preparing]: x (9s ago)"),
        ];
        let text: String = rows.iter().map(|(name, value)| format!("{name:<9}{value}\n")).collect();
        let state = service_state(&text).unwrap();
        assert_eq!(state.state, "Waiting");
        assert_eq!(state.last.as_deref(), Some("[Waiting]: Waiting for extension service config"));
        assert_eq!(service_state(""), None);
        assert_eq!(service_state("STATEMENT x"), None);
    }
}
