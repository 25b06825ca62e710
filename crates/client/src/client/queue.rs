//! Messages on their way from the connection to one stream.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pantala_proto::QoS;

use crate::machine::Inbound;

/// What happens to QoS 0 messages when a stream already holds as many as it may. Messages of QoS 1 and 2 are never dropped:
/// those that are not taken are not acknowledged, and the broker stops at our Receive Maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest one goes: who is late wants the newest. The default.
    #[default]
    DropOldest,
    /// The one that came last goes.
    DropNewest,
    /// Nothing is read from the connection until there is room, so the broker holds the messages, by its own rules. **While
    /// nothing is read, no acknowledgement comes either:** who waits for one in the same task that takes the messages waits
    /// for ever. For programs that only receive.
    ///
    /// What comes before the broker has answered SUBSCRIBE, as Retained Messages may, cannot wait so, since the answer is behind
    /// it: up to 64 MiB of it are held beside the buffer. Of what is beyond, the last goes, and
    /// [`Subscription::dropped`](super::Subscription::dropped) counts it.
    Wait,
}

/// What a stream that waits holds at QoS 0 before SUBACK, with what each message takes besides. Bytes.
const EARLY_BYTES_MAX: usize = 64 << 20;

/// Why a stream has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closed {
    /// The client has ended.
    Client,
    /// The broker lost the Session and then refused to subscribe us again.
    Refused(crate::error::Refusal),
    /// Its filters were unsubscribed.
    Unsubscribed,
    /// Another takes what no stream is for.
    Replaced,
}

/// What follows from a message that was put in.
pub(super) struct Pushed {
    /// Nothing more is to be read from the connection until [`Queue::is_full`] says no.
    pub(super) full: bool,
    /// Who waits for it: to be woken when no lock is held.
    pub(super) waker: Option<Waker>,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    qos0_max: usize,
    overflow: Overflow,
    /// Messages are acknowledged as they come, and may be dropped like those of QoS 0.
    pub(super) acknowledged_at_once: bool,
}

#[derive(Default)]
struct Inner {
    messages: VecDeque<Inbound>,
    /// Messages that nothing is to be acknowledged of: those of QoS 0, above all.
    at_most_once: usize,
    /// Nobody wants what comes.
    discards: bool,
    /// The broker has answered SUBSCRIBE. Until then nobody can have taken the stream, and it is never full.
    granted: bool,
    /// What has come before at QoS 0.
    early_bytes: usize,
    dropped: u64,
    waker: Option<Waker>,
    closed: Option<Closed>,
}

