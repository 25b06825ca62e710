//! The environment: a variable for every key, and the places where data usually goes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::draft::{Draft, DurabilityDraft, ListenerDraft, ScramUserDraft};
use super::error::{ConfigError, Fault, Origin, nearest};
use super::key::{self, Key};
use super::security::SecurityDraft;

/// What the variables begin with; two underscores stand between section, position and key.
const PREFIX: &str = "PANTALA__";

/// Environment variables. Those that do not concern the configuration are ignored.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

// By hand: the values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// Lets each `PANTALA__…` variable override its key.
    pub(super) fn apply(&self, draft: &mut Draft) -> Result<(), ConfigError> {
        let mut settings = Vec::new();
        for (name, value) in self.variables.range(PREFIX.to_owned()..) {
            let Some(path) = name.strip_prefix(PREFIX) else { break };
            let origin = Origin::Variable(name.clone());
            let address = Address::parse(path).map_err(|fault| ConfigError::new(origin.clone(), fault))?;
            let Some(value) = value.to_str() else { return Err(ConfigError::new(origin, Fault::NotUtf8)) };
            settings.push((address, origin, value));
        }
        // By position as a number: as text, 10 comes before 2.
        settings.sort_by_key(|(address, ..)| *address);
        self.make_room(draft, &settings)?;
        for (address, origin, value) in settings {
            put(draft, address, &origin, value).map_err(|fault| ConfigError::new(origin, fault))?;
        }
        Ok(())
    }

    /// Adds the entries that variables speak of, and forgets the secret of the file where a variable brings another.
    fn make_room(&self, draft: &mut Draft, settings: &[(Address, Origin, &str)]) -> Result<(), ConfigError> {
        for (address, origin, _) in settings {
            let gap =
                |section, index, entries| ConfigError::new(origin.clone(), Fault::Gap { section, index, entries });
            match *address {
                Address::Table { .. } => {}
                Address::Listener { index, .. } if index < draft.listeners.len() => {}
                Address::Listener { index, .. } if index == draft.listeners.len() => {
                    draft.listeners.push(ListenerDraft::new(origin.clone(), draft.tcp_no_delay));
                }
                Address::Listener { index, .. } => return Err(gap("listener", index, draft.listeners.len())),
                Address::Durability { index, .. } if index < draft.durability_rules.len() => {}
                Address::Durability { index, .. } if index == draft.durability_rules.len() => {
                    draft.durability_rules.push(DurabilityDraft::new(origin.clone()));
                }
                Address::Durability { index, .. } => {
                    return Err(gap("durability", index, draft.durability_rules.len()));
                }
                Address::Security { index, .. } if index < draft.security.len() => {}
                Address::Security { index, .. } if index == draft.security.len() => {
                    draft.security.push(SecurityDraft::new(origin.clone()));
                }
                Address::Security { index, .. } => return Err(gap("security", index, draft.security.len())),
                Address::ScramUser { index, key } => {
                    match index.cmp(&draft.scram_users.len()) {
                        std::cmp::Ordering::Less => {}
                        std::cmp::Ordering::Equal => draft.scram_users.push(ScramUserDraft::new(origin.clone())),
                        std::cmp::Ordering::Greater => {
                            return Err(gap("scram_user", index, draft.scram_users.len()));
                        }
                    }
                    if key::SCRAM_USER[key].name.starts_with("password") {
                        let user = &mut draft.scram_users[index];
                        (user.password, user.password_file) = (None, None);
                    }
                }
            }
        }
        Ok(())
    }

    /// PANTALA_DATA_DIR, else the one of the file, else the usual place for such data.
    pub(super) fn data_dir(&self, written: Option<PathBuf>) -> Option<PathBuf> {
        // An empty variable is as good as none, and the places of the XDG specification have to be absolute.
        let path = |name: &str| self.variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |name: &str| path(name).filter(|path| path.is_absolute());
        path("PANTALA_DATA_DIR")
            .or(written)
            .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("pantala")))
            .or_else(|| Some(absolute("HOME")?.join(".local/state/pantala")))
    }
}

