//! The flags by which `probe`, `record` and `replay` find a broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pantala_client::error::ConnectionError;
use pantala_client::transport::{ClientCertificate, Roots, TransportOptions, Verification};
use pantala_client::url::BrokerUrl;
use pantala_client::{Options, ProtocolVersion, ReasonCode};

#[derive(Debug, Args)]
pub struct Connection {
    /// The broker: mqtt://HOST, mqtts://HOST, ws://HOST/PATH, wss://HOST/PATH or unix:///PATH.
    #[arg(value_name = "URL", default_value = "mqtt://localhost")]
    url: BrokerUrl,
    /// User name, instead of one in the URL.
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// A file with the password in its first line. One in the URL can be read by all users of this machine.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificate authorities to trust, as a PEM file or a directory of them, instead of the system's.
    #[arg(long, value_name = "PATH")]
    cafile: Option<PathBuf>,
    /// The own certificate, PEM; with --key.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of the own certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Do not check whether the broker's certificate is for its name.
    #[arg(long)]
    insecure: bool,
    /// How long a connection may take to come about, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    connect_timeout: u64,
}

impl Connection {
    /// The broker, without the password.
    pub fn url(&self) -> &BrokerUrl {
        &self.url
    }

    /// Options for a connection that speaks `version`.
    ///
    /// # Errors
    /// The password cannot be read.
    pub fn options(&self, version: ProtocolVersion) -> Result<Options, String> {
        let connect_timeout = Duration::from_secs(self.connect_timeout);
        let mut transport = TransportOptions { connect_timeout, ..TransportOptions::default() };
        if let Some(path) = &self.cafile {
            transport.tls.roots = Roots::Files(vec![path.clone()]);
        }
        if let (Some(certificate), Some(key)) = (&self.cert, &self.key) {
            transport.tls.client_certificate =
                Some(ClientCertificate { certificate: certificate.clone(), key: key.clone() });
        }
        if self.insecure {
            transport.tls.verification = Verification::AnyName;
        }
        let mut options = Options::with_transport(&self.url, transport).version(version);
        options.session.connect_timeout = connect_timeout;
        if let Some(name) = &self.username {
            options.session.user_name = Some(name.clone());
        }
        if let Some(path) = &self.password_file {
            options.session.password = Some(first_line(path)?);
        }
        if options.session.password.is_some() && options.session.user_name.is_none() && !version.is_v5() {
            return Err("a password needs a user name before MQTT 5: give --username".to_owned());
        }
        Ok(options)
    }
}

/// The same with a version to speak, for `record` and `replay`.
#[derive(Debug, Args)]
pub struct Spoken {
    #[command(flatten)]
    connection: Connection,
    /// Version of MQTT: 5, 311 or 31. Before 5 messages have no properties.
    #[arg(short = 'V', long = "protocol-version", value_name = "VERSION", default_value = "5", value_parser = parse_version)]
    version: ProtocolVersion,
}

fn parse_version(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "5" | "mqttv5" => Ok(ProtocolVersion::V5),
        "311" | "mqttv311" => Ok(ProtocolVersion::V311),
        "31" | "mqttv31" => Ok(ProtocolVersion::V31),
        _ => Err("5, 311 or 31".to_owned()),
    }
}

impl Spoken {
    /// As [`Connection::options`]. What will not pass by itself ends the client; what may is tried again.
    ///
    /// # Errors
    /// The password cannot be read.
    pub fn options(&self) -> Result<Options, String> {
        let mut options = self.connection.options(self.version)?;
        options.reconnect.only_passing = true;
        if self.version == ProtocolVersion::V31 {
            // It wants one.
            options.session.client_id = format!("pantala-{}", std::process::id());
        }
        Ok(options)
    }

    /// The version to speak.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Why there is no connection, in words.
    pub fn failure(&self, error: &ConnectionError) -> String {
        let hint = match error {
            ConnectionError::Refused { refusal, .. }
                if self.version.is_v5() && refusal.reason_code == ReasonCode::UnsupportedProtocolVersion =>
            {
                "; it may know MQTT 3.1.1: -V 311"
            }
            _ => "",
        };
        format!("{}: {error}{hint}", self.connection.url())
    }
}

/// The first line of a file with a secret.
///
/// # Errors
/// The file cannot be read.
pub fn first_line(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}
