//! How fast, how much memory, how many bytes: this tool beside the tools of today, in one run on one machine.
//!
//!     cargo bench --bench peers                  prints one table (Markdown)
//!     cargo bench --bench peers -- --rounds 9    medians of nine rounds instead of five
//!     cargo bench --bench peers -- --strict      missed time goals fail, too
//!     cargo bench --bench peers -- --full        slow media with more rounds, see benches/slow
//!
//! The inputs have the size of the field (a UKI of 120 MB, its ISO of 250 MB, a disk of 2 GiB) and are made once in the
//! target folder. Every round runs all contestants one after the other, so that whatever else the machine does hits all
//! of them. Caches are warm, and the disk image is put back before every swap, which is not counted. Counts (bytes,
//! memory) are the same on every machine and fail the run when they miss their goal; times say what this machine says.
#![allow(missing_docs)] // a program, not a library

mod inputs;
mod measure;
#[path = "../slow/medium.rs"]
mod medium;
#[path = "../slow/rows.rs"]
mod slow;
mod table;

use bootsurgeon::block::{FileSource, ReadAt};
use bootsurgeon::image;
use bootsurgeon::testkit::factory::{AssetContent, Behaviour, LocalFactory};
use inputs::{Inputs, SCHEMATIC_ID};
use measure::{Outcome, READS, Step, Times, WRITES, locate, ours, there, volume};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use table::{Goal, Row, mb, ms};

