//! From a message to its receivers.
//!
//! One walk of the filter tree finds Sessions and groups of this worker and other workers that are interested. What is
//! found is merged, so that overlapping subscriptions give one copy, and delivered. A QoS 0 message to a client that is
//! connected goes from the bytes it came in straight to the bytes that go out, without an allocation.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Delivery, ForwardProperties, Outgoing, PacketId, PlainPublish,
    ProtocolVersion, QoS, ReasonCode,
};
use pantala_session::{Instant, Outbound, Send, SentAlias};
use pantala_store::{LoadError, MessageId, Position, Record, Store};
use slab::Slab;

use crate::access::{self, Permit, Receipt};
use crate::connection::Connection;
use crate::core::{Core, Target};
use crate::loaded::Loaded;
use crate::mailbox::Frame;
use crate::message::{Body, Identifiers, Incoming, Message, Queued, Room};
use crate::output::{BufferPool, SHARED_PAYLOAD_BYTES};
use crate::persist::Origin;
use crate::session::{Grant, Owed, Session, SessionKey};
use crate::shared::Member;
use crate::{Cause, ConnectionKey, QueueFull, Trip, WorkerId, owner};

/// A Session that a message goes to, with all that its subscriptions grant together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Match {
    session: SessionKey,
    qos: QoS,
    retain_as_published: bool,
    identifier: Option<NonZeroU32>,
    /// There are more identifiers, in `Core::merged_identifiers`.
    merged: bool,
}

impl Match {
    #[inline]
    fn new(session: SessionKey, grant: &Grant) -> Self {
        let Grant { qos, retain_as_published, identifier, .. } = *grant;
        Self { session, qos, retain_as_published, identifier, merged: false }
    }

    /// Whether a QoS 1 or 2 message would have to be kept for it.
    pub(crate) fn is_kept(&self, sessions: &Slab<Session>) -> bool {
        self.qos != QoS::AtMostOnce
            && sessions.get(self.session as usize).is_some_and(|session| session.number.is_some())
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Sessions, groups and workers that it went to.
    pub(crate) receivers: u32,
    /// What the store has to reach before it may be acknowledged.
    pub(crate) position: Position,
}

/// Forms of one message that several receivers share.
struct Copies {
    /// Whether there are several.
    many: bool,
    message: Option<Arc<Message>>,
    /// The same without the name that the store has for it.
    unnamed: Option<Arc<Message>>,
    /// Where in `Core::encoded` a packet stands, for each of the four ways to encode a QoS 0 PUBLISH.
    encoded: [Option<(usize, usize)>; 4],
}

impl Copies {
    fn new(many: bool) -> Self {
        Self { many, message: None, unnamed: None, encoded: [None; 4] }
    }

    fn message(&mut self, incoming: &Incoming<'_>) -> &Arc<Message> {
        self.message.get_or_insert_with(|| Message::new(incoming))
    }

    /// For a queue at QoS 0, of which the store knows nothing: what becomes of it there is no concern of those it keeps it for.
    fn unnamed(&mut self, incoming: &Incoming<'_>) -> &Arc<Message> {
        let message = Arc::clone(self.message(incoming));
        self.unnamed.get_or_insert_with(|| {
            if message.id().is_none() { message } else { Message::new(&Incoming { id: None, ..message.incoming() }) }
        })
    }
}

impl<S: Store> Core<S> {
    /// Routes a message from a client of this worker, or from the broker itself, to all who are to have it, and keeps it
    /// if it is to be retained. It has been through [`Core::begin_routing`].
    #[inline]
    pub(crate) fn route(
        &mut self,
        now: Instant,
        publisher: Option<SessionKey>,
        incoming: &Incoming<'_>,
        origin: Origin,
        permit: Permit,
    ) -> Routed {
        let mut routed = self.route_locally(now, publisher, incoming, permit);
        // With RETAIN at QoS 0 nothing is promised, so a disk in trouble is no reason not to deliver it.
        let retains =
            incoming.retain && (incoming.qos != QoS::AtMostOnce || incoming.id.is_none() || self.store.accepts());
        if incoming.retain && !retains {
            self.counters.dropped_retained_store_refused += 1;
        }
        if retains {
            // Its number: what is subscribed from here on has not had it live.
            self.writes_seen[usize::from(self.worker.0)] += 1;
            let home = owner(incoming.topic_name, self.workers);
            let written = self.written();
            // Of one that removes what is there nobody has to be known.
            let publisher = publisher.filter(|_| !incoming.payload.is_empty() && self.notes_publishers());
            if home == self.worker {
                let publisher = publisher.map(|key| self.note_publisher(key));
                self.retain(now, incoming, home, written, publisher);
            } else {
                let publisher = publisher.map(|key| self.publisher(key));
                let batch = self.outboxes[usize::from(home.0)].retained();
                let message = batch.pack(incoming);
                batch.frames.push_back(Frame::Retain { message, written, publisher });
            }
        }
        let mut others = 0;
        if self.remote_matches != 0 {
            others = self.route_to_workers(incoming, &mut routed);
        }
        if incoming.id.is_some() {
            routed.position = self.record_publish(incoming, retains, others, origin, publisher);
            if !self.retained_ended.is_empty() {
                self.record_retained_ended();
            }
        } else if incoming.retain && self.store.keeps() {
            routed.position = self.end_retained_before(incoming.topic_name);
        }
        routed
    }

