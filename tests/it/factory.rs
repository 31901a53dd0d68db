//! Downloads, remote images and the factory's API against a local factory with every bad behaviour of real servers.

use bootsurgeon::block::ReadAt;
use bootsurgeon::factory::{
    Asset, Auth, Destination, Expected, Factory, Fetched, HttpSource, Options, Schematic, TransferEvent, fetch, stream,
};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use bootsurgeon::{Kind, Result};
use sha2::{Digest, Sha256, Sha512};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SIZE: usize = 3_000_017;

/// Bytes without a pattern that a shifted copy would share.
fn bytes(n: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(n)
    .collect()
}

/// Quick limits, so that tests are quick.
fn quick() -> Options {
    Options {
        stall: Duration::from_millis(300),
        first_byte: Duration::from_secs(5),
        retries: 4,
        backoff: Duration::from_millis(2),
        ..Options::default()
    }
}

/// A file that may be replaced by whatever comes.
fn to(file: &Path) -> Destination<'_> {
    Destination { file, force: true, expected: Expected::Anything }
}

fn get(url: &str, out: &Path, options: &Options) -> (Result<Fetched>, Vec<TransferEvent>) {
    let mut events = Vec::new();
    let outcome = fetch(url, &to(out), options, &AtomicBool::new(false), &mut |e| events.push(e));
    (outcome, events)
}

/// Serves `SIZE` bytes with this behaviour, downloads them, and checks that they arrived whole.
fn arrives(behaviour: Behaviour) -> (Fetched, Vec<TransferEvent>, LocalFactory) {
    let factory = LocalFactory::start().unwrap();
    let content = bytes(SIZE);
    let url = factory.serve_path("/file", content.clone(), behaviour);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("file");
    let (outcome, events) = get(&url, &out, &quick());
    let fetched = outcome.unwrap();
    assert!(std::fs::read(&out).unwrap() == content, "the file differs");
    assert_eq!(fetched.sha256, hex::encode(Sha256::digest(&content)));
    assert_eq!(fetched.bytes, SIZE as u64);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
    (fetched, events, factory)
}

/// Downloads with this behaviour and returns the failure.
fn fails(behaviour: Behaviour) -> (bootsurgeon::Error, Vec<TransferEvent>) {
    let factory = LocalFactory::start().unwrap();
    let url = factory.serve_path("/file", bytes(10_000), behaviour);
    let folder = tempfile::tempdir().unwrap();
    let (outcome, events) = get(&url, &folder.path().join("file"), &quick());
    assert!(!folder.path().join("file").exists());
    (outcome.unwrap_err(), events)
}

fn retries(events: &[TransferEvent]) -> usize {
    events.iter().filter(|e| matches!(e, TransferEvent::Retrying { .. })).count()
}

#[test]
fn a_file_comes_directly_and_by_redirect() {
    let (fetched, events, factory) = arrives(Behaviour::default());
    assert_eq!(fetched.wire_bytes, SIZE as u64);
    let whole = TransferEvent::Progress { bytes: SIZE as u64, total: Some(SIZE as u64) };
    assert_eq!(events.last(), Some(&whole));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(factory.requests()[0].user_agent, Some(format!("bootsurgeon/{version}")));
    arrives(Behaviour { redirect: true, ..Behaviour::default() });
}

#[test]
fn fifty_disconnects_cost_nothing_but_time() {
    let cuts = Some((50_021, 50));
    let (fetched, events, factory) = arrives(Behaviour { redirect: true, drop_after: cuts, ..Behaviour::default() });
    assert_eq!(retries(&events), 50);
    assert_eq!(fetched.wire_bytes, SIZE as u64);
    assert_eq!(factory.requests().iter().filter(|r| r.range.is_some()).count(), 50);
}

#[test]
fn without_ranges_a_broken_download_starts_over() {
    let (fetched, events, _) = arrives(Behaviour { drop_after: Some((1_000_000, 2)), ..Behaviour::default() });
    assert!(fetched.wire_bytes > SIZE as u64);
    assert_eq!(events.iter().filter(|e| **e == TransferEvent::StartingOver).count(), 2);
    // Ranges without anything to recognise the file by are not trusted either.
    let blind = Behaviour { ranges: true, no_etag: true, drop_after: Some((1_000_000, 2)), ..Behaviour::default() };
    assert!(arrives(blind).1.contains(&TransferEvent::StartingOver));
}

