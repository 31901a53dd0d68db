//! The full course on one board, with the commands themselves: image and boot loader replaced in either order, and
//! back; and once with Secure Boot enforced. Each start is a machine of its own that goes by its own boot options.

use crate::expected;
use crate::job::{self, talos};
use crate::lab::Systemd;
use crate::load_option::{HardDrive, load_option};
use crate::machine::{Boot, Machine};
use crate::{nvram, sets, volume};
use bootsurgeon::block::read_vec;
use bootsurgeon::command::VariablesChoice;
use bootsurgeon::disk::Target;
use bootsurgeon::plan::usual_loader_paths;
use bootsurgeon::testkit::signing::{SigningKey, sign_pe};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const VOLUME: usize = 64 << 20;

/// What is done to the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `swap --with-board-files`.
    Swap,
    /// `restore --with-board-files`.
    SwapBack,
    /// `loader`.
    Loader,
    /// `restore` of each place, as the report of `loader` recommends it.
    LoaderBack,
}

/// The two orders.
pub(crate) const COURSES: [[Step; 4]; 2] = [
    [Step::Swap, Step::Loader, Step::SwapBack, Step::LoaderBack],
    [Step::Loader, Step::Swap, Step::LoaderBack, Step::SwapBack],
];

/// Paths and contents.
type Files = Vec<(String, Vec<u8>)>;

/// A board on a disk, with the firmware's variables.
struct Bench {
    machine: Machine,
    dir: tempfile::TempDir,
    /// What is said of the signer.
    trust: Vec<String>,
    boots: usize,
}