    /// Passes a message once to each other worker that is interested. Returns how many of them the store waits for.
    fn route_to_workers(&mut self, incoming: &Incoming<'_>, routed: &mut Routed) -> u32 {
        let mut workers = std::mem::take(&mut self.remote_matches);
        let keep = if incoming.id.is_some() && incoming.qos != QoS::AtMostOnce { self.remote_keeps } else { 0 };
        let others = (workers & keep).count_ones();
        let written = self.written();
        while workers != 0 {
            let to = workers.trailing_zeros() as usize;
            workers &= workers - 1;
            let name_receivers = keep & 1 << to != 0;
            let batch = self.outboxes[to].messages();
            let message = batch.pack(incoming);
            batch.frames.push_back(Frame::Route { message, written, name_receivers });
            routed.receivers += 1;
        }
        others
    }

    /// Delivers a message to the Sessions of this worker and to groups at home here. Leaves the other workers that are
    /// interested in `remote_matches`.
    pub(crate) fn route_locally(
        &mut self,
        now: Instant,
        publisher: Option<SessionKey>,
        incoming: &Incoming<'_>,
        _permit: Permit,
    ) -> Routed {
        let filters = self.find_receivers(publisher, incoming.topic_name);
        self.deliver_found(now, filters, incoming)
    }

    /// Routes a message with nothing special about it. `packet` is the PUBLISH as it came, in the form of `version`.
    /// Returns its only receiver, if it went there as it came.
    #[inline]
    pub(crate) fn route_plain(
        &mut self,
        now: Instant,
        publisher: SessionKey,
        version: ProtocolVersion,
        plain: &PlainPublish<'_>,
        packet: &[u8],
        _permit: Permit,
    ) -> Option<SessionKey> {
        let filters = self.find_receivers(Some(publisher), plain.topic_name);
        if let ([found], [], 0) = (self.matches.as_slice(), self.group_matches.as_slice(), self.remote_matches)
            && found.identifier.is_none()
            && let session = found.session
            && access::receive(&self.sessions[session as usize].access, plain.topic_name).is_ok_and(|it| it.is_plain())
            && self.forward_plain(session, version, packet, plain.payload.len())
        {
            self.matches.clear();
            return Some(session);
        }
        if self.matches.is_empty() && self.group_matches.is_empty() && self.remote_matches == 0 {
            return None;
        }
        let incoming = Incoming {
            topic_name: plain.topic_name,
            properties: ForwardProperties::default(),
            payload: plain.payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            id: None,
            room: Room::Unasked,
        };
        let mut routed = self.deliver_found(now, filters, &incoming);
        if self.remote_matches != 0 {
            self.route_to_workers(&incoming, &mut routed);
        }
        None
    }

    /// Passes a PUBLISH with nothing special about it on as it is, if its only receiver, who may have it, takes packets of this
    /// form.
    #[inline]
    pub(crate) fn forward_plain(
        &mut self,
        session: SessionKey,
        version: ProtocolVersion,
        packet: &[u8],
        payload_bytes: usize,
    ) -> bool {
        let Self { sessions, connections, settings, pool, dirty, counters, .. } = self;
        if let Some(session) = sessions.get(session as usize)
            && let Some(key) = session.connection
            && let Some(connection) = connections.get_mut(key as usize)
            && connection.version.is_v5() == version.is_v5()
            && !settings.upgrade_outgoing_qos
            && !settings.queue_qos0_messages
            && session.replays.is_none()
            && connection.takes_plain(packet.len(), settings.outgoing_bytes_max)
        {
            connection.output.append(pool, usize::MAX, 0, |out| out.extend_from_slice(packet));
            if !connection.dirty {
                connection.dirty = true;
                dirty.push(key);
            }
            counters.publish_sent += 1;
            counters.publish_bytes_sent += payload_bytes as u64;
            return true;
        }
        false
    }

    /// Finds Sessions, groups and workers that a message goes to. Returns how many filters matched.
    #[inline]
    pub(crate) fn find_receivers(&mut self, publisher: Option<SessionKey>, topic_name: &str) -> u32 {
        let Self { tree, matches, group_matches, .. } = self;
        // Should the routing of an earlier message have panicked, what it had found is not for this one.
        matches.clear();
        group_matches.clear();
        let (mut filters, mut remote, mut keeps) = (0, 0_u64, 0_u64);
        tree.matches(topic_name, |entries| {
            filters += 1;
            for (target, grant) in entries {
                match *target {
                    // v5 MQTT-3.8.3-3.
                    Target::Session(key) if grant.no_local && publisher == Some(key) => {}
                    Target::Session(key) => matches.push(Match::new(key, grant)),
                    Target::Group(number) => group_matches.push(number),
                    Target::Worker(WorkerId(worker)) => {
                        remote |= 1 << worker;
                        keeps |= u64::from(grant.qos != QoS::AtMostOnce) << worker;
                    }
                }
            }
        });
        self.remote_matches = remote;
        self.remote_keeps = keeps;
        filters
    }

