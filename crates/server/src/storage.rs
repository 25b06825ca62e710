//! The data directory: opened before the first client, closed after the last.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pantala_broker::{BatchPhase, Core, Share, WorkerId, shares};
use pantala_session::Instant;
use pantala_store::disk::Directory;
use pantala_store::log::{LogOptions, SetAside};
use pantala_store::{Activity, AnyStore, Clock as Clocks, Committer, Durability, MemoryStore, Notice};

use crate::config::{Config, LogType};
use crate::import;
use crate::log::Log;
use crate::run::RunError;
use crate::user;
use crate::worker::Clock;

/// The folder in the data directory. Beside it there is room for what is to come.
pub(crate) const FOLDER: &str = "store";
/// With the broker stopped for longer than this, or a wall clock that says so, no more time than this has passed for Sessions
/// and messages: a clock that is years ahead for a moment does not expire them all.
const STOPPED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What is said where a data directory is needed and none is known.
pub(crate) const NO_DATA_DIR: &str =
    "there is no home directory to keep data in: --data-dir names a place, --durability memory does without";

/// Tells the commit thread to finish.
type Stopper = Box<dyn Fn() + Send + Sync>;

/// What the workers start with.
pub(crate) struct Storage {
    /// One for each worker.
    pub(crate) stores: Vec<AnyStore>,
    /// What each is given back.
    shares: Vec<Share>,
    /// The broker's time at this start, and when it ran last.
    pub(crate) now: Instant,
    stopped: Instant,
    committer: Option<(Committer<Directory>, Stopper)>,
    /// What the commit thread has done; None if there is none.
    pub(crate) activity: Option<ActivitySource>,
}

/// The data directory, if there is one.
pub(crate) fn data_dir(config: &Config) -> Option<&Path> {
    config.data_dir.as_deref().filter(|_| config.durability != Durability::Memory)
}

/// Tells what the commit thread has done.
pub(crate) type ActivitySource = Arc<dyn Fn() -> Activity + Send + Sync>;

/// The commit thread, to be stopped when nothing is appended any more.
pub(crate) struct Running(Option<(JoinHandle<()>, Stopper)>);

impl Storage {
    /// Opens what the configuration names.
    pub(crate) fn open(config: &Config, workers: u8, log: &Log) -> Result<Self, RunError> {
        if config.durability == Durability::Memory {
            return Ok(Self {
                stores: (0..workers).map(|_| AnyStore::Memory(MemoryStore)).collect(),
                shares: Vec::new(),
                now: Instant(1),
                stopped: Instant(1),
                committer: None,
                activity: None,
            });
        }
        let Some(data_dir) = &config.data_dir else {
            return Err(RunError::Storage(NO_DATA_DIR.into()));
        };
        let path = data_dir.join(FOLDER);
        let refuse = |error: &dyn std::fmt::Display| {
            RunError::Storage(format!("cannot keep data in {}: {error}", data_dir.display()))
        };
        if user::is_root() && config.user.is_some() {
            make_way(data_dir).map_err(|error| refuse(&error))?;
        }
        import::clear_unfinished(&path, log).map_err(RunError::Storage)?;
        if let Some(file) = &config.import_file {
            import::take_over(config, file, &path, log).map_err(RunError::Storage)?;
        }
        let directory = Directory::open(&path).map_err(|error| refuse(&error))?;
        let begun = std::time::Instant::now();
        let opened = pantala_store::open(directory, LogOptions::default(), workers, config.durability)
            .map_err(|error| refuse(&error))?;
        let report = &opened.report;
        for damage in &report.damages {
            log.line(LogType::Error, &format!("Damaged data set aside in {}: {damage}", path.display()));
        }
        if opened.recovered.unreadable > 0 {
            let count = opened.recovered.unreadable;
            log.line(
                LogType::Error,
                &format!("{count} entries of the store are not understood, and left as they are."),
            );
        }
        let recovered = &opened.recovered;
        let queued: usize = recovered.sessions.iter().map(|session| session.queue.len() + session.outbound.len()).sum();
        log.line(
            LogType::Information,
            &format!(
                "Restored {} Sessions with {queued} messages waiting and {} Retained Messages in {} ms.",
                recovered.sessions.len(),
                recovered.retained.len(),
                begun.elapsed().as_millis()
            ),
        );
        let jump_max = u64::try_from(STOPPED_MAX.as_millis()).unwrap_or(u64::MAX);
        let (now, stopped) = match recovered.clock {
            Some(clock) => {
                let wall = wall();
                let clock = clock.lived(recovered.last_alive, wall, jump_max);
                (Instant(clock.resumed(wall, jump_max)), Instant(clock.broker))
            }
            None => (Instant(1), Instant(1)),
        };
        let mut committer = opened.committer;
        if config.settings.durability_rules.iter().any(|rule| rule.level == Durability::Os) {
            committer.tell_written();
        }
        let stopper: Option<Stopper> = opened.stores.first().map(|store| Box::new(store.stopper()) as Box<_>);
        let activity = opened.stores.first().map(|store| Arc::new(store.activity()) as ActivitySource);
        Ok(Self {
            activity,
            stores: opened.stores.into_iter().map(AnyStore::Durable).collect(),
            shares: shares(opened.recovered, workers),
            now,
            stopped,
            committer: stopper.map(|stopper| (committer, stopper)),
        })
    }

