//! A disk that is slow in a known way, for a broker that knows nothing of it.
//!
//! A small C library, built when it is wanted and preloaded into the broker, makes its `fsync` and `fdatasync` last longer.
//! What it does costs next to nothing beside the sleep, unlike injection by a tracer, which stops the process at each call.
//! It counts what it has done in a file that both sides see; without these counts a broker that does not load it (a static
//! executable, say) would be measured on the quick disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Activity;
use crate::fault::Fault;

const SOURCE: &str = include_str!("slow_disk.c");
/// What the account has: see `struct account`.
const COUNTERS: usize = 7;

/// In which way the disk is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slowness {
    /// It is as it is; only counted.
    None,
    /// Each sync takes so much longer.
    Delay(Duration),
    /// What is synced goes down at so many bytes per second.
    Rate(u64),
}

/// The library, built.
#[derive(Debug)]
pub(super) struct SlowDisk {
    library: PathBuf,
}

/// What was done to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskUse {
    /// Calls of `fsync` and `fdatasync`.
    pub(super) syncs: u64,
    /// Of these, by `fsync`: of whole files and of folders.
    pub(super) fsyncs: u64,
    /// What these took, made longer as they were.
    pub(super) in_fsync: Duration,
    /// Written to files.
    pub(super) written_bytes: u64,
    /// Of these, followed by a sync.
    pub(super) synced_bytes: u64,
    /// What syncs took by themselves.
    pub(super) synced: Duration,
    /// By which they were made longer.
    pub(super) waited: Duration,
}

/// Where a program that has the library tells what it did.
#[derive(Debug)]
pub(super) struct Account {
    path: PathBuf,
    slowness: Slowness,
}

impl SlowDisk {
    /// Builds it in `folder`. The error says what is missing.
    pub(super) fn build(folder: &Path) -> io::Result<Result<Self, &'static str>> {
        let folder = fs::canonicalize(folder)?;
        let (source, library) = (folder.join("slow_disk.c"), folder.join("slow_disk.so"));
        fs::write(&source, SOURCE)?;
        let mut command = Command::new("cc");
        command.args(["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(&source);
        let Ok(output) = command.stdin(Stdio::null()).output() else { return Ok(Err("no C compiler `cc`")) };
        if output.status.success() {
            return Ok(Ok(Self { library }));
        }
        eprintln!("cc: {}", String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default());
        Ok(Err("the C compiler `cc` cannot build a library that is preloaded"))
    }

    /// A command line that gives such a disk to what runs under it, and where it tells what it did. The process is that of
    /// the program, as `env` becomes it.
    pub(super) fn attach(&self, slowness: Slowness, account: &Path) -> io::Result<(Vec<String>, Account)> {
        fs::write(account, [0; COUNTERS * 8])?;
        let path = fs::canonicalize(account)?;
        let mut variables =
            vec![("LD_PRELOAD", self.library.display().to_string()), ("SLOW_DISK_ACCOUNT", path.display().to_string())];
        match slowness {
            Slowness::None => {}
            Slowness::Delay(delay) => variables.push(("SLOW_DISK_DELAY_US", delay.as_micros().to_string())),
            Slowness::Rate(bytes) => variables.push(("SLOW_DISK_BYTES_PER_SECOND", bytes.to_string())),
        }
        let words = variables.into_iter().map(|(name, value)| format!("{name}={value}"));
        Ok((std::iter::once("env".to_owned()).chain(words).collect(), Account { path, slowness }))
    }
}

impl Account {
    /// What was done so far.
    pub(super) fn read(&self) -> io::Result<DiskUse> {
        let bytes = fs::read(&self.path)?;
        let (words, _) = bytes.as_chunks::<8>();
        let [syncs, fsyncs, in_fsync, written_bytes, synced_bytes, synced, waited] =
            words.first_chunk::<COUNTERS>().ok_or(io::ErrorKind::UnexpectedEof)?.map(u64::from_ne_bytes);
        let [in_fsync, synced, waited] = [in_fsync, synced, waited].map(Duration::from_nanos);
        Ok(DiskUse { syncs, fsyncs, in_fsync, written_bytes, synced_bytes, synced, waited })
    }

