//! What passes between threads: letters to a worker, in the order in which they were sent.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;
use pantala_access::dynsec::Who;
use pantala_broker::authentication::Method;
use pantala_broker::{
    Batch, ConnectionKey, ListenerId, Peer, Proof, RightsSource, SecurityId, Settings, Verdict, Verified,
};

use crate::guard::Counted;
use crate::listen::Listener;
use crate::reporter::Sample;
use crate::socket::Socket;
use crate::stage::{Entry, Stages};
use crate::sys::Own;

/// A message to a worker.
pub(crate) enum Letter {
    /// From another worker's core to this one's.
    Batch(Batch),
    /// A connection whose client belongs here.
    Connection(Moved),
    /// What clients may do from now on.
    Rights(Arc<dyn RightsSource>),
    /// What has come of a client's credentials.
    Verdict(ConnectionKey, u32, Verdict),
    /// The answer to a client's command: its topic and its payload, and what clients may do from now on if it changed that.
    Answer(ConnectionKey, u32, &'static str, Box<str>, Option<Arc<dyn RightsSource>>),
    /// End the connections of these users of a security domain, who could not connect again as they did.
    Leave(SecurityId, Arc<Who>),
    /// End the connections of users of a security domain that came in by a password which is not theirs any more.
    Renewed(SecurityId, Proof, Arc<HashSet<Box<str>>>),
    /// Say who is connected of a security domain, and from where.
    Connected(SecurityId, Sender<Vec<(Box<str>, IpAddr)>>),
    /// End all connections and stop.
    ShutDown,
    /// Write the counters into the log.
    Report,
    /// Write some subscriptions into the log.
    Dump,
    /// Say what there is.
    Sample(Sender<Sample>),
    /// Publish messages of the broker's own.
    Publish(Vec<Own>),
    /// Memory is short: drop what may be dropped.
    Shed,
    /// Other settings hold from now on, and connections of each listener begin with these.
    Reconfigure(Arc<Settings>, Arc<[Arc<Entry>]>),
    /// Other methods of enhanced authentication.
    Methods(Arc<[Box<dyn Method>]>),
    /// Say so when all letters before this one have been dealt with.
    Tell(Sender<()>),
    /// Listen no more on the first, and on the second from now on. Sent when all workers have the settings that go with it.
    Listen(Vec<ListenerId>, Vec<(Listener, ListenerId)>),
}

/// A connection on its way from one worker to another.
pub(crate) struct Moved {
    pub(crate) socket: Socket,
    pub(crate) listener: ListenerId,
    pub(crate) stages: Option<Box<Stages>>,
    /// It is counted by its address, until it is gone.
    pub(crate) counted: Option<Counted>,
    pub(crate) peer: Option<Box<Peer>>,
    /// Who the client has been found to be, if it has.
    pub(crate) verified: Option<Box<Verified>>,
    /// What the client has said.
    pub(crate) input: Vec<u8>,
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
        self.nudge();
    }

    /// Wakes the receiver if it sleeps: there is something for it elsewhere.
    pub(crate) fn nudge(&self) {
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

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    /// A receiver that sleeps whenever it may misses no letter of senders that pause at every moment.
    #[test]
    fn no_letter_is_slept_over() {
        const SENDERS: usize = 3;
        const LETTERS: usize = 20_000;
        let mut poll = Poll::new().unwrap();
        let inbox = Inbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let inbox = &inbox;
                scope.spawn(move || {
                    for number in 0..LETTERS {
                        inbox.send(Letter::Report);
                        // Pauses of all lengths between the letters, so that each step of the receiver meets one.
                        (0..(number * 7 + sender) % 300).for_each(|_| std::hint::spin_loop());
                    }
                });
            }
            let (mut received, mut events, mut letters) = (0, Events::with_capacity(4), Vec::new());
            while received < SENDERS * LETTERS {
                let may_sleep = inbox.go_to_sleep();
                let timeout = if may_sleep { Duration::from_secs(10) } else { Duration::ZERO };
                poll.poll(&mut events, Some(timeout)).unwrap();
                assert!(!may_sleep || !events.is_empty(), "slept over {} letters", SENDERS * LETTERS - received);
                inbox.awake();
                inbox.take(&mut letters);
                received += letters.drain(..).len();
            }
            assert_eq!(received, SENDERS * LETTERS);
        });
    }
}
