//! What can go wrong, each with whose fault it is and how far it reaches.

use pantala_proto::{DecodeError, QoS, ReasonCode};

use crate::machine::Details;
use crate::outbox::OutboxError;

/// Why a message was not published. It concerns this message only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The Topic Name is empty, too long, or holds `+`, `#` or U+0000.
    #[error("a message needs a Topic Name of 1 to 65535 bytes without +, # and U+0000")]
    TopicName,
    /// A property is longer than 65 535 bytes.
    #[error("a property is longer than 65535 bytes")]
    PropertyTooLong,
    /// A property holds U+0000, or its Response Topic is not a Topic Name.
    #[error("a property holds U+0000, or the Response Topic is not a Topic Name")]
    PropertyMalformed,
    /// The message has properties, and the connection is not MQTT 5.
    #[error("properties need MQTT 5")]
    PropertiesNeedV5,
    /// The packet is larger than MQTT or the broker takes.
    #[error("the packet has {bytes} bytes, and the broker takes {maximum}")]
    PacketTooLarge {
        /// Bytes of the packet.
        bytes: u64,
        /// The broker's Maximum Packet Size, or MQTT's.
        maximum: u64,
    },
    /// The broker does not take this QoS (v5 MQTT-3.2.2-11).
    #[error("the broker takes QoS {} at most", *.maximum as u8)]
    QosUnsupported {
        /// What it takes.
        maximum: QoS,
    },
    /// The broker keeps no Retained Messages (v5 MQTT-3.2.2-14).
    #[error("the broker keeps no Retained Messages")]
    RetainUnsupported,
    /// The broker takes no Topic Alias as high as the message asks for (v5 MQTT-3.2.2-17, MQTT-3.2.2-18).
    #[error("the broker takes Topic Aliases up to {maximum}")]
    TopicAlias {
        /// Its Topic Alias Maximum; 0 for none at all.
        maximum: u16,
    },
    /// Too many messages, or bytes, wait already.
    #[error("too many messages wait to be sent")]
    QueueFull,
    /// It waited here for longer than its Message Expiry Interval. That is seen when it could be sent, so without a connection not
    /// before there is one.
    #[error("the message expired before it could be sent")]
    Expired,
    /// The broker refused it.
    #[error("the broker refused the message: {0}")]
    Refused(Box<Refusal>),
    /// The outbox cannot keep it.
    #[error(transparent)]
    Outbox(OutboxError),
    /// The client has ended, and whether the broker has the message is not known.
    #[error("the client has ended before the broker acknowledged")]
    Ended,
}

/// Why a SUBSCRIBE or UNSUBSCRIBE did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// No Topic Filter was given.
    #[error("at least one Topic Filter is needed")]
    NoFilter,
    /// A Topic Filter is malformed.
    #[error(
        "{0:?} is not a Topic Filter: + and # stand for whole levels, # only for the last, and $share needs a name and a filter"
    )]
    TopicFilter(String),
    /// The packet is larger than MQTT or the broker takes.
    #[error("the packet is larger than the broker takes")]
    PacketTooLarge,
    /// The broker knows no wildcards (v5 section 3.2.2.3.11).
    #[error("the broker does not know wildcards")]
    WildcardUnsupported,
    /// The broker knows no Shared Subscriptions (v5 section 3.2.2.3.13).
    #[error("the broker does not know Shared Subscriptions")]
    SharedUnsupported,
    /// No Local does not go with a Shared Subscription (v5 MQTT-3.8.3-4).
    #[error("No Local cannot be asked of a Shared Subscription")]
    NoLocalShared,
    /// User Properties, No Local, Retain As Published and Retain Handling came with MQTT 5.
    #[error("this option needs MQTT 5")]
    NeedsV5,
    /// A User Property is longer than 65 535 bytes or holds U+0000.
    #[error("a User Property is longer than 65535 bytes or holds U+0000")]
    UserProperty,
    /// Too many requests wait already.
    #[error("too many requests wait to be sent")]
    QueueFull,
    /// The broker refused every filter.
    #[error("the broker refused the request: {0}")]
    Refused(Box<Refusal>),
    /// The client has ended.
    #[error("the client has ended before the broker answered")]
    Ended,
}

/// A Reason Code of 0x80 or above with what the broker said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub reason_code: ReasonCode,
    /// A sentence for people and pairs for programs. None before MQTT 5.
    pub details: Details,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", in_words(self.reason_code))?;
        match &self.details.reason_string {
            Some(reason) => write!(formatter, " ({})", reason.escape_debug()),
            None => Ok(()),
        }
    }
}

