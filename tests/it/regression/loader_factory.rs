//! `loader` from a server: a URL, and the factory's ISO.

use super::loader::{REMOVABLE, board, refused, run};
use super::place::file;
use crate::board::{Board, ESP_B, systemd_boot, uki};
use bootsurgeon::pe::Arch;
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use serde_json::Value;

const SCHEMATIC: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
const TALOS: &str = "v1.12.4";
const SIGNED: &str = "metal-arm64-secureboot.iso";
const PLAIN: &str = "metal-arm64.iso";

/// The ISO for Secure Boot, and the systemd-boot in it.
fn iso() -> (Vec<u8>, Vec<u8>) {
    let (board, disk) = board("252.39");
    let path = board.lab.fixture("secureboot-arm64.iso.zst");
    let _ = run(&board, &disk, path.to_str().unwrap(), &["--yes"]);
    (std::fs::read(path).unwrap(), file(&board, &disk, REMOVABLE).unwrap())
}

/// A disk image with this systemd-boot.
fn image(version: &str) -> (Vec<u8>, Vec<u8>) {
    let board = Board::new();
    let loader = systemd_boot(version, Arch::Arm64);
    let disk = board.disk("other", ESP_B);
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &loader);
    (std::fs::read(board.lab.path(&disk)).unwrap(), loader)
}

fn kinds() -> [(&'static str, Behaviour); 3] {
    let plain = Behaviour::default;
    [
        ("ranges", Behaviour { ranges: true, refuse: Some((503, 2, Some(0))), ..plain() }),
        ("presigned addresses that expire", Behaviour { redirect: true, url_bytes: Some(50_000), ..plain() }),
        ("no ranges, and connections that break", Behaviour { drop_after: Some((40_000, 3)), ..plain() }),
    ]
}

#[test]
fn issue19_2_a_loader_comes_from_any_server() {
    let alone = systemd_boot("257.9", Arch::Arm64);
    let (iso, in_iso) = iso();
    let (disk_image, in_image) = image("259.5");
    let packed = zstd::encode_all(&disk_image[..], 1).unwrap();
    for (kind, behaviour) in kinds() {
        let contents = [
            ("/boot.efi", &alone, &alone),
            ("/some.iso", &iso, &in_iso),
            ("/disk.raw", &disk_image, &in_image),
            ("/disk.raw.zst", &packed, &in_image),
        ];
        for (path, content, loader) in contents {
            if kind != "ranges" && path == "/disk.raw" {
                continue;
            }
            let (board, disk) = board("252.39");
            let factory = LocalFactory::start().unwrap();
            let url = factory.serve_path(path, content.clone(), behaviour.clone());
            let dry = run(&board, &disk, &url, &["--dry-run"]);
            let sent = factory.bytes_sent();
            let done = run(&board, &disk, &url, &["--yes"]);
            for report in [&dry, &done] {
                assert_eq!(report["sha256"], hex(loader), "{kind} {path}: {report:#}");
            }
            assert_eq!((&dry["committed"], &done["committed"]), (&false.into(), &true.into()));
            assert_eq!((&dry["source"], &dry["plan"]["boot_after"]), (&done["source"], &done["plan"]["boot_after"]));
            assert!(file(&board, &disk, REMOVABLE).unwrap() == *loader, "{kind} {path}");
            if kind == "ranges" && path != "/disk.raw.zst" {
                let most = loader.len() as u64 + (3 << 20);
                assert!(sent < most, "{path}: {sent} bytes for {} of {}", loader.len(), content.len());
            }
            // The same again.
            let again = run(&board, &disk, &url, &["--yes"]);
            assert_eq!((&again["already_in_place"], &again["committed"]), (&true.into(), &false.into()));
        }
    }
}

#[test]
fn issue19_2_what_a_server_has_that_is_no_loader_is_refused() {
    let (board, disk) = board("252.39");
    let factory = LocalFactory::start().unwrap();
    for ranges in [true, false] {
        let serve = |path: &str, content: Vec<u8>, behaviour: Behaviour| {
            factory.serve_path(path, content, Behaviour { ranges, ..behaviour })
        };
        let amd64 = std::fs::read(board.lab.fixture("secureboot-amd64.iso.zst")).unwrap();
        refused(
            &board,
            &disk,
            &serve("/amd64.iso", amd64, Behaviour::default()),
            &[],
            3,
            &["no systemd-boot for arm64"],
        );
        let image = uki(&board.lab, "talos-v1.12.4-arm64-uki");
        let url = serve("/uki.efi", image, Behaviour::default());
        refused(&board, &disk, &url, &[], 3, &["the file itself is a UKI", "give systemd-boot itself"]);
        let url = serve("/page.efi", b"<html>Not here</html>".repeat(40), Behaviour::default());
        refused(&board, &disk, &url, &[], 1, &["a web page"]);
        let url = serve("/text.efi", b"no image. ".repeat(400), Behaviour::default());
        refused(&board, &disk, &url, &[], 3, &["neither"]);
        let mut changed = systemd_boot("257.9", Arch::Arm64);
        changed.truncate(700);
        let url = serve("/cut.efi", changed, Behaviour::default());
        refused(&board, &disk, &url, &["--allow-untrusted"], 3, &[]);
        let gone = format!("{}/gone.iso", factory.url());
        refused(&board, &disk, &gone, &[], 1, &["gone.iso", "404"]);
    }
    refused(&board, &disk, "http://127.0.0.1:9/x.iso", &["--retry-for", "0"], 1, &["127.0.0.1:9"]);
    // What is read once, from front to back, is no place to look around in: here, and in the other commands that do.
    refused(&board, &disk, "-", &[], 2, &["through a pipe", "save"]);
    for command in [&["diff", "-", "-"][..], &["swap", &disk, "x.iso", "--with-board-files", "--installed-from", "-"]] {
        std::fs::write(board.lab.path("x.iso"), &iso().0).unwrap();
        let out = board.run(command);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && said.contains("through a pipe"), "{command:?}: {said}");
    }
}

