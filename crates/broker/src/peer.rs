//! Who is at the other end of a Network Connection, as far as the transport knows.

use std::net::SocketAddr;

/// What the shell knows about a client before its first MQTT byte: see [`Core::introduce`](crate::Core::introduce).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from; behind a trusted proxy, what that says. None for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Names in the certificate that it has proved to hold, and that the listener's authorities vouch for. None without one.
    pub certificate: Option<Box<CertificateNames>>,
    /// The User Name that its certificate stands for, where the listener takes it from there.
    pub user_name_by_certificate: Option<Box<str>>,
}

/// Names in a client certificate: bytes from outside, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// The whole subject as RFC 2253 writes it, the last attribute first: `CN=sensor-7,O=Plant,C=DE`.
    pub subject: Box<str>,
    /// The Common Name, if there is exactly one and it is text.
    pub common_name: Option<Box<str>>,
    /// Subject Alternative Names that are DNS names, mail addresses, URIs or IP addresses, in their order.
    pub subject_alternative_names: Box<[Box<str>]>,
}
