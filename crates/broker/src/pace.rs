//! Clients that are too fast: what they send waits in the network, or their connection is refused.
//!
//! Messages and bytes are charged once per read, not per message, and only where the client's listener has a limit. Each has a moment up to
//! which the connection has used up its rate; one that is more than a second ahead of the clock is not read until it is a
//! second ahead. So a client may send what one second allows at once, and what one read brings. A moment that is over says
//! nothing, so only those that have sent something just now are remembered, beside the connections.
//!
//! Clients of this machine, by a loopback address or without one by a Unix socket, have no such limit: load tools are there, and
//! bridges, and nobody who could not do worse.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use pantala_session::Instant;
use pantala_store::Store;

use crate::connection::Phase;
use crate::core::Core;
use crate::{Cause, ConnectionKey, Event, ListenerId, ListenerRate, ListenerSettings, Settings};

const MESSAGES: &str = "messages_per_second_max";
const BYTES: &str = "bytes_per_second_max";
const MICROSECONDS: u64 = 1_000_000;
/// Client Identifiers whose takeovers are counted at once; when there are more, all begin anew.
const TAKEOVERS_MAX: usize = 4_096;

/// How fast one client may send.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    messages_per_second_max: Option<NonZeroU32>,
    bytes_per_second_max: Option<NonZeroU32>,
}

impl Rate {
    /// Whether it is one.
    pub(crate) fn is_limit(self) -> bool {
        self.messages_per_second_max.is_some() || self.bytes_per_second_max.is_some()
    }
}

/// What holds at each listener, by its number: made with the settings, so that nothing has to be looked for at a read.
#[derive(Debug)]
pub(crate) struct Rates(Box<[Rate]>);

impl Rates {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rate = |listener: &ListenerSettings| Rate {
            messages_per_second_max: listener.messages_per_second_max.or(settings.messages_per_second_max),
            bytes_per_second_max: listener.bytes_per_second_max.or(settings.bytes_per_second_max),
        };
        Self(settings.listeners.iter().map(rate).collect())
    }

    #[inline]
    pub(crate) fn at(&self, listener: ListenerId) -> Rate {
        self.0.get(usize::from(listener)).copied().unwrap_or_default()
    }
}

/// Up to when a connection has used up its rates, in microseconds of the broker's clock.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Of the connection: its key may have been another's.
    generation: u32,
    messages: u64,
    bytes: u64,
}

/// Connections whose rates are used up to a moment that has not come, and some for which it has.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    map: HashMap<ConnectionKey, Pace, BuildHasherDefault<KeyHasher>>,
    /// With so many they are looked through for those that say nothing any more: twice as many as there were then.
    sweep_at: usize,
}

/// With fewer, none is forgotten.
const SWEEP_AT_MIN: usize = 256;

impl Paces {
    /// That of a connection.
    fn of(&mut self, clock: u64, key: ConnectionKey, generation: u32) -> &mut Pace {
        if self.map.len() >= self.sweep_at.max(SWEEP_AT_MIN) {
            self.map.retain(|_, pace| pace.messages.max(pace.bytes) > clock);
            self.sweep_at = 2 * self.map.len();
            self.map.shrink_to(self.sweep_at);
        }
        let pace = self.map.entry(key).or_default();
        if pace.generation != generation {
            *pace = Pace { generation, ..Pace::default() };
        }
        pace
    }
}

/// Keys are places in a slab, which nobody outside can choose.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, value: u32) {
        // The map looks at the highest bits and the lowest.
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Pace {
    /// Charges so many of something; returns how many microseconds more than one second this is ahead.
    fn charge(used: &mut u64, now: u64, count: u64, per_second: NonZeroU32) -> u64 {
        let cost = u128::from(count) * u128::from(MICROSECONDS) / u128::from(per_second.get());
        *used = (*used).max(now).saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        used.saturating_sub(now.saturating_add(MICROSECONDS))
    }
}

