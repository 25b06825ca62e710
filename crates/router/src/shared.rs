//! Whose turn it is in a Shared Subscription.

use crate::entries::KeyedList;
use crate::seed::Seed;
use core::hash::Hash;
use core::mem;

/// The members of one Shared Subscription: one ShareName with one Topic Filter (v5 §4.8.2).
///
/// Each message goes to one member. Connected members take turns, strictly: within a round each is chosen once. Only
/// if none is connected do the absent Sessions take turns, so that messages wait in somebody's queue. Somebody who
/// joins takes part in the running round; somebody who leaves takes no one's turn with him.
///
/// Every operation is O(1), however large the group is and however many of its members are absent.
pub struct SharedGroup<M, V> {
    connected: Round<M, V>,
    absent: Round<M, V>,
    seed: Seed,
}

impl<M: Copy + Eq + Hash, V: Copy> SharedGroup<M, V> {
    /// An empty group. `seed` keys the hashing of members; it has no part in the choice.
    pub fn new(seed: u64) -> Self {
        Self { connected: Round::new(), absent: Round::new(), seed: Seed::new(seed) }
    }

    /// Adds a member, or sets anew the value and state of one, and returns the value it had before.
    pub fn add(&mut self, member: M, value: V, connected: bool) -> Option<V> {
        let (to, from) = match connected {
            true => (&mut self.connected, &mut self.absent),
            false => (&mut self.absent, &mut self.connected),
        };
        if let Some(position) = to.list.position(&self.seed, &member) {
            return Some(mem::replace(to.list.value_mut(position), value));
        }
        let old = from.remove(&self.seed, &member);
        to.list.push(&self.seed, member, value);
        old
    }

    /// Takes a member out and returns its value, or `None` if there was no such member.
    pub fn remove(&mut self, member: M) -> Option<V> {
        self.connected.remove(&self.seed, &member).or_else(|| self.absent.remove(&self.seed, &member))
    }

    /// Notes that a member's Network Connection came or went. Returns whether there is such a member.
    pub fn set_connected(&mut self, member: M, connected: bool) -> bool {
        let (from, to) = match connected {
            true => (&mut self.absent, &mut self.connected),
            false => (&mut self.connected, &mut self.absent),
        };
        match from.remove(&self.seed, &member) {
            Some(value) => {
                to.list.push(&self.seed, member, value);
                true
            }
            None => to.list.position(&self.seed, &member).is_some(),
        }
    }

    /// The value of a member.
    pub fn get(&self, member: M) -> Option<V> {
        [&self.connected, &self.absent]
            .into_iter()
            .find_map(|round| Some(round.list.as_slice()[round.list.position(&self.seed, &member)?].1))
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.connected.list.len() + self.absent.list.len()
    }

    /// Whether the last member has left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connected members, in no particular order.
    pub fn connected(&self) -> &[(M, V)] {
        self.connected.list.as_slice()
    }

    /// The members that are not connected, in no particular order.
    pub fn absent(&self) -> &[(M, V)] {
        self.absent.list.as_slice()
    }

    /// The member whose turn it is, with its value: a connected one if there is any, else an absent one, `None` in an
    /// empty group. If the message cannot go there, ask again: up to [`len`](Self::len) questions meet every candidate.
    pub fn choose(&mut self) -> Option<(M, V)> {
        self.connected.choose().or_else(|| self.absent.choose())
    }
}

/// A list of which `..next` had their turn in this round and `next..` are still to come.
struct Round<M, V> {
    list: KeyedList<M, V>,
    next: usize,
}

impl<M: Copy + Eq + Hash, V: Copy> Round<M, V> {
    const fn new() -> Self {
        Self { list: KeyedList::new(), next: 0 }
    }

    fn choose(&mut self) -> Option<(M, V)> {
        if self.next >= self.list.len() {
            self.next = 0;
        }
        let chosen = *self.list.as_slice().get(self.next)?;
        self.next += 1;
        Some(chosen)
    }

