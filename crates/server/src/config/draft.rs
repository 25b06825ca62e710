//! What was written, by the file, the environment and the flags, before the defaults are put in.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use pantala_broker::{DurabilityRule, ListenerRate, ListenerSettings, Redirect, ScramUser, SecurityId, Settings};
use pantala_proto::QoS;
use pantala_store::Durability;
use pantala_tls::UserNameFrom;

use super::clients::ClientsDraft;
use super::error::{ConfigError, Fault, Origin};
use super::log::{LogConfig, LogTypes};
use super::security::{self, DEFAULT_DOMAIN, SecurityDomain, SecurityDraft, Verification};
use super::tls::TlsDraft;
use super::transport::TransportDraft;
use super::{
    Config, ListenAddress, Listener, ListenerPlaces, Overrides, SocketDomain, environment::Environment, key, shown,
};
use crate::file;
use crate::text::{self, Lenient, NotUtf8};

/// The port of MQTT without TLS.
pub(super) const DEFAULT_PORT: u16 = 1883;

/// The most bytes of a file with a configuration or a secret: a slip like `-c /dev/zero` ends with a message.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration being put together. What a source sets, a later and stronger source sets again.
pub(super) struct Draft {
    /// Its `listeners`, `scram_users`, `durability_rules`, `redirect` and `connect_packet_bytes_max` are filled in at the end.
    pub settings: Settings,
    pub connect_packet_bytes_max: Option<u32>,
    pub log: LogConfig,
    pub workers: Option<NonZeroUsize>,
    pub data_dir: Option<PathBuf>,
    pub import_file: Option<PathBuf>,
    /// None: what the kind of file means by silence.
    pub durability: Option<Durability>,
    pub durability_default: Durability,
    pub durability_rules: Vec<DurabilityDraft>,
    pub redirect: RedirectDraft,
    pub sys_interval_seconds: u32,
    pub control_api: bool,
    pub pid_file: Option<PathBuf>,
    pub user: Option<String>,
    pub connections_per_address_max: Option<NonZeroU32>,
    pub connections_per_address_per_second_max: Option<NonZeroU32>,
    pub memory_bytes_max: Option<u64>,
    /// Whether somebody has said where the log goes.
    pub log_destinations_written: bool,
    pub listeners: Vec<ListenerDraft>,
    /// Whether the loopback listener that nobody wrote lets anonymous clients in.
    pub loopback_anonymous: bool,
    /// Whether TCP_NODELAY is on where the listener does not say.
    pub tcp_no_delay: bool,
    /// Whether Sessions belong to users where the listener does not say.
    pub sessions_belong_to_users: bool,
    /// Whether user names that nobody verifies count where there is an ACL file, and the listener does not say.
    pub believe_user_names: bool,
    /// What Client Identifiers have to begin with where the listener does not say.
    pub client_id_prefixes: Vec<String>,
    pub scram_users: Vec<ScramUserDraft>,
    pub security: Vec<SecurityDraft>,
    pub verification: Verification,
    /// Where each key was set last, by section and key.
    pub written: BTreeMap<(&'static str, &'static str), Origin>,
    pub warnings: Vec<String>,
}

#[derive(Default)]
pub(super) struct RedirectDraft {
    pub server_reference: Option<String>,
    pub permanent: Option<bool>,
}

pub(super) struct ListenerDraft {
    pub origin: Origin,
    /// None: [`DEFAULT_PORT`].
    pub port: Option<u16>,
    pub host: Option<String>,
    pub unix_path: Option<PathBuf>,
    pub socket_domain: SocketDomain,
    /// None: only where nobody but this machine can connect.
    pub allow_anonymous: Option<bool>,
    pub connections_max: Option<NonZeroU32>,
    pub maximum_qos: QoS,
    pub packet_bytes_max: Option<u32>,
    pub messages_per_second_max: ListenerRate,
    pub bytes_per_second_max: ListenerRate,
    pub topic_alias_max: Option<u16>,
    pub topic_alias_broker_max: Option<u16>,
    pub clients: ClientsDraft,
    pub tcp_no_delay: bool,
    pub tls: TlsDraft,
    /// None: the default domain.
    pub security: Option<String>,
    pub transport: TransportDraft,
    /// The listener that a mosquitto.conf has without a `listener` line: a `-p` moves it.
    pub movable: bool,
    pub optional: bool,
}

