//! States of an ESP and its variables, drawn by lot: what systemd-boot treats specially, in every mixture.

use crate::lab::Systemd;
use bootsurgeon::boot::Variables;
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::Builder;
use std::collections::HashMap;

/// A seeded generator (SplitMix64): the same seed gives the same states on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a file of a state prints when it is started.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) payload: String,
    /// The command line of each profile, by its number. Empty: whatever the boot loader passes.
    pub(crate) cmdlines: Vec<String>,
    /// Whether the file starts at all: `None` where the firmware may see it either way.
    pub(crate) starts: Option<bool>,
}

/// A volume and the variables beside it.
#[derive(Clone)]
pub(crate) struct State {
    /// Paths and contents, in the order they are written.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// systemd-boot's variables, as raw data.
    pub(crate) variables: Vec<(&'static str, Vec<u8>)>,
    /// By the file's path with slashes, in lower case.
    pub(crate) truth: HashMap<String, Truth>,
}

const VERSIONS: [&str; 7] =
    ["v1.12.3", "v1.12.4", "v1.12.10", "v1.13.0", "v1.13.0-beta.1", "v1.13.0-alpha.2", "1.12.4"];

impl State {
    /// A state by lot.
    pub(crate) fn draw(systemd: &Systemd, random: &mut Random) -> Self {
        let mut state = Self { files: Vec::new(), variables: Vec::new(), truth: HashMap::new() };
        state.files.push((systemd.loader_path().to_owned(), systemd.loader.clone()));
        let mut names = Vec::new();
        for _ in 0..random.pick(&[0, 1, 2, 2, 3, 3, 4, 5, 6]) {
            state.add_uki(systemd, random, &mut names);
        }
        state.add_oddities(systemd, random);
        state.add_type1(systemd, random, &mut names);
        if names.is_empty() {
            names.push("Talos-v1.12.4.efi".to_owned());
        }
        state.add_configuration(random, &names);
        state.add_variables(random, &names);
        state
    }

    /// The variables as the prediction wants them.
    pub(crate) fn known_variables(&self, os_indications_supported: u64) -> Variables {
        let get = |name: &str| self.variables.iter().find(|(n, _)| *n == name).map(|(_, data)| data.clone());
        Variables {
            default: get("LoaderEntryDefault"),
            oneshot: get("LoaderEntryOneShot"),
            preferred: get("LoaderEntryPreferred"),
            sysfail: get("LoaderEntrySysFail"),
            last_booted: get("LoaderEntryLastBooted"),
            config_timeout: get("LoaderConfigTimeout"),
            config_timeout_oneshot: get("LoaderConfigTimeoutOneShot"),
            os_indications_supported,
            virtual_machine: Some(true),
            ..Variables::default()
        }
    }

