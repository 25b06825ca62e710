//! The subscriptions of one Session, by their Topic Filters.
//!
//! Most Sessions have one or two, and there are many Sessions: a few stand in a slice of just their size, which costs a third of
//! what a table does; from there on it is a table.

use std::collections::HashMap;

use crate::session::Subscription;

/// So many are looked through one by one; with more it becomes a table, and stays one.
const FEW: usize = 8;

type Entry = (Box<str>, Subscription);

#[derive(Debug)]
pub(crate) enum Subscriptions {
    /// In the order in which they came.
    Few(Box<[Entry]>),
    Many(Box<HashMap<Box<str>, Subscription>>),
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(entries) => entries.len(),
            Self::Many(map) => map.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, filter: &str) -> Option<&Subscription> {
        match self {
            Self::Few(entries) => {
                entries.iter().find(|(text, _)| **text == *filter).map(|(_, subscription)| subscription)
            }
            Self::Many(map) => map.get(filter),
        }
    }

    pub(crate) fn get_mut(&mut self, filter: &str) -> Option<&mut Subscription> {
        match self {
            Self::Few(entries) => {
                entries.iter_mut().find(|(text, _)| **text == *filter).map(|(_, subscription)| subscription)
            }
            Self::Many(map) => map.get_mut(filter),
        }
    }

    pub(crate) fn contains(&self, filter: &str) -> bool {
        self.get(filter).is_some()
    }

    /// Returns what stood there under the same Topic Filter.
    pub(crate) fn insert(&mut self, filter: &str, subscription: Subscription) -> Option<Subscription> {
        if let Some(place) = self.get_mut(filter) {
            return Some(std::mem::replace(place, subscription));
        }
        match self {
            Self::Few(entries) => {
                let mut entries = std::mem::take(entries).into_vec();
                if entries.len() < FEW {
                    entries.reserve_exact(1);
                    entries.push((filter.into(), subscription));
                    *self = Self::Few(entries.into_boxed_slice());
                } else {
                    let mut map: HashMap<_, _> = entries.into_iter().collect();
                    map.insert(filter.into(), subscription);
                    *self = Self::Many(Box::new(map));
                }
            }
            Self::Many(map) => {
                map.insert(filter.into(), subscription);
            }
        }
        None
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<Subscription> {
        match self {
            Self::Few(entries) => {
                let place = entries.iter().position(|(text, _)| **text == *filter)?;
                let mut entries_left = std::mem::take(entries).into_vec();
                let (_, subscription) = entries_left.remove(place);
                *entries = entries_left.into_boxed_slice();
                Some(subscription)
            }
            Self::Many(map) => map.remove(filter),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Subscription)> {
        let (few, many) = match self {
            Self::Few(entries) => (Some(entries), None),
            Self::Many(map) => (None, Some(map)),
        };
        let few = few.into_iter().flatten().map(|(filter, subscription)| (&**filter, subscription));
        few.chain(many.into_iter().flat_map(|map| map.iter()).map(|(filter, subscription)| (&**filter, subscription)))
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(filter, _)| filter)
    }

    /// All of them; none is left.
    pub(crate) fn take(&mut self) -> Vec<Entry> {
        match std::mem::take(self) {
            Self::Few(entries) => entries.into_vec(),
            Self::Many(map) => map.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn subscription(identifier: u32) -> Subscription {
        Subscription { shared: false, disabled: false, options: 0, identifier: NonZeroU32::new(identifier) }
    }

    fn identifier(subscription: Option<Subscription>) -> Option<Option<NonZeroU32>> {
        subscription.map(|subscription| subscription.identifier)
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Subscriptions>(), 16);
        assert_eq!(size_of::<Entry>(), 24);
    }

    proptest! {
        /// Beside a table, over the border between few and many.
        #[test]
        fn as_a_table(steps in prop::collection::vec((0..3_u8, 0..20_u8, 1..1_000_u32), 0..120)) {
            let (mut ours, mut table) = (Subscriptions::default(), HashMap::new());
            for (what, filter, number) in steps {
                let filter = format!("filter/{filter}");
                match what {
                    0 | 1 => prop_assert_eq!(
                        identifier(ours.insert(&filter, subscription(number))),
                        identifier(table.insert(filter.clone(), subscription(number)))
                    ),
                    _ => prop_assert_eq!(identifier(ours.remove(&filter)), identifier(table.remove(&filter))),
                }
                prop_assert_eq!(identifier(ours.get(&filter).copied()), identifier(table.get(&filter).copied()));
                prop_assert_eq!(ours.contains(&filter), table.contains_key(&filter));
                prop_assert_eq!((ours.len(), ours.is_empty()), (table.len(), table.is_empty()));
            }
            let mut filters: Vec<String> = ours.filters().map(str::to_owned).collect();
            let mut expected: Vec<String> = table.keys().cloned().collect();
            filters.sort();
            expected.sort();
            prop_assert_eq!(filters, expected);
            let taken = ours.take();
            prop_assert_eq!(taken.len(), table.len());
            prop_assert!(ours.is_empty());
            for (filter, subscription) in taken {
                prop_assert_eq!(identifier(Some(subscription)), identifier(table.get(&*filter).copied()));
            }
        }
    }
}
