//! Black-box conformance tests for MQTT brokers.
//!
//! Every numbered statement of MQTT 3.1.1 and 5.0 that binds a server has a test here that speaks raw bytes to
//! a broker at a `host:port`, or a written exception with its reason. The suite knows nothing about the broker under
//! test and shares no code with one: [`wire`] has an encoder that can be wrong on purpose and a decoder that is as
//! strict as the standard, [`peer`] a scripted connection, [`case`](mod@case) the names a test uses.
//!
//! Numbers mean different statements in the two versions, so a statement is always named with its version. What both
//! versions demand under two numbers is written once, in [`rules`]; what only one demands is in [`v5`] and [`v311`],
//! by chapter of the standard. Where a statement leaves a choice every conforming behaviour passes.
//!
//! [`attacks`] is the other half: what hostile peers send, by the ids of a catalogue, and what a broker has to do then.
//! `pantala-conformance attack HOST:PORT --pid PID --broker PATH` makes them; its page says what watches over them.
//!
//! ```no_run
//! use pantala_conformance::{Options, run};
//!
//! let report = run("127.0.0.1:1883", &Options::default());
//! assert_eq!(report.failed(), 0, "{report}");
//! ```

pub mod attacks;
pub mod case;
pub mod peer;
pub mod rules;
pub mod scram;
pub mod statements;
pub mod v311;
pub mod v5;
pub mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use case::Case;
use peer::{Outcome, Stop};
use wire::Version;

/// The longest a test may take.
pub const TEST_DURATION_MAX: Duration = Duration::from_secs(10);

/// Characters in a line of the table; what a broker sent could be longer than anyone reads.
const LINE_CHARACTERS_MAX: usize = 320;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only tests with a statement id or name that begins like this; all if `None`.
    pub only: Option<String>,
    /// Only tests of this version; both if `None`.
    pub version: Option<Version>,
    /// Tests at once; at least 1, 8 by default.
    pub jobs: usize,
    /// How long an answer may take; 5 s by default.
    pub patience: Duration,
    /// User Name and Password for every connection; none by default.
    pub credentials: Option<(String, String)>,
    /// `HOST:PORT` of a listener whose Maximum QoS is 0 or 1.
    pub max_qos_target: Option<String>,
    /// `HOST:PORT` of a listener without Retained Messages.
    pub no_retain_target: Option<String>,
    /// A listener with the Authentication Method SCRAM-SHA-256.
    pub scram_target: Option<ScramTarget>,
    /// Every packet to standard error.
    pub trace: bool,
    /// A line with the progress to standard error.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            only: None,
            version: None,
            jobs: 8,
            patience: Duration::from_secs(5),
            credentials: None,
            max_qos_target: None,
            no_retain_target: None,
            scram_target: None,
            trace: false,
            progress: false,
        }
    }
}

/// Where SCRAM-SHA-256 is spoken, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramTarget {
    /// `HOST:PORT`.
    pub address: String,
    /// User name of the mechanism.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// One test: a function and the statements it shows.
#[derive(Clone, Copy)]
pub struct Test {
    /// The version it speaks, and whose statements `ids` are.
    pub version: Version,
    /// Statement ids.
    pub ids: &'static [&'static str],
    /// A sentence in snake case.
    pub name: &'static str,
    /// The test.
    pub run: fn(&Case<'_>) -> Outcome,
}

/// Names a test by its module and function: `test!(V5, connect::second_connect, "MQTT-3.1.0-2")`.
#[macro_export]
macro_rules! test {
    ($version:ident, $module:ident::$name:ident, $($id:literal),+) => {
        $crate::Test {
            version: $crate::wire::Version::$version,
            ids: &[$($id),+],
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: $module::$name,
        }
    };
}

/// All tests, in the order of the standard, 5.0 first.
pub fn tests() -> Vec<Test> {
    v5::tests().into_iter().chain(v311::tests()).collect()
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The broker does what the statement demands.
    Pass,
    /// Could not be tested on this broker; the reason.
    Skip(String),
    /// The broker does not; what it did.
    Fail(String),
}

/// One line of a report: a statement, with the worst verdict of its tests.
#[derive(Clone, Debug)]
pub struct Row {
    /// The version.
    pub version: Version,
    /// The statement.
    pub id: &'static str,
    /// The verdict.
    pub verdict: Verdict,
}

/// The verdicts of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each test with its verdict and how long it took.
    pub results: Vec<(TestName, Verdict, Duration)>,
}

/// Which test it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestName {
    /// The version it spoke.
    pub version: Version,
    /// The statements it shows.
    pub ids: &'static [&'static str],
    /// Its name.
    pub name: &'static str,
}

