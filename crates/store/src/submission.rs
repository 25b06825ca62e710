//! Records on their way from a worker to the commit thread: one buffer for each turn of the worker.
//!
//! The bytes never outlive the process, so they have no version; messages stand in them as they do in the log, and are
//! copied from here straight into it.

use std::num::NonZeroU32;

use crate::codec::{Reader, put_option, put_text, put_varint};
use crate::format;
use crate::record::{MessageId, Receiver, Record, SessionNumber};

/// What a worker hands over at the end of a turn.
#[derive(Debug, Default)]
pub(crate) struct Submission {
    /// Records, one after the other.
    pub(crate) records: Vec<u8>,
    /// Receivers of messages from other workers.
    pub(crate) receivers: Vec<(MessageId, Vec<Receiver>)>,
    /// The largest [`MessageId`] that the worker has given out: nothing with a smaller one is still to come from it.
    pub(crate) given_out: Option<MessageId>,
}

impl Submission {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.receivers.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.receivers.clear();
    }
}

const SESSION: u8 = 1;
const SESSION_ENDED: u8 = 2;
const WILL: u8 = 3;
const WILL_ENDED: u8 = 4;
const SUBSCRIPTION: u8 = 5;
const SUBSCRIPTION_ENDED: u8 = 6;
const PUBLISH: u8 = 7;
const SENT: u8 = 8;
const RELEASED: u8 = 9;
const SETTLED: u8 = 10;
const EXACTLY_ONCE_RELEASED: u8 = 11;
const RETAINED_ENDED: u8 = 12;
const MOVED: u8 = 13;
const OWNER: u8 = 14;

pub(crate) fn put(out: &mut Vec<u8>, record: &Record<'_>) {
    match record {
        Record::Session(session) => {
            out.push(SESSION);
            put_varint(out, session.number.number());
            sized(out, |out| format::put_session(out, session));
        }
        Record::SessionEnded { session } => {
            out.push(SESSION_ENDED);
            put_varint(out, session.number());
        }
        Record::Will { session, will } => {
            out.push(WILL);
            put_varint(out, session.number());
            sized(out, |out| format::put_will(out, will));
        }
        Record::WillEnded { session } => {
            out.push(WILL_ENDED);
            put_varint(out, session.number());
        }
        Record::Owner { session, owner } => {
            out.push(OWNER);
            put_varint(out, session.number());
            // None is nothing, which no owner is.
            sized(out, |out| owner.iter().for_each(|owner| format::put_owner(out, owner)));
        }
        Record::Subscription { session, filter, options, identifier } => {
            out.push(SUBSCRIPTION);
            put_varint(out, session.number());
            put_text(out, filter);
            out.push(*options);
            put_varint(out, u64::from(identifier.map_or(0, NonZeroU32::get)));
        }
        Record::SubscriptionEnded { session, filter } => {
            out.push(SUBSCRIPTION_ENDED);
            put_varint(out, session.number());
            put_text(out, filter);
        }
        Record::Publish(publish) => {
            out.push(PUBLISH);
            put_varint(out, publish.id.number());
            out.push(u8::from(publish.retained) << 1 | u8::from(publish.publisher.is_some()));
            put_varint(out, u64::from(publish.others));
            put_option(out, publish.opens.map(|(session, _)| session.number()));
            put_varint(out, publish.opens.map_or(0, |(_, packet_id)| u64::from(packet_id)));
            put_option(out, publish.will_of.map(SessionNumber::number));
            format::put_receivers(out, publish.receivers.len(), publish.receivers.iter().cloned());
            sized(out, |out| {
                format::put_message_head(out, &publish.message);
                out.extend_from_slice(publish.message.payload);
            });
            if let Some(publisher) = &publish.publisher {
                sized(out, |out| format::put_publisher(out, publisher));
            }
        }
        Record::Sent { session, message, copy, packet_id, order } => {
            out.push(SENT);
            put_varint(out, session.number());
            put_varint(out, message.number());
            put_varint(out, u64::from(*copy));
            put_varint(out, u64::from(*packet_id));
            put_varint(out, *order);
        }
        Record::Released { session, message, copy, packet_id, order } => {
            out.push(RELEASED);
            put_varint(out, session.number());
            put_option(out, message.map(MessageId::number));
            put_varint(out, u64::from(*copy));
            put_varint(out, u64::from(*packet_id));
            put_varint(out, *order);
        }
        Record::Settled { session, message, copy, packet_id } => {
            out.push(SETTLED);
            put_varint(out, session.number());
            put_option(out, message.map(MessageId::number));
            put_varint(out, u64::from(*copy));
            put_varint(out, u64::from(packet_id.unwrap_or(0)));
        }
        Record::ExactlyOnceReleased { session, packet_id } => {
            out.push(EXACTLY_ONCE_RELEASED);
            put_varint(out, session.number());
            put_varint(out, u64::from(*packet_id));
        }
        Record::RetainedEnded { topic_name, message } => {
            out.push(RETAINED_ENDED);
            put_varint(out, message.number());
            put_text(out, topic_name);
        }
        Record::Moved { message, from, copy, to } => {
            out.push(MOVED);
            put_varint(out, u64::from(*copy));
            put_varint(out, message.number());
            put_varint(out, from.number());
            format::put_receivers(out, to.len(), to.iter().cloned());
        }
    }
}

