//! A slow medium for as long as a bench needs it: shown by the program of `medium/`, which this builds and starts.

use super::measure::Outcome;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Bytes a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    pub(super) read: f64,
    pub(super) write: f64,
}

/// What went over the medium, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// The medium, shown as long as this lives.
pub(super) struct SlowMedium {
    program: Child,
    /// Its commands; closing it ends the program.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

/// Builds the program: with the profile of the benches, beside them. Returns where it is.
///
/// # Errors
/// What cargo has said on standard error.
pub(super) fn build() -> Outcome<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--release", "--package", "slow-medium", "--message-format", "json"])
        .arg("--manifest-path")
        .arg(manifest)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the slow medium's program was not built".into());
    }
    let built = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    built.ok_or_else(|| "cargo has not said where the slow medium's program is".into())
}

impl SlowMedium {
    /// Shows a file, by the program that [`build`] has built.
    ///
    /// # Errors
    /// Where FUSE is not there, or this user may not mount.
    pub(super) fn show(program: &Path, file: &Path) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let mut program = Command::new(program)
            .args([file, folder.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let commands = program.stdin.take();
        let answers = BufReader::new(program.stdout.take().ok_or("no standard output")?);
        let mut medium = Self { program, commands, answers, folder };
        match medium.answer()?.as_str() {
            "shown" => Ok(medium),
            _ => Err("the slow medium's program has ended".into()),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("medium.img")
    }

    /// From now on it has this speed, `None` for as fast as it goes, and nothing was counted yet.
    pub(super) fn run_at(&mut self, speed: Option<Speed>) -> Outcome<()> {
        let Speed { read, write } = speed.unwrap_or(Speed { read: 0.0, write: 0.0 });
        self.tell(&format!("speed {read} {write}")).map(drop)
    }

    /// What went over it since [`Self::run_at`].
    pub(super) fn traffic(&mut self) -> Outcome<Traffic> {
        self.tell("traffic")
    }

    /// Forgets what was written.
    pub(super) fn reset(&mut self) -> Outcome<()> {
        self.tell("reset").map(drop)
    }

    fn tell(&mut self, command: &str) -> Outcome<Traffic> {
        let commands = self.commands.as_mut().ok_or("the slow medium's program has no standard input")?;
        writeln!(commands, "{command}")?;
        let answer = self.answer()?;
        let (read, written) = answer.split_once(' ').ok_or_else(|| format!("{command}: answered with {answer:?}"))?;
        Ok(Traffic { read: read.parse()?, written: written.parse()? })
    }

    fn answer(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_string())
    }
}

impl Drop for SlowMedium {
    fn drop(&mut self) {
        drop(self.commands.take());
        match self.program.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("{}: the slow medium's program: {status}", self.folder.path().display()),
            Err(e) => eprintln!("{}: {e}", self.folder.path().display()),
        }
    }
}
