//! D7: how long acknowledgements take while the broker's log is cleaned.
//!
//! The load is the same all the time: publishers with a fixed rate, and one persistent subscriber that takes a little less
//! than that. What it has taken is of no use to the log any more; but an absent Session is owed a backlog that was there
//! before all of it, so the log has nothing to clean until the useless bytes outweigh the others. That is the time
//! *before*. Then the backlog has to be copied, and again whenever the useless bytes outweigh the others once more.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Aim, Bench, Reading, SATURATING, reading, withheld};
use crate::backlog::{self, Pace, Subscriber};
use crate::fault::Fault;
use crate::load::Until;
use crate::publishing::{Ack, Publishers, Publishing, Topics, percentile};
use crate::usage;

/// What the absent Session is owed, as part of all messages of the load: the log is not cleaned in about the first fifth.
const BACKLOG_PART: f64 = 0.15;
/// What the subscriber takes, as part of the rate.
const TAKEN_PART: f64 = 0.9;
/// Part of the load whose acknowledgements do not count, at its begin.
const WARM_UP_PART: u32 = 20;
/// Messages are put together by when they were due, for so long.
const WINDOW: Duration = Duration::from_millis(100);
/// Between two looks whether the log is being cleaned.
const LOOK: Duration = Duration::from_millis(5);
/// A step of cleaning ends with a write and a sync of what it has read; so long, at least, it is taken to last.
const STEP_TAIL: Duration = Duration::from_millis(25);
/// With fewer messages a p99 says nothing.
const MESSAGES_MIN: usize = 1_000;

/// Takes it.
pub(super) fn d7(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    let (rate, duration) = (bench.options.rate, bench.options.cleaning_duration);
    let running = bench.start("cleaning", "fsync", &[])?;
    let (address, pid) = (running.broker.address, running.broker.pid());

    let earlier = Publishing { publishers: 100, topics: Topics::Earlier, ..SATURATING };
    let absent = [Subscriber { number: 0, topic_filter: "bench/earlier/+".to_owned(), hears: 0..earlier.publishers }];
    backlog::subscribe(address, &absent, 1, &bench.patience)?;
    let mut publishers = Publishers::connect(address, earlier, bench.patience.clone())?;
    let owed = f64::from(rate) * duration.as_secs_f64() * BACKLOG_PART / f64::from(earlier.publishers);
    bench.patience.step("filling a queue", owed.ceil() as u64 * u64::from(earlier.publishers));
    publishers.run(Until::MessagesPerPublisher(owed.ceil() as u64))?;
    let owed = publishers.sent();
    publishers.close()?;

    let load = SATURATING;
    let slow = Subscriber { number: 1, topic_filter: "bench/kept/+".to_owned(), hears: 0..load.publishers };
    backlog::subscribe(address, std::slice::from_ref(&slow), 1, &bench.patience)?;
    let mut publishers = Publishers::connect(address, load, bench.patience.clone())?;
    let sent = publishers.shares_at(rate, duration);
    usage::wait_until_quiet(pid)?;
    let mut watch = Watch::begin(pid, &bench.place.join("cleaning/store"))?;
    let pace =
        Pace { per_second: f64::from(rate) * TAKEN_PART, is_over: AtomicBool::new(false), taken: AtomicU64::new(0) };
    let is_over = AtomicBool::new(false);
    bench.patience.step("publishing at the rate", sent.iter().sum());
    let cpu_before = usage::cpu(pid)?;
    let (run, taken, cpu, watched, consumed) = std::thread::scope(|scope| {
        let consuming =
            scope.spawn(|| backlog::consume(address, &slow, &sent, load.payload_bytes, 1_000, &pace, &bench.patience));
        let watching = scope.spawn(|| watch.until(&is_over));
        let run = publishers.run_at(rate, duration);
        let taken = pace.taken.load(Ordering::Relaxed);
        let cpu = usage::cpu(pid);
        is_over.store(true, Ordering::Relaxed);
        let watched = watching.join();
        pace.is_over.store(true, Ordering::Relaxed);
        (run, taken, cpu, watched, consuming.join())
    });
    let (run, cpu) = (run?, cpu?.since(cpu_before));
    watched.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    consumed.unwrap_or(Err(Fault::NoCounters))?;
    debug_assert_eq!(publishers.sent(), sent);
    publishers.close()?;
    backlog::drain(address, &absent, &owed, 1, earlier.payload_bytes, 1_000, &bench.patience)?;
    running.broker.stop()?;

    let spans = watch.spans_since(run.started);
    let classes = Classes::of(&run.acks, &spans, duration / WARM_UP_PART);
    let late = percentile(&run.lateness, 0.99).unwrap_or(u32::MAX);
    // Above saturation, a latency says only for how long that has lasted.
    let kept_up = run.elapsed < duration + duration / 10 + Duration::from_secs(1);
    let ratio = if kept_up { classes.ratio(late) } else { Err("the broker did not keep up with the rate") };
    let name = "ack p99 while the log is cleaned, by that before";
    match ratio {
        Ok(ratio) => reading(out, name, "×", ratio, Aim::AtMost(1.5)),
        Err(reason) => withheld(out, name, "×", reason, Aim::AtMost(1.5)),
    }
    for (class, micros) in
        [("before", &classes.before), ("while it is cleaned", &classes.during), ("in pauses of it", &classes.between)]
    {
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let name = format!("ack {name} {class}");
            match percentile(micros, share) {
                Some(micros) => reading(out, &name, "ms", f64::from(micros) / 1e3, Aim::None),
                None => withheld(out, &name, "ms", "none", Aim::None),
            }
        }
        reading(out, &format!("acks {class}"), "", micros.len() as f64, Aim::None);
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    reading(out, "cleaned: segments given up", "MiB", mebibytes(watch.freed_bytes), Aim::None);
    match watch.read_bytes() {
        Some(bytes) => reading(out, "cleaned: read for copying", "MiB", mebibytes(bytes), Aim::None),
        None => withheld(out, "cleaned: read for copying", "MiB", "the kernel does not tell", Aim::None),
    }
    let seconds = run.elapsed.as_secs_f64();
    reading(out, "published", "messages/s", run.acks.len() as f64 / seconds, Aim::None);
    reading(out, "taken by the subscriber", "messages/s", taken as f64 / seconds, Aim::None);
    reading(out, "broker CPU", "% of its core", cpu.total.as_secs_f64() / seconds * 100.0, Aim::None);
    // It is part of the latencies.
    reading(out, "sent after it was due, p99", "ms", f64::from(late) / 1e3, Aim::None);
    Ok(())
}

