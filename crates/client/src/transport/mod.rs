//! Ways to a broker: TCP, Unix socket, TLS, WebSocket, SOCKS5.
//!
//! An [`Endpoint`] says where, [`TransportOptions`] how; together they are a [`Transport`], which makes one connection after
//! another. TLS and WebSocket are layers over what carries them:
//!
//! ```text
//!   MQTT ─► [WebSocket] ─► [TLS] ─► TCP (through SOCKS5, perhaps) or Unix socket
//! ```
//!
//! Where the DNS has to name the broker, its answer is read by [`dns`]: the one question needs no library.
//!
//! It knows no MQTT packet.

pub mod dns;
mod socks;
mod srv;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

pub use socks::{Socks5, SocksError};
pub use srv::SrvError;

use crate::client::BoxedStream;
use crate::url::{BrokerUrl, Scheme};

/// Where a broker is, and what its packets are wrapped in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host or path.
    pub address: Address,
    /// TLS around it all.
    pub tls: bool,
    /// WebSocket, with this path and query.
    pub websocket: Option<String>,
}

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host, by name or number, and a port.
    Host(String, u16),
    /// A domain whose SRV records `_mqtt._tcp`, with TLS `_secure-mqtt._tcp`, name hosts and ports (RFC 2782). They are asked for
    /// before each connection, and tried in their order. A certificate has to be for the domain, since whoever can forge
    /// answers of the DNS can name any host.
    Service(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Plain TCP.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self { address: Address::Host(host.into(), port), tls: false, websocket: None }
    }

    /// What a URL names.
    pub fn of(url: &BrokerUrl) -> Self {
        let address = match url.unix_path() {
            Some(path) => Address::Unix(path.to_owned()),
            None => Address::Host(url.host().unwrap_or_default().to_owned(), url.port().unwrap_or_default()),
        };
        let websocket = matches!(url.scheme(), Scheme::Ws | Scheme::Wss);
        Self {
            address,
            tls: matches!(url.scheme(), Scheme::Mqtts | Scheme::Wss),
            websocket: websocket.then(|| url.path_and_query().unwrap_or("/mqtt").to_owned()),
        }
    }

    /// The name that a certificate and a WebSocket request speak of.
    #[cfg(any(feature = "tls", feature = "websocket"))]
    fn host(&self) -> &str {
        match &self.address {
            Address::Host(host, _) | Address::Service(host) => host,
            Address::Unix(_) => "localhost",
        }
    }
}

/// How connections are made.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// How long all of it may take: names, addresses, TLS, WebSocket. Default: 10 s.
    pub connect_timeout: Duration,
    /// Whether small packets go out at once (TCP_NODELAY). Default: true.
    pub nodelay: bool,
    /// The own address to connect from. Default: the system chooses.
    pub bind: Option<IpAddr>,
    /// Go through a SOCKS5 proxy. Default: none.
    pub proxy: Option<Socks5>,
    /// What TLS trusts and shows.
    pub tls: TlsOptions,
    /// The name servers to ask for the SRV records of an [`Address::Service`]; three at most. Default: none, those of the
    /// system, in `/etc/resolv.conf`.
    pub name_servers: Vec<SocketAddr>,
    /// Headers for the WebSocket request. Default: none.
    pub websocket_headers: Vec<(String, String)>,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            nodelay: true,
            bind: None,
            proxy: None,
            tls: TlsOptions::default(),
            name_servers: Vec::new(),
            websocket_headers: Vec::new(),
        }
    }
}

/// What TLS trusts and shows.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Certificate authorities. Default: those of the system.
    pub roots: Roots,
    /// The own certificate. Default: none.
    pub client_certificate: Option<ClientCertificate>,
    /// Application protocols to offer, as `mqtt`. Default: none.
    pub alpn: Vec<String>,
    /// The name that the broker's certificate must be for. Default: the host.
    pub server_name: Option<String>,
    /// Versions to speak. Default: both.
    pub versions: TlsVersions,
    /// How much of the broker's certificate is checked. Default: all.
    pub verification: Verification,
    /// A file that gets the keys of each connection, for Wireshark: whoever reads it reads the connections. Default: none.
    pub key_log: Option<PathBuf>,
}

