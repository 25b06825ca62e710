//! A configuration value by value, and what differs between two.

use std::collections::BTreeMap;
use std::fmt;

use pantala_broker::{ScramUser, SecurityId};

use super::key::{self, Key};
use super::{Config, DEFAULT_DOMAIN, ListenAddress, Listener, SecurityDomain, security};

/// What a running broker cannot change. Everything else is taken over by a reload.
const NEEDS_RESTART: &[&str] = &[
    "broker.workers",
    "broker.data_dir",
    "broker.import_file",
    "broker.durability",
    "broker.pid_file",
    "broker.user",
    "limits.verification_threads",
    "limits.verifications_waiting_max",
    "limits.verified_seconds",
    "limits.verified_max",
    "limits.http_requests_max",
    "limits.failures_per_address_max",
    "limits.failures_per_user_max",
    "limits.failure_wait_seconds_max",
    "durability",
    "listener socket_domain",
];

/// The values in force, by their names, without secrets: all that differs between two configurations.
///
/// A name is `limits.packet_bytes_max`, or `listener *:1883 allow_anonymous`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    values: Vec<(String, String)>,
}

/// A difference between two configurations, shown as `limits.packet_bytes_max: 1 -> 2 (live)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The name of the value, or of the listener or user as a whole.
    pub name: String,
    /// The value before; None where there was no such thing.
    pub old: Option<String>,
    /// The value after; None where there is no such thing any more.
    pub new: Option<String>,
}

impl Change {
    /// Whether a reload leaves the old value in force.
    pub fn needs_restart(&self) -> bool {
        let name = match self.name.strip_prefix("listener ") {
            // The address stands between.
            Some(rest) => match rest.rsplit_once(' ') {
                Some((_, key)) => &format!("listener {key}"),
                None => return false,
            },
            None => &self.name,
        };
        NEEDS_RESTART.contains(&name.as_str())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Quotation marks do no harm in a line of a log.
        let escaped = |text: &str| text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
        let shown = |value: &str| if value.is_empty() { "none".to_owned() } else { escaped(value) };
        write!(f, "{}: ", escaped(&self.name))?;
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{} -> {}", shown(old), shown(new))?,
            (None, Some(new)) if new.is_empty() => write!(f, "added")?,
            (None, Some(new)) => write!(f, "added, {}", shown(new))?,
            (_, None) => write!(f, "removed")?,
        }
        f.write_str(if self.needs_restart() { " (needs a restart)" } else { " (live)" })
    }
}

impl Config {
    /// All values in force.
    pub fn effective(&self) -> Effective {
        let mut values = Vec::new();
        for section in key::SECTIONS {
            table(&mut values, &format!("{}.", section.name), section.keys, self);
        }
        let rules = self.settings.durability_rules.iter().map(|rule| format!("{} {}", rule.filter, rule.level));
        values.push(("durability".to_owned(), rules.collect::<Vec<_>>().join(", ")));
        for user in &self.settings.scram_users {
            values.push((self.scram_user(user), String::new()));
        }
        let domain_name = |listener: &Listener| {
            self.security.get(usize::from(listener.settings.security.0)).map_or("", |it| &it.name)
        };
        // One that no listener has keeps its number for Sessions of old, and lets nobody in.
        let used = |domain: &&SecurityDomain| self.listeners.iter().any(|it| domain_name(it) == domain.name);
        for domain in self.security.iter().filter(used).filter(|domain| **domain != SecurityDomain::unwritten()) {
            values.push((format!("security {}", domain.name), domain.to_string()));
        }
        let mut nth: BTreeMap<String, usize> = BTreeMap::new();
        for listener in &self.listeners {
            let mut name = format!("listener {}", listener.address);
            let count = nth.entry(name.clone()).or_default();
            *count += 1;
            if *count > 1 {
                name += &format!("#{count}");
            }
            values.push((name.clone(), String::new()));
            let keys = key::LISTENER.iter().filter(|key| !ADDRESS_KEYS.contains(&key.name));
            for key in keys {
                let value = match key.name {
                    "security" => domain_name(listener).to_owned(),
                    _ => (key.show)(listener),
                };
                values.push((format!("{name} {}", key.name), value));
            }
        }
        Effective { values }
    }

    /// A user as it is named to operators: with its domain, unless that is the default one.
    pub(super) fn scram_user(&self, user: &ScramUser) -> String {
        match self.security.get(usize::from(user.security.0)) {
            Some(domain) if domain.name != DEFAULT_DOMAIN => format!("scram_user {} of {}", user.name, domain.name),
            _ => format!("scram_user {}", user.name),
        }
    }

