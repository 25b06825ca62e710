//! PUBLISH (v5 section 3.3).
//!
//! [`Publish`] is what came in, [`Outgoing`] is what goes out to one subscriber. Between them the properties travel as
//! [`ForwardProperties`], the received bytes without the Topic Alias.

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use crate::primitive::{Reader, put_two_bytes, put_variable_byte_integer, variable_byte_integer_len};
use crate::property::{self, PropertySet, decode_section, id};
use crate::text::plain_topic_name;
use crate::{DecodeError, PacketId, Property, ProtocolVersion, QoS, UserProperties};

const FIRST_BYTE: u8 = 0x30;
const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;
/// Bytes of these properties with their identifiers.
const TOPIC_ALIAS_BYTES: usize = 3;
const MESSAGE_EXPIRY_BYTES: usize = 5;
const WILL_DELAY_BYTES: usize = 5;

/// Subscription Identifier is here for the client's side; the server refuses it (v5 MQTT-3.3.4-6).
const PROPERTIES: PropertySet = PropertySet::of(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::SUBSCRIPTION_IDENTIFIER,
    id::TOPIC_ALIAS,
    id::USER_PROPERTY,
]);
const REPEATABLE: PropertySet = PropertySet::of(&[id::SUBSCRIPTION_IDENTIFIER]);

/// QoS with what it needs on the wire: at QoS 0 there is neither Packet Identifier nor DUP (v5 MQTT-2.2.1-2,
/// MQTT-3.3.1-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub enum Delivery {
    AtMostOnce,
    AtLeastOnce { packet_id: PacketId, dup: bool },
    ExactlyOnce { packet_id: PacketId, dup: bool },
}

impl Delivery {
    /// Its QoS.
    #[inline]
    pub fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce { .. } => QoS::AtLeastOnce,
            Self::ExactlyOnce { .. } => QoS::ExactlyOnce,
        }
    }

    /// Its Packet Identifier.
    #[inline]
    pub fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { packet_id, .. } | Self::ExactlyOnce { packet_id, .. } => Some(packet_id),
        }
    }

    #[inline]
    fn flags(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce { dup, .. } => 1 << 1 | if dup { DUP } else { 0 },
            Self::ExactlyOnce { dup, .. } => 2 << 1 | if dup { DUP } else { 0 },
        }
    }
}

/// An Application Message as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// QoS, Packet Identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; empty only if a Topic Alias stands for it.
    pub topic_name: &'a str,
    /// Properties; none before MQTT 5.
    pub properties: PublishProperties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// The properties of a PUBLISH or a Will, checked, in the bytes they came in.
///
/// Equal if the Topic Alias is and what is passed on is: where the alias or a Will's delay stood has no meaning.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublishProperties<'a> {
    section: &'a [u8],
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Seconds the message lives; absent is for ever.
    pub message_expiry_interval: Option<u32>,
    /// The payload is said to be UTF-8.
    pub payload_is_utf8: bool,
    /// A Subscription Identifier is there: right from a server, wrong from a client.
    pub has_subscription_identifier: bool,
    /// Where the one property stands that is not forwarded, and how long it is: Topic Alias, or a Will's delay.
    cut_at: u32,
    cut_bytes: u8,
    message_expiry_at: u32,
    user_properties: u32,
}

