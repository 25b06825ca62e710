//! The request that turns HTTP into WebSocket, and the response.
//!
//! Read line by line as it comes, so that what is wrong is answered at once, and as strictly as RFC 9112 has it: what
//! two readers could take for two things is refused, since a proxy in front may be the other reader.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::address::{self, Network};

/// The most bytes of a request, its empty line included. More is answered with 431.
pub const REQUEST_BYTES_MAX: usize = 16_384;

/// The most bytes of its first line. More is answered with 414.
pub const REQUEST_LINE_BYTES_MAX: usize = 4_096;

/// The most header fields of a request. More is answered with 431.
pub const HEADERS_MAX: usize = 100;

/// What a listener asks of a request. By default: any path, any origin, nobody's word about others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The path to be asked for, without a query; None for any.
    pub path: Option<Box<str>>,
    /// Whose pages may connect.
    pub origins: Origins,
    /// The proxies whose `X-Forwarded-For` is believed; if there are some, so is whoever comes by a Unix socket.
    pub trusted: Box<[Network]>,
}

impl Options {
    /// Whether the `X-Forwarded-For` of a peer at this address is believed; None is one on a Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(!self.trusted.is_empty(), |peer| address::contains(&self.trusted, peer))
    }
}

/// Which pages may connect. Browsers tell whose page it is; other clients need not, and are let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// All. A page gets nowhere without the name and password in its CONNECT.
    #[default]
    Any,
    /// Those of the host that was asked for: where a browser adds credentials by itself, such as a client certificate, any
    /// page could use them.
    SameHost,
    /// These, each as browsers write it: `https://app.example`.
    Listed(Box<[Box<str>]>),
}

/// The subprotocol in use: of those we speak, the one that the client names first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// `mqtt`, for all versions (v5 MQTT-6.0.0-3).
    Mqtt,
    /// `mqttv3.1`, by clients from before the name was fixed.
    MqttV31,
}

impl Subprotocol {
    /// As it stands in the header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttV31 => "mqttv3.1",
        }
    }
}

/// A request that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// To be written before any frame.
    pub response: Vec<u8>,
    /// The subprotocol.
    pub subprotocol: Subprotocol,
    /// The client's address as a trusted proxy tells it; None if the peer is the client, or not trusted.
    pub forwarded_for: Option<IpAddr>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The first line is not that of an HTTP/1 request.
    RequestLine,
    /// The first line is longer than [`REQUEST_LINE_BYTES_MAX`].
    RequestLineTooLong,
    /// Another version of HTTP.
    Version,
    /// Another method than GET.
    Method,
    /// Nothing is at this path.
    Path,
    /// The request is longer than [`REQUEST_BYTES_MAX`].
    TooLong,
    /// There are more than [`HEADERS_MAX`].
    TooManyHeaders,
    /// A line that is no header field: no name, a space before the colon, a bare CR or LF, a control character.
    Header,
    /// A request to upgrade has no body.
    Body,
    /// Not exactly one Host.
    Host,
    /// A request that does not ask for WebSocket.
    NoUpgrade,
    /// Another version of WebSocket than 13.
    WebSocketVersion,
    /// Not exactly one key of 16 bytes.
    Key,
    /// None of the client's subprotocols is spoken here.
    Subprotocol,
    /// A page that may not connect.
    Origin,
}

impl Refusal {
    /// In words, for the log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::RequestLine => "this is no HTTP/1.1 request",
            Self::RequestLineTooLong => "the request line is too long",
            Self::Version => "WebSocket needs HTTP/1.1",
            Self::Method => "WebSocket needs the method GET",
            Self::Path => "there is no MQTT at this path",
            Self::TooLong => "the request is too long",
            Self::TooManyHeaders => "the request has too many header fields",
            Self::Header => "a header field cannot be read",
            Self::Body => "the request announces a body",
            Self::Host => "the request needs exactly one Host",
            Self::NoUpgrade => "here is MQTT over WebSocket: the request has to ask for an upgrade",
            Self::WebSocketVersion => "the version of WebSocket has to be 13",
            Self::Key => "the request needs exactly one Sec-WebSocket-Key of 16 bytes in base64",
            Self::Subprotocol => "the subprotocol has to be mqtt",
            Self::Origin => "pages of this origin may not connect",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// The status code of the response.
    #[must_use]
    pub fn status(self) -> u16 {
        self.status_line().0
    }

    fn status_line(self) -> (u16, &'static str) {
        match self {
            Self::RequestLine | Self::Header | Self::Body | Self::Host | Self::Key | Self::Subprotocol => {
                (400, "Bad Request")
            }
            Self::Origin => (403, "Forbidden"),
            Self::Path => (404, "Not Found"),
            Self::Method => (405, "Method Not Allowed"),
            Self::RequestLineTooLong => (414, "URI Too Long"),
            Self::NoUpgrade | Self::WebSocketVersion => (426, "Upgrade Required"),
            Self::TooLong | Self::TooManyHeaders => (431, "Request Header Fields Too Large"),
            Self::Version => (505, "HTTP Version Not Supported"),
        }
    }

