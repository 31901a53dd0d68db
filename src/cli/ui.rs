//! The terminal: events, progress, the question before a change, and Ctrl-C.

use super::args::Global;
use super::render::{Paint, on_stderr, proposal_text, to_desk};
use crate::command::{Event, Proposal, Ui};
use crate::harmless::harmless;
use crate::pod::{DeskEvent, listening};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{BufRead, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How soon a question ends when the user stops the program.
const LOOK_FOR_STOP: Duration = Duration::from_millis(50);

/// How often a desk that listens is told of progress: its log is no place for more.
const TELL_DESK: Duration = Duration::from_secs(1);

/// Tells on stderr, asks on stdin.
pub(super) struct Terminal {
    lines: Arc<Lines>,
    cancelled: Arc<AtomicBool>,
    paint: Paint,
}

/// What is told, and the progress bar that has to make room for it.
struct Lines {
    quiet: bool,
    verbose: bool,
    bar: Mutex<Option<ProgressBar>>,
    draw: bool,
    /// When a desk that listens was told of progress.
    told: Mutex<Option<Instant>>,
}

impl Terminal {
    pub(super) fn new(global: &Global) -> Self {
        let cancelled = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            // The second one ends the process at once: whatever it is then, `recover` mends it.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&cancelled));
            let _ = signal_hook::flag::register(signal, Arc::clone(&cancelled));
        }
        let draw = !global.no_progress && !global.quiet && std::io::stderr().is_terminal();
        let (quiet, verbose) = (global.quiet, global.verbose > 0);
        let lines = Lines { quiet, verbose, bar: Mutex::new(None), draw, told: Mutex::new(None) };
        Self { lines: Arc::new(lines), cancelled, paint: Paint::choose(global.color).1 }
    }

    /// Takes the progress bar away.
    pub(super) fn finish(&self) {
        self.lines.finish();
    }
}

impl Lines {
    fn finish(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line on stderr. Texts hold names and answers of servers.
    fn line(&self, text: &str) {
        let line = format!("{}\n", harmless(text));
        match self.bar().as_ref() {
            Some(bar) => bar.suspend(|| on_stderr(&line)),
            None => on_stderr(&line),
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Warning(text) if !self.quiet => self.line(&format!("warning: {text}")),
            Event::Note(text) if !self.quiet => self.line(&text),
            Event::Detail(text) if self.verbose => self.line(&text),
            Event::Step(text) if self.verbose => {
                self.finish();
                self.line(&text);
            }
            Event::Step(_) => self.finish(),
            Event::Progress { done, total } if listening().is_some() && !self.quiet => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_none_or(|told| told.elapsed() >= TELL_DESK) || total == Some(done) {
                    *told = Some(Instant::now());
                    to_desk(&DeskEvent::Progress { done, total });
                }
            }
            Event::Progress { done, total } if self.draw && !self.quiet => {
                let mut bar = self.bar();
                let bar = bar.get_or_insert_with(|| {
                    let style = match total {
                        Some(_) => "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                        None => "{spinner} {bytes} {bytes_per_sec}",
                    };
                    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
                    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style)
                });
                bar.set_position(done);
            }
            Event::Waiting { seconds } if self.verbose || (!self.quiet && seconds % 10 == 0 && seconds > 0) => {
                self.line(&format!(
                    "waiting for the server, {seconds} s (a new image is built on demand: minutes can pass)"
                ));
            }
            Event::Progress { .. } | Event::Warning(_) | Event::Note(_) | Event::Detail(_) | Event::Waiting { .. } => {}
        }
    }
}

impl Ui for Terminal {
    fn event(&self, event: Event) {
        self.lines.event(event);
    }

    fn detached(&self) -> Box<dyn Fn(Event) + Send + Sync> {
        let lines = Arc::clone(&self.lines);
        Box::new(move |event| lines.event(event))
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        if !self.can_ask() {
            return None;
        }
        self.finish();
        match listening() {
            Some(_) => to_desk(&DeskEvent::Question { text: question.to_owned() }),
            None => on_stderr(&format!("{} [y/N] ", harmless(question))),
        }
        // A read of the terminal goes on after a signal, so somebody else reads.
        let reader = std::thread::spawn(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| matches!(line.trim(), "y" | "Y" | "yes")).ok()
        });
        while !reader.is_finished() {
            if self.cancelled.load(Ordering::Relaxed) {
                on_stderr("\n");
                return Some(false);
            }
            std::thread::sleep(LOOK_FOR_STOP);
        }
        reader.join().ok().flatten()
    }

    fn show(&self, proposal: &Proposal<'_>) {
        self.finish();
        on_stderr(&proposal_text(proposal, self.paint, self.lines.verbose));
    }

    fn can_ask(&self) -> bool {
        listening().unwrap_or_else(|| std::io::stdin().is_terminal())
    }

    fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.finish();
        self.cancelled.store(false, Ordering::Relaxed);
    }
}
