//! What is logged, and where.

use std::fmt;
use std::path::PathBuf;

use super::timestamp::Timestamp;

/// What the log tells and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The kinds of lines written. Default: error, warning, notice and information.
    pub types: LogTypes,
    /// Whether lines go to standard error. Default true.
    pub stderr: bool,
    /// Whether lines go to standard output. Default false.
    pub stdout: bool,
    /// Whether lines go to the system's log. Default false.
    pub syslog: bool,
    /// As what they go there. Default [`Facility::DAEMON`].
    pub facility: Facility,
    /// Whether lines are published below `$SYS/broker/log/`. Default false.
    pub topic: bool,
    /// A file to which lines are added. Default None.
    pub file: Option<PathBuf>,
    /// The time in front of each line. Default [`Timestamp::Rfc3339`], in a mosquitto.conf
    /// [`Timestamp::EpochSeconds`].
    pub timestamp: Timestamp,
    /// Whether each connection and disconnection is a line. Default true.
    pub connection_messages: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            types: LogTypes::default(),
            stderr: true,
            stdout: false,
            syslog: false,
            facility: Facility::DAEMON,
            topic: false,
            file: None,
            timestamp: Timestamp::Rfc3339,
            connection_messages: true,
        }
    }
}

/// Whose lines they are in the system's log, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// That of services, and the default.
    pub const DAEMON: Self = Self(0);
    pub(super) const NAMES: [&str; 9] =
        ["daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"];

    pub(super) fn named(name: &str) -> Self {
        Self(Self::NAMES.iter().position(|known| *known == name).unwrap_or(0) as u8)
    }

    /// Number `n` of those that are there for local use, 0..=7.
    pub(super) fn local(number: u64) -> Self {
        Self(1 + number.min(7) as u8)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[usize::from(self.0)]
    }

    /// Its number in the system's log.
    pub fn number(self) -> u8 {
        if self.0 == 0 { 3 } else { 15 + self.0 }
    }
}

/// A kind of log line, by Mosquitto's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogType {
    /// Something failed that should not.
    Error,
    /// Something may fail, or is not as the configuration wants it.
    Warning,
    /// What an operator wants to know in a year: start, stop, connections.
    Notice,
    /// What an operator wants to know today.
    Information,
    /// Each packet.
    Debug,
    /// Each subscription made.
    Subscribe,
    /// Each subscription removed.
    Unsubscribe,
    /// What the WebSocket transport has to say.
    Websockets,
    /// What the workers have to say.
    Internal,
}

impl LogType {
    /// All kinds, the gravest first.
    pub const ALL: [Self; 9] = [
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Information,
        Self::Debug,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Websockets,
        Self::Internal,
    ];

    /// The names of all kinds, and the words for all and none of them.
    pub(super) const NAMES: [&str; 11] = [
        "error",
        "warning",
        "notice",
        "information",
        "debug",
        "subscribe",
        "unsubscribe",
        "websockets",
        "internal",
        "all",
        "none",
    ];
}

/// A set of kinds of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTypes(u16);

impl LogTypes {
    /// No line at all.
    pub const NONE: Self = Self(0);
    /// Every kind, as `-v` asks for.
    pub const ALL: Self = Self((1 << LogType::ALL.len()) - 1);

    /// Whether lines of this kind are written.
    pub fn contains(self, kind: LogType) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// This set and one more kind.
    #[must_use]
    pub fn with(self, kind: LogType) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The set of these names. `none` empties it of what stands before, `all` fills it.
    pub(super) fn named(names: &[&str]) -> Self {
        names.iter().fold(Self::NONE, |types, name| types.and_named(name))
    }

    pub(super) fn and_named(self, name: &str) -> Self {
        match name {
            "all" => Self::ALL,
            "none" => Self::NONE,
            _ => match LogType::NAMES.iter().position(|known| *known == name) {
                Some(index) => self.with(LogType::ALL[index]),
                None => self,
            },
        }
    }
}

impl Default for LogTypes {
    fn default() -> Self {
        Self::named(&["error", "warning", "notice", "information"])
    }
}

impl fmt::Display for LogTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            Self::NONE => f.write_str("none"),
            types => {
                let on = LogType::ALL.iter().zip(LogType::NAMES).filter(|(kind, _)| types.contains(**kind));
                f.write_str(&on.map(|(_, name)| name).collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_are_in_one_order() {
        for (kind, name) in LogType::ALL.into_iter().zip(LogType::NAMES) {
            assert_eq!(format!("{kind:?}").to_lowercase(), name);
            assert!(LogTypes::named(&[name]).contains(kind));
            assert_eq!(LogTypes::named(&[name]).to_string(), name);
        }
        assert!(LogType::ALL.into_iter().all(|kind| LogTypes::ALL.contains(kind)));
        assert_eq!(LogTypes::named(&["all", "none", "debug"]).to_string(), "debug");
        assert_eq!(LogTypes::default().to_string(), "error,warning,notice,information");
    }
}
