//! D8: a busy disk. What a slow disk allows is to be had, and those who want nothing of it are not to notice.
//!
//! The disk is slowed in the broker's process, see [`slow_disk`](super::slow_disk), and in one of two ways: each sync takes
//! longer, whatever it has to do, as behind a long queue of others; or it takes as long as its bytes do at a small bandwidth.

use std::time::{Duration, Instant};

use super::slow_disk::{Account, DiskUse, SlowDisk, Slowness};
use super::{Activity, Aim, Bench, Reading, Running, SATURATING, reading, withheld};
use crate::backlog::{self, Subscriber};
use crate::fault::Fault;
use crate::load::{Load, Plan, Run, Shape, Until};
use crate::publishing::{Published, Publishers, Publishing};
use crate::raw_sync::RawSync;
use crate::report::median;

/// How much longer each sync takes.
const DELAY: Duration = Duration::from_millis(50);
/// Bytes that go down in a second.
const BYTES_PER_SECOND: u64 = 10 << 20;
/// With a delay, as many messages are in flight as the broker has no trouble to handle in that time.
const DELAYED_PUBLISHERS: u32 = 50;
/// A sync of many messages at a small bandwidth takes a good part of a second; of these there have to be many.
const LENGTHS: u32 = 5;
/// QoS 0, which is to be unaffected: one message under way for each pair.
const BESIDE: Plan = Plan { shape: Shape::Pairs(10), qos: 0, payload_bytes: 64, window: 1, per_write: 1 };

const SHARE: &str = "throughput by what the disk allows";
const DISK_SHARE: &str = "what the disk was given, by what it takes";
const QOS0_SHARE: &str = "QoS 0 beside it, by that with the same load on the quick disk";

/// Each sync takes longer.
pub(super) fn d8_delay(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    let load = Publishing { publishers: DELAYED_PUBLISHERS, ..SATURATING };
    let Some(busy) = Busy::measure(bench, Slowness::Delay(DELAY), load, out)? else { return Ok(()) };
    let in_flight = load.publishers * load.window;
    let bound = by_delay(in_flight, DELAY, busy.raw_sync);
    reading(out, SHARE, "%", busy.published.rate() / bound * 100.0, Aim::AtLeast(90.0));
    busy.explain(out);
    reading(out, "raw fdatasync of 4 KiB, p50", "ms", busy.raw_sync.as_secs_f64() * 1e3, Aim::None);
    Ok(())
}

/// The disk has a small bandwidth.
pub(super) fn d8_rate(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    let Some(busy) = Busy::measure(bench, Slowness::Rate(BYTES_PER_SECOND), SATURATING, out)? else { return Ok(()) };
    let Busy { published, activity, disk, .. } = &busy;
    let bound = by_rate(activity.bytes as f64 / published.messages as f64);
    reading(out, SHARE, "%", published.rate() / bound * 100.0, Aim::AtLeast(90.0));
    let given = disk.synced_bytes as f64 / published.elapsed.as_secs_f64();
    reading(out, DISK_SHARE, "%", given / BYTES_PER_SECOND as f64 * 100.0, Aim::None);
    busy.explain(out);
    let per_message = |bytes: u64| bytes as f64 / published.messages as f64;
    reading(out, "written to the log", "bytes/message", per_message(activity.bytes), Aim::None);
    reading(out, "written to files", "bytes/message", per_message(disk.written_bytes), Aim::None);
    Ok(())
}

/// Messages per second at best, when all that is in flight shares each sync.
fn by_delay(in_flight: u32, delay: Duration, raw_sync: Duration) -> f64 {
    f64::from(in_flight) / (delay + raw_sync).as_secs_f64()
}

/// Messages per second at best, when nothing is written but what they take in the log.
fn by_rate(log_bytes_per_message: f64) -> f64 {
    BYTES_PER_SECOND as f64 / log_bytes_per_message
}

/// What came of a slow disk.
struct Busy {
    published: Published,
    activity: Activity,
    disk: DiskUse,
    /// Four kilobytes, on the disk as it is.
    raw_sync: Duration,
}

