//! L1: after the fault everything goes on.

use std::time::Duration;

use super::index::Index;
use super::{Class, Promise, Violation};
use crate::history::Event;

/// How long a broker may take until it accepts connections.
const START_MAX: Duration = Duration::from_secs(5);

/// Looks for what is stuck.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut broken = |at, message: Option<crate::history::MessageId>, what: String| {
        let client = message.map(|message| message.publisher);
        found.push(Violation { promise: Promise::L1, class: Class::Other, at, client, message, what });
    };
    for (at, moment) in index.moments() {
        match moment.event {
            Event::BrokerDied => broken(at, None, "the broker ended by itself".into()),
            Event::BrokerBack { after } if after > START_MAX => {
                broken(at, None, format!("the broker took {after:.1?} until it accepted connections"));
            }
            _ => {}
        }
    }
    for (message, _, trace) in index.messages() {
        let Some(settled) = index.settled(message.publisher) else { continue };
        let Some(sent) = trace.last_sent.filter(|sent| *sent < settled) else { continue };
        let is_will =
            index.history.cast.message(message).is_some_and(|facts| {
                facts.qos as u8 == 0 || matches!(facts.purpose, crate::history::Purpose::Will { .. })
            });
        if !is_will && trace.accepted.is_none() && !trace.refused && !trace.abandoned {
            broken(sent, Some(message), format!("{message} was never answered"));
        }
    }
}
