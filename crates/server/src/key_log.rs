//! The file with the secrets of TLS sessions, for whoever has to read what was recorded on the wire.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use pantala_tls::KeyLog;

/// Opens the file, to be written to at its end. Nobody but its owner can read it. A link in its place is refused, and whatever is no
/// file.
pub(crate) fn open(path: &Path) -> io::Result<KeyLog> {
    // A pipe there would have us wait for a reader.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    // One that was there already may have been for more than its owner.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(KeyLog::new(move |line| write(&file, line)))
}

/// A line is one write, so those of several threads do not mix. A file that cannot be written to must not keep clients out.
fn write(mut file: &File, line: &str) {
    drop(file.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_its_owners_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("keys"), folder.path().join("link"));
        std::fs::write(&path, "what was there\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "what was there\n");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open(&link).is_err());
        assert!(open(folder.path()).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
    }
}
