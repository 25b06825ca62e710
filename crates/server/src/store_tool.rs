//! Looking after the store of a broker that is stopped: `pantala store`.
//!
//! What is found goes to a writer; whoever calls decides what a status means. [`check`], [`dump`] and [`backup`] change
//! nothing in the data directory, not even what the broker would repair at its next start. `docs/store.md` says the same for
//! operators.

mod line;
mod progress;

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use pantala_store::disk::{Directory, DirectoryError, ReadOnly};
use pantala_store::log::{BackupError, CommitError, LogOptions, OpenError, OpenReport, Statistics};
use pantala_store::{CompactError, Entry, Inspection, Kind};

use crate::config::Timestamp;
use crate::import;
use crate::storage::FOLDER;
use line::Line;
use progress::watch;

/// How a store was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    /// All of it can be read.
    Sound,
    /// A part of it cannot.
    Damaged,
}

/// Why something could not be done with a store.
#[derive(Debug)]
pub enum ToolError {
    /// There is none.
    NoStore(PathBuf),
    /// What Mosquitto has kept was being taken over into it, and that was broken off.
    Unfinished(PathBuf),
    /// A broker, or another of these, has it.
    InUse(PathBuf),
    /// It cannot be read.
    Read(PathBuf, io::Error),
    /// It cannot be opened.
    Open(PathBuf, OpenError),
    /// It belongs to another user, who could not open the files that would be made.
    Owner {
        /// Which.
        folder: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// It cannot be compacted. Nothing is lost.
    Compact(CommitError),
    /// There is something where the copy is to go.
    Exists(PathBuf),
    /// The copy cannot be made.
    Copy(PathBuf, io::Error),
    /// What was found cannot be written.
    Output(io::Error),
}

impl ToolError {
    /// Whether the store was not even opened.
    pub fn is_unopened(&self) -> bool {
        use ToolError as E;
        matches!(self, E::NoStore(_) | E::Unfinished(_) | E::InUse(_) | E::Read(..) | E::Open(..) | E::Owner { .. })
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore(folder) => write!(
                f,
                "there is no store in {}: --data-dir names the directory that the broker keeps its data in",
                folder.display()
            ),
            Self::Unfinished(folder) => write!(
                f,
                "{} is not finished: a start was broken off that took over what Mosquitto has kept. Start the broker, which \
                 begins that anew",
                folder.display()
            ),
            Self::InUse(folder) => write!(f, "{} is in use, by a broker perhaps: stop it first", folder.display()),
            Self::Read(folder, error) => write!(f, "cannot read {}: {error}", folder.display()),
            Self::Open(folder, error) => write!(f, "cannot open {}: {error}", folder.display()),
            Self::Owner { folder, owner } => write!(
                f,
                "{} belongs to the user with number {owner}: run this as that user, who could not open the files otherwise",
                folder.display()
            ),
            Self::Compact(CommitError::NoSpace) => f.write_str(
                "there is no room on the disk to copy to, not even for a part; nothing is lost, and what has been compacted \
                 stays so",
            ),
            Self::Compact(error) => write!(f, "{error}; nothing is lost"),
            Self::Exists(path) => write!(f, "{} exists, and is not overwritten", path.display()),
            Self::Copy(path, error) => write!(f, "cannot copy to {}: {error}", path.display()),
            Self::Output(error) => write!(f, "cannot write what was found: {error}"),
        }
    }
}

impl std::error::Error for ToolError {}

/// What [`dump`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Entries of this kind.
    Kind(Kind),
    /// Entries that are not understood.
    Unreadable,
}

impl Selection {
    /// Names that [`Selection::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Kind::ALL.into_iter().map(Kind::name).chain([line::UNREADABLE])
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        if name == line::UNREADABLE {
            return Some(Self::Unreadable);
        }
        Kind::ALL.into_iter().find(|kind| kind.name() == name).map(Self::Kind)
    }

    fn has(self, line: &Line<'_>) -> bool {
        match self {
            Self::Kind(kind) => line.kind() == Some(kind),
            Self::Unreadable => line.kind().is_none(),
        }
    }
}