    /// What a reload from this configuration to `new` changes. Other passwords are told of without saying them.
    pub(crate) fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = self.effective().changes(&new.effective());
        for user in &new.settings.scram_users {
            let same = |old: &&ScramUser| old.name == user.name && old.security == user.security;
            if self.settings.scram_users.iter().find(same).is_some_and(|old| old.password != user.password) {
                let (old, other) = (Some("the old password".to_owned()), Some("another".to_owned()));
                changes.push(Change { name: new.scram_user(user), old, new: other });
            }
        }
        changes
    }

    /// The same with security domains in the order of `old`, and those that are new behind them: a domain keeps its number, by
    /// which Sessions remember it, as long as the broker runs.
    pub(crate) fn renumbered(mut self, old: &Self) -> Self {
        let written = std::mem::take(&mut self.security);
        for domain in &old.security {
            let new = written.iter().find(|new| new.name == domain.name);
            self.security.push(new.unwrap_or(domain).clone());
        }
        let is_new = |domain: &&SecurityDomain| old.security.iter().all(|old| old.name != domain.name);
        self.security.extend(written.iter().filter(is_new).cloned());
        let number = |domains: &[SecurityDomain], security: SecurityId| {
            let name = written.get(usize::from(security.0)).map(|domain| &domain.name);
            SecurityId(domains.iter().position(|domain| Some(&domain.name) == name).unwrap_or_default() as u16)
        };
        for (listener, settings) in self.listeners.iter_mut().zip(&mut self.settings.listeners) {
            listener.settings.security = number(&self.security, listener.settings.security);
            settings.security = listener.settings.security;
        }
        // Owners are kept by the names that stand under these numbers.
        self.settings.security_domains = security::stored_names(&self.security);
        for user in &mut self.settings.scram_users {
            user.security = number(&self.security, user.security);
        }
        self
    }

    /// This configuration as far as a broker that runs with `old` can take it over.
    pub(crate) fn taken_over(mut self, old: &Self) -> Self {
        self.workers = old.workers;
        self.data_dir.clone_from(&old.data_dir);
        self.import_file.clone_from(&old.import_file);
        self.durability = old.durability;
        self.pid_file.clone_from(&old.pid_file);
        self.user.clone_from(&old.user);
        self.verification = old.verification;
        self.settings.durability_rules.clone_from(&old.settings.durability_rules);
        for listener in &mut self.listeners {
            let same = |other: &&Listener| {
                other.address == listener.address && !matches!(other.address, ListenAddress::Tcp { port: 0, .. })
            };
            if let Some(old) = old.listeners.iter().find(same) {
                listener.socket_domain = old.socket_domain;
            }
        }
        self
    }
}

/// They are in the name of a listener.
pub(super) const ADDRESS_KEYS: [&str; 3] = ["port", "host", "unix_path"];

fn table<Written, Used>(values: &mut Vec<(String, String)>, prefix: &str, keys: &[Key<Written, Used>], used: &Used) {
    values.extend(keys.iter().map(|key| (format!("{prefix}{}", key.name), (key.show)(used))));
}

impl Effective {
    /// What is different in `new`, in the order of the keys: what is gone first, then what is other or new.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let before: BTreeMap<&str, &str> = self.values.iter().map(|(name, value)| (&**name, &**value)).collect();
        let after: BTreeMap<&str, &str> = new.values.iter().map(|(name, value)| (&**name, &**value)).collect();
        // The values of a listener that is there on one side only are told with it, or not at all.
        let told = |name: &str, side: &BTreeMap<&str, &str>| {
            let whole = name.strip_prefix("listener ").and_then(|rest| rest.rsplit_once(' '));
            let whole = whole.filter(|(_, key)| key::LISTENER.iter().any(|known| known.name == *key));
            whole.is_none_or(|(address, _)| side.contains_key(format!("listener {address}").as_str()))
        };
        let gone = self.values.iter().filter(|(name, _)| !after.contains_key(&**name) && told(name, &after));
        let gone = gone.map(|(name, value)| Change { name: name.clone(), old: Some(value.clone()), new: None });
        let other = new.values.iter().filter(|(name, value)| {
            before.get(&**name) != Some(&&**value) && (before.contains_key(&**name) || told(name, &before))
        });
        let other = other.map(|(name, value)| Change {
            name: name.clone(),
            old: before.get(&**name).map(|value| (*value).to_owned()),
            new: Some(value.clone()),
        });
        gone.chain(other).collect()
    }

    /// Each value in a line of its own, to be read by [`Effective::parse`].
    pub fn to_text(&self) -> String {
        let lines = self.values.iter();
        lines.map(|(name, value)| format!("{}\t{}\n", name.escape_debug(), value.escape_debug())).collect()
    }

    /// Reads what [`Effective::to_text`] wrote. None if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let values = text.lines().map(|line| {
            let (name, value) = line.split_once('\t')?;
            Some((unescape(name)?, unescape(value)?))
        });
        Some(Self { values: values.collect::<Option<_>>()? })
    }
}

/// Takes `escape_debug` back.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        plain.push(match characters.next()? {
            't' => '\t',
            'r' => '\r',
            'n' => '\n',
            '0' => '\0',
            'u' => {
                let digits = characters.as_str().strip_prefix('{')?;
                let (digits, rest) = digits.split_once('}')?;
                characters = rest.chars();
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec((any::<String>(), any::<String>()), 0..5)) {
            let effective = Effective { values };
            prop_assert_eq!(Effective::parse(&effective.to_text()), Some(effective));
        }
    }

    #[test]
    fn quotation_marks_are_shown_as_they_are_and_control_characters_are_not() {
        let [name, old, new] = ["security \"plant\"", "it's \"a\"", "\n\u{1b}"].map(str::to_owned);
        let change = Change { name, old: Some(old), new: Some(new) };
        assert_eq!(change.to_string(), "security \"plant\": it's \"a\" -> \\n\\u{1b} (live)");
    }

    #[test]
    fn all_that_needs_a_restart_exists() {
        let config = Config::unwritten();
        let effective = config.effective();
        for name in NEEDS_RESTART {
            let found = effective.values.iter().any(|(known, _)| {
                Change { name: known.clone(), old: None, new: None }.needs_restart()
                    && known.ends_with(name.rsplit(' ').next().unwrap_or(name))
            });
            assert!(found, "{name}");
        }
    }
}
