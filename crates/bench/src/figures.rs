//! Runs every figure with every broker and prints the results.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::broker::{Broker, Kind, Program, Scratch};
use crate::callgrind;
use crate::fault::Fault;
use crate::features::{Features, Setup, Transport};
use crate::fleet::{Fleet, Introduction, Lifetime};
use crate::floor;
use crate::load::{Load, Plan, Until};
use crate::machine::Machine;
use crate::packet::Will;
use crate::pinning::Pinning;
use crate::report::{self, Circumstances, Outcome, Sample};
use crate::scenario::{CONNECTS, FIGURES, Figure, IDLE_COUNTED, IDLE_WARM_UP, Measure};
use crate::stage::forget_tickets;
use crate::usage::{self, Cpu};

/// A broker that is silent so long, with messages outstanding, has lost them.
pub const STALL_AFTER: Duration = Duration::from_secs(10);

/// Handshakes of TLS at once.
const HANDSHAKES: u32 = 32;

/// Turns of each of two brokers that are measured side by side.
const TURNS: u32 = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pantala's executable.
    pub pantala: PathBuf,
    /// Mosquitto's executable.
    pub mosquitto: PathBuf,
    /// Figures to take; empty for all.
    pub only: Vec<&'static Figure>,
    /// Repetitions of each figure with each broker, interleaved.
    pub repetitions: u32,
    /// Length of one repetition under load, without its warm-up.
    pub duration: Duration,
    /// Where the JSON lines go; standard output if nowhere else.
    pub json: Option<PathBuf>,
}

/// Runs them. Gives whether all results are valid.
pub fn run(options: &Options) -> io::Result<bool> {
    let programs = find_programs(options)?;
    let pinning = Pinning::establish()?;
    let circumstances =
        Circumstances { machine: Machine::observe(), floor: floor::measure()?, pinning: pinning.describe() };
    let scratch = Scratch::create()?;
    let stage = Stage { pinning, scratch: scratch.path(), duration: options.duration };

    let mut outcomes = Vec::new();
    for figure in FIGURES {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted.id == figure.id) {
            continue;
        }
        if matches!(figure.measure, Measure::Instructions { .. }) && !callgrind::is_available() {
            eprintln!("{}: left out, valgrind is not installed", figure.id);
            continue;
        }
        outcomes.extend(stage.take(figure, &programs, options.repetitions));
    }

    println!("{}", report::table(&outcomes, &circumstances));
    let lines: String = outcomes.iter().map(|outcome| report::json_line(outcome, &circumstances) + "\n").collect();
    match &options.json {
        Some(file) => fs::write(file, lines)?,
        None => io::stdout().write_all(lines.as_bytes())?,
    }
    Ok(outcomes.iter().all(Outcome::is_valid))
}

fn find_programs(options: &Options) -> io::Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (kind, path) in [(Kind::Pantala, &options.pantala), (Kind::Mosquitto, &options.mosquitto)] {
        match Program::find(kind, path) {
            Ok(program) => programs.push(program),
            Err(error) => eprintln!("left out: {}: {error}", path.display()),
        }
    }
    if programs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no broker to measure"));
    }
    Ok(programs)
}

/// Where repetitions happen.
struct Stage<'a> {
    pinning: Pinning,
    scratch: &'a Path,
    duration: Duration,
}

