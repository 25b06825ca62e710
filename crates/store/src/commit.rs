//! Group commit: what all workers have appended goes down as one batch, by one thread, as soon as the last one is down.
//!
//! A record that comes alone is synced at once; those that come while a sync is under way share the next one. So an idle
//! broker answers within one sync, and a busy one has hundreds of answers for each.
//!
//! There is no timer, but on a slow disk there is a breath. Clients with a window speak again when they are answered: those
//! answered after one sync would miss the next, and the two halves would take turns for ever, each waiting for two syncs. So
//! after a sync of [`SLOW_SYNC`] or more the next one begins when nothing more comes, an eighth of the last one's time later
//! at most.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::format::{self, Kind};
use crate::ledger::{Ledger, Writes};
use crate::log::{Batch, CommitError, Log, LogOptions, OpenError, OpenReport, Reader, SetAside};
use crate::record::{MessageId, NUMBER_END, Position, Receiver, Record, SessionNumber};
use crate::recover::{Collector, KeepRetained, Recovered, StoredMessage};
use crate::submission::{self, Submission};
use crate::{Clock, LoadError, MemoryStore, Store};

/// What an acknowledgement vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Stable storage: a power cut loses nothing that was acknowledged.
    #[default]
    Fsync,
    /// The operating system: the end of the process loses nothing that was acknowledged, a power cut may lose the last
    /// half minute.
    Os,
    /// The process: its end loses everything.
    Memory,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
            Self::Memory => "memory",
        })
    }
}

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Health {
    /// It does what it should.
    #[default]
    Working = 0,
    /// The disk is full: nothing becomes durable until there is room. Then everything that waits does.
    Full = 1,
    /// A write or a sync has failed. What of it reached the disk is unknown, so nothing becomes durable any more until the
    /// process is started anew.
    Failed = 2,
}

/// Something that an operator should know of.
#[derive(Debug)]
pub enum Notice {
    /// See [`Health::Full`].
    Full,
    /// The disk had been full, and is not any more.
    Working,
    /// See [`Health::Failed`].
    Failed(io::Error),
    /// Old segments cannot be cleaned.
    Cleaning(io::Error),
    /// An old segment is damaged; what was in it is lost.
    Damaged(SetAside),
}

/// What the thread does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Nothing is left to be done until something new comes.
    Idle,
    /// There is more.
    None,
    /// The disk is full, or has failed: another try has time.
    Trouble,
}

/// What the commit thread has done since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Frames written: each batch is one, and each step of cleaning.
    pub batches: u64,
    /// Syncs of these.
    pub syncs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records of the workers that have become durable.
    pub records: u64,
    /// Segments there are now.
    pub segments: u64,
    /// Bytes of the files there are now.
    pub file_bytes: u64,
    /// How the store is now.
    pub health: Health,
}

/// The same, while it is counted.
#[derive(Default)]
struct Counts {
    batches: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
    segments: AtomicU64,
    file_bytes: AtomicU64,
}

/// Records that may wait for the commit thread; with more, workers read nothing from their clients.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Bytes of old segments looked at in one step of cleaning: so few that the sync of their copies takes hardly longer than
/// any, since the next batch waits for it.
const CLEAN_BYTES: usize = 128 << 10;
/// It is as many times the last batch at least: old segments go faster than new ones come.
const CLEAN_PER_BYTE: usize = 2;
/// After a sync that has taken so long, those that were answered are waited for.
const SLOW_SYNC: Duration = Duration::from_millis(8);
/// unless so much was written that the bytes took the time: then there is nothing to be gained by more of them at once.
const LARGE_BATCH: usize = 512 << 10;
/// That takes at most this part of the sync's time,
const GATHERING_PART: u32 = 8;
/// and ends when in this part of it nobody has come.
const GATHERING_STEP_PART: u32 = 64;
/// While nothing else is written, the clock is, this often, so that after a crash it is known when that was.
pub const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether a full disk has room again.
const TROUBLE_PAUSE: Duration = Duration::from_millis(500);

