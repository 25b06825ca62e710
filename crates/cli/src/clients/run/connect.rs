//! From a plan to a connection.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::num::NonZeroU16;
use std::time::Duration;

use pantala_client::authentication::{AuthenticationError, Authenticator};
use pantala_client::machine::{Connected, Direction, DisconnectRequest, Will};
use pantala_client::transport::{
    Address, ClientCertificate, Endpoint, Roots, Socks5, TlsOptions, TlsVersions, Transport as Way, TransportOptions,
    Verification,
};
use pantala_client::{Client, Message, Options, Packet, Reconnect, Status};
use pantala_proto::{ProtocolVersion, QoS};
use tokio::time::Instant;

use super::farewell::Farewell;
use super::{Failure, Signals, complain};
use crate::clients::flags::Program;
use crate::clients::output::{Escaping, PacketLines};
use crate::clients::plan::{ClientId, Connection, MessageProperties, Password, Target, Tls, Transport};
use crate::clients::prompt::read_secret;

/// The most time that ending a connection takes.
const GOODBYE: Duration = Duration::from_secs(2);

/// Connects, and tells of it where that was asked for.
pub(super) async fn connect(plan: &Connection, farewell: Option<&Farewell>) -> Result<Client, Failure> {
    for warning in plan.warnings.iter().filter(|_| !plan.quiet) {
        complain(&format!("Warning: {warning}"));
    }
    let mut options = options(plan)?;
    if plan.debug {
        options = options.observer(tell_packets(plan));
    }
    // In TLS and WebSocket a last word crosses ours, and resets connections that ended well.
    if let Some(farewell) = farewell.filter(|_| plan.tls.is_none() && plan.transport == Transport::Plain) {
        farewell.watch(&mut options);
    }
    let client = Client::start(options);
    if !plan.quiet {
        tokio::spawn(tell_losses(client.changes(), complain));
    }
    match client.connected().await {
        Ok(connected) => {
            tell_reason(plan, &connected);
            Ok(client)
        }
        Err(error) => Err(Failure::connection(&error, plan.version)),
    }
}

/// Ends the connection as the plan says. A broker that takes nothing any more is not waited for long, and not at all after
/// a signal.
pub(super) async fn say_goodbye(client: &Client, plan: &Connection, signals: &mut Signals) {
    let properties = &plan.disconnect_properties;
    let request = DisconnectRequest {
        session_expiry_interval: properties.session_expiry_interval.map(seconds),
        reason_string: properties.reason_string.clone(),
        user_properties: properties.user_properties.clone(),
        ..DisconnectRequest::default()
    };
    tokio::select! {
        () = client.disconnect_saying(request) => {}
        () = tokio::time::sleep(GOODBYE) => {}
        _ = signals.come() => {}
    }
}

