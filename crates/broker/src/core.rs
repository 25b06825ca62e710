//! The core's state, its inputs and its outputs. What happens to a packet is in the files named after it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io::IoSlice;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hashbrown::HashTable;
use pantala_proto::{Disconnect, Packet, PacketId, PacketType, PlainPublish, Publish, ReasonCode, frame};
use pantala_router::{FilterTree, RetainedIndex};
use pantala_session::Instant;
use pantala_store::{Position, Record, Store};
use slab::Slab;

use crate::authentication::Method;
use crate::connection::{Answer, Connection, Held, Phase};
use crate::mailbox::{Batch, Frame, Outbox, Phase as BatchPhase};
use crate::output::BufferPool;
use crate::replay::{Query, Retained};
use crate::route::Match;
use crate::session::{Grant, Session, SessionKey, Subscription};
use crate::shared::{GroupId, Groups, Member};
use crate::timers::Timers;
use crate::{ConnectionKey, Counters, End, Event, ListenerId, Settings, Stranger, WorkerId, owner};

/// Fills a slice with random bytes that nobody can guess; in a simulation, with bytes from its seed.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Numbers that all workers of a broker share, for the limits that hold for all of them together.
#[derive(Debug, Default)]
pub struct Totals {
    /// Clients that are let in.
    pub connections: AtomicU32,
    /// The same for each listener.
    pub listeners: Vec<AtomicU32>,
    /// Sessions.
    pub sessions: AtomicU32,
    /// Retained Messages.
    pub retained: AtomicU32,
}

impl Totals {
    /// All zero.
    pub fn new(listeners: usize) -> Self {
        Self { listeners: std::iter::repeat_with(AtomicU32::default).take(listeners).collect(), ..Self::default() }
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
    /// Source of assigned Client Identifiers, nonces and hash keys.
    pub random: Random,
}

impl CoreOptions {
    /// Those of a broker with one worker and no enhanced authentication.
    pub fn alone(settings: Arc<Settings>, random: Random) -> Self {
        let totals = Arc::new(Totals::new(settings.listeners.len()));
        Self { settings, worker: WorkerId(0), workers: 1, totals, methods: Arc::new([]), random }
    }
}

/// What the shell has to do about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write what waits, as far as the socket takes it within a moment, close it, and call [`Core::closed`].
    Close(ConnectionKey),
    /// Move the socket to another worker: call [`Core::closed`] here, open a connection there, let it receive `input`, and
    /// go on there.
    HandOver {
        /// Where it was.
        connection: ConnectionKey,
        /// Where it belongs.
        to: WorkerId,
        /// All that has been received and not been acted upon.
        input: Vec<u8>,
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
    pub(crate) refused: bool,
    pub(crate) then: Vec<Then>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// A held answer has one confirmation more; `replay` is the place, in a SUBACK, of the subscription confirmed.
    Held { connection: ConnectionKey, generation: u32, number: u32, replay: Option<u32> },
    /// The others have passed on what they had: a look at Retained Messages may go on.
    Flushed { session: SessionKey, generation: u32 },
    /// A QoS 2 message that was refused does not keep its Packet Identifier (v5 MQTT-4.3.3-9), whether or not its
    /// connection is still there.
    Release { session: SessionKey, generation: u32, packet_id: PacketId },
    /// Confirm to the worker that asked.
    Confirm { worker: WorkerId, token: u32 },
}

/// Interest of this worker in a filter, of which the others have to know.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    pub(crate) count: u32,
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
}

enum Step {
    Consumed(usize),
    Incomplete(usize),
    Stop,
    HandOver(WorkerId),
}

