//! Seeded bugs: the random test finds each, or it tests nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pantala_mutants::{Mutant, choose};

use super::random::play;

const SEEDS_MAX: u64 = 300;

/// The seed that shows the bug, and what it shows.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    choose(Some(mutant));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let judged = catch_unwind(AssertUnwindSafe(|| play(seed).check()));
        let what = match judged {
            Ok(violations) => violations.first().map(|first| format!("{}: {}", first.promise, first.what))?,
            Err(_) => "it came to a panic".to_owned(),
        };
        Some((seed, what))
    });
    choose(None);
    found
}

#[test]
fn each_seeded_bug_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        match found(*mutant) {
            Some((seed, what)) => println!("{mutant:<26} {seed:>4}  {what}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
