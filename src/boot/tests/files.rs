//! Which files are listed, and what is read of them.

use super::*;

fn probe(version: &str, name: &str, bytes: &[u8]) -> UkiFile {
    UkiFile::probe(name, &bytes.to_vec(), &v(version), X64)
}

#[test]
fn names() {
    let uki = plain_uki(&talos_os_release("v1"));
    for (name, skip) in [
        ("Talos-v1.12.4.efi", None),
        ("Talos-v1.12.4~1.efi", None),
        ("Talos-v1.12.4.efi.bak.1700000000", Some(Skip::NotEfi)),
        ("Talos-v1.12.4~1.efi.disabled.1700000000", Some(Skip::NotEfi)),
        ("TALOS-UP.EFI", None),
        ("x.efI", None),
        (".hidden.efi", Some(Skip::DotFile)),
        (".efi", Some(Skip::DotFile)),
        ("efi", Some(Skip::NotEfi)),
        ("", Some(Skip::DotFile)),
        ("auto-foo.efi", Some(Skip::AutoPrefix)),
        ("automatic.efi", None),
        ("Talos-v1.12.4+3.efi", None),
        ("äöü.efi", None),
    ] {
        for version in VERSIONS {
            assert_eq!(probe(version, name, &uki).listed(&v(version)).err(), skip, "{version} {name}");
        }
    }
    for version in VERSIONS {
        let old = ["252.39", "254.26"].contains(&version);
        let skip = (!old).then_some(Skip::AutoPrefix);
        assert_eq!(probe(version, "AUTO-foo.efi", &uki).listed(&v(version)).err(), skip, "{version}");
    }
    assert_eq!(UkiFile::directory("dir.efi").listed(&v("257.9")), Err(Skip::Directory));
    // What a plan asks: the same file under another name.
    let mut file = probe("257.9", "x.efi.bak.1", &uki);
    file.name = "x.efi".into();
    assert_eq!(file.listed(&v("257.9")).unwrap().len(), 1);
    assert!(!Skip::NotEfi.is_broken() && Skip::NoOsRelease.is_broken());
}

/// A change to the bytes of an image.
type Damage = fn(&mut Vec<u8>);

#[test]
fn images_that_no_version_accepts() {
    const PE: usize = 128;
    let cases: [(&str, Damage); 10] = [
        ("empty", |b| b.clear()),
        ("63 bytes", |b| b.truncate(63)),
        ("no MZ", |b| b[0] = b'X'),
        ("PE header behind the end", |b| b[60..64].copy_from_slice(&u32::MAX.to_le_bytes())),
        ("no PE signature", |b| b[PE] = b'X'),
        ("no sections", |b| b[PE + 6..PE + 8].fill(0)),
        ("more sections than bytes", |b| b[PE + 6..PE + 8].fill(0xFF)),
        ("ROM image", |b| b[PE + 24..PE + 26].copy_from_slice(&0x107u16.to_le_bytes())),
        ("optional header behind the end", |b| b[PE + 20..PE + 22].fill(0xFF)),
        ("ends in the section table", |b| b.truncate(PE + 24 + 240 + 100)),
    ];
    for version in VERSIONS {
        for (what, damage) in cases {
            let mut bytes = plain_uki(&talos_os_release("v1"));
            damage(&mut bytes);
            let skip = probe(version, "x.efi", &bytes).content.unwrap_err();
            assert!(matches!(skip, Skip::NotPe(_)), "{version} {what}: {skip:?}");
        }
        let foreign = pe(0xAA64, &[(".osrel", b"NAME=x")]);
        assert_eq!(probe(version, "x.efi", &foreign).content, Err(Skip::OtherMachine(0xAA64)));
    }
}

#[test]
fn hardly_anything_is_needed() {
    for version in VERSIONS {
        let file = probe(version, "x.efi", &pe(X64, &[(".text", b"code"), (".osrel", b"NAME=x")]));
        assert_eq!(&*file.content.unwrap()[0].os, "x", "{version}");
        assert_eq!(probe(version, "a.addon.efi", &pe(X64, &[(".cmdline", b"x")])).content, Err(Skip::NoOsRelease));
        let nameless = pe(X64, &[(".osrel", b"VERSION_ID=1\nHOME_URL=x")]);
        assert_eq!(probe(version, "x.efi", &nameless).content, Err(Skip::Nameless));
        assert_eq!(probe(version, "x.efi", &pe(X64, &[(".osrel", b"")])).content, Err(Skip::NoOsRelease));
    }
}

