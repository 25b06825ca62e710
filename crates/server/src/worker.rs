//! A worker: one thread, one event loop, one core.
//!
//! A turn: wait; read each ready connection once into the worker's one buffer and hand the bytes to the core; drain the own
//! inbox; run due timers; pass on what other workers get; write each connection that has output once; do what the
//! core wants done. Work per connection and turn is bounded by the read buffer, so nobody starves the others.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event as Readiness;
use mio::{Events, Poll, Token};
use pantala_access::dynsec::Who;
use pantala_broker::{Action, BatchPhase, ConnectionKey, Core, End, Event, ListenerId, Peer, Trip, Wanted, WorkerId};
use pantala_proto::{QoS, ReasonCode};
use pantala_session::Instant;
use pantala_store::{AnyStore, Position, Store};
use slab::Slab;

use crate::config::LogType;
use crate::guard::{Addresses, Counted, TooMany};
use crate::inbox::{Inbox, Letter, Moved};
use crate::listen::Listener;
use crate::log::{Log, shown};
use crate::reporter::Sample;
use crate::security::{ControlRequest, Reply, Security};
use crate::socket::Socket;
use crate::stage::{Entry, NOT_ALLOWED, Scratch, Stages};
use crate::sys::Own;

mod staged;

/// The inbox's waker.
pub(crate) const WAKER: Token = Token(0);
/// Listeners have the tokens from here on.
const FIRST_LISTENER: usize = 1;
/// Connections have the tokens from here on.
const FIRST_CONNECTION: usize = 1 << 16;
/// Sockets that are being closed have the tokens from here on.
const FIRST_LINGERING: usize = 1 << 48;

/// Bytes read from one connection in one turn.
const READ_BUFFER_BYTES: usize = 131_072;
/// With so many bytes read in a turn, what follows from them is written before more is read.
const TURN_BYTES_MAX: usize = 1 << 20;
/// With so many bytes written a turn leaves further connections to the next one: a large message to many is not written to
/// all while everybody else waits.
const TURN_OUTPUT_BYTES_MAX: usize = 4 << 20;
/// How long reading waits for other workers that have more to do than they may.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);
const EVENTS: usize = 1_024;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// After a failed accept (no descriptors are left, mostly) the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a closed socket is read on, so that our last words are not lost to a reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGERING_MAX: usize = 1_024;
/// How long the end waits for clients to close their side.
const SHUT_DOWN_DURATION_MAX: Duration = Duration::from_secs(1);
const SLICES: usize = 64;
/// Subscriptions that SIGUSR2 writes into the log, for each worker.
const DUMPED_MAX: usize = 100;
/// Connections that one command is told of.
const CONNECTED_MAX: usize = 100_000;

/// Monotonic time, the same for all workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: std::time::Instant,
    /// The broker's time then.
    base: u64,
    /// Milliseconds from the start to the present one, which ends at `until`: many turns have the same, and comparing
    /// costs less than subtracting.
    elapsed_ms: u64,
    until: std::time::Instant,
}

impl Clock {
    /// Begins at `base`, which is not 0, so that the first moment is later than "never yet".
    pub(crate) fn start(base: Instant) -> Self {
        let start = std::time::Instant::now();
        Self { start, base: base.0, elapsed_ms: 0, until: start }
    }

    #[inline]
    pub(crate) fn now(&mut self) -> Instant {
        let now = std::time::Instant::now();
        if now >= self.until {
            self.elapsed_ms = now.duration_since(self.start).as_millis() as u64;
            self.until = self.start + Duration::from_millis(self.elapsed_ms + 1);
        }
        Instant(self.base + self.elapsed_ms)
    }
}

/// A connection's socket, in the place of its key.
#[derive(Debug)]
struct Slot {
    socket: Socket,
    listener: ListenerId,
    /// It is counted by its address, until it is gone.
    counted: Option<Counted>,
    /// What stands between its bytes and MQTT; None for plain MQTT.
    stages: Option<Box<Stages>>,
    /// There may be more to read than was read.
    readable: bool,
    /// The client has said its last: whatever is read, the end stands behind it, and the poller has told so already.
    ended: bool,
    /// It is in the list of connections to read in the next turn.
    queued: bool,
    /// The socket takes no more for now.
    blocked: bool,
    /// It is in the list of connections to write in the next turn.
    unwritten: bool,
}

/// Where a worker's connections come in.
pub(crate) struct Doors {
    pub(crate) listeners: Vec<(Listener, ListenerId)>,
    /// For each configured listener, what its connections begin with.
    pub(crate) entries: Arc<[Arc<Entry>]>,
    pub(crate) addresses: Arc<Addresses>,
}

