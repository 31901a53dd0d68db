use super::*;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

fn work(args: &[&str]) -> Work {
    Work {
        command: args[0].into(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        devices: Devices::Dev,
        efivars: true,
    }
}

fn swap() -> Work {
    work(&["swap", "/dev/nvme0n1", "https://example.com/uki.efi", "--yes", "--json"])
}

/// An object as the type of the published schema. A field that the type does not know would be lost on the way.
fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> T {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&typed).unwrap(), object, "a field that does not exist, or a value that is none");
    typed
}

fn one(node: &str, work: &Work, setting: &Setting) -> Pod {
    typed(&pod(node, work, setting).unwrap().0[0])
}

fn many(nodes: &[&str], setting: &Setting) -> (Vec<Pod>, Job) {
    let nodes: Vec<String> = nodes.iter().map(|n| (*n).to_owned()).collect();
    let objects = job(&nodes, &swap(), setting).unwrap().0;
    let (job, anchors) = objects.split_last().unwrap();
    (anchors.iter().map(typed).collect(), typed(job))
}

fn container(spec: &PodSpec) -> &Container {
    let [container] = spec.containers.as_slice() else { panic!("{:?}", spec.containers) };
    container
}

fn variables(container: &Container) -> BTreeMap<&str, Option<&str>> {
    container.env.iter().flatten().map(|v| (v.name.as_str(), v.value.as_deref())).collect()
}

/// What the kubelet makes of an argument (Kubernetes, `third_party/forked/golang/expansion`), where every variable is
/// set.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = match after.chars().next() {
            Some('$') => {
                out.push('$');
                &after[1..]
            }
            Some('(') if after.contains(')') => {
                out.push_str("EXPANDED");
                after.split_once(')').unwrap().1
            }
            _ => {
                out.push('$');
                after
            }
        };
    }
    out + rest
}

#[test]
fn a_pod_has_what_it_needs_on_the_node_and_no_more() {
    let pod = one("talos-192-168-1-203", &swap(), &Setting::default());
    assert_eq!(pod.metadata.namespace.as_deref(), Some("kube-system"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.node_name.as_deref(), Some("talos-192-168-1-203"));
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!((spec.automount_service_account_token, spec.enable_service_links), (Some(false), Some(false)));
    assert_eq!((spec.host_network, spec.dns_policy.as_deref()), (Some(true), Some("Default")));
    assert_eq!((spec.host_pid, spec.host_ipc), (None, None));
    let [toleration] = spec.tolerations.as_deref().unwrap() else { panic!("{:?}", spec.tolerations) };
    assert_eq!((toleration.operator.as_deref(), &toleration.key, &toleration.effect), (Some("Exists"), &None, &None));

    let container = container(&spec);
    assert_eq!(container.args.as_deref().unwrap(), swap().args.as_slice());
    assert_eq!(container.command, None, "the image's own program");
    assert_eq!(container.security_context.as_ref().unwrap().privileged, Some(true));
    let resources = container.resources.as_ref().unwrap();
    assert_eq!(resources.limits.as_ref().unwrap()["memory"], resources.requests.as_ref().unwrap()["memory"]);

    let paths: BTreeMap<_, _> = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| Some((v.name.as_str(), v.host_path.as_ref()?.path.as_str())))
        .collect();
    let mounts = container.volume_mounts.as_deref().unwrap();
    let mounted = |at: &str| mounts.iter().find(|m| m.mount_path == at);
    assert_eq!(paths[mounted("/dev").unwrap().name.as_str()], "/dev");
    let efivars = mounted("/sys/firmware/efi/efivars").unwrap();
    assert_eq!((paths[efivars.name.as_str()], efivars.read_only), ("/sys/firmware/efi/efivars", Some(true)));
    assert_eq!(paths.len(), 2, "{paths:?}");
}

#[test]
fn mounts_follow_the_work() {
    let work = Work { devices: Devices::HostDev, efivars: false, ..swap() };
    let spec = one("n", &work, &Setting::default()).spec.unwrap();
    let at: Vec<&str> = container(&spec).volume_mounts.iter().flatten().map(|m| m.mount_path.as_str()).collect();
    assert_eq!(at, ["/host/dev", "/tmp"]);
    assert_eq!(spec.volumes.unwrap().len(), 2);
}