    /// Delivers a message to what [`Core::find_receivers`] has found here.
    fn deliver_found(&mut self, now: Instant, filters: u32, incoming: &Incoming<'_>) -> Routed {
        if self.matches.is_empty() && self.group_matches.is_empty() {
            return Routed::default();
        }
        let remote = self.remote_matches;
        if filters > 1 && self.matches.len() > 1 && !self.settings.allow_duplicate_messages {
            self.merge_matches();
        }
        let mut matches = std::mem::take(&mut self.matches);
        let mut routed = Routed::default();
        let mut copies = Copies::new(matches.len() > 1);
        for (at, found) in matches.iter().enumerate() {
            let Ok(receipt) = access::receive(&self.sessions[found.session as usize].access, incoming.topic_name)
            else {
                self.counters.withheld_not_authorized += 1;
                continue;
            };
            let retain = incoming.retain && found.retain_as_published;
            let mut identifiers = Identifiers::from(found.identifier);
            if found.merged {
                let more = self.merged_identifiers.iter().filter(|(of, _)| *of as usize == at);
                more.for_each(|(_, identifier)| identifiers.add(*identifier));
            }
            let path = Path::default();
            self.deliver(now, found.session, found.qos, retain, identifiers, path, incoming, receipt, &mut copies);
            routed.receivers += 1;
        }
        matches.clear();
        self.matches = matches;
        self.encoded.clear();
        if !self.group_matches.is_empty() && incoming.room == Room::Unasked {
            let mut groups = std::mem::take(&mut self.group_matches);
            for number in groups.drain(..) {
                self.dispatch_here(now, number, incoming);
                routed.receivers += 1;
            }
            self.group_matches = groups;
            self.remote_matches = remote;
        }
        routed
    }

    /// Overlapping subscriptions of one Session become one match: the highest QoS (v5 MQTT-3.3.4-2) and all identifiers
    /// (v5 MQTT-3.3.4-4).
    fn merge_matches(&mut self) {
        self.match_epoch = self.match_epoch.wrapping_add(1);
        if self.match_epoch == 0 {
            // Gone round: what Sessions remember of epochs of this number is of long ago.
            self.sessions.iter_mut().for_each(|(_, session)| session.match_epoch = 0);
            self.match_epoch = 1;
        }
        let Self { matches, sessions, match_epoch, merged_identifiers, .. } = self;
        merged_identifiers.clear();
        let mut kept = 0;
        for at in 0..matches.len() {
            let session = &mut sessions[matches[at].session as usize];
            if session.match_epoch == *match_epoch {
                let found = matches[at];
                let merged = &mut matches[session.match_index as usize];
                merged.qos = merged.qos.max(found.qos);
                merged.retain_as_published |= found.retain_as_published;
                match (merged.identifier, found.identifier) {
                    (Some(_), Some(identifier)) => {
                        merged.merged = true;
                        merged_identifiers.push((session.match_index, identifier));
                    }
                    (None, identifier) => merged.identifier = identifier,
                    (Some(_), None) => {}
                }
            } else {
                session.match_epoch = *match_epoch;
                session.match_index = kept as u32;
                matches.swap(kept, at);
                kept += 1;
            }
        }
        matches.truncate(kept);
    }

    /// Whether a queue that a QoS 1 or 2 message would go to is full, of those that [`Core::find_receivers`] has found here.
    pub(crate) fn would_overflow(&mut self, now: Instant, topic_name: &str, bytes: usize) -> bool {
        (0..self.matches.len()).any(|at| {
            let Match { session, qos, .. } = self.matches[at];
            qos != QoS::AtMostOnce
                && access::receive(&self.sessions[session as usize].access, topic_name).is_ok()
                && !self.can_start(session)
                && self.is_queue_full(now, session, bytes)
        })
    }

    /// Whether a QoS 1 or 2 message to a Session would go out at once.
    pub(crate) fn can_start(&self, key: SessionKey) -> bool {
        let session = &self.sessions[key as usize];
        let Some(connection) = session.connection.and_then(|key| self.connections.get(key as usize)) else {
            return false;
        };
        let inflight_bytes_max = self.settings.inflight_bytes_max;
        !connection.gated
            && connection.output.pending() < self.settings.outgoing_bytes_max as usize
            && session.owed.as_ref().is_none_or(|owed| {
                (inflight_bytes_max == 0 || owed.inflight_bytes < inflight_bytes_max)
                    && owed.exchanges.can_start(connection.window)
            })
    }

