//! From files to an index.
//!
//! Segments are read in order, and frames within them. Where frames end is known for all segments but the last: the next
//! one's header says it, and all before was on stable storage then. In the last one, the first frame that is not whole is
//! the torn end, unless a later frame is there that says that everything before it had been synced. What is not whole
//! before such a point is damage: it is reported, the file is copied aside, and reading goes on behind it.
//!
//! Nothing is ever written behind the end that was found. The next commit begins a new segment, whose header says where
//! this one ended, so that bytes beyond the tear stay without meaning whatever happens later.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, RwLock, mpsc};
use std::thread;

use memchr::memmem;

use super::format::{
    self, ALL_BEFORE_SYNCED, FRAME_HEADER, Frame, HeaderBytes, SEGMENT_BYTES_MAX, SEGMENT_HEADER, SegmentHeader,
    segment_name, segment_number,
};
use super::index::{Change, Hashing, Index, Segment, random};
use super::{
    BODY_BYTES_MAX, Log, LogOptions, PAGE, PREPARING, SEQUENCE_JUMP, SPARES, Shared, Spare, Statistics, clean,
};
use crate::disk::{Disk, DiskFile};

/// Changes are handed from the thread that reads to the one that fills the index in portions like this.
const CHANGES: usize = 16 * 1024;
/// Portions that wait at most.
const PORTIONS: usize = 8;

/// What was found when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// Segments in the log.
    pub segments: u64,
    /// Frames in them.
    pub frames: u64,
    /// Keys that have a value.
    pub live_entries: u64,
    /// Their bytes in the log.
    pub live_bytes: u64,
    /// Bytes of all frames.
    pub log_bytes: u64,
    /// Bytes at the end of the last segment that were being written when the process or the power failed. What they were
    /// to be was never said to be on stable storage.
    pub torn_bytes: u64,
    /// What cannot be read though it was on stable storage.
    pub damages: Vec<Damage>,
}

/// A part of the log that cannot be read. The file as it was found is kept beside it, under its name with `.damaged`.
///
/// Damaged frames are found, and reported, at each opening until cleaning has come past them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The name of the segment.
    pub segment: String,
    /// Where the damage begins.
    pub offset: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong with a part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The header of the segment. Its frames are looked for without it.
    Header,
    /// Frames that are not whole.
    Frames,
    /// The file is not there.
    Missing,
    /// The file is of another log, or no segment at all. It is not used, and has been renamed.
    Foreign,
    /// The file is shorter than it was made. What stood behind its end may have been needed.
    Cut,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            DamageKind::Header => "the header is damaged",
            DamageKind::Frames => "frames are damaged",
            DamageKind::Missing => "the file is missing",
            DamageKind::Foreign => "the file is no segment of this log",
            DamageKind::Cut => "the file has been cut off",
        };
        write!(f, "{}, byte {}: {what}", self.segment, self.offset)
    }
}

