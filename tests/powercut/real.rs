//! The operations of the program itself under the harness: swap, restore, prune and recover, on every shape of volume.
//!
//! The steps are library calls, as the commands make them. Two kinds of scenario: operations built by hand, which reach
//! every path of the surgery; and operations planned on volumes of real (small) UKIs by [`SwapPlan`] and [`PrunePlan`],
//! where the project's own boot prediction says which image each state starts.

use crate::checker::{Checker, Content, Report};
use crate::frame::Frame;
use crate::geometry::Width;
use crate::invariants::{Expectation, newest};
use crate::matrix;
use crate::operations::{Budget, Maker, Operation, prove, scenarios};
use crate::volumes::{BACKUP, End, OTHER, Room, Shape, TARGET, Volume, uki};
use bootsurgeon::block::{Memory, ReadAt, Sink, WriteAt, read_vec};
use bootsurgeon::boot::{self, LoaderVersion, OtherLoaders, UkiFile, Variables};
use bootsurgeon::esp::Inventory;
use bootsurgeon::plan::{NewImage, PruneOptions, PrunePlan, SwapOptions, SwapPlan};
use bootsurgeon::surgery::{
    ContentRef, FileStep, Order, Outcome, Rename, Staging, Tidying, open_healthy, recover, rehearse_recovery,
};
use bootsurgeon::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const TIME: u64 = 1_700_000_000;
const LINUX: &str = "EFI/Linux/";
const NEW_NAME: &str = "EFI/Linux/Talos-v1.13.0.efi";

/// What is done, by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Swap under the target's own name. Where the backup's name is taken it gets the next one.
    Swap,
    /// As well, another image leaves the menu.
    SwapAndDisable,
    /// As well, an older backup is deleted.
    SwapAndForget,
    /// A new version under a name of its own; the image that booted is retired.
    SwapToNewName,
    /// As well, another image leaves the menu and an older backup is deleted.
    SwapToNewNameAndTidy,
    /// The backup goes back in place, the present image becomes a backup.
    Restore,
    /// As well, another image leaves the menu.
    RestoreAndDisable,
    /// An image leaves the menu.
    Prune,
    /// An image is deleted.
    PruneDelete,
    /// One leaves the menu, and an old backup is deleted.
    PruneTwo,
    /// As a swap, and what the target held goes in the end.
    Pin,
}

/// What is done, by plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// The version that runs, once more: another schematic.
    SameVersion,
    NewVersion,
    /// Everything else in the menu would win over the new image.
    OlderVersion,
    KeepingDuplicates,
    Restore,
    Prune,
    PruneDelete,
}

/// A real operation and the image it brings, if any.
struct Real {
    new: Vec<u8>,
    steps: Steps,
    /// The commit has to be the one-write exchange.
    exchange: bool,
    recoveries: AtomicUsize,
}

/// The steps, and for a restore the file that it takes the content from.
#[derive(Debug, Clone)]
enum Surgery {
    Swap(Order),
    Restore(Order, String),
    Prune(Tidying),
}

impl Surgery {
    fn order(&self) -> Option<&Order> {
        match self {
            Self::Swap(order) | Self::Restore(order, _) => Some(order),
            Self::Prune(_) => None,
        }
    }

    /// The directory that it works in.
    fn directory(&self) -> &str {
        match self {
            Self::Swap(order) | Self::Restore(order, _) => &order.directory,
            Self::Prune(tidying) => &tidying.directory,
        }
    }

    /// What happens to other files, before the commit and after it.
    fn steps(&self) -> Vec<FileStep> {
        match self {
            Self::Swap(order) | Self::Restore(order, _) => {
                order.before.iter().cloned().map(FileStep::Rename).chain(order.after.clone()).collect()
            }
            Self::Prune(tidying) => tidying.steps.clone(),
        }
    }
}

enum Steps {
    Given(Box<Surgery>),
    Planned(Planned),
}

fn file_name(path: &str) -> String {
    path.rsplit_once('/').map_or(path, |(_, name)| name).to_owned()
}

fn rename(path: &str) -> FileStep {
    let from = file_name(path);
    FileStep::Rename(Rename { to: format!("{from}.disabled.{TIME}"), from })
}

