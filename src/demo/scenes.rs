//! The steps of the demonstration, and what has to be true after each.

use super::{Answer, Cost, DemoStep, Proof, StepOutcome, judge, milliseconds, word};
use crate::block::Extent;
use crate::command::{
    Change, DiskRequest, Event, FactoryImage, FactoryRequest, Fetch, FileHash, Flavour, ImageRequest, ImageSource,
    Prune, Restore, StatusReport, Swap, SwapReport, TrustRequest, Ui, VariablesChoice, Verify, check_cancelled, status,
};
use crate::disk::Target;
use crate::factory::{Asset, Options, Schematic};
use crate::fat::Stamp;
use crate::surgery::LINUX_DIR;
use crate::testkit::factory::{Behaviour, LocalFactory};
use crate::testkit::media::{self, Files};
use crate::testkit::signing::SigningKey;
use crate::testkit::talos::{ARCH, UkiKind, VERSION, uki};
use crate::verify::{CheckId, CheckStatus, Verdict};
use crate::{Code, Context, Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The two UKIs that a failed upgrade leaves behind.
const OLD: &str = "Talos-v1.12.4.efi";
const TWIN: &str = "Talos-v1.12.4~1.efi";
/// Extensions of the schematic that the node is to get.
const EXTENSIONS: [(&str, &str); 1] = [("tailscale", "1.90.6")];

/// Everything that was made.
pub(super) struct DemoFiles {
    disk: PathBuf,
    iso: PathBuf,
    schematic: PathBuf,
    copy: PathBuf,
    esp: Extent,
    factory: LocalFactory,
    /// Every file that was put on the ESP.
    files: BTreeMap<String, Vec<u8>>,
    /// The factory's assets.
    new: Vec<u8>,
    iso_bytes: Vec<u8>,
}

impl DemoFiles {
    /// Makes keys, images, disk and factory.
    pub(super) fn make(folder: &Path, ui: &dyn Ui) -> Result<Self> {
        let key = SigningKey::test("Demonstration of bootsurgeon (public test key, do not trust)")?;
        ui.event(Event::Step("making UKIs, an ISO and a disk".into()));
        let plain = Schematic::parse("customization: {}\n")?;
        let wanted =
            EXTENSIONS.iter().fold(plain.clone(), |s, (name, _)| s.with_extension(&format!("siderolabs/{name}")));
        let stamp = Stamp(crate::command::now());
        let boot = media::boot_files(&key)?;

        let mut files: Files = boot.clone();
        files.push((format!("{LINUX_DIR}/{OLD}"), uki(UkiKind::Installer, &plain, &[], &key)?));
        files.push((format!("{LINUX_DIR}/{TWIN}"), uki(UkiKind::Installer, &wanted, &EXTENSIONS, &key)?));
        let disk = folder.join("disk.img");
        media::disk(&disk, &files, stamp)?;
        let partition = Target::find(&disk, None)?.partition;
        let esp = partition.map(|p| p.extent).ok_or_else(|| Error::io("the disk has no partition"))?;

        let mut tree = boot;
        tree.push((format!("{LINUX_DIR}/{OLD}"), uki(UkiKind::Iso, &wanted, &EXTENSIONS, &key)?));
        tree.push(("EFI/keys/uki-signing-cert.der".into(), key.certificate_der()?));
        let iso_bytes = media::iso(&tree, stamp)?;
        let new = uki(UkiKind::Uki, &wanted, &EXTENSIONS, &key)?;

        let factory = LocalFactory::start()?;
        factory.set_signing_certificate(key.certificate_pem()?.as_bytes());
        // As the public factory does: a redirect to storage that serves ranges.
        let storage = Behaviour { redirect: true, ..Behaviour::default() };
        let arch = ARCH.name();
        factory.serve(
            &wanted.id(),
            VERSION,
            &format!("metal-{arch}-secureboot.iso"),
            iso_bytes.clone(),
            storage.clone(),
        );
        factory.serve(&wanted.id(), VERSION, &format!("metal-{arch}-secureboot-uki.efi"), new.clone(), storage);

        let schematic = folder.join("schematic.yaml");
        std::fs::write(&schematic, wanted.canonical()).while_doing(|| format!("writing {}", schematic.display()))?;
        Ok(Self {
            iso: folder.join(format!("metal-{arch}-secureboot.iso")),
            copy: folder.join("esp.img"),
            files: files.into_iter().collect(),
            disk,
            schematic,
            esp,
            factory,
            new,
            iso_bytes,
        })
    }

    fn disk_request(&self) -> DiskRequest {
        DiskRequest { efivars: VariablesChoice::Unspecified, ..DiskRequest::new(&self.disk) }
    }

    fn trust(&self) -> TrustRequest {
        TrustRequest {
            schematic: Some(self.schematic.display().to_string()),
            talos: Some(VERSION.into()),
            ..TrustRequest::default()
        }
    }

    fn factory_request(&self) -> FactoryRequest {
        FactoryRequest { url: self.factory.url(), network: Options::default() }
    }

    fn swap(&self, image: ImageSource, trust: TrustRequest) -> Swap {
        Swap::new(self.disk_request(), image, trust, Change { yes: true, ..Change::default() })
    }

    fn swap_from_factory(&self) -> Swap {
        let FactoryRequest { url, network } = self.factory_request();
        let (assets, flavour) = (vec![Asset::Uki, Asset::Iso], Flavour::SecureBoot);
        self.swap(
            ImageSource::Factory(FactoryImage { url, assets, flavour, network, uki: None, cache: None }),
            self.trust(),
        )
    }

    /// The part of a command line that names the image at the factory.
    fn order(&self) -> String {
        format!("--schematic {} --talos {VERSION}", path(&self.schematic))
    }
}

fn path(path: &Path) -> String {
    word(&path.display().to_string())
}

/// The run of the demonstration so far.
pub(super) struct Session<'a> {
    made: &'a DemoFiles,
    ui: &'a dyn Ui,
    show: &'a mut dyn FnMut(&DemoStep) -> Result<()>,
    steps: Vec<DemoStep>,
    /// Every file that should be on the ESP.
    expected: BTreeMap<String, Vec<u8>>,
    /// The file that started in the beginning.
    started: String,
    fsck: bool,
}

