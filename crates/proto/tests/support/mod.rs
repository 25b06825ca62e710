//! What the tests of this folder share: bytes made without the encoder, and packets made without bytes.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod samples;
pub mod strategies;
pub mod wire;

use pantala_proto::{DecodeError, Packet, ProtocolVersion, frame};

/// All versions.
pub const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];
/// Room for any packet.
pub const ANY_SIZE: u32 = u32::MAX;

/// Splits off and decodes the one packet that `bytes` are.
pub fn receive(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    match frame::split(bytes, ANY_SIZE)? {
        frame::Split::Frame(frame) => {
            assert_eq!(frame.packet_bytes, bytes.len(), "the test's packet has the wrong Remaining Length");
            Packet::decode(version, frame.first_byte, frame.body)
        }
        frame::Split::Incomplete { needed } => panic!("the test's packet is incomplete: {needed} bytes needed"),
    }
}

/// The bytes of a packet.
pub fn encode(version: ProtocolVersion, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}
