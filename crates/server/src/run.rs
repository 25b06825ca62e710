//! From a configuration to a running broker, and its end.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use pantala_broker::authentication::{Brake, Method, ScramSha256};
use pantala_broker::{Core, CoreOptions, DurabilityRule, Random, ScramUser, Totals, WORKERS_MAX, WorkerId};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::config::{Config, Listener, LogType, Protocol, Source};
use crate::guard::{self, Addresses, Memory};
use crate::inbox::{Inbox, Letter};
use crate::listen;
use crate::log::{Log, shown};
use crate::pid_file::PidFile;
use crate::reload::{Commit, Places, Reloadable, Reloader, ReloaderOptions};
use crate::reporter::{self, Reporter, Rhythm};
use crate::security::{self, Security, Surroundings};
use crate::stage::Entry;
use crate::storage::{self, Storage};
use crate::tls::Certificates;
use crate::user::{self, Given, User};
use crate::worker::{Clock, Doors, WAKER, Worker};

/// Why a broker cannot run.
#[derive(Debug)]
pub enum RunError {
    /// What was written cannot be, by what is known of this machine.
    Configuration(String),
    /// A listener cannot be opened.
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The data directory cannot be used.
    Storage(String),
    /// The log file cannot be opened.
    Log {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Certificates cannot be used.
    Tls(String),
    /// A user of the configuration cannot be one, or cannot be become.
    User(String),
    /// A file with users, rules or keys cannot be used.
    Security(String),
    /// The number of the process cannot be written.
    PidFile {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system refuses what every broker needs: threads, pollers, signals, random bytes.
    System(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: it is in use, by another broker perhaps; -p takes another port")
            }
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::PidFile { path, error } => write!(f, "cannot write the pid file {}: {error}", path.display()),
            Self::Log { path, error } => write!(f, "cannot open the log file {}: {error}", path.display()),
            Self::Configuration(text)
            | Self::Storage(text)
            | Self::Tls(text)
            | Self::User(text)
            | Self::Security(text) => f.write_str(text),
            Self::System(error) => write!(f, "the system does not let a broker run: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// Only a file can fail.
    pub(crate) fn log(config: &Config, error: io::Error) -> Self {
        Self::Log { path: config.log.file.clone().unwrap_or_default(), error }
    }

    /// Whether it comes from what was written, in the configuration or a file that it names: then the status is the same as for a mistake
    /// in the configuration.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Configuration(_) | Self::Security(_))
    }
}

/// Runs a broker until SIGTERM or SIGINT; a second one stops it at once. SIGHUP reads the configuration again from `source`, where
/// it came from.
///
/// # Errors
/// See [`RunError`]. Nothing is left running.
pub fn run(config: Config, source: Source) -> Result<(), RunError> {
    run_then(config, source, || {})
}

/// The same; `ready` is called once clients can connect.
///
/// It has to be called before the process has threads, if the configuration names a user to be become.
///
/// # Errors
/// See [`RunError`]. Nothing is left running.
pub fn run_then(config: Config, source: Source, ready: impl FnOnce()) -> Result<(), RunError> {
    let log = Log::open(config.log.clone()).map_err(|error| RunError::log(&config, error))?;
    for warning in &config.warnings {
        log.line(LogType::Warning, &format!("Warning: {warning}"));
    }
    // Before the first listener, so that a signal that comes early is not lost.
    let mut signals = Signals::new(SIGNALS.into_iter().chain(reopen_signal())).map_err(RunError::System)?;
    if let Some(problem) = listen::collision(&config) {
        return Err(RunError::Configuration(problem));
    }
    let certificates = Certificates::load(&config, &log)?;
    let entries = config.listeners.iter().zip(&certificates.listeners);
    let entries = entries.map(|(listener, tls)| Arc::new(Entry::new(listener.transport.clone(), tls.clone())));
    let places = Places::open(&config, entries.collect(), &log)?;
    let workers = worker_count(config.workers);
    let mut secret = [0; 32];
    let fill = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()));
    fill(&mut secret).map_err(RunError::System)?;
    let scram = Scram { secret };
    let methods = scram.methods(&config.settings.scram_users)?;
    let mut security_secret = [0; 32];
    fill(&mut security_secret).map_err(RunError::System)?;
    let settings = Arc::new(config.settings.clone());
    let totals = Arc::new(Totals::new(settings.listeners.len()));
    // Before anything is made that it could not use.
    let user = user_to_become(&config, &log)?;
    let mut storage = Storage::open(&config, workers as u8, &log)?;
    if let Some((name, user)) = &user {
        // Before another file comes to lie beside the store.
        give_what_it_needs(name, user, &config, &log)?;
        for (socket, _) in places.sockets() {
            if let Some(path) = socket.unix_path() {
                user.give_socket(&path).map_err(|error| cannot_become(name, &error))?;
            }
        }
    }
    let pid_file = match &config.pid_file {
        Some(path) => Some(PidFile::write(path).map_err(|error| RunError::PidFile { path: path.clone(), error })?),
        None => None,
    };
    let clock = Clock::start(storage.now);
    let surroundings = Surroundings {
        allow_anonymous: settings.listeners.iter().map(|listener| listener.allow_anonymous).collect(),
        bounds: config.verification,
        patience: Duration::from_secs(settings.connect_seconds.into()),
        scram_users: security::scram_users(&config),
        described: config.control_api.then(|| security::Described::of(&config)),
        secret: security_secret,
        clock,
        log: log.clone(),
    };
    let security = Security::new(config.security.clone(), surroundings);
    let security = security.map_err(|error| RunError::Security(error.within(&config)))?;
    // What only root can read has been read, and no thread runs yet.
    if let Some((name, user)) = user {
        user.become_it().map_err(|error| cannot_become(name, &error))?;
    }

