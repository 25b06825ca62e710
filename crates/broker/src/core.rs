//! The core's state, its inputs and its outputs. What happens to a packet is in the files named after it.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::io::IoSlice;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashTable;
use pantala_proto::{Disconnect, Packet, PacketType, PlainPublish, Publish, ReasonCode, frame};
use pantala_router::{FilterTree, RetainedIndex};
use pantala_session::Instant;
use pantala_store::{MessageId, Position, Store};
use slab::Slab;

use crate::asking::Verdict;
use crate::authentication::{Brake, Method, Unbraked};
use crate::census::Counting;
use crate::connection::{Answer, Connection, Phase, Place};
use crate::durability::RetainedBefore;
use crate::event::Wanted;
use crate::loaded::Loaded;
use crate::mailbox::{Batch, Outbox, Phase as BatchPhase};
use crate::maybe_instant::MaybeInstant;
use crate::output::BufferPool;
use crate::pace::{Paces, Rates, Takeovers};
use crate::persist::Naming;
use crate::publisher::Publishers;
use crate::replay::{Query, Retained};
use crate::route::Match;
use crate::sent::Unsent;
use crate::session::{Grant, Session, SessionKey};
use crate::settings::Told;
use crate::shared::Groups;
use crate::timers::Timers;
use crate::{
    AuthenticationRequest, Cause, ConnectionKey, Counters, End, Event, ListenerId, Peer, RightsSource, SecurityId,
    Settings, Stranger, Trip, Unrestricted, Verified, WorkerId,
};

/// Fills a slice with random bytes that nobody can guess; in a simulation, with bytes from its seed.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Numbers that all workers of a broker share, for the limits that hold for all of them together.
#[derive(Debug, Default)]
pub struct Totals {
    /// Clients that are let in.
    pub connections: AtomicU32,
    /// The same for each listener. Read and written at CONNECT and at the end of a connection.
    listeners: RwLock<Vec<AtomicU32>>,
    /// Sessions.
    pub sessions: AtomicU32,
    /// Retained Messages of clients.
    pub retained: AtomicU32,
    /// Retained Messages of the broker itself, which no limit counts.
    pub retained_own: AtomicU32,
    /// The process has more memory than it should: no client is let in, and no QoS 0 message is queued. The shell says so.
    pub memory_short: AtomicBool,
    pub(crate) retained_before: RetainedBefore,
}

impl Totals {
    /// All zero.
    pub fn new(listeners: usize) -> Self {
        let totals = Self::default();
        totals.grow(listeners);
        totals
    }

    /// Makes room for listeners that are new; those that are there keep their numbers. To be called before any core hears of
    /// them.
    pub fn grow(&self, listeners: usize) {
        let mut counts = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        if counts.len() < listeners {
            counts.resize_with(listeners, AtomicU32::default);
        }
    }

    /// Clients that are let in by a listener.
    pub fn on_listener(&self, listener: ListenerId) -> u32 {
        self.with_listener(listener, |count| count.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The same for all of them, by their numbers.
    pub fn on_listeners(&self) -> Vec<u32> {
        let counts = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn with_listener<T>(&self, listener: ListenerId, work: impl FnOnce(&AtomicU32) -> T) -> Option<T> {
        let counts = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(usize::from(listener)).map(work)
    }
}

/// What a core is made from.
pub struct CoreOptions {
    /// Shared by all workers.
    pub settings: Arc<Settings>,
    /// Which worker this is.
    pub worker: WorkerId,
    /// How many there are: 1..=[`WORKERS_MAX`](crate::WORKERS_MAX).
    pub workers: u8,
    /// Shared by all workers.
    pub totals: Arc<Totals>,
    /// Methods of enhanced authentication.
    pub methods: Arc<[Box<dyn Method>]>,
    /// Asked before they look at a proof.
    pub brake: Arc<dyn Brake>,
    /// What clients may do, until [`Core::rights_changed`] brings another.
    pub rights: Arc<dyn RightsSource>,
    /// Source of assigned Client Identifiers, nonces and hash keys.
    pub random: Random,
}

impl CoreOptions {
    /// Those of a broker with one worker, no enhanced authentication and no rules.
    pub fn alone(settings: Arc<Settings>, random: Random) -> Self {
        let totals = Arc::new(Totals::new(settings.listeners.len()));
        let (methods, brake, rights) = (Arc::new([]), Arc::new(Unbraked), Arc::new(Unrestricted));
        Self { settings, worker: WorkerId(0), workers: 1, totals, methods, brake, rights, random }
    }
}

/// What the shell has to do about a connection.
#[derive(Debug, Clone)]
pub enum Action {
    /// Write what waits, as far as the socket takes it within a moment, close it, and call [`Core::closed`].
    Close(ConnectionKey),
    /// Move the socket to another worker: call [`Core::closed`] here, open a connection there, introduce `peer`, tell
    /// it `verified` by [`Core::identified`], let it receive `input`, and go on there.
    HandOver {
        /// Where it was.
        connection: ConnectionKey,
        /// Where it belongs.
        to: WorkerId,
        /// All that has been received and not been acted upon.
        input: Vec<u8>,
        /// What the core was told by [`Core::introduce`].
        peer: Option<Box<Peer>>,
        /// Who the client has been found to be, if it has.
        verified: Option<Box<Verified>>,
    },
    /// Verify a client's credentials, and call [`Core::authenticated`] with what comes of it.
    Authenticate {
        /// The connection that waits for it.
        connection: ConnectionKey,
        /// Tells it from later connections with the same key.
        generation: u32,
        /// What there is to verify.
        request: Box<AuthenticationRequest>,
    },
    /// A client that may has published to a topic below `$CONTROL`: it is a command, and goes to nobody else. What there is to
    /// be answered goes back by [`Core::control_response`].
    Control {
        /// The client's connection.
        connection: ConnectionKey,
        /// Tells it from later connections with the same key.
        generation: u32,
        /// The security domain whose user gives the command.
        security: SecurityId,
        /// Its Client Identifier.
        client_id: Box<str>,
        /// Its user name.
        user_name: Option<Box<str>>,
        /// Where it has published.
        topic_name: Box<str>,
        /// What.
        payload: Box<[u8]>,
    },
}

/// What a timer is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Timer {
    Connection(ConnectionKey),
    Session(SessionKey),
    /// Looks for Retained Messages that have expired.
    RetainedSweep,
}

/// Where in a tree entry a match leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Session(SessionKey),
    /// A group at home here.
    Group(u32),
    Worker(WorkerId),
}

/// Something that waits for other workers.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) remaining: u16,
    pub(crate) then: Vec<Then>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// A held answer has one confirmation more; `replay` is the place, in a SUBACK, of the subscription confirmed.
    Held { connection: ConnectionKey, generation: u32, number: u32, replay: Option<u32> },
    /// The others have passed on what they had: a look at Retained Messages may go on.
    Flushed { session: SessionKey, generation: u32 },
    /// Confirm to the worker that asked.
    Confirm { worker: WorkerId, token: u32 },
}

