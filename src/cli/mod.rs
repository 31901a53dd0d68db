//! The command line: parse, call [`crate::command`], render, exit code. The only part of the crate that prints.

mod args;
mod completion;
mod config;
mod help;
mod man;
mod pod;
mod progress;
mod render;
mod schematic;
mod stream;
mod ui;

use crate::block::{check_free, check_not_itself, write_whole};
use crate::command::{
    self, Change, CopyOut, DiskRequest, EditFrom, Event, FactoryImage, FactoryRequest, FileHash, Flavour, ImageRequest,
    ImageSource, TrustRequest, Ui as _, VariablesChoice,
};
use crate::config::Fit;
use crate::doctor::Severity;
use crate::factory::{Asset, Auth, Cache, Options, PUBLIC_FACTORY, is_url, show_urls_in};
use crate::harmless::harmless;
use crate::plan::BoardSetOptions;
use crate::surgery::{Direction, LostFiles};
use crate::verify::Verdict;
use crate::{Context, Error, Kind, Result};
use args::{
    AssetKind, CacheArgs, ChangeArgs, Cli, Command, DiskArgs, FactoryArgs, FetchAsset, Global, ImageArgs, LoaderArgs,
    NetworkArgs, SwapArgs, SwapAsset, TrustArgs, Via, WrittenDiskArgs,
};
use clap::FromArgMatches;
use render::Output;
use schematic::SchematicCommand;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use ui::Terminal;

/// The name under which kubectl finds the program as a plugin of its own.
const PLUGIN: &str = "kubectl-bootsurgeon";
/// Options that ask about the program itself.
const ABOUT_ITSELF: [&str; 4] = ["--help", "-h", "--version", "-V"];

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == completion::COMMAND) {
        return completion::run(words);
    }
    let cli = match parse(words_typed().into_iter()) {
        Ok(cli) => cli,
        Err(e) => return not_understood(&e),
    };
    let terminal = Terminal::new(&cli.global);
    let output = Output::new(&cli.global);
    match dispatch(cli.command, &cli.global, &terminal, &output) {
        Ok(code) => code,
        Err(e) => {
            let e = for_this_pod(e);
            terminal.finish();
            output.error(&e);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

/// The command line. As a plugin of kubectl (`kubectl bootsurgeon swap --node …`) the program works on nodes: what is not
/// another command of it is `pod run`.
fn words_typed() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().map(PathBuf::from).unwrap_or_default();
    if name.file_stem().is_some_and(|name| name == PLUGIN) {
        let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
        if first.starts_with('-') && !ABOUT_ITSELF.contains(&first) || pod::is_task(first) {
            words.splice(1..1, ["pod", "run"].map(OsString::from));
        }
    }
    words
}

/// Of an error in a pod of this program's own making the advice names commands for a pod like it: nobody can type
/// anything in this one.
fn for_this_pod(e: Error) -> Error {
    // The manifest puts the disk behind the command.
    let disk = std::env::args_os().nth(2).and_then(|disk| disk.into_string().ok());
    let (Some(pod), Some(disk)) = (crate::container::ThisPod::here(), disk) else { return e };
    match e.advice().map(|advice| pod.reworded(advice, &disk)) {
        Some(advice) => e.instead_advise(advice),
        None => e,
    }
}

/// What was typed.
fn parse(words: impl Iterator<Item = OsString>) -> std::result::Result<Cli, clap::Error> {
    let mut command = help::command();
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command))
}

