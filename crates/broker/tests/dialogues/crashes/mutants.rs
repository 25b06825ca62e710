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

/// One test for each bug.
macro_rules! mutants {
    ($($test:ident: $mutant:ident,)+) => {
        const TESTED: &[Mutant] = &[$(Mutant::$mutant),+];

        $(
            #[test]
            fn $test() {
                match found(Mutant::$mutant) {
                    Some((seed, what)) => println!("{seed:>4}  {what}"),
                    None => panic!("{SEEDS_MAX} seeds, and nobody has noticed {}", Mutant::$mutant),
                }
            }
        )+
    };
}

mutants! {
    ack_before_commit: AckBeforeCommit,
    sync_skipped: SyncSkipped,
    record_lost: RecordLost,
    dup_forgotten: DupForgotten,
    reorder_on_resume: ReorderOnResume,
    queue_reversed: QueueReversed,
    receive_maximum_forgotten: ReceiveMaximumForgotten,
    packet_id_reused: PacketIdReused,
    pub_rec_forgotten: PubRecForgotten,
    exactly_once_forgotten: ExactlyOnceForgotten,
    settled_for_all: SettledForAll,
    queued_not_recorded: QueuedNotRecorded,
    subscribe_forgotten: SubscribeForgotten,
    unsubscribe_forgotten: UnsubscribeForgotten,
    options_forgotten: OptionsForgotten,
    cleaned_session_returns: CleanedSessionReturns,
    retained_not_replaced: RetainedNotReplaced,
    retained_delete_forgotten: RetainedDeleteForgotten,
    retained_torn: RetainedTorn,
    will_twice: WillTwice,
    expired_delivered: ExpiredDelivered,
}

#[test]
fn none_is_left_out() {
    assert_eq!(TESTED, Mutant::ALL);
}
