//! `-w`: a screen on which each Topic Name has its line, where its last message stands.

use std::collections::HashMap;
use std::io::Write as _;

/// The least rows of a screen that is made use of.
pub const ROWS_MIN: usize = 2;

/// Which topic has which row. The last row is for the number of topics that found none.
///
/// Topics: at most the rows of the screen less one; what has no row is counted, by message, not remembered.
#[derive(Debug)]
pub struct Watch {
    rows: usize,
    topics: HashMap<String, usize>,
    unseen: u64,
    begun: bool,
}

impl Watch {
    /// A screen with so many rows.
    pub fn new(rows: usize) -> Self {
        Self { rows: rows.max(ROWS_MIN), topics: HashMap::new(), unseen: 0, begun: false }
    }

    /// Puts a message's line into its row. `line` is without line feeds, as [`Escaping::OneLine`](super::Escaping) has it.
    pub fn show(&mut self, topic_name: &str, line: &[u8], out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            // Clears the screen, and lets long lines end at its edge.
            out.extend_from_slice(b"\x1b[2J\x1b[?7l");
        }
        let row = match self.topics.get(topic_name) {
            Some(row) => *row,
            None if self.topics.len() + 1 < self.rows => {
                let row = self.topics.len() + 1;
                self.topics.insert(topic_name.to_owned(), row);
                row
            }
            None => {
                self.unseen += 1;
                drop(write!(out, "\x1b[{};1H({} messages of topics that have no line)\x1b[K", self.rows, self.unseen));
                return;
            }
        };
        drop(write!(out, "\x1b[{row};1H"));
        out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        // The rest of a longer line that stood here, and colours that the format left on.
        out.extend_from_slice(b"\x1b[0m\x1b[K");
    }

    /// Leaves the screen to the shell: long lines break again, and its prompt comes below.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.begun) {
            drop(writeln!(out, "\x1b[?7h\x1b[{};1H", self.rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_keeps_its_line() {
        let mut watch = Watch::new(3);
        let mut out = Vec::new();
        for (topic, line) in [("a", "a 1\n"), ("b", "b 1\n"), ("a", "a 2\n"), ("c", "c 1\n")] {
            watch.show(topic, line.as_bytes(), &mut out);
        }
        watch.end(&mut out);
        watch.end(&mut out);
        let expected = "\x1b[2J\x1b[?7l\x1b[1;1Ha 1\x1b[0m\x1b[K\x1b[2;1Hb 1\x1b[0m\x1b[K\x1b[1;1Ha 2\x1b[0m\x1b[K\
                        \x1b[3;1H(1 messages of topics that have no line)\x1b[K\x1b[?7h\x1b[3;1H\n";
        assert_eq!(String::from_utf8(out).expect("it is text"), expected);
    }
}
