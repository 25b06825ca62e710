//! Where each live entry is, in memory.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::format::SEGMENT_HEADER;

/// Tables the entries are spread over. Each grows by itself: one table of millions of entries would keep everybody waiting
/// while it is copied to twice its size.
const TABLES: usize = 256;
/// Which table parts of the hash choose. The last table has nearly twice as many as the first and the others lie between,
/// so that tables double one after the other and not all at once, and memory grows as evenly as entries do.
static TABLE_OF: [u8; PARTS] = table_of_parts();
const PARTS: usize = 4096;
/// Keys up to this length are in the index as they are.
const EXACT_BYTES: usize = 14;
/// Stands where the length of an exact key would.
const HASHED: u8 = 0xff;

/// A key of the index: a kind, and a key of up to 14 bytes as it is or 112 bits of two keyed hashes of a longer one. That two
/// longer keys of millions have the same is less likely than that all the checksums of a broken disk fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u32; 4]);

/// Makes keys, and hashes them. The seeds are random: what clients choose cannot be chosen to collide.
#[derive(Debug)]
pub struct Hashing {
    long: [RandomState; 2],
    shared: SharedSeed,
    seed: u64,
}

impl Hashing {
    /// With fresh seeds.
    pub fn new() -> Hashing {
        Hashing {
            long: [RandomState::new(), RandomState::new()],
            shared: SharedSeed::from_u64(random()),
            seed: random(),
        }
    }

    /// The key of the index for a key of a kind, and its hash.
    #[inline]
    pub fn key(&self, kind: u8, key: &[u8]) -> (Key, u64) {
        let mut bytes = [0; 16];
        bytes[0] = kind;
        if key.len() <= EXACT_BYTES {
            bytes[1] = key.len() as u8;
            bytes[2..2 + key.len()].copy_from_slice(key);
        } else {
            bytes[1] = HASHED;
            bytes[2..10].copy_from_slice(&self.long[0].hash_one(key).to_le_bytes());
            bytes[10..16].copy_from_slice(&self.long[1].hash_one(key).to_le_bytes()[..6]);
        }
        let [a, b, c, d] = [0, 4, 8, 12].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte])));
        let key = Key([a, b, c, d]);
        (key, self.hash(&key))
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let [a, b, c, d] = key.0.map(u64::from);
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write_u64(a | b << 32);
        hasher.write_u64(c | d << 32);
        hasher.finish()
    }
}

/// A number nobody can guess, from the operating system's source of randomness.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Where the latest put of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of the segment.
    pub segment: u32,
    /// Where the entry begins in it.
    pub offset: u32,
    /// How long the entry is.
    pub bytes: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    place: Place,
}

/// A segment that is part of the log.
#[derive(Debug)]
pub struct Segment<F> {
    /// Its number.
    pub number: u32,
    /// Kept open, also for readers that have just looked up a place in it.
    pub file: Arc<F>,
    /// The length of the file.
    pub bytes: u32,
    /// The sequence of its first frame.
    pub first_sequence: u64,
    /// The parts that hold valid frames one after the other: one, unless the file is damaged.
    pub runs: Vec<(u32, u32)>,
    /// The puts in it that the index points to.
    pub live_entries: u32,
    /// Their bytes.
    pub live_bytes: u64,
}

impl<F> Segment<F> {
    /// A segment without frames.
    pub fn new(number: u32, file: Arc<F>, bytes: u32, first_sequence: u64) -> Segment<F> {
        Segment { number, file, bytes, first_sequence, runs: Vec::new(), live_entries: 0, live_bytes: 0 }
    }

    /// Where its last frame ends.
    pub fn end(&self) -> u32 {
        self.runs.last().map_or(SEGMENT_HEADER as u32, |run| run.1)
    }

    fn add_frame(&mut self, begin: u32, end: u32) {
        match self.runs.last_mut() {
            Some(run) if run.1 == begin => run.1 = end,
            _ => self.runs.push((begin, end)),
        }
    }
}

/// One put or delete, ready to be applied.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Its hash.
    pub hash: u64,
    /// Where the entry begins in its segment.
    pub offset: u32,
    /// How long it is; 0 for a delete.
    pub bytes: u32,
}

/// All live entries, and the segments they are in.
#[derive(Debug)]
pub struct Index<F> {
    tables: Box<[HashTable<Slot>]>,
    /// Oldest first, by number.
    segments: VecDeque<Segment<F>>,
    /// How many entries are live.
    pub live_entries: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes of segments up to where their frames end.
    pub log_bytes: u64,
    /// Bytes of the segments' files.
    pub file_bytes: u64,
}

