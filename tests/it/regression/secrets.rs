//! Passwords, signatures and tokens: where they go, and that nobody is shown them.

use crate::cli::{NOHALT, Ran, command, finish, uki_bytes};
use crate::network::proxy;
use crate::support::Lab;
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use std::net::SocketAddr;
use std::path::Path;

const SECRETS: [&str; 3] = ["p4ssw0rd", "s1gnature", "t0ken"];

/// The URL with every secret in it that a URL can have.
fn with_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    format!("{scheme}://user:p4ssw0rd@{rest}?X-Amz-Signature=s1gnature&token=t0ken#t0ken")
}

#[track_caller]
fn holds_no_secret(ran: &Ran, lab: &Lab) {
    for secret in SECRETS {
        assert!(!ran.out.contains(secret), "{secret} on stdout: {}\n{}", ran.command, ran.out);
        assert!(!ran.err.contains(secret), "{secret} on stderr: {}\n{}", ran.command, ran.err);
        for file in std::fs::read_dir(lab.path("")).unwrap().flatten() {
            let name = file.file_name().into_string().unwrap();
            if name.contains(".part") {
                let text = std::fs::read(file.path()).unwrap();
                assert!(!String::from_utf8_lossy(&text).contains(secret), "{secret} in {name}");
            }
        }
    }
}

#[test]
fn issue11_no_message_and_no_report_shows_what_is_secret_in_a_url() {
    let lab = Lab::new();
    let image = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let disk = lab.fixture("disk-512.img.zst");
    let factory = LocalFactory::start().unwrap();
    let served = |path: &str, behaviour| with_secrets(&factory.serve_path(path, image.clone(), behaviour));
    let urls = [
        served("/ranges", Behaviour { ranges: true, ..Behaviour::default() }),
        served("/stream", Behaviour::default()),
        served("/redirect", Behaviour { redirect: true, ..Behaviour::default() }),
        served("/breaks", Behaviour { redirect: true, drop_after: Some((50_000, 1)), ..Behaviour::default() }),
        served("/refuses", Behaviour { refuse: Some((403, u64::MAX, None)), ..Behaviour::default() }),
        with_secrets(&format!("{}/missing", factory.url())),
        with_secrets("http://127.0.0.1:9/refused"),
        with_secrets("http://unresolvable.invalid/x"),
        with_secrets("ftp://127.0.0.1/x"),
        "http://user:p4ssw0rd/x@127.0.0.1/x?token=t0ken".to_owned(),
        "http://user:p4ssw0rd#x@127.0.0.1/x".to_owned(),
        "HTTP://user:p4ssw0rd@127.0.0.1:9/x".to_owned(),
    ];
    let out = lab.path("out.efi");
    for url in &urls {
        for limit in [["--retry-for", "0", "--json"], ["--retry-for", "1", "-v"]] {
            let runs = [
                args!["inspect", url].to_vec(),
                args!["verify", url, "--efivars", "none"].to_vec(),
                args!["extract", url, "--out", out, "--force"].to_vec(),
                args!["diff", url, url].to_vec(),
                args!["swap", disk, url, "--dry-run", "--allow-untrusted"].to_vec(),
                args!["schematic", "show", NOHALT, "--factory", url].to_vec(),
                args![
                    "fetch",
                    "--schematic",
                    NOHALT,
                    "--talos",
                    "v1.12.4",
                    "--arch",
                    "arm64",
                    "--out",
                    out,
                    "--force",
                    "--factory",
                    url
                ]
                .to_vec(),
                args!["fetch", url].to_vec(),
            ];
            for args in runs {
                let ran = crate::cli::run(&[args, limit.iter().map(Into::into).collect()].concat());
                holds_no_secret(&ran, &lab);
            }
        }
    }
}

/// What the server saw of credentials in the requests that came since.
fn sent(factory: &LocalFactory, since: usize) -> Vec<String> {
    factory.requests()[since..].iter().filter_map(|r| r.authorization.clone()).collect()
}

fn extract(lab: &Lab, url: &str, env: &[(&str, &str)], more: &[&Path]) -> Ran {
    let mut command = command(&args!["extract", url, "--force", "--out", lab.path("out.efi")]);
    command.args(more).envs(env.iter().copied()).env("BOOTSURGEON_FACTORY_TOKEN", "t0ken");
    finish(command)
}

