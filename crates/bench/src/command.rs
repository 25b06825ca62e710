//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::clients::under_test::{self, Library, Scenario, Task};
use crate::clients::{self, ClientFigure, sink};
use crate::durable::{self, DURABLE_FIGURES, DurableFigure};
use crate::figures::{self, Options, STALL_AFTER};
use crate::load::{Load, Until};
use crate::scenario::{FIGURES, Figure};
use crate::usage;

#[derive(Parser)]
#[command(name = "pantala-bench", version, about = "Load generator and benchmark figures for MQTT brokers")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Start the brokers, take all figures, print a table and one JSON line per result.
    ///
    /// The exit code is 0 whatever the times, and 1 when a message was lost, doubled or reordered.
    Figures {
        /// Pantala's executable.
        #[arg(long, value_name = "PATH", default_value = "target/release/pantala")]
        broker: PathBuf,
        /// Mosquitto's executable, measured beside it.
        #[arg(long, value_name = "PATH", default_value = "/usr/sbin/mosquitto")]
        mosquitto: PathBuf,
        /// Three short repetitions instead of seven: a first impression in some two minutes.
        #[arg(long)]
        quick: bool,
        /// Repetitions of each figure; 7, or 3 with --quick.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        repetitions: Option<u32>,
        /// Length of one repetition under load in seconds; 3, or 1 with --quick.
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
        seconds: Option<Duration>,
        /// Only these figures, by id, separated by commas.
        #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = parse_figure)]
        only: Vec<&'static Figure>,
        /// Write the JSON lines to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Take the figures of what is kept: durable acknowledgements, backlogs, restarts.
    ///
    /// The exit code is 0 whatever the times, and 1 when a message that was acknowledged did not come, once and in order.
    Durable {
        /// Pantala's executable.
        #[arg(long, value_name = "PATH", default_value = "target/release/pantala")]
        broker: PathBuf,
        /// Only these figures, by id, separated by commas.
        #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = parse_durable_figure)]
        only: Vec<&'static DurableFigure>,
        /// Where the broker keeps its data meanwhile: on the disk to be measured.
        #[arg(long, value_name = "DIR", default_value = "target/bench-data")]
        data: PathBuf,
        /// Worker threads of the broker.
        #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
        workers: u32,
        /// Repetitions of each figure.
        #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
        repetitions: u32,
        /// Length of one repetition of D1, D2, D3, D7 and D8 in seconds; 3, but 60 of D7. D8 takes five times that.
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
        seconds: Option<Duration>,
        /// Messages per second of D7: well below what the broker can do there.
        #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: u32,
        /// Part of the messages, Sessions and Retained Messages of D4, D5 and D6, above 0.
        #[arg(long, value_name = "PART", value_parser = parse_scale, default_value = "1")]
        scale: f64,
        /// Longest time for one repetition in seconds, with its preparation and its checks; 540, or with --seconds 300 and four times that.
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
        within: Option<Duration>,
        /// Write the JSON lines to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Take the figures of the client library beside other client libraries, and of `pantala pub` and `sub`.
    ///
    /// The exit code is 0 whatever the times, and 1 when a message was lost, doubled or reordered.
    Clients {
        /// Pantala's executable, for L4. Beside it are mosquitto_pub and mosquitto_sub, where they are installed.
        #[arg(long, value_name = "PATH", default_value = "target/release/pantala")]
        pantala: PathBuf,
        /// Only these figures, by id, separated by commas.
        #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = parse_client_figure)]
        only: Vec<ClientFigure>,
        /// Only these libraries, separated by commas.
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        libraries: Vec<Library>,
        /// Repetitions of each figure; instructions are counted once.
        #[arg(long, value_name = "COUNT", default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
        repetitions: u32,
        /// Part of the messages and clients, above 0.
        #[arg(long, value_name = "PART", value_parser = parse_scale, default_value = "1")]
        scale: f64,
        /// Write the JSON lines to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// The other end of `clients`, which starts it.
    #[command(hide = true)]
    Sink {
        /// Messages for each subscriber.
        #[arg(long)]
        messages: u64,
    },
    /// One library with one task, which `clients` starts.
    #[command(hide = true)]
    ClientUnderTest {
        /// The library.
        #[arg(long)]
        library: Library,
        /// The task.
        #[arg(long)]
        scenario: Scenario,
        /// Address of the sink.
        #[arg(long)]
        address: SocketAddr,
        /// Messages or clients before anything is counted.
        #[arg(long)]
        warm_up: u64,
        /// Messages or clients that count.
        #[arg(long)]
        count: u64,
    },
    /// Put the load of one figure on a broker that runs already.
    Load {
        /// Id of the figure.
        #[arg(value_parser = parse_figure)]
        figure: &'static Figure,
        /// Address of the broker.
        #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
        host: IpAddr,
        /// Port of the broker.
        #[arg(short, long, default_value_t = 1883)]
        port: u16,
        /// Process identifier of the broker, to account its CPU time.
        #[arg(long)]
        pid: Option<u32>,
        /// Length in seconds, after a warm-up of a quarter of it.
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "3")]
        seconds: Duration,
    },
}

