//! UKIs that the tools of the field make of Debian's kernels: ukify and systemd-measure of two versions, sbsign, cpio
//! with each compression. Each is verified, swapped onto an ESP, and read back; those for x64 are started there by
//! systemd-boot in OVMF; PCR 11 is what systemd-measure computes.
//!
//! `tests/makers/prepare.sh DIR` fetches the tools; `BOOTSURGEON_MAKERS=DIR` names them.

use crate::cli::Ran;
use crate::regression::debian_esp;
use crate::support::{Lab, mtools_read, run_ok, sbverify, tools};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SUITES: [&str; 2] = ["trixie", "forky"];
/// Words that only Talos' own images may bring up.
const TALOS_WORDS: [&str; 5] = ["alos", "factory", "EPHEMERAL", "secureboot-uki", "ExtensionService"];
/// The kernel prints to the serial port, and stops where there is nothing to run.
const CMDLINE: &str = "root=/dev/vda2 ro console=ttyS0 panic=-1";
/// What systemd goes through, by the words that are measured.
const PHASES: [&str; 4] = [
    "enter-initrd",
    "enter-initrd:leave-initrd",
    "enter-initrd:leave-initrd:sysinit",
    "enter-initrd:leave-initrd:sysinit:ready",
];

/// The tools of one suite, keys, and what UKIs are made of.
struct Workshop {
    lab: Lab,
    makers: PathBuf,
    suite: &'static str,
}

impl Workshop {
    /// One for each suite; none where nobody asked for them.
    fn all() -> Vec<Self> {
        let Some(makers) = std::env::var_os("BOOTSURGEON_MAKERS").map(PathBuf::from) else {
            crate::support::skip("BOOTSURGEON_MAKERS names no tools; fetch them with tests/makers/prepare.sh DIR");
            return Vec::new();
        };
        if !tools(&["openssl", "sbsign", "sbverify", "cpio", "mkfs.vfat", "mcopy", "mmd"]) {
            return Vec::new();
        }
        SUITES.iter().map(|suite| Self::new(&makers, suite)).collect()
    }

    fn new(makers: &Path, suite: &'static str) -> Self {
        let shop = Self { lab: Lab::new(), makers: makers.to_owned(), suite };
        let path = |name: &str| shop.path(name).display().to_string();
        let request = ["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=maker/"];
        let to = ["-keyout", &path("sb.key"), "-out", &path("sb.crt")];
        run_ok("openssl", &[&request[..], &to].concat());
        run_ok(
            "openssl",
            &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &path("pcr.key")],
        );
        run_ok("openssl", &["pkey", "-in", &path("pcr.key"), "-pubout", "-out", &path("pcr.pub")]);
        let os =
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\n";
        std::fs::write(shop.path("os-release"), os).unwrap();
        let tree = shop.path("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("init"), "#!/bin/sh\n").unwrap();
        shell(&tree, "find . | cpio --quiet -o -H newc >../initrd");
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.makers.join(self.suite).join(name)
    }

    fn kernel(&self, arch: &str) -> (PathBuf, String) {
        let kernels = self.makers.join("kernels");
        let uname = std::fs::read_to_string(kernels.join(format!("{arch}.uname"))).unwrap();
        (kernels.join(format!("{arch}.vmlinuz")), uname)
    }

    /// ukify with these arguments, the keys and the stub beside them.
    fn ukify(&self, arch: &str, name: &str, more: &[String]) -> PathBuf {
        let out = self.path(name);
        let efi = if arch == "arm64" { "aa64" } else { "x64" };
        let kind = if name.ends_with(".addon.efi") { "addon.stub" } else { "stub" };
        let mut command = Command::new(self.tool("ukify"));
        command.arg("build").arg(format!("--efi-arch={efi}"));
        let stub = self.tool(&format!("{efi}.{kind}"));
        command.arg(format!("--stub={}", stub.display())).arg(format!("--output={}", out.display()));
        command.arg(format!("--tools={}", self.makers.join(self.suite).display())).arg("--signtool=sbsign");
        command.arg(format!("--secureboot-private-key={}", self.path("sb.key").display()));
        command.arg(format!("--secureboot-certificate={}", self.path("sb.crt").display()));
        succeed(command.args(more));
        out
    }