#[test]
fn devices() {
    for (disk, devices) in [
        ("/dev/nvme0n1", Devices::Dev),
        ("/dev/disk/by-id/nvme-x_1", Devices::Dev),
        ("/host/dev/sda1", Devices::HostDev),
    ] {
        assert_eq!(Devices::of(disk).unwrap(), devices, "{disk}");
    }
    for disk in [
        "",
        "nvme0n1",
        "/dev",
        "/dev/",
        "/host/dev/",
        "/host/etc/passwd",
        "/devices/x",
        "dev/sda",
        "/dev/../etc/passwd",
        "/dev/./sda",
        "/dev//sda",
        "/dev/sda/",
        "/dev/sd a",
        "/dev/sd\na",
        "disk.img",
        "/home/me/disk.img",
    ] {
        assert_eq!(Devices::of(disk).unwrap_err().kind(), crate::Kind::Usage, "{disk}");
    }
}

#[test]
fn arguments_arrive_unchanged() {
    for arg in ["$(HOME)", "$$(HOME)", "$", "$$", "a$", "a$b", "$()", "$(", "plain", "", "$$$(BOOTSURGEON_NODE)$"] {
        let spec = one("n", &work(&["swap", arg]), &Setting::default()).spec.unwrap();
        assert_eq!(expand(&container(&spec).args.as_ref().unwrap()[1]), arg);
        let setting = Setting { env: vec![("X".into(), arg.into())], ..Setting::default() };
        let spec = one("n", &swap(), &setting).spec.unwrap();
        assert_eq!(expand(variables(container(&spec))["X"].unwrap()), arg);
    }
    assert_eq!(expand("$(HOME)"), "EXPANDED");
}

#[test]
fn the_token_is_in_a_secret() {
    let setting = Setting { auth_secret: Some("factory".into()), ..Setting::default() };
    let spec = one("n", &swap(), &setting).spec.unwrap();
    let variable = container(&spec).env.iter().flatten().find(|v| v.name == "BOOTSURGEON_FACTORY_TOKEN").unwrap();
    let key = variable.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
    assert_eq!((key.name.as_str(), key.key.as_str(), &variable.value), ("factory", "token", &None));
}

#[test]
fn an_image_that_was_not_named_is_never_pulled() {
    let policy = |setting: &Setting| {
        let spec = one("n", &swap(), setting).spec.unwrap();
        (container(&spec).image.clone().unwrap(), container(&spec).image_pull_policy.clone().unwrap())
    };
    assert_eq!(
        policy(&Setting::default()),
        (concat!("bootsurgeon:", env!("CARGO_PKG_VERSION")).into(), "Never".into())
    );
    let named = Setting { image: Some("r.example/x@sha256:00".into()), ..Setting::default() };
    assert_eq!(policy(&named), ("r.example/x@sha256:00".into(), "IfNotPresent".into()));
}

#[test]
fn the_priority_belongs_to_the_usual_namespace() {
    let priority = |namespace: &str| {
        let setting = Setting { namespace: Some(namespace.into()), ..Setting::default() };
        one("n", &swap(), &setting).spec.unwrap().priority_class_name
    };
    assert_eq!(priority("kube-system").as_deref(), Some("system-node-critical"));
    assert_eq!(priority("surgery"), None);
}

#[test]
fn bad_requests_are_refused() {
    let env = |name: &str, value: &str| Setting { env: vec![(name.into(), value.into())], ..Setting::default() };
    let settings = [
        Setting { namespace: Some("Kube".into()), ..Setting::default() },
        Setting { namespace: Some(String::new()), ..Setting::default() },
        Setting { name: Some("a.b".into()), ..Setting::default() },
        Setting { name: Some("a".repeat(64)), ..Setting::default() },
        Setting { image: Some("x y".into()), ..Setting::default() },
        Setting { anchor_image: Some("x y".into()), ..Setting::default() },
        Setting { auth_secret: Some("A".into()), ..Setting::default() },
        Setting { pull_secret: Some("../x".into()), ..Setting::default() },
        env("", "x"),
        env("1A", "x"),
        env("A-B", "x"),
        env("A", "x\0"),
        env("BOOTSURGEON_FACTORY_TOKEN", "x"),
        env("HTTPS_PROXY", "http://user:password@proxy:3128"),
        env("https_proxy", "user:password@proxy:3128"),
        env("X", "https://a/b?X-Amz-Signature=0123"),
        env("BOOTSURGEON_NODE", "x"),
        env("JOB_COMPLETION_INDEX", "0"),
    ];
    for setting in settings {
        let e = pod("n", &swap(), &setting).expect_err(&format!("{setting:?}"));
        assert_eq!(e.kind(), crate::Kind::Usage, "{setting:?}");
        job(&["n".into()], &swap(), &setting).expect_err(&format!("{setting:?}"));
    }
    let harmless = env("HTTPS_PROXY", "http://user@proxy:3128/a:b@c");
    pod("n", &swap(), &harmless).unwrap();

    let nodes =
        |names: &[&str]| job(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>(), &swap(), &Setting::default());
    for names in [&[] as &[&str], &["a", "b", "a"], &["a", ""], &["a", "B"], &["a b"]] {
        assert_eq!(nodes(names).unwrap_err().kind(), crate::Kind::Usage, "{names:?}");
    }
    let many: Vec<String> = (0..=500).map(|i| format!("n{i}")).collect();
    job(&many, &swap(), &Setting::default()).unwrap_err();
    job(&many[1..], &swap(), &Setting::default()).unwrap();
    let too_long_for_a_job = Setting { name: Some("a".repeat(53)), ..Setting::default() };
    job(&many[..1], &swap(), &too_long_for_a_job).unwrap_err();
}

