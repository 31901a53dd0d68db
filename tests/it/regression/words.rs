//! How it looks: units, widths, help, manual pages, pictures (issue 16).

use crate::support::{Lab, tool};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};

/// The numbers before a unit, as they are printed.
fn sizes(text: &str) -> Vec<(String, String)> {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || "(),;[]".contains(c)).collect();
    let unit = |w: &str| ["B", "KiB", "MiB", "GiB", "TiB", "bytes", "byte"].contains(&w);
    words.windows(2).filter(|w| unit(w[1])).map(|w| (w[0].to_owned(), w[1].to_owned())).collect()
}

#[test]
fn issue16_units_fit_whatever_the_size() {
    let lab = Lab::new();
    let image = lab.fixture("fat/fat32.img.zst");
    let least = std::fs::metadata(&image).unwrap().len();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for n in 0..24 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = least + (state >> 24) % (1 << (12 + n));
        std::fs::File::options().write(true).open(&image).unwrap().set_len(bytes).unwrap();
        let ran = bootsurgeon!("inspect", image).code(0);
        let said = sizes(&ran.out);
        assert!(!said.is_empty(), "{}", ran.out);
        for (number, unit) in said {
            assert!(number.chars().filter(char::is_ascii_digit).count() <= 4, "{number} {unit}: {}", ran.out);
            assert!(unit != "B" && number.parse::<f64>().unwrap() < 1024.0, "{number} {unit}: {}", ran.out);
        }
    }
}

#[test]
fn issue16_an_empty_bar_is_empty() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let ran = bootsurgeon!("status", disk).code(0);
    let bar = ran.out.split_once('[').and_then(|(_, rest)| rest.split_once(']')).unwrap().0;
    assert!(bar.chars().all(|c| c == '.'), "0.3 MiB of 47.2 MiB are less than half a mark: {bar}");
}

/// The command lines under EXAMPLES of a help text.
fn examples(help: &str) -> Vec<String> {
    let (_, after) = help.split_once("\nEXAMPLES\n").unwrap_or_else(|| panic!("no examples: {help}"));
    let lines = after.split("\nEXIT STATUS").next().unwrap().lines();
    lines.filter_map(|line| line.strip_prefix("  bootsurgeon ")).map(str::to_owned).collect()
}

const COMMANDS: [&[&str]; 16] = [
    &["schematic", "id"],
    &["schematic", "edit"],
    &["schematic", "create"],
    &["schematic", "show"],
    &["fetch"],
    &["extract"],
    &["inspect"],
    &["verify"],
    &["config", "check"],
    &["diff"],
    &["status"],
    &["doctor"],
    &["swap"],
    &["prune"],
    &["restore"],
    &["recover"],
];

