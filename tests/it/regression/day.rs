//! The operator's day: what is asked, what is shown before it, and what comes next.

use crate::cli::{ESP, Ran, TAILSCALE, put, uki};
use crate::support::{Lab, tool};
use bootsurgeon::fat::{Link, Volume};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

const INSTALLER: &str = "v1.12.4-arm64-installer";
const PLAIN: &str = "v1.12.4-arm64-plain";
/// The empty schematic, which the plain image was built from.
const EMPTY: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

/// Runs the program at a terminal, and types this once it asks; what the terminal shows, without its line ends, is in
/// `out`.
fn at_terminal(args: &[OsString], typed: &str) -> Ran {
    let quoted = |arg: &OsString| format!("'{}'", arg.to_str().expect("UTF-8"));
    let program = crate::support::program().get_program().to_owned();
    let command = std::iter::once(&program).chain(args).map(quoted).collect::<Vec<_>>().join(" ");
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qefc", &command, "/dev/null"]).env("NO_COLOR", "1").env("SHELL", "/bin/sh");
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    let mut asked = false;
    loop {
        let n = screen.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        shown.extend_from_slice(&buffer[..n]);
        if !asked && shown.windows(5).any(|w| w == b"[y/N]") {
            asked = true;
            keyboard.write_all(typed.as_bytes()).unwrap();
        }
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let out = String::from_utf8_lossy(&shown).replace(['\r', '\n'], " ");
    Ran { command, code, out, err: String::new() }
}

/// Asserts that nothing of a disk has changed but what lies in free clusters of its ESP.
#[track_caller]
fn same_but_free_clusters(before: &[u8], disk: &Path) {
    let after = std::fs::read(disk).unwrap();
    let volume = Volume::open(&before[ESP as usize..]).unwrap();
    let (geometry, table) = (volume.geometry(), volume.table());
    let (mut free, mut at) = (vec![false; before.len()], 0);
    for c in table.clusters().filter(|c| table.link(*c) == Link::Free) {
        at = (ESP + geometry.cluster_offset(c)) as usize;
        free[at..at + geometry.cluster_bytes as usize].fill(true);
    }
    assert!(at > 0 && before.len() == after.len());
    let differs = (0..before.len()).find(|i| before[*i] != after[*i] && !free[*i]);
    assert_eq!(differs, None, "a byte that is in use has changed");
}

/// Whether these stand in the text in this order.
#[track_caller]
fn in_order(text: &str, words: &[&str]) {
    let mut rest = text;
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("no {word:?}, or not in this place: {text}"));
        rest = &rest[at + word.len()..];
    }
}

const SHOWN_BEFORE_SWAP: [&str; 6] = [
    "checks passed",
    "37656798 -> 4a0d65c6",
    "+ tailscale",
    "Talos-v1.12.4.efi on ",
    "schematic 37656798 -> 4a0d65c6, + tailscale; old image kept as Talos-v1.12.4.efi.bak.",
    "Commit? [y/N]",
];

#[test]
fn issue16_2_plan_and_checks_come_before_the_question_wherever_the_image_comes_from() {
    if !tool("script") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    let with_ranges = Behaviour { redirect: true, ..Behaviour::default() };
    let ranges = factory.serve_path("/ranges.efi", bytes.clone(), with_ranges);
    let whole = factory.serve_path("/whole.efi", bytes, Behaviour::default());
    let before = std::fs::read(&disk).unwrap();
    for source in [image.into_os_string(), ranges.into(), whole.into()] {
        for (typed, words) in [("n\n", "not confirmed"), ("\x03", "stopped on request"), ("\x04", "not confirmed")] {
            let ran = at_terminal(&args!["swap", disk, source], typed).code(130);
            in_order(&ran.out, &SHOWN_BEFORE_SWAP);
            in_order(&ran.out, &["[y/N]", words, "the ESP was not changed"]);
            same_but_free_clusters(&before, &disk);
        }
    }
    let report = at_terminal(&args!["swap", disk, uki(&lab, INSTALLER)], "y\n").code(0);
    in_order(&report.out, &SHOWN_BEFORE_SWAP);
    in_order(&report.out, &["[y/N]", "Swapped: Talos-v1.12.4.efi"]);

    let before = std::fs::read(&disk).unwrap();
    for typed in ["n\n", "\x03"] {
        let ran = at_terminal(&args!["restore", disk], typed).code(130);
        let question = "37656798, - tailscale; present image kept as Talos-v1.12.4.efi.bak.";
        in_order(&ran.out, &["checks passed", "4a0d65c6 -> 37656798", question, "Commit? [y/N]"]);
        assert!(before == std::fs::read(&disk).unwrap(), "something was written");
    }
    at_terminal(&args!["restore", disk], "y\n").code(0);
}

