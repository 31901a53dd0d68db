//! Somebody else changes the ESP or the EFI variables between the plan and the answer to the question: nothing is
//! written.

use crate::cli::{ESP, fixture, put, uki};
use crate::support::{Lab, sha256, tool};
use bootsurgeon::Kind;
use bootsurgeon::command::{
    Change, DiskRequest, Event, ImageRequest, ImageSource, Prune, Restore, Swap, TrustRequest, Ui, VariablesChoice,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Something that is done to a disk and a directory of EFI variables.
type Meanwhile = dyn Fn(&Path, &Path) + Sync;

/// Says yes, after something has happened.
pub(crate) struct Yes<F> {
    meanwhile: F,
    stop: Arc<AtomicBool>,
}

impl<F> Yes<F> {
    pub(crate) fn after(meanwhile: F) -> Self {
        Self { meanwhile, stop: Arc::default() }
    }
}

impl<F: Fn() + Sync> Ui for Yes<F> {
    fn event(&self, _: Event) {}

    fn confirm(&self, _: &str) -> Option<bool> {
        (self.meanwhile)();
        Some(true)
    }

    fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.stop
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Swap,
    Restore,
    Prune,
}

/// Carries it out on `disk` while `meanwhile` happens.
fn operate(
    operation: Operation,
    disk: &Path,
    image: &Path,
    efivars: &Path,
    meanwhile: impl Fn() + Sync,
) -> bootsurgeon::Result<()> {
    let ui = Yes::after(meanwhile);
    let efivars = VariablesChoice::Dir(efivars.to_owned());
    let disk = DiskRequest { efivars, ..DiskRequest::new(disk) };
    let change = Change::default();
    let trust = || TrustRequest { cert: vec![fixture("keys").join("test-signing.crt")], ..TrustRequest::default() };
    let named = |path: &Path| {
        let image = path.display().to_string();
        ImageSource::Named(ImageRequest::new(image))
    };
    match operation {
        Operation::Swap => {
            let swap = Swap::new(disk, named(image), trust(), change);
            Swap { allow_extension_loss: true, ..swap }.run(&ui).map(drop)
        }
        Operation::Restore => {
            Restore { disk, backup: None, trust: trust(), change, board_files: None, node: None }.run(&ui).map(drop)
        }
        Operation::Prune => {
            let prune = Prune { disk, change, delete: true, keep_backups: Some(0), no_fallback: true };
            prune.run(&ui).map(drop)
        }
    }
}

#[test]
fn what_changed_since_the_plan_is_refused() {
    if !tool("mcopy") {
        return;
    }
    for operation in [Operation::Swap, Operation::Restore, Operation::Prune] {
        let lab = Lab::new();
        let image = uki(&lab, "v1.12.4-arm64-installer");
        let start = lab.fixture("disk-512.img.zst");
        bootsurgeon!("swap", start, image, "--yes").code(0);
        let image = uki(&lab, "v1.12.4-arm64-plain");
        let loader_conf = |disk: &Path, _: &Path| put(disk, ESP, "loader/loader.conf", b"timeout 99\n");
        let entry = |disk: &Path, _: &Path| put(disk, ESP, "EFI/Linux/Talos-v9.9.9.efi", b"new");
        let loader = |disk: &Path, _: &Path| put(disk, ESP, "EFI/BOOT/BOOTAA64.EFI", b"another loader");
        let variable = |_: &Path, vars: &Path| {
            let from = fixture("efivars/pinned-new/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
            std::fs::copy(from, vars.join("LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")).unwrap();
        };
        let cases: [(&str, &Meanwhile); 4] = [
            ("loader/ has changed", &loader_conf),
            ("EFI/Linux has changed", &entry),
            ("EFI/BOOT has changed", &loader),
            ("EFI variables have changed", &variable),
        ];
        let vars = |name: &str| {
            let vars = lab.path(name);
            std::fs::create_dir(&vars).unwrap();
            let secure_boot = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
            std::fs::copy(fixture("efivars/setup-mode").join(secure_boot), vars.join(secure_boot)).unwrap();
            vars
        };
        for (i, (words, meanwhile)) in cases.into_iter().enumerate() {
            let disk = crate::cli::copy(&start, &lab.path(&format!("disk-{i}.img")));
            let vars = vars(&format!("vars-{i}"));
            let after = std::sync::Mutex::new(String::new());
            let refused = operate(operation, &disk, &image, &vars, || {
                meanwhile(&disk, &vars);
                *after.lock().unwrap() = sha256(&disk);
            });
            let error = refused.expect_err(words);
            assert_eq!(error.kind(), Kind::Unsafe, "{operation:?}: {error}");
            assert!(error.to_string().contains(words), "{operation:?}: {error}");
            assert_eq!(sha256(&disk), *after.lock().unwrap(), "{operation:?}: something was written");
        }
        let vars = vars("vars");
        operate(operation, &start, &image, &vars, || ()).expect("nothing has changed");
    }
}
