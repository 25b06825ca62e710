//! R1, R2, R3, S3 and T4: each delivery on its own. Was it published so, and may this client have it?

use std::collections::HashSet;

use pantala_proto::QoS;

use super::index::{Index, Interval};
use super::{Class, Promise, Violation};
use crate::history::{Event, MessageFacts, MessageId, Purpose, Reception, TopicNumber};
use crate::payload::Content;

/// Looks at every delivery.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let deletes = index.messages().filter(|(_, facts, _)| facts.purpose == Purpose::Delete);
    let deleted: HashSet<TopicNumber> = deletes.map(|(_, facts, _)| facts.topic).collect();
    for (at, moment) in index.moments() {
        let Event::Received(reception) = moment.event else { continue };
        let mut broken = |promise, class, message, what: String| {
            found.push(Violation { promise, class, at, client: Some(reception.client), message, what });
        };
        let message = match reception.content {
            Content::Message(message) => message,
            Content::Empty if deleted.contains(&reception.topic) => continue,
            Content::Empty => {
                broken(Promise::R1, Class::Other, None, "an empty message that nobody published".into());
                continue;
            }
            Content::Damaged => {
                broken(Promise::R1, Class::Other, None, "a message that is not as it was published".into());
                continue;
            }
        };
        let published = index.trace(message).first_sent.is_some_and(|sent| sent < at);
        let Some(facts) = index.history.cast.message(message).filter(|_| published) else {
            broken(Promise::R1, Class::Other, Some(message), format!("{message} was not published yet"));
            continue;
        };
        if facts.topic != reception.topic {
            broken(Promise::R1, Class::Other, Some(message), format!("{message} came on another topic"));
            continue;
        }
        let Some(subscription) = index.history.cast.subscription(reception.client, reception.topic) else {
            broken(Promise::R2, Class::Other, Some(message), format!("{message} came without a subscription"));
            continue;
        };
        let qos = index.effective_qos(reception.client, subscription, facts);
        if qos != reception.qos {
            let what = format!("{message} came at QoS {}, not {}", reception.qos as u8, qos as u8);
            broken(Promise::R1, Class::Other, Some(message), what);
        }
        check_subscribed(index, at, reception, (message, facts), subscription, found);
    }
}

/// There is a moment at which the message may have been routed and the subscription may have been there.
fn check_subscribed(
    index: &Index<'_>,
    at: usize,
    reception: Reception,
    (message, facts): (MessageId, &MessageFacts),
    subscription: usize,
    found: &mut Vec<Violation>,
) {
    let trace = index.trace(message);
    let (Some(first_sent), client) = (trace.first_sent, reception.client) else { return };
    let intervals = index.intervals(client, subscription);
    let mut broken = |promise, class, what: String| {
        found.push(Violation { promise, class, at, client: Some(client), message: Some(message), what });
    };
    if reception.retain {
        // A Retained Message is older than the subscription, unless it was under way together with SUBSCRIBE.
        let live = intervals.iter().any(|interval| {
            interval.granted.is_some_and(|granted| granted < first_sent)
                && interval.gone.is_none_or(|gone| at < gone)
                && interval.granted.is_some_and(|granted| index.reconnections(client, granted, at) == 0)
        });
        if live || !facts.retain {
            broken(Promise::T4, Class::Other, format!("{message} says RETAIN, and comes live"));
        }
        return;
    }
    // A QoS 2 message may be routed as late as its PUBREL (v5 section 4.3.3); for a QoS 0 message or a Will nobody knows.
    let routed_until = match facts.qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce => trace.accepted,
        QoS::ExactlyOnce => trace.completed,
    };
    let overlaps = |interval: &Interval| {
        interval.gone.is_none_or(|gone| first_sent < gone) && routed_until.is_none_or(|until| interval.asked < until)
    };
    // What was queued may come after UNSUBACK, but not after its Session.
    let dead = |interval: &Interval| interval.gone_with_session && interval.gone.is_some_and(|gone| gone < at);
    if intervals.iter().any(|interval| overlaps(interval) && !dead(interval)) {
        return;
    }
    let removed = intervals.iter().rev().find_map(|interval| interval.gone.filter(|gone| *gone < first_sent));
    if intervals.iter().any(overlaps) {
        broken(Promise::R3, Class::Resurrected, format!("{message} is of an earlier Session"));
    } else if let Some(gone) = removed {
        let what = format!("{message} came although the subscription had been removed");
        if index.crashes(gone, at) > 0 {
            broken(Promise::S3, Class::Resurrected, what);
        } else {
            broken(Promise::R2, Class::Other, what);
        }
    } else {
        broken(Promise::R2, Class::Other, format!("{message} is older than the subscription"));
    }
}