#[test]
fn issue16_2_nobody_to_ask_means_that_nothing_is_staged() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    let url = factory.serve_path("/whole.efi", bytes, Behaviour::default());
    let before = std::fs::read(&disk).unwrap();
    for source in [image.display().to_string(), url.clone()] {
        bootsurgeon!("swap", disk, source).fails(4, &["confirmation is missing", "--yes", "not changed"]);
        let json = bootsurgeon!("swap", disk, source, "--json").code(4).json();
        assert_eq!(json["error"]["code"], "unconfirmed");
        assert!(before == std::fs::read(&disk).unwrap(), "something was written");
    }
}

/// Nothing to do is 0 before any question: without a terminal, without `--yes`, with and without ranges, on a full ESP.
#[test]
fn issue16_6_nothing_to_do_is_said_before_anything_else() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    bootsurgeon!("swap", disk, image, "--yes").code(0);
    let free = bootsurgeon!("status", disk, "--json").code(0).json()["esp"]["free_bytes"].as_u64().unwrap();
    put(&disk, ESP, "filler.bin", &vec![7; (free - 8192) as usize]);
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    let ranges = Behaviour { redirect: true, ..Behaviour::default() };
    let urls = [
        factory.serve_path("/whole.efi", bytes.clone(), Behaviour::default()),
        factory.serve_path("/ranges.efi", bytes, ranges),
    ];
    let before = std::fs::read(&disk).unwrap();
    for source in [image.display().to_string()].into_iter().chain(urls) {
        for how in [&["--json"][..], &["--json", "--dry-run"], &["--json", "--yes"]] {
            let mut args = args!["swap", disk, source].to_vec();
            args.extend(how.iter().map(Into::into));
            let report = crate::cli::run(&args).code(0).json();
            assert_eq!(report["already_in_place"], true, "{source} {how:?}: {report:#}");
        }
    }
    assert!(before == std::fs::read(&disk).unwrap(), "something was written");
    // Nor is an image looked at that is there already, whoever signed it.
    let disk = lab.fixture_as("disk-512.img.zst", "unsigned.img");
    let unsigned = uki(&lab, "v1.12.4-arm64-unsigned");
    bootsurgeon!("swap", disk, unsigned, "--yes", "--allow-untrusted").code(0);
    let url = factory.serve_path("/unsigned.efi", std::fs::read(&unsigned).unwrap(), Behaviour::default());
    for how in ["--dry-run", "--yes"] {
        let report = bootsurgeon!("swap", disk, url, how, "--json").code(0).json();
        assert_eq!(report["already_in_place"], true, "{how}: {report:#}");
    }
    let disk = lab.path("disk-512.img");
    // Another image, and no room: one verdict.
    for how in ["--dry-run", "--yes"] {
        bootsurgeon!("swap", disk, uki(&lab, "v1.12.4-arm64-uki"), how).fails(4, &["no room"]);
    }
}

/// One rule for every file that is written: it is not replaced without `--force`.
#[test]
fn issue16_5_no_command_replaces_a_file_unasked() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(&image).unwrap();
    factory.serve(TAILSCALE, "v1.12.4", "metal-arm64-secureboot-uki.efi", bytes, Behaviour::default());
    let file = lab.path("mine");
    let url = factory.url();
    let fetch = args!["fetch", "--schematic", TAILSCALE, "--talos", "v1.12.4", "--arch", "arm64", "--kind", "uki"];
    let fetch = [&fetch[..], &args!["--factory", url, "--out", file]].concat();
    let commands = [
        fetch,
        args!["extract", image, "--out", file].to_vec(),
        args!["swap", disk, image, "--yes", "--out", file].to_vec(),
        args!["swap", disk, image, "--yes", "--backup-to", file].to_vec(),
        args!["prune", disk, "--yes", "--out", file].to_vec(),
        args!["recover", disk, "--yes", "--out", file].to_vec(),
    ];
    for command in commands {
        std::fs::write(&file, "mine").unwrap();
        crate::cli::run(&command).fails(4, &["exists", "--force"]);
        assert_eq!(std::fs::read(&file).unwrap(), b"mine", "{command:?}");
        crate::cli::run(&[&command[..], &args!["--force"]].concat()).code(0);
        assert_ne!(std::fs::read(&file).unwrap(), b"mine", "{command:?}");
    }
}

