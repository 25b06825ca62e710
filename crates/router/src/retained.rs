//! From a Topic Filter to the Topic Names that match it.
//!
//! Topic Names lie in one hash table, which answers for Topic Filters without wildcard, and beside it in one sorted list.
//! The order is by levels: `/` counts as less than any character, so everything below a Topic Name follows it directly,
//! and whatever a Topic Filter does not want can be jumped over. A scan needs no state but the text it has come to; a
//! Topic Name's place depends on nothing but itself, so a scan survives any change between two of its steps.
//!
//! A tree of levels was the alternative. It needs a node with an ordered set of children for every level, several times
//! the memory, and pruning; and a cursor in it would have to find its way back down after each pause.

use crate::seed::{Hashed, Seed, shrink};
use crate::slab::Slab;
use crate::topic::has_wildcard;
use core::cmp::Ordering;
use core::mem;
use core::ops::ControlFlow;
use hashbrown::HashTable;

/// Topic Names, each with one value, found by the Topic Filters that match them.
///
/// For a broker the values are Retained Messages. Memory is about 60 bytes for each Topic Name beside its text and the
/// value, and nothing stays behind when it goes. A look-up by Topic Name takes one hash; a change of the set of Topic Names
/// takes a binary search besides.
///
/// ```
/// use core::ops::ControlFlow;
/// use pantala_router::{Cursor, RetainedIndex, Scan};
///
/// let mut index = RetainedIndex::new(0x5eed);
/// index.insert("site/1/temperature", 17);
/// index.insert("site/2/temperature", 21);
/// index.insert("site/2/humidity", 60);
///
/// let (mut cursor, mut found) = (Cursor::new(), Vec::new());
/// while index.scan("site/+/temperature", &mut cursor, 2, |_topic, value| {
///     found.push(*value);
///     ControlFlow::Continue(())
/// }) == Scan::More
/// {
///     // Time for other work; the index may change meanwhile.
/// }
/// assert_eq!(found, [17, 21]);
/// ```
pub struct RetainedIndex<V> {
    table: HashTable<Hashed>,
    topics: Slab<Topic<V>>,
    order: Order,
    seed: Seed,
}

struct Topic<V> {
    name: Box<str>,
    value: V,
}

/// Where a scan stands: it is made once for each Topic Filter and given to every call of [`RetainedIndex::scan`].
///
/// It owns what it needs, at most one text of a Topic Name's length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(Position);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Position {
    #[default]
    Start,
    /// The next Topic Name to look at is the first one after this text.
    After(String),
    /// The next Topic Name to look at is this text or the first one after it.
    From(String),
    End,
}

impl Cursor {
    /// A scan that has not begun.
    pub const fn new() -> Self {
        Self(Position::Start)
    }

    /// Whether the scan has come to its end. Calls with this cursor then visit nothing.
    pub fn is_done(&self) -> bool {
        self.0 == Position::End
    }
}

/// Whether a scan has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Everything that matches has been visited.
    Done,
    /// The budget is used up or the visitor wanted a pause. Call again with the same cursor.
    More,
}

impl<V> RetainedIndex<V> {
    /// An empty index. `seed` keys its hashing and should be secret.
    pub fn new(seed: u64) -> Self {
        Self { table: HashTable::new(), topics: Slab::new(), order: Order::new(), seed: Seed::new(seed) }
    }

    /// Sets the value of a Topic Name and returns the one it had.
    pub fn insert(&mut self, topic: &str, value: V) -> Option<V> {
        let full_hash = self.seed.text(topic.as_bytes());
        let hash = Hashed::reduce(full_hash);
        if let Some(id) = self.find(hash, topic) {
            return Some(mem::replace(&mut self.topics[id].value, value));
        }
        let id = self.topics.insert(Topic { name: topic.into(), value });
        self.order.insert(id, &self.topics);
        self.table.insert_unique(hash, Hashed::new(id, full_hash), Hashed::hash);
        None
    }

