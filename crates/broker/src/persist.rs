//! What the store is told, and when what depends on it may go out.
//!
//! A message that may have to be kept gets a name when it is routed. Whoever delivers it to a Session that outlives the
//! process names that Session as a receiver; when it has been to all, one record says what was published and who is to
//! have it. What other workers find is named by them, and the store waits for it: see `pantala_store`.
//!
//! Most answers wait in order behind each other (`answer.rs`). Two things wait beside them:
//!
//! - A QoS 2 PUBLISH to a Session that outlives the process goes out when the store knows under which Packet Identifier.
//!   Otherwise it could come again under another one after a crash, and be taken for a new message.
//! - All output of a connection, its CONNACK first, until the Session that it speaks of is the one that would come back. What
//!   comes for the client at QoS 1 and 2 waits in its queue until then, where its life goes on to be counted.

use std::sync::Arc;

use pantala_proto::{PacketId, QoS, ReasonCode};
use pantala_session::Instant;
use pantala_store::{Durability, LoadError, MessageId, Position, Publish, Receiver, Record, SessionNumber, Store};

use crate::connection::Phase;
use crate::core::Core;
use crate::message::{Body, Identifiers, Incoming, Message, Queued, Stored};
use crate::session::{Owed, SessionKey};
use crate::{Cause, ConnectionKey, End, publisher};

/// Where a message comes from, as far as the record of it decides more than who is to have it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin {
    /// The QoS 2 exchange with its publisher.
    pub(crate) opens: Option<(SessionNumber, PacketId)>,
    /// The Session whose Will it is.
    pub(crate) will_of: Option<SessionNumber>,
}

/// What the message that is being routed needs of the store.
#[derive(Debug, Default)]
pub(crate) struct Naming {
    /// Sessions that it is owed to.
    pub(crate) receivers: Vec<Receiver>,
    /// Exchanges that it has begun: recorded behind the message.
    begun: Vec<Begun>,
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    session: SessionNumber,
    /// The message, and which copy of it.
    kept: (MessageId, u32),
    packet_id: PacketId,
    order: u64,
    /// The Session, if its PUBLISH waits for the record.
    waits: Option<SessionKey>,
}

/// While the bytes of queued messages take more than this for each worker, they stay in the store where it has them, and are
/// read when they are sent.
pub(crate) const QUEUED_MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Queued messages that are put out of memory for each one that comes, so that it is an even effort.
const EVICTIONS: usize = 4;

impl<S: Store> Core<S> {
    /// Before a message is delivered to anybody: it gets a name if it may have to be kept.
    #[inline]
    pub(crate) fn begin_routing(&mut self, incoming: &mut Incoming<'_>) {
        if self.store.keeps() && (incoming.qos != QoS::AtMostOnce || incoming.retain) {
            let level = self.level(incoming.topic_name);
            self.begin_routing_at(level, incoming);
        }
    }

    /// The same for a message that may have to be kept, and whose level is known.
    pub(crate) fn begin_routing_at(&mut self, level: Option<Durability>, incoming: &mut Incoming<'_>) {
        self.begin_naming();
        incoming.id = if level == Some(Durability::Memory) { None } else { self.store.next_message() };
    }

    /// Whatever an earlier routing has left behind, by a panic, is not for this one.
    #[inline]
    pub(crate) fn begin_naming(&mut self) {
        self.naming.receivers.clear();
        self.naming.begun.clear();
    }

    /// Whether a message would have to be kept for somebody.
    pub(crate) fn has_to_be_kept(&mut self, publisher: SessionKey, incoming: &Incoming<'_>) -> bool {
        if incoming.retain {
            return true;
        }
        self.find_receivers(Some(publisher), incoming.topic_name);
        let kept_here = self.matches.iter().any(|found| found.is_kept(&self.sessions));
        kept_here || !self.group_matches.is_empty() || self.remote_keeps != 0
    }

