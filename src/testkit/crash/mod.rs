//! Power cuts: any function over a block device, and every image that a cut can leave of its run.
//!
//! A [`Recorder`] is a medium in memory that remembers every sector write and every barrier. From its [`Recording`]
//! [`enumerate`] builds the images, in the model of [`images`]: all prefixes; every subset of the metadata writes
//! between two barriers where those are few enough, else a seeded sample; torn sectors where they are asked for. The
//! caller judges them, best with a reader that shares no code with what wrote. A recorder may also fail at any access
//! ([`IoFault`]).
//!
//! | part | job |
//! | --- | --- |
//! | [`frame`] | the bytes of a medium at one moment; a state costs a few pointers |
//! | [`recorder`] | the medium that records, and fails where it is told to |
//! | [`images`] | every image that a power cut can leave |
//! | [`mod@mistakes`] | the same run with barriers and phases forgotten or exchanged: a proof has to find these |
//! | [`random`] | numbers that can be drawn again |
//! | [`stream`] | a medium as a stream, for the file system code of others |
//!
//! `examples/crash_images.rs` judges the `fatfs` crate with it; `tests/powercut` judges this program.

pub mod frame;
pub mod images;
pub mod mistakes;
pub mod random;
pub mod recorder;
pub mod stream;

pub use frame::Frame;
pub use images::{COMPLETE_WRITES, Cut, CutKind, Limits, enumerate, epochs, redo, undo};
pub use mistakes::{Mistake, mistakes, with_mistake};
pub use random::Random;
pub use recorder::{Access, Counts, How, IoEvent, IoFault, Recorder, Recording};
pub use stream::{Flush, MediumStream};

use crate::Result;
use crate::block::WriteAt;

/// Runs an operation on a medium that holds `before`, and remembers every write and barrier.
///
/// # Errors
/// What the operation reports.
pub fn record(before: &Frame, operation: impl FnOnce(&dyn WriteAt) -> Result<()>) -> Result<Recording> {
    let recorder = Recorder::new(before.clone());
    operation(&recorder)?;
    Ok(recorder.into_recording())
}
