//! One HTTP exchange at a time, on a thread of its own.
//!
//! `ureq` (rustls) speaks HTTP and TLS. It blocks, and its read time-out is one for headers and body, while a factory
//! may take ten minutes for the first byte and must not be silent for one in the middle. So the exchange runs on a
//! thread and hands over chunks; this side watches the clock and the cancel flag, and cuts the connection when it gives
//! up. Redirects are followed here, so that credentials stay with the factory.

mod worker;

use self::worker::Worker;
use super::auth::{Withheld, is_loopback, origin};
use super::forward;
use super::options::{Options, TransferEvent};
use super::url::show_url;
use crate::units::size;
use crate::{Code, Context, Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Bytes of a chunk, and how many may wait.
const CHUNK: usize = 256 * 1024;
const WAITING: usize = 4;
/// How often the clock and the cancel flag are looked at.
const TICK: Duration = Duration::from_millis(50);
const MAX_REDIRECTS: usize = 10;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Bytes of an error's body that are read, and characters of it that are shown.
const MAX_ERROR_BODY: u64 = 16 * 1024;
const MAX_TOLD: usize = 2000;

/// What may end an operation from outside.
pub(super) struct Control<'a> {
    pub(super) cancel: &'a AtomicBool,
    pub(super) deadline: Option<Instant>,
    pub(super) events: &'a mut dyn FnMut(TransferEvent),
}

impl Control<'_> {
    pub(super) fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Cancelled, "stopped by the user"));
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(
                network("the overall time limit is over").advise("run it again: a download resumes where it stopped")
            );
        }
        Ok(())
    }
}

/// Why an exchange failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the same request may succeed later.
    pub(super) transient: bool,
    /// What the server asked to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether it is an answer: a server that takes its time over one is at work.
    answered: bool,
}

/// Failures in a row, and what they have cost.
#[derive(Debug)]
pub(super) struct Retries {
    failures: u32,
    spent: Duration,
    /// When the attempt began that is under way.
    begun: Instant,
}

impl Retries {
    pub(super) fn new() -> Self {
        Self { failures: 0, spent: Duration::ZERO, begun: Instant::now() }
    }

    /// Failures since the last byte of progress.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// A failure of the network or of a server.
pub(super) fn network(why: impl Into<String>) -> Error {
    Error::new(Code::Network, why)
}

impl Failure {
    pub(super) fn fatal(error: Error) -> Self {
        Self { error, transient: false, retry_after: None, answered: false }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { error: network(why), transient: true, retry_after: None, answered: false }
    }
}

/// A request; redirects are followed unless it has a body.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
}

impl Request {
    pub(super) fn get(url: &str) -> Self {
        Self { url: url.to_owned(), headers: Vec::new(), body: None }
    }
}

/// The head of the last answer.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// The URL that answered, after redirects.
    pub(super) url: String,
    pub(super) redirected: bool,
    pub(super) length: Option<u64>,
    /// First byte and length of the whole, from Content-Range.
    pub(super) range: Option<(u64, u64)>,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Whether it calls itself a web page.
    pub(super) is_page: bool,
    retry_after: Option<Duration>,
    credentials: Credentials,
    /// What an error's body says.
    told: String,
}

/// What became of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credentials {
    /// There are none.
    None,
    /// The server got them.
    Sent,
    /// The server did not get them.
    Withheld(Withheld),
}

