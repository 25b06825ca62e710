//! A log of atomic batches with an index in memory: keys and values that outlive the process.
//!
//! What is put and deleted together is a [`Batch`], and goes to the end of the log as one *frame*: one write and, if it
//! has to survive a power cut, one sync. The index in memory knows for each key where its latest value is; values stay on
//! the disk. Files are *segments*, filled with zeros when they are made, so that a write needs no more space and a sync no
//! more than the data. What is no longer live goes with the oldest segment, after [`clean`](Log::clean) has appended again
//! what is still live in it. Since the oldest always goes first, a delete need not be kept longer than the segment it is
//! in: whatever it deleted went before.
//!
//! ```
//! use pantala_store::disk::SimDisk;
//! use pantala_store::log::{Batch, Log, LogOptions};
//!
//! let disk = SimDisk::new();
//! let options = LogOptions { segment_bytes: 65_536, ..LogOptions::default() };
//! let (mut log, _) = Log::open(disk.clone(), options).unwrap();
//! let mut batch = Batch::new();
//! batch.put(1, b"colour", &[b"bl", b"ue"]);
//! log.commit(&mut batch, true).unwrap();
//!
//! let after_power_cut = disk.crash(7);
//! let (log, report) = Log::open(after_power_cut, options).unwrap();
//! assert_eq!(report.live_entries, 1);
//! assert_eq!(log.reader().get(1, b"colour").unwrap().unwrap(), b"blue");
//! ```
//!
//! Keys of a kind are the caller's business. Cleaning counts as writing: an order that has to last belongs in the keys.

mod backup;
mod batch;
mod clean;
mod format;
mod index;
mod open;
mod reader;

use std::collections::HashMap;
use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

pub use backup::BackupError;
pub use batch::Batch;
pub use open::{Damage, DamageKind, OpenError, OpenReport};
pub use reader::Reader;

use crate::disk::{Disk, DiskFile};
use crate::order::sort_by_number;
use format::{ALL_BEFORE_SYNCED, BODY_BYTES_MAX, FRAME_HEADER, SEGMENT_HEADER, SegmentHeader};
use index::{Change, Hashing, Index, Segment};

/// The size a file is rounded up to that is made for one large frame.
const PAGE: usize = 4096;
/// Segments prepared in advance: one for the next puts, and one that only deletes and cleaning may begin. A full disk
/// would else keep away what makes room on it.
const SPARES: usize = 2;
/// With more segments than about this many, new ones are made longer.
const SEGMENTS_WANTED: u64 = 128;
/// But no longer than this: filling it with zeros takes some 60 ms, for which a commit waits.
const GROWN_BYTES_MAX: u32 = 64 << 20;
/// How far sequences jump when frames may lie about that are not to be read: further than a segment has frames.
const SEQUENCE_JUMP: u64 = 1 << 32;
/// The name of a file that is being made.
const PREPARING: &str = "preparing";

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// The length of a segment's file: 4 KiB to 1 GiB, 4 MiB unless told. A larger batch gets a segment of its own.
    pub segment_bytes: u32,
    /// Cleaning copies nothing while files take no more room than so many segments: 4 unless told.
    pub segments_min: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { segment_bytes: 4 << 20, segments_min: 4 }
    }
}

/// Why a batch is not committed.
#[derive(Debug)]
pub enum CommitError {
    /// The disk is full, or no file can be opened. Nothing has changed; the same batch may be tried again later, before any
    /// other.
    NoSpace,
    /// The batch is beyond 1 GiB. Nothing has changed, and it will never go.
    TooLarge,
    /// A write or sync failed, now or earlier. The log takes no further batch: what the disk has of the last one will only
    /// be known when it is opened again.
    Failed(io::Error),
    /// Cleaning could not read an old segment, which stays as it is. Nothing has changed; nothing is cleaned any more until the
    /// log is opened again.
    Unreadable(io::Error),
}

impl std::fmt::Display for CommitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommitError::NoSpace => f.write_str("no space for another segment of the log"),
            CommitError::TooLarge => f.write_str("the batch is too large for the log"),
            CommitError::Failed(error) => write!(f, "the log is closed for writing: {error}"),
            CommitError::Unreadable(error) => write!(f, "an old part of the log cannot be read: {error}"),
        }
    }
}

impl std::error::Error for CommitError {}

