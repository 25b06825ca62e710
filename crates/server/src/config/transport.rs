//! How connections of a listener come to be MQTT, and whose are taken.

use pantala_tls::UserNameFrom;
use pantala_transport::address::Network;
use pantala_transport::proxy;
use pantala_transport::websocket::{Options, Origins};

use super::ListenAddress;
use super::error::Fault;
use super::tls::TlsDraft;

/// How connections of a listener come to be MQTT, and whose are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// What is spoken. Default MQTT.
    pub protocol: Protocol,
    /// On a listener with a certificate that speaks either, clients may come without TLS too. Default false.
    pub allow_plain_text: bool,
    /// What a WebSocket has to ask for; `trusted` of it is `proxy_trusted`.
    pub websocket: Options,
    /// The versions of the PROXY protocol of which each connection begins with a header. Default None: no header.
    pub proxy_protocol: Option<proxy::Versions>,
    /// Clients have to have come to the proxy by TLS. Default false.
    pub proxy_require_tls: bool,
    /// The Common Name of a client certificate that the proxy has verified is the client's User Name. Default false.
    pub user_name_by_proxy: bool,
    /// Those who are believed when they tell another's address. Default nobody.
    pub proxy_trusted: Box<[Network]>,
    /// If not empty, only clients of these addresses are let in.
    pub allow_addresses: Box<[Network]>,
    /// Clients of these addresses are not.
    pub deny_addresses: Box<[Network]>,
    /// The permission bits of a Unix socket. Default 0660.
    pub unix_mode: u32,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT alone.
    Mqtt,
    /// MQTT over WebSocket.
    WebSocket,
    /// Either, told apart by its first bytes.
    Any,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::WebSocket => "websocket",
            Self::Any => "any",
        }
    }
}

/// The permission bits of a Unix socket that nothing is said about: its owner and its group may connect.
const UNIX_MODE: u32 = 0o660;

/// What was written of a listener's transport.
#[derive(Default)]
pub(super) struct TransportDraft {
    pub protocol: Option<Protocol>,
    pub allow_plain_text: bool,
    pub websocket_path: Option<Box<str>>,
    pub websocket_origins: Option<Vec<Box<str>>>,
    pub proxy_protocol: Option<proxy::Versions>,
    pub proxy_require_tls: bool,
    pub proxy_trusted: Option<Vec<Network>>,
    pub allow_addresses: Vec<Network>,
    pub deny_addresses: Vec<Network>,
    pub unix_mode: Option<u32>,
}

