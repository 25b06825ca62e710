//! The file layer under the log: a folder of files, as little of it as the log needs.
//!
//! It is a trait so that tests can count, fail and tear what goes to the disk: [`Directory`] is the real one,
//! [`SimDisk`] lives in memory and knows what a power cut may leave.

mod directory;
mod read_only;
mod sim;

use std::io;

pub use directory::{Directory, DirectoryError};
pub use read_only::{ReadOnly, ReadOnlyFile};
pub use sim::{Operation, SimCounts, SimDisk, SimFile};

/// Makes a file of so many zeros under a name.
pub type Creator<F> = Box<dyn FnOnce(&str, u64) -> io::Result<F> + Send>;

/// A folder of files. Names have no separators in them.
pub trait Disk: Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros that is on stable storage with its name when this returns. An older file of that
    /// name is replaced. Later writes within its length need no more space.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// What makes one file as [`create`](Self::create) does, on another thread while this one goes on. None where
    /// everything is to be done in its turn.
    fn creator(&self) -> Option<Creator<Self::File>> {
        None
    }

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of the file that may have it. Open files stay what they are. The change is
    /// on stable storage when this returns.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; who has the file open can go on using it. The change is on stable storage when this returns.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// How much room there is for further files.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Leaves a mark that whoever has the folder open lives at this time, in milliseconds since 1970. It needs no room, and a
    /// power cut may lose it.
    fn mark_alive(&self, _wall: u64) -> io::Result<()> {
        Ok(())
    }

    /// The time of the last mark. None if there is none, or it cannot be known.
    fn last_alive(&self) -> Option<u64> {
        None
    }
}

/// An open file that several threads may use at once.
pub trait DiskFile: Send + Sync + 'static {
    /// Writes all bytes.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until what has been written is on stable storage. After an error nobody knows what is.
    fn sync_data(&self) -> io::Result<()>;

    /// Reads until `bytes` is full or the file ends, and tells how many were read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// The length of the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|bytes| bytes == 0)
    }
}
