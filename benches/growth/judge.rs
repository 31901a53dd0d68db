//! What was measured, and whether it grows as it should.

use super::subjects::Subject;

/// The most memory any command may take, in bytes.
pub(super) const MEMORY: f64 = 64.0 * 1024.0 * 1024.0;
/// The largest exponent of time over size that counts as linear.
const LINEAR: f64 = 1.15;
/// Shorter times say more of the machine than of growth, in seconds.
const NOISE: f64 = 0.1;

/// What does not grow linearly for a known reason: subject, command, and why. Nothing excuses memory or a failure.
const KNOWN: [(Subject, &str, &str); 1] = [(
    Subject::Files,
    "swap",
    "after the commit every header is read again, of some 1,500 files from memory and of the others from the medium",
)];
const NOT_LINEAR: &str = "not linear";

/// One run, or the median of several.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub(super) x: u64,
    pub(super) seconds: f64,
    /// Peak memory in bytes.
    pub(super) memory: f64,
}

/// One command over all sizes.
pub(super) struct Series {
    pub(super) command: &'static str,
    pub(super) points: Vec<Point>,
    /// Why the points behind these are missing.
    pub(super) failure: Option<String>,
}

impl Series {
    /// The exponent of time over size between the last two points: 1 is linear.
    pub(super) fn exponent(&self) -> Option<f64> {
        let [.., a, b] = self.points[..] else { return None };
        (b.seconds > NOISE).then(|| (b.seconds / a.seconds).ln() / (b.x as f64 / a.x as f64).ln())
    }

    pub(super) fn is_linear(&self) -> bool {
        self.exponent().is_none_or(|e| e <= LINEAR)
    }

    pub(super) fn most_memory(&self) -> f64 {
        self.points.iter().map(|p| p.memory).fold(0.0, f64::max)
    }

    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if let Some(why) = &self.failure {
            missed.push(format!("failed: {why}"));
        }
        if !self.is_linear() {
            missed.push(NOT_LINEAR.to_owned());
        }
        if self.most_memory() > MEMORY {
            missed.push("more than 64 MiB".to_owned());
        }
        missed
    }
}

/// Prints the table of one subject, and says whether all goals were met.
pub(super) fn print(subject: Subject, all: &[Series]) -> bool {
    println!("\n### {}\n", subject.title());
    print!("| command |");
    for x in subject.points() {
        print!(" {} |", subject.shown(*x));
    }
    println!(" exponent of the last step | peak memory | |");
    println!("| --- |{} --- | --- | --- |", " --- |".repeat(subject.points().len()));
    let mut met = true;
    for series in all {
        print!("| `{}` |", series.command);
        for x in subject.points() {
            match series.points.iter().find(|p| p.x == *x) {
                Some(p) => print!(" {}, {:.0} MB |", time(p.seconds), p.memory / 1e6),
                None => print!(" |"),
            }
        }
        let missed = series.missed();
        let known = KNOWN.iter().find(|(s, command, _)| *s == subject && *command == series.command);
        let verdict = match known {
            _ if missed.is_empty() => "pass".to_owned(),
            Some((_, _, why)) if missed == [NOT_LINEAR] => format!("known: {NOT_LINEAR}: {why}"),
            _ => format!("MISSED: {}", missed.join(", ")),
        };
        met &= !verdict.starts_with("MISSED");
        let exponent = series.exponent().map_or("too short to tell".to_owned(), |e| format!("{e:.2}"));
        println!(" {exponent} | {:.1} MB | {verdict} |", series.most_memory() / 1e6);
    }
    met
}

/// Seconds for people.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}