pub(super) struct DurabilityDraft {
    pub origin: Origin,
    pub filter: Option<String>,
    pub level: Option<Durability>,
    /// Where the level was written.
    pub level_origin: Option<Origin>,
}

pub(super) struct ScramUserDraft {
    pub origin: Origin,
    pub name: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    /// None: the default domain.
    pub security: Option<String>,
}

impl Draft {
    pub fn new() -> Self {
        Self {
            settings: Settings::default(),
            connect_packet_bytes_max: None,
            log: LogConfig::default(),
            workers: None,
            data_dir: None,
            import_file: None,
            durability: None,
            durability_default: Durability::Fsync,
            durability_rules: Vec::new(),
            redirect: RedirectDraft::default(),
            sys_interval_seconds: 10,
            control_api: false,
            pid_file: None,
            user: None,
            connections_per_address_max: NonZeroU32::new(10_000),
            connections_per_address_per_second_max: NonZeroU32::new(1_000),
            memory_bytes_max: None,
            log_destinations_written: false,
            listeners: Vec::new(),
            loopback_anonymous: true,
            tcp_no_delay: true,
            sessions_belong_to_users: true,
            believe_user_names: false,
            client_id_prefixes: Vec::new(),
            scram_users: Vec::new(),
            security: Vec::new(),
            verification: Verification::default(),
            written: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Puts in the flags and the defaults and checks what one key alone could not say.
    pub fn finish(mut self, overrides: &Overrides, environment: &Environment) -> Result<Config, ConfigError> {
        if let Some(workers) = overrides.workers {
            let given = workers.get() as u64;
            key::number_within("workers", Some(given.into()), given.to_string(), 1, key::WORKERS_MAX, None)
                .map_err(|fault| ConfigError::new(Origin::Flag("--workers"), fault))?;
            self.workers = Some(workers);
        }
        if overrides.verbose {
            self.log.types = LogTypes::ALL;
        }
        if overrides.quiet {
            self.log.types = LogTypes::NONE;
        }
        if overrides.detached && !self.log_destinations_written {
            (self.log.stderr, self.log.syslog) = (false, true);
        }
        self.settings.connect_packet_bytes_max = self.connect_packet_bytes_max()?;
        self.settings.redirect = self.redirect()?;
        let durability = overrides.durability.or(self.durability).unwrap_or(self.durability_default);
        self.settings.durability_rules = durability_rules(std::mem::take(&mut self.durability_rules), durability)?;
        self.place_ports(&overrides.ports);
        let (mut file_places, mut domain_places) = (BTreeMap::new(), Vec::new());
        for draft in &self.security {
            let name = draft.name.as_deref().unwrap_or(DEFAULT_DOMAIN);
            domain_places.push((name.to_owned(), draft.origin.clone()));
            file_places.extend(draft.places.iter().map(|(key, origin)| ((name.to_owned(), *key), origin.clone())));
        }
        let security = security::domains(std::mem::take(&mut self.security))?;
        self.settings.scram_users = scram_users(std::mem::take(&mut self.scram_users), &security)?;
        let (listeners, listener_places) = self.listeners(&security)?;
        for (name, origin) in domain_places {
            let is_named = |listener: &Listener| security[usize::from(listener.settings.security.0)].name == name;
            if !listeners.iter().any(is_named) {
                let name = name.escape_debug();
                self.warnings.push(format!(
                    "{origin}: no listener has security = \"{name}\": the users and rules of this [[security]] count nowhere"
                ));
            }
        }
        self.settings.security_domains = security::stored_names(&security);
        self.settings.listeners = listeners.iter().map(|listener| listener.settings.clone()).collect();
        for listener in &listeners {
            let settings = &listener.settings;
            let somebody = settings.allow_anonymous
                || settings.verify_credentials
                || listener.tls.as_ref().is_some_and(|tls| tls.user_name_from_certificate != UserNameFrom::No)
                || listener.transport.user_name_by_proxy
                || self.settings.scram_users.iter().any(|user| user.security == settings.security)
                || is_local(&listener.address);
            if settings.believe_user_names && !settings.verify_credentials && settings.allow_anonymous {
                self.warnings.push(format!(
                    "listener {} believes user names: nobody verifies them, so anybody has the rights of anybody. A password_file \
                     (made by `pantala passwd`) verifies them",
                    listener.address
                ));
            }
            if !somebody {
                self.warnings.push(format!(
                    "listener {} lets nobody in: anonymous clients are refused there, and there are no users. A \
                     password_file (made by `pantala passwd`) has users; allow_anonymous lets everybody in",
                    listener.address
                ));
            }
        }
        let data_dir = overrides.data_dir.clone().or_else(|| environment.data_dir(self.data_dir.take()));
        Ok(Config {
            settings: self.settings,
            listeners,
            security,
            file_places,
            listener_places,
            verification: self.verification,
            log: self.log,
            workers: self.workers,
            data_dir,
            import_file: self.import_file,
            durability,
            sys_interval_seconds: self.sys_interval_seconds,
            control_api: self.control_api,
            pid_file: self.pid_file,
            user: self.user,
            tls_key_log_file: overrides.tls_key_log_file.clone(),
            connections_per_address_max: self.connections_per_address_max,
            connections_per_address_per_second_max: self.connections_per_address_per_second_max,
            memory_bytes_max: self.memory_bytes_max,
            warnings: self.warnings.iter().map(|warning| shown(warning)).collect(),
        })
    }

    /// The written one, which must not be above `packet_bytes_max`; the default bows to it.
    fn connect_packet_bytes_max(&self) -> Result<u32, ConfigError> {
        let (default, bound) = (self.settings.connect_packet_bytes_max, self.settings.packet_bytes_max);
        let Some(given) = self.connect_packet_bytes_max else { return Ok(default.min(bound)) };
        if given <= bound {
            return Ok(given);
        }
        let fault = Fault::Above {
            key: "connect_packet_bytes_max",
            given: given.into(),
            bound: "packet_bytes_max",
            bound_value: bound.into(),
        };
        Err(ConfigError::new(self.origin("limits", "connect_packet_bytes_max"), fault))
    }

    fn redirect(&self) -> Result<Option<Redirect>, ConfigError> {
        match (&self.redirect.server_reference, self.redirect.permanent) {
            (Some(reference), permanent) => {
                Ok(Some(Redirect { server_reference: reference.clone(), permanent: permanent.unwrap_or(false) }))
            }
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ConfigError::new(
                self.origin("redirect", "permanent"),
                Fault::Missing { key: "server_reference", section: "[redirect]" },
            )),
        }
    }

    /// Where a key that is known to be written was written.
    fn origin(&self, section: &'static str, key: &'static str) -> Origin {
        self.written.get(&(section, key)).cloned().unwrap_or(Origin::Flag("configuration"))
    }

    /// Gives each port of a `-p` its listener.
    ///
    /// One that has the port already is it. Otherwise the movable listener moves there, the first time; otherwise, and
    /// when nothing was written at all, the port is opened for this machine alone.
    fn place_ports(&mut self, ports: &[u16]) {
        let has = |listeners: &[ListenerDraft], port: u16| {
            listeners.iter().any(|listener| listener.unix_path.is_none() && listener.port() == port)
        };
        let unwritten = self.listeners.is_empty();
        let mut missing: Vec<u16> = ports.iter().copied().filter(|&port| !has(&self.listeners, port)).collect();
        if unwritten && missing.is_empty() {
            missing.push(DEFAULT_PORT);
        }
        let movable = self.listeners.iter_mut().find(|listener| listener.movable);
        let mut missing = missing.into_iter();
        if let Some(listener) = movable
            && !ports.contains(&listener.port())
            && let Some(port) = missing.next()
        {
            listener.port = Some(port);
        }
        for port in missing {
            // Port 0 is a new port each time; any other once.
            if port != 0 && has(&self.listeners, port) {
                continue;
            }
            for host in ["127.0.0.1", "::1"] {
                let mut listener = ListenerDraft::new(Origin::Flag("-p"), self.tcp_no_delay);
                listener.port = Some(port);
                listener.host = Some(host.to_owned());
                listener.allow_anonymous = Some(self.loopback_anonymous);
                listener.optional = host == "::1";
                self.listeners.push(listener);
            }
        }
    }

    /// Each with where it was written.
    fn listeners(&mut self, domains: &[SecurityDomain]) -> Result<(Vec<Listener>, Vec<ListenerPlaces>), ConfigError> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(self.listeners.len());
        let mut places = Vec::with_capacity(self.listeners.len());
        for mut draft in std::mem::take(&mut self.listeners) {
            draft.clients.sessions_belong_to_users.get_or_insert(self.sessions_belong_to_users);
            let name = draft.security.as_deref().unwrap_or(DEFAULT_DOMAIN);
            let domain = domains.iter().find(|domain| domain.name == name);
            let is_believed = domain.is_some_and(|domain| domain.acl_file.is_some() && !domain.verifies());
            draft.clients.believe_user_names.get_or_insert(self.believe_user_names && is_believed);
            draft.clients.client_id_prefixes.get_or_insert_with(|| self.client_id_prefixes.clone());
            let origin = draft.origin.clone();
            places.push(ListenerPlaces { origin: origin.clone(), files: std::mem::take(&mut draft.tls.places) });
            let listener = draft.finish(domains)?;
            let named = |address: &ListenAddress| !matches!(address, ListenAddress::Tcp { port: 0, .. });
            let twice = |other: &Listener| {
                other.address == listener.address
                    && named(&other.address)
                    && other.socket_domain.overlaps(listener.socket_domain)
            };
            if listeners.iter().any(twice) {
                let what = format!("a listener on {}", listener.address);
                return Err(ConfigError::new(origin, Fault::Twice { what }));
            }
            listeners.push(listener);
        }
        Ok((listeners, places))
    }
}

