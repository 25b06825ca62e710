//! What comes out of a [`Machine`](super::Machine).

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;
use pantala_proto::{QoS, ReasonCode, UserProperties};

use crate::error::{ConnectionError, PublishError, Refusal, SubscribeError};
use crate::message::Properties;

/// Names a request to the machine in the event that ends it. The caller chooses it.
pub type Token = u64;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The broker took us in.
    Connected(Box<Connected>),
    /// A message came.
    Message(Inbound),
    /// A message has arrived at the broker, or will not.
    Published {
        /// The one given to [`Machine::publish`](super::Machine::publish).
        token: Token,
        /// What became of it.
        outcome: Result<Published, PublishError>,
    },
    /// The broker has answered a SUBSCRIBE.
    Subscribed {
        /// The one given to [`Machine::subscribe`](super::Machine::subscribe).
        token: Token,
        /// A Reason Code for each filter, in their order; an error if all are refused.
        outcome: Result<Answered, SubscribeError>,
    },
    /// The broker has answered an UNSUBSCRIBE.
    Unsubscribed {
        /// The one given to [`Machine::unsubscribe`](super::Machine::unsubscribe).
        token: Token,
        /// A Reason Code for each filter, in their order; none before MQTT 5.
        outcome: Result<Answered, SubscribeError>,
    },
    /// The broker lost the Session and then refused to subscribe us again, or its CONNACK said that it would.
    SubscriptionLost {
        /// The filter.
        filter: String,
        /// Why. Without details if the broker was not asked.
        refusal: Refusal,
    },
    /// The connection is to be closed once the output is written.
    Ended(ConnectionError),
}

/// What CONNACK said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Whether the broker goes on with a Session that it had.
    pub session_present: bool,
    /// Our Client Identifier: the one we came with, or the one the broker gave.
    pub client_id: String,
    /// What the broker can do.
    pub limits: ServerLimits,
    /// Seconds of Keep Alive that hold; 0 for none.
    pub keep_alive: u16,
    /// Seconds that the Session outlives its connection; `u32::MAX` is for ever. 0 before MQTT 5.
    pub session_expiry_interval: u32,
    /// The basis of Response Topics, if we asked for it.
    pub response_information: Option<String>,
    /// A sentence for people and pairs for programs.
    pub details: Details,
}

/// What the broker can do, as CONNACK says; all before MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// QoS 1 and 2 messages that it takes at once.
    pub receive_maximum: NonZeroU16,
    /// Bytes of the largest packet that it takes; None is what MQTT can carry.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest QoS that it takes.
    pub maximum_qos: QoS,
    /// Whether it keeps Retained Messages.
    pub retain_available: bool,
    /// Topic Aliases that we may set.
    pub topic_alias_maximum: u16,
    /// Whether it knows wildcards in filters.
    pub wildcard_subscription_available: bool,
    /// Whether it knows Subscription Identifiers.
    pub subscription_identifier_available: bool,
    /// Whether it knows Shared Subscriptions.
    pub shared_subscription_available: bool,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            receive_maximum: NonZeroU16::MAX,
            maximum_packet_size: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            topic_alias_maximum: 0,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
        }
    }
}

/// A message that came.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// Its Topic Name, in full.
    pub topic_name: Arc<str>,
    /// Its payload.
    pub payload: Bytes,
    /// The QoS it came with.
    pub qos: QoS,
    /// It was retained: kept for those who subscribe later, or, with Retain As Published, published so.
    pub retain: bool,
    /// It may have come before.
    pub dup: bool,
    /// Its properties, without Topic Alias.
    pub properties: Properties,
    /// Its Packet Identifier, 0 at QoS 0.
    pub packet_id: u16,
    /// What to acknowledge it by, see [`Machine::acknowledge`](super::Machine::acknowledge). None at QoS 0.
    pub acknowledgement: Option<Token>,
}

/// What the broker said with an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Success, or that nobody has subscribed ([`ReasonCode::NoMatchingSubscribers`]). Always Success at QoS 0 and before MQTT 5.
    pub reason_code: ReasonCode,
    /// A sentence for people and pairs for programs; boxed, as they are rare.
    pub details: Option<Box<Details>>,
}

impl Published {
    pub(crate) const SUCCESS: Self = Self { reason_code: ReasonCode::Success, details: None };
}

/// What SUBACK or UNSUBACK said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answered {
    /// One for each filter, in their order.
    pub reason_codes: Vec<ReasonCode>,
    /// A sentence for people and pairs for programs.
    pub details: Details,
}

/// A sentence for people and pairs for programs, which nearly every packet of MQTT 5 can carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Reason String. Comes from the broker: print it escaped.
    pub reason_string: Option<String>,
    /// User Properties, in order.
    pub user_properties: Vec<(String, String)>,
}

impl Details {
    pub(super) fn of(reason_string: Option<&str>, user_properties: &UserProperties<'_>) -> Self {
        Self {
            reason_string: reason_string.map(str::to_owned),
            user_properties: user_properties.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}
