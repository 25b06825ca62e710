//! A thread that looks at the workers now and then: for `$SYS`, for memory, and for the watchdog of the service manager.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pantala_broker::{Census, Counters, Totals, WorkerId};
use pantala_store::Durability;
use sd_notify::NotifyState;

use crate::config::{Config, LogType};
use crate::guard::{self, Memory};
use crate::inbox::{Inbox, Letter};
use crate::log::Log;
use crate::reload::{Commit, Reloadable};
use crate::security::Security;
use crate::stage::StageCounters;
use crate::storage::ActivitySource;
use crate::sys::{Figures, Own, Tree};

/// How long workers have for their answers. One that takes longer is missing from the figures.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_STEP: Duration = Duration::from_millis(50);
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);
/// Where nothing is ever due, it is looked anew after this.
const NOTHING_DUE: Duration = Duration::from_secs(3_600);
/// Once memory has been short, it is so until it is below this part of the limit.
const MEMORY_ENOUGH_PERCENT: u64 = 95;

/// What one worker answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) worker: u8,
    pub(crate) counters: Counters,
    pub(crate) stages: StageCounters,
    pub(crate) census: Census,
    pub(crate) connections: u64,
    pub(crate) sessions: u64,
    /// Records that it has appended and that are not durable.
    pub(crate) lag: u64,
}

/// What the thread is made from.
pub(crate) struct Reporter {
    pub(crate) log: Log,
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) security: Arc<Security>,
    pub(crate) activity: Option<ActivitySource>,
    pub(crate) durability: Durability,
    pub(crate) rhythm: Rhythm,
    /// How often the service manager wants to hear from us.
    pub(crate) watchdog: Option<Duration>,
}

/// What a reload may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// Between two looks at `$SYS`; None is never.
    interval: Option<Duration>,
    /// Bytes of memory above which nobody new is let in.
    memory_max: Option<u64>,
}

impl Rhythm {
    pub(crate) fn of(config: &Config) -> Self {
        let seconds = config.sys_interval_seconds;
        Self {
            interval: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
            memory_max: guard::memory_max(config.memory_bytes_max),
        }
    }
}

/// A word to the thread.
enum Word {
    Change(Rhythm),
    Stop,
}

/// The thread, which ends when this is told to.
pub(crate) struct Reporting {
    thread: JoinHandle<()>,
    words: Sender<Word>,
}

impl Reporting {
    pub(crate) fn stop(self) {
        // It fails where the thread has ended already.
        let _ = self.words.send(Word::Stop);
        // It cannot fail; should it panic, the broker has ended all the same.
        drop(self.thread.join());
    }

    /// What tells the thread of a reload.
    pub(crate) fn reloadable(&self) -> impl Reloadable + use<> {
        Changing(self.words.clone())
    }
}

struct Changing(Sender<Word>);

impl Reloadable for Changing {
    fn prepare(&mut self, _old: &Config, new: &Config) -> Result<Commit, String> {
        let (words, rhythm) = (self.0.clone(), Rhythm::of(new));
        Ok(Box::new(move |_| {
            // A thread that has ended looks at nothing.
            let _ = words.send(Word::Change(rhythm));
            // It is told of as a change of the configuration.
            Vec::new()
        }))
    }
}

/// When something is to be done again.
struct Due {
    every: Duration,
    next: Instant,
}

impl Due {
    fn is_due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        // Not in bursts, should the machine have slept.
        self.next = (self.next + self.every).max(now);
        true
    }
}

impl Reporter {
    /// Starts the thread.
    pub(crate) fn start(self) -> io::Result<Reporting> {
        let (words, heard) = mpsc::channel();
        let thread = thread::Builder::new().name("reporter".to_owned()).spawn(move || self.run(&heard))?;
        Ok(Reporting { thread, words })
    }

    fn run(mut self, heard: &Receiver<Word>) {
        let start = Instant::now();
        let due = |every: Duration| Due { every, next: Instant::now() };
        let mut sys = self.rhythm.interval.map(due);
        let mut memory = self.rhythm.memory_max.map(|_| due(MEMORY_INTERVAL));
        // Twice as often as it has to be.
        let mut watchdog = self.watchdog.map(|every| due(every / 2));
        let (mut tree, mut last, mut changed) = (Tree::default(), start, None);
        loop {
            let now = Instant::now();
            if memory.as_mut().is_some_and(|due| due.is_due(now)) {
                self.look_at_memory();
            }
            let sys_due = sys.as_mut().is_some_and(|due| due.is_due(now));
            let watchdog_due = watchdog.as_mut().is_some_and(|due| due.is_due(now));
            if sys_due || watchdog_due {
                let Some(samples) = self.samples(heard, &mut changed) else { return };
                // Workers that do not answer are what the watchdog is for.
                if watchdog_due && samples.len() == self.inboxes.len() {
                    drop(sd_notify::notify(&[NotifyState::Watchdog]));
                }
                if sys_due {
                    let figures = self.figures(&samples, now.duration_since(start));
                    let messages = tree.update(&figures, now.duration_since(last).as_secs_f64());
                    last = now;
                    if !messages.is_empty() {
                        self.inboxes[0].send(Letter::Publish(messages));
                    }
                }
            }
            let all = [&sys, &memory, &watchdog];
            let next = all.into_iter().flatten().map(|due| due.next).min();
            let wait = next.map_or(NOTHING_DUE, |next| next.saturating_duration_since(Instant::now()));
            let word = if changed.is_some() { Err(RecvTimeoutError::Timeout) } else { heard.recv_timeout(wait) };
            match word {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Word::Change(rhythm)) => changed = Some(rhythm),
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(rhythm) = changed.take() {
                if rhythm.interval != self.rhythm.interval {
                    sys = rhythm.interval.map(due);
                    if sys.is_none() {
                        self.inboxes[0].send(Letter::Publish(tree.take_back()));
                    }
                }
                memory = rhythm.memory_max.map(|_| due(MEMORY_INTERVAL));
                self.rhythm = rhythm;
                if rhythm.memory_max.is_none() {
                    self.enough_memory("there is no limit any more");
                }
            }
        }
    }

