//! One pass over a UKI for everything the tool wants to know of it, with room for more consumers (the swap's writer).

use super::{Event, Ui};
use crate::authenticode::{DigestSink, Hash, Signature, parse_table};
use crate::block::{Light, ReadAt, Sink, fan_out};
use crate::pcr::{self, Bank, BankHashes, Measured, SectionHashes};
use crate::pe::Head;
use crate::sha256::BothSinks;
use crate::sorting::set;
use crate::trust::Sbat;
use crate::uki::{self, Analyser, Family, Uki, check_layout};
use crate::units::{count, size};
use crate::verify::{ExtensionFacts, ImageFacts, InitrdFacts, PointedFile, ProfileFacts, ProfilePcr, SchematicFacts};
use crate::{Context, Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// What is said where nobody has looked beside the image.
const ALONE: &str = "What systemd's stub would add to the image from beside it is not known here.";

/// What one pass gave.
#[non_exhaustive]
pub struct Examined {
    /// The UKI; `None` when its headers could not be read.
    pub uki: Option<Uki>,
    /// The facts that the policy judges.
    pub facts: ImageFacts,
    /// PCR 11 per profile and bank: after the sections, and after each phase.
    pub pcr: Vec<(usize, Bank, pcr::PcrValues)>,
}

/// Whether somebody wants to know the SHA-256 of the whole file, which is none of the hashes that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileHash {
    /// It is taken.
    Wanted,
    /// It is left out.
    Unwanted,
}

/// Reads a UKI once, with the SHA-256 of the file. `extra` sinks get every byte in the same pass.
///
/// # Errors
/// What the source or an extra sink reports; [`Kind::Cancelled`]. A malformed image is no error: its facts say so.
pub fn examine(source: &dyn ReadAt, banks: &[Bank], extra: &mut [&mut dyn Sink], ui: &dyn Ui) -> Result<Examined> {
    examine_hashed(source, banks, FileHash::Wanted, extra, ui)
}

/// As [`examine`], with or without the SHA-256 of the file.
///
/// # Errors
/// As [`examine`].
pub fn examine_hashed(
    source: &dyn ReadAt,
    banks: &[Bank],
    hash: FileHash,
    extra: &mut [&mut dyn Sink],
    ui: &dyn Ui,
) -> Result<Examined> {
    let total = source.size();
    let mut done = 0;
    let mut progress = Light(|chunk: &[u8]| -> Result<()> {
        done += chunk.len() as u64;
        ui.event(Event::Progress { done, total: Some(total) });
        if ui.cancelled().load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Cancelled, "stopped on request"));
        }
        Ok(())
    });
    let head = match Head::read(source) {
        Ok(head) => head,
        Err(e) if e.code().is_bad_content() => return unreadable(source, &e, extra, &mut progress),
        Err(e) => return Err(e),
    };
    let mut analyser = match Analyser::new(head.clone(), ()) {
        Ok(analyser) => analyser,
        Err(e) => return unreadable(source, &e, extra, &mut progress),
    };
    if hash == FileHash::Unwanted {
        analyser = analyser.without_hash();
    }
    let mut digest = DigestSink::new(&head);
    let mut hashes = SectionHashes::new(&head, banks);
    {
        let (file, mut sinks) = analyser.parts();
        // Two hashes over nearly the same bytes: one thread computes both in the time of one and a half.
        let mut both = None;
        match (file, &mut digest) {
            (Some(file), Ok(digest)) => sinks.push(both.insert(BothSinks(file, digest))),
            (Some(file), Err(_)) => sinks.push(file),
            (None, Ok(digest)) => sinks.push(digest),
            (None, Err(_)) => {}
        }
        sinks.extend(hashes.as_mut().ok().map(|s| s as &mut dyn Sink));
        sinks.push(&mut progress);
        for sink in extra {
            sinks.push(&mut **sink);
        }
        fan_out(source, 0, total, &mut sinks).while_doing(|| "reading the image")?;
    }
    let uki = analyser.finish()?;
    let mut digest = digest.and_then(DigestSink::finish).map_err(|e| e.to_string());
    let signatures = match &digest {
        Ok(d) if d.certificate_table.is_empty() => Ok(Vec::new()),
        Ok(d) => parse_table(&d.certificate_table).map_err(|e| e.to_string()),
        Err(e) => Err(e.clone()),
    };
    if let (Ok(digest), Ok(signatures)) = (&mut digest, &signatures) {
        digest.others = other_digests(source, &uki.facts.head, signatures);
    }
    let mut hashes = hashes.and_then(SectionHashes::finish);
    if let Ok(hashes) = &mut hashes {
        hash_signed_banks(&uki, source, banks, hashes);
    }
    let family = Family::of_whole(&uki.facts, uki.initrd.as_ref().ok().and_then(Option::as_ref));
    let (profiles, pcr) = measure(&uki, family, hashes, banks);
    let extensions = uki.extensions.as_ref().ok().and_then(Option::as_ref);
    let layout = check_layout(&uki.facts.head);
    let problems = |fatal| layout.iter().filter(|p| p.fatal == fatal).map(|p| p.message.clone()).collect::<Vec<_>>();
    let (waiting_services, unread_services) = uki.waiting_services();
    let facts = ImageFacts {
        sha256: uki.sha256,
        bytes: uki.bytes,
        family,
        pe_problems: Vec::new(),
        section_problems: problems(true),
        section_warnings: problems(false),
        arch: uki.facts.arch,
        version: uki.facts.version().map(str::to_owned),
        contradictions: uki::contradictions(source, &uki, family),
        digest,
        signatures,
        sbat: uki.facts.sbat.as_ref().map(|t| Sbat::parse(t.as_bytes())).transpose().map_err(|e| e.to_string()),
        pcrpkey: uki.facts.pcrpkey.clone(),
        profiles,
        initrd: initrd(&uki, family),
        schematic: SchematicFacts::of(&uki),
        extensions: extensions.map(ExtensionFacts::all_of).unwrap_or_default(),
        waiting_services,
        services: uki.services(),
        damaged_images: damaged_images(&uki),
        unread_services,
        pointed: pointed(family),
        host: uki::Host::of(&uki.facts),
        companions: Err(ALONE.into()),
    };
    Ok(Examined { uki: Some(uki), facts, pcr })
}

