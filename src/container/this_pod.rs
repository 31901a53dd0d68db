//! The pod that this program runs in, where the program has made the pod itself: how a command is given again from
//! outside, on the same node and disk.

use crate::harmless::quoted;
#[cfg(feature = "cli")]
use crate::harmless::shell_line;
use std::path::Path;

/// The node the pod runs on, by the downward API.
pub(crate) const NODE: &str = "BOOTSURGEON_NODE";
/// An address of that node, by the downward API.
#[cfg(feature = "cli")]
pub(crate) const NODE_ADDRESS: &str = "BOOTSURGEON_NODE_ADDRESS";
/// What `pod run` has to be told to make such a pod again: a list of words in JSON.
pub(crate) const OPTIONS: &str = "BOOTSURGEON_POD_OPTIONS";
/// The option of `pod run` that carries the program to the node.
pub(crate) const PUSH_SELF: &str = "--push-self";

/// The commands that run in a pod.
const TASKS: [&str; 7] = ["swap", "status", "doctor", "recover", "restore", "prune", "pin"];

/// A pod of this program's own making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThisPod {
    node: String,
    options: Vec<String>,
}

impl ThisPod {
    /// The one that this process runs in.
    pub(crate) fn here() -> Option<Self> {
        Self::of(&variable)
    }

    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let options = variable(OPTIONS)?;
        let node = variable(NODE)?;
        let options: Vec<String> = serde_json::from_str(&options).ok()?;
        let is_plain = !node.is_empty() && node.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        is_plain.then_some(Self { node, options })
    }

    /// `bootsurgeon pod run --node NAME --disk DISK … COMMAND`, to be followed by [`Self::tail`]; `None` for what does
    /// not run in a pod, and for a disk that is no device of the node.
    pub(crate) fn command(&self, command: &str, disk: &str) -> Option<Vec<String>> {
        if !TASKS.contains(&command) || !is_device(disk) {
            return None;
        }
        let begin = ["bootsurgeon", "pod", "run", "--node", &self.node, "--disk", disk].map(str::to_owned);
        Some(begin.into_iter().chain(self.options.iter().cloned()).chain([command.to_owned()]).collect())
    }

    /// What follows the command: options of `swap` as they are, with its image. All else goes through to the program in
    /// the pod unseen, and so does a device as the image, which is the node's: in front of the dashes another than the
    /// disk would be taken for one of the machine at which this is typed.
    pub(crate) fn tail(command: &str, rest: &str) -> String {
        let seen = command == "swap" && !rest.split(' ').any(is_device);
        match rest {
            "" => String::new(),
            _ if seen => format!(" {rest}"),
            _ => format!(" -- {rest}"),
        }
    }

    /// The command that runs something else than the pod's commands on the node, with the node's tree below /host.
    /// `None` where the program was carried to the node and is in no image.
    pub(crate) fn debug(&self, rest: &str) -> Option<String> {
        let value = |option: &str| Some(self.options.iter().skip_while(|word| *word != option).nth(1)?.as_str());
        if self.options.iter().any(|word| word == PUSH_SELF) {
            return None;
        }
        let own = concat!("bootsurgeon:", env!("CARGO_PKG_VERSION"));
        Some(format!(
            "kubectl debug node/{} -n {} -it --profile=sysadmin --image={} --arguments-only -- {rest}",
            self.node,
            quoted(value("--namespace").unwrap_or("kube-system")),
            quoted(value("--image-ref").unwrap_or(own))
        ))
    }

    /// A text with commands in backquotes that are meant for this disk: `bootsurgeon recover --set-aside`, or in short
    /// `prune DISK --delete`, `status`.
    #[cfg(feature = "cli")]
    pub(crate) fn reworded(&self, text: &str, disk: &str) -> String {
        let reword = |segment: &str| {
            let words = segment.strip_prefix("bootsurgeon ").unwrap_or(segment);
            let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
            let rest = rest.strip_prefix(disk).or_else(|| rest.strip_prefix("DISK")).unwrap_or(rest).trim_start();
            Some(format!("{}{}", shell_line(&self.command(command, disk)?), Self::tail(command, rest)))
        };
        let segments = text.split('`').enumerate();
        let reworded = segments.map(|(i, segment)| match i % 2 {
            1 => reword(segment).unwrap_or_else(|| segment.to_owned()),
            _ => segment.to_owned(),
        });
        reworded.collect::<Vec<_>>().join("`")
    }
}

/// The address of a node of this name, if it is the one that this pod runs on: `talosctl -n` takes addresses, and names
/// only where something resolves them.
#[cfg(feature = "cli")]
pub(crate) fn address_of(node: &str) -> Option<String> {
    address(node, &variable)
}

