//! What passes between threads: letters to a worker, in the order in which they were sent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// With so many bytes of batches waiting for one worker, the others read no more from their clients until it has dealt
/// with some. Each may add what one turn brings.
const INBOX_BYTES_MAX: usize = 8 << 20;

/// A worker's letters. One queue for all senders, so that what was sent earlier is read earlier, whoever sent it.
pub(crate) struct Inbox {
    letters: Mutex<Vec<Letter>>,
    /// Bytes of batches that have not been dealt with.
    bytes: AtomicUsize,
    /// There are letters: so that looking costs no lock.
    any: AtomicBool,
    /// The worker waits for events, or is about to: it has to be woken.
    sleeping: AtomicBool,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            letters: Mutex::default(),
            bytes: AtomicUsize::new(0),
            any: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            waker,
        })
    }

    /// Sends a letter and wakes the receiver if it sleeps. A receiver that has ended does not mind.
    pub(crate) fn send(&self, letter: Letter) {
        if let Letter::Batch(batch) = &letter {
            self.bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
        }
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.any.store(true, Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // The pipe can only be full of wake-ups already.
            drop(self.waker.wake());
        }
    }

    /// The receiver has dealt with a batch of so many bytes.
    pub(crate) fn dealt_with(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The receiver has as much to deal with as it may have.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= INBOX_BYTES_MAX
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
