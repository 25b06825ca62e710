//! UNSUBACK (v5 section 3.11).

use alloc::vec::Vec;

use crate::primitive::{Reader, put_packet, put_two_bytes};
use crate::sub_ack::{decode_reason_string, encode_reason_string};
use crate::{DecodeError, PacketId, PacketType, ProtocolVersion, ReasonCode, UserProperties};

const FIRST_BYTE: u8 = 0xb0;

/// The answer to UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE (v5 MQTT-3.10.4-5).
    pub packet_id: PacketId,
    /// One for each filter, in their order (v5 MQTT-3.11.3-1); empty before MQTT 5.
    pub reason_codes: Vec<ReasonCode>,
    /// A sentence for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn decode(version: ProtocolVersion, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (section, reason_string) = decode_reason_string(version, &mut reader)?;
        let mut reason_codes = Vec::new();
        if version.is_v5() {
            for &byte in reader.rest() {
                let code = ReasonCode::from_byte(byte, PacketType::UnsubAck);
                reason_codes.push(code.ok_or(DecodeError::ReasonCode(byte))?);
            }
            if reason_codes.is_empty() {
                return Err(DecodeError::Truncated);
            }
        } else {
            reader.end()?;
        }
        Ok(Self { packet_id, reason_codes, reason_string, user_properties: UserProperties::of_section(section) })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put_packet(out, FIRST_BYTE, |out| {
            put_two_bytes(out, self.packet_id.number());
            encode_reason_string(version, self.reason_string, &self.user_properties, out);
            if version.is_v5() {
                out.extend(self.reason_codes.iter().map(|code| *code as u8));
            }
        });
    }

    /// As [`UnsubAck::encode`], without Reason String and User Properties where the packet would be longer than
    /// `packet_bytes_max` (v5 MQTT-3.11.2-1, MQTT-3.11.2-2).
    pub fn encode_within(&self, version: ProtocolVersion, packet_bytes_max: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(version, out);
        if out.len() - start > packet_bytes_max as usize {
            out.truncate(start);
            Self { reason_string: None, user_properties: UserProperties::none(), ..self.clone() }.encode(version, out);
        }
    }
}
