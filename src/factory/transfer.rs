//! A file, or a range of one, as a sequence of chunks that goes on over broken connections.
//!
//! A continuation asks for the rest with `Range` and `If-Range`, so the server itself says whether the file is still
//! the same one; without a strong validator nothing is continued, it starts over. A redirect's target (a presigned URL)
//! is kept while it works; when it expires the factory is asked for a new one.

use super::http::{Control, Exchange, Failure, Http, Request, ResponseHead, Retries, network};
use super::options::TransferEvent;
use super::page::PAGE_ADVICE;
use super::url::show_url;
use crate::units::exact;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

/// What identifies one state of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entity {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Length in bytes.
    pub(super) length: Option<u64>,
}

impl Entity {
    fn of(head: &ResponseHead) -> Self {
        let length = head.range.map_or(head.length, |(_, total)| Some(total));
        Self { etag: head.etag.clone(), last_modified: head.last_modified.clone(), length }
    }

    /// The value of `If-Range`: weak tags do not count (RFC 9110 section 13.1.5).
    pub(super) fn validator(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|tag| !tag.starts_with("W/"));
        strong.or(self.last_modified.as_deref())
    }

    fn same_as(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        agree(self.etag.as_ref(), other.etag.as_ref()) && agree(self.length.as_ref(), other.length.as_ref())
    }
}

/// A URL, and where it led last.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: String,
    resolved: Mutex<Option<String>>,
}

impl Endpoint {
    pub(super) fn new(url: &str) -> Arc<Self> {
        Arc::new(Self { url: url.to_owned(), resolved: Mutex::default() })
    }

