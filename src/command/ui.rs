//! Who is told what a command does, who is asked, and who may stop it.

#[cfg(feature = "net")]
use crate::factory;
use crate::plan::{BoardSetPlan, SwapPlan};
use crate::verify::{Check, ImageChange};
use crate::{Error, Kind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something worth telling while a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step begins: `verifying and writing the image`.
    Step(String),
    /// What the progress that follows is of, where no step is told of: a pod has told of its own.
    Phase(String),
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

/// What somebody is asked about: a swap, whose image has been verified and lies in free clusters that nothing refers
/// to; or a restore, whose backup has been verified.
#[derive(Debug)]
pub struct Proposal<'a> {
    /// The backup, for a restore.
    pub restored: Option<&'a str>,
    /// The plan.
    pub plan: &'a SwapPlan,
    /// Every check.
    pub checks: &'a [Check],
    /// What is another for the user.
    pub change: &'a ImageChange,
    /// The board's own files that change with the image, and those that stay; `None` where nobody asked for that.
    pub board_files: Option<&'a BoardSetPlan>,
    /// What of the board stays as it is; `None` where nobody has looked.
    pub board: Option<&'a super::BoardReport>,
    /// All members of the mirror; empty for a disk by itself.
    pub members: Vec<String>,
    /// What somebody should know.
    pub warnings: Vec<String>,
}

/// Who is told, who is asked, and who may stop a command.
pub trait Ui: Sync {
    /// Tells.
    fn event(&self, event: Event);

    /// Asks whether to go on. `None` when there is nobody to ask. The question is one line: it may hold names from a
    /// disk, and line ends in it are shown as what they are.
    fn confirm(&self, question: &str) -> Option<bool>;

    /// Shows what a question is about, before it is asked: the plan and the checks. The default shows nothing.
    fn show(&self, _: &Proposal<'_>) {}

    /// Whether there is anybody to ask. Where there is not, and no `--yes`, nothing is staged in vain.
    fn can_ask(&self) -> bool {
        true
    }

    /// Tells from wherever it is needed: sources that wait for a server in the middle of a read have no other way. The
    /// default tells nobody.
    fn detached(&self) -> Box<dyn Fn(Event) + Send + Sync> {
        Box::new(|_| {})
    }

    /// Set once the user wants to stop. Commands look at it while they can still stop without a trace; sources that
    /// wait for a server share it.
    fn cancelled(&self) -> &Arc<AtomicBool>;
}

/// Tells nobody, has nobody to ask, and is never stopped: for those who want the report alone. With
/// [`Change::yes`](super::Change) nobody has to be asked.
#[derive(Debug, Default)]
pub struct Silent {
    cancelled: Arc<AtomicBool>,
}

impl Ui for Silent {
    fn event(&self, _: Event) {}

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn can_ask(&self) -> bool {
        false
    }

    fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }
}

/// Keeps what it is told, and gives every question the same answer.
#[derive(Debug, Default)]
pub struct Collecting {
    answer: Option<bool>,
    events: Arc<Mutex<Vec<Event>>>,
    cancelled: Arc<AtomicBool>,
}

impl Collecting {
    /// Answers every question so; with `None` there is nobody to ask.
    #[must_use]
    pub fn answering(answer: Option<bool>) -> Self {
        Self { answer, ..Self::default() }
    }

    /// What was told so far. Of progress and waiting only the latest in a row is kept.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes an event in; the latest progress in a row takes the place of the one before.
fn collect(events: &mut Vec<Event>, event: Event) {
    let replaces = matches!(
        (&event, events.last()),
        (Event::Progress { .. }, Some(Event::Progress { .. })) | (Event::Waiting { .. }, Some(Event::Waiting { .. }))
    );
    if replaces {
        events.pop();
    }
    events.push(event);
}

impl Ui for Collecting {
    fn event(&self, event: Event) {
        collect(&mut self.lock(), event);
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        self.answer
    }

    fn can_ask(&self) -> bool {
        self.answer.is_some()
    }

    fn detached(&self) -> Box<dyn Fn(Event) + Send + Sync> {
        let events = Arc::clone(&self.events);
        Box::new(move |event| collect(&mut events.lock().unwrap_or_else(PoisonError::into_inner), event))
    }

    fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }
}

/// Fails if the user wants to stop.
pub(crate) fn check_cancelled(ui: &dyn Ui) -> Result<()> {
    if ui.cancelled().load(Ordering::Relaxed) {
        return Err(Error::new(Kind::Cancelled, "stopped on request"));
    }
    Ok(())
}

/// Tells how far a reading has come, and ends it if the user wants to stop.
pub(crate) fn watching(ui: &dyn Ui) -> impl FnMut(u64, u64) -> Result<()> + Send {
    |done, total| {
        ui.event(Event::Progress { done, total: Some(total) });
        check_cancelled(ui)
    }
}

/// Tells what a transfer does.
#[cfg(feature = "net")]
pub(crate) fn network_event(ui: &dyn Ui, event: &factory::TransferEvent) {
    ui.event(in_words(event));
}

/// What a transfer does, in words.
#[cfg(feature = "net")]
pub(crate) fn in_words(event: &factory::TransferEvent) -> Event {
    match event {
        factory::TransferEvent::Waiting { elapsed } => Event::Waiting { seconds: elapsed.as_secs() },
        factory::TransferEvent::Progress { bytes, total } => Event::Progress { done: *bytes, total: *total },
        factory::TransferEvent::Retrying { after, left, why, .. } => Event::Warning(format!(
            "{why}: trying again in {:.1} s, for up to {} s",
            after.as_secs_f32(),
            left.as_secs_f32().ceil()
        )),
        factory::TransferEvent::Note(text) => Event::Note(text.clone()),
        factory::TransferEvent::StartingOver => {
            Event::Warning("the file has changed on the server: starting over".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collecting_ui_keeps_the_latest_progress_of_each_step() {
        let ui = Collecting::answering(Some(true));
        for step in ["one", "two"] {
            ui.event(Event::Step(step.into()));
            (0..1000).for_each(|done| ui.event(Event::Progress { done, total: None }));
        }
        let last = || Event::Progress { done: 999, total: None };
        assert_eq!(ui.events(), [Event::Step("one".into()), last(), Event::Step("two".into()), last()]);
        assert_eq!(ui.confirm("?"), Some(true));
    }
}
