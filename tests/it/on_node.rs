//! `pod run`: a command on a node, from a desk. The cluster is a folder and its pods are processes of this machine
//! (tests/support/cluster/kubectl.py); what runs in them is the program, on the disk that stands for the node's.

use crate::cli::{self, Ran};
use crate::support::{self, Lab};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The disk, as the node names it.
const DISK: &str = "/dev/nvme0n1";
const NODE: &str = "altra";
/// An image that is not installed, and what makes it acceptable.
const NEW: &str = "v1.12.4-arm64-installer";
const TRUST: [&str; 2] = ["--efivars", "none"];

/// A cluster of one node, whose disk is a fixture.
pub(crate) struct FakeCluster {
    pub(crate) lab: Lab,
    pub(crate) disk: PathBuf,
}

impl FakeCluster {
    /// `None` where the tools that it is made of are not there.
    pub(crate) fn new() -> Option<Self> {
        if !support::tool("python3") {
            return None;
        }
        let lab = Lab::new();
        let disk = lab.fixture("disk-512.img.zst");
        std::fs::create_dir(lab.path("cluster")).unwrap();
        let cluster = Self { lab, disk };
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        cluster.write(
            "nodes.json",
            &json!({NODE: {
            "metadata": {"name": NODE},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"bootID": "one", "architecture": arch, "osImage": "Talos (v1.12.4)"},
                "addresses": [{"type": "InternalIP", "address": "192.168.1.85"}]}}}),
        );
        cluster.write("devices.json", &json!({DISK: cluster.disk}));
        Some(cluster)
    }

    /// A file of the cluster's folder.
    pub(crate) fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.lab.path("cluster").join(name), value.to_string()).unwrap();
    }

    /// What goes wrong, as kubectl.py has it.
    pub(crate) fn plan(&self, plan: &Value) {
        self.write("plan.json", plan);
    }

    /// The program at the desk.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = cli::command(args);
        self.surround(&mut command);
        command
    }

    pub(crate) fn surround(&self, command: &mut Command) {
        let program = support::program().get_program().to_owned();
        let kubectl = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/cluster/kubectl.py");
        command.env("KUBECTL", kubectl).env("CLUSTER", self.lab.path("cluster")).env("POD_PROGRAM", program);
        command.env("PATH", path_to_python());
    }

    /// `pod run` on the node.
    fn run(&self, words: &[&str]) -> Ran {
        cli::finish(self.command(&[&["pod", "run", "--node", NODE], words].concat()))
    }

    /// Every call of a tool so far: its words.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        let log = std::fs::read_to_string(self.lab.path("cluster").join("calls.log")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The pod that was created last.
    pub(crate) fn created(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.lab.path("cluster/created.json")).unwrap()).unwrap()
    }

    /// Pods that are still there.
    pub(crate) fn pods(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.lab.path("cluster").join("pods")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).collect()
    }
}

/// PATH with the interpreter itself in front. What stands there may be the shell script of a version manager, which takes
/// four times as long as a call of kubectl.py, and there are thousands.
fn path_to_python() -> &'static OsStr {
    static PATH: OnceLock<OsString> = OnceLock::new();
    PATH.get_or_init(|| {
        let itself = support::run("python3", &["-c", "import sys; print(sys.executable)"]);
        let itself = PathBuf::from(String::from_utf8(itself.stdout).unwrap().trim());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = itself.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
        std::env::join_paths(folders).unwrap()
    })
}

/// The disk and what a local command says of it.
fn local(cluster: &FakeCluster, words: &[&str]) -> Ran {
    let disk = cluster.disk.to_str().unwrap();
    let words: Vec<&str> = words.iter().map(|word| if *word == DISK { disk } else { *word }).collect();
    cli::run(&words)
}