/// The entry of a message, and where its value begins.
type Load = dyn Fn(MessageId) -> io::Result<Option<(Vec<u8>, usize)>> + Send + Sync;

/// What workers and the commit thread share.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// For each worker, how many of its records are durable.
    durable: Box<[AtomicU64]>,
    /// For each worker, how many of its records are written; as many or more.
    written: Box<[AtomicU64]>,
    /// For each worker, up to which count its messages are durable.
    passed: Box<[AtomicU64]>,
    waiting_bytes: AtomicUsize,
    health: AtomicU8,
    session_count: AtomicU64,
    message_count: AtomicU64,
    counts: Counts,
    load: Box<Load>,
    /// The commit thread sleeps.
    sleeping: AtomicBool,
}

#[derive(Default)]
struct Queue {
    submissions: Vec<(usize, Submission)>,
    /// Buffers to be used again.
    spare: Vec<Submission>,
    stop: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Working,
            1 => Health::Full,
            _ => Health::Failed,
        }
    }
}

/// One worker's end of a durable store.
pub struct DurableStore {
    shared: Arc<Shared>,
    worker: u8,
    submission: Submission,
    appended: u64,
}

/// The other end: it commits, on a thread or in a simulation.
pub struct Committer<D: Disk> {
    shared: Arc<Shared>,
    ledger: Ledger,
    log: Log<D>,
    batch: Batch,
    /// The batch has been filled and could not be committed yet.
    unfinished: bool,
    sync: bool,
    /// Somebody waits for what is written and not synced yet.
    tells_written: bool,
    taken: Vec<(usize, Submission)>,
    scratch: Vec<u8>,
    /// Something was written since the clock was.
    clock_at: u64,
    /// How long the last step's commit has taken; zero if there was none.
    took: Duration,
    /// Bytes of the last batch that were written.
    batch_bytes: usize,
}

/// A durable store that has been opened.
pub struct Opened<D: Disk, R = StoredMessage> {
    /// What it held.
    pub recovered: Recovered<R>,
    /// How its files were found.
    pub report: OpenReport,
    /// One for each worker.
    pub stores: Vec<DurableStore>,
    /// To be run.
    pub committer: Committer<D>,
}

/// Opens a durable store for so many workers. Retained Messages become what the caller makes of them: a [`StoredMessage`],
/// or something of its own.
///
/// # Errors
/// If the disk cannot be read or written. Damage is no error: see [`OpenReport`].
pub fn open<D: Disk, R: KeepRetained>(
    disk: D,
    options: LogOptions,
    workers: u8,
    durability: Durability,
) -> Result<Opened<D, R>, OpenError> {
    let last_alive = disk.last_alive();
    let (log, report) = Log::open(disk, options)?;
    let mut ledger = Ledger::new(usize::from(workers));
    let mut collector = Collector::new();
    log.for_each(|kind, key, value| collector.entry(kind, key, value)).map_err(OpenError::from)?;
    let mut recovered = collector.finish(&mut ledger);
    recovered.last_alive = last_alive;
    let mut batch = Batch::new();
    for (kind, key) in recovered.garbage.drain(..) {
        batch.delete(kind as u8, &key);
    }
    let reader: Reader<D::File> = log.reader();
    let load = move |id: MessageId| reader.get_entry(Kind::Message as u8, &format::message_key(id));
    let zeros = || std::iter::repeat_with(AtomicU64::default).take(usize::from(workers)).collect();
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        wake: Condvar::new(),
        durable: zeros(),
        written: zeros(),
        passed: std::iter::repeat_with(|| AtomicU64::new(recovered.message_count)).take(usize::from(workers)).collect(),
        waiting_bytes: AtomicUsize::new(0),
        health: AtomicU8::new(Health::Working as u8),
        session_count: AtomicU64::new(recovered.session_count),
        message_count: AtomicU64::new(recovered.message_count),
        counts: Counts::default(),
        load: Box::new(load),
        sleeping: AtomicBool::new(false),
    });
    let store =
        |worker| DurableStore { shared: Arc::clone(&shared), worker, submission: Submission::default(), appended: 0 };
    let stores = (0..workers).map(store).collect();
    let committer = Committer {
        shared,
        ledger,
        log,
        unfinished: !batch.is_empty(),
        batch,
        sync: durability == Durability::Fsync,
        tells_written: false,
        taken: Vec::new(),
        scratch: Vec::new(),
        clock_at: 0,
        took: Duration::ZERO,
        batch_bytes: 0,
    };
    Ok(Opened { recovered, report, stores, committer })
}

