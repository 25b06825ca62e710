//! The log: lines for an operator, few enough to read.
//!
//! What comes from outside is escaped and cut, and each cause has its share of lines a second, so that nobody can fill a
//! disk or hide in a flood; what was held back is counted and said.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::config::{LogConfig, LogType, LogTypes};

/// Lines that one cause may have in a second.
const LINES_PER_SECOND: u32 = 10;
/// Bytes of a name from outside that are shown.
const NAME_BYTES_MAX: usize = 256;

/// Where lines go. Shared by all threads.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What `state.config` says, for those who ask whether a line is wanted at all.
    types: AtomicU16,
    connection_messages: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: LogConfig,
    file: Option<File>,
    causes: HashMap<&'static str, Budget>,
}

#[derive(Debug)]
struct Budget {
    second: Instant,
    lines: u32,
    suppressed: u64,
}

/// A log that can be gone over to.
pub(crate) struct Opened {
    config: LogConfig,
    file: Option<File>,
}

impl Opened {
    /// Opens the file that the configuration names.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(config: LogConfig) -> io::Result<Self> {
        let file = match &config.file {
            Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
            None => None,
        };
        Ok(Self { config, file })
    }
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(config: LogConfig) -> io::Result<Self> {
        let Opened { config, file } = Opened::open(config)?;
        let shared = Shared {
            types: AtomicU16::new(config.types.bits()),
            connection_messages: AtomicBool::new(config.connection_messages),
            state: Mutex::new(State { config, file, causes: HashMap::new() }),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Goes on as another configuration wants it, in a file that has been opened anew.
    pub(crate) fn replace(&self, opened: Opened) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.types.store(opened.config.types.bits(), Ordering::Relaxed);
        self.shared.connection_messages.store(opened.config.connection_messages, Ordering::Relaxed);
        (state.config, state.file) = (opened.config, opened.file);
    }

    fn wants(&self, kind: LogType) -> bool {
        LogTypes::from_bits(self.shared.types.load(Ordering::Relaxed)).contains(kind)
    }

    /// Whether connections are to be logged.
    pub(crate) fn wants_connections(&self) -> bool {
        self.shared.connection_messages.load(Ordering::Relaxed) && self.wants(LogType::Notice)
    }

    /// Writes a line, whatever came before.
    pub(crate) fn line(&self, kind: LogType, text: &str) {
        if self.wants(kind) {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.write(&mut state, text);
        }
    }

    /// Writes a line unless this cause has had its share in this second.
    pub(crate) fn limited(&self, kind: LogType, cause: &'static str, text: impl FnOnce() -> String) {
        if !self.wants(kind) {
            return;
        }
        let now = Instant::now();
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = state.causes.entry(cause).or_insert(Budget { second: now, lines: 0, suppressed: 0 });
        let mut held_back = 0;
        if now.duration_since(budget.second).as_secs() >= 1 {
            held_back = std::mem::take(&mut budget.suppressed);
            (budget.second, budget.lines) = (now, 0);
        }
        budget.lines += 1;
        if budget.lines > LINES_PER_SECOND {
            budget.suppressed += 1;
            return;
        }
        if held_back > 0 {
            self.write(&mut state, &format!("({held_back} lines more about: {cause})"));
        }
        self.write(&mut state, &text());
    }

    /// Says how many lines have been held back and not been told of yet.
    pub(crate) fn tell_held_back(&self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told: Vec<_> =
            state.causes.iter_mut().map(|(cause, it)| (*cause, std::mem::take(&mut it.suppressed))).collect();
        told.retain(|(_, suppressed)| *suppressed > 0);
        told.sort_unstable();
        for (cause, suppressed) in told {
            self.write(&mut state, &format!("({suppressed} lines more about: {cause})"));
        }
    }

    fn write(&self, state: &mut State, text: &str) {
        let mut line = String::with_capacity(text.len() + 32);
        state.config.timestamp.write(SystemTime::now(), &mut line);
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text);
        line.push('\n');
        // A log that cannot be written to must not stop the broker.
        if let Some(file) = &mut state.file {
            drop(file.write_all(line.as_bytes()));
        }
        if state.config.stderr {
            drop(io::stderr().lock().write_all(line.as_bytes()));
        }
        if state.config.stdout {
            drop(io::stdout().lock().write_all(line.as_bytes()));
        }
    }
}

/// A name from outside as it may stand in a line: control and formatting characters escaped, and not too long.
pub(crate) fn shown(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = String::with_capacity(end);
    for character in name[..end].chars() {
        let plain = !character.is_control()
            && !matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if plain {
            text.push(character);
        } else {
            text.extend(character.escape_unicode());
        }
    }
    if end < name.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_stay_on_their_line() {
        for (name, expected) in [
            ("sensor-7", "sensor-7"),
            ("a\nb", "a\\u{a}b"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("é", "é"),
        ] {
            assert_eq!(shown(name), expected);
        }
        assert!(shown(&"é".repeat(1_000)).chars().count() <= NAME_BYTES_MAX / 2 + 1);
    }

    #[test]
    fn a_flood_is_cut() {
        let path = std::env::temp_dir().join(format!("pantala-log-{}", std::process::id()));
        let config = LogConfig { stderr: false, file: Some(path.clone()), ..LogConfig::default() };
        let log = Log::open(config).unwrap();
        for number in 0..1_000 {
            log.limited(LogType::Notice, "test", || format!("line {number}"));
        }
        log.tell_held_back();
        log.tell_held_back();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (summaries, lines): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.contains("lines more about: test"));
        // A second may end on the way, but not many.
        assert!(lines.len() >= 10 && lines.len() < 100, "{} lines", lines.len());
        let told =
            summaries.iter().map(|line| line.split(['(', ' ']).find_map(|word| word.parse::<usize>().ok()).unwrap());
        assert_eq!(told.sum::<usize>() + lines.len(), 1_000);
    }
}
