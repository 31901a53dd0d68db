//! Trust anchors and revocation: certificates, db, dbx, SBAT.
//!
//! Where trust comes from, in the order in which it is asked: certificates the user names, the firmware's db, the keys
//! on the ESP that systemd-boot would enroll, the signer of the installed UKI, the factory's certificate. Reads files
//! and EFI variables, writes nothing. What an image carries along proves nothing and never becomes an anchor here.

mod revocation;
mod sbat;
mod siglist;

pub use revocation::Dbx;
pub use sbat::Sbat;
pub use siglist::{SignatureListEntry, TbsHash, parse as parse_signature_lists, parse_auth};

use crate::authenticode::Certificate;
use crate::efivars::{EfiVars, GLOBAL, SECURITY_DATABASE, SHIM};
use crate::{Context, Error, Result};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Larger certificate files are refused, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// More certificates in one file are refused.
const MAX_CERTIFICATES: usize = 64;

/// Where an anchor comes from, in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AnchorOrigin {
    /// A file the user named with `--cert`.
    CertFile(PathBuf),
    /// The firmware's db.
    FirmwareDb,
    /// `loader/keys/auto/db.auth` on the ESP.
    EspDbAuth,
    /// The signer of the UKI that is installed: continuity.
    InstalledUki,
    /// `/secureboot/signing-cert.pem` of the factory that the image came from over HTTPS.
    Factory(String),
}

impl fmt::Display for AnchorOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertFile(path) => write!(f, "--cert {}", path.display()),
            Self::FirmwareDb => f.write_str("the firmware's db"),
            Self::EspDbAuth => f.write_str("loader/keys/auto/db.auth on the ESP"),
            Self::InstalledUki => f.write_str("the signer of the installed UKI"),
            Self::Factory(url) => write!(f, "the signing certificate of {url}"),
        }
    }
}

/// What is trusted: a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Where it comes from.
    pub origin: AnchorOrigin,
    /// The certificate.
    pub certificate: Certificate,
}

impl Anchor {
    /// The certificates of a file as anchors.
    ///
    /// # Errors
    /// As [`parse_certificates`]; [`crate::Kind::Io`] when the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Vec<Self>> {
        let read = || -> Result<Vec<Certificate>> {
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
            parse_certificates(&bytes)
        };
        let certificates = read().while_doing(|| format!("reading the certificate {}", path.display()))?;
        Ok(Self::all(&AnchorOrigin::CertFile(path.to_owned()), certificates))
    }

    /// The certificates in a `db.auth` file as anchors.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when the file breaks its format.
    pub fn from_db_auth(bytes: &[u8]) -> Result<Vec<Self>> {
        Ok(Self::all(&AnchorOrigin::EspDbAuth, certificates(&parse_auth(bytes)?)))
    }

    /// The same origin for several certificates.
    #[must_use]
    pub fn all(origin: &AnchorOrigin, certificates: Vec<Certificate>) -> Vec<Self> {
        certificates.into_iter().map(|certificate| Self { origin: origin.clone(), certificate }).collect()
    }
}

/// The certificates in a file: one in DER, or any number in PEM with text between them.
///
/// # Errors
/// [`crate::Kind::Rejected`] when there is none, or one is malformed.
pub fn parse_certificates(bytes: &[u8]) -> Result<Vec<Certificate>> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::rejected(format!("more than {MAX_FILE} bytes")));
    }
    if memchr::memmem::find(bytes, BEGIN).is_none() {
        return Certificate::from_der(bytes).map(|c| vec![c]).map_err(|e| {
            e.advise("give a file with an X.509 certificate in PEM (-----BEGIN CERTIFICATE-----) or DER")
        });
    }
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some(start) = memchr::memmem::find(rest, BEGIN) {
        let from = rest.get(start..).unwrap_or_default();
        let end = memchr::memmem::find(from, END)
            .map(|end| end + END.len())
            .ok_or_else(|| Error::rejected("a PEM certificate without its END line"))?;
        let (block, behind) = from.split_at_checked(end).unwrap_or_default();
        let (_, der) = der::pem::decode_vec(block).map_err(|e| Error::rejected(format!("not PEM ({e})")))?;
        all.push(Certificate::from_der(&der)?);
        if all.len() > MAX_CERTIFICATES {
            return Err(Error::rejected(format!("more than {MAX_CERTIFICATES} certificates")));
        }
        rest = behind;
    }
    Ok(all)
}

/// The certificates among the entries of signature lists.
#[must_use]
pub fn certificates(entries: &[SignatureListEntry]) -> Vec<Certificate> {
    entries
        .iter()
        .filter_map(|e| if let SignatureListEntry::Certificate(c) = e { Some((**c).clone()) } else { None })
        .collect()
}

