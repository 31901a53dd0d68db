//! Servers and networks that fail, and what is said about it.

use crate::cli::{NOHALT, Ran, command, finish, uki_bytes};
use crate::support::Lab;
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const UKI: &str = "metal-arm64-secureboot-uki.efi";
const ISO: &str = "metal-arm64-secureboot.iso";

/// `fetch` from this factory.
fn fetch(lab: &Lab, factory: &str, kind: &str, more: &[&str]) -> Ran {
    let out = lab.path("out");
    let mut args =
        args!["fetch", "--schematic", NOHALT, "--talos", "v1.12.4", "--arch", "arm64", "--kind", kind].to_vec();
    args.extend(args!["--factory", factory, "--out", out]);
    args.extend(more.iter().map(OsString::from));
    crate::cli::run(&args)
}

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn issue16_10_a_url_that_is_not_there_is_named_once() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let url = format!("{}/missing.efi", factory.url());
    let disk = lab.fixture("disk-512.img.zst");
    for ran in [
        bootsurgeon!("inspect", url),
        bootsurgeon!("extract", url, "--out", lab.path("x.efi")),
        bootsurgeon!("verify", url),
        bootsurgeon!("swap", disk, url, "--dry-run"),
        fetch(&lab, &factory.url(), "uki", &[]),
    ] {
        let ran = ran.fails(1, &["404", "not found"]);
        assert_eq!(count(&ran.err, &factory.url()), 1, "{}", ran.err);
    }
    bootsurgeon!("inspect", url, "--json").code(1).json()["error"]["code"]
        .as_str()
        .filter(|c| *c == "network")
        .unwrap();
}

