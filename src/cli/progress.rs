//! How far a phase has come: a bar in a terminal, a line every ten seconds in a log.

use crate::units::size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// How often a log is told.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// What is done about progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// It is drawn in the terminal.
    Bar,
    /// Lines tell of it.
    Lines,
    /// Nothing.
    Nothing,
}

/// One phase of a command: from one step to the next.
pub(super) struct Phase {
    /// What is being done: `reading it back from the medium`.
    of: String,
    begun: Instant,
    /// When there was news last: a line, or a wait that was told of.
    told: Instant,
    /// What was done when the last line was written.
    done_then: u64,
    /// Once bytes are counted. It is drawn or not; rate and time left are its business.
    bar: Option<ProgressBar>,
}

impl Phase {
    pub(super) fn new(of: String) -> Self {
        let now = Instant::now();
        Self { of, begun: now, told: now, done_then: 0, bar: None }
    }

    pub(super) fn bar(&self) -> Option<&ProgressBar> {
        self.bar.as_ref()
    }

    /// So many bytes are done, of so many.
    pub(super) fn reached(&mut self, done: u64, total: Option<u64>, show: Show) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = match total {
                Some(_) => "{msg}\n{bar:32} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
                None => "{msg}\n{spinner} {bytes}, {bytes_per_sec}",
            };
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let target = if show == Show::Bar { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
            self.done_then = done;
            // What an earlier run had fetched says nothing about the rate.
            let bar = ProgressBar::with_draw_target(total, target).with_style(style).with_position(done);
            bar.reset_eta();
            bar.set_message(self.of.clone());
            bar
        });
        // Who sends again from the start has got so far, and no further.
        self.done_then = self.done_then.min(done);
        bar.set_position(done);
    }

    /// There is other news.
    pub(super) fn heard(&mut self) {
        self.told = Instant::now();
    }

    /// The line that is due, if the last news is so long ago.
    pub(super) fn line_after(&mut self, every: Duration) -> Option<String> {
        if self.told.elapsed() < every {
            return None;
        }
        let line = self.line(self.told.elapsed().as_secs());
        self.told = Instant::now();
        self.done_then = self.bar.as_ref().map_or(0, ProgressBar::position);
        Some(line)
    }

    /// How far it has come, when nothing was said for so many seconds.
    fn line(&self, silent: u64) -> String {
        let (of, so_far) = (&self.of, time(self.begun.elapsed()));
        let Some(bar) = &self.bar else { return format!("{of}: {so_far} so far") };
        let (done, rate) = (bar.position(), bar.per_sec() as u64);
        let (moves, rate_known) = (done > self.done_then, rate > 0);
        match bar.length() {
            Some(total) if done >= total => format!("{of}: all of {} are through, {so_far} so far", size(total)),
            total => {
                let whole = total.map_or_else(String::new, |total| format!(" of {}", size(total)));
                let (rate, left) = (size(rate), time(bar.eta()));
                let pace = match total {
                    _ if !moves => format!("no further for {silent} s"),
                    Some(_) if rate_known => format!("{rate}/s, {left} left"),
                    None if rate_known => format!("{rate}/s"),
                    _ => format!("{so_far} so far"),
                };
                format!("{of}: {}{whole}, {pace}", size(done))
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `48 s`, `3 min 20 s`, `2 h 5 min`.
fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn times_are_in_words() {
        for (seconds, words) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn issue20_8_a_line_says_rate_and_time_left() {
        let mut phase = Phase::new("reading it back from the medium".into());
        for step in 0..=10 {
            std::thread::sleep(Duration::from_millis(20));
            phase.reached(step * MIB, Some(100 * MIB), Show::Lines);
        }
        let line = phase.line_after(Duration::ZERO).unwrap();
        assert!(line.starts_with("reading it back from the medium: 10.0 MiB of 100 MiB, "), "{line}");
        let (rate, left) = line.rsplit_once("/s, ").unwrap();
        let rate: f64 = rate.rsplit_once(", ").unwrap().1.strip_suffix(" MiB").unwrap().parse().unwrap();
        assert!((5.0..60.0).contains(&rate), "50 MiB/s were sent: {line}");
        let left: u64 = left.strip_suffix(" s left").unwrap().parse().unwrap();
        assert!((1..20).contains(&left), "{line}");
        assert_eq!(phase.line_after(Duration::from_secs(60)), None, "there was news just now");
    }

    #[test]
    fn issue20_8_a_line_says_what_is_not_known() {
        let mut phase = Phase::new("committing".into());
        assert_eq!(phase.line(10), "committing: 0 s so far");
        phase.reached(7 * MIB, None, Show::Lines);
        assert_eq!(phase.line(10), "committing: 7.0 MiB, no further for 10 s");
        let mut phase = Phase::new("downloading".into());
        phase.reached(50 * MIB, Some(100 * MIB), Show::Lines);
        assert_eq!(
            phase.line(10),
            "downloading: 50.0 MiB of 100 MiB, no further for 10 s",
            "the part of an earlier run"
        );
        phase.reached(100 * MIB, Some(100 * MIB), Show::Lines);
        assert_eq!(phase.line(10), "downloading: all of 100 MiB are through, 0 s so far");
    }
}
