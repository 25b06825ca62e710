//! SUBSCRIBE (v5 section 3.8).

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::primitive::{Reader, put_binary, put_packet, put_two_bytes, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketId, Property, ProtocolVersion, QoS, UserProperties};

const FIRST_BYTE: u8 = 0x82;
const PROPERTIES: PropertySet = PropertySet::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);

/// A request for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet Identifier, repeated by SUBACK.
    pub packet_id: PacketId,
    /// Sent back with each message that these subscriptions match.
    pub subscription_identifier: Option<NonZeroU32>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Topic Filters with their options: one at least.
    pub filters: SubscribeFilters<'a>,
}

/// What a subscription asks for beside its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Highest QoS wanted.
    pub qos: QoS,
    /// Whether the client's own messages stay away from it.
    pub no_local: bool,
    /// Whether RETAIN is passed on as published.
    pub retain_as_published: bool,
    /// Whether Retained Messages are wanted now.
    pub retain_handling: RetainHandling,
}

/// When Retained Messages are sent for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// 0: at each SUBSCRIBE.
    #[default]
    Send = 0,
    /// 1: only if the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

impl SubscriptionOptions {
    fn decode(version: ProtocolVersion, byte: u8) -> Result<Self, DecodeError> {
        let reserved = if version.is_v5() { 0b1100_0000 } else { 0b1111_1100 };
        if byte & reserved != 0 {
            return Err(DecodeError::Options);
        }
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::Options),
        };
        Ok(Self {
            qos: QoS::from_bits(byte & 0b11).ok_or(DecodeError::QoS)?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }

    fn encode(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// Topic Filters with options, as they stand in the packet. The filters are valid strings, not always valid filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    bytes: Cow<'a, [u8]>,
}

impl<'a> SubscribeFilters<'a> {
    fn decode(version: ProtocolVersion, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        while !reader.is_empty() {
            reader.string()?;
            SubscriptionOptions::decode(version, reader.byte()?)?;
        }
        Ok(Self { bytes: Cow::Borrowed(bytes) })
    }

    /// Filters and options, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SubscriptionOptions)> {
        let mut reader = Reader::new(&self.bytes);
        core::iter::from_fn(move || {
            let filter = reader.string().ok()?;
            Some((filter, SubscriptionOptions::decode(ProtocolVersion::V5, reader.byte().ok()?).ok()?))
        })
    }
}

impl<'f> FromIterator<(&'f str, SubscriptionOptions)> for SubscribeFilters<'_> {
    fn from_iter<I: IntoIterator<Item = (&'f str, SubscriptionOptions)>>(filters: I) -> Self {
        let mut bytes = Vec::new();
        for (filter, options) in filters {
            put_binary(&mut bytes, filter.as_bytes());
            bytes.push(options.encode());
        }
        Self { bytes: Cow::Owned(bytes) }
    }
}

impl<'a> Subscribe<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn decode(version: ProtocolVersion, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let section = if version.is_v5() { reader.properties()? } else { &[] };
        let mut subscription_identifier = None;
        decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| {
            if let Property::SubscriptionIdentifier(identifier) = property {
                subscription_identifier = Some(identifier);
            }
        })?;
        let filters = SubscribeFilters::decode(version, reader.rest())?;
        Ok(Self { packet_id, subscription_identifier, user_properties: UserProperties::of_section(section), filters })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put_packet(out, FIRST_BYTE, |out| {
            put_two_bytes(out, self.packet_id.number());
            if version.is_v5() {
                put_with_length(out, |out| {
                    if let Some(identifier) = self.subscription_identifier {
                        Property::SubscriptionIdentifier(identifier).encode(out);
                    }
                    self.user_properties.encode(out);
                });
            }
            for (filter, options) in self.filters.iter() {
                put_binary(out, filter.as_bytes());
                out.push(if version.is_v5() { options.encode() } else { options.qos as u8 });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_both_versions() {
        for byte in 0..=u8::MAX {
            let v5 = SubscriptionOptions::decode(ProtocolVersion::V5, byte);
            let valid = byte & 0b1100_0011 != 3 && byte & 0b1100_0000 == 0 && byte & 0b0011_0000 != 0b0011_0000;
            assert_eq!(v5.map(SubscriptionOptions::encode).ok(), valid.then_some(byte));
            let v3 = SubscriptionOptions::decode(ProtocolVersion::V311, byte);
            assert_eq!(v3.is_ok(), byte < 3);
        }
    }
}