/// A step; `false` when it did not do what it should.
type Scene = fn(&mut Session<'_>) -> Result<bool>;

/// The steps in order, by name.
pub(super) const SCENES: [(&str, Scene); 11] = [
    ("before", |s| s.look_before()),
    ("fetch", |s| s.fetch_iso()),
    ("verify", |s| s.verify_iso()),
    ("refuse", |s| s.swap_iso()),
    ("swap", |s| s.swap_from_factory()),
    ("after", |s| s.look_after_swap()),
    ("again", |s| s.swap_again()),
    ("prune", |s| s.prune()),
    ("restore", |s| s.restore()),
    ("restored", |s| s.look_after_restore()),
    ("fsck", |s| s.second_opinion()),
];

/// What a step is to show.
struct Plan<'p> {
    title: &'p str,
    command: String,
    expected: u8,
}

type Proofs = Vec<Proof>;

fn proof(proofs: &mut Proofs, what: impl Into<String>, ok: bool) {
    proofs.push(Proof { what: what.into(), ok, detail: None });
}

impl<'a> Session<'a> {
    pub(super) fn new(made: &'a DemoFiles, ui: &'a dyn Ui, show: &'a mut dyn FnMut(&DemoStep) -> Result<()>) -> Self {
        let expected = made.files.clone();
        Self { made, ui, show, steps: Vec::new(), expected, started: OLD.into(), fsck: false }
    }

    /// The steps, and whether `fsck.fat` was asked.
    pub(super) fn finish(self) -> (Vec<DemoStep>, bool) {
        (self.steps, self.fsck)
    }

    /// Runs a command, and `judge` when it ended as expected.
    fn step(
        &mut self,
        plan: Plan<'_>,
        run: impl FnOnce(&DemoFiles, &dyn Ui) -> Result<Answer>,
        judge: impl FnOnce(&mut Self, &StepOutcome, &mut Proofs) -> Result<Option<Cost>>,
    ) -> Result<bool> {
        check_cancelled(self.ui)?;
        let start = Instant::now();
        let (outcome, exit_code) = match run(self.made, self.ui) {
            Err(e) if e.code() == Code::Cancelled => return Err(e),
            Err(e) => {
                let code = e.kind().exit_code();
                (StepOutcome::Error(e), code)
            }
            Ok(Answer::Verify(report)) if report.verdict == Verdict::Reject => {
                (StepOutcome::Report(Box::new(Answer::Verify(report))), Kind::Rejected.exit_code())
            }
            Ok(answer) => (StepOutcome::Report(Box::new(answer)), 0),
        };
        let time = milliseconds(start);
        let mut proofs = Vec::new();
        let as_expected = exit_code == plan.expected;
        let cost = if as_expected { judge(self, &outcome, &mut proofs)? } else { None };
        let step = DemoStep {
            title: plan.title.to_owned(),
            command: plan.command,
            exit_code,
            expected_exit_code: plan.expected,
            outcome,
            cost,
            proofs,
            milliseconds: time,
        };
        (self.show)(&step)?;
        let proven = step.is_proven();
        self.steps.push(step);
        Ok(proven)
    }

