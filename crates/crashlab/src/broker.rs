//! The broker under test as a process.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use pantala_mutants::Mutant;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::fault::faketime_library;

/// How long a probing connection may take.
const PROBE_MAX: Duration = Duration::from_millis(200);

/// Which program a broker is, and so how it is told its port and its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `pantala broker -p PORT --data-dir DIR --durability fsync`
    Pantala,
    /// `mosquitto -c FILE`, with autosave_interval 1
    Mosquitto,
}

/// A broker that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which one.
    pub kind: Kind,
    /// The executable.
    pub path: PathBuf,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The seeded bug that it is to show, if it has been built with them.
    pub mutant: Option<Mutant>,
}

/// Where and how a broker is started.
#[derive(Clone, Debug)]
pub struct Place {
    /// Port on loopback.
    pub port: u16,
    /// Data directory.
    pub data: PathBuf,
    /// Folder for its log and configuration.
    pub folder: PathBuf,
    /// A file whose first line is how far its wall clock is off, for libfaketime.
    pub clock: Option<PathBuf>,
}

impl Program {
    /// Starts it; it may not listen yet.
    ///
    /// # Errors
    /// If there is no such program, or its files cannot be written.
    pub fn start(&self, place: &Place) -> io::Result<Broker> {
        fs::create_dir_all(&place.data)?;
        let log = OpenOptions::new().create(true).append(true).open(place.folder.join("broker.log"))?;
        let mut command = Command::new(&self.path);
        match self.kind {
            Kind::Pantala => {
                command.args(["broker", "-p", &place.port.to_string(), "--durability", "fsync", "--data-dir"]);
                command.arg(&place.data);
            }
            Kind::Mosquitto => {
                let file = place.folder.join("mosquitto.conf");
                fs::write(&file, mosquitto_configuration(place))?;
                command.arg("-c").arg(file);
            }
        }
        command.args(&self.arguments);
        command.env(pantala_mutants::VARIABLE, self.mutant.map_or("", Mutant::name));
        if let (Some(clock), Some(library)) = (&place.clock, faketime_library()) {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        // Of its own group, so that an interrupt from the terminal reaches the laboratory alone, which then cleans up.
        let child = command
            .process_group(0)
            .current_dir(&place.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Broker { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, place.port)) })
    }
}

/// A running broker; dropped, it is killed.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Its process identifier.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it accepts connections.
    pub fn accepts(&self) -> bool {
        TcpStream::connect_timeout(&self.address, PROBE_MAX).is_ok()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends it with SIGKILL, and waits for that.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that nobody has, below those that the system gives to outgoing connections.
///
/// # Errors
/// If all that were tried are taken.
pub fn free_port(preferred: u16) -> io::Result<u16> {
    (0..1_000)
        .map(|offset| 10_000 + (preferred % 10_000 + offset * 7) % 20_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))
}

fn mosquitto_configuration(place: &Place) -> String {
    // Its best case: it saves all it has every second. `user root` keeps it from changing its user when it is started as
    // root, and has no effect otherwise.
    format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\nautosave_interval 1\n\
         persistence_location {}/\nmax_queued_messages 0\nmax_inflight_messages 20\nset_tcp_nodelay true\n\
         log_dest stderr\nlog_type error\nlog_type warning\n",
        place.port,
        place.data.display()
    )
}

/// The executable: a path, or a name to be looked up.
pub fn find_executable(name: &Path) -> PathBuf {
    let is_name = name.components().count() == 1;
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| is_name && path.is_file());
    match found {
        Some(path) => path,
        // The broker is started in another folder.
        None => fs::canonicalize(name).unwrap_or_else(|_| name.to_owned()),
    }
}
