//! `rollout`: from a desk, over several nodes. The cluster is a folder, its pods are swaps on disk images, and a node
//! runs what its disk starts (tests/support/cluster).

use crate::cli::{self, Ran};
use crate::on_node::FakeCluster;
use crate::support::{fsck_clean, sha256};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const DISK: &str = "/dev/nvme0n1";
const NODES: [&str; 3] = ["altra", "ampone", "ryzen"];

/// A cluster of three nodes, each with its disk.
struct Site {
    cluster: FakeCluster,
    disks: [PathBuf; 3],
    new: PathBuf,
}

impl Site {
    fn new() -> Option<Self> {
        let cluster = FakeCluster::new()?;
        let disks = NODES.map(|node| cluster.lab.fixture_as("disk-512.img.zst", &format!("{node}.img")));
        let devices: Value =
            NODES.iter().zip(&disks).map(|(node, disk)| (format!("{node} {DISK}"), json!(disk))).collect();
        cluster.write("devices.json", &devices);
        let node = |index: usize| {
            json!({
                "metadata": {"name": NODES[index]},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"bootID": format!("{}-1", NODES[index]), "architecture": "arm64",
                                 "osImage": "Talos (v1.12.4)"},
                    "addresses": [{"type": "InternalIP", "address": format!("192.168.1.{index}")}]}})
        };
        let nodes: Value = (0..NODES.len()).map(|index| (NODES[index].to_owned(), node(index))).collect();
        cluster.write("nodes.json", &nodes);
        let new = cli::uki(&cluster.lab, "v1.12.4-arm64-installer");
        Some(Self { cluster, disks, new })
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        let state = self.state();
        let (nodes, new) = (NODES.join(","), self.new.to_str().unwrap());
        let usual =
            ["rollout", "--nodes", &nodes, "--disk", DISK, new, "--efivars", "none", "--settle", "1", "--state"];
        let mut command = self.cluster.command(&[&usual[..], &[state.to_str().unwrap()], more].concat());
        command.env("TALOSCTL", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/cluster/talosctl.py"));
        command
    }

    fn run(&self, more: &[&str]) -> Ran {
        cli::finish(self.command(more))
    }

    fn state(&self) -> PathBuf {
        self.cluster.lab.path("state.json")
    }

    fn fault(&self, node: &str, fault: Value) {
        self.cluster.write("talos.json", &json!({node: fault}));
    }

    /// What a disk starts: the new image, or not.
    fn holds_new(&self, index: usize) -> bool {
        let report = bootsurgeon!("status", self.disks[index], "--efivars", "none", "--json").code(0).json();
        let selected = report["boot"]["selected"].clone();
        let file = report["files"].as_array().unwrap().iter().find(|f| f["name"] == selected).unwrap().clone();
        file["sha256"] == sha256(&self.new)
    }

    /// Restarts that were asked for, by address.
    fn reboots(&self) -> Vec<String> {
        let calls = self.cluster.calls().into_iter().filter(|call| call.iter().any(|word| word == "reboot"));
        calls.map(|call| call[2].clone()).collect()
    }

    /// Asserts that it stopped at the second node, and gives that node's row.
    #[track_caller]
    fn stopped(&self, ran: Ran, code: i32, error: &str) -> Value {
        let ran = ran.code(code);
        let report = ran.json();
        let rows = report["nodes"].as_array().unwrap();
        let outcomes: Vec<_> = rows.iter().map(|row| row["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["done", "stopped", "untouched"], "{report:#}");
        assert_eq!((&report["error"]["code"], &report["finished"]), (&error.into(), &false.into()), "{report:#}");
        assert!(self.holds_new(0) && !self.holds_new(2), "{report:#}");
        assert_eq!(self.cluster.pods(), Vec::<String>::new());
        rows[1].clone()
    }
}

/// Commands of a row.
fn ways(row: &Value) -> Vec<Vec<String>> {
    let ways = row["ways"].as_array().unwrap().iter().flat_map(|way| way["run"].as_array().unwrap().clone());
    ways.map(|words| serde_json::from_value(words).unwrap()).collect()
}

#[test]
fn issue18_3_nodes_are_swapped_restarted_and_validated_one_after_the_other() {
    let Some(site) = Site::new() else { return };
    let dry = site.run(&["--dry-run", "--json"]).code(0).json();
    assert!(dry["nodes"][0]["plan"][0].as_str().unwrap().contains("+ tailscale"), "{dry:#}");
    assert!(!site.state().exists() && site.reboots().is_empty() && !site.holds_new(0));
    let unconfirmed = site.run(&["--json"]).code(4).json();
    assert_eq!(unconfirmed["error"]["code"], "unconfirmed");

    let ran = site.run(&["--yes", "-v", "--json"]).code(0);
    let report = ran.json();
    assert_eq!((&report["finished"], &report["error"]), (&true.into(), &Value::Null), "{report:#}");
    for (index, row) in report["nodes"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&row["outcome"], &row["committed"]), (&"done".into(), &true.into()), "{row:#}");
        assert!(row["shows"][0].as_str().unwrap().contains("tailscale 1.90.6"), "{row:#}");
        assert!(site.holds_new(index));
    }
    assert_eq!(site.reboots(), ["192.168.1.0", "192.168.1.1", "192.168.1.2"]);
    assert!(ran.err.contains("talosctl -n 192.168.1.1 reboot --mode powercycle --wait=false"), "{}", ran.err);
    assert!(ran.err.contains("kubectl create"), "{}", ran.err);
    // One after the other: the second pod is created when the first node has been validated.
    let calls: Vec<_> = site.cluster.calls().into_iter().map(|call| call.join(" ")).collect();
    let last = |words: &str| calls.iter().rposition(|call| call.contains(words)).unwrap();
    let creates: Vec<_> = calls.iter().enumerate().filter(|(_, c)| c.contains(" create ")).map(|(i, _)| i).collect();
    let run = &creates[creates.len() - 3..];
    assert!(run[1] > calls.iter().position(|c| c.contains("reboot")).unwrap(), "{calls:#?}");
    assert!(last("-n 192.168.1.0 get services") < run[1], "{calls:#?}");

    // The same again: there is nothing to do, and nobody has to agree to that.
    let again = site.run(&[]).code(0);
    assert!(again.out.contains("Done") && again.out.contains("altra"), "{}", again.out);
    assert_eq!(site.reboots().len(), 3);
}

