//! Entries in `\loader\entries`.

use super::*;

fn with(version: &str, entries: &[(&str, &str)]) -> Esp {
    let mut esp = esp(version, &[("Talos-v1.12.4.efi", "v1.12.4")]);
    esp.type1 = entries
        .iter()
        .map(|(name, text)| Type1File { name: (*name).into(), is_dir: false, text: text.as_bytes().to_vec() })
        .collect();
    let named = esp.type1.iter().filter_map(|file| type1_target(file, &esp.loader));
    esp.targets = Targets::these(named.filter(|path| path.to_ascii_lowercase().starts_with("\\there\\")));
    esp
}

#[test]
fn they_sort_among_the_images() {
    for version in VERSIONS {
        let esp = with(
            version,
            &[
                ("Plain.conf", "title Plain\nlinux /there//kernel\n"),
                ("first.conf", "title First\nsort-key aaa\nefi /there/x.efi"),
                ("same.conf", "title Same\nsort-key talos\nversion v99\nmachine-id 0123456789\nlinux /there/k"),
            ],
        );
        let p = predict(&esp, &Variables::default());
        // A Talos image has no machine id, so it stands before the entry that has one, whatever the version.
        assert_eq!(ids(&p), ["first.conf", "talos-v1.12.4.efi", "same.conf", "plain.conf"], "{version}");
        assert_eq!(p.menu[3].path.as_deref(), Some("\\there\\kernel"));
        assert_eq!((p.selected, p.selected_file()), (Some(0), None));
        assert_eq!(p.reason, "first among 4 entries by sort key (aaa before talos)");
        assert_eq!(p.menu[p.fallback.unwrap()].id, "talos-v1.12.4.efi");
    }
}

#[test]
fn without_sort_keys_names_decide_downwards() {
    let linux = "linux /there/k";
    let esp = with("257.9", &[("a-nosort.conf", linux), ("h-two.conf", linux), ("Mixed+2-1.conf", linux)]);
    let p = predict(&esp, &Variables::default());
    assert_eq!(ids(&p)[1..], ["mixed+2-1.conf", "h-two.conf", "a-nosort.conf"]);
    assert_eq!(titles(&p)[2], "h-two.conf");
    assert_eq!(p.menu[1].tries_left, Some(2));
}

#[test]
fn what_makes_no_entry() {
    for (name, text) in [
        ("a.conf", "title No target"),
        ("a.conf", "linux /gone/kernel"),
        ("a.conf", "linux "),
        ("a.conf", "efi /EFI/BOOT/bootx64.efi"),
        ("a.conf", "linux /there/k\narchitecture aa64"),
        (".a.conf", "linux /there/k"),
        ("auto-a.conf", "linux /there/k"),
        ("a.txt", "linux /there/k"),
    ] {
        for version in VERSIONS {
            let p = predict(&with(version, &[(name, text)]), &Variables::default());
            assert_eq!(ids(&p), ["talos-v1.12.4.efi"], "{version} {name} {text}");
        }
    }
    let mut esp = with("257.9", &[("a.conf", "linux /there/k")]);
    esp.type1[0].is_dir = true;
    assert_eq!(predict(&esp, &Variables::default()).menu.len(), 1);
}

#[test]
fn targets_depend_on_the_version() {
    let both = "linux /there/k\nefi /there/x.efi\narchitecture X64";
    let uki = "uki /there/x.efi\nprofile 1\noptions debug";
    let url = "uki-url https://example.org/x.efi";
    for (version, mixed, ukis, profile) in [
        ("252.39", true, false, 0),
        ("257.9", true, false, 0),
        ("257.13", true, false, 0),
        ("259.5", false, true, 1),
        ("262", false, true, 1),
    ] {
        let find = |text: &str| {
            let p = predict(&with(version, &[("e.conf", text)]), &default("e.conf"));
            p.menu.iter().find(|e| e.id == "e.conf").cloned().map(|e| (e, p.load_options))
        };
        assert_eq!(find(both).is_some(), mixed, "{version}");
        assert_eq!(find(url).is_some(), ukis, "{version}");
        let found = find(uki);
        assert_eq!(found.is_some(), ukis, "{version}");
        if let Some((entry, options)) = found {
            assert_eq!((entry.profile, options.as_deref()), (profile, Some("@1 debug")));
        }
    }
}

#[test]
fn options_add_up_behind_initrds() {
    let text = "linux /there/k\noptions a b\ninitrd /there/i\noptions c\ninitrd /there/j";
    let p = predict(&with("257.9", &[("e.conf", text)]), &default("e.conf"));
    assert_eq!(p.load_options.as_deref(), Some("initrd=\\there\\i initrd=\\there\\j a b c"));
}