/// Reads everything, and says what is there.
///
/// # Errors
/// See [`ToolError`]. Damage is none.
pub fn check(data_dir: &Path, out: &mut impl Write) -> Result<Soundness, ToolError> {
    let source = Source::open(data_dir)?;
    let Source { folder, inspection, read_bytes } = &source;
    let read = |error| ToolError::Read(folder.clone(), error);
    let statistics = inspection.statistics();
    let begun = read_bytes.load(Ordering::Relaxed);
    let done = || read_bytes.load(Ordering::Relaxed) - begun;
    let recovered = watch("Checking", done, || statistics.log_bytes, || inspection.recovered()).map_err(read)?;
    let set_aside = set_aside(folder).map_err(read)?;
    let report = &inspection.report;
    let sessions = &recovered.sessions;
    let connected = sessions.iter().filter(|session| session.detached_at.is_none()).count();
    let wills = sessions.iter().filter(|session| session.will.is_some()).count();
    let subscriptions: usize = sessions.iter().map(|session| session.subscriptions.len()).sum();
    let outbound = sessions.iter().flat_map(|session| &session.outbound);
    let sent = outbound.filter(|exchange| exchange.message.is_some()).count();
    let queued: usize = sessions.iter().map(|session| session.queue.len()).sum();
    let orphans = recovered.orphans.len();
    let mut text = format!("Store in {}\n", folder.display());
    let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<18} {value}\n"));
    row("Sessions", format!("{}, {connected} of them connected when the broker ran last", sessions.len()));
    row("Subscriptions", subscriptions.to_string());
    row("Wills", wills.to_string());
    row(
        "Messages waiting",
        format!(
            "{}: {queued} to be sent, {sent} sent and not acknowledged, {orphans} for another member of a Shared Subscription",
            queued + sent + orphans
        ),
    );
    row("Retained Messages", recovered.retained.len().to_string());
    row(
        "Last written",
        recovered.clock.map_or("never".into(), |clock| {
            let mut time = String::new();
            Timestamp::Rfc3339.write(UNIX_EPOCH + Duration::from_millis(clock.wall), &mut time);
            time
        }),
    );
    row("Entries", format!("{} in {} frames", report.live_entries, report.frames));
    row("Files", files(&statistics));
    if report.torn_bytes > 0 {
        row(
            "End",
            format!("{} were being written when the broker ended, and never acknowledged", bytes(report.torn_bytes)),
        );
    }
    for name in set_aside {
        row("Set aside earlier", name);
    }
    row("Unreadable entries", recovered.unreadable.to_string());
    text.push_str(&damages(report));
    let is_sound = report.damages.is_empty() && recovered.unreadable == 0;
    text.push_str(if is_sound { "The store is sound.\n" } else { "The store is damaged.\n" });
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ToolError::Output)?;
    Ok(if is_sound { Soundness::Sound } else { Soundness::Damaged })
}

/// Writes a line of JSON for each entry, in the order of kinds and keys; all of them, or those selected.
///
/// # Errors
/// See [`ToolError`].
pub fn dump(data_dir: &Path, selection: Option<Selection>, out: &mut impl Write) -> Result<Soundness, ToolError> {
    let source = Source::open(data_dir)?;
    let Source { folder, inspection, read_bytes } = &source;
    let read = |error| ToolError::Read(folder.clone(), error);
    let begun = read_bytes.load(Ordering::Relaxed);
    let done = || read_bytes.load(Ordering::Relaxed) - begun;
    let total = inspection.statistics().log_bytes;
    let keys = watch("Looking", done, || total, || inspection.keys()).map_err(read)?;
    let reader = inspection.reader();
    let written = AtomicU64::new(0);
    let mut soundness = damage_of(&inspection.report);
    let work = || -> Result<(), ToolError> {
        for (kind, key) in &keys {
            written.fetch_add(1, Ordering::Relaxed);
            let number = *kind;
            if let Some(Selection::Kind(wanted)) = selection
                && wanted as u8 != number
            {
                continue;
            }
            let Some(value) = reader.get(number, key).map_err(read)? else { continue };
            let entry = Entry::read(number, key, &value);
            if entry.is_none() {
                soundness = Soundness::Damaged;
            }
            let line = entry.as_ref().map_or_else(|| Line::unreadable(number, key, &value), Line::of);
            if selection.is_none_or(|selection| selection.has(&line)) {
                serde_json::to_writer(&mut *out, &line)
                    .map_err(io::Error::from)
                    .and_then(|()| out.write_all(b"\n"))
                    .map_err(ToolError::Output)?;
            }
        }
        out.flush().map_err(ToolError::Output)
    };
    watch("Writing", || written.load(Ordering::Relaxed), || keys.len() as u64, work)?;
    Ok(soundness)
}

