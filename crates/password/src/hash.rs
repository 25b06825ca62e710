//! One hash: how it is written, made and compared.

use std::fmt;

use argon2::Argon2;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha512};

use crate::{Error, ITERATIONS_MAX, MEMORY_KIB_MAX};

/// Memory of the Argon2id hashes we write, in KiB. Mosquitto's choice, so that files look alike.
const ARGON2_MEMORY_KIB: u32 = 47_104;
const ARGON2_HASH_BYTES: usize = 32;
/// What a PHC string may have as its hash.
const ARGON2_HASH_BYTES_MAX: usize = 64;
const ARGON2_LANES_MAX: u32 = 64;
const SHA512_BYTES: usize = 64;
const SALT_BYTES_MAX: usize = 64;

/// How a new hash is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Argon2id with 46 MiB and one lane.
    Argon2id {
        /// Passes over the memory, 1 to [`ITERATIONS_MAX`]; Mosquitto makes one.
        iterations: u32,
    },
    /// PBKDF2 with HMAC-SHA-512. The salt must have 12 bytes if Mosquitto 2.0 is to read it.
    Pbkdf2Sha512 {
        /// 1 to [`ITERATIONS_MAX`]; Mosquitto makes 1000.
        iterations: u32,
    },
}

/// The hash of a password, with all that is needed to compare a password with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Argon2id { memory_kib: u32, iterations: u32, lanes: u32, salt: Vec<u8>, hash: Vec<u8> },
    Pbkdf2Sha512 { iterations: u32, salt: Vec<u8>, hash: [u8; SHA512_BYTES] },
    Sha512 { salt: Vec<u8>, hash: [u8; SHA512_BYTES] },
}

impl Hash {
    /// Hashes a password. The salt is 8 to 64 random bytes.
    pub fn new(algorithm: Algorithm, password: &[u8], salt: &[u8]) -> Result<Self, Error> {
        if !(8..=SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(Error::Hash("a salt has 8 to 64 bytes"));
        }
        let salt = salt.to_vec();
        let kind = match algorithm {
            Algorithm::Argon2id { iterations } => {
                let iterations = checked_iterations(iterations)?;
                let mut hash = vec![0; ARGON2_HASH_BYTES];
                argon2id(ARGON2_MEMORY_KIB, iterations, 1, &salt, password, &mut hash)?;
                Kind::Argon2id { memory_kib: ARGON2_MEMORY_KIB, iterations, lanes: 1, salt, hash }
            }
            Algorithm::Pbkdf2Sha512 { iterations } => {
                let iterations = checked_iterations(iterations)?;
                let hash = pbkdf2_sha512(iterations, &salt, password);
                Kind::Pbkdf2Sha512 { iterations, salt, hash }
            }
        };
        Ok(Self(kind))
    }

    /// Reads what stands behind the colon of a line.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut fields = text.split('$');
        // Written out, so that each kind says what it expects.
        let kind = match (fields.next(), fields.next()) {
            (Some(""), Some("argon2id")) => parse_argon2id(fields)?,
            (Some(""), Some("7")) => {
                let (iterations, salt, hash) = three(fields)?;
                Kind::Pbkdf2Sha512 {
                    iterations: checked_iterations(number(iterations)?)?,
                    salt: decoded_salt(&STANDARD, salt)?,
                    hash: decoded_sha512(hash)?,
                }
            }
            (Some(""), Some("6")) => match (fields.next(), fields.next(), fields.next()) {
                (Some(salt), Some(hash), None) => {
                    Kind::Sha512 { salt: decoded_salt(&STANDARD, salt)?, hash: decoded_sha512(hash)? }
                }
                _ => return Err(Error::Hash("a hash of kind $6$ is $6$SALT$HASH")),
            },
            _ => return Err(Error::Hash("not a hash of a kind we know: $argon2id$, $7$ or $6$")),
        };
        Ok(Self(kind))
    }

    /// Whether this is the password. Takes the same time whichever byte is the first to differ.
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Argon2id { memory_kib, iterations, lanes, salt, hash } => {
                let mut computed = vec![0; hash.len()];
                argon2id(*memory_kib, *iterations, *lanes, salt, password, &mut computed).is_ok()
                    && are_equal(&computed, hash)
            }
            Kind::Pbkdf2Sha512 { iterations, salt, hash } => {
                are_equal(&pbkdf2_sha512(*iterations, salt, password), hash)
            }
            Kind::Sha512 { salt, hash } => {
                are_equal(&Sha512::new().chain_update(password).chain_update(salt).finalize(), hash)
            }
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Argon2id { memory_kib, iterations, lanes, salt, hash } => {
                let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
                write!(f, "$argon2id$v=19$m={memory_kib},t={iterations},p={lanes}${salt}${hash}")
            }
            Kind::Pbkdf2Sha512 { iterations, salt, hash } => {
                write!(f, "$7${iterations}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
            }
            Kind::Sha512 { salt, hash } => write!(f, "$6${}${}", STANDARD.encode(salt), STANDARD.encode(hash)),
        }
    }
}

