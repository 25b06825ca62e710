//! The program under test as a process: started, watched, ended by its number.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

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

/// A directory of its own for each test; removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pantala-cli-{}-{serial}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed has gone by itself.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// `pantala broker`, running or ended. Killed when dropped.
pub struct Broker {
    child: Child,
    pub folder: Folder,
}

impl Broker {
    /// With a configuration in TOML, without listeners: it gets one on a free port of 127.0.0.1, and is waited for.
    pub fn start(toml: &str) -> Self {
        Self::start_limited(toml, None)
    }

    /// The same with so many descriptors at the most.
    pub fn start_limited(toml: &str, descriptors_max: Option<u32>) -> Self {
        let folder = Folder::new();
        let file = folder.write("pantala.toml", &format!("{toml}\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n"));
        let broker = Self::spawn(folder, &["-c".as_ref(), file.as_os_str()], descriptors_max);
        TcpStream::connect(broker.address()).unwrap();
        broker
    }

    /// With these arguments, and not waited for.
    pub fn with_arguments<A: AsRef<OsStr>>(folder: Folder, arguments: &[A]) -> Self {
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        Self::spawn(folder, &arguments, None)
    }

    /// The same with these variables.
    pub fn with_environment(folder: Folder, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        Self::spawn_with(folder, &arguments, None, environment)
    }

    fn spawn(folder: Folder, arguments: &[&OsStr], descriptors_max: Option<u32>) -> Self {
        Self::spawn_with(folder, arguments, descriptors_max, &[])
    }

    fn spawn_with(
        folder: Folder,
        arguments: &[&OsStr],
        descriptors_max: Option<u32>,
        environment: &[(&str, &str)],
    ) -> Self {
        let program = env!("CARGO_BIN_EXE_pantala");
        let mut command = match descriptors_max {
            None => Command::new(program),
            Some(limit) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(program);
                command
            }
        };
        let log = File::create(folder.path("log")).unwrap();
        let child = command
            .arg("broker")
            .args(arguments)
            .env_clear()
            .env("HOME", folder.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            .current_dir(folder.path("."))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path("log")).unwrap()).into_owned()
    }

    /// Waits until it has said `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_for(&format!("\"{text}\" in the log"), || Some(self.log()).filter(|log| log.contains(text)))
    }

    /// Where it listens, as it says itself, once it has said all of it.
    pub fn listening_on(&mut self) -> Vec<String> {
        let log = wait_for("a broker that listens", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the broker ended with {status}: {}", self.log());
            }
            Some(self.log()).filter(|log| log.contains("Durability: "))
        });
        let lines = log.lines().filter_map(|line| line.split_once("Listening on ")).map(|(_, rest)| rest);
        lines.map(|rest| rest.split_once(' ').map_or(rest, |(address, _)| address).to_owned()).collect()
    }

    /// Whether it has ended, once it listens or has.
    pub fn ends_before_it_listens(&mut self) -> bool {
        wait_for("a broker that listens or ends", || {
            let ended = self.child.try_wait().unwrap().is_some();
            (ended || self.log().contains("Durability: ")).then_some(ended)
        })
    }

    /// The address of its first TCP listener.
    pub fn address(&self) -> SocketAddr {
        let log = self.wait_for_log("Durability: ");
        let line = log.lines().find_map(|line| line.split_once("Listening on ")).expect("it listens").1;
        line.split(' ').next().unwrap().parse().unwrap()
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it that its log file has been moved away.
    pub fn reopen(&self) {
        let status = Command::new("kill").args(["-s", "RTMIN", &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it until `Signal::CONT`, and waits until all its threads stand still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_for("a broker that stands still", || {
            let still = |task: fs::DirEntry| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap();
                stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
            };
            fs::read_dir(&tasks).unwrap().all(|task| still(task.unwrap())).then_some(())
        });
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the end of the broker", || self.child.try_wait().unwrap())
    }

    /// Waits for its end for so long at the most.
    pub fn wait_at_most(&mut self, duration: Duration) -> ExitStatus {
        let start = Instant::now();
        let status = self.wait();
        assert!(start.elapsed() <= duration, "it took {:?} to end", start.elapsed());
        status
    }

    /// Fails if it has ended, or one of its threads has panicked.
    pub fn check(&mut self) {
        let ended = self.child.try_wait().unwrap();
        let log = self.log();
        assert!(ended.is_none(), "the broker has ended with {ended:?}: {log}");
        assert!(!log.contains("panicked at"), "a thread has panicked: {log}");
    }

    /// A counter summed over the workers, by a report that it is asked for.
    pub fn counter(&self, name: &str) -> u64 {
        let lines = |log: &str| log.lines().filter(|line| line.contains("Worker ")).count();
        let (before, workers) = {
            let log = self.log();
            let workers = log.split_once("starting with ").expect("it has started").1;
            (lines(&log), workers.split(' ').next().unwrap().parse::<usize>().unwrap())
        };
        self.signal(Signal::USR1);
        let log = wait_for("a report", || Some(self.log()).filter(|log| lines(log) >= before + workers));
        let report = log.lines().filter(|line| line.contains("Worker ")).skip(before);
        report
            .flat_map(|line| line.split(' '))
            .filter_map(|word| word.split_once('='))
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value.parse::<u64>().unwrap())
            .sum()
    }

    /// A counter of the verification of credentials, by a report that it is asked for.
    pub fn security_counter(&self, name: &str) -> u64 {
        let lines = |log: &str| {
            log.lines()
                .filter(|line| line.contains("Credentials: ") && line.ends_with(|c: char| c.is_ascii_digit()))
                .count()
        };
        let before = lines(&self.log());
        self.signal(Signal::USR1);
        let log = wait_for("a report", || Some(self.log()).filter(|log| lines(log) > before));
        let line = log.lines().rfind(|line| line.contains("Credentials: ")).expect("a report");
        let found = line.split(' ').filter_map(|word| word.split_once('=')).find(|(found, _)| *found == name);
        found.map_or(0, |(_, value)| value.parse().unwrap())
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join(name)).unwrap()
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of /proc");
        line.trim_start_matches(':').trim().split(' ').next().unwrap().parse().unwrap()
    }

    /// Bytes of memory it has had at the most.
    pub fn peak_bytes(&self) -> u64 {
        self.status_kib("VmHWM") * 1_024
    }

    /// Processor time it has used, with a resolution of 10 ms.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // The second field is a name in parentheses, with whatever in it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Those that are not files: what it stores is in files, and those it may open at any time.
    pub fn descriptors_but_files(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        open.filter(|entry| !fs::read_link(entry.path()).is_ok_and(|target| target.is_absolute())).count()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            // Printed with the failure, as the folder goes with it.
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            drop(std::io::Write::write_all(&mut std::io::stderr(), (tail.join("\n") + "\n").as_bytes()));
        }
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