#[test]
fn issue16_3_extensions_are_not_lost_in_silence() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let (more, less) = (uki(&lab, INSTALLER), uki(&lab, PLAIN));
    bootsurgeon!("swap", disk, more, "--yes").code(0);
    let before = std::fs::read(&disk).unwrap();
    let from = format!("schematic edit --from {} --add-extension siderolabs/tailscale", less.display());
    for how in ["--yes", "--dry-run"] {
        let ran = bootsurgeon!("swap", disk, less, how);
        let ran =
            ran.fails(4, &["lacks: tailscale", TAILSCALE, "- siderolabs/tailscale", "--allow-extension-loss", &from]);
        assert!(ran.err.contains("not changed"), "{}", ran.err);
        same_but_free_clusters(&before, &disk);
        let json = bootsurgeon!("swap", disk, less, how, "--json").code(4).json();
        assert_eq!(json["error"]["code"], "extension-loss", "{json:#}");
    }
    // The command that is recommended gives the schematic that is named.
    let words: Vec<&str> = from.split(' ').chain(["--json"]).collect();
    assert_eq!(crate::cli::run(&words).code(0).json()["id"], TAILSCALE);

    // Looking is allowed: a warning, with the same schematic.
    let report = bootsurgeon!("verify", less, "--installed", disk, "--json").code(0).json();
    let check = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "extensions").unwrap();
    assert_eq!(check["status"], "warn", "{check:#}");
    assert!(check["detail"].as_str().unwrap().contains(TAILSCALE), "{check:#}");
    assert_eq!(report["extension_loss"]["schematic"]["id"], TAILSCALE, "{report:#}");
    assert_eq!(report["extension_loss"]["names"], serde_json::json!(["tailscale"]));
    let differ = bootsurgeon!("diff", more, less, "--json").code(0).json();
    assert_eq!(differ["extension_loss"]["schematic"]["id"], TAILSCALE, "{differ:#}");
    assert!(bootsurgeon!("diff", more, less).code(0).out.contains("lacks: tailscale"));
    assert!(bootsurgeon!("diff", less, more, "--json").code(0).json()["extension_loss"].is_null());

    let report = bootsurgeon!("swap", disk, less, "--yes", "--allow-extension-loss", "--json").code(0).json();
    assert_eq!(report["change"]["removed"], serde_json::json!(["tailscale"]), "{report:#}");
    // A way back is one, whatever it lacks.
    bootsurgeon!("restore", disk, "--yes").code(0);
    bootsurgeon!("restore", disk, "--yes").code(0);
}

/// From a factory, by ID and by file.
#[test]
fn issue16_3_the_schematic_with_all_comes_from_where_the_image_comes_from() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(uki(&lab, PLAIN)).unwrap();
    factory.serve(EMPTY, "v1.12.4", "metal-arm64-secureboot-uki.efi", bytes, Behaviour::default());
    let file = lab.path("empty.yaml");
    std::fs::write(&file, "customization: {}\n").unwrap();
    bootsurgeon!("schematic", "create", file, "--factory", factory.url()).code(0);
    for schematic in [EMPTY.to_owned(), file.display().to_string()] {
        let args =
            args!["swap", disk, "--schematic", schematic, "--talos", "v1.12.4", "--factory", factory.url(), "--yes"];
        let json = crate::cli::run(&[&args[..], &args!["--json"]].concat()).code(4).json();
        let advice = json["error"]["advice"].as_str().unwrap();
        let command = advice.split('`').nth(1).unwrap();
        let program = crate::support::program().get_program().to_str().unwrap().to_owned();
        let command = command.replace("bootsurgeon ", &format!("{program} "));
        crate::support::run_ok("sh", &["-c", &format!("cd {} && {command}", lab.path("").display())]);
        let id = bootsurgeon!("schematic", "id", lab.path("all.yaml"), "--json").code(0).json();
        assert_eq!(id["id"], TAILSCALE, "{advice}");
    }
}

