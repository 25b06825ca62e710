//! Enhanced authentication of MQTT 5 (§4.12), the client's side.
//!
//! The client names a method in CONNECT; data then goes back and forth in AUTH packets, in the form that the method
//! prescribes, until the server lets the client in or refuses it. An [`Authenticator`] is one method, without I/O:
//! data goes in, data comes out. [`ScramSha256`] is the one that is built in.

mod scram;

use std::error::Error;
use std::fmt;

pub use self::scram::ScramSha256;

/// A method of enhanced authentication.
///
/// For each exchange the connection calls [`start`](Self::start), then [`step`](Self::step) for each AUTH packet
/// with Reason Code 0x18 (Continue authentication), then [`finish`](Self::finish) when the server says that it is
/// content. An exchange is begun with each CONNECT, and by the client whenever it re-authenticates (§4.12.1); the same
/// `Authenticator` serves all of them, one after the other. An exchange may end anywhere: `start` begins anew.
///
/// After an error the Network Connection must be closed; a DISCONNECT may be sent before (v5 §4.12).
///
/// Calls may take a while, since deriving keys from a password is made to; each implementation says how long. A
/// [`Client`](crate::Client) calls [`step`](Self::step) on a thread for blocking work, and the others, which should be quick,
/// where it stands.
///
/// ```
/// use pantala_client::authentication::{AuthenticationError, Authenticator};
///
/// /// Sends one token, and takes whatever the server says to it.
/// struct Token(String);
///
/// impl Authenticator for Token {
///     fn method(&self) -> &str {
///         "TOKEN"
///     }
///
///     fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
///         Ok(Some(self.0.clone().into_bytes()))
///     }
///
///     fn step(&mut self, _: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
///         Err(AuthenticationError::Unexpected)
///     }
///
///     fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
///         Ok(())
///     }
/// }
/// ```
pub trait Authenticator: Send {
    /// The Authentication Method, sent in CONNECT and in each AUTH packet. It must not change (MQTT-4.12.0-5).
    fn method(&self) -> &str;

    /// Begins an exchange, and forgets one that was not finished. Returns the Authentication Data of CONNECT, or of
    /// the AUTH packet that begins re-authentication; None for no data.
    ///
    /// # Errors
    /// [`AuthenticationError`] if no exchange can be begun, as without random numbers. Nothing is sent then.
    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError>;

    /// Takes the Authentication Data of an AUTH packet with Reason Code 0x18, and returns that of our answer. An AUTH
    /// packet without data is None.
    ///
    /// It has to come to an end by itself: if its connection is given up meanwhile, the next one needs this
    /// `Authenticator`, and waits for it with [`Status::Connecting`](crate::Status::Connecting). If it panics, the
    /// connection ends; if one of the other calls does, the client.
    ///
    /// # Errors
    /// [`AuthenticationError`] if the exchange cannot go on. The connection is closed then.
    fn step(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError>;

    /// Takes the Authentication Data of the CONNACK or AUTH packet with Reason Code 0x00 that ends the exchange.
    ///
    /// A method that lets the server prove itself checks that here, and fails when the proof is missing: whoever
    /// answers in place of the server could leave it out.
    ///
    /// # Errors
    /// [`AuthenticationError`] if the server has not proved what it must. The connection is closed then, and nothing
    /// that came over it is to be believed.
    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError>;
}

/// Why an exchange cannot be begun or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// Ours: the user name is empty, longer than 1 024 bytes, or holds characters that SASLprep (RFC 4013) forbids.
    #[error("the user name is empty, too long, or holds characters that SASLprep forbids")]
    UserName,
    /// Ours: the password is empty or holds characters that SASLprep (RFC 4013) forbids.
    #[error("the password is empty or holds characters that SASLprep forbids")]
    Password,
    /// The world's: the system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] Box<dyn Error + Send + Sync>),
    /// The server's: data came in a state of the exchange in which there is none, or is missing.
    #[error("the server's authentication packet does not fit the state of the exchange")]
    Unexpected,
    /// The server's: data is not in the form that the method prescribes.
    #[error("the server's authentication data is malformed")]
    Malformed,
    /// The server's: it asks for an extension that we do not know (RFC 5802 section 5.1, `m=`).
    #[error("the server asks for an extension of the method that is not known here")]
    Extension,
    /// The server's: its nonce does not begin with ours, or adds nothing. The data may be of another exchange.
    #[error("the server's nonce is not of this exchange")]
    Nonce,
    /// The server's: its iteration count is below 4 096, which makes passwords cheap to guess, or above 600 000, which
    /// would keep us busy for seconds.
    #[error("the server's iteration count of {0} is not in 4096..=600000")]
    Iterations(u32),
    /// The server's: it refuses us with a word of the method.
    #[error("the server refuses the credentials ({0})")]
    Refused(ServerError),
    /// The server's: its signature is missing or wrong. Who answers does not know the password.
    #[error("the server does not prove that it knows the password; it may be another one than it seems")]
    ServerSignature,
    /// Of a method that is not built in.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

/// The word for an error that a SCRAM server may send (RFC 5802 section 7, `e=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError(String);

impl ServerError {
    /// The word, as in `invalid-proof`; at most 64 printable characters of ASCII.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
