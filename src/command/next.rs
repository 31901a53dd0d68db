//! What is left to do once the ESP is as it should be: things on the node, in order, as commands to copy.

use super::trust::TrustRequest;
use crate::config::service_document;
use crate::disk::{Shape, Target};
use crate::doctor::DiskWords;
use crate::harmless::shell_line;
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
    /// The same as a list of arguments, the program's name first.
    pub run: Option<Vec<String>>,
    /// Why, or what it should show.
    pub why: String,
    /// A document to start from, which somebody has to complete: YAML for Talos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

impl NextStep {
    pub(super) fn new(run: Vec<String>, why: impl Into<String>) -> Self {
        Self { command: Some(shell_line(&run)), run: Some(run), ..Self::words(why) }
    }

    /// Where no command helps.
    fn words(why: impl Into<String>) -> Self {
        Self { command: None, run: None, why: why.into(), document: None }
    }
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
    /// The installer's image that holds the same.
    pub(super) installer: Option<&'a str>,
    /// What the image that was replaced may need to be believed.
    pub(super) trust: &'a TrustRequest,
    /// Whether files of the board changed with the image, and have to fit each other.
    pub(super) set: Option<bool>,
}

impl After<'_> {
    /// The steps: what has to come before the restart, the restart, what to look at then, and the way back.
    pub(super) fn steps(&self) -> Vec<NextStep> {
        let mut steps = Vec::new();
        if self.family == Family::Talos {
            self.on_talos(&mut steps);
        } else {
            steps.extend(self.waiting.iter().map(|service| config(service)));
            steps.push(if self.on_the_board() {
                NextStep::new(
                    words(&["systemctl", "reboot"]),
                    "through the firmware: a kexec would bypass the boot loader",
                )
            } else {
                from_this_image()
            });
            steps.push(NextStep::new(words(&["uname", "-r"]), "the kernel that runs then"));
        }
        if !self.on_a_copy {
            let mut way_back = self.words.arguments("restore");
            if let Some(is_mixture) = self.set {
                way_back.push("--with-board-files".to_owned());
                way_back.extend(is_mixture.then(|| "--accept-mixture".to_owned()));
            }
            way_back.extend(self.trust.believing());
            steps.push(NextStep::new(way_back, "the way back"));
        }
        steps
    }

    fn on_the_board(&self) -> bool {
        matches!(self.target.shape, Shape::WholeDisk | Shape::PartitionDevice)
    }

    fn on_talos(&self, steps: &mut Vec<NextStep>) {
        let node = self.node.unwrap_or(SOME_NODE);
        let talosctl =
            |what: &[&str], why: String| NextStep::new(words(&[&["talosctl", "-n", node], what].concat()), why);
        let patch = |what: &str, why: String| {
            talosctl(&["patch", "machineconfig", "--mode", "no-reboot", "--patch", what], why)
        };
        // Each patch is applied at once: one that is staged is lost with the next.
        steps.extend(self.waiting.iter().map(|service| {
            if !is_plain(service) {
                return config(service);
            }
            let what = "waits for an ExtensionServiceConfig: complete this one in that file and apply it before the \
                        reboot";
            let why = format!("ext-{service} {what}");
            NextStep { document: Some(service_document(service)), ..patch(&format!("@ext-{service}.yaml"), why) }
        }));
        steps.push(if self.on_the_board() {
            talosctl(
                &["reboot", "--mode", "powercycle"],
                "through the firmware: the default reboot may kexec, bypassing systemd-boot".into(),
            )
        } else {
            from_this_image()
        });
        steps.push(talosctl(&["version"], "the version that runs now".into()));
        if !self.extensions.is_empty() {
            let list: Vec<_> = self.extensions.iter().map(|e| format!("{} {}", e.name, e.version)).collect();
            steps.push(talosctl(&["get", "extensions"], format!("shows {}", list.join(", "))));
        }
        // Its host and version may come from the image.
        let is_address = |text: &&str| is_plain(&text.replace(['[', ']', ':', '/'], ""));
        if let Some(installer) = self.installer.filter(is_address) {
            steps.push(patch(
                &format!(r#"{{"machine":{{"install":{{"image":"{installer}"}}}}}}"#),
                "sets machine.install.image: otherwise the next `talosctl upgrade` without --image takes this change \
                 back"
                    .into(),
            ));
        }
        for service in self.waiting.iter().filter(|service| is_plain(service)) {
            steps.push(talosctl(
                &["service", &format!("ext-{service}"), "status"],
                format!("is running; if not: `talosctl -n {node} logs ext-{service}`"),
            ));
        }
    }
}

/// Whether a text needs no quotes in a command to copy: whoever made the image may have chosen it. Names of services
/// do not, on Talos.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || ".-+_".contains(c))
}

/// The configuration that a service waits for, in words.
fn config(service: &str) -> NextStep {
    NextStep { document: Some(service_document(service)), ..NextStep::words(waits(service)) }
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

fn from_this_image() -> NextStep {
    NextStep::words("start the board from this image; nothing in its firmware has to change")
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
            set: None,
            trust: &TrustRequest::default(),
            target: &target,
            words: &words,
            on_a_copy: false,
            node: Some("altra"),
            family: Family::Talos,
            extensions: &extensions,
            waiting: &["tailscale".into()],
            installer: None,
        };
        let commands: Vec<_> = after.steps().into_iter().filter_map(|s| s.command).collect();
        let restore = format!("bootsurgeon restore {}", path.display());
        assert_eq!(
            commands,
            [
                "talosctl -n altra patch machineconfig --mode no-reboot --patch @ext-tailscale.yaml",
                "talosctl -n altra version",
                "talosctl -n altra get extensions",
                "talosctl -n altra service ext-tailscale status",
                &restore
            ]
        );
        let run: Vec<_> = after.steps().into_iter().filter_map(|s| s.run).collect();
        assert_eq!(run[4], ["bootsurgeon", "restore", &path.display().to_string()]);
        let installed = After { installer: Some("factory.example/x:v1"), ..after };
        let step = installed.steps().into_iter().find(|s| s.why.contains("install.image")).unwrap();
        let quoted = r#"--patch '{"machine":{"install":{"image":"factory.example/x:v1"}}}'"#;
        assert!(step.command.unwrap().ends_with(quoted));
        assert_eq!(step.run.unwrap().pop().unwrap(), quoted.trim_start_matches("--patch ").trim_matches('\''));
        let after = After { installer: None, ..installed };
        let hostile = After { waiting: &["x; reboot".into()], ..after };
        let steps = hostile.steps();
        assert!(steps[0].why.contains("x; reboot"), "{steps:?}");
        let mut commands = steps.into_iter().filter_map(|s| s.command);
        assert!(commands.all(|command| !command.contains("reboot")), "a name from the image in a command");
        let bare = After { node: None, extensions: &[], waiting: &[], ..hostile };
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
