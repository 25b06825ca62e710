//! What was written, flag by flag: nothing here has been compared with anything else.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pantala_proto::{ProtocolVersion, QoS, RetainHandling};

use crate::clients::decision::Retained;
use crate::clients::output::Format;
use crate::clients::plan::Proxy;

/// The flags of all three programs, as far as they were given. The parts of `-L` are where their own flags put them.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// `-h`.
    pub host: Option<String>,
    /// `-p`; 0 is a Unix socket in place of the host.
    pub port: Option<u16>,
    /// `-S`.
    pub service: bool,
    /// `--name-server`.
    pub name_servers: Vec<SocketAddr>,
    /// `--unix`.
    pub unix: Option<PathBuf>,
    /// `--ws`.
    pub websocket: bool,
    /// `-A`.
    pub bind_address: Option<String>,
    /// `--proxy`.
    pub proxy: Option<Proxy>,
    /// `--nodelay`.
    pub no_delay: bool,
    /// `--no-reconnect`.
    pub no_reconnect: bool,
    /// `--reconnect-delay`.
    pub reconnect_delay: Option<Duration>,
    /// `--reconnect-delay-max`.
    pub reconnect_delay_max: Option<Duration>,
    /// `-i`.
    pub client_id: Option<String>,
    /// `-I`.
    pub client_id_prefix: Option<String>,
    /// `-u`.
    pub user_name: Option<String>,
    /// `-P` and its relatives.
    pub password: Option<SecretWritten>,
    /// `-k`, in seconds.
    pub keep_alive: Option<u16>,
    /// `-c`.
    pub keep_session: bool,
    /// `-x`, in seconds; `u32::MAX` is for ever.
    pub session_expiry_interval: Option<u32>,
    /// `-V`.
    pub version: Option<ProtocolVersion>,
    /// `-D`.
    pub properties: Vec<PropertyWritten>,
    /// `--will-…`.
    pub will: WillWritten,
    /// `--cafile` to `--no-tls`.
    pub tls: TlsWritten,
    /// `-q`.
    pub qos: Option<QoS>,
    /// `-t`, each with where it was written.
    pub topics: Vec<(Stage, String)>,
    /// `-e`.
    pub response_topic: Option<String>,
    /// `-m` and the other sources of payload.
    pub payloads: Vec<PayloadWritten>,
    /// `-r`.
    pub retain: bool,
    /// `-M`.
    pub inflight_max: Option<u16>,
    /// `--repeat`.
    pub repeat: Option<u32>,
    /// `--repeat-delay`.
    pub repeat_delay: Option<Duration>,
    /// `-U`.
    pub unsubscribe: Vec<String>,
    /// `-T`.
    pub filter_out: Vec<String>,
    /// `-R` and `--retained-only`, in their order.
    pub retained: Vec<Retained>,
    /// `--remove-retained`.
    pub remove_retained: bool,
    /// `--retain-as-published`.
    pub retain_as_published: bool,
    /// `--retain-handling`.
    pub retain_handling: Option<RetainHandling>,
    /// `--random-filter`, in percent.
    pub random_filter: Option<f64>,
    /// `-C`.
    pub count: Option<u64>,
    /// `-E`.
    pub exit_after_subscribe: bool,
    /// `-W`.
    pub timeout: Option<Duration>,
    /// `-F`.
    pub format: Option<Format>,
    /// `-v`.
    pub verbose: bool,
    /// `-N`.
    pub no_newline: bool,
    /// `--pretty`.
    pub pretty: bool,
    /// `--json`.
    pub json: bool,
    /// `--raw`.
    pub raw: bool,
    /// `--output-dir`.
    pub output_folder: Option<PathBuf>,
    /// `-w`.
    pub watch: bool,
    /// `--message-rate`.
    pub message_rate: bool,
    /// `--latency`.
    pub latency: bool,
    /// `-d`.
    pub debug: bool,
    /// `--quiet`.
    pub quiet: bool,
}

/// Where a flag was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// In an options file.
    #[default]
    File,
    /// On the command line, which goes before.
    CommandLine,
}

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretWritten {
    /// `-P`.
    Given(OsString),
    /// `--pw-env`.
    Variable(String),
    /// `--pw-file`.
    File(PathBuf),
    /// `--pw-prompt`.
    Prompt,
}

/// Without what is secret.
impl fmt::Debug for SecretWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(…)"),
            Self::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Prompt => f.write_str("Prompt"),
        }
    }
}

/// Where a payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadWritten {
    /// `-m`.
    Given(OsString),
    /// `--payload-env`.
    Variable(String),
    /// `-f`.
    File(PathBuf),
    /// `-n`.
    Null,
    /// `-s`.
    Stdin,
    /// `-l`.
    StdinLines,
    /// `--json` of `pub`.
    StdinJson,
}

/// `-D command name value [value]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyWritten {
    /// The Control Packet.
    pub command: String,
    /// The property.
    pub name: String,
    /// Its value; of a User Property the name.
    pub value: String,
    /// The value of a User Property.
    pub second: Option<String>,
}

/// `--will-…`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WillWritten {
    /// `--will-topic`.
    pub topic: Option<String>,
    /// `--will-payload`.
    pub payload: Option<OsString>,
    /// `--will-qos`.
    pub qos: Option<QoS>,
    /// `--will-retain`.
    pub retain: bool,
}

/// The flags about TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsWritten {
    /// `--cafile`.
    pub ca_file: Option<PathBuf>,
    /// `--capath`.
    pub ca_folder: Option<PathBuf>,
    /// `--tls-use-os-certs`.
    pub system_roots: bool,
    /// `--cert`.
    pub certificate: Option<PathBuf>,
    /// `--key`.
    pub key: Option<PathBuf>,
    /// `--insecure`.
    pub insecure: bool,
    /// `--tls-version`: 1.3 and nothing else, or from 1.2 on.
    pub only_version_13: Option<bool>,
    /// `--tls-alpn`.
    pub alpn: Option<String>,
    /// `--tls-keylog`.
    pub key_log: Option<PathBuf>,
    /// `-L` with mqtts or wss.
    pub by_scheme: bool,
    /// `--no-tls`.
    pub off: bool,
}