/// The most memory any command may take.
const MEMORY: f64 = 64.0 * 1024.0 * 1024.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|a| a == "--bench") {
        println!("a comparison that takes a minute: run it with `cargo bench --bench peers`");
        return ExitCode::SUCCESS;
    }
    let rounds = args.iter().skip_while(|a| *a != "--rounds").nth(1).and_then(|n| n.parse().ok()).unwrap_or(5);
    match compare(rounds, args.iter().any(|a| a == "--full")) {
        Ok((rows, complete)) => {
            table::print(&rows);
            let strict = args.iter().any(|a| a == "--strict");
            let missed = rows.iter().any(|row| !row.met() && (strict || !row.is_time));
            let ci = std::env::var_os("CI").is_some();
            if missed || (ci && !complete) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn compare(rounds: usize, is_full: bool) -> Outcome<(Vec<Row>, bool)> {
    let mut complete = true;
    if !there(&inputs::TOOLS, "everything", &mut complete) {
        return Ok((Vec::new(), complete));
    }
    let bench = Bench::new(Inputs::make(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers"))?)?;
    let mut rows = Vec::new();
    if there(&["bsdtar", "sbverify", "sha256sum", "sync"], "times of swap, extract, verify", &mut complete) {
        let with_curl = there(&["curl"], "times of a remote swap", &mut complete);
        rows.extend(bench.times(rounds, with_curl)?);
    }
    if there(&["strace"], "bytes read and written", &mut complete) {
        rows.extend(bench.bytes()?);
    }
    rows.push(bench.wire()?);
    if there(&["time"], "memory", &mut complete) {
        rows.extend(bench.memory(locate("sbverify").is_some())?);
    }
    rows.extend(slow::rows(&bench.inputs, is_full, &mut complete)?);
    Ok((rows, complete))
}

/// Everything that is run, and what it is run on.
struct Bench {
    inputs: Inputs,
    /// The disk that is swapped on; put back before each swap.
    disk: PathBuf,
    /// Length of the new UKI in bytes.
    uki_bytes: f64,
    factory: LocalFactory,
    /// The ISO at the factory.
    iso_url: String,
    /// The UKI at a server without byte ranges.
    plain_url: String,
}

impl Bench {
    fn new(inputs: Inputs) -> Outcome<Self> {
        let factory = LocalFactory::start()?;
        let ranges = || Behaviour { ranges: true, ..Behaviour::default() };
        let iso = AssetContent::file(&inputs.iso)?;
        let iso_url = factory.serve(SCHEMATIC_ID, "v1.12.4", "metal-arm64-secureboot.iso", iso, ranges());
        let serve_uki = |name: &str, behaviour: Behaviour| -> Outcome<String> {
            Ok(factory.serve(SCHEMATIC_ID, "v1.12.4", name, AssetContent::file(&inputs.uki)?, behaviour))
        };
        serve_uki("metal-arm64-secureboot-uki.efi", ranges())?;
        let plain_url = serve_uki("without-ranges.efi", Behaviour::default())?;
        let uki_bytes = fs::metadata(&inputs.uki)?.len() as f64;
        Ok(Self { disk: inputs.folder.join("work.img"), inputs, uki_bytes, factory, iso_url, plain_url })
    }

    /// Runs a step in the folder of the inputs.
    fn seconds(&self, step: &Step) -> Outcome<f64> {
        step.seconds(&self.inputs.folder)
    }

    fn run(&self, step: &Step) -> Outcome<Vec<u8>> {
        step.run(&self.inputs.folder)
    }

    /// The disk as it was, all of it on the medium, so that nobody waits for writes that are not its own.
    fn reset(&self) -> Outcome<()> {
        self.run(&Step::new(&[&"cp", &"--sparse=always", &self.inputs.disk, &self.disk]))?;
        fs::File::open(&self.disk)?.sync_all()?;
        Ok(())
    }

    fn swap(&self, image: &dyn AsRef<std::ffi::OsStr>) -> Step {
        ours(&[&"swap", &self.disk, image, &"--yes", &"--allow-halt-if-installed"])
    }

    /// A swap that brings the board's files with it.
    fn swap_set(&self) -> Step {
        let (disk, board) = (&self.disk, &self.inputs.board);
        ours(&[&"swap", disk, board, &"--with-board-files", &"--yes", &"--allow-halt-if-installed"])
    }

    fn verify(&self) -> Step {
        ours(&[&"verify", &self.inputs.uki, &"--cert", &self.inputs.cert, &"--efivars", &"none"])
    }

    fn extract(&self) -> Step {
        ours(&[&"extract", &self.inputs.iso, &"--out", &"extracted.efi"])
    }

    fn fetch(&self) -> Step {
        ours(&[
            &"fetch",
            &"--factory",
            &self.factory.url(),
            &"--schematic",
            &SCHEMATIC_ID,
            &"--talos",
            &"v1.12.4",
            &"--arch",
            &"arm64",
            &"--kind",
            &"uki",
            &"--out",
            &"fetched.efi",
        ])
    }

    fn sbverify(&self, uki: &dyn AsRef<std::ffi::OsStr>) -> Step {
        Step::new(&[&"sbverify", &"--cert", &self.inputs.cert, uki])
    }

    /// The same job as a swap by the tools of today, step by step.
    fn runbook(&self) -> Vec<Step> {
        let esp = volume(&self.disk, Inputs::ESP_OFFSET);
        let installed = format!("::/EFI/Linux/{}", Inputs::INSTALLED);
        let backup = format!("{installed}.bak");
        vec![
            Step::new(&[&"bsdtar", &"-xf", &self.inputs.iso, &Inputs::IN_ISO]),
            self.sbverify(&Inputs::IN_ISO),
            Step::new(&[&"mcopy", &"-n", &"-i", &esp, &installed, &"backup.efi"]),
            Step::new(&[&"mcopy", &"-o", &"-i", &esp, &"backup.efi", &backup]),
            Step::new(&[&"mcopy", &"-o", &"-i", &esp, &Inputs::IN_ISO, &installed]),
            Step::new(&[&"sync", &self.disk]),
            Step::new(&[&"mcopy", &"-n", &"-i", &esp, &installed, &"read-back.efi"]),
            Step::new(&[&"sha256sum", &"read-back.efi"]),
        ]
    }

    fn remove(&self, names: &[&str]) {
        for name in names {
            let _ = fs::remove_file(self.inputs.folder.join(name));
        }
    }

    fn times(&self, rounds: usize, with_curl: bool) -> Outcome<Vec<Row>> {
        let i = &self.inputs;
        let range = uki_range(&i.iso)?;
        let curl = Step::new(&[&"curl", &"-sf", &"-o", &"/dev/null", &"-r", &range, &self.iso_url]);
        let mut t = Times::default();
        // One round more than counted: the first warms the caches.
        for round in 0..=rounds {
            let mut take = |name, step: &Step| -> Outcome<f64> {
                let seconds = self.seconds(step)?;
                if round > 0 {
                    t.add(name, seconds);
                }
                Ok(seconds)
            };
            take("status", &ours(&[&"status", &i.small_disk]))?;
            self.remove(&["extracted.efi", Inputs::IN_ISO, "copy.efi"]);
            take("extract", &self.extract())?;
            take("bsdtar", &self.runbook()[0])?;
            take("cp", &Step::new(&[&"cp", &i.uki, &"copy.efi"]))?;

            take("verify", &self.verify())?;
            take("openssl", &Step::new(&[&"openssl", &"dgst", &"-sha256", &i.uki]))?;
            take("sbverify", &self.sbverify(&i.uki))?;

            self.reset()?;
            take("swap", &self.swap(&i.iso))?;
            self.check_swapped()?;
            self.remove(&["backup.efi", "read-back.efi", Inputs::IN_ISO]);
            self.reset()?;
            let mut sum = 0.0;
            for step in self.runbook() {
                sum += self.seconds(&step)?;
            }
            self.remove(&["backup.efi", "read-back.efi"]);
            if round > 0 {
                t.add("runbook", sum);
            }
            if with_curl {
                self.reset()?;
                let mut take = |name, step: &Step| -> Outcome<()> {
                    let seconds = self.seconds(step)?;
                    if round > 0 {
                        t.add(name, seconds);
                    }
                    Ok(())
                };
                take("remote", &self.swap(&self.iso_url))?;
                take("curl", &curl)?;
                let to_file = Step::new(&[&"curl", &"-sf", &"-o", &"curled.efi", &"-r", &range, &self.iso_url]);
                take("curl -o FILE", &to_file)?;
                take("hash of FILE", &Step::new(&[&"openssl", &"dgst", &"-sha256", &"curled.efi"]))?;
                self.remove(&["curled.efi"]);
                self.remove(&["fetched.efi"]);
                take("fetch", &self.fetch())?;
            }
        }
        let row = |what: &str, name, peer, peer_says: &str, goal| Row {
            what: what.to_owned(),
            ours: ms(t.median(name)),
            theirs: format!("{} {peer_says}", ms(t.median(peer))),
            ratio: t.median(name) / t.median(peer),
            goal,
            is_time: true,
        };
        let mut rows = vec![
            row(
                "`swap DISK.img ISO`, verification and read-back included",
                "swap",
                "runbook",
                "the peers' steps together",
                Goal::AtMost(0.6),
            ),
            row("`extract ISO`", "extract", "bsdtar", "`bsdtar -xf ISO UKI`", Goal::AtMost(1.0)),
            row("", "extract", "cp", "`cp UKI`, the limit", Goal::None),
            row("`verify UKI`, all checks", "verify", "openssl", "`openssl dgst -sha256`", Goal::AtMost(1.5)),
            row("", "verify", "sbverify", "`sbverify --cert`", Goal::AtMost(1.0)),
            Row {
                what: "`status` of a small disk".into(),
                ours: ms(t.median("status")),
                theirs: "10 ms".into(),
                ratio: t.median("status") / 0.010,
                goal: Goal::AtMost(1.0),
                is_time: true,
            },
        ];
        if with_curl {
            let throughput = |what: &str, name| Row {
                what: what.into(),
                ours: format!("{}/s", mb(self.uki_bytes / t.median(name))),
                theirs: format!("{}/s `curl -o /dev/null`", mb(self.uki_bytes / t.median("curl"))),
                ratio: t.median("curl") / t.median(name),
                goal: Goal::AtLeast(0.8),
                is_time: true,
            };
            rows.push(throughput("throughput of `swap DISK.img URL`, verification and read-back included", "remote"));
            rows.push(throughput("throughput of `fetch`, hashing and writing included", "fetch"));
            let same_work = t.median("curl -o FILE") + t.median("hash of FILE");
            rows.push(Row {
                what: "`fetch`, the same bytes".into(),
                ours: ms(t.median("fetch")),
                theirs: format!("{} `curl -o FILE`, then `openssl dgst -sha256 FILE`", ms(same_work)),
                ratio: t.median("fetch") / same_work,
                goal: Goal::AtMost(1.25),
                is_time: true,
            });
        }
        Ok(rows)
    }

    /// A swap that did nothing would be fast: mtools reads the new UKI under its version's name.
    fn check_swapped(&self) -> Outcome<()> {
        let esp = volume(&self.disk, Inputs::ESP_OFFSET);
        let target = format!("::/{}", Inputs::IN_ISO);
        let found = self.run(&Step::new(&[&"mcopy", &"-n", &"-i", &esp, &target, &"-"]))?;
        if found == fs::read(&self.inputs.uki)? {
            Ok(())
        } else {
            Err("the swap has not put the new UKI in place".into())
        }
    }

    fn bytes(&self) -> Outcome<Vec<Row>> {
        self.reset()?;
        let count = |what: &str, bytes: f64, limit| Row {
            what: what.into(),
            ours: mb(bytes),
            theirs: format!("{} the UKI", mb(self.uki_bytes)),
            ratio: bytes / self.uki_bytes,
            goal: Goal::AtMost(limit),
            is_time: false,
        };
        let folder = &self.inputs.folder;
        let written = self.swap(&self.inputs.iso).transferred(folder, &self.disk, WRITES)?;
        self.reset()?;
        let of_set = self.swap_set().transferred(folder, &self.disk, WRITES)?;
        let set_bytes = self.uki_bytes + Inputs::BOARD_FILES as f64;
        let read = self.verify().transferred(folder, &self.inputs.uki, READS)?;
        Ok(vec![
            count("bytes written to the disk by a swap (strace)", written, 1.02),
            Row {
                what: "bytes written by a swap with 40 files of the board (strace)".into(),
                ours: mb(of_set),
                theirs: format!("{} UKI and files", mb(set_bytes)),
                ratio: of_set / set_bytes,
                goal: Goal::AtMost(1.02),
                is_time: false,
            },
            count("bytes of the UKI read by `verify` (strace)", read, 1.05),
        ])
    }

    /// What a remote swap fetches, as the server counts it.
    fn wire(&self) -> Outcome<Row> {
        self.reset()?;
        let before = self.factory.bytes_sent();
        self.run(&self.swap(&self.iso_url))?;
        self.check_swapped()?;
        let bytes = (self.factory.bytes_sent() - before) as f64;
        Ok(Row {
            what: "bytes on the wire for a swap from a remote ISO".into(),
            ours: mb(bytes),
            theirs: format!("{} the UKI", mb(self.uki_bytes)),
            ratio: bytes / self.uki_bytes,
            goal: Goal::AtMost(1.02),
            is_time: false,
        })
    }

    fn memory(&self, with_sbverify: bool) -> Outcome<Vec<Row>> {
        let i = &self.inputs;
        let theirs = if with_sbverify {
            format!("64 MiB; sbverify takes {}", mb(self.sbverify(&i.uki).peak_memory(&i.folder)?))
        } else {
            "64 MiB".into()
        };
        self.remove(&["extracted.efi"]);
        self.reset()?;
        let steps = [
            ("status DISK.img", ours(&[&"status", &self.disk])),
            ("swap DISK.img ISO", self.swap(&i.iso)),
            ("verify UKI", self.verify()),
            ("verify ISO", ours(&[&"verify", &i.iso, &"--cert", &i.cert, &"--efivars", &"none"])),
            ("extract ISO", self.extract()),
            ("inspect ISO", ours(&[&"inspect", &i.iso])),
        ];
        let mut rows = Vec::new();
        let mut add = |name: &str, step: &Step| -> Outcome<()> {
            let bytes = step.peak_memory(&i.folder)?;
            rows.push(Row {
                what: format!("peak memory of `{name}`"),
                ours: mb(bytes),
                theirs: theirs.clone(),
                ratio: bytes / MEMORY,
                goal: Goal::AtMost(1.0),
                is_time: false,
            });
            Ok(())
        };
        for (name, step) in &steps {
            add(name, step)?;
        }
        self.reset()?;
        add("swap DISK.img URL", &self.swap(&self.iso_url))?;
        self.reset()?;
        add("swap DISK.img URL, without byte ranges", &self.swap(&self.plain_url))?;
        self.reset()?;
        add("swap DISK.img RAW.zst --with-board-files", &self.swap_set())?;
        self.remove(&["extracted.efi", "fetched.efi", "copy.efi"]);
        Ok(rows)
    }
}

/// Where the UKI lies in the ISO, as curl's `-r` wants it.
fn uki_range(iso: &Path) -> Outcome<String> {
    let found = image::locate_without_twins(Arc::new(FileSource::open(iso)?))?;
    let uki = image::choose(&found, None)?;
    let first = uki.bytes.extents().first().ok_or("the UKI in the ISO is empty")?;
    Ok(format!("{}-{}", first.offset, first.offset + uki.bytes.size() - 1))
}