/// Why a log cannot be opened. Damage is no reason.
#[derive(Debug)]
pub enum OpenError {
    /// The folder or a file cannot be read, or the end of the log not be made safe.
    Io(io::Error),
    /// A segment is of a version that this program does not know. Nothing has been changed.
    Version {
        /// The name of the segment.
        segment: String,
        /// Its version.
        version: u32,
    },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::Version { segment, version } => {
                write!(f, "{segment} has version {version}; this program knows only version {}", format::VERSION)
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

impl<D: Disk> Log<D> {
    /// Opens the log in a folder, an empty one if there is none, and reads it once.
    ///
    /// What is there afterwards is on stable storage, even if the process before was killed between write and sync.
    pub fn open(disk: D, options: LogOptions) -> Result<(Log<D>, OpenReport), OpenError> {
        let options =
            LogOptions { segment_bytes: options.segment_bytes.clamp(PAGE as u32, BODY_BYTES_MAX as u32), ..options };
        let names: BTreeSet<String> = disk.list()?.into_iter().collect();
        let mut report = OpenReport::default();
        let (mark, files) = find_segments(&disk, &names, &mut report)?;
        let spares = find_spares(&disk, &names, options)?;

        let hashing = Hashing::new();
        let mut index = Index::new();
        let file_bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let hint = files.iter().rev().find_map(|file| file.header).map_or(0, |header| header.live_entries);
        // The hint is only taken as far as so many entries could be there.
        index.reserve(&hashing, hint.min(file_bytes / 16) as usize);
        for file in &files {
            let bytes = file.bytes.min(SEGMENT_BYTES_MAX) as u32;
            index.push_segment(Segment::new(file.number, file.file.clone(), bytes, 0));
        }
        let scanned = read(&files, mark, &hashing, &mut index);

        for (position, (file, scan)) in files.iter().zip(&scanned).enumerate() {
            let damage = |offset, kind| Damage { segment: segment_name(u64::from(file.number)), offset, kind };
            let before = report.damages.len();
            if file.header.is_none() {
                report.damages.push(damage(0, DamageKind::Header));
            }
            report.damages.extend(scan.damages.iter().map(|at| damage(*at as u64, DamageKind::Frames)));
            // Where the one before ended, its successor says.
            let is_last = position + 1 == files.len();
            if is_last && file.header.is_some_and(|header| file.bytes < u64::from(header.bytes)) {
                report.damages.push(damage(file.bytes, DamageKind::Cut));
            }
            report.frames += scan.frames;
            report.torn_bytes += scan.torn_bytes;
            let is_kept = report.damages.len() > before && copy_aside(&disk, &names, file);
            if is_kept && file.header.is_none() && file.bytes >= SEGMENT_HEADER as u64 {
                let previous = position.checked_sub(1).map(|previous| (&files[previous], &scanned[previous]));
                repair_header(file, scan, previous, mark.unwrap_or_default())?;
            }
        }
        if let (Some(last), Some(scan)) = (files.last(), scanned.last()) {
            make_safe(last, scan)?;
        }
        let last_sequence = scanned.iter().map(|scan| scan.last_sequence).max().unwrap_or(0);
        report.segments = files.len() as u64;
        report.live_entries = index.live_entries;
        report.live_bytes = index.live_bytes;
        report.log_bytes = index.log_bytes;
        let log = Log {
            disk,
            options,
            mark: mark.unwrap_or_else(random),
            shared: Arc::new(Shared { hashing, index: RwLock::new(index) }),
            head: None,
            next_sequence: if files.is_empty() { 1 } else { last_sequence.saturating_add(SEQUENCE_JUMP) },
            unsynced: false,
            spares,
            preparing: None,
            failure: None,
            cleaning: clean::Cleaning::default(),
            set_aside: Vec::new(),
            changes: Vec::new(),
            totals: Statistics::default(),
        };
        Ok((log, report))
    }
}

/// A file that belongs to the log.
struct SegmentFile<F> {
    number: u32,
    file: Arc<F>,
    bytes: u64,
    /// `None` if it is damaged.
    header: Option<SegmentHeader>,
}

/// The mark of the log, and its segments in order. What is not part of it is renamed or removed.
#[expect(clippy::type_complexity, reason = "it is taken apart where it is made")]
fn find_segments<D: Disk>(
    disk: &D,
    names: &BTreeSet<String>,
    report: &mut OpenReport,
) -> Result<(Option<u64>, Vec<SegmentFile<D::File>>), OpenError> {
    let mut files = Vec::new();
    let mut foreign = Vec::new();
    // Sixteen digits each, so the order of names is that of numbers.
    for name in names {
        let Some(number) = segment_number(name) else { continue };
        let Some(number) = u32::try_from(number).ok().filter(|number| *number > 0) else {
            foreign.push(name.clone());
            continue;
        };
        let file = disk.open(name)?;
        let bytes = file.len()?;
        let mut header = [0; SEGMENT_HEADER];
        let read = file.read_at(0, &mut header).unwrap_or(0);
        let header = match SegmentHeader::decode(&header[..read]) {
            HeaderBytes::Valid(header) if header.number == u64::from(number) => Some(header),
            HeaderBytes::Version(version) => return Err(OpenError::Version { segment: name.clone(), version }),
            HeaderBytes::Valid(_) | HeaderBytes::Invalid => None,
        };
        files.push(SegmentFile { number, file: Arc::new(file), bytes, header });
    }
    let last = files.iter().rev().find_map(|file| file.header);
    // Without any header the first frame of a file, if it is whole, tells what a frame of this log looks like.
    let mark = last.map(|header| header.mark).or_else(|| files.iter().rev().find_map(mark_of_first_frame));
    files.retain(|file| {
        let is_ours = mark.is_some() && file.header.is_none_or(|header| Some(header.mark) == mark);
        if !is_ours {
            foreign.push(segment_name(u64::from(file.number)));
        }
        is_ours
    });
    for name in foreign {
        disk.rename(&name, &damaged_name(names, &name))?;
        report.damages.push(Damage { segment: name, offset: 0, kind: DamageKind::Foreign });
    }
    // A segment was removed only when it was no longer needed; if it is back, its entries must not be.
    let oldest = last.map_or(0, |header| header.oldest);
    let mut left_over = Vec::new();
    files.retain(|file| {
        let is_needed = u64::from(file.number) >= oldest;
        if !is_needed {
            left_over.push(segment_name(u64::from(file.number)));
        }
        is_needed
    });
    for name in left_over {
        disk.remove(&name)?;
    }
    for pair in files.windows(2) {
        if pair[1].number != pair[0].number + 1 {
            let segment = segment_name(u64::from(pair[0].number + 1));
            report.damages.push(Damage { segment, offset: 0, kind: DamageKind::Missing });
        }
    }
    Ok((mark, files))
}

/// The mark of a segment whose header is damaged.
fn mark_of_first_frame<F: DiskFile>(file: &SegmentFile<F>) -> Option<u64> {
    let read = |length: usize| {
        let mut bytes = vec![0; length];
        let read = file.file.read_at(SEGMENT_HEADER as u64, &mut bytes).ok()?;
        (read == length).then_some(bytes)
    };
    let header = read(FRAME_HEADER)?;
    let mark = u64::from_le_bytes(*header.first_chunk()?);
    let length = FRAME_HEADER.checked_add(format::body_bytes(&header, mark)?)?;
    if SEGMENT_HEADER as u64 + length as u64 > file.bytes.min(SEGMENT_BYTES_MAX) {
        return None;
    }
    let bytes = read(length)?;
    let frame = format::frame_header(&bytes, 0, mark)?;
    is_whole(&bytes, &frame).then_some(mark)
}

fn find_spares<D: Disk>(
    disk: &D,
    names: &BTreeSet<String>,
    options: LogOptions,
) -> Result<Vec<Spare<D::File>>, OpenError> {
    let mut spares = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("spare.") || *name == PREPARING) {
        let file = disk.open(name)?;
        let is_of_use = name != PREPARING && spares.len() < SPARES && file.len()? == u64::from(options.segment_bytes);
        if is_of_use {
            spares.push(Spare { name: name.clone(), file });
        } else {
            disk.remove(name)?;
        }
    }
    Ok(spares)
}

/// A name that no file has yet.
fn damaged_name(names: &BTreeSet<String>, name: &str) -> String {
    let first = format!("{name}.damaged");
    if !names.contains(&first) {
        return first;
    }
    (2..).map(|number| format!("{first}.{number}")).find(|name| !names.contains(name)).unwrap_or(first)
}

/// Keeps a damaged file as it was found, once. It is done for whoever wants to look into it: if it cannot be done, the log
/// is not the worse for it. Returns whether it is.
fn copy_aside<D: Disk>(disk: &D, names: &BTreeSet<String>, file: &SegmentFile<D::File>) -> bool {
    let name = format!("{}.damaged", segment_name(u64::from(file.number)));
    if names.contains(&name) {
        return true;
    }
    let mut bytes = Vec::new();
    read_all(&*file.file, file.bytes.min(SEGMENT_BYTES_MAX) as usize, &mut bytes);
    let copied = disk.create(&name, bytes.len() as u64);
    copied.and_then(|copy| copy.write_at(0, &bytes).and_then(|()| copy.sync_data())).is_ok()
}

/// Writes a header in place of a damaged one. The segments around it, which now tell what can be in this one, will be
/// gone one day, and then frames of an earlier use of the file could pass for its own.
fn repair_header<F: DiskFile>(
    file: &SegmentFile<F>,
    scan: &Scan,
    previous: Option<(&SegmentFile<F>, &Scan)>,
    mark: u64,
) -> io::Result<()> {
    let header = SegmentHeader {
        bytes: file.bytes.min(SEGMENT_BYTES_MAX) as u32,
        number: file.number.into(),
        mark,
        first_sequence: scan.first_sequence,
        previous: previous.map_or(0, |(file, _)| file.number.into()),
        previous_end: previous.map_or(0, |(_, scan)| scan.end as u32),
        previous_first: previous.map_or(0, |(_, scan)| scan.first_sequence),
        oldest: 0,
        live_entries: 0,
    };
    file.file.write_at(0, &header.encode())?;
    file.file.sync_data()
}

/// Brings down what was written to the last segment and perhaps never synced. It is written again first: if a sync has
/// failed, the kernel may take pages for clean that the disk never got. The bytes are the same, so nothing can be torn.
fn make_safe<F: DiskFile>(file: &SegmentFile<F>, scan: &Scan) -> io::Result<()> {
    if scan.proven == scan.end {
        return Ok(());
    }
    let mut bytes = vec![0; scan.end - scan.proven];
    if file.file.read_at(scan.proven as u64, &mut bytes)? < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.file.write_at(scan.proven as u64, &bytes)?;
    file.file.sync_data()
}

/// Reads as much as can be read; what cannot is left zero, and will be found to be no frame.
fn read_all<F: DiskFile>(file: &F, length: usize, bytes: &mut Vec<u8>) {
    bytes.resize(length, 0);
    let mut read = match file.read_at(0, bytes) {
        Ok(read) => read,
        Err(_) => {
            bytes.fill(0);
            for (page, part) in bytes.chunks_mut(PAGE).enumerate() {
                if file.read_at((page * PAGE) as u64, part).is_err() {
                    part.fill(0);
                }
            }
            length
        }
    };
    read = read.min(length);
    bytes.truncate(read);
}

/// Changes of one segment on their way to the index.
struct Portion {
    segment: usize,
    changes: Vec<Change>,
}

/// Reads all segments. One thread reads and checks, the other fills the index: each takes about half of the time.
fn read<F: DiskFile>(
    files: &[SegmentFile<F>],
    mark: Option<u64>,
    hashing: &Hashing,
    index: &mut Index<F>,
) -> Vec<Scan> {
    let Some(mark) = mark else { return Vec::new() };
    let (sender, receiver) = mpsc::sync_channel::<Portion>(PORTIONS);
    let scanned = thread::scope(|scope| {
        let reading = scope.spawn(move || read_segments(files, mark, hashing, &sender));
        for portion in receiver {
            index.apply(hashing, files[portion.segment].number, &portion.changes);
        }
        reading.join()
    });
    // A panic there is ours here.
    let scanned = scanned.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for (file, scan) in files.iter().zip(&scanned) {
        if let Some(segment) = index.segment_mut(file.number) {
            segment.first_sequence = scan.first_sequence;
        }
        for (begin, end) in &scan.runs {
            index.add_frame(file.number, *begin, *end);
        }
    }
    scanned
}

fn read_segments<F: DiskFile>(
    files: &[SegmentFile<F>],
    mark: u64,
    hashing: &Hashing,
    sender: &mpsc::SyncSender<Portion>,
) -> Vec<Scan> {
    let mut bytes = Vec::new();
    let mut scanned = Vec::with_capacity(files.len());
    let mut last_sequence = 0;
    for (position, file) in files.iter().enumerate() {
        let next = files.get(position + 1).and_then(|next| next.header);
        let next = next.filter(|header| header.previous == u64::from(file.number));
        let limit = next.map(|header| header.previous_end as usize);
        let length = limit.map_or(file.bytes, |limit| file.bytes.min(limit as u64)).min(SEGMENT_BYTES_MAX);
        read_all(&*file.file, length as usize, &mut bytes);
        let ahead = files[position + 1..].iter().find_map(|later| later.header);
        let mut changes = Vec::with_capacity(CHANGES);
        let mut scan = Scan::new(last_sequence);
        scan.run(
            &bytes,
            &Expected {
                mark,
                first: file.header.map(|header| header.first_sequence).or(next.map(|next| next.previous_first)),
                below: ahead.map_or(u64::MAX, |header| header.first_sequence),
                limit,
            },
            |begin, end| {
                let mut at = begin;
                while let Some(entry) = format::entry_at(&bytes[..end], at) {
                    at = entry.end;
                    let (key, hash) = hashing.key(entry.kind, entry.key);
                    let bytes = if entry.value.is_some() { (entry.end - entry.begin) as u32 } else { 0 };
                    changes.push(Change { key, hash, offset: entry.begin as u32, bytes });
                    if changes.len() == CHANGES {
                        let full = std::mem::replace(&mut changes, Vec::with_capacity(CHANGES));
                        let _ = sender.send(Portion { segment: position, changes: full });
                    }
                }
            },
        );
        if !changes.is_empty() {
            let _ = sender.send(Portion { segment: position, changes });
        }
        last_sequence = scan.last_sequence;
        scanned.push(scan);
    }
    scanned
}

/// What is known of a segment before it is read.
struct Expected {
    mark: u64,
    /// The sequence of its first frame.
    first: Option<u64>,
    /// All its sequences are lower.
    below: u64,
    /// Where its frames end, if the segment after it says so.
    limit: Option<usize>,
}

/// What one segment turned out to be.
#[derive(Debug, Default)]
struct Scan {
    /// Where frames lie, as in [`Segment`].
    runs: Vec<(u32, u32)>,
    frames: u64,
    /// The sequence of the first frame, or what it would at least have been.
    first_sequence: u64,
    /// Where the last frame ends.
    end: usize,
    /// Everything before this has been synced, by what the frames say.
    proven: usize,
    torn_bytes: u64,
    /// Where holes begin.
    damages: Vec<usize>,
    /// The highest sequence so far.
    last_sequence: u64,
}

impl Scan {
    fn new(last_sequence: u64) -> Scan {
        Scan { end: SEGMENT_HEADER, proven: SEGMENT_HEADER, last_sequence, ..Scan::default() }
    }

