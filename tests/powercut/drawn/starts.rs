//! What a board starts in a state: by the project's own boot prediction, in every world, byte for byte.

use super::board::{Board, End};
use super::images::Image;
use crate::checker::{Content, Report};
use bootsurgeon::boot::{self, EntryKind, LoaderVersion, OtherLoaders, Prediction, UkiFile};
use std::cell::RefCell;
use std::collections::HashMap;

/// What a board starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Start {
    /// The node is down: no entry, a file that is not there, or one that does not start.
    Nothing,
    /// A file with this content; of a UKI this profile. What a Type #1 entry starts has none.
    File { content: Content, profile: Option<u32> },
    /// What is no file: another boot loader, an action.
    Other(String),
}

/// The images of a scenario by their content.
#[derive(Default)]
pub struct Images {
    by_content: HashMap<Content, Image>,
    labels: HashMap<Content, String>,
}

impl Images {
    /// `origin`: where it came from, for people.
    pub fn add(&mut self, image: &Image, sector: usize, origin: &str) {
        let content = Content::of(&image.bytes, sector);
        self.by_content.insert(content, image.clone());
        let version = image.version.as_deref().unwrap_or("no version");
        self.labels.entry(content).or_insert_with(|| format!("{origin} ({version}, {})", image.what));
    }

    pub fn get(&self, content: &Content) -> Option<&Image> {
        self.by_content.get(content)
    }

    /// What starts, in words.
    pub fn describe(&self, start: &Start) -> String {
        match start {
            Start::Nothing => "nothing".to_owned(),
            Start::File { content, profile } => {
                let label = self.labels.get(content).map_or("a file of no scenario", String::as_str);
                match profile {
                    Some(0) => label.to_owned(),
                    Some(n) => format!("profile {n} of {label}"),
                    None => format!("{label} by a Type #1 entry"),
                }
            }
            Start::Other(what) => what.clone(),
        }
    }
}

/// The paths in the directories of images, their contents (`None`: broken, or a directory) and attributes, in the order
/// of the directory.
type Listing = Vec<(String, Option<Content>, u8)>;

const READ_ONLY: u8 = 0x01;
const DIRECTORY: u8 = 0x10;

/// Predicts, and remembers what it predicted.
pub struct Oracle<'b> {
    board: &'b Board,
    images: &'b Images,
    loader: LoaderVersion,
    machine: u16,
    probed: RefCell<HashMap<Content, UkiFile>>,
    known: RefCell<HashMap<Listing, Vec<Start>>>,
}

impl<'b> Oracle<'b> {
    pub fn new(board: &'b Board, images: &'b Images) -> Self {
        let loader = LoaderVersion::parse(board.loader_version).expect("a version");
        let machine = match board.arch {
            bootsurgeon::pe::Arch::Arm64 => 0xAA64,
            bootsurgeon::pe::Arch::Amd64 => 0x8664,
        };
        Self { board, images, loader, machine, probed: RefCell::default(), known: RefCell::default() }
    }

    /// What starts, in words.
    pub fn describe(&self, start: &Start) -> String {
        self.images.describe(start)
    }

    /// Whether an operation may have business with a path.
    pub fn is_inside(&self, path: &str) -> bool {
        self.board.is_inside(path)
    }

    /// What starts: with the variables as they are, with none, and where one is for one boot only, at the boot after
    /// that.
    pub fn starts(&self, report: &Report) -> Vec<Start> {
        let listing = self.listing(report);
        if let Some(known) = self.known.borrow().get(&listing) {
            return known.clone();
        }
        let starts: Vec<Start> = if self.board.end == End::Direct {
            // No variable says otherwise, so there is one world.
            let path = format!("efi/boot/{}", self.board.arch.removable_loader());
            vec![self.held(&path, &listing, Some(0))]
        } else {
            self.predict(&listing).iter().map(|p| self.start(p, &listing)).collect()
        };
        self.known.borrow_mut().insert(listing, starts.clone());
        starts
    }

