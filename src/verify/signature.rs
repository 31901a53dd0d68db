//! The checks that are about signatures: digest, signer, revocation.

use super::{Addon, Check, CheckId, CheckStatus, ImageFacts, Policy, Signer};
use crate::authenticode::{self, Certificate, Hash, ImageDigest, Signature, SignatureOutcome};
use crate::trust::Sbat;
use crate::uki::Family;
use crate::units::size;

/// What was read of an image for its signatures: digest, signatures, SBAT.
type Read<'a> = (&'a Result<ImageDigest, String>, &'a Result<Vec<Signature>, String>, &'a Result<Option<Sbat>, String>);

/// The signatures with what became of them under the policy's anchors.
pub(super) struct Signed<'a> {
    digest: &'a Result<ImageDigest, String>,
    read: &'a Result<Vec<Signature>, String>,
    sbat: &'a Result<Option<Sbat>, String>,
    family: Family,
    policy: &'a Policy,
    signatures: &'a [Signature],
    outcomes: Vec<SignatureOutcome>,
}

impl<'a> Signed<'a> {
    pub(super) fn new(facts: &'a ImageFacts, policy: &'a Policy) -> Self {
        Self::of((&facts.digest, &facts.signatures, &facts.sbat), facts.family, policy)
    }

    /// An addon, whose signatures are held against the same.
    pub(super) fn of_addon(addon: &'a Addon, policy: &'a Policy) -> Self {
        Self::of((&addon.digest, &addon.signatures, &addon.sbat), Family::Unknown, policy)
    }

    fn of((digest, read, sbat): Read<'a>, family: Family, policy: &'a Policy) -> Self {
        let signatures = read.as_deref().unwrap_or_default();
        let mut signed = Self { digest, read, sbat, family, policy, signatures, outcomes: Vec::new() };
        signed.outcomes = signed.outcomes_with(&policy.anchors.iter().map(|a| &a.certificate).collect::<Vec<_>>());
        signed
    }

    /// Without a digest of the image no signature matches it; their chains are still looked at.
    fn outcomes_with(&self, trusted: &[&Certificate]) -> Vec<SignatureOutcome> {
        match self.digest {
            Ok(digest) => {
                let mut digests = vec![(Hash::Sha256, &digest.sha256[..])];
                digests.extend(digest.others.iter().map(|(hash, digest)| (*hash, &digest[..])));
                authenticode::verify_by(self.signatures, &digests, trusted)
            }
            Err(_) => authenticode::verify_by(self.signatures, &[], trusted),
        }
    }

    /// A problem of signatures: a failure, or a warning under `--allow-untrusted`.
    fn problem(&self, id: CheckId, detail: impl Into<String>) -> Check {
        if self.policy.allow_untrusted {
            Check::new(id, CheckStatus::Warn, format!("{} Accepted because of --allow-untrusted.", detail.into()))
        } else {
            Check::new(id, CheckStatus::Fail, detail)
        }
    }

    fn talos(&self) -> bool {
        self.family == Family::Talos
    }

    fn unsigned(&self) -> String {
        let way_out = if self.talos() {
            "Fetch the factory's `metal-<arch>-secureboot-uki.efi` (or the secureboot ISO)"
        } else {
            "Sign it"
        };
        format!(
            "The image is not signed: it has no certificate table, so it is a build without Secure Boot. {way_out}, \
             or give \
             --allow-untrusted if the board runs without Secure Boot."
        )
    }

    pub(super) fn digest(&self) -> Check {
        let id = CheckId::AuthenticodeDigest;
        let digest = match (self.digest, self.read) {
            (Err(why), _) => {
                return self.problem(id, format!("The digest that firmware checks cannot be computed: {why}."));
            }
            (_, Err(why)) => {
                return self.problem(id, format!("The signatures cannot be read, and firmware refuses that: {why}."));
            }
            (Ok(_), Ok(signatures)) if signatures.is_empty() && self.in_db_by_hash() => {
                return Check::new(
                    id,
                    CheckStatus::Skip,
                    "The image is not signed, and needs no signature: see the next check.",
                );
            }
            (Ok(_), Ok(signatures)) if signatures.is_empty() => return self.problem(id, self.unsigned()),
            (Ok(digest), Ok(_)) => digest,
        };
        let matching = self.outcomes.iter().filter(|o| o.digest_matches).count();
        if matching == 0
            && let Some(what) = self.digest_not_computed(digest)
        {
            return self.problem(id, format!("Whether the image is what was signed is not known: {what}."));
        }
        let hash = hex::encode(digest.sha256);
        if matching == 0 {
            return self.problem(
                id,
                format!(
                    "The image was changed after it was signed: its Authenticode SHA-256 is {hash}, and its signature \
                     was made for another. Fetch it again."
                ),
            );
        }
        let gaps = if digest.gap_bytes > 0 {
            format!(" Between sections lie {} that no signature covers and nothing loads.", size(digest.gap_bytes))
        } else {
            String::new()
        };
        let all = self.outcomes.len();
        Check::new(
            id,
            CheckStatus::Pass,
            format!("The Authenticode SHA-256 {hash} is the one signed ({matching} of {all} signatures).{gaps}"),
        )
    }

