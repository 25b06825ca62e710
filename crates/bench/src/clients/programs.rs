//! L4: `pantala pub` and `pantala sub` as a shell script meets them, beside Mosquitto's where these are installed.
//!
//! The sink is that of the libraries, so a message that is lost, doubled or altered is seen. All speak MQTT 5.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::json;

use super::sink::{Account, Sink, check_due, now_nanos};
use super::{ClientFigure, Options, PAYLOAD_BYTES, TOPIC_NAME};
use crate::packet::STAMP_BYTES;
use crate::pinning::Pinning;
use crate::report::{Circumstances, median, number};
use crate::usage;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// Milliseconds from the start of the program to its PUBLISH in the sink; median of all starts of a repetition.
    Start,
    /// CPU seconds of the program per million messages printed, its start included.
    PrintingCpu,
    /// Messages printed in a second, its start included.
    PrintingRate,
    /// Bytes of the executable without symbols.
    Size,
}

/// One figure of this kind.
#[derive(Debug)]
pub struct ProgramFigure {
    /// Id, as in the documentation.
    pub id: &'static str,
    /// What is done.
    pub title: &'static str,
    unit: &'static str,
    measure: Measure,
    aim: Aim,
}

#[derive(Clone, Copy, Debug)]
enum Aim {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// All of them.
pub const PROGRAM_FIGURES: &[ProgramFigure] = &[
    ProgramFigure {
        id: "L4-start",
        title: "`pub`: from its start to its PUBLISH at the broker",
        unit: "ms",
        measure: Measure::Start,
        aim: Aim::AtMost(5.0),
    },
    ProgramFigure {
        id: "L4-sub-cpu",
        title: "`sub` printing to a pipe, QoS 0",
        unit: "CPU s/million",
        measure: Measure::PrintingCpu,
        aim: Aim::AtMost(2.0),
    },
    ProgramFigure {
        id: "L4-sub-rate",
        title: "the same, by the clock",
        unit: "messages/s",
        measure: Measure::PrintingRate,
        aim: Aim::AtLeast(500_000.0),
    },
    ProgramFigure {
        id: "L4-size",
        title: "the executable without symbols",
        unit: "bytes",
        measure: Measure::Size,
        aim: Aim::None,
    },
];

/// Starts of `pub` in one repetition, at scale 1.
const STARTS: u64 = 200;
/// Messages for `sub` in one repetition, at scale 1.
const MESSAGES: u64 = 2_000_000;
/// A program that takes longer has stalled.
const PROGRAM_MAX: Duration = Duration::from_secs(300);
/// Bytes read from the pipe at once.
const READ_BYTES: usize = 1 << 20;
/// What `sub` prints for each message: the payload and a newline.
const LINE_BYTES: usize = PAYLOAD_BYTES + 1;

impl ProgramFigure {
    /// Finds one by its id, in any case.
    pub fn find(id: &str) -> Option<&'static Self> {
        PROGRAM_FIGURES.iter().find(|figure| figure.id.eq_ignore_ascii_case(id))
    }
}

/// Whose programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Pantala,
    Mosquitto,
}

impl Maker {
    const ALL: [Self; 2] = [Self::Pantala, Self::Mosquitto];