impl DurableStore {
    /// How the store is.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// More waits for the commit thread than should.
    pub fn is_crowded(&self) -> bool {
        self.shared.waiting_bytes.load(Ordering::Relaxed) > WAITING_BYTES_MAX
    }

    /// To ask from elsewhere what the commit thread has done.
    pub fn activity(&self) -> impl Fn() -> Activity + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            let Counts { batches, syncs, bytes, records, segments, file_bytes } = &shared.counts;
            let [batches, syncs, bytes, records, segments, file_bytes] =
                [batches, syncs, bytes, records, segments, file_bytes].map(|count| count.load(Ordering::Relaxed));
            let health = shared.health();
            Activity { batches, syncs, bytes, records, segments, file_bytes, health }
        }
    }

    /// The commit thread is to finish what it has, and to end. What is appended later is lost.
    pub fn stop(&self) {
        self.shared.queue().stop = true;
        self.shared.wake.notify_one();
    }

    /// To call [`DurableStore::stop`] from elsewhere.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            shared.queue().stop = true;
            shared.wake.notify_one();
        }
    }
}

impl Store for DurableStore {
    fn keeps(&self) -> bool {
        true
    }

    fn accepts(&self) -> bool {
        self.shared.health.load(Ordering::Relaxed) == Health::Working as u8
    }

    fn has_failed(&self) -> bool {
        self.health() == Health::Failed
    }

    fn next_message(&mut self) -> Option<MessageId> {
        let count = self.shared.message_count.fetch_add(1, Ordering::Relaxed) + 1;
        debug_assert!(count < NUMBER_END);
        let id = MessageId::new(count, self.worker);
        self.submission.given_out = id;
        id
    }

    fn next_session(&mut self) -> Option<SessionNumber> {
        SessionNumber::from_number(self.shared.session_count.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn append(&mut self, record: &Record<'_>) -> Position {
        submission::put(&mut self.submission.records, record);
        self.appended += 1;
        Position(self.appended)
    }

    fn add_receivers(&mut self, message: MessageId, receivers: Vec<Receiver>) {
        self.submission.receivers.push((message, receivers));
    }

    fn appended(&self) -> Position {
        Position(self.appended)
    }

    fn durable(&self) -> Position {
        Position(self.shared.durable[usize::from(self.worker)].load(Ordering::Acquire))
    }

    fn written(&self) -> Position {
        Position(self.shared.written[usize::from(self.worker)].load(Ordering::Acquire))
    }

    fn holds(&self, message: MessageId) -> bool {
        let passed = self.shared.passed.get(message.worker());
        passed.is_none_or(|passed| message.count() <= passed.load(Ordering::Acquire))
    }

    fn load(&self, message: MessageId) -> Result<StoredMessage, LoadError> {
        let (entry, value) = match (self.shared.load)(message) {
            Ok(entry) => entry.ok_or(LoadError::Damaged)?,
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                return Err(LoadError::Damaged);
            }
            Err(_) => return Err(LoadError::Unreadable),
        };
        StoredMessage::from_entry(message, entry, value).ok_or(LoadError::Damaged)
    }

    fn submit(&mut self) {
        if self.submission.is_empty() {
            return;
        }
        self.shared.waiting_bytes.fetch_add(self.submission.records.len(), Ordering::Relaxed);
        let mut queue = self.shared.queue();
        let spare = queue.spare.pop().unwrap_or_default();
        let given_out = self.submission.given_out;
        queue.submissions.push((usize::from(self.worker), std::mem::replace(&mut self.submission, spare)));
        self.submission.given_out = given_out;
        drop(queue);
        if self.shared.sleeping.swap(false, Ordering::AcqRel) {
            self.shared.wake.notify_one();
        }
    }
}

/// A batch that is being filled, and the log that it is for.
struct Filling<'a, D: Disk> {
    batch: &'a mut Batch,
    log: &'a Log<D>,
}

