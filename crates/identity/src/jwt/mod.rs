//! JSON Web Tokens (RFC 7519) signed as JWS (RFC 7515), verified by keys of an operator or of a key set (RFC 7517).
//!
//! The signatures are aws-lc's, which the binary has for TLS anyway; what is ours is the form around them, and it is
//! strict. Which algorithms a token may have is the operator's choice and the key's, never the token's: a token names one,
//! and if no key of that kind is there it is refused. So `none` is nothing, and a public key never serves as the secret of an
//! HMAC. Headers that bring keys or places of keys along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at, and `kid` is a
//! text to be compared with others. A token with `crit` is refused, since we understand no extension.

mod key;
mod key_set;

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

pub use key::{Key, KeyError};
pub use key_set::{KEYS_MAX, KeyCache, KeySet, KeySetError, REFRESH_INTERVAL, STALE_MAX};

use crate::{Credentials, Identity, Outcome, Permissions, Refusal};

/// A token without `kid` is tried with so many keys that fit, and no more.
const TRIES_MAX: usize = 4;
/// The most groups, or Topic Filters of one kind, that a token may carry.
const ENTRIES_MAX: usize = 1_024;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS #1 version 1.5, with SHA-256.
    Rs256,
    /// RSA, PKCS #1 version 1.5, with SHA-384.
    Rs384,
    /// RSA, PKCS #1 version 1.5, with SHA-512.
    Rs512,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// RSA, PSS, with SHA-384.
    Ps384,
    /// RSA, PSS, with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All that we know.
    pub const ALL: [Self; 13] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 13] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
        "EdDSA",
    ];

    /// Its name in a token.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl FromStr for Algorithm {
    type Err = Rejection;

    fn from_str(name: &str) -> Result<Self, Rejection> {
        let place = Self::NAMES.iter().position(|known| *known == name).ok_or(Rejection::Algorithm)?;
        Ok(Self::ALL[place])
    }
}

/// What tokens have to say, and what is taken from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The algorithms that are accepted. Empty: those that the keys are made for.
    pub algorithms: Vec<Algorithm>,
    /// `iss` has to be this, if there is one here.
    pub issuer: Option<String>,
    /// `aud` has to be this or a list with this in it, if there is one here.
    pub audience: Option<String>,
    /// How far apart the clocks may be. Default 60 s.
    pub leeway: Duration,
    /// A token without `exp` is refused. Default true.
    pub require_expiry: bool,
    /// The longest token, in bytes. Default 8 192.
    pub token_bytes_max: usize,
    /// Tokens are looked for only in the passwords of clients with this User Name. None, the default: of all, whatever
    /// their User Name is.
    pub user_name: Option<String>,
    /// The claim with the user name. Default `sub`. A name with dots is a path into objects, if there is no such claim.
    pub user_name_claim: String,
    /// This claim has to be the Client Identifier. Default none.
    pub client_id_claim: Option<String>,
    /// The claim with the groups, a list of texts or a text with blanks. Default none.
    pub groups_claim: Option<String>,
    /// The claim with the Topic Filters to publish to, a list. Default none.
    pub publish_claim: Option<String>,
    /// The claim with the Topic Filters to subscribe to, a list. Default none.
    pub subscribe_claim: Option<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            algorithms: Vec::new(),
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(60),
            require_expiry: true,
            token_bytes_max: 8_192,
            user_name: None,
            user_name_claim: "sub".to_owned(),
            client_id_claim: None,
            groups_claim: None,
            publish_claim: None,
            subscribe_claim: None,
        }
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is longer than tokens may be.
    #[error("it is too long")]
    Size,
    /// It is no token, or a part of it cannot be read.
    #[error("it cannot be read")]
    Form,
    /// Its algorithm is not one of those that are accepted.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// It needs an extension that we do not know.
    #[error("it needs an extension")]
    Critical,
    /// No key has its `kid`, or none is of its kind.
    #[error("no key fits it")]
    Key,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It has no `exp`.
    #[error("it has no expiry")]
    NoExpiry,
    /// It does not hold yet, or was issued in the future.
    #[error("it is not valid yet")]
    NotYet,
    /// It comes from somebody else.
    #[error("its issuer is another one")]
    Issuer,
    /// It is meant for somebody else.
    #[error("its audience is another one")]
    Audience,
    /// It has no user name, or one that cannot be one.
    #[error("it has no user name that can be one")]
    UserName,
    /// It is meant for another Client Identifier.
    #[error("it is for another client")]
    ClientId,
    /// Its groups or Topic Filters are no lists of texts, or too many.
    #[error("its groups or permissions cannot be read")]
    Permissions,
}

