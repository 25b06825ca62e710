//! A whole broker in one thread: cores, the letters between them, clients that speak bytes, a clock that moves when told.
//!
//! The world does what the server does, in the same stages, but for one thing: in a shuffled world a seed decides which
//! worker takes its next stage, and a worker may be stopped between any two batches that it passes on. A receiver still
//! reads its letters in the order in which they were sent, as from the real inbox. The same seed gives the same run.

mod client;
mod method;
mod peer;
mod store;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pantala_broker::authentication::Unbraked;
use pantala_broker::{
    Action, AuthenticationRequest, Batch, BatchPhase, Census, ConnectionKey, Core, CoreOptions, Counters, Event,
    ListenerId, ListenerSettings, RightsSource, SecurityId, Settings, Totals, Unrestricted, Verdict, Verified, Wanted,
    WorkerId, owner,
};
use pantala_proto::{ProtocolVersion, QoS, ReasonCode};
use pantala_session::Instant;
use pantala_store::disk::SimDisk;
use pantala_store::log::LogOptions;
use pantala_store::{AnyStore, Clock, Committer, Durability, Pause, StoredMessage};

pub use client::{Client, Will};
use method::Word;
pub use peer::{Delivered, Outcome, Peer, Pub, Received, Sub};
pub use store::TestStore;

/// Interleavings that [`everywhere`] tries for each number of workers; the first is the plain one.
const SEEDS: u64 = 6;
/// Stages after which a world that has not come to rest never will.
const STAGES_MAX: usize = 2_000_000;

/// Settings with one listener for everybody.
pub fn settings() -> Settings {
    Settings { listeners: vec![ListenerSettings::default()], ..Settings::default() }
}

/// Plays a dialogue with 1, 2 and 3 workers, in several interleavings, with a store that keeps nothing and one that keeps
/// everything, and looks afterwards whether something was left.
pub fn everywhere(settings: &Settings, dialogue: impl Fn(&World)) {
    for workers in 1..=3 {
        for seed in 0..SEEDS {
            let _note = Note { workers, seed };
            let world = World::in_memory(settings, workers, seed);
            dialogue(&world);
            world.end();
        }
    }
    everywhere_kept(settings, dialogue);
}

/// The same with the store that keeps everything only.
pub fn everywhere_kept(settings: &Settings, dialogue: impl Fn(&World)) {
    for workers in 1..=3 {
        for seed in 0..SEEDS {
            let _note = Note { workers, seed };
            let world = World::new(settings, workers, seed);
            dialogue(&world);
            world.end();
        }
    }
}

/// Says where a dialogue failed.
pub struct Note {
    pub workers: u8,
    pub seed: u64,
}

impl Drop for Note {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with {} workers and seed {}", self.workers, self.seed);
        }
    }
}

/// A small generator of numbers (SplitMix64): the world's only chance.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }
}

/// A broker with everything around it. Clones are the same world.
#[derive(Clone)]
pub struct World(Rc<RefCell<Inner>>);

struct Inner {
    workers: Vec<Worker>,
    links: Vec<Link>,
    events: Vec<Event>,
    totals: Arc<Totals>,
    settings: Arc<Settings>,
    store: Option<Box<Committer<SimDisk>>>,
    disk: SimDisk,
    /// Nothing is committed before [`World::sync`].
    delayed: bool,
    now: Instant,
    chance: Chance,
    shuffled: bool,
    /// Goes into Client Identifiers, so that each seed spreads them over the workers in its own way.
    salt: u64,
    panics_expected: u64,
    rights: Arc<dyn RightsSource>,
    /// Answers at some later stage; without one requests wait in `requests`.
    authenticator: Option<Authenticator>,
    requests: VecDeque<Asked>,
    commands: VecDeque<Command>,
}

type Authenticator = Rc<dyn Fn(&AuthenticationRequest) -> Verdict>;