#[test]
fn issue16_3_a_downgrade_is_a_warning() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    for more in [&["--dry-run"][..], &["--dry-run", "--talos", "v1.12.3"], &["--yes"]] {
        let mut args = args!["swap", disk, uki(&lab, "v1.12.3-arm64-installer"), "--json"].to_vec();
        args.extend(more.iter().map(Into::into));
        let report = crate::cli::run(&args).code(0).json();
        let check = report["checks"].as_array().unwrap().iter().find(|c| c["id"] == "version").unwrap();
        assert_eq!(check["status"], "warn", "{check:#}");
        assert!(check["detail"].as_str().unwrap().contains("downgrade"), "{check:#}");
    }
    let up = bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes", "--json").code(0).json();
    let check = up["checks"].as_array().unwrap().iter().find(|c| c["id"] == "version").unwrap();
    assert_ne!(check["status"], "warn", "{check:#}");
    // A restore is the way back.
    let back = bootsurgeon!("restore", disk, "--yes", "--json").code(0).json();
    let check = back["checks"].as_array().unwrap().iter().find(|c| c["id"] == "version").unwrap();
    assert_ne!(check["status"], "warn", "{check:#}");
}

#[test]
fn issue16_4_what_comes_next_names_the_installer_that_keeps_the_change() {
    let lab = Lab::new();
    let step = |report: &serde_json::Value| {
        let steps = report["next"].as_array().unwrap();
        let step = steps.iter().find(|s| s["why"].as_str().is_some_and(|why| why.contains("machine.install.image")));
        let step = step.unwrap_or_else(|| panic!("no step: {report:#}"));
        assert!(step["why"].as_str().unwrap().contains("talosctl upgrade"), "{step:#}");
        // A command to copy, with the patch in single quotes.
        let command = step["command"].as_str().unwrap_or_else(|| panic!("no command: {step:#}"));
        let (talosctl, patch) = command.split_once('\'').expect("a quoted patch");
        assert_eq!(talosctl, "talosctl -n NODE patch machineconfig --mode no-reboot --patch ");
        let patch: serde_json::Value = serde_json::from_str(patch.strip_suffix('\'').unwrap()).unwrap();
        patch["machine"]["install"]["image"].as_str().unwrap().to_owned()
    };
    for (image, options, installer) in [
        (INSTALLER, &[][..], format!("factory.talos.dev/metal-installer-secureboot/{TAILSCALE}:v1.12.4")),
        ("v1.12.3-arm64-installer", &[], format!("factory.talos.dev/metal-installer-secureboot/{TAILSCALE}:v1.12.3")),
        ("v1.12.4-arm64-unsigned", &["--allow-untrusted"], "factory.talos.dev/metal-installer/".to_owned()),
    ] {
        let disk = lab.fixture("disk-512.img.zst");
        let mut args = args!["swap", disk, uki(&lab, image), "--yes", "--json"].to_vec();
        args.extend(options.iter().map(Into::into));
        let said = step(&crate::cli::run(&args).code(0).json());
        assert!(said.starts_with(&installer), "{said}");
    }
    // The factory that was asked, and the way back.
    let disk = lab.fixture("disk-512.img.zst");
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(uki(&lab, INSTALLER)).unwrap();
    factory.serve(TAILSCALE, "v1.12.4", "metal-arm64-secureboot-uki.efi", bytes, Behaviour::default());
    let args = args![
        "swap",
        disk,
        "--schematic",
        TAILSCALE,
        "--talos",
        "v1.12.4",
        "--yes",
        "--json",
        "--factory",
        factory.url()
    ];
    let said = step(&crate::cli::run(&args).code(0).json());
    let host = factory.url().replace("http://", "");
    assert!(said.contains(&format!("{host}/metal-installer-secureboot/{TAILSCALE}:v1.12.4")), "{said}");
    let said = step(&bootsurgeon!("restore", disk, "--yes", "--json").code(0).json());
    assert!(said.contains(&format!("factory.talos.dev/metal-installer-secureboot/{EMPTY}:v1.12.4")), "{said}");
}

