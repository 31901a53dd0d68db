use super::*;
use crate::boot::{Loader, LoaderVersion};
use crate::disk::PartUuid;
use crate::efivars::EfiVars;
use crate::pe::Arch;
use std::collections::BTreeMap;
use uuid::Uuid;

const ESP: Uuid = uuid::uuid!("d1e6a7b4-0001-4c11-8e55-0123456789ab");
const OTHER: Uuid = uuid::uuid!("d1e6a7b4-0002-4c11-8e55-0123456789ab");
const DATA: Uuid = uuid::uuid!("d1e6a7b4-0003-4c11-8e55-0123456789ab");
const ELSEWHERE: Uuid = uuid::uuid!("d1e6a7b4-0009-4c11-8e55-0123456789ab");
const REMOVABLE: &str = "\\EFI\\BOOT\\BOOTAA64.EFI";

/// Two volumes with programs, and a partition that holds none.
struct Disk {
    list: Vec<BootVolume>,
    programs: BTreeMap<(usize, String), ProgramKind>,
    complete: bool,
    is_uboot: bool,
}

impl Disk {
    fn new(programs: &[(usize, &str, ProgramKind)]) -> Self {
        let volume = |number: u32, uuid| BootVolume {
            name: format!("partition {number}"),
            partuuid: Some(PartUuid::Gpt(uuid)),
            place: Some((number, 2048, 4096)),
        };
        let programs = programs.iter().map(|(v, path, kind)| ((*v, (*path).to_lowercase()), kind.clone())).collect();
        Self { list: vec![volume(1, ESP), volume(2, OTHER)], programs, complete: false, is_uboot: false }
    }

    fn way(&self, options: &BootOptions, scenario: BootScenario) -> Way {
        Way::follow(options, scenario, self)
    }
}

impl Volumes for Disk {
    fn list(&self) -> &[BootVolume] {
        &self.list
    }
    fn unseen(&self, partuuid: PartUuid) -> Option<Unseen<'_>> {
        (partuuid == PartUuid::Gpt(DATA)).then_some(Unseen::Empty)
    }
    fn complete(&self) -> bool {
        self.complete
    }
    fn arch(&self) -> Arch {
        Arch::Arm64
    }
    fn is_uboot(&self) -> bool {
        self.is_uboot
    }
    fn program(&self, at: &Located) -> Result<Option<Program>, String> {
        let kind = self.programs.get(&(at.volume, at.path.to_lowercase())).cloned();
        Ok(kind.map(|kind| Program { kind, version: None, evidence: "test".into(), machine: 0xAA64 }))
    }
    fn is_file(&self, at: &Located) -> bool {
        self.programs.contains_key(&(at.volume, at.path.to_lowercase()))
    }
}