/// A request whose verdict is for the test to give.
pub struct Asked {
    worker: usize,
    key: ConnectionKey,
    generation: u32,
    pub request: AuthenticationRequest,
}

/// What a client has published below `$CONTROL`.
pub struct Command {
    worker: usize,
    key: ConnectionKey,
    generation: u32,
    pub user_name: Option<String>,
    pub topic: String,
    pub payload: String,
}

struct Worker {
    core: Core<TestStore>,
    inbox: VecDeque<Letter>,
    /// Batches that it is about to pass on, one by one.
    pushes: VecDeque<(usize, Batch)>,
    stage: Stage,
    /// Which link has which key.
    links: BTreeMap<ConnectionKey, usize>,
}

/// What a worker does next in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Read,
    Letters,
    Write,
}

enum Letter {
    Batch(Batch),
    Connection(usize, Vec<u8>, Option<Box<pantala_broker::Peer>>, Option<Box<Verified>>),
    Verdict(ConnectionKey, u32, Verdict),
}

/// The network between a client and the broker.
struct Link {
    version: ProtocolVersion,
    listener: ListenerId,
    /// None while it moves between workers, and when it is closed.
    place: Option<(usize, ConnectionKey)>,
    to_broker: Vec<u8>,
    from_broker: Vec<u8>,
    /// Bytes that the client's side still takes.
    room: usize,
    /// The client takes bytes again.
    unblocked: bool,
    reset: bool,
    /// The broker reads what was sent before it learns of the reset.
    reads_first: bool,
    closed: bool,
}

impl World {
    /// With a durable store on a simulated disk.
    pub fn new(settings: &Settings, workers: u8, seed: u64) -> Self {
        Self::start(settings, workers, seed, SimDisk::new(), Instant(1_000))
    }

    /// With a store that keeps nothing.
    pub fn in_memory(settings: &Settings, workers: u8, seed: u64) -> Self {
        let stores = (0..workers).map(|_| TestStore::memory()).collect();
        Self::with_stores(settings, seed, stores, Instant(1_000), Arc::new(Unrestricted))
    }

    /// A broker that starts on what a disk holds, at this time by the wall clock.
    pub fn start(settings: &Settings, workers: u8, seed: u64, disk: SimDisk, wall: Instant) -> Self {
        Self::start_with(settings, workers, seed, disk, wall, Arc::new(Unrestricted))
    }

    fn start_with(
        settings: &Settings,
        workers: u8,
        seed: u64,
        disk: SimDisk,
        wall: Instant,
        rights: Arc<dyn RightsSource>,
    ) -> Self {
        // Small segments, so that cleaning has something to do.
        let options = LogOptions { segment_bytes: 16_384, ..LogOptions::default() };
        let opened = pantala_store::open(disk.clone(), options, workers, Durability::Fsync).unwrap();
        assert!(opened.report.damages.is_empty(), "{:?}", opened.report);
        assert_eq!(opened.recovered.unreadable, 0);
        let stores = opened.stores.into_iter().map(|store| TestStore::new(AnyStore::Durable(store))).collect();
        let clock = opened.recovered.clock;
        let now = clock.map_or(wall, |clock| Instant(clock.resumed(wall.0, u64::MAX)));
        let stopped = clock.map_or(now, |clock| Instant(clock.broker));
        let world = Self::with_stores(settings, seed, stores, now, rights);
        let mut inner = world.0.borrow_mut();
        (inner.store, inner.disk) = (Some(Box::new(opened.committer)), disk);
        let shares = pantala_broker::shares(opened.recovered, workers);
        let mut orphans = Vec::new();
        for (worker, share) in shares.into_iter().enumerate() {
            orphans.push(inner.workers[worker].core.restore(now, stopped, share));
            inner.pass_on(worker);
        }
        inner.run();
        for (worker, orphans) in orphans.into_iter().enumerate() {
            inner.workers[worker].core.adopt(now, orphans);
            inner.pass_on(worker);
        }
        inner.run();
        drop(inner);
        world
    }

