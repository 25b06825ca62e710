//! Figures of the client library, beside other MQTT client libraries.
//!
//! A [sink] in one process takes or gives messages, one library at a time [in another](under_test) publishes, receives
//! or only is there. What counts is the CPU time and the memory of the latter; the sink checks what it gets as the library's
//! side does, and a message lost, doubled or reordered makes a figure invalid. As everywhere, times are printed and judged
//! against an aim, never asserted. The [programs] of the command line are measured with the same sink.

pub mod programs;
mod report;
pub mod sink;
pub mod under_test;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::broker::Scratch;
use crate::callgrind;
use crate::floor;
use crate::machine::Machine;
use crate::pinning::Pinning;
use crate::report::{Circumstances, number};
use programs::{PROGRAM_FIGURES, ProgramFigure};
use report::Outcome;
use sink::Sink;
use under_test::{Library, Programs, Reply, Scenario, Task};

/// Payload of every message.
pub const PAYLOAD_BYTES: usize = 64;
/// Topic Name of every message.
pub const TOPIC_NAME: &str = "bench/sink";
/// QoS 1 messages under way at once, in either direction.
pub const WINDOW: u16 = 100;
/// Of all clients; longer than any run, so that no PINGREQ is needed.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// Clients that are there before memory is first read, so that what is built once is built.
const IDLE_WARM_UP: u64 = 500;
/// A repetition that takes longer has stalled.
const REPETITION_MAX: Duration = Duration::from_secs(300);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// CPU seconds of the library's process, user and system, per million messages.
    CpuPerMillion,
    /// Instructions in user mode per message, by callgrind.
    Instructions,
    /// Bytes of anonymous memory per client.
    Memory,
}

/// One figure of this kind.
#[derive(Debug)]
pub struct LibraryFigure {
    /// Id, as in the documentation.
    pub id: &'static str,
    /// What is done.
    pub title: &'static str,
    scenario: Scenario,
    measure: Measure,
    /// Messages or clients, at scale 1.
    count: u64,
    /// At most this, in the unit of the measure.
    aim: Option<f64>,
}

const fn cpu(id: &'static str, title: &'static str, scenario: Scenario, aim: Option<f64>) -> LibraryFigure {
    LibraryFigure { id, title, scenario, measure: Measure::CpuPerMillion, count: 1_000_000, aim }
}

const fn instructions(id: &'static str, title: &'static str, scenario: Scenario) -> LibraryFigure {
    LibraryFigure { id, title, scenario, measure: Measure::Instructions, count: 20_000, aim: None }
}

/// All of them.
pub const LIBRARY_FIGURES: &[LibraryFigure] = &[
    cpu("L1-q0", "publish, QoS 0", Scenario::PublishQos0, Some(0.2)),
    cpu("L1-q1", "publish, QoS 1, window 100", Scenario::PublishQos1, Some(0.5)),
    cpu("L1-q1a", "the same, each acknowledgement awaited", Scenario::PublishQos1Awaited, None),
    cpu("L2-q0", "receive, QoS 0", Scenario::ReceiveQos0, None),
    cpu("L2-q1", "receive, QoS 1, window 100", Scenario::ReceiveQos1, None),
    LibraryFigure {
        id: "L3",
        title: "memory of an idle client",
        scenario: Scenario::Idle,
        measure: Measure::Memory,
        count: 10_000,
        aim: Some(4_096.0),
    },
    instructions("LI1-q0", "publish, QoS 0", Scenario::PublishQos0),
    instructions("LI1-q1", "publish, QoS 1, window 100", Scenario::PublishQos1),
    instructions("LI1-q1a", "the same, each acknowledgement awaited", Scenario::PublishQos1Awaited),
    instructions("LI2-q0", "receive, QoS 0", Scenario::ReceiveQos0),
    instructions("LI2-q1", "receive, QoS 1, window 100", Scenario::ReceiveQos1),
];

