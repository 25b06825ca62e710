//! The configuration read again, while the broker runs: on SIGHUP, all of it or nothing.
//!
//! What can be wrong is found first: the file is read, what it names is opened, new sockets are bound. Only when nothing can fail
//! any more does anything change. Those who keep something that was read from a file of its own (passwords, rules,
//! certificates) are [`Reloadable`]; `run.rs` lists them.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use pantala_broker::{ListenerId, ListenerSettings, Settings, Totals};
use pantala_store::Durability;
use sd_notify::NotifyState;

use crate::config::{Config, Effective, ListenAddress, Listener as Wanted, LogType, SocketDomain, Source};
use crate::inbox::{Inbox, Letter};
use crate::listen::{self, Bound, Listener};
use crate::log::{Log, Opened, shown};
use crate::run::RunError;
use crate::stage::Entry;
use crate::tls::{Prepared, TlsListener, WatchHandle};

/// Listeners that may have been there since the start, at the most: each keeps its number.
const LISTENERS_MAX: usize = 60_000;

/// How long a reload waits for workers before it says what has changed.
const WORKERS_PATIENCE: Duration = Duration::from_millis(500);

/// Something that was read from files besides the configuration, and can be read again.
pub(crate) trait Reloadable: Send {
    /// Reads what `new` names; `old` is in force. Nothing changes before the result is called, which it never is if the reload
    /// fails elsewhere. What is wrong is said in one line, with the file.
    fn prepare(&mut self, old: &Config, new: &Config) -> Result<Commit, String>;
}

/// Puts in force what has been read, before the workers are told of the settings. What it returns is logged, a line each.
pub(crate) type Commit = Box<dyn FnOnce(&Committed<'_>) -> Vec<String>>;

/// What a reload has come to.
pub(crate) struct Committed<'a> {
    /// For each listener that there is or was, by its number, whether clients may be anonymous there.
    pub(crate) allow_anonymous: &'a [bool],
    pub(crate) inboxes: &'a [Arc<Inbox>],
}

/// Where a listener is in the core's numbers, which it keeps as long as the broker runs.
struct Place {
    /// Its address, and which one of those with this address it is: port 0 may be there twice.
    key: (ListenAddress, usize),
    settings: ListenerSettings,
    socket_domain: SocketDomain,
    no_delay: bool,
    /// What its connections begin with.
    entry: Arc<Entry>,
    /// Empty where it is closed, or could not be opened and need not.
    sockets: Vec<Bound>,
}

/// The listening sockets. A listener's position is its [`ListenerId`].
pub(crate) struct Places(Vec<Place>);

/// Where a listener is or would be, by its address.
fn keys(listeners: &[Wanted]) -> Vec<(ListenAddress, usize)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut nth = |address: &ListenAddress| {
        let count = seen.entry(address.to_string()).or_default();
        *count += 1;
        *count
    };
    listeners.iter().map(|listener| (listener.address.clone(), nth(&listener.address))).collect()
}

impl Places {
    /// Opens what the configuration asks for.
    pub(crate) fn open(config: &Config, entries: Vec<Arc<Entry>>, log: &Log) -> Result<Self, RunError> {
        let mut places = Vec::with_capacity(config.listeners.len());
        let mut skipped = None;
        for ((wanted, key), entry) in config.listeners.iter().zip(keys(&config.listeners)).zip(entries) {
            let sockets = bind(wanted)?.unwrap_or_else(|error| {
                let address = wanted.address.to_string();
                log.line(LogType::Warning, &format!("Warning: not listening on {address}: {error}"));
                skipped = Some((address, error));
                Vec::new()
            });
            places.push(Place::new(key, wanted, entry, sockets));
        }
        match skipped {
            Some((address, error)) if places.iter().all(|place| place.sockets.is_empty()) => {
                Err(RunError::Listen { address, error })
            }
            _ => Ok(Self(places)),
        }
    }

