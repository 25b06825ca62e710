//! What must outlive the process, as records, and how far they have got.
//!
//! The core appends a [`Record`] for each change of state that an acknowledgement vouches for, gets a [`Position`], and
//! holds the acknowledgement until [`Store::durable`] has reached it. That is the whole contract: a store may keep nothing
//! ([`MemoryStore`]), or commit records in batches on a thread of its own ([`DurableStore`]).
//!
//! It knows no network and no MQTT exchange: a record says what is to be remembered, not what is to be sent.
//!
//! Where to look: `record.rs` for what there is to say, `ledger.rs` for the way from records to their net effect,
//! `commit.rs` for the thread that makes it durable, [`log`] for the files, `format.rs` for the bytes in them, `entry.rs` and
//! `recover.rs` for the way back, `inspect.rs` for tools, [`disk`] for the file layer that tests tear and fail.

/// Whether a seeded bug is to show: see `pantala_mutants`. Without the feature it is `false`, and nothing else.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($mutant:ident) => {
        false
    };
}

/// Whether a seeded bug is to show.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($mutant:ident) => {
        pantala_mutants::Mutant::$mutant.is_chosen()
    };
}

pub mod disk;
pub mod log;

mod codec;
mod commit;
mod entry;
mod format;
mod inspect;
mod ledger;
mod order;
mod record;
mod recover;
mod submission;
#[cfg(test)]
mod trouble_tests;

pub use commit::{
    Activity, AnyStore, CLOCK_INTERVAL, Committer, Durability, DurableStore, Health, Notice, Opened, Pause, open,
};
pub use entry::Entry;
pub use format::Kind;
pub use inspect::{CompactError, Compacted, Inspection, compact};
pub use record::{
    Message, MessageId, Owner, Position, Publish, Publisher, Receiver, Record, Session, SessionNumber, Stage, Will,
    copy_of,
};
pub use recover::{
    KeepRetained, Orphan, Recovered, RecoveredExchange, RecoveredMessage, RecoveredOwner, RecoveredPublisher,
    RecoveredRetained, RecoveredSession, RecoveredWill, StoredMessage,
};

use codec::{Reader, put_varint};

/// The broker's own time beside the world's.
///
/// The broker's time is milliseconds that a monotonic clock has counted while it ran, plus what the wall clock says that
/// went by while it did not. Everything that is to happen some day is written down in the broker's time, so a wall clock
/// that is set while the broker runs changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// The broker's time in milliseconds.
    pub broker: u64,
    /// Milliseconds since 1970 at that moment, as far as the wall clock knew.
    pub wall: u64,
}

impl Clock {
    /// The broker's time at a later start, when the wall clock says `wall`; a clock that has been set back meanwhile counts
    /// as one that has stood still, and no more than `jump_max` milliseconds are believed.
    pub fn resumed(self, wall: u64, jump_max: u64) -> u64 {
        self.broker.saturating_add(wall.saturating_sub(self.wall).min(jump_max))
    }

    /// The last time of a process that could not write it down any more: `last_alive` is [`Recovered::last_alive`], `wall` and `jump_max` are as in
    /// [`Clock::resumed`]. A mark that is later than now says nothing.
    #[must_use]
    pub fn lived(self, last_alive: Option<u64>, wall: u64, jump_max: u64) -> Self {
        match last_alive {
            Some(alive) if self.wall < alive && alive <= wall => {
                Self { broker: self.resumed(alive, jump_max), wall: alive }
            }
            _ => self,
        }
    }

    fn put(self, out: &mut Vec<u8>) {
        put_varint(out, self.broker);
        put_varint(out, self.wall);
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        Some(Self { broker: reader.varint()?, wall: reader.varint()? })
    }
}

/// Why a message that a store should have cannot be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadError {
    /// The disk has an error where it stands. It may be read later.
    Unreadable,
    /// What stands there is not what was written, or has been set aside for that.
    Damaged,
}

/// Where records go.
pub trait Store {
    /// Whether it keeps anything. If not, nothing need be appended, and there are no numbers for messages and Sessions.
    fn keeps(&self) -> bool;

    /// Whether what is appended now can be expected to become durable. If not, nothing should be promised that needs it.
    fn accepts(&self) -> bool;