    fn predict(&self, listing: &Listing) -> Vec<Prediction> {
        let board = self.board;
        let at = |path: &str| {
            let path = path.trim_start_matches('\\').replace('\\', "/").to_ascii_lowercase();
            path == "efi/tool.efi" || listing.iter().any(|(n, ..)| n.eq_ignore_ascii_case(&path))
        };
        let named = board.type1.iter().filter_map(|file| boot::type1_target(file, &self.loader));
        let targets = boot::Targets::these(named.filter(|path| at(path)));
        let in_linux = listing.iter().filter_map(|(path, content, attributes)| {
            let (directory, name) = path.rsplit_once('/')?;
            directory.eq_ignore_ascii_case("efi/linux").then(|| self.seen(name, *content, *attributes))
        });
        let linux: Vec<UkiFile> = in_linux.collect();
        let esp = boot::Esp {
            loader: self.loader.clone(),
            machine: self.machine,
            loader_path: format!("\\EFI\\BOOT\\{}", board.arch.removable_loader()),
            linux: match &board.esp {
                None => linux.clone(),
                Some((_, images)) => {
                    images.iter().map(|(name, i)| UkiFile::probe(name, &i.bytes, &self.loader, self.machine)).collect()
                }
            },
            type1: board.type1.clone(),
            loader_conf: board.loader_conf.clone(),
            key_dirs: Vec::new(),
            others: OtherLoaders::default(),
            targets,
            xbootldr: board.esp.is_some().then(|| boot::Xbootldr {
                linux,
                type1: Vec::new(),
                targets: boot::Targets::these(std::iter::empty::<String>()),
            }),
        };
        let mut all = vec![boot::predict(&esp, &board.variables), boot::predict(&esp, &board.variables.reset())];
        if board.variables.oneshot.is_some() {
            all.push(boot::predict(&esp, &board.variables.after_one_boot()));
        }
        all
    }

    /// A file as systemd-boot sees it.
    fn seen(&self, name: &str, content: Option<Content>, attributes: u8) -> UkiFile {
        if attributes & DIRECTORY != 0 {
            return UkiFile::directory(name);
        }
        let nothing = Content { size: 0, id: 0 };
        let content = content.unwrap_or(nothing);
        let mut probed = self.probed.borrow_mut();
        let file = probed.entry(content).or_insert_with(|| {
            let empty = Vec::new();
            let bytes = self.images.get(&content).map_or(&empty, |i| &i.bytes);
            UkiFile::probe(name, bytes, &self.loader, self.machine)
        });
        UkiFile { name: name.to_owned(), read_only: attributes & READ_ONLY != 0, ..file.clone() }
    }

    fn start(&self, prediction: &Prediction, listing: &Listing) -> Start {
        let Some(entry) = prediction.selected_entry() else { return Start::Nothing };
        let profile = (entry.kind == EntryKind::Uki).then_some(entry.profile);
        let Some(path) = &entry.path else { return Start::Other(entry.id.clone()) };
        let path = path.trim_start_matches('\\').replace('\\', "/");
        if let (Some((_, images)), false) = (&self.board.esp, entry.xbootldr) {
            // The ESP is another volume, which stays as it is.
            return Start::Other(format!("{path} of the ESP, of {}", images.len()));
        }
        if !self.is_inside(&path) {
            return Start::Other(path);
        }
        self.held(&path, listing, profile)
    }

    /// What a file of the volume starts.
    fn held(&self, path: &str, listing: &Listing, profile: Option<u32>) -> Start {
        let content = listing.iter().find(|(n, ..)| n.eq_ignore_ascii_case(path)).and_then(|(_, c, _)| *c);
        match content {
            Some(content) if self.images.get(&content).is_some_and(|i| i.starts) => Start::File { content, profile },
            _ => Start::Nothing,
        }
    }

    fn listing(&self, report: &Report) -> Listing {
        let inside = report.entries.iter().filter(|e| self.is_inside(&e.path));
        inside.map(|e| (e.path.clone(), e.content, e.raw[11])).collect()
    }
}
