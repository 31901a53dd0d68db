//! The ways to a server that networks make one take: IPv6, proxies, certificate authorities of one's own, credentials.
//! Through the program, against the local factory, a proxy of this test, and a TLS server of Python's.

use crate::support::{Lab, sha256, tool};
use bootsurgeon::testkit::factory::{Behaviour, LocalFactory};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

const UKI: &str = "talos-v1.12.4-arm64-uki.efi";

/// Extracts the UKI behind `url`, in an environment of its own.
fn extract(lab: &Lab, url: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let out = lab.path("out.efi");
    let mut command = crate::support::program();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.args(["extract", url, "--force", "--out"]).arg(out).args(args).envs(env.iter().copied());
    command.output().unwrap()
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn arrived(lab: &Lab, out: &Output, uki: &Path) {
    assert!(out.status.success(), "{}", said(out));
    assert_eq!(sha256(&lab.path("out.efi")), sha256(uki));
}

#[test]
fn a_factory_on_ipv6() {
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let factory = match LocalFactory::start_at(Ipv6Addr::LOCALHOST.into()) {
        Ok(factory) => factory,
        Err(e) => {
            return crate::support::skip(&format!("no IPv6 on this machine: {e}"));
        }
    };
    let url = factory.serve_path(
        "/uki.efi",
        std::fs::read(&uki).unwrap(),
        Behaviour { redirect: true, ..Default::default() },
    );
    assert!(url.starts_with("http://[::1]:"), "{url}");
    arrived(&lab, &extract(&lab, &url, &[], &[]), &uki);
}

/// A proxy that leads every request to one server and notes what was requested.
pub(crate) fn proxy(server: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || relay(client, server, &noted));
        }
    });
    (format!("http://{address}"), asked)
}

fn relay(mut client: TcpStream, server: SocketAddr, noted: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let first = head.lines().next()?.to_owned();
    noted.lock().unwrap().push(first.clone());
    let mut upstream = TcpStream::connect(server).ok()?;
    if first.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    } else {
        // The server is asked for the path alone.
        let target = first.split(' ').nth(1)?;
        let path = target.split_once("://")?.1.split_once('/')?.1;
        upstream.write_all(head.replacen(target, &format!("/{path}"), 1).as_bytes()).ok()?;
    }
    let (mut down, mut up) = (client.try_clone().ok()?, upstream.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut down);
        let _ = down.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut reader, &mut upstream);
    Some(())
}

