//! What happened in a run: who took part, and every event in the one order in which this process saw them.
//!
//! All clients live in one thread, so the order is exact: what stands before something else was known before it. An event
//! is written when a packet is put into the output of its connection, or taken out of its input; the broker acted
//! after the first and before the second.

use std::fmt;
use std::time::Duration;

use pantala_proto::QoS;

use crate::fault::FaultKind;
use crate::payload::Content;

/// Number of a client, its place in [`Cast::clients`].
pub type ClientNumber = u16;

/// Number of a Topic Name, its place in [`Cast::topics`].
pub type TopicNumber = u16;

/// A topic that nobody publishes on.
pub const UNKNOWN_TOPIC: TopicNumber = TopicNumber::MAX;

/// A message: who publishes it, and the how many-th of that publisher it is, from 0 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// The client that publishes it.
    pub publisher: ClientNumber,
    /// Its number.
    pub sequence: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.publisher, self.sequence)
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be delivered.
    Ordinary,
    /// To delete a Retained Message: without a payload, so nobody can tell it when it comes.
    Delete,
    /// A Will, published by the broker so many seconds after the connection.
    Will {
        /// Will Delay Interval.
        delay: u32,
    },
}

/// What is fixed about a message before it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageFacts {
    /// Where it is published.
    pub topic: TopicNumber,
    /// At which QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Message Expiry Interval in seconds.
    pub expiry: Option<u32>,
    /// What for.
    pub purpose: Purpose,
}

/// A subscription that a client has from time to time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFacts {
    /// Topic Filter, without the share.
    pub filter: String,
    /// The QoS asked for.
    pub qos: QoS,
    /// Share Name, for a Shared Subscription.
    pub share: Option<String>,
}

impl SubscriptionFacts {
    /// The filter as it stands in SUBSCRIBE.
    pub fn whole_filter(&self) -> String {
        match &self.share {
            Some(share) => format!("$share/{share}/{}", self.filter),
            None => self.filter.clone(),
        }
    }
}

/// What is fixed about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// Client Identifier.
    pub client_id: String,
    /// Whether it speaks MQTT 5.
    pub is_v5: bool,
    /// Receive Maximum it announces; None for no limit.
    pub receive_maximum: Option<u16>,
    /// How long its Session outlives a connection; None for ever.
    pub session_expiry: Option<Duration>,
    /// Its subscriptions. No two of them match the same topic.
    pub subscriptions: Vec<SubscriptionFacts>,
}

/// Who takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cast {
    /// Topic Names.
    pub topics: Vec<String>,
    /// Clients.
    pub clients: Vec<ClientFacts>,
    /// The messages of each client, by its number.
    pub messages: Vec<Vec<MessageFacts>>,
}

impl Cast {
    /// The facts about a message, if there is one of that number.
    pub fn message(&self, id: MessageId) -> Option<&MessageFacts> {
        self.messages.get(usize::from(id.publisher))?.get(usize::try_from(id.sequence).ok()?)
    }

    /// The place of the client's subscription that matches the topic.
    pub fn subscription(&self, client: ClientNumber, topic: TopicNumber) -> Option<usize> {
        let name = self.topics.get(usize::from(topic))?;
        let subscriptions = &self.clients.get(usize::from(client))?.subscriptions;
        subscriptions.iter().position(|subscription| matches(&subscription.filter, name))
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client sent DISCONNECT.
    Disconnected,
    /// The client closed it without a word.
    Vanished,
    /// The broker, or its death, closed it.
    Lost,
    /// The client connects anew while it is there: the broker has to close it.
    Superseded,
}

/// A packet with an Application Message, as a client got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// Who.
    pub client: ClientNumber,
    /// Where it was published.
    pub topic: TopicNumber,
    /// Packet Identifier; 0 at QoS 0.
    pub packet_id: u16,
    /// QoS of the packet.
    pub qos: QoS,
    /// DUP.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// What is left of its Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// What the payload turned out to be.
    pub content: Content,
}