    /// Why no stated digest could be compared, if that is so.
    fn digest_not_computed(&self, digest: &ImageDigest) -> Option<String> {
        let computed = |hash: Hash| hash == Hash::Sha256 || digest.others.iter().any(|(h, _)| *h == hash);
        let first = self.signatures.first()?;
        if self.signatures.iter().any(|s| s.digest_hash.is_some_and(computed)) {
            return None;
        }
        Some(match (first.digest_hash, &first.unsupported) {
            (Some(hash), _) => format!("its {hash} was not computed, because the image was read remotely, only once"),
            (None, Some(why)) => why.clone(),
            (None, None) => "its algorithm is not supported here".into(),
        })
    }

    /// The trusted signature whose anchor comes first in the order of preference.
    fn trusted(&self) -> Option<(&Signature, usize)> {
        let trusted = self.signatures.iter().zip(&self.outcomes).filter(|(_, o)| o.is_trusted());
        trusted.filter_map(|(s, o)| Some((s, o.anchor?))).min_by_key(|(_, anchor)| *anchor)
    }

    fn in_db_by_hash(&self) -> bool {
        let db = &self.policy.firmware.db_images;
        self.digest.as_ref().is_ok_and(|d| db.contains(&d.sha256) || d.unpadded.is_some_and(|d| db.contains(&d)))
    }

    pub(super) fn signer(&self) -> Check {
        let id = CheckId::AuthenticodeSigner;
        if self.in_db_by_hash() {
            return Check::new(id, CheckStatus::Pass, "The image itself is in the firmware's db, by its hash.");
        }
        if let Err(why) = self.read {
            return self.problem(id, format!("The signatures cannot be read, and firmware refuses that: {why}."));
        }
        let Some(first) = self.signatures.first() else { return self.problem(id, self.unsigned()) };
        let Some((signature, index)) = self.trusted() else {
            return self.problem(id, self.why_nobody(first));
        };
        let origin = self.policy.anchors.get(index).map(|a| a.origin.to_string()).unwrap_or_default();
        let signer = &signature.signer;
        let expired =
            if signer.expired(self.policy.now) { " It has expired, which firmware does not look at." } else { "" };
        let trusted = format!(
            "Signed by {} (valid until {}), trusted by {origin}.{expired}",
            signer.subject(),
            signer.not_after()
        );
        self.firmware_would_refuse().map_or_else(
            || Check::new(id, CheckStatus::Pass, trusted.clone()),
            |(refuses, why)| {
                let detail = format!("{trusted} {why}");
                if refuses { self.problem(id, detail) } else { Check::new(id, CheckStatus::Warn, detail) }
            },
        )
    }

    fn why_nobody(&self, first: &Signature) -> String {
        let signer = first.signer.subject();
        if let Some(why) = self.outcomes.iter().filter(|o| o.unsupported).find_map(|o| o.problem.as_ref()) {
            return format!(
                "The signature by {signer} cannot be verified: {why}. Whether the board's firmware accepts it is not \
                 known."
            );
        }
        if let Some(why) = self.outcomes.iter().find_map(|o| o.problem.as_ref()) {
            return format!("The signature by {signer} is wrong: {why}. Fetch the image again.");
        }
        let compared = self.digest.as_ref().is_ok_and(|d| self.digest_not_computed(d).is_none());
        if compared && self.outcomes.iter().all(|o| !o.digest_matches) {
            return format!("The signature by {signer} was made for another image. Fetch the image again.");
        }
        if self.policy.anchors.is_empty() {
            let where_from = if self.talos() { " (the factory serves it as /secureboot/signing-cert.pem)" } else { "" };
            return format!(
                "The image says it is signed by {signer}, and there is no trusted certificate to check it against. \
                 Give the signing \
                 certificate with --cert{where_from}, or --efivars to use the firmware's db."
            );
        }
        let mut origins: Vec<_> = self.policy.anchors.iter().map(|a| a.origin.to_string()).collect();
        origins.dedup();
        format!(
            "The image is signed by {signer} (issued by {}), whom no trusted certificate vouches for ({}). If \
             that signer is right, give its certificate with --cert.",
            first.signer.issuer(),
            origins.join(", ")
        )
    }