fn remove(path: &str) -> FileStep {
    FileStep::Remove(file_name(path))
}

impl Job {
    /// Whether the job makes sense on a volume of this shape.
    fn suits(self, shape: &Shape) -> bool {
        let both = shape.old.is_some() && shape.backup_exists;
        match self {
            Self::Swap | Self::PruneDelete | Self::Pin => true,
            Self::SwapAndDisable | Self::SwapToNewName | Self::Prune => shape.old.is_some(),
            // The record of so much is longer, and a volume without room for it is refused.
            Self::PruneTwo => both,
            _ => both && shape.free.is_none(),
        }
    }

    fn surgery(self, shape: &Shape) -> Surgery {
        let [present, next] = shape.end.backups();
        let backup = if shape.backup_exists { next } else { present };
        let own = shape.end.target();
        let order = |command: &str, target: &str, after: Vec<FileStep>| Order {
            command: command.to_owned(),
            time: TIME,
            directory: shape.end.directory().to_owned(),
            before: Vec::new(),
            target: file_name(target),
            backup: (target == own && shape.old.is_some()).then(|| file_name(backup)),
            directories: Vec::new(),
            set: Vec::new(),
            after,
        };
        let swap = |target: &str, after| Surgery::Swap(order("swap", target, after));
        let restore = |after| Surgery::Restore(order("restore", own, after), file_name(present));
        let prune = |steps| {
            let (command, directory) = ("prune".to_owned(), shape.end.directory().to_owned());
            Surgery::Prune(Tidying { command, time: TIME, directory, steps })
        };
        let retire = FileStep::Rename(Rename { from: file_name(own), to: file_name(backup) });
        // Where the target's place in the directory is awkward, it is the one to be renamed or deleted.
        let victim = if shape.room == Room::Ample || shape.old.is_none() { OTHER } else { own };
        match self {
            Self::Swap => swap(own, vec![]),
            Self::SwapAndDisable => swap(own, vec![rename(OTHER)]),
            Self::SwapAndForget => swap(own, vec![remove(present)]),
            Self::SwapToNewName => swap(NEW_NAME, vec![retire]),
            Self::SwapToNewNameAndTidy => swap(NEW_NAME, vec![retire, rename(OTHER), remove(present)]),
            Self::Restore => restore(vec![]),
            Self::RestoreAndDisable => restore(vec![rename(OTHER)]),
            Self::Prune => prune(vec![rename(victim)]),
            Self::PruneDelete => prune(vec![remove(victim)]),
            Self::PruneTwo => prune(vec![rename(victim), remove(present)]),
            Self::Pin => {
                let forget = shape.old.map(|_| remove(backup));
                Surgery::Swap(order("pin", own, forget.into_iter().collect()))
            }
        }
    }

    /// The scenario's expectation and operation.
    pub fn on(self, volume: &Volume, report: &Report) -> (Expectation, Box<dyn Operation>) {
        let surgery = self.surgery(&volume.shape);
        let new = Content::of(&volume.new, volume.shape.sector as usize);
        let ample = match volume.shape.room {
            Room::Ample | Room::RootFull => true,
            // A name without a long form spans nothing: its one slot is the last of a sector that is full.
            Room::NameSpansSectors => volume.shape.end != End::Removable,
            Room::SectorFull | Room::DirectoryFull => false,
        };
        let replaces = surgery.order().is_some_and(|o| o.backup.is_some());
        let exchange = ample && replaces;
        let target = volume.shape.end.target();
        let in_place = move |files: &[(&str, Content)]| {
            files.iter().find(|(path, _)| *path == target).map(|(_, content)| *content)
        };
        let expectation = match volume.shape.end {
            End::Menu => expect(report, &surgery, new, exchange, newest),
            End::Removable | End::Entry | End::Settings => expect(report, &surgery, new, exchange, in_place),
        };
        let real = Real {
            new: volume.new.clone(),
            steps: Steps::Given(Box::new(surgery)),
            exchange,
            recoveries: AtomicUsize::new(0),
        };
        (expectation, Box::new(real))
    }
}

