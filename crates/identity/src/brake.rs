//! A brake for guesses: back-off after failures, by address, by user, and by both.
//!
//! | counted for | free | then |
//! |---|---|---|
//! | an address (IPv4, or the /64 of an IPv6 address) | [`Limits::per_address`] | each further failure doubles the wait, from 1 s to [`Limits::wait_max`] |
//! | a user name | [`Limits::per_user`] | one try a second over all addresses |
//! | a user name at an address where it has got in lately | [`PER_PAIR`] | as for an address |
//!
//! A failure is forgotten after [`Limits::forgive`]. The third line takes the place of the others for whoever has proved
//! to be that user at that address within [`KNOWN_FOR`]: so a fleet behind one address is not locked out by its neighbour's
//! wrong password, and a user is not locked out by strangers who guess. Whoever guesses at a user from many addresses
//! gets one guess a second; who guesses at many users from one address waits ever longer. What is refused here is not
//! verified, costs nothing, and does not count as a failure.
//!
//! And when the memory is full? Of a few entries the one that will be forgotten first makes room; so a flood of addresses
//! makes the brake forget, never lock out somebody else.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use pantala_session::Instant;

/// Free failures of a user at an address where it has got in lately.
pub const PER_PAIR: u32 = 10;
/// How long "lately" is.
pub const KNOWN_FOR: Duration = Duration::from_hours(24);
/// Entries of each of the three kinds.
const ENTRIES_MAX: usize = 16_384;
/// How many entries are looked at for the one to be forgotten.
const SAMPLES: usize = 8;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Of a user over all addresses.
const USER_WAIT: Duration = Duration::from_secs(1);

/// How patient the brake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures that an address has free. 0: addresses are not braked. Default 50.
    pub per_address: u32,
    /// Failures that a user name has free. 0: user names are not braked. Default 20.
    pub per_user: u32,
    /// The longest wait. Default 60 s.
    pub wait_max: Duration,
    /// After so long one failure is forgotten. Default 10 s.
    pub forgive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_address: 50, per_user: 20, wait_max: Duration::from_secs(60), forgive: Duration::from_secs(10) }
    }
}

/// Failures and successes of late.
#[derive(Debug)]
pub struct Brake {
    limits: Limits,
    addresses: Table<Place>,
    users: Table<Box<str>>,
    pairs: Table<(Place, Box<str>)>,
}

/// An address as one party: all of a /64 belongs to one customer, mostly. None is a Unix socket.
type Place = Option<IpAddr>;

/// The part of an address that is counted.
pub fn place(address: Option<IpAddr>) -> Option<IpAddr> {
    match address?.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            Some(IpAddr::V6(Ipv6Addr::from(bits)))
        }
        address => Some(address),
    }
}

impl Brake {
    /// One that knows of no failure.
    pub fn new(limits: Limits) -> Self {
        Self { limits, addresses: Table::default(), users: Table::default(), pairs: Table::default() }
    }

    /// Whether these credentials may be verified. A user over its limit gets one try a second, and this is it.
    pub fn may_try(&mut self, now: Instant, address: Option<IpAddr>, user_name: Option<&str>) -> bool {
        let place = place(address);
        if let Some(user_name) = user_name
            && let Some(pair) = self.pairs.entries.get(&(place, user_name.into()))
            && pair.known_until > now
        {
            return pair.free_at <= now;
        }
        if self.addresses.entries.get(&place).is_some_and(|entry| entry.free_at > now) {
            return false;
        }
        if let Some(user_name) = user_name
            && let Some(entry) = self.users.entries.get_mut(user_name)
        {
            if entry.free_at > now {
                return false;
            }
            if self.limits.per_user > 0 && entry.failures(now, self.limits.forgive) >= self.limits.per_user {
                entry.free_at = now.after(USER_WAIT);
            }
        }
        true
    }

    /// The credentials were wrong.
    pub fn failed(&mut self, now: Instant, address: Option<IpAddr>, user_name: Option<&str>) {
        let place = place(address);
        let Limits { per_address, per_user, wait_max, forgive } = self.limits;
        if let Some(user_name) = user_name {
            let key = (place, Box::from(user_name));
            if let Some(pair) = self.pairs.entries.get_mut(&key)
                && pair.known_until > now
            {
                pair.fail(now, forgive);
                pair.back_off(now, PER_PAIR, wait_max);
                return;
            }
            if per_user > 0 {
                let user = self.users.entry(now, Box::from(user_name), forgive);
                user.fail(now, forgive);
                if user.count >= per_user {
                    user.free_at = now.after(USER_WAIT);
                }
            }
        }
        if per_address > 0 {
            let entry = self.addresses.entry(now, place, forgive);
            entry.fail(now, forgive);
            entry.back_off(now, per_address, wait_max);
        }
    }

