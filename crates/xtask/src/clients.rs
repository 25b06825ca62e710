//! The step `clients`: real client libraries, driven in their own languages against the broker.
//!
//! The drivers are in `clients/`. Each takes the broker's address and prints `ok NAME` or `not ok NAME: WHY` for every
//! check. Here they are given what they need, run beside each other, and counted.

mod certificate;
mod haproxy;
pub mod install;
mod own;

use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use self::certificate::Certificate;
use self::haproxy::{Behind, Haproxy};
use crate::ClientsArguments;
use crate::broker::{self, Broker, Start};
use crate::cargo;
use crate::process::Guarded;
use crate::step::{Counts, Failure};
use crate::workspace::Workspace;

/// The most one driver may take for all its checks; half a minute is usual.
const DRIVER_SECONDS_MAX: u64 = 300;

/// A client library, or the programs of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// mosquitto_sub, mosquitto_pub, mosquitto_rr from Debian.
    MosquittoClients,
    /// paho-mqtt from PyPI.
    PahoMqtt,
    /// aiomqtt from PyPI.
    Aiomqtt,
    /// MQTT.js from npm.
    Mqttjs,
    /// The same over WebSocket.
    MqttjsWebsocket,
    /// The same over WebSocket and TLS.
    MqttjsWebsocketTls,
    /// MQTT.js in Debian's Chromium, over WebSocket.
    Chromium,
    /// The same over TLS.
    ChromiumTls,
    /// paho-mqtt again, through Debian's haproxy, which sends PROXY headers.
    Haproxy,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Client::MosquittoClients => "mosquitto-clients",
            Client::PahoMqtt => "paho-mqtt",
            Client::Aiomqtt => "aiomqtt",
            Client::Mqttjs => "MQTT.js",
            Client::MqttjsWebsocket => "MQTT.js over WebSocket",
            Client::MqttjsWebsocketTls => "MQTT.js over WebSocket and TLS",
            Client::Chromium => "MQTT.js in Chromium",
            Client::ChromiumTls => "MQTT.js in Chromium over TLS",
            Client::Haproxy => "paho-mqtt behind haproxy",
        })
    }
}

impl Client {
    /// Whether it speaks to any listener for plain MQTT.
    fn is_plain(self) -> bool {
        matches!(self, Client::MosquittoClients | Client::PahoMqtt | Client::Aiomqtt | Client::Mqttjs)
    }

    /// Whether it has to be given the broker's certificate.
    fn is_tls(self) -> bool {
        matches!(self, Client::MqttjsWebsocketTls | Client::ChromiumTls)
    }
}

/// Where the broker listens for each kind of client.
#[derive(Clone, Copy)]
struct Places {
    plain: SocketAddr,
    websocket: SocketAddr,
    websocket_tls: SocketAddr,
    haproxy: SocketAddr,
}

impl Places {
    fn of(&self, client: Client) -> SocketAddr {
        match client {
            Client::MqttjsWebsocket | Client::Chromium => self.websocket,
            Client::MqttjsWebsocketTls | Client::ChromiumTls => self.websocket_tls,
            Client::Haproxy => self.haproxy,
            _ => self.plain,
        }
    }
}

/// A client that can be run: a program and the driver it runs.
pub struct Driver {
    /// Which one.
    pub client: Client,
    /// The interpreter.
    pub program: PathBuf,
    /// The driver's file.
    pub script: PathBuf,
    /// The broker's certificate, where it has to be trusted.
    pub certificate: Option<PathBuf>,
}

