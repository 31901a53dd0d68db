//! One connection of the local Image Factory: requests read, and answered as well or as badly as their path is set up.

use super::{AssetContent, Behaviour, Seen, Shared, Ticket, locked};
use crate::Error;
use crate::factory::Schematic;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const MAX_LINE: u64 = 16 * 1024;
const MAX_BODY: u64 = 1 << 20;
const BUFFER: usize = 256 * 1024;
/// A slow line holds so much of what it takes that it does not stand still while the next bytes are made ready.
const LINE_BUFFER: Duration = Duration::from_millis(20);
/// Requests that are remembered.
const MAX_SEEN: usize = 100_000;

pub(super) struct Connection<'a> {
    shared: &'a Shared,
    storage: bool,
    stream: TcpStream,
}

#[derive(Default)]
struct Asked {
    method: String,
    target: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl<'a> Connection<'a> {
    pub(super) fn new(shared: &'a Shared, storage: bool, stream: TcpStream) -> Self {
        Self { shared, storage, stream }
    }

    pub(super) fn run(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut reader = BufReader::new(self.stream.try_clone()?);
        loop {
            // Wait for a request without forgetting to stop.
            loop {
                match reader.fill_buf() {
                    Ok([]) => return Ok(()),
                    Ok(_) => break,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                        if self.shared.stop.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                    }
                    Err(e) => return Err(e),
                }
            }
            let asked = read_request(&mut reader)?;
            if !self.answer(&asked)? {
                return self.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Answers; `false` when the connection is to be closed.
    fn answer(&mut self, asked: &Asked) -> io::Result<bool> {
        let mut seen = locked(&self.shared.seen);
        if seen.len() < MAX_SEEN {
            seen.push(Seen {
                storage: self.storage,
                target: format!("{} {}", asked.method, asked.target),
                range: asked.header("range").map(str::to_owned),
                authorization: asked.header("authorization").map(str::to_owned),
                user_agent: asked.header("user-agent").map(str::to_owned),
            });
        }
        drop(seen);
        let path = asked.target.split('?').next().unwrap_or_default().to_owned();
        if self.storage {
            return self.answer_as_storage(asked);
        }
        match (asked.method.as_str(), path.as_str()) {
            ("POST", "/schematics") => self.create(&asked.body),
            ("GET", "/secureboot/signing-cert.pem") => {
                let pem = locked(&self.shared.certificate).clone();
                if pem.is_empty() { self.plain(404, "no certificate\n") } else { self.simple(200, "", &pem) }
            }
            ("GET", "/versions") => {
                let mut versions: Vec<String> = locked(&self.shared.assets)
                    .keys()
                    .filter_map(|p| p.strip_prefix("/image/")?.split('/').nth(1).map(str::to_owned))
                    .collect();
                versions.sort();
                versions.dedup();
                self.simple(
                    200,
                    "Content-Type: application/json\r\n",
                    serde_json::json!(versions).to_string().as_bytes(),
                )
            }
            ("GET", p) if p.starts_with("/schematics/") => {
                let id = p.trim_start_matches("/schematics/");
                let text = locked(&self.shared.schematics).get(id).cloned();
                match text {
                    Some(text) => self.simple(200, "", text.as_bytes()),
                    None => self.plain(404, "schematic not found\n"),
                }
            }
            ("GET" | "HEAD", p) => self.asset(asked, p, None),
            _ => self.plain(405, "method not allowed\n"),
        }
    }

    fn create(&mut self, body: &[u8]) -> io::Result<bool> {
        match std::str::from_utf8(body).map_err(|e| Error::usage(e.to_string())).and_then(Schematic::parse) {
            Ok(schematic) => {
                let (id, text) = (schematic.id(), schematic.canonical());
                locked(&self.shared.schematics).insert(id.clone(), text.clone());
                let json = serde_json::json!({"id": id, "schematic": text}).to_string();
                self.simple(201, "Content-Type: application/json\r\n", json.as_bytes())
            }
            Err(e) => self.plain(400, &format!("{e}\n")),
        }
    }

    /// A presigned URL: `/blob?signature=<number>`.
    fn answer_as_storage(&mut self, asked: &Asked) -> io::Result<bool> {
        let number: Option<u64> = asked.target.strip_prefix("/blob?signature=").and_then(|n| n.parse().ok());
        let path = number.and_then(|number| {
            let mut tickets = locked(&self.shared.tickets);
            let ticket = tickets.get_mut(&number)?;
            if ticket.requests == 0 || ticket.bytes == 0 {
                return None;
            }
            ticket.requests = ticket.requests.saturating_sub(1);
            Some(ticket.path.clone())
        });
        match path {
            Some(path) => self.asset(asked, &path, number),
            None => self.plain(403, "Request has expired\n"),
        }
    }

    fn asset(&mut self, asked: &Asked, path: &str, ticket: Option<u64>) -> io::Result<bool> {
        let (content, behaviour, generation, cut) = {
            let mut assets = locked(&self.shared.assets);
            let Some(served) = assets.get_mut(path) else {
                drop(assets);
                return self.plain(404, "not found\n");
            };
            let behaviour = served.behaviour.clone();
            if let Some((status, times, retry_after)) = behaviour.refuse
                && ticket.is_none()
                && served.refusals < times
            {
                served.refusals += 1;
                drop(assets);
                let extra = retry_after.map_or_else(String::new, |s| format!("Retry-After: {s}\r\n"));
                return self.simple(status, &extra, format!("refused with {status}\nsecond line\n").as_bytes());
            }
            let mut cut = Cut::No;
            if !(behaviour.redirect && ticket.is_none()) {
                let rules: [(_, _, fn(u64) -> _); 3] = [
                    (behaviour.drop_after, &mut served.drops, Cut::Drop),
                    (behaviour.truncate_after, &mut served.truncations, Cut::Truncate),
                    (behaviour.stall_after, &mut served.stalls, Cut::Stall),
                ];
                // One misbehaviour at a time: the first that still has turns.
                for (rule, done, kind) in rules {
                    if let Some((after, times)) = rule
                        && *done < times
                    {
                        *done += 1;
                        cut = kind(after);
                        break;
                    }
                }
            }
            (served.content.clone(), behaviour, served.generation, cut)
        };
        if ticket.is_none()
            && behaviour.authorization.is_some()
            && asked.header("authorization") != behaviour.authorization.as_deref()
        {
            return self.plain(401, "authentication required\n");
        }
        self.sleep(behaviour.first_byte_delay);
        if behaviour.redirect && ticket.is_none() && asked.method == "GET" {
            let number = self.shared.generation.fetch_add(1, Ordering::Relaxed);
            let ticket = Ticket {
                path: path.to_owned(),
                requests: behaviour.url_requests.unwrap_or(u64::MAX),
                bytes: behaviour.url_bytes.unwrap_or(u64::MAX),
            };
            locked(&self.shared.tickets).insert(number, ticket);
            let storage = locked(&self.shared.storage).map_or_else(String::new, |a| a.to_string());
            return self.simple(302, &format!("Location: http://{storage}/blob?signature={number}\r\n"), b"");
        }
        let size = content.size();
        let ranged = behaviour.ranges || ticket.is_some();
        let etag = (ranged && !behaviour.no_etag).then(|| format!("\"{size:x}-{generation:x}\""));
        let mut head = etag.as_ref().map_or_else(String::new, |tag| format!("ETag: {tag}\r\n"));
        if ranged {
            head.push_str("Accept-Ranges: bytes\r\n");
        }
        if let Some(kind) = &behaviour.content_type {
            head.push_str(&format!("Content-Type: {kind}\r\n"));
        }
        let same = asked.header("if-range").is_none_or(|tag| Some(tag) == etag.as_deref());
        let (mut status, mut first, mut end) = (200, 0, size);
        if ranged
            && same
            && let Some(range) = asked.header("range")
        {
            let parsed = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).and_then(|(a, b)| {
                let last = if b.is_empty() { u64::MAX } else { b.parse().ok()? };
                Some((a.parse::<u64>().ok()?, last))
            });
            match parsed {
                Some((a, b)) if a < size && a <= b => {
                    (status, first, end) = (206, a, b.saturating_add(1).min(size));
                    head.push_str(&format!("Content-Range: bytes {first}-{}/{size}\r\n", end - 1));
                }
                _ => return self.simple(416, &format!("Content-Range: bytes */{size}\r\n"), b""),
            }
        }
        self.body(asked, &Body { content, behaviour, first, end, cut, ticket }, status, &head)
    }

    fn body(&mut self, asked: &Asked, body: &Body, status: u16, head: &str) -> io::Result<bool> {
        let chunked = matches!(body.cut, Cut::Truncate(_));
        let length = if chunked {
            "Transfer-Encoding: chunked\r\n".to_owned()
        } else {
            format!("Content-Length: {}\r\n", body.end - body.first)
        };
        write!(self.stream, "HTTP/1.1 {status} x\r\n{length}{head}\r\n")?;
        if asked.method == "HEAD" {
            return Ok(true);
        }
        let stop_at = match body.cut {
            Cut::Drop(n) | Cut::Truncate(n) | Cut::Stall(n) => body.end.min(body.first.saturating_add(n)),
            Cut::No => body.end,
        };
        let mut at = body.first;
        let mut buf = vec![0; BUFFER];
        // When a line of this speed has taken what was sent.
        let mut due = Instant::now();
        while at < stop_at {
            let slice =
                body.behaviour.bytes_per_second.map_or(BUFFER as u64, |rate| (rate / 20).clamp(1, BUFFER as u64));
            let mut n = (stop_at - at).min(slice);
            if let Some(number) = body.ticket
                && let Some(ticket) = locked(&self.shared.tickets).get_mut(&number)
            {
                n = n.min(ticket.bytes);
                ticket.bytes -= n;
            }
            if n == 0 || self.shared.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let part = &mut buf[..n as usize];
            body.content.read(part, at)?;
            if let Some(bad) =
                body.behaviour.corrupt_at.and_then(|c| c.checked_sub(at)).and_then(|i| part.get_mut(i as usize))
            {
                *bad = !*bad;
            }
            if chunked {
                write!(self.stream, "{n:x}\r\n")?;
            }
            self.stream.write_all(part)?;
            if chunked {
                self.stream.write_all(b"\r\n")?;
            }
            self.shared.sent.fetch_add(n, Ordering::Relaxed);
            at += n;
            if let Some(rate) = body.behaviour.bytes_per_second {
                // What a client that pauses has missed does not come faster afterwards.
                due = due.max(Instant::now().checked_sub(LINE_BUFFER).unwrap_or(due));
                due += Duration::from_secs_f64(n as f64 / rate.max(1) as f64);
                self.sleep_until(due);
            }
        }
        match body.cut {
            Cut::Drop(_) if at < body.end => Ok(false),
            Cut::Stall(_) if at < body.end => {
                self.sleep(Duration::from_secs(600));
                Ok(false)
            }
            Cut::Truncate(_) => {
                self.stream.write_all(b"0\r\n\r\n")?;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// Sleeps, but not past the end of the server or of the connection.
    fn sleep(&self, time: Duration) {
        self.sleep_until(Instant::now() + time);
    }

    fn sleep_until(&self, until: Instant) {
        let mut byte = [0];
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !left.is_zero()
            && !self.shared.stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(left.min(Duration::from_millis(20)));
            let gone = self.stream.set_nonblocking(true).is_ok() && matches!(self.stream.peek(&mut byte), Ok(0));
            let _ = self.stream.set_nonblocking(false);
            if gone {
                return;
            }
        }
    }

    fn plain(&mut self, status: u16, text: &str) -> io::Result<bool> {
        self.simple(status, "Content-Type: text/plain\r\n", text.as_bytes())
    }

    fn simple(&mut self, status: u16, headers: &str, body: &[u8]) -> io::Result<bool> {
        let mut answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        self.stream.write_all(&answer)?;
        Ok(true)
    }
}

enum Cut {
    No,
    Drop(u64),
    Truncate(u64),
    Stall(u64),
}

struct Body {
    content: AssetContent,
    behaviour: Behaviour,
    first: u64,
    end: u64,
    cut: Cut,
    ticket: Option<u64>,
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Asked> {
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        reader.by_ref().take(MAX_LINE).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(line.trim_end().to_owned())
    };
    let mut asked = Asked::default();
    let first = line()?;
    let mut words = first.split(' ');
    asked.method = words.next().unwrap_or_default().to_owned();
    asked.target = words.next().unwrap_or_default().to_owned();
    for _ in 0..100 {
        let header = line()?;
        let Some((name, value)) = header.split_once(':') else { break };
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: u64 = asked.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    if length > MAX_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    reader.take(length).read_to_end(&mut asked.body)?;
    Ok(asked)
}
