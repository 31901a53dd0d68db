//! Places inside one image that state different versions or architectures: somebody put parts of two images together.
//!
//! Only what can be read is compared. A kernel without a version that can be found, a root file system too large to
//! look into, an extension that states no requirement contradict nobody.

use super::analysis::Uki;
use super::family::Family;
use super::kernel::kernel_version;
use crate::block::{Extent, ReadAt, read_vec};
use crate::pe::Arch;

/// One sentence per contradiction, without a full stop. `source` is the image; into the kernel of a remote one nobody
/// looks, because its bytes have gone by.
#[must_use]
pub fn contradictions(source: &dyn ReadAt, uki: &Uki, family: Family) -> Vec<String> {
    let mut found = Vec::new();
    kernel(source, uki, &mut found);
    if family == Family::Talos {
        talos(uki, &mut found);
    }
    found
}

/// The kernel beside what the headers and `.uname` say.
fn kernel(source: &dyn ReadAt, uki: &Uki, found: &mut Vec<String>) {
    let Some(linux) = uki.facts.extent(".linux").filter(|_| !source.is_remote()) else { return };
    if let (Some(arch), Some(kernel)) = (uki.facts.arch, kernel_arch(source, linux))
        && arch != kernel
    {
        found.push(format!("its headers say {arch}, and the kernel in it is for {kernel}"));
    }
    if let Some(uname) = &uki.facts.uname
        && let Ok(Some(version)) = kernel_version(source, linux)
        && version != *uname
    {
        found.push(format!(".uname says the kernel is {uname}, and the kernel says it is {version}"));
    }
}

/// The architecture in the PE header that a kernel with an EFI stub has.
fn kernel_arch(source: &dyn ReadAt, linux: Extent) -> Option<Arch> {
    let head = read_vec(source, linux.offset, linux.bytes.min(4096) as usize).ok()?;
    if !head.starts_with(b"MZ") {
        return None;
    }
    let at = u32::from_le_bytes(*head.get(60..)?.first_chunk()?) as usize;
    let pe = head.get(at..)?;
    let machine = pe.strip_prefix(b"PE\0\0")?.first_chunk()?;
    Arch::from_machine(u16::from_le_bytes(*machine))
}

/// What Talos writes down in several places.
fn talos(uki: &Uki, found: &mut Vec<String>) {
    let os = &uki.facts.os_release;
    let Some(version) = uki.facts.version() else { return };
    let plain = |v: &str| v.trim_start_matches('v').to_owned();
    // PRETTY_NAME="Talos (v1.12.4)"
    if let Some(pretty) = os.pretty_name.as_deref().and_then(|name| name.split_once('(')?.1.strip_suffix(')'))
        && plain(pretty) != plain(version)
    {
        found.push(format!("VERSION_ID of its os-release is {version}, and PRETTY_NAME says {pretty}"));
    }
    let initrd = uki.initrd.as_ref().ok().and_then(Option::as_ref);
    if let Some(root) = initrd.and_then(|i| i.services.get("rootfs.sqsh")?.version.as_deref())
        && plain(root) != plain(version)
    {
        found.push(format!("its os-release says {version}, and its root file system is {root}"));
    }
    let Some(extensions) = uki.extensions.as_ref().ok().and_then(Option::as_ref) else { return };
    for extension in &extensions.extensions {
        if let Some(range) = &extension.talos
            && satisfies(version, range) == Some(false)
        {
            found.push(format!("it is {version}, and the extension {} is for Talos {range}", extension.name));
        }
    }
    if let (Some(uname), Some(modules)) = (&uki.facts.uname, &extensions.modules_version)
        && uname != modules
    {
        found.push(format!(".uname says the kernel is {uname}, and the modules of its extensions are for {modules}"));
    }
}

/// Whether a version lies in a range as extensions state it: `>= v1.0.0`, `>=1.5.0 <1.9.0 || 2.0.0`. A pre-release
/// counts as the release that it leads to. `None` when either is written in a way that is not known here.
fn satisfies(version: &str, range: &str) -> Option<bool> {
    let version = numbers(version)?;
    let mut any = false;
    for alternative in range.split("||") {
        let mut all = true;
        // An operator may stand apart from its version.
        let mut operator = String::new();
        for word in alternative.split_whitespace() {
            let at = word.find(|c: char| c.is_ascii_digit() || c == 'v').unwrap_or(word.len());
            operator.push_str(&word[..at]);
            if at == word.len() {
                continue;
            }
            let other = numbers(&word[at..])?;
            all &= match operator.as_str() {
                "" | "=" | "==" => version == other,
                "!" | "!=" => version != other,
                ">" => version > other,
                ">=" => version >= other,
                "<" => version < other,
                "<=" => version <= other,
                _ => return None,
            };
            operator.clear();
        }
        if !operator.is_empty() {
            return None;
        }
        any |= all;
    }
    Some(any)
}

/// `v1.12.4-alpha.1` as (1, 12, 4).
fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let version = version.trim_start_matches('v');
    let release = version.split(['-', '+']).next()?;
    let mut parts = release.split('.').map(|part| part.parse().ok());
    let all = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_extensions_write_them() {
        for (version, range, verdict) in [
            ("v1.12.4", ">= v1.0.0", Some(true)),
            ("v1.12.4", ">=v1.13.0", Some(false)),
            ("v1.13.0-alpha.1", ">= v1.13.0", Some(true)),
            ("1.8.3", ">=1.5.0 <1.9.0", Some(true)),
            ("1.9.0", ">=1.5.0 <1.9.0 || 2.0.0", Some(false)),
            ("2.0.0", ">=1.5.0 <1.9.0 || 2.0.0", Some(true)),
            ("v1.12.4", "!= v1.12.4", Some(false)),
            ("v1.12.4", "= v1.12.4", Some(true)),
            ("v1.12.4", "<= 1.12.3", Some(false)),
            ("v1.12.4", "> 1.12.4", Some(false)),
            ("v1.12.4", "", Some(true)),
            ("v1.12.4", "~1.12", None),
            ("v1.12.4", ">=", None),
            ("v1.12.4", ">= latest", None),
            ("trixie", ">= v1.0.0", None),
            ("13", ">= v1.0.0", None),
        ] {
            assert_eq!(satisfies(version, range), verdict, "{version} {range}");
        }
    }
}
