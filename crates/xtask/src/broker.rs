//! Brokers started for a step: a free port, a wait until they answer, an orderly end.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Guarded, POLL_INTERVAL};
use crate::step::Failure;
use crate::workspace::Workspace;

/// How long a broker may take until it accepts connections. A drop-in for Mosquitto does so within two seconds; the
/// rest is for a machine busy with a build.
const READY_SECONDS_MAX: u64 = 10;

/// How long it may take to end on SIGTERM.
const END_SECONDS_MAX: u64 = 10;

/// How many lines of a broker's log a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// A broker that runs. It is killed when this is dropped; `stop` ends it in an orderly way, and is a check of its own.
pub struct Broker {
    /// What it is, for messages: `pantala, 2 workers`.
    pub title: String,
    /// Where it listens.
    pub address: SocketAddr,
    process: Guarded,
    log: PathBuf,
}

/// What a broker is started with.
pub struct Start<'a> {
    /// The executable; it takes `broker -p PORT --workers N --data-dir DIR`.
    pub executable: &'a Path,
    /// How many worker threads.
    pub workers: usize,
    /// The text of a configuration in TOML, given the port; without one the broker runs on its defaults.
    pub configuration: Option<&'a dyn Fn(u16) -> String>,
}

impl Broker {
    /// Its process identifier.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts it on a free port of the loopback interface, and waits until it accepts a connection.
    pub fn start(workspace: &Workspace, start: &Start<'_>) -> Result<Broker, Failure> {
        let address = free_address()?;
        let port = address.port();
        let folder = workspace.scratch()?.join(format!("broker-{port}"));
        // Left by an earlier run that had the same port.
        let _ = fs::remove_dir_all(&folder);
        let failed = |error: &std::io::Error| Failure::io(folder.display(), error);
        fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let log = folder.join("log");
        let output = File::create(&log).map_err(|error| failed(&error))?;
        let errors = output.try_clone().map_err(|error| failed(&error))?;

        let mut command = Command::new(start.executable);
        command
            .arg("broker")
            .args(["--workers", &start.workers.to_string()])
            .arg("--data-dir")
            .arg(folder.join("data"));
        match start.configuration {
            None => command.args(["-p", &port.to_string()]),
            Some(configuration) => {
                let file = folder.join("pantala.toml");
                fs::write(&file, configuration(port)).map_err(|error| failed(&error))?;
                command.arg("-c").arg(file)
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| Failure::io(start.executable.display(), &error))?;
        let title = format!("pantala, {} worker{}", start.workers, if start.workers == 1 { "" } else { "s" });
        let mut broker = Broker { title, address, process: Guarded::new(child), log };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        while Instant::now() < deadline {
            if let Some(status) = self.process.status() {
                return Err(Failure(format!("{} ended at its start with {status}\n{}", self.title, self.last_words())));
            }
            if TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
        let words = self.last_words();
        Err(Failure(format!(
            "{} does not accept connections at {} after {READY_SECONDS_MAX} s\n{words}",
            self.title, self.address
        )))
    }

    /// Whether its log says this, within a while.
    pub fn says(&self, text: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        loop {
            let log = fs::read(&self.log).unwrap_or_default();
            if String::from_utf8_lossy(&log).contains(text) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The end of its log, for a failure.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let body: Vec<String> = shown.iter().map(|line| format!("  | {line}")).collect();
        format!("  The end of {}:\n{}", self.log.display(), body.join("\n"))
    }

    /// Ends it by SIGTERM. An error tells what was wrong: it had ended before, panicked, did not end in time, or ended
    /// with another status than 0.
    pub fn stop(mut self) -> Result<(), Failure> {
        let wrong =
            |broker: &Broker, what: String| Err(Failure(format!("{} {what}\n{}", broker.title, broker.last_words())));
        if let Some(status) = self.process.status() {
            return wrong(&self, format!("had ended with {status} before it was told to"));
        }
        self.process.terminate();
        let Some(status) = self.process.wait_until(Instant::now() + Duration::from_secs(END_SECONDS_MAX)) else {
            return wrong(&self, format!("did not end within {END_SECONDS_MAX} s of SIGTERM"));
        };
        if !status.success() {
            return wrong(&self, format!("ended with {status} on SIGTERM"));
        }
        // A worker survives a panic in a connection's work, but it is a bug all the same.
        let log = fs::read(&self.log).unwrap_or_default();
        if String::from_utf8_lossy(&log).contains("panicked at") {
            return wrong(&self, "has panicked".into());
        }
        Ok(())
    }
}

/// An address on the loopback interface that nobody listens on at the moment.
pub fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::io("no free port on 127.0.0.1", &error))
}
