//! What an operator can choose about the broker core: limits, defaults and policies.
//!
//! Every limit has a name, a default and an answer to "and then?". The table for operators is
//! `docs/limits.md`; the names there are the names here.

use std::num::NonZeroU32;
use std::sync::Arc;

use pantala_proto::{ProtocolVersion, QoS};
use pantala_store::Durability;

use crate::{ListenerId, SecurityId};

/// All settings of the core. Shared by every worker, and replaced as a whole by `Core::reconfigure`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest Control Packet accepted, in bytes with its fixed header. 16..=268_435_460; default 2_000_000.
    ///
    /// Announced as Maximum Packet Size to MQTT 5 clients (when below 268_435_455). A longer packet
    /// ends the connection (0x95) before its body is read.
    pub packet_bytes_max: u32,
    /// Largest CONNECT packet accepted, in bytes. 64..=`packet_bytes_max`; default 65_536.
    ///
    /// The sender is not known yet, so this is lower than `packet_bytes_max`. Longer: closed (0x95).
    pub connect_packet_bytes_max: u32,
    /// Longest payload of an Application Message, in bytes. 0 is no limit but the packet's; default 0.
    ///
    /// A longer one is acknowledged (MQTT 5: 0x97 in PUBACK or PUBREC), dropped and counted; the connection
    /// stays. For a Will: CONNACK 0x95, closed (v3: closed).
    pub payload_bytes_max: u32,
    /// Longest Client Identifier, in bytes. 23..=65_535; default 1_024. Longer: CONNACK 0x85 (v3: 0x02).
    pub client_id_bytes_max: u16,
    /// Longest Topic Name or Topic Filter, in bytes. 1..=65_535; default 65_535.
    ///
    /// Longer names: 0x90; longer filters: 0x8F in SUBACK.
    pub topic_bytes_max: u16,
    /// Most levels in a Topic Name or Topic Filter. 1..=65_535; default 200.
    ///
    /// More end the connection (MQTT 5: 0x81), as Mosquitto does.
    pub topic_levels_max: u16,
    /// Most subscriptions one Session may hold. Default 20_000. More: 0x97 (v3: 0x80) in SUBACK.
    pub subscriptions_per_session_max: u32,
    /// Most User Properties in one packet. Default 2_048. More end the connection (0x97).
    pub user_properties_per_packet_max: u16,
    /// QoS 1 and 2 messages that may be unacknowledged towards one client. 1..=65_535; default 20.
    ///
    /// The client's Receive Maximum can only lower it. Further messages wait in the queue.
    pub inflight_messages_max: u16,
    /// Most payload-and-topic bytes of QoS 1 and 2 messages that may be unacknowledged towards one client.
    /// 0 is no limit and the default. One message is always let through. Further ones wait in the queue.
    pub inflight_bytes_max: u64,
    /// Receive Maximum announced to clients: QoS 1 and 2 messages they may have unacknowledged
    /// towards us. 1..=65_535; default 20. MQTT 5 clients that exceed it are disconnected (0x93).
    pub receive_maximum: u16,
    /// Most messages waiting for one Session beyond those inflight. 0 is no limit; default 100_000.
    pub queued_messages_max: u32,
    /// Most payload-and-topic bytes waiting for one Session. 0 is no limit; default 268_435_456.
    pub queued_bytes_max: u64,
    /// What happens to a message when the queue is at one of its limits. Default [`QueueFull::DropNewest`].
    pub queue_full: QueueFull,
    /// Topics with a durability of their own: for each message the first one counts that matches. Default none. The list is
    /// gone through for each message at QoS 1 and 2, or with RETAIN.
    pub durability_rules: Vec<DurabilityRule>,
    /// Whether QoS 0 messages are queued for absent Sessions. Default false.
    pub queue_qos0_messages: bool,
    /// Whether messages are delivered at the subscription's QoS even when published at a lower one.
    /// Default false; true departs from the standard, as Mosquitto's option of that name does.
    pub upgrade_outgoing_qos: bool,
    /// Topic Alias Maximum announced: aliases a client may set on a connection. 0..=65_535; default 10.
    pub topic_alias_max: u16,
    /// Aliases we set towards a client, if its own Topic Alias Maximum allows. 0..=65_535; default 10.
    pub topic_alias_broker_max: u16,
    /// Most bytes waiting to be written to one connection. Default 8_388_608.
    ///
    /// At the limit QoS 0 messages for it are dropped and counted, QoS 1 and 2 stay in the queue.
    pub outgoing_bytes_max: u32,
    /// Seconds that a connection with waiting output may take no byte before it is closed. 0 is never; default 30.
    pub write_stall_seconds: u32,
    /// Most PUBLISH packets from one client in a second. None is no limit. Default 100_000.
    ///
    /// One that sends more is not read for a while; what it sends waits in the network. It may be one second, and one read,
    /// ahead. Clients with a loopback address, or without an address, have no limit.
    pub messages_per_second_max: Option<NonZeroU32>,
    /// Most bytes from one client in a second. None is no limit. Default 67_108_864. More: as for `messages_per_second_max`.
    pub bytes_per_second_max: Option<NonZeroU32>,
    /// How often in a second a connection may be taken over by another with its Client Identifier. None is no limit; default
    /// 10. More: the newcomer gets CONNACK 0x9F (v3: 0x03), and the old one stays.
    pub takeovers_per_second_max: Option<NonZeroU32>,
    /// Seconds a connection has for its complete CONNECT and authentication. 1..=3_600; default 10.
    pub connect_seconds: u32,
    /// Most connections over all listeners. None is no limit (that of the process remains). Default None.
    /// More: CONNACK 0x97 (v3: 0x03).
    pub connections_max: Option<NonZeroU32>,
    /// Most Sessions, present and absent. None is no limit. Default None. More: CONNACK 0x97 (v3: 0x03).
    pub sessions_max: Option<NonZeroU32>,
    /// Most Retained Messages. Default 10_000_000. More are routed and acknowledged, but not kept; counted.
    pub retained_messages_max: u32,
    /// Longest Keep Alive in seconds; 0 is no limit and the default. MQTT 5 clients are told a lower
    /// one by Server Keep Alive; older ones above it (or with 0) are refused.
    pub keep_alive_max: u16,
    /// Longest Session Expiry Interval in seconds, also the expiry of an absent v3 Session with
    /// Clean Session 0. None is never. Default None (`persistent_client_expiration`).
    pub session_expiry_max: Option<u32>,
    /// Highest QoS a client may publish with. Default exactly once. Above: 0x9B.
    pub maximum_qos: QoS,
    /// Whether Retained Messages are supported. Default true. Otherwise RETAIN 1 gets 0x9A.
    pub retain_available: bool,
    /// Whether filters with wildcards are accepted. Default true. Otherwise 0xA2.
    pub wildcard_subscription_available: bool,
    /// Whether Shared Subscriptions are accepted. Default true. Otherwise 0x9E.
    pub shared_subscription_available: bool,
    /// Whether Subscription Identifiers are accepted. Default true. Otherwise 0xA1.
    pub subscription_identifiers_available: bool,
    /// Whether a zero-length Client Identifier gets an assigned one. Default true. Otherwise 0x85 (v3: 0x02).
    pub allow_zero_length_client_id: bool,
    /// What assigned Client Identifiers begin with. Default `auto-`.
    pub auto_id_prefix: String,
    /// Overlapping subscriptions of a client give one copy each instead of one merged copy. Default false.
    pub allow_duplicate_messages: bool,
    /// Retained Messages whose publisher may no longer publish to their topic are not delivered. Default true. Where there
    /// are no rules it is not kept who published them.
    pub check_retain_source: bool,
    /// Whether the broker is a Sparkplug Aware MQTT Server: births are kept under `$sparkplug/certificates/`, where clients can
    /// only remove what is retained. Default false.
    pub sparkplug_aware: bool,
    /// Response Information returned to clients that ask: this prefix, the Client Identifier and a
    /// slash. None (the default) returns nothing.
    pub response_information_prefix: Option<String>,
    /// Where MQTT 5 clients are sent instead of being served. Default None.
    pub redirect: Option<Redirect>,
    /// Users that may authenticate by SCRAM-SHA-256. Default none.
    pub scram_users: Vec<ScramUser>,
    /// The listeners, in the order of their [`ListenerId`].
    pub listeners: Vec<ListenerSettings>,
    /// Names of the security domains, in the order of their [`SecurityId`]; empty stands for one without a name. A Session that
    /// belongs to a user is kept with the name of the user's domain, so a domain that is renamed has none of its Sessions.
    pub security_domains: Vec<String>,
}

