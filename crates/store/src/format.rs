//! What stands in the log: keys and values, byte by byte as `docs/format.md` has them.
//!
//! A value begins with a byte of flags or ends where its entry ends, so a later version can tell its own from these. Numbers
//! are varints (seven bits a byte, the lowest first) unless their width is given; widths are big-endian, so that keys of
//! one Session sort together.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::codec::{Reader, put_option, put_text, put_varint};
use crate::record::{Kept, Message, MessageId, Owed, Owner, Publisher, Receiver, Session, SessionNumber, Stage, Will};

/// What a key names: the kind of an entry in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// How long the broker has run: see [`Clock`](crate::Clock).
    Clock = 1,
    /// A Session.
    Session = 2,
    /// Its Will.
    Will = 3,
    /// A subscription.
    Subscription = 4,
    /// A QoS 2 Packet Identifier of a message from the client.
    Inbound = 5,
    /// An exchange with the client.
    Outbound = 6,
    /// A message and the Sessions that it is owed to.
    Message = 7,
    /// A Session that a message has gone to in place of another.
    Receiver = 8,
    /// A Session that a message is not owed to any more, while it is to others.
    Settled = 9,
    /// A Retained Message.
    Retained = 10,
    /// The user that a Session belongs to.
    Owner = 11,
    /// Who published a Retained Message.
    Publisher = 12,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Clock,
        Self::Session,
        Self::Will,
        Self::Subscription,
        Self::Inbound,
        Self::Outbound,
        Self::Message,
        Self::Receiver,
        Self::Settled,
        Self::Retained,
        Self::Owner,
        Self::Publisher,
    ];

    /// Its name, for people and tools.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Session => "session",
            Self::Will => "will",
            Self::Subscription => "subscription",
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Message => "message",
            Self::Receiver => "receiver",
            Self::Settled => "settled",
            Self::Retained => "retained",
            Self::Owner => "owner",
            Self::Publisher => "publisher",
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Key of a Session, a Will or an owner, and the front of the keys of what belongs to a Session.
pub(crate) fn session_key(session: SessionNumber) -> [u8; 8] {
    session.number().to_be_bytes()
}

pub(crate) fn exchange_key(session: SessionNumber, packet_id: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&session_key(session));
    key[8..].copy_from_slice(&packet_id.to_be_bytes());
    key
}

pub(crate) fn message_key(id: MessageId) -> [u8; 8] {
    id.number().to_be_bytes()
}

/// A [`receiver_key`], in place.
pub(crate) struct ReceiverKey {
    bytes: [u8; 20],
    has_copy: bool,
}

impl std::ops::Deref for ReceiverKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..if self.has_copy { 20 } else { 16 }]
    }
}

/// Key of [`Kind::Receiver`] and [`Kind::Settled`]. Most copies are a Session's own, and need no number.
pub(crate) fn receiver_key(id: MessageId, (session, copy): Owed) -> ReceiverKey {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&message_key(id));
    bytes[8..16].copy_from_slice(&session_key(session));
    bytes[16..].copy_from_slice(&copy.to_be_bytes());
    ReceiverKey { bytes, has_copy: copy > 0 }
}

pub(crate) fn read_session_key(key: &[u8]) -> Option<SessionNumber> {
    SessionNumber::from_number(u64::from_be_bytes(key.try_into().ok()?))
}

pub(crate) fn read_exchange_key(key: &[u8]) -> Option<(SessionNumber, u16)> {
    let (session, packet_id) = key.split_at_checked(8)?;
    let packet_id = u16::from_be_bytes(packet_id.try_into().ok()?);
    (packet_id > 0).then_some((read_session_key(session)?, packet_id))
}

pub(crate) fn read_message_key(key: &[u8]) -> Option<MessageId> {
    MessageId::from_number(u64::from_be_bytes(key.try_into().ok()?))
}

pub(crate) fn read_receiver_key(key: &[u8]) -> Option<(MessageId, Owed)> {
    let (id, owed) = key.split_at_checked(8)?;
    let (session, copy) = owed.split_at_checked(8)?;
    let copy = match copy {
        [] => 0,
        copy => Some(u32::from_be_bytes(copy.try_into().ok()?)).filter(|copy| *copy > 0)?,
    };
    Some((read_message_key(id)?, (read_session_key(session)?, copy)))
}

pub(crate) fn read_subscription_key(key: &[u8]) -> Option<(SessionNumber, &str)> {
    let (session, filter) = key.split_at_checked(8)?;
    Some((read_session_key(session)?, std::str::from_utf8(filter).ok()?))
}