/// What the broker's process says it has dropped since its start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Expired before they were delivered.
    pub expired: u32,
    /// The Session ended before they were delivered.
    pub session_ended: u32,
    /// Refused to their publisher.
    pub refused: u32,
    /// For reasons that nobody here gives: nothing is published at QoS 0, no queue or packet is too large, all is permitted.
    pub other: u32,
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expired, session_ended, refused, other } = self;
        write!(f, "{expired} expired, {session_ended} with their Session, {refused} refused, {other} others")
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields say what the variants are about")]
pub enum Event {
    /// CONNECT sent.
    Connecting { client: ClientNumber, clean_start: bool },
    /// CONNACK came.
    Connected { client: ClientNumber, session_present: bool },
    /// A connection that had sent CONNECT ended.
    Ended { client: ClientNumber, ending: Ending },
    /// SUBSCRIBE sent for the subscription at this place.
    Subscribing { client: ClientNumber, subscription: u8 },
    /// SUBACK came.
    Subscribed { client: ClientNumber, subscription: u8, granted: Option<QoS> },
    /// UNSUBSCRIBE sent.
    Unsubscribing { client: ClientNumber, subscription: u8 },
    /// UNSUBACK came.
    Unsubscribed { client: ClientNumber, subscription: u8 },
    /// PUBLISH sent, or for a Will the CONNECT that carries it; again for each repetition.
    Published { message: MessageId },
    /// PUBACK or PUBREC came, with success.
    Accepted { message: MessageId },
    /// PUBACK or PUBREC came with an error, so the message is not owed to anybody.
    Refused { message: MessageId },
    /// The publisher gives up: its Session is gone, so it cannot tell whether the broker has the message.
    Abandoned { message: MessageId },
    /// PUBCOMP came, after so many PUBREL; `found` is whether the broker knew the Packet Identifier.
    Completed { message: MessageId, releases: u8, found: bool },
    /// PUBLISH came.
    Received(Reception),
    /// A packet other than DISCONNECT came on a connection after CONNACK had come on the one that took its place.
    Stale { client: ClientNumber, content: Option<Content> },
    /// A connection is still open although another has taken its place.
    Outlived { client: ClientNumber },
    /// PUBACK or PUBCOMP sent: the Packet Identifier is free again.
    Freed { client: ClientNumber, packet_id: u16 },
    /// A fresh client asks for Retained Messages.
    ProbeBegan { probe: u16 },
    /// It was given this one.
    ProbeFound { probe: u16, topic: TopicNumber, content: Content },
    /// It has been given all.
    ProbeEnded { probe: u16 },
    /// A fault begins.
    Fault { kind: FaultKind },
    /// The broker's process is gone.
    BrokerGone,
    /// The broker ended although nobody wanted it to.
    BrokerDied,
    /// The broker accepts connections again, so long after it was started.
    BrokerBack { after: Duration },
    /// The client is connected, and nothing came for a while: what is owed to it should have come, what it sent should
    /// have been answered.
    Settled { client: ClientNumber },
    /// The broker was asked what it has dropped.
    Counted(Drops),
    /// A cycle begins.
    Cycle { number: u32 },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Connecting { client, clean_start } => {
                write!(f, "client {client} CONNECT{}", if clean_start { ", Clean Start" } else { "" })
            }
            Self::Connected { client, session_present } => {
                write!(f, "client {client} CONNACK{}", if session_present { ", Session Present" } else { "" })
            }
            Self::Ended { client, ending } => write!(f, "client {client} ended: {ending:?}"),
            Self::Subscribing { client, subscription } => write!(f, "client {client} SUBSCRIBE {subscription}"),
            Self::Subscribed { client, subscription, granted } => {
                write!(f, "client {client} SUBACK {subscription}: {granted:?}")
            }
            Self::Unsubscribing { client, subscription } => write!(f, "client {client} UNSUBSCRIBE {subscription}"),
            Self::Unsubscribed { client, subscription } => write!(f, "client {client} UNSUBACK {subscription}"),
            Self::Published { message } => write!(f, "{message} published"),
            Self::Accepted { message } => write!(f, "{message} accepted"),
            Self::Refused { message } => write!(f, "{message} refused"),
            Self::Abandoned { message } => write!(f, "{message} given up"),
            Self::Completed { message, releases, found } => {
                write!(f, "{message} PUBCOMP after {releases} PUBREL{}", if found { "" } else { ", unknown" })
            }
            Self::Received(reception) => {
                let Reception { client, topic, packet_id, qos, dup, retain, expiry, content } = reception;
                write!(f, "client {client} got {content} as {packet_id}, QoS {}, topic {topic}", qos as u8)?;
                f.write_str(if dup { ", DUP" } else { "" })?;
                f.write_str(if retain { ", RETAIN" } else { "" })?;
                expiry.map_or(Ok(()), |seconds| write!(f, ", {seconds} s left"))
            }
            Self::Stale { client, content } => {
                let what = content.map_or_else(|| "a packet".to_owned(), |content| content.to_string());
                write!(f, "client {client} got {what} on its old connection")
            }
            Self::Outlived { client } => write!(f, "client {client} still has its old connection"),
            Self::Freed { client, packet_id } => write!(f, "client {client} frees {packet_id}"),
            Self::ProbeBegan { probe } => write!(f, "probe {probe} asks"),
            Self::ProbeFound { probe, topic, content } => write!(f, "probe {probe} got {content}, topic {topic}"),
            Self::ProbeEnded { probe } => write!(f, "probe {probe} has all"),
            Self::Fault { kind } => write!(f, "fault: {kind}"),
            Self::BrokerGone => f.write_str("broker gone"),
            Self::BrokerDied => f.write_str("broker died of itself"),
            Self::BrokerBack { after } => write!(f, "broker back after {after:.3?}"),
            Self::Settled { client } => write!(f, "client {client} settled"),
            Self::Counted(drops) => write!(f, "dropped: {drops}"),
            Self::Cycle { number } => write!(f, "cycle {number}"),
        }
    }
}