/// Copies what is needed together and gives up the rest, until nothing is left to be gained. It can be ended at any moment
/// without harm.
///
/// # Errors
/// See [`ToolError`]. Damage is none: it is passed over, as at each start of the broker.
pub fn compact(data_dir: &Path, out: &mut impl Write) -> Result<Soundness, ToolError> {
    let folder = find(data_dir)?;
    let owner = fs::metadata(&folder).map_err(|error| ToolError::Read(folder.clone(), error))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(ToolError::Owner { folder, owner });
    }
    let directory = Directory::open(&folder).map_err(|error| refused(&folder, error))?;
    let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let each = |now: u64, of: u64| {
        total.store(of, Ordering::Relaxed);
        done.store(now, Ordering::Relaxed);
    };
    let work = || pantala_store::compact(directory, LogOptions::default(), each);
    let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let compacted = watch("Compacting", || load(&done), || load(&total), work).map_err(|error| match error {
        CompactError::Open(error) => ToolError::Open(folder.clone(), error),
        CompactError::Commit(error) => ToolError::Compact(error),
    })?;
    let (before, after) = (&compacted.before, &compacted.after);
    let mut text = format!("Store in {}\n  before  {}\n  after   {}\n", folder.display(), files(before), files(after));
    if compacted.deleted > 0 {
        text.push_str(&format!("  {} entries that belonged to nothing are gone\n", compacted.deleted));
    }
    text.push_str(&damages(&compacted.report));
    if after.damaged_entries > 0 {
        text.push_str(&format!("{} entries could not be read again, and are lost\n", after.damaged_entries));
    }
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ToolError::Output)?;
    Ok(if after.damaged_entries > 0 { Soundness::Damaged } else { damage_of(&compacted.report) })
}

/// Copies the store into `to`, a new data directory that a broker can be started with.
///
/// It has another name, with `.partial` at its end, until it is whole.
///
/// # Errors
/// See [`ToolError`]. Damage is none: what is damaged is copied as it is.
pub fn backup(data_dir: &Path, to: &Path, out: &mut impl Write) -> Result<Soundness, ToolError> {
    // `a/b/` is `a/b`, beside which the folder that is not whole yet is made.
    let to: PathBuf = to.components().collect();
    let mut partial = to.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    for path in [&to, &partial] {
        // A link that leads nowhere is there, too.
        if path.symlink_metadata().is_ok() {
            return Err(ToolError::Exists(path.clone()));
        }
    }
    let source = Source::open(data_dir)?;
    let Source { folder, inspection, read_bytes } = &source;
    let failed = |error| ToolError::Copy(to.clone(), error);
    DirBuilder::new().mode(0o700).create(&partial).map_err(failed)?;
    let begun = read_bytes.load(Ordering::Relaxed);
    let done = || read_bytes.load(Ordering::Relaxed) - begun;
    let statistics = inspection.statistics();
    let work = || -> Result<u64, ToolError> {
        let copied = inspection.backup(&partial.join(FOLDER)).map_err(|error| match error {
            BackupError::Exists => ToolError::Exists(to.clone()),
            BackupError::Io(error) => failed(error),
        })?;
        fs::rename(&partial, &to).map_err(failed)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        Ok(copied)
    };
    let copied = watch("Copying", done, || statistics.log_bytes, work).inspect_err(|_| {
        // What is not whole is of no use, and may be what filled the disk. It has been made here.
        drop(fs::remove_dir_all(&partial));
    })?;
    let mut text = format!(
        "Copied {} in {} segments with {} entries from {} to {}\n",
        bytes(copied),
        statistics.segments,
        statistics.live_entries,
        folder.display(),
        to.join(FOLDER).display()
    );
    text.push_str(&damages(&inspection.report));
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ToolError::Output)?;
    Ok(damage_of(&inspection.report))
}

/// A store that is open for reading.
struct Source {
    folder: PathBuf,
    inspection: Inspection,
    read_bytes: Arc<AtomicU64>,
}

