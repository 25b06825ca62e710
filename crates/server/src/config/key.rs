//! Every key of the configuration, declared once: its name, its type and bounds, where it goes, how it is shown.
//!
//! The file, the environment, the start-up log and the tests of the documentation all read these tables.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use pantala_broker::{DurabilityRule, QueueFull, Settings};
use pantala_proto::{FilterError, QoS, TopicFilter};
use pantala_store::Durability;

use super::draft::{Draft, DurabilityDraft, ListenerDraft, ScramUserDraft};
use super::error::Fault;
use super::log::{Facility, LogType, LogTypes};
use super::timestamp::Timestamp;
use super::{Config, Listener, SocketDomain};

/// A key: `Written` takes its value, `Used` shows it.
pub(super) struct Key<Written, Used> {
    pub name: &'static str,
    pub kind: Kind<Written>,
    /// The value in force, as one would write it.
    pub show: fn(&Used) -> String,
}

/// The type of a key's value, its bounds, and where the value goes once it is known to be within them.
pub(super) enum Kind<Written> {
    /// `true` or `false`.
    Switch { put: fn(&mut Written, bool) },
    /// An integer, or `word` in its place, which puts None.
    Number { min: u64, max: u64, word: Option<&'static str>, put: fn(&mut Written, Option<u64>) },
    /// A text; the function says what is wrong with it.
    Text { put: fn(&mut Written, String) -> Result<(), &'static str> },
    /// One of some words.
    Choice { allowed: &'static [&'static str], put: fn(&mut Written, &'static str) },
    /// Any number of some words.
    List { allowed: &'static [&'static str], put: fn(&mut Written, Vec<&'static str>) },
}

// By hand: derived ones would ask the same of `Written`, of which there is only the name here.
impl<Written> Clone for Kind<Written> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Written> Copy for Kind<Written> {}

/// A value as it was written, before it is known whether its key can take it.
pub(super) enum Raw<'a> {
    Switch(bool),
    /// None if beyond `i128`; with the digits as written.
    Number(Option<i128>, String),
    Text(&'a str),
    /// A list of texts.
    List(Vec<&'a str>),
    /// Something no key takes, with its name.
    Other(&'static str),
}

impl Raw<'_> {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Switch(_) => "a boolean",
            Self::Number(..) => "an integer",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Other(name) => name,
        }
    }
}

impl<Written, Used> Key<Written, Used> {
    /// Puts the value where it belongs, if the key can take it.
    pub fn accept(&self, written: &mut Written, raw: Raw<'_>) -> Result<(), Fault> {
        match (self.kind, raw) {
            (Kind::Switch { put }, Raw::Switch(value)) => put(written, value),
            (Kind::Number { min, max, word, put }, Raw::Number(value, given)) => {
                put(written, Some(number_within(self.name, value, given, min, max, word)?));
            }
            (Kind::Number { word: Some(word), put, .. }, Raw::Text(text)) if text == word => put(written, None),
            (Kind::Number { min, max, word: word @ Some(_), .. }, Raw::Text(text)) => {
                return Err(out_of_range(self.name, text.to_owned(), min, max, word));
            }
            (Kind::Text { put }, Raw::Text(text)) => put(written, text.to_owned()).map_err(|reason| {
                // A password that is refused must not end in a log.
                let given = if self.name == "password" { String::from("…") } else { text.to_owned() };
                Fault::BadText { key: self.name.to_owned(), given, reason }
            })?,
            (Kind::Choice { allowed, put }, Raw::Text(text)) => put(written, word_of(self.name, text, allowed)?),
            (Kind::List { allowed, put }, Raw::List(texts)) => {
                let words = texts.into_iter().map(|text| word_of(self.name, text, allowed));
                put(written, words.collect::<Result<_, _>>()?);
            }
            (_, raw) => return Err(self.wrong_type(raw.type_name())),
        }
        Ok(())
    }

    /// The same for a value from the environment, where everything is text and a list has commas.
    pub fn accept_text(&self, written: &mut Written, text: &str) -> Result<(), Fault> {
        let raw = match self.kind {
            Kind::Switch { .. } => match text {
                "true" | "1" => Raw::Switch(true),
                "false" | "0" => Raw::Switch(false),
                _ => return Err(self.wrong_type(&format!("\"{}\"", text.escape_debug()))),
            },
            Kind::Number { word, .. } => match text.parse::<i128>() {
                Ok(number) => Raw::Number(Some(number), text.to_owned()),
                Err(_) if word == Some(text) => Raw::Text(text),
                Err(_) => return Err(self.wrong_type(&format!("\"{}\"", text.escape_debug()))),
            },
            Kind::Text { .. } | Kind::Choice { .. } => Raw::Text(text),
            Kind::List { .. } => Raw::List(text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()),
        };
        self.accept(written, raw)
    }

    fn wrong_type(&self, given: &str) -> Fault {
        Fault::WrongType { key: self.name.to_owned(), expected: self.expected(), given: given.to_owned() }
    }

    /// What the key takes, in words.
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Switch { .. } => "true or false".to_owned(),
            Kind::Number { min, max, word: None, .. } => format!("an integer from {min} to {max}"),
            Kind::Number { min, max, word: Some(word), .. } => {
                format!("an integer from {min} to {max} or \"{word}\"")
            }
            Kind::Text { .. } => "a string".to_owned(),
            Kind::Choice { allowed, .. } => format!("one of {}", allowed.join(", ")),
            Kind::List { allowed, .. } => format!("a list of {}", allowed.join(", ")),
        }
    }
}

pub(super) fn number_within(
    key: &str,
    value: Option<i128>,
    given: String,
    min: u64,
    max: u64,
    word: Option<&'static str>,
) -> Result<u64, Fault> {
    match value.and_then(|value| u64::try_from(value).ok()) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(out_of_range(key, given, min, max, word)),
    }
}