// ---- values ---------------------------------------------------------------------------------------------------------

pub(crate) fn put_session(out: &mut Vec<u8>, session: &Session<'_>) {
    put_varint(out, u64::from(session.expiry_interval));
    put_option(out, session.detached_at);
    out.extend_from_slice(session.client_id.as_bytes());
}

pub(crate) fn read_session<'a>(number: SessionNumber, value: &'a [u8]) -> Option<Session<'a>> {
    let mut reader = Reader(value);
    let (expiry_interval, detached_at) = (reader.number()?, reader.option()?);
    Some(Session { number, expiry_interval, detached_at, client_id: std::str::from_utf8(reader.0).ok()? })
}

pub(crate) fn put_owner(out: &mut Vec<u8>, owner: &Owner<'_>) {
    put_text(out, owner.security_domain);
    out.extend_from_slice(owner.user_name.as_bytes());
}

pub(crate) fn read_owner(value: &[u8]) -> Option<Owner<'_>> {
    let mut reader = Reader(value);
    let security_domain = reader.text()?;
    Some(Owner { security_domain, user_name: std::str::from_utf8(reader.0).ok()? })
}

const CERTIFICATE: u8 = 0b0000_0001;
const GRANTED: u8 = 0b0000_0010;
const USER_NAME: u8 = 0b0000_0100;

/// All but the number of the message, which comes before it.
pub(crate) fn put_publisher(out: &mut Vec<u8>, publisher: &Publisher<'_>) {
    let flags = if publisher.certificate { CERTIFICATE } else { 0 }
        | if publisher.granted { GRANTED } else { 0 }
        | if publisher.user_name.is_some() { USER_NAME } else { 0 };
    out.push(flags);
    match publisher.address {
        None => out.push(0),
        Some(IpAddr::V4(address)) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            out.push(16);
            out.extend_from_slice(&address.octets());
        }
    }
    put_text(out, publisher.security_domain);
    if let Some(user_name) = publisher.user_name {
        put_text(out, user_name);
    }
    out.extend_from_slice(publisher.client_id.as_bytes());
}

pub(crate) fn read_publisher(reader: Reader<'_>) -> Option<Publisher<'_>> {
    let mut reader = reader;
    let flags = reader.byte()?;
    let address = match reader.bytes()? {
        [] => None,
        bytes if bytes.len() == 4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        bytes => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    let security_domain = reader.text()?;
    let user_name = if flags & USER_NAME > 0 { Some(reader.text()?) } else { None };
    Some(Publisher {
        security_domain,
        user_name,
        client_id: std::str::from_utf8(reader.0).ok()?,
        address,
        certificate: flags & CERTIFICATE > 0,
        granted: flags & GRANTED > 0,
    })
}

const QOS: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const EXPIRES: u8 = 0b0000_1000;
const PROPERTY_EXPIRY: u8 = 0b0001_0000;
const IDENTIFIERS: u8 = 0b0010_0000;
const GROUP: u8 = 0b0100_0000;

/// All of a message but its payload, which ends the value.
pub(crate) fn put_message_head(out: &mut Vec<u8>, message: &Message<'_>) {
    let flags = message.qos & QOS
        | if message.retain { RETAIN } else { 0 }
        | if message.expires_at.is_some() { EXPIRES } else { 0 }
        | if message.message_expiry_at.is_some() { PROPERTY_EXPIRY } else { 0 };
    out.push(flags);
    if let Some(at) = message.expires_at {
        put_varint(out, at);
    }
    if let Some(at) = message.message_expiry_at {
        put_varint(out, u64::from(at));
    }
    put_text(out, message.topic_name);
    let [head, tail] = message.properties;
    put_varint(out, (head.len() + tail.len()) as u64);
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
}

/// Reads a message whose payload is all that follows.
pub(crate) fn read_message<'a>(reader: Reader<'a>) -> Option<Message<'a>> {
    let mut reader = reader;
    let flags = reader.byte()?;
    let expires_at = if flags & EXPIRES > 0 { Some(reader.varint()?) } else { None };
    let message_expiry_at: Option<u32> = if flags & PROPERTY_EXPIRY > 0 { Some(reader.number()?) } else { None };
    let topic_name = reader.text()?;
    let properties = reader.bytes()?;
    // Whoever sends it writes four bytes behind that.
    if message_expiry_at.is_some_and(|at| properties.len() < at as usize + 5) || flags & QOS == QOS {
        return None;
    }
    Some(Message {
        topic_name,
        properties: [properties, &[]],
        message_expiry_at,
        payload: reader.0,
        qos: flags & QOS,
        retain: flags & RETAIN > 0,
        expires_at,
    })
}

