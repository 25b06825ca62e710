//! What rules can be about.

use std::net::IpAddr;

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// The Client Identifier of the Session, assigned or the client's own.
    pub client_id: &'a str,
    /// The user name, once it is proved; none for an anonymous client.
    pub user_name: Option<&'a str>,
    /// Where the client is, as the transport or a trusted proxy tells; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether the client proved itself by a certificate.
    pub certificate: bool,
    /// The groups that who verified the client says it is in, besides those the rules themselves name.
    pub groups: &'a [Box<str>],
    /// What came with the client's credentials: in a token, or in the answer of an HTTP service.
    pub grants: Option<&'a Grants>,
}

/// Permissions that came with credentials, checked.
#[derive(Debug, Clone, Default)]
pub struct Grants {}