    let mut polls = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..workers {
        let poll = Poll::new().map_err(RunError::System)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(RunError::System)?;
        inboxes.push(Inbox::new(waker));
        polls.push(poll);
    }
    let inboxes: Arc<[Arc<Inbox>]> = inboxes.into();
    security.serve_commands(&inboxes);
    let mut cores = Vec::new();
    for (index, store) in std::mem::take(&mut storage.stores).into_iter().enumerate() {
        let id = WorkerId(index as u8);
        // Read once per client at most, and never from a source that can fail after the first time.
        let random: Random =
            Box::new(|bytes| getrandom::fill(bytes).expect("the system has given random bytes before"));
        let options = CoreOptions {
            settings: Arc::clone(&settings),
            worker: id,
            workers: workers as u8,
            totals: Arc::clone(&totals),
            methods: Arc::clone(&methods),
            brake: Arc::clone(&security) as Arc<dyn Brake>,
            rights: security.rights_source(),
            random,
        };
        cores.push(Core::new(options, store));
    }
    storage.restore(&mut cores);
    reporter::publish_log(&log, &inboxes);
    let addresses = Addresses::new(config.connections_per_address_max, config.connections_per_address_per_second_max);
    let activity = storage.activity.clone();
    let running = storage.run(clock, log.clone(), {
        let inboxes = Arc::clone(&inboxes);
        move |worker| inboxes[worker].nudge()
    })?;
    let mut threads = Vec::new();
    for (index, (poll, core)) in polls.into_iter().zip(cores).enumerate() {
        let id = WorkerId(index as u8);
        let listeners = places.for_worker().map_err(RunError::System)?;
        let doors = Doors { listeners, entries: places.entries(), addresses: Arc::clone(&addresses) };
        let worker =
            Worker::new(id, core, poll, clock, log.clone(), doors, Arc::clone(&inboxes), Arc::clone(&security));
        let worker = worker.map_err(RunError::System)?;
        let thread = thread::Builder::new().name(format!("worker-{index}")).spawn({
            let last_word = LastWord(Arc::clone(&inboxes));
            move || {
                let _last_word = last_word;
                worker.run()
            }
        });
        threads.push(thread.map_err(RunError::System)?);
    }
    let reporter = Reporter {
        log: log.clone(),
        inboxes: Arc::clone(&inboxes),
        totals: Arc::clone(&totals),
        security: Arc::clone(&security),
        activity: activity.clone(),
        durability: config.durability,
        rhythm: Rhythm::of(&config),
        watchdog: sd_notify::watchdog_enabled(),
    };
    let reporting = reporter.start().map_err(RunError::System)?;
    announce(&config, &log, &places, workers);