#[test]
fn a_server_that_always_breaks_off_is_given_up() {
    let (e, events) = fails(Behaviour { drop_after: Some((5_000, u64::MAX)), ..Behaviour::default() });
    assert_eq!(e.kind(), Kind::Io);
    assert_eq!(retries(&events), 4);
}

#[test]
fn an_expired_url_is_replaced_on_the_way() {
    let expiring = Behaviour { redirect: true, url_bytes: Some(700_000), ..Behaviour::default() };
    let (fetched, _, factory) = arrives(expiring);
    assert_eq!(fetched.wire_bytes, SIZE as u64);
    // Five URLs of 700,000 bytes each.
    assert_eq!(factory.requests().iter().filter(|r| !r.storage && r.target == "GET /file").count(), 5);
    arrives(Behaviour {
        redirect: true,
        url_requests: Some(1),
        drop_after: Some((500_000, 4)),
        ..Behaviour::default()
    });
}

#[test]
fn short_silent_and_slow_bodies() {
    // A body that ends properly, but before the length that is known from the request before.
    let drop_after = Some((10_000, 1));
    let short = Behaviour { redirect: true, drop_after, truncate_after: Some((500_000, 2)), ..Behaviour::default() };
    let (_, events, _) = arrives(short);
    assert!(events.iter().any(|e| matches!(e, TransferEvent::Retrying { why, .. } if why.contains("ended after"))));
    let (_, events, _) = arrives(Behaviour { redirect: true, stall_after: Some((500_000, 1)), ..Behaviour::default() });
    assert!(events.iter().any(|e| matches!(e, TransferEvent::Retrying { why, .. } if why.contains("no byte came"))));
    // Slow is not silent: longer than the stall limit in all, never silent for that long.
    let begun = Instant::now();
    arrives(Behaviour { bytes_per_second: Some(6_000_000), ..Behaviour::default() });
    assert!(begun.elapsed() > Duration::from_millis(300));
}

#[test]
fn a_long_wait_for_the_first_byte_is_told() {
    let (_, events, _) = arrives(Behaviour { first_byte_delay: Duration::from_millis(1_300), ..Behaviour::default() });
    assert!(events.iter().any(|e| matches!(e, TransferEvent::Waiting { elapsed } if elapsed.as_millis() >= 1_000)));
}

#[test]
fn statuses_are_retried_or_explained() {
    for status in [408, 429, 500, 503] {
        let (_, events, _) = arrives(Behaviour { refuse: Some((status, 2, None)), ..Behaviour::default() });
        assert_eq!(retries(&events), 2, "{status}");
    }
    let begun = Instant::now();
    arrives(Behaviour { refuse: Some((429, 1, Some(1))), ..Behaviour::default() });
    assert!(begun.elapsed() >= Duration::from_secs(1), "Retry-After counts");
    for status in [400, 401, 402, 403, 404] {
        let (e, events) = fails(Behaviour { refuse: Some((status, u64::MAX, None)), ..Behaviour::default() });
        let text = e.to_string();
        assert!(text.contains(&format!("{status} ")) && text.contains("refused with"), "{text}");
        assert!(text.contains("refused with") && text.contains("second line") && e.advice().is_some());
        assert_eq!(retries(&events), 0, "{status}");
    }
    let (e, events) = fails(Behaviour { refuse: Some((500, u64::MAX, None)), ..Behaviour::default() });
    assert!(e.to_string().contains("500"));
    assert_eq!(retries(&events), 4);
}

