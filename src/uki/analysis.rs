//! Everything a UKI says, in one pass over its bytes.

use super::extensions::{Extensions, SchematicLayer};
use super::facts::Facts;
use super::initrd::{Initrd, Members};
use super::sinks::{InitrdSink, Sha256Sink};
use super::texts::TextSink;
use crate::block::{ReadAt, Sink, fan_out};
use crate::pe::Head;
use crate::pe::Profiles;
use crate::sorting::Sort as _;
use crate::{Context, Error, Result};

/// A UKI that was read from end to end.
#[derive(Debug)]
#[non_exhaustive]
pub struct Uki {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file; `None` after [`Analyser::without_hash`].
    pub sha256: Option<[u8; 32]>,
    /// What headers and small sections say.
    pub facts: Facts,
    /// What the initrd holds, or why the kernel could not unpack it; `Ok(None)` without a `.initrd` section.
    pub initrd: Result<Option<Initrd>>,
    /// What `extensions.yaml` says; `Ok(None)` when the initrd has none; an error when either cannot be read.
    pub extensions: Result<Option<Extensions>>,
}

impl Uki {
    /// The schematic it says it was built from.
    #[must_use]
    pub fn schematic(&self) -> Option<&SchematicLayer> {
        self.extensions.as_ref().ok()?.as_ref()?.schematic.as_ref()
    }

