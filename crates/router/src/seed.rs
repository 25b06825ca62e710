//! Keyed hashing.

use core::hash::{Hash, Hasher};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// All that hashing depends on.
///
/// foldhash mixes a value with the hasher's own seed and with a second, shared one. Its ready-made states take the
/// shared one from a constant or from a global of the process; here both come from the caller's seed, so that nobody
/// can aim at a known constant and a simulation still repeats itself.
#[derive(Clone)]
pub(crate) struct Seed {
    own: u64,
    shared: SharedSeed,
}

impl Seed {
    pub(crate) fn new(seed: u64) -> Self {
        // foldhash derives the shared seed by multiplications alone, which make nothing of a seed of zero and little of a
        // small one; and the two seeds should not be kin. So the caller's goes through SplitMix64 first.
        let mut state = seed;
        Self { own: split_mix(&mut state), shared: SharedSeed::from_u64(split_mix(&mut state)) }
    }

    #[inline]
    pub(crate) fn text(&self, text: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        hasher.write(text);
        hasher.finish()
    }

    #[inline]
    pub(crate) fn words(&self, words: [u64; 2]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        hasher.write_u64(words[0]);
        hasher.write_u64(words[1]);
        hasher.finish()
    }

    /// The hash of a node's child under a level's text, of which `level_hash` is the hash.
    #[inline]
    pub(crate) fn child(&self, node_id: u32, level_hash: u64) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        hasher.write_u64(level_hash);
        hasher.write_u32(node_id);
        hasher.finish()
    }

    #[inline]
    pub(crate) fn key<K: Hash>(&self, key: &K) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        key.hash(&mut hasher);
        hasher.finish()
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number in a hash table, together with half of its key's hash.
///
/// With the hash at hand the table grows without a look at the keys, which lie all over the memory: a table of a
/// million is moved in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Hashed {
    pub(crate) id: u32,
    hash: u32,
}

impl Hashed {
    #[inline]
    pub(crate) fn new(id: u32, hash: u64) -> Self {
        Self { id, hash: Self::fold(hash) }
    }

    /// The hash to use with the table. hashbrown takes the bucket from the low bits and a tag from the topmost seven.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        Self::spread(self.hash)
    }

    /// Brings a full hash into the form in which the table sees it.
    #[inline]
    pub(crate) fn reduce(hash: u64) -> u64 {
        Self::spread(Self::fold(hash))
    }

    #[inline]
    pub(crate) fn may_be(&self, reduced: u64) -> bool {
        u64::from(self.hash) == reduced >> 32
    }

    #[inline]
    fn fold(hash: u64) -> u32 {
        (hash ^ (hash >> 32)) as u32
    }

    #[inline]
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// Gives memory back when a table has become far too large for what it holds.
pub(crate) fn shrink<T>(table: &mut hashbrown::HashTable<T>, hasher: impl Fn(&T) -> u64) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// With a caller's seed of zero, most of these once had the same hash: the seed was handed on as it was, and foldhash
    /// turned it into one with hardly a bit set. One text under many nodes, and many texts under one
    /// node, have to differ in the half of the hash that the table keeps.
    #[test]
    fn neighbours_rarely_collide() {
        const NUMBER: u32 = 50_000;
        for seed in [0, 1, 2, 3, 64, 1 << 32, 1 << 63, u64::MAX] {
            let seed = Seed::new(seed);
            let level = seed.words([u64::from(b'a'), 0]);
            let text = |number: u32| seed.words([u64::from_le_bytes(*b"device-0") + (u64::from(number) << 40), 7]);
            let nodes: HashSet<u64> = (0..NUMBER).map(|node| Hashed::reduce(seed.child(node, level))).collect();
            let levels: HashSet<u64> = (0..NUMBER).map(|number| Hashed::reduce(seed.child(1, text(number)))).collect();
            // Of random numbers, 0.3 pairs would collide.
            for distinct in [nodes.len(), levels.len()] {
                assert!(distinct + 10 > NUMBER as usize, "only {distinct} of {NUMBER}");
            }
        }
    }
}
