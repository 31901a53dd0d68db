//! `pod run` against a real cluster, held against the same command without one.

use crate::cli::{self, ESP, Ran};
use crate::cluster::{Cluster, NODE, PROGRAM, SHELL, User, cluster};
use crate::loops::{self, Loop};
use crate::peers::Field;
use crate::support::{self, Lab};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What any command may take.
const MOST_KIB: u64 = 64 << 10;

/// A node with a disk, and a machine without Kubernetes with the same one.
struct Pair {
    cluster: &'static Cluster,
    lab: Lab,
    node: Loop,
    local: Loop,
    _turn: MutexGuard<'static, ()>,
}

impl Pair {
    fn new() -> Option<Self> {
        let cluster = cluster()?;
        let turn = loops::turn()?;
        let lab = Lab::new();
        let node = Loop::attach(&lab.fixture_as("disk-512.img.zst", "node.img"), &[]);
        let local = Loop::attach(&lab.fixture_as("disk-512.img.zst", "local.img"), &[]);
        Some(Self { cluster, lab, node, local, _turn: turn })
    }

    fn disk(&self) -> &str {
        self.node.node().to_str().expect("a path")
    }

    /// `pod run` with these words, as somebody who may only use pods.
    fn command(&self, words: &[&str]) -> Command {
        self.cluster.desk(User::Desk, &[&on_node(self.disk())[..], words].concat())
    }

    fn run(&self, words: &[&str]) -> Ran {
        cli::finish(self.command(words))
    }

    /// The same command without a cluster, on the other disk. The image comes through a pipe, as it does in the pod.
    fn locally(&self, words: &[&str], stdin: Option<&Path>) -> Ran {
        let disk = self.local.node().to_str().expect("a path");
        let mut command = cli::command(&[&[words[0], disk], &words[1..], &["--efivars", "none"]].concat());
        if let Some(path) = stdin {
            command.stdin(File::open(path).expect("an image"));
        }
        cli::finish(command)
    }

    fn uki(&self, name: &str) -> PathBuf {
        cli::uki(&self.lab, name)
    }

    /// Both volumes hold the same files, and no pod is left.
    fn assert_alike(&self, what: &str) -> BTreeMap<String, Vec<u8>> {
        let [there, here] = [&self.node, &self.local].map(|disk| timeless(cli::files(disk.node(), ESP)));
        assert!(there == here, "{what}: {:?} {:?}", there.keys(), here.keys());
        self.no_pods(what);
        there
    }