    fn name(self) -> &'static str {
        match self {
            Self::Pantala => "pantala",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// All repetitions of one figure with the programs of one maker.
#[derive(Debug)]
pub(super) struct Outcome {
    figure: &'static ProgramFigure,
    maker: Maker,
    version: String,
    values: Vec<f64>,
    /// Why there are none.
    withheld: Option<String>,
    /// Why repetitions failed. One of them makes the whole invalid.
    faults: Vec<String>,
}

impl Outcome {
    pub(super) fn is_valid(&self) -> bool {
        self.faults.is_empty() && (self.withheld.is_some() || !self.values.is_empty())
    }

    fn median(&self) -> Option<f64> {
        median(self.values.iter().copied()).filter(|_| self.faults.is_empty())
    }

    fn cell(&self) -> String {
        let (min, max) =
            self.values.iter().fold((f64::INFINITY, 0.0_f64), |(min, max), it| (min.min(*it), max.max(*it)));
        match (self.median(), &self.withheld) {
            _ if !self.faults.is_empty() => "INVALID".to_owned(),
            (None, why) => why.clone().unwrap_or_default(),
            (Some(median), _) if min < max => format!("{} ({}–{})", number(median), number(min), number(max)),
            (Some(median), _) => number(median),
        }
    }

    fn aim(&self) -> String {
        let verdict = |is_met| match is_met {
            None => "not judged",
            Some(true) => "met",
            Some(false) => "not met",
        };
        match self.figure.aim {
            Aim::AtMost(limit) => format!("≤ {}: {}", number(limit), verdict(self.median().map(|it| it <= limit))),
            Aim::AtLeast(limit) => format!("≥ {}: {}", number(limit), verdict(self.median().map(|it| it >= limit))),
            Aim::None => String::new(),
        }
    }
}

/// Takes those that are wanted, the makers taking turns.
pub(super) fn take(sink: &Path, pinning: &Pinning, scratch: &Path, options: &Options) -> Vec<Outcome> {
    let is_wanted = |figure: &ProgramFigure| {
        let is_it = |wanted: &ClientFigure| matches!(wanted, ClientFigure::Program(wanted) if wanted.id == figure.id);
        options.only.is_empty() || options.only.iter().any(is_it)
    };
    let bench = Bench { sink, pinning, scratch, options };
    let mut outcomes = Vec::new();
    for measures in [&[Measure::Start][..], &[Measure::PrintingCpu, Measure::PrintingRate], &[Measure::Size]] {
        let figures: Vec<_> =
            PROGRAM_FIGURES.iter().filter(|it| measures.contains(&it.measure) && is_wanted(it)).collect();
        let Some(first) = figures.first() else { continue };
        let begin = outcomes.len();
        for &figure in &figures {
            outcomes.extend(Maker::ALL.map(|maker| bench.outcome(figure, maker)));
        }
        let repetitions = if first.measure == Measure::Size { 1 } else { options.repetitions };
        for repetition in 1..=repetitions {
            for maker in Maker::ALL {
                let rows = || outcomes[begin..].iter().filter(|it| it.maker == maker && it.withheld.is_none());
                if rows().next().is_none() {
                    continue;
                }
                let result = bench.sample(first.measure, maker);
                let of_maker = outcomes[begin..].iter_mut().filter(|it| it.maker == maker && it.withheld.is_none());
                for outcome in of_maker {
                    let place = format!("{} {} {repetition}/{repetitions}", outcome.figure.id, maker.name());
                    match &result {
                        Ok(Sample::Withheld(why)) => outcome.withheld = Some((*why).to_owned()),
                        Ok(sample) => {
                            let value = sample.value(outcome.figure.measure);
                            eprintln!("{place}: {} {}", number(value), outcome.figure.unit);
                            outcome.values.push(value);
                        }
                        Err(why) => {
                            eprintln!("{place}: INVALID: {why}");
                            outcome.faults.push(why.clone());
                        }
                    }
                }
            }
        }
    }
    outcomes
}

/// What came of one repetition.
enum Sample {
    /// Milliseconds, or bytes.
    One(f64),
    Printing {
        cpu: Duration,
        elapsed: Duration,
        messages: u64,
    },
    Withheld(&'static str),
}

impl Sample {
    fn value(&self, measure: Measure) -> f64 {
        match (self, measure) {
            (Self::One(value), _) => *value,
            (Self::Printing { elapsed, messages, .. }, Measure::PrintingRate) => {
                *messages as f64 / elapsed.as_secs_f64()
            }
            (Self::Printing { cpu, messages, .. }, _) => cpu.as_secs_f64() * 1e6 / *messages as f64,
            (Self::Withheld(_), _) => f64::NAN,
        }
    }
}

/// Where repetitions happen.
struct Bench<'a> {
    /// The executable that is a sink.
    sink: &'a Path,
    pinning: &'a Pinning,
    scratch: &'a Path,
    options: &'a Options,
}

impl Bench<'_> {
    fn outcome(&self, figure: &'static ProgramFigure, maker: Maker) -> Outcome {
        let (version, withheld) = match (maker, figure.measure) {
            (Maker::Mosquitto, Measure::Size) => (String::new(), Some("–".to_owned())),
            _ => match self.command(maker, figure.measure).1.arg("--version").stdin(Stdio::null()).output() {
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stdout);
                    (text.lines().next().unwrap_or_default().to_owned(), None)
                }
                Err(error) => {
                    let program = self.command(maker, figure.measure).0;
                    (String::new(), Some(format!("no {}: {}", program.display(), error.kind())))
                }
            },
        };
        Outcome { figure, maker, version, values: Vec::new(), withheld, faults: Vec::new() }
    }

    /// The executable, and a command that begins with it.
    fn command(&self, maker: Maker, measure: Measure) -> (PathBuf, Command) {
        let is_start = measure == Measure::Start;
        let program = match (maker, is_start) {
            (Maker::Pantala, _) => self.options.pantala.clone(),
            (Maker::Mosquitto, true) => "mosquitto_pub".into(),
            (Maker::Mosquitto, false) => "mosquitto_sub".into(),
        };
        let command = Command::new(&program);
        (program, command)
    }

    /// The command line with what the programs of both makers have in common.
    fn client(&self, maker: Maker, measure: Measure, sink: &Sink) -> Command {
        let (_, mut command) = self.command(maker, measure);
        if maker == Maker::Pantala {
            command.arg(if measure == Measure::Start { "pub" } else { "sub" });
        }
        let (host, port) = (sink.address.ip().to_string(), sink.address.port().to_string());
        command.args(["-h", &host, "-p", &port, "-V", "5", "-q", "0", "-t", TOPIC_NAME]).stdin(Stdio::null());
        command
    }

    fn sample(&self, measure: Measure, maker: Maker) -> Result<Sample, String> {
        match measure {
            Measure::Start => self.start(maker).map_err(|error| error.to_string()),
            Measure::PrintingCpu | Measure::PrintingRate => self.print(maker).map_err(|error| error.to_string()),
            Measure::Size => self.size().map_err(|error| error.to_string()),
        }
    }

    fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.options.scale) as u64).max(10)
    }

    fn start(&self, maker: Maker) -> io::Result<Sample> {
        let payload = self.scratch.join("payload");
        let mut bytes = [b'.'; PAYLOAD_BYTES];
        bytes[..STAMP_BYTES].fill(0);
        fs::write(&payload, bytes)?;
        let sink = Sink::start(self.sink, 0, self.pinning)?;
        let starts = self.scaled(STARTS);
        let mut begun = Vec::new();
        for _ in 0..starts {
            let mut command = self.client(maker, Measure::Start, &sink);
            command.arg("-f").arg(&payload).stdout(Stdio::null());
            begun.push(now_nanos());
            let mut child = command.spawn()?;
            wait(&mut child)?;
            succeed(&mut child)?;
        }
        let account = checked(sink.stop()?)?;
        if account.published != starts || account.first_arrivals.len() != begun.len() {
            return Err(io::Error::other(format!("the sink got {} of {starts} messages", account.published)));
        }
        let millis = begun.iter().zip(&account.first_arrivals).map(|(from, to)| to.saturating_sub(*from) as f64 / 1e6);
        Ok(Sample::One(median(millis).unwrap_or(f64::NAN)))
    }

    fn print(&self, maker: Maker) -> io::Result<Sample> {
        let messages = self.scaled(MESSAGES);
        let sink = Sink::start(self.sink, messages, self.pinning)?;
        let mut command = self.client(maker, Measure::PrintingCpu, &sink);
        command.args(["-C", &messages.to_string()]).stdout(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let mut pipe = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // On the sink's core: what the reader does is no part of what the program can do.
        let printed = self.pinning.on_broker_core(|| read_all(&mut pipe))?;
        let elapsed = begun.elapsed();
        let cpu = wait(&mut child)?;
        succeed(&mut child)?;
        let printed = printed?;
        checked(sink.stop()?)?;
        if printed != messages {
            return Err(io::Error::other(format!("{printed} of {messages} messages were printed")));
        }
        Ok(Sample::Printing { cpu, elapsed, messages })
    }

    fn size(&self) -> io::Result<Sample> {
        let stripped = self.scratch.join("stripped");
        match Command::new("strip").arg("-o").arg(&stripped).arg(&self.options.pantala).status() {
            Ok(status) if status.success() => Ok(Sample::One(fs::metadata(&stripped)?.len() as f64)),
            _ => Ok(Sample::Withheld("needs `strip`")),
        }
    }
}

