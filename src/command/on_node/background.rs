//! Calls of other programs that go on beside each other.

use super::tool::lines;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a call that goes on is looked at.
const TICK: Duration = Duration::from_millis(20);
/// How many lines of what a call complains about are kept.
const MOST_SAID: usize = 8;

/// Calls that go on beside each other, and end with this.
#[derive(Default)]
pub(super) struct Background {
    stopped: AtomicBool,
    running: Mutex<Vec<Pid>>,
}

impl Background {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Makes a call, works with its pipes and waits for its end.
    ///
    /// # Errors
    /// What it said, when it failed.
    pub(super) fn run(&self, mut command: Command, work: impl FnOnce(&mut Child)) -> Result<(), String> {
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.running().extend(group);
        if self.is_stopped() {
            self.stop();
        }
        let stderr = child.stderr.take();
        std::thread::scope(|scope| {
            let said = scope.spawn(move || {
                let mut said = Vec::new();
                lines(stderr, |line, _| {
                    said.push(line);
                    said.len() < MOST_SAID
                });
                said.join("; ")
            });
            work(&mut child);
            drop(child.stdin.take());
            let status = loop {
                // Nobody is killed by a number that is another's already.
                let mut running = self.running();
                match child.try_wait() {
                    Ok(None) => {}
                    ended => {
                        running.retain(|pid| Some(*pid) != group);
                        break ended;
                    }
                }
                drop(running);
                std::thread::sleep(TICK);
            };
            let said = said.join().unwrap_or_default();
            match status {
                Ok(Some(status)) if status.success() => Ok(()),
                Ok(Some(status)) if said.is_empty() => Err(status.to_string()),
                Ok(_) => Err(said),
                Err(e) => Err(e.to_string()),
            }
        })
    }

    /// Ends every call, with whatever it started.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        for group in self.running().iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
