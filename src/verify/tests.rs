#![allow(clippy::unwrap_used)] // statics are not seen to be tests

use super::*;
use crate::authenticode::{DigestSink, parse_table};
use crate::block::Sink;
use crate::pcr::{EntryOutcome, PcrSignature, SignedPolicy, TALOS_PHASES, path};
use crate::pe::Head;
use crate::testkit::pe::pe;
use crate::testkit::signing::{SigningKey, sign_pe};
use crate::trust::{AnchorOrigin, Dbx};
use std::sync::LazyLock;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::test("factory").unwrap());
static OTHER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::other_test("stranger").unwrap());
static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| sign_pe(unsigned(), &KEY).unwrap());

const ID: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

fn unsigned() -> Vec<u8> {
    pe(&[(".linux", &[1; 900], 0)])
}

fn pcr(outcome: EntryOutcome) -> ProfilePcr {
    let policy = SignedPolicy { bank: "sha256".into(), pcrs: vec![11], reference: None, outcome };
    ProfilePcr::Checked(PcrSignature { key: "k".into(), policies: vec![policy] })
}

fn fits() -> EntryOutcome {
    EntryOutcome::Verified { phases: path(&TALOS_PHASES), alternative: 0 }
}

fn facts(file: &[u8]) -> ImageFacts {
    let mut sink = DigestSink::new(&Head::read(&file.to_vec()).unwrap()).unwrap();
    sink.chunk(file).unwrap();
    let digest = sink.finish().unwrap();
    ImageFacts {
        sha256: Some([7; 32]),
        bytes: file.len() as u64,
        family: crate::uki::Family::Talos,
        pe_problems: vec![],
        section_problems: vec![],
        section_warnings: vec![],
        arch: Some(Arch::Arm64),
        version: Some("v1.12.4".into()),
        contradictions: vec![],
        signatures: parse_table(&digest.certificate_table).map_err(|e| e.to_string()),
        digest: Ok(digest),
        sbat: Ok(Some(Sbat::parse(b"sbat,1,x\nsystemd-stub,1,y\n").unwrap())),
        pcrpkey: Some(KEY.public_key_pem().unwrap().into_bytes()),
        profiles: vec![ProfileFacts {
            index: 0,
            id: Some("main".into()),
            cmdline: "console=ttyS0 talos.platform=metal".into(),
            pcr: pcr(fits()),
            by_hardware: 0,
        }],
        initrd: InitrdFacts::Read("2 archives".into()),
        schematic: Some(SchematicFacts { id: ID.into(), id_matches: Some(true), yaml: String::new(), factory: None }),
        extensions: vec![ExtensionFacts { name: "tailscale".into(), version: "1.90.6".into() }],
        waiting_services: vec![],
        services: Some(vec![]),
        damaged_images: vec![],
        unread_services: vec![],
        pointed: Ok(vec![]),
        host: Host { stub: Some(257), machine: 0xAA64, uname: None },
        companions: Ok(vec![]),
    }
}

fn anchor(key: &SigningKey) -> Anchor {
    Anchor { origin: AnchorOrigin::CertFile("factory.pem".into()), certificate: key.certificate().unwrap() }
}

/// A policy that asks for everything, and gets it from `facts(&SIGNED)`.
fn policy() -> Policy {
    Policy {
        anchors: vec![anchor(&KEY)],
        firmware: Firmware {
            secure_boot: Some(true),
            db: Some(vec![KEY.certificate().unwrap()]),
            dbx: Some(Dbx::default()),
            ..Firmware::default()
        },
        firmware_is_the_boards: true,
        schematic: Some(ID.to_uppercase()),
        version: Some("1.12.4".into()),
        arch: Some(Arch::Arm64),
        required_extensions: vec!["siderolabs/tailscale".into()],
        installed: Some(InstalledFacts {
            pcrpkey: Some(KEY.public_key_pem().unwrap().into_bytes()),
            arch: Some(Arch::Arm64),
            cmdline: Some("talos.platform=metal console=ttyS0".into()),
            version: Some("v1.12.3".into()),
            signed: true,
            pcrsig: true,
            signatures: facts(&SIGNED).signatures.unwrap(),
            host: Host { stub: Some(257), machine: 0xAA64, uname: None },
            companions: vec![],
            contents: None,
        }),
        ..Policy::default()
    }
}

