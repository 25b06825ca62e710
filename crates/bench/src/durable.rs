//! Figures of what outlives the broker's process: acknowledgements that mean stored, backlogs, restarts.
//!
//! Every message that was acknowledged has to come out again, once and in order; a figure for which one did not is
//! invalid. Times are printed and judged against an aim, never asserted.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backlog::{self, Drained, Subscriber};
use crate::broker::{Broker, Keeping, Kind, Program};
use crate::fault::Fault;
use crate::fleet::{Fleet, Introduction, Lifetime};
use crate::floor;
use crate::load::Until;
use crate::machine::Machine;
use crate::pinning::Pinning;
use crate::progress::{Patience, Progress};
use crate::publishing::{self, Published, Publishers, Publishing, Topics, topic_name};
use crate::raw_sync::RawSync;
use crate::report::{Circumstances, median, number};
use crate::usage;

mod busy;
mod cleaning;
mod slow_disk;

/// A broker that is silent so long, with messages outstanding, has lost them.
const STALL_AFTER: Duration = Duration::from_secs(20);
/// How long the broker may take to write its counters.
const COUNTERS_WITHIN: Duration = Duration::from_secs(5);

/// One figure of this kind.
#[derive(Debug)]
pub struct DurableFigure {
    /// Id, as in the documentation.
    pub id: &'static str,
    /// What is done.
    pub title: &'static str,
    measure: fn(&Bench<'_>, &mut Vec<Reading>) -> Result<(), Fault>,
}

/// All of them.
pub const DURABLE_FIGURES: &[DurableFigure] = &[
    DurableFigure { id: "D1", title: "QoS 1, 1 000 publishers, 20 in flight each, subscriber absent", measure: d1 },
    DurableFigure { id: "D2", title: "QoS 1, one publisher, one message at a time", measure: d2 },
    DurableFigure { id: "D3", title: "QoS 2 otherwise as D1", measure: d3 },
    DurableFigure { id: "D4", title: "one publisher, 1 KiB, 1 000 absent subscribers", measure: d4 },
    DurableFigure { id: "D5", title: "1 000 Sessions with 1 000 messages each come back at once", measure: d5 },
    DurableFigure { id: "D6", title: "kill -9 and start with messages, Retained Messages, Sessions", measure: d6 },
    DurableFigure {
        id: "D7",
        title: "QoS 1 at a fixed rate while the log is cleaned, subscriber slow",
        measure: cleaning::d7,
    },
    DurableFigure {
        id: "D8-delay",
        title: "each sync takes 50 ms longer, 50 publishers, 20 in flight each",
        measure: busy::d8_delay,
    },
    DurableFigure { id: "D8-rate", title: "the disk writes 10 MiB/s, otherwise as D1", measure: busy::d8_rate },
];

impl DurableFigure {
    /// Finds one by its id, in any case.
    pub fn find(id: &str) -> Option<&'static Self> {
        DURABLE_FIGURES.iter().find(|figure| figure.id.eq_ignore_ascii_case(id))
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pantala's executable.
    pub pantala: PathBuf,
    /// Figures to take; empty for all.
    pub only: Vec<&'static DurableFigure>,
    /// Where the broker keeps its data: on the disk that is to be measured.
    pub data: PathBuf,
    /// Worker threads of the broker.
    pub workers: u32,
    /// Repetitions of each figure.
    pub repetitions: u32,
    /// Length of one repetition under load, without its warm-up.
    pub duration: Duration,
    /// Length of the load of D7.
    pub cleaning_duration: Duration,
    /// Messages per second of D7.
    pub rate: u32,
    /// Part of the messages, Sessions and Retained Messages of D4, D5 and D6.
    pub scale: f64,
    /// How long one repetition may take, with all that is done before and after its load.
    pub within: Duration,
    /// Where the JSON lines go; standard output if nowhere else.
    pub json: Option<PathBuf>,
}

/// What a value is to be.
#[derive(Clone, Copy, Debug)]
enum Aim {
    AtMost(f64),
    AtLeast(f64),
    /// It explains others.
    None,
}

/// One value of one repetition.
#[derive(Clone, Debug)]
struct Reading {
    name: String,
    unit: &'static str,
    /// Or why there is none.
    value: Result<f64, &'static str>,
    aim: Aim,
}

/// All values of one name.
#[derive(Debug)]
struct Row {
    figure: &'static DurableFigure,
    name: String,
    unit: &'static str,
    aim: Aim,
    values: Vec<f64>,
    /// Why some repetitions have no value.
    withheld: Vec<&'static str>,
}

/// Runs them. Gives whether all results are valid.
pub fn run(options: &Options) -> io::Result<bool> {
    let program = Program::find(Kind::Pantala, &options.pantala)?;
    let pinning = Pinning::establish()?;
    let circumstances =
        Circumstances { machine: Machine::observe(), floor: floor::measure()?, pinning: pinning.describe() };
    fs::create_dir_all(&options.data)?;
    let place = options.data.join(format!("bench-{}", std::process::id()));
    let mut bench = Bench { program: &program, pinning, place: &place, options, patience: STALL_AFTER.into() };
    let (mut rows, mut faults) = (Vec::<Row>::new(), Vec::new());
    for figure in DURABLE_FIGURES {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted.id == figure.id) {
            continue;
        }
        for repetition in 1..=options.repetitions {
            let mut readings = Vec::new();
            let progress = Progress::new(format!("{} {repetition}/{}", figure.id, options.repetitions));
            bench.patience = Patience::new(STALL_AFTER, options.within, &progress);
            fs::create_dir_all(&place)?;
            let result = (figure.measure)(&bench, &mut readings);
            progress.clear();
            if let Err(fault) = &result {
                eprintln!("{} {repetition}/{}: INVALID: {fault}", figure.id, options.repetitions);
                faults.push((figure.id, fault.to_string()));
            } else {
                fs::remove_dir_all(&place)?;
            }
            for Reading { name, unit, value, aim } in readings {
                let text = value.map_or_else(str::to_owned, |value| format!("{} {unit}", number(value)));
                eprintln!("{} {repetition}/{}: {name}: {text}", figure.id, options.repetitions);
                let place = rows.iter().position(|row| row.figure.id == figure.id && row.name == name);
                let place = place.unwrap_or_else(|| {
                    rows.push(Row { figure, name, unit, aim, values: Vec::new(), withheld: Vec::new() });
                    rows.len() - 1
                });
                match value {
                    Ok(value) => rows[place].values.push(value),
                    Err(reason) => rows[place].withheld.push(reason),
                }
            }
        }
    }
    println!("{}", table(&rows, &faults, &circumstances));
    let lines: String =
        rows.iter().map(|row| json_line(row, &faults, &program, options, &circumstances) + "\n").collect();
    match &options.json {
        Some(file) => fs::write(file, lines)?,
        None => io::stdout().write_all(lines.as_bytes())?,
    }
    Ok(faults.is_empty())
}