impl<'a> PublishProperties<'a> {
    /// Takes properties as bytes, as [`Property::encode`] writes them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(section: &'a [u8]) -> Result<Self, DecodeError> {
        Self::decode_section(section, PROPERTIES, |_| {})
    }

    pub(crate) fn decode_section(
        section: &'a [u8],
        allowed: PropertySet,
        mut will_delay: impl FnMut(u32),
    ) -> Result<Self, DecodeError> {
        let mut this = Self { section, ..Self::default() };
        if section.is_empty() {
            return Ok(this);
        }
        decode_section(section, allowed, REPEATABLE, |property, at| match property {
            Property::TopicAlias(alias) => {
                this.topic_alias = Some(alias);
                (this.cut_at, this.cut_bytes) = (at as u32, TOPIC_ALIAS_BYTES as u8);
            }
            Property::MessageExpiryInterval(seconds) => {
                this.message_expiry_interval = Some(seconds);
                this.message_expiry_at = at as u32;
            }
            Property::PayloadFormatIndicator(utf8) => this.payload_is_utf8 = utf8,
            Property::SubscriptionIdentifier(_) => this.has_subscription_identifier = true,
            Property::UserProperty(..) => this.user_properties += 1,
            Property::WillDelayInterval(seconds) => {
                will_delay(seconds);
                (this.cut_at, this.cut_bytes) = (at as u32, WILL_DELAY_BYTES as u8);
            }
            _ => {}
        })?;
        Ok(this)
    }

    /// All properties, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut reader = Reader::new(self.section);
        core::iter::from_fn(
            move || {
                if reader.is_empty() { None } else { Property::decode(&mut reader, property::ANY).ok() }
            },
        )
    }

    /// User Properties.
    pub fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::of_section(self.section)
    }

    /// How many User Properties there are.
    pub fn user_property_count(&self) -> usize {
        self.user_properties as usize
    }

    /// What is passed on to subscribers: everything but Topic Alias and Will Delay Interval, in order.
    #[inline]
    pub fn forward(&self) -> ForwardProperties<'a> {
        if self.section.is_empty() {
            return ForwardProperties::default();
        }
        let (cut_at, cut) = (self.cut_at as usize, usize::from(self.cut_bytes));
        let (head, tail) =
            if cut == 0 { (self.section, &[][..]) } else { (&self.section[..cut_at], &self.section[cut_at + cut..]) };
        let message_expiry_at = self.message_expiry_interval.map(|_| {
            let at = self.message_expiry_at as usize;
            if at > cut_at { at - cut } else { at }
        });
        ForwardProperties { head, tail, message_expiry_at }
    }
}

impl PartialEq for PublishProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.topic_alias == other.topic_alias && self.forward().bytes().eq(other.forward().bytes())
    }
}

impl Eq for PublishProperties<'_> {}

/// The properties of an Application Message on its way to subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardProperties<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    /// Where Message Expiry Interval stands in head and tail together.
    message_expiry_at: Option<usize>,
}

impl<'a> ForwardProperties<'a> {
    /// Those of a message kept as [`ForwardProperties::bytes`] with [`ForwardProperties::message_expiry_at`].
    #[inline]
    pub fn from_parts(bytes: &'a [u8], message_expiry_at: Option<usize>) -> Self {
        Self { head: bytes, tail: &[], message_expiry_at }
    }

    /// Their bytes, for keeping.
    #[inline]
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.head.iter().chain(self.tail).copied()
    }

    /// Their bytes in one or two pieces.
    #[inline]
    pub fn pieces(&self) -> [&'a [u8]; 2] {
        [self.head, self.tail]
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where among the bytes Message Expiry Interval stands, if it does.
    #[inline]
    pub fn message_expiry_at(&self) -> Option<usize> {
        self.message_expiry_at
    }
}

impl<'a> Publish<'a> {
    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    #[inline]
    pub fn decode(version: ProtocolVersion, first_byte: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let dup = first_byte & DUP != 0;
        let mut reader = Reader::new(body);
        let topic = reader.binary()?;
        let topic_name = check_topic_name(topic)?;
        let delivery = match first_byte >> 1 & 0b11 {
            0 if dup => return Err(DecodeError::DupAtMostOnce),
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce { packet_id: reader.packet_id()?, dup },
            2 => Delivery::ExactlyOnce { packet_id: reader.packet_id()?, dup },
            _ => return Err(DecodeError::QoS),
        };
        let properties = match version {
            ProtocolVersion::V5 => match reader.properties()? {
                [] => PublishProperties::default(),
                section => PublishProperties::new(section)?,
            },
            _ => PublishProperties::default(),
        };
        if topic_name.is_empty() && properties.topic_alias.is_none() {
            return Err(if version.is_v5() { DecodeError::NoTopic } else { DecodeError::TopicName });
        }
        Ok(Self { delivery, retain: first_byte & RETAIN != 0, topic_name, properties, payload: reader.rest() })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let section = if version.is_v5() { self.properties.section } else { &[] };
        let fields = Fields {
            flags: self.delivery.flags() | u8::from(self.retain),
            topic_name: self.topic_name,
            packet_id: self.delivery.packet_id(),
            properties: version.is_v5().then_some(section.len()),
        };
        fields.encode(self.payload.len(), out);
        out.extend_from_slice(section);
        out.extend_from_slice(self.payload);
    }
}

