//! A whole file, with what is in it besides users.

use std::collections::HashMap;
use std::fmt;

use crate::{Error, Hash, LINE_BYTES_MAX};

/// A password file. Writing it out gives back comments and order; a changed user stays in their line.
#[derive(Debug, Clone, Default)]
pub struct File {
    lines: Vec<Line>,
    /// Where in `lines` each user is; every user of `lines`, and none besides.
    places: HashMap<String, usize>,
}

#[derive(Debug, Clone)]
enum Line {
    /// A comment or nothing.
    Other(String),
    User {
        name: String,
        hash: Hash,
    },
}

impl File {
    /// Reads a file. Lines that are empty, or whose first character but blanks is `#`, are kept. Blanks around a name are no part
    /// of it, as in Mosquitto. Of two lines for one user the first counts; the
    /// second is an error, since somebody would be surprised either way.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut file = Self::default();
        for (name, hash) in entries(text) {
            match (name, hash) {
                (Some((line, name)), hash) => {
                    if !is_user_name(name) {
                        return Err(Error::Line { line, why: "expected NAME:HASH" });
                    }
                    let hash = Hash::parse(hash).map_err(|error| match error {
                        Error::Hash(why) => Error::Line { line, why },
                        other => other,
                    })?;
                    file.insert(line, name, hash)?;
                }
                (None, other) => file.lines.push(Line::Other(other.to_owned())),
            }
        }
        Ok(file)
    }

    /// Reads a file whose passwords are in plain text, and hashes each with `hash`.
    pub fn parse_plain(text: &str, mut hash: impl FnMut(&[u8]) -> Result<Hash, Error>) -> Result<Self, Error> {
        let mut file = Self::default();
        for (name, password) in entries(text) {
            match name {
                Some((line, name)) => file.insert(line, name, hash(password.as_bytes())?)?,
                None => file.lines.push(Line::Other(password.to_owned())),
            }
        }
        Ok(file)
    }

    fn insert(&mut self, line: usize, name: &str, hash: Hash) -> Result<(), Error> {
        if line == 0 || !is_user_name(name) {
            return Err(Error::Line { line, why: "expected NAME:HASH" });
        }
        if self.places.insert(name.to_owned(), self.lines.len()).is_some() {
            return Err(Error::Line { line, why: "this user has a line above" });
        }
        self.lines.push(Line::User { name: name.to_owned(), hash });
        Ok(())
    }

    /// A user's hash.
    pub fn hash(&self, name: &str) -> Option<&Hash> {
        match self.lines.get(*self.places.get(name)?)? {
            Line::User { hash, .. } => Some(hash),
            Line::Other(_) => None,
        }
    }

    /// The users, in the order of their lines.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::User { name, .. } => Some(name.as_str()),
            Line::Other(_) => None,
        })
    }

    /// Gives a user a new hash, or adds the user as the last line. Returns whether the user was there.
    pub fn set(&mut self, name: &str, hash: Hash) -> Result<bool, Error> {
        if !is_user_name(name) {
            return Err(Error::UserName);
        }
        let line = Line::User { name: name.to_owned(), hash };
        if let Some(&place) = self.places.get(name) {
            self.lines[place] = line;
            return Ok(true);
        }
        self.places.insert(name.to_owned(), self.lines.len());
        self.lines.push(line);
        Ok(false)
    }

    /// Removes a user. Returns whether the user was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(removed) = self.places.remove(name) else { return false };
        self.lines.remove(removed);
        for place in self.places.values_mut().filter(|place| **place > removed) {
            *place -= 1;
        }
        true
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Other(text) => writeln!(f, "{text}")?,
                Line::User { name, hash } => writeln!(f, "{name}:{hash}")?,
            }
        }
        Ok(())
    }
}

/// The lines: number and name with what follows the colon, or no name and the whole line. A line without a colon has an
/// empty name, which `insert` refuses.
fn entries(text: &str) -> impl Iterator<Item = (Option<(usize, &str)>, &str)> {
    text.lines().enumerate().map(|(index, line)| {
        if line.trim().is_empty() || line.trim_start_matches(is_blank).starts_with('#') {
            return (None, line);
        }
        let number = index + 1;
        match line.split_once(':') {
            // Whatever is longer cannot be a hash; its name is not looked at.
            _ if line.len() > LINE_BYTES_MAX => (Some((number, "")), line),
            Some((name, rest)) => (Some((number, name.trim_matches(is_blank))), rest.trim_end()),
            None => (Some((number, "")), line),
        }
    })
}