/// Runs the checks of every client against a broker with one worker, then against one with two.
pub fn run(workspace: &Workspace, arguments: &ClientsArguments) -> Result<Counts, Failure> {
    let mut wanted = arguments.client.clone();
    if wanted.is_empty() {
        // Of a broker that runs already one place is known.
        let all = Client::value_variants().iter().copied();
        wanted = all.filter(|client| arguments.broker.is_none() || client.is_plain()).collect();
    }
    let mut counts = Counts::default();
    let mut drivers = Vec::new();
    for (client, driver) in install::prepare(workspace, &wanted) {
        match driver {
            Ok(driver) => drivers.push(driver),
            Err(why) if workspace.is_ci => {
                println!("{client} / FAILED: {why}");
                counts.failed += 1;
            }
            Err(why) => {
                println!("{client} / skipped: {why}");
                counts.skipped += 1;
            }
        }
    }
    if drivers.is_empty() {
        return Ok(counts);
    }

    if let Some(address) = arguments.broker {
        let places = Places { plain: address, websocket: address, websocket_tls: address, haproxy: address };
        counts += run_drivers(&drivers, arguments, places);
        return Ok(counts);
    }
    let executable = match &arguments.executable {
        Some(executable) => executable.clone(),
        None => {
            cargo::build_release(workspace, &["pantala"])?;
            workspace.release_executable("pantala")
        }
    };
    let certificate = match drivers.iter().any(|driver| driver.client.is_tls()) {
        true => Some(Certificate::make(workspace, "127.0.0.1", "CA:TRUE")?),
        false => None,
    };
    for driver in drivers.iter_mut().filter(|driver| driver.client.is_tls()) {
        driver.certificate = certificate.as_ref().map(|certificate| certificate.certificate.clone());
    }
    for workers in [1, 2] {
        let (websocket, websocket_tls) = (broker::free_address()?, broker::free_address()?);
        let behind = Behind { proxied: broker::free_address()?, named: broker::free_address()? };
        let tls = certificate.as_ref().map(|certificate| (websocket_tls.port(), certificate));
        let configuration = |port: u16| listeners(port, websocket.port(), tls) + &behind.listeners();
        let start = Start { executable: &executable, workers, configuration: Some(&configuration) };
        let broker = Broker::start(workspace, &start)?;
        let haproxy = match drivers.iter().any(|driver| driver.client == Client::Haproxy) {
            true => Some(Haproxy::start(workspace, behind)?),
            false => None,
        };
        let haproxy_address = haproxy.as_ref().map_or(behind.proxied, |haproxy| haproxy.address);
        println!("-- {} at {}", broker.title, broker.address);
        // Before the others come, whose lines in the log would take the place of these.
        if let Some(haproxy) = haproxy.as_ref().filter(|_| arguments.check.is_none()) {
            counts += haproxy.check(&executable, &broker);
        }
        let places = Places { plain: broker.address, websocket, websocket_tls, haproxy: haproxy_address };
        let results = run_drivers(&drivers, arguments, places);
        if results.failed > 0 {
            println!("{}", broker.last_words());
        }
        counts += results;
        if let Some(haproxy) = haproxy {
            haproxy.stop();
        }
        let ended = broker.stop();
        if let Err(failure) = &ended {
            println!("{failure}");
        }
        counts += Counts::of(ended.is_ok());
    }
    if arguments.client.is_empty() && arguments.check.is_none() && arguments.executable.is_none() {
        counts += own::run(workspace)?;
    }
    Ok(counts)
}

/// The listeners that the clients come to.
fn listeners(plain: u16, websocket: u16, websocket_tls: Option<(u16, &Certificate)>) -> String {
    let mut text = format!(
        "[[listener]]\nhost = \"127.0.0.1\"\nport = {plain}\n\n\
         [[listener]]\nhost = \"127.0.0.1\"\nport = {websocket}\nprotocol = \"websocket\"\nwebsocket_path = \"/mqtt\"\n"
    );
    if let Some((port, Certificate { certificate, key })) = websocket_tls {
        // What Rust prints of a path is a string of TOML.
        text += &format!(
            "\n[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\nprotocol = \"websocket\"\nwebsocket_path = \"/mqtt\"\n\
             tls_certificate_files = [{certificate:?}]\ntls_key_files = [{key:?}]\n"
        );
    }
    text
}

/// All drivers at once: they wait for the broker most of the time, and their topics are their own.
fn run_drivers(drivers: &[Driver], arguments: &ClientsArguments, places: Places) -> Counts {
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let running: Vec<_> = drivers
            .iter()
            .map(|driver| {
                let place = places.of(driver.client);
                let check = arguments.check.as_deref();
                (driver, scope.spawn(move || run_driver(driver, check, &place.ip().to_string(), place.port())))
            })
            .collect();
        for (driver, result) in running {
            counts += match result.join() {
                Ok(Ok(counts)) => counts,
                Ok(Err(failure)) => {
                    println!("{} / FAILED: {failure}", driver.client);
                    Counts::of(false)
                }
                Err(_) => Counts::of(false),
            };
        }
    });
    counts
}

/// What a driver says about one check.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Ok { name: &'a str },
    NotOk { name_and_why: &'a str },
    Other,
}

impl Line<'_> {
    fn parse(line: &str) -> Line<'_> {
        match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(name), _) => Line::Ok { name },
            (_, Some(name_and_why)) => Line::NotOk { name_and_why },
            _ => Line::Other,
        }
    }
}