/// A PUBLISH with nothing special about it: QoS 0, no RETAIN, no properties, an ASCII Topic Name. Most are.
///
/// It goes out as it came in: to a client with the same form of packets (MQTT 5, or older) the same bytes are sent. What
/// is not plain is for [`Publish`], which takes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainPublish<'a> {
    /// Topic Name, not empty.
    pub topic_name: &'a str,
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> PlainPublish<'a> {
    /// Decodes what follows the fixed header. None says only that [`Publish::decode`] has to look at it.
    #[inline]
    pub fn decode(version: ProtocolVersion, first_byte: u8, body: &'a [u8]) -> Option<Self> {
        let (length, rest) = body.split_first_chunk::<2>()?;
        if first_byte != FIRST_BYTE {
            return None;
        }
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let payload = match (version.is_v5(), rest) {
            (true, [0, payload @ ..]) | (false, payload) => payload,
            (true, _) => return None,
        };
        let topic_name = plain_topic_name(topic).filter(|name| !name.is_empty())?;
        Some(Self { topic_name, payload })
    }
}

/// A Topic Name of a PUBLISH: a valid string without wildcards; empty is for the caller to judge.
#[inline]
fn check_topic_name(bytes: &[u8]) -> Result<&str, DecodeError> {
    match plain_topic_name(bytes) {
        Some(text) => Ok(text),
        None => check_unusual_topic_name(bytes),
    }
}

#[cold]
fn check_unusual_topic_name(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = core::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
    if bytes.contains(&0) {
        return Err(DecodeError::Utf8);
    }
    if crate::valid_topic_name(text) { Ok(text) } else { Err(DecodeError::TopicName) }
}

/// What stands before properties and payload.
struct Fields<'a> {
    flags: u8,
    topic_name: &'a str,
    packet_id: Option<PacketId>,
    /// Bytes of properties; None before MQTT 5.
    properties: Option<usize>,
}

impl Fields<'_> {
    #[inline]
    fn body_bytes(&self, payload: usize) -> usize {
        let properties = self.properties.map_or(0, |bytes| variable_byte_integer_len(bytes as u32) + bytes);
        2 + self.topic_name.len() + if self.packet_id.is_some() { 2 } else { 0 } + properties + payload
    }

    #[inline]
    fn encode(&self, payload: usize, out: &mut Vec<u8>) {
        let body = self.body_bytes(payload);
        // The payload may be sent from where it is: whoever copies it makes room for it.
        out.reserve(5 + body - payload);
        let topic_name = self.topic_name.as_bytes();
        let [high, low] = (topic_name.len() as u16).to_be_bytes();
        if body < 0x80 {
            // Nearly all packets: one store instead of four.
            out.extend_from_slice(&[FIRST_BYTE | self.flags, body as u8, high, low]);
        } else {
            out.push(FIRST_BYTE | self.flags);
            put_variable_byte_integer(out, body as u32);
            out.extend_from_slice(&[high, low]);
        }
        debug_assert!(topic_name.len() <= usize::from(u16::MAX));
        out.extend_from_slice(topic_name);
        if let Some(packet_id) = self.packet_id {
            put_two_bytes(out, packet_id.number());
        }
        if let Some(bytes) = self.properties {
            put_variable_byte_integer(out, bytes as u32);
        }
    }
}

/// A PUBLISH to one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// QoS, Packet Identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; empty if an alias that the client knows stands for it.
    pub topic_name: &'a str,
    /// Properties as received.
    pub properties: ForwardProperties<'a>,
    /// Seconds left of the message's life: replaces the received value (v5 MQTT-3.3.2-6).
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias to set or use.
    pub topic_alias: Option<NonZeroU16>,
    /// Identifiers of the matching subscriptions.
    pub subscription_identifiers: &'a [NonZeroU32],
}

