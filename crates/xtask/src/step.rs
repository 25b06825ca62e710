//! A run of steps: headings, durations, counts, and the closing line that CI reads.

use std::fmt;
use std::io;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use crate::workspace::Workspace;

/// The parts of a test run, in the order in which they are cheapest to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Formatting.
    Fmt,
    /// Lints.
    Clippy,
    /// Documentation.
    Doc,
    /// Our own rules.
    Policy,
    /// Rust tests.
    Unit,
    /// The conformance suite.
    Conformance,
    /// Real clients.
    Clients,
    /// The crash laboratory.
    Crash,
    /// Fuzzing, which is in no test run.
    Fuzz,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Step::Fmt => "fmt",
            Step::Clippy => "clippy",
            Step::Doc => "doc",
            Step::Policy => "policy",
            Step::Unit => "unit",
            Step::Conformance => "conformance",
            Step::Clients => "clients",
            Step::Crash => "crash",
            Step::Fuzz => "fuzz",
        })
    }
}

/// How many checks came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Checks that hold.
    pub passed: u64,
    /// Checks that do not.
    pub failed: u64,
    /// Checks that could not be made here; the reason was printed.
    pub skipped: u64,
}

impl Counts {
    /// One check, which holds or not.
    pub fn of(holds: bool) -> Counts {
        Counts { passed: holds.into(), failed: (!holds).into(), skipped: 0 }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Why a step could not be carried out, for the person at the terminal: what was tried, and what to do if that is known.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    /// An operating system error with what was tried.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Failure {
        Failure(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What carries out a step.
pub type Run<'a> = &'a dyn Fn(&Workspace) -> Result<Counts, Failure>;

/// Runs the steps, prints a table if there are several, and last the sum of all counts alone on its line.
///
/// The first step with a failure ends the run unless `keep_going`. True if nothing failed.
pub fn run_all(workspace: &Workspace, steps: &[(Step, Run<'_>)], keep_going: bool) -> bool {
    let mut sum = Counts::default();
    let mut table: Vec<(Step, Counts, Duration)> = Vec::new();
    let mut stopped = false;
    for (step, run) in steps {
        println!("\n== {step}");
        let began = Instant::now();
        let counts = run(workspace).unwrap_or_else(|failure| {
            println!("error: {failure}");
            Counts { failed: 1, ..Counts::default() }
        });
        let took = began.elapsed();
        println!("== {step}: {} in {:.1} s", if counts.failed == 0 { "ok" } else { "FAILED" }, took.as_secs_f64());
        sum += counts;
        table.push((*step, counts, took));
        if counts.failed > 0 && !keep_going {
            stopped = true;
            break;
        }
    }
    if steps.len() > 1 {
        println!("\n{:<12} {:>8} {:>8} {:>8} {:>9}", "step", "passed", "failed", "skipped", "seconds");
        for (step, counts, took) in &table {
            let Counts { passed, failed, skipped } = counts;
            println!("{step:<12} {passed:>8} {failed:>8} {skipped:>8} {:>9.1}", took.as_secs_f64());
        }
        for (step, _) in &steps[table.len()..] {
            println!("{step:<12} not run");
        }
        if stopped {
            println!("Stopped at the first step that failed; `cargo xtask test --keep-going` runs them all.");
        }
    }
    println!("{sum}");
    sum.failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_has_the_form_that_ci_reads() {
        let mut sum = Counts { passed: 10, failed: 0, skipped: 2 };
        sum += Counts::of(true);
        sum += Counts::of(false);
        assert_eq!(sum.to_string(), "11 passed, 1 failed, 2 skipped");
    }
}