/// Every example on files is run, in the order in which help gives them, in a folder that has these files.
#[test]
fn issue16_help_examples_work_as_they_stand() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let uki = |name: &str, to: &str| lab.fixture_as(&format!("talos-{name}.efi.zst"), to);
    let (new, _) = (uki("v1.12.4-arm64-installer", "new.efi"), uki("v1.12.4-arm64-plain", "old.efi"));
    std::fs::copy(crate::support::fixtures().join("keys/test-signing.crt"), lab.path("signer.pem")).unwrap();
    std::fs::write(lab.path("schematic.yaml"), "customization: {}\n").unwrap();
    std::fs::create_dir(lab.path("pages")).unwrap();
    std::fs::create_dir(lab.path("patches")).unwrap();
    let service = "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: tailscale\nenvironment: [TS_AUTHKEY=k]\n";
    std::fs::write(lab.path("patches/tailscale.yaml"), service).unwrap();
    std::fs::write(lab.path("controlplane.yaml"), format!("machine: {{}}\n---\n{service}")).unwrap();
    std::fs::write(lab.path("talconfig.yaml"), "clusterName: home\n").unwrap();
    let id = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    let iso = lab.fixture("secureboot-arm64.iso.zst");
    for (asset, file) in [("metal-arm64-secureboot.iso", iso), ("metal-arm64-secureboot-uki.efi", new)] {
        factory.serve(id, "v1.12.4", asset, std::fs::read(file).unwrap(), Behaviour::default());
    }
    let mut ran = 0;
    for command in COMMANDS {
        let help = crate::cli::run(&[command, &["--help"]].concat()).code(0).out;
        let disk = lab.fixture_as("disk-512.img.zst", "node.img");
        if command == ["restore"] {
            // Each of its examples finds the backup of a swap.
            let _ = bootsurgeon!("swap", disk, lab.path("new.efi"), "--yes").code(0);
        }
        for line in examples(&help) {
            if line.contains("/dev/") || line.contains(".example/") || line == "doctor" || line.contains(" - ") {
                continue; // no such disk, no such server, this machine is nobody's fixture, and nothing comes by a pipe
            }
            let words: Vec<String> = line
                .split('\'')
                .enumerate()
                .flat_map(|(n, piece)| match n % 2 {
                    1 => vec![piece.to_owned()],
                    _ => piece.split_whitespace().map(str::to_owned).collect(),
                })
                .collect();
            let mut program = crate::cli::command(&words);
            program.current_dir(lab.path("")).env("BOOTSURGEON_FACTORY", factory.url());
            let _ = crate::cli::finish(program).code(0);
            ran += 1;
        }
    }
    assert!(ran > 25, "{ran} examples");
}

#[test]
fn issue16_help_usage_is_the_same_whatever_the_environment_holds() {
    let with = |name: &str, value: &str| {
        let mut program = crate::cli::command(&["swap"]);
        program.env(name, value);
        crate::cli::finish(program).code(2).err
    };
    let bare = bootsurgeon!("swap").code(2).err;
    assert!(bare.contains("bootsurgeon swap [OPTIONS] <DISK> <IMAGE>"), "{bare}");
    for (name, value) in [
        ("BOOTSURGEON_CACHE", "/tmp"),
        ("BOOTSURGEON_FACTORY", "https://factory.example"),
        ("BOOTSURGEON_CA", "ca.pem"),
    ] {
        assert_eq!(with(name, value), bare, "{name}");
    }
}

#[test]
fn issue16_man_pages_render_without_warnings() {
    let lab = Lab::new();
    let dir = lab.path("man");
    std::fs::create_dir(&dir).unwrap();
    bootsurgeon!("man", dir).code(0);
    let pages: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(pages.len() > 20, "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for heading in ["NAME", "SYNOPSIS", "ENVIRONMENT", "\"SEE ALSO\""] {
            assert!(text.contains(&format!("\n.SH {heading}\n")), "{}: no {heading}", page.display());
        }
        if tool("groff") {
            let ran = std::process::Command::new("groff")
                .args(["-Kutf8", "-ww", "-man", "-Tutf8", "-z"])
                .arg(&page)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success() && said.is_empty(), "{}: {said}", page.display());
        }
    }
}

#[test]
fn issue16_version_says_what_was_built() {
    let short = bootsurgeon!("-V").code(0).out;
    assert_eq!(short, format!("bootsurgeon {}\n", env!("CARGO_PKG_VERSION")));
    let long = bootsurgeon!("--version").code(0).out;
    for line in ["commit: ", "target: ", "features: cli, net, demo"] {
        assert!(long.contains(&format!("\n{line}")), "{long}");
    }
}

#[test]
fn issue16_completions_offer_values_and_files() {
    let bash = bootsurgeon!("completions", "bash").code(0).out;
    assert!(bash.contains("compgen -W \"arm64 amd64\""), "no architectures in the script for bash");
    let zsh = bootsurgeon!("completions", "zsh").code(0).out;
    assert!(zsh.contains("arm64 amd64") && zsh.contains(":image -- ") && zsh.contains("_files"), "{zsh}");
    if tool("bash") {
        let lab = Lab::new();
        std::fs::write(lab.path("script"), &bash).unwrap();
        let ran = std::process::Command::new("bash").arg("-n").arg(lab.path("script")).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }
}