    let watch = certificates.watch(log.clone()).map_err(RunError::System)?;
    let report_certificates = watch.reporter(log.clone());
    // What was read from other files than the configuration, to be read again with it. Certificates are read with their
    // listeners.
    let reloadables: Vec<Box<dyn Reloadable>> =
        vec![Box::new(scram), Box::new(Arc::clone(&security)), Box::new(addresses), Box::new(reporting.reloadable())];
    let mut reloader = Reloader::new(ReloaderOptions {
        source,
        config,
        places,
        log: log.clone(),
        totals: Arc::clone(&totals),
        inboxes: Arc::clone(&inboxes),
        certificates: watch.handle(),
        reloadables,
    });
    let left_behind = reloader.left_behind();
    // One that waits is enough, however many signals come: it reads what is there then.
    let (reload, reloads) = mpsc::sync_channel::<()>(1);
    let reload = Arc::new(Mutex::new(Some(reload)));
    let reloading = thread::Builder::new().name("reload".to_owned()).spawn(move || {
        for () in reloads {
            reloader.reload();
        }
        reloader
    });
    let reloading = reloading.map_err(RunError::System)?;
    ready();
    // Nobody may be there to be told.
    drop(sd_notify::notify(&[NotifyState::Ready]));
    let handle = signals.handle();
    let (watch_log, watch_inboxes) = (log.clone(), Arc::clone(&inboxes));
    let watch_activity = activity.clone();
    let watch_security = Arc::clone(&security);
    let watch_reload = Arc::clone(&reload);
    let watcher = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut ending = false;
        for signal in &mut signals {
            match signal {
                SIGTERM | SIGINT if ending => {
                    watch_log.line(LogType::Notice, "Stopped at once.");
                    std::process::exit(1);
                }
                SIGTERM | SIGINT => {
                    ending = true;
                    watch_log.line(LogType::Notice, "Stopping; a second signal stops at once.");
                    drop(sd_notify::notify(&[NotifyState::Stopping]));
                    watch_inboxes.iter().for_each(|inbox| inbox.send(Letter::ShutDown));
                }
                // It fails where one waits already.
                SIGHUP => drop(lock(&watch_reload).as_ref().map(|reload| reload.try_send(()))),
                SIGUSR2 => watch_inboxes.iter().for_each(|inbox| inbox.send(Letter::Dump)),
                signal if Some(signal) == reopen_signal() => watch_log.reopen(),
                // Mosquitto saves its snapshot on SIGUSR1; here nothing waits to be saved.
                _ => {
                    watch_log.tell_held_back();
                    watch_inboxes.iter().for_each(|inbox| inbox.send(Letter::Report));
                    watch_log.line(LogType::Information, &watch_security.report());
                    storage::report(watch_activity.as_ref(), &watch_log);
                    report_certificates();
                }
            }
        }
    });
    let watcher = watcher.map_err(RunError::System)?;
    let mut result = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => result = Err(RunError::System(error)),
            Err(_) => result = Err(RunError::System(io::Error::other("a worker ended unexpectedly"))),
        }
    }
    // What the workers had to say last is down before the process ends.
    reporting.stop();
    let stopped = running.stop();
    storage::report(activity.as_ref(), &log);
    if result.is_ok() {
        result = stopped;
    }
    // No reload begins any more. Signals are heard to the end, as a second one stops at once.
    drop(lock(&reload).take());
    match join_within(reloading, END_PATIENCE) {
        // Sockets in the file system go with it.
        Some(Ok(reloader)) => {
            reloader.close();
            // The certificates are looked at by nobody else. If that takes long, the process ends without it.
            watch.stop(END_PATIENCE);
        }
        // One that has panicked has let its sockets go.
        Some(Err(_)) => watch.stop(END_PATIENCE),
        None => {
            log.line(
                LogType::Warning,
                "Warning: a reload is still reading its files, which do not answer; the broker ends without it.",
            );
            left_behind.remove(&log);
        }
    }
    if let Some(pid_file) = pid_file {
        pid_file.remove(&log);
    }
    handle.close();
    // The watcher cannot fail; should it panic, the broker has ended all the same.
    drop(watcher.join());
    log.tell_held_back();
    if result.is_ok() {
        log.line(LogType::Notice, "Stopped.");
    }
    result
}

