//! The command `pantala-conformance`: the suite against a broker, and what the suite covers.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pantala_conformance::attacks::{self, AttackOptions};
use pantala_conformance::wire::Version;
use pantala_conformance::{Options, ScramTarget, Verdict, run, statements};

/// Black-box conformance tests for MQTT brokers, by the numbered statements of MQTT 3.1.1 and 5.0.
#[derive(Parser)]
#[command(name = "pantala-conformance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Test the broker at HOST:PORT and print a table; exit status 1 if a statement failed.
    Run(Box<RunArguments>),
    /// Attack the broker at HOST:PORT by the catalogue's ids A1 to H11 and print a table; exit status 1 if a row failed.
    Attack(AttackArguments),
    /// Print for each statement the tests that cover it, or the exception; exit status 1 if one is missing.
    Coverage,
}

#[derive(Args)]
struct AttackArguments {
    /// Where the broker listens; anonymous clients must be allowed.
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// Only the attack of this id, or a whole section by its letter.
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// Process id of the broker; without it memory and descriptors are not watched.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The `pantala` executable, for attacks on a broker with a configuration of its own.
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// How many milliseconds 99.9 % of the messages between bystanders may take.
    #[arg(long, default_value_t = 250, value_name = "MILLISECONDS")]
    canary_bound: u64,
    /// Print every packet to standard error; best with --only.
    #[arg(long)]
    trace: bool,
    /// After the table, the slowest attacks.
    #[arg(long)]
    times: bool,
}

#[derive(Args)]
struct RunArguments {
    /// Where the broker listens; anonymous clients must be allowed unless --username is given.
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// Only statements whose id begins like this (with or without `MQTT-`), or tests whose name contains it.
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// Only this version: 3.1.1 or 5.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    version: Option<Version>,
    /// Tests at once.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// How many seconds an answer may take.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    patience: f64,
    /// User Name of every connection.
    #[arg(long, requires = "password")]
    username: Option<String>,
    /// Password of every connection.
    #[arg(long, requires = "username")]
    password: Option<String>,
    /// A listener with a Maximum QoS of 0 or 1, for the statements about it.
    #[arg(long, value_name = "HOST:PORT")]
    max_qos_target: Option<String>,
    /// A listener without Retained Messages, for the statements about it.
    #[arg(long, value_name = "HOST:PORT")]
    no_retain_target: Option<String>,
    /// A listener with the Authentication Method SCRAM-SHA-256, and a user of it.
    #[arg(long, value_name = "HOST:PORT,USER,PASSWORD", value_parser = parse_scram)]
    scram_target: Option<ScramTarget>,
    /// Print every packet to standard error; best with --only and --jobs 1.
    #[arg(long)]
    trace: bool,
    /// After the table, the slowest tests.
    #[arg(long)]
    times: bool,
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "3.1.1" | "311" | "4" => Ok(Version::V311),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err("3.1.1 or 5".into()),
    }
}

fn parse_scram(text: &str) -> Result<ScramTarget, String> {
    let mut parts = text.splitn(3, ',').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(address), Some(user), Some(password)) => Ok(ScramTarget { address, user, password }),
        _ => Err("HOST:PORT,USER,PASSWORD".into()),
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Coverage => {
            let coverage = statements::coverage();
            println!("{coverage}");
            if coverage.missing() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Attack(arguments) => attack(arguments),
        Command::Run(arguments) => {
            let options = Options {
                only: arguments.only,
                version: arguments.version,
                jobs: arguments.jobs,
                patience: Duration::from_secs_f64(arguments.patience.clamp(0.1, 60.0)),
                credentials: arguments.username.zip(arguments.password),
                max_qos_target: arguments.max_qos_target,
                no_retain_target: arguments.no_retain_target,
                scram_target: arguments.scram_target,
                trace: arguments.trace,
                progress: std::io::stderr().is_terminal() && !arguments.trace,
            };
            let report = run(&arguments.target, &options);
            println!("{report}");
            if arguments.times {
                let mut results = report.results.clone();
                results.sort_by_key(|(_, _, took)| std::cmp::Reverse(*took));
                for (test, verdict, took) in results.iter().take(20) {
                    let word = match verdict {
                        Verdict::Pass => "pass",
                        Verdict::Skip(_) => "skip",
                        Verdict::Fail(_) => "FAIL",
                    };
                    println!("{:>6.2} s  {word}  {} {} {:?}", took.as_secs_f64(), test.version, test.name, test.ids);
                }
            }
            if report.results.is_empty() {
                eprintln!("no test was chosen");
                return ExitCode::FAILURE;
            }
            if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn attack(arguments: AttackArguments) -> ExitCode {
    let options = AttackOptions {
        only: arguments.only,
        pid: arguments.pid,
        broker: arguments.broker,
        canary_bound: Duration::from_millis(arguments.canary_bound),
        trace: arguments.trace,
        ..AttackOptions::default()
    };
    let report = attacks::run(&arguments.target, &options);
    println!("{report}");
    if arguments.times {
        let mut rows = report.rows.clone();
        rows.sort_by_key(|(_, _, _, took)| std::cmp::Reverse(*took));
        for (id, what, _, took) in rows.iter().take(20) {
            println!("{:>6.2} s  {id:<4} {what}", took.as_secs_f64());
        }
    }
    if report.rows.is_empty() {
        eprintln!("no attack was chosen");
        return ExitCode::FAILURE;
    }
    if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