impl Rejection {
    /// Newer keys might verify the token.
    pub fn asks_for_keys(self) -> bool {
        matches!(self, Self::Key | Self::Signature)
    }
}

/// Whether a password may be a token at all: three parts in the letters of Base64 for URLs, the first of them an object.
pub fn looks_like_token(password: &[u8]) -> bool {
    let letters = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let mut parts = password.split(|byte| *byte == b'.');
    password.starts_with(b"ey") && parts.clone().count() == 3 && parts.all(letters)
}

impl Rules {
    /// Whether this client shows a token; the back end has nothing to say otherwise.
    pub fn concern(&self, credentials: &Credentials) -> bool {
        let named = self.user_name.as_deref().is_none_or(|name| credentials.user_name.as_deref() == Some(name));
        // With a name of its own, whatever is in the password has to be a token.
        named && credentials.password.as_deref().is_some_and(|it| self.user_name.is_some() || looks_like_token(it))
    }

    /// The user name that a token claims, and that nothing proves: by it clients are told apart before their tokens are verified.
    pub fn claimed_name(&self, credentials: &Credentials) -> Option<Box<str>> {
        let token = credentials.password.as_deref().filter(|token| token.len() <= self.token_bytes_max)?;
        let payload = token.split(|byte| *byte == b'.').nth(1)?;
        let claims = object(std::str::from_utf8(payload).ok()?).ok()?;
        let name = find(&claims, &self.user_name_claim)?.as_str()?;
        can_be_name(name).then(|| name.into())
    }

    /// Verifies the token in the password. `unix_now` is in seconds since 1970.
    ///
    /// Newer keys may help where the rejection [asks for them](Rejection::asks_for_keys): see [`KeyCache`].
    pub fn verify(&self, unix_now: u64, keys: &KeySet, credentials: &Credentials) -> Outcome {
        if !self.concern(credentials) {
            return Outcome::NotMine;
        }
        match self.identity(unix_now, keys, credentials) {
            Ok(identity) => Outcome::Accept(identity),
            Err(rejection) => Outcome::Refuse(Refusal::Token(rejection)),
        }
    }

    fn identity(&self, unix_now: u64, keys: &KeySet, credentials: &Credentials) -> Result<Identity, Rejection> {
        let token = credentials.password.as_deref().unwrap_or_default();
        let claims = self.claims(keys, token)?;
        let valid_for = self.check_times(unix_now, &claims)?;
        self.check_parties(&claims)?;
        let user_name = find(&claims, &self.user_name_claim).and_then(Value::as_str).ok_or(Rejection::UserName)?;
        if !can_be_name(user_name) {
            return Err(Rejection::UserName);
        }
        if let Some(claim) = &self.client_id_claim {
            let client_id = find(&claims, claim).and_then(Value::as_str);
            if client_id != Some(&credentials.client_id) {
                return Err(Rejection::ClientId);
            }
        }
        let list = |claim: &Option<String>| match claim.as_deref().and_then(|claim| find(&claims, claim)) {
            None => Ok(None),
            Some(value) => texts(value).map(Some),
        };
        let (publish, subscribe) = (list(&self.publish_claim)?, list(&self.subscribe_claim)?);
        // Who is given the one is not given the other by silence.
        let permissions = (publish.is_some() || subscribe.is_some())
            .then(|| Permissions { publish: publish.unwrap_or_default(), subscribe: subscribe.unwrap_or_default() });
        let groups = list(&self.groups_claim)?.unwrap_or_default();
        Ok(Identity { user_name: Some(user_name.into()), groups, permissions, valid_for, ..Identity::default() })
    }

