//! The file with the number of the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file, which goes when this does.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes the number of this process. A link in its place is refused: what it leads to is somebody else's.
    pub(crate) fn write(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // A pipe there would have us wait for a reader.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut written = Self { path: path.to_owned(), file };
        written.file.set_len(0)?;
        written.file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        Ok(written)
    }

    /// Whether the name still leads to what was written.
    fn is_ours(&self) -> bool {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|mut file| file.read_to_string(&mut text));
        read.is_ok() && text.trim() == std::process::id().to_string()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another broker may have written its own there meanwhile.
        if self.is_ours() && fs::remove_file(&self.path).is_err() {
            // Its folder may not be ours to change any more. Then at least the number is not left behind.
            drop(self.file.rewind().and_then(|()| self.file.set_len(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_number_while_the_broker_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        fs::write(&path, "an older and longer one").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n", "that of another process stays");
    }

    #[test]
    fn it_follows_no_link_and_waits_for_no_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, link) = (folder.path().join("victim"), folder.path().join("pid"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(PidFile::write(&link).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(PidFile::write(folder.path()).is_err());
    }
}
