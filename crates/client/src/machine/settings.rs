//! What a [`Machine`](super::Machine) is told before it begins.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use pantala_proto::ProtocolVersion;

use crate::Message;

/// What one end of a Session is to be like. `Default` is MQTT 5, a Client Identifier given by the broker, and a Session that
/// ends with its connection.
#[derive(Clone)]
pub struct SessionSettings {
    /// The version to speak. Default: 5.0.
    pub version: ProtocolVersion,
    /// Who we are, to the broker. Empty lets the broker give one, which is kept for the reconnects. Default: empty. Before
    /// MQTT 5 an empty one needs `clean_start` (v3.1.1 MQTT-3.1.3-7).
    pub client_id: String,
    /// Whether the first connection begins a new Session. Reconnects begin a new one only where the Session cannot outlive its
    /// connection. Default: true.
    pub clean_start: bool,
    /// What becomes of a connection whose CONNACK speaks of a Session that nobody here knows: only if `clean_start` is not set.
    /// Default: it is accepted.
    pub unknown_session: UnknownSession,
    /// How long the broker keeps the Session when the connection is gone. Whole seconds; [`Duration::MAX`] is for ever. Default:
    /// 0, it ends with the connection. Before MQTT 5 there is no such thing: the Session is kept unless `clean_start`.
    pub session_expiry_interval: Duration,
    /// The longest silence: a PINGREQ goes out in time, and a broker that does not answer is given up after half of this, or 5 s
    /// where that is more. While packets move, in either direction and at 100 bytes a second or more, it is waited for longer: the
    /// answer may be behind them. Whole seconds, 0 (never) to 65 535. Default: 60 s.
    pub keep_alive: Duration,
    /// QoS 1 and 2 messages that we take before we have acknowledged them. 1..=65 535. Default: 1 000. MQTT 5; before it the
    /// broker decides.
    pub receive_maximum: NonZeroU16,
    /// Bytes of the largest Control Packet that we take; None is what MQTT can carry, 256 MiB. A larger one ends the connection.
    /// Default: 16 MiB.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Topic Aliases that the broker may set: it has us remember so many Topic Names. 0..=65 535. Default: 16. MQTT 5.
    pub topic_alias_maximum: u16,
    /// Topic Aliases that we set, if the broker takes so many: the first Topic Names of a connection have theirs.
    /// 0..=65 535. Default: 64. MQTT 5.
    pub sent_topic_aliases: u16,
    /// QoS 1 and 2 messages that are sent before the broker has acknowledged them; the broker's Receive Maximum counts if it is
    /// lower. 1..=65 535. Default: 100.
    pub inflight_maximum: NonZeroU16,
    /// User Name. Default: none.
    pub user_name: Option<String>,
    /// Password: any bytes. Default: none.
    pub password: Option<Vec<u8>>,
    /// The message that the broker publishes should we vanish. Default: none.
    pub will: Option<Will>,
    /// Pairs for the broker, in CONNECT. Default: none. MQTT 5.
    pub user_properties: Vec<(String, String)>,
    /// Whether the broker is asked for Response Information, the basis of Response Topics. Default: false. MQTT 5.
    pub request_response_information: bool,
    /// Whether the broker may send Reason Strings and User Properties with other packets than PUBLISH, CONNACK and DISCONNECT.
    /// Default: true. MQTT 5.
    pub request_problem_information: bool,
    /// Messages that wait here because the broker is slow or away; above it nothing more is taken. From 1; 0 is taken for 1.
    /// Default: 10 000.
    pub queue_messages_max: usize,
    /// Bytes of topics and payloads that wait here; when there are as many, nothing more is taken, so the last message may go
    /// beyond. From 1; 0 is taken for 1. Default: 64 MiB.
    pub queue_bytes_max: usize,
    /// Bytes of encoded packets that wait for the socket; when there are as many, no message is encoded, so the last may go
    /// beyond. From 1; 0 is taken for 1. Default: 256 KiB.
    pub output_bytes_max: usize,
    /// How long CONNACK may take. Default: 10 s.
    pub connect_timeout: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            version: ProtocolVersion::V5,
            client_id: String::new(),
            clean_start: true,
            unknown_session: UnknownSession::default(),
            session_expiry_interval: Duration::ZERO,
            keep_alive: Duration::from_secs(60),
            receive_maximum: NonZeroU16::new(1_000).unwrap_or(NonZeroU16::MAX),
            maximum_packet_size: NonZeroU32::new(16 << 20),
            topic_alias_maximum: 16,
            sent_topic_aliases: 64,
            inflight_maximum: NonZeroU16::new(100).unwrap_or(NonZeroU16::MAX),
            user_name: None,
            password: None,
            will: None,
            user_properties: Vec::new(),
            request_response_information: false,
            request_problem_information: true,
            queue_messages_max: 10_000,
            queue_bytes_max: 64 << 20,
            output_bytes_max: 256 << 10,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl SessionSettings {
    /// Whether the broker keeps the Session beyond a connection.
    pub fn outlives_connection(&self) -> bool {
        if self.version.is_v5() { self.session_expiry_interval > Duration::ZERO } else { !self.clean_start }
    }

    pub(crate) fn output_bytes_max(&self) -> usize {
        self.output_bytes_max.max(1)
    }

    /// Session Expiry Interval as it is written: whole seconds, rounded up, `u32::MAX` for ever.
    pub(super) fn session_expiry_seconds(&self) -> u32 {
        seconds(self.session_expiry_interval)
    }
}

/// What to do when the broker has a Session for us (Session Present), and we have none: a program that begins, as that is all it
/// knows. One with an [outbox](crate::outbox) that was there before has its part of the Session in it, and so has a client on its
/// second connection.
///
/// MQTT 3.1.1 and 5; before, CONNACK does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownSession {
    /// Goes on with it: it is the only way to the messages that wait there. QoS 2 exchanges that an earlier program left open
    /// are lost on our side, so a message may come that it had already, and a message of ours is taken for one that it had sent
    /// if both have the same Packet Identifier. A deviation from v5 MQTT-3.2.2-4.
    #[default]
    Accept,
    /// Closes the connection (v5 MQTT-3.2.2-4; no such statement in v3.1.1), and the client ends with
    /// [`Violation::UnknownSession`](crate::error::Violation::UnknownSession): the next answer would be the same. With
    /// `clean_start` a new Session can be had.
    Close,
}

/// The message that the broker publishes when the connection ends without DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// What is published.
    pub message: Message,
    /// How long the broker waits with it; a reconnect in time prevents it. Whole seconds. Default: 0. MQTT 5.
    pub delay: Duration,
}

impl From<Message> for Will {
    fn from(message: Message) -> Self {
        Self { message, delay: Duration::ZERO }
    }
}

/// Whole seconds, rounded up; `u32::MAX` for what is longer.
pub(crate) fn seconds(duration: Duration) -> u32 {
    let up = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs().saturating_add(up)).unwrap_or(u32::MAX)
}

// The password stays out of logs.
impl std::fmt::Debug for SessionSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SessionSettings")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("session_expiry_interval", &self.session_expiry_interval)
            .field("keep_alive", &self.keep_alive)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}
