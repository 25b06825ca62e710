//! Who a client is, without sockets, files or a clock: times are given to each function that needs one.
//!
//! A client proves who it is by its [`Credentials`]. Back ends look at them in order ([`chain`]), and each says one of
//! three things: this is so and so ([`Outcome::Accept`]), this is a lie ([`Outcome::Refuse`]), or this is none of my
//! business ([`Outcome::NotMine`]). At the end of a chain nobody gets in whom no back end has accepted.
//!
//! | module | has |
//! |---|---|
//! | [`password`] | a password file, where an unknown user costs what a known one does |
//! | [`jwt`] | JSON Web Tokens and the key sets that they are verified with |
//! | [`http`] | what an HTTP back end is asked, and what its answer means |
//! | [`cache`] | answers kept for a bounded time under a keyed hash of the credentials |
//! | [`brake`] | back-off after failures, by address, by user, and by both |
//!
//! What all this does not do: open connections, read files, verify certificates (TLS has done so before), decide who may
//! publish where. Nothing here prints, and no `Debug` shows a secret.

pub mod brake;
pub mod cache;
pub mod chain;
pub mod http;
pub mod jwt;
pub mod password;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// What a client says about itself in CONNECT, and what its connection says.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The Client Identifier; empty if the broker is to assign one.
    pub client_id: Box<str>,
    /// The User Name, if there is one.
    pub user_name: Option<Box<str>>,
    /// The Password, if there is one. All of its bytes count, zeros too.
    pub password: Option<Box<[u8]>>,
    /// The user name by the client's certificate, by the listener's rule; TLS has verified the certificate.
    pub certificate_name: Option<Box<str>>,
    /// Where the client is; None on a Unix socket.
    pub address: Option<IpAddr>,
    /// Which listener it came by.
    pub listener: u16,
}

impl Credentials {
    /// The client has shown nothing at all.
    pub fn is_anonymous(&self) -> bool {
        self.user_name.is_none() && self.password.is_none() && self.certificate_name.is_none()
    }
}

// By hand: the password is a secret, and tokens are too.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("certificate_name", &self.certificate_name)
            .field("address", &self.address)
            .field("listener", &self.listener)
            .finish()
    }
}

/// What it rests on who a client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Proof {
    /// A token, or the answer of a service.
    #[default]
    Credentials,
    /// A password that is kept in a file.
    Password,
    /// Its certificate.
    Certificate,
    /// Nobody has proved anything: anonymous clients are let in.
    Nothing,
}

/// Who a client is, as a back end says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its name in rules. None: it has none, as an anonymous client.
    pub user_name: Option<Box<str>>,
    /// What that rests on.
    pub proof: Proof,
    /// The groups it belongs to.
    pub groups: Box<[Box<str>]>,
    /// Topic Filters it may publish to and subscribe to, if the back end says so itself.
    pub permissions: Option<Permissions>,
    /// It may do everything.
    pub superuser: bool,
    /// How long this holds, from the time of the answer on. None: as long as the connection.
    pub valid_for: Option<Duration>,
}

impl Identity {
    /// One that nothing is known of.
    pub fn anonymous() -> Self {
        Self { proof: Proof::Nothing, ..Self::default() }
    }

    /// One with a name and nothing else.
    pub fn named(user_name: &str) -> Self {
        Self { user_name: Some(user_name.into()), ..Self::default() }
    }
}

/// What a back end allows a client, as Topic Filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// What it may publish to.
    pub publish: Box<[Box<str>]>,
    /// What it may subscribe to.
    pub subscribe: Box<[Box<str>]>,
}

/// What a back end says to some credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They are proved.
    Accept(Identity),
    /// They are wrong: no further back end is asked.
    Refuse(Refusal),
    /// They are of a kind, or of a user, that this back end knows nothing of: the next one is asked.
    NotMine,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has shown nothing, and anonymous clients are refused.
    #[error("it has shown no credentials, and anonymous clients are refused here")]
    Anonymous,
    /// No back end knows what to do with what it has shown.
    #[error("no back end knows these credentials")]
    Unknown,
    /// The password is wrong, or there is none.
    #[error("wrong user name or password")]
    Password,
    /// The token is not valid.
    #[error("the token is refused: {0}")]
    Token(#[from] jwt::Rejection),
    /// The HTTP back end said no.
    #[error("the HTTP back end refuses it")]
    Http,
    /// Too many failures before: nothing was verified.
    #[error("too many failures from this address or for this user; to be tried again later")]
    Brake,
    /// The back end cannot say: it is down, slow, or has too much to do. Nobody gets in meanwhile.
    #[error("{0}")]
    Unavailable(Unavailable),
}

/// Why a back end cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// As many verifications wait as may wait.
    #[error("too many verifications wait")]
    Waiting,
    /// The HTTP back end cannot be reached, is too slow, or answers what is no answer.
    #[error("the HTTP back end gives no answer")]
    Http,
    /// There are no keys to verify tokens with yet.
    #[error("there are no keys to verify the token with")]
    Keys,
    /// The broker ends.
    #[error("the broker ends")]
    Ending,
}

impl Refusal {
    /// The client guessed wrong, rather than being refused for a reason of ours: it counts towards the [`brake`].
    ///
    /// A token that has expired, or whose key we have not got yet, was good at some time or will be: no guess. Who has fetched the
    /// keys since it came may know better of the latter.
    pub fn is_failure(self) -> bool {
        use jwt::Rejection;
        match self {
            Self::Token(rejection) => !matches!(rejection, Rejection::Expired | Rejection::NotYet | Rejection::Key),
            Self::Unknown | Self::Password | Self::Http => true,
            Self::Anonymous | Self::Brake | Self::Unavailable(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guesses_count_as_failures() {
        for (refusal, expected) in [
            (Refusal::Password, true),
            (Refusal::Unknown, true),
            (Refusal::Http, true),
            (Refusal::Token(jwt::Rejection::Signature), true),
            (Refusal::Token(jwt::Rejection::Expired), false),
            (Refusal::Token(jwt::Rejection::Key), false),
            (Refusal::Anonymous, false),
            (Refusal::Brake, false),
            (Refusal::Unavailable(Unavailable::Http), false),
        ] {
            assert_eq!(refusal.is_failure(), expected, "{refusal}");
        }
    }
}
