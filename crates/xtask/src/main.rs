//! The commands of Pantala's workspace: `cargo xtask test` is all that continuous integration runs.
//!
//! It leaves to cargo what cargo does, and adds what spans programs: our policy on dependencies and text (`policy`), the
//! conformance suite (`conformance`) and real client libraries (`clients`), both against the broker started for the
//! purpose with one worker and with two. Nothing here is shipped.
//!
//! ```text
//! cargo xtask test                    everything; the last line has the counts
//! cargo xtask clients --check Will    the checks of real clients whose name contains "Will"
//! cargo xtask policy                  licences, banned crates, crate order, text
//! ```

// Printing is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod broker;
mod cargo;
mod clients;
mod conformance;
mod crash;
mod fuzz;
mod policy;
mod process;
mod step;
mod workspace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::clients::Client;
use crate::step::{Counts, Failure, Step};
use crate::workspace::Workspace;

/// The project's own commands: tests, policy, conformance, real clients, benchmarks.
///
/// Each step of `test` is a command of its own as well. All of them end with one line of counts, and with exit status 1
/// if anything failed. They need nothing but cargo; `clients` installs what it lacks (see clients/README.md).
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All steps in this order: fmt, clippy, doc, policy, unit, conformance, clients, crash. What CI runs.
    Test {
        /// Go on after a step that failed; otherwise the first one ends the run.
        #[arg(long)]
        keep_going: bool,
    },
    /// Formatting, by `cargo fmt --check`.
    Fmt,
    /// Lints, warnings denied.
    Clippy,
    /// Documentation of all items, private ones too, warnings denied.
    Doc,
    /// Licences, banned crates, which crate may know which, and what text files must not say.
    Policy,
    /// All Rust tests of the workspace, the fuzz corpora among them, and whether each seeded bug of the broker is found.
    Unit,
    /// The conformance suite against the broker, with one worker and with two.
    Conformance(ConformanceArguments),
    /// Real clients (mosquitto-clients, paho-mqtt, aiomqtt, MQTT.js in Node and Chromium) against the broker, with one worker and with two.
    Clients(ClientsArguments),
    /// Real broker processes, killed and cut off from power twenty times, and what came back after each.
    Crash {
        /// Repeats a run; the default is the day's number.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The fuzz targets under libFuzzer, one after the other. No step of `test`. Needs a C++ compiler.
    Fuzz {
        /// Some of the targets; all if none is named. They are in fuzz/README.md.
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// How long each runs.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Builds for release and takes the figures: CPU and instructions per message, memory per connection.
    Bench {
        /// Handed on to `pantala-bench figures`; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
}

/// What `conformance` can be told.
#[derive(Args, Clone, Default)]
struct ConformanceArguments {
    /// A broker that runs already, in place of the two that would be started.
    #[arg(long, value_name = "ADDRESS:PORT")]
    broker: Option<SocketAddr>,
    /// Handed on to `pantala-conformance run`, such as `--only MQTT-3.3`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// What `clients` can be told.
#[derive(Args, Clone, Default)]
struct ClientsArguments {
    /// A broker that runs already, in place of the two that would be started.
    #[arg(long, value_name = "ADDRESS:PORT")]
    broker: Option<SocketAddr>,
    /// An executable to test in place of the one built from this workspace; it has to take Pantala's arguments.
    #[arg(long, value_name = "FILE", conflicts_with = "broker")]
    executable: Option<PathBuf>,
    /// This client only. May be repeated.
    #[arg(long, value_enum, value_name = "NAME")]
    client: Vec<Client>,
    /// Only checks whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    check: Option<String>,
}

fn main() -> ExitCode {
    process::end_children_on_signals();
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well; the counts are printed.
fn run(command: Command) -> Result<bool, Failure> {
    let workspace = Workspace::find()?;
    let one = |step: Step, run: &dyn Fn(&Workspace) -> Result<Counts, Failure>| {
        step::run_all(&workspace, &[(step, run)], false)
    };
    match command {
        Command::Test { keep_going } => Ok(step::run_all(
            &workspace,
            &[
                (Step::Fmt, &cargo::fmt),
                (Step::Clippy, &cargo::clippy),
                (Step::Doc, &cargo::doc),
                (Step::Policy, &policy::run),
                (Step::Unit, &cargo::unit),
                (Step::Conformance, &|workspace| conformance::run(workspace, &ConformanceArguments::default())),
                (Step::Clients, &|workspace| clients::run(workspace, &ClientsArguments::default())),
                (Step::Crash, &|workspace| crash::run(workspace, None)),
            ],
            keep_going,
        )),
        Command::Fmt => Ok(one(Step::Fmt, &cargo::fmt)),
        Command::Clippy => Ok(one(Step::Clippy, &cargo::clippy)),
        Command::Doc => Ok(one(Step::Doc, &cargo::doc)),
        Command::Policy => Ok(one(Step::Policy, &policy::run)),
        Command::Unit => Ok(one(Step::Unit, &cargo::unit)),
        Command::Conformance(arguments) => {
            Ok(one(Step::Conformance, &|workspace| conformance::run(workspace, &arguments)))
        }
        Command::Clients(arguments) => Ok(one(Step::Clients, &|workspace| clients::run(workspace, &arguments))),
        Command::Crash { seed } => Ok(one(Step::Crash, &|workspace| crash::run(workspace, seed))),
        Command::Fuzz { targets, seconds } => Ok(one(Step::Fuzz, &|workspace| fuzz::run(workspace, &targets, seconds))),
        Command::Bench { arguments } => cargo::bench(&workspace, &arguments),
    }
}