/// The statuses that are not `pass`, with their details.
fn unusual(facts: &ImageFacts, policy: &Policy) -> Vec<(CheckId, CheckStatus, String)> {
    let report = verify(facts, policy);
    assert_eq!(report.checks.len(), 15);
    assert_eq!(report.verdict == Verdict::Reject, report.checks.iter().any(|c| c.status == CheckStatus::Fail));
    let unusual = report.checks.into_iter().filter(|c| c.status != CheckStatus::Pass);
    unusual.map(|c| (c.id, c.status, c.detail)).collect()
}

#[test]
fn a_good_image_passes_every_check() {
    assert_eq!(unusual(&facts(&SIGNED), &policy()), []);
    assert_eq!(verify(&facts(&SIGNED), &policy()).firmware_refuses, None);
}

#[test]
fn one_thing_wrong_is_one_check_that_says_so() {
    type Change = fn(&mut ImageFacts, &mut Policy);
    use CheckId as C;
    use CheckStatus::{Fail, Skip, Warn};
    let cases: &[(&str, C, CheckStatus, Change)] = &[
        ("damaged", C::Pe, Fail, |f, _| f.pe_problems.push("damaged".into())),
        (".linux", C::Sections, Fail, |f, _| f.section_problems.push("no .linux".into())),
        ("amd64 was requested", C::Arch, Fail, |_, p| p.arch = Some(Arch::Amd64)),
        ("amd64 is installed", C::Arch, Fail, |_, p| p.installed.as_mut().unwrap().arch = Some(Arch::Amd64)),
        ("neither", C::Arch, Fail, |f, _| f.arch = None),
        ("--arch", C::Arch, Skip, |_, p| {
            p.arch = None;
            p.installed.as_mut().unwrap().arch = None;
        }),
        ("v1.12.5 was requested", C::Version, Fail, |_, p| p.version = Some("v1.12.5".into())),
        ("--talos", C::Version, Skip, |_, p| p.version = None),
        ("states no version", C::Version, Fail, |f, _| f.version = None),
        ("contradicts itself", C::Version, Fail, |f, _| f.contradictions.push("the file name says v1.12.3".into())),
        ("the image itself", C::Revocation, Fail, |f, p| {
            p.firmware.dbx.as_mut().unwrap().images.push(f.digest.as_ref().unwrap().sha256);
        }),
        ("Secure Boot is off", C::Revocation, Warn, |f, p| {
            p.firmware.dbx.as_mut().unwrap().images.push(f.digest.as_ref().unwrap().sha256);
            p.firmware.secure_boot = Some(false);
        }),
        ("generation 1", C::Revocation, Fail, |_, p| p.sbat_level = Sbat::parse(b"systemd-stub,2").ok()),
        ("generation 1", C::Revocation, Fail, |_, p| p.firmware.sbat_level = Sbat::parse(b"systemd-stub,2").ok()),
        ("no such directory", C::Revocation, Skip, |_, p| {
            p.firmware.dbx = None;
            p.no_variables = Some("no such directory".into());
        }),
        ("changed after signing", C::PcrSignature, Fail, |f, _| f.profiles[0].pcr = pcr(EntryOutcome::OtherPolicy)),
        ("another key", C::PcrSignature, Fail, |f, _| f.profiles[0].pcr = pcr(EntryOutcome::OtherKey)),
        ("The installed UKI has one", C::PcrSignature, Fail, |f, _| f.profiles[0].pcr = ProfilePcr::Missing),
        ("if the board has such disks", C::PcrSignature, Warn, |f, p| {
            f.profiles[0].pcr = ProfilePcr::Missing;
            p.installed.as_mut().unwrap().pcrsig = false;
        }),
        ("--require-pcr-key was given", C::PcrSignature, Fail, |f, p| {
            f.profiles[0].pcr = ProfilePcr::Missing;
            p.installed.as_mut().unwrap().pcrsig = false;
            p.require_pcr_key = true;
        }),
        ("Talos unseals with", C::PcrSignature, Fail, |f, _| {
            f.profiles[0].pcr = pcr(EntryOutcome::Verified { phases: "enter-initrd".into(), alternative: 0 });
        }),
        ("the sha1 bank", C::PcrSignature, Skip, |f, _| {
            f.family = crate::uki::Family::Systemd;
            f.profiles[0].pcr = pcr(EntryOutcome::NotChecked("the sha1 bank was not computed".into()));
        }),
        ("for 1 of them", C::PcrSignature, Skip, |f, _| {
            f.family = crate::uki::Family::Systemd;
            f.profiles[0].by_hardware = 2;
            f.profiles[0].pcr = pcr(EntryOutcome::Verified { phases: String::new(), alternative: 2 });
        }),
        ("not JSON", C::PcrSignature, Fail, |f, _| f.profiles[0].pcr = ProfilePcr::Unusable("not JSON".into())),
        ("but the PCR signature of profile 1 (reset)", C::PcrSignature, Warn, |f, _| {
            f.profiles.push(ProfileFacts {
                index: 1,
                id: Some("reset".into()),
                cmdline: String::new(),
                pcr: ProfilePcr::Missing,
                by_hardware: 0,
            });
        }),
        ("would stay locked", C::PcrKey, Warn, |_, p| {
            p.installed.as_mut().unwrap().pcrpkey = Some(OTHER.public_key_pem().unwrap().into_bytes());
        }),
        ("would stay locked", C::PcrKey, Fail, |_, p| {
            p.require_pcr_key = true;
            p.installed.as_mut().unwrap().pcrpkey = Some(OTHER.public_key_pem().unwrap().into_bytes());
        }),
        ("cannot be read", C::PcrKey, Warn, |f, _| f.pcrpkey = Some(b"junk".to_vec())),
        ("has no PCR key, so", C::PcrKey, Skip, |_, p| p.installed.as_mut().unwrap().pcrpkey = None),
        ("no installed UKI", C::PcrKey, Skip, |_, p| p.installed = None),
        ("no installed UKI", C::PcrKey, Fail, |_, p| {
            p.installed = None;
            p.require_pcr_key = true;
        }),
        ("stay locked after the swap", C::Pcr7, Warn, |_, p| {
            p.firmware.db = None;
            let other = sign_pe(unsigned(), &OTHER).unwrap();
            p.installed.as_mut().unwrap().signatures = facts(&other).signatures.unwrap();
        }),
        ("by CN=stranger", C::Pcr7, Fail, |_, p| {
            p.require_pcr_key = true;
            p.firmware.db.as_mut().unwrap().push(OTHER.certificate().unwrap());
            let other = sign_pe(unsigned(), &OTHER).unwrap();
            p.installed.as_mut().unwrap().signatures = facts(&other).signatures.unwrap();
        }),
        ("not signed", C::Pcr7, Skip, |_, p| p.installed.as_mut().unwrap().signatures.clear()),
        ("another hash", C::Schematic, Fail, |f, _| f.schematic.as_mut().unwrap().id_matches = Some(false)),
        ("cannot be compared", C::Schematic, Warn, |f, _| f.schematic.as_mut().unwrap().id_matches = None),
        ("cannot be compared", C::Schematic, Skip, |f, p| {
            f.schematic.as_mut().unwrap().id_matches = None;
            p.schematic = None;
        }),
        ("25 sections", C::Sections, Warn, |f, _| f.section_warnings.push("more than 25 sections".into())),
        ("was requested", C::Schematic, Fail, |_, p| p.schematic = Some("00".into())),
        ("no schematic layer", C::Schematic, Fail, |f, _| f.schematic = None),
        ("no schematic layer", C::Schematic, Skip, |f, p| {
            f.schematic = None;
            p.schematic = None;
        }),
        ("siderolabs/i915", C::Extensions, Fail, |_, p| p.required_extensions.push("siderolabs/i915".into())),
        ("ext-tailscale waits", C::Extensions, Warn, |f, _| f.waiting_services.push("tailscale".into())),
        ("Whether a service of nvidia waits", C::Extensions, Warn, |f, _| {
            f.unread_services.push(("nvidia".into(), "lzo".into()));
        }),
        ("would not mount 0.sqsh (tailscale): it is cut", C::Extensions, Fail, |f, _| {
            f.damaged_images.push(("0.sqsh (tailscale)".into(), "it is cut".into()));
        }),
        ("would not mount rootfs.sqsh", C::Initrd, Fail, |f, _| {
            f.damaged_images.push(("rootfs.sqsh".into(), "it is cut".into()));
        }),
        ("lzo is not unpacked", C::Initrd, Skip, |f, _| {
            f.initrd = InitrdFacts::Unread("lzo is not unpacked here".into());
        }),
        ("does not start without", C::Initrd, Fail, |f, _| f.initrd = InitrdFacts::Absent),
        ("No extension was required", C::Extensions, Skip, |_, p| p.required_extensions.clear()),
        ("zstd", C::Initrd, Fail, |f, _| f.initrd = InitrdFacts::Bad("zstd: bad checksum".into())),
        ("metal-arm64-secureboot-uki.efi", C::Cmdline, Warn, |f, _| {
            f.profiles[0].cmdline += " talos.halt_if_installed=1";
        }),
        ("whose ID is then abc", C::Cmdline, Fail, |f, p| {
            f.profiles[0].cmdline += " talos.halt_if_installed=1";
            p.schematic_without_halt = Some("abc".into());
            p.refuse_halt = true;
        }),
        ("wipes the node", C::Cmdline, Fail, |f, _| f.profiles[0].cmdline += " talos.experimental.wipe=system"),
        ("talos.platform changes from metal to nocloud", C::Cmdline, Warn, |f, _| {
            f.profiles[0].cmdline = "talos.platform=nocloud console=ttyS0".into();
        }),
    ];
    for (text, id, status, change) in cases {
        let (mut facts, mut policy) = (facts(&SIGNED), policy());
        change(&mut facts, &mut policy);
        let mut found = unusual(&facts, &policy);
        // Whatever changes who has signed changes PCR 7 as well.
        found.retain(|(found, ..)| found == id || *found != C::Pcr7);
        let [(found_id, found_status, detail)] = &found[..] else { panic!("{text}: {found:?}") };
        assert_eq!((found_id, found_status), (id, status), "{text}: {detail}");
        assert!(detail.contains(text), "{text:?} is not in {detail:?}");
    }
}