    /// Sets the values of many Topic Names, as [`insert`](Self::insert) does for each in turn. For an empty index
    /// that is less work: the Topic Names are sorted once, where each would have to be searched for.
    pub fn insert_all(&mut self, entries: impl IntoIterator<Item = (impl Into<Box<str>>, V)>) {
        let entries = entries.into_iter();
        if !self.is_empty() {
            entries.for_each(|(topic, value)| drop(self.insert(&topic.into(), value)));
            return;
        }
        self.table.reserve(entries.size_hint().0, Hashed::hash);
        let mut ids = Vec::with_capacity(entries.size_hint().0);
        for (topic, value) in entries {
            let name = topic.into();
            let full_hash = self.seed.text(name.as_bytes());
            let hash = Hashed::reduce(full_hash);
            match self.find(hash, &name) {
                Some(id) => self.topics[id].value = value,
                None => {
                    let id = self.topics.insert(Topic { name, value });
                    self.table.insert_unique(hash, Hashed::new(id, full_hash), Hashed::hash);
                    ids.push(id);
                }
            }
        }
        self.order = Order::of_all(&ids, &self.topics);
    }

    /// Takes a Topic Name out and returns its value, or `None` if it was not there.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        let hash = Hashed::reduce(self.seed.text(topic.as_bytes()));
        let same = |hashed: &Hashed| hashed.may_be(hash) && *self.topics[hashed.id].name == *topic;
        let (Hashed { id, .. }, _) = self.table.find_entry(hash, same).ok()?.remove();
        shrink(&mut self.table, Hashed::hash);
        self.order.remove(id, &self.topics);
        Some(self.topics.remove(id).value)
    }

    /// The value of a Topic Name.
    pub fn get(&self, topic: &str) -> Option<&V> {
        let id = self.find(Hashed::reduce(self.seed.text(topic.as_bytes())), topic)?;
        Some(&self.topics[id].value)
    }

    /// The value of a Topic Name, to be changed in place.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut V> {
        let id = self.find(Hashed::reduce(self.seed.text(topic.as_bytes())), topic)?;
        Some(&mut self.topics[id].value)
    }

    /// The number of Topic Names.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no Topic Name.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Calls `visit` for Topic Names that match the Topic Filter, from where `cursor` stands, and moves the cursor on.
    ///
    /// It looks at no more than `budget` Topic Names, matching or not, and at least at one; looking at one takes well
    /// below a microsecond, or a few if it has to be found by a jump. When `visit` breaks, the call returns
    /// after that Topic Name, which counts as visited.
    ///
    /// Between two calls the index may change at will. Topic Names that are present from the first call to the last are
    /// visited exactly once, with the value they have at that moment; others, at most once. The order is fixed.
    ///
    /// The Topic Filter has to be the same in all calls with one cursor; it has to be valid and without
    /// `$share/{ShareName}/`.
    pub fn scan(
        &self,
        filter: &str,
        cursor: &mut Cursor,
        budget: usize,
        mut visit: impl FnMut(&str, &V) -> ControlFlow<()>,
    ) -> Scan {
        if !has_wildcard(filter) {
            if !cursor.is_done()
                && let Some(value) = self.get(filter)
            {
                // Nothing is left to break off.
                let _ = visit(filter, value);
            }
            cursor.0 = Position::End;
            return Scan::Done;
        }
        // The text of the last jump, kept for its memory.
        let (mut jump, bound) = match mem::replace(&mut cursor.0, Position::End) {
            Position::Start => (literal_levels(filter).to_owned(), Bound::From),
            Position::From(text) => (text, Bound::From),
            Position::After(text) => (text, Bound::After),
            Position::End => return Scan::Done,
        };
        let mut place = self.order.seek(&jump, bound, &self.topics);
        let mut left = budget.max(1);
        while let Some(id) = self.order.get(place) {
            let Topic { name, value } = &self.topics[id];
            left -= 1;
            match look_at(filter, name) {
                Look::Match => {
                    if visit(name, value).is_break() || left == 0 {
                        cursor.0 = Position::After(name.as_ref().to_owned());
                        return Scan::More;
                    }
                    place = self.order.next(place);
                }
                Look::Jump { keep, then } => {
                    jump.clear();
                    jump.push_str(&name[..keep]);
                    match then {
                        Then::PastBelow => jump.push_str(PAST_BELOW),
                        Then::PastDollar => jump.push_str(PAST_DOLLAR),
                        Then::Levels(levels) => jump.push_str(levels),
                        Then::Below(levels) => {
                            jump.push('/');
                            jump.push_str(levels);
                        }
                    }
                    debug_assert_eq!(by_levels(name.as_bytes(), jump.as_bytes()), Ordering::Less);
                    if left == 0 {
                        cursor.0 = Position::From(jump);
                        return Scan::More;
                    }
                    place = self.order.seek_on(place, &jump, &self.topics);
                }
                Look::End => return Scan::Done,
            }
        }
        Scan::Done
    }

    #[inline]
    fn find(&self, hash: u64, topic: &str) -> Option<u32> {
        let same = |hashed: &Hashed| hashed.may_be(hash) && *self.topics[hashed.id].name == *topic;
        self.table.find(hash, same).map(|hashed| hashed.id)
    }
}

