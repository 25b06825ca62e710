//! Answers that are kept for a bounded time, under a keyed hash of what was asked.
//!
//! A hash of a password costs tens of milliseconds and an HTTP answer a round trip; ten thousand clients that come
//! back at once must not cost that ten thousand times. The key is a HMAC-SHA-256 with a secret of this process: nobody
//! can choose two credentials with one key, and a dump of the memory does not tell passwords that could be compared with
//! a list.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use pantala_session::Instant;

use crate::Credentials;

/// The keyed hash of some credentials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// The secret of this process that credentials are hashed with.
#[derive(Clone)]
pub struct Hasher(hmac::Key);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(…)")
    }
}

impl Hasher {
    /// With 32 random bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The hash of all that `credentials` hold. `purpose` keeps apart what has the same credentials but another meaning.
    pub fn credentials(&self, purpose: &[u8], credentials: &Credentials) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        // Each part with its length, so that no two lists of parts are the same bytes.
        let mut part = |bytes: Option<&[u8]>| {
            context.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            context.update(bytes.unwrap_or_default());
        };
        part(Some(purpose));
        part(Some(credentials.client_id.as_bytes()));
        part(credentials.user_name.as_deref().map(str::as_bytes));
        part(credentials.password.as_deref());
        part(credentials.certificate_name.as_deref().map(str::as_bytes));
        part(credentials.address.map(|address| address.to_string()).as_deref().map(str::as_bytes));
        part(Some(&credentials.listener.to_le_bytes()));
        digest(context)
    }

    /// The hash of a user name and a password.
    pub fn password(&self, user_name: &str, password: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"password");
        context.update(&(user_name.len() as u64).to_le_bytes());
        context.update(user_name.as_bytes());
        context.update(password);
        digest(context)
    }

    /// A number by which one of several things is chosen for a name, always the same one.
    pub fn number(&self, name: &str) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"number");
        context.update(name.as_bytes());
        let Digest(bytes) = digest(context);
        u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }
}

fn digest(context: hmac::Context) -> Digest {
    let tag = context.sign();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&tag.as_ref()[..32]);
    Digest(bytes)
}

/// Answers by digest; at most so many, each for at most so long.
///
/// And when there is no room? The oldest answer is forgotten, which costs its owner a question more.
#[derive(Debug)]
pub struct Cache<T> {
    answers: HashMap<Digest, Entry<T>>,
    /// In the order in which they were put in; those that were replaced stand in it twice, until they come to the front.
    order: VecDeque<(Digest, u64)>,
    serial: u64,
    entries_max: usize,
}

#[derive(Debug)]
struct Entry<T> {
    answer: T,
    until: Instant,
    serial: u64,
}

impl<T: Clone> Cache<T> {
    /// An empty one. With 0 nothing is ever kept.
    pub fn new(entries_max: usize) -> Self {
        Self { answers: HashMap::new(), order: VecDeque::new(), serial: 0, entries_max }
    }

    /// The answer, if it still holds.
    pub fn find(&self, now: Instant, digest: &Digest) -> Option<T> {
        let entry = self.answers.get(digest)?;
        (now < entry.until).then(|| entry.answer.clone())
    }

    /// Keeps an answer for so long.
    pub fn put(&mut self, now: Instant, digest: Digest, answer: T, keep: Duration) {
        if self.entries_max == 0 || keep.is_zero() {
            return;
        }
        self.serial += 1;
        let serial = self.serial;
        self.answers.insert(digest, Entry { answer, until: now.after(keep), serial });
        self.order.push_back((digest, serial));
        while self.answers.len() > self.entries_max || self.order.len() > self.entries_max.saturating_mul(2) {
            let Some((oldest, serial)) = self.order.pop_front() else { return };
            if self.answers.get(&oldest).is_some_and(|entry| entry.serial == serial) {
                self.answers.remove(&oldest);
            }
        }
    }

    /// Forgets everything: what answers rest on has changed.
    pub fn clear(&mut self) {
        self.answers.clear();
        self.order.clear();
    }

    /// How many there are, those included that hold no longer.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher() -> Hasher {
        Hasher::new(&[7; 32])
    }

    #[test]
    fn an_answer_holds_for_its_time_and_not_longer() {
        let mut cache = Cache::new(2);
        let ann = hasher().password("ann", b"secret");
        cache.put(Instant(100), ann, 1, Duration::from_millis(10));
        assert_eq!(cache.find(Instant(109), &ann), Some(1));
        assert_eq!(cache.find(Instant(110), &ann), None);
        cache.put(Instant(120), ann, 2, Duration::ZERO);
        assert_eq!(cache.find(Instant(120), &ann), None);
    }

    #[test]
    fn the_oldest_makes_room_and_memory_is_bounded() {
        let mut cache = Cache::new(3);
        let digest = |number: u32| hasher().password("u", &number.to_le_bytes());
        for number in 0..5 {
            cache.put(Instant(0), digest(number), number, Duration::from_secs(1));
        }
        let found: Vec<_> = (0..5).filter_map(|number| cache.find(Instant(0), &digest(number))).collect();
        assert_eq!(found, [2, 3, 4]);
        // Replaced again and again, one entry stays one.
        for _ in 0..100 {
            cache.put(Instant(0), digest(4), 4, Duration::from_secs(1));
        }
        assert!(cache.order.len() <= 6, "{}", cache.order.len());
        assert_eq!(cache.find(Instant(0), &digest(4)), Some(4));
        cache.clear();
        assert!(cache.is_empty());
        let mut none = Cache::new(0);
        none.put(Instant(0), digest(1), 1, Duration::from_secs(1));
        assert_eq!(none.len(), 0);
    }

    #[test]
    fn different_credentials_have_different_digests() {
        let all = Credentials {
            client_id: "c".into(),
            user_name: Some("u".into()),
            password: Some(b"p"[..].into()),
            certificate_name: Some("n".into()),
            address: Some([127, 0, 0, 1].into()),
            listener: 1,
        };
        let mut others = vec![all.clone(); 8];
        others[0].client_id = "cu".into();
        others[0].user_name = Some("".into());
        others[1].user_name = None;
        others[2].password = None;
        others[3].password = Some(b""[..].into());
        others[4].certificate_name = None;
        others[5].address = None;
        others[6].listener = 2;
        others[7].password = Some(b"p\0"[..].into());
        let hasher = hasher();
        let mut digests = vec![hasher.credentials(b"x", &all), hasher.credentials(b"y", &all)];
        digests.extend(others.iter().map(|other| hasher.credentials(b"x", other)));
        digests.push(Hasher::new(&[8; 32]).credentials(b"x", &all));
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
        assert_ne!(hasher.password("ab", b"c"), hasher.password("a", b"bc"));
        assert_eq!(format!("{:?}{hasher:?}", digests[0]), "Digest(…)Hasher(…)");
        assert!(!format!("{all:?}").contains("112"), "{all:?}");
    }
}