    /// The usual sections, and the policies that ukify signs.
    fn usual(&self, arch: &str) -> Vec<String> {
        let (kernel, uname) = self.kernel(arch);
        vec![
            format!("--linux={}", kernel.display()),
            format!("--uname={uname}"),
            format!("--os-release=@{}", self.path("os-release").display()),
            format!("--cmdline={CMDLINE}"),
            format!("--pcr-private-key={}", self.path("pcr.key").display()),
            format!("--pcr-public-key={}", self.path("pcr.pub").display()),
            "--pcr-banks=sha256,sha384".into(),
        ]
    }

    fn uki(&self, arch: &str, name: &str, more: &[String]) -> PathBuf {
        self.ukify(arch, name, &[self.usual(arch), more.to_vec()].concat())
    }

    fn initrd(&self) -> String {
        format!("--initrd={}", self.path("initrd").display())
    }

    fn verify(&self, image: &Path, code: i32) -> Value {
        let args = crate::args!["verify", image, "--cert", self.path("sb.crt"), "--efivars", "none", "--json"];
        crate::cli::run(&args).code(code).json()
    }

    fn expect(&self, image: &Path, id: &str, status: &str, words: &str) {
        let report = self.verify(image, if status == "fail" { 3 } else { 0 });
        let (found, detail) = check(&report, id);
        assert!(found == status && detail.contains(words), "{} {id}: {found}: {detail}", self.suite);
    }

    /// Swaps it onto an ESP that starts another kernel, and reads it back with mtools. Nothing is said of Talos. The
    /// ESP; that of an amd64 image can be started.
    fn swaps(&self, image: &Path, arch: &str) -> PathBuf {
        let old = self.path("old.efi");
        if !old.exists() {
            let os = "--os-release=ID=debian\nVERSION_ID=13\n".to_owned();
            let linux = format!("--linux={}", self.kernel(arch).0.display());
            self.ukify(arch, "old.efi", &[linux, "--uname=6.1.0-1".into(), os, format!("--cmdline={CMDLINE}")]);
        }
        let (name, new) = ("4f5e-6.1.0-1.efi", format!("4f5e-{}.efi", self.kernel(arch).1));
        let esp = debian_esp(&self.lab, 192, &[(name, &old)]).unwrap();
        if arch == "amd64" {
            self.with_loader(&esp);
        }
        let swap = |more: &[&str]| -> Ran {
            let args = crate::args!["swap", esp, image, "--cert", self.path("sb.crt"), "--yes"];
            let more: Vec<std::ffi::OsString> = more.iter().map(Into::into).collect();
            crate::cli::run(&[&args[..], &more].concat())
        };
        for ran in [swap(&["--dry-run"]).code(0), swap(&[]).code(0)] {
            for word in TALOS_WORDS {
                assert!(!ran.out.contains(word) && !ran.err.contains(word), "{word}: {}{}", ran.out, ran.err);
            }
        }
        let there = mtools_read(&esp, 0, &format!("EFI/Linux/{new}")).unwrap_or_else(|| panic!("no {new}"));
        assert!(there == std::fs::read(image).unwrap(), "{}", image.display());
        let back = self.path("back.efi");
        std::fs::write(&back, there).unwrap();
        assert!(sbverify(&back, &self.path("sb.crt")));
        assert_eq!(bootsurgeon!("status", esp, "--json").code(0).json()["boot"]["selected"], new);
        crate::support::fsck_clean(&esp, 0);
        esp
    }

    /// Puts the suite's own systemd-boot for x64 on it.
    fn with_loader(&self, esp: &Path) {
        let loader = self.tool("x64.loader");
        run_ok("mcopy", &["-o", "-i", esp.to_str().unwrap(), loader.to_str().unwrap(), "::/EFI/BOOT/BOOTX64.EFI"]);
    }

