//! How to connect: what the three programs have in common.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use pantala_proto::{ProtocolVersion, QoS};

use super::address::{Proxy, Target, Transport};
use super::checked_topic_name;
use super::properties::{ConnectProperties, DisconnectProperties, MessageProperties, Properties};
use crate::clients::flags::{FlagError, PayloadWritten, Program, SecretWritten, Surroundings, TlsWritten, Written};

const HOST: &str = "localhost";
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
const KEEP_ALIVE_SECONDS: u16 = 60;
/// What Mosquitto has under way at once.
const INFLIGHT_MAX: u16 = 20;
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(30);
/// The path at which brokers have MQTT over WebSocket.
const WEBSOCKET_PATH: &str = "/mqtt";
/// The most bytes of a string in a packet, and of a password.
const STRING_BYTES_MAX: usize = u16::MAX as usize;

/// How to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Whose it is.
    pub program: Program,
    /// Where to.
    pub target: Target,
    /// MQTT bytes as they are, or in WebSocket.
    pub transport: Transport,
    /// TLS; None is without.
    pub tls: Option<Tls>,
    /// By way of a proxy; never to a Unix socket.
    pub proxy: Option<Proxy>,
    /// The local address to connect from, a name or an address.
    pub bind_address: Option<String>,
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// What to do when the connection is lost; None is to end.
    pub reconnect: Option<Reconnect>,
    /// Version of MQTT.
    pub version: ProtocolVersion,
    /// Client Identifier.
    pub client_id: ClientId,
    /// User Name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// Keep Alive in seconds, 5..=65_535.
    pub keep_alive: u16,
    /// Clean Start, called Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Messages of QoS 1 and 2 under way to the broker at once, from 1 on; its Receive Maximum may be less.
    pub inflight_max: u16,
    /// The Will Message.
    pub will: Option<Will>,
    /// Properties of CONNECT; Session Expiry Interval is what `-x`, `-c` and `-D` come to. Empty before MQTT 5.
    pub connect_properties: ConnectProperties,
    /// Properties of DISCONNECT; empty before MQTT 5.
    pub disconnect_properties: DisconnectProperties,
    /// What was written and has no effect, as with Mosquitto: a line for each.
    pub warnings: Vec<String>,
    /// Tell of each packet.
    pub debug: bool,
    /// Print no errors.
    pub quiet: bool,
}

/// A Client Identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientId {
    /// This one.
    Given(String),
    /// None: the broker chooses. MQTT 3.1 has no such thing, so there the program has to make one up.
    Assigned,
}

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// This one.
    Given(Vec<u8>),
    /// To be asked for.
    Prompt,
}

/// Without what is secret.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given(…)",
            Self::Prompt => "Prompt",
        })
    }
}

/// Connecting again: a wait, doubled with each attempt up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// Before the first attempt.
    pub delay: Duration,
    /// The longest; at least `delay`.
    pub delay_max: Duration,
}

/// TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// Folder of such files.
    pub ca_folder: Option<PathBuf>,
    /// Trust what the system trusts. One of these three is set.
    pub system_roots: bool,
    /// PEM files with this client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Do not compare the host's name with the certificate.
    pub insecure: bool,
    /// TLS 1.3 only, else 1.2 as well.
    pub only_version_13: bool,
    /// The protocol to ask for by ALPN.
    pub alpn: Option<String>,
    /// Where the session's secrets are written to.
    pub key_log: Option<PathBuf>,
}

/// A Will Message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic Name.
    pub topic_name: String,
    /// Payload, at most 65_535 bytes.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Properties; empty before MQTT 5.
    pub properties: MessageProperties,
}

