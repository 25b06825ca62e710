//! S1, S2 and S3: whether a Session is there, and whether CONNACK says so.

use std::time::Duration;

use super::index::Index;
use super::{Class, Promise, Violation};
use crate::history::{ClientNumber, Event};

/// How much later than its interval a Session may end.
const SCAN_PERIOD: Duration = Duration::from_secs(5);

/// How much later the broker may see the end of a connection; a pause is as long as this at most.
const NOTICE_MAX: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Default)]
struct Session {
    /// Something was said that makes it last: CONNACK with a Session Expiry Interval other than 0 could create it.
    may_exist: bool,
    /// A SUBACK or PUBREC was received in it.
    is_vouched: bool,
    /// It was vouched for by a SUBACK.
    is_subscribed: bool,
    /// Where that was.
    vouched_at: usize,
    /// When the last connection ended.
    ended: Option<Duration>,
    /// When the last one ended that had been answered: the broker need not remember any other.
    answered_ended: Option<Duration>,
    is_answered: bool,
    /// The last CONNECT: when, and whether with Clean Start.
    connecting: Option<(Duration, bool)>,
}

/// Looks at every CONNACK.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut sessions: Vec<Session> = index.clients().map(|_| Session::default()).collect();
    for (at, moment) in index.moments() {
        match moment.event {
            Event::Connecting { client, clean_start } => {
                let session = &mut sessions[usize::from(client)];
                session.connecting = Some((moment.at, clean_start));
                // The broker may do as it is told even if its answer gets lost.
                if clean_start {
                    (session.is_vouched, session.is_subscribed) = (false, false);
                }
            }
            Event::Connected { client, session_present } => {
                let session = &mut sessions[usize::from(client)];
                judge(index, at, client, *session, session_present, found);
                if !session_present {
                    *session = Session::default();
                }
                (session.may_exist, session.ended) = (true, None);
                (session.is_answered, session.answered_ended) = (true, None);
            }
            Event::Ended { client, .. } => {
                let session = &mut sessions[usize::from(client)];
                // A CONNECT without an answer may have made a Session.
                session.may_exist = true;
                session.ended = Some(moment.at);
                if std::mem::take(&mut session.is_answered) {
                    session.answered_ended = Some(moment.at);
                }
            }
            Event::Subscribed { client, granted: Some(_), .. } => {
                let session = &mut sessions[usize::from(client)];
                (session.is_vouched, session.is_subscribed, session.vouched_at) = (true, true, at);
            }
            Event::Accepted { message } => {
                let exactly_once = index.history.cast.message(message).is_some_and(|facts| facts.qos as u8 == 2);
                if let Some(session) = sessions.get_mut(usize::from(message.publisher)).filter(|_| exactly_once) {
                    (session.is_vouched, session.vouched_at) = (true, at);
                }
            }
            _ => {}
        }
    }
}

fn judge(
    index: &Index<'_>,
    at: usize,
    client: ClientNumber,
    session: Session,
    session_present: bool,
    found: &mut Vec<Violation>,
) {
    let mut broken = |promise, class, at, what: String| {
        found.push(Violation { promise, class, at, client: Some(client), message: None, what });
    };
    let Some((asked, clean_start)) = session.connecting else { return };
    if session_present && (clean_start || !session.may_exist) {
        broken(Promise::S1, Class::Resurrected, at, "Session Present, where there can be no Session".into());
        return;
    }
    let expiry = index.history.cast.clients[usize::from(client)].session_expiry;
    let clock_is_steady = index.clock_jump.is_none_or(|jump| at < jump);
    if let (Some(expiry), Some(ended), true) = (expiry, session.ended, clock_is_steady) {
        let latest = ended + expiry + SCAN_PERIOD + NOTICE_MAX;
        if session_present && asked > latest {
            let what = format!("the Session is there, {:.1?} after its connection", asked - ended);
            broken(Promise::S2, Class::Resurrected, at, what);
        }
    }
    let now = index.time(at);
    let is_kept = match (expiry, session.answered_ended) {
        (Some(expiry), Some(ended)) => clock_is_steady && now < ended + expiry,
        _ => true,
    };
    if !session_present && !clean_start && session.is_vouched && is_kept {
        let crashed = index.crashes(session.vouched_at, at) > 0;
        let promise = if session.is_subscribed && crashed { Promise::S3 } else { Promise::S1 };
        broken(promise, Class::Other, session.vouched_at, "the Session is gone".into());
    }
}
