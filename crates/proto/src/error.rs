//! What can be wrong with a peer's bytes, and the Reason Code it is answered with.

use core::fmt;

use crate::ReasonCode;

/// Why bytes are not the packet that they claim to be. Always the peer's fault, and always the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A field reaches beyond the end of the packet or of its properties.
    Truncated,
    /// Bytes are left after the last field.
    TrailingBytes,
    /// A variable byte integer of more than four bytes, or one not in its shortest form (v5 MQTT-1.5.5-1).
    VariableByteInteger,
    /// A string that is not UTF-8 or holds U+0000 (v5 MQTT-1.5.4-1, MQTT-1.5.4-2), or a Client Identifier with control
    /// characters or noncharacters.
    Utf8,
    /// Packet type 0, or 15 before MQTT 5.
    PacketType,
    /// Reserved bits of the fixed header are wrong (v5 MQTT-2.1.3-1, v3.1.1 MQTT-2.2.2-1).
    HeaderFlags,
    /// Reserved or contradictory Connect Flags.
    ConnectFlags,
    /// A QoS of 3.
    QoS,
    /// DUP on a QoS 0 PUBLISH (v5 MQTT-3.3.1-2).
    DupAtMostOnce,
    /// A Topic Name with wildcards, or an empty one where there must be a name.
    TopicName,
    /// Reserved bits or values in Subscription Options.
    Options,
    /// A property that is unknown or has no place in this packet.
    Property(u8),
    /// A Reason Code that this packet cannot carry.
    ReasonCode(u8),
    /// The Protocol Name is none of MQTT's.
    ProtocolName,
    /// A property that may stand once stands twice.
    DuplicateProperty(u8),
    /// A property has a value that the standard calls a Protocol Error: 0 mostly, or a flag other than 0 and 1.
    PropertyValue(u8),
    /// A Packet Identifier of 0.
    PacketIdZero,
    /// Neither Topic Name nor Topic Alias.
    NoTopic,
    /// SUBSCRIBE or UNSUBSCRIBE without a Topic Filter.
    NoFilters,
    /// Authentication Data without Authentication Method.
    AuthenticationDataAlone,
    /// Topic Alias 0.
    TopicAliasZero,
    /// Protocol Name and level are not those of a version we speak.
    ProtocolVersion,
    /// The packet is longer than the receiver allows.
    PacketTooLarge,
}

impl DecodeError {
    /// The Reason Code for CONNACK or DISCONNECT. The only place where an error becomes a code.
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::Truncated
            | Self::TrailingBytes
            | Self::VariableByteInteger
            | Self::Utf8
            | Self::PacketType
            | Self::HeaderFlags
            | Self::ConnectFlags
            | Self::QoS
            | Self::DupAtMostOnce
            | Self::TopicName
            | Self::Options
            | Self::Property(_)
            | Self::ReasonCode(_) => ReasonCode::MalformedPacket,
            Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::PacketIdZero
            | Self::NoTopic
            | Self::NoFilters
            | Self::AuthenticationDataAlone => ReasonCode::ProtocolError,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::ProtocolName | Self::ProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
            Self::PacketTooLarge => ReasonCode::PacketTooLarge,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Truncated => "a field reaches beyond its packet",
            Self::TrailingBytes => "bytes follow the last field",
            Self::VariableByteInteger => "a length is not in its shortest form of one to four bytes",
            Self::Utf8 => "a string is not UTF-8 or holds U+0000",
            Self::PacketType => "unknown packet type",
            Self::HeaderFlags => "reserved bits of the fixed header are wrong",
            Self::ConnectFlags => "reserved or contradictory Connect Flags",
            Self::QoS => "QoS 3",
            Self::DupAtMostOnce => "DUP with QoS 0",
            Self::TopicName => "a Topic Name is empty or holds wildcards",
            Self::Options => "reserved option bits are set",
            Self::Property(id) => return write!(f, "property 0x{id:02x} is unknown or has no place here"),
            Self::ReasonCode(code) => return write!(f, "Reason Code 0x{code:02x} has no place here"),
            Self::ProtocolName => "unknown Protocol Name",
            Self::DuplicateProperty(id) => return write!(f, "property 0x{id:02x} stands twice"),
            Self::PropertyValue(id) => return write!(f, "property 0x{id:02x} has a forbidden value"),
            Self::PacketIdZero => "Packet Identifier 0",
            Self::NoTopic => "neither Topic Name nor Topic Alias",
            Self::NoFilters => "no Topic Filter",
            Self::AuthenticationDataAlone => "Authentication Data without Authentication Method",
            Self::TopicAliasZero => "Topic Alias 0",
            Self::ProtocolVersion => "unsupported protocol version",
            Self::PacketTooLarge => "the packet is larger than allowed",
        };
        f.write_str(text)
    }
}

impl core::error::Error for DecodeError {}
