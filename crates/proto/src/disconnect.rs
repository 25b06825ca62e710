//! DISCONNECT (v5 section 3.14).

use alloc::vec::Vec;

use crate::primitive::{Reader, put_packet, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketType, Property, ProtocolVersion, ReasonCode, UserProperties};

const FIRST_BYTE: u8 = 0xe0;
const PROPERTIES: PropertySet =
    PropertySet::of(&[id::SESSION_EXPIRY_INTERVAL, id::SERVER_REFERENCE, id::REASON_STRING, id::USER_PROPERTY]);

/// The last packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; Normal disconnection ([`ReasonCode::Success`]) before MQTT 5.
    pub reason_code: ReasonCode,
    /// A client's new Session Expiry Interval in seconds; never from a server (v5 MQTT-3.14.2-2).
    pub session_expiry_interval: Option<u32>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// A sentence for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// One with this code and nothing else.
    pub fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            session_expiry_interval: None,
            server_reference: None,
            reason_string: None,
            user_properties: UserProperties::none(),
        }
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn decode(version: ProtocolVersion, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut this = Self::new(ReasonCode::Success);
        if version.is_v5() && !reader.is_empty() {
            let code = reader.byte()?;
            this.reason_code =
                ReasonCode::from_byte(code, PacketType::Disconnect).ok_or(DecodeError::ReasonCode(code))?;
            if !reader.is_empty() {
                let section = reader.properties()?;
                this.user_properties = UserProperties::of_section(section);
                decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| match property {
                    Property::SessionExpiryInterval(seconds) => this.session_expiry_interval = Some(seconds),
                    Property::ServerReference(text) => this.server_reference = Some(text),
                    Property::ReasonString(text) => this.reason_string = Some(text),
                    _ => {}
                })?;
            }
        }
        reader.end()?;
        Ok(this)
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let bare = self.session_expiry_interval.is_none()
            && self.server_reference.is_none()
            && self.reason_string.is_none()
            && self.user_properties.is_empty();
        if !version.is_v5() || (bare && self.reason_code == ReasonCode::Success) {
            out.extend_from_slice(&[FIRST_BYTE, 0]);
        } else if bare {
            out.extend_from_slice(&[FIRST_BYTE, 1, self.reason_code as u8]);
        } else {
            put_packet(out, FIRST_BYTE, |out| {
                out.push(self.reason_code as u8);
                put_with_length(out, |out| {
                    let properties = [
                        self.session_expiry_interval.map(Property::SessionExpiryInterval),
                        self.server_reference.map(Property::ServerReference),
                        self.reason_string.map(Property::ReasonString),
                    ];
                    for property in properties.into_iter().flatten() {
                        property.encode(out);
                    }
                    self.user_properties.encode(out);
                });
            });
        }
    }

    /// As [`Disconnect::encode`], without Reason String and User Properties where the packet would be longer than
    /// `packet_bytes_max` (v5 MQTT-3.14.2-3, MQTT-3.14.2-4).
    pub fn encode_within(&self, version: ProtocolVersion, packet_bytes_max: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(version, out);
        if out.len() - start > packet_bytes_max as usize {
            out.truncate(start);
            Self { reason_string: None, user_properties: UserProperties::none(), ..self.clone() }.encode(version, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_lengths() {
        for (body, code, expiry) in [
            (&[][..], ReasonCode::Success, None),
            (&[0x04], ReasonCode::DisconnectWithWillMessage, None),
            (&[0x00, 0x05, 0x11, 0, 0, 0, 9], ReasonCode::Success, Some(9)),
        ] {
            let packet = Disconnect::decode(ProtocolVersion::V5, body).unwrap();
            assert_eq!((packet.reason_code, packet.session_expiry_interval), (code, expiry));
            let mut out = Vec::new();
            packet.encode(ProtocolVersion::V5, &mut out);
            assert_eq!(&out[2..], body);
        }
        let v3 = Disconnect::decode(ProtocolVersion::V311, &[0]);
        assert_eq!(v3, Err(DecodeError::TrailingBytes));
    }
}