impl LibraryFigure {
    /// Finds one by its id, in any case.
    pub fn find(id: &str) -> Option<&'static Self> {
        LIBRARY_FIGURES.iter().find(|figure| figure.id.eq_ignore_ascii_case(id))
    }

    fn unit(&self) -> &'static str {
        match self.measure {
            Measure::CpuPerMillion => "CPU s/million",
            Measure::Instructions => "instructions/message",
            Measure::Memory => "bytes/client",
        }
    }

    fn counts(&self, scale: f64) -> (u64, u64) {
        let count = ((self.count as f64 * scale) as u64).max(10);
        match self.measure {
            Measure::Memory => (IDLE_WARM_UP, count),
            Measure::CpuPerMillion | Measure::Instructions => (count / 10, count),
        }
    }
}

/// A figure of a library, or of a program made with it.
#[derive(Clone, Copy, Debug)]
pub enum ClientFigure {
    /// Of the library.
    Library(&'static LibraryFigure),
    /// Of the command line.
    Program(&'static ProgramFigure),
}

impl ClientFigure {
    /// Finds one by its id, in any case.
    pub fn find(id: &str) -> Option<Self> {
        LibraryFigure::find(id).map(Self::Library).or_else(|| ProgramFigure::find(id).map(Self::Program))
    }

    /// The ids of all.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        LIBRARY_FIGURES.iter().map(|figure| figure.id).chain(PROGRAM_FIGURES.iter().map(|figure| figure.id))
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pantala's executable, for the figures of the command line.
    pub pantala: PathBuf,
    /// Figures to take; empty for all.
    pub only: Vec<ClientFigure>,
    /// Libraries to measure; empty for all.
    pub libraries: Vec<Library>,
    /// Repetitions of each figure with each library, interleaved.
    pub repetitions: u32,
    /// Part of the messages and clients.
    pub scale: f64,
    /// Where the JSON lines go; standard output if nowhere else.
    pub json: Option<PathBuf>,
}

/// One repetition of one figure with one library.
#[derive(Clone, Debug)]
struct Sample {
    /// In the figure's unit.
    value: f64,
    /// What the library's process said; of the longer run where there are two.
    reply: Reply,
}

/// Runs them. Gives whether all results are valid.
pub fn run(options: &Options) -> io::Result<bool> {
    let pinning = Pinning::establish()?;
    let circumstances =
        Circumstances { machine: Machine::observe(), floor: floor::measure()?, pinning: pinning.describe() };
    let scratch = Scratch::create()?;
    let stage = Stage { programs: Programs::prepare(scratch.path())?, pinning, scratch: scratch.path(), options };
    let libraries = stage.libraries();
    let mut outcomes = Vec::new();
    for figure in LIBRARY_FIGURES {
        let is_it = |wanted: &ClientFigure| matches!(wanted, ClientFigure::Library(wanted) if wanted.id == figure.id);
        if !options.only.is_empty() && !options.only.iter().any(is_it) {
            continue;
        }
        if figure.measure == Measure::Instructions && !callgrind::is_available() {
            eprintln!("{}: left out, valgrind is not installed", figure.id);
            continue;
        }
        outcomes.extend(stage.take(figure, &libraries));
    }
    let results = programs::take(&stage.programs.own, &stage.pinning, scratch.path(), options);
    if !outcomes.is_empty() {
        println!("{}", report::table(&outcomes, &circumstances));
    }
    if !results.is_empty() {
        println!("{}", programs::table(&results, &circumstances));
    }
    let lines = outcomes.iter().map(|outcome| report::json_line(outcome, options.scale, &circumstances) + "\n");
    let lines: String =
        lines.chain(results.iter().map(|result| programs::json_line(result, &circumstances) + "\n")).collect();
    match &options.json {
        Some(file) => fs::write(file, lines)?,
        None => io::stdout().write_all(lines.as_bytes())?,
    }
    Ok(outcomes.iter().all(Outcome::is_valid) && results.iter().all(programs::Outcome::is_valid))
}

/// Where repetitions happen.
struct Stage<'a> {
    programs: Programs,
    pinning: Pinning,
    scratch: &'a Path,
    options: &'a Options,
}

impl Stage<'_> {
    fn libraries(&self) -> Vec<Library> {
        let wanted = |library: &Library| self.options.libraries.is_empty() || self.options.libraries.contains(library);
        let is_there = |library: &Library| match self.programs.lack(*library) {
            Some(why) => {
                eprintln!("left out: {}: {why}", library.name());
                false
            }
            None => true,
        };
        Library::ALL.into_iter().filter(wanted).filter(is_there).collect()
    }

