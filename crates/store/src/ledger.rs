//! From the records of all workers to what has to stand in the log: their net effect, batch by batch.
//!
//! Each worker's records are applied in their order. Those of different workers meet in two places only:
//!
//! - A message from one worker may be owed to Sessions of others. Their workers name them ahead of their own order
//!   ([`Submission::receivers`](crate::submission::Submission)), and the message waits until all have: so it goes down with
//!   all its receivers, and with the Packet Identifier that its publisher may repeat, or not at all.
//! - A record about a message waits for the message.
//!
//! No two records wait for each other: each waits for what its worker had learned of before it, so a cycle would have to
//! go back in time.
//!
//! What begins and ends within one batch is not written: a message that all its receivers have acknowledged meanwhile, an
//! exchange that is over.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::codec::{Reader, put_varint};
use crate::format::{self, Kind};
use crate::record::{Kept, MessageId, Owed, Receiver, SessionNumber, Stage};
use crate::submission::{self, Submission, Taken, TakenPublish};

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Where the net effect goes.
pub(crate) trait Writes {
    /// Sets a value, given in pieces.
    fn put(&mut self, kind: Kind, key: &[u8], value: &[&[u8]]);
    /// Ends a value. One that does not exist is no concern.
    fn delete(&mut self, kind: Kind, key: &[u8]);
    /// What was the Retained Message of a topic when the last batch was written. None if there was none.
    fn retained(&self, topic_name: &str) -> io::Result<Option<MessageId>>;
}

/// Record bytes that one batch takes before it is written: more would only let those wait who came first.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Topics of which the last Retained Message is remembered, beside those of one batch.
const RECENT_RETAINED: usize = 4_096;

#[derive(Default)]
pub(crate) struct Ledger {
    streams: Vec<Stream>,
    /// Receivers that came before their message was applied.
    early: HashMap<MessageId, Early>,
    /// Messages in the log, with how many Sessions each is still owed to. There are millions, so whatever few of them need
    /// besides is elsewhere.
    messages: HashMap<MessageId, u32>,
    /// Keys beside a message in the log that go with it: Sessions it is settled for while it is owed to others, Sessions that
    /// came later.
    beside: HashMap<MessageId, Vec<(Kind, Owed)>>,
    /// Messages applied since the last batch was written.
    fresh: HashMap<MessageId, Fresh>,
    /// Exchanges begun or ended since then: None is ended.
    exchanges: HashMap<(Direction, SessionNumber, u16), Option<Exchange>>,
    /// For topics written lately, the last message: two workers' records may come in another order than the messages have
    /// their numbers in. Two generations, of which the older is forgotten in time; then the log is asked.
    retained: [HashMap<Box<str>, LastRetained>; 2],
    /// The last of all messages that were retained, and with it all that were forgotten.
    retained_last: Option<MessageId>,
    /// The log may have publishers of Retained Messages: only then one has to be deleted with its message.
    has_publishers: bool,
    scratch: Vec<u8>,
}

/// The last message that was retained in a topic, or ended what was.
#[derive(Clone, Copy)]
struct LastRetained {
    id: MessageId,
    /// The log has nothing that tells of it.
    is_end: bool,
}

#[derive(Default)]
struct Stream {
    /// Buffers, and how far each has been applied.
    buffers: VecDeque<Buffer>,
    /// Records applied.
    applied: u64,
    /// Of the messages of this worker, those up to here have been applied if they ever will be.
    passed: u64,
}

struct Buffer {
    bytes: Arc<Vec<u8>>,
    at: usize,
    given_out: u64,
}

#[derive(Default)]
struct Early {
    workers: u32,
    receivers: Vec<Receiver>,
}

/// A message that is not in the log yet.
struct Fresh {
    buffer: Arc<Vec<u8>>,
    message: Range<usize>,
    /// Sorted by Session and copy; None is settled.
    receivers: Vec<(Owed, Option<Receiver>)>,
    owed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    In,
    Out,
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    order: u64,
    stage: Stage,
    message: Option<Kept>,
}

/// What became of the record at the front of a stream.
enum Step {
    Applied,
    /// It waits for a message, or the receivers of one.
    Waits,
}

