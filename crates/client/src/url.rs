//! Addresses of brokers, as they stand in configurations and on command lines.
//!
//! ```
//! use pantala_client::url::{BrokerUrl, Scheme};
//!
//! let url: BrokerUrl = "mqtts://sensor:s%40cret@broker.example/plant/7".parse()?;
//! assert_eq!(url.scheme(), Scheme::Mqtts);
//! assert_eq!((url.host(), url.port()), (Some("broker.example"), Some(8883)));
//! assert_eq!((url.user_name(), url.password()), (Some("sensor"), Some(&b"s@cret"[..])));
//! assert_eq!(url.topic(), Some("plant/7"));
//! assert_eq!(url.to_string(), "mqtts://sensor:***@broker.example:8883/plant/7");
//! # Ok::<(), pantala_client::url::UrlError>(())
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

/// Longest user name and longest password, in bytes: what the two bytes before them in CONNECT can say (v5 §1.5.4).
const CREDENTIAL_BYTES_MAX: usize = 65_535;
/// Longest host name, in bytes: what DNS can ask for.
const HOST_BYTES_MAX: usize = 253;
/// Path of a WebSocket URL that has none.
const WEBSOCKET_PATH: &str = "/mqtt";

/// Where a broker is, and who asks.
///
/// | URL | way | default port |
/// |---|---|---|
/// | `mqtt://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]`, also `tcp://` | TCP | 1883 |
/// | `mqtts://…` in the same form, also `ssl://` and `tls://` | TLS | 8883 |
/// | `ws://[USER[:PASSWORD]@]HOST[:PORT][/PATH][?QUERY]` | WebSocket | 80 |
/// | `wss://…` in the same form | WebSocket over TLS | 443 |
/// | `unix://[USER[:PASSWORD]@]/PATH` | Unix socket | – |
///
/// `HOST` is a name, an IPv4 address, or an IPv6 address in brackets. User name, password, `TOPIC` and the path of
/// a Unix socket are percent-decoded; a WebSocket's path and query go to the server as they are.
///
/// Neither `Display` nor `Debug` shows the password. It is overwritten in memory when the last copy is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    scheme: Scheme,
    credentials: Credentials,
    place: Place,
}

/// The part of a [`BrokerUrl`] before `://`. Synonyms are read as the scheme that they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `mqtt` or `tcp`: MQTT over TCP.
    Mqtt,
    /// `mqtts`, `ssl` or `tls`: MQTT over TLS.
    Mqtts,
    /// `ws`: MQTT in WebSocket frames.
    Ws,
    /// `wss`: MQTT in WebSocket frames over TLS.
    Wss,
    /// `unix`: MQTT over a Unix socket.
    Unix,
}

/// What is wrong with a URL. Its text never repeats a piece that may be of a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// There is no `://`.
    #[error("the URL has no scheme: begin it with mqtt://, mqtts://, ws://, wss:// or unix://")]
    SchemeMissing,
    /// The scheme is none of those we know.
    #[error("unknown scheme: use mqtt://, mqtts://, ws://, wss:// or unix://")]
    SchemeUnknown,
    /// There is no host name where one has to be.
    #[error("the URL has no host: write it after ://, as in mqtt://localhost")]
    HostMissing,
    /// A host name holds characters that none can have.
    #[error(
        "the host name may have letters, digits, '-', '_' and '.' only, and at most 253 bytes; write other scripts \
         as xn--… and, in a user name or password, '/' as %2F, '?' as %3F and '#' as %23"
    )]
    HostInvalid,
    /// A host that ends in a number is not four numbers of at most 255.
    #[error("the host looks like an IPv4 address and is none: it needs four numbers of 0 to 255")]
    Ipv4Invalid,
    /// What stands in brackets is not an IPv6 address.
    #[error("the host in brackets is not an IPv6 address; write it as in [::1]")]
    Ipv6Invalid,
    /// An IPv6 address stands without brackets.
    #[error("an IPv6 address needs brackets: write it as in [::1] or [::1]:1883")]
    Ipv6Brackets,
    /// The port is not a number of 1 to 65535.
    #[error(
        "the port is not a number of 1 to 65535; in a user name or password, write ':' as %3A, '/' as %2F, '?' as \
         %3F and '#' as %23"
    )]
    PortInvalid,
    /// A percent sign is not followed by two hexadecimal digits.
    #[error("in the {0}, a % is not followed by two hexadecimal digits; write the percent sign itself as %25")]
    PercentInvalid(UrlPart),
    /// A part is not UTF-8 after decoding.
    #[error("the {0} is not UTF-8; percent-encode the bytes of its UTF-8 form")]
    NotUtf8(UrlPart),
    /// A part holds a control character.
    #[error("the {0} holds a control character; remove it")]
    ControlCharacter(UrlPart),
    /// User name or password is longer than CONNECT can carry.
    #[error("the {0} is longer than 65535 bytes, the most that MQTT can carry; shorten it")]
    TooLong(UrlPart),
    /// There is a password and no user name. MQTT 5 could carry that, MQTT 3.1.1 cannot (MQTT-3.1.2-22).
    #[error("the URL has a password and no user name; write USER:PASSWORD@")]
    PasswordAlone,
    /// A WebSocket path or query holds a character that must be encoded.
    #[error("the path of a WebSocket URL may have visible ASCII characters only; percent-encode the others")]
    PathInvalid,
    /// A WebSocket URL has a fragment (RFC 6455 section 3 forbids it).
    #[error("a WebSocket URL has no fragment; write '#' as %23")]
    Fragment,
    /// A `unix` URL has a host name, or no path.
    #[error("a unix URL needs an absolute path after two slashes, as in unix:///run/mqtt.sock")]
    UnixPath,
}

