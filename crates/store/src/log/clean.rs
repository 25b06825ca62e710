//! Cleaning: what is live in the oldest segment is appended again, then its file is used for something else.

use std::io;
use std::sync::Arc;

use memchr::memmem;

use super::batch::Batch;
use super::format::{self, COPIES, FRAME_HEADER, SEGMENT_HEADER};
use super::index::{Place, Segment};
use super::{CommitError, Log, Purpose, SPARES, SetAside, Spare};
use crate::disk::{Disk, DiskFile};

/// A step is at least so large: with a header for every few bytes, the copies would be larger than what they replace.
const STEP_BYTES_MIN: usize = 4096;
/// A step of compaction: so much is copied with one write.
const COMPACT_BYTES: usize = 4 << 20;
/// Less than this part of the log is not worth compacting for.
const COMPACT_PART: u64 = 16;
/// A buffer that has grown beyond this is given back.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// How far the oldest segment has been gone through.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    /// Its number.
    segment: u32,
    /// Which of its runs, and where the next entry or frame begins.
    run: usize,
    at: u32,
    /// Where the frame begins and ends that `at` is in. Its checksum has been looked at.
    frame: Option<(u32, u32)>,
    /// Bytes of the segment, from `read_at` on.
    bytes: Vec<u8>,
    read_at: u32,
    batch: Batch,
    /// It cannot be read: nothing is cleaned any more.
    is_unreadable: bool,
}

impl<D: Disk> Log<D> {
    /// One step of cleaning: copies about `bytes_max` bytes of what is live in the oldest segment to the end of the log, and
    /// gives the segment up after the last. Returns whether there is more to do now.
    ///
    /// A step reads at least one frame and copies at least one entry, however large they are. With `sync` the copies are
    /// on stable storage when it returns; in any case they are before the old segment goes.
    pub fn clean(&mut self, bytes_max: usize, sync: bool) -> Result<bool, CommitError> {
        self.check()?;
        if !self.needs_cleaning() {
            return Ok(false);
        }
        self.clean_oldest(bytes_max, sync)?;
        Ok(self.needs_cleaning())
    }