    /// Asks for the file, at the place it was found last if that still works.
    fn start(
        &self,
        http: &Arc<Http>,
        headers: &[(&'static str, String)],
        control: &mut Control<'_>,
    ) -> Result<(ResponseHead, Exchange), Failure> {
        let place = self.resolved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let request = |url: &str| Request { headers: headers.to_vec(), ..Request::get(url) };
        if let Some(place) = place
            && let Ok((head, exchange)) = http.start(&request(&place), control)
            && head.status < 400
        {
            self.keep(&head);
            return Ok((head, exchange));
        }
        let (head, exchange) = http.start(&request(&self.url), control)?;
        if head.status < 400 && head.url != self.url {
            self.keep(&head);
        }
        Ok((head, exchange))
    }

    fn keep(&self, head: &ResponseHead) {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(head.url.clone());
    }
}

/// The next thing that happens in a transfer.
pub(super) enum Piece {
    /// The next bytes.
    Data(Vec<u8>),
    /// All bytes so far are void; what follows starts at byte 0.
    StartOver,
    /// Every byte has come.
    End,
}

/// A transfer under way.
pub(super) struct Transfer {
    http: Arc<Http>,
    endpoint: Arc<Endpoint>,
    exchange: Option<Exchange>,
    /// Offset of the next byte.
    at: u64,
    /// Where a ranged transfer ends; `None` for the whole file.
    end: Option<u64>,
    pub(super) entity: Option<Entity>,
    /// Failures since the last byte that was new.
    retries: Retries,
    farthest: u64,
    /// Whether it failed because the server does not serve ranges.
    pub(super) without_ranges: bool,
}

impl Transfer {
    /// From `at` to `end` (or the file's end) of `entity`, or of whatever is there now.
    pub(super) fn new(
        http: &Arc<Http>,
        endpoint: &Arc<Endpoint>,
        at: u64,
        end: Option<u64>,
        entity: Option<Entity>,
    ) -> Self {
        Self {
            http: Arc::clone(http),
            endpoint: Arc::clone(endpoint),
            exchange: None,
            at,
            end,
            entity,
            retries: Retries::new(),
            farthest: at,
            without_ranges: false,
        }
    }

    /// The length of the whole file in bytes, once known.
    pub(super) fn total(&self) -> Option<u64> {
        self.entity.as_ref().and_then(|e| e.length)
    }

    /// A buffer that is no longer needed.
    pub(super) fn give_back(&self, chunk: Vec<u8>) {
        if let Some(exchange) = &self.exchange {
            exchange.give_back(chunk);
        }
    }

    /// The next piece; blocks, retries and goes on as needed.
    pub(super) fn next(&mut self, control: &mut Control<'_>) -> Result<Piece> {
        loop {
            match self.attempt(control) {
                Ok(piece) => return Ok(piece),
                Err(failure) => {
                    self.exchange = None;
                    self.http.pause(failure, &mut self.retries, control)?;
                    let can_go_on = self.entity.as_ref().is_some_and(|e| e.validator().is_some());
                    if self.end.is_none() && self.at > 0 && !can_go_on {
                        return Ok(self.start_over(control));
                    }
                }
            }
        }
    }

    fn start_over(&mut self, control: &mut Control<'_>) -> Piece {
        (control.events)(TransferEvent::StartingOver);
        self.at = 0;
        self.entity = None;
        Piece::StartOver
    }

    fn attempt(&mut self, control: &mut Control<'_>) -> Result<Piece, Failure> {
        if self.exchange.is_none() {
            let goal = self.end.or_else(|| self.total());
            if goal.is_some_and(|goal| self.at >= goal) {
                return Ok(Piece::End);
            }
            if let Some(piece) = self.open(control)? {
                return Ok(piece);
            }
        }
        let Some(exchange) = &mut self.exchange else { return Ok(Piece::End) };
        let goal = self.end.or(self.entity.as_ref().and_then(|e| e.length));
        match exchange.chunk(control)? {
            Some(chunk) => {
                self.at = self.at.saturating_add(chunk.len() as u64);
                if goal.is_some_and(|goal| self.at > goal) {
                    return Err(Failure::fatal(network("the server sent more bytes than it announced")));
                }
                if self.at > self.farthest {
                    self.farthest = self.at;
                    self.retries = Retries::new();
                }
                Ok(Piece::Data(chunk))
            }
            None => {
                self.exchange = None;
                match goal {
                    Some(goal) if self.at < goal => {
                        Err(Failure::passing(format!("the body ended after {} of {}", exact(self.at), exact(goal))))
                    }
                    _ => {
                        self.end = Some(self.at);
                        Ok(Piece::End)
                    }
                }
            }
        }
    }

    /// Sends the request; a piece when the answer changes what has come before.
    fn open(&mut self, control: &mut Control<'_>) -> Result<Option<Piece>, Failure> {
        let mut headers = Vec::new();
        if self.at > 0 || self.end.is_some() {
            let last = self.end.map_or_else(String::new, |end| (end - 1).to_string());
            headers.push(("range", format!("bytes={}-{last}", self.at)));
            if let Some(validator) = self.entity.as_ref().and_then(Entity::validator) {
                headers.push(("if-range", validator.to_owned()));
            }
        }
        let (head, exchange) = self.endpoint.start(&self.http, &headers, control)?;
        let now = Entity::of(&head);
        let shown = || show_url(&self.endpoint.url);
        let changed =
            || Failure::fatal(network(format!("{} changed while it was being read", shown())).advise("run it again"));
        match head.status {
            206 => {
                let (first, total) = head.range.ok_or_else(|| {
                    Failure::fatal(network(format!("{}: the response has no Content-Range", shown())))
                })?;
                if first != self.at || total < self.at {
                    return Err(Failure::fatal(network(format!("{}: the response is for another range", shown()))));
                }
                if self.entity.as_ref().is_some_and(|e| !e.same_as(&now)) {
                    if self.end.is_some() {
                        return Err(changed());
                    }
                    return Ok(Some(self.start_over(control)));
                }
                self.end = self.end.map(|end| end.min(total));
                self.entity.get_or_insert(now);
                self.exchange = Some(exchange);
                Ok(None)
            }
            // A sign-in page instead of the rest costs nothing of what is here.
            200 if self.at > 0 && head.is_page => {
                Err(Failure::fatal(network("a web page came instead of the rest").advise(PAGE_ADVICE)))
            }
            200 if self.end.is_some() => {
                if self.entity.as_ref().is_some_and(|e| !e.same_as(&now)) {
                    return Err(changed());
                }
                self.without_ranges = true;
                Err(Failure::fatal(no_ranges(&self.endpoint.url)))
            }
            200 => {
                let before = self.at;
                self.at = 0;
                self.entity = Some(now);
                self.exchange = Some(exchange);
                Ok((before > 0).then(|| {
                    (control.events)(TransferEvent::StartingOver);
                    Piece::StartOver
                }))
            }
            // The part is longer than the file is now.
            416 if self.end.is_none() => Ok(Some(self.start_over(control))),
            _ => {
                let mut failure = head.failure();
                // A presigned URL that expired since it was issued is worth another way through the factory.
                let may_have_expired = head.redirected && matches!(head.status, 400 | 401 | 403 | 404 | 410);
                failure.transient |= may_have_expired && self.entity.is_some() && self.retries.failures() < 3;
                Err(failure)
            }
        }
    }
}

/// The server does not serve parts of files.
pub(super) fn no_ranges(url: &str) -> Error {
    network(format!("{} is served without byte ranges", show_url(url)))
        .advise("download it whole first (`fetch`), or read it as a stream")
}