#[test]
fn a_menu_entry_that_wipes_is_a_warning() {
    let mut f = facts(&SIGNED);
    f.profiles.push(ProfileFacts {
        index: 1,
        id: Some("reset".into()),
        cmdline: "talos.experimental.wipe=system".into(),
        pcr: pcr(fits()),
        by_hardware: 0,
    });
    let found = unusual(&f, &policy());
    assert!(
        matches!(&found[..], [(CheckId::Cmdline, CheckStatus::Warn, d)] if d.contains("profile 1 (reset)")),
        "{found:?}"
    );
}

#[test]
fn signature_problems_and_what_softens_them() {
    type Change = fn(&mut ImageFacts, &mut Policy);
    use CheckStatus::{Fail, Pass, Warn};
    let cases: &[(&str, CheckStatus, CheckStatus, Change)] = &[
        ("is not signed", Fail, Fail, |f, _| *f = facts(&unsigned())),
        ("changed after it was signed", Fail, Fail, |f, _| f.digest.as_mut().unwrap().sha256[0] ^= 1),
        ("cannot be read", Fail, Fail, |f, _| f.signatures = Err("bytes are left over".into())),
        ("cannot be computed", Fail, Fail, |f, _| f.digest = Err("sections overlap".into())),
        ("no trusted certificate to check it against", Pass, Fail, |_, p| p.anchors.clear()),
        ("CN=factory", Pass, Fail, |_, p| p.anchors = vec![anchor(&OTHER)]),
        ("refuse to start", Pass, Fail, |_, p| p.firmware.db = Some(vec![OTHER.certificate().unwrap()])),
        ("that matters if", Pass, Warn, |_, p| {
            p.firmware.db = Some(vec![OTHER.certificate().unwrap()]);
            p.firmware_is_the_boards = false;
        }),
        ("if it were on", Pass, Warn, |_, p| {
            p.firmware.db = Some(vec![OTHER.certificate().unwrap()]);
            p.firmware.secure_boot = Some(false);
        }),
    ];
    for (text, digest, signer, change) in cases {
        for allow in [false, true] {
            let (mut facts, mut policy) = (facts(&SIGNED), policy());
            policy.allow_untrusted = allow;
            policy.firmware.dbx = None;
            change(&mut facts, &mut policy);
            let report = verify(&facts, &policy);
            let soft = |s: CheckStatus| if allow && s == Fail { Warn } else { s };
            let check = |id| report.check(id).unwrap();
            let (d, s) = (check(CheckId::AuthenticodeDigest), check(CheckId::AuthenticodeSigner));
            assert_eq!((d.status, s.status), (soft(*digest), soft(*signer)), "{text}: {d:?} {s:?}");
            assert!(d.detail.contains(text) || s.detail.contains(text), "{text}: {d:?} {s:?}");
            assert_eq!(report.verdict == Verdict::Accept, allow || *signer != Fail, "{text}");
        }
    }
}

