//! Every key of the configuration, declared once: its name, its type and bounds, where it goes, how it is shown.
//!
//! The file, the environment, the start-up log and the tests of the documentation all read these tables.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use pantala_broker::{DurabilityRule, ListenerRate, QueueFull, Settings};
use pantala_identity::chain::BackEnd;
use pantala_identity::http::Format;
use pantala_identity::jwt::Algorithm;
use pantala_proto::{FilterError, QoS, TopicFilter};
use pantala_store::Durability;
use pantala_tls::UserNameFrom;
use pantala_transport::proxy::Versions;
use pantala_transport::websocket::Origins;

use super::clients;
use super::draft::{Draft, DurabilityDraft, ListenerDraft, ScramUserDraft};
use super::error::Fault;
use super::log::{Facility, LogType, LogTypes};
use super::security::{SecurityDomain, SecurityDraft, algorithms, http_url, without_secrets};
use super::timestamp::Timestamp;
use super::tls::{self, Tls};
use super::transport::{self, Protocol};
use super::{Config, Listener, SocketDomain};

/// A key: `Written` takes its value, `Used` shows it.
pub(super) struct Key<Written, Used> {
    pub name: &'static str,
    /// What it means, in Markdown, for the schema, the reference and `docs/configuration.md`.
    pub doc: &'static str,
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
    /// Any number of texts, though not none where `if_empty` says why; the function says what is wrong with them.
    Texts { if_empty: Option<&'static str>, put: fn(&mut Written, Vec<String>) -> Result<(), &'static str> },
    /// Any number of some words, and none as before.
    List { allowed: &'static [&'static str], if_empty: Option<&'static str>, put: fn(&mut Written, Vec<&'static str>) },
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
                // A password that is refused must not end in a log, nor one in a URL.
                let given = match self.name {
                    "password" => String::from("…"),
                    "http_url" | "jwt_jwks_url" => without_secrets(text),
                    _ => text.to_owned(),
                };
                Fault::BadText { key: self.name.to_owned(), given, reason }
            })?,
            (Kind::Texts { if_empty: Some(why), .. } | Kind::List { if_empty: Some(why), .. }, Raw::List(texts))
                if texts.is_empty() =>
            {
                return Err(Fault::Empty { key: self.name, why });
            }
            (Kind::Texts { put, .. }, Raw::List(texts)) => {
                let given = texts.join(", ");
                put(written, texts.into_iter().map(str::to_owned).collect()).map_err(|reason| Fault::BadText {
                    key: self.name.to_owned(),
                    given,
                    reason,
                })?;
            }
            (Kind::Choice { allowed, put }, Raw::Text(text)) => put(written, word_of(self.name, text, allowed)?),
            (Kind::List { allowed, put, .. }, Raw::List(texts)) => {
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
            Kind::List { .. } | Kind::Texts { .. } => {
                Raw::List(text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect())
            }
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
            Kind::Texts { .. } => "a list of strings".to_owned(),
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
    ($name:ident: $type:ty, $min:expr, $max:expr, $doc:literal) => {
        Key {
            name: stringify!($name),
            doc: $doc,
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
    ($name:ident, $doc:literal) => {
        Key {
            name: stringify!($name),
            doc: $doc,
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
    ($name:ident, $doc:literal) => {
        Key {
            name: stringify!($name),
            doc: $doc,
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
    ($name:ident, $doc:literal) => {
        Key {
            name: stringify!($name),
            doc: $doc,
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
                doc: "Threads that serve connections, each with a loop of its own; `auto` is as many as there are cores.",
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
                doc: "Directory in which Sessions, queues and Retained Messages are kept; it is made when it is needed.",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.data_dir = Some(PathBuf::from(not_empty(text)?));
                        Ok(())
                    },
                },
                show: |config| config.data_dir.as_ref().map_or(String::new(), |path| path.display().to_string()),
            },
            Key {
                name: "import_file",
                doc: "File of a Mosquitto broker (`mosquitto.db`) that is taken over once, at a start with nothing stored; see [store.md](store.md#coming-from-mosquitto). Without durability it is not read.",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.import_file = Some(path(text)?);
                        Ok(())
                    },
                },
                show: |config| config.import_file.as_ref().map_or(String::new(), |path| path.display().to_string()),
            },
            Key {
                name: "durability",
                doc: "What an acknowledgement vouches for: with `fsync` a PUBACK or PUBREC survives a power cut, with `os` the end of the process, with `memory` neither.",
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
                doc: "Seconds between two looks at what the topics below `$SYS/` tell; 0 is never, and then there are none.",
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
                name: "control_api",
                doc: "Whether commands to `$CONTROL/broker/v1` are answered, of clients that a rule lets publish there; see [access.md](access.md#what-the-broker-tells-by-command).",
                kind: Kind::Switch { put: |draft, value| draft.control_api = value },
                show: |config| config.control_api.to_string(),
            },
            switch!(
                sparkplug_aware,
                "Whether births of Sparkplug are kept under `$sparkplug/certificates/`, as by a Sparkplug Aware MQTT Server; see [sparkplug.md](sparkplug.md)."
            ),
            Key {
                name: "pid_file",
                doc: "File with the number of the process, written before anybody is served, removed at the end, or emptied where `user` may not do that; not through a symbolic link. A change needs a restart.",
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
                doc: "User that a broker started as root becomes before it serves anybody, looked for in `/etc/passwd`; `root` stays root. A change needs a restart.",
                kind: Kind::Text {
                    put: |draft, text| {
                        draft.user = Some(user_name(text)?);
                        Ok(())
                    },
                },
                show: |config| config.user.clone().unwrap_or_default(),
            },
            switch!(
                allow_zero_length_client_id,
                "Whether a client without a Client Identifier is given one, `auto_id_prefix` and a UUID; otherwise it is refused (CONNACK 0x85; v3: 0x02)."
            ),
            Key {
                name: "auto_id_prefix",
                doc: "What Client Identifiers begin with that the broker gives.",
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
                doc: "What the Response Information given to clients that ask for it begins with; the Client Identifier and a slash follow. Without it, nothing is given.",
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
            number!(packet_bytes_max: u32, 16, 268_435_460, "Largest Control Packet that clients may send, in bytes with its fixed header; MQTT 5 clients are told."),
            Key {
                name: "connect_packet_bytes_max",
                doc: "Largest CONNECT packet, in bytes; not above `packet_bytes_max`.",
                kind: Kind::Number {
                    // Not above that of `packet_bytes_max`, so that the default, which bows to it, can be written.
                    min: 16,
                    max: 268_435_460,
                    word: None,
                    put: |draft, value| {
                        draft.connect_packet_bytes_max = value.and_then(|value| u32::try_from(value).ok());
                    },
                },
                show: |config| config.settings.connect_packet_bytes_max.to_string(),
            },
            number!(payload_bytes_max: u32, 0, 268_435_455, "Longest payload of a message, in bytes; 0 is no limit but that of the packet."),
            number!(client_id_bytes_max: u16, 23, 65_535, "Longest Client Identifier, in bytes."),
            number!(topic_bytes_max: u16, 1, 65_535, "Longest Topic Name or Topic Filter, in bytes."),
            number!(topic_levels_max: u16, 1, 65_535, "Most levels in a Topic Name or Topic Filter."),
            number!(subscriptions_per_session_max: u32, 1, u32::MAX as u64, "Most subscriptions of one Session."),
            number!(user_properties_per_packet_max: u16, 0, 65_535, "Most User Properties in one packet."),
            number!(inflight_messages_max: u16, 1, 65_535, "Most QoS 1 and 2 messages that one client may have unacknowledged; its Receive Maximum can lower it."),
            number!(inflight_bytes_max: u64, 0, INTEGER_MAX, "Most bytes of Topic Names and payloads in those messages; 0 is no limit."),
            number!(receive_maximum: u16, 1, 65_535, "Most QoS 2 messages that one client may have open towards the broker; MQTT 5 clients are told as Receive Maximum."),
            number!(queued_messages_max: u32, 0, u32::MAX as u64, "Most messages that wait for one Session; 0 is no limit."),
            number!(queued_bytes_max: u64, 0, INTEGER_MAX, "Most bytes of Topic Names and payloads in those messages; 0 is no limit."),
            number!(topic_alias_max: u16, 0, 65_535, "Most Topic Aliases that a client may set on a connection."),
            number!(topic_alias_broker_max: u16, 0, 65_535, "Most Topic Aliases that the broker sets on a connection, if the client allows as many."),
            number!(outgoing_bytes_max: u32, 1_024, u32::MAX as u64, "Most bytes that wait to be written to one connection; QoS 0 messages beyond are dropped, others wait in the queue."),
            number!(write_stall_seconds: u32, 0, u32::MAX as u64, "Seconds for which a connection with waiting output may take no byte before it is closed; 0 is for ever."),
            count!(
                messages_per_second_max,
                "Most messages that one client may send in a second; who is faster is read later. 0 is no limit, and clients of this machine have none."
            ),
            count!(
                bytes_per_second_max,
                "Most bytes that one client may send in a second, the same way; 0 is no limit."
            ),
            count!(
                takeovers_per_second_max,
                "Most times in a second that a connected client may be taken over by one with its Client Identifier (above: 0x9F; v3: 0x03); 0 is no limit."
            ),
            number!(connect_seconds: u32, 1, 3_600, "Seconds that a connection has for its whole CONNECT and its authentication."),
            count!(connections_max, "Most clients that are connected at a time, over all listeners; 0 is no limit."),
            address_count!(
                connections_per_address_max,
                "Most connections from one address, of IPv6 from one /64; more are closed. 0 is no limit. Loopback addresses are not counted, and behind a proxy that is believed it is the client's address."
            ),
            address_count!(
                connections_per_address_per_second_max,
                "Most new connections from one such address in a second; more are closed. 0 is no limit."
            ),
            count!(sessions_max, "Most Sessions, connected or not; 0 is no limit."),
            Key {
                name: "memory_bytes_max",
                doc: "Bytes of memory above which nobody new is let in; `auto` is 80 % of what the control group or the machine has, 0 is no limit.",
                kind: Kind::Number {
                    min: 0,
                    max: INTEGER_MAX,
                    word: Some("auto"),
                    put: |draft, value| draft.memory_bytes_max = value,
                },
                show: |config| config.memory_bytes_max.map_or("auto".to_owned(), |bytes| bytes.to_string()),
            },
            number!(retained_messages_max: u32, 0, u32::MAX as u64, "Most Retained Messages; further ones are delivered and not kept."),
            number!(keep_alive_max: u16, 0, 65_535, "Longest Keep Alive in seconds; 0 is no limit. MQTT 5 clients are told a lower one, others are refused."),
            Key {
                name: "verification_threads",
                doc: "Threads that hash passwords, at low priority; `auto` is half as many as there are cores, one at least.",
                kind: Kind::Number {
                    min: 1,
                    max: 256,
                    word: Some("auto"),
                    put: |draft, value| draft.verification.threads = value.map(|value| value as usize),
                },
                show: |config| config.verification.threads.map_or("auto".to_owned(), |threads| threads.to_string()),
            },
            Key {
                name: "verifications_waiting_max",
                doc: "Most clients whose password waits to be hashed, and as many again that wait for an HTTP back end.",
                kind: Kind::Number {
                    min: 1,
                    max: 1_000_000,
                    word: None,
                    put: |draft, value| draft.verification.waiting_max = u32_of(value) as usize,
                },
                show: |config| config.verification.waiting_max.to_string(),
            },
            Key {
                name: "verified_seconds",
                doc: "Seconds for which a password that was right is not hashed again; 0 is never.",
                kind: Kind::Number {
                    min: 0,
                    max: 86_400,
                    word: None,
                    put: |draft, value| draft.verification.keep = Duration::from_secs(u32_of(value).into()),
                },
                show: |config| config.verification.keep.as_secs().to_string(),
            },
            Key {
                name: "verified_max",
                doc: "Most passwords known for that, and most answers of an HTTP back end kept, for each security domain.",
                kind: Kind::Number {
                    min: 0,
                    max: 10_000_000,
                    word: None,
                    put: |draft, value| draft.verification.kept_max = u32_of(value) as usize,
                },
                show: |config| config.verification.kept_max.to_string(),
            },
            Key {
                name: "http_requests_max",
                doc: "Most requests to HTTP back ends at once; more wait.",
                kind: Kind::Number {
                    min: 1,
                    max: 1_024,
                    word: None,
                    put: |draft, value| draft.verification.http_requests_max = u32_of(value) as usize,
                },
                show: |config| config.verification.http_requests_max.to_string(),
            },
            Key {
                name: "failures_per_address_max",
                doc: "Wrong credentials that an address has free before it is refused for a while; 0 is no brake.",
                kind: Kind::Number {
                    min: 0,
                    max: 1_000_000,
                    word: None,
                    put: |draft, value| draft.verification.brake.per_address = u32_of(value),
                },
                show: |config| config.verification.brake.per_address.to_string(),
            },
            Key {
                name: "failures_per_user_max",
                doc: "Wrong credentials that a user name has free over all addresses before it has one try a second; 0 is no brake.",
                kind: Kind::Number {
                    min: 0,
                    max: 1_000_000,
                    word: None,
                    put: |draft, value| draft.verification.brake.per_user = u32_of(value),
                },
                show: |config| config.verification.brake.per_user.to_string(),
            },
            Key {
                name: "failure_wait_seconds_max",
                doc: "Longest time in seconds for which an address is refused after a failure.",
                kind: Kind::Number {
                    min: 1,
                    max: 3_600,
                    word: None,
                    put: |draft, value| draft.verification.brake.wait_max = Duration::from_secs(u32_of(value).into()),
                },
                show: |config| config.verification.brake.wait_max.as_secs().to_string(),
            },
            Key {
                name: "session_expiry_max",
                doc: "Longest Session Expiry Interval in seconds; Sessions of v3 clients with Clean Session 0 end after it too.",
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
                doc: "What goes when the queue of a Session is at its limit: the message that has waited longest, the new one, or the new one with word to its publisher (0x97; v3: no acknowledgement).",
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
            switch!(
                queue_qos0_messages,
                "Whether QoS 0 messages wait for a Session without a connection as the others do."
            ),
            switch!(
                upgrade_outgoing_qos,
                "Whether messages are delivered at the QoS of the subscription even where they were published at a lower one, against the standard."
            ),
            switch!(
                allow_duplicate_messages,
                "Whether a client whose subscriptions overlap gets a copy for each, instead of one at the highest QoS with all Subscription Identifiers."
            ),
            switch!(
                check_retain_source,
                "Whether a Retained Message is delivered only as long as who published it may publish to its topic; see [access.md](access.md#when-rules-change). With false it is not kept who published it."
            ),
        ],
    },
    Section {
        name: "features",
        keys: &[
            Key {
                name: "maximum_qos",
                doc: "Highest QoS that clients may publish with (above: 0x9B).",
                kind: Kind::Number {
                    min: 0,
                    max: 2,
                    word: None,
                    put: |draft, value| draft.settings.maximum_qos = qos(value),
                },
                show: |config| qos_digit(config.settings.maximum_qos).to_owned(),
            },
            switch!(retain_available, "Whether messages may be retained (otherwise 0x9A)."),
            switch!(wildcard_subscription_available, "Whether Topic Filters may have wildcards (otherwise 0xA2)."),
            switch!(shared_subscription_available, "Whether there are Shared Subscriptions (otherwise 0x9E)."),
            switch!(
                subscription_identifiers_available,
                "Whether subscriptions may have Subscription Identifiers (otherwise 0xA1)."
            ),
        ],
    },
    Section {
        name: "log",
        keys: &[
            Key {
                name: "types",
                doc: "Kinds of lines that are written; `all` and `none` hold for what stands before them. `-v` is `all`.",
                kind: Kind::List {
                    allowed: &LogType::NAMES,
                    if_empty: None,
                    put: |draft, words| draft.log.types = LogTypes::named(&words),
                },
                show: |config| config.log.types.to_string(),
            },
            Key {
                name: "destinations",
                doc: "Where lines go. `syslog` is the system's log, `topic` publishes each line below `$SYS/broker/log/`.",
                kind: Kind::List {
                    allowed: &["stderr", "stdout", "syslog", "topic"],
                    if_empty: None,
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
                doc: "File to which lines go too, beside the destinations; not through a link. SIGRTMIN opens it anew, for those who rotate it.",
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
                doc: "Whose lines they are in the system's log.",
                kind: Kind::Choice {
                    allowed: &Facility::NAMES,
                    put: |draft, word| draft.log.facility = Facility::named(word),
                },
                show: |config| config.log.facility.name().to_owned(),
            },
            Key {
                name: "timestamp",
                doc: "Time in front of each line: `off`, `rfc3339`, `epoch` (seconds since 1970), or a pattern such as `%Y-%m-%d %H:%M:%S`.",
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
                doc: "Whether each connection and its end is a line.",
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
                doc: "Another server to which MQTT 5 clients are sent, as `host:port`; several are separated by spaces.",
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
                doc: "Whether they should stay there: 0x9D (Server moved) in place of 0x9C (Use another server).",
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
        doc: "TCP port; 0 is one that the system chooses, which is logged.",
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
        doc: "Address or host name to listen on, or on Linux the name of a network interface; without it, all interfaces.",
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
        doc: "Path of a Unix socket, in place of `port` and `host`.",
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
        doc: "Versions of IP that are accepted.",
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
        doc: "Whether clients may connect without saying who they are; true by default where only this machine can connect.",
        kind: Kind::Switch { put: |listener, value| listener.allow_anonymous = Some(value) },
        show: |listener| listener.settings.allow_anonymous.to_string(),
    },
    Key {
        name: "connections_max",
        doc: "Most clients that are connected over this listener at a time; 0 is no limit.",
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
        doc: "Highest QoS that clients of this listener may publish with.",
        kind: Kind::Number { min: 0, max: 2, word: None, put: |listener, value| listener.maximum_qos = qos(value) },
        show: |listener| qos_digit(listener.settings.maximum_qos).to_owned(),
    },
    Key {
        name: "packet_bytes_max",
        doc: "The same as `limits.packet_bytes_max`, for this listener.",
        kind: Kind::Number {
            min: 16,
            max: 268_435_460,
            word: None,
            put: |listener, value| listener.packet_bytes_max = value.and_then(|value| u32::try_from(value).ok()),
        },
        show: |listener| listener.settings.packet_bytes_max.map_or(String::new(), |bytes| bytes.to_string()),
    },
    Key {
        name: "messages_per_second_max",
        doc: "The same as `limits.messages_per_second_max`, for this listener; 0 is no limit here.",
        kind: Kind::Number {
            min: 0,
            max: u32::MAX as u64,
            word: Some(UNLIMITED),
            put: |listener, value| listener.messages_per_second_max = rate(value),
        },
        show: |listener| shown_rate(listener.settings.messages_per_second_max),
    },
    Key {
        name: "bytes_per_second_max",
        doc: "The same as `limits.bytes_per_second_max`, for this listener; 0 is no limit here.",
        kind: Kind::Number {
            min: 0,
            max: u32::MAX as u64,
            word: Some(UNLIMITED),
            put: |listener, value| listener.bytes_per_second_max = rate(value),
        },
        show: |listener| shown_rate(listener.settings.bytes_per_second_max),
    },
    Key {
        name: "topic_alias_max",
        doc: "The same as `limits.topic_alias_max`, for this listener.",
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
        doc: "The same as `limits.topic_alias_broker_max`, for this listener.",
        kind: Kind::Number {
            min: 0,
            max: 65_535,
            word: None,
            put: |listener, value| listener.topic_alias_broker_max = value.and_then(|value| u16::try_from(value).ok()),
        },
        show: |listener| listener.settings.topic_alias_broker_max.map_or(String::new(), |count| count.to_string()),
    },
    Key {
        name: "security",
        doc: "The `[[security]]` whose users and rules count here; without it the one with the name `default`.",
        kind: Kind::Text {
            put: |listener, text| {
                listener.security = Some(mqtt_text(not_empty(text)?)?);
                Ok(())
            },
        },
        // Shown by its name where the domains are known.
        show: |_| String::new(),
    },
    Key {
        name: "mount_point",
        doc: "What stands before all topics of the clients here, unseen by them.",
        kind: Kind::Text {
            put: |listener, text| {
                listener.clients.mount_point = Some(clients::mount_point(text)?);
                Ok(())
            },
        },
        show: |listener| listener.settings.mount_point.as_deref().unwrap_or_default().to_owned(),
    },
    Key {
        name: "versions",
        doc: "Versions of MQTT that are let in; others get CONNACK 0x84 (v3: 0x01).",
        kind: Kind::List {
            allowed: &clients::VERSIONS,
            if_empty: Some("then nobody is let in; without the key all versions are"),
            put: |listener, names| listener.clients.versions = clients::versions(&names),
        },
        show: |listener| clients::shown_versions(listener.settings.versions),
    },
    Key {
        name: "use_user_name_as_client_id",
        doc: "Whether the Client Identifier is the user name; who has none is refused (0x87), and so is SCRAM, which names its user later.",
        kind: Kind::Switch { put: |listener, value| listener.clients.use_user_name_as_client_id = value },
        show: |listener| listener.settings.use_user_name_as_client_id.to_string(),
    },
    Key {
        name: "client_id_prefixes",
        doc: "What Client Identifiers have to begin with, one of these; others are refused (0x87).",
        kind: Kind::Texts {
            if_empty: Some("then every Client Identifier is taken; a listener for all goes without the key"),
            put: |listener, texts| {
                listener.clients.client_id_prefixes = Some(clients::client_id_prefixes(texts)?);
                Ok(())
            },
        },
        show: |listener| joined(&listener.settings.client_id_prefixes),
    },
    Key {
        name: "allow_zero_length_client_id",
        doc: "The same as `broker.allow_zero_length_client_id`, for this listener.",
        kind: Kind::Switch { put: |listener, value| listener.clients.allow_zero_length_client_id = Some(value) },
        show: |listener| listener.settings.allow_zero_length_client_id.map_or(String::new(), |allow| allow.to_string()),
    },
    Key {
        name: "auto_id_prefix",
        doc: "The same as `broker.auto_id_prefix`, for this listener.",
        kind: Kind::Text {
            put: |listener, text| {
                listener.clients.auto_id_prefix = Some(client_id_prefix(text)?);
                Ok(())
            },
        },
        show: |listener| listener.settings.auto_id_prefix.clone().unwrap_or_default(),
    },
    Key {
        name: "deny_special_characters",
        doc: "Whether clients with `+`, `#` or `/` in user name or Client Identifier are refused (0x87).",
        kind: Kind::Switch { put: |listener, value| listener.clients.deny_special_characters = value },
        show: |listener| listener.settings.deny_special_characters.to_string(),
    },
    Key {
        name: "sessions_belong_to_users",
        doc: "Whether nobody goes on with, or ends, the Session that another user has begun.",
        kind: Kind::Switch { put: |listener, value| listener.clients.sessions_belong_to_users = Some(value) },
        show: |listener| listener.settings.sessions_belong_to_users.to_string(),
    },
    Key {
        name: "believe_user_names",
        doc: "Whether rules hold for the user name of a client though nobody verifies it: anybody can be anybody.",
        kind: Kind::Switch { put: |listener, value| listener.clients.believe_user_names = Some(value) },
        show: |listener| listener.settings.believe_user_names.to_string(),
    },
    Key {
        name: "tcp_no_delay",
        doc: "Whether small packets are sent at once instead of being held back for more.",
        kind: Kind::Switch { put: |listener, value| listener.tcp_no_delay = value },
        show: |listener| listener.tcp_no_delay.to_string(),
    },
    Key {
        name: "tls_certificate_files",
        doc: "Certificates of the listener with their chains, in PEM; a listener with a certificate speaks TLS only, but for `allow_plain_text`.",
        kind: Kind::Texts {
            // A variable that somebody has left empty must not turn TLS off.
            if_empty: Some("then there is no TLS; a listener that is to have none goes without the key"),
            put: |listener, texts| {
                listener.tls.certificate_files = paths(texts)?;
                Ok(())
            },
        },
        show: |listener| shown_paths(listener, |tls| &tls.certificate_files),
    },
    Key {
        name: "tls_key_files",
        doc: "Keys of the certificates, in their order; by default the keys are in the same files.",
        kind: Kind::Texts {
            if_empty: None,
            put: |listener, texts| {
                listener.tls.key_files = paths(texts)?;
                Ok(())
            },
        },
        show: |listener| shown_paths(listener, |tls| &tls.key_files),
    },
    Key {
        name: "tls_chain_files",
        doc: "Files, or directories of files, with certificates that the chains lack; those in `tls_client_ca_files` count, too.",
        kind: Kind::Texts {
            if_empty: None,
            put: |listener, texts| {
                listener.tls.chain_files = paths(texts)?;
                Ok(())
            },
        },
        show: |listener| shown_paths(listener, |tls| &tls.chain_files),
    },
    Key {
        name: "tls_client_ca_files",
        doc: "Files, or directories of files, with the authorities that client certificates are from.",
        kind: Kind::Texts {
            if_empty: Some("then nobody needs a certificate; a listener that asks for none goes without the key"),
            put: |listener, texts| {
                listener.tls.client_ca_files = paths(texts)?;
                Ok(())
            },
        },
        show: |listener| shown_paths(listener, |tls| &tls.client_ca_files),
    },
    Key {
        name: "tls_require_certificate",
        doc: "Whether a client without certificate is refused, where there are such authorities.",
        kind: Kind::Switch { put: |listener, value| listener.tls.require_certificate = Some(value) },
        show: |listener| listener.tls.as_ref().is_none_or(|tls| tls.require_certificate).to_string(),
    },
    Key {
        name: "tls_crl_files",
        doc: "Lists of revoked client certificates, in PEM.",
        kind: Kind::Texts {
            if_empty: Some("then revoked certificates are let in; a listener without lists goes without the key"),
            put: |listener, texts| {
                listener.tls.crl_files = paths(texts)?;
                Ok(())
            },
        },
        show: |listener| shown_paths(listener, |tls| &tls.crl_files),
    },
    Key {
        name: "tls_versions",
        doc: "Versions of TLS that are spoken.",
        kind: Kind::List {
            allowed: &tls::VERSIONS,
            if_empty: Some("then no TLS is spoken; without the key both versions are"),
            put: |listener, words| listener.tls.versions = words,
        },
        show: |listener| listener.tls.as_ref().map_or_else(|| tls::VERSIONS.join(","), |tls| tls.versions.join(",")),
    },
    Key {
        name: "tls_ciphers",
        doc: "Cipher suites that are offered; without any, all.",
        kind: Kind::List {
            allowed: &pantala_tls::ciphers::NAMES,
            if_empty: None,
            put: |listener, words| listener.tls.ciphers = words,
        },
        show: |listener| listener.tls.as_ref().map_or(String::new(), |tls| tls.ciphers.join(",")),
    },
    Key {
        name: "tls_alpn",
        doc: "ALPN protocols that are agreed upon: `mqtt` by default, `http/1.1` where `protocol` is `websocket`, both where it is `any`.",
        kind: Kind::Texts {
            if_empty: None,
            put: |listener, texts| {
                if texts.iter().any(|text| !(1..=255).contains(&text.len())) {
                    return Err("the name of a protocol has 1 to 255 bytes");
                }
                listener.tls.alpn = Some(texts);
                Ok(())
            },
        },
        show: |listener| listener.tls.as_ref().map_or_else(|| "mqtt".to_owned(), |tls| joined(&tls.alpn)),
    },
    Key {
        name: "tls_ignore_certificate_dates",
        doc: "Whether client certificates that have expired are taken; the log warns of it.",
        kind: Kind::Switch { put: |listener, value| listener.tls.ignore_certificate_dates = value },
        show: |listener| listener.tls.as_ref().is_some_and(|tls| tls.ignore_certificate_dates).to_string(),
    },
    Key {
        name: "user_name_from_certificate",
        doc: "Which name of a client's certificate is its User Name: the Common Name, the subject, or the only Subject Alternative Name.",
        kind: Kind::Choice {
            allowed: &tls::USER_NAME_FROM,
            put: |listener, word| listener.tls.user_name_from_certificate = tls::user_name_from(word),
        },
        show: |listener| {
            let by_proxy = listener.transport.user_name_by_proxy.then_some(UserNameFrom::CommonName);
            let from = listener.tls.as_ref().map(|tls| tls.user_name_from_certificate).or(by_proxy);
            tls::user_name_from_word(from.unwrap_or_default()).to_owned()
        },
    },
    Key {
        name: "protocol",
        doc: "What clients speak: `mqtt`, `websocket` (the subprotocols `mqtt` and `mqttv3.1`), or `any`: either, told apart by the first bytes of each connection.",
        kind: Kind::Choice {
            allowed: &["mqtt", "websocket", "any"],
            put: |listener, word| {
                listener.transport.protocol = Some(match word {
                    "websocket" => Protocol::WebSocket,
                    "any" => Protocol::Any,
                    _ => Protocol::Mqtt,
                });
            },
        },
        show: |listener| listener.transport.protocol.name().to_owned(),
    },
    Key {
        name: "allow_plain_text",
        doc: "Whether clients may come without TLS too where `protocol` is `any` and there is a certificate: then four kinds share the port.",
        kind: Kind::Switch { put: |listener, value| listener.transport.allow_plain_text = value },
        show: |listener| listener.transport.allow_plain_text.to_string(),
    },
    Key {
        name: "websocket_path",
        doc: "Path that WebSocket clients have to ask for, such as `/mqtt`; another gets 404. Without it, any.",
        kind: Kind::Text {
            put: |listener, text| {
                listener.transport.websocket_path = Some(transport::path(text)?);
                Ok(())
            },
        },
        show: |listener| listener.transport.websocket.path.as_deref().unwrap_or_default().to_owned(),
    },
    Key {
        name: "websocket_origins",
        doc: "Pages that may connect by WebSocket, each as browsers name them: `https://app.example`, exactly. Others get 403. Without it all, or those of the same host where certificates are asked for.",
        kind: Kind::Texts {
            if_empty: None,
            put: |listener, texts| {
                let origins = texts.iter().map(|text| transport::origin(text));
                listener.transport.websocket_origins = Some(origins.collect::<Result<_, _>>()?);
                Ok(())
            },
        },
        show: |listener| match &listener.transport.websocket.origins {
            Origins::Listed(listed) => joined(listed),
            Origins::Any | Origins::SameHost => String::new(),
        },
    },
    Key {
        name: "proxy_protocol",
        doc: "Version of the PROXY protocol whose header each connection begins with; a connection without one is closed.",
        kind: Kind::Choice {
            allowed: &["off", "v1", "v2", "any"],
            put: |listener, word| {
                listener.transport.proxy_protocol = match word {
                    "v1" => Some(Versions::V1),
                    "v2" => Some(Versions::V2),
                    "any" => Some(Versions::Any),
                    _ => None,
                };
            },
        },
        show: |listener| {
            match listener.transport.proxy_protocol {
                None => "off",
                Some(Versions::V1) => "v1",
                Some(Versions::V2) => "v2",
                Some(Versions::Any) => "any",
            }
            .to_owned()
        },
    },
    Key {
        name: "proxy_require_tls",
        doc: "Whether a client has to have come to the proxy by TLS, as a header of version 2 tells.",
        kind: Kind::Switch { put: |listener, value| listener.transport.proxy_require_tls = value },
        show: |listener| listener.transport.proxy_require_tls.to_string(),
    },
    Key {
        name: "proxy_trusted",
        doc: "The proxies, as addresses (`10.0.0.7`) or networks (`10.0.0.0/8`).",
        kind: Kind::Texts {
            if_empty: None,
            put: |listener, texts| {
                listener.transport.proxy_trusted = Some(transport::networks(&texts)?);
                Ok(())
            },
        },
        show: |listener| transport::shown_networks(&listener.transport.proxy_trusted),
    },
    Key {
        name: "allow_addresses",
        doc: "Addresses and networks of clients that are let in, by their real address behind a proxy; if there are any, nobody else is.",
        kind: Kind::Texts {
            if_empty: Some("then everybody is let in; a listener for all goes without the key"),
            put: |listener, texts| {
                listener.transport.allow_addresses = transport::networks(&texts)?;
                Ok(())
            },
        },
        show: |listener| transport::shown_networks(&listener.transport.allow_addresses),
    },
    Key {
        name: "deny_addresses",
        doc: "Addresses and networks of clients whose connections are closed at once.",
        kind: Kind::Texts {
            if_empty: None,
            put: |listener, texts| {
                listener.transport.deny_addresses = transport::networks(&texts)?;
                Ok(())
            },
        },
        show: |listener| transport::shown_networks(&listener.transport.deny_addresses),
    },
    Key {
        name: "unix_mode",
        doc: "Permission bits of the Unix socket, in octal: who may write to it may connect.",
        kind: Kind::Text {
            put: |listener, text| {
                listener.transport.unix_mode = Some(transport::mode(&text)?);
                Ok(())
            },
        },
        show: |listener| format!("{:04o}", listener.transport.unix_mode),
    },
];

fn paths(texts: Vec<String>) -> Result<Vec<PathBuf>, &'static str> {
    texts.into_iter().map(|text| path(text)).collect()
}

/// The name of a file or directory.
pub(super) fn path(text: String) -> Result<PathBuf, &'static str> {
    if text.contains('\0') { Err("a path has no NUL") } else { not_empty(text).map(PathBuf::from) }
}

fn shown_paths(listener: &Listener, of: fn(&Tls) -> &Vec<PathBuf>) -> String {
    let paths = listener.tls.as_ref().map(of).into_iter().flatten();
    joined(&paths.map(|path| path.display().to_string()).collect::<Vec<_>>())
}

/// Texts as one: with commas between, and a backslash before what is no such comma.
fn joined<T: AsRef<str>>(texts: &[T]) -> String {
    let texts = texts.iter().map(|text| text.as_ref().replace('\\', r"\\").replace(',', r"\,"));
    texts.collect::<Vec<_>>().join(",")
}

/// What [`joined`] has joined; none of them is empty.
pub(super) fn separated(text: &str) -> Vec<String> {
    let (mut texts, mut text_now) = (Vec::new(), String::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => texts.push(std::mem::take(&mut text_now)),
            '\\' => text_now.extend(characters.next()),
            character => text_now.push(character),
        }
    }
    texts.push(text_now);
    texts.retain(|text| !text.is_empty());
    texts
}

/// The keys of a `[[scram_user]]`. What is shown is never the secret.
pub(super) static SCRAM_USER: &[Key<ScramUserDraft, Settings>] = &[
    Key {
        name: "name",
        doc: "User name of a user that can authenticate by SCRAM-SHA-256.",
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
        doc: "Password of the user, in clear text.",
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
        doc: "File with the password as its only line, in place of `password`.",
        kind: Kind::Text {
            put: |user, text| {
                user.password_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "security",
        doc: "Name of the `[[security]]` whose user it is, on the listeners of that domain alone; `default` if it is not written.",
        kind: Kind::Text {
            put: |user, text| {
                user.security = Some(not_empty(text)?);
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
        doc: "Topic Filter of messages that are kept less safely than `broker.durability` says.",
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
        doc: "What an acknowledgement of such a message vouches for; below `broker.durability`.",
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

/// The keys of a `[[security]]`. The start-up log has a line for each domain, by its `Display`.
pub(super) static SECURITY: &[Key<SecurityDraft, SecurityDomain>] = &[
    Key {
        name: "name",
        doc: "Name of the domain; `default` if it is not written.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.name = Some(mqtt_text(not_empty(text)?)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "chain",
        doc: "Back ends that are asked who a client is, in this order.",
        kind: Kind::List {
            allowed: &["certificate", "jwt", "password", "http"],
            if_empty: Some("then nobody is asked who a client is; without the key all that is configured is"),
            put: |domain, words| {
                let known = |word: &str| BackEnd::ALL.into_iter().find(|back_end| back_end.name() == word);
                domain.chain = Some(words.into_iter().filter_map(known).collect());
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "password_file",
        doc: "File with users and their passwords, in the format of mosquitto_passwd.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.password_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "acl_file",
        doc: "File with access rules, in the format of Mosquitto.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.acl_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "rules_file",
        doc: "File with access rules of our own, in TOML; see [access.md](access.md#a-rules-file). A domain has one of `acl_file`, `rules_file` and `dynamic_security_file`.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.rules_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "dynamic_security_file",
        doc: "File with users, groups and roles that are changed while the broker runs, in the format of Mosquitto's plugin; see [access.md](access.md#dynamic-security).",
        kind: Kind::Text {
            put: |domain, text| {
                domain.dynamic_security_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_jwks_url",
        doc: "URL of the key set by which tokens are verified.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_jwks_url = Some(http_url(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_jwks_file",
        doc: "File with such a key set.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_jwks_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_public_key_file",
        doc: "File with one public key, in PEM.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_public_key_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_secret_file",
        doc: "File with the secret of an HMAC.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_secret_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_refresh_seconds",
        doc: "Seconds after which a key set of a URL is fetched again; 3600 if it is not written.",
        kind: Kind::Number {
            min: 10,
            max: 86_400,
            word: None,
            put: |domain, value| domain.jwt_refresh_seconds = u32_of(value),
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_algorithms",
        doc: "Algorithms that tokens may be signed by.",
        kind: Kind::List {
            allowed: &Algorithm::NAMES,
            if_empty: Some("then no token is good; without the key those are that the keys are made for"),
            put: |domain, words| domain.jwt_rules.algorithms = algorithms(&words),
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_issuer",
        doc: "Issuer that tokens have to name.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.issuer = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_audience",
        doc: "Audience that tokens have to name.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.audience = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_leeway_seconds",
        doc: "Seconds by which the clocks of issuer and broker may differ; 60 if it is not written.",
        kind: Kind::Number {
            min: 0,
            max: 3_600,
            word: None,
            put: |domain, value| domain.jwt_rules.leeway = Duration::from_secs(u32_of(value).into()),
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_require_expiry",
        doc: "Whether a token has to have an end; true if it is not written.",
        kind: Kind::Switch { put: |domain, value| domain.jwt_rules.require_expiry = value },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_token_bytes_max",
        doc: "Longest token, in bytes; 8192 if it is not written.",
        kind: Kind::Number {
            min: 128,
            max: 65_535,
            word: None,
            put: |domain, value| domain.jwt_rules.token_bytes_max = u32_of(value) as usize,
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_user_name",
        doc: "User name that clients with a token in place of a password have to give.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.user_name = Some(mqtt_text(not_empty(text)?)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_user_name_claim",
        doc: "Claim with the user name; `sub` if it is not written.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.user_name_claim = not_empty(text)?;
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_client_id_claim",
        doc: "Claim with the Client Identifier that the client has to have.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.client_id_claim = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_groups_claim",
        doc: "Claim with the groups of the user.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.groups_claim = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_publish_claim",
        doc: "Claim with the Topic Filters that the user may publish to.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.publish_claim = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "jwt_subscribe_claim",
        doc: "Claim with the Topic Filters that the user may subscribe to.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.jwt_rules.subscribe_claim = Some(not_empty(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "http_url",
        doc: "URL of a service that is asked who a client is.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.http_url = Some(http_url(text)?);
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "http_format",
        doc: "How it is asked; json if it is not written.",
        kind: Kind::Choice {
            allowed: &["json", "form"],
            put: |domain, word| domain.http_format = if word == "form" { Format::Form } else { Format::Json },
        },
        show: |_| String::new(),
    },
    Key {
        name: "http_timeout_seconds",
        doc: "Seconds that its answer may take; 5 if it is not written.",
        kind: Kind::Number {
            min: 1,
            max: 60,
            word: None,
            put: |domain, value| domain.http_timeout_seconds = u32_of(value),
        },
        show: |_| String::new(),
    },
    Key {
        name: "http_cache_seconds",
        doc: "Seconds for which its answers are kept; 30 if it is not written.",
        kind: Kind::Number {
            min: 0,
            max: 86_400,
            word: None,
            put: |domain, value| domain.http_cache_seconds = u32_of(value),
        },
        show: |_| String::new(),
    },
    Key {
        name: "http_authorization_file",
        doc: "File with the value of the Authorization header of requests.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.http_authorization_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
    Key {
        name: "http_ca_file",
        doc: "File with certificates of authorities in place of those of the system, in PEM, for `http_url` and `jwt_jwks_url`.",
        kind: Kind::Text {
            put: |domain, text| {
                domain.http_ca_file = Some(PathBuf::from(not_empty(text)?));
                Ok(())
            },
        },
        show: |_| String::new(),
    },
];

/// The sections that are lists, in the words of the file.
pub(super) const LISTS: [&str; 4] = ["listener", "durability", "scram_user", "security"];

pub(super) const BAD_TIMESTAMP: &str = "it has a conversion that is not known; known are %Y %C %y %m %d %e %j %H %I %M %S %p \
     %s %F %T %D %R %a %A %b %B %h %Z %z %n %t %%";

/// A number that is known to be within 32 bits.
fn u32_of(value: Option<u64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX)
}

/// Zero is no limit.
pub(super) fn count(value: Option<u64>) -> Option<NonZeroU32> {
    value.and_then(|value| u32::try_from(value).ok()).and_then(NonZeroU32::new)
}

/// Of a listener, where it is written.
fn rate(value: Option<u64>) -> ListenerRate {
    count(value).map_or(ListenerRate::Unlimited, ListenerRate::PerSecond)
}

fn shown_rate(rate: ListenerRate) -> String {
    match rate {
        ListenerRate::AsElsewhere => String::new(),
        ListenerRate::PerSecond(max) => max.to_string(),
        ListenerRate::Unlimited => UNLIMITED.to_owned(),
    }
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
pub(super) fn mqtt_text(text: String) -> Result<String, &'static str> {
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
