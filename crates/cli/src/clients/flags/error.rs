//! What is wrong with what was written. Each is one line that names the flag and says what would help.

use super::Program;
use crate::clients::output::FormatError;

/// What is wrong with the flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No flag of this name.
    #[error("unknown flag {flag}{}", hint(.near))]
    Unknown {
        /// As it was written.
        flag: String,
        /// A flag with almost this name.
        near: Option<String>,
    },
    /// A flag of another program.
    #[error("{flag} is a flag of `pantala {}`, not of `pantala {}`", .of.name(), .not_of.name())]
    OtherProgram {
        /// As it was written.
        flag: String,
        /// Whose it is.
        of: Program,
        /// Whose it is not.
        not_of: Program,
    },
    /// The next argument is missing.
    #[error("{flag} needs {value} behind it")]
    ValueMissing {
        /// As it was written.
        flag: String,
        /// What is missing.
        value: &'static str,
    },
    /// A flag without a value was given one by `=`.
    #[error("{flag} takes no value")]
    ValueTooMuch {
        /// As it was written.
        flag: String,
    },
    /// A number out of its bounds, or none.
    #[error("{flag} {given}: expected a number, {minimum} to {maximum}")]
    Number {
        /// As it was written.
        flag: String,
        /// Its value.
        given: String,
        /// The least.
        minimum: u64,
        /// The most.
        maximum: u64,
    },
    /// A value that the flag does not know.
    #[error("{flag} {given}: {expected}")]
    Value {
        /// As it was written.
        flag: String,
        /// Its value.
        given: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A wrong format.
    #[error("-F: {0}")]
    Format(#[from] FormatError),
    /// A wrong property.
    #[error("-D {command} {name}: {why}")]
    Property {
        /// The Control Packet.
        command: String,
        /// The property.
        name: String,
        /// What is wrong, or what would be right.
        why: &'static str,
    },
    /// Two flags that contradict each other.
    #[error("{one} and {other} cannot be used together: {why}")]
    Conflict {
        /// One flag.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A flag that another one needs, or all programs of the kind.
    #[error("{flag} is missing: {why}")]
    Missing {
        /// The flag to add.
        flag: &'static str,
        /// What for.
        why: &'static str,
    },
    /// A flag of Mosquitto's that we cannot honour.
    #[error("{flag} is not supported: {why}")]
    Unsupported {
        /// As it was written.
        flag: String,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// A file or a variable cannot be read.
    #[error("{flag} {source_name}: {why}")]
    Unreadable {
        /// The flag that names it.
        flag: &'static str,
        /// File or variable.
        source_name: String,
        /// What the system says.
        why: String,
    },
    /// A line of an options file is wrong.
    #[error("{file}, line {line}: {error}")]
    InFile {
        /// The file.
        file: String,
        /// Counted from one.
        line: usize,
        /// What is wrong.
        error: Box<FlagError>,
    },
}

fn hint(near: &Option<String>) -> String {
    match near {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    }
}
