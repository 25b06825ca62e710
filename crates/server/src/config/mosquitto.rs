//! A mosquitto.conf: a line each of a directive's name, a space, and its value.
//!
//! What is not understood is refused: a directive that is skipped silently may be the one that keeps strangers out.
//! Three things are more lenient than in Mosquitto: tabs separate like spaces, a comment may be indented, and `#`
//! after a number or a boolean begins one.

use std::fs;
use std::path::{Path, PathBuf};

use pantala_store::Durability;

use super::SocketDomain;
use super::draft::{self, Draft, ListenerDraft};
use super::error::{ConfigError, Fault, Origin, nearest};
use super::key::{self, number_within, word_of};
use super::log::{Facility, LogType, LogTypes};
use super::timestamp::Timestamp;

/// Reads `text`, the content of `path`, and the files that it includes, into the draft.
pub(super) fn read(draft: &mut Draft, path: &Path, text: &str) -> Result<(), ConfigError> {
    draft.durability_default = Durability::Memory;
    let mut reader = Reader {
        draft,
        unlisted: None,
        listed: Vec::new(),
        anonymous: None,
        unlisted_options: ListenerOptions::default(),
        per_listener: false,
        security_seen: false,
        log_types: None,
        log_timestamp: true,
        log_timestamp_format: None,
        log_destination_seen: false,
        tcp_no_delay: None,
    };
    reader.file(path, text, Depth::Main)?;
    reader.finish()
}

/// Directives of Mosquitto's that are not supported yet. Those that end in `*` stand for all that begin so.
const UNSUPPORTED: &[&str] = &[
    "accept_protocol_versions",
    "acl_file",
    "address",
    "addresses",
    "auth_opt_*",
    "auth_plugin",
    "auth_plugin_deny_special_chars",
    "bind_interface",
    "bridge_alpn",
    "bridge_attempt_unsubscribe",
    "bridge_bind_address",
    "bridge_cafile",
    "bridge_capath",
    "bridge_certfile",
    "bridge_ciphers",
    "bridge_ciphers_tls1.3",
    "bridge_identity",
    "bridge_insecure",
    "bridge_keyfile",
    "bridge_max_packet_size",
    "bridge_max_topic_alias",
    "bridge_outgoing_retain",
    "bridge_protocol_version",
    "bridge_psk",
    "bridge_receive_maximum",
    "bridge_reload_type",
    "bridge_require_ocsp",
    "bridge_session_expiry_interval",
    "bridge_tcp_keepalive",
    "bridge_tcp_user_timeout",
    "bridge_tls_use_os_certs",
    "bridge_tls_version",
    "cafile",
    "capath",
    "certfile",
    "check_retain_source",
    "ciphers",
    "ciphers_tls1.3",
    "cleansession",
    "clientid",
    "clientid_prefixes",
    "connection",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "enable_control_api",
    "enable_proxy_protocol",
    "global_plugin",
    "http_dir",
    "idle_timeout",
    "keepalive_interval",
    "keyfile",
    "listener_auto_id_prefix",
    "local_cleansession",
    "local_clientid",
    "local_password",
    "local_username",
    "mount_point",
    "notification_topic",
    "notifications",
    "notifications_local_only",
    "packet_buffer_size",
    "password",
    "password_file",
    "plugin",
    "plugin_load",
    "plugin_opt_*",
    "plugin_use",
    "proxy_protocol_v2_require_tls",
    "psk_file",
    "psk_hint",
    "remote_clientid",
    "remote_password",
    "remote_username",
    "require_certificate",
    "restart_timeout",
    "retain_expiry_interval",
    "round_robin",
    "start_type",
    "threshold",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "tls_version",
    "topic",
    "try_private",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
    "username",
    "websockets_headers_size",
    "websockets_log_level",
    "websockets_origin",
];

/// The directives that are understood, for the hints; a test holds them against what `Reader::directive` does.
const SUPPORTED: &[&str] = &[
    "allow_anonymous",
    "allow_duplicate_messages",
    "allow_zero_length_clientid",
    "auto_id_prefix",
    "autosave_interval",
    "autosave_on_changes",
    "bind_address",
    "connection_messages",
    "global_max_clients",
    "global_max_connections",
    "include_dir",
    "listener",
    "listener_allow_anonymous",
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
    "per_listener_settings",
    "persistence",
    "persistence_file",
    "persistence_location",
    "persistent_client_expiration",
    "pid_file",
    "port",
    "protocol",
    "queue_qos0_messages",
    "retain_available",
    "retained_persistence",
    "retry_interval",
    "set_tcp_nodelay",
    "socket_domain",
    "sys_interval",
    "upgrade_outgoing_qos",
    "user",
];

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
}