fn systemd_boot() -> ProgramKind {
    ProgramKind::SystemdBoot(Loader { version: LoaderVersion::parse("257.9").unwrap(), machine: 0xAA64 })
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn node(kind: u8, subkind: u8, data: &[u8]) -> Vec<u8> {
    [&[kind, subkind][..], &(data.len() as u16 + 4).to_le_bytes(), data].concat()
}

fn drive(number: u32, start: u64, sectors: u64, uuid: Uuid) -> Vec<u8> {
    let place = [&number.to_le_bytes()[..], &start.to_le_bytes(), &sectors.to_le_bytes()].concat();
    node(4, 1, &[&place[..], &uuid.to_bytes_le(), &[2, 2]].concat())
}

fn file(path: &str) -> Vec<u8> {
    node(4, 4, &utf16(path))
}

/// A load option of these nodes.
fn option(attributes: u32, nodes: &[Vec<u8>], optional: &[u8]) -> Vec<u8> {
    let path = [nodes.concat(), node(0x7F, 0xFF, &[])].concat();
    [&attributes.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &utf16("text"), &path, optional].concat()
}

fn on(uuid: Uuid, path: &str) -> Vec<u8> {
    option(1, &[drive(if uuid == OTHER { 2 } else { 1 }, 2048, 4096, uuid), file(path)], b"")
}

/// Variables with these boot options in this order.
fn options(all: &[(u16, Vec<u8>)], order: &[u16], next: Option<u16>) -> BootOptions {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: String, data: &[u8]| {
        let path = dir.path().join(format!("{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c"));
        std::fs::write(path, [&[7, 0, 0, 0], data].concat()).unwrap();
    };
    for (number, bytes) in all {
        write(format!("Boot{number:04X}"), bytes);
    }
    write("BootOrder".into(), &order.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
    if let Some(next) = next {
        write("BootNext".into(), &next.to_le_bytes());
    }
    BootOptions::read(&EfiVars::open(Some(dir.path())))
}

fn at(volume: usize, path: &str) -> Located {
    Located { volume, path: path.to_owned() }
}

fn menu_at(way: &Way) -> Option<&Located> {
    match &way.end {
        End::Menu { at, .. } => Some(at),
        _ => None,
    }
}

#[test]
fn boot_order_is_followed_past_what_leads_nowhere() {
    let disk =
        Disk::new(&[(0, REMOVABLE, systemd_boot()), (1, "\\EFI\\systemd\\systemd-bootaa64.efi", systemd_boot())]);
    let all = [
        (1, on(ESP, "\\gone.efi")),
        (2, on(DATA, "\\x.efi")),
        (3, option(0, &[drive(1, 2048, 4096, ESP), file(REMOVABLE)], b"")), // inactive
        (4, option(0x101, &[drive(1, 2048, 4096, ESP), file(REMOVABLE)], b"")), // an application
        (5, option(1, &[drive(2, 9, 9, OTHER), file("\\EFI\\systemd\\systemd-bootaa64.efi")], b"")),
        (6, on(ESP, REMOVABLE)),
    ];
    let list = options(&all, &[1, 2, 3, 4, 5, 6], None);
    let way = disk.way(&list, BootScenario::Next);
    assert_eq!(menu_at(&way), Some(&at(1, "\\EFI\\systemd\\systemd-bootaa64.efi")));
    assert_eq!((way.steps[0].certainty, way.passed_over.len()), (Certainty::Known, 2), "{way:?}");
    assert_eq!(way.by, FirmwareStart::Option("Boot0005".into()));
    assert!(way.passed_over[0].contains("gone.efi on partition 1"), "{:?}", way.passed_over);
    assert!(way.passed_over[1].contains("no file system"), "{:?}", way.passed_over);
    // Without variables it is the removable-media path.
    let reset = disk.way(&list, BootScenario::Reset);
    assert_eq!((menu_at(&reset), &reset.by), (Some(&at(0, REMOVABLE)), &FirmwareStart::RemovableMedia));
    assert_eq!(reset.steps[0].certainty, Certainty::Default);
}

#[test]
fn boot_next_counts_once_and_even_where_it_is_inactive() {
    let disk = Disk::new(&[(0, REMOVABLE, systemd_boot()), (1, REMOVABLE, ProgramKind::Grub)]);
    let all = [(1, on(ESP, REMOVABLE)), (2, option(0, &[drive(2, 2048, 4096, OTHER), file(REMOVABLE)], b""))];
    let list = options(&all, &[1], Some(2));
    assert_eq!(disk.way(&list, BootScenario::Next).end, End::Other("GRUB".into()));
    assert_eq!(menu_at(&disk.way(&list, BootScenario::Later)), Some(&at(0, REMOVABLE)));
}

/// Found with OVMF, which started the first loader of the disk as the option of that number.
#[test]
fn a_boot_next_without_its_option_leaves_the_next_start_in_doubt() {
    let disk = Disk::new(&[(0, REMOVABLE, systemd_boot())]);
    let list = options(&[(3, on(ESP, REMOVABLE))], &[3], Some(4));
    for (scenario, certainty) in [(BootScenario::Next, Certainty::Unknown), (BootScenario::Later, Certainty::Known)] {
        let way = disk.way(&list, scenario);
        assert_eq!((way.steps[0].certainty, menu_at(&way)), (certainty, Some(&at(0, REMOVABLE))));
        assert_eq!(way.in_doubt.iter().any(|why| why.contains("Boot0004")), scenario == BootScenario::Next);
    }
}

#[test]
fn what_cannot_be_looked_at_makes_the_rest_unsure() {
    let mut disk = Disk::new(&[(0, REMOVABLE, systemd_boot())]);
    let pci = node(1, 1, &[0, 0]);
    for (first, why) in [
        (on(ELSEWHERE, REMOVABLE), "not here"),
        (option(1, &[pci.clone(), node(3, 23, &[0; 12])], b""), "where it is attached"),
        (option(1, &[pci.clone(), node(3, 11, &[0; 33]), node(3, 12, &[0; 23])], b""), "network"),
        (option(1, &[node(4, 7, &[0; 16]), node(4, 6, &[0; 16])], b""), "part of the firmware"),
        (option(1, &[file("\\somewhere.efi")], b""), "any volume"),
        (option(1, &[node(4, 1, &[0; 38])], b""), "which disk"),
    ] {
        let list = options(&[(1, first), (2, on(ESP, REMOVABLE))], &[1, 2], None);
        let way = disk.way(&list, BootScenario::Next);
        assert_eq!(menu_at(&way), Some(&at(0, REMOVABLE)));
        assert_eq!((way.steps[0].certainty, way.in_doubt.len()), (Certainty::Unknown, 1));
        assert!(way.in_doubt[0].contains(why), "{:?}", way.in_doubt);
    }
    // Where every disk of the machine is known, a partition that is on none is gone.
    disk.complete = true;
    let list = options(&[(1, on(ELSEWHERE, REMOVABLE)), (2, on(ESP, REMOVABLE))], &[1, 2], None);
    let way = disk.way(&list, BootScenario::Next);
    assert_eq!((way.in_doubt.len(), way.passed_over.len(), way.steps[0].certainty), (0, 1, Certainty::Known));
}

#[test]
fn a_path_without_a_disk_is_looked_for_on_every_volume() {
    let disk = Disk::new(&[(1, "\\x.efi", ProgramKind::Uki)]);
    let way = disk.way(&options(&[(1, option(1, &[file("x.efi")], b""))], &[1], None), BootScenario::Next);
    assert_eq!((way.end, way.steps[0].certainty), (End::Uki(at(1, "\\x.efi")), Certainty::Default));
}

#[test]
fn a_partition_alone_means_its_removable_media_path() {
    let disk = Disk::new(&[(1, REMOVABLE, systemd_boot())]);
    let list = options(&[(1, option(1, &[drive(2, 2048, 4096, OTHER)], b""))], &[1], None);
    assert_eq!(menu_at(&disk.way(&list, BootScenario::Next)), Some(&at(1, REMOVABLE)));
}

#[test]
fn uboot_wants_the_partition_where_it_was() {
    let mut disk = Disk::new(&[(0, "\\x.efi", ProgramKind::Uki), (0, REMOVABLE, systemd_boot())]);
    let moved = options(&[(1, option(1, &[drive(1, 34, 4096, ESP), file("\\x.efi")], b""))], &[1], None);
    assert_eq!(disk.way(&moved, BootScenario::Next).end, End::Uki(at(0, "\\x.efi")));
    disk.is_uboot = true;
    let way = disk.way(&moved, BootScenario::Next);
    assert_eq!(menu_at(&way), Some(&at(0, REMOVABLE)));
    assert!(way.passed_over[0].contains("moved"), "{way:?}");
    let same = options(&[(1, option(1, &[drive(1, 2048, 4096, ESP), file("\\x.efi")], b""))], &[1], None);
    assert_eq!(disk.way(&same, BootScenario::Next).end, End::Uki(at(0, "\\x.efi")));
}

#[test]
fn the_only_medium_that_uboot_made_an_option_for_is_the_disk() {
    let made = uuid::uuid!("8108ac4e-9f11-4d59-850e-e21a522c59b2").to_bytes_le();
    let medium = |n| (n, option(1, &[node(1, 4, &[n as u8; 16])], &made));
    let mut disk = Disk::new(&[(0, REMOVABLE, systemd_boot())]);
    let certainty = |disk: &Disk, list: &BootOptions| {
        let way = disk.way(list, BootScenario::Next);
        assert_eq!(menu_at(&way), Some(&at(0, REMOVABLE)));
        way.steps[0].certainty
    };
    let (one, two) = (options(&[medium(0)], &[0], None), options(&[medium(0), medium(1)], &[0, 1], None));
    assert_eq!(certainty(&disk, &one), Certainty::Unknown);
    disk.is_uboot = true;
    assert_eq!(certainty(&disk, &one), Certainty::Default);
    assert_eq!(certainty(&disk, &two), Certainty::Unknown);
}

#[test]
fn mbr_disks_are_named_by_signature_and_number() {
    let mut disk = Disk::new(&[(0, "\\x.efi", ProgramKind::Uki)]);
    disk.list[0].partuuid = Some(PartUuid::Mbr { signature: 0x1234_5678, number: 1 });
    let mut data = [&1_u32.to_le_bytes()[..], &[0; 16], &0x1234_5678_u32.to_le_bytes(), &[0; 12], &[1, 1]].concat();
    let list = options(&[(1, option(1, &[node(4, 1, &data), file("\\x.efi")], b""))], &[1], None);
    assert_eq!(list.options[0].target.path, "HD(1,MBR,0x12345678)/\\x.efi");
    assert_eq!(disk.way(&list, BootScenario::Next).end, End::Uki(at(0, "\\x.efi")));
    data[0] = 2;
    let list = options(&[(1, option(1, &[node(4, 1, &data), file("\\x.efi")], b""))], &[1], None);
    assert_eq!(disk.way(&list, BootScenario::Next).in_doubt.len(), 1);
}

#[test]
fn shim_is_followed_to_what_it_starts_whatever_that_is() {
    let shim = |path| (0, path, ProgramKind::Shim);
    let by_shim = "\\EFI\\BOOT\\grubaa64.efi";
    for (second, end) in [
        (ProgramKind::Grub, End::Other("GRUB".into())),
        (systemd_boot(), End::Menu { loader: loader(), at: at(0, by_shim) }),
        (ProgramKind::Uki, End::Uki(at(0, by_shim))),
    ] {
        let disk = Disk::new(&[shim(REMOVABLE), (0, by_shim, second)]);
        let way = disk.way(&BootOptions::default(), BootScenario::Next);
        assert_eq!(way.end, end);
        assert_eq!(way.steps.iter().filter(|s| s.step == StepKind::Program).count(), 2);
    }
    let alone = Disk::new(&[shim(REMOVABLE)]).way(&BootOptions::default(), BootScenario::Next);
    assert!(matches!(alone.end, End::Nothing(_)), "{alone:?}");
    let twice = Disk::new(&[shim(REMOVABLE), shim(by_shim)]).way(&BootOptions::default(), BootScenario::Next);
    assert!(matches!(twice.end, End::Unknown(_)), "{twice:?}");
    // From EFI/BOOT its fallback comes first.
    let fallback =
        [shim(REMOVABLE), (0, by_shim, systemd_boot()), (0, "\\EFI\\BOOT\\fbaa64.efi", ProgramKind::ShimHelper)];
    assert!(matches!(Disk::new(&fallback).way(&BootOptions::default(), BootScenario::Next).end, End::Unknown(_)));
    // A boot option names the second stage.
    let disk = Disk::new(&[shim("\\EFI\\x\\shimaa64.efi"), (0, "\\EFI\\x\\sd.efi", systemd_boot())]);
    let path = [drive(1, 2048, 4096, ESP), file("\\EFI\\x\\shimaa64.efi")];
    for named in ["sd.efi", "\\EFI\\x\\sd.efi", "sd.efi "] {
        let list = options(&[(1, option(1, &path, &utf16(named)))], &[1], None);
        assert_eq!(menu_at(&disk.way(&list, BootScenario::Next)), Some(&at(0, "\\EFI\\x\\sd.efi")), "{named}");
    }
    // And where it names a file that is not there, shim takes the usual one.
    let usual = (0, "\\EFI\\x\\grubaa64.efi", ProgramKind::Grub);
    let disk = Disk::new(&[shim("\\EFI\\x\\shimaa64.efi"), usual, (0, "\\EFI\\x\\sd.efi", systemd_boot())]);
    for (named, starts_usual) in [("gone.efi", true), ("\\EFI\\Linux\\Talos-v1.12.4.efi", true), ("sd.efi", false)] {
        let list = options(&[(1, option(1, &path, &utf16(named)))], &[1], None);
        let end = disk.way(&list, BootScenario::Next).end;
        assert_eq!(end == End::Other("GRUB".into()), starts_usual, "{named}: {end:?}");
    }
}

fn loader() -> Loader {
    Loader { version: LoaderVersion::parse("257.9").unwrap(), machine: 0xAA64 }
}

#[test]
fn what_is_no_systemd_boot_ends_the_way() {
    for (kind, end) in [
        (ProgramKind::Windows, End::Other("Windows' boot manager".into())),
        (ProgramKind::Kernel, End::Other("a Linux kernel".into())),
    ] {
        assert_eq!(Disk::new(&[(0, REMOVABLE, kind)]).way(&BootOptions::default(), BootScenario::Next).end, end);
    }
    let unknown = Disk::new(&[(0, REMOVABLE, ProgramKind::Unknown)]).way(&BootOptions::default(), BootScenario::Next);
    assert!(matches!(unknown.end, End::Unknown(_)));
    let nothing = Disk::new(&[]).way(&BootOptions::default(), BootScenario::Next);
    assert!(matches!(nothing.end, End::Nothing(_)));
    assert_eq!(nothing.steps[0].what, "nothing");
}

#[cfg(feature = "testkit")]
#[test]
fn programs_are_told_by_what_is_in_them() {
    use crate::testkit::uki::Builder;
    let image = |sections: &[(&str, &[u8])]| {
        sections.iter().fold(Builder::new(Arch::Amd64), |image, (name, data)| image.section(name, *data)).build()
    };
    let sbat = |name: &str, version: &str| {
        format!("sbat,1,SBAT Version,sbat,1,https://x\n{name},4,Vendor,package,{version},https://y\n").into_bytes()
    };
    let (shim, grub, refind) = (sbat("shim", "1"), sbat("grub.debian", "2.06-13"), sbat("refind", "0.14"));
    let utf16_text = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (windows, refind_old) = (utf16_text("xxbootmgr.exe"), utf16_text("rEFInd"));
    let mut setup = image(&[(".text", b"x")]);
    setup[0x202..0x206].copy_from_slice(b"HdrS");
    for (bytes, what) in [
        (image(&[(".sdmagic", b"#### LoaderInfo: systemd-boot 257.9-talos ####")]), "systemd-boot 257.9-talos"),
        (image(&[(".osrel", b"ID=x"), (".linux", b"k")]), "a UKI"),
        (image(&[(".osrel", b"ID=x"), (".cmdline", b"k")]), "an addon without a kernel"),
        (image(&[(".sbat", &shim), (".vendor_cert", b"c")]), "shim 1"),
        (image(&[(".sbat", &shim)]), "a helper of shim 1"),
        (image(&[(".sbat", &grub)]), "GRUB 2.06-13"),
        (image(&[("mods", b"m")]), "GRUB"),
        (image(&[(".sbat", &refind)]), "rEFInd 0.14"),
        (image(&[(".data", &refind_old)]), "rEFInd"),
        (image(&[(".rsrc", &windows)]), "Windows' boot manager"),
        (image(&[(".data", b"xLimine 9.2")]), "Limine"),
        (setup, "a Linux kernel"),
        (image(&[(".text", b"code")]), "an unknown program"),
    ] {
        assert_eq!(Program::recognise(&bytes).unwrap().to_string(), what);
    }
    for none in [Vec::new(), b"MZ".to_vec(), vec![0; 4096]] {
        assert!(Program::recognise(&none).is_err());
    }
    // Every cut and every byte changed: no panic.
    let whole = image(&[(".sbat", &grub), (".text", b"x")]);
    for len in 0..whole.len().min(1200) {
        let _ = Program::recognise(&whole[..len].to_vec());
    }
    for at in 0..1024 {
        for byte in [0, 1, 0x7F, 0xFF] {
            let mut bad = whole.clone();
            bad[at] = byte;
            let _ = Program::recognise(&bad);
        }
    }
}

/// A partition that got another number (`sgdisk --sort`): real firmware (EDK II under QEMU) passes such an option over.
#[test]
fn issue13_an_option_that_has_another_number_for_the_partition_is_passed_over() {
    let disk = Disk::new(&[(0, "\\EFI\\x.efi", systemd_boot()), (0, REMOVABLE, systemd_boot())]);
    for number in 0..4u32 {
        let all = [(1, option(1, &[drive(number, 2048, 4096, ESP), file("\\EFI\\x.efi")], b""))];
        let mut list = options(&all, &[1], None);
        let way = disk.way(&list, BootScenario::Next);
        let starts = if number == 1 { "\\EFI\\x.efi" } else { REMOVABLE };
        assert_eq!(menu_at(&way), Some(&at(0, starts)), "{number}: {way:?}");
        list.check(&disk);
        assert_eq!(list.options[0].found, Some(number == 1), "{number}");
        let said = list.options[0].problem.clone().unwrap_or_default();
        assert_eq!(said.contains(&format!("is number {number}, which it is not")), number != 1, "{said}");
    }
}
