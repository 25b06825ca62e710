//! Threads for work that workers must not wait for: few, with a bounded queue in front of them.
//!
//! The queue is fair among addresses: each has its turn, however much another one has waiting. And when it is full? An
//! address may have as much waiting as there is room left besides, so who floods takes half of it at the most, and whoever
//! comes from elsewhere is served next but the number of such addresses.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Who has work waiting.
pub(super) type Place = Option<IpAddr>;

pub(super) struct Pool<J: Send + 'static> {
    shared: Arc<Shared<J>>,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    ready: Condvar,
    waiting_max: usize,
    threads_max: usize,
    name: &'static str,
    /// Called at the start of each thread.
    prepare: fn(),
    work: fn(J),
}

struct State<J> {
    waiting: HashMap<Place, VecDeque<J>>,
    /// The places that have something waiting, each once, in the order of their turns.
    turns: VecDeque<Place>,
    count: usize,
    threads: usize,
    idle: usize,
    ending: bool,
}

impl<J: Send + 'static> Pool<J> {
    /// A pool without threads: they are started as they are needed.
    pub fn new(name: &'static str, threads_max: usize, waiting_max: usize, prepare: fn(), work: fn(J)) -> Self {
        let state =
            State { waiting: HashMap::new(), turns: VecDeque::new(), count: 0, threads: 0, idle: 0, ending: false };
        let (state, ready) = (Mutex::new(state), Condvar::new());
        Self { shared: Arc::new(Shared { state, ready, waiting_max, threads_max, name, prepare, work }) }
    }

    /// Has the work done as soon as it is its turn.
    ///
    /// # Errors
    /// The work back, if too much waits.
    pub fn submit(&self, place: Place, job: J) -> Result<(), J> {
        let mut state = self.shared.lock();
        let own = state.waiting.get(&place).map_or(0, VecDeque::len);
        // What a thread takes at once does not wait.
        let room = (self.shared.waiting_max + state.idle).saturating_sub(state.count);
        if own >= room || state.ending {
            return Err(job);
        }
        let queue = state.waiting.entry(place).or_default();
        queue.push_back(job);
        if queue.len() == 1 {
            state.turns.push_back(place);
        }
        state.count += 1;
        if state.idle >= state.count {
            drop(state);
            self.shared.ready.notify_one();
        } else if state.threads < self.shared.threads_max {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name(self.shared.name.to_owned()).spawn(move || shared.run());
            if thread.is_err() {
                // Those that run go on. Without any the next one tries again.
                self.shared.lock().threads -= 1;
            }
        }
        Ok(())
    }

    /// How much waits.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.shared.lock().count
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ending = true;
        let waiting = std::mem::take(&mut state.waiting);
        state.turns.clear();
        state.count = 0;
        drop(state);
        self.shared.ready.notify_all();
        // What waits is told by its own end.
        drop(waiting);
    }
}

impl<J> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // No work is done under the lock, so nothing can be half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        (self.prepare)();
        let mut state = self.lock();
        loop {
            if state.ending {
                return;
            }
            let Some(job) = state.next() else {
                state.idle += 1;
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            // The panic is printed, and the work says by its own end that nothing came of it.
            drop(catch_unwind(AssertUnwindSafe(|| (self.work)(job))));
            state = self.lock();
        }
    }
}

impl<J> State<J> {
    fn next(&mut self) -> Option<J> {
        let place = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&place)?;
        let job = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&place);
        } else {
            self.turns.push_back(place);
        }
        self.count -= 1;
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    struct Job(Sender<u32>, u32, Option<Arc<Mutex<()>>>);

    fn work(Job(done, number, gate): Job) {
        if let Some(gate) = gate {
            drop(gate.lock());
        }
        assert!(number != 99, "a panic on purpose");
        done.send(number).unwrap();
    }

    fn address(last: u8) -> Place {
        Some([127, 0, 0, last].into())
    }

    /// A pool with one thread that is held up until `gate` is let go.
    fn held_up(gate: &Arc<Mutex<()>>, waiting_max: usize) -> (Pool<Job>, Sender<u32>, Receiver<u32>) {
        let (done, results) = channel();
        let pool = Pool::new("test", 1, waiting_max, || {}, work);
        assert!(pool.submit(None, Job(done.clone(), 0, Some(Arc::clone(gate)))).is_ok());
        while pool.waiting() > 0 {
            thread::yield_now();
        }
        (pool, done, results)
    }

    #[test]
    fn each_address_has_its_turn() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let (pool, done, results) = held_up(&gate, 100);
        for number in 1..=40 {
            assert!(pool.submit(address(1), Job(done.clone(), number, None)).is_ok());
        }
        assert!(pool.submit(address(2), Job(done.clone(), 1_000, None)).is_ok());
        drop(closed);
        let order: Vec<u32> = results.iter().take(42).collect();
        assert_eq!(order[..4], [0, 1, 1_000, 2]);
    }

    #[test]
    fn who_floods_leaves_room_for_others() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let (pool, done, results) = held_up(&gate, 100);
        let taken = (0..1_000).filter(|_| pool.submit(address(1), Job(done.clone(), 1, None)).is_ok()).count();
        assert_eq!(taken, 50);
        let taken = (0..1_000).filter(|_| pool.submit(address(2), Job(done.clone(), 2, None)).is_ok()).count();
        assert_eq!(taken, 25);
        assert!(pool.submit(address(3), Job(done.clone(), 3, None)).is_ok());
        drop(closed);
        assert_eq!(results.iter().take(77).count(), 77);
    }

    #[test]
    fn a_panic_ends_its_work_and_no_more() {
        let (done, results) = channel();
        let pool = Pool::new("test", 1, 10, || {}, work);
        for number in [1, 99, 2] {
            assert!(pool.submit(None, Job(done.clone(), number, None)).is_ok());
        }
        assert_eq!(results.iter().take(2).collect::<Vec<_>>(), [1, 2]);
    }
}