pub(crate) struct Worker {
    id: WorkerId,
    core: Core<AnyStore>,
    poll: Poll,
    clock: Clock,
    /// The time of this turn.
    now: Instant,
    log: Log,
    /// In the place of their tokens; None where one has been closed.
    listeners: Vec<Option<(Listener, ListenerId)>>,
    /// For each listener, what its connections begin with.
    entries: Arc<[Arc<Entry>]>,
    scratch: Scratch,
    accept_again: Option<Instant>,
    addresses: Arc<Addresses>,
    slots: Vec<Option<Slot>>,
    /// Connections that were ready and have not been read to the end.
    ready: Vec<ConnectionKey>,
    /// Connections with output that the turn did not come to.
    unwritten: Vec<ConnectionKey>,
    lingering: Slab<Socket>,
    linger_deadlines: VecDeque<(Instant, usize)>,
    inboxes: Arc<[Arc<Inbox>]>,
    security: Arc<Security>,
    /// Bytes that may still be read in this turn.
    turn_bytes: usize,
    /// Bytes that may still be written in this turn.
    turn_output_bytes: usize,
    /// How far the store was, written and durable, and whether it had failed, when the core was told last.
    completed: (Position, Position, bool),
    /// The worker ends when all clients have closed their side, or at this time.
    ending: Option<Instant>,
}

impl Worker {
    /// A worker that listens. `poll` is the one that the inbox wakes.
    #[expect(clippy::too_many_arguments, reason = "made in one place, from what is there")]
    pub(crate) fn new(
        id: WorkerId,
        mut core: Core<AnyStore>,
        poll: Poll,
        mut clock: Clock,
        log: Log,
        doors: Doors,
        inboxes: Arc<[Arc<Inbox>]>,
        security: Arc<Security>,
    ) -> io::Result<Self> {
        core.want(wanted(&log));
        let mut worker = Self {
            id,
            core,
            poll,
            clock,
            now: clock.now(),
            log,
            listeners: Vec::new(),
            entries: doors.entries,
            scratch: Scratch::default(),
            accept_again: None,
            addresses: doors.addresses,
            slots: Vec::new(),
            ready: Vec::new(),
            unwritten: Vec::new(),
            lingering: Slab::new(),
            linger_deadlines: VecDeque::new(),
            inboxes,
            security,
            turn_bytes: 0,
            turn_output_bytes: 0,
            completed: Default::default(),
            ending: None,
        };
        for (listener, id) in doors.listeners {
            worker.listen(listener, id)?;
        }
        Ok(worker)
    }

    fn listen(&mut self, mut listener: Listener, id: ListenerId) -> io::Result<()> {
        let free = self.listeners.iter().position(Option::is_none);
        let index = free.unwrap_or(self.listeners.len());
        listener.register(self.poll.registry(), Token(FIRST_LISTENER + index))?;
        match free {
            Some(index) => self.listeners[index] = Some((listener, id)),
            None => self.listeners.push(Some((listener, id))),
        }
        Ok(())
    }