/// Whom TLS trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those that the system trusts.
    #[default]
    System,
    /// Those in these PEM files, and in all files of these directories. At least one certificate has to be there.
    Files(Vec<PathBuf>),
    /// Those in this PEM text.
    Pem(Vec<u8>),
}

/// A certificate with its key, as PEM files. The key may be PKCS #8, PKCS #1 or SEC 1, without a pass phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, followed by those that lead to the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 only.
    V12,
    /// 1.3 only.
    V13,
}

/// How much of the broker's certificate is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verification {
    /// All of it.
    #[default]
    Full,
    /// All but the name it is for. **Whoever has any certificate of a trusted authority can pose as the broker.**
    AnyName,
    /// Nothing. **Anybody on the way can read and change everything**, the password too.
    Nothing,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name could not be resolved.
    #[error("cannot find {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// The system's words.
        error: io::Error,
    },
    /// The domain names no hosts for the service.
    #[error(transparent)]
    Service(#[from] SrvError),
    /// Nobody answers there.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where.
        address: String,
        /// The system's words.
        error: io::Error,
    },
    /// It took too long.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// The proxy.
    #[error("the SOCKS5 proxy {0}")]
    Proxy(#[from] SocksError),
    /// TLS could not be set up from its options.
    #[error("TLS: {0}")]
    TlsOptions(String),
    /// TLS failed.
    #[error("TLS with {host}: {error}")]
    Tls {
        /// Whom it was tried with.
        host: String,
        /// What went wrong.
        error: String,
    },
    /// WebSocket failed.
    #[error("WebSocket: {0}")]
    WebSocket(String),
    /// The program was built without what the endpoint needs.
    #[error("this program was built without the feature {0:?} of pantala-client")]
    Feature(&'static str),
    /// Of a transport that is not built in.
    #[error("{0}")]
    Other(String),
}

/// Makes connections to one endpoint. What TLS needs is read once, when it is needed first.
#[derive(Debug)]
pub struct Transport {
    endpoint: Endpoint,
    options: TransportOptions,
    #[cfg(feature = "tls")]
    tls: std::sync::OnceLock<std::sync::Arc<tokio_rustls::rustls::ClientConfig>>,
}

impl Transport {
    /// For `endpoint`. Nothing is looked at before the first connection.
    pub fn new(endpoint: Endpoint, options: TransportOptions) -> Self {
        Self {
            endpoint,
            options,
            #[cfg(feature = "tls")]
            tls: std::sync::OnceLock::new(),
        }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How.
    pub fn options(&self) -> &TransportOptions {
        &self.options
    }

    /// One attempt, at each host that a service has and each address that a name has. May be dropped at any time.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self) -> Result<BoxedStream, ConnectError> {
        let limit = self.options.connect_timeout;
        let attempt = self.connect_in_time(Instant::now() + limit);
        tokio::time::timeout(limit, attempt).await.unwrap_or(Err(ConnectError::TimedOut(limit)))
    }

    async fn connect_in_time(&self, deadline: Instant) -> Result<BoxedStream, ConnectError> {
        let stream: BoxedStream = match &self.endpoint.address {
            Address::Host(host, port) => self.host(host, *port, deadline).await?,
            Address::Unix(path) => unix(path).await?,
            Address::Service(domain) => return self.service(domain, deadline).await,
        };
        self.layers(stream).await
    }

    /// The first of the service's hosts with which all of it works.
    async fn service(&self, domain: &str, deadline: Instant) -> Result<BoxedStream, ConnectError> {
        let name = srv::service_name(domain, self.endpoint.tls);
        let hosts = srv::hosts(&name, &self.options.name_servers).await?;
        let mut last = SrvError::None(name).into();
        for (tried, (host, port)) in hosts.iter().enumerate() {
            // A host that does not answer leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(hosts.len() - tried).unwrap_or(u32::MAX);
            let attempt = async { self.layers(self.host(host, *port, Instant::now() + share).await?).await };
            match tokio::time::timeout(share, attempt).await.unwrap_or(Err(ConnectError::TimedOut(share))) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A host, by the proxy if there is one.
    async fn host(&self, host: &str, port: u16, deadline: Instant) -> Result<BoxedStream, ConnectError> {
        let Some(proxy) = &self.options.proxy else { return Ok(Box::new(self.tcp(host, port, deadline).await?)) };
        let mut stream = self.tcp(&proxy.host, proxy.port, deadline).await?;
        socks::connect(&mut stream, proxy, host, port).await?;
        Ok(Box::new(stream))
    }

    async fn layers(&self, mut stream: BoxedStream) -> Result<BoxedStream, ConnectError> {
        if self.endpoint.tls {
            stream = self.secure(stream).await?;
        }
        if let Some(path) = &self.endpoint.websocket {
            stream = self.upgrade(stream, path).await?;
        }
        Ok(stream)
    }

    async fn tcp(&self, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, ConnectError> {
        let resolved = tokio::net::lookup_host((host, port)).await;
        let addresses: Vec<SocketAddr> = resolved
            .map_err(|error| ConnectError::Resolve { host: host.to_owned(), error })?
            .filter(|address| self.options.bind.is_none_or(|bind| bind.is_ipv4() == address.is_ipv4()))
            .collect();
        let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address of the right kind");
        let mut last = ConnectError::Resolve { host: host.to_owned(), error: none() };
        for (tried, &address) in addresses.iter().enumerate() {
            // An address that does not answer leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let attempt = tokio::time::timeout(share, self.tcp_address(address)).await;
            match attempt.unwrap_or(Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = ConnectError::Connect { address: address.to_string(), error },
            }
        }
        Err(last)
    }

    async fn tcp_address(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(bind) = self.options.bind {
            let unbound = |error: io::Error| io::Error::new(error.kind(), format!("from {bind}: {error}"));
            socket.bind(SocketAddr::new(bind, 0)).map_err(unbound)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(self.options.nodelay)?;
        Ok(stream)
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: BoxedStream) -> Result<BoxedStream, ConnectError> {
        let config = match self.tls.get() {
            Some(config) => config.clone(),
            None => {
                let config = tls::config(&self.options.tls, self.endpoint.websocket.is_some())?;
                self.tls.get_or_init(|| config).clone()
            }
        };
        let host = self.options.tls.server_name.as_deref().unwrap_or(self.endpoint.host());
        tls::connect(stream, config, host).await
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_async, reason = "the same form as with the feature")]
    async fn secure(&self, _: BoxedStream) -> Result<BoxedStream, ConnectError> {
        Err(ConnectError::Feature("tls"))
    }

    #[cfg(feature = "websocket")]
    async fn upgrade(&self, stream: BoxedStream, path: &str) -> Result<BoxedStream, ConnectError> {
        let port = match &self.endpoint.address {
            Address::Host(_, port) => Some(*port),
            Address::Service(_) | Address::Unix(_) => None,
        };
        let headers = &self.options.websocket_headers;
        websocket::connect(stream, self.endpoint.host(), port, path, self.endpoint.tls, headers).await
    }

    #[cfg(not(feature = "websocket"))]
    #[allow(clippy::unused_async, reason = "the same form as with the feature")]
    async fn upgrade(&self, _: BoxedStream, _: &str) -> Result<BoxedStream, ConnectError> {
        Err(ConnectError::Feature("websocket"))
    }
}

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> Result<BoxedStream, ConnectError> {
    let stream = tokio::net::UnixStream::connect(path).await;
    let address = path.display().to_string();
    Ok(Box::new(stream.map_err(|error| ConnectError::Connect { address, error })?))
}

#[cfg(not(unix))]
async fn unix(path: &std::path::Path) -> Result<BoxedStream, ConnectError> {
    let error = io::ErrorKind::Unsupported.into();
    Err(ConnectError::Connect { address: path.display().to_string(), error })
}
