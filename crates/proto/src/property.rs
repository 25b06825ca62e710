//! Properties (v5 section 2.2.2): identifiers, values, and which packet may carry which.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use crate::primitive::{Reader, put_binary, put_four_bytes, put_string, put_two_bytes, put_variable_byte_integer};
use crate::{DecodeError, VARIABLE_BYTE_INTEGER_MAX};

/// One property with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(NonZeroU32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQoS(bool),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

pub(crate) mod id {
    //! Property identifiers. All fit in one byte, so a longer encoding of one is an unknown property.
    pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;
}

/// The properties that may stand in one kind of packet, as bits by identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PropertySet(u64);

impl PropertySet {
    pub(crate) const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < ids.len() {
            bits |= 1 << ids[at];
            at += 1;
        }
        Self(bits)
    }

    fn has(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }
}

impl<'a> Property<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>, allowed: PropertySet) -> Result<Self, DecodeError> {
        let id = reader.byte()?;
        if !allowed.has(id) {
            return Err(DecodeError::Property(id));
        }
        let zero = DecodeError::PropertyValue(id);
        Ok(match id {
            id::PAYLOAD_FORMAT_INDICATOR => Self::PayloadFormatIndicator(reader.flag(id)?),
            id::MESSAGE_EXPIRY_INTERVAL => Self::MessageExpiryInterval(reader.four_bytes()?),
            id::CONTENT_TYPE => Self::ContentType(reader.string()?),
            id::RESPONSE_TOPIC => {
                let topic = reader.string()?;
                if !crate::valid_topic_name(topic) {
                    return Err(zero);
                }
                Self::ResponseTopic(topic)
            }
            id::CORRELATION_DATA => Self::CorrelationData(reader.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => {
                Self::SubscriptionIdentifier(NonZeroU32::new(reader.variable_byte_integer()?).ok_or(zero)?)
            }
            id::SESSION_EXPIRY_INTERVAL => Self::SessionExpiryInterval(reader.four_bytes()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => Self::AssignedClientIdentifier(reader.string()?),
            id::SERVER_KEEP_ALIVE => Self::ServerKeepAlive(reader.two_bytes()?),
            id::AUTHENTICATION_METHOD => Self::AuthenticationMethod(reader.string()?),
            id::AUTHENTICATION_DATA => Self::AuthenticationData(reader.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => Self::RequestProblemInformation(reader.flag(id)?),
            id::WILL_DELAY_INTERVAL => Self::WillDelayInterval(reader.four_bytes()?),
            id::REQUEST_RESPONSE_INFORMATION => Self::RequestResponseInformation(reader.flag(id)?),
            id::RESPONSE_INFORMATION => Self::ResponseInformation(reader.string()?),
            id::SERVER_REFERENCE => Self::ServerReference(reader.string()?),
            id::REASON_STRING => Self::ReasonString(reader.string()?),
            id::RECEIVE_MAXIMUM => Self::ReceiveMaximum(NonZeroU16::new(reader.two_bytes()?).ok_or(zero)?),
            id::TOPIC_ALIAS_MAXIMUM => Self::TopicAliasMaximum(reader.two_bytes()?),
            id::TOPIC_ALIAS => {
                Self::TopicAlias(NonZeroU16::new(reader.two_bytes()?).ok_or(DecodeError::TopicAliasZero)?)
            }
            id::MAXIMUM_QOS => Self::MaximumQoS(reader.flag(id)?),
            id::RETAIN_AVAILABLE => Self::RetainAvailable(reader.flag(id)?),
            id::USER_PROPERTY => Self::UserProperty(reader.string()?, reader.string()?),
            id::MAXIMUM_PACKET_SIZE => Self::MaximumPacketSize(NonZeroU32::new(reader.four_bytes()?).ok_or(zero)?),
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => Self::WildcardSubscriptionAvailable(reader.flag(id)?),
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => Self::SubscriptionIdentifierAvailable(reader.flag(id)?),
            id::SHARED_SUBSCRIPTION_AVAILABLE => Self::SharedSubscriptionAvailable(reader.flag(id)?),
            _ => return Err(DecodeError::Property(id)),
        })
    }

    /// Its identifier on the wire.
    pub fn identifier(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => id::PAYLOAD_FORMAT_INDICATOR,
            Self::MessageExpiryInterval(_) => id::MESSAGE_EXPIRY_INTERVAL,
            Self::ContentType(_) => id::CONTENT_TYPE,
            Self::ResponseTopic(_) => id::RESPONSE_TOPIC,
            Self::CorrelationData(_) => id::CORRELATION_DATA,
            Self::SubscriptionIdentifier(_) => id::SUBSCRIPTION_IDENTIFIER,
            Self::SessionExpiryInterval(_) => id::SESSION_EXPIRY_INTERVAL,
            Self::AssignedClientIdentifier(_) => id::ASSIGNED_CLIENT_IDENTIFIER,
            Self::ServerKeepAlive(_) => id::SERVER_KEEP_ALIVE,
            Self::AuthenticationMethod(_) => id::AUTHENTICATION_METHOD,
            Self::AuthenticationData(_) => id::AUTHENTICATION_DATA,
            Self::RequestProblemInformation(_) => id::REQUEST_PROBLEM_INFORMATION,
            Self::WillDelayInterval(_) => id::WILL_DELAY_INTERVAL,
            Self::RequestResponseInformation(_) => id::REQUEST_RESPONSE_INFORMATION,
            Self::ResponseInformation(_) => id::RESPONSE_INFORMATION,
            Self::ServerReference(_) => id::SERVER_REFERENCE,
            Self::ReasonString(_) => id::REASON_STRING,
            Self::ReceiveMaximum(_) => id::RECEIVE_MAXIMUM,
            Self::TopicAliasMaximum(_) => id::TOPIC_ALIAS_MAXIMUM,
            Self::TopicAlias(_) => id::TOPIC_ALIAS,
            Self::MaximumQoS(_) => id::MAXIMUM_QOS,
            Self::RetainAvailable(_) => id::RETAIN_AVAILABLE,
            Self::UserProperty(..) => id::USER_PROPERTY,
            Self::MaximumPacketSize(_) => id::MAXIMUM_PACKET_SIZE,
            Self::WildcardSubscriptionAvailable(_) => id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            Self::SubscriptionIdentifierAvailable(_) => id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            Self::SharedSubscriptionAvailable(_) => id::SHARED_SUBSCRIPTION_AVAILABLE,
        }
    }

    /// Appends identifier and value to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.identifier());
        match *self {
            Self::PayloadFormatIndicator(flag)
            | Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::MaximumQoS(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifierAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => out.push(u8::from(flag)),
            Self::ServerKeepAlive(value) | Self::TopicAliasMaximum(value) => put_two_bytes(out, value),
            Self::ReceiveMaximum(value) | Self::TopicAlias(value) => put_two_bytes(out, value.get()),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value) => put_four_bytes(out, value),
            Self::MaximumPacketSize(value) => put_four_bytes(out, value.get()),
            Self::SubscriptionIdentifier(value) => {
                put_variable_byte_integer(out, value.get().min(VARIABLE_BYTE_INTEGER_MAX));
            }
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => put_string(out, text),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => put_binary(out, bytes),
            Self::UserProperty(key, value) => {
                put_string(out, key);
                put_string(out, value);
            }
        }
    }
}

