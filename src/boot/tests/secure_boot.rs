//! Enrolment of Secure Boot keys in setup mode.

use super::*;

fn setup_mode() -> Variables {
    Variables { secure_boot: Some(false), setup_mode: true, ..Variables::default() }
}

#[test]
fn g_an_esp_of_keys_alone() {
    for version in VERSIONS {
        let mut esp = esp(version, &[]);
        esp.key_dirs = vec![".hidden".into(), "mine".into()];
        let p = predict(&esp, &setup_mode());
        assert_eq!(ids(&p), ["secure-boot-keys-mine"]);
        assert_eq!(titles(&p), ["Enroll Secure Boot keys: mine"]);
        // Up to 257 the enrolment is started like a system, without a menu.
        let mode = if version < "258" { MenuMode::Hidden } else { MenuMode::Countdown(10) };
        assert_eq!((p.selected, p.mode), (Some(0), mode), "{version}");
        // Out of setup mode nothing is offered.
        let user = Variables { setup_mode: false, ..setup_mode() };
        assert!(predict(&esp, &user).menu.is_empty());
        assert!(predict(&esp, &Variables { secure_boot: None, ..setup_mode() }).menu.is_empty());
        assert!(predict(&esp, &Variables { deployed_mode: true, ..setup_mode() }).menu.is_empty());
        esp.loader_conf = Some(b"secure-boot-enroll off".to_vec());
        assert!(predict(&esp, &setup_mode()).menu.is_empty());
    }
}

#[test]
fn keys_named_auto_are_enrolled_where_it_is_safe_or_forced() {
    for version in VERSIONS {
        let mut esp = esp(version, &[("X.efi", "v1")]);
        esp.key_dirs = vec!["Auto".into()];
        let safe = version != "252.39";
        for (conf, vm, expected) in [
            ("", Some(true), safe),
            ("", Some(false), false),
            ("", None, false),
            ("secure-boot-enroll manual", Some(true), false),
            ("secure-boot-enroll force", Some(false), true),
            ("secure-boot-enroll force", Some(true), true),
            ("secure-boot-enroll force\nsecure-boot-enroll off", Some(true), false),
        ] {
            esp.loader_conf = Some(conf.as_bytes().to_vec());
            let p = predict(&esp, &Variables { virtual_machine: vm, ..setup_mode() });
            assert_eq!(p.enrolls_keys, expected, "{version} {conf} {vm:?}");
            assert_eq!(p.selected.is_none(), expected);
        }
        esp.loader_conf = None;
        let p = predict(&esp, &setup_mode());
        assert_eq!(p.warnings.iter().any(|w| w.contains("if this is a virtual machine")), safe);
    }
}
