//! Which entry starts, by variables and loader.conf.

use super::*;

const C: [(&str, &str); 3] = [("X.efi", "v1.12.4"), ("X~1.efi", "v1.12.4"), ("Talos-v1.12.3.efi", "v1.12.3")];

#[test]
fn c0_without_variables_the_order_decides() {
    for version in VERSIONS {
        assert_eq!(selected(&predict(&esp(version, &C), &Variables::default())), "x.efi");
    }
}

#[test]
fn c1_the_default_variable_pins() {
    for version in VERSIONS {
        let p = predict(&esp(version, &C), &default("X~1.efi"));
        assert_eq!((selected(&p), p.selected_file()), ("x~1.efi", Some("X~1.efi")));
        assert_eq!(p.reason, "LoaderEntryDefault pins x~1.efi");
        assert_eq!(p.marked, p.selected);
        assert_eq!(p.menu[p.fallback.unwrap()].id, "x.efi");
    }
}

#[test]
fn c2_a_variable_without_nul_is_misread() {
    for (version, expected) in [
        ("252.39", "x.efi"),
        ("254.26", "x.efi"),
        ("257.9", "x.efi"),
        ("257.13", "x.efi"),
        ("259.5", "x.efi"),
        ("262", "x~1.efi"),
    ] {
        let vars = Variables { default: open_var("X~1.efi"), ..Variables::default() };
        let p = predict(&esp(version, &C), &vars);
        assert_eq!(selected(&p), expected, "{version}");
        assert_eq!(p.warnings.iter().any(|w| w.contains("has no closing NUL")), expected == "x.efi", "{version}");
    }
    let vars = Variables { default: Some(b"X\0~".to_vec()), ..Variables::default() };
    let p = predict(&esp("257.9", &C), &vars);
    assert_eq!(selected(&p), "x.efi");
    assert!(p.warnings[0].contains("odd number of bytes"));
}

#[test]
fn c3_a_stale_default_falls_through_to_loader_conf() {
    for version in VERSIONS {
        let mut esp = esp(version, &C);
        esp.loader_conf = Some(b"default talos-v1.12.3*".to_vec());
        let p = predict(&esp, &default("Talos-v1.11.0.efi"));
        assert_eq!(selected(&p), "talos-v1.12.3.efi");
        assert_eq!(p.marked, None);
        assert_eq!(
            p.reason,
            "LoaderEntryDefault names talos-v1.11.0.efi, which is gone: next in line, loader.conf default asks for \
             \"talos-v1.12.3*\": talos-v1.12.3.efi comes first"
        );
        esp.loader_conf = None;
        assert_eq!(
            predict(&esp, &default("Talos-v1.11.0.efi")).reason,
            "LoaderEntryDefault names talos-v1.11.0.efi, which is gone: falls back to the highest name among 3 \
                entries, \
             the versions being equal (x.efi before x~1.efi)"
        );
    }
}

#[test]
fn c4_the_one_shot_wins_without_regard_to_case() {
    for version in VERSIONS {
        let vars = Variables { oneshot: var("TALOS-V1.12.3.EFI"), ..default("X~1.efi") };
        let p = predict(&esp(version, &C), &vars);
        assert_eq!(selected(&p), "talos-v1.12.3.efi");
        assert_eq!(p.reason, "LoaderEntryOneShot asks for talos-v1.12.3.efi for this boot only");
        // What follows is what the variables say once the one-shot is used up.
        assert_eq!(p.menu[p.fallback.unwrap()].id, "x~1.efi");
        assert_eq!(selected(&predict(&esp(version, &C), &vars.after_one_boot())), "x~1.efi");
    }
}

#[test]
fn junk_in_the_one_shot_does_no_harm() {
    // The kernel's efibc driver stores the string of the reboot call, without NUL.
    let vars = Variables { oneshot: open_var("kexec reboot"), ..default("X~1.efi") };
    assert_eq!(selected(&predict(&esp("257.9", &C), &vars)), "x~1.efi");
}

#[test]
fn c7_c8_what_was_saved_is_compared_with_case() {
    for version in VERSIONS {
        for (conf, variable) in [(Some("default @saved"), None), (None, Some("@SAVED"))] {
            for (last, expected) in [("X~1.efi", "x.efi"), ("x~1.efi", "x~1.efi")] {
                let mut esp = esp(version, &C);
                esp.loader_conf = conf.map(|c| c.as_bytes().to_vec());
                let vars =
                    Variables { default: variable.and_then(var), last_booted: var(last), ..Variables::default() };
                assert_eq!(selected(&predict(&esp, &vars)), expected, "{version} {conf:?} {last}");
            }
        }
    }
    let p = predict(&esp("257.9", &C), &default("@saved"));
    assert!(p.reason.starts_with("LoaderEntryDefault is @saved, and nothing was saved: falls back"), "{}", p.reason);
}