/// Settings as clients are told of them: with limits of their listener in the place of those of all, so that nothing has to be
/// looked for when a packet comes.
#[derive(Debug)]
pub(crate) struct Told {
    of_all: Arc<Settings>,
    /// One for each `packet_bytes_max` that listeners have of their own.
    others: Vec<Arc<Settings>>,
}

impl Told {
    pub(crate) fn new(settings: &Arc<Settings>) -> Self {
        let mut told = Self { of_all: Arc::clone(settings), others: Vec::new() };
        for packet_bytes_max in settings.listeners.iter().filter_map(|listener| listener.packet_bytes_max) {
            if told.of(packet_bytes_max).is_none() {
                told.others.push(Arc::new(Settings { packet_bytes_max, ..(**settings).clone() }));
            }
        }
        told
    }

    fn of(&self, packet_bytes_max: u32) -> Option<&Arc<Settings>> {
        self.others.iter().find(|other| other.packet_bytes_max == packet_bytes_max)
    }

    /// At this listener.
    pub(crate) fn at(&self, listener: ListenerId) -> Arc<Settings> {
        let own = self.of_all.listeners.get(usize::from(listener)).and_then(|listener| listener.packet_bytes_max);
        Arc::clone(own.and_then(|own| self.of(own)).unwrap_or(&self.of_all))
    }
}

