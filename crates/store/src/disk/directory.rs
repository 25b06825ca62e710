//! A folder of the file system, held by one process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::{Creator, Disk, DiskFile};

pub(super) const LOCK: &str = "lock";
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// A folder of the file system. While it is open, no other process can open it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The folder itself, open to sync its entries.
    folder: File,
    /// Holds the lock.
    lock: File,
    pace: Arc<Pace>,
}

/// How fast the disk was when it was last given a whole file.
#[derive(Debug, Default)]
struct Pace {
    /// So many files more are not filled.
    unfilled: AtomicU32,
}

/// A disk that takes fewer bytes a second than this is not given files of zeros: everything would go to it twice.
const SLOW_BYTES_PER_SECOND: u64 = 32 << 20;
/// Then so many files are reserved before one is filled to see whether it is still so.
const UNFILLED: u32 = 15;

impl Pace {
    /// Whether to fill the next file.
    fn fills(&self) -> bool {
        self.unfilled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// So many bytes have been filled, and synced, in this time.
    fn filled(&self, bytes: u64, took: Duration) {
        let at_most = Duration::from_millis(bytes * 1_000 / SLOW_BYTES_PER_SECOND);
        self.unfilled.store(if took > at_most { UNFILLED } else { 0 }, Ordering::Relaxed);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing alone would not do while a child process that is just being started has all our files.
        drop(self.lock.unlock());
    }
}

/// Why a folder cannot be used.
#[derive(Debug)]
pub enum DirectoryError {
    /// Another process has it open.
    InUse(PathBuf),
    /// The operating system says no.
    Io(io::Error),
}

impl std::fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DirectoryError::InUse(path) => write!(f, "{} is in use by another process", path.display()),
            DirectoryError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DirectoryError {}

impl From<io::Error> for DirectoryError {
    fn from(error: io::Error) -> Self {
        DirectoryError::Io(error)
    }
}

impl Directory {
    /// Opens a folder, which is made with mode 0700 if it does not exist, and locks it.
    pub fn open(path: impl AsRef<Path>) -> Result<Directory, DirectoryError> {
        let path = path.as_ref();
        if !path.is_dir() {
            let missing = path.ancestors().take_while(|ancestor| !ancestor.is_dir()).count();
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // The names of all folders that were made have to outlive a power cut too.
            for parent in fs::canonicalize(path)?.ancestors().skip(1).take(missing) {
                File::open(parent)?.sync_all()?;
            }
        }
        let path = fs::canonicalize(path)?;
        let lock = open_own(OpenOptions::new().create(true).truncate(false).write(true), &path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let folder = File::open(&path)?;
        Ok(Directory { path, folder, lock, pace: Arc::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Disk for Directory {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        names(&self.path)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        create(&self.path, &self.folder, &self.pace, name, bytes)
    }

    fn creator(&self) -> Option<Creator<File>> {
        let (path, folder, pace) = (self.path.clone(), self.folder.try_clone().ok()?, Arc::clone(&self.pace));
        Some(Box::new(move |name, bytes| create(&path, &folder, &pace, name, bytes)))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        open_own(OpenOptions::new().read(true).write(true), &self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.folder.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.folder.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let figures = rustix::fs::fstatvfs(&self.folder)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }

    fn mark_alive(&self, wall: u64) -> io::Result<()> {
        self.lock.set_modified(UNIX_EPOCH + Duration::from_millis(wall))
    }

    fn last_alive(&self) -> Option<u64> {
        let modified = self.lock.metadata().and_then(|metadata| metadata.modified()).ok()?;
        u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }
}

impl DiskFile for File {
    #[inline]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    #[inline]
    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match FileExt::read_at(self, &mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }
}

/// The names of the files in a folder.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn create(path: &Path, folder: &File, pace: &Pace, name: &str, bytes: u64) -> io::Result<File> {
    let path = path.join(name);
    let file = open_own(OpenOptions::new().create(true).truncate(true).read(true).write(true), &path)?;
    // Not every file system can reserve.
    let is_reserved = !pace.fills() && fallocate(&file, FallocateFlags::empty(), 0, bytes).is_ok();
    let begun = Instant::now();
    let filled = if is_reserved { Ok(()) } else { fill(&file, bytes) };
    let synced = filled.and_then(|()| file.sync_all());
    if synced.is_ok() && !is_reserved {
        pace.filled(bytes, begun.elapsed());
    }
    match synced.and_then(|()| folder.sync_all()) {
        Ok(()) => Ok(file),
        Err(error) => {
            // Half a file is of no use, and keeps others from the little room there is.
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// Opens a file of the folder. A link in its place is not followed: a broker that begins as root opens its store as root, and who may
/// write to the folder could have any file emptied.
fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    options.mode(0o600).custom_flags(flags).open(path).map_err(|error| {
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_symlink());
        match is_link {
            true => io::Error::other(format!("{} is a link, which is not followed: remove it", path.display())),
            false => error,
        }
    })
}

/// Zeros are written rather than reserved, unless the disk is slow: a reserved block still has to be marked as written with
/// the first sync of what is in it, and that sync then waits for the file system's own log.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < bytes {
        let step = (bytes - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], offset)?;
        offset += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_slow_disk_is_not_given_every_byte_twice() {
        let pace = Pace::default();
        assert!(pace.fills() && pace.fills());
        pace.filled(4 << 20, Duration::from_millis(124));
        assert!(pace.fills());
        pace.filled(4 << 20, Duration::from_millis(126));
        assert_eq!((0..UNFILLED).filter(|_| pace.fills()).count(), 0);
        // One to see how it is by now.
        assert!(pace.fills() && pace.fills());
    }

    #[test]
    fn a_file_that_is_reserved_is_as_one_that_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        directory.pace.filled(1, Duration::from_secs(1));
        let bytes = 1 << 20;
        let files = [directory.create("a", bytes).unwrap(), directory.creator().unwrap()("b", bytes).unwrap()];
        for file in files {
            let mut read = vec![1; bytes as usize + 1];
            assert_eq!(DiskFile::read_at(&file, 0, &mut read).unwrap(), bytes as usize);
            assert!(read[..bytes as usize].iter().all(|byte| *byte == 0));
            // There is room for all of it already.
            assert!(std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512 >= bytes);
        }
        assert_eq!(directory.pace.unfilled.load(Ordering::Relaxed), UNFILLED - 2);
    }

    #[test]
    fn a_folder_is_private_and_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let directory = Directory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(Directory::open(&path), Err(DirectoryError::InUse(_))));
        drop(directory);
        assert!(Directory::open(&path).is_ok());
    }

