//! A mosquitto.conf: a line each of a directive's name, a space, and its value.
//!
//! What is not understood is refused: a directive that is skipped silently may be the one that keeps strangers out.
//! Three things are more lenient than in Mosquitto: tabs separate like spaces, a comment may be indented, and `#`
//! after a number or a boolean begins one.

mod bridge;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use pantala_broker::AcceptedVersions;
use pantala_store::Durability;
use pantala_tls::UserNameFrom;
use pantala_tls::ciphers::CipherList;
use pantala_transport::address::Network;
use pantala_transport::proxy::Versions;

use self::bridge::Bridge;
use super::SocketDomain;
use super::clients;
use super::draft::{self, Draft, ListenerDraft};
use super::error::{ConfigError, Fault, Origin, nearest};
use super::key::{self, number_within, word_of};
use super::log::{Facility, LogType, LogTypes};
use super::security::SecurityDraft;
use super::timestamp::Timestamp;
use super::tls::TlsDraft;
use super::transport::{self, Protocol};
use crate::text::Lenient;

/// Reads `text`, the content of `path`, and the files that it includes, into the draft.
pub(super) fn read(draft: &mut Draft, path: &Path, text: &str) -> Result<(), ConfigError> {
    draft.durability_default = Durability::Memory;
    // In Mosquitto whoever comes with its Client Identifier goes on with a Session.
    draft.sessions_belong_to_users = false;
    draft.believe_user_names = true;
    let mut reader = Reader {
        draft,
        unlisted: None,
        listed: Vec::new(),
        anonymous: None,
        unlisted_options: ListenerOptions::default(),
        per_listener: false,
        security_seen: false,
        security: SecurityOptions::default(),
        plugins: Vec::new(),
        log_types: None,
        log_timestamp: true,
        log_timestamp_format: None,
        log_destination_seen: false,
        tcp_no_delay: None,
        persistence_location: None,
        persistence_file: None,
        bridges: Vec::new(),
        bridge: None,
    };
    reader.file(path, text, Depth::Main)?;
    reader.finish()
}

/// Directives of Mosquitto's that are not supported yet. Those that end in `*` stand for all that begin so.
const UNSUPPORTED: &[&str] = &["http_dir"];

/// The directives that are understood, for the hints; a test holds them against what `Reader::directive` does.
const SUPPORTED: &[&str] = &[
    "accept_protocol_versions",
    "acl_file",
    "allow_anonymous",
    "allow_duplicate_messages",
    "allow_zero_length_clientid",
    "auth_plugin",
    "auth_plugin_deny_special_chars",
    "auto_id_prefix",
    "autosave_interval",
    "autosave_on_changes",
    "bind_address",
    "bind_interface",
    "cafile",
    "capath",
    "certfile",
    "check_retain_source",
    "ciphers",
    "ciphers_tls1.3",
    "clientid_prefixes",
    "connection_messages",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "enable_control_api",
    "enable_proxy_protocol",
    "global_max_clients",
    "global_max_connections",
    "global_plugin",
    "include_dir",
    "keyfile",
    "listener",
    "listener_allow_anonymous",
    "listener_auto_id_prefix",
    "log_dest",
    "log_facility",
    "log_timestamp",
    "log_timestamp_format",
    "log_type",
    "max_connections",
    "max_inflight_bytes",
    "max_inflight_messages",
    "max_keepalive",
    "max_packet_size",
    "max_qos",
    "max_queued_bytes",
    "max_queued_messages",
    "max_topic_alias",
    "max_topic_alias_broker",
    "maximum_qos",
    "memory_limit",
    "message_size_limit",
    "mount_point",
    "packet_buffer_size",
    "password_file",
    "per_listener_settings",
    "persistence",
    "persistence_file",
    "persistence_location",
    "persistent_client_expiration",
    "pid_file",
    "plugin",
    "plugin_load",
    "plugin_use",
    "port",
    "protocol",
    "proxy_protocol_v2_require_tls",
    "psk_file",
    "psk_hint",
    "queue_qos0_messages",
    "require_certificate",
    "retain_available",
    "retain_expiry_interval",
    "retained_persistence",
    "retry_interval",
    "set_tcp_nodelay",
    "socket_domain",
    "sys_interval",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "tls_version",
    "upgrade_outgoing_qos",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
    "user",
    "websockets_headers_size",
    "websockets_log_level",
    "websockets_origin",
];

/// Those that say how TLS is to be, where there is a certificate.
const TLS_DIRECTIVES: &[&str] = &[
    "cafile",
    "capath",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "disable_client_cert_date_checks",
    "keyfile",
    "require_certificate",
    "tls_version",
    "use_identity_as_username",
    "use_subject_as_username",
];

const NO_ENGINES: &str = "there are no OpenSSL engines; keys are in files";
const NO_SHARED_KEYS: &str = "TLS with pre-shared keys is not offered; clients can have certificates";

/// The main file may include others, those may not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Main,
    Included,
}

/// A listener and what a draft of it has no place for.
struct OwnListener {
    draft: ListenerDraft,
    options: ListenerOptions,
    /// `listener_allow_anonymous`, which stands above all else.
    allow_anonymous: Option<bool>,
    /// `listener_auto_id_prefix`, the same.
    auto_id_prefix: Option<String>,
    /// `use_identity_as_username`, and the same with `subject`: apart, as one that is off takes nothing back of the other.
    identity_is_user_name: bool,
    subject_is_user_name: bool,
    /// Where its directives of TLS stand, by their names.
    tls_lines: BTreeMap<String, Origin>,
    /// Where `proxy_protocol_v2_require_tls true` stands.
    proxy_requires_tls: Option<Origin>,
}

impl OwnListener {
    fn new(draft: ListenerDraft) -> Self {
        Self {
            draft,
            options: ListenerOptions::default(),
            allow_anonymous: None,
            auto_id_prefix: None,
            identity_is_user_name: false,
            subject_is_user_name: false,
            tls_lines: BTreeMap::new(),
            proxy_requires_tls: None,
        }
    }
}

/// Settings of a listener when `per_listener_settings` is on, of the broker otherwise.
#[derive(Default)]
struct ListenerOptions {
    allow_anonymous: Option<bool>,
    allow_zero_length_client_id: Option<bool>,
    auto_id_prefix: Option<String>,
    client_id_prefixes: Vec<String>,
    security: SecurityOptions,
}

