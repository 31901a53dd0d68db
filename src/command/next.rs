//! What is left to do once the ESP is as it should be: things on the node, in order, as commands to copy.

use crate::disk::{Shape, Target};
use crate::doctor::DiskWords;
use crate::uki::Family;
use crate::verify::{ExtensionFacts, waits};
use serde::Serialize;

/// Stands in commands where the node's name is not known.
const SOME_NODE: &str = "NODE";

/// Something to do next, by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NextStep {
    /// What to type. `None` where only words help.
    pub command: Option<String>,
    /// Why, or what it should show.
    pub why: String,
}

/// What the steps depend on.
pub(super) struct After<'a> {
    /// Where the change was made.
    pub(super) target: &'a Target,
    /// How commands name it.
    pub(super) words: &'a DiskWords,
    /// Whether a copy was changed (`--out`): then the way back is the image that was given.
    pub(super) on_a_copy: bool,
    /// The node's name or address, as `talosctl -n` takes it.
    pub(super) node: Option<&'a str>,
    /// Whose image starts now: `talosctl` helps with Talos alone.
    pub(super) family: Family,
    /// The extensions of the image that starts now.
    pub(super) extensions: &'a [ExtensionFacts],
    /// Its services that wait for an ExtensionServiceConfig.
    pub(super) waiting: &'a [String],
}

impl After<'_> {
    /// The steps: what has to come before the restart, the restart, what to look at then, and the way back.
    pub(super) fn steps(&self) -> Vec<NextStep> {
        let mut steps: Vec<_> =
            self.waiting.iter().map(|service| NextStep { command: None, why: waits(service) }).collect();
        if self.family == Family::Talos {
            self.on_talos(&mut steps);
        } else {
            steps.push(if self.on_the_board() {
                let why = "through the firmware: a kexec would pass the boot loader by";
                NextStep { command: Some("systemctl reboot".into()), why: why.into() }
            } else {
                from_this_image()
            });
            steps.push(NextStep { command: Some("uname -r".into()), why: "the kernel that runs then".into() });
        }
        if !self.on_a_copy {
            steps.push(NextStep {
                command: Some(self.words.command("restore", "").trim_matches('`').to_owned()),
                why: "the way back".into(),
            });
        }
        steps
    }

    fn on_the_board(&self) -> bool {
        matches!(self.target.shape, Shape::WholeDisk | Shape::PartitionDevice)
    }

    fn on_talos(&self, steps: &mut Vec<NextStep>) {
        let node = self.node.unwrap_or(SOME_NODE);
        let talosctl = |what: &str, why: String| NextStep { command: Some(format!("talosctl -n {node} {what}")), why };
        steps.push(if self.on_the_board() {
            talosctl(
                "reboot --mode powercycle",
                "through the firmware: the default reboot may kexec and pass systemd-boot by".into(),
            )
        } else {
            from_this_image()
        });
        steps.push(talosctl("version", "the version that runs now".into()));
        if !self.extensions.is_empty() {
            let list: Vec<_> = self.extensions.iter().map(|e| format!("{} {}", e.name, e.version)).collect();
            steps.push(talosctl("get extensions", format!("shows {}", list.join(", "))));
        }
        for service in self.waiting {
            steps.push(talosctl(
                &format!("service ext-{service} status"),
                format!("is running; if not: talosctl -n {node} logs ext-{service}"),
            ));
        }
    }
}

fn from_this_image() -> NextStep {
    NextStep { command: None, why: "start the board from this image; nothing in its firmware has to change".into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_step_for_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("esp.img");
        let packed = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fat/fat32.img.zst")).unwrap();
        std::fs::write(&path, zstd::decode_all(&packed[..]).unwrap()).unwrap();
        let target = Target::find(&path, None).unwrap();
        let extensions = [ExtensionFacts { name: "tailscale".into(), version: "1.90.6".into() }];
        let words = DiskWords::new(&path, &path, None, None);
        let after = After {
            target: &target,
            words: &words,
            on_a_copy: false,
            node: Some("altra"),
            family: Family::Talos,
            extensions: &extensions,
            waiting: &["tailscale".into()],
        };
        let commands: Vec<_> = after.steps().into_iter().filter_map(|s| s.command).collect();
        let restore = format!("bootsurgeon restore {}", path.display());
        assert_eq!(
            commands,
            [
                "talosctl -n altra version",
                "talosctl -n altra get extensions",
                "talosctl -n altra service ext-tailscale status",
                &restore
            ]
        );
        let bare = After { node: None, extensions: &[], waiting: &[], ..after };
        let commands: Vec<_> = bare.steps().into_iter().filter_map(|s| s.command).collect();
        assert_eq!(commands, ["talosctl -n NODE version", &restore]);
        let debian = After { family: Family::Systemd, ..bare };
        let commands: Vec<_> = debian.steps().into_iter().filter_map(|s| s.command).collect();
        assert_eq!(commands, ["uname -r", &restore]);
        let copy = After { on_a_copy: true, ..bare };
        let commands: Vec<_> = copy.steps().into_iter().filter_map(|s| s.command).collect();
        assert_eq!(commands, ["talosctl -n NODE version"]);
    }
}
