//! `pod manifest` and `pod job`: what is printed is what Kubernetes takes, what the container runs is what was meant,
//! and a pod of a job works on its own node only.
//!
//! The judge of the manifests is kubernetes-validate (PyPI), which brings the JSON schemas of each Kubernetes version,
//! made from its published OpenAPI document; strict means that a field the schema does not know is an error.

use crate::cli::{Ran, TAILSCALE};
use crate::support::Lab;
use serde_json::Value;
use std::ffi::OsString;

/// From the oldest version that the job's arrangement works on to the newest; 1.35 is that of Talos 1.12.
const VERSIONS: [&str; 4] = ["1.31", "1.33", "1.35", "1.37"];

fn pod(words: &[&str]) -> Ran {
    let all: Vec<OsString> = std::iter::once("pod").chain(words.iter().copied()).map(OsString::from).collect();
    crate::cli::run(&all)
}

const MANIFEST: [&str; 5] = ["manifest", "--node", "talos-192-168-1-203", "--disk", "/dev/nvme0n1"];
const SWAP: [&str; 6] = ["--schematic", TAILSCALE, "--talos", "v1.12.4", "--arch", "arm64"];

/// `pod manifest` for the usual node and disk with more words.
fn manifest(more: &[&str]) -> Ran {
    pod(&[&MANIFEST, more].concat())
}