impl ResponseHead {
    /// The failure that this status is. The request's own URL is the caller's to name; where a redirect led is named
    /// here.
    pub(super) fn failure(&self) -> Failure {
        let status = StatusCode::from_u16(self.status).ok();
        let reason = status.and_then(|s| s.canonical_reason()).unwrap_or("unknown status");
        let told = if self.told.is_empty() { String::new() } else { format!(": {}", self.told) };
        let who = if self.redirected { show_url(&self.url) } else { "the server".to_owned() };
        let error = Error::new(Code::Network, format!("{who} answered {} {reason}{told}", self.status));
        let transient = matches!(self.status, 408 | 425 | 429 | 500 | 502 | 503 | 504);
        let error = match self.status {
            407 => error.advise("the proxy demands a user and a password: put them into the URL of the proxy variable"),
            400 => error.advise("check the schematic, the Talos version and the architecture"),
            401 | 403 if self.redirected => error.advise(
                "the address that the factory led to is not, or no longer, allowed: run it again for a new one",
            ),
            401 | 403 => error.advise(match self.credentials {
                Credentials::Sent => {
                    "the token (or user and password) was refused: check it, and what it is allowed \
                                      to do"
                }
                Credentials::Withheld(Withheld::PlainHttp) => {
                    "the token was not sent, because everybody on the way could read it: use an https URL"
                }
                Credentials::Withheld(Withheld::OtherOrigin) => {
                    "the token in the environment is for the factory and was not sent to this server: name the server \
                     with \
                     --factory or BOOTSURGEON_FACTORY if it is the factory, or give its credentials with --auth-file"
                }
                Credentials::None => {
                    "set BOOTSURGEON_FACTORY_TOKEN, or BOOTSURGEON_FACTORY_USER and BOOTSURGEON_FACTORY_PASSWORD, for \
                     this \
                     factory"
                }
            }),
            402 => error.advise("this factory's edition does not offer it"),
            404 => error.advise(
                "check that this factory knows the schematic (`schematic create`) and the Talos \
                                 version",
            ),
            408 | 429 => error.advise("the factory is busy: try again later"),
            500.. => error.advise("the factory has a problem: try again later, or use another one with --factory"),
            _ => error,
        };
        Failure { error, transient, retry_after: self.retry_after, answered: true }
    }
}

enum Message {
    Head(Box<ResponseHead>),
    Data(Vec<u8>),
    End,
    Failed(Failure),
}

/// Makes exchanges.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) options: Options,
    tls: TlsConfig,
    /// Agents whose connection can be used again: for loopback, and for elsewhere.
    idle: Mutex<Vec<(bool, ureq::Agent)>>,
    /// Bytes of bodies that have arrived, including what nobody took any more.
    pub(super) wire: AtomicU64,
    /// Whether any server has answered yet.
    answered: AtomicBool,
}