    fn look(
        &mut self,
        title: &str,
        judge: impl FnOnce(&mut Self, &StatusReport, &mut Proofs) -> Result<()>,
    ) -> Result<bool> {
        let plan = Plan { title, command: format!("bootsurgeon status {}", path(&self.made.disk)), expected: 0 };
        let run = |w: &DemoFiles, ui: &dyn Ui| status(&w.disk_request(), ui).map(Box::new).map(Answer::Status);
        self.step(plan, run, |s, outcome, proofs| {
            if let Some(Answer::Status(report)) = outcome.answer() {
                proof(proofs, "the file system is healthy", report.esp.healthy && report.interrupted.is_none());
                judge(s, report, proofs)?;
            }
            Ok(None)
        })
    }

    fn look_before(&mut self) -> Result<bool> {
        self.look("The ESP after an upgrade that failed: two UKIs of one version.", |s, report, proofs| {
            let doubles = report.files.iter().filter(|f| f.duplicate_of.is_some()).count();
            proof(proofs, "one of the two is found to be a duplicate", doubles == 1 && report.files.len() == 2);
            proof(proofs, "one of the two starts", report.boot.selected.is_some());
            if let Some(name) = &report.boot.selected {
                s.started.clone_from(name);
            }
            s.files_are_as_expected(proofs)
        })
    }

    fn fetch_iso(&mut self) -> Result<bool> {
        let w = self.made;
        let plan = Plan {
            title: "The usual way begins with the Secure Boot ISO of the new schematic.",
            command: format!(
                "bootsurgeon fetch {} --arch {} --kind iso --out {} --factory {}",
                w.order(),
                ARCH.name(),
                path(&w.iso),
                w.factory.url()
            ),
            expected: 0,
        };
        let run = |w: &DemoFiles, ui: &dyn Ui| {
            let request = Fetch {
                force: false,
                schematic: w.schematic.display().to_string(),
                talos: VERSION.into(),
                arch: ARCH,
                asset: Asset::Iso,
                out: w.iso.clone(),
                factory: w.factory_request(),
            };
            request.run(ui).map(Answer::Fetch)
        };
        self.step(plan, run, |s, _, proofs| {
            let got = std::fs::read(&s.made.iso).while_doing(|| format!("reading {}", s.made.iso.display()))?;
            proof(proofs, "the file is what the factory has, byte for byte", got == s.made.iso_bytes);
            Ok(None)
        })
    }

    fn verify_iso(&mut self) -> Result<bool> {
        let w = self.made;
        let plan = Plan {
            title: "The ISO is genuine. What would its UKI do to an installed node?",
            command: format!(
                "bootsurgeon verify {} {} --installed {} --efivars none",
                path(&w.iso),
                w.order(),
                path(&w.disk)
            ),
            expected: 0,
        };
        let run = |w: &DemoFiles, ui: &dyn Ui| {
            let image = ImageRequest::new(w.iso.display().to_string());
            let installed = DiskRequest { efivars: VariablesChoice::None, ..w.disk_request() };
            let hash = FileHash::Wanted;
            let verify = Verify { image, trust: w.trust(), efivars: None, installed: Some(installed), hash };
            verify.run(ui).map(Answer::Verify)
        };
        self.step(plan, run, |_, outcome, proofs| {
            if let Some(Answer::Verify(report)) = outcome.answer() {
                let status = |id| report.checks.iter().find(|c| c.id == id).map(|c| c.status);
                for (id, what) in [
                    (CheckId::AuthenticodeSigner, "its signer is trusted"),
                    (CheckId::PcrSignature, "its PCR policy is signed for these very sections"),
                    (CheckId::Schematic, "it was built from the schematic"),
                ] {
                    proof(proofs, what, status(id) == Some(CheckStatus::Pass));
                }
                let warned = status(CheckId::Cmdline) == Some(CheckStatus::Warn);
                proof(proofs, "its command line and its wiping profile are warned of", warned);
            }
            Ok(None)
        })
    }

