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
    let profiles = profiles(&head.sections, None).unwrap();
    values(bank, &profiles[profile], &hashes, &TALOS_PHASES).unwrap()
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
    let profile = Profile {
        index: 0,
        sections: BTreeMap::new(),
        measured: NAMES.iter().enumerate().map(|(i, name)| ((*name).to_owned(), i)).collect(),
        depends_on_hardware: true,
    };
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
        let values = values(bank, &profile, &all, &TALOS_PHASES).unwrap();
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
        let profiles = profiles(&head.sections, stub).unwrap();
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

mod signed {
    use super::*;
    use crate::testkit::signing::SigningKey;
    use base64::Engine;

    fn pcrsig(key: &SigningKey, value: &[u8], pcrs: &str) -> String {
        let policy = policy_digest(Bank::Sha256, value);
        let sig = base64::engine::general_purpose::STANDARD.encode(key.sign_sha256(&policy).unwrap());
        let pkfp = key_fingerprint(key.public_key_pem().unwrap().as_bytes()).unwrap();
        format!(
            r#"{{"sha256":[{{"pcrs":{pcrs},"pkfp":"{pkfp}","pol":"{}","sig":"{sig}"}}],"sha1":[]}}"#,
            hex::encode(policy)
        )
    }

    #[test]
    fn a_policy_verifies_and_its_failures_are_told_apart() {
        let (key, other) = (SigningKey::test("pcr").unwrap(), SigningKey::other_test("other").unwrap());
        let pem = key.public_key_pem().unwrap();
        let value = vec![1; 32];
        let values = BTreeMap::from([(Bank::Sha256, value.clone())]);
        let outcome = |json: &str| verify_pcrsig(json.as_bytes(), pem.as_bytes(), &values).unwrap();

        let good = pcrsig(&key, &value, "[11]");
        assert!(outcome(&good).is_verified());
        assert!(outcome(&format!("{good}\0\0")).is_verified());
        let wrong = |json: &str| outcome(json).entries[0].1.clone();
        assert_eq!(wrong(&pcrsig(&other, &value, "[11]")), EntryOutcome::OtherKey);
        assert_eq!(wrong(&pcrsig(&key, &[2; 32], "[11]")), EntryOutcome::OtherPolicy);
        assert_eq!(wrong(&pcrsig(&key, &value, "[11,12]")), EntryOutcome::OtherPolicy);
        let at = good.find("\"sig\":\"").unwrap() + 20;
        let mut flipped = good.clone().into_bytes();
        flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
        assert!(matches!(wrong(std::str::from_utf8(&flipped).unwrap()), EntryOutcome::Bad(_)));
        assert!(outcome("{}").problem().unwrap().contains("no signature"));

        let nothing = verify_pcrsig(good.as_bytes(), pem.as_bytes(), &BTreeMap::new()).unwrap();
        assert_eq!(nothing.entries[0].1, EntryOutcome::NotChecked);
        for json in ["", "[]", "{\"sha256\":1}", "\u{0}"] {
            assert!(verify_pcrsig(json.as_bytes(), pem.as_bytes(), &values).is_err(), "{json:?}");
        }
        for pem in ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(verify_pcrsig(good.as_bytes(), pem.as_bytes(), &values).is_err(), "{pem:?}");
        }
    }
}
