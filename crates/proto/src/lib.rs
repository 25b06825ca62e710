//! MQTT Control Packets of 3.1, 3.1.1 and 5.0 in one model.
//!
//! This crate turns bytes into checked, borrowed packets and packets into bytes. MQTT 5 is the model; the older
//! versions are a leaner encoding of it. What has been decoded needs no second look: strings are UTF-8 without
//! U+0000, reserved bits are as the standard wants them, each property stands in a packet that may carry it.
//!
//! It knows no socket, no clock and no Session. What a packet *means* (whether a Packet Identifier is in use, whether
//! a Topic Alias is known) is left to `pantala-session` and `pantala-broker`.
//!
//! ```
//! use pantala_proto::{frame, Packet, ProtocolVersion};
//!
//! let bytes = [0x30, 0x06, 0x00, 0x03, b'a', b'/', b'b', b'!'];
//! let frame::Split::Frame(frame) = frame::split(&bytes, 1_000)? else { panic!("incomplete") };
//! let Packet::Publish(publish) = Packet::decode(ProtocolVersion::V311, frame.first_byte, frame.body)? else { panic!() };
//! assert_eq!((publish.topic_name, publish.payload), ("a/b", b"!".as_slice()));
//! # Ok::<(), pantala_proto::DecodeError>(())
//! ```
//!
//! The odd decision: the properties of a PUBLISH stay in the bytes they came in. They are checked once, and forwarded
//! as they are, in their order, which is what v5 MQTT-3.3.2-17 and MQTT-3.3.2-18 ask for, and costs nothing per property.
#![no_std]

extern crate alloc;

mod acknowledgement;
mod auth;
mod conn_ack;
mod connect;
mod disconnect;
mod error;
pub mod frame;
mod packet;
mod primitive;
mod property;
mod publish;
mod reason;
mod sub_ack;
mod subscribe;
mod text;
mod topic;
mod unsub_ack;
mod unsubscribe;

pub use acknowledgement::{Acknowledgement, AcknowledgementKind};
pub use auth::Auth;
pub use conn_ack::ConnAck;
pub use connect::{Connect, ConnectProperties, Will};
pub use disconnect::Disconnect;
pub use error::DecodeError;
pub use packet::{Packet, PacketType};
pub use property::{Property, UserProperties};
pub use publish::{Delivery, ForwardProperties, Outgoing, PlainPublish, Publish, PublishProperties};
pub use reason::ReasonCode;
pub use sub_ack::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilters, SubscriptionOptions};
pub use topic::{FilterError, SharedFilter, TopicFilter, topic_levels, valid_topic_name};
pub use unsub_ack::UnsubAck;
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters};

use core::num::NonZeroU16;

/// The largest Remaining Length and the largest value of any variable byte integer (v5 section 1.5.5).
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// A version of the protocol, as CONNECT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ProtocolVersion {
    /// MQTT 3.1: Protocol Name "MQIsdp", level 3.
    V31 = 3,
    /// MQTT 3.1.1: Protocol Name "MQTT", level 4.
    V311 = 4,
    /// MQTT 5.0: Protocol Name "MQTT", level 5.
    V5 = 5,
}

impl ProtocolVersion {
    /// Whether packets of this version carry properties and Reason Codes.
    #[inline]
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// Level of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// 0: at most once.
    #[default]
    AtMostOnce = 0,
    /// 1: at least once.
    AtLeastOnce = 1,
    /// 2: exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with this number, None for 3 and above.
    #[inline]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A Packet Identifier: 1..=65_535, never 0 (v5 MQTT-2.2.1-3, v3.1.1 MQTT-2.3.1-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// The first one of a new Session.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// The identifier with this number, None for 0.
    #[inline]
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// Its number.
    #[inline]
    pub fn number(self) -> u16 {
        self.0.get()
    }

    /// The one after it; 1 follows 65_535.
    #[inline]
    #[must_use]
    pub fn following(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
    }
}