/// Says why a command line makes no sense, or prints the help that was requested.
fn not_understood(e: &clap::Error) -> ExitCode {
    // `--help` and `--version` are no errors, and clap knows.
    if !e.use_stderr() {
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    // What was typed may hold other people's names, and URLs with passwords: the message is about a line without them.
    let args = words_typed().into_iter().map(|arg| harmless(&show_urls_in(&arg.to_string_lossy())).into_owned());
    let without = parse(args.map(OsString::from)).err().filter(clap::Error::use_stderr);
    let e = without.as_ref().unwrap_or(e);
    let _ = e.print();
    let shown = e.render().to_string();
    // Who asks for JSON reads stdout; the option itself may be among what could not be parsed.
    if std::env::args_os().any(|a| a == "--json") {
        let message = shown.trim().strip_prefix("error: ").unwrap_or(shown.trim());
        render::error_document(&crate::Error::usage(message).advise("see --help"));
    }
    ExitCode::from(Kind::Usage.exit_code())
}

fn dispatch(command: Command, global: &Global, ui: &Terminal, out: &Output) -> Result<ExitCode> {
    crate::pod::rollout::check()?;
    match command {
        Command::Schematic(c) => schematic_command(c, ui, out)?,
        Command::Fetch(a) => {
            let request = command::Fetch {
                factory: factory(&a.factory)?,
                schematic: a.schematic,
                talos: a.talos,
                arch: a.arch,
                asset: asset(a.kind, a.asset),
                out: a.out,
                force: a.force,
            };
            out.show(&request.run(ui)?)?;
        }
        Command::Extract(a) => {
            out.show(
                &command::Extract { image: image(a.image, &usual_factory())?, out: a.out, force: a.force }.run(ui)?,
            )?;
        }
        Command::Inspect(a) => {
            let image = image(
                ImageArgs { image: a.path, uki: a.uki, arrival: a.arrival, network: a.network },
                &usual_factory(),
            )?;
            out.show(&command::Inspect { image }.run(ui)?)?;
        }
        Command::Verify(a) => {
            let variables = variables(a.trust.variables.efivars.clone());
            let efivars = match &variables {
                VariablesChoice::None => None,
                VariablesChoice::Unspecified => Some(PathBuf::from(crate::efivars::DEFAULT_DIR)),
                VariablesChoice::Dir(dir) => Some(dir.clone()),
                VariablesChoice::Esp => {
                    return Err(crate::Error::usage("--efivars esp: `verify` looks at no ESP for variables"));
                }
            };
            let disk = |path: PathBuf| DiskRequest { efivars: variables.clone(), ..DiskRequest::new(path) };
            let request = command::Verify {
                image: image(a.image, &usual_factory())?,
                installed: a.installed.map(disk),
                trust: trust(a.trust, a.require_pcr_key, a.sbat_level),
                efivars,
                hash: if global.json || global.verbose > 0 { FileHash::Wanted } else { FileHash::Unwanted },
            };
            let report = request.run(ui)?;
            out.show(&report)?;
            if report.verdict == Verdict::Reject {
                return Ok(ExitCode::from(Kind::Rejected.exit_code()));
            }
        }
        Command::Diff(a) => {
            let usual = usual_factory();
            let open = |path: String| {
                let args =
                    ImageArgs { image: path, uki: None, arrival: Default::default(), network: a.network.clone() };
                image(args, &usual).map(|image| ImageRequest { arrival: None, ..image })
            };
            out.show(&command::Diff { old: open(a.old)?, new: open(a.new)? }.run(ui)?)?;
        }
        Command::Status(a) => {
            let file = a.svg.as_deref();
            let drawing = || file.map_or(String::new(), |file| format!("drawing {}", file.display()));
            if let Some(file) = file {
                check_not_itself(file, &a.disk.disk, "the disk image").while_doing(drawing)?;
                check_free(file, a.force).while_doing(drawing)?;
            }
            let request = disk(a.disk, a.variables.efivars);
            let report = match a.no_hashes {
                true => command::status_without_hashes(&request, ui)?,
                false => command::status(&request, ui)?,
            };
            if let Some(file) = file {
                write_whole(file, render::picture(&report).as_bytes(), a.force).while_doing(drawing)?;
            }
            out.show(&report)?;
        }
        Command::Doctor(a) => {
            let request = command::Doctor {
                disks: a.disks,
                partition: a.partition,
                efivars: variables(a.variables.efivars),
                root: a.root,
                error: a.error,
            };
            let report = request.run(ui)?;
            out.show(&report)?;
            if a.exit_code && report.worst == Severity::Problem {
                return Ok(ExitCode::from(Kind::Unsafe.exit_code()));
            }
            if a.exit_code && !report.unread.is_empty() {
                return Ok(ExitCode::from(Kind::Io.exit_code()));
            }
        }
        Command::Config(config::ConfigCommand::Check(a)) => {
            let image = a.image().map(|args| image(args, &usual_factory())).transpose()?;
            let image = image.map(|image| ImageRequest { arrival: None, ..image });
            let report = command::CheckConfig { files: a.files, image }.run(ui)?;
            out.show(&report)?;
            if report.config.verdict == Fit::DoesNotFit {
                return Ok(ExitCode::from(Kind::Rejected.exit_code()));
            }
        }
        Command::Swap(a) => {
            let report = swap(*a)?.run(ui)?;
            out.show_change(&report, report.committed && report.out.is_none())?;
        }
        Command::Prune(a) => {
            let request = command::Prune {
                disk: written_disk(a.disk, a.variables.efivars, None)?.0,
                change: change(&a.change),
                delete: a.delete,
                keep_backups: a.keep_backups,
                no_fallback: a.no_fallback,
            };
            let report = request.run(ui)?;
            out.show_change(&report, report.committed && report.out.is_none())?;
        }
        Command::Restore(a) => {
            let (disk, backup) = written_disk(a.disk, a.trust.variables.efivars.clone(), Some(a.backup))?;
            if a.list {
                out.show(&command::list_backups(&disk, ui)?)?;
            } else {
                let trust = trust(a.trust, false, None);
                let change = change(&a.change);
                let set = BoardSetOptions { accept_mixture: a.accept_mixture, ..BoardSetOptions::default() };
                let board_files = a.with_board_files.then_some(set);
                let node = a.node.for_talosctl();
                let request = command::Restore { disk, backup, trust, change, board_files, node };
                let report = request.run(ui)?;
                out.show_change(&report, report.committed && report.out.is_none())?;
            }
        }
        Command::Loader(a) => {
            let report = loader(*a)?.run(ui)?;
            out.show_change(&report, report.committed && report.out.is_none())?;
        }
        Command::Pin(a) => {
            let (disk, entry) = written_disk(a.disk, a.variables.efivars, Some(a.entry))?;
            if a.clear == entry.is_some() {
                let what = if a.clear { "--clear goes with no ENTRY" } else { "there is no ENTRY, and no --clear" };
                return Err(Error::usage(what).advise("see --help"));
            }
            let report = command::Pin { disk, change: change(&a.change), entry }.run(ui)?;
            out.show_change(&report, report.committed && report.out.is_none())?;
        }
        Command::Recover(a) => {
            let lost = match (a.salvage, a.free_lost) {
                (true, _) => LostFiles::Salvage,
                (_, true) => LostFiles::Free,
                _ => LostFiles::Keep,
            };
            let (disk, change) = (written_disk(a.disk, None, None)?.0, change(&a.change));
            let direction = match (a.forward, a.back) {
                (true, _) => Some(Direction::Forward),
                (_, true) => Some(Direction::Back),
                _ => None,
            };
            let (set_aside, truth) = (a.set_aside, a.truth);
            let report = command::Recover { disk, change, lost, set_aside, direction, truth }.run(ui)?;
            out.show_change(&report, report.committed && report.out.is_none())?;
        }
        Command::Pod(c) => return pod::run(c, global, ui, out),
        Command::Rollout(a) => return pod::rollout::run(*a, ui, out),
        #[cfg(feature = "demo")]
        Command::Demo { keep, scene } => {
            let report = crate::demo::Demo { keep, scene }.run(ui, &mut |step| out.show_part(step))?;
            out.show(&report)?;
            if !report.proven {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Completions { shell } => {
            out.show(&render::Completions { shell: shell.to_string(), script: completion::script(shell) })?;
        }
        Command::Man { dir, force } => {
            man::write(&dir, force)
                .while_doing(|| format!("writing the manual pages into {}", dir.display()))
                .map_err(|e| e.advise("the directory must exist and be writable"))?;
            out.show(&render::ManPages { dir: dir.display().to_string() })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn schematic_command(command: SchematicCommand, ui: &Terminal, out: &Output) -> Result<()> {
    let report = match command {
        SchematicCommand::Id { file, add_extension, extra_kernel_arg } => {
            return out.show(&command::schematic_of(&file, &add_extension, &extra_kernel_arg)?);
        }
        SchematicCommand::Edit { file, from, add_extension, remove_extension, extra_kernel_arg, remove_kernel_arg } => {
            let from = match (file, from) {
                (_, Some(path)) => EditFrom::Disk(DiskRequest::new(path)),
                (file, None) => EditFrom::File(file.unwrap_or_else(|| "-".into())),
            };
            let edit = command::EditSchematic {
                from,
                add_extensions: add_extension,
                remove_extensions: remove_extension,
                add_kernel_args: extra_kernel_arg,
                remove_kernel_args: remove_kernel_arg,
            };
            edit.run(ui)?
        }
        SchematicCommand::Create { file, factory: f } => command::create_schematic(&file, &factory(&f)?, ui)?,
        SchematicCommand::Show { id, factory: f } => command::show_schematic(&id, &factory(&f)?, ui)?,
    };
    // The YAML alone goes down a pipe.
    ui.event(Event::Note(report.id.clone()));
    out.show(&render::Yaml(report))
}

fn swap(a: SwapArgs) -> Result<command::Swap> {
    let (disk, named) = written_disk(a.disk, a.trust.variables.efivars.clone(), Some(a.image))?;
    if named.is_none() && a.trust.schematic.is_none() {
        return Err(
            crate::Error::usage("there is no IMAGE, and no --schematic to ask the factory for").advise("see --help")
        );
    }
    let image = match named {
        None if a.arrival.bytes.is_some() || a.arrival.sha256.is_some() => {
            return Err(Error::usage("--bytes and --sha256 say what has to arrive through a pipe, and there is none"));
        }
        Some(path) => {
            let args = ImageArgs { image: path, uki: a.uki, arrival: a.arrival, network: a.factory.network };
            ImageSource::Named(image(args, &a.factory.url)?)
        }
        None => {
            let assets = match a.via {
                Via::Auto => vec![Asset::Uki, Asset::Iso],
                Via::Uki => vec![Asset::Uki],
                Via::Iso => vec![Asset::Iso],
                Via::Installer if a.cache.cache.is_none() => {
                    let error = Error::usage("an installer's image is read from a file, and there is no folder for it");
                    return Err(error.advise("name one with --cache DIR"));
                }
                Via::Installer => vec![Asset::Installer],
            };
            ImageSource::Factory(FactoryImage { uki: a.uki, ..factory_image(&a.factory, a.cache, a.asset, assets)? })
        }
    };
    let board_files = a.with_board_files.map(|pattern| command::BoardSetRequest {
        options: BoardSetOptions {
            only: (pattern != "*").then_some(pattern),
            overwrite: a.overwrite,
            accept_mixture: a.accept_mixture,
            time: 0,
        },
        installed_from: a.installed_from.map(command::ImageRequest::new),
    });
    Ok(command::Swap {
        disk,
        image,
        trust: trust(a.trust, a.require_pcr_key, None),
        change: change(&a.change),
        target: a.target,
        keep_duplicates: a.keep_duplicates,
        keep_backups: a.keep_backups,
        backup_to: a.backup_to,
        force: a.change.force,
        allow_halt_if_installed: a.allow_halt_if_installed,
        allow_extension_loss: a.allow_extension_loss,
        no_extension_check: a.no_extension_check,
        board_files,
        node: a.node.for_talosctl(),
    })
}

/// What the factory is asked for.
fn factory_image(args: &FactoryArgs, cache: CacheArgs, asset: SwapAsset, assets: Vec<Asset>) -> Result<FactoryImage> {
    let FactoryRequest { url, network } = factory(args)?;
    let cache = cache.cache.map(|dir| Cache::new(dir, cache.offline));
    let flavour = match asset {
        SwapAsset::Auto => Flavour::Auto,
        SwapAsset::Secureboot => Flavour::SecureBoot,
        SwapAsset::Plain => Flavour::Plain,
    };
    Ok(FactoryImage { url, assets, flavour, network, cache, uki: None })
}

fn loader(a: LoaderArgs) -> Result<command::ReplaceLoader> {
    let (disk, named) = written_disk(a.disk, a.variables.efivars, Some(a.image))?;
    if a.talos.is_some() && a.schematic.is_none() {
        return Err(Error::usage("--talos goes with --schematic: the factory is asked for both").advise("see --help"));
    }
    let image = match (named, &a.schematic) {
        (Some(path), None) => {
            let args = ImageArgs { image: path, uki: None, arrival: Default::default(), network: a.factory.network };
            ImageSource::Named(ImageRequest { arrival: None, ..image(args, &a.factory.url)? })
        }
        (None, Some(_)) => ImageSource::Factory(factory_image(&a.factory, a.cache, a.asset, vec![Asset::Iso])?),
        (None, None) => {
            let what = "there is no IMAGE, and no --schematic to ask the factory for";
            return Err(Error::usage(what).advise("see --help"));
        }
        (Some(image), Some(_)) => {
            return Err(Error::usage(format!("{image}: with --schematic the factory is asked, and no IMAGE is named"))
                .advise("see --help"));
        }
    };
    let trust = TrustRequest {
        cert: a.cert,
        schematic: a.schematic,
        talos: a.talos,
        arch: a.arch,
        allow_untrusted: a.allow_untrusted,
        ..TrustRequest::default()
    };
    Ok(command::ReplaceLoader {
        disk,
        image,
        trust,
        change: change(&a.change),
        allow_downgrade: a.allow_downgrade,
        keep_backups: a.keep_backups,
    })
}

fn disk(args: DiskArgs, efivars: Option<PathBuf>) -> DiskRequest {
    DiskRequest { partition: args.partition, efivars: variables(efivars), ..DiskRequest::new(args.disk) }
}

/// The disk of a command that writes, and the argument behind it, if the command has one (`Some`). With `--all-members`
/// there is no
/// `DISK`: the first argument is what would follow it.
fn written_disk(
    args: WrittenDiskArgs,
    efivars: Option<PathBuf>,
    next: Option<Option<String>>,
) -> Result<(DiskRequest, Option<String>)> {
    let mut members = args.all_members.into_iter();
    let Some(first) = members.next() else {
        let disk = DiskArgs { disk: args.disk.unwrap_or_default().into(), partition: args.partition };
        return Ok((self::disk(disk, efivars), next.flatten()));
    };
    if members.len() == 0 {
        return Err(crate::Error::usage("--all-members names one member: a mirror has two or more")
            .advise("name all of them, separated by commas: --all-members A,B"));
    }
    let next = match (args.disk, next) {
        (None, next) => next.flatten(),
        (Some(argument), Some(None)) => {
            Some(argument.into_string().map_err(|_| crate::Error::usage("an argument is not UTF-8"))?)
        }
        (Some(disk), _) => {
            return Err(crate::Error::usage(format!(
                "{disk:?} is one argument too many: --all-members stands in place of DISK"
            )));
        }
    };
    let request = DiskRequest {
        partition: args.partition,
        efivars: variables(efivars),
        other_members: members.collect(),
        ..DiskRequest::new(first)
    };
    Ok((request, next))
}

fn variables(efivars: Option<PathBuf>) -> VariablesChoice {
    match efivars {
        None => VariablesChoice::Unspecified,
        Some(dir) if dir.as_os_str() == "none" => VariablesChoice::None,
        Some(dir) if dir.as_os_str() == "esp" => VariablesChoice::Esp,
        Some(dir) => VariablesChoice::Dir(dir),
    }
}

fn change(args: &ChangeArgs) -> Change {
    let out = args.out.clone().map(|file| CopyOut { file, force: args.force });
    Change { dry_run: args.dry_run, yes: args.yes, out }
}

fn image(args: ImageArgs, factory: &str) -> Result<ImageRequest> {
    let network = network(&args.network, &args.image, factory)?;
    Ok(ImageRequest { image: args.image, uki: args.uki, network, arrival: Some(args.arrival.into()) })
}

fn factory(args: &FactoryArgs) -> Result<FactoryRequest> {
    Ok(FactoryRequest { url: args.url.clone(), network: network(&args.network, &args.url, &args.url)? })
}

/// The factory where a command has no option for it: the credentials in the environment are for this one.
fn usual_factory() -> String {
    std::env::var(args::FACTORY).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| PUBLIC_FACTORY.to_owned())
}

/// How to talk to the server of `url`. Credentials in a file that was named are for that server, those in the
/// environment for
/// `factory`; they go nowhere else. A path of a file needs none.
fn network(args: &NetworkArgs, url: &str, factory: &str) -> Result<Options> {
    let auth = match &args.auth_file {
        _ if !is_url(url) => None,
        Some(file) => Some(Auth::from_file(url, file)?),
        None => Auth::from_env(factory)?,
    };
    let overall = args.timeout.map(Duration::from_secs);
    let usual = Options::default();
    let retry_for = args.retry_for.map(Duration::from_secs);
    Ok(Options {
        auth,
        ca_file: args.ca.clone(),
        overall,
        retry_for: retry_for.unwrap_or(usual.retry_for),
        first_contact: retry_for.unwrap_or(usual.first_contact),
        ..usual
    })
}

fn asset(kind: AssetKind, of: FetchAsset) -> Asset {
    let signed = match kind {
        AssetKind::Iso => Asset::Iso,
        AssetKind::Uki => Asset::Uki,
        AssetKind::Installer => Asset::Installer,
    };
    match of {
        FetchAsset::Secureboot => signed,
        FetchAsset::Plain => signed.plain(),
    }
}

fn trust(args: TrustArgs, require_pcr_key: bool, sbat_level: Option<PathBuf>) -> TrustRequest {
    TrustRequest {
        cert: args.cert,
        schematic: args.schematic,
        talos: args.talos,
        arch: args.arch,
        require_extension: args.require_extension,
        allow_untrusted: args.allow_untrusted,
        require_pcr_key,
        sbat_level,
        machine_config: args.machine_config,
    }
}
