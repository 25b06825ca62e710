//! Password files in Mosquitto's format.
//!
//! A file has one line for each user, `name:hash`. [`File`] keeps such a file with its comments and its order; [`Hash`](struct@Hash) is
//! one hash, which [verifies](Hash::verify) a password. Three kinds of hash are read, two are written:
//!
//! | written as | is | written by |
//! |---|---|---|
//! | `$argon2id$v=19$m=47104,t=1,p=1$SALT$HASH` | Argon2id, a PHC string | Mosquitto 2.1, and us unless told otherwise |
//! | `$7$ITERATIONS$SALT$HASH` | PBKDF2 with HMAC-SHA-512 | Mosquitto 1.6 to 2.0 |
//! | `$6$SALT$HASH` | one SHA-512 of password and salt | Mosquitto up to 1.5; read only, since it can be guessed too fast |
//!
//! The crate opens no file, draws no random number and prompts for nothing: bytes and salts are given to it. A
//! verification takes what the hash asks for, up to [`ITERATIONS_MAX`] and [`MEMORY_KIB_MAX`]; 46 MiB and some tens of
//! milliseconds is usual for Argon2id. Whoever verifies for strangers has to bound how many run at once.
//!
//! ```
//! use pantala_password::{Algorithm, File, Hash};
//!
//! let mut file = File::parse("# Sensors\n")?;
//! file.set("kitchen", Hash::new(Algorithm::Pbkdf2Sha512 { iterations: 1_000 }, b"secret", b"twelve bytes")?)?;
//! assert!(file.hash("kitchen").is_some_and(|hash| hash.verify(b"secret")));
//! assert!(file.to_string().starts_with("# Sensors\nkitchen:$7$1000$"));
//! # Ok::<(), pantala_password::Error>(())
//! ```

mod file;
mod hash;

pub use file::File;
pub use hash::{Algorithm, Hash};

/// The most iterations of a hash: what one verification may cost.
pub const ITERATIONS_MAX: u32 = 10_000_000;

/// The most memory of an Argon2id hash, in KiB: 1 GiB.
pub const MEMORY_KIB_MAX: u32 = 1 << 20;

/// The most bytes of a line.
pub const LINE_BYTES_MAX: usize = 8_192;

/// What is wrong with a file, a name or a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A line cannot be read.
    #[error("line {line}: {why}")]
    Line {
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A user name that no line could hold.
    #[error(
        "a user name has no ':', no control character, no blanks around it and at least one character, and does not begin with '#'"
    )]
    UserName,
    /// A hash that is not one of the kinds we know.
    #[error("{0}")]
    Hash(&'static str),
}
