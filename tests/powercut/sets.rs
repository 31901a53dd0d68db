//! Sets of files: a swap that brings the board's own files with it, under the harness. Files of several directories
//! change one after the other; the image last. Undone, finished, carried to its end and taken back, and each of these
//! cut as well.

use crate::checker::{Content, Report};
use crate::crash::Random;
use crate::geometry::Width;
use crate::invariants::Expectation;
use crate::matrix;
use crate::operations::{Budget, Maker, Operation, prove, scenarios};
use crate::volumes::{OTHER, Room, Shape, Volume};
use bootsurgeon::block::{ReadAt, Sink, WriteAt};
use bootsurgeon::surgery::{
    ContentRef, Direction, FileStep, Order, RecoveryOptions, Rename, SetContent, SetFile, Staging, open_healthy,
    recover, recover_with, rehearse_with,
};
use bootsurgeon::{Error, Kind, Result};
use sha2::{Digest, Sha256};

const TIME: u64 = 1_700_000_000;

/// The files of a set, as [`crate::volumes::Volume::build`] knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    One,
    Three,
    Forty,
}

/// What the user asks of `recover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Nothing,
    /// `--forward`, and where that is refused without it.
    Forward,
    /// `--back`, and where that is refused without it.
    Back,
    /// Nothing, of a restore: every file gets the content of its backup, whose name goes.
    Restored,
}

/// A swap with a set.
pub struct WithSet {
    order: Order,
    image: Vec<u8>,
    /// The contents of the set's files.
    contents: Vec<Vec<u8>>,
    ask: Ask,
    /// The backup of the image, for a restore.
    from: Option<String>,
}

/// A file of a set: its path, and its new content.
struct Change {
    path: String,
    content: Vec<u8>,
}

fn changes(files: Files, volume: &Volume) -> Vec<Change> {
    let mut random = Random::new(volume.shape.seed ^ 0x5E7);
    let count = match files {
        Files::One => 1,
        Files::Three => 3,
        Files::Forty => 40,
    };
    let there = |path: &str| volume.files.contains_key(path);
    // What is on the volume is replaced, in several directories; more files are added.
    let known = match (files, volume.shape.seed % 2) {
        (Files::One, 0) => &[][..],
        (Files::Three, _) => &["loader/keys/db.auth", "EFI/BOOT/BOOTX64.EFI"],
        _ => &["loader/keys/db.auth", "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/empty"],
    };
    let mut paths: Vec<String> = known.iter().filter(|path| there(path)).map(|path| (*path).to_owned()).collect();
    paths.extend(
        (0..)
            .map(|n| match n % 6 {
                // In directories that the volume does not have.
                0 => format!("overlays/a directory below it/F{n}"),
                1 => format!("overlays/another-rather-long-name-{n}.dtbo"),
                2 => format!("bcm{n:04}-rpi-model-b.dtb"),
                3 => format!("START{n}.ELF"),
                4 => format!("loader/a-rather-long-name-of-an-overlay-{n}.dtbo"),
                _ => format!("EFI/BOOT/F{n}.BIN"),
            })
            .take(count),
    );
    paths.truncate(count);
    let clusters = volume.shape.cluster.min(4096);
    let content = |path: String, random: &mut Random| {
        // An empty file is one, too.
        let bytes = random.below(4) * clusters as usize / 2 + usize::from(!path.ends_with(".ELF")) * 33;
        Change { path, content: random.bytes(bytes) }
    };
    paths.into_iter().map(|path| content(path, &mut random)).collect()
}