/// Puts the length of what `write` appends before it, in four bytes.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    // A record is one packet at the most, whose length has 28 bits.
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// A record as the commit thread sees it.
#[derive(Debug)]
pub(crate) enum Taken<'a> {
    Session { session: SessionNumber, value: &'a [u8] },
    SessionEnded { session: SessionNumber },
    Will { session: SessionNumber, value: &'a [u8] },
    WillEnded { session: SessionNumber },
    Owner { session: SessionNumber, value: &'a [u8] },
    Subscription { session: SessionNumber, filter: &'a str, options: u8, identifier: Option<NonZeroU32> },
    SubscriptionEnded { session: SessionNumber, filter: &'a str },
    Publish(TakenPublish<'a>),
    Sent { session: SessionNumber, message: MessageId, copy: u32, packet_id: u16, order: u64 },
    Released { session: SessionNumber, message: Option<MessageId>, copy: u32, packet_id: u16, order: u64 },
    Settled { session: SessionNumber, message: Option<MessageId>, copy: u32, packet_id: Option<u16> },
    ExactlyOnceReleased { session: SessionNumber, packet_id: u16 },
    RetainedEnded { topic_name: &'a str, message: MessageId },
    Moved { message: MessageId, from: SessionNumber, copy: u32, to: Vec<Receiver> },
}

#[derive(Debug)]
pub(crate) struct TakenPublish<'a> {
    pub(crate) id: MessageId,
    pub(crate) retained: bool,
    pub(crate) others: u32,
    pub(crate) opens: Option<(SessionNumber, u16)>,
    pub(crate) will_of: Option<SessionNumber>,
    /// Receivers as [`format::put_receivers`] wrote them: read only when the message is complete.
    pub(crate) receivers: Reader<'a>,
    /// The message as it stands in the log.
    pub(crate) message: &'a [u8],
    /// Who published it, as that stands in the log.
    pub(crate) publisher: Option<&'a [u8]>,
}

impl TakenPublish<'_> {
    pub(crate) fn receivers(&self) -> Vec<Receiver> {
        let (mut receivers, mut reader) = (Vec::new(), self.receivers);
        format::read_receivers(&mut reader, |receiver| receivers.push(receiver)).expect(OURS);
        receivers
    }
}

const OURS: &str = "the bytes were written by `put` in this process";

/// Takes the record at the front of `bytes`.
pub(crate) fn take<'a>(bytes: &mut Reader<'a>) -> Taken<'a> {
    take_some(bytes).expect(OURS)
}

fn take_some<'a>(reader: &mut Reader<'a>) -> Option<Taken<'a>> {
    fn session(reader: &mut Reader<'_>) -> Option<SessionNumber> {
        SessionNumber::from_number(reader.varint()?)
    }
    fn message(reader: &mut Reader<'_>) -> Option<MessageId> {
        MessageId::from_number(reader.varint()?)
    }
    fn optional(reader: &mut Reader<'_>) -> Option<Option<MessageId>> {
        Some(reader.option()?.and_then(MessageId::from_number))
    }
    fn sized<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(reader.take(4)?.try_into().ok()?);
        reader.take(length as usize)
    }
    Some(match reader.byte()? {
        SESSION => Taken::Session { session: session(reader)?, value: sized(reader)? },
        SESSION_ENDED => Taken::SessionEnded { session: session(reader)? },
        WILL => Taken::Will { session: session(reader)?, value: sized(reader)? },
        WILL_ENDED => Taken::WillEnded { session: session(reader)? },
        OWNER => Taken::Owner { session: session(reader)?, value: sized(reader)? },
        SUBSCRIPTION => Taken::Subscription {
            session: session(reader)?,
            filter: reader.text()?,
            options: reader.byte()?,
            identifier: reader.identifier()?,
        },
        SUBSCRIPTION_ENDED => Taken::SubscriptionEnded { session: session(reader)?, filter: reader.text()? },
        PUBLISH => {
            let id = message(reader)?;
            let flags = reader.byte()?;
            let retained = flags & 2 > 0;
            let others = reader.number()?;
            let opener = reader.option()?.and_then(SessionNumber::from_number);
            let packet_id = reader.number()?;
            let will_of = reader.option()?.and_then(SessionNumber::from_number);
            let receivers = *reader;
            skip_receivers(reader)?;
            let message = sized(reader)?;
            let publisher = if flags & 1 > 0 { Some(sized(reader)?) } else { None };
            let opens = opener.map(|session| (session, packet_id));
            Taken::Publish(TakenPublish { id, retained, others, opens, will_of, receivers, message, publisher })
        }
        SENT => Taken::Sent {
            session: session(reader)?,
            message: message(reader)?,
            copy: reader.number()?,
            packet_id: reader.number()?,
            order: reader.varint()?,
        },
        RELEASED => Taken::Released {
            session: session(reader)?,
            message: optional(reader)?,
            copy: reader.number()?,
            packet_id: reader.number()?,
            order: reader.varint()?,
        },
        SETTLED => Taken::Settled {
            session: session(reader)?,
            message: optional(reader)?,
            copy: reader.number()?,
            packet_id: Some(reader.number()?).filter(|packet_id| *packet_id > 0),
        },
        EXACTLY_ONCE_RELEASED => Taken::ExactlyOnceReleased { session: session(reader)?, packet_id: reader.number()? },
        RETAINED_ENDED => Taken::RetainedEnded { message: message(reader)?, topic_name: reader.text()? },
        MOVED => {
            let copy = reader.number()?;
            let (message, from, mut to) = (message(reader)?, session(reader)?, Vec::new());
            format::read_receivers(reader, |receiver| to.push(receiver))?;
            Taken::Moved { message, from, copy, to }
        }
        _ => return None,
    })
}

