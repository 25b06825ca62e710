//! What must outlive the process, as a log of records, and how far it has got.
//!
//! The core appends a [`Record`] for each change of state that an acknowledgement vouches for, gets a [`Position`], and
//! holds the acknowledgement until [`Store::durable`] has reached it. That is the whole contract: a store may keep
//! records in memory ([`MemoryStore`]), commit them in batches on a thread of its own, or fail on purpose.
//!
//! It knows no network and no MQTT exchange: a record says what is to be remembered, not what is to be sent.

pub mod disk;
pub mod log;

use std::num::NonZeroU32;

/// A place in the log: how many records have been appended up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// One change of state. Strings are Client Identifiers, Topic Names and Topic Filters as MQTT has them; `qos` is 0 to 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A Session has begun or gone on with another expiry.
    Session {
        /// Whose.
        client_id: &'a str,
        /// Seconds it outlives its connection; `u32::MAX` is for ever.
        expiry_interval: u32,
    },
    /// A Session has ended with all it held.
    SessionEnded {
        /// Whose.
        client_id: &'a str,
    },
    /// A subscription was made or replaced.
    Subscription {
        /// Whose.
        client_id: &'a str,
        /// Its Topic Filter, with `$share/…/` if it has that.
        filter: &'a str,
        /// Subscription Options as SUBSCRIBE writes them.
        options: u8,
        /// Subscription Identifier.
        identifier: Option<NonZeroU32>,
    },
    /// A subscription was removed.
    SubscriptionEnded {
        /// Whose.
        client_id: &'a str,
        /// Its Topic Filter.
        filter: &'a str,
    },
    /// A QoS 2 message from this client is known by its Packet Identifier: committed together with its routing.
    ExactlyOnceOpen {
        /// Whose.
        client_id: &'a str,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The client has released that Packet Identifier.
    ExactlyOnceReleased {
        /// Whose.
        client_id: &'a str,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// A message waits for, or is on its way to, a Session.
    Queued {
        /// For whom.
        client_id: &'a str,
        /// The QoS it is delivered with.
        qos: u8,
        /// Topic Name.
        topic_name: &'a str,
        /// Properties as PUBLISH has them.
        properties: &'a [u8],
        /// Payload.
        payload: &'a [u8],
    },
    /// A message to a Session is settled.
    Settled {
        /// For whom.
        client_id: &'a str,
        /// The Packet Identifier it went with.
        packet_id: u16,
    },
    /// A Retained Message replaces that of its topic.
    Retained {
        /// Topic Name.
        topic_name: &'a str,
        /// The QoS it was published with.
        qos: u8,
        /// Properties as PUBLISH has them.
        properties: &'a [u8],
        /// Payload.
        payload: &'a [u8],
    },
    /// The Retained Message of a topic is gone.
    RetainedEnded {
        /// Topic Name.
        topic_name: &'a str,
    },
}

/// Where records go.
pub trait Store {
    /// Takes a record over; its bytes are copied if they are needed later. Returns where it stands.
    fn append(&mut self, record: Record<'_>) -> Position;

    /// All records up to here are as safe as this store makes them.
    fn durable(&self) -> Position;
}

/// Keeps nothing: the Sessions in memory are all there is, and every record counts as safe at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryStore {
    position: Position,
}

impl Store for MemoryStore {
    #[inline]
    fn append(&mut self, _record: Record<'_>) -> Position {
        self.position.0 += 1;
        self.position
    }

    #[inline]
    fn durable(&self) -> Position {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_safe_at_once() {
        let mut store = MemoryStore::default();
        let position = store.append(Record::SessionEnded { client_id: "a" });
        assert!(store.durable() >= position);
        assert!(store.append(Record::SessionEnded { client_id: "a" }) > position);
    }
}