impl Connection {
    /// Checks what was written about the connection.
    pub(super) fn new(
        program: Program,
        written: &Written,
        properties: &Properties,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, FlagError> {
        let default_version = match program {
            Program::Request => ProtocolVersion::V5,
            Program::Publish | Program::Subscribe => ProtocolVersion::V311,
        };
        // Only MQTT 5 has what these flags are for, so they switch to it, as Mosquitto's -D does.
        let needs_v5 = !written.properties.is_empty() || written.session_expiry_interval.is_some();
        let version = if needs_v5 { ProtocolVersion::V5 } else { written.version.unwrap_or(default_version) };

        let client_id = match (&written.client_id, &written.client_id_prefix) {
            (Some(_), Some(_)) => {
                let why = "-i is the whole identifier, -I its beginning";
                return Err(FlagError::Conflict { one: "-i", other: "-I", why });
            }
            (Some(id), None) if id.is_empty() => ClientId::Assigned,
            (Some(id), None) => ClientId::Given(checked_length("-i", id.clone())?),
            (None, Some(prefix)) => {
                ClientId::Given(checked_length("-I", format!("{prefix}{}", surroundings.process_id))?)
            }
            (None, None) => ClientId::Assigned,
        };
        let mut connect_properties = properties.connect.clone();
        // -x goes before -D connect session-expiry-interval.
        connect_properties.session_expiry_interval = written
            .session_expiry_interval
            .or(connect_properties.session_expiry_interval)
            .or((written.keep_session && version.is_v5()).then_some(u32::MAX));
        if client_id == ClientId::Assigned {
            if written.keep_session {
                return Err(FlagError::Missing {
                    flag: "-i",
                    why: "-c takes up a session, which needs a client's name",
                });
            }
            if connect_properties.session_expiry_interval == Some(u32::MAX) {
                let why = "a session without end needs a client's name";
                return Err(FlagError::Missing { flag: "-i", why });
            }
        }
        let password = password(written, surroundings)?;
        if password.is_some() && written.user_name.is_none() && !version.is_v5() {
            return Err(FlagError::Missing { flag: "-u", why: "before MQTT 5 a password needs a user name" });
        }
        if connect_properties.authentication_data.is_some() && connect_properties.authentication_method.is_none() {
            let why = "authentication-data needs a method beside it";
            return Err(FlagError::Missing { flag: "-D connect authentication-method", why });
        }
        let tls = tls(written)?;
        let target = target(written, tls.is_some())?;
        if let Target::Unix(_) = target
            && written.proxy.is_some()
        {
            let why = "a Unix socket is on this machine";
            return Err(FlagError::Conflict { one: "--unix", other: "--proxy", why });
        }
        // Such a packet would be a Protocol Error (v5 section 3.14.2.2.2).
        let is_kept = connect_properties.session_expiry_interval.is_some_and(|seconds| seconds > 0);
        if !is_kept && properties.disconnect.session_expiry_interval.is_some_and(|seconds| seconds > 0) {
            let why = "-D disconnect session-expiry-interval can prolong no session that ends with the connection";
            return Err(FlagError::Missing { flag: "-x", why });
        }
        Ok(Self {
            program,
            target,
            transport: match written.websocket {
                true => Transport::WebSocket(WEBSOCKET_PATH.to_owned()),
                false => Transport::Plain,
            },
            tls,
            proxy: written.proxy.clone(),
            bind_address: written.bind_address.clone(),
            no_delay: written.no_delay,
            reconnect: reconnect(program, written)?,
            version,
            client_id,
            user_name: written.user_name.clone().map(|name| checked_length("-u", name)).transpose()?,
            password,
            keep_alive: written.keep_alive.unwrap_or(KEEP_ALIVE_SECONDS),
            clean_start: !written.keep_session,
            inflight_max: written.inflight_max.unwrap_or(INFLIGHT_MAX),
            will: will(written, properties.will.as_ref())?,
            connect_properties,
            disconnect_properties: properties.disconnect.clone(),
            warnings: warnings(program, written, version),
            debug: written.debug,
            quiet: written.quiet,
        })
    }
}

fn checked_length(flag: &'static str, text: String) -> Result<String, FlagError> {
    if text.len() <= STRING_BYTES_MAX {
        return Ok(text);
    }
    let given = text.chars().take(20).chain("…".chars()).collect();
    Err(FlagError::Value { flag: flag.to_owned(), given, expected: "at most 65535 bytes" })
}

fn target(written: &Written, has_tls: bool) -> Result<Target, FlagError> {
    if let Some(path) = &written.unix {
        if written.service {
            return Err(FlagError::Conflict { one: "-S", other: "--unix", why: "a Unix socket is on this machine" });
        }
        return Ok(Target::Unix(path.clone()));
    }
    if written.service {
        return service(written);
    }
    if !written.name_servers.is_empty() {
        return Err(FlagError::Missing { flag: "-S", why: "--name-server is asked for nothing else" });
    }
    match (written.port, &written.host) {
        (Some(0), Some(path)) => Ok(Target::Unix(path.into())),
        (Some(0), None) => {
            Err(FlagError::Missing { flag: "-h", why: "with -p 0 it names a Unix socket, as --unix does" })
        }
        (port, host) => Ok(Target::Tcp {
            host: host.clone().unwrap_or_else(|| HOST.to_owned()),
            port: port.unwrap_or(if has_tls { TLS_PORT } else { PORT }),
        }),
    }
}

/// What Mosquitto's clients take and pass over, so that it cannot be refused.
fn warnings(program: Program, written: &Written, version: ProtocolVersion) -> Vec<String> {
    let mut warnings = Vec::new();
    let options = [
        ("--retain-as-published", written.retain_as_published),
        ("--retain-handling", written.retain_handling.is_some()),
    ];
    for (flag, _) in options.into_iter().filter(|(_, given)| *given && !version.is_v5()) {
        warnings.push(format!("{flag} has no effect before MQTT 5; add -V 5"));
    }
    let unsent: &[&str] = match program {
        Program::Publish => &["subscribe", "unsubscribe"],
        Program::Subscribe => &["publish"],
        Program::Request => &["unsubscribe"],
    };
    let is_given = |command: &&&str| written.properties.iter().any(|given| given.command.eq_ignore_ascii_case(command));
    for command in unsent.iter().filter(is_given) {
        let packet = command.to_ascii_uppercase();
        warnings.push(format!("-D {command} has no effect, since `pantala {}` sends no {packet}", program.name()));
    }
    warnings
}

fn service(written: &Written) -> Result<Target, FlagError> {
    if written.websocket {
        let why = "there are SRV records for MQTT alone";
        return Err(FlagError::Conflict { one: "-S", other: "--ws", why });
    }
    if written.port.is_some() {
        let why = "SRV records name the port; --tls-use-os-certs turns on TLS";
        return Err(FlagError::Conflict { one: "-S", other: "-p", why });
    }
    let domain = written.host.clone().ok_or(FlagError::Missing { flag: "-h", why: "-S needs a domain" })?;
    Ok(Target::Service { domain, name_servers: written.name_servers.clone() })
}

fn tls(written: &Written) -> Result<Option<Tls>, FlagError> {
    let TlsWritten { ca_file, ca_folder, system_roots, certificate, key, by_scheme, off, .. } = &written.tls;
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (Some(_), None) => return Err(FlagError::Missing { flag: "--key", why: "a certificate needs its key" }),
        (None, Some(_)) => return Err(FlagError::Missing { flag: "--cert", why: "a key needs its certificate" }),
        (None, None) => None,
    };
    let has_roots = ca_file.is_some() || ca_folder.is_some() || *system_roots;
    if *off {
        if *by_scheme {
            let why = "mqtts and wss are MQTT over TLS";
            return Err(FlagError::Conflict { one: "--no-tls", other: "-L", why });
        }
        return Ok(None);
    }
    // A certificate is of no use without TLS: to leave it out and connect in the clear would be a surprise.
    let wanted = has_roots || *by_scheme || identity.is_some() || written.port == Some(TLS_PORT);
    if !wanted {
        return Ok(None);
    }
    Ok(Some(Tls {
        ca_file: ca_file.clone(),
        ca_folder: ca_folder.clone(),
        system_roots: *system_roots || !has_roots,
        identity,
        insecure: written.tls.insecure,
        only_version_13: written.tls.only_version_13.unwrap_or(false),
        alpn: written.tls.alpn.clone(),
        key_log: written.tls.key_log.clone(),
    }))
}