    /// All repetitions of one figure, the libraries taking turns so that a slow minute of the machine hits all.
    fn take(&self, figure: &'static LibraryFigure, libraries: &[Library]) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = libraries
            .iter()
            .filter(|library| library.can(figure.scenario))
            .map(|&client| Outcome { figure, client, samples: Vec::new(), faults: Vec::new() })
            .collect();
        // Instructions are the same each time.
        let repetitions = if figure.measure == Measure::Instructions { 1 } else { self.options.repetitions };
        for repetition in 1..=repetitions {
            for outcome in &mut outcomes {
                let place = format!("{} {} {repetition}/{repetitions}", figure.id, outcome.client.name());
                match self.sample(figure, outcome.client) {
                    Ok(sample) => {
                        eprintln!("{place}: {} {}", number(sample.value), figure.unit());
                        outcome.samples.push(sample);
                    }
                    Err(why) => {
                        eprintln!("{place}: INVALID: {why}");
                        outcome.faults.push(why);
                    }
                }
            }
        }
        outcomes
    }

    fn sample(&self, figure: &LibraryFigure, library: Library) -> Result<Sample, String> {
        let (warm_up, count) = figure.counts(self.options.scale);
        match figure.measure {
            Measure::CpuPerMillion => {
                let reply = self.once(figure.scenario, library, warm_up, count, &[])?;
                Ok(Sample { value: reply.cpu_seconds * 1e6 / count as f64, reply })
            }
            Measure::Memory => {
                let reply = self.once(figure.scenario, library, warm_up, count, &[])?;
                Ok(Sample { value: reply.grown_bytes / count as f64, reply })
            }
            Measure::Instructions => {
                let counted = |count| -> Result<(u64, Reply), String> {
                    let file = self.scratch.join(format!("callgrind-{}-{count}.out", library.name()));
                    let reply = self.once(figure.scenario, library, warm_up, count, &callgrind::wrapper(&file))?;
                    let total = callgrind::instructions(&file).map_err(|error| error.to_string())?;
                    Ok((total, reply))
                };
                // What begins and ends is in both, and cancels out.
                let ((short, _), (long, reply)) = (counted(count)?, counted(2 * count)?);
                Ok(Sample { value: (long as f64 - short as f64) / count as f64, reply })
            }
        }
    }

    /// One sink, one run of the library.
    fn once(
        &self,
        scenario: Scenario,
        library: Library,
        warm_up: u64,
        count: u64,
        wrapper: &[String],
    ) -> Result<Reply, String> {
        let messages = warm_up + count;
        let sink = Sink::start(&self.programs.own, messages, &self.pinning).map_err(|error| error.to_string())?;
        let task = Task { scenario, address: sink.address, warm_up, count };
        let reply = self.programs.run(library, &task, wrapper, REPETITION_MAX).map_err(|error| error.to_string())?;
        let account = sink.stop().map_err(|error| error.to_string())?;
        if let Some(fault) = reply.fault {
            return Err(fault);
        }
        if let Some(fault) = account.faults.first() {
            return Err(format!("the sink noticed: {fault}"));
        }
        let (published, acknowledged) = match scenario {
            Scenario::PublishQos0 | Scenario::PublishQos1 | Scenario::PublishQos1Awaited => (messages, 0),
            Scenario::ReceiveQos1 => (0, messages),
            Scenario::ReceiveQos0 | Scenario::Idle => (0, 0),
        };
        if account.published != published || account.acknowledged != acknowledged {
            return Err(format!(
                "the sink got {} messages and {} acknowledgements in place of {published} and {acknowledged}",
                account.published, account.acknowledged
            ));
        }
        Ok(reply)
    }
}