/// After a Topic Name, this leads past everything below it: U+0001 is the least character a Topic Name can have, as U+0000
/// is forbidden (v5 MQTT-4.7.3-2, v3.1.1 MQTT-4.7.3-2), and `/` counts as less.
const PAST_BELOW: &str = "\u{1}";
/// The least text after all that begin with `$`.
const PAST_DOLLAR: &str = "%";

/// What a scan does about a Topic Name.
#[derive(Debug, PartialEq, Eq)]
enum Look<'f> {
    Match,
    /// Go on at the first `keep` bytes of the Topic Name, followed by `then`, which is further on. Nothing in between
    /// matches.
    Jump {
        keep: usize,
        then: Then<'f>,
    },
    /// Nothing from here on matches.
    End,
}

#[derive(Debug, PartialEq, Eq)]
enum Then<'f> {
    PastBelow,
    PastDollar,
    /// These levels of the Topic Filter.
    Levels(&'f str),
    /// `/` and these levels of the Topic Filter.
    Below(&'f str),
}

/// Compares a Topic Name with a Topic Filter that has a wildcard.
fn look_at<'f>(filter: &'f str, topic: &str) -> Look<'f> {
    // v5 MQTT-4.7.2-1, v3.1.1 MQTT-4.7.2-1.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return Look::Jump { keep: 0, then: Then::PastDollar };
    }
    // Where the levels at hand begin.
    let (mut filter_at, mut topic_at) = (0, 0);
    // The end of the last level that stands under a `+`: the first place to look for something greater.
    let mut plus_end = None;
    loop {
        let wanted = level(filter, filter_at);
        if wanted == "#" {
            return Look::Match;
        }
        let found = level(topic, topic_at);
        let topic_end = topic_at + found.len();
        if wanted == "+" {
            plus_end = Some(topic_end);
        } else {
            match found.as_bytes().cmp(wanted.as_bytes()) {
                Ordering::Less => {
                    return Look::Jump { keep: topic_at, then: Then::Levels(literal_levels(&filter[filter_at..])) };
                }
                Ordering::Equal => {}
                Ordering::Greater => {
                    return plus_end.map_or(Look::End, |keep| Look::Jump { keep, then: Then::PastBelow });
                }
            }
        }
        filter_at += wanted.len() + 1;
        topic_at = topic_end + 1;
        match (filter_at <= filter.len(), topic_at <= topic.len()) {
            (true, true) => {}
            (false, false) => return Look::Match,
            (false, true) => return Look::Jump { keep: topic_end, then: Then::PastBelow },
            (true, false) if &filter[filter_at..] == "#" => return Look::Match,
            (true, false) => {
                return Look::Jump { keep: topic_end, then: Then::Below(literal_levels(&filter[filter_at..])) };
            }
        }
    }
}

/// The level that begins at this byte.
#[inline]
fn level(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    match rest.bytes().position(|byte| byte == b'/') {
        Some(end) => &rest[..end],
        None => rest,
    }
}

/// The levels before the first wildcard, without the `/` after them.
fn literal_levels(filter: &str) -> &str {
    match filter.bytes().position(|byte| byte == b'+' || byte == b'#') {
        Some(wildcard) => &filter[..wildcard.saturating_sub(1)],
        None => filter,
    }
}

/// The order of Topic Names: by characters, with `/` before all others.
fn by_levels(a: &[u8], b: &[u8]) -> Ordering {
    const WORD: usize = size_of::<u64>();
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + WORD).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let common = a.len().min(b.len());
    let mut at = 0;
    while at + WORD <= common {
        let difference = word(a, at) ^ word(b, at);
        if difference != 0 {
            at += difference.trailing_zeros() as usize / 8;
            break;
        }
        at += WORD;
    }
    while at < common && a[at] == b[at] {
        at += 1;
    }
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.get(at).map(rank).cmp(&b.get(at).map(rank))
}