/// The image's digest by the hashes that signatures state beside SHA-256; of a remote image none, because its bytes
/// have gone by.
fn other_digests(source: &dyn ReadAt, head: &Head, signatures: &[Signature]) -> Vec<(Hash, Vec<u8>)> {
    let stated = set(signatures.iter().filter_map(|s| s.digest_hash).filter(|h| *h != Hash::Sha256));
    let stated = stated.into_iter().filter(|_| !source.is_remote());
    let digest = |hash| {
        let mut sink = DigestSink::with(head, hash).ok()?;
        fan_out(source, 0, source.size(), &mut [&mut sink]).ok()?;
        Some((hash, sink.finish_hash().ok()?))
    };
    stated.filter_map(digest).collect()
}

/// The files that the stub names, before anybody has looked for them.
fn pointed(family: Family) -> Result<Vec<PointedFile>, String> {
    match family {
        Family::Lanzaboote => {
            Err("The stub names kernel and initrd by path and hash; they lie on the ESP, which was not looked at"
                .into())
        }
        _ => Ok(Vec::new()),
    }
}

/// What became of the initrd.
fn initrd(uki: &Uki, family: Family) -> InitrdFacts {
    if family == Family::Lanzaboote {
        return InitrdFacts::Unread("the stub names it by path and hash, and it lies in a file of its own".into());
    }
    match (&uki.initrd, &uki.extensions, uki.missing_images().as_slice()) {
        (Err(e), _, _) | (_, Err(e), _) => InitrdFacts::Bad(e.to_string()),
        (Ok(None), ..) => InitrdFacts::Absent,
        (Ok(Some(initrd)), ..) if initrd.unread.is_some() => {
            InitrdFacts::Unread(initrd.unread.clone().unwrap_or_default())
        }
        (Ok(Some(initrd)), ..) if initrd.archives.is_empty() => InitrdFacts::Absent,
        (_, _, [_, ..]) => {
            InitrdFacts::Bad(format!("extensions.yaml names {}, which is not there", uki.missing_images().join(", ")))
        }
        (Ok(Some(initrd)), ..) => {
            let untrailed = initrd.archives.iter().filter(|a| !a.trailer).count();
            InitrdFacts::Read(format!(
                "{}, {}, {}, {} unpacked.{}",
                count(initrd.archives.len(), "archive"),
                count(initrd.entries(), "entry"),
                count(initrd.squashfs.len(), "squashfs image"),
                size(initrd.unpacked_bytes()),
                if untrailed > 0 { format!(" {untrailed} of them end without a trailer.") } else { String::new() }
            ))
        }
    }
}

/// Squashfs files that Linux would not mount, by the name of the extension they hold, or their own.
fn damaged_images(uki: &Uki) -> Vec<(String, String)> {
    let extensions = uki.extensions.as_ref().ok().and_then(Option::as_ref);
    let name = |image: &str| {
        let extension = extensions?.extensions.iter().find(|e| e.image == image)?;
        Some(format!("{image} ({})", extension.name))
    };
    let damaged = uki.damaged_images().into_iter();
    damaged.map(|(image, why)| (name(image).unwrap_or_else(|| image.to_owned()), why.to_owned())).collect()
}