/// A part of a URL, as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlPart {
    /// What stands before `:` and `@`.
    UserName,
    /// What stands between `:` and `@`.
    Password,
    /// What stands after the host of an `mqtt` or `mqtts` URL.
    Topic,
    /// The path of a Unix socket.
    Path,
}

/// User name and password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<Zeroizing<Vec<u8>>>,
}

/// Host and port. The host is without brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostAndPort {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Mqtt { host: String, port: u16, topic: Option<String> },
    WebSocket { host: String, port: u16, path_and_query: String },
    Unix { path: PathBuf },
}

impl BrokerUrl {
    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name, or an IP address without brackets. An IPv6 address may have a zone, as in `fe80::1%eth0`.
    /// None for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Mqtt { host, .. } | Place::WebSocket { host, .. } => Some(host),
            Place::Unix { .. } => None,
        }
    }

    /// The port that is written, or else the scheme's default. None for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self.place {
            Place::Mqtt { port, .. } | Place::WebSocket { port, .. } => Some(port),
            Place::Unix { .. } => None,
        }
    }

    /// The user name, decoded; at most 65 535 bytes.
    pub fn user_name(&self) -> Option<&str> {
        self.credentials.user_name.as_deref()
    }

    /// The password, decoded; at most 65 535 bytes, which need not be text (v5 §3.1.3.6).
    pub fn password(&self) -> Option<&[u8]> {
        self.credentials.password.as_ref().map(|password| password.as_slice())
    }

    /// What follows the host's slash in an `mqtt` or `mqtts` URL, decoded: a Topic Name or a Topic Filter, for a program
    /// that wants one. It is not checked to be either; `?` and `#` belong to it. None if it is empty.
    pub fn topic(&self) -> Option<&str> {
        match &self.place {
            Place::Mqtt { topic, .. } => topic.as_deref(),
            Place::WebSocket { .. } | Place::Unix { .. } => None,
        }
    }

    /// What a `ws` or `wss` URL asks the server for, as it is written; `/mqtt` stands for an empty path.
    pub fn path_and_query(&self) -> Option<&str> {
        match &self.place {
            Place::WebSocket { path_and_query, .. } => Some(path_and_query),
            Place::Mqtt { .. } | Place::Unix { .. } => None,
        }
    }

    /// The path of a Unix socket, decoded.
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Unix { path } => Some(path),
            Place::Mqtt { .. } | Place::WebSocket { .. } => None,
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    /// # Errors
    /// [`UrlError`] for the first thing that is wrong, from the left.
    fn from_str(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::SchemeMissing)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => Scheme::Mqtt,
            "mqtts" | "ssl" | "tls" => Scheme::Mqtts,
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            "unix" => Scheme::Unix,
            _ => return Err(UrlError::SchemeUnknown),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, authority) = credentials(authority)?;
        let place = match scheme {
            Scheme::Unix if !authority.is_empty() || rest.len() < 2 || !rest.starts_with('/') => {
                return Err(UrlError::UnixPath);
            }
            Scheme::Unix => Place::Unix { path: unix_path(rest)? },
            Scheme::Mqtt | Scheme::Mqtts => {
                let HostAndPort { host, port } = host_and_port(authority)?;
                let port = port.unwrap_or(scheme.port());
                Place::Mqtt { host, port, topic: topic(rest)? }
            }
            Scheme::Ws | Scheme::Wss => {
                let HostAndPort { host, port } = host_and_port(authority)?;
                let port = port.unwrap_or(scheme.port());
                Place::WebSocket { host, port, path_and_query: path_and_query(rest)? }
            }
        };
        Ok(Self { scheme, credentials, place })
    }
}