/// A hash in a log can be guessed at leisure, so only its kind is shown.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Argon2id { .. } => "Hash($argon2id$…)",
            Kind::Pbkdf2Sha512 { .. } => "Hash($7$…)",
            Kind::Sha512 { .. } => "Hash($6$…)",
        })
    }
}

fn parse_argon2id<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<Kind, Error> {
    const WRONG: Error = Error::Hash("a hash of kind $argon2id$ is $argon2id$v=19$m=KIB,t=N,p=N$SALT$HASH");
    if fields.next() != Some("v=19") {
        return Err(WRONG);
    }
    let (parameters, salt, hash) = three(fields).map_err(|_| WRONG)?;
    let (mut memory_kib, mut iterations, mut lanes) = (0, 0, 0);
    for parameter in parameters.split(',') {
        match parameter.split_once('=') {
            Some(("m", value)) => memory_kib = number(value)?,
            Some(("t", value)) => iterations = number(value)?,
            Some(("p", value)) => lanes = number(value)?,
            _ => return Err(WRONG),
        }
    }
    if !(1..=ARGON2_LANES_MAX).contains(&lanes) || memory_kib < 8 * lanes || memory_kib > MEMORY_KIB_MAX {
        return Err(Error::Hash("the hash asks for more memory or lanes than we give, or too little"));
    }
    let salt = decoded_salt(&STANDARD_NO_PAD, salt)?;
    let hash = STANDARD_NO_PAD.decode(hash).map_err(|_| Error::Hash("the hash is not Base64"))?;
    if !(4..=ARGON2_HASH_BYTES_MAX).contains(&hash.len()) {
        return Err(Error::Hash("the hash has a wrong length"));
    }
    Ok(Kind::Argon2id { memory_kib, iterations: checked_iterations(iterations)?, lanes, salt, hash })
}

fn three<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<(&'a str, &'a str, &'a str), Error> {
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(first), Some(second), Some(third), None) => Ok((first, second, third)),
        _ => Err(Error::Hash("a hash of kind $7$ is $7$ITERATIONS$SALT$HASH")),
    }
}

fn number(text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::Hash("a number of the hash is none, or too large"))
}

fn checked_iterations(iterations: u32) -> Result<u32, Error> {
    if (1..=ITERATIONS_MAX).contains(&iterations) {
        Ok(iterations)
    } else {
        Err(Error::Hash("iterations are 1 to 10000000"))
    }
}

fn decoded_salt(engine: &impl base64::Engine, text: &str) -> Result<Vec<u8>, Error> {
    match engine.decode(text) {
        Ok(salt) if (1..=SALT_BYTES_MAX).contains(&salt.len()) => Ok(salt),
        Ok(_) => Err(Error::Hash("the salt has a wrong length")),
        Err(_) => Err(Error::Hash("the salt is not Base64")),
    }
}

fn decoded_sha512(text: &str) -> Result<[u8; SHA512_BYTES], Error> {
    let bytes = STANDARD.decode(text).map_err(|_| Error::Hash("the hash is not Base64"))?;
    bytes.try_into().map_err(|_| Error::Hash("the hash has not 64 bytes"))
}

