//! From a Topic Name to the Topic Filters that match it.
//!
//! Most Topic Filters have no wildcard. They lie in one hash table under their whole text: one hash and one comparison
//! answer for all of them. The others form a tree of levels. The children of all nodes lie in one hash table under
//! (node, text of the level); a node's `+` child and the entries of the `#` below it stand in the node itself. Each
//! distinct text of a level is kept once and has a number, its *symbol*. A match does not look symbols up: it hashes
//! a level of the Topic Name once, finds children by that, and compares the text with that of the first child found.
//!
//! A match goes down level by level with the list of nodes reached so far. Each node has one parent, so it is reached
//! at most once, and whatever filters somebody thinks of, a match costs at most the number of nodes. To follow one path
//! after the other was slower where there are many: level by level, the look-ups do not wait for one another.

use crate::entries::Entries;
use crate::seed::{Hashed, Seed, shrink};
use crate::slab::Slab;
use crate::topic::has_wildcard;
use core::hash::Hash;
use core::mem;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Topic Filters, each with any number of entries, found by the Topic Names that they match.
///
/// An entry is a key and a value; a key stands at most once under each Topic Filter. For a broker the key is a Session
/// and the value its subscription options; between workers, the key is a worker.
///
/// An insertion or removal takes time in proportion to the Topic Filter's length, not to the number of its entries; a
/// match, to the number of nodes it reaches. Memory is about 60 to 120 bytes for each Topic Filter with one
/// entry, text included, and nothing stays behind when Topic Filters go.
pub struct FilterTree<K, V> {
    exact: HashTable<Hashed>,
    exact_filters: Slab<ExactFilter<K, V>>,

    nodes: Slab<Node<K, V>>,
    /// The child of a node under the text of a level: `Node::parent` and the text of `Node::symbol` are the key.
    children: HashTable<Hashed>,
    plus_nodes: usize,
    symbols: Symbols,
    /// Topic Filters in the tree. While it is zero, a match does not look at the tree.
    wildcard_filters: usize,

    entries: usize,
    seed: Seed,
    changes: u64,
    /// The nodes reached at the level at hand, and at the next. Scratch memory of a match.
    reached: Vec<u32>,
    reached_next: Vec<u32>,
}

/// What [`FilterTree::insert`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted<V> {
    /// There is a new entry.
    New {
        /// Whether it is the only one of its Topic Filter, which was not in the tree before.
        first: bool,
    },
    /// The key stood under this Topic Filter already, with this value.
    Replaced(V),
}

/// What [`FilterTree::remove`] took out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed<V> {
    /// The value of the entry.
    pub value: V,
    /// Whether it was the only one of its Topic Filter, which is no longer in the tree.
    pub last: bool,
}

struct ExactFilter<K, V> {
    filter: Box<str>,
    entries: Entries<K, V>,
}

/// One level of one or more Topic Filters.
///
/// Invariant: every node but the root leads to an entry: `here` or `below` has one, or `plus` is a node, or `children`
/// is above zero.
struct Node<K, V> {
    /// Of the Topic Filter that ends here.
    here: Entries<K, V>,
    /// Of the Topic Filter that ends here with one more level, `#`.
    below: Entries<K, V>,
    parent: u32,
    /// The text of this level, or `PLUS`.
    symbol: u32,
    /// The child for `+`, or `NONE`.
    plus: u32,
    /// The number of children in `FilterTree::children`.
    children: u32,
}

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;
const PLUS: u32 = u32::MAX;

/// A match that reached more nodes at one level than this gives its scratch memory back.
const REACHED_KEPT: usize = 4096;

impl<K, V> Node<K, V> {
    fn new(parent: u32, symbol: u32) -> Self {
        Self { here: Entries::None, below: Entries::None, parent, symbol, plus: NONE, children: 0 }
    }
}

/// Where the entries of a Topic Filter are.
#[derive(Clone, Copy)]
enum Place {
    Exact(u32),
    Here(u32),
    Below(u32),
}

