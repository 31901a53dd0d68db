//! The operations that are cut and booted: menus in which another file than the old image or the new one could win, or
//! one that does not start.

use crate::job::talos;
use crate::lab::Systemd;
use crate::load_option::{HardDrive, load_option};
use crate::recorder::Recorder;
use bootsurgeon::block::{ReadAt, Sink, read_vec};
use bootsurgeon::boot::Variables;
use bootsurgeon::bootpath::{BootOptions, BootVolume};
use bootsurgeon::disk::PartUuid;
use bootsurgeon::efivars::EfiVars;
use bootsurgeon::esp::{BackupName, EspContext, Inventory};
use bootsurgeon::fat::{Editor, Stamp};
use bootsurgeon::plan::{NewImage, SwapOptions, SwapPlan, backups};
use bootsurgeon::surgery::{ContentRef, LINUX_DIR, Staging, open_healthy};
use bootsurgeon::uki;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const NAME: &str = "Talos-v1.12.4.efi";
const DUPLICATE: &str = "Talos-v1.12.4~1.efi";
pub(crate) const NOW: u64 = 1_771_000_000;

/// What is done to a medium.
pub(crate) type Act = Box<dyn Fn(&Recorder, &Shape) + Send + Sync>;

/// An ESP and an operation on it.
pub(crate) struct Shape {
    pub(crate) name: String,
    /// The files of `EFI/Linux`.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// Every other file, by its path.
    pub(crate) beside: Vec<(String, Vec<u8>)>,
    /// Where the firmware's boot option leads; none where it starts the removable-media path.
    pub(crate) option: Option<String>,
    /// systemd-boot's variables, as raw data.
    pub(crate) variables: Vec<(&'static str, Vec<u8>)>,
    /// What happens before, uncut.
    pub(crate) earlier: Vec<Act>,
    pub(crate) operation: Act,
    /// Every image, and the payload that it starts.
    pub(crate) images: Vec<(Vec<u8>, &'static str)>,
    /// The systemd-boots between which it changes; none where it is the image that changes, from `old` to `new`.
    pub(crate) loaders: Option<[String; 2]>,
    /// What else is written than images.
    pub(crate) contents: Vec<Vec<u8>>,
    /// Files that the operation gives another content: of each mixture of old and new ones an image is booted.
    pub(crate) watched: Vec<String>,
}

impl Shape {
    /// A swap or a restore of an image of `EFI/Linux`.
    pub(crate) fn new(systemd: &Systemd, name: &str, files: &[(&'static str, &[u8])], operation: Act) -> Self {
        Self {
            name: name.to_owned(),
            files: files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect(),
            beside: vec![
                (systemd.loader_path().to_owned(), systemd.loader.clone()),
                ("loader/loader.conf".to_owned(), b"timeout 0\n".to_vec()),
            ],
            option: None,
            variables: Vec::new(),
            earlier: Vec::new(),
            operation,
            images: Vec::new(),
            loaders: None,
            contents: Vec::new(),
            watched: Vec::new(),
        }
    }

    /// What the runner is told.
    pub(crate) fn settings(&self) -> Vec<(String, Vec<u8>)> {
        let start = self.option.iter().map(|path| (format!("\\{}", path.replace('/', "\\")), Vec::new()));
        start.chain(self.variables.iter().map(|(name, data)| ((*name).to_owned(), data.clone()))).collect()
    }

    /// The firmware's boot option, which names the ESP.
    pub(crate) fn context(&self) -> Arc<EspContext> {
        const PARTUUID: &str = "5f1d3c2e-9b8a-4c7d-a6e5-0123456789ab";
        let Some(file) = &self.option else { return Arc::default() };
        let dir = tempfile::tempdir().unwrap();
        let variable = |name: &str, data: &[u8]| {
            let name = dir.path().join(format!("{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c"));
            std::fs::write(name, [&7_u32.to_le_bytes(), data].concat()).unwrap();
        };
        let drive = HardDrive { number: 1, start: 0, sectors: 0, partuuid: PARTUUID };
        variable("Boot0001", &load_option(1, Some(&drive), file, ""));
        variable("BootOrder", &[1, 0]);
        let mut context = EspContext::new(BootOptions::read(&EfiVars::open(Some(dir.path()))));
        let partuuid = Some(PartUuid::Gpt(uuid::Uuid::parse_str(PARTUUID).unwrap()));
        context.add_this(BootVolume { name: "partition 1".into(), partuuid, place: Some((1, 2048, 16384)) });
        Arc::new(context)
    }

    /// The payload of an image; none of one that does not start.
    pub(crate) fn payload(&self, bytes: &[u8]) -> Option<&'static str> {
        self.images.iter().find(|(image, _)| image == bytes).map(|(_, payload)| *payload)
    }

    pub(crate) fn known_variables(&self) -> Variables {
        let get = |name: &str| self.variables.iter().find(|(n, _)| *n == name).map(|(_, data)| data.clone());
        Variables { default: get("LoaderEntryDefault"), virtual_machine: Some(true), ..Variables::default() }
    }
}

/// The shapes in which a power cut could start a third image, or nothing, beside the plain swap.
pub(crate) fn shapes(systemd: &Systemd) -> Vec<Shape> {
    let image = |version: &str, payload: &str| talos(systemd, version, payload);
    let (old, new, older) = (image("v1.12.4", "old"), image("v1.12.4", "new"), image("v1.11.0", "new"));
    let third = image("v1.12.4", "third");
    // Cut off behind what systemd-boot reads of it: listed, and no program that firmware loads.
    let dead = third[..third.len() - 2048].to_vec();
    let backup = "Talos-v1.12.4.efi.bak.1770000000";
    let swap = |bytes: &[u8], target: Option<&'static str>| -> Act {
        let bytes = bytes.to_vec();
        Box::new(move |medium, shape| swap(medium, shape, &bytes, target))
    };
    let restore = || -> Act { Box::new(restore) };
    let shape = |name, files: &[(&'static str, &[u8])], operation| Shape {
        images: vec![(old.clone(), "old"), (new.clone(), "new"), (older.clone(), "new"), (third.clone(), "third")],
        ..Shape::new(systemd, name, files, operation)
    };
    let pinned = "talos-v1.12.4.efi\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        shape("a swap of the same version", &[(NAME, &old)], swap(&new, None)),
        shape("a swap to an older version, a duplicate in the menu", &[(DUPLICATE, &third), (NAME, &old)], {
            swap(&older, None)
        }),
        shape("a swap --target to an older version, a duplicate in the menu", &[(NAME, &old), (DUPLICATE, &third)], {
            swap(&older, Some(NAME))
        }),
        shape(
            "a restore of an older version, a duplicate in the menu",
            &[(NAME, &old), (DUPLICATE, &third), (backup, &older)],
            restore(),
        ),
        shape(
            "a restore of an older version, a dead duplicate in the menu",
            &[(NAME, &old), (DUPLICATE, &dead), (backup, &older)],
            restore(),
        ),
        Shape {
            variables: vec![("LoaderEntryDefault", pinned)],
            ..shape(
                "a swap to an older version, the target pinned by a variable",
                &[(DUPLICATE, &third), (NAME, &old)],
                swap(&older, None),
            )
        },
        {
            // `swap --target Talos.efi`, then `talosctl upgrade`, then `restore`.
            let (second, upgraded) = (image("v1.13.0", "second"), image("v1.13.1", "old"));
            let mut all = shape("a restore after an upgrade", &[(NAME, &older)], restore());
            all.images.extend([(second.clone(), "second"), (upgraded.clone(), "old")]);
            all.earlier = vec![
                swap(&second, Some("Talos.efi")),
                Box::new(move |medium, _| add(medium, "Talos-v1.13.1.efi", &upgraded)),
            ];
            all
        },
    ]
}

/// As the command does it, without its checks of signatures.
fn swap(medium: &Recorder, shape: &Shape, bytes: &Vec<u8>, target: Option<&str>) {
    let esp = Inventory::read(medium, shape.known_variables()).unwrap();
    let facts = uki::probe(bytes).unwrap();
    let image = NewImage { source: bytes, facts: Some(&facts), bytes_to_write: bytes.len() as u64, from_file: None };
    let time = esp.stamp(NOW);
    let options = SwapOptions { target: target.map(str::to_owned), time, ..SwapOptions::default() };
    let plan = SwapPlan::make(&esp, &image, &options).unwrap();
    let mut staging = Staging::begin(open_healthy(medium).unwrap(), bytes.len() as u64).unwrap();
    for chunk in bytes.chunks(16 * 1024) {
        staging.chunk(chunk).unwrap();
    }
    let staged = staging.seal(Sha256::digest(bytes).into()).unwrap();
    let _ = staged.commit(&plan.order("swap", time)).unwrap();
}

/// The newest backup goes back.
fn restore(medium: &Recorder, shape: &Shape) {
    let esp = Inventory::read(medium, shape.known_variables()).unwrap();
    let name = backups(&esp).first().unwrap().0.clone();
    let file = esp.file(&name).unwrap();
    let bytes = esp.volume.file(&file.entry).unwrap();
    let image = NewImage { source: &bytes, facts: file.facts.as_deref(), bytes_to_write: 0, from_file: Some(&name) };
    let time = esp.stamp(NOW);
    let target = Some(BackupName::parse(&name).unwrap().original);
    let plan = SwapPlan::make(&esp, &image, &SwapOptions { target, time, ..SwapOptions::default() }).unwrap();
    let sha256 = Some(hex::encode(Sha256::digest(read_vec(&bytes, 0, bytes.size() as usize).unwrap())));
    let verified = ContentRef { cluster: file.entry.first_cluster, bytes: file.entry.bytes, sha256 };
    let _ = plan.order("restore", time).restore(open_healthy(medium).unwrap(), &name, verified).unwrap();
}

/// Somebody else writes a file.
fn add(medium: &Recorder, name: &str, bytes: &[u8]) {
    let mut editor = Editor::open(medium).unwrap();
    editor.make_file(LINUX_DIR, name, bytes, Stamp(NOW)).unwrap();
    editor.write_fsinfo().unwrap();
}
