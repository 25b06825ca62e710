//! E1: expired messages do not come, and what is left of the interval is right.

use std::time::Duration;

use super::index::Index;
use super::{Class, Promise, Violation};
use crate::history::Event;
use crate::payload::Content;

/// How late an expired message may come.
const LATE_MAX: Duration = Duration::from_secs(1);

/// How long a packet may lie in a socket before this process takes it out: a fault can keep it busy.
const NOTICE_MAX: Duration = Duration::from_millis(500);

/// How wrong, in seconds, the forwarded interval may be: one for the promise, one for rounding, one for a restart, whose
/// moment is known to a second.
const REMAINING_ERROR_MAX: f64 = 2.0;
const RESTART_ERROR: f64 = 1.0;

/// Looks at every delivery of a message that expires, until the clock jumps.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let until = index.clock_jump.unwrap_or(usize::MAX);
    for (at, moment) in index.moments().take_while(|(at, _)| *at < until) {
        let Event::Received(reception) = moment.event else { continue };
        let Content::Message(message) = reception.content else { continue };
        let Some(interval) = index.history.cast.message(message).and_then(|facts| facts.expiry) else { continue };
        let trace = index.trace(message);
        let (Some(first_sent), Some(last_sent)) = (trace.first_sent, trace.last_sent) else { continue };
        // The broker took it between these two; for one that was sent again it may be the later one.
        let earliest = index.time(first_sent);
        let latest = index.time(trace.accepted.unwrap_or(last_sent).max(last_sent)).min(moment.at);
        let mut broken = |what: String| {
            let (promise, class) = (Promise::E1, Class::Other);
            found.push(Violation { promise, class, at, client: Some(reception.client), message: Some(message), what });
        };
        let age_min = moment.at.saturating_sub(latest);
        // What a broker had begun to send it may send again, however late (v5 section 3.3.2.3.3).
        if !reception.dup && age_min > Duration::from_secs(u64::from(interval)) + LATE_MAX + NOTICE_MAX {
            broken(format!("{message} came {age_min:.1?} after it was accepted, and lives {interval} s"));
            continue;
        }
        if !index.history.cast.clients[usize::from(reception.client)].is_v5 {
            continue;
        }
        let Some(remaining) = reception.expiry else {
            broken(format!("{message} came without its Message Expiry Interval"));
            continue;
        };
        let age_max = moment.at.saturating_sub(earliest);
        let crashed = index.crashes(first_sent, at) > 0;
        let error = REMAINING_ERROR_MAX + if crashed { RESTART_ERROR } else { 0.0 };
        let (remaining, interval) = (f64::from(remaining), f64::from(interval));
        let low = interval - age_max.as_secs_f64() - error;
        let high = (interval - age_min.as_secs_f64() + error).clamp(0.0, interval);
        if remaining < low || remaining > high {
            broken(format!("{message} came with {remaining} s left of {interval} s; {low:.1} to {high:.1} are right"));
        }
    }
}
