//! A workload from a seed, the log it runs on, and a map for each state that the log has had.

use std::collections::BTreeMap;

use pantala_store::disk::SimDisk;
use pantala_store::log::{Batch, CommitError, Log, LogOptions, OpenReport};

/// What keys have.
pub type State = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// Small, so that segments end, are cleaned and used again all the time.
pub const OPTIONS: LogOptions = LogOptions { segment_bytes: 8192, segments_min: 3 };

/// A small generator; the seed is all there is to it.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A log, and what should be in it.
pub struct Bench {
    pub disk: SimDisk,
    pub log: Log<SimDisk>,
    pub random: Random,
    /// The state after each commit; the last is what the log should have now. A commit that failed has its state in
    /// `attempted`.
    pub states: Vec<State>,
    /// How many of them are on stable storage for certain.
    pub safe: usize,
    pub attempted: Option<State>,
    batch: Batch,
    version: u64,
}

impl Bench {
    pub fn new(seed: u64) -> Bench {
        Bench::on(SimDisk::new(), seed)
    }

    /// On a disk that may have been told to fail.
    pub fn on(disk: SimDisk, seed: u64) -> Bench {
        let (log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
        Bench::of(disk, log, State::new(), seed)
    }

    pub fn of(disk: SimDisk, log: Log<SimDisk>, state: State, seed: u64) -> Bench {
        Bench {
            disk,
            log,
            random: Random(seed),
            states: vec![state],
            safe: 0,
            attempted: None,
            batch: Batch::new(),
            version: 0,
        }
    }

    pub fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    /// Fills the batch at random and returns the state it leads to.
    pub fn fill(&mut self) -> (Batch, State) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut state = self.state().clone();
        for _ in 0..self.random.below(8) {
            let kind = self.random.below(3) as u8;
            let key = key(self.random.below(30));
            if self.random.one_in(3) {
                batch.delete(kind, &key);
                state.remove(&(kind, key));
            } else {
                self.version += 1;
                let bytes = match self.random.below(60) {
                    0 => 9000 + self.random.below(9000),
                    1..4 => 4000,
                    4..10 => 0,
                    _ => self.random.below(300),
                };
                let value = value(kind, &key, self.version, bytes as usize);
                let middle = self.random.below(bytes + 1) as usize;
                batch.put(kind, &key, &[&value[..middle], &value[middle..]]);
                state.insert((kind, key), value);
            }
        }
        (batch, state)
    }

    /// One random thing that one does to a log.
    pub fn step(&mut self) -> Result<(), CommitError> {
        match self.random.below(12) {
            0..7 => {
                let sync = !self.random.one_in(3);
                let (mut batch, state) = self.fill();
                let result = self.log.commit(&mut batch, sync);
                // A batch that was refused is whole, and could be tried again; here it is given up.
                batch.clear();
                self.batch = batch;
                match &result {
                    Ok(()) => {
                        self.states.push(state);
                        if sync {
                            self.safe = self.states.len() - 1;
                        }
                    }
                    Err(_) => self.attempted = Some(state),
                }
                result
            }
            7..9 => {
                let sync = self.random.one_in(2);
                self.log.clean(1 + self.random.below(6000) as usize, sync)?;
                if sync {
                    // Not promised, but nothing older than the copies can be lost if they are not.
                    self.log.sync()?;
                    self.safe = self.states.len() - 1;
                }
                Ok(())
            }
            9 => self.log.prepare(),
            10 => {
                self.log.sync()?;
                self.safe = self.states.len() - 1;
                Ok(())
            }
            _ => {
                self.check_some();
                Ok(())
            }
        }
    }

    pub fn check_some(&mut self) {
        let reader = self.log.reader();
        for _ in 0..3 {
            let (kind, key) = (self.random.below(3) as u8, key(self.random.below(30)));
            let value = reader.get(kind, &key).unwrap();
            assert_eq!(self.log.contains(kind, &key), value.is_some());
            assert_eq!(value.as_ref(), self.state().get(&(kind, key)));
        }
    }

    pub fn check_all(&self) {
        assert_eq!(&contents(&self.log), self.state());
        let statistics = self.log.statistics();
        assert_eq!(statistics.live_entries, self.state().len() as u64);
    }

    /// Asserts that a log has a state that it may have after a crash, and returns that state.
    pub fn check_crashed(&self, log: &Log<SimDisk>, report: &OpenReport) -> State {
        assert_eq!(report.damages, [], "a crash is no damage");
        let found = contents(log);
        let mut allowed = self.states[self.safe..].iter().chain(&self.attempted);
        assert!(allowed.any(|state| *state == found), "neither the state after the last sync nor a later one");
        found
    }
}

