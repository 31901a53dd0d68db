//! What an image is held against: trust anchors in their order, the firmware's variables, the installed UKI.

use super::beside::{beside, beside_place};
use super::config::config_files;
use super::{DiskRequest, Event, Ui};
use crate::authenticode::{Signature, parse_table};
use crate::block::{ReadAt, read_vec};
use crate::efivars::EfiVars;
use crate::esp::{EspFile, Inventory, Place};
use crate::factory::{Schematic, is_id};
use crate::pe::{Arch, Head};
use crate::trust::{Anchor, AnchorOrigin, Firmware, Sbat};
use crate::uki::Family;
use crate::units::size;
use crate::verify::{ImageExtensions, InstalledFacts, Policy};
use crate::{Context, Error, Result, uki};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A certificate table larger than this is not read.
const MAX_TABLE: u64 = 1024 * 1024;
/// Larger text files are refused, in bytes.
const MAX_TEXT: u64 = 1024 * 1024;

/// What an image must be to be believed.
#[derive(Debug, Clone, Default)]
pub struct TrustRequest {
    /// `--cert`.
    pub cert: Vec<PathBuf>,
    /// `--schematic`: an ID or a YAML file.
    pub schematic: Option<String>,
    /// `--talos`.
    pub talos: Option<String>,
    /// `--arch`.
    pub arch: Option<Arch>,
    /// `--require-extension`.
    pub require_extension: Vec<String>,
    /// `--allow-untrusted`.
    pub allow_untrusted: bool,
    /// `--require-pcr-key`.
    pub require_pcr_key: bool,
    /// `--sbat-level`.
    pub sbat_level: Option<PathBuf>,
    /// `--machine-config`.
    pub machine_config: Vec<PathBuf>,
}

impl TrustRequest {
    /// What makes a command believe the images that this one did: `--cert` and `--allow-untrusted`, as arguments.
    pub(super) fn believing(&self) -> Vec<String> {
        let certificates = self.cert.iter().flat_map(|file| ["--cert".to_owned(), file.display().to_string()]);
        certificates.chain(self.allow_untrusted.then(|| "--allow-untrusted".to_owned())).collect()
    }

    /// The policy as far as it does not depend on a disk.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when a file cannot be read; [`crate::Kind::Rejected`] when it holds no certificate.
    pub fn policy(&self, vars: &EfiVars, ui: &dyn Ui) -> Result<Policy> {
        let mut anchors = Vec::new();
        for file in &self.cert {
            anchors.extend(Anchor::from_file(file)?);
        }
        let firmware = Firmware::read(vars).unwrap_or_else(|e| {
            ui.event(Event::Warning(format!("{e}: the firmware's keys are not taken into account")));
            Firmware::default()
        });
        anchors.extend(firmware.anchors());
        let sbat_level = match &self.sbat_level {
            None => None,
            Some(path) => Some(Sbat::parse(&read_file(path)?)?),
        };
        Ok(Policy {
            anchors,
            firmware,
            no_variables: vars.unavailable().map(str::to_owned),
            sbat_level,
            schematic: self.schematic.as_deref().map(|s| Ok::<_, Error>(schematic_id(s)?.0)).transpose()?,
            version: self.talos.clone(),
            arch: self.arch,
            required_extensions: self.require_extension.clone(),
            allow_untrusted: self.allow_untrusted,
            require_pcr_key: self.require_pcr_key,
            machine_config: config_files(&self.machine_config)?,
            ..Policy::default()
        })
    }
}

/// Adds what the board's own disk says: the keys on its ESP, the signer and the PCR key of the UKI that boots now: that
/// of the menu in `EFI/Linux`, or the one in its own `place`.
///
/// # Errors
/// What the source reports.
pub(super) fn add_disk<S: ReadAt>(
    policy: &mut Policy,
    esp: &Inventory<S>,
    place: Option<&Place>,
    ui: &dyn Ui,
) -> Result<()> {
    match esp.volume.read_small("loader/keys/auto/db.auth", MAX_TABLE as u32) {
        Ok(None) => {}
        Ok(Some(bytes)) => match Anchor::from_db_auth(&bytes) {
            Ok(anchors) => policy.anchors.extend(anchors),
            Err(e) => ui.event(Event::Warning(format!("loader/keys/auto/db.auth on the ESP: {e}"))),
        },
        Err(e) => ui.event(Event::Warning(format!("loader/keys/auto/db.auth on the ESP: {e}"))),
    }
    let Some((file, bytes)) = image_of(esp, place) else { return Ok(()) };
    let signatures = signatures(&bytes).unwrap_or_else(|e| {
        ui.event(Event::Warning(format!("the signature of the installed {}: {e}", file.name())));
        Vec::new()
    });
    let signers = signatures.iter().map(|s| s.signer.clone()).collect();
    policy.anchors.extend(Anchor::all(&AnchorOrigin::InstalledUki, signers));
    policy.installed = file.facts.as_ref().map(|facts| InstalledFacts {
        signatures,
        companions: place.map_or_else(|| beside(esp, file.name()), |place| beside_place(esp, place)),
        ..installed(facts)
    });
    Ok(())
}

