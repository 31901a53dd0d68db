//! What `pod run` builds on: how `kubectl`, the API server, a kubelet and containerd behave. Where one of these tests
//! fails, the program rests on something that is not so (any more).

use crate::cluster::{Cluster, cluster, shell_pod, state};
use serde_json::Value;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// As long as a UKI.
const BYTES: usize = 120_000_000;

fn attach(cluster: &Cluster, pod: &str) -> Child {
    cluster.kubectl(&["attach", pod, "--stdin"]).stdin(Stdio::piped()).spawn().expect("kubectl")
}

fn log(cluster: &Cluster, pod: &str) -> String {
    String::from_utf8(cluster.ask(&["logs", pod])).expect("UTF-8")
}

fn finish(mut child: Child, input: &[u8]) -> Output {
    // It may end before it has taken everything.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("kubectl")
}

#[test]
fn what_is_attached_arrives_whole_and_its_end_is_the_end_of_the_input() {
    let Some(cluster) = cluster() else { return };
    cluster.shell_pod("whole", "sha256sum; exit 3");
    let bytes: Vec<u8> = (0..BYTES as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let begun = Instant::now();
    let attached = finish(attach(cluster, "whole"), &bytes);
    eprintln!("{BYTES} bytes in {:?}", begun.elapsed());
    assert!(attached.status.success(), "{attached:?}");
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    assert_eq!(log(cluster, "whole"), format!("{hash}  -\n"));
    assert_eq!(cluster.end("whole")["exitCode"], 3);
    cluster.delete(&["whole"]);
}

/// So the program has to know how much is to come.
#[test]
fn a_connection_that_is_cut_looks_like_an_end() {
    let Some(cluster) = cluster() else { return };
    cluster.shell_pod("cut", "wc -c; echo going on");
    let mut child = attach(cluster, "cut");
    let mut stdin = child.stdin.take().expect("a pipe");
    for _ in 0..20 {
        stdin.write_all(&[7; 100_000]).expect("a pipe that is read");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("a process");
    child.wait().expect("a process");
    assert_eq!(cluster.end("cut")["exitCode"], 0);
    let said = log(cluster, "cut");
    let (count, rest) = said.split_once('\n').expect("two lines");
    assert!((1..=2_000_000).contains(&count.trim().parse().expect("a number")), "{said}");
    assert_eq!(rest, "going on\n");
    cluster.delete(&["cut"]);
}

/// As when the program refuses an image: whoever sends it is told soon, and not by an exit code.
#[test]
fn attach_ends_with_the_container() {
    let Some(cluster) = cluster() else { return };
    cluster.shell_pod("refuses", "head -c 1000000 | wc -c; exit 4");
    let attached = finish(attach(cluster, "refuses"), &vec![7; BYTES]);
    assert!(attached.status.success(), "{attached:?}");
    assert_eq!(cluster.end("refuses")["exitCode"], 4);
    cluster.shell_pod("silent", "sleep 3; exit 4");
    let mut child = attach(cluster, "silent");
    let stdin = child.stdin.take();
    let begun = Instant::now();
    child.wait().expect("kubectl");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(stdin);
    cluster.delete(&["refuses", "silent"]);
}

/// A line of more than 16 KiB is kept in pieces, and what goes to the other stream at that moment may stand between them:
/// here it comes later.
#[test]
fn a_log_that_is_followed_is_whole_and_ends_with_the_container() {
    let Some(cluster) = cluster() else { return };
    cluster.shell_pod(
        "talks",
        "for i in 1 2 3; do echo $i; sleep 1; done; head -c 100000 /dev/zero | tr '\\0' x; echo; sleep 1; echo end >&2",
    );
    let followed = cluster.ask(&["logs", "talks", "--follow"]);
    let lines: Vec<&[u8]> = followed.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [1, 1, 1, 100_000, 3, 0]);
    assert_eq!(log(cluster, "talks").as_bytes(), followed);
    cluster.delete(&["talks"]);
}

/// The exit code of a program that is stopped is told before its pod is gone.
#[test]
fn a_pod_that_is_deleted_gets_sigterm_and_its_exit_code_is_seen_by_the_watch() {
    let Some(cluster) = cluster() else { return };
    cluster.shell_pod("stopped", "trap 'echo stopping; exit 130' TERM; while true; do sleep 1; done");
    let watch = ["get", "pod", "stopped", "--output", "json", "--watch", "--output-watch-events"];
    let mut watch = cluster.kubectl(&watch).spawn().expect("kubectl");
    cluster.delete(&["stopped"]);
    let mut states = Vec::new();
    let stdout = watch.stdout.take().expect("a pipe");
    for event in serde_json::Deserializer::from_reader(stdout).into_iter::<Value>() {
        let event = event.expect("JSON");
        states.push(state(&event["object"])["terminated"]["exitCode"].clone());
        if event["type"] == "DELETED" {
            break;
        }
    }
    assert_eq!(states.last(), Some(&Value::from(130)), "{states:?}");
    // It does not end by itself.
    assert!(watch.try_wait().expect("a process").is_none());
    watch.kill().expect("a process");
    watch.wait().expect("a process");
}

/// What a pod that does not begin says about itself, or does not.
#[test]
fn why_a_pod_does_not_begin() {
    let Some(cluster) = cluster() else { return };
    let mut pod = shell_pod("no-image", "true");
    pod["spec"]["containers"][0]["image"] = "localhost/none:1".into();
    cluster.create(&pod);
    let waits = |pod: &Value, reason: &str| state(pod)["waiting"]["reason"] == reason;
    cluster.wait("no-image", "refused", |pod| waits(pod, "ErrImageNeverPull"));

    // A volume that cannot be mounted is told by an event alone.
    let mut pod = shell_pod("no-folder", "true");
    pod["spec"]["volumes"][0]["hostPath"]["path"] = "/sys/firmware/no-such-folder".into();
    cluster.create(&pod);
    let events =
        ["get", "events", "--field-selector", "involvedObject.name=no-folder,type=Warning", "--output", "json"];
    let begun = Instant::now();
    let message = loop {
        let events: Value = serde_json::from_slice(&cluster.ask(&events)).expect("JSON");
        if let Some(event) = events["items"].as_array().and_then(|all| all.first()) {
            break event["message"].to_string();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no event");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(
        message.contains("hostPath type check failed: /sys/firmware/no-such-folder is not a directory"),
        "{message}"
    );
    assert!(waits(&cluster.pod("no-folder").expect("a pod"), "ContainerCreating"));

    // Nobody says anything of a node that does not exist.
    let mut pod = shell_pod("no-node", "true");
    pod["spec"]["nodeName"] = "node-z".into();
    cluster.create(&pod);
    assert_eq!(
        cluster.pod("no-node").expect("a pod")["status"],
        serde_json::json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    cluster.ask(&["delete", "pod", "no-node", "--grace-period=0", "--force"]);
    cluster.delete(&["no-image", "no-folder"]);
}

/// The rights of somebody who may use pods in one namespace and look at nothing else.
#[test]
fn a_user_who_may_not_look_at_nodes_is_told_so() {
    let Some(cluster) = cluster() else { return };
    let mut command: Command = cluster.kubectl(&["get", "node", "node-a", "--ignore-not-found"]);
    let said = command.env("KUBECONFIG", cluster.kubeconfig(crate::cluster::User::Desk)).output().expect("kubectl");
    assert!(String::from_utf8_lossy(&said.stderr).contains("(Forbidden)"), "{said:?}");
}