impl ListenerDraft {
    pub fn new(origin: Origin, tcp_no_delay: bool) -> Self {
        Self {
            origin,
            port: None,
            host: None,
            unix_path: None,
            socket_domain: SocketDomain::Both,
            allow_anonymous: None,
            connections_max: None,
            maximum_qos: QoS::ExactlyOnce,
            packet_bytes_max: None,
            messages_per_second_max: ListenerRate::AsElsewhere,
            bytes_per_second_max: ListenerRate::AsElsewhere,
            topic_alias_max: None,
            topic_alias_broker_max: None,
            clients: ClientsDraft::default(),
            tcp_no_delay,
            tls: TlsDraft::default(),
            security: None,
            transport: TransportDraft::default(),
            movable: false,
            optional: false,
        }
    }

    /// Remembers where a key was written, if that is of use later.
    pub fn note(&mut self, key: &'static str, origin: Origin) {
        self.tls.note(key, &origin);
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// A name for a security domain of its own.
    pub fn domain_name(&self) -> String {
        match (&self.unix_path, &self.host) {
            (Some(path), _) => format!("listener {}", path.display()),
            (None, Some(host)) => format!("listener {host} {}", self.port()),
            (None, None) => format!("listener {}", self.port()),
        }
    }

    pub fn finish(self, domains: &[SecurityDomain]) -> Result<Listener, ConfigError> {
        let port = self.port();
        let name = self.security.as_deref().unwrap_or(DEFAULT_DOMAIN);
        let security = domain_number(domains, name).map_err(|fault| ConfigError::new(self.origin.clone(), fault))?;
        let address = match (self.unix_path, self.host) {
            (Some(_), Some(_)) => {
                let fault = Fault::Exclusive { one: "unix_path", other: "host", section: "[[listener]]" };
                return Err(ConfigError::new(self.origin, fault));
            }
            (Some(_), None) if self.port.is_some() => {
                let fault = Fault::Exclusive { one: "unix_path", other: "port", section: "[[listener]]" };
                return Err(ConfigError::new(self.origin, fault));
            }
            (Some(path), None) => ListenAddress::Unix(path),
            (None, host) => ListenAddress::Tcp { host, port },
        };
        let mut tls = self.tls;
        let transport = self.transport.finish(&address, &tls);
        let transport = transport.map_err(|fault| ConfigError::new(self.origin.clone(), fault))?;
        if transport.user_name_by_proxy {
            tls.user_name_from_certificate = UserNameFrom::No;
        }
        Ok(Listener {
            settings: self.clients.finish(ListenerSettings {
                allow_anonymous: self.allow_anonymous.unwrap_or_else(|| is_local(&address)),
                connections_max: self.connections_max,
                maximum_qos: self.maximum_qos,
                packet_bytes_max: self.packet_bytes_max,
                messages_per_second_max: self.messages_per_second_max,
                bytes_per_second_max: self.bytes_per_second_max,
                topic_alias_max: self.topic_alias_max,
                topic_alias_broker_max: self.topic_alias_broker_max,
                security,
                verify_credentials: domains[usize::from(security.0)].verifies(),
                ..ListenerSettings::default()
            }),
            address,
            socket_domain: self.socket_domain,
            tcp_no_delay: self.tcp_no_delay,
            tls: tls.finish(&self.origin, transport.protocol)?,
            transport,
            optional: self.optional,
        })
    }
}

impl DurabilityDraft {
    pub fn new(origin: Origin) -> Self {
        Self { origin, filter: None, level: None, level_origin: None }
    }

