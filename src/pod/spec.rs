//! What every pod that runs this program has in common.

use super::desk::{self, Desk};
use super::{Setting, Work, rollout};
use crate::container::{NODE_ADDRESS, OPTIONS};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, HostPathVolumeSource,
    LocalObjectReference, ObjectFieldSelector, PodSpec, ResourceRequirements, SecretKeySelector, SecurityContext,
    Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The container's name.
pub(crate) const CONTAINER: &str = "bootsurgeon";
/// Where efivarfs is, on the node and in the container.
const EFIVARS: &str = crate::efivars::DEFAULT_DIR;

/// Which part a pod has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// It runs this program.
    Surgeon,
    /// It marks a node for a job, see [`super::job`].
    Anchor,
}

/// Labels of the objects that belong to one pod or job.
pub(super) fn labels(instance: &str, role: Role) -> BTreeMap<String, String> {
    let role = match role {
        Role::Surgeon => "surgeon",
        Role::Anchor => "anchor",
    };
    text_map([
        ("app.kubernetes.io/name", "bootsurgeon"),
        ("app.kubernetes.io/instance", instance),
        ("app.kubernetes.io/component", role),
    ])
}

/// The annotation that tells people what an object is for.
pub(super) fn description(text: String) -> BTreeMap<String, String> {
    BTreeMap::from([("kubernetes.io/description".to_owned(), text)])
}

pub(super) fn text_map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub(super) fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> Option<BTreeMap<String, Quantity>> {
    Some(pairs.into_iter().map(|(k, v)| (k.to_owned(), Quantity(v.to_owned()))).collect())
}

/// Every taint is tolerated: control planes, cordoned nodes, nodes under pressure.
pub(super) fn tolerate_everything() -> Option<Vec<Toleration>> {
    Some(vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }])
}

/// In its usual namespace the pod is as important as the node's own: nothing evicts it or takes its place in the middle
/// of a change. Elsewhere a quota may forbid that priority, and the change survives an interruption anyway.
pub(super) fn priority(setting: &Setting) -> Option<String> {
    (setting.namespace() == super::DEFAULT_NAMESPACE).then(|| "system-node-critical".to_owned())
}

