//! Q1c, Q1d, Q2a–Q2d and S5: the exchange of each message with each subscriber.

use std::collections::{HashMap, HashSet};

use pantala_proto::QoS;

use super::index::Index;
use super::{Class, Promise, Violation};
use crate::history::{ClientNumber, Event, MessageId, Purpose, Reception};
use crate::payload::Content;

/// What a durable client remembers, and what it has on this connection.
#[derive(Default)]
struct Receiver {
    /// QoS 2 identifiers between PUBLISH and PUBCOMP, over connections, with what came under them.
    exactly_once: HashMap<u16, Content>,
    /// QoS 1 identifiers between PUBLISH and PUBACK, on this connection.
    at_least_once: HashMap<u16, Content>,
    /// Identifiers of this connection that count against the Receive Maximum.
    inflight: HashSet<u16>,
    /// The Receive Maximum has been exceeded on this connection; it is said once.
    is_flooded: bool,
    /// QoS 2 messages that the application has seen, and when.
    applied: HashMap<MessageId, usize>,
}

/// Walks through all exchanges.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut receivers: Vec<Receiver> = index.clients().map(|_| Receiver::default()).collect();
    for (at, moment) in index.moments() {
        match moment.event {
            Event::Connected { client, session_present } => {
                let receiver = &mut receivers[usize::from(client)];
                receiver.at_least_once.clear();
                receiver.inflight.clear();
                receiver.is_flooded = false;
                if !session_present {
                    receiver.exactly_once.clear();
                }
            }
            Event::Freed { client, packet_id } => {
                let receiver = &mut receivers[usize::from(client)];
                receiver.at_least_once.remove(&packet_id);
                receiver.exactly_once.remove(&packet_id);
                receiver.inflight.remove(&packet_id);
            }
            Event::Received(reception) => {
                receivers[usize::from(reception.client)].receive(index, at, reception, found);
            }
            Event::Completed { message, releases: 1, found: false } => found.push(Violation {
                promise: Promise::Q2c,
                class: Class::Other,
                at,
                client: Some(message.publisher),
                message: Some(message),
                what: format!("the Packet Identifier of {message} was unknown at its first PUBREL"),
            }),
            _ => {}
        }
    }
    for client in index.clients() {
        check_copies(index, client, found);
    }
}

impl Receiver {
    fn receive(&mut self, index: &Index<'_>, at: usize, reception: Reception, found: &mut Vec<Violation>) {
        let Reception { client, packet_id, qos, content, .. } = reception;
        if qos == QoS::AtMostOnce {
            return;
        }
        let message = match content {
            Content::Message(message) => Some(message),
            Content::Empty | Content::Damaged => None,
        };
        let mut broken = |promise, class, what: String| {
            found.push(Violation { promise, class, at, client: Some(client), message, what });
        };
        let open = self.at_least_once.get(&packet_id).or_else(|| self.exactly_once.get(&packet_id)).copied();
        let on_this_connection = self.inflight.contains(&packet_id);
        let is_repetition = open == Some(content);
        if open.is_some() && !is_repetition {
            broken(Promise::Q2d, Class::Other, format!("Packet Identifier {packet_id} is used while it is open"));
        } else if on_this_connection {
            broken(Promise::Q1d, Class::Duplicated, format!("{packet_id} is sent again on a live connection"));
        }
        self.inflight.insert(packet_id);
        let maximum = index.history.cast.clients[usize::from(client)].receive_maximum;
        if !self.is_flooded && maximum.is_some_and(|maximum| self.inflight.len() > usize::from(maximum)) {
            self.is_flooded = true;
            broken(Promise::S5, Class::Other, format!("{} inflight are too many", self.inflight.len()));
        }
        if qos == QoS::AtLeastOnce {
            self.at_least_once.insert(packet_id, content);
            return;
        }
        self.exactly_once.insert(packet_id, content);
        let Some(message) = message else { return };
        let is_will =
            index.history.cast.message(message).is_some_and(|facts| matches!(facts.purpose, Purpose::Will { .. }));
        // A durable client does not show its application what it has under this identifier. Retained Messages come
        // with each SUBSCRIBE, and Wills have a check of their own.
        if is_repetition || reception.retain || is_will {
            return;
        }
        if let Some(before) = self.applied.insert(message, at) {
            let repeated = index.trace(message).sends > 1;
            let promise = if repeated { Promise::Q2a } else { Promise::Q2b };
            let since = index.time(at).saturating_sub(index.time(before));
            broken(promise, Class::Duplicated, format!("{message} came twice, the second time {since:.1?} later"));
        }
    }
}

/// QoS 1: as many copies as its routings and the reconnections explain.
fn check_copies(index: &Index<'_>, client: ClientNumber, found: &mut Vec<Violation>) {
    for (message, tally) in index.received(client) {
        if tally.total < 2 {
            continue;
        }
        let Some(facts) = index.history.cast.message(message) else { continue };
        let Some(subscription) = index.history.cast.subscription(client, facts.topic) else { continue };
        let trace = index.trace(message);
        let is_will = matches!(facts.purpose, Purpose::Will { .. });
        if index.effective_qos(client, subscription, facts) != QoS::AtLeastOnce || is_will {
            continue;
        }
        let first_sent = trace.first_sent.unwrap_or(0);
        let crashes = index.crashes(first_sent, tally.last);
        // Each PUBLISH at QoS 1 that was not answered may have been routed.
        let routings = if facts.qos == QoS::ExactlyOnce { 1 } else { trace.sends.max(1) };
        let most = routings * (1 + index.reconnections(client, first_sent, tally.last) + crashes);
        // A crash may take what was known of the sending of each.
        let fresh = routings * (1 + crashes);
        let what = if tally.total > most {
            format!("{message} came {} times; {most} can be explained", tally.total)
        } else if tally.fresh > fresh {
            format!("{message} came {} times without DUP; {fresh} can be explained", tally.fresh)
        } else {
            continue;
        };
        let (promise, class, message) = (Promise::Q1c, Class::Duplicated, Some(message));
        found.push(Violation { promise, class, at: tally.last, client: Some(client), message, what });
    }
}
