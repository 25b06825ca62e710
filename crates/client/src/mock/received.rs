//! Control Packets as they came, kept.

use std::fmt;

use bytes::Bytes;
use pantala_proto::{
    Acknowledgement, Connect, DecodeError, Disconnect, Packet, PacketType, ProtocolVersion, Publish, Subscribe,
    Unsubscribe, frame,
};

/// A Control Packet that a client has sent: its bytes, which are known to decode.
///
/// The accessors named after packets are for tests that know what they have: they panic if it is another packet.
/// Cloning copies no bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    connection: usize,
    version: ProtocolVersion,
    bytes: Bytes,
}

impl Received {
    /// Keeps `bytes`, which have to be one whole packet.
    pub(super) fn decode(connection: usize, version: ProtocolVersion, bytes: Bytes) -> Result<Self, DecodeError> {
        let mut this = Self { connection, version, bytes };
        if let Packet::Connect(connect) = this.try_packet()? {
            this.version = connect.version;
        }
        Ok(this)
    }

    fn try_packet(&self) -> Result<Packet<'_>, DecodeError> {
        match frame::split(&self.bytes, u32::MAX)? {
            frame::Split::Frame(frame) => Packet::decode(self.version, frame.first_byte, frame.body),
            frame::Split::Incomplete { .. } => Err(DecodeError::Truncated),
        }
    }

    /// The connection it came by: the first that the broker accepted is 1.
    pub fn connection(&self) -> usize {
        self.connection
    }

    /// The version it was decoded in: that of its connection's CONNECT.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Its bytes, the fixed header too.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The packet.
    pub fn packet(&self) -> Packet<'_> {
        self.try_packet().expect("the bytes were decoded when they came")
    }

    /// Its type.
    pub fn packet_type(&self) -> PacketType {
        PacketType::from_bits(self.bytes[0] >> 4).expect("the bytes were decoded when they came")
    }

    /// The CONNECT that this is.
    ///
    /// # Panics
    /// If it is another packet.
    #[track_caller]
    pub fn connect(&self) -> Connect<'_> {
        match self.packet() {
            Packet::Connect(packet) => packet,
            other => panic!("no CONNECT, but {other:?}"),
        }
    }

    /// The PUBLISH that this is.
    ///
    /// # Panics
    /// If it is another packet.
    #[track_caller]
    pub fn publish(&self) -> Publish<'_> {
        match self.packet() {
            Packet::Publish(packet) => packet,
            other => panic!("no PUBLISH, but {other:?}"),
        }
    }

    /// The PUBACK, PUBREC, PUBREL or PUBCOMP that this is.
    ///
    /// # Panics
    /// If it is another packet.
    #[track_caller]
    pub fn acknowledgement(&self) -> Acknowledgement<'_> {
        match self.packet() {
            Packet::Acknowledgement(packet) => packet,
            other => panic!("no PUBACK, PUBREC, PUBREL or PUBCOMP, but {other:?}"),
        }
    }

    /// The SUBSCRIBE that this is.
    ///
    /// # Panics
    /// If it is another packet.
    #[track_caller]
    pub fn subscribe(&self) -> Subscribe<'_> {
        match self.packet() {
            Packet::Subscribe(packet) => packet,
            other => panic!("no SUBSCRIBE, but {other:?}"),
        }
    }

    /// The UNSUBSCRIBE that this is.
    ///
    /// # Panics
    /// If it is another packet.
    #[track_caller]
    pub fn unsubscribe(&self) -> Unsubscribe<'_> {
        match self.packet() {
            Packet::Unsubscribe(packet) => packet,
            other => panic!("no UNSUBSCRIBE, but {other:?}"),
        }
    }

    /// The DISCONNECT that this is.
    ///
    /// # Panics
    /// If it is another packet.
    #[track_caller]
    pub fn disconnect(&self) -> Disconnect<'_> {
        match self.packet() {
            Packet::Disconnect(packet) => packet,
            other => panic!("no DISCONNECT, but {other:?}"),
        }
    }
}

/// Long payloads would bury the rest of a message about a failed test.
const DEBUG_CHARS_MAX: usize = 600;

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:?}", self.packet());
        match text.char_indices().nth(DEBUG_CHARS_MAX) {
            None => f.write_str(&text),
            Some((at, _)) => write!(f, "{} … ({} bytes)", &text[..at], self.bytes.len()),
        }
    }
}