/// Presigned addresses are passwords for as long as they hold.
#[test]
fn a_url_with_a_secret_does_not_get_into_a_manifest() {
    let image = |url: &str| pod("n", &work(&["swap", "/dev/sda", url]), &Setting::default());
    for url in [
        "https://u:p@a/b",
        "https://token@a/b",
        "https://u:p/q@a/b",
        "https://s3.example/b?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0123",
        "https://s3.example/b?AWSAccessKeyId=x&Signature=y",
        "https://storage.example/b?X-Goog-Signature=0123",
        "https://blob.example/b?sv=2024&sig=x%3D",
        "https://a/b?token=x",
        "https://a/b?authToken=x",
        "https://a/b?api_key=x",
        "https://a/b#access_token=x",
        "--factory=https://a/?token=x",
    ] {
        let e = image(url).expect_err(url);
        assert_eq!(e.kind(), crate::Kind::Usage, "{url}");
        assert!(e.message().contains("credentials") && !e.to_string().contains("0123"), "{e}");
    }
    for url in ["https://a/b", "https://[::1]:80/b?version=1", "http://a:80/b?design=2&monkey=1", "https://a/@b:c"] {
        image(url).unwrap();
    }
}

#[test]
fn names_are_the_same_for_the_same_request_only() {
    let name = |node: &str, work: &Work, setting: &Setting| one(node, work, setting).metadata.name.unwrap();
    let default = Setting::default();
    let usual = name("n", &swap(), &default);
    assert_eq!(usual, name("n", &swap(), &default));
    assert_ne!(usual, name("m", &swap(), &default));
    assert_ne!(usual, name("n", &work(&["swap", "/dev/sda"]), &default));
    assert_ne!(usual, name("n", &swap(), &Setting { pod_network: true, ..Setting::default() }));
    assert_eq!(name("n", &swap(), &Setting { name: Some("mine".into()), ..Setting::default() }), "mine");

    let job = |nodes: &[&str]| many(nodes, &Setting::default()).1.metadata.name.unwrap();
    assert_ne!(job(&["a", "b"]), job(&["b", "a"]));
}

#[test]
fn long_node_names_make_valid_objects() {
    let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].join(".");
    let similar = format!("{long}e");
    let name = |node: &str| one(node, &swap(), &Setting::default()).metadata.name.unwrap();
    assert_ne!(name(&long), name(&similar));
    let (anchors, job) = many(&[&long, &similar, "no", "0x1f", "1e3"], &Setting::default());
    let metadata = anchors.iter().map(|a| &a.metadata).chain([&job.metadata]);
    for metadata in metadata {
        assert!(names::is_dns_label(metadata.name.as_deref().unwrap()), "{metadata:?}");
        assert!(metadata.labels.iter().flatten().all(|(_, v)| v.len() <= 63 && !v.is_empty()), "{metadata:?}");
    }
    assert_eq!(anchors[0].spec.as_ref().unwrap().node_name.as_deref(), Some(long.as_str()));
}

