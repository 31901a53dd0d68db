//! `pod …`: from what was typed to a checked request for [`crate::pod`].
//!
//! The command line that the pod will run is parsed by this program's own definition before it is printed. A mistake in
//! it is found here, and not by a pod that fails on a node.

mod args;
mod desk;
pub(in crate::cli) mod rollout;

pub(super) use args::PodCommand;

use super::args::{Cli, Command, Global, TrustArgs};
use super::render::Output;
use super::ui::Terminal;
use crate::command::{self, Event, Ui};
use crate::factory::{Asset, Factory, Options, is_id, is_url};
use crate::pod::{Devices, FILES_DIR, Setting, Work};
use crate::{Context, Error, Result};
use args::{Passed, SettingArgs, Task};
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};
use std::path::Path;
use std::process::ExitCode;

/// Whether this is the name of a command that is done on nodes.
pub(super) fn is_task(word: &str) -> bool {
    <Task as clap::ValueEnum>::from_str(word, false).is_ok()
}

/// `pod …`.
pub(super) fn run(command: PodCommand, global: &Global, ui: &Terminal, out: &Output) -> Result<ExitCode> {
    let (nodes, anchor_image, work) = match command {
        PodCommand::Manifest(a) => (command::Nodes::One(a.node), None, a.work),
        PodCommand::Job(a) => (command::Nodes::InTurn(a.nodes), a.anchor_image, a.work),
        PodCommand::Run(a) => return desk::run(*a, global, ui),
    };
    let line = Line {
        task: work.command,
        disk: work.disk,
        source: work.source,
        passed: work.passed,
        rest: work.rest,
        streamed: false,
        asks: false,
        output: vec!["--json".into(), "--quiet".into()],
    };
    let setting = Setting { name: work.name, anchor_image, ..setting(work.setting) };
    let work = line.work(setting.files.is_some(), ui)?;
    out.show(&command::PodRequest { nodes, work, setting }.run(ui)?)?;
    Ok(ExitCode::SUCCESS)
}

fn setting(args: SettingArgs) -> Setting {
    Setting {
        namespace: Some(args.namespace),
        name: None,
        image: args.image_ref,
        anchor_image: None,
        pull_secret: args.pull_secret,
        auth_secret: args.auth_secret,
        files: args.files,
        pod_network: args.pod_network,
        env: args.env,
        desk: None,
        again: Vec::new(),
    }
}

/// Refuses an image for a command that takes none.
fn refuse_image(task: Task, image: Option<&str>) -> Result<()> {
    match (task, image) {
        (Task::Swap, _) | (_, None) => Ok(()),
        (task, Some(_)) => {
            let name = task.name();
            Err(Error::usage(format!("IMAGE is for swap; more arguments of {name} go behind --")))
        }
    }
}

/// What the pod is to run, as it was typed.
struct Line {
    task: Task,
    disk: String,
    source: Option<String>,
    passed: Passed,
    rest: Vec<String>,
    /// Whether its image comes through standard input.
    streamed: bool,
    /// Whether somebody is there to ask.
    asks: bool,
    /// Options of every command, to be added where they are not given.
    output: Vec<String>,
}

impl Line {
    /// Checks it by the program's own definition.
    fn work(self, files: bool, ui: &dyn Ui) -> Result<Work> {
        let devices = Devices::of(&self.disk)?;
        let name = self.task.name();
        refuse_image(self.task, self.source.as_deref())?;
        let mut line = vec![name.clone(), self.disk];
        line.extend(self.source);
        line.extend(options(&self.passed, ui)?);
        line.extend(self.rest);
        if self.task == Task::Swap && line.len() == 2 {
            return Err(Error::usage("which image? --schematic with --talos, or IMAGE"));
        }
        if let Some(word) = line.iter().find(|word| word.chars().any(char::is_control)) {
            return Err(Error::usage(format!("{word:?} has control characters in it")));
        }

        let parsed = parse(&line)?;
        let needs = Needs::of(&parsed.command, files, self.streamed)
            .while_doing(|| format!("checking `bootsurgeon {}`", line.join(" ")))?;
        // Where nobody is there to ask, the log is the report.
        if needs.confirmation && !self.asks {
            line.push("--yes".into());
        }
        for option in self.output {
            let given = match option.as_str() {
                "--json" => parsed.global.json,
                _ => parsed.global.quiet || parsed.global.verbose > 0,
            };
            if !given {
                line.push(option);
            }
        }
        let parsed = parse(&line)?;
        if Needs::of(&parsed.command, files, self.streamed)?.confirmation && !self.asks {
            return Err(Error::usage("nothing can be added behind the arguments that were given after --"));
        }
        Ok(Work { command: name, args: line, devices, efivars: needs.efivars })
    }
}

/// The options of `swap` that were given, fit for a pod: a schematic's file becomes its ID.
fn options(passed: &Passed, ui: &dyn Ui) -> Result<Vec<String>> {
    let mut line = Vec::new();
    for (id, words) in &passed.options {
        match (id.as_str(), words.as_slice()) {
            ("schematic", [option, file]) if !is_id(file) => {
                let id = command::schematic_of(Path::new(file), &[], &[])?.id;
                ui.event(Event::Warning(format!(
                    "the pod asks for schematic {id}: if the factory does not have it yet, run \
                     `bootsurgeon schematic create {file}` first"
                )));
                line.extend([option.clone(), id]);
            }
            _ => line.extend(words.iter().cloned()),
        }
    }
    Ok(line)
}