/// A factory, and what is asked of it.
struct Asked {
    factory: LocalFactory,
    url: String,
}

impl Asked {
    fn new(assets: &[(&str, &[u8])]) -> Self {
        let factory = LocalFactory::start().unwrap();
        for (name, content) in assets {
            let behaviour = Behaviour { redirect: true, ..Behaviour::default() };
            factory.serve(SCHEMATIC, TALOS, name, content.to_vec(), behaviour);
        }
        Self { url: factory.url(), factory }
    }

    /// The last asset that was requested.
    fn last(&self) -> String {
        let all = self.factory.requests();
        let asset = all.iter().rev().find(|r| r.target.contains("/image/")).unwrap();
        asset.target.rsplit('/').next().unwrap().to_owned()
    }

    fn arguments<'a>(&'a self, disk: &'a str, schematic: &'a str) -> Vec<&'a str> {
        vec![
            "loader",
            disk,
            "--schematic",
            schematic,
            "--talos",
            TALOS,
            "--factory",
            &self.url,
            "--efivars",
            "vars",
            "--json",
        ]
    }

    /// The report of a dry run and that of the run, which agree.
    fn goes(&self, board: &Board, disk: &str, schematic: &str, more: &[&str]) -> Value {
        let arguments = [&self.arguments(disk, schematic)[..], more].concat();
        let dry = board.json(&[&arguments[..], &["--dry-run"]].concat());
        let done = board.json(&[&arguments[..], &["--yes"]].concat());
        assert_eq!((&dry["sha256"], &dry["source"]), (&done["sha256"], &done["source"]));
        assert_eq!((&dry["committed"], &done["committed"]), (&false.into(), &true.into()), "{done:#}");
        done
    }

    /// A dry run and the run end with this exit code and these words.
    fn fails(&self, board: &Board, disk: &str, schematic: &str, more: &[&str], code: i32, words: &[&str]) {
        let arguments = [&self.arguments(disk, schematic)[..], more].concat();
        for how in ["--dry-run", "--yes"] {
            let out = board.run(&[&arguments[..], &[how]].concat());
            let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(code), "{how}: {said}");
            for word in words {
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }
}

