//! What can be typed after `pod`.
//!
//! The options of `swap` are options of `pod manifest` too. They are not declared a second time: [`Passed`] takes them
//! from the definition of `swap` itself and keeps what was typed, word for word. So `args`, whose commands include
//! `pod`, and the files of `pod` import each other.

use crate::cli::args::SwapArgs;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `pod …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PodCommand {
    /// Print the manifest of a pod that does one command on one node, as YAML for `kubectl create -f -`
    #[command(after_help = AFTER)]
    Manifest(Box<ManifestArgs>),
    /// Print the manifest of a job that does one command on many nodes, one after the other, up to the first failure
    #[command(after_help = AFTER)]
    Job(Box<JobArgs>),
    /// Do one command on one node from here, through your kubectl: its report and exit code are those of a local command
    #[command(after_help = AFTER_RUN)]
    Run(Box<RunArgs>),
}

const AFTER: &str = "The options of the command are checked before anything is printed. \
Options of a command other than swap go behind --, as in: \
bootsurgeon pod manifest --node NAME --disk DEV --command prune -- --delete";

const AFTER_RUN: &str = "An IMAGE of this machine is sent to the node; a UKI inside an ISO or a disk image is taken out here. \
With a terminal the node's plan is shown and you are asked, as without a cluster. Ctrl-C stops what runs on the node.";

/// `pod run`
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The node, as `kubectl get nodes` names it
    #[arg(long, value_name = "NAME")]
    pub(super) node: String,
    /// The disk as the node names it: /dev/nvme0n1. Else it is the word behind COMMAND
    #[arg(long, value_name = "DEV")]
    pub(super) disk: Option<String>,
    /// The command to do on the node
    #[arg(value_enum, value_name = "COMMAND")]
    pub(super) command: Task,
    /// The disk, if it is not --disk; for swap then the new image: a file or a URL, - for standard input
    #[arg(value_name = "DISK|IMAGE", num_args = 0..=2)]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) desk: DeskArgs,
    #[command(flatten)]
    pub(super) setting: SettingArgs,
    #[command(flatten)]
    pub(super) passed: Passed,
    /// More arguments of the command
    #[arg(last = true, value_name = "ARGS")]
    pub(super) rest: Vec<String>,
}

/// How a pod is run from a desk.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DeskArgs {
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// The kubeconfig [default: as kubectl finds it]
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<String>,
    /// Carry this program to the node and run it in any small image that has a shell: no registry is needed
    #[arg(long)]
    pub(super) push_self: bool,
    /// For --push-self: the static program for the node's architecture [default: this program itself]
    #[arg(long, value_name = "FILE", requires = "push_self")]
    pub(super) binary: Option<PathBuf>,
    /// Leave the pod there at the end
    #[arg(long = "keep")]
    pub(super) keep_pod: bool,
    /// Give up when the pod has not begun after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(super) wait: u64,
}

/// `pod manifest`
#[derive(Debug, Args)]
pub(in crate::cli) struct ManifestArgs {
    /// The node, as `kubectl get nodes` names it
    #[arg(long, value_name = "NAME")]
    pub(super) node: String,
    #[command(flatten)]
    pub(super) work: WorkArgs,
}

/// `pod job`
#[derive(Debug, Args)]
pub(in crate::cli) struct JobArgs {
    /// The nodes in their order, as `kubectl get nodes` names them
    #[arg(long, value_name = "NAME,NAME…", value_delimiter = ',', required = true)]
    pub(super) nodes: Vec<String>,
    /// The image of the pods that tie the job to its nodes; it need not run [default: registry.k8s.io/pause:3.10]
    #[arg(long, value_name = "REF")]
    pub(super) anchor_image: Option<String>,
    #[command(flatten)]
    pub(super) work: WorkArgs,
}

/// What both have in common.
#[derive(Debug, Args)]
pub(in crate::cli) struct WorkArgs {
    /// The disk as the node names it: /dev/nvme0n1; below /host/dev the node's devices are mounted there
    #[arg(long, value_name = "DEV")]
    pub(super) disk: String,
    /// The command to do on the node
    #[arg(long, value_enum, default_value_t = Task::Swap, value_name = "COMMAND")]
    pub(super) command: Task,
    /// For swap: the new image as an http(s) URL, if it is not --schematic with --talos
    #[arg(value_name = "IMAGE")]
    pub(super) source: Option<String>,
    /// The name of the pod or the job [default: made from the command and the nodes]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) setting: SettingArgs,
    #[command(flatten)]
    pub(super) passed: Passed,
    /// More arguments of the command
    #[arg(last = true, value_name = "ARGS")]
    pub(super) rest: Vec<String>,
}

/// The pod's surroundings.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SettingArgs {
    /// The container image [default: bootsurgeon:<this version>, never pulled]
    #[arg(long, visible_alias = "image", value_name = "REF")]
    pub(super) image_ref: Option<String>,
    /// The namespace
    #[arg(long, value_name = "NAME", default_value = crate::pod::DEFAULT_NAMESPACE)]
    pub(super) namespace: String,
    /// A Secret to pull the container image with
    #[arg(long, value_name = "SECRET")]
    pub(super) pull_secret: Option<String>,
    /// A Secret whose key "token" is the token for the factory
    #[arg(long, value_name = "SECRET")]
    pub(super) auth_secret: Option<String>,
    /// A ConfigMap with files for --cert and --ca; in the container they are in /etc/bootsurgeon
    #[arg(long, value_name = "CONFIGMAP")]
    pub(super) files: Option<String>,
    /// Reach the factory through the cluster's pod network and DNS, not the node's
    #[arg(long)]
    pub(super) pod_network: bool,
    /// An environment variable for the program, for example a proxy (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) env: Vec<(String, String)>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("not of the form NAME=VALUE".into()),
    }
}

/// The commands that make sense in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Task {
    /// Put an image in the place of the one that boots
    Swap,
    /// Show the ESP
    Status,
    /// Say what is wrong with firmware, variables and the ESP
    Doctor,
    /// Finish or undo what was interrupted
    Recover,
    /// Put a backup back in place
    Restore,
    /// Take duplicates and stale versions out of the boot menu
    Prune,
    /// Choose the entry of the boot menu that starts, in loader.conf
    Pin,
}

impl Task {
    /// As it is typed.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// Options of `swap` as they were typed.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Passed {
    /// Each option's ID with its words: `--talos`, `v1.12.4`.
    pub(super) options: Vec<(String, Vec<String>)>,
}

impl Passed {
    /// The value of an option that was given; the option is gone then.
    pub(super) fn take(&mut self, id: &str) -> Option<String> {
        let at = self.options.iter().position(|(own, _)| own == id)?;
        let (_, words) = self.options.remove(at);
        let last = words.into_iter().next_back()?;
        Some(
            last.split_once('=')
                .filter(|(name, _)| name.starts_with("--"))
                .map_or(last.clone(), |(_, value)| value.into()),
        )
    }

    /// Adds options with values.
    pub(super) fn add(&mut self, options: impl Iterator<Item = (&'static str, String)>) {
        self.options.extend(options.map(|(name, value)| (name.to_owned(), vec![format!("--{name}"), value])));
    }
}

/// Options of `swap` that name a file or directory.
const FILES: [&str; 6] = ["cert", "ca", "auth_file", "backup_to", "cache", "offline"];
/// Those of them that make no sense in a container. They are understood to be refused with the reason, and not listed.
const REFUSED: [&str; 4] = ["auth_file", "backup_to", "cache", "offline"];

/// The options of `swap` that `command` does not have itself.
fn options_for(command: &clap::Command) -> Vec<Arg> {
    let swap = SwapArgs::augment_args(clap::Command::new("swap"));
    let taken =
        |arg: &Arg| command.get_arguments().any(|own| own.get_id() == arg.get_id() || own.get_long() == arg.get_long());
    let options = swap.get_arguments().filter(|arg| arg.get_long().is_some() && !taken(arg) && arg.get_id() != "node");
    let options = options.cloned().map(|arg| arg.help_heading("Options of swap"));
    options.map(|arg| if REFUSED.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg }).collect()
}

impl Args for Passed {
    fn augment_args(command: clap::Command) -> clap::Command {
        let options = options_for(&command);
        command.args(options)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Passed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut passed = Self::default();
        passed.update_from_arg_matches(matches)?;
        Ok(passed)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for arg in options_for(&clap::Command::new("pod")) {
            let id = arg.get_id().as_str();
            // What stands in a variable here holds for the pod too, if it can: a factory's address can, a file cannot.
            let given = match matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id)) {
                Some(ValueSource::CommandLine) => true,
                Some(ValueSource::EnvVariable) => !FILES.contains(&id),
                _ => false,
            };
            if given {
                self.options.push((id.to_owned(), words(&arg, matches)?));
            }
        }
        Ok(())
    }
}

/// An option and its values as words of a command line.
fn words(arg: &Arg, matches: &ArgMatches) -> Result<Vec<String>, clap::Error> {
    let option = format!("--{}", arg.get_long().unwrap_or_default());
    if !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        return Ok(vec![option]);
    }
    let mut words = Vec::new();
    for value in matches.get_raw(arg.get_id().as_str()).into_iter().flatten() {
        let value = value
            .to_str()
            .ok_or_else(|| clap::Error::raw(ErrorKind::InvalidUtf8, format!("the value of {option} is not UTF-8\n")))?;
        if value.starts_with('-') {
            words.push(format!("{option}={value}"));
        } else {
            words.extend([option.clone(), value.to_owned()]);
        }
    }
    Ok(words)
}