/// Where repetitions happen.
struct Bench<'a> {
    program: &'a Program,
    pinning: Pinning,
    /// A folder of its own; gone after each repetition.
    place: &'a Path,
    options: &'a Options,
    /// For the present repetition.
    patience: Patience,
}

/// A broker whose counters can be asked for.
struct Running {
    broker: Broker,
    log: PathBuf,
}

/// What the broker says its commit thread has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Activity {
    batches: u64,
    syncs: u64,
    bytes: u64,
    records: u64,
}

impl Bench<'_> {
    /// Starts a broker on new data, or on what an earlier one of the same name has left.
    fn start(&self, name: &str, durability: &'static str, wrapper: &[String]) -> Result<Running, Fault> {
        let mut running = self.spawn(name, durability, wrapper)?;
        running.broker.wait_until_listening()?;
        usage::wait_until_quiet(running.broker.pid())?;
        Ok(running)
    }

    fn spawn(&self, name: &str, durability: &'static str, wrapper: &[String]) -> Result<Running, Fault> {
        let configuration = self.place.join("bench.toml");
        // Clients may have more under way, and be owed more, than a server in the open would allow.
        fs::write(
            &configuration,
            "[limits]\nreceive_maximum = 65_535\ninflight_messages_max = 1_000\nqueued_messages_max = 0\n\
             queued_bytes_max = 0\n",
        )?;
        let data_dir = self.place.join(name);
        let keeping = Keeping { durability, data_dir, configuration, workers: self.options.workers };
        let log = self.place.join(format!("{name}.log"));
        let broker = self.program.start_keeping(&self.pinning, &keeping, &log, wrapper)?;
        Ok(Running { broker, log })
    }

    fn scaled(&self, count: u32) -> u32 {
        ((f64::from(count) * self.options.scale) as u32).max(1)
    }
}