    /// Cleans until nothing is left to be cleaned, where [`clean`](Self::clean) stops when it is worth the copying no more.
    /// Spare files are no more than before. `each` is called after each step, with the bytes done and those to be done.
    ///
    /// As with `clean`, nothing goes before its copy is on stable storage, so it can be ended at any moment.
    pub fn compact(&mut self, mut each: impl FnMut(u64, u64)) -> Result<(), CommitError> {
        self.check()?;
        let spares = self.spares.len();
        // All that is there now, the head too: copies go to a new one.
        let last = self.shared.read().segments().back().map_or(0, |segment| segment.number);
        if !self.is_compact() {
            self.sync()?;
            self.head = None;
            self.make_room(FRAME_HEADER, Purpose::MakesRoom)?;
            let total = self.left_to_compact(last);
            while self.shared.read().segments().front().is_some_and(|oldest| oldest.number <= last) {
                self.clean_oldest(COMPACT_BYTES, false)?;
                each(total - self.left_to_compact(last), total);
            }
            self.close()?;
        }
        while self.spares.len() > spares
            && let Some(spare) = self.spares.pop()
        {
            self.disk.remove(&spare.name).map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Ends with a frame without entries: it says that everything before it is on stable storage. Whatever of that is
    /// damaged later is not taken for something that was being written.
    fn close(&mut self) -> Result<(), CommitError> {
        self.sync()?;
        let mut frame = [0; FRAME_HEADER];
        self.make_room(frame.len(), Purpose::MakesRoom)?;
        self.append(&mut frame, 0, COPIES, true)
    }

    /// Bytes of segments up to `last` that have not been gone through.
    fn left_to_compact(&self, last: u32) -> u64 {
        let index = self.shared.read();
        let old = index.segments().iter().filter(|segment| segment.number <= last);
        let left = |segment: &Segment<D::File>| {
            let seen = if segment.number == self.cleaning.segment { self.cleaning.at } else { 0 };
            u64::from(segment.end() - seen.min(segment.end()))
        };
        old.map(left).sum()
    }

    /// Whether copying everything would gain next to nothing: little but what is live in hardly more files than that needs.
    fn is_compact(&self) -> bool {
        let index = self.shared.read();
        let segment_bytes = u64::from(self.options.segment_bytes);
        index.segments().iter().all(|segment| segment.live_entries > 0)
            && index.log_bytes - index.live_bytes.min(index.log_bytes) <= index.log_bytes / COMPACT_PART
            && index.file_bytes <= index.log_bytes + index.log_bytes / COMPACT_PART + segment_bytes
    }

    /// One step with the oldest segment, whatever it is worth.
    fn clean_oldest(&mut self, bytes_max: usize, sync: bool) -> Result<(), CommitError> {
        let oldest = self
            .shared
            .read()
            .segments()
            .front()
            .map(|oldest| (oldest.number, oldest.file.clone(), oldest.runs.clone(), oldest.live_entries));
        let Some((number, file, runs, live_entries)) = oldest else { return Ok(()) };
        if self.cleaning.segment != number {
            self.restart_cleaning(number);
        }
        let mut is_done = live_entries == 0;
        if !is_done {
            is_done = self.copy_step(number, &*file, &runs, bytes_max.max(STEP_BYTES_MIN))?;
            if sync {
                self.sync()?;
            }
        }
        drop(file);
        if is_done {
            self.give_up_oldest(number)?;
        }
        Ok(())
    }

    /// Whether [`clean`](Self::clean) has something to do: nothing is live in the oldest segment, or less than half of the
    /// log is.
    pub fn needs_cleaning(&self) -> bool {
        let index = self.shared.read();
        let head = self.head.as_ref().map(|head| head.number);
        let Some(oldest) = index.segments().front() else { return false };
        if self.cleaning.is_unreadable {
            return false;
        }
        // The last one is never given up: the next header has to say where it ended.
        if Some(oldest.number) == head || index.segments().len() < 2 {
            return false;
        }
        if oldest.live_entries == 0 {
            return true;
        }
        // Each opening of the log leaves a segment with little in it, so files count too. Large entries leave up to half of
        // each file empty; a stricter rule would copy them for ever.
        index.file_bytes > self.options.segments_min as u64 * u64::from(self.options.segment_bytes)
            && (index.live_bytes < index.log_bytes / 2 || index.live_bytes < index.file_bytes / 3)
    }

    /// Segments that cleaning has found damaged since this was called last.
    pub fn take_set_aside(&mut self) -> Vec<SetAside> {
        std::mem::take(&mut self.set_aside)
    }

    fn restart_cleaning(&mut self, segment: u32) {
        let cleaning = &mut self.cleaning;
        cleaning.segment = segment;
        cleaning.run = 0;
        cleaning.at = 0;
        cleaning.frame = None;
        cleaning.bytes.clear();
        cleaning.bytes.shrink_to(KEPT_BYTES_MAX);
        cleaning.batch.clear();
    }

    /// Copies live entries; returns whether the end of the segment is reached.
    fn copy_step(
        &mut self,
        number: u32,
        file: &D::File,
        runs: &[(u32, u32)],
        step: usize,
    ) -> Result<bool, CommitError> {
        let room = self.head.as_ref().map_or(0, |head| (head.bytes - head.end) as usize);
        let capacity = self.options.segment_bytes as usize - SEGMENT_HEADER;
        // The rest of the head is filled if that is worth a frame.
        let room = if room >= STEP_BYTES_MIN { room } else { capacity };
        let copy_max = step.min(room - FRAME_HEADER);
        let mut cleaning = std::mem::take(&mut self.cleaning);
        cleaning.batch.clear();
        let collected = self.collect(&mut cleaning, number, file, runs, step, copy_max);
        cleaning.is_unreadable = collected.is_err();
        let mut result = collected.map_err(CommitError::Unreadable);
        if !cleaning.batch.is_empty()
            && let Ok(is_done) = result
        {
            result = self
                .make_room(cleaning.batch.frame.len(), Purpose::MakesRoom)
                .and_then(|()| self.append(&mut cleaning.batch.frame, cleaning.batch.puts, COPIES, false))
                .map(|()| is_done);
        }
        match &result {
            Ok(_) => self.totals.copied_bytes += cleaning.batch.bytes() as u64,
            // Nothing has been copied: begin again. What was copied before is no longer live here and is passed over.
            Err(_) => {
                cleaning.run = 0;
                cleaning.at = 0;
                cleaning.frame = None;
            }
        }
        self.cleaning = cleaning;
        result
    }

    fn collect(
        &self,
        cleaning: &mut Cleaning,
        number: u32,
        file: &D::File,
        runs: &[(u32, u32)],
        step: usize,
        copy_max: usize,
    ) -> io::Result<bool> {
        let mut seen = 0;
        loop {
            let Some(&(run_begin, run_end)) = runs.get(cleaning.run) else { return Ok(true) };
            cleaning.at = cleaning.at.max(run_begin);
            let (_, frame_end) = match cleaning.frame {
                Some(frame) if cleaning.at < frame.1 => frame,
                _ if cleaning.at >= run_end => {
                    cleaning.run += 1;
                    cleaning.frame = None;
                    continue;
                }
                _ if seen >= step => return Ok(false),
                _ => match cleaning.next_frame(file, run_end, step, self.mark)? {
                    Some(frame) => {
                        seen += (frame.1 - frame.0) as usize;
                        frame
                    }
                    None => {
                        // Not what was written. What is lost is found at the end, when the segment should be empty.
                        cleaning.skip_damage(file, run_end, self.mark)?;
                        continue;
                    }
                },
            };
            let index = self.shared.read();
            while cleaning.at < frame_end {
                let begin = (cleaning.at - cleaning.read_at) as usize;
                let bytes = &cleaning.bytes[..(frame_end - cleaning.read_at) as usize];
                let Some(entry) = format::entry_at(bytes, begin) else {
                    cleaning.at = frame_end;
                    break;
                };
                let length = entry.end - entry.begin;
                if entry.value.is_some() {
                    let (key, hash) = self.shared.hashing.key(entry.kind, entry.key);
                    let place = Place { segment: number, offset: cleaning.at, bytes: length as u32 };
                    if index.get(&key, hash) == Some(place) {
                        if !cleaning.batch.is_empty() && cleaning.batch.bytes() + length > copy_max {
                            return Ok(false);
                        }
                        cleaning.batch.push_copy(&bytes[entry.begin..entry.end]);
                    }
                }
                cleaning.at += length as u32;
            }
        }
    }

    /// Takes the oldest segment, of which nothing is live any more, out of the log.
    fn give_up_oldest(&mut self, number: u32) -> Result<(), CommitError> {
        self.sync()?;
        let name = format::segment_name(u64::from(number));
        let (oldest, damaged_entries) = {
            let mut index = self.shared.write();
            let lost = index.segments().front().is_some_and(|oldest| oldest.live_entries > 0);
            let damaged_entries = if lost { index.drop_segment(number) } else { 0 };
            let Some(oldest) = index.pop_segment() else { return Ok(()) };
            (oldest, damaged_entries)
        };
        self.restart_cleaning(0);
        self.totals.cleaned_bytes += u64::from(oldest.bytes);
        self.totals.damaged_entries += damaged_entries;
        if damaged_entries > 0 {
            self.set_aside.push(SetAside { segment: name.clone(), entries: damaged_entries });
        }
        let bytes = oldest.bytes;
        // A reader that is just reading from the file must not find something else in it.
        let file = Arc::into_inner(oldest.file);
        let result = match file {
            _ if damaged_entries > 0 => self.disk.rename(&name, &format!("{name}.damaged")),
            Some(file) if bytes == self.options.segment_bytes && self.spares.len() < SPARES => {
                let spare = self.spare_name();
                let renamed = self.disk.rename(&name, &spare);
                if renamed.is_ok() {
                    self.spares.push(Spare { name: spare, file });
                }
                renamed
            }
            _ => self.disk.remove(&name),
        };
        result.map_err(|error| self.fail(error))
    }
}

impl Cleaning {
    /// Reads the frame at `at`, if it is whole, and with it as many after it as belong into a step.
    fn next_frame<F: DiskFile>(
        &mut self,
        file: &F,
        run_end: u32,
        step: usize,
        mark: u64,
    ) -> io::Result<Option<(u32, u32)>> {
        let mut wanted = step.max(FRAME_HEADER);
        loop {
            let begin = self.at.checked_sub(self.read_at).map_or(usize::MAX, |begin| begin as usize);
            let there = self.bytes.get(begin..).unwrap_or_default();
            let body = format::body_bytes(there, mark);
            if let Some(frame) = format::frame_header(&self.bytes, begin, mark) {
                if !format::is_intact(&self.bytes, &frame) {
                    return Ok(None);
                }
                let end = self.read_at + frame.end as u32;
                self.frame = Some((self.at, end));
                self.at = self.read_at + frame.begin as u32;
                return Ok(self.frame);
            }
            // Once more with all of it, if the first time was too little.
            wanted = body.map_or(wanted, |body| wanted.max(FRAME_HEADER + body)).min((run_end - self.at) as usize);
            if self.read_at == self.at && self.bytes.len() >= wanted {
                return Ok(None);
            }
            self.read(file, wanted)?;
        }
    }

    /// Goes to the next frame that is whole.
    fn skip_damage<F: DiskFile>(&mut self, file: &F, run_end: u32, mark: u64) -> io::Result<()> {
        self.frame = None;
        self.at += 1;
        self.read(file, (run_end - self.at) as usize)?;
        let bytes = &self.bytes;
        let whole = memmem::find_iter(bytes, &mark.to_le_bytes()).find(|position| {
            format::frame_header(bytes, *position, mark).is_some_and(|frame| format::is_intact(bytes, &frame))
        });
        self.at = whole.map_or(run_end, |position| self.read_at + position as u32);
        Ok(())
    }

    fn read<F: DiskFile>(&mut self, file: &F, length: usize) -> io::Result<()> {
        self.bytes.resize(length, 0);
        self.read_at = self.at;
        let read = file.read_at(u64::from(self.at), &mut self.bytes)?;
        self.bytes.truncate(read);
        if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