impl<Name: Into<String>, Value: Into<OsString>> FromIterator<(Name, Value)> for Environment {
    fn from_iter<T: IntoIterator<Item = (Name, Value)>>(variables: T) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

/// The key that a variable sets, by its positions in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Table { section: usize, key: usize },
    Listener { index: usize, key: usize },
    Durability { index: usize, key: usize },
    ScramUser { index: usize, key: usize },
    Security { index: usize, key: usize },
}

impl Address {
    fn parse(path: &str) -> Result<Self, Fault> {
        let parts: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            ["listener", index, key] => {
                Ok(Self::Listener { index: position(index)?, key: find(key, key::LISTENER, "[[listener]]")? })
            }
            ["durability", index, key] => {
                Ok(Self::Durability { index: position(index)?, key: find(key, key::DURABILITY, "[[durability]]")? })
            }
            ["scram_user", index, key] => {
                Ok(Self::ScramUser { index: position(index)?, key: find(key, key::SCRAM_USER, "[[scram_user]]")? })
            }
            ["security", index, key] => {
                Ok(Self::Security { index: position(index)?, key: find(key, key::SECURITY, "[[security]]")? })
            }
            [section, key] if !key::LISTS.contains(&section) => {
                let found = key::SECTIONS.iter().position(|known| known.name == section).ok_or_else(|| {
                    let known = key::SECTIONS.iter().map(|known| known.name).chain(key::LISTS);
                    Fault::UnknownSection { name: section.to_owned(), nearest: nearest(section, known) }
                })?;
                let key = find(key, key::SECTIONS[found].keys, &format!("[{section}]"))?;
                Ok(Self::Table { section: found, key })
            }
            _ => Err(Fault::UnknownKey {
                name: path.to_lowercase(),
                section: String::new(),
                nearest: nearest(&path.to_lowercase(), all_paths().iter().map(String::as_str)).map(str::to_owned),
            }),
        }
    }
}

fn all_paths() -> Vec<String> {
    let tables = key::SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| format!("{}__{}", section.name, key.name)));
    let listeners = key::LISTENER.iter().map(|key| format!("listener__0__{}", key.name));
    let rules = key::DURABILITY.iter().map(|key| format!("durability__0__{}", key.name));
    let users = key::SCRAM_USER.iter().map(|key| format!("scram_user__0__{}", key.name));
    let domains = key::SECURITY.iter().map(|key| format!("security__0__{}", key.name));
    tables.chain(listeners).chain(rules).chain(users).chain(domains).collect()
}

fn position(text: &str) -> Result<usize, Fault> {
    // Far more than any file has; what is left for the check of gaps fits a usize everywhere.
    const POSITION_MAX: u64 = 65_535;
    let number = text.parse::<i128>().ok();
    key::number_within("position", number, text.to_owned(), 0, POSITION_MAX, None).map(|number| number as usize)
}

fn find<Written, Used>(name: &str, keys: &[Key<Written, Used>], section: &str) -> Result<usize, Fault> {
    keys.iter().position(|key| key.name == name).ok_or_else(|| Fault::UnknownKey {
        name: name.to_owned(),
        section: section.to_owned(),
        nearest: nearest(name, keys.iter().map(|key| key.name)).map(str::to_owned),
    })
}

fn put(draft: &mut Draft, address: Address, origin: &Origin, value: &str) -> Result<(), Fault> {
    match address {
        Address::Table { section, key } => {
            let section = &key::SECTIONS[section];
            let key = &section.keys[key];
            draft.written.insert((section.name, key.name), origin.clone());
            key.accept_text(draft, value)
        }
        Address::Listener { index, key } => {
            let (listener, key) = (&mut draft.listeners[index], &key::LISTENER[key]);
            key.accept_text(listener, value)?;
            listener.note(key.name, origin.clone());
            Ok(())
        }
        Address::Durability { index, key } => {
            let (rule, key) = (&mut draft.durability_rules[index], &key::DURABILITY[key]);
            rule.note(key.name, origin.clone());
            key.accept_text(rule, value)
        }
        Address::ScramUser { index, key } => key::SCRAM_USER[key].accept_text(&mut draft.scram_users[index], value),
        Address::Security { index, key } => {
            let (domain, key) = (&mut draft.security[index], &key::SECURITY[key]);
            domain.note(key.name, origin.clone());
            key.accept_text(domain, value)
        }
    }
}
