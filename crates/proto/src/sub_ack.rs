//! SUBACK (v5 section 3.9).

use alloc::vec::Vec;

use crate::primitive::{Reader, put_packet, put_two_bytes, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketId, PacketType, Property, ProtocolVersion, ReasonCode, UserProperties};

const FIRST_BYTE: u8 = 0x90;
const PROPERTIES: PropertySet = PropertySet::of(&[id::REASON_STRING, id::USER_PROPERTY]);

/// The answer to SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE (v5 MQTT-3.8.4-2).
    pub packet_id: PacketId,
    /// One for each filter, in their order (v5 MQTT-3.8.4-6, MQTT-3.9.3-1). Failures are 0x80 before MQTT 5.
    pub reason_codes: Vec<ReasonCode>,
    /// A sentence for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn decode(version: ProtocolVersion, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let (section, reason_string) = decode_reason_string(version, &mut reader)?;
        let mut reason_codes = Vec::with_capacity(reader.rest().len());
        for &byte in reader.rest() {
            let code = ReasonCode::from_byte(byte, PacketType::SubAck)
                .filter(|code| version.is_v5() || *code <= ReasonCode::UnspecifiedError);
            reason_codes.push(code.ok_or(DecodeError::ReasonCode(byte))?);
        }
        if reason_codes.is_empty() {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { packet_id, reason_codes, reason_string, user_properties: UserProperties::of_section(section) })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put_packet(out, FIRST_BYTE, |out| {
            put_two_bytes(out, self.packet_id.number());
            encode_reason_string(version, self.reason_string, &self.user_properties, out);
            for &code in &self.reason_codes {
                let v3_failure = code.is_error() && !version.is_v5();
                out.push(if v3_failure { ReasonCode::UnspecifiedError } else { code } as u8);
            }
        });
    }

    /// As [`SubAck::encode`], without Reason String and User Properties where the packet would be longer than
    /// `packet_bytes_max` (v5 MQTT-3.9.2-1, MQTT-3.9.2-2).
    pub fn encode_within(&self, version: ProtocolVersion, packet_bytes_max: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(version, out);
        if out.len() - start > packet_bytes_max as usize {
            out.truncate(start);
            Self { reason_string: None, user_properties: UserProperties::none(), ..self.clone() }.encode(version, out);
        }
    }
}

/// The properties of SUBACK and UNSUBACK, which are the same: the section, and the Reason String in it.
pub(crate) fn decode_reason_string<'a>(
    version: ProtocolVersion,
    reader: &mut Reader<'a>,
) -> Result<(&'a [u8], Option<&'a str>), DecodeError> {
    if !version.is_v5() {
        return Ok((&[], None));
    }
    let section = reader.properties()?;
    let mut reason_string = None;
    decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| {
        if let Property::ReasonString(text) = property {
            reason_string = Some(text);
        }
    })?;
    Ok((section, reason_string))
}

pub(crate) fn encode_reason_string(
    version: ProtocolVersion,
    reason_string: Option<&str>,
    user_properties: &UserProperties<'_>,
    out: &mut Vec<u8>,
) {
    if version.is_v5() {
        put_with_length(out, |out| {
            if let Some(text) = reason_string {
                Property::ReasonString(text).encode(out);
            }
            user_properties.encode(out);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn failures_are_0x80_before_mqtt_5() {
        let ack = SubAck {
            packet_id: PacketId::FIRST,
            reason_codes: vec![ReasonCode::GrantedQoS2, ReasonCode::QuotaExceeded],
            reason_string: None,
            user_properties: UserProperties::none(),
        };
        let mut out = Vec::new();
        ack.encode(ProtocolVersion::V311, &mut out);
        assert_eq!(out, [0x90, 4, 0, 1, 2, 0x80]);
        out.clear();
        ack.encode(ProtocolVersion::V5, &mut out);
        assert_eq!(out, [0x90, 5, 0, 1, 0, 2, 0x97]);
    }
}
