//! A configuration tried out without serving anybody: what a start would find wrong, and what it would come to.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pantala_broker::authentication::ScramSha256;
use pantala_identity::chain::BackEnd;
use pantala_store::Durability;
use pantala_tls::UserNameFrom;
use rustix::fs::{Access, access};

use crate::config::{Config, ListenAddress, Listener};
use crate::log::shown;
use crate::user::{self, Given, User};
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
    checked.problems.extend(listen::collision(config));
    checked.lines.push(storage::describe(config));
    if config.durability != Durability::Memory {
        match &config.data_dir {
            None => checked.problems.push(storage::NO_DATA_DIR.to_owned()),
            Some(data_dir) => checked.problems.extend(creatable(data_dir).err()),
        }
    }
    if let Some(path) = &config.log.file {
        checked.problems.extend(appendable("open the log file", path).err());
    }
    if let Some(path) = &config.pid_file {
        checked.problems.extend(appendable("write the pid file", path).err());
    }
    if let Some(name) = config.user.as_deref().filter(|_| user::is_root()) {
        match User::named(name) {
            Err(error) => checked.problems.push(format!("cannot become user {}: {error}", shown(name))),
            Ok(user) => {
                let kept = storage::data_dir(config)
                    .map(|data_dir| user.can_keep(name, data_dir, storage::FOLDER, Given::Before));
                checked.problems.extend(kept.and_then(Result::err));
            }
        }
    }
    // What is read from other files than the configuration, and what is made of them.
    let certificates = tls::check(config).map(|words| {
        // Those can be renewed while the broker runs.
        checked.lines.extend(words.iter().map(|words| format!("Warning: {words}")));
    });
    let others = [scram(config), security::check(config), certificates];
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
        text += if listener.transport.allow_plain_text { ", with and without TLS" } else { ", with TLS" };
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
    let existing = nearest(path).map_err(|error| refuse(&error))?;
    if !existing.is_dir() {
        return Err(refuse(&format!("{} is no directory", existing.display())));
    }
    writable(existing).map_err(|error| refuse(&error))
}

/// What is there of a path: itself, or the nearest folder that it lies in.
fn nearest(path: &Path) -> io::Result<&Path> {
    for ancestor in path.ancestors() {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match fs::metadata(ancestor) {
            Ok(_) => return Ok(ancestor),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Path::new("."))
}

/// Whether something can be made in a folder.
fn writable(folder: &Path) -> io::Result<()> {
    access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    // Where nobody can make anything, root is told that it may.
    let real = fs::canonicalize(folder)?;
    if ["/proc", "/sys"].iter().any(|system| real.starts_with(system)) {
        return Err(io::Error::other("nothing can be made there, as it is the system's"));
    }
    Ok(())
}

/// Whether a file can be opened for writing, or be made.
fn appendable(what: &str, path: &Path) -> Result<(), String> {
    let refuse = |error: io::Error| format!("cannot {what} {}: {error}", path.display());
    match fs::metadata(path) {
        // Without waiting for who reads from a pipe.
        Ok(_) => {
            let file = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path);
            file.map(drop).map_err(refuse)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            writable(parent).map_err(refuse)
        }
        Err(error) => Err(refuse(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Overrides};

    fn problems(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mosquitto.conf");
        fs::write(&file, text).unwrap();
        let config = Config::load_with(Some(&file), &Overrides::default(), &Environment::default());
        check(&config.unwrap()).problems
    }

    /// Each of them was found sound, and ended the start.
    #[test]
    fn what_ends_a_start_is_a_problem() {
        let long = "x".repeat(10_000);
        for (text, problem) in [
            ("pid_file /nonexistent/pid", "cannot write the pid file /nonexistent/pid: No such file"),
            ("pid_file /dev/null/pid", "cannot write the pid file /dev/null/pid: Not a directory"),
            (&format!("log_dest file {long}"), "File name too long"),
            ("log_dest file /dev/null/log", "cannot open the log file /dev/null/log: Not a directory"),
            ("log_dest file /proc/log", "cannot open the log file /proc/log: "),
            ("persistence true\npersistence_location /proc/nope/", "cannot keep data in /proc/nope/pantala: "),
            (&format!("persistence true\npersistence_location /{long}"), "File name too long"),
            // For documentation, and so nobody's.
            ("listener 1883 203.0.113.5", "cannot listen on 203.0.113.5:1883: "),
        ] {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].contains(problem), "{text}: {found:?}");
        }
        // What can be is none, whether somebody listens there or not.
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let text = format!(
            "listener {port} 127.0.0.1\npid_file {path}/pid\npersistence true\npersistence_location {path}/a/b"
        );
        assert_eq!(problems(&text), Vec::<String>::new());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
