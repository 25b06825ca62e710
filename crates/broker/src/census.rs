//! What a worker has, for an operator.
//!
//! Nothing is counted where messages pass: who asks has the Sessions and connections looked through, a bounded number each
//! time. So with more of them than that, the figures are those of the last round that was complete.

use pantala_store::Store;

use crate::core::Core;

/// Sessions, and connections, that one call looks at.
const LOOKED_AT_MAX: usize = 65_536;

/// What one worker has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Subscriptions, shared ones among them.
    pub subscriptions: u64,
    /// Shared ones.
    pub shared_subscriptions: u64,
    /// Messages that wait in queues; one that waits for several Sessions counts for each.
    pub queued_messages: u64,
    /// Their topics, properties and payloads.
    pub queued_bytes: u64,
    /// Messages whose exchange is open.
    pub inflight_messages: u64,
    /// Their topics, properties and payloads.
    pub inflight_bytes: u64,
    /// Retained Messages, the broker's own among them.
    pub retained_messages: u64,
    /// Their payloads.
    pub retained_bytes: u64,
    /// Connections with bytes that wait to be written.
    pub output_connections: u64,
    /// These bytes.
    pub output_bytes: u64,
}

impl Census {
    /// Adds that of another worker.
    pub fn add(&mut self, other: &Self) {
        let Self {
            subscriptions,
            shared_subscriptions,
            queued_messages,
            queued_bytes,
            inflight_messages,
            inflight_bytes,
            retained_messages,
            retained_bytes,
            output_connections,
            output_bytes,
        } = other;
        self.subscriptions += subscriptions;
        self.shared_subscriptions += shared_subscriptions;
        self.queued_messages += queued_messages;
        self.queued_bytes += queued_bytes;
        self.inflight_messages += inflight_messages;
        self.inflight_bytes += inflight_bytes;
        self.retained_messages += retained_messages;
        self.retained_bytes += retained_bytes;
        self.output_connections += output_connections;
        self.output_bytes += output_bytes;
    }
}

/// How far the present round has come.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// The next place in the Sessions and in the connections.
    next: usize,
    /// What has been found on the way.
    partly: Census,
    complete: Census,
}

impl<S: Store> Core<S> {
    /// Looks at some more Sessions and connections, and tells what the last complete round has found: with up to 65 536 of
    /// each that is the present one.
    pub fn census(&mut self) -> Census {
        let Self { counting, sessions, connections, .. } = self;
        let end = sessions.capacity().max(connections.capacity());
        let stop = end.min(counting.next.saturating_add(LOOKED_AT_MAX));
        let found = &mut counting.partly;
        for place in counting.next..stop {
            if let Some(session) = sessions.get(place) {
                found.subscriptions += session.subscriptions.len() as u64;
                found.shared_subscriptions += u64::from(session.shared_subscriptions);
                if let Some(owed) = &session.owed {
                    found.queued_messages += owed.exchanges.queue_len() as u64;
                    found.inflight_messages += owed.exchanges.inflight_len() as u64;
                    found.queued_bytes += owed.queued_bytes;
                    found.inflight_bytes += owed.inflight_bytes;
                }
            }
            if let Some(connection) = connections.get(place) {
                let pending = connection.output.pending() as u64;
                found.output_connections += u64::from(pending > 0);
                found.output_bytes += pending;
            }
        }
        counting.next = stop;
        if stop == end {
            counting.complete = std::mem::take(found);
            counting.next = 0;
        }
        Census {
            retained_messages: self.retained.len() as u64,
            retained_bytes: self.retained_bytes,
            ..self.counting.complete
        }
    }
}