#[test]
fn special_defaults_other_than_saved_are_refused() {
    let mut esp = esp("257.9", &C);
    esp.loader_conf = Some(b"default x~1.efi\ndefault @oneshot\n".to_vec());
    assert_eq!(selected(&predict(&esp, &Variables::default())), "x~1.efi");
    // An empty value takes the setting back up to 257; from 258 on it is a pattern that matches nothing.
    esp.loader_conf = Some(b"default x~1.efi\ndefault \"\"\n".to_vec());
    for version in VERSIONS {
        esp.loader = v(version);
        assert_eq!(selected(&predict(&esp, &Variables::default())), "x.efi");
    }
}

#[test]
fn f1_f2_profiles_can_be_pinned() {
    let uki = || {
        let os = talos_os_release("v1");
        pe(X64, &[(".osrel", os.as_bytes()), (".cmdline", b"a"), (".profile", b"ID=main"), (".profile", b"ID=Reset")])
    };
    for (version, f1, f2) in [
        ("252.39", "x.efi", "x.efi"),
        ("254.26", "x.efi", "x.efi"),
        ("257.9", "x.efi@reset", "x.efi@reset"),
        ("257.13", "x.efi@reset", "x.efi@reset"),
        ("259.5", "x.efi", "x.efi@Reset"),
        ("262", "x.efi", "x.efi@Reset"),
    ] {
        let esp = esp_of(version, &[("X.efi", uki())]);
        assert_eq!(selected(&predict(&esp, &default("X.efi@Reset"))), f1, "{version}");
        let p = predict(&esp, &default("x*@*"));
        assert_eq!(selected(&p), f2, "{version}");
        let pinned = f2.contains('@');
        let own = (!version.starts_with("257") && f2 == "x.efi").then_some("a");
        assert_eq!(p.load_options.as_deref(), if pinned { Some("@1") } else { own });
        assert_eq!(p.warnings.iter().any(|w| w.contains("not the system itself")), pinned);
        assert_eq!(p.fallback, None, "another profile of the same file is no fallback");
    }
}

#[test]
fn p1_to_p3_preferred_comes_first_and_passes_over_bad_entries() {
    let files = [("good.efi", "v1"), ("worn+0-3.efi", "v2"), ("other.efi", "v1")];
    let preferred = |p: &str, d: &str| Variables { preferred: var(p), ..default(d) };
    for version in VERSIONS {
        let knows = version == "262";
        let esp = esp(version, &files);
        let p = predict(&esp, &preferred("other.efi", "good.efi"));
        assert_eq!(selected(&p), if knows { "other.efi" } else { "good.efi" }, "{version}");
        let p = predict(&esp, &preferred("worn*", "good.efi"));
        assert_eq!(selected(&p), "good.efi");
        assert_eq!(p.reason.contains("no tries left"), knows, "{}", p.reason);
        assert!(selected(&predict(&esp, &default("worn*"))).starts_with("worn"), "{version}");
    }
    let mut esp = esp("262", &files);
    esp.loader_conf = Some(b"preferred other*\ndefault good.efi".to_vec());
    assert_eq!(selected(&predict(&esp, &default("good.efi"))), "other.efi");
}

#[test]
fn t_timeouts() {
    use MenuMode::{Countdown, Disabled, Hidden, Waits};
    let mode = |version: &str, conf: &str, variable: Option<Vec<u8>>, once: Option<Vec<u8>>| {
        let mut esp = esp(version, &C);
        esp.loader_conf = Some(conf.as_bytes().to_vec());
        let vars = Variables { config_timeout: variable, config_timeout_oneshot: once, ..Variables::default() };
        predict(&esp, &vars).mode
    };
    for (conf, variable, once, expected) in [
        ("", None, None, Hidden),
        ("timeout 10", var("5"), None, Countdown(5)),
        ("timeout 10", open_var("5"), None, Countdown(10)),
        ("timeout 10", open_var("15"), None, Countdown(1)),
        ("timeout 10", var("abc"), None, Countdown(10)),
        ("Timeout 7", None, None, Hidden),
        ("timeout=7", None, None, Hidden),
        ("timeout \"7\"", None, None, Countdown(7)),
        ("timeout\t7\r\n", None, None, Countdown(7)),
        ("timeout 4294967295", None, None, Waits),
        ("timeout 3\ntimeout 4294967296", None, None, Countdown(3)),
        ("timeout menu-force", None, None, Waits),
        ("timeout menu-hidden", None, None, Hidden),
        ("timeout menu-disabled", None, None, Disabled),
        ("timeout 10", var("menu-disabled"), None, Disabled),
        ("timeout 10", var("99999999999"), None, Waits),
        ("", None, var("0"), Waits),
        ("", None, var("7"), Countdown(7)),
        ("timeout 10", var("5"), var("menu-disabled"), Waits),
        ("timeout 10", None, var("junk"), Countdown(10)),
    ] {
        assert_eq!(mode("257.9", conf, variable.clone(), once.clone()), expected, "{conf:?} {variable:?} {once:?}");
    }
    assert_eq!(mode("254.26", "timeout 10\ntimeout menu-disabled", None, None), Countdown(10));
    assert_eq!(mode("262", "timeout 10", open_var("15"), None), Countdown(15));
}