fn password(written: &Written, surroundings: &Surroundings<'_>) -> Result<Option<Password>, FlagError> {
    let unreadable = |flag, source_name: String, why: String| FlagError::Unreadable { flag, source_name, why };
    let (flag, bytes) = match &written.password {
        None => return Ok(None),
        Some(SecretWritten::Prompt) => return Ok(Some(Password::Prompt)),
        Some(SecretWritten::Given(password)) => ("-P", bytes_of(password)),
        Some(SecretWritten::Variable(name)) => match (surroundings.variable)(name) {
            Some(password) => ("--pw-env", bytes_of(&password)),
            None => return Err(unreadable("--pw-env", name.clone(), "there is no such variable".to_owned())),
        },
        Some(SecretWritten::File(path)) => {
            let mut bytes = (surroundings.read)(path)
                .map_err(|error| unreadable("--pw-file", path.display().to_string(), error.to_string()))?;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
            }
            ("--pw-file", bytes)
        }
    };
    if bytes.len() > STRING_BYTES_MAX {
        return Err(FlagError::Value {
            flag: flag.to_owned(), given: "…".to_owned(), expected: "at most 65535 bytes"
        });
    }
    Ok(Some(Password::Given(bytes)))
}

/// The bytes of an argument: on Unix as they were given.
pub(super) fn bytes_of(text: &OsStr) -> Vec<u8> {
    text.as_encoded_bytes().to_vec()
}