    /// The credentials were right: this user is known at this address.
    pub fn succeeded(&mut self, now: Instant, address: Option<IpAddr>, user_name: Option<&str>) {
        let Some(user_name) = user_name else { return };
        let forgive = self.limits.forgive;
        let pair = self.pairs.entry(now, (place(address), user_name.into()), forgive);
        pair.known_until = now.after(KNOWN_FOR);
        pair.count = 0;
        pair.free_at = now;
    }

    /// How many entries had to be forgotten for want of room.
    pub fn forgotten(&self) -> u64 {
        self.addresses.forgotten + self.users.forgotten + self.pairs.forgotten
    }
}

/// What is known of an address, a user, or both.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// Failures that are not forgotten, as of `since`.
    count: u32,
    since: Instant,
    /// Nothing is verified before.
    free_at: Instant,
    /// The user has got in here, and until then is not a stranger.
    known_until: Instant,
}

impl Record {
    fn failures(&self, now: Instant, forgive: Duration) -> u32 {
        let forgive = u64::try_from(forgive.as_millis()).unwrap_or(u64::MAX).max(1);
        let forgiven = now.0.saturating_sub(self.since.0) / forgive;
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    fn fail(&mut self, now: Instant, forgive: Duration) {
        let left = self.failures(now, forgive);
        if left < self.count || self.count == 0 {
            self.since = now;
        }
        self.count = left.saturating_add(1);
    }

    fn back_off(&mut self, now: Instant, free: u32, wait_max: Duration) {
        let Some(beyond) = self.count.checked_sub(free) else { return };
        let wait = FIRST_WAIT.saturating_mul(1_u32 << beyond.min(20)).min(wait_max);
        self.free_at = now.after(wait);
    }

    /// When nothing of it matters any more.
    fn over_at(&self, forgive: Duration) -> Instant {
        self.since.after(forgive.saturating_mul(self.count)).max(self.free_at).max(self.known_until)
    }
}

#[derive(Debug)]
struct Table<K> {
    // With a random seed: names and addresses are an attacker's choice.
    entries: HashMap<K, Record>,
    /// For choosing whom to look at when there is no room.
    order: Vec<K>,
    hand: usize,
    forgotten: u64,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        // Where the hand begins is nobody's business.
        let hand = RandomState::new().hash_one(0) as usize % ENTRIES_MAX;
        Self { entries: HashMap::new(), order: Vec::new(), hand, forgotten: 0 }
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    /// The entry of this key, made if there is none.
    fn entry(&mut self, now: Instant, key: K, forgive: Duration) -> &mut Record {
        if !self.entries.contains_key(&key) {
            if self.order.len() < ENTRIES_MAX {
                self.order.push(key.clone());
            } else {
                self.replace(now, key.clone(), forgive);
            }
        }
        match self.entries.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Record::default()),
        }
    }

    /// Forgets the one of a few that would be forgotten first, and puts the key in its place.
    fn replace(&mut self, now: Instant, key: K, forgive: Duration) {
        let over_at = |table: &Self, place: usize| {
            table.entries.get(&table.order[place]).map_or(Instant(0), |record| record.over_at(forgive))
        };
        let places = (0..SAMPLES).map(|step| (self.hand + step) % ENTRIES_MAX);
        let place = places.min_by_key(|place| over_at(self, *place)).unwrap_or(0);
        self.hand = (self.hand + SAMPLES) % ENTRIES_MAX;
        if over_at(self, place) > now {
            self.forgotten += 1;
        }
        let old = std::mem::replace(&mut self.order[place], key);
        self.entries.remove(&old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn away(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(std::net::Ipv4Addr::from(0x0A00_0000 + number)))
    }

    fn brake() -> Brake {
        Brake::new(Limits::default())
    }

    /// Tries so often at this time; returns how many were verified, all of which fail.
    fn guess(brake: &mut Brake, now: Instant, address: Option<IpAddr>, user: &str, tries: u32) -> u32 {
        let mut verified = 0;
        for _ in 0..tries {
            if brake.may_try(now, address, Some(user)) {
                verified += 1;
                brake.failed(now, address, Some(user));
            }
        }
        verified
    }

    #[test]
    fn an_address_that_fails_waits_ever_longer_and_is_forgiven() {
        let mut brake = Brake::new(Limits { per_user: 0, ..Limits::default() });
        assert_eq!(guess(&mut brake, Instant(0), HOME, "ann", 1_000), 50);
        // 1 s, then 2 s, then 4 s.
        let mut now = 0;
        for wait in [1_000, 2_000, 4_000] {
            assert_eq!(guess(&mut brake, Instant(now + wait - 1), HOME, "bob", 10), 0, "{wait}");
            now += wait;
            assert_eq!(guess(&mut brake, Instant(now), HOME, "bob", 10), 1, "{wait}");
        }
        // Others are not concerned.
        assert!(brake.may_try(Instant(now), away(1), Some("cid")));
        // In an hour all of it is forgiven.
        assert_eq!(guess(&mut brake, Instant(now + 3_600_000), HOME, "bob", 1_000), 50);
        // And the wait has an end, however often it fails.
        let mut now = now + 3_600_000;
        for _ in 0..100 {
            now += 60_000;
            assert!(guess(&mut brake, Instant(now), HOME, "bob", 1) == 1);
        }
    }

    #[test]
    fn a_user_guessed_at_from_everywhere_gets_one_try_a_second() {
        let mut brake = brake();
        let mut verified = 0;
        // A thousand a second for a minute, each from an address of its own.
        for millisecond in 0..60_000_u32 {
            verified += guess(&mut brake, Instant(u64::from(millisecond)), away(millisecond), "ann", 1);
        }
        assert!((60..=100).contains(&verified), "{verified}");
        // Another user at another address does not notice.
        assert!(brake.may_try(Instant(60_000), HOME, Some("canary")));
    }

    #[test]
    fn a_user_known_at_an_address_is_not_locked_out_by_others() {
        let mut brake = brake();
        brake.succeeded(Instant(0), HOME, Some("canary"));
        // Neighbours behind the same address, and strangers who want to be the canary.
        guess(&mut brake, Instant(1), HOME, "eve", 1_000);
        for number in 0..1_000 {
            guess(&mut brake, Instant(2), away(number), "canary", 10);
        }
        assert!(!brake.may_try(Instant(3), HOME, Some("eve")));
        assert!(!brake.may_try(Instant(3), away(5_000), Some("canary")));
        assert!(brake.may_try(Instant(3), HOME, Some("canary")));
        // Who guesses at it from its own address is braked all the same.
        assert_eq!(guess(&mut brake, Instant(4), HOME, "canary", 1_000), PER_PAIR);
        assert!(!brake.may_try(Instant(5), HOME, Some("canary")));
        assert!(brake.may_try(Instant(1_004), HOME, Some("canary")));
        brake.succeeded(Instant(1_004), HOME, Some("canary"));
        assert!(brake.may_try(Instant(1_005), HOME, Some("canary")));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut brake = Brake::new(Limits { per_user: 0, ..Limits::default() });
        let address = |text: &str| Some(text.parse().expect("it is an address"));
        let mut verified = 0;
        for host in 0..1_000 {
            verified += guess(&mut brake, Instant(0), address(&format!("2001:db8:0:1::{host:x}")), "ann", 1);
        }
        assert_eq!(verified, 50);
        assert!(brake.may_try(Instant(0), address("2001:db8:0:2::1"), Some("ann")));
        // The IPv4 address in an IPv6 one is that address.
        guess(&mut brake, Instant(0), address("::ffff:192.0.2.1"), "ann", 100);
        assert!(!brake.may_try(Instant(0), HOME, Some("ann")));
    }

    #[test]
    fn memory_is_bounded_and_a_flood_locks_nobody_out() {
        let mut brake = brake();
        brake.succeeded(Instant(0), HOME, Some("canary"));
        for number in 0..100_000 {
            brake.failed(Instant(1), away(number), Some(&format!("user {number}")));
        }
        for length in [brake.addresses.order.len(), brake.users.entries.len(), brake.addresses.entries.len()] {
            assert_eq!(length, ENTRIES_MAX);
        }
        assert!(brake.forgotten() > 100_000);
        assert!(brake.may_try(Instant(2), HOME, Some("canary")));
        assert!(brake.may_try(Instant(2), away(200_000), Some("new")));
    }

    #[test]
    fn zero_is_no_brake() {
        let mut brake = Brake::new(Limits { per_address: 0, per_user: 0, ..Limits::default() });
        assert_eq!(guess(&mut brake, Instant(0), HOME, "ann", 1_000), 1_000);
    }
}