impl<F> Index<F> {
    /// Without entries.
    pub fn new() -> Index<F> {
        Index {
            tables: (0..TABLES).map(|_| HashTable::new()).collect(),
            segments: VecDeque::new(),
            live_entries: 0,
            live_bytes: 0,
            log_bytes: 0,
            file_bytes: 0,
        }
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &VecDeque<Segment<F>> {
        &self.segments
    }

    /// Adds a segment behind the others.
    pub fn push_segment(&mut self, segment: Segment<F>) {
        self.log_bytes += u64::from(segment.end());
        self.file_bytes += u64::from(segment.bytes);
        self.segments.push_back(segment);
    }

    /// Takes the oldest segment away.
    pub fn pop_segment(&mut self) -> Option<Segment<F>> {
        let segment = self.segments.pop_front()?;
        self.log_bytes -= u64::from(segment.end());
        self.file_bytes -= u64::from(segment.bytes);
        Some(segment)
    }

    /// Notes a frame of a segment, or several without a gap. They come in the order of the file.
    pub fn add_frame(&mut self, segment: u32, begin: u32, end: u32) {
        if let Some(segment) = self.segment_mut(segment) {
            let before = segment.end();
            segment.add_frame(begin, end);
            let more = u64::from(segment.end() - before);
            self.log_bytes += more;
        }
    }

    /// Makes room for so many entries.
    pub fn reserve(&mut self, hashing: &Hashing, entries: usize) {
        let mut parts_of = [0; TABLES];
        TABLE_OF.iter().for_each(|table| parts_of[usize::from(*table)] += 1);
        for (table, parts) in self.tables.iter_mut().zip(parts_of) {
            table.reserve((entries as u128 * parts as u128 / PARTS as u128) as usize, |slot| hashing.hash(&slot.key));
        }
    }

    /// The place of a key.
    #[inline]
    pub fn get(&self, key: &Key, hash: u64) -> Option<Place> {
        self.tables[table_of(hash)].find(hash, |slot| slot.key == *key).map(|slot| slot.place)
    }

    /// Where the live entries of each segment begin and how long they are, in the order of segments and in no other.
    pub fn live_by_segment(&self) -> Vec<Vec<(u32, u32)>> {
        let mut live: Vec<_> =
            self.segments.iter().map(|segment| Vec::with_capacity(segment.live_entries as usize)).collect();
        for Slot { place, .. } in self.tables.iter().flatten() {
            if let Some(entries) = self.position(place.segment).and_then(|position| live.get_mut(position)) {
                entries.push((place.offset, place.bytes));
            }
        }
        live
    }

    /// Applies the changes of one frame of a segment.
    pub fn apply(&mut self, hashing: &Hashing, segment: u32, changes: &[Change]) {
        for change in changes {
            let table = &mut self.tables[table_of(change.hash)];
            let place = Place { segment, offset: change.offset, bytes: change.bytes };
            let rehash = |slot: &Slot| hashing.hash(&slot.key);
            let old = match table.entry(change.hash, |slot| slot.key == change.key, rehash) {
                Entry::Occupied(mut slot) if change.bytes > 0 => {
                    Some(std::mem::replace(&mut slot.get_mut().place, place))
                }
                Entry::Occupied(slot) => Some(slot.remove().0.place),
                Entry::Vacant(slot) => {
                    if change.bytes > 0 {
                        slot.insert(Slot { key: change.key, place });
                    }
                    None
                }
            };
            if let Some(old) = old {
                self.forget(old);
            }
            if change.bytes > 0 {
                self.live_entries += 1;
                self.live_bytes += u64::from(change.bytes);
                if let Some(segment) = self.segment_mut(segment) {
                    segment.live_entries += 1;
                    segment.live_bytes += u64::from(change.bytes);
                }
            }
        }
    }

    /// Drops all entries in a segment; a look at every entry there is. Returns how many.
    pub fn drop_segment(&mut self, number: u32) -> u64 {
        let mut dropped = Vec::new();
        for table in &mut self.tables {
            dropped.extend(table.extract_if(|slot| slot.place.segment == number).map(|slot| slot.place));
        }
        for place in &dropped {
            self.forget(*place);
        }
        dropped.len() as u64
    }

    /// The segment with this number.
    pub fn segment(&self, number: u32) -> Option<&Segment<F>> {
        self.position(number).and_then(|position| self.segments.get(position))
    }

    /// The segment with this number.
    pub fn segment_mut(&mut self, number: u32) -> Option<&mut Segment<F>> {
        self.position(number).and_then(|position| self.segments.get_mut(position))
    }

    /// Bytes of memory that the entries take.
    pub fn memory_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.allocation_size()).sum()
    }

    fn forget(&mut self, place: Place) {
        self.live_entries -= 1;
        self.live_bytes -= u64::from(place.bytes);
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.live_entries -= 1;
            segment.live_bytes -= u64::from(place.bytes);
        }
    }

    /// Numbers follow one another unless a file was lost.
    fn position(&self, number: u32) -> Option<usize> {
        let first = self.segments.front()?.number;
        let position = number.checked_sub(first)? as usize;
        match self.segments.get(position) {
            Some(segment) if segment.number == number => Some(position),
            _ => self.segments.binary_search_by_key(&number, |segment| segment.number).ok(),
        }
    }
}