/// Whether it comes true in this time.
fn within(time: Duration, is: impl Fn() -> bool) -> bool {
    let end = Instant::now() + time;
    while !is() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn a_report_is_that_of_the_local_command() {
    let Some(cluster) = FakeCluster::new() else { return };
    for (words, code) in [
        (&["status", DISK, "--", "--efivars", "none"][..], 0),
        (&["--disk", DISK, "status", "--", "--efivars", "none", "--json"], 0),
        (&["doctor", DISK, "--", "--efivars", "none"], 0),
        (&["restore", DISK, "--", "--efivars", "none"], 2),
    ] {
        let ran = cluster.run(words).code(code);
        let task = words.iter().find(|word| ["status", "doctor", "restore"].contains(word)).unwrap();
        let mut same = vec![*task, DISK];
        same.extend(words.iter().skip_while(|word| **word != "--").skip(1));
        let here = local(&cluster, &same).code(code);
        let disk = cluster.disk.to_str().unwrap();
        let there = ran.out.replace(DISK, disk);
        if words.contains(&"--json") {
            let report = |text: &str| cli::without_commands(serde_json::from_str(text).unwrap());
            assert_eq!(report(&there), report(&here.out));
        } else {
            // Commands that are recommended are for the pod.
            let lines = |text: &str| -> Vec<String> {
                text.lines().filter(|line| !line.contains("bootsurgeon ")).map(str::to_owned).collect()
            };
            assert_eq!(lines(&there), lines(&here.out), "{words:?}");
        }
        assert_eq!(ran.err, here.err, "{words:?}");
    }
    assert_eq!(cluster.pods(), Vec::<String>::new());
}

#[test]
fn an_image_of_this_machine_is_swapped_in_and_the_backup_restored() {
    let Some(cluster) = FakeCluster::new() else { return };
    let uki = cli::uki(&cluster.lab, NEW);
    let uki = uki.to_str().unwrap();
    let swap = [&["swap", DISK, uki], &TRUST[..]].concat();
    // A rehearsal, and nobody to ask: nothing is changed.
    let before = support::sha256(&cluster.disk);
    let rehearsal = cluster.run(&[&swap[..], &["--dry-run", "--json"]].concat()).code(0).json();
    cluster.run(&swap).fails(4, &["--yes"]);
    assert_eq!(support::sha256(&cluster.disk), before);
    // The run does what the rehearsal said, and what is there is the image.
    let report = cluster.run(&[&swap[..], &["--yes", "--json"]].concat()).code(0).json();
    assert_eq!(report["committed"], true);
    assert_eq!(report["sha256"], support::sha256(std::path::Path::new(uki)));
    assert_eq!(report["plan"]["target"], rehearsal["plan"]["target"]);
    let files = cli::files(&cluster.disk, cli::ESP);
    assert_eq!(files[cli::TARGET], std::fs::read(uki).unwrap());
    // Once more: nothing to do, and nobody is asked.
    cluster.run(&swap).code(0);
    cluster.run(&["restore", DISK, "--", "--efivars", "none", "--yes"]).code(0);
    assert_ne!(cli::files(&cluster.disk, cli::ESP)[cli::TARGET], std::fs::read(uki).unwrap());
    assert_eq!(cluster.pods(), Vec::<String>::new());
    // What the pod was given.
    let pod = cluster.created();
    assert_eq!(pod["spec"]["nodeName"], NODE);
    let create = cluster.calls().into_iter().find(|call| call[1] == "create").unwrap();
    assert_eq!(create[2..4], ["-n", "kube-system"]);
}

/// An image that is on the node's disk already is taken there, and not from a disk of that name at the desk.
#[test]
fn the_image_of_a_half_done_upgrade_is_taken_on_the_node() {
    let Some(cluster) = FakeCluster::new() else { return };
    let duplicate = cli::files(&cluster.disk, cli::ESP)[cli::DUPLICATE].clone();
    let name = cli::DUPLICATE.rsplit('/').next().unwrap();
    cluster.run(&[&["swap", DISK, DISK, "--uki", name, "--yes"], &TRUST[..]].concat()).code(0);
    assert_eq!(cli::files(&cluster.disk, cli::ESP)[cli::TARGET], duplicate);
    assert!(cluster.calls().iter().all(|call| call[1] != "attach"));
}

#[test]
fn an_image_that_is_rejected_ends_with_the_exit_code_of_its_node() {
    let Some(cluster) = FakeCluster::new() else { return };
    let uki = cli::uki(&cluster.lab, "v1.12.4-arm64-unsigned");
    let before = cli::files(&cluster.disk, cli::ESP);
    let ran = cluster.run(&["swap", DISK, uki.to_str().unwrap(), "--efivars", "none", "--yes"]);
    ran.fails(3, &["the ESP was not changed"]);
    assert_eq!(cli::files(&cluster.disk, cli::ESP), before);
}

/// What a lost connection looks like to the program on the node is the end of its input.
#[test]
fn a_connection_lost_in_the_middle_changes_nothing() {
    let Some(cluster) = FakeCluster::new() else { return };
    let uki = cli::uki(&cluster.lab, NEW);
    let bytes = std::fs::metadata(&uki).unwrap().len();
    let before = cli::files(&cluster.disk, cli::ESP);
    for at in [1, 4096, bytes / 2, bytes - 1] {
        cluster.plan(&json!({"cut_attach_at": at}));
        let ran = cluster.run(&[&["swap", DISK, uki.to_str().unwrap(), "--yes"], &TRUST[..]].concat());
        ran.fails(1, &["the pipe ended after", "the ESP was not changed"]);
        assert_eq!(cli::files(&cluster.disk, cli::ESP), before, "cut at {at}");
        assert_eq!(cluster.pods(), Vec::<String>::new());
    }
}

/// The log is what is printed, however often the call that follows it breaks.
#[test]
fn a_log_that_is_cut_is_read_on() {
    let Some(cluster) = FakeCluster::new() else { return };
    let whole = cluster.run(&["status", DISK, "--", "--efivars", "none"]).code(0);
    let lines = whole.out.lines().count();
    assert!(lines > 5, "{}", whole.out);
    for how in ["cut_log_at", "cut_log_in"] {
        for at in [1, 2, lines / 2, lines] {
            cluster.plan(&json!({how: at}));
            let ran = cluster.run(&["status", DISK, "--", "--efivars", "none"]).code(0);
            assert_eq!(ran.out, whole.out, "{how} {at}");
        }
    }
}

/// A connection can be dead without either end knowing, after a laptop has slept, say.
#[test]
fn a_watch_that_says_nothing_is_not_all_there_is() {
    let Some(cluster) = FakeCluster::new() else { return };
    cluster.plan(&json!({"dead_watch": true}));
    let ran = cluster.run(&["status", "--wait", "100", DISK, "--", "--efivars", "none"]).code(0);
    assert!(ran.out.contains("Talos-v1.12.4.efi"), "{}", ran.out);
}

/// A pod that cannot begin is named with its reason, and is gone: it must not begin later.
#[test]
fn a_pod_that_does_not_begin_says_why_and_is_deleted() {
    let Some(cluster) = FakeCluster::new() else { return };
    let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let mount = "MountVolume.SetUp failed for volume \"efivars\" : hostPath type check failed: \
                 /sys/firmware/efi/efivars is not a directory";
    for (plan, wait, words) in [
        (
            waiting("ErrImageNeverPull", "is not present with pull policy of Never"),
            "60",
            &["ErrImageNeverPull", "--push-self"][..],
        ),
        (waiting("InvalidImageName", "couldn't parse"), "60", &["InvalidImageName"]),
        (waiting("ImagePullBackOff", "Back-off pulling image"), "1", &["ImagePullBackOff", "--image-ref"]),
        (
            json!({"waiting": {"reason": "ContainerCreating"}, "warning": mount}),
            "60",
            &["is not a directory", "--efivars none"],
        ),
        (json!({"begins_after": 60}), "1", &["no reason", "kubelet"]),
    ] {
        cluster.plan(&plan);
        let ran = cluster.run(&["status", "--disk", DISK, "--wait", wait]);
        ran.fails(1, words);
        assert!(within(Duration::from_secs(5), || cluster.pods().is_empty()), "{plan}");
    }
}

#[test]
fn what_is_missing_is_named_before_anything_is_created() {
    let Some(cluster) = FakeCluster::new() else { return };
    let run = |words: &[&str]| cli::finish(cluster.command(&[&["pod", "run"], words].concat()));
    run(&["--node", "ampone", "status", DISK]).fails(1, &["the cluster has no node ampone", "kubectl get nodes"]);
    run(&["--node", NODE, "status"]).fails(2, &["which disk?"]);
    run(&["--node", NODE, "status", DISK, "more"]).fails(2, &["IMAGE is for swap"]);
    run(&["--node", NODE, "swap", DISK, "no-such.efi"]).fails(1, &["no-such.efi"]);
    run(&["--node", NODE, "swap", "disk.img", "http://x/y.efi"]).fails(2, &["not a device of a node"]);
    let mut without = cluster.command(&["pod", "run", "--node", NODE, "status", DISK]);
    without.env("KUBECTL", "/nowhere/kubectl");
    cli::finish(without).fails(1, &["there is no such program", "KUBECTL"]);
    let mut without = cluster.command(&["pod", "run", "--node", NODE, "status", DISK]);
    without.env_remove("KUBECTL").env("PATH", "/nowhere");
    cli::finish(without).fails(1, &["kubectl is not on PATH"]);
    assert!(cluster.calls().iter().all(|call| call[1] != "create"), "{:?}", cluster.calls());
    // What may not be looked at is not needed.
    cluster.plan(&json!({"forbidden": ["get node"]}));
    run(&["--node", NODE, "status", DISK, "--", "--efivars", "none"]).code(0);
    cluster.plan(&json!({"deaf": "Error from server (Forbidden): pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\""}));
    run(&["--node", NODE, "status", DISK]).fails(1, &["PodSecurity", "pod-security.kubernetes.io/enforce=privileged"]);
}

/// What is not known is not promised.
#[test]
fn a_pod_that_is_ended_from_outside_is_no_success() {
    let Some(cluster) = FakeCluster::new() else { return };
    let uki = cli::uki(&cluster.lab, NEW);
    let swap = [&["swap", DISK, uki.to_str().unwrap(), "--yes"], &TRUST[..]].concat();
    for (plan, words) in [
        (json!({"evict_at": 100_000}), &["Evicted", "status"][..]),
        (json!({"vanish": true}), &["was deleted", "status"]),
        (json!({"kill": true}), &["OOMKilled", "status"]),
    ] {
        cluster.plan(&plan);
        cluster.run(&swap).fails(1, words);
    }
    cluster.plan(&json!({"no_attach": "Error from server (Forbidden): pods \"x\" is forbidden: cannot attach"}));
    // The pod would wait for its input for ever.
    cluster.run(&swap).fails(1, &["cannot attach", "was stopped", "the ESP was not changed"]);
    assert_eq!(cluster.pods(), Vec::<String>::new());
}

/// Ctrl-C at the desk is Ctrl-C on the node.
#[test]
fn a_stop_at_the_desk_stops_the_node_and_leaves_no_trace() {
    let Some(cluster) = FakeCluster::new() else { return };
    let before = cli::files(&cluster.disk, cli::ESP);
    let uki = cli::uki(&cluster.lab, NEW);
    let bytes = std::fs::metadata(&uki).unwrap().len().to_string();
    let mut command = cluster.command(
        &[&["pod", "run", "--node", NODE, "swap", DISK, "-", "--yes", "--bytes", &bytes], &TRUST[..]].concat(),
    );
    // The image never comes.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running = || {
        cluster
            .pods()
            .iter()
            .any(|pod| std::fs::read_to_string(cluster.lab.path("cluster/pods").join(pod)).unwrap().contains("running"))
    };
    assert!(within(Duration::from_secs(30), running));
    std::thread::sleep(Duration::from_millis(300));
    support::run_ok("kill", &["-INT", &child.id().to_string()]);
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cli::files(&cluster.disk, cli::ESP), before);
    assert_eq!(cluster.pods(), Vec::<String>::new());
}