    /// Squashfs files that `extensions.yaml` names and the initrd does not have: Talos would not start.
    #[must_use]
    pub fn missing_images(&self) -> Vec<&str> {
        match (&self.initrd, &self.extensions) {
            (Ok(Some(initrd)), Ok(Some(extensions))) if initrd.unread.is_none() => {
                extensions.images().filter(|i| !initrd.has_squashfs(i)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Squashfs files that Linux would not mount, with the reason, by file name.
    #[must_use]
    pub fn damaged_images(&self) -> Vec<(&str, &str)> {
        let services = self.initrd.as_ref().ok().and_then(Option::as_ref).map(|i| &i.services);
        let damaged =
            services.into_iter().flatten().filter_map(|(name, s)| Some((name.as_str(), s.damaged.as_deref()?)));
        damaged.collect()
    }

    /// Names of extension services that wait for an ExtensionServiceConfig document, sorted, and of extensions where
    /// that could not be found out, with the reason.
    #[must_use]
    pub fn waiting_services(&self) -> (Vec<String>, Vec<(String, String)>) {
        let (mut waiting, mut unread) = (Vec::new(), Vec::new());
        if let (Ok(Some(initrd)), Ok(Some(extensions))) = (&self.initrd, &self.extensions) {
            for extension in &extensions.extensions {
                // A file that is missing is somebody else's finding.
                let Some(services) = initrd.services.get(&extension.image) else { continue };
                waiting.extend(services.waiting.iter().cloned());
                unread.extend(services.unread.iter().map(|why| (extension.name.clone(), why.clone())));
            }
        }
        waiting.put_in_order(Ord::cmp);
        waiting.dedup();
        (waiting, unread)
    }

    /// Names of all extension services, sorted; `None` where not all could be read.
    #[must_use]
    pub fn services(&self) -> Option<Vec<String>> {
        let (Ok(Some(initrd)), Ok(extensions)) = (&self.initrd, &self.extensions) else { return None };
        let mut all = Vec::new();
        for extension in extensions.iter().flat_map(|extensions| &extensions.extensions) {
            let services = initrd.services.get(&extension.image)?;
            if services.unread.is_some() || services.damaged.is_some() {
                return None;
            }
            all.extend(services.all.iter().cloned());
        }
        all.put_in_order(Ord::cmp);
        all.dedup();
        Some(all)
    }
}

/// The consumers of one pass over a UKI. For callers that have more to do in the same pass than [`analyse`] offers:
/// feed all of [`Self::sinks`] the whole file in order, then [`Self::finish`].
#[derive(Debug)]
pub struct Analyser {
    head: Head,
    hash: Option<Sha256Sink>,
    texts: TextSink,
    initrd: Option<InitrdSink>,
}

impl Analyser {
    /// For the file that `head` was read from. `members` gets the content of the files it wants out of the initrd;
    /// `()` wants none.
    ///
    /// # Errors
    /// [`crate::Kind::Rejected`] when a section that should be a short text is larger than 1 MiB.
    pub fn new(head: Head, members: impl Members + 'static) -> Result<Self> {
        let texts = TextSink::new(&head)?;
        let place = Profiles::of(&head.sections).find(&head.sections, 0, ".initrd");
        // A lanzaboote stub has a path there.
        let is_path = Profiles::of(&head.sections).find(&head.sections, 0, ".initrdh").is_some();
        let place = place.filter(|_| !is_path);
        let extent = place.and_then(|i| head.sections.get(i)).map(crate::pe::Section::data);
        let initrd = extent.map(|extent| InitrdSink::new(extent, members)).transpose()?;
        Ok(Self { head, hash: Some(Sha256Sink::new()), texts, initrd })
    }

    /// Leaves the SHA-256 of the file out: a third of what a pass takes, where Authenticode and PCR 11 are hashed, too.
    #[must_use]
    pub fn without_hash(self) -> Self {
        Self { hash: None, ..self }
    }

    /// What has to see the whole file.
    pub fn sinks(&mut self) -> Vec<&mut dyn Sink> {
        let (hash, mut sinks) = self.parts();
        sinks.extend(hash.map(|hash| hash as &mut dyn Sink));
        sinks
    }

    /// The same, with the hash of the file by itself: another one may be computed beside it.
    pub(crate) fn parts(&mut self) -> (Option<&mut Sha256Sink>, Vec<&mut dyn Sink>) {
        let mut sinks: Vec<&mut dyn Sink> = vec![&mut self.texts];
        sinks.extend(self.initrd.as_mut().map(|s| s as &mut dyn Sink));
        (self.hash.as_mut(), sinks)
    }

    /// What they saw.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when they did not see the whole file.
    pub fn finish(self) -> Result<Uki> {
        let texts = self.texts.finish()?;
        let initrd = match self.initrd {
            Some(sink) => sink.finish().map(Some),
            None => Ok(None),
        };
        let extensions = match &initrd {
            Ok(Some(Initrd { extensions_yaml: Some(yaml), .. })) => Extensions::parse(yaml).map(Some),
            Ok(_) => Ok(None),
            Err(e) => Err(Error::new(e.code(), format!("unknown, because the initrd could not be read: {e}"))),
        };
        Ok(Uki {
            bytes: self.head.file_bytes,
            sha256: self.hash.map(Sha256Sink::finish),
            facts: Facts::new(self.head, texts),
            initrd,
            extensions,
        })
    }
}

/// Reads a UKI from end to end, once, and hands every byte to `extra` too.
///
/// # Errors
/// [`crate::Kind::Rejected`] when it is no PE32+ image or its texts are too large; else what `source` and `extra`
/// report. A malformed initrd is no error here: see [`Uki::initrd`].
pub fn analyse(source: &dyn ReadAt, extra: &mut [&mut dyn Sink]) -> Result<Uki> {
    let mut analyser = Analyser::new(Head::read(source)?, ())?;
    let mut sinks = analyser.sinks();
    for sink in extra {
        sinks.push(&mut **sink);
    }
    fan_out(source, 0, source.size(), &mut sinks).while_doing(|| "reading the image")?;
    analyser.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::pe::Arch;
    use crate::testkit::uki::{Builder, cpio, extensions_yaml, zstd};
    use crate::uki::probe;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    const SCHEMATIC: &str = "customization: {}\n";
    const ID: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

    fn uki() -> Vec<u8> {
        let yaml = extensions_yaml(&[("tailscale", "1.90.6")], SCHEMATIC);
        let base = cpio(&[("rootfs.sqsh", &[3; 5000])]).unwrap();
        let extra = cpio(&[("0.sqsh", b"t"), ("1.sqsh", b"s"), ("extensions.yaml", yaml.as_bytes())]).unwrap();
        let initrd = [zstd(&base, 3).unwrap(), zstd(&extra, 3).unwrap()].concat();
        Builder::new(Arch::Arm64)
            .section(".text", [0xC3; 64])
            .section(".sbat", *b"sbat,1,SBAT Version\n\0\0\0")
            .section(".sdmagic", *b"#### LoaderInfo: systemd-stub 257.9-talos ####\0")
            .section(".osrel", *b"ID=talos\nNAME=\"Talos\"\nVERSION_ID=v1.12.4\nPRETTY_NAME=\"Talos (v1.12.4)\"\n")
            .section(".cmdline", *b"talos.platform=metal console=tty0\n")
            .section(".pcrpkey", *b"-----BEGIN PUBLIC KEY-----")
            .section(".linux", [4; 700])
            .section(".initrd", initrd)
            .section(".profile", *b"ID=main")
            .section(".pcrsig", *b"{\"sha256\":[]}")
            .section(".profile", *b"ID=reset\nTITLE=Reset system disk\n")
            .section(".cmdline", *b"talos.platform=metal talos.experimental.wipe=system")
            .build()
    }

    #[test]
    fn one_pass_says_everything() {
        let pe = uki();
        let mut seen = 0;
        let mut count = |bytes: &[u8]| -> Result<()> {
            seen += bytes.len();
            Ok(())
        };
        let uki = analyse(&pe, &mut [&mut count]).unwrap();
        assert_eq!(seen, pe.len());
        assert_eq!(uki.bytes, pe.len() as u64);
        assert_eq!(uki.sha256, Some(Sha256::digest(&pe).into()));
        let facts = &uki.facts;
        assert_eq!((facts.arch, facts.version()), (Some(Arch::Arm64), Some("v1.12.4")));
        assert_eq!(facts.cmdline(), Some("talos.platform=metal console=tty0"));
        assert_eq!(facts.stub(), Some("systemd-stub 257.9-talos"));
        assert_eq!((facts.uname.as_deref(), facts.sbat.as_deref()), (None, Some("sbat,1,SBAT Version")));
        assert_eq!(facts.pcrpkey.as_deref(), Some(&b"-----BEGIN PUBLIC KEY-----"[..]));
        let [main, reset] = &facts.profiles[..] else { panic!("{:?}", facts.profiles) };
        assert_eq!((main.id.as_deref(), main.title.as_deref()), (Some("main"), None));
        assert_eq!(main.pcrsig.as_deref(), Some("{\"sha256\":[]}"));
        assert_eq!((reset.title.as_deref(), &reset.pcrsig), (Some("Reset system disk"), &None));
        assert!(reset.cmdline.as_deref().unwrap().ends_with("wipe=system"));
        assert_eq!(facts.extent(".linux").unwrap().bytes, 700);

        assert_eq!(uki.initrd.as_ref().unwrap().as_ref().unwrap().archives.len(), 2);
        let extensions = uki.extensions.as_ref().unwrap().as_ref().unwrap();
        assert_eq!(extensions.extensions[0].name, "tailscale");
        let schematic = uki.schematic().unwrap();
        assert_eq!((schematic.id.as_str(), schematic.id_matches()), (ID, Some(true)));
        assert!(uki.missing_images().is_empty());
    }

    #[test]
    fn a_probe_reads_little_and_says_the_same() {
        let pe = uki();
        let probed = probe(&pe).unwrap();
        let uki = analyse(&pe, &mut []).unwrap();
        assert_eq!(probed.profiles, uki.facts.profiles);
        assert_eq!(probed.os_release, uki.facts.os_release);
    }

    #[test]
    fn an_initrd_that_is_damaged_or_missing_is_no_end() {
        let pe = uki();
        let mut damaged = pe.clone();
        let initrd = probe(&pe).unwrap().extent(".initrd").unwrap();
        damaged[initrd.offset as usize + 20] ^= 0xFF;
        let uki = analyse(&damaged, &mut []).unwrap();
        assert_eq!(uki.initrd.unwrap_err().kind(), Kind::Rejected);
        assert!(uki.extensions.unwrap_err().to_string().contains("initrd could not be read"));

        let none = analyse(&Builder::new(Arch::Amd64).section(".osrel", *b"ID=x").build(), &mut []).unwrap();
        assert_eq!(none.initrd.unwrap(), None);
    }

    #[test]
    fn a_layer_without_its_file_is_named() {
        let yaml = extensions_yaml(&[], SCHEMATIC);
        let initrd = cpio(&[("extensions.yaml", yaml.as_bytes())]).unwrap();
        let pe = Builder::new(Arch::Amd64).section(".initrd", initrd).build();
        assert_eq!(analyse(&pe, &mut []).unwrap().missing_images(), ["0.sqsh"]);
    }

    #[test]
    fn a_sink_that_fails_ends_the_pass() {
        let mut bad = |_: &[u8]| -> Result<()> { Err(Error::io("disk full")) };
        let e = analyse(&uki(), &mut [&mut bad]).unwrap_err();
        assert_eq!(e.to_string(), "reading the image: disk full");
    }

    #[test]
    fn a_file_cut_anywhere_is_rejected_or_says_so() {
        let pe = uki();
        for end in 0..pe.len() {
            let cut = pe[..end].to_vec();
            // The last section's padding is part of its raw size: no cut leaves a whole file.
            assert_eq!(analyse(&cut, &mut []).unwrap_err().kind(), Kind::Rejected, "{end}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn damage_never_panics(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            only_headers in any::<bool>(),
        ) {
            let mut pe = uki();
            let range = if only_headers { 1024 } else { pe.len() };
            for (at, value) in flips {
                pe[at.index(range)] = value;
            }
            if let Ok(uki) = analyse(&pe, &mut []) {
                let _ = (crate::uki::check_layout(&uki.facts.head), uki.missing_images());
                if let Some(linux) = uki.facts.extent(".linux") {
                    let _ = crate::uki::kernel_version(&pe, linux);
                }
            }
        }
    }
}