impl fmt::Display for BrokerUrl {
    /// The whole URL with its port, and `***` for the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.credentials)?;
        match &self.place {
            Place::Mqtt { host, port, topic } => {
                write!(f, "{}", Authority { host, port: *port })?;
                match topic {
                    Some(topic) => write!(f, "/{}", Encoded { bytes: topic.as_bytes(), plain: b"/+#$" }),
                    None => Ok(()),
                }
            }
            Place::WebSocket { host, port, path_and_query } => {
                write!(f, "{}{path_and_query}", Authority { host, port: *port })
            }
            Place::Unix { path } => {
                write!(f, "{}", Encoded { bytes: path.as_os_str().as_encoded_bytes(), plain: b"/" })
            }
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

impl Scheme {
    /// The port of a URL that names none; 0 for a Unix socket, which has no ports.
    fn port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
            Self::Unix => 0,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        })
    }
}

impl fmt::Display for UrlPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserName => "user name",
            Self::Password => "password",
            Self::Topic => "topic",
            Self::Path => "path",
        })
    }
}

impl fmt::Display for Credentials {
    /// `USER:***@`, `USER@` or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(user_name) = &self.user_name else {
            return Ok(());
        };
        write!(f, "{}", Encoded { bytes: user_name.as_bytes(), plain: b"" })?;
        f.write_str(if self.password.is_some() { ":***@" } else { "@" })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Host and port as they stand in a URL: an IPv6 address in brackets.
pub(crate) struct Authority<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Bytes of which all but letters, digits, `-._~` and those in `plain` are percent-encoded.
struct Encoded<'a> {
    bytes: &'a [u8],
    plain: &'a [u8],
}

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.bytes {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || self.plain.contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// User name and password before the last `@`, and what follows it. A password with an `@` in it is thus read as meant.
pub(crate) fn credentials(authority: &str) -> Result<(Credentials, &str), UrlError> {
    let Some((user_info, authority)) = authority.rsplit_once('@') else {
        return Ok((Credentials::default(), authority));
    };
    let (user_name, password) = match user_info.split_once(':') {
        Some((user_name, password)) => (user_name, Some(password)),
        None => (user_info, None),
    };
    if user_name.is_empty() && password.is_some() {
        return Err(UrlError::PasswordAlone);
    }
    let password = match password {
        Some(password) => Some(Zeroizing::new(credential(password, UrlPart::Password)?)),
        None => None,
    };
    let user_name = text(credential(user_name, UrlPart::UserName)?, UrlPart::UserName)?;
    let user_name = if user_name.is_empty() { None } else { Some(user_name) };
    Ok((Credentials { user_name, password }, authority))
}

fn credential(encoded: &str, part: UrlPart) -> Result<Vec<u8>, UrlError> {
    let decoded = decode(encoded, part)?;
    if decoded.len() > CREDENTIAL_BYTES_MAX { Err(UrlError::TooLong(part)) } else { Ok(decoded) }
}

/// `HOST[:PORT]`.
pub(crate) fn host_and_port(authority: &str) -> Result<HostAndPort, UrlError> {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or(UrlError::Ipv6Invalid)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(UrlError::PortInvalid),
        };
        (ipv6(host)?, port)
    } else {
        if authority.parse::<Ipv6Addr>().is_ok() {
            return Err(UrlError::Ipv6Brackets);
        }
        match authority.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(authority)?, None),
        }
    };
    let port = match port {
        // The standard of URLs allows an empty port (RFC 3986 section 3.2.3).
        None | Some("") => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port: NonZeroU16 = port.parse().map_err(|_| UrlError::PortInvalid)?;
            Some(port.get())
        }
        Some(_) => return Err(UrlError::PortInvalid),
    };
    Ok(HostAndPort { host, port })
}

