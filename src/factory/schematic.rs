//! Schematics: the small YAML documents that say what the Image Factory puts into an image.
//!
//! A schematic's ID is the SHA-256 of its canonical YAML, so it can be computed without asking anyone. Reading is
//! strict (an unknown field is an error, as at the factory, and says where). Printing is [`super::canonical`]'s. Pure:
//! touches nothing.

mod dialect;
mod read;

use super::canonical::{self, YamlNode};
use crate::{Error, Result};
use sha2::{Digest, Sha256};

/// Longest schematic that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// The kernel argument that removes Talos's halt flag from an ISO's command line.
const NO_HALT: &str = "-talos.halt_if_installed";

/// A schematic: fields, order and defaults as in the factory's own data model.
///
/// ```
/// use bootsurgeon::factory::Schematic;
///
/// let schematic = Schematic::parse("customization: {extraKernelArgs: [vga=791]}")?;
/// assert_eq!(schematic.canonical(), "customization:\n    extraKernelArgs:\n        - vga=791\n");
/// assert_eq!(schematic.id(), "eea1f9534c46d95c4715a2f13d17eacb927c13a42ef087c79b22c3bd0c49d073");
/// # Ok::<(), bootsurgeon::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schematic {
    /// Who alone may use it; enterprise factories only.
    pub owner: String,
    /// The overlay for a single-board computer.
    pub overlay: Overlay,
    /// Machine configuration baked into the image.
    pub embedded_machine_configuration: String,
    /// Kernel arguments added to (or, with a leading `-`, removed from) the command line.
    pub extra_kernel_args: Vec<String>,
    /// Initial contents of the META partition: key and value.
    pub meta: Vec<(u8, String)>,
    /// Official system extensions, for example `siderolabs/tailscale`.
    pub official_extensions: Vec<String>,
    /// Boot loader of disk images.
    pub bootloader: Bootloader,
    /// How systemd-boot enrols the Secure Boot keys: `off`, `manual`, `if-safe`, `force`; empty for the default.
    pub enroll_keys: String,
    /// Whether well-known UEFI certificates are enrolled too.
    pub include_well_known_certificates: bool,
    /// Sector size of disk images in bytes; 0 for the default.
    pub sector_size: u64,
}

/// The overlay of a [`Schematic`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay {
    /// Image that holds the overlay, for example `siderolabs/sbc-raspberrypi`.
    pub image: String,
    /// Name of the overlay, for example `rpi_generic`.
    pub name: String,
    /// Options in the overlay's own terms, in the order they are printed in.
    pub options: Vec<(String, OptionValue)>,
}

/// A value among an overlay's options.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names of YAML's types say it")]
pub enum OptionValue {
    Null,
    Bool(bool),
    /// Between the least 64-bit signed and the greatest 64-bit unsigned integer.
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    /// Entries in the order they are printed in.
    Map(Vec<(String, Self)>),
}

/// Boot loader of disk images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Bootloader {
    /// Not chosen.
    #[default]
    None,
    /// systemd-boot for UEFI and GRUB for BIOS.
    DualBoot,
    /// systemd-boot.
    SdBoot,
    /// GRUB.
    Grub,
}