/// What a swap leaves that is cut after so many writes; `None` when it came to its end.
fn cut_swap(disk: &Path, image: &Path, writes: usize) -> Option<Vec<u8>> {
    use bootsurgeon::block::Sink;
    use bootsurgeon::surgery::{FileStep, LINUX_DIR, Order, Rename, Staging, open_healthy};
    use sha2::{Digest, Sha256};
    let whole = std::fs::read(disk).unwrap();
    let bytes = std::fs::read(image).unwrap();
    let medium = super::recovery::Overlay::cut_after(&whole[ESP as usize..], writes);
    let rename = |from: &str, to: &str| Rename { from: from.to_owned(), to: to.to_owned() };
    let order = Order {
        command: "swap".to_owned(),
        time: 1_771_000_000,
        directory: LINUX_DIR.to_owned(),
        before: Vec::new(),
        target: "Talos-v1.12.4.efi".to_owned(),
        backup: Some("Talos-v1.12.4.efi.bak.1771000000".to_owned()),
        directories: Vec::new(),
        set: Vec::new(),
        after: vec![FileStep::Rename(rename("Talos-v1.12.4~1.efi", "Talos-v1.12.4~1.efi.disabled.1771000000"))],
    };
    let run = || -> bootsurgeon::Result<()> {
        let mut staging = Staging::begin(open_healthy(&medium)?, bytes.len() as u64)?;
        bytes.chunks(1 << 16).try_for_each(|chunk| staging.chunk(chunk))?;
        staging.seal(Sha256::digest(&bytes).into())?.commit(&order).map(drop)
    };
    let done = run().is_ok();
    let left = [&whole[..ESP as usize], &medium.to_bytes()].concat();
    (!done).then_some(left)
}

/// At every moment `status` and `doctor` say which image starts, how far the swap came, and what `recover` then does.
#[test]
fn issue16_7_an_interrupted_swap_is_described_as_it_is() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    let (old, new) = (crate::support::sha256(&uki(&lab, PLAIN)), crate::support::sha256(&image));
    let cut = lab.path("cut.img");
    // Staging alone takes thousands of sectors: from the end of that on.
    let sectors = std::fs::metadata(&image).unwrap().len().div_ceil(512) as usize;
    let (mut before, mut past) = (0, 0);
    for writes in sectors.. {
        let Some(left) = cut_swap(&disk, &image, writes) else { break };
        std::fs::write(&cut, left).unwrap();
        let status = bootsurgeon!("status", cut, "--json").code(0).json();
        let Some(finding) = status["findings"].as_array().unwrap().iter().find(|f| f["id"] == "interrupted") else {
            continue;
        };
        let meaning = finding["meaning"].as_str().unwrap();
        let file = status["files"].as_array().unwrap().iter().find(|f| f["name"] == "Talos-v1.12.4.efi").unwrap();
        assert!(meaning.contains("the board starts EFI/Linux/Talos-v1.12.4.efi"), "{writes}: {meaning}");
        let recovered = bootsurgeon!("recover", cut, "--dry-run", "--json").code(0).json();
        if file["sha256"] == new.as_str() {
            assert!(meaning.contains("past its commit") && meaning.contains("will finish it"), "{writes}: {meaning}");
            assert_eq!(recovered["finished"], true, "{writes}");
            past += 1;
        } else {
            assert_eq!(file["sha256"], old.as_str());
            assert!(meaning.contains("not committed") && meaning.contains("will roll it back"), "{writes}: {meaning}");
            assert_eq!(recovered["finished"], false, "{writes}");
            before += 1;
        }
        if past == 1 {
            let text = bootsurgeon!("status", cut).code(0).out.replace("\n           ", " ");
            assert!(text.contains("past its commit") && !text.contains("as before"), "{text}");
        }
    }
    assert!(before > 2 && past > 1, "{before} states before the commit, {past} behind it");
}

#[test]
fn issue16_8_doctors_exit_code_is_asked_for() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let sound = bootsurgeon!("doctor", disk, "--json").code(0).json();
    assert_ne!(sound["worst"], "problem");
    bootsurgeon!("doctor", disk, "--exit-code").code(0);
    let bad = crate::cli::copy(&disk, &lab.path("bad.img"));
    crate::cli::patch(&bad, ESP, &[0; 512]);
    crate::cli::patch(&bad, ESP + 6 * 512, &[0; 512]);
    let report = bootsurgeon!("doctor", disk, bad, "--json").code(0).json();
    assert_eq!(report["worst"], "problem", "{report:#}");
    bootsurgeon!("doctor", disk, bad, "--exit-code").code(4);
    bootsurgeon!("doctor", disk, bad, "--exit-code", "--json").code(4).json();
}

