//! O1 and O2: the order of first deliveries, and of retransmissions.
//!
//! First deliveries are compared within the QoS of publishing: a broker may route a QoS 2 message as late as its PUBREL, and
//! so after a QoS 1 message that was published later. Messages that expire are left out: of two copies the first may have.

use std::collections::HashMap;

use pantala_proto::QoS;

use super::index::{Index, is_lasting};
use super::{Class, Promise, Violation};
use crate::history::{ClientNumber, Event, MessageId};
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
        if !is_lasting(facts) || subscription.share.is_some() {
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
            if *highest > message.sequence && !began_before_the_subscription(index, client, place, message) {
                broken(Promise::O1, format!("{message} came after {}:{}", message.publisher, *highest));
            }
            *highest = message.sequence.max(*highest);
        } else if tally.first < connection.began && has_one_place(index, at, tally.first, message, facts.qos) {
            if connection.has_newer {
                broken(Promise::O2, format!("{message} is repeated after a newer message"));
            } else if connection.last_repetition.is_some_and(|last| last > tally.first) {
                broken(Promise::O2, format!("{message} is repeated after one that had come after it"));
            }
            connection.last_repetition = Some(tally.first);
        }
    }
}

/// What its publisher sent twice may be there twice, and then it has two places in the order. At QoS 2 it may when a crash has
/// undone the first routing, which is right as long as nothing was acknowledged.
fn has_one_place(index: &Index<'_>, at: usize, first: usize, message: MessageId, qos: QoS) -> bool {
    let trace = index.trace(message);
    let accepted = trace.accepted.unwrap_or(at);
    // What was on its way when the broker went comes after that in the history.
    let sent = trace.first_sent.map_or(first, |sent| sent.min(first));
    let is_undone = first < accepted && index.crashes(sent, accepted) > 0;
    trace.sends == 1 || (qos == QoS::ExactlyOnce && !is_undone)
}

/// It was sent first when it had not to come, and again later: what was sent behind it the first time may have come.
fn began_before_the_subscription(index: &Index<'_>, client: ClientNumber, place: usize, message: MessageId) -> bool {
    let trace = index.trace(message);
    let Some(first_sent) = trace.first_sent.filter(|_| trace.sends > 1) else { return false };
    let mut intervals = index.intervals(client, place).iter();
    !intervals.any(|interval| {
        interval.granted.is_some_and(|granted| granted < first_sent)
            && interval.owed_until.is_none_or(|until| first_sent < until)
    })
}
