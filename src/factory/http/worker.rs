//! The side of an exchange that blocks in the network: sends the request, follows redirects, hands over the body in
//! chunks.

use super::super::auth::{is_loopback, origin};
use super::super::page::is_page;
use super::super::url::{show_url, show_urls_in};
use super::{
    CHUNK, Credentials, Failure, Http, MAX_ERROR_BODY, MAX_REDIRECTS, MAX_TOLD, Message, Request, ResponseHead, TICK,
    network,
};
use crate::Result;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};
use ureq::http::HeaderMap;

/// The other side: blocks in the network.
pub(super) struct Worker {
    pub(super) http: Arc<Http>,
    pub(super) agent: ureq::Agent,
    pub(super) loopback: bool,
    pub(super) messages: SyncSender<Message>,
    pub(super) spares: Receiver<Vec<u8>>,
}

impl Worker {
    pub(super) fn run(&self, request: Request) {
        // A failed send means that nobody listens any more.
        let _ = match self.exchange(request) {
            Ok(()) => self.messages.send(Message::End),
            Err(failure) => self.messages.send(Message::Failed(failure)),
        };
    }

    fn exchange(&self, mut request: Request) -> Result<(), Failure> {
        for hop in 0..=MAX_REDIRECTS {
            let response = self.send(&request)?;
            let headers = response.headers();
            let status = response.status();
            let location = header(headers, "location");
            if status.is_redirection()
                && request.body.is_none()
                && let Some(location) = location
            {
                request.url = follow(&request.url, &location).map_err(Failure::fatal)?;
                continue;
            }
            let mut head = head(&request.url, hop > 0, status.as_u16(), headers);
            head.credentials = match self.http.options.auth.as_ref().map(|a| a.header_for(&request.url)) {
                None => Credentials::None,
                Some(Ok(_)) => Credentials::Sent,
                Some(Err(withheld)) => Credentials::Withheld(withheld),
            };
            let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
            if status.is_client_error() || status.is_server_error() {
                let mut text = Vec::new();
                let _ = body.by_ref().take(MAX_ERROR_BODY).read_to_end(&mut text);
                head.told = told(&text);
                let _ = self.messages.send(Message::Head(Box::new(head)));
                return Ok(());
            }
            if self.messages.send(Message::Head(Box::new(head))).is_err() {
                return Ok(());
            }
            return self.pump(&mut body);
        }
        Err(Failure::fatal(network(format!("more than {MAX_REDIRECTS} redirects"))))
    }

    fn send(&self, request: &Request) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let method = if request.body.is_some() { "POST" } else { "GET" };
        let mut builder = ureq::http::Request::builder().method(method).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(Ok(value)) = self.http.options.auth.as_ref().map(|a| a.header_for(&request.url)) {
            builder = builder.header("authorization", value);
        }
        // A redirect may lead off the loopback, where the proxy counts again.
        let other = is_loopback(&request.url) != self.loopback;
        let fresh = other.then(|| self.http.agent(!self.loopback));
        let agent = fresh.as_ref().unwrap_or(&self.agent);
        let outcome = match &request.body {
            Some(body) => builder.body(&body[..]).map_err(ureq::Error::from).and_then(|r| agent.run(r)),
            None => builder.body(()).map_err(ureq::Error::from).and_then(|r| agent.run(r)),
        };
        outcome.map_err(|e| not_sent(e, &request.url, agent))
    }

    fn pump(&self, body: &mut impl Read) -> Result<(), Failure> {
        loop {
            let mut chunk = self.spares.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let mut filled = 0;
            let mut ended = false;
            let mut failed = None;
            let begun = Instant::now();
            // On a slow line part of a chunk is news enough: the other side watches for silence.
            while filled < CHUNK && (filled == 0 || begun.elapsed() < TICK) {
                match body.read(&mut chunk[filled..]) {
                    Ok(0) => {
                        ended = true;
                        break;
                    }
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        failed = Some(Failure::passing(format!("the connection broke: {e}")));
                        break;
                    }
                }
            }
            chunk.truncate(filled);
            self.http.wire.fetch_add(filled as u64, Ordering::Relaxed);
            if filled > 0 && self.messages.send(Message::Data(chunk)).is_err() {
                return Ok(());
            }
            match failed {
                Some(failure) => return Err(failure),
                None if ended => return Ok(()),
                None => {}
            }
        }
    }
}

