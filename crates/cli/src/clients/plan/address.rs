//! Where the broker is, and the way there.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

const PROXY_PORT: u16 = 1080;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A host, by name or address, and a port.
    Tcp {
        /// Without the brackets of an IPv6 address.
        host: String,
        /// 1 to 65_535.
        port: u16,
    },
    /// A domain whose SRV records name hosts and ports.
    Service {
        /// The domain.
        domain: String,
        /// Whom to ask; empty for the name servers of the system.
        name_servers: Vec<SocketAddr>,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// What carries the MQTT bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// The connection itself.
    Plain,
    /// WebSocket at this path, which begins with `/`.
    WebSocket(String),
}

/// The parts of `-L`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// mqtts or wss.
    pub secure: bool,
    /// ws or wss.
    pub websocket: bool,
    /// User name, decoded.
    pub user_name: Option<String>,
    /// Password, decoded.
    pub password: Option<String>,
    /// Host.
    pub host: String,
    /// Port, if it has one; for ws and wss those of the web.
    pub port: Option<u16>,
    /// Everything behind the slash, as it stands.
    pub topic: Option<String>,
}

/// Without the password.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secure, websocket, user_name, host, port, topic, .. } = self;
        let parts = (secure, websocket, user_name, host, port, topic);
        f.debug_tuple("Url").field(&parts).finish()
    }
}

impl Url {
    /// Takes it apart.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            "expected mqtt://[user[:password]@]host[:port]/topic, or mqtts, ws, wss in place of mqtt";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        let (secure, websocket) = match scheme {
            "mqtt" => (false, false),
            "mqtts" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            _ => return Err(EXPECTED),
        };
        let (authority, topic) = match rest.split_once('/') {
            Some((authority, topic)) => (authority, Some(topic).filter(|topic| !topic.is_empty())),
            None => (rest, None),
        };
        let Authority { user_name, password, host, port } = Authority::parse(authority)?;
        let web_port = if secure { 443 } else { 80 };
        Ok(Self {
            secure,
            websocket,
            user_name,
            password,
            host,
            port: port.or(websocket.then_some(web_port)),
            topic: topic.map(str::to_owned),
        })
    }
}

/// A SOCKS5 proxy that looks up names itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name and password; None is without authentication.
    pub credentials: Option<(String, String)>,
}

impl Proxy {
    /// Takes `--proxy` apart.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected socks5h://[user[:password]@]host[:port]";
        let rest = text.strip_prefix("socks5h://").ok_or(EXPECTED)?;
        let authority = Authority::parse(rest.strip_suffix('/').unwrap_or(rest))?;
        let credentials = authority.user_name.map(|user_name| (user_name, authority.password.unwrap_or_default()));
        // SOCKS5 has one byte for the length of each (RFC 1929).
        if credentials.as_ref().is_some_and(|(user, password)| user.len() > 255 || password.len() > 255) {
            return Err("user name and password of a proxy have at most 255 bytes");
        }
        Ok(Self { host: authority.host, port: authority.port.unwrap_or(PROXY_PORT), credentials })
    }
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user_name = self.credentials.as_ref().map(|(user_name, _)| user_name);
        f.debug_struct("Proxy").field("host", &self.host).field("port", &self.port).field("user", &user_name).finish()
    }
}

/// `[user[:password]@]host[:port]`
struct Authority {
    user_name: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Authority {
    fn parse(text: &str) -> Result<Self, &'static str> {
        // The last @: a password may have one.
        let (credentials, place) = match text.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, text),
        };
        let (user_name, password) = match credentials.map(|both| both.split_once(':').unwrap_or((both, "\0"))) {
            Some((user_name, "\0")) => (Some(decoded(user_name)?), None),
            Some((user_name, password)) => (Some(decoded(user_name)?), Some(decoded(password)?)),
            None => (None, None),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if rest.is_empty() => (host, None),
                    None => return Err("expected :port behind the address"),
                }
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        if host.is_empty() {
            return Err("the host is missing");
        }
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(0) | Err(_)) => return Err("a port is 1 to 65535"),
            Some(Ok(port)) => Some(port),
        };
        Ok(Self { user_name, password, host: host.to_owned(), port })
    }
}

/// Decodes `%` and two hexadecimal digits.
fn decoded(text: &str) -> Result<String, &'static str> {
    const EXPECTED: &str = "a % in user name or password is written %25, an @ %40, a / %2F";
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(EXPECTED)?;
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(EXPECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("mqtts://us%3Aer:p@ss%25:word@[::1]:99/a/b%20#").expect("it is one");
        assert_eq!(
            url,
            Url {
                secure: true,
                websocket: false,
                user_name: Some("us:er".into()),
                password: Some("p@ss%:word".into()),
                host: "::1".into(),
                port: Some(99),
                topic: Some("a/b%20#".into()),
            }
        );
        let url = Url::parse("ws://u@h").expect("it is one");
        assert_eq!((url.user_name.as_deref(), url.password, url.port, url.topic), (Some("u"), None, Some(80), None));
        assert_eq!(Url::parse("wss://h/").map(|url| (url.port, url.topic)), Ok((Some(443), None)));
        assert_eq!(Url::parse("mqtt://h/a").map(|url| url.port), Ok(None));
        for wrong in ["h", "http://h/t", "mqtt:///t", "mqtt://h:0/t", "mqtt://h:x/t", "mqtt://[::1/t", "mqtt://%zz@h/t"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn proxies_are_taken_apart() {
        let proxy = Proxy::parse("socks5h://u:p%40@proxy:99").expect("it is one");
        assert_eq!(proxy, Proxy { host: "proxy".into(), port: 99, credentials: Some(("u".into(), "p@".into())) });
        assert!(!format!("{proxy:?}").contains("p@"));
        let proxy = Proxy::parse("socks5h://proxy").expect("it is one");
        assert_eq!((proxy.port, proxy.credentials), (1080, None));
        assert!(Proxy::parse("http://proxy").is_err() && Proxy::parse("socks5h://").is_err());
    }
}
