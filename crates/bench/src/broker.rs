//! Starting and stopping the brokers under test.

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::features::{Setup, Transport};
use crate::pinning::Pinning;

/// How long a broker may take until it listens; much, because valgrind makes it slow.
const START_MAX: Duration = Duration::from_secs(60);

/// How long it may take to end after SIGTERM before it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Which program a broker is, and so how it is told its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `pantala broker -p PORT --workers 1`.
    Pantala,
    /// `mosquitto -c FILE`.
    Mosquitto,
}

/// How Pantala keeps what it acknowledges.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Value of `--durability`.
    pub durability: &'static str,
    /// Value of `--data-dir`.
    pub data_dir: PathBuf,
    /// Value of `--config`.
    pub configuration: PathBuf,
    /// Value of `--workers`.
    pub workers: u32,
}

/// A broker that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which one.
    pub kind: Kind,
    /// The executable.
    pub path: PathBuf,
    /// What it says about its version.
    pub version: String,
}

impl Program {
    /// Asks the executable at `path` for its version; fails if it cannot be started.
    pub fn find(kind: Kind, path: &Path) -> io::Result<Self> {
        let flag = match kind {
            Kind::Pantala => "--version",
            // It has no flag for the version; the first line of its help is it.
            Kind::Mosquitto => "-h",
        };
        let output = Command::new(path).arg(flag).stdin(Stdio::null()).output()?;
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned();
        Ok(Self { kind, path: path.to_owned(), version })
    }

    /// Name in tables and results.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Pantala => "pantala",
            Kind::Mosquitto => "mosquitto",
        }
    }

    /// The configuration it is measured with, for result files.
    pub fn configuration(&self) -> String {
        match self.kind {
            Kind::Pantala => "broker -p PORT --workers 1 --durability memory".to_owned(),
            Kind::Mosquitto => mosquitto_configuration("PORT").replace('\n', "; "),
        }
    }

    /// Starts it on a free port of loopback, under `wrapper` (a command line to put before it) if that is not empty.
    pub fn start(&self, pinning: &Pinning, scratch: &Path, wrapper: &[String]) -> io::Result<Broker> {
        let address = free_address()?;
        let port = address.port().to_string();
        let mut command = self.command(wrapper);
        match self.kind {
            Kind::Pantala => {
                let data = scratch.join(format!("pantala-{port}"));
                command
                    .args(["broker", "-p", &port, "--workers", "1", "--durability", "memory"])
                    .env("PANTALA_DATA_DIR", data);
            }
            Kind::Mosquitto => {
                let file = scratch.join(format!("mosquitto-{port}.conf"));
                fs::write(&file, mosquitto_configuration(&port))?;
                command.arg("-c").arg(file);
            }
        }
        let log = fs::File::create(scratch.join(format!("{}-{port}.log", self.name())))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = pinning.on_broker_core(|| command.spawn())??;
        let mut broker = Broker { child, address };
        broker.wait_until_listening()?;
        Ok(broker)
    }

    /// Starts Pantala with memory only and one listener, as `setup` and `transport` say.
    pub fn start_as(
        &self,
        pinning: &Pinning,
        scratch: &Path,
        wrapper: &[String],
        transport: Transport,
        setup: Setup,
    ) -> io::Result<Broker> {
        let address = free_address()?;
        let port = address.port();
        let configuration = scratch.join(format!("pantala-{port}.toml"));
        fs::write(&configuration, setup.configuration(transport, port, scratch)?)?;
        let mut command = self.command(wrapper);
        command
            .args(["broker", "--workers", "1", "--durability", "memory", "--config"])
            .arg(configuration)
            .env("PANTALA_DATA_DIR", scratch.join(format!("pantala-{port}")));
        let log = fs::File::create(scratch.join(format!("pantala-{port}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = pinning.on_broker_core(|| command.spawn())??;
        let mut broker = Broker { child, address };
        broker.wait_until_listening()?;
        Ok(broker)
    }

    /// The executable, under `wrapper` if that is not empty.
    fn command(&self, wrapper: &[String]) -> Command {
        match wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.path);
                command
            }
            None => Command::new(&self.path),
        }
    }

    /// Starts Pantala with data that it keeps, its log in `log`, without waiting for anything.
    pub fn start_keeping(
        &self,
        pinning: &Pinning,
        keeping: &Keeping,
        log: &Path,
        wrapper: &[String],
    ) -> io::Result<Broker> {
        let address = free_address()?;
        let mut command = self.command(wrapper);
        command
            .args(["broker", "-p", &address.port().to_string(), "--workers", &keeping.workers.to_string()])
            .args(["--durability", keeping.durability])
            .arg("--data-dir")
            .arg(&keeping.data_dir)
            .arg("--config")
            .arg(&keeping.configuration);
        let log = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = pinning.on_broker_core(|| command.spawn())??;
        Ok(Broker { child, address })
    }
}

/// A running broker; dropped, it is killed.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Broker {
    /// Process identifier, for the accounts in `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGUSR1, for which Pantala writes its counters into its log.
    pub fn ask_for_counters(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::USR1)?)
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the broker ignores SIGTERM"))
    }

    /// Waits until it takes connections.
    pub fn wait_until_listening(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the broker ended at once: {status}")));
            }
            if let Ok(mut probe) = TcpStream::connect(self.address) {
                // Half-close and wait for the broker's end of it, so that the probe is gone before anything is counted.
                probe.shutdown(std::net::Shutdown::Write)?;
                probe.set_read_timeout(Some(START_MAX))?;
                let _ = probe.read(&mut [0; 16]);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the broker does not listen"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for configuration files and logs, removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it under the system's directory for temporary files.
    pub fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("pantala-bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mosquitto_configuration(port: &str) -> String {
    // `user root` keeps it from changing its user when it is started as root, which would keep callgrind's result
    // from being written; otherwise it has no effect.
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
         max_inflight_messages 20\nset_tcp_nodelay true\nlog_dest none\nuser root\n"
    )
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
