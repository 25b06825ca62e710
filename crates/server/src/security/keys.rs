//! The keys that tokens are verified with, and how those of a URL are fetched while the broker runs.
//!
//! One thread at a time asks for a key set, and none waits for it: a token that newer keys might help is put aside until they
//! have come, and any other is judged by the keys that are there. And if too many are put aside? As in the queues of the
//! threads, an address may have as many there as there is room left besides; those beyond are judged by the old keys too.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pantala_identity::brake::place;
use pantala_identity::jwt::{self, Key, KeyCache, KeySet};
use pantala_session::Instant;

use super::domain::{SECRET_BYTES_MAX, Tokens, lock, read_text};
use super::http::{Caller, Roots};
use super::{Call, Counters, Job, Security};
use crate::config::{Jwt, JwtKeys, LogType};
use crate::log::shown;

/// How long a key set may take.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) enum Keys {
    Fixed(KeySet),
    /// Kept over a reload: keys that are there are worth keeping.
    Fetched(Arc<FetchedKeys>),
}

/// Keys of a URL.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    source: Source,
    caller: Caller,
    cache: Mutex<KeyCache>,
    aside: Mutex<Aside>,
}

/// From where, how often, and whose word is taken for it.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    url: String,
    refresh_after: Duration,
    roots: Roots,
}

/// Who waits for newer keys.
#[derive(Default)]
struct Aside {
    fetching: bool,
    jobs: Vec<Job>,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("fetching", &self.fetching).field("jobs", &self.jobs.len()).finish()
    }
}

/// What has come of asking for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    NotAsked,
    /// There are none.
    None,
    /// They came after the token.
    Newer,
}

/// What becomes of a job that asks for newer keys.
pub(super) enum Asked {
    /// It is put aside, and goes on when they have come, or have not.
    Waits,
    /// Some have just come.
    Newer(Job),
    /// There will be none soon.
    Nothing(Job),
}

impl Keys {
    pub fn new(jwt: &Jwt, old: Option<&Tokens>) -> Result<Self, (&'static str, String)> {
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
            JwtKeys::Url { url, ca_file } => {
                let roots = Roots::read(url, ca_file.as_deref()).map_err(|what| ("http_ca_file", what))?;
                let source = Source { url: url.clone(), refresh_after: jwt.refresh_after, roots };
                if let Some(Tokens { keys: Self::Fetched(old), .. }) = old
                    && old.source == source
                {
                    return Ok(Self::Fetched(Arc::clone(old)));
                }
                let caller = Caller::new(url, TIMEOUT, None, &source.roots, 1);
                let caller = caller.map_err(|what| ("jwt_jwks_url", what))?;
                let cache = Mutex::new(KeyCache::new(jwt.refresh_after));
                Ok(Self::Fetched(Arc::new(FetchedKeys { source, caller, cache, aside: Mutex::default() })))
            }
        }
    }
}

impl FetchedKeys {
    /// The keys that hold now, whether they are old enough to be fetched again, and when they came.
    pub fn keys(&self, now: Instant) -> (Arc<KeySet>, bool, Option<Instant>) {
        let cache = lock(&self.cache);
        (cache.keys(now), cache.is_due(now), cache.fetched())
    }

    /// Whether newer ones could not be had when that was tried last.
    pub fn may_be_outdated(&self) -> bool {
        lock(&self.cache).may_be_outdated()
    }

    /// Has the keys fetched again, unless somebody does so already or has just tried to.
    pub fn refresh(self: &Arc<Self>, security: &Arc<Security>, now: Instant) {
        let mut aside = lock(&self.aside);
        if aside.fetching || !lock(&self.cache).try_now(now) {
            return;
        }
        aside.fetching = true;
        drop(aside);
        self.fetch(security);
    }