/// The first bytes of a text as a number: of two that differ, the lower one is that of the text before the other, as
/// [`by_levels`] has it.
fn beginning(text: &[u8]) -> u128 {
    let mut bytes = [0; size_of::<u128>()];
    for (byte, from) in bytes.iter_mut().zip(text) {
        *byte = if *from == b'/' { 0 } else { *from };
    }
    u128::from_be_bytes(bytes)
}

/// Numbers of Topic Names in the order of the names, in chunks.
///
/// Invariant: a chunk holds the names that are not before its `from`, and before the `from` of the next; the first `from` is
/// empty. No chunk is empty or longer than `CHUNK_MAX`, and of two neighbours at least one is longer than a quarter of
/// that, so chunks are well filled and few.
struct Order {
    chunks: Vec<Chunk>,
}

struct Chunk {
    /// A text of its own, not that of the first name: a search goes through these alone before it looks at any name, and
    /// they stay as they are when names come and go.
    from: Box<[u8]>,
    ids: Vec<u32>,
}

/// A change moves up to this many numbers in one chunk; a split, 40 bytes for each chunk behind it.
const CHUNK_MAX: usize = if cfg!(test) { 8 } else { 256 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    chunk: usize,
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    From,
    After,
}

impl Order {
    const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    #[inline]
    fn get(&self, place: Place) -> Option<u32> {
        self.chunks.get(place.chunk)?.ids.get(place.index).copied()
    }

    #[inline]
    fn next(&self, place: Place) -> Place {
        if place.index + 1 < self.chunks[place.chunk].ids.len() {
            Place { index: place.index + 1, ..place }
        } else {
            Place { chunk: place.chunk + 1, index: 0 }
        }
    }

    /// The first place whose name is not before `text`, or behind it for `Bound::After`; it may be one past the end.
    fn seek<V>(&self, text: &str, bound: Bound, topics: &Slab<Topic<V>>) -> Place {
        let place = self.place_in_chunk(text, bound, topics);
        match self.chunks.get(place.chunk) {
            Some(chunk) if place.index == chunk.ids.len() => Place { chunk: place.chunk + 1, index: 0 },
            _ => place,
        }
    }

    /// The same for a text that is behind the name at `start`, and probably not far.
    fn seek_on<V>(&self, start: Place, text: &str, topics: &Slab<Topic<V>>) -> Place {
        let text = text.as_bytes();
        let Place { mut chunk, mut index } = start;
        let later = near_partition_point(&self.chunks[chunk + 1..], |chunk| by_levels(&chunk.from, text).is_le());
        if later > 0 {
            (chunk, index) = (chunk + later, 0);
        }
        let ids = &self.chunks[chunk].ids;
        index += near_partition_point(&ids[index..], |&id| by_levels(topics[id].name.as_bytes(), text).is_lt());
        if index == ids.len() { Place { chunk: chunk + 1, index: 0 } } else { Place { chunk, index } }
    }