/// All that is in a log, each entry once.
pub fn contents(log: &Log<SimDisk>) -> State {
    let mut state = State::new();
    log.for_each(|kind, key, value| {
        assert_eq!(state.insert((kind, key.to_vec()), value.to_vec()), None, "an entry came twice");
    })
    .unwrap();
    state
}

/// Short ones and long ones.
pub fn key(number: u64) -> Vec<u8> {
    match number % 3 {
        0 => vec![number as u8; 1 + number as usize],
        1 => number.to_be_bytes().to_vec(),
        _ => format!("a key that is not short, number {number}").into_bytes(),
    }
}

/// A value that says what it is the value of, as far as its length allows.
pub fn value(kind: u8, key: &[u8], version: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![kind, key.len() as u8];
    value.extend_from_slice(key);
    value.extend_from_slice(&version.to_le_bytes());
    let mut random = Random(version);
    while value.len() < bytes {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(bytes);
    value
}

#[test]
fn the_log_is_a_map() {
    for seed in 0..40 {
        let mut bench = Bench::new(seed);
        for _ in 0..600 {
            bench.step().unwrap();
        }
        bench.check_all();
        let statistics = bench.log.statistics();
        assert!(statistics.cleaned_bytes > 0 && statistics.damaged_entries == 0);
        // Files are used again: most segments were never made.
        let counts = bench.disk.counts();
        assert!(counts.creates < counts.renames, "{counts:?}");
        let reopened = Log::open(bench.disk.clone(), OPTIONS).unwrap();
        assert_eq!(reopened.1.damages, []);
        bench.log = reopened.0;
        bench.check_all();
    }
}

#[test]
fn the_log_stays_as_small_as_it_can() {
    let mut bench = Bench::new(1);
    for _ in 0..3000 {
        bench.step().unwrap();
        while bench.log.clean(65_536, false).unwrap() {}
    }
    let statistics = bench.log.statistics();
    let bound = (3 * statistics.live_bytes + 6 * 8192).max(12 * 8192);
    assert!(bench.disk.bytes() <= bound, "{} bytes of files for {statistics:?}", bench.disk.bytes());
}

#[test]
fn many_openings_do_not_pile_up_segments() {
    let disk = SimDisk::new();
    for round in 0..100u8 {
        let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
        let mut batch = Batch::new();
        batch.put(0, &[round % 7], &[&[round]]);
        log.commit(&mut batch, true).unwrap();
        while log.clean(65_536, true).unwrap() {}
    }
    for _ in 0..100 {
        Log::open(disk.clone(), OPTIONS).unwrap();
    }
    assert!(disk.bytes() <= 8 * 8192, "{} bytes", disk.bytes());
}

#[test]
fn needless_entries_are_not_written() {
    let mut bench = Bench::new(0);
    let mut batch = Batch::new();
    batch.delete(1, b"never there");
    batch.put(1, b"come and gone", &[b"x"]);
    batch.delete(1, b"come and gone");
    let before = bench.disk.counts().writes;
    bench.log.commit(&mut batch, true).unwrap();
    assert!(batch.is_empty());
    assert_eq!(bench.log.statistics().frames, 0);
    batch.put(1, b"come and gone", &[b"x"]);
    batch.delete(1, b"come and gone");
    batch.put(1, b"come and gone", &[b"back"]);
    bench.log.commit(&mut batch, true).unwrap();
    assert_eq!(bench.log.reader().get(1, b"come and gone").unwrap().unwrap(), b"back");
    // The header of the segment and one frame.
    assert_eq!(bench.disk.counts().writes - before, 2);
}

#[test]
fn a_commit_is_one_write_and_one_sync() {
    let mut bench = Bench::new(0);
    let mut batch = Batch::new();
    batch.put(1, b"first", &[b"x"]);
    bench.log.commit(&mut batch, true).unwrap();
    let before = bench.disk.counts();
    for round in 0..10u8 {
        for entry in 0..10u8 {
            batch.put(1, &[round, entry], &[b"value"]);
        }
        bench.log.commit(&mut batch, true).unwrap();
    }
    let after = bench.disk.counts();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs, after.creates - before.creates), (10, 10, 0));
}

#[test]
fn entries_come_in_the_order_of_their_last_writing() {
    let mut bench = Bench::new(0);
    let mut batch = Batch::new();
    for key in [1u8, 2, 3, 1, 4, 2] {
        batch.put(0, &[key], &[&[key]]);
        bench.log.commit(&mut batch, false).unwrap();
    }
    let mut order = Vec::new();
    bench.log.for_each(|_, key, _| order.push(key[0])).unwrap();
    assert_eq!(order, [3, 1, 4, 2]);
}
