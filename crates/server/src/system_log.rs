//! The system's log: one datagram a line, as RFC 3164 has them, without a time: who receives it knows that.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::config::{Facility, LogType};

/// Where the system listens for lines.
pub(crate) const SYSTEM_LOG: &str = if cfg!(target_os = "macos") { "/var/run/syslog" } else { "/dev/log" };

/// A way to the system's log. Never waited for: a line that it does not take at once is lost.
#[derive(Debug)]
pub(crate) struct SystemLog {
    path: PathBuf,
    facility: Facility,
    socket: Option<UnixDatagram>,
}

impl SystemLog {
    pub(crate) fn new(path: impl AsRef<Path>, facility: Facility) -> Self {
        Self { path: path.as_ref().to_owned(), facility, socket: None }
    }

    /// Sends a line. One that runs away from its system's log finds the next one: a socket that fails is made anew, once.
    pub(crate) fn send(&mut self, kind: LogType, text: &str) {
        let priority = u32::from(self.facility.number()) << 3 | severity(kind);
        let line = format!("<{priority}>pantala[{}]: {text}", std::process::id());
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = self.connect();
            }
            let Some(socket) = &self.socket else { return };
            match socket.send(line.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => self.socket = None,
                _ => return,
            }
        }
    }

    fn connect(&self) -> Option<UnixDatagram> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(&self.path).ok()?;
        Some(socket)
    }
}

fn severity(kind: LogType) -> u32 {
    match kind {
        LogType::Error => 3,
        LogType::Warning => 4,
        LogType::Notice | LogType::Subscribe | LogType::Unsubscribe => 5,
        LogType::Information | LogType::Websockets => 6,
        LogType::Debug | LogType::Internal => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_priority_and_survive_a_restart_of_their_receiver() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut system = SystemLog::new(&path, Facility::DAEMON);
        system.send(LogType::Error, "to nobody");
        let mut buffer = [0; 256];
        for _ in 0..2 {
            let receiver = UnixDatagram::bind(&path).unwrap();
            system.send(LogType::Warning, "something");
            let count = receiver.recv(&mut buffer).unwrap();
            let expected = format!("<28>pantala[{}]: something", std::process::id());
            assert_eq!(std::str::from_utf8(&buffer[..count]).unwrap(), expected);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