#[test]
fn issue16_width_is_the_terminals_or_what_columns_says() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let widest = |columns: Option<&str>| {
        let mut program = crate::cli::command(&args!["doctor", disk, "--efivars", "none"]);
        program.env_remove("COLUMNS");
        if let Some(columns) = columns {
            program.env("COLUMNS", columns);
        }
        let out = crate::cli::finish(program).code(0).out;
        // What stands in backticks is for copying, and is not broken.
        out.lines().filter(|line| !line.contains('`')).map(|line| line.chars().count()).max().unwrap()
    };
    let (narrow, usual, wide) = (widest(Some("80")), widest(None), widest(Some("200")));
    assert!(narrow <= 80 && usual <= 100 && wide <= 200, "{narrow} {usual} {wide}");
    assert!(narrow < usual && usual < wide, "{narrow} {usual} {wide}");
    assert_eq!((widest(Some("20")), widest(Some("9999")), widest(Some("x"))), (narrow, wide, usual));
}

#[test]
fn issue16_hashes_are_short_for_people() {
    let lab = Lab::new();
    let image = lab.fixture("talos-v1.12.4-arm64-uki.efi.zst");
    let whole = crate::support::sha256(&image);
    let short = bootsurgeon!("inspect", image).code(0).out;
    assert!(!short.contains(&whole) && short.contains(&whole[..12]), "{short}");
    assert!(bootsurgeon!("inspect", image, "-v").code(0).out.contains(&whole));
    assert_eq!(bootsurgeon!("inspect", image, "--json").code(0).json()["uki"]["sha256"], whole);
}

/// A file name that would end an element, begin one, or hide what it is.
const HOSTILE: &str = "a]]><script>&\"'\u{202e}gpj.efi";

#[test]
fn issue16_svg_is_well_formed_whatever_the_names() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let before = crate::support::sha256(&disk);
    let picture = lab.path("node.svg");
    bootsurgeon!("status", disk, "--svg", picture).code(0);
    let text = std::fs::read_to_string(&picture).unwrap();
    for word in [
        "Talos-v1.12.4.efi",
        "Talos-v1.12.4~1.efi",
        "Boot menu",
        "Way of the \
                                                                           boot",
        "prefers-color-scheme:dark",
    ] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    well_formed(&text);

    // A file that exists stays, and the disk itself is no place for a picture whatever the options.
    bootsurgeon!("status", disk, "--svg", picture).fails(4, &["--force"]);
    bootsurgeon!("status", disk, "--svg", picture, "--force").code(0);
    bootsurgeon!("status", disk, "--svg", disk, "--force").fails(2, &["the disk image itself"]);
    assert_eq!(crate::support::sha256(&disk), before);

    if tool("mcopy") {
        let source = lab.path("x");
        std::fs::write(&source, b"no image").unwrap();
        let esp = format!("{}@@{}", disk.display(), crate::cli::ESP);
        // FAT allows none of <>"| in a name; what it allows is enough.
        for name in ["a&amp;b'c]].efi", "it's&b.efi"] {
            let ran = std::process::Command::new("mcopy")
                .args(["-i", &esp])
                .arg(&source)
                .arg(format!("::/EFI/Linux/{name}"))
                .output()
                .unwrap();
            assert!(ran.status.success(), "{ran:?}");
        }
        let hostile = lab.path("hostile.svg");
        bootsurgeon!("status", disk, "--svg", hostile).code(0);
        let text = std::fs::read_to_string(&hostile).unwrap();
        assert!(text.contains("a&amp;amp;b&#39;c]].efi"), "{text}");
        well_formed(&text);
    }
    // The path of the disk is somebody's text, too.
    let named = lab.path(HOSTILE);
    std::fs::copy(&disk, &named).unwrap();
    let hostile = lab.path("path.svg");
    bootsurgeon!("status", named, "--svg", hostile).code(0);
    let text = std::fs::read_to_string(&hostile).unwrap();
    assert!(!text.contains("<script") && text.contains("&lt;script&gt;&amp;&quot;&#39;\\u{202e}gpj.efi"), "{text}");
    well_formed(&text);
}

