//! `rollout`: what can be typed, and the request it makes.

use super::args::{DeskArgs, Passed, SettingArgs, Task};
use super::desk::{arrival_options, desk_request, in_setting};
use super::{Line, setting};
use crate::cli::render::Output;
use crate::command::{Change, Cluster, DeskImage, PushSelf, Rollout, SwapInPods, Ui};
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// `rollout`
#[derive(Debug, Args)]
pub(in crate::cli) struct RolloutArgs {
    /// The nodes in their order, as `kubectl get nodes` names them
    #[arg(long, value_name = "NAME,NAME…", value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// The disk as the nodes name it: /dev/nvme0n1
    #[arg(long, value_name = "DEV")]
    disk: String,
    /// The new image: a file or an http(s) URL, if it is not --schematic with --talos
    #[arg(value_name = "IMAGE")]
    source: Option<String>,
    /// How talosctl reaches a node whose InternalIP is not the way (repeatable)
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = address)]
    talos_node: Vec<(String, String)>,
    /// The file that says how far the rollout has come: the same command goes on from there
    #[arg(long, value_name = "FILE", default_value = "bootsurgeon-rollout.json")]
    state: PathBuf,
    /// Begin anew with the first node, whatever the state file says
    #[arg(long)]
    force: bool,
    /// Print the plan; on each node the swap is rehearsed in a pod, which only reads
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Give a node up that is not ready again after so long
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    ready_timeout: u64,
    /// Give a node up whose extension services do not run after so long
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    service_timeout: u64,
    /// So long the services have to have been running without a new start
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    settle: u64,
    /// Configuration that the nodes have: what does not fit the image ends it before the first node (repeatable)
    #[arg(long, value_name = "FILE")]
    machine_config: Vec<PathBuf>,
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    setting: SettingArgs,
    #[command(flatten)]
    passed: Passed,
}

/// Options of `swap` that are the rollout's own here, or not for many nodes.
const OWN: [&str; 5] = ["dry_run", "yes", "force", "machine_config", "out"];

fn address(text: &str) -> Result<(String, String), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
    match text.split_once('=') {
        Some((node, address)) if !node.is_empty() && !address.is_empty() && address.chars().all(plain) => {
            Ok((node.to_owned(), address.to_owned()))
        }
        _ => Err("not of the form NAME=ADDRESS".into()),
    }
}

/// Runs it, and prints the report, also where it stopped.
pub(in crate::cli) fn run(args: RolloutArgs, ui: &dyn Ui, out: &Output) -> Result<ExitCode> {
    let report = request(args, ui)?.run(ui)?;
    out.show(&report)?;
    match &report.error {
        None => Ok(ExitCode::SUCCESS),
        Some(e) => {
            out.error_in_words(e);
            Ok(ExitCode::from(e.kind().exit_code()))
        }
    }
}

fn request(args: RolloutArgs, ui: &dyn Ui) -> Result<Rollout> {
    let mut passed = args.passed;
    if passed.take("out").is_some() {
        return Err(Error::usage("--out makes a changed copy of a disk image, and nodes have disks"));
    }
    passed.options.retain(|(id, _)| !OWN.contains(&id.as_str()));
    if args.source.as_deref() == Some("-") {
        return Err(
            Error::usage("standard input can be read once, and every node needs the image").advise("name a file")
        );
    }
    let given = passed.options.clone();
    let image = match desk_request(args.source.as_deref(), &mut passed)? {
        Some(request) => {
            let arrival = DeskImage::open(&request, ui)?.arrival;
            passed.add(arrival_options(&arrival));
            Some((request, arrival))
        }
        None => None,
    };
    let setting = in_setting(setting(args.setting), &args.desk);
    let (disk, source) = (args.disk, if image.is_some() { Some("-".to_owned()) } else { args.source });
    let work = |how: &str| {
        let line = Line {
            task: Task::Swap,
            disk: disk.clone(),
            source: source.clone(),
            passed: passed.clone(),
            rest: vec![how.to_owned()],
            streamed: image.is_some(),
            asks: false,
            output: vec!["--json".into()],
        };
        line.work(setting.files.is_some(), ui)
    };
    let seconds = Duration::from_secs;
    Ok(Rollout {
        nodes: args.nodes,
        addresses: args.talos_node.into_iter().collect(),
        change: Change { dry_run: args.dry_run, yes: args.yes, out: None },
        state: args.state,
        anew: args.force,
        ready_timeout: seconds(args.ready_timeout),
        service_timeout: seconds(args.service_timeout),
        settle: seconds(args.settle),
        machine_config: args.machine_config,
        given,
        swap: SwapInPods {
            work: work("--yes")?,
            rehearsal: work("--dry-run")?,
            cluster: Cluster { context: args.desk.context, kubeconfig: args.desk.kubeconfig },
            image,
            push_self: args.desk.push_self.then_some(PushSelf { binary: args.desk.binary }),
            keep: args.desk.keep_pod,
            wait: seconds(args.desk.wait),
            setting,
        },
    })
}
