//! The names below `$SYS/`, beside Mosquitto's own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Names that Mosquitto 2.0 does not have and later versions do.
const NEWER: [&str; 3] =
    ["$SYS/broker/connections/socket/count", "$SYS/broker/packet/out/bytes", "$SYS/broker/packet/out/count"];

/// A broker, ended by its number.
pub(crate) struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a broker that publishes every second, with some `more` lines in its configuration, and waits until it listens.
/// Returns its port.
pub(crate) fn start(program: &Path, arguments: &[&str], folder: &Path, more: &str) -> (Broker, u16) {
    // Nobody has it, no other test here is just about to, and it is not among those that the system gives away.
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 1_000) as u16;
    let port = (0..10_000)
        .map(|_| first + TAKEN.fetch_add(1, Ordering::Relaxed))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .unwrap();
    let file = folder.join("broker.conf");
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n{more}")).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .arg("-c")
        .arg(&file)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let broker = Broker(child);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "{} does not listen", program.display());
        thread::sleep(Duration::from_millis(5));
    }
    (broker, port)
}

/// The Topic Names of all that is retained, each with its QoS and a first word for the kind of text it has.
fn retained(mosquitto_sub: &Path, port: u16) -> BTreeSet<(String, String)> {
    let output = Command::new(mosquitto_sub)
        .args(["-p", &port.to_string(), "-q", "2", "-t", "$SYS/#", "--retained-only", "-W", "20", "-F", "%q\t%t\t%p"])
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let fields: Vec<_> = line.split('\t').collect();
        assert_eq!(fields[0], "2", "the QoS of {line}");
        let shape: String = fields[2].chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
        // Whether digits follow the point, and a unit the number; not how many digits there are before it.
        (fields[1].to_owned(), shape.trim_start_matches('0').to_owned())
    };
    lines.lines().map(line).collect()
}

#[test]
fn every_name_below_sys_that_mosquitto_has_is_there_in_the_same_form() {
    let test = "every_name_below_sys_that_mosquitto_has_is_there_in_the_same_form";
    let Some([mosquitto, mosquitto_sub]) = programs::find(test, ["mosquitto", "mosquitto_sub"]) else { return };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (_theirs, port) = start(&mosquitto, &[], folders[0].path(), "");
    let theirs = all(&mosquitto_sub, port);
    let (_ours, port) = start(Path::new(env!("CARGO_BIN_EXE_pantala")), &["broker"], folders[1].path(), "");
    let ours = all(&mosquitto_sub, port);
    let text = "$SYS/broker/version";
    let missing: Vec<_> = theirs.iter().filter(|name| name.0 != text && !ours.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?} in {ours:?}");
    assert!(ours.iter().any(|(name, _)| name == text));
    let names: BTreeSet<&str> = theirs.iter().map(|(name, _)| name.as_str()).chain(NEWER).collect();
    let more: Vec<_> = ours
        .iter()
        .filter(|(name, _)| !names.contains(name.as_str()) && !name.starts_with("$SYS/broker/pantala/"))
        .collect();
    assert!(more.is_empty(), "{more:?}");
}

/// All names, when there are no more to come: the first ones are published as the broker starts, some by the first client.
fn all(mosquitto_sub: &Path, port: u16) -> BTreeSet<(String, String)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = retained(mosquitto_sub, port);
        if found.iter().any(|(name, _)| name == "$SYS/broker/clients/maximum") {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
}
