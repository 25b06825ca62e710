//! A password file as a back end.

use pantala_password::File;

use crate::cache::Hasher;
use crate::{Credentials, Identity, Outcome, Refusal};

/// The users of a password file.
#[derive(Debug)]
pub struct Users {
    file: File,
    names: Vec<Box<str>>,
    hasher: Hasher,
}

impl Users {
    /// Those of this file. `hasher` has the secret by which an unknown user is given a hash to be compared with.
    pub fn new(file: File, hasher: Hasher) -> Self {
        let names = file.users().map(Box::from).collect();
        Self { file, names, hasher }
    }

    /// Their names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Those of them whose password may be another one than it was in `old`: another hash, or none.
    pub fn changed_since<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = &'a str> {
        let changed = |name: &&str| old.file.hash(name).is_some_and(|hash| Some(hash) != self.file.hash(name));
        self.names().filter(changed)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Verifies a password, which takes as long as the user's hash asks for.
    ///
    /// A user of the file is accepted with the right password and refused otherwise; one without a password is refused.
    /// Others are not ours. An unknown user costs one of the hashes of the file, always the same for the same name: so the
    /// time of an answer does not tell who is known, even where users have hashes of several kinds.
    pub fn verify(&self, credentials: &Credentials) -> Outcome {
        let Some(user_name) = credentials.user_name.as_deref() else { return Outcome::NotMine };
        let known = self.file.hash(user_name);
        let hash = known.or_else(|| {
            let place = self.hasher.number(user_name) % (self.names.len().max(1) as u64);
            self.file.hash(self.names.get(place as usize)?)
        });
        // Without a password there is nothing to compare, but the time is spent all the same.
        let password = credentials.password.as_deref();
        let fits = hash.is_some_and(|hash| std::hint::black_box(hash.verify(password.unwrap_or_default())));
        match known {
            Some(_) if fits && password.is_some() => Outcome::Accept(Identity::named(user_name)),
            Some(_) => Outcome::Refuse(Refusal::Password),
            None => Outcome::NotMine,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use pantala_password::{Algorithm, Hash};

    use super::*;

    fn users(hashed: &[(&str, &[u8], u32)]) -> Users {
        let mut file = File::default();
        for (name, password, iterations) in hashed {
            let hash = Hash::new(Algorithm::Pbkdf2Sha512 { iterations: *iterations }, password, b"0123456789ab");
            file.set(name, hash.expect("it can be hashed")).expect("the name is fine");
        }
        Users::new(file, Hasher::new(&[1; 32]))
    }

    fn login(user_name: Option<&str>, password: Option<&[u8]>) -> Credentials {
        Credentials { user_name: user_name.map(Box::from), password: password.map(Box::from), ..Credentials::default() }
    }

    #[test]
    fn users_are_accepted_refused_or_unknown() {
        let users = users(&[("ann", b"secret", 1), ("bob", b"", 1), ("nul", b"a\0b", 1)]);
        let accepted = |name: &str| Outcome::Accept(Identity::named(name));
        let refused = Outcome::Refuse(Refusal::Password);
        for (credentials, expected) in [
            (login(Some("ann"), Some(b"secret")), accepted("ann")),
            (login(Some("ann"), Some(b"Secret")), refused.clone()),
            // Not "secret\0": HMAC fills a short key with zeros, so that is the same password by PBKDF2's definition.
            (login(Some("ann"), Some(b"secret\0x")), refused.clone()),
            (login(Some("ann"), None), refused.clone()),
            (login(Some("ann"), Some(b"")), refused.clone()),
            // An empty password is one; none is none.
            (login(Some("bob"), Some(b"")), accepted("bob")),
            (login(Some("bob"), None), refused.clone()),
            (login(Some("nul"), Some(b"a\0b")), accepted("nul")),
            (login(Some("nul"), Some(b"a")), refused),
            (login(Some("eve"), Some(b"secret")), Outcome::NotMine),
            (login(Some(""), Some(b"secret")), Outcome::NotMine),
            (login(None, Some(b"secret")), Outcome::NotMine),
        ] {
            assert_eq!(users.verify(&credentials), expected, "{credentials:?}");
        }
    }

    #[test]
    fn a_file_without_users_knows_nobody() {
        assert_eq!(users(&[]).verify(&login(Some("ann"), Some(b"x"))), Outcome::NotMine);
    }

    /// An attacker who measures answers must not learn who is known. What could tell is a hash that is left out, which
    /// would show as a hundredfold difference: so a coarse bound is enough, and noise cannot break it.
    #[test]
    fn an_unknown_user_costs_what_a_known_one_does() {
        let users = users(&[("ann", b"secret", 20_000)]);
        // The fastest of some, in turns: whatever disturbs only makes it slower.
        let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
        for _ in 0..25 {
            for (name, fastest) in [("ann", &mut known), ("eve", &mut unknown)] {
                let start = Instant::now();
                std::hint::black_box(users.verify(&login(Some(name), Some(b"wrong"))));
                *fastest = start.elapsed().min(*fastest);
            }
        }
        assert!(unknown > known / 2 && known > unknown / 2, "known {known:?}, unknown {unknown:?}");
    }
}