/// The image that boots now, where it can be read.
fn image_of<'e, S: ReadAt>(
    esp: &'e Inventory<S>,
    place: Option<&'e Place>,
) -> Option<(&'e EspFile, Box<dyn ReadAt + 'e>)> {
    match place {
        Some(place) => Some((&place.image, esp.open_at(&place.at).ok().flatten()?)),
        None => {
            let file = esp.selected()?;
            Some((file, Box::new(esp.volume.file(&file.entry).ok()?)))
        }
    }
}

/// Adds what the initrd of the image that boots now holds: its extensions and its schematic. The image is read whole
/// for it.
pub(super) fn add_contents<S: ReadAt>(policy: &mut Policy, esp: &Inventory<S>, place: Option<&Place>, ui: &dyn Ui) {
    let Some(installed) = policy.installed.as_mut() else { return };
    let Some((file, bytes)) = image_of(esp, place).filter(|(file, _)| file.family() == Family::Talos) else { return };
    ui.event(Event::Step(format!("reading the installed {}", file.name())));
    match uki::analyse(&bytes, &mut []) {
        Ok(uki) if uki.initrd.as_ref().is_ok_and(|i| i.as_ref().is_none_or(|i| i.unread.is_none())) => {
            installed.contents = Some(ImageExtensions::of(&uki));
        }
        // What is wrong with it, `status` and `doctor` say; a swap may be what mends it.
        _ => ui.event(Event::Warning(format!(
            "which extensions the installed {} has is not known: its initrd cannot be read",
            file.name()
        ))),
    }
}

fn installed(facts: &uki::Facts) -> InstalledFacts {
    let host = uki::Host::of(facts);
    // systemd-measure 257 signs nothing useful for images with these sections (see `pcr::exchanged`).
    let exchanged = facts.extent(".dtbauto").is_some() || facts.extent(".hwids").is_some();
    let may_be_exchanged = host.stub == Some(257) && exchanged && Family::of(facts) != Family::Talos;
    InstalledFacts {
        pcrpkey: facts.pcrpkey.clone(),
        arch: facts.arch,
        cmdline: facts.cmdline().map(str::to_owned),
        version: facts.version().map(str::to_owned),
        signed: facts.head.certificate_table.is_some(),
        pcrsig: facts.profiles.first().is_some_and(|p| p.pcrsig.is_some()) && !may_be_exchanged,
        signatures: Vec::new(),
        host,
        companions: Vec::new(),
        contents: None,
    }
}

/// Facts about the UKI that boots from a disk now.
///
/// # Errors
/// As [`Inventory::read`].
pub(super) fn add_installed(policy: &mut Policy, disk: &DiskRequest, ui: &dyn Ui) -> Result<()> {
    let target = disk.find(ui)?;
    let vars = disk.efivars(&target);
    let (variables, _) = super::boot_variables(&vars);
    let esp = Inventory::read_in(target.open()?, variables, disk.context(&target, &vars, policy.arch))?;
    // A path that cannot be followed is no image to compare with.
    let place = esp.place().ok().flatten();
    add_disk(policy, &esp, place.as_ref(), ui)?;
    add_contents(policy, &esp, place.as_ref(), ui);
    Ok(())
}

/// The signatures of an image, from its certificate table alone.
fn signatures(image: &dyn ReadAt) -> Result<Vec<Signature>> {
    let head = Head::read(image)?;
    let Some(table) = head.certificate_table.filter(|t| t.bytes <= MAX_TABLE) else { return Ok(Vec::new()) };
    parse_table(&read_vec(image, table.offset, table.bytes as usize)?)
}

/// The ID that `--schematic` means: the ID itself, or that of a YAML file, with the schematic if it is known.
///
/// # Errors
/// [`crate::Kind::Usage`] when it is neither.
pub(super) fn schematic_id(schematic: &str) -> Result<(String, Option<Schematic>)> {
    if is_id(schematic) {
        return Ok((schematic.to_owned(), None));
    }
    let parsed = read_schematic(Path::new(schematic))?;
    Ok((parsed.id(), Some(parsed)))
}

/// A schematic from a file, or from standard input for `-`.
pub(super) fn read_schematic(path: &Path) -> Result<Schematic> {
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
        bytes
    } else {
        read_file(path)?
    };
    let text = String::from_utf8(bytes).map_err(|_| Error::usage(format!("{} is not UTF-8", path.display())))?;
    Schematic::parse(&text).while_doing(|| format!("reading the schematic {}", path.display()))
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut read = || std::fs::File::open(path)?.take(MAX_TEXT + 1).read_to_end(&mut bytes);
    read().while_doing(|| format!("reading {}", path.display()))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Error::usage(format!("{} is larger than {}", path.display(), size(MAX_TEXT))));
    }
    Ok(bytes)
}
