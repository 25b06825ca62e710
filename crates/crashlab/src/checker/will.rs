//! W1 and W2: a Will is published once, when it is due, and not otherwise.

use std::collections::HashMap;
use std::time::Duration;

use super::index::{Index, ending_after};
use super::{Class, Promise, Rules, Violation};
use crate::history::{ClientNumber, Ending, Event, MessageId, Purpose};
use crate::payload::Content;

/// How much later than it is due a Will may come; a pause of the broker is as long as this at most.
const LATE_MAX: Duration = Duration::from_secs(3);

/// Timers and clocks of two processes agree to this.
const EARLY_MAX: Duration = Duration::from_millis(50);

/// A broker that runs reads what it is sent within this.
const READ_WITHIN: Duration = Duration::from_millis(500);

/// After a start of the broker clients have so long to come back before their Wills are published.
const GRACE: Duration = Duration::from_secs(10);

/// How long before a crash a connection must have been there so that the broker had stored its Will.
const STORED_AFTER: Duration = Duration::from_secs(1);

/// Judges every Will at every watcher of it.
pub fn check(index: &Index<'_>, rules: Rules, found: &mut Vec<Violation>) {
    let cast = &index.history.cast;
    let applied = applications(index);
    for (message, facts, trace) in index.messages() {
        let (Purpose::Will { delay }, Some(connecting)) = (facts.purpose, trace.first_sent) else { continue };
        let life = Life::of(index, message.publisher, connecting, Duration::from_secs(u64::from(delay)));
        for watcher in index.clients() {
            let Some(subscription) = cast.subscription(watcher, facts.topic) else { continue };
            let deliveries = applied.get(&(watcher, message)).map_or(&[][..], Vec::as_slice);
            let mut broken = |promise, class, at, what: String| {
                found.push(Violation { promise, class, at, client: Some(watcher), message: Some(message), what });
            };
            if let [_, again, ..] = deliveries {
                broken(
                    Promise::W1,
                    Class::Duplicated,
                    *again,
                    format!("Will {message} came {} times", deliveries.len()),
                );
            }
            if let Some(&at) = deliveries.first() {
                match life.ended {
                    None => broken(Promise::W1, Class::Other, at, format!("Will {message} came of a living client")),
                    Some((ended, _)) if at < ended && !life.is_lost() => {
                        broken(Promise::W1, Class::Other, at, format!("Will {message} came of a living client"));
                    }
                    // What was sent just before a crash or into a pause may not have been read.
                    Some((ended, Ending::Disconnected)) if was_interrupted(index, ended) => {}
                    Some((_, Ending::Disconnected)) => {
                        broken(Promise::W1, Class::Other, at, format!("Will {message} came after DISCONNECT"));
                    }
                    Some((ended, _)) if index.time(at) + EARLY_MAX < index.time(ended) + life.delay => {
                        broken(Promise::W2, Class::Other, at, format!("Will {message} came before its delay was over"));
                    }
                    Some(_) => {}
                }
                continue;
            }
            let watched = index.intervals(watcher, subscription).iter().any(|interval| {
                interval.granted.is_some_and(|granted| granted < connecting) && interval.owed_until.is_none()
            });
            let settled = index.settled(watcher).map(|settled| index.time(settled));
            if let Some(due) = life.due(index, rules).filter(|_| watched)
                && settled.is_some_and(|settled| settled > due + LATE_MAX)
            {
                let at = life.ended.map_or(connecting, |(ended, _)| ended);
                broken(Promise::W1, Class::Lost, at, format!("Will {message} never came"));
            }
        }
    }
}