/// Latencies, in microseconds, by what the log did when the message was due; each sorted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Classes {
    before: Vec<u32>,
    during: Vec<u32>,
    between: Vec<u32>,
}

impl Classes {
    /// `spans` are times at which the log was cleaned. By when a message was due, since of those under way for long more
    /// would meet a time of cleaning; and by windows, since cleaning waits for a moment in which nothing else is to be done.
    fn of(acks: &[Ack], spans: &[(Duration, Duration)], warm_up: Duration) -> Self {
        let window_at = |time: Duration| (time.as_micros() / WINDOW.as_micros()) as usize;
        let mut cleaned = Vec::<bool>::new();
        for &(begin, end) in spans {
            let last = window_at(end + STEP_TAIL);
            if cleaned.len() <= last {
                cleaned.resize(last + 1, false);
            }
            cleaned[window_at(begin)..=last].fill(true);
        }
        let first = cleaned.iter().position(|it| *it).unwrap_or(usize::MAX);
        let mut classes = Self::default();
        for ack in acks.iter().filter(|ack| ack.due() >= warm_up) {
            let window = window_at(ack.due());
            let class = match cleaned.get(window) {
                _ if window < first => &mut classes.before,
                Some(true) => &mut classes.during,
                _ => &mut classes.between,
            };
            class.push(ack.micros);
        }
        for class in [&mut classes.before, &mut classes.during, &mut classes.between] {
            class.sort_unstable();
        }
        classes
    }

    /// The ratio of the p99s; none if the generator was `late` (p99, in microseconds) by so much that they are its own.
    fn ratio(&self, late: u32) -> Result<f64, &'static str> {
        if self.during.is_empty() {
            return Err("no cleaning happened");
        }
        if self.before.len().min(self.during.len()) < MESSAGES_MIN {
            return Err("too few messages before cleaning, or while it happened");
        }
        let p99 = |micros| percentile(micros, 0.99).map_or(f64::NAN, f64::from);
        let (before, during) = (p99(&self.before), p99(&self.during));
        if f64::from(late) > before.min(during) / 2.0 {
            return Err("the generator was late itself: the machine is too busy");
        }
        Ok(during / before)
    }
}

/// Looks at a broker's log from outside: the thread that commits reads files only to clean the log, and segments that have
/// been cleaned are gone from the oldest on.
#[derive(Debug)]
struct Watch {
    directory: PathBuf,
    /// Where the kernel accounts what that thread reads, and how much that was at first and at last.
    account: Option<Account>,
    /// Segments by their number, with their bytes.
    segments: BTreeMap<u64, u64>,
    freed_bytes: u64,
    looked_at: Instant,
    /// From the look that did not see it yet to the one that did.
    spans: Vec<(Instant, Instant)>,
}

#[derive(Debug)]
struct Account {
    file: PathBuf,
    first: u64,
    last: u64,
}

