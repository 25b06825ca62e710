//! The filter tree against a plain list of Topic Filters.

mod texts;

use pantala_router::{FilterTree, Inserted, Removed, topic_matches};
use proptest::prelude::*;
use std::collections::BTreeMap;
use texts::{filter, topic};

fn found(tree: &mut FilterTree<u16, u32>, topic: &str) -> Vec<(u16, u32)> {
    let mut found = Vec::new();
    tree.matches(topic, |entries| {
        assert!(!entries.is_empty());
        found.extend_from_slice(entries);
    });
    found.sort_unstable();
    found
}

#[derive(Debug, Clone)]
enum Operation {
    Insert(String, u16),
    Replace(String, u16),
    Remove(String, u16),
    RemoveSome(prop::sample::Index),
    Match(String),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (filter(), 0..3u16).prop_map(|(filter, key)| Operation::Insert(filter, key)),
        1 => (filter(), 0..3u16).prop_map(|(filter, key)| Operation::Replace(filter, key)),
        2 => (filter(), 0..3u16).prop_map(|(filter, key)| Operation::Remove(filter, key)),
        3 => any::<prop::sample::Index>().prop_map(Operation::RemoveSome),
        8 => topic().prop_map(Operation::Match),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn behaves_as_a_list(seed in any::<u64>(), operations in proptest::collection::vec(operation(), 0..200)) {
        let mut tree: FilterTree<u16, u32> = FilterTree::new(seed);
        let mut model: BTreeMap<(String, u16), u32> = BTreeMap::new();
        for (turn, operation) in (0u32..).zip(operations) {
            let operation = match operation {
                Operation::RemoveSome(index) if !model.is_empty() => {
                    let (filter, key) = model.keys().nth(index.index(model.len())).expect("within bounds").clone();
                    Operation::Remove(filter, key)
                }
                other => other,
            };
            let known = |model: &BTreeMap<(String, u16), u32>, filter: &String| model.keys().any(|(other, _)| other == filter);
            match operation {
                Operation::Insert(filter, key) => {
                    let first = !known(&model, &filter);
                    let expected = match model.insert((filter.clone(), key), turn) {
                        Some(old) => Inserted::Replaced(old),
                        None => Inserted::New { first },
                    };
                    prop_assert_eq!(tree.insert(&filter, key, turn), expected);
                    prop_assert!(tree.contains_filter(&filter));
                    prop_assert_eq!(tree.get(&filter, key), Some(turn));
                }
                Operation::Replace(filter, key) => {
                    let old = model.get_mut(&(filter.clone(), key)).map(|value| std::mem::replace(value, turn));
                    prop_assert_eq!(tree.replace(&filter, key, turn), old);
                }
                Operation::Remove(filter, key) => {
                    let expected = model
                        .remove(&(filter.clone(), key))
                        .map(|value| Removed { value, last: !known(&model, &filter) });
                    prop_assert_eq!(tree.remove(&filter, key), expected);
                    prop_assert_eq!(tree.get(&filter, key), None);
                    prop_assert_eq!(tree.contains_filter(&filter), known(&model, &filter));
                }
                Operation::Match(topic) => {
                    let mut expected: Vec<(u16, u32)> = model
                        .iter()
                        .filter(|((filter, _), _)| topic_matches(filter, &topic))
                        .map(|((_, key), value)| (*key, *value))
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&mut tree, &topic), expected);
                }
                Operation::RemoveSome(_) => {}
            }
            prop_assert_eq!(tree.len(), model.len());
            prop_assert_eq!(tree.is_empty(), model.is_empty());
        }
        // What is left stands where it should.
        let mut filters: Vec<&String> = model.keys().map(|(filter, _)| filter).collect();
        filters.dedup();
        prop_assert_eq!(tree.filters(), filters.len());
        for filter in filters {
            let mut entries = tree.entries(filter).to_vec();
            entries.sort_unstable();
            let expected: Vec<(u16, u32)> =
                model.iter().filter(|((other, _), _)| other == filter).map(|((_, key), value)| (*key, *value)).collect();
            prop_assert_eq!(entries, expected);
        }
        // And the parts are as many as the same entries need in a new tree, and none without entries.
        let mut fresh = FilterTree::new(seed);
        for ((filter, key), value) in &model {
            fresh.insert(filter, *key, *value);
        }
        prop_assert_eq!(tree.nodes(), fresh.nodes());
        for (filter, key) in model.keys() {
            prop_assert!(tree.remove(filter, *key).is_some());
        }
        prop_assert_eq!(tree.nodes(), 0);
        prop_assert_eq!(tree.filters(), 0);
        prop_assert_eq!(tree.len(), 0);
    }
}