    /// For a person who has to find out what went wrong.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (path, content) in &self.files {
            text += &format!("    {path} ({} bytes)\n", content.len());
            if path.ends_with(".conf") {
                text += &format!("      {:?}\n", String::from_utf8_lossy(content));
            }
        }
        for (name, data) in &self.variables {
            let units: Vec<u16> = data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
            text += &format!("    {name} = {:?} ({} bytes)\n", String::from_utf16_lossy(&units), data.len());
        }
        text
    }

    fn add(&mut self, path: String, content: Vec<u8>, truth: Truth) {
        self.truth.insert(path.to_ascii_lowercase(), truth);
        self.files.push((path, content));
    }

    fn has(&self, path: &str) -> bool {
        self.files.iter().any(|(p, _)| p.eq_ignore_ascii_case(path))
    }

    fn add_uki(&mut self, systemd: &Systemd, random: &mut Random, names: &mut Vec<String>) {
        let version = random.pick(&VERSIONS);
        let name = [
            random.pick(&["Talos-", "Talos-", "talos-", "TALOS-", "X_"]),
            version,
            random.pick(&[
                "", "", "", "", "~1", "~2", "~10", "+3", "+0-2", "+2-1", "+0", "+1", "_1", "-dirty", "^1", "+x",
            ]),
            random.pick(&[
                ".efi",
                ".efi",
                ".efi",
                ".efi",
                ".efi",
                ".EFI",
                ".eFi",
                ".efi.bak.1771000000",
                ".efi.disabled.17",
            ]),
        ]
        .concat();
        let path = format!("EFI/Linux/{name}");
        if self.has(&path) {
            return;
        }
        let inside = if random.percent(15) { random.pick(&VERSIONS) } else { version };
        let id = format!("f{}", self.files.len());
        let os_release = os_release(random, inside);
        let cmdline = |n: usize| format!("from={id} profile={n}");
        let mut sections = vec![(".osrel", os_release.into_bytes())];
        let mut cmdlines = vec![cmdline(0)];
        let base_cmdline = random.percent(92);
        if base_cmdline {
            sections.push((".cmdline", cmdline(0).into_bytes()));
        } else {
            cmdlines[0].clear();
        }
        sections.push((".linux", systemd.payload(&id)));
        if random.percent(45) {
            sections.push((".profile", random.pick(&["ID=main", "ID=main\nTITLE=Main", "ID=Main"]).into()));
            for n in 1..=random.pick(&[0, 1, 1, 1, 2]) {
                let text =
                    random.pick(&["ID=reset\nTITLE=Reset it", "ID=Reset", "TITLE=t", "ID=reset-maintenance", "ID='q'"]);
                sections.push((".profile", text.into()));
                let own = random.percent(80);
                if own {
                    sections.push((".cmdline", cmdline(n).into_bytes()));
                }
                cmdlines.push(if own { cmdline(n) } else { cmdlines[0].clone() });
            }
        }
        let mut image = systemd.uki(&sections);
        let mut starts = Some(true);
        if random.percent(8) {
            starts = None;
            let cut =
                random.pick(&[1, 512, 1024, 2048, image.len() / 2, image.len() - 700, image.len() - 100, image.len()]);
            image.truncate(image.len().saturating_sub(cut));
        }
        names.push(name);
        self.add(path, image, Truth { payload: id, cmdlines, starts });
    }

    /// Files that systemd-boot passes over or should have passed over.
    fn add_oddities(&mut self, systemd: &Systemd, random: &mut Random) {
        let os_release =
            |v: &str| format!("NAME=Odd\nID=talos\nVERSION_ID={v}\nPRETTY_NAME=\"Odd {v}\"\n").into_bytes();
        let nothing = Truth { payload: String::new(), cmdlines: Vec::new(), starts: Some(false) };
        let other = if systemd.arch == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
        let foreign = Builder::new(other).section(".text", [0; 8]).section(".osrel", os_release("v9")).build();
        let kernelless =
            Builder::new(systemd.arch).section(".text", [0xC3; 8]).section(".osrel", os_release("v0.1")).build();
        let addon = Builder::new(systemd.arch).section(".text", [0; 8]).section(".cmdline", "x").build();
        let uki = |id: &str| systemd.uki(&[(".osrel", os_release("v7")), (".linux", systemd.payload(id))]);
        let good = |id: &str| Truth { payload: id.to_owned(), cmdlines: vec![String::new()], starts: Some(true) };
        let mut add = |percent: usize, path: &str, content: Vec<u8>, truth: Truth| {
            if random.percent(percent) {
                self.add(path.to_owned(), content, truth);
            }
        };
        add(6, "EFI/Linux/foreign.efi", foreign, nothing.clone());
        // It has an entry point that is no program: listed, and low in the menu.
        add(6, "EFI/Linux/aaa-no-kernel.efi", kernelless, Truth { starts: None, ..nothing.clone() });
        add(6, "EFI/Linux/foo.addon.efi", addon, nothing.clone());
        add(6, "EFI/Linux/text.efi", b"This is not a program.".to_vec(), nothing.clone());
        add(6, "EFI/Linux/empty.efi", Vec::new(), nothing.clone());
        add(6, "EFI/Linux/auto-foo.efi", uki("auto"), good("auto"));
        add(8, "EFI/Linux/AUTO-x.efi", uki("AUTO"), good("AUTO"));
        add(6, "EFI/Linux/.hidden.efi", uki("hidden"), good("hidden"));
        add(6, "EFI/Linux/folder.efi/", Vec::new(), nothing.clone());
        add(6, "EFI/Linux/folder/deep.efi", uki("deep"), good("deep"));
        add(4, "EFI/Linux/e.efi", uki("e"), good("e"));
        add(4, "shellx64.efi", b"MZ".to_vec(), nothing.clone());
        add(4, "loader/entries/folder.conf/", Vec::new(), nothing);
    }

    fn add_type1(&mut self, systemd: &Systemd, random: &mut Random, names: &mut Vec<String>) {
        if !random.percent(30) {
            return;
        }
        self.add(
            "EFI/tool.efi".to_owned(),
            systemd.payload("tool"),
            Truth { payload: "tool".to_owned(), cmdlines: Vec::new(), starts: Some(true) },
        );
        for _ in 0..random.pick(&[1, 1, 2]) {
            let name =
                random.pick(&["aaa.conf", "Zed+2.conf", "zed+0-1.CONF", "auto-t.conf", ".dot.conf", "b.conf.bak"]);
            let path = format!("loader/entries/{name}");
            if self.has(&path) {
                continue;
            }
            let eol = random.pick(&["\n", "\r\n"]);
            let lines = [
                random.pick(&["title T1", "title   \"T 1\"", "# no title", "TITLE x"]),
                random.pick(&["", "sort-key aaa", "sort-key talos", "sort-key zzz"]),
                random.pick(&["", "version v9", "version v1.12.4"]),
                random.pick(&["", "machine-id 00112233445566778899aabbccddeeff"]),
                random.pick(&["", "architecture x64", "architecture AA64", "architecture ia32"]),
                random.pick(&[
                    "efi /EFI/tool.efi",
                    "efi \\EFI\\tool.efi",
                    "linux //EFI//tool.efi",
                    "efi /gone.efi",
                    "uki /EFI/tool.efi",
                    "options only",
                ]),
                random.pick(&["", "options from=t1", "options  a\noptions b"]),
            ];
            let text = lines.iter().filter(|l| !l.is_empty()).fold(String::new(), |all, l| all + l + eol);
            names.push(name.to_owned());
            self.files.push((path, text.into_bytes()));
        }
    }

    fn add_configuration(&mut self, random: &mut Random, names: &[String]) {
        if !random.percent(60) {
            return;
        }
        let default = format!("default {}", pattern(random, names));
        let quoted = format!("default \"{}\"", pattern(random, names));
        let preferred = format!("preferred {}", pattern(random, names));
        let mut lines = vec![
            random.pick(&[
                "",
                "timeout 0",
                "timeout 2",
                "timeout\t1",
                "timeout \"2\"",
                "timeout menu-hidden",
                "timeout x",
            ]),
            random.pick(&["", "auto-firmware no", "auto-firmware false", "auto-firmware maybe"]),
            random.pick(&["", "", "auto-poweroff yes", "auto-reboot 1"]),
            random.pick(&["", "", "auto-entries no", "# a comment", "timeout menu-disabled"]),
        ];
        match random.below(8) {
            0..=2 => lines.push(&default),
            3 => lines.push(&quoted),
            4 => lines.push("default @saved"),
            _ => {}
        }
        if random.percent(25) {
            lines.push(&preferred);
        }
        if random.percent(10) {
            lines.push("default @nonsense");
        }
        let eol = random.pick(&["\n", "\n", "\r\n"]);
        let text = lines.iter().filter(|l| !l.is_empty()).fold(String::new(), |all, l| all + l + eol);
        self.files.push(("loader/loader.conf".to_owned(), text.into_bytes()));
    }

    fn add_variables(&mut self, random: &mut Random, names: &[String]) {
        for (percent, name) in [
            (50, "LoaderEntryDefault"),
            (20, "LoaderEntryOneShot"),
            (20, "LoaderEntryPreferred"),
            (10, "LoaderEntrySysFail"),
        ] {
            if random.percent(percent) {
                let text = pattern(random, names);
                self.variables.push((name, encode(random, &text)));
            }
        }
        if random.percent(35) {
            let name = names[random.below(names.len())].clone();
            let text = if random.percent(70) { name.to_lowercase() } else { name };
            self.variables.push(("LoaderEntryLastBooted", encode(random, &text)));
        }
        if random.percent(15) {
            let text = random.pick(&["0", "1", "2", "15", "abc", "menu-hidden", "menu-disabled"]);
            self.variables.push(("LoaderConfigTimeout", encode(random, text)));
        }
        if random.percent(8) {
            // Without its closing NUL the last figure is lost: not 10, which would wait for a key.
            let text = random.pick(&["1", "2", "12"]);
            self.variables.push(("LoaderConfigTimeoutOneShot", encode(random, text)));
        }
    }
}