impl<K: Copy + Eq + Hash, V: Copy> FilterTree<K, V> {
    /// An empty tree. `seed` keys its hashing and should be secret.
    pub fn new(seed: u64) -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new(NONE, NONE));
        debug_assert_eq!(root, ROOT);
        Self {
            exact: HashTable::new(),
            exact_filters: Slab::new(),
            nodes,
            children: HashTable::new(),
            plus_nodes: 0,
            symbols: Symbols::new(),
            wildcard_filters: 0,
            entries: 0,
            seed: Seed::new(seed),
            changes: 0,
            reached: Vec::new(),
            reached_next: Vec::new(),
        }
    }

    /// Puts an entry under a Topic Filter. The same key again has its value replaced.
    ///
    /// The Topic Filter has to be valid and without `$share/{ShareName}/`.
    pub fn insert(&mut self, filter: &str, key: K, value: V) -> Inserted<V> {
        self.changes += 1;
        let place = if has_wildcard(filter) { self.grow(filter) } else { self.grow_exact(filter) };
        let seed = &self.seed;
        let entries = entries_mut(&mut self.exact_filters, &mut self.nodes, place);
        let first = entries.is_empty();
        if let Some(old) = entries.insert(seed, key, value) {
            return Inserted::Replaced(old);
        }
        self.entries += 1;
        if first && !matches!(place, Place::Exact(_)) {
            self.wildcard_filters += 1;
        }
        Inserted::New { first }
    }

    /// Changes the value of an entry and returns the one it had; `None`, and no change, if there is no such entry.
    pub fn replace(&mut self, filter: &str, key: K, value: V) -> Option<V> {
        self.changes += 1;
        let place = self.find(filter)?;
        let entries = entries_mut(&mut self.exact_filters, &mut self.nodes, place);
        entries.value_mut(&self.seed, &key).map(|old| mem::replace(old, value))
    }

    /// The value of an entry.
    pub fn get(&self, filter: &str, key: K) -> Option<V> {
        self.entries_at(self.find(filter)?).value(&self.seed, &key)
    }

    /// Takes an entry out; `None` if there is no such entry.
    pub fn remove(&mut self, filter: &str, key: K) -> Option<Removed<V>> {
        self.changes += 1;
        let place = self.find(filter)?;
        let entries = entries_mut(&mut self.exact_filters, &mut self.nodes, place);
        let value = entries.remove(&self.seed, &key)?;
        let last = entries.is_empty();
        self.entries -= 1;
        if last {
            match place {
                Place::Exact(id) => self.prune_exact(id),
                Place::Here(node) | Place::Below(node) => {
                    self.wildcard_filters -= 1;
                    self.prune(node);
                }
            }
        }
        Some(Removed { value, last })
    }

    /// Whether the Topic Filter has an entry.
    pub fn contains_filter(&self, filter: &str) -> bool {
        !self.entries(filter).is_empty()
    }

    /// The entries of a Topic Filter, in no particular order; empty if there are none.
    pub fn entries(&self, filter: &str) -> &[(K, V)] {
        self.find(filter).map_or(&[], |place| self.entries_at(place).as_slice())
    }

    /// Grows with each call that may change what a Topic Name matches. While it stays, a match gives what it gave before.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The number of Topic Filters that have an entry.
    pub fn filters(&self) -> usize {
        self.exact.len() + self.wildcard_filters
    }

    /// The number of parts the tree consists of at present: Topic Filters without wildcard, levels of those with one, and
    /// distinct texts of levels. Zero when the tree is empty; it says what a set of Topic Filters costs.
    pub fn nodes(&self) -> usize {
        // Each node but the root is either one of the children or a `+` child.
        self.exact.len() + self.children.len() + self.plus_nodes + self.symbols.table.len()
    }

    /// Calls `visit` once for each Topic Filter that matches the Topic Name (see [`topic_matches`](crate::topic_matches)),
    /// with all of its entries, in no particular order.
    ///
    /// `&mut self` is for scratch memory only; nothing changes.
    #[inline]
    pub fn matches(&mut self, topic: &str, mut visit: impl FnMut(&[(K, V)])) {
        if !self.exact.is_empty()
            && let Some(id) = self.find_exact(topic)
        {
            visit(self.exact_filters[id].entries.as_slice());
        }
        if self.wildcard_filters != 0 {
            self.walk(topic, visit);
        }
    }

    fn walk(&mut self, topic: &str, mut visit: impl FnMut(&[(K, V)])) {
        let Self { nodes, children, symbols, seed, reached, reached_next, .. } = self;
        let text = topic.as_bytes();
        // v5 MQTT-4.7.2-1, v3.1.1 MQTT-4.7.2-1: wildcards at the first level do not see `$`.
        let mut wildcards_apply = text.first() != Some(&b'$');
        let root = &nodes[ROOT];
        if wildcards_apply && !root.below.is_empty() {
            visit(root.below.as_slice());
        }
        if root.children == 0 && root.plus == NONE {
            return;
        }
        // Not after the last match: its visitor may have panicked.
        reached.clear();
        reached.push(ROOT);
        let mut start = 0;
        while start <= text.len() {
            let level = LevelText::at(text, start);
            let level_hash = level.hash(seed, text, start);
            // `NONE` until a child has shown it. Then it stands for the text, so texts are compared once on each level.
            let mut level_symbol = NONE;
            reached_next.clear();
            for &node_id in reached.iter() {
                let node = &nodes[node_id];
                if node.children != 0 {
                    let hash = Hashed::reduce(seed.child(node_id, level_hash));
                    let child = children.find(hash, |hashed| {
                        hashed.may_be(hash) && {
                            let Node { parent, symbol, .. } = nodes[hashed.id];
                            parent == node_id
                                && if level_symbol == NONE {
                                    symbols.symbols[symbol].text.is(&level, text, start) && {
                                        level_symbol = symbol;
                                        true
                                    }
                                } else {
                                    symbol == level_symbol
                                }
                        }
                    });
                    if let Some(child) = child {
                        reached_next.push(child.id);
                    }
                }
                if wildcards_apply && node.plus != NONE {
                    reached_next.push(node.plus);
                }
            }
            mem::swap(reached, reached_next);
            if reached.is_empty() {
                break;
            }
            for &node_id in reached.iter() {
                let node = &nodes[node_id];
                if !node.below.is_empty() {
                    visit(node.below.as_slice());
                }
            }
            wildcards_apply = true;
            start = level.end + 1;
        }
        for &node_id in reached.iter() {
            let node = &nodes[node_id];
            if !node.here.is_empty() {
                visit(node.here.as_slice());
            }
        }
        if reached.capacity().max(reached_next.capacity()) > REACHED_KEPT {
            *reached = Vec::new();
            *reached_next = Vec::new();
        }
    }

    fn entries_at(&self, place: Place) -> &Entries<K, V> {
        match place {
            Place::Exact(id) => &self.exact_filters[id].entries,
            Place::Here(node) => &self.nodes[node].here,
            Place::Below(node) => &self.nodes[node].below,
        }
    }

    fn find(&self, filter: &str) -> Option<Place> {
        if !has_wildcard(filter) {
            return self.find_exact(filter).map(Place::Exact);
        }
        let mut node_id = ROOT;
        for level in filter.split('/') {
            node_id = match level {
                "#" => return Some(Place::Below(node_id)),
                "+" => Some(self.nodes[node_id].plus).filter(|&plus| plus != NONE)?,
                _ => self.child(node_id, level)?,
            };
        }
        Some(Place::Here(node_id))
    }

    #[inline]
    fn find_exact(&self, topic: &str) -> Option<u32> {
        let hash = Hashed::reduce(self.seed.text(topic.as_bytes()));
        let same = |hashed: &Hashed| hashed.may_be(hash) && *self.exact_filters[hashed.id].filter == *topic;
        self.exact.find(hash, same).map(|hashed| hashed.id)
    }

    fn child(&self, node_id: u32, level: &str) -> Option<u32> {
        let level = level.as_bytes();
        let text = LevelText::at(level, 0);
        let hash = Hashed::reduce(self.seed.child(node_id, text.hash(&self.seed, level, 0)));
        let same = |hashed: &Hashed| {
            hashed.may_be(hash) && {
                let child = &self.nodes[hashed.id];
                child.parent == node_id && self.symbols.symbols[child.symbol].text.is(&text, level, 0)
            }
        };
        self.children.find(hash, same).map(|hashed| hashed.id)
    }

    fn grow_exact(&mut self, filter: &str) -> Place {
        let full_hash = self.seed.text(filter.as_bytes());
        let hash = Hashed::reduce(full_hash);
        let exact_filters = &self.exact_filters;
        let same = |hashed: &Hashed| hashed.may_be(hash) && *exact_filters[hashed.id].filter == *filter;
        match self.exact.entry(hash, same, Hashed::hash) {
            Entry::Occupied(found) => Place::Exact(found.get().id),
            Entry::Vacant(vacant) => {
                let id = self.exact_filters.insert(ExactFilter { filter: filter.into(), entries: Entries::None });
                vacant.insert(Hashed::new(id, full_hash));
                Place::Exact(id)
            }
        }
    }

    /// The place of a Topic Filter in the tree, with all nodes on the way. The caller puts an entry there.
    fn grow(&mut self, filter: &str) -> Place {
        let mut node_id = ROOT;
        for level in filter.split('/') {
            node_id = match level {
                "#" => return Place::Below(node_id),
                "+" => match self.nodes[node_id].plus {
                    NONE => {
                        let plus = self.nodes.insert(Node::new(node_id, PLUS));
                        self.nodes[node_id].plus = plus;
                        self.plus_nodes += 1;
                        plus
                    }
                    plus => plus,
                },
                _ => self.grow_child(node_id, level),
            };
        }
        Place::Here(node_id)
    }

    fn grow_child(&mut self, node_id: u32, level: &str) -> u32 {
        if self.nodes[node_id].children != 0
            && let Some(child_id) = self.child(node_id, level)
        {
            return child_id;
        }
        let (symbol, level_hash) = self.symbols.hold(&self.seed, level.as_bytes());
        let child_id = self.nodes.insert(Node::new(node_id, symbol));
        let hashed = Hashed::new(child_id, self.seed.child(node_id, level_hash));
        self.children.insert_unique(hashed.hash(), hashed, Hashed::hash);
        self.nodes[node_id].children += 1;
        child_id
    }

    fn prune_exact(&mut self, id: u32) {
        let ExactFilter { filter, .. } = self.exact_filters.remove(id);
        let hash = Hashed::reduce(self.seed.text(filter.as_bytes()));
        if let Ok(found) = self.exact.find_entry(hash, |hashed| hashed.id == id) {
            found.remove();
        }
        shrink(&mut self.exact, Hashed::hash);
    }

    /// Takes out the node and those above it, as far as they lead nowhere any more.
    fn prune(&mut self, mut node_id: u32) {
        while node_id != ROOT {
            let node = &self.nodes[node_id];
            if !node.here.is_empty() || !node.below.is_empty() || node.plus != NONE || node.children != 0 {
                return;
            }
            let (parent, symbol) = (node.parent, node.symbol);
            if symbol == PLUS {
                self.nodes[parent].plus = NONE;
                self.plus_nodes -= 1;
            } else {
                let hash = self.seed.child(parent, self.symbols.symbols[symbol].text.hash(&self.seed));
                if let Ok(found) = self.children.find_entry(Hashed::reduce(hash), |hashed| hashed.id == node_id) {
                    found.remove();
                }
                shrink(&mut self.children, Hashed::hash);
                self.nodes[parent].children -= 1;
                self.symbols.release(&self.seed, symbol);
            }
            self.nodes.remove(node_id);
            node_id = parent;
        }
    }
}