#[test]
fn a_board_that_would_refuse_is_told_whatever_is_allowed() {
    let mut policy = policy();
    policy.allow_untrusted = true;
    let report = verify(&facts(&unsigned()), &policy);
    assert_eq!(report.verdict, Verdict::Accept);
    assert!(report.firmware_refuses.unwrap().contains("Secure Boot is on"));
    policy.firmware.secure_boot = Some(false);
    assert_eq!(verify(&facts(&unsigned()), &policy).firmware_refuses, None);
}

#[test]
fn an_image_in_db_by_its_hash_needs_no_signature() {
    let (f, mut policy) = (facts(&unsigned()), policy());
    policy.firmware.db_images.push(f.digest.as_ref().unwrap().sha256);
    let report = verify(&f, &policy);
    assert_eq!(report.check(CheckId::AuthenticodeSigner).unwrap().status, CheckStatus::Pass);
    assert_eq!(report.check(CheckId::AuthenticodeDigest).unwrap().status, CheckStatus::Skip);
    assert_eq!((report.verdict, report.firmware_refuses), (Verdict::Accept, None));
}

#[test]
fn the_first_anchor_in_order_is_named() {
    let mut policy = policy();
    policy.anchors = vec![
        anchor(&OTHER),
        Anchor { origin: AnchorOrigin::FirmwareDb, certificate: KEY.certificate().unwrap() },
        Anchor { origin: AnchorOrigin::InstalledUki, certificate: KEY.certificate().unwrap() },
    ];
    let report = verify(&facts(&SIGNED), &policy);
    assert_eq!(report.signers[0].trusted_by.as_deref(), Some("the firmware's db"));
    assert!(report.check(CheckId::AuthenticodeSigner).unwrap().detail.contains("the firmware's db"));
}

#[test]
fn the_json_is_that_of_the_contract() {
    let json = serde_json::to_value(verify(&facts(&SIGNED), &policy())).unwrap();
    assert_eq!(json["verdict"], "accept");
    assert_eq!(json["image"]["arch"], "arm64");
    assert_eq!(json["image"]["sha256"], "07".repeat(32));
    assert_eq!(json["image"]["extensions"][0]["name"], "tailscale");
    let ids: Vec<_> = json["checks"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    let expected = "pe sections arch version authenticode-digest authenticode-signer revocation pcr-signature pcr-key \
                    pcr7 \
                    schematic extensions initrd cmdline addons";
    assert_eq!(ids.join(" "), expected);
    assert_eq!(json["checks"][0]["status"], "pass");
}
