//! A board by lot: the volume's shape, what is in its boot menu, and what its firmware's variables say.

use super::images::{Image, VERSIONS, loader};
use crate::crash::{Frame, Random};
use crate::formatter::{ARCHIVE, Formatter, READ_ONLY};
use crate::geometry::{Geometry, Width};
use crate::volumes::{Room, Shape};
use bootsurgeon::boot::{Type1File, Variables};
use bootsurgeon::pe::Arch;
use std::fmt::Write as _;

/// Everything about a board before the first operation.
pub struct Board {
    pub shape: Shape,
    pub frame: Frame,
    pub geometry: Geometry,
    pub arch: Arch,
    /// `257.9-talos`.
    pub loader_version: &'static str,
    pub loader_conf: Option<Vec<u8>>,
    pub type1: Vec<Type1File>,
    pub variables: Variables,
    /// Where the way of the boot ends.
    pub end: End,
    /// The ESP, where the volume is the Extended Boot Loader Partition beside it; and its images.
    pub esp: Option<(Frame, Vec<(String, Image)>)>,
    /// The images, by the names they had.
    pub images: Vec<(String, Image)>,
    /// What else is on the volume that no operation has any business with, for people.
    oddities: Vec<&'static str>,
}

/// In what the way of the boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// systemd-boot's menu on the volume.
    Menu,
    /// A UKI that the firmware takes from the removable-media path.
    Direct,
    /// A UKI that a Type #1 entry names.
    Type1,
    /// The menu of the ESP's systemd-boot, and the volume is the Extended Boot Loader Partition.
    Xbootldr,
}

pub const LINUX: &str = "EFI/Linux";
const LOADERS: [&str; 7] = ["252.39-1", "254.26-1", "257.9-talos", "257.9-talos", "257.13-1", "259.5-talos", "262.1-1"];

impl Board {
    pub fn draw(random: &mut Random, end: End) -> Self {
        let mut shape = draw_shape(random);
        let arch = random.pick(&[Arch::Arm64, Arch::Amd64]);
        let loader_version = random.pick(&LOADERS);
        let images = draw_menu(random, arch, shape.sector);
        let menu: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
        let loader_conf = random.chance(60).then(|| draw_loader_conf(random, &menu));
        let mut type1 = if end == End::Xbootldr { Vec::new() } else { draw_type1(random, &menu) };
        let variables = draw_variables(random, &menu);

        let place = match end {
            End::Direct => Some(("EFI/BOOT".to_owned(), arch.removable_loader().to_owned())),
            End::Type1 => Some((TYPE1_DIRECTORY.to_owned(), "active.efi".to_owned())),
            End::Menu | End::Xbootldr => None,
        };
        let aside = place.as_ref().map_or(Vec::new(), |(_, name)| draw_place(random, arch, name));
        if end == End::Type1 {
            type1.push(winning_entry(random));
        }
        let esp = (end == End::Xbootldr).then(|| draw_esp(random, arch, loader_version, loader_conf.as_ref()));

        let mut f = Formatter::new(shape);
        let mut oddities = Vec::new();
        if random.chance(60) {
            f.scatter(Random::new(random.next_u64()));
        }
        for directory in ["EFI", "EFI/BOOT", LINUX, "loader", "loader/entries", "loader/keys"] {
            f.directory(directory);
        }
        if matches!(end, End::Menu | End::Type1) {
            f.file(&format!("EFI/BOOT/{}", arch.removable_loader()), loader(arch, loader_version));
        }
        if let Some((directory, _)) = &place {
            if end == End::Type1 {
                f.directory(directory);
            }
            for (name, image) in &aside {
                if random.chance(35) {
                    f.gap(directory, 1 + random.below(7));
                }
                f.file(&format!("{directory}/{name}"), image.bytes.clone());
            }
        }
        if let Some(text) = &loader_conf {
            f.file("loader/loader.conf", text.clone());
        }
        for file in &type1 {
            f.file(&format!("loader/entries/{}", file.name), file.text.clone());
        }
        f.file("EFI/tool.efi", random.bytes(300));
        f.file("loader/keys/db.auth", random.bytes(700));
        // Room in the directory is where names were deleted, between the names and behind them.
        for (name, image) in &images {
            if random.chance(35) {
                f.gap(LINUX, 1 + random.below(7));
            }
            if random.chance(10) {
                let until = random.below(16);
                f.pad(LINUX, |used| used % 16 == until);
            }
            let attributes = if random.chance(5) { READ_ONLY } else { ARCHIVE };
            f.file_with(&format!("{LINUX}/{name}"), image.bytes.clone(), attributes);
        }
        if random.chance(4) {
            oddities.push("not unmounted");
            f.dirty();
        }
        if random.chance(4) && shape.width == Width::Fat32 {
            oddities.push("FSInfo says nothing");
            f.unknown_free();
        }
        if random.chance(25) {
            let (slots, left) = ((shape.cluster / 32) as usize, random.below(8));
            f.pad(LINUX, |used| (used + left) % slots == 0);
        }
        if random.chance(15) {
            let (whole, left) = (if shape.width == Width::Fat32 { shape.cluster / 32 } else { 128 }, random.below(4));
            f.pad("", |used| (used + left) % whole as usize == 0);
        }
        let room = |f: &Formatter| shape.width == Width::Fat32 || f.slots("") < 120;
        if random.chance(4) && room(&f) {
            oddities.push("a lost chain that begins with MZ");
            f.lost(&[&b"MZ"[..], &random.bytes(1500)].concat());
        }
        if random.chance(2) && room(&f) {
            oddities.push("a user's directory BOOTSURG.TXN");
            f.directory("BOOTSURG.TXN");
            f.file("BOOTSURG.TXN/NOTES.TXT", random.bytes(600));
        } else if random.chance(2) && room(&f) {
            oddities.push("a user's file BOOTSURG.TXN");
            f.file("BOOTSURG.TXN", random.bytes(200));
        }
        if random.chance(25) {
            let image = 1 + 2600 / shape.cluster;
            shape.free = Some(image + random.below(12) as u32);
        }
        f.keep_free(shape.free);
        let frame = f.finish(random);
        let geometry = Geometry::read(&frame).expect("a volume of our own making");
        let images = images.into_iter().chain(aside).collect();
        Self { shape, frame, geometry, arch, loader_version, loader_conf, type1, variables, end, esp, images, oddities }
    }