/// What the firmware says about Secure Boot.
#[derive(Debug, Clone, Default)]
pub struct Firmware {
    /// `SecureBoot`: whether it is enforced. `None` when the variable could not be read.
    pub secure_boot: Option<bool>,
    /// `SetupMode`: whether keys can be enrolled without authentication.
    pub setup_mode: Option<bool>,
    /// The certificates in db; `None` when there is no such variable.
    pub db: Option<Vec<Certificate>>,
    /// Authenticode SHA-256 of images in db.
    pub db_images: Vec<[u8; 32]>,
    /// dbx; `None` when there is no such variable.
    pub dbx: Option<Dbx>,
    /// shim's `SbatLevelRT`; `None` when there is no such variable.
    pub sbat_level: Option<Sbat>,
}

impl Firmware {
    /// Reads what is there. No variables at all give an empty state.
    ///
    /// # Errors
    /// A variable that exists and cannot be read or parsed.
    pub fn read(vars: &EfiVars) -> Result<Self> {
        let lists = |name: &str| -> Result<Option<Vec<SignatureListEntry>>> {
            let Some(variable) = vars.read(name, SECURITY_DATABASE)? else { return Ok(None) };
            siglist::parse(&variable.data).map(Some).while_doing(|| format!("reading the EFI variable {name}"))
        };
        let db = lists("db")?;
        let sbat = vars.read("SbatLevelRT", SHIM)?;
        Ok(Self {
            secure_boot: vars.flag("SecureBoot", GLOBAL)?,
            setup_mode: vars.flag("SetupMode", GLOBAL)?,
            db_images: db
                .iter()
                .flatten()
                .filter_map(|e| if let SignatureListEntry::ImageSha256(hash) = e { Some(*hash) } else { None })
                .collect(),
            db: db.as_deref().map(certificates),
            dbx: lists("dbx")?.map(|entries| entries.into_iter().collect()),
            sbat_level: sbat
                .map(|v| Sbat::parse(&v.data))
                .transpose()
                .while_doing(|| "reading the EFI variable SbatLevelRT")?,
        })
    }

    /// The certificates in db as anchors.
    #[must_use]
    pub fn anchors(&self) -> Vec<Anchor> {
        Anchor::all(&AnchorOrigin::FirmwareDb, self.db.clone().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::siglist::tests as lists;
    use super::*;
    use crate::testkit::signing::SigningKey;

    #[test]
    fn certificate_files_in_every_form() {
        let (a, b) = (SigningKey::test("a").unwrap(), SigningKey::other_test("b").unwrap());
        let (pem_a, pem_b) = (a.certificate_pem().unwrap(), b.certificate_pem().unwrap());
        let (cert_a, cert_b) = (a.certificate().unwrap(), b.certificate().unwrap());
        let parse = |bytes: &[u8]| parse_certificates(bytes).unwrap();
        assert_eq!(parse(&a.certificate_der().unwrap()), std::slice::from_ref(&cert_a));
        assert_eq!(parse(pem_a.as_bytes()), std::slice::from_ref(&cert_a));
        let both = format!("# a comment\n{pem_a}subject=CN = b\r\n{}", pem_b.replace('\n', "\r\n"));
        assert_eq!(parse(both.as_bytes()), [cert_a, cert_b]);
        let cut = &pem_a.as_bytes()[..pem_a.len() - 10];
        for bad in [&b""[..], b"nothing", cut, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(parse_certificates(bad).is_err());
        }
    }

    #[test]
    fn the_firmware_is_read_from_its_variables() {
        let key = SigningKey::test("db").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, vendor: uuid::Uuid, data: &[u8]| {
            let bytes = [&[7, 0, 0, 0], data].concat();
            std::fs::write(dir.path().join(format!("{name}-{vendor}")), bytes).unwrap();
        };
        let vars = EfiVars::open(Some(dir.path()));
        assert!(Firmware::read(&vars).unwrap().db.is_none());
        put("SecureBoot", GLOBAL, &[1]);
        put("SetupMode", GLOBAL, &[0]);
        let db = [lists::certificates(&key.certificate_der().unwrap()), lists::hashes(&[&[3; 32]])].concat();
        put("db", SECURITY_DATABASE, &db);
        put("dbx", SECURITY_DATABASE, &lists::hashes(&[&[4; 32]]));
        put("SbatLevelRT", SHIM, b"sbat,1,2024010900\nshim,4\n");
        let firmware = Firmware::read(&EfiVars::open(Some(dir.path()))).unwrap();
        assert_eq!((firmware.secure_boot, firmware.setup_mode), (Some(true), Some(false)));
        assert_eq!(firmware.anchors()[0].certificate, key.certificate().unwrap());
        assert_eq!(firmware.db_images, [[3; 32]]);
        assert_eq!(firmware.dbx.unwrap().images, [[4; 32]]);
        assert_eq!(firmware.sbat_level.unwrap().components.len(), 2);
        put("dbx", SECURITY_DATABASE, b"garbage");
        assert!(Firmware::read(&EfiVars::open(Some(dir.path()))).unwrap_err().to_string().contains("dbx"));
    }
}