impl Watch {
    fn begin(pid: u32, directory: &Path) -> io::Result<Self> {
        let file = commit_thread(pid)?.map(|thread| thread.join("io"));
        let account = file.and_then(|file| {
            let first = read_by(&file)?;
            Some(Account { file, first, last: first })
        });
        let mut watch = Self {
            directory: directory.to_owned(),
            account,
            segments: BTreeMap::new(),
            freed_bytes: 0,
            looked_at: Instant::now(),
            spans: Vec::new(),
        };
        watch.look()?;
        if watch.segments.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no log to watch"));
        }
        Ok(watch)
    }

    fn until(&mut self, is_over: &AtomicBool) -> io::Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> io::Result<()> {
        let mut is_cleaned = false;
        if let Some(account) = &mut self.account
            && let Some(read) = read_by(&account.file)
        {
            is_cleaned |= read > account.last;
            account.last = read;
        }
        let mut oldest = u64::MAX;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(segment_number) else { continue };
            oldest = oldest.min(number);
            if let Entry::Vacant(vacant) = self.segments.entry(number) {
                // It may be gone by now.
                let Ok(metadata) = entry.metadata() else { continue };
                vacant.insert(metadata.len());
            }
        }
        while let Some(segment) = self.segments.first_entry()
            && *segment.key() < oldest
            && oldest < u64::MAX
        {
            self.freed_bytes += segment.remove();
            is_cleaned = true;
        }
        let now = Instant::now();
        if is_cleaned {
            self.spans.push((self.looked_at, now));
        }
        self.looked_at = now;
        Ok(())
    }

    fn read_bytes(&self) -> Option<u64> {
        self.account.as_ref().map(|account| account.last - account.first)
    }

    fn spans_since(&self, started: Instant) -> Vec<(Duration, Duration)> {
        let since = |time: Instant| time.saturating_duration_since(started);
        self.spans.iter().map(|(begin, end)| (since(*begin), since(*end))).collect()
    }
}

/// The folder of the thread in `/proc`.
fn commit_thread(pid: u32) -> io::Result<Option<PathBuf>> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "commit") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Bytes that a thread has read so far, from the disk or not.
fn read_by(account: &Path) -> Option<u64> {
    fs::read_to_string(account).ok()?.lines().find_map(|line| line.strip_prefix("rchar:")?.trim().parse().ok())
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn acks(count: u32) -> Vec<Ack> {
        // One each millisecond; its latency tells which.
        (0..count).map(|number| Ack { due_micros: number * 1_000, micros: number }).collect()
    }

    #[test]
    fn messages_belong_to_the_window_in_which_they_were_due() {
        let classes = Classes::of(&acks(1_000), &[(ms(310), ms(315)), (ms(590), ms(595))], ms(50));
        assert_eq!(classes.before, (50..300).collect::<Vec<_>>());
        // The second step is taken to last until 620.
        assert_eq!(classes.during, (300..400).chain(500..700).collect::<Vec<_>>());
        assert_eq!(classes.between, (400..500).chain(700..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn without_cleaning_there_is_no_ratio() {
        let classes = Classes::of(&acks(5_000), &[], ms(0));
        assert_eq!(classes.before.len(), 5_000);
        assert_eq!(classes.ratio(0), Err("no cleaning happened"));
    }

    #[test]
    fn cleaning_from_the_first_moment_on_has_nothing_to_be_compared_with() {
        let classes = Classes::of(&acks(5_000), &[(ms(0), ms(4_000))], ms(0));
        assert_eq!(classes.ratio(0), Err("too few messages before cleaning, or while it happened"));
    }

    #[test]
    fn the_ratio_is_that_of_the_two_p99() {
        let (before, during) = (vec![200; 1_000], vec![500; 1_000]);
        let classes = Classes { before, during, between: Vec::new() };
        assert_eq!(classes.ratio(100), Ok(2.5));
        assert_eq!(classes.ratio(101), Err("the generator was late itself: the machine is too busy"));
    }

    #[test]
    fn segments_that_are_gone_from_the_oldest_on_are_cleaned_ones() {
        let directory = std::env::temp_dir().join(format!("pantala-bench-watch-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let name = |number| directory.join(format!("{number:016}.log"));
        for number in 1..=3 {
            fs::write(name(number), [0; 100]).unwrap();
        }
        fs::write(directory.join("spare.0"), [0; 100]).unwrap();
        let mut watch = Watch::begin(std::process::id(), &directory).unwrap();
        assert_eq!((watch.freed_bytes, watch.spans.len()), (0, 0));
        fs::rename(name(1), directory.join("spare.1")).unwrap();
        fs::write(name(4), [0; 100]).unwrap();
        watch.look().unwrap();
        assert_eq!((watch.freed_bytes, watch.spans.len()), (100, 1));
        watch.look().unwrap();
        assert_eq!((watch.freed_bytes, watch.spans.len()), (100, 1));
        fs::remove_dir_all(&directory).unwrap();
    }
}
