//! Certificates of listeners: read from their files, watched, and changed while clients are connected.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pantala_tls::{
    ClientCertificates, Configuration, KeyLog, OwnCertificate, Pem, Session, Settings, UserNameFrom, Versions,
};

use crate::config::{Config, ListenerPlaces, LogType, Tls};
use crate::file;
use crate::key_log;
use crate::log::{Log, shown};
use crate::run::{RunError, join_within};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The most bytes of one file: lists of revoked certificates can be long.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Days before its end at which a certificate is spoken of, the last first; 0 is when it has come.
const REMINDERS: [i64; 4] = [0, 1, 7, 30];
const DAY_SECONDS: i64 = 86_400;

/// TLS of one listener.
#[derive(Debug)]
pub(crate) struct TlsListener {
    /// Where it listens, for the log.
    address: String,
    wanted: Tls,
    key_log: Option<KeyLog>,
    current: RwLock<Configuration>,
    watched: Mutex<Watched>,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Watched {
    stamps: Stamps,
    /// For each certificate, the reminder given last.
    reminded: Vec<Option<Reminder>>,
}

/// How the files looked: what changes when one of them does.
type Stamps = BTreeMap<PathBuf, (u64, i64, i64, u64)>;

impl TlsListener {
    fn load(
        address: String,
        wanted: &Tls,
        places: Option<&ListenerPlaces>,
        key_log: Option<KeyLog>,
        log: &Log,
    ) -> Result<Arc<Self>, RunError> {
        // Looked at before they are read: what changes in between is read again.
        let stamps = stamps(wanted);
        let loaded = read(wanted, key_log.as_ref()).map_err(|error| RunError::Tls(error.of_start(&address, places)))?;
        if wanted.ignore_certificate_dates {
            log.line(
                LogType::Warning,
                &format!(
                    "Warning: {address} takes client certificates whose time is over or has not come: whoever has stolen an \
                     old key is let in."
                ),
            );
        }
        for path in &wanted.key_files {
            if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
                log.line(
                    LogType::Warning,
                    &format!("Warning: everybody may read {}, which has a key.", path.display()),
                );
            }
        }
        let reminded = vec![None; loaded.certificates.len()];
        let listener = Self {
            address,
            wanted: wanted.clone(),
            key_log,
            current: RwLock::new(loaded),
            watched: Mutex::new(Watched { stamps, reminded }),
            reloads: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
        };
        listener.remind(log, now());
        Ok(Arc::new(listener))
    }

    /// What a reload makes of a listener: the same where nothing but the files can have changed, with what they come to now, or
    /// another one.
    pub(crate) fn prepare(
        address: &str,
        wanted: Option<&Tls>,
        places: Option<&ListenerPlaces>,
        old: Option<&Arc<Self>>,
        key_log: Option<&KeyLog>,
        log: &Log,
    ) -> Result<Option<Prepared>, RunError> {
        let Some(wanted) = wanted else { return Ok(None) };
        let Some(old) = old.filter(|old| old.wanted == *wanted) else {
            return Ok(Some((Self::load(address.to_owned(), wanted, places, key_log.cloned(), log)?, None)));
        };
        let stamps = stamps(wanted);
        match read(wanted, key_log) {
            Ok(configuration) => Ok(Some((Arc::clone(old), Some(Loaded { stamps, configuration })))),
            Err(error) => {
                old.reload_failures.fetch_add(1, Ordering::Relaxed);
                let what = format!("the new certificates for {address} cannot be used: {error}");
                Err(RunError::Tls(error.located(what, places)))
            }
        }
    }

    /// Goes over to what has been read. Connections that are open keep what they began with.
    pub(crate) fn replace(&self, loaded: Loaded, log: &Log) {
        let Loaded { stamps, configuration } = loaded;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.stamps = stamps;
        self.install(&mut watched, configuration, log);
    }

    fn install(&self, watched: &mut Watched, configuration: Configuration, log: &Log) {
        watched.reminded = vec![None; configuration.certificates.len()];
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = configuration;
        self.reloads.fetch_add(1, Ordering::Relaxed);
        log.line(LogType::Notice, &format!("New certificates for {}.", self.address));
    }

