//! Kubernetes manifests: a pod that runs this program on one node, and a job that runs it on many, one node after the
//! other.
//!
//! The objects are JSON values; nothing here is a text template. That each field exists, in its place and of its type, the
//! tests hold against the types that `k8s-openapi` generates from the published schema, and against the schemas of several
//! versions: those types would be a twentieth of the program. The module touches nothing: a request goes in, objects come
//! out. What the arguments of the program mean is the command line's business ([`crate::cli`] parses them
//! before they get here); that they arrive in the container unchanged is this module's.
//!
//! The one part that is no manifest is [`rollout`]: inside a pod of such a job it makes sure that the pod runs on the
//! node it was meant for.

mod desk;
mod job;
mod names;
mod object;
pub mod rollout;
mod spec;

pub use desk::Desk;
pub(crate) use desk::{BLOCK, DeskEvent, listening};
pub use job::job;
pub use object::Manifest;

use crate::container::{NODE_ADDRESS, OPTIONS};
use crate::{Error, Result};
use serde_json::json;
use spec::Role;

pub(crate) use spec::CONTAINER;

/// Where pods of this program belong: Talos exempts this namespace from Pod Security admission.
pub const DEFAULT_NAMESPACE: &str = "kube-system";

/// Where the container has the files of [`Setting::files`].
pub const FILES_DIR: &str = "/etc/bootsurgeon";

/// What the program is to do in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The command, for names: `swap`.
    pub command: String,
    /// The whole command line without the program's name, as the program is to see it.
    pub args: Vec<String>,
    /// Where the node's devices are to be found.
    pub devices: Devices,
    /// Whether the node's EFI variables are needed.
    pub efivars: bool,
}

impl Work {
    /// Refuses arguments with credentials in them.
    fn check(&self) -> Result<()> {
        match self.args.iter().find_map(|arg| secret_in(arg)) {
            Some(Secret::User | Secret::Password) => Err(credentials("an argument is a URL with a user or a password")),
            Some(Secret::Parameter) => Err(credentials("an argument is a URL with a signature or a token")),
            None => Ok(()),
        }
    }
}

/// Where the container finds the node's `/dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// At `/dev`.
    Dev,
    /// At `/host/dev`, as in the containers of `kubectl debug node/…` and `talosctl debug`.
    HostDev,
}

impl Devices {
    /// The place that a device path asks for.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when it is no path of a device on a node.
    pub fn of(disk: &str) -> Result<Self> {
        let path = |root: &str| disk.strip_prefix(root).is_some_and(is_plain);
        match disk {
            _ if path("/dev/") => Ok(Self::Dev),
            _ if path("/host/dev/") => Ok(Self::HostDev),
            _ => Err(Error::usage(format!("{disk:?} is not a device of a node"))
                .advise("name it as the node does, for example /dev/nvme0n1; `talosctl -n NODE get disks` lists them")),
        }
    }

    fn mount_path(self) -> &'static str {
        match self {
            Self::Dev => "/dev",
            Self::HostDev => "/host/dev",
        }
    }
}

/// Whether a relative path goes down only, by names that can be printed.
fn is_plain(path: &str) -> bool {
    path.len() <= 1024
        && path.split('/').all(|name| !matches!(name, "" | "." | ".."))
        && !path.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// The pod's surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setting {
    /// The namespace; [`DEFAULT_NAMESPACE`] if none is named.
    pub namespace: Option<String>,
    /// The name of the pod or job; made from command, node and a hash of the whole request if none is given.
    pub name: Option<String>,
    /// The container image. If none is named it is `bootsurgeon:<version of this program>`, and it is never pulled:
    /// that name belongs to no registry of ours, and a stranger's image must not get into a privileged container.
    pub image: Option<String>,
    /// The image of a job's anchors; that of the sandbox of every pod if none is named.
    pub anchor_image: Option<String>,
    /// A Secret of type `kubernetes.io/dockerconfigjson`, to pull the image with.
    pub pull_secret: Option<String>,
    /// A Secret whose key `token` is the factory's token.
    pub auth_secret: Option<String>,
    /// A ConfigMap whose keys are files in [`FILES_DIR`]: certificates for `--cert` and `--ca`.
    pub files: Option<String>,
    /// The cluster's pod network and DNS instead of the node's.
    pub pod_network: bool,
    /// Environment variables for the program: proxies, for example.
    pub env: Vec<(String, String)>,
    /// Somebody at a desk listens.
    pub desk: Option<Desk>,
    /// Options of `pod run` that are not of the pod, and that it needs all the same to make such a pod again: the
    /// cluster, say. They are part of what the program in the pod says to do next.
    pub again: Vec<String>,
}

impl Setting {
    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// The reference of the container image.
    #[must_use]
    pub fn image(&self) -> String {
        self.image.clone().unwrap_or_else(|| format!("bootsurgeon:{}", env!("CARGO_PKG_VERSION")))
    }

    /// What `pod run` has to be told to make a pod like this one again.
    pub(crate) fn options(&self) -> Vec<String> {
        let namespace = Some(self.namespace()).filter(|name| *name != DEFAULT_NAMESPACE);
        let all = [
            ("--image-ref", self.image.as_deref()),
            ("--namespace", namespace),
            ("--pull-secret", self.pull_secret.as_deref()),
            ("--files", self.files.as_deref()),
        ];
        let given = all.iter().filter_map(|(name, value)| Some([(*name).to_owned(), (*value)?.to_owned()]));
        given.flatten().chain(self.again.iter().cloned()).collect()
    }

