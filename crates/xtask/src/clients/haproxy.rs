//! A load balancer in front of the broker: haproxy, which tells by the PROXY protocol whose connections it passes on.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::install;
use crate::broker;
use crate::process::{Guarded, POLL_INTERVAL};
use crate::step::Failure;
use crate::workspace::Workspace;

const START_SECONDS_MAX: u64 = 10;

/// One that runs. It is killed when this is dropped.
pub struct Haproxy {
    /// Where it takes connections.
    pub address: SocketAddr,
    process: Guarded,
}

impl Haproxy {
    /// Passes connections on to `to`, each with a header of version 2.
    pub fn start(workspace: &Workspace, to: SocketAddr) -> Result<Self, Failure> {
        let address = broker::free_address()?;
        let folder = workspace.scratch()?.join(format!("haproxy-{}", address.port()));
        let failed = |error: &std::io::Error| Failure::io(folder.display(), error);
        fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let file = folder.join("haproxy.cfg");
        // Keep Alive is MQTT's business.
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             frontend mqtt\n  bind {address}\n  default_backend broker\n\
             backend broker\n  server broker {to} send-proxy-v2\n"
        );
        fs::write(&file, text).map_err(|error| failed(&error))?;
        let log = File::create(folder.join("log")).map_err(|error| failed(&error))?;
        let program = install::haproxy().map_err(Failure)?;
        let child = Command::new(&program)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::io(program.display(), &error))?;
        let mut process = Guarded::new(child);
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(address).is_err() {
            if process.status().is_some() || Instant::now() >= deadline {
                return Err(Failure(format!("haproxy does not listen; its words are in {}", folder.display())));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(Self { address, process })
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.process.terminate();
        self.process.wait_until(Instant::now() + Duration::from_secs(START_SECONDS_MAX));
    }
}