    /// The open sockets, with the numbers of their listeners.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (&Bound, ListenerId)> {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(id, place)| place.sockets.iter().map(move |socket| (socket, id as ListenerId)))
    }

    /// The same sockets for one worker more.
    pub(crate) fn for_worker(&self) -> io::Result<Vec<(Listener, ListenerId)>> {
        let places = self.0.iter().enumerate();
        let lists = places.map(|(id, place)| for_worker(&place.sockets, place.no_delay, id));
        Ok(lists.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// What connections begin with, by the numbers of their listeners.
    pub(crate) fn entries(&self) -> Arc<[Arc<Entry>]> {
        self.0.iter().map(|place| Arc::clone(&place.entry)).collect()
    }

    fn settings(&self) -> Vec<ListenerSettings> {
        self.0.iter().map(|place| place.settings.clone()).collect()
    }
}

impl Place {
    fn new(key: (ListenAddress, usize), wanted: &Wanted, entry: Arc<Entry>, sockets: Vec<Bound>) -> Self {
        let (settings, no_delay) = (wanted.settings.clone(), wanted.tcp_no_delay);
        Self { key, settings, socket_domain: wanted.socket_domain, no_delay, entry, sockets }
    }
}

fn for_worker(sockets: &[Bound], no_delay: bool, id: usize) -> io::Result<Vec<(Listener, ListenerId)>> {
    sockets.iter().map(|socket| Ok((socket.for_worker(no_delay)?, id as ListenerId))).collect()
}

/// Opens a listener. Inside it is one that may fail.
fn bind(wanted: &Wanted) -> Result<Result<Vec<Bound>, io::Error>, RunError> {
    match listen::bind(wanted) {
        // In use is no missing IPv6: somebody else would get half of our clients.
        Err(error) if !wanted.optional || error.kind() == io::ErrorKind::AddrInUse => {
            Err(RunError::Listen { address: wanted.address.to_string(), error })
        }
        result => Ok(result),
    }
}

/// Everything that a reload needs. Has a thread of its own, so that neither a slow name server nor a full disk holds up the
/// end of the broker.
pub(crate) struct Reloader {
    source: Source,
    /// What is in force.
    config: Config,
    places: Places,
    log: Log,
    totals: Arc<Totals>,
    inboxes: Arc<[Arc<Inbox>]>,
    certificates: WatchHandle,
    reloadables: Vec<Box<dyn Reloadable>>,
    running: Option<RunningFile>,
    left_behind: LeftBehind,
}

/// The names in the file system that go when the broker ends, for whoever ends it without the [`Reloader`].
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftBehind(Arc<Mutex<Vec<PathBuf>>>);

impl LeftBehind {
    /// Removes them. What cannot be removed is said.
    pub(crate) fn remove(&self, log: &Log) {
        for path in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            tell_left(log, &path, fs::remove_file(&path));
        }
    }

    fn set(&self, paths: Vec<PathBuf>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = paths;
    }
}

/// Says of a name that should have gone why it is still there, if it is.
fn tell_left(log: &Log, path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        log.line(LogType::Warning, &format!("Warning: {} stays behind: {error}.", path.display()));
    }
}

/// What a reload is about to do, with nothing left that could fail.
struct Plan {
    config: Config,
    log: Opened,
    commits: Vec<Commit>,
    /// What places come to be, by position; those beyond the end are new.
    changed: Vec<(usize, Place)>,
    /// The listeners with TLS, each with what is to be in force there if it is not yet.
    tls: Vec<Prepared>,
    /// The number of each of `config.listeners`.
    listeners: Vec<ListenerId>,
    close: Vec<ListenerId>,
    /// For each worker.
    open: Vec<Vec<(Listener, ListenerId)>>,
}

/// What a reloader is made from.
pub(crate) struct ReloaderOptions {
    pub(crate) source: Source,
    pub(crate) config: Config,
    pub(crate) places: Places,
    pub(crate) log: Log,
    pub(crate) totals: Arc<Totals>,
    pub(crate) inboxes: Arc<[Arc<Inbox>]>,
    pub(crate) certificates: WatchHandle,
    pub(crate) reloadables: Vec<Box<dyn Reloadable>>,
}

impl Reloader {
    pub(crate) fn new(options: ReloaderOptions) -> Self {
        let ReloaderOptions { source, config, places, log, totals, inboxes, certificates, reloadables } = options;
        let running = running_path(&config).map(RunningFile);
        if let Some(running) = &running {
            running.write(&config, &log);
        }
        let left_behind = LeftBehind::default();
        let reloader =
            Self { source, config, places, log, totals, inboxes, certificates, reloadables, running, left_behind };
        reloader.note_left_behind();
        reloader
    }

    /// What there is to be removed in its stead if it cannot be waited for.
    pub(crate) fn left_behind(&self) -> LeftBehind {
        self.left_behind.clone()
    }

    fn note_left_behind(&self) {
        let sockets = self.places.sockets().filter_map(|(socket, _)| socket.unix_path());
        self.left_behind.set(sockets.chain(self.running.as_ref().map(|running| running.0.clone())).collect());
    }

    /// Closes all listeners, for good. What stays of them in the file system is said.
    pub(crate) fn close(mut self) {
        let sockets = self.places.0.iter_mut().flat_map(|place| place.sockets.drain(..));
        for mut socket in sockets {
            if let Some((path, removed)) = socket.remove() {
                tell_left(&self.log, &path, removed);
            }
        }
    }