/// Interest of this worker in a filter, of which the others have to know.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    pub(crate) count: u32,
    /// How many of them are those of Sessions that outlive the process.
    pub(crate) kept: u32,
    /// The announcement that the others have not all confirmed.
    pub(crate) announcement: Option<u32>,
}

/// What follows a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// The connection is closing or gone.
    Stop,
    /// The connection belongs to another worker.
    HandOver(WorkerId),
    /// Other workers have to be heard before the packet can be dealt with.
    Wait,
    /// The credentials of the CONNECT have to be verified before.
    Verify,
}

enum Step {
    Consumed(usize),
    /// It is to be taken up again, and with it what follows.
    Wait,
    Incomplete(usize),
    Stop,
    HandOver(WorkerId),
}

/// One worker's share of a broker. See the crate's page.
pub struct Core<S> {
    pub(crate) settings: Arc<Settings>,
    /// The same, as clients are told of them.
    told: Told,
    /// How fast clients may send.
    pub(crate) rates: Rates,
    pub(crate) worker: WorkerId,
    pub(crate) workers: u8,
    pub(crate) totals: Arc<Totals>,
    pub(crate) methods: Arc<[Box<dyn Method>]>,
    pub(crate) brake: Arc<dyn Brake>,
    pub(crate) rights: Arc<dyn RightsSource>,
    /// Grows whenever the rights of a Session change, and whatever else decides where its messages go.
    pub(crate) rights_changes: u64,
    pub(crate) random: Random,
    pub(crate) store: S,
    pub(crate) connections: Slab<Connection>,
    pub(crate) sessions: Slab<Session>,
    /// Sessions by Client Identifier. The keys come before authentication, so they are hashed with std's SipHash.
    pub(crate) client_ids: HashTable<SessionKey>,
    pub(crate) client_id_hasher: RandomState,
    pub(crate) next_generation: u32,
    pub(crate) tree: FilterTree<Target, Grant>,
    pub(crate) retained: RetainedIndex<Retained>,
    pub(crate) publishers: Publishers,
    pub(crate) groups: Groups,
    pub(crate) interests: HashMap<Box<str>, Interest>,
    pub(crate) pending: HashMap<u32, Pending>,
    pub(crate) next_token: u32,
    /// Connections with answers that wait for the store, by the position they wait for.
    pub(crate) waiting_for_store: VecDeque<(Position, ConnectionKey, u32)>,
    /// The same with what only has to be written.
    pub(crate) waiting_for_write: VecDeque<(Position, ConnectionKey, u32)>,
    /// The same for connections whose whole output waits.
    pub(crate) waiting_gates: VecDeque<(Position, ConnectionKey, u32)>,
    /// The same for Sessions with a message that must not go out before.
    pub(crate) waiting_sessions: VecDeque<(Position, SessionKey, u32)>,
    /// What the message that is being routed needs of the store.
    pub(crate) naming: Naming,
    /// The message of another worker that the store waits for us to name the receivers of, while it is being routed.
    pub(crate) naming_for: Option<MessageId>,
    /// Bytes of queued messages that are in memory.
    pub(crate) queued_memory: u64,
    pub(crate) queries: HashMap<u32, Query>,
    /// For each worker, how many Retained Messages its clients have written, as far as is known here: see `replay.rs`.
    pub(crate) writes_seen: Box<[u64]>,
    /// Sessions with Retained Messages to send and room to send them.
    pub(crate) replaying: VecDeque<(SessionKey, u32)>,
    /// Connections to go on with, and the tokens they have waited for.
    pub(crate) decided: VecDeque<(ConnectionKey, u32)>,
    /// The one that is being gone on with, and its generation; left behind by a panic.
    pub(crate) going_on: Option<(ConnectionKey, u32)>,
    /// What was decided about the PUBLISH that comes next.
    pub(crate) verdict: Option<Verdict>,
    /// There may be something in `replaying`, `decided` or `going_on`: one look in every turn, instead of three.
    pub(crate) work: bool,
    pub(crate) timers: Timers<Timer>,
    pub(crate) retained_sweep: Option<pantala_router::Cursor>,
    /// Retained Messages here that expire some day: without any nothing has to be looked through.
    pub(crate) retained_expiring: usize,
    /// Bytes of their payloads.
    pub(crate) retained_bytes: u64,
    pub(crate) counting: Counting,
    pub(crate) takeovers: Takeovers,
    pub(crate) paces: Paces,
    pub(crate) wanted: Wanted,
    /// While they are wanted: packets that a socket has taken in part.
    pub(crate) unsent: Unsent,
    /// Those that were not kept, of which the store has to learn.
    pub(crate) retained_ended: Vec<(Box<str>, MessageId)>,
    /// Those from before a rule that the store is to forget, by the position at which it has.
    pub(crate) retained_ending: VecDeque<(Position, Box<str>)>,
    pub(crate) outboxes: Vec<Outbox>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) events: VecDeque<Event>,
    /// For each [`Trip`], whether one waits in `events`.
    tripped: [bool; 5],
    pub(crate) dirty: Vec<ConnectionKey>,
    pub(crate) pool: BufferPool,
    pub(crate) loaded: Loaded,
    pub(crate) counters: Counters,
    pub(crate) matches: Vec<Match>,
    pub(crate) group_matches: Vec<u32>,
    /// Other workers that the message just matched is for, as bits.
    pub(crate) remote_matches: u64,
    /// Those of them with Sessions that outlive the process.
    pub(crate) remote_keeps: u64,
    /// Subscription Identifiers beyond the first, with the index of their match.
    pub(crate) merged_identifiers: Vec<(u32, NonZeroU32)>,
    pub(crate) match_epoch: u32,
    /// A packet encoded once for many receivers.
    pub(crate) encoded: Vec<u8>,
    pub(crate) shutting_down: bool,
}