impl Stage<'_> {
    /// All repetitions of one figure, the brokers taking turns so that a slow minute of the machine hits both.
    fn take(&self, figure: &'static Figure, programs: &[Program], repetitions: u32) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = programs
            .iter()
            .filter(|program| program.kind == Kind::Pantala || !figure.is_for_pantala_alone())
            .map(|program| Outcome { figure, program: program.clone(), samples: Vec::new(), faults: Vec::new() })
            .collect();
        // Instruction counts do not vary, so one repetition tells all.
        let repetitions = if matches!(figure.measure, Measure::Instructions { .. }) { 1 } else { repetitions };
        for repetition in 1..=repetitions {
            for outcome in &mut outcomes {
                let name = format!("{} {} {repetition}/{repetitions}", figure.id, outcome.program.name());
                match self.sample(figure, &outcome.program) {
                    Ok(sample) => {
                        eprintln!("{name}: {:.3} {}{}", sample.value, figure.unit, describe_rate(&sample));
                        outcome.samples.push(sample);
                    }
                    Err(error) => {
                        eprintln!("{name}: INVALID: {error}");
                        outcome.faults.push(error.to_string());
                    }
                }
            }
        }
        outcomes
    }

    /// One repetition with a fresh broker.
    fn sample(&self, figure: &Figure, program: &Program) -> Result<Sample, Box<dyn std::error::Error>> {
        match &figure.measure {
            Measure::Instructions { plan, beside, messages } => {
                let (pinning, scratch) = (&self.pinning, self.scratch);
                let value = callgrind::instructions_per_message(program, plan, *beside, *messages, pinning, scratch)?;
                return Ok(Sample::plain(value));
            }
            Measure::CpuBesidePlain { plan, features, setup } => {
                return self.cpu_beside_plain(program, plan, *features, *setup);
            }
            _ => {}
        }
        let transport = figure.transport();
        let broker = match transport {
            Transport::Plain => program.start(&self.pinning, self.scratch, &[])?,
            _ => program.start_as(&self.pinning, self.scratch, &[], transport, Setup::default())?,
        };
        let sample = match &figure.measure {
            Measure::CpuPerDelivery { plan } => self.cpu_per_delivery(&broker, plan)?,
            Measure::IdleBytes { subscription_and_will, .. } => idle_bytes(&broker, *subscription_and_will, transport)?,
            Measure::CpuPerConnect { .. } => cpu_per_connect(&broker, transport)?,
            Measure::Instructions { .. } | Measure::CpuBesidePlain { .. } => unreachable!("returned above"),
        };
        broker.stop()?;
        Ok(sample)
    }

    /// One with it and one without run side by side and take turns, so that a slow second of the machine hits both.
    fn cpu_beside_plain(
        &self,
        program: &Program,
        plan: &Plan,
        features: Features,
        setup: Setup,
    ) -> Result<Sample, Box<dyn std::error::Error>> {
        let start = |features: Features, setup| -> Result<(Broker, Load), Box<dyn std::error::Error>> {
            let broker = program.start_as(&self.pinning, self.scratch, &[], features.transport, setup)?;
            let mut load = Load::connect_with(broker.address, plan, features, STALL_AFTER)?;
            load.run(Until::Elapsed(self.duration / 4))?;
            Ok((broker, load))
        };
        let mut both = [start(Features::default(), Setup::default())?, start(features, setup)?];
        let (mut cpu, mut delivered) = ([Cpu::default(); 2], [0; 2]);
        let (mut elapsed, mut generator_cpu) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..2 * TURNS {
            // A B B A …
            let which = (turn.div_ceil(2) % 2) as usize;
            let (broker, load) = &mut both[which];
            let before = usage::cpu(broker.pid())?;
            let run = load.run(Until::Elapsed(self.duration / TURNS))?;
            let used = usage::cpu(broker.pid())?.since(before);
            cpu[which] = cpu[which].and(used);
            delivered[which] += run.delivered;
            if which == 1 {
                elapsed += run.elapsed;
                generator_cpu += run.generator_cpu;
            }
        }
        for (broker, load) in both {
            drop(load);
            broker.stop()?;
        }
        let each = |which: usize| cpu[which].total.as_secs_f64() / delivered[which].max(1) as f64;
        let [_, with] = cpu;
        Ok(Sample {
            value: each(1) / each(0),
            user_share: Some(with.user.as_secs_f64() / (with.user + with.system).as_secs_f64())
                .filter(|s| s.is_finite()),
            rate: Some(delivered[1] as f64 / elapsed.as_secs_f64()),
            generator_share: Some(generator_cpu.as_secs_f64() / elapsed.as_secs_f64()),
            broker_share: Some(with.total.as_secs_f64() / elapsed.as_secs_f64()),
        })
    }

    fn cpu_per_delivery(&self, broker: &Broker, plan: &Plan) -> Result<Sample, Box<dyn std::error::Error>> {
        let mut load = Load::connect(broker.address, plan, STALL_AFTER)?;
        load.run(Until::Elapsed(self.duration / 4))?;
        let before = usage::cpu(broker.pid())?;
        let run = load.run(Until::Elapsed(self.duration))?;
        let cpu = usage::cpu(broker.pid())?.since(before);
        let micros = cpu.total.as_secs_f64() * 1e6;
        Ok(Sample {
            value: micros / run.delivered.max(1) as f64,
            user_share: Some(cpu.user.as_secs_f64() / (cpu.user + cpu.system).as_secs_f64()).filter(|s| s.is_finite()),
            rate: Some(run.rate()),
            generator_share: Some(run.generator_share()),
            broker_share: Some(cpu.total.as_secs_f64() / run.elapsed.as_secs_f64()),
        })
    }
}

