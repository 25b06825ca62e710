//! An entry of the log, understood: what recovery and tools read.

use std::num::NonZeroU32;

use crate::Clock;
use crate::codec::Reader;
use crate::format::{self, Kind};
use crate::record::{Message, MessageId, Owner, Publisher, Receiver, Session, SessionNumber, Stage, Will};

/// What one key and its value say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<'a> {
    /// See [`Kind::Clock`].
    Clock(Clock),
    /// See [`Kind::Session`].
    Session(Session<'a>),
    /// See [`Kind::Will`].
    Will {
        /// Whose.
        session: SessionNumber,
        /// Which.
        will: Will<'a>,
    },
    /// See [`Kind::Owner`].
    Owner {
        /// Whose the Session is.
        session: SessionNumber,
        /// Who.
        owner: Owner<'a>,
    },
    /// See [`Kind::Subscription`].
    Subscription {
        /// Whose.
        session: SessionNumber,
        /// Its Topic Filter, with `$share/…/` if it has that.
        filter: &'a str,
        /// Subscription Options as SUBSCRIBE writes them.
        options: u8,
        /// Subscription Identifier.
        identifier: Option<NonZeroU32>,
    },
    /// See [`Kind::Inbound`].
    Inbound {
        /// Whose.
        session: SessionNumber,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// See [`Kind::Outbound`].
    Outbound {
        /// With whom.
        session: SessionNumber,
        /// Packet Identifier.
        packet_id: u16,
        /// Its place among the Session's exchanges.
        order: u64,
        /// What it waits for.
        stage: Stage,
        /// The message and which copy of it, as long as that has not been taken over.
        message: Option<(MessageId, u32)>,
    },
    /// See [`Kind::Message`].
    Message {
        /// Its name.
        id: MessageId,
        /// Sessions that it was owed to when it was written, in the order of their numbers.
        receivers: Vec<Receiver>,
        /// Itself.
        message: Message<'a>,
    },
    /// See [`Kind::Receiver`].
    Receiver {
        /// Of which message.
        message: MessageId,
        /// Who has come.
        receiver: Receiver,
    },
    /// See [`Kind::Settled`].
    Settled {
        /// Which message.
        message: MessageId,
        /// Which copy of it.
        copy: u32,
        /// To whom it is not owed any more.
        session: SessionNumber,
    },
    /// See [`Kind::Retained`].
    Retained {
        /// The name that the message was published under.
        id: MessageId,
        /// Itself.
        message: Message<'a>,
    },
    /// See [`Kind::Publisher`].
    Publisher {
        /// Topic Name of the Retained Message.
        topic_name: &'a str,
        /// The name that the message was published under.
        id: MessageId,
        /// By whom.
        publisher: Publisher<'a>,
    },
}

impl<'a> Entry<'a> {
    /// Reads an entry. None if its kind is unknown, or its key or value not what that kind has: a later version wrote it,
    /// or it is damaged in a way that a checksum does not see.
    pub fn read(kind: u8, key: &'a [u8], value: &'a [u8]) -> Option<Self> {
        Some(match Kind::from_number(kind)? {
            Kind::Clock => Self::Clock(Clock::read(value)?),
            Kind::Session => Self::Session(format::read_session(format::read_session_key(key)?, value)?),
            Kind::Will => Self::Will { session: format::read_session_key(key)?, will: format::read_will(value)? },
            Kind::Owner => Self::Owner { session: format::read_session_key(key)?, owner: format::read_owner(value)? },
            Kind::Subscription => {
                let (session, filter) = format::read_subscription_key(key)?;
                let (options, identifier) = format::read_subscription(value)?;
                Self::Subscription { session, filter, options, identifier }
            }
            Kind::Inbound => {
                let (session, packet_id) = format::read_exchange_key(key)?;
                Self::Inbound { session, packet_id }
            }
            Kind::Outbound => {
                let (session, packet_id) = format::read_exchange_key(key)?;
                let (order, stage, message) = format::read_outbound(value)?;
                Self::Outbound { session, packet_id, order, stage, message }
            }
            Kind::Message => {
                let (mut reader, mut receivers) = (Reader(value), Vec::new());
                format::read_receivers(&mut reader, |receiver| receivers.push(receiver))?;
                Self::Message { id: format::read_message_key(key)?, receivers, message: format::read_message(reader)? }
            }
            Kind::Receiver => {
                let (message, (session, copy)) = format::read_receiver_key(key)?;
                let receiver = format::read_receiver(session, &mut Reader(value))?;
                if receiver.copy() != copy {
                    return None;
                }
                Self::Receiver { message, receiver }
            }
            Kind::Settled => {
                let (message, (session, copy)) = format::read_receiver_key(key)?;
                Self::Settled { message, session, copy }
            }
            Kind::Retained => {
                let mut reader = Reader(value);
                let id = MessageId::from_number(reader.varint()?)?;
                let message = format::read_message(reader)?;
                if message.topic_name.as_bytes() != key {
                    return None;
                }
                Self::Retained { id, message }
            }
            Kind::Publisher => {
                let mut reader = Reader(value);
                let id = MessageId::from_number(reader.varint()?)?;
                let publisher = format::read_publisher(reader)?;
                Self::Publisher { topic_name: std::str::from_utf8(key).ok()?, id, publisher }
            }
        })
    }

    /// What kind it is of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Clock(_) => Kind::Clock,
            Self::Session(_) => Kind::Session,
            Self::Will { .. } => Kind::Will,
            Self::Owner { .. } => Kind::Owner,
            Self::Subscription { .. } => Kind::Subscription,
            Self::Inbound { .. } => Kind::Inbound,
            Self::Outbound { .. } => Kind::Outbound,
            Self::Message { .. } => Kind::Message,
            Self::Receiver { .. } => Kind::Receiver,
            Self::Settled { .. } => Kind::Settled,
            Self::Retained { .. } => Kind::Retained,
            Self::Publisher { .. } => Kind::Publisher,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::put_varint;
    use crate::record::NUMBER_END;

    /// Writes an entry as the ledger does.
    fn written(entry: &Entry<'_>) -> (u8, Vec<u8>, Vec<u8>) {
        let mut value = Vec::new();
        let key = match entry {
            Entry::Clock(clock) => {
                clock.put(&mut value);
                Vec::new()
            }
            Entry::Session(session) => {
                format::put_session(&mut value, session);
                format::session_key(session.number).to_vec()
            }
            Entry::Will { session, will } => {
                format::put_will(&mut value, will);
                format::session_key(*session).to_vec()
            }
            Entry::Owner { session, owner } => {
                format::put_owner(&mut value, owner);
                format::session_key(*session).to_vec()
            }
            Entry::Subscription { session, filter, options, identifier } => {
                format::put_subscription(&mut value, *options, *identifier);
                [&format::session_key(*session), filter.as_bytes()].concat()
            }
            Entry::Inbound { session, packet_id } => format::exchange_key(*session, *packet_id).to_vec(),
            Entry::Outbound { session, packet_id, order, stage, message } => {
                format::put_outbound(&mut value, *order, *stage, *message);
                format::exchange_key(*session, *packet_id).to_vec()
            }
            Entry::Message { id, receivers, message } => {
                format::put_receivers(&mut value, receivers.len(), receivers.iter().cloned());
                put_message(&mut value, message);
                format::message_key(*id).to_vec()
            }
            Entry::Receiver { message, receiver } => {
                format::put_receiver(&mut value, receiver);
                format::receiver_key(*message, (receiver.session, receiver.copy())).to_vec()
            }
            Entry::Settled { message, session, copy } => format::receiver_key(*message, (*session, *copy)).to_vec(),
            Entry::Retained { id, message } => {
                put_varint(&mut value, id.number());
                put_message(&mut value, message);
                message.topic_name.as_bytes().to_vec()
            }
            Entry::Publisher { topic_name, id, publisher } => {
                put_varint(&mut value, id.number());
                format::put_publisher(&mut value, publisher);
                topic_name.as_bytes().to_vec()
            }
        };
        (entry.kind() as u8, key, value)
    }

    fn put_message(out: &mut Vec<u8>, message: &Message<'_>) {
        format::put_message_head(out, message);
        out.extend_from_slice(message.payload);
    }

    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, any::<u64>(), Just(u64::MAX)]
    }

    fn sessions() -> impl Strategy<Value = SessionNumber> {
        prop_oneof![1..200_u64, 1..NUMBER_END].prop_map(|number| SessionNumber(NonZeroU64::new(number).unwrap()))
    }

    fn ids() -> impl Strategy<Value = MessageId> {
        prop_oneof![1..100_000_u64, 1..=u64::MAX].prop_map(|number| MessageId(NonZeroU64::new(number).unwrap()))
    }

    fn identifiers() -> impl Strategy<Value = NonZeroU32> {
        (1..=268_435_455_u32).prop_map(|number| NonZeroU32::new(number).unwrap())
    }

    /// A time: one more than its largest value does not fit, and none is that late.
    fn times() -> impl Strategy<Value = u64> {
        numbers().prop_map(|number| number.min(u64::MAX - 1))
    }

    fn packet_ids() -> impl Strategy<Value = u16> {
        1..=u16::MAX
    }

    /// A message that owns its parts.
    #[derive(Debug, Clone)]
    struct Parts {
        topic_name: String,
        properties: Vec<u8>,
        expiry_at: Option<u32>,
        payload: Vec<u8>,
        qos: u8,
        retain: bool,
        expires_at: Option<u64>,
    }

    impl Parts {
        fn message(&self) -> Message<'_> {
            Message {
                topic_name: &self.topic_name,
                properties: [&self.properties, &[]],
                message_expiry_at: self.expiry_at,
                payload: &self.payload,
                qos: self.qos,
                retain: self.retain,
                expires_at: self.expires_at,
            }
        }
    }

    fn messages() -> impl Strategy<Value = Parts> {
        let bytes = || vec(any::<u8>(), 0..200);
        (".{0,20}", bytes(), option::of(any::<u32>()), bytes(), 0..=2_u8, any::<bool>(), option::of(numbers()))
            .prop_map(|(topic_name, properties, at, payload, qos, retain, expires_at)| {
                // A property of five bytes stands where it points to.
                let places = (properties.len() as u32).checked_sub(4).filter(|places| *places > 0);
                let expiry_at = at.zip(places).map(|(at, places)| at % places);
                Parts { topic_name, properties, expiry_at, payload, qos, retain, expires_at }
            })
    }

    fn receivers() -> impl Strategy<Value = Receiver> {
        let group = option::of("\\$share/.{1,8}/.{0,8}".prop_map(Arc::from));
        (sessions(), 1..=2_u8, any::<bool>(), numbers(), vec(identifiers(), 0..4), group).prop_map(
            |(session, qos, retain, order, identifiers, group)| Receiver {
                session,
                qos,
                retain,
                order,
                identifiers,
                group,
            },
        )
    }

    fn comes_back(entry: &Entry<'_>) -> Result<(), TestCaseError> {
        let (kind, key, value) = written(entry);
        let read = Entry::read(kind, &key, &value);
        prop_assert_eq!(read.as_ref(), Some(entry));
        Ok(())
    }

    proptest! {
        #[test]
        fn a_clock_comes_back(broker in numbers(), wall in numbers()) {
            comes_back(&Entry::Clock(Clock { broker, wall }))?;
        }

        #[test]
        fn a_session_comes_back(
            number in sessions(), client_id in ".{0,30}", expiry_interval in any::<u32>(), detached_at in option::of(times()),
        ) {
            comes_back(&Entry::Session(Session { number, client_id: &client_id, expiry_interval, detached_at }))?;
        }

        #[test]
        fn an_owner_comes_back(session in sessions(), security_domain in ".{0,30}", user_name in ".{0,30}") {
            let owner = Owner { security_domain: &security_domain, user_name: &user_name };
            comes_back(&Entry::Owner { session, owner })?;
        }

        #[test]
        fn a_publisher_comes_back(
            id in ids(), topic_name in ".{0,30}", security_domain in ".{0,30}", user_name in option::of(".{0,30}"),
            client_id in ".{0,30}", address in option::of(any::<std::net::IpAddr>()), certificate in any::<bool>(),
            granted in any::<bool>(),
        ) {
            let publisher = Publisher {
                security_domain: &security_domain,
                user_name: user_name.as_deref(),
                client_id: &client_id,
                address,
                certificate,
                granted,
            };
            comes_back(&Entry::Publisher { topic_name: &topic_name, id, publisher })?;
        }

        #[test]
        fn a_will_comes_back(
            session in sessions(), parts in messages(), message_expiry_interval in any::<Option<u32>>(),
            delay_interval in any::<u32>(),
        ) {
            let will = Will { message: parts.message(), message_expiry_interval, delay_interval };
            comes_back(&Entry::Will { session, will })?;
        }

        #[test]
        fn a_subscription_comes_back(
            session in sessions(), filter in ".{0,30}", options in any::<u8>(), identifier in option::of(identifiers()),
        ) {
            comes_back(&Entry::Subscription { session, filter: &filter, options, identifier })?;
        }

        #[test]
        fn exchanges_come_back(
            session in sessions(), packet_id in packet_ids(), order in numbers(), is_released in any::<bool>(), id in ids(),
            copy in any::<u32>(),
        ) {
            let (stage, message) = match is_released {
                false => (Stage::Acknowledgement, Some((id, copy)).filter(|(id, _)| id.number() < u64::MAX)),
                true => (Stage::PubComp, None),
            };
            comes_back(&Entry::Outbound { session, packet_id, order, stage, message })?;
            comes_back(&Entry::Inbound { session, packet_id })?;
        }

        #[test]
        fn a_message_comes_back(id in ids(), parts in messages(), mut receivers in vec(receivers(), 0..5)) {
            receivers.sort_by_key(|receiver| receiver.session);
            comes_back(&Entry::Message { id, receivers, message: parts.message() })?;
            comes_back(&Entry::Retained { id, message: parts.message() })?;
        }

        #[test]
        fn what_stands_beside_a_message_comes_back(message in ids(), receiver in receivers()) {
            comes_back(&Entry::Settled { message, session: receiver.session, copy: receiver.copy() })?;
            comes_back(&Entry::Receiver { message, receiver })?;
        }
    }
}
