//! The order of the menu and its titles.

use super::*;

const A: [(&str, &str); 5] = [
    ("Talos-v1.12.3.efi", "v1.12.3"),
    ("Talos-v1.12.4~1.efi", "v1.12.4"),
    ("Talos-v1.13.0-beta.1.efi", "v1.13.0-beta.1"),
    ("Talos-v1.12.4~2.efi", "v1.12.4"),
    ("Talos-v1.12.4.efi", "v1.12.4"),
];

#[test]
fn a1_versions_then_names_then_titles_that_differ() {
    for version in VERSIONS {
        let vars = Variables { os_indications_supported: 1, ..Variables::default() };
        let p = predict(&esp(version, &A), &vars);
        assert_eq!(
            ids(&p),
            [
                "talos-v1.13.0-beta.1.efi",
                "talos-v1.12.4.efi",
                "talos-v1.12.4~2.efi",
                "talos-v1.12.4~1.efi",
                "talos-v1.12.3.efi",
                "auto-reboot-to-firmware-setup"
            ],
            "{version}"
        );
        assert_eq!(
            titles(&p),
            [
                "Talos (v1.13.0-beta.1)",
                "Talos (v1.12.4) (v1.12.4) (talos-v1.12.4.efi)",
                "Talos (v1.12.4) (v1.12.4) (talos-v1.12.4~2.efi)",
                "Talos (v1.12.4) (v1.12.4) (talos-v1.12.4~1.efi)",
                "Talos (v1.12.3)",
                "Reboot Into Firmware Interface"
            ]
        );
        assert_eq!(p.selected_file(), Some("Talos-v1.13.0-beta.1.efi"));
        assert_eq!(p.reason, "highest version among 5 entries (v1.13.0-beta.1 before v1.12.4)");
        assert_eq!(p.fallback, Some(1));
        assert_eq!(p.marked, None);
        let passes_options = version.starts_with("252") || version.starts_with("254");
        assert_eq!(p.load_options.as_deref(), passes_options.then_some("console=ttyS0"), "{version}");
        assert_eq!(p.renamed_to, None);
    }
}

#[test]
fn a2_equal_versions_leave_the_order_to_names() {
    let files = ["v1.12.3", "v1.12.4~1", "v1.13.0-beta.1", "v1.12.4~2", "v1.13.0", "v1.12.4"];
    let names: Vec<String> = files.iter().map(|f| format!("Talos-{f}.efi")).collect();
    let files: Vec<_> = names.iter().map(|n| (n.as_str(), "v1.0.0")).collect();
    for version in VERSIONS {
        let p = predict(&esp(version, &files), &Variables::default());
        assert_eq!(
            ids(&p),
            [
                "talos-v1.13.0.efi",
                "talos-v1.13.0-beta.1.efi",
                "talos-v1.12.4.efi",
                "talos-v1.12.4~2.efi",
                "talos-v1.12.4~1.efi",
                "talos-v1.12.3.efi"
            ]
        );
        assert!(p.reason.starts_with("highest name among 6 entries"), "{}", p.reason);
    }
}

#[test]
fn a3_prereleases_outrank_the_release() {
    let files = ["v1.13.0", "v1.13.0-alpha.2", "v1.13.0-rc.0", "v1.13.0-beta.1"];
    let names: Vec<String> = files.iter().map(|f| format!("Talos-{f}.efi")).collect();
    let files: Vec<_> = names.iter().zip(files).map(|(n, v)| (n.as_str(), v)).collect();
    let p = predict(&esp("257.9", &files), &Variables::default());
    let versions: Vec<_> = p.menu.iter().map(|e| e.version.as_deref().unwrap()).collect();
    assert_eq!(versions, ["v1.13.0-rc.0", "v1.13.0-beta.1", "v1.13.0-alpha.2", "v1.13.0"]);
}

#[test]
fn a4_image_version_counts_before_version_id() {
    let tagged = format!("{}IMAGE_VERSION=9\n", talos_os_release("v1.12.4"));
    let files =
        [("Talos-v1.12.4.efi", plain_uki(&talos_os_release("v1.12.4"))), ("Talos-v1.12.4~1.efi", plain_uki(&tagged))];
    let p = predict(&esp_of("257.9", &files), &Variables::default());
    assert_eq!(ids(&p), ["talos-v1.12.4~1.efi", "talos-v1.12.4.efi"]);
    assert_eq!(titles(&p)[0], "Talos (v1.12.4) (9)");
}

#[test]
fn a5_the_sort_key_trumps_the_version() {
    let image_id = |id: &str| plain_uki(&format!("{}IMAGE_ID={id}\n", talos_os_release("v1.0.0")));
    let files = [
        ("z.efi", image_id("zzz")),
        ("t.efi", plain_uki(&talos_os_release("v9.0.0"))),
        ("a.efi", image_id("Aaa")),
        ("none.efi", plain_uki("NAME=old\nVERSION_ID=99\n")),
    ];
    for version in VERSIONS {
        let p = predict(&esp_of(version, &files), &Variables::default());
        assert_eq!(ids(&p), ["a.efi", "t.efi", "z.efi", "none.efi"]);
        assert_eq!(p.reason, "first among 4 entries by sort key (Aaa before talos)");
    }
}