/// Figures of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Keys that have a value.
    pub live_entries: u64,
    /// Their bytes in the log: keys, values and a few bytes each.
    pub live_bytes: u64,
    /// Bytes of all frames in the log, live or not.
    pub log_bytes: u64,
    /// Bytes of all files, with the spare ones.
    pub file_bytes: u64,
    /// Segments in the log.
    pub segments: u64,
    /// Spare files.
    pub spares: u64,
    /// Memory that the index takes.
    pub index_bytes: u64,
    /// Frames written since the log was opened.
    pub frames: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Syncs of frames since the log was opened.
    pub syncs: u64,
    /// Bytes of segments that cleaning has freed since the log was opened.
    pub cleaned_bytes: u64,
    /// Bytes that cleaning has copied for that.
    pub copied_bytes: u64,
    /// Entries that cleaning found damaged; their segments were set aside.
    pub damaged_entries: u64,
}

/// A segment that cleaning found damaged. Its file is kept under its name with `.damaged`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The name that its file had.
    pub segment: String,
    /// Entries that were live in it and cannot be read.
    pub entries: u64,
}

/// A log on a disk, open for reading and writing.
///
/// Only its owner changes it; others look into it through a [`Reader`].
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    options: LogOptions,
    /// Begins each frame of this log. Nobody else knows it, so no client can send bytes that look like a frame.
    mark: u64,
    shared: Arc<Shared<D::File>>,
    /// The segment that frames go to; `None` until the first commit, and after it had to be given up.
    head: Option<Head<D::File>>,
    next_sequence: u64,
    /// Whether frames have been written that no sync has followed.
    unsynced: bool,
    spares: Vec<Spare<D::File>>,
    preparing: Option<Preparing<D::File>>,
    failure: Option<Failure>,
    cleaning: clean::Cleaning,
    set_aside: Vec<SetAside>,
    changes: Vec<Change>,
    totals: Statistics,
}

/// What readers share.
#[derive(Debug)]
struct Shared<F> {
    hashing: Hashing,
    /// Never locked while the disk is waited for.
    index: RwLock<Index<F>>,
}

impl<F> Shared<F> {
    fn read(&self) -> RwLockReadGuard<'_, Index<F>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index<F>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Head<F> {
    file: Arc<F>,
    number: u32,
    /// Where the next frame goes.
    end: u32,
    bytes: u32,
}

#[derive(Debug)]
struct Spare<F> {
    name: String,
    file: F,
}

/// A spare file that another thread makes, under the name that it will have.
#[derive(Debug)]
struct Preparing<F> {
    name: String,
    thread: Option<JoinHandle<io::Result<F>>>,
}

impl<F> Preparing<F> {
    fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for it.
    fn take(mut self) -> io::Result<Spare<F>> {
        let Some(thread) = self.thread.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let file = thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(Spare { name: std::mem::take(&mut self.name), file })
    }
}

impl<F> Drop for Preparing<F> {
    /// Whoever opens the folder next is to have it for himself.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Why the log is closed, kept to be said again.
#[derive(Debug)]
struct Failure {
    kind: io::ErrorKind,
    text: String,
    code: Option<i32>,
}

impl Failure {
    fn error(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, self.text.clone()),
        }
    }
}

/// What room is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Something new.
    Puts,
    /// Deletes or copies, which make room: they may have the last spare file.
    MakesRoom,
}

impl<D: Disk> Log<D> {
    /// Commits a batch as one frame, and empties it. With `sync` it is on stable storage when this returns, and with it all
    /// batches before.
    pub fn commit(&mut self, batch: &mut Batch, sync: bool) -> Result<(), CommitError> {
        self.check()?;
        if batch.bytes() > BODY_BYTES_MAX {
            return Err(CommitError::TooLarge);
        }
        if !batch.is_empty() {
            let purpose = if batch.puts == 0 { Purpose::MakesRoom } else { Purpose::Puts };
            // Room first: with none, the batch stays as it was.
            self.make_room(batch.frame.len(), purpose)?;
            if batch.deletes > 0 {
                self.drop_needless(batch);
            }
        }
        if batch.is_empty() {
            batch.clear();
            return if sync { self.sync() } else { Ok(()) };
        }
        self.append(&mut batch.frame, batch.puts + batch.deletes, 0, sync)?;
        batch.clear();
        Ok(())
    }