#[test]
fn issue16_10_a_name_that_nobody_knows_and_a_server_that_is_not_there_are_said_soon() {
    let lab = Lab::new();
    // Nobody listens on a port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("http://127.0.0.1:{port}");
    for (url, words) in
        [("http://factory.invalid", ["factory.invalid", "cannot be resolved"]), (&refused, ["127.0.0.1", "refused"])]
    {
        for limit in [&[][..], &["--timeout", "4"]] {
            let begun = Instant::now();
            let ran = fetch(&lab, url, "uki", limit).fails(1, &words);
            assert!(!ran.err.contains("time limit is over"), "{}", ran.err);
            assert!(ran.err.contains("trying again"), "{}", ran.err);
            // The resolver of a machine without a network has its own patience.
            assert!(url != refused || begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        }
    }
    // Who waits for a server to come up says so.
    let begun = Instant::now();
    fetch(&lab, &refused, "uki", &["--retry-for", "8"]).fails(1, &words_of_refusal());
    assert!(begun.elapsed() > Duration::from_secs(6), "{:?}", begun.elapsed());
}

fn words_of_refusal() -> [&'static str; 2] {
    ["refused", "trying again"]
}

#[test]
fn issue17_a_factory_that_fails_for_good_is_told_from_the_first_retry_and_given_up() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let broken = Behaviour { refuse: Some((500, u64::MAX, None)), ..Behaviour::default() };
    let url = factory.serve(NOHALT, "v1.12.4", UKI, vec![0; 10], broken);
    let begun = Instant::now();
    let ran = fetch(&lab, &factory.url(), "uki", &["--retry-for", "3"]).fails(1, &["500", "given up after"]);
    assert!((2..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(ran.err.lines().next().unwrap().contains("trying again in"), "{}", ran.err);
    // A source that is read where it lies says it, too.
    let ran = bootsurgeon!("inspect", url, "--retry-for", "1").fails(1, &["500", "trying again"]);
    assert_eq!(count(ran.err.lines().last().unwrap_or_default(), "trying again"), 0);
    let ran = bootsurgeon!("inspect", url, "--retry-for", "0").fails(1, &["500"]);
    assert!(!ran.err.contains("trying again"), "{}", ran.err);
    // With more patience asked for than there is, it is not waited in vain.
    let later = Behaviour { refuse: Some((503, u64::MAX, Some(3600))), ..Behaviour::default() };
    factory.serve(NOHALT, "v1.12.4", UKI, vec![0; 10], later);
    let begun = Instant::now();
    fetch(&lab, &factory.url(), "uki", &[]).fails(1, &["503", "3600 s"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn issue17_a_connection_that_breaks_while_an_image_is_read_is_told() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let behaviour = Behaviour { ranges: true, drop_after: Some((40_000, 2)), ..Behaviour::default() };
    let url = factory.serve_path("/x.efi", uki_bytes(&lab, "v1.12.4-arm64-uki"), behaviour);
    bootsurgeon!("extract", url, "--out", lab.path("x.efi")).code(0).says(&["trying again"]);
}

#[test]
fn rdocs_751_a_token_that_is_refused_is_not_asked_for() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let image = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let demands = Behaviour { authorization: Some("Bearer right".into()), ..Behaviour::default() };
    factory.serve(NOHALT, "v1.12.4", UKI, image.clone(), demands);
    fetch(&lab, &factory.url(), "uki", &[]).fails(1, &["401", "set BOOTSURGEON_FACTORY_TOKEN"]);
    for refusal in [None, Some((403, u64::MAX, None))] {
        if let Some(refuse) = refusal {
            let behaviour = Behaviour { refuse: Some(refuse), ..Behaviour::default() };
            factory.serve(NOHALT, "v1.12.4", UKI, image.clone(), behaviour);
        }
        let mut wrong = command(&args![
            "fetch",
            "--schematic",
            NOHALT,
            "--talos",
            "v1.12.4",
            "--arch",
            "arm64",
            "--kind",
            "uki",
            "--out",
            lab.path("o"),
            "--factory",
            factory.url()
        ]);
        wrong.env("BOOTSURGEON_FACTORY_TOKEN", "wr0ng");
        let ran = finish(wrong).fails(1, &["was refused"]);
        assert!(!ran.err.contains("set BOOTSURGEON_FACTORY_TOKEN") && !ran.err.contains("wr0ng"), "{}", ran.err);
    }
}

/// A server that answers every request with this.
fn answers(head: &str, body: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer =
        [format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body]
            .concat();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    url
}

/// siderolabs/image-factory#285: a token that is wrong, wherever one is sent.
#[test]
fn rimage_factory_285_a_wrong_token_is_refused_and_not_missing() {
    let lab = Lab::new();
    let yaml = lab.path("s.yaml");
    std::fs::write(&yaml, "customization: {}\n").unwrap();
    let disk = lab.fixture("disk-512.img.zst");
    for (status, refusal) in [("401 Unauthorized", "unauthorized"), ("403 Forbidden", "forbidden")] {
        let url = answers(status, refusal.as_bytes());
        let which = args!["--schematic", NOHALT, "--talos", "v1.12.4", "--arch", "arm64", "--factory", url];
        for args in [
            args!["schematic", "create", yaml, "--factory", url].to_vec(),
            args!["schematic", "show", NOHALT, "--factory", url].to_vec(),
            [&args!["swap", disk, "--dry-run"][..], &which].concat(),
            [&args!["fetch", "--kind", "iso", "--out", lab.path("o")][..], &which].concat(),
        ] {
            let mut wrong = command(&args);
            wrong.env("BOOTSURGEON_FACTORY_TOKEN", "wr0ng");
            let ran = finish(wrong).fails(1, &["the token", "was refused"]);
            assert!(!ran.err.contains("set BOOTSURGEON") && !ran.err.contains("wr0ng"), "{args:?}: {}", ran.err);
        }
    }
}

#[test]
fn rimage_factory_400_the_factorys_text_is_shown_whole() {
    let lab = Lab::new();
    let text = "schematic is invalid:\n  * line 3: unknown extension \"siderolabs/nvidia\"\n\n  * line 4: did you \
                mean i915?\n";
    let ran = fetch(&lab, &answers("400 Bad Request", text.as_bytes()), "uki", &[]);
    ran.fails(1, &["schematic is invalid:", "unknown extension \"siderolabs/nvidia\"", "did you mean i915?"]);
    // Within bounds, and of a page only that it is one.
    let ran =
        fetch(&lab, &answers("400 Bad Request", "no ".repeat(100_000).as_bytes()), "uki", &[]).fails(1, &["no no no"]);
    assert!(ran.err.len() < 4000, "{} bytes", ran.err.len());
    let page = b"<!DOCTYPE html><html><body>Sign in</body></html>";
    let ran = fetch(&lab, &answers("403 Forbidden", page), "uki", &[]).fails(1, &["403", "a web page"]);
    assert!(!ran.err.contains("Sign in"), "{}", ran.err);
}

#[test]
fn rtalos_1452_a_page_in_the_place_of_an_image_is_no_image() {
    let lab = Lab::new();
    let page = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Sign in</body></html>\n";
    let portal = answers("200 OK\r\nContent-Type: text/html", page);
    for kind in ["uki", "iso"] {
        fetch(&lab, &portal, kind, &["--retry-for", "1"]).fails(1, &["a web page"]);
        let left: Vec<_> = std::fs::read_dir(lab.path("")).unwrap().flatten().map(|f| f.file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // Nor is it kept in a cache, or looked at as an image.
    let disk = lab.fixture("disk-512.img.zst");
    let cache = lab.path("cache");
    let ran = bootsurgeon!(
        "swap",
        disk,
        "--schematic",
        NOHALT,
        "--talos",
        "v1.12.4",
        "--arch",
        "arm64",
        "--factory",
        portal,
        "--cache",
        cache,
        "--yes",
        "--retry-for",
        "1"
    );
    ran.fails(1, &["a web page"]);
    let kept = cache.join(NOHALT).join("v1.12.4");
    assert_eq!(std::fs::read_dir(kept).map_or(0, |files| files.count()), 0);
    let url = format!("{portal}/x.efi");
    bootsurgeon!("inspect", url).fails(1, &["a web page"]);
    bootsurgeon!("extract", url, "--out", lab.path("x.efi")).fails(1, &["a web page"]);
    bootsurgeon!("swap", disk, url, "--yes").fails(1, &["a web page", "not changed"]);
    // An image of the other kind, and something else altogether.
    let factory = LocalFactory::start().unwrap();
    factory.serve(NOHALT, "v1.12.4", ISO, uki_bytes(&lab, "v1.12.4-arm64-uki"), Behaviour::default());
    fetch(&lab, &factory.url(), "iso", &[]).fails(1, &["an ISO was requested", "EFI program"]);
    let iso = std::fs::read(lab.fixture("secureboot-arm64.iso.zst")).unwrap();
    factory.serve(NOHALT, "v1.12.4", UKI, iso.clone(), Behaviour::default());
    fetch(&lab, &factory.url(), "uki", &[]).fails(1, &["a UKI was requested", "an ISO"]);
    for other in [&b""[..], b"MZ", b"x", &[0; 100_000]] {
        factory.serve(NOHALT, "v1.12.4", UKI, other.to_vec(), Behaviour::default());
        fetch(&lab, &factory.url(), "uki", &[]).fails(1, &["a UKI was requested"]);
    }
    factory.serve(NOHALT, "v1.12.4", ISO, iso, Behaviour::default());
    fetch(&lab, &factory.url(), "iso", &[]).code(0);
}

/// A page that comes when a download is continued does not cost what has come before.
#[test]
fn rtalos_1452_a_page_in_the_middle_costs_nothing() {
    let lab = Lab::new();
    let image = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let factory = LocalFactory::start().unwrap();
    let url = factory.serve(
        NOHALT,
        "v1.12.4",
        UKI,
        image.clone(),
        Behaviour { ranges: true, drop_after: Some((60_000, 1)), ..Behaviour::default() },
    );
    fetch(&lab, &factory.url(), "uki", &["--retry-for", "0"]).fails(1, &[]);
    let part = lab.path("out.part");
    assert_eq!(std::fs::metadata(&part).unwrap().len(), 60_000);
    let path = url.strip_prefix(&factory.url()).unwrap();
    let page = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n".to_vec();
    let as_page = Behaviour { content_type: Some("text/html".into()), ..Behaviour::default() };
    factory.serve_path(path, page, as_page);
    fetch(&lab, &factory.url(), "uki", &["--retry-for", "0"]).fails(1, &["a web page"]);
    assert_eq!(std::fs::metadata(&part).unwrap().len(), 60_000);
}

/// A proxy as Squid is set up: tunnels to port 443 alone, whole requests for plain http.
fn squid(server: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || forward(client, server, &noted));
        }
    });
    (address.to_string(), asked)
}

fn forward(mut client: TcpStream, server: SocketAddr, noted: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        noted.lock().unwrap().push(head.clone());
        if !head.contains("Proxy-Authorization: Basic dXNlcjpwNHNz\r\n") {
            let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
            continue;
        }
        let target = head.split(' ').nth(1)?.to_owned();
        let Some((_, rest)) = target.strip_prefix("http://").and_then(|t| t.split_once('/')) else {
            let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
            continue;
        };
        let request = head
            .replacen(&target, &format!("/{rest}"), 1)
            .replace("Proxy-Authorization: Basic dXNlcjpwNHNz\r\n", "")
            .replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let mut upstream = TcpStream::connect(server).ok()?;
        upstream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<u64>().ok());
        if let Some(length) = length {
            let mut body = Vec::new();
            reader.by_ref().take(length).read_to_end(&mut body).ok()?;
            upstream.write_all(&body).ok()?;
        }
        // One answer with a length.
        let mut from = BufReader::new(upstream);
        while !answer.ends_with(b"\r\n\r\n") {
            if from.read_until(b'\n', &mut answer).ok()? == 0 {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<u64>().ok())?;
        from.take(length).read_to_end(&mut answer).ok()?;
        client.write_all(&answer).ok()?;
    }
}