    /// What to write before closing.
    #[must_use]
    pub fn response(self) -> Vec<u8> {
        let (status, phrase) = self.status_line();
        let more = match self {
            Self::Method => "Allow: GET\r\n",
            Self::NoUpgrade | Self::WebSocketVersion => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        // An upgrade is an option of this connection (RFC 9110, 7.8).
        let connection = if status == 426 { "close, Upgrade" } else { "close" };
        let body = format!("{self}\n");
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {phrase}\r\nConnection: {connection}\r\n{more}Content-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Reads a request that comes in parts. Bounded by [`REQUEST_BYTES_MAX`]; how long it may take is for the caller to bound.
#[derive(Debug, Default)]
pub struct Handshake {
    /// A line that has no end yet.
    line: Vec<u8>,
    /// Bytes of the request so far.
    bytes: usize,
    /// Lines of the request so far.
    lines: usize,
    request: Request,
}

/// What the lines so far have said.
#[derive(Debug, Default)]
struct Request {
    host: Once,
    origin: Once,
    key: Once,
    version: Once,
    content_length: Once,
    has_transfer_encoding: bool,
    upgrades_to_websocket: bool,
    connection_upgrades: bool,
    offers_a_subprotocol: Option<Subprotocol>,
    /// Fields of several lines mean one list.
    forwarded_for: Vec<u8>,
}

/// A header field that may come once.
#[derive(Debug, Default)]
enum Once {
    #[default]
    Missing,
    Value(Box<[u8]>),
    Repeated,
}

impl Once {
    fn set(&mut self, value: &[u8]) {
        *self = if matches!(self, Self::Missing) { Self::Value(value.into()) } else { Self::Repeated };
    }

    fn value(&self) -> Option<&[u8]> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }
}

impl Handshake {
    /// Whether a byte has come.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.bytes > 0 || self.lines > 0
    }

    /// Takes the next bytes. With the upgrade it returns how many of `bytes` belong to the request: frames may follow. None
    /// if more are needed, and then all are taken. `peer` is the address that the connection comes from; None for a
    /// Unix socket.
    ///
    /// # Errors
    /// As soon as no bytes to come could make it right.
    pub fn receive(
        &mut self,
        options: &Options,
        peer: Option<IpAddr>,
        bytes: &[u8],
    ) -> Result<Option<(Upgrade, usize)>, Refusal> {
        let mut used = 0;
        loop {
            let (most, too_long) = if self.lines == 0 {
                (REQUEST_LINE_BYTES_MAX, Refusal::RequestLineTooLong)
            } else {
                (REQUEST_BYTES_MAX, Refusal::TooLong)
            };
            let rest = &bytes[used..];
            let within = &rest[..rest.len().min(most - self.bytes)];
            let Some(end) = memchr::memchr(b'\n', within) else {
                self.bytes += within.len();
                if self.bytes == most {
                    return Err(too_long);
                }
                self.line.extend_from_slice(within);
                return Ok(None);
            };
            let kept = std::mem::take(&mut self.line);
            let joined;
            let line = if kept.is_empty() {
                &within[..end]
            } else {
                joined = [&kept, &within[..end]].concat();
                &joined
            };
            self.bytes += end + 1;
            used += end + 1;
            self.lines += 1;
            let wrong = if self.lines == 1 { Refusal::RequestLine } else { Refusal::Header };
            let line = line.strip_suffix(b"\r").ok_or(wrong)?;
            if self.lines == 1 {
                request_line(options, line)?;
            } else if line.is_empty() {
                return self.request.answer(options, peer).map(|upgrade| Some((upgrade, used)));
            } else if self.lines > HEADERS_MAX + 1 {
                return Err(Refusal::TooManyHeaders);
            } else {
                self.request.header(line)?;
            }
        }
    }
}

fn request_line(options: &Options, line: &[u8]) -> Result<(), Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::RequestLine);
    };
    let is_target = !target.is_empty() && target.iter().all(|byte| matches!(byte, 0x21..=0x7e));
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']);
    if !is_token(method) || !is_target || !is_version {
        return Err(Refusal::RequestLine);
    }
    if version != b"HTTP/1.1" {
        return Err(Refusal::Version);
    }
    if method != b"GET" {
        return Err(Refusal::Method);
    }
    let path = path(target).ok_or(Refusal::RequestLine)?;
    if options.path.as_ref().is_some_and(|wanted| wanted.as_bytes() != path) {
        return Err(Refusal::Path);
    }
    Ok(())
}