#[test]
fn a_later_run_goes_on_and_notices_another_file() {
    let factory = LocalFactory::start().unwrap();
    let content = bytes(SIZE);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("file");
    let flaky = Behaviour { redirect: true, drop_after: Some((1_000_000, 1)), ..Behaviour::default() };
    let no_retries = Options { retries: 0, ..quick() };

    let url = factory.serve_path("/file", content.clone(), flaky.clone());
    get(&url, &out, &no_retries).0.unwrap_err();
    assert!(!out.exists());
    let fetched = get(&url, &out, &no_retries).0.unwrap();
    assert_eq!((fetched.resumed_from, fetched.wire_bytes), (1_000_000, SIZE as u64 - 1_000_000));
    assert!(std::fs::read(&out).unwrap() == content);

    // Half of the old file, then the server has a new one.
    factory.serve_path("/file", content.clone(), flaky.clone());
    get(&url, &out, &no_retries).0.unwrap_err();
    let new: Vec<u8> = content.iter().map(|b| !b).collect();
    factory.serve_path("/file", new.clone(), Behaviour { redirect: true, ..Behaviour::default() });
    let (fetched, events) = get(&url, &out, &no_retries);
    assert_eq!(fetched.unwrap().resumed_from, 0);
    assert!(events.contains(&TransferEvent::StartingOver));
    assert!(std::fs::read(&out).unwrap() == new);

    // A part that is longer than the file is now.
    factory.serve_path("/file", content, flaky);
    get(&url, &out, &no_retries).0.unwrap_err();
    factory.serve_path("/file", bytes(1000), Behaviour { redirect: true, ..Behaviour::default() });
    get(&url, &out, &no_retries).0.unwrap();
    assert!(std::fs::read(&out).unwrap() == bytes(1000));
}

#[test]
fn a_published_hash_is_checked() {
    let factory = LocalFactory::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("file");
    let content = bytes(100_000);
    let url = factory.serve_path("/file", content.clone(), Behaviour::default());
    let sum = format!("{}  file\n", hex::encode(Sha512::digest(&content)));
    factory.serve_path("/file.sha512", sum.into_bytes(), Behaviour::default());
    assert!(get(&url, &out, &quick()).0.unwrap().verified);

    let refused = Behaviour { refuse: Some((402, u64::MAX, None)), ..Behaviour::default() };
    factory.serve_path("/file.sha512", vec![], refused);
    assert!(!get(&url, &out, &quick()).0.unwrap().verified);

    let sum = format!("{}  file\n", hex::encode(Sha256::digest(&content)));
    factory.serve_path("/file.sha256", sum.into_bytes(), Behaviour::default());
    assert!(get(&url, &out, &quick()).0.unwrap().verified);
    std::fs::remove_file(&out).unwrap();
    factory.serve_path("/file", content, Behaviour { corrupt_at: Some(50_000), ..Behaviour::default() });
    let e = get(&url, &out, &quick()).0.unwrap_err();
    assert_eq!(e.kind(), Kind::Rejected);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a corrupt part is not kept");
}

#[test]
fn credentials_stay_with_the_factory() {
    let factory = LocalFactory::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let demands = |value: &str| Behaviour { redirect: true, authorization: Some(value.into()), ..Behaviour::default() };
    let url = factory.serve_path("/file", bytes(1000), demands("Bearer s3cret"));
    let e = get(&url, &folder.path().join("a"), &quick()).0.unwrap_err();
    assert!(e.to_string().contains("401") && e.advice().unwrap().contains("BOOTSURGEON_FACTORY_TOKEN"));
    let auth = Some(Auth::bearer(&factory.url(), "s3cret").unwrap());
    get(&url, &folder.path().join("a"), &Options { auth, ..quick() }).0.unwrap();
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "user:pass\n").unwrap();
    factory.serve_path("/file", bytes(1000), demands("Basic dXNlcjpwYXNz"));
    let auth = Some(Auth::from_file(&factory.url(), &credentials).unwrap());
    get(&url, &folder.path().join("b"), &Options { auth, ..quick() }).0.unwrap();

    let seen = factory.requests();
    assert!(seen.iter().filter(|r| r.storage).count() >= 2);
    assert!(seen.iter().all(|r| !r.storage || r.authorization.is_none()));
    // Nor do they go to another server that is asked directly.
    let auth = Some(Auth::bearer("http://127.0.0.1:1", "s3cret").unwrap());
    get(&url, &folder.path().join("c"), &Options { auth, ..quick() }).0.unwrap_err();
    assert!(factory.requests().last().unwrap().authorization.is_none());
}

