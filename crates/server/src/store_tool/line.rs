//! An entry as a line of JSON.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pantala_store::{Entry, Kind, Message, Receiver, Stage};
use serde::Serialize;

/// What an entry that is not understood is called in place of a kind.
pub(super) const UNREADABLE: &str = "unreadable";

/// A line. Its fields are in the order of the key, then the value. Times are milliseconds of the broker's own clock.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Clock {
        broker_ms: u64,
        wall_ms: u64,
    },
    Session {
        session: u64,
        client_id: &'a str,
        expiry_interval: u32,
        detached_at_ms: Option<u64>,
    },
    Will {
        session: u64,
        delay_interval: u32,
        message_expiry_interval: Option<u32>,
        message: MessageFields<'a>,
    },
    Owner {
        session: u64,
        security_domain: &'a str,
        user_name: &'a str,
    },
    Publisher {
        topic_name: &'a str,
        message_id: u64,
        security_domain: &'a str,
        user_name: Option<&'a str>,
        client_id: &'a str,
        address: Option<IpAddr>,
        certificate: bool,
        granted: bool,
    },
    Subscription {
        session: u64,
        filter: &'a str,
        options: u8,
        identifier: Option<u32>,
    },
    Inbound {
        session: u64,
        packet_id: u16,
    },
    Outbound {
        session: u64,
        packet_id: u16,
        awaits: &'static str,
        order: u64,
        message_id: Option<u64>,
        copy: Option<u32>,
    },
    Message {
        message_id: u64,
        receivers: Vec<ReceiverFields<'a>>,
        message: MessageFields<'a>,
    },
    Receiver {
        message_id: u64,
        #[serde(flatten)]
        receiver: ReceiverFields<'a>,
    },
    Settled {
        message_id: u64,
        session: u64,
        copy: u32,
    },
    Retained {
        message_id: u64,
        message: MessageFields<'a>,
    },
    Unreadable {
        number: u8,
        key_base64: String,
        value_base64: String,
    },
}

#[derive(Serialize)]
pub(super) struct MessageFields<'a> {
    topic_name: &'a str,
    qos: u8,
    retain: bool,
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ReceiverFields<'a> {
    session: u64,
    qos: u8,
    retain: bool,
    order: u64,
    identifiers: Vec<u32>,
    group: Option<&'a str>,
}

impl<'a> MessageFields<'a> {
    fn of(message: &Message<'a>) -> Self {
        let properties = message.properties.concat();
        let payload = std::str::from_utf8(message.payload).ok();
        Self {
            topic_name: message.topic_name,
            qos: message.qos,
            retain: message.retain,
            expires_at_ms: message.expires_at,
            properties_base64: (!properties.is_empty()).then(|| BASE64.encode(properties)),
            payload,
            payload_base64: payload.is_none().then(|| BASE64.encode(message.payload)),
        }
    }
}

impl<'a> ReceiverFields<'a> {
    fn of(receiver: &'a Receiver) -> Self {
        Self {
            session: receiver.session.number(),
            qos: receiver.qos,
            retain: receiver.retain,
            order: receiver.order,
            identifiers: receiver.identifiers.iter().map(|identifier| identifier.get()).collect(),
            group: receiver.group.as_deref(),
        }
    }
}

