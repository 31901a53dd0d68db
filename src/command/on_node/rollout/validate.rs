//! Whether a node runs the image that was put on its disk, and what the image is to do there.

use super::super::talosctl::RunningService;
use super::site::Site;
use crate::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The extension that names the schematic: the factory's last layer.
const SCHEMATIC: &str = "schematic";
/// The layer with the index of kernel modules, which nobody asked for and no image lists.
const MODULES: &str = "modules.dep";

/// How long until a node is looked at again, after so long a wait.
pub(super) fn look_again(waited: Duration) -> Duration {
    (waited / 10).clamp(Duration::from_millis(250), Duration::from_secs(3))
}

/// What a node that runs the image has to show: the part of the image's summary (`swap --json`, `image`) that says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its Talos version: `v1.12.4`.
    pub version: Option<String>,
    /// The ID of its schematic; images that no factory made have none.
    pub schematic: Option<String>,
    /// Its extensions.
    pub extensions: Vec<ExpectedExtension>,
    /// Names of its extension services, without `ext-`; `None` where not all could be read.
    pub services: Option<Vec<String>>,
    /// Names of those that wait for an ExtensionServiceConfig.
    pub waiting_services: Vec<String>,
}

/// An extension that has to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedExtension {
    /// `tailscale`.
    pub name: String,
    /// `1.90.6`.
    pub version: String,
}

impl Expected {
    /// What a node shows that this image would not show, or the other way round: one sentence each, none where the node
    /// runs it. `running`: names and versions of the extensions of the node.
    fn differences(&self, version: &str, running: &[(String, String)]) -> Vec<String> {
        let mut differences = Vec::new();
        let number = |version: &str| version.strip_prefix('v').unwrap_or(version).to_owned();
        let wanted = self.version.as_deref().unwrap_or_default();
        if number(version) != number(wanted) {
            differences.push(format!("it runs Talos {version}, and the image is {wanted}"));
        }
        let find = |name: &str| running.iter().find(|(found, _)| found == name).map(|(_, version)| version.as_str());
        match (&self.schematic, find(SCHEMATIC)) {
            (Some(wanted), Some(found)) if wanted == found => {}
            (None, None) => {}
            (Some(wanted), Some(found)) => {
                differences.push(format!("its schematic is {found}, and the image's is {wanted}"));
            }
            (Some(wanted), None) => differences.push(format!("it names no schematic, and the image's is {wanted}")),
            (None, Some(found)) => differences.push(format!("its schematic is {found}, and the image has none")),
        }
        for wanted in &self.extensions {
            match find(&wanted.name) {
                Some(found) if found == wanted.version => {}
                Some(found) => differences
                    .push(format!("its extension {} is {found}, and the image's is {}", wanted.name, wanted.version)),
                None => differences.push(format!("the extension {} {} is missing", wanted.name, wanted.version)),
            }
        }
        let is_listed = |name: &str| self.extensions.iter().any(|e| e.name == name);
        let others = running.iter().map(|(name, _)| name).filter(|name| *name != SCHEMATIC && *name != MODULES);
        for other in others.filter(|name| !is_listed(name)) {
            differences.push(format!("it has the extension {other}, and the image has not"));
        }
        differences
    }

    /// The services that have to run, as `talosctl` names them.
    pub(super) fn services(&self) -> Vec<String> {
        let all = self.services.as_ref().unwrap_or(&self.waiting_services);
        all.iter().map(|name| format!("ext-{name}")).collect()
    }

    /// In a line: `Talos v1.12.4, schematic 4a0d…, tailscale 1.90.6`.
    pub(super) fn in_words(&self) -> String {
        let mut words = vec![format!("Talos {}", self.version.as_deref().unwrap_or("of unknown version"))];
        words.extend(self.schematic.as_ref().map(|id| format!("schematic {id}")));
        words.extend(self.extensions.iter().map(|e| format!("{} {}", e.name, e.version)));
        words.join(", ")
    }
}

/// What a node shows that the image would not: one sentence each. Services are another question.
///
/// # Errors
/// When the node does not answer.
pub(super) fn differences(site: &dyn Site, address: &str, expected: &Expected) -> Result<Vec<String>> {
    Ok(expected.differences(&site.version(address)?, &site.extensions(address)?))
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the node to be ready again.
    pub(super) ready: Duration,
    /// For its services to run.
    pub(super) services: Duration,
    /// So long they have to have been running without a new start.
    pub(super) settle: Duration,
}