    /// Puts a job aside until newer keys than those of `seen` have come, and has them fetched if nobody does.
    pub fn wait(self: &Arc<Self>, job: Job, now: Instant, seen: Option<Instant>) -> Asked {
        let security = Arc::clone(&job.security);
        let mut aside = lock(&self.aside);
        let of = |job: &Job| place(job.credentials.address);
        let own = aside.jobs.iter().filter(|other| of(other) == of(&job)).count();
        let is_full = own >= security.bounds.waiting_max.saturating_sub(aside.jobs.len());
        let begins = !aside.fetching;
        {
            let mut cache = lock(&self.cache);
            if cache.fetched() != seen {
                return Asked::Newer(job);
            }
            if is_full || begins && !cache.try_now(now) {
                return Asked::Nothing(job);
            }
        }
        aside.jobs.push(job);
        aside.fetching = true;
        drop(aside);
        if begins {
            self.fetch(&security);
        }
        Asked::Waits
    }

    fn fetch(self: &Arc<Self>, security: &Arc<Security>) {
        let fetch = Fetch { security: Arc::clone(security), keys: Arc::clone(self), news: News::None };
        // If too much waits, its end tells those who are aside.
        drop(security.calling.submit(None, Call::Keys(fetch)));
    }
}

/// The work of fetching keys. Whatever becomes of it, at its end those who were put aside go on.
pub(super) struct Fetch {
    security: Arc<Security>,
    keys: Arc<FetchedKeys>,
    news: News,
}

impl Fetch {
    pub fn make(mut self) {
        let Self { security, keys, .. } = &self;
        let fetched = keys.caller.get();
        let fetched = fetched.and_then(|text| KeySet::from_json(&text).map_err(|error| error.to_string()));
        match fetched {
            Ok(set) => {
                Counters::count(&security.counters.key_sets_fetched);
                lock(&keys.cache).renew(security.now(), set);
                self.news = News::Newer;
            }
            Err(error) => {
                Counters::count(&security.counters.http_failures);
                security.log.limited(LogType::Error, "key sets", || {
                    format!("Cannot fetch the key set that tokens are verified with: {}", shown(&error))
                });
            }
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let jobs = {
            let mut aside = lock(&self.keys.aside);
            aside.fetching = false;
            std::mem::take(&mut aside.jobs)
        };
        for mut job in jobs {
            job.news = self.news;
            job.send_to_hashers();
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    /// A CA file was read at the start alone: another one, or another content, had to wait for a restart.
    #[test]
    fn keys_are_kept_over_a_reload_unless_something_about_them_is_other() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = || generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let (one, two) = (folder.path().join("one.pem"), folder.path().join("two.pem"));
        std::fs::write(&one, certificate()).unwrap();
        std::fs::write(&two, certificate()).unwrap();
        let jwt = |url: &str, seconds, ca_file: &Path| Jwt {
            keys: JwtKeys::Url { url: url.to_owned(), ca_file: Some(ca_file.to_owned()) },
            refresh_after: Duration::from_secs(seconds),
            rules: jwt::Rules::default(),
        };
        const URL: &str = "https://localhost/keys";
        let make =
            |jwt: &Jwt, old: Option<&Tokens>| Tokens { rules: jwt.rules.clone(), keys: Keys::new(jwt, old).unwrap() };
        let fetched = |tokens: &Tokens| match &tokens.keys {
            Keys::Fetched(keys) => Arc::clone(keys),
            Keys::Fixed(_) => panic!("they are of a URL"),
        };
        let old = make(&jwt(URL, 60, &one), None);
        let is_kept = |jwt: &Jwt| Arc::ptr_eq(&fetched(&old), &fetched(&make(jwt, Some(&old))));
        assert!(is_kept(&jwt(URL, 60, &one)));
        assert!(!is_kept(&jwt("https://localhost/others", 60, &one)));
        assert!(!is_kept(&jwt(URL, 61, &one)));
        assert!(!is_kept(&jwt(URL, 60, &two)));
        std::fs::write(&one, certificate()).unwrap();
        assert!(!is_kept(&jwt(URL, 60, &one)));
        std::fs::write(&one, "").unwrap();
        let (key, what) = Keys::new(&jwt(URL, 60, &one), Some(&old)).unwrap_err();
        assert!(key == "http_ca_file" && what.contains("no certificates"), "{key}: {what}");
    }
}