/// The directories of these files that the volume does not have, each behind the one that it lies in.
fn missing(changes: &[Change], report: &Report) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    for Change { path, .. } in changes {
        for (end, _) in path.match_indices('/') {
            let directory = &path[..end];
            let known = report.entries.iter().any(|e| e.is_directory() && e.path.eq_ignore_ascii_case(directory));
            if !known && !missing.iter().any(|m| m == directory) {
                missing.push(directory.to_owned());
            }
        }
    }
    missing
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl WithSet {
    /// Whether a set of so many files goes with a volume of this shape.
    fn suits(files: Files, shape: &Shape) -> bool {
        let forty = files == Files::Forty;
        shape.free.is_none()
            && shape.room != Room::RootFull
            && (!forty || shape.width != Width::Fat12 && shape.cluster <= 4096)
    }

    /// The scenario's expectation and operation.
    pub fn on(files: Files, ask: Ask, volume: &Volume, report: &Report) -> (Expectation, Box<dyn Operation>) {
        let changes = changes(files, volume);
        let sector = volume.shape.sector as usize;
        let target = volume.shape.end.target();
        let backup = volume.shape.end.backups()[usize::from(volume.shape.backup_exists)];
        let replaces = volume.shape.old.is_some();
        let disabled = format!("{}.disabled.{TIME}", OTHER);
        let (directory, name) = split(target);
        let of_set = |change: &Change| {
            let (directory, name) = split(&change.path);
            SetFile {
                directory: directory.to_owned(),
                target: name.to_owned(),
                backup: report.content(&change.path).map(|_| format!("{name}.bak.{TIME}")),
                content: SetContent::Staged { bytes: change.content.len() as u32 },
            }
        };
        let made = missing(&changes, report);
        let order = Order {
            command: "swap".into(),
            time: TIME,
            directory: directory.to_owned(),
            before: Vec::new(),
            target: name.to_owned(),
            backup: replaces.then(|| split(backup).1.to_owned()),
            directories: made.clone(),
            set: changes.iter().map(of_set).collect(),
            after: vec![FileStep::Rename(Rename {
                from: split(OTHER).1.to_owned(),
                to: split(&disabled).1.to_owned(),
            })],
        };
        let (new, old) = (Content::of(&volume.new, sector), report.content(target));
        let other = report.content(OTHER);
        let mut all: Vec<(String, Option<Content>)> =
            vec![(target.to_owned(), Some(new)), (OTHER.to_owned(), None), (disabled.clone(), other)];
        let mut passing = Vec::new();
        let mut sharing = vec![(OTHER.to_owned(), disabled)];
        if replaces {
            all.push((backup.to_owned(), old));
            passing.push((backup.to_owned(), new));
            sharing.push((target.to_owned(), backup.to_owned()));
        }
        for change in &changes {
            let (old, new) = (report.content(&change.path), Content::of(&change.content, sector));
            all.push((change.path.clone(), Some(new)));
            passing.push((change.path.clone(), new));
            if old.is_some() {
                let backup = format!("{}.bak.{TIME}", change.path);
                all.push((backup.clone(), old));
                passing.push((backup.clone(), new));
                sharing.push((change.path.clone(), backup));
            }
        }
        let all: Vec<(&str, Option<Content>)> = all.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        let in_place = move |files: &[(&str, Content)]| {
            files.iter().find(|(path, _)| *path == target).map(|(_, content)| *content)
        };
        let mut expectation = Expectation::new(report, &all, target, in_place).scratch("BOOTSURG.TXN");
        for (path, content) in passing {
            expectation = expectation.passing(&path, content);
        }
        for path in &made {
            expectation = expectation.made(path);
        }
        expectation = sharing.into_iter().fold(expectation, |e, (a, b)| e.sharing(&a, &b));
        if ask == Ask::Back {
            expectation = expectation.reversible();
        }
        let contents = changes.into_iter().map(|change| change.content).collect();
        (expectation, Box::new(Self { order, image: volume.new.clone(), contents, ask, from: None }))
    }

    /// A restore that takes two files with it: one is replaced, one comes back.
    fn restored(volume: &Volume, report: &Report) -> (Expectation, Box<dyn Operation>) {
        let [from, backup] = volume.shape.end.backups();
        let target = volume.shape.end.target();
        let file = |directory: &str, target: &str, backup: Option<&str>, from: &str| SetFile {
            directory: directory.to_owned(),
            target: target.to_owned(),
            backup: backup.map(str::to_owned),
            content: SetContent::File(from.to_owned()),
        };
        let order = Order {
            command: "restore".into(),
            time: TIME,
            directory: split(target).0.to_owned(),
            before: Vec::new(),
            target: split(target).1.to_owned(),
            backup: Some(split(backup).1.to_owned()),
            directories: Vec::new(),
            set: vec![
                file("EFI/BOOT", "BOOTX64.EFI", Some("BOOTX64.EFI.bak.1700000009"), "empty"),
                file("loader/keys", "restored.auth", None, "db.auth"),
            ],
            after: Vec::new(),
        };
        let loader = ["EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/BOOTX64.EFI.bak.1700000009", "EFI/BOOT/empty"];
        let holds = |path: &str| report.content(path);
        let all = [
            (target, holds(from)),
            (backup, holds(target)),
            (from, None),
            (loader[0], holds(loader[2])),
            (loader[1], holds(loader[0])),
            (loader[2], None),
            ("loader/keys/restored.auth", holds("loader/keys/db.auth")),
            ("loader/keys/db.auth", None),
        ];
        let in_place = move |files: &[(&str, Content)]| {
            files.iter().find(|(path, _)| *path == target).map(|(_, content)| *content)
        };
        let mut expectation = Expectation::new(report, &all, target, in_place).scratch("BOOTSURG.TXN");
        for (path, source) in
            [(backup, from), (loader[1], loader[2]), ("loader/keys/restored.auth", "loader/keys/db.auth")]
        {
            expectation = expectation.passing(path, holds(source).unwrap());
        }
        for (a, b) in [
            (from, target),
            (from, backup),
            (target, backup),
            (loader[0], loader[1]),
            (loader[2], loader[0]),
            (loader[2], loader[1]),
            ("loader/keys/restored.auth", "loader/keys/db.auth"),
        ] {
            expectation = expectation.sharing(a, b);
        }
        let from = Some(split(from).1.to_owned());
        let real = Self { order, image: Vec::new(), contents: Vec::new(), ask: Ask::Restored, from };
        (expectation, Box::new(real))
    }
}

