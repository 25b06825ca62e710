//! Attacks: what a hostile peer can send, and what a broker must then do.
//!
//! One test for each row of the catalogue's sections A (framing) to H (properties), named by its id: raw bytes in, the
//! answer out, against a running broker. Where a row leaves a choice, every choice it names passes. These are our
//! expectations of a broker, not the standard's alone: limits, reasons and times are stricter here than there.
//!
//! ```text
//! pantala-conformance attack 127.0.0.1:1883 --pid $(pidof pantala) --broker target/debug/pantala
//! ```
//!
//! prints a table of id, verdict and reason, then one line of counts; the exit status is 1 if a row failed. Without
//! `--pid` (of the broker at that address, on this machine) memory and descriptors are not looked at. Without `--broker`
//! (the executable) rows that need a configuration of their own are skipped; with it they start one on a free port of
//! the loopback interface and end it again.
//!
//! Beside its own expectation each attack has to leave everybody else alone; [`oracle`] watches over that:
//!
//! - *alive*: the same process runs, and a fresh CONNECT is answered.
//! - *canary*: two clients that were connected before exchange a QoS 1 message every 10 ms; none is lost, and 99.9 % arrive
//!   within the bound.
//! - *memory*: the resident memory stays within the attack's budget and settles within 5 % and 2 MiB of what it was. An
//!   attack that misses this is made again, up to three times: what an allocator keeps for later reaches a level, a leak
//!   grows each time.
//! - *descriptors*: as many open as before.
//! - *close*: an offending connection is closed within a second, in MQTT 5.0 with the reason stated, before without.
//!
//! Attacks run one after the other, so that what the process does can be put down to one; those that only wait for
//! a timeout run beside the others.

pub mod a_framing;
pub mod arena;
pub mod b_connect;
pub mod c_publish;
pub mod d_acknowledgement;
pub mod e_subscribe;
pub mod f_auth;
pub mod g_strings;
pub mod h_properties;
pub mod oracle;
pub mod server;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arena::Arena;
use oracle::{Canary, Process, Sampler};

use crate::peer::{Outcome, Stop};
use crate::wire::Version;
use crate::{Options, Verdict, base36, ensure, run_tag};

/// The longest an attack may take, in one round.
const ATTACK_DURATION_MAX: Duration = Duration::from_secs(40);

/// How often an attack is made, if memory does not settle: what an allocator keeps for later reaches a level within a few
/// rounds, a leak grows in each.
const ROUNDS: u8 = 4;

/// How long memory may take to settle, in the last round and before.
const SETTLE_DURATION_MAX: Duration = Duration::from_secs(5);
const SETTLE_DURATION_MAX_BEFORE: Duration = Duration::from_millis(500);

/// Bytes of memory that an attack may take unless it says otherwise.
const PEAK_BYTES: u64 = 64 << 20;

/// How to attack.
#[derive(Clone, Debug)]
pub struct AttackOptions {
    /// Only the attack of this id, or all whose id begins with it if it is one letter; all if `None`.
    pub only: Option<String>,
    /// Process id of the broker; memory, descriptors and process are watched if it is given.
    pub pid: Option<u32>,
    /// The `pantala` executable, for attacks on a configuration of their own.
    pub broker: Option<PathBuf>,
    /// How long an answer that is not bound to a shorter time may take; 5 s by default.
    pub patience: Duration,
    /// How long 99.9 % of the canary's messages may take; 250 ms by default.
    pub canary_bound: Duration,
    /// Every packet to standard error.
    pub trace: bool,
}

impl Default for AttackOptions {
    fn default() -> AttackOptions {
        AttackOptions {
            only: None,
            pid: None,
            broker: None,
            patience: Duration::from_secs(5),
            canary_bound: Duration::from_millis(250),
            trace: false,
        }
    }
}

/// Where in a run an attack has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its turn, alone.
    InTurn,
    /// Beside the others from the beginning, because it waits for a timeout.
    Beside,
}

