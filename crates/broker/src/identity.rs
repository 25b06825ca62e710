//! Who a client is, and what follows from it.
//!
//! The core verifies no password: it asks the shell ([`Action::Authenticate`](crate::Action::Authenticate)) and waits for a
//! [`Verdict`]. What a client may do comes from one place, the [`RightsSource`], which the shell gives and replaces
//! ([`Core::rights_changed`](crate::Core::rights_changed)); so a verdict that was under way while rules changed brings no
//! rights of the old ones with it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use pantala_access::{Grants, Rights, Subject};
use pantala_proto::ReasonCode;
use pantala_session::Instant;

use crate::{Cause, ListenerId, Peer};

/// A security domain: one set of users and rules. Its place in [`Settings::security_domains`](crate::Settings).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecurityId(pub u16);

/// A client that wants to be let in: what there is to verify.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthenticationRequest {
    /// Where it has connected.
    pub listener: ListenerId,
    /// The security domain of that listener.
    pub security: SecurityId,
    /// Its Client Identifier; empty if it is to be given one.
    pub client_id: Box<str>,
    /// User Name of CONNECT. None if it has none, or an empty one.
    pub user_name: Option<Box<str>>,
    /// Password of CONNECT, any bytes. None if it has none, which is not the same as an empty one.
    pub password: Option<Vec<u8>>,
    /// What the transport knows.
    pub peer: Option<Box<Peer>>,
}

impl fmt::Debug for AuthenticationRequest {
    /// All but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationRequest")
            .field("listener", &self.listener)
            .field("security", &self.security)
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

/// What came of an [`AuthenticationRequest`].
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The client is who it says it is.
    Accepted(Identity),
    /// It is not let in.
    Refused {
        /// For CONNACK: Bad User Name or Password (0x86), Not authorized (0x87), Server unavailable (0x88), Banned (0x8A).
        reason_code: ReasonCode,
        /// For the log: mostly [`Cause::Credentials`]. The client is not told.
        cause: Cause,
    },
}

/// What it rests on who a client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Proof {
    /// Credentials that were verified: a token, or whatever a service knows.
    #[default]
    Credentials,
    /// A password that is kept in a file.
    Password,
    /// The password of a user by SCRAM.
    Scram,
    /// The certificate that its user name is from.
    Certificate,
    /// Its own word: the listener believes User Names.
    Word,
    /// Nothing: it is anonymous.
    Nothing,
}

/// Who a client has proved to be.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Its user name; None for an anonymous client.
    pub user_name: Option<Box<str>>,
    /// How that is known.
    pub proof: Proof,
    /// The Client Identifier that it has in place of its own. The connection moves to the worker that this one belongs to.
    pub client_id: Option<Box<str>>,
    /// When its credentials expire: the connection is closed then (0x87).
    pub expires_at: Option<Instant>,
    /// See [`Subject::groups`].
    pub groups: Box<[Box<str>]>,
    /// See [`Subject::grants`].
    pub grants: Option<Arc<Grants>>,
}

/// Who a client has proved to be, and to whom: until it is let in, it may move to another worker or its listener get another
/// security domain, where the proof is worth nothing.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// The security domain that was asked.
    pub security: SecurityId,
    /// Who it is there.
    pub identity: Identity,
}

/// Says what a client may do. The answer must depend on its arguments alone: it is asked for at CONNECT, and for every
/// Session when it has been replaced by another.
pub trait RightsSource: Send + Sync {
    /// What a client of this security domain may do.
    fn rights(&self, security: SecurityId, subject: &Subject<'_>) -> Standing;

    /// Whether everybody may do everything: then nothing is remembered of who clients are but their user names.
    fn is_unrestricted(&self) -> bool {
        false
    }
}

/// What [`RightsSource::rights`] says of a client.
#[derive(Debug, Clone)]
pub enum Standing {
    /// It may do this.
    Rights(Rights),
    /// There is no such user any more: CONNACK or DISCONNECT with Not authorized (0x87).
    Unknown,
    /// It is not to be served: CONNACK with Banned (0x8A), DISCONNECT with Administrative action (0x98).
    Banned,
}

/// Everybody may do everything: a broker without rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unrestricted;

impl RightsSource for Unrestricted {
    fn rights(&self, _security: SecurityId, _subject: &Subject<'_>) -> Standing {
        Standing::Rights(Rights::everything())
    }

    fn is_unrestricted(&self) -> bool {
        true
    }
}

/// What a Session remembers of who its client is.
#[derive(Debug, Default)]
pub(crate) struct Principal {
    pub(crate) user_name: Option<Box<str>>,
    pub(crate) address: Option<IpAddr>,
    /// It proved itself by a certificate.
    pub(crate) certificate: bool,
    pub(crate) groups: Box<[Box<str>]>,
    pub(crate) grants: Option<Arc<Grants>>,
}

impl Principal {
    pub(crate) fn new(identity: Identity, peer: Option<&Peer>) -> Self {
        let Identity { user_name, groups, grants, .. } = identity;
        let address = peer.and_then(|peer| peer.address).map(|address| address.ip());
        let certificate = peer.is_some_and(|peer| peer.certificate.is_some());
        Self { user_name, address, certificate, groups, grants }
    }

    pub(crate) fn subject<'a>(&'a self, client_id: &'a str, proof: Proof) -> Subject<'a> {
        Subject {
            client_id,
            user_name: self.user_name.as_deref(),
            address: self.address,
            certificate: self.certificate,
            named_by_certificate: proof == Proof::Certificate,
            groups: &self.groups,
            grants: self.grants.as_deref(),
        }
    }

    /// Whether it has proved anything.
    pub(crate) fn is_somebody(&self) -> bool {
        self.user_name.is_some() || !self.groups.is_empty() || self.grants.is_some()
    }
}