/// What an operation is to leave, from what it says it will do.
fn expect(
    report: &Report,
    surgery: &Surgery,
    new: Content,
    exchange: bool,
    selects: impl Fn(&[(&str, Content)]) -> Option<Content> + Send + Sync + 'static,
) -> Expectation {
    let full = |name: &str| format!("{}/{name}", surgery.directory());
    let holds = |name: &str| report.content(&full(name));
    let mut changes: Vec<(String, Option<Content>)> = Vec::new();
    let mut passing = Vec::new();
    let mut sharing = Vec::new();
    if let Some(order) = surgery.order() {
        let content = match surgery {
            Surgery::Restore(_, from) => {
                changes.push((full(from), None));
                // The content has two names from the first entry that is made until the old name goes.
                sharing.push((full(from), full(&order.target)));
                sharing.extend(order.backup.iter().map(|b| (full(from), full(b))));
                holds(from).unwrap()
            }
            _ => new,
        };
        changes.push((full(&order.target), Some(content)));
        if let (Some(backup), Some(old)) = (&order.backup, holds(&order.target)) {
            changes.push((full(backup), Some(old)));
            passing.push((full(backup), content));
            // For as long as it is there.
            passing.push((full(backup), old));
            if !exchange {
                sharing.push((full(backup), full(&order.target)));
            }
        }
    }
    let steps = surgery.steps();
    for step in &steps {
        match step {
            FileStep::Rename(Rename { from, to }) => {
                changes.extend([(full(to), holds(from)), (full(from), None)]);
                sharing.push((full(from), full(to)));
            }
            FileStep::Remove(name) => changes.push((full(name), None)),
        }
    }
    let mark = surgery.order().map_or_else(|| steps[0].name(), |order| &order.target);
    let changes: Vec<(&str, Option<Content>)> = changes.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    let mut expectation = Expectation::new(report, &changes, &full(mark), selects).scratch("BOOTSURG.TXN");
    for (path, content) in passing {
        expectation = expectation.passing(&path, content);
    }
    sharing.into_iter().fold(expectation, |e, (a, b)| e.sharing(&a, &b))
}

impl Planned {
    fn suits(self, shape: &Shape) -> bool {
        shape.old.is_some() && shape.free.is_none() && (self != Self::Restore || shape.backup_exists)
    }

    fn new_image(self, volume: &Volume) -> Vec<u8> {
        match self {
            Self::NewVersion | Self::OlderVersion => uki(self.version(), volume.new.clone()),
            _ => volume.new.clone(),
        }
    }

    /// What the new image says it is.
    fn version(self) -> &'static str {
        match self {
            Self::NewVersion => "v1.13.0",
            Self::OlderVersion => "v1.11.0",
            _ => "v1.12.4",
        }
    }

    fn options(self) -> SwapOptions {
        let keep_duplicates = self == Self::KeepingDuplicates;
        SwapOptions { keep_duplicates, keep_backups: None, time: TIME, target: None }
    }

    /// The operation that the program's own planning arrives at.
    fn plan<S: ReadAt>(self, esp: &Inventory<S>, new: &Vec<u8>) -> Result<Surgery> {
        match self {
            Self::SameVersion | Self::NewVersion | Self::OlderVersion | Self::KeepingDuplicates => {
                let bytes_to_write = new.len() as u64;
                let facts = bootsurgeon::uki::probe(new)?;
                let image = NewImage { source: new, facts: Some(&facts), bytes_to_write, from_file: None };
                Ok(Surgery::Swap(SwapPlan::make(esp, &image, &self.options())?.order("swap", TIME)))
            }
            Self::Restore => {
                let name = file_name(BACKUP);
                let file = esp.file(&name).ok_or_else(|| Error::refused("no backup"))?;
                let source = esp.volume.file(&file.entry)?;
                let image = NewImage {
                    source: &source,
                    facts: file.facts.as_deref(),
                    bytes_to_write: 0,
                    from_file: Some(&name),
                };
                let plan = SwapPlan::make(esp, &image, &self.options())?;
                Ok(Surgery::Restore(plan.order("restore", TIME), name))
            }
            Self::Prune | Self::PruneDelete => {
                let delete = self == Self::PruneDelete;
                let options = PruneOptions { delete, keep_backups: None, no_fallback: false, time: TIME };
                Ok(Surgery::Prune(PrunePlan::make(esp, &options)?.tidying(TIME)))
            }
        }
    }

    /// The scenario's expectation and operation. Which image a state starts is for the boot prediction to say.
    pub fn on(self, volume: &Volume, report: &Report) -> (Expectation, Box<dyn Operation>) {
        let new = self.new_image(volume);
        let sector = volume.shape.sector as usize;
        let esp = Inventory::read(&volume.frame, Variables::default()).unwrap();
        let started = esp.selected().map(|f| f.name().to_owned());
        assert_eq!(started, Some(file_name(TARGET)), "{}: {}", volume.shape.describe(), esp.predictions.next.reason);
        let surgery = self.plan(&esp, &new).unwrap_or_else(|e| panic!("{self:?}: {e}"));
        assert!(
            !surgery.steps().is_empty() || self == Self::KeepingDuplicates,
            "{self:?}: a duplicate is on the volume"
        );
        let images: HashMap<Content, Vec<u8>> = volume
            .files
            .iter()
            .filter(|(path, _)| path.starts_with(LINUX))
            .map(|(_, bytes)| bytes)
            .chain(Some(&new))
            .map(|bytes| (Content::of(bytes, sector), bytes.clone()))
            .collect();
        let mut expectation = expect(report, &surgery, Content::of(&new, sector), false, prediction(images));
        if self == Self::OlderVersion {
            // The new image is in the menu with its commit, and starts once the old one has left.
            expectation = expectation.decided_by(TARGET);
        }
        let steps = Steps::Planned(self);
        (expectation, Box::new(Real { new, steps, exchange: false, recoveries: AtomicUsize::new(0) }))
    }
}