    /// Names a Session as a receiver of the message that is being routed.
    pub(crate) fn name_receiver(
        &mut self,
        session: SessionNumber,
        qos: QoS,
        retain: bool,
        order: u64,
        identifiers: &Identifiers,
        group: Option<Arc<str>>,
    ) {
        let identifiers = identifiers.as_slice().to_vec();
        self.naming.receivers.push(Receiver { session, qos: qos as u8, retain, order, identifiers, group });
    }

    /// An exchange has begun with the message that is being routed.
    pub(crate) fn note_begun(&mut self, key: SessionKey, kept: (MessageId, u32), packet_id: PacketId, waits: bool) {
        let session = &self.sessions[key as usize];
        let order = session.owed.as_ref().and_then(|owed| owed.exchanges.order(packet_id)).unwrap_or_default();
        if let Some(session) = session.number {
            let waits = waits.then_some(key);
            self.naming.begun.push(Begun { session, kept, packet_id, order, waits });
        }
    }

    /// The message has been to all receivers here: its record, and where that stands.
    pub(crate) fn record_publish(
        &mut self,
        incoming: &Incoming<'_>,
        retains: bool,
        others: u32,
        origin: Origin,
        publisher: Option<SessionKey>,
    ) -> Position {
        let Some(id) = incoming.id else { return Position::default() };
        let Origin { mut opens, mut will_of } = origin;
        if mutant!(ExactlyOnceForgotten) {
            opens = None;
        }
        if mutant!(WillTwice) {
            will_of = None;
        }
        let nothing =
            self.naming.receivers.is_empty() && others == 0 && !retains && opens.is_none() && will_of.is_none();
        if nothing {
            self.naming.begun.clear();
            return Position::default();
        }
        let receivers = std::mem::take(&mut self.naming.receivers);
        let publisher = publisher.filter(|_| retains && !incoming.payload.is_empty() && self.notes_publishers());
        let Self { store, sessions, settings, .. } = self;
        let position = store.append(&Record::Publish(Publish {
            id,
            message: incoming.to_store(),
            receivers: &receivers,
            others,
            opens: opens.map(|(session, packet_id)| (session, packet_id.number())),
            will_of,
            retained: retains,
            publisher: publisher.and_then(|key| publisher::to_store(settings, &sessions[key as usize])),
        }));
        self.naming.receivers = receivers;
        self.naming.receivers.clear();
        self.record_begun();
        position
    }

    /// Records the exchanges that the message just routed has begun; those that wait for it know for what.
    pub(crate) fn record_begun(&mut self) {
        let mut begun = std::mem::take(&mut self.naming.begun);
        for Begun { session, kept: (message, copy), packet_id, order, waits } in begun.drain(..) {
            let packet_id = packet_id.number();
            let position = self.store.append(&Record::Sent { session, message, copy, packet_id, order });
            if let (Some(key), Some(packet_id)) = (waits, PacketId::new(packet_id)) {
                self.ready_at(key, packet_id, position);
            }
        }
        self.naming.begun = begun;
    }

    /// Records an exchange at QoS 2 with a message that the store does not have: its Packet Identifier is in use, and after a
    /// crash PUBREL makes it free. The PUBLISH waits for that.
    pub(crate) fn record_bare_exchange(&mut self, key: SessionKey, session: SessionNumber, packet_id: PacketId) {
        let owed = self.sessions[key as usize].owed.as_ref();
        let order = owed.and_then(|owed| owed.exchanges.order(packet_id)).unwrap_or_default();
        let position = self.store.append(&bare_exchange(session, packet_id, order));
        self.ready_at(key, packet_id, position);
    }

