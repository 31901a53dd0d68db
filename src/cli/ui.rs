//! The terminal: events, progress, the question before a change, and Ctrl-C.

use super::args::Global;
use super::progress::{EVERY, Phase, Show};
use super::render::{Paint, on_stderr, proposal_text, to_desk};
use crate::command::{Event, Proposal, Ui};
use crate::harmless::harmless;
use crate::pod::{DeskEvent, listening};
use std::io::{BufRead, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How soon a question ends when the user stops the program.
const LOOK_FOR_STOP: Duration = Duration::from_millis(50);

/// How often a desk that listens is told of progress: its log is no place for more.
const TELL_DESK: Duration = Duration::from_secs(1);

/// How often it is looked whether a line about progress is due.
const LOOK_FOR_LINE: Duration = Duration::from_millis(500);

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
    phase: Mutex<Option<Phase>>,
    show: Show,
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
        let show = match std::io::stderr().is_terminal() {
            _ if global.no_progress || global.quiet || listening().is_some() => Show::Nothing,
            true => Show::Bar,
            false => Show::Lines,
        };
        let (quiet, verbose) = (global.quiet, global.verbose > 0);
        let lines = Arc::new(Lines { quiet, verbose, phase: Mutex::new(None), show, told: Mutex::new(None) });
        if show == Show::Lines {
            let lines = Arc::downgrade(&lines);
            std::thread::spawn(move || Lines::keep_telling(&lines));
        }
        Self { lines, cancelled, paint: Paint::choose(global.color).1 }
    }

    /// The phase is over; takes the progress bar away.
    pub(super) fn finish(&self) {
        self.lines.finish();
    }
}

impl Lines {
    fn finish(&self) {
        if let Some(phase) = self.phase().take() {
            phase.finish();
        }
    }

    fn phase(&self) -> MutexGuard<'_, Option<Phase>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every ten seconds how far the phase has come, for as long as there is somebody who tells. Somebody beside
    /// the command has to do it, who does not hang where a medium does.
    fn keep_telling(lines: &Weak<Self>) {
        while let Some(lines) = lines.upgrade() {
            if let Some(line) = lines.phase().as_mut().and_then(|phase| phase.line_after(EVERY)) {
                on_stderr(&format!("{}\n", harmless(&line)));
            }
            drop(lines);
            std::thread::sleep(LOOK_FOR_LINE);
        }
    }

    /// Another phase begins.
    fn begin(&self, of: String) {
        self.finish();
        if listening().is_some() && !self.quiet {
            to_desk(&DeskEvent::Phase { text: of.clone() });
        }
        *self.phase() = Some(Phase::new(of));
    }

    /// A line on stderr. Texts hold names and answers of servers.
    fn line(&self, text: &str) {
        let line = format!("{}\n", harmless(text));
        match self.phase().as_ref().and_then(Phase::bar) {
            Some(bar) => bar.suspend(|| on_stderr(&line)),
            None => on_stderr(&line),
        }
    }

    fn event(&self, event: Event) {
        match event {
            Event::Warning(text) if !self.quiet => self.line(&format!("warning: {text}")),
            Event::Note(text) if !self.quiet => self.line(&text),
            Event::Detail(text) if self.verbose => self.line(&text),
            Event::Step(text) => {
                self.finish();
                if self.verbose {
                    self.line(&text);
                }
                self.begin(text);
            }
            Event::Phase(text) => self.begin(text),
            Event::Progress { done, total } if listening().is_some() && !self.quiet => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_none_or(|told| told.elapsed() >= TELL_DESK) || total == Some(done) {
                    *told = Some(Instant::now());
                    to_desk(&DeskEvent::Progress { done, total });
                }
            }
            Event::Progress { done, total } if self.show != Show::Nothing => {
                let mut phase = self.phase();
                phase.get_or_insert_with(|| Phase::new("working".into())).reached(done, total, self.show);
            }
            Event::Waiting { seconds } if self.verbose || (!self.quiet && seconds % 10 == 0 && seconds > 0) => {
                if let Some(phase) = self.phase().as_mut() {
                    phase.heard();
                }
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
