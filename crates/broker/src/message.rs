//! Application Messages: borrowed while they are routed, shared while they wait.

use std::num::NonZeroU32;
use std::sync::Arc;

use pantala_proto::{ForwardProperties, QoS};
use pantala_session::Instant;
use pantala_store::{MessageId, Position, StoredMessage};

use crate::maybe_instant::MaybeInstant;

/// A message on its way through the router, wherever its bytes stand: a read buffer, a mailbox, a Will.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) topic_name: &'a str,
    pub(crate) properties: ForwardProperties<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// When its Message Expiry Interval is over.
    pub(crate) expires_at: Option<Instant>,
    /// The store's name for it, if it may have to be kept.
    pub(crate) id: Option<MessageId>,
    pub(crate) room: Room,
}

/// Whether there is room for a message in the queues that it goes to: see `asking.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nobody has been asked.
    Unasked,
    /// Everybody has been asked, and takes it. The members of Shared Subscriptions have been chosen, and have it.
    Promised,
}

impl<'a> Incoming<'a> {
    /// What it is charged with in queues: topic, properties and payload.
    pub(crate) fn bytes(&self) -> usize {
        self.topic_name.len() + self.properties.len() + self.payload.len()
    }

    /// The Message Expiry Interval to forward (v5 MQTT-3.3.2-6).
    #[inline]
    pub(crate) fn message_expiry_interval(&self, now: Instant) -> Option<u32> {
        let left = now.seconds_until(self.expires_at?);
        // The clock of another worker may be a moment behind; never is more left than there was.
        Some(self.received_expiry_interval().map_or(left, |received| left.min(received)))
    }

    /// The Message Expiry Interval as it came.
    fn received_expiry_interval(&self) -> Option<u32> {
        // Behind its identifier, and in one piece: what is cut out between the two is a whole property.
        let at = 1 + self.properties.message_expiry_at()?;
        let [head, tail] = self.properties.pieces();
        let bytes = match at.checked_sub(head.len()) {
            None => head.get(at..at + 4),
            Some(at) => tail.get(at..at + 4),
        };
        bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// As the store has it.
    pub(crate) fn to_store(self) -> pantala_store::Message<'a> {
        pantala_store::Message {
            topic_name: self.topic_name,
            properties: self.properties.pieces(),
            message_expiry_at: self.properties.message_expiry_at().map(|at| at as u32),
            payload: self.payload,
            qos: self.qos as u8,
            retain: self.retain,
            expires_at: self.expires_at.map(|at| at.0),
        }
    }

    /// As the store had it.
    pub(crate) fn from_store(message: pantala_store::Message<'a>, id: Option<MessageId>) -> Self {
        let [properties, _] = message.properties;
        Self {
            topic_name: message.topic_name,
            properties: ForwardProperties::from_parts(properties, message.message_expiry_at.map(|at| at as usize)),
            payload: message.payload,
            qos: qos_from(message.qos),
            retain: message.retain,
            expires_at: message.expires_at.map(Instant),
            id,
            room: Room::Unasked,
        }
    }
}

