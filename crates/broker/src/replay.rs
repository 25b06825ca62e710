//! Retained Messages: kept by the worker that their Topic Name belongs to, sent to new subscriptions a few at a time.
//!
//! A subscription to `#` may match millions. Each client has a cursor into the index, not a copy of what it matches, and
//! gets more when it has taken what it got; other clients are served in between.
//!
//! What is written while this goes on comes live, and must not come again: each write has a number, counted by the worker
//! whose client wrote it, and each subscription knows for each worker the number after which its writes are delivered
//! live. What is older is all that is sent for the subscription.
//!
//! The index of another worker may lag behind what has come live from a third, so that a message it still holds would come
//! after the one that replaced it. Hence before each look the other workers are asked to pass on what they have for
//! anybody: what came live before has arrived in every index then, and what comes live from there on is noted until the
//! look is over, and its topics left out.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pantala_router::{Cursor, Scan, topic_matches};
use pantala_session::Instant;
use pantala_store::{Record, Store};

use crate::core::{Core, Then, Timer};
use crate::mailbox::{Batch, Frame};
use crate::message::{Incoming, Message};
use crate::publisher::PublisherId;
use crate::session::{Grant, Session, SessionKey};
use crate::{Cause, Trip, WorkerId, access};

/// Topic Names that one scan looks at before others get their turn.
const SCAN_BUDGET: usize = 1_024;
/// Messages found by one scan at the most.
const FOUND_MAX: usize = 64;
/// With this much waiting to be written a client gets no more Retained Messages for now.
const REPLAY_OUTPUT_BYTES_MAX: usize = 65_536;
/// Sessions that get their turn at replay in one turn of the worker.
const REPLAYS_PER_TURN: usize = 64;
/// Between two looks for Retained Messages that have expired.
pub(crate) const SWEEP_SECONDS: u32 = 10;

/// A Retained Message in the index.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) message: Arc<Message>,
    /// Who published it, if that is kept.
    publisher: Option<PublisherId>,
    writer: WorkerId,
    /// Its number among the writes of that worker's clients, from 1.
    number: u64,
}

impl Retained {
    /// One of an earlier process: older than all that are written now.
    pub(crate) fn restored(message: Arc<Message>, publisher: Option<PublisherId>) -> Self {
        Self { message, publisher, writer: WorkerId(0), number: 0 }
    }

    /// 1 if it expires some day, else 0: for counting those that do.
    pub(crate) fn expires(&self) -> usize {
        usize::from(self.message.incoming().expires_at.is_some())
    }
}

/// A subscription whose Retained Messages are being sent.
#[derive(Debug)]
pub(crate) struct Replay {
    filter: Box<str>,
    grant: Grant,
    cursor: Cursor,
    /// For each worker, the number of the last write that is not delivered live to this subscription.
    cutoffs: Box<[u64]>,
    /// The announcement of interest that this subscription waits for.
    announcement: Option<u32>,
    /// The worker whose index is being read.
    worker: u8,
    look: Look,
    /// Topics on which a retained message came live during the present look: what the index has for them is older.
    live: Vec<Box<str>>,
}

/// How far one look into an index has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    NotBegun,
    /// The other workers are passing on what they have; they confirm with this token.
    Flushing(u32),
    /// They have.
    Flushed,
    /// The query with this token is under way.
    Asked(u32),
}

/// A query to another worker: which Session wants the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    session: SessionKey,
    generation: u32,
}

impl Replay {
    /// A subscription that is made now; `seen` are the numbers of the last writes of each worker that were matched here.
    pub(crate) fn new(filter: &str, grant: Grant, seen: &[u64], announcement: Option<u32>) -> Self {
        let (cursor, live, look) = (Cursor::new(), Vec::new(), Look::NotBegun);
        let cutoffs = seen.into();
        Self { filter: filter.into(), grant, cursor, cutoffs, announcement, worker: 0, look, live }
    }

    /// A worker has learned of our interest after its write number `written`: from there on it passes them to us.
    pub(crate) fn announced(&mut self, token: u32, worker: usize, written: u64) {
        if self.announcement == Some(token)
            && let Some(cutoff) = self.cutoffs.get_mut(worker)
        {
            *cutoff = written.max(*cutoff);
        }
    }

    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }
}

/// A retained message goes live to a Session that is being sent older ones.
pub(crate) fn note_live(session: &mut Session, topic_name: &str) {
    let Some(replay) = session.replays.as_mut().and_then(|replays| replays.front_mut()) else { return };
    if replay.look != Look::NotBegun && topic_matches(&replay.filter, topic_name) {
        replay.live.push(topic_name.into());
    }
}