    /// The power fails: whatever was not synced is there, or not, or in part. Another broker starts on what is left, with so
    /// many workers, so many seconds later.
    pub fn power_cut(&self, workers: u8, seconds: u64) -> Self {
        self.power_cut_to(workers, seconds, self.seed())
    }

    /// The same; of what a power cut may leave, `state` chooses.
    pub fn power_cut_to(&self, workers: u8, seconds: u64, state: u64) -> Self {
        let disk = self.disk().crash(state);
        self.successor(workers, seconds, disk)
    }

    /// The process ends without a word; the disk goes on with all that was written.
    pub fn kill(&self, workers: u8, seconds: u64) -> Self {
        self.successor(workers, seconds, self.disk())
    }

    fn successor(&self, workers: u8, seconds: u64, disk: SimDisk) -> Self {
        let inner = self.0.borrow();
        let wall = inner.now.after(Duration::from_secs(seconds));
        let rights = Arc::clone(&inner.rights);
        let world = Self::start_with(&inner.settings, workers, inner.salt, disk, wall, rights);
        world.0.borrow_mut().authenticator = inner.authenticator.clone();
        world
    }

    /// Access to the disk, for those who let it fail.
    pub fn disk(&self) -> SimDisk {
        self.0.borrow().disk.clone()
    }

    fn with_stores(
        settings: &Settings,
        seed: u64,
        stores: Vec<TestStore>,
        now: Instant,
        rights: Arc<dyn RightsSource>,
    ) -> Self {
        let settings = Arc::new(settings.clone());
        let totals = Arc::new(Totals::new(settings.listeners.len()));
        let workers = stores.len() as u8;
        let cores = (0..workers).zip(stores).map(|(worker, store)| {
            let mut chance = Chance::new(seed ^ u64::from(worker) << 32);
            let options = CoreOptions {
                settings: Arc::clone(&settings),
                worker: WorkerId(worker),
                workers,
                totals: Arc::clone(&totals),
                methods: Arc::new([Box::new(Word)]),
                brake: Arc::new(Unbraked),
                rights: Arc::clone(&rights),
                random: Box::new(move |bytes| bytes.fill_with(|| chance.number() as u8)),
            };
            Worker {
                core: Core::new(options, store),
                inbox: VecDeque::new(),
                pushes: VecDeque::new(),
                stage: Stage::Read,
                links: BTreeMap::new(),
            }
        });
        let cores = cores.collect();
        Self(Rc::new(RefCell::new(Inner {
            workers: cores,
            links: Vec::new(),
            events: Vec::new(),
            totals: Arc::clone(&totals),
            settings: Arc::clone(&settings),
            store: None,
            disk: SimDisk::new(),
            delayed: false,
            now,
            chance: Chance::new(seed),
            shuffled: seed > 0,
            salt: seed,
            panics_expected: 0,
            rights,
            authenticator: None,
            requests: VecDeque::new(),
            commands: VecDeque::new(),
        })))
    }

    pub fn workers(&self) -> u8 {
        self.0.borrow().workers.len() as u8
    }

    /// A client to be connected. The same name is the same Client Identifier.
    pub fn client(&self, name: &str) -> Client {
        let client_id = format!("{name}-{}", self.0.borrow().salt);
        Client::new(self.clone(), client_id)
    }

    /// A name whose client belongs to this worker.
    pub fn name_on(&self, worker: u8, prefix: &str) -> String {
        let (workers, salt) = (self.workers(), self.0.borrow().salt);
        let names = (0..).map(|number| format!("{prefix}{number}"));
        names.into_iter().find(|name| owner(&format!("{name}-{salt}"), workers).0 == worker).unwrap()
    }

    /// A Topic Name that is at home with this worker.
    pub fn topic_on(&self, worker: u8, prefix: &str) -> String {
        let workers = self.workers();
        (0..).map(|number| format!("{prefix}{number}")).find(|name| owner(name, workers).0 == worker).unwrap()
    }