    /// Fails if the disk was not as slow as it should have been for what the broker says of it.
    pub(super) fn check(&self, disk: &DiskUse, broker: &Activity) -> Result<(), Fault> {
        if disk.syncs == 0 || disk.syncs < broker.syncs || disk.written_bytes < broker.bytes {
            return Err(Fault::NotSlowed("it was not asked by all of the broker's writes and syncs"));
        }
        let due = match self.slowness {
            Slowness::None => return Ok(()),
            Slowness::Delay(delay) => (disk.waited, delay.as_secs_f64() * disk.syncs as f64),
            Slowness::Rate(bytes) => (disk.synced + disk.waited, disk.synced_bytes as f64 / bytes as f64),
        };
        // No wait is short, but the counters of a sync that is just over are not read all at once.
        if due.0.as_secs_f64() < due.1 * 0.99 {
            return Err(Fault::NotSlowed("its syncs were too short"));
        }
        Ok(())
    }
}

impl DiskUse {
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            syncs: self.syncs - earlier.syncs,
            fsyncs: self.fsyncs - earlier.fsyncs,
            in_fsync: self.in_fsync - earlier.in_fsync,
            written_bytes: self.written_bytes - earlier.written_bytes,
            synced_bytes: self.synced_bytes - earlier.synced_bytes,
            synced: self.synced - earlier.synced,
            waited: self.waited - earlier.waited,
        }
    }

    /// What one sync took, all in all.
    pub(super) fn per_sync(&self) -> Duration {
        (self.synced + self.waited).div_f64(self.syncs.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn dd(name: &str, slowness: Slowness, kibibytes: u32) -> (DiskUse, Duration) {
        dd_with("fdatasync", name, slowness, kibibytes)
    }

    /// `dd` writes so many bytes with `write`, and syncs once, by this call.
    fn dd_with(call: &str, name: &str, slowness: Slowness, kibibytes: u32) -> (DiskUse, Duration) {
        let folder = std::env::temp_dir().join(format!("pantala-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let slow_disk = SlowDisk::build(&folder).unwrap().unwrap();
        let (words, account) = slow_disk.attach(slowness, &folder.join("account")).unwrap();
        let begun = Instant::now();
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["dd", "if=/dev/zero", "bs=1024", &format!("conv={call}")])
            .arg(format!("of={}", folder.join("written").display()))
            .arg(format!("count={kibibytes}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let took = begun.elapsed();
        let disk = account.read().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        account
            .check(&disk, &Activity { syncs: 1, bytes: u64::from(kibibytes) * 1_024, ..Activity::default() })
            .unwrap();
        (disk, took)
    }

    #[test]
    fn each_sync_of_a_program_takes_longer_by_the_delay() {
        let delay = Duration::from_millis(150);
        let (disk, took) = dd("delay", Slowness::Delay(delay), 4);
        // What it says of itself goes to a pipe, and is nothing that a disk has to do.
        assert_eq!((disk.syncs, disk.written_bytes, disk.synced_bytes), (1, 4_096, 4_096));
        assert!(disk.waited >= delay && took >= delay, "{disk:?} {took:?}");
        assert_eq!(disk.per_sync(), disk.synced + disk.waited);
        assert_eq!(disk.fsyncs, 0);
    }

    #[test]
    fn a_sync_lasts_as_long_as_its_bytes_take_at_the_rate() {
        let (disk, took) = dd("rate", Slowness::Rate(1 << 20), 256);
        assert_eq!((disk.syncs, disk.synced_bytes), (1, 256 << 10));
        let due = Duration::from_millis(249);
        assert!(disk.synced + disk.waited >= due && took >= due, "{disk:?} {took:?}");
    }

    #[test]
    fn syncs_of_whole_files_are_told_apart() {
        let (disk, _) = dd_with("fsync", "file", Slowness::Delay(Duration::from_millis(1)), 4);
        assert_eq!((disk.syncs, disk.fsyncs, disk.in_fsync), (1, 1, disk.synced + disk.waited));
    }

    #[test]
    fn a_disk_that_is_only_counted_is_not_slowed() {
        let (disk, _) = dd("counted", Slowness::None, 4);
        assert_eq!((disk.syncs, disk.synced_bytes, disk.waited), (1, 4_096, Duration::ZERO));
    }

    #[test]
    fn a_broker_without_the_library_is_found_out() {
        let account = |slowness| Account { path: PathBuf::new(), slowness };
        let delay = account(Slowness::Delay(Duration::from_millis(50)));
        let broker = Activity { syncs: 2, bytes: 1_000, ..Activity::default() };
        let disk = |syncs, written_bytes, millis| DiskUse {
            syncs,
            written_bytes,
            synced_bytes: written_bytes,
            waited: Duration::from_millis(millis),
            ..DiskUse::default()
        };
        assert_eq!(delay.check(&disk(2, 1_000, 100), &broker), Ok(()));
        for wrong in [DiskUse::default(), disk(1, 1_000, 50), disk(2, 999, 100), disk(2, 1_000, 90)] {
            assert!(matches!(delay.check(&wrong, &broker), Err(Fault::NotSlowed(_))), "{wrong:?}");
        }
        let rate = account(Slowness::Rate(10_000));
        assert_eq!(rate.check(&disk(2, 1_000, 100), &broker), Ok(()));
        assert!(rate.check(&disk(2, 1_000, 90), &broker).is_err());
        assert!(account(Slowness::None).check(&DiskUse::default(), &Activity::default()).is_err());
    }
}