/// An IPv6 address, with a zone after `%25` (RFC 6874) or, as people type it, after `%`.
fn ipv6(host: &str) -> Result<String, UrlError> {
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone.strip_prefix("25").filter(|z| !z.is_empty()).unwrap_or(zone))),
        None => (host, None),
    };
    let address: Ipv6Addr = address.parse().map_err(|_| UrlError::Ipv6Invalid)?;
    match zone {
        None => Ok(address.to_string()),
        Some(zone) if !zone.is_empty() && zone.bytes().all(is_name_byte) => Ok(format!("{address}%{zone}")),
        Some(_) => Err(UrlError::Ipv6Invalid),
    }
}

/// A host name or an IPv4 address.
fn name(host: &str) -> Result<String, UrlError> {
    if host.is_empty() {
        return Err(UrlError::HostMissing);
    }
    if host.len() > HOST_BYTES_MAX || !host.bytes().all(is_name_byte) {
        return Err(UrlError::HostInvalid);
    }
    // No top-level domain is a number. What looks like an address must be one: "1.2.3" is 1.2.0.3 to some resolvers.
    let last = host.rsplit('.').next().unwrap_or(host);
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err(UrlError::Ipv4Invalid);
    }
    Ok(host.to_owned())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// What follows the host of an MQTT URL: nothing, or a slash and a topic.
fn topic(rest: &str) -> Result<Option<String>, UrlError> {
    let topic = match rest.strip_prefix('/') {
        Some(topic) => topic,
        None if rest.is_empty() => "",
        // "?" and "#" right after the host: most likely a password that is not encoded.
        None => return Err(UrlError::HostInvalid),
    };
    let topic = text(decode(topic, UrlPart::Topic)?, UrlPart::Topic)?;
    Ok(if topic.is_empty() { None } else { Some(topic) })
}

fn path_and_query(rest: &str) -> Result<String, UrlError> {
    if rest.contains('#') {
        return Err(UrlError::Fragment);
    }
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !rest.bytes().all(allowed) {
        return Err(UrlError::PathInvalid);
    }
    Ok(if rest.starts_with('/') { rest.to_owned() } else { format!("{WEBSOCKET_PATH}{rest}") })
}

#[cfg(unix)]
fn unix_path(rest: &str) -> Result<PathBuf, UrlError> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = decode(rest, UrlPart::Path)?;
    if path.contains(&0) {
        return Err(UrlError::ControlCharacter(UrlPart::Path));
    }
    Ok(std::ffi::OsString::from_vec(path).into())
}

#[cfg(not(unix))]
fn unix_path(rest: &str) -> Result<PathBuf, UrlError> {
    Ok(text(decode(rest, UrlPart::Path)?, UrlPart::Path)?.into())
}

/// Bytes as text without control characters, which no string of MQTT should have (v5 §1.5.4).
fn text(bytes: Vec<u8>, part: UrlPart) -> Result<String, UrlError> {
    let text = String::from_utf8(bytes).map_err(|_| UrlError::NotUtf8(part))?;
    if text.chars().any(char::is_control) { Err(UrlError::ControlCharacter(part)) } else { Ok(text) }
}