    /// As `seek`, but the place is in the chunk that the text belongs to, possibly at its end: where it is to be inserted.
    fn place_in_chunk<V>(&self, text: &str, bound: Bound, topics: &Slab<Topic<V>>) -> Place {
        let text = text.as_bytes();
        let later = self.chunks.get(1..).unwrap_or(&[]);
        let chunk = later.partition_point(|chunk| by_levels(&chunk.from, text).is_le());
        let ids = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk.ids);
        let index = ids.partition_point(|&id| match by_levels(topics[id].name.as_bytes(), text) {
            Ordering::Less => true,
            Ordering::Equal => bound == Bound::After,
            Ordering::Greater => false,
        });
        Place { chunk, index }
    }

    /// With these Topic Names, each of which comes once.
    fn of_all<V>(ids: &[u32], topics: &Slab<Topic<V>>) -> Self {
        let name = |id: u32| topics[id].name.as_bytes();
        // Behind what all begin with, the first bytes decide nearly always, and stand beside the number.
        let first = ids.first().map_or(&b""[..], |id| name(*id));
        let common = ids.iter().fold(first.len(), |common, &id| {
            let (a, b) = (&first[..common], name(id));
            a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()))
        });
        let mut sorted: Vec<(u128, u32)> = ids.iter().map(|&id| (beginning(&name(id)[common..]), id)).collect();
        sorted.sort_unstable_by(|(a, a_id), (b, b_id)| a.cmp(b).then_with(|| by_levels(name(*a_id), name(*b_id))));
        let mut from = Box::default();
        let mut chunks = Vec::with_capacity(sorted.len().div_ceil(CHUNK_MAX));
        for some in sorted.chunks(CHUNK_MAX) {
            if !chunks.is_empty() {
                from = name(some[0].1).into();
            }
            chunks.push(Chunk { from: mem::take(&mut from), ids: some.iter().map(|(_, id)| *id).collect() });
        }
        Self { chunks }
    }

    /// Puts a Topic Name in its place.
    fn insert<V>(&mut self, id: u32, topics: &Slab<Topic<V>>) {
        let name = &topics[id].name;
        let Place { chunk, index } = self.place_in_chunk(name, Bound::From, topics);
        let Some(Chunk { ids, .. }) = self.chunks.get_mut(chunk) else {
            self.chunks.push(Chunk { from: Box::default(), ids: vec![id] });
            return;
        };
        if ids.len() < CHUNK_MAX {
            ids.insert(index, id);
            return;
        }
        let upper = if index == CHUNK_MAX {
            // Names that come in order fill their chunks wholly.
            vec![id]
        } else {
            const HALF: usize = CHUNK_MAX / 2;
            let mut upper = Vec::with_capacity(CHUNK_MAX);
            upper.extend_from_slice(&ids[HALF..]);
            ids.truncate(HALF);
            match index.checked_sub(HALF) {
                // At the border it goes below, as it is before the name that `upper` begins with.
                None | Some(0) => ids.insert(index, id),
                Some(index) => upper.insert(index, id),
            }
            upper
        };
        let from = topics[upper[0]].name.as_bytes().into();
        self.chunks.insert(chunk + 1, Chunk { from, ids: upper });
        self.merge(chunk + 1);
    }

    /// Takes a Topic Name from its place.
    fn remove<V>(&mut self, id: u32, topics: &Slab<Topic<V>>) {
        let place = self.place_in_chunk(&topics[id].name, Bound::From, topics);
        debug_assert_eq!(self.get(place), Some(id));
        let ids = &mut self.chunks[place.chunk].ids;
        ids.remove(place.index);
        if ids.len() <= CHUNK_MAX / 4 {
            self.merge(place.chunk);
            if place.chunk > 0 {
                self.merge(place.chunk - 1);
            }
        }
    }

    /// Joins a chunk with the next if both are short, and takes it out if it is the last and empty.
    fn merge(&mut self, chunk: usize) {
        let Some(ids) = self.chunks.get(chunk).map(|chunk| &chunk.ids) else { return };
        if let Some(next) = self.chunks.get(chunk + 1).map(|chunk| &chunk.ids) {
            if ids.is_empty() || (ids.len() <= CHUNK_MAX / 4 && next.len() <= CHUNK_MAX / 4) {
                let mut next = self.chunks.remove(chunk + 1).ids;
                self.chunks[chunk].ids.append(&mut next);
            }
        } else if ids.is_empty() {
            self.chunks.pop();
        }
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }
}