impl<S: Store> Core<S> {
    /// Keeps or removes the Retained Message of a topic that is at home here (v5 MQTT-3.3.1-5, MQTT-3.3.1-6).
    ///
    /// `number` counts the writes of the worker `writer`.
    ///
    /// The record of the message has told the store; of two messages from different workers both keep the one that was named
    /// later.
    pub(crate) fn retain(
        &mut self,
        now: Instant,
        incoming: &Incoming<'_>,
        writer: WorkerId,
        number: u64,
        publisher: Option<PublisherId>,
    ) {
        let topic_name = incoming.topic_name;
        if incoming.id.is_some() && self.retained.get(topic_name).is_some_and(|old| old.message.id() > incoming.id) {
            self.publishers.forget(publisher);
            return;
        }
        if incoming.payload.is_empty() {
            debug_assert!(publisher.is_none(), "of one that is not kept nobody is known");
            let Some(old) = self.retained.remove(topic_name) else { return };
            self.publishers.forget(old.publisher);
            self.retained_count(topic_name).fetch_sub(1, Ordering::Relaxed);
            self.retained_expiring -= old.expires();
            self.retained_bytes -= old.message.payload().len() as u64;
            return;
        }
        // The broker's own take nobody's room.
        let full = !access::is_own(topic_name)
            && self.totals.retained.load(Ordering::Relaxed) >= self.settings.retained_messages_max;
        if full && self.retained.get(topic_name).is_none() {
            self.counters.dropped_retained_full += 1;
            self.trip(
                Trip::Retained,
                None,
                Cause::setting("retained_messages_max", self.settings.retained_messages_max),
            );
            self.publishers.forget(publisher);
            if let Some(message) = incoming.id {
                self.retained_ended.push((topic_name.into(), message));
            }
            return;
        }
        let retained = Retained { message: Message::new(incoming), publisher, writer, number };
        self.retained_expiring += retained.expires();
        self.retained_bytes += incoming.payload.len() as u64;
        match self.retained.insert(topic_name, retained) {
            Some(old) => {
                self.publishers.forget(old.publisher);
                self.retained_expiring -= old.expires();
                self.retained_bytes -= old.message.payload().len() as u64;
            }
            None => drop(self.retained_count(topic_name).fetch_add(1, Ordering::Relaxed)),
        }
        if self.retained_expiring > 0 && self.retained_sweep.is_none() {
            self.retained_sweep = Some(Cursor::new());
            self.timers.schedule(now.after_seconds(SWEEP_SECONDS).0, Timer::RetainedSweep);
        }
    }

    /// Where a Retained Message is counted.
    fn retained_count(&self, topic_name: &str) -> &AtomicU32 {
        if access::is_own(topic_name) { &self.totals.retained_own } else { &self.totals.retained }
    }

    /// Tells the store of Retained Messages that were not kept after all: behind the record of their message.
    pub(crate) fn record_retained_ended(&mut self) {
        for (topic_name, message) in std::mem::take(&mut self.retained_ended) {
            self.store.append(&Record::RetainedEnded { topic_name: &topic_name, message });
        }
    }

    /// Removes Retained Messages that have expired, a few at a time. One that has expired is never sent, swept or not.
    pub(crate) fn sweep_retained(&mut self, now: Instant) {
        let Some(mut cursor) = self.retained_sweep.take() else { return };
        let mut expired = Vec::new();
        let scan = self.retained.scan("#", &mut cursor, SCAN_BUDGET * 4, |topic_name, retained| {
            if retained.message.incoming().is_expired(now) {
                expired.push(Box::<str>::from(topic_name));
            }
            ControlFlow::Continue(())
        });
        for topic_name in expired {
            let old = self.retained.remove(&topic_name);
            self.publishers.forget(old.as_ref().and_then(|old| old.publisher));
            self.retained_bytes -= old.as_ref().map_or(0, |old| old.message.payload().len() as u64);
            self.retained_expiring -= 1;
            self.totals.retained.fetch_sub(1, Ordering::Relaxed);
            self.counters.dropped_expired += 1;
            if let Some(message) = old.and_then(|old| old.message.id()) {
                self.store.append(&Record::RetainedEnded { topic_name: &topic_name, message });
            }
        }
        let next = match scan {
            Scan::More => Instant(now.0 + 1),
            Scan::Done => {
                cursor = Cursor::new();
                now.after_seconds(SWEEP_SECONDS)
            }
        };
        if self.retained_expiring > 0 {
            self.retained_sweep = Some(cursor);
            self.timers.schedule(next.0, Timer::RetainedSweep);
        }
    }

