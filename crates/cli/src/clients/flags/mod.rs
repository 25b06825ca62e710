//! The flags of `pub`, `sub` and `rr`: each is declared once, in [`TABLE`], with its names, help, default, bounds and parser.
//!
//! ```text
//!  options files ─┐
//!                 ├─► occurrences ──► Written ──► plan::… (checked, complete)
//!  command line ──┘    (parse.rs)     (written.rs)
//!        TABLE ──► --help (help.rs), man pages (man.rs), completions (completion.rs)
//! ```
//!
//! The syntax is Mosquitto's, which no library for arguments has: a value is always the next argument (`--flag=value` is taken
//! too), short flags are not joined, `-D` has three or four values, and `--` means nothing.

mod error;
mod file;
mod parse;
mod table;
mod written;

pub use error::FlagError;
pub use file::{Surroundings, default_files};
pub use parse::{Asked, parse};
pub use table::{Flag, Heading, TABLE, Value, flags_under};
pub use written::{PayloadWritten, PropertyWritten, SecretWritten, Stage, TlsWritten, WillWritten, Written};

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// mosquitto_pub.
    Publish,
    /// mosquitto_sub.
    Subscribe,
    /// mosquitto_rr: a request, and the response to it.
    Request,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Request];

    /// What the user calls it: `pub`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "pub",
            Self::Subscribe => "sub",
            Self::Request => "rr",
        }
    }

    /// Mosquitto's name for it.
    pub fn mosquitto_name(self) -> &'static str {
        match self {
            Self::Publish => "mosquitto_pub",
            Self::Subscribe => "mosquitto_sub",
            Self::Request => "mosquitto_rr",
        }
    }

    /// In one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Publish => "Publish messages and end",
            Self::Subscribe => "Subscribe to topics and print what comes",
            Self::Request => "Publish a request and print the response",
        }
    }

    /// How it is called, without the flags that one can leave out.
    pub fn usage(self) -> &'static str {
        match self {
            Self::Publish => "-t TOPIC {-m TEXT | -f FILE | -s | -l | -n} [FLAGS]",
            Self::Subscribe => "-t FILTER [FLAGS]",
            Self::Request => "-t TOPIC -e TOPIC {-m TEXT | -f FILE | -s | -n} [FLAGS]",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Programs(u8);

impl Programs {
    pub(crate) const P: Self = Self(1);
    pub(crate) const S: Self = Self(2);
    pub(crate) const PR: Self = Self(1 | 4);
    pub(crate) const SR: Self = Self(2 | 4);
    pub(crate) const R: Self = Self(4);
    pub(crate) const ALL: Self = Self(1 | 2 | 4);

    /// Whether it is one of them.
    pub fn has(self, program: Program) -> bool {
        self.0 & program.bit() != 0
    }

    /// Which they are.
    pub fn iter(self) -> impl Iterator<Item = Program> {
        Program::ALL.into_iter().filter(move |program| self.has(*program))
    }
}