    #[test]
    fn files_are_made_of_zeros_and_renamed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open(parent.path()).unwrap();
        let file = directory.create("x", 300_000).unwrap();
        assert_eq!(DiskFile::len(&file).unwrap(), 300_000);
        DiskFile::write_at(&file, 299_998, b"ab").unwrap();
        directory.rename("x", "y").unwrap();
        let mut bytes = [1; 4];
        assert_eq!(DiskFile::read_at(&directory.open("y").unwrap(), 299_997, &mut bytes).unwrap(), 3);
        assert_eq!(bytes, [0, b'a', b'b', 1]);
        directory.remove("y").unwrap();
        assert_eq!(directory.list().unwrap(), [LOCK]);
        assert!(directory.free_bytes().unwrap() > 0);
    }

    /// Who may write to the folder had a file of root's emptied at the next start.
    #[test]
    fn links_in_the_places_of_files_are_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let (victim, store) = (parent.path().join("victim"), parent.path().join("store"));
        fs::write(&victim, "precious").unwrap();
        let directory = Directory::open(&store).unwrap();
        for (name, target) in [("preparing", &victim), ("spare.0", &parent.path().join("nowhere"))] {
            std::os::unix::fs::symlink(target, store.join(name)).unwrap();
            let error = directory.create(name, 10).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("is a link"), "{error}");
        }
        assert!(directory.open("preparing").is_err());
        drop(directory);
        fs::remove_file(store.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&victim, store.join(LOCK)).unwrap();
        assert!(Directory::open(&store).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!parent.path().join("nowhere").exists());
    }
}
