//! A Kubernetes of one node: `up.sh` keeps it up as long as this program runs.

use crate::support;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The node's name.
pub(crate) const NODE: &str = "node-a";
/// Where the program puts its pods.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The program, as an image that is on the node.
pub(crate) const PROGRAM: &str = "localhost/bootsurgeon:test";
/// An image with a shell and the usual tools, on the node too.
pub(crate) const SHELL: &str = "localhost/shell:test";

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who calls the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// May do everything.
    Admin,
    /// Has the rights that `pod run` needs in [`NAMESPACE`], and no others: it may not look at nodes.
    Desk,
}

pub(crate) struct Cluster {
    run: PathBuf,
    /// `up.sh`. It ends when its standard input is closed: with this program.
    _up: Child,
}

/// The cluster; `None`, and a line that says so, where nobody asked for it.
pub(crate) fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let Some(folder) = std::env::var_os("BOOTSURGEON_CLUSTER") else {
        bootsurgeon::testkit::skipped::not_asked("pods in a real Kubernetes. For it, as root: .ci/lane cluster");
        return None;
    };
    Some(CLUSTER.get_or_init(|| Cluster::start(Path::new(&folder))))
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        let folder = std::fs::canonicalize(folder).unwrap_or_else(|e| panic!("BOOTSURGEON_CLUSTER={folder:?}: {e}"));
        let images = folder.join("images");
        make_image(PROGRAM, &images.join("bootsurgeon.tar"), &program_and_libraries());
        let names = ["sh", "cat", "head", "sha256sum", "sleep", "wc", "tar", "tr", "dd", "chmod"];
        let tools: Vec<_> = names.iter().map(|name| (folder.join("bin/busybox"), format!("/bin/{name}"))).collect();
        make_image(SHELL, &images.join("shell.tar"), &tools);

        let mut up = Command::new(script("up.sh"));
        let mut up = up.arg(&folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("up.sh");
        let mut said = String::new();
        BufReader::new(up.stdout.take().expect("a pipe")).read_line(&mut said).expect("up.sh says something");
        assert_eq!(said.trim(), "ready", "the cluster did not come up");
        Self { run: folder.join("run"), _up: up }
    }

    /// The `kubectl` that finds it.
    pub(crate) fn kubectl_path(&self) -> PathBuf {
        self.run.join("kubectl")
    }

    /// `kubectl` for it, as administrator.
    pub(crate) fn kubectl<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(self.kubectl_path());
        command.env("KUBECONFIG", self.kubeconfig(User::Admin)).args(["--namespace", NAMESPACE]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a call of `kubectl` printed; it has to go well.
    pub(crate) fn ask<A: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[A]) -> Vec<u8> {
        let Output { status, stdout, stderr } = self.kubectl(args).output().expect("kubectl");
        assert!(status.success(), "kubectl {args:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        stdout
    }

    /// A pod as the API server has it; `None` when it is not there.
    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        let answer = self.ask(&["get", "pod", name, "--ignore-not-found", "--output", "json"]);
        if answer.trim_ascii().is_empty() { None } else { Some(serde_json::from_slice(&answer).expect("JSON")) }
    }

    /// Every pod by name.
    pub(crate) fn pods(&self) -> Vec<String> {
        let all = self.ask(&["get", "pods", "--output", "name"]);
        String::from_utf8(all).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    /// Creates a pod with the shell as its image, ready to be attached to, and waits until it runs.
    pub(crate) fn shell_pod(&self, name: &str, script: &str) {
        self.create(&shell_pod(name, script));
        self.wait(name, "running", |pod| !state(pod)["running"].is_null());
    }

    /// Creates what a manifest describes.
    pub(crate) fn create(&self, manifest: &Value) {
        let text = self.run.join("manifest.json");
        std::fs::write(&text, manifest.to_string()).expect("a file");
        self.ask(&[OsStr::new("create"), OsStr::new("--filename"), text.as_os_str()]);
    }

    /// Waits until a pod is as wanted.
    pub(crate) fn wait(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let pod = self.pod(name).unwrap_or_else(|| panic!("pod {name} is gone"));
            if is(&pod) {
                return pod;
            }
            assert!(begun.elapsed() < PATIENCE, "pod {name} is not {what}: {:#}", pod["status"]);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a pod has ended, and says how its program ended.
    pub(crate) fn end(&self, name: &str) -> Value {
        state(&self.wait(name, "ended", |pod| !state(pod)["terminated"].is_null()))["terminated"].clone()
    }

    /// Deletes pods and does not wait.
    pub(crate) fn delete(&self, names: &[&str]) {
        self.ask(&[&["delete", "pod", "--wait=false", "--ignore-not-found"], names].concat());
    }

    pub(crate) fn kubeconfig(&self, user: User) -> PathBuf {
        self.run.join(if user == User::Admin { "admin" } else { "desk" })
    }

    /// The program at the desk, with this cluster for its own.
    pub(crate) fn desk(&self, user: User, args: &[&str]) -> Command {
        let mut command = crate::cli::command(args);
        command.env("KUBECTL", self.kubectl_path()).env("KUBECONFIG", self.kubeconfig(user));
        command
    }
}

/// State of a pod's only container.
pub(crate) fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

/// A pod as the program makes it: privileged, on the node's network, with the node's devices, waiting for its input.
pub(crate) fn shell_pod(name: &str, script: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": NODE,
            "hostNetwork": true,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 120,
            "priorityClassName": "system-node-critical",
            "containers": [{
                "name": "shell",
                "image": SHELL,
                "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", script],
                "stdin": true,
                "stdinOnce": true,
                "securityContext": {"privileged": true},
                "volumeMounts": [{"name": "dev", "mountPath": "/dev"}],
            }],
            "volumes": [{"name": "dev", "hostPath": {"path": "/dev", "type": "Directory"}}],
        },
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(name)
}

fn make_image(name: &str, archive: &Path, files: &[(PathBuf, String)]) {
    let mut command = Command::new(script("image.sh"));
    command.arg(name).arg(archive);
    for (source, path) in files {
        command.arg(format!("{}={path}", source.display()));
    }
    assert!(command.status().expect("image.sh").success(), "{name}");
}

/// The program under test, and what it is linked with if it is no release.
fn program_and_libraries() -> Vec<(PathBuf, String)> {
    let program = PathBuf::from(support::program().get_program());
    let linked = support::run("ldd", &[&program]);
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
    let libraries = libraries.map(|path| (PathBuf::from(path), path.to_owned()));
    std::iter::once((program.clone(), "/bootsurgeon".to_owned())).chain(libraries).collect()
}