    /// Gives the workers back what is theirs, and lets them tell each other, before any of them runs.
    pub(crate) fn restore(&mut self, cores: &mut [Core<AnyStore>]) {
        let (now, stopped) = (self.now, self.stopped);
        // Each on a thread of its own: until they tell each other they have nothing in common. The first one's is this one,
        // which has memory that it has freed.
        let orphans: Vec<_> = thread::scope(|scope| {
            let mut shares = cores.iter_mut().zip(self.shares.drain(..));
            let first = shares.next();
            let restoring: Vec<_> =
                shares.map(|(core, share)| scope.spawn(move || core.restore(now, stopped, share))).collect();
            let first = first.map(|(core, share)| core.restore(now, stopped, share));
            let others = restoring.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            first.into_iter().chain(others).collect()
        });
        exchange(cores, self.now);
        for (core, orphans) in cores.iter_mut().zip(orphans) {
            core.adopt(self.now, orphans);
        }
        exchange(cores, self.now);
        cores.iter_mut().for_each(Core::submit);
    }

    /// Starts the commit thread. `completed` is called for each worker that has answers to send.
    pub(crate) fn run(
        self,
        mut clock: Clock,
        log: Log,
        completed: impl Fn(usize) + Send + 'static,
    ) -> Result<Running, RunError> {
        let Some((committer, stop)) = self.committer else { return Ok(Running(None)) };
        let clock = move || Clocks { broker: clock.now().0, wall: wall() };
        let notice = move |notice| {
            let (kind, text) = told(&notice);
            log.line(kind, &text);
        };
        let thread = thread::Builder::new().name("commit".to_owned());
        let thread = thread.spawn(move || committer.run(clock, completed, notice)).map_err(RunError::System)?;
        Ok(Running(Some((thread, stop))))
    }
}

impl Running {
    /// Waits until all that was appended is down.
    pub(crate) fn stop(self) -> Result<(), RunError> {
        let Some((thread, stop)) = self.0 else { return Ok(()) };
        stop();
        thread.join().map_err(|_| RunError::System(std::io::Error::other("the commit thread ended unexpectedly")))
    }
}

