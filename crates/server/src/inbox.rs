//! What passes between threads: letters to a worker, in the order in which they were sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;
use pantala_broker::{Batch, ListenerId};

use crate::socket::Socket;

/// A message to a worker.
pub(crate) enum Letter {
    /// From another worker's core to this one's.
    Batch(Batch),
    /// A connection whose client belongs here, with what it has said.
    Connection(Socket, ListenerId, Vec<u8>),
    /// End all connections and stop.
    ShutDown,
    /// Write the counters into the log.
    Report,
}

/// A worker's letters. One queue for all senders, so that what was sent earlier is read earlier, whoever sent it.
pub(crate) struct Inbox {
    letters: Mutex<Vec<Letter>>,
    /// There are letters: so that looking costs no lock.
    any: AtomicBool,
    /// The worker waits for events, or is about to: it has to be woken.
    sleeping: AtomicBool,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self { letters: Mutex::default(), any: AtomicBool::new(false), sleeping: AtomicBool::new(false), waker })
    }

    /// Sends a letter and wakes the receiver if it sleeps. A receiver that has ended does not mind.
    pub(crate) fn send(&self, letter: Letter) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.any.store(true, Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // The pipe can only be full of wake-ups already.
            drop(self.waker.wake());
        }
    }

    /// The receiver is about to wait. False if it must not, as there are letters.
    pub(crate) fn go_to_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if !self.any.load(Ordering::SeqCst) {
            return true;
        }
        self.awake();
        false
    }

    /// The receiver has waited.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Takes all letters; `into` is empty and gives its memory to the letters to come.
    pub(crate) fn take(&self, into: &mut Vec<Letter>) {
        if self.any.load(Ordering::Acquire) {
            let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
            self.any.store(false, Ordering::SeqCst);
            std::mem::swap(into, &mut *letters);
        }
    }
}