    /// The PUBLISH of an exchange may go out when the store has got there.
    fn ready_at(&mut self, key: SessionKey, packet_id: PacketId, position: Position) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let generation = session.generation;
        if let Some(queued) = session.owed.as_mut().and_then(|owed| owed.exchanges.message_mut(packet_id)) {
            queued.ready_at = position;
        }
        self.waiting_sessions.push_back((position, key, generation));
    }

    /// A message from another worker has been to all receivers here.
    pub(crate) fn name_receivers_to_store(&mut self, id: Option<MessageId>, wanted: bool) {
        if let (Some(id), true) = (id, wanted) {
            let receivers = std::mem::take(&mut self.naming.receivers);
            self.store.add_receivers(id, receivers);
        } else {
            debug_assert!(self.naming.receivers.is_empty(), "nobody waits for these receivers");
            self.naming.receivers.clear();
        }
        self.record_begun();
    }

    /// Whoever panicked over a message of another worker named nobody: the message goes down without us.
    pub(crate) fn name_nobody(&mut self) {
        if let Some(id) = self.naming_for.take() {
            self.store.add_receivers(id, Vec::new());
        }
    }

    /// A message that the store keeps for a Session concerns it no more.
    pub(crate) fn record_settled(
        &mut self,
        session: Option<SessionNumber>,
        kept: Option<(MessageId, u32)>,
        packet_id: Option<PacketId>,
    ) {
        if let Some(session) = session
            && (kept.is_some() || packet_id.is_some())
        {
            let packet_id = packet_id.map(PacketId::number);
            let (message, copy) = kept.map_or((None, 0), |(message, copy)| (Some(message), copy));
            self.store.append(&Record::Settled { session, message, copy, packet_id });
        }
    }

    /// Records a Session as it is now.
    pub(crate) fn record_session(&mut self, key: SessionKey, detached_at: Option<u64>) -> Position {
        let session = &self.sessions[key as usize];
        let Some(number) = session.number else { return Position::default() };
        self.store.append(&Record::Session(pantala_store::Session {
            number,
            client_id: &session.client_id,
            expiry_interval: session.expiry_interval,
            detached_at,
        }))
    }

    /// Begins the exchanges of QoS 2 messages at the front of a queue: they go out when the store knows of them.
    pub(crate) fn admit_queued(&mut self, now: Instant, key: SessionKey, window: u16) {
        let Self { sessions, store, queued_memory, waiting_sessions, .. } = self;
        let session = &mut sessions[key as usize];
        let generation = session.generation;
        let (Some(number), Some(owed)) = (session.number, session.owed.as_mut()) else { return };
        let (mut bytes, mut position) = (0, None);
        // One that has expired is dropped where all others are.
        let wanted = |qos, queued: &Queued| qos == QoS::ExactlyOnce && !queued.is_expired(now);
        let Owed { exchanges, evicted, queued_bytes, inflight_bytes, .. } = &mut **owed;
        exchanges.admit_queued(window, wanted, |packet_id, order, queued| {
            queued.ready_at = store.append(&match queued.kept() {
                Some((message, copy)) => {
                    Record::Sent { session: number, message, copy, packet_id: packet_id.number(), order }
                }
                None => bare_exchange(number, packet_id, order),
            });
            position = Some(queued.ready_at);
            bytes += queued.bytes() as u64;
            if matches!(queued.body, Body::Here(_)) {
                *queued_memory = queued_memory.saturating_sub(queued.bytes() as u64);
            }
            *evicted = evicted.saturating_sub(1);
        });
        *queued_bytes -= bytes;
        *inflight_bytes += bytes;
        if let Some(position) = position {
            waiting_sessions.push_back((position, key, generation));
        }
    }

    // ---- output that waits ------------------------------------------------------------------------------------

    /// Nothing leaves by this connection before the store has got to all that has been appended.
    pub(crate) fn gate(&mut self, key: ConnectionKey) {
        let position = self.store.appended();
        if position <= self.store.durable() {
            return;
        }
        let connection = &mut self.connections[key as usize];
        connection.gated = true;
        if !connection.dirty {
            // Whoever appends to its output finds it in the list already.
            connection.dirty = true;
        } else {
            self.dirty.retain(|dirty| *dirty != key);
        }
        self.waiting_gates.push_back((position, key, connection.generation));
    }

    /// What waits for the store beside answers, and has waited long enough.
    pub(crate) fn open_gates(&mut self, now: Instant, durable: Position) {
        while let Some(&(position, key, generation)) = self.waiting_gates.front() {
            if position > durable {
                break;
            }
            self.waiting_gates.pop_front();
            if let Some(connection) = self.connections.get_mut(key as usize)
                && connection.generation == generation
                && connection.gated
            {
                connection.gated = false;
                self.dirty.push(key);
                if let Some(session) = connection.session {
                    self.pump(now, session);
                }
            }
        }
        while let Some(&(position, key, generation)) = self.waiting_sessions.front() {
            if position > durable {
                break;
            }
            self.waiting_sessions.pop_front();
            if self.sessions.get(key as usize).is_some_and(|session| session.generation == generation) {
                self.pump(now, key);
            }
        }
    }

    /// The store has failed, so the Sessions that CONNACKs speak of will never be the ones that would come back: in place of all that
    /// has been withheld their clients are told that they are not let in.
    pub(crate) fn refuse_gated(&mut self, now: Instant) {
        while let Some((_, key, generation)) = self.waiting_gates.pop_front() {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            if connection.generation != generation || !connection.gated || connection.phase == Phase::Closing {
                continue;
            }
            // Nothing of it has been taken by the socket.
            connection.gated = false;
            connection.output.clear(&mut self.pool);
            self.unsent.forget(key);
            self.dirty.push(key);
            if let Some(session) = self.connections[key as usize].session {
                // Whoever has not been let in leaves no Will.
                self.forget_will(session);
            }
            let code = ReasonCode::ServerUnavailable;
            let why = End::Because(code, Cause::Store);
            self.refuse_connect(key, why, code, Some(&Cause::Store.to_string()));
            self.end(now, key, why, None);
        }
    }

    // ---- queues that are larger than memory -------------------------------------------------------------------

    /// A message has been put into a queue: if memory is short, older ones leave it.
    pub(crate) fn evict(&mut self, key: SessionKey) {
        if self.queued_memory <= QUEUED_MEMORY_BYTES_MAX {
            return;
        }
        let Self { sessions, store, .. } = self;
        let session = &mut sessions[key as usize];
        if session.number.is_none() {
            return;
        }
        let Some(owed) = &mut session.owed else { return };
        for queued in owed.exchanges.queued_mut(owed.evicted as usize).take(EVICTIONS) {
            // One that the store does not have stays in memory, and those behind it need not.
            if let Body::Here(message) = &queued.body
                && let Some(id) = message.id()
            {
                if !store.holds(id) {
                    return;
                }
                let bytes = message.bytes() as u32;
                self.queued_memory = self.queued_memory.saturating_sub(u64::from(bytes));
                queued.body = Body::Stored(Stored { id, bytes, expires_at: queued.expires_at().into() });
            }
            owed.evicted += 1;
        }
    }

    /// Drops the QoS 0 messages that wait in queues, since memory is short. Goes through all Sessions.
    pub fn shed(&mut self) {
        let (mut dropped, mut memory) = (0, 0);
        for (_, session) in &mut self.sessions {
            let Some(owed) = &mut session.owed else { continue };
            let mut freed = 0;
            owed.exchanges.retain_queued(|qos, queued| {
                let keep = qos != QoS::AtMostOnce;
                if !keep {
                    dropped += 1;
                    freed += queued.bytes() as u64;
                }
                keep
            });
            if freed > 0 {
                owed.queued_bytes -= freed;
                owed.evicted = 0;
                memory += freed;
            }
        }
        self.queued_memory = self.queued_memory.saturating_sub(memory);
        self.counters.dropped_memory_short += dropped;
    }

    /// A message has left a queue: memory that was charged is free.
    pub(crate) fn left_queue(&mut self, key: SessionKey, queued: &Queued) {
        if matches!(queued.body, Body::Here(_)) {
            self.queued_memory = self.queued_memory.saturating_sub(queued.bytes() as u64);
        }
        if let Some(owed) = &mut self.sessions[key as usize].owed {
            owed.evicted = owed.evicted.saturating_sub(1);
        }
    }

    /// The message itself, from the store if it is there only.
    pub(crate) fn body(&mut self, queued: &Queued) -> Result<Arc<Message>, LoadError> {
        match &queued.body {
            Body::Here(message) => Ok(Arc::clone(message)),
            Body::Stored(stored) => self.loaded.get(&self.store, stored.id),
        }
    }
}