    /// Whether db stands for the image; `None` when there is no db to ask.
    fn firmware_accepts(&self) -> Option<bool> {
        let firmware = &self.policy.firmware;
        let db = firmware.db.as_ref()?;
        if db.is_empty() && firmware.db_images.is_empty() && firmware.secure_boot != Some(true) {
            return None;
        }
        let by_signer = || self.outcomes_with(&db.iter().collect::<Vec<_>>()).iter().any(SignatureOutcome::is_trusted);
        Some(self.in_db_by_hash() || by_signer())
    }

    /// Why the board is certain to refuse the image.
    pub(super) fn firmware_refuses(&self) -> Option<String> {
        let firmware = &self.policy.firmware;
        if firmware.secure_boot != Some(true) || !self.policy.firmware_is_the_boards {
            return None;
        }
        if self.firmware_accepts() == Some(false) {
            // What is nearer to the cause comes first: keys do not help an image that was changed.
            let compared = self.digest.as_ref().is_ok_and(|d| self.digest_not_computed(d).is_none());
            let changed = compared && !self.signatures.is_empty() && self.outcomes.iter().all(|o| !o.digest_matches);
            return Some(if changed {
                "Secure Boot is on, and the image was changed after it was signed".into()
            } else {
                "Secure Boot is on and no certificate or hash in the firmware's db covers the image".into()
            });
        }
        let (dbx, digest) = (firmware.dbx.as_ref()?, self.digest.as_ref().ok()?);
        let reasons = dbx.reasons(digest, &self.outcomes);
        (!reasons.is_empty()).then(|| format!("Secure Boot is on, and {}", reasons.join("; ")))
    }

    /// What the firmware whose variables were read would say to an image that others trust, and whether that is
    /// certain to matter.
    fn firmware_would_refuse(&self) -> Option<(bool, String)> {
        if self.firmware_accepts() != Some(false) {
            return None;
        }
        let detail = match self.policy.firmware.secure_boot {
            Some(true) if self.policy.firmware_is_the_boards => {
                "But Secure Boot is on and the firmware's db does not hold this signer: the board would refuse to \
                 start the image. Enroll the certificate first, or use an image signed with the enrolled key."
            }
            Some(true) => {
                "The firmware whose variables were read has Secure Boot on and would refuse this signer; that matters \
                 if it is the board that will boot the image."
            }
            _ => "Secure Boot is off; if it were on, the firmware's db does not hold this signer.",
        };
        let certain = self.policy.firmware.secure_boot == Some(true) && self.policy.firmware_is_the_boards;
        Some((certain, detail.into()))
    }

    /// Who stands for it, or what is wrong with its signatures, in a few words.
    pub(super) fn in_short(&self) -> Result<String, String> {
        if self.in_db_by_hash() {
            return Ok("known to the firmware's db by its hash".into());
        }
        let why = match (self.read, self.digest) {
            (Err(why), _) => format!("its signatures cannot be read ({why})"),
            (_, Err(why)) => format!("the digest that firmware checks cannot be computed ({why})"),
            (Ok(all), _) if all.is_empty() => "it is not signed".to_owned(),
            (Ok(_), Ok(digest)) => {
                let signer = self.signatures.first().map(|s| s.signer.subject()).unwrap_or_default();
                match self.trusted() {
                    Some((signature, _)) => return Ok(format!("signed by {}", signature.signer.subject())),
                    None if self.digest_not_computed(digest).is_none()
                        && self.outcomes.iter().all(|o| !o.digest_matches) =>
                    {
                        format!("it was changed after {signer} signed it")
                    }
                    None => format!("it is signed by {signer}, whom no trusted certificate vouches for"),
                }
            }
        };
        Err(why)
    }

    pub(super) fn revocation(&self) -> Check {
        let id = CheckId::Revocation;
        let firmware = &self.policy.firmware;
        let level = self.policy.sbat_level.as_ref().or(firmware.sbat_level.as_ref());
        if firmware.dbx.is_none() && level.is_none() {
            let why = self.policy.no_variables.as_deref().unwrap_or("the firmware has neither dbx nor SbatLevelRT");
            return Check::new(
                id,
                CheckStatus::Skip,
                format!("No revocation list to check ({why}). --efivars names a directory with dbx."),
            );
        }
        let (mut reasons, mut looked_at) = (Vec::new(), Vec::new());
        if let Some(dbx) = &firmware.dbx {
            match self.digest {
                Ok(digest) => reasons.extend(dbx.reasons(digest, &self.outcomes)),
                Err(why) => reasons.push(format!("its digest cannot be looked up in dbx ({why})")),
            }
            let blind = if dbx.not_looked_at > 0 {
                format!(", {} more of other types or unreadable", dbx.not_looked_at)
            } else {
                String::new()
            };
            looked_at.push(format!("dbx ({} entries{blind})", dbx.len()));
        }
        if let Some(level) = level {
            match self.sbat {
                Ok(sbat) => reasons.extend(sbat.iter().flat_map(|s| s.below(level)).map(|(name, has, lowest)| {
                    format!("{name} is of SBAT generation {has}, and the level asks for {lowest}")
                })),
                Err(why) => reasons.push(format!("its .sbat cannot be read ({why})")),
            }
            looked_at.push("the SBAT level".into());
        }
        let looked_at = looked_at.join(" and ");
        if reasons.is_empty() {
            return Check::new(id, CheckStatus::Pass, format!("Nothing in {looked_at} revokes the image."));
        }
        let reasons = reasons.join("; ");
        if firmware.secure_boot == Some(false) {
            let detail =
                format!("Revoked: {reasons}. Secure Boot is off; if it were on, the board would not start it.");
            return Check::new(id, CheckStatus::Warn, detail);
        }
        Check::new(
            id,
            CheckStatus::Fail,
            format!("Revoked: {reasons}. Firmware with Secure Boot refuses it: use a newer image or another signer."),
        )
    }

