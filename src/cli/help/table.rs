//! The table of all commands: how each may be called, with examples, and how it can end.

/// What a command's exit codes can be.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    /// It opens no image and no disk.
    Plain,
    /// It reads images or disks.
    Reads,
    /// It writes a file of its own.
    Makes,
    /// It changes an ESP.
    Writes,
    /// `demo`, where it is built in.
    #[cfg_attr(not(feature = "demo"), allow(dead_code))]
    Proves,
}

/// A command's part of help and manual page.
pub(super) struct Entry {
    /// As it is typed: `schematic id`.
    pub(super) path: &'static str,
    pub(super) ends: Ends,
    /// Ways to call it, where the list of options does not show them.
    pub(super) usage: &'static [&'static str],
    /// A command line without the program's name, and what it is for.
    pub(super) examples: &'static [(&'static str, &'static str)],
}

const fn entry(path: &'static str, ends: Ends, examples: &'static [(&'static str, &'static str)]) -> Entry {
    Entry { path, ends, usage: &[], examples }
}

pub(super) const TABLE: [Entry; 25] = [
    entry(
        "",
        Ends::Writes,
        &[
            ("status node.img", "what is on the ESP of a disk image, what boots, and why"),
            ("swap node.img new.efi --dry-run", "check a new image and show the plan"),
            ("swap node.img new.efi --yes", "put it in place of the one that boots"),
            ("restore node.img", "put the old one back"),
        ],
    ),
    entry(
        "schematic id",
        Ends::Reads,
        &[
            ("schematic id schematic.yaml", "the ID and the canonical YAML, offline"),
            ("schematic id schematic.yaml --add-extension siderolabs/tailscale", "with one more extension"),
        ],
    ),
    Entry {
        usage: &["schematic edit [OPTIONS] <FILE>", "schematic edit [OPTIONS] --from <DISK>"],
        ..entry(
            "schematic edit",
            Ends::Reads,
            &[
                ("schematic edit --from node.img --add-extension tailscale", "what the node runs, and tailscale"),
                (
                    "schematic edit schematic.yaml --extra-kernel-arg=-talos.halt_if_installed",
                    "for an image that must not halt on an installed node",
                ),
            ],
        )
    },
    entry(
        "schematic create",
        Ends::Reads,
        &[("schematic create schematic.yaml", "register it; the ID appears on standard error")],
    ),
    entry(
        "schematic show",
        Ends::Reads,
        &[(
            "schematic show 376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba",
            "the YAML behind an ID, from the factory",
        )],
    ),
    entry(
        "fetch",
        Ends::Makes,
        &[
            (
                "fetch --schematic schematic.yaml --talos v1.12.4 --arch arm64 --out metal.iso",
                "the ISO; the same command again resumes an interrupted download",
            ),
            ("fetch --schematic schematic.yaml --talos v1.12.4 --arch arm64 --kind uki --out u.efi", "the UKI alone"),
        ],
    ),
    entry(
        "extract",
        Ends::Makes,
        &[
            ("extract node.img --uki Talos-v1.12.4.efi --out copy.efi", "from a disk image"),
            ("extract https://factory.example/metal-arm64.iso --out copy.efi", "from a URL, only the bytes it needs"),
        ],
    ),
    entry(
        "inspect",
        Ends::Reads,
        &[
            ("inspect new.efi", "version, command line, extensions, signers, sections"),
            ("inspect node.img --json", "partitions and UKIs of a disk image, for a program"),
        ],
    ),
    entry(
        "verify",
        Ends::Reads,
        &[
            ("verify new.efi --cert signer.pem", "signed by the holder of this certificate?"),
            ("verify new.efi --installed node.img", "signed as the installed image is, and with the same PCR key?"),
            (
                "verify new.efi --cert signer.pem --talos v1.12.4 --require-extension tailscale",
                "is it what was ordered, too?",
            ),
        ],
    ),
    entry(
        "config check",
        Ends::Reads,
        &[
            ("config check controlplane.yaml --image new.efi", "does what the node will have fit the image?"),
            ("config check talconfig.yaml patches/tailscale.yaml", "what is wrong whatever the image"),
        ],
    ),
    entry("diff", Ends::Reads, &[("diff old.efi new.efi", "what differs between two images")]),
    entry(
        "status",
        Ends::Reads,
        &[
            ("status /dev/nvme0n1", "the disk of this machine"),
            ("status node.img", "a disk image"),
            ("status node.img --json", "the same for a program"),
            ("status /dev/mmcblk0 --no-hashes", "of a slow card, without reading the images whole"),
            ("status node.img --svg node.svg", "a picture of it, too, for a ticket or a wiki page"),
        ],
    ),
    entry(
        "doctor",
        Ends::Reads,
        &[
            ("doctor", "this machine, all disks"),
            ("doctor node.img --efivars none", "a disk image, without EFI variables"),
            ("doctor --error 'Error loading \\EFI\\Linux\\Talos-v1.10.5.efi: Not found'", "explain a message"),
        ],
    ),
    Entry {
        usage: &[
            "swap [OPTIONS] <DISK> <IMAGE>",
            "swap [OPTIONS] <DISK> --schematic <ID|FILE> --talos <VERSION> --arch <arm64|amd64>",
            "swap [OPTIONS] --all-members <A,B> <IMAGE>",
        ],
        ..entry(
            "swap",
            Ends::Writes,
            &[
                ("swap node.img new.efi --dry-run", "checks and plan; writes nothing"),
                ("swap node.img new.efi --out changed.img --yes", "leave the disk image, write a changed copy"),
                (
                    "swap /dev/nvme0n1 --schematic schematic.yaml --talos v1.12.4 --arch arm64",
                    "download from the factory, verify, and swap",
                ),
                ("swap node.img new.efi --cert signer.pem --yes", "trust this signer as well, and do not ask"),
                ("swap node.img - --bytes 126877696 --yes", "from standard input, which has to be that long"),
            ],
        )
    },
    Entry {
        usage: &["prune [OPTIONS] <DISK>", "prune [OPTIONS] --all-members <A,B>"],
        ..entry(
            "prune",
            Ends::Writes,
            &[
                ("prune node.img --dry-run", "which files would leave the boot menu, and why others stay"),
                ("prune node.img --delete --keep-backups 1 --yes", "make room: delete them, keep the newest backup"),
            ],
        )
    },
    Entry {
        usage: &["restore [OPTIONS] <DISK> [BACKUP]", "restore [OPTIONS] --all-members <A,B> [BACKUP]"],
        ..entry(
            "restore",
            Ends::Writes,
            &[
                ("restore node.img --list", "the backups, the newest first"),
                ("restore node.img --dry-run", "what would happen with the newest"),
                ("restore node.img --yes", "put it back; the present image becomes a backup"),
            ],
        )
    },
    Entry {
        usage: &[
            "loader [OPTIONS] <DISK> <IMAGE>",
            "loader [OPTIONS] <DISK> --schematic <ID|FILE> --talos <VERSION>",
            "loader [OPTIONS] --all-members <A,B> <IMAGE>",
        ],
        ..entry(
            "loader",
            Ends::Writes,
            &[
                ("loader node.img metal-arm64-secureboot.iso --dry-run", "what the board would start with the ISO's"),
                ("loader node.img systemd-bootaa64.efi --cert signer.pem --yes", "the file itself, of this signer"),
            ],
        )
    },
    Entry {
        usage: &[
            "pin [OPTIONS] <DISK> <ENTRY>",
            "pin [OPTIONS] <DISK> --clear",
            "pin [OPTIONS] --all-members <A,B> <ENTRY>",
        ],
        ..entry(
            "pin",
            Ends::Writes,
            &[
                ("pin node.img Talos-v1.12.4.efi --dry-run", "would this entry start, with EFI variables and without?"),
                ("pin node.img 'talos-v1.12.*' --yes", "whichever comes first in the menu"),
                ("pin node.img --clear --yes", "the menu's order decides again"),
            ],
        )
    },
    Entry {
        usage: &["recover [OPTIONS] <DISK>", "recover [OPTIONS] --all-members <A,B>"],
        ..entry(
            "recover",
            Ends::Writes,
            &[
                ("recover node.img --dry-run", "was an operation interrupted, and what would be done"),
                ("recover node.img --yes", "finish it or roll it back"),
            ],
        )
    },
    Entry {
        usage: &[
            "pod run [OPTIONS] --node <NAME> --disk <DEV> <COMMAND> [IMAGE]",
            "pod run [OPTIONS] --node <NAME> <COMMAND> <DEV> [IMAGE]",
        ],
        ..entry(
            "pod run",
            Ends::Writes,
            &[
                (
                    "pod run --node worker-1 --disk /dev/nvme0n1 status",
                    "what is on the ESP of that node, and what boots",
                ),
                (
                    "pod run --node worker-1 --disk /dev/nvme0n1 swap new.efi --dry-run",
                    "an image of this machine, rehearsed",
                ),
            ],
        )
    },
    entry(
        "pod manifest",
        Ends::Plain,
        &[
            ("pod manifest --node worker-1 --disk /dev/nvme0n1 --command status", "pipe it into `kubectl create -f -`"),
            (
                "pod manifest --node worker-1 --disk /dev/nvme0n1 --command prune -- --delete",
                "options of a command other than swap stand behind --",
            ),
        ],
    ),
    entry(
        "pod job",
        Ends::Plain,
        &[(
            "pod job --nodes worker-1,worker-2 --disk /dev/nvme0n1 https://files.example/new.efi",
            "one node after the other, up to the first failure",
        )],
    ),
    Entry {
        usage: &[
            "rollout [OPTIONS] --nodes <NAME,NAME…> --disk <DEV> <IMAGE>",
            "rollout [OPTIONS] --nodes <NAME,NAME…> --disk <DEV> --schematic <ID|FILE> --talos <VERSION>",
        ],
        ..entry(
            "rollout",
            Ends::Writes,
            &[
                (
                    "rollout --nodes worker-1,worker-2 --disk /dev/nvme0n1 new.efi --dry-run",
                    "look at every node, rehearse the swap there, and print the plan",
                ),
                (
                    "rollout --nodes worker-1,worker-2 --disk /dev/nvme0n1 new.efi --machine-config worker.yaml",
                    "do it, or go on where it was stopped",
                ),
            ],
        )
    },
    entry(
        "completions",
        Ends::Plain,
        &[
            ("completions bash", "put it into ~/.local/share/bash-completion/completions/bootsurgeon"),
            ("completions zsh", "put it into a file _bootsurgeon in a directory of $fpath"),
            ("completions fish", "put it into ~/.config/fish/completions/bootsurgeon.fish"),
        ],
    ),
    entry("man", Ends::Makes, &[("man pages", "a page for each command in the directory `pages`")]),
];

#[cfg(feature = "demo")]
const DEMO: Entry = entry(
    "demo",
    Ends::Proves,
    &[
        ("demo", "the main job on a disk image made on the spot: no root, no network"),
        ("demo --scene swap", "one scene of it"),
    ],
);

/// All there is to say of a command.
pub(super) fn find(path: &str) -> Option<&'static Entry> {
    #[cfg(feature = "demo")]
    if path == "demo" {
        return Some(&DEMO);
    }
    TABLE.iter().find(|e| e.path == path)
}