/// How a connection ended. What was in flight is sent again on the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// CONNACK with an error.
    #[error("the broker refused the connection: {refusal}")]
    Refused {
        /// Why.
        refusal: Box<Refusal>,
        /// Another server to use, as the broker wrote it.
        server_reference: Option<String>,
    },
    /// DISCONNECT from the broker.
    #[error("the broker ended the connection: {refusal}")]
    Disconnected {
        /// Why.
        refusal: Box<Refusal>,
        /// Another server to use, as the broker wrote it.
        server_reference: Option<String>,
    },
    /// The broker closed the connection without a word.
    #[error("the broker closed the connection")]
    Closed,
    /// The network failed; the text is the operating system's.
    #[error("the connection failed: {0}")]
    Network(String),
    /// No connection came about.
    #[error("{0}")]
    Connect(String),
    /// The broker was silent for too long: no CONNACK, or no PINGRESP.
    #[error("the broker did not answer in time")]
    TimedOut,
    /// The broker sent what cannot be decoded.
    #[error("the broker sent a malformed packet: {0}")]
    Malformed(DecodeError),
    /// The broker did what the standard forbids.
    #[error("the broker broke the protocol: {0}")]
    Protocol(Violation),
    /// CONNECT cannot say what the settings want.
    #[error("the settings cannot be sent: {0}")]
    Settings(&'static str),
    /// Enhanced authentication failed on our side: the broker could not prove who it is.
    #[error("authentication failed: {0}")]
    Authentication(String),
    /// There is no outbox, or none any more. The client ends, since it could not keep what it is given.
    #[error(transparent)]
    Outbox(OutboxError),
    /// The task of the client is gone, and the client with it: its runtime was shut down, or something of the program's that it
    /// called has panicked, as an [observer](crate::Options::observer), an
    /// [`Authenticator`](crate::authentication::Authenticator) or a [`Connector`](crate::Connector).
    #[error(
        "the client's task is gone: its runtime was shut down, or an observer, authenticator or connector has panicked"
    )]
    Aborted,
}

impl ConnectionError {
    /// Whether another attempt would most likely end in the same way: the broker knows our version, name or credentials and wants
    /// none of them, it or we do not keep to the protocol, or the settings are wrong.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => matches!(
                refusal.reason_code,
                ReasonCode::MalformedPacket
                    | ReasonCode::ProtocolError
                    | ReasonCode::UnsupportedProtocolVersion
                    | ReasonCode::ClientIdentifierNotValid
                    | ReasonCode::BadUserNameOrPassword
                    | ReasonCode::NotAuthorized
                    | ReasonCode::Banned
                    | ReasonCode::BadAuthenticationMethod
                    | ReasonCode::TopicNameInvalid
                    | ReasonCode::PacketTooLarge
                    | ReasonCode::PayloadFormatInvalid
                    | ReasonCode::RetainNotSupported
                    | ReasonCode::QoSNotSupported
            ),
            Self::Disconnected { refusal, .. } => matches!(
                refusal.reason_code,
                ReasonCode::MalformedPacket
                    | ReasonCode::ProtocolError
                    | ReasonCode::NotAuthorized
                    | ReasonCode::TopicFilterInvalid
                    | ReasonCode::TopicNameInvalid
                    | ReasonCode::TopicAliasInvalid
                    | ReasonCode::PacketTooLarge
                    | ReasonCode::PayloadFormatInvalid
                    | ReasonCode::RetainNotSupported
                    | ReasonCode::QoSNotSupported
                    | ReasonCode::SharedSubscriptionsNotSupported
                    | ReasonCode::SubscriptionIdentifiersNotSupported
                    | ReasonCode::WildcardSubscriptionsNotSupported
            ),
            Self::Malformed(_) | Self::Protocol(_) | Self::Settings(_) | Self::Authentication(_) => true,
            Self::Outbox(_) | Self::Aborted => true,
            Self::Closed | Self::Network(_) | Self::Connect(_) | Self::TimedOut => false,
        }
    }
}

/// What a broker did that the standard forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A packet other than CONNACK and AUTH came first (v5 MQTT-3.2.0-1).
    #[error("its first packet was not CONNACK")]
    NotConnAck,
    /// A second CONNACK came (v5 MQTT-3.2.0-2).
    #[error("CONNACK came twice")]
    SecondConnAck,
    /// A packet came that only a client may send.
    #[error("it sent a packet that only a client may send")]
    ClientPacket,
    /// Session Present although a new Session was asked for (v5 MQTT-3.2.2-2).
    #[error("Session Present is set after Clean Start")]
    SessionPresent,
    /// Session Present, and there is no Session here: see [`UnknownSession`](crate::UnknownSession) (v5 MQTT-3.2.2-4).
    #[error("it has a Session for us that we know nothing of")]
    UnknownSession,
    /// An acknowledgement that does not go with the message it names.
    #[error("an acknowledgement does not go with the message's QoS")]
    Acknowledgement,
    /// SUBACK or UNSUBACK for nothing, or with another number of Reason Codes (v5 MQTT-3.8.4-6).
    #[error("SUBACK or UNSUBACK does not go with a request")]
    RequestAnswer,
    /// More QoS 1 and 2 messages than our Receive Maximum (v5 MQTT-3.3.4-9).
    #[error("it sent more than our Receive Maximum")]
    ReceiveMaximum,
    /// A Topic Alias that is not set or is above our maximum.
    #[error("a Topic Alias is unknown or above our maximum")]
    TopicAlias,
    /// AUTH without enhanced authentication, or with another method (v5 MQTT-4.12.0-5).
    #[error("AUTH came that nobody asked for")]
    Auth,
    /// PUBREL before we sent PUBREC.
    #[error("PUBREL came before PUBREC was sent")]
    EarlyRelease,
}

impl Violation {
    /// The Reason Code that DISCONNECT tells the broker.
    pub(crate) fn reason_code(self) -> ReasonCode {
        match self {
            Self::ReceiveMaximum => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAlias => ReasonCode::TopicAliasInvalid,
            _ => ReasonCode::ProtocolError,
        }
    }
}

/// The standard's name of a Reason Code, in words.
pub(crate) fn in_words(code: ReasonCode) -> String {
    let name = format!("{code:?}");
    let mut words = String::with_capacity(name.len() + 16);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    format!("{words} (0x{:02X})", code as u8)
}