impl Running {
    /// Asks the broker; at level `memory` there is no commit thread, and nothing it has done.
    fn activity(&self, durability: &str) -> Result<Activity, Fault> {
        if durability == "memory" {
            return Ok(Activity::default());
        }
        let reports = |text: &str| text.matches("store_batches=").count();
        let before = reports(&fs::read_to_string(&self.log)?);
        self.broker.ask_for_counters()?;
        let deadline = Instant::now() + COUNTERS_WITHIN;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            let text = fs::read_to_string(&self.log)?;
            if reports(&text) > before && text.ends_with('\n') {
                return parse_activity(&text).ok_or(Fault::NoCounters);
            }
        }
        Err(Fault::NoCounters)
    }
}

/// The last line that has it.
fn parse_activity(log: &str) -> Option<Activity> {
    let line = log.lines().rev().find(|line| line.contains("store_batches="))?;
    let field = |name: &str| {
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Some(Activity {
        batches: field("store_batches")?,
        syncs: field("store_syncs")?,
        bytes: field("store_bytes")?,
        records: field("store_records")?,
    })
}

// ---- the figures ------------------------------------------------------------------------------------------------

/// What a saturating load cost.
struct Saturated {
    published: Published,
    cpu: usage::Cpu,
    activity: Activity,
}

impl Saturated {
    fn micros_per_message(&self) -> f64 {
        self.cpu.total.as_secs_f64() * 1e6 / self.published.messages.max(1) as f64
    }
}

const SATURATING: Publishing =
    Publishing { publishers: 1_000, qos: 1, payload_bytes: 100, window: 20, topics: Topics::OfPublisher };

/// One absent subscriber gets everything; `load` runs, is accounted, and then the subscriber comes for it.
fn saturate(bench: &Bench<'_>, durability: &'static str, load: Publishing) -> Result<Saturated, Fault> {
    let name = format!("{durability}-q{}", load.qos);
    let running = bench.start(&name, durability, &[])?;
    let (address, pid) = (running.broker.address, running.broker.pid());
    let subscriber = Subscriber { number: 0, topic_filter: "bench/kept/+".to_owned(), hears: 0..load.publishers };
    let subscribers = [subscriber];
    backlog::subscribe(address, &subscribers, load.qos, &bench.patience)?;
    let mut publishers = Publishers::connect(address, load, bench.patience.clone())?;
    bench.patience.step("publishing", 0);
    publishers.run(Until::Elapsed(bench.options.duration / 4))?;
    let (before, activity_before) = (usage::cpu(pid)?, running.activity(durability)?);
    let published = publishers.run(Until::Elapsed(bench.options.duration))?;
    let (cpu, activity) = (usage::cpu(pid)?.since(before), running.activity(durability)?.since(activity_before));
    let sent = publishers.sent();
    publishers.close()?;
    backlog::drain(address, &subscribers, &sent, load.qos, load.payload_bytes, 1_000, &bench.patience)?;
    running.broker.stop()?;
    Ok(Saturated { published, cpu, activity })
}

fn d1(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    for durability in ["fsync", "os", "memory"] {
        let run = saturate(bench, durability, SATURATING)?;
        let is_default = durability == "fsync";
        let cpu_aim = if is_default { Aim::AtMost(1e6 / 150_000.0) } else { Aim::None };
        reading(out, &format!("{durability}: broker CPU"), "µs/message", run.micros_per_message(), cpu_aim);
        reading(out, &format!("{durability}: throughput"), "messages/s", run.published.rate(), Aim::None);
        let user = run.cpu.user.as_secs_f64() / (run.cpu.user + run.cpu.system).as_secs_f64();
        reading(out, &format!("{durability}: user share of CPU"), "%", user * 100.0, Aim::None);
        if is_default {
            let acks = run.published.messages as f64;
            let syncs = run.activity.syncs as f64 * 1_000.0 / acks;
            reading(out, &format!("{durability}: syncs"), "per 1 000 acks", syncs, Aim::AtMost(10.0));
            reading(
                out,
                &format!("{durability}: written"),
                "bytes/message",
                run.activity.bytes as f64 / acks,
                Aim::None,
            );
        }
        reading(out, &format!("{durability}: ack p50"), "ms", run.published.latency(0.5) / 1e3, Aim::None);
        reading(out, &format!("{durability}: ack p99"), "ms", run.published.latency(0.99) / 1e3, Aim::None);
        reading(
            out,
            &format!("{durability}: generator"),
            "% of its core",
            run.published.generator_share() * 100.0,
            Aim::None,
        );
    }
    Ok(())
}

fn d2(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    let load = Publishing { publishers: 1, window: 1, ..SATURATING };
    let subscribers = [Subscriber { number: 0, topic_filter: topic_name(0), hears: 0..1 }];
    let stored = bench.start("lone", "fsync", &[])?;
    let passing = bench.start("hops", "memory", &[])?;
    backlog::subscribe(stored.broker.address, &subscribers, 1, &bench.patience)?;
    let mut raw = RawSync::create(&bench.place.join("raw"))?;
    let mut publishers = Publishers::connect(stored.broker.address, load, bench.patience.clone())?;
    let mut hoppers = Publishers::connect(passing.broker.address, load, bench.patience.clone())?;
    // In turns, so that a slow moment of the disk hits both.
    let turn = bench.options.duration / 10;
    bench.patience.step("publishing", 0);
    let (mut syncs, mut acks, mut hops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        // On the broker's core: with the disk's interrupts on one of them, a sync takes longer on the other.
        bench.pinning.on_broker_core(|| raw.run(turn, &mut syncs))??;
        acks.extend(publishers.run(Until::Elapsed(turn))?.latencies);
        hops.extend(hoppers.run(Until::Elapsed(turn / 2))?.latencies);
    }
    let middle = |values: &[u32]| median(values.iter().map(|value| f64::from(*value))).unwrap_or(f64::NAN);
    let (sync, ack, hop) = (middle(&syncs), middle(&acks), middle(&hops));
    reading(out, "ack p50 without the two hops, by raw fdatasync p50", "×", (ack - hop) / sync, Aim::AtMost(1.15));
    reading(out, "ack p50", "µs", ack, Aim::None);
    reading(out, "raw fdatasync of 4 KiB, p50", "µs", sync, Aim::None);
    reading(out, "two hops: ack p50 at level memory", "µs", hop, Aim::None);
    let sent = publishers.sent();
    publishers.close()?;
    backlog::drain(stored.broker.address, &subscribers, &sent, 1, load.payload_bytes, 1_000, &bench.patience)?;
    stored.broker.stop()?;
    Ok(())
}

fn d3(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    let once = saturate(bench, "fsync", SATURATING)?;
    let twice = saturate(bench, "fsync", Publishing { qos: 2, ..SATURATING })?;
    let ratio = twice.published.rate() / once.published.rate();
    reading(out, "QoS 2 by QoS 1, messages/s", "%", ratio * 100.0, Aim::AtLeast(60.0));
    let ratio = once.micros_per_message() / twice.micros_per_message();
    reading(out, "QoS 2 by QoS 1, messages per second of broker CPU", "%", ratio * 100.0, Aim::AtLeast(60.0));
    reading(out, "QoS 2: broker CPU", "µs/message", twice.micros_per_message(), Aim::None);
    reading(out, "QoS 2: throughput", "messages/s", twice.published.rate(), Aim::None);
    let syncs = twice.activity.syncs as f64 * 1_000.0 / twice.published.messages as f64;
    reading(out, "QoS 2: syncs", "per 1 000 messages", syncs, Aim::None);
    Ok(())
}

fn d4(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    const PAYLOAD_BYTES: usize = 1_024;
    let load = Publishing { publishers: 1, payload_bytes: PAYLOAD_BYTES, ..SATURATING };
    let messages = u64::from(bench.scaled(10_000));
    let subscribers: Vec<Subscriber> =
        (0..1_000).map(|number| Subscriber { number, topic_filter: topic_name(0), hears: 0..1 }).collect();
    let running = bench.start("fan-out", "fsync", &[])?;
    let (address, pid) = (running.broker.address, running.broker.pid());
    backlog::subscribe(address, &subscribers, 1, &bench.patience)?;
    let (before, activity_before) = (usage::cpu(pid)?, running.activity("fsync")?);
    let mut publishers = Publishers::connect(address, load, bench.patience.clone())?;
    bench.patience.step("publishing", messages);
    publishers.run(Until::MessagesPerPublisher(messages))?;
    let (cpu, activity) = (usage::cpu(pid)?.since(before), running.activity("fsync")?.since(activity_before));
    let sent = publishers.sent();
    publishers.close()?;
    let payload = (messages * PAYLOAD_BYTES as u64) as f64;
    let deliveries = (messages * subscribers.len() as u64) as f64;
    let beyond = (activity.bytes as f64 - 1.2 * payload) / deliveries;
    reading(out, "written beyond 1.2 × payload", "bytes/Session and message", beyond, Aim::AtMost(8.0));
    reading(out, "written by payload", "×", activity.bytes as f64 / payload, Aim::None);
    let files = directory_bytes(&bench.place.join("fan-out"))? as f64;
    reading(out, "files by payload", "×", files / payload, Aim::None);
    reading(out, "broker CPU", "µs/Session and message", cpu.total.as_secs_f64() * 1e6 / deliveries, Aim::None);
    let (_, most) = usage::resident_bytes(pid)?;
    reading(out, "memory at most", "MiB", most as f64 / f64::from(1 << 20), Aim::None);
    backlog::drain(address, &subscribers, &sent, 1, PAYLOAD_BYTES, 20, &bench.patience)?;
    running.broker.stop()?;
    Ok(())
}

/// Each of so many Sessions is owed so many messages, published by a publisher of its own.
fn fill(
    bench: &Bench<'_>,
    address: std::net::SocketAddr,
    sessions: u32,
    messages: u32,
) -> Result<(Vec<Subscriber>, Vec<u64>), Fault> {
    debug_assert!(bench.options.scale > 0.0);
    let subscribers: Vec<Subscriber> = (0..sessions)
        .map(|number| Subscriber { number, topic_filter: topic_name(number), hears: number..number + 1 })
        .collect();
    backlog::subscribe(address, &subscribers, 1, &bench.patience)?;
    let load = Publishing { publishers: sessions, ..SATURATING };
    let mut publishers = Publishers::connect(address, load, bench.patience.clone())?;
    bench.patience.step("filling queues", u64::from(sessions) * u64::from(messages));
    publishers.run(Until::MessagesPerPublisher(u64::from(messages)))?;
    let sent = publishers.sent();
    publishers.close()?;
    Ok((subscribers, sent))
}

fn d5(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    let running = bench.start("resume", "fsync", &[])?;
    let (address, pid) = (running.broker.address, running.broker.pid());
    let (subscribers, sent) = fill(bench, address, 1_000, bench.scaled(1_000))?;
    usage::wait_until_quiet(pid)?;
    let (resident, _) = usage::resident_bytes(pid)?;
    let before = usage::cpu(pid)?;
    let drained = backlog::drain(address, &subscribers, &sent, 1, SATURATING.payload_bytes, 20, &bench.patience)?;
    usage::wait_until_quiet(pid)?;
    let cpu = usage::cpu(pid)?.since(before);
    let Drained { messages, elapsed, first_after, generator_cpu } = drained;
    let micros = cpu.total.as_secs_f64() * 1e6 / messages as f64;
    reading(out, "broker CPU", "µs/message", micros, Aim::AtMost(1e6 / 300_000.0));
    reading(out, "drained", "messages/s", messages as f64 / elapsed.as_secs_f64(), Aim::AtLeast(300_000.0));
    let first = first_after[(first_after.len() - 1) * 99 / 100];
    reading(out, "first message, p99", "ms", first.as_secs_f64() * 1e3, Aim::AtMost(200.0));
    reading(out, "memory with the backlog", "MiB", resident as f64 / f64::from(1 << 20), Aim::None);
    let (_, most) = usage::resident_bytes(pid)?;
    reading(out, "memory at most", "MiB", most as f64 / f64::from(1 << 20), Aim::None);
    let share = generator_cpu.as_secs_f64() / elapsed.as_secs_f64();
    reading(out, "generator", "% of its core", share * 100.0, Aim::None);
    running.broker.stop()?;
    Ok(())
}

fn d6(bench: &Bench<'_>, out: &mut Vec<Reading>) -> Result<(), Fault> {
    const RETAINED_BYTES: usize = 64;
    let running = bench.start("restart", "fsync", &[])?;
    let address = running.broker.address;
    let with_messages = 1_000;
    let all = bench.scaled(100_000).max(with_messages);
    let idle: Vec<Subscriber> = (with_messages..all)
        .map(|number| Subscriber { number, topic_filter: format!("bench/idle/{number:06}"), hears: 0..0 })
        .collect();
    backlog::subscribe(address, &idle, 1, &bench.patience)?;
    let (subscribers, sent) = fill(bench, address, with_messages, bench.scaled(1_000))?;
    let load =
        Publishing { publishers: 100, qos: 1, payload_bytes: RETAINED_BYTES, window: 100, topics: Topics::OfMessage };
    let mut publishers = Publishers::connect(address, load, bench.patience.clone())?;
    let each = u64::from(bench.scaled(10_000));
    bench.patience.step("filling Retained Messages", each * u64::from(load.publishers));
    publishers.run(Until::MessagesPerPublisher(each))?;
    let retained = publishers.sent();
    drop(publishers);
    drop(running);

    bench.patience.step("starting again", 0);
    let started = Instant::now();
    let mut running = bench.spawn("restart", "fsync", &[])?;
    let address = loop {
        if let Ok(probe) = std::net::TcpStream::connect(running.broker.address) {
            drop(probe);
            break running.broker.address;
        }
        if started.elapsed() > STALL_AFTER {
            return Err(Fault::Stalled { messages: 0 });
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let mut fleet = Fleet::new(address, bench.patience.clone())?;
    fleet.open([Introduction {
        client_id: "first".to_owned(),
        will: None,
        lifetime: Lifetime::Connection,
        topic_filters: Vec::new(),
        qos: 0,
    }])?;
    let connected = started.elapsed();
    let last = subscribers.len() - 1;
    backlog::drain(address, &subscribers[last..], &sent, 1, SATURATING.payload_bytes, 20, &bench.patience)?;
    let served = started.elapsed();
    let pid = running.broker.pid();
    let cpu = usage::cpu(pid)?.total;
    let (resident, _) = usage::resident_bytes(pid)?;
    reading(out, "first CONNACK", "s", connected.as_secs_f64(), Aim::AtMost(2.0));
    reading(out, "a Session has all its messages", "s", served.as_secs_f64(), Aim::AtMost(5.0));
    reading(out, "broker CPU until then", "s", cpu.as_secs_f64(), Aim::None);
    reading(out, "memory then", "MiB", resident as f64 / f64::from(1 << 20), Aim::None);
    backlog::drain(address, &subscribers[..last], &sent, 1, SATURATING.payload_bytes, 20, &bench.patience)?;
    let filter = publishing::RETAINED_FILTER;
    backlog::collect_retained(address, filter, &retained, RETAINED_BYTES, &bench.patience)?;
    // Each Session that should be there is.
    for some in idle.chunks(4_000) {
        backlog::drain(address, some, &sent, 1, SATURATING.payload_bytes, 20, &bench.patience)?;
    }
    let (_, most) = usage::resident_bytes(pid)?;
    reading(out, "memory at most, backlog and all drained", "MiB", most as f64 / f64::from(1 << 20), Aim::None);
    running.broker.wait_until_listening()?;
    running.broker.stop()?;
    Ok(())
}

fn reading(out: &mut Vec<Reading>, name: &str, unit: &'static str, value: f64, aim: Aim) {
    out.push(Reading { name: name.to_owned(), unit, value: Ok(value), aim });
}

/// A value that cannot be given.
fn withheld(out: &mut Vec<Reading>, name: &str, unit: &'static str, reason: &'static str, aim: Aim) {
    out.push(Reading { name: name.to_owned(), unit, value: Err(reason), aim });
}

impl Activity {
    fn since(self, earlier: Self) -> Self {
        Self {
            batches: self.batches - earlier.batches,
            syncs: self.syncs - earlier.syncs,
            bytes: self.bytes - earlier.bytes,
            records: self.records - earlier.records,
        }
    }
}

fn directory_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

// ---- the report -------------------------------------------------------------------------------------------------

impl Row {
    fn median(&self) -> f64 {
        median(self.values.iter().copied()).unwrap_or(f64::NAN)
    }

    fn bounds(&self) -> (f64, f64) {
        self.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), it| (min.min(*it), max.max(*it)))
    }

    fn aim(&self) -> String {
        let verdict = |is_met| match is_met {
            _ if self.values.is_empty() => "not judged",
            true => "met",
            false => "not met",
        };
        match self.aim {
            Aim::AtMost(limit) => format!("≤ {}: {}", number(limit), verdict(self.median() <= limit)),
            Aim::AtLeast(limit) => format!("≥ {}: {}", number(limit), verdict(self.median() >= limit)),
            Aim::None => String::new(),
        }
    }
}

fn table(rows: &[Row], faults: &[(&str, String)], circumstances: &Circumstances) -> String {
    let mut text = String::from("| id | figure | value | unit | aim |\n|---|---|---|---|---|\n");
    for row in rows {
        let (min, max) = row.bounds();
        let mut value = match faults.iter().any(|(id, _)| *id == row.figure.id) {
            true => "INVALID".to_owned(),
            false if row.values.len() > 1 => {
                format!("{} ({}–{})", number(row.median()), number(min), number(max))
            }
            false if row.values.is_empty() => String::new(),
            false => number(row.median()),
        };
        for reason in &row.withheld {
            let _ = write!(value, "{}{reason}", if value.is_empty() { "" } else { "; " });
        }
        let _ = writeln!(text, "| {} | {} | {value} | {} | {} |", row.figure.id, row.name, row.unit, row.aim());
    }
    let Circumstances { machine, pinning, .. } = circumstances;
    let _ = writeln!(
        text,
        "\nMedian (min–max). Pinning: {pinning}. Kernel {}, {}, load before {}.",
        machine.kernel, machine.cpu, machine.load_before
    );
    for (id, fault) in faults {
        let _ = writeln!(text, "- {id}: INVALID: {fault}");
    }
    text
}

fn json_line(
    row: &Row,
    faults: &[(&str, String)],
    program: &Program,
    options: &Options,
    circumstances: &Circumstances,
) -> String {
    let faults: Vec<&String> = faults.iter().filter(|(id, _)| *id == row.figure.id).map(|(_, fault)| fault).collect();
    json!({
        "tool": env!("CARGO_PKG_NAME"),
        "tool_version": env!("CARGO_PKG_VERSION"),
        "scenario": row.figure.id,
        "title": row.figure.title,
        "name": row.name,
        "unit": row.unit,
        "broker": program.name(),
        "broker_version": program.version,
        "workers": options.workers,
        "scale": options.scale,
        "valid": faults.is_empty(),
        "faults": faults,
        "median": row.median(),
        "values": row.values,
        "withheld": row.withheld,
        "aim": row.aim(),
        "pinning": circumstances.pinning,
        "floor": circumstances.floor,
        "machine": circumstances.machine,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_counters_in_a_log_count() {
        let line =
            |batches| format!("2026: Store: store_batches={batches} store_syncs=2 store_bytes=3 store_records=4\n");
        let log = line(1) + "2026: Worker 0: connections=0\n" + &line(7) + "2026: Stopped.\n";
        assert_eq!(parse_activity(&log), Some(Activity { batches: 7, syncs: 2, bytes: 3, records: 4 }));
        assert_eq!(parse_activity("2026: Stopped.\n"), None);
    }

    #[test]
    fn one_fault_hides_the_values_of_its_figure_and_no_other() {
        let row = |id, value| Row {
            figure: DurableFigure::find(id).unwrap(),
            name: "broker CPU".to_owned(),
            unit: "µs/message",
            aim: Aim::AtMost(6.0),
            values: vec![value],
            withheld: Vec::new(),
        };
        let circumstances = Circumstances {
            machine: Machine::observe(),
            floor: floor::Floor { null_syscall_ns: 100.0, tcp_write_read_64_ns: 5_000.0 },
            pinning: "none".to_owned(),
        };
        let text = table(&[row("D1", 7.0), row("D5", 3.0)], &[("D5", "3 messages lost".to_owned())], &circumstances);
        assert!(text.contains("| D1 | broker CPU | 7.00 | µs/message | ≤ 6.00: not met |"), "{text}");
        assert!(text.contains("| D5 | broker CPU | INVALID |"), "{text}");
        assert!(text.contains("- D5: INVALID: 3 messages lost"), "{text}");
    }

    #[test]
    fn a_value_that_is_withheld_is_neither_a_number_nor_judged() {
        let mut row = Row {
            figure: DurableFigure::find("D7").unwrap(),
            name: "ratio".to_owned(),
            unit: "×",
            aim: Aim::AtMost(1.5),
            values: Vec::new(),
            withheld: vec!["no cleaning happened"],
        };
        let circumstances = Circumstances {
            machine: Machine::observe(),
            floor: floor::Floor { null_syscall_ns: 100.0, tcp_write_read_64_ns: 5_000.0 },
            pinning: "none".to_owned(),
        };
        let text = table(std::slice::from_ref(&row), &[], &circumstances);
        assert!(text.contains("| D7 | ratio | no cleaning happened | × | ≤ 1.50: not judged |"), "{text}");
        row.values.push(1.25);
        let text = table(&[row], &[], &circumstances);
        assert!(text.contains("| D7 | ratio | 1.25; no cleaning happened | × | ≤ 1.50: met |"), "{text}");
    }
}