    fn check(&self) -> Result<()> {
        names::check_label("namespace", self.namespace())?;
        names::check_image(&self.image())?;
        self.anchor_image.iter().try_for_each(|image| names::check_image(image))?;
        self.pull_secret.iter().chain(&self.auth_secret).try_for_each(|s| names::check_object("Secret", s))?;
        self.files.iter().try_for_each(|s| names::check_object("ConfigMap", s))?;
        self.env.iter().try_for_each(|(name, value)| check_variable(name, value))
    }
}

/// Refuses variables that cannot be set, that the manifest sets itself, and those with credentials: a manifest ends up
/// in files, repositories and `kubectl get -o yaml`.
fn check_variable(name: &str, value: &str) -> Result<()> {
    let plain = name.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if !plain || value.contains('\0') {
        return Err(Error::usage(format!(
            "{name:?} is not a valid name of an environment variable, or its value cannot be set"
        )));
    }
    // A proxy may be named without a scheme.
    let proxy = name.to_ascii_uppercase().ends_with("_PROXY") && !value.contains("://");
    let value = if proxy { format!("http://{value}") } else { value.to_owned() };
    // A user alone is the name of an account at a proxy.
    let secret = secret_in(&value).is_some_and(|what| what != Secret::User);
    if name.starts_with("BOOTSURGEON_FACTORY_") || secret {
        return Err(credentials(name));
    }
    let own = [rollout::NODE, rollout::NODES, rollout::INDEX, NODE_ADDRESS, OPTIONS, desk::VARIABLE];
    if own.contains(&name) {
        return Err(Error::usage(format!("{name} is set by the manifest itself")));
    }
    Ok(())
}

fn credentials(what: &str) -> Error {
    Error::usage(format!("{what}: credentials do not belong in a manifest"))
        .advise("use a URL that needs none, or put the factory's token into a Secret and name it with --auth-secret")
}

/// What of a URL in this text (`URL` or `--option=URL`) is a secret: user information, or a parameter that signs a
/// request or stands for a password. Object storages and factories call those by many names; the words they are made of
/// are few.
fn secret_in(text: &str) -> Option<Secret> {
    const PARTS: [&str; 9] =
        ["token", "secret", "passw", "signature", "credential", "hmac", "apikey", "accesskey", "authoriz"];
    const WORDS: [&str; 8] = ["sig", "key", "pwd", "pass", "auth", "jwt", "session", "googleaccessid"];
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password with a slash in it is one all the same.
    let odd_port = authority.split_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => return Some(Secret::Password),
        // A token is often given as a user.
        Some(_) => return Some(Secret::User),
        None if odd_port && !authority.starts_with('[') => return Some(Secret::Password),
        None => {}
    }
    let hidden = rest.split_once(['?', '#'])?.1;
    let secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        PARTS.iter().any(|part| name.replace(['-', '_', '.'], "").contains(part))
            || name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
    };
    let mut names = hidden.split(['?', '#', '&', ';']).map(|pair| pair.split('=').next().unwrap_or_default());
    names.any(secret).then_some(Secret::Parameter)
}

/// A secret in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secret {
    /// A user without a password.
    User,
    /// A password.
    Password,
    /// A parameter of the query.
    Parameter,
}

/// A pod that does the work on one node.
///
/// # Errors
/// [`crate::Kind::Usage`] for names that Kubernetes would not take.
pub fn pod(node: &str, work: &Work, setting: &Setting) -> Result<Manifest> {
    names::check_node(node)?;
    work.check()?;
    setting.check()?;
    let name = match &setting.name {
        Some(name) => {
            names::check_label("pod", name)?;
            name.clone()
        }
        None => {
            let stem = format!("bootsurgeon-{}-{node}", work.command);
            names::short_name(&stem, &request_hash(&[node], work, setting), names::MAX_LABEL)
        }
    };
    let mut spec = spec::privileged(work, setting, Vec::new());
    // The scheduler is passed by: a cordoned node, or one whose taints keep everything off, is a node that needs this.
    spec["nodeName"] = node.into();
    let what = format!("bootsurgeon {} on node {node}", work.command);
    let metadata = spec::metadata(&name, setting, spec::labels(&name, Role::Surgeon), &what);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    Ok(Manifest(vec![object::tidy(pod)]))
}

/// A name for a pod that is made for one run: no other run has it.
pub(crate) fn name_of_run(node: &str, work: &Work) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let moment = format!("{} {}", since.as_nanos(), std::process::id());
    let hash = names::hash([node, moment.as_str()].into_iter().chain(work.args.iter().map(String::as_str)));
    names::short_name(&format!("bootsurgeon-{}-{node}", work.command), &hash, names::MAX_LABEL)
}

/// A hash of all that makes one request another.
fn request_hash(nodes: &[&str], work: &Work, setting: &Setting) -> String {
    let rest = format!("{work:?}{setting:?}");
    names::hash(nodes.iter().copied().chain([rest.as_str()]))
}

#[cfg(test)]
mod tests;