impl Report {
    /// One row for each statement. It passes if all its tests pass that could be run; it is skipped if none could.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let mut places: BTreeMap<(Version, &str), usize> = BTreeMap::new();
        for (test, verdict, _) in &self.results {
            for id in test.ids {
                let named = match verdict {
                    Verdict::Pass => Verdict::Pass,
                    Verdict::Skip(why) => Verdict::Skip(why.clone()),
                    Verdict::Fail(why) => Verdict::Fail(format!("{}: {why}", test.name)),
                };
                match places.get(&(test.version, *id)) {
                    None => {
                        places.insert((test.version, id), rows.len());
                        rows.push(Row { version: test.version, id, verdict: named });
                    }
                    Some(&place) => {
                        let old = &mut rows[place].verdict;
                        match (&mut *old, named) {
                            (Verdict::Fail(why), Verdict::Fail(more)) => {
                                why.push_str("; ");
                                why.push_str(&more);
                            }
                            (Verdict::Fail(_), _) | (_, Verdict::Skip(_)) => {}
                            (_, named) => *old = named,
                        }
                    }
                }
            }
        }
        rows
    }

    fn count(&self, pick: impl Fn(&Verdict) -> bool) -> usize {
        self.rows().iter().filter(|row| pick(&row.verdict)).count()
    }

    /// Statements that passed.
    pub fn passed(&self) -> usize {
        self.count(|v| matches!(v, Verdict::Pass))
    }

    /// Statements that failed.
    pub fn failed(&self) -> usize {
        self.count(|v| matches!(v, Verdict::Fail(_)))
    }

    /// Statements that could not be tested.
    pub fn skipped(&self) -> usize {
        self.count(|v| matches!(v, Verdict::Skip(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.rows() {
            let (word, why) = match &row.verdict {
                Verdict::Pass => ("pass", ""),
                Verdict::Skip(why) => ("skip", why.as_str()),
                Verdict::Fail(why) => ("FAIL", why.as_str()),
            };
            let mut line = format!("{:<6} {:<14} {word}  {why}", row.version, row.id);
            if let Some((end, _)) = line.char_indices().nth(LINE_CHARACTERS_MAX) {
                line.truncate(end);
                line.push('…');
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed(), self.failed(), self.skipped())
    }
}

/// Runs the tests that `options` choose against the broker at `target` (`HOST:PORT`).
pub fn run(target: &str, options: &Options) -> Report {
    run_tests(&tests(), target, options)
}

/// Runs these tests.
pub fn run_tests(tests: &[Test], target: &str, options: &Options) -> Report {
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|t| options.version.is_none_or(|v| v == t.version))
        .filter(|t| {
            options.only.as_deref().is_none_or(|only| {
                t.ids.iter().any(|id| id.starts_with(only) || id.trim_start_matches("MQTT-").starts_with(only))
                    || t.name.contains(only)
            })
        })
        .collect();
    let run = run_tag();
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<(Verdict, Duration)>>> = chosen.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, chosen.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(test) = chosen.get(i) else { return };
                    let begin = Instant::now();
                    let verdict = run_one(test, target, options, format!("{run}{}", base36(i as u64, 3)));
                    if let Ok(mut slot) = results[i].lock() {
                        *slot = Some((verdict, begin.elapsed()));
                    }
                    progress(options, done.fetch_add(1, Ordering::Relaxed) + 1, chosen.len());
                }
            });
        }
    });
    let results = chosen
        .iter()
        .zip(results)
        .map(|(test, slot)| {
            let name = TestName { version: test.version, ids: test.ids, name: test.name };
            let (verdict, took) = slot
                .into_inner()
                .ok()
                .flatten()
                .unwrap_or_else(|| (Verdict::Fail("the test was not run to its end".into()), Duration::ZERO));
            (name, verdict, took)
        })
        .collect();
    Report { results }
}

fn run_one(test: &Test, target: &str, options: &Options, tag: String) -> Verdict {
    let case = Case::new(test.version, target, options, tag, TEST_DURATION_MAX);
    // A broker that does not serve an ordinary client at all would pass every test that it must refuse something.
    let outcome = case.connect("first").and_then(|mut peer| peer.fence()).and_then(|()| {
        // A test that panics is a mistake of the suite; it must not hide the verdicts on the others.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (test.run)(&case)))
            .unwrap_or_else(|_| Err(Stop::Fail("the test itself panicked".into())))
    });
    case.tidy();
    match outcome {
        Ok(()) => Verdict::Pass,
        Err(Stop::Skip(why)) => Verdict::Skip(why),
        Err(Stop::Fail(why)) => Verdict::Fail(why),
    }
}

/// Names of two runs against one broker must not meet: six characters of time and process.
fn run_tag() -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    format!("p{}", base36(time ^ (u64::from(std::process::id()) << 13), 6))
}

fn base36(mut value: u64, width: usize) -> String {
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(value % 36) as usize];
        value /= 36;
    }
    digits.into_iter().map(char::from).collect()
}

#[allow(clippy::print_stderr)]
fn progress(options: &Options, done: usize, all: usize) {
    if options.progress {
        let end = if done == all { "\n" } else { "" };
        eprint!("\r{done} of {all} tests{end}");
    }
}
