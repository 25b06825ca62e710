//! PUBACK, PUBREC, PUBREL and PUBCOMP (v5 sections 3.4 to 3.7), which share one body.

use alloc::vec::Vec;

use crate::primitive::{Reader, put_packet, put_two_bytes, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketId, PacketType, Property, ProtocolVersion, ReasonCode, UserProperties};

const PUBACK_FIRST_BYTE: u8 = 0x40;
const PROPERTIES: PropertySet = PropertySet::of(&[id::REASON_STRING, id::USER_PROPERTY]);

/// Which of the four it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgementKind {
    /// Answer to a QoS 1 PUBLISH.
    PubAck,
    /// Answer to a QoS 2 PUBLISH.
    PubRec,
    /// Answer to PUBREC.
    PubRel,
    /// Answer to PUBREL.
    PubComp,
}

impl AcknowledgementKind {
    /// Its packet type.
    #[inline]
    pub fn packet_type(self) -> PacketType {
        match self {
            Self::PubAck => PacketType::PubAck,
            Self::PubRec => PacketType::PubRec,
            Self::PubRel => PacketType::PubRel,
            Self::PubComp => PacketType::PubComp,
        }
    }

    #[inline]
    fn first_byte(self) -> u8 {
        let flags = if self == Self::PubRel { 0b0010 } else { 0 };
        (self.packet_type() as u8) << 4 | flags
    }
}

/// One of the four packets that acknowledge a PUBLISH or each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// Which of the four.
    pub kind: AcknowledgementKind,
    /// That of the PUBLISH (v5 MQTT-2.2.1-5).
    pub packet_id: PacketId,
    /// How it went; always Success before MQTT 5.
    pub reason_code: ReasonCode,
    /// A sentence for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Acknowledgement<'a> {
    /// One without Reason String and User Properties.
    #[inline]
    pub fn new(kind: AcknowledgementKind, packet_id: PacketId, reason_code: ReasonCode) -> Self {
        Self { kind, packet_id, reason_code, reason_string: None, user_properties: UserProperties::none() }
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    #[inline]
    pub fn decode(version: ProtocolVersion, kind: AcknowledgementKind, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut this = Self::new(kind, reader.packet_id()?, ReasonCode::Success);
        if version.is_v5() && !reader.is_empty() {
            let code = reader.byte()?;
            this.reason_code = ReasonCode::from_byte(code, kind.packet_type()).ok_or(DecodeError::ReasonCode(code))?;
            if !reader.is_empty() {
                let section = reader.properties()?;
                this.user_properties = UserProperties::of_section(section);
                decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| {
                    if let Property::ReasonString(text) = property {
                        this.reason_string = Some(text);
                    }
                })?;
            }
        }
        reader.end()?;
        Ok(this)
    }

    /// A PUBACK that says nothing but that it went well, as nearly all do, from its whole frame. None says only that
    /// [`Acknowledgement::decode`] has to look at it.
    #[inline]
    pub fn plain_pub_ack(first_byte: u8, body: &[u8]) -> Option<Self> {
        match (first_byte, body) {
            (PUBACK_FIRST_BYTE, &[high, low]) => {
                let packet_id = PacketId::new(u16::from_be_bytes([high, low]))?;
                Some(Self::new(AcknowledgementKind::PubAck, packet_id, ReasonCode::Success))
            }
            _ => None,
        }
    }

    /// Appends the packet to `out`, in the short form when nothing needs saying.
    #[inline]
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let first_byte = self.kind.first_byte();
        let [high, low] = self.packet_id.number().to_be_bytes();
        let bare = self.reason_string.is_none() && self.user_properties.is_empty();
        if !version.is_v5() || (bare && self.reason_code == ReasonCode::Success) {
            out.extend_from_slice(&[first_byte, 2, high, low]);
        } else if bare {
            out.extend_from_slice(&[first_byte, 3, high, low, self.reason_code as u8]);
        } else {
            put_packet(out, first_byte, |out| {
                put_two_bytes(out, self.packet_id.number());
                out.push(self.reason_code as u8);
                put_with_length(out, |out| {
                    if let Some(text) = self.reason_string {
                        Property::ReasonString(text).encode(out);
                    }
                    self.user_properties.encode(out);
                });
            });
        }
    }

    /// As [`Acknowledgement::encode`], without Reason String and User Properties where the packet would be longer than
    /// `packet_bytes_max` (v5 MQTT-3.4.2-2, MQTT-3.5.2-2, MQTT-3.6.2-2, MQTT-3.7.2-2 and those after them).
    pub fn encode_within(&self, version: ProtocolVersion, packet_bytes_max: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(version, out);
        if out.len() - start > packet_bytes_max as usize {
            out.truncate(start);
            Self::new(self.kind, self.packet_id, self.reason_code).encode(version, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let id = PacketId::FIRST;
        for (kind, code, version, bytes) in [
            (AcknowledgementKind::PubAck, ReasonCode::Success, ProtocolVersion::V5, &[0x40, 2, 0, 1][..]),
            (
                AcknowledgementKind::PubRec,
                ReasonCode::NoMatchingSubscribers,
                ProtocolVersion::V5,
                &[0x50, 3, 0, 1, 0x10],
            ),
            (AcknowledgementKind::PubRec, ReasonCode::NoMatchingSubscribers, ProtocolVersion::V311, &[0x50, 2, 0, 1]),
            (AcknowledgementKind::PubRel, ReasonCode::Success, ProtocolVersion::V311, &[0x62, 2, 0, 1]),
            (
                AcknowledgementKind::PubComp,
                ReasonCode::PacketIdentifierNotFound,
                ProtocolVersion::V5,
                &[0x70, 3, 0, 1, 0x92],
            ),
        ] {
            let mut out = Vec::new();
            Acknowledgement::new(kind, id, code).encode(version, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_plain_pub_ack_is_what_decoding_makes_of_it() {
        let id = PacketId::new(0x0102).unwrap();
        for kind in [
            AcknowledgementKind::PubAck,
            AcknowledgementKind::PubRec,
            AcknowledgementKind::PubRel,
            AcknowledgementKind::PubComp,
        ] {
            for body in [&[1, 2][..], &[0, 0], &[1], &[], &[1, 2, 0], &[1, 2, 0, 0], &[1, 2, 0x10]] {
                let plain = Acknowledgement::plain_pub_ack(kind.first_byte(), body);
                let expected = kind == AcknowledgementKind::PubAck && body == [1, 2];
                assert_eq!(plain.is_some(), expected, "{kind:?} {body:?}");
                for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
                    if let Some(plain) = &plain {
                        assert_eq!(Acknowledgement::decode(version, kind, body).as_ref(), Ok(plain));
                        assert_eq!(plain, &Acknowledgement::new(kind, id, ReasonCode::Success));
                    }
                }
            }
        }
    }

    #[test]
    fn three_bytes_without_property_length_are_accepted() {
        let ack = Acknowledgement::decode(ProtocolVersion::V5, AcknowledgementKind::PubAck, &[0, 7, 0x97]).unwrap();
        assert_eq!((ack.packet_id.number(), ack.reason_code), (7, ReasonCode::QuotaExceeded));
        let v3 = Acknowledgement::decode(ProtocolVersion::V311, AcknowledgementKind::PubAck, &[0, 7, 0x97]);
        assert_eq!(v3, Err(DecodeError::TrailingBytes));
    }
}