    fn swap_iso(&mut self) -> Result<bool> {
        let w = self.made;
        let before = judge::fingerprint(&w.disk, None)?;
        let plan = Plan {
            title: "So a swap to it is refused, before anything is written.",
            command: format!("bootsurgeon swap {} {} --yes", path(&w.disk), path(&w.iso)),
            expected: Kind::Unsafe.exit_code(),
        };
        let run = |w: &DemoFiles, ui: &dyn Ui| {
            let image = ImageRequest::new(w.iso.display().to_string());
            w.swap(ImageSource::Named(image), TrustRequest::default()).run(ui).map(Box::new).map(Answer::Swap)
        };
        self.step(plan, run, |s, outcome, proofs| {
            if let StepOutcome::Error(e) = outcome {
                let names_it = e.to_string().contains("talos.halt_if_installed");
                proof(proofs, "the reason is named, and a way out", names_it && e.advice().is_some());
            }
            let after = judge::fingerprint(&s.made.disk, None)?;
            proof(proofs, "not a byte of the disk has changed", before == after);
            Ok(None)
        })
    }

    fn swap_from_factory(&mut self) -> Result<bool> {
        let w = self.made;
        let (sent, outside) = (w.factory.bytes_sent(), judge::fingerprint(&w.disk, Some(w.esp))?);
        let plan = Plan {
            title: "The factory has the UKI alone, without the flag: the whole job in one command.",
            command: self.swap_command(),
            expected: 0,
        };
        let run = |w: &DemoFiles, ui: &dyn Ui| w.swap_from_factory().run(ui).map(Box::new).map(Answer::Swap);
        self.step(plan, run, |s, outcome, proofs| {
            let Some(Answer::Swap(report)) = outcome.answer() else { return Ok(None) };
            let wire = s.made.factory.bytes_sent().saturating_sub(sent);
            s.expect_swapped(report, proofs);
            s.files_are_as_expected(proofs)?;
            let same = outside == judge::fingerprint(&s.made.disk, Some(s.made.esp))?;
            proof(proofs, "outside the ESP not a byte of the disk has changed", same);
            let (new, iso) = (s.made.new.len() as u64, s.made.iso_bytes.len() as u64);
            let old = s.made.files.get(&linux(&s.started)).map_or(0, |bytes| bytes.len() as u64);
            Ok(Some(Cost {
                wire_bytes: wire,
                by_hand_wire_bytes: iso + new,
                written_bytes: report.plan.bytes_to_write,
                by_hand_written_bytes: iso + 4 * new + old,
            }))
        })
    }

    fn swap_command(&self) -> String {
        let w = self.made;
        format!("bootsurgeon swap {} {} --via auto --factory {} --yes", path(&w.disk), w.order(), w.factory.url())
    }

    /// From now on the new image is under the name that started, the old one is its backup, the other is disabled.
    fn expect_swapped(&mut self, report: &SwapReport, proofs: &mut Proofs) {
        let plan = &report.plan;
        proof(
            proofs,
            "the new image has the name that started before",
            report.committed && plan.target == self.started,
        );
        let old = self.expected.insert(linux(&self.started), self.made.new.clone());
        if let (Some(backup), Some(old)) = (&plan.backup, old) {
            self.expected.insert(linux(backup), old);
        }
        for rename in &plan.renames {
            if let Some(bytes) = self.expected.remove(&linux(&rename.from)) {
                self.expected.insert(linux(&rename.to), bytes);
            }
        }
        let other = if self.started == OLD { TWIN } else { OLD };
        proof(proofs, format!("{other} is out of the menu"), plan.disable == [other]);
    }

    fn look_after_swap(&mut self) -> Result<bool> {
        self.look("The ESP afterwards.", |s, report, proofs| {
            let selected = report.boot.selected.as_ref() == Some(&s.started);
            proof(proofs, "the new image starts", selected);
            proof(proofs, "nothing else is in the menu", report.boot.menu.len() == 1);
            proof(proofs, "no duplicates", report.files.iter().all(|f| f.duplicate_of.is_none()));
            Ok(())
        })
    }

    fn swap_again(&mut self) -> Result<bool> {
        let before = judge::fingerprint(&self.made.disk, None)?;
        let plan = Plan { title: "The same again.", command: self.swap_command(), expected: 0 };
        let run = |w: &DemoFiles, ui: &dyn Ui| w.swap_from_factory().run(ui).map(Box::new).map(Answer::Swap);
        self.step(plan, run, |s, outcome, proofs| {
            let Some(Answer::Swap(report)) = outcome.answer() else { return Ok(None) };
            proof(proofs, "there is nothing to do", report.already_in_place && !report.committed);
            let after = judge::fingerprint(&s.made.disk, None)?;
            proof(proofs, "not a byte of the disk has changed", before == after);
            Ok(None)
        })
    }