impl<S: Store> Core<S> {
    /// A core without connections and Sessions.
    pub fn new(mut options: CoreOptions, store: S) -> Self {
        let mut seed = [0; 16];
        (options.random)(&mut seed);
        let (tree_seed, retained_seed) = seed.split_at(8);
        let seed = |bytes: &[u8]| bytes.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let workers = options.workers.clamp(1, crate::WORKERS_MAX);
        Self {
            told: Told::new(&options.settings),
            rates: Rates::new(&options.settings),
            settings: options.settings,
            worker: options.worker,
            workers,
            totals: options.totals,
            methods: options.methods,
            brake: options.brake,
            rights: options.rights,
            rights_changes: 0,
            random: options.random,
            store,
            connections: Slab::new(),
            sessions: Slab::new(),
            client_ids: HashTable::new(),
            client_id_hasher: RandomState::new(),
            next_generation: 0,
            tree: FilterTree::new(seed(tree_seed)),
            retained: RetainedIndex::new(seed(retained_seed)),
            publishers: Publishers::default(),
            groups: Groups::default(),
            interests: HashMap::new(),
            pending: HashMap::new(),
            next_token: 0,
            waiting_for_store: VecDeque::new(),
            waiting_for_write: VecDeque::new(),
            waiting_gates: VecDeque::new(),
            waiting_sessions: VecDeque::new(),
            naming: Naming::default(),
            naming_for: None,
            queued_memory: 0,
            queries: HashMap::new(),
            writes_seen: vec![0; usize::from(workers)].into(),
            replaying: VecDeque::new(),
            decided: VecDeque::new(),
            going_on: None,
            verdict: None,
            work: false,
            timers: Timers::new(),
            retained_sweep: None,
            retained_expiring: 0,
            retained_bytes: 0,
            counting: Counting::default(),
            takeovers: Takeovers::default(),
            paces: Paces::default(),
            wanted: Wanted::default(),
            unsent: Unsent::default(),
            retained_ended: Vec::new(),
            retained_ending: VecDeque::new(),
            outboxes: (0..workers).map(|_| Outbox::new(options.worker)).collect(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            tripped: [false; 5],
            dirty: Vec::new(),
            pool: BufferPool::default(),
            loaded: Loaded::default(),
            counters: Counters::default(),
            matches: Vec::new(),
            group_matches: Vec::new(),
            remote_matches: 0,
            remote_keeps: 0,
            merged_identifiers: Vec::new(),
            match_epoch: 0,
            encoded: Vec::new(),
            shutting_down: false,
        }
    }

    // ---- inputs -----------------------------------------------------------------------------------------------

    /// A Network Connection has been accepted on a listener.
    pub fn open(&mut self, now: Instant, listener: ListenerId) -> ConnectionKey {
        self.counters.connections_opened += 1;
        let generation = self.generation();
        let connection = Connection::new(generation, listener, self.told.at(listener), now);
        let key = self.connections.insert(connection) as ConnectionKey;
        self.arm(now, key);
        key
    }

    /// Other settings hold from now on, among them those of listeners that are new: the numbers of the old ones stay.
    ///
    /// What an MQTT 5 client was told at CONNECT holds until its connection ends: the size of packets, Receive Maximum, Topic
    /// Aliases, and what is not supported. So does the window towards a client, its Keep Alive, and the expiry of its Session.
    /// Nothing that is there already is taken away because a limit is lower now. `durability_rules` have to stay as they are:
    /// the store was opened with them.
    pub fn reconfigure(&mut self, now: Instant, settings: Arc<Settings>) {
        self.totals.grow(settings.listeners.len());
        let others = settings.connect_seconds != self.settings.connect_seconds
            || settings.write_stall_seconds != self.settings.write_stall_seconds;
        if settings.sparkplug_aware != self.settings.sparkplug_aware {
            // A birth goes another way than publishers remember.
            self.rights_changes += 1;
        }
        self.told = Told::new(&settings);
        self.rates = Rates::new(&settings);
        self.settings = settings;
        let mut keys = Vec::new();
        for (key, connection) in &mut self.connections {
            connection.set_pace(&self.rates);
            let not_let_in = !matches!(connection.phase, Phase::Connected | Phase::Closing);
            if not_let_in {
                connection.told = self.told.at(connection.listener);
            }
            if others && (not_let_in || connection.stalled_since.is_some()) {
                keys.push(key as ConnectionKey);
            }
        }
        for key in keys {
            self.arm(now, key);
        }
        self.judge_entries(now);
    }

    /// Other methods of enhanced authentication. Exchanges that have begun go on as they began.
    pub fn replace_methods(&mut self, methods: Arc<[Box<dyn Method>]>) {
        self.methods = methods;
    }

    /// What the transport knows about the client. To be called before the first [`Core::receive`] of a connection, and again
    /// if more is known before then: the last one counts.
    pub fn introduce(&mut self, key: ConnectionKey, peer: Box<Peer>) {
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.place = Place::Peer(peer);
            connection.set_pace(&self.rates);
        }
    }

