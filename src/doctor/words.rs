//! Words for people and for shells: what comes from a disk or a variable is shown and quoted, never trusted.

use crate::harmless::harmless;
use crate::packed::Packing;
use crate::pe::Arch;
use std::path::Path;

/// Text from outside with everything made visible that a terminal would act upon, or not show (`\u{1b}`).
#[must_use]
pub fn plain(text: &str) -> String {
    harmless(text).into_owned()
}

/// A word as a POSIX shell takes it: as it is when it is harmless, else in single quotes.
#[must_use]
pub fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "._-~/+:@%=,".contains(c);
    if !word.is_empty() && word.chars().all(harmless) && !word.starts_with(['~', '-', '=']) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// How the commands that are recommended name the disk: `disk.img --partition 1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskWords {
    disk: String,
    esp: String,
    partition: Option<String>,
    efivars: Option<String>,
    arch: Option<Arch>,
    asked_arch: Option<Arch>,
    out: Option<&'static str>,
}

impl DiskWords {
    /// `esp`: where the images on the ESP can be read as an `IMAGE`: the partition's own node, else the disk image.
    /// `partition`: only where it was asked for or the disk has several. `efivars`: only where a directory was named.
    #[must_use]
    pub fn new(disk: &Path, esp: &Path, partition: Option<&str>, efivars: Option<&Path>) -> Self {
        let path = |path: &Path| quoted(&path.display().to_string());
        Self {
            disk: path(disk),
            esp: path(esp),
            partition: partition.map(quoted),
            efivars: efivars.map(path),
            arch: None,
            asked_arch: None,
            out: None,
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
            self.disk = format!("--all-members {}", quoted(&all.join(",")));
        }
        self
    }

    /// The architecture that the factory is asked for.
    #[must_use]
    pub fn for_arch(mut self, arch: Option<Arch>) -> Self {
        self.arch = arch;
        self
    }

    /// The architecture that was asked for, where without it another board would be meant: a restore has to ask for it too.
    #[must_use]
    pub fn for_asked_arch(mut self, arch: Option<Arch>) -> Self {
        self.asked_arch = arch;
        self
    }

    /// `bootsurgeon prune disk.img`, or another command that changes it, with whatever options say which ESP and which variables
    /// are meant; `recover` has no use for variables.
    #[must_use]
    pub fn command(&self, command: &str, rest: &str) -> String {
        let mut words = format!("bootsurgeon {command} {}", self.disk);
        if !rest.is_empty() {
            words = format!("{words} {rest}");
        }
        if let Some(partition) = &self.partition {
            words = format!("{words} --partition {partition}");
        }
        if let Some(dir) = self.efivars.as_ref().filter(|_| command != "recover") {
            words = format!("{words} --efivars {dir}");
        }
        if let Some(arch) = self.asked_arch.filter(|_| command == "restore") {
            words = format!("{words} --arch {}", arch.name());
        }
        if let Some(out) = self.out {
            words = format!("{words} --out {out}");
        }
        format!("`{words}`")
    }

    /// The command that puts an image of this ESP under the name that starts.
    #[must_use]
    pub fn swap_from_itself(&self, file: &str) -> String {
        self.command("swap", &format!("{} --uki {}", self.esp, quoted(file)))
    }

    /// The command that saves an image off the ESP.
    #[must_use]
    pub fn extract(&self, file: Option<&str>) -> String {
        let which = file.map_or(String::new(), |file| format!(" --uki {}", quoted(file)));
        format!("`bootsurgeon extract {}{which} --out saved.efi`", self.esp)
    }

    /// The disk in the words of a shell.
    #[must_use]
    pub fn disk(&self) -> &str {
        &self.disk
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