/// Whatever became of the call that creates the pod: none is left to begin when nobody is there any more.
#[test]
fn a_pod_whose_creation_was_cut_off_does_not_begin() {
    let Some(cluster) = FakeCluster::new() else { return };
    let status = ["pod", "run", "--node", NODE, "status", DISK, "--", "--efivars", "none"];
    let gone = || within(Duration::from_secs(10), || cluster.pods().is_empty());
    cluster.plan(&json!({"begins_after": 30, "lost_create": "error: unexpected EOF"}));
    cli::finish(cluster.command(&status)).fails(1, &["unexpected EOF"]);
    assert!(gone(), "{:?}", cluster.pods());
    cluster.plan(&json!({"begins_after": 30, "create_answers_after": 2}));
    let child = cluster.command(&status).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(within(Duration::from_secs(30), || !cluster.pods().is_empty()));
    support::run_ok("kill", &["-INT", &child.id().to_string()]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(gone(), "{:?}", cluster.pods());
}

/// As the plugin of kubectl, and without a registry: the program itself is carried there.
#[test]
fn the_plugin_carries_itself_to_a_node_without_an_image() {
    let Some(cluster) = FakeCluster::new() else { return };
    let plugin = cluster.lab.path("kubectl-bootsurgeon");
    std::os::unix::fs::symlink(support::program().get_program(), &plugin).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(&plugin);
        command.args(words).env("NO_COLOR", "1").stdin(Stdio::null());
        cluster.surround(&mut command);
        cli::finish(command)
    };
    let as_plugin = run(&["status", "--node", NODE, DISK, "--", "--efivars", "none"]).code(0);
    let as_program = cluster.run(&["status", DISK, "--", "--efivars", "none"]).code(0);
    assert_eq!(as_plugin.out, as_program.out);
    run(&["--version"]).code(0);
    run(&["schematic", "id", "no-such.yaml"]).fails(1, &["no-such.yaml"]);
    // The test program needs libraries; a script of the same architecture's shell would not be a program at all.
    run(&["status", "--node", NODE, DISK, "--push-self", "--binary", "/etc/hostname"])
        .fails(2, &["is no program for Linux", "--binary"]);
    let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let mut nodes: Value =
        serde_json::from_str(&std::fs::read_to_string(cluster.lab.path("cluster/nodes.json")).unwrap()).unwrap();
    nodes[NODE]["status"]["nodeInfo"]["architecture"] = other.into();
    cluster.write("nodes.json", &nodes);
    run(&["status", "--node", NODE, DISK, "--push-self"]).fails(2, &["and the node is", other]);
}

