//! The loop: workload, fault, restart, check.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, Kind, Place, Program, free_port};
use crate::checker::{self, Class, Promise, Rules, Violation};
use crate::client::Phase;
use crate::drops::Asked;
use crate::fault::FaultKind;
use crate::fleet::Fleet;
use crate::history::Event;
use crate::plan::{CyclePlan, Stretch};
use crate::probe;
use crate::report::{CycleResult, Finding, Progress, Report};
use crate::volume::Volume;

/// How long a broker may take until it accepts connections, before the cycle is given up. The promise is shorter.
const START_MAX: Duration = Duration::from_secs(30);

/// How long it may take to end after SIGTERM.
const TERM_MAX: Duration = Duration::from_secs(10);

/// How long is waited for strace to get hold of all threads, and for its end.
const ATTACH: Duration = Duration::from_millis(80);
const STRACE_MAX: Duration = Duration::from_secs(3);

/// How long a drain may take however much comes.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// How often a broker that starts is asked whether it listens.
const START_POLL: Duration = Duration::from_millis(2);

/// How long a broker may take to say what it has dropped.
const COUNT_MAX: Duration = Duration::from_secs(5);

/// Data directories that are kept at most; a broker that breaks promises in each cycle would fill the disk.
const KEPT_MAX: usize = 20;

/// Events shown around a violation.
const EVENTS_SHOWN_MAX: usize = 30;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker under test.
    pub program: Program,
    /// How many cycles.
    pub cycles: u32,
    /// The first one's number: 0, or that of a stretch to be repeated.
    pub first_cycle: u32,
    /// Where all is drawn from.
    pub seed: u64,
    /// Kinds of faults, each of which can be made here.
    pub faults: Vec<FaultKind>,
    /// Folder for data directories.
    pub data_root: PathBuf,
    /// After how long a silence what is owed is taken for lost.
    pub drain: Duration,
    /// What is documented.
    pub rules: Rules,
    /// The run ends when one of some promises is broken.
    pub until: Option<Until>,
}

/// When a run ends that looks for something. It keeps no data directories.
#[derive(Clone, Debug)]
pub struct Until {
    /// One of these is broken.
    pub broken: &'static [Promise],
    /// The cycle that has begun by then is the last.
    pub elapsed: Duration,
}

/// Runs all cycles, or those until `stop` is set.
///
/// # Errors
/// When the laboratory itself fails: no process, no file system, no poll.
pub fn run(options: &Options, stop: &Arc<AtomicBool>) -> io::Result<Report> {
    fs::create_dir_all(&options.data_root)?;
    let mut report = Report::default();
    let mut progress = Progress::new(options.cycles);
    let last = options.first_cycle + options.cycles;
    let mut number = options.first_cycle;
    let began = Instant::now();
    let is_over = |report: &Report| {
        let is_broken = |promise| report.rows.values().any(|row| row.promises.contains_key(promise));
        let enough = |until: &Until| until.broken.iter().any(is_broken) || began.elapsed() > until.elapsed;
        stop.load(Ordering::Relaxed) || options.until.as_ref().is_some_and(enough)
    };
    while number < last && !is_over(&report) {
        let mut bench = Bench::set_up(options, number, (last - number) as usize, stop)?;
        let plans = bench.stretch.cycles.clone();
        for plan in &plans {
            match bench.cycle(number, plan) {
                Ok(()) => {}
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(error) => return Err(error),
            }
            number += 1;
            let (result, findings) = bench.judge(plan.fault);
            let is_clean = findings.is_empty();
            if !is_clean && options.until.is_none() {
                let kept = if report.kept.len() < KEPT_MAX { bench.keep(number - 1) } else { None };
                report.kept.extend(kept);
            }
            report.add(result, findings);
            if options.until.is_none() {
                progress.show(&report);
            }
            if !is_clean || is_over(&report) {
                break;
            }
        }
    }
    progress.end();
    report.interrupted = stop.load(Ordering::Relaxed);
    Ok(report)
}

/// One stretch in the making.
struct Bench<'o> {
    options: &'o Options,
    stop: Arc<AtomicBool>,
    stretch: Stretch,
    first_cycle: u32,
    fleet: Fleet,
    // The broker goes before the file system that it uses.
    broker: Option<Broker>,
    volume: Option<Volume>,
    place: Place,
    address: SocketAddr,
    /// Where each cycle begins in the history, with its number and fault.
    cycles: Vec<(usize, u32, FaultKind)>,
    probes: u16,
    violations: Vec<Violation>,
}