impl<D: Disk> Writes for Filling<'_, D> {
    fn put(&mut self, kind: Kind, key: &[u8], value: &[&[u8]]) {
        self.batch.put(kind as u8, key, value);
    }

    fn delete(&mut self, kind: Kind, key: &[u8]) {
        self.batch.delete(kind as u8, key);
    }

    fn retained(&self, topic_name: &str) -> io::Result<Option<MessageId>> {
        let value = self.log.reader().get(Kind::Retained as u8, topic_name.as_bytes())?;
        Ok(value.and_then(|value| MessageId::from_number(crate::codec::Reader(&value).varint()?)))
    }
}

impl<D: Disk> Committer<D> {
    /// From now on [`Committer::run`] tells workers of what is written before it is synced, too. It costs each of them a
    /// turn more for each batch, so not unless answers wait for that.
    pub fn tell_written(&mut self) {
        self.tells_written = self.sync;
    }

    /// Takes what has been submitted, and commits it. `clock` is the time now; `notice` gets what an operator should know.
    /// Afterwards [`Store::durable`] may have moved.
    pub fn step(&mut self, clock: Clock, notice: &mut dyn FnMut(Notice)) -> Pause {
        match self.commit(clock, notice, &|_| {}) {
            Pause::Idle => self.tidy(notice),
            pause => pause,
        }
    }

    /// The part of a step that others wait for. `written` is called for each worker of which more is written.
    fn commit(&mut self, clock: Clock, notice: &mut dyn FnMut(Notice), written: &dyn Fn(usize)) -> Pause {
        self.took = Duration::ZERO;
        if self.shared.health() == Health::Failed {
            // None of it will ever be safe, and nobody is to run out of memory, or to be held up, for its sake.
            self.shared.queue().submissions.clear();
            self.shared.waiting_bytes.store(0, Ordering::Relaxed);
            self.mark_alive(clock);
            return Pause::Trouble;
        }
        let mut taken = std::mem::take(&mut self.taken);
        std::mem::swap(&mut taken, &mut self.shared.queue().submissions);
        for (worker, submission) in &mut taken {
            self.ledger.push(*worker, submission);
        }
        if !taken.is_empty() {
            let mut queue = self.shared.queue();
            for (_, mut submission) in taken.drain(..) {
                submission.clear();
                if queue.spare.len() < self.shared.durable.len() {
                    queue.spare.push(submission);
                }
            }
        }
        self.taken = taken;
        let mut more = false;
        if !self.unfinished {
            more = self.ledger.apply(&mut Filling { batch: &mut self.batch, log: &self.log });
            if self.batch.is_empty() {
                // All of it has come and gone, or concerns nobody any more.
                self.publish();
                return if more { Pause::None } else { Pause::Idle };
            }
        }
        if !self.unfinished {
            self.put_clock(clock);
        }
        self.unfinished = true;
        let begun = Instant::now();
        self.batch_bytes = self.batch.bytes();
        let mut result = self.log.commit(&mut self.batch, false);
        if result.is_ok() && self.sync && !mutant!(SyncSkipped) {
            self.publish_written(written);
            result = self.log.sync();
        }
        match result {
            Ok(()) => {
                self.took = begun.elapsed();
                self.unfinished = false;
                self.set_health(Health::Working, notice);
                self.publish();
                if more { Pause::None } else { Pause::Idle }
            }
            Err(CommitError::NoSpace) => {
                self.set_health(Health::Full, notice);
                // Cleaning may make room.
                if let Err(CommitError::Unreadable(error)) = self.log.clean(CLEAN_BYTES, self.sync) {
                    notice(Notice::Cleaning(error));
                }
                self.tell_damage(notice);
                self.mark_alive(clock);
                Pause::Trouble
            }
            Err(error) => {
                let error = match error {
                    CommitError::Failed(error) => error,
                    error => io::Error::other(error),
                };
                self.mark_alive(clock);
                if self.shared.health.swap(Health::Failed as u8, Ordering::AcqRel) != Health::Failed as u8 {
                    notice(Notice::Failed(error));
                }
                Pause::Trouble
            }
        }
    }