    /// Reads the configuration again and goes over to it, or says why not and changes nothing.
    pub(crate) fn reload(&mut self) {
        // Nobody may be there to be told.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            drop(sd_notify::notify(&[NotifyState::Reloading, now]));
        }
        self.try_to_reload();
        drop(sd_notify::notify(&[NotifyState::Ready]));
    }

    fn try_to_reload(&mut self) {
        let plan = match self.plan() {
            Ok(plan) => plan,
            Err(error) => {
                self.log.limited(LogType::Error, "reloads", || {
                    format!("SIGHUP: nothing has changed, the configuration cannot be used: {error}")
                });
                return;
            }
        };
        self.commit(plan);
    }

    fn plan(&mut self) -> Result<Plan, String> {
        let config = self.source.load_again().map_err(|error| error.to_string())?.renumbered(&self.config);
        if let Some(problem) = listen::collision(&config) {
            return Err(problem);
        }
        let log = Opened::open(config.log.clone()).map_err(|error| RunError::log(&config, error).to_string())?;
        let mut commits = Vec::with_capacity(self.reloadables.len());
        for reloadable in &mut self.reloadables {
            commits.push(reloadable.prepare(&self.config, &config)?);
        }
        let mut plan = Plan {
            config,
            log,
            commits,
            changed: Vec::new(),
            tls: Vec::new(),
            listeners: Vec::new(),
            close: Vec::new(),
            open: self.inboxes.iter().map(|_| Vec::new()).collect(),
        };
        self.plan_listeners(&mut plan).map_err(|error| error.to_string())?;
        Ok(plan)
    }

    /// Binds what is new. Last, as a socket that is bound and not used loses the clients that come to it.
    fn plan_listeners(&self, plan: &mut Plan) -> Result<(), RunError> {
        let places = &self.places.0;
        let mut next = places.len();
        for (index, (wanted, key)) in plan.config.listeners.iter().zip(keys(&plan.config.listeners)).enumerate() {
            let found = places.iter().position(|place| place.key == key);
            let id = found.unwrap_or(next);
            if id >= LISTENERS_MAX {
                let error =
                    io::Error::other("there have been too many listeners since the start; start the broker anew");
                return Err(RunError::Listen { address: wanted.address.to_string(), error });
            }
            next = next.max(id + 1);
            plan.listeners.push(id as ListenerId);
            let old = found.and_then(|id| places[id].entry.tls.as_ref());
            let (address, key_log) = (wanted.address.to_string(), self.certificates.key_log.as_ref());
            let written = plan.config.listener_places.get(index);
            let tls = TlsListener::prepare(&address, wanted.tls.as_ref(), written, old, key_log, &self.log)?;
            let entry = Arc::new(Entry::new(wanted.transport.clone(), tls.as_ref().map(|(tls, _)| Arc::clone(tls))));
            plan.tls.extend(tls);
            let open = found.map(|id| &places[id]).filter(|place| !place.sockets.is_empty());
            let mut place = Place::new(key, wanted, entry, Vec::new());
            if let Some(old) = open {
                place.socket_domain = old.socket_domain;
                // The sockets stay, and those who accept learn of what is set on their connections.
                if old.no_delay != place.no_delay {
                    plan.close.push(id as ListenerId);
                    for open in &mut plan.open {
                        open.extend(for_worker(&old.sockets, place.no_delay, id).map_err(RunError::System)?);
                    }
                }
            } else {
                // One that may fail has failed before, and that was said then.
                place.sockets = bind(wanted)?.unwrap_or_default();
                for open in &mut plan.open {
                    open.extend(for_worker(&place.sockets, place.no_delay, id).map_err(RunError::System)?);
                }
            }
            plan.changed.push((id, place));
        }
        let gone = places.iter().enumerate().filter(|(_, place)| !place.sockets.is_empty());
        plan.close.extend(gone.map(|(id, _)| id as ListenerId).filter(|id| !plan.listeners.contains(id)));
        Ok(())
    }

    fn commit(&mut self, plan: Plan) {
        let Plan { config, log, commits, changed, mut tls, listeners, close, open } = plan;
        let changes = self.config.changes(&config);
        let config = config.taken_over(&self.config);
        self.log.replace(log);
        for (id, mut place) in changed {
            match self.places.0.get_mut(id) {
                Some(old) => {
                    if place.sockets.is_empty() {
                        place.sockets = std::mem::take(&mut old.sockets);
                    }
                    *old = place;
                }
                None => self.places.0.push(place),
            }
        }
        let settings = Settings { listeners: self.places.settings(), ..config.settings.clone() };
        let (settings, entries) = (Arc::new(settings), self.places.entries());
        self.totals.grow(settings.listeners.len());
        for (listener, loaded) in &mut tls {
            if let Some(loaded) = loaded.take() {
                listener.replace(loaded, &self.log);
            }
        }
        self.certificates.watch(tls.into_iter().map(|(listener, _)| listener).collect());
        let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let allow_anonymous: Vec<bool> = self.places.0.iter().map(|place| place.settings.allow_anonymous).collect();
        let committed = Committed { allow_anonymous: &allow_anonymous, inboxes: &self.inboxes };
        lines.extend(commits.into_iter().flat_map(|commit| commit(&committed)));
        // Users and rules first: a domain that a listener comes to has not been read again while no listener had it, and nobody may
        // come in by what it was then.
        for inbox in &*self.inboxes {
            inbox.send(Letter::Reconfigure(Arc::clone(&settings), Arc::clone(&entries)));
        }
        // Only now: a connection that is handed over finds its listener in the settings of every worker.
        let moved = |id: &ListenerId| listeners.contains(id);
        for (inbox, open) in self.inboxes.iter().zip(open) {
            if !close.is_empty() || !open.is_empty() {
                inbox.send(Letter::Listen(close.clone(), open));
            }
        }
        for id in close.iter().filter(|id| !moved(id)) {
            self.places.0[usize::from(*id)].sockets.clear();
        }
        self.note_left_behind();
        self.wait_for_workers();
        self.tell(&config, &lines);
        self.config = config;
        if let Some(running) = self.running.as_ref().filter(|_| !lines.is_empty()) {
            running.write(&self.config, &self.log);
        }
    }

    /// Waits until the workers have dealt with all letters, so that what the log says is true, and a storm of signals does not
    /// fill their inboxes. One that has ended, or is held up, is not waited for for long.
    fn wait_for_workers(&self) {
        let (sender, receiver) = mpsc::channel();
        for inbox in &*self.inboxes {
            inbox.send(Letter::Tell(sender.clone()));
        }
        drop(sender);
        let begun = Instant::now();
        while let Some(left) = WORKERS_PATIENCE.checked_sub(begun.elapsed())
            && receiver.recv_timeout(left).is_ok()
        {}
    }

    fn tell(&self, config: &Config, lines: &[String]) {
        for warning in config.warnings.iter().filter(|warning| !self.config.warnings.contains(warning)) {
            self.log.line(LogType::Warning, &format!("Warning: {warning}"));
        }
        if lines.is_empty() {
            self.log.limited(LogType::Notice, "reloads", || {
                let files: Vec<_> = config.other_files().iter().map(|path| path.display().to_string()).collect();
                match files.join(", ") {
                    none if none.is_empty() => "SIGHUP: configuration read again, nothing has changed.".to_owned(),
                    files => format!(
                        "SIGHUP: configuration read again, nothing has changed in it. What it names was read again, too: {}.",
                        shown(&files)
                    ),
                }
            });
            return;
        }
        let plural = if lines.len() == 1 { "change" } else { "changes" };
        self.log.line(LogType::Notice, &format!("SIGHUP: configuration read again, {} {plural}:", lines.len()));
        for line in lines {
            self.log.line(LogType::Notice, &format!("  {line}"));
        }
    }
}

