//! Seeded bugs: each breaks one promise on purpose, so that whoever checks the promises can be checked.
//!
//! The crates with such bugs ask `mutant!(AckBeforeCommit)` at the place of each. Without their feature `mutants` that is
//! the literal `false`, and this crate is not even built; with it, one bug at a time is chosen: by the environment
//! variable [`VARIABLE`] for a whole process, or by [`choose`] for a thread of a test.
//!
//! ```
//! use pantala_mutants::{Mutant, choose};
//!
//! assert!(!Mutant::WillTwice.is_chosen());
//! choose(Some(Mutant::WillTwice));
//! assert!(Mutant::WillTwice.is_chosen() && !Mutant::AckBeforeCommit.is_chosen());
//! assert_eq!(Mutant::named("will-twice"), Some(Mutant::WillTwice));
//! ```

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;

/// Names the bug of a process.
pub const VARIABLE: &str = "PANTALA_MUTANT";

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $mutant:ident = $name:literal,)+) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $mutant,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant,)+];

            /// As it is named on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)+
                }
            }
        }
    };
}

mutants! {
    /// PUBACK, PUBREC and all other answers go out at once, and not when the store has got as far as they vouch for.
    AckBeforeCommit = "ack-before-commit",
    /// A batch is written and not synced, and counts as durable all the same. Only a power cut shows it.
    SyncSkipped = "sync-skipped",
    /// One record in a hundred gets lost on the way from a worker to its batch.
    RecordLost = "record-lost",
    /// A PUBLISH that is sent again on a new connection does not say DUP.
    DupForgotten = "dup-forgotten",
    /// On a new connection, what an earlier one had left open is sent again in the wrong order.
    ReorderOnResume = "reorder-on-resume",
    /// After a restart queues come back with their newest message first.
    QueueReversed = "queue-reversed",
    /// What is sent again on a new connection does not count against the client's Receive Maximum.
    ReceiveMaximumForgotten = "receive-maximum-forgotten",
    /// After a restart Packet Identifiers for new messages begin at 1, in use or not.
    PacketIdReused = "packet-id-reused",
    /// That PUBREC has come is not recorded: after a restart PUBLISH is sent again.
    PubRecForgotten = "pubrec-forgotten",
    /// The Packet Identifier of a publisher's QoS 2 message is not recorded: repeated after a restart, it is routed twice.
    ExactlyOnceForgotten = "exactly-once-forgotten",
    /// A message that one Session has acknowledged counts as acknowledged by all.
    SettledForAll = "settled-for-all",
    /// A message that waits in the queue of a client with a full window is not recorded for it.
    QueuedNotRecorded = "queued-not-recorded",
    /// SUBSCRIBE is not recorded for a Session that has a subscription already.
    SubscribeForgotten = "subscribe-forgotten",
    /// UNSUBSCRIBE is not recorded.
    UnsubscribeForgotten = "unsubscribe-forgotten",
    /// After a restart subscriptions have lost their options: QoS 2 is QoS 1.
    OptionsForgotten = "options-forgotten",
    /// The end of a Session is not recorded, and what waited for it waits on.
    CleanedSessionReturns = "cleaned-session-returns",
    /// Only the first Retained Message of a topic is recorded: after a restart the older one is back.
    RetainedNotReplaced = "retained-not-replaced",
    /// The end of a Retained Message by one without payload is not recorded.
    RetainedDeleteForgotten = "retained-delete-forgotten",
    /// A Retained Message is recorded without its last byte.
    RetainedTorn = "retained-torn",
    /// That a Will has been published is not recorded: after a restart it is published again.
    WillTwice = "will-twice",
    /// Messages are delivered however long ago they have expired.
    ExpiredDelivered = "expired-delivered",
}

thread_local! {
    static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// The bug of this thread, whatever the environment says. Other threads have theirs.
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}

/// The bug that the environment names.
static OF_PROCESS: LazyLock<Option<Mutant>> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
    Some(Mutant::named(&name).unwrap_or_else(|| panic!("{VARIABLE} names no mutant: {name}")))
});

impl Mutant {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// Whether it is to show.
    pub fn is_chosen(self) -> bool {
        CHOSEN.get().or(*OF_PROCESS) == Some(self)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
