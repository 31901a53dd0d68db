//! The pod of a manifest, run as far as that goes without a cluster: the manifest's mounts around an otherwise empty,
//! read-only root directory, the node's disk as a loop device, the arguments and variables as printed. No kubelet, no
//! EFI variables.

use crate::cli::{TAILSCALE, TARGET, uki, uki_bytes};
use crate::loops::Loop;
use crate::support::Lab;
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::MutexGuard;

/// A node whose disk is a loop device.
struct Node {
    lab: Lab,
    disk: Loop,
    _turn: MutexGuard<'static, ()>,
}

impl Node {
    /// `None` where it cannot be made here, or one of these tools is missing.
    fn new(tools: &[&str]) -> Option<Self> {
        if !crate::support::tools(tools) {
            return None;
        }
        let turn = crate::loops::turn()?;
        let lab = Lab::new();
        let disk = Loop::attach(&lab.fixture("disk-512.img.zst"), &[]);
        Some(Self { lab, disk, _turn: turn })
    }

    fn disk(&self) -> &str {
        self.disk.node().to_str().expect("a path")
    }
}

/// Makes a manifest with these words, runs its container and returns the one document on its standard output.
fn in_its_container(lab: &Lab, words: &[&str]) -> (Option<i32>, Value) {
    in_a_container(lab, words, |_| {})
}

/// The same, with the manifest changed by hand.
fn in_a_container(lab: &Lab, words: &[&str], change: impl FnOnce(&mut Value)) -> (Option<i32>, Value) {
    let usual = ["pod", "manifest", "--node", "n1", "--image", "r.example/b:1", "--json", "-q"];
    // This machine may have no EFI variables, and its firmware did not boot the disk.
    let variables: &[&str] = if words.contains(&"recover") { &[] } else { &["--efivars", "none"] };
    let all = [&usual[..], variables, words];
    let manifest = lab.path("manifest.json");
    let mut document = crate::cli::run(&all.concat()).code(0).json();
    change(&mut document);
    std::fs::write(&manifest, document.to_string()).expect("a file");
    let root = lab.path("root");
    std::fs::create_dir_all(&root).expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/container.sh");
    let program = Path::new(env!("CARGO_BIN_EXE_bootsurgeon"));
    let parts =
        [OsStr::new("-m"), OsStr::new("sh"), script.as_ref(), manifest.as_ref(), root.as_ref(), program.as_ref()];
    let output = crate::support::run("unshare", &parts);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("not one JSON document ({e}): {words:?}\n{}{said}", String::from_utf8_lossy(&output.stdout))
    });
    (output.status.code(), document)
}

#[test]
fn a_swap_in_the_pods_container() {
    let Some(node) = Node::new(&["unshare", "jq"]) else { return };
    let (lab, disk) = (&node.lab, node.disk());
    let elsewhere = format!("/host{disk}");
    let new = uki_bytes(lab, "v1.12.4-arm64-uki");
    let sha256 = crate::support::sha256(&uki(lab, "v1.12.4-arm64-uki"));
    let factory = LocalFactory::start().expect("a factory");
    factory.serve(TAILSCALE, "v1.12.4", "metal-arm64-secureboot-uki.efi", new, Behaviour::default());
    let url = factory.url();
    let swap = ["--schematic", TAILSCALE, "--talos", "v1.12.4", "--arch", "arm64", "--factory", &url];

    let (code, before) = in_its_container(lab, &["--disk", disk, "--command", "status"]);
    assert_eq!((code, &before["boot"]["selected"]), (Some(0), &Value::from(TARGET.trim_start_matches("EFI/Linux/"))));

    // Without ranges a rehearsal needs the whole image in a file: the root is read-only, and there is room in /tmp.
    let (code, plan) = in_its_container(lab, &[&["--disk", disk, "--dry-run"][..], &swap].concat());
    assert_eq!((code, &plan["committed"]), (Some(0), &Value::from(false)), "{plan:#}");

    let (code, done) = in_its_container(lab, &[&["--disk", disk][..], &swap].concat());
    assert_eq!(
        (code, &done["committed"], &done["sha256"]),
        (Some(0), &true.into(), &sha256.clone().into()),
        "{done:#}"
    );

    // With the node's devices where debug containers have them; and a command that asks for the backup.
    let (code, after) = in_its_container(lab, &["--disk", &elsewhere, "--command", "status"]);
    let holds =
        after["files"].as_array().expect("files").iter().any(|f| f["kind"] == "uki" && f["sha256"] == sha256.as_str());
    assert!(code == Some(0) && holds, "{after:#}");
    let (code, back) = in_its_container(lab, &["--disk", &elsewhere, "--command", "restore"]);
    assert_eq!((code, &back["committed"]), (Some(0), &true.into()), "{back:#}");
    let (code, clean) = in_its_container(lab, &["--disk", disk, "--command", "recover"]);
    assert_eq!((code, &clean["committed"]), (Some(0), &false.into()), "{clean:#}");

    // A disk that is not there: an error as a document, and the code that the job's condition will name.
    let (code, error) = in_its_container(lab, &["--disk", "/dev/no-such-disk", "--command", "status"]);
    assert!(code.is_some_and(|c| c != 0) && error["error"]["message"].is_string(), "{code:?} {error:#}");
}

