//! Q1a and Q2b: what was accepted and is owed has come.

use pantala_proto::QoS;

use super::index::{Index, is_lasting};
use super::{Class, Promise, Violation};
use crate::history::matches;

/// Looks for each message at each subscription that is not shared.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let cast = &index.history.cast;
    for client in index.clients() {
        let Some(settled) = index.settled(client) else { continue };
        for (place, subscription) in cast.clients[usize::from(client)].subscriptions.iter().enumerate() {
            if subscription.share.is_some() || subscription.qos == QoS::AtMostOnce {
                continue;
            }
            let matched: Vec<bool> = cast.topics.iter().map(|topic| matches(&subscription.filter, topic)).collect();
            for (message, facts, trace) in index.messages() {
                let Some(accepted) = trace.accepted.filter(|accepted| *accepted < settled) else { continue };
                if !is_lasting(facts) || !matched[usize::from(facts.topic)] || !index.is_owed(client, place, trace) {
                    continue;
                }
                if index.tally(client, message).total > 0 {
                    continue;
                }
                let exactly_once = index.effective_qos(client, place, facts) == QoS::ExactlyOnce;
                found.push(Violation {
                    promise: if exactly_once { Promise::Q2b } else { Promise::Q1a },
                    class: Class::Lost,
                    at: accepted,
                    client: Some(client),
                    message: Some(message),
                    what: format!("{message} was accepted and never came"),
                });
            }
        }
    }
}
