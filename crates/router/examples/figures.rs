//! What the router costs: `cargo run --release -p pantala-router --example figures [filter-tree] [retained] [shared]`.
//!
//! Percentiles are of single operations by the clock, whose own time is subtracted; rates and averages count the processor time
//! of this process, so that others on the machine do not show in them. Memory is the growth of the resident set. Linux only.

#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use core::hint::black_box;
use core::ops::ControlFlow;
use pantala_router::{Cursor, FilterTree, RetainedIndex, SharedGroup};
use std::time::{Duration, Instant};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);
    let clock = Clock::new();
    println!("the clock costs {} ns, subtracted below\n", clock.cost.as_nanos());
    if wants("filter-tree") {
        few_filters();
        million_filters(&clock);
        adversarial(&clock);
    }
    if wants("retained") {
        retained(&clock);
    }
    if wants("shared") {
        shared();
    }
}

/// What a small broker does: a thousand clients, each with the Topic Filter of its own.
fn few_filters() {
    println!("FilterTree, 1 000 Topic Filters, one match each, in a loop");
    let topics: Vec<String> = (0..1000).map(|client| format!("bench/client/{client}")).collect();
    for (what, wildcard) in [("without wildcard", None), ("client/+ besides", Some("other/client/+"))] {
        let mut tree: FilterTree<u32, u64> = FilterTree::new(1);
        for (key, topic) in (0..).zip(&topics) {
            tree.insert(topic, key, 0);
        }
        if let Some(filter) = wildcard {
            tree.insert(filter, 0, 0);
        }
        time_loop(what, &topics, |topic| count(&mut tree, topic));
    }
    let mut tree: FilterTree<u32, u64> = FilterTree::new(1);
    for (key, topic) in (0..).zip(&topics) {
        tree.insert(&format!("{topic}/#"), key, 0);
    }
    time_loop("bench/client/N/#", &topics, |topic| count(&mut tree, topic));
    let mut tree: FilterTree<u32, u64> = FilterTree::new(1);
    tree.insert("#", 0, 0);
    time_loop("# alone", &topics, |topic| count(&mut tree, topic));
    println!();
}

fn time_loop(what: &str, topics: &[String], mut operation: impl FnMut(&str) -> usize) {
    const ROUNDS: usize = 2000;
    let start = processor_time();
    let mut hits = 0;
    for _ in 0..ROUNDS {
        for topic in topics {
            hits += operation(topic);
        }
    }
    let operations = ROUNDS * topics.len();
    println!(
        "  {what:30} {:6.1} ns  ({} hits each)",
        since(start).as_nanos() as f64 / operations as f64,
        hits / operations
    );
}

fn count<V: Copy>(tree: &mut FilterTree<u32, V>, topic: &str) -> usize {
    let mut hits = 0;
    tree.matches(topic, |entries| hits += black_box(entries).len());
    hits
}