impl Settings {
    /// The name that a security domain has in the store.
    pub(crate) fn security_domain(&self, security: SecurityId) -> &str {
        self.security_domains.get(usize::from(security.0)).map_or("", |name| name.as_str())
    }
}

/// What the core has to know about a listener. Where it listens is the server's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Clients without credentials may connect. Default true on loopback and Unix sockets only.
    pub allow_anonymous: bool,
    /// Most connections over this listener. None is no limit.
    pub connections_max: Option<NonZeroU32>,
    /// Highest QoS here, if lower than [`Settings::maximum_qos`].
    pub maximum_qos: QoS,
    /// Largest Control Packet here, in place of [`Settings::packet_bytes_max`].
    pub packet_bytes_max: Option<u32>,
    /// Most PUBLISH packets from one client here in a second, in place of [`Settings::messages_per_second_max`].
    pub messages_per_second_max: ListenerRate,
    /// Most bytes from one client here in a second, in place of [`Settings::bytes_per_second_max`].
    pub bytes_per_second_max: ListenerRate,
    /// Topic Alias Maximum here, in place of [`Settings::topic_alias_max`].
    pub topic_alias_max: Option<u16>,
    /// Aliases we set towards clients here, in place of [`Settings::topic_alias_broker_max`].
    pub topic_alias_broker_max: Option<u16>,
    /// The security domain of the clients here: whose users and rules count. Default 0.
    pub security: SecurityId,
    /// Whether credentials are verified ([`Action::Authenticate`](crate::Action::Authenticate)). Default false: a user name
    /// proves nothing then, and its client is anonymous. A client without user name, password and certificate is never asked
    /// about: `allow_anonymous` decides.
    pub verify_credentials: bool,
    /// Whether a user name that nobody verifies is its client's all the same, for rules. Default false. Anybody can be anybody
    /// then: for networks without strangers. Without meaning where `verify_credentials` is true.
    pub believe_user_names: bool,
    /// Whether a Session that a user has begun is that user's alone. Default true: CONNECT of anybody else with its Client
    /// Identifier is refused (0x87), whatever its Clean Start. False is Mosquitto's way: whoever comes goes on with it.
    pub sessions_belong_to_users: bool,
    /// What stands before all Topic Names and Topic Filters of the clients here in the broker, and is not seen by them.
    /// Default none. Not a wildcard, 1..=1_024 bytes.
    pub mount_point: Option<Arc<str>>,
    /// Versions of MQTT that are taken. Default all. Others: CONNACK 0x84 (v3: 0x01).
    pub versions: AcceptedVersions,
    /// Whether the user name takes the place of the Client Identifier. Default false. A client without one is refused
    /// (0x87), and so is enhanced authentication.
    pub use_user_name_as_client_id: bool,
    /// What a Client Identifier has to begin with, one of them; empty is no condition and the default. Others: CONNACK 0x87.
    /// Assigned ones are not asked.
    pub client_id_prefixes: Vec<String>,
    /// Whether a zero-length Client Identifier gets an assigned one here, in place of
    /// [`Settings::allow_zero_length_client_id`].
    pub allow_zero_length_client_id: Option<bool>,
    /// What Client Identifiers begin with that are assigned here, in place of [`Settings::auto_id_prefix`].
    pub auto_id_prefix: Option<String>,
    /// Whether clients with `+`, `#` or `/` in user name or Client Identifier are refused (0x87), since rules put both into
    /// Topic Filters. Default false: such a rule does not match such a client.
    pub deny_special_characters: bool,
}

/// How fast a client of a listener may send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListenerRate {
    /// As fast as the limit for all listeners says. The default.
    #[default]
    AsElsewhere,
    /// As many in a second as this, whatever that limit says: more or fewer.
    PerSecond(NonZeroU32),
    /// As fast as it can.
    Unlimited,
}

impl ListenerRate {
    /// Where `of_all` is the limit for all listeners.
    pub(crate) fn or(self, of_all: Option<NonZeroU32>) -> Option<NonZeroU32> {
        match self {
            Self::AsElsewhere => of_all,
            Self::PerSecond(max) => Some(max),
            Self::Unlimited => None,
        }
    }
}