#[test]
fn the_first_or_the_last_section_of_a_name() {
    let image = pe(X64, &[(".osrel", b"NAME=first"), (".osrel", b"NAME=last"), (".osrelx", b"NAME=longer")]);
    for (version, expected) in
        [("252.39", "longer"), ("254.26", "longer"), ("257.9", "first"), ("259.5", "first"), ("262", "first")]
    {
        assert_eq!(&*probe(version, "x.efi", &image).content.unwrap()[0].os, expected, "{version}");
    }
}

#[test]
fn sections_outside_the_image_count_for_nothing_since_262() {
    let mut image = plain_uki("NAME=x");
    let size_of_image = 128 + 24 + 56;
    image[size_of_image..size_of_image + 4].copy_from_slice(&0x1000u32.to_le_bytes());
    assert!(probe("259.5", "x.efi", &image).content.is_ok());
    assert_eq!(probe("262", "x.efi", &image).content, Err(Skip::NoOsRelease));

    let mut image = plain_uki("NAME=x");
    image[128 + 24 + 108] = 5;
    assert!(probe("259.5", "x.efi", &image).content.is_ok());
    assert!(matches!(probe("262", "x.efi", &image).content, Err(Skip::NotPe(_))));
}

#[test]
fn truncated_images_are_listed_as_long_as_their_texts_are_there() {
    let whole = talos_uki("v1.12.4");
    // Sections start every 512 bytes from 1024: .osrel .cmdline .linux .profile .profile .cmdline
    let headers: usize = 128 + 24 + 240 + 6 * 40;
    let start = |section: usize| headers.next_multiple_of(512) + 512 * section;
    for (cut, modern, old) in [
        (start(6), 2, 1),
        // Behind the profiles, for example in the signature.
        (start(5) + 10, 2, 1),
        (start(4) + 10, 2, 1),
        // The second profile is cut off, the first is there.
        (start(4) - 1, 1, 1),
        (start(3) - 1, 0, 1),
        (start(2) - 100, 0, 1),
        (start(0) - 1, 0, 0),
    ] {
        let bytes = &whole[..cut];
        for version in VERSIONS {
            let expected = if v(version).profiles() { modern } else { old };
            let file = probe(version, "x.efi", bytes);
            let n = file.content.as_ref().map_or(0, |profiles| profiles.len());
            assert_eq!(n, expected, "{version} cut at {cut}: {file:?}");
        }
    }
    assert_eq!(probe("257.9", "x.efi", &whole[..start(3) - 1]).content, Err(Skip::ProfileCutOff));
    assert_eq!(probe("257.9", "x.efi", &whole[..start(4) - 1]).lost, [(1, Skip::ProfileCutOff)]);
    assert_eq!(probe("252.39", "x.efi", &whole[..start(0) - 1]).content, Err(Skip::OsReleaseCutOff));

    // os-release itself is cut: parsed up to there.
    let bytes = &plain_uki(&talos_os_release("v1"))[..1024 - 512 + 16];
    let file = UkiFile::probe("x.efi", &bytes.to_vec(), &v("257.9"), X64);
    let profile = &file.content.unwrap()[0];
    assert_eq!((&*profile.os, &profile.version), ("Talos", &None));

    let warnings =
        predict(&esp_of("257.9", &[("x.efi", whole[..start(3) - 1].to_vec())]), &Variables::default()).warnings;
    assert_eq!(warnings, ["x.efi is not listed: it is truncated before its .profile section"]);
}

#[test]
fn j_quotes_and_empty_values_of_os_release() {
    let quoted = plain_uki("NAME='Quoted OS'\nID='q'\n");
    let empty = plain_uki("PRETTY_NAME=\"\"\nNAME=Named\nID=\n");
    for version in VERSIONS {
        let new = ["257.13", "259.5", "262"].contains(&version);
        let first = |image: &[u8]| probe(version, "x.efi", image).content.unwrap()[0].clone();
        let p = first(&quoted);
        let expected = if new { ("Quoted OS", "q") } else { ("'Quoted OS'", "'q'") };
        assert_eq!((&*p.os, p.sort_key.as_deref().unwrap()), expected, "{version}");

        let p = first(&empty);
        let expected = if v(version).major >= 259 { ("", Some("")) } else { ("Named", None) };
        assert_eq!((&*p.os, p.sort_key.as_deref()), expected, "{version}");
    }
}

