//! The libraries under test: each runs one task in a process of its own, and tells what that took.

mod paho;
mod pantala;
mod rumqttc;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::sink::check_due;
use super::{KEEP_ALIVE, PAYLOAD_BYTES};
use crate::fault::Fault;
use crate::packet::STAMP_BYTES;
use crate::usage;

/// An MQTT client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Library {
    /// Ours.
    Pantala,
    /// rumqttc of crates.io, its module for MQTT 5.
    Rumqttc,
    /// Eclipse Paho for C, its asynchronous interface.
    Paho,
}

/// What a library is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Publish at QoS 0.
    PublishQos0,
    /// Publish at QoS 1; in the end all are acknowledged.
    PublishQos1,
    /// The same, each acknowledgement awaited by whoever published.
    PublishQos1Awaited,
    /// Receive at QoS 0.
    ReceiveQos0,
    /// Receive at QoS 1.
    ReceiveQos1,
    /// Connect clients, and do nothing with them.
    Idle,
}

/// A scenario in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What to do.
    pub scenario: Scenario,
    /// The sink.
    pub address: SocketAddr,
    /// Messages or clients before anything is counted.
    pub warm_up: u64,
    /// Messages or clients that count.
    pub count: u64,
}

/// What a task took, without its warm-up.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Of the library.
    pub version: String,
    /// CPU seconds of the process, user and system.
    pub cpu_seconds: f64,
    /// The user part; resolution 10 ms.
    pub user_seconds: f64,
    /// The system part; resolution 10 ms.
    pub system_seconds: f64,
    /// Seconds.
    pub elapsed_seconds: f64,
    /// Growth of anonymous memory.
    pub grown_bytes: f64,
    /// What went wrong.
    pub fault: Option<String>,
}

impl Library {
    /// All of them, ours first.
    pub const ALL: [Self; 3] = [Self::Pantala, Self::Rumqttc, Self::Paho];

    /// Name in tables and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pantala => "pantala",
            Self::Rumqttc => "rumqttc",
            Self::Paho => "paho",
        }
    }

    /// Whether it has a way to do that.
    pub fn can(self, scenario: Scenario) -> bool {
        // rumqttc tells of acknowledgements in its stream of events, never to the one who published.
        (self, scenario) != (Self::Rumqttc, Scenario::PublishQos1Awaited)
    }
}

/// Does `task` with `library` in this process.
pub fn run(library: Library, task: &Task) -> Reply {
    let result = match library {
        Library::Pantala => pantala::run(task),
        Library::Rumqttc => rumqttc::run(task),
        Library::Paho => Err("is a program of its own".into()),
    };
    result.unwrap_or_else(|error| Reply { fault: Some(error.to_string()), ..Reply::default() })
}

/// The programs that have the libraries in them.
#[derive(Debug)]
pub struct Programs {
    /// This one.
    pub own: PathBuf,
    /// Built for the occasion; if it could not be, why.
    pub paho: Result<PathBuf, String>,
}

impl Programs {
    /// Finds this program and builds the others in `scratch`.
    pub fn prepare(scratch: &Path) -> io::Result<Self> {
        Ok(Self { own: std::env::current_exe()?, paho: paho::build(scratch) })
    }

    /// Why the library cannot be measured.
    pub fn lack(&self, library: Library) -> Option<&str> {
        if library == Library::Paho { self.paho.as_ref().err().map(String::as_str) } else { None }
    }

    /// Does `task` with `library` in a process of its own, under `wrapper` (a command line to put before it) if that is not
    /// empty. Takes `within` at most.
    pub fn run(&self, library: Library, task: &Task, wrapper: &[String], within: Duration) -> io::Result<Reply> {
        let mut words: Vec<String> = wrapper.to_vec();
        let scenario = task.scenario.to_possible_value().ok_or(io::ErrorKind::InvalidInput)?;
        let (warm_up, count) = (task.warm_up.to_string(), task.count.to_string());
        if let (Library::Paho, Ok(program)) = (library, &self.paho) {
            words.push(program.display().to_string());
            words.extend([scenario.get_name().to_owned(), task.address.to_string(), warm_up, count]);
        } else {
            words.push(self.own.display().to_string());
            words.extend(["client-under-test", "--library", library.name(), "--scenario"].map(str::to_owned));
            words.extend([scenario.get_name(), "--address", &task.address.to_string()].map(str::to_owned));
            words.extend(["--warm-up".to_owned(), warm_up, "--count".to_owned(), count]);
        }
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        if !wrapper.is_empty() {
            command.stderr(Stdio::null());
        }
        let mut child = Guarded(command.spawn()?);
        let deadline = Instant::now() + within;
        while child.0.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the library has stalled"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        // One line, which a pipe holds.
        child.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Dropped, it is killed.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints a reply for [`Programs::run`].
pub fn print(reply: &Reply) -> io::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(reply)?)
}

// ---- for the libraries in this process --------------------------------------------------------------------------

type Error = Box<dyn std::error::Error>;

/// What the process has used so far.
struct Meter {
    cpu: Duration,
    parts: usage::Cpu,
    began: Instant,
    bytes: u64,
}

impl Meter {
    fn start() -> io::Result<Self> {
        let pid = std::process::id();
        let (parts, bytes) = (usage::cpu(pid)?, usage::anonymous_bytes(pid)?);
        Ok(Self { parts, bytes, began: Instant::now(), cpu: usage::process_cpu() })
    }

    fn reply(&self, version: String) -> io::Result<Reply> {
        let (cpu_seconds, elapsed_seconds) =
            ((usage::process_cpu() - self.cpu).as_secs_f64(), self.began.elapsed().as_secs_f64());
        let parts = usage::cpu(std::process::id())?.since(self.parts);
        Ok(Reply {
            version,
            cpu_seconds,
            user_seconds: parts.user.as_secs_f64(),
            system_seconds: parts.system.as_secs_f64(),
            elapsed_seconds,
            grown_bytes: usage::anonymous_bytes(std::process::id())? as f64 - self.bytes as f64,
            fault: None,
        })
    }
}

/// The payload of a message.
fn payload(sequence: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [b'.'; PAYLOAD_BYTES];
    payload[..4].copy_from_slice(&[0; 4]);
    payload[4..STAMP_BYTES].copy_from_slice(&sequence.to_be_bytes());
    payload
}

/// Looks at the payload of a message that came when `due` was due.
fn check(payload: &[u8], due: u64) -> Result<(), Fault> {
    let stamp = payload.get(4..STAMP_BYTES).and_then(|bytes| bytes.first_chunk());
    let sequence = stamp.filter(|_| payload.len() == PAYLOAD_BYTES).ok_or(Fault::Malformed)?;
    check_due(u64::from_be_bytes(*sequence), due)
}

/// Of a crate, from the lock file that this program was built with.
fn locked_version(name: &str) -> String {
    let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
    let mut lines = lock.lines().skip_while(|line| line.strip_prefix("name = ") != Some(&format!("{name:?}"))).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap_or_default();
    version.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_known_again() {
        assert_eq!(check(&payload(3), 3), Ok(()));
        assert!(matches!(check(&payload(3), 2), Err(Fault::Lost { messages: 1, .. })));
        assert_eq!(check(&payload(3)[1..], 3), Err(Fault::Malformed));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(locked_version("rumqttc").starts_with("0."));
        assert_eq!(locked_version("no-such-crate"), "");
    }

    #[test]
    fn all_names_are_as_they_are_parsed() {
        for library in Library::ALL {
            assert_eq!(Library::from_str(library.name(), false), Ok(library));
        }
    }
}