/// The path of a target, which may be a whole address as well.
fn path(target: &[u8]) -> Option<&[u8]> {
    let local = if target.starts_with(b"/") {
        target
    } else {
        let (scheme, rest) = target.split_at(target.windows(3).position(|part| part == b"://")?);
        let is_known = [&b"http"[..], b"https", b"ws", b"wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let authority_and_path = &rest[3..];
        if !is_known {
            return None;
        }
        match authority_and_path.iter().position(|byte| matches!(byte, b'/' | b'?')) {
            Some(slash) if authority_and_path[slash] == b'/' => &authority_and_path[slash..],
            _ => b"/",
        }
    };
    local.split(|byte| *byte == b'?').next()
}

impl Request {
    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal::Header)?;
        // A space before the colon is no token, and neither is one that would continue the line before.
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
            return Err(Refusal::Header);
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Host") {
            self.host.set(value);
        } else if is("Origin") {
            self.origin.set(value);
        } else if is("Upgrade") {
            self.upgrades_to_websocket |= list(value).any(|item| item.eq_ignore_ascii_case(b"websocket"));
        } else if is("Connection") {
            self.connection_upgrades |= list(value).any(|item| item.eq_ignore_ascii_case(b"upgrade"));
        } else if is("Sec-WebSocket-Key") {
            self.key.set(value);
        } else if is("Sec-WebSocket-Version") {
            self.version.set(value);
        } else if is("Sec-WebSocket-Protocol") {
            let spoken = [Subprotocol::Mqtt, Subprotocol::MqttV31];
            let mut offers = list(value);
            let ours = offers.find_map(|offer| spoken.into_iter().find(|known| known.name().as_bytes() == offer));
            self.offers_a_subprotocol = self.offers_a_subprotocol.or(ours);
        } else if is("Content-Length") {
            self.content_length.set(value);
        } else if is("Transfer-Encoding") {
            self.has_transfer_encoding = true;
        } else if is("X-Forwarded-For") {
            if !self.forwarded_for.is_empty() {
                self.forwarded_for.push(b',');
            }
            self.forwarded_for.extend_from_slice(value);
        }
        Ok(())
    }

    fn answer(&self, options: &Options, peer: Option<IpAddr>) -> Result<Upgrade, Refusal> {
        let host = self.host.value().filter(|host| !host.is_empty()).ok_or(Refusal::Host)?;
        let has_body = match &self.content_length {
            Once::Missing => false,
            Once::Value(length) => **length != *b"0",
            Once::Repeated => true,
        };
        if has_body || self.has_transfer_encoding {
            return Err(Refusal::Body);
        }
        if !self.upgrades_to_websocket || !self.connection_upgrades {
            return Err(Refusal::NoUpgrade);
        }
        if self.version.value() != Some(b"13") {
            return Err(Refusal::WebSocketVersion);
        }
        let key = self.key.value().ok_or(Refusal::Key)?;
        if !STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
            return Err(Refusal::Key);
        }
        let subprotocol = self.offers_a_subprotocol.ok_or(Refusal::Subprotocol)?;
        if !self.is_welcome(&options.origins, host) {
            return Err(Refusal::Origin);
        }
        let accept = accept(key);
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            subprotocol.name()
        );
        let is_trusted = options.trusts(peer);
        let forwarded_for = if is_trusted { forwarded_for(&self.forwarded_for, &options.trusted) } else { None };
        Ok(Upgrade { response: response.into_bytes(), subprotocol, forwarded_for })
    }

    fn is_welcome(&self, origins: &Origins, host: &[u8]) -> bool {
        let origin = match &self.origin {
            Once::Missing => return true,
            Once::Value(origin) => &**origin,
            Once::Repeated => return *origins == Origins::Any,
        };
        match origins {
            Origins::Any => true,
            Origins::SameHost => {
                let after_scheme = origin.windows(3).position(|part| part == b"://").map(|at| &origin[at + 3..]);
                after_scheme.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
            }
            Origins::Listed(listed) => listed.iter().any(|listed| listed.as_bytes() == origin),
        }
    }
}

/// The right-most address that is not one of a trusted proxy: what stands left of it anybody could have written. If
/// all are trusted, the left-most. None if there is none, or what ought to be it is no address.
fn forwarded_for(value: &[u8], trusted: &[Network]) -> Option<IpAddr> {
    let mut last = None;
    for item in value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let text = std::str::from_utf8(item).ok()?;
        // Some proxies write the port too.
        let address = text
            .parse()
            .or_else(|_| text.parse().map(|address: std::net::SocketAddr| address.ip()))
            .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse())
            .ok()
            .map(|address: IpAddr| address.to_canonical())?;
        if !address::contains(trusted, address) {
            return Some(address);
        }
        last = Some(address);
    }
    last
}

/// The proof that the key was read (RFC 6455, 4.2.2).
fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The items of a list, without those that are empty.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
