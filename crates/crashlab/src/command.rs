//! The command line.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::broker::{Kind, Program, find_executable};
use crate::checker::Rules;
use crate::fault::{self, FaultKind};
use crate::laboratory::{self, Options, drain_bound};
use crate::report::Report;

/// What the program ends with when it could not do its work.
const EXIT_UNABLE: u8 = 2;

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
    /// order, T1–T4 Retained Messages, W1 and W2 Wills, S1–S5 Sessions, H1 and H3 Shared Subscriptions, E1 expiry, L1
    /// liveness. Up to eight cycles share a data directory.
    ///
    /// Exit status: 0 when every promise held (or with --tolerate), 1 when one was broken, 2 when the laboratory could not
    /// do its work. Faults that cannot be made here (no root, no loop devices, no strace, no libfaketime) are listed as
    /// skipped; if none is left, the status is 2.
    Run(Run),
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
        default_value = "kill,power,pause,term,enospc,eio"
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
    let Subcommands::Run(run) = arguments.command;
    match carry_out(&run) {
        Ok(report) if report.violations > 0 && !run.tolerate => ExitCode::FAILURE,
        Ok(report) if report.interrupted => ExitCode::from(EXIT_UNABLE),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pantala-crashlab: {error}");
            ExitCode::from(EXIT_UNABLE)
        }
    }
}

fn carry_out(run: &Run) -> Result<Report, Box<dyn std::error::Error>> {
    // The second signal ends the program at once.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    fs::create_dir_all(&run.data_root)?;
    let data_root = fs::canonicalize(&run.data_root)?;
    let path = find_executable(&run.broker);
    let mut faults = Vec::new();
    let mut skipped = Vec::new();
    for kind in &run.faults {
        match fault::try_out(*kind, &path, &data_root) {
            Ok(()) => faults.push(*kind),
            Err(why) => {
                eprintln!("{kind} is skipped: {why}");
                skipped.push((*kind, why));
            }
        }
    }
    if faults.is_empty() {
        return Err("none of the faults can be made here".into());
    }
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = run.seed.unwrap_or_else(|| clock().map_or(1, |now| now.as_secs() % 1_000_000));
    let options = Options {
        program: Program { kind: run.kind, path: path.clone(), arguments: run.broker_argument.clone() },
        cycles: run.cycles,
        first_cycle: run.first_cycle,
        seed,
        faults: faults.clone(),
        data_root,
        drain: run.drain.map_or_else(|| drain_bound(run.kind), Duration::from_secs),
        rules: Rules { wills_survive: run.wills_survive },
        tolerate: run.tolerate,
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
