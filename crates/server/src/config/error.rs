//! Why a configuration cannot be used: where the fault stands, what it is, and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;

use pantala_store::Durability;

use super::shown;

/// A configuration that cannot be used. Nothing was opened or changed.
///
/// Shown as one line, `pantala.toml:3:5: unknown key "packet_bytes_mx" in [limits]; did you mean
/// "packet_bytes_max"?`, fit to be the last line a program prints before it exits.
#[derive(Debug)]
pub struct ConfigError {
    origin: Origin,
    // Boxed: the good case should not carry the size of the bad one.
    fault: Box<Fault>,
}

impl ConfigError {
    pub(super) fn new(origin: Origin, fault: Fault) -> Self {
        Self { origin, fault: Box::new(fault) }
    }

    /// Where the fault stands.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be about any bytes, and is for a terminal.
        f.write_str(&shown(&format!("{}: {}", self.origin, self.fault)))
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.fault {
            Fault::Unreadable(error) | Fault::SecretUnreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A whole file.
    File(PathBuf),
    /// A line of a file, counted from 1.
    Line {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A place in a file.
    Place {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Place { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "{name}"),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub enum Fault {
    /// The file or directory cannot be read.
    Unreadable(io::Error),
    /// The file is longer than any configuration should be.
    TooLong {
        /// The most bytes that are read.
        bytes_max: u64,
    },
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// Not TOML; the parser's words.
    Syntax(String),
    /// A section, `[name]`, that does not exist.
    UnknownSection {
        /// As written.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A key that does not exist in its section.
    UnknownKey {
        /// As written.
        name: String,
        /// The section, with its brackets; empty where no section is known.
        section: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
    /// A value of another type than the key's.
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        expected: String,
        /// What it was given.
        given: String,
    },
    /// A number beyond its bounds.
    OutOfRange {
        /// The key or directive.
        key: String,
        /// As written.
        given: String,
        /// The smallest number allowed.
        min: i128,
        /// The largest number allowed.
        max: i128,
        /// A word allowed in place of a number.
        word: Option<&'static str>,
    },
    /// A word that is none of those allowed.
    NotAllowed {
        /// The key or directive.
        key: String,
        /// As written.
        given: String,
        /// The words allowed.
        allowed: Vec<&'static str>,
    },
    /// A text that cannot be used.
    BadText {
        /// The key or directive.
        key: String,
        /// As written.
        given: String,
        /// What it has to be.
        reason: &'static str,
    },
    /// A list that needs something in it.
    Empty {
        /// The key.
        key: &'static str,
        /// What would come of it, and what to do instead.
        why: &'static str,
    },
    /// A key that another one needs.
    Missing {
        /// The missing key.
        key: &'static str,
        /// The section, with its brackets.
        section: &'static str,
    },
    /// Two keys that exclude each other.
    Exclusive {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// The section, with its brackets.
        section: &'static str,
    },
    /// A key that is written where nothing asks for it.
    NoEffect {
        /// The key.
        key: &'static str,
        /// What has to be, in words.
        unless: &'static str,
    },
    /// A number above another one that bounds it.
    Above {
        /// The key.
        key: &'static str,
        /// Its value.
        given: u64,
        /// The key that bounds it.
        bound: &'static str,
        /// Its value.
        bound_value: u64,
    },
    /// A rule for messages that are to be less safe than others, and would not be.
    NotCheaper {
        /// The level of the rule.
        level: Durability,
        /// The level of the broker.
        broker: Durability,
    },
    /// A name that must be unique and is not.
    Twice {
        /// What is there twice.
        what: String,
    },
    /// An environment variable for an entry that would leave a gap in its list.
    Gap {
        /// The section.
        section: &'static str,
        /// The position given.
        index: usize,
        /// How many entries there are.
        entries: usize,
    },
    /// A file that should hold a secret, or a directory that is to be included, cannot be read.
    SecretUnreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A directive that mosquitto.conf does not have.
    UnknownDirective {
        /// As written.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A directive of mosquitto.conf for something that is not offered.
    NotOffered {
        /// Its name, and its value if that is what matters.
        name: &'static str,
        /// Why, and what there is instead.
        reason: &'static str,
    },
    /// A directive of mosquitto.conf that is not supported yet.
    UnsupportedDirective {
        /// Its name.
        name: String,
    },
    /// A directive of mosquitto.conf that is not going to be supported.
    RefusedDirective {
        /// Its name.
        name: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// A value of a directive that is not supported yet.
    UnsupportedValue {
        /// The directive.
        name: &'static str,
        /// The value.
        value: String,
    },
    /// A directive without its value.
    NoValue {
        /// The directive.
        name: String,
    },
    /// Something after the value of a directive.
    TrailingText {
        /// The directive.
        name: String,
        /// What follows.
        text: String,
    },
    /// A directive that another one of the same listener has to stand beside.
    DirectiveNeeds {
        /// The directive.
        name: &'static str,
        /// The missing one.
        key: &'static str,
    },
    /// A directive in the wrong place.
    WrongPlace {
        /// The directive.
        name: &'static str,
        /// Where it has to be.
        reason: &'static str,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::TooLong { bytes_max } => write!(f, "is longer than {bytes_max} bytes, the most that is read"),
            Self::NotUtf8 => write!(f, "is not UTF-8 text"),
            Self::Syntax(message) => write!(f, "{message}"),
            Self::UnknownSection { name, nearest } => {
                write!(f, "unknown section [{}]", name.escape_debug())?;
                hint(f, *nearest)
            }
            Self::UnknownKey { name, section, nearest } => {
                write!(f, "unknown key \"{}\"", name.escape_debug())?;
                if !section.is_empty() {
                    write!(f, " in {section}")?;
                }
                hint(f, nearest.as_deref())
            }
            Self::WrongType { key, expected, given } => write!(f, "\"{key}\" takes {expected}, not {given}"),
            Self::OutOfRange { key, given, min, max, word } => {
                write!(f, "\"{key}\" is {}, but has to be from {min} to {max}", given.escape_debug())?;
                word.map_or(Ok(()), |word| write!(f, " or \"{word}\""))
            }
            Self::NotAllowed { key, given, allowed } => {
                write!(f, "\"{key}\" cannot be \"{}\"", given.escape_debug())?;
                hint(f, nearest(given, allowed.iter().copied()))?;
                write!(f, " (allowed: {})", allowed.join(", "))
            }
            Self::BadText { key, given, reason } => {
                write!(f, "\"{key}\" cannot be \"{}\": {reason}", given.escape_debug())
            }
            Self::Empty { key, why } => write!(f, "\"{key}\" cannot be empty: {why}"),
            Self::Missing { key, section } => write!(f, "{section} needs \"{key}\""),
            Self::Exclusive { one, other, section } => {
                write!(f, "\"{one}\" and \"{other}\" exclude each other in {section}")
            }
            Self::NoEffect { key, unless } => write!(f, "\"{key}\" has no effect unless {unless}"),
            Self::Above { key, given, bound, bound_value } => {
                write!(f, "\"{key}\" is {given}, above \"{bound}\", which is {bound_value}")
            }
            Self::NotCheaper { level, broker } => {
                write!(f, "\"level\" is \"{level}\", but has to be below \"broker.durability\", which is \"{broker}\"")
            }
            Self::Twice { what } => write!(f, "{what} is there twice"),
            Self::Gap { section, index, entries } => {
                write!(f, "there are {entries} entries of [[{section}]], so the next one is {entries}, not {index}")
            }
            Self::SecretUnreadable { path, error } => write!(f, "{} cannot be read: {error}", path.display()),
            Self::UnknownDirective { name, nearest } => {
                write!(f, "unknown directive \"{}\"", name.escape_debug())?;
                hint(f, *nearest)
            }
            Self::NotOffered { name, reason } => write!(f, "\"{name}\" cannot be used: {reason}"),
            Self::UnsupportedDirective { name } => write!(f, "directive \"{name}\" is not supported yet"),
            Self::RefusedDirective { name, reason } => write!(f, "directive \"{name}\" is not supported: {reason}"),
            Self::UnsupportedValue { name, value } => {
                write!(f, "directive \"{name}\" with \"{}\" is not supported yet", value.escape_debug())
            }
            Self::NoValue { name } => write!(f, "directive \"{name}\" needs a value"),
            Self::TrailingText { name, text } => {
                write!(f, "unexpected \"{}\" after the value of directive \"{name}\"", text.escape_debug())
            }
            Self::DirectiveNeeds { name, key } => write!(f, "directive \"{name}\" needs \"{key}\" beside it"),
            Self::WrongPlace { name, reason } => write!(f, "directive \"{name}\" {reason}"),
        }
    }
}

fn hint(f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    nearest.map_or(Ok(()), |name| write!(f, "; did you mean \"{name}\"?"))
}

/// The known name that looks most like `given`, if one looks like it at all.
///
/// A third of the name may be wrong: enough for a slip of the fingers, a missing suffix or two words
/// exchanged by their initials, too little to offer nonsense.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name this long is no slip, and the distance costs the product of both lengths.
    const GIVEN_BYTES_MAX: usize = 100;
    if given.len() > GIVEN_BYTES_MAX {
        return None;
    }
    let given = given.to_lowercase();
    known
        .into_iter()
        .map(|name| (edit_distance(&given, name), name))
        .filter(|&(distance, name)| distance <= 1.max(name.len() / 3) && distance < name.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// How many characters have to be inserted, removed, replaced or exchanged with their neighbour to turn one
/// text into the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    // Rows of the usual table: the one before last is for exchanged neighbours.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = Vec::with_capacity(to.len() + 1);
        row.push(i + 1);
        for (j, b) in to.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_each_kind_of_slip_once() {
        for (from, to, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("port", "port", 0),
            ("prot", "port", 1),
            ("pot", "port", 1),
            ("ports", "port", 1),
            ("pord", "port", 1),
            ("max", "port", 4),
        ] {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn nothing_is_offered_for_a_name_that_looks_like_none() {
        let known = ["port", "host", "allow_anonymous"];
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("HOST", known), Some("host"));
        assert_eq!(nearest("allow_anonymus", known), Some("allow_anonymous"));
        assert_eq!(nearest("bridge_cafile", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