/// BENCHMARKS M1 and M2.
fn million_filters(clock: &Clock) {
    println!("FilterTree, 1 000 000 Topic Filters: 60 % site/+/dev/#, 20 % exact, 10 % +/line/dev, 10 % of ten levels");
    let mut random = Random(42);
    let mut filters = Vec::new();
    for site in 0..1000 {
        filters.extend((0..600).map(|device| format!("site{site}/+/dev{device}/#")));
        filters.extend((0..200).map(|device| format!("site{site}/line{}/dev{device}/temperature", device % 50)));
        filters.extend((0..100).map(|line| format!("+/line{line}/dev{site}")));
    }
    filters.extend(combinations(&["ten", "b", "c", "d"], 10));
    filters.extend(combinations(&["th", "b", "c", "d", "e", "f", "g", "h", "i", "j"], 1000));
    let mut deep = 0u32;
    while filters.len() < 1_000_000 {
        let [region, site, line] = [deep % 10, deep / 10 % 100, deep / 1000 % 10];
        filters.push(format!("country/de/region/{region}/site/{site}/line/{line}/device-{deep}/+"));
        deep += 1;
    }
    random.shuffle(&mut filters);

    let text: usize = filters.iter().map(String::len).sum();
    let before = resident();
    let mut tree: FilterTree<u32, (u32, u32)> = FilterTree::new(random.next());
    let start = processor_time();
    let mut slowest = Duration::ZERO;
    for (key, filter) in (0..).zip(&filters) {
        let one = Instant::now();
        tree.insert(filter, key % 100, (key, 0));
        slowest = slowest.max(one.elapsed());
    }
    let rate = filters.len() as f64 / since(start).as_secs_f64();
    println!(
        "  inserted {:.0} k/s, slowest {:.1} ms; {} nodes, {:.1} bytes each (of {:.1} bytes text), entry included",
        rate / 1e3,
        slowest.as_secs_f64() * 1e3,
        tree.nodes(),
        (resident() - before) as f64 / filters.len() as f64,
        text as f64 / filters.len() as f64,
    );

    type Make = fn(&mut Random) -> String;
    let kinds: [(&str, Make); 7] = [
        ("+/line/dev", |random| {
            format!("plant{}/line{}/dev{}", random.below(1000), random.below(100), random.below(1000))
        }),
        ("site/+/dev/#, exact", |random| {
            let device = random.below(200);
            format!("site{}/line{}/dev{device}/temperature", random.below(1000), device % 50)
        }),
        ("site/+/dev/#, +/line/dev", |random| {
            format!("site{}/line{}/dev{}", random.below(1000), random.below(100), random.below(600))
        }),
        ("deep", |random| {
            let deep = random.below(90_000);
            let [region, site, line] = [deep % 10, deep / 10 % 100, deep / 1000 % 10];
            format!("country/de/region/{region}/site/{site}/line/{line}/device-{deep}/status")
        }),
        ("ten", |_| "ten/b/c/d".to_owned()),
        ("a thousand", |_| "th/b/c/d/e/f/g/h/i/j".to_owned()),
        ("mixed", |random| match random.below(4) {
            0 => format!("plant{}/line{}/dev{}", random.below(1000), random.below(100), random.below(1000)),
            1 => format!("site{}/line{}/dev{}/temperature", random.below(1000), random.below(50), random.below(600)),
            2 => format!("site{}/line{}/dev{}", random.below(1000), random.below(100), random.below(1000)),
            _ => format!("country/de/region/1/site/2/line/3/device-{}/status", random.below(90_000)),
        }),
    ];
    for (name, make) in kinds {
        let topics: Vec<String> =
            (0..if name == "a thousand" { 2_000 } else { 200_000 }).map(|_| make(&mut random)).collect();
        let mut hits = 0;
        let times = clock.times(topics.iter().inspect(read), |topic| hits += count(&mut tree, topic));
        println!("  match, {name:26} {times}  {:.2} filters each", hits as f64 / topics.len() as f64);
    }

    let full = resident();
    let start = processor_time();
    for (key, filter) in (0..).zip(&filters) {
        assert!(tree.remove(filter, key % 100).is_some());
    }
    println!(
        "  removed {:.0} k/s; {} nodes left, {:.0} of {:.0} MB given back\n",
        filters.len() as f64 / since(start).as_secs_f64() / 1e3,
        tree.nodes(),
        full.saturating_sub(resident()) as f64 / 1e6,
        (full - before) as f64 / 1e6,
    );
}

/// BENCHMARKS M3: everything reached, nothing found.
fn adversarial(clock: &Clock) {
    println!("FilterTree, all 2^n Topic Filters of n levels `a` or `+`, ending in a level that does not come");
    for levels in [4, 8, 12, 16] {
        let mut tree: FilterTree<u32, u64> = FilterTree::new(1);
        for filter in combinations(&vec!["a"; levels], 1 << levels) {
            tree.insert(&format!("{filter}/x"), 1, 1);
        }
        let topic = vec!["a"; levels].join("/") + "/y";
        let times = clock.times(0..200, |_| count(&mut tree, &topic));
        println!("  n = {levels:2}, {:6} filters {times}", tree.filters());
    }
    println!();
}

/// The first `number` ways to put `+` for some of the levels.
fn combinations(levels: &[&str], number: usize) -> Vec<String> {
    (0..number)
        .map(|plus| {
            let levels = levels.iter().enumerate().map(|(at, level)| if plus >> at & 1 == 1 { "+" } else { level });
            levels.collect::<Vec<_>>().join("/")
        })
        .collect()
}