#[cfg(feature = "cli")]
fn address(node: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let is_ours = variable(NODE)? == node;
    let address = variable(NODE_ADDRESS).filter(|address| address.parse::<std::net::IpAddr>().is_ok())?;
    is_ours.then_some(address)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Whether this names a device of the node, as a pod has them.
pub(super) fn is_device(path: &str) -> bool {
    ["/dev/", "/host/dev/"].iter().any(|dir| path.strip_prefix(dir).is_some_and(|name| !name.is_empty()))
}

/// A device where containers of `kubectl debug` have it.
pub(crate) fn below_host(device: &Path) -> String {
    let path = device.display().to_string();
    if path.starts_with("/dev/") { format!("/host{path}") } else { path }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    fn pod(options: &[&str]) -> ThisPod {
        let options = serde_json::to_string(options).unwrap();
        let set = [(NODE, "altra"), (OPTIONS, options.as_str())];
        ThisPod::of(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())).unwrap()
    }

    #[test]
    fn a_pod_of_somebody_else_is_none_of_ours() {
        let of = |set: &[(&str, &str)]| {
            ThisPod::of(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert!(of(&[(NODE, "a"), (OPTIONS, "[]")]).is_some());
        for set in [
            &[(NODE, "a")][..],
            &[(OPTIONS, "[]")],
            &[(NODE, ""), (OPTIONS, "[]")],
            &[(NODE, "a; b"), (OPTIONS, "[]")],
            &[(NODE, "a"), (OPTIONS, "--image-ref x")],
        ] {
            assert_eq!(of(set), None, "{set:?}");
        }
    }

    #[test]
    fn commands_name_node_disk_and_image() {
        let pod = pod(&["--image-ref", "r.example/b@sha256:00", "--namespace", "surgery"]);
        let line = |command: &str, disk: &str, rest: &str| {
            pod.command(command, disk).map(|words| words.join(" ") + &ThisPod::tail(command, rest))
        };
        let begin =
            "bootsurgeon pod run --node altra --disk /dev/sda --image-ref r.example/b@sha256:00 --namespace surgery";
        for (command, rest, tail) in [
            ("restore", "", "restore"),
            ("restore", "Talos.efi.bak.1", "restore -- Talos.efi.bak.1"),
            ("prune", "--delete", "prune -- --delete"),
            ("swap", "--schematic ID --talos VERSION --arch arm64", "swap --schematic ID --talos VERSION --arch arm64"),
            ("swap", "IMAGE", "swap IMAGE"),
            ("swap", "/dev/sda1 --uki x~1.efi", "swap -- /dev/sda1 --uki x~1.efi"),
        ] {
            assert_eq!(line(command, "/dev/sda", rest), Some(format!("{begin} {tail}")));
        }
        for (command, disk) in [("inspect", "/dev/sda"), ("status", "disk.img"), ("status", "/dev/")] {
            assert_eq!(line(command, disk, ""), None, "{command} {disk}");
        }
        assert_eq!(
            pod.debug("inspect /host/dev/sda1").unwrap(),
            "kubectl debug node/altra -n surgery -it --profile=sysadmin --image=r.example/b@sha256:00 --arguments-only \
             -- inspect /host/dev/sda1"
        );
    }

    #[test]
    fn a_program_that_was_carried_to_the_node_is_in_no_image() {
        let pod = pod(&["--push-self"]);
        assert_eq!(pod.debug("inspect x"), None);
        assert!(pod.command("status", "/dev/sda").unwrap().contains(&"--push-self".to_owned()));
    }

    #[test]
    fn commands_in_a_text_are_reworded_and_nothing_else() {
        let pod = pod(&[]);
        for (text, wanted) in [
            (
                "run `bootsurgeon recover` on this disk first",
                "run `bootsurgeon pod run --node altra --disk /dev/sda recover` on this disk first",
            ),
            (
                "`bootsurgeon recover --set-aside`",
                "`bootsurgeon pod run --node altra --disk /dev/sda recover -- --set-aside`",
            ),
            ("`bootsurgeon restore /dev/sda`", "`bootsurgeon pod run --node altra --disk /dev/sda restore`"),
            (
                "bootsurgeon recover, `losetup -d x`, `bootsurgeon inspect x`",
                "bootsurgeon recover, `losetup -d x`, `bootsurgeon inspect x`",
            ),
            ("`prune DISK --delete`", "`bootsurgeon pod run --node altra --disk /dev/sda prune -- --delete`"),
            ("look at `status`", "look at `bootsurgeon pod run --node altra --disk /dev/sda status`"),
            ("`bootsurgeon pod run --node a`", "`bootsurgeon pod run --node a`"),
            ("an odd ` one", "an odd ` one"),
            ("", ""),
        ] {
            assert_eq!(pod.reworded(text, "/dev/sda"), wanted);
        }
        assert_eq!(pod.reworded("`bootsurgeon recover`", "disk.img"), "`bootsurgeon recover`");
    }

    #[test]
    fn the_address_is_that_of_this_node_and_no_other() {
        let of = |node: &str, set: &[(&str, &str)]| {
            address(node, &|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let here = [(NODE, "altra"), (NODE_ADDRESS, "192.168.1.203")];
        assert_eq!(of("altra", &here).as_deref(), Some("192.168.1.203"));
        assert_eq!(of("ampone", &here), None);
        assert_eq!(of("altra", &[(NODE, "altra"), (NODE_ADDRESS, "a; b")]), None);
        assert_eq!(of("altra", &[(NODE, "altra")]), None);
    }
}