/// Runs the program with `arguments`, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let outcome = match arguments.command {
        Subcommands::Figures { broker, mosquitto, quick, repetitions, seconds, only, json } => {
            let (default_repetitions, default_seconds) = if quick { (3, 1) } else { (7, 3) };
            let options = Options {
                pantala: broker,
                mosquitto,
                only,
                repetitions: repetitions.unwrap_or(default_repetitions),
                duration: seconds.unwrap_or(Duration::from_secs(default_seconds)),
                json,
            };
            figures::run(&options).map_err(Into::into)
        }
        Subcommands::Durable { broker, only, data, workers, repetitions, seconds, rate, scale, within, json } => {
            let cleaning_duration = seconds.unwrap_or(Duration::from_secs(60));
            let within = within.unwrap_or(Duration::from_secs(300) + 4 * cleaning_duration);
            let options = durable::Options {
                pantala: broker,
                only,
                data,
                workers,
                repetitions,
                duration: seconds.unwrap_or(Duration::from_secs(3)),
                cleaning_duration,
                rate,
                scale,
                within,
                json,
            };
            durable::run(&options).map_err(Into::into)
        }
        Subcommands::Clients { pantala, only, libraries, repetitions, scale, json } => {
            let options = clients::Options { pantala, only, libraries, repetitions, scale, json };
            clients::run(&options).map_err(Into::into)
        }
        Subcommands::Sink { messages } => sink::run(messages).map(|()| true).map_err(Into::into),
        Subcommands::ClientUnderTest { library, scenario, address, warm_up, count } => {
            let task = Task { scenario, address, warm_up, count };
            under_test::print(&under_test::run(library, &task)).map(|()| true).map_err(Into::into)
        }
        Subcommands::Load { figure, host, port, pid, seconds } => {
            load(figure, SocketAddr::new(host, port), pid, seconds).map(|()| true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pantala-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load(
    figure: &Figure,
    address: SocketAddr,
    pid: Option<u32>,
    duration: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let plan = figure.plan().ok_or_else(|| format!("{} has no load of messages", figure.id))?;
    let mut load = Load::connect(address, plan, STALL_AFTER)?;
    load.run(Until::Elapsed(duration / 4))?;
    let before = pid.map(usage::cpu).transpose()?;
    let run = load.run(Until::Elapsed(duration))?;
    println!("{}: {}", figure.id, figure.title);
    println!(
        "{} delivered in {:.3} s, {:.0}/s, none lost, doubled or reordered; generator at {:.0} % of a core",
        run.delivered,
        run.elapsed.as_secs_f64(),
        run.rate(),
        run.generator_share() * 100.0
    );
    if let Some((pid, before)) = pid.zip(before) {
        let cpu = usage::cpu(pid)?.since(before).total;
        println!("broker: {:.3} {}", cpu.as_secs_f64() * 1e6 / run.delivered.max(1) as f64, figure.unit);
    }
    Ok(())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a positive number of seconds".to_owned()),
    }
}

fn parse_figure(text: &str) -> Result<&'static Figure, String> {
    Figure::find(text).ok_or_else(|| {
        let ids: Vec<&str> = FIGURES.iter().map(|figure| figure.id).collect();
        format!("one of {}", ids.join(", "))
    })
}

fn parse_scale(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|scale| *scale > 0.0 && *scale <= 100.0).ok_or_else(|| "not a part above 0".to_owned())
}

fn parse_durable_figure(text: &str) -> Result<&'static DurableFigure, String> {
    DurableFigure::find(text).ok_or_else(|| {
        let ids: Vec<&str> = DURABLE_FIGURES.iter().map(|figure| figure.id).collect();
        format!("one of {}", ids.join(", "))
    })
}

fn parse_client_figure(text: &str) -> Result<ClientFigure, String> {
    ClientFigure::find(text).ok_or_else(|| format!("one of {}", ClientFigure::ids().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "x", "1e30"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_are_found_by_id_in_any_case() {
        assert_eq!(parse_figure("r7").unwrap().id, "R7");
        assert!(parse_figure("R99").unwrap_err().contains("R7"));
        assert!(
            matches!(parse_client_figure("l4-start"), Ok(ClientFigure::Program(figure)) if figure.id == "L4-start")
        );
        assert!(matches!(parse_client_figure("l1-q0"), Ok(ClientFigure::Library(figure)) if figure.id == "L1-q0"));
        let why = parse_client_figure("L9").unwrap_err();
        assert!(why.contains("L1-q0") && why.contains("L4-start"), "{why}");
    }
}