#[test]
fn a_factory_behind_a_proxy() {
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let factory = LocalFactory::start().unwrap();
    let here =
        factory.serve_path("/uki.efi", std::fs::read(&uki).unwrap(), Behaviour { ranges: true, ..Default::default() });
    let server: SocketAddr = factory.url().trim_start_matches("http://").parse().unwrap();
    let (proxy, asked) = proxy(server);
    // A name that only the proxy can resolve.
    let url = format!("http://factory.invalid:{}/uki.efi", server.port());
    let out = extract(&lab, &url, &[], &[("HTTP_PROXY", &proxy)]);
    arrived(&lab, &out, &uki);
    assert!(asked.lock().unwrap().iter().all(|line| line.contains("factory.invalid")));
    assert!(!asked.lock().unwrap().is_empty());
    // What this machine serves itself is asked directly.
    let before = asked.lock().unwrap().len();
    arrived(&lab, &extract(&lab, &here, &[], &[("HTTP_PROXY", &proxy)]), &uki);
    assert_eq!(asked.lock().unwrap().len(), before);
    // Without the proxy the name is nobody's.
    let out = extract(&lab, &url, &["--timeout", "2"], &[]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
}

#[test]
fn credentials_come_from_the_environment_or_a_file_and_are_never_shown() {
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let factory = LocalFactory::start().unwrap();
    let content = std::fs::read(&uki).unwrap();
    let demands = |value: &str| Behaviour { redirect: true, authorization: Some(value.into()), ..Default::default() };
    let url = factory.serve_path("/token", content.clone(), demands("Bearer t0psecret"));
    let out = extract(&lab, &url, &[], &[]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("401") && said(&out).contains("BOOTSURGEON_FACTORY_TOKEN"), "{}", said(&out));
    let ours = ("BOOTSURGEON_FACTORY", &*factory.url());
    let out = extract(&lab, &url, &["-v"], &[("BOOTSURGEON_FACTORY_TOKEN", "t0psecret"), ours]);
    arrived(&lab, &out, &uki);
    assert!(!said(&out).contains("t0psecret"));

    let url = factory.serve_path("/basic", content, demands("Basic dXNlcjpwNHNz"));
    let env = [("BOOTSURGEON_FACTORY_USER", "user"), ("BOOTSURGEON_FACTORY_PASSWORD", "p4ss"), ours];
    arrived(&lab, &extract(&lab, &url, &[], &env), &uki);
    let file = lab.path("credentials");
    std::fs::write(&file, "user:p4ss\n").unwrap();
    let out = extract(&lab, &url, &["-v", "--auth-file", file.to_str().unwrap()], &[]);
    arrived(&lab, &out, &uki);
    // Wrong ones are refused, and not told either.
    std::fs::write(&file, "user:wr0ng\n").unwrap();
    let out = extract(&lab, &url, &["-v", "--auth-file", file.to_str().unwrap()], &[]);
    assert_eq!(out.status.code(), Some(1));
    assert!(!said(&out).contains("wr0ng") && !said(&out).contains("dXNl"), "{}", said(&out));
}

/// Serves a folder over TLS, by Python's own server; prints its port.
const TLS_SERVER: &str = "
import http.server, ssl, sys
class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('leaf.pem', 'leaf.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// Ended with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the lab's folder over TLS; an authority of its own, `ca.pem`, stands for the server. Gives its base URL.
fn tls_server(lab: &Lab) -> (Server, String) {
    std::fs::write(lab.path("leaf.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(lab, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=Own -days 30");
    openssl(lab, "req -new -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=factory");
    let sign =
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 30 -extfile leaf.ext";
    openssl(lab, sign);
    let mut server = Command::new("python3");
    server.args(["-c", TLS_SERVER]).current_dir(lab.path("")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(server.spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap().by_ref()).read_line(&mut port).unwrap();
    let url = format!("https://127.0.0.1:{}", port.trim());
    (server, url)
}

fn openssl(lab: &Lab, args: &str) {
    let out = Command::new("openssl").args(args.split(' ')).current_dir(lab.path("")).output().unwrap();
    assert!(out.status.success(), "openssl {args}: {}", said(&out));
}

#[test]
fn a_certificate_authority_of_ones_own() {
    if !(tool("openssl") && tool("python3")) {
        return;
    }
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let (_server, url) = tls_server(&lab);
    let url = format!("{url}/{UKI}");

    let out = extract(&lab, &url, &[], &[]);
    assert_eq!(out.status.code(), Some(1), "an authority nobody named was trusted: {}", said(&out));
    let ca = lab.path("ca.pem");
    arrived(&lab, &extract(&lab, &url, &["--ca", ca.to_str().unwrap()], &[]), &uki);
    arrived(&lab, &extract(&lab, &url, &[], &[("BOOTSURGEON_CA", ca.to_str().unwrap())]), &uki);
    // Nor does it help to name another one.
    openssl(&lab, "req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -subj /CN=Other -days 30");
    let out = extract(&lab, &url, &["--ca", lab.path("other.pem").to_str().unwrap()], &[]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
}

/// What is missing to believe a fetched image comes with it, where TLS says whose it is; `verify` names the command.
#[test]
fn issue16_9_fetch_keeps_the_certificate_that_verify_asks_for() {
    if !(tool("openssl") && tool("python3")) {
        return;
    }
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let (_server, url) = tls_server(&lab);
    let id = "4a0d65c669d46663f377e7161e50cfd570c401f26fd9e7bda34a0216b6f1922b";
    let folder = lab.path("image").join(id).join("v1.12.4");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&uki, folder.join("metal-arm64-secureboot-uki.efi")).unwrap();
    std::fs::create_dir(lab.path("secureboot")).unwrap();
    let pem = crate::cli::fixture("keys/test-signing.crt");
    std::fs::copy(&pem, lab.path("secureboot/signing-cert.pem")).unwrap();
    let (out, ca) = (lab.path("new.efi"), lab.path("ca.pem"));
    let fetch = args!["fetch", "--schematic", id, "--talos", "v1.12.4", "--arch", "arm64", "--kind", "uki"];
    let fetch = [&fetch[..], &args!["--factory", url, "--ca", ca, "--out", out]].concat();
    let report = crate::cli::run(&[&fetch[..], &args!["--json"]].concat()).code(0).json();
    let pinned = format!("{}.cert.pem", out.display());
    assert_eq!(report["certificate"], pinned.as_str(), "{report:#}");
    assert_eq!(std::fs::read(&pinned).unwrap(), std::fs::read(&pem).unwrap());
    assert!(crate::cli::run(&[&fetch[..], &args!["--force"]].concat()).code(0).out.contains(&pinned));

    let rejected = bootsurgeon!("verify", out, "--efivars", "none", "--json").code(3).json();
    let check = rejected["checks"].as_array().unwrap().iter().find(|c| c["id"] == "authenticode-signer").unwrap();
    let detail = check["detail"].as_str().unwrap();
    let named = |text: &str, option: &str| -> Vec<String> {
        let is_it = |c: &&str| c.starts_with("bootsurgeon verify") && c.contains(option);
        let command = text.split('`').find(is_it).unwrap_or_else(|| panic!("no {option}: {text}"));
        command.split(' ').skip(1).map(str::to_owned).collect()
    };
    let command = named(detail, "--cert");
    assert_eq!(
        crate::cli::run(&[command, ["--efivars", "none", "--json"].map(str::to_owned).to_vec()].concat())
            .code(0)
            .json()["verdict"],
        "accept"
    );
    // With a disk of the board at hand: the command as it is named.
    let disk = lab.fixture("disk-512.img.zst");
    let words = format!("`bootsurgeon verify {} --installed DISK`", out.display());
    assert!(detail.contains(&words), "{detail}");
    bootsurgeon!("verify", out, "--installed", disk, "--efivars", "none").code(0);
    // Of an image on a disk, the disk itself.
    let rejected = bootsurgeon!("verify", disk, "--uki", "Talos-v1.12.4.efi", "--efivars", "none").code(3);
    let command = named(&rejected.out, "--installed");
    assert!(command.iter().any(|word| word == "--uki"), "{command:?}");
    let _ = crate::cli::run(&[command, ["--efivars", "none"].map(str::to_owned).to_vec()].concat()).code(0);
    // What is not the factory's own is not kept, and nothing of the user's is replaced.
    std::fs::write(&pinned, "mine").unwrap();
    std::fs::remove_file(&out).unwrap();
    let _ = crate::cli::run(&fetch).code(0).says(&["certificate was not kept", "exists"]);
    assert_eq!(std::fs::read(&pinned).unwrap(), b"mine");
}
