//! Where this program runs: on a machine itself, in a container of one, in a pod of a cluster. It changes nothing about
//! the work. It says what helps where a device cannot be opened, and how a command is given again from outside of a pod.
//!
//! A process cannot be told for certain that it is in a container. The marks looked for are those that container
//! runtimes leave on purpose; without any of them it is taken to run on the machine.

mod device;
mod this_pod;

pub(crate) use device::advice;
#[cfg(feature = "cli")]
pub(crate) use this_pod::NODE_ADDRESS;
pub(crate) use this_pod::{NODE, OPTIONS, ThisPod, below_host};
#[cfg(feature = "cli")]
pub(crate) use this_pod::{PUSH_SELF, address_of};

use std::io::Read;
use std::path::Path;

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the machine itself, as far as can be seen.
    Machine,
    /// In a container.
    Container,
    /// In a container that a kubelet has started.
    Pod,
}

impl Place {
    /// Where this process runs.
    pub(crate) fn here() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_there = |path: &str| Path::new(path).exists();
        // The kubelet writes this file for every container that does not mount one of its own, and sets the variable
        // once it knows the cluster's services.
        let pod = is_set("KUBERNETES_SERVICE_HOST")
            || std::env::var_os(OPTIONS).is_some()
            || is_there("/var/run/secrets/kubernetes.io")
            || beginning("/etc/hosts").starts_with("# Kubernetes-managed hosts file");
        if pod {
            return Self::Pod;
        }
        // Docker's, podman's, and what systemd calls the container interface.
        let container = is_there("/.dockerenv")
            || is_there("/run/.containerenv")
            || is_there("/run/systemd/container")
            || is_set("container");
        if container { Self::Container } else { Self::Machine }
    }

    /// Whether it is a container of any kind.
    pub(crate) fn is_container(self) -> bool {
        self != Self::Machine
    }
}

/// The first bytes of a small text; empty where it cannot be read.
fn beginning(path: &str) -> String {
    let mut text = Vec::new();
    // Half a text is as good as none.
    let _ = std::fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}
