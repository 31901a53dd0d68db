//! The rows of slow media and slow lines. What is measured is held against what the medium and the network allow: the
//! time in which `dd` writes the image once and reads it back once, or `curl` transfers it, whichever is longer.

use super::inputs::{Inputs, SCHEMATIC_ID};
use super::measure::{Outcome, Step, Times, ours, there, volume};
use super::medium::{self, SlowMedium, Speed, Traffic};
use super::table::{Goal, Row, mb};
use bootsurgeon::testkit::factory::{AssetContent, Behaviour, LocalFactory};
use std::fs;
use std::path::PathBuf;

const MB: f64 = 1e6;
/// What a card or a module of flash memory does in the field, in MB/s.
const SLOW: Speed = Speed { read: 40.0 * MB, write: 20.0 * MB };
const FAIR: Speed = Speed { read: 100.0 * MB, write: 40.0 * MB };
/// From a server at so many MB/s to a medium of this speed: the network decides, the medium does, neither does.
const MIXES: [(u64, Speed); 3] = [(20, FAIR), (20, SLOW), (60, FAIR)];
/// What `status` without hashes may read.
const STATUS_BYTES: f64 = 3.0 * MB;
/// How much longer than the medium and the network allow a swap may take.
const LIMIT: Goal = Goal::AtMost(1.05);

/// The table's rows. `is_full` for the longer image and medians of three rounds.
pub(super) fn rows(inputs: &Inputs, is_full: bool, complete: &mut bool) -> Outcome<Vec<Row>> {
    let program = medium::build()?;
    let medium = match SlowMedium::show(&program, &inputs.full_esp()?) {
        Ok(medium) => medium,
        Err(e) => {
            println!("not run: slow media: a file cannot be shown through FUSE here: {e}");
            *complete = false;
            return Ok(Vec::new());
        }
    };
    let uki = if is_full { inputs.long_uki()? } else { inputs.uki.clone() };
    let uki_bytes = fs::metadata(&uki)?.len() as f64;
    let rounds = if is_full { 3 } else { 1 };
    let mut slow = Slow { inputs, medium, uki, uki_bytes, rounds, there_and_back: Vec::new() };
    let mut rows = slow.local()?;
    if there(&["curl", "sync", "cmp"], "slow lines", complete) {
        rows.extend(slow.remote()?);
    }
    Ok(rows)
}

struct Slow<'i> {
    inputs: &'i Inputs,
    medium: SlowMedium,
    uki: PathBuf,
    uki_bytes: f64,
    rounds: usize,
    /// What `dd` takes to write and to read back, by the speed of writing.
    there_and_back: Vec<(f64, f64)>,
}