    /// Waits until all frames are on stable storage.
    pub fn sync(&mut self) -> Result<(), CommitError> {
        self.check()?;
        if !self.unsynced {
            return Ok(());
        }
        // Frames that are not synced are all in the last segment: a new one is begun after a sync of the one before.
        let file = self.shared.read().segments().back().map(|segment| segment.file.clone());
        if let Some(file) = file {
            file.sync_data().map_err(|error| self.fail(error))?;
            self.totals.syncs += 1;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Makes spare files in advance, so that no commit has to wait for one. Call it when nothing is waiting, after opening
    /// and whenever [`needs_preparing`](Self::needs_preparing) says so: it writes whole segments of zeros, unless the disk
    /// lets [another thread](Disk::creator) do so.
    pub fn prepare(&mut self) -> Result<(), CommitError> {
        self.check()?;
        while self.needs_preparing() {
            if self.preparing.is_some() {
                if !self.take_prepared(false)? {
                    return Ok(());
                }
                continue;
            }
            let name = self.spare_name();
            if let Some(create) = self.disk.creator() {
                let (own_name, bytes) = (name.clone(), u64::from(self.options.segment_bytes));
                let thread = thread::Builder::new().name("prepare".to_owned());
                if let Ok(thread) = thread.spawn(move || create(&own_name, bytes)) {
                    self.preparing = Some(Preparing { name, thread: Some(thread) });
                    return Ok(());
                }
            }
            let file = self.create(u64::from(self.options.segment_bytes))?;
            match self.disk.rename(PREPARING, &name) {
                Ok(()) => self.spares.push(Spare { name, file }),
                Err(error) if is_full(&error) => return Err(CommitError::NoSpace),
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(())
    }

    /// Takes in the spare file that another thread makes; if it is to be waited for, or else when it is there. Returns
    /// whether it was taken in.
    fn take_prepared(&mut self, wait: bool) -> Result<bool, CommitError> {
        let Some(preparing) = self.preparing.take_if(|preparing| wait || preparing.is_finished()) else {
            return Ok(false);
        };
        match preparing.take() {
            Ok(spare) => {
                self.spares.push(spare);
                Ok(true)
            }
            Err(error) if is_full(&error) => Err(CommitError::NoSpace),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Whether spare files are missing.
    pub fn needs_preparing(&self) -> bool {
        self.spares.len() < SPARES
    }

    /// Whether the key has a value.
    pub fn contains(&self, kind: u8, key: &[u8]) -> bool {
        let (key, hash) = self.shared.hashing.key(kind, key);
        self.shared.read().get(&key, hash).is_some()
    }

    /// A handle to read values with, from other threads too.
    pub fn reader(&self) -> Reader<D::File> {
        Reader::new(self.shared.clone())
    }

    /// Calls with every live entry, in the order in which they were last written; cleaning counts as writing.
    pub fn for_each(&self, mut each: impl FnMut(u8, &[u8], &[u8])) -> io::Result<()> {
        // Nobody changes the index while the log is borrowed. It is gone through once, in the order in which it lies in memory:
        // to look each entry of the log up in it would be a wait for memory each time.
        let (segments, mut live): (Vec<_>, _) = {
            let index = self.shared.read();
            let segments = index.segments().iter();
            (segments.map(|segment| (segment.file.clone(), segment.runs.clone())).collect(), index.live_by_segment())
        };
        let mut bytes = Vec::new();
        let mut entries = 0;
        for ((file, runs), live) in segments.into_iter().zip(&mut live) {
            sort_by_number(live, |(offset, _)| u64::from(*offset));
            let mut live = live.iter().peekable();
            for (begin, end) in runs {
                if live.peek().is_none_or(|(offset, _)| *offset >= end) {
                    continue;
                }
                bytes.resize((end - begin) as usize, 0);
                if file.read_at(u64::from(begin), &mut bytes)? < bytes.len() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some((offset, length)) = live.next_if(|(offset, _)| *offset < end) {
                    let at = offset.checked_sub(begin).ok_or(io::ErrorKind::InvalidData)? as usize;
                    match format::entry_at(&bytes, at) {
                        Some(format::Entry { kind, key, value: Some(value), begin, end })
                            if end - begin == *length as usize =>
                        {
                            each(kind, key, value);
                            entries += 1;
                        }
                        _ => return Err(io::ErrorKind::InvalidData.into()),
                    }
                }
            }
        }
        if entries == self.shared.read().live_entries { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Figures.
    pub fn statistics(&self) -> Statistics {
        let index = self.shared.read();
        let spare_bytes = self.spares.len() as u64 * u64::from(self.options.segment_bytes);
        Statistics {
            live_entries: index.live_entries,
            live_bytes: index.live_bytes,
            log_bytes: index.log_bytes,
            file_bytes: index.file_bytes + spare_bytes,
            segments: index.segments().len() as u64,
            spares: self.spares.len() as u64,
            index_bytes: index.memory_bytes() as u64,
            ..self.totals
        }
    }

    /// How many segments there are, and the bytes of all files.
    pub(crate) fn size(&self) -> (u64, u64) {
        let index = self.shared.read();
        let spare_bytes = self.spares.len() as u64 * u64::from(self.options.segment_bytes);
        (index.segments().len() as u64, index.file_bytes + spare_bytes)
    }

    /// What has been written since the log was opened; what it holds now is not in these.
    pub(crate) fn totals(&self) -> &Statistics {
        &self.totals
    }

    /// The file layer.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    fn check(&self) -> Result<(), CommitError> {
        match &self.failure {
            Some(failure) => Err(CommitError::Failed(failure.error())),
            None => Ok(()),
        }
    }

    /// Closes the log for writing.
    fn fail(&mut self, error: io::Error) -> CommitError {
        self.failure = Some(Failure { kind: error.kind(), text: error.to_string(), code: error.raw_os_error() });
        CommitError::Failed(error)
    }

    /// Drops entries that would change nothing: deletes of what is not there, and what the batch itself puts and deletes
    /// again.
    fn drop_needless(&self, batch: &mut Batch) {
        let index = self.shared.read();
        let hashing = &self.shared.hashing;
        // For keys that are not in the log, where in the batch the last delete is: nothing up to there has an effect.
        let mut needless = HashMap::<_, usize, foldhash::fast::RandomState>::default();
        let mut at = FRAME_HEADER;
        while let Some(entry) = format::entry_at(&batch.frame, at) {
            at = entry.end;
            if entry.value.is_none() {
                let (key, hash) = hashing.key(entry.kind, entry.key);
                if index.get(&key, hash).is_none() {
                    needless.insert(key, entry.begin);
                }
            }
        }
        if !needless.is_empty() {
            batch.retain(|entry| {
                let (key, _) = hashing.key(entry.kind, entry.key);
                needless.get(&key).is_none_or(|last| entry.begin > *last)
            });
        }
    }

    /// Appends a frame, for which there is room.
    fn append(&mut self, frame: &mut [u8], entries: u32, flags: u32, sync: bool) -> Result<(), CommitError> {
        // Behind the last one they would begin anew, and be taken for older ones. Nobody gets there but by a forged header.
        if self.next_sequence == u64::MAX {
            return Err(self.fail(io::Error::other("the numbers of frames are used up")));
        }
        let Some(head) = &mut self.head else { return Err(CommitError::NoSpace) };
        let flags = flags | if self.unsynced { 0 } else { ALL_BEFORE_SYNCED };
        format::seal(frame, self.mark, self.next_sequence, entries, flags);
        self.changes.clear();
        let mut at = FRAME_HEADER;
        while let Some(entry) = format::entry_at(frame, at) {
            at = entry.end;
            let (key, hash) = self.shared.hashing.key(entry.kind, entry.key);
            let bytes = if entry.value.is_some() { (entry.end - entry.begin) as u32 } else { 0 };
            self.changes.push(Change { key, hash, offset: head.end + entry.begin as u32, bytes });
        }
        debug_assert_eq!(self.changes.len(), entries as usize);
        let begin = head.end;
        let end = begin + frame.len() as u32;
        match head.file.write_at(u64::from(begin), frame) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                // A file system that copies on write can be full although the file was filled. How much of the frame it
                // took is unknown, so nothing more goes to this segment.
                self.head = None;
                self.next_sequence = self.next_sequence.saturating_add(SEQUENCE_JUMP);
                return Err(CommitError::NoSpace);
            }
            Err(error) => return Err(self.fail(error)),
        }
        head.end = end;
        let number = head.number;
        self.next_sequence += 1;
        self.unsynced = true;
        self.totals.frames += 1;
        self.totals.written_bytes += frame.len() as u64;
        if sync {
            self.sync()?;
        }
        let mut index = self.shared.write();
        index.add_frame(number, begin, end);
        index.apply(&self.shared.hashing, number, &self.changes);
        Ok(())
    }

    /// Sees to it that a frame of so many bytes fits into the head, by beginning a new one if it must.
    fn make_room(&mut self, frame_bytes: usize, purpose: Purpose) -> Result<(), CommitError> {
        if let Some(head) = &self.head
            && head.end as usize + frame_bytes <= head.bytes as usize
        {
            return Ok(());
        }
        // What the header of the new segment says of the one before has to be true.
        self.sync()?;
        let needed = SEGMENT_HEADER + frame_bytes;
        let is_ordinary = needed <= self.options.segment_bytes as usize;
        let wanted = if purpose == Purpose::Puts { self.wanted_segment_bytes() } else { self.options.segment_bytes };
        let larger = if is_ordinary && wanted == self.options.segment_bytes {
            None
        } else {
            let bytes = needed.next_multiple_of(PAGE).max(wanted as usize) as u32;
            match self.create(u64::from(bytes)) {
                Ok(file) => Some((PREPARING.into(), file, bytes)),
                // There may be a spare of the ordinary size.
                Err(CommitError::NoSpace) if is_ordinary => None,
                Err(error) => return Err(error),
            }
        };
        let (name, file, bytes) = match larger {
            Some(larger) => larger,
            None => {
                let spare = self.take_spare(purpose)?;
                (spare.name, spare.file, self.options.segment_bytes)
            }
        };
        let begun = self.begin_segment(&name, &file, bytes);
        match begun {
            Ok(number) => {
                let file = Arc::new(file);
                let begin = SEGMENT_HEADER as u32;
                let segment = Segment::new(number, file.clone(), bytes, self.next_sequence);
                self.shared.write().push_segment(segment);
                self.head = Some(Head { file, number, end: begin, bytes });
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // A file that is not a spare yet is made anew under the same name.
                if name != PREPARING {
                    self.spares.push(Spare { name, file });
                }
                Err(CommitError::NoSpace)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// How long the next segment should be: a log that grows gets longer ones, since each is an open file.
    fn wanted_segment_bytes(&self) -> u32 {
        let share = (self.shared.read().file_bytes / SEGMENTS_WANTED).next_power_of_two();
        u32::try_from(share).unwrap_or(GROWN_BYTES_MAX).min(GROWN_BYTES_MAX).max(self.options.segment_bytes)
    }

    fn begin_segment(&self, name: &str, file: &D::File, bytes: u32) -> io::Result<u32> {
        let index = self.shared.read();
        let (previous, previous_end, previous_first) =
            index.segments().back().map_or((0, 0, 0), |last| (last.number, last.end(), last.first_sequence));
        let number = previous.checked_add(1).ok_or_else(|| io::Error::other("the numbers of segments are used up"))?;
        let header = SegmentHeader {
            bytes,
            number: u64::from(number),
            mark: self.mark,
            first_sequence: self.next_sequence,
            previous: u64::from(previous),
            previous_end,
            previous_first,
            oldest: index.segments().front().map_or(number, |oldest| oldest.number).into(),
            live_entries: index.live_entries,
        };
        drop(index);
        file.write_at(0, &header.encode())?;
        file.sync_data()?;
        self.disk.rename(name, &format::segment_name(u64::from(number)))?;
        Ok(number)
    }

    fn take_spare(&mut self, purpose: Purpose) -> Result<Spare<D::File>, CommitError> {
        let kept = match purpose {
            Purpose::Puts => SPARES - 1,
            Purpose::MakesRoom => 0,
        };
        if self.spares.len() <= kept {
            match self.take_prepared(true) {
                Ok(_) | Err(CommitError::NoSpace) => {}
                Err(error) => return Err(error),
            }
        }
        if self.spares.len() <= kept {
            match self.create(u64::from(self.options.segment_bytes)) {
                Ok(file) => return Ok(Spare { name: PREPARING.into(), file }),
                Err(CommitError::NoSpace) if purpose == Purpose::MakesRoom => {}
                Err(error) => return Err(error),
            }
        }
        self.spares.pop().ok_or(CommitError::NoSpace)
    }

    /// Makes a file of zeros under the name for files that are being made.
    fn create(&mut self, bytes: u64) -> Result<D::File, CommitError> {
        match self.disk.create(PREPARING, bytes) {
            Ok(file) => Ok(file),
            Err(error) if is_full(&error) => Err(CommitError::NoSpace),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn spare_name(&self) -> String {
        let preparing = self.preparing.as_ref().map(|preparing| &preparing.name);
        let is_free = |name: &String| preparing != Some(name) && self.spares.iter().all(|spare| spare.name != *name);
        (0..).map(spare_name).find(is_free).unwrap_or_default()
    }
}

fn spare_name(number: usize) -> String {
    format!("spare.{number}")
}

/// Whether there may be room later: on the disk, or among the process's open files.
fn is_full(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