impl TransportDraft {
    /// Puts in the defaults. What is written and would have no effect is a mistake, most of all where it would have kept
    /// somebody out.
    pub fn finish(self, address: &ListenAddress, tls: &TlsDraft) -> Result<Transport, Fault> {
        let is_unix = matches!(address, ListenAddress::Unix(_));
        let protocol = self.protocol.unwrap_or(Protocol::Mqtt);
        let has_websocket = protocol != Protocol::Mqtt;
        const WEBSOCKET: &str = "\"protocol\" is \"websocket\" or \"any\"";
        const SHARED: &str = "\"protocol\" is \"any\" and there is a certificate";
        // Nobody gets round a certificate by leaving TLS out.
        const OPTIONAL: &str = "clients may do without a certificate: no authorities of theirs or \"tls_require_certificate = \
            false\", and no user names from certificates";
        const V2: &str = "\"proxy_protocol\" is \"v2\" or \"any\"";
        const ADDRESSES: &str = "clients have addresses; behind a Unix socket a proxy has to tell them";
        let has_addresses = !is_unix || has_websocket || self.proxy_protocol.is_some();
        let is_shared = protocol == Protocol::Any && !tls.certificate_files.is_empty();
        let takes_v2 = matches!(self.proxy_protocol, Some(proxy::Versions::V2 | proxy::Versions::Any));
        for (key, is_written, has_effect, unless) in [
            ("allow_plain_text", self.allow_plain_text, is_shared, SHARED),
            ("allow_plain_text", self.allow_plain_text, !tls.needs_certificates_of_clients(), OPTIONAL),
            ("websocket_path", self.websocket_path.is_some(), has_websocket, WEBSOCKET),
            ("websocket_origins", self.websocket_origins.is_some(), has_websocket, WEBSOCKET),
            ("proxy_require_tls", self.proxy_require_tls, takes_v2, V2),
            (
                "proxy_trusted",
                self.proxy_trusted.is_some(),
                has_websocket || self.proxy_protocol.is_some(),
                "there is \"proxy_protocol\" or WebSocket",
            ),
            ("allow_addresses", !self.allow_addresses.is_empty(), has_addresses, ADDRESSES),
            ("deny_addresses", !self.deny_addresses.is_empty(), has_addresses, ADDRESSES),
            ("unix_mode", self.unix_mode.is_some(), is_unix, "there is \"unix_path\""),
        ] {
            if is_written && !has_effect {
                return Err(Fault::NoEffect { key, unless });
            }
        }
        // Whoever can open a Unix socket is believed: its permissions say who that is.
        let trusts_nobody = self.proxy_trusted.as_ref().is_none_or(Vec::is_empty);
        if self.proxy_protocol.is_some() && trusts_nobody && !is_unix {
            return Err(Fault::Missing { key: "proxy_trusted", section: "[[listener]] with \"proxy_protocol\"" });
        }
        let proxy_trusted: Box<[Network]> = self.proxy_trusted.unwrap_or_default().into();
        // Those that a proxy has taken off, too.
        let has_certificates = !tls.client_ca_files.is_empty() || tls.user_name_from_certificate != UserNameFrom::No;
        let origins = match self.websocket_origins {
            Some(listed) if !listed.is_empty() => Origins::Listed(listed.into()),
            // A browser shows its user's certificate for whatever page asks.
            None if has_certificates => Origins::SameHost,
            _ => Origins::Any,
        };
        // The proxy has taken TLS off, and says the Common Name alone.
        let user_name_by_proxy =
            takes_v2 && tls.certificate_files.is_empty() && tls.user_name_from_certificate == UserNameFrom::CommonName;
        Ok(Transport {
            protocol,
            allow_plain_text: self.allow_plain_text,
            websocket: Options { path: self.websocket_path, origins, trusted: proxy_trusted.clone() },
            proxy_protocol: self.proxy_protocol,
            proxy_require_tls: self.proxy_require_tls,
            user_name_by_proxy,
            proxy_trusted,
            allow_addresses: self.allow_addresses.into(),
            deny_addresses: self.deny_addresses.into(),
            unix_mode: self.unix_mode.unwrap_or(UNIX_MODE),
        })
    }
}

impl Default for Transport {
    /// Plain MQTT for everybody.
    fn default() -> Self {
        Self {
            protocol: Protocol::Mqtt,
            allow_plain_text: false,
            websocket: Options::default(),
            proxy_protocol: None,
            proxy_require_tls: false,
            user_name_by_proxy: false,
            proxy_trusted: Box::default(),
            allow_addresses: Box::default(),
            deny_addresses: Box::default(),
            unix_mode: UNIX_MODE,
        }
    }
}

/// Networks, in the words of the file.
pub(super) fn networks(texts: &[String]) -> Result<Vec<Network>, &'static str> {
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                "an entry is an address or a network, such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32, without bits set \
                 behind its prefix"
            })
        })
        .collect()
}

pub(super) fn shown_networks(networks: &[Network]) -> String {
    networks.iter().map(Network::to_string).collect::<Vec<_>>().join(",")
}

/// An origin as browsers write it.
pub(super) fn origin(text: &str) -> Result<Box<str>, &'static str> {
    const REASON: &str = "an origin is written as browsers do: https://host or https://host:port, without a path";
    let host = text.split_once("://").map(|(_, host)| host);
    let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']));
    if is_origin || text == "null" { Ok(text.into()) } else { Err(REASON) }
}

pub(super) fn path(text: String) -> Result<Box<str>, &'static str> {
    if !text.starts_with('/') {
        return Err("a path begins with a slash");
    }
    if text.contains(|character: char| !character.is_ascii_graphic() || matches!(character, '?' | '#')) {
        return Err("a path is written as it comes over the wire: no spaces, no query");
    }
    Ok(text.into())
}

/// Permission bits in octal.
pub(super) fn mode(text: &str) -> Result<u32, &'static str> {
    let is_octal = matches!(text.len(), 3..=4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o777).ok_or("permission bits are three or four octal digits, such as 0660")
}
