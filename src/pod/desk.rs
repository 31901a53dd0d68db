//! A pod that somebody at a desk listens to. A log is one stream: so that its reader can tell the report from what is said
//! beside it, the latter comes as lines of JSON.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// The variable that tells the program so. Its value says whether it may ask: [`ASKS`] or [`LISTENS`].
pub(crate) const VARIABLE: &str = "BOOTSURGEON_DESK";
/// Somebody is there to answer questions, on standard input.
pub(crate) const ASKS: &str = "asks";
/// Somebody listens, and nobody answers.
pub(crate) const LISTENS: &str = "listens";

/// Whether somebody at a desk listens to this program, and then whether questions are answered.
#[must_use]
pub(crate) fn listening() -> Option<bool> {
    static MODE: OnceLock<Option<bool>> = OnceLock::new();
    *MODE.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
        Ok(ASKS) => Some(true),
        Ok(LISTENS) => Some(false),
        _ => None,
    })
}

/// What a pod needs for a desk that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desk {
    /// Whether the program reads standard input.
    pub stdin: bool,
    /// Whether questions are answered.
    pub asks: bool,
    /// The program itself comes first on standard input: so many blocks of 64 KiB.
    pub carried_blocks: Option<u64>,
}

/// The unit in which a program that is carried to a node is counted, in bytes.
pub(crate) const BLOCK: usize = 64 << 10;

/// One piece of what would go to stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum DeskEvent {
    /// Text as it would stand there.
    Text {
        /// One line with its end.
        text: String,
    },
    /// What the progress that follows is of.
    Phase {
        /// In words.
        text: String,
    },
    /// How far it has come.
    Progress {
        /// Bytes that are done.
        done: u64,
        /// Of so many.
        total: Option<u64>,
    },
    /// A question. The answer is one line on standard input: `y`, or something else.
    Question {
        /// Without its `[y/N]`.
        text: String,
    },
}

/// How the line of every event begins.
const BEGINNING: &str = r#"{"event":"#;

impl DeskEvent {
    /// The line of the log, with its end.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        // Nothing in it can fail to serialize.
        serde_json::to_string(self).map_or_else(|_| String::new(), |line| line + "\n")
    }

    /// The event of a line; `None` where it is a line of something else.
    #[must_use]
    pub(crate) fn read(line: &str) -> Option<Self> {
        if line.starts_with(BEGINNING) { serde_json::from_str(line).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_were_and_other_lines_are_none() {
        for event in [
            DeskEvent::Text { text: "warning: a\nb \u{202e}\n".into() },
            DeskEvent::Phase { text: "committing".into() },
            DeskEvent::Progress { done: 1, total: None },
            DeskEvent::Progress { done: 1, total: Some(2) },
            DeskEvent::Question { text: "Commit?".into() },
        ] {
            let line = event.line();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(DeskEvent::read(line.trim_end()), Some(event));
        }
        for line in ["", "{", "{\"event\":\"other\"}", "{\"event\":1}", "  {\"event\":\"text\",\"text\":\"x\"}"] {
            assert_eq!(DeskEvent::read(line), None, "{line}");
        }
    }
}