    /// What can wait until nothing else does: cleaning.
    fn tidy(&mut self, notice: &mut dyn FnMut(Notice)) -> Pause {
        if self.log.needs_preparing() {
            // A full disk says so again when a batch needs the room.
            drop(self.log.prepare());
        }
        let step = CLEAN_BYTES.max(std::mem::take(&mut self.batch_bytes) * CLEAN_PER_BYTE);
        let cleaned = self.log.clean(step, self.sync);
        self.tell_damage(notice);
        match cleaned {
            Ok(true) => Pause::None,
            Ok(false) | Err(CommitError::NoSpace | CommitError::TooLarge) => Pause::Idle,
            Err(CommitError::Failed(error) | CommitError::Unreadable(error)) => {
                notice(Notice::Cleaning(error));
                Pause::Idle
            }
        }
    }

    fn tell_damage(&mut self, notice: &mut dyn FnMut(Notice)) {
        self.log.take_set_aside().into_iter().for_each(|damage| notice(Notice::Damaged(damage)));
    }

    /// While nothing can be written, the clock cannot be either; without this, all Sessions whose clients were there meanwhile
    /// would count as left alone since then.
    fn mark_alive(&self, clock: Clock) {
        // If it cannot be marked, the last time is as good as can be had.
        drop(self.log.disk().mark_alive(clock.wall));
    }

    fn put_clock(&mut self, clock: Clock) {
        self.scratch.clear();
        clock.put(&mut self.scratch);
        Batch::put(&mut self.batch, Kind::Clock as u8, &[], &[&self.scratch]);
        self.clock_at = clock.broker;
    }

    /// After a slow sync: returns when those that it has answered have spoken again, as far as they do so soon.
    fn gather(&self) {
        let (begun, step) = (Instant::now(), self.took / GATHERING_STEP_PART);
        let mut before = 0;
        while begun.elapsed() < self.took / GATHERING_PART {
            std::thread::sleep(step);
            let queue = self.shared.queue();
            let count = queue.submissions.len();
            if queue.stop || count > 0 && count == before {
                return;
            }
            before = count;
        }
    }

    /// Writes nothing but the time.
    fn write_clock(&mut self, clock: Clock) {
        if !self.unfinished && self.batch.is_empty() {
            self.put_clock(clock);
            // Lost in a power cut it is the time of the last batch, which is as good.
            self.unfinished = self.log.commit(&mut self.batch, false).is_err();
        }
    }

    fn set_health(&mut self, health: Health, notice: &mut dyn FnMut(Notice)) {
        let before = self.shared.health.swap(health as u8, Ordering::AcqRel);
        if before != health as u8 {
            notice(if health == Health::Full { Notice::Full } else { Notice::Working });
        }
    }

    /// What has been applied is written; it is not durable yet.
    fn publish_written(&self, tell: &dyn Fn(usize)) {
        for (worker, written) in self.shared.written.iter().enumerate() {
            let applied = self.ledger.applied(worker);
            if written.swap(applied, Ordering::AcqRel) != applied {
                tell(worker);
            }
        }
    }

