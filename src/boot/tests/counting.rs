//! Boot counting.

use super::*;

#[test]
fn e1_to_e3_counters_and_pins() {
    let e12 = [("v1.12.9.efi", "v1.12.9"), ("Talos-v1.12.4+3.efi", "v1.12.4")];
    let e3 = [("v1.12.9.efi", "v1.12.9"), ("talos-v1.12.5+3.efi", "v1.12.5")];
    for (version, e2_counts, e3_counts) in [
        ("252.39", true, false),
        ("254.26", true, false),
        ("257.9", true, false),
        ("257.13", false, true),
        ("259.5", false, true),
        ("262", false, true),
    ] {
        let of = |files: &[(&str, &str)], pin: &str| {
            let p = predict(&esp(version, files), &default(pin));
            (p.selected_file().unwrap().to_owned(), p.renamed_to)
        };
        let first = ("v1.12.9.efi".to_owned(), None);
        assert_eq!(of(&e12, "Talos-v1.12.4.efi"), first, "E1 {version}");
        let counted = ("Talos-v1.12.4+3.efi".to_owned(), Some("Talos-v1.12.4+2-1.efi".to_owned()));
        assert_eq!(of(&e12, "Talos-v1.12.4+3.efi"), if e2_counts { counted } else { first.clone() }, "E2 {version}");
        let counted = ("talos-v1.12.5+3.efi".to_owned(), Some("talos-v1.12.5+2-1.efi".to_owned()));
        assert_eq!(of(&e3, "Talos-v1.12.5.efi"), if e3_counts { counted } else { first }, "E3 {version}");
    }
    // A glob can match what a literal cannot.
    assert_eq!(predict(&esp("259.5", &e12), &default("?alos*")).selected_file(), Some("Talos-v1.12.4+3.efi"));
}

#[test]
fn d3_a_bad_entry_goes_last_but_can_be_pinned() {
    let files = [("X+0-3.efi", "v9"), ("Y.efi", "v1")];
    for version in VERSIONS {
        let p = predict(&esp(version, &files), &Variables::default());
        assert_eq!(p.selected_file(), Some("Y.efi"), "{version}");
        assert!(p.menu[1].is_bad());
        assert_eq!(p.reason, "first among 2 entries that has tries left");
        let p = predict(&esp(version, &files), &default("x*"));
        // From 257.13 on the id keeps its case, and a small x no longer matches.
        let reachable = ["252.39", "254.26", "257.9"].contains(&version);
        assert_eq!(p.selected_file(), Some(if reachable { "X+0-3.efi" } else { "Y.efi" }), "{version}");
        let p = predict(&esp(version, &files), &default("?+0*"));
        let p = if reachable { p } else { predict(&esp(version, &files), &default("?.efi")) };
        assert_eq!(p.renamed_to.as_deref(), Some("X+0-4.efi").filter(|_| p.selected_file() == Some("X+0-3.efi")));
    }
}

#[test]
fn what_is_a_counter_and_what_is_not() {
    for (name, left, done, next) in [
        ("a+3.efi", Some(3), 0, Some("a+2-1.efi")),
        ("a+3-1.EFI", Some(3), 1, Some("a+2-2.efi")),
        ("b+az+1.efi", Some(1), 0, Some("b+az+0-1.efi")),
        ("a+0-3.efi", Some(0), 3, Some("a+0-4.efi")),
        ("a+2147483647-2147483647.efi", Some(i32::MAX as u32), i32::MAX as u32, Some("a+2147483646-2147483647.efi")),
        ("a+2147483648.efi", None, 0, None),
        ("a+99999999999999999999.efi", None, 0, None),
        ("bar+x.efi", None, 0, None),
        ("a+3-.efi", None, 0, None),
        ("a+.efi", None, 0, None),
        ("a+-1.efi", None, 0, None),
        ("a+3.x.efi", None, 0, None),
        ("a+3+.efi", None, 0, None),
    ] {
        let p = predict(&esp("257.9", &[(name, "v1")]), &Variables::default());
        let e = &p.menu[0];
        assert_eq!((e.tries_left, e.tries_done, p.renamed_to.as_deref()), (left, done, next), "{name}");
        assert_eq!(e.id, name.to_lowercase());
    }
}