/// A privileged pod that runs the program once. The node is not chosen yet.
pub(super) fn privileged(work: &Work, setting: &Setting, env: Vec<EnvVar>) -> PodSpec {
    let mut volumes = vec![host_path("dev", "/dev"), scratch()];
    let mut mounts = vec![
        VolumeMount { name: "dev".into(), mount_path: work.devices.mount_path().into(), ..VolumeMount::default() },
        VolumeMount { name: "tmp".into(), mount_path: "/tmp".into(), ..VolumeMount::default() },
    ];
    if work.efivars {
        volumes.push(host_path("efivars", EFIVARS));
        mounts.push(VolumeMount {
            name: "efivars".into(),
            mount_path: EFIVARS.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    if let Some(name) = &setting.files {
        let source = ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() };
        volumes.push(Volume { name: "files".into(), config_map: Some(source), ..Volume::default() });
        mounts.push(VolumeMount {
            name: "files".into(),
            mount_path: super::FILES_DIR.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    let container = Container {
        name: CONTAINER.into(),
        image: Some(setting.image()),
        image_pull_policy: Some(if setting.image.is_some() { "IfNotPresent" } else { "Never" }.into()),
        command: setting.desk.and_then(|desk| desk.carried_blocks).map(carried),
        args: Some(work.args.iter().map(|arg| literal(arg)).collect()),
        stdin: setting.desk.map(|desk| desk.stdin),
        stdin_once: setting.desk.map(|desk| desk.stdin),
        env: Some(environment(setting, env)),
        resources: Some(resources()),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        // Not at its usual place below /dev: that is the node's.
        termination_message_path: Some("/tmp/termination-log".into()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    PodSpec {
        containers: vec![container],
        volumes: Some(volumes),
        restart_policy: Some("Never".into()),
        tolerations: tolerate_everything(),
        priority_class_name: priority(setting),
        // The node's own network and resolver: the factory is reached as the node itself reaches it, also where the pod
        // network is down. With the pod network, the cluster's resolver.
        host_network: (!setting.pod_network).then_some(true),
        dns_policy: Some(if setting.pod_network { "ClusterFirst" } else { "Default" }.into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // SIGTERM is handled like Ctrl-C: the program stops where it can without a trace, or finishes the few sectors
        // of its commit. What a dying network connection may take is the longest of it.
        termination_grace_period_seconds: Some(120),
        image_pull_secrets: setting.pull_secret.as_ref().map(|name| vec![LocalObjectReference { name: name.clone() }]),
        ..PodSpec::default()
    }
}

/// A directory of the node. It has to be there: with any other type the container runtime tries to create what is
/// missing, and says `mkdir …: operation not permitted` of a board without EFI variables, because that is in sysfs.
fn host_path(name: &str, path: &str) -> Volume {
    let source = HostPathVolumeSource { path: path.into(), type_: Some("Directory".into()) };
    Volume { name: name.into(), host_path: Some(source), ..Volume::default() }
}

/// Room for an image from a server that serves no ranges. It is on the node's disk: in memory it would count.
fn scratch() -> Volume {
    let source = EmptyDirVolumeSource { size_limit: Some(Quantity("2Gi".into())), medium: None };
    Volume { name: "tmp".into(), empty_dir: Some(source), ..Volume::default() }
}

/// The program itself takes up to 64 MiB; the rest is for the page cache, which is charged to the container too: a
/// limit without that room would stall every write to the disk. The request is as high as the limit, so that the
/// kubelet never finds the pod above what it asked for when the node runs short.
fn resources() -> ResourceRequirements {
    ResourceRequirements {
        requests: quantities([("cpu", "100m"), ("memory", "256Mi")]),
        limits: quantities([("cpu", "2"), ("memory", "256Mi")]),
        ..ResourceRequirements::default()
    }
}

/// Takes the program from standard input, so many blocks of it, and becomes it. The rest is for the program to read.
/// Nothing but a shell, `dd`, `wc` and `chmod` is needed.
fn carried(blocks: u64) -> Vec<String> {
    let (block, bytes) = (desk::BLOCK, blocks * desk::BLOCK as u64);
    let script = format!(
        "dd bs={block} count={blocks} iflag=fullblock of=/tmp/bootsurgeon 2>/tmp/dd || {{ cat /tmp/dd >&2; exit 1; }}; \
         [ $(wc -c </tmp/bootsurgeon) -eq {bytes} ] || {{ echo the program did not arrive whole >&2; exit 1; }}; \
         chmod 755 /tmp/bootsurgeon && exec /tmp/bootsurgeon \"$@\""
    );
    ["sh", "-c", &script, "bootsurgeon"].map(literal).to_vec()
}

fn environment(setting: &Setting, more: Vec<EnvVar>) -> Vec<EnvVar> {
    let field = |path: &str| {
        let field = ObjectFieldSelector { field_path: path.into(), ..ObjectFieldSelector::default() };
        EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }
    };
    let mut all = vec![
        from(rollout::NODE, field("spec.nodeName")),
        from(NODE_ADDRESS, field("status.hostIP")),
        variable(OPTIONS, &serde_json::Value::from(setting.options()).to_string()),
    ];
    if let Some(secret) = &setting.auth_secret {
        let key = SecretKeySelector { name: secret.clone(), key: "token".into(), optional: None };
        let source = EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() };
        all.push(from("BOOTSURGEON_FACTORY_TOKEN", source));
    }
    if let Some(Desk { asks, .. }) = setting.desk {
        all.push(variable(desk::VARIABLE, if asks { desk::ASKS } else { desk::LISTENS }));
    }
    all.extend(setting.env.iter().map(|(name, value)| variable(name, value)));
    all.extend(more);
    all
}

/// An environment variable with this value.
pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(literal(value)), ..EnvVar::default() }
}

fn from(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}

/// Text as the container is to get it. The kubelet replaces `$(NAME)` in arguments and variables, and `$$` by `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