    /// Which limit a queue that is full has met.
    fn queue_limit(&self, key: SessionKey) -> Cause {
        let (messages_max, bytes_max) = (self.settings.queued_messages_max, self.settings.queued_bytes_max);
        let length = self.sessions[key as usize].owed.as_ref().map_or(0, |owed| owed.exchanges.queue_len());
        match messages_max > 0 && length >= messages_max as usize {
            true => Cause::setting("queued_messages_max", messages_max),
            false => Cause::setting("queued_bytes_max", bytes_max),
        }
    }

    pub(crate) fn is_queue_full(&mut self, now: Instant, key: SessionKey, bytes: usize) -> bool {
        let (messages_max, bytes_max) = (self.settings.queued_messages_max, self.settings.queued_bytes_max);
        let full = |owed: &Owed| {
            messages_max > 0 && owed.exchanges.queue_len() >= messages_max as usize
                || bytes_max > 0 && owed.queued_bytes + bytes as u64 > bytes_max
        };
        let session = &mut self.sessions[key as usize];
        let Some(owed) = &mut session.owed else { return full(&Owed::default()) };
        if !full(owed) {
            return false;
        }
        if now < owed.queue_expires_at {
            return true;
        }
        // What has expired makes room first.
        let (mut expired, mut freed, mut memory, mut next) = (0, 0, 0, Instant(u64::MAX));
        let mut gone: Vec<(MessageId, u32)> = Vec::new();
        owed.exchanges.retain_queued(|_, queued| {
            let keep = !queued.is_expired(now);
            if keep && let Some(at) = queued.expires_at() {
                next = next.min(at);
            }
            if !keep {
                expired += 1;
                freed += queued.bytes() as u64;
                if matches!(queued.body, Body::Here(_)) {
                    memory += queued.bytes() as u64;
                }
                gone.extend(queued.kept());
            }
            keep
        });
        owed.queue_expires_at = next;
        owed.queued_bytes -= freed;
        owed.evicted = 0;
        let (number, full) = (session.number, full(owed));
        self.queued_memory = self.queued_memory.saturating_sub(memory);
        for kept in gone {
            self.record_settled(number, Some(kept), None);
        }
        self.counters.dropped_expired += expired;
        full
    }

    /// Delivers a message to one Session: sends it, or lets it wait, or drops it and counts why.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "on the hot path; a struct would be built to be taken apart")]
    fn deliver(
        &mut self,
        now: Instant,
        key: SessionKey,
        granted: QoS,
        retain: bool,
        identifiers: Identifiers,
        path: Path,
        incoming: &Incoming<'_>,
        receipt: Receipt,
        copies: &mut Copies,
    ) {
        let qos = self.granted(granted, incoming.qos);
        let session = &mut self.sessions[key as usize];
        if incoming.retain && session.replays.is_some() {
            crate::replay::note_live(session, incoming.topic_name);
        }
        if qos == QoS::AtMostOnce {
            // Behind queued QoS 0 messages it waits its turn; QoS 1 and 2 do not hold it up (v5 MQTT-3.3.4-10).
            if let Some(connection) = session.connection
                && (!self.settings.queue_qos0_messages || session.queue_len() == 0)
            {
                self.send_at_most_once(now, connection, retain, &identifiers, incoming, receipt, copies);
                return;
            }
            // v5 section 3.1.2.11.2 leaves it to the server whether QoS 0 messages wait for absent clients.
            if session.connection.is_none() && !self.settings.queue_qos0_messages {
                self.counters.dropped_client_absent += 1;
                return;
            }
            if self.totals.memory_short.load(Ordering::Relaxed) {
                self.counters.dropped_memory_short += 1;
                return;
            }
        }
        let message = if qos == QoS::AtMostOnce { copies.unnamed(incoming) } else { copies.message(incoming) };
        let body = Body::Here(Arc::clone(message));
        let queued = Queued { body, retain, identifiers, group: path.group.clone(), ready_at: Position::default() };
        self.deliver_kept(now, key, qos, queued, path, incoming.room, receipt);
    }