impl Ledger {
    pub(crate) fn new(workers: usize) -> Self {
        let streams = std::iter::repeat_with(Stream::default).take(workers).collect();
        Self { streams, ..Self::default() }
    }

    /// The log has publishers of Retained Messages.
    pub(crate) fn knows_publishers(&mut self) {
        self.has_publishers = true;
    }

    /// So many messages will be found in the log.
    pub(crate) fn expect(&mut self, messages: usize) {
        self.messages.reserve(messages);
    }

    /// A message found in the log.
    pub(crate) fn recovered(&mut self, id: MessageId, owed: u32, beside: Vec<(Kind, Owed)>) {
        self.messages.insert(id, owed);
        if !beside.is_empty() {
            self.beside.insert(id, beside);
        }
    }

    /// Messages up to this count were given out before.
    pub(crate) fn starts_after(&mut self, count: u64) {
        self.streams.iter_mut().for_each(|stream| stream.passed = count);
    }

    pub(crate) fn push(&mut self, worker: usize, submission: &mut Submission) {
        for (id, receivers) in submission.receivers.drain(..) {
            let early = self.early.entry(id).or_default();
            early.workers += 1;
            early.receivers.extend(receivers);
        }
        let given_out = submission.given_out.map_or(0, MessageId::count);
        let stream = &mut self.streams[worker];
        if submission.records.is_empty() && stream.buffers.is_empty() {
            stream.passed = stream.passed.max(given_out);
            return;
        }
        let bytes = Arc::new(std::mem::take(&mut submission.records));
        stream.buffers.push_back(Buffer { bytes, at: 0, given_out });
    }

    /// Records of a worker that have been applied: safe once the batch they went into is.
    pub(crate) fn applied(&self, worker: usize) -> u64 {
        self.streams[worker].applied
    }

    /// The messages of a worker up to this count have been applied, if they ever will be.
    pub(crate) fn passed(&self, worker: usize) -> u64 {
        self.streams[worker].passed
    }