/// The tables themselves use the lowest and the highest bits.
#[inline]
fn table_of(hash: u64) -> usize {
    usize::from(TABLE_OF[(hash >> 40) as usize % PARTS])
}

const fn table_of_parts() -> [u8; PARTS] {
    // The 256th root of 2: each table has so many times the share of the one before.
    const GROWTH: f64 = 1.002_711_275_050_202_5;
    let mut parts = [0; PARTS];
    let mut part = 0;
    let mut table = 0;
    let mut end = GROWTH - 1.0;
    while part < PARTS {
        while table < TABLES - 1 && part as f64 / PARTS as f64 >= end {
            table += 1;
            end = (end + 1.0) * GROWTH - 1.0;
        }
        parts[part] = table as u8;
        part += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_kind_length_and_bytes() {
        let hashing = Hashing::new();
        let keys: Vec<Key> = [
            (0, &b""[..]),
            (1, b""),
            (0, &[0]),
            (0, &[0, 0]),
            (0, &[1; 14]),
            (0, &[1; 15]),
            (0, &[1; 16]),
            (1, &[1; 15]),
            (0, &[2; 300]),
        ]
        .iter()
        .map(|(kind, key)| hashing.key(*kind, key).0)
        .collect();
        for (position, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(position));
        }
        assert_eq!(hashing.key(0, &[1; 15]), hashing.key(0, &[1; 15]));
    }

    #[test]
    fn every_table_has_its_share() {
        let share = |number: u8| TABLE_OF.iter().filter(|table| **table == number).count();
        assert!((0..=255).all(|number| (11..=23).contains(&share(number))));
        assert!(share(255) > share(0) * 3 / 2);
    }

    #[test]
    fn segments_are_found_across_gaps() {
        let mut index = Index::new();
        for number in [3, 4, 9, 1000] {
            index.push_segment(Segment::new(number, Arc::new(()), 0, 1));
        }
        for number in [3, 4, 9, 1000] {
            assert_eq!(index.segment(number).unwrap().number, number);
        }
        for number in [0, 2, 5, 999, 1001, u32::MAX] {
            assert!(index.segment(number).is_none());
        }
    }

    #[test]
    fn counts_follow_puts_and_deletes() {
        let hashing = Hashing::new();
        let mut index = Index::new();
        index.push_segment(Segment::new(1, Arc::new(()), 0, 1));
        let change = |key: &[u8], offset, bytes| {
            let (key, hash) = hashing.key(0, key);
            Change { key, hash, offset, bytes }
        };
        index.apply(&hashing, 1, &[change(b"a", 0, 10), change(b"b", 10, 20), change(b"a", 30, 5)]);
        assert_eq!((index.live_entries, index.live_bytes), (2, 25));
        index.apply(&hashing, 1, &[change(b"b", 0, 0), change(b"c", 0, 0)]);
        assert_eq!((index.live_entries, index.live_bytes), (1, 5));
        assert_eq!((index.segments[0].live_entries, index.segments[0].live_bytes), (1, 5));
        let (key, hash) = hashing.key(0, b"a");
        assert_eq!(index.get(&key, hash), Some(Place { segment: 1, offset: 30, bytes: 5 }));
        assert_eq!(index.drop_segment(1), 1);
        assert_eq!(index.get(&key, hash), None);
    }
}