/// As the program in the pod will parse it, where none of the variables of this place are set.
fn parse(line: &[String]) -> Result<Cli> {
    let bare = |command: clap::Command| command.mut_args(|arg| arg.env(Resettable::Reset));
    let definition = Cli::command().mut_subcommands(bare);
    let words = std::iter::once("bootsurgeon").chain(line.iter().map(String::as_str));
    definition.try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|e| {
        let text = e.render().to_string();
        let reason = text.split("\n\n").next().unwrap_or_default().trim().trim_start_matches("error: ");
        let reason: Vec<&str> = reason.split_whitespace().collect();
        Error::usage(format!("the pod would run `bootsurgeon {}`: {}", line.join(" "), reason.join(" ")))
            .advise(format!("see `bootsurgeon {} --help`", line.first().map_or("", String::as_str)))
    })
}

/// What a command line needs in a pod.
struct Needs {
    /// It changes something, and does not say `--yes`.
    confirmation: bool,
    /// It reads EFI variables.
    efivars: bool,
}

impl Needs {
    /// Refuses what cannot work in a pod: the container holds the program and the roots of TLS, and no file of the
    /// user's.
    fn of(command: &Command, files: bool, streamed: bool) -> Result<Self> {
        let unconfirmed = |change: &super::args::ChangeArgs| !change.yes && !change.dry_run;
        Ok(match command {
            Command::Swap(a) => {
                mounted("--ca", a.factory.network.ca.as_deref(), files)?;
                no_file("--auth-file", a.factory.network.auth_file.as_deref())
                    .map_err(|e| e.advise("use --auth-secret"))?;
                no_file("--backup-to", a.backup_to.as_deref())?;
                no_file("--cache", a.cache.cache.as_deref())?;
                let devices = |path: &str| Devices::of(path).ok();
                // The node's devices are the only files of the node that the pod has.
                let is_there = |image: &str| {
                    devices(image)
                        .is_some_and(|has| a.disk.disk.as_ref().and_then(|d| devices(d.to_str()?)) == Some(has))
                };
                match (&a.image, &a.trust.schematic) {
                    (Some(image), _) if !(is_url(image) || is_there(image) || streamed && image == "-") => {
                        return Err(no_such_file("IMAGE", image));
                    }
                    (None, Some(schematic)) => asset(schematic, &a.trust, &a.factory.url)?,
                    _ => {}
                }
                Self { confirmation: unconfirmed(&a.change), efivars: trust(&a.trust, files)? }
            }
            Command::Restore(a) => {
                Self { confirmation: !a.list && unconfirmed(&a.change), efivars: trust(&a.trust, files)? }
            }
            Command::Prune(a) => {
                Self { confirmation: unconfirmed(&a.change), efivars: efivars(a.variables.efivars.as_deref())? }
            }
            Command::Pin(a) => {
                Self { confirmation: unconfirmed(&a.change), efivars: efivars(a.variables.efivars.as_deref())? }
            }
            Command::Recover(a) => Self { confirmation: unconfirmed(&a.change), efivars: false },
            Command::Status(a) => Self { confirmation: false, efivars: efivars(a.variables.efivars.as_deref())? },
            Command::Doctor(a) => {
                if a.root != Path::new("/") {
                    return Err(no_such_file("--root", &a.root.display().to_string()));
                }
                Self { confirmation: false, efivars: efivars(a.variables.efivars.as_deref())? }
            }
            _ => return Err(Error::usage("this command does not run in a pod")),
        })
    }
}

fn trust(args: &TrustArgs, files: bool) -> Result<bool> {
    args.machine_config
        .iter()
        .try_for_each(|file| no_file("--machine-config", Some(file)))
        .map_err(|e| e.advise("check it here, before: `bootsurgeon config check FILE… --image IMAGE`"))?;
    args.cert.iter().try_for_each(|cert| mounted("--cert", Some(cert), files))?;
    if let Some(file) = args.schematic.as_ref().filter(|s| !is_id(s)) {
        return Err(no_such_file("--schematic", file));
    }
    efivars(args.variables.efivars.as_deref())
}

/// Whether the EFI variables are needed. The container has them at their usual place or not at all.
fn efivars(dir: Option<&Path>) -> Result<bool> {
    match dir {
        None => Ok(true),
        Some(dir) if dir == Path::new(crate::efivars::DEFAULT_DIR) => Ok(true),
        Some(dir) if dir == Path::new("none") || dir == Path::new("esp") => Ok(false),
        Some(dir) => Err(no_such_file("--efivars", &dir.display().to_string())),
    }
}

/// Whether the factory could be asked: the address is built as in the pod, and nobody is asked.
fn asset(schematic: &str, trust: &TrustArgs, factory: &str) -> Result<()> {
    let talos = trust.talos.as_deref().ok_or_else(|| Error::usage("without IMAGE, --talos is needed"))?;
    let arch = trust.arch.map_or("arm64", |arch| arch.name());
    Factory::new(factory, &Options::default())?.asset_url(Asset::Uki, schematic, talos, arch).map(drop)
}

/// A file that the container has if a ConfigMap gives it.
fn mounted(option: &str, path: Option<&Path>, files: bool) -> Result<()> {
    match path {
        Some(path) if !(files && path.starts_with(FILES_DIR)) => Err(no_such_file(option, &path.display().to_string())
            .advise(format!(
                "kubectl -n NAMESPACE create configmap NAME --from-file=FILE, then --files NAME {option} \
                    {FILES_DIR}/FILE"
            ))),
        _ => Ok(()),
    }
}

fn no_file(option: &str, path: Option<&Path>) -> Result<()> {
    path.map_or(Ok(()), |path| Err(no_such_file(option, &path.display().to_string())))
}

fn no_such_file(option: &str, path: &str) -> Error {
    Error::usage(format!("{option} {path}: that is a path of this machine, and the pod has no such file"))
}
