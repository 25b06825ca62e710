//! The log: lines for an operator, few enough to read.
//!
//! What comes from outside is escaped and cut, and each cause has its share of lines a second, so that nobody can fill a
//! disk or hide in a flood; what was held back is counted and said.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use rustix::fs::{Gid, OFlags, Uid};

use crate::config::{LogConfig, LogType, LogTypes};
use crate::system_log::{SYSTEM_LOG, SystemLog};

/// Lines that one cause may have in a second.
const LINES_PER_SECOND: u32 = 10;
/// The same for kinds of lines that are there only where they have been asked for.
const CHATTY_LINES_PER_SECOND: u32 = 1_000;
/// Bytes of a name from outside that are shown.
const NAME_BYTES_MAX: usize = 256;

/// Where lines go. Shared by all threads.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    /// What `state.config` says, for those who ask whether a line is wanted at all.
    types: AtomicU16,
    connection_messages: AtomicBool,
    state: Mutex<State>,
    /// Lines that were held back since the start.
    held_back: AtomicU64,
    /// Publishes a line; there from the moment on that somebody can.
    publisher: OnceLock<Publisher>,
}

/// Publishes a line of the log under a Topic Name.
pub(crate) type Publisher = Box<dyn Fn(&'static str, String) + Send + Sync>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    config: LogConfig,
    file: Option<File>,
    system: Option<SystemLog>,
    causes: HashMap<&'static str, Budget>,
}

#[derive(Debug)]
struct Budget {
    kind: LogType,
    second: Instant,
    lines: u32,
    suppressed: u64,
}

/// A log that can be gone over to.
pub(crate) struct Opened {
    config: LogConfig,
    file: Option<File>,
    system: Option<SystemLog>,
}

