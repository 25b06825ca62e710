//! The Pantala MQTT suite in one binary.

mod connection;
mod probe;
mod recording;
mod store;

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use pantala_server::Durability;
use pantala_server::config::{Config, Overrides};

/// What Mosquitto ends with when its arguments or its configuration are wrong.
const EXIT_CONFIGURATION: u8 = 3;

#[derive(Debug, Parser)]
#[command(name = "pantala", version, about = "An MQTT broker whose acknowledgement can be trusted", long_about = None)]
struct Pantala {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    ///
    /// Without arguments it listens on 127.0.0.1 and ::1, port 1883, for anybody on this machine. It ends cleanly on
    /// SIGTERM and SIGINT, at once on a second one; SIGUSR1 writes its counters into the log.
    Broker(Broker),
    /// Look after the data directory of a broker that is stopped.
    ///
    /// Status: 0 sound, 1 damaged (or the work could not be finished), 3 the store cannot be opened.
    #[command(subcommand)]
    Store(store::Store),
    /// Find out what a broker supports, and how it behaves.
    ///
    /// It connects some ten times, and publishes a few messages below pantala/probe/, which nobody else should have subscribed to.
    /// Nothing is left behind. Status: 0, or 1 if the broker does not let us in.
    Probe(probe::Probe),
    /// Write the messages of a broker into a file, with the times between them.
    ///
    /// One line of JSON for each message. Ends at SIGINT and SIGTERM. Status: 0, or 1 if the broker or the file cannot be used.
    Record(recording::Record),
    /// Publish the messages of a recording, as fast as they came or faster.
    ///
    /// Status: 0 if all were acknowledged, else 1.
    Replay(recording::Replay),
}

#[derive(Debug, Args)]
struct Broker {
    /// Configuration: a name that ends in .toml is Pantala's own format, any other a mosquitto.conf.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Port to listen on. May be given several times.
    #[arg(short, long, value_name = "PORT")]
    port: Vec<u16>,
    /// Log everything.
    #[arg(short, long)]
    verbose: bool,
    /// Worker threads, 1 to 64. Default: one for each core.
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Where data is kept. Default: $PANTALA_DATA_DIR, else $XDG_STATE_HOME/pantala, else ~/.local/state/pantala.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What an acknowledgement vouches for: fsync (it survives a power cut), os (the end of the process), memory (neither).
    /// Default: fsync; with a mosquitto.conf memory, unless it says `persistence true`.
    #[arg(long, value_name = "LEVEL")]
    durability: Option<DurabilityLevel>,
}

/// The levels of durability, by their names.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DurabilityLevel {
    Fsync,
    Os,
    Memory,
}

impl From<DurabilityLevel> for Durability {
    fn from(level: DurabilityLevel) -> Self {
        match level {
            DurabilityLevel::Fsync => Self::Fsync,
            DurabilityLevel::Os => Self::Os,
            DurabilityLevel::Memory => Self::Memory,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Pantala::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let help = !error.use_stderr();
            // Nothing can be said about a terminal that is gone.
            drop(error.print());
            return if help { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIGURATION) };
        }
    };
    match arguments.command {
        Command::Broker(broker) => run_broker(broker),
        Command::Store(store) => store::run(&store),
        Command::Probe(probe) => probe::run(&probe),
        Command::Record(record) => recording::record(&record),
        Command::Replay(replay) => recording::replay(&replay),
    }
}

fn run_broker(broker: Broker) -> ExitCode {
    let overrides = Overrides {
        ports: broker.port,
        verbose: broker.verbose,
        workers: broker.workers,
        data_dir: broker.data_dir,
        durability: broker.durability.map(Durability::from),
    };
    let config = match Config::load(broker.config.as_deref(), &overrides) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match pantala_server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// For when there is no log yet, or none any more.
fn complain(error: &dyn std::error::Error) {
    // Nothing can be said about a terminal that is gone.
    drop(writeln!(std::io::stderr(), "pantala: {error}"));
}
