//! Words for people and for shells: what comes from a disk or a variable is shown and quoted, never trusted.

use crate::container::{ThisPod, below_host};
use crate::harmless::{harmless, quoted, shell_line};
use crate::packed::Packing;
use crate::pe::Arch;
use std::path::{Path, PathBuf};

/// Text from outside with everything made visible that a terminal would act upon, or not show (`\u{1b}`).
#[must_use]
pub fn plain(text: &str) -> String {
    harmless(text).into_owned()
}

/// How the commands that are recommended name the disk: `disk.img --partition 1`. In a pod that this program has made,
/// and that is gone before anybody types them, they make such a pod again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskWords {
    /// One word, or two: an option and its value.
    disk: Vec<String>,
    esp: PathBuf,
    partition: Option<String>,
    efivars: Option<String>,
    arch: Option<Arch>,
    asked_arch: Option<Arch>,
    out: Option<&'static str>,
    pod: Option<ThisPod>,
}

impl DiskWords {
    /// `esp`: where the images on the ESP can be read as an `IMAGE`: the partition's own node, else the disk image.
    /// `partition`: only where it was requested or the disk has several. `efivars`: only where a directory was named.
    #[must_use]
    pub fn new(disk: &Path, esp: &Path, partition: Option<&str>, efivars: Option<&Path>) -> Self {
        Self {
            disk: vec![disk.display().to_string()],
            esp: esp.to_owned(),
            partition: partition.map(str::to_owned),
            efivars: efivars.map(|dir| dir.display().to_string()),
            pod: ThisPod::here(),
            ..Self::default()
        }
    }

    /// The disk is an image that is packed so: commands change a copy.
    #[must_use]
    pub fn for_packed(mut self, packing: Option<Packing>) -> Self {
        self.out = packing.map(|packing| match packing {
            Packing::Zstd => "changed.img.zst",
            Packing::Xz => "changed.img.xz",
        });
        self
    }

    /// All members of a mirror are named, where there are several.
    #[must_use]
    pub fn for_members(mut self, members: &[&Path]) -> Self {
        if members.len() > 1 {
            let all: Vec<String> = members.iter().map(|path| path.display().to_string()).collect();
            self.disk = vec!["--all-members".to_owned(), all.join(",")];
        }
        self
    }

    /// The architecture that the factory is asked for.
    #[must_use]
    pub fn for_arch(mut self, arch: Option<Arch>) -> Self {
        self.arch = arch;
        self
    }

    /// The architecture that was requested, where without it another board would be meant: a restore has to ask for it
    /// too.
    #[must_use]
    pub fn for_asked_arch(mut self, arch: Option<Arch>) -> Self {
        self.asked_arch = arch;
        self
    }

    /// `bootsurgeon prune disk.img`, or another command that changes it, with whatever options say which ESP and which
    /// variables are meant; `recover` has no use for variables. `rest`: more words, as a shell takes them.
    #[must_use]
    pub fn command(&self, command: &str, rest: &str) -> String {
        let options = shell_line(self.options(command));
        let words = |parts: &[&str]| {
            let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
            parts.join(" ")
        };
        let line = match self.in_pod(command) {
            Some(begin) => words(&[&shell_line(&begin), &options]) + &ThisPod::tail(command, rest),
            None => words(&[&shell_line(self.local(command)), rest, &options]),
        };
        format!("`{line}`")
    }

    /// The same command, without more words, as a list of arguments.
    #[must_use]
    pub fn arguments(&self, command: &str) -> Vec<String> {
        let mut all = self.in_pod(command).unwrap_or_else(|| self.local(command));
        all.extend(self.options(command));
        all
    }

    fn local(&self, command: &str) -> Vec<String> {
        ["bootsurgeon", command].into_iter().map(str::to_owned).chain(self.disk.iter().cloned()).collect()
    }

    fn in_pod(&self, command: &str) -> Option<Vec<String>> {
        match self.disk.as_slice() {
            [disk] => self.pod.as_ref()?.command(command, disk),
            _ => None,
        }
    }

    fn options(&self, command: &str) -> Vec<String> {
        let efivars = self.efivars.as_deref().filter(|_| command != "recover");
        let arch = self.asked_arch.map(Arch::name).filter(|_| command == "restore");
        let all =
            [("--partition", self.partition.as_deref()), ("--efivars", efivars), ("--arch", arch), ("--out", self.out)];
        all.iter().filter_map(|(name, value)| Some([(*name).to_owned(), (*value)?.to_owned()])).flatten().collect()
    }

    /// The command that puts an image of this ESP under the name that starts.
    #[must_use]
    pub fn swap_from_itself(&self, file: &str) -> String {
        self.command("swap", &format!("{} --uki {}", self.esp(), quoted(file)))
    }

