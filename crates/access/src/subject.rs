//! What rules can be about.

use std::net::IpAddr;
use std::sync::Arc;

use crate::draft::{Permissions, entries_of};
use crate::layer::{Block, Order};
use crate::{Error, GRANTS_FILTERS_MAX};

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
    /// Whether its user name is that of the certificate, so that no list of users need have it.
    pub named_by_certificate: bool,
    /// The groups that who verified the client says it is in, besides those the rules themselves name.
    pub groups: &'a [Box<str>],
    /// What came with the client's credentials: in a token, or in the answer of an HTTP service.
    pub grants: Option<&'a Grants>,
}

/// Permissions that came with credentials, checked. Cheap to clone.
///
/// They join the rules of the domain: a client may do what either allows and neither denies. `%c` and `%u` in them stand
/// for the client's names as in rules.
#[derive(Debug, Clone)]
pub struct Grants(pub(crate) Arc<Block>);

impl Grants {
    /// Checks what came.
    ///
    /// # Errors
    /// [`Error::Place`] when a Topic Filter is not well-formed, or there are more than [`GRANTS_FILTERS_MAX`]. The client
    /// has to be refused then: who grants something we cannot read may have denied something too.
    pub fn new(permissions: &Permissions) -> Result<Self, Error> {
        let mut entries = Vec::new();
        entries_of(permissions, "grants", &mut entries)?;
        if permissions.filters().count() > GRANTS_FILTERS_MAX {
            return Err(Error::Place { place: "grants".into(), why: "more than 1000 Topic Filters" });
        }
        Ok(Self(Block::new(entries, Order::Deny).into()))
    }
}