/// The name of the file in the data directory that says what is in force.
pub(crate) const RUNNING: &str = "running-configuration";

/// What is in force, in a file that `pantala broker --check --diff` compares with. Removed when the broker ends.
struct RunningFile(PathBuf);

impl RunningFile {
    /// Writes it, readable by its owner only. A broker that cannot do so serves all the same.
    fn write(&self, config: &Config, log: &Log) {
        let text = format!("pid\t{}\n{}", std::process::id(), config.effective().to_text());
        if let Err(error) = replace(&self.0, &text) {
            let text = format!("Warning: {} cannot be written: {error}", self.0.display());
            log.limited(LogType::Warning, "the running configuration", || text);
        }
    }
}

impl Drop for RunningFile {
    fn drop(&mut self) {
        // What is gone already need not be removed.
        drop(fs::remove_file(&self.0));
    }
}

/// In the data directory where there is one, else where processes of this user keep such things.
fn running_path(config: &Config) -> Option<PathBuf> {
    if config.durability != Durability::Memory {
        return Some(config.data_dir.as_ref()?.join(RUNNING));
    }
    Some(runtime_dir()?.join(format!("pantala-{}", std::process::id())))
}

/// The first directory of `$RUNTIME_DIRECTORY`, which systemd makes, or `$XDG_RUNTIME_DIR`.
fn runtime_dir() -> Option<PathBuf> {
    let first = |text: std::ffi::OsString| text.to_str().map(|text| text.split(':').next().unwrap_or(text).to_owned());
    let variable = |name| std::env::var_os(name).and_then(first).filter(|text| text.starts_with('/'));
    variable("RUNTIME_DIRECTORY").or_else(|| variable("XDG_RUNTIME_DIR")).map(PathBuf::from)
}