    /// Memory is not short any more, if it was.
    fn enough_memory(&self, why: &str) {
        if self.totals.memory_short.swap(false, Ordering::Relaxed) {
            self.log.line(LogType::Notice, &format!("There is memory again: {why}."));
        }
    }

    fn look_at_memory(&mut self) {
        let (Some(max), Some(Memory { resident, .. })) = (self.rhythm.memory_max, Memory::now()) else { return };
        let short = self.totals.memory_short.load(Ordering::Relaxed);
        if !short && resident > max {
            self.totals.memory_short.store(true, Ordering::Relaxed);
            self.inboxes.iter().for_each(|inbox| inbox.send(Letter::Shed));
            self.log.line(
                LogType::Error,
                &format!(
                    "Short of memory: {resident} bytes are resident, and memory_bytes_max is {max}. Nobody new is let in, and \
                     QoS 0 messages are not queued, until it is {MEMORY_ENOUGH_PERCENT} % of that."
                ),
            );
        } else if short && resident <= max / 100 * MEMORY_ENOUGH_PERCENT {
            self.enough_memory(&format!("{resident} bytes are resident"));
        }
    }

    /// What the workers say, of those that answer in time. None if the broker has ended meanwhile.
    fn samples(&self, heard: &Receiver<Word>, changed: &mut Option<Rhythm>) -> Option<Vec<Sample>> {
        let (sender, answers) = mpsc::channel();
        self.inboxes.iter().for_each(|inbox| inbox.send(Letter::Sample(sender.clone())));
        drop(sender);
        let (mut samples, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while samples.len() < self.inboxes.len() && Instant::now() < deadline {
            match answers.recv_timeout(PATIENCE_STEP) {
                Ok(sample) => samples.push(sample),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => match heard.try_recv() {
                    Ok(Word::Change(rhythm)) => *changed = Some(rhythm),
                    Ok(Word::Stop) | Err(mpsc::TryRecvError::Disconnected) => return None,
                    Err(mpsc::TryRecvError::Empty) => {}
                },
            }
        }
        Some(samples)
    }

    fn figures(&self, samples: &[Sample], uptime: Duration) -> Figures {
        let count = |count: &std::sync::atomic::AtomicU32| u64::from(count.load(Ordering::Relaxed));
        let mut figures = Figures {
            uptime_seconds: uptime.as_secs(),
            connected: count(&self.totals.connections),
            sessions: count(&self.totals.sessions),
            retained: count(&self.totals.retained),
            workers: vec![(0, 0); self.inboxes.len()],
            listeners: self.totals.on_listeners().into_iter().map(u64::from).collect(),
            memory: Memory::now(),
            memory_max: self.rhythm.memory_max,
            memory_short: self.totals.memory_short.load(Ordering::Relaxed),
            durability: Some(self.durability),
            store: self.activity.as_ref().map(|activity| activity()).unwrap_or_default(),
            verifications: self.security.counters().iter().collect(),
            log_held_back: self.log.held_back(),
            ..Figures::default()
        };
        for sample in samples {
            figures.counters.add(&sample.counters);
            figures.stages.add(&sample.stages);
            figures.census.add(&sample.census);
            figures.store_lag += sample.lag;
            if let Some(worker) = figures.workers.get_mut(usize::from(sample.worker)) {
                *worker = (sample.connections, sample.sessions);
            }
        }
        figures
    }
}

/// Lets the first worker publish lines of the log.
pub(crate) fn publish_log(log: &Log, inboxes: &Arc<[Arc<Inbox>]>) {
    let inbox = Arc::clone(&inboxes[usize::from(WorkerId(0).0)]);
    log.publish_by(Box::new(move |topic_name, payload| {
        let own = Own { topic_name: topic_name.to_owned(), payload, retain: false };
        inbox.send(Letter::Publish(vec![own]));
    }));
}