fn describe_rate(sample: &Sample) -> String {
    match (sample.rate, sample.generator_share) {
        (Some(rate), Some(share)) => format!(", {rate:.0}/s, generator {:.0} %", share * 100.0),
        _ => String::new(),
    }
}

fn idle_bytes(
    broker: &Broker,
    subscription_and_will: bool,
    transport: Transport,
) -> Result<Sample, Box<dyn std::error::Error>> {
    let introduce = |number: u32| idle_introduction(number, subscription_and_will);
    let mut fleet = fleet_over(broker, transport)?;
    fleet.open((0..IDLE_WARM_UP).map(introduce))?;
    usage::wait_until_quiet(broker.pid())?;
    let before = usage::anonymous_bytes(broker.pid())?;
    fleet.open((IDLE_WARM_UP..IDLE_WARM_UP + IDLE_COUNTED).map(introduce))?;
    usage::wait_until_quiet(broker.pid())?;
    let after = usage::anonymous_bytes(broker.pid())?;
    let value = (after as f64 - before as f64) / f64::from(IDLE_COUNTED);
    Ok(Sample::plain(value))
}

fn cpu_per_connect(broker: &Broker, transport: Transport) -> Result<Sample, Box<dyn std::error::Error>> {
    let mut fleet = fleet_over(broker, transport)?;
    // The first ones pay for memory and code that later ones find.
    fleet.open((0..IDLE_WARM_UP).map(|number| idle_introduction(number, false)))?;
    let before = usage::cpu(broker.pid())?;
    let numbers = IDLE_WARM_UP..IDLE_WARM_UP + CONNECTS;
    let opened = match transport {
        Transport::Plain => {
            fleet.open(numbers.map(|number| idle_introduction(number, false)))?;
            Vec::new()
        }
        _ => open_side_by_side(broker, transport, numbers)?,
    };
    usage::wait_until_quiet(broker.pid())?;
    let cpu = usage::cpu(broker.pid())?.since(before);
    drop(opened);
    Ok(Sample::plain(cpu.total.as_secs_f64() * 1e6 / f64::from(CONNECTS)))
}

/// A handshake of TLS blocks its thread, so many of them do it at once.
fn open_side_by_side(broker: &Broker, transport: Transport, numbers: Range<u32>) -> Result<Vec<Fleet>, Fault> {
    let open = |first: u32| {
        let mut fleet = Fleet::new(broker.address, STALL_AFTER)?;
        fleet.features.transport = transport;
        let own = numbers.clone().skip(first as usize).step_by(HANDSHAKES as usize);
        fleet.open(own.map(|number| idle_introduction(number, false)))?;
        Ok(fleet)
    };
    let open = &open;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..HANDSHAKES).map(|first| scope.spawn(move || open(first))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends with a fault at the worst")).collect()
    })
}

fn fleet_over(broker: &Broker, transport: Transport) -> Result<Fleet, Fault> {
    forget_tickets();
    let mut fleet = Fleet::new(broker.address, STALL_AFTER)?;
    fleet.features.transport = transport;
    Ok(fleet)
}

fn idle_introduction(number: u32, subscription_and_will: bool) -> Introduction {
    Introduction {
        client_id: format!("c{number:08}"),
        will: subscription_and_will
            .then(|| Will { topic_name: format!("bench/will/{number:05}"), payload: vec![b'.'; 32] }),
        lifetime: Lifetime::Connection,
        topic_filters: if subscription_and_will { vec![format!("bench/idle/{number:05}")] } else { Vec::new() },
        qos: 0,
    }
}