#[test]
fn os_release_fields_in_their_order() {
    let first = |text: &str| {
        let p = probe("257.9", "x.efi", &plain_uki(text)).content.unwrap()[0].clone();
        [Some(p.os), p.version, p.sort_key].map(Option::unwrap_or_default).join("/")
    };
    for (text, expected) in [
        ("ID=i\nBUILD_ID=b", "i/b/i"),
        ("NAME=n\nID=i\nVERSION_ID=v\nBUILD_ID=b", "n/v/i"),
        ("IMAGE_ID=m\nNAME=n\nID=i\nVERSION=w\nVERSION_ID=v", "m/w/m"),
        ("PRETTY_NAME=p\nIMAGE_ID=m\nIMAGE_VERSION=x\nVERSION=w", "p/x/m"),
        ("NAME=n\nNAME=o\nname=p\nNAME =q", "o//"),
        ("NAME=n\nNAME=\nID=i", "i//i"),
    ] {
        assert_eq!(first(text), expected, "{text:?}");
    }
}

#[test]
fn profiles_without_names_are_numbered() {
    let image = pe(
        X64,
        &[
            (".osrel", b"NAME=x"),
            (".cmdline", b"\x01 a\nb \n"),
            (".profile", b"TITLE=Main"),
            (".profile", b""),
            (".profile", b"ID=two"),
            (".osrel", b"NAME=y"),
        ],
    );
    for version in ["257.9", "257.13", "259.5", "262"] {
        let p = predict(&esp_of(version, &[("X.efi", image.clone())]), &Variables::default());
        let all: Vec<_> = p.menu.iter().map(|e| (e.id.as_str(), &*e.title)).collect();
        assert_eq!(all, [("x.efi", "x (Main)"), ("x.efi@1", "x (Profile #2)"), ("x.efi@two", "y (two)")], "{version}");
        assert_eq!(p.menu[0].options.as_deref(), Some("a b"));
    }
}

#[test]
fn a_profile_without_command_line_ends_the_search_up_to_257_12() {
    let image = pe(X64, &[(".osrel", b"NAME=x"), (".profile", b"ID=main"), (".profile", b"ID=more")]);
    for (version, expected) in [("257.9", 1), ("257.13", 2), ("259.5", 2), ("262", 2)] {
        assert_eq!(probe(version, "x.efi", &image).content.unwrap().len(), expected, "{version}");
    }
}

#[test]
fn the_loader_is_recognised() {
    let image = pe(0xAA64, &[(".text", b"x"), (".sdmagic", b"#### LoaderInfo: systemd-boot 257.9-talos ####")]);
    let loader = Loader::probe(&image).unwrap();
    assert_eq!((loader.machine, loader.version.text.as_str()), (0xAA64, "257.9-talos"));
    assert_eq!(Loader::probe(&pe(X64, &[(".sdmagic", b"#### LoaderInfo: systemd-stub 257.9 ####")])), None);
    assert_eq!(Loader::probe(&pe(X64, &[(".text", b"x")])), None);
    assert_eq!(Loader::probe(&b"MZ".to_vec()), None);
}

#[test]
fn any_bytes_are_survived() {
    let image = talos_uki("v1");
    // Every header byte with the extreme values, and every length.
    for version in ["252.39", "257.9", "262"] {
        for at in 0..700 {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bytes = image.clone();
                bytes[at] = value;
                let _ = probe(version, "x.efi", &bytes);
            }
            let _ = probe(version, "x.efi", &image[..at]);
        }
    }
}

#[test]
fn a_loader_for_arm64_without_sections_of_its_own_is_known_by_its_marker() {
    let marker = b"#### LoaderInfo: systemd-boot 252.39-1~deb12u2 ####\0";
    for (machine, known) in [(0xAA64, true), (X64, false)] {
        let mut image = pe(machine, &[(".text", b"code"), (".data", b"data")]);
        image.extend(marker);
        let found = Loader::probe(&image).map(|l| (l.version.major, l.version.minor, l.machine));
        assert_eq!(found, known.then_some((252, 39, machine)));
    }
}
