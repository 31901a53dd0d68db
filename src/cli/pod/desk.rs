//! `pod run`: from what was typed to a pod that runs, and back to a report and an exit code.

use super::args::{DeskArgs, Passed, RunArgs, Task};
use super::{Line, refuse_image, setting};
use crate::block::Arrival;
use crate::cli::args::Global;
use crate::cli::render::on_stderr;
use crate::cli::ui::Terminal;
use crate::command::{Cluster, DeskImage, ImageRequest, PodRun, Printed, PushSelf, Ui};
use crate::factory::is_url;
use crate::harmless::harmless;
use crate::pod::Setting;
use crate::{Code, Error, Result};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

/// What a program is carried into, where no image is named: the one of the runbook that this program replaces.
const SMALL_IMAGE: &str = "debian:12-slim";

/// Runs it.
pub(super) fn run(args: RunArgs, global: &Global, ui: &Terminal) -> Result<ExitCode> {
    let typed = typed(args.command, args.disk, args.words)?;
    let mut passed = args.passed;
    // What the node's own disk holds is there already: a half-done upgrade's image, say.
    let here = typed.source.as_deref().filter(|source| *source != typed.disk);
    let image = desk_image(here, &mut passed, ui)?;
    let source = match &image {
        Some(image) => {
            passed.add(arrival_options(&image.arrival));
            Some("-".to_owned())
        }
        None => typed.source,
    };
    let asks = ui.can_ask() && image.as_ref().is_none_or(|image| !image.is_stdin());
    let mut output = Vec::new();
    output.extend(global.json.then(|| "--json".to_owned()));
    output.extend(global.quiet.then(|| "--quiet".to_owned()));
    output.extend((global.verbose > 0).then(|| "--verbose".to_owned()));
    let setting = in_setting(setting(args.setting), &args.desk);
    let line = Line {
        task: args.command,
        disk: typed.disk,
        source,
        passed,
        rest: args.rest,
        streamed: image.is_some(),
        // A node that has nothing to do does not ask, and where nobody can answer it refuses by itself.
        asks: true,
        output,
    };
    let work = line.work(setting.files.is_some(), ui)?;
    let run = PodRun {
        node: args.node,
        asks: asks && changes(args.command),
        work,
        setting,
        cluster: Cluster { context: args.desk.context, kubeconfig: args.desk.kubeconfig },
        image,
        push_self: args.desk.push_self.then_some(PushSelf { binary: args.desk.binary }),
        keep: args.desk.keep_pod,
        wait: Duration::from_secs(args.desk.wait),
    };
    let mut failed = None;
    let end = run.run(ui, &mut |printed| {
        ui.finish();
        let printing = print(printed);
        failed = failed.take().or(printing.err().filter(|e| e.kind() != ErrorKind::BrokenPipe));
    })?;
    match failed {
        Some(e) if end.exit_code == 0 => Err(Error::from(e)
            .with_code(Code::Output)
            .while_doing("writing the report to standard output")
            .advise("only the report is lost: what was requested is done")),
        _ => Ok(ExitCode::from(end.exit_code)),
    }
}

fn changes(task: Task) -> bool {
    !matches!(task, Task::Status | Task::Doctor)
}

/// Prints what the pod's program prints. Whoever made its image may have chosen the text.
fn print(printed: Printed<'_>) -> std::io::Result<()> {
    match printed {
        Printed::Report(line) => {
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{}", harmless(line)).and_then(|()| stdout.flush())
        }
        Printed::Said(text) => {
            text.lines().for_each(|line| on_stderr(&format!("{}\n", harmless(line))));
            Ok(())
        }
    }
}

/// With a program that is carried there, the image is only what it runs in.
pub(super) fn in_setting(setting: Setting, desk: &DeskArgs) -> Setting {
    match (&setting.image, desk.push_self) {
        (None, true) => Setting { image: Some(SMALL_IMAGE.to_owned()), ..setting },
        _ => setting,
    }
}

struct Typed {
    disk: String,
    source: Option<String>,
}

/// The disk and the image: `--disk DEV COMMAND [IMAGE]` or `COMMAND DEV [IMAGE]`.
fn typed(task: Task, disk: Option<String>, words: Vec<String>) -> Result<Typed> {
    let mut words = words.into_iter();
    let disk = disk.or_else(|| words.next()).ok_or_else(|| {
        Error::usage("which disk? --disk DEV, or the word behind COMMAND")
            .advise("name it as the node does, for example /dev/nvme0n1")
    })?;
    let (source, more) = (words.next(), words.next());
    if let Some(more) = more {
        return Err(Error::usage(format!("{more:?} is one argument too many: the disk is named by --disk")));
    }
    refuse_image(task, source.as_deref())?;
    Ok(Typed { disk, source })
}

/// The image that is on this machine. `--uki` chooses here, and what has to arrive is known here.
fn desk_image(source: Option<&str>, passed: &mut Passed, ui: &dyn Ui) -> Result<Option<DeskImage>> {
    desk_request(source, passed)?.map(|request| DeskImage::open(&request, ui)).transpose()
}

/// The same, before it is opened.
pub(super) fn desk_request(source: Option<&str>, passed: &mut Passed) -> Result<Option<ImageRequest>> {
    let Some(source) = source.filter(|source| !is_url(source)) else { return Ok(None) };
    let given = given_arrival(passed)?;
    let mut request = ImageRequest::new(source);
    request.uki = passed.take("uki");
    request.arrival = Some(given);
    Ok(Some(request))
}

fn given_arrival(passed: &mut Passed) -> Result<Arrival> {
    let bytes =
        passed.take("bytes").map(|n| n.parse().map_err(|_| Error::usage("--bytes is no number"))).transpose()?;
    let mut hash = [0; 32];
    let sha256 = passed.take("sha256").map(|hex| {
        hex::decode_to_slice(hex, &mut hash).map_err(|_| Error::usage("--sha256 is no hash"))?;
        Ok::<_, Error>(hash)
    });
    Ok(Arrival { bytes, sha256: sha256.transpose()?, followed: false })
}

pub(super) fn arrival_options(arrival: &Arrival) -> impl Iterator<Item = (&'static str, String)> {
    let bytes = arrival.bytes.map(|n| ("bytes", n.to_string()));
    bytes.into_iter().chain(arrival.sha256.map(|hash| ("sha256", hex::encode(hash))))
}