/// Waits until the node shows what the image holds, and its services run. What it shows of the image cannot change any
/// more, so that a difference ends it at once; that the node does not answer does not.
///
/// # Errors
/// [`Code::NodeDiffers`] when it does not; [`crate::Kind::Cancelled`].
pub(super) fn validate(site: &dyn Site, address: &str, expected: &Expected, patience: Patience) -> Result<Vec<String>> {
    let begin = site.now();
    let end = begin + patience.services;
    loop {
        match differences(site, address, expected) {
            Ok(differences) if differences.is_empty() => break,
            Ok(differences) => return Err(Error::new(Code::NodeDiffers, differences.join("; "))),
            Err(e) if e.code() == Code::Cancelled || site.now() >= end => return Err(e),
            Err(e) => site.waiting(&e.to_string()),
        }
        site.pause(look_again(site.now() - begin))?;
    }
    let services = services(site, address, &expected.services(), end, patience.settle)?;
    let mut shown = vec![expected.in_words()];
    shown.extend((!services.is_empty()).then(|| format!("running: {}", services.join(", "))));
    if expected.services.is_none() {
        shown.push("which other services the image has is not known: not all of its extensions could be read".into());
    }
    Ok(shown)
}

/// What a service that is wanted does.
enum Service {
    /// It runs, and nothing speaks against its health; since when.
    Runs(Option<String>),
    /// It ran to its end, and is not meant to run again.
    Finished,
    /// Anything else, in words.
    Not(String),
}

/// Waits until all services run, and go on doing so: one that fails and is started again every few seconds is running
/// in between, too.
fn services(site: &dyn Site, address: &str, wanted: &[String], end: Duration, settle: Duration) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let begin = site.now();
    let mut steady: Option<(Duration, Vec<Option<String>>)> = None;
    loop {
        let seen = look(site, address, wanted);
        let not: Vec<String> = match &seen {
            Ok(seen) => {
                wanted.iter().zip(seen).filter_map(|(id, s)| s.is_not().map(|why| format!("{id} {why}"))).collect()
            }
            Err(e) if e.code() == Code::Cancelled => return seen.map(|_| Vec::new()),
            Err(e) => vec![e.to_string()],
        };
        let now = site.now();
        let mut why = not.join("; ");
        if let (true, Ok(seen)) = (not.is_empty(), &seen) {
            let starts: Vec<_> = seen.iter().map(Service::since).collect();
            match &steady {
                Some((from, before)) if *before == starts && now - *from >= settle => {
                    return Ok(wanted.iter().zip(seen).map(|(id, s)| s.in_words(id)).collect());
                }
                Some((_, before)) if *before == starts => {}
                _ => steady = Some((now, starts)),
            }
            why = format!("{}: running; waiting to see that there is no new start", wanted.join(", "));
        } else {
            steady = None;
        }
        if now >= end + if not.is_empty() { settle } else { Duration::ZERO } {
            let why = if not.is_empty() {
                format!("{} run, and were started again and again", wanted.join(", "))
            } else {
                why
            };
            return Err(Error::new(Code::NodeDiffers, why));
        }
        site.waiting(&why);
        site.pause(look_again(now - begin))?;
    }
}

fn look(site: &dyn Site, address: &str, wanted: &[String]) -> Result<Vec<Service>> {
    let running = site.services(address)?;
    wanted.iter().map(|id| service(site, address, id, &running)).collect()
}

fn service(site: &dyn Site, address: &str, id: &str, running: &[RunningService]) -> Result<Service> {
    match running.iter().find(|service| service.id == id) {
        Some(service) if service.healthy == Some(false) => {
            return Ok(Service::Not("is running, and its health check fails".into()));
        }
        Some(service) => return Ok(Service::Runs(service.since.clone())),
        None => {}
    }
    Ok(match site.service(address, id)? {
        Some(state) if state.state == "Finished" => Service::Finished,
        Some(state) => {
            let last = state.last.map_or_else(String::new, |last| format!(" ({last})"));
            Service::Not(format!("is not running: {}{last}", state.state))
        }
        None => Service::Not("is not running: the node has no such service".into()),
    })
}

impl Service {
    fn is_not(&self) -> Option<&str> {
        match self {
            Self::Not(why) => Some(why),
            Self::Runs(_) | Self::Finished => None,
        }
    }

    fn since(&self) -> Option<String> {
        match self {
            Self::Runs(since) => since.clone(),
            Self::Finished | Self::Not(_) => None,
        }
    }

    fn in_words(&self, id: &str) -> String {
        match self {
            Self::Finished => format!("{id} (finished)"),
            Self::Runs(_) | Self::Not(_) => id.to_owned(),
        }
    }
}