/// `40/20`, in MB/s.
fn shown(speed: Speed) -> String {
    format!("{:.0}/{:.0} MB/s", speed.read / MB, speed.write / MB)
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

impl Slow<'_> {
    /// A swap that reads nothing but what it writes and what it has to know for that.
    fn swap(&self, image: &dyn AsRef<std::ffi::OsStr>) -> Step {
        self.swap_with(image, &[&"--no-extension-check"])
    }

    fn swap_with(&self, image: &dyn AsRef<std::ffi::OsStr>, more: &[&dyn AsRef<std::ffi::OsStr>]) -> Step {
        let path = self.medium.path();
        let args: [&dyn AsRef<std::ffi::OsStr>; 9] = [
            &"swap",
            &path,
            image,
            &"--cert",
            &self.inputs.cert,
            &"--efivars",
            &"none",
            &"--yes",
            &"--allow-halt-if-installed",
        ];
        ours(&[&args, more].concat())
    }

    /// Seconds that a step takes on the medium at this speed, as it was.
    fn timed(&mut self, speed: Speed, steps: &[Step]) -> Outcome<f64> {
        self.medium.reset()?;
        self.medium.run_at(Some(speed))?;
        steps.iter().map(|step| step.seconds(&self.inputs.folder)).sum()
    }

    /// A swap that did nothing would be fast: mtools reads the new UKI under its version's name.
    fn check_swapped(&mut self) -> Outcome<()> {
        self.medium.run_at(None)?;
        let (esp, target) = (volume(&self.medium.path(), 0), format!("::/{}", Inputs::IN_ISO));
        let found = Step::new(&[&"mcopy", &"-n", &"-i", &esp, &target, &"-"]).run(&self.inputs.folder)?;
        if found == fs::read(&self.uki)? { Ok(()) } else { Err("the swap has not put the new UKI in place".into()) }
    }

    /// Seconds to write the image once and to read it back once, by `dd`.
    fn write_and_read(&mut self, speed: Speed) -> Outcome<f64> {
        let (from, to) = (format!("if={}", self.uki.display()), format!("of={}", self.medium.path().display()));
        let write = Step::new(&[&"dd", &from, &to, &"bs=1M", &"conv=notrunc", &"status=none"]);
        let read = self.read();
        self.timed(speed, &[write, read])
    }

    /// What was measured of that.
    fn there_and_back(&self, speed: Speed) -> f64 {
        self.there_and_back.iter().find(|(write, _)| *write == speed.write).map_or(f64::NAN, |(_, seconds)| *seconds)
    }

    /// `dd` reads so many bytes.
    fn read(&self) -> Step {
        let from = format!("if={}", self.medium.path().display());
        let count = format!("count={}", self.uki_bytes);
        Step::new(&[&"dd", &from, &"of=/dev/null", &"bs=1M", &count, &"iflag=count_bytes", &"status=none"])
    }

    fn local(&mut self) -> Outcome<Vec<Row>> {
        let (mut rows, mut traffic) = (Vec::new(), Traffic::default());
        for speed in [SLOW, FAIR] {
            let mut times = Times::default();
            for _ in 0..self.rounds {
                times.add("swap", self.timed(speed, &[self.swap(&self.uki)])?);
                traffic = self.medium.traffic()?;
                self.check_swapped()?;
                times.add("limit", self.write_and_read(speed)?);
            }
            let limit = times.median("limit");
            self.there_and_back.push((speed.write, limit));
            rows.push(Row {
                what: format!("`swap --no-extension-check` from a file, medium {}", shown(speed)),
                ours: seconds(times.median("swap")),
                theirs: format!("{} `dd` there and back", seconds(limit)),
                ratio: times.median("swap") / limit,
                goal: LIMIT,
                is_time: true,
            });
        }
        // The installed image is of the same length.
        let read = self.read();
        let limit = self.there_and_back(FAIR) + self.timed(FAIR, &[read])?;
        let compared = self.timed(FAIR, &[self.swap_with(&self.uki, &[])])?;
        rows.push(Row {
            what: format!("the same, the installed image read for its extensions, medium {}", shown(FAIR)),
            ours: seconds(compared),
            theirs: format!("{} `dd` of that, there and back", seconds(limit)),
            ratio: compared / limit,
            goal: LIMIT,
            is_time: true,
        });
        let count = |what: &str, bytes: u64, limit| Row {
            what: what.into(),
            ours: mb(bytes as f64),
            theirs: format!("{} the UKI", mb(self.uki_bytes)),
            ratio: bytes as f64 / self.uki_bytes,
            goal: Goal::AtMost(limit),
            is_time: false,
        };
        rows.push(count(
            "bytes read from the medium by `swap --no-extension-check`, 2 GiB with four UKIs",
            traffic.read,
            1.03,
        ));
        rows.push(count("bytes written to it", traffic.written, 1.02));
        self.medium.reset()?;
        self.medium.run_at(None)?;
        let path = self.medium.path();
        ours(&[&"status", &path, &"--efivars", &"none", &"--no-hashes"]).run(&self.inputs.folder)?;
        let read = self.medium.traffic()?.read as f64;
        rows.push(Row {
            what: "bytes read by `status --no-hashes`, 2 GiB with four UKIs".into(),
            ours: mb(read),
            theirs: mb(STATUS_BYTES),
            ratio: read / STATUS_BYTES,
            goal: Goal::AtMost(1.0),
            is_time: false,
        });
        Ok(rows)
    }

    fn remote(&mut self) -> Outcome<Vec<Row>> {
        let factory = LocalFactory::start()?;
        let mut rows = Vec::new();
        let mut lines: Vec<(u64, f64)> = Vec::new();
        for (line, speed) in MIXES {
            let behaviour =
                Behaviour { ranges: true, bytes_per_second: Some(line * 1_000_000), ..Behaviour::default() };
            let content = AssetContent::file(&self.uki)?;
            let url = factory.serve(SCHEMATIC_ID, "v1.12.4", "metal-arm64-secureboot-uki.efi", content, behaviour);
            let curl = |out: &'static str| Step::new(&[&"curl", &"-sf", &"-o", &out, &url]);
            let mut times = Times::default();
            for _ in 0..self.rounds {
                if !lines.iter().any(|(measured, _)| *measured == line) {
                    times.add("line", curl("/dev/null").seconds(&self.inputs.folder)?);
                }
                times.add("swap", self.timed(speed, &[self.swap(&url)])?);
                self.check_swapped()?;
            }
            let known = lines.iter().find(|(measured, _)| *measured == line).map(|(_, seconds)| *seconds);
            let (by_line, by_medium) = (known.unwrap_or_else(|| times.median("line")), self.there_and_back(speed));
            lines.push((line, by_line));
            let decides = if by_line > by_medium { "`curl -o /dev/null`" } else { "`dd` there and back" };
            rows.push(Row {
                what: format!("the same from a server at {line} MB/s, medium {}", shown(speed)),
                ours: seconds(times.median("swap")),
                theirs: format!("{} {decides}", seconds(by_line.max(by_medium))),
                ratio: times.median("swap") / by_line.max(by_medium),
                goal: LIMIT,
                is_time: true,
            });
            if rows.len() == 1 {
                let by_hand = self.timed(speed, &self.by_hand(curl("by-hand.efi")))?;
                rows.push(Row {
                    what: String::new(),
                    ours: seconds(times.median("swap")),
                    theirs: format!("{} by hand: `curl`, `mcopy`, `sync`, `mcopy` back, `cmp`", seconds(by_hand)),
                    ratio: times.median("swap") / by_hand,
                    goal: Goal::None,
                    is_time: true,
                });
            }
        }
        Ok(rows)
    }

    /// What is done without this program.
    fn by_hand(&self, curl: Step) -> Vec<Step> {
        let (esp, target) = (volume(&self.medium.path(), 0), format!("::/{}", Inputs::IN_ISO));
        vec![
            curl,
            Step::new(&[&"mcopy", &"-o", &"-i", &esp, &"by-hand.efi", &target]),
            Step::new(&[&"sync", &self.medium.path()]),
            Step::new(&[&"mcopy", &"-n", &"-i", &esp, &target, &"read-back.efi"]),
            Step::new(&[&"cmp", &"by-hand.efi", &"read-back.efi"]),
            Step::new(&[&"rm", &"by-hand.efi", &"read-back.efi"]),
        ]
    }
}
