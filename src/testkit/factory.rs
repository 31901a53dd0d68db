//! A local Image Factory on loopback, for the demonstration and for tests: the factory's paths, a second port that
//! plays object storage, and every bad behaviour of real servers on demand. It counts what it sends.
//!
//! Plain HTTP/1.1 over `std::net`, a thread per connection: an HTTP server crate would not let a body break off, stall
//! or lie about its length. Not for use beyond this machine.

mod connection;

use self::connection::Connection;
use crate::{Context, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What an asset consists of.
#[derive(Debug, Clone)]
pub enum AssetContent {
    /// Bytes in memory.
    Bytes(Arc<Vec<u8>>),
    /// A file and its length in bytes.
    File(Arc<File>, u64),
}

impl AssetContent {
    /// The contents of a file, read when they are asked for.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when it cannot be opened.
    pub fn file(path: &Path) -> Result<Self> {
        let file = File::open(path).while_doing(|| format!("opening {}", path.display()))?;
        let bytes = file.metadata()?.len();
        Ok(Self::File(Arc::new(file), bytes))
    }

    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, bytes) => *bytes,
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => crate::block::ReadAt::read_exact_at(&bytes[..], buf, offset),
            Self::File(file, _) => file.read_exact_at(buf, offset),
        }
    }
}

impl From<Vec<u8>> for AssetContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Arc::new(bytes))
    }
}

/// How a path is served. The default is the factory's own way: directly, with a length, without ranges.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Redirect to object storage, which serves ranges and an ETag.
    pub redirect: bool,
    /// Serve ranges without a redirect.
    pub ranges: bool,
    /// Leave out the ETag.
    pub no_etag: bool,
    /// Each presigned URL works for this many requests.
    pub url_requests: Option<u64>,
    /// Each presigned URL works until this many bytes were sent by it; then the connection breaks.
    pub url_bytes: Option<u64>,
    /// Break the connection after this many bytes of a body, this many times.
    pub drop_after: Option<(u64, u64)>,
    /// Break off with a proper end after this many bytes, this many times: the body has no length (chunked coding).
    pub truncate_after: Option<(u64, u64)>,
    /// Invert the byte at this offset.
    pub corrupt_at: Option<u64>,
    /// Bytes per second.
    pub bytes_per_second: Option<u64>,
    /// Wait before the first byte of an answer.
    pub first_byte_delay: Duration,
    /// Stop sending after this many bytes without closing, this many times.
    pub stall_after: Option<(u64, u64)>,
    /// Answer with this status so many times, with this Retry-After in seconds.
    pub refuse: Option<(u16, u64, Option<u64>)>,
    /// The Authorization header that the factory (not the storage) demands; else 401.
    pub authorization: Option<String>,
    /// The Content-Type of the answer.
    pub content_type: Option<String>,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether it came to the object storage.
    pub storage: bool,
    /// Method and path with query.
    pub target: String,
    /// The Range header.
    pub range: Option<String>,
    /// The Authorization header.
    pub authorization: Option<String>,
    /// The User-Agent header.
    pub user_agent: Option<String>,
}

struct Served {
    content: AssetContent,
    behaviour: Behaviour,
    generation: u64,
    /// How often a counted misbehaviour has happened.
    drops: u64,
    truncations: u64,
    stalls: u64,
    refusals: u64,
}

struct Ticket {
    path: String,
    requests: u64,
    bytes: u64,
}

#[derive(Default)]
struct Shared {
    assets: Mutex<HashMap<String, Served>>,
    schematics: Mutex<HashMap<String, String>>,
    tickets: Mutex<HashMap<u64, Ticket>>,
    certificate: Mutex<Vec<u8>>,
    seen: Mutex<Vec<Seen>>,
    generation: AtomicU64,
    sent: AtomicU64,
    stop: AtomicBool,
    storage: Mutex<Option<SocketAddr>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running local factory; it stops when dropped.
pub struct LocalFactory {
    shared: Arc<Shared>,
    factory: SocketAddr,
    storage: SocketAddr,
    listeners: Vec<JoinHandle<()>>,
}

impl LocalFactory {
    /// Starts one on free ports of the loopback.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when no port can be had.
    pub fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Starts one on free ports of this address.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when no port can be had.
    pub fn start_at(address: IpAddr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut listeners = Vec::new();
        let mut listen = |storage: bool| -> Result<SocketAddr> {
            let listener = TcpListener::bind((address, 0)).while_doing(|| "starting the local factory")?;
            let address = listener.local_addr()?;
            let shared = Arc::clone(&shared);
            listeners.push(
                std::thread::Builder::new()
                    .name("factory".into())
                    .spawn(move || accept(&listener, &shared, storage))?,
            );
            Ok(address)
        };
        let (factory, storage) = (listen(false)?, listen(true)?);
        *locked(&shared.storage) = Some(storage);
        Ok(Self { shared, factory, storage, listeners })
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.factory)
    }

    /// Serves an asset under `/image/<schematic>/<version>/<name>` and returns its URL.
    pub fn serve(
        &self,
        schematic: &str,
        version: &str,
        name: &str,
        content: impl Into<AssetContent>,
        behaviour: Behaviour,
    ) -> String {
        self.serve_path(&format!("/image/{schematic}/{version}/{name}"), content, behaviour)
    }

    /// Serves anything under any path, in place of what was there, and returns its URL.
    pub fn serve_path(&self, path: &str, content: impl Into<AssetContent>, behaviour: Behaviour) -> String {
        let generation = self.shared.generation.fetch_add(1, Ordering::Relaxed);
        let served =
            Served { content: content.into(), behaviour, generation, drops: 0, truncations: 0, stalls: 0, refusals: 0 };
        locked(&self.shared.assets).insert(path.to_owned(), served);
        format!("{}{path}", self.url())
    }

    /// Sets the certificate (PEM) of `/secureboot/signing-cert.pem`.
    pub fn set_signing_certificate(&self, pem: &[u8]) {
        *locked(&self.shared.certificate) = pem.to_vec();
    }

    /// Bytes of bodies sent so far, both ports.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// The requests so far, both ports, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        locked(&self.shared.seen).clone()
    }
}

impl Drop for LocalFactory {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for address in [self.factory, self.storage] {
            let _ = TcpStream::connect(address); // wakes the listener
        }
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, storage: bool) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        let _ = std::thread::Builder::new().name("factory".into()).spawn(move || {
            // A client that goes away is its own business.
            let _ = Connection::new(&shared, storage, stream).run();
        });
    }
}