    fn remove(&mut self, seed: &Seed, member: &M) -> Option<V> {
        let mut position = self.list.position(seed, member)?;
        if position < self.next {
            // The gap moves to the border first: the entry that then fills it comes from the end, and is still to come.
            self.next -= 1;
            self.list.swap(seed, position, self.next);
            position = self.next;
        }
        Some(self.list.swap_remove(seed, position).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn connected_members_take_turns_and_absent_ones_only_alone() {
        let mut group = SharedGroup::new(1);
        assert_eq!(group.choose(), None);
        group.add('a', 1, true);
        group.add('b', 2, false);
        group.add('c', 3, true);
        let turns: Vec<char> = (0..6).filter_map(|_| group.choose()).map(|(member, _)| member).collect();
        assert_eq!(turns, ['a', 'c', 'a', 'c', 'a', 'c']);
        assert!(group.set_connected('a', false));
        assert!(group.set_connected('c', false));
        let turns: BTreeSet<char> = (0..3).filter_map(|_| group.choose()).map(|(member, _)| member).collect();
        assert_eq!(turns, BTreeSet::from(['a', 'b', 'c']));
        for member in ['a', 'b', 'c'] {
            assert!(group.remove(member).is_some());
        }
        assert_eq!(group.choose(), None);
        assert!(group.is_empty());
    }

    #[test]
    fn who_leaves_takes_no_turn_of_others_with_him() {
        for leaving in 0..6u8 {
            let mut group = SharedGroup::new(1);
            for member in 0..6u8 {
                group.add(member, (), true);
            }
            let served: Vec<u8> = (0..3).filter_map(|_| group.choose()).map(|(member, ())| member).collect();
            assert_eq!(served, [0, 1, 2]);
            group.remove(leaving);
            let to_come: BTreeSet<u8> = (3..6).filter(|&member| member != leaving).collect();
            let next: BTreeSet<u8> =
                (0..to_come.len()).filter_map(|_| group.choose()).map(|(member, ())| member).collect();
            assert_eq!(next, to_come, "{leaving} left");
        }
    }

    #[test]
    fn a_large_group_shares_evenly_while_members_come_and_go() {
        let mut group = SharedGroup::new(2);
        for member in 0..10_000u32 {
            group.add(member, (), member % 2 == 0);
        }
        let mut turns = BTreeMap::new();
        for turn in 0..50_000u32 {
            // Odd members flicker; the even ones must not notice.
            let odd = (turn.wrapping_mul(7) % 10_000) | 1;
            assert!(group.set_connected(odd, true));
            assert!(group.set_connected(odd, false));
            let (member, ()) = group.choose().expect("half of the group is connected");
            *turns.entry(member).or_insert(0u32) += 1;
        }
        assert_eq!(turns.len(), 5_000);
        assert!(turns.values().all(|&count| count == 10), "{:?}", turns.values().max());
    }

    proptest! {
        #[test]
        fn each_round_meets_everybody_once(
            seed in any::<u64>(),
            operations in proptest::collection::vec((0..12u8, 0..80u8, any::<bool>()), 0..500),
        ) {
            let mut group = SharedGroup::new(seed);
            let mut model: BTreeMap<u8, (usize, bool)> = BTreeMap::new();
            for (turn, (operation, member, connected)) in operations.into_iter().enumerate() {
                match operation {
                    0..4 => {
                        let old = model.insert(member, (turn, connected)).map(|(value, _)| value);
                        prop_assert_eq!(group.add(member, turn, connected), old);
                    }
                    4..6 => prop_assert_eq!(group.remove(member), model.remove(&member).map(|(value, _)| value)),
                    6..10 => {
                        let known = model.get_mut(&member).map(|(_, state)| *state = connected).is_some();
                        prop_assert_eq!(group.set_connected(member, connected), known);
                    }
                    10 => match group.choose() {
                        None => prop_assert!(model.is_empty()),
                        Some((member, value)) => {
                            let (expected, connected) = model[&member];
                            prop_assert_eq!(value, expected);
                            prop_assert!(connected || model.values().all(|(_, connected)| !connected));
                        }
                    },
                    _ => {
                        // From anywhere within a round, twice as many choices as candidates meet each one twice.
                        let anybody = model.values().any(|&(_, connected)| connected);
                        let expected: BTreeSet<u8> = model.iter().filter(|(_, (_, connected))| *connected == anybody).map(|(&member, _)| member).collect();
                        let mut turns = BTreeMap::new();
                        for _ in 0..2 * expected.len() {
                            *turns.entry(group.choose().expect("the group is not empty").0).or_insert(0) += 1;
                        }
                        prop_assert!(turns.values().all(|&count| count == 2));
                        prop_assert!(turns.keys().eq(expected.iter()));
                    }
                }
                prop_assert_eq!(group.len(), model.len());
                prop_assert_eq!(group.get(member), model.get(&member).map(|&(value, _)| value));
                prop_assert_eq!(group.connected().len(), model.values().filter(|(_, connected)| *connected).count());
            }
        }
    }
}
