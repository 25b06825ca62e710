//! The command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use pantala_mutants::Mutant;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::broker::{Kind, Program, find_executable};
use crate::checker::{Promise, Rules};
use crate::expectation::promises_of;
use crate::fault::{self, FaultKind};
use crate::laboratory::{self, Options, Until, drain_bound};
use crate::report::Report;

/// What the program ends with when it could not do its work.
const EXIT_UNABLE: u8 = 2;

/// How long a silence is waited for with a seeded bug. What is missing is known to be lost, so no longer than needed.
const MUTANT_DRAIN: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(name = "pantala-crashlab", version, about = "Crashes a broker again and again, and checks what it promised")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Run cycles of workload, fault, restart and check; print a table.
    ///
    /// Each cycle loads a real broker on loopback, inflicts one fault that the seed chooses, starts the broker again, lets
    /// all clients finish, and compares what they saw with the promises: R1–R3 integrity, Q1 and Q2 delivery, O1 and O2
    /// order, T1–T4 Retained Messages, W1 and W2 Wills, S1–S5 Sessions, H1 and H3 Shared Subscriptions, E1 expiry, E2
    /// counting (pantala's counters of what was dropped), L1 liveness. Up to eight cycles share a data directory.
    ///
    /// Exit status: 0 when every promise held (or with --tolerate), 1 when one was broken, 2 when the laboratory could not
    /// do its work. Faults that cannot be made here (no root, no loop devices, no strace, no libfaketime) are listed as
    /// skipped; if none is left, the status is 2.
    Run(Run),
    /// Run a broker with seeded bugs, one after the other, and see whether each is caught; print a table.
    ///
    /// The broker is one built with `cargo build --release --features mutants`. The first row is without a bug, and
    /// nothing may be found there. Exit status: 0 when each bug was caught and nothing else was, 1 when not, 2 when the
    /// laboratory could not do its work.
    Mutants(Mutants),
}

#[derive(Args)]
struct Mutants {
    /// The broker with seeded bugs.
    #[arg(long, value_name = "PATH_OR_NAME")]
    broker: PathBuf,
    /// Bugs to try, separated by commas; all by default.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = mutant)]
    only: Vec<Mutant>,
    /// Where all chance comes from.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Seconds for each at most; the cycle that has begun by then is finished.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
    /// Folder for data directories.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir().join("pantala-crashlab"))]
    data_root: PathBuf,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let names = || Mutant::ALL.iter().map(|mutant| mutant.name()).collect::<Vec<_>>().join(", ");
    Mutant::named(name).ok_or_else(|| format!("there are {}", names()))
}

#[derive(Args)]
struct Run {
    /// The broker under test: a path, or a name to be looked up in $PATH.
    #[arg(long, value_name = "PATH_OR_NAME", default_value = "target/release/pantala")]
    broker: PathBuf,
    /// Which program it is, and so how it is started.
    #[arg(long, value_enum, default_value = "pantala")]
    kind: Kind,
    /// A further argument for the broker. May be given several times.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    broker_argument: Vec<String>,
    /// Number of cycles; one takes two or three seconds.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    cycles: u32,
    /// Number of the first cycle, to repeat what a report has shown.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    first_cycle: u32,
    /// Where all chance comes from: the same seed gives the same plan, timing aside. Default: the time of day.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Kinds of faults, separated by commas.
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        value_delimiter = ',',
        default_value = "kill,power,pause,term,enospc,eio,clock"
    )]
    faults: Vec<FaultKind>,
    /// Folder for data directories; what a violation leaves is kept there.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir().join("pantala-crashlab"))]
    data_root: PathBuf,
    /// Write the result to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds of silence after which what is owed is taken for lost; 10 for pantala, as promised, 2 for mosquitto.
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// Wills of clients that stay away must be published after a restart, rather than at most once.
    #[arg(long)]
    wills_survive: bool,
    /// Broken promises are no failure: for a broker that promises less.
    #[arg(long)]
    tolerate: bool,
}

/// Runs the program with `arguments`, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let run = match arguments.command {
        Subcommands::Run(run) => run,
        Subcommands::Mutants(mutants) => {
            return match try_mutants(&mutants) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => unable(&*error),
            };
        }
    };
    match carry_out(&run) {
        Ok(report) if report.violations > 0 && !run.tolerate => ExitCode::FAILURE,
        Ok(report) if report.interrupted => ExitCode::from(EXIT_UNABLE),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => unable(&*error),
    }
}

fn unable(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("pantala-crashlab: {error}");
    ExitCode::from(EXIT_UNABLE)
}

/// Set by the signals that ask for an end. The second one ends the program at once.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The kinds that can be made here, and why the others cannot.
fn sort_out(kinds: &[FaultKind], path: &Path, data_root: &Path) -> (Vec<FaultKind>, Vec<(FaultKind, String)>) {
    let (mut faults, mut skipped) = (Vec::new(), Vec::new());
    for kind in kinds {
        match fault::try_out(*kind, path, data_root) {
            Ok(()) => faults.push(*kind),
            Err(why) => {
                eprintln!("{kind} is skipped: {why}");
                skipped.push((*kind, why));
            }
        }
    }
    (faults, skipped)
}

