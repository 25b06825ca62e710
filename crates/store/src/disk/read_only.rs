//! A folder of the file system that is looked at and not changed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::directory::{LOCK, names};
use super::{DirectoryError, Disk, DiskFile};

/// A folder of the file system in which nothing is changed. While it is open, a [`Directory`](super::Directory) cannot be;
/// several of these can.
///
/// A log opens on it as on any other: what opening would repair, rename or remove is left as it is. No further file can be
/// made, so nothing can be committed.
#[derive(Debug)]
pub struct ReadOnly {
    path: PathBuf,
    read_bytes: Arc<AtomicU64>,
    /// Holds the lock until it is closed. None if there is no such file, as in a copy that no broker has opened yet: one made here
    /// might belong to another user than the broker's.
    _lock: Option<File>,
}

/// A file of [`ReadOnly`].
#[derive(Debug)]
pub struct ReadOnlyFile {
    file: File,
    read_bytes: Arc<AtomicU64>,
}

impl ReadOnly {
    /// Opens a folder that exists, if nobody is writing in it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DirectoryError> {
        let path = fs::canonicalize(path)?;
        let lock = match OpenOptions::new().read(true).open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        match lock.as_ref().map(File::try_lock_shared) {
            None | Some(Ok(())) => {}
            Some(Err(TryLockError::WouldBlock)) => return Err(DirectoryError::InUse(path)),
            Some(Err(TryLockError::Error(error))) => return Err(error.into()),
        }
        Ok(Self { path, read_bytes: Arc::default(), _lock: lock })
    }

    /// Counts the bytes that are read from its files, to tell how far somebody has got.
    pub fn read_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read_bytes)
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the folder is open for reading only")
}

impl Disk for ReadOnly {
    type File = ReadOnlyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        names(&self.path)
    }

    fn create(&self, _name: &str, _bytes: u64) -> io::Result<ReadOnlyFile> {
        Err(refused())
    }

    fn open(&self, name: &str) -> io::Result<ReadOnlyFile> {
        Ok(ReadOnlyFile { file: File::open(self.path.join(name))?, read_bytes: self.read_bytes() })
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

impl DiskFile for ReadOnlyFile {
    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let read = DiskFile::read_at(&self.file, offset, bytes)?;
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;

    #[test]
    fn readers_share_a_folder_and_keep_writers_out() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Directory::open(folder.path()).unwrap();
        drop(writer.create("x", 4).unwrap());
        assert!(matches!(ReadOnly::open(folder.path()), Err(DirectoryError::InUse(_))));
        drop(writer);
        let reader = ReadOnly::open(folder.path()).unwrap();
        let another = ReadOnly::open(folder.path()).unwrap();
        assert!(matches!(Directory::open(folder.path()), Err(DirectoryError::InUse(_))));
        reader.open("x").unwrap().write_at(0, b"data").unwrap();
        reader.remove("x").unwrap();
        assert!(another.create("y", 1).is_err());
        let mut bytes = [1; 4];
        assert_eq!(another.open("x").unwrap().read_at(0, &mut bytes).unwrap(), 4);
        assert_eq!((bytes, another.read_bytes().load(Ordering::Relaxed)), ([0; 4], 4));
        drop((reader, another));
        Directory::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_without_a_lock_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let reader = ReadOnly::open(folder.path()).unwrap();
        assert_eq!(reader.list().unwrap(), Vec::<String>::new());
        assert!(ReadOnly::open(folder.path().join("missing")).is_err());
    }
}
