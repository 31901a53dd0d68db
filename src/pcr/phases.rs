//! The words that a booting system extends into PCR 11, one per phase. A policy is signed for a path of them, and does
//! not say for which: whoever wants to know tries those that builders sign.

use super::Bank;

/// The words that Talos extends before disks are unlocked: the only path that its builder signs.
pub const TALOS_PHASES: [&str; 3] = ["enter-initrd", "leave-initrd", "enter-machined"];
/// The words that systemd extends on its way up. `systemd-measure` and `ukify` sign the four paths that end in one of
/// them unless they are told others.
pub const SYSTEMD_PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];
/// Every word that systemd knows (`KNOWN_PHASES` of ukify), in the order in which it extends them.
const WORDS: [&str; 6] = ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"];

/// A path as `systemd-measure --phase` writes it: `enter-initrd:leave-initrd`.
#[must_use]
pub fn path(words: &[&str]) -> String {
    words.join(":")
}

/// Every path that a builder is known to sign or could be told to: Talos', and all those that systemd's words make in
/// their order, the empty one (`--phase=`) included.
pub(super) fn known_paths() -> impl Iterator<Item = String> {
    let systemds = (0..1u32 << WORDS.len()).map(|set| {
        let words: Vec<_> = WORDS.into_iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, w)| w).collect();
        path(&words)
    });
    std::iter::once(path(&TALOS_PHASES)).chain(systemds)
}

/// PCR 11 of `bank` at the end of a path that begins when the stub is done.
pub(super) fn walk(bank: Bank, sections: &[u8], path: &str) -> Vec<u8> {
    let words = path.split(':').filter(|word| !word.is_empty());
    words.fold(sections.to_vec(), |pcr, word| bank.extend(&pcr, &bank.hash(word.as_bytes())))
}