#[test]
fn equal_names_sort_by_tries() {
    // The counter is no part of these ids: more tries left first, then fewer done.
    let files = [("x+1-2.efi", "v1"), ("x+3.efi", "v1"), ("x+1-0.efi", "v1")];
    for version in ["257.13", "259.5", "262"] {
        let p = predict(&esp(version, &files), &Variables::default());
        let order: Vec<_> = p.menu.iter().map(|e| e.file.as_deref().unwrap()).collect();
        assert_eq!(order, ["x+3.efi", "x+1-0.efi", "x+1-2.efi"], "{version}");
        assert_eq!(ids(&p), ["x.efi"; 3]);
    }
}

#[test]
fn a_counter_on_a_talos_image_can_start_the_wiping_profile() {
    let files = [("Talos-v1.12.4+3.efi", talos_uki("v1.12.4"))];
    for (version, profile) in [("257.9", 0), ("257.13", 1), ("259.5", 0), ("262", 0)] {
        let p = predict(&esp_of(version, &files), &Variables::default());
        let e = p.selected_entry().unwrap();
        assert_eq!(e.profile, profile, "{version}");
        assert_eq!(p.load_options.as_deref(), (profile == 1).then_some("@1"));
        assert!(p.warnings.iter().any(|w| w.contains("boot counting renames")));
    }
    let p = predict(&esp_of("257.13", &files), &Variables::default());
    assert_eq!(ids(&p), ["Talos-v1.12.4.efi"; 2]);
    let p = predict(&esp_of("259.5", &files), &Variables::default());
    assert_eq!(ids(&p), ["Talos-v1.12.4.efi", "Talos-v1.12.4.efi@reset-maintenance"]);
}

#[test]
fn a_read_only_file_is_not_counted_down_by_262() {
    for (version, renamed) in [("259.5", Some("x+2-1.efi")), ("262", None)] {
        let mut esp = esp(version, &[("x+3.efi", "v1")]);
        esp.linux[0].read_only = true;
        assert_eq!(predict(&esp, &Variables::default()).renamed_to.as_deref(), renamed);
    }
}

#[test]
fn what_262_1_lowers_again() {
    let mut image = talos_uki("v1.12.4");
    let at = image.windows(8).position(|w| w == b"ID=reset").unwrap();
    image[at..at + 8].copy_from_slice(b"ID=Reset");
    for (version, uki, type1) in [
        ("257.9", ["talos-v1.12.4+3.efi", "talos-v1.12.4+3.efi@reset-maintenance"], "zed+2.conf"),
        ("259.5", ["Talos-v1.12.4.efi", "Talos-v1.12.4.efi@Reset-maintenance"], "Zed.conf"),
        ("262", ["Talos-v1.12.4.efi", "Talos-v1.12.4.efi@Reset-maintenance"], "zed.conf"),
        ("262.1-1", ["talos-v1.12.4.efi", "talos-v1.12.4.efi@reset-maintenance"], "zed.conf"),
    ] {
        let mut esp = esp_of(version, &[("Talos-v1.12.4+3.efi", image.clone())]);
        let text = b"title Zed\nefi /there.efi\n".to_vec();
        esp.type1 = vec![Type1File { name: "Zed+2.conf".into(), is_dir: false, text }];
        esp.targets = Targets::All;
        let p = predict(&esp, &Variables::default());
        assert_eq!(ids(&p), [uki[0], uki[1], type1], "{version}");
    }
}

#[test]
fn a_counter_stays_where_its_next_name_is_taken() {
    for (other, renamed) in [("X+2-1.EFI", None), ("x+2-2.efi", Some("x+2-1.efi"))] {
        let p = predict(&esp("262.1", &[("x+3.efi", "v2"), (other, "v1")]), &Variables::default());
        assert_eq!(p.selected_file(), Some("x+3.efi"));
        assert_eq!(p.renamed_to.as_deref(), renamed, "beside {other}");
        assert!(p.warnings.iter().any(|w| w.contains("cannot rename")) == renamed.is_none());
    }
}