#[test]
fn a_job_goes_node_by_node_and_stops() {
    let (anchors, job) = many(&["c", "a", "b.example"], &Setting::default());
    let spec = job.spec.unwrap();
    assert_eq!(spec.completion_mode.as_deref(), Some("Indexed"));
    assert_eq!((spec.completions, spec.parallelism, spec.backoff_limit), (Some(3), Some(1), Some(0)));
    assert_eq!(
        (spec.backoff_limit_per_index, spec.active_deadline_seconds, spec.ttl_seconds_after_finished),
        (None, None, None)
    );
    assert_eq!(spec.pod_replacement_policy.as_deref(), Some("Failed"));
    let rules = spec.pod_failure_policy.unwrap().rules;
    assert!(rules.len() == 2 && rules.iter().all(|r| r.action == "FailJob"), "{rules:?}");

    let pod = spec.template.spec.unwrap();
    assert_eq!((pod.node_name.as_deref(), pod.restart_policy.as_deref()), (None, Some("Never")));
    assert_eq!(variables(container(&pod))[rollout::NODES], Some("c,a,b.example"));
    assert!(!variables(container(&pod)).contains_key(rollout::INDEX), "Kubernetes sets it");

    // Each index finds one anchor, on its node; and no pod of the job is an anchor of the job.
    let affinity = pod.affinity.unwrap();
    let terms = affinity.pod_affinity.unwrap().required_during_scheduling_ignored_during_execution.unwrap();
    let [term] = terms.as_slice() else { panic!("{terms:?}") };
    assert_eq!(term.topology_key, "kubernetes.io/hostname");
    let [key] = term.match_label_keys.as_deref().unwrap() else { panic!("{term:?}") };
    let mut labels = spec.template.metadata.unwrap().labels.unwrap();
    for (index, node) in ["c", "a", "b.example"].iter().enumerate() {
        labels.insert("batch.kubernetes.io/job-completion-index".into(), index.to_string());
        let selector = merged(term.label_selector.as_ref().unwrap(), key, &labels);
        let found: Vec<_> =
            anchors.iter().filter(|a| selects(&selector, a.metadata.labels.as_ref().unwrap())).collect();
        let [anchor] = found.as_slice() else { panic!("{index}: {found:?}") };
        assert_eq!(anchor.spec.as_ref().unwrap().node_name.as_deref(), Some(*node));
        assert!(!selects(&selector, &labels), "a pod of the job would satisfy its own affinity");
    }
    let named = affinity.node_affinity.unwrap().required_during_scheduling_ignored_during_execution.unwrap();
    let named: Vec<_> = named.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten()).collect();
    assert!(named.iter().all(|f| f.key == "metadata.name" && f.operator == "In"));
    assert_eq!(named.iter().flat_map(|f| f.values.iter().flatten()).collect::<Vec<_>>(), ["c", "a", "b.example"]);
}

/// What the API server makes of `matchLabelKeys` when it stores a pod (`applyMatchLabelKeysAndMismatchLabelKeys`).
fn merged(selector: &LabelSelector, key: &str, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = selector.match_labels.clone().unwrap();
    assert!(selector.match_expressions.is_none() && !all.contains_key(key));
    all.insert(key.to_owned(), labels[key].clone());
    all
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// What the Pod Security Standard `restricted` has against a pod (Kubernetes, "Pod Security Standards", with what
/// `baseline` asks for). Fields that no pod of ours sets have to stay unset.
fn beyond_restricted(spec: &PodSpec) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what| found.extend((!holds).then_some(what));
    let yes = Some(true);
    must([spec.host_network, spec.host_pid, spec.host_ipc].iter().all(|host| *host != yes), "host namespaces");
    must(spec.volumes.is_none(), "volumes");
    must(spec.init_containers.is_none() && spec.ephemeral_containers.is_none(), "more containers");
    must(spec.security_context.is_none(), "a context of the whole pod");
    for container in &spec.containers {
        let Some(context) = &container.security_context else { return vec!["no security context"] };
        must(context.privileged != yes, "privileged");
        must(context.allow_privilege_escalation == Some(false), "privilege escalation");
        must(context.run_as_non_root == yes, "may run as root");
        must(context.run_as_user.is_none_or(|user| user != 0), "root");
        let profile = context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
        must(matches!(profile, Some("RuntimeDefault" | "Localhost")), "seccomp");
        let drop = context.capabilities.as_ref().and_then(|all| all.drop.as_deref()).unwrap_or_default();
        must(drop.iter().any(|one| one == "ALL"), "capabilities are kept");
        must(context.capabilities.as_ref().is_some_and(|all| all.add.is_none()), "capabilities are added");
        must(context.proc_mount.is_none() && context.se_linux_options.is_none(), "/proc, SELinux");
        must(context.app_armor_profile.is_none() && context.windows_options.is_none(), "AppArmor, Windows");
        must(container.ports.is_none(), "host ports");
    }
    found
}

