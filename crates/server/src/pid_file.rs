//! The file with the number of the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::LogType;
use crate::log::Log;

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

    /// Removes it. Where that is not allowed any more it is emptied at least, which is said.
    pub(crate) fn remove(mut self, log: &Log) {
        if let Err(error) = self.take_back() {
            let path = self.path.display();
            let text = format!("Warning: the pid file {path} stays behind, without a number: {error}.");
            log.line(LogType::Warning, &text);
        }
    }

    /// Removes the file, or at least the number in it, unless somebody else has put something there. Does nothing a second time.
    fn take_back(&mut self) -> io::Result<()> {
        // Another broker may have written its own number into it meanwhile, or put a file of its own there.
        if !self.has_our_number() {
            return Ok(());
        }
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(found) if !self.is_same(&found) => Ok(()),
            Ok(_) => fs::remove_file(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A directory that may not be entered any more.
            Err(error) => Err(error),
        };
        // What was opened at the start can be written to, whoever we are by now.
        drop(self.file.rewind().and_then(|()| self.file.set_len(0)));
        removed
    }

    fn is_same(&self, found: &fs::Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
    }

    /// Whether what was opened still holds what was written.
    fn has_our_number(&mut self) -> bool {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        read.is_ok() && text.trim() == std::process::id().to_string()
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Who could be told is told by `remove`.
        drop(self.take_back());
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

    /// It stayed behind, and its number with it, where its directory could not be entered any more.
    #[test]
    fn what_cannot_be_removed_has_no_number_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("below/pid"), folder.path().join("moved"));
        fs::create_dir(folder.path().join("below")).unwrap();
        let mut file = PidFile::write(&path).unwrap();
        // Without the directory there is nothing to be removed by this name, as without the right to enter it.
        fs::rename(folder.path().join("below"), &moved).unwrap();
        fs::write(folder.path().join("below"), "").unwrap();
        assert!(file.take_back().is_err());
        assert_eq!(fs::read_to_string(moved.join("pid")).unwrap(), "");
        assert!(file.take_back().is_ok());
        // What somebody else has put there is left alone.
        let path = moved.join("pid");
        let mut file = PidFile::write(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        file.take_back().unwrap();
        assert!(path.exists());
    }
}
