//! Durability by Topic Filter: messages that are kept in memory only, or acknowledged before they are synced.
//!
//! A message that is kept in memory only gets no name, so nothing that is said of named messages is said of it: to the store
//! it never was. Three things about it are known to the store all the same:
//!
//! - Of a QoS 2 exchange with a Session that outlives the process, that its Packet Identifier is in use. It is recorded as one
//!   that waits for PUBCOMP before PUBLISH goes out, so that after a crash PUBREL follows. If the identifier were free then,
//!   another message could get it, and a client that had answered PUBREC would take that one for a repeat.
//! - That a Retained Message from before the rule is over, before the first one after it is acknowledged.
//! - That a Will from before the rule is over.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pantala_router::topic_matches;
use pantala_store::{Durability, Position, Record, Store};

use crate::Settings;
use crate::core::Core;

/// What an answer vouches for, and so waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// All up to there is as safe as the store makes it.
    Durable(Position),
    /// All up to there is with the operating system.
    Written(Position),
}

impl From<Position> for Until {
    fn from(position: Position) -> Self {
        Self::Durable(position)
    }
}

/// Topics that have a Retained Message on the disk and are kept in memory only by now. The disk's is as good as any until
/// there is a newer one; then it must never come back. Shared by all workers, as each of them may get the newer one.
#[derive(Debug, Default)]
pub(crate) struct RetainedBefore {
    /// How many there are: mostly none, and then nobody needs the lock.
    count: AtomicUsize,
    topics: Mutex<HashSet<Box<str>>>,
}

impl RetainedBefore {
    fn topics(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, topic_name: &str) {
        let mut topics = self.topics();
        topics.insert(topic_name.into());
        self.count.store(topics.len(), Ordering::Release);
    }

    fn remove(&self, topic_name: &str) {
        let mut topics = self.topics();
        topics.remove(topic_name);
        self.count.store(topics.len(), Ordering::Release);
    }

    fn contains(&self, topic_name: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.topics().contains(topic_name)
    }
}

/// The level of messages with this Topic Name by the first rule that matches; None is the broker's own.
pub(crate) fn level(settings: &Settings, topic_name: &str) -> Option<Durability> {
    settings.durability_rules.iter().find(|rule| topic_matches(&rule.filter, topic_name)).map(|rule| rule.level)
}

impl<S: Store> Core<S> {
    /// The level of messages with this Topic Name; None is the broker's own. To be asked only about what would be kept.
    pub(crate) fn level(&self, topic_name: &str) -> Option<Durability> {
        if self.store.keeps() { level(&self.settings, topic_name) } else { None }
    }

    /// A message that is kept in memory only is to be retained: the one that the disk may have for its topic is over. Returns
    /// what the acknowledgement has to wait for.
    pub(crate) fn end_retained_before(&mut self, topic_name: &str) -> Position {
        if !self.totals.retained_before.contains(topic_name) {
            return Position::default();
        }
        // It is over only when the store has got there: until then each new message says it again, and waits.
        let Some(message) = self.store.next_message() else { return Position::default() };
        let position = self.store.append(&Record::RetainedEnded { topic_name, message });
        self.retained_ending.push_back((position, topic_name.into()));
        position
    }

    /// Retained Messages from before a rule that the store has forgotten.
    pub(crate) fn forget_retained_before(&mut self, durable: Position) {
        while let Some((_, topic_name)) = self.retained_ending.pop_front_if(|(position, _)| *position <= durable) {
            self.totals.retained_before.remove(&topic_name);
        }
    }
}