/// What C's `isspace` is true of, within a line.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0B' | '\x0C' | '\r')
}

fn is_user_name(name: &str) -> bool {
    !name.is_empty()
        && name.trim_matches(is_blank) == name
        && name.len() < LINE_BYTES_MAX / 2
        && !name.starts_with('#')
        && !name.contains(|character: char| character == ':' || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    const KITCHEN: &str = "$7$101$DDDyLXDhMzKKAbhN$i5Fepe195ino+vvxW8HrVag80sTkHaQFR0+iRreBMgSFHrFW7t7rwdh4hmIK/PwMYwtX0GX6dEGXnWJDG6L7RQ==";

    fn hashed(password: &[u8]) -> Result<Hash, Error> {
        Hash::new(Algorithm::Pbkdf2Sha512 { iterations: 1 }, password, b"0123456789ab")
    }

    #[test]
    fn comments_and_order_survive_changes() {
        let text = format!("# all\nb:{KITCHEN}\n\na:{KITCHEN}\n");
        let mut file = File::parse(&text).expect("it is fine");
        assert_eq!(file.to_string(), text);
        assert_eq!(file.set("b", hashed(b"new").expect("it hashes")), Ok(true));
        assert_eq!(file.set("c", hashed(b"new").expect("it hashes")), Ok(false));
        assert_eq!(file.users().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(file.remove("b") && !file.remove("b"));
        assert!(file.hash("a").is_some_and(|hash| hash.verify(b"secret")));
        assert!(file.hash("c").is_some_and(|hash| hash.verify(b"new")));
        assert!(file.hash("b").is_none());
        assert!(file.to_string().starts_with("# all\n\na:$7$"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [
            (format!("a:{KITCHEN}\nb\n"), 2),
            (format!(":{KITCHEN}\n"), 1),
            ("a:b\n".into(), 1),
            (format!("a:{KITCHEN}\n\na:{KITCHEN}\n"), 3),
            (format!("a:{}\n", "x".repeat(LINE_BYTES_MAX)), 1),
        ] {
            let error = File::parse(&text).expect_err(&text);
            assert!(matches!(error, Error::Line { line: wrong, .. } if wrong == line), "{error}");
            // A line that is none is said to be none, rather than to have a wrong hash.
            let is_line =
                text.lines().nth(line - 1).is_some_and(|line| line.len() < LINE_BYTES_MAX && line.find(':') > Some(0));
            assert_ne!(error.to_string().contains("expected NAME:HASH"), is_line, "{error}");
        }
    }

    /// The blanks were a part of the name, which then no client gave, and the comment was an error.
    #[test]
    fn blanks_around_a_name_are_no_part_of_it_and_a_comment_may_be_indented() {
        let text = format!("  # all: of them\n\t b \t:{KITCHEN}\n");
        let file = File::parse(&text).expect("it is fine");
        assert_eq!(file.users().collect::<Vec<_>>(), ["b"]);
        assert_eq!(file.to_string(), format!("  # all: of them\nb:{KITCHEN}\n"));
        let file = File::parse_plain(" a: x\n", hashed).expect("it is fine");
        assert!(file.hash("a").is_some_and(|hash| hash.verify(b" x")));
        let twice = format!("b:{KITCHEN}\n b:{KITCHEN}\n");
        assert!(matches!(File::parse(&twice), Err(Error::Line { line: 2, .. })));
        assert!(matches!(File::parse(&format!(" :{KITCHEN}\n")), Err(Error::Line { line: 1, .. })));
        // Within a name they stay, and what Mosquitto takes for no blank does as well.
        let file = File::parse(&format!("a b\u{a0}:{KITCHEN}\n")).expect("it is fine");
        assert_eq!(file.users().collect::<Vec<_>>(), ["a b\u{a0}"]);
    }

    #[test]
    fn plain_text_is_hashed() {
        let file = File::parse_plain("a:x:y\n# c\nb:\n", hashed).expect("it is fine");
        assert!(file.hash("a").is_some_and(|hash| hash.verify(b"x:y")));
        assert!(file.hash("b").is_some_and(|hash| hash.verify(b"")));
        assert!(File::parse_plain("a\n", hashed).is_err());
    }

    #[test]
    fn names_that_no_line_could_hold_are_refused() {
        let mut file = File::default();
        for name in ["", "a:b", "a\nb", "#a", " a", "a\t", " "] {
            assert_eq!(file.set(name, hashed(b"x").expect("it hashes")), Err(Error::UserName));
        }
    }
}