impl Source {
    fn open(data_dir: &Path) -> Result<Self, ToolError> {
        let folder = find(data_dir)?;
        let disk = ReadOnly::open(&folder).map_err(|error| refused(&folder, error))?;
        let total = log_bytes(&folder).map_err(|error| ToolError::Read(folder.clone(), error))?;
        let read_bytes = disk.read_bytes();
        let opened = watch("Reading", || read_bytes.load(Ordering::Relaxed), || total, || Inspection::open(disk));
        let inspection = opened.map_err(|error| ToolError::Open(folder.clone(), error))?;
        Ok(Self { folder, inspection, read_bytes })
    }
}

/// Where in a data directory the store is.
fn find(data_dir: &Path) -> Result<PathBuf, ToolError> {
    let folder = data_dir.join(FOLDER);
    match fs::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() && import::is_unfinished(&folder) => Err(ToolError::Unfinished(folder)),
        Ok(metadata) if metadata.is_dir() => Ok(folder),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ToolError::Read(folder, error)),
        _ => Err(ToolError::NoStore(data_dir.to_owned())),
    }
}

fn refused(folder: &Path, error: DirectoryError) -> ToolError {
    match error {
        DirectoryError::InUse(folder) => ToolError::InUse(folder),
        DirectoryError::Io(error) => ToolError::Read(folder.to_owned(), error),
    }
}

/// Bytes of the files that are read at first.
fn log_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Files that were found damaged at some time, and are kept for whoever wants to look into them.
fn set_aside(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.contains(".damaged") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn damage_of(report: &OpenReport) -> Soundness {
    if report.damages.is_empty() { Soundness::Sound } else { Soundness::Damaged }
}

fn damages(report: &OpenReport) -> String {
    report.damages.iter().map(|damage| format!("Damage: {damage}\n")).collect()
}

fn files(statistics: &Statistics) -> String {
    format!(
        "{} in {} segments and {} spare files; the log has {}, of which {} are live",
        bytes(statistics.file_bytes),
        statistics.segments,
        statistics.spares,
        bytes(statistics.log_bytes),
        bytes(statistics.live_bytes)
    )
}

/// `1.5 MiB (1572864 bytes)`: one to read, one to compute with.
fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit} ({bytes} bytes)", bytes as f64 / f64::from(1_u32 << shift)),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_twice() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB (1536 bytes)");
        assert_eq!(bytes(3 << 29), "1.5 GiB (1610612736 bytes)");
    }

    /// A data directory with the store that the first version wrote.
    fn fixture() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let from = concat!(env!("CARGO_MANIFEST_DIR"), "/../store/tests/fixtures/v1");
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(FOLDER).join(entry.file_name())).unwrap();
        }
        folder
    }

    fn dumped(data_dir: &Path, selection: Option<Selection>) -> String {
        let mut out = Vec::new();
        assert_eq!(dump(data_dir, selection, &mut out).unwrap(), Soundness::Sound);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_entry_is_a_line_under_the_name_of_its_kind() {
        let folder = fixture();
        let all = dumped(folder.path(), None);
        insta::assert_snapshot!(all);
        let mut apart = String::new();
        for kind in Kind::ALL {
            let lines = dumped(folder.path(), Some(Selection::Kind(kind)));
            // The store is of a time that knew no owners and no publishers.
            assert_eq!(lines.is_empty(), matches!(kind, Kind::Owner | Kind::Publisher), "{kind:?}");
            let begin = format!("{{\"kind\":\"{}\",", kind.name());
            assert!(lines.lines().all(|line| line.starts_with(&begin)), "{lines}");
            apart.push_str(&lines);
        }
        assert_eq!(apart, all);
        assert_eq!(dumped(folder.path(), Some(Selection::Unreadable)), "");
    }

    #[test]
    fn what_is_there_is_said() {
        let folder = fixture();
        let mut out = Vec::new();
        assert_eq!(check(folder.path(), &mut out).unwrap(), Soundness::Sound);
        let text = String::from_utf8(out).unwrap().replace(&folder.path().display().to_string(), "DIR");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn every_kind_can_be_selected() {
        let names: Vec<_> = Selection::names().collect();
        assert_eq!(names.len(), Kind::ALL.len() + 1);
        assert!(names.iter().all(|name| Selection::named(name).is_some()));
        assert_eq!(Selection::named("sessions"), None);
    }
}