/// A disk that cannot be read may have what the firmware starts.
#[test]
fn issue16_8_a_disk_that_could_not_be_read_is_not_nothing() {
    let board = crate::board::Board::new();
    let root = board.lab.path("node");
    // The kernel knows the disk, and this process has no node of it.
    std::fs::create_dir_all(root.join("sys/block/sdq")).unwrap();
    std::fs::create_dir_all(root.join("dev")).unwrap();
    std::fs::write(root.join("sys/block/sdq/size"), "4194304\n").unwrap();
    std::fs::write(root.join("sys/block/sdq/dev"), "65:0\n").unwrap();
    let report = board.json(&["doctor", "--root", "node", "--efivars", "none", "--json"]);
    assert_eq!(report["unread"], serde_json::json!(["sdq"]), "{report:#}");
    let starts = report["firmware_starts"].as_str().unwrap();
    assert!(starts.contains("sdq could not be read") && !starts.contains("nothing"), "{starts}");
    let no_esp = report["findings"].as_array().unwrap().iter().find(|f| f["id"] == "no-esp").unwrap();
    assert!(no_esp["meaning"].as_str().unwrap().contains("could be read"), "{no_esp:#}");
    let ran = board.run(&["doctor", "--root", "node", "--efivars", "none", "--exit-code"]);
    assert_eq!(ran.status.code(), Some(1));
}

#[test]
fn issue16_13_the_list_of_backups_tells_them_apart() {
    if !tool("mcopy") {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    bootsurgeon!("swap", disk, uki(&lab, INSTALLER), "--yes").code(0);
    let list = bootsurgeon!("restore", disk, "--list", "--json").code(0).json();
    let all = list["backups"].as_array().unwrap();
    assert_eq!(list["boots_now"]["schematic"], TAILSCALE, "{list:#}");
    assert_eq!((&all[0]["schematic"], &all[0]["is_next"]), (&EMPTY.into(), &true.into()), "{list:#}");
    assert_eq!(all[0]["extensions"], serde_json::json!([]));
    let disabled = all.iter().find(|b| b["disabled"] == true).unwrap_or_else(|| panic!("{list:#}"));
    let name = disabled["name"].as_str().unwrap().to_owned();
    assert!(name.contains(".efi.disabled."), "{name}");
    let text = bootsurgeon!("restore", disk, "--list").code(0).out;
    for words in
        ["Boots now Talos-v1.12.4.efi: v1.12.4, schematic 4a0d65c6, tailscale", "schematic 37656798, no extensions"]
    {
        assert!(text.contains(words), "no {words:?}: {text}");
    }
    assert!(text.lines().any(|l| l.contains(&name) && l.contains("disabled; restored by its name")), "{text}");

    // What was disabled goes back by its name, and only so.
    bootsurgeon!("prune", disk, "--yes", "--keep-backups", "0").code(0);
    bootsurgeon!("restore", disk, "--yes").fails(2, &["there is no backup", &name]);
    let report = bootsurgeon!("restore", disk, &name, "--yes", "--json").code(0).json();
    assert_eq!(report["restored"], name.as_str());
}

/// The report says what has changed for the person, once; every check is a word away.
#[test]
fn issue16_report_says_what_changed_and_names_no_file_twice() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, INSTALLER);
    for (how, title) in
        [("--dry-run", "Plan (nothing written): Talos-v1.12.4.efi"), ("--yes", "Swapped: Talos-v1.12.4.efi")]
    {
        let ran = bootsurgeon!("swap", disk, image, how).code(0);
        in_order(&ran.out, &["checks passed", "warning", "(-v shows all)", title]);
        in_order(&ran.out, &[title, "schematic", "37656798 -> 4a0d65c6", "extensions", "+ tailscale", "old image in"]);
        assert!(!ran.out.contains("pass  pe"), "{}", ran.out);
        let report: Vec<&str> = ran.out.split("Next").next().unwrap().split_whitespace().collect();
        let named = report.iter().filter(|w| w.trim_matches([':', ',', '.']) == "Talos-v1.12.4.efi").count();
        assert_eq!(named, 1, "{}", ran.out);
    }
    let disk = lab.fixture("disk-512.img.zst");
    let ran = bootsurgeon!("swap", disk, image, "--dry-run", "-v").code(0);
    assert!(ran.out.contains("pass  pe"), "{}", ran.out);
    assert!(bootsurgeon!("verify", image, "--installed", disk).code(0).out.contains("pass  pe"));
}