fn reconnect(program: Program, written: &Written) -> Result<Option<Reconnect>, FlagError> {
    let Written { reconnect_delay, reconnect_delay_max, .. } = written;
    if written.no_reconnect {
        if reconnect_delay.is_some() || reconnect_delay_max.is_some() {
            let why = "there is nothing to wait for";
            return Err(FlagError::Conflict { one: "--no-reconnect", other: "--reconnect-delay", why });
        }
        return Ok(None);
    }
    // As with Mosquitto: who publishes one message, or asks one question, rather hears that the broker does not take it.
    let by_line = |payload: &PayloadWritten| matches!(payload, PayloadWritten::StdinLines | PayloadWritten::StdinJson);
    let lasts = match program {
        Program::Subscribe => true,
        Program::Publish => written.payloads.iter().any(by_line),
        Program::Request => false,
    };
    if !lasts && reconnect_delay.is_none() && reconnect_delay_max.is_none() {
        return Ok(None);
    }
    let delay = reconnect_delay.unwrap_or_else(|| RECONNECT_DELAY.min(reconnect_delay_max.unwrap_or(Duration::MAX)));
    let delay_max = reconnect_delay_max.unwrap_or(RECONNECT_DELAY_MAX.max(delay));
    if delay > delay_max {
        let why = "the first wait is longer than the longest";
        return Err(FlagError::Conflict { one: "--reconnect-delay", other: "--reconnect-delay-max", why });
    }
    Ok(Some(Reconnect { delay, delay_max }))
}

fn will(written: &Written, properties: Option<&MessageProperties>) -> Result<Option<Will>, FlagError> {
    let parts = &written.will;
    let Some(topic) = &parts.topic else {
        let alone = match () {
            () if parts.payload.is_some() => "--will-payload",
            () if parts.qos.is_some() => "--will-qos",
            () if parts.retain => "--will-retain",
            () if properties.is_some() => "-D will",
            () => return Ok(None),
        };
        let why = match alone {
            "--will-payload" => "--will-payload is part of a Will Message, which needs a topic",
            "--will-qos" => "--will-qos is part of a Will Message, which needs a topic",
            "--will-retain" => "--will-retain is part of a Will Message, which needs a topic",
            _ => "-D will is part of a Will Message, which needs a topic",
        };
        return Err(FlagError::Missing { flag: "--will-topic", why });
    };
    let payload = parts.payload.as_deref().map(bytes_of).unwrap_or_default();
    if payload.len() > STRING_BYTES_MAX {
        let (flag, given) = ("--will-payload".to_owned(), "…".to_owned());
        return Err(FlagError::Value { flag, given, expected: "at most 65535 bytes" });
    }
    Ok(Some(Will {
        topic_name: checked_topic_name("--will-topic", topic.clone())?,
        payload,
        qos: parts.qos.unwrap_or_default(),
        retain: parts.retain,
        properties: properties.cloned().unwrap_or_default(),
    }))
}
