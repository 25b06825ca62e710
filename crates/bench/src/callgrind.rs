//! User instructions per message, counted by valgrind's callgrind.
//!
//! Two runs that differ only in the number of messages are subtracted, so start, connects and end cancel out. The count
//! is the same on any machine and under any load, to a fraction of a per cent.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::broker::Program;
use crate::fault::Fault;
use crate::features::{Features, Setup};
use crate::load::{Load, Plan, Until};
use crate::pinning::Pinning;

/// A broker under valgrind is about fifty times slower.
const STALL_AFTER: Duration = Duration::from_secs(60);

/// Why there is no count.
#[derive(Debug)]
pub enum Error {
    /// The broker or valgrind could not be run.
    Io(io::Error),
    /// The load failed.
    Fault(Fault),
    /// callgrind left no total.
    NoTotal,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
            Self::NoTotal => write!(f, "callgrind left no total"),
        }
    }
}

impl std::error::Error for Error {}

/// True when `valgrind` can be started.
pub fn is_available() -> bool {
    let status = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Instructions per message of `plan`, perhaps with something beside it, from a run of `messages` and one of twice as many per publisher.
pub fn instructions_per_message(
    program: &Program,
    plan: &Plan,
    beside: Option<(Features, Setup)>,
    messages: u64,
    pinning: &Pinning,
    scratch: &Path,
) -> Result<f64, Error> {
    let (short, short_delivered) = total(program, plan, beside, messages, pinning, scratch)?;
    let (long, long_delivered) = total(program, plan, beside, 2 * messages, pinning, scratch)?;
    Ok((long as f64 - short as f64) / (long_delivered - short_delivered) as f64)
}

fn total(
    program: &Program,
    plan: &Plan,
    beside: Option<(Features, Setup)>,
    messages: u64,
    pinning: &Pinning,
    scratch: &Path,
) -> Result<(u64, u64), Error> {
    let file = scratch.join(format!("callgrind-{}-{messages}.out", program.name()));
    let (broker, features) = match beside {
        Some((features, setup)) => {
            (program.start_as(pinning, scratch, &wrapper(&file), features.transport, setup)?, features)
        }
        None => (program.start(pinning, scratch, &wrapper(&file))?, Features::default()),
    };
    let mut load = Load::connect_with(broker.address, plan, features, STALL_AFTER)?;
    let run = load.run(Until::MessagesPerPublisher(messages))?;
    drop(load);
    broker.stop()?;
    Ok((instructions(&file)?, run.delivered))
}

/// What to put before a command line so that its instructions are counted into `file`.
pub fn wrapper(file: &Path) -> [String; 5] {
    [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--cache-sim=no".to_owned(),
        "--branch-sim=no".to_owned(),
        format!("--callgrind-out-file={}", file.display()),
    ]
}

/// The instructions that were counted into `file`.
pub fn instructions(file: &Path) -> Result<u64, Error> {
    parse_total(&fs::read_to_string(file)?).ok_or(Error::NoTotal)
}

/// The `totals:` line, or `summary:` where there is none.
fn parse_total(text: &str) -> Option<u64> {
    let field = |name| text.lines().rev().find_map(|line: &str| line.strip_prefix(name));
    field("totals:").or_else(|| field("summary:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_last_totals_line_or_else_the_summary() {
        assert_eq!(parse_total("version: 1\nsummary: 12\n\nfn=(1)\n1 12\n\ntotals: 34\n"), Some(34));
        assert_eq!(parse_total("version: 1\nsummary: 12\n"), Some(12));
        assert_eq!(parse_total("version: 1\n"), None);
    }
}