/// Connects, works, and says goodbye: until the work is done, a signal comes, or the time of `-W` is over. A signal is the usual
/// end of `sub`, and for others a failure.
pub(super) async fn while_connected(
    plan: &Connection,
    timeout: Option<Duration>,
    work: impl AsyncFnOnce(&Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let ended_by = |signal| match plan.program {
        Program::Subscribe => Ok(()),
        Program::Publish | Program::Request => Err(Failure::interrupted(signal)),
    };
    let end = timeout.map(|timeout| Instant::now() + timeout);
    let client = tokio::select! {
        biased;
        signal = signals.come() => return ended_by(signal),
        () = sleep_until(end) => return Err(Failure::timed_out()),
        client = connect(plan, None) => client?,
    };
    let result = tokio::select! {
        biased;
        signal = signals.come() => ended_by(signal),
        () = sleep_until(end) => Err(Failure::timed_out()),
        result = work(&client) => result,
    };
    // However it ends, it ends with a goodbye: else the broker would publish the Will Message.
    say_goodbye(&client, plan, &mut signals).await;
    result
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// What a broker says to those whom it takes in.
fn tell_reason(plan: &Connection, connected: &Connected) {
    if let Some(reason) = connected.details.reason_string.as_ref().filter(|_| plan.debug && !plan.quiet) {
        complain(&format!("The broker says: {}", reason.escape_debug()));
    }
}

/// Tells of lost connections, and of attempts that fail, until the end. The same reason is told once for each connection that is
/// lost.
pub async fn tell_losses(mut changes: pantala_client::Changes, tell: impl Fn(&str)) {
    let mut told = None;
    while let Some(status) = changes.next().await {
        if let Status::Waiting { error, wait } = status {
            let words = error.to_string();
            if told.as_ref() != Some(&words) {
                let what = if told.is_some() { "No connection" } else { "Connection lost" };
                tell(&format!("{what}: {words}; next attempt in {wait:.1?}"));
                told = Some(words);
            }
        } else if matches!(status, Status::Connected(_)) && told.take().is_some() {
            tell("Connected again");
        }
    }
}

/// A line for each packet on standard output, as Mosquitto's clients have it: the messages of `sub` stand between them.
fn tell_packets(plan: &Connection) -> impl FnMut(Direction, &Packet<'_>) + Send + 'static {
    let escaping = if io::stdout().is_terminal() { Escaping::OneLine } else { Escaping::Raw };
    let grants = plan.program == Program::Subscribe && !plan.quiet;
    let mut lines = PacketLines::new(plan.version, escaping, grants);
    let mut text = Vec::new();
    move |direction, packet| {
        text.clear();
        lines.put(direction, packet, &mut text);
        // Whoever read it has seen enough.
        drop(io::stdout().lock().write_all(&text));
    }
}

fn options(plan: &Connection) -> Result<Options, Failure> {
    let address = match &plan.target {
        Target::Tcp { host, port } => Address::Host(host.clone(), *port),
        Target::Service { domain, .. } => Address::Service(domain.clone()),
        Target::Unix(path) => Address::Unix(path.clone()),
    };
    let websocket = match &plan.transport {
        Transport::Plain => None,
        Transport::WebSocket(path) => Some(path.clone()),
    };
    let transport = TransportOptions {
        nodelay: plan.no_delay,
        name_servers: match &plan.target {
            Target::Service { name_servers, .. } => name_servers.clone(),
            Target::Tcp { .. } | Target::Unix(_) => Vec::new(),
        },
        bind: plan.bind_address.as_deref().map(bind_address).transpose()?,
        proxy: plan.proxy.as_ref().map(|proxy| Socks5 {
            host: proxy.host.clone(),
            port: proxy.port,
            credentials: proxy.credentials.clone(),
        }),
        tls: plan.tls.as_ref().map(tls).unwrap_or_default(),
        ..TransportOptions::default()
    };
    let endpoint = Endpoint { address, tls: plan.tls.is_some(), websocket };
    let mut options = Options::with_connector(Way::new(endpoint, transport));
    if let Some(method) = &plan.connect_properties.authentication_method {
        let data = plan.connect_properties.authentication_data.clone();
        options = options.authenticator(OneStep { method: method.clone(), data });
    }
    options.reconnect = match plan.reconnect {
        Some(reconnect) => {
            let (first_wait_max, wait_max) = (reconnect.delay, reconnect.delay_max);
            Reconnect { first_wait_max, wait_max, only_passing: true, ..Reconnect::default() }
        }
        None => Reconnect::NEVER,
    };
    let session = &mut options.session;
    session.version = plan.version;
    session.client_id = match &plan.client_id {
        ClientId::Given(id) => id.clone(),
        // MQTT 3.1 wants one.
        ClientId::Assigned if plan.version == ProtocolVersion::V31 => format!("pantala-{}", std::process::id()),
        ClientId::Assigned => String::new(),
    };
    session.clean_start = plan.clean_start;
    session.keep_alive = Duration::from_secs(u64::from(plan.keep_alive));
    session.user_name.clone_from(&plan.user_name);
    session.password = match &plan.password {
        None => None,
        Some(Password::Given(password)) => Some(password.clone()),
        Some(Password::Prompt) => {
            Some(read_secret("Password: ").map_err(|error| Failure::other(format!("no password: {error}")))?)
        }
    };
    let properties = &plan.connect_properties;
    session.session_expiry_interval = properties.session_expiry_interval.map_or(Duration::ZERO, seconds);
    session.receive_maximum = properties.receive_maximum.unwrap_or(NonZeroU16::MAX);
    session.maximum_packet_size = properties.maximum_packet_size;
    session.topic_alias_maximum = properties.topic_alias_maximum.unwrap_or(0);
    // As with Mosquitto, only an alias that was asked for.
    session.sent_topic_aliases = 0;
    session.request_problem_information = properties.request_problem_information.unwrap_or(true);
    session.request_response_information = properties.request_response_information.unwrap_or(false);
    session.user_properties.clone_from(&properties.user_properties);
    if let Some(inflight) = NonZeroU16::new(plan.inflight_max) {
        session.inflight_maximum = inflight;
    }
    session.will = plan.will.as_ref().map(|will| Will {
        message: message(&will.topic_name, will.payload.clone(), will.qos, will.retain, &will.properties),
        delay: will.properties.will_delay_interval.map_or(Duration::ZERO, seconds),
    });
    Ok(options)
}

/// A message with the properties of a plan.
pub(super) fn message(
    topic_name: &str,
    payload: impl Into<Vec<u8>>,
    qos: QoS,
    retain: bool,
    properties: &MessageProperties,
) -> Message {
    let mut message = Message::new(topic_name, payload.into()).qos(qos);
    if retain {
        message = message.retain();
    }
    if properties.payload_format_indicator == Some(true) {
        message = message.payload_is_utf8();
    }
    if let Some(interval) = properties.message_expiry_interval {
        message = message.message_expiry_interval(seconds(interval));
    }
    if let Some(content_type) = &properties.content_type {
        message = message.content_type(content_type);
    }
    if let Some(topic) = &properties.response_topic {
        message = message.response_topic(topic);
    }
    if let Some(data) = &properties.correlation_data {
        message = message.correlation_data(data);
    }
    if let Some(alias) = properties.topic_alias {
        message = message.topic_alias(alias);
    }
    for (key, value) in &properties.user_properties {
        message = message.user_property(key, value);
    }
    message
}

/// `u32::MAX` is for ever.
fn seconds(number: u32) -> Duration {
    if number == u32::MAX { Duration::MAX } else { Duration::from_secs(u64::from(number)) }
}

fn bind_address(name: &str) -> Result<IpAddr, Failure> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let resolved = (name, 0).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved
        .map(|address| address.ip())
        .ok_or_else(|| Failure::other(format!("-A: {name} is no address of this machine")))
}

fn tls(plan: &Tls) -> TlsOptions {
    let files: Vec<_> = plan.ca_file.iter().chain(&plan.ca_folder).cloned().collect();
    TlsOptions {
        roots: if files.is_empty() { Roots::System } else { Roots::Files(files) },
        client_certificate: plan.identity.clone().map(|(certificate, key)| ClientCertificate { certificate, key }),
        alpn: plan.alpn.clone().into_iter().collect(),
        versions: if plan.only_version_13 { TlsVersions::V13 } else { TlsVersions::All },
        verification: if plan.insecure { Verification::AnyName } else { Verification::Full },
        key_log: plan.key_log.clone(),
        ..TlsOptions::default()
    }
}

/// `-D connect authentication-method`: data that is known from the beginning.
struct OneStep {
    method: String,
    data: Option<Vec<u8>>,
}

impl Authenticator for OneStep {
    fn method(&self) -> &str {
        &self.method
    }

    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
        Ok(self.data.clone())
    }

    fn step(&mut self, _: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
        Err(AuthenticationError::Unexpected)
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}