    /// Delivers a message that has to be kept until it is acknowledged.
    #[expect(clippy::too_many_arguments, reason = "the rest of `deliver`")]
    fn deliver_kept(
        &mut self,
        now: Instant,
        key: SessionKey,
        qos: QoS,
        queued: Queued,
        path: Path,
        room: Room,
        receipt: Receipt,
    ) {
        let number = self.sessions[key as usize].number;
        let kept = if qos == QoS::AtMostOnce || number.is_none() { None } else { queued.kept() };
        // What somebody else has named as a receiver has to be told when it is none after all.
        let not_delivered = if path.named { kept } else { None };
        if qos != QoS::AtMostOnce && self.can_start(key) {
            return self.start(now, key, qos, queued, path, kept, receipt);
        }
        if queued.is_expired(now) {
            self.counters.dropped_expired += 1;
            return self.record_settled(number, not_delivered, None);
        }
        let bytes = queued.bytes();
        if room == Room::Unasked && self.is_queue_full(now, key, bytes) {
            // For one that is larger than the whole queue nothing makes way.
            let bytes_max = self.settings.queued_bytes_max;
            let too_large = bytes_max > 0 && bytes as u64 > bytes_max;
            let cause = self.queue_limit(key);
            self.trip(Trip::MessagesTo, Some(key), cause);
            if too_large || self.settings.queue_full != QueueFull::DropOldest {
                self.counters.dropped_queue_full_newest += 1;
                return self.record_settled(number, not_delivered, None);
            }
            while self.is_queue_full(now, key, bytes) {
                let Some(owed) = &mut self.sessions[key as usize].owed else { break };
                let Some((_, oldest)) = owed.exchanges.drop_oldest_queued() else { break };
                owed.queued_bytes -= oldest.bytes() as u64;
                self.left_queue(key, &oldest);
                self.record_settled(number, oldest.kept(), None);
                self.counters.dropped_queue_full_oldest += 1;
            }
        }
        let owed = self.sessions[key as usize].owed.get_or_insert_default();
        owed.queued_bytes += bytes as u64;
        self.queued_memory += bytes as u64;
        if let Some(at) = queued.expires_at() {
            owed.queue_expires_at = owed.queue_expires_at.min(at);
        }
        let name = kept.is_some() && !path.named && !mutant!(QueuedNotRecorded);
        let (retain, identifiers) = (queued.retain, name.then(|| queued.identifiers.clone()));
        let order = owed.exchanges.enqueue(qos, queued);
        if let (Some(number), Some(identifiers)) = (number, identifiers) {
            self.name_receiver(number, qos, retain, order, &identifiers, path.group);
        }
        self.evict(key);
    }

    /// Begins the exchange of a message with a client that has room for it.
    #[expect(clippy::too_many_arguments, reason = "the rest of `deliver`")]
    fn start(
        &mut self,
        now: Instant,
        key: SessionKey,
        qos: QoS,
        mut queued: Queued,
        path: Path,
        kept: Option<(MessageId, u32)>,
        receipt: Receipt,
    ) {
        let session = &mut self.sessions[key as usize];
        let (number, connection, bytes) = (session.number, session.connection, queued.bytes() as u64);
        let owed = session.owed.get_or_insert_default();
        let waits = qos == QoS::ExactlyOnce && number.is_some();
        let delivery = if waits {
            queued.ready_at = Position::NEVER;
            owed.exchanges.admit(qos, queued.clone())
        } else {
            owed.exchanges.start(qos, queued.clone())
        };
        owed.inflight_bytes += bytes;
        let (Some(connection), Some(packet_id)) = (connection, delivery.packet_id()) else { return };
        if !waits
            && let Body::Here(message) = &queued.body
            && !self.send_publish(now, connection, delivery, &queued, message, receipt)
        {
            self.abandon(key, packet_id, bytes);
            return self.record_settled(number, if path.named { kept } else { None }, None);
        }
        if let (Some(number), None, true) = (number, kept, waits) {
            self.record_bare_exchange(key, number, packet_id);
        }
        if let (Some(number), Some(kept)) = (number, kept) {
            if !path.named {
                let owed = self.sessions[key as usize].owed.as_ref();
                let order = owed.and_then(|owed| owed.exchanges.order(packet_id)).unwrap_or_default();
                self.name_receiver(number, qos, queued.retain, order, &queued.identifiers, path.group);
            }
            self.note_begun(key, kept, packet_id, waits);
        }
    }

    // ---- onto the wire ----------------------------------------------------------------------------------------

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the rest of `deliver`")]
    fn send_at_most_once(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        retain: bool,
        identifiers: &Identifiers,
        incoming: &Incoming<'_>,
        receipt: Receipt,
        copies: &mut Copies,
    ) {
        let Self { connections, pool, encoded, dirty, settings, counters, .. } = self;
        let Some(connection) = connections.get_mut(key as usize) else { return };
        let pending = connection.output.pending();
        if pending > 0 && pending + incoming.payload.len() > settings.outgoing_bytes_max as usize {
            counters.dropped_outgoing_full += 1;
            let session = connection.session;
            let cause = Cause::setting("outgoing_bytes_max", settings.outgoing_bytes_max);
            return self.trip(Trip::MessagesTo, session, cause);
        }
        let plain = *identifiers == Identifiers::None && receipt.is_plain() && !has_sent_aliases(connection);
        let outgoing = Outgoing {
            delivery: Delivery::AtMostOnce,
            retain,
            topic_name: receipt.topic_name(incoming.topic_name),
            properties: incoming.properties,
            message_expiry_interval: incoming.message_expiry_interval(now),
            topic_alias: None,
            subscription_identifiers: identifiers.as_slice(),
        };
        let share = copies.many && incoming.payload.len() >= SHARED_PAYLOAD_BYTES;
        let sent = if copies.many && plain {
            let version = connection.version;
            let form = usize::from(version.is_v5()) | usize::from(retain) << 1;
            let (start, end) = *copies.encoded[form].get_or_insert_with(|| {
                let start = encoded.len();
                outgoing.encode_header(version, incoming.payload.len(), encoded);
                if !share {
                    encoded.extend_from_slice(incoming.payload);
                }
                (start, encoded.len())
            });
            let more = if share { incoming.payload.len() } else { 0 };
            let bytes_max = connection.packet_bytes_max as usize;
            let packet = &encoded[start..end];
            let sent = connection.output.append(pool, bytes_max, more, |out| out.extend_from_slice(packet)).is_some();
            if sent && share {
                connection.output.append_shared(Arc::clone(copies.message(incoming)));
            }
            sent
        } else {
            let shared = share.then(|| copies.message(incoming));
            append_publish(connection, pool, outgoing, incoming.payload, shared)
        };
        if !sent {
            counters.dropped_too_large_for_client += 1;
            return;
        }
        counters.publish_sent += 1;
        counters.publish_bytes_sent += incoming.payload.len() as u64;
        if !connection.dirty {
            connection.dirty = true;
            dirty.push(key);
        }
    }

