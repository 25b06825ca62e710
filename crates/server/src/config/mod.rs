//! What an operator has chosen, from flags, environment, file and defaults, in this order of precedence.
//!
//! A file whose name ends in `.toml` is in the format of our own, any other one is a mosquitto.conf. Both fill the
//! same draft; the environment and then the flags override it; then defaults are put in and what no key alone
//! can say is checked. Nothing here opens a socket or creates a directory.
//!
//! ```no_run
//! use pantala_server::config::{Config, Overrides};
//!
//! let config = Config::load(None, &Overrides::default())?;
//! print!("{}", config.describe());
//! # Ok::<(), pantala_server::config::ConfigError>(())
//! ```
//!
//! The TOML is walked by hand along the tables of `key` and not through serde: so a number beyond its
//! bounds has a line and a column as well as a misspelt name has, and a key is declared in one place.

mod clients;
mod convert;
mod draft;
mod effective;
mod environment;
mod error;
mod key;
mod log;
mod mosquitto;
mod reference;
mod security;
#[cfg(test)]
mod tests;
mod timestamp;
mod tls;
mod toml;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use pantala_broker::{ListenerSettings, Settings};
use pantala_store::Durability;

pub use self::convert::convert;
use self::draft::Draft;
pub use self::effective::{Change, Effective};
pub use self::environment::Environment;
pub(crate) use self::error::nearest;
pub use self::error::{ConfigError, Fault, Origin};
pub use self::log::{Facility, LogConfig, LogType, LogTypes};
pub use self::reference::{reference, schema};
pub use self::security::{DEFAULT_DOMAIN, Http, Jwt, JwtKeys, SecurityDomain, Verification};
pub use self::timestamp::Timestamp;
pub use self::tls::Tls;
pub use self::transport::{Protocol, Transport};
use crate::text::Lenient;

/// All that the broker is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What the core is told.
    pub settings: Settings,
    /// Where it listens; never empty, in the order of `settings.listeners`.
    pub listeners: Vec<Listener>,
    /// The security domains; never empty. Listeners name them by their place here.
    pub security: Vec<SecurityDomain>,
    /// Where a mosquitto.conf names the files of a domain, by its name and our key for the file.
    pub(crate) file_places: BTreeMap<(String, &'static str), Origin>,
    /// Where each of `listeners` was written.
    pub(crate) listener_places: Vec<ListenerPlaces>,
    /// Bounds of verification.
    pub verification: Verification,
    /// What is logged, and where.
    pub log: LogConfig,
    /// How many workers run, 1..=64. None, the default: as many as there are cores.
    pub workers: Option<NonZeroUsize>,
    /// Where data is kept. It may not exist yet. None where neither a flag, a variable nor a file names one and there
    /// is no home directory to put one into.
    pub data_dir: Option<PathBuf>,
    /// A `mosquitto.db` to be taken over at a start with an empty store. Default None.
    pub import_file: Option<PathBuf>,
    /// What an acknowledgement vouches for. Default fsync; in a mosquitto.conf memory, and fsync with `persistence true`.
    pub durability: Durability,
    /// Seconds between two looks at what `$SYS` tells. 0 is never, and no `$SYS`. Default 10.
    pub sys_interval_seconds: u32,
    /// Whether `$CONTROL/broker/v1` is answered. Default false.
    pub control_api: bool,
    /// Where the number of the process is written once it listens. Default None.
    pub pid_file: Option<PathBuf>,
    /// The user that the process becomes once it listens, if it was started as root. Default None.
    pub user: Option<String>,
    /// Where the secrets of TLS sessions are written. Default None.
    pub tls_key_log_file: Option<PathBuf>,
    /// Most connections from one address; of IPv6 the first 64 bits count. None is no limit. Default 10 000. More: closed.
    pub connections_per_address_max: Option<NonZeroU32>,
    /// Most new connections from one address in a second. None is no limit. Default 1 000. More: closed.
    pub connections_per_address_per_second_max: Option<NonZeroU32>,
    /// Bytes of memory above which nobody new is let in. None, the default: 80 % of what the control group or the machine has;
    /// 0 is no limit.
    pub memory_bytes_max: Option<u64>,
    /// What was accepted but does not do what it says, one line each, to be logged at the start.
    pub warnings: Vec<String>,
}