/// The files of a security domain.
#[derive(Default)]
struct SecurityOptions {
    password_file: Option<NamedFile>,
    acl_file: Option<NamedFile>,
    dynamic_security_file: Option<NamedFile>,
}

/// A file, and what names it.
#[derive(Clone)]
struct NamedFile {
    path: PathBuf,
    directive: &'static str,
    origin: Origin,
}

/// A plugin of Mosquitto's that is a part of this broker.
struct Plugin {
    kind: PluginKind,
    /// What `plugin_use` calls it.
    name: Option<String>,
    /// The listeners it is for; None is the broker, or with settings per listener what stands before the first `listener` line.
    places: Vec<Option<usize>>,
    /// It is for those as well that are still to come.
    everywhere: bool,
    origin: Origin,
    /// The file that it reads.
    file: Option<NamedFile>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PluginKind {
    Password,
    Acl,
    DynamicSecurity,
    Sqlite,
    SparkplugAware,
}

impl PluginKind {
    /// The directive that names its file, if it reads one.
    fn directive(self) -> Option<&'static str> {
        match self {
            Self::Password => Some("plugin_opt_password_file"),
            Self::Acl => Some("plugin_opt_acl_file"),
            Self::DynamicSecurity => Some("plugin_opt_config_file"),
            Self::Sqlite | Self::SparkplugAware => None,
        }
    }
}

struct Reader<'a> {
    draft: &'a mut Draft,
    /// The listener that is there without a `listener` line, once a directive needs it.
    unlisted: Option<OwnListener>,
    listed: Vec<OwnListener>,
    /// `allow_anonymous` for all listeners.
    anonymous: Option<bool>,
    /// What stands before all `listener` lines when settings are per listener.
    unlisted_options: ListenerOptions,
    per_listener: bool,
    /// A directive was there that means something else once settings are per listener.
    security_seen: bool,
    /// The security domain of the broker.
    security: SecurityOptions,
    plugins: Vec<Plugin>,
    /// None: no `log_type` yet.
    log_types: Option<LogTypes>,
    log_timestamp: bool,
    log_timestamp_format: Option<Timestamp>,
    log_destination_seen: bool,
    tcp_no_delay: Option<bool>,
    persistence_location: Option<PathBuf>,
    persistence_file: Option<PathBuf>,
    bridges: Vec<Bridge>,
    /// The bridge that the file is at.
    bridge: Option<usize>,
}

/// A line with a directive.
struct Directive<'t> {
    name: &'t str,
    /// All after the name, without blanks around it. Never empty.
    value: &'t str,
    origin: Origin,
}

impl Directive<'_> {
    /// The first word of the value, if nothing but a comment follows.
    fn word(&self) -> Result<&str, Fault> {
        let (word, rest) = split(self.value);
        if rest.is_empty() || rest.starts_with('#') {
            return Ok(word);
        }
        Err(Fault::TrailingText { name: self.name.to_owned(), text: rest.to_owned() })
    }

    fn switch(&self) -> Result<bool, Fault> {
        Ok(matches!(word_of(self.name, self.word()?, &["true", "false", "1", "0"])?, "true" | "1"))
    }

    fn number(&self, min: u64, max: u64) -> Result<u64, Fault> {
        let word = self.word()?;
        number_within(self.name, word.parse().ok(), word.to_owned(), min, max, None)
    }

    /// A number that says no limit by being zero or, in older files, negative.
    fn limit(&self, max: u64) -> Result<u64, Fault> {
        let word = self.word()?;
        if word == "-1" {
            return Ok(0);
        }
        self.number(0, max).map_err(|fault| match fault {
            Fault::OutOfRange { key, given, max, word, .. } => Fault::OutOfRange { key, given, min: -1, max, word },
            other => other,
        })
    }

    /// All of the value: paths may have spaces.
    fn path(&self) -> Result<PathBuf, Fault> {
        self.text(|text| if text.contains('\0') { Err("a path has no NUL") } else { Ok(PathBuf::from(text)) })
    }

    fn text<T>(&self, check: impl FnOnce(String) -> Result<T, &'static str>) -> Result<T, Fault> {
        only_utf8(self.value)?;
        check(self.value.to_owned()).map_err(|reason| Fault::BadText {
            key: self.name.to_owned(),
            given: self.value.to_owned(),
            reason,
        })
    }
}

/// What looks like a comment is a part of some values; nothing in those may have been replaced.
fn only_utf8(value: &str) -> Result<(), Fault> {
    if value.contains(char::REPLACEMENT_CHARACTER) { Err(Fault::NotUtf8) } else { Ok(()) }
}

