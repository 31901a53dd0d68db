//! Time and memory against what grows: images, volumes, directories. Growth is linear, and no command takes more than
//! 64 MiB.
//!
//!     cargo bench --bench growth                       all points (minutes)
//!     cargo bench --bench growth -- --quick            the largest point of each subject, and a smaller one
//!     cargo bench --bench growth -- --plots docs/growth
//!     cargo bench --bench growth -- --only uki,iso     some subjects
//!     cargo bench --bench growth -- --at DIR           inputs in this folder instead of the target folder
//!     cargo bench --bench growth -- --make DIR         only makes the inputs of the largest point (or of `--size N`) and
//!                                                      prints what would be run on them, for a profiler
//!
//! The inputs are files with holes, made for each point and deleted after it. At most 5 GB are real at a time.
#![allow(missing_docs)] // a program, not a library
#![allow(dead_code)] // what the other programs that share `measure` call

mod images;
mod judge;
#[path = "../peers/measure.rs"]
mod measure;
mod plot;
mod subjects;
mod volume;

use judge::{Point, Series};
use measure::{Outcome, there};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use subjects::{Subject, Task};

/// What takes longer is run once, in seconds.
const LONG: f64 = 3.0;
/// What takes longer has failed, in seconds.
const PATIENCE: u32 = 60;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|a| a == "--bench") {
        println!("growth takes minutes to measure: run it with `cargo bench --bench growth`");
        return ExitCode::SUCCESS;
    }
    match measure_all(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all goals were met.
fn measure_all(args: &[String]) -> Outcome<bool> {
    let value = |name: &str| args.iter().skip_while(|a| *a != name).nth(1);
    let mut complete = true;
    if !there(&["time"], "everything", &mut complete) {
        return Ok(std::env::var_os("CI").is_none());
    }
    let at = value("--at").map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).into(), PathBuf::from);
    let folder = at.join("growth");
    let chosen = |s: &Subject| value("--only").is_none_or(|only| only.split(',').any(|slug| slug == s.slug()));
    if let Some(folder) = value("--make") {
        let size = value("--size").map(|n| n.parse()).transpose()?;
        return Subject::ALL
            .into_iter()
            .filter(chosen)
            .try_for_each(|s| make(s, Path::new(folder), size))
            .map(|()| true);
    }
    let is_quick = args.iter().any(|a| a == "--quick");
    let mut met = true;
    for subject in Subject::ALL.into_iter().filter(chosen) {
        let series = measure(subject, &folder, is_quick)?;
        met &= judge::print(subject, &series);
        if let Some(plots) = value("--plots") {
            fs::create_dir_all(plots)?;
            fs::write(Path::new(plots).join(subject.slug()).with_extension("svg"), plot::svg(subject, &series))?;
        }
    }
    Ok(met)
}

/// Leaves the inputs of one point in a folder of the subject's name.
fn make(subject: Subject, folder: &Path, size: Option<u64>) -> Outcome<()> {
    let folder = folder.join(subject.slug());
    fs::create_dir_all(&folder)?;
    let largest = subject.points().last().copied().unwrap_or_default();
    for task in subject.prepare(&folder, size.unwrap_or(largest))? {
        if let Some(volume) = &task.renew {
            volume.write(&folder.join(subjects::ESP))?;
        }
        println!("cd {}; {}", folder.display(), task.step);
    }
    Ok(())
}

fn measure(subject: Subject, folder: &Path, is_quick: bool) -> Outcome<Vec<Series>> {
    let mut all: Vec<Series> = Vec::new();
    let points = subject.points();
    for (n, x) in points.iter().enumerate() {
        if is_quick && n + 1 != points.len() && n + 3 != points.len() {
            continue;
        }
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        for (n, task) in subject.prepare(folder, *x)?.iter().enumerate() {
            if all.len() == n {
                all.push(Series { command: task.name, points: Vec::new(), failure: None });
            }
            let series = &mut all[n];
            if series.failure.is_some() {
                continue;
            }
            match run(task, folder, *x) {
                Ok(point) => series.points.push(point),
                Err(e) => series.failure = Some(format!("at {}: {}", subject.shown(*x), first_line(&e.to_string()))),
            }
        }
    }
    let _ = fs::remove_dir_all(folder);
    Ok(all)
}

/// The line that says why a command failed.
fn first_line(said: &str) -> String {
    if said.contains("exit status: 124") {
        return format!("longer than {PATIENCE} s");
    }
    said.lines().find(|l| l.starts_with("error")).or(said.lines().next()).unwrap_or_default().to_owned()
}

/// The median of three runs, or one that takes long.
fn run(task: &Task, folder: &Path, x: u64) -> Outcome<Point> {
    let mut points = Vec::new();
    while points.len() < 3 {
        if let Some(volume) = &task.renew {
            volume.write(&folder.join(subjects::ESP))?;
        }
        let step = task.step.behind(&[&"timeout", &"-k", &"5", &PATIENCE.to_string()]);
        let (seconds, memory) = step.time_and_memory(folder)?;
        points.push(Point { x, seconds, memory });
        if seconds > LONG {
            break;
        }
    }
    points.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let memory = points.iter().map(|p| p.memory).fold(0.0, f64::max);
    Ok(Point { memory, ..points[points.len() / 2] })
}
