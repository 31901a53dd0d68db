//! What all commands that write have in common: they ask first.

use super::{Ui, check_cancelled};
use crate::{Error, Kind, Result};

/// How a change is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// Plan only.
    pub dry_run: bool,
    /// Do not ask.
    pub yes: bool,
}

impl Change {
    /// Asks whether to go on.
    ///
    /// # Errors
    /// [`Kind::Unsafe`] when nobody can be asked and `--yes` was not given; [`Kind::Cancelled`] when the answer is no.
    pub fn confirm(self, ui: &dyn Ui, question: &str) -> Result<()> {
        check_cancelled(ui)?;
        if self.yes {
            return Ok(());
        }
        match ui.confirm(question) {
            Some(true) => Ok(()),
            Some(false) => Err(Error::new(Kind::Cancelled, "not confirmed")),
            None => Err(Error::refused("confirmation is missing, and there is no terminal to ask at")
                .advise("look at the plan with --dry-run, then run it with --yes")),
        }
    }
}
