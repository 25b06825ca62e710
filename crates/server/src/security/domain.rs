//! A security domain as it is in force: files read, clients of services made.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pantala_access::{Rights, Rules, RulesDraft, Subject};
use pantala_identity::cache::{Cache, Hasher};
use pantala_identity::chain::{BackEnd, Chain};
use pantala_identity::jwt;
use pantala_identity::password::Users;
use pantala_identity::{Identity, Outcome};
use pantala_session::Instant;

use super::Others;
use super::dynamic::{Dynamic, Dynamics};
use super::http::{Caller, Roots};
use super::keys::Keys;
use crate::config::{Config, Http, SecurityDomain, Verification, nearest};
use crate::file;
use crate::text::{self, Lenient, NotUtf8};

/// The largest file with users or rules.
const USERS_FILE_BYTES_MAX: u64 = 256 << 20;
/// Files with a key or a secret are small; a slip like `/dev/zero` ends with a message.
pub(super) const SECRET_BYTES_MAX: u64 = 1 << 20;

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

impl DomainError {
    /// With the line of a mosquitto.conf that names the file, where there is one.
    pub(crate) fn within(&self, config: &Config) -> String {
        let Some(origin) = config.file_places.get(&(self.domain.clone(), self.key)) else { return self.to_string() };
        let directive = if self.key == "dynamic_security_file" { "plugin_opt_config_file" } else { self.key };
        format!("{origin}: {directive}: {}", self.what)
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
    /// The only users there can be, if the password file and SCRAM are the only places to have them from.
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
    /// Reads the files. `old` is the same domain from before, if there is one: nothing of it changes, and what has been read of
    /// its dynamic security is with `dynamics`, to be put in force with it.
    pub fn new(
        config: &SecurityDomain,
        bounds: &Verification,
        hasher: &Hasher,
        past_the_chain: Others<'_>,
        old: Option<&Self>,
        dynamics: &mut Dynamics<'_>,
    ) -> Result<Self, DomainError> {
        let wrong = |key, what| DomainError { domain: config.name.clone(), key, what };
        let users = match &config.password_file {
            None => None,
            Some(path) => {
                let text = read(path, USERS_FILE_BYTES_MAX, Lenient::CommentLines);
                let text = text.map_err(|what| wrong("password_file", what))?;
                let file = pantala_password::File::parse(&text)
                    .map_err(|error| wrong("password_file", format!("{}: {error}", path.display())))?;
                Some(Users::new(file, hasher.clone()))
            }
        };
        let rules = match (&config.acl_file, &config.rules_file) {
            (None, None) => Rules::everything(),
            (None, Some(path)) => {
                let text = read_text(path, USERS_FILE_BYTES_MAX).map_err(|what| wrong("rules_file", what))?;
                let draft = toml::from_str::<RulesDraft>(&text);
                let draft = draft.map_err(|error| wrong("rules_file", in_toml(path, &text, &error)))?;
                draft.compile().map_err(|error| wrong("rules_file", format!("{}: {error}", path.display())))?
            }
            (Some(path), _) => {
                let text = read(path, USERS_FILE_BYTES_MAX, Lenient::CommentLines);
                let text = text.map_err(|what| wrong("acl_file", what))?;
                Rules::from_mosquitto_acl(&text)
                    .map_err(|error| wrong("acl_file", format!("{}: {error}", path.display())))?
            }
        };
        let tokens = match &config.jwt {
            None => None,
            Some(jwt) => {
                let old = old.and_then(|old| old.tokens.as_ref());
                let keys = Keys::new(jwt, old).map_err(|(key, what)| wrong(key, what))?;
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
                let roots = Roots::read(&http.url, http.ca_file.as_deref());
                let roots = roots.map_err(|what| wrong("http_ca_file", what))?;
                let caller = Caller::new(&http.url, http.timeout, authorization, &roots, requests_max);
                let caller = caller.map_err(|what| wrong("http_url", what))?;
                let (accepted, others) = (Cache::new(bounds.kept_max), Cache::new(bounds.kept_max));
                let (accepted, others) = (Mutex::new(accepted), Mutex::new(others));
                Some(Service { config: http.clone(), caller, accepted, others })
            }
        };
        let others = |back_end: &BackEnd| matches!(back_end, BackEnd::Jwt | BackEnd::Http);
        let only_users_of_files = !config.chain.iter().any(others);
        let Others { scram_users, believes_names } = past_the_chain;
        // Where the last of them has just been taken away, nobody is left who could be one.
        let knew_users = old.is_some_and(|old| old.only_users.is_some());
        let knows_users = config.password_file.is_some() || scram_users.is_some() || knew_users;
        let knows_all = only_users_of_files && config.dynamic_security_file.is_none() && !believes_names;
        let only_users = (knows_users && knows_all).then(|| {
            let names = users.iter().flat_map(Users::names).map(Box::from);
            names.chain(scram_users.into_iter().flatten().cloned()).collect()
        });
        let state = |path: &Path| {
            dynamics.of(path, bounds).map_err(|what| {
                let hint = match path.try_exists() {
                    Ok(false) => {
                        format!("; `pantala dynsec init {}` makes it, with a user who may change it", path.display())
                    }
                    _ => String::new(),
                };
                wrong("dynamic_security_file", what + &hint)
            })
        };
        let dynamic = config.dynamic_security_file.as_deref().map(state).transpose()?;
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
        if let (Some(users), Some(user_name), false) =
            (&self.only_users, subject.user_name, subject.named_by_certificate)
            && !users.contains(user_name)
        {
            return None;
        }
        Some(self.rules.rights(subject))
    }

    /// Those whose password is another one than in `old`.
    pub fn passwords_changed_since(&self, old: &Self) -> HashSet<Box<str>> {
        // What has been read again of the same dynamic security is looked at where that is put in force.
        if let (Some(new), Some(old)) = (&self.dynamic, &old.dynamic)
            && !Arc::ptr_eq(new, old)
        {
            return new.snapshot().passwords_changed_since(&old.snapshot());
        }
        let (Some(users), Some(old)) = (&self.users, &old.users) else { return HashSet::new() };
        users.changed_since(old).map(Box::from).collect()
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

/// Nothing is left half done under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong with a TOML file, in one line: its place, as in the configuration, and what was meant if that can be guessed.
fn in_toml(path: &Path, text: &str, error: &toml::de::Error) -> String {
    // A span may end within a character if the text breaks off there.
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before[line_start..].chars().count() + 1;
    let message = error.message().replace('\n', " ");
    let hint = meant(&message).map_or(String::new(), |name| format!("; did you mean \"{name}\"?"));
    format!("{}:{line}:{column}: {message}{hint}", path.display())
}

/// The name that looks most like an unknown one, by the parser's message: it has both in back quotes.
fn meant(message: &str) -> Option<&str> {
    let (unknown, expected) = message.strip_prefix("unknown ")?.split_once("`, expected ")?;
    let (_, given) = unknown.split_once('`')?;
    nearest(given, expected.split('`').skip(1).step_by(2))
}

/// The text of a file; an error names it. A mark of UTF-8 at its front is no part of the text.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    read(path, bytes_max, Lenient::No)
}

fn read(path: &Path, bytes_max: u64, lenient: Lenient) -> Result<String, String> {
    let wrong = |what: &dyn fmt::Display| format!("{}: {what}", path.display());
    let bytes = file::read(path, bytes_max).map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(&format_args!("it is longer than {bytes_max} bytes")));
    }
    let not_utf8 = |at: NotUtf8| wrong(&format_args!("line {}: it is not UTF-8", at.line));
    let text = text::of(bytes, lenient).map_err(not_utf8)?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page had the limit of a configuration for them.
    #[test]
    fn the_page_of_limits_has_those_of_files() {
        let page = include_str!("../../../../docs/limits.md").replace('\n', " ");
        let said = [
            format!("{} MiB of a file with users or rules", USERS_FILE_BYTES_MAX >> 20),
            format!("{} 048 576 bytes of a configuration, and of a file with one secret", SECRET_BYTES_MAX >> 20),
        ];
        for said in said {
            assert!(page.contains(&said), "{said}");
        }
    }

