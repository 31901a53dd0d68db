//! Known answers: Talos' own unit test (thirteen sections), and a two-profile UKI that real stubs measured the same.

use super::*;
use crate::block::Sink;
use crate::pe::Head;
use crate::testkit::pe::pe;

fn hashes(file: &[u8], banks: &[Bank], chunk: usize) -> (Head, BTreeMap<usize, BankHashes>) {
    let head = Head::read(&file.to_vec()).unwrap();
    let mut sink = SectionHashes::new(&head, banks).unwrap();
    for bytes in file.chunks(chunk) {
        sink.chunk(bytes).unwrap();
    }
    let hashes = sink.finish().unwrap();
    (head, hashes)
}

fn after_phases(bank: Bank, file: &[u8], profile: usize) -> PcrValues {
    let (head, hashes) = hashes(file, &[bank], 1000);
    let profiles = profiles(&head.sections, None);
    values(bank, &profiles[profile].measured, &hashes, &TALOS_PHASES).unwrap()
}

const NAMES: [&str; 13] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey", ".profile",
    ".dtbauto", ".hwids",
];

#[test]
fn talos_own_vector() {
    // Here .dtbauto counts as matching, so the measuring order is spelled out.
    let all: BTreeMap<_, _> =
        NAMES.iter().enumerate().map(|(i, name)| (i, BankHashes::of(name.as_bytes(), &Bank::ALL))).collect();
    let measured: Vec<_> = NAMES.iter().enumerate().map(|(i, name)| ((*name).to_owned(), i)).collect();
    let cases = [
        (
            Bank::Sha256,
            "e42bb99dcab60a1e713d01dd4409aba21bacdfc4b3b71e745022fd8b45696793",
            "535f91bd7887cccefedd0b0344b3ce7d4fc390f356b276960547502657258839",
            "c0c4f61f8ac39267a7638cde8029b82a0ccd378b2acbfdffb77ee1f0f9d464ec",
        ),
        (
            Bank::Sha384,
            "5c390e6f9a28bd40e08abccdf607ce8baab36e82ea3499c8cb8485cc1d39d072fdba77b3a4d2ab62ae2296e86ce512f6",
            "07a81a45b36a54296527f424360e376e6cf74ab4681c035079832ea68525bc02926fd793151665408ecc182bd32b5b03",
            "e8f6311e36f9ee038df65255ae7c471d1d1f91ce742b98a152be72337f6c937d",
        ),
        (Bank::Sha512, "", "", "207a8217158f9cc521dca50358a593dc61ed9308ef27da9df4ef64d634309160"),
    ];
    for (bank, sections, phases, policy) in cases {
        let values = values(bank, &measured, &all, &TALOS_PHASES).unwrap();
        if !sections.is_empty() {
            assert_eq!(hex::encode(&values.sections), sections, "{bank}");
            assert_eq!(hex::encode(values.last()), phases, "{bank}");
        }
        assert_eq!(hex::encode(policy_digest(bank, values.last())), policy, "{bank}");
    }
}