    /// Runs until it is told to shut down.
    ///
    /// # Errors
    /// If the poller fails, which nothing can go on after.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; READ_BUFFER_BYTES].into_boxed_slice();
        let (mut letters, mut ready, mut dirty) = (Vec::new(), Vec::new(), Vec::new());
        let inbox = Arc::clone(&self.inboxes[usize::from(self.id.0)]);
        let keeps = self.core.store().keeps();
        while !self.has_ended() {
            let deadline = self.core.next_deadline();
            let timeout = self.timeout(deadline, &inbox);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
                result => result?,
            }
            inbox.awake();
            let now = self.clock.now();
            self.now = now;
            let alone = self.inboxes.len() == 1;
            self.turn_bytes = if (keeps || !alone) && self.is_crowded() { 0 } else { TURN_BYTES_MAX };
            self.turn_output_bytes = TURN_OUTPUT_BYTES_MAX;
            std::mem::swap(&mut ready, &mut self.ready);
            for key in ready.drain(..) {
                if let Some(slot) = self.slot(key) {
                    slot.queued = false;
                    self.read(now, key, &mut buffer);
                }
            }
            for event in &events {
                self.event(now, event, &mut buffer);
            }
            if self.accept_again.is_some_and(|at| at <= now) {
                self.accept_again = None;
                for index in 0..self.listeners.len() {
                    self.accept(now, index);
                }
            }
            // What others are to do, they do while this worker goes on.
            if !alone {
                self.pass_on();
            }
            if keeps {
                self.store_completed(now);
            }
            inbox.take(&mut letters);
            if !letters.is_empty() {
                for letter in letters.drain(..) {
                    self.letter(now, letter);
                }
            }
            // A timer set in this turn is not due in it.
            if deadline.is_some_and(|deadline| deadline <= now) || self.core.has_work() {
                self.guarded(|core| core.tick(now));
            }
            if !alone {
                self.pass_on();
            }
            // While this is made durable, what needs not wait is written.
            if keeps {
                self.core.submit();
            }
            if self.core.has_actions() {
                self.actions(now);
            }
            self.core.take_dirty(&mut dirty);
            self.write_turn(now, &dirty);
            // Writing may have made room, and room may have brought more.
            if self.core.has_actions() {
                self.actions(now);
            }
            if self.core.has_events() {
                self.events(now);
                if self.core.has_actions() {
                    self.actions(now);
                }
            }
            // A connection lost in writing leaves a Will, and room brings queries.
            if !alone {
                self.pass_on();
            }
            if keeps {
                self.core.submit();
            }
            if !self.linger_deadlines.is_empty() {
                self.linger(now);
            }
        }
        Ok(())
    }

    /// Tells the core if more is written or durable than it has been told of, or if nothing will be any more.
    fn store_completed(&mut self, now: Instant) {
        let store = self.core.store();
        let reached = (store.written(), store.durable(), store.has_failed());
        if reached != self.completed {
            self.completed = reached;
            self.guarded(|core| core.store_completed(now));
        }
    }

    fn timeout(&self, core_deadline: Option<Instant>, inbox: &Inbox) -> Option<Duration> {
        if self.core.has_output() || !self.unwritten.is_empty() {
            return Some(Duration::ZERO);
        }
        if !self.ready.is_empty() {
            let wait = self.is_crowded() && inbox.go_to_sleep();
            return Some(if wait { CROWDED_PAUSE } else { Duration::ZERO });
        }
        let mut wake_at = core_deadline;
        if let Some(at) = self.accept_again {
            wake_at = Some(wake_at.map_or(at, |wake_at| wake_at.min(at)));
        }
        if let Some((at, _)) = self.linger_deadlines.front() {
            wake_at = Some(wake_at.map_or(*at, |wake_at| wake_at.min(*at)));
        }
        let wait = wake_at.map(|at| Duration::from_millis(at.0.saturating_sub(self.now.0)));
        if wait == Some(Duration::ZERO) || inbox.go_to_sleep() { wait } else { Some(Duration::ZERO) }
    }

    /// Other workers, or the store, have all that they may have waiting: nothing is read until they have dealt with some of it.
    fn is_crowded(&self) -> bool {
        let store = match self.core.store() {
            AnyStore::Memory(_) => false,
            AnyStore::Durable(store) => store.is_crowded(),
        };
        store || self.inboxes.len() > 1 && self.inboxes.iter().any(|inbox| inbox.is_full())
    }

    fn has_ended(&self) -> bool {
        self.ending.is_some_and(|until| self.lingering.is_empty() || until <= self.now)
    }

    #[inline]
    fn slot(&mut self, key: ConnectionKey) -> Option<&mut Slot> {
        self.slots.get_mut(key as usize)?.as_mut()
    }

    fn event(&mut self, now: Instant, event: &Readiness, buffer: &mut [u8]) {
        let Token(token) = event.token();
        if token >= FIRST_LINGERING {
            self.drain_lingering(token - FIRST_LINGERING, buffer);
        } else if token >= FIRST_CONNECTION {
            let key = (token - FIRST_CONNECTION) as ConnectionKey;
            let Some(slot) = self.slot(key) else { return };
            let ended = event.is_read_closed() || event.is_error();
            let readable = event.is_readable() || ended;
            slot.readable |= readable;
            slot.ended |= ended;
            if slot.blocked && event.is_writable() {
                slot.blocked = false;
                self.write_later(key);
            }
            if readable {
                self.read(now, key, buffer);
            }
        } else if token >= FIRST_LISTENER {
            self.accept(now, token - FIRST_LISTENER);
        }
    }

    // ---- connections ------------------------------------------------------------------------------------------

    fn accept(&mut self, now: Instant, index: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(Some((listener, listener_id))) = self.listeners.get(index) else { return };
            let listener_id = *listener_id;
            match listener.accept() {
                Ok((socket, address)) => {
                    let entry = self.entries.get(usize::from(listener_id));
                    if let Some(why) = entry.and_then(|entry| entry.refusal(address)) {
                        self.core.count_not_allowed();
                        self.log.limited(LogType::Notice, "refused connections", || {
                            let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
                            format!("Connection from {address} closed: {why}.")
                        });
                        continue;
                    }
                    // Whom a proxy speaks for is counted when it has said so.
                    let told_later = entry.is_some_and(|entry| entry.tells_address_later(address));
                    let counted = address.filter(|_| !told_later);
                    let Some(counted) = admit(&self.addresses, &mut self.core, &self.log, counted) else { continue };
                    let entry = self.entries.get(usize::from(listener_id));
                    let stages = entry.and_then(|entry| entry.stages(address));
                    if let Some(key) = self.open(now, socket, listener_id, stages, counted) {
                        self.core.introduce(key, Box::new(Peer { address, ..Peer::default() }));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client was gone before we got to it.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.log.limited(LogType::Warning, "accepting connections", || {
                        format!("Cannot accept a connection, trying again: {error}")
                    });
                    self.accept_again = Some(now.after(ACCEPT_PAUSE));
                    return;
                }
            }
        }
        // More may wait, and the poller will not say so again.
        self.accept_again = Some(now);
    }

    fn open(
        &mut self,
        now: Instant,
        mut socket: Socket,
        listener: ListenerId,
        stages: Option<Box<Stages>>,
        counted: Option<Counted>,
    ) -> Option<ConnectionKey> {
        let key = self.core.open(now, listener);
        let index = key as usize;
        if let Err(error) = socket.register(self.poll.registry(), Token(FIRST_CONNECTION + index)) {
            self.log.limited(LogType::Error, "watching connections", || format!("Cannot watch a connection: {error}"));
            self.core.closed(key);
            return None;
        }
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Slot {
            socket,
            listener,
            stages,
            counted,
            readable: false,
            ended: false,
            queued: false,
            blocked: false,
            unwritten: false,
        });
        Some(key)
    }

    fn read_later(&mut self, key: ConnectionKey) {
        if let Some(slot) = self.slot(key)
            && !slot.queued
        {
            slot.queued = true;
            slot.readable = true;
            self.ready.push(key);
        }
    }

    /// One read, and what follows from it.
    #[inline]
    fn read(&mut self, now: Instant, key: ConnectionKey, buffer: &mut [u8]) {
        if !self.core.wants_input(key) {
            return;
        }
        if self.turn_bytes == 0 {
            return self.read_later(key);
        }
        let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else { return };
        if slot.stages.is_some() {
            return self.read_staged(now, key, buffer);
        }
        match slot.socket.read(buffer) {
            Ok(0) => {
                // It may have closed one side only, and be reading its answers on the other.
                self.write_all(now, &[key]);
                self.lost(now, key);
            }
            Ok(count) => {
                self.turn_bytes = self.turn_bytes.saturating_sub(count);
                // A short read is all there was, unless the end of the stream stands behind it.
                slot.readable = count == buffer.len() || slot.ended;
                let more = slot.readable;
                let core = &mut self.core;
                let received = catch_unwind(AssertUnwindSafe(|| core.receive(now, key, &buffer[..count])));
                if received.is_err() {
                    self.panicked(now, key);
                } else if more {
                    self.read_later(key);
                }
            }
            // The end that was told of was that of another connection, which had this place before.
            Err(error) if error.kind() == ErrorKind::WouldBlock => (slot.readable, slot.ended) = (false, false),
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_later(key),
            Err(_) => self.lost(now, key),
        }
    }

    fn panicked(&mut self, now: Instant, key: ConnectionKey) {
        self.log.limited(LogType::Error, "internal errors", || {
            "Internal error: a connection is closed for it. Please report the lines above.".to_owned()
        });
        self.guarded(|core| core.panicked(now, key));
    }

    /// Runs work of the core that no one connection is the cause of. A panic there is logged, and the worker goes on.
    fn guarded(&mut self, work: impl FnOnce(&mut Core<AnyStore>)) {
        let core = &mut self.core;
        if catch_unwind(AssertUnwindSafe(|| work(core))).is_err() {
            self.core.count_panic();
            self.log.limited(LogType::Error, "internal errors", || "Internal error; going on.".to_owned());
        }
    }

    fn lost(&mut self, now: Instant, key: ConnectionKey) {
        // What the client is told about in the log needs its socket, which goes now.
        self.guarded(|core| core.lost(now, key));
        self.events(now);
        self.forget(now, key);
    }

    /// Gives the place of a connection free that the core knows nothing of any more.
    fn forget(&mut self, now: Instant, key: ConnectionKey) {
        if let Some(slot) = self.slots.get_mut(key as usize) {
            *slot = None;
        }
        if self.accept_again.is_some() {
            self.accept_again = Some(now);
        }
    }

    /// Writes what waits for these connections, and as much again for those that were left to this turn; leaves to the
    /// next one what is too much for this one. Who has little to be written does not wait behind who has much.
    fn write_turn(&mut self, now: Instant, keys: &[ConnectionKey]) {
        let begun = self.write_while(now, keys, |worker| worker.turn_output_bytes > 0);
        if !self.unwritten.is_empty() {
            self.turn_output_bytes = TURN_OUTPUT_BYTES_MAX;
            let mut left = std::mem::take(&mut self.unwritten);
            let begun = self.write_while(now, &left, |worker| worker.turn_output_bytes > 0);
            for key in left.drain(..begun) {
                if let Some(slot) = self.slot(key) {
                    slot.unwritten = false;
                }
            }
            left.append(&mut self.unwritten);
            self.unwritten = left;
        }
        for &key in &keys[begun..] {
            self.write_later(key);
        }
    }

    fn write_later(&mut self, key: ConnectionKey) {
        if let Some(slot) = self.slot(key)
            && !slot.unwritten
        {
            slot.unwritten = true;
            self.unwritten.push(key);
        }
    }

    /// Writes what waits for these connections.
    fn write_all(&mut self, now: Instant, keys: &[ConnectionKey]) {
        self.write_while(now, keys, |_| true);
    }

    /// The same while `go_on` says so; returns how many connections it came to.
    fn write_while(&mut self, now: Instant, keys: &[ConnectionKey], go_on: impl Fn(&Self) -> bool) -> usize {
        let mut begun = 0;
        while begun < keys.len() && go_on(self) {
            // Room brings more from the core: a panic there ends the connection that it was for.
            let written = catch_unwind(AssertUnwindSafe(|| {
                while let Some(&key) = keys.get(begun)
                    && go_on(self)
                {
                    begun += 1;
                    self.write(now, key);
                }
            }));
            if written.is_err() {
                self.panicked(now, keys[begun - 1]);
            }
        }
        begun
    }

    /// Writes what waits, as far as the socket takes it.
    #[inline]
    fn write(&mut self, now: Instant, key: ConnectionKey) {
        let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else { return };
        if slot.blocked {
            if slot.stages.is_some() {
                // It was blocked by output of its stages: what has come since waits, too.
                self.core.blocked(now, key);
            }
            return;
        }
        if slot.stages.is_some() {
            return self.write_staged(now, key);
        }
        loop {
            let result = match self.core.contiguous_output(key) {
                Some([]) => break,
                Some(bytes) => slot.socket.write(bytes),
                None => write_slices(&self.core, &slot.socket, key),
            };
            match result {
                Ok(0) => return self.lost(now, key),
                Ok(count) => {
                    self.turn_output_bytes = self.turn_output_bytes.saturating_sub(count);
                    if self.core.wrote(now, key, count) == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    slot.blocked = true;
                    self.core.blocked(now, key);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(now, key),
            }
        }
        // Reading from it may have paused until its output was taken.
        if slot.readable && !slot.queued {
            self.read_later(key);
        }
    }

    // ---- what the core wants done -----------------------------------------------------------------------------

    fn actions(&mut self, now: Instant) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Close(key) => self.close(now, key),
                Action::HandOver { connection, to, input, peer, verified } => {
                    self.core.closed(connection);
                    let Some(mut slot) = self.slots.get_mut(connection as usize).and_then(Option::take) else {
                        continue;
                    };
                    match slot.socket.deregister(self.poll.registry()) {
                        Ok(()) => {
                            let Slot { socket, listener, stages, counted, .. } = slot;
                            let moved = Moved { socket, listener, stages, counted, peer, verified, input };
                            self.inboxes[usize::from(to.0)].send(Letter::Connection(moved));
                        }
                        Err(error) => self.log.limited(LogType::Error, "watching connections", || {
                            format!("Cannot move a connection: {error}")
                        }),
                    }
                }
                Action::Authenticate { connection, generation, request } => {
                    let inbox = Arc::clone(&self.inboxes[usize::from(self.id.0)]);
                    self.security.verify(*request, Reply { inbox, connection, generation });
                }
                Action::Control { connection, generation, security, client_id, user_name, topic_name, payload } => {
                    let inbox = Arc::clone(&self.inboxes[usize::from(self.id.0)]);
                    self.security.command(ControlRequest {
                        inbox,
                        connection,
                        generation,
                        security,
                        client_id,
                        user_name,
                        topic_name,
                        payload,
                    });
                }
            }
        }
    }

    /// Closes a connection whose last words are in its output.
    fn close(&mut self, now: Instant, key: ConnectionKey) {
        self.write_all(now, &[key]);
        self.say_farewell(now, key);
        self.events(now);
        let Some(mut slot) = self.slots.get_mut(key as usize).and_then(Option::take) else { return };
        self.core.closed(key);
        if self.accept_again.is_some() {
            self.accept_again = Some(now);
        }
        // Closing with unread input would reset the connection, and the reset overtake what was written.
        let full = self.lingering.len() >= LINGERING_MAX && self.ending.is_none();
        if full || slot.socket.shut_down_write().is_err() {
            return;
        }
        let entry = self.lingering.vacant_entry();
        let index = entry.key();
        if slot.socket.reregister(self.poll.registry(), Token(FIRST_LINGERING + index)).is_ok() {
            entry.insert(slot.socket);
            self.linger_deadlines.push_back((self.ending.unwrap_or(now.after(LINGER)), index));
        }
    }

    /// Reads a closed connection empty; at its end it is gone.
    fn drain_lingering(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(socket) = self.lingering.get_mut(index) else { return };
        // A few reads: whoever sends more than this after our close may have its reset.
        for _ in 0..4 {
            match socket.read(buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.lingering.remove(index);
        self.linger_deadlines.retain(|(_, lingering)| *lingering != index);
    }

    fn linger(&mut self, now: Instant) {
        while let Some(&(deadline, index)) = self.linger_deadlines.front() {
            if deadline > now {
                return;
            }
            self.linger_deadlines.pop_front();
            self.lingering.try_remove(index);
        }
    }

    /// Passes on what the core has for other workers.
    fn pass_on(&mut self) {
        for phase in BatchPhase::ALL {
            for (to, inbox) in self.inboxes.iter().enumerate() {
                if let Some(batch) = self.core.take_batch(phase, WorkerId(to as u8)) {
                    inbox.send(Letter::Batch(batch));
                }
            }
        }
    }

    fn letter(&mut self, now: Instant, letter: Letter) {
        match letter {
            Letter::Batch(mut batch) => {
                let bytes = batch.bytes();
                // Once, unless a frame of it makes the core panic: the ones behind it are not to blame.
                while !batch.is_empty() {
                    self.guarded(|core| core.receive_batch(now, &mut batch));
                }
                self.inboxes[usize::from(self.id.0)].dealt_with(bytes);
            }
            // It has not been let in, and will not be.
            Letter::Connection(..) if self.ending.is_some() => {}
            Letter::Connection(Moved { socket, listener, stages, counted, peer, verified, input }) => {
                let Some(key) = self.open(now, socket, listener, stages, counted) else { return };
                let core = &mut self.core;
                if let Some(peer) = peer {
                    core.introduce(key, peer);
                }
                if let Some(verified) = verified {
                    core.identified(key, verified);
                }
                if catch_unwind(AssertUnwindSafe(|| core.receive(now, key, &input))).is_err() {
                    self.panicked(now, key);
                }
                // What has come in between is reported by the registration.
                if self.slot(key).is_some_and(|slot| slot.stages.is_some()) {
                    self.write_later(key);
                }
            }
            Letter::Rights(rights) => self.guarded(|core| core.rights_changed(now, rights)),
            Letter::Verdict(key, generation, verdict) => {
                let core = &mut self.core;
                if catch_unwind(AssertUnwindSafe(|| core.authenticated(now, key, generation, verdict))).is_err() {
                    self.panicked(now, key);
                }
            }
            Letter::Answer(key, generation, topic_name, payload, rights) => {
                self.guarded(|core| core.control_response(now, key, generation, topic_name, payload.as_bytes()));
                if let Some(rights) = rights {
                    self.guarded(|core| core.rights_changed(now, rights));
                }
            }
            Letter::Leave(security, who) => {
                let user_name = match &*who {
                    Who::User(name) => Some(name.as_str()),
                    Who::Anonymous => None,
                };
                self.guarded(|core| {
                    core.disconnect_user(now, security, user_name, ReasonCode::AdministrativeAction);
                });
            }
            Letter::Renewed(security, proof, users) => {
                self.guarded(|core| core.passwords_changed(now, security, proof, &users));
            }
            Letter::Connected(security, answer) => {
                let mut users = Vec::new();
                self.guarded(|core| users = core.users_connected(security, CONNECTED_MAX));
                // Who has asked may have given up.
                drop(answer.send(users));
            }
            Letter::ShutDown => self.shut_down(now),
            Letter::Report => self.report(),
            Letter::Dump => self.dump(),
            Letter::Sample(answer) => {
                let sample = self.sample();
                // Who asked has ended meanwhile, perhaps.
                let _ = answer.send(sample);
            }
            Letter::Publish(messages) => {
                for Own { topic_name, payload, retain } in messages {
                    self.guarded(|core| {
                        core.publish_own(now, &topic_name, payload.as_bytes(), QoS::ExactlyOnce, retain);
                    });
                }
            }
            Letter::Shed => self.guarded(Core::shed),
            Letter::Reconfigure(settings, entries) => {
                self.entries = entries;
                self.guarded(|core| core.reconfigure(now, settings));
                self.turn_out_strangers(now);
                self.core.want(wanted(&self.log));
            }
            // Whoever asked may have waited long enough.
            Letter::Tell(sender) => drop(sender.send(())),
            Letter::Methods(methods) => self.core.replace_methods(methods),
            // It does not begin to listen again.
            Letter::Listen(..) if self.ending.is_some() => {}
            Letter::Listen(close, open) => self.listen_anew(&close, open),
        }
    }

    /// Ends the connections of clients whose addresses their listeners are not for any more.
    fn turn_out_strangers(&mut self, now: Instant) {
        let keys = 0..self.slots.len() as ConnectionKey;
        let strangers: Vec<ConnectionKey> = keys.filter(|key| self.is_stranger(*key)).collect();
        for key in strangers {
            self.guarded(|core| core.transport_failed(now, key, NOT_ALLOWED));
        }
    }

    /// Whether a client is let in whose address its listener is not for.
    fn is_stranger(&self, key: ConnectionKey) -> bool {
        let slot = self.slots.get(key as usize).and_then(Option::as_ref);
        let entry = slot.and_then(|slot| self.entries.get(usize::from(slot.listener)));
        entry.zip(self.core.client_address(key)).is_some_and(|(entry, address)| !entry.is_for(address))
    }

    fn listen_anew(&mut self, close: &[ListenerId], open: Vec<(Listener, ListenerId)>) {
        for place in &mut self.listeners {
            if let Some((listener, _)) = place.as_mut().filter(|(_, id)| close.contains(id)) {
                // Another worker has the same socket: closing ours does not take it away from the poller. It fails where
                // it has gone from there by itself.
                drop(listener.deregister(self.poll.registry()));
                *place = None;
            }
        }
        for (listener, id) in open {
            if let Err(error) = self.listen(listener, id) {
                self.log.line(LogType::Error, &format!("Worker {} cannot watch a new listener: {error}", self.id.0));
            }
        }
    }

    fn shut_down(&mut self, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(now.after(SHUT_DOWN_DURATION_MAX));
        self.listeners.clear();
        self.accept_again = None;
        // The connections are closed as any other: with their last words, and a moment to read them.
        self.guarded(|core| core.shut_down(now));
        self.report();
    }

    // ---- the log ----------------------------------------------------------------------------------------------

    fn report(&self) {
        let counters = self.core.counters().iter().filter(|(_, value)| *value > 0);
        let stages = self.scratch.counters.iter().filter(|(_, value)| *value > 0);
        let text: Vec<String> = counters.chain(stages).map(|(name, value)| format!("{name}={value}")).collect();
        let (connections, sessions) = (self.core.connections(), self.core.sessions());
        self.log.line(
            LogType::Information,
            &format!("Worker {}: connections={connections} sessions={sessions} {}", self.id.0, text.join(" ")),
        );
    }

    /// Some subscriptions, for whoever wonders where messages go.
    fn dump(&self) {
        let (some, all) = self.core.some_subscriptions(DUMPED_MAX);
        let sessions = self.core.sessions();
        let number = self.id.0;
        self.log.line(
            LogType::Information,
            &format!("Worker {number}: sessions={sessions} filter_entries={all}, of which {} follow.", some.len()),
        );
        for (client_id, filter) in some {
            self.log.line(LogType::Information, &format!("Worker {number}: {} {}", shown(client_id), shown(filter)));
        }
    }

    fn sample(&mut self) -> Sample {
        let store = self.core.store();
        let lag = if store.keeps() { store.appended().0.saturating_sub(store.durable().0) } else { 0 };
        Sample {
            worker: self.id.0,
            counters: *self.core.counters(),
            stages: self.scratch.counters,
            connections: self.core.connections() as u64,
            sessions: self.core.sessions() as u64,
            census: self.core.census(),
            lag,
        }
    }

    fn events(&mut self, now: Instant) {
        while let Some(event) = self.core.next_event() {
            // It may have been on its way when its address was denied.
            if let Event::Connected { connection, .. } = event
                && self.is_stranger(connection)
            {
                self.guarded(|core| core.transport_failed(now, connection, NOT_ALLOWED));
            }
            let about_connections = matches!(event, Event::Connected { .. } | Event::Ended { .. });
            if about_connections && !self.log.wants_connections() {
                continue;
            }
            match event {
                Event::Paused { client_id, cause, .. } => {
                    self.log.limited(LogType::Warning, "clients that are too fast", || {
                        format!("Client {} sends too fast and is read later: {cause}.", shown(&client_id))
                    });
                }
                Event::Tripped { trip, client_id, cause } => {
                    let client = client_id.map_or_else(|| "somebody".to_owned(), |client_id| shown(&client_id));
                    let (about, text) = match trip {
                        Trip::MessagesTo => (
                            "messages that are dropped",
                            format!("Outgoing messages are being dropped for client {client}"),
                        ),
                        Trip::MessagesRefused => {
                            ("messages that are refused", format!("Messages of client {client} are being refused"))
                        }
                        Trip::MessageFrom => {
                            ("messages that are too large", format!("A message of client {client} has been dropped"))
                        }
                        Trip::Retained => {
                            ("Retained Messages that are not kept", "A Retained Message has not been kept".to_owned())
                        }
                        Trip::Subscription => (
                            "subscriptions that are refused",
                            format!("Client {client} has been refused a subscription"),
                        ),
                    };
                    self.log.limited(LogType::Warning, about, || format!("{text}: {cause}."));
                }
                Event::Subscribed { client_id, filter, qos } => {
                    self.log.limited(LogType::Subscribe, "subscriptions made", || {
                        format!("{} {} {}", shown(&client_id), qos as u8, shown(&filter))
                    });
                }
                Event::Unsubscribed { client_id, filter } => {
                    self.log.limited(LogType::Unsubscribe, "subscriptions ended", || {
                        format!("{} {}", shown(&client_id), shown(&filter))
                    });
                }
                Event::Received { connection, client_id, packet_type, bytes } => {
                    self.log.limited(LogType::Debug, "packets received", || {
                        let client = client_id.map_or_else(|| self.peer(connection), |client_id| shown(&client_id));
                        let name = packet_type.map_or_else(String::new, |it| format!("{it:?}").to_uppercase());
                        format!("Received {name} from {client} ({bytes} bytes).")
                    });
                }
                Event::Connected { connection, address, client_id, user_name, version, clean_start, keep_alive } => {
                    let user_name = user_name.map(|name| format!(", u{}", shown(&name))).unwrap_or_default();
                    let peer = address.map_or_else(|| self.peer(connection), |address| address.to_string());
                    self.log.limited(LogType::Notice, "connected clients", || {
                        format!(
                            "New client connected from {peer} as {} ({version:?}, c{}, k{keep_alive}{user_name}).",
                            shown(&client_id),
                            u8::from(clean_start)
                        )
                    });
                }
                Event::Ended { client_id: Some(client_id), why: End::Client(_), .. } => {
                    self.log.limited(LogType::Notice, "disconnected clients", || {
                        format!("Client {} disconnected.", shown(&client_id))
                    });
                }
                Event::Ended { client_id: Some(client_id), why, .. } => {
                    self.log.limited(LogType::Notice, "disconnected clients", || {
                        format!("Client {} disconnected: {why}.", shown(&client_id))
                    });
                }
                Event::Sent { connection, client_id, packet_type, bytes } => {
                    self.log.limited(LogType::Debug, "packets sent", || {
                        let client = client_id.map_or_else(|| self.peer(connection), |client_id| shown(&client_id));
                        let name = packet_type.map_or_else(String::new, |it| format!("{it:?}").to_uppercase());
                        format!("Sent {name} to {client} ({bytes} bytes).")
                    });
                }
                Event::Ended { connection, address, client_id: None, why } => {
                    let peer = address.map_or_else(|| self.peer(connection), |address| address.to_string());
                    self.log.limited(LogType::Notice, "refused connections", || {
                        format!("Connection from {peer} closed: {why}.")
                    });
                }
            }
        }
    }

    fn peer(&self, key: ConnectionKey) -> String {
        if let Some(address) = self.core.peer(key).and_then(|peer| peer.address) {
            return address.to_string();
        }
        let slot = self.slots.get(key as usize).and_then(Option::as_ref);
        slot.map_or_else(|| "unknown".to_owned(), |slot| slot.socket.peer())
    }
}

/// Whether a connection may stay, as far as its address decides. If not, it is to be closed.
fn admit(
    addresses: &Addresses,
    core: &mut Core<AnyStore>,
    log: &Log,
    address: Option<SocketAddr>,
) -> Option<Option<Counted>> {
    let Some(address) = address else { return Some(None) };
    match addresses.admit(std::time::Instant::now(), address.ip()) {
        Ok(counted) => Some(counted),
        Err(TooMany { limit, max }) => {
            core.count_refused_address();
            log.limited(LogType::Notice, "connections beyond a limit", || {
                format!("Connection from {address} closed: {limit} is {max}.")
            });
            None
        }
    }
}

/// The events that there are lines for.
fn wanted(log: &Log) -> Wanted {
    Wanted {
        subscriptions: log.wants(LogType::Subscribe) || log.wants(LogType::Unsubscribe),
        packets: log.wants(LogType::Debug),
    }
}

/// Writes output that has shared payloads in it.
#[inline(never)]
fn write_slices(core: &Core<AnyStore>, socket: &Socket, key: ConnectionKey) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = core.slices(key, &mut slices);
    socket.write_slices(&slices[..filled])
}