    fn publish(&self) {
        self.publish_written(&|_| {});
        let totals = self.log.totals();
        let records = (0..self.shared.durable.len()).map(|worker| self.ledger.applied(worker)).sum();
        let Counts { batches, syncs, bytes, records: counted, segments, file_bytes } = &self.shared.counts;
        let (segments_now, file_bytes_now) = self.log.size();
        segments.store(segments_now, Ordering::Relaxed);
        file_bytes.store(file_bytes_now, Ordering::Relaxed);
        batches.store(totals.frames, Ordering::Relaxed);
        syncs.store(totals.syncs, Ordering::Relaxed);
        bytes.store(totals.written_bytes, Ordering::Relaxed);
        counted.store(records, Ordering::Relaxed);
        for (worker, (durable, passed)) in self.shared.durable.iter().zip(&self.shared.passed).enumerate() {
            passed.store(self.ledger.passed(worker), Ordering::Release);
            durable.store(self.ledger.applied(worker), Ordering::Release);
        }
        self.shared.waiting_bytes.store(self.ledger.waiting_bytes(), Ordering::Relaxed);
    }

    /// Commits until [`DurableStore::stop`] is called, and all that has been submitted by then is down.
    ///
    /// `completed` is called for each worker for which something has become durable; and before that, when it is written, if
    /// [`Committer::tell_written`] asks for it; and for all of them when nothing will be any more.
    pub fn run(mut self, mut clock: impl FnMut() -> Clock, completed: impl Fn(usize), mut notice: impl FnMut(Notice)) {
        let mut told: Vec<u64> = vec![0; self.shared.durable.len()];
        let tells_written = self.tells_written;
        let mut failure_told = false;
        loop {
            let now = clock();
            let written = |worker| {
                if tells_written {
                    completed(worker);
                }
            };
            let mut pause = self.commit(now, &mut notice, &written);
            for (worker, told) in told.iter_mut().enumerate() {
                let durable = self.shared.durable[worker].load(Ordering::Relaxed);
                if durable != *told {
                    *told = durable;
                    completed(worker);
                }
            }
            if pause == Pause::Trouble && !failure_told && self.shared.health() == Health::Failed {
                failure_told = true;
                (0..told.len()).for_each(&completed);
            }
            if self.sync && self.took >= SLOW_SYNC && self.batch_bytes < LARGE_BATCH {
                self.gather();
            }
            // Not before: to make a spare file takes longer than many a sync.
            if pause == Pause::Idle {
                pause = self.tidy(&mut notice);
            }
            let mut queue = self.shared.queue();
            match pause {
                Pause::None => {}
                Pause::Idle => {
                    if queue.submissions.is_empty() && queue.stop {
                        break;
                    }
                    if queue.submissions.is_empty() {
                        self.shared.sleeping.store(true, Ordering::Release);
                        let (queue, timeout) = match self.shared.wake.wait_timeout(queue, CLOCK_INTERVAL) {
                            Ok(result) => result,
                            Err(error) => error.into_inner(),
                        };
                        self.shared.sleeping.store(false, Ordering::Release);
                        let idle = queue.submissions.is_empty() && !queue.stop;
                        drop(queue);
                        if timeout.timed_out() && idle {
                            self.write_clock(clock());
                        }
                    }
                }
                Pause::Trouble => {
                    if queue.stop {
                        break;
                    }
                    queue = match self.shared.wake.wait_timeout(queue, TROUBLE_PAUSE) {
                        Ok((queue, _)) => queue,
                        Err(error) => error.into_inner().0,
                    };
                    drop(queue);
                }
            }
        }
        self.write_clock(clock());
        // At level `os` too: the end of a process is a good moment.
        drop(self.log.sync());
    }
}

/// The store of a server: one or the other.
pub enum AnyStore {
    /// Keeps nothing.
    Memory(MemoryStore),
    /// Keeps everything.
    Durable(DurableStore),
}

macro_rules! either {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Memory($store) => $call,
            Self::Durable($store) => $call,
        }
    };
}

impl Store for AnyStore {
    #[inline]
    fn keeps(&self) -> bool {
        either!(self, store => store.keeps())
    }

    #[inline]
    fn accepts(&self) -> bool {
        either!(self, store => store.accepts())
    }

    #[inline]
    fn has_failed(&self) -> bool {
        either!(self, store => store.has_failed())
    }

    #[inline]
    fn next_message(&mut self) -> Option<MessageId> {
        either!(self, store => store.next_message())
    }