impl Opened {
    /// Opens the file that the configuration names.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(config: LogConfig) -> io::Result<Self> {
        let file = config.file.as_deref().map(open_file).transpose()?;
        let system = config.syslog.then(|| SystemLog::new(SYSTEM_LOG, config.facility));
        Ok(Self { config, file, system })
    }
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(config: LogConfig) -> io::Result<Self> {
        let Opened { config, file, system } = Opened::open(config)?;
        let shared = Shared {
            types: AtomicU16::new(config.types.bits()),
            connection_messages: AtomicBool::new(config.connection_messages),
            state: Mutex::new(State { config, file, system, causes: HashMap::new() }),
            held_back: AtomicU64::new(0),
            publisher: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Goes on as another configuration wants it, in a file that has been opened anew.
    pub(crate) fn replace(&self, opened: Opened) {
        let Opened { config, file, system } = opened;
        let mut state = self.state();
        self.shared.types.store(config.types.bits(), Ordering::Relaxed);
        self.shared.connection_messages.store(config.connection_messages, Ordering::Relaxed);
        (state.config, state.file, state.system) = (config, file, system);
    }

    /// Opens the file anew: it has been moved away, and lines are to go into a new one of its name. Should that fail, they go
    /// on into the old one, which says so.
    pub(crate) fn reopen(&self) {
        let mut state = self.state();
        let Some(path) = state.config.file.clone() else { return };
        let result = open_file(&path).map(|file| state.file = Some(file));
        drop(state);
        match result {
            Ok(()) => self.line(LogType::Notice, "The log file has been opened anew."),
            Err(error) => {
                self.line(LogType::Error, &format!("Cannot open the log file {} anew: {error}", path.display()));
            }
        }
    }

    /// From now on lines can be published; they are while the configuration says so.
    pub(crate) fn publish_by(&self, publisher: Publisher) {
        // It is there already: the first one stays.
        drop(self.shared.publisher.set(publisher));
    }

    /// Gives the file to another user, who will have to open it anew some day: a file of root's, no device and no terminal. It was no
    /// link when it was opened. The system's own links, in `/dev` and `/proc`, may lead to any file, and what they lead to is left as
    /// it is.
    pub(crate) fn give_to(&self, owner: Uid, group: Gid) -> io::Result<()> {
        let state = self.state();
        let (Some(file), Some(path)) = (&state.file, &state.config.file) else { return Ok(()) };
        if is_system_link(path) {
            return Ok(());
        }
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.uid() == 0 && metadata.nlink() == 1 {
            rustix::fs::fchown(file, Some(owner), Some(group))?;
        }
        Ok(())
    }

    /// Whether there are lines of this kind.
    pub(crate) fn wants(&self, kind: LogType) -> bool {
        LogTypes::from_bits(self.shared.types.load(Ordering::Relaxed)).contains(kind)
    }

    /// Lines held back since the start.
    pub(crate) fn held_back(&self) -> u64 {
        self.shared.held_back.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether connections are to be logged.
    pub(crate) fn wants_connections(&self) -> bool {
        self.shared.connection_messages.load(Ordering::Relaxed) && self.wants(LogType::Notice)
    }

    /// Writes a line, whatever came before.
    pub(crate) fn line(&self, kind: LogType, text: &str) {
        if self.wants(kind) {
            self.write(&mut self.state(), kind, text);
        }
    }

    /// Writes a line unless this cause has had its share in this second.
    pub(crate) fn limited(&self, kind: LogType, cause: &'static str, text: impl FnOnce() -> String) {
        if !self.wants(kind) {
            return;
        }
        let now = Instant::now();
        let mut state = self.state();
        let budget = state.causes.entry(cause).or_insert(Budget { kind, second: now, lines: 0, suppressed: 0 });
        let mut held_back = 0;
        if now.duration_since(budget.second).as_secs() >= 1 {
            held_back = std::mem::take(&mut budget.suppressed);
            (budget.second, budget.lines) = (now, 0);
        }
        budget.lines += 1;
        let lines_max = match kind {
            LogType::Debug | LogType::Subscribe | LogType::Unsubscribe | LogType::Websockets => CHATTY_LINES_PER_SECOND,
            _ => LINES_PER_SECOND,
        };
        if budget.lines > lines_max {
            budget.suppressed += 1;
            self.shared.held_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if held_back > 0 {
            self.write(&mut state, kind, &format!("({held_back} lines more about: {cause})"));
        }
        self.write(&mut state, kind, &text());
    }

    /// Says how many lines have been held back and not been told of yet.
    pub(crate) fn tell_held_back(&self) {
        let mut state = self.state();
        let mut told: Vec<_> =
            state.causes.iter_mut().map(|(cause, it)| (*cause, std::mem::take(&mut it.suppressed), it.kind)).collect();
        told.retain(|(_, suppressed, _)| *suppressed > 0);
        told.sort_unstable();
        for (cause, suppressed, kind) in told {
            self.write(&mut state, kind, &format!("({suppressed} lines more about: {cause})"));
        }
    }

    fn write(&self, state: &mut State, kind: LogType, text: &str) {
        if let Some(system) = &mut state.system {
            system.send(kind, text);
        }
        let mut line = String::with_capacity(text.len() + 32);
        state.config.timestamp.write(SystemTime::now(), &mut line);
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text);
        if state.config.topic
            && let (Some(publisher), Some(topic_name)) = (self.shared.publisher.get(), topic_name(kind))
        {
            publisher(topic_name, line.clone());
        }
        line.push('\n');
        // A log that cannot be written to must not stop the broker.
        if let Some(file) = &mut state.file {
            drop(file.write_all(line.as_bytes()));
        }
        if state.config.stderr {
            drop(io::stderr().lock().write_all(line.as_bytes()));
        }
        if state.config.stdout {
            drop(io::stdout().lock().write_all(line.as_bytes()));
        }
    }
}

/// A log file is for its owner, and for a group to read.
///
/// A link in its place is refused, as is a file with another name besides: who may write to its folder could have root write to, and
/// give away, what is somebody else's. The links in `/dev`, and those in `/proc` to what a process has open, are the system's own.
fn open_file(path: &Path) -> io::Result<File> {
    let mut flags = if is_system_link(path) { libc::O_CLOEXEC } else { libc::O_CLOEXEC | libc::O_NOFOLLOW };
    let is_pipe = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_pipe {
        // One that nobody reads from would hold up whoever opens it, and with a reload the end of the broker.
        flags |= libc::O_NONBLOCK;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(flags).open(path);
    let file = file.map_err(|error| match leads_to(path) {
        Some(target) if error.raw_os_error() == Some(libc::ELOOP) => {
            let target = shown(&target.to_string_lossy());
            io::Error::other(format!("it is a link, which is not followed; if it is to be {target}, name that instead"))
        }
        _ if is_pipe && error.raw_os_error() == Some(libc::ENXIO) => {
            io::Error::other("it is a pipe that nobody reads from")
        }
        _ => error,
    })?;
    if is_pipe {
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    }
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() > 1 {
        return Err(io::Error::other("it has another name besides (a hard link)"));
    }
    Ok(file)
}

/// Whether it is in a folder whose links are the system's own.
fn is_system_link(path: &Path) -> bool {
    let Some(folder) = path.parent() else { return false };
    if folder == Path::new("/dev") || folder == Path::new("/dev/fd") {
        return true;
    }
    let process = folder.strip_prefix("/proc").ok().filter(|rest| rest.ends_with("fd")).and_then(Path::parent);
    process.and_then(Path::to_str).is_some_and(|process| {
        let is_number = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
        is_number || process == "self" || process == "thread-self"
    })
}

/// Where a link leads; None if it is none.
fn leads_to(path: &Path) -> Option<PathBuf> {
    let target = fs::read_link(path).ok()?;
    // There may be nothing there.
    Some(fs::canonicalize(path).unwrap_or_else(|_| path.parent().unwrap_or(Path::new("")).join(target)))
}

/// Where lines of a kind are published. Those about packets are not: publishing them would bring more of them.
fn topic_name(kind: LogType) -> Option<&'static str> {
    match kind {
        LogType::Error => Some("$SYS/broker/log/E"),
        LogType::Warning => Some("$SYS/broker/log/W"),
        LogType::Notice => Some("$SYS/broker/log/N"),
        LogType::Information => Some("$SYS/broker/log/I"),
        LogType::Subscribe => Some("$SYS/broker/log/M/subscribe"),
        LogType::Unsubscribe => Some("$SYS/broker/log/M/unsubscribe"),
        LogType::Websockets => Some("$SYS/broker/log/WS"),
        LogType::Debug | LogType::Internal => None,
    }
}

/// A name from outside as it may stand in a line: control and formatting characters escaped, and not too long.
pub(crate) fn shown(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut text = String::with_capacity(end);
    for character in name[..end].chars() {
        let plain = !character.is_control()
            && !matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if plain {
            text.push(character);
        } else {
            text.extend(character.escape_unicode());
        }
    }
    if end < name.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_stay_on_their_line() {
        for (name, expected) in [
            ("sensor-7", "sensor-7"),
            ("a\nb", "a\\u{a}b"),
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("é", "é"),
        ] {
            assert_eq!(shown(name), expected);
        }
        assert!(shown(&"é".repeat(1_000)).chars().count() <= NAME_BYTES_MAX / 2 + 1);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_and_lines_are_published() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let config = LogConfig { stderr: false, topic: true, file: Some(path.clone()), ..LogConfig::default() };
        let log = Log::open(config).unwrap();
        let published = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&published);
        log.publish_by(Box::new(move |topic_name, line| into.lock().unwrap().push((topic_name, line))));
        log.line(LogType::Notice, "one");
        std::fs::rename(&path, &old).unwrap();
        log.line(LogType::Warning, "two");
        log.reopen();
        log.line(LogType::Error, "three");
        log.line(LogType::Subscribe, "not wanted");
        let [before, after] = [&old, &path].map(|path| std::fs::read_to_string(path).unwrap());
        assert!(before.contains("one") && before.contains("two") && !before.contains("three"), "{before}");
        assert!(after.contains("three") && !after.contains("two"), "{after}");
        let published = published.lock().unwrap();
        let topics: Vec<_> = published.iter().map(|(topic_name, _)| *topic_name).collect();
        assert_eq!(topics, ["N", "W", "N", "E"].map(|letter| format!("$SYS/broker/log/{letter}")));
        assert!(published[0].1.ends_with(": one"), "{published:?}");
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    /// Somebody who may write to its folder could have had root give them any file.
    #[test]
    fn what_is_no_file_of_its_own_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link, victim] = ["log", "link", "victim"].map(|name| folder.path().join(name));
        let config = |path: &Path| LogConfig { stderr: false, file: Some(path.to_owned()), ..LogConfig::default() };
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let error = Log::open(config(&link)).unwrap_err().to_string();
        assert!(error.contains("it is a link") && error.contains(victim.to_str().unwrap()), "{error}");
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
        assert!(Log::open(config(&link)).is_err() && !folder.path().join("nowhere").exists());
        std::fs::remove_file(&link).unwrap();
        std::fs::hard_link(&victim, &link).unwrap();
        assert!(Log::open(config(&link)).is_err());
        // One that comes to its place later is not gone over to.
        let log = Log::open(config(&path)).unwrap();
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        log.reopen();
        let text = std::fs::read_to_string(folder.path().join("log.1")).unwrap();
        assert!(text.contains("Cannot open the log file"), "{text}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        // What leads from /dev elsewhere is no trick.
        assert!(Log::open(config(Path::new("/dev/null"))).is_ok());
        assert!(open_file(Path::new("/dev/stderr")).is_ok_and(|file| file.metadata().is_ok()));
    }

    #[test]
    fn what_a_process_has_open_is_written_to_and_not_given_away() {
        use std::os::fd::AsRawFd as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redirected");
        let open = File::create(&path).unwrap();
        let owner = open.metadata().unwrap().uid();
        for process in ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd", &format!("/proc/{}/fd", std::process::id())]
        {
            let place = Path::new(process).join(open.as_raw_fd().to_string());
            let config = LogConfig { stderr: false, file: Some(place), ..LogConfig::default() };
            let log = Log::open(config).expect(process);
            log.line(LogType::Notice, process);
            log.give_to(Uid::from_raw(4_711), Gid::from_raw(4_711)).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().contains(process), "{process}");
            assert_eq!(open.metadata().unwrap().uid(), owner, "{process}");
        }
        for other in [
            "/dev/shm/1",
            "/proc/fd/1",
            "/proc/self/cwd/1",
            "/proc/self/fd/1/x",
            "/proc/1/x/fd/1",
            "/proc/x/fd/1",
            "dev/fd/1",
        ] {
            assert!(!is_system_link(Path::new(other)), "{other}");
        }
    }

    /// It was left with root, as is what the links in `/dev` lead to, and could not be opened anew.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_in_shared_memory_is_given_away_as_any_other() {
        let other = (Uid::from_raw(4_711), Gid::from_raw(4_712));
        for folder in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let path = folder.path().join("log");
            let log = Log::open(LogConfig { stderr: false, file: Some(path.clone()), ..LogConfig::default() }).unwrap();
            let before = std::fs::metadata(&path).unwrap();
            log.give_to(other.0, other.1).unwrap();
            let after = std::fs::metadata(&path).unwrap();
            // Only root's is given, by root.
            let given = (other.0.as_raw(), other.1.as_raw());
            let expected = if before.uid() == 0 { given } else { (before.uid(), before.gid()) };
            assert_eq!((after.uid(), after.gid()), expected, "{}", path.display());
        }
    }

    #[test]
    fn a_flood_is_cut() {
        let path = std::env::temp_dir().join(format!("pantala-log-{}", std::process::id()));
        let config = LogConfig { stderr: false, file: Some(path.clone()), ..LogConfig::default() };
        let log = Log::open(config).unwrap();
        for number in 0..1_000 {
            log.limited(LogType::Notice, "test", || format!("line {number}"));
        }
        log.tell_held_back();
        log.tell_held_back();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (summaries, lines): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.contains("lines more about: test"));
        // A second may end on the way, but not many.
        assert!(lines.len() >= 10 && lines.len() < 100, "{} lines", lines.len());
        let told =
            summaries.iter().map(|line| line.split(['(', ' ']).find_map(|word| word.parse::<usize>().ok()).unwrap());
        assert_eq!(told.sum::<usize>() + lines.len(), 1_000);
    }
}
