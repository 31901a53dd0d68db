//! Configuration of a node, with and without an image: no finding shows a value of the environment.
#![no_main]

use bootsurgeon::config::{ConfigFile, ImageNeeds, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let files = [ConfigFile { name: "config.yaml".into(), text: data.to_owned() }];
    let mut image = ImageNeeds::default();
    image.waiting = vec!["tailscale".into()];
    image.services = Some(vec!["tailscale".into()]);
    for image in [None, Some(&image)] {
        let report = check(&files, image);
        // A CR by itself ends a line of YAML, too.
        let lines = data.replace("\r\n", "\n").matches(['\n', '\r']).count() + 2;
        assert!(report.findings.iter().all(|f| f.line.is_none_or(|line| (1..=lines).contains(&line))));
    }
});