/// PCR 11 of every profile, and what becomes of its signed policy.
fn measure(
    uki: &Uki,
    family: Family,
    hashes: Result<BTreeMap<usize, BankHashes>>,
    banks: &[Bank],
) -> (Vec<ProfileFacts>, Vec<(usize, Bank, pcr::PcrValues)>) {
    let f = &uki.facts;
    let stub = f.sdmagic.as_deref().and_then(|m| pcr::stub_version(m.as_bytes()));
    let phases: &[&str] = if family == Family::Talos { &pcr::TALOS_PHASES } else { &pcr::SYSTEMD_PHASES };
    let taken = pcr::profiles(&f.head.sections, stub);
    let mut all = Vec::new();
    let profiles = f
        .profiles
        .iter()
        .map(|p| {
            let own = taken.iter().find(|own| own.index == p.index);
            let outcome = match &hashes {
                Err(e) => ProfilePcr::Unusable(e.to_string()),
                Ok(hashes) => {
                    for bank in banks {
                        let values = own.and_then(|own| pcr::values(*bank, &own.measured, hashes, phases));
                        all.extend(values.map(|v| (p.index, *bank, v)));
                    }
                    policy(p, f.pcrpkey.as_deref(), own, hashes)
                }
            };
            ProfileFacts {
                index: p.index,
                id: p.id.clone(),
                cmdline: p.cmdline.clone().unwrap_or_default(),
                pcr: outcome,
                by_hardware: own.map_or(0, |own| own.by_hardware.len()),
            }
        })
        .collect();
    (profiles, all)
}

/// The signed policy of one profile; `own` is what the stub takes for it, `None` when it knows no profiles.
fn policy(
    profile: &uki::Profile,
    key: Option<&[u8]>,
    own: Option<&pcr::MeasuredProfile>,
    hashes: &BTreeMap<usize, BankHashes>,
) -> ProfilePcr {
    let (json, key) = match (&profile.pcrsig, key) {
        (None, _) => return ProfilePcr::Missing,
        (Some(_), None) => return ProfilePcr::Unusable("there is a .pcrsig, but no .pcrpkey".into()),
        (Some(json), Some(key)) => (json, key),
    };
    let mut measured = Vec::new();
    for (alternative, sections) in own.map(pcr::MeasuredProfile::alternatives).unwrap_or_default().iter().enumerate() {
        for bank in Bank::ALL {
            let values = pcr::values(bank, sections, hashes, &[]);
            measured.extend(values.map(|v| Measured { bank, alternative: Some(alternative), value: v.sections }));
            let values = pcr::exchanged(sections).and_then(|sections| pcr::values(bank, &sections, hashes, &[]));
            measured.extend(values.map(|v| Measured { bank, alternative: None, value: v.sections }));
        }
    }
    match pcr::verify_pcrsig(json.as_bytes(), key, &measured) {
        Ok(outcome) => ProfilePcr::Checked(outcome),
        Err(e) => ProfilePcr::Unusable(e.to_string()),
    }
}

/// Where no policy is signed for a bank that was hashed on the way, one more look at the image for those that are. Of a
/// remote image nothing is added: its policies count as not checked.
fn hash_signed_banks(uki: &Uki, source: &dyn ReadAt, banks: &[Bank], hashes: &mut BTreeMap<usize, BankHashes>) {
    let policies = uki.facts.profiles.iter().filter_map(|p| p.pcrsig.as_ref());
    let signed = set(policies.flat_map(|json| pcr::banks_of(json.as_bytes())));
    if signed.is_empty() || source.is_remote() || signed.iter().any(|bank| banks.contains(bank)) {
        return;
    }
    let more: Vec<Bank> = signed.into_iter().collect();
    let Ok(mut sink) = SectionHashes::new(&uki.facts.head, &more) else { return };
    if fan_out(source, 0, source.size(), &mut [&mut sink]).is_err() {
        return;
    }
    for (section, found) in sink.finish().unwrap_or_default() {
        hashes.entry(section).or_default().merge(found);
    }
}

/// What can be said of a file whose headers are wrong: its hash, and that they are.
fn unreadable(
    source: &dyn ReadAt,
    why: &Error,
    extra: &mut [&mut dyn Sink],
    progress: &mut dyn Sink,
) -> Result<Examined> {
    let mut hash = crate::uki::Sha256Sink::new();
    {
        let mut sinks: Vec<&mut dyn Sink> = vec![&mut hash, progress];
        for sink in extra {
            sinks.push(&mut **sink);
        }
        fan_out(source, 0, source.size(), &mut sinks)?;
    }
    let unknown = || "unknown, because the headers cannot be read".to_owned();
    let facts = ImageFacts {
        sha256: Some(hash.finish()),
        bytes: source.size(),
        family: Family::Unknown,
        pe_problems: vec![why.to_string()],
        section_problems: vec![unknown()],
        section_warnings: Vec::new(),
        arch: None,
        version: None,
        contradictions: Vec::new(),
        digest: Err(unknown()),
        signatures: Err(unknown()),
        sbat: Err(unknown()),
        pcrpkey: None,
        profiles: Vec::new(),
        initrd: InitrdFacts::Bad(unknown()),
        schematic: None,
        extensions: Vec::new(),
        waiting_services: Vec::new(),
        services: None,
        damaged_images: Vec::new(),
        unread_services: Vec::new(),
        pointed: Ok(Vec::new()),
        host: uki::Host::default(),
        companions: Err(ALONE.into()),
    };
    Ok(Examined { uki: None, facts, pcr: Vec::new() })
}
