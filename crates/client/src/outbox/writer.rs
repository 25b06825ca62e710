//! The thread that writes: whatever waits when it comes back is its next batch.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use pantala_store::disk::Disk;

use super::{Keeper, OutboxError, OutboxReport};
use crate::machine::{Machine, Record};

/// A place among all records: so many have been submitted up to it.
pub(crate) type Position = u64;

/// The records of a client on their way to the disk. When it is dropped, what was submitted is written first; that is waited
/// for, so that the directory is free for the next one.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    report: OutboxReport,
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    records: Vec<Record>,
    submitted: Position,
    /// The last record that output has to wait for.
    needed: Position,
    safe: Position,
    stopping: bool,
    /// The thread has gone, and the directory is free.
    finished: bool,
    failure: Option<OutboxError>,
    /// The task of the client.
    driver: Option<Waker>,
    /// Who waits until something is safe.
    waiting: Vec<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Who is to be woken, once the lock is free: what a waker does is not ours to know.
    fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = std::mem::take(&mut self.waiting);
        wakers.extend(self.driver.take());
        wakers
    }
}

impl Outbox {
    /// Begins to write.
    pub(crate) fn start<D: Disk>(keeper: Keeper<D>, report: OutboxReport) -> Result<Self, OutboxError> {
        let shared = Arc::new(Shared { queue: Mutex::default(), work: Condvar::new() });
        let writing = shared.clone();
        let thread = std::thread::Builder::new()
            .name("outbox".into())
            .spawn(move || write(&writing, keeper))
            .map_err(|error| OutboxError::Failed(error.to_string()))?;
        Ok(Self { shared, thread: Some(thread), report })
    }

    pub(crate) fn report(&self) -> &OutboxReport {
        &self.report
    }

    /// Takes what the machine has recorded. Output that the machine has made up to now may go out when the position is safe.
    pub(crate) fn submit(&self, machine: &mut Machine) -> Result<Position, OutboxError> {
        let mut queue = self.shared.lock();
        let before = queue.records.len();
        machine.take_records(&mut queue.records);
        let fresh = &queue.records[before..];
        let count = fresh.len() as u64;
        let needed = fresh.iter().rposition(Record::holds_output).map(|last| queue.submitted + last as u64 + 1);
        queue.submitted += count;
        queue.needed = needed.unwrap_or(queue.needed);
        if let Some(failure) = &queue.failure {
            let failure = failure.clone();
            queue.records.clear();
            return Err(failure);
        }
        if queue.stopping && count > 0 {
            return Err(OutboxError::Closed);
        }
        if count > 0 {
            self.shared.work.notify_one();
        }
        Ok(queue.needed)
    }

    /// Up to where all is safe. The task is woken when that changes.
    pub(crate) fn safe(&self, context: &Context<'_>) -> Result<Position, OutboxError> {
        let mut queue = self.shared.lock();
        if let Some(failure) = &queue.failure {
            return Err(failure.clone());
        }
        if !queue.driver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            queue.driver = Some(context.waker().clone());
        }
        Ok(queue.safe)
    }

    /// Ready when all up to `position` is safe.
    pub(crate) fn poll_safe(&self, position: Position, context: &Context<'_>) -> Poll<Result<(), OutboxError>> {
        let mut queue = self.shared.lock();
        if queue.safe >= position {
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = &queue.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if queue.finished {
            return Poll::Ready(Err(OutboxError::Closed));
        }
        if !queue.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            queue.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Nothing more will be submitted.
    pub(crate) fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_one();
    }

    /// Ready when all is written and the directory is free, with why nothing more was written if so.
    pub(crate) fn poll_finished(&self, context: &Context<'_>) -> Poll<Option<OutboxError>> {
        let mut queue = self.shared.lock();
        if queue.finished {
            return Poll::Ready(queue.failure.clone());
        }
        queue.driver = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A waker that the thread has woken may have held the last handle.
            if thread.thread().id() != std::thread::current().id() {
                // Its panic has been told by `Finish`.
                drop(thread.join());
            }
        }
    }
}

/// Tells that the thread has gone, however that came.
struct Finish<'s>(&'s Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        if !queue.stopping || std::thread::panicking() {
            queue.failure.get_or_insert_with(|| OutboxError::Failed("its thread has ended".to_owned()));
        }
        queue.finished = true;
        let wakers = queue.take_wakers();
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn write<D: Disk>(shared: &Shared, keeper: Keeper<D>) {
    // In this order, so that the directory is free when `finished` is set.
    let _finish = Finish(shared);
    let mut keeper = keeper;
    let mut batch = Vec::new();
    // Files in advance, and cleaning: one step whenever nothing else is to be done.
    let mut prepared = false;
    let mut tidy = true;
    loop {
        let position = {
            let mut queue = shared.lock();
            while queue.records.is_empty() && !queue.stopping && prepared && !tidy {
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.records.is_empty() && queue.stopping {
                return;
            }
            std::mem::swap(&mut batch, &mut queue.records);
            queue.submitted
        };
        let result = if !batch.is_empty() {
            (prepared, tidy) = (false, true);
            keeper.write(&batch)
        } else if tidy {
            keeper.tidy().map(|more| tidy = more)
        } else {
            prepared = true;
            keeper.prepare()
        };
        batch.clear();
        let mut queue = shared.lock();
        match result {
            Ok(()) if position > queue.safe => {
                queue.safe = position;
                let wakers = queue.take_wakers();
                drop(queue);
                wakers.into_iter().for_each(Waker::wake);
            }
            Ok(()) => {}
            Err(failure) => {
                queue.failure = Some(failure);
                return;
            }
        }
    }
}
