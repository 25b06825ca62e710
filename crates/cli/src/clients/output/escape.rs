//! Bytes from the network on their way to a terminal.

use std::io::Write as _;

/// What is done to bytes from the network before they are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escaping {
    /// Nothing: for files, pipes, and who asks for it.
    #[default]
    Raw,
    /// For a terminal: control characters but line feed and tab, what turns the direction of writing, and bytes that are
    /// not UTF-8 are written as `\x1b`, `\u202e`, `\xff`.
    Terminal,
    /// For a screen on which each message has one line: line feeds and tabs too.
    OneLine,
}

impl Escaping {
    /// Appends `bytes`, escaped.
    pub(crate) fn put(self, bytes: &[u8], out: &mut Vec<u8>) {
        if self == Self::Raw || bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            out.extend_from_slice(bytes);
            return;
        }
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if !is_order(character) || (self == Self::Terminal && matches!(character, '\n' | '\t')) {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                // Writing into a vector does not fail.
                drop(match (character, u32::from(character)) {
                    ('\n', _) => out.write_all(b"\\n"),
                    ('\t', _) => out.write_all(b"\\t"),
                    ('\r', _) => out.write_all(b"\\r"),
                    (_, number @ 0..0x80) => write!(out, "\\x{number:02x}"),
                    (_, number) => write!(out, "\\u{number:04x}"),
                });
            }
            for byte in chunk.invalid() {
                drop(write!(out, "\\x{byte:02x}"));
            }
        }
    }
}

/// Whether a terminal, or whoever reads it, could be led astray by the character.
pub(crate) fn is_order(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(escaping: Escaping, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escaping.put(bytes, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_terminal_gets_no_orders_from_the_network() {
        let text = "\u{1b}[2J\u{7}\r\u{8}\u{9b}31m\u{202e}a\u{2028}b\u{7f}\0";
        let shown = escaped(Escaping::Terminal, text.as_bytes());
        assert_eq!(shown, "\\x1b[2J\\x07\\r\\x08\\u009b31m\\u202ea\\u2028b\\x7f\\x00");
        assert!(shown.chars().all(|character| !is_order(character)));
        assert_eq!(escaped(Escaping::Terminal, b"\xff\xfeok\xc3"), "\\xff\\xfeok\\xc3");
        assert_eq!(escaped(Escaping::Raw, text.as_bytes()), text);
    }

    #[test]
    fn text_is_left_alone() {
        assert_eq!(escaped(Escaping::Terminal, "{\n\t\"é\": \"😀\\\"}".as_bytes()), "{\n\t\"é\": \"😀\\\"}");
        assert_eq!(escaped(Escaping::OneLine, b"a\n\tb"), "a\\n\\tb");
    }
}