impl Busy {
    /// None if the disk cannot be slowed here.
    fn measure(
        bench: &Bench<'_>,
        slowness: Slowness,
        load: Publishing,
        out: &mut Vec<Reading>,
    ) -> Result<Option<Self>, Fault> {
        let slow_disk = match SlowDisk::build(bench.place)? {
            Ok(slow_disk) => slow_disk,
            Err(reason) => {
                withheld(out, SHARE, "%", reason, Aim::AtLeast(90.0));
                withheld(out, QOS0_SHARE, "%", reason, Aim::AtLeast(90.0));
                return Ok(None);
            }
        };
        let duration = bench.options.duration * LENGTHS;
        let mut syncs = Vec::new();
        bench
            .pinning
            .on_broker_core(|| RawSync::create(&bench.place.join("raw"))?.run(duration / 10, &mut syncs))??;
        let raw_sync = median(syncs.iter().map(|micros| f64::from(*micros))).unwrap_or(f64::NAN);
        let raw_sync = Duration::try_from_secs_f64(raw_sync / 1e6).map_err(|_| Fault::NoCounters)?;

        let mut slow = Side::start(bench, &slow_disk, "slow", slowness, load)?;
        let mut quick = Side::start(bench, &slow_disk, "quick", Slowness::None, load)?;
        let alone = slow.passing.run(Until::Elapsed(bench.options.duration))?;
        bench.patience.step("publishing to the slow disk", 0);
        let activity = slow.running.activity("fsync")?;
        let published = slow.publishers.run(Until::Elapsed(duration / 4))?;
        let bursts = Bursts::of(&published, &slow.running.activity("fsync")?.since(activity), load);

        // As many messages as there are, and as many at once, so that only the disk is another one; before and after, since
        // machines drift.
        let mut undisturbed = quick.pass_beside(bench, bursts)?;
        let (disk, activity) = (slow.account.read()?, slow.running.activity("fsync")?);
        bench.patience.step("publishing to the slow disk", 0);
        let (published, passed) =
            beside(&mut slow.passing, duration, || slow.publishers.run(Until::Elapsed(duration)))?;
        let activity = slow.running.activity("fsync")?.since(activity);
        let disk = slow.account.read()?.since(disk);
        slow.account.check(&disk, &activity)?;
        undisturbed += quick.pass_beside(bench, Bursts::of(&published, &activity, load))?;
        slow.finish(bench)?;
        quick.finish(bench)?;

        reading(out, QOS0_SHARE, "%", passed.rate() / (undisturbed / 2.0) * 100.0, Aim::AtLeast(90.0));
        reading(out, "QoS 0 beside it", "messages/s", passed.rate(), Aim::None);
        reading(out, "QoS 0 without the load", "messages/s", alone.rate(), Aim::None);
        Ok(Some(Self { published, activity, disk, raw_sync }))
    }

    fn explain(&self, out: &mut Vec<Reading>) {
        let Self { published, activity, disk, .. } = self;
        reading(out, "throughput", "messages/s", published.rate(), Aim::None);
        reading(out, "ack p50", "ms", published.latency(0.5) / 1e3, Aim::None);
        reading(out, "ack p99", "ms", published.latency(0.99) / 1e3, Aim::None);
        let acks = published.messages as f64 / activity.syncs.max(1) as f64;
        reading(out, "acks per sync", "", acks, Aim::None);
        reading(out, "one sync", "ms", disk.per_sync().as_secs_f64() * 1e3, Aim::None);
        let share = |time: Duration| time.as_secs_f64() / published.elapsed.as_secs_f64() * 100.0;
        let syncing = disk.synced + disk.waited;
        reading(out, "time in syncs of the log", "%", share(syncing.saturating_sub(disk.in_fsync)), Aim::None);
        reading(out, "time in syncs of new files and of folders", "%", share(disk.in_fsync), Aim::None);
        reading(
            out,
            "syncs of new files and of folders",
            "/s",
            disk.fsyncs as f64 / published.elapsed.as_secs_f64(),
            Aim::None,
        );
        reading(out, "generator", "% of its core", published.generator_share() * 100.0, Aim::None);
    }
}

/// What a slow disk makes of a closed loop: publishers are answered together, and speak again together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bursts {
    /// Messages of each publisher.
    messages: u64,
    interval: Duration,
}

impl Bursts {
    fn of(published: &Published, activity: &Activity, load: Publishing) -> Self {
        let at_once = published.messages as f64 / activity.syncs.max(1) as f64 / f64::from(load.publishers);
        let messages = at_once.round().clamp(1.0, f64::from(load.window));
        let interval = Duration::from_secs_f64(messages * f64::from(load.publishers) / published.rate().max(1.0));
        Self { messages: messages as u64, interval }
    }

