//! `pod …`: from what was typed to a checked request for [`crate::pod`].
//!
//! The command line that the pod will run is parsed by this program's own definition before it is printed. A mistake in it is
//! found here, and not by a pod that fails on a node.

mod args;

pub(super) use args::PodCommand;

use super::args::{Cli, Command, TrustArgs};
use crate::command::{self, Event, PodReport, Ui};
use crate::factory::{Asset, Factory, Options, is_id, is_url};
use crate::pod::{Devices, FILES_DIR, Setting, Work};
use crate::{Context, Error, Result};
use args::{Passed, Task, WorkArgs};
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};
use std::path::Path;

/// Makes the manifest.
pub(super) fn manifest(command: PodCommand, ui: &dyn Ui) -> Result<PodReport> {
    let (nodes, work) = match command {
        PodCommand::Manifest(a) => (command::Nodes::One(a.node), a.work),
        PodCommand::Job(a) => (command::Nodes::InTurn(a.nodes), a.work),
    };
    let devices = Devices::of(&work.disk)?;
    let (args, efivars) = command_line(&work, ui)?;
    let request = command::PodRequest {
        nodes,
        work: Work { command: work.command.name(), args, devices, efivars },
        setting: Setting {
            namespace: Some(work.namespace),
            name: work.name,
            image: work.container_image,
            pull_secret: work.pull_secret,
            auth_secret: work.auth_secret,
            files: work.files,
            pod_network: work.pod_network,
            env: work.env,
        },
    };
    request.run(ui)
}

/// The command line of the pod without the program's name, and whether its command reads EFI variables.
fn command_line(work: &WorkArgs, ui: &dyn Ui) -> Result<(Vec<String>, bool)> {
    let name = work.command.name();
    if work.source.is_some() && name != "swap" {
        return Err(Error::usage(format!("IMAGE is for swap; more arguments of {name} go behind --")));
    }
    let mut line = vec![name, work.disk.clone()];
    line.extend(work.source.clone());
    line.extend(options(&work.passed, ui)?);
    line.extend(work.rest.iter().cloned());
    if work.command == Task::Swap && line.len() == 2 {
        return Err(Error::usage("which image? --schematic with --talos, or IMAGE as an http(s) URL"));
    }
    if let Some(word) = line.iter().find(|word| word.chars().any(char::is_control)) {
        return Err(Error::usage(format!("{word:?} has control characters in it")));
    }

    let parsed = parse(&line)?;
    let files = work.files.is_some();
    let needs =
        Needs::of(&parsed.command, files).while_doing(|| format!("checking `bootsurgeon {}`", line.join(" ")))?;
    // Nobody is there to ask, and the log is the report.
    let more = [(needs.confirmation, "--yes"), (!parsed.global.json, "--json"), (quiet_enough(&parsed), "--quiet")];
    line.extend(more.into_iter().filter(|(wanted, _)| *wanted).map(|(_, word)| word.to_owned()));
    let parsed = parse(&line)?;
    if Needs::of(&parsed.command, files)?.confirmation || !parsed.global.json {
        return Err(Error::usage("nothing can be added behind the arguments that were given after --"));
    }
    Ok((line, needs.efivars))
}

fn quiet_enough(cli: &Cli) -> bool {
    !cli.global.quiet && cli.global.verbose == 0
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
    /// Refuses what cannot work in a pod: the container holds the program and the roots of TLS, and no file of the user's.
    fn of(command: &Command, files: bool) -> Result<Self> {
        let unconfirmed = |change: &super::args::ChangeArgs| !change.yes && !change.dry_run;
        Ok(match command {
            Command::Swap(a) => {
                mounted("--ca", a.factory.network.ca.as_deref(), files)?;
                no_file("--auth-file", a.factory.network.auth_file.as_deref())
                    .map_err(|e| e.advise("use --auth-secret"))?;
                no_file("--backup-to", a.backup_to.as_deref())?;
                no_file("--cache", a.cache.cache.as_deref())?;
                match (&a.image, &a.trust.schematic) {
                    (Some(image), _) if !is_url(image) => return Err(no_such_file("IMAGE", image)),
                    (None, Some(schematic)) => asset(schematic, &a.trust, &a.factory.url)?,
                    _ => {}
                }
                Self { confirmation: unconfirmed(&a.change), efivars: trust(&a.trust, files)? }
            }
            Command::Restore(a) => {
                Self { confirmation: !a.list && unconfirmed(&a.change), efivars: trust(&a.trust, files)? }
            }
            Command::Prune(a) => Self { confirmation: unconfirmed(&a.change), efivars: efivars(a.efivars.as_deref())? },
            Command::Recover(a) => Self { confirmation: unconfirmed(&a.change), efivars: false },
            Command::Status(a) => Self { confirmation: false, efivars: efivars(a.efivars.as_deref())? },
            Command::Doctor(a) => {
                if a.root != Path::new("/") {
                    return Err(no_such_file("--root", &a.root.display().to_string()));
                }
                Self { confirmation: false, efivars: efivars(a.efivars.as_deref())? }
            }
            _ => return Err(Error::usage("this command does not run in a pod")),
        })
    }
}

fn trust(args: &TrustArgs, files: bool) -> Result<bool> {
    args.cert.iter().try_for_each(|cert| mounted("--cert", Some(cert), files))?;
    if let Some(file) = args.schematic.as_ref().filter(|s| !is_id(s)) {
        return Err(no_such_file("--schematic", file));
    }
    efivars(args.efivars.as_deref())
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
        Some(path) if !(files && path.starts_with(FILES_DIR)) => {
            Err(no_such_file(option, &path.display().to_string()).advise(format!(
                "kubectl -n NAMESPACE create configmap NAME --from-file=FILE, then --files NAME {option} {FILES_DIR}/FILE"
            )))
        }
        _ => Ok(()),
    }
}

fn no_file(option: &str, path: Option<&Path>) -> Result<()> {
    path.map_or(Ok(()), |path| Err(no_such_file(option, &path.display().to_string())))
}

fn no_such_file(option: &str, path: &str) -> Error {
    Error::usage(format!("{option} {path}: that is a path of this machine, and the pod has no such file"))
}