impl Bench {
    /// A disk of these partitions, and a boot option for a file of each, in this order.
    fn new(machine: Machine, partitions: &[(Files, &str)], certificate: Option<&SigningKey>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self { machine, dir, trust: vec!["--allow-untrusted".into()], boots: 0 };
        let sizes: Vec<usize> =
            partitions.iter().enumerate().map(|(n, _)| if n == 0 { VOLUME } else { 8 << 20 }).collect();
        volume::disk(&bench.disk(), &sizes, |n| volume::esp(sizes[n], &partitions[n].0));
        let table = Target::find(&bench.disk(), Some("1")).unwrap();
        let mut store = machine.formatted_variables();
        for (n, (_, file)) in partitions.iter().enumerate() {
            let partuuid = table.table().unwrap().partitions[n].partuuid.to_string();
            let drive = HardDrive { number: n as u32 + 1, start: 0, sectors: 0, partuuid: &partuuid };
            let option = load_option(1, Some(&drive), file, "");
            nvram::add(&mut store, &format!("Boot{:04X}", n + 1), nvram::GLOBAL, nvram::PLAIN, &option);
        }
        let order: Vec<u8> = (1..=partitions.len() as u16).flat_map(u16::to_le_bytes).collect();
        nvram::add(&mut store, "BootOrder", nvram::GLOBAL, nvram::PLAIN, &order);
        if let Some(key) = certificate {
            nvram::enrol(&mut store, &key.certificate_der().unwrap());
            std::fs::write(bench.path("cert.pem"), key.certificate_pem().unwrap()).unwrap();
            bench.trust = vec!["--cert".into(), bench.path("cert.pem").to_str().unwrap().into()];
        }
        std::fs::write(bench.variables(), store).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn disk(&self) -> PathBuf {
        self.path("disk.img")
    }

    fn variables(&self) -> PathBuf {
        self.path("variables.fd")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs a command on the board's first partition. Its report, and the exit code.
    fn run(&self, command: &[&str], more: &[&str]) -> (Value, Option<i32>) {
        let mut arguments: Vec<String> = command.iter().chain(more).map(|word| (*word).to_owned()).collect();
        // A way back that a report names has it already.
        if !arguments.contains(&self.trust[0]) {
            arguments.extend(self.trust.iter().cloned());
        }
        if !arguments.iter().any(|word| word == "--partition") {
            arguments.extend(["--partition".to_owned(), "1".to_owned()]);
        }
        if !arguments.iter().any(|word| word.starts_with("--efivars")) {
            arguments.push(format!("--efivars={}", self.variables().display()));
        }
        arguments.push("--json".to_owned());
        let words: Vec<&dyn AsRef<std::ffi::OsStr>> = arguments.iter().map(|word| word as _).collect();
        let output = job::bootsurgeon(&words);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("{arguments:?}: {e}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        (report, output.status.code())
    }

    fn succeeds(&self, command: &[&str], more: &[&str]) -> Value {
        let (report, code) = self.run(command, more);
        assert_eq!((code, &report["committed"]), (Some(0), &Value::Bool(true)), "{command:?} {more:?}: {report:#}");
        report
    }

    /// Starts it. What runs has to be this payload, chosen by this systemd-boot, and predicted.
    fn starts(&mut self, payload: &str, loader: Option<&Systemd>, when: &str) {
        let foreseen = expected::run(&self.disk(), &VariablesChoice::Dir(self.variables()));
        let boot = Boot::single(&self.machine.boot_and_keep(&self.disk(), &self.variables(), LIMIT).text);
        let what = format!("{when}: {boot:?}");
        assert_eq!(boot.payload.as_ref().map(|(name, _)| name.as_str()), Some(payload), "{what}");
        assert_eq!(boot.loader.as_deref(), loader.map(|systemd| systemd.version.text.as_str()), "{what}");
        assert_eq!(boot.secure_boot, self.machine.secure, "{what}");
        if loader.is_some() {
            assert_eq!(foreseen.payload.as_deref(), Some(payload), "{what}: not as predicted: {:#?}", foreseen.steps);
        }
        self.boots += 1;
    }

    /// The file of this path on the first partition.
    fn content(&self, path: &str) -> Option<Vec<u8>> {
        let esp = expected::inventory(&self.disk(), "1", &VariablesChoice::Dir(self.variables()));
        let entry = esp.volume.find(path).unwrap()?;
        Some(read_vec(&esp.volume.file(&entry).unwrap(), 0, entry.bytes as usize).unwrap())
    }

    /// `loader` to these bytes; the ways back that its report names.
    fn replace_loader(&self, image: &str) -> Vec<Vec<String>> {
        let disk = self.disk();
        let report = self.succeeds(&["loader", disk.to_str().unwrap(), image, "--yes"], &[]);
        let next = report["next"].as_array().unwrap().iter();
        let words = |step: &Value| step["run"].as_array().unwrap().iter().map(|w| w.as_str().unwrap().into()).collect();
        let next: Vec<Vec<String>> = next.map(words).collect();
        assert_eq!(next.len(), 2, "{report:#}");
        next
    }

    fn loader_back(&self, ways: &[Vec<String>]) {
        for way in ways {
            let way: Vec<&str> = way[1..].iter().map(String::as_str).collect();
            let _ = self.succeeds(&way, &["--yes"]);
        }
    }
}

/// The files of a board of this release, with its systemd-boot at both places.
fn board(systemd: &Systemd, signed: &dyn Fn(Vec<u8>) -> Vec<u8>) -> Files {
    let loaders = usual_loader_paths(systemd.arch).map(|path| (path, signed(systemd.loader.clone())));
    let image = |version: &str, payload: &str| {
        (format!("EFI/Linux/Talos-{version}.efi"), signed(talos(systemd, version, payload)))
    };
    let more = [
        ("loader/loader.conf".to_owned(), b"timeout 0\n".to_vec()),
        image("v1.12.4", "old"),
        image("v1.12.3", "older"),
    ];
    loaders.into_iter().chain(more).collect()
}

/// Image, files of the board and systemd-boot of a new release on a board of an old one, step by step. How many starts.
pub(crate) fn run(machine: Machine, [old, new]: [&Systemd; 2], course: &[Step]) -> usize {
    let [removable, installed] = usual_loader_paths(machine.arch);
    let mut files = board(old, &|image| image);
    files.extend(sets::files(false));
    let mut bench = Bench::new(machine, &[(files, &installed)], None);
    // The raw image of the new release has all of it.
    let mut source: Vec<_> = sets::files(true).collect();
    source.push((removable.clone(), new.loader.clone()));
    source.push(("EFI/Linux/Talos-v1.13.0.efi".to_owned(), talos(new, "v1.13.0", "new")));
    let image = bench.path("source.img");
    volume::disk(&image, &[VOLUME], |_| volume::esp(VOLUME, &source));
    let (disk, image) = (bench.disk(), image.to_str().unwrap().to_owned());
    let disk = disk.to_str().unwrap();

    let (mut payload, mut loader, mut ways) = ("old", old, Vec::new());
    // Both courses begin with the same board.
    if course[0] == Step::Swap {
        bench.starts(payload, Some(loader), "before");
    }
    for step in course {
        match step {
            Step::Swap => {
                let set = ["--with-board-files", "--accept-mixture", "--allow-halt-if-installed", "--yes"];
                let _ = bench.succeeds(&["swap", disk, &image], &set);
                payload = "new";
            }
            Step::SwapBack => {
                let _ = bench.succeeds(&["restore", disk], &["--with-board-files", "--accept-mixture", "--yes"]);
                payload = "old";
            }
            Step::Loader => {
                ways = bench.replace_loader(&image);
                loader = new;
            }
            Step::LoaderBack => {
                bench.loader_back(&ways);
                loader = old;
            }
        }
        let when = format!("{course:?}, after {step:?}");
        bench.starts(payload, Some(loader), &when);
        for path in [&removable, &installed] {
            assert!(bench.content(path).as_ref() == Some(&loader.loader), "{when}: {path}");
        }
        let is_new = payload == "new";
        for (path, content) in sets::files(is_new) {
            assert!(bench.content(&path) == Some(content), "{when}: {path}");
        }
    }
    bench.boots
}

/// The same under Secure Boot, with loaders signed by a key that the firmware has, by another, and not at all. How many
/// starts.
pub(crate) fn signed(machine: Machine, releases: &[Systemd]) -> usize {
    let [old, newer @ ..] = releases else { panic!("releases of systemd-boot") };
    let key = SigningKey::test("Test signer").unwrap();
    let other = SigningKey::other_test("Somebody else").unwrap();
    let by = |key: &SigningKey, bytes: &[u8]| sign_pe(bytes.to_vec(), key).unwrap();
    let [removable, installed] = usual_loader_paths(machine.arch);
    let signed_board = board(old, &|image| by(&key, &image));
    let (unsigned, foreign) = (&newer[0].loader, by(&other, &newer[0].loader));
    let mut bench = Bench::new(machine, &[(signed_board, &installed)], Some(&key));
    let disk = bench.disk();
    let disk = disk.to_str().unwrap();
    bench.starts("old", Some(old), "signed, before");

    let before = std::fs::read(disk).unwrap();
    for (name, bytes) in [("unsigned.efi", unsigned), ("foreign.efi", &foreign)] {
        let image = bench.file(name, bytes);
        for how in ["--dry-run", "--yes"] {
            let (report, code) = bench.run(&["loader", disk, &image, how], &[]);
            let why = report["error"].to_string();
            assert!(code == Some(3) && why.contains("authenticode-signer"), "{name} {how}: {why}");
        }
        // Whatever is accepted, the firmware has the last word.
        let (report, code) = bench.run(&["loader", disk, &image, "--yes", "--allow-untrusted"], &[]);
        assert_eq!((code, &report["error"]["code"]), (Some(4), &"unsafe".into()), "{name}: {report:#}");
    }
    assert!(before == std::fs::read(disk).unwrap(), "a refused boot loader changed something");
    // Put there by hand: the firmware refuses the one, then the other, and goes on to a third option.
    let third = by(&key, &old.payload("fallback"));
    let by_hand = [unsigned.clone(), foreign, third].map(|program| vec![(removable.clone(), program)]);
    let by_hand = by_hand.map(|files| (files, &*removable));
    let mut refused = Bench::new(machine, &by_hand, Some(&key));
    refused.starts("fallback", None, "unsigned and foreign, put there by hand");

    let (mut ways, mut boots) = (Vec::new(), refused.boots);
    for systemd in newer {
        let image = bench.file("signed.efi", &by(&key, &systemd.loader));
        ways.push(bench.replace_loader(&image));
        bench.starts("old", Some(systemd), "signed, replaced");
    }
    // Back, release by release.
    for way in ways.iter().rev() {
        bench.loader_back(way);
    }
    bench.starts("old", Some(old), "signed, restored");
    boots += bench.boots;
    boots
}