fn two_profiles() -> Vec<u8> {
    pe(&[
        (".sbat", b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n", 0),
        (".osrel", b"NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.12.4\n", 0),
        (".cmdline", b"console=ttyS0 talos.platform=metal", 0),
        (".uname", b"6.18.0-talos", 0),
        (".linux", b"KERNEL", 0),
        (".initrd", b"INITRD", 0),
        (".profile", b"ID=main", 0),
        (".pcrsig", b"{}", 0),
        (".profile", b"ID=reset\nTITLE=Reset", 0),
        (".cmdline", b"console=ttyS0 talos.experimental.wipe=system", 0),
        (".pcrsig", b"{}", 0),
    ])
}

#[test]
fn two_profiles_as_real_stubs_measure_them() {
    let cases = [
        (
            Bank::Sha256,
            0,
            "53760b9909dceb2017f6438138c994b6418e1994f81fc087c5270a5891a62294",
            "50bbaf8c3535f2ff6415aa450b863f3b19457cbb06953df7717262e80657ef9d",
            "12c097d17abeab4b5627b345ab86699cc7a308f9b5f78dad32a4fce4f1ed8970",
        ),
        (
            Bank::Sha256,
            1,
            "cfda74d286fb57ea3fe5f989db3b9c36345e6a60c8aa292ea2f5209d627735e1",
            "a541e64905f68e8b7e4677e6986b3b380da6b709258292671cd4ba7de087e79d",
            "42d370d07770e1399f0e53573143c6b1a0ddfcd7d41e97074117be8b1bb8caa8",
        ),
        (
            Bank::Sha384,
            0,
            "94626fd05835486ea9515c521cfa8d1866a4265ab26c39e8717d0d59ff6bf42e596bcc7db8201005eb2f04d4efbe201c",
            "7ece4349b169c1199ffdbffc43f8b65e4c2b25697ef4bdc6aef06ea574135237b5e5f868460c75b244384bf75967d74f",
            "4d084c5ee1ff72336bf8502b1c4b6ded7d40be9c1350d16ad321f46708990bd6",
        ),
    ];
    for (bank, profile, sections, phases, policy) in cases {
        let values = after_phases(bank, &two_profiles(), profile);
        assert_eq!(hex::encode(&values.sections), sections, "{bank} profile {profile}");
        assert_eq!(hex::encode(values.last()), phases, "{bank} profile {profile}");
        assert_eq!(hex::encode(policy_digest(bank, values.last())), policy, "{bank} profile {profile}");
    }
}

#[test]
fn an_old_stub_takes_fewer_sections() {
    let head = Head::read(&two_profiles()).unwrap();
    let names = |stub| -> Vec<Vec<String>> {
        let profiles = profiles(&head.sections, stub);
        profiles.into_iter().map(|p| p.measured.into_iter().map(|(name, _)| name).collect()).collect()
    };
    assert_eq!(names(Some(252)), [[".linux", ".osrel", ".cmdline", ".initrd"]]);
    assert_eq!(names(Some(254)), [[".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"]]);
    assert_eq!(names(Some(257)), vec![[".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat", ".profile"]; 2]);
    assert_eq!(names(None), names(Some(262)));
}

#[test]
fn the_stub_says_its_version() {
    assert_eq!(stub_version(b"#### LoaderInfo: systemd-stub 257.9-1~deb13u1 ####\0"), Some(257));
    assert_eq!(stub_version(b"#### LoaderInfo: systemd-stub 262 ####"), Some(262));
    for other in [
        &b"#### LoaderInfo: systemd-boot 257 ####"[..],
        b"systemd-stub ",
        b"",
        b"\xFF\xFE",
        b"systemd-stub 99999999999",
    ] {
        assert_eq!(stub_version(other), None);
    }
}

#[test]
fn data_is_virtual_size_bytes_zero_filled() {
    let mut file = pe(&[(".linux", &[5; 600], 0), (".initrd", &[6; 10], 0)]);
    let virtual_size = |section: usize| 88 + 240 + 40 * section + 8;
    file[virtual_size(0)..][..4].copy_from_slice(&5000u32.to_le_bytes());
    let expected = {
        let mut data = vec![5; 600];
        data.resize(5000, 0);
        Bank::Sha256.hash(&data)
    };
    for chunk in [1, 100, 1 << 16] {
        let (_, hashes) = hashes(&file, &[Bank::Sha256], chunk);
        assert_eq!(hashes[&0].get(Bank::Sha256), Some(&expected[..]));
        assert_eq!(hashes[&1].get(Bank::Sha256), Some(&Bank::Sha256.hash(&[6; 10])[..]));
        assert_eq!(hashes[&1].get(Bank::Sha512), None);
    }
    file[virtual_size(0)..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(SectionHashes::new(&Head::read(&file).unwrap(), &[Bank::Sha256]).is_err());
}

#[test]
fn a_stream_that_ends_early_is_an_error() {
    let file = two_profiles();
    let mut sink = SectionHashes::new(&Head::read(&file).unwrap(), &[Bank::Sha256]).unwrap();
    sink.chunk(&file[..2000]).unwrap();
    assert!(sink.finish().is_err());
}

#[test]
fn of_sections_that_fit_hardware_one_is_taken_or_none() {
    let file = pe(&[
        (".osrel", b"x", 0),
        (".linux", b"k", 0),
        (".dtbauto", b"a", 0),
        (".dtbauto", b"b", 0),
        (".hwids", b"h", 0),
        (".efifw", b"f", 0),
    ]);
    let head = Head::read(&file).unwrap();
    let alternatives = |stub| -> Vec<Vec<usize>> {
        let all = profiles(&head.sections, stub).remove(0).alternatives();
        all.iter().map(|sections| sections.iter().map(|(_, i)| *i).collect()).collect()
    };
    assert_eq!(alternatives(Some(257)), [vec![1, 0, 4], vec![1, 0, 2, 4], vec![1, 0, 3, 4]]);
    let all = alternatives(Some(258));
    assert_eq!((all.len(), &all[0], &all[5]), (6, &vec![1, 0, 4], &vec![1, 0, 3, 4, 5]));
    assert_eq!(alternatives(Some(256)), [[1, 0]]);
}

#[test]
fn a_profile_without_bytes_divides_for_the_stub_as_for_everybody() {
    let file = pe(&[(".osrel", b"x", 0), (".profile", b"", 0), (".cmdline", b"a", 0), (".profile", b"ID=b", 0)]);
    let head = Head::read(&file).unwrap();
    let taken = profiles(&head.sections, Some(257));
    let measured: Vec<Vec<usize>> = taken.iter().map(|p| p.measured.iter().map(|(_, i)| *i).collect()).collect();
    assert_eq!(measured, [[0, 2], [0, 3]]);
    assert_eq!(crate::pe::Profiles::of(&head.sections).count(), 2);
}

mod signed {
    use super::*;
    use crate::testkit::signing::SigningKey;
    use base64::Engine;

    const STUB: [u8; 32] = [1; 32];

    /// A `.pcrsig` of one policy, as a builder writes it that is told so.
    struct Signer<'a> {
        key: &'a SigningKey,
        bank: Bank,
        value: &'a [u8],
        phases: &'a [&'a str],
        pcrs: &'a str,
        reference: Option<&'a str>,
    }

    impl Signer<'_> {
        fn json(&self) -> String {
            let policy = policy_digest(self.bank, &phases::walk(self.bank, self.value, &path(self.phases)));
            let mut message = policy.to_vec();
            message.extend(self.reference.map(|r| Bank::Sha256.hash(r.as_bytes())).unwrap_or_default());
            let sig = base64::engine::general_purpose::STANDARD.encode(self.key.sign_sha256(&message).unwrap());
            let pkfp = key_fingerprint(self.key.public_key_pem().unwrap().as_bytes()).unwrap();
            let reference = self.reference.map_or(String::new(), |r| format!(r#""ref":"{r}","#));
            format!(
                r#"{{"{}":[{{"pcrs":{},"pkfp":"{pkfp}",{reference}"pol":"{}","sig":"{sig}"}}],"sha1":[]}}"#,
                self.bank,
                self.pcrs,
                hex::encode(policy)
            )
        }
    }

    fn signer(key: &SigningKey) -> Signer<'_> {
        Signer { key, bank: Bank::Sha256, value: &STUB, phases: &TALOS_PHASES, pcrs: "[11]", reference: None }
    }

    fn measured() -> Vec<Measured> {
        vec![Measured { bank: Bank::Sha256, alternative: Some(0), value: STUB.to_vec() }]
    }

    #[test]
    fn a_policy_verifies_and_its_failures_are_told_apart() {
        let (key, other) = (SigningKey::test("pcr").unwrap(), SigningKey::other_test("other").unwrap());
        let pem = key.public_key_pem().unwrap();
        let outcome = |json: &str| verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured()).unwrap();

        let good = signer(&key).json();
        assert!(outcome(&good).unlocks_talos());
        assert!(outcome(&format!("{good}\0\0")).unlocks_talos());
        let wrong = |json: &str| outcome(json).policies[0].outcome.clone();
        assert_eq!(wrong(&signer(&other).json()), EntryOutcome::OtherKey);
        assert_eq!(wrong(&Signer { value: &[2; 32], ..signer(&key) }.json()), EntryOutcome::OtherPolicy);
        assert!(matches!(wrong(&Signer { pcrs: "[11,12]", ..signer(&key) }.json()), EntryOutcome::NotChecked(_)));
        let at = good.find("\"sig\":\"").unwrap() + 20;
        let mut flipped = good.clone().into_bytes();
        flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
        assert!(matches!(wrong(std::str::from_utf8(&flipped).unwrap()), EntryOutcome::Bad(_)));
        assert!(outcome("{}").problem().unwrap().contains("no signature"));

        let nothing = verify_pcrsig(good.as_bytes(), pem.as_bytes(), &[]).unwrap();
        assert!(nothing.unjudged().unwrap().contains("sha256 bank was not computed"));
        assert_eq!(nothing.problem(), None);
        for json in ["", "[]", "{\"sha256\":1}", "\u{0}"] {
            assert!(verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured()).is_err(), "{json:?}");
        }
        for pem in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(verify_pcrsig(good.as_bytes(), pem.as_bytes(), &measured()).is_err(), "{pem:?}");
        }
    }

    #[test]
    fn every_path_that_a_builder_may_sign_is_found() {
        let key = SigningKey::test("pcr").unwrap();
        let pem = key.public_key_pem().unwrap();
        let verify = |json: &str| verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured()).unwrap();
        let words = ["enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"];
        for set in 0..64 {
            let phases: Vec<&str> = (0..6).filter(|i| set >> i & 1 == 1).map(|i| words[i]).collect();
            let found = verify(&Signer { phases: &phases, ..signer(&key) }.json());
            let (_, path, alternative) = found.verified().next().unwrap();
            assert_eq!((path, alternative, found.problem()), (phases.join(":").as_str(), 0, None));
            assert!(!found.unlocks_talos());
            assert!(found.problem_for_talos().unwrap().contains("what Talos unseals with"));
        }
        // A path nobody knows, unless the policy names it.
        let odd = Signer { phases: &["first", "second"], ..signer(&key) }.json();
        assert!(verify(&odd).problem().unwrap().contains("changed after signing"));
        let named = odd.replace("\"pcrs\"", "\"phase\":\"first:second\",\"pcrs\"");
        assert_eq!(verify(&named).verified().next().unwrap().1, "first:second");
    }

    #[test]
    fn a_policy_reference_is_part_of_what_is_signed() {
        let key = SigningKey::test("pcr").unwrap();
        let pem = key.public_key_pem().unwrap();
        let json = Signer { reference: Some("initrd"), ..signer(&key) }.json();
        let found = verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured()).unwrap();
        assert_eq!(found.verified().next().unwrap().0.reference.as_deref(), Some("initrd"));
        let other = json.replace("\"initrd\"", "\"else\"");
        let found = verify_pcrsig(other.as_bytes(), pem.as_bytes(), &measured()).unwrap();
        assert!(found.problem().unwrap().contains("does not verify"));
    }

    #[test]
    fn one_policy_that_fits_is_enough_and_what_is_unsigned_says_so() {
        let key = SigningKey::test("pcr").unwrap();
        let pem = key.public_key_pem().unwrap();
        let verify = |json: &str| verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured()).unwrap();
        let entry = |json: &str| json[json.find("[{").unwrap() + 1..json.rfind("}]").unwrap() + 1].to_owned();
        let good = entry(&signer(&key).json());
        let old = entry(&Signer { value: &[2; 32], ..signer(&key) }.json());
        assert_eq!(verify(&format!(r#"{{"sha256":[{old},{good}]}}"#)).problem(), None);
        let unsigned = good.replace("\"sig\"", "\"unsigned\"");
        assert!(verify(&format!(r#"{{"sha256":[{unsigned}]}}"#)).problem().unwrap().contains("is not signed"));
        let anonymous = good.replace("\"pkfp\"", "\"unknown\"");
        assert_eq!(verify(&format!(r#"{{"sha256":[{anonymous}]}}"#)).problem(), None);
    }

    #[test]
    fn other_banks_are_verified_with_either_hash() {
        let key = SigningKey::test("pcr").unwrap();
        let pem = key.public_key_pem().unwrap();
        let value = vec![3; 48];
        let measured = [Measured { bank: Bank::Sha384, alternative: Some(0), value: value.clone() }];
        let json = Signer { bank: Bank::Sha384, value: &value, ..signer(&key) }.json();
        let found = verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured).unwrap();
        assert_eq!((found.problem(), found.unlocks_talos()), (None, false));
        let by_sha256 = &json[json.find("\"sig\":\"").unwrap() + 7..];
        let by_sha256 = &by_sha256[..by_sha256.find('"').unwrap()];
        let policy = policy_digest(Bank::Sha384, &phases::walk(Bank::Sha384, &value, &path(&TALOS_PHASES)));
        let own = base64::engine::general_purpose::STANDARD.encode(key.sign_sha384(&policy).unwrap());
        let json = json.replace(by_sha256, &own);
        assert_eq!(verify_pcrsig(json.as_bytes(), pem.as_bytes(), &measured).unwrap().problem(), None);
        assert_eq!(banks_of(json.as_bytes()), [Bank::Sha384]);
    }
}
