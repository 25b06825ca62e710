//! What can be configured, told from the tables of `key`: a JSON Schema, and a reference in words.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::draft::ListenerDraft;
use super::error::Origin;
use super::key::{self, Key, Kind};
use super::security::SecurityDomain;
use super::{Config, Listener};

/// A key as the schema, the reference and the pages tell of it.
pub(super) struct Row {
    pub section: &'static str,
    /// The section may be there several times, `[[section]]`.
    pub list: bool,
    pub name: &'static str,
    pub doc: &'static str,
    pub shape: Shape,
    /// As one would write it; empty where it is none.
    pub default: String,
}

/// What a key takes.
pub(super) enum Shape {
    Switch,
    Number { min: u64, max: u64, word: Option<&'static str> },
    Text,
    Choice(&'static [&'static str]),
    List { allowed: &'static [&'static str], items_min: u8 },
    Texts { items_min: u8 },
}

/// Keys that their section has to have.
const REQUIRED: &[(&str, &[&str])] = &[("durability", &["filter", "level"]), ("scram_user", &["name"])];

/// All keys, in the order of the page.
pub(super) fn rows() -> Vec<Row> {
    let default = Config::unwritten();
    let mut rows = Vec::new();
    for section in key::SECTIONS {
        of_table(&mut rows, section.name, false, section.keys, Some(&default));
    }
    let listener = unwritten_listener();
    of_table(&mut rows, "listener", true, key::LISTENER, Some(&listener));
    of_table(&mut rows, "durability", true, key::DURABILITY, None);
    of_table(&mut rows, "scram_user", true, key::SCRAM_USER, None);
    of_table(&mut rows, "security", true, key::SECURITY, None);
    rows
}

/// A `[[listener]]` with nothing below it.
pub(super) fn unwritten_listener() -> Listener {
    let draft = ListenerDraft::new(Origin::Flag("listener"), true);
    draft.finish(&[SecurityDomain::unwritten()]).expect("the defaults do not contradict each other")
}

fn of_table<Written, Used>(
    rows: &mut Vec<Row>,
    section: &'static str,
    list: bool,
    keys: &[Key<Written, Used>],
    default: Option<&Used>,
) {
    rows.extend(keys.iter().map(|key| Row {
        section,
        list,
        name: key.name,
        doc: key.doc,
        shape: match key.kind {
            Kind::Switch { .. } => Shape::Switch,
            Kind::Number { min, max, word, .. } => Shape::Number { min, max, word },
            Kind::Text { .. } => Shape::Text,
            Kind::Choice { allowed, .. } => Shape::Choice(allowed),
            Kind::List { allowed, if_empty, .. } => Shape::List { allowed, items_min: u8::from(if_empty.is_some()) },
            Kind::Texts { if_empty, .. } => Shape::Texts { items_min: u8::from(if_empty.is_some()) },
        },
        default: default.map_or(String::new(), |used| (key.show)(used)),
    }));
}

impl Row {
    /// What it takes, as the page says it.
    pub fn kind(&self) -> String {
        match self.shape {
            Shape::Switch => "boolean".to_owned(),
            Shape::Number { min, max, word: None } => format!("{min}..={max}"),
            Shape::Number { min, max, word: Some(word) } => format!("{min}..={max}, {word}"),
            Shape::Text => "text".to_owned(),
            Shape::Choice(allowed) => allowed.join(", "),
            Shape::List { allowed, .. } => format!("list of {}", allowed.join(", ")),
            Shape::Texts { .. } => "list of texts".to_owned(),
        }
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        let position = if self.list { "N__" } else { "" };
        format!("PANTALA__{}__{position}{}", self.section, self.name).to_uppercase()
    }

    fn schema(&self) -> Value {
        let mut schema = match self.shape {
            Shape::Switch => json!({ "type": "boolean" }),
            Shape::Number { min, max, word } => {
                let number = json!({ "type": "integer", "minimum": min, "maximum": max });
                word.map_or(number.clone(), |word| json!({ "anyOf": [number, { "const": word }] }))
            }
            Shape::Text => json!({ "type": "string" }),
            Shape::Choice(allowed) => json!({ "enum": allowed }),
            Shape::List { allowed, .. } => json!({ "type": "array", "items": { "enum": allowed } }),
            Shape::Texts { .. } => json!({ "type": "array", "items": { "type": "string" } }),
        };
        if let Shape::List { items_min: min @ 1.., .. } | Shape::Texts { items_min: min @ 1.. } = self.shape {
            schema["minItems"] = Value::from(min);
        }
        schema["description"] = Value::from(self.doc);
        if !self.default.is_empty() {
            schema["default"] = match self.shape {
                Shape::Switch => Value::from(self.default == "true"),
                Shape::Number { .. } => {
                    self.default.parse::<u64>().map_or_else(|_| Value::from(&*self.default), Value::from)
                }
                Shape::List { .. } | Shape::Texts { .. } => self.default.split(',').collect(),
                Shape::Text | Shape::Choice(_) => Value::from(&*self.default),
            };
        }
        schema
    }
}

/// The JSON Schema, draft 2020-12, of a configuration in TOML, for editors and other tools.
///
/// It has the types, bounds, words and defaults of all keys. What several keys say together is left to the broker.
pub fn schema() -> String {
    let mut sections = Map::new();
    for row in rows() {
        let keys = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        let section = sections.entry(row.section).or_insert_with(|| match row.list {
            true => json!({ "type": "array", "items": keys }),
            false => keys,
        });
        let keys = if row.list { &mut section["items"] } else { section };
        keys["properties"][row.name] = row.schema();
        if let Some((_, required)) = REQUIRED.iter().find(|(section, _)| *section == row.section) {
            keys["required"] = json!(required);
        }
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the Pantala MQTT broker",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    });
    format!("{schema:#}\n")
}

/// Every key in words: what it takes, its default, its variable, its meaning.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = "";
    for row in rows() {
        // Writing to a String cannot fail.
        if row.section != section {
            section = row.section;
            let _ = match row.list {
                true => writeln!(text, "[[{section}]]"),
                false => writeln!(text, "[{section}]"),
            };
        }
        let _ = write!(text, "\n  {}: {}", row.name, row.kind());
        let _ = match row.default.as_str() {
            "" => writeln!(text),
            default => writeln!(text, " (default {default})"),
        };
        let _ = writeln!(text, "    {}\n    {}\n", row.doc.replace('`', ""), row.variable());
    }
    text
}