/// The arguments of the only container of a pod, or of the pods of a job.
fn args(object: &Value) -> Vec<String> {
    let spec = if object["kind"] == "Job" { &object["spec"]["template"]["spec"] } else { &object["spec"] };
    let [container] = spec["containers"].as_array().expect("containers").as_slice() else { panic!("{spec}") };
    let args = container["args"].as_array().expect("arguments");
    args.iter().map(|a| a.as_str().expect("text").to_owned()).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Whether the schema of this Kubernetes version takes every object in the text, and what the validator says.
fn valid(lab: &Lab, text: &str, version: &str) -> (bool, String) {
    let file = lab.path("manifest.yaml");
    std::fs::write(&file, text).expect("a file");
    let output =
        crate::support::run("kubernetes-validate", &["--strict", "-k", version, file.to_str().expect("a path")]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // An object without a schema would only be a warning.
    (output.status.success() && !said.contains("WARN"), said)
}

#[test]
fn manifests_are_valid() {
    if !crate::support::tool("kubernetes-validate") {
        return;
    }
    let lab = Lab::new();
    let one = |more: &[&str]| manifest(more).code(0).out;
    let job = |more: &[&str]| {
        let nodes = "talos-192-168-1-85,talos-192-168-1-203,no,0x1f,1e3,null,12,node.example.com";
        pod(&[&["job", "--nodes", nodes, "--disk", "/dev/nvme0n1"], more].concat()).code(0).out
    };
    let everything = [
        "--image",
        "registry.example/bootsurgeon@sha256:00",
        "--namespace",
        "surgery",
        "--name",
        "mine",
        "--pull-secret",
        "pull",
        "--auth-secret",
        "factory",
        "--pod-network",
        "--env",
        "HTTPS_PROXY=http://proxy:3128",
        "--env",
        "NO_PROXY=yes",
        "--files",
        "trust",
        "--cert",
        "/etc/bootsurgeon/db.crt",
    ];
    let texts = [
        one(&SWAP),
        one(&[&SWAP[..], &everything].concat()),
        one(&["https://example.com/a%20b?c=d&e#f", "--target", "{a: b}", "--uki=- x"]),
        one(&["--command", "status", "--efivars", "none"]),
        one(&["--command", "restore", "--", "yes"]),
        pod(&["manifest", "--node", "no", "--disk", "/host/dev/sda", "--command", "doctor"]).code(0).out,
        job(&SWAP),
        job(&[&SWAP[..], &everything, &["--anchor-image", "registry.example/pause@sha256:00"]].concat()),
        job(&["--command", "status"]),
    ];
    let all = texts.join("---\n");
    let objects = all.split("---\n").count();
    for version in VERSIONS {
        let (valid, said) = valid(&lab, &all, version);
        assert!(valid, "{version}: {said}\n{all}");
        assert_eq!(said.matches("passed").count(), objects, "{said}");
    }
}

#[test]
fn the_validator_finds_mistakes() {
    if !crate::support::tool("kubernetes-validate") {
        return;
    }
    let lab = Lab::new();
    let text = pod(&[&["job", "--nodes", "a,b", "--disk", "/dev/nvme0n1"][..], &SWAP].concat()).code(0).out;
    for (right, wrong) in [
        ("matchLabelKeys", "matchLabelKey"),
        ("backoffLimit: 0", "backoffLimit: none"),
        ("privileged: true", "privilegd: true"),
        ("nodeName: a", "nodeName: 1"),
        ("job-completion-index: \"0\"", "job-completion-index: 0"),
    ] {
        assert!(text.contains(right), "{right}");
        let (valid, said) = valid(&lab, &text.replace(right, wrong), "1.35");
        assert!(!valid, "{wrong}: {said}");
    }
}

#[test]
fn json_is_one_document() {
    let one = manifest(&[&SWAP[..], &["--json"]].concat()).code(0);
    assert_eq!(one.json()["kind"], "Pod");
    assert_eq!(args(&one.json()), words(&format!("swap /dev/nvme0n1 {} --yes --json --quiet", SWAP.join(" "))));

    let many = pod(&[&["job", "--nodes", "b,a", "--disk", "/dev/sda", "--json"][..], &SWAP].concat()).code(0).json();
    assert_eq!(many["kind"], "List");
    let kinds: Vec<_> = many["items"].as_array().expect("items").iter().map(|o| o["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("Pod"), Some("Pod"), Some("Job")]);
    assert_eq!(many["items"][0]["spec"]["nodeName"], "b");
    assert_eq!(many["items"][2]["spec"]["completions"], 2);
}

/// What Pod Security `restricted` wants of every container (Kubernetes, "Pod Security Standards").
#[test]
fn issue18_5_anchors_pass_pod_security_restricted() {
    let more = ["--anchor-image", "registry.example/pause:3.9", "--json"];
    let many = pod(&[&["job", "--nodes", "b,a", "--disk", "/dev/sda"][..], &SWAP, &more].concat()).code(0).json();
    for anchor in &many["items"].as_array().expect("items")[..2] {
        let [container] = anchor["spec"]["containers"].as_array().expect("containers").as_slice() else { panic!() };
        assert_eq!(container["image"], "registry.example/pause:3.9");
        let wanted = serde_json::json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": 65534,
            "runAsNonRoot": true,
            "runAsUser": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        assert_eq!(container["securityContext"], wanted);
    }
}

#[test]
fn the_container_runs_what_was_meant() {
    let swap = SWAP.join(" ");
    for (more, wanted) in [
        (swap.clone(), format!("swap /dev/nvme0n1 {swap} --yes --json --quiet")),
        // Whatever the order; in the order of the definition.
        (
            "--arch arm64 --dry-run --talos v1.12.4 --schematic ".to_owned() + TAILSCALE,
            format!(
                "swap /dev/nvme0n1 \
                                                                                                {swap} --dry-run \
                                                                                                --json --quiet"
            ),
        ),
        (
            "https://example.com/uki.efi -y".into(),
            "swap /dev/nvme0n1 https://example.com/uki.efi --yes --json \
                                                   --quiet"
                .into(),
        ),
        (
            "https://example.com/uki.efi --require-extension a --require-extension b --keep-backups 2 --via iso".into(),
            "swap /dev/nvme0n1 https://example.com/uki.efi --require-extension a --require-extension b --keep-backups \
             2 \
             --via iso --yes --json --quiet"
                .into(),
        ),
        (
            "https://example.com/uki.efi --target=-x".into(),
            "swap /dev/nvme0n1 https://example.com/uki.efi --target=-x \
                                                            --yes --json --quiet"
                .into(),
        ),
        // An image of the ESP itself, which the pod finds where the node has it.
        (
            "/dev/nvme0n1p1 --uki x~1.efi".into(),
            "swap /dev/nvme0n1 /dev/nvme0n1p1 --uki x~1.efi --yes --json --quiet".into(),
        ),
        (
            "-- /dev/nvme0n1p1 --uki x~1.efi".into(),
            "swap /dev/nvme0n1 /dev/nvme0n1p1 --uki x~1.efi --yes --json --quiet".into(),
        ),
        ("--command status".into(), "status /dev/nvme0n1 --json --quiet".into()),
        (
            "--command status --partition 2 --efivars none".into(),
            "status /dev/nvme0n1 --partition 2 --efivars none \
                                                                  --json --quiet"
                .into(),
        ),
        ("--command doctor".into(), "doctor /dev/nvme0n1 --json --quiet".into()),
        ("--command recover".into(), "recover /dev/nvme0n1 --yes --json --quiet".into()),
        ("--command recover --dry-run".into(), "recover /dev/nvme0n1 --dry-run --json --quiet".into()),
        ("--command restore".into(), "restore /dev/nvme0n1 --yes --json --quiet".into()),
        ("--command restore -- --list".into(), "restore /dev/nvme0n1 --list --json --quiet".into()),
        (
            "--command restore -- Talos.efi.bak.1 --yes -v".into(),
            "restore /dev/nvme0n1 Talos.efi.bak.1 --yes -v \
                                                                  --json"
                .into(),
        ),
        ("--command prune -- --delete --json -q".into(), "prune /dev/nvme0n1 --delete --json -q --yes".into()),
    ] {
        let more: Vec<&str> = more.split(' ').collect();
        let first = MANIFEST.iter().copied().chain(["--json"]).chain(more.iter().copied()).collect::<Vec<_>>();
        assert_eq!(args(&pod(&first).code(0).json()), words(&wanted), "{more:?}");
    }
}

#[test]
fn devices_and_variables_are_where_the_command_looks() {
    let mounts = |ran: Ran| -> Vec<String> {
        let pod = ran.code(0).json();
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().expect("mounts").clone();
        mounts.iter().map(|m| m["mountPath"].as_str().expect("a path").to_owned()).collect()
    };
    assert_eq!(mounts(manifest(&["--command", "status", "--json"])), ["/dev", "/tmp", "/sys/firmware/efi/efivars"]);
    assert_eq!(mounts(manifest(&["--command", "status", "--json", "--efivars", "none"])), ["/dev", "/tmp"]);
    assert_eq!(mounts(manifest(&["--command", "recover", "--json"])), ["/dev", "/tmp"]);
    let elsewhere = pod(&["manifest", "--json", "--node", "n", "--disk", "/host/dev/sda", "--command", "recover"]);
    assert_eq!(mounts(elsewhere), ["/host/dev", "/tmp"]);
}

#[test]
fn mistakes_are_refused_before_anything_is_printed() {
    let swap = SWAP.join(" ");
    let url = "https://example.com/uki.efi";
    for (line, says) in [
        (format!("manifest --disk /dev/sda {swap}"), "--node"),
        (format!("manifest --node n {swap}"), "--disk"),
        (format!("manifest --node N --disk /dev/sda {swap}"), "\"N\" is not a node name"),
        (format!("manifest --node {} --disk /dev/sda {swap}", "a".repeat(254)), "is not a node name"),
        (format!("manifest --node n --disk sda {swap}"), "\"sda\" is not a device"),
        (format!("manifest --node n --disk /dev/../etc/shadow {swap}"), "is not a device"),
        (format!("manifest --node n --disk /dev/sda --namespace a.b {swap}"), "cannot be the name of a namespace"),
        (format!("manifest --node n --disk /dev/sda --image a;b {swap}"), "not a container image reference"),
        ("manifest --node n --disk /dev/sda".into(), "which image?"),
        (format!("manifest --node n --disk /dev/sda --schematic {TAILSCALE}"), "--talos is needed"),
        (format!("manifest --node n --disk /dev/sda --schematic {TAILSCALE} --talos latest"), "is not a Talos version"),
        (format!("manifest --node n --disk /dev/sda --talo v1.12.4 {url}"), "--talo"),
        (format!("manifest --node n --disk /dev/sda --arch riscv {url}"), "riscv"),
        (format!("manifest --node n --disk /dev/sda --keep-backups many {url}"), "many"),
        ("manifest --node n --disk /dev/sda ./uki.efi".into(), "the pod has no such file"),
        ("manifest --node n --disk /dev/sda /host/dev/sda".into(), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} --cert db.crt"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} --cert db.crt --files trust"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} --cert /etc/bootsurgeon/db.crt"), "--files NAME --cert"),
        (format!("manifest --node n --disk /dev/sda {url} --ca ca.pem"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} --auth-file token"), "--auth-secret"),
        (format!("manifest --node n --disk /dev/sda {url} --backup-to x"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} --cache x"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} --efivars /x"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} -- --schematic x.yaml"), "the pod has no such file"),
        (format!("manifest --node n --disk /dev/sda {url} -- --whatever"), "--whatever"),
        (format!("manifest --node n --disk /dev/sda {url} -- one-more"), "one-more"),
        ("manifest --node n --disk /dev/sda https://me:secret@example.com/uki.efi".into(), "credentials"),
        (format!("manifest --node n --disk /dev/sda {url} --factory https://me:secret@example.com"), "credentials"),
        (format!("manifest --node n --disk /dev/sda {url} --env BOOTSURGEON_FACTORY_TOKEN=x"), "credentials"),
        (format!("manifest --node n --disk /dev/sda {url} --env X"), "NAME=VALUE"),
        (format!("manifest --node n --disk /dev/sda {url} --env BOOTSURGEON_POD_OPTIONS=x"), "set by the manifest"),
        (format!("manifest --node n --disk /dev/sda {url} --env BOOTSURGEON_NODE_ADDRESS=x"), "set by the manifest"),
        (format!("manifest --node n --disk /dev/sda --command status {url}"), "IMAGE is for swap"),
        (format!("manifest --node n --disk /dev/sda --command status --schematic {TAILSCALE}"), "--schematic"),
        ("manifest --node n --disk /dev/sda --command status -- --delete".into(), "--delete"),
        ("manifest --node n --disk /dev/sda --command prune -- -- x".into(), "--"),
        ("manifest --node n --disk /dev/sda --command doctor -- --root /host".into(), "the pod has no such file"),
        ("manifest --node n --disk /dev/sda --command demo".into(), "demo"),
        (format!("job --disk /dev/sda {swap}"), "--nodes"),
        (format!("job --nodes a,b,a --disk /dev/sda {swap}"), "named twice"),
        (format!("job --nodes a,,b --disk /dev/sda {swap}"), "is not a node name"),
        (format!("job --nodes a,B --disk /dev/sda {swap}"), "is not a node name"),
        (format!("job --nodes a --name {} --disk /dev/sda {swap}", "x".repeat(60)), "too long"),
        (format!("job --nodes a --anchor-image a;b --disk /dev/sda {swap}"), "not a container image reference"),
        (format!("manifest --node n --anchor-image a --disk /dev/sda {swap}"), "--anchor-image"),
    ] {
        let ran = pod(&line.split(' ').collect::<Vec<_>>()).fails(2, &[says]);
        assert_eq!(ran.out, "", "{line}");
    }
    let control = manifest(&["https://example.com/\u{1b}[2J"]).fails(2, &["control characters"]);
    assert_eq!(control.out, "");
    assert!(!control.err.contains('\u{1b}'));
}

#[test]
fn a_schematic_file_becomes_its_id() {
    let lab = Lab::new();
    let file = lab.path("schematic.yaml");
    std::fs::write(&file, "customization:\n  systemExtensions:\n    officialExtensions: [siderolabs/tailscale]\n")
        .expect("a file");
    let file = file.to_str().expect("a path");
    let id =
        crate::cli::run(&["schematic", "id", file, "--json"]).code(0).json()["id"].as_str().expect("an ID").to_owned();
    let ran = manifest(&["--schematic", file, "--talos", "v1.12.4", "--json"])
        .code(0)
        .says(&[&format!("bootsurgeon schematic create {file}")]);
    assert_eq!(
        args(&ran.json()),
        words(&format!("swap /dev/nvme0n1 --schematic {id} --talos v1.12.4 --yes --json --quiet"))
    );
}

#[test]
fn variables_of_this_place_reach_the_pod_where_they_mean_something_there() {
    let all: Vec<&str> = [&["pod"][..], &MANIFEST, &SWAP, &["--json"]].concat();
    let mut command = crate::cli::command(&all);
    command
        .env("BOOTSURGEON_FACTORY", "https://factory.example")
        .env("BOOTSURGEON_CA", "/nowhere/ca.pem")
        .env("BOOTSURGEON_CACHE", "/nowhere")
        .env("BOOTSURGEON_FACTORY_TOKEN", "s3cret");
    let ran = crate::cli::finish(command).code(0);
    let line = format!("swap /dev/nvme0n1 {} --factory https://factory.example --yes --json --quiet", SWAP.join(" "));
    assert_eq!(args(&ran.json()), words(&line));
    assert!(!ran.out.contains("s3cret") && !ran.out.contains("nowhere"));
}

#[test]
fn what_to_know_is_said_beside_the_manifest() {
    manifest(&SWAP).code(0).says(&[
        "nothing is pulled",
        "kubectl create -f",
        "kubectl -n kube-system logs",
        "delete pod -l",
    ]);
    pod(&[
        &["job", "--nodes", "a,b", "--disk", "/dev/sda", "--namespace", "surgery", "--image", "r.example/b:1"][..],
        &SWAP,
    ]
    .concat())
    .code(0)
    .says(&[
        "pod-security.kubernetes.io/enforce=privileged",
        "kubectl -n surgery delete job,pod -l",
        "before a node is drained",
    ]);
    let quiet = manifest(&[&SWAP[..], &["--image", "r.example/b:1", "-q"]].concat()).code(0);
    assert_eq!(quiet.err, "");
}

#[test]
fn a_pod_of_a_job_works_on_its_own_node_only() {
    let lab = Lab::new();
    let disk = lab.fixture("disk-512.img.zst");
    let disk = disk.to_str().expect("a path");
    let image = crate::cli::uki(&lab, "v1.12.4-arm64-plain");
    let before = crate::support::sha256(disk.as_ref());
    let on = |node: &str, index: &str, args: &[&str]| {
        let mut command = crate::cli::command(args);
        command
            .env("BOOTSURGEON_NODE", node)
            .env("BOOTSURGEON_ROLLOUT_NODES", "a,b")
            .env("JOB_COMPLETION_INDEX", index);
        crate::cli::finish(command)
    };
    let swap = ["swap", disk, image.to_str().expect("a path"), "--yes", "--allow-untrusted", "--json"];
    for args in [
        &swap[..],
        &["prune", disk, "--yes"],
        &["restore", disk, "--yes"],
        &["recover", disk, "--yes"],
        &["status", disk],
    ] {
        on("a", "1", args).fails(4, &["meant for node b, and it runs on a", "the ESP was not changed"]);
        on("b", "2", args).fails(4, &["JOB_COMPLETION_INDEX is \"2\""]);
    }
    assert_eq!(crate::support::sha256(disk.as_ref()), before);
    on("b", "1", &["status", disk]).code(0);
}