    /// Appends a PUBLISH of a kept message to a connection's output. False if it is too large for the client.
    fn send_publish(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        delivery: Delivery,
        queued: &Queued,
        message: &Arc<Message>,
        receipt: Receipt,
    ) -> bool {
        let Self { connections, pool, dirty, counters, .. } = self;
        let Some(connection) = connections.get_mut(key as usize) else { return true };
        let incoming = message.incoming();
        let outgoing = Outgoing {
            delivery,
            retain: queued.retain,
            topic_name: receipt.topic_name(incoming.topic_name),
            properties: incoming.properties,
            message_expiry_interval: incoming.message_expiry_interval(now),
            topic_alias: None,
            subscription_identifiers: queued.identifiers.as_slice(),
        };
        let shared = (incoming.payload.len() >= SHARED_PAYLOAD_BYTES).then_some(message);
        if !append_publish(connection, pool, outgoing, incoming.payload, shared) {
            counters.dropped_too_large_for_client += 1;
            return false;
        }
        counters.publish_sent += 1;
        counters.publish_bytes_sent += incoming.payload.len() as u64;
        if !connection.dirty {
            connection.dirty = true;
            dirty.push(key);
        }
        true
    }

    /// Sends what waits for a Session, as far as its client takes it: resends, the queue, then Retained Messages.
    pub(crate) fn pump(&mut self, now: Instant, key: SessionKey) {
        let durable = self.store.durable();
        loop {
            let Some(session) = self.sessions.get_mut(key as usize) else { return };
            let Some(connection_key) = session.connection else { return };
            let Some(connection) = self.connections.get(connection_key as usize) else { return };
            if connection.output.pending() >= self.settings.outgoing_bytes_max as usize {
                return;
            }
            let (window, gated) = (connection.window, connection.gated);
            let Some(owed) = &mut session.owed else { break };
            let inflight_bytes_max = self.settings.inflight_bytes_max;
            if inflight_bytes_max > 0 && owed.inflight_bytes >= inflight_bytes_max && !owed.exchanges.has_resends() {
                return;
            }
            if session.number.is_some() && !owed.exchanges.has_resends() && self.store.keeps() {
                self.admit_queued(now, key, window);
            }
            // Exchanges can begin, so that they wait for the store once; but what is sent now would not get older.
            if gated {
                return;
            }
            let Some(session) = self.sessions.get_mut(key as usize) else { return };
            let Some(owed) = &mut session.owed else { break };
            match load_next(&mut owed.exchanges, &self.store, &mut self.loaded, &mut self.queued_memory) {
                // What is damaged is dropped where it would be sent.
                Ok(()) | Err(LoadError::Damaged) => {}
                // It is tried again later, and what came after it waits behind it.
                Err(LoadError::Unreadable) => {
                    self.counters.store_read_errors += 1;
                    return;
                }
            }
            let waiting = owed.exchanges.queue_len();
            let Some(send) = owed.exchanges.next(window, |queued| queued.ready_at <= durable) else { break };
            match send {
                Send::PubRel(packet_id) => {
                    self.send_pub_rel(connection_key, packet_id, ReasonCode::Success);
                }
                Send::Publish(delivery, queued) => {
                    let from_queue = owed.exchanges.queue_len() < waiting;
                    let bytes = queued.bytes() as u64;
                    if from_queue {
                        owed.queued_bytes -= bytes;
                        if delivery != Delivery::AtMostOnce {
                            owed.inflight_bytes += bytes;
                        }
                        self.left_queue(key, &queued);
                    }
                    self.send_queued(now, key, connection_key, delivery, &queued, from_queue);
                }
            }
        }
        if self.sessions.get(key as usize).is_some_and(|session| session.replays.is_some()) {
            self.replay(now, key);
        }
    }