/// An event with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the beginning of the history, on the monotonic clock.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// Who took part, and what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Who took part.
    pub cast: Cast,
    /// What happened, in order.
    pub moments: Vec<Moment>,
}

impl History {
    /// Adds a message to the cast.
    pub fn add_message(&mut self, publisher: ClientNumber, facts: MessageFacts) -> MessageId {
        let place = usize::from(publisher);
        if self.cast.messages.len() <= place {
            self.cast.messages.resize(place + 1, Vec::new());
        }
        let messages = &mut self.cast.messages[place];
        messages.push(facts);
        // A run has far fewer messages than four thousand millions.
        MessageId { publisher, sequence: messages.len() as u32 - 1 }
    }

    /// Whom and what an event is about, for showing what happened around something.
    pub fn concerns(&self, event: &Event, client: Option<ClientNumber>, message: Option<MessageId>) -> bool {
        match *event {
            Event::Published { message: other }
            | Event::Accepted { message: other }
            | Event::Refused { message: other }
            | Event::Abandoned { message: other }
            | Event::Completed { message: other, .. } => message == Some(other),
            Event::Received(reception) => {
                let about = message.is_some_and(|message| reception.content == Content::Message(message));
                client.is_none_or(|client| reception.client == client) && about
            }
            Event::Connecting { client: other, .. }
            | Event::Connected { client: other, .. }
            | Event::Ended { client: other, .. }
            | Event::Subscribing { client: other, .. }
            | Event::Subscribed { client: other, .. }
            | Event::Unsubscribing { client: other, .. }
            | Event::Unsubscribed { client: other, .. }
            | Event::Stale { client: other, .. }
            | Event::Outlived { client: other }
            | Event::Settled { client: other } => {
                client == Some(other) || message.is_some_and(|message| message.publisher == other)
            }
            Event::Freed { .. } => false,
            Event::ProbeFound { topic, .. } => {
                let facts = message.and_then(|message| self.cast.message(message));
                facts.is_some_and(|facts| facts.retain && facts.topic == topic)
            }
            Event::ProbeBegan { .. } | Event::ProbeEnded { .. } => {
                message.and_then(|message| self.cast.message(message)).is_some_and(|facts| facts.retain)
            }
            Event::Fault { .. }
            | Event::BrokerGone
            | Event::BrokerDied
            | Event::BrokerBack { .. }
            | Event::Counted(_)
            | Event::Cycle { .. } => true,
        }
    }
}

/// Whether a well-formed filter without a share matches a Topic Name (v5 section 4.7).
pub fn matches(filter: &str, topic_name: &str) -> bool {
    let mut levels = topic_name.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_level_by_level() {
        for (filter, topic_name, expected) in [
            ("lab/#", "lab/a/b", true),
            ("lab/#", "lab", true),
            ("lab/+/b", "lab/a/b", true),
            ("lab/+", "lab/a/b", false),
            ("lab/a", "lab/a", true),
            ("lab/a/b", "lab/a", false),
            ("other/#", "lab/a", false),
        ] {
            assert_eq!(matches(filter, topic_name), expected, "{filter} {topic_name}");
        }
    }
}
