//! O1 and O2: the order of first deliveries, and of retransmissions.
//!
//! First deliveries are compared within the QoS of publishing: a broker may route a QoS 2 message as late as its PUBREL, and
//! so after a QoS 1 message that was published later.

use std::collections::HashMap;

use pantala_proto::QoS;

use super::index::Index;
use super::{Class, Promise, Violation};
use crate::history::{ClientNumber, Event, MessageId, Purpose};
use crate::payload::Content;

#[derive(Default)]
struct Connection {
    /// Where it began.
    began: usize,
    /// A message has come that the client had not seen before.
    has_newer: bool,
    /// Where the last message that came again had come first.
    last_repetition: Option<usize>,
}

/// Walks through all deliveries.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut connections: Vec<Connection> = index.clients().map(|_| Connection::default()).collect();
    let mut highest: HashMap<(ClientNumber, usize, u16, QoS), u32> = HashMap::new();
    for (at, moment) in index.moments() {
        let reception = match moment.event {
            Event::Connected { client, .. } => {
                connections[usize::from(client)] = Connection { began: at, ..Connection::default() };
                continue;
            }
            Event::Received(reception) if !reception.retain && reception.qos != QoS::AtMostOnce => reception,
            _ => continue,
        };
        let client = reception.client;
        let Content::Message(message) = reception.content else { continue };
        let Some(facts) = index.history.cast.message(message) else { continue };
        let Some(place) = index.history.cast.subscription(client, facts.topic) else { continue };
        let subscription = &index.history.cast.clients[usize::from(client)].subscriptions[place];
        if facts.purpose != Purpose::Ordinary || subscription.share.is_some() {
            continue;
        }
        let mut broken = |promise, what: String| {
            let (class, message) = (Class::Reordered, Some(message));
            found.push(Violation { promise, class, at, client: Some(client), message, what });
        };
        let connection = &mut connections[usize::from(client)];
        let tally = index.tally(client, message);
        if tally.first == at {
            connection.has_newer = true;
            let highest = highest.entry((client, place, message.publisher, facts.qos)).or_insert(0);
            if *highest > message.sequence {
                broken(Promise::O1, format!("{message} came after {}:{}", message.publisher, *highest));
            }
            *highest = message.sequence.max(*highest);
        } else if tally.first < connection.began && has_one_place(index, message, facts.qos) {
            if connection.has_newer {
                broken(Promise::O2, format!("{message} is repeated after a newer message"));
            } else if connection.last_repetition.is_some_and(|last| last > tally.first) {
                broken(Promise::O2, format!("{message} is repeated after one that had come after it"));
            }
            connection.last_repetition = Some(tally.first);
        }
    }
}

/// Whether a message stands in one place of the order: what its publisher sent twice may be there twice, unless at QoS 2 no
/// broker that had not accepted it yet has gone in between.
fn has_one_place(index: &Index<'_>, message: MessageId, qos: QoS) -> bool {
    let trace = index.trace(message);
    let known = trace.first_sent.zip(trace.accepted).is_some_and(|(sent, accepted)| index.crashes(sent, accepted) == 0);
    trace.sends == 1 || qos == QoS::ExactlyOnce && known
}
