//! The command line: parse, call [`crate::command`], render, exit code. The only part of the crate that prints.

mod args;
mod render;
mod ui;

use crate::command::{
    self, Change, DiskRequest, FactoryRequest, ImageRequest, ImageSource, TrustRequest, VariablesChoice,
};
use crate::factory::{Asset, Auth, Cache, Options};
use crate::verify::Verdict;
use crate::{Kind, Result};
use args::{
    CacheArgs, ChangeArgs, Cli, Command, DiskArgs, FactoryArgs, ImageArgs, Kind as AssetKind, SchematicCommand,
    SwapArgs, TrustArgs, Via,
};
use clap::{CommandFactory, Parser};
use render::{Backups, Output};
use std::path::PathBuf;
use std::process::ExitCode;
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
            let image = image(ImageArgs { image: a.path, uki: a.uki })?;
            out.show(&command::Inspect { image }.run(ui)?)?;
        }
        Command::Verify(a) => {
            let variables = variables(a.trust.efivars.clone());
            let efivars = match &variables {
                VariablesChoice::None => None,
                VariablesChoice::Unsaid => Some(PathBuf::from(crate::efivars::DEFAULT_DIR)),
                VariablesChoice::Dir(dir) => Some(dir.clone()),
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
            let open = |path: String| image(ImageArgs { image: path, uki: None });
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
                out.show(&Backups { backups: command::list_backups(&disk)? })?;
            } else {
                let trust = trust(a.trust, false, None);
                out.show(&command::Restore { disk, backup: a.backup, trust, change: change(&a.change) }.run(ui)?)?;
            }
        }
        Command::Recover(a) => {
            out.show(&command::Recover { disk: disk(a.disk, None), change: change(&a.change) }.run(ui)?)?;
        }
        #[cfg(feature = "demo")]
        Command::Demo { keep } => {
            let report = crate::demo::Demo { keep }.run(ui, &mut |step| out.show_part(step))?;
            out.show(&report)?;
            if !report.proven {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "bootsurgeon", &mut std::io::stdout());
        }
        Command::Man { dir } => clap_mangen::generate_to(Cli::command(), dir)?,
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
    let FactoryRequest { url, network } = factory(&a.factory)?;
    let image = match a.image {
        Some(image) => ImageSource::Named(ImageRequest { image, uki: a.uki, network }),
        None => {
            let assets = match a.via {
                Via::Auto => vec![Asset::Uki, Asset::Iso],
                Via::Uki => vec![Asset::Uki],
                Via::Iso => vec![Asset::Iso],
            };
            let CacheArgs { cache, offline } = a.cache;
            let cache = cache.map(|dir| Cache::new(dir, offline));
            ImageSource::Factory { url, assets, network, cache, uki: a.uki }
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
    })
}

fn disk(args: DiskArgs, efivars: Option<PathBuf>) -> DiskRequest {
    DiskRequest { path: args.disk, partition: args.partition, efivars: variables(efivars) }
}

fn variables(efivars: Option<PathBuf>) -> VariablesChoice {
    match efivars {
        None => VariablesChoice::Unsaid,
        Some(dir) if dir.as_os_str() == "none" => VariablesChoice::None,
        Some(dir) => VariablesChoice::Dir(dir),
    }
}

fn change(args: &ChangeArgs) -> Change {
    Change { dry_run: args.dry_run, yes: args.yes }
}

fn image(args: ImageArgs) -> Result<ImageRequest> {
    let network = match args.image.starts_with("http") {
        true => Options { auth: Auth::from_env(&args.image)?, ..Options::default() },
        false => Options::default(),
    };
    Ok(ImageRequest { image: args.image, uki: args.uki, network })
}

fn factory(args: &FactoryArgs) -> Result<FactoryRequest> {
    let network = Options { auth: Auth::from_env(&args.url)?, ca_file: args.ca.clone(), ..Options::default() };
    Ok(FactoryRequest { url: args.url.clone(), network })
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