#[test]
fn anchors_are_harmless() {
    let (anchors, job) = many(&["a", "b"], &Setting::default());
    for anchor in &anchors {
        let spec = anchor.spec.as_ref().unwrap();
        assert_eq!(beyond_restricted(spec), [""; 0]);
        let security = container(spec).security_context.as_ref().unwrap();
        // By number: a name that only the image knows would not be checked before it starts.
        assert_eq!((security.run_as_user, security.run_as_group), (Some(65_534), Some(65_534)));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert!(spec.tolerations.is_some(), "a cordoned node has an anchor too");
        assert_eq!(container(spec).image.as_deref(), Some("registry.k8s.io/pause:3.10"));
    }
    let surgeon = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    assert!(beyond_restricted(surgeon).contains(&"privileged"), "the check sees nothing");
    let instance = |m: &ObjectMeta| m.labels.as_ref().unwrap()["app.kubernetes.io/instance"].clone();
    let of_job = job.spec.as_ref().unwrap().template.metadata.as_ref().map(instance).unwrap();
    assert!(anchors.iter().map(|a| instance(&a.metadata)).chain([instance(&job.metadata)]).all(|i| i == of_job));

    let own = Setting { anchor_image: Some("registry.example/pause:3.9".into()), ..Setting::default() };
    let (anchors, job) = many(&["a", "b"], &own);
    let image = |spec: &PodSpec| container(spec).image.clone().unwrap();
    assert!(anchors.iter().all(|a| image(a.spec.as_ref().unwrap()) == "registry.example/pause:3.9"));
    assert!(image(job.spec.unwrap().template.spec.as_ref().unwrap()).starts_with("bootsurgeon:"));
}

#[test]
fn an_anchor_of_another_list_is_no_anchor() {
    let setting = Setting { name: Some("r".into()), ..Setting::default() };
    let (old, _) = many(&["a", "b"], &setting);
    let (_, job) = many(&["b", "a"], &setting);
    let affinity = job.spec.unwrap().template.spec.unwrap().affinity.unwrap();
    let term = affinity.pod_affinity.unwrap().required_during_scheduling_ignored_during_execution.unwrap().remove(0);
    let selector = term.label_selector.unwrap().match_labels.unwrap();
    assert!(old.iter().all(|a| !selects(&selector, a.metadata.labels.as_ref().unwrap())));
}

#[test]
fn text_reads_back_as_the_same_objects() {
    let nodes = ["no", "0x1f", "1.5", "null", "12"].map(str::to_owned);
    let work = work(&["swap", "a: b", "- x", "#", "yes", "'\"\\", " lead", "ä", "{}", "&a", "*a", "!x", "%", "@", "`"]);
    let mut objects = job(&nodes, &swap(), &Setting::default()).unwrap().0;
    objects.extend(pod("true", &work, &Setting::default()).unwrap().0);
    for object in objects {
        let manifest = Manifest(vec![object.clone()]);
        assert_eq!(serde_saphyr::from_str::<Value>(&manifest.to_yaml()).unwrap(), object);
        assert_eq!(serde_json::to_value(&manifest).unwrap(), object);
    }
}

/// Everything that can be asked for at once: the types of the published schema know every field of it.
#[test]
fn every_field_is_one_of_the_published_schema() {
    let name = |name: &str| Some(name.to_owned());
    let desk = Desk { stdin: true, asks: true, carried_blocks: Some(7) };
    let all = Setting {
        namespace: name("surgery"),
        name: name("mine"),
        image: name("r.example/x@sha256:00"),
        anchor_image: name("r.example/pause:3"),
        pull_secret: name("pull"),
        auth_secret: name("factory"),
        files: name("trust"),
        env: vec![("X".into(), "y".into())],
        desk: Some(desk),
        again: vec!["--context".into()],
        ..Setting::default()
    };
    for setting in [&Setting::default(), &all, &Setting { pod_network: true, ..all.clone() }] {
        let spec = one("n", &swap(), setting).spec.unwrap();
        assert_eq!(container(&spec).stdin, setting.desk.map(|_| true));
        many(&["a", "b"], setting);
    }
}

#[test]
fn several_objects_are_a_list_in_json_and_documents_in_yaml() {
    let manifest = job(&["a".into(), "b".into()], &swap(), &Setting::default()).unwrap();
    let list = serde_json::to_value(&manifest).unwrap();
    assert_eq!((list["apiVersion"].as_str(), list["kind"].as_str()), (Some("v1"), Some("List")));
    let kinds: Vec<_> = list["items"].as_array().unwrap().iter().map(|o| o["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Pod", "Pod", "Job"], "the anchors stand before the job");
    assert_eq!(manifest.to_yaml().split("---\n").count(), 3);
}