/// BENCHMARKS M4 to M6, without payloads.
fn retained(clock: &Clock) {
    println!("RetainedIndex, 1 000 000 Topic Names site/N/line/N/dev/N in random order, eight bytes of value");
    let mut random = Random(42);
    let mut topics: Vec<String> = (0..1_000_000u32)
        .map(|number| format!("site/{}/line/{}/dev/{}", number % 100, number / 100 % 100, number / 10_000))
        .collect();
    random.shuffle(&mut topics);
    let text: usize = topics.iter().map(String::len).sum();
    let before = resident();
    let mut index: RetainedIndex<u64> = RetainedIndex::new(random.next());
    let start = processor_time();
    let mut slowest = Duration::ZERO;
    for (number, topic) in (0..).zip(&topics) {
        let one = Instant::now();
        index.insert(topic, number);
        slowest = slowest.max(one.elapsed());
    }
    let rate = topics.len() as f64 / since(start).as_secs_f64();
    let each = (resident() - before) as f64 / topics.len() as f64;
    println!(
        "  inserted {:.0} k/s, slowest {:.1} ms; {each:.1} bytes each, {:.1} beside text and value",
        rate / 1e3,
        slowest.as_secs_f64() * 1e3,
        each - 8.0 - text as f64 / topics.len() as f64,
    );
    random.shuffle(&mut topics);
    println!("  get                    {}", clock.times(topics.iter().inspect(read), |topic| index.get(topic)));
    println!("  insert, replacing      {}", clock.times(topics.iter().inspect(read), |topic| index.insert(topic, 1)));
    for filter in ["site/5/#", "site/+/line/7/dev/+", "+/+/+/7/#", "+/50/+/50/+/50", "#", "+/+/+/+/+/none"] {
        let (mut hits, mut calls, mut bytes, mut rounds) = (0, 0, 0, 0u32);
        let mut slowest = Duration::ZERO;
        let start = processor_time();
        while since(start) < Duration::from_millis(200) {
            let mut cursor = Cursor::new();
            while !cursor.is_done() {
                let one = Instant::now();
                index.scan(filter, &mut cursor, 256, |topic, value| {
                    hits += 1;
                    bytes += topic.len() + usize::from(*value == 0);
                    ControlFlow::Continue(())
                });
                calls += 1;
                slowest = slowest.max(one.elapsed());
            }
            rounds += 1;
        }
        let elapsed = since(start);
        black_box(bytes);
        println!(
            "  scan {filter:22} {:7} hits in {:7.3} ms, {:6.2} M/s; {:5} calls of 256 steps, slowest {:.0} us",
            hits / rounds,
            elapsed.as_secs_f64() * 1e3 / f64::from(rounds),
            f64::from(hits) / elapsed.as_secs_f64() / 1e6,
            calls / rounds,
            slowest.as_secs_f64() * 1e6,
        );
    }
    let full = resident();
    let start = processor_time();
    for topic in &topics {
        assert!(index.remove(topic).is_some());
    }
    println!(
        "  removed {:.0} k/s; {:.0} of {:.0} MB given back\n",
        topics.len() as f64 / since(start).as_secs_f64() / 1e3,
        full.saturating_sub(resident()) as f64 / 1e6,
        (full - before) as f64 / 1e6,
    );
}

fn shared() {
    println!("SharedGroup, times in a loop");
    for members in [10u32, 10_000] {
        let mut group: SharedGroup<u32, u32> = SharedGroup::new(1);
        for member in 0..members {
            group.add(member, 0, member % 100 == 0);
        }
        let each = |what: &str, operation: &mut dyn FnMut(u32)| {
            let start = processor_time();
            for turn in 0..10_000_000u32 {
                operation(turn.wrapping_mul(2_654_435_761) % members);
            }
            println!("  {members:5} members, {what:18} {:5.1} ns", since(start).as_nanos() as f64 / 1e7);
        };
        each("choose", &mut |_| {
            black_box(group.choose());
        });
        each("disconnect, connect", &mut |member| {
            group.set_connected(member, false);
            group.set_connected(member, true);
        });
        each("remove, add", &mut |member| {
            group.remove(member);
            group.add(member, 0, true);
        });
    }
}

struct Clock {
    cost: Duration,
}

struct Times {
    median: Duration,
    p99: Duration,
    mean: Duration,
}

impl Clock {
    fn new() -> Self {
        let mut clock = Self { cost: Duration::ZERO };
        clock.cost = clock.times(0..100_000, |_| ()).median;
        clock
    }

    fn times<I, R>(&self, items: impl Iterator<Item = I>, mut operation: impl FnMut(I) -> R) -> Times {
        let mut times: Vec<Duration> = items
            .map(|item| {
                let start = Instant::now();
                black_box(operation(item));
                start.elapsed().saturating_sub(self.cost)
            })
            .collect();
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("not that many");
        Times { median: times[times.len() / 2], p99: times[times.len() * 99 / 100], mean }
    }
}

impl core::fmt::Display for Times {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [median, p99, mean] = [self.median, self.p99, self.mean].map(|time| time.as_nanos());
        write!(f, "p50 {median:7} ns, p99 {p99:7} ns, mean {mean:7} ns")
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// A Topic Name to look up comes from a read buffer, not from far-off memory.
fn read(topic: &&String) {
    black_box(topic.bytes().fold(0, u8::wrapping_add));
}

fn since(start: Duration) -> Duration {
    processor_time() - start
}

/// What this process has had of the processor, to the last tick of the scheduler: some milliseconds.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0))
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.unwrap_or(0usize) * 1024
}