/// The first word and what follows it.
fn split(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, text: &str, depth: Depth) -> Result<(), ConfigError> {
        // Each file begins in front of its first `listener` line, and the file that includes it goes on where it was.
        let mut current = None;
        let outer_bridge = self.bridge.take();
        // Editors of Windows put a mark of UTF-8 in front.
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        for (index, line) in text.split('\n').enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = split(line);
            let origin = Origin::Line { path: path.to_owned(), line: index + 1 };
            let directive = Directive { name, value, origin: origin.clone() };
            if name == "include_dir" && depth == Depth::Main && !value.is_empty() {
                self.include(&directive)?;
                continue;
            }
            self.directive(&directive, &mut current).map_err(|fault| ConfigError::new(origin, fault))?;
        }
        self.bridge = outer_bridge;
        Ok(())
    }

    /// Reads the `*.conf` of a directory, in the order of the bytes of their names.
    fn include(&mut self, directive: &Directive<'_>) -> Result<(), ConfigError> {
        let directory = directive.path().map_err(|fault| ConfigError::new(directive.origin.clone(), fault))?;
        // The line is what can be changed.
        let unreadable = |path: &Path, error| {
            ConfigError::new(directive.origin.clone(), Fault::SecretUnreadable { path: path.to_owned(), error })
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&directory).map_err(|error| unreadable(&directory, error))? {
            let path = entry.map_err(|error| unreadable(&directory, error))?.path();
            if path.extension().is_some_and(|extension| extension == "conf") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let text = draft::read(&path, Lenient::Comments)?;
            self.file(&path, &text, Depth::Included)?;
        }
        Ok(())
    }

    fn directive(&mut self, line: &Directive<'_>, current: &mut Option<usize>) -> Result<(), Fault> {
        let is_bridge = bridge::is_directive(line.name);
        let option = line.name.strip_prefix("plugin_opt_").or_else(|| line.name.strip_prefix("auth_opt_"));
        if option.is_none() && !SUPPORTED.contains(&line.name) && !is_bridge {
            return Err(unknown(line.name));
        }
        if line.value.is_empty() {
            return Err(Fault::NoValue { name: line.name.to_owned() });
        }
        if is_bridge {
            return bridge::read(&mut self.bridges, &mut self.bridge, line);
        }
        if let Some(option) = option {
            return self.plugin_option(line, option);
        }
        const LENGTH_MAX: u64 = i64::MAX as u64;
        if TLS_DIRECTIVES.contains(&line.name) {
            let lines = &mut self.current(line, *current).tls_lines;
            lines.insert(line.name.to_owned(), line.origin.clone());
        }
        let settings = &mut self.draft.settings;
        match line.name {
            "listener" => {
                let listener = listener(line)?;
                self.listed.push(listener);
                *current = Some(self.listed.len() - 1);
            }
            "port" => {
                let port = port(line.name, line.word()?, 1)?;
                self.unlisted(line).draft.port = Some(port);
            }
            "bind_address" => {
                let host = line.text(key::host_name)?;
                self.unlisted(line).draft.host = Some(host);
            }
            "bind_interface" => {
                let interface = line.text(key::host_name)?;
                let listener = self.current(line, *current);
                if listener.draft.host.is_some() || listener.draft.unix_path.is_some() {
                    let reason = "cannot be for a listener that has an address already";
                    return Err(Fault::WrongPlace { name: "bind_interface", reason });
                }
                listener.draft.host = Some(interface);
            }
            "socket_domain" => {
                let domain = match word_of(line.name, line.word()?, &["ipv4", "ipv6"])? {
                    "ipv4" => SocketDomain::Ipv4,
                    _ => SocketDomain::Ipv6,
                };
                self.current(line, *current).draft.socket_domain = domain;
            }
            "protocol" => {
                let protocol = match word_of(line.name, line.word()?, &["mqtt", "websockets", "http_api"])? {
                    "mqtt" => Protocol::Mqtt,
                    "websockets" => Protocol::WebSocket,
                    other => return Err(Fault::UnsupportedValue { name: "protocol", value: other.to_owned() }),
                };
                // In front of all listeners the usual one makes none, as in Mosquitto.
                if protocol != Protocol::Mqtt || current.is_some() || self.unlisted.is_some() {
                    self.current(line, *current).draft.transport.protocol = Some(protocol);
                }
            }
            "websockets_origin" => {
                let origin = line.text(|text| transport::origin(&text))?;
                self.current(line, *current).draft.transport.websocket_origins.get_or_insert_default().push(origin);
            }
            "enable_proxy_protocol" => {
                let versions = if line.number(1, 2)? == 1 { Versions::V1 } else { Versions::V2 };
                let transport = &mut self.current(line, *current).draft.transport;
                transport.proxy_protocol = Some(versions);
                transport.proxy_trusted = Some(vec![
                    Network::all(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                    Network::all(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
                ]);
                self.warn(line, "believes everybody who connects: let nobody but the proxy reach this listener");
            }
            "proxy_protocol_v2_require_tls" => {
                let require = line.switch()?;
                let listener = self.current(line, *current);
                listener.draft.transport.proxy_require_tls = require;
                listener.proxy_requires_tls = require.then(|| line.origin.clone());
            }
            "max_connections" => {
                let connections_max = key::count(Some(line.limit(i32::MAX as u64)?));
                self.current(line, *current).draft.connections_max = connections_max;
            }
            "max_qos" | "maximum_qos" => {
                let maximum_qos = key::qos(Some(line.number(0, 2)?));
                self.current(line, *current).draft.maximum_qos = maximum_qos;
            }
            "max_topic_alias" => {
                let max = line.number(0, 65_535)? as u16;
                self.current(line, *current).draft.topic_alias_max = Some(max);
            }
            "max_topic_alias_broker" => {
                let max = line.number(0, 65_535)? as u16;
                self.current(line, *current).draft.topic_alias_broker_max = Some(max);
            }
            "mount_point" => {
                let mount_point = line.text(clients::mount_point)?;
                self.current(line, *current).draft.clients.mount_point = Some(mount_point);
            }
            "accept_protocol_versions" => {
                let versions = accepted_versions(line)?;
                self.current(line, *current).draft.clients.versions = versions;
            }
            "use_username_as_clientid" => {
                let on = line.switch()?;
                self.current(line, *current).draft.clients.use_user_name_as_client_id = on;
            }
            "listener_allow_anonymous" => {
                let allow = line.switch()?;
                self.current(line, *current).allow_anonymous = Some(allow);
            }

            "listener_auto_id_prefix" => {
                let prefix = line.text(key::client_id_prefix)?;
                self.current(line, *current).auto_id_prefix = Some(prefix);
            }
            "certfile" => {
                let path = line.text(key::path)?;
                let tls = &mut self.current(line, *current).draft.tls;
                tls.places.entry(path.clone()).or_insert_with(|| (line.name.to_owned(), line.origin.clone()));
                tls.certificate_files = vec![path];
            }
            "keyfile" => {
                let path = line.text(key::path)?;
                let tls = &mut self.current(line, *current).draft.tls;
                tls.places.entry(path.clone()).or_insert_with(|| (line.name.to_owned(), line.origin.clone()));
                tls.key_files = vec![path];
            }
            "cafile" | "capath" => {
                let path = line.text(key::path)?;
                let tls = &mut self.current(line, *current).draft.tls;
                tls.places.entry(path.clone()).or_insert_with(|| (line.name.to_owned(), line.origin.clone()));
                tls.client_ca_files.push(path);
            }
            "crlfile" => {
                let path = line.text(key::path)?;
                let tls = &mut self.current(line, *current).draft.tls;
                tls.places.entry(path.clone()).or_insert_with(|| (line.name.to_owned(), line.origin.clone()));
                tls.crl_files = vec![path];
            }
            "require_certificate" => {
                let require = line.switch()?;
                self.current(line, *current).draft.tls.require_certificate = Some(require);
            }
            "use_identity_as_username" => {
                let on = line.switch()?;
                self.current(line, *current).identity_is_user_name = on;
            }
            "use_subject_as_username" => {
                let on = line.switch()?;
                self.current(line, *current).subject_is_user_name = on;
            }
            "disable_client_cert_date_checks" => {
                let ignore = line.switch()?;
                self.current(line, *current).draft.tls.ignore_certificate_dates = ignore;
            }
            "tls_version" => {
                let versions = match line.word()? {
                    "tlsv1" | "tlsv1.0" | "tlsv1.1" => {
                        let reason = "TLS 1.1 and older can be broken; tlsv1.2 is the oldest there is";
                        let (key, given) = (line.name.to_owned(), line.value.to_owned());
                        return Err(Fault::BadText { key, given, reason });
                    }
                    word => match word_of(line.name, word, &["tlsv1.3", "tlsv1.2"])? {
                        "tlsv1.3" => vec!["1.3"],
                        _ => vec!["1.2", "1.3"],
                    },
                };
                self.current(line, *current).draft.tls.versions = versions;
            }
            "ciphers" | "ciphers_tls1.3" => {
                let list = CipherList::parse(line.value);
                for name in &list.unknown {
                    self.warn(line, &format!("names {}, which there is not", name.escape_debug()));
                }
                // Each of the two directives has its own version's. OpenSSL's lists are all that is not taken out.
                let own = |name: &str| name.starts_with("TLS_") == (line.name == "ciphers_tls1.3");
                let names_some =
                    line.value.split([':', ',', ';', ' ', '\t']).any(|word| !word.starts_with(['!', '-', '@']));
                if names_some && list.known.is_empty() {
                    let reason = "there is none of these cipher suites; docs/tls.md lists those there are";
                    return Err(Fault::BadText { key: line.name.to_owned(), given: line.value.to_owned(), reason });
                }
                let known: Vec<_> = list.known.into_iter().filter(|name| own(name)).collect();
                if names_some && known.is_empty() {
                    let other = if line.name == "ciphers" { "ciphers_tls1.3" } else { "ciphers" };
                    self.warn(line, &format!("has no effect: these suites are for {other}"));
                }
                let ciphers = &mut self.current(line, *current).draft.tls.ciphers;
                ciphers.retain(|name| !own(name));
                ciphers.extend(known);
            }
            "dhparamfile" => self.warn(line, "has no effect: keys are exchanged over elliptic curves only"),
            "tls_keyform" => match word_of(line.name, line.word()?, &["pem", "engine"])? {
                "pem" => {}
                _ => return Err(Fault::NotOffered { name: "tls_keyform engine", reason: NO_ENGINES }),
            },
            "tls_engine" => return Err(Fault::NotOffered { name: "tls_engine", reason: NO_ENGINES }),
            "tls_engine_kpass_sha1" => {
                return Err(Fault::NotOffered { name: "tls_engine_kpass_sha1", reason: NO_ENGINES });
            }
            "psk_hint" => return Err(Fault::NotOffered { name: "psk_hint", reason: NO_SHARED_KEYS }),
            "psk_file" => return Err(Fault::NotOffered { name: "psk_file", reason: NO_SHARED_KEYS }),

            "per_listener_settings" => {
                let on = line.switch()?;
                if on && (self.security_seen || !self.listed.is_empty()) {
                    let reason = "has to stand in front of all listeners and security settings";
                    return Err(Fault::WrongPlace { name: "per_listener_settings", reason });
                }
                self.per_listener = on;
            }
            "allow_anonymous" => {
                let allow = line.switch()?;
                match self.options(*current) {
                    Some(options) => options.allow_anonymous = Some(allow),
                    None => self.anonymous = Some(allow),
                }
            }
            "password_file" => {
                let file = NamedFile { path: line.path()?, directive: "password_file", origin: line.origin.clone() };
                self.security_options(*current).password_file = Some(file);
            }
            "acl_file" => {
                let file = NamedFile { path: line.path()?, directive: "acl_file", origin: line.origin.clone() };
                self.security_options(*current).acl_file = Some(file);
            }
            "plugin" | "auth_plugin" => {
                self.security_seen = true;
                let place = current.filter(|_| self.per_listener);
                self.plugin(line, line.value, None, vec![place])?;
            }
            "global_plugin" => {
                self.plugin(line, line.value, None, vec![None])?;
                if let Some(plugin) = self.plugins.last_mut() {
                    plugin.everywhere = true;
                }
            }
            "plugin_load" => {
                let (name, path) = split(line.value);
                if path.is_empty() {
                    return Err(Fault::NoValue { name: "plugin_load NAME".to_owned() });
                }
                self.plugin(line, path, Some(name.to_owned()), Vec::new())?;
            }
            "plugin_use" => {
                self.security_seen = true;
                let place = current.filter(|_| self.per_listener);
                let name = line.word()?;
                let loaded = self.plugins.iter_mut().find(|plugin| plugin.name.as_deref() == Some(name));
                let Some(plugin) = loaded else {
                    let reason = "no plugin_load above has this name";
                    return Err(Fault::BadText { key: line.name.to_owned(), given: name.to_owned(), reason });
                };
                plugin.places.push(place);
            }
            "auth_plugin_deny_special_chars" => {
                if !line.switch()? {
                    self.warn(line, "has no effect: a name with such characters is never put into a rule");
                }
            }
            "allow_zero_length_clientid" => {
                let allow = line.switch()?;
                match self.options(*current) {
                    Some(options) => options.allow_zero_length_client_id = Some(allow),
                    None => self.draft.settings.allow_zero_length_client_id = allow,
                }
            }
            "auto_id_prefix" => {
                let prefix = line.text(key::client_id_prefix)?;
                match self.options(*current) {
                    Some(options) => options.auto_id_prefix = Some(prefix),
                    None => self.draft.settings.auto_id_prefix = prefix,
                }
            }

            "clientid_prefixes" => {
                let prefix = line.text(|text| key::client_id_prefix(key::not_empty(text)?))?;
                match self.options(*current) {
                    Some(options) => options.client_id_prefixes = vec![prefix],
                    None => self.draft.client_id_prefixes = vec![prefix],
                }
            }

            "global_max_clients" => settings.sessions_max = key::count(Some(line.limit(i32::MAX as u64)?)),
            "global_max_connections" => settings.connections_max = key::count(Some(line.limit(i32::MAX as u64)?)),
            "max_inflight_messages" => {
                // One directive for both directions, and no limit is the largest that MQTT has.
                let max = match line.limit(65_535)? {
                    0 => 65_535,
                    max => max as u16,
                };
                settings.inflight_messages_max = max;
                settings.receive_maximum = max;
            }
            "max_inflight_bytes" => settings.inflight_bytes_max = line.limit(LENGTH_MAX)?,
            "max_queued_messages" => settings.queued_messages_max = line.limit(u32::MAX.into())? as u32,
            "max_queued_bytes" => settings.queued_bytes_max = line.limit(LENGTH_MAX)?,
            "max_keepalive" => settings.keep_alive_max = line.number(0, 65_535)? as u16,
            "max_packet_size" => settings.packet_bytes_max = line.number(20, 268_435_460)? as u32,
            "message_size_limit" => settings.payload_bytes_max = line.number(0, 268_435_455)? as u32,
            "retain_available" => settings.retain_available = line.switch()?,
            "queue_qos0_messages" => settings.queue_qos0_messages = line.switch()?,
            "upgrade_outgoing_qos" => settings.upgrade_outgoing_qos = line.switch()?,
            "allow_duplicate_messages" => settings.allow_duplicate_messages = line.switch()?,
            "check_retain_source" => settings.check_retain_source = line.switch()?,
            "persistent_client_expiration" => settings.session_expiry_max = Some(expiration(line)?),
            "set_tcp_nodelay" => self.tcp_no_delay = Some(line.switch()?),

            "persistence" | "retained_persistence" => {
                let durability = if line.switch()? { Durability::Fsync } else { Durability::Memory };
                self.draft.durability = Some(durability);
            }
            "persistence_location" => {
                // A directory of its own, so that our files and mosquitto.db stay apart.
                let location = line.path()?;
                self.draft.data_dir = Some(location.join("pantala"));
                self.persistence_location = Some(location);
            }

            "connection_messages" => self.draft.log.connection_messages = line.switch()?,
            "log_timestamp" => self.log_timestamp = line.switch()?,
            "log_timestamp_format" => {
                self.log_timestamp_format = Some(line.text(|text| match Timestamp::parse(&text) {
                    Ok(Timestamp::Pattern(pattern)) => Ok(Timestamp::Pattern(pattern)),
                    // The words of our own format are plain text here.
                    Ok(_) => Ok(Timestamp::Pattern(text)),
                    Err(_) => Err(key::BAD_TIMESTAMP),
                })?);
            }
            "log_type" => {
                let word = word_of(line.name, line.word()?, &LogType::NAMES)?;
                self.log_types = Some(self.log_types.unwrap_or(LogTypes::NONE).and_named(word));
            }
            "log_dest" => self.log_dest(line)?,

            // What Mosquitto itself ignores, or what has nothing to act upon here.
            "retry_interval" => {
                line.number(0, LENGTH_MAX)?;
                self.warn(line, "has no effect: MQTT messages are sent again after a reconnect only");
            }
            "autosave_interval" => {
                line.number(0, LENGTH_MAX)?;
                self.warn(line, "has no effect: there are no snapshots to be saved");
            }
            "autosave_on_changes" => {
                line.switch()?;
                self.warn(line, "has no effect: there are no snapshots to be saved");
            }
            "retain_expiry_interval" => {
                line.number(0, LENGTH_MAX)?;
                self.warn(line, "has no effect: Retained Messages that have expired are looked for all the time");
            }
            "enable_control_api" => {
                self.draft.control_api = line.switch()?;
            }
            "packet_buffer_size" | "websockets_headers_size" => {
                line.number(0, LENGTH_MAX)?;
                self.warn(
                    line,
                    "has no effect: buffers have the size that is needed, and requests 16384 bytes at most",
                );
            }
            "websockets_log_level" => {
                line.number(0, LENGTH_MAX)?;
                self.warn(line, "has no effect: WebSocket has no log of its own");
            }
            "persistence_file" => self.persistence_file = Some(line.path()?),
            "sys_interval" => {
                self.draft.sys_interval_seconds = line.number(0, key::SYS_INTERVAL_MAX)? as u32;
            }
            "pid_file" => self.draft.pid_file = Some(line.path()?),
            "user" => self.draft.user = Some(line.text(key::user_name)?),
            "memory_limit" => {
                // Zero means no limit there, too.
                self.draft.memory_bytes_max = Some(line.limit(LENGTH_MAX)?);
            }
            "log_facility" => self.draft.log.facility = Facility::local(line.number(0, 7)?),
            "include_dir" => self.warn(line, "has no effect in a file that is included itself"),
            _ => unreachable!("SUPPORTED lists what is matched here, as a test asserts"),
        }
        Ok(())
    }

    fn log_dest(&mut self, line: &Directive<'_>) -> Result<(), Fault> {
        const DESTINATIONS: &[&str] = &["stderr", "stdout", "file", "none", "syslog", "topic", "dlt", "android"];
        let (word, rest) = split(line.value);
        let destination = word_of(line.name, word, DESTINATIONS)?;
        let log = &mut self.draft.log;
        // The first one replaces the default, the others add to it; `none` takes back all before it.
        if !std::mem::replace(&mut self.log_destination_seen, true) || destination == "none" {
            (log.stderr, log.stdout, log.syslog, log.topic, log.file) = (false, false, false, false, None);
            self.draft.log_destinations_written = true;
        }
        if destination == "file" {
            if rest.is_empty() {
                return Err(Fault::NoValue { name: "log_dest file".to_owned() });
            }
            only_utf8(rest)?;
            log.file = Some(PathBuf::from(rest));
            return Ok(());
        }
        match line.word()? {
            "stderr" => log.stderr = true,
            "stdout" => log.stdout = true,
            "none" => {}
            "syslog" => log.syslog = true,
            "topic" => log.topic = true,
            _ => self.warn(line, "has no effect: that log is not supported"),
        }
        Ok(())
    }

    fn warn(&mut self, line: &Directive<'_>, text: &str) {
        self.draft.warnings.push(format!("{}: directive \"{}\" {text}", line.origin, line.name));
    }

    /// The listener without a `listener` line.
    fn unlisted(&mut self, line: &Directive<'_>) -> &mut OwnListener {
        self.unlisted.get_or_insert_with(|| {
            let mut draft = ListenerDraft::new(line.origin.clone(), true);
            draft.movable = true;
            OwnListener::new(draft)
        })
    }

    /// The listener that a directive on this line is about.
    fn current(&mut self, line: &Directive<'_>, current: Option<usize>) -> &mut OwnListener {
        match current {
            Some(index) => &mut self.listed[index],
            None => self.unlisted(line),
        }
    }

    /// Where a security setting goes; None is to the broker as a whole.
    fn options(&mut self, current: Option<usize>) -> Option<&mut ListenerOptions> {
        self.security_seen = true;
        match (self.per_listener, current) {
            (false, _) => None,
            (true, Some(index)) => Some(&mut self.listed[index].options),
            (true, None) => Some(&mut self.unlisted_options),
        }
    }

    /// Where the files of a security domain go.
    fn security_options(&mut self, current: Option<usize>) -> &mut SecurityOptions {
        self.security_seen = true;
        match (self.per_listener, current) {
            (false, _) => &mut self.security,
            (true, Some(index)) => &mut self.listed[index].options.security,
            (true, None) => &mut self.unlisted_options.security,
        }
    }

    /// A plugin by the name of its file. What it does for Mosquitto is done here; nothing is loaded.
    fn plugin(
        &mut self,
        line: &Directive<'_>,
        path: &str,
        name: Option<String>,
        places: Vec<Option<usize>>,
    ) -> Result<(), Fault> {
        let file = path.rsplit('/').next().unwrap_or_default();
        let kind = match file {
            "mosquitto_password_file.so" => PluginKind::Password,
            "mosquitto_acl_file.so" => PluginKind::Acl,
            "mosquitto_persist_sqlite.so" => PluginKind::Sqlite,
            "mosquitto_dynamic_security.so" => PluginKind::DynamicSecurity,
            "mosquitto_sparkplug_aware.so" => PluginKind::SparkplugAware,
            _ => {
                let reason = "no shared object is loaded here; mosquitto_password_file.so, mosquitto_acl_file.so, \
                              mosquitto_dynamic_security.so, mosquitto_persist_sqlite.so and mosquitto_sparkplug_aware.so are built in, and \
                              `[[security]]` in a .toml asks HTTP services";
                return Err(Fault::BadText { key: line.name.to_owned(), given: path.to_owned(), reason });
            }
        };
        if kind == PluginKind::Sqlite {
            self.draft.durability = Some(Durability::Fsync);
        }
        self.plugins.push(Plugin { kind, name, places, everywhere: false, origin: line.origin.clone(), file: None });
        Ok(())
    }

    fn plugin_option(&mut self, line: &Directive<'_>, option: &str) -> Result<(), Fault> {
        let path = line.path()?;
        let Some(plugin) = self.plugins.last_mut() else {
            let reason = "has to stand behind the plugin that it is for";
            return Err(Fault::WrongPlace { name: "plugin_opt_", reason });
        };
        let nearest = plugin.kind.directive();
        match plugin.kind {
            PluginKind::Sqlite => self.warn(line, "has no effect: data is kept in a format of our own"),
            PluginKind::SparkplugAware => self.warn(line, "has no effect: that plugin has no options"),
            _ => match nearest.filter(|it| it.strip_prefix("plugin_opt_") == Some(option)) {
                Some(directive) => {
                    plugin.file = Some(NamedFile { path, directive, origin: line.origin.clone() });
                }
                None => return Err(Fault::UnknownDirective { name: line.name.to_owned(), nearest }),
            },
        }
        Ok(())
    }

    /// Gives the plugins' files to the domains they are for.
    fn place_plugins(&mut self) -> Result<(), ConfigError> {
        for plugin in std::mem::take(&mut self.plugins) {
            // One that was loaded and is used nowhere does nothing.
            if plugin.kind == PluginKind::SparkplugAware && (plugin.everywhere || !plugin.places.is_empty()) {
                self.draft.settings.sparkplug_aware = true;
                if self.per_listener && !plugin.everywhere {
                    let origin = &plugin.origin;
                    let text = "mosquitto_sparkplug_aware.so is for the clients of all listeners";
                    self.draft.warnings.push(format!("{origin}: {text}"));
                }
            }
            let Some(directive) = plugin.kind.directive() else { continue };
            let Some(file) = plugin.file else {
                let name = directive.to_owned();
                return Err(ConfigError::new(plugin.origin, Fault::NoValue { name }));
            };
            let mut places = plugin.places;
            if plugin.everywhere && self.per_listener {
                places.retain(|_| self.unlisted.is_some() || self.listed.is_empty());
                places.extend((0..self.listed.len()).map(Some));
            }
            for place in places {
                let options = self.security_options(place);
                match plugin.kind {
                    PluginKind::Password => options.password_file = Some(file.clone()),
                    PluginKind::DynamicSecurity => options.dynamic_security_file = Some(file.clone()),
                    _ => options.acl_file = Some(file.clone()),
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), ConfigError> {
        self.place_plugins()?;
        let log = &mut self.draft.log;
        log.types = self.log_types.unwrap_or(log.types);
        log.timestamp = match self.log_timestamp_format.take() {
            _ if !self.log_timestamp => Timestamp::Off,
            Some(format) => format,
            None => Timestamp::EpochSeconds,
        };
        self.draft.tcp_no_delay = self.tcp_no_delay.unwrap_or(self.draft.tcp_no_delay);
        // Where what Mosquitto has kept lies, if it keeps anything: by default where the broker was started.
        let kept = matches!(self.draft.durability, Some(Durability::Fsync | Durability::Os));
        if kept {
            let file = self.persistence_file.take().unwrap_or_else(|| PathBuf::from("mosquitto.db"));
            self.draft.import_file = Some(self.persistence_location.take().unwrap_or_default().join(file));
        }

        let mut listeners: Vec<OwnListener> = Vec::new();
        let unlisted_anonymous = self.unlisted_options.allow_anonymous;
        if let Some(mut listener) = self.unlisted.take() {
            listener.options = self.unlisted_options;
            listeners.push(listener);
        } else if self.listed.is_empty() {
            // No listener at all: what is said of the unwritten one holds for the broker.
            let ListenerOptions { allow_zero_length_client_id, auto_id_prefix, security, client_id_prefixes, .. } =
                self.unlisted_options;
            self.draft.security.extend(security_draft(security, None)?);
            if self.per_listener {
                self.draft.client_id_prefixes = client_id_prefixes;
            }
            let settings = &mut self.draft.settings;
            settings.allow_zero_length_client_id =
                allow_zero_length_client_id.unwrap_or(settings.allow_zero_length_client_id);
            if let Some(prefix) = auto_id_prefix {
                settings.auto_id_prefix = prefix;
            }
        } else {
            let SecurityOptions { password_file, acl_file, dynamic_security_file } = self.unlisted_options.security;
            for NamedFile { directive, origin, .. } in
                [password_file, acl_file, dynamic_security_file].into_iter().flatten()
            {
                self.draft.warnings.push(format!(
                    "{origin}: directive \"{directive}\" has no effect: with per_listener_settings it is for the listener \
                     whose line stands above it"
                ));
            }
        }
        listeners.append(&mut self.listed);
        bridge::refuse(std::mem::take(&mut self.bridges))?;
        self.draft.security.extend(security_draft(std::mem::take(&mut self.security), None)?);

        let anonymous = self.anonymous.or(unlisted_anonymous);
        self.draft.loopback_anonymous = anonymous.unwrap_or(listeners.is_empty());
        for mut listener in listeners {
            let of_all = if self.per_listener { listener.options.allow_anonymous } else { self.anonymous };
            listener.draft.allow_anonymous = Some(listener.allow_anonymous.or(of_all).unwrap_or(false));
            listener.draft.tcp_no_delay = self.draft.tcp_no_delay;
            finish_tls(&mut listener, &mut self.draft.warnings)?;
            if let Some(origin) = listener.proxy_requires_tls
                && listener.draft.transport.proxy_protocol != Some(Versions::V2)
            {
                let fault =
                    Fault::DirectiveNeeds { name: "proxy_protocol_v2_require_tls", key: "enable_proxy_protocol 2" };
                return Err(ConfigError::new(origin, fault));
            }
            let clients = &mut listener.draft.clients;
            clients.allow_zero_length_client_id = listener.options.allow_zero_length_client_id;
            clients.auto_id_prefix = listener.auto_id_prefix.or(listener.options.auto_id_prefix);
            let mut name = listener.draft.domain_name();
            let is_taken = |draft: &Draft, name: &str| draft.security.iter().any(|it| it.name.as_deref() == Some(name));
            // One for IPv4 and one for IPv6 may share a port.
            if is_taken(self.draft, &name) && listener.draft.socket_domain != SocketDomain::Both {
                name = format!("{name} {}", listener.draft.socket_domain.name());
            }
            if let Some(domain) = security_draft(listener.options.security, Some(name.clone()))? {
                if is_taken(self.draft, &name) {
                    return Err(ConfigError::new(listener.draft.origin, Fault::Twice { what: format!("\"{name}\"") }));
                }
                self.draft.security.push(domain);
                listener.draft.security = Some(name);
            }
            // Elsewhere they have no effect in Mosquitto either.
            if listener.draft.transport.protocol != Some(Protocol::WebSocket) {
                listener.draft.transport.websocket_origins = None;
            }
            if self.per_listener {
                listener.draft.clients.client_id_prefixes = Some(listener.options.client_id_prefixes);
            }
            self.draft.listeners.push(listener.draft);
        }
        Ok(())
    }
}

/// What Mosquitto means by silence.
fn finish_tls(listener: &mut OwnListener, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let OwnListener { draft, tls_lines, .. } = listener;
    // Where both are on, Mosquitto takes the Common Name.
    draft.tls.user_name_from_certificate = match (listener.identity_is_user_name, listener.subject_is_user_name) {
        (true, _) => UserNameFrom::CommonName,
        (false, true) => UserNameFrom::Subject,
        (false, false) => UserNameFrom::No,
    };
    let by_proxy = draft.transport.proxy_protocol == Some(Versions::V2);
    let tls = &mut draft.tls;
    let needs = |names: &[&'static str], key: &'static str| {
        let (name, origin) = names.iter().find_map(|&name| Some((name, tls_lines.get(name)?)))?;
        Some(ConfigError::new(origin.clone(), Fault::DirectiveNeeds { name, key }))
    };
    let named = tls.user_name_from_certificate != UserNameFrom::No;
    // What asks for a name, or for a certificate: the first one that is on.
    let asking: &[&str] = match tls.user_name_from_certificate {
        _ if tls.require_certificate == Some(true) => &["require_certificate"],
        UserNameFrom::CommonName => &["use_identity_as_username"],
        UserNameFrom::No => &[],
        _ => &["use_subject_as_username"],
    };
    if tls.certificate_files.is_empty() {
        let is_meant = !tls.key_files.is_empty() || !tls.client_ca_files.is_empty();
        // Without a certificate there is no TLS in Mosquitto, whatever else is said of it; that would let in whoever was to be kept out.
        // A proxy tells the Common Name, and no more.
        let told_by_proxy = by_proxy && tls.user_name_from_certificate != UserNameFrom::Subject;
        let safe_by_proxy = told_by_proxy && tls.require_certificate != Some(true);
        let asking = if safe_by_proxy { &[] } else { asking };
        let missing = needs(asking, "certfile")
            .or_else(|| needs(&["keyfile", "cafile", "capath"], "certfile").filter(|_| is_meant));
        if let Some(error) = missing {
            return Err(error);
        }
        let kept = if by_proxy { tls.user_name_from_certificate } else { UserNameFrom::No };
        for (name, origin) in tls_lines.iter().filter(|(name, _)| !name.starts_with("use_")) {
            warnings.push(format!("{origin}: directive \"{name}\" has no effect: the listener has no certfile"));
        }
        *tls = TlsDraft { user_name_from_certificate: kept, ..TlsDraft::default() };
        return Ok(());
    }
    let asked = tls.require_certificate == Some(true) || named;
    // Clients are not even asked for certificates that they need not have. What the chain lacks may be there all the same.
    if !asked {
        tls.chain_files = std::mem::take(&mut tls.client_ca_files);
        tls.crl_files.clear();
        tls.ignore_certificate_dates = false;
    } else if tls.client_ca_files.is_empty() {
        let origin = draft.origin.clone();
        let missing = Fault::Missing { key: "cafile", section: "listener" };
        return Err(needs(asking, "cafile").unwrap_or_else(|| ConfigError::new(origin, missing)));
    }
    tls.require_certificate = None;
    tls.alpn = Some(Vec::new());
    Ok(())
}

/// The security domain with these files, if there are any.
fn security_draft(options: SecurityOptions, name: Option<String>) -> Result<Option<SecurityDraft>, ConfigError> {
    let SecurityOptions { password_file, acl_file, dynamic_security_file } = options;
    let other = password_file.as_ref().or(acl_file.as_ref());
    let Some(first) = other.or(dynamic_security_file.as_ref()) else { return Ok(None) };
    if let (Some(other), Some(_)) = (other, &dynamic_security_file) {
        let reason =
            "cannot stand beside the plugin mosquitto_dynamic_security, whose file has users and rules of its own";
        return Err(ConfigError::new(other.origin.clone(), Fault::WrongPlace { name: other.directive, reason }));
    }
    let mut draft = SecurityDraft::new(first.origin.clone());
    draft.name = name;
    let places =
        [("password_file", &password_file), ("acl_file", &acl_file), ("dynamic_security_file", &dynamic_security_file)];
    draft.places = places.iter().filter_map(|(key, file)| Some((*key, file.as_ref()?.origin.clone()))).collect();
    draft.password_file = password_file.map(|file| file.path);
    draft.acl_file = acl_file.map(|file| file.path);
    draft.dynamic_security_file = dynamic_security_file.map(|file| file.path);
    Ok(Some(draft))
}

/// All directives that are known.
#[cfg(test)]
pub(super) fn directives() -> impl Iterator<Item = &'static str> {
    SUPPORTED.iter().chain(UNSUPPORTED).copied().chain(bridge::directives())
}

fn unknown(name: &str) -> Fault {
    if name == "http_dir" {
        let reason = "files are not served here; a web server in front can serve them and pass WebSocket on";
        return Fault::RefusedDirective { name: "http_dir", reason };
    }
    let unsupported = UNSUPPORTED.iter().any(|known| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *known,
    });
    if unsupported {
        return Fault::UnsupportedDirective { name: name.to_owned() };
    }
    let known =
        SUPPORTED.iter().chain(UNSUPPORTED).copied().chain(bridge::directives()).filter(|name| !name.ends_with('*'));
    Fault::UnknownDirective { name: name.to_owned(), nearest: nearest(name, known) }
}

fn port(name: &str, word: &str, min: u64) -> Result<u16, Fault> {
    number_within(name, word.parse().ok(), word.to_owned(), min, 65_535, None).map(|port| port as u16)
}

/// `listener PORT [ADDRESS]`, or `listener 0 PATH` for a Unix socket.
fn listener(line: &Directive<'_>) -> Result<OwnListener, Fault> {
    let bad = |given: &str, reason| Fault::BadText { key: "listener".to_owned(), given: given.to_owned(), reason };
    let (word, rest) = split(line.value);
    let port = port(line.name, word, 0)?;
    let rest = if rest.starts_with('#') { "" } else { rest };
    let mut draft = ListenerDraft::new(line.origin.clone(), true);
    match (port, rest.starts_with('/')) {
        (0, _) if rest.is_empty() => return Err(bad(line.value, "port 0 needs the path of a Unix socket after it")),
        // It may be one in the working directory, as other paths in these files may.
        (0, _) => {
            only_utf8(rest)?;
            draft.unix_path = Some(key::unix_path(rest.to_owned()).map_err(|reason| bad(rest, reason))?);
        }
        (_, true) => return Err(bad(line.value, "the path of a Unix socket needs port 0 before it")),
        (port, false) => {
            draft.port = Some(port);
            let host = rest.split_once(" #").map_or(rest, |(host, _)| host.trim_end());
            if !host.is_empty() {
                draft.host = Some(key::host_name(host.to_owned()).map_err(|reason| bad(host, reason))?);
            }
        }
    }
    Ok(OwnListener::new(draft))
}

/// Versions by the number that CONNECT has for them: `3,4,5`, with commas, blanks or both between.
fn accepted_versions(line: &Directive<'_>) -> Result<AcceptedVersions, Fault> {
    let mut versions = AcceptedVersions { v31: false, v311: false, v5: false };
    let bad = || {
        let (key, given) = (line.name.to_owned(), line.value.to_owned());
        let reason = "it has to be some of 3 (MQTT 3.1), 4 (3.1.1) and 5 (5.0), with commas between";
        Fault::BadText { key, given, reason }
    };
    let list = line.value.split('#').next().unwrap_or_default();
    for version in list.split([',', ' ', '\t']).filter(|version| !version.is_empty()) {
        match version {
            "3" => versions.v31 = true,
            "4" => versions.v311 = true,
            "5" => versions.v5 = true,
            _ => return Err(bad()),
        }
    }
    let some = versions.v31 || versions.v311 || versions.v5;
    if some { Ok(versions) } else { Err(bad()) }
}

/// A duration, `14d`, in seconds. A month has 30 days and a year 365.
fn expiration(line: &Directive<'_>) -> Result<u32, Fault> {
    let word = line.word()?;
    let bad = || Fault::BadText {
        key: line.name.to_owned(),
        given: word.to_owned(),
        reason: "it has to be a number followed by s, h, d, w, m (30 days) or y (365 days), up to 136y",
    };
    let unit = word.chars().last().ok_or_else(bad)?;
    let seconds: u64 = match unit {
        's' => 1,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        'm' => 30 * 86_400,
        'y' => 365 * 86_400,
        _ => return Err(bad()),
    };
    let count: u64 = word[..word.len() - 1].parse().map_err(|_| bad())?;
    let seconds = count.checked_mul(seconds).and_then(|seconds| u32::try_from(seconds).ok());
    // The largest number means never in MQTT, which is what silence says already.
    seconds.filter(|seconds| (1..u32::MAX).contains(seconds)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_supported_directive_is_matched_and_none_is_on_both_lists() {
        for name in SUPPORTED {
            assert!(!UNSUPPORTED.contains(name), "{name}");
            let mut draft = Draft::new();
            // Whatever it says to such a value, it does not get to the arm that cannot be reached.
            let _ = read(&mut draft, Path::new("f.conf"), &format!("{name} 1"));
        }
        for list in [SUPPORTED, UNSUPPORTED] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }
}
