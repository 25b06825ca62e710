//! A security domain as it is in force: files read, clients of services made.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pantala_access::{Rights, Rules, RulesDraft, Subject};
use pantala_identity::cache::{Cache, Hasher};
use pantala_identity::chain::{BackEnd, Chain};
use pantala_identity::jwt::{self, Key, KeyCache, KeySet};
use pantala_identity::password::Users;
use pantala_identity::{Identity, Outcome};
use pantala_session::Instant;

use super::dynamic::Dynamic;
use super::http::Caller;
use crate::config::{Http, Jwt, JwtKeys, SecurityDomain, Verification};

/// The largest password or ACL file.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Files with a key or a secret are small; a slip like `/dev/zero` ends with a message.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a domain: which one, which file, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainError {
    pub domain: String,
    /// The key of the configuration.
    pub key: &'static str,
    /// With the path and the line, if there is one.
    pub what: String,
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "security \"{}\", {}: {}", self.domain.escape_debug(), self.key, self.what)
    }
}

/// One that is in force. Never changed: a reload makes another.
#[derive(Debug)]
pub(super) struct Domain {
    pub chain: Chain,
    pub users: Option<Users>,
    pub tokens: Option<Tokens>,
    pub service: Option<Service>,
    pub rules: Rules,
    /// In place of users and rules.
    pub dynamic: Option<Arc<Dynamic>>,
    /// Passwords that were right.
    pub verified: Mutex<Cache<()>>,
    /// The only users there can be, if the password file is the only place to have them from.
    only_users: Option<HashSet<Box<str>>>,
    /// No other back end knows users than files.
    pub only_users_of_files: bool,
}

/// JSON Web Tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    pub rules: jwt::Rules,
    pub keys: Keys,
}

#[derive(Debug)]
pub(super) enum Keys {
    Fixed(KeySet),
    /// Kept over a reload: keys that are there are worth keeping.
    Fetched(Arc<FetchedKeys>),
}

#[derive(Debug)]
pub(super) struct FetchedKeys {
    config: (String, Duration),
    pub caller: Caller,
    pub cache: Mutex<KeyCache>,
    /// Held by the one that fetches.
    pub fetching: Mutex<()>,
}

/// An HTTP back end.
#[derive(Debug)]
pub(super) struct Service {
    pub config: Http,
    pub caller: Caller,
    /// Kept apart, so that refused guesses push out no good answer.
    pub accepted: Mutex<Cache<(Identity, Instant)>>,
    pub others: Mutex<Cache<Outcome>>,
}

impl Domain {
    /// Reads the files. `old` is the same domain from before, if there is one.
    pub fn new(
        config: &SecurityDomain,
        bounds: &Verification,
        hasher: &Hasher,
        scram_users: &HashSet<Box<str>>,
        old: Option<&Self>,
    ) -> Result<Self, DomainError> {
        let wrong = |key, what| DomainError { domain: config.name.clone(), key, what };
        let users = match &config.password_file {
            None => None,
            Some(path) => {
                let text = read_text(path, FILE_BYTES_MAX).map_err(|what| wrong("password_file", what))?;
                let file = pantala_password::File::parse(&text)
                    .map_err(|error| wrong("password_file", format!("{}: {error}", path.display())))?;
                Some(Users::new(file, hasher.clone()))
            }
        };
        let rules = match (&config.acl_file, &config.rules_file) {
            (None, None) => Rules::everything(),
            (None, Some(path)) => {
                let text = read_text(path, FILE_BYTES_MAX).map_err(|what| wrong("rules_file", what))?;
                let in_file = |error: &dyn fmt::Display| wrong("rules_file", format!("{}: {error}", path.display()));
                let draft: RulesDraft = toml::from_str(&text).map_err(|error| in_file(&one_line(&text, &error)))?;
                draft.compile().map_err(|error| in_file(&error))?
            }
            (Some(path), _) => {
                let text = read_text(path, FILE_BYTES_MAX).map_err(|what| wrong("acl_file", what))?;
                Rules::from_mosquitto_acl(&text)
                    .map_err(|error| wrong("acl_file", format!("{}: {error}", path.display())))?
            }
        };
        let tokens = match &config.jwt {
            None => None,
            Some(jwt) => {
                let old = old.and_then(|old| old.tokens.as_ref());
                let ca_file = config.http.as_ref().and_then(|http| http.ca_file.as_deref());
                let keys = Keys::new(jwt, ca_file, old).map_err(|(key, what)| wrong(key, what))?;
                Some(Tokens { rules: jwt.rules.clone(), keys })
            }
        };
        let service = match &config.http {
            None => None,
            Some(http) => {
                let authorization = http.authorization_file.as_deref().map(|path| {
                    let text = read_text(path, SECRET_BYTES_MAX)?;
                    let line = text.trim_end_matches(['\r', '\n']);
                    let fine = !line.is_empty() && line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
                    let reason = "expected the value of an Authorization header, one line";
                    if fine { Ok(line.to_owned()) } else { Err(format!("{}: {reason}", path.display())) }
                });
                let authorization = authorization.transpose().map_err(|what| wrong("http_authorization_file", what))?;
                let requests_max = bounds.http_requests_max;
                let caller = Caller::new(&http.url, http.timeout, authorization, http.ca_file.as_deref(), requests_max)
                    .map_err(|what| wrong("http_ca_file", what))?;
                let (accepted, others) = (Cache::new(bounds.kept_max), Cache::new(bounds.kept_max));
                let (accepted, others) = (Mutex::new(accepted), Mutex::new(others));
                Some(Service { config: http.clone(), caller, accepted, others })
            }
        };
        let others = |back_end: &BackEnd| matches!(back_end, BackEnd::Jwt | BackEnd::Http);
        let only_users_of_files = !config.chain.iter().any(others);
        let only_users = match &config.password_file {
            Some(_) if only_users_of_files => {
                let names = users.iter().flat_map(Users::names).chain(scram_users.iter().map(|name| &**name));
                Some(names.map(Box::from).collect())
            }
            _ => None,
        };
        // Last, since it is changed where it is.
        let dynamic = match (&config.dynamic_security_file, old.and_then(|old| old.dynamic.as_ref())) {
            (None, _) => None,
            (Some(_), Some(old)) => Some(old.reload().map(|()| Arc::clone(old))),
            (Some(path), None) => Some(Dynamic::open(path, bounds)),
        };
        let dynamic = dynamic.transpose().map_err(|what| wrong("dynamic_security_file", what))?;
        Ok(Self {
            dynamic,
            only_users_of_files,
            chain: Chain::new(config.chain.iter().copied()),
            users,
            tokens,
            service,
            rules,
            verified: Mutex::new(Cache::new(bounds.kept_max)),
            only_users,
        })
    }