    /// Whether PCR 7 stays what it is. With Secure Boot on the firmware measures into it the entry of db by which it
    /// has verified each program (TCG PC Client Platform Firmware Profile, "PCR[7]").
    pub(super) fn pcr7(&self) -> Check {
        let id = CheckId::Pcr7;
        let Some(installed) = &self.policy.installed else {
            return Check::new(id, CheckStatus::Skip, "There is no installed UKI to compare the signer with.");
        };
        let firmware = &self.policy.firmware;
        if self.policy.firmware_is_the_boards && firmware.secure_boot == Some(false) {
            return Check::new(
                id,
                CheckStatus::Pass,
                "Secure Boot is off: PCR 7 does not depend on who has signed the image.",
            );
        }
        let Some(old) = installed.signatures.first() else {
            return Check::new(
                id,
                CheckStatus::Skip,
                "The installed UKI is not signed: no disk is sealed to its signer.",
            );
        };
        let detail = match (self.authorities(&installed.signatures), self.signatures.first()) {
            (Some((old, new)), _) if old == new => {
                let detail =
                    format!("One entry of the firmware's db, {new}, covers both this image and the installed one.");
                return Check::new(id, CheckStatus::Pass, detail);
            }
            (Some((old, new)), _) => {
                format!("The firmware's db covers the image by {new} and the installed one by {old}.")
            }
            (None, Some(new)) if old.signer == new.signer => {
                let detail = format!("The signer is that of the installed UKI ({}).", new.signer.subject());
                return Check::new(id, CheckStatus::Pass, detail);
            }
            (None, Some(new)) => format!(
                "The image is signed by {}, and the installed UKI by {}, which matters unless one certificate in the \
                 firmware's db covers both.",
                new.signer.subject(),
                old.signer.subject()
            ),
            (None, None) => format!("The image is not signed, and the installed UKI is, by {}.", old.signer.subject()),
        };
        let detail = format!(
            "{detail} With Secure Boot on that changes PCR 7: disks sealed to it (Talos seals STATE and EPHEMERAL to \
             PCR 7 unless told \
             otherwise) would stay locked after the swap."
        );
        if self.policy.require_pcr_key {
            return Check::new(id, CheckStatus::Fail, detail);
        }
        Check::new(id, CheckStatus::Warn, format!("{detail} --require-pcr-key makes this a failure."))
    }

    /// The entries of the firmware's db that stand for an image with these signatures and for this image; `None` where
    /// db is not known or does not stand for both.
    fn authorities(&self, installed: &[Signature]) -> Option<(String, String)> {
        let db: Vec<&Certificate> = self.policy.firmware.db.as_ref()?.iter().collect();
        let entry = |outcomes: &[SignatureOutcome]| {
            let index = outcomes.iter().find_map(|o| o.anchor)?;
            db.get(index).map(|c| format!("{} (SHA-256 {})", c.subject(), hex::encode(&c.fingerprint()[..4])))
        };
        let new = if self.in_db_by_hash() { Some("its hash".to_owned()) } else { entry(&self.outcomes_with(&db)) };
        Some((entry(&authenticode::verify_by(installed, &[], &db))?, new?))
    }

    pub(super) fn signers(&self) -> Vec<Signer> {
        let trusted_by = |o: &SignatureOutcome| o.is_trusted().then(|| self.policy.anchors.get(o.anchor?)).flatten();
        self.signatures
            .iter()
            .zip(&self.outcomes)
            .map(|(signature, outcome)| Signer {
                subject: signature.signer.subject(),
                issuer: signature.signer.issuer(),
                serial: signature.signer.serial(),
                fingerprint: hex::encode(signature.signer.fingerprint()),
                not_after: signature.signer.not_after(),
                expired: signature.signer.expired(self.policy.now),
                trusted_by: trusted_by(outcome).map(|a| a.origin.to_string()),
            })
            .collect()
    }
}
