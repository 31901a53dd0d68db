//! Step two: an operation from its order to its end, or to the state in which a failure leaves it.

use super::order::{ContentRef, ContentSource, Operation, Order, Tidying};
use super::rehearsal::rehearse;
use super::staging::Staged;
use super::steps::{Chains, carry_out, file};
use crate::fat::{Editor, Run};
use crate::{Code, Error, Result};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The operation that was carried out.
    pub operation: Operation,
    /// Whether the commit was one write that exchanged two entries of a sector (else the backup shared the old chain
    /// for a moment).
    pub exchanged: bool,
}

impl Staged<'_> {
    /// Makes the staged image the content of the order's target.
    ///
    /// # Errors
    /// [`Code::Unsafe`] when the target exists and the order has no name for its old content; what the medium reports.
    /// The volume is then in a state that [`super::recover`] understands.
    pub fn commit(self, order: &Order) -> Result<Outcome> {
        self.refuse_misplaced()?;
        let content = |runs: &[Run], bytes, sha256: [u8; 32]| ContentRef {
            cluster: runs.first().map_or(0, |r| r.first),
            bytes,
            sha256: Some(hex::encode(sha256)),
        };
        let new = content(&self.runs, self.bytes, self.sha256);
        let set: Vec<ContentRef> = self.set.iter().map(|f| content(&f.runs, f.bytes, f.sha256)).collect();
        let mut editor = self.editor;
        let directories = order.reserve_directories(&mut editor)?;
        let operation = order.with_content(&editor, new, ContentSource::Staged, &set, &directories)?;
        let contents = self.set.into_iter().map(|f| f.runs).chain([self.runs]).collect();
        let chains = Chains { directories, contents };
        execute(&mut editor, operation, &chains)
    }
}

impl Order {
    /// Makes the content of a file in its directory the content of the target; the file's own name goes. `verified` is
    /// what that file held when it was looked at.
    ///
    /// # Errors
    /// [`Code::Unsafe`] when the file holds something else by now; as [`Staged::commit`].
    pub fn restore(&self, mut editor: Editor<'_>, from: &str, verified: ContentRef) -> Result<Outcome> {
        let entry = file(&editor, &self.directory, from)?;
        if (entry.first_cluster, entry.bytes) != (verified.cluster, verified.bytes) {
            return Err(Error::refused(format!("{from} is another file since it was verified")).advise("run it again"));
        }
        let directories = self.reserve_directories(&mut editor)?;
        let operation = self.with_content(&editor, verified, ContentSource::File(entry.name), &[], &directories)?;
        execute(&mut editor, operation, &Chains { directories, contents: Vec::new() })
    }
}

impl Tidying {
    /// Carries it out.
    ///
    /// # Errors
    /// As [`Staged::commit`].
    pub fn run(&self, mut editor: Editor<'_>) -> Result<Outcome> {
        execute(&mut editor, self.operation(), &Chains::default())
    }
}

/// Carries out an operation, if it can be carried out to its end, and says in what state a failure leaves the ESP.
fn execute(editor: &mut Editor<'_>, operation: Operation, staged: &Chains) -> Result<Outcome> {
    rehearse(editor, &operation, staged)?;
    let e = match carry_out(editor, &operation, staged) {
        Ok(exchanged) => return Ok(Outcome { operation, exchanged }),
        Err(e) => e,
    };
    // The rehearsal saw nothing to refuse, so somebody else writes too. The medium works: no trace of the attempt has
    // to stay. After an I/O error nothing is known about what was written last, and every further write here would
    // build on that.
    if !e.code().is_failed_access()
        && e.code() != Code::Bug
        && let Ok(recovery) = super::recover(editor.medium())
    {
        return Err(match recovery.finished {
            Some(true) => {
                e.while_doing("the new image is in place, but not all of the rest could be done").with_esp_changed(true)
            }
            _ => e.while_doing("the attempt was undone").with_esp_changed(false),
        });
    }
    Err(e
        .while_doing("the operation is unfinished")
        .advise("run `bootsurgeon recover` on this disk before anything else")
        .with_esp_changed(true))
}