    /// Starts the disk in OVMF, without Secure Boot: what comes over the serial port until the kernel finds nothing to
    /// run.
    fn start(&self, disk: &Path) -> Option<String> {
        if !tools(&["qemu-system-x86_64"]) {
            return None;
        }
        let (variables, serial) = (self.path("variables.fd"), self.path("serial"));
        std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
        let firmware = "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35,smm=off", "-accel", "tcg", "-cpu", "qemu64", "-m", "512", "-no-reboot"])
            .args(["-display", "none", "-vga", "none", "-nic", "none", "-monitor", "none", "-drive", firmware])
            .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", variables.display())])
            .args(["-drive", &format!("if=none,id=d,format=raw,snapshot=on,file={}", disk.display())])
            .args(["-device", "virtio-blk-pci,drive=d,bootindex=1"])
            .args(["-serial", &format!("file:{}", serial.display())])
            .stdin(Stdio::null());
        let mut machine = qemu.spawn().unwrap();
        let limit = Instant::now() + Duration::from_secs(180);
        while machine.try_wait().unwrap().is_none() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ended_already = machine.kill();
        machine.wait().unwrap();
        Some(String::from_utf8_lossy(&std::fs::read(serial).unwrap()).into_owned())
    }

    /// What the kernel of x64 must have printed when it was started with this line and took its initrd.
    fn ran(&self, printed: Option<String>, line: &str) {
        let Some(printed) = printed else { return };
        let version = format!("Linux version {} ", self.kernel("amd64").1);
        for words in [&version, &format!("Kernel command line: {line}\r\n"), TOOK_THE_INITRD] {
            assert!(printed.contains(words), "{}: no {words:?} in {printed}", self.suite);
        }
    }

    /// PCR 11 after each phase, by systemd-measure, of the sections as they stand in the image.
    fn measured(&self, image: &Path, sections: &[&str]) -> Vec<String> {
        let bytes = std::fs::read(image).unwrap();
        let report = bootsurgeon!("inspect", image, "--json").code(0).json();
        let all = report["uki"]["sections"].as_array().unwrap();
        let mut command = Command::new(self.tool("systemd-measure"));
        command.arg("calculate").arg("--bank=sha256").arg("--json=short");
        for name in sections {
            let Some(section) = all.iter().find(|s| s["name"] == format!(".{name}")) else { continue };
            let number = |field: &str| section[field].as_u64().unwrap() as usize;
            let file = self.path(&format!("section-{name}"));
            std::fs::write(&file, &bytes[number("offset")..number("offset") + number("bytes")]).unwrap();
            command.arg(format!("--{name}={}", file.display()));
        }
        for phases in PHASES {
            command.arg(format!("--phase={phases}"));
        }
        let theirs: Value = serde_json::from_slice(&succeed(&mut command)).unwrap();
        let of =
            |phases: &str| theirs["sha256"].as_array().unwrap().iter().find(|e| e["phase"] == phases).unwrap().clone();
        PHASES.iter().map(|phases| of(phases)["hash"].as_str().unwrap().to_owned()).collect()
    }
}

/// The kernel says so when the `/init` of its initrd is there.
const TOOK_THE_INITRD: &str = "Run /init as init process";

/// What the stub measures of a base, whichever is there.
const MEASURED: [&str; 11] =
    ["linux", "osrel", "cmdline", "initrd", "ucode", "splash", "dtb", "uname", "sbat", "pcrpkey", "profile"];

/// PCR 11 of a profile after each phase, by this program.
fn ours(image: &Path, profile: usize) -> Vec<String> {
    let report = bootsurgeon!("inspect", image, "--json").code(0).json();
    let phases = report["uki"]["profiles"][profile]["pcr11_phases"].as_array().unwrap().clone();
    phases.iter().map(|p| p[1].as_str().unwrap().to_owned()).collect()
}

fn check(report: &Value, id: &str) -> (String, String) {
    let found = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap().clone();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("status"), text("detail"))
}

fn shell(dir: &Path, line: &str) {
    succeed(Command::new("sh").arg("-ec").arg(line).current_dir(dir));
}

fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

const FITS: &str = "fits the measured sections";

