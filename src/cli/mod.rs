//! The command line: parse, call [`crate::command`], render, exit code. The only part of the crate that prints.

mod args;
mod pod;
mod render;
mod ui;

use crate::command::{
    self, Change, CopyOut, DiskRequest, FactoryImage, FactoryRequest, ImageRequest, ImageSource, TrustRequest,
    VariablesChoice,
};
use crate::factory::{Asset, Auth, Cache, Options, is_url};
use crate::verify::Verdict;
use crate::{Context, Kind, Result};
use args::{
    CacheArgs, ChangeArgs, Cli, Command, DiskArgs, FactoryArgs, ImageArgs, Kind as AssetKind, NetworkArgs,
    SchematicCommand, SwapArgs, TrustArgs, Via,
};
use clap::{CommandFactory, Parser};
use render::{Backups, Output};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use ui::Terminal;

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // `--help` and `--version` are no errors, and clap knows.
            let code = if e.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            let _ = e.print();
            // Who asks for JSON reads stdout; the option itself may be among what could not be parsed.
            if e.use_stderr() && std::env::args_os().any(|a| a == "--json") {
                let text = e.render().to_string();
                let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
                render::error_document(&crate::Error::usage(message).advise("see --help"));
            }
            return ExitCode::from(code);
        }
    };
    let terminal = Terminal::new(&cli.global);
    let output = Output::new(&cli.global);
    match dispatch(cli.command, &terminal, &output) {
        Ok(code) => code,
        Err(e) if e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Err(e) => {
            terminal.finish();
            output.error(&e);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

fn dispatch(command: Command, ui: &Terminal, out: &Output) -> Result<ExitCode> {
    crate::pod::rollout::check()?;
    match command {
        Command::Schematic(c) => schematic(c, ui, out)?,
        Command::Fetch(a) => {
            let request = command::Fetch {
                factory: factory(&a.factory)?,
                schematic: a.schematic,
                talos: a.talos,
                arch: a.arch,
                asset: asset(a.kind),
                out: a.out,
            };
            out.show(&request.run(ui)?)?;
        }
        Command::Extract(a) => {
            out.show(&command::Extract { image: image(a.image)?, out: a.out, force: a.force }.run(ui)?)?;
        }
        Command::Inspect(a) => {
            let image = image(ImageArgs { image: a.path, uki: a.uki, network: a.network })?;
            out.show(&command::Inspect { image }.run(ui)?)?;
        }
        Command::Verify(a) => {
            let variables = variables(a.trust.efivars.clone());
            let efivars = match &variables {
                VariablesChoice::None => None,
                VariablesChoice::Unsaid => Some(PathBuf::from(crate::efivars::DEFAULT_DIR)),
                VariablesChoice::Dir(dir) => Some(dir.clone()),
                VariablesChoice::Esp => {
                    return Err(crate::Error::usage("--efivars esp: `verify` looks at no ESP for variables"));
                }
            };
            let disk = |path| command::DiskRequest { path, partition: None, efivars: variables.clone() };
            let request = command::Verify {
                image: image(a.image)?,
                installed: a.installed.map(disk),
                trust: trust(a.trust, a.require_pcr_key, a.sbat_level),
                efivars,
            };
            let report = request.run(ui)?;
            out.show(&report)?;
            if report.verdict == Verdict::Reject {
                return Ok(ExitCode::from(Kind::Rejected.exit_code()));
            }
        }
        Command::Diff(a) => {
            let open = |path: String| image(ImageArgs { image: path, uki: None, network: a.network.clone() });
            out.show(&command::Diff { old: open(a.old)?, new: open(a.new)? }.run(ui)?)?;
        }
        Command::Status(a) => out.show(&command::status(&disk(a.disk, a.efivars), ui)?)?,
        Command::Doctor(a) => {
            let request = command::Doctor {
                disks: a.disks,
                partition: a.partition,
                efivars: variables(a.efivars),
                root: a.root,
                error: a.error,
            };
            out.show(&request.run(ui)?)?;
        }
        Command::Swap(a) => out.show(&swap(*a)?.run(ui)?)?,
        Command::Prune(a) => {
            let request = command::Prune {
                disk: disk(a.disk, a.efivars),
                change: change(&a.change),
                delete: a.delete,
                keep_backups: a.keep_backups,
                no_fallback: a.no_fallback,
            };
            out.show(&request.run(ui)?)?;
        }
        Command::Restore(a) => {
            let disk = disk(a.disk, a.trust.efivars.clone());
            if a.list {
                out.show(&Backups { backups: command::list_backups(&disk, ui)? })?;
            } else {
                let trust = trust(a.trust, false, None);
                let change = change(&a.change);
                let request = command::Restore { disk, backup: a.backup, trust, change, node: a.node.node };
                out.show(&request.run(ui)?)?;
            }
        }
        Command::Recover(a) => {
            out.show(&command::Recover { disk: disk(a.disk, None), change: change(&a.change) }.run(ui)?)?;
        }
        Command::Pod(c) => out.show(&pod::manifest(c, ui)?)?,
        #[cfg(feature = "demo")]
        Command::Demo { keep } => {
            let report = crate::demo::Demo { keep }.run(ui, &mut |step| out.show_part(step))?;
            out.show(&report)?;
            if !report.proven {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bootsurgeon", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            out.show(&render::Completions { shell: shell.to_string(), script })?;
        }
        Command::Man { dir } => {
            clap_mangen::generate_to(Cli::command(), &dir)
                .while_doing(|| format!("writing the manual pages into {}", dir.display()))
                .map_err(|e| e.advise("the directory must exist and be writable"))?;
            out.show(&render::ManPages { dir: dir.display().to_string() })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn schematic(command: SchematicCommand, ui: &Terminal, out: &Output) -> Result<()> {
    out.show(&match command {
        SchematicCommand::Id { file, add_extension, extra_kernel_arg } => {
            command::schematic_of(&file, &add_extension, &extra_kernel_arg)?
        }
        SchematicCommand::Create { file, factory: f } => command::create_schematic(&file, &factory(&f)?, ui)?,
        SchematicCommand::Show { id, factory: f } => command::show_schematic(&id, &factory(&f)?, ui)?,
    })
}

fn swap(a: SwapArgs) -> Result<command::Swap> {
    let image = match a.image {
        Some(path) => ImageSource::Named(image(ImageArgs { image: path, uki: a.uki, network: a.factory.network })?),
        None => {
            let assets = match a.via {
                Via::Auto => vec![Asset::Uki, Asset::Iso],
                Via::Uki => vec![Asset::Uki],
                Via::Iso => vec![Asset::Iso],
            };
            let FactoryRequest { url, network } = factory(&a.factory)?;
            let CacheArgs { cache, offline } = a.cache;
            let cache = cache.map(|dir| Cache::new(dir, offline));
            ImageSource::Factory(FactoryImage { url, assets, network, cache, uki: a.uki })
        }
    };
    Ok(command::Swap {
        disk: disk(a.disk, a.trust.efivars.clone()),
        image,
        trust: trust(a.trust, a.require_pcr_key, None),
        change: change(&a.change),
        target: a.target,
        keep_duplicates: a.keep_duplicates,
        keep_backups: a.keep_backups,
        backup_to: a.backup_to,
        allow_halt_if_installed: a.allow_halt_if_installed,
        node: a.node.node,
    })
}

fn disk(args: DiskArgs, efivars: Option<PathBuf>) -> DiskRequest {
    DiskRequest { path: args.disk, partition: args.partition, efivars: variables(efivars) }
}

fn variables(efivars: Option<PathBuf>) -> VariablesChoice {
    match efivars {
        None => VariablesChoice::Unsaid,
        Some(dir) if dir.as_os_str() == "none" => VariablesChoice::None,
        Some(dir) if dir.as_os_str() == "esp" => VariablesChoice::Esp,
        Some(dir) => VariablesChoice::Dir(dir),
    }
}

fn change(args: &ChangeArgs) -> Change {
    let out = args.out.clone().map(|file| CopyOut { file, force: args.force });
    Change { dry_run: args.dry_run, yes: args.yes, out }
}

fn image(args: ImageArgs) -> Result<ImageRequest> {
    let network = network(&args.network, &args.image)?;
    Ok(ImageRequest { image: args.image, uki: args.uki, network })
}

fn factory(args: &FactoryArgs) -> Result<FactoryRequest> {
    Ok(FactoryRequest { url: args.url.clone(), network: network(&args.network, &args.url)? })
}

/// How to talk to the server of `url`; credentials go nowhere else. A path of a file needs none.
fn network(args: &NetworkArgs, url: &str) -> Result<Options> {
    let auth = match &args.auth_file {
        _ if !is_url(url) => None,
        Some(file) => Some(Auth::from_file(url, file)?),
        None => Auth::from_env(url)?,
    };
    let overall = args.timeout.map(Duration::from_secs);
    Ok(Options { auth, ca_file: args.ca.clone(), overall, ..Options::default() })
}

fn asset(kind: AssetKind) -> Asset {
    match kind {
        AssetKind::Iso => Asset::Iso,
        AssetKind::Uki => Asset::Uki,
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
    }
}