    /// Sends a message that has waited, if there is still a need to.
    fn send_queued(
        &mut self,
        now: Instant,
        key: SessionKey,
        connection: ConnectionKey,
        delivery: Delivery,
        queued: &Queued,
        from_queue: bool,
    ) {
        let number = self.sessions[key as usize].number;
        // v5 MQTT-3.3.2-5; what has been sent once goes on whatever its age (v5 MQTT-4.3.3-7). An exchange may have been open
        // for long before it could be sent, since the store has to know of it first.
        let sent_before =
            matches!(delivery, Delivery::AtLeastOnce { dup: true, .. } | Delivery::ExactlyOnce { dup: true, .. });
        let expired = !sent_before && queued.is_expired(now) && !mutant!(ExpiredDelivered);
        self.counters.dropped_expired += u64::from(expired);
        let message = self.body(queued).ok();
        self.counters.dropped_store_damaged += u64::from(message.is_none() && !expired);
        // The rules may be others than when it was queued.
        let access = &self.sessions[key as usize].access;
        let receipt = message.as_ref().and_then(|message| access::receive(access, message.incoming().topic_name).ok());
        let withheld = message.as_ref().filter(|_| receipt.is_none());
        self.counters.withheld_not_authorized += u64::from(withheld.is_some());
        if receipt.is_none()
            && sent_before
            && let Delivery::ExactlyOnce { packet_id, .. } = delivery
        {
            // The client may have it already, and know its Packet Identifier: that is free only after PUBCOMP. So the exchange
            // goes on as if the client had answered.
            let received = Acknowledgement::new(AcknowledgementKind::PubRec, packet_id, ReasonCode::Success);
            self.acknowledgement(now, connection, &received);
            return;
        }
        let sent = match (receipt, &message) {
            (Some(receipt), Some(message)) if !expired => {
                self.send_publish(now, connection, delivery, queued, message, receipt)
            }
            _ => false,
        };
        let Some(packet_id) = delivery.packet_id() else { return };
        if !sent {
            self.abandon(key, packet_id, queued.bytes() as u64);
            let packet_id = (!from_queue).then_some(packet_id);
            match queued.group.as_ref().zip(withheld) {
                // Of those who share the subscription another may have it.
                Some((group, message)) if !expired => {
                    self.record_settled(number, None, packet_id);
                    self.dispatch(now, group, &message.incoming(), number.filter(|_| queued.id().is_some()));
                }
                _ => self.record_settled(number, queued.kept(), packet_id),
            }
        } else if from_queue && let (Some(session), Some((message, copy))) = (number, queued.kept()) {
            let owed = self.sessions[key as usize].owed.as_ref();
            let order = owed.and_then(|owed| owed.exchanges.order(packet_id)).unwrap_or_default();
            self.store.append(&Record::Sent { session, message, copy, packet_id: packet_id.number(), order });
        }
    }

    /// A message just taken for sending was not sent after all: it counts as delivered (v5 MQTT-3.1.2-25).
    fn abandon(&mut self, key: SessionKey, packet_id: PacketId, bytes: u64) {
        if let Some(owed) = &mut self.sessions[key as usize].owed {
            owed.inflight_bytes -= bytes;
            owed.exchanges.abandon(packet_id);
        }
    }

    // ---- Shared Subscriptions ---------------------------------------------------------------------------------

    /// Gives a message to the member of a group whose turn it is.
    pub(crate) fn dispatch_here(&mut self, now: Instant, number: u32, incoming: &Incoming<'_>) {
        let Some((member, grant)) = self.groups.choose(number, incoming.topic_name) else {
            self.counters.dropped_no_member += 1;
            return;
        };
        let Some(group) = self.groups.filter(number) else { return };
        self.deliver_to(now, member, grant, &group, incoming);
    }

    /// Gives a message to a member that has been chosen, wherever it is, and names it to the store.
    pub(crate) fn deliver_to(
        &mut self,
        now: Instant,
        member: Member,
        grant: Grant,
        group: &Arc<str>,
        incoming: &Incoming<'_>,
    ) {
        if member.worker == self.worker {
            return self.deliver_to_member(now, member, grant, group, incoming, false);
        }
        if let Some(session) = member.owed(grant, incoming) {
            let retain = incoming.retain && grant.retain_as_published;
            let qos = self.granted(grant.qos, incoming.qos);
            self.name_receiver(session, qos, retain, 0, &grant.identifier.into(), Some(Arc::clone(group)));
        }
        let batch = self.outboxes[usize::from(member.worker.0)].messages();
        let (message, group) = (batch.pack(incoming), Arc::clone(group));
        batch.frames.push_back(Frame::Deliver { member, grant, group, message });
    }