/// Makes the folders that a data directory lies in, as far as they are missing, for everybody to go through: whoever the process becomes
/// has to get there. The data directory itself is private.
fn make_way(data_dir: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let mut missing: Vec<_> = data_dir.ancestors().skip(1).take_while(is_missing).collect();
    missing.reverse();
    for folder in missing {
        match fs::create_dir(folder) {
            // By somebody else, or by another name of it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => continue,
            result => result?,
        }
        // Whatever the process takes away from the permissions of what it makes.
        let made = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(folder)?;
        made.set_permissions(Permissions::from_mode(0o755))?;
        // Its name has to outlive a power cut.
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// What the log says of the disk.
fn told(notice: &Notice) -> (LogType, String) {
    match notice {
        Notice::Full => (
            LogType::Error,
            "The disk is full: what has to be kept is refused, and not acknowledged, until there is room again.".into(),
        ),
        Notice::Working => (LogType::Notice, "There is room on the disk again: messages are kept as before.".into()),
        Notice::Failed(error) => (
            LogType::Error,
            format!(
                "The disk has failed ({error}): nothing that has to be kept is acknowledged any more. What was is safe; \
                 start the broker anew when the disk is well."
            ),
        ),
        Notice::Cleaning(error) => (
            LogType::Error,
            format!("Old data cannot be cleaned up until the broker is started anew, so its files grow: {error}"),
        ),
        Notice::Damaged(SetAside { segment, entries }) => (
            LogType::Error,
            format!("Damaged data set aside: {segment} is {segment}.damaged now; {entries} entries in it are lost."),
        ),
    }
}

/// Passes on what the workers have for each other, until nobody has anything.
fn exchange(cores: &mut [Core<AnyStore>], now: Instant) {
    loop {
        let mut any = false;
        for phase in BatchPhase::ALL {
            for from in 0..cores.len() {
                for to in 0..cores.len() {
                    if let Some(mut batch) = cores[from].take_batch(phase, WorkerId(to as u8)) {
                        cores[to].receive_batch(now, &mut batch);
                        any = true;
                    }
                }
            }
        }
        if !any {
            return;
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the commit thread has done, for the log.
pub(crate) fn report(activity: Option<&ActivitySource>, log: &Log) {
    let Some(activity) = activity else { return };
    let Activity { batches, syncs, bytes, records, .. } = activity();
    log.line(
        LogType::Information,
        &format!("Store: store_batches={batches} store_syncs={syncs} store_bytes={bytes} store_records={records}"),
    );
}

/// Where the data is, for the log.
pub(crate) fn describe(config: &Config) -> String {
    let place = |data_dir: &Option<std::path::PathBuf>| {
        data_dir.as_deref().map_or(String::new(), |path: &Path| path.display().to_string())
    };
    match config.durability {
        Durability::Memory => "Durability: memory. Sessions and Retained Messages end with this process.".to_owned(),
        Durability::Os => format!(
            "Durability: os. What is acknowledged survives the end of this process; data is in {}.",
            place(&config.data_dir)
        ),
        Durability::Fsync => format!(
            "Durability: fsync. What is acknowledged survives a power cut; data is in {}.",
            place(&config.data_dir)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/store.md` tells operators to look for these words.
    #[test]
    fn the_log_says_how_the_disk_is() {
        let error = || io::Error::from_raw_os_error(5);
        for (notice, kind, words) in [
            (Notice::Full, LogType::Error, &["The disk is full", "not acknowledged", "until there is room again"][..]),
            (Notice::Working, LogType::Notice, &["There is room on the disk again"]),
            (
                Notice::Failed(error()),
                LogType::Error,
                &[
                    "The disk has failed (",
                    "error 5",
                    "nothing that has to be kept is acknowledged",
                    "start the broker anew",
                ],
            ),
            (Notice::Cleaning(error()), LogType::Error, &["Old data cannot be cleaned up", "files grow", "error 5"]),
            (
                Notice::Damaged(SetAside { segment: "7.log".to_owned(), entries: 3 }),
                LogType::Error,
                &["Damaged data set aside: 7.log is 7.log.damaged now; 3 entries"],
            ),
        ] {
            let (told_as, text) = told(&notice);
            assert_eq!(told_as, kind, "{text}");
            for word in words {
                assert!(text.contains(word), "{word} in {text}");
            }
        }
    }
}
