//! Enhanced authentication (v5 section 4.12): challenge and response by AUTH packets.
//!
//! A [`Method`] has a name, by which CONNECT asks for it (Authentication Method), and begins an [`Exchange`] for each
//! client that does. An exchange takes the client's Authentication Data one packet at a time and says what follows.
//! It knows neither packets nor connections: who sends CONNACK, AUTH or DISCONNECT, how many rounds there may be and
//! how long they may take, and whether a re-authentication may change the user, is for the caller to say. So is how often
//! somebody may try: the caller asks a [`Brake`] before a client that has said who it is gives its proof.

mod scram;

pub use scram::{ScramSha256, ScramUserError, prepared_user_name};

use std::fmt;
use std::net::IpAddr;

use pantala_proto::ReasonCode;
use pantala_session::Instant;

use crate::SecurityId;

/// Enhanced authentication (v5 section 4.12): one method by name.
pub trait Method: Send + Sync {
    /// The Authentication Method of CONNECT and AUTH that stands for it.
    fn name(&self) -> &str;

    /// Begins an exchange with one client, which can be a user of this security domain. `server_nonce` must be random and
    /// never used before: it is what makes the record of an earlier exchange useless.
    fn begin(&self, security: SecurityId, server_nonce: [u8; 18]) -> Box<dyn Exchange>;
}

/// One client's authentication, from CONNECT (or an AUTH with Re-authenticate) to success or failure.
pub trait Exchange: Send {
    /// Takes the Authentication Data of the client's next packet, empty if it has none. After Success or Failure the
    /// exchange is over, and each further step is a Failure.
    fn step(&mut self, client_data: &[u8]) -> Step;

    /// Who the client says it is, from when it has said so until the exchange is over: what it sends next is its proof.
    fn user_name(&self) -> Option<&str>;
}

/// Slows down those who guess. It is given by the shell, and the same for all workers.
pub trait Brake: Send + Sync {
    /// Whether a proof of this user of this security domain may be looked at now. If so, what came of it is told by
    /// [`Brake::tried`].
    fn may_try(&self, now: Instant, address: Option<IpAddr>, security: SecurityId, user_name: &str) -> bool;

    /// The proof was right or wrong. Not called for what was no proof, or proved somebody else.
    fn tried(&self, now: Instant, address: Option<IpAddr>, security: SecurityId, user_name: &str, right: bool);
}

/// Nobody is slowed down.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unbraked;

impl Brake for Unbraked {
    fn may_try(&self, _now: Instant, _address: Option<IpAddr>, _security: SecurityId, _user_name: &str) -> bool {
        true
    }

    fn tried(&self, _: Instant, _: Option<IpAddr>, _: SecurityId, _user_name: &str, _right: bool) {}
}

/// What follows a client's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send AUTH with Continue authentication (0x18) and this Authentication Data, and wait for the client's AUTH.
    Continue(Vec<u8>),
    /// The client is who it says it is.
    Success {
        /// Authentication Data of the CONNACK, or of the AUTH with Success that ends a re-authentication.
        data: Vec<u8>,
        /// The user that permissions are those of.
        user_name: String,
    },
    /// The client is not to be served.
    Failure(Failure),
}

/// Why an exchange failed: for the log and the counters.
///
/// The client is told less ([`Failure::reason_code`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The data is not a message of the method, or is longer than one may be.
    Malformed,
    /// The client insists on channel binding, or its last message names another binding than its first.
    ChannelBinding,
    /// The client needs an extension that we do not know.
    Extension,
    /// The client wants to act for another user.
    AuthorizationIdentity,
    /// The nonce is not the one of this exchange: the message was recorded in another, or made up.
    Nonce,
    /// Unknown user or wrong password; which of them is not told apart, here neither.
    Credentials,
    /// The exchange is over already.
    Finished,
}

impl Failure {
    /// The Reason Code for CONNACK or, in a re-authentication, DISCONNECT: Not authorized, whatever failed.
    ///
    /// Bad User Name or Password would say more than an attacker needs, and DISCONNECT cannot carry it.
    pub fn reason_code(self) -> ReasonCode {
        ReasonCode::NotAuthorized
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed authentication data",
            Self::ChannelBinding => "wrong or unsupported channel binding",
            Self::Extension => "unknown mandatory extension",
            Self::AuthorizationIdentity => "another authorization identity than the user",
            Self::Nonce => "nonce of another exchange",
            Self::Credentials => "unknown user or wrong password",
            Self::Finished => "authentication data after the end of the exchange",
        })
    }
}

impl std::error::Error for Failure {}