fn out_of_range(key: &str, given: String, min: u64, max: u64, word: Option<&'static str>) -> Fault {
    Fault::OutOfRange { key: key.to_owned(), given, min: min.into(), max: max.into(), word }
}

pub(super) fn word_of(key: &str, given: &str, allowed: &'static [&'static str]) -> Result<&'static str, Fault> {
    allowed.iter().copied().find(|word| *word == given).ok_or_else(|| Fault::NotAllowed {
        key: key.to_owned(),
        given: given.to_owned(),
        allowed: allowed.to_vec(),
    })
}

/// A table of the file with the name of its section.
pub(super) struct Section {
    pub name: &'static str,
    pub keys: &'static [Key<Draft, Config>],
}

/// The largest integer that TOML can write.
const INTEGER_MAX: u64 = i64::MAX as u64;

/// As many as there are partitions: a worker without one would have nothing to do.
pub(super) const WORKERS_MAX: u64 = pantala_broker::WORKERS_MAX as u64;

/// A day; who wants to hear less often does not want to hear.
pub(super) const SYS_INTERVAL_MAX: u64 = 86_400;

/// Says the same in all keys of one meaning: no number, no limit.
pub(super) const UNLIMITED: &str = "unlimited";

// A key of `Settings` that is an integer, with the integer's type. Beyond the type's bounds nothing gets here.
macro_rules! number {
    ($name:ident: $type:ty, $min:expr, $max:expr) => {
        Key {
            name: stringify!($name),
            kind: Kind::Number {
                min: $min,
                max: $max,
                word: None,
                put: |draft, value| {
                    if let Some(value) = value {
                        draft.settings.$name = <$type>::try_from(value).unwrap_or(<$type>::MAX);
                    }
                },
            },
            show: |config| config.settings.$name.to_string(),
        }
    };
}

// A key of `Settings` that is a number of things or no limit, where zero says the same as the word.
macro_rules! count {
    ($name:ident) => {
        Key {
            name: stringify!($name),
            kind: Kind::Number {
                min: 0,
                max: u32::MAX as u64,
                word: Some(UNLIMITED),
                put: |draft, value| draft.settings.$name = count(value),
            },
            show: |config| config.settings.$name.map_or(UNLIMITED.to_owned(), |count| count.to_string()),
        }
    };
}

// The same for what the server counts by address, before the core has heard of a connection.
macro_rules! address_count {
    ($name:ident) => {
        Key {
            name: stringify!($name),
            kind: Kind::Number {
                min: 0,
                max: u32::MAX as u64,
                word: Some(UNLIMITED),
                put: |draft, value| draft.$name = count(value),
            },
            show: |config| config.$name.map_or(UNLIMITED.to_owned(), |count| count.to_string()),
        }
    };
}

macro_rules! switch {
    ($name:ident) => {
        Key {
            name: stringify!($name),
            kind: Kind::Switch { put: |draft, value| draft.settings.$name = value },
            show: |config| config.settings.$name.to_string(),
        }
    };
}

