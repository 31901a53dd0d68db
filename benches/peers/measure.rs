//! Running programs, ours and others', and taking their time, memory and traffic.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub(super) type Outcome<T> = Result<T, Box<dyn Error>>;

/// The folder `fixtures/` of the repository.
pub(super) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A command line of this project's program, as released.
pub(super) fn ours(args: &[&dyn AsRef<OsStr>]) -> Step {
    Step::new(&[&[&env!("CARGO_BIN_EXE_bootsurgeon") as &dyn AsRef<OsStr>], args].concat())
}

/// Whether these programs are there. Where one is not, says which rows that costs.
pub(super) fn there(programs: &[&str], rows: &str, complete: &mut bool) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|p| locate(p).is_none()).collect();
    if !missing.is_empty() {
        println!("not run: {rows}: missing: {}", missing.join(", "));
        *complete = false;
    }
    missing.is_empty()
}

/// A command line.
#[derive(Clone)]
pub(super) struct Step(Vec<OsString>);

impl Step {
    pub(super) fn new(argv: &[&dyn AsRef<OsStr>]) -> Self {
        Self(argv.iter().map(|arg| arg.as_ref().to_owned()).collect())
    }

    /// The same behind a program that starts it.
    pub(super) fn behind(&self, argv: &[&dyn AsRef<OsStr>]) -> Self {
        Self([Self::new(argv).0, self.0.clone()].concat())
    }

    /// Runs it in `folder` and returns its standard output. That it fails is an error with all it said.
    pub(super) fn run(&self, folder: &Path) -> Outcome<Vec<u8>> {
        let [program, args @ ..] = &self.0[..] else { return Err("an empty command line".into()) };
        let output = Command::new(program)
            .args(args)
            .current_dir(folder)
            // mtools converts long names by the locale; a variable of the user's must not change what is measured.
            .envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC")])
            .env_remove("BOOTSURGEON_FACTORY")
            .output()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{:?}: {}\n{}", self.0, output.status, String::from_utf8_lossy(&said)).into())
    }

    /// Seconds from start to end.
    pub(super) fn seconds(&self, folder: &Path) -> Outcome<f64> {
        let start = Instant::now();
        self.run(folder)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The most memory it held at a time, in bytes.
    pub(super) fn peak_memory(&self, folder: &Path) -> Outcome<f64> {
        self.time_and_memory(folder).map(|(_, memory)| memory)
    }

    /// Seconds from start to end, and the most memory it held at a time, in bytes: `ru_maxrss` of wait4 as GNU time sees
    /// it. Not taken by this process itself, because a child inherits the mark from whoever starts it, and this one has
    /// held whole images.
    pub(super) fn time_and_memory(&self, folder: &Path) -> Outcome<(f64, f64)> {
        let log = folder.join("time.log");
        let seconds = self.behind(&[&"/usr/bin/time", &"-o", &log, &"-f", &"%M"]).seconds(folder)?;
        let said = std::fs::read_to_string(&log)?;
        let kib: f64 = said.lines().last().unwrap_or_default().trim().parse().map_err(|e| format!("{said:?}: {e}"))?;
        Ok((seconds, kib * 1024.0))
    }

    /// Bytes that it transferred to or from `file` by these system calls, as strace counts them.
    pub(super) fn transferred(&self, folder: &Path, file: &Path, calls: &str) -> Outcome<f64> {
        let log = folder.join("strace.log");
        let trace = format!("trace={calls}");
        self.behind(&[&"strace", &"-f", &"-qq", &"-P", &file, &"-e", &trace, &"-o", &log]).run(folder)?;
        let bytes = std::fs::read_to_string(&log)?
            .lines()
            .filter_map(|line| line.rsplit_once(" = ")?.1.split(' ').next()?.parse::<i64>().ok())
            .filter(|n| *n > 0)
            .sum::<i64>();
        Ok(bytes as f64)
    }
}

/// System calls that write to a file, for [`Step::transferred`].
pub(super) const WRITES: &str = "write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,splice";
/// And those that read.
pub(super) const READS: &str = "read,pread64,readv,preadv,preadv2,copy_file_range,sendfile,splice";

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }
}

/// Seconds by name, one for each round.
#[derive(Default)]
pub(super) struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    pub(super) fn add(&mut self, name: &'static str, seconds: f64) {
        self.0.entry(name).or_default().push(seconds);
    }

    /// The median, in seconds.
    pub(super) fn median(&self, name: &str) -> f64 {
        let mut all = self.0.get(name).cloned().unwrap_or_default();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// A path as a name that mtools takes: the volume at `offset` of an image.
pub(super) fn volume(image: &Path, offset: u64) -> String {
    format!("{}@@{offset}", image.display())
}

/// Where a program is: in `PATH`, or in the folders for the administrator, which a plain user's `PATH` leaves out.
pub(super) fn locate(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