fn hex(bytes: &[u8]) -> Value {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes)).into()
}

#[test]
fn issue19_2_the_factorys_iso_has_the_loader() {
    let (iso, loader) = iso();
    let asked = Asked::new(&[(SIGNED, &iso)]);
    let cache = ["--cache", "cache"];
    let offline = [&cache[..], &["--offline"]].concat();
    let (board, disk) = self::board("252.39");
    asked.fails(&board, &disk, SCHEMATIC, &offline, 1, &["cache"]);
    for (schematic, more) in [(SCHEMATIC, &[][..]), ("schematic.yaml", &[]), (SCHEMATIC, &cache), (SCHEMATIC, &offline)]
    {
        let (board, disk) = self::board("252.39");
        if schematic != SCHEMATIC {
            std::fs::write(board.lab.path(schematic), "customization: {}\n").unwrap();
        }
        if more == offline {
            // As the run before left it.
            std::fs::create_dir_all(board.lab.path("cache")).unwrap();
            let filled = [&asked.arguments(&disk, schematic)[..], &cache, &["--dry-run"]].concat();
            let _ = board.json(&filled);
        }
        let before = asked.factory.requests().len();
        let done = asked.goes(&board, &disk, schematic, more);
        assert_eq!(done["sha256"], hex(&loader), "{done:#}");
        assert!(done["source"].as_str().unwrap().starts_with(REMOVABLE), "{done:#}");
        assert!(file(&board, &disk, REMOVABLE).unwrap() == loader);
        assert_eq!(done["checks"][3]["status"], "pass", "{done:#}");
        let requests = asked.factory.requests().len() - before;
        assert_eq!(requests == 0, more == offline, "{schematic} {more:?}: {requests} requests");
    }
    let (board, disk) = self::board("252.39");
    let mut arguments = asked.arguments(&disk, SCHEMATIC);
    arguments[5] = "v1.99.0";
    for how in ["--dry-run", "--yes"] {
        let out = board.run(&[&arguments[..], &[how]].concat());
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.code() == Some(1) && said.contains("404"), "{said}");
    }
}

/// `--asset auto` goes by the board, as `--help` says: a signed image, or Secure Boot, wants the signed ISO.
#[test]
fn issue19_2_auto_asks_for_the_iso_that_the_board_needs() {
    let (iso, loader) = iso();
    let (plain, unsigned) = image("259.5");
    let asked = Asked::new(&[(SIGNED, &iso), (PLAIN, &plain)]);
    let (board, disk) = self::board("252.39");
    assert_eq!(asked.goes(&board, &disk, SCHEMATIC, &[])["sha256"], hex(&loader));
    assert_eq!(asked.last(), SIGNED);
    asked.fails(&board, &disk, SCHEMATIC, &["--asset", "plain"], 3, &["not signed"]);
    assert_eq!(asked.last(), PLAIN);

    // What starts is not signed.
    for name in ["Talos-v1.12.4.efi", "Talos-v1.12.4~1.efi"] {
        board.replace(&disk, "EFI/Linux", name, &uki(&board.lab, "talos-v1.12.4-arm64-unsigned"));
    }
    board.replace(&disk, "EFI/BOOT", "BOOTAA64.EFI", &systemd_boot("252.39", Arch::Arm64));
    let arguments = [&asked.arguments(&disk, SCHEMATIC)[..], &["--dry-run"]].concat();
    let out = board.run(&arguments);
    assert_eq!(asked.last(), SIGNED);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("the installed image is not signed"), "{said}");
    let done = asked.goes(&board, &disk, SCHEMATIC, &["--allow-untrusted"]);
    assert_eq!((asked.last(), &done["sha256"]), (PLAIN.to_owned(), &hex(&unsigned)), "{done:#}");
    let dry = asked.arguments(&disk, SCHEMATIC);
    let dry = board
        .json(&[&dry[..], &["--asset", "secureboot", "--allow-untrusted", "--allow-downgrade", "--dry-run"]].concat());
    assert_eq!((asked.last(), &dry["sha256"]), (SIGNED.to_owned(), &hex(&loader)));
}
