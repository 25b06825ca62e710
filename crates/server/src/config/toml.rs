//! The format of our own, in TOML.

use std::ops::Range;
use std::path::Path;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use super::draft::{Draft, DurabilityDraft, ListenerDraft, ScramUserDraft};
use super::error::{ConfigError, Fault, Origin, nearest};
use super::key::{self, Key, Raw};
use super::security::SecurityDraft;

/// Reads `text`, the content of `path`, into the draft.
pub(super) fn read(draft: &mut Draft, path: &Path, text: &str) -> Result<(), ConfigError> {
    let source = Source { path, text };
    let document = DeTable::parse(text)
        .map_err(|error| source.error(error.span().unwrap_or(0..0), Fault::Syntax(error.message().to_owned())))?;
    for (name, value) in in_order(document.get_ref()) {
        source.section(draft, name, value)?;
    }
    Ok(())
}

type Name<'t, 'i> = &'t Spanned<std::borrow::Cow<'i, str>>;
type Entry<'t, 'i> = &'t Spanned<DeValue<'i>>;

/// The entries as they stand in the file, so that the first fault is the one nearest to its beginning.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(Name<'t, 'i>, Entry<'t, 'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn section(&self, draft: &mut Draft, name: Name<'_, '_>, value: Entry<'_, '_>) -> Result<(), ConfigError> {
        match name.get_ref().as_ref() {
            "listener" => {
                for (table, span) in self.list("listener", value)? {
                    let mut listener = ListenerDraft::new(self.origin(span), draft.tcp_no_delay);
                    self.keys(&mut listener, "[[listener]]", key::LISTENER, table, ListenerDraft::note)?;
                    draft.listeners.push(listener);
                }
                Ok(())
            }
            // A text there is `broker.durability` before its section, and that is said below.
            "durability" if !matches!(value.get_ref(), DeValue::String(_)) => {
                for (table, span) in self.list("durability", value)? {
                    let mut rule = DurabilityDraft::new(self.origin(span));
                    self.keys(&mut rule, "[[durability]]", key::DURABILITY, table, DurabilityDraft::note)?;
                    draft.durability_rules.push(rule);
                }
                Ok(())
            }
            "scram_user" => {
                for (table, span) in self.list("scram_user", value)? {
                    let mut user = ScramUserDraft::new(self.origin(span));
                    self.keys(&mut user, "[[scram_user]]", key::SCRAM_USER, table, |_, _, _| {})?;
                    draft.scram_users.push(user);
                }
                Ok(())
            }
            "security" => {
                for (table, span) in self.list("security", value)? {
                    let mut domain = SecurityDraft::new(self.origin(span));
                    self.keys(&mut domain, "[[security]]", key::SECURITY, table, SecurityDraft::note)?;
                    draft.security.push(domain);
                }
                Ok(())
            }
            written => {
                let Some(section) = key::SECTIONS.iter().find(|section| section.name == written) else {
                    return Err(self.error(name.span(), unknown_at_top(written, value.get_ref())));
                };
                let DeValue::Table(table) = value.get_ref() else {
                    let fault = Fault::WrongType {
                        key: written.to_owned(),
                        expected: format!("a section, [{written}]"),
                        given: article(value.get_ref()).to_owned(),
                    };
                    return Err(self.error(value.span(), fault));
                };
                let title = format!("[{written}]");
                self.keys(draft, &title, section.keys, table, |draft, key, origin| {
                    draft.written.insert((section.name, key), origin);
                })
            }
        }
    }

    /// The tables of `[[name]]`, each with the place of its first key, or where it begins if it has none.
    fn list<'t, 'i>(
        &self,
        name: &'static str,
        value: Entry<'t, 'i>,
    ) -> Result<Vec<(&'t DeTable<'i>, Range<usize>)>, ConfigError> {
        let wrong = |entry: Entry<'_, '_>, given: &str| {
            let fault = Fault::WrongType {
                key: name.to_owned(),
                expected: format!("sections with double brackets, [[{name}]]"),
                given: given.to_owned(),
            };
            self.error(entry.span(), fault)
        };
        let DeValue::Array(entries) = value.get_ref() else {
            return Err(wrong(value, article(value.get_ref())));
        };
        let mut tables = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push((table, entry.span())),
                other => return Err(wrong(entry, article(other))),
            }
        }
        Ok(tables)
    }

    fn keys<Written, Used>(
        &self,
        written: &mut Written,
        section: &str,
        keys: &[Key<Written, Used>],
        table: &DeTable<'_>,
        mut note: impl FnMut(&mut Written, &'static str, Origin),
    ) -> Result<(), ConfigError> {
        for (name, value) in in_order(table) {
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
                let fault = Fault::UnknownKey {
                    name: name.get_ref().to_string(),
                    section: section.to_owned(),
                    nearest: nearest(name.get_ref(), keys.iter().map(|key| key.name)).map(str::to_owned),
                };
                return Err(self.error(name.span(), fault));
            };
            key.accept(written, raw(value.get_ref())).map_err(|fault| self.error(value.span(), fault))?;
            note(written, key.name, self.origin(value.span()));
        }
        Ok(())
    }

    fn error(&self, span: Range<usize>, fault: Fault) -> ConfigError {
        ConfigError::new(self.origin(span), fault)
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        // A span may end within a character if the text breaks off there.
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::Place {
            path: self.path.to_owned(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// An unknown name outside all sections: a section misspelt, or a key that stands before its section.
fn unknown_at_top(name: &str, value: &DeValue<'_>) -> Fault {
    if matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
        let known = key::SECTIONS.iter().map(|section| section.name).chain(key::LISTS);
        return Fault::UnknownSection { name: name.to_owned(), nearest: nearest(name, known) };
    }
    let known = key::SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.name, key.name)));
    let found = nearest(name, known.clone().map(|(_, key)| key));
    let home = known.into_iter().find(|(_, key)| Some(*key) == found);
    Fault::UnknownKey {
        name: name.to_owned(),
        section: "front of the first section".to_owned(),
        nearest: home.map(|(section, key)| format!("{key}\" in \"[{section}]")),
    }
}

fn raw<'t>(value: &'t DeValue<'_>) -> Raw<'t> {
    match value {
        DeValue::Boolean(value) => Raw::Switch(*value),
        DeValue::Integer(number) => {
            Raw::Number(i128::from_str_radix(number.as_str(), number.radix()).ok(), number.to_string())
        }
        DeValue::String(text) => Raw::Text(text),
        DeValue::Array(entries) => {
            let texts: Option<Vec<&str>> = entries.iter().map(|entry| entry.get_ref().as_str()).collect();
            texts.map_or(Raw::Other("an array of something else"), Raw::List)
        }
        other => Raw::Other(article(other)),
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
