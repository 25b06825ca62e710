//! The order in which back ends are asked, and what their answers add up to.

use crate::{Credentials, Identity, Outcome, Refusal};

/// A kind of back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackEnd {
    /// The client's certificate: who has a name by it is that user.
    Certificate,
    /// JSON Web Tokens.
    Jwt,
    /// A password file.
    Password,
    /// An HTTP service.
    Http,
}

impl BackEnd {
    /// All of them, in the order in which they are asked unless an operator says otherwise: what costs least comes first.
    pub const ALL: [Self; 4] = [Self::Certificate, Self::Jwt, Self::Password, Self::Http];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Jwt => "jwt",
            Self::Password => "password",
            Self::Http => "http",
        }
    }
}

/// The back ends of a security domain, in order.
///
/// ```
/// use pantala_identity::chain::{BackEnd, Chain, Next};
/// use pantala_identity::{Credentials, Identity, Outcome, Refusal};
///
/// let chain = Chain::new([BackEnd::Jwt, BackEnd::Password]);
/// let ann = Credentials { user_name: Some("ann".into()), ..Credentials::default() };
/// let Next::Ask(0, BackEnd::Jwt) = chain.first(&ann, false) else { panic!() };
/// let Next::Ask(1, BackEnd::Password) = chain.after(0, Outcome::NotMine) else { panic!() };
/// assert_eq!(chain.after(1, Outcome::NotMine), Next::Done(Err(Refusal::Unknown)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain(Box<[BackEnd]>);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The back end at this place is to be asked.
    Ask(usize, BackEnd),
    /// That is the end.
    Done(Result<Identity, Refusal>),
}

impl Chain {
    /// One of these, in this order.
    pub fn new(back_ends: impl IntoIterator<Item = BackEnd>) -> Self {
        Self(back_ends.into_iter().collect())
    }

    /// Nobody can be verified.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its back ends in order.
    pub fn back_ends(&self) -> &[BackEnd] {
        &self.0
    }

    /// The beginning. With `allow_anonymous` a client that shows nothing is let in without a name, and so is everybody if
    /// there is no back end: what nobody can verify is not looked at, and is no name either.
    pub fn first(&self, credentials: &Credentials, allow_anonymous: bool) -> Next {
        if allow_anonymous && (credentials.is_anonymous() || self.is_empty()) {
            return Next::Done(Ok(Identity::anonymous()));
        }
        if credentials.is_anonymous() {
            return Next::Done(Err(Refusal::Anonymous));
        }
        self.at(0)
    }

    /// What follows from the answer of the back end at this place.
    pub fn after(&self, place: usize, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Accept(identity) => Next::Done(Ok(identity)),
            Outcome::Refuse(refusal) => Next::Done(Err(refusal)),
            Outcome::NotMine => self.at(place + 1),
        }
    }

    fn at(&self, place: usize) -> Next {
        match self.0.get(place) {
            Some(&back_end) => Next::Ask(place, back_end),
            None => Next::Done(Err(Refusal::Unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Credentials {
        Credentials { user_name: Some("ann".into()), ..Credentials::default() }
    }

    #[test]
    fn nobody_gets_in_whom_nobody_has_accepted() {
        let chain = Chain::new(BackEnd::ALL);
        assert_eq!(chain.first(&Credentials::default(), false), Next::Done(Err(Refusal::Anonymous)));
        assert_eq!(chain.first(&Credentials::default(), true), Next::Done(Ok(Identity::anonymous())));
        let mut next = chain.first(&user(), true);
        for (expected, back_end) in BackEnd::ALL.into_iter().enumerate() {
            assert_eq!(next, Next::Ask(expected, back_end));
            next = chain.after(expected, Outcome::NotMine);
        }
        assert_eq!(next, Next::Done(Err(Refusal::Unknown)));
    }

    #[test]
    fn the_first_who_knows_decides() {
        let chain = Chain::new([BackEnd::Password, BackEnd::Http]);
        let refused = chain.after(0, Outcome::Refuse(Refusal::Password));
        assert_eq!(refused, Next::Done(Err(Refusal::Password)));
        let accepted = chain.after(0, Outcome::Accept(Identity::named("ann")));
        assert_eq!(accepted, Next::Done(Ok(Identity::named("ann"))));
    }

    #[test]
    fn without_a_back_end_credentials_are_refused_or_ignored() {
        let chain = Chain::default();
        assert_eq!(chain.first(&user(), false), Next::Done(Err(Refusal::Unknown)));
        assert_eq!(chain.first(&user(), true), Next::Done(Ok(Identity::anonymous())));
    }

    #[test]
    fn any_credential_at_all_is_an_offer() {
        for credentials in [
            user(),
            Credentials { password: Some(Box::new([])), ..Credentials::default() },
            Credentials { certificate_name: Some("ann".into()), ..Credentials::default() },
        ] {
            assert!(!credentials.is_anonymous());
            assert!(matches!(Chain::new([BackEnd::Http]).first(&credentials, true), Next::Ask(0, BackEnd::Http)));
        }
    }
}