/// The tables that exist once.
pub(super) static SECTIONS: &[Section] = &[
    Section {
        name: "broker",
        keys: &[
            Key {
                name: "workers",
                kind: Kind::Number {
                    min: 1,
                    max: WORKERS_MAX,
                    word: Some("auto"),
                    put: |draft, value| {
                        draft.workers = value.and_then(|value| usize::try_from(value).ok()).and_then(NonZeroUsize::new);
                    },
                },
                show: |config| config.workers.map_or("auto".to_owned(), |workers| workers.to_string()),
            },
            Key {
                name: "data_dir",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.data_dir = Some(PathBuf::from(not_empty(text)?));
                        Ok(())
                    },
                },
                show: |config| config.data_dir.as_ref().map_or(String::new(), |path| path.display().to_string()),
            },
            Key {
                name: "durability",
                kind: Kind::Choice {
                    allowed: &["fsync", "os", "memory"],
                    put: |draft, word| {
                        draft.durability = Some(match word {
                            "os" => Durability::Os,
                            "memory" => Durability::Memory,
                            _ => Durability::Fsync,
                        });
                    },
                },
                show: |config| config.durability.to_string(),
            },
            Key {
                name: "sys_interval_seconds",
                kind: Kind::Number {
                    min: 0,
                    max: SYS_INTERVAL_MAX,
                    word: None,
                    put: |draft, value| {
                        draft.sys_interval_seconds = value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
                    },
                },
                show: |config| config.sys_interval_seconds.to_string(),
            },
            Key {
                name: "pid_file",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.pid_file = Some(PathBuf::from(not_empty(text)?));
                        Ok(())
                    },
                },
                show: |config| config.pid_file.as_ref().map_or(String::new(), |path| path.display().to_string()),
            },
            Key {
                name: "user",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.user = Some(user_name(text)?);
                        Ok(())
                    },
                },
                show: |config| config.user.clone().unwrap_or_default(),
            },
            switch!(allow_zero_length_client_id),
            Key {
                name: "auto_id_prefix",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.settings.auto_id_prefix = client_id_prefix(text)?;
                        Ok(())
                    },
                },
                show: |config| config.settings.auto_id_prefix.clone(),
            },
            Key {
                name: "response_information_prefix",
                kind: Kind::Text {
                    put: |draft, text| {
                        let text = mqtt_text(text)?;
                        if text.contains(['+', '#']) {
                            return Err("it begins Topic Names, which have no wildcards");
                        }
                        draft.settings.response_information_prefix = Some(text).filter(|text| !text.is_empty());
                        Ok(())
                    },
                },
                show: |config| config.settings.response_information_prefix.clone().unwrap_or_default(),
            },
        ],
    },
    Section {
        name: "limits",
        keys: &[
            number!(packet_bytes_max: u32, 16, 268_435_460),
            Key {
                name: "connect_packet_bytes_max",
                kind: Kind::Number {
                    min: 64,
                    max: 268_435_460,
                    word: None,
                    put: |draft, value| {
                        draft.connect_packet_bytes_max = value.and_then(|value| u32::try_from(value).ok());
                    },
                },
                show: |config| config.settings.connect_packet_bytes_max.to_string(),
            },
            number!(payload_bytes_max: u32, 0, 268_435_455),
            number!(client_id_bytes_max: u16, 23, 65_535),
            number!(topic_bytes_max: u16, 1, 65_535),
            number!(topic_levels_max: u16, 1, 65_535),
            number!(subscriptions_per_session_max: u32, 1, u32::MAX as u64),
            number!(user_properties_per_packet_max: u16, 0, 65_535),
            number!(inflight_messages_max: u16, 1, 65_535),
            number!(inflight_bytes_max: u64, 0, INTEGER_MAX),
            number!(receive_maximum: u16, 1, 65_535),
            number!(queued_messages_max: u32, 0, u32::MAX as u64),
            number!(queued_bytes_max: u64, 0, INTEGER_MAX),
            number!(topic_alias_max: u16, 0, 65_535),
            number!(topic_alias_broker_max: u16, 0, 65_535),
            number!(outgoing_bytes_max: u32, 1_024, u32::MAX as u64),
            number!(write_stall_seconds: u32, 0, u32::MAX as u64),
            count!(messages_per_second_max),
            count!(bytes_per_second_max),
            count!(takeovers_per_second_max),
            number!(connect_seconds: u32, 1, 3_600),
            count!(connections_max),
            address_count!(connections_per_address_max),
            address_count!(connections_per_address_per_second_max),
            count!(sessions_max),
            Key {
                name: "memory_bytes_max",
                kind: Kind::Number {
                    min: 0,
                    max: INTEGER_MAX,
                    word: Some("auto"),
                    put: |draft, value| draft.memory_bytes_max = value,
                },
                show: |config| config.memory_bytes_max.map_or("auto".to_owned(), |bytes| bytes.to_string()),
            },
            number!(retained_messages_max: u32, 0, u32::MAX as u64),
            number!(keep_alive_max: u16, 0, 65_535),
            Key {
                name: "session_expiry_max",
                kind: Kind::Number {
                    min: 0,
                    max: u32::MAX as u64,
                    word: Some("never"),
                    put: |draft, value| {
                        // The largest number means never in MQTT itself (v5 3.1.2.11.2).
                        draft.settings.session_expiry_max =
                            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value != u32::MAX);
                    },
                },
                show: |config| {
                    config.settings.session_expiry_max.map_or("never".to_owned(), |seconds| seconds.to_string())
                },
            },
        ],
    },
    Section {
        name: "delivery",
        keys: &[
            Key {
                name: "queue_full",
                kind: Kind::Choice {
                    allowed: &["drop_oldest", "drop_newest", "refuse"],
                    put: |draft, word| {
                        draft.settings.queue_full = match word {
                            "drop_oldest" => QueueFull::DropOldest,
                            "refuse" => QueueFull::Refuse,
                            _ => QueueFull::DropNewest,
                        };
                    },
                },
                show: |config| {
                    match config.settings.queue_full {
                        QueueFull::DropOldest => "drop_oldest",
                        QueueFull::DropNewest => "drop_newest",
                        QueueFull::Refuse => "refuse",
                    }
                    .to_owned()
                },
            },
            switch!(queue_qos0_messages),
            switch!(upgrade_outgoing_qos),
            switch!(allow_duplicate_messages),
        ],
    },
    Section {
        name: "features",
        keys: &[
            Key {
                name: "maximum_qos",
                kind: Kind::Number {
                    min: 0,
                    max: 2,
                    word: None,
                    put: |draft, value| draft.settings.maximum_qos = qos(value),
                },
                show: |config| qos_digit(config.settings.maximum_qos).to_owned(),
            },
            switch!(retain_available),
            switch!(wildcard_subscription_available),
            switch!(shared_subscription_available),
            switch!(subscription_identifiers_available),
        ],
    },
    Section {
        name: "log",
        keys: &[
            Key {
                name: "types",
                kind: Kind::List {
                    allowed: &LogType::NAMES,
                    put: |draft, words| draft.log.types = LogTypes::named(&words),
                },
                show: |config| config.log.types.to_string(),
            },
            Key {
                name: "destinations",
                kind: Kind::List {
                    allowed: &["stderr", "stdout", "syslog", "topic"],
                    put: |draft, words| {
                        draft.log.stderr = words.contains(&"stderr");
                        draft.log.stdout = words.contains(&"stdout");
                        draft.log.syslog = words.contains(&"syslog");
                        draft.log.topic = words.contains(&"topic");
                        draft.log_destinations_written = true;
                    },
                },
                show: |config| {
                    let log = &config.log;
                    let destinations =
                        [("stderr", log.stderr), ("stdout", log.stdout), ("syslog", log.syslog), ("topic", log.topic)];
                    let on = destinations.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
                    on.collect::<Vec<_>>().join(",")
                },
            },
            Key {
                name: "file",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.log.file = Some(PathBuf::from(not_empty(text)?));
                        draft.log_destinations_written = true;
                        Ok(())
                    },
                },
                show: |config| config.log.file.as_ref().map_or(String::new(), |path| path.display().to_string()),
            },
            Key {
                name: "facility",
                kind: Kind::Choice {
                    allowed: &Facility::NAMES,
                    put: |draft, word| draft.log.facility = Facility::named(word),
                },
                show: |config| config.log.facility.name().to_owned(),
            },
            Key {
                name: "timestamp",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.log.timestamp = if text == "off" {
                            Timestamp::Off
                        } else {
                            Timestamp::parse(&text).map_err(|_| BAD_TIMESTAMP)?
                        };
                        Ok(())
                    },
                },
                show: |config| config.log.timestamp.name(),
            },
            Key {
                name: "connection_messages",
                kind: Kind::Switch { put: |draft, value| draft.log.connection_messages = value },
                show: |config| config.log.connection_messages.to_string(),
            },
        ],
    },
    Section {
        name: "redirect",
        keys: &[
            Key {
                name: "server_reference",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.redirect.server_reference = Some(mqtt_text(not_empty(text)?)?);
                        Ok(())
                    },
                },
                show: |config| {
                    config.settings.redirect.as_ref().map_or(String::new(), |to| to.server_reference.clone())
                },
            },
            Key {
                name: "permanent",
                kind: Kind::Switch { put: |draft, value| draft.redirect.permanent = Some(value) },
                show: |config| config.settings.redirect.as_ref().is_some_and(|to| to.permanent).to_string(),
            },
        ],
    },
];

