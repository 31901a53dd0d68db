//! docs/runbook.md: each of its commands for a node is run against a cluster in a folder.

use crate::cli::{self, uki};
use crate::on_node::FakeCluster;
use crate::support;
use std::process::{Command, Stdio};

#[test]
fn issue18_done_every_command_of_the_runbook_runs() {
    let Some(cluster) = FakeCluster::new() else { return };
    let image = uki(&cluster.lab, "v1.12.4-arm64-installer");
    let plugin = cluster.lab.path("kubectl-bootsurgeon");
    std::os::unix::fs::symlink(support::program().get_program(), &plugin).unwrap();
    let text = include_str!("../../../docs/runbook.md");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("kubectl bootsurgeon ")).collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for line in commands {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            words.push(match word {
                "NODE" => "altra".to_owned(),
                "REGISTRY/bootsurgeon:TAG" => "r.example/bootsurgeon:1".to_owned(),
                "new.efi" => image.display().to_string(),
                word if word.starts_with("bootsurgeon-") => support::program().get_program().display().to_string(),
                word => word.to_owned(),
            });
        }
        // The variables of this machine have nothing to do with the disk; and nobody is there to answer.
        words.extend(["--efivars", "none"].map(str::to_owned));
        if words[0] == "swap" {
            words.push("--yes".to_owned());
        }
        let mut command = Command::new(&plugin);
        command.args(&words).env("NO_COLOR", "1").stdin(Stdio::null());
        cluster.surround(&mut command);
        let ran = cli::finish(command);
        if line.contains("--push-self") {
            // The program that was built for tests is not static: it is refused for that, and for nothing else.
            ran.fails(2, &["needs the libraries of this machine"]);
        } else {
            ran.code(0);
        }
    }
    let files = cli::files(&cluster.disk, cli::ESP);
    assert!(files[cli::TARGET] == std::fs::read(&image).unwrap(), "nothing was swapped");
}
