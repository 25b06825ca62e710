//! E2: what does not come and need not come has been counted, under its own name.
//!
//! A process counts from its start, so each count is compared with what was published since the broker was back. Not all
//! that it counts can be seen from here: what it had found in its store may have expired with it, and of what went
//! into a socket nobody read nobody knows. So there is a lower bound for each name, of copies that surely were dropped
//! for that reason, and an upper one, of those that can have been.

use pantala_proto::QoS;

use super::index::{Index, Interval, Trace, is_lasting};
use super::{Class, Promise, Violation};
use crate::fault::FaultKind;
use crate::history::{ClientNumber, Drops, Event, MessageFacts, Purpose};

/// A stretch of the history that one process of the broker has seen.
struct Reign {
    /// It accepted connections.
    began: usize,
    /// It was asked what it had dropped.
    counted: usize,
    /// For each client: all that was due had come.
    settled: Vec<Option<usize>>,
    /// Messages that it refused.
    refused: u32,
    /// The disk was full, or failed.
    disk_failed: bool,
}

/// Compares every count.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let clients = index.clients().count();
    let reign = |began| Reign { began, counted: 0, settled: vec![None; clients], refused: 0, disk_failed: false };
    let mut now = reign(0);
    for (at, moment) in index.moments() {
        match moment.event {
            Event::BrokerBack { .. } => now = reign(at),
            Event::Settled { client } => now.settled[usize::from(client)] = Some(at),
            Event::Refused { .. } => now.refused += 1,
            Event::Fault { kind: FaultKind::Enospc | FaultKind::Eio } => now.disk_failed = true,
            Event::Counted(drops) => {
                now.counted = at;
                judge(index, &now, drops, found);
            }
            _ => {}
        }
    }
}

fn judge(index: &Index<'_>, reign: &Reign, drops: Drops, found: &mut Vec<Violation>) {
    let mut broken = |class, what: String| {
        let (promise, at) = (Promise::E2, reign.counted);
        found.push(Violation { promise, class, at, client: None, message: None, what });
    };
    // What is missing may be on its way yet, and so is looked for again.
    let mut at_least = |name: &str, counted: u32, missing: u32| {
        if counted < missing {
            broken(Class::Lost, format!("{missing} copies {name}, and {counted} are counted so"));
        }
    };
    at_least("expired and never came", drops.expired, expired_at_least(index, reign));
    at_least("went with their Session", drops.session_ended, ended_at_least(index, reign));
    at_least("were refused", drops.refused, reign.refused);
    let mut at_most = |name: &str, counted: u32, most: u32| {
        if counted > most {
            broken(Class::Other, format!("{counted} copies are counted as {name}, of {most}"));
        }
    };
    at_most("expired", drops.expired, expired_at_most(index, reign));
    at_most("dropped with their Session", drops.session_ended, ended_at_most(index, reign));
    // A client before MQTT 5 is refused by the end of its connection.
    at_most("refused", drops.refused, if reign.disk_failed { u32::MAX } else { reign.refused });
    at_most("dropped for reasons that nobody gave", drops.other, 0);
}

/// Messages that have come neither live nor late, although a Session was there for them and its client has been since.
fn expired_at_least(index: &Index<'_>, reign: &Reign) -> u32 {
    copies(index, |client, place, facts, trace, total| {
        let settled = reign.settled[usize::from(client)];
        let is_due =
            since(reign, trace) && settled.is_some_and(|settled| trace.accepted.is_some_and(|at| at < settled));
        u32::from(expires(facts) && total == 0 && is_due && index.is_owed(client, place, trace))
    })
}

/// One for each time that a message may have been routed, but for one that has come: that is sent again however old it is.
fn expired_at_most(index: &Index<'_>, reign: &Reign) -> u32 {
    copies(index, |_, _, facts, trace, total| {
        let may = facts.expiry.is_some() && trace.first_sent.is_some_and(|sent| sent < reign.counted);
        if may { (trace.sends as u32).saturating_sub(u32::from(total > 0)) } else { 0 }
    })
}

/// Messages that a Session had when it ended, and that never came.
fn ended_at_least(index: &Index<'_>, reign: &Reign) -> u32 {
    copies(index, |client, place, facts, trace, total| {
        let had = |interval: &Interval| {
            let has_begun = interval.granted.zip(trace.first_sent).is_some_and(|(granted, sent)| granted < sent);
            let had_it = interval.owed_until.zip(trace.accepted).is_some_and(|(until, accepted)| accepted < until);
            let has_ended = interval.gone.is_some_and(|gone| gone < reign.counted);
            has_begun && had_it && has_ended && interval.session_ended && interval.gone_with_session
        };
        let is_missing = is_lasting(facts) && total == 0 && since(reign, trace);
        u32::from(is_missing && index.intervals(client, place).iter().any(had))
    })
}

/// All, where a Session may have ended; none otherwise.
fn ended_at_most(index: &Index<'_>, reign: &Reign) -> u32 {
    copies(index, |client, place, _, trace, _| {
        let expires = index.history.cast.clients[usize::from(client)].session_expiry.is_some();
        let may_end = index.intervals(client, place).iter().any(|interval| interval.session_ended || expires);
        if may_end && trace.first_sent.is_some_and(|sent| sent < reign.counted) { trace.sends as u32 } else { 0 }
    })
}

/// The sum over all messages and the subscriptions that match them, but for shared ones, of `count`, which is also told how
/// many packets with the message the client got.
fn copies(index: &Index<'_>, count: impl Fn(ClientNumber, usize, &MessageFacts, Trace, usize) -> u32) -> u32 {
    let cast = &index.history.cast;
    let mut sum = 0_u32;
    for client in index.clients() {
        let places: Vec<Option<usize>> = (0..cast.topics.len())
            // There are a few dozen.
            .map(|topic| cast.subscription(client, topic as u16))
            .map(|place| place.filter(|place| cast.clients[usize::from(client)].subscriptions[*place].share.is_none()))
            .collect();
        for (message, facts, trace) in index.messages() {
            if let Some(place) = places[usize::from(facts.topic)]
                && facts.qos != QoS::AtMostOnce
            {
                let total = index.tally(client, message).total;
                sum = sum.saturating_add(count(client, place, facts, trace, total));
            }
        }
    }
    sum
}

fn since(reign: &Reign, trace: Trace) -> bool {
    trace.first_sent.is_some_and(|sent| sent > reign.began) && trace.accepted.is_some_and(|at| at < reign.counted)
}

/// A message that does not last as long as a run.
fn expires(facts: &MessageFacts) -> bool {
    facts.purpose == Purpose::Ordinary && !is_lasting(facts)
}
