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

/// A proxy that leads every request to one server and notes what was asked for.
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

#[test]
fn a_certificate_authority_of_ones_own() {
    if !(tool("openssl") && tool("python3")) {
        return;
    }
    let lab = Lab::new();
    let uki = lab.fixture(&format!("{UKI}.zst"));
    let openssl = |args: &str| {
        let out = Command::new("openssl").args(args.split(' ')).current_dir(lab.path("")).output().unwrap();
        assert!(out.status.success(), "openssl {args}: {}", said(&out));
    };
    std::fs::write(lab.path("leaf.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=Own -days 30");
    openssl("req -new -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=factory");
    openssl("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 30 -extfile leaf.ext");
    let mut server = Command::new("python3");
    server.args(["-c", TLS_SERVER]).current_dir(lab.path("")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Server(server.spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap().by_ref()).read_line(&mut port).unwrap();
    let url = format!("https://127.0.0.1:{}/{UKI}", port.trim());

    let out = extract(&lab, &url, &[], &[]);
    assert_eq!(out.status.code(), Some(1), "an authority nobody named was trusted: {}", said(&out));
    let ca = lab.path("ca.pem");
    arrived(&lab, &extract(&lab, &url, &["--ca", ca.to_str().unwrap()], &[]), &uki);
    arrived(&lab, &extract(&lab, &url, &[], &[("BOOTSURGEON_CA", ca.to_str().unwrap())]), &uki);
    // Nor does it help to name another one.
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -subj /CN=Other -days 30");
    let out = extract(&lab, &url, &["--ca", lab.path("other.pem").to_str().unwrap()], &[]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
}
