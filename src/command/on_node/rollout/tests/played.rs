//! Nodes that are played: machines with firmware, disk and services, each with what can go wrong with it, and a clock that
//! does not have to be waited for. Every call can be the one at which the rollout is stopped.

use crate::command::on_node::node::Node;
use crate::command::on_node::rollout::site::{PodOutcome, Site};
use crate::command::on_node::talosctl::{RunningService, ServiceState};
use crate::{Code, Error, Kind, Result};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::Duration;

pub(super) const NEW: &str = "v1.12.4";
pub(super) const OLD: &str = "v1.12.3";

/// What can go wrong with a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// The firmware starts the old image.
    StartsOld,
    /// The service never runs.
    ServiceWaits,
    /// It runs for five seconds, and is started again five seconds later.
    ServiceCrashes,
    /// Its health check fails.
    ServiceSick,
    /// It agrees to restart, and does not.
    StaysUp,
    /// It goes down, and that is it.
    StaysDown,
    /// It starts, and the kubelet never gets ready.
    NeverReady,
    /// The swap is refused with this exit code.
    Refuses(u8),
    /// Another machine has its address.
    OtherMachine,
    /// The schematic is another one, of the same version.
    OtherSchematic,
    /// It is no longer ready five seconds after its restart.
    FallsLater,
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) fault: Fault,
    pub(super) disk: &'static str,
    pub(super) runs: &'static str,
    pub(super) boot: u32,
    /// When it was told to restart.
    pub(super) told: Option<Duration>,
    /// When it was ready again.
    pub(super) back: Option<Duration>,
    pub(super) swaps: u32,
    pub(super) commits: u32,
    pub(super) reboots: u32,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) machines: Vec<Machine>,
    pub(super) now: Duration,
    pub(super) calls: u32,
    /// Stops at this call; after it was done, or before.
    pub(super) stop: Option<(u32, bool)>,
    pub(super) told: Vec<String>,
}

pub(super) struct Played(pub(super) RefCell<World>);

impl Played {
    pub(super) fn new(faults: &[Fault]) -> Self {
        let machine = |(index, fault): (usize, &Fault)| Machine {
            name: ["a", "b", "c"][index].to_owned(),
            fault: *fault,
            disk: OLD,
            runs: OLD,
            boot: 1,
            told: None,
            back: None,
            swaps: 0,
            commits: 0,
            reboots: 0,
        };
        let machines = faults.iter().enumerate().map(machine).collect();
        Self(RefCell::new(World { machines, ..World::default() }))
    }

    /// A call: stopped before it, or after it.
    pub(super) fn call<T>(&self, does: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        let mut world = self.0.borrow_mut();
        world.calls += 1;
        let stop = world.stop.filter(|(call, _)| *call == world.calls).map(|(_, after)| after);
        let cancelled = || Err(Error::new(Kind::Cancelled, "stopped on request"));
        match stop {
            Some(false) => cancelled(),
            Some(true) => does(&mut world).and_then(|_| cancelled()),
            None => does(&mut world),
        }
    }

    pub(super) fn machine(&self, name: &str) -> Machine {
        self.0.borrow().machines.iter().find(|m| m.name == name).unwrap().clone()
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Machine)) {
        change(self.0.borrow_mut().machines.iter_mut().find(|m| m.name == name).unwrap());
    }
}

/// When it is down, after it was told to restart, and when it is up again, and ready.
pub(super) const DOWN: Duration = Duration::from_secs(20);
pub(super) const UP: Duration = Duration::from_secs(90);
pub(super) const READY: Duration = Duration::from_secs(110);

impl World {
    pub(super) fn of_name(&mut self, name: &str) -> Result<&mut Machine> {
        let now = self.now;
        let machine = self.machines.iter_mut().find(|m| m.name == name);
        let machine = machine.ok_or_else(|| Error::new(Code::Cluster, format!("no node {name}")))?;
        machine.live(now);
        Ok(machine)
    }

    pub(super) fn at(&mut self, address: &str) -> Result<&mut Machine> {
        let now = self.now;
        let machine = self.of_name(address.strip_prefix("10.0.0.").unwrap())?;
        match machine.state(now) {
            Phase::Up => Ok(machine),
            _ => Err(Error::new(Code::Cluster, "connection refused")),
        }
    }
}

pub(super) enum Phase {
    Up,
    Down,
    Coming,
}

impl Machine {
    pub(super) fn state(&self, now: Duration) -> Phase {
        match self.told.map(|told| now - told) {
            _ if self.fault == Fault::StaysUp => Phase::Up,
            None => Phase::Up,
            Some(since) if since < DOWN => Phase::Up,
            Some(_) if self.fault == Fault::StaysDown => Phase::Down,
            Some(since) if since < UP => Phase::Down,
            Some(_) if self.fault == Fault::NeverReady => Phase::Coming,
            Some(since) if since < READY => Phase::Coming,
            Some(_) => Phase::Up,
        }
    }

    /// Lets it start, if it is time.
    pub(super) fn live(&mut self, now: Duration) {
        let is_up = self.told.is_some_and(|told| now - told >= UP);
        if is_up && !matches!(self.fault, Fault::StaysUp | Fault::StaysDown) {
            if self.boot == self.reboots {
                self.boot += 1;
                self.runs = if self.fault == Fault::StartsOld { self.runs } else { self.disk };
            }
            if self.told.is_some_and(|told| now - told >= READY) && self.fault != Fault::NeverReady {
                (self.told, self.back) = (None, Some(now));
            }
        }
    }

