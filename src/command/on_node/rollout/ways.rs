//! Where a rollout stopped at a node: what is known of it and what is not, and the commands that lead further or back.

use super::super::node::Node;
use super::super::talosctl::REBOOT;
use super::report::Way;
use super::state::{NodeState, Step};
use super::validate::Expected;
use crate::{Code, Error};

/// How commands name the nodes' disk.
pub(super) struct Words {
    /// The disk, as the nodes name it.
    pub(super) disk: String,
    /// Options of `pod run` that were given, and are needed again: `--image-ref REF`, `--namespace NAME`.
    pub(super) pod: Vec<String>,
    /// Options of `swap` that were given: each one's ID with its words, `partition` and `--partition N`.
    pub(super) options: Vec<(String, Vec<String>)>,
}

/// Options of `swap` that other commands have, too, and need where the swap needed them.
const SHARED: [(&str, &[&str]); 4] = [
    ("restore", &["partition", "efivars", "cert", "allow_untrusted"]),
    ("status", &["partition", "efivars"]),
    ("doctor", &["partition", "efivars"]),
    ("recover", &["partition"]),
];

impl Words {
    /// What is known of a node where the rollout has stopped, and the ways on. `node`: what the API server said of it
    /// just now, if it did.
    pub(super) fn of(
        &self,
        state: &NodeState,
        node: Option<&Node>,
        address: Option<&str>,
        error: &Error,
    ) -> (Vec<String>, Vec<Way>) {
        let mut known = Vec::new();
        let mut ways = Vec::new();
        match state.step {
            Step::Untouched => known.push("Its ESP is as it was, and it was not restarted.".to_owned()),
            Step::Swapping => {
                known.push("The swap has begun; whether it was committed is not known here.".to_owned());
                known.push("It was not restarted by this rollout.".to_owned());
                if matches!(error.code(), Code::Interrupted | Code::RecordVersion) {
                    ways.push(way("finishes what was interrupted, or undoes it", [self.pod_run(state, "recover")]));
                } else {
                    ways.push(way("says what is on its ESP, and what it starts", [self.pod_run(state, "status")]));
                }
            }
            Step::Swapped => {
                known.push(image_on_disk(state));
                known.push("It was not restarted by this rollout: it runs what it ran before.".to_owned());
                ways.extend(self.restore(state, None));
            }
            Step::Restarting | Step::Restarted => {
                known.push(image_on_disk(state));
                self.after_restart(state, node, address, &mut known, &mut ways);
            }
            Step::Done => {}
        }
        ways.push(Way { why: goes_on(state).to_owned(), run: Vec::new() });
        (known, ways)
    }

    fn after_restart(
        &self,
        state: &NodeState,
        node: Option<&Node>,
        address: Option<&str>,
        known: &mut Vec<String>,
        ways: &mut Vec<Way>,
    ) {
        let before = state.boot_id.as_deref().unwrap_or("not known");
        let reboot = || reboot(address.unwrap_or("ADDRESS"));
        let Some(node) = node else {
            known.push("The API server does not say now whether it is ready.".to_owned());
            ways.extend(self.restore(state, Some(reboot())));
            ways.extend(Self::elsewhere(state));
            return;
        };
        let why = node.not_ready.as_deref().map_or_else(String::new, |why| format!(" ({why})"));
        let is_another = node.boot_id != before || state.step == Step::Restarted;
        match (is_another, node.ready == Some(true)) {
            (false, true) => {
                known.push(format!("It is ready, with the boot ID from before ({before}): it has not restarted."));
                ways.extend(self.restore(state, None));
            }
            (false, false) => {
                known.push(format!("It is not ready{why}, and the API server has its boot ID from before ({before})."));
                known.push("Whether it is going down, or does not start, cannot be told from here.".to_owned());
                ways.extend(self.restore(state, Some(reboot())));
                ways.extend(Self::elsewhere(state));
            }
            (true, false) => {
                known.push(format!("It has started again (boot ID {}), and is not ready{why}.", node.boot_id));
                ways.extend(self.restore(state, Some(reboot())));
                ways.extend(Self::elsewhere(state));
            }
            (true, true) => {
                known.push(format!("It is up and ready (boot ID {}).", node.boot_id));
                ways.push(way("says why it starts what it starts", [self.pod_run(state, "doctor")]));
                ways.extend(self.restore(state, Some(reboot())));
                let services = state.expected.as_ref().map(Expected::services).unwrap_or_default();
                if let Some(address) = address.filter(|_| !services.is_empty()) {
                    let logs =
                        services.iter().map(|id| ["talosctl", "-n", address, "logs", id].map(str::to_owned).to_vec());
                    ways.push(way("what its extension services themselves say", logs));
                }
            }
        }
    }

    /// The way back: the image from before, and a restart where the new one may be running.
    fn restore(&self, state: &NodeState, reboot: Option<Vec<String>>) -> Option<Way> {
        if !state.committed {
            return None;
        }
        let why = match reboot {
            Some(_) => "takes the node back to the image from before; this works while a pod can run on it",
            None => "puts the image from before back on its ESP",
        };
        Some(way(why, std::iter::once(self.pod_run(state, "restore")).chain(reboot)))
    }

    /// Where no pod runs any more.
    fn elsewhere(state: &NodeState) -> Option<Way> {
        state.committed.then(|| {
            let words = ["bootsurgeon", "restore", "/dev/sdX"].map(str::to_owned).to_vec();
            way("if it does not come back: its disk in another machine, under the name that it has there", [words])
        })
    }

    fn pod_run(&self, state: &NodeState, command: &str) -> Vec<String> {
        let mut words: Vec<String> = ["bootsurgeon", "pod", "run", "--node", &state.node].map(str::to_owned).to_vec();
        words.extend(["--disk".to_owned(), self.disk.clone()]);
        words.extend(self.pod.iter().cloned());
        words.push(command.to_owned());
        let shared = SHARED.iter().find(|(name, _)| *name == command).map_or(&[][..], |(_, options)| options);
        let options = self.options.iter().filter(|(id, _)| shared.contains(&id.as_str()));
        words.extend(options.flat_map(|(_, words)| words.iter().cloned()));
        words
    }
}

fn way(why: &str, run: impl IntoIterator<Item = Vec<String>>) -> Way {
    Way { why: why.to_owned(), run: run.into_iter().collect() }
}

fn reboot(address: &str) -> Vec<String> {
    ["talosctl", "-n", address].iter().chain(&REBOOT[..3]).map(|w| (*w).to_owned()).collect()
}

fn image_on_disk(state: &NodeState) -> String {
    let hash = state.sha256.as_deref().unwrap_or("not known");
    let backup = state.backup.as_ref().map_or_else(String::new, |name| format!(", and the one from before as {name}"));
    match state.committed {
        true => format!("The new image (SHA-256 {hash}) is on its ESP{backup}."),
        false => format!("The image (SHA-256 {hash}) was on its ESP before, and nothing was changed there."),
    }
}

/// What the same command does when it is run again.
fn goes_on(state: &NodeState) -> &'static str {
    match state.step {
        Step::Untouched => "the same command again goes on with this node",
        Step::Swapping => "the same command again swaps once more, which changes nothing where it was done already",
        Step::Swapped => "the same command again goes on with its restart",
        Step::Restarting => "the same command again tells it to restart if it has not, and waits for it",
        Step::Restarted | Step::Done => {
            "the same command again validates it once more; with --force it begins anew with the first node"
        }
    }
}