    fn no_pods(&self, what: &str) {
        let begun = Instant::now();
        while self.cluster.pods().iter().any(|pod| pod.contains("bootsurgeon")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", self.cluster.pods());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// A `kubectl` that breaks `attach`: so many bytes are handed over, and after `seconds` it is killed.
    fn broken_kubectl(&self, bytes: u64, seconds: u32) -> PathBuf {
        let real = self.cluster.kubectl_path();
        self.script(&format!(
            "case \" $* \" in\n*' attach '*) ;;\n*) exec {real} \"$@\" ;;\nesac\n\
             exec 3<&0\n{{ head -c {bytes} <&3; sleep 60; }} | {real} \"$@\" &\n\
             sleep {seconds}\nkill -KILL $!\nexit 1\n",
            real = real.display()
        ))
    }

    fn script(&self, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.lab.path("kubectl");
        fs::write(&path, format!("#!/bin/bash\n{text}")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
        path
    }
}

/// How every call begins. The test machine has no EFI variables.
fn on_node(disk: &str) -> [&str; 10] {
    ["pod", "run", "--node", NODE, "--disk", disk, "--image-ref", PROGRAM, "--efivars", "none"]
}

/// Names that end in a time end in `T`.
fn timeless(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().map(|(name, content)| (without_times(&name), content)).collect()
}

/// Ten digits behind a dot are seconds since 1970.
fn without_times(text: &str) -> String {
    let mut parts = text.split('.');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        out += if digits == 10 { ".T" } else { "." };
        out += if digits == 10 { &part[10..] } else { part };
    }
    out
}

/// A report without what has to be different: the disk's name, times, and what to do next, which names the node.
fn comparable(report: &Ran, disk: &Loop) -> Value {
    let mut report = report.json();
    report.as_object_mut().expect("a document").remove("next");
    let text = without_times(&report.to_string()).replace(disk.node().to_str().expect("a path"), "DISK");
    cli::without_commands(serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn a_status_a_swap_and_a_restore_are_those_of_the_local_command() {
    let Some(pair) = Pair::new() else { return };
    let uki = pair.uki("v1.12.4-arm64-uki");
    let (name, bytes) = (uki.to_str().expect("a path"), uki.metadata().expect("an image").len().to_string());
    let sha256 = support::sha256(&uki);
    let same = |there: &Ran, here: &Ran| {
        assert_eq!(comparable(there, &pair.node), comparable(here, &pair.local), "{}{}", there.err, here.err);
    };

    same(&pair.run(&["--json", "status"]).code(0), &pair.locally(&["status", "--json"], None).code(0));
    let before = pair.assert_alike("status");

    let there = pair.run(&["--json", "--yes", "--dry-run", "swap", name]).code(0);
    let arriving = ["swap", "-", "--bytes", &bytes, "--sha256", &sha256, "--json", "--yes"];
    same(&there, &pair.locally(&[&arriving[..], &["--dry-run"]].concat(), Some(&uki)).code(0));
    assert!(pair.assert_alike("a rehearsal") == before);

    let there = pair.run(&["--json", "--yes", "swap", name]).code(0);
    assert_eq!(there.json()["sha256"], sha256.as_str());
    same(&there, &pair.locally(&arriving, Some(&uki)).code(0));
    assert!(pair.assert_alike("a swap") != before);

    same(
        &pair.run(&["--json", "restore", "--", "--yes"]).code(0),
        &pair.locally(&["restore", "--json", "--yes"], None).code(0),
    );
    let after = pair.assert_alike("a restore");
    assert!(after[cli::TARGET] == before[cli::TARGET]);
}

#[test]
fn an_image_that_is_refused_is_refused_with_the_same_words_and_code() {
    let Some(pair) = Pair::new() else { return };
    let before = pair.assert_alike("before");
    for name in ["v1.12.4-arm64-other-signer", "v1.12.4-arm64-unsigned", "v1.12.4-amd64-uki"] {
        let uki = pair.uki(name);
        let bytes = uki.metadata().expect("an image").len().to_string();
        let here = pair.locally(&["swap", "-", "--bytes", &bytes, "--yes"], Some(&uki));
        let there = pair.run(&["--yes", "swap", uki.to_str().expect("a path")]).code(here.code);
        assert!(there.code != 0, "{there:?}");
        let first = here.err.lines().find(|line| line.starts_with("error: ")).expect("an error");
        assert!(there.err.contains(first), "{name}: {}\n{}", there.err, here.err);
        assert!(pair.assert_alike(name) == before, "{name}");
    }
}

#[test]
fn a_connection_that_is_cut_changes_nothing() {
    let Some(pair) = Pair::new() else { return };
    let before = pair.assert_alike("before");
    let uki = pair.uki("v1.12.4-arm64-uki");
    let bytes = uki.metadata().expect("an image").len();
    for cut in [0, bytes / 2, bytes - 1] {
        let mut command = pair.command(&["--yes", "swap", uki.to_str().expect("a path")]);
        command.env("KUBECTL", pair.broken_kubectl(cut, 4));
        let ran = cli::finish(command);
        let what = format!("cut after {cut} of {bytes}: {ran:?}");
        assert!(ran.code == 1 && ran.err.contains("have to arrive"), "{what}");
        assert!(ran.err.contains("the ESP was not changed"), "{what}");
        assert!(pair.assert_alike(&what) == before, "{what}");
    }
}

#[test]
fn ctrl_c_at_the_desk_is_ctrl_c_on_the_node() {
    let Some(pair) = Pair::new() else { return };
    let before = pair.assert_alike("before");
    let uki = pair.uki("v1.12.4-arm64-uki");
    // Half of the image has arrived, and the rest is waited for.
    let half = uki.metadata().expect("an image").len() / 2;
    let mut command = pair.command(&["--yes", "swap", uki.to_str().expect("a path")]);
    command.env("KUBECTL", pair.broken_kubectl(half, 60)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program");
    let begun = Instant::now();
    while !pair.cluster.pods().iter().any(|pod| pod.contains("bootsurgeon")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no pod");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(5));
    support::run_ok("kill", &["-INT", &child.id().to_string()]);
    let (begun, ended) = (Instant::now(), child.wait_with_output().expect("the program"));
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(pair.assert_alike("Ctrl-C") == before);
}

#[test]
fn what_keeps_a_pod_from_beginning_is_said_and_no_pod_is_left() {
    let Some(pair) = Pair::new() else { return };
    let disk = pair.disk();
    let status = |user, words: &[&str]| {
        let all = [&["pod", "run", "--disk", disk], words, &["status"]].concat();
        cli::finish(pair.cluster.desk(user, &all))
    };
    let usual = ["--node", NODE, "--image-ref", PROGRAM];
    let ran = status(User::Admin, &["--node", "node-z", "--efivars", "none"]);
    ran.fails(1, &["the cluster has no node node-z"]);
    let ran = status(User::Desk, &["--node", NODE, "--efivars", "none"]);
    ran.fails(1, &["ErrImageNeverPull", "--push-self"]);
    if !Path::new("/sys/firmware/efi/efivars").is_dir() {
        let ran = status(User::Desk, &usual);
        ran.fails(1, &["/sys/firmware/efi/efivars is not a directory", "--efivars none"]);
    }
    // A name that no server has: what the node says about it is said once, however often it says it again.
    let nowhere = ["--node", NODE, "--image-ref", "localhost/none:1", "--efivars", "none", "--wait", "40"];
    let ran = status(User::Desk, &nowhere).code(1);
    for (n, line) in ran.err.lines().enumerate() {
        assert!(!ran.err.lines().skip(n + 1).any(|other| other == line), "twice: {line}\n{}", ran.err);
    }
    pair.no_pods("pods that could not begin");
}

/// A program that needs no libraries is carried into whatever image is there.
#[test]
fn the_program_is_carried_to_the_node() {
    let Some(pair) = Pair::new() else { return };
    if !is_static() {
        support::skip("--push-self needs a release: BOOTSURGEON_TEST_PROGRAM");
        return;
    }
    let uki = pair.uki("v1.12.4-arm64-uki");
    let words = ["pod", "run", "--node", NODE, "--disk", pair.disk(), "--image-ref", SHELL, "--push-self"];
    let more = ["--efivars", "none", "--yes", "swap", uki.to_str().expect("a path")];
    // Which program is right for the node, the node says: this user must be able to look at it.
    let ran = cli::finish(pair.cluster.desk(User::Admin, &[&words[..], &more].concat())).code(0);
    assert!(ran.out.contains("Swapped") || ran.out.contains("committed"), "{ran:?}");
    let bytes = uki.metadata().expect("an image").len().to_string();
    pair.locally(&["swap", "-", "--bytes", &bytes, "--yes"], Some(&uki)).code(0);
    pair.assert_alike("a program that was carried");
}

/// The time of 120 MB through the API server, beside `kubectl cp` of the same file and a local swap; and the memory.
#[test]
fn time_and_memory_of_an_image_of_the_field() {
    let Some(cluster) = cluster() else { return };
    let Some(_turn) = loops::turn() else { return };
    let Some(field) = Field::new() else { return };
    let lab = Lab::new();
    let [node, local] = ["node", "local"].map(|name| {
        let disk = lab.path(name);
        let bytes = field.disk.metadata().expect("a disk").len();
        File::create(&disk).and_then(|file| file.set_len(bytes)).expect("a file");
        Loop::attach(&disk, &[])
    });
    let pair = Pair { cluster, lab, node, local, _turn };
    let uki = field.uki.to_str().expect("a path");
    cluster.shell_pod("copies", "while true; do sleep 1; done");
    let stamps = pair.lab.path("stamps");
    let timed = pair.script(&format!(
        "case \" $* \" in\n*' attach '*) ;;\n*) exec {real} \"$@\" ;;\nesac\n\
         date +%s%N >>{stamps}; {real} \"$@\"; code=$?; date +%s%N >>{stamps}; exit $code\n",
        real = cluster.kubectl_path().display(),
        stamps = stamps.display()
    ));
    let mut rounds = Vec::new();
    for round in 0..4 {
        let begun = Instant::now();
        cluster.ask(&["cp", uki, "copies:/new.efi"]);
        let copied = begun.elapsed();
        reset(&field, &pair.local);
        let begun = Instant::now();
        let local = cli::run(&[
            "swap",
            pair.local.node().to_str().expect("a path"),
            uki,
            "--efivars",
            "none",
            "--yes",
            "--allow-halt-if-installed",
        ]);
        let swapped = begun.elapsed();
        local.code(0);

        reset(&field, &pair.node);
        let _ = fs::remove_file(&stamps);
        let mut command = pair.command(&["--yes", "--allow-halt-if-installed", "swap", uki]);
        command.env("KUBECTL", &timed);
        let begun = Instant::now();
        let (ran, peak) = peak_memory(|| cli::finish(command));
        let whole = begun.elapsed();
        ran.code(0);
        let stamps: Vec<u64> =
            fs::read_to_string(&stamps).expect("stamps").lines().map(|line| line.parse().expect("a time")).collect();
        let streamed = Duration::from_nanos(stamps[1] - stamps[0]);
        eprintln!(
            "round {round}: kubectl cp {copied:.1?}, a local swap {swapped:.1?}; streamed and swapped {streamed:.1?}, \
             `pod run` in all {whole:.1?}; {peak} KiB"
        );
        rounds.push((streamed.as_secs_f64() / (copied + swapped).as_secs_f64(), peak));
    }
    cluster.delete(&["copies"]);
    // The first warms the caches.
    let mut ratios: Vec<f64> = rounds[1..].iter().map(|(ratio, _)| *ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let peak = rounds.iter().map(|(_, peak)| *peak).max().unwrap_or(0);
    eprintln!("streamed and swapped: {:.2} times cp and swap; at most {peak} KiB in the pod", ratios[1]);
    assert!(peak > 0, "the program was not seen in its pod");
    // A build for tests is many times as large as a release, and what of it is in memory counts.
    assert!(!is_static() || peak <= MOST_KIB, "{peak} KiB");
    // As in the benchmark, a time that is missed fails the run only where that was requested.
    assert!(std::env::var_os("BOOTSURGEON_STRICT").is_none() || ratios[1] <= 1.1, "{ratios:?}");
}

/// Whether the program needs no libraries, as in a release.
fn is_static() -> bool {
    !support::run("ldd", &[support::program().get_program()]).status.success()
}

/// The disk as it was, on the medium.
fn reset(field: &Field, disk: &Loop) {
    let (from, to) = (format!("if={}", field.disk.display()), format!("of={}", disk.node().display()));
    support::run_ok("blkdiscard", &[disk.node()]);
    support::run_ok("dd", &[&*from, &*to, "bs=1M", "conv=sparse,fsync", "status=none"]);
}

/// The most memory that the program held in a pod while this went on, in KiB.
fn peak_memory<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut process, mut peak) = (None, 0);
            while !done.load(Ordering::Relaxed) {
                process = process.or_else(in_a_pod);
                peak = peak.max(process.as_deref().and_then(high_water_mark).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(if process.is_some() { 10 } else { 200 }));
            }
            peak
        });
        let value = work();
        done.store(true, Ordering::Relaxed);
        (value, watch.join().expect("a peak"))
    })
}

/// The program's process in a pod: its folder in /proc.
fn in_a_pod() -> Option<PathBuf> {
    let mut processes = fs::read_dir("/proc").expect("/proc").filter_map(|process| Some(process.ok()?.path()));
    processes.find(|folder| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == "bootsurgeon")
            && fs::read_to_string(folder.join("cgroup")).is_ok_and(|groups| groups.contains("/kubepods/"))
    })
}

/// `VmHWM`, in KiB.
fn high_water_mark(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}