    /// The claims, once the signature is known to be good.
    fn claims(&self, keys: &KeySet, token: &[u8]) -> Result<Map<String, Value>, Rejection> {
        if token.len() > self.token_bytes_max {
            return Err(Rejection::Size);
        }
        let text = std::str::from_utf8(token).map_err(|_| Rejection::Form)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Rejection::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Rejection::Form)?;
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(Rejection::Critical);
        }
        let algorithm: Algorithm = header.get("alg").and_then(Value::as_str).ok_or(Rejection::Form)?.parse()?;
        if !self.algorithms.is_empty() && !self.algorithms.contains(&algorithm) {
            return Err(Rejection::Algorithm);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(key_id)) => Some(key_id.as_str()),
            Some(_) => return Err(Rejection::Form),
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Rejection::Form)?;
        let mut tried = false;
        let mut verified = false;
        for key in keys.candidates(key_id, algorithm).take(TRIES_MAX) {
            tried = true;
            if key.verify(algorithm, signed.as_bytes(), &signature) {
                verified = true;
                break;
            }
        }
        match (tried, verified) {
            (_, true) => object(payload),
            (true, false) => Err(Rejection::Signature),
            (false, false) => Err(Rejection::Key),
        }
    }

    /// How long the token holds from now on.
    fn check_times(&self, unix_now: u64, claims: &Map<String, Value>) -> Result<Option<Duration>, Rejection> {
        let leeway = self.leeway.as_secs();
        for name in ["nbf", "iat"] {
            if time(claims, name)?.is_some_and(|since| since > unix_now.saturating_add(leeway)) {
                return Err(Rejection::NotYet);
            }
        }
        match time(claims, "exp")? {
            None if self.require_expiry => Err(Rejection::NoExpiry),
            None => Ok(None),
            Some(until) => match until.saturating_add(leeway).checked_sub(unix_now) {
                None | Some(0) => Err(Rejection::Expired),
                Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            },
        }
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), Rejection> {
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Rejection::Issuer);
        }
        if let Some(audience) = &self.audience {
            let meant = match claims.get("aud") {
                Some(Value::String(one)) => one == audience,
                Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
                _ => false,
            };
            if !meant {
                return Err(Rejection::Audience);
            }
        }
        Ok(())
    }
}

/// A part of a token: the Base64 of a JSON object.
fn object(part: &str) -> Result<Map<String, Value>, Rejection> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejection::Form)?;
    // The parser has a bound of its own for how deep things may be.
    serde_json::from_slice(&bytes).map_err(|_| Rejection::Form)
}

/// Seconds since 1970, which may have a fraction. A time that is no number is an error: silence would be taken for never.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Rejection> {
    match claims.get(name) {
        None => Ok(None),
        // As floats saturate, absurd times are the end of time or its beginning.
        Some(Value::Number(number)) => {
            Ok(Some(number.as_u64().unwrap_or_else(|| number.as_f64().unwrap_or_default() as u64)))
        }
        Some(_) => Err(Rejection::Form),
    }
}

/// The claim of this name, or what is at this path.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let mut levels = name.split('.');
        let mut value = claims.get(levels.next()?)?;
        for level in levels {
            value = value.as_object()?.get(level)?;
        }
        Some(value)
    })
}

/// A list of texts, or a text with blanks between them, as `scope` has them.
fn texts(value: &Value) -> Result<Box<[Box<str>]>, Rejection> {
    let texts: Option<Vec<Box<str>>> = match value {
        Value::String(text) => Some(text.split_ascii_whitespace().map(Box::from).collect()),
        Value::Array(texts) => texts.iter().map(|text| text.as_str().map(Box::from)).collect(),
        _ => None,
    };
    texts.filter(|texts| texts.len() <= ENTRIES_MAX).map(Vec::into_boxed_slice).ok_or(Rejection::Permissions)
}

/// Whether MQTT could carry the name, and a log show it (v5 section 1.5.4).
pub(crate) fn can_be_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= usize::from(u16::MAX) && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests;