/// What the store is told of an exchange whose message it does not have.
fn bare_exchange<'a>(session: SessionNumber, packet_id: PacketId, order: u64) -> Record<'a> {
    Record::Released { session, message: None, copy: 0, packet_id: packet_id.number(), order }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pantala_store::disk::SimDisk;
    use pantala_store::log::LogOptions;
    use pantala_store::{Clock, Pause};

    use super::*;
    use crate::{CoreOptions, DurabilityRule, ListenerSettings, RetainedMessage, Settings};

    fn packet(first_byte: u8, body: &[&[u8]]) -> Vec<u8> {
        let mut left = body.concat().len();
        let mut packet = vec![first_byte];
        while left >= 0x80 {
            packet.push(left as u8 | 0x80);
            left >>= 7;
        }
        packet.push(left as u8);
        packet.extend(body.concat());
        packet
    }

    /// What could not be put out of memory stopped all behind it from being so. What a client was sent that takes nothing stayed
    /// there too.
    #[test]
    fn messages_that_stay_in_memory_do_not_keep_others_there() {
        [false, true].into_iter().for_each(fill_queue);
    }

    /// Of a client that is absent, or that is there and acknowledges nothing.
    fn fill_queue(is_there: bool) {
        const PAYLOAD_BYTES: usize = 1 << 20;
        let rule = DurabilityRule { filter: "m/#".to_owned(), level: Durability::Memory };
        let listeners = vec![ListenerSettings::default()];
        let settings = Settings { listeners, durability_rules: vec![rule], ..Settings::default() };
        let opened = pantala_store::open::<_, RetainedMessage>;
        let mut opened = opened(SimDisk::new(), LogOptions::default(), 1, Durability::Fsync).unwrap();
        let options = CoreOptions::alone(Arc::new(settings), Box::new(|bytes| bytes.fill(7)));
        let (mut core, now) = (Core::new(options, opened.stores.remove(0)), Instant(1));
        let connect = |core: &mut Core<_>, flags: u8, name: &[u8]| {
            let key = core.open(now, 0);
            core.receive(now, key, &packet(0x10, &[b"\0\x04MQTT\x04", &[flags, 0, 0], b"\0\x01", name]));
            key
        };
        // Clean Session 0.
        let absent = connect(&mut core, 0, b"s");
        core.receive(now, absent, &packet(0x82, &[b"\0\x01\0\x01#\x01"]));
        if !is_there {
            core.lost(now, absent);
        }
        let publisher = connect(&mut core, 2, b"p");
        let messages = QUEUED_MEMORY_BYTES_MAX as usize / PAYLOAD_BYTES + 40;
        for number in 0..messages {
            let topic_name = if number % 20 == 0 { b"\0\x03m/x" } else { b"\0\x03k/x" };
            core.receive(now, publisher, &packet(0x32, &[topic_name, b"\0\x01", &vec![0; PAYLOAD_BYTES]]));
            core.submit();
            while opened.committer.step(Clock::default(), &mut |_| {}) == Pause::None {}
            core.store_completed(now);
        }
        let queued = core
            .sessions
            .iter()
            .filter_map(|(_, session)| session.owed.as_ref())
            .map(|owed| owed.queued_bytes)
            .sum::<u64>();
        let sent = if is_there { usize::from(core.settings.inflight_messages_max) } else { 0 };
        assert!(queued > ((messages - sent) * PAYLOAD_BYTES) as u64);
        assert!(core.queued_memory <= QUEUED_MEMORY_BYTES_MAX, "{} bytes", core.queued_memory);
    }
}