fn entries_mut<'a, K, V>(
    exact_filters: &'a mut Slab<ExactFilter<K, V>>,
    nodes: &'a mut Slab<Node<K, V>>,
    place: Place,
) -> &'a mut Entries<K, V> {
    match place {
        Place::Exact(id) => &mut exact_filters[id].entries,
        Place::Here(node) => &mut nodes[node].here,
        Place::Below(node) => &mut nodes[node].below,
    }
}

/// Where a level ends, and its text if that is short.
#[derive(Clone, Copy)]
struct LevelText {
    /// The byte behind it: a `/` or the end of the whole text.
    end: usize,
    /// The text of a short level, filled up with zeros, which no Topic Name contains (v5 MQTT-4.7.3-2, v3.1.1
    /// MQTT-4.7.3-2). `LONG` for others.
    words: [u64; 2],
}

const WORD: usize = size_of::<u64>();
/// The longest short level, in bytes. To hash and compare those takes a few instructions, and they need no memory of their
/// own; nearly all are.
const SHORT: usize = 2 * WORD;
/// Not UTF-8, so it is no short level.
const LONG: [u64; 2] = [u64::MAX; 2];

impl LevelText {
    /// The level that starts at this byte.
    // Always: as a call, with its result passed in memory, it adds an eighth to the instructions of a match.
    #[inline(always)]
    fn at(text: &[u8], start: usize) -> Self {
        let first = word_at(text, start);
        let slash = first_slash(first);
        if slash != 0 {
            return Self { end: start + slash.trailing_zeros() as usize / 8, words: [first & below(slash), 0] };
        }
        if start + WORD >= text.len() {
            return Self { end: text.len(), words: [first, 0] };
        }
        let second = word_at(text, start + WORD);
        let slash = first_slash(second);
        if slash != 0 {
            let end = start + WORD + slash.trailing_zeros() as usize / 8;
            return Self { end, words: [first, second & below(slash)] };
        }
        if start + SHORT >= text.len() {
            return Self { end: text.len(), words: [first, second] };
        }
        let mut end = start + SHORT;
        while end < text.len() {
            let slash = first_slash(word_at(text, end));
            if slash != 0 {
                end += slash.trailing_zeros() as usize / 8;
                // At the first byte, the level is short after all.
                let words = if end == start + SHORT { [first, second] } else { LONG };
                return Self { end, words };
            }
            end += WORD;
        }
        Self { end: text.len(), words: LONG }
    }