    /// A message for a member of this worker; back to the group's home if its Session has ended meanwhile, or may not have it
    /// any more. With `named` the store knows already that it is to have it.
    pub(crate) fn deliver_to_member(
        &mut self,
        now: Instant,
        member: Member,
        grant: Grant,
        group: &Arc<str>,
        incoming: &Incoming<'_>,
        named: bool,
    ) {
        let session = self.sessions.get(member.session as usize);
        let session = session.filter(|session| session.generation == member.generation);
        let Some(Ok(receipt)) = session.map(|session| access::receive(&session.access, incoming.topic_name)) else {
            let from = if named { member.owed(grant, incoming) } else { None };
            return self.dispatch(now, group, incoming, from);
        };
        let retain = incoming.retain && grant.retain_as_published;
        let identifiers = grant.identifier.into();
        let mut copies = Copies::new(false);
        let path = Path { group: Some(Arc::clone(group)), named };
        self.deliver(now, member.session, grant.qos, retain, identifiers, path, incoming, receipt, &mut copies);
    }

    /// The QoS that a message of this QoS is delivered with.
    #[inline]
    fn granted(&self, granted: QoS, published: QoS) -> QoS {
        if self.settings.upgrade_outgoing_qos { granted } else { granted.min(published) }
    }

    /// Delivers a Retained Message because of a new subscription: RETAIN is 1 (v3.1.1 MQTT-3.3.1-8).
    pub(crate) fn deliver_retained(&mut self, now: Instant, key: SessionKey, grant: Grant, message: &Arc<Message>) {
        let mut incoming = message.incoming();
        let Ok(receipt) = access::receive(&self.sessions[key as usize].access, incoming.topic_name) else {
            self.counters.withheld_not_authorized += 1;
            return;
        };
        incoming.retain = false;
        let mut copies = Copies::new(false);
        if self.sessions[key as usize].number.is_some() && incoming.qos != QoS::AtMostOnce {
            // For the store this is one more message, to one receiver.
            self.begin_routing(&mut incoming);
        } else {
            incoming.id = None;
            copies.message = Some(Arc::clone(message));
        }
        let path = Path::default();
        self.deliver(now, key, grant.qos, true, grant.identifier.into(), path, &incoming, receipt, &mut copies);
        if incoming.id.is_some() {
            self.record_publish(&incoming, incoming.retain, 0, Origin::default(), None);
        }
    }
}

impl<S: Store> Core<S> {
    /// Hands a message of the broker's own to one client, at QoS 0.
    pub(crate) fn send_own(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        topic_name: &str,
        payload: &[u8],
        receipt: Receipt,
    ) {
        let incoming = Incoming {
            topic_name,
            properties: ForwardProperties::default(),
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            id: None,
            room: Room::Unasked,
        };
        self.send_at_most_once(now, key, false, &Identifiers::None, &incoming, receipt, &mut Copies::new(false));
    }
}

/// How a message has come to a Session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    /// The Shared Subscription that it came by.
    group: Option<Arc<str>>,
    /// The store knows already that this Session is to have it.
    named: bool,
}

/// Reads the message that goes out next, if it is in the store only.
fn load_next(
    outbound: &mut Outbound<Queued>,
    store: &impl Store,
    loaded: &mut Loaded,
    queued_memory: &mut u64,
) -> Result<(), LoadError> {
    if let Some((queued, from_queue)) = outbound.next_message_mut()
        && let Body::Stored(stored) = &queued.body
    {
        queued.body = Body::Here(loaded.get(store, stored.id)?);
        if from_queue {
            *queued_memory += queued.bytes() as u64;
        }
    }
    Ok(())
}

fn has_sent_aliases(connection: &Connection) -> bool {
    connection.extras.as_ref().is_some_and(|extras| extras.sent_aliases.is_some())
}

/// Appends a PUBLISH, with a Topic Alias if the client takes them. False if it is too large for the client.
#[inline]
fn append_publish(
    connection: &mut Connection,
    pool: &mut BufferPool,
    mut outgoing: Outgoing<'_>,
    payload: &[u8],
    shared: Option<&Arc<Message>>,
) -> bool {
    let version = connection.version;
    let bytes_max = connection.packet_bytes_max as usize;
    if let Some(aliases) = connection.extras.as_mut().and_then(|extras| extras.sent_aliases.as_mut()) {
        // An alias is known to the client only if the packet that sets it is sent, so what may not fit goes without.
        if outgoing.packet_bytes(version, payload.len()) + TOPIC_ALIAS_BYTES_MAX <= bytes_max {
            match aliases.alias(outgoing.topic_name) {
                Some(SentAlias::Known(alias)) => {
                    outgoing.topic_name = "";
                    outgoing.topic_alias = Some(alias);
                }
                Some(SentAlias::New(alias)) => outgoing.topic_alias = Some(alias),
                None => {}
            }
        }
    }
    let more = if shared.is_some() { payload.len() } else { 0 };
    let sent = connection.output.append(pool, bytes_max, more, |out| {
        outgoing.encode_header(version, payload.len(), out);
        if shared.is_none() {
            out.extend_from_slice(payload);
        }
    });
    if let (Some(_), Some(message)) = (sent, shared) {
        connection.output.append_shared(Arc::clone(message));
    }
    sent.is_some()
}

/// What a Topic Alias may add to a packet: itself, and a byte more for each of the two lengths.
const TOPIC_ALIAS_BYTES_MAX: usize = 5;
