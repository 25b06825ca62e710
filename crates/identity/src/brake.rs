//! A brake for guesses: back-off after failures, by address, by user, and by both.
//!
//! | counted for | free | then |
//! |---|---|---|
//! | an address (IPv4, or the /64 of an IPv6 address) | [`Limits::per_address`] | each further failure doubles the wait, from 1 s to [`Limits::wait_max`] |
//! | a user name | [`Limits::per_user`] | one try a second over all addresses |
//! | a user name at an address where it has got in lately | [`PER_PAIR`] | as for an address |
//!
//! Once nothing is free, the end of a wait is good for one try: it begins the next wait, whatever comes of it. Until then any
//! number of tries may begin before the first one is known to have failed. So who has waited in a queue asks again when its
//! turn comes ([`Brake::may_go_on`]), and no more are verified than are free and being verified at that time.
//!
//! A failure is forgotten after [`Limits::forgive`]. The third line takes the place of the others for whoever has proved
//! to be that user at that address within [`KNOWN_FOR`]: so a fleet behind one address is not locked out by its neighbour's
//! wrong password, and a user is not locked out by strangers who guess. Whoever guesses at a user from many addresses
//! gets one guess a second; who guesses at many users from one address waits ever longer. What is refused here is not
//! verified, costs nothing, and does not count as a failure. What a token says is no name to guess at, so it has no second line
//! ([`Name::Token`]).
//!
//! The same name in two security domains is two users: who proves to be one of them is a stranger to the other. An address is
//! one, wherever it fails.
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
    users: Table<User>,
    pairs: Table<(Place, User)>,
}

/// A security domain's number, and a name there.
type User = (u16, Box<str>);

/// In whose name somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// In nobody's.
    None,
    /// In a user's, who has a secret that can be guessed.
    User(&'a str),
    /// In that of the user a token is about, who has none. Anybody can show rubbish in this name, and must not keep out
    /// those who come from elsewhere.
    Token(&'a str),
}

impl<'a> Name<'a> {
    /// The name, whoever says it.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::User(name) | Self::Token(name) => Some(name),
        }
    }

    fn known_at(self, domain: u16) -> Option<User> {
        self.text().map(|name| (domain, name.into()))
    }

    fn guessed_at(self, domain: u16) -> Option<User> {
        match self {
            Self::User(name) => Some((domain, name.into())),
            Self::None | Self::Token(_) => None,
        }
    }
}