/// How long the end waits for a reload that is under way, and for a look at certificates. Files of a network that is gone may not answer
/// for hours.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether they have ended.
const END_STEP: Duration = Duration::from_millis(2);

/// What a thread has come to, if it ends in time; else it is left to itself.
pub(crate) fn join_within<T>(thread: JoinHandle<T>, patience: Duration) -> Option<thread::Result<T>> {
    let begun = Instant::now();
    while !thread.is_finished() {
        if begun.elapsed() >= patience {
            return None;
        }
        thread::sleep(END_STEP);
    }
    Some(thread.join())
}

/// Nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SIGNALS: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];

/// The signal that has the log file opened anew, where there is one.
fn reopen_signal() -> Option<i32> {
    #[cfg(target_os = "linux")]
    return Some(libc::SIGRTMIN());
    #[cfg(not(target_os = "linux"))]
    None
}

/// The user that a process of root's is to go on as, if it can keep what is to be kept.
fn user_to_become<'c>(config: &'c Config, log: &Log) -> Result<Option<(&'c str, User)>, RunError> {
    if !user::is_root() {
        return Ok(None);
    }
    let Some(name) = config.user.as_deref() else {
        log.line(
            LogType::Warning,
            "Warning: running as root; broker.user (user in a mosquitto.conf) names somebody else.",
        );
        return Ok(None);
    };
    let user = User::named(name).map_err(|error| cannot_become(name, &error))?;
    if let Some(data_dir) = storage::data_dir(config) {
        user.can_keep(name, data_dir, storage::FOLDER, Given::Before).map_err(RunError::User)?;
    }
    Ok(Some((name, user)))
}

/// Gives the user what is root's of the store and the log file, and sees that it can go on with the store.
fn give_what_it_needs(name: &str, user: &User, config: &Config, log: &Log) -> Result<(), RunError> {
    if let Some(data_dir) = storage::data_dir(config) {
        user.give_folder(data_dir, storage::FOLDER).map_err(|error| cannot_become(name, &error))?;
        user.can_keep(name, data_dir, storage::FOLDER, Given::After).map_err(RunError::User)?;
    }
    log.give_to(user.uid, user.gid).map_err(|error| cannot_become(name, &error))
}

fn cannot_become(name: &str, error: &dyn fmt::Display) -> RunError {
    RunError::User(format!("cannot become user {}: {error}", shown(name)))
}

/// Ends all workers when one ends, for whatever reason: its Sessions are at home with no other.
struct LastWord(Arc<[Arc<Inbox>]>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.iter().for_each(|inbox| inbox.send(Letter::ShutDown));
    }
}

/// Authentication by SCRAM.
struct Scram {
    secret: [u8; 32],
}

impl Scram {
    fn methods(&self, users: &[ScramUser]) -> Result<Arc<[Box<dyn Method>]>, RunError> {
        if users.is_empty() {
            return Ok(Arc::new([]));
        }
        let scram = ScramSha256::new(users, self.secret).map_err(|error| RunError::User(error.to_string()))?;
        Ok(Arc::new([Box::new(scram) as Box<dyn Method>]))
    }
}

impl Reloadable for Scram {
    fn prepare(&mut self, old: &Config, new: &Config) -> Result<Commit, String> {
        let (old, new) = (&old.settings.scram_users, &new.settings.scram_users);
        let methods = match old == new {
            true => None,
            false => Some(self.methods(new).map_err(|error| error.to_string())?),
        };
        Ok(Box::new(move |committed| {
            if let Some(methods) = methods {
                committed.inboxes.iter().for_each(|inbox| inbox.send(Letter::Methods(Arc::clone(&methods))));
            }
            // They are told of as changes of the configuration.
            Vec::new()
        }))
    }
}

