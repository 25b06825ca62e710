//! Our own client library at a broker of another make: mosquitto from Debian, started for it.

use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::install;
use crate::broker;
use crate::process::Guarded;
use crate::step::{Counts, Failure};
use crate::workspace::{Workspace, cargo_command};

/// Where the tests of the client library look for a broker.
const ADDRESS_VARIABLE: &str = "PANTALA_TEST_BROKER";
const START_SECONDS_MAX: u64 = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Runs the tests of `pantala-client` that ask for such a broker: one check, skipped where there is no mosquitto.
pub fn run(workspace: &Workspace) -> Result<Counts, Failure> {
    let mosquitto = match install::mosquitto() {
        Ok(mosquitto) => mosquitto,
        Err(why) if workspace.is_ci => {
            println!("pantala-client / FAILED: {why}");
            return Ok(Counts::of(false));
        }
        Err(why) => {
            println!("pantala-client / skipped: {why}");
            return Ok(Counts { skipped: 1, ..Counts::default() });
        }
    };
    let address = broker::free_address()?;
    let folder = workspace.scratch()?.join(format!("mosquitto-{}", address.port()));
    let failed = |error: &std::io::Error| Failure::io(folder.display(), error);
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let file = folder.join("mosquitto.conf");
    // With bounds it drops what comes too fast, and cannot say so before MQTT 5.
    let text = format!(
        "listener {} {}\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n",
        address.port(),
        address.ip()
    );
    fs::write(&file, text).map_err(|error| failed(&error))?;
    let log = File::create(folder.join("log")).map_err(|error| failed(&error))?;
    let child = Command::new(&mosquitto)
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| Failure::io(mosquitto.display(), &error))?;
    let mut running = Guarded::new(child);
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    while TcpStream::connect(address).is_err() {
        if running.status().is_some() || Instant::now() >= deadline {
            return Err(Failure(format!("mosquitto does not listen; its words are in {}", folder.display())));
        }
        thread::sleep(POLL_INTERVAL);
    }
    println!("-- pantala-client at mosquitto at {address}");
    let child = cargo_command()
        .current_dir(&workspace.root)
        .args(["test", "--locked", "--quiet", "--package", "pantala-client", "--test", "cuts", "another_make"])
        .env(ADDRESS_VARIABLE, address.to_string())
        .spawn()
        .map_err(|error| Failure::io("cargo test", &error))?;
    let status = Guarded::new(child).child().wait().map_err(|error| Failure::io("cargo test", &error))?;
    running.terminate();
    running.wait_until(deadline + Duration::from_secs(START_SECONDS_MAX));
    println!("pantala-client / over cuts ... {}", if status.success() { "ok" } else { "FAILED" });
    Ok(Counts::of(status.success()))
}