    /// Whether nothing that is appended will ever become durable: a write or a sync has failed. By default not.
    fn has_failed(&self) -> bool {
        false
    }

    /// Names a message: larger than all that were given out before, by whichever worker.
    fn next_message(&mut self) -> Option<MessageId>;

    /// Names a Session.
    fn next_session(&mut self) -> Option<SessionNumber>;

    /// Takes a record over; its bytes are copied if they are needed later. Returns where it stands.
    fn append(&mut self, record: &Record<'_>) -> Position;

    /// Names all further receivers, perhaps none, of a message from another worker whose [`Publish::others`] counts on us.
    fn add_receivers(&mut self, message: MessageId, receivers: Vec<Receiver>);

    /// Where the last record stands.
    fn appended(&self) -> Position;

    /// All records up to here are as safe as this store makes them.
    fn durable(&self) -> Position;

    /// All records up to here have at least been handed to the operating system, so that they outlive this process. Never
    /// behind [`Store::durable`].
    fn written(&self) -> Position;

    /// Whether a message has become durable, and can be loaded as long as somebody is owed it.
    fn holds(&self, message: MessageId) -> bool;

    /// The bytes of a message that is durable and not settled.
    ///
    /// # Errors
    /// If they cannot be read now, or are not there any more.
    fn load(&self, message: MessageId) -> Result<StoredMessage, LoadError>;

    /// Hands over what has been appended: to be called at the end of each turn.
    fn submit(&mut self);
}

/// Keeps nothing: the Sessions in memory are all there is, and every record counts as safe at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    #[inline]
    fn keeps(&self) -> bool {
        false
    }

    #[inline]
    fn accepts(&self) -> bool {
        true
    }

    #[inline]
    fn next_message(&mut self) -> Option<MessageId> {
        None
    }

    #[inline]
    fn next_session(&mut self) -> Option<SessionNumber> {
        None
    }

    #[inline]
    fn append(&mut self, _record: &Record<'_>) -> Position {
        Position::default()
    }

    #[inline]
    fn add_receivers(&mut self, _message: MessageId, _receivers: Vec<Receiver>) {}

    #[inline]
    fn appended(&self) -> Position {
        Position::default()
    }

    #[inline]
    fn durable(&self) -> Position {
        Position::default()
    }

    #[inline]
    fn written(&self) -> Position {
        Position::default()
    }

    #[inline]
    fn holds(&self, _message: MessageId) -> bool {
        false
    }

    #[inline]
    fn load(&self, _message: MessageId) -> Result<StoredMessage, LoadError> {
        Err(LoadError::Damaged)
    }

    #[inline]
    fn submit(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_jumps_no_further_than_it_may() {
        let clock = Clock { broker: 1_000, wall: 50_000 };
        assert_eq!(clock.resumed(57_000, u64::MAX), 8_000);
        assert_eq!(clock.resumed(10, u64::MAX), 1_000);
        assert_eq!(clock.resumed(u64::MAX, 3_000), 4_000);
        // Whatever the calendar says: an hour and a day either way, the end of 32 bits of seconds, and a clock that lost its battery.
        const HOUR: u64 = 3_600_000;
        const END_OF_32_BITS: u64 = (1 << 31) * 1_000;
        let month = 30 * 24 * HOUR;
        for wall in [END_OF_32_BITS - 1, END_OF_32_BITS, 1_800_000_000_000] {
            let clock = Clock { broker: 1_000, wall };
            for (now, passed) in [
                (wall + HOUR, HOUR),
                (wall + 24 * HOUR, 24 * HOUR),
                (wall - HOUR, 0),
                (wall - 24 * HOUR, 0),
                (0, 0),
                (wall + 20 * 365 * 24 * HOUR, month),
            ] {
                assert_eq!(clock.resumed(now, month), 1_000 + passed, "{wall} {now}");
            }
        }
        let lived = |last_alive, wall| clock.lived(last_alive, wall, 3_000);
        assert_eq!(lived(Some(51_000), 60_000), Clock { broker: 2_000, wall: 51_000 });
        assert_eq!(lived(Some(59_000), 60_000), Clock { broker: 4_000, wall: 59_000 });
        // Before the last time that was written down, or later than now: the clock was another one then.
        for last_alive in [None, Some(49_000), Some(60_001)] {
            assert_eq!(lived(last_alive, 60_000), clock);
        }
    }
}
