//! Several keys by their names, and when they are to be fetched anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pantala_session::Instant;
use serde_json::Value;

use super::key::Curve;
use super::{Algorithm, Key, KeyError};

/// The most keys of a set. More are an error: a set that is cut off would refuse tokens for no reason one could see.
pub const KEYS_MAX: usize = 256;
/// A set is fetched no sooner after the last try than this, whatever tokens ask for.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Keys that could not be fetched again serve for so long since they were fetched.
pub const STALE_MAX: Duration = Duration::from_hours(24);

/// Keys. Those that have a name are for the tokens that say it.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<(Option<Box<str>>, Key)>,
    by_name: HashMap<Box<str>, Vec<usize>>,
}

/// Why a text is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not JSON with a list `keys`.
    #[error("expected JSON with a list \"keys\"")]
    Form,
    /// It has more keys than a set may have.
    #[error("there are more than 256 keys")]
    TooMany,
    /// No key of it can verify tokens for us.
    #[error("there is no key in it that we could verify tokens with")]
    NoneFits,
}

impl KeySet {
    /// Reads a JWKS (RFC 7517). Keys of kinds that we do not know, those that are not for signatures, and damaged ones are
    /// passed over, as the standard asks; secrets are too, since what is fetched is public.
    pub fn from_json(text: &[u8]) -> Result<Self, KeySetError> {
        let document: Value = serde_json::from_slice(text).map_err(|_| KeySetError::Form)?;
        let entries = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::Form)?;
        if entries.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self::default();
        for entry in entries {
            if let Ok((name, key)) = key_of(entry) {
                set.add(name, key);
            }
        }
        if set.is_empty() { Err(KeySetError::NoneFits) } else { Ok(set) }
    }

    /// Adds a key; without a name it is tried with all tokens of its kind that name none of the others.
    pub fn add(&mut self, name: Option<&str>, key: Key) {
        if let Some(name) = name {
            self.by_name.entry(name.into()).or_default().push(self.keys.len());
        }
        self.keys.push((name.map(Box::from), key));
    }

    /// There is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that a token with this `kid` and algorithm may be signed with.
    pub(super) fn candidates(&self, key_id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let named = key_id.and_then(|key_id| self.by_name.get(key_id)).into_iter().flatten();
        let named = named.filter_map(|&place| self.keys.get(place));
        let any = key_id.is_none();
        let others = self.keys.iter().filter(move |(name, _)| any || name.is_none());
        named.chain(others).map(|(_, key)| key).filter(move |key| key.fits(algorithm))
    }
}

fn key_of(entry: &Value) -> Result<(Option<&str>, Key), KeyError> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let text = text(name).ok_or(KeyError::Kind)?;
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| KeyError::Kind)
    };
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::Kind);
    }
    if let Some(operations) = entry.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|operation| operation.as_str() == Some("verify"))
    {
        return Err(KeyError::Kind);
    }
    let mut key = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => Key::rsa(&bytes("n")?, &bytes("e")?)?,
        (Some("EC"), Some(curve)) => {
            let (curve, length) = match curve {
                "P-256" => (Curve::P256, 32),
                "P-384" => (Curve::P384, 48),
                "P-521" => (Curve::P521, 66),
                _ => return Err(KeyError::Kind),
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != length || y.len() != length {
                return Err(KeyError::Kind);
            }
            Key::point(curve, &[&[4], x.as_slice(), &y].concat())?
        }
        (Some("OKP"), Some("Ed25519")) => Key::ed25519(&bytes("x")?)?,
        _ => return Err(KeyError::Kind),
    };
    if let Some(algorithm) = text("alg") {
        let algorithm = algorithm.parse().map_err(|_| KeyError::Kind)?;
        key.algorithm = Some(algorithm);
        if !key.fits(algorithm) {
            return Err(KeyError::Kind);
        }
    }
    Ok((text("kid"), key))
}

/// A key set that is fetched from somewhere, and the rule when.
///
/// A token whose key is not there asks for the set again, once in [`REFRESH_INTERVAL`] at the most, so that tokens with
/// invented names do not become a flood of requests. A set that is older than it should be is fetched again with the next
/// token; while that fails the old one serves, for [`STALE_MAX`] at the most.
#[derive(Debug)]
pub struct KeyCache {
    keys: Arc<KeySet>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    refresh_after: Duration,
}

impl KeyCache {
    /// An empty one, to be fetched with the first token, and again after this time.
    pub fn new(refresh_after: Duration) -> Self {
        Self { keys: Arc::default(), fetched: None, tried: None, refresh_after }
    }

    /// The keys that hold now. Empty if there are none, or none that may still serve.
    pub fn keys(&self, now: Instant) -> Arc<KeySet> {
        match self.fetched {
            Some(fetched) if now < fetched.after(STALE_MAX) => Arc::clone(&self.keys),
            _ => Arc::default(),
        }
    }

    /// The keys are old enough to be fetched again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.fetched.is_none_or(|fetched| fetched.after(self.refresh_after) <= now)
    }

    /// Whether the keys may be fetched now; if so, it counts as a try.
    pub fn try_now(&mut self, now: Instant) -> bool {
        let may = self.tried.is_none_or(|tried| tried.after(REFRESH_INTERVAL) <= now);
        if may {
            self.tried = Some(now);
        }
        may
    }

    /// When the keys came that there are.
    pub fn fetched(&self) -> Option<Instant> {
        self.fetched
    }

    /// What was tried last has brought nothing, or not yet: there may be keys that nobody here knows.
    pub fn may_be_outdated(&self) -> bool {
        self.tried > self.fetched
    }

    /// The keys have come.
    pub fn renew(&mut self, now: Instant, keys: KeySet) {
        self.keys = Arc::new(keys);
        self.fetched = Some(now);
    }
}