    /// Lets everything happen that can happen now.
    pub fn run(&self) {
        self.0.borrow_mut().run();
    }

    /// Lets a number of stages happen, so that something comes in the middle of something else.
    pub fn some(&self, stages: usize) {
        let mut inner = self.0.borrow_mut();
        for _ in 0..stages {
            inner.one();
        }
    }

    /// When a worker has asked to be woken next.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.0.borrow().workers.iter().filter_map(|worker| worker.core.next_deadline()).min()
    }

    /// Lets time pass, stopping wherever a worker has asked to be woken.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.0.borrow_mut();
        inner.run();
        let target = inner.now.after(by);
        while let Some(next) = inner.workers.iter().filter_map(|worker| worker.core.next_deadline()).min()
            && next <= target
        {
            inner.now = inner.now.max(next);
            inner.run();
        }
        inner.now = target;
        inner.run();
    }

    pub fn seconds(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    pub fn millis(&self, millis: u64) {
        self.advance(Duration::from_millis(millis));
    }

    pub fn now(&self) -> Instant {
        self.0.borrow().now
    }

    /// Publishes a message of the broker's own, from the first worker.
    pub fn publish_own(&self, topic_name: &str, qos: QoS, retain: bool, payload: &str) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        inner.workers[0].core.publish_own(now, topic_name, payload.as_bytes(), qos, retain);
        inner.pass_on(0);
        inner.commit();
        inner.run();
    }

    /// What all workers have together.
    pub fn census(&self) -> Census {
        let mut sum = Census::default();
        for worker in &mut self.0.borrow_mut().workers {
            sum.add(&worker.core.census());
        }
        sum
    }

    /// From now on the process has more memory than it should, or has not.
    pub fn memory_short(&self, short: bool) {
        self.0.borrow().totals.memory_short.store(short, Ordering::Relaxed);
    }

    /// Drops what may be dropped, since memory is short.
    pub fn shed(&self) {
        self.0.borrow_mut().workers.iter_mut().for_each(|worker| worker.core.shed());
    }

    /// Tells of these events from now on.
    pub fn want(&self, wanted: Wanted) {
        self.0.borrow_mut().workers.iter_mut().for_each(|worker| worker.core.want(wanted));
    }

    /// What has happened since this was asked last.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    /// Counters of all workers together.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for worker in &self.0.borrow().workers {
            sum.add(worker.core.counters());
        }
        sum
    }

    /// Panics so far; in the middle of a turn other counters may be on their way between two workers.
    pub fn panics(&self) -> u64 {
        self.0.borrow().workers.iter().map(|worker| worker.core.counters().panics).sum()
    }

    pub fn sessions(&self) -> usize {
        self.0.borrow().workers.iter().map(|worker| worker.core.sessions()).sum()
    }

    pub fn connections(&self) -> usize {
        self.0.borrow().workers.iter().map(|worker| worker.core.connections()).sum()
    }

    /// Bytes that wait to be written, over all connections.
    pub fn output_bytes(&self) -> usize {
        let inner = self.0.borrow();
        let pending = |worker: &Worker| worker.links.keys().map(|key| worker.core.pending_output(*key)).sum::<usize>();
        inner.workers.iter().map(pending).sum()
    }

    pub fn seed(&self) -> u64 {
        self.0.borrow().salt
    }

    pub fn retained(&self) -> u32 {
        self.0.borrow().totals.retained.load(Ordering::Relaxed)
    }

    /// Ends all connections as the broker does when it stops.
    pub fn shut_down(&self) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        for worker in 0..inner.workers.len() {
            inner.workers[worker].core.shut_down(now);
            inner.actions(worker);
        }
        inner.run();
    }

    // ---- access -----------------------------------------------------------------------------------------------

    /// From now on these rules hold, in all workers at once.
    pub fn set_rights(&self, rights: Arc<dyn RightsSource>) {
        let mut inner = self.0.borrow_mut();
        inner.rights = Arc::clone(&rights);
        let now = inner.now;
        for worker in 0..inner.workers.len() {
            let rights = Arc::clone(&rights);
            inner.guarded(worker, |core| core.rights_changed(now, rights));
        }
    }

    /// From now on this says who a client is.
    pub fn set_authenticator(&self, authenticator: impl Fn(&AuthenticationRequest) -> Verdict + 'static) {
        self.0.borrow_mut().authenticator = Some(Rc::new(authenticator));
    }

    /// The next request that nobody has answered.
    pub fn asked(&self) -> Option<Asked> {
        self.0.borrow_mut().requests.pop_front()
    }

    /// Gives a verdict.
    pub fn answer(&self, asked: &Asked, verdict: Verdict) {
        let mut inner = self.0.borrow_mut();
        let letter = Letter::Verdict(asked.key, asked.generation, verdict);
        inner.workers[asked.worker].inbox.push_back(letter);
    }

    /// The next command that a client has published.
    pub fn command(&self) -> Option<Command> {
        self.0.borrow_mut().commands.pop_front()
    }

    pub fn respond(&self, command: &Command, topic: &str, payload: &str) {
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        let (key, generation) = (command.key, command.generation);
        inner.guarded(command.worker, |core| {
            core.control_response(now, key, generation, topic, payload.as_bytes());
        });
    }

    /// Sends away who is this user of a security domain; returns how many.
    pub fn send_away(&self, security: SecurityId, user_name: &str) -> usize {
        let mut inner = self.0.borrow_mut();
        let (now, code) = (inner.now, ReasonCode::AdministrativeAction);
        let workers = inner.workers.iter_mut();
        workers.map(|worker| worker.core.disconnect_user(now, security, Some(user_name), code)).sum()
    }

    /// Disconnects a client by name. Returns whether it was there.
    pub fn kick(&self, name: &str, code: ReasonCode) -> bool {
        let mut inner = self.0.borrow_mut();
        let (now, client_id) = (inner.now, format!("{name}-{}", inner.salt));
        let cores = inner.workers.iter_mut().map(|worker| &mut worker.core);
        let kicked = cores.map(|core| core.disconnect(now, &client_id, code)).filter(|kicked| *kicked).count();
        assert!(kicked <= 1, "a client that is in two places");
        kicked == 1
    }

    // ---- stores -----------------------------------------------------------------------------------------------

    /// From now on records are durable only when [`World::sync`] says so.
    pub fn delay_stores(&self) {
        let mut inner = self.0.borrow_mut();
        inner.commit();
        inner.delayed = true;
    }

    /// Makes all records durable that have been appended.
    pub fn sync(&self) {
        let mut inner = self.0.borrow_mut();
        inner.commit();
        inner.run();
    }

    /// All that is to come is durable at once again.
    pub fn stop_delaying(&self) {
        self.0.borrow_mut().delayed = false;
        self.sync();
    }

    /// Every store panics at its n-th append from now on, once.
    pub fn panic_at_append(&self, nth: u64) {
        for worker in &mut self.0.borrow_mut().workers {
            worker.core.store_mut().panic_at(nth);
        }
    }

    /// The store of one worker does.
    pub fn panic_at_append_on(&self, worker: u8, nth: u64) {
        self.0.borrow_mut().workers[usize::from(worker)].core.store_mut().panic_at(nth);
    }

    /// No store panics any more.
    pub fn forget_panics(&self) {
        for worker in &mut self.0.borrow_mut().workers {
            worker.core.store_mut().forget_panic();
        }
    }

    pub fn expect_panics(&self, panics: u64) {
        self.0.borrow_mut().panics_expected = panics;
    }

    /// What the store would say after a crash: Client Identifiers with their Session Expiry Interval. None if it keeps
    /// nothing.
    pub fn recorded_sessions(&self) -> Option<BTreeMap<String, u32>> {
        let inner = self.0.borrow();
        inner.store.as_ref()?;
        let disk = inner.disk.crash(inner.salt);
        let options = LogOptions { segment_bytes: 16_384, ..LogOptions::default() };
        let opened = pantala_store::open::<_, StoredMessage>(disk, options, 1, Durability::Fsync).unwrap();
        let sessions = opened.recovered.sessions.into_iter();
        Some(sessions.map(|session| (session.client_id.into(), session.expiry_interval)).collect())
    }

    /// Tells all cores of other settings, as the shell does when the configuration is read again.
    pub fn reconfigure(&self, settings: &Settings) {
        let settings = Arc::new(settings.clone());
        let mut inner = self.0.borrow_mut();
        let now = inner.now;
        for worker in &mut inner.workers {
            worker.core.reconfigure(now, Arc::clone(&settings));
        }
        drop(inner);
        self.run();
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    /// Takes all clients away and looks for what should be gone with them.
    pub fn end(&self) {
        let mut inner = self.0.borrow_mut();
        for link in &mut inner.links {
            link.reset = !link.closed;
        }
        inner.run();
        drop(inner);
        let counters = self.counters();
        let inner = self.0.borrow();
        assert_eq!(counters.panics, inner.panics_expected, "panics");
        assert_eq!(inner.workers.iter().map(|worker| worker.core.connections()).sum::<usize>(), 0, "connections");
        assert_eq!(inner.totals.connections.load(Ordering::Relaxed), 0, "total of connections");
        let sessions: usize = inner.workers.iter().map(|worker| worker.core.sessions()).sum();
        assert_eq!(inner.totals.sessions.load(Ordering::Relaxed) as usize, sessions, "total of Sessions");
        assert_eq!(counters.connections_opened, counters.connections_closed, "opened and closed");
    }

    fn open(&self, version: ProtocolVersion, listener: ListenerId, address: Option<SocketAddr>) -> usize {
        self.0.borrow_mut().open(version, listener, address)
    }

    fn link<T>(&self, link: usize, look: impl FnOnce(&mut Link) -> T) -> T {
        look(&mut self.0.borrow_mut().links[link])
    }
}