/// The files of `EFI/Linux`.
type Linux = Vec<(String, Content)>;

/// What systemd-boot starts, as the project predicts it, from images known by their content. A file that is none of
/// them is no image. No EFI variables are set.
fn prediction(
    images: HashMap<Content, Vec<u8>>,
) -> impl Fn(&[(&str, Content)]) -> Option<Content> + Send + Sync + 'static {
    let known: Mutex<HashMap<Linux, Option<Content>>> = Mutex::new(HashMap::new());
    move |files| {
        let linux: Vec<(String, Content)> =
            files.iter().filter_map(|(path, content)| Some((path.strip_prefix(LINUX)?.to_owned(), *content))).collect();
        *known.lock().unwrap().entry(linux).or_insert_with_key(|linux| {
            let loader = LoaderVersion::parse("257.9-talos").unwrap();
            let nothing = Vec::new();
            let probe = |(name, content): &(String, Content)| {
                UkiFile::probe(name, images.get(content).unwrap_or(&nothing), &loader, 0xAA64)
            };
            let esp = boot::Esp {
                machine: 0xAA64,
                loader_path: "\\EFI\\BOOT\\BOOTAA64.EFI".to_owned(),
                linux: linux.iter().map(probe).collect(),
                loader: loader.clone(),
                type1: Vec::new(),
                loader_conf: Some(b"timeout 10\n".to_vec()),
                key_dirs: Vec::new(),
                others: OtherLoaders::default(),
                targets: boot::Targets::default(),
                xbootldr: None,
            };
            // Without variables NVRAM can lose nothing: this holds for both.
            let prediction = boot::predict(&esp, &Variables::default());
            let starts = prediction.selected_file()?;
            linux.iter().find(|(name, _)| name == starts).map(|(_, content)| *content)
        })
    }
}

impl Real {
    fn content(medium: &dyn WriteAt, path: &str) -> Result<Option<ContentRef>> {
        let volume = bootsurgeon::fat::Volume::open(medium)?;
        let entry = volume.find(path)?;
        Ok(entry.map(|e| ContentRef { cluster: e.first_cluster, bytes: e.bytes, sha256: None }))
    }

    /// The operation on this medium.
    fn surgery(&self, medium: &dyn WriteAt) -> Result<Surgery> {
        match &self.steps {
            Steps::Planned(planned) => planned.plan(&Inventory::read(medium, Variables::default())?, &self.new),
            Steps::Given(surgery) => Ok((**surgery).clone()),
        }
    }