/// Where a configuration comes from, to be read again.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file. None is no file.
    pub path: Option<PathBuf>,
    /// The flags.
    pub overrides: Overrides,
    /// The variables.
    pub environment: Environment,
}

impl Source {
    /// The configuration as it is written now.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load_with(self.path.as_deref(), &self.overrides, &self.environment)
    }

    /// The same while the broker runs: nobody is waited for, so a file that is a pipe is refused.
    pub(crate) fn load_again(&self) -> Result<Config, ConfigError> {
        Config::load_by(draft::read, self.path.as_deref(), &self.overrides, &self.environment)
    }
}

/// Where a listener was written, and the files of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerPlaces {
    pub(crate) origin: Origin,
    /// For each file, or directory of files, the key or directive that names it, and where.
    pub(crate) files: BTreeMap<PathBuf, (String, Origin)>,
}

impl ListenerPlaces {
    /// What is wrong with a file, with the place where the file, or its directory, is named; else with that of the listener.
    pub(crate) fn locate(&self, file: Option<&Path>, what: &str) -> String {
        let named = |path: &Path| self.files.get(path);
        match file.and_then(|file| named(file).or_else(|| named(file.parent()?))) {
            Some((key, origin)) => format!("{origin}: {key}: {what}"),
            None => format!("{}: {what}", self.origin),
        }
    }
}

/// A text of the file in which control characters are shown, and do nothing: it is for a line of a log or a terminal.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_debug()),
            false => shown.push(character),
        }
    }
    shown
}

