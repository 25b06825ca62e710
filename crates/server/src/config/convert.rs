//! A mosquitto.conf written down in our own format.

use std::fmt::Write as _;
use std::path::Path;

use super::key::{self, Key, Kind};
use super::security::{DEFAULT_DOMAIN, SecurityDomain};
use super::{Config, ConfigError, Environment, Overrides, reference};

/// What is another number here where a mosquitto.conf is silent: key, Mosquitto's default, and ours as it is shown.
const OTHER_DEFAULTS: [(&str, &str, &str); 4] = [
    ("limits.queued_messages_max", "1000", "100000"),
    ("limits.queued_bytes_max", "no limit", "268435456"),
    ("delivery.allow_duplicate_messages", "true", "false"),
    ("listener.tcp_no_delay", "false", "true"),
];

/// A mosquitto.conf, with the files that it includes, as a configuration in TOML that comes to the same.
///
/// What has no effect here, and what has another default than in Mosquitto, is told in comments.
///
/// # Errors
///
/// The first thing that is wrong with the file, or not supported, with its place.
pub fn convert(path: &Path) -> Result<String, ConfigError> {
    let config = Config::load_with(Some(path), &Overrides::default(), &Environment::default())?;
    Ok(config.written(&path.display().to_string()))
}

impl Config {
    /// A configuration in TOML that comes to the same, made from a mosquitto.conf of this name. See [`convert`].
    pub fn written(&self, name: &str) -> String {
        written(self, name)
    }
}

fn written(config: &Config, name: &str) -> String {
    let default = Config::unwritten();
    let mut sections = String::new();
    for section in key::SECTIONS {
        let mut keys = String::new();
        for key in section.keys {
            // A mosquitto.conf means another durability by silence, so ours is never silent about it.
            let always = (section.name, key.name) == ("broker", "durability");
            put(&mut keys, key, config, if always { None } else { Some(&default) });
        }
        if !keys.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(sections, "\n[{}]\n{keys}", section.name);
        }
    }
    for domain in config.security.iter().filter(|domain| **domain != SecurityDomain::unwritten()) {
        let _ = writeln!(sections, "\n[[security]]\nname = {}", quoted(&domain.name));
        let files = [
            ("password_file", &domain.password_file),
            ("acl_file", &domain.acl_file),
            ("dynamic_security_file", &domain.dynamic_security_file),
        ];
        for (key, path) in files {
            if let Some(path) = path {
                let _ = writeln!(sections, "{key} = {}", quoted(&path.display().to_string()));
            }
        }
    }
    if config.listeners != default.listeners {
        let usual = reference::unwritten_listener();
        for listener in &config.listeners {
            sections += "\n[[listener]]\n";
            for key in key::LISTENER {
                match (key.name, (key.show)(listener).as_str()) {
                    ("security", _) => {
                        let domain = config.security.get(usize::from(listener.settings.security.0));
                        if let Some(domain) = domain.filter(|domain| domain.name != DEFAULT_DOMAIN) {
                            let _ = writeln!(sections, "security = {}", quoted(&domain.name));
                        }
                    }
                    // What there is of an address, and who is let in, is always said.
                    ("port" | "host" | "unix_path", "") => {}
                    ("port" | "host" | "unix_path" | "allow_anonymous", _) => put(&mut sections, key, listener, None),
                    _ => put(&mut sections, key, listener, Some(&usual)),
                }
            }
        }
    }
    format!("{}{sections}", comments(config, name))
}

fn comments(config: &Config, name: &str) -> String {
    let mut text = format!("# Made from {}.\n", one_line(name));
    if !config.warnings.is_empty() {
        text += "#\n# Left out, or to be known:\n";
        for warning in &config.warnings {
            let _ = writeln!(text, "# - {}", one_line(warning));
        }
    }
    let shown = |path: &str| {
        let (section, name) = path.split_once('.')?;
        match section {
            "listener" => key::LISTENER.iter().find(|key| key.name == name).map(|key| (key.show)(&config.listeners[0])),
            _ => {
                let section = key::SECTIONS.iter().find(|known| known.name == section)?;
                section.keys.iter().find(|key| key.name == name).map(|key| (key.show)(config))
            }
        }
    };
    let others: Vec<_> =
        OTHER_DEFAULTS.iter().filter(|(path, _, ours)| shown(path).as_deref() == Some(*ours)).collect();
    if !others.is_empty() {
        text += "#\n# Not as Mosquitto has it by default:\n";
        for (path, theirs, ours) in others {
            let _ = writeln!(text, "# - {path} is {ours}, in Mosquitto {theirs}");
        }
    }
    text
}

/// A text that does not end the comment it stands in.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Writes a key with its value, unless it is the default.
fn put<Written, Used>(text: &mut String, key: &Key<Written, Used>, used: &Used, default: Option<&Used>) {
    let value = (key.show)(used);
    if default.is_some_and(|default| (key.show)(default) == value) {
        return;
    }
    let value = match key.kind {
        Kind::Switch { .. } => value,
        Kind::Number { word, .. } if word != Some(value.as_str()) => value,
        Kind::Number { .. } | Kind::Text { .. } | Kind::Choice { .. } => quoted(&value),
        Kind::List { .. } | Kind::Texts { .. } => {
            let words: Vec<_> = key::separated(&value).iter().map(|word| quoted(word)).collect();
            format!("[{}]", words.join(", "))
        }
    };
    let _ = writeln!(text, "{} = {value}", key.name);
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
