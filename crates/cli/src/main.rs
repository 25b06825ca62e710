//! The Pantala MQTT suite in one binary.

mod configuration;
mod connection;
mod daemon;
mod dynsec;
mod manual;
mod probe;
mod recording;
mod store;

use std::ffi::OsString;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, FromArgMatches as _, Parser, Subcommand};
use pantala_cli::clients::flags::{Program, Surroundings};
use pantala_cli::clients::passwd::{Passwd, PasswdProgram};
use pantala_cli::clients::{Called, EXIT_FAILURE, passwd, prepare, program_of_link, run};
use pantala_server::Durability;
use pantala_server::config::{Config, Environment, Overrides, Source};

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
    /// SIGTERM and SIGINT, at once on a second one; SIGUSR1 writes its counters into the log, SIGUSR2 some of its
    /// subscriptions, and SIGRTMIN opens the log file anew.
    Broker(Broker),
    /// What can be configured, and mosquitto.conf files in our own format.
    #[command(subcommand)]
    Config(configuration::Configuration),
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
    Passwd(Passwd),
    /// Make the first file of dynamic security.
    #[command(subcommand)]
    Dynsec(dynsec::Dynsec),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page of a program, in roff: `pantala man sub | man -l -`.
    Man {
        /// A program as it follows `pantala`; without it the page of all.
        #[arg(value_name = "PROGRAM")]
        program: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Broker {
    /// Configuration: a name that ends in .toml is Pantala's own format, any other a mosquitto.conf.
    #[arg(short, long, value_name = "FILE", alias = "config-file")]
    config: Option<PathBuf>,
    /// Port to listen on. May be given several times.
    #[arg(short, long, value_name = "PORT")]
    port: Vec<u16>,
    /// Log everything.
    #[arg(short, long)]
    verbose: bool,
    /// Log nothing.
    #[arg(short, long)]
    quiet: bool,
    /// Go on in the background once it listens. The log goes to the system's, unless the configuration says otherwise.
    #[arg(short, long)]
    daemon: bool,
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
    /// Write the secrets of all TLS connections to this file, for tools that read what was recorded on the wire (the format of
    /// SSLKEYLOGFILE). Who has the file can read everything; it is for its owner only, and the log warns of it.
    #[arg(long, value_name = "FILE")]
    tls_keylog: Option<PathBuf>,
    /// Say what the file, the variables and the flags come to, and what would not work, without serving anybody.
    ///
    /// Status: 0 if the broker could start, 3 if not.
    #[arg(long, alias = "test-config")]
    check: bool,
    /// With --check: say what a reload would change in the broker that runs, by its data directory or process.
    #[arg(long, value_name = "PID|DIR", requires = "check")]
    diff: Option<String>,
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
    let mut arguments = std::env::args_os();
    let started_as = arguments.next().unwrap_or_default();
    let mut arguments: Vec<OsString> = arguments.collect();
    // The flags of the clients are Mosquitto's, so they are not for clap.
    if Path::new(&started_as).file_name() == Some("mosquitto".as_ref()) {
        return run_mosquitto(&arguments);
    }
    match program_of_link(&started_as) {
        Some(Called::Client(program)) => return run_client(program, &file_name(&started_as), arguments),
        Some(Called::Passwd) => return run_passwd(&file_name(&started_as), &arguments),
        None => {}
    }
    if let [help, name] = &arguments[..]
        && help == "help"
        && name.to_str().and_then(Called::of_name).is_some()
    {
        arguments = vec![name.clone(), "--help".into()];
    }
    match arguments.first().and_then(|name| Called::of_name(name.to_str()?)) {
        Some(Called::Client(program)) => {
            arguments.remove(0);
            return run_client(program, &format!("pantala {}", program.name()), arguments);
        }
        Some(Called::Passwd) => {
            arguments.remove(0);
            return run_passwd("pantala passwd", &arguments);
        }
        None => {}
    }
    let parsed = manual::all_commands()
        .try_get_matches_from(std::iter::once(started_as).chain(arguments))
        .and_then(|matches| Pantala::from_arg_matches(&matches));
    let arguments = match parsed {
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
        Command::Config(configuration) => configuration::run(configuration),
        Command::Store(store) => store::run(&store),
        Command::Probe(probe) => probe::run(&probe),
        Command::Record(record) => recording::record(&record),
        Command::Replay(replay) => recording::replay(&replay),
        // Never here: see `run_passwd`. It is among the commands for what describes them.
        Command::Passwd(arguments) => ExitCode::from(passwd::run(&arguments)),
        Command::Dynsec(arguments) => dynsec::run(&arguments),
        Command::Completions { shell } => print(&manual::completions(shell)),
        Command::Man { program } => match manual::man(program.as_deref()) {
            Some(page) => print(&page),
            None => {
                // Nothing can be said about a terminal that is gone.
                drop(writeln!(std::io::stderr(), "Error: there is no such program; `pantala --help` names them."));
                ExitCode::FAILURE
            }
        },
    }
}

/// The broker under Mosquitto's name, with Mosquitto's options and status.
#[derive(Debug, Parser)]
#[command(name = "mosquitto", version, about = "The MQTT broker Pantala, in the place of mosquitto", long_about = None)]
struct Mosquitto {
    #[command(flatten)]
    broker: Broker,
}

fn run_mosquitto(arguments: &[OsString]) -> ExitCode {
    let called_as = std::iter::once(OsString::from("mosquitto"));
    match Mosquitto::try_parse_from(called_as.chain(arguments.iter().cloned())) {
        Ok(program) => run_broker(program.broker),
        Err(error) => {
            // Nothing can be said about a terminal that is gone.
            drop(error.print());
            // It ends so after its help, too; scripts look for that.
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

/// What Mosquitto's programs call themselves: the name without its folder.
fn file_name(path: &OsString) -> String {
    Path::new(path).file_name().unwrap_or(path).to_string_lossy().into_owned()
}

fn run_client(program: Program, called: &str, arguments: Vec<OsString>) -> ExitCode {
    match prepare(program, called, arguments, &Surroundings::of_process()) {
        Ok(prepared) => run::run(prepared),
        Err(error) => {
            // Nothing can be said about a terminal that is gone.
            drop(writeln!(std::io::stderr(), "Error: {error}\nUse '{called} --help' to see usage."));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// Parsed apart from the other commands, whose status is 3 when their arguments are wrong: mosquitto_passwd's is 1.
fn run_passwd(called: &str, arguments: &[OsString]) -> ExitCode {
    let called_as = std::iter::once(OsString::from(called));
    match PasswdProgram::try_parse_from(called_as.chain(arguments.iter().cloned())) {
        Ok(program) => ExitCode::from(passwd::run(&program.passwd)),
        Err(error) if error.use_stderr() => {
            // Its first paragraph says what is wrong, the rest is what --help has.
            let text = error.to_string();
            let wrong: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            let wrong = wrong.join(" ");
            let wrong = wrong.strip_prefix("error: ").unwrap_or(&wrong);
            // Nothing can be said about a terminal that is gone.
            drop(writeln!(std::io::stderr(), "Error: {wrong}\nUse '{called} --help' to see usage."));
            ExitCode::from(EXIT_FAILURE)
        }
        Err(help) => print(help.to_string().as_bytes()),
    }
}

fn print(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads it has seen enough.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run_broker(broker: Broker) -> ExitCode {
    let detached = broker.daemon && daemon::is_detached();
    if broker.daemon && !detached {
        return daemon::start();
    }
    let overrides = Overrides {
        ports: broker.port,
        verbose: broker.verbose,
        workers: broker.workers,
        data_dir: broker.data_dir,
        durability: broker.durability.map(Durability::from),
        quiet: broker.quiet,
        tls_key_log_file: broker.tls_keylog,
        detached,
    };
    let source = Source { path: broker.config, overrides, environment: Environment::of_process() };
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    if broker.check {
        return check(&config, broker.diff.as_deref());
    }
    let ready = || {
        if detached {
            daemon::tell_ready();
        }
    };
    match pantala_server::run_then(config, source, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            if error.is_configuration() { ExitCode::from(EXIT_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}

/// Says what a configuration comes to, and what it would change.
fn check(config: &Config, diff: Option<&str>) -> ExitCode {
    let checked = pantala_server::check(config);
    let mut text: String = checked.lines.iter().map(|line| format!("{line}\n")).collect();
    let mut sound = checked.problems.is_empty();
    if sound {
        text += "The broker can start with this.\n";
    }
    let running = diff.map(|target| pantala_server::running(target, config));
    if let Some(Ok(running)) = &running {
        let changes = running.effective.changes(&config.effective());
        text += &match changes.len() {
            0 => format!("A reload would change nothing in process {}.\n", running.pid),
            _ => format!("A reload would change in process {}:\n", running.pid),
        };
        text.extend(changes.iter().map(|change| format!("  {change}\n")));
    }
    // Nothing can be said about a terminal that is gone.
    let _ = print(text.as_bytes());
    for problem in checked.problems {
        complain(&*Box::<dyn std::error::Error>::from(problem));
    }
    if let Some(Err(error)) = &running {
        complain(error);
        sound = false;
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIGURATION) }
}

/// For when there is no log yet, or none any more.
fn complain(error: &dyn std::error::Error) {
    // Nothing can be said about a terminal that is gone.
    drop(writeln!(std::io::stderr(), "pantala: {error}"));
}
