//! What a serving broker can be told to do otherwise.

use std::num::{NonZeroU16, NonZeroU32};

use pantala_proto::{ProtocolVersion, QoS, ReasonCode};

/// How a serving broker behaves. The default is a broker that takes everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// Answers CONNECT with this code and closes. For MQTT 3.1.1 with the nearest return code, or by closing alone if
    /// there is none.
    pub refuse_connect: Option<ReasonCode>,
    /// Answers each filter of SUBSCRIBE with this code, and subscribes to nothing.
    pub refuse_subscriptions: Option<ReasonCode>,
    /// Answers QoS 1 and 2 PUBLISH packets with this code and delivers them to nobody. MQTT 3.1.1 has no way to say
    /// so: there they are acknowledged.
    pub refuse_publishes: Option<ReasonCode>,
    /// Keeps PUBACK, PUBREC, PUBCOMP, SUBACK and UNSUBACK back until `ServingBroker::release_acknowledgements`.
    pub hold_acknowledgements: bool,
    /// Ends each connection after so much of it.
    pub cut: Option<Cut>,
    /// Sends a copy of a message for each subscription that matches, with its QoS and its Subscription Identifier, as servers
    /// may (v5 MQTT-3.3.4-2, v3.1.1 MQTT-3.3.5-1); else one copy for all.
    pub copy_for_each_subscription: bool,
    /// What CONNACK says. Counts for connections made from then on.
    pub limits: Limits,
    /// The test promises that no two messages of a Session are the same in Topic Name, payload, QoS and RETAIN. Then a
    /// message seen before is known to be sent again even if its acknowledgement went out, perhaps without arriving on
    /// an earlier connection; so DUP and order are looked at there, too.
    pub distinct_messages: bool,
}

/// When a serving broker ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// After it has handled so many packets of the client, CONNECT included: what it has to say to them is sent.
    AfterPackets(usize),
    /// After it has taken so many bytes from the client. It handles the packets that are whole, and sends no answer any
    /// more.
    AfterBytes(usize),
}

/// What CONNACK tells an MQTT 5 client to keep to. The default is no limit and no property.
///
/// Clients of MQTT 3.1 and 3.1.1 cannot be told: for them there are no limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// QoS 1 and 2 messages the broker takes at once; None is 65_535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Highest QoS it takes.
    pub maximum_qos: QoS,
    /// Whether it takes messages to retain.
    pub retain_available: bool,
    /// Bytes of the largest packet it takes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Highest Topic Alias it takes; None is none, as 0.
    pub topic_alias_maximum: Option<u16>,
    /// Keep Alive in seconds instead of the client's.
    pub server_keep_alive: Option<u16>,
    /// Seconds a Session outlives its connection, instead of the client's. 0 or not 0 is all that makes a difference.
    pub session_expiry_interval: Option<u32>,
    /// The Client Identifier for clients that come without; None makes one up for each.
    pub assigned_client_identifier: Option<String>,
    /// Whether filters may hold wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether SUBSCRIBE may hold a Subscription Identifier.
    pub subscription_identifier_available: bool,
    /// Whether there are Shared Subscriptions.
    pub shared_subscription_available: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_maximum: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            topic_alias_maximum: None,
            server_keep_alive: None,
            session_expiry_interval: None,
            assigned_client_identifier: None,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
        }
    }
}

impl Limits {
    /// Those that a client of this version is told of.
    pub(super) fn for_version(&self, version: ProtocolVersion) -> Self {
        if version.is_v5() { self.clone() } else { Self::default() }
    }
}