#[test]
fn an_initrd_of_every_compression_is_verified_swapped_and_read_back() {
    for shop in Workshop::all() {
        let (dir, compressions) = (
            shop.path(""),
            [
                ("gzip", "gzip -9"),
                ("bzip2", "bzip2"),
                ("lzma", "xz --format=lzma"),
                ("xz", "xz --check=crc32"),
                ("lz4", "lz4 -l -9"),
                ("zstd", "zstd -q -19"),
                ("plain", "cat"),
            ],
        );
        for (name, command) in compressions {
            shell(&dir, &format!("{command} <initrd >initrd.{name}"));
            let image =
                shop.uki("amd64", "new.efi", &[format!("--initrd={}", shop.path(&format!("initrd.{name}")).display())]);
            shop.expect(&image, "initrd", "pass", "1 archive, 2 entries");
            shop.expect(&image, "pcr-signature", "pass", FITS);
            assert_eq!(ours(&image, 0), shop.measured(&image, &MEASURED), "{} {name}", shop.suite);
            let esp = shop.swaps(&image, "amd64");
            // The kernel is the same for both.
            if name == "zstd" || shop.suite == SUITES[0] {
                shop.ran(shop.start(&esp), CMDLINE);
            }
        }
        // The kernel's xz knows no CRC64: what it would not unpack is refused, and it does not.
        shell(&dir, "xz --check=crc64 <initrd >initrd.crc64");
        let image = shop.uki("amd64", "new.efi", &[format!("--initrd={}", shop.path("initrd.crc64").display())]);
        shop.expect(&image, "initrd", "fail", "CRC64");
        let esp = debian_esp(&shop.lab, 192, &[("debian.efi", &image)]).unwrap();
        shop.with_loader(&esp);
        let started = (shop.suite == SUITES[0]).then(|| shop.start(&esp)).flatten();
        if let Some(printed) = started {
            assert!(printed.contains("Linux version") && !printed.contains(TOOK_THE_INITRD), "{printed}");
        }
        // Microcode first, as kernel-install hands it over; and in a section of its own.
        let twice = [shop.initrd(), format!("--initrd={}", shop.path("initrd.zstd").display())];
        let ucode = [shop.initrd(), format!("--microcode={}", shop.path("initrd").display())];
        for (more, entries) in [(twice, "2 archives, 4 entries"), (ucode, "1 archive, 2 entries")] {
            let image = shop.uki("amd64", "new.efi", &more);
            shop.expect(&image, "initrd", "pass", entries);
            shop.expect(&image, "pcr-signature", "pass", FITS);
            assert_eq!(ours(&image, 0), shop.measured(&image, &MEASURED));
            let esp = shop.swaps(&image, "amd64");
            shop.ran(shop.start(&esp), CMDLINE);
        }
    }
}

/// The whole job on the ESP of an arm64 machine with Debian.
#[test]
fn a_signed_uki_of_debians_kernel_is_swapped_on_arm64_without_a_word_of_talos() {
    for shop in Workshop::all() {
        let image = shop.uki("arm64", "new.efi", &[shop.initrd()]);
        shop.expect(&image, "pcr-signature", "pass", "enter-initrd:leave-initrd:sysinit:ready");
        assert_eq!(ours(&image, 0), shop.measured(&image, &MEASURED), "{}", shop.suite);
        shop.swaps(&image, "arm64");
        // Whatever is changed in it, it is found.
        let mut bytes = std::fs::read(&image).unwrap();
        let at = bytes.windows(9).position(|w| w == b"root=/dev").unwrap();
        bytes[at] = b'R';
        let changed = shop.path("changed.efi");
        std::fs::write(&changed, bytes).unwrap();
        shop.expect(&changed, "authenticode-digest", "fail", "changed after it was signed");
        shop.expect(&changed, "pcr-signature", "fail", "changed after signing");
    }
}