/// Waits for the end of a program, which is still to be taken leave of, and gives the CPU time of all its threads.
fn wait(child: &mut Child) -> io::Result<Duration> {
    let deadline = Instant::now() + PROGRAM_MAX;
    let mut nap = Duration::from_millis(1);
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if waitid(WaitId::Pid(Pid::from_child(child)), options)?.is_some() {
            let cpu = usage::cpu(child.id())?;
            return Ok(cpu.user + cpu.system);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the program has stalled"));
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(5));
    }
}

fn succeed(child: &mut Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("the program ended with {status}"))) }
}

fn checked(account: Account) -> io::Result<Account> {
    match account.faults.first() {
        Some(fault) => Err(io::Error::other(format!("the sink noticed: {fault}"))),
        None => Ok(account),
    }
}

/// Reads to the end, and gives how many messages there were, each of them the one that was due.
fn read_all(pipe: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut filled, mut due) = (0, 0);
    loop {
        match pipe.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(due),
            Ok(0) => return Err(io::Error::other("the last line is cut")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let (lines, rest) = buffer[..filled].as_chunks::<LINE_BYTES>();
        for line in lines {
            let sequence = line[4..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            if line[PAYLOAD_BYTES] != b'\n' {
                return Err(io::Error::other(format!("a line is not as long as the payload, after {due} messages")));
            }
            check_due(sequence, due).map_err(io::Error::other)?;
            due += 1;
        }
        let (used, rest) = (filled - rest.len(), rest.len());
        buffer.copy_within(used..filled, 0);
        filled = rest;
    }
}

/// A Markdown table, with notes below it.
pub(super) fn table(outcomes: &[Outcome], circumstances: &Circumstances) -> String {
    let mut text = String::from("| id | figure | unit | pantala | mosquitto | aim |\n|---|---|---|---|---|---|\n");
    for figure in PROGRAM_FIGURES {
        let of = |maker| outcomes.iter().find(|it| it.figure.id == figure.id && it.maker == maker);
        let [Some(ours), Some(theirs)] = Maker::ALL.map(of) else { continue };
        let (ours, theirs, aim) = (ours.cell(), theirs.cell(), ours.aim());
        let _ = writeln!(text, "| {} | {} | {} | {ours} | {theirs} | {aim} |", figure.id, figure.title, figure.unit);
    }
    let Circumstances { machine, pinning, .. } = circumstances;
    let _ = writeln!(
        text,
        "\nMedian (min–max). The sink is the broker, the program the generator. Pinning: {pinning}. Kernel {}, {}, load before {}.",
        machine.kernel, machine.cpu, machine.load_before
    );
    for outcome in outcomes {
        for fault in &outcome.faults {
            let _ = writeln!(text, "- {} {}: INVALID: {fault}", outcome.figure.id, outcome.maker.name());
        }
    }
    text
}

/// One outcome.
pub(super) fn json_line(outcome: &Outcome, circumstances: &Circumstances) -> String {
    json!({
        "tool": env!("CARGO_PKG_NAME"),
        "tool_version": env!("CARGO_PKG_VERSION"),
        "scenario": outcome.figure.id,
        "title": outcome.figure.title,
        "unit": outcome.figure.unit,
        "program": outcome.maker.name(),
        "program_version": outcome.version,
        "payload_bytes": PAYLOAD_BYTES,
        "valid": outcome.is_valid(),
        "faults": outcome.faults,
        "withheld": outcome.withheld,
        "median": outcome.median(),
        "values": outcome.values,
        "aim": if outcome.maker == Maker::Pantala { outcome.aim() } else { String::new() },
        "pinning": circumstances.pinning,
        "floor": circumstances.floor,
        "machine": circumstances.machine,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::Floor;
    use crate::machine::Machine;

    fn lines(sequences: &[u64]) -> Vec<u8> {
        let line = |sequence: &u64| {
            let mut line = [b'.'; LINE_BYTES];
            line[..4].fill(0);
            line[4..STAMP_BYTES].copy_from_slice(&sequence.to_be_bytes());
            line[PAYLOAD_BYTES] = b'\n';
            line
        };
        sequences.iter().flat_map(line).collect()
    }

    /// Gives a few bytes at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(7);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn what_is_printed_is_counted_and_has_to_be_all_of_it() {
        // 10 is a newline, and no end of a line where it stands.
        let sequences: Vec<u64> = (0..12).collect();
        assert_eq!(read_all(&mut Drops(&lines(&sequences))).unwrap(), 12);
        assert_eq!(read_all(&mut lines(&sequences).as_slice()).unwrap(), 12);
        let error = |bytes: &[u8]| read_all(&mut &*bytes).unwrap_err().to_string();
        assert!(error(&lines(&[0, 2])).contains("1 messages of publisher 0 lost"));
        assert!(error(&lines(&[0, 0])).contains("publisher 0"));
        assert!(error(&lines(&[0])[..LINE_BYTES - 1]).contains("cut"));
        assert!(error(&[&lines(&[0])[1..], &lines(&[1])].concat()).contains("as long"));
    }

    #[test]
    fn the_cpu_time_of_a_program_is_there_when_it_has_ended() {
        let mut child =
            Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).spawn().unwrap();
        let cpu = wait(&mut child).unwrap();
        succeed(&mut child).unwrap();
        assert!(cpu >= Duration::from_millis(10), "{cpu:?}");
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        wait(&mut child).unwrap();
        assert!(succeed(&mut child).unwrap_err().to_string().contains('3'));
    }

    #[test]
    fn a_program_that_is_not_there_is_left_out_with_the_reason_and_a_fault_hides_the_value() {
        let outcome = |id, maker, values: &[f64], withheld: Option<&str>, faults: &[&str]| Outcome {
            figure: ProgramFigure::find(id).unwrap(),
            maker,
            version: String::new(),
            values: values.to_vec(),
            withheld: withheld.map(str::to_owned),
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
        };
        let outcomes = [
            outcome("L4-start", Maker::Pantala, &[2.0, 4.0, 3.0], None, &[]),
            outcome("L4-start", Maker::Mosquitto, &[], Some("no mosquitto_pub"), &[]),
            outcome("L4-sub-rate", Maker::Pantala, &[600_000.0], None, &["3 messages lost"]),
            outcome("L4-sub-rate", Maker::Mosquitto, &[400_000.0], None, &[]),
        ];
        let circumstances = Circumstances {
            machine: Machine::observe(),
            floor: Floor { null_syscall_ns: 100.0, tcp_write_read_64_ns: 5_000.0 },
            pinning: "none".to_owned(),
        };
        let text = table(&outcomes, &circumstances);
        assert!(text.contains("| ms | 3.00 (2.00–4.00) | no mosquitto_pub | ≤ 5.00: met |"), "{text}");
        assert!(text.contains("| messages/s | INVALID |") && text.contains(": not judged |"), "{text}");
        assert!(text.contains("- L4-sub-rate pantala: INVALID: 3 messages lost"), "{text}");
        assert_eq!(outcomes.map(|outcome| outcome.is_valid()), [true, true, false, true]);
    }
}