    /// Makes a disk that is not slow see the same.
    fn publish(self, publishers: &mut Publishers, duration: Duration) -> Result<(), Fault> {
        let begun = Instant::now();
        let mut next = begun;
        while next - begun < duration {
            publishers.run(Until::MessagesPerPublisher(self.messages))?;
            next += self.interval;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

/// A broker with both loads connected.
struct Side {
    running: Running,
    account: Account,
    subscribers: [Subscriber; 1],
    publishers: Publishers,
    passing: Load,
    payload_bytes: usize,
}

impl Side {
    fn start(
        bench: &Bench<'_>,
        slow_disk: &SlowDisk,
        name: &str,
        slowness: Slowness,
        load: Publishing,
    ) -> Result<Self, Fault> {
        let (wrapper, account) = slow_disk.attach(slowness, &bench.place.join(format!("{name}.account")))?;
        let running = bench.start(name, "fsync", &wrapper)?;
        let address = running.broker.address;
        let subscribers =
            [Subscriber { number: 0, topic_filter: "bench/kept/+".to_owned(), hears: 0..load.publishers }];
        backlog::subscribe(address, &subscribers, 1, &bench.patience)?;
        let publishers = Publishers::connect(address, load, bench.patience.clone())?;
        let passing = Load::connect(address, &BESIDE, bench.patience.clone())?;
        Ok(Self { running, account, subscribers, publishers, passing, payload_bytes: load.payload_bytes })
    }

    /// QoS 0 messages per second beside messages that are stored.
    fn pass_beside(&mut self, bench: &Bench<'_>, bursts: Bursts) -> Result<f64, Fault> {
        let duration = bench.options.duration * LENGTHS / 2;
        let (disk, activity) = (self.account.read()?, self.running.activity("fsync")?);
        bench.patience.step("publishing as much to the quick disk", 0);
        let (_, passed) = beside(&mut self.passing, duration, || bursts.publish(&mut self.publishers, duration))?;
        let activity = self.running.activity("fsync")?.since(activity);
        self.account.check(&self.account.read()?.since(disk), &activity)?;
        Ok(passed.rate())
    }

    /// All that was acknowledged has to be there.
    fn finish(self, bench: &Bench<'_>) -> Result<(), Fault> {
        let (address, sent) = (self.running.broker.address, self.publishers.sent());
        self.publishers.close()?;
        backlog::drain(address, &self.subscribers, &sent, 1, self.payload_bytes, 1_000, &bench.patience)?;
        Ok(self.running.broker.stop()?)
    }
}

/// Runs `stored` with QoS 0 beside it, for `duration`.
fn beside<T>(
    passing: &mut Load,
    duration: Duration,
    stored: impl FnOnce() -> Result<T, Fault>,
) -> Result<(T, Run), Fault> {
    std::thread::scope(|scope| {
        let passing = scope.spawn(|| passing.run(Until::Elapsed(duration)));
        let stored = stored();
        let passed = passing.join().unwrap_or(Err(Fault::NoCounters));
        Ok((stored?, passed?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_what_a_sync_answers_at_the_pace_of_the_slow_disk() {
        let load = Publishing { publishers: 50, ..SATURATING };
        let bursts = |messages, seconds, syncs| {
            let (elapsed, generator_cpu) = (Duration::from_secs(seconds), Duration::ZERO);
            let published = Published { messages, elapsed, generator_cpu, latencies: Vec::new() };
            Bursts::of(&published, &Activity { syncs, ..Activity::default() }, load)
        };
        // 800 answers for each sync are 16 for each publisher, and a second has 8 000.
        assert_eq!(bursts(80_000, 10, 100), Bursts { messages: 16, interval: Duration::from_millis(100) });
        assert_eq!(bursts(1_000, 10, 1_000), Bursts { messages: 1, interval: Duration::from_millis(500) });
        assert_eq!(bursts(100_000, 10, 1), Bursts { messages: 20, interval: Duration::from_millis(100) });
    }

    #[test]
    fn what_a_disk_allows_is_what_shares_a_sync_or_fits_into_its_bandwidth() {
        let bound = by_delay(1_000, Duration::from_millis(50), Duration::from_millis(0));
        assert!((bound - 20_000.0).abs() < 1e-6, "{bound}");
        // What a sync takes anyway comes on top of the delay.
        let bound = by_delay(1_000, Duration::from_millis(50), Duration::from_micros(12_500));
        assert!((bound - 16_000.0).abs() < 1e-6, "{bound}");
        assert!((by_rate(131.072) - 80_000.0).abs() < 1e-6);
    }
}