    /// Remembers where a key was written.
    pub fn note(&mut self, key: &'static str, origin: Origin) {
        if key == "level" {
            self.level_origin = Some(origin);
        }
    }
}

impl ScramUserDraft {
    pub fn new(origin: Origin) -> Self {
        Self { origin, name: None, password: None, password_file: None, security: None }
    }
}

/// Whether nobody but this machine can connect there. `localhost` is what everyone takes it for.
fn is_local(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Unix(_) => true,
        ListenAddress::Tcp { host: None, .. } => false,
        ListenAddress::Tcp { host: Some(host), .. } => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        }
    }
}

fn durability_rules(drafts: Vec<DurabilityDraft>, broker: Durability) -> Result<Vec<DurabilityRule>, ConfigError> {
    const SECTION: &str = "[[durability]]";
    let mut rules: Vec<DurabilityRule> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let missing = |key| ConfigError::new(draft.origin.clone(), Fault::Missing { key, section: SECTION });
        let filter = draft.filter.ok_or_else(|| missing("filter"))?;
        let level = draft.level.ok_or_else(|| missing("level"))?;
        if !is_cheaper(level, broker) {
            let origin = draft.level_origin.unwrap_or(draft.origin);
            return Err(ConfigError::new(origin, Fault::NotCheaper { level, broker }));
        }
        if rules.iter().any(|rule| rule.filter == filter) {
            let what = format!("durability of \"{}\"", filter.escape_debug());
            return Err(ConfigError::new(draft.origin, Fault::Twice { what }));
        }
        rules.push(DurabilityRule { filter, level });
    }
    Ok(rules)
}