/// `partition_point` for an answer that is likely to be near the start.
fn near_partition_point<T>(slice: &[T], mut before: impl FnMut(&T) -> bool) -> usize {
    let (mut known, mut step) = (0, 1);
    while let Some(item) = slice.get(known + step - 1) {
        if !before(item) {
            return known + slice[known..known + step - 1].partition_point(before);
        }
        known += step;
        step *= 2;
    }
    known + slice[known..].partition_point(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic_matches;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    impl<V> RetainedIndex<V> {
        fn check(&self) {
            let chunks = &self.order.chunks;
            let names = || chunks.iter().flat_map(|chunk| &chunk.ids).map(|&id| self.topics[id].name.as_bytes());
            assert_eq!(names().count(), self.len());
            assert!(names().zip(names().skip(1)).all(|(a, b)| by_levels(a, b).is_lt()));
            assert!(chunks.first().is_none_or(|first| first.from.is_empty()));
            for (at, chunk) in chunks.iter().enumerate() {
                assert!((1..=CHUNK_MAX).contains(&chunk.ids.len()));
                let belongs = |id: u32| by_levels(self.topics[id].name.as_bytes(), &chunk.from).is_ge();
                assert!(chunk.ids.iter().copied().all(belongs));
                if let Some(next) = chunks.get(at + 1) {
                    let last = self.topics[*chunk.ids.last().expect("not empty")].name.as_bytes();
                    assert!(by_levels(last, &next.from).is_lt());
                    assert!(chunk.ids.len().max(next.ids.len()) > CHUNK_MAX / 4);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// With chunks as short as they are in this build, a few hundred names split and join many of them.
        #[test]
        fn the_order_holds_through_any_change(
            seed in any::<u64>(),
            operations in proptest::collection::vec((prop::bool::weighted(0.6), 0..24u8, 0..24u8), 0..600),
            filters in proptest::collection::vec((0..5u8, 0..24u8), 4),
        ) {
            let mut index = RetainedIndex::new(seed);
            let mut model = BTreeMap::new();
            for (turn, (insert, a, b)) in operations.into_iter().enumerate() {
                let topic = format!("{a}/{b}");
                if insert {
                    prop_assert_eq!(index.insert(&topic, turn), model.insert(topic, turn));
                } else {
                    prop_assert_eq!(index.remove(&topic), model.remove(&topic));
                }
                index.check();
            }
            for (kind, level) in filters {
                let filter = match kind {
                    0 => "#".to_owned(),
                    1 => format!("{level}/#"),
                    2 => format!("{level}/+"),
                    3 => format!("+/{level}"),
                    _ => "+/+/#".to_owned(),
                };
                for budget in [1, 3, usize::MAX] {
                    let (mut cursor, mut found) = (Cursor::new(), BTreeSet::new());
                    while index.scan(&filter, &mut cursor, budget, |topic, _| {
                        assert!(found.insert(topic.to_owned()));
                        ControlFlow::Continue(())
                    }) == Scan::More {}
                    let expected: BTreeSet<_> = model.keys().filter(|topic| topic_matches(&filter, topic)).cloned().collect();
                    prop_assert_eq!(found, expected);
                }
            }
            for topic in model.keys() {
                prop_assert!(index.remove(topic).is_some());
                index.check();
            }
            prop_assert!(index.order.chunks.is_empty());
            prop_assert_eq!(index.topics.slots(), 0);
        }

        /// What comes all at once is where it would be had it come one by one, and can be changed like that.
        #[test]
        fn many_at_once_are_each_in_its_place(
            prefix in "[/a]{0,18}",
            names in proptest::collection::vec("[/ab\u{1}é]{1,20}", 0..200),
            further in proptest::collection::vec("[/ab\u{1}é]{1,20}", 0..50),
        ) {
            let mut index = RetainedIndex::new(7);
            let mut model = BTreeMap::new();
            for names in [names, further] {
                let entries: Vec<_> =
                    names.iter().enumerate().map(|(number, name)| (format!("{prefix}{name}"), number)).collect();
                model.extend(entries.iter().cloned());
                index.insert_all(entries);
                index.check();
                prop_assert_eq!(index.len(), model.len());
                for (topic, number) in &model {
                    prop_assert_eq!(index.get(topic), Some(number));
                }
            }
            for topic in model.keys() {
                prop_assert!(index.remove(topic).is_some());
                index.check();
            }
        }

        #[test]
        fn the_order_is_that_of_lists_of_levels(
            a in "[/ab\u{1}é$]{0,30}",
            b in "[/ab\u{1}é$]{0,30}",
            common in "[/a]{0,20}",
        ) {
            for (a, b) in [(a.clone(), b.clone()), (common.clone() + &a, common + &b)] {
                let levels = |text: &str| text.split('/').map(|level| level.as_bytes().to_vec()).collect::<Vec<_>>();
                let expected = levels(&a).cmp(&levels(&b));
                prop_assert_eq!(by_levels(a.as_bytes(), b.as_bytes()), expected, "{:?} {:?}", a, b);
            }
        }
    }
}