    /// What a client may do; None if there is no such user any more.
    pub fn rights(&self, subject: &Subject<'_>) -> Option<Rights> {
        if let (Some(users), Some(user_name), false) = (&self.only_users, subject.user_name, subject.certificate)
            && !users.contains(user_name)
        {
            return None;
        }
        Some(self.rules.rights(subject))
    }

    /// Whether everybody may do everything, whoever they are.
    pub fn is_unrestricted(&self) -> bool {
        let Self { dynamic, tokens, service, rules, only_users, .. } = self;
        let nobody_is_asked = dynamic.is_none() && tokens.is_none() && service.is_none() && only_users.is_none();
        nobody_is_asked && rules.is_everything()
    }

    /// How many users its password file has, for the log.
    pub fn user_count(&self) -> Option<usize> {
        let of_dynamic = self.dynamic.as_ref().map(|dynamic| dynamic.snapshot().client_count());
        self.users.as_ref().map(Users::len).or(of_dynamic)
    }
}

impl Keys {
    fn new(jwt: &Jwt, ca_file: Option<&Path>, old: Option<&Tokens>) -> Result<Self, (&'static str, String)> {
        let one = |key: &'static str, path: &Path, read: &dyn Fn(&str) -> Result<Key, jwt::KeyError>| {
            let wrong = |error: &dyn fmt::Display| (key, format!("{}: {error}", path.display()));
            let text = read_text(path, SECRET_BYTES_MAX).map_err(|what| (key, what))?;
            let mut keys = KeySet::default();
            keys.add(None, read(&text).map_err(|error| wrong(&error))?);
            Ok(Self::Fixed(keys))
        };
        match &jwt.keys {
            JwtKeys::PublicKeyFile(path) => one("jwt_public_key_file", path, &Key::from_pem),
            JwtKeys::SecretFile(path) => {
                one("jwt_secret_file", path, &|text| Key::secret(text.strip_suffix('\n').unwrap_or(text).as_bytes()))
            }
            JwtKeys::SetFile(path) => {
                let wrong = |what| ("jwt_jwks_file", what);
                let text = read_text(path, SECRET_BYTES_MAX).map_err(wrong)?;
                let keys = KeySet::from_json(text.as_bytes());
                keys.map(Self::Fixed).map_err(|error| wrong(format!("{}: {error}", path.display())))
            }
            JwtKeys::Url(url) => {
                let config = (url.clone(), jwt.refresh_after);
                if let Some(Tokens { keys: Self::Fetched(old), .. }) = old
                    && old.config == config
                {
                    return Ok(Self::Fetched(Arc::clone(old)));
                }
                let caller = Caller::new(url, super::KEY_SET_TIMEOUT, None, ca_file, 1);
                let caller = caller.map_err(|what| ("http_ca_file", what))?;
                let cache = Mutex::new(KeyCache::new(jwt.refresh_after));
                Ok(Self::Fetched(Arc::new(FetchedKeys { config, caller, cache, fetching: Mutex::new(()) })))
            }
        }
    }
}

/// Nothing is left half done under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where in a TOML text something is wrong, and what, in one line.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', " "))
}

/// The text of a file; an error names it. A mark of UTF-8 at its front is no part of the text.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let wrong = |what: &dyn fmt::Display| format!("{}: {what}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| wrong(&error))?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(&format_args!("it is longer than {bytes_max} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(&format_args!("line {line}: it is not UTF-8"))
    })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}
