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
    Wait,
}

/// Why a stream has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closed {
    /// The client has ended.
    Client,
    /// The broker lost the Session and then refused to subscribe us again.
    Refused(crate::error::Refusal),
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

    /// Puts a message in. True if nothing more is to be read from the connection until [`Queue::is_full`] says no.
    pub(super) fn push(&self, message: Inbound) -> bool {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if may_be_dropped(&message) {
            if inner.at_most_once >= self.qos0_max && self.overflow != Overflow::Wait {
                inner.dropped += 1;
                if self.overflow == Overflow::DropNewest {
                    return false;
                }
                let oldest = inner.messages.iter().position(may_be_dropped);
                oldest.map(|at| inner.messages.remove(at));
                inner.at_most_once -= 1;
            }
            inner.at_most_once += 1;
        }
        inner.messages.push_back(message);
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
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

    /// Nothing more will come.
    pub(super) fn close(&self, why: Closed) {
        let mut inner = self.lock();
        inner.closed.get_or_insert(why);
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
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