/// The QoS with this number; what is none counts as the highest.
pub(crate) fn qos_from(number: u8) -> QoS {
    match number {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// A message that is kept. Stored once, however many Sessions wait for it.
#[derive(Debug)]
pub(crate) struct Message {
    /// Topic Name, properties and payload, one after the other.
    bytes: Box<[u8]>,
    topic_bytes: u32,
    properties_bytes: u32,
    message_expiry_at: Option<u32>,
    qos: QoS,
    retain: bool,
    expires_at: MaybeInstant,
    id: Option<MessageId>,
}

impl Message {
    /// One that is shared.
    pub(crate) fn new(incoming: &Incoming<'_>) -> Arc<Self> {
        Arc::new(Self::alone(incoming))
    }

    /// One that has one owner.
    pub(crate) fn alone(incoming: &Incoming<'_>) -> Self {
        let mut bytes = Vec::with_capacity(incoming.bytes());
        bytes.extend_from_slice(incoming.topic_name.as_bytes());
        for piece in incoming.properties.pieces() {
            bytes.extend_from_slice(piece);
        }
        bytes.extend_from_slice(incoming.payload);
        Self {
            bytes: bytes.into_boxed_slice(),
            topic_bytes: incoming.topic_name.len() as u32,
            properties_bytes: incoming.properties.len() as u32,
            message_expiry_at: incoming.properties.message_expiry_at().map(|at| at as u32),
            qos: incoming.qos,
            retain: incoming.retain,
            expires_at: incoming.expires_at.into(),
            id: incoming.id,
        }
    }

    /// One that the store has kept.
    pub(crate) fn from_stored(stored: &StoredMessage) -> Arc<Self> {
        Self::new(&Incoming::from_store(stored.message(), stored.id))
    }

    /// The store's name for it.
    pub(crate) fn id(&self) -> Option<MessageId> {
        self.id
    }

    pub(crate) fn incoming(&self) -> Incoming<'_> {
        let (topic, rest) = self.bytes.split_at(self.topic_bytes as usize);
        let (properties, payload) = rest.split_at(self.properties_bytes as usize);
        Incoming {
            topic_name: std::str::from_utf8(topic).expect("the bytes were copied from a string"),
            properties: ForwardProperties::from_parts(properties, self.message_expiry_at.map(|at| at as usize)),
            payload,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at.get(),
            room: Room::Unasked,
            id: self.id,
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[(self.topic_bytes + self.properties_bytes) as usize..]
    }

    /// What it is charged with in queues.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// A message that waits for, or is on its way to, one Session.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) body: Body,
    /// RETAIN of the PUBLISH.
    pub(crate) retain: bool,
    pub(crate) identifiers: Identifiers,
    /// The whole filter of the Shared Subscription it came by, which gets it back should the Session end.
    pub(crate) group: Option<Arc<str>>,
    /// It must not go out before the store has reached this.
    pub(crate) ready_at: Position,
}

/// Where a queued message is.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// In memory.
    Here(Arc<Message>),
    /// In the store only.
    Stored(Stored),
}

/// What has to be known of a message that is in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) id: MessageId,
    pub(crate) bytes: u32,
    pub(crate) expires_at: MaybeInstant,
}

impl Queued {
    /// What it is charged with.
    pub(crate) fn bytes(&self) -> usize {
        match &self.body {
            Body::Here(message) => message.bytes(),
            Body::Stored(stored) => stored.bytes as usize,
        }
    }

    pub(crate) fn expires_at(&self) -> Option<Instant> {
        match &self.body {
            Body::Here(message) => message.expires_at.get(),
            Body::Stored(stored) => stored.expires_at.get(),
        }
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// What the store knows it as for its Session: the message, and which copy of it.
    pub(crate) fn kept(&self) -> Option<(MessageId, u32)> {
        Some((self.id()?, pantala_store::copy_of(self.group.as_deref())))
    }

    pub(crate) fn id(&self) -> Option<MessageId> {
        match &self.body {
            Body::Here(message) => message.id,
            Body::Stored(stored) => Some(stored.id),
        }
    }
}

/// Subscription Identifiers of the subscriptions that a message matched: hardly ever more than one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Identifiers {
    #[default]
    None,
    One(NonZeroU32),
    Many(Box<[NonZeroU32]>),
}

impl Identifiers {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[NonZeroU32] {
        match self {
            Self::None => &[],
            Self::One(identifier) => std::slice::from_ref(identifier),
            Self::Many(identifiers) => identifiers,
        }
    }

    /// Adds one more.
    pub(crate) fn add(&mut self, identifier: NonZeroU32) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(identifier),
            Self::One(first) => Self::Many([first, identifier].into()),
            Self::Many(many) => Self::Many(many.iter().copied().chain([identifier]).collect()),
        };
    }
}

impl From<Option<NonZeroU32>> for Identifiers {
    #[inline]
    fn from(identifier: Option<NonZeroU32>) -> Self {
        identifier.map_or(Self::None, Self::One)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use pantala_proto::{Property, PublishProperties};

    use super::*;

    #[test]
    fn no_more_of_a_life_is_forwarded_than_came() {
        let mut section = Vec::new();
        Property::TopicAlias(NonZeroU16::MIN).encode(&mut section);
        Property::MessageExpiryInterval(300).encode(&mut section);
        for section in [&section[..], &section[3..]] {
            let incoming = Incoming {
                topic_name: "t",
                properties: PublishProperties::new(section).unwrap().forward(),
                payload: b"",
                qos: QoS::AtLeastOnce,
                retain: false,
                expires_at: Some(Instant(1_000).after_seconds(300)),
                id: None,
                room: Room::Unasked,
            };
            let left = |at| incoming.message_expiry_interval(Instant(at));
            // The clock of the receiver's worker is a little behind.
            assert_eq!(
                (left(999), left(1_000), left(1_001), left(2_000)),
                (Some(300), Some(300), Some(300), Some(299))
            );
        }
    }
}
