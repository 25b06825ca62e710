//! A configuration tried out without serving anybody: what a start would find wrong, and what it would come to.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::Path;

use pantala_broker::authentication::ScramSha256;
use pantala_identity::chain::BackEnd;
use pantala_store::Durability;
use pantala_tls::UserNameFrom;
use rustix::fs::{Access, access};

use crate::config::{Config, ListenAddress, Listener};
use crate::log::shown;
use crate::user::{self, User};
use crate::{listen, security, storage, tls};

/// What came of a configuration that was tried out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What a start would come to, for an operator to read.
    pub lines: Vec<String>,
    /// What would not work, one line each. Empty: the broker can start, as far as can be known without listening.
    pub problems: Vec<String>,
}

/// Tries a configuration out. Nothing is created or changed, and nobody is listened to.
pub fn check(config: &Config) -> Checked {
    let mut checked = Checked::default();
    checked.lines.extend(config.warnings.iter().map(|warning| format!("Warning: {warning}")));
    for listener in &config.listeners {
        checked.lines.push(format!("Listener {}: {}.", listener.address, who(config, listener)));
        if let Err(error) = listen::can_bind(listener)
            && !listener.optional
        {
            checked.problems.push(format!("cannot listen on {}: {error}", listener.address));
        }
    }
    checked.lines.push(storage::describe(config));
    if config.durability != Durability::Memory {
        match &config.data_dir {
            None => checked.problems.push(storage::NO_DATA_DIR.to_owned()),
            Some(data_dir) => checked.problems.extend(creatable(data_dir).err()),
        }
    }
    if let Some(path) = &config.log.file {
        checked.problems.extend(appendable(path).err());
    }
    if let Some(name) = config.user.as_deref().filter(|_| user::is_root())
        && let Err(error) = User::named(name)
    {
        checked.problems.push(format!("cannot become user {}: {error}", shown(name)));
    }
    // What is read from other files than the configuration, and what is made of them.
    let others = [scram(config), security::check(config), tls::check(config)];
    checked.problems.extend(others.into_iter().filter_map(Result::err));
    let elsewhere = |line: &&str| line.starts_with("listener ") || line.starts_with("durability of ");
    let described = config.describe();
    let mut others = described.lines().filter(|line| !elsewhere(line)).peekable();
    if others.peek().is_some() {
        checked.lines.push("Not as by default:".to_owned());
        checked.lines.extend(others.map(|line| format!("  {line}")));
    }
    checked
}

/// Who may connect.
fn who(config: &Config, listener: &Listener) -> String {
    let mut by = Vec::new();
    if let Some(domain) = config.security.get(usize::from(listener.settings.security.0)) {
        by.extend(domain.chain.iter().filter_map(|back_end| match back_end {
            BackEnd::Certificate => None,
            BackEnd::Password => Some("users by password"),
            BackEnd::Jwt => Some("users by token"),
            BackEnd::Http => Some("users that an HTTP service knows"),
        }));
    }
    if listener.tls.as_ref().is_some_and(|tls| tls.user_name_from_certificate != UserNameFrom::No) {
        by.push("users by certificate");
    }
    if config.settings.scram_users.iter().any(|user| user.security == listener.settings.security) {
        by.push("users by SCRAM-SHA-256");
    }
    let mut text = match (listener.settings.allow_anonymous, by.join(", ")) {
        (true, by) if by.is_empty() => "anybody".to_owned(),
        (true, by) => format!("anybody, and {by}"),
        (false, by) if by.is_empty() => "nobody: anonymous clients are refused, and there are no users".to_owned(),
        (false, by) => by,
    };
    if listener.tls.is_some() {
        text += ", with TLS";
    }
    if let ListenAddress::Unix(_) = listener.address {
        text += ", from this machine";
    }
    if let Some(max) = listener.settings.connections_max {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {max} at a time");
    }
    text
}

fn scram(config: &Config) -> Result<(), String> {
    if config.settings.scram_users.is_empty() {
        return Ok(());
    }
    ScramSha256::new(&config.settings.scram_users, [0; 32]).map(drop).map_err(|error| error.to_string())
}

/// Whether a directory is there and can be written to, or can be made.
pub(crate) fn creatable(path: &Path) -> Result<(), String> {
    let refuse = |error: &dyn std::fmt::Display| format!("cannot keep data in {}: {error}", path.display());
    let existing = path.ancestors().find(|ancestor| ancestor.as_os_str().is_empty() || ancestor.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !existing.is_dir() {
        return Err(refuse(&format!("{} is no directory", existing.display())));
    }
    access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| refuse(&std::io::Error::from(error)))
}

/// Whether lines can be added to a file, or it can be made.
fn appendable(path: &Path) -> Result<(), String> {
    let refuse = |error: std::io::Error| format!("cannot open the log file {}: {error}", path.display());
    if path.exists() {
        return OpenOptions::new().append(true).open(path).map(drop).map_err(refuse);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    access(parent, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| refuse(error.into()))
}