    fn prune(&mut self) -> Result<bool> {
        let plan = Plan {
            title: "The duplicate was only renamed. This frees its room.",
            command: format!("bootsurgeon prune {} --delete --yes", path(&self.made.disk)),
            expected: 0,
        };
        let run = |w: &DemoFiles, ui: &dyn Ui| {
            let change = Change { yes: true, ..Change::default() };
            let request =
                Prune { disk: w.disk_request(), change, delete: true, keep_backups: None, no_fallback: false };
            request.run(ui).map(Answer::Prune)
        };
        self.step(plan, run, |s, outcome, proofs| {
            let Some(Answer::Prune(report)) = outcome.answer() else { return Ok(None) };
            let before = s.expected.len();
            s.expected.retain(|path, _| !path.contains(".disabled."));
            let deleted = report.committed && report.plan.delete.len() == 1 && s.expected.len() + 1 == before;
            proof(proofs, "the disabled duplicate is deleted, the backup stays", deleted);
            s.files_are_as_expected(proofs)?;
            Ok(None)
        })
    }

    fn restore(&mut self) -> Result<bool> {
        let plan = Plan {
            title: "The way back. No byte of an image is copied for it.",
            command: format!("bootsurgeon restore {} --yes", path(&self.made.disk)),
            expected: 0,
        };
        let run = |w: &DemoFiles, ui: &dyn Ui| {
            let change = Change { yes: true, ..Change::default() };
            let request = Restore {
                disk: w.disk_request(),
                backup: None,
                trust: TrustRequest::default(),
                change,
                board_files: None,
                node: None,
            };
            request.run(ui).map(Answer::Restore)
        };
        self.step(plan, run, |s, outcome, proofs| {
            let Some(Answer::Restore(report)) = outcome.answer() else { return Ok(None) };
            let back = report.committed && report.plan.target == s.started;
            proof(proofs, "the old image has its name back", back);
            let old = s.expected.remove(&linux(&report.restored)).unwrap_or_default();
            let new = s.expected.insert(linux(&s.started), old);
            if let (Some(backup), Some(new)) = (&report.plan.backup, new) {
                s.expected.insert(linux(backup), new);
            }
            s.files_are_as_expected(proofs)?;
            Ok(None)
        })
    }

    fn look_after_restore(&mut self) -> Result<bool> {
        self.look(
            "As in the beginning, without the duplicate, and the new image is the backup.",
            |s, report, proofs| {
                proof(proofs, "the old image starts", report.boot.selected.as_ref() == Some(&s.started));
                s.files_are_as_expected(proofs)
            },
        )
    }

    /// Where `fsck.fat` is installed: its verdict over the ESP.
    fn second_opinion(&mut self) -> Result<bool> {
        let w = self.made;
        let Some(verdict) = judge::fsck(&w.disk, w.esp, &w.copy)? else { return Ok(true) };
        self.fsck = true;
        let plan = Plan {
            title: "The opinion of dosfstools on the ESP, copied out of the disk.",
            command: verdict.command,
            expected: 0,
        };
        let code = verdict.exit_code;
        self.step(
            plan,
            |_, _| Ok(Answer::Text(verdict.output)),
            |_, _, proofs| {
                proof(proofs, "it finds no fault (exit code 0)", code == 0);
                Ok(None)
            },
        )
    }

    /// Every file of the ESP, read by the fatfs crate, is byte for byte what it should be.
    fn files_are_as_expected(&self, proofs: &mut Proofs) -> Result<()> {
        let found = judge::files(&self.made.disk, self.made.esp)?;
        let differ: Vec<&str> = found
            .keys()
            .chain(self.expected.keys())
            .filter(|path| found.get(*path) != self.expected.get(*path))
            .map(String::as_str)
            .collect();
        proofs.push(Proof {
            what: format!("all {} files on the ESP are byte for byte what they should be (read by fatfs)", found.len()),
            ok: differ.is_empty(),
            detail: (!differ.is_empty()).then(|| format!("not as expected: {}", differ.join(", "))),
        });
        Ok(())
    }
}

/// The path of a file in `EFI/Linux`.
fn linux(name: &str) -> String {
    format!("{LINUX_DIR}/{name}")
}