/// Writes a file that is there whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // One that a process left behind. It fails where there is none.
    drop(fs::remove_file(&new));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// A running broker, as its file tells.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// What is in force there.
    pub effective: Effective,
}

/// Why a running broker cannot be asked.
#[derive(Debug)]
pub struct RunningError(String);

impl fmt::Display for RunningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunningError {}

/// What is in force in a broker that runs: `target` is its data directory or the number of its process. `config` is the one that it
/// would read, for the place of its data directory.
///
/// # Errors
/// If no file of such a broker is found or understood.
pub fn running(target: &str, config: &Config) -> Result<Running, RunningError> {
    let in_data_dir = |directory: &Path| read_running(&directory.join(RUNNING));
    let Ok(pid) = target.parse::<u32>() else { return in_data_dir(Path::new(target)) };
    let of_process = |running: &Running| running.pid == pid;
    let found = config.data_dir.as_deref().and_then(|directory| in_data_dir(directory).ok()).filter(of_process);
    let named = format!("pantala-{pid}");
    let found = found.or_else(|| read_running(&runtime_dir()?.join(named)).ok().filter(of_process));
    found.ok_or_else(|| {
        let text = "its configuration is neither in the data directory nor in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR; name its data directory";
        RunningError(format!("process {pid}: {text}"))
    })
}

fn read_running(path: &Path) -> Result<Running, RunningError> {
    let refuse = |text: &dyn fmt::Display| RunningError(format!("{}: {text}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(&"there is no such file, so no broker runs with this data directory"),
        _ => refuse(&error),
    })?;
    let parsed = text
        .strip_prefix("pid\t")
        .and_then(|text| text.split_once('\n'))
        .and_then(|(pid, rest)| Some(Running { pid: pid.parse().ok()?, effective: Effective::parse(rest)? }));
    parsed.ok_or_else(|| refuse(&"it is not understood; another version may have written it"))
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::config::{LogConfig, Overrides};
    use crate::tls::Certificates;

    /// Has new methods of authentication each time.
    struct Users;

    impl Reloadable for Users {
        fn prepare(&mut self, _old: &Config, _new: &Config) -> Result<Commit, String> {
            Ok(Box::new(|committed| {
                committed.inboxes.iter().for_each(|inbox| inbox.send(Letter::Methods(Arc::new([]))));
                Vec::new()
            }))
        }
    }

    /// A listener that went over to a domain which nobody had used let in, for a moment, whom its users had been before.
    #[test]
    fn workers_are_told_of_users_before_they_are_told_of_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pantala.toml");
        let listener = "[broker]\ndurability = \"memory\"\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
        fs::write(&path, listener).unwrap();
        let source = Source { path: Some(path.clone()), overrides: Overrides::default(), ..Source::default() };
        let config = source.load().unwrap();
        let log = Log::open(LogConfig { stderr: false, ..LogConfig::default() }).unwrap();
        let watch = Certificates::load(&config, &log).unwrap().watch(log.clone()).unwrap();
        let entry = Arc::new(Entry::new(config.listeners[0].transport.clone(), None));
        let poll = Poll::new().unwrap();
        let inbox = Inbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut reloader = Reloader::new(ReloaderOptions {
            places: Places::open(&config, vec![entry], &log).unwrap(),
            totals: Arc::default(),
            inboxes: Arc::new([Arc::clone(&inbox)]),
            certificates: watch.handle(),
            reloadables: vec![Box::new(Users)],
            source,
            config,
            log,
        });
        fs::write(&path, listener.replace("port", "maximum_qos = 1\nport")).unwrap();
        reloader.reload();
        let mut letters = Vec::new();
        inbox.take(&mut letters);
        let told = |wanted: fn(&Letter) -> bool| letters.iter().position(wanted).expect("it is told");
        let users = told(|letter| matches!(letter, Letter::Methods(_)));
        let listeners = told(|letter| matches!(letter, Letter::Reconfigure(..)));
        assert!(users < listeners, "{users} {listeners}");
        drop(reloader);
        watch.stop(Duration::from_secs(20));
    }
}