/// The keys of a `[[listener]]`.
pub(super) static LISTENER: &[Key<ListenerDraft, Listener>] = &[
    Key {
        name: "port",
        kind: Kind::Number {
            min: 0,
            max: 65_535,
            word: None,
            put: |listener, value| listener.port = value.and_then(|value| u16::try_from(value).ok()),
        },
        show: |listener| match &listener.address {
            super::ListenAddress::Tcp { port, .. } => port.to_string(),
            super::ListenAddress::Unix(_) => String::new(),
        },
    },
    Key {
        name: "host",
        kind: Kind::Text {
            put: |listener, text| {
                listener.host = Some(host_name(text)?);
                Ok(())
            },
        },
        show: |listener| match &listener.address {
            super::ListenAddress::Tcp { host, .. } => host.clone().unwrap_or_default(),
            super::ListenAddress::Unix(_) => String::new(),
        },
    },
    Key {
        name: "unix_path",
        kind: Kind::Text {
            put: |listener, text| {
                listener.unix_path = Some(unix_path(text)?);
                Ok(())
            },
        },
        show: |listener| match &listener.address {
            super::ListenAddress::Tcp { .. } => String::new(),
            super::ListenAddress::Unix(path) => path.display().to_string(),
        },
    },
    Key {
        name: "socket_domain",
        kind: Kind::Choice {
            allowed: &["both", "ipv4", "ipv6"],
            put: |listener, word| {
                listener.socket_domain = match word {
                    "ipv4" => SocketDomain::Ipv4,
                    "ipv6" => SocketDomain::Ipv6,
                    _ => SocketDomain::Both,
                };
            },
        },
        show: |listener| listener.socket_domain.name().to_owned(),
    },
    Key {
        name: "allow_anonymous",
        kind: Kind::Switch { put: |listener, value| listener.allow_anonymous = Some(value) },
        show: |listener| listener.settings.allow_anonymous.to_string(),
    },
    Key {
        name: "connections_max",
        kind: Kind::Number {
            min: 0,
            max: u32::MAX as u64,
            word: Some(UNLIMITED),
            put: |listener, value| listener.connections_max = count(value),
        },
        show: |listener| listener.settings.connections_max.map_or(UNLIMITED.to_owned(), |count| count.to_string()),
    },
    Key {
        name: "maximum_qos",
        kind: Kind::Number { min: 0, max: 2, word: None, put: |listener, value| listener.maximum_qos = qos(value) },
        show: |listener| qos_digit(listener.settings.maximum_qos).to_owned(),
    },
    Key {
        name: "topic_alias_max",
        kind: Kind::Number {
            min: 0,
            max: 65_535,
            word: None,
            put: |listener, value| listener.topic_alias_max = value.and_then(|value| u16::try_from(value).ok()),
        },
        show: |listener| listener.settings.topic_alias_max.map_or(String::new(), |count| count.to_string()),
    },
    Key {
        name: "topic_alias_broker_max",
        kind: Kind::Number {
            min: 0,
            max: 65_535,
            word: None,
            put: |listener, value| listener.topic_alias_broker_max = value.and_then(|value| u16::try_from(value).ok()),
        },
        show: |listener| listener.settings.topic_alias_broker_max.map_or(String::new(), |count| count.to_string()),
    },
    Key {
        name: "tcp_no_delay",
        kind: Kind::Switch { put: |listener, value| listener.tcp_no_delay = value },
        show: |listener| listener.tcp_no_delay.to_string(),
    },
];