fn is_cheaper(level: Durability, than: Durability) -> bool {
    matches!(
        (level, than),
        (Durability::Os | Durability::Memory, Durability::Fsync) | (Durability::Memory, Durability::Os)
    )
}

/// The number of a domain that a listener or a user names.
fn domain_number(domains: &[SecurityDomain], name: &str) -> Result<SecurityId, Fault> {
    let number = domains.iter().position(|domain| domain.name == name);
    number.map(|number| SecurityId(number as u16)).ok_or_else(|| Fault::BadText {
        key: "security".to_owned(),
        given: name.to_owned(),
        reason: "there is no [[security]] of this name",
    })
}

fn scram_users(drafts: Vec<ScramUserDraft>, domains: &[SecurityDomain]) -> Result<Vec<ScramUser>, ConfigError> {
    const SECTION: &str = "[[scram_user]]";
    let mut users: Vec<ScramUser> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let missing = |key| ConfigError::new(draft.origin.clone(), Fault::Missing { key, section: SECTION });
        let name = draft.name.clone().ok_or_else(|| missing("name"))?;
        let password = match (&draft.password, &draft.password_file) {
            (Some(password), None) => password.clone(),
            (None, Some(path)) => secret(path).map_err(|fault| ConfigError::new(draft.origin.clone(), fault))?,
            (None, None) => return Err(missing("password")),
            (Some(_), Some(_)) => {
                let fault = Fault::Exclusive { one: "password", other: "password_file", section: SECTION };
                return Err(ConfigError::new(draft.origin, fault));
            }
        };
        let domain = draft.security.as_deref().unwrap_or(DEFAULT_DOMAIN);
        let security = domain_number(domains, domain).map_err(|fault| ConfigError::new(draft.origin.clone(), fault))?;
        if users.iter().any(|user| user.name == name && user.security == security) {
            let what = format!("user \"{}\"", name.escape_debug());
            return Err(ConfigError::new(draft.origin, Fault::Twice { what }));
        }
        users.push(ScramUser { name, password, security });
    }
    Ok(users)
}

