//! The entries of one Topic Filter or of one group, found by key.

use crate::seed::{Seed, shrink};
use core::hash::Hash;
use core::mem;
use hashbrown::HashTable;

/// Lists longer than this get a hash index. Below it, looking at every key is faster and costs no memory.
const INDEX_ABOVE: usize = 32;
/// Lists shorter than this lose their index again. Well below the other bound, so that a list that swings around it
/// does not build and drop an index each time.
const NO_INDEX_BELOW: usize = 16;

/// An unordered list of pairs with distinct keys: contiguous for the reader, O(1) for the one who changes it.
///
/// Invariant: the index, if there is one, holds exactly the positions `0..entries.len()`, each under the hash of its
/// key.
pub(crate) struct KeyedList<K, V> {
    entries: Vec<(K, V)>,
    index: Option<HashTable<u32>>,
}

impl<K: Copy + Eq + Hash, V: Copy> KeyedList<K, V> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), index: None }
    }

    pub(crate) fn as_slice(&self) -> &[(K, V)] {
        &self.entries
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn position(&self, seed: &Seed, key: &K) -> Option<usize> {
        match &self.index {
            None => self.entries.iter().position(|(other, _)| other == key),
            Some(index) => index
                .find(seed.key(key), |&position| self.entries[position as usize].0 == *key)
                .map(|&position| position as usize),
        }
    }

    pub(crate) fn value_mut(&mut self, position: usize) -> &mut V {
        &mut self.entries[position].1
    }

    /// Adds a key that is not in the list.
    pub(crate) fn push(&mut self, seed: &Seed, key: K, value: V) {
        let position = self.entries.len();
        self.entries.push((key, value));
        let entries = &self.entries;
        let hasher = |&position: &u32| seed.key(&entries[position as usize].0);
        match &mut self.index {
            Some(index) => {
                index.insert_unique(seed.key(&key), narrow(position), hasher);
            }
            None if entries.len() > INDEX_ABOVE => {
                let mut index = HashTable::with_capacity(entries.len());
                for (position, (key, _)) in entries.iter().enumerate() {
                    index.insert_unique(seed.key(key), narrow(position), hasher);
                }
                self.index = Some(index);
            }
            None => {}
        }
    }

    /// Takes out one entry; the last one moves into its place.
    pub(crate) fn swap_remove(&mut self, seed: &Seed, position: usize) -> (K, V) {
        let last = self.entries.len() - 1;
        if let Some(index) = &mut self.index {
            let hash = seed.key(&self.entries[position].0);
            if let Ok(found) = index.find_entry(hash, |&other| other == narrow(position)) {
                found.remove();
            }
            if position != last
                && let Some(moved) = index.find_mut(seed.key(&self.entries[last].0), |&other| other == narrow(last))
            {
                *moved = narrow(position);
            }
        }
        let removed = self.entries.swap_remove(position);
        if self.entries.len() < NO_INDEX_BELOW {
            self.index = None;
        }
        let entries = &self.entries;
        if let Some(index) = &mut self.index {
            shrink(index, |&position| seed.key(&entries[position as usize].0));
        }
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        removed
    }

    /// Exchanges the places of two entries.
    pub(crate) fn swap(&mut self, seed: &Seed, a: usize, b: usize) {
        if a == b {
            return;
        }
        if let Some(index) = &mut self.index {
            // By way of a position that does not exist, so that neither is taken for the other.
            const NOWHERE: u32 = u32::MAX;
            let (hash_a, hash_b) = (seed.key(&self.entries[a].0), seed.key(&self.entries[b].0));
            for (hash, from, to) in
                [(hash_a, narrow(a), NOWHERE), (hash_b, narrow(b), narrow(a)), (hash_a, NOWHERE, narrow(b))]
            {
                if let Some(found) = index.find_mut(hash, |&position| position == from) {
                    *found = to;
                }
            }
        }
        self.entries.swap(a, b);
    }
}

fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("a list of four billion entries does not fit into memory")
}

/// The entries of one Topic Filter. Most have one, and that one needs no memory of its own.
pub(crate) enum Entries<K, V> {
    None,
    One((K, V)),
    Many(Box<KeyedList<K, V>>),
}

impl<K: Copy + Eq + Hash, V: Copy> Entries<K, V> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[(K, V)] {
        match self {
            Self::None => &[],
            Self::One(entry) => core::slice::from_ref(entry),
            Self::Many(list) => list.as_slice(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(crate) fn value(&self, seed: &Seed, key: &K) -> Option<V> {
        match self {
            Self::None => None,
            Self::One((other, value)) => (other == key).then_some(*value),
            Self::Many(list) => list.position(seed, key).map(|position| list.as_slice()[position].1),
        }
    }

    pub(crate) fn value_mut(&mut self, seed: &Seed, key: &K) -> Option<&mut V> {
        match self {
            Self::None => None,
            Self::One((other, value)) => (other == key).then_some(value),
            Self::Many(list) => list.position(seed, key).map(|position| list.value_mut(position)),
        }
    }

    /// Sets the value of a key and returns the one it had.
    pub(crate) fn insert(&mut self, seed: &Seed, key: K, value: V) -> Option<V> {
        if let Some(old) = self.value_mut(seed, &key) {
            return Some(mem::replace(old, value));
        }
        match self {
            Self::None => *self = Self::One((key, value)),
            Self::One(first) => {
                let mut list = KeyedList::new();
                list.push(seed, first.0, first.1);
                list.push(seed, key, value);
                *self = Self::Many(Box::new(list));
            }
            Self::Many(list) => list.push(seed, key, value),
        }
        None
    }

    pub(crate) fn remove(&mut self, seed: &Seed, key: &K) -> Option<V> {
        match self {
            Self::None => None,
            Self::One((other, value)) => {
                let value = (other == key).then_some(*value)?;
                *self = Self::None;
                Some(value)
            }
            Self::Many(list) => {
                let position = list.position(seed, key)?;
                let (_, value) = list.swap_remove(seed, position);
                if let &[entry] = list.as_slice() {
                    *self = Self::One(entry);
                }
                Some(value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(list: &KeyedList<u32, u32>, seed: &Seed) {
        for (position, (key, _)) in list.as_slice().iter().enumerate() {
            assert_eq!(list.position(seed, key), Some(position));
        }
        if let Some(index) = &list.index {
            assert_eq!(index.len(), list.len());
        }
    }

    #[test]
    fn one_entry_needs_no_heap_and_little_room() {
        assert_eq!(size_of::<Entries<u32, u32>>(), 16);
        assert_eq!(size_of::<Entries<u32, (u32, u32)>>(), 16);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(
            seed in any::<u64>(),
            operations in proptest::collection::vec((0..8u8, 0..64u32, any::<u32>()), 0..600),
        ) {
            let seed = Seed::new(seed);
            let mut entries: Entries<u32, u32> = Entries::None;
            let mut model = BTreeMap::new();
            for (operation, key, value) in operations {
                match operation {
                    0..4 => prop_assert_eq!(entries.insert(&seed, key, value), model.insert(key, value)),
                    4..7 => prop_assert_eq!(entries.remove(&seed, &key), model.remove(&key)),
                    _ => if let Entries::Many(list) = &mut entries {
                        list.swap(&seed, key as usize % list.len(), value as usize % list.len());
                    },
                }
                prop_assert_eq!(entries.is_empty(), model.is_empty());
                prop_assert_eq!(entries.value(&seed, &key), model.get(&key).copied());
                let mut all = entries.as_slice().to_vec();
                all.sort_unstable();
                prop_assert!(all.iter().copied().eq(model.iter().map(|(&key, &value)| (key, value))));
                if let Entries::Many(list) = &entries {
                    check(list, &seed);
                }
            }
        }
    }
}