fn argon2id(
    memory_kib: u32,
    iterations: u32,
    lanes: u32,
    salt: &[u8],
    password: &[u8],
    hash: &mut [u8],
) -> Result<(), Error> {
    const REFUSED: Error = Error::Hash("Argon2 refuses the hash's parameters");
    let parameters = argon2::Params::new(memory_kib, iterations, lanes, Some(hash.len())).map_err(|_| REFUSED)?;
    Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters)
        .hash_password_into(password, salt, hash)
        .map_err(|_| REFUSED)
}

fn pbkdf2_sha512(iterations: u32, salt: &[u8], password: &[u8]) -> [u8; SHA512_BYTES] {
    let mut hash = [0; SHA512_BYTES];
    pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut hash);
    hash
}

/// Compares all bytes, whatever they are.
fn are_equal(left: &[u8], right: &[u8]) -> bool {
    let different = left.iter().zip(right).fold(0, |different, (left, right)| different | (left ^ right));
    left.len() == right.len() && std::hint::black_box(different) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by Mosquitto 2.0.11's mosquitto_passwd, for the password "secret".
    const PBKDF2: &str = "$7$101$DDDyLXDhMzKKAbhN$i5Fepe195ino+vvxW8HrVag80sTkHaQFR0+iRreBMgSFHrFW7t7rwdh4hmIK/PwMYwtX0GX6dEGXnWJDG6L7RQ==";
    const SHA512: &str =
        "$6$xFq8KUkSKoVVaphK$a5Jm+ZToYNqw5ibtEEPabBfoPJtgXJyIIppQ//1TyDubVzHplK9d+41DKABCWWaJQFtsbdE79JEt7ZQATailww==";
    // Made with the reference program: echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 (RFC 9106's own code).
    const ARGON2ID: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn hashes_of_others_are_verified_and_written_as_they_were() {
        for (text, password) in [(PBKDF2, "secret"), (SHA512, "secret"), (ARGON2ID, "password")] {
            let hash = Hash::parse(text).expect("it is a hash");
            assert!(hash.verify(password.as_bytes()), "{text}");
            assert!(!hash.verify(b"Secret") && !hash.verify(b""), "{text}");
            assert_eq!(hash.to_string(), text);
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for algorithm in [Algorithm::Argon2id { iterations: 1 }, Algorithm::Pbkdf2Sha512 { iterations: 1_000 }] {
            let hash = Hash::new(algorithm, b"pass \xffword", b"0123456789ab").expect("it can be hashed");
            let read = Hash::parse(&hash.to_string()).expect("it can be read");
            assert!(read == hash && read.verify(b"pass \xffword") && !read.verify(b"pass word"));
        }
        let text = Hash::new(Algorithm::Argon2id { iterations: 1 }, b"", b"0123456789ab").expect("empty is fine");
        assert!(text.to_string().starts_with("$argon2id$v=19$m=47104,t=1,p=1$"), "{text}");
    }

    #[test]
    fn what_is_no_hash_is_refused_and_never_shown() {
        let wrong = [
            "",
            "secret",
            "$",
            "$5$a$b",
            "$7$101$DDDyLXDhMzKKAbhN",
            "$7$0$DDDyLXDhMzKKAbhN$AA==",
            "$7$10000001$DDDyLXDhMzKKAbhN$AA==",
            "$7$1$!$AA==",
            "$7$1$AAAA$AA==",
            "$6$AAAA$AA==$x",
            "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXP",
            "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXP",
            "$argon2id$v=19$m=8,t=1,p=2$c29tZXNhbHQ$CTFhFdXP",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ",
        ];
        for text in wrong {
            let error = Hash::parse(text).expect_err(text);
            assert!(text.is_empty() || !error.to_string().contains("c29t"), "{error}");
        }
        assert_eq!(format!("{:?}", Hash::parse(PBKDF2).expect("it is one")), "Hash($7$…)");
    }
}