impl<'o> Bench<'o> {
    fn set_up(options: &'o Options, cycle: u32, cycles_max: usize, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let stretch = Stretch::draw(options.seed, cycle, &options.faults, cycles_max);
        let folder = options.data_root.join(format!("run-{}-cycle-{cycle}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let has = |kinds: &[FaultKind]| stretch.cycles.iter().any(|plan| kinds.contains(&plan.fault));
        let volume = if has(&[FaultKind::Power, FaultKind::Enospc])
            || (has(&[FaultKind::Eio]) && options.faults.contains(&FaultKind::Power))
        {
            Some(Volume::create(&folder.join("volume"))?)
        } else {
            None
        };
        let data = volume.as_ref().map_or_else(|| folder.join("data"), |volume| volume.mount_point().join("data"));
        let clock = has(&[FaultKind::Clock]).then(|| folder.join("clock"));
        if let Some(clock) = &clock {
            fs::write(clock, "+0\n")?;
        }
        let preferred = (u32::from(std::process::id() as u16).wrapping_mul(31) + cycle) as u16;
        let port = free_port(preferred)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let fleet = Fleet::new(&stretch, address)?;
        let mut bench = Self {
            options,
            stop: Arc::clone(stop),
            stretch,
            first_cycle: cycle,
            fleet,
            broker: None,
            volume,
            place: Place { port, data, folder, clock },
            address,
            cycles: Vec::new(),
            probes: 0,
            violations: Vec::new(),
        };
        bench.start(None)?;
        Ok(bench)
    }

    fn cycle(&mut self, number: u32, plan: &CyclePlan) -> io::Result<()> {
        self.cycles.push((self.fleet.history.moments.len(), number, plan.fault));
        self.fleet.write(Event::Cycle { number });
        self.fleet.begin_cycle(&plan.presences);
        let began = Instant::now();
        while began.elapsed() < plan.workload {
            let share = began.elapsed().as_secs_f64() / plan.workload.as_secs_f64();
            self.turn(Phase::Working(share))?;
        }
        self.inflict(plan)?;
        self.work(plan.aftermath, 1.4)?;
        self.drain()
    }

    /// One turn of the fleet, while the broker should be alive.
    fn turn(&mut self, phase: Phase) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.fleet.turn(phase)?;
        if let Some(broker) = &mut self.broker
            && broker.ended()?.is_some()
        {
            self.fleet.write(Event::BrokerDied);
            self.bury(phase);
            self.start(None)?;
        }
        Ok(())
    }

    fn work(&mut self, duration: Duration, share: f64) -> io::Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.turn(Phase::Working(share))?;
        }
        Ok(())
    }

    fn inflict(&mut self, plan: &CyclePlan) -> io::Result<()> {
        self.fleet.write(Event::Fault { kind: plan.fault });
        match plan.fault {
            FaultKind::Calm => Ok(()),
            FaultKind::Kill => self.crash(plan, false),
            FaultKind::Power => self.crash(plan, true),
            FaultKind::Term => self.terminate(plan),
            FaultKind::Pause => {
                self.signal(Signal::STOP)?;
                self.work(plan.lasts, 1.1)?;
                self.signal(Signal::CONT)?;
                if !plan.worse {
                    return Ok(());
                }
                self.work(plan.down, 1.2)?;
                self.crash(plan, false)
            }
            FaultKind::Enospc => {
                if let Some(volume) = &mut self.volume {
                    volume.fill()?;
                }
                self.work(plan.lasts, 1.2)?;
                if let Some(volume) = &mut self.volume {
                    volume.relieve()?;
                }
                self.work(plan.aftermath, 1.3)?;
                // What it has refused is known to this process alone.
                self.count()?;
                self.crash(plan, plan.worse)
            }
            FaultKind::Eio => {
                let mut strace = self.fail_syncs(plan.eio_from)?;
                self.work(ATTACH + plan.lasts, 1.2)?;
                // A power cut shows whether something was acknowledged that had not gone down.
                let power = plan.worse && self.volume.is_some();
                let crashed = self.crash(plan, power);
                end_strace(&mut strace)?;
                crashed
            }
            FaultKind::Clock => {
                if let Some(clock) = &self.place.clock {
                    let text = format!("{:+}\n", plan.clock_jump);
                    let beside = clock.with_extension("new");
                    fs::write(&beside, text)?;
                    fs::rename(&beside, clock)?;
                }
                self.work(plan.lasts, 1.2)?;
                self.crash(plan, false)
            }
        }
    }

    /// Ends the broker at once, with or without the power of its disk, and starts it again.
    fn crash(&mut self, plan: &CyclePlan, power: bool) -> io::Result<()> {
        self.kill(power)?;
        if let Some(after) = plan.second_kill {
            // In the middle of its recovery.
            thread::sleep(plan.down / 2);
            self.broker = Some(self.options.program.start(&self.place)?);
            let until = Instant::now() + after;
            while Instant::now() < until {
                self.fleet.turn(Phase::Working(1.2))?;
            }
            self.kill(power)?;
        }
        self.rest_and_start(plan)
    }

    fn kill(&mut self, power: bool) -> io::Result<()> {
        if let (true, Some(volume)) = (power, &mut self.volume) {
            volume.cut_power()?;
        }
        if let Some(broker) = &mut self.broker {
            broker.kill()?;
        }
        self.bury(Phase::Working(1.2));
        if let (true, Some(volume)) = (power, &mut self.volume) {
            volume.mount_again()?;
        }
        Ok(())
    }

    fn bury(&mut self, phase: Phase) {
        self.broker = None;
        self.fleet.write(Event::BrokerGone);
        self.fleet.collect(phase);
    }

    fn terminate(&mut self, plan: &CyclePlan) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + TERM_MAX;
        while let Some(broker) = &mut self.broker {
            if broker.ended()?.is_some() {
                break;
            }
            if Instant::now() > deadline {
                self.fleet.write(Event::BrokerDied);
                break;
            }
            self.fleet.turn(Phase::Working(1.2))?;
        }
        self.bury(Phase::Working(1.2));
        self.rest_and_start(plan)
    }

    fn rest_and_start(&mut self, plan: &CyclePlan) -> io::Result<()> {
        let until = Instant::now() + plan.down;
        while Instant::now() < until {
            self.fleet.turn(Phase::Working(1.2))?;
        }
        self.start(Some(Phase::Working(1.2)))?;
        self.probe();
        Ok(())
    }

    /// Starts the broker and waits until it accepts connections; meanwhile the fleet works, if it is to.
    fn start(&mut self, phase: Option<Phase>) -> io::Result<()> {
        let began = Instant::now();
        let mut broker = self.options.program.start(&self.place)?;
        while !broker.accepts() {
            if let Some(status) = broker.ended()? {
                return Err(io::Error::other(format!(
                    "the broker does not start: {status}; see {}",
                    self.keep_evidence()
                )));
            }
            if began.elapsed() > START_MAX {
                let folder = self.keep_evidence();
                return Err(io::Error::other(format!("the broker does not listen after {START_MAX:?}; see {folder}")));
            }
            match phase {
                Some(phase) => self.fleet.turn(phase)?,
                None => thread::sleep(START_POLL),
            }
        }
        self.broker = Some(broker);
        self.fleet.write(Event::BrokerBack { after: began.elapsed() });
        Ok(())
    }

    fn keep_evidence(&mut self) -> String {
        let cycle = self.cycles.last().map_or(self.first_cycle, |(_, number, _)| *number);
        self.keep(cycle).map_or("nothing".into(), |path| path.display().to_string())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.broker.as_ref().map_or(Ok(()), |broker| broker.signal(signal))
    }

    /// Lets all syncs of the broker fail from the given one on.
    fn fail_syncs(&self, from: u64) -> io::Result<Child> {
        let pid = self.broker.as_ref().map_or(0, Broker::pid);
        Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e"])
            .arg(format!("inject=fsync,fdatasync:error=EIO:when={from}+"))
            .args(["-o", "/dev/null", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    fn probe(&mut self) {
        self.probes += 1;
        probe::run(&mut self.fleet, self.address, self.stretch.salt, self.probes);
    }

    /// Asks the broker what it has dropped, and writes that down. One that is not there any more, or says nothing, has
    /// nothing to be held against it.
    fn count(&mut self) -> io::Result<()> {
        if self.options.program.kind != Kind::Pantala {
            return Ok(());
        }
        let log = self.place.folder.join("broker.log");
        let (Some(asked), Some(broker)) = (Asked::new(&log), &mut self.broker) else { return Ok(()) };
        broker.signal(Signal::USR1)?;
        let deadline = Instant::now() + COUNT_MAX;
        while broker.ended()?.is_none() && Instant::now() < deadline {
            if let Some(drops) = asked.answer() {
                self.fleet.write(Event::Counted(drops));
                break;
            }
            thread::sleep(START_POLL);
        }
        Ok(())
    }

    /// Waits until all that is owed has come, or the time for it is over; then what is missing is lost.
    fn drain(&mut self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            // As long as something comes, more may come; the silence counts, and not the length of the queue.
            let silence = self.fleet.silence().min(began.elapsed());
            let deadline_is_over = silence > self.options.drain || began.elapsed() > DRAIN_MAX;
            if self.fleet.is_quiet() {
                // What was sent before the answer to this has come.
                self.fleet.ping();
                while !self.fleet.is_quiet() && self.fleet.silence() < self.options.drain && began.elapsed() < DRAIN_MAX
                {
                    self.turn(Phase::Draining)?;
                }
            }
            if self.fleet.is_quiet() || deadline_is_over {
                self.probe();
                let before = self.fleet.settle();
                self.count()?;
                let violations = checker::check(&self.fleet.history, self.options.rules);
                let waits = violations.iter().any(|one| one.class == Class::Lost || one.promise == Promise::L1);
                if !waits || deadline_is_over {
                    self.violations = violations;
                    return Ok(());
                }
                // Perhaps it comes yet.
                self.fleet.history.moments.truncate(before);
                let pause = Instant::now() + Duration::from_millis(250);
                while Instant::now() < pause {
                    self.turn(Phase::Draining)?;
                }
            }
            self.turn(Phase::Draining)?;
        }
    }

    /// The result of the last cycle, and what was found in it, each booked to the cycle that it is about.
    fn judge(&mut self, fault: FaultKind) -> (CycleResult, Vec<Finding>) {
        let begin = self.cycles.last().map_or(0, |(begin, ..)| *begin);
        let moments = &self.fleet.history.moments[begin..];
        let count = |is: fn(&Event) -> bool| moments.iter().filter(|moment| is(&moment.event)).count();
        let result = CycleResult {
            fault,
            accepted: count(|event| matches!(event, Event::Accepted { .. })),
            delivered: count(|event| matches!(event, Event::Received(_))),
        };
        let findings = std::mem::take(&mut self.violations).into_iter().map(|violation| {
            let cycle = self.cycles.iter().rev().find(|(begin, ..)| *begin <= violation.at).or(self.cycles.first());
            let (cycle, fault) = cycle.map_or((self.first_cycle, fault), |(_, number, fault)| (*number, *fault));
            let client = violation.client.and_then(|client| {
                self.fleet.history.cast.clients.get(usize::from(client)).map(|facts| facts.client_id.clone())
            });
            Finding { fault, cycle, stretch: self.first_cycle, client, events: self.around(&violation), violation }
        });
        let findings = findings.collect();
        (result, findings)
    }

    /// The events that a violation is about.
    fn around(&self, violation: &Violation) -> Vec<String> {
        let history = &self.fleet.history;
        let concerned = |event: &Event| match (violation.client, violation.message) {
            (None, None) => matches!(event, Event::BrokerGone | Event::Fault { .. } | Event::BrokerBack { .. }),
            (client, message) => history.concerns(event, client, message),
        };
        let places: Vec<usize> =
            (0..history.moments.len()).filter(|at| concerned(&history.moments[*at].event)).collect();
        let middle = places.partition_point(|at| *at < violation.at);
        let from = middle.saturating_sub(EVENTS_SHOWN_MAX / 2);
        let shown = places[from..].iter().take(EVENTS_SHOWN_MAX);
        shown.map(|at| self.line(*at)).collect()
    }

    fn line(&self, at: usize) -> String {
        let moment = &self.fleet.history.moments[at];
        format!("{at:>7} {:>9.4} s  {}", moment.at.as_secs_f64(), moment.event)
    }

    /// Keeps data directory, log and history; where.
    fn keep(&mut self, cycle: u32) -> Option<PathBuf> {
        // A copy of files that change is no evidence.
        self.broker = None;
        let kept = self.options.data_root.join(format!("kept-seed-{}-cycle-{cycle}", self.options.seed));
        drop(fs::remove_dir_all(&kept));
        fs::create_dir_all(&kept).ok()?;
        copy(&self.place.data, &kept);
        copy(&self.place.folder.join("broker.log"), &kept);
        let lines: Vec<String> = (0..self.fleet.history.moments.len()).map(|at| self.line(at)).collect();
        let clients = &self.fleet.history.cast.clients;
        let cast: Vec<String> =
            clients.iter().enumerate().map(|(number, facts)| format!("{number}: {facts:?}")).collect();
        fs::write(kept.join("history.txt"), cast.join("\n") + "\n\n" + &lines.join("\n") + "\n").ok()?;
        Some(kept)
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        self.broker = None;
        self.volume = None;
        drop(fs::remove_dir_all(&self.place.folder));
    }
}

fn copy(from: &Path, to: &Path) {
    // Evidence is worth having even if it is not complete.
    drop(Command::new("cp").arg("-a").arg(from).arg(to).stdin(Stdio::null()).stderr(Stdio::null()).status());
}

/// It ends with the process that it traces, or is made to.
fn end_strace(strace: &mut Child) -> io::Result<()> {
    let deadline = Instant::now() + STRACE_MAX;
    while strace.try_wait()?.is_none() {
        if Instant::now() > deadline {
            kill_process(Pid::from_child(strace), Signal::KILL)?;
        }
        thread::sleep(START_POLL);
    }
    Ok(())
}

/// How long a silence is waited for: the bound of the promise, or less where nothing is expected to come.
pub fn drain_bound(kind: Kind) -> Duration {
    match kind {
        Kind::Pantala => Duration::from_secs(10),
        Kind::Mosquitto => Duration::from_secs(2),
    }
}