/// Most messages have one receiver without identifiers and groups: those are stepped over without reading them.
fn skip_receivers(reader: &mut Reader<'_>) -> Option<()> {
    format::read_receivers(reader, drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Message, Owner, Publish, Publisher, Session, Will};
    use std::num::NonZeroU64;

    #[test]
    fn records_come_back_in_order() {
        let session = SessionNumber(NonZeroU64::new(7).unwrap());
        let id = MessageId::new(9, 1).unwrap();
        let message = Message {
            topic_name: "a/b",
            properties: [&[2, 0, 0, 0, 9], &[]],
            message_expiry_at: Some(0),
            payload: b"payload",
            qos: 2,
            retain: true,
            expires_at: Some(99),
        };
        let receiver = Receiver {
            session,
            qos: 1,
            retain: true,
            order: 1_000,
            identifiers: vec![NonZeroU32::new(300).unwrap()],
            group: Some("$share/g/a/#".into()),
        };
        let receivers = [receiver.clone(), receiver];
        let publisher = Publisher {
            security_domain: "d",
            user_name: None,
            client_id: "c",
            address: Some([127, 0, 0, 1].into()),
            certificate: false,
            granted: true,
        };
        let publish = Publish {
            id,
            message,
            receivers: &receivers,
            others: 3,
            opens: Some((session, 5)),
            will_of: None,
            retained: true,
            publisher: Some(publisher),
        };
        let detached = Session { number: session, client_id: "c", expiry_interval: 60, detached_at: Some(0) };
        let will = Will { message, message_expiry_interval: Some(0), delay_interval: 4 };
        let mut bytes = Vec::new();
        put(&mut bytes, &Record::Session(detached));
        put(&mut bytes, &Record::Publish(publish));
        put(&mut bytes, &Record::Will { session, will });
        let owner = Owner { security_domain: "d", user_name: "u" };
        put(&mut bytes, &Record::Owner { session, owner: Some(owner) });
        put(&mut bytes, &Record::Owner { session, owner: None });
        put(&mut bytes, &Record::Moved { message: id, from: session, copy: 0, to: &receivers[..1] });
        put(&mut bytes, &Record::Settled { session, message: None, copy: 0, packet_id: Some(3) });
        let mut reader = Reader(&bytes);
        let Taken::Session { value, .. } = take(&mut reader) else { panic!("not a Session") };
        assert_eq!(format::read_session(session, value), Some(detached));
        let Taken::Publish(taken) = take(&mut reader) else { panic!("not a PUBLISH") };
        assert_eq!((taken.id, taken.others, taken.opens, taken.retained), (id, 3, Some((session, 5)), true));
        assert_eq!(taken.receivers(), receivers);
        assert_eq!(format::read_message(Reader(taken.message)), Some(message));
        assert_eq!(format::read_publisher(Reader(taken.publisher.unwrap())), Some(publisher));
        let Taken::Will { value, .. } = take(&mut reader) else { panic!("not a Will") };
        assert_eq!(format::read_will(value), Some(will));
        let Taken::Owner { value, .. } = take(&mut reader) else { panic!("not an owner") };
        assert_eq!(format::read_owner(value), Some(owner));
        assert!(matches!(take(&mut reader), Taken::Owner { value: [], .. }));
        let Taken::Moved { to, .. } = take(&mut reader) else { panic!("not a move") };
        assert_eq!(to, receivers[..1]);
        assert!(matches!(take(&mut reader), Taken::Settled { message: None, packet_id: Some(3), .. }));
        assert!(reader.0.is_empty());
    }
}
