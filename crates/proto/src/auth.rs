//! AUTH (v5 section 3.15).

use alloc::vec::Vec;

use crate::primitive::{Reader, put_packet, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketType, Property, ReasonCode, UserProperties};

const FIRST_BYTE: u8 = 0xf0;
const PROPERTIES: PropertySet =
    PropertySet::of(&[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER_PROPERTY]);

/// A step of enhanced authentication. MQTT 5 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason_code: ReasonCode,
    /// That of the CONNECT, repeated (v5 MQTT-4.12.0-5).
    pub authentication_method: Option<&'a str>,
    /// What the method has to say.
    pub authentication_data: Option<&'a [u8]>,
    /// A sentence for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// One with this code and nothing else.
    pub fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::none(),
        }
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet; [`DecodeError::AuthenticationDataAlone`] for data without a method.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut this = Self::new(ReasonCode::Success);
        if !reader.is_empty() {
            let code = reader.byte()?;
            this.reason_code = ReasonCode::from_byte(code, PacketType::Auth).ok_or(DecodeError::ReasonCode(code))?;
            let section = reader.properties()?;
            this.user_properties = UserProperties::of_section(section);
            decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| match property {
                Property::AuthenticationMethod(text) => this.authentication_method = Some(text),
                Property::AuthenticationData(bytes) => this.authentication_data = Some(bytes),
                Property::ReasonString(text) => this.reason_string = Some(text),
                _ => {}
            })?;
        }
        reader.end()?;
        if this.authentication_data.is_some() && this.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataAlone);
        }
        Ok(this)
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let bare = self.authentication_method.is_none()
            && self.authentication_data.is_none()
            && self.reason_string.is_none()
            && self.user_properties.is_empty();
        if bare && self.reason_code == ReasonCode::Success {
            out.extend_from_slice(&[FIRST_BYTE, 0]);
            return;
        }
        put_packet(out, FIRST_BYTE, |out| {
            out.push(self.reason_code as u8);
            put_with_length(out, |out| {
                let properties = [
                    self.authentication_method.map(Property::AuthenticationMethod),
                    self.authentication_data.map(Property::AuthenticationData),
                    self.reason_string.map(Property::ReasonString),
                ];
                for property in properties.into_iter().flatten() {
                    property.encode(out);
                }
                self.user_properties.encode(out);
            });
        });
    }

    /// As [`Auth::encode`], without Reason String and User Properties where the packet would be longer than
    /// `packet_bytes_max` (v5 MQTT-3.15.2-2, MQTT-3.15.2-3).
    pub fn encode_within(&self, packet_bytes_max: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(out);
        if out.len() - start > packet_bytes_max as usize {
            out.truncate(start);
            Self { reason_string: None, user_properties: UserProperties::none(), ..self.clone() }.encode(out);
        }
    }
}