fn decode(encoded: &str, part: UrlPart) -> Result<Vec<u8>, UrlError> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        let (byte, tail) = if *byte != b'%' {
            (*byte, tail)
        } else if let (Some(high), Some(low)) = (digit(0), digit(1)) {
            let byte = u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte");
            (byte, &tail[2..])
        } else {
            return Err(UrlError::PercentInvalid(part));
        };
        decoded.push(byte);
        rest = tail;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(url: &str) -> BrokerUrl {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn ways_and_default_ports() {
        for (url, scheme, host, port) in [
            ("mqtt://localhost", Scheme::Mqtt, "localhost", 1883),
            ("tcp://localhost", Scheme::Mqtt, "localhost", 1883),
            ("MQTT://Local_Host.", Scheme::Mqtt, "Local_Host.", 1883),
            ("mqtt://127.0.0.1:1884", Scheme::Mqtt, "127.0.0.1", 1884),
            ("mqtt://[::1]", Scheme::Mqtt, "::1", 1883),
            ("mqtt://[::1]:65535/", Scheme::Mqtt, "::1", 65_535),
            ("mqtt://[2001:DB8:0::1]:", Scheme::Mqtt, "2001:db8::1", 1883),
            ("mqtt://[fe80::1%25eth0]:1", Scheme::Mqtt, "fe80::1%eth0", 1),
            ("mqtt://[fe80::1%3]", Scheme::Mqtt, "fe80::1%3", 1883),
            ("mqtts://broker.example", Scheme::Mqtts, "broker.example", 8883),
            ("ssl://broker.example:1", Scheme::Mqtts, "broker.example", 1),
            ("tls://broker.example", Scheme::Mqtts, "broker.example", 8883),
            ("ws://broker.example", Scheme::Ws, "broker.example", 80),
            ("wss://broker.example", Scheme::Wss, "broker.example", 443),
            ("wss://broker.example:8084/mqtt", Scheme::Wss, "broker.example", 8084),
        ] {
            let parsed = parse(url);
            assert_eq!(parsed.scheme(), scheme, "{url}");
            assert_eq!((parsed.host(), parsed.port()), (Some(host), Some(port)), "{url}");
            assert_eq!((parsed.user_name(), parsed.password(), parsed.unix_path()), (None, None, None), "{url}");
        }
    }

    #[test]
    fn user_names_and_passwords_are_decoded() {
        for (url, user_name, password) in [
            ("mqtt://user@h", Some("user"), None),
            ("mqtt://user:@h", Some("user"), Some(&b""[..])),
            ("mqtt://user:secret@h", Some("user"), Some(b"secret")),
            ("mqtt://us%3Aer:se%2fcr%40et@h", Some("us:er"), Some(b"se/cr@et")),
            ("mqtt://user:a:b@h", Some("user"), Some(b"a:b")),
            ("mqtt://user:a@b@h", Some("user"), Some(b"a@b")),
            ("mqtt://us er:%ff%00@h", Some("us er"), Some(b"\xff\0")),
            ("mqtt://zo\u{eb}@h", Some("zo\u{eb}"), None),
            ("mqtt://@h", None, None),
            ("unix://user:secret@/run/x", Some("user"), Some(b"secret")),
        ] {
            let parsed = parse(url);
            assert_eq!((parsed.user_name(), parsed.password()), (user_name, password), "{url}");
        }
    }

    #[test]
    fn what_follows_the_host() {
        for (url, topic, path_and_query) in [
            ("mqtt://h", None, None),
            ("mqtt://h/", None, None),
            ("mqtt://h/a/b", Some("a/b"), None),
            ("mqtt://h//a", Some("/a"), None),
            ("mqtt://h/a/+/#", Some("a/+/#"), None),
            ("mqtts://h/a?b", Some("a?b"), None),
            ("mqtt://h/a b%20c%25", Some("a b c%"), None),
            ("mqtt://h/a@b", Some("a@b"), None),
            ("ws://h", None, Some("/mqtt")),
            ("ws://h/", None, Some("/")),
            ("ws://h?token=1", None, Some("/mqtt?token=1")),
            ("wss://h/a%20b?c=d&e=%2F", None, Some("/a%20b?c=d&e=%2F")),
        ] {
            let parsed = parse(url);
            assert_eq!((parsed.topic(), parsed.path_and_query()), (topic, path_and_query), "{url}");
        }
        assert_eq!(parse("unix:///run/a%20b.sock").unix_path(), Some(Path::new("/run/a b.sock")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long_user = format!("mqtt://{}@h", "x".repeat(65_536));
        let long_password = format!("mqtt://u:{}@h", "x".repeat(65_536));
        let long_host = format!("mqtt://{}", "x".repeat(254));
        for (url, error) in [
            ("", UrlError::SchemeMissing),
            ("localhost:1883", UrlError::SchemeMissing),
            ("mqtt:/localhost", UrlError::SchemeMissing),
            ("http://localhost", UrlError::SchemeUnknown),
            ("://localhost", UrlError::SchemeUnknown),
            (" mqtt://localhost", UrlError::SchemeUnknown),
            ("mqtt://", UrlError::HostMissing),
            ("mqtt://:1883", UrlError::HostMissing),
            ("mqtt:///topic", UrlError::HostMissing),
            ("ws://user@", UrlError::HostMissing),
            ("mqtt://a b", UrlError::HostInvalid),
            ("mqtt://zo\u{eb}", UrlError::HostInvalid),
            ("mqtt://a%20b", UrlError::HostInvalid),
            ("mqtt://h?x", UrlError::HostInvalid),
            ("mqtt://h#x", UrlError::HostInvalid),
            ("mqtt://h\0", UrlError::HostInvalid),
            (&long_host, UrlError::HostInvalid),
            ("mqtt://1.2.3", UrlError::Ipv4Invalid),
            ("mqtt://1.2.3.256", UrlError::Ipv4Invalid),
            ("mqtt://2130706433", UrlError::Ipv4Invalid),
            ("mqtt://::1", UrlError::Ipv6Brackets),
            ("mqtt://2001:db8::1", UrlError::Ipv6Brackets),
            ("mqtt://[::1", UrlError::Ipv6Invalid),
            ("mqtt://[localhost]", UrlError::Ipv6Invalid),
            ("mqtt://[127.0.0.1]", UrlError::Ipv6Invalid),
            ("mqtt://[fe80::1%]", UrlError::Ipv6Invalid),
            ("mqtt://[fe80::1%a b]", UrlError::Ipv6Invalid),
            ("mqtt://[::1]1883", UrlError::PortInvalid),
            ("mqtt://h:0", UrlError::PortInvalid),
            ("mqtt://h:65536", UrlError::PortInvalid),
            ("mqtt://h:+1", UrlError::PortInvalid),
            ("mqtt://h:1883:1", UrlError::PortInvalid),
            ("mqtt://user:se/cret@h", UrlError::PortInvalid),
            ("mqtt://u%@h", UrlError::PercentInvalid(UrlPart::UserName)),
            ("mqtt://u:%2@h", UrlError::PercentInvalid(UrlPart::Password)),
            ("mqtt://u:%+1@h", UrlError::PercentInvalid(UrlPart::Password)),
            ("mqtt://h/100%", UrlError::PercentInvalid(UrlPart::Topic)),
            ("unix:///a%zz", UrlError::PercentInvalid(UrlPart::Path)),
            ("mqtt://%ff@h", UrlError::NotUtf8(UrlPart::UserName)),
            ("mqtt://h/%ff", UrlError::NotUtf8(UrlPart::Topic)),
            ("mqtt://u%00@h", UrlError::ControlCharacter(UrlPart::UserName)),
            ("mqtt://h/a\n", UrlError::ControlCharacter(UrlPart::Topic)),
            ("unix:///a%00", UrlError::ControlCharacter(UrlPart::Path)),
            (&long_user, UrlError::TooLong(UrlPart::UserName)),
            (&long_password, UrlError::TooLong(UrlPart::Password)),
            ("mqtt://:secret@h", UrlError::PasswordAlone),
            ("ws://h/a b", UrlError::PathInvalid),
            ("ws://h/\u{eb}", UrlError::PathInvalid),
            ("ws://h/a\r\nb", UrlError::PathInvalid),
            ("ws://h/a#b", UrlError::Fragment),
            ("unix://", UrlError::UnixPath),
            ("unix:///", UrlError::UnixPath),
            ("unix://run/x.sock", UrlError::UnixPath),
            ("unix://?x", UrlError::UnixPath),
        ] {
            assert_eq!(url.parse::<BrokerUrl>(), Err(error.clone()), "{url:?}");
            assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn no_password_is_printed() {
        for url in ["mqtt://user:pencil@h/a", "ws://user:pencil@h", "unix://user:pencil@/x"] {
            let parsed = parse(url);
            let printed = format!("{parsed} {parsed:?} {:?}", parsed.credentials);
            assert!(printed.contains("user:***@") && !printed.contains("pencil"), "{printed}");
        }
        for wrong in ["mqtt://user:pencil/x@h", "mqtt://user:pencil%zz@h", "mqtt://user:pencil#@h", "user:pencil@h"] {
            let error = wrong.parse::<BrokerUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("pencil"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(url: String) {
            let _ = url.parse::<BrokerUrl>();
        }

        /// Pieces of real URLs in any order, closer to the parser's branches than characters are; what parses says
        /// the same again when it is printed and read.
        #[test]
        fn what_parses_is_printed_as_what_parses(pieces in proptest::collection::vec(piece(), 0..10)) {
            let url = pieces.concat();
            if let Ok(parsed) = url.parse::<BrokerUrl>() {
                let printed = parsed.to_string();
                let again: BrokerUrl = printed.parse().expect("what was printed is a URL");
                prop_assert_eq!(again.to_string(), printed);
                if parsed.password().is_none() {
                    prop_assert_eq!(again, parsed);
                }
            }
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => proptest::sample::select(vec!["mqtt://", "mqtts://", "ws://", "wss://", "unix://"])
                .prop_map(str::to_owned),
            5 => proptest::sample::select(vec![
                "/", ":", "@", "?", "#", "%", "%2F", "%25", "[", "]", "::1", "[::1]", "[fe80::1%25e]", "127.0.0.1", "h", "1883",
                "65536", "user:secret@",
            ])
            .prop_map(str::to_owned),
            1 => "\\PC{0,4}",
        ]
    }
}