#[test]
fn the_user_and_the_clock_can_stop_it() {
    let factory = LocalFactory::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let slow = Behaviour { bytes_per_second: Some(100_000), ..Behaviour::default() };
    let url = factory.serve_path("/file", bytes(SIZE), slow);
    let cancel = AtomicBool::new(false);
    let begun = Instant::now();
    let e =
        fetch(&url, &to(&folder.path().join("a")), &quick(), &cancel, &mut |_| cancel.store(true, Ordering::Relaxed));
    assert_eq!(e.unwrap_err().kind(), Kind::Cancelled);
    let overall = Some(Duration::from_millis(300));
    let e = get(&url, &folder.path().join("b"), &Options { overall, ..quick() }).0.unwrap_err();
    assert!(e.to_string().contains("time limit"));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn two_downloads_do_not_share_a_part() {
    let factory = LocalFactory::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("file");
    let late = Behaviour { first_byte_delay: Duration::from_millis(400), ..Behaviour::default() };
    let url = factory.serve_path("/file", bytes(1000), late);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| get(&url, &out, &quick()).0);
        while !folder.path().join("file.part").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(get(&url, &out, &quick()).0.unwrap_err().kind(), Kind::Unsafe);
        assert_eq!(first.join().unwrap().unwrap().bytes, 1000);
    });
}

fn open(url: &str) -> HttpSource {
    HttpSource::open(url, &quick(), Arc::default(), Box::new(|_| {})).unwrap().unwrap()
}

#[test]
fn a_remote_file_is_read_in_parts() {
    let factory = LocalFactory::start().unwrap();
    let content = bytes(SIZE);
    let url = factory.serve_path("/file", content.clone(), Behaviour { redirect: true, ..Behaviour::default() });
    let source = open(&url);
    assert_eq!(source.size(), SIZE as u64);
    for (offset, n) in [(0, 10), (262_140, 10), (SIZE - 5, 5), (1_000_000, 0), (100, 20)] {
        let mut buf = vec![0; n];
        source.read_exact_at(&mut buf, offset as u64).unwrap();
        assert!(buf == content[offset..offset + n], "{offset}");
    }
    assert!(source.read_exact_at(&mut [0; 2], SIZE as u64 - 1).is_err());
    // Three blocks, one of them shorter.
    assert_eq!(factory.requests().iter().filter(|r| r.storage).count(), 3);
    assert!(source.wire_bytes() < 3 * 262_144);

    // An announced range is one request, whatever the size of the reads; other reads do not disturb it.
    let before = factory.requests().len();
    source.will_read(500_000, 2_000_000);
    let mut at = 500_000;
    for n in [1, 7, 4096, 100_000, 300_000].into_iter().cycle() {
        let n = n.min(2_500_000 - at);
        if n == 0 {
            break;
        }
        let mut buf = vec![0; n];
        source.read_exact_at(&mut buf, at as u64).unwrap();
        assert!(buf == content[at..at + n], "{at}");
        source.read_exact_at(&mut [0; 16], 100).unwrap();
        at += n;
    }
    assert_eq!(factory.requests().len(), before + 1);
    assert_eq!(source.wire_bytes(), factory.bytes_sent());

    // Pieces of a file: neighbours in one request, another piece in another.
    for (offset, n) in [(100, 500_000), (500_100, 100), (500_200, 900_000), (1_800_000, 1_100_000)] {
        source.will_read(offset, n);
    }
    let before = factory.requests().len();
    for (offset, n) in [(100, 1_400_100), (1_800_000, 1_100_000)] {
        let mut buf = vec![0; n];
        source.read_exact_at(&mut buf, offset as u64).unwrap();
        assert!(buf == content[offset..offset + n], "{offset}");
    }
    assert!(factory.requests().len() - before <= 2);
}

#[test]
fn a_remote_read_goes_on_after_disconnects_and_expired_urls() {
    let factory = LocalFactory::start().unwrap();
    let content = bytes(SIZE);
    let bad =
        Behaviour { redirect: true, drop_after: Some((70_001, 50)), url_bytes: Some(400_000), ..Behaviour::default() };
    let source = open(&factory.serve_path("/file", content.clone(), bad));
    source.will_read(0, SIZE as u64);
    let mut buf = vec![0; SIZE];
    source.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == content);
    assert_eq!(source.wire_bytes(), SIZE as u64, "not a byte came twice");
}