/// Settings of a listener when `per_listener_settings` is on, of the broker otherwise.
#[derive(Default)]
struct ListenerOptions {
    allow_anonymous: Option<bool>,
    allow_zero_length_client_id: Option<(bool, Origin)>,
    auto_id_prefix: Option<(String, Origin)>,
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
    /// None: no `log_type` yet.
    log_types: Option<LogTypes>,
    log_timestamp: bool,
    log_timestamp_format: Option<Timestamp>,
    log_destination_seen: bool,
    tcp_no_delay: Option<bool>,
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

    fn text<T>(&self, check: impl FnOnce(String) -> Result<T, &'static str>) -> Result<T, Fault> {
        check(self.value.to_owned()).map_err(|reason| Fault::BadText {
            key: self.name.to_owned(),
            given: self.value.to_owned(),
            reason,
        })
    }
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
        Ok(())
    }

    /// Reads the `*.conf` of a directory, in the order of the bytes of their names.
    fn include(&mut self, directive: &Directive<'_>) -> Result<(), ConfigError> {
        let directory = PathBuf::from(directive.value);
        let unreadable = |path: &Path, error| ConfigError::new(Origin::File(path.to_owned()), Fault::Unreadable(error));
        let mut paths = Vec::new();
        for entry in fs::read_dir(&directory).map_err(|error| unreadable(&directory, error))? {
            let path = entry.map_err(|error| unreadable(&directory, error))?.path();
            if path.extension().is_some_and(|extension| extension == "conf") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            let text = draft::read(&path).map_err(|fault| ConfigError::new(Origin::File(path.clone()), fault))?;
            self.file(&path, &text, Depth::Included)?;
        }
        Ok(())
    }

    fn directive(&mut self, line: &Directive<'_>, current: &mut Option<usize>) -> Result<(), Fault> {
        if !SUPPORTED.contains(&line.name) {
            return Err(unknown(line.name));
        }
        if line.value.is_empty() {
            return Err(Fault::NoValue { name: line.name.to_owned() });
        }
        const LENGTH_MAX: u64 = i64::MAX as u64;
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
            "socket_domain" => {
                let domain = match word_of(line.name, line.word()?, &["ipv4", "ipv6"])? {
                    "ipv4" => SocketDomain::Ipv4,
                    _ => SocketDomain::Ipv6,
                };
                self.current(line, *current).draft.socket_domain = domain;
            }
            // The only protocol there is so far, and so often written although it is the default.
            "protocol" => match word_of(line.name, line.word()?, &["mqtt", "websockets", "http_api"])? {
                "mqtt" => {}
                other => return Err(Fault::UnsupportedValue { name: "protocol", value: other.to_owned() }),
            },
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
            "listener_allow_anonymous" => {
                let allow = line.switch()?;
                self.current(line, *current).allow_anonymous = Some(allow);
            }

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
            "allow_zero_length_clientid" => {
                let allow = line.switch()?;
                match self.options(*current) {
                    Some(options) => options.allow_zero_length_client_id = Some((allow, line.origin.clone())),
                    None => self.draft.settings.allow_zero_length_client_id = allow,
                }
            }
            "auto_id_prefix" => {
                let prefix = line.text(key::client_id_prefix)?;
                match self.options(*current) {
                    Some(options) => options.auto_id_prefix = Some((prefix, line.origin.clone())),
                    None => self.draft.settings.auto_id_prefix = prefix,
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
            "persistent_client_expiration" => settings.session_expiry_max = Some(expiration(line)?),
            "set_tcp_nodelay" => self.tcp_no_delay = Some(line.switch()?),

            "persistence" | "retained_persistence" => {
                let durability = if line.switch()? { Durability::Fsync } else { Durability::Memory };
                self.draft.durability = Some(durability);
            }
            "persistence_location" => {
                // A directory of its own, so that our files and mosquitto.db stay apart.
                let location =
                    line.text(|text| if text.contains('\0') { Err("a path has no NUL") } else { Ok(text) })?;
                self.draft.data_dir = Some(Path::new(&location).join("pantala"));
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
            "persistence_file" => self.warn(line, "has no effect: the data directory holds several files"),
            "sys_interval" => {
                self.draft.sys_interval_seconds = line.number(0, key::SYS_INTERVAL_MAX)? as u32;
            }
            "pid_file" => self.draft.pid_file = Some(PathBuf::from(line.value)),
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
            OwnListener { draft, options: ListenerOptions::default(), allow_anonymous: None }
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

    fn finish(mut self) -> Result<(), ConfigError> {
        let log = &mut self.draft.log;
        log.types = self.log_types.unwrap_or(log.types);
        log.timestamp = match self.log_timestamp_format.take() {
            _ if !self.log_timestamp => Timestamp::Off,
            Some(format) => format,
            None => Timestamp::EpochSeconds,
        };
        self.draft.tcp_no_delay = self.tcp_no_delay.unwrap_or(self.draft.tcp_no_delay);

        let mut listeners: Vec<OwnListener> = Vec::new();
        let unlisted_anonymous = self.unlisted_options.allow_anonymous;
        if let Some(mut listener) = self.unlisted.take() {
            listener.options = self.unlisted_options;
            listeners.push(listener);
        } else if self.listed.is_empty() {
            // No listener at all: what is said of the unwritten one holds for the broker.
            let ListenerOptions { allow_zero_length_client_id, auto_id_prefix, .. } = self.unlisted_options;
            if let Some((allow, _)) = allow_zero_length_client_id {
                self.draft.settings.allow_zero_length_client_id = allow;
            }
            if let Some((prefix, _)) = auto_id_prefix {
                self.draft.settings.auto_id_prefix = prefix;
            }
        }
        listeners.append(&mut self.listed);

        let anonymous = self.anonymous.or(unlisted_anonymous);
        self.draft.loopback_anonymous = anonymous.unwrap_or(listeners.is_empty());
        if self.per_listener {
            let settings = &mut self.draft.settings;
            let of = |listener: &OwnListener| listener.options.allow_zero_length_client_id.clone();
            if let Some(allow) = common("allow_zero_length_clientid", listeners.iter().map(of))? {
                settings.allow_zero_length_client_id = allow;
            }
            let of = |listener: &OwnListener| listener.options.auto_id_prefix.clone();
            if let Some(prefix) = common("auto_id_prefix", listeners.iter().map(of))? {
                settings.auto_id_prefix = prefix;
            }
        }
        for mut listener in listeners {
            let of_all = if self.per_listener { listener.options.allow_anonymous } else { self.anonymous };
            listener.draft.allow_anonymous = Some(listener.allow_anonymous.or(of_all).unwrap_or(false));
            listener.draft.tcp_no_delay = self.draft.tcp_no_delay;
            self.draft.listeners.push(listener.draft);
        }
        Ok(())
    }
}

/// The value that all listeners have in common; None if none has one. The core has one value for all of them.
fn common<T: PartialEq>(
    name: &'static str,
    values: impl Iterator<Item = Option<(T, Origin)>>,
) -> Result<Option<T>, ConfigError> {
    let values: Vec<_> = values.collect();
    let all = values.len();
    let mut given = values.into_iter().flatten();
    let Some((first, origin)) = given.next() else { return Ok(None) };
    let mut same = 1;
    for (other, origin) in given {
        if other != first {
            return Err(differs(name, origin));
        }
        same += 1;
    }
    if same < all { Err(differs(name, origin)) } else { Ok(Some(first)) }
}

fn differs(name: &'static str, origin: Origin) -> ConfigError {
    let reason = "has to be the same for all listeners; one of its own for each is not supported yet";
    ConfigError::new(origin, Fault::WrongPlace { name, reason })
}

fn unknown(name: &str) -> Fault {
    let unsupported = UNSUPPORTED.iter().any(|known| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *known,
    });
    if unsupported {
        return Fault::UnsupportedDirective { name: name.to_owned() };
    }
    let known = SUPPORTED.iter().chain(UNSUPPORTED).copied().filter(|name| !name.ends_with('*'));
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
        (0, true) => draft.unix_path = Some(key::unix_path(rest.to_owned()).map_err(|reason| bad(rest, reason))?),
        (0, false) => return Err(bad(line.value, "port 0 needs the path of a Unix socket after it")),
        (_, true) => return Err(bad(line.value, "the path of a Unix socket needs port 0 before it")),
        (port, false) => {
            draft.port = Some(port);
            let host = rest.split_once(" #").map_or(rest, |(host, _)| host.trim_end());
            if !host.is_empty() {
                draft.host = Some(key::host_name(host.to_owned()).map_err(|reason| bad(host, reason))?);
            }
        }
    }
    Ok(OwnListener { draft, options: ListenerOptions::default(), allow_anonymous: None })
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
