//! Seeded bugs: the random test finds each, or it tests nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pantala_crashlab::expectation::promises_of;
use pantala_mutants::{Mutant, choose};

use super::random::play;

const SEEDS_MAX: u64 = 300;

/// The seed that shows the bug, and what it shows. Promises that it is not known to break do not count, nor do panics.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    choose(Some(mutant));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let violations = catch_unwind(AssertUnwindSafe(|| play(seed).check())).unwrap_or_default();
        let first = violations.iter().find(|violation| promises_of(mutant).contains(&violation.promise))?;
        Some((seed, format!("{}: {}", first.promise, first.what)))
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