/// By Python's parser.
fn well_formed(text: &str) {
    if !tool("python3") {
        return;
    }
    let lab = Lab::new();
    std::fs::write(lab.path("x.svg"), text).unwrap();
    let program = "import sys, xml.dom.minidom as m; m.parse(sys.argv[1])";
    let ran = std::process::Command::new("python3").args(["-c", program]).arg(lab.path("x.svg")).output().unwrap();
    assert!(ran.status.success(), "{}\n{text}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn issue16_demo_shows_one_scene() {
    let ran = bootsurgeon!("demo", "--scene", "refuse").code(0);
    assert!(
        ran.out.starts_with("# So a swap to it is refused")
            && !ran.out.contains(
                "$ bootsurgeon \
                                                                                      fetch"
            ),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("4 scenes: a few seconds"), "{}", ran.err);
    assert_eq!(bootsurgeon!("demo", "--scene", "4").code(0).out.lines().next(), ran.out.lines().next());
    bootsurgeon!("demo", "--scene", "12").code(2).says(&["scenes 1 to 11: before, fetch"]);
    let verify = bootsurgeon!("demo", "--scene", "verify").code(0).out;
    let verify = verify.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(verify.contains("warn extensions"), "{verify}");
    assert!(verify.contains("ext-tailscale waits for an ExtensionServiceConfig"), "{verify}");
}

/// Commands to copy have lines of their own where they are long, and what they are for is broken at blanks.
#[test]
fn issue16_what_comes_next_fits_the_terminal_and_no_command_is_broken() {
    let lab = Lab::new();
    let image = crate::cli::uki(&lab, "v1.12.4-arm64-installer");
    // As wide as the name of the disk lets the last command be.
    for (columns, name) in [("80", "disk.img"), ("80", &*format!("{}.img", "d".repeat(90))), ("200", "disk.img")] {
        let disk = lab.fixture_as("disk-512.img.zst", name);
        let saved = crate::cli::copy(&disk, &lab.path("saved.img"));
        let run = |more: &[&str]| {
            let mut words = args!["swap", disk, image, "--yes", "--node", "altra"].to_vec();
            words.extend(more.iter().map(Into::into));
            let mut program = crate::cli::command(&words);
            program.env("COLUMNS", columns);
            crate::cli::finish(program).code(0)
        };
        let text = run(&[]).out;
        crate::cli::copy(&saved, &disk);
        let report = run(&["--json"]).json();
        let (_, next) = text.split_once("\nNext\n").unwrap_or_else(|| panic!("{text}"));
        let mut commands = Vec::new();
        for step in report["next"].as_array().unwrap() {
            if let Some(command) = step["command"].as_str() {
                let is_whole = |line: &&str| line.strip_prefix("  ").is_some_and(|line| line.starts_with(command));
                assert!(next.lines().any(|line| is_whole(&line)), "{command} is broken:\n{next}");
                commands.push(command);
            }
        }
        assert!(commands.len() >= 4, "{report:#}");
        let columns: usize = columns.parse().unwrap();
        for line in next.lines().filter(|line| line.chars().count() > columns) {
            assert!(commands.iter().any(|command| line.trim() == *command), "wider than {columns}: {line}");
        }
    }
}

/// What is not done yet is not said as if it were.
#[test]
fn issue16_a_plan_says_what_will_be_done() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = crate::cli::uki(&lab, "v1.12.4-arm64-installer");
    let plan = bootsurgeon!("swap", disk, image, "--dry-run").code(0).out;
    let (planned, done) = ("\n  rename         Talos-v1.12.4~1.efi to ", "\n  renamed        Talos-v1.12.4~1.efi to ");
    assert!(plan.contains(planned) && !plan.contains(done), "{plan}");
    let report = bootsurgeon!("swap", disk, image, "--yes").code(0).out;
    assert!(report.contains(done) && !report.contains(planned), "{report}");
}
