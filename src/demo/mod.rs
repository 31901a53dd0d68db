//! The demonstration: a node's disk, a Secure Boot ISO and a factory made on the spot, and the main job done on them by
//! the same code that does it on a user's disk ([`crate::command`]). Other readers than the surgeon's own judge the
//! result.
//!
//! Touches one folder and the loopback. Media are made with the `gpt`, `fatfs` and `hadris-iso` crates and this crate's
//! own builder of UKIs; nothing is asked of the system's tools but a last opinion of `fsck.fat`, where it is installed.

mod judge;
mod scenes;

use crate::command::{Event, FetchReport, PruneReport, RestoreReport, StatusReport, SwapReport, Ui};
use crate::verify::Report;
use crate::{Context, Error, Result};
use scenes::{DemoFiles, SCENES, Session};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What `demo` is asked for.
#[derive(Debug, Default)]
pub struct Demo {
    /// Do it in this folder and leave everything there. It is made if it is missing, and must be empty.
    pub keep: Option<PathBuf>,
    /// Show this scene alone, counted from 1: those before it are played unseen, those after it are not. [`scene`]
    /// knows names.
    pub scene: Option<usize>,
}

/// The number of a scene by its number or name.
///
/// # Errors
/// What there is, when there is no such scene.
pub fn scene(text: &str) -> std::result::Result<usize, String> {
    let by_name = SCENES.iter().position(|(name, _)| *name == text).map(|at| at + 1);
    by_name.or_else(|| text.parse().ok().filter(|n| (1..=SCENES.len()).contains(n))).ok_or_else(|| {
        let names: Vec<&str> = SCENES.iter().map(|(name, _)| *name).collect();
        format!("there are scenes 1 to {}: {}", SCENES.len(), names.join(", "))
    })
}

/// What the demonstration showed.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DemoReport {
    /// Whether every step did what it should, and every proof holds.
    pub proven: bool,
    /// The steps in order; they end with the first that went wrong.
    pub steps: Vec<DemoStep>,
    /// Whether all scenes were played, and not only those up to the one that was requested.
    pub is_whole: bool,
    /// Whether `fsck.fat` was asked; it is not where it is not installed.
    pub fsck: bool,
    /// The folder, if it was kept.
    pub folder: Option<String>,
    /// How long it took, all in all.
    pub milliseconds: u64,
}

/// One command of the demonstration.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DemoStep {
    /// What it shows.
    pub title: String,
    /// The command as one would type it.
    pub command: String,
    /// The exit code it ends with.
    pub exit_code: u8,
    /// The exit code it should end with.
    pub expected_exit_code: u8,
    /// What the command said.
    #[serde(flatten)]
    pub outcome: StepOutcome,
    /// What it cost, for a swap.
    pub cost: Option<Cost>,
    /// What was looked at afterwards.
    pub proofs: Vec<Proof>,
    /// How long the command took.
    pub milliseconds: u64,
}

impl DemoStep {
    /// Whether it did what it should.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.exit_code == self.expected_exit_code && self.proofs.iter().all(|p| p.ok)
    }
}

/// How a command ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StepOutcome {
    /// With its report.
    Report(Box<Answer>),
    /// With an error.
    Error(Error),
}

impl StepOutcome {
    /// The report, if there is one.
    fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Report(answer) => Some(answer),
            Self::Error(_) => None,
        }
    }
}

/// The report of a command.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Answer {
    /// Of `status`.
    Status(Box<StatusReport>),
    /// Of `fetch`.
    Fetch(FetchReport),
    /// Of `verify`.
    Verify(Report),
    /// Of `swap`.
    Swap(Box<SwapReport>),
    /// Of `prune`.
    Prune(PruneReport),
    /// Of `restore`.
    Restore(RestoreReport),
    /// What another program printed.
    Text(String),
}

/// Bytes that a swap moved, beside what the same job takes by hand: download the ISO, unpack it, copy the UKI out, copy
/// it into a pod, there back up the old one, and copy the new one over it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// Bytes of images that the factory sent, by its own count.
    pub wire_bytes: u64,
    /// By hand: the ISO, and the UKI on its way to the node.
    pub by_hand_wire_bytes: u64,
    /// Bytes of images written to any disk.
    pub written_bytes: u64,
    /// By hand: the ISO, the UKI four times, the backup.
    pub by_hand_written_bytes: u64,
}

/// Something that was looked at.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Proof {
    /// What should be.
    pub what: String,
    /// Whether it is.
    pub ok: bool,
    /// What is there instead.
    pub detail: Option<String>,
}

impl Demo {
    /// Makes everything, does the job and looks at the result. `show` gets every step as soon as it is done.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when the folder is not empty; [`crate::Kind::Io`] when media cannot be made or read;
    /// [`crate::Kind::Cancelled`]; what `show` returns. A step that does not do what it should is no error: the report
    /// says so.
    pub fn run(&self, ui: &dyn Ui, show: &mut dyn FnMut(&DemoStep) -> Result<()>) -> Result<DemoReport> {
        let start = Instant::now();
        let temporary = if self.keep.is_none() { Some(crate::command::temporary_folder()?) } else { None };
        let folder = match (&self.keep, &temporary) {
            (Some(folder), _) => {
                claim(folder)?;
                folder.as_path()
            }
            (None, Some(folder)) => folder.path(),
            (None, None) => Path::new("."),
        };
        let scenes = crate::units::count(self.scene.unwrap_or(SCENES.len()), "scene");
        ui.event(Event::Note(format!("{scenes}: a few seconds, half a minute on a small board")));
        let made = DemoFiles::make(folder, ui).while_doing(|| "preparing the demonstration")?;
        let last = self.scene.unwrap_or(SCENES.len());
        let mut done = 0;
        let mut show = |step: &DemoStep| {
            done += 1;
            // What goes wrong on the way is shown, whatever was requested.
            if self.scene.is_none_or(|only| done == only) || !step.is_proven() { show(step) } else { Ok(()) }
        };
        let mut session = Session::new(&made, ui, &mut show);
        let mut proven = true;
        for (_, scene) in SCENES.iter().take(last) {
            proven = scene(&mut session)?;
            if !proven {
                break;
            }
        }
        let (steps, fsck) = session.finish();
        Ok(DemoReport {
            proven,
            is_whole: last == SCENES.len(),
            steps,
            fsck,
            folder: self.keep.as_ref().map(|f| f.display().to_string()),
            milliseconds: milliseconds(start),
        })
    }
}

/// Makes sure that a folder is there and empty.
fn claim(folder: &Path) -> Result<()> {
    let look = || -> Result<bool> {
        std::fs::create_dir_all(folder)?;
        Ok(std::fs::read_dir(folder)?.next().is_none())
    };
    if look().while_doing(|| format!("opening the folder {}", folder.display()))? {
        return Ok(());
    }
    Err(Error::usage(format!("{} is not empty", folder.display())).advise("name a folder that is not there yet"))
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A word of a command as a shell takes it.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=~,+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('~') {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        for (text, typed) in [
            ("demo/disk.img", "demo/disk.img"),
            ("/tmp/a b/disk.img", "'/tmp/a b/disk.img'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(word(text), typed);
        }
    }

    #[test]
    fn a_folder_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "x").unwrap();
        assert_eq!(claim(folder.path()).unwrap_err().kind(), crate::Kind::Usage);
        claim(&folder.path().join("new/folder")).unwrap();
    }
}