/// Decodes a property section: each property in `allowed`, none twice but User Property and those in `repeatable`.
pub(crate) fn decode_section<'a>(
    section: &'a [u8],
    allowed: PropertySet,
    repeatable: PropertySet,
    mut each: impl FnMut(Property<'a>, usize),
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(section);
    let mut seen = 0_u64;
    while !reader.is_empty() {
        let at = section.len() - reader.rest().len();
        let property = Property::decode(&mut reader, allowed)?;
        let id = property.identifier();
        if id != id::USER_PROPERTY && !repeatable.has(id) {
            if seen & (1 << id) != 0 {
                return Err(DecodeError::DuplicateProperty(id));
            }
            seen |= 1 << id;
        }
        each(property, at);
    }
    Ok(())
}

/// Nothing but User Property may repeat.
pub(crate) const NONE_REPEATABLE: PropertySet = PropertySet::of(&[]);

/// Every property there is: for reading what has been checked before.
pub(crate) const ANY: PropertySet = PropertySet(u64::MAX);

/// The User Properties of a packet, in their order.
///
/// Borrows the property section it was decoded from; collects from pairs when made by hand. Strings of more than
/// 65_535 bytes are cut when collected.
#[derive(Clone, Default)]
pub struct UserProperties<'a> {
    section: Cow<'a, [u8]>,
}

impl<'a> UserProperties<'a> {
    /// No User Properties.
    pub const fn none() -> Self {
        Self { section: Cow::Borrowed(&[]) }
    }

    /// A property section that has been checked.
    pub(crate) fn of_section(section: &'a [u8]) -> Self {
        Self { section: Cow::Borrowed(section) }
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut reader = Reader::new(&self.section);
        core::iter::from_fn(move || {
            while !reader.is_empty() {
                match Property::decode(&mut reader, ANY) {
                    Ok(Property::UserProperty(key, value)) => return Some((key, value)),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
            None
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for (key, value) in self.iter() {
            Property::UserProperty(key, value).encode(out);
        }
    }
}

impl<'k> FromIterator<(&'k str, &'k str)> for UserProperties<'_> {
    fn from_iter<I: IntoIterator<Item = (&'k str, &'k str)>>(pairs: I) -> Self {
        let mut section = Vec::new();
        for (key, value) in pairs {
            Property::UserProperty(key, value).encode(&mut section);
        }
        Self { section: Cow::Owned(section) }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl core::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
