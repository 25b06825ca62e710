//! Topic Names and Topic Filters that meet often: few, short, and with all that is special.

use proptest::prelude::*;
use proptest::sample::select;

const LEVELS: [&str; 12] =
    ["", "a", "b", "aa", "$s", "$", "\u{1}", "ü", "eight888", "nine99999", "sixteen-sixteen-", "seventeen-sevente"];

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => select(&LEVELS[..4]), 1 => select(&LEVELS[..])]
}

/// A valid Topic Name of up to five levels.
pub fn topic() -> impl Strategy<Value = String> {
    proptest::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_map(|topic| if topic.is_empty() { "a".to_owned() } else { topic })
}

/// A valid Topic Filter of up to six levels.
pub fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (proptest::collection::vec(level, 0..6), prop::bool::weighted(0.3)).prop_map(|(mut levels, hash)| {
        if hash || levels.is_empty() || levels == [""] {
            levels.push("#");
        }
        levels.join("/")
    })
}