/// One row of the catalogue.
#[derive(Clone, Copy)]
pub struct Attack {
    /// Its id: a letter and a number.
    pub id: &'static str,
    /// What is sent.
    pub what: &'static str,
    /// The test.
    pub run: fn(&Arena<'_>) -> Outcome,
    /// Bytes by which the broker's resident memory may grow while it lasts.
    pub peak_bytes: u64,
    /// When it runs.
    pub place: Place,
}

impl Attack {
    /// An attack in its turn, with the usual budget.
    pub const fn new(id: &'static str, what: &'static str, run: fn(&Arena<'_>) -> Outcome) -> Attack {
        Attack { id, what, run, peak_bytes: PEAK_BYTES, place: Place::InTurn }
    }

    /// The same with a budget of so many bytes of memory.
    pub const fn peak(mut self, bytes: u64) -> Attack {
        self.peak_bytes = bytes;
        self
    }

    /// The same, beside the others.
    pub const fn beside(mut self) -> Attack {
        self.place = Place::Beside;
        self
    }

    fn chosen(&self, only: Option<&str>) -> bool {
        only.is_none_or(|only| self.id == only || (only.len() == 1 && self.id.starts_with(only)))
    }
}

/// All attacks, in the order of the catalogue.
pub fn attacks() -> Vec<Attack> {
    [
        a_framing::ATTACKS,
        b_connect::ATTACKS,
        c_publish::ATTACKS,
        d_acknowledgement::ATTACKS,
        e_subscribe::ATTACKS,
        f_auth::ATTACKS,
        g_strings::ATTACKS,
        h_properties::ATTACKS,
    ]
    .concat()
}

/// The verdicts of a run.
#[derive(Clone, Debug, Default)]
pub struct AttackReport {
    /// Id, what was sent, the verdict, and how long it took.
    pub rows: Vec<(&'static str, &'static str, Verdict, Duration)>,
}

impl AttackReport {
    fn count(&self, pick: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|(_, _, verdict, _)| pick(verdict)).count()
    }

    /// Attacks that the broker withstood.
    pub fn passed(&self) -> usize {
        self.count(|v| matches!(v, Verdict::Pass))
    }

    /// Attacks that it did not withstand.
    pub fn failed(&self) -> usize {
        self.count(|v| matches!(v, Verdict::Fail(_)))
    }

    /// Attacks that could not be made.
    pub fn skipped(&self) -> usize {
        self.count(|v| matches!(v, Verdict::Skip(_)))
    }
}

impl fmt::Display for AttackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, what, verdict, _) in &self.rows {
            match verdict {
                Verdict::Pass => writeln!(f, "{id:<4} pass  {what}")?,
                Verdict::Skip(why) => writeln!(f, "{id:<4} skip  {what}: {why}")?,
                Verdict::Fail(why) => writeln!(f, "{id:<4} FAIL  {what}: {why}")?,
            }
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed(), self.failed(), self.skipped())
    }
}

/// Makes the attacks that `options` choose on the broker at `target` (`HOST:PORT`).
pub fn run(target: &str, options: &AttackOptions) -> AttackReport {
    let only = options.only.as_deref();
    let chosen: Vec<Attack> = attacks().into_iter().filter(|attack| attack.chosen(only)).collect();
    let peers = Options { patience: options.patience, trace: options.trace, ..Options::default() };
    let run_tag = run_tag();
    let everywhere = |why: String| AttackReport {
        rows: chosen.iter().map(|a| (a.id, a.what, Verdict::Fail(why.clone()), Duration::ZERO)).collect(),
    };
    let process = match options.pid.map(Process::find).transpose() {
        Ok(process) => process,
        Err(why) => return everywhere(why),
    };
    let canary = match Canary::start(target, &run_tag) {
        Ok(canary) => canary,
        Err(why) => return everywhere(why),
    };
    let arena = |i: usize, round: u8, ready: Option<mpsc::Sender<()>>| {
        let tag = format!("{run_tag}{}", base36(i as u64 * u64::from(ROUNDS) + u64::from(round), 3));
        Arena::new(target, &peers, tag, process.as_ref(), options.broker.as_deref(), ready)
    };
    let watch = Watch { process: process.as_ref(), canary: &canary, bound: options.canary_bound };

    let mut verdicts: Vec<Option<(Verdict, Duration)>> = chosen.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        let mut beside = Vec::new();
        for (i, attack) in chosen.iter().enumerate().filter(|(_, a)| a.place == Place::Beside) {
            let (sender, ready) = mpsc::channel();
            let arena = &arena;
            beside.push((
                i,
                scope.spawn(move || {
                    let begin = Instant::now();
                    (verdict_of(attempt(attack, &arena(i, 0, Some(sender)))), begin.elapsed())
                }),
            ));
            // It has its connections open, so that they are not counted against others, or it has ended.
            let _ = ready.recv();
        }
        for (i, attack) in chosen.iter().enumerate().filter(|(_, a)| a.place == Place::InTurn) {
            let begin = Instant::now();
            let mut outcome = Ok(());
            for round in 0..ROUNDS {
                match watch.round(round, attack, &arena(i, round, None)) {
                    Ok(Settled::Not(why)) => outcome = Err(Stop::Fail(format!("{why}, {ROUNDS} times in a row"))),
                    settled_or_failed => {
                        outcome = settled_or_failed.map(drop);
                        break;
                    }
                }
            }
            verdicts[i] = Some((verdict_of(outcome), begin.elapsed()));
        }
        for (i, thread) in beside {
            verdicts[i] = thread.join().ok();
        }
    });
    let rows = chosen
        .iter()
        .zip(verdicts)
        .map(|(attack, verdict)| {
            let (verdict, took) =
                verdict.unwrap_or_else(|| (Verdict::Fail("was not run to its end".into()), Duration::ZERO));
            (attack.id, attack.what, verdict, took)
        })
        .collect();
    AttackReport { rows }
}

