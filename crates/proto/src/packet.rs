//! One type for all Control Packets.

use alloc::vec::Vec;

use crate::{
    Acknowledgement, AcknowledgementKind, Auth, ConnAck, Connect, DecodeError, Disconnect, ProtocolVersion, Publish,
    SubAck, Subscribe, UnsubAck, Unsubscribe, frame,
};

/// The type of a Control Packet: the high four bits of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub enum PacketType {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type with this number, None for 0 and for 16 and above.
    #[inline]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.get(usize::from(bits).wrapping_sub(1)).copied()
    }
}

/// Any Control Packet, borrowing from the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL and PUBCOMP.
    Acknowledgement(Acknowledgement<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes the packet in a [`frame::Frame`]. For CONNECT the version in the packet counts, not `version`.
    ///
    /// # Errors
    /// What is wrong with the bytes; see [`DecodeError`].
    pub fn decode(version: ProtocolVersion, first_byte: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let acknowledgement = |kind| Acknowledgement::decode(version, kind, body).map(Self::Acknowledgement);
        match frame::check_first_byte(version, first_byte)? {
            PacketType::Connect => Connect::decode(body).map(Self::Connect),
            PacketType::ConnAck => ConnAck::decode(version, body).map(Self::ConnAck),
            PacketType::Publish => Publish::decode(version, first_byte, body).map(Self::Publish),
            PacketType::PubAck => acknowledgement(AcknowledgementKind::PubAck),
            PacketType::PubRec => acknowledgement(AcknowledgementKind::PubRec),
            PacketType::PubRel => acknowledgement(AcknowledgementKind::PubRel),
            PacketType::PubComp => acknowledgement(AcknowledgementKind::PubComp),
            PacketType::Subscribe => Subscribe::decode(version, body).map(Self::Subscribe),
            PacketType::SubAck => SubAck::decode(version, body).map(Self::SubAck),
            PacketType::Unsubscribe => Unsubscribe::decode(version, body).map(Self::Unsubscribe),
            PacketType::UnsubAck => UnsubAck::decode(version, body).map(Self::UnsubAck),
            PacketType::PingReq => empty(body).map(|()| Self::PingReq),
            PacketType::PingResp => empty(body).map(|()| Self::PingResp),
            PacketType::Disconnect => Disconnect::decode(version, body).map(Self::Disconnect),
            PacketType::Auth => Auth::decode(body).map(Self::Auth),
        }
    }

    /// Appends the packet to `out`, in the form of `version`; CONNECT in that of its own version.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Acknowledgement(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => out.extend_from_slice(&[0xc0, 0x00]),
            Self::PingResp => out.extend_from_slice(&[0xd0, 0x00]),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(out),
        }
    }
}

fn empty(body: &[u8]) -> Result<(), DecodeError> {
    if body.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
}
