//! What other people's names and texts do to a terminal: nothing.

use crate::board::{Board, ESP_A, boot_option};
use crate::cli::{ESP, Ran};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::uki::{Builder, cpio, zstd};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

/// What a text from outside may try: to begin a line that looks like the program's, to hide, to colour, to turn around.
const TRICKS: [&str; 16] = [
    "\nFORGED",
    "\r\nFORGED",
    "\rFORGED",
    "\x1b[8m",
    "\x1b[0m",
    "\x1b[32m",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\u{9b}2J",
    "\u{202e}",
    "\u{2066}",
    "\u{200b}",
    "\u{2028}FORGED",
    "\u{feff}",
    "\t",
    "\u{7f}",
];

/// Texts made of tricks and letters.
struct Foreign(u64);

impl Foreign {
    fn random(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..2 + self.random() % 4 {
            text.push_str(["a", "B7", "x.", "é"][self.random() % 4]);
            text.push_str(TRICKS[self.random() % TRICKS.len()]);
        }
        text + "z"
    }
}

/// Asserts that a terminal would only show what was printed. `colours`: those that the program itself uses are there.
#[track_caller]
fn only_shows(what: &str, text: &str, colours: bool) {
    let mut plain = text.to_owned();
    if colours {
        for code in ["0", "1", "2", "32", "33", "31;1"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
    }
    let acts = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if let Some(c) = plain.chars().find(|c| acts(*c)) {
        panic!("{what}: {c:?} reaches the terminal:\n{plain:?}");
    }
    assert!(!plain.lines().any(|l| l.trim_start().starts_with("FORGED")), "{what}: a forged line:\n{plain}");
}

#[track_caller]
fn run(board: &Board, args: &[&str]) -> Ran {
    let mut ran = None;
    for colour in ["never", "always"] {
        let out = board.run(&[args, &["--color", colour]].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let (code, out, err) = (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr));
        only_shows(&format!("{args:?} {colour}"), &out, colour == "always");
        only_shows(&format!("{args:?} {colour}, stderr"), &err, colour == "always");
        ran.get_or_insert(Ran { command: format!("{args:?}"), code, out, err });
    }
    ran.expect("it ran")
}

/// An image whose every text is from outside.
fn image(foreign: &mut Foreign) -> Vec<u8> {
    let quoted = |text: String| serde_json::to_string(&text).unwrap();
    let layers = format!(
        "layers:\n  - image: 0.sqsh\n    metadata:\n      name: {}\n      version: {}\n      author: {}\n",
        quoted(foreign.text()),
        quoted(foreign.text()),
        quoted(foreign.text())
    );
    let archive = cpio(&[("extensions.yaml", layers.as_bytes()), (&foreign.text(), b"x")]).unwrap();
    // One line each: a line end would only begin another key.
    let line = |text: String| text.replace(['\n', '\r'], "\u{85}");
    Builder::new(Arch::Arm64)
        .section(".text", [0xC3; 64])
        .section(".sdmagic", *b"#### LoaderInfo: systemd-stub 257.9-talos ####\0")
        .section(
            ".osrel",
            format!(
                "ID=talos\nNAME=\"{}\"\nPRETTY_NAME=\"{}\"\nVERSION_ID={}\nIMAGE_ID={}\n",
                line(foreign.text()),
                line(foreign.text()),
                line(foreign.text()),
                line(foreign.text())
            ),
        )
        .section(".cmdline", foreign.text())
        .section(".uname", foreign.text())
        .section(".linux", [4; 700])
        .section(".sbat", format!("sbat,1,{}\n{},1,x,x,1,x\n", line(foreign.text()), line(foreign.text())))
        .section(".profile", format!("ID={}\nTITLE={}\n", line(foreign.text()), line(foreign.text())))
        .section(".pcrpkey", foreign.text())
        .section(".initrd", zstd(&archive, 1).unwrap())
        .build()
}

/// Puts a file on the ESP under a name that no ordinary system would write: the long name of a placeholder is
/// overwritten where it stands in its directory.
fn put_as(board: &Board, disk: &str, dir: &str, name: &str, content: &[u8]) {
    let wanted: Vec<u16> = name.encode_utf16().collect();
    let stand_in = format!("Q{}", "q".repeat(wanted.len() - 1));
    board.replace(disk, dir, &stand_in, content);
    let stand_in: Vec<u16> = stand_in.encode_utf16().collect();
    let path = board.lab.path(disk);
    let begin = crate::cli::bytes_at(&path, ESP, 24 << 20);
    let units = |name: &[u16], part: usize| -> Vec<u16> {
        let mut all = name.to_vec();
        if all.len() % 13 != 0 {
            all.push(0);
        }
        all.resize(all.len().next_multiple_of(13), 0xFFFF);
        all[part * 13..part * 13 + 13].to_vec()
    };
    let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    let mut patched = 0;
    for (i, slot) in begin.chunks_exact(32).enumerate() {
        let part = usize::from(slot[0] & 0x3F).wrapping_sub(1);
        if slot[11] != 0x0F || part >= stand_in.len().div_ceil(13) {
            continue;
        }
        let there: Vec<u16> = places.iter().map(|at| u16::from_le_bytes([slot[*at], slot[at + 1]])).collect();
        if there != units(&stand_in, part) {
            continue;
        }
        for (at, unit) in places.iter().zip(units(&wanted, part)) {
            crate::cli::patch(&path, ESP + (i * 32 + at) as u64, &unit.to_le_bytes());
        }
        patched += 1;
    }
    assert_eq!(patched, stand_in.len().div_ceil(13), "the slots of {name:?}");
}

/// A name as a directory can hold it.
fn file_name(foreign: &mut Foreign, end: &str) -> String {
    foreign.text().replace(['/', '\\'], "_").replace(':', ";") + end
}

#[test]
fn issue11_names_and_texts_from_outside_do_nothing_to_the_terminal() {
    for seed in 0..6 {
        let mut foreign = Foreign(seed);
        let board = Board::new();
        let disk = board.disk("sda", ESP_A);
        let installed = file_name(&mut foreign, ".efi");
        put_as(&board, &disk, "EFI/Linux", &installed, &image(&mut foreign));
        for end in [".efi.bak.1771000000", ".disabled.1771000001", "", ".efi"] {
            put_as(&board, &disk, "EFI/Linux", &file_name(&mut foreign, end), b"not a UKI");
        }
        let conf = format!("default {}\ntimeout {}\n", foreign.text(), foreign.text());
        board.replace(&disk, "loader", "loader.conf", conf.as_bytes());
        board.log(&format!("{}SetVariable", foreign.text()));
        for name in ["LoaderEntryDefault", "LoaderEntryOneShot", "LoaderInfo", "LoaderFirmwareInfo", "StubInfo"] {
            board.text(name, 7, &foreign.text());
        }
        board.text("LoaderEntrySelected", 6, &installed);
        board.global("BootOrder", 7, &[1, 0]);
        board.global("Boot0001", 7, &boot_option(&foreign.text(), ESP_A, &foreign.text()));
        board.mounted("rw");
        std::fs::write(board.lab.path("new.efi"), image(&mut foreign)).unwrap();
        let odd = foreign.text().replace('/', "_");
        std::fs::write(board.lab.path(&odd), image(&mut foreign)).unwrap();

        let status = run(&board, &["status", &disk, "--efivars", "vars"]).code(0);
        assert!(status.out.contains(r"\u{"), "nothing was made visible: {}", status.out);
        run(&board, &["doctor", &disk, "--efivars", "vars"]);
        run(&board, &["doctor", "--root", "node"]);
        run(&board, &["doctor", "--error", &foreign.text()]);
        for path in ["new.efi", &odd, &disk] {
            run(&board, &["inspect", path]);
            run(&board, &["inspect", path, "--uki", &installed]);
            run(&board, &["verify", path, "--efivars", "vars", "-v"]);
            run(&board, &["diff", path, "new.efi"]);
            run(&board, &["extract", path, "--out", &foreign.text().replace('/', "_")]);
            run(&board, &["extract", path, "--out", "x.efi", "--uki", &foreign.text()]);
            let _ = std::fs::remove_file(board.lab.path("x.efi"));
        }
        for target in [&["--target", &installed][..], &[]] {
            let swap = ["swap", &disk, "new.efi", "--efivars", "vars", "--dry-run", "-v", "--allow-untrusted"];
            run(&board, &[&swap[..], target].concat());
        }
        run(&board, &["swap", &disk, &disk, "--uki", &installed, "--dry-run", "-v", "--allow-untrusted"]);
        run(&board, &["prune", &disk, "--efivars", "vars", "--dry-run"]);
        run(&board, &["prune", &disk, "--delete", "--keep-backups", "0", "--dry-run"]);
        run(&board, &["restore", &disk, "--list"]);
        run(&board, &["restore", &disk, "--dry-run", "--allow-untrusted"]);
        run(&board, &["restore", &disk, &foreign.text(), "--dry-run"]);
        run(&board, &["recover", &disk, "--dry-run"]);
        run(&board, &["status", &disk, "--partition", &foreign.text()]);
        run(&board, &["status", &foreign.text()]);
        run(&board, &["fetch", &foreign.text()]);
        run(&board, &["schematic", "id", &odd]);
        run(&board, &["pod", "manifest", "--node", &foreign.text(), "--disk", "/dev/sda", "https://x/y"]);

        // JSON has the names as they are.
        let report = board.json(&["status", &disk, "--json"]);
        let names: Vec<_> = report["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert!(names.contains(&installed.as_str()), "{installed:?} is not among {names:?}");
    }
}

/// A server that answers every request with this status and body.
fn server(status: u16, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buf = [0; 4096];
            let _ = stream.read(&mut buf);
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn issue11_a_servers_text_does_nothing_to_the_terminal() {
    let board = Board::new();
    std::fs::write(board.lab.path("s.yaml"), "customization: {}\n").unwrap();
    for seed in 0..4 {
        let mut foreign = Foreign(1000 + seed);
        for status in [200, 400, 404] {
            let url = server(status, foreign.text());
            let id = "0".repeat(64);
            run(&board, &["schematic", "show", &id, "--factory", &url]);
            run(&board, &["schematic", "create", "s.yaml", "--factory", &url]);
            run(&board, &["extract", &format!("{url}/x"), "--out", "x.efi"]);
            let fetch =
                ["fetch", "--schematic", &id, "--talos", "v1.12.4", "--arch", "arm64", "--out", "y.efi", "--factory"];
            run(&board, &[&fetch[..], &[&url]].concat());
        }
    }
    assert!(!Path::new("x.efi").exists());
}