/// Whoever reads the report of a pod sits elsewhere: every command in it is to be typed there.
#[test]
fn issue18_5_what_to_do_next_is_said_for_this_pod() {
    let Some(node) = Node::new(&["unshare", "jq", "mcopy"]) else { return };
    let (lab, disk) = (&node.lab, node.disk());
    let factory = LocalFactory::start().expect("a factory");
    let image = uki_bytes(lab, "v1.12.4-arm64-installer");
    factory.serve(TAILSCALE, "v1.12.4", "metal-arm64-secureboot-uki.efi", image, Behaviour::default());
    let url = factory.url();
    let swap = ["--schematic", TAILSCALE, "--talos", "v1.12.4", "--arch", "arm64", "--factory", &url];
    let begin = format!("bootsurgeon pod run --node n1 --disk {disk} --image-ref r.example/b:1");

    let (code, done) = in_its_container(lab, &[&["--disk", disk][..], &swap].concat());
    assert_eq!((code, &done["committed"]), (Some(0), &true.into()), "{done:#}");
    let next = done["next"].as_array().expect("next");
    let commands: Vec<&str> = next.iter().filter_map(|step| step["command"].as_str()).collect();
    assert_eq!(commands.last().copied(), Some(format!("{begin} restore --efivars none").as_str()), "{next:#?}");
    // By its address, and not by a name that somebody would have to know.
    assert!(commands.contains(&"talosctl -n 192.0.2.7 reboot --mode powercycle"), "{commands:?}");
    for step in next.iter().filter(|step| step["command"].is_string()) {
        let run: Vec<&str> = step["run"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert_eq!(run.join(" "), step["command"].as_str().unwrap_or_default().replace('\'', ""), "{step}");
    }

    // An error that names a command: something that is no record has the record's name.
    let (record, esp) = (lab.path("record"), format!("{disk}@@{}", crate::cli::ESP));
    std::fs::write(&record, "not a record").expect("a file");
    crate::support::run_ok("mcopy", &["-i", &esp, record.to_str().expect("a path"), "::/BOOTSURG.TXN"]);
    let (code, refused) = in_its_container(lab, &["--disk", disk, "--command", "prune"]);
    let advice = refused["error"]["advice"].as_str().unwrap_or_default();
    assert!(code == Some(4) && advice.contains(&format!("`{begin} recover -- --set-aside`")), "{refused:#}");
    // And findings.
    let (_, status) = in_its_container(lab, &["--disk", disk, "--command", "status"]);
    let actions = status["findings"].as_array().expect("findings").iter().filter_map(|f| f["action"].as_str());
    let local: Vec<&str> = actions
        .flat_map(|action| action.split('`').skip(1).step_by(2))
        .filter(|command| command.starts_with("bootsurgeon ") && !command.starts_with("bootsurgeon pod run "))
        .collect();
    assert_eq!(local, [""; 0], "{status:#}");
}

#[test]
fn issue18_5_a_device_that_is_missing_or_elsewhere_is_looked_for() {
    let Some(node) = Node::new(&["unshare", "jq"]) else { return };
    let (lab, disk) = (&node.lab, node.disk());
    let elsewhere = format!("/host{disk}");
    let advice = |error: &Value| error["error"]["advice"].as_str().unwrap_or_default().to_owned();
    let other = |from: &str, to: &str| {
        let (words, to) = (["--disk", from, "--command", "status"], to.to_owned());
        let (code, error) = in_a_container(lab, &words, |manifest| {
            manifest["spec"]["containers"][0]["args"][1] = to.into();
        });
        assert_eq!(code, Some(1), "{error:#}");
        advice(&error)
    };
    // The devices are below /host/dev, and the user names them as the node does; and the other way round.
    assert_eq!(other(&elsewhere, disk), format!("it is {elsewhere} here"));
    assert_eq!(other(disk, &elsewhere), format!("it is {disk} here"));
    // No devices of the node at all.
    let (code, error) = in_a_container(lab, &["--disk", disk, "--command", "status"], |manifest| {
        manifest["spec"]["volumes"][0] = serde_json::json!({"name": "dev", "emptyDir": {}});
    });
    let said = advice(&error);
    for part in [
        "this container has no node for it",
        "`bootsurgeon pod manifest`",
        &format!(
            "`kubectl debug node/n1 -n kube-system -it --profile=sysadmin --image=REF --arguments-only -- COMMAND {elsewhere}`"
        ),
    ] {
        assert!(code == Some(1) && said.contains(part), "{part}: {error:#}");
    }
}

/// "Operation not permitted" and "Permission denied", by what really forbids it: the device controller, as a container
/// runtime sets it for a container that is not privileged, and the owner of the node.
#[test]
fn issue18_5_a_device_that_may_not_be_used_names_what_helps() {
    let Some(node) = Node::new(&["setpriv", "sh"]) else { return };
    let (lab, disk) = (&node.lab, node.disk());
    let image = uki(lab, "v1.12.4-arm64-plain");
    let program = crate::cli::command(&["status"]).get_program().to_owned();
    let run = |before: &[&OsStr], words: &[&str]| {
        let mut command = std::process::Command::new(before[0]);
        command.args(&before[1..]).arg(&program).args(words).stdin(std::process::Stdio::null());
        command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("BOOTSURGEON_NODE", "altra");
        crate::cli::finish(command)
    };
    let debug = "`kubectl debug node/altra -n kube-system -it --profile=sysadmin";
    let swap = ["swap", disk, image.to_str().expect("a path"), "--yes", "--efivars", "none", "--allow-untrusted"];
    let nobody = ["setpriv", "--reuid=65534", "--clear-groups"].map(OsStr::new);
    for words in [&["status", disk][..], &swap, &["recover", disk, "--yes"]] {
        let says = ["Permission denied", "only if it is privileged and runs as root (`runAsUser: 0`)", debug];
        run(&nobody, words).fails(1, &says);
    }
    // Only the first version of cgroups lets a test do this by writing to a file.
    let cgroup = Cgroup(Path::new("/sys/fs/cgroup/devices").join(format!("bootsurgeon-test-{}", std::process::id())));
    if std::fs::create_dir(&cgroup.0).is_err() {
        return;
    }
    for (forbidden, code, how) in [("rwm", 1, "Operation not permitted"), ("w", 4, "it may not be written")] {
        std::fs::write(cgroup.0.join("devices.allow"), "b *:* rwm").expect("the device controller");
        std::fs::write(cgroup.0.join("devices.deny"), format!("b *:* {forbidden}")).expect("the device controller");
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", cgroup.0.display());
        let inside = ["sh", "-c", &script, "sh"].map(OsStr::new);
        let says = [how, "a pod may use the node's devices only if it is privileged.", "`privileged: true`", debug];
        run(&inside, &swap).fails(code, &says);
        if code == 1 {
            run(&inside, &["doctor", disk]).fails(1, &says);
        }
    }
}

/// A control group that goes with the value.
struct Cgroup(std::path::PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn issue18_5_a_pod_is_told_how_it_was_run() {
    let Some(cluster) = crate::on_node::FakeCluster::new() else { return };
    let words = ["pod", "run", "--node", "altra", "--context", "admin@home", "--image-ref", "r.example/b:1", "status"];
    let ran = cluster.command(&[&words[..], &["/dev/nvme0n1", "--", "--efivars", "none"]].concat());
    crate::cli::finish(ran).code(0);
    let pod = cluster.created();
    let variables = pod["spec"]["containers"][0]["env"].as_array().expect("variables").clone();
    let options = variables.iter().find(|v| v["name"] == "BOOTSURGEON_POD_OPTIONS").expect("what it was run with");
    assert_eq!(options["value"], r#"["--image-ref","r.example/b:1","--context","admin@home"]"#);
}