    /// The session of a new connection.
    pub(crate) fn session(&self) -> Session {
        Session::new(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn user_name_from(&self) -> UserNameFrom {
        self.wanted.user_name_from_certificate
    }

    /// Reads the files again if they have changed. Connections that are open keep what they began with; what cannot be used
    /// leaves everything as it was.
    fn look(&self, log: &Log) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamps(&self.wanted);
        if found == watched.stamps {
            return;
        }
        watched.stamps = found;
        match read(&self.wanted, self.key_log.as_ref()) {
            Ok(loaded) => self.install(&mut watched, loaded, log),
            Err(error) => {
                self.reload_failures.fetch_add(1, Ordering::Relaxed);
                let address = &self.address;
                log.line(
                    LogType::Error,
                    &format!("Error: the new certificates for {address} cannot be used, the old ones stay: {error}"),
                );
            }
        }
    }

    /// Says when a certificate comes to its end, once for each of the reminders.
    fn remind(&self, log: &Log, now: i64) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        for (certificate, reminded) in current.certificates.iter().zip(&mut watched.reminded) {
            let due = Reminder::due(certificate.not_before, certificate.not_after, now);
            if due == *reminded {
                continue;
            }
            *reminded = due;
            let Some(due) = due else { continue };
            let text = due.words(&self.address, certificate, now);
            let (kind, word) = if due.is_error() { (LogType::Error, "Error") } else { (LogType::Warning, "Warning") };
            log.line(kind, &format!("{word}: {text}"));
        }
    }

    fn report(&self, log: &Log, now: i64) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let soonest = current.certificates.iter().map(|certificate| certificate.not_after).min().unwrap_or(i64::MAX);
        log.line(
            LogType::Information,
            &format!(
                "TLS of {}: certificate_seconds_left={} certificates_expired={} certificates_not_valid_yet={} reloads={} \
                 reload_failures={}",
                self.address,
                soonest.saturating_sub(now),
                current.certificates.iter().filter(|certificate| certificate.not_after < now).count(),
                current.certificates.iter().filter(|certificate| certificate.not_before > now).count(),
                self.reloads.load(Ordering::Relaxed),
                self.reload_failures.load(Ordering::Relaxed),
            ),
        );
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// What there is to be said of a certificate's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reminder {
    /// It has not begun: a clock may be wrong, here or where the certificate was made.
    NotYet,
    /// Fewer than so many days are left; 0 is none.
    Days(i64),
}

impl Reminder {
    fn due(not_before: i64, not_after: i64, now: i64) -> Option<Self> {
        let left = not_after.saturating_sub(now);
        let days = REMINDERS.into_iter().find(|days| left < days * DAY_SECONDS || *days == 0 && left < 0);
        match days {
            Some(0) => Some(Self::Days(0)),
            _ if not_before > now => Some(Self::NotYet),
            days => days.map(Self::Days),
        }
    }

    /// Whether clients refuse it now.
    fn is_error(self) -> bool {
        matches!(self, Self::NotYet | Self::Days(0))
    }

    fn words(self, address: &str, certificate: &OwnCertificate, now: i64) -> String {
        let (file, subject) = (&certificate.file, shown(&certificate.subject));
        let what = match self {
            Self::NotYet => format!("is not valid yet, but in {}", time_left(certificate.not_before - now)),
            Self::Days(0) => "has expired".to_owned(),
            Self::Days(_) => format!("expires in {}", time_left(certificate.not_after - now)),
        };
        format!("the certificate of {address} in {file} ({subject}) {what}.")
    }
}