    /// Bytes of records that wait to be applied.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let waiting = |buffer: &Buffer| buffer.bytes.len() - buffer.at;
        self.streams.iter().flat_map(|stream| &stream.buffers).map(waiting).sum()
    }

    /// Applies what can be applied, and writes its net effect. True if there is more.
    pub(crate) fn apply(&mut self, writes: &mut impl Writes) -> bool {
        let mut bytes = 0;
        let mut more = false;
        // Each gets its part, so that none waits for ever behind one that always has more.
        let part = BATCH_BYTES_MAX / self.streams.len().max(1);
        loop {
            let before = bytes;
            for worker in 0..self.streams.len() {
                bytes += self.apply_stream(worker, part, writes);
            }
            if bytes >= BATCH_BYTES_MAX {
                more = true;
                break;
            }
            if bytes == before {
                break;
            }
        }
        self.write(writes);
        more
    }

    /// Returns the bytes of the records applied.
    fn apply_stream(&mut self, worker: usize, bytes_max: usize, writes: &mut impl Writes) -> usize {
        let mut bytes = 0;
        while let Some(buffer) = self.streams[worker].buffers.front() {
            let (shared, mut at) = (Arc::clone(&buffer.bytes), buffer.at);
            let mut records = 0;
            let mut waits = false;
            while at < shared.len() && bytes < bytes_max {
                let mut reader = Reader(&shared[at..]);
                let record = submission::take(&mut reader);
                let lost = mutant!(RecordLost) && self.streams[worker].applied.wrapping_add(records) % 100 == 99;
                let step = if lost { Step::Applied } else { self.apply_record(worker, &shared, record, writes) };
                match step {
                    Step::Applied => {
                        let next = shared.len() - reader.0.len();
                        bytes += next - at;
                        at = next;
                        records += 1;
                    }
                    Step::Waits => {
                        waits = true;
                        break;
                    }
                }
            }
            let stream = &mut self.streams[worker];
            stream.applied += records;
            if at < shared.len() {
                if let Some(buffer) = stream.buffers.front_mut() {
                    buffer.at = at;
                }
                debug_assert!(waits || bytes >= bytes_max);
                return bytes;
            }
            if let Some(buffer) = stream.buffers.pop_front() {
                stream.passed = stream.passed.max(buffer.given_out);
            }
        }
        bytes
    }

    fn apply_record(
        &mut self,
        worker: usize,
        buffer: &Arc<Vec<u8>>,
        record: Taken<'_>,
        writes: &mut impl Writes,
    ) -> Step {
        match record {
            Taken::Session { session, value } => {
                writes.put(Kind::Session, &format::session_key(session), &[value]);
            }
            Taken::SessionEnded { session } => {
                writes.delete(Kind::Will, &format::session_key(session));
                writes.delete(Kind::Owner, &format::session_key(session));
                writes.delete(Kind::Session, &format::session_key(session));
            }
            Taken::Will { session, value } => writes.put(Kind::Will, &format::session_key(session), &[value]),
            Taken::WillEnded { session } => writes.delete(Kind::Will, &format::session_key(session)),
            Taken::Owner { session, value: [] } => writes.delete(Kind::Owner, &format::session_key(session)),
            Taken::Owner { session, value } => writes.put(Kind::Owner, &format::session_key(session), &[value]),
            Taken::Subscription { session, filter, options, identifier } => {
                self.scratch.clear();
                let options = if mutant!(OptionsForgotten) { 1 } else { options };
                format::put_subscription(&mut self.scratch, options, identifier);
                let key = [&format::session_key(session), filter.as_bytes()].concat();
                writes.put(Kind::Subscription, &key, &[&self.scratch]);
            }
            Taken::SubscriptionEnded { session, filter } => {
                writes.delete(Kind::Subscription, &[&format::session_key(session), filter.as_bytes()].concat());
            }
            Taken::Publish(publish) => return self.publish(buffer, &publish, writes),
            Taken::Sent { session, message, copy, packet_id, order } => {
                if !self.has_passed(worker, message) {
                    return Step::Waits;
                }
                let exchange = Exchange { order, stage: Stage::Acknowledgement, message: Some((message, copy)) };
                self.exchanges.insert((Direction::Out, session, packet_id), Some(exchange));
            }
            Taken::Released { session, message, copy, packet_id, order } => {
                if message.is_some_and(|message| !self.has_passed(worker, message)) {
                    return Step::Waits;
                }
                let exchange = Exchange { order, stage: Stage::PubComp, message: None };
                self.exchanges.insert((Direction::Out, session, packet_id), Some(exchange));
                if let Some(message) = message {
                    self.settle(message, (session, copy), writes);
                }
            }
            Taken::Settled { session, message, copy, packet_id } => {
                if message.is_some_and(|message| !self.has_passed(worker, message)) {
                    return Step::Waits;
                }
                if let Some(packet_id) = packet_id {
                    self.exchanges.insert((Direction::Out, session, packet_id), None);
                }
                if let Some(message) = message {
                    self.settle(message, (session, copy), writes);
                }
            }
            Taken::ExactlyOnceReleased { session, packet_id } => {
                self.exchanges.insert((Direction::In, session, packet_id), None);
            }
            Taken::RetainedEnded { topic_name, message } => {
                if !self.has_passed(worker, message) {
                    return Step::Waits;
                }
                if self.is_latest_retained(topic_name, message, writes) {
                    self.note_retained(topic_name, LastRetained { id: message, is_end: true });
                    writes.delete(Kind::Retained, topic_name.as_bytes());
                    if self.has_publishers {
                        writes.delete(Kind::Publisher, topic_name.as_bytes());
                    }
                }
            }
            Taken::Moved { message, from, copy, to } => {
                if !self.has_passed(worker, message) {
                    return Step::Waits;
                }
                self.add_receivers(message, to, writes);
                self.settle(message, (from, copy), writes);
            }
        }
        Step::Applied
    }

    /// Whether the message that a worker speaks of has been applied, or never will be. Its own messages come before what it
    /// says of them.
    fn has_passed(&self, worker: usize, id: MessageId) -> bool {
        id.worker() == worker
            || self.fresh.contains_key(&id)
            || self.messages.contains_key(&id)
            || self.streams.get(id.worker()).is_none_or(|stream| id.count() <= stream.passed)
    }

    fn publish(&mut self, buffer: &Arc<Vec<u8>>, publish: &TakenPublish<'_>, writes: &mut impl Writes) -> Step {
        let id = publish.id;
        let mut receivers = Vec::new();
        if publish.others > 0 {
            let Entry::Occupied(early) = self.early.entry(id) else { return Step::Waits };
            if early.get().workers < publish.others {
                return Step::Waits;
            }
            receivers = early.remove().receivers;
        }
        receivers.extend(publish.receivers());
        if let Some(stream) = self.streams.get_mut(id.worker()) {
            stream.passed = stream.passed.max(id.count());
        }
        if let Some((session, packet_id)) = publish.opens {
            let exchange = Exchange { order: 0, stage: Stage::Acknowledgement, message: None };
            self.exchanges.insert((Direction::In, session, packet_id), Some(exchange));
        }
        if let Some(session) = publish.will_of {
            writes.delete(Kind::Will, &format::session_key(session));
        }
        if publish.retained {
            self.retain(id, publish.message, publish.publisher, writes);
        }
        if !receivers.is_empty() {
            receivers.sort_by_key(|receiver| (receiver.session, receiver.copy()));
            let owed = receivers.len() as u32;
            let receivers =
                receivers.into_iter().map(|receiver| ((receiver.session, receiver.copy()), Some(receiver))).collect();
            let start = publish.message.as_ptr() as usize - buffer.as_ptr() as usize;
            let message = start..start + publish.message.len();
            self.fresh.insert(id, Fresh { buffer: Arc::clone(buffer), message, receivers, owed });
        }
        Step::Applied
    }

    fn retain(&mut self, id: MessageId, value: &[u8], publisher: Option<&[u8]>, writes: &mut impl Writes) {
        let message = format::read_message(Reader(value)).expect("the message was written by this process");
        let topic_name = message.topic_name;
        if !self.is_latest_retained(topic_name, id, writes) {
            return;
        }
        if mutant!(RetainedNotReplaced) && self.retained[0].contains_key(topic_name) {
            return;
        }
        if message.payload.is_empty() {
            if mutant!(RetainedDeleteForgotten) {
                return;
            }
            writes.delete(Kind::Retained, topic_name.as_bytes());
        } else {
            self.scratch.clear();
            put_varint(&mut self.scratch, id.number());
            let value = if mutant!(RetainedTorn) { &value[..value.len() - 1] } else { value };
            writes.put(Kind::Retained, topic_name.as_bytes(), &[&self.scratch, value]);
        }
        match publisher.filter(|_| !message.payload.is_empty()) {
            Some(publisher) => {
                self.has_publishers = true;
                writes.put(Kind::Publisher, topic_name.as_bytes(), &[&self.scratch, publisher]);
            }
            None if self.has_publishers => writes.delete(Kind::Publisher, topic_name.as_bytes()),
            None => {}
        }
        self.note_retained(topic_name, LastRetained { id, is_end: message.payload.is_empty() });
    }

    /// Whether no later message than this one has been the Retained Message of its topic.
    fn is_latest_retained(&self, topic_name: &str, id: MessageId, writes: &impl Writes) -> bool {
        // One worker's messages come in their order, and mostly those of several do.
        if self.retained_last.is_none_or(|last| last <= id) {
            return true;
        }
        match self.retained.iter().find_map(|recent| recent.get(topic_name)) {
            Some(last) => last.id <= id,
            // One that cannot be read stays.
            None => writes.retained(topic_name).is_ok_and(|last| last.is_none_or(|last| last <= id)),
        }
    }

    fn note_retained(&mut self, topic_name: &str, last: LastRetained) {
        if self.streams.len() > 1 || mutant!(RetainedNotReplaced) {
            self.retained_last = self.retained_last.max(Some(last.id));
            self.retained[0].insert(topic_name.into(), last);
        }
    }

    /// Forgets topics in time. Not in the middle of a batch: of what is in that, the log knows nothing.
    fn forget_retained(&mut self) {
        let Self { streams, retained: [young, old], .. } = self;
        if young.len() < RECENT_RETAINED {
            return;
        }
        let mut forgotten = std::mem::replace(old, std::mem::take(young));
        // Of an end the log never knows anything: it is remembered while an older message may wait to be written.
        let overtakes = |last: &LastRetained| {
            last.is_end && streams.iter().any(|stream| !stream.buffers.is_empty() && stream.passed < last.id.count())
        };
        forgotten.retain(|topic_name, last| overtakes(last) && !old.contains_key(topic_name));
        *young = forgotten;
    }

    fn add_receivers(&mut self, id: MessageId, receivers: Vec<Receiver>, writes: &mut impl Writes) {
        for receiver in receivers {
            let session = (receiver.session, receiver.copy());
            if let Some(fresh) = self.fresh.get_mut(&id) {
                let at = fresh.receivers.partition_point(|(other, _)| *other <= session);
                fresh.receivers.insert(at, (session, Some(receiver)));
                fresh.owed += 1;
            } else if let Some(owed) = self.messages.get_mut(&id) {
                self.scratch.clear();
                format::put_receiver(&mut self.scratch, &receiver);
                writes.put(Kind::Receiver, &format::receiver_key(id, session), &[&self.scratch]);
                // It may have had the message before, and have given it up.
                let known = self.beside.entry(id).or_default();
                if let Some(at) = known.iter().position(|beside| *beside == (Kind::Settled, session)) {
                    known.swap_remove(at);
                    writes.delete(Kind::Settled, &format::receiver_key(id, session));
                }
                known.push((Kind::Receiver, session));
                *owed += 1;
            }
        }
    }

    /// A message is owed to a Session no more; one that is owed to nobody is gone.
    fn settle(&mut self, id: MessageId, session: Owed, writes: &mut impl Writes) {
        if let Some(fresh) = self.fresh.get_mut(&id) {
            let first = fresh.receivers.partition_point(|(other, _)| *other < session);
            let same = fresh.receivers[first..].iter_mut().take_while(|(other, _)| *other == session);
            if let Some((_, receiver)) = same.into_iter().find(|(_, receiver)| receiver.is_some()) {
                *receiver = None;
                fresh.owed = if mutant!(SettledForAll) { 0 } else { fresh.owed - 1 };
                if fresh.owed == 0 {
                    self.fresh.remove(&id);
                }
            }
            return;
        }
        let Entry::Occupied(mut known) = self.messages.entry(id) else { return };
        let owed = known.get_mut();
        *owed = if mutant!(SettledForAll) { 0 } else { owed.saturating_sub(1) };
        if *owed == 0 {
            writes.delete(Kind::Message, &format::message_key(id));
            known.remove();
            for (kind, session) in self.beside.remove(&id).into_iter().flatten() {
                writes.delete(kind, &format::receiver_key(id, session));
            }
        } else {
            writes.put(Kind::Settled, &format::receiver_key(id, session), &[]);
            self.beside.entry(id).or_default().push((Kind::Settled, session));
        }
    }

    /// Writes what has begun since the last batch and not ended.
    fn write(&mut self, writes: &mut impl Writes) {
        self.forget_retained();
        for (id, fresh) in self.fresh.drain() {
            let owed = fresh.receivers.into_iter().filter_map(|(_, receiver)| receiver);
            self.scratch.clear();
            format::put_receivers(&mut self.scratch, fresh.owed as usize, owed);
            let message = &fresh.buffer[fresh.message];
            writes.put(Kind::Message, &format::message_key(id), &[&self.scratch, message]);
            self.messages.insert(id, fresh.owed);
        }
        for ((direction, session, packet_id), exchange) in self.exchanges.drain() {
            let kind = match direction {
                Direction::In => Kind::Inbound,
                Direction::Out => Kind::Outbound,
            };
            let key = format::exchange_key(session, packet_id);
            match exchange {
                Some(Exchange { order, stage, message }) => {
                    self.scratch.clear();
                    if direction == Direction::Out {
                        format::put_outbound(&mut self.scratch, order, stage, message);
                    }
                    writes.put(kind, &key, &[&self.scratch]);
                }
                None => writes.delete(kind, &key),
            }
        }
    }
}

#[cfg(test)]
mod tests;