impl<S: Store> Core<S> {
    /// Takes bytes in, of which so many have not been charged, and charges what they brought.
    #[inline(never)]
    pub(crate) fn receive_at_pace(&mut self, now: Instant, key: ConnectionKey, input: &[u8], bytes: usize) {
        let before = self.counters.publish_received;
        self.take_in(now, key, input);
        let messages = self.counters.publish_received - before;
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        // Before that nothing but CONNECT is taken, which has limits of its own.
        if connection.phase != Phase::Connected {
            return;
        }
        let listener = connection.listener;
        let rate = self.rates.at(listener);
        let pace = self.paces.of(now.0.saturating_mul(1_000), key, connection.generation);
        let (clock, mut ahead, mut limit) = (now.0.saturating_mul(1_000), 0, None);
        if let Some(max) = rate.messages_per_second_max {
            ahead = Pace::charge(&mut pace.messages, clock, messages, max);
            limit = Some((MESSAGES, max));
        }
        if let Some(max) = rate.bytes_per_second_max {
            let more = Pace::charge(&mut pace.bytes, clock, bytes as u64, max);
            if more > ahead || limit.is_none() {
                (ahead, limit) = (more, Some((BYTES, max)));
            }
        }
        let (Some((key_of_limit, max)), true) = (limit, ahead > 0) else { return };
        let first = connection.extras().paused_until.replace(now.after(Duration::from_micros(ahead))).is_none();
        if first {
            self.counters.reads_paused += 1;
            let session = self.connections[key as usize].session;
            if let Some(session) = session {
                let client_id = self.sessions[session as usize].client_id.clone();
                let cause = self.rate_cause(listener, key_of_limit, max);
                self.events.push_back(Event::Paused { connection: key, client_id, cause });
            }
        }
        self.arm(now, key);
    }

    /// Where a limit is written that a client has met.
    fn rate_cause(&self, listener: ListenerId, key: &'static str, max: NonZeroU32) -> Cause {
        let listener = self.settings.listeners.get(usize::from(listener));
        let own = listener.map(|it| if key == MESSAGES { it.messages_per_second_max } else { it.bytes_per_second_max });
        match own {
            Some(ListenerRate::PerSecond(_)) => Cause::ListenerSetting { key, value: max.get().into() },
            _ => Cause::setting(key, max.get()),
        }
    }

    /// A connection that was too fast is read again.
    pub(crate) fn resume_reading(&mut self, now: Instant, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.extras().paused_until = None;
        // Whatever it has said meanwhile has not been looked at.
        connection.keep_alive.packet_received(now);
        // So that the shell looks at it, and reads on.
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Whether a client may take over the connection of its own Client Identifier, or has done so too often: two that have the
    /// same one and both come back at once would go on for ever.
    pub(crate) fn may_take_over(&mut self, now: Instant, client_id: &str) -> bool {
        let Some(max) = self.settings.takeovers_per_second_max else { return true };
        if self.takeovers.0.len() >= TAKEOVERS_MAX {
            self.takeovers.0.clear();
        }
        let (begun, count) = match self.takeovers.0.get_mut(client_id) {
            Some(known) => known,
            None => self.takeovers.0.entry(client_id.into()).or_insert((now, 0)),
        };
        if now >= begun.after(Duration::from_secs(1)) {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
        *count <= max.get()
    }
}

/// By Client Identifier: since when takeovers are counted, and how many there have been.
#[derive(Debug, Default)]
pub(crate) struct Takeovers(HashMap<Box<str>, (Instant, u32)>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_second_allows_is_free_at_once_and_then_each_has_its_price() {
        let per_second = NonZeroU32::new(10).unwrap();
        let mut used = 0;
        assert_eq!(Pace::charge(&mut used, 5_000_000, 10, per_second), 0);
        assert_eq!(Pace::charge(&mut used, 5_000_000, 1, per_second), 100_000);
        // A second and a tenth later it is where it began.
        assert_eq!(Pace::charge(&mut used, 6_100_000, 10, per_second), 0);
        assert_eq!(Pace::charge(&mut used, u64::MAX - 1, u64::MAX, per_second), 0);
    }
}