impl Operation for WithSet {
    fn run(&self, medium: &dyn WriteAt) -> Result<()> {
        if let Some(from) = &self.from {
            self.order.rehearse_restore(&medium, medium.sector_size(), from)?;
            let entry = bootsurgeon::fat::Volume::open(medium)?.find(&format!("{}/{from}", self.order.directory))?;
            let entry = entry.ok_or_else(|| Error::refused("no backup"))?;
            let verified = ContentRef { cluster: entry.first_cluster, bytes: entry.bytes, sha256: None };
            return self.order.restore(open_healthy(medium)?, from, verified).map(|_| ());
        }
        self.order.rehearse(&medium, medium.sector_size(), self.image.len() as u64)?;
        let mut staging = Staging::begin(open_healthy(medium)?, self.image.len() as u64)?;
        for chunk in self.image.chunks(8192) {
            staging.chunk(chunk)?;
        }
        let mut staged = staging.seal(Sha256::digest(&self.image).into())?;
        let contents: Vec<&dyn ReadAt> = self.contents.iter().map(|content| content as &dyn ReadAt).collect();
        staged.stage_set(&contents, &mut |_| Ok(()))?;
        staged.refuse_changed()?;
        staged.commit(&self.order).map(|_| ())
    }

    fn recover(&self, medium: &dyn WriteAt) -> Result<()> {
        let direction = match self.ask {
            Ask::Nothing | Ask::Restored => None,
            Ask::Forward => Some(Direction::Forward),
            Ask::Back => Some(Direction::Back),
        };
        let options = RecoveryOptions { direction, ..RecoveryOptions::default() };
        let told = rehearse_with(&medium, medium.sector_size(), &options);
        match recover_with(medium, &options) {
            Err(e) if direction.is_some() && e.kind() == Kind::Unsafe => recover(medium).map(|_| ())?,
            done => {
                if told? != done? {
                    return Err(Error::io("the dry run promised something else"));
                }
            }
        }
        open_healthy(medium).map(|_| ())
    }
}

/// Every set on every volume that it suits. What is done with forty files takes most of the time.
fn everything(forty: bool) -> Vec<Maker> {
    let mut makers = Vec::new();
    for (files, name) in
        [(Files::One, "swap with one file"), (Files::Three, "swap with three files"), (Files::Forty, "swap with forty")]
    {
        if files == Files::Forty && !forty {
            continue;
        }
        for (ask, option) in [(Ask::Nothing, ""), (Ask::Forward, ", --forward"), (Ask::Back, ", --back")] {
            let name = Box::leak(format!("{name}{option}").into_boxed_str());
            let suiting = matrix::shapes().into_iter().filter(move |shape| WithSet::suits(files, shape));
            makers.extend(scenarios(name, suiting, move |v, r| WithSet::on(files, ask, v, r)));
        }
    }
    let with_backup = matrix::shapes().into_iter().map(|shape| Shape { backup_exists: true, ..shape });
    let suiting = with_backup.filter(|shape| shape.old.is_some() && WithSet::suits(Files::One, shape));
    makers.extend(scenarios("restore with two files", suiting, WithSet::restored));
    makers
}

/// `POWERCUT_SETS` asks for so many states; from half a million on of every scenario, else of one in seven.
#[test]
fn issue19_3_a_set_keeps_every_promise() {
    let asked = std::env::var("POWERCUT_SETS").ok().map(|text| text.replace(['_', ','], "").parse().unwrap());
    let seed = std::env::var("POWERCUT_SEED").map_or(1, |text| text.parse().unwrap());
    let budget = match asked {
        None => Budget { states: 1000, seed, every: 31 },
        Some(states) => Budget { states, seed, every: if states >= 500_000 { 1 } else { 7 } },
    };
    let tally = prove("issue19_3_a_set_keeps_every_promise", &everything(asked.is_some()), budget);
    assert_eq!(tally.bad, 0);
}
