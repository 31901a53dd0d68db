//! Plain http through a proxy: the whole URL in the request line, as RFC 9112 (section 3.2.2) has it.
//!
//! `ureq` leads every request through a tunnel (`CONNECT host:80`), https and http alike. Proxies as they are usually
//! set up (Squid's `SSL_ports`) allow tunnels to port 443 only. Nothing in `ureq`'s stable interface changes that; its
//! connectors can be exchanged, which is the smallest way. They are outside its promises of compatibility, so its
//! version is pinned to 3.5, and a test with a proxy that denies tunnels would notice a change.

use base64::Engine as _;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};
use ureq::{Agent, Error, Proxy, ProxyProtocol};

/// An agent with this configuration.
pub(super) fn agent(config: Config) -> Agent {
    let direct = Config::builder();
    let direct = direct
        .proxy(None)
        .tls_config(config.tls_config().clone())
        .timeout_connect(config.timeouts().connect)
        .timeout_per_read(config.timeout_per_read())
        .build();
    Agent::with_parts(config, Forwarding { inner: DefaultConnector::default(), direct }, DefaultResolver::default())
}

/// Connects as `ureq` does, but for plain http through an HTTP proxy.
#[derive(Debug)]
struct Forwarding {
    inner: DefaultConnector,
    /// How to reach the proxy itself.
    direct: Config,
}

impl Connector for Forwarding {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<Self::Out>, Error> {
        let Some(proxy) = forwarding_proxy(details) else { return self.inner.connect(details, chained) };
        let addrs = details.resolver.resolve(proxy.uri(), details.config, details.timeout)?;
        let to_proxy = ConnectionDetails {
            uri: proxy.uri(),
            addrs,
            config: &self.direct,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let inner = (details.run_connector)(&to_proxy)?;
        Ok(Some(Box::new(Forwarded {
            inner,
            origin: origin_of(details.uri),
            credentials: credentials(proxy),
            head: true,
        })))
    }
}

/// The proxy that a request of this connection is sent to as a whole.
fn forwarding_proxy<'a>(details: &'a ConnectionDetails<'_>) -> Option<&'a Proxy> {
    let proxy = details.config.proxy()?;
    let http = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    (http && !details.needs_tls() && !proxy.is_no_proxy(details.uri)).then_some(proxy)
}

/// `http://host:port` of a URL.
fn origin_of(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port_u16().map_or_else(|| format!("http://{host}"), |port| format!("http://{host}:{port}"))
}

/// The header field with the proxy's credentials, if there are any.
fn credentials(proxy: &Proxy) -> String {
    if proxy.username().is_none() && proxy.password().is_none() {
        return String::new();
    }
    let pair = format!("{}:{}", proxy.username().unwrap_or_default(), proxy.password().unwrap_or_default());
    format!("Proxy-Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// A connection to a proxy on which the target of each request becomes a whole URL.
#[derive(Debug)]
struct Forwarded {
    inner: Box<dyn Transport>,
    origin: String,
    credentials: String,
    /// Whether what is sent next is the head of a request. `ureq` puts the whole head into one piece.
    head: bool,
}

impl Forwarded {
    /// `GET /path HTTP/1.1` becomes `GET http://host/path HTTP/1.1`, with the credentials behind it.
    fn rewrite(&self, head: &[u8]) -> Option<Vec<u8>> {
        let target = head.iter().position(|b| *b == b' ')? + 1;
        let line = head.windows(2).position(|w| w == b"\r\n")? + 2;
        let parts = [&head[..target], self.origin.as_bytes(), &head[target..line], self.credentials.as_bytes()];
        Some([&parts.concat(), &head[line..]].concat())
    }
}

impl Transport for Forwarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !std::mem::take(&mut self.head) {
            return self.inner.transmit_output(amount, timeout);
        }
        let head = self.inner.buffers().output().get(..amount).map(<[u8]>::to_vec);
        let whole = head.and_then(|head| self.rewrite(&head));
        let output = self.inner.buffers().output();
        match whole {
            Some(whole) if whole.len() <= output.len() => {
                output[..whole.len()].copy_from_slice(&whole);
                self.inner.transmit_output(whole.len(), timeout)
            }
            _ => Err(Error::Io(std::io::Error::other("the head of the request is too long for a proxy"))),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // An answer comes: what is sent after it is the next request.
        self.head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
