//! Numbered slots that are used again.

use core::ops::{Index, IndexMut};

/// Slots above this number grow by a quarter, below it they double: at a million, doubling would leave up to half of
/// the memory unused.
const DOUBLE_UNTIL: usize = 1024;

/// A vector of values that keep their number while they live.
///
/// Invariant: when `free` is empty, no slot is vacant. `free` may hold numbers past the end of `slots`, which have been
/// cut off since; they are thrown away before `slots` grows again, so no number is ever in `free` twice.
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        while let Some(id) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(id as usize) {
                *slot = Some(value);
                return id;
            }
        }
        // u32::MAX stays unused: callers take it for "none".
        let id = u32::try_from(self.slots.len()).ok().filter(|&id| id != u32::MAX);
        let id = id.expect("four billion slots do not fit into memory");
        if self.slots.len() == self.slots.capacity() && self.slots.len() > DOUBLE_UNTIL {
            self.slots.reserve_exact(self.slots.len() / 4);
        }
        self.slots.push(Some(value));
        id
    }

    /// Takes the value out of an occupied slot.
    pub(crate) fn remove(&mut self, id: u32) -> T {
        let value = self.slots[id as usize].take().expect("only occupied slots are removed");
        self.free.push(id);
        if id as usize + 1 == self.slots.len() {
            self.cut_tail();
        }
        value
    }

    fn cut_tail(&mut self) {
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 2 {
            self.slots.shrink_to(self.slots.len() + self.slots.len() / 4);
        }
        if self.free.len() > self.slots.len() {
            let len = self.slots.len();
            self.free.retain(|&id| (id as usize) < len);
            self.free.shrink_to(len);
        }
    }

    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        self.slots[id as usize].as_ref().expect("only occupied slots are looked at")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_mut().expect("only occupied slots are looked at")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn memory_of_a_cut_tail_is_given_back() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..10_000u64).map(|value| slab.insert(value)).collect();
        for &id in ids[1..].iter().rev() {
            slab.remove(id);
        }
        assert_eq!(slab.slots(), 1);
        assert!(slab.slots.capacity() <= 64, "{}", slab.slots.capacity());
        assert!(slab.free.len() <= 1);
        assert_eq!(slab[ids[0]], 0);
    }

    proptest! {
        #[test]
        fn no_number_is_given_out_twice(operations in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..400)) {
            let mut slab = Slab::new();
            let mut model: HashMap<u32, usize> = HashMap::new();
            let mut high_water = 0;
            for (turn, (insert, pick)) in operations.into_iter().enumerate() {
                if insert || model.is_empty() {
                    let id = slab.insert(turn);
                    prop_assert!(model.insert(id, turn).is_none());
                } else {
                    let mut ids: Vec<u32> = model.keys().copied().collect();
                    ids.sort_unstable();
                    let id = *pick.get(&ids);
                    prop_assert_eq!(Some(slab.remove(id)), model.remove(&id));
                }
                high_water = high_water.max(model.len());
                prop_assert!(slab.slots() <= high_water);
                for (&id, &value) in &model {
                    prop_assert_eq!(slab[id], value);
                }
            }
        }
    }
}