#[test]
fn profiles_that_ukify_joins_have_their_own_policies() {
    for shop in Workshop::all() {
        // A profile is a program of its own until it is joined, and has the smallest stub; nobody signs it.
        let profile = shop.path("rescue.efi");
        let mut command = Command::new(shop.tool("ukify"));
        command.args([
            "build",
            "--efi-arch=x64",
            "--profile=ID=rescue\nTITLE=Rescue\n",
            "--cmdline=root=/dev/vda2 rescue",
        ]);
        command.arg(format!("--stub={}", shop.tool("x64.addon.stub").display()));
        succeed(command.arg(format!("--output={}", profile.display())));
        let joined = format!("--join-profile={}", profile.display());
        let image = shop.uki("amd64", "new.efi", &[shop.initrd(), "--profile=ID=main\nTITLE=Main\n".into(), joined]);
        let report = bootsurgeon!("inspect", image, "--json").code(0).json();
        let ids: Vec<_> = report["uki"]["profiles"].as_array().unwrap().iter().map(|p| p["id"].clone()).collect();
        assert_eq!(ids, ["main", "rescue"], "{}", shop.suite);
        shop.expect(&image, "pcr-signature", "pass", "(2 of 2 profiles");
        assert_eq!(ours(&image, 0), shop.measured(&image, &MEASURED), "{}", shop.suite);
        let esp = shop.swaps(&image, "amd64");
        shop.ran(shop.start(&esp), CMDLINE);
    }
}

/// What of a device tree and of hardware IDs is measured depends on the board, and systemd-measure 257 gets it wrong.
#[test]
fn device_trees_and_hardware_ids_are_skipped_or_told_with_their_reason() {
    for shop in Workshop::all() {
        let hwids = shop.path("hwids");
        std::fs::create_dir(&hwids).unwrap();
        let ids =
            "Manufacturer: Acme\nFamily: A\nProductName: A\n{b1e3f1b6-ee55-5cc7-ba33-ff54d58b3ac1}   <- Manufacturer\n";
        std::fs::write(hwids.join("a.txt"), ids).unwrap();
        let json = r#"{"type":"devicetree","name":"A","compatible":"acme,a","hwids":["b1e3f1b6-ee55-5cc7-ba33-ff54d58b3ac1"]}"#;
        std::fs::write(hwids.join("a.json"), json).unwrap();
        for name in ["a", "b"] {
            std::fs::write(shop.path(name), device_tree(&format!("acme,{name}"))).unwrap();
        }
        let tree = |name: &str| format!("--devicetree-auto={}", shop.path(name).display());
        let one = shop.uki("arm64", "one.efi", &[shop.initrd(), tree("a")]);
        let hwids = format!("--hwids={}", hwids.display());
        let two = shop.uki("arm64", "two.efi", &[shop.initrd(), tree("a"), tree("b"), hwids]);
        if shop.suite == "trixie" {
            for image in [&one, &two] {
                shop.expect(image, "pcr-signature", "warn", "exchanges .dtbauto and .hwids");
            }
        } else {
            shop.expect(&one, "pcr-signature", "pass", "where the board takes the device tree");
            shop.expect(&two, "pcr-signature", "skip", "It depends on the board");
        }
        shop.swaps(&two, "arm64");
        // A plain device tree is measured everywhere.
        let plain =
            shop.uki("arm64", "plain.efi", &[shop.initrd(), format!("--devicetree={}", shop.path("a").display())]);
        shop.expect(&plain, "pcr-signature", "pass", FITS);
        assert_eq!(ours(&plain, 0), shop.measured(&plain, &MEASURED), "{}", shop.suite);
    }
}

/// The smallest device tree with a `compatible` (Devicetree Specification 0.4, "Flattened Devicetree Format").
fn device_tree(compatible: &str) -> Vec<u8> {
    let strings = b"compatible\0";
    let value = [compatible.as_bytes(), b"\0"].concat();
    let mut nodes = Vec::new();
    nodes.extend(1_u32.to_be_bytes());
    nodes.extend([0; 4]);
    for word in [3, value.len() as u32, 0] {
        nodes.extend(word.to_be_bytes());
    }
    nodes.extend(&value);
    nodes.resize(nodes.len().next_multiple_of(4), 0);
    nodes.extend(2_u32.to_be_bytes());
    nodes.extend(9_u32.to_be_bytes());
    let (at, end) = (56, 56 + nodes.len() as u32);
    let total = end + strings.len() as u32;
    let header = [0xD00D_FEED, total, at, end, 40, 17, 16, 0, strings.len() as u32, nodes.len() as u32];
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    [&header[..], &[0; 16], &nodes, strings].concat()
}

