//! Which promises a seeded bug breaks.

use pantala_mutants::Mutant;

use crate::checker::Promise;

/// The promises that a bug breaks: whatever else may be found, it is caught by one of these.
pub fn promises_of(mutant: Mutant) -> &'static [Promise] {
    use Promise::{E1, O1, O2, Q1a, Q1c, Q2a, Q2b, Q2d, R1, R2, R3, S1, S3, S5, T2, T3, W1};
    match mutant {
        Mutant::AckBeforeCommit | Mutant::SyncSkipped | Mutant::RecordLost => &[Q1a, Q2b, S1, S3, T2],
        Mutant::DupForgotten => &[Q1c],
        Mutant::ReorderOnResume => &[O2],
        Mutant::QueueReversed => &[O1],
        Mutant::ReceiveMaximumForgotten => &[S5],
        Mutant::PacketIdReused => &[Q2d],
        Mutant::PubRecForgotten => &[Q2b],
        Mutant::ExactlyOnceForgotten => &[Q2a],
        Mutant::SettledForAll | Mutant::QueuedNotRecorded => &[Q1a, Q2b],
        Mutant::SubscribeForgotten => &[Q1a, Q2b, S3],
        Mutant::UnsubscribeForgotten => &[S3],
        Mutant::OptionsForgotten => &[R1],
        Mutant::CleanedSessionReturns => &[R2, R3, S1, Q1a, Q2b],
        Mutant::RetainedNotReplaced | Mutant::RetainedTorn => &[T2],
        Mutant::RetainedDeleteForgotten => &[T3],
        Mutant::WillTwice => &[W1],
        Mutant::ExpiredDelivered => &[E1],
    }
}