    /// Bytes have arrived. Unknown keys and connections that are closing are ignored.
    pub fn receive(&mut self, now: Instant, key: ConnectionKey, input: &[u8]) {
        self.counters.bytes_received += input.len() as u64;
        let Some(connection) = self.connections.get(key as usize) else { return };
        if connection.paced {
            return self.receive_at_pace(now, key, input, input.len());
        }
        self.take_in(now, key, input);
    }

    #[inline(always)]
    pub(crate) fn take_in(&mut self, now: Instant, key: ConnectionKey, mut input: &[u8]) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if !connection.input.is_empty() {
            match self.receive_more(now, key, input) {
                Some(rest) => input = rest,
                None => return,
            }
        }
        while !input.is_empty() {
            match self.step(now, key, input) {
                Step::Consumed(bytes) => input = &input[bytes..],
                Step::Incomplete(needed) => return self.stash(key, input.to_vec(), needed),
                Step::Stop => return,
                Step::HandOver(to) => return self.hand_over(key, to, input.to_vec()),
                Step::Wait => return self.stash(key, input.to_vec(), 0),
            }
        }
    }

    /// Bytes for a packet whose front came before. Returns what is left behind it; None if the packet needs more, or nothing
    /// is to be done with the rest.
    #[inline(never)]
    fn receive_more<'i>(&mut self, now: Instant, key: ConnectionKey, mut input: &'i [u8]) -> Option<&'i [u8]> {
        let connection = self.connections.get_mut(key as usize)?;
        if connection.is_asking() || connection.phase == Phase::Verifying {
            connection.input.extend_from_slice(input);
            return None;
        }
        let mut stash = std::mem::take(&mut connection.input);
        let mut needed = connection.needed as usize;
        loop {
            let (more, rest) = input.split_at(needed.saturating_sub(stash.len()).min(input.len()));
            stash.extend_from_slice(more);
            input = rest;
            match self.step(now, key, &stash) {
                Step::Consumed(_) => return Some(input),
                Step::Incomplete(again) => needed = again,
                Step::Stop => return None,
                Step::HandOver(to) => {
                    stash.extend_from_slice(input);
                    self.hand_over(key, to, stash);
                    return None;
                }
                Step::Wait => {
                    stash.extend_from_slice(input);
                    self.stash(key, stash, 0);
                    return None;
                }
            }
            if input.is_empty() {
                self.stash(key, stash, needed);
                return None;
            }
        }
    }

    /// The peer has closed the Network Connection, or it has failed. The key is free.
    pub fn lost(&mut self, now: Instant, key: ConnectionKey) {
        self.end(now, key, End::Lost, None);
        // There is nothing left to be closed.
        self.actions.retain(|action| match action {
            Action::Close(connection)
            | Action::HandOver { connection, .. }
            | Action::Authenticate { connection, .. }
            | Action::Control { connection, .. } => *connection != key,
        });
        self.closed(key);
    }

    /// What stands between the socket and MQTT has found the connection unusable: the last words in its output are written, then it
    /// is closed. `why` is for the log.
    pub fn transport_failed(&mut self, now: Instant, key: ConnectionKey, why: &'static str) {
        self.end(now, key, End::Transport(why), None);
    }

    /// The shell has closed the socket that [`Action::Close`] named. The key is free.
    pub fn closed(&mut self, key: ConnectionKey) {
        if let Some(mut connection) = self.connections.try_remove(key as usize) {
            connection.output.clear(&mut self.pool);
            if let Some(timer) = connection.timer {
                self.timers.cancel(timer);
            }
            self.counters.connections_closed = self.counters.connections_closed.wrapping_add(1);
            self.unsent.forget(key);
        }
    }

    /// The Client Identifier of a connection whose client is let in.
    pub fn client_id(&self, key: ConnectionKey) -> Option<&str> {
        let session = self.connections.get(key as usize)?.session?;
        self.sessions.get(session as usize).map(|session| &*session.client_id)
    }

    /// The socket has taken `count` bytes of what [`Core::slices`] gave. Returns how many bytes wait now.
    // There are two callers, and a call would cost thirty instructions a write.
    #[inline(always)]
    pub fn wrote(&mut self, now: Instant, key: ConnectionKey, count: usize) -> usize {
        if self.wanted.packets {
            self.tell_sent(key, count);
        }
        let Some(connection) = self.connections.get_mut(key as usize) else { return 0 };
        connection.output.wrote(&mut self.pool, count);
        self.counters.bytes_sent += count as u64;
        let pending = connection.output.pending();
        if pending > 0 {
            if connection.stalled_since.is_some() {
                connection.stalled_since = now.into();
            }
        } else {
            connection.stalled_since = MaybeInstant::NONE;
            // Room again for what waited in the Session.
            let (session, window) = (connection.session, connection.window);
            if let Some(session) = session
                && self.sessions.get(session as usize).is_some_and(|session| session.has_waiting(window))
            {
                self.pump(now, session);
                return self.pending_output(key);
            }
        }
        pending
    }

    /// The socket takes no more for now.
    pub fn blocked(&mut self, now: Instant, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if !connection.stalled_since.is_some() && connection.output.pending() > 0 {
            connection.stalled_since = now.into();
            self.arm(now, key);
        }
    }

    /// Our own code has panicked over this connection: it ends, and only it.
    pub fn panicked(&mut self, now: Instant, key: ConnectionKey) {
        self.counters.panics += 1;
        self.end(now, key, End::Panic, Some(ReasonCode::UnspecifiedError));
    }

    /// The store has made more records safe, or written more of them: what waited for them goes out. Or it has failed, and
    /// nothing will: who waits to be let in is told.
    pub fn store_completed(&mut self, now: Instant) {
        let (written, durable) = (self.store.written(), self.store.durable());
        self.open_gates(now, durable);
        if self.store.has_failed() {
            self.refuse_gated(now);
        }
        self.forget_retained_before(durable);
        while let Some(waiting) = self.waiting_for_store.pop_front_if(|(position, ..)| *position <= durable) {
            self.release_waiting(waiting);
        }
        while let Some(waiting) = self.waiting_for_write.pop_front_if(|(position, ..)| *position <= written) {
            self.release_waiting(waiting);
        }
    }

    fn release_waiting(&mut self, (_, key, generation): (Position, ConnectionKey, u32)) {
        if self.connections.get(key as usize).is_some_and(|connection| connection.generation == generation) {
            self.release_held(key);
        }
    }

    /// A batch from another worker, which is empty afterwards. Should this panic, over one frame of it, another call goes on
    /// with the next.
    pub fn receive_batch(&mut self, now: Instant, batch: &mut Batch) {
        let from = batch.from;
        self.name_nobody();
        while let Some(frame) = batch.frames.pop_front() {
            self.receive_frame(now, from, &batch.bytes, frame);
        }
        batch.bytes.clear();
    }

    /// Time has passed: runs what is due.
    pub fn tick(&mut self, now: Instant) {
        // An `Instant` names a millisecond that has begun, and what began somewhere within it is over for certain only when
        // its last millisecond has ended: nothing is ever early.
        while let Some(timer) = self.timers.poll(now.0.saturating_sub(1)) {
            match timer {
                Timer::Connection(key) => self.connection_timer(now, key),
                Timer::Session(key) => self.session_timer(now, key),
                Timer::RetainedSweep => self.sweep_retained(now),
            }
        }
        self.replay_some(now);
        self.go_on(now);
        // Should something panic, all of it is looked at again.
        self.work = !self.replaying.is_empty() || !self.decided.is_empty();
    }

    /// Ends all connections: MQTT 5 clients are told Server shutting down (0x8B). Sessions are kept; Wills do not go out.
    pub fn shut_down(&mut self, now: Instant) {
        self.shutting_down = true;
        let keys: Vec<_> = self.connections.iter().map(|(key, _)| key as ConnectionKey).collect();
        for key in keys {
            self.end(now, key, End::Reason(ReasonCode::ServerShuttingDown), Some(ReasonCode::ServerShuttingDown));
        }
    }

    // ---- outputs ----------------------------------------------------------------------------------------------

    /// Connections with bytes to write that were not in this list before; `into` is cleared and filled.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionKey>) {
        into.clear();
        std::mem::swap(into, &mut self.dirty);
        for &key in into.iter() {
            if let Some(connection) = self.connections.get_mut(key as usize) {
                connection.dirty = false;
            }
        }
    }

    /// What to write next to a connection; returns how many of the slices are filled.
    #[inline]
    pub fn slices<'a>(&'a self, key: ConnectionKey, slices: &mut [IoSlice<'a>]) -> usize {
        let connection = self.connections.get(key as usize).filter(|connection| !connection.gated);
        connection.map_or(0, |connection| connection.output.slices(slices))
    }

    /// What to write next to a connection, if it is in one piece; empty if nothing waits. None: see [`Core::slices`].
    #[inline]
    pub fn contiguous_output(&self, key: ConnectionKey) -> Option<&[u8]> {
        let connection = self.connections.get(key as usize).filter(|connection| !connection.gated);
        connection.map_or(Some(&[]), |connection| connection.output.contiguous())
    }

    /// Bytes that wait to be written to a connection.
    pub fn pending_output(&self, key: ConnectionKey) -> usize {
        self.connections.get(key as usize).map_or(0, |connection| connection.output.pending())
    }

    /// Whether to read from a connection: not while it is closing, nor while its client does not read our answers, nor while
    /// a packet of it waits for other workers or for its credentials to be verified, nor while it has sent faster than it may.
    #[inline]
    pub fn wants_input(&self, key: ConnectionKey) -> bool {
        self.connections.get(key as usize).is_some_and(|connection| {
            !matches!(connection.phase, Phase::Closing | Phase::Verifying)
                && connection.output.pending() < self.settings.outgoing_bytes_max as usize
                && connection.extras.as_ref().is_none_or(|extras| {
                    extras.held.len() < HELD_MAX && extras.asking.is_none() && extras.paused_until.is_none()
                })
        })
    }

    /// The next thing to do about a connection.
    #[inline]
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to tell an operator.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Tripped { trip, .. }) = &event {
            self.tripped[*trip as usize] = false;
        }
        event
    }

    /// Tells of a limit that was met, unless that waits to be told of already.
    #[cold]
    pub(crate) fn trip(&mut self, trip: Trip, session: Option<SessionKey>, cause: Cause) {
        if !std::mem::replace(&mut self.tripped[trip as usize], true) {
            let client_id = session.map(|session| self.sessions[session as usize].client_id.clone());
            self.events.push_back(Event::Tripped { trip, client_id, cause });
        }
    }

    /// Takes what there is for another worker. At the end of each turn, and before anything is written: for each phase
    /// in order, for each worker.
    pub fn take_batch(&mut self, phase: BatchPhase, to: WorkerId) -> Option<Batch> {
        let from = self.worker;
        let batch = &mut self.outboxes.get_mut(usize::from(to.0))?.batches[phase as usize];
        if batch.is_empty() { None } else { Some(std::mem::replace(batch, Batch::new(from))) }
    }

    /// When [`Core::tick`] has something to do; it may be called earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_work() {
            return Some(Instant(0));
        }
        self.timers.next_deadline().map(|deadline| Instant(deadline.saturating_add(1)))
    }

    /// Whether [`Core::take_dirty`] or [`Core::take_batch`] has something to give. Writing to a connection may bring both.
    pub fn has_output(&self) -> bool {
        !self.dirty.is_empty() || self.workers > 1 && self.outboxes.iter().any(|outbox| !outbox.is_empty())
    }

    /// The shell has closed a connection before the core heard of it: too many came from its address.
    pub fn count_refused_address(&mut self) {
        self.counters.connections_refused_address += 1;
    }

    /// Some subscriptions, for an operator: Client Identifiers and Topic Filters, so many at the most, and how many Topic
    /// Filters there are in all, those of other workers among them.
    pub fn some_subscriptions(&self, at_most: usize) -> (Vec<(&str, &str)>, usize) {
        let of = |session: &'_ Session| !session.subscriptions.is_empty();
        let sessions = self.sessions.iter().map(|(_, session)| session).filter(|session| of(session));
        let all =
            sessions.flat_map(|session| session.subscriptions.filters().map(|filter| (&*session.client_id, filter)));
        (all.take(at_most).collect(), self.tree.len())
    }

    /// A panic in work that no one connection was the cause of.
    pub fn count_panic(&mut self) {
        self.counters.panics += 1;
        self.stop_going_on();
    }

    /// A connection was closed before it was opened here, for its address.
    pub fn count_not_allowed(&mut self) {
        self.counters.connections_not_allowed += 1;
    }

    /// Whether [`Core::next_action`] has something to give.
    #[inline]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether [`Core::next_event`] has something to give.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether [`Core::tick`] has something to do now, whatever the time: Retained Messages to send, or connections to go on
    /// with that have waited for other workers.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.work
    }

    /// Says which events beyond connections and their ends are wanted. None is, at first.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        if !wanted.packets {
            self.unsent = Unsent::default();
        }
    }

    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What [`Core::introduce`] told; None once the client is let in.
    pub fn peer(&self, key: ConnectionKey) -> Option<&Peer> {
        self.connections.get(key as usize)?.place.peer()
    }

    /// Where a client that is let in comes from. Inside is None for a Unix socket; None if it is not, or not any more.
    pub fn client_address(&self, key: ConnectionKey) -> Option<Option<IpAddr>> {
        let connection =
            self.connections.get(key as usize).filter(|connection| connection.phase == Phase::Connected)?;
        Some(connection.place.address())
    }

    /// Connections, whatever their phase.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Sessions, their clients connected or not.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Hands over to the store what has been appended: at the end of each turn, and before anything is written.
    #[inline]
    pub fn submit(&mut self) {
        self.store.submit();
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Access to the store, for those who drive it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    // ---- packets ----------------------------------------------------------------------------------------------

    /// Takes one packet off the front of `bytes`, if a whole one is there.
    #[inline(always)]
    fn step(&mut self, now: Instant, key: ConnectionKey, bytes: &[u8]) -> Step {
        let Some(connection) = self.connections.get_mut(key as usize) else { return Step::Stop };
        let first_byte = bytes[0];
        let bytes_max = match connection.phase {
            Phase::Connected => connection.told.packet_bytes_max,
            Phase::Closing => return Step::Stop,
            Phase::Verifying => return Step::Wait,
            Phase::AwaitConnect if first_byte != CONNECT_FIRST_BYTE => {
                // A TLS ClientHello begins like a CONNECT with wrong flags.
                let end = match Stranger::recognise(bytes) {
                    Stranger::OtherPacket if first_byte >> 4 == PacketType::Connect as u8 => {
                        End::Decode(pantala_proto::DecodeError::HeaderFlags)
                    }
                    stranger => End::NotMqtt(stranger),
                };
                self.end(now, key, end, None);
                return Step::Stop;
            }
            Phase::AwaitConnect | Phase::Authenticating => {
                connection.told.connect_packet_bytes_max.min(connection.told.packet_bytes_max)
            }
        };
        // Wrong first bytes are known for wrong before the rest has come.
        let is_publish = first_byte >> 4 == PacketType::Publish as u8;
        if !is_publish && let Err(error) = frame::check_first_byte(connection.version, first_byte) {
            self.fail(now, key, error);
            return Step::Stop;
        }
        let frame = match frame::split(bytes, bytes_max) {
            Ok(frame::Split::Frame(frame)) => frame,
            Ok(frame::Split::Incomplete { needed }) => return Step::Incomplete(needed),
            Err(error) => {
                self.fail(now, key, error);
                return Step::Stop;
            }
        };
        connection.keep_alive.packet_received(now);
        let (phase, version) = (connection.phase, connection.version);
        // A CONNECT that comes again, now that it has been verified, has been told of.
        if self.wanted.packets && connection.extras.as_ref().is_none_or(|extras| extras.verified.is_none()) {
            let client_id = connection.session.map(|session| self.sessions[session as usize].client_id.clone());
            let (packet_type, bytes) = (PacketType::from_bits(first_byte >> 4), frame.packet_bytes);
            self.events.push_back(Event::Received { connection: key, client_id, packet_type, bytes });
        }
        let flow = if is_publish && phase == Phase::Connected {
            if let Some(route) = &connection.route
                && first_byte == PLAIN_PUBLISH
                && frame.body.starts_with(&route.body_start)
                && route.changes == self.tree.changes() + self.rights_changes
            {
                let session = route.session;
                let payload_bytes = frame.body.len() - route.body_start.len();
                if self.forward_plain(session, version, &bytes[..frame.packet_bytes], payload_bytes) {
                    self.counters.publish_received += 1;
                    self.counters.publish_bytes_received += payload_bytes as u64;
                    return Step::Consumed(frame.packet_bytes);
                }
            }
            let Some(connection) = self.connections.get_mut(key as usize) else { return Step::Stop };
            if let Some(session) = connection.session
                && let Some(plain) = PlainPublish::decode(version, first_byte, frame.body)
                && self.publish_plain(now, key, session, version, &plain, &bytes[..frame.packet_bytes])
            {
                return Step::Consumed(frame.packet_bytes);
            }
            match Publish::decode(version, first_byte, frame.body) {
                Ok(publish) => self.publish(now, key, &publish),
                Err(error) => self.fail(now, key, error),
            }
        } else {
            self.packet(now, key, first_byte, frame.body)
        };
        match flow {
            Flow::Continue => Step::Consumed(frame.packet_bytes),
            Flow::Stop => Step::Stop,
            Flow::HandOver(to) => Step::HandOver(to),
            Flow::Wait | Flow::Verify => Step::Wait,
        }
    }

    /// Everything but a PUBLISH on a connection that is let in.
    fn packet(&mut self, now: Instant, key: ConnectionKey, first_byte: u8, body: &[u8]) -> Flow {
        let Some(connection) = self.connections.get(key as usize) else { return Flow::Stop };
        let phase = connection.phase;
        self.counters.other_packets_received += 1;
        if phase == Phase::AwaitConnect {
            self.counters.connect_received += 1;
            return self.connect(now, key, body);
        }
        let packet = match Packet::decode(connection.version, first_byte, body) {
            Ok(packet) => packet,
            Err(error) => return self.fail(now, key, error),
        };
        match packet {
            Packet::Auth(auth) => self.auth(now, key, &auth),
            Packet::Disconnect(disconnect) => self.client_disconnects(now, key, &disconnect),
            _ if phase != Phase::Connected => self.break_off(now, key, ReasonCode::ProtocolError, Cause::PacketType),
            Packet::Acknowledgement(acknowledgement) => self.acknowledgement(now, key, &acknowledgement),
            Packet::Subscribe(subscribe) => self.subscribe(now, key, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(now, key, &unsubscribe),
            Packet::PingReq => {
                // In its turn, so that it tells a client that all before it has been dealt with.
                self.answer(key, Position::default(), 0, Answer::PingResp);
                Flow::Continue
            }
            Packet::Publish(publish) => self.publish(now, key, &publish),
            Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.break_off(now, key, ReasonCode::ProtocolError, Cause::PacketType)
            }
        }
    }

    fn client_disconnects(&mut self, now: Instant, key: ConnectionKey, disconnect: &Disconnect<'_>) -> Flow {
        use ReasonCode as R;
        // Codes that only a server may send (v5 section 3.14.2.1).
        let server_only = matches!(
            disconnect.reason_code,
            R::NotAuthorized
                | R::ServerBusy
                | R::ServerShuttingDown
                | R::KeepAliveTimeout
                | R::SessionTakenOver
                | R::TopicFilterInvalid
                | R::RetainNotSupported
                | R::QoSNotSupported
                | R::UseAnotherServer
                | R::ServerMoved
                | R::SharedSubscriptionsNotSupported
                | R::ConnectionRateExceeded
                | R::MaximumConnectTime
                | R::SubscriptionIdentifiersNotSupported
                | R::WildcardSubscriptionsNotSupported
        );
        let Some(connection) = self.connections.get(key as usize) else { return Flow::Stop };
        if let Some(session_key) = connection.session
            && let Some(session) = self.sessions.get_mut(session_key as usize)
        {
            if let Some(seconds) = disconnect.session_expiry_interval {
                // v5 section 3.14.2.2.2: a Session that was to end cannot be made to stay.
                if session.expiry_interval == 0 && seconds > 0 {
                    return self.break_off(now, key, R::ProtocolError, Cause::SessionExpiry);
                }
                // Recorded with the end of the connection, which follows.
                session.expiry_interval = cap_expiry(&self.settings, seconds);
            }
            if server_only || disconnect.server_reference.is_some() {
                return self.break_off(now, key, R::ProtocolError, Cause::ServerOnly);
            }
            if disconnect.reason_code == R::Success {
                // v5 MQTT-3.14.4-3, v3.1.1 MQTT-3.14.4-3.
                self.forget_will(session_key);
            }
        }
        self.end(now, key, End::Client(disconnect.reason_code), None)
    }

    fn stash(&mut self, key: ConnectionKey, input: Vec<u8>, needed: usize) {
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.input = input;
            connection.needed = needed as u32;
        }
    }

    fn hand_over(&mut self, key: ConnectionKey, to: WorkerId, input: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.phase = Phase::Closing;
        if self.wanted.packets {
            self.events.retain(|event| !matches!(event, Event::Received { connection, .. } if *connection == key));
        }
        let peer = connection.place.take_peer();
        let verified = connection.extras.as_mut().and_then(|extras| extras.verified.take());
        // It opens, closes and is read once more where it goes.
        self.counters.bytes_received -= input.len() as u64;
        self.counters.other_packets_received -= 1;
        self.counters.connect_received -= 1;
        self.counters.connections_opened -= 1;
        self.counters.connections_closed = self.counters.connections_closed.wrapping_sub(1);
        self.actions.push_back(Action::HandOver { connection: key, to, input, peer, verified });
    }
}

/// The Session Expiry Interval that a wish comes to.
pub(crate) fn cap_expiry(settings: &Settings, seconds: u32) -> u32 {
    settings.session_expiry_max.map_or(seconds, |max| seconds.min(max))
}

const CONNECT_FIRST_BYTE: u8 = 0x10;
/// PUBLISH at QoS 0 without RETAIN.
const PLAIN_PUBLISH: u8 = 0x30;
/// Answers of one connection that may wait for the store or other workers; with so many, reading from it pauses.
const HELD_MAX: usize = 10_000;