/// True if each bug was caught, and nothing without one.
fn try_mutants(mutants: &Mutants) -> Result<bool, Box<dyn std::error::Error>> {
    let stop = stop_flag()?;
    fs::create_dir_all(&mutants.data_root)?;
    let data_root = fs::canonicalize(&mutants.data_root)?;
    let path = find_executable(&mutants.broker);
    let (faults, _) = sort_out(&[FaultKind::Kill, FaultKind::Power], &path, &data_root);
    let chosen = if mutants.only.is_empty() { Mutant::ALL } else { &mutants.only };
    let mut all_is_well = true;
    println!("{:<26} {:>6} {:>7}  broken", "mutant", "cycles", "seconds");
    for mutant in std::iter::once(None).chain(chosen.iter().copied().map(Some)) {
        let needs_power = mutant == Some(Mutant::SyncSkipped);
        // Only a power cut tells what was synced from what was written, and most of what was acknowledged too early.
        let by_power = needs_power || (mutant == Some(Mutant::AckBeforeCommit) && faults.contains(&FaultKind::Power));
        let broken = mutant.map_or(&[][..], promises_of);
        let options = Options {
            program: Program { kind: Kind::Pantala, path: path.clone(), arguments: Vec::new(), mutant },
            cycles: u32::MAX,
            first_cycle: 0,
            seed: mutants.seed,
            faults: if by_power { vec![FaultKind::Power] } else { faults.clone() },
            data_root: data_root.clone(),
            drain: MUTANT_DRAIN,
            rules: Rules::default(),
            until: Some(Until { broken, elapsed: Duration::from_secs(mutants.seconds) }),
        };
        let name = mutant.map_or("none", Mutant::name);
        if needs_power && !faults.contains(&FaultKind::Power) {
            println!("{name:<26} {:>6} {:>7}  skipped: power cuts cannot be made here", "–", "–");
            continue;
        }
        let began = Instant::now();
        let report = laboratory::run(&options, &stop)?;
        if report.interrupted {
            return Err("interrupted".into());
        }
        let mut found: BTreeMap<Promise, usize> = BTreeMap::new();
        for (promise, count) in report.rows.values().flat_map(|row| &row.promises) {
            *found.entry(*promise).or_default() += count;
        }
        let as_expected = match mutant {
            Some(_) => broken.iter().any(|promise| found.contains_key(promise)),
            None => found.is_empty(),
        };
        all_is_well &= as_expected;
        let found: Vec<String> = found.iter().map(|(promise, count)| format!("{promise} ({count})")).collect();
        println!(
            "{name:<26} {:>6} {:>7.1}  {}{}",
            report.cycles(),
            began.elapsed().as_secs_f64(),
            if found.is_empty() { "–".into() } else { found.join(", ") },
            if as_expected { "" } else { "  NOT AS EXPECTED" }
        );
        if !as_expected {
            print!("{}", report.text(mutants.seed));
        }
    }
    Ok(all_is_well)
}

fn carry_out(run: &Run) -> Result<Report, Box<dyn std::error::Error>> {
    let stop = stop_flag()?;
    fs::create_dir_all(&run.data_root)?;
    let data_root = fs::canonicalize(&run.data_root)?;
    let path = find_executable(&run.broker);
    let (faults, skipped) = sort_out(&run.faults, &path, &data_root);
    if faults.is_empty() {
        return Err("none of the faults can be made here".into());
    }
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = run.seed.unwrap_or_else(|| clock().map_or(1, |now| now.as_secs() % 1_000_000));
    let options = Options {
        program: Program { kind: run.kind, path: path.clone(), arguments: run.broker_argument.clone(), mutant: None },
        cycles: run.cycles,
        first_cycle: run.first_cycle,
        seed,
        faults: faults.clone(),
        data_root,
        drain: run.drain.map_or_else(|| drain_bound(run.kind), Duration::from_secs),
        rules: Rules { wills_survive: run.wills_survive },
        until: None,
    };
    let began = Instant::now();
    let mut report = laboratory::run(&options, &stop)?;
    report.skipped = skipped;
    println!("{} cycles with {}, seed {seed}, {:.0} s", report.cycles(), path.display(), began.elapsed().as_secs_f64());
    print!("{}", report.text(seed));
    if let Some(file) = &run.json {
        let about = json!({
            "broker": path, "kind": run.kind, "seed": seed, "cycles": run.cycles, "first_cycle": run.first_cycle,
            "faults": faults, "seconds": began.elapsed().as_secs_f64(),
        });
        fs::write(file, serde_json::to_string_pretty(&report.json(about))? + "\n")?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