/// Why there is no answer.
fn not_sent(e: ureq::Error, url: &str, agent: &ureq::Agent) -> Failure {
    // rustls reports a certificate it does not trust as invalid data.
    let untrusted = match &e {
        ureq::Error::Io(io) => io.kind() == std::io::ErrorKind::InvalidData,
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        _ => false,
    };
    let network_fails = matches!(
        e,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) | ureq::Error::ConnectionFailed
    );
    let uri: Option<ureq::http::Uri> = url.parse().ok();
    let proxy = agent.config().proxy().filter(|p| uri.as_ref().is_some_and(|uri| !p.is_no_proxy(uri)));
    let host = match proxy {
        Some(proxy) => proxy.host().to_owned(),
        None => uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default().to_owned(),
    };
    let whose = if proxy.is_some() { "the proxy" } else { "the server" };
    // The system's resolver has no error of its own for this: it is asked again.
    let name = host.trim_matches(['[', ']']);
    let unknown = network_fails && (name, 0).to_socket_addrs().is_err() || matches!(e, ureq::Error::HostNotFound);
    let error = if unknown {
        network(format!("the name of {whose}, {host}, cannot be resolved"))
            .advise("check the name, DNS, and the proxy variables (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY)")
    } else {
        // The text of a bad URL would show its query.
        let why =
            if matches!(e, ureq::Error::BadUri(_)) { "not a URL".to_owned() } else { show_urls_in(&e.to_string()) };
        network(format!("asking {host}: {why}")).advise(match untrusted {
            true => "if the server's certificate is from an authority of your own, name it with the CA file option",
            false => "check the network and the proxy variables, then run it again",
        })
    };
    Failure { error, transient: network_fails && !untrusted || unknown, retry_after: None, answered: false }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn head(url: &str, redirected: bool, status: u16, headers: &HeaderMap) -> ResponseHead {
    let number = |name| header(headers, name)?.trim().parse().ok();
    // `bytes 5-9/100`
    let range = header(headers, "content-range").and_then(|v| {
        let (range, total) = v.strip_prefix("bytes ")?.split_once('/')?;
        let (first, _) = range.split_once('-')?;
        Some((first.trim().parse().ok()?, total.trim().parse().ok()?))
    });
    ResponseHead {
        status,
        url: url.to_owned(),
        redirected,
        length: number("content-length"),
        range,
        etag: header(headers, "etag"),
        last_modified: header(headers, "last-modified"),
        is_page: header(headers, "content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html")),
        retry_after: number("retry-after").map(Duration::from_secs),
        credentials: Credentials::None,
        told: String::new(),
    }
}

/// What an error's body says, fit for a message: its lines as one, cut to a length, URLs without their secrets. Of a
/// web page only that it is one.
fn told(body: &[u8]) -> String {
    if is_page(body) {
        return "a web page".to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = show_urls_in(&words.join(" "));
    match text.char_indices().nth(MAX_TOLD) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Where a redirect leads (RFC 3986 section 5, without dot segments).
fn follow(base: &str, location: &str) -> Result<String> {
    let from = origin(base)?;
    let authority = base.split('/').take(3).collect::<Vec<_>>().join("/");
    let path = base.split(['?', '#']).next().unwrap_or(base);
    let scheme = base.split(':').next().unwrap_or_default();
    let to = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{authority}{location}")
    } else if location.starts_with('?') {
        format!("{path}{location}")
    } else {
        let folder = if path.len() > authority.len() { path.rsplit_once('/').map_or(path, |(f, _)| f) } else { path };
        format!("{folder}/{location}")
    };
    let to = to.split('#').next().unwrap_or_default().to_owned();
    if from.starts_with("https:") && !origin(&to)?.starts_with("https:") {
        return Err(
            network(format!("{} leads from https to http", show_url(base))).advise("use a server that keeps to https")
        );
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_should() {
        let base = "https://a.example/x/y?q=1";
        for (location, expected) in [
            ("https://b.example/z?s=1#f", "https://b.example/z?s=1"),
            ("//b.example/z", "https://b.example/z"),
            ("/z", "https://a.example/z"),
            ("z", "https://a.example/x/z"),
            ("?z", "https://a.example/x/y?z"),
        ] {
            assert_eq!(follow(base, location).unwrap(), expected);
        }
        follow(base, "http://b.example/").unwrap_err();
        follow(base, "ftp://b.example/").unwrap_err();
    }
}