#[test]
fn rtalos_1452_plain_http_goes_through_a_proxy_that_allows_no_tunnels() {
    let lab = Lab::new();
    let image = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let factory = LocalFactory::start().unwrap();
    factory.serve(NOHALT, "v1.12.4", UKI, image.clone(), Behaviour { ranges: true, ..Behaviour::default() });
    factory.serve_path("/x.efi", image.clone(), Behaviour { ranges: true, ..Behaviour::default() });
    let server: SocketAddr = factory.url().trim_start_matches("http://").parse().unwrap();
    let (proxy, asked) = squid(server);
    let base = format!("http://factory.invalid:{}", server.port());
    let run = |args: Vec<OsString>, proxy: &str| {
        let mut command = command(&args);
        command.env("HTTP_PROXY", proxy).env("BOOTSURGEON_FACTORY", &base);
        finish(command)
    };
    let with_password = format!("http://user:p4ss@{proxy}");
    std::fs::write(lab.path("s.yaml"), "customization: {}\n").unwrap();
    let out = lab.path("out.efi");
    // A request with a body, one after the other on a connection, and ranges.
    run(args!["schematic", "create", lab.path("s.yaml")].to_vec(), &with_password).code(0);
    let fetch =
        args!["fetch", "--schematic", NOHALT, "--talos", "v1.12.4", "--arch", "arm64", "--kind", "uki", "--out", out];
    run(fetch.to_vec(), &with_password).code(0);
    assert!(std::fs::read(&out).unwrap() == image);
    let url = format!("{base}/x.efi");
    run(args!["extract", url, "--out", out, "--force"].to_vec(), &with_password).code(0);
    assert!(std::fs::read(&out).unwrap() == image);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert!(asked.iter().all(|head| head.split(' ').nth(1).unwrap().starts_with(&base)), "{asked:?}");
    assert!(
        asked.iter().all(|head| head.contains(&format!("ost: factory.invalid:{}\r\n", server.port()))),
        "{asked:?}"
    );
    // The server is not told what the proxy is told.
    assert!(factory.requests().iter().all(|r| r.authorization.is_none()));
    // A proxy that wants a password says so, and so does the program.
    let ran = run(args!["inspect", url].to_vec(), &format!("http://{proxy}")).fails(1, &["407", "the proxy"]);
    assert!(!ran.err.contains("p4ss"), "{}", ran.err);
}
