//! A command that is run a second time.

use super::stream::piped;
use crate::cli::{ESP, files, uki};
use crate::support::{Lab, fsck_clean, sha256, tools};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};

/// The second of two equal swaps deletes nothing: the backup that it would make is of the new image itself, and the old
/// one is the only way back.
#[test]
fn issue19_a_swap_of_the_same_bytes_deletes_no_backup() {
    if !tools(&["mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let image = uki(&lab, "v1.12.4-arm64-uki");
    let bytes = std::fs::read(&image).unwrap();
    for (keep, first_keeps) in [("0", 0), ("1", 1)] {
        let disk = lab.fixture_as("disk-512.img.zst", &format!("keep-{keep}.img"));
        let swap = |how: &str| bootsurgeon!("swap", disk, image, "--keep-backups", keep, how, "--json").code(0).json();
        let done = swap("--yes");
        assert_eq!(done["committed"], true, "{done:#}");
        let there = files(&disk, ESP);
        let backups: Vec<_> = there.keys().filter(|name| name.contains(".bak.")).collect();
        assert!(backups.len() >= first_keeps, "{backups:?}");
        let hash = sha256(&disk);
        for how in ["--dry-run", "--yes"] {
            let again = swap(how);
            assert_eq!(again["already_in_place"], true, "{how}: {again:#}");
            assert_eq!(again["plan"]["delete"], serde_json::json!([]), "{again:#}");
            assert_eq!(sha256(&disk), hash, "{how}");
        }
        let hash = sha256(&image);
        let args = args!["swap", disk, "-", "--sha256", hash, "--keep-backups", keep, "--yes", "--json"];
        let piped = piped(&args, &bytes).code(0).json();
        assert_eq!(piped["already_in_place"], true, "{piped:#}");
        assert_eq!(files(&disk, ESP).keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
        assert!(fsck_clean(&disk, ESP));
    }
}

/// Duplicates leave the menu, and the backups stay all the same.
#[test]
fn issue19_a_swap_of_the_same_bytes_that_tidies_the_menu_deletes_no_backup() {
    if !tools(&["mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, "v1.12.4-arm64-uki");
    let before = files(&disk, ESP);
    bootsurgeon!("swap", disk, image, "--yes", "--keep-duplicates").code(0);
    let old = files(&disk, ESP);
    let done = bootsurgeon!("swap", disk, image, "--yes", "--keep-backups", "1", "--json").code(0).json();
    let after = files(&disk, ESP);
    for content in before.values() {
        assert!(after.values().any(|bytes| bytes == content), "{done:#}");
    }
    for backup in old.keys().filter(|name| name.contains(".bak.")) {
        assert!(after.contains_key(backup), "{backup}: {done:#}");
    }
}

/// The way back that is printed runs as it stands there, whatever the swap was told to believe.
#[test]
fn issue19_the_way_back_believes_what_the_swap_believed() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let image = uki(&lab, "v1.12.4-arm64-uki");
    let options = ["--efivars", "none", "--allow-untrusted", "--yes", "--json"];
    let done = crate::cli::run(&[&["swap", disk.to_str().unwrap(), image.to_str().unwrap()][..], &options].concat());
    let done = done.code(0).json();
    let steps = done["next"].as_array().unwrap();
    let way_back = steps.iter().find(|step| step["why"] == "the way back").unwrap();
    let words: Vec<&str> = way_back["run"].as_array().unwrap()[1..].iter().map(|word| word.as_str().unwrap()).collect();
    assert!(words.contains(&"--allow-untrusted"), "{words:?}");
    let back = crate::cli::run(&[&words[..], &["--yes", "--json"]].concat()).code(0).json();
    assert_eq!(back["committed"], true, "{back:#}");
}

/// Of an image on a server that nobody signed it is known only behind the transfer that its bytes are in place.
#[test]
fn issue19_a_swap_of_the_same_bytes_from_a_server_deletes_no_backup() {
    if !tools(&["mcopy"]) {
        return;
    }
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let factory = LocalFactory::start().unwrap();
    let bytes = std::fs::read(uki(&lab, "v1.12.4-arm64-unsigned")).unwrap();
    let url = factory.serve_path("/unsigned.efi", bytes, Behaviour { ranges: true, ..Behaviour::default() });
    let swap = |how: &str| {
        let args = args!["swap", disk, url, "--keep-backups", "1", "--allow-untrusted", how, "--json"];
        crate::cli::run(&args).code(0).json()
    };
    assert_eq!(swap("--yes")["committed"], true);
    let there = files(&disk, ESP);
    for how in ["--dry-run", "--yes"] {
        let again = swap(how);
        assert_eq!(
            (&again["already_in_place"], &again["committed"]),
            (&true.into(), &false.into()),
            "{how}: {again:#}"
        );
        assert_eq!(again["plan"]["delete"], serde_json::json!([]), "{how}: {again:#}");
    }
    assert!(files(&disk, ESP) == there, "free clusters alone may have another content");
}