#[test]
fn a_remote_file_that_changes_is_noticed() {
    let factory = LocalFactory::start().unwrap();
    let behaviour = Behaviour { redirect: true, ..Behaviour::default() };
    let url = factory.serve_path("/file", bytes(SIZE), behaviour.clone());
    let source = open(&url);
    factory.serve_path("/file", bytes(SIZE), behaviour);
    // The old presigned URL now leads to the new file, too.
    let e = source.read_exact_at(&mut [0; 10], 2_000_000).unwrap_err();
    assert!(e.to_string().contains("changed"), "{e}");
}

#[test]
fn without_ranges_a_file_is_streamed_and_can_be_left() {
    let factory = LocalFactory::start().unwrap();
    let content = bytes(SIZE);
    let behaviour = Behaviour { drop_after: Some((900_000, 2)), ..Behaviour::default() };
    let url = factory.serve_path("/file", content.clone(), Behaviour::default());
    assert!(HttpSource::open(&url, &quick(), Arc::default(), Box::new(|_| {})).unwrap().is_none());
    factory.serve_path("/file", content.clone(), behaviour);
    let mut got = Vec::new();
    let mut each = |part: &[u8]| {
        got.extend_from_slice(part);
        Ok(if got.len() > 2_000_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    stream(&url, &quick(), &AtomicBool::new(false), &mut |_| {}, &mut each).unwrap();
    assert!(got.len() > 2_000_000 && got.len() < SIZE && content.starts_with(&got));
}

#[test]
fn a_stream_that_changes_when_it_comes_again_is_noticed() {
    let factory = LocalFactory::start().unwrap();
    let url =
        factory.serve_path("/file", bytes(SIZE), Behaviour { drop_after: Some((900_000, 1)), ..Behaviour::default() });
    let mut events = |e: TransferEvent| {
        if matches!(e, TransferEvent::Retrying { .. }) {
            factory.serve_path("/file", vec![7; SIZE], Behaviour::default());
        }
    };
    let mut each = |_: &[u8]| Ok(ControlFlow::Continue(()));
    let e = stream(&url, &quick(), &AtomicBool::new(false), &mut events, &mut each).unwrap_err();
    assert!(e.to_string().contains("changed"), "{e}");
}

#[test]
fn the_api_answers() {
    let local = LocalFactory::start().unwrap();
    let factory = Factory::new(&local.url(), &quick()).unwrap();
    let cancel = AtomicBool::new(false);
    let schematic = Schematic::default().with_extension("tailscale");
    let id = factory.create_schematic(&schematic, &cancel, &mut |_| {}).unwrap();
    assert_eq!(id, schematic.id());
    assert_eq!(factory.show_schematic(&id, &cancel, &mut |_| {}).unwrap(), schematic.canonical());
    let e = factory.show_schematic(&"0".repeat(64), &cancel, &mut |_| {}).unwrap_err();
    assert!(e.to_string().contains("404"), "{e}");
    assert!(factory.show_schematic("x", &cancel, &mut |_| {}).unwrap_err().kind() == Kind::Usage);
    local.set_signing_certificate(b"PEM");
    assert_eq!(factory.signing_certificate(&cancel, &mut |_| {}).unwrap(), b"PEM");

    let url = factory.asset_url(Asset::Uki, &id, "1.12.4", "arm64").unwrap();
    assert_eq!(url, local.serve(&id, "v1.12.4", "metal-arm64-secureboot-uki.efi", vec![1], Behaviour::default()));
    assert!(
        factory
            .asset_url(Asset::Iso, &id, "v1.12.4", "amd64")
            .unwrap()
            .ends_with("/v1.12.4/metal-amd64-secureboot.iso")
    );
    let ca_file = Some("Cargo.toml".into());
    assert!(
        Factory::new(&local.url(), &Options { ca_file, ..quick() }).unwrap_err().to_string().contains("no certificate")
    );
    for (id, version, arch) in
        [("x", "v1", "arm64"), (&id[..], "latest", "arm64"), (&id, "1/..", "arm64"), (&id, "v1", "riscv")]
    {
        factory.asset_url(Asset::Iso, id, version, arch).unwrap_err();
    }
}