/// The Sessions of a message, sorted by their number: a byte or two for most.
pub(crate) fn put_receivers(out: &mut Vec<u8>, count: usize, receivers: impl Iterator<Item = Receiver>) {
    put_varint(out, count as u64);
    let mut last = 0;
    for receiver in receivers {
        put_varint(out, receiver.session.number().wrapping_sub(last));
        last = receiver.session.number();
        put_receiver(out, &receiver);
    }
}

pub(crate) fn put_receiver(out: &mut Vec<u8>, receiver: &Receiver) {
    let flags = receiver.qos & QOS
        | if receiver.retain { RETAIN } else { 0 }
        | if receiver.identifiers.is_empty() { 0 } else { IDENTIFIERS }
        | if receiver.group.is_some() { GROUP } else { 0 };
    out.push(flags);
    put_varint(out, receiver.order);
    if !receiver.identifiers.is_empty() {
        put_varint(out, receiver.identifiers.len() as u64);
        receiver.identifiers.iter().for_each(|identifier| put_varint(out, u64::from(identifier.get())));
    }
    if let Some(group) = &receiver.group {
        put_text(out, group);
    }
}

pub(crate) fn read_receiver(session: SessionNumber, reader: &mut Reader<'_>) -> Option<Receiver> {
    let flags = reader.byte()?;
    let order = reader.varint()?;
    let mut identifiers = Vec::new();
    if flags & IDENTIFIERS > 0 {
        let count: usize = reader.number()?;
        for _ in 0..count {
            // Each takes a byte at least, so a wrong count ends with the bytes.
            identifiers.push(NonZeroU32::new(reader.number()?)?);
        }
    }
    let group = if flags & GROUP > 0 { Some(Arc::from(reader.text()?)) } else { None };
    if !matches!(flags & QOS, 1 | 2) {
        return None;
    }
    Some(Receiver { session, qos: flags & QOS, retain: flags & RETAIN > 0, order, identifiers, group })
}

/// Reads what [`put_receivers`] wrote; `each` gets them in turn.
pub(crate) fn read_receivers(reader: &mut Reader<'_>, mut each: impl FnMut(Receiver)) -> Option<()> {
    let count: u64 = reader.varint()?;
    let mut last = 0_u64;
    for _ in 0..count {
        last = last.wrapping_add(reader.varint()?);
        each(read_receiver(SessionNumber::from_number(last)?, reader)?);
    }
    Some(())
}

pub(crate) fn put_will(out: &mut Vec<u8>, will: &Will<'_>) {
    put_varint(out, u64::from(will.delay_interval));
    put_option(out, will.message_expiry_interval.map(u64::from));
    put_message_head(out, &will.message);
    out.extend_from_slice(will.message.payload);
}

pub(crate) fn read_will(value: &[u8]) -> Option<Will<'_>> {
    let mut reader = Reader(value);
    let delay_interval = reader.number()?;
    let message_expiry_interval = match reader.option()? {
        Some(seconds) => Some(u32::try_from(seconds).ok()?),
        None => None,
    };
    Some(Will { delay_interval, message_expiry_interval, message: read_message(reader)? })
}

pub(crate) fn put_outbound(out: &mut Vec<u8>, order: u64, stage: Stage, message: Option<Kept>) {
    out.push(match stage {
        Stage::Acknowledgement => 0,
        Stage::PubComp => 1,
    });
    put_varint(out, order);
    put_option(out, message.map(|(message, _)| message.number()));
    if let Some((_, copy)) = message {
        put_varint(out, u64::from(copy));
    }
}

pub(crate) fn read_outbound(value: &[u8]) -> Option<(u64, Stage, Option<Kept>)> {
    let mut reader = Reader(value);
    let stage = match reader.byte()? {
        0 => Stage::Acknowledgement,
        1 => Stage::PubComp,
        _ => return None,
    };
    let order = reader.varint()?;
    let message = match reader.option()?.and_then(MessageId::from_number) {
        Some(message) => Some((message, reader.number()?)),
        None => None,
    };
    Some((order, stage, message))
}

pub(crate) fn put_subscription(out: &mut Vec<u8>, options: u8, identifier: Option<NonZeroU32>) {
    out.push(options);
    put_varint(out, u64::from(identifier.map_or(0, NonZeroU32::get)));
}

pub(crate) fn read_subscription(value: &[u8]) -> Option<(u8, Option<NonZeroU32>)> {
    let mut reader = Reader(value);
    Some((reader.byte()?, reader.identifier()?))
}
