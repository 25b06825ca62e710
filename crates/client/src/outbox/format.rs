//! What the outbox's log has in it: one entry for a message, one for how far it has got, one for each open Packet Identifier.
//!
//! | kind | key | value |
//! |---|---|---|
//! | `OWNER` | none | version (1 byte), Client Identifier |
//! | `MESSAGE` | place (8) | when it was taken (8), QoS and RETAIN (1), lengths of topic (4) and properties (4), topic, properties, payload |
//! | `EXCHANGE` | place (8) | Packet Identifier (2), PUBREC has come (1) |
//! | `OPENED` | Packet Identifier (2) | none |
//!
//! Numbers are big-endian. An exchange that PUBREC has come for needs no message.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use pantala_proto::{PacketId, QoS};
use pantala_session::Instant;
use pantala_store::log::Batch;

use crate::Message;
use crate::machine::{Kept, Progress, Record};
use crate::message::Properties;

/// Kinds far from those of other logs, so that one that is not an outbox is known.
const OWNER: u8 = 0xC0;
const MESSAGE: u8 = 0xC1;
const EXCHANGE: u8 = 0xC2;
const OPENED: u8 = 0xC3;
const VERSION: u8 = 1;
const RETAIN: u8 = 0x04;
const QOS: u8 = 0x03;

pub(super) fn put_owner(batch: &mut Batch, client_id: &str) {
    batch.put(OWNER, &[], &[&[VERSION], client_id.as_bytes()]);
}

pub(super) fn put_record(batch: &mut Batch, record: &Record) {
    match record {
        Record::Taken { place, since, message } => {
            let retain = if message.retain { RETAIN } else { 0 };
            let section = message.properties.section();
            batch.put(
                MESSAGE,
                &place.to_be_bytes(),
                &[
                    &since.0.to_be_bytes(),
                    &[message.qos as u8 | retain],
                    &length(message.topic_name.as_bytes()),
                    &length(section),
                    message.topic_name.as_bytes(),
                    section,
                    &message.payload,
                ],
            );
        }
        Record::Sent { place, packet_id } => put_exchange(batch, *place, *packet_id, false),
        Record::Unsent { place } => batch.delete(EXCHANGE, &place.to_be_bytes()),
        Record::Answered { place, packet_id } => {
            batch.delete(MESSAGE, &place.to_be_bytes());
            put_exchange(batch, *place, *packet_id, true);
        }
        Record::Settled { place } => {
            batch.delete(MESSAGE, &place.to_be_bytes());
            batch.delete(EXCHANGE, &place.to_be_bytes());
        }
        Record::Opened { packet_id } => batch.put(OPENED, &packet_id.number().to_be_bytes(), &[]),
        Record::Closed { packet_id } => batch.delete(OPENED, &packet_id.number().to_be_bytes()),
    }
}

fn put_exchange(batch: &mut Batch, place: u64, packet_id: PacketId, answered: bool) {
    batch.put(EXCHANGE, &place.to_be_bytes(), &[&packet_id.number().to_be_bytes(), &[u8::from(answered)]]);
}

fn length(bytes: &[u8]) -> [u8; 4] {
    // Neither is ever longer than a packet.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Whose outbox it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Unknown,
    ClientId(String),
    /// Of another version than ours.
    Version(u8),
}

/// The entries of a log, while they are being read.
pub(super) struct Entries {
    pub(super) owner: Owner,
    /// Entries that are not ours, or not whole.
    pub(super) strange: usize,
    /// Entries that are ours.
    pub(super) known: usize,
    messages: BTreeMap<u64, (Instant, Message)>,
    exchanges: BTreeMap<u64, (PacketId, bool)>,
    opened: Vec<PacketId>,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self {
            owner: Owner::Unknown,
            strange: 0,
            known: 0,
            messages: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            opened: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        match self.try_add(kind, key, value) {
            Some(()) => self.known += 1,
            None => self.strange += 1,
        }
    }

    fn try_add(&mut self, kind: u8, key: &[u8], value: &[u8]) -> Option<()> {
        match kind {
            OWNER => {
                let (&version, client_id) = value.split_first()?;
                self.owner = if version == VERSION {
                    Owner::ClientId(std::str::from_utf8(client_id).ok()?.to_owned())
                } else {
                    Owner::Version(version)
                };
            }
            MESSAGE => {
                self.messages.insert(place(key)?, message(value)?);
            }
            EXCHANGE => {
                let (number, answered) = value.split_first_chunk()?;
                let packet_id = PacketId::new(u16::from_be_bytes(*number))?;
                self.exchanges.insert(place(key)?, (packet_id, answered == [1]));
            }
            OPENED => self.opened.push(PacketId::new(u16::from_be_bytes(key.try_into().ok()?))?),
            _ => return None,
        }
        Some(())
    }

    /// What the machine goes on with. What does not go together is taken out of the log by `batch`: it can be there only if a
    /// part of the log was damaged.
    pub(super) fn finish(mut self, batch: &mut Batch) -> (Vec<Kept>, Vec<PacketId>) {
        let mut kept = Vec::with_capacity(self.messages.len());
        let mut in_use = HashSet::new();
        // A Packet Identifier is given out again only when what had it before is over: the later one is right.
        for (place, (packet_id, answered)) in std::mem::take(&mut self.exchanges).into_iter().rev() {
            let progress = match (answered, self.messages.remove(&place)) {
                _ if !in_use.insert(packet_id) => None,
                (true, _) => Some(Progress::Answered { packet_id }),
                (false, Some((since, message))) => Some(Progress::Sent { since, message, packet_id }),
                (false, None) => None,
            };
            match progress {
                Some(progress) => kept.push(Kept { place, progress }),
                None => put_record(batch, &Record::Settled { place }),
            }
        }
        let unsent = self.messages.into_iter();
        kept.extend(
            unsent.map(|(place, (since, message))| Kept { place, progress: Progress::Taken { since, message } }),
        );
        kept.sort_by_key(|kept| kept.place);
        (kept, self.opened)
    }
}

fn place(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes).filter(|place| *place > 0)
}

fn message(value: &[u8]) -> Option<(Instant, Message)> {
    let (since, rest) = value.split_first_chunk()?;
    let (&flags, rest) = rest.split_first()?;
    let (topic_bytes, rest) = rest.split_first_chunk()?;
    let (section_bytes, rest) = rest.split_first_chunk()?;
    let (topic_name, rest) = rest.split_at_checked(u32::from_be_bytes(*topic_bytes) as usize)?;
    let (section, payload) = rest.split_at_checked(u32::from_be_bytes(*section_bytes) as usize)?;
    let message = Message {
        topic_name: std::str::from_utf8(topic_name).ok()?.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::from_bits(flags & QOS).filter(|qos| *qos != QoS::AtMostOnce)?,
        retain: flags & RETAIN != 0,
        properties: Properties::of_section(section),
    };
    Some((Instant(u64::from_be_bytes(*since)), message))
}