impl Inner {
    /// A connection, accepted by whichever worker comes first.
    fn open(&mut self, version: ProtocolVersion, listener: ListenerId, address: Option<SocketAddr>) -> usize {
        let id = self.links.len();
        let worker = if self.shuffled { self.chance.below(self.workers.len()) } else { id % self.workers.len() };
        self.links.push(Link {
            version,
            listener,
            place: None,
            to_broker: Vec::new(),
            from_broker: Vec::new(),
            room: usize::MAX,
            unblocked: false,
            reset: false,
            reads_first: false,
            closed: false,
        });
        let key = self.place(worker, id);
        if address.is_some() {
            let peer = pantala_broker::Peer { address, ..Default::default() };
            self.workers[worker].core.introduce(key, Box::new(peer));
        }
        id
    }

    fn place(&mut self, worker: usize, link: usize) -> ConnectionKey {
        let listener = self.links[link].listener;
        let key = self.workers[worker].core.open(self.now, listener);
        let before = self.workers[worker].links.insert(key, link);
        assert_eq!(before, None, "a key was given out twice");
        self.links[link].place = Some((worker, key));
        key
    }

    fn run(&mut self) {
        for _ in 0..STAGES_MAX {
            if !self.one() {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// One stage of one worker, or of each in the plain order. False if there is nothing to do.
    fn one(&mut self) -> bool {
        let busy: Vec<usize> = (0..self.workers.len()).filter(|worker| self.has_work(*worker)).collect();
        if busy.is_empty() {
            return false;
        }
        if self.shuffled {
            let worker = busy[self.chance.below(busy.len())];
            self.step(worker);
        } else {
            for worker in busy {
                self.step(worker);
            }
        }
        true
    }

    /// Commits what the workers have appended, and tells them.
    fn commit(&mut self) {
        let now = self.now;
        for worker in &mut self.workers {
            worker.core.submit();
        }
        let Some(store) = &mut self.store else { return };
        let clock = Clock { broker: now.0, wall: now.0 };
        while store.step(clock, &mut |_| {}) == Pause::None {}
        for worker in 0..self.workers.len() {
            self.guarded(worker, |core| core.store_completed(now));
        }
    }

    fn has_work(&self, worker: usize) -> bool {
        let Worker { core, inbox, pushes, stage, links } = &self.workers[worker];
        *stage != Stage::Read
            || !pushes.is_empty()
            || !inbox.is_empty()
            || core.has_output()
            || core.next_deadline().is_some_and(|deadline| deadline <= self.now)
            || links.iter().any(|(key, link)| {
                let link = &self.links[*link];
                link.reset || link.unblocked || (!link.to_broker.is_empty() && core.wants_input(*key))
            })
    }

    fn step(&mut self, worker: usize) {
        if let Some((to, batch)) = self.workers[worker].pushes.pop_front() {
            self.workers[to].inbox.push_back(Letter::Batch(batch));
            return;
        }
        self.stage(worker);
        if self.delayed {
            self.workers[worker].core.submit();
        } else {
            self.commit();
        }
    }

    fn stage(&mut self, worker: usize) {
        match self.workers[worker].stage {
            Stage::Read => {
                let links: Vec<(ConnectionKey, usize)> =
                    self.workers[worker].links.iter().map(|(key, link)| (*key, *link)).collect();
                for (key, link) in links {
                    self.read(worker, key, link);
                }
                self.pass_on(worker);
                self.workers[worker].stage = Stage::Letters;
            }
            Stage::Letters => {
                for letter in std::mem::take(&mut self.workers[worker].inbox) {
                    self.letter(worker, letter);
                }
                let now = self.now;
                self.guarded(worker, |core| core.tick(now));
                self.pass_on(worker);
                self.workers[worker].stage = Stage::Write;
            }
            Stage::Write => {
                self.actions(worker);
                let mut dirty = Vec::new();
                self.workers[worker].core.take_dirty(&mut dirty);
                for key in dirty {
                    self.write(worker, key);
                }
                self.actions(worker);
                while let Some(event) = self.workers[worker].core.next_event() {
                    self.events.push(event);
                }
                self.workers[worker].stage = Stage::Read;
            }
        }
    }

    fn read(&mut self, worker: usize, key: ConnectionKey, id: usize) {
        let link = &mut self.links[id];
        if link.reset && (!link.reads_first || link.to_broker.is_empty()) {
            link.reset = false;
            return self.lost(worker, key, id);
        }
        if link.unblocked {
            link.unblocked = false;
            self.write(worker, key);
        }
        let link = &mut self.links[id];
        if link.to_broker.is_empty() || !self.workers[worker].core.wants_input(key) {
            return;
        }
        let bytes = link.to_broker.len();
        // In pieces of any size, as networks do.
        let piece = if self.shuffled && self.chance.below(3) == 0 { 1 + self.chance.below(bytes) } else { bytes };
        let input: Vec<u8> = link.to_broker.drain(..piece).collect();
        self.receive(worker, key, &input);
    }

    fn receive(&mut self, worker: usize, key: ConnectionKey, input: &[u8]) {
        let now = self.now;
        let core = &mut self.workers[worker].core;
        if catch_unwind(AssertUnwindSafe(|| core.receive(now, key, input))).is_err() {
            self.guarded(worker, |core| core.panicked(now, key));
        }
    }

    fn guarded(&mut self, worker: usize, work: impl FnOnce(&mut Core<TestStore>)) {
        let core = &mut self.workers[worker].core;
        if catch_unwind(AssertUnwindSafe(|| work(core))).is_err() {
            core.count_panic();
        }
    }

    fn letter(&mut self, worker: usize, letter: Letter) {
        let now = self.now;
        match letter {
            Letter::Batch(mut batch) => {
                while !batch.is_empty() {
                    self.guarded(worker, |core| core.receive_batch(now, &mut batch));
                }
            }
            Letter::Connection(link, input, peer, verified) => {
                let key = self.place(worker, link);
                let core = &mut self.workers[worker].core;
                if let Some(peer) = peer {
                    core.introduce(key, peer);
                }
                if let Some(verified) = verified {
                    core.identified(key, verified);
                }
                self.receive(worker, key, &input);
            }
            Letter::Verdict(key, generation, verdict) => {
                self.guarded(worker, |core| core.authenticated(now, key, generation, verdict));
            }
        }
    }

    fn pass_on(&mut self, worker: usize) {
        for phase in BatchPhase::ALL {
            for to in 0..self.workers.len() {
                if let Some(batch) = self.workers[worker].core.take_batch(phase, WorkerId(to as u8)) {
                    assert_ne!(to, worker, "a worker writes letters to itself");
                    self.workers[worker].pushes.push_back((to, batch));
                }
            }
        }
    }

    fn actions(&mut self, worker: usize) {
        while let Some(action) = self.workers[worker].core.next_action() {
            match action {
                Action::Close(key) => {
                    self.write(worker, key);
                    self.workers[worker].core.closed(key);
                    self.close(worker, key);
                }
                Action::HandOver { connection, to, input, peer, verified } => {
                    self.workers[worker].core.closed(connection);
                    let Some(link) = self.workers[worker].links.remove(&connection) else { continue };
                    self.links[link].place = None;
                    self.workers[usize::from(to.0)].inbox.push_back(Letter::Connection(link, input, peer, verified));
                }
                Action::Authenticate { connection: key, generation, request } => match &self.authenticator {
                    Some(authenticator) => {
                        let verdict = authenticator(&request);
                        self.workers[worker].inbox.push_back(Letter::Verdict(key, generation, verdict));
                    }
                    None => self.requests.push_back(Asked { worker, key, generation, request: *request }),
                },
                Action::Control { connection: key, generation, user_name, topic_name, payload, .. } => {
                    self.commands.push_back(Command {
                        worker,
                        key,
                        generation,
                        user_name: user_name.map(String::from),
                        topic: topic_name.into(),
                        payload: String::from_utf8(payload.to_vec()).unwrap(),
                    });
                }
            }
        }
    }

    fn lost(&mut self, worker: usize, key: ConnectionKey, link: usize) {
        self.links[link].to_broker.clear();
        let now = self.now;
        self.guarded(worker, |core| core.lost(now, key));
        self.close(worker, key);
    }

    fn close(&mut self, worker: usize, key: ConnectionKey) {
        if let Some(link) = self.workers[worker].links.remove(&key) {
            let link = &mut self.links[link];
            (link.place, link.closed, link.reset, link.unblocked) = (None, true, false, false);
        }
    }

    fn write(&mut self, worker: usize, key: ConnectionKey) {
        let now = self.now;
        let Worker { core, links, .. } = &mut self.workers[worker];
        let Some(link) = links.get(&key) else { return };
        let link = &mut self.links[*link];
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = core.slices(key, &mut slices);
            if filled == 0 {
                return;
            }
            let mut count = 0;
            for slice in &slices[..filled] {
                let bytes = slice.len().min(link.room - count);
                link.from_broker.extend_from_slice(&slice[..bytes]);
                count += bytes;
                if bytes < slice.len() {
                    break;
                }
            }
            if link.room != usize::MAX {
                link.room -= count;
            }
            if count == 0 {
                return core.blocked(now, key);
            }
            core.wrote(now, key, count);
        }
    }
}
