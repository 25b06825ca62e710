//! The retained index against a plain map, with scans that are paused while the map changes.

mod texts;

use core::ops::ControlFlow;
use pantala_router::{Cursor, RetainedIndex, Scan, topic_matches};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use texts::{filter, topic};

#[derive(Debug, Clone)]
enum Operation {
    Insert(String),
    Remove(String),
    RemoveSome(prop::sample::Index),
    Begin(String),
    Step { scan: prop::sample::Index, budget: usize, visits_max: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => topic().prop_map(Operation::Insert),
        2 => topic().prop_map(Operation::Remove),
        2 => any::<prop::sample::Index>().prop_map(Operation::RemoveSome),
        1 => filter().prop_map(Operation::Begin),
        6 => (any::<prop::sample::Index>(), 0..8usize, 1..5usize)
            .prop_map(|(scan, budget, visits_max)| Operation::Step { scan, budget, visits_max }),
    ]
}

struct Running {
    filter: String,
    cursor: Cursor,
    visited: BTreeSet<String>,
    /// Matching Topic Names that have been there since the scan began.
    throughout: BTreeSet<String>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn scans_see_what_stays_once_and_the_rest_at_most_once(
        seed in any::<u64>(),
        operations in proptest::collection::vec(operation(), 0..300),
    ) {
        let mut index: RetainedIndex<usize> = RetainedIndex::new(seed);
        let mut model: BTreeMap<String, usize> = BTreeMap::new();
        let mut scans: Vec<Running> = Vec::new();
        for (turn, operation) in operations.into_iter().enumerate() {
            let operation = match operation {
                Operation::RemoveSome(pick) if !model.is_empty() => {
                    Operation::Remove(model.keys().nth(pick.index(model.len())).expect("within bounds").clone())
                }
                other => other,
            };
            match operation {
                Operation::Insert(topic) => {
                    prop_assert_eq!(index.insert(&topic, turn), model.insert(topic.clone(), turn));
                    prop_assert_eq!(index.get(&topic), Some(&turn));
                }
                Operation::Remove(topic) => {
                    prop_assert_eq!(index.remove(&topic), model.remove(&topic));
                    prop_assert_eq!(index.get(&topic), None);
                    for scan in &mut scans {
                        scan.throughout.remove(&topic);
                    }
                }
                Operation::Begin(filter) => {
                    let throughout = model.keys().filter(|topic| topic_matches(&filter, topic)).cloned().collect();
                    scans.push(Running { filter, cursor: Cursor::new(), visited: BTreeSet::new(), throughout });
                }
                Operation::Step { scan, budget, visits_max } if !scans.is_empty() => {
                    let number = scan.index(scans.len());
                    let Running { filter, cursor, visited, throughout } = &mut scans[number];
                    let mut visits = 0;
                    let result = index.scan(filter, cursor, budget, |topic, value| {
                        assert!(topic_matches(filter, topic), "{topic} is not for {filter}");
                        assert_eq!(model.get(topic), Some(value));
                        assert!(visited.insert(topic.to_owned()), "{topic} comes twice for {filter}");
                        visits += 1;
                        if visits == visits_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    });
                    prop_assert!(visits <= visits_max.min(budget.max(1)));
                    prop_assert_eq!(result == Scan::Done, cursor.is_done());
                    if result == Scan::Done {
                        prop_assert!(throughout.is_subset(visited), "{} misses some: {:?} of {:?}", filter, visited, throughout);
                        prop_assert_eq!(index.scan(filter, cursor, 100, |_, _| panic!("it is over")), Scan::Done);
                        scans.swap_remove(number);
                    }
                }
                Operation::RemoveSome(_) | Operation::Step { .. } => {}
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn a_scan_in_one_go_finds_exactly_what_matches(
        topics in proptest::collection::btree_set(topic(), 0..200),
        filters in proptest::collection::vec(filter(), 20),
        budget in 1..400usize,
    ) {
        let mut index = RetainedIndex::new(7);
        for topic in &topics {
            index.insert(topic, ());
        }
        for filter in filters {
            let mut found = BTreeSet::new();
            let (mut cursor, mut calls) = (Cursor::new(), 1);
            while index.scan(&filter, &mut cursor, budget, |topic, ()| {
                assert!(found.insert(topic.to_owned()));
                ControlFlow::Continue(())
            }) == Scan::More
            {
                calls += 1;
            }
            let expected: BTreeSet<String> = topics.iter().filter(|topic| topic_matches(&filter, topic)).cloned().collect();
            prop_assert_eq!(found, expected);
            // No Topic Name is looked at twice.
            prop_assert!(calls <= topics.len() / budget + 1);
        }
    }
}

/// Enough Topic Names for many chunks of the sorted list, put in and taken out in several orders.
#[test]
fn many_topics_in_any_order() {
    const TOPICS: u64 = 20_000;
    for factor in [1, TOPICS - 1, 7919, 12_347] {
        let mut index = RetainedIndex::new(1);
        let name = |number: u64| format!("site/{}/dev/{}", number % 100, number / 100);
        for number in (0..TOPICS).map(|turn| turn * factor % TOPICS) {
            assert_eq!(index.insert(&name(number), number), None);
        }
        let count = |index: &RetainedIndex<u64>, filter: &str| {
            let mut seen = BTreeSet::new();
            let mut cursor = Cursor::new();
            while index.scan(filter, &mut cursor, 97, |_, &number| {
                assert!(seen.insert(number));
                ControlFlow::Continue(())
            }) == Scan::More
            {}
            seen.len()
        };
        assert_eq!(count(&index, "#"), 20_000);
        assert_eq!(count(&index, "site/7/#"), 200);
        assert_eq!(count(&index, "+/+/+/9"), 100);
        assert_eq!(count(&index, "+/1/+/9"), 1);
        for number in (0..TOPICS).map(|turn| turn * 7919 % TOPICS).filter(|number| number % 10 != 0) {
            assert_eq!(index.remove(&name(number)), Some(number));
        }
        assert_eq!(count(&index, "#"), 2_000);
        assert_eq!(count(&index, "site/10/#"), 200);
        for number in (0..TOPICS).step_by(10) {
            assert_eq!(index.remove(&name(number)), Some(number));
        }
        assert!(index.is_empty());
        assert_eq!(count(&index, "#"), 0);
    }
}

/// A Topic Filter that wants little jumps over what it does not want.
#[test]
fn a_scan_does_not_look_at_everything() {
    let mut index = RetainedIndex::new(1);
    for site in 0..100 {
        for device in 0..100 {
            index.insert(&format!("site/{site}/dev/{device}"), ());
        }
    }
    for topic in 0..1000 {
        index.insert(&format!("$SYS/{topic}"), ());
    }
    let steps = |filter: &str| {
        let (mut cursor, mut steps) = (Cursor::new(), 1);
        while index.scan(filter, &mut cursor, 1, |_, ()| ControlFlow::Continue(())) == Scan::More {
            steps += 1;
        }
        steps
    };
    assert!(steps("site/5/#") <= 102);
    assert!(steps("site/+/dev/7") <= 302);
    assert!(steps("+/5/dev/7") <= 5);
    assert!(steps("+/+") <= 105);
    assert!(steps("$SYS/+") <= 1002);
    assert!(steps("none/#") <= 2);
}
