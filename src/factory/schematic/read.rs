//! Reads a schematic from the nodes of its document. Every field may be absent or empty; another one is an error.

use super::{Bootloader, OptionValue, Overlay, Schematic};
use crate::factory::canonical;
use crate::yaml::{self, Fields, Invalid, Merge, Node, Tag, Value, scalar};

type Result<T> = std::result::Result<T, Invalid>;

/// What a schematic may ask for.
const LIMITS: yaml::Limits =
    yaml::Limits { documents: 1, nodes: 250_000, text: 16 << 20, depth: MAX_DEPTH, aliases: 50_000 };
/// Deepest nesting of sequences and mappings.
const MAX_DEPTH: usize = 64;
/// Most entries of one mapping among overlay options.
const MAX_ENTRIES: usize = 1024;

/// Reads the only document of the text; what is nothing but comments is the empty schematic.
pub(super) fn schematic(text: &str) -> Result<Schematic> {
    let mut schematic = Schematic::default();
    let Some(document) = yaml::documents(text, &LIMITS)?.pop().filter(|document| !document.is_null()) else {
        return Ok(schematic);
    };
    let root = fields(&document, &["owner", "overlay", "customization"])?;
    schematic.owner = text_of(&root, "owner")?;
    if let Some(node) = root.find("overlay") {
        schematic.overlay = overlay(node)?;
    }
    if let Some(node) = root.find("customization") {
        customization(node, &mut schematic)?;
    }
    Ok(schematic)
}

fn overlay(node: &Node<'_>) -> Result<Overlay> {
    let overlay = fields(node, &["image", "name", "options"])?;
    let options = match overlay.find("options").map(|options| Ok((options, option(options)?))).transpose()? {
        None => Vec::new(),
        Some((_, OptionValue::Map(entries))) => entries,
        Some((options, _)) => return Err(options.invalid("overlay options are not a mapping")),
    };
    Ok(Overlay { image: text_of(&overlay, "image")?, name: text_of(&overlay, "name")?, options })
}

fn customization(node: &Node<'_>, schematic: &mut Schematic) -> Result<()> {
    let names = [
        "embeddedMachineConfiguration",
        "extraKernelArgs",
        "meta",
        "systemExtensions",
        "bootloader",
        "secureboot",
        "diskImage",
    ];
    let customization = fields(node, &names)?;
    schematic.embedded_machine_configuration = text_of(&customization, "embeddedMachineConfiguration")?;
    schematic.extra_kernel_args = texts_of(&customization, "extraKernelArgs")?;
    if let Some(list) = customization.find("meta") {
        schematic.meta = list.list()?.iter().filter(|item| !item.is_null()).map(meta).collect::<Result<_>>()?;
    }
    if let Some(node) = customization.find("systemExtensions") {
        schematic.official_extensions = texts_of(&fields(node, &["officialExtensions"])?, "officialExtensions")?;
    }
    if let Some(node) = customization.find("bootloader") {
        schematic.bootloader = bootloader(node)?;
    }
    if let Some(node) = customization.find("secureboot") {
        let secureboot = fields(node, &["enrollKeys", "includeWellKnownCertificates"])?;
        schematic.enroll_keys = text_of(&secureboot, "enrollKeys")?;
        if let Some(node) = secureboot.find("includeWellKnownCertificates") {
            schematic.include_well_known_certificates = loose_boolean(node)?;
        }
    }
    if let Some(node) = customization.find("diskImage")
        && let Some(size) = fields(node, &["sectorSize"])?.find("sectorSize")
    {
        schematic.sector_size = whole(size).ok_or_else(|| size.invalid("this is not a whole number"))?;
    }
    Ok(())
}

fn meta(node: &Node<'_>) -> Result<(u8, String)> {
    let meta = fields(node, &["key", "value"])?;
    let key = meta.find("key").map_or(Ok(0), |key| {
        let number = whole(key).and_then(|number| u8::try_from(number).ok());
        number.ok_or_else(|| key.invalid("this is not a whole number from 0 to 255"))
    })?;
    Ok((key, text_of(&meta, "value")?))
}