    /// Goes through the bytes of a segment and calls with the body of each frame that counts.
    fn run(&mut self, bytes: &[u8], expected: &Expected, mut each: impl FnMut(usize, usize)) {
        let mut at = SEGMENT_HEADER;
        // Where the header is damaged, any later sequence may be the first.
        let mut least = self.last_sequence.saturating_add(1).max(expected.first.unwrap_or(0));
        let mut is_exact = expected.first.is_some();
        self.first_sequence = least;
        let mark = expected.mark.to_le_bytes();
        let marks = memmem::Finder::new(&mark);
        // Where the last frame is that says that everything before it had been synced; looked for once.
        let mut last_proof: Option<Option<usize>> = None;
        let limit = expected.limit.unwrap_or(usize::MAX);
        while at < limit {
            let frame = format::frame_header(bytes, at, expected.mark).filter(|frame| {
                let is_next = if is_exact { frame.sequence == least } else { frame.sequence >= least };
                is_next && frame.sequence < expected.below && is_whole(bytes, frame)
            });
            if let Some(frame) = frame {
                if frame.has(ALL_BEFORE_SYNCED) {
                    self.proven = at;
                }
                match self.runs.last_mut() {
                    Some(run) if run.1 as usize == at => run.1 = frame.end as u32,
                    _ => self.runs.push((at as u32, frame.end as u32)),
                }
                each(frame.begin, frame.end);
                // What is before a hole is not known. Were it said that this is the first one, it would prove no hole any more.
                if self.frames == 0 && expected.first.is_none() && self.damages.is_empty() {
                    self.first_sequence = frame.sequence;
                }
                self.frames += 1;
                self.last_sequence = frame.sequence;
                least = frame.sequence.saturating_add(1);
                is_exact = true;
                at = frame.end;
                self.end = at;
                continue;
            }
            let later = |from: usize| {
                marks.find_iter(bytes.get(from..).unwrap_or_default()).filter_map(move |position| {
                    let frame = format::frame_header(bytes, from + position, expected.mark)?;
                    let is_later = frame.sequence >= least && frame.sequence < expected.below;
                    (is_later && is_whole(bytes, &frame)).then_some((from + position, frame))
                })
            };
            let is_proven = expected.limit.is_some() || {
                let proof = *last_proof.get_or_insert_with(|| {
                    let proofs = later(at).filter(|(_, frame)| frame.has(ALL_BEFORE_SYNCED) && frame.sequence > least);
                    proofs.last().map(|(position, _)| position)
                });
                // It may stand here itself, where one before it should.
                proof.is_some_and(|proof| at <= proof)
            };
            if !is_proven {
                self.torn_bytes = torn_bytes(bytes, at, expected.mark, least, later(at).last());
                break;
            }
            let resumed = later(at).next();
            self.damages.push(at);
            match resumed {
                Some((position, _)) => {
                    at = position;
                    is_exact = false;
                }
                None => break,
            }
        }
        // An end before the header makes no sense: it is the word of a header that is whole, so the log is not.
        if limit < SEGMENT_HEADER {
            self.damages.push(limit);
        }
        if let Some(first) = expected.first {
            self.last_sequence = self.last_sequence.max(first.saturating_sub(1));
        }
    }
}

/// Whether the checksum fits and the body is entries and nothing else.
fn is_whole(bytes: &[u8], frame: &Frame) -> bool {
    if !format::is_intact(bytes, frame) {
        return false;
    }
    let body = &bytes[..frame.end];
    let mut at = frame.begin;
    let mut entries = 0u32;
    while at < frame.end {
        let Some(entry) = format::entry_at(body, at) else { return false };
        at = entry.end;
        entries += 1;
    }
    entries == frame.entries
}

/// How much of what was being written is there, as far as can be seen.
fn torn_bytes(bytes: &[u8], at: usize, mark: u64, sequence: u64, last: Option<(usize, Frame)>) -> u64 {
    if let Some((_, frame)) = last {
        return (frame.end - at) as u64;
    }
    let rest = &bytes[at.min(bytes.len())..];
    // In a file that is used again, an older frame may lie here.
    match format::frame_header(bytes, at, mark) {
        Some(frame) if frame.sequence == sequence => (frame.end - at) as u64,
        Some(_) => 0,
        None => rest.iter().rposition(|byte| *byte != 0).map_or(0, |position| position as u64 + 1),
    }
}