    /// `text` and `start` are those that this was made from.
    #[inline]
    fn hash(&self, seed: &Seed, text: &[u8], start: usize) -> u64 {
        if self.words == LONG { seed.text(&text[start..self.end]) } else { seed.words(self.words) }
    }
}

/// Eight bytes, zero past the end of the text; the first in the lowest bits.
#[inline]
fn word_at(text: &[u8], at: usize) -> u64 {
    if let Some(rest) = text.get(at..)
        && let Some(word) = rest.first_chunk::<WORD>()
    {
        return u64::from_le_bytes(*word);
    }
    let left = text.len() - at;
    match text.last_chunk::<WORD>() {
        _ if left == 0 => 0,
        Some(word) => u64::from_le_bytes(*word) >> (8 * (WORD - left)),
        None => text[at..].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// A word of which the lowest bit set is the highest of the first byte that is `/`; zero if none is.
#[inline]
fn first_slash(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let zero_if_slash = word ^ (ONES * b'/' as u64);
    zero_if_slash.wrapping_sub(ONES) & !zero_if_slash & (ONES << 7)
}

/// A mask of the bytes before the one whose highest bit is the lowest bit set.
#[inline]
fn below(slash: u64) -> u64 {
    ((slash & slash.wrapping_neg()) >> 7) - 1
}

/// The distinct texts of levels.
struct Symbols {
    table: HashTable<Hashed>,
    symbols: Slab<Symbol>,
}

struct Symbol {
    text: Text,
    /// The number of nodes with this text.
    uses: u32,
}

enum Text {
    Short([u64; 2]),
    Long(Box<[u8]>),
}

impl Text {
    #[inline]
    fn is(&self, level: &LevelText, text: &[u8], start: usize) -> bool {
        match self {
            Self::Short(words) => *words == level.words,
            Self::Long(bytes) => **bytes == text[start..level.end],
        }
    }

    fn hash(&self, seed: &Seed) -> u64 {
        match self {
            Self::Short(words) => seed.words(*words),
            Self::Long(bytes) => seed.text(bytes),
        }
    }
}

impl Symbols {
    fn new() -> Self {
        Self { table: HashTable::new(), symbols: Slab::new() }
    }

    /// Finds the symbol or makes it, and counts one more use. Returns it with the hash of its text.
    fn hold(&mut self, seed: &Seed, level: &[u8]) -> (u32, u64) {
        let text = LevelText::at(level, 0);
        let full_hash = text.hash(seed, level, 0);
        let hash = Hashed::reduce(full_hash);
        let symbols = &self.symbols;
        let same = |hashed: &Hashed| hashed.may_be(hash) && symbols[hashed.id].text.is(&text, level, 0);
        let id = match self.table.entry(hash, same, Hashed::hash) {
            Entry::Occupied(found) => found.get().id,
            Entry::Vacant(vacant) => {
                let text = if text.words == LONG { Text::Long(level.into()) } else { Text::Short(text.words) };
                let id = self.symbols.insert(Symbol { text, uses: 0 });
                vacant.insert(Hashed::new(id, full_hash));
                id
            }
        };
        self.symbols[id].uses += 1;
        (id, full_hash)
    }

    /// Gives one use back, and the symbol with the last.
    fn release(&mut self, seed: &Seed, id: u32) {
        let symbol = &mut self.symbols[id];
        symbol.uses -= 1;
        if symbol.uses == 0 {
            let hash = Hashed::reduce(symbol.text.hash(seed));
            if let Ok(found) = self.table.find_entry(hash, |hashed| hashed.id == id) {
                found.remove();
            }
            self.symbols.remove(id);
            shrink(&mut self.table, Hashed::hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nodes_are_small() {
        assert_eq!(size_of::<Option<Node<u32, (u32, u32)>>>(), 48);
        assert_eq!(size_of::<Option<Symbol>>(), 32);
    }

    proptest! {
        #[test]
        fn levels_end_at_slashes_and_short_ones_are_kept_in_words(text in "[/.0a\\u{af}é]{0,40}", start in 0..41usize) {
            let bytes = text.as_bytes();
            let start = start.min(bytes.len());
            let expected = bytes[start..].split(|&byte| byte == b'/').next().unwrap_or_default();
            let level = LevelText::at(bytes, start);
            prop_assert_eq!(&bytes[start..level.end], expected);
            if expected.len() <= SHORT {
                let words: Vec<u8> = level.words.into_iter().flat_map(u64::to_le_bytes).collect();
                let (text, fill) = words.split_at(expected.len());
                prop_assert_eq!(text, expected);
                prop_assert!(fill.iter().all(|&byte| byte == 0));
            } else {
                prop_assert_eq!(level.words, LONG);
            }
        }
    }
}