#[test]
fn an_empty_esp_starts_nothing() {
    for version in VERSIONS {
        let p = predict(&esp(version, &[]), &Variables::default());
        assert_eq!((p.selected, p.fallback, p.menu.len()), (None, None, 0));
        assert!(p.reason.contains("control returns to the firmware"));
        // With firmware setup as the only line the menu is shown for 10 seconds.
        let vars = Variables { os_indications_supported: 1, ..Variables::default() };
        let p = predict(&esp(version, &[]), &vars);
        assert_eq!((p.selected, p.selected_file(), p.mode), (Some(0), None, MenuMode::Countdown(10)));
        assert_eq!(p.reason, "first line of the menu: there is no system to start");
    }
}

#[test]
fn without_variables_the_order_decides() {
    let (esp, variables) = (esp("257.9", &C), default("Talos-v1.12.3.efi"));
    let (with, without) = (predict(&esp, &variables), predict(&esp, &variables.reset()));
    assert_eq!((selected(&with), selected(&without)), ("talos-v1.12.3.efi", "x.efi"));
}

#[test]
fn roles_are_read_from_what_the_loader_left() {
    let esp = esp("257.9", &C);
    let of = |selected: Option<&str>, stub: Option<&str>| {
        let vars = Variables { selected: selected.and_then(var), stub_image: stub.and_then(var), ..default("X~1.efi") };
        roles(&predict(&esp, &vars), &vars)
    };
    let r = of(Some("talos-v1.12.3.efi"), Some("\\EFI\\Linux\\Talos-v1.12.3.efi"));
    assert_eq!((r.running_file.as_deref(), r.running), (Some("Talos-v1.12.3.efi"), Some(2)));
    assert_eq!((r.selected, r.fallback), (Some(1), Some(0)));
    // Only one of the two is there.
    assert_eq!(of(Some("talos-v1.12.3.efi"), None).running_file.as_deref(), Some("Talos-v1.12.3.efi"));
    assert_eq!(of(None, Some("/EFI/LINUX/talos-V1.12.3.efi")).running, Some(2));
    // The file that runs is gone.
    let r = of(Some("talos-v1.11.0.efi@reset"), None);
    assert_eq!((r.running_file.as_deref(), r.running), (Some("talos-v1.11.0.efi"), None));
    let r = of(Some("x.efi"), Some("\\EFI\\Linux\\Talos-v1.11.0.efi"));
    assert_eq!((r.running_file.as_deref(), r.running), (Some("Talos-v1.11.0.efi"), None));
    // Nothing is known, or it came from elsewhere.
    assert_eq!(of(None, None).running_file, None);
    assert_eq!(of(Some("auto-efi-shell"), Some("\\EFI\\other\\x.efi")).running_file, None);
}

#[test]
fn old_versions_hand_the_last_profiles_command_line_to_the_image() {
    let os = talos_os_release("v1.10.0");
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", os.as_bytes()),
        (".cmdline", b"console=ttyS0"),
        (".profile", b"ID=main"),
        (".profile", b"ID=reset"),
        (".cmdline", b"talos.experimental.wipe=system"),
    ];
    for (version, passed) in [
        ("252.39", Some("talos.experimental.wipe=system")),
        ("254.26", Some("talos.experimental.wipe=system")),
        ("257.9", None),
    ] {
        let p = predict(&esp_of(version, &[("X.efi", pe(X64, &sections))]), &Variables::default());
        assert_eq!(p.load_options.as_deref(), passed, "{version}");
    }
}
