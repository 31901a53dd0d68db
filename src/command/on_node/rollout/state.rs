//! The file that says how far a rollout has come, so that one that was stopped goes on where it stood.
//!
//! What is about to be done to a node is written down before it is done, and what was done after it: whenever the
//! program ends in between, the file names the one thing that may or may not have happened.

use super::validate::Expected;
use crate::block::{NewFile, ORDINARY_MODE, PartFile, check_free, read_own};
use crate::{Code, Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The most bytes that are read of a state file. A node takes about 1 KiB.
const MAX_BYTES: u64 = 4 << 20;
/// The form of the file.
const FORMAT: u32 = 1;

/// What a rollout is of. Two rollouts are the same where this is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    /// The nodes, in their order.
    pub(super) nodes: Vec<String>,
    /// The arguments of the program in the pods; length and SHA-256 of an image that is sent to them are among them.
    pub(super) args: Vec<String>,
}

/// How far a node has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Nothing was done to it.
    #[default]
    Untouched,
    /// The swap has begun; whether it was committed is not known.
    Swapping,
    /// The image is on its disk.
    Swapped,
    /// It is being told to restart; whether it was is not known before its boot ID is another.
    Restarting,
    /// It has restarted.
    Restarted,
    /// It shows what the image holds, and its services run.
    Done,
}

impl Step {
    /// For people.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Swapping => "may be swapped",
            Self::Swapped => "swapped",
            Self::Restarting => "restarting",
            Self::Restarted => "restarted",
            Self::Done => "done",
        }
    }
}

/// What is known of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeState {
    pub(super) node: String,
    pub(super) step: Step,
    /// Its boot ID before the restart; after it, that of the restart.
    pub(super) boot_id: Option<String>,
    /// Whether this rollout has changed its ESP, or may have.
    pub(super) committed: bool,
    /// SHA-256 of the image on it.
    pub(super) sha256: Option<String>,
    /// The backup of what was there before.
    pub(super) backup: Option<String>,
    /// What it has to show.
    pub(super) expected: Option<Expected>,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// What it is, for whoever finds it.
    bootsurgeon_rollout: u32,
    subject: Subject,
    /// Every node is done.
    finished: bool,
    nodes: Vec<NodeState>,
}

/// The state of a rollout, and its file. No other rollout has it at the same time.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    content: Content,
    /// `None`: a dry run, which writes nothing.
    lock: Option<PartFile>,
}

impl State {
    /// Opens the state of this rollout, or begins it: where there is no file, where the file is that of a rollout that
    /// is finished, and with `anew` in any case. Nothing is written yet.
    ///
    /// # Errors
    /// [`Code::Busy`] when another rollout is using it; [`Code::Exists`] when it is another unfinished rollout's, or no
    /// state of a rollout; what the system says.
    pub(super) fn open(path: &Path, subject: Subject, anew: bool, dry_run: bool) -> Result<Self> {
        Self::open_file(path, subject, anew, dry_run).while_doing(|| format!("the state file {}", path.display()))
    }

    fn open_file(path: &Path, subject: Subject, anew: bool, dry_run: bool) -> Result<Self> {
        check_free(path, true)?;
        let lock = if dry_run { None } else { Some(lock(path)?) };
        let found = match read_own(path, MAX_BYTES)? {
            None => None,
            Some(_) if anew => None,
            Some(bytes) => Some(Content::parse(&bytes)?),
        };
        let content = match found.filter(|found| !found.finished) {
            Some(found) if found.subject != subject => return Err(found.is_another(&subject)),
            Some(found) => found,
            None => Content::new(subject),
        };
        Ok(Self { path: path.to_owned(), content, lock })
    }

    /// All nodes in their order.
    pub(super) fn nodes(&self) -> &[NodeState] {
        &self.content.nodes
    }

    /// Whether something of this rollout was done before.
    pub(super) fn is_begun(&self) -> bool {
        self.content.nodes.iter().any(|node| node.step != Step::Untouched)
    }

    /// Writes down what is about to be done to a node, or what was done.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn set(&mut self, index: usize, change: impl FnOnce(&mut NodeState)) -> Result<()> {
        if let Some(node) = self.content.nodes.get_mut(index) {
            change(node);
        }
        self.content.finished = self.content.nodes.iter().all(|node| node.step == Step::Done);
        if self.lock.is_none() {
            return Err(Error::new(Code::Bug, "a dry run has no state to write"));
        }
        self.write().while_doing(|| format!("writing the state file {}", self.path.display()))
    }

    /// It has to be there also after a power cut at the desk.
    fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.content).map_err(|e| Error::new(Code::Bug, e.to_string()))?;
        let new = NewFile::create(&self.path, ORDINARY_MODE)?;
        new.file().write_all(text.as_bytes())?;
        new.file().write_all(b"\n")?;
        new.file().sync_all()?;
        new.commit(true)
    }
}

/// A file beside the state: the state itself is another file each time it is written.
fn lock(path: &Path) -> Result<PartFile> {
    let mut name = OsString::from(path);
    name.push(".lock");
    PartFile::open(Path::new(&name)).map_err(|e| match e.code() {
        Code::Busy => Error::new(Code::Busy, "another rollout is using it")
            .advise("wait for that one to end, or name another file with --state"),
        _ => e.while_doing(format!("its lock {}", name.display())),
    })
}