fn bootloader(node: &Node<'_>) -> Result<Bootloader> {
    let name = node.text()?;
    match name.to_ascii_lowercase().as_str() {
        "none" => Ok(Bootloader::None),
        "dual-boot" => Ok(Bootloader::DualBoot),
        "sd-boot" => Ok(Bootloader::SdBoot),
        "grub" => Ok(Bootloader::Grub),
        _ => Err(node.invalid(format!("bootloader {name:?} is none of none, dual-boot, sd-boot, grub"))),
    }
}

fn fields<'n, 'a>(node: &'n Node<'a>, names: &[&str]) -> Result<Fields<'n, 'a>> {
    node.fields(Merge::Refuse)?.only(names)
}

fn text_of(fields: &Fields<'_, '_>, name: &str) -> Result<String> {
    fields.find(name).map_or(Ok(String::new()), |node| node.text().map(str::to_owned))
}

/// Nulls in a list do not count.
fn texts_of(fields: &Fields<'_, '_>, name: &str) -> Result<Vec<String>> {
    let Some(list) = fields.find(name) else { return Ok(Vec::new()) };
    list.list()?.iter().filter(|item| !item.is_null()).map(|item| item.text().map(str::to_owned)).collect()
}

/// A number, whatever quotes it has; with the tag of text it is none.
fn whole(node: &Node<'_>) -> Option<u64> {
    match &node.value {
        Value::Scalar { text, .. } if node.tag == Tag::None => scalar::unsigned(text),
        _ => None,
    }
}

/// A boolean that may have a spelling of YAML 1.1: only where a boolean is expected, never in free-form options.
fn loose_boolean(node: &Node<'_>) -> Result<bool> {
    let word = match option(node)? {
        OptionValue::Bool(b) => return Ok(b),
        OptionValue::Text(s) => s,
        _ => String::new(),
    };
    match word.as_str() {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
        _ => Err(node.invalid("not a boolean (true or false)")),
    }
}

/// A value whose type the scalar itself says. Nesting is bounded by the limits of the document.
fn option(node: &Node<'_>) -> Result<OptionValue> {
    match &node.value {
        _ if node.is_null() => Ok(OptionValue::Null),
        Value::Scalar { text, plain: true, .. } if node.tag == Tag::None => plain(node, text),
        Value::Scalar { .. } => Ok(OptionValue::Text(node.text()?.to_owned())),
        Value::List(items) => items.iter().map(option).collect::<Result<_>>().map(OptionValue::List),
        Value::Map(written) => {
            if let Some((key, _)) = written.get(MAX_ENTRIES) {
                return Err(key.invalid("overlay options have more than 1,024 entries in one mapping"));
            }
            // `1: a` and `1.0: a` are numbers, and their order among names is the factory's own.
            if let Some((key, _)) = written.iter().find(|(key, _)| !is_name(key)) {
                return Err(key.invalid("the name of an overlay option is not a string"));
            }
            let fields = node.fields(Merge::Refuse)?;
            let named = |field: yaml::Field<'_, '_>| Ok((field.name.to_owned(), option(field.value)?));
            let mut entries = fields.iter().map(named).collect::<Result<Vec<_>>>()?;
            canonical::sort_by_key(&mut entries);
            Ok(OptionValue::Map(entries))
        }
    }
}

fn is_name(key: &Node<'_>) -> bool {
    matches!(key.value, Value::Scalar { .. }) && matches!(option(key), Ok(OptionValue::Text(_)))
}

fn plain(node: &Node<'_>, text: &str) -> Result<OptionValue> {
    if let Some(value) = scalar::boolean(text) {
        return Ok(OptionValue::Bool(value));
    }
    let whole = if text.starts_with('-') {
        scalar::signed(text).map(i128::from)
    } else {
        scalar::unsigned(text).map(i128::from)
    };
    if let Some(value) = whole {
        return Ok(OptionValue::Int(value));
    }
    match scalar::float(text) {
        Some(value) if value.is_finite() => Ok(OptionValue::Float(value)),
        Some(_) => Err(node.invalid("this number is infinite, or none")),
        None => Ok(OptionValue::Text(text.to_owned())),
    }
}