#[test]
fn a6_profiles_of_equal_versions() {
    let files = [("X~1.efi", talos_uki("v1.12.4")), ("X.efi", talos_uki("v1.12.4"))];
    let by_file = ["x.efi", "x.efi@reset-maintenance", "x~1.efi", "x~1.efi@reset-maintenance"];
    let by_profile = ["x.efi", "x~1.efi", "x.efi@reset-maintenance", "x~1.efi@reset-maintenance"];
    for (version, expected) in [("257.9", by_file), ("257.13", by_file), ("259.5", by_file), ("262", by_profile)] {
        let p = predict(&esp_of(version, &files), &Variables::default());
        assert_eq!(ids(&p), expected, "{version}");
        assert_eq!(selected(&p), "x.efi");
        // The fallback is another file, not another profile of the same.
        assert_eq!(p.menu[p.fallback.unwrap()].id, "x~1.efi");
        let reset = p.menu.iter().find(|e| e.profile == 1).unwrap();
        assert!(reset.title.starts_with("Talos (v1.12.4) (Reset to maintenance mode)"), "{}", reset.title);
        assert_eq!(reset.options.as_deref(), Some("talos.experimental.wipe=system:EPHEMERAL,STATE"));
    }
    // 252 knows no profiles, and takes the last section of a name.
    let p = predict(&esp_of("252.39", &files), &Variables::default());
    assert_eq!(ids(&p), ["x.efi", "x~1.efi"]);
    assert_eq!(p.menu[0].options.as_deref(), Some("talos.experimental.wipe=system:EPHEMERAL,STATE"));
}

#[test]
fn equal_entries_keep_the_order_of_the_directory() {
    for version in VERSIONS {
        let p = predict(&esp(version, &[("b+x.efi", "v1"), ("b_x.efi", "v1")]), &Variables::default());
        assert_eq!(ids(&p), ["b+x.efi", "b_x.efi"]);
        let p = predict(&esp(version, &[("b_x.efi", "v1"), ("b+x.efi", "v1")]), &Variables::default());
        assert_eq!(ids(&p), ["b_x.efi", "b+x.efi"]);
        assert!(p.reason.starts_with("first of 2 equal entries by its place in the directory"), "{}", p.reason);
    }
}

#[test]
fn automatic_entries_stand_at_the_end_in_fixed_order() {
    let mut esp = esp("257.9", &[("X.efi", "v1")]);
    esp.others = OtherLoaders { macos: true, windows: true, efi_shell: true, default_loader: true };
    esp.loader_conf = Some(b"auto-poweroff yes\nauto-reboot 1\n".to_vec());
    let vars = Variables { os_indications_supported: 1, ..Variables::default() };
    let tail = ["auto-reboot-to-firmware-setup", "auto-poweroff", "auto-reboot"];
    let head = ["x.efi", "auto-osx", "auto-windows", "auto-efi-shell", "auto-efi-default"];
    assert_eq!(ids(&predict(&esp, &vars)), [&head[..], &tail].concat());

    esp.loader_conf = Some(b"auto-poweroff yes\nauto-reboot 1\nauto-entries no".to_vec());
    assert_eq!(ids(&predict(&esp, &vars)), [&head[..1], &tail].concat());

    esp.loader = v("254.26");
    esp.loader_conf = Some(b"auto-poweroff yes\nauto-entries no\nauto-firmware off".to_vec());
    assert_eq!(ids(&predict(&esp, &vars)), ["x.efi"]);
}

#[test]
fn the_extended_partition_is_scanned_last() {
    let mut main = esp("257.9", &[("a_b.efi", "v1")]);
    let other = esp("257.9", &[("a+b.efi", "v1"), ("new.efi", "v2")]);
    main.xbootldr = Some(Xbootldr { linux: other.linux, type1: Vec::new(), targets: Targets::All });
    let p = predict(&main, &Variables::default());
    assert_eq!(ids(&p), ["new.efi", "a_b.efi", "a+b.efi"]);
    assert!(p.menu[0].xbootldr && !p.menu[1].xbootldr);
    assert_eq!(p.fallback, Some(1));
}

/// A menu whose order is total is sorted in fewer comparisons than upstream's; the result has to be the same.
#[test]
fn issue20_4_a_menu_without_counters_sorts_as_by_insertion() {
    use super::super::entry::{EntryKind, MenuEntry, compare, sort};
    let mut state = 20_u64;
    let mut draw = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let parts = ["", "1", "10", "2", "a", "b~", "-", "^", ".", "~", "%", "_", "rc", "01"];
    let mut text = |most: u64| (0..draw(most)).map(|_| parts[draw(14) as usize]).collect::<String>();
    for round in 0..2000 {
        let loader = v(VERSIONS[round % VERSIONS.len()]);
        let mut menu: Vec<MenuEntry> = (0..12)
            .map(|n| {
                let mut entry = MenuEntry::new(format!("{}.efi", text(4)), n.to_string(), EntryKind::Uki);
                entry.version = Some(text(5).into()).filter(|t: &std::sync::Arc<str>| !t.is_empty());
                entry.sort_key = Some(text(2).into()).filter(|t: &std::sync::Arc<str>| !t.is_empty());
                entry
            })
            .collect();
        let mut expected = menu.clone();
        for i in 1..expected.len() {
            let mut at = i;
            while at > 0 && compare(&expected[at], &expected[at - 1], &loader).is_lt() {
                expected.swap(at, at - 1);
                at -= 1;
            }
        }
        sort(&mut menu, &loader);
        assert_eq!(menu, expected, "{loader}, round {round}");
    }
}