fn verdict_of(outcome: Outcome) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Pass,
        Err(Stop::Skip(why)) => Verdict::Skip(why),
        Err(Stop::Fail(why)) => Verdict::Fail(why),
    }
}

/// The attack alone, without the oracles.
fn attempt(attack: &Attack, arena: &Arena<'_>) -> Outcome {
    // An attack that panics is a mistake of the suite; it must not hide the verdicts on the others.
    let outcome = catch_unwind(AssertUnwindSafe(|| (attack.run)(arena)))
        .unwrap_or_else(|_| Err(Stop::Fail("the test itself panicked".into())));
    arena.tidy();
    outcome
}

/// Whether the process came back to what it was.
enum Settled {
    Yes,
    Not(String),
}

/// The oracles.
struct Watch<'a> {
    process: Option<&'a Process>,
    canary: &'a Canary,
    bound: Duration,
}

impl Watch<'_> {
    /// One round of an attack under all oracles. Memory that has not settled is for the caller to judge.
    fn round(&self, round: u8, attack: &Attack, arena: &Arena<'_>) -> Outcome<Settled> {
        let mark = self.canary.mark();
        let before = self.process.map(Process::figures).transpose().map_err(Stop::Fail)?;
        let sampler = self.process.map(Sampler::start);
        let outcome = attempt(attack, arena);
        let peak = sampler.map_or(0, Sampler::stop);
        outcome?;

        if let Some(process) = self.process {
            ensure!(process.is_alive(), "the broker's process has ended or was replaced");
        }
        arena.v5.connect("alive").and_then(|mut peer| peer.fence()).map_err(|stop| match stop {
            Stop::Fail(why) => Stop::Fail(format!("no service after the attack: {why}")),
            skip => skip,
        })?;
        self.canary.judge(mark, self.bound)?;

        let (Some(process), Some(before)) = (self.process, before) else { return Ok(Settled::Yes) };
        ensure!(
            peak <= before.resident_bytes + attack.peak_bytes,
            "resident memory grew by {} KiB during the attack; {} KiB are allowed",
            peak.saturating_sub(before.resident_bytes) >> 10,
            attack.peak_bytes >> 10
        );
        let limit = if round + 1 == ROUNDS { SETTLE_DURATION_MAX } else { SETTLE_DURATION_MAX_BEFORE };
        process.settle(&before, limit).map(|why| why.map_or(Settled::Yes, Settled::Not))
    }
}

/// The version of a case, for messages.
pub(crate) fn version_name(version: Version) -> &'static str {
    if version.is_v5() { "5.0" } else { "3.1.1" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many rows the sections of the catalogue have.
    const SECTIONS: [(char, usize); 8] =
        [('A', 16), ('B', 29), ('C', 23), ('D', 16), ('E', 18), ('F', 10), ('G', 12), ('H', 11)];

    #[test]
    fn each_row_of_the_catalogue_has_its_attack() {
        let expected: Vec<String> =
            SECTIONS.iter().flat_map(|(letter, rows)| (1..=*rows).map(move |n| format!("{letter}{n}"))).collect();
        assert_eq!(attacks().iter().map(|a| a.id.to_owned()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn attacks_are_chosen_by_id_or_letter() {
        let ids = |only| attacks().iter().filter(|a| a.chosen(Some(only))).map(|a| a.id).collect::<Vec<_>>();
        assert_eq!(ids("A1"), ["A1"]);
        assert_eq!(ids("F").len(), 10);
        assert_eq!(ids("Z9"), [""; 0]);
    }
}