/// One worker's share of a broker. See the crate's page.
pub struct Core<S> {
    pub(crate) settings: Arc<Settings>,
    pub(crate) worker: WorkerId,
    pub(crate) workers: u8,
    pub(crate) totals: Arc<Totals>,
    pub(crate) methods: Arc<[Box<dyn Method>]>,
    pub(crate) random: Random,
    pub(crate) store: S,
    pub(crate) connections: Slab<Connection>,
    pub(crate) sessions: Slab<Session>,
    /// Sessions by Client Identifier. The keys come before authentication, so they are hashed with std's SipHash.
    client_ids: HashTable<SessionKey>,
    client_id_hasher: RandomState,
    pub(crate) next_generation: u32,
    pub(crate) tree: FilterTree<Target, Grant>,
    pub(crate) retained: RetainedIndex<Retained>,
    pub(crate) groups: Groups,
    pub(crate) interests: HashMap<Box<str>, Interest>,
    pub(crate) pending: HashMap<u32, Pending>,
    pub(crate) next_token: u32,
    /// Connections with answers that wait for the store, by the position they wait for.
    waiting_for_store: VecDeque<(Position, ConnectionKey, u32)>,
    pub(crate) queries: HashMap<u32, Query>,
    /// For each worker, how many Retained Messages its clients have written, as far as is known here: see `replay.rs`.
    pub(crate) writes_seen: Box<[u64]>,
    /// Sessions with Retained Messages to send and room to send them.
    pub(crate) replaying: VecDeque<(SessionKey, u32)>,
    pub(crate) timers: Timers<Timer>,
    pub(crate) retained_sweep: Option<pantala_router::Cursor>,
    /// Retained Messages here that expire some day: without any nothing has to be looked through.
    pub(crate) retained_expiring: usize,
    pub(crate) outboxes: Vec<Outbox>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) dirty: Vec<ConnectionKey>,
    pub(crate) pool: BufferPool,
    pub(crate) counters: Counters,
    pub(crate) matches: Vec<Match>,
    pub(crate) group_matches: Vec<u32>,
    /// Other workers that the message just matched is for, as bits.
    pub(crate) remote_matches: u64,
    /// Subscription Identifiers beyond the first, with the index of their match.
    pub(crate) merged_identifiers: Vec<(u32, NonZeroU32)>,
    pub(crate) match_epoch: u32,
    /// A packet encoded once for many receivers.
    pub(crate) encoded: Vec<u8>,
    shutting_down: bool,
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
            settings: options.settings,
            worker: options.worker,
            workers,
            totals: options.totals,
            methods: options.methods,
            random: options.random,
            store,
            connections: Slab::new(),
            sessions: Slab::new(),
            client_ids: HashTable::new(),
            client_id_hasher: RandomState::new(),
            next_generation: 0,
            tree: FilterTree::new(seed(tree_seed)),
            retained: RetainedIndex::new(seed(retained_seed)),
            groups: Groups::default(),
            interests: HashMap::new(),
            pending: HashMap::new(),
            next_token: 0,
            waiting_for_store: VecDeque::new(),
            queries: HashMap::new(),
            writes_seen: vec![0; usize::from(workers)].into(),
            replaying: VecDeque::new(),
            timers: Timers::new(),
            retained_sweep: None,
            retained_expiring: 0,
            outboxes: (0..workers).map(|_| Outbox::new(options.worker)).collect(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            dirty: Vec::new(),
            pool: BufferPool::default(),
            counters: Counters::default(),
            matches: Vec::new(),
            group_matches: Vec::new(),
            remote_matches: 0,
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
        let key = self.connections.insert(Connection::new(generation, listener, now)) as ConnectionKey;
        self.arm(now, key);
        key
    }

    /// Bytes have arrived. Unknown keys and connections that are closing are ignored.
    pub fn receive(&mut self, now: Instant, key: ConnectionKey, mut input: &[u8]) {
        self.counters.bytes_received += input.len() as u64;
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
            }
        }
    }

    /// Bytes for a packet whose front came before. Returns what is left behind it; None if the packet needs more, or nothing
    /// is to be done with the rest.
    #[inline(never)]
    fn receive_more<'i>(&mut self, now: Instant, key: ConnectionKey, mut input: &'i [u8]) -> Option<&'i [u8]> {
        let connection = self.connections.get_mut(key as usize)?;
        let mut stash = std::mem::take(&mut connection.input);
        let mut needed = connection.needed;
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
            Action::Close(connection) | Action::HandOver { connection, .. } => *connection != key,
        });
        self.closed(key);
    }

    /// The shell has closed the socket that [`Action::Close`] named. The key is free.
    pub fn closed(&mut self, key: ConnectionKey) {
        if let Some(mut connection) = self.connections.try_remove(key as usize) {
            connection.output.clear(&mut self.pool);
            if let Some(timer) = connection.timer {
                self.timers.cancel(timer);
            }
            self.counters.connections_closed = self.counters.connections_closed.wrapping_add(1);
        }
    }

    /// The socket has taken `count` bytes of what [`Core::slices`] gave. Returns how many bytes wait now.
    #[inline]
    pub fn wrote(&mut self, now: Instant, key: ConnectionKey, count: usize) -> usize {
        let Some(connection) = self.connections.get_mut(key as usize) else { return 0 };
        connection.output.wrote(&mut self.pool, count);
        let pending = connection.output.pending();
        if pending > 0 {
            if connection.stalled_since.is_some() {
                connection.stalled_since = Some(now);
            }
        } else {
            connection.stalled_since = None;
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
        if connection.stalled_since.is_none() && connection.output.pending() > 0 {
            connection.stalled_since = Some(now);
            self.arm(now, key);
        }
    }

    /// Our own code has panicked over this connection: it ends, and only it.
    pub fn panicked(&mut self, now: Instant, key: ConnectionKey) {
        self.counters.panics += 1;
        self.end(now, key, End::Panic, Some(ReasonCode::UnspecifiedError));
    }

    /// The store has made more records safe: answers that waited for them go out.
    pub fn store_completed(&mut self) {
        let durable = self.store.durable();
        while let Some(&(position, key, generation)) = self.waiting_for_store.front() {
            if position > durable {
                break;
            }
            self.waiting_for_store.pop_front();
            if self.connections.get(key as usize).is_some_and(|connection| connection.generation == generation) {
                self.release_held(key);
            }
        }
    }

    /// A batch from another worker, which is empty afterwards. Should this panic, over one frame of it, another call goes on
    /// with the next.
    pub fn receive_batch(&mut self, now: Instant, batch: &mut Batch) {
        let from = batch.from;
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
        self.connections.get(key as usize).map_or(0, |connection| connection.output.slices(slices))
    }

    /// What to write next to a connection, if it is in one piece; empty if nothing waits. None: see [`Core::slices`].
    #[inline]
    pub fn contiguous_output(&self, key: ConnectionKey) -> Option<&[u8]> {
        self.connections.get(key as usize).map_or(Some(&[]), |connection| connection.output.contiguous())
    }

    /// Bytes that wait to be written to a connection.
    pub fn pending_output(&self, key: ConnectionKey) -> usize {
        self.connections.get(key as usize).map_or(0, |connection| connection.output.pending())
    }

    /// Whether to read from a connection: not while it is closing, nor while its client does not read our answers.
    #[inline]
    pub fn wants_input(&self, key: ConnectionKey) -> bool {
        self.connections.get(key as usize).is_some_and(|connection| {
            connection.phase != Phase::Closing
                && connection.output.pending() < self.settings.outgoing_bytes_max as usize
                && connection.held_len() < HELD_MAX
        })
    }

    /// The next thing to do about a connection.
    #[inline]
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to tell an operator.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
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
        if !self.replaying.is_empty() {
            return Some(Instant(0));
        }
        self.timers.next_deadline().map(|deadline| Instant(deadline.saturating_add(1)))
    }

    /// Whether [`Core::take_dirty`] or [`Core::take_batch`] has something to give. Writing to a connection may bring both.
    pub fn has_output(&self) -> bool {
        !self.dirty.is_empty() || self.workers > 1 && self.outboxes.iter().any(|outbox| !outbox.is_empty())
    }

    /// A panic in work that no one connection was the cause of.
    pub fn count_panic(&mut self) {
        self.counters.panics += 1;
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

    /// Whether [`Core::tick`] has Retained Messages to send.
    #[inline]
    pub fn has_replays(&self) -> bool {
        !self.replaying.is_empty()
    }

    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections, whatever their phase.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Sessions, their clients connected or not.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
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
            Phase::Connected => self.settings.packet_bytes_max,
            Phase::Closing => return Step::Stop,
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
                self.settings.connect_packet_bytes_max.min(self.settings.packet_bytes_max)
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
        let flow = if is_publish && phase == Phase::Connected {
            if let Some(route) = &connection.route
                && first_byte == PLAIN_PUBLISH
                && frame.body.starts_with(&route.body_start)
                && route.changes == self.tree.changes()
            {
                let session = route.session;
                if self.forward_plain(session, version, &bytes[..frame.packet_bytes]) {
                    self.counters.publish_received += 1;
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
        }
    }

    /// Everything but a PUBLISH on a connection that is let in.
    fn packet(&mut self, now: Instant, key: ConnectionKey, first_byte: u8, body: &[u8]) -> Flow {
        let Some(connection) = self.connections.get(key as usize) else { return Flow::Stop };
        let phase = connection.phase;
        if phase == Phase::AwaitConnect {
            return self.connect(now, key, body);
        }
        let packet = match Packet::decode(connection.version, first_byte, body) {
            Ok(packet) => packet,
            Err(error) => return self.fail(now, key, error),
        };
        match packet {
            Packet::Auth(auth) => self.auth(now, key, &auth),
            Packet::Disconnect(disconnect) => self.disconnect(now, key, &disconnect),
            _ if phase != Phase::Connected => self.end(now, key, PROTOCOL_ERROR, Some(ReasonCode::ProtocolError)),
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
                self.end(now, key, PROTOCOL_ERROR, Some(ReasonCode::ProtocolError))
            }
        }
    }

    fn disconnect(&mut self, now: Instant, key: ConnectionKey, disconnect: &Disconnect<'_>) -> Flow {
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
        let session = connection.session.and_then(|session| self.sessions.get_mut(session as usize));
        if let Some(session) = session {
            if let Some(seconds) = disconnect.session_expiry_interval {
                // v5 section 3.14.2.2.2: a Session that was to end cannot be made to stay.
                if session.expiry_interval == 0 && seconds > 0 {
                    return self.end(now, key, PROTOCOL_ERROR, Some(R::ProtocolError));
                }
                session.expiry_interval = cap_expiry(&self.settings, seconds);
                if session.recorded {
                    let (client_id, expiry_interval) = (&*session.client_id, session.expiry_interval);
                    self.store.append(Record::Session { client_id, expiry_interval });
                }
            }
            if server_only || disconnect.server_reference.is_some() {
                return self.end(now, key, PROTOCOL_ERROR, Some(R::ProtocolError));
            }
            if disconnect.reason_code == R::Success {
                // v5 MQTT-3.14.4-3, v3.1.1 MQTT-3.14.4-3.
                session.will = None;
            }
        }
        self.end(now, key, End::Client(disconnect.reason_code), None)
    }

    // ---- the ends of connections and Sessions -----------------------------------------------------------------

    /// Ends a connection over bytes that are wrong.
    pub(crate) fn fail(&mut self, now: Instant, key: ConnectionKey, error: pantala_proto::DecodeError) -> Flow {
        self.end(now, key, End::Decode(error), Some(error.reason_code()))
    }

    /// Ends a connection: says why if it can, lets its Session go, and asks the shell to close the socket.
    pub(crate) fn end(&mut self, now: Instant, key: ConnectionKey, why: End, code: Option<ReasonCode>) -> Flow {
        let Some(connection) = self.connections.get_mut(key as usize) else { return Flow::Stop };
        if connection.phase == Phase::Closing {
            return Flow::Stop;
        }
        match why {
            End::Decode(_) | PROTOCOL_ERROR | End::NotMqtt(_) => self.counters.protocol_errors += 1,
            End::Reason(ReasonCode::KeepAliveTimeout) => self.counters.keep_alive_timeouts += 1,
            End::Reason(ReasonCode::SessionTakenOver) => self.counters.sessions_taken_over += 1,
            End::ConnectTimeout => self.counters.connect_timeouts += 1,
            End::WriteStall => self.counters.write_stalls += 1,
            _ => {}
        }
        let connected = connection.phase == Phase::Connected;
        if let Some(reason_code) = code {
            let (version, bytes_max) = (connection.version, connection.packet_bytes_max);
            if connected && version.is_v5() {
                let packet = Disconnect {
                    server_reference: match (&self.settings.redirect, reason_code) {
                        (Some(redirect), ReasonCode::ServerShuttingDown) => Some(redirect.server_reference.as_str()),
                        _ => None,
                    },
                    ..Disconnect::new(reason_code)
                };
                let mut bytes = Vec::new();
                packet.encode_within(version, bytes_max, &mut bytes);
                self.send(key, |out| out.extend_from_slice(&bytes));
            } else if !connected {
                self.refuse_connect(key, why, reason_code);
            }
        }
        let Some(connection) = self.connections.get_mut(key as usize) else { return Flow::Stop };
        connection.phase = Phase::Closing;
        connection.input = Vec::new();
        let listener = usize::from(connection.listener);
        let session = connection.session.take();
        if let Some(extras) = &mut connection.extras {
            extras.held.clear();
        }
        if let Some(timer) = connection.timer.take() {
            self.timers.cancel(timer);
        }
        self.actions.push_back(Action::Close(key));
        let client_id = session.map(|session| self.sessions[session as usize].client_id.clone());
        self.events.push_back(Event::Ended { connection: key, client_id, why });
        if let Some(session) = session {
            self.totals.connections.fetch_sub(1, Ordering::Relaxed);
            if let Some(count) = self.totals.listeners.get(listener) {
                count.fetch_sub(1, Ordering::Relaxed);
            }
            self.detach(now, session);
        }
        Flow::Stop
    }

    /// A Session has lost its connection.
    fn detach(&mut self, now: Instant, key: SessionKey) {
        let shutting_down = self.shutting_down;
        let session = &mut self.sessions[key as usize];
        session.connection = None;
        session.replays = None;
        if let Some(outbound) = &mut session.outbound {
            outbound.connection_lost();
            if outbound.is_idle() && !session.is_persistent() {
                session.outbound = None;
            }
        }
        if shutting_down {
            return;
        }
        session.expires_at = match session.expiry_interval {
            crate::session::NEVER => None,
            seconds => Some(now.after_seconds(seconds)),
        };
        if let Some(will) = &mut session.will {
            // v5 MQTT-3.1.2-8: after its delay, or when the Session ends if that is sooner.
            will.due = Some(now.after_seconds(will.delay_interval));
        }
        if session.will.as_ref().is_some_and(|will| will.delay_interval == 0) {
            self.publish_will(now, key);
        }
        if !self.sessions[key as usize].is_persistent() {
            return self.end_session(now, key);
        }
        self.announce_presence(key, false);
        self.arm_session(key);
    }

    fn arm_session(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key as usize];
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }
        let due = session.will.as_ref().and_then(|will| will.due);
        let next = match (session.expires_at, due) {
            (Some(expiry), Some(due)) => Some(expiry.min(due)),
            (expiry, due) => expiry.or(due),
        };
        if let Some(deadline) = next {
            session.timer = Some(self.timers.schedule(deadline.0, Timer::Session(key)));
        }
    }

    fn session_timer(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        session.timer = None;
        if session.connection.is_some() {
            return;
        }
        if session.expires_at.is_some_and(|at| at <= now) {
            return self.end_session(now, key);
        }
        if session.will.as_ref().and_then(|will| will.due).is_some_and(|due| due <= now) {
            self.publish_will(now, key);
        }
        self.arm_session(key);
    }

    /// Publishes the Will of a Session, which forgets it (v5 MQTT-3.1.2-10).
    fn publish_will(&mut self, now: Instant, key: SessionKey) {
        let Some(will) = self.sessions[key as usize].will.take() else { return };
        let mut incoming = will.message.incoming();
        incoming.expires_at = will.message_expiry_interval.map(|seconds| now.after_seconds(seconds));
        match crate::access::publish(incoming.topic_name) {
            Ok(permit) => {
                self.counters.wills_published += 1;
                self.route(now, None, &incoming, permit);
            }
            Err(crate::access::Denied) => self.counters.dropped_not_authorized += 1,
        }
    }

    /// Ends a Session with all it holds. Its Will, if it has not gone out, goes out now (v5 MQTT-3.1.2-8).
    pub(crate) fn end_session(&mut self, now: Instant, key: SessionKey) {
        self.publish_will(now, key);
        let mut filters: Vec<(Box<str>, Subscription)> =
            self.sessions[key as usize].subscriptions.take().map_or_else(Vec::new, |map| map.into_iter().collect());
        // In an order that is the same in every run, so that a seed replays what follows.
        filters.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (filter, subscription) in filters {
            self.remove_subscription(now, key, &filter, subscription);
        }
        let session = self.sessions.remove(key as usize);
        if let Some(timer) = session.timer {
            self.timers.cancel(timer);
        }
        let hash = self.client_id_hasher.hash_one(&*session.client_id);
        if let Ok(entry) = self.client_ids.find_entry(hash, |found| *found == key) {
            entry.remove();
        }
        self.totals.sessions.fetch_sub(1, Ordering::Relaxed);
        if session.recorded {
            self.store.append(Record::SessionEnded { client_id: &session.client_id });
        }
        self.hand_on(now, session);
    }

    /// What an ended Session held: messages of Shared Subscriptions go to another member (v5 section 4.8.2), but for QoS 2
    /// ones whose delivery has begun (v5 MQTT-4.8.2-5).
    fn hand_on(&mut self, now: Instant, session: Session) {
        let Some(outbound) = session.outbound else { return };
        for (stage, _, queued) in outbound.into_undelivered() {
            let begun = stage.is_some_and(|stage| stage != pantala_session::Stage::AwaitPubAck);
            match queued.group {
                Some(group) if !begun => drop(self.dispatch(now, group, &queued.message.incoming())),
                _ => self.counters.dropped_session_ended += 1,
            }
        }
    }

    // ---- Sessions by name -------------------------------------------------------------------------------------

    pub(crate) fn find_session(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.client_id_hasher.hash_one(client_id);
        self.client_ids.find(hash, |key| *self.sessions[*key as usize].client_id == *client_id).copied()
    }

    pub(crate) fn begin_session(&mut self, client_id: &str) -> SessionKey {
        let generation = self.generation();
        let key = self.sessions.insert(Session::new(client_id, generation)) as SessionKey;
        let Self { sessions, client_ids, client_id_hasher, .. } = self;
        let hash = |key: &SessionKey| client_id_hasher.hash_one(&*sessions[*key as usize].client_id);
        client_ids.insert_unique(hash(&key), key, hash);
        self.totals.sessions.fetch_add(1, Ordering::Relaxed);
        key
    }

    fn generation(&mut self) -> u32 {
        self.next_generation = self.next_generation.wrapping_add(1);
        self.next_generation
    }

    // ---- timers of connections --------------------------------------------------------------------------------

    /// When the connection is to be looked at.
    fn connection_deadline(&self, connection: &Connection) -> Option<Instant> {
        let stall = connection
            .stalled_since
            .filter(|_| self.settings.write_stall_seconds > 0)
            .map(|since| since.after_seconds(self.settings.write_stall_seconds));
        let alive = match connection.phase {
            Phase::Connected => connection.keep_alive.deadline(),
            Phase::Closing => None,
            _ => Some(connection.opened.after(Duration::from_secs(u64::from(self.settings.connect_seconds)))),
        };
        match (stall, alive) {
            (Some(stall), Some(alive)) => Some(stall.min(alive)),
            (stall, alive) => stall.or(alive),
        }
    }

    /// Sets the connection's timer for its next deadline.
    pub(crate) fn arm(&mut self, _now: Instant, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let deadline = self.connection_deadline(connection);
        let timer = match (connection.timer, deadline) {
            (Some(timer), Some(deadline)) if self.timers.reschedule(timer, deadline.0) => Some(timer),
            (_, Some(deadline)) => Some(self.timers.schedule(deadline.0, Timer::Connection(key))),
            (Some(timer), None) => {
                self.timers.cancel(timer);
                None
            }
            (None, None) => None,
        };
        self.connections[key as usize].timer = timer;
    }

    fn connection_timer(&mut self, now: Instant, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.timer = None;
        let (phase, stalled) = (connection.phase, connection.stalled_since);
        let keep_alive = connection.keep_alive.deadline();
        let stall = Duration::from_secs(u64::from(self.settings.write_stall_seconds));
        if phase != Phase::Connected {
            if now >= connection.opened.after(Duration::from_secs(u64::from(self.settings.connect_seconds))) {
                self.end(now, key, End::ConnectTimeout, None);
                return;
            }
        } else if keep_alive.is_some_and(|deadline| now >= deadline) {
            let code = ReasonCode::KeepAliveTimeout;
            self.end(now, key, End::Reason(code), Some(code));
            return;
        }
        if !stall.is_zero() && stalled.is_some_and(|since| now >= since.after(stall)) {
            self.end(now, key, End::WriteStall, None);
            return;
        }
        self.arm(now, key);
    }

    // ---- answers ----------------------------------------------------------------------------------------------

    /// Appends to a connection's output, whatever its length.
    pub(crate) fn send(&mut self, key: ConnectionKey, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.output.append(&mut self.pool, usize::MAX, 0, write);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Sends an answer once the store has reached `position` and `waiting` confirmations have come, and not before the
    /// answers held already. Returns its number among those held, or None if it went out at once.
    pub(crate) fn answer(
        &mut self,
        key: ConnectionKey,
        position: Position,
        waiting: u32,
        answer: Answer,
    ) -> Option<u32> {
        let connection = self.connections.get_mut(key as usize)?;
        let safe = position <= self.store.durable();
        if waiting == 0 && safe && connection.held_len() == 0 {
            self.send_answer(key, answer);
            return None;
        }
        let generation = connection.generation;
        let extras = connection.extras();
        let number = extras.next_held;
        extras.next_held = number.wrapping_add(1);
        extras.held.push_back(Held { number, position, waiting, answer });
        if !safe {
            self.waiting_for_store.push_back((position, key, generation));
        }
        Some(number)
    }

    /// Sends what is held and may go.
    fn release_held(&mut self, key: ConnectionKey) {
        let durable = self.store.durable();
        loop {
            let Some(connection) = self.connections.get_mut(key as usize) else { return };
            let Some(extras) = &mut connection.extras else { return };
            match extras.held.front() {
                Some(held) if held.waiting == 0 && held.position <= durable => {}
                _ => return,
            }
            let Some(held) = extras.held.pop_front() else { return };
            self.send_answer(key, held.answer);
        }
    }

    fn send_answer(&mut self, key: ConnectionKey, answer: Answer) {
        match answer {
            Answer::Acknowledgement(kind, packet_id, code) => {
                let version = self.connections[key as usize].version;
                self.send(key, |out| {
                    pantala_proto::Acknowledgement::new(kind, packet_id, code).encode(version, out);
                });
            }
            Answer::Packet(bytes, replays) => {
                self.send(key, |out| out.extend_from_slice(&bytes));
                if let Some(session) = self.connections[key as usize].session {
                    self.begin_replays(session, replays);
                }
            }
            Answer::PingResp => {
                self.send(key, |out| Packet::PingResp.encode(pantala_proto::ProtocolVersion::V311, out));
            }
            Answer::Nothing => {}
        }
    }

    // ---- other workers ----------------------------------------------------------------------------------------

    pub(crate) fn token(&mut self) -> u32 {
        self.next_token = self.next_token.wrapping_add(1);
        self.next_token
    }

    /// Expects `remaining` confirmations with the token, and then does `then`.
    pub(crate) fn expect(&mut self, remaining: u16, then: Vec<Then>) -> u32 {
        let token = self.token();
        self.pending.insert(token, Pending { remaining, refused: false, then });
        token
    }

    /// Retained Messages that clients of this worker have written.
    pub(crate) fn written(&self) -> u64 {
        self.writes_seen[usize::from(self.worker.0)]
    }

    fn confirmed(&mut self, from: WorkerId, token: u32, refused: bool, written: u64) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        // A subscription that waits for this worker's word is live from here on.
        for then in &pending.then {
            if let Then::Held { connection, generation, number, replay: Some(replay) } = *then
                && let Some(connection) = self.connections.get_mut(connection as usize)
                && connection.generation == generation
                && let Some(held) = connection.held(number)
                && let Answer::Packet(_, replays) = &mut held.answer
                && let Some(replay) = replays.get_mut(replay as usize)
            {
                replay.announced(token, usize::from(from.0), written);
            }
        }
        pending.refused |= refused;
        pending.remaining = pending.remaining.saturating_sub(1);
        if pending.remaining > 0 {
            return;
        }
        let Some(pending) = self.pending.remove(&token) else { return };
        for then in pending.then {
            match then {
                Then::Confirm { worker, token } => {
                    let frame = Frame::Done { token, refused: pending.refused, written: self.written() };
                    self.outboxes[usize::from(worker.0)].control(frame);
                }
                Then::Flushed { session, generation } => self.flushed(session, generation, token),
                Then::Release { session, generation, packet_id } => {
                    if pending.refused
                        && let Some(session) = self.sessions.get_mut(session as usize)
                        && session.generation == generation
                    {
                        session.inbound.release(packet_id);
                    }
                }
                Then::Held { connection, generation, number, .. } => {
                    self.held_confirmed(connection, generation, number, pending.refused);
                }
            }
        }
    }

    fn held_confirmed(&mut self, key: ConnectionKey, generation: u32, number: u32, refused: bool) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.generation != generation {
            return;
        }
        let version = connection.version;
        let Some(held) = connection.held(number) else { return };
        held.waiting = held.waiting.saturating_sub(1);
        if refused && let Answer::Acknowledgement(_, _, code) = &mut held.answer {
            *code = ReasonCode::QuotaExceeded;
            if !version.is_v5() {
                held.answer = Answer::Nothing;
            }
        }
        self.release_held(key);
    }

    /// Counts one more wish for messages of a filter. Returns the token of the announcement that has not been confirmed
    /// by all other workers, if there is one.
    pub(crate) fn interest_added(&mut self, filter: &str) -> Option<u32> {
        if self.workers == 1 {
            return None;
        }
        if let Some(interest) = self.interests.get_mut(filter) {
            interest.count += 1;
            return interest.announcement.filter(|token| self.pending.contains_key(token));
        }
        let token = self.expect(u16::from(self.workers) - 1, Vec::new());
        self.interests.insert(filter.into(), Interest { count: 1, announcement: Some(token) });
        self.announce_interest(filter, true, Some(token));
        Some(token)
    }

    pub(crate) fn interest_removed(&mut self, filter: &str) {
        if self.workers == 1 {
            return;
        }
        let Some(interest) = self.interests.get_mut(filter) else { return };
        interest.count -= 1;
        if interest.count == 0 {
            self.interests.remove(filter);
            self.announce_interest(filter, false, None);
        }
    }

    fn announce_interest(&mut self, filter: &str, wanted: bool, token: Option<u32>) {
        for to in 0..self.workers {
            if to != self.worker.0 {
                self.outboxes[usize::from(to)].control(Frame::Interest { filter: filter.into(), wanted, token });
            }
        }
    }

    /// A Session's client has come or gone: the homes of its groups choose members by that.
    pub(crate) fn announce_presence(&mut self, key: SessionKey, connected: bool) {
        let session = &self.sessions[key as usize];
        if session.shared_subscriptions == 0 {
            return;
        }
        let member = Member { worker: self.worker, session: key, generation: session.generation };
        let Some(subscriptions) = &session.subscriptions else { return };
        for (filter, _) in subscriptions.iter().filter(|(_, subscription)| subscription.shared) {
            let home = owner(filter, self.workers);
            if home == self.worker {
                self.groups.set_connected(filter, member, connected);
            } else {
                let frame = Frame::Presence { whole_filter: filter.clone(), member, connected };
                self.outboxes[usize::from(home.0)].control(frame);
            }
        }
    }

    fn receive_frame(&mut self, now: Instant, from: WorkerId, bytes: &[u8], frame: Frame) {
        match frame {
            Frame::Route { message, token, written } => {
                self.see(from, written);
                let message = Batch::unpack(bytes, message);
                let routed = self.route_locally(now, None, &message, crate::access::from_worker());
                if let Some(token) = token {
                    let frame = Frame::Done { token, refused: routed.refused, written: self.written() };
                    self.outboxes[usize::from(from.0)].control(frame);
                }
            }
            Frame::Retain { message, written } => {
                self.retain(now, &Batch::unpack(bytes, message), from, written);
            }
            Frame::Deliver { member, grant, group, message } => {
                let message = Batch::unpack(bytes, message);
                self.deliver_to_member(now, member, grant, group, &message);
            }
            Frame::Redispatch { group, message } => {
                self.dispatch(now, group, &Batch::unpack(bytes, message));
            }
            Frame::Interest { filter, wanted, token } => {
                let grant = Grant::new(pantala_proto::SubscriptionOptions::default(), None);
                if wanted {
                    self.tree.insert(&filter, Target::Worker(from), grant);
                } else {
                    self.tree.remove(&filter, Target::Worker(from));
                }
                if let Some(token) = token {
                    let frame = Frame::Done { token, refused: false, written: self.written() };
                    self.outboxes[usize::from(from.0)].control(frame);
                }
            }
            Frame::Join { whole_filter, member, grant, connected, token } => {
                let announcement = self.join_here(&whole_filter, member, grant, connected);
                let then = Then::Confirm { worker: from, token };
                match announcement.and_then(|announcement| self.pending.get_mut(&announcement)) {
                    Some(pending) => pending.then.push(then),
                    None => {
                        let frame = Frame::Done { token, refused: false, written: self.written() };
                        self.outboxes[usize::from(from.0)].control(frame);
                    }
                }
            }
            Frame::Leave { whole_filter, member } => self.leave_here(&whole_filter, member),
            Frame::Presence { whole_filter, member, connected } => {
                self.groups.set_connected(&whole_filter, member, connected);
            }
            Frame::Flush { token } => {
                let frame = Frame::Done { token, refused: false, written: self.written() };
                self.outboxes[usize::from(from.0)].control(frame);
            }
            Frame::Query { token, filter, cursor, cutoffs } => {
                self.answer_query(now, from, token, &filter, *cursor, &cutoffs);
            }
            Frame::Found { token, message } => self.found(now, token, &Batch::unpack(bytes, message)),
            Frame::Answered { token, cursor } => self.answered(now, token, cursor.map(|cursor| *cursor)),
            Frame::Done { token, refused, written } => {
                self.confirmed(from, token, refused, written);
                self.see(from, written);
            }
        }
    }

    /// All that another worker's clients had written until its write number `written` has been matched here, if it was for us.
    fn see(&mut self, from: WorkerId, written: u64) {
        let seen = &mut self.writes_seen[usize::from(from.0)];
        *seen = written.max(*seen);
    }

    /// A member's message for a group: at its home another member is chosen, elsewhere its home is told.
    pub(crate) fn dispatch(
        &mut self,
        now: Instant,
        group: GroupId,
        message: &crate::message::Incoming<'_>,
    ) -> Position {
        if group.home == self.worker {
            return self.dispatch_here(now, group.number, message);
        }
        let batch = self.outboxes[usize::from(group.home.0)].messages();
        let message = batch.pack(message);
        batch.frames.push_back(Frame::Redispatch { group, message });
        Position::default()
    }

    fn stash(&mut self, key: ConnectionKey, input: Vec<u8>, needed: usize) {
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.input = input;
            connection.needed = needed;
        }
    }

    fn hand_over(&mut self, key: ConnectionKey, to: WorkerId, input: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.phase = Phase::Closing;
        // It opens, closes and is read once more where it goes.
        self.counters.bytes_received -= input.len() as u64;
        self.counters.connections_opened -= 1;
        self.counters.connections_closed = self.counters.connections_closed.wrapping_sub(1);
        self.actions.push_back(Action::HandOver { connection: key, to, input });
    }
}

/// The Session Expiry Interval that a wish comes to.
pub(crate) fn cap_expiry(settings: &Settings, seconds: u32) -> u32 {
    settings.session_expiry_max.map_or(seconds, |max| seconds.min(max))
}

const CONNECT_FIRST_BYTE: u8 = 0x10;
/// PUBLISH at QoS 0 without RETAIN.
const PLAIN_PUBLISH: u8 = 0x30;
const PROTOCOL_ERROR: End = End::Reason(ReasonCode::ProtocolError);
/// Answers of one connection that may wait for the store or other workers; with so many, reading from it pauses.
const HELD_MAX: usize = 10_000;