/// Whether a fault came so soon after a place that the broker may not have read what was sent there.
fn was_interrupted(index: &Index<'_>, from: usize) -> bool {
    let until = index.time(from) + READ_WITHIN;
    let mut after = index.moments().skip(from).take_while(|(_, moment)| moment.at < until);
    let mut paused = index.moments().take(from).rev().take_while(|(_, moment)| moment.at + LATE_MAX > index.time(from));
    let is_fault = |event| matches!(event, Event::BrokerGone | Event::BrokerDied | Event::Fault { .. });
    after.any(|(_, moment)| is_fault(moment.event)) || paused.any(|(_, moment)| is_fault(moment.event))
}

/// The connection that a Will belongs to.
struct Life {
    connected: Option<usize>,
    ended: Option<(usize, Ending)>,
    /// The next CONNECT of the client.
    back: Option<usize>,
    delay: Duration,
    /// Of its Session.
    expiry: Option<Duration>,
}

impl Life {
    fn of(index: &Index<'_>, client: ClientNumber, connecting: usize, delay: Duration) -> Self {
        let ended = ending_after(index.history, client, connecting);
        let until = ended.map_or(index.history.moments.len(), |(at, _)| at);
        let moments = &index.history.moments;
        let connected = (connecting..until)
            .find(|at| matches!(moments[*at].event, Event::Connected { client: other, .. } if other == client));
        let back = (until..moments.len())
            .find(|at| matches!(moments[*at].event, Event::Connecting { client: other, .. } if other == client));
        let expiry = index.history.cast.clients[usize::from(client)].session_expiry;
        Self { connected, ended, back, delay, expiry }
    }

    fn is_lost(&self) -> bool {
        matches!(self.ended, Some((_, Ending::Lost)))
    }

    /// When the Will surely has to come, None if it need not.
    fn due(&self, index: &Index<'_>, rules: Rules) -> Option<Duration> {
        let (connected, (ended, ending)) = (self.connected?, self.ended?);
        let due = index.time(ended) + self.delay;
        let stays_away = |until: Duration| self.back.is_none_or(|back| index.time(back) > until);
        let crash = index.moments().skip(connected).find(|(_, moment)| moment.event == Event::BrokerGone);
        let crash = crash.filter(|(_, moment)| moment.at < due + LATE_MAX);
        match (ending, crash) {
            (Ending::Vanished, None) => stays_away(due + LATE_MAX).then_some(due),
            (Ending::Vanished | Ending::Lost, Some((at, moment))) if rules.wills_survive => {
                let stored = index.time(connected) + STORED_AFTER < moment.at;
                let back = index.moments().skip(at).find(|(_, m)| matches!(m.event, Event::BrokerBack { .. }));
                // At the end of the Session at the latest (v5 MQTT-3.1.2-8).
                let after = self.delay.max(GRACE).min(self.expiry.unwrap_or(Duration::MAX));
                let due = back.map(|(_, moment)| moment.at + after)?;
                (stored && stays_away(due + LATE_MAX)).then_some(due)
            }
            _ => None,
        }
    }
}

/// Where each watcher's application saw each Will: repetitions under an open Packet Identifier are left out.
fn applications(index: &Index<'_>) -> HashMap<(ClientNumber, MessageId), Vec<usize>> {
    let mut open: HashMap<(ClientNumber, u16), Content> = HashMap::new();
    let mut applied: HashMap<(ClientNumber, MessageId), Vec<usize>> = HashMap::new();
    for (at, moment) in index.moments() {
        match moment.event {
            Event::Connected { client, session_present: false } => open.retain(|(other, _), _| *other != client),
            Event::Freed { client, packet_id } => {
                open.remove(&(client, packet_id));
            }
            Event::Received(reception) => {
                let Content::Message(message) = reception.content else { continue };
                let facts = index.history.cast.message(message);
                let is_will = facts.is_some_and(|facts| matches!(facts.purpose, Purpose::Will { .. }));
                let before = open.insert((reception.client, reception.packet_id), reception.content);
                if is_will && before != Some(reception.content) {
                    applied.entry((reception.client, message)).or_default().push(at);
                }
            }
            _ => {}
        }
    }
    applied
}