/// Versions of MQTT that a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedVersions {
    /// MQTT 3.1.
    pub v31: bool,
    /// MQTT 3.1.1.
    pub v311: bool,
    /// MQTT 5.0.
    pub v5: bool,
}

impl AcceptedVersions {
    /// All of them.
    pub const ALL: Self = Self { v31: true, v311: true, v5: true };

    /// Whether this one is among them.
    pub fn contains(self, version: ProtocolVersion) -> bool {
        match version {
            ProtocolVersion::V31 => self.v31,
            ProtocolVersion::V311 => self.v311,
            ProtocolVersion::V5 => self.v5,
        }
    }
}

/// Messages of some topics that are worth less than the broker's durability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurabilityRule {
    /// A Topic Filter, not that of a Shared Subscription. As with subscriptions, wildcards at its front do not match Topic
    /// Names that begin with `$`.
    pub filter: String,
    /// What an acknowledgement of such a message vouches for: less than the store makes of it, so never
    /// [`Durability::Fsync`].
    pub level: Durability,
}

/// The answer to a message for a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFull {
    /// The oldest message that waits is dropped for the new one; counted as `queue_full_oldest`.
    DropOldest,
    /// The new message is dropped; counted as `queue_full_newest`.
    DropNewest,
    /// The publisher is refused: 0x97, or no acknowledgement in v3; counted as `queue_full_refused`. Nobody gets the message
    /// then, and it is not retained. Each message costs a question to the other workers that are interested in it.
    Refuse,
}

/// Another server that clients should use (v5 section 4.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The Server Reference, as `host:port`; several are separated by spaces.
    pub server_reference: String,
    /// 0x9D (Server moved) if true, 0x9C (Use another server) otherwise.
    pub permanent: bool,
}

/// A user with a password for SCRAM-SHA-256 (RFC 7677).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramUser {
    /// User name, as given by the client.
    pub name: String,
    /// Its password in clear text, as read from the configuration.
    pub password: String,
    /// The domain whose user it is: on listeners of others there is no such user.
    pub security: SecurityId,
}

impl std::fmt::Debug for ScramUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramUser").field("name", &self.name).field("security", &self.security).finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            packet_bytes_max: 2_000_000,
            connect_packet_bytes_max: 65_536,
            payload_bytes_max: 0,
            client_id_bytes_max: 1_024,
            topic_bytes_max: 65_535,
            topic_levels_max: 200,
            subscriptions_per_session_max: 20_000,
            user_properties_per_packet_max: 2_048,
            inflight_messages_max: 20,
            inflight_bytes_max: 0,
            receive_maximum: 20,
            queued_messages_max: 100_000,
            queued_bytes_max: 268_435_456,
            queue_full: QueueFull::DropNewest,
            durability_rules: Vec::new(),
            queue_qos0_messages: false,
            upgrade_outgoing_qos: false,
            topic_alias_max: 10,
            topic_alias_broker_max: 10,
            outgoing_bytes_max: 8_388_608,
            write_stall_seconds: 30,
            messages_per_second_max: NonZeroU32::new(100_000),
            bytes_per_second_max: NonZeroU32::new(67_108_864),
            takeovers_per_second_max: NonZeroU32::new(10),
            connect_seconds: 10,
            connections_max: None,
            sessions_max: None,
            retained_messages_max: 10_000_000,
            keep_alive_max: 0,
            session_expiry_max: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            shared_subscription_available: true,
            subscription_identifiers_available: true,
            allow_zero_length_client_id: true,
            auto_id_prefix: "auto-".to_owned(),
            allow_duplicate_messages: false,
            check_retain_source: true,
            sparkplug_aware: false,
            response_information_prefix: None,
            redirect: None,
            scram_users: Vec::new(),
            listeners: Vec::new(),
            security_domains: Vec::new(),
        }
    }
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            allow_anonymous: true,
            connections_max: None,
            maximum_qos: QoS::ExactlyOnce,
            packet_bytes_max: None,
            messages_per_second_max: ListenerRate::AsElsewhere,
            bytes_per_second_max: ListenerRate::AsElsewhere,
            topic_alias_max: None,
            topic_alias_broker_max: None,
            security: SecurityId::default(),
            verify_credentials: false,
            believe_user_names: false,
            sessions_belong_to_users: true,
            mount_point: None,
            versions: AcceptedVersions::ALL,
            use_user_name_as_client_id: false,
            client_id_prefixes: Vec::new(),
            allow_zero_length_client_id: None,
            auto_id_prefix: None,
            deny_special_characters: false,
        }
    }
}
