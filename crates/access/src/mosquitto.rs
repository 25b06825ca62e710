//! Mosquitto's ACL file.

use std::collections::HashMap;

use crate::error::check_filter;
use crate::layer::{Action, Block, Entry, Order};
use crate::rights::Defaults;
use crate::rules::{Rules, Users};
use crate::{ACL_LINE_BYTES_MAX, Error};

/// What a line is about.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

impl Rules {
    /// Reads the text of an ACL file as Mosquitto 2.1 does.
    ///
    /// Lines `topic [read|write|readwrite|deny] FILTER` are about the user of the last line `user NAME`, and about clients
    /// without a user name before the first; lines `pattern …` are about everybody, with `%c` and `%u`. For a client, the lines
    /// of its user come before the patterns, and among either those that deny. What no line allows is denied, but everybody
    /// may subscribe to everything: what is delivered is decided message by message.
    ///
    /// Lines end with or without a carriage return; a byte order mark at the front is ignored. A file without rules denies
    /// everything.
    ///
    /// # Errors
    /// [`Error::Line`] for a line that Mosquitto would refuse; and, unlike Mosquitto, for `topic read` and the like without a
    /// filter, which there is a rule about the topic `read`.
    pub fn from_mosquitto_acl(text: &str) -> Result<Self, Error> {
        let mut users: HashMap<&str, Vec<Entry>> = HashMap::new();
        let mut anonymous = Vec::new();
        let mut patterns = Vec::new();
        let mut user = None;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.split('\n').enumerate() {
            let wrong = |why| Error::Line { line: index + 1, why };
            if line.len() > ACL_LINE_BYTES_MAX {
                return Err(wrong("the line is longer than 70000 bytes"));
            }
            let line = trimmed(line);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = trimmed(rest);
            match keyword {
                "user" if rest.is_empty() => return Err(wrong("the user name is missing")),
                "user" => {
                    user = Some(rest);
                    users.entry(rest).or_default();
                }
                "topic" | "pattern" => {
                    let (access, filter) = access(rest).map_err(wrong)?;
                    check_filter(filter).map_err(wrong)?;
                    let entries = match (keyword, user) {
                        ("pattern", _) => &mut patterns,
                        (_, Some(user)) => users.entry(user).or_default(),
                        (_, None) => &mut anonymous,
                    };
                    entries.extend(entries_of(access, filter));
                }
                _ => return Err(wrong("a line begins with user, topic or pattern")),
            }
        }
        let mut blocks = Vec::new();
        let mut add = |mut entries: Vec<Entry>, complete: bool| -> Box<[usize]> {
            if entries.is_empty() {
                return Box::default();
            }
            entries.sort_by_key(|entry| entry.allow);
            // Only patterns have places for names; elsewhere `%c` is a level like any other.
            blocks.push(if complete { Block::new(entries, Order::First) } else { Block::literal(&entries) });
            [blocks.len() - 1].into()
        };
        let anonymous = add(anonymous, false);
        let everybody = add(patterns, true);
        let of_user = users.into_iter().map(|(user, entries)| (user.into(), add(entries, false))).collect();
        Ok(Self::of_users(Users {
            of_user,
            anonymous,
            everybody,
            everybody_is_careful: true,
            default: Defaults { subscribe: true, unsubscribe: true, control: true, ..Defaults::default() },
            blocks: blocks.into(),
            ..Users::default()
        }))
    }
}

/// Without blanks around it, which are those of ASCII: others belong to a name.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_ascii_whitespace() || character == '\u{b}')
}

/// The access and the filter of a line. A filter may have spaces.
fn access(rest: &str) -> Result<(Access, &str), &'static str> {
    let named = |word| match word {
        "read" => Some(Access::Read),
        "write" => Some(Access::Write),
        "readwrite" => Some(Access::ReadWrite),
        "deny" => Some(Access::Deny),
        _ => None,
    };
    match rest.split_once(' ') {
        None if rest.is_empty() || named(rest).is_some() => Err("the Topic Filter is missing"),
        None => Ok((Access::ReadWrite, rest)),
        Some((word, filter)) => {
            let access = named(word).ok_or("the access is one of read, write, readwrite and deny")?;
            Ok((access, trimmed(filter)))
        }
    }
}

fn entries_of(access: Access, filter: &str) -> impl Iterator<Item = Entry> {
    let (publish, receive, allow) = match access {
        Access::Read => (false, true, true),
        Access::Write => (true, false, true),
        Access::ReadWrite => (true, true, true),
        Access::Deny => (true, true, false),
    };
    let publish = publish.then(|| Entry::new(Action::Publish, allow, filter));
    let receive = receive.then(|| Entry::new(Action::Receive, allow, filter));
    publish.into_iter().chain(receive)
}