    #[inline]
    fn next_session(&mut self) -> Option<SessionNumber> {
        either!(self, store => store.next_session())
    }

    #[inline]
    fn append(&mut self, record: &Record<'_>) -> Position {
        either!(self, store => store.append(record))
    }

    #[inline]
    fn add_receivers(&mut self, message: MessageId, receivers: Vec<Receiver>) {
        either!(self, store => store.add_receivers(message, receivers))
    }

    #[inline]
    fn appended(&self) -> Position {
        either!(self, store => store.appended())
    }

    #[inline]
    fn durable(&self) -> Position {
        either!(self, store => store.durable())
    }

    #[inline]
    fn written(&self) -> Position {
        either!(self, store => store.written())
    }

    #[inline]
    fn holds(&self, message: MessageId) -> bool {
        either!(self, store => store.holds(message))
    }

    #[inline]
    fn load(&self, message: MessageId) -> Result<StoredMessage, LoadError> {
        either!(self, store => store.load(message))
    }

    #[inline]
    fn submit(&mut self) {
        either!(self, store => store.submit())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::disk::{Operation, SimDisk};

    /// With a sync that fails nothing is ever durable, so whoever is told is told of what is written.
    #[test]
    fn who_waits_for_the_write_is_told_before_the_sync() {
        for tells in [true, false] {
            let disk = SimDisk::new();
            let Opened { mut stores, mut committer, .. } =
                open::<_, StoredMessage>(disk.clone(), LogOptions::default(), 1, Durability::Fsync).unwrap();
            if tells {
                committer.tell_written();
            }
            let store = &mut stores[0];
            let session = store.next_session().unwrap();
            // The first batch makes a segment, which has syncs of its own.
            let first = store.append(&Record::SessionEnded { session });
            store.submit();
            while committer.step(Clock::default(), &mut |_| {}) != Pause::Idle {}
            assert_eq!((store.written(), store.durable()), (first, first));
            let position = store.append(&Record::SessionEnded { session });
            store.submit();
            disk.fail_at(Operation::Sync, disk.counts().syncs + 1, io::ErrorKind::Other);
            let (told, heard) = mpsc::channel();
            let failed = told.clone();
            let stop = store.stopper();
            let thread = thread::spawn(move || {
                let completed = move |worker| told.send(Some(worker)).unwrap();
                committer.run(Clock::default, completed, move |_| failed.send(None).unwrap());
            });
            if tells {
                assert_eq!(heard.recv(), Ok(Some(0)));
            }
            assert_eq!(heard.recv(), Ok(None), "the sync has failed");
            assert_eq!(heard.recv(), Ok(Some(0)), "whoever waits is told that it will not be");
            assert_eq!(store.written(), position);
            assert_eq!(store.durable(), first);
            stop();
            thread.join().unwrap();
        }
    }

    /// Whoever asks from elsewhere learns that the disk is full, that there is room again, and that it has failed.
    #[test]
    fn trouble_is_seen_from_elsewhere() {
        let disk = SimDisk::new();
        let Opened { mut stores, mut committer, .. } =
            open::<_, StoredMessage>(disk.clone(), LogOptions::default(), 1, Durability::Fsync).unwrap();
        let store = &mut stores[0];
        let activity = store.activity();
        let session = store.next_session().unwrap();
        let mut step = |store: &mut DurableStore| {
            store.append(&Record::SessionEnded { session });
            store.submit();
            while committer.step(Clock::default(), &mut |_| {}) == Pause::None {}
        };
        assert_eq!(activity().health, Health::Working);
        disk.full(Some(0));
        step(store);
        assert_eq!(activity().health, Health::Full);
        disk.full(None);
        step(store);
        let Activity { health, segments, file_bytes, .. } = activity();
        assert_eq!(health, Health::Working);
        assert!(segments >= 1 && file_bytes > 0, "{segments} segments, {file_bytes} bytes");
        disk.fail_at(Operation::Sync, disk.counts().syncs + 1, io::ErrorKind::Other);
        step(store);
        assert_eq!(activity().health, Health::Failed);
    }
}