/// A place to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: ListenAddress,
    /// What the core knows about it; the same as in [`Settings::listeners`] at the same position.
    pub settings: ListenerSettings,
    /// The versions of IP it accepts; has no meaning for a Unix socket. Default both.
    pub socket_domain: SocketDomain,
    /// Whether TCP_NODELAY is set on its connections. Default true.
    pub tcp_no_delay: bool,
    /// None: plain MQTT.
    pub tls: Option<Tls>,
    /// How its connections come to be MQTT, and whose are taken.
    pub transport: Transport,
    /// It is enough to warn when this one cannot be opened, as long as another one can: the IPv6 half of the
    /// default, on a machine without IPv6.
    pub optional: bool,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port. Port 0 is one that the system chooses.
    Tcp {
        /// An address or a name to be looked up; None is all interfaces, IPv4 and IPv6.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// A Unix socket, a name in the file system.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: None, port } => write!(f, "*:{port}"),
            Self::Tcp { host: Some(host), port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host: Some(host), port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The versions of IP of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketDomain {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl SocketDomain {
    fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    fn overlaps(self, other: Self) -> bool {
        self == other || self == Self::Both || other == Self::Both
    }
}

/// What the command line says. It overrides everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The ports of each `-p`.
    ///
    /// A port that a listener of the file has is that listener. Otherwise the listener that a mosquitto.conf has
    /// without a `listener` line moves there; otherwise the port is opened on 127.0.0.1 and ::1.
    pub ports: Vec<u16>,
    /// `-v`: every kind of log line.
    pub verbose: bool,
    /// `--workers`, 1..=64.
    pub workers: Option<NonZeroUsize>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--durability`.
    pub durability: Option<Durability>,
    /// `-q`: nothing is logged.
    pub quiet: bool,
    /// `--tls-keylog`.
    pub tls_key_log_file: Option<PathBuf>,
    /// The process has no terminal: what would go there by default goes to the system's log.
    pub detached: bool,
}

impl Config {
    /// Reads the file, the environment of this process, and the flags.
    ///
    /// `path` ends in `.toml` or is a mosquitto.conf; None is no file. A pipe is read to its end.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_with(path, overrides, &Environment::of_process())
    }

    /// The files that it names and that are read again with it: users, rules, keys and certificates, each once.
    pub(crate) fn other_files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        for listener in &self.listeners {
            if let Some(domain) = self.security.get(usize::from(listener.settings.security.0)) {
                let own = [&domain.password_file, &domain.acl_file, &domain.rules_file, &domain.dynamic_security_file];
                files.extend(own.into_iter().flatten().map(PathBuf::as_path));
            }
            if let Some(tls) = &listener.tls {
                let lists =
                    [&tls.certificate_files, &tls.key_files, &tls.client_ca_files, &tls.chain_files, &tls.crl_files];
                files.extend(lists.into_iter().flatten().map(PathBuf::as_path));
            }
        }
        let mut seen = BTreeSet::new();
        files.retain(|file| seen.insert(*file));
        files
    }

    /// The same with another environment.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn load_with(
        path: Option<&Path>,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        Self::load_by(draft::read_waiting, path, overrides, environment)
    }

    fn load_by(
        read: fn(&Path, Lenient) -> Result<String, ConfigError>,
        path: Option<&Path>,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let lenient = |path| if is_toml(path) { Lenient::No } else { Lenient::Comments };
        let text = path.map(|path| read(path, lenient(path))).transpose()?;
        Self::of_text(path.zip(text.as_deref()), overrides, environment)
    }

    /// The same with the content of the file, by which name it would have.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn of_text(
        file: Option<(&Path, &str)>,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut draft = Draft::new();
        if let Some((path, text)) = file {
            if is_toml(path) {
                toml::read(&mut draft, path, text)?;
            } else {
                mosquitto::read(&mut draft, path, text)?;
            }
        }
        environment.apply(&mut draft)?;
        draft.finish(overrides, environment)
    }

    /// What differs from the defaults and where it listens, one line each, ending in a newline; without secrets.
    ///
    /// A line is `limits.packet_bytes_max = 1000 (default 2000000)` or `listener 127.0.0.1:1883, anonymous`.
    pub fn describe(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let default = Self::unwritten();
        for section in key::SECTIONS {
            for key in section.keys {
                let (value, usual) = ((key.show)(self), (key.show)(&default));
                if value != usual {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{}.{} = {}", section.name, key.name, value.escape_debug());
                    let _ = match usual.as_str() {
                        "" => writeln!(text),
                        usual => writeln!(text, " (default {usual})"),
                    };
                }
            }
        }
        for rule in &self.settings.durability_rules {
            let _ = writeln!(text, "durability of {} = {}", rule.filter.escape_debug(), rule.level);
        }
        for user in &self.settings.scram_users {
            let _ = writeln!(text, "{}", self.scram_user(user).escape_debug());
        }
        for domain in self.security.iter().filter(|domain| **domain != SecurityDomain::unwritten()) {
            let _ = writeln!(text, "{}", shown(&domain.to_string()));
        }
        for listener in &self.listeners {
            let anonymous = if listener.settings.allow_anonymous { "anonymous" } else { "no anonymous" };
            let _ = write!(text, "listener {}, {anonymous}", shown(&listener.address.to_string()));
            if let Some(domain) = self.security.get(usize::from(listener.settings.security.0))
                && domain.name != DEFAULT_DOMAIN
            {
                let _ = write!(text, ", security = {}", domain.name.escape_debug());
            }
            // The unwritten listener is the measure: its address aside, which is there already.
            for key in key::LISTENER
                .iter()
                .filter(|key| !["port", "host", "unix_path", "allow_anonymous", "security"].contains(&key.name))
            {
                let (value, usual) = ((key.show)(listener), (key.show)(&default.listeners[0]));
                if value != usual {
                    let _ = write!(text, ", {} = {}", key.name, shown(&value));
                }
            }
            let _ = writeln!(text);
        }
        text
    }

    /// What holds when nothing is written anywhere.
    fn unwritten() -> Self {
        Draft::new()
            .finish(&Overrides::default(), &Environment::default())
            .expect("the defaults do not contradict each other")
    }
}

/// Whether a file is in the format of our own.
fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}