impl Content {
    fn new(subject: Subject) -> Self {
        let nodes = subject.nodes.iter().map(|node| NodeState { node: node.clone(), ..NodeState::default() });
        Self { bootsurgeon_rollout: FORMAT, finished: false, nodes: nodes.collect(), subject }
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let is_sound = |content: &Self| {
            content.bootsurgeon_rollout == FORMAT
                && content.nodes.iter().map(|n| &n.node).eq(&content.subject.nodes)
                && content.nodes.iter().all(NodeState::is_sound)
        };
        serde_json::from_slice(bytes).ok().filter(is_sound).ok_or_else(|| {
            Error::new(Code::Exists, "it exists, and is not the state of a rollout that this version knows")
                .advise("name another file with --state, or replace it and begin anew with --force")
        })
    }

    fn is_another(&self, wanted: &Subject) -> Error {
        let what = if self.subject.nodes != wanted.nodes {
            format!("nodes {}", self.subject.nodes.join(","))
        } else {
            format!("`{}` in the pods", self.subject.args.join(" "))
        };
        let count = self.nodes.iter().filter(|node| node.step == Step::Done).count();
        let all = self.nodes.len();
        Error::new(
            Code::Exists,
            format!("it belongs to another rollout, of {what}, which is not finished ({count} of {all} nodes are)"),
        )
        .advise("name another file with --state; or finish that one; or give it up with --force")
    }
}

impl NodeState {
    /// Whether it says what its step needs.
    fn is_sound(&self) -> bool {
        let (has_boot_id, has_image) = (self.boot_id.is_some(), self.expected.is_some());
        match self.step {
            Step::Untouched | Step::Swapping => true,
            Step::Swapped => has_image,
            Step::Restarting | Step::Restarted | Step::Done => has_image && has_boot_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(nodes: &[&str]) -> Subject {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        Subject { nodes: words(nodes), args: words(&["swap", "/dev/sda"]) }
    }

    fn open(path: &Path, subject: Subject) -> Result<State> {
        State::open(path, subject, false, false)
    }

    #[test]
    fn a_stopped_rollout_is_found_again_and_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = open(&path, subject(&["a", "b"])).unwrap();
        assert!(!path.exists() && !state.is_begun());
        state.set(0, |node| node.step = Step::Swapping).unwrap();
        let busy = open(&path, subject(&["a", "b"])).unwrap_err();
        assert_eq!(busy.code(), Code::Busy, "{busy}");
        // A dry run looks, and does not mind who else does.
        let look = State::open(&path, subject(&["a", "b"]), false, true).unwrap();
        assert_eq!(look.nodes(), state.nodes());
        drop(state);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the lock is left behind");

        let again = open(&path, subject(&["a", "b"])).unwrap();
        assert_eq!((again.nodes()[0].step, again.nodes()[1].step), (Step::Swapping, Step::Untouched));
        assert!(again.is_begun());
        drop(again);
        let mut others = [subject(&["a"]), subject(&["b", "a"]), subject(&["a", "b"])];
        others[2].args.push("--talos".into());
        for other in others {
            let e = open(&path, other.clone()).unwrap_err();
            assert_eq!(e.code(), Code::Exists, "{e}");
            assert!(e.to_string().contains("0 of 2"), "{e}");
            assert!(!State::open(&path, other, true, false).unwrap().is_begun());
        }
    }

    #[test]
    fn a_finished_rollout_makes_room_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = open(&path, subject(&["a"])).unwrap();
        let done = |node: &mut NodeState| {
            *node = NodeState {
                step: Step::Done,
                boot_id: Some("1".into()),
                expected: Some(Expected::default()),
                ..node.clone()
            };
        };
        state.set(0, done).unwrap();
        drop(state);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"finished\": true"), "{text}");
        for next in [subject(&["a"]), subject(&["b"])] {
            assert!(!open(&path, next).unwrap().is_begun());
        }
    }

    #[test]
    fn what_is_no_state_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let sound = serde_json::to_value(Content::new(subject(&["a"]))).unwrap();
        let mut bad: Vec<String> = ["", "{}", "[]", "notes", "\u{fffd}"].map(str::to_owned).to_vec();
        for (pointer, value) in [
            ("/bootsurgeon_rollout", 2.into()),
            ("/nodes/0/node", "b".into()),
            ("/nodes/0/step", "swapped".into()),
            ("/nodes/0/step", "jumped".into()),
            ("/nodes", serde_json::json!([])),
        ] {
            let mut content = sound.clone();
            *content.pointer_mut(pointer).unwrap() = value;
            bad.push(content.to_string());
        }
        for text in bad {
            std::fs::write(&path, &text).unwrap();
            let e = open(&path, subject(&["a"])).unwrap_err();
            assert_eq!(e.code(), Code::Exists, "{text}: {e}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, sound.to_string()).unwrap();
        open(&path, subject(&["a"])).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert_eq!(open(&path, subject(&["a"])).unwrap_err().code(), Code::Exists);
    }
}
