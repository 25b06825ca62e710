//! H1 and H3: a shared message goes to one member, and to one at least.

use std::collections::BTreeMap;

use pantala_proto::QoS;

use super::index::{Index, is_lasting};
use super::{Class, Promise, Violation};
use crate::history::{ClientNumber, matches};

/// Looks for each message in each group.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let cast = &index.history.cast;
    let mut groups: BTreeMap<String, Vec<(ClientNumber, usize)>> = BTreeMap::new();
    for client in index.clients() {
        for (place, subscription) in cast.clients[usize::from(client)].subscriptions.iter().enumerate() {
            if subscription.share.is_some() {
                groups.entry(subscription.whole_filter()).or_default().push((client, place));
            }
        }
    }
    for (name, members) in groups {
        let filter = &cast.clients[usize::from(members[0].0)].subscriptions[members[0].1].filter;
        let matched: Vec<bool> = cast.topics.iter().map(|topic| matches(filter, topic)).collect();
        // Only when all members are there can it be said that nobody has something.
        let settled = members.iter().map(|(client, _)| index.settled(*client)).min().flatten();
        for (message, facts, trace) in index.messages() {
            if !is_lasting(facts) || !matched[usize::from(facts.topic)] {
                continue;
            }
            let receipts: Vec<_> = members
                .iter()
                .map(|(client, place)| (*client, *place, index.tally(*client, message)))
                .filter(|(.., tally)| tally.total > 0)
                .collect();
            if let (Some(accepted), true) = (trace.accepted, receipts.is_empty()) {
                let owed = members.iter().any(|(client, place)| index.is_owed(*client, *place, trace));
                if owed && settled.is_some_and(|settled| accepted < settled) {
                    found.push(Violation {
                        promise: Promise::H3,
                        class: Class::Lost,
                        at: accepted,
                        client: None,
                        message: Some(message),
                        what: format!("{message} was accepted and came to nobody of {name}"),
                    });
                }
            }
            if let [(.., first), .., (client, place, last)] = &receipts[..] {
                let exactly_once = index.effective_qos(*client, *place, facts) == QoS::ExactlyOnce;
                let routed_again = facts.qos == QoS::AtLeastOnce && trace.sends > 1;
                let crashed = index.crashes(trace.first_sent.unwrap_or(0), first.last.max(last.last)) > 0;
                if exactly_once || !(routed_again || crashed) {
                    found.push(Violation {
                        promise: Promise::H1,
                        class: Class::Duplicated,
                        at: first.first.max(last.first),
                        client: Some(*client),
                        message: Some(message),
                        what: format!("{message} came to {} members of {name}", receipts.len()),
                    });
                }
            }
        }
    }
}