impl Queue {
    pub(super) fn new(qos0_max: usize, overflow: Overflow) -> Self {
        Self { inner: Mutex::default(), qos0_max, overflow, acknowledged_at_once: false }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in.
    pub(super) fn push(&self, message: Inbound) -> Pushed {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let waits = self.overflow == Overflow::Wait;
        if may_be_dropped(&message) {
            if waits && !inner.granted {
                let bytes = bytes(&message);
                if inner.early_bytes + bytes > EARLY_BYTES_MAX {
                    inner.dropped += 1;
                    return Pushed { full: false, waker: None };
                }
                inner.early_bytes += bytes;
            } else if !waits && inner.at_most_once >= self.qos0_max {
                inner.dropped += 1;
                if self.overflow == Overflow::DropNewest {
                    return Pushed { full: false, waker: None };
                }
                let oldest = inner.messages.iter().position(may_be_dropped);
                oldest.map(|at| inner.messages.remove(at));
                inner.at_most_once -= 1;
            }
            inner.at_most_once += 1;
        }
        inner.messages.push_back(message);
        Pushed { full: waits && inner.granted && inner.at_most_once >= self.qos0_max, waker: inner.waker.take() }
    }

    /// The broker has answered. True if nothing more is to be read from the connection until [`Queue::is_full`] says no.
    pub(super) fn grant(&self) -> bool {
        let mut inner = self.lock();
        inner.granted = true;
        self.overflow == Overflow::Wait && inner.at_most_once >= self.qos0_max
    }

    /// Whether reading has to wait for this stream.
    pub(super) fn is_full(&self) -> bool {
        // Half of it is to be free, so that the connection is not woken for each message.
        self.overflow == Overflow::Wait && self.lock().at_most_once > self.qos0_max / 2
    }

    /// The next message, and whether there is room now for a connection that waits.
    pub(super) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Result<(Inbound, bool), Closed>> {
        let mut inner = self.lock();
        if let Some(message) = inner.messages.pop_front() {
            let mut room = false;
            if may_be_dropped(&message) {
                inner.at_most_once -= 1;
                room = self.overflow == Overflow::Wait && inner.at_most_once == self.qos0_max / 2;
            }
            return Poll::Ready(Ok((message, room)));
        }
        if let Some(closed) = &inner.closed {
            return Poll::Ready(Err(closed.clone()));
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            inner.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody wants what it holds, nor what comes.
    pub(super) fn discard(&self) -> VecDeque<Inbound> {
        self.lock().discards = true;
        self.drain()
    }

    pub(super) fn discards(&self) -> bool {
        self.lock().discards
    }

    /// Takes out what the broker sends again, as other messages.
    pub(super) fn forget_repeated(&self) {
        self.lock().messages.retain(|message| !is_repeated(message));
    }

    /// All that is in it.
    pub(super) fn drain(&self) -> VecDeque<Inbound> {
        let mut inner = self.lock();
        inner.at_most_once = 0;
        std::mem::take(&mut inner.messages)
    }

    /// QoS 0 messages that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Nothing more will come. Who waits is to be woken when no lock is held.
    pub(super) fn close(&self, why: Closed) -> Option<Waker> {
        let mut inner = self.lock();
        inner.closed.get_or_insert(why);
        inner.waker.take()
    }
}

/// What a message takes, about.
fn bytes(message: &Inbound) -> usize {
    size_of::<Inbound>() + message.topic_name.len() + message.payload.len() + message.properties.section().len()
}

/// Whether nobody is owed its delivery.
pub(super) fn may_be_dropped(message: &Inbound) -> bool {
    message.acknowledgement.is_none()
}

/// Whether the broker sends a message of an earlier connection again in a Session that goes on: at QoS 1 it does, as nobody can
/// have acknowledged what nobody has taken. At QoS 2 the machine knows it again.
pub(super) fn is_repeated(message: &Inbound) -> bool {
    message.qos == QoS::AtLeastOnce && message.acknowledgement.is_some()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_comes_before_the_answer_has_a_limit_of_its_own() {
        static PAYLOAD: [u8; 1 << 20] = [0; 1 << 20];
        let message = Inbound {
            topic_name: "t".into(),
            payload: Bytes::from_static(&PAYLOAD),
            qos: QoS::AtMostOnce,
            retain: false,
            dup: false,
            properties: crate::message::Properties::default(),
            packet_id: 0,
            acknowledgement: None,
        };
        let queue = Queue::new(2, Overflow::Wait);
        for _ in 0..100 {
            assert!(!queue.push(message.clone()).full);
        }
        // What each takes besides is counted too.
        assert_eq!(queue.lock().messages.len(), 63);
        assert_eq!(queue.dropped(), 37);
        assert!(queue.grant() && queue.is_full());
        assert!(queue.push(message.clone()).full);
        assert_eq!(queue.dropped(), 37);
        // Others drop by their own rule, then and later.
        let queue = Queue::new(2, Overflow::DropNewest);
        for _ in 0..100 {
            assert!(!queue.push(message.clone()).full);
        }
        assert!(!queue.grant());
        assert_eq!(queue.lock().messages.len(), 2);
        assert_eq!(queue.dropped(), 98);
    }
}