    fn carry_out(&self, medium: &dyn WriteAt) -> Result<Outcome> {
        match self.surgery(medium)? {
            Surgery::Swap(order) => {
                let mut staging = Staging::begin(open_healthy(medium)?, self.new.len() as u64)?;
                for chunk in self.new.chunks(8192) {
                    staging.chunk(chunk)?;
                }
                staging.seal(Sha256::digest(&self.new).into())?.commit(&order)
            }
            Surgery::Restore(order, from) => {
                let path = format!("{}/{from}", order.directory);
                let verified = Self::content(medium, &path)?.ok_or_else(|| Error::refused("no backup"))?;
                order.restore(open_healthy(medium)?, &from, verified)
            }
            Surgery::Prune(tidying) => tidying.run(open_healthy(medium)?),
        }
    }
}

impl Operation for Real {
    fn run(&self, medium: &dyn WriteAt) -> Result<()> {
        if !self.carry_out(medium)?.exchanged && self.exchange {
            return Err(Error::io("there was room for an exchange, but it was none"));
        }
        Ok(())
    }

    /// Recovers. Now and then asks first what would be done: the answer has to be what is done then.
    fn recover(&self, medium: &dyn WriteAt) -> Result<()> {
        let told = self.recoveries.fetch_add(1, Ordering::Relaxed).is_multiple_of(16);
        let told = told.then(|| rehearse_recovery(medium, medium.sector_size())).transpose()?;
        let done = recover(medium)?;
        if told.is_some_and(|told| told != done) {
            return Err(Error::io(format!("the dry run promised something else than {done:?}")));
        }
        open_healthy(medium).map(|_| ())
    }
}

/// All of it: every job on every volume it suits.
pub fn everything() -> Vec<Maker> {
    const JOBS: [Job; 10] = [
        Job::Swap,
        Job::SwapAndDisable,
        Job::SwapAndForget,
        Job::SwapToNewName,
        Job::SwapToNewNameAndTidy,
        Job::Restore,
        Job::RestoreAndDisable,
        Job::Prune,
        Job::PruneDelete,
        Job::PruneTwo,
    ];
    let mut makers = Vec::new();
    for job in JOBS {
        let mut shapes = matrix::shapes();
        if !matches!(job, Job::Swap) {
            // With a backup on the volume already, in every kind of room.
            let both = shapes.iter().filter(|s| s.old.is_some() && !s.backup_exists);
            let more: Vec<Shape> = both.map(|s| Shape { backup_exists: true, ..*s }).collect();
            shapes.retain(|s| !s.backup_exists);
            shapes.extend(more);
        }
        let suiting = shapes.into_iter().filter(|s| job.suits(s));
        makers.extend(scenarios(job.name(), suiting, move |v, r| job.on(v, r)));
    }
    let settings = matrix::shapes().into_iter().map(|s| Shape { end: End::Settings, ..s });
    makers.extend(scenarios(Job::Pin.name(), settings, |v, r| Job::Pin.on(v, r)));
    // systemd-boot at the removable-media path, and under a long name in a directory of its own.
    for end in [End::Removable, End::Entry] {
        let shapes = || matrix::shapes().into_iter().map(move |s| Shape { end, ..s });
        let both = || shapes().filter(|s| s.old.is_some()).map(|s| Shape { backup_exists: true, ..s });
        makers.extend(scenarios("loader", shapes(), |v, r| Job::Swap.on(v, r)));
        let forget = both().filter(|s| Job::SwapAndForget.suits(s));
        makers.extend(scenarios("loader, deleting a backup", forget, |v, r| Job::SwapAndForget.on(v, r)));
        let restore = both().filter(|s| Job::Restore.suits(s));
        makers.extend(scenarios("restore of a loader", restore, |v, r| Job::Restore.on(v, r)));
    }
    makers.extend(planned());
    makers.extend(scenarios("swap", Some(matrix::full_size()), |v, r| Job::Swap.on(v, r)));
    makers
}