    #[test]
    fn comments_of_users_and_rules_may_be_in_any_encoding() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acl");
        std::fs::write(&path, b"\xef\xbb\xbf  # caf\xe9\ntopic a\n").expect("a file");
        let read = |lenient| read(&path, USERS_FILE_BYTES_MAX, lenient);
        assert_eq!(read(Lenient::CommentLines).as_deref(), Ok("  # caf\u{fffd}\ntopic a\n"));
        assert_eq!(read(Lenient::No), Err(format!("{}: line 1: it is not UTF-8", path.display())));
        // A `#` in a filter begins no comment.
        std::fs::write(&path, b"topic a\ntopic # caf\xe9\n").expect("a file");
        assert_eq!(read(Lenient::CommentLines), Err(format!("{}: line 2: it is not UTF-8", path.display())));
    }

    #[test]
    fn what_is_wrong_with_rules_is_said_with_its_place_and_a_hint() {
        for (text, expected) in [
            ("[[role]]\nname = \"a\"\n publsih = []\n", "/r:3:2: unknown field `publsih`, ; did you mean \"publish\"?"),
            ("default_acess = \"deny\"", "/r:1:1: unknown field `default_acess`, ; did you mean \"default_access\"?"),
            ("default_access = \"alow\"", "/r:1:18: unknown variant `alow`, ; did you mean \"allow\"?"),
            ("\"öä\" = 1 \n[[rule]]\nüsers = [", "/r:3:10: "),
            ("[[rule]]\nusers = [\"ö\", 7]", "/r:2:"),
            ("[[rule]]\n\"a`, expected `b\" = 1", "/r:2:1: unknown field `a`, "),
            ("\"öäü", "/r:1:"),
        ] {
            let error = toml::from_str::<RulesDraft>(text).expect_err(text);
            let said = in_toml(Path::new("/r"), text, &error);
            // The parser's list of what it knows is its own affair.
            let without_list = said.split_once("expected ").map_or(said.clone(), |(front, list)| {
                format!("{front}{}", list.find("; did").map_or("", |at| &list[at..]))
            });
            assert!(without_list.starts_with(expected), "{text}: {said}");
            assert!(!said.contains('\n'), "{said}");
        }
        assert_eq!(meant("unknown field `x`, there are no fields"), None);
    }
}