/// Somebody at a terminal sees the node's plan and is asked, as without a cluster.
#[test]
fn a_question_of_the_node_is_asked_at_the_desk() {
    let Some(cluster) = FakeCluster::new() else { return };
    if !support::tool("script") {
        return;
    }
    let uki = cli::uki(&cluster.lab, NEW);
    let program = support::program().get_program().to_str().unwrap().to_owned();
    let line = format!("{program} pod run --node {NODE} swap {DISK} {} --efivars none", uki.display());
    let files = || cli::files(&cluster.disk, cli::ESP);
    let before = files();
    for (answer, code) in [("n", 130), ("y", 0)] {
        assert_eq!(files(), before);
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("NO_COLOR", "1");
        cluster.surround(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut shown = String::new();
        let mut stdout = child.stdout.take().unwrap();
        let mut buffer = [0; 4096];
        while !shown.contains("[y/N]") {
            let n = stdout.read(&mut buffer).unwrap();
            assert!(n > 0, "{shown}");
            shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        // What the question is about comes before it.
        assert!(shown.contains("Talos-v1.12.4.efi") && shown.contains("tailscale"), "{shown}");
        child.stdin.as_mut().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
        let mut rest = String::new();
        let _ = stdout.read_to_string(&mut rest);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{shown}{rest}");
    }
    assert_eq!(files()[cli::TARGET], std::fs::read(uki).unwrap());
}