    /// The directory of the image that the way is drawn to end in.
    pub fn directory(&self) -> &'static str {
        match self.end {
            End::Menu | End::Xbootldr => LINUX,
            End::Direct => "EFI/BOOT",
            End::Type1 => TYPE1_DIRECTORY,
        }
    }

    /// Whether an operation may have business with a path.
    pub fn is_inside(&self, path: &str) -> bool {
        [LINUX, self.directory()].iter().any(|d| path.strip_prefix(d).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The sort of volume, for tables.
    pub fn class(&self) -> String {
        let s = self.shape;
        let sort = if s.active.is_some() { "/one" } else { "" };
        format!("{:?}/{}{sort}", s.width, s.sector)
    }

    /// For a person who has to find out what went wrong.
    pub fn describe(&self) -> String {
        let (shape, end) = (self.shape.describe(), self.end);
        let mut text = format!("{shape}, {:?}, {end:?}, systemd-boot {}\n", self.arch, self.loader_version);
        for (name, image) in &self.images {
            let version = image.version.as_deref().unwrap_or("no version");
            let _ = writeln!(text, "    {name}: {version}, {}, {} bytes", image.what, image.bytes.len());
        }
        if let Some(conf) = &self.loader_conf {
            let _ = writeln!(text, "    loader.conf: {:?}", String::from_utf8_lossy(conf));
        }
        for file in &self.type1 {
            let _ = writeln!(text, "    loader/entries/{}: {:?}", file.name, String::from_utf8_lossy(&file.text));
        }
        let v = &self.variables;
        for (name, data) in [
            ("LoaderEntryDefault", &v.default),
            ("LoaderEntryOneShot", &v.oneshot),
            ("LoaderEntryPreferred", &v.preferred),
            ("LoaderEntryLastBooted", &v.last_booted),
            ("LoaderEntrySelected", &v.selected),
        ] {
            if let Some(data) = data {
                let units: Vec<u16> = data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
                let _ = writeln!(text, "    {name} = {:?}", String::from_utf16_lossy(&units));
            }
        }
        self.oddities.iter().for_each(|what| text.push_str(&format!("    {what}\n")));
        text
    }
}

const TYPE1_DIRECTORY: &str = "EFI/kairos";

/// An image in a place of its own, and what lies beside it.
fn draw_place(random: &mut Random, arch: Arch, name: &str) -> Vec<(String, Image)> {
    let version = random.pick(&VERSIONS);
    let mut files = vec![(name.to_owned(), Image::sound(random, arch, version))];
    for _ in 0..random.pick(&[0, 1, 1, 2, 3]) {
        let version = random.pick(&VERSIONS);
        let kind = random.pick(&["bak", "bak", "disabled"]);
        let name = format!("{name}.{kind}.{}", 1_699_000_000 + random.below(999_999));
        add(&mut files, name, Image::sound(random, arch, version));
    }
    files
}

/// An entry that starts the image in a place of its own, before most others.
fn winning_entry(random: &mut Random) -> Type1File {
    let key = random.pick(&["efi", "efi", "efi", "uki"]);
    let text = format!(
        "title Kairos\nsort-key {}\nversion v9\n{key} /{TYPE1_DIRECTORY}/active.efi\n",
        random.pick(&["a", "a", "zz"])
    );
    Type1File { name: "active.conf".to_owned(), is_dir: false, text: text.into_bytes() }
}

/// An ESP beside an Extended Boot Loader Partition.
fn draw_esp(random: &mut Random, arch: Arch, version: &str, conf: Option<&Vec<u8>>) -> (Frame, Vec<(String, Image)>) {
    let mut f = Formatter::new(Shape::usual(Width::Fat16, 512, 512));
    for directory in ["EFI", "EFI/BOOT", LINUX, "loader"] {
        f.directory(directory);
    }
    f.file(&format!("EFI/BOOT/{}", arch.removable_loader()), loader(arch, version));
    if let Some(conf) = conf {
        f.file("loader/loader.conf", conf.clone());
    }
    let mut images = Vec::new();
    if random.chance(50) {
        let version = random.pick(&VERSIONS);
        images.push((format!("Talos-{version}.efi"), Image::sound(random, arch, version)));
    }
    for (name, image) in &images {
        f.file(&format!("{LINUX}/{name}"), image.bytes.clone());
    }
    (f.finish(random), images)
}

fn draw_shape(random: &mut Random) -> Shape {
    let width = random.pick(&[Width::Fat12, Width::Fat16, Width::Fat32, Width::Fat32]);
    let sector = if random.chance(20) { 4096 } else { 512 };
    let most = if sector == 4096 || width == Width::Fat16 { 2 } else { 8 };
    let cluster = sector * random.pick(&[1, 1, 1, 2, 2, 4, 8]).min(most);
    let clusters = match width {
        Width::Fat12 => 250 + random.below(600),
        Width::Fat16 => 4085 + random.below(300),
        Width::Fat32 => 250 + random.below(900),
    } as u32;
    let active = (width == Width::Fat32 && random.chance(15)).then(|| random.below(2) as u8);
    let copies = if active.is_none() && random.chance(8) { 1 } else { 2 };
    Shape {
        clusters,
        copies,
        active,
        fragmented: false,
        free: None,
        room: Room::Ample,
        ..Shape::usual(width, sector, cluster)
    }
}

/// Names and images, in the order of the directory.
fn draw_menu(random: &mut Random, arch: Arch, sector: u32) -> Vec<(String, Image)> {
    let mut files: Vec<(String, Image)> = Vec::new();
    let wanted = random.pick(&[1, 2, 2, 3, 3, 4, 5]);
    let most = longest(sector);
    let family = random.pick(&VERSIONS);
    while files.len() < wanted {
        // Menus of one version and its duplicates are what a failed upgrade leaves.
        let version = if random.chance(50) { family } else { random.pick(&VERSIONS) };
        let suffix = random.pick(&["", "", "", "", "~1", "~1", "~2", "~10", "+3", "+2-1", "+0", "-dirty"]);
        let extension = random.pick(&[".efi", ".efi", ".efi", ".efi", ".EFI"]);
        let mut name = format!("{}{version}{suffix}{extension}", random.pick(&["Talos-", "Talos-", "talos-", "X-"]));
        if random.chance(6) {
            name = random.pick(&["Talos.efi", "TALOS.EFI", "zz.efi"]).to_owned();
        }
        if random.chance(8) {
            let n = most.saturating_sub(name.len() + random.pick(&[0, 10, 15, 20, 25, 60]));
            name.insert_str(0, &"A-long-name-".repeat(25)[..n]);
        }
        let inside = if random.chance(10) { random.pick(&VERSIONS) } else { version };
        add(&mut files, name, Image::any(random, arch, inside));
    }
    if random.chance(6) {
        // Somebody copied the image that is there.
        let copy = files[random.below(files.len())].1.clone();
        add(&mut files, format!("Talos-{family}~3.efi"), copy);
    }
    for _ in 0..random.pick(&[0, 0, 1, 1, 2, 3]) {
        let version = if random.chance(40) { family } else { random.pick(&VERSIONS) };
        let named = if random.chance(80) { version } else { random.pick(&VERSIONS) };
        let kind = random.pick(&["bak", "bak", "bak", "disabled"]);
        let tail = random.pick(&["", "", "~1"]);
        let name = format!("Talos-{named}{tail}.efi.{kind}.{}", 1_699_000_000 + random.below(999_999));
        add(&mut files, name, Image::sound(random, arch, version));
    }
    if random.chance(10) {
        let image = Image { bytes: random.bytes(90), version: None, starts: false, what: "a text" };
        add(&mut files, "README.txt".to_owned(), image);
    }
    for i in (1..files.len()).rev() {
        files.swap(i, random.below(i + 1));
    }
    files
}

fn add(files: &mut Vec<(String, Image)>, name: String, image: Image) {
    if !files.iter().any(|(n, _)| n.eq_ignore_ascii_case(&name)) {
        files.push((name, image));
    }
}

/// Letters of the longest name whose slots stand in one sector.
pub fn longest(sector: u32) -> usize {
    ((sector as usize / 32 - 1) * 13).min(255)
}

/// What somebody might ask for: an entry, several, one that is gone.
fn pattern(random: &mut Random, menu: &[&str]) -> String {
    let name = random.pick(menu).to_ascii_lowercase();
    match random.below(10) {
        0 => "gone.efi".to_owned(),
        1 => "talos-*".to_owned(),
        2 => format!("*{}", name.chars().skip(6).collect::<String>()),
        3 => "@saved".to_owned(),
        4 => "*~1.efi".to_owned(),
        _ => name,
    }
}

fn draw_loader_conf(random: &mut Random, menu: &[&str]) -> Vec<u8> {
    let mut text = "timeout 10\n".to_owned();
    if random.chance(45) {
        let _ = writeln!(text, "default {}", pattern(random, menu));
    }
    if random.chance(10) {
        let _ = writeln!(text, "preferred {}", pattern(random, menu));
    }
    text.into_bytes()
}

fn draw_type1(random: &mut Random, menu: &[&str]) -> Vec<Type1File> {
    let mut files: Vec<Type1File> = Vec::new();
    for _ in 0..random.pick(&[0, 0, 0, 0, 0, 1, 1, 2]) {
        let name = random.pick(&["tool.conf", "aaa.conf", "Zed+2.conf", "talos.conf"]).to_owned();
        let path = match random.below(5) {
            0 => "/gone.efi".to_owned(),
            1 | 2 => format!("/EFI/Linux/{}", random.pick(menu)),
            _ => "/EFI/tool.efi".to_owned(),
        };
        let lines = [
            "title Tool".to_owned(),
            random.pick(&["", "sort-key aaa", "sort-key talos", "sort-key zzz"]).to_owned(),
            random.pick(&["", "version v9", "version v1.12.4"]).to_owned(),
            format!("efi {path}"),
        ];
        let text = lines.iter().filter(|l| !l.is_empty()).fold(String::new(), |all, l| all + l + "\n");
        if files.iter().all(|f| f.name != name) {
            files.push(Type1File { name, is_dir: false, text: text.into_bytes() });
        }
    }
    files
}

fn draw_variables(random: &mut Random, menu: &[&str]) -> Variables {
    let mut say = |percent: usize| random.chance(percent).then(|| encode(&pattern(random, menu)));
    let (default, oneshot, preferred, last_booted) = (say(30), say(10), say(8), say(25));
    let selected = random.chance(50).then(|| encode(&random.pick(menu).to_ascii_lowercase()));
    Variables { default, oneshot, preferred, last_booted, selected, ..Variables::default() }
}

/// Text as a variable holds it.
fn encode(text: &str) -> Vec<u8> {
    text.encode_utf16().chain(Some(0)).flat_map(u16::to_le_bytes).collect()
}
