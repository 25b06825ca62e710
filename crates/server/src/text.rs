//! Text of files that people write, some of it with an editor that knows no UTF-8.

/// Where bytes need not be UTF-8. Nobody reads them there, and Mosquitto serves with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lenient {
    /// Nowhere.
    No,
    /// In lines that begin with `#`, blanks aside: in a password file or an access list.
    CommentLines,
    /// There, and behind a `#` that follows a blank: a mosquitto.conf. Whose value that is no comment to has to look for
    /// [`char::REPLACEMENT_CHARACTER`] in it.
    Comments,
}

/// The first byte that is not UTF-8 where it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotUtf8 {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// The bytes as text, each that may be something else as [`char::REPLACEMENT_CHARACTER`].
pub(crate) fn of(bytes: Vec<u8>, lenient: Lenient) -> Result<String, NotUtf8> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.into_bytes(),
    };
    let mut text = String::with_capacity(bytes.len());
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let start = text.len();
        for chunk in line.utf8_chunks() {
            text.push_str(chunk.valid());
            if chunk.invalid().is_empty() {
                continue;
            }
            let before = &text[start..];
            if !lenient.allows_after(before) {
                return Err(NotUtf8 { line: index + 1, column: before.chars().count() + 1 });
            }
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Ok(text)
}

impl Lenient {
    /// Whether what follows this in a line may be anything.
    fn allows_after(self, before: &str) -> bool {
        // A mark of UTF-8 may stand in front of all.
        let is_comment = || before.trim_start_matches('\u{FEFF}').trim_start().starts_with('#');
        match self {
            Self::No => false,
            Self::CommentLines => is_comment(),
            Self::Comments => is_comment() || before.contains(" #") || before.contains("\t#"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_taken_in_comments_only() {
        let at = |line, column| Err(NotUtf8 { line, column });
        for (bytes, lenient, expected) in [
            (&b"a\n# caf\xe9 \xff\xfe\nb"[..], Lenient::CommentLines, Ok("a\n# caf\u{fffd} \u{fffd}\u{fffd}\nb")),
            (b"\xef\xbb\xbf \t#\xe9", Lenient::CommentLines, Ok("\u{feff} \t#\u{fffd}")),
            (b"a # \xe9\nb", Lenient::Comments, Ok("a # \u{fffd}\nb")),
            (b"a\t#\xe9\r\n", Lenient::Comments, Ok("a\t#\u{fffd}\r\n")),
            (b"a # \xe9\nb", Lenient::CommentLines, at(1, 5)),
            (b"# a\n\nb\xc3\xa9 \xe9", Lenient::Comments, at(3, 4)),
            (b"a#\xe9", Lenient::Comments, at(1, 3)),
            (b"# \xe9\n\xe9", Lenient::Comments, at(2, 1)),
            (b"# \xe9", Lenient::No, at(1, 3)),
            (b"# caf\xc3\xa9", Lenient::No, Ok("# café")),
            // A character that breaks off at the end of a line.
            (b"# \xc3\nx", Lenient::Comments, Ok("# \u{fffd}\nx")),
        ] {
            assert_eq!(of(bytes.to_vec(), lenient), expected.map(str::to_owned), "{bytes:?}");
        }
    }
}