fn worker_count(wanted: Option<NonZeroUsize>) -> usize {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    wanted.unwrap_or(cores).get().min(usize::from(WORKERS_MAX))
}

fn announce(config: &Config, log: &Log, places: &Places, workers: usize) {
    let version = env!("CARGO_PKG_VERSION");
    let plural = if workers == 1 { "worker" } else { "workers" };
    log.line(LogType::Notice, &format!("Pantala {version} starting with {workers} {plural}."));
    // Listeners and durability have lines of their own below.
    let elsewhere = |line: &&str| line.starts_with("listener") || line.starts_with("durability of ");
    for line in config.describe().lines().filter(|line| !elsewhere(line)) {
        log.line(LogType::Information, &format!("  {line}"));
    }
    for (socket, listener) in places.sockets() {
        let anonymous = config.settings.listeners.get(usize::from(listener)).is_some_and(|it| it.allow_anonymous);
        let who = if anonymous { "anonymous clients allowed" } else { "anonymous clients refused" };
        let how = config.listeners.get(usize::from(listener)).map(what_is_spoken).unwrap_or_default();
        log.line(LogType::Notice, &format!("Listening on {} ({how}{who}).", socket.local_address()));
    }
    log.line(LogType::Notice, &storage::describe(config));
    let resident = Memory::now().map(|memory| memory.resident);
    if let Some(text) = guard::too_little(guard::memory_max(config.memory_bytes_max), resident) {
        log.line(LogType::Warning, &format!("Warning: {text}"));
    }
    for DurabilityRule { filter, level } in &config.settings.durability_rules {
        log.line(LogType::Notice, &format!("Durability of {}: {level}.", shown(filter)));
    }
    let ports = places.sockets().filter_map(|(socket, listener)| Some((socket.port()?, usize::from(listener))));
    // The easiest to try comes first.
    let flags = |listener: usize| config.listeners.get(listener).map(how_to_connect).unwrap_or_default();
    if let Some((port, listener)) = ports.min_by_key(|(_, listener)| flags(*listener).len()) {
        let port = if port == 1883 { String::new() } else { format!("-p {port} ") };
        let flags = port + &flags(listener);
        log.line(
            LogType::Notice,
            &format!("Try it: mosquitto_sub {flags}-t '#' -v   and elsewhere: mosquitto_pub {flags}-t a/b -m hi -q 2"),
        );
    }
}

/// What a connection to this listener begins with, where it is not MQTT itself.
fn what_is_spoken(listener: &Listener) -> String {
    let mut words = String::new();
    if listener.transport.proxy_protocol.is_some() {
        words += "PROXY, ";
    }
    if listener.tls.is_some() {
        words += if listener.transport.allow_plain_text { "with and without TLS, " } else { "TLS, " };
    }
    words += match listener.transport.protocol {
        Protocol::Mqtt => "",
        Protocol::WebSocket => "WebSocket, ",
        Protocol::Any => "MQTT and WebSocket, ",
    };
    words
}

/// The flags that a client needs for this listener.
fn how_to_connect(listener: &Listener) -> String {
    let mut flags = String::new();
    if listener.transport.protocol == Protocol::WebSocket {
        flags += "--ws ";
    }
    if listener.tls.is_some() {
        flags += "--cafile CA.pem ";
    }
    if !listener.settings.allow_anonymous {
        flags += "-u NAME -P PASSWORD ";
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end waited for a reload, and that for a file that did not answer.
    #[test]
    fn a_thread_that_is_held_up_is_waited_for_only_so_long() {
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = thread::spawn(move || receiver.recv());
        assert!(join_within(thread, Duration::from_millis(20)).is_none());
        drop(sender);
        let thread = thread::spawn(|| 7);
        assert!(matches!(join_within(thread, Duration::from_secs(20)), Some(Ok(7))));
    }
}