    pub(super) fn boot_id(&self) -> String {
        format!("{}-boot-{}", self.name, self.boot)
    }

    pub(super) fn runs_well(&self) -> bool {
        self.runs == NEW && self.told.is_none()
    }
}

pub(super) fn image(version: &str) -> Value {
    json!({
        "version": version, "schematic": format!("schematic-of-{version}"), "arch": "arm64",
        "extensions": [{"name": "tailscale", "version": "1.90.6"}],
        "services": ["tailscale"], "waiting_services": ["tailscale"], "sha256": "00", "bytes": 1,
    })
}

impl Site for Played {
    fn node(&self, name: &str) -> Result<Node> {
        self.call(|world| {
            let now = world.now;
            let machine = world.of_name(name)?;
            let has_fallen = machine.fault == Fault::FallsLater
                && machine.back.is_some_and(|back| now - back > Duration::from_secs(5));
            let ready = matches!(machine.state(now), Phase::Up) && !has_fallen;
            Ok(Node {
                name: name.into(),
                ready: Some(ready),
                not_ready: (!ready).then(|| "Kubelet stopped posting node status.".into()),
                boot_id: machine.boot_id(),
                arch: "arm64".into(),
                os_image: format!("Talos ({})", machine.runs),
                addresses: vec![("Hostname".into(), name.into()), ("InternalIP".into(), format!("10.0.0.{name}"))],
            })
        })
    }

    fn version(&self, address: &str) -> Result<String> {
        self.call(|world| Ok(world.at(address)?.runs.to_owned()))
    }

    fn boot_id(&self, address: &str) -> Result<String> {
        self.call(|world| {
            let machine = world.at(address)?;
            Ok(if machine.fault == Fault::OtherMachine { "another".into() } else { machine.boot_id() })
        })
    }

    fn extensions(&self, address: &str) -> Result<Vec<(String, String)>> {
        self.call(|world| {
            let machine = world.at(address)?;
            let schematic = match machine.fault {
                Fault::OtherSchematic => "another".into(),
                _ => format!("schematic-of-{}", machine.runs),
            };
            Ok(vec![("tailscale".into(), "1.90.6".into()), ("schematic".into(), schematic)])
        })
    }

    fn services(&self, address: &str) -> Result<Vec<RunningService>> {
        self.call(|world| {
            let now = world.now.as_secs();
            let machine = world.at(address)?;
            let service = |healthy, since: u64| RunningService {
                id: "ext-tailscale".into(),
                healthy,
                since: Some(format!("{since}")),
            };
            Ok(match machine.fault {
                Fault::ServiceWaits => vec![],
                Fault::ServiceCrashes if now % 10 >= 5 => vec![],
                Fault::ServiceCrashes => vec![service(None, now / 10)],
                Fault::ServiceSick => vec![service(Some(false), 0)],
                _ => vec![service(None, u64::from(machine.boot))],
            })
        })
    }

    fn service(&self, address: &str, _: &str) -> Result<Option<ServiceState>> {
        self.call(|world| {
            world.at(address)?;
            let last = Some("[Waiting]: Waiting for extension service config".into());
            Ok(Some(ServiceState { state: "Waiting".into(), last }))
        })
    }

    fn reboot(&self, address: &str) -> Result<()> {
        self.call(|world| {
            let name = world.at(address)?.name.clone();
            let now = world.now;
            for other in world.machines.iter().filter(|m| m.name != name) {
                assert!(matches!(other.state(now), Phase::Up), "{name} is restarted while {} is down", other.name);
            }
            let machine = world.at(address)?;
            assert_eq!(machine.disk, NEW, "restarted before it was swapped");
            if machine.told.is_none() {
                machine.told = Some(now);
                machine.reboots += 1;
            }
            Ok(())
        })
    }

    fn swap(&self, node: &str, dry_run: bool) -> Result<PodOutcome> {
        self.call(|world| {
            if !dry_run {
                let before = world.machines.iter().take_while(|m| m.name != node);
                before.for_each(|m| assert!(m.runs_well(), "{node} is swapped before {} is well: {m:?}", m.name));
            }
            let machine = world.of_name(node)?;
            machine.swaps += u32::from(!dry_run);
            if let Fault::Refuses(exit_code) = machine.fault {
                let e = Error::new(Code::Untrusted, "no signature").with_esp_changed(false);
                return Ok(PodOutcome { exit_code, document: json!({ "error": e }) });
            }
            let in_place = machine.disk == NEW;
            let committed = !in_place && !dry_run;
            if committed {
                machine.disk = NEW;
                machine.commits += 1;
            }
            Ok(PodOutcome {
                exit_code: 0,
                document: json!({
                    "committed": committed, "already_in_place": in_place, "sha256": "5a", "image": image(NEW),
                    "plan": {"backup": "Talos-v1.12.3.efi.bak.1"}, "warnings": [],
                    "change": {"version_before": OLD, "added": ["tailscale"], "removed": []},
                }),
            })
        })
    }

    fn waiting(&self, what: &str) {
        self.tell(what);
    }

    fn warn(&self, line: &str) {
        self.tell(line);
    }

    fn tell(&self, line: &str) {
        self.0.borrow_mut().told.push(line.to_owned());
    }

    fn pause(&self, time: Duration) -> Result<()> {
        self.call(|world| {
            world.now += time;
            (0..world.machines.len()).for_each(|i| world.machines[i].live(world.now));
            Ok(())
        })
    }

    fn now(&self) -> Duration {
        self.0.borrow().now
    }
}