impl<'a> Line<'a> {
    pub(super) fn of(entry: &'a Entry<'a>) -> Self {
        match entry {
            Entry::Clock(clock) => Self::Clock { broker_ms: clock.broker, wall_ms: clock.wall },
            Entry::Session(session) => Self::Session {
                session: session.number.number(),
                client_id: session.client_id,
                expiry_interval: session.expiry_interval,
                detached_at_ms: session.detached_at,
            },
            Entry::Will { session, will } => Self::Will {
                session: session.number(),
                delay_interval: will.delay_interval,
                message_expiry_interval: will.message_expiry_interval,
                message: MessageFields::of(&will.message),
            },
            Entry::Owner { session, owner } => Self::Owner {
                session: session.number(),
                security_domain: owner.security_domain,
                user_name: owner.user_name,
            },
            Entry::Subscription { session, filter, options, identifier } => Self::Subscription {
                session: session.number(),
                filter,
                options: *options,
                identifier: identifier.map(std::num::NonZeroU32::get),
            },
            Entry::Inbound { session, packet_id } => Self::Inbound { session: session.number(), packet_id: *packet_id },
            Entry::Outbound { session, packet_id, order, stage, message } => Self::Outbound {
                session: session.number(),
                packet_id: *packet_id,
                awaits: match stage {
                    Stage::Acknowledgement => "puback or pubrec",
                    Stage::PubComp => "pubcomp",
                },
                order: *order,
                message_id: message.map(|(message, _)| message.number()),
                copy: message.map(|(_, copy)| copy),
            },
            Entry::Message { id, receivers, message } => Self::Message {
                message_id: id.number(),
                receivers: receivers.iter().map(ReceiverFields::of).collect(),
                message: MessageFields::of(message),
            },
            Entry::Receiver { message, receiver } => {
                Self::Receiver { message_id: message.number(), receiver: ReceiverFields::of(receiver) }
            }
            Entry::Settled { message, session, copy } => {
                Self::Settled { message_id: message.number(), session: session.number(), copy: *copy }
            }
            Entry::Retained { id, message } => {
                Self::Retained { message_id: id.number(), message: MessageFields::of(message) }
            }
            Entry::Publisher { topic_name, id, publisher } => Self::Publisher {
                topic_name,
                message_id: id.number(),
                security_domain: publisher.security_domain,
                user_name: publisher.user_name,
                client_id: publisher.client_id,
                address: publisher.address,
                certificate: publisher.certificate,
                granted: publisher.granted,
            },
        }
    }

    pub(super) fn unreadable(number: u8, key: &[u8], value: &[u8]) -> Self {
        Self::Unreadable { number, key_base64: BASE64.encode(key), value_base64: BASE64.encode(value) }
    }

    /// None: not understood.
    pub(super) fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Clock { .. } => Kind::Clock,
            Self::Session { .. } => Kind::Session,
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
            Self::Unreadable { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use pantala_store::{MessageId, SessionNumber};

    use super::*;

    fn written(entry: &Entry<'_>) -> String {
        serde_json::to_string(&Line::of(entry)).unwrap()
    }

    #[test]
    fn payloads_are_text_if_they_can_be() {
        let id = MessageId(NonZeroU64::new(1).unwrap());
        let mut message = Message {
            topic_name: "t",
            properties: [&[1], &[0]],
            message_expiry_at: None,
            payload: "hot ☕".as_bytes(),
            qos: 1,
            retain: true,
            expires_at: Some(5),
        };
        assert_eq!(
            written(&Entry::Retained { id, message }),
            r#"{"kind":"retained","message_id":1,"message":{"topic_name":"t","qos":1,"retain":true,"expires_at_ms":5,"properties_base64":"AQA=","payload":"hot ☕"}}"#
        );
        message.payload = b"\xff";
        message.properties = [&[], &[]];
        message.expires_at = None;
        assert_eq!(
            written(&Entry::Message { id, receivers: vec![], message }),
            r#"{"kind":"message","message_id":1,"receivers":[],"message":{"topic_name":"t","qos":1,"retain":true,"expires_at_ms":null,"payload_base64":"/w=="}}"#
        );
    }

    #[test]
    fn a_receiver_is_one_flat_line() {
        let number = NonZeroU64::new(3).unwrap();
        let receiver = Receiver {
            session: SessionNumber(number),
            qos: 2,
            retain: false,
            order: 4,
            identifiers: vec![],
            group: Some("$share/g/t".into()),
        };
        assert_eq!(
            written(&Entry::Receiver { message: MessageId(number), receiver }),
            r#"{"kind":"receiver","message_id":3,"session":3,"qos":2,"retain":false,"order":4,"identifiers":[],"group":"$share/g/t"}"#
        );
    }
}