impl Outgoing<'_> {
    #[inline]
    fn fields(&self, version: ProtocolVersion) -> Fields<'_> {
        let properties = version.is_v5().then(|| {
            let alias = if self.topic_alias.is_some() { TOPIC_ALIAS_BYTES } else { 0 };
            let identifiers: usize =
                self.subscription_identifiers.iter().map(|id| 1 + variable_byte_integer_len(id.get())).sum();
            self.properties.len() + alias + identifiers
        });
        Fields {
            flags: self.delivery.flags() | u8::from(self.retain),
            topic_name: self.topic_name,
            packet_id: self.delivery.packet_id(),
            properties,
        }
    }

    /// Bytes of the whole packet with a payload of `payload` bytes.
    #[inline]
    pub fn packet_bytes(&self, version: ProtocolVersion, payload: usize) -> usize {
        let body = self.fields(version).body_bytes(payload);
        1 + variable_byte_integer_len(body as u32) + body
    }

    /// Appends everything up to the payload, which has `payload` bytes and has to follow.
    #[inline]
    pub fn encode_header(&self, version: ProtocolVersion, payload: usize, out: &mut Vec<u8>) {
        self.fields(version).encode(payload, out);
        if !version.is_v5() {
            return;
        }
        if !self.properties.is_empty() {
            let start = out.len();
            out.extend_from_slice(self.properties.head);
            out.extend_from_slice(self.properties.tail);
            if let (Some(at), Some(seconds)) = (self.properties.message_expiry_at, self.message_expiry_interval) {
                out[start + at + 1..start + at + MESSAGE_EXPIRY_BYTES].copy_from_slice(&seconds.to_be_bytes());
            }
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).encode(out);
        }
        for &identifier in self.subscription_identifiers {
            Property::SubscriptionIdentifier(identifier).encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn section(properties: &[Property<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for property in properties {
            property.encode(&mut out);
        }
        out
    }

    #[test]
    fn forwarding_cuts_the_alias_and_keeps_the_order() {
        let alias = Property::TopicAlias(NonZeroU16::MIN);
        let expiry = Property::MessageExpiryInterval(60);
        let user = Property::UserProperty("a", "b");
        for (received, forwarded) in [
            (vec![alias, expiry, user], vec![expiry, user]),
            (vec![expiry, alias, user], vec![expiry, user]),
            (vec![user, expiry, alias], vec![user, expiry]),
            (vec![user, expiry], vec![user, expiry]),
            (vec![alias], vec![]),
            (vec![], vec![]),
        ] {
            let bytes = section(&received);
            let properties = PublishProperties::new(&bytes).unwrap().forward();
            let kept: Vec<u8> = properties.bytes().collect();
            assert_eq!(kept, section(&forwarded));
            if let Some(at) = properties.message_expiry_at() {
                assert_eq!(kept[at], id::MESSAGE_EXPIRY_INTERVAL);
            }
        }
    }

    #[test]
    fn the_remaining_expiry_replaces_the_received_one() {
        let bytes = section(&[Property::UserProperty("k", "v"), Property::MessageExpiryInterval(60)]);
        let properties = PublishProperties::new(&bytes).unwrap();
        let outgoing = Outgoing {
            delivery: Delivery::AtMostOnce,
            retain: false,
            topic_name: "t",
            properties: properties.forward(),
            message_expiry_interval: Some(7),
            topic_alias: NonZeroU16::new(3),
            subscription_identifiers: &[NonZeroU32::MIN],
        };
        let mut out = Vec::new();
        outgoing.encode_header(ProtocolVersion::V5, 1, &mut out);
        out.push(b'!');
        assert_eq!(out.len(), outgoing.packet_bytes(ProtocolVersion::V5, 1));
        let received = Publish::decode(ProtocolVersion::V5, out[0], &out[2..]).unwrap();
        assert_eq!((received.topic_name, received.payload), ("t", b"!".as_slice()));
        let properties: Vec<_> = received.properties.iter().collect();
        assert_eq!(
            properties,
            [
                Property::UserProperty("k", "v"),
                Property::MessageExpiryInterval(7),
                Property::TopicAlias(NonZeroU16::new(3).unwrap()),
                Property::SubscriptionIdentifier(NonZeroU32::MIN),
            ]
        );
    }

    #[test]
    fn topic_names_that_are_none() {
        let body = |topic: &[u8]| {
            let mut body = vec![0, topic.len() as u8];
            body.extend_from_slice(topic);
            body
        };
        for (topic, error) in [
            (&b"a/#"[..], DecodeError::TopicName),
            (b"+", DecodeError::TopicName),
            (b"a\0", DecodeError::Utf8),
            (b"\xc3\x28", DecodeError::Utf8),
            (b"\xed\xa0\x80", DecodeError::Utf8),
            (b"\xc0\xaf", DecodeError::Utf8),
            (b"", DecodeError::TopicName),
        ] {
            assert_eq!(Publish::decode(ProtocolVersion::V311, 0x30, &body(topic)), Err(error));
        }
    }
}
