//! A real Kubernetes: etcd, API server, kubelet, containerd and runc of Debian 12, and `kubectl` at the desk.
//! docs/kubernetes.md says what of it is real.
//!
//! Not part of a plain `cargo test`: `.ci/lane cluster` lays it ready with `prepare.sh` and runs this, as root;
//! `BOOTSURGEON_CLUSTER=target/cluster` names the folder and asks for it. Then whatever is missing is a failure.
#![allow(clippy::unwrap_used)]

#[path = "../support/cli.rs"]
mod cli;
mod cluster;
mod ground;
#[path = "../support/loops.rs"]
mod loops;
mod peers;
mod pod_run;
#[path = "../support/mod.rs"]
mod support;