/// Operations the program plans itself, judged by its boot prediction.
pub fn planned() -> Vec<Maker> {
    const PLANNED: [Planned; 7] = [
        Planned::SameVersion,
        Planned::NewVersion,
        Planned::OlderVersion,
        Planned::KeepingDuplicates,
        Planned::Restore,
        Planned::Prune,
        Planned::PruneDelete,
    ];
    let mut makers = Vec::new();
    for planned in PLANNED {
        let shapes = matrix::shapes().into_iter().map(|s| Shape { uki: true, ..s });
        let both = shapes.clone().filter(|s| !s.backup_exists).map(|s| Shape { backup_exists: true, ..s });
        let suiting = shapes.chain(both).filter(|s| planned.suits(s));
        makers.extend(scenarios(planned.name(), suiting, move |v, r| planned.on(v, r)));
    }
    makers
}

impl Job {
    pub fn name(self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::SwapAndDisable => "swap and disable a duplicate",
            Self::SwapAndForget => "swap and delete an old backup",
            Self::SwapToNewName => "swap to a new name",
            Self::SwapToNewNameAndTidy => "swap to a new name, disable, delete",
            Self::Restore => "restore",
            Self::RestoreAndDisable => "restore and disable a duplicate",
            Self::Prune => "prune",
            Self::PruneDelete => "prune, deleting",
            Self::PruneTwo => "prune two files",
            Self::Pin => "pin",
        }
    }
}

impl Planned {
    fn name(self) -> &'static str {
        match self {
            Self::SameVersion => "planned swap of the same version",
            Self::NewVersion => "planned swap to another version",
            Self::OlderVersion => "planned swap to an older version",
            Self::KeepingDuplicates => "planned swap that keeps duplicates",
            Self::Restore => "planned restore",
            Self::Prune => "planned prune",
            Self::PruneDelete => "planned prune, deleting",
        }
    }
}

#[test]
fn every_operation_keeps_every_promise() {
    let tally = prove("every_operation_keeps_every_promise", &everything(), Budget::from_environment(4000, 7));
    assert_eq!(tally.bad, 0);
}

fn memory(frame: &Frame) -> Memory {
    Memory::with_sector_size(frame.to_bytes(), frame.sector_size() as u32)
}

fn bytes(medium: &Memory) -> Vec<u8> {
    read_vec(medium, 0, medium.size() as usize).unwrap()
}

#[test]
fn a_volume_without_room_is_refused_untouched() {
    let usual = Shape::usual(Width::Fat32, 512, 512);
    let fat16 = Shape::usual(Width::Fat16, 512, 512);
    let wanted = usual.new.div_ceil(512);
    for (what, shape, job) in [
        ("no cluster for the image", Shape { free: Some(wanted - 1), ..usual }, Job::Swap),
        ("no cluster for a record", Shape { free: Some(wanted), ..usual }, Job::Swap),
        ("no slot in a root directory that cannot grow", Shape { room: Room::RootFull, ..fat16 }, Job::Prune),
    ] {
        let volume = Volume::build(shape);
        let (_, operation) = job.on(&volume, &Checker::default().check(&volume.frame));
        let medium = memory(&volume.frame);
        let e = operation.run(&medium).expect_err(what);
        assert_eq!(e.kind(), Kind::Unsafe, "{what}: {e}");
        // Data in free clusters is no part of the volume.
        let report = Checker::default().check(&Frame::new(&bytes(&medium), 512));
        assert_eq!(report.problems, [], "{what}");
        assert_eq!(report.entries, Checker::default().check(&volume.frame).entries, "{what}");
        open_healthy(&medium).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

#[test]
fn recover_does_not_take_a_strangers_file_for_its_backup() {
    let volume = Volume::build(Shape { backup_exists: true, ..Shape::usual(Width::Fat16, 512, 512) });
    let medium = memory(&volume.frame);
    // A plan that overlooked that the name is taken.
    let Surgery::Swap(order) = Job::Swap.surgery(&volume.shape) else { panic!("no swap") };
    let surgery = Surgery::Swap(Order { backup: Some(file_name(BACKUP)), ..order });
    let operation = Real {
        new: volume.new.clone(),
        steps: Steps::Given(Box::new(surgery)),
        exchange: false,
        recoveries: AtomicUsize::new(0),
    };
    assert!(operation.run(&medium).is_err());
    operation.recover(&medium).unwrap();
    let now = Checker::default().check(&Frame::new(&bytes(&medium), 512));
    assert_eq!((now.problems, now.entries), (vec![], Checker::default().check(&volume.frame).entries));
}