#[test]
fn issue11_the_token_goes_to_the_factory_and_over_tls_only() {
    let lab = Lab::new();
    let factory = LocalFactory::start().unwrap();
    let image = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let open = Behaviour { ranges: true, ..Behaviour::default() };
    let closed = Behaviour { authorization: Some("Bearer t0ken".into()), ..open.clone() };
    let (url, demands) =
        (factory.serve_path("/x.efi", image.clone(), open), factory.serve_path("/token.efi", image, closed));
    // Any server is not the factory.
    extract(&lab, &url, &[], &[]).code(0);
    let elsewhere = ("BOOTSURGEON_FACTORY", "https://factory.example");
    extract(&lab, &url, &[elsewhere], &[]).code(0);
    let ran = extract(&lab, &demands, &[elsewhere], &[]).fails(1, &["401", "--factory"]);
    holds_no_secret(&ran, &lab);
    assert_eq!(sent(&factory, 0), [""; 0]);
    // This one is.
    let here = factory.url();
    extract(&lab, &demands, &[("BOOTSURGEON_FACTORY", &here)], &[]).code(0);
    assert!(!sent(&factory, 0).is_empty());

    // The factory by plain http and not on this machine: everybody on the way could read it.
    let server: SocketAddr = here.trim_start_matches("http://").parse().unwrap();
    let (proxy, asked) = proxy(server);
    let name = format!("http://factory.invalid:{}", server.port());
    let env = [("HTTP_PROXY", proxy.as_str()), ("BOOTSURGEON_FACTORY", &name)];
    let before = factory.requests().len();
    extract(&lab, &format!("{name}/x.efi"), &env, &[]).code(0);
    extract(&lab, &format!("{name}/token.efi"), &env, &[]).fails(1, &["401", "https"]);
    assert_eq!(sent(&factory, before), [""; 0]);
    assert!(!asked.lock().unwrap().is_empty());
    // Nor from a file that was named for this server.
    std::fs::write(lab.path("auth"), "t0ken\n").unwrap();
    let auth = lab.path("auth");
    let file = [Path::new("--auth-file"), &auth];
    extract(&lab, &format!("{name}/token.efi"), &env, &file).fails(1, &["401", "https"]);
    assert_eq!(sent(&factory, before), [""; 0]);
}

#[test]
fn issue11_a_manifest_takes_no_url_with_a_signature() {
    for url in [
        "https://s3.example/x.efi?X-Amz-Credential=a&X-Amz-Signature=s1gnature",
        "https://blob.example/x.efi?sv=1&sig=s1gnature",
        "https://factory.example/x.efi?token=t0ken",
        "https://t0ken@factory.example/x.efi",
    ] {
        for pod in [&["manifest", "--node", "n"], &["job", "--nodes", "n"]] {
            let ran = bootsurgeon!("pod", pod[0], pod[1], pod[2], "--disk", "/dev/sda", url);
            let ran = ran.fails(2, &["credentials"]);
            assert!(SECRETS.iter().all(|s| !ran.err.contains(s) && !ran.out.contains(s)), "{ran:?}");
        }
    }
}

/// Some servers answer every path with a page.
#[test]
fn issue11_a_page_in_the_place_of_a_hash_is_no_hash() {
    let lab = Lab::new();
    let image = uki_bytes(&lab, "v1.12.4-arm64-uki");
    let sha256 = crate::support::sha256(&crate::cli::uki(&lab, "v1.12.4-arm64-uki"));
    let long = format!("<!DOCTYPE html>{}", " ".repeat(10_000));
    let name = "metal-arm64-secureboot-uki.efi";
    for (sidecar, verified, note) in [
        ("<html><body>Welcome</body></html>".to_owned(), false, true),
        (long, false, true),
        (String::new(), false, true),
        ("0".repeat(64) + " is what you want\n", false, true),
        (format!("{sha256}  {name}\n"), true, false),
        (format!("{sha256} *{name}\r\n"), true, false),
    ] {
        let factory = LocalFactory::start().unwrap();
        let url = factory.serve(NOHALT, "v1.12.4", name, image.clone(), Behaviour::default());
        let path = url.strip_prefix(&factory.url()).unwrap();
        factory.serve_path(&format!("{path}.sha256"), sidecar.clone().into_bytes(), Behaviour::default());
        let out = lab.path("out.efi");
        let ran = bootsurgeon!(
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
            out,
            "--factory",
            factory.url(),
            "--json"
        );
        let ran = ran.code(0);
        assert_eq!(ran.json()["sidecar_verified"], verified, "{sidecar:?}");
        assert_eq!(ran.err.contains("no hash"), note, "{sidecar:?}: {}", ran.err);
        std::fs::remove_file(&out).unwrap();
    }
    // A hash that does not fit is one.
    let factory = LocalFactory::start().unwrap();
    let url = factory.serve(NOHALT, "v1.12.4", name, image, Behaviour::default());
    let path = format!("{}.sha256", url.strip_prefix(&factory.url()).unwrap());
    factory.serve_path(&path, format!("{}  {name}\n", "0".repeat(64)).into_bytes(), Behaviour::default());
    let ran = bootsurgeon!(
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
    );
    ran.fails(3, &["SHA-256", "published"]);
}