    /// The subscriptions of a SUBSCRIBE are complete: their Retained Messages follow.
    pub(crate) fn begin_replays(&mut self, key: SessionKey, replays: Vec<Replay>) {
        if replays.is_empty() || (self.workers == 1 && self.retained.is_empty()) {
            return;
        }
        let session = &mut self.sessions[key as usize];
        let mut replays = replays;
        // It may have been unsubscribed while SUBACK waited for the store or for other workers.
        replays.retain(|new| session.subscriptions.contains(&new.filter));
        let waiting = session.replays.get_or_insert_default();
        // A subscription made anew starts anew.
        if !waiting.is_empty() {
            let new: HashSet<&str> = replays.iter().map(Replay::filter).collect();
            waiting.retain(|old| !new.contains(old.filter()));
        }
        waiting.extend(replays);
        let generation = session.generation;
        self.replay_later(key, generation);
    }

    /// No more Retained Messages for subscriptions that have ended or are disabled. For all of them at once: there may be
    /// thousands, and as many that wait.
    pub(crate) fn end_replays(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key as usize];
        let Some(replays) = &mut session.replays else { return };
        let subscription = |filter: &str| session.subscriptions.get(filter);
        replays.retain(|replay| subscription(replay.filter()).is_some_and(|subscription| !subscription.disabled));
    }

    /// A Session has its turn in the next tick.
    fn replay_later(&mut self, key: SessionKey, generation: u32) {
        self.replaying.push_back((key, generation));
        self.work = true;
    }

    /// Gives Sessions with room their turn.
    pub(crate) fn replay_some(&mut self, now: Instant) {
        for _ in 0..REPLAYS_PER_TURN.min(self.replaying.len()) {
            let Some((key, generation)) = self.replaying.pop_front() else { return };
            if self.sessions.get(key as usize).is_some_and(|session| session.generation == generation) {
                self.replay(now, key);
            }
        }
    }

    /// Sends some Retained Messages to a Session, if its client has room.
    pub(crate) fn replay(&mut self, now: Instant, key: SessionKey) {
        let session = &mut self.sessions[key as usize];
        let Some(connection) = session.connection.and_then(|key| self.connections.get(key as usize)) else { return };
        let room =
            !connection.gated && connection.output.pending() < REPLAY_OUTPUT_BYTES_MAX && session.queue_len() == 0;
        let generation = session.generation;
        let Some(replays) = &mut session.replays else { return };
        let Some(replay) = replays.front_mut() else {
            session.replays = None;
            return;
        };
        if matches!(replay.look, Look::Flushing(_) | Look::Asked(_)) {
            return;
        }
        if !room {
            // Goes on when what waits has gone out, or has been acknowledged. Until then nothing has to be noted.
            replay.look = Look::NotBegun;
            replay.live.clear();
            return;
        }
        if replay.worker == self.workers {
            replays.pop_front();
            self.replay_later(key, generation);
            return;
        }
        if replay.look == Look::NotBegun && self.workers > 1 {
            let others = u16::from(self.workers) - 1;
            let token = self.expect(others, vec![Then::Flushed { session: key, generation }]);
            if let Some(replay) = self.sessions[key as usize].replays.as_mut().and_then(|replays| replays.front_mut()) {
                replay.look = Look::Flushing(token);
            }
            for to in (0..self.workers).filter(|to| *to != self.worker.0) {
                self.outboxes[usize::from(to)].control(Frame::Flush { token });
            }
            return;
        }
        if replay.worker != self.worker.0 {
            let to = usize::from(replay.worker);
            let token = self.next_token.wrapping_add(1);
            self.next_token = token;
            replay.look = Look::Asked(token);
            let (filter, cursor) = (replay.filter.clone(), Box::new(replay.cursor.clone()));
            let cutoffs = replay.cutoffs.clone();
            let query = Query { session: key, generation };
            self.queries.insert(token, query);
            self.outboxes[to].control(Frame::Query { token, filter, cursor, cutoffs });
            return;
        }
        let grant = replay.grant;
        let filter = replay.filter.clone();
        let cutoffs = replay.cutoffs.clone();
        let mut cursor = std::mem::take(&mut replay.cursor);
        let live = std::mem::take(&mut replay.live);
        let (mut found, scan) = self.find_retained(now, &filter, &mut cursor, &cutoffs);
        found.retain(|message| !live.iter().any(|topic| **topic == *message.incoming().topic_name));
        for message in &found {
            self.deliver_retained(now, key, grant, message);
        }
        self.replay_goes_on(key, (scan == Scan::More).then_some(cursor));
    }

    /// One look into this worker's index.
    fn find_retained(
        &mut self,
        now: Instant,
        filter: &str,
        cursor: &mut Cursor,
        cutoffs: &[u64],
    ) -> (Vec<Arc<Message>>, Scan) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        // No more than an empty queue has room for: what a replay finds is not dropped for coming all at once.
        let found_max = match self.settings.queued_messages_max as usize {
            0 => FOUND_MAX,
            max => FOUND_MAX.min(max),
        };
        let Self { retained, publishers, rights, settings, counters, .. } = self;
        let scan = retained.scan(filter, cursor, SCAN_BUDGET, |topic_name, retained| {
            let live = cutoffs.get(usize::from(retained.writer.0)).is_some_and(|cutoff| retained.number > *cutoff);
            if !live && !retained.message.incoming().is_expired(now) {
                if let Some(publisher) = retained.publisher
                    && settings.check_retain_source
                    && !publishers.may_publish(publisher, &**rights, topic_name)
                {
                    counters.withheld_publisher_not_authorized += 1;
                    return ControlFlow::Continue(());
                }
                bytes += retained.message.bytes();
                found.push(Arc::clone(&retained.message));
            }
            if found.len() >= found_max || bytes >= REPLAY_OUTPUT_BYTES_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        (found, scan)
    }

    /// The replay at the front goes on with this cursor, or with the next worker.
    fn replay_goes_on(&mut self, key: SessionKey, cursor: Option<Cursor>) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let Some(replay) = session.replays.as_mut().and_then(|replays| replays.front_mut()) else { return };
        replay.look = Look::NotBegun;
        replay.live.clear();
        match cursor {
            Some(cursor) => replay.cursor = cursor,
            None => {
                replay.cursor = Cursor::new();
                replay.worker += 1;
            }
        }
        let generation = session.generation;
        self.replay_later(key, generation);
    }

    /// All other workers have passed on what they had when they were asked to with `token`.
    pub(crate) fn flushed(&mut self, key: SessionKey, generation: u32, token: u32) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.generation != generation {
            return;
        }
        if let Some(replay) = session.replays.as_mut().and_then(|replays| replays.front_mut())
            && replay.look == Look::Flushing(token)
        {
            replay.look = Look::Flushed;
        }
        self.replay_later(key, generation);
    }

    // ---- between workers --------------------------------------------------------------------------------------

    /// Another worker asks for Retained Messages that are at home here.
    pub(crate) fn answer_query(
        &mut self,
        now: Instant,
        from: WorkerId,
        token: u32,
        filter: &str,
        mut cursor: Cursor,
        cutoffs: &[u64],
    ) {
        let (found, scan) = self.find_retained(now, filter, &mut cursor, cutoffs);
        // By the retained batch, whose bytes leave with its frames; the confirmation follows them in the same batch.
        let batch: &mut Batch = self.outboxes[usize::from(from.0)].retained();
        for message in found {
            let message = batch.pack(&message.incoming());
            batch.frames.push_back(Frame::Found { token, message });
        }
        let cursor = (scan == Scan::More).then(|| Box::new(cursor));
        batch.frames.push_back(Frame::Answered { token, cursor });
    }

    /// The replay that waits for an answer, if it still does.
    fn querying(&self, token: u32, query: Query) -> Option<&Replay> {
        let session = self.sessions.get(query.session as usize)?;
        let replay = session.replays.as_ref()?.front()?;
        (session.generation == query.generation && replay.look == Look::Asked(token)).then_some(replay)
    }

    /// A message that was asked for.
    pub(crate) fn found(&mut self, now: Instant, token: u32, incoming: &Incoming<'_>) {
        let Some(&query) = self.queries.get(&token) else { return };
        let Some(replay) = self.querying(token, query) else { return };
        if replay.live.iter().any(|topic| **topic == *incoming.topic_name) {
            return;
        }
        let grant = replay.grant;
        self.deliver_retained(now, query.session, grant, &Message::new(incoming));
    }

    /// An answer is complete.
    pub(crate) fn answered(&mut self, now: Instant, token: u32, cursor: Option<Cursor>) {
        let Some(query) = self.queries.remove(&token) else { return };
        if self.querying(token, query).is_some() {
            self.replay_goes_on(query.session, cursor);
        } else {
            // The subscription is gone, but others may have waited behind it.
            self.replay_later(query.session, query.generation);
        }
        self.replay_some(now);
    }
}