#[test]
fn addons_that_ukify_makes_are_verified_and_judged_with_the_image() {
    for shop in Workshop::all() {
        let uname = shop.kernel("arm64").1;
        let image = shop.uki("arm64", "new.efi", &[shop.initrd()]);
        let addon = |name: &str, uname: &str, line: &str| {
            let arguments = [format!("--cmdline={line}"), format!("--uname={uname}")];
            std::fs::read(shop.ukify("arm64", name, &arguments)).unwrap()
        };
        let esp = debian_esp(&shop.lab, 192, &[("debian.efi", &image)]).unwrap();
        let device = esp.to_str().unwrap();
        run_ok("mmd", &["-i", device, "::/loader/addons", "::/EFI/Linux/debian.efi.extra.d"]);
        let put = |path: &str, content: &[u8]| {
            let file = shop.path("content");
            std::fs::write(&file, content).unwrap();
            run_ok("mcopy", &["-o", "-i", device, file.to_str().unwrap(), &format!("::/{path}")]);
        };
        put("loader/addons/console.addon.efi", &addon("console.addon.efi", &uname, "console=ttyAMA0"));
        put("EFI/Linux/debian.efi.extra.d/debug.addon.efi", &addon("debug.addon.efi", &uname, "debug"));
        shop.expect(&esp, "addons", "pass", "adds \"console=ttyAMA0\" to the command line, signed by");
        let report = bootsurgeon!("inspect", esp, "--json").code(0).json();
        let line = report["uki"]["profiles"][0]["cmdline_with_addons"].as_str().unwrap();
        assert!(line.ends_with(&format!("{CMDLINE} console=ttyAMA0 debug")), "{line}");
        put("loader/addons/console.addon.efi", &addon("console.addon.efi", "6.1.0-1", "console=ttyAMA0"));
        shop.expect(&esp, "addons", "warn", "it is for the kernel 6.1.0-1");
    }
}

/// The command line that is judged is the one that the kernel gets, in the stub's order of what is added.
#[test]
fn addons_that_ukify_makes_reach_the_kernel_as_foretold() {
    for shop in Workshop::all() {
        let uname = shop.kernel("amd64").1;
        let image = shop.uki("amd64", "new.efi", &[shop.initrd()]);
        let esp = debian_esp(&shop.lab, 192, &[("debian.efi", &image)]).unwrap();
        shop.with_loader(&esp);
        let device = esp.to_str().unwrap();
        run_ok("mmd", &["-i", device, "::/loader/addons", "::/EFI/Linux/debian.efi.extra.d"]);
        for (place, name, uname) in [
            ("loader/addons", "b.addon.efi", uname.as_str()),
            ("loader/addons", "A.addon.efi", &uname),
            ("loader/addons", "10.addon.efi", &uname),
            ("loader/addons", "9.addon.efi", &uname),
            ("loader/addons", "other.addon.efi", "6.1.0-1"),
            ("EFI/Linux/debian.efi.extra.d", "z.addon.efi", &uname),
            ("EFI/Linux/debian.efi.extra.d", "B.addon.efi", &uname),
        ] {
            let arguments =
                [format!("--cmdline=from.{}", name.trim_end_matches(".addon.efi")), format!("--uname={uname}")];
            let addon = shop.ukify("amd64", name, &arguments);
            run_ok("mcopy", &["-i", device, addon.to_str().unwrap(), &format!("::/{place}/{name}")]);
        }
        let report = bootsurgeon!("inspect", esp, "--json").code(0).json();
        let line = report["uki"]["profiles"][0]["cmdline_with_addons"].as_str().unwrap();
        assert_eq!(line.matches("from.").count(), 6, "{line}");
        shop.ran(shop.start(&esp), line);
    }
}
