//! UNSUBSCRIBE (v5 section 3.10).

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::primitive::{Reader, put_binary, put_packet, put_two_bytes, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketId, ProtocolVersion, UserProperties};

const FIRST_BYTE: u8 = 0xa2;
const PROPERTIES: PropertySet = PropertySet::of(&[id::USER_PROPERTY]);

/// A request to end subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier, repeated by UNSUBACK.
    pub packet_id: PacketId,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Topic Filters: one at least.
    pub filters: UnsubscribeFilters<'a>,
}

/// Topic Filters as they stand in the packet: valid strings, not always valid filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    bytes: Cow<'a, [u8]>,
}

impl UnsubscribeFilters<'_> {
    /// The filters, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut reader = Reader::new(&self.bytes);
        core::iter::from_fn(move || reader.string().ok())
    }
}

impl<'f> FromIterator<&'f str> for UnsubscribeFilters<'_> {
    fn from_iter<I: IntoIterator<Item = &'f str>>(filters: I) -> Self {
        let mut bytes = Vec::new();
        for filter in filters {
            put_binary(&mut bytes, filter.as_bytes());
        }
        Self { bytes: Cow::Owned(bytes) }
    }
}

impl<'a> Unsubscribe<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn decode(version: ProtocolVersion, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let section = if version.is_v5() { reader.properties()? } else { &[] };
        decode_section(section, PROPERTIES, NONE_REPEATABLE, |_, _| {})?;
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        while !reader.is_empty() {
            reader.string()?;
        }
        let filters = UnsubscribeFilters { bytes: Cow::Borrowed(bytes) };
        Ok(Self { packet_id, user_properties: UserProperties::of_section(section), filters })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put_packet(out, FIRST_BYTE, |out| {
            put_two_bytes(out, self.packet_id.number());
            if version.is_v5() {
                put_with_length(out, |out| self.user_properties.encode(out));
            }
            out.extend_from_slice(&self.filters.bytes);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_filters() {
        let body = [0, 9, 0, 0, 1, b'a', 0, 3, b'b', b'/', b'#'];
        let packet = Unsubscribe::decode(ProtocolVersion::V5, &body).unwrap();
        assert_eq!(packet.filters.iter().collect::<Vec<_>>(), ["a", "b/#"]);
        let none = Unsubscribe::decode(ProtocolVersion::V5, &body[..3]);
        assert_eq!(none, Err(DecodeError::NoFilters));
    }
}