impl Schematic {
    /// Reads a schematic.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage), with line and column, for anything that is not one YAML document of known
    /// fields: unknown or doubled fields, wrong types, merge keys, several documents; and for what the factory's reader
    /// takes otherwise (tags, line ends of YAML 1.1, escapes of JSON), because the ID would be another one.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(Error::usage(format!("schematic: {} bytes are more than the 1 MiB allowed", text.len())));
        }
        if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            return Err(
                Error::usage("schematic: the document is empty").advise("the empty schematic is `customization: {}`")
            );
        }
        let text = dialect::first_document(text)?;
        let schematic = read::schematic(text).map_err(|invalid| {
            Error::usage(format!("schematic: {invalid}"))
                .advise("the factory accepts only the documented fields of a schematic; correct the file")
        })?;
        schematic.check(text)?;
        Ok(schematic)
    }

    /// What cannot be printed as the factory would.
    fn check(&self, text: &str) -> Result<()> {
        fn walk(value: &OptionValue, text: &str) -> Result<()> {
            match value {
                OptionValue::Text(s) => {
                    // A few plain scalars (time stamps, `1_0.5`) are another type to the factory than to our reader.
                    let quoted = || ['"', '\''].iter().any(|q| text.contains(&format!("{q}{s}{q}")));
                    if !s.is_empty() && canonical::resolves_to_another_type(s) && !quoted() {
                        let why = format!("schematic: overlay option: {s} may be a string or something else");
                        return Err(Error::usage(why).advise("put it in quotes"));
                    }
                    Ok(())
                }
                OptionValue::List(items) => items.iter().try_for_each(|v| walk(v, text)),
                OptionValue::Map(entries) => walk_map(entries, text),
                _ => Ok(()),
            }
        }
        fn walk_map(entries: &[(String, OptionValue)], text: &str) -> Result<()> {
            for (key, value) in entries {
                let breaks = |c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
                if key.len() > 128 || key.contains(breaks) {
                    return Err(Error::usage(
                        "schematic: the name of an overlay option is longer than 128 bytes or a line",
                    ));
                }
                walk(value, text)?;
            }
            Ok(())
        }
        walk_map(&self.overlay.options, text)
    }

    /// The canonical YAML, as the factory prints it.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical::print(&self.nodes())
    }

    /// The ID: SHA-256 of [`Self::canonical`], 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(Sha256::digest(self.canonical()))
    }

    /// The same schematic with a system extension more; a short name means Sidero Labs'. One that is there already is
    /// not added again.
    #[must_use]
    pub fn with_extension(mut self, name: &str) -> Self {
        let name = if name.contains('/') { name.to_owned() } else { format!("siderolabs/{name}") };
        if !self.official_extensions.contains(&name) {
            self.official_extensions.push(name);
        }
        self
    }

    /// The same schematic with a kernel argument more. One that is there already is not added again.
    #[must_use]
    pub fn with_extra_kernel_arg(mut self, arg: &str) -> Self {
        if !self.extra_kernel_args.iter().any(|a| a == arg) {
            self.extra_kernel_args.push(arg.to_owned());
        }
        self
    }

    /// The same schematic whose ISOs do not carry `talos.halt_if_installed`, which stops an installed node at boot.
    #[must_use]
    pub fn negating_halt(&self) -> Self {
        if self.negates_halt() { self.clone() } else { self.clone().with_extra_kernel_arg(NO_HALT) }
    }

    /// Whether its ISOs come without `talos.halt_if_installed`.
    #[must_use]
    pub fn negates_halt(&self) -> bool {
        self.extra_kernel_args.iter().any(|a| a == NO_HALT)
    }

    fn nodes(&self) -> Vec<(String, YamlNode)> {
        let texts = |list: &[String]| YamlNode::Seq(list.iter().cloned().map(YamlNode::Text).collect());
        let text = |s: &str| (!s.is_empty()).then(|| YamlNode::Text(s.to_owned()));
        let map = |fields: Vec<(String, YamlNode)>| (!fields.is_empty()).then_some(YamlNode::Map(fields));

        let overlay = (self.overlay != Overlay::default()).then(|| {
            YamlNode::Map(fields([
                ("image", Some(YamlNode::Text(self.overlay.image.clone()))),
                ("name", Some(YamlNode::Text(self.overlay.name.clone()))),
                ("options", map(option_nodes(&self.overlay.options))),
            ]))
        });
        let meta = self.meta.iter().map(|(key, value)| {
            YamlNode::Map(fields([
                ("key", Some(YamlNode::Verbatim(key.to_string()))),
                ("value", Some(YamlNode::Text(value.clone()))),
            ]))
        });
        let extensions = (!self.official_extensions.is_empty()).then(|| texts(&self.official_extensions));
        let well_known = self.include_well_known_certificates.then(|| YamlNode::Verbatim("true".into()));
        let sector_size = (self.sector_size != 0).then(|| YamlNode::Verbatim(self.sector_size.to_string()));
        let customization = fields([
            ("embeddedMachineConfiguration", text(&self.embedded_machine_configuration)),
            ("extraKernelArgs", (!self.extra_kernel_args.is_empty()).then(|| texts(&self.extra_kernel_args))),
            ("meta", (!self.meta.is_empty()).then(|| YamlNode::Seq(meta.collect()))),
            ("systemExtensions", map(fields([("officialExtensions", extensions)]))),
            ("bootloader", text(self.bootloader.name())),
            (
                "secureboot",
                map(fields([("enrollKeys", text(&self.enroll_keys)), ("includeWellKnownCertificates", well_known)])),
            ),
            ("diskImage", map(fields([("sectorSize", sector_size)]))),
        ]);
        // The only field that is printed even when empty.
        fields([
            ("owner", text(&self.owner)),
            ("overlay", overlay),
            ("customization", Some(YamlNode::Map(customization))),
        ])
    }
}

/// Whether this is a schematic ID: 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_id(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn fields<const N: usize>(all: [(&str, Option<YamlNode>); N]) -> Vec<(String, YamlNode)> {
    all.into_iter().filter_map(|(name, node)| Some((name.to_owned(), node?))).collect()
}

fn option_nodes(options: &[(String, OptionValue)]) -> Vec<(String, YamlNode)> {
    let mut sorted: Vec<_> = options.iter().map(|(k, v)| (k.clone(), v.node())).collect();
    canonical::sort_by_key(&mut sorted);
    sorted
}

impl OptionValue {
    fn node(&self) -> YamlNode {
        match self {
            Self::Null => YamlNode::Verbatim("null".into()),
            Self::Bool(b) => YamlNode::Verbatim(b.to_string()),
            Self::Int(i) => YamlNode::Verbatim(i.to_string()),
            Self::Float(f) => YamlNode::Verbatim(canonical::float(*f)),
            Self::Text(s) => YamlNode::Text(s.clone()),
            Self::List(items) => YamlNode::Seq(items.iter().map(Self::node).collect()),
            Self::Map(entries) => YamlNode::Map(option_nodes(entries)),
        }
    }
}

impl Bootloader {
    fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::DualBoot => "dual-boot",
            Self::SdBoot => "sd-boot",
            Self::Grub => "grub",
        }
    }
}

#[cfg(test)]
mod tests;