/// The keys of a `[[scram_user]]`. What is shown is never the secret.
pub(super) static SCRAM_USER: &[Key<ScramUserDraft, Settings>] = &[
    Key {
        name: "name",
        kind: Kind::Text {
            put: |user, text| {
                user.name = Some(mqtt_text(not_empty(text)?)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "password",
        kind: Kind::Text {
            put: |user, text| {
                user.password = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "password_file",
        kind: Kind::Text {
            put: |user, text| {
                user.password_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
];

/// The keys of a `[[durability]]`.
pub(super) static DURABILITY: &[Key<DurabilityDraft, DurabilityRule>] = &[
    Key {
        name: "filter",
        kind: Kind::Text {
            put: |rule, text| {
                rule.filter = Some(topic_filter(text)?);
                Ok(())
            },
        },
        show: |rule| rule.filter.clone(),
    },
    Key {
        name: "level",
        kind: Kind::Choice {
            // Not `fsync`: nothing is less safe than that.
            allowed: &["os", "memory"],
            put: |rule, word| {
                rule.level = Some(if word == "os" { Durability::Os } else { Durability::Memory });
            },
        },
        show: |rule| rule.level.to_string(),
    },
];

/// The sections that are lists, in the words of the file.
pub(super) const LISTS: [&str; 3] = ["listener", "durability", "scram_user"];

pub(super) const BAD_TIMESTAMP: &str = "it has a conversion that is not known; known are %Y %C %y %m %d %e %j %H %I %M %S %p \
     %s %F %T %D %R %a %A %b %B %h %Z %z %n %t %%";

/// Zero is no limit.
pub(super) fn count(value: Option<u64>) -> Option<NonZeroU32> {
    value.and_then(|value| u32::try_from(value).ok()).and_then(NonZeroU32::new)
}

pub(super) fn qos(value: Option<u64>) -> QoS {
    match value {
        Some(0) => QoS::AtMostOnce,
        Some(1) => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn qos_digit(qos: QoS) -> &'static str {
    match qos {
        QoS::AtMostOnce => "0",
        QoS::AtLeastOnce => "1",
        QoS::ExactlyOnce => "2",
    }
}

pub(super) fn not_empty(text: String) -> Result<String, &'static str> {
    if text.is_empty() { Err("it must not be empty") } else { Ok(text) }
}

/// A name as it stands in the system's list of users.
pub(super) fn user_name(text: String) -> Result<String, &'static str> {
    let text = not_empty(text)?;
    if text.contains(|character: char| character.is_control() || character.is_whitespace() || character == ':') {
        return Err("a user's name has no spaces, colons or control characters");
    }
    Ok(text)
}

/// A text that MQTT can carry: no control characters or noncharacters, at most 65 535 bytes (v5 1.5.4).
fn mqtt_text(text: String) -> Result<String, &'static str> {
    let refused = |character: char| {
        character.is_control()
            || matches!(u32::from(character) & 0xFFFF, 0xFFFE | 0xFFFF)
            || ('\u{FDD0}'..='\u{FDEF}').contains(&character)
    };
    if text.contains(refused) {
        return Err("it goes into MQTT packets, which should not carry control characters or noncharacters");
    }
    if text.len() > usize::from(u16::MAX) {
        return Err("it goes into MQTT packets, where a text has at most 65535 bytes");
    }
    Ok(text)
}

fn topic_filter(text: String) -> Result<String, &'static str> {
    let text = mqtt_text(text)?;
    match TopicFilter::parse(&text) {
        Ok(TopicFilter::Shared(_)) => return Err("a Shared Subscription is not a set of topics; its filter alone is"),
        Ok(_) => {}
        Err(FilterError::Empty) => return Err("it must not be empty"),
        Err(_) => return Err("a wildcard must have its level for itself, and # must be the last"),
    }
    Ok(text)
}

/// What an assigned Client Identifier begins with; a UUID of 36 bytes follows, and the whole is read in logs.
pub(super) fn client_id_prefix(text: String) -> Result<String, &'static str> {
    const BYTES_MAX: usize = 200;
    let text = mqtt_text(text)?;
    if text.len() > BYTES_MAX { Err("it can have 200 bytes at most") } else { Ok(text) }
}

pub(super) fn host_name(text: String) -> Result<String, &'static str> {
    let text = not_empty(text)?;
    if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err("it has to be an address or a host name, without spaces");
    }
    if text.contains(['/', '[', ']']) {
        return Err("it has to be an address or a host name, without brackets or slashes");
    }
    Ok(text)
}

pub(super) fn unix_path(text: String) -> Result<PathBuf, &'static str> {
    // The smallest `sun_path` of the systems we run on, less its final NUL.
    const BYTES_MAX: usize = 103;
    let text = not_empty(text)?;
    if text.contains('\0') {
        return Err("a path has no NUL");
    }
    if text.len() > BYTES_MAX {
        return Err("the path of a Unix socket has 103 bytes at most");
    }
    Ok(PathBuf::from(text))
}