impl<'a> From<Option<&'a str>> for Name<'a> {
    fn from(user_name: Option<&'a str>) -> Self {
        user_name.map_or(Self::None, Self::User)
    }
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

    /// Whether these credentials may be verified. Where nothing is free, this is the one try until the next wait is over.
    pub fn may_try<'a>(
        &mut self,
        now: Instant,
        address: Option<IpAddr>,
        domain: u16,
        name: impl Into<Name<'a>>,
    ) -> bool {
        let (place, name) = (place(address), name.into());
        let Limits { per_address, per_user, wait_max, forgive } = self.limits;
        if let Some(pair) = self.known_pair(now, place, domain, name) {
            let may = pair.free_at <= now;
            if may {
                pair.spend(now, PER_PAIR, wait_max, forgive);
            }
            return may;
        }
        let held = |record: Option<&Record>| record.is_some_and(|record| record.free_at > now);
        let user = name.guessed_at(domain);
        let user = user.as_ref();
        if held(self.addresses.entries.get(&place)) || held(user.and_then(|user| self.users.entries.get(user))) {
            return false;
        }
        if let Some(entry) = self.addresses.entries.get_mut(&place)
            && per_address > 0
        {
            entry.spend(now, per_address, wait_max, forgive);
        }
        if let Some(entry) = user.and_then(|user| self.users.entries.get_mut(user))
            && per_user > 0
            && entry.failures(now, forgive) >= per_user
        {
            entry.free_at = now.after(USER_WAIT);
        }
        true
    }

    /// Whether credentials that might be verified at `since`, and have waited for their turn, still may: not if others have
    /// failed since and nothing is free any more.
    pub fn may_go_on<'a>(
        &mut self,
        now: Instant,
        since: Instant,
        address: Option<IpAddr>,
        domain: u16,
        name: impl Into<Name<'a>>,
    ) -> bool {
        let (place, name) = (place(address), name.into());
        let overtaken = |record: &Record| record.free_at > now && record.failed_at > since;
        if let Some(pair) = self.known_pair(now, place, domain, name) {
            return !overtaken(pair);
        }
        let user = name.guessed_at(domain).and_then(|user| self.users.entries.get(&user));
        ![self.addresses.entries.get(&place), user].into_iter().flatten().any(overtaken)
    }

    /// What is known of this name at this place, if it is no stranger there.
    fn known_pair(&mut self, now: Instant, place: Place, domain: u16, name: Name<'_>) -> Option<&mut Record> {
        let key = (place, name.known_at(domain)?);
        self.pairs.entries.get_mut(&key).filter(|pair| pair.known_until > now)
    }

    /// The credentials were wrong.
    pub fn failed<'a>(&mut self, now: Instant, address: Option<IpAddr>, domain: u16, name: impl Into<Name<'a>>) {
        let (place, name) = (place(address), name.into());
        let Limits { per_address, per_user, wait_max, forgive } = self.limits;
        if let Some(pair) = self.known_pair(now, place, domain, name) {
            pair.fail(now, forgive);
            pair.back_off(now, PER_PAIR, wait_max);
            return;
        }
        if let Some(user) = name.guessed_at(domain)
            && per_user > 0
        {
            let user = self.users.entry(now, user, forgive);
            user.fail(now, forgive);
            if user.count >= per_user {
                user.free_at = now.after(USER_WAIT);
            }
        }
        if per_address > 0 {
            let entry = self.addresses.entry(now, place, forgive);
            entry.fail(now, forgive);
            entry.back_off(now, per_address, wait_max);
        }
    }

    /// The credentials were right, and those of this user itself: it is known at this address. Who has been let in as somebody
    /// else has not proved to be it, whatever it calls itself.
    pub fn succeeded<'a>(&mut self, now: Instant, address: Option<IpAddr>, domain: u16, name: impl Into<Name<'a>>) {
        let Some(user) = name.into().known_at(domain) else { return };
        let forgive = self.limits.forgive;
        let pair = self.pairs.entry(now, (place(address), user), forgive);
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
    /// When the last failure was.
    failed_at: Instant,
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
        self.failed_at = now;
    }

    /// Begins a wait if nothing is free: one try is under way.
    fn spend(&mut self, now: Instant, free: u32, wait_max: Duration, forgive: Duration) {
        self.wait(now, self.failures(now, forgive), free, wait_max);
    }

    fn back_off(&mut self, now: Instant, free: u32, wait_max: Duration) {
        self.wait(now, self.count, free, wait_max);
    }

    fn wait(&mut self, now: Instant, failures: u32, free: u32, wait_max: Duration) {
        let Some(beyond) = failures.checked_sub(free) else { return };
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
            if brake.may_try(now, address, 0, Some(user)) {
                verified += 1;
                brake.failed(now, address, 0, Some(user));
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
        assert!(brake.may_try(Instant(now), away(1), 0, Some("cid")));
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
        assert!(brake.may_try(Instant(60_000), HOME, 0, Some("canary")));
    }

    #[test]
    fn a_user_known_at_an_address_is_not_locked_out_by_others() {
        let mut brake = brake();
        brake.succeeded(Instant(0), HOME, 0, Some("canary"));
        // Neighbours behind the same address, and strangers who want to be the canary.
        guess(&mut brake, Instant(1), HOME, "eve", 1_000);
        for number in 0..1_000 {
            guess(&mut brake, Instant(2), away(number), "canary", 10);
        }
        assert!(!brake.may_try(Instant(3), HOME, 0, Some("eve")));
        assert!(!brake.may_try(Instant(3), away(5_000), 0, Some("canary")));
        assert!(brake.may_try(Instant(3), HOME, 0, Some("canary")));
        // Who guesses at it from its own address is braked all the same.
        assert_eq!(guess(&mut brake, Instant(4), HOME, "canary", 1_000), PER_PAIR);
        assert!(!brake.may_try(Instant(5), HOME, 0, Some("canary")));
        assert!(brake.may_try(Instant(1_004), HOME, 0, Some("canary")));
        brake.succeeded(Instant(1_004), HOME, 0, Some("canary"));
        assert!(brake.may_try(Instant(1_005), HOME, 0, Some("canary")));
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
        assert!(brake.may_try(Instant(0), address("2001:db8:0:2::1"), 0, Some("ann")));
        // The IPv4 address in an IPv6 one is that address.
        guess(&mut brake, Instant(0), address("::ffff:192.0.2.1"), "ann", 100);
        assert!(!brake.may_try(Instant(0), HOME, 0, Some("ann")));
    }

    #[test]
    fn memory_is_bounded_and_a_flood_locks_nobody_out() {
        let mut brake = brake();
        brake.succeeded(Instant(0), HOME, 0, Some("canary"));
        for number in 0..100_000 {
            brake.failed(Instant(1), away(number), 0, Some(format!("user {number}").as_str()));
        }
        for length in [brake.addresses.order.len(), brake.users.entries.len(), brake.addresses.entries.len()] {
            assert_eq!(length, ENTRIES_MAX);
        }
        assert!(brake.forgotten() > 100_000);
        assert!(brake.may_try(Instant(2), HOME, 0, Some("canary")));
        assert!(brake.may_try(Instant(2), away(200_000), 0, Some("new")));
    }

    /// Tries that come at once were let through as long as none was known to have failed: five hundred in place of one.
    #[test]
    fn tries_that_come_at_once_do_not_outrun_the_brake() {
        let mut brake = Brake::new(Limits { per_user: 0, ..Limits::default() });
        // A stranger's first five hundred, of which one at a time has its turn.
        assert_eq!((0..500).filter(|_| brake.may_try(Instant(1), HOME, 0, Some("ann"))).count(), 500);
        let mut verified = 0;
        for turn in 0..500 {
            let now = Instant(2 + turn);
            if brake.may_go_on(now, Instant(1), HOME, 0, Some("ann")) {
                verified += 1;
                brake.failed(now, HOME, 0, Some("ann"));
            }
        }
        assert_eq!(verified, 50);
        // From then on one for each wait, however many come before it has failed.
        let at_once =
            |brake: &mut Brake, now, name| (0..500).filter(|_| brake.may_try(now, HOME, 0, Some(name))).count();
        let mut now = Instant(10_000);
        for wait in [2, 2, 4, 8] {
            assert_eq!(at_once(&mut brake, now, "ann"), 1, "{now:?}");
            assert!(brake.may_go_on(now.after(Duration::from_millis(9)), now, HOME, 0, Some("ann")));
            brake.failed(now, HOME, 0, Some("ann"));
            now = now.after(Duration::from_secs(wait));
        }
        // The same for who is known there.
        brake.succeeded(now, HOME, 0, Some("bob"));
        assert_eq!(guess(&mut brake, now, HOME, "bob", 100), PER_PAIR);
        assert!(!brake.may_go_on(now, Instant(0), HOME, 0, Some("bob")));
        assert_eq!(at_once(&mut brake, now.after(Duration::from_secs(1)), "bob"), 1);
        // What was let in has no bearing on others.
        assert!(brake.may_go_on(now, Instant(0), away(1), 0, Some("ann")));
    }

    #[test]
    fn a_user_guessed_at_by_many_at_once_is_braked_in_the_queue() {
        let mut brake = brake();
        assert!((0..500).all(|number| brake.may_try(Instant(1), away(number), 0, Some("ann"))));
        let turns = (0..500).filter(|number| {
            let may = brake.may_go_on(Instant(2), Instant(1), away(*number), 0, Some("ann"));
            if may {
                brake.failed(Instant(2), away(*number), 0, Some("ann"));
            }
            may
        });
        assert_eq!(turns.count(), 20);
    }

    /// An account of the same name in another domain was good for as many guesses as one liked.
    #[test]
    fn a_name_in_another_domain_is_another_user() {
        let mut brake = brake();
        let mut verified = 0;
        for round in 0..200 {
            let now = Instant(round);
            brake.succeeded(now, HOME, 1, Some("ann"));
            for _ in 0..PER_PAIR - 1 {
                if brake.may_try(now, HOME, 2, Some("ann")) {
                    verified += 1;
                    assert!(brake.may_go_on(now, now, HOME, 2, Some("ann")));
                    brake.failed(now, HOME, 2, Some("ann"));
                }
            }
        }
        assert_eq!(verified, 20);
        // In its own domain it is no stranger, there nor elsewhere.
        assert!(brake.may_try(Instant(200), HOME, 1, Some("ann")));
        assert!(brake.may_try(Instant(200), away(1), 1, Some("ann")));
        assert!(!brake.may_try(Instant(200), away(1), 2, Some("ann")));
    }

    /// With `jwt_user_name = "jwt"` a fleet has one User Name, and a stranger with rubbish kept all of it out.
    #[test]
    fn rubbish_in_the_name_of_a_token_keeps_out_its_own_address_alone() {
        let mut brake = brake();
        brake.succeeded(Instant(0), HOME, 0, Name::Token("device 1"));
        for number in 0..1_000 {
            brake.failed(Instant(1), away(number), 0, Name::Token("device 1"));
        }
        for _ in 0..1_000 {
            brake.failed(Instant(1), away(1), 0, Name::None);
            brake.failed(Instant(1), HOME, 0, Name::None);
        }
        assert!(brake.may_try(Instant(2), away(5_000), 0, Name::Token("device 1")));
        assert!(!brake.may_try(Instant(2), away(1), 0, Name::Token("device 2")));
        // It is known at home, where others are not.
        assert!(brake.may_try(Instant(2), HOME, 0, Name::Token("device 1")));
        assert!(!brake.may_try(Instant(2), HOME, 0, Name::Token("device 2")));
    }

    #[test]
    fn zero_is_no_brake() {
        let mut brake = Brake::new(Limits { per_address: 0, per_user: 0, ..Limits::default() });
        assert_eq!(guess(&mut brake, Instant(0), HOME, "ann", 1_000), 1_000);
    }
}