#[test]
fn issue18_3_the_way_back_that_is_printed_works() {
    let Some(site) = Site::new() else { return };
    site.fault("ampone", json!({"waits": ["ext-tailscale"]}));
    let ran = site.run(&["--yes", "--json", "--service-timeout", "2"]);
    assert!(ran.err.contains("ext-tailscale is not running: Waiting ([Waiting]: Waiting for ext"), "{}", ran.err);
    let row = site.stopped(ran, 1, "node-differs");
    assert!(site.holds_new(1));
    let all = ways(&row);
    let back = all.iter().find(|words| words.contains(&"restore".to_owned())).expect("a way back");
    let words: Vec<&str> = back.iter().skip(1).map(String::as_str).chain(["--yes"]).collect();
    cli::finish(site.cluster.command(&words)).code(0);
    assert!(!site.holds_new(1), "{back:?}");
    assert!(all.iter().any(|words| words.join(" ") == "talosctl -n 192.168.1.1 reboot --mode powercycle"), "{all:?}");
}

#[test]
fn issue18_3_a_rollout_stops_at_the_first_node_that_is_not_as_it_should_be() {
    for (fault, options, error, words) in [
        (json!({"starts_old": true}), &[][..], "node-differs", "the extension tailscale 1.90.6 is missing"),
        (json!({"stays_up": true}), &["--ready-timeout", "2"], "node-lost", "it has not restarted"),
        (json!({"never_ready": true}), &["--ready-timeout", "3"], "node-lost", "It has started again"),
        (json!({"refuses": "rpc error: PermissionDenied"}), &[], "cluster", "it has not restarted"),
    ] {
        let Some(site) = Site::new() else { return };
        site.fault("ampone", fault.clone());
        let ran = site.run(&[&["--yes", "--json"], options].concat());
        let text = format!("{} {}", ran.out, ran.err);
        let row = site.stopped(ran, 1, error);
        assert!(text.contains(words), "{fault}: {row:#}");
        // The cause removed, the same command goes on where it stood.
        site.fault("ampone", json!({}));
        if fault["starts_old"] == true {
            let state = std::fs::read_to_string(site.state()).unwrap();
            assert!(state.contains("\"restarted\""), "{state}");
            let again = site.run(&["--yes"]).code(1).says(&["its schematic is"]);
            assert!(again.out.contains("--force") && again.out.contains("bootsurgeon pod run"), "{}", again.out);
            continue;
        }
        if fault["never_ready"] == true {
            let mut nodes: Value =
                serde_json::from_slice(&std::fs::read(site.cluster.lab.path("cluster/nodes.json")).unwrap()).unwrap();
            nodes["ampone"]["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
            site.cluster.write("nodes.json", &nodes);
        }
        let report = site.run(&["--yes", "--json"]).code(0).json();
        assert_eq!(report["finished"], true, "{fault}: {report:#}");
        assert!((0..3).all(|index| site.holds_new(index)), "{fault}");
    }
}

#[test]
fn issue18_3_a_refused_swap_ends_with_its_own_exit_code_and_changes_nothing() {
    let Some(mut site) = Site::new() else { return };
    site.new = cli::uki(&site.cluster.lab, "v1.12.4-arm64-other-signer");
    for (how, outcome) in [("--yes", "stopped"), ("--dry-run", "planned")] {
        let report = site.run(&[how, "--json"]).code(3).json();
        assert_eq!(report["nodes"][0]["outcome"], outcome, "{report:#}");
        assert_eq!(report["error"]["exit_code"], 3, "{report:#}");
    }
    assert!(!site.holds_new(0) && site.reboots().is_empty());
    fsck_clean(&site.disks[0], cli::ESP);
}

#[test]
fn issue18_3_nothing_is_touched_while_a_node_is_not_as_it_should_be() {
    let Some(site) = Site::new() else { return };
    let nothing = |ran: Ran, code: i32, words: &[&str]| {
        ran.fails(code, words);
        assert!(!(0..3).any(|index| site.holds_new(index)) && site.reboots().is_empty());
        assert!(site.cluster.calls().iter().all(|call| call[1] != "create"));
    };
    site.fault("ryzen", json!({"boot_id": "of another machine"}));
    nothing(site.run(&["--yes"]), 4, &["node ryzen", "they are not the same", "--talos-node ryzen=ADDRESS"]);
    site.fault("ryzen", json!({"deaf": "rpc error: code = Unavailable"}));
    nothing(site.run(&["--yes"]), 1, &["node ryzen", "code = Unavailable"]);
    site.fault("ryzen", json!({}));
    let path = site.cluster.lab.path("cluster/nodes.json");
    let sound: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut nodes = sound.clone();
    nodes["ampone"]["status"]["conditions"][0] = json!({"type": "Ready", "status": "False", "message": "no network"});
    nodes.as_object_mut().unwrap().remove("ryzen");
    site.cluster.write("nodes.json", &nodes);
    nothing(site.run(&["--yes"]), 4, &["it is not ready: no network", "no node ryzen"]);
    site.cluster.write("nodes.json", &sound);
    let mut command = site.command(&["--yes"]);
    command.env("TALOSCTL", "/no/such/talosctl");
    nothing(cli::finish(command), 1, &["TALOSCTL names /no/such/talosctl"]);
    nothing(site.run(&["--yes", "--nodes", "altra"]), 2, &["altra is named twice"]);
    nothing(site.run(&["--yes", "--talos-node", "other=10.0.0.1"]), 2, &["not among the nodes"]);
    let config = site.cluster.lab.path("node.yaml");
    std::fs::write(&config, "machine:\n  type: worker\n").unwrap();
    let ran = site.run(&["--yes", "--machine-config", config.to_str().unwrap()]);
    let command = format!("`bootsurgeon config check {} --image IMAGE`", config.display());
    ran.fails(3, &["does not fit the image", "ext-tailscale waits", &command]);
    assert!(!(0..3).any(|index| site.holds_new(index)) && site.reboots().is_empty());
}

/// SIGKILL at any moment; then the same command.
#[test]
fn issue18_3_a_rollout_that_was_killed_goes_on() {
    let Some(site) = Site::new() else { return };
    let mut kills = 0;
    for wait in [700, 1500, 2600, 900, 3300, 1200, 2100, 4100] {
        let mut child = site.command(&["--yes", "--quiet"]).spawn().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(wait) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        match ended {
            Some(status) if status.success() => break,
            _ => kills += 1,
        }
        // A pod that is at work ends by itself.
        std::thread::sleep(Duration::from_millis(1500));
    }
    // On a busy machine the last pod is still at work: the report says so, and the same command goes on then.
    let mut ran = site.run(&["--yes", "--json"]);
    for _ in 0..60 {
        if !ran.out.contains("\"code\": \"busy\"") {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
        ran = site.run(&["--yes", "--json"]);
    }
    let report = ran.code(0).json();
    assert_eq!(report["finished"], true, "{report:#}");
    assert!((0..3).all(|index| site.holds_new(index)) && kills > 2, "{kills}");
    for node in ["192.168.1.0", "192.168.1.1", "192.168.1.2"] {
        assert!(site.reboots().iter().any(|address| address == node));
    }
}

#[test]
fn issue18_3_two_rollouts_do_not_share_a_state_file() {
    let Some(site) = Site::new() else { return };
    site.fault("altra", json!({"stays_up": true}));
    let mut first = site.command(&["--yes", "--quiet", "--ready-timeout", "60"]).spawn().unwrap();
    let begun = Instant::now();
    while site.reboots().is_empty() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    site.run(&["--yes"]).fails(4, &["another rollout is using it"]);
    first.kill().unwrap();
    first.wait().unwrap();
    // Another one is refused while this one is not finished; with --force it may begin.
    let mut other = site.command(&["--yes", "--keep-duplicates"]);
    other.env("NO_COLOR", "1");
    cli::finish(other).fails(4, &["belongs to another rollout", "0 of 3", "--force"]);
    site.fault("altra", json!({}));
    site.run(&["--yes", "--keep-duplicates", "--force", "--json"]).code(0);
}