fn time_left(seconds: i64) -> String {
    match seconds / DAY_SECONDS {
        0 => format!("{} hours", seconds / 3_600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// All TLS listeners.
pub(crate) struct Certificates {
    /// For each configured listener; None for plain MQTT.
    pub(crate) listeners: Vec<Option<Arc<TlsListener>>>,
    key_log: Option<KeyLog>,
}

impl Certificates {
    /// Reads all files, and opens the one for secrets if there is to be one.
    pub(crate) fn load(config: &Config, log: &Log) -> Result<Self, RunError> {
        let key_log = match &config.tls_key_log_file {
            None => None,
            Some(path) => {
                let shown = path.display();
                let opened = key_log::open(path);
                let opened =
                    opened.map_err(|error| RunError::Tls(format!("cannot write TLS secrets to {shown}: {error}")))?;
                let text = format!(
                    "Warning: the secrets of TLS connections are written to {shown}: who has them can read what was recorded on the wire."
                );
                log.line(LogType::Warning, &text);
                Some(opened)
            }
        };
        let load = |(index, listener): (usize, &crate::config::Listener)| match &listener.tls {
            None => Ok(None),
            Some(wanted) => {
                let (address, places) = (listener.address.to_string(), config.listener_places.get(index));
                TlsListener::load(address, wanted, places, key_log.clone(), log).map(Some)
            }
        };
        Ok(Self { listeners: config.listeners.iter().enumerate().map(load).collect::<Result<_, _>>()?, key_log })
    }

    /// Watches the files from a thread of its own, which sleeps as long as there are none.
    pub(crate) fn watch(self, log: Log) -> io::Result<Watch> {
        let listeners: Vec<_> = self.listeners.into_iter().flatten().collect();
        let listeners = Arc::new(Mutex::new(listeners.into()));
        let (sender, receiver) = mpsc::channel();
        let watched = Arc::clone(&listeners);
        let thread = thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            loop {
                let listeners = current(&watched);
                let woken = match listeners.is_empty() {
                    true => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    false => receiver.recv_timeout(LOOK_INTERVAL),
                };
                match woken {
                    // There are others.
                    Ok(()) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                let now = now();
                for listener in &*listeners {
                    listener.look(&log);
                    listener.remind(&log, now);
                }
            }
        })?;
        Ok(Watch { handle: WatchHandle { listeners, sender, key_log: self.key_log }, thread })
    }
}

/// A listener, and what is to be in force there if it is not yet.
pub(crate) type Prepared = (Arc<TlsListener>, Option<Loaded>);

/// A certificate configuration that has been read, and how its files looked before.
pub(crate) struct Loaded {
    stamps: Stamps,
    configuration: Configuration,
}

/// The listeners that are watched.
type Watching = Arc<Mutex<Arc<[Arc<TlsListener>]>>>;

fn current(watching: &Watching) -> Arc<[Arc<TlsListener>]> {
    Arc::clone(&watching.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Says what is watched.
#[derive(Clone)]
pub(crate) struct WatchHandle {
    listeners: Watching,
    sender: Sender<()>,
    /// Is told the secrets of new listeners' sessions, too.
    pub(crate) key_log: Option<KeyLog>,
}

impl WatchHandle {
    /// Watches these from now on.
    pub(crate) fn watch(&self, listeners: Vec<Arc<TlsListener>>) {
        *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners.into();
        // A thread that has ended watches nothing.
        let _ = self.sender.send(());
    }
}

/// The thread that watches, until [`Watch::stop`].
pub(crate) struct Watch {
    handle: WatchHandle,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn handle(&self) -> WatchHandle {
        self.handle.clone()
    }

    /// Ends the thread; whoever has a handle has to be gone. One that is held up by a file for longer than `patience` is left to itself.
    pub(crate) fn stop(self, patience: Duration) {
        drop(self.handle);
        // It has nothing to tell, and the broker has ended.
        drop(join_within(self.thread, patience));
    }

    /// Writes what there is to be known into the log.
    pub(crate) fn reporter(&self, log: Log) -> impl Fn() + Send + use<> {
        let listeners = Arc::clone(&self.handle.listeners);
        move || current(&listeners).iter().for_each(|listener| listener.report(&log, now()))
    }
}

/// Reads all certificates that `config` names, as a start does. What there is to be said of their time comes back.
pub(crate) fn check(config: &Config) -> Result<Vec<String>, String> {
    let (mut words, now) = (Vec::new(), now());
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(wanted) = &listener.tls {
            let (address, places) = (listener.address.to_string(), config.listener_places.get(index));
            let loaded = read(wanted, None).map_err(|error| error.of_start(&address, places))?;
            words.extend(loaded.certificates.iter().filter_map(|certificate| {
                let due = Reminder::due(certificate.not_before, certificate.not_after, now)?;
                Some(due.words(&address, certificate, now))
            }));
        }
    }
    Ok(words)
}

/// Why files cannot be used.
#[derive(Debug)]
struct ReadError {
    /// The one that is wrong, if it is one.
    file: Option<PathBuf>,
    what: String,
}

impl ReadError {
    fn of_file(file: &Path, what: String) -> Self {
        Self { file: Some(file.to_owned()), what }
    }

    /// In words, with the place where the file is named.
    fn located(&self, words: String, places: Option<&ListenerPlaces>) -> String {
        places.map_or_else(|| words.clone(), |places| places.locate(self.file.as_deref(), &words))
    }

    /// The same for a listener that cannot be opened.
    fn of_start(&self, address: &str, places: Option<&ListenerPlaces>) -> String {
        self.located(format!("cannot listen on {address} with TLS: {self}"), places)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Makes a configuration of the files.
fn read(wanted: &Tls, key_log: Option<&KeyLog>) -> Result<Configuration, ReadError> {
    let mut certificates = Vec::new();
    for (certificate, key) in wanted.certificate_files.iter().zip(&wanted.key_files) {
        certificates.push((pem(certificate)?, pem(key)?));
    }
    let client_certificates = match wanted.client_ca_files.is_empty() {
        true => None,
        false => Some(ClientCertificates {
            authorities: files(&wanted.client_ca_files, directory)?,
            required: wanted.require_certificate,
            revocation_lists: wanted.crl_files.iter().map(|path| pem(path)).collect::<Result<_, _>>()?,
            user_name_from: wanted.user_name_from_certificate,
            any_date: wanted.ignore_certificate_dates,
        }),
    };
    // None of them has to be a certificate, or to be needed.
    let chain_certificates = files(&wanted.chain_files, |path| directory(path).or(Ok(Vec::new())))?;
    let versions = match wanted.versions[..] {
        ["1.2"] => Versions::V12,
        ["1.3"] => Versions::V13,
        _ => Versions::All,
    };
    let settings = Settings {
        certificates,
        chain_certificates,
        client_certificates,
        versions,
        ciphers: wanted.ciphers.clone(),
        alpn: wanted.alpn.clone(),
        key_log: key_log.cloned(),
    };
    settings.build().map_err(|error| ReadError { file: error.file().map(PathBuf::from), what: error.to_string() })
}

fn pem(path: &Path) -> Result<Pem, ReadError> {
    let name = path.display().to_string();
    let refuse = |what| ReadError::of_file(path, what);
    let bytes = file::read(path, FILE_BYTES_MAX).map_err(|error| refuse(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(format!("{name} is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Pem { name, bytes })
}

/// What files have, and `of_directory` of those that are directories.
fn files(
    paths: &[PathBuf],
    of_directory: impl Fn(&Path) -> Result<Vec<Pem>, ReadError>,
) -> Result<Vec<Pem>, ReadError> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(of_directory(path)?);
        } else {
            found.push(pem(path)?);
        }
    }
    Ok(found)
}

/// The files of a directory that have certificates: there may be other things beside them.
fn directory(path: &Path) -> Result<Vec<Pem>, ReadError> {
    let refuse = |what| ReadError::of_file(path, what);
    let entries = fs::read_dir(path).map_err(|error| refuse(format!("cannot read {}: {error}", path.display())))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let has_certificate = |pem: &Pem| {
        let needle = b"-----BEGIN CERTIFICATE-----";
        pem.bytes.windows(needle.len()).any(|window| window == needle)
    };
    let pems: Vec<Pem> = paths.iter().flat_map(|path| pem(path)).filter(has_certificate).collect();
    if pems.is_empty() {
        return Err(refuse(format!("{} has no file with a certificate", path.display())));
    }
    Ok(pems)
}

fn stamps(wanted: &Tls) -> Stamps {
    let mut stamps = Stamps::new();
    let mut look = |path: &Path| {
        if let Ok(metadata) = fs::metadata(path) {
            let stamp = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len());
            stamps.insert(path.to_owned(), stamp);
        }
    };
    for path in wanted.certificate_files.iter().chain(&wanted.key_files).chain(&wanted.crl_files) {
        look(path);
    }
    for path in wanted.client_ca_files.iter().chain(&wanted.chain_files) {
        look(path);
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            look(&entry.path());
        }
    }
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_come_when_they_are_due() {
        let end = 100 * DAY_SECONDS;
        for (now, due) in [
            (end - 31 * DAY_SECONDS, None),
            (end - 30 * DAY_SECONDS, None),
            (end - 30 * DAY_SECONDS + 1, Some(30)),
            (end - 7 * DAY_SECONDS, Some(30)),
            (end - 7 * DAY_SECONDS + 1, Some(7)),
            (end - DAY_SECONDS + 1, Some(1)),
            (end, Some(1)),
            (end + 1, Some(0)),
            (i64::MAX, Some(0)),
        ] {
            assert_eq!(Reminder::due(0, end, now), due.map(Reminder::Days), "{now}");
        }
        // Before it begins nothing else is of interest, but that it never will again.
        for (begin, now, due) in [
            (end - 2 * DAY_SECONDS, end - 3 * DAY_SECONDS, Some(Reminder::NotYet)),
            (end - 2 * DAY_SECONDS, end - 2 * DAY_SECONDS, Some(Reminder::Days(7))),
            (end + 2, end + 1, Some(Reminder::Days(0))),
        ] {
            assert_eq!(Reminder::due(begin, end, now), due, "{begin} {now}");
        }
        assert_eq!(time_left(DAY_SECONDS - 1), "23 hours");
        assert_eq!(time_left(DAY_SECONDS), "1 day");
        assert_eq!(time_left(6 * DAY_SECONDS + 5), "6 days");
    }
}