/// The first line of a file, which must not be empty: editors end it with a newline that is no part of it.
fn secret(path: &Path) -> Result<String, Fault> {
    let bytes = bytes(file::read(path, FILE_BYTES_MAX)).map_err(|fault| match fault {
        Fault::Unreadable(error) => Fault::SecretUnreadable { path: path.to_owned(), error },
        other => other,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?;
    let given = path.display().to_string();
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let reason = match line {
        "" => "the file must not be empty",
        line if line.contains('\n') => "the file has to hold the password in one line",
        line => return Ok(line.to_owned()),
    };
    Err(Fault::BadText { key: "password_file".to_owned(), given, reason })
}

/// The text of a configuration.
pub(super) fn read(path: &Path, lenient: Lenient) -> Result<String, ConfigError> {
    text_of(path, lenient, file::read(path, FILE_BYTES_MAX))
}

/// The same, where there is time to wait for who writes to a pipe.
pub(super) fn read_waiting(path: &Path, lenient: Lenient) -> Result<String, ConfigError> {
    text_of(path, lenient, file::read_waiting(path, FILE_BYTES_MAX))
}

fn text_of(path: &Path, lenient: Lenient, read: io::Result<Vec<u8>>) -> Result<String, ConfigError> {
    let bytes = bytes(read).map_err(|fault| ConfigError::new(Origin::File(path.to_owned()), fault))?;
    text::of(bytes, lenient).map_err(|NotUtf8 { line, column }| {
        ConfigError::new(Origin::Place { path: path.to_owned(), line, column }, Fault::NotUtf8)
    })
}

/// At most [`FILE_BYTES_MAX`] of them.
fn bytes(read: io::Result<Vec<u8>>) -> Result<Vec<u8>, Fault> {
    let bytes = read.map_err(Fault::Unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::TooLong { bytes_max: FILE_BYTES_MAX });
    }
    Ok(bytes)
}
