//! Texts: os-release by every rule, `loader.conf`, Type #1 entries, and any file as a UKI or as the boot loader;
//! then the prediction over all of them.
#![no_main]

use bootsurgeon::boot::{
    Esp, Loader, LoaderVersion, OtherLoaders, Targets, Type1File, UkiFile, Variables, predict, roles,
};
use bootsurgeon::boot::{glob, lenient_string, variable_string, verscmp};
use bootsurgeon::uki::{OsRelease, cmdline};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let release = OsRelease::parse(data);
    let _ = release.title();
    let text = String::from_utf8_lossy(data);
    let _ = (cmdline::parameters(&text), cmdline::halt_if_installed(&text), cmdline::wipes(&text));
    let _ = (Loader::probe(&data.to_vec()), LoaderVersion::from_magic(data), lenient_string(data));

    // Up to four parts: loader.conf, an entry, a variable, a UKI.
    let mut parts = data.splitn(4, |b| *b == 0xFF);
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let (conf, entry, variable, uki) = (part(), part(), part(), part());
    let (a, b) = (String::from_utf8_lossy(&conf), String::from_utf8_lossy(&entry));
    assert_eq!(verscmp::compare(&a, &b), verscmp::compare(&b, &a).reverse());
    let _ = glob::matches(&a, &b);
    for version in ["252", "257.9", "262"] {
        let Some(loader) = LoaderVersion::parse(version) else { continue };
        let _ = variable_string(&variable, &loader);
        let esp = Esp {
            linux: vec![
                UkiFile::probe("Talos-v1.12.4.efi", &uki, &loader, 0xAA64),
                UkiFile::probe(&a, &uki, &loader, 0x8664),
                UkiFile::directory(&b),
            ],
            machine: 0xAA64,
            loader_path: "\\EFI\\BOOT\\BOOTAA64.EFI".into(),
            type1: vec![
                Type1File { name: "a.conf".into(), is_dir: false, text: entry.clone() },
                Type1File { name: b.clone().into_owned(), is_dir: false, text: conf.clone() },
            ],
            loader_conf: Some(conf.clone()),
            key_dirs: vec!["auto".into()],
            others: OtherLoaders::default(),
            targets: if conf.len() % 2 == 0 { Targets::All } else { Targets::default() },
            xbootldr: None,
            loader,
        };
        let vars = Variables {
            default: Some(variable.clone()),
            oneshot: Some(entry.clone()),
            config_timeout: Some(variable.clone()),
            last_booted: Some(conf.clone()),
            ..Variables::default()
        };
        for prediction in [predict(&esp, &vars), predict(&esp, &vars.reset())] {
            let _ = (prediction.selected_entry(), prediction.selected_file(), roles(&prediction, &vars));
        }
    }
});
