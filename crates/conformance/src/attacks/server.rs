//! Brokers started for one attack, with a configuration of their own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::oracle::Process;
use crate::ensure;
use crate::peer::{Outcome, Stop};

/// How long a broker may take until it accepts connections.
const READY_DURATION_MAX: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A broker that runs. It is killed, and its folder removed, when this is dropped.
pub struct Server {
    /// `HOST:PORT`.
    pub address: String,
    child: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts `executable` on a free port of the loopback interface, with `configuration` (TOML, without a listener) and these
    /// `listener` keys, and waits until it accepts a connection.
    pub fn start(executable: &Path, configuration: &str, listener: &str) -> Outcome<Server> {
        let wrong = |error: std::io::Error| Stop::Fail(format!("{}: {error}", executable.display()));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map_err(wrong)?.port();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pantala-attack-{}-{serial}", std::process::id()));
        fs::create_dir_all(&folder).map_err(wrong)?;
        let file = folder.join("pantala.toml");
        let text = format!("{configuration}\n[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n{listener}\n");
        fs::write(&file, text).map_err(wrong)?;
        let log = File::create(folder.join("log")).map_err(wrong)?;
        let child = Command::new(executable)
            .args(["broker", "-c"])
            .arg(file)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(wrong)?)
            .stderr(log)
            .spawn()
            .map_err(wrong)?;
        let mut server = Server { address: format!("127.0.0.1:{port}"), child, folder };
        let deadline = Instant::now() + READY_DURATION_MAX;
        while TcpStream::connect(&server.address).is_err() {
            let ended = server.child.try_wait().ok().flatten();
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "a broker of our own does not start ({ended:?}): {}",
                server.log()
            );
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(server)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// Waits until its log has what `found` looks for.
    pub fn await_log(&self, what: &str, found: impl Fn(&str) -> bool) -> Outcome<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let log = self.log();
            if found(&log) {
                return Ok(log);
            }
            ensure!(Instant::now() < deadline, "the log does not say {what}:\n{log}");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Its process.
    pub fn process(&self) -> Outcome<Process> {
        Process::find(self.child.id()).map_err(Stop::Fail)
    }

    /// Fails if it has ended or has panicked.
    pub fn check(&mut self) -> Outcome {
        let ended = self.child.try_wait().ok().flatten();
        ensure!(ended.is_none(), "the broker has ended with {ended:?}: {}", self.log());
        let log = self.log();
        ensure!(!log.contains("panicked at"), "the broker has panicked: {log}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What cannot be ended or removed has gone by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}