/// v5 MQTT-4.7.2-1, v3.1.1 MQTT-4.7.2-1.
#[test]
fn leading_wildcards_do_not_see_dollar_topics() {
    let mut tree = FilterTree::new(1);
    for (key, filter) in (0..).zip(["#", "+/#", "+/x", "+/+", "$SYS/#", "$SYS/+", "$SYS/x", "+"]) {
        tree.insert(filter, key, 0);
    }
    assert_eq!(found(&mut tree, "$SYS/x"), [(4, 0), (5, 0), (6, 0)]);
    assert_eq!(found(&mut tree, "$SYS"), [(4, 0)]);
    assert_eq!(found(&mut tree, "x/$SYS"), [(0, 0), (1, 0), (3, 0)]);
}

#[test]
fn the_deepest_filter_of_the_protocol_is_only_long() {
    // 32 767 levels of `+`, and the same with `#` at the end and with names.
    let plus = "+/".repeat(32_767) + "+";
    let names = "a/".repeat(32_767) + "#";
    let mut tree = FilterTree::new(2);
    tree.insert(&plus, 1, 0);
    tree.insert(&plus[2..], 2, 0);
    tree.insert(&names, 3, 0);
    let topic = "a/".repeat(32_767) + "a";
    assert_eq!(found(&mut tree, &topic), [(1, 0), (3, 0)]);
    assert_eq!(found(&mut tree, &"/".repeat(32_766)), [(2, 0)]);
    assert_eq!(found(&mut tree, &"/".repeat(60_000)), []);
    for (filter, key) in [(plus.as_str(), 1), (&plus[2..], 2), (&names, 3)] {
        assert!(tree.remove(filter, key).is_some());
    }
    assert_eq!(tree.nodes(), 0);
}

/// Attack E16.
#[test]
fn subscribing_and_unsubscribing_leaves_nothing_behind() {
    let mut tree = FilterTree::new(3);
    tree.insert("keep/+/this/#", 0, 0);
    let nodes = tree.nodes();
    for turn in 0..20_000u32 {
        let filters = [format!("a/{turn}/+/b"), format!("+/{turn}/#"), format!("x/{turn}"), format!("keep/+/{turn}")];
        for filter in &filters {
            assert_eq!(tree.insert(filter, 1, turn), Inserted::New { first: true });
        }
        for filter in &filters {
            assert_eq!(tree.remove(filter, 1), Some(Removed { value: turn, last: true }));
        }
    }
    assert_eq!(tree.nodes(), nodes);
    assert_eq!(found(&mut tree, "keep/a/this"), [(0, 0)]);
}

/// However the filters branch, a match reaches each node at most once and visits each filter at most once.
#[test]
fn all_filters_of_names_and_plus_match_once_each() {
    const LEVELS: u32 = 12;
    let mut tree = FilterTree::new(4);
    for filter in 0..1u32 << LEVELS {
        let text: Vec<&str> = (0..LEVELS).map(|level| if filter >> level & 1 == 0 { "a" } else { "+" }).collect();
        tree.insert(&text.join("/"), 0, filter);
    }
    let topic = ["a"; LEVELS as usize].join("/");
    let all: Vec<u32> = found(&mut tree, &topic).into_iter().map(|(_, value)| value).collect();
    assert_eq!(all, (0..1 << LEVELS).collect::<Vec<u32>>());
}

#[test]
fn one_filter_with_very_many_entries() {
    const ENTRIES: u32 = 100_000;
    let mut tree: FilterTree<u32, u32> = FilterTree::new(5);
    for filter in ["all/of/them", "all/+/them"] {
        for key in 0..ENTRIES {
            assert_eq!(tree.insert(filter, key, key), Inserted::New { first: key == 0 });
        }
    }
    let mut slices = Vec::new();
    tree.matches("all/of/them", |entries| slices.push(entries.len()));
    assert_eq!(slices, [ENTRIES as usize; 2]);
    for filter in ["all/of/them", "all/+/them"] {
        // In an order that is neither that of insertion nor its reverse.
        for key in (0..ENTRIES).map(|key| key * 7919 % ENTRIES) {
            assert_eq!(tree.remove(filter, key).map(|removed| removed.value), Some(key));
        }
    }
    assert_eq!(tree.nodes(), 0);
}
