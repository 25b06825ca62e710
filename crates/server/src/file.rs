//! Files that an operator names, read whole: with a bound, and without waiting for anybody.
//!
//! A pipe that nobody writes to would hold up a reload for ever, and with it the end of the broker. So nothing but a regular file is
//! read, or a device that answers at once, such as `/dev/null`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The bytes of a file. One more than `bytes_max` where it has more: it is for the caller to say so.
///
/// # Errors
/// If it cannot be read, or is a pipe, a directory or a socket.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    whole(open(path)?, bytes_max)
}

/// The same, and a pipe is read to its end, however long that takes: for what is read once, before anything else is done.
///
/// # Errors
/// If it cannot be read, or is a directory or a socket.
pub(crate) fn read_waiting(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = match std::fs::metadata(path)?.file_type() {
        kind if kind.is_fifo() || kind.is_char_device() => File::open(path)?,
        _ => open(path)?,
    };
    whole(file, bytes_max)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    let what = match () {
        () if kind.is_dir() => "it is a directory, not a file",
        () if kind.is_fifo() => "it is a pipe, not a regular file",
        () if kind.is_block_device() => "it is a disk, not a regular file",
        () => return Ok(file),
    };
    Err(io::Error::other(what))
}

fn whole(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A pipe that nobody writes to held up a reload, and with it the end of the broker, for ever.
    #[test]
    fn what_may_never_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for (name, what) in [("pipe", "it is a pipe"), (".", "it is a directory"), ("socket", "No such device")] {
            let error = read(&path(name), 10).unwrap_err().to_string();
            assert!(error.contains(what), "{name}: {error}");
        }
        std::fs::write(path("file"), "0123456789").unwrap();
        assert_eq!(read(&path("file"), 10).unwrap(), b"0123456789");
        assert_eq!(read(&path("file"), 8).unwrap(), b"012345678");
        assert_eq!(read(Path::new("/dev/null"), 10).unwrap(), b"");
        assert_eq!(read(Path::new("/dev/zero"), 10).unwrap(), [0; 11]);
    }

    #[test]
    fn a_pipe_is_read_to_its_end_where_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let writer = thread::spawn({
            let path = path.clone();
            move || std::fs::write(path, "port 1\n").unwrap()
        });
        assert_eq!(read_waiting(&path, 100).unwrap(), b"port 1\n");
        writer.join().unwrap();
        assert!(read_waiting(folder.path(), 100).unwrap_err().to_string().contains("it is a directory"));
    }
}