fn os_release(random: &mut Random, version: &str) -> String {
    let plain = format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={version}\nPRETTY_NAME=\"Talos ({version})\"\n");
    let extra = random.pick(&[
        "",
        "",
        "",
        "",
        "",
        "IMAGE_VERSION=9\n",
        "IMAGE_ID=Aaa\n",
        "IMAGE_ID=zzz\n",
        "VERSION='q'\n",
        "ID=\n",
        "PRETTY_NAME=\n",
        "VERSION_ID==v1.9\n",
        "BUILD_ID=7\nVERSION_ID=\n",
        "# VERSION_ID=v99\n  VERSION_ID=v1.5  \n",
        "VERSION_ID =v99\n",
        "PRETTY_NAME='Single'\nID='single'\n",
    ]);
    match random.below(20) {
        0 => (plain + extra).replace('\n', "\r\n"),
        1 => "HOME_URL=nothing\n".to_owned(),
        2 => format!("NAME=\"No id\"\nVERSION_ID={version}\n"),
        3 => format!("ID=talos\nVERSION={version}\n"),
        _ => plain + extra,
    }
}

/// What somebody might ask for: an entry, several, one that is gone.
fn pattern(random: &mut Random, names: &[String]) -> String {
    let name = &names[random.below(names.len())];
    let without_counter = || match (name.find('+'), name.rfind('.')) {
        (Some(plus), Some(dot)) if plus < dot => format!("{}{}", &name[..plus], &name[dot..]),
        _ => name.clone(),
    };
    let head: String = name.chars().take(9).collect();
    match random.below(20) {
        0..=4 => name.clone(),
        5 => name.to_lowercase(),
        6 => name.to_uppercase(),
        7 => format!("{head}*"),
        8 => "*@*".to_owned(),
        9 => format!("{name}@reset"),
        10 => format!("{name}@Reset"),
        11 => format!("{name}@{}", random.below(3)),
        12 => "?alos-v1.1[23]*".to_owned(),
        13 => "gone.efi".to_owned(),
        14 => "@saved".to_owned(),
        15 | 16 => without_counter(),
        17 => format!("{name}@main"),
        18 => random.pick(&["auto-*", "auto-poweroff", "auto-reboot", "@SAVED", "[a-", "x\\"]).to_owned(),
        _ => format!("*{}", name.chars().skip(6).collect::<String>()),
    }
}

/// As the operating system would write it, or as somebody who does not know better.
fn encode(random: &mut Random, text: &str) -> Vec<u8> {
    let mut data: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    match random.below(10) {
        // Without the closing NUL.
        0 | 1 if !data.is_empty() => {}
        // An odd number of bytes.
        2 if random.percent(30) => data.extend([0, 0, 0]),
        _ => data.extend([0, 0]),
    }
    data
}