    /// The same, where that image lacks extensions of the one that starts.
    #[must_use]
    pub fn swap_with_loss(&self, file: &str) -> String {
        self.command("swap", &format!("{} --uki {} --allow-extension-loss", self.esp(), quoted(file)))
    }

    /// The command that saves an image off the ESP: on the machine where it runs, from a pod on its node.
    #[must_use]
    pub fn extract(&self, file: Option<&str>) -> String {
        let which = file.map_or(String::new(), |file| format!(" --uki {}", quoted(file)));
        let from = |esp: &str, out: &str| format!("extract {esp}{which} --out {out}");
        let line = self.debug(|esp| from(esp, "/host/var/saved.efi"));
        format!("`{}`", line.unwrap_or_else(|| format!("bootsurgeon {}", from(&self.esp(), "saved.efi"))))
    }

    /// The command that shows an image of the ESP.
    #[must_use]
    pub fn inspect(&self, file: &str) -> String {
        let of = |esp: &str| format!("inspect {esp} --uki {}", quoted(file));
        format!("`{}`", self.debug(of).unwrap_or_else(|| format!("bootsurgeon {}", of(&self.esp()))))
    }

    /// A command that pods do not have, in a container that has more of the node.
    fn debug(&self, line: impl Fn(&str) -> String) -> Option<String> {
        let pod = self.pod.as_ref().filter(|_| self.esp.starts_with("/dev") || self.esp.starts_with("/host/dev"))?;
        pod.debug(&line(&quoted(&below_host(&self.esp))))
    }

    fn esp(&self) -> String {
        quoted(&self.esp.display().to_string())
    }

    /// The disk in the words of a shell.
    #[must_use]
    pub fn disk(&self) -> String {
        shell_line(&self.disk)
    }

    /// Advice that speaks of a disk that it does not know: `bootsurgeon restore DISK`.
    #[must_use]
    pub fn name_disk(&self, advice: &str) -> String {
        let mut named = advice.to_owned();
        for command in ["doctor", "pin", "prune", "recover", "restore", "status", "swap"] {
            if let Some(begin) = self.in_pod(command) {
                named = named.replace(&format!("bootsurgeon {command} DISK"), &shell_line(&begin));
            }
        }
        named.replace(" DISK", &format!(" {}", self.disk()))
    }

    /// The command that fetches an image and puts it in place; ID and VERSION are for the user to fill in.
    #[must_use]
    pub fn swap_from_factory(&self) -> String {
        let arch = self.arch.map_or("ARCH", |a| a.name());
        self.command("swap", &format!("--schematic ID --talos VERSION --arch {arch}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_shell_would_act_upon_goes_unquoted() {
        for (word, shell) in [
            ("Talos-v1.12.4~1.efi", "Talos-v1.12.4~1.efi"),
            ("/dev/nvme0n1p1", "/dev/nvme0n1p1"),
            ("", "''"),
            ("~root", "'~root'"),
            ("-rf", "'-rf'"),
            ("a b", "'a b'"),
            ("$(reboot).efi", "'$(reboot).efi'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(word), shell);
        }
    }

    #[test]
    fn nothing_a_terminal_would_act_upon_is_shown() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}c"), r"a\u{1b}[2Jb\u{a}\u{202e}c");
        assert_eq!(plain("Größe"), "Größe");
    }

    #[test]
    fn commands_say_which_esp_and_which_variables() {
        let disk = Path::new("my disk.img");
        let words = DiskWords::new(disk, disk, Some("7"), Some(Path::new("vars")));
        assert_eq!(words.command("prune", ""), "`bootsurgeon prune 'my disk.img' --partition 7 --efivars vars`");
        assert_eq!(words.command("recover", ""), "`bootsurgeon recover 'my disk.img' --partition 7`");
        let (disk, esp) = (Path::new("/dev/sda"), Path::new("/dev/sda1"));
        let words = DiskWords::new(disk, esp, None, None).for_arch(Some(Arch::Arm64));
        assert_eq!(words.swap_from_itself("x~1.efi"), "`bootsurgeon swap /dev/sda /dev/sda1 --uki x~1.efi`");
        assert_eq!(words.extract(Some("x.efi")), "`bootsurgeon extract /dev/sda1 --uki x.efi --out saved.efi`");
        let factory = "`bootsurgeon swap /dev/sda --schematic ID --talos VERSION --arch arm64`";
        assert_eq!(words.swap_from_factory(), factory);
        let words = words.for_members(&[Path::new("/dev/sda"), Path::new("/dev/sdb")]);
        assert_eq!(words.command("prune", "--delete"), "`bootsurgeon prune --all-members /dev/sda,/dev/sdb --delete`");
        let disk = Path::new("talos.raw.xz");
        let words = DiskWords::new(disk, disk, None, None).for_packed(Some(Packing::Xz));
        assert_eq!(words.command("prune", ""), "`bootsurgeon prune talos.raw.xz --out changed.img.xz`");
    }
}
