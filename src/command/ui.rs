//! Who is told what a command does, who is asked, and who may stop it.

#[cfg(feature = "net")]
use crate::factory;
use crate::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something worth telling while a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step begins: `verifying and writing the image`.
    Step(String),
    /// How far the step has come, in bytes.
    Progress {
        /// So many are done.
        done: u64,
        /// Of so many, where that is known.
        total: Option<u64>,
    },
    /// The server has not answered yet.
    Waiting {
        /// For so long, in seconds.
        seconds: u64,
    },
    /// Something is not as it should be, and the command goes on.
    Warning(String),
    /// What to do next, beside the report.
    Note(String),
    /// A detail.
    Detail(String),
}

/// Who is told, who is asked, and who may stop a command.
pub trait Ui: Sync {
    /// Tells.
    fn event(&self, event: Event);

    /// Asks whether to go on. `None` when there is nobody to ask.
    fn confirm(&self, question: &str) -> Option<bool>;

    /// Set once the user wants to stop. Commands look at it while they can still stop without a trace; sources that wait for
    /// a server share it.
    fn cancelled(&self) -> &Arc<AtomicBool>;
}

/// Fails if the user wants to stop.
pub(crate) fn check_cancelled(ui: &dyn Ui) -> Result<()> {
    if ui.cancelled().load(Ordering::Relaxed) {
        return Err(Error::new(Kind::Cancelled, "stopped on request"));
    }
    Ok(())
}

/// Tells what a transfer does.
#[cfg(feature = "net")]
pub(crate) fn network_event(ui: &dyn Ui, event: &factory::Event) {
    ui.event(match event {
        factory::Event::Waiting { elapsed } => Event::Waiting { seconds: elapsed.as_secs() },
        factory::Event::Progress { bytes, total } => Event::Progress { done: *bytes, total: *total },
        factory::Event::Retrying { attempt, after, why } => {
            Event::Warning(format!("attempt {attempt} failed ({why}); the next one in {:.1} s", after.as_secs_f32()))
        }
        factory::Event::Note(text) => Event::Note(text.clone()),
        factory::Event::StartingOver => Event::Warning("the file has changed on the server: starting over".into()),
    });
}
