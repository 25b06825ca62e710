//! Programs and brokers, ours and Debian's, as processes that end with the test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::programs;
use crate::relay::{Relay, SUBACK};

pub const PANTALA: &str = env!("CARGO_BIN_EXE_pantala");
/// What is waited for has to come within this.
pub const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Waits until `probe` gives something; panics with what it waited for if that takes too long.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// A port that nobody has, below those that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from((std::process::id() * 64 + serial) % 20_000).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Whose a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Pantala,
    Debian,
}

/// A broker, killed when dropped.
pub struct Broker {
    child: Child,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Broker {
    /// With these lines of a mosquitto.conf behind its one listener, on a free port of 127.0.0.1.
    pub fn start(program: &Program, folder: &Path, lines: &str) -> Self {
        loop {
            let port = free_port();
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let log = folder.join(format!("broker-{serial}.log"));
            let file = folder.join(format!("broker-{serial}.conf"));
            fs::write(&file, format!("log_type all\nlistener {port} 127.0.0.1\n{lines}\n")).unwrap();
            let output = File::create(&log).unwrap();
            let child = program
                .command()
                .arg("-c")
                .arg(&file)
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(output.try_clone().unwrap())
                .stderr(output)
                .spawn()
                .unwrap();
            let mut broker = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), log };
            let listens = wait_for("a broker that accepts", || {
                let ended = broker.child.try_wait().unwrap().is_some();
                let accepts = || TcpStream::connect(broker.address).is_ok().then_some(true);
                if ended { Some(false) } else { accepts() }
            });
            if listens {
                return broker;
            }
            // Somebody else may have got the port.
            let log = fs::read_to_string(&broker.log).unwrap();
            assert!(log.to_lowercase().contains("in use"), "the broker does not start: {log}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let from = log.lines().count().saturating_sub(30);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            println!("{}", tail.join("\n"));
        }
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A program with its first arguments.
#[derive(Clone)]
pub struct Program(Vec<OsString>);

impl Program {
    pub fn pantala(subcommand: &str) -> Self {
        Self(vec![PANTALA.into(), subcommand.into()])
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // No flags from files of the person's own.
        command.env("HOME", "/nonexistent").env("XDG_CONFIG_HOME", "/nonexistent").env("TZ", "UTC");
        command
    }

    /// As a shell has it.
    pub fn words(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        words.join(" ")
    }
}

/// What a program printed, and how it ended: None is by a signal.
#[derive(Debug)]
pub struct Printed {
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub status: Option<i32>,
}

impl Printed {
    #[track_caller]
    pub fn is(&self, stdout: impl AsRef<[u8]>, status: i32) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stdout = stdout.as_ref();
        assert_eq!((text(&self.stdout), self.status), (text(stdout), Some(status)), "it said: {}", self.stderr);
        assert_eq!(self.stdout, stdout);
    }
}

/// A program under way, killed when dropped.
pub struct Running {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
    relay: Option<Relay>,
}

impl Running {
    /// Waits until the broker has sent it a packet of this type.
    pub fn wait_for_packet(&self, packet_type: u8) {
        self.relay.as_ref().expect("it is watched").wait_for(packet_type);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> Vec<u8> {
        fs::read(&self.output).unwrap()
    }

    pub fn wait_for_stdout(&self, text: &str) {
        wait_for(&format!("{text:?} on standard output"), || {
            String::from_utf8_lossy(&self.stdout()).contains(text).then_some(())
        });
    }

    pub fn wait_for_stderr(&self, text: &str) {
        wait_for(&format!("{text:?} on standard error"), || {
            String::from_utf8_lossy(&fs::read(&self.errors).unwrap()).contains(text).then_some(())
        });
    }

    /// Waits for its end.
    pub fn end(mut self) -> Printed {
        let status = wait_for("the end of a program", || self.child.try_wait().unwrap());
        let stderr = String::from_utf8_lossy(&fs::read(&self.errors).unwrap()).into_owned();
        Printed { stdout: self.stdout(), stderr, status: status.code() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            let (stdout, stderr) = (self.stdout(), fs::read(&self.errors).unwrap_or_default());
            println!("it printed: {}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        }
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a command with this standard input.
pub fn start(mut command: Command, folder: &Path, stdin: &[u8], relay: Option<Relay>) -> Running {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let (output, errors) = (folder.join(format!("{serial}.out")), folder.join(format!("{serial}.err")));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(File::create(&output).unwrap())
        .stderr(File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    // What is not read is not missed.
    drop(child.stdin.take().unwrap().write_all(stdin));
    Running { child, output, errors, relay }
}

/// Clients of one maker, with a broker.
pub struct Suite {
    /// Whose the clients are.
    pub clients: Maker,
    /// Whose the broker is.
    pub maker: Maker,
    publish: Program,
    subscribe: Program,
    request: Program,
    pub broker: Broker,
    pub folder: tempfile::TempDir,
}

/// Plays the scene with each suite there is. Anonymous clients are let in.
pub fn with_each_suite(test: &str, scene: impl Fn(&Suite)) {
    with_brokers(test, &[Maker::Pantala, Maker::Debian], |_| "allow_anonymous true".to_owned(), scene);
}

/// The same with these brokers, and lines of a mosquitto.conf that may name files of the folder.
pub fn with_brokers(test: &str, brokers: &[Maker], lines: impl Fn(&Path) -> String, scene: impl Fn(&Suite)) {
    let names = ["mosquitto", "mosquitto_pub", "mosquitto_sub", "mosquitto_rr"];
    let debian = programs::find(test, names).map(|files| files.map(|file| Program(vec![file.into()])));
    let ours = ["broker", "pub", "sub", "rr"].map(Program::pantala);
    for (clients, maker) in
        [(Maker::Pantala, Maker::Pantala), (Maker::Pantala, Maker::Debian), (Maker::Debian, Maker::Debian)]
    {
        let of = |maker| if maker == Maker::Pantala { Some(&ours) } else { debian.as_ref() };
        let (Some([_, publish, subscribe, request]), Some([broker, ..])) = (of(clients), of(maker)) else { continue };
        if !brokers.contains(&maker) {
            continue;
        }
        println!("-- clients: {clients:?}, broker: {maker:?}");
        let folder = tempfile::tempdir().unwrap();
        let mut lines = lines(folder.path());
        if maker == Maker::Debian && rustix::process::geteuid().is_root() {
            // It would become another user, who cannot read what is in the folder.
            lines += "\nuser root";
        }
        let broker = Broker::start(broker, folder.path(), &lines);
        let (publish, subscribe, request) = (publish.clone(), subscribe.clone(), request.clone());
        scene(&Suite { clients, maker, publish, subscribe, request, broker, folder });
    }
}

impl Suite {
    fn start(&self, program: &Program, arguments: &[&str], stdin: &[u8]) -> Running {
        let relay = Relay::new(self.broker.address);
        let mut command = program.command();
        command.args(["-h", "127.0.0.1", "-p", &relay.address.port().to_string()]).args(arguments);
        start(command, self.folder.path(), stdin, Some(relay))
    }

    /// With no address of its own.
    pub fn run_bare(&self, name: &str, arguments: &[&str]) -> Printed {
        let program = match name {
            "pub" => &self.publish,
            "sub" => &self.subscribe,
            _ => &self.request,
        };
        let mut command = program.command();
        command.args(arguments);
        start(command, self.folder.path(), b"", None).end()
    }

    /// Publishes, and waits for the end.
    pub fn publish(&self, arguments: &[&str]) -> Printed {
        self.publish_input(arguments, b"")
    }

    /// The same with this standard input.
    pub fn publish_input(&self, arguments: &[&str], stdin: &[u8]) -> Printed {
        self.start(&self.publish, arguments, stdin).end()
    }

    /// Publishes what has to arrive.
    #[track_caller]
    pub fn published(&self, arguments: &[&str]) {
        self.publish(arguments).is("", 0);
    }

    /// Subscribes, and waits for the end.
    pub fn subscribe(&self, arguments: &[&str]) -> Printed {
        self.start(&self.subscribe, arguments, b"").end()
    }

    /// The same with the files of options in this folder, and no port of its own.
    pub fn subscribe_in(&self, options: &Path, arguments: &[&str]) -> Printed {
        let mut command = self.subscribe.command();
        command.env("XDG_CONFIG_HOME", options).args(["-h", "127.0.0.1"]);
        command.args(["-p", &self.broker.address.port().to_string()]).args(arguments);
        start(command, self.folder.path(), b"", None).end()
    }

    /// Subscribes, and waits until the broker has acknowledged that.
    pub fn subscribed(&self, arguments: &[&str]) -> Running {
        let running = self.start(&self.subscribe, arguments, b"");
        running.wait_for_packet(SUBACK);
        running
    }

    /// Sends a request, and does not wait.
    pub fn request(&self, arguments: &[&str]) -> Running {
        self.start(&self.request, arguments, b"")
    }

    /// The words of `sub` for a shell, with the broker's address.
    pub fn subscribe_words(&self) -> String {
        format!("{} -h 127.0.0.1 -p {}", self.subscribe.words(), self.broker.address.port())
    }

    /// A file of the folder with these bytes; its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Runs `pantala` with these arguments to its end.
pub fn pantala<A: AsRef<OsStr>>(folder: &Path, subcommand: &str, arguments: &[A], stdin: &[u8]) -> Printed {
    let mut command = Program::pantala(subcommand).command();
    command.args(arguments);
    start(command, folder, stdin, None).end()
}