fn run_driver(driver: &Driver, check: Option<&str>, host: &str, port: u16) -> Result<Counts, Failure> {
    let name = driver.script.display();
    let mut command = Command::new(&driver.program);
    command.arg(&driver.script).arg(host).arg(port.to_string());
    if let Some(check) = check {
        command.args(["--only", check]);
    }
    if let Some(certificate) = &driver.certificate {
        command.env("NODE_EXTRA_CA_CERTS", certificate);
    }
    // No compiled copies of the drivers in the checkout, and no settings of the person's own.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("NODE_OPTIONS").env_remove("PYTHONPATH");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io(driver.program.display(), &error))?;
    let mut child = Guarded::new(child);
    let output = child.child().stdout.take().ok_or_else(|| Failure(format!("{name} has no output")))?;
    let (sender, lines) = mpsc::channel();
    // Ends with the driver, whose end closes the pipe.
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });

    let deadline = Instant::now() + Duration::from_secs(DRIVER_SECONDS_MAX);
    let mut counts = Counts::default();
    loop {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("{} / FAILED: {name} was not done after {DRIVER_SECONDS_MAX} s", driver.client);
                counts.failed += 1;
                return Ok(counts);
            }
        };
        match Line::parse(&line) {
            Line::Ok { name } => {
                println!("{} / {name} ... ok", driver.client);
                counts.passed += 1;
            }
            Line::NotOk { name_and_why } => {
                println!("{} / {name_and_why} ... FAILED", driver.client);
                counts.failed += 1;
            }
            Line::Other => println!("{} says: {line}", driver.client),
        }
    }
    let status =
        child.wait_until(deadline).ok_or_else(|| Failure(format!("{name} has closed its output but does not end")))?;
    // A driver that breaks off has not made all its checks, whatever it printed before.
    let expected = if counts.failed > 0 { Some(1) } else { Some(0) };
    // With a text that no check's name contains it has nothing to do.
    let nothing_chosen = check.is_some() && status.code() == Some(2) && counts == Counts::default();
    if status.code() != expected && !nothing_chosen {
        println!("{} / FAILED: {name} ended with {status}, after {counts}", driver.client);
        counts.failed += 1;
    } else if counts == Counts::default() && !nothing_chosen {
        println!("{} / FAILED: {name} made no check", driver.client);
        counts.failed += 1;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_of_drivers_are_read() {
        assert_eq!(Line::parse("ok MQTT 5.0: Will"), Line::Ok { name: "MQTT 5.0: Will" });
        assert_eq!(Line::parse("not ok A: expected 1"), Line::NotOk { name_and_why: "A: expected 1" });
        assert_eq!(Line::parse("okay"), Line::Other);
    }

    fn run_script(text: &str) -> Counts {
        run_script_with(text, None)
    }

    fn run_script_with(text: &str, certificate: Option<PathBuf>) -> Counts {
        let folder = std::env::temp_dir().join(format!("pantala-xtask-{}-{}", std::process::id(), text.len()));
        std::fs::write(&folder, text).expect("a temporary file can be written");
        let program = Path::new("sh").into();
        let driver = Driver { client: Client::Mqttjs, program, script: folder.clone(), certificate };
        let counts = run_driver(&driver, None, "127.0.0.1", 1).expect("sh runs");
        std::fs::remove_file(folder).expect("the file is there");
        counts
    }

    #[test]
    fn a_driver_is_counted_by_its_lines() {
        assert_eq!(run_script("echo ok a; echo ok b"), Counts { passed: 2, failed: 0, skipped: 0 });
        assert_eq!(run_script("echo ok a; echo not ok b: why; exit 1"), Counts { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_driver_is_told_which_certificate_to_trust() {
        let script = "if [ \"$NODE_EXTRA_CA_CERTS\" = /broker.crt ]; then echo ok told; else exit 3; fi";
        let passed = Counts { passed: 1, failed: 0, skipped: 0 };
        assert_eq!(run_script_with(script, Some("/broker.crt".into())), passed);
        assert_ne!(run_script_with(script, None), passed);
    }

    #[test]
    fn a_driver_that_breaks_off_or_does_nothing_has_failed() {
        assert_eq!(run_script("echo ok a; exit 3"), Counts { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(run_script("echo ok a; kill -9 $$"), Counts { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(run_script("true"), Counts { passed: 0, failed: 1, skipped: 0 });
    }
}