impl Http {
    pub(super) fn new(options: Options) -> Result<Arc<Self>> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &options.ca_file {
            let read = || -> Result<Vec<Certificate<'static>>> {
                let pem = std::fs::read(path)?;
                let certificates: Vec<_> = parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(c)) => Some(c),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(Error::usage("no certificate in PEM form"));
                }
                Ok(certificates)
            };
            let certificates =
                read().while_doing(|| format!("reading certificate authorities from {}", path.display()))?;
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let (wire, answered) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Arc::new(Self { options, tls: tls.build(), idle: Mutex::default(), wire, answered }))
    }

    fn agent(&self, loopback: bool) -> ureq::Agent {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = idle.iter().position(|(l, _)| *l == loopback) {
            return idle.swap_remove(i).1;
        }
        let read = self.options.first_byte.max(self.options.stall);
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("bootsurgeon/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(read))
            .tls_config(self.tls.clone());
        if loopback {
            config = config.proxy(None); // a proxy cannot reach this machine's own loopback
        }
        forward::agent(config.build())
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    pub(super) fn start(
        self: &Arc<Self>,
        request: &Request,
        control: &mut Control<'_>,
    ) -> Result<(ResponseHead, Exchange), Failure> {
        control.check().map_err(Failure::fatal)?;
        origin(&request.url).map_err(Failure::fatal)?;
        let loopback = is_loopback(&request.url);
        let agent = self.agent(loopback);
        let (to_us, messages) = sync_channel(WAITING);
        let (spare, spares) = channel();
        let worker = Worker { http: Arc::clone(self), agent: agent.clone(), loopback, messages: to_us, spares };
        let request = request.clone();
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || worker.run(request))
            .map_err(|e| Failure::fatal(Error::from(e)))?;
        let mut exchange = Exchange {
            http: Arc::clone(self),
            messages,
            spare,
            agent: Some(agent),
            loopback,
            stall: self.options.first_byte,
        };
        let begun = Instant::now();
        let mut told = 0;
        let head = exchange.message(control, &mut |control| {
            let elapsed = begun.elapsed();
            if elapsed.as_secs() > told {
                told = elapsed.as_secs();
                (control.events)(TransferEvent::Waiting { elapsed });
            }
        })?;
        let Message::Head(head) = head else {
            return Err(Failure::passing("the connection ended before an answer"));
        };
        self.answered.store(true, Ordering::Relaxed);
        exchange.stall = self.options.stall;
        Ok((*head, exchange))
    }

    /// The whole body of a small answer with status 200 or 201, with retries.
    pub(super) fn small(
        self: &Arc<Self>,
        request: &Request,
        limit: usize,
        control: &mut Control<'_>,
    ) -> Result<Vec<u8>, (u16, Error)> {
        let mut retries = Retries::new();
        loop {
            let mut status = 0;
            let mut attempt = || -> Result<Vec<u8>, Failure> {
                let (head, mut exchange) = self.start(request, control)?;
                status = head.status;
                if !matches!(head.status, 200 | 201) {
                    return Err(head.failure());
                }
                let mut body = Vec::new();
                while let Some(chunk) = exchange.chunk(control)? {
                    if body.len() + chunk.len() > limit {
                        let why = format!("the response is longer than {}", size(limit as u64));
                        return Err(Failure::fatal(Error::new(Code::Malformed, why)));
                    }
                    body.extend_from_slice(&chunk);
                    exchange.give_back(chunk);
                }
                Ok(body)
            };
            match attempt() {
                Ok(body) => return Ok(body),
                Err(failure) => self.pause(failure, &mut retries, control).map_err(|e| (status, e))?,
            }
        }
    }

    /// Waits before the next attempt, or gives up.
    pub(super) fn pause(&self, failure: Failure, retries: &mut Retries, control: &mut Control<'_>) -> Result<()> {
        retries.failures += 1;
        if !failure.transient {
            return Err(failure.error);
        }
        if !failure.answered {
            retries.spent += retries.begun.elapsed().min(CONNECT);
        }
        let limit = match self.answered.load(Ordering::Relaxed) {
            true => self.options.retry_for,
            false => self.options.retry_for.min(self.options.first_contact),
        };
        let left = limit.saturating_sub(retries.spent);
        if left.is_zero() || retries.failures > self.options.retries {
            return Err(match retries.failures {
                1 => failure.error,
                n => failure.error.while_doing(format!("given up after {n} attempts")),
            });
        }
        let doubled = self.options.backoff.saturating_mul(1 << (retries.failures - 1).min(16));
        let backoff = doubled.min(Duration::from_secs(30)).mul_f64(0.5 + 0.5 * random());
        if let Some(asked) = failure.retry_after.filter(|asked| *asked > left) {
            let advice = format!("the server asks to wait {} s: run it again then", asked.as_secs());
            return Err(failure.error.instead_advise(advice));
        }
        let after = failure.retry_after.map_or(backoff, |asked| asked.max(backoff)).min(left);
        let until = Instant::now() + after;
        if control.deadline.is_some_and(|deadline| deadline <= until) {
            return Err(failure.error.while_doing("the time limit does not allow another attempt"));
        }
        let why = failure.error.to_string();
        (control.events)(TransferEvent::Retrying { attempt: retries.failures, after, left, why });
        loop {
            control.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                retries.spent += after;
                retries.begun = Instant::now();
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

/// A random number from 0 to 1, good enough to keep clients out of step.
fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// An answer whose body is still coming. Dropping it cuts the connection.
pub(super) struct Exchange {
    http: Arc<Http>,
    messages: Receiver<Message>,
    spare: Sender<Vec<u8>>,
    agent: Option<ureq::Agent>,
    loopback: bool,
    stall: Duration,
}

impl Exchange {
    /// The next part of the body; `None` at its end.
    pub(super) fn chunk(&mut self, control: &mut Control<'_>) -> Result<Option<Vec<u8>>, Failure> {
        match self.message(control, &mut |_| {})? {
            Message::Data(chunk) => Ok(Some(chunk)),
            _ => {
                if let Some(agent) = self.agent.take() {
                    self.http.idle.lock().unwrap_or_else(PoisonError::into_inner).push((self.loopback, agent));
                }
                Ok(None)
            }
        }
    }

    /// A buffer that is no longer needed.
    pub(super) fn give_back(&self, chunk: Vec<u8>) {
        let _ = self.spare.send(chunk);
    }

    fn message(
        &mut self,
        control: &mut Control<'_>,
        tick: &mut dyn FnMut(&mut Control<'_>),
    ) -> Result<Message, Failure> {
        let since = Instant::now();
        loop {
            control.check().map_err(Failure::fatal)?;
            match self.messages.recv_timeout(TICK) {
                Ok(Message::Failed(failure)) => return Err(failure),
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::passing("the connection ended")),
                Err(RecvTimeoutError::Timeout) if since.elapsed() >= self.stall => {
                    return Err(Failure::passing(format!("no byte came for {} s", self.stall.as_secs_f32())));
                }
                Err(RecvTimeoutError::Timeout) => tick(control),
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown();
        }
    }
}
