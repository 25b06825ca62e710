//! A copy of the log while it is used.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Reader;
use super::format::segment_name;
use crate::disk::DiskFile;

const STEP: usize = 1 << 20;

/// Why there is no copy.
#[derive(Debug)]
pub enum BackupError {
    /// The folder exists.
    Exists,
    /// Reading or writing failed; what is in the folder is of no use.
    Io(io::Error),
}

impl std::fmt::Display for BackupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackupError::Exists => f.write_str("the folder for the copy exists"),
            BackupError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::AlreadyExists { BackupError::Exists } else { BackupError::Io(error) }
    }
}

impl<F: DiskFile> Reader<F> {
    /// Copies the log as of now into a new folder, from which it can be opened. The log can be written and cleaned
    /// meanwhile; files it has done with are kept until they are copied. Returns the bytes copied.
    pub fn backup(&self, to: &Path) -> Result<u64, BackupError> {
        // All at one moment: later frames go behind these ends, and older segments are not changed.
        let segments: Vec<_> = {
            let index = self.shared().read();
            let segments = index.segments().iter();
            segments.map(|segment| (segment.number, segment.file.clone(), segment.end(), segment.bytes)).collect()
        };
        DirBuilder::new().mode(0o700).create(to)?;
        let mut buffer = vec![0; STEP];
        let mut copied = 0;
        for (number, file, end, bytes) in segments {
            let name = to.join(segment_name(u64::from(number)));
            let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(name)?;
            let mut offset = 0;
            while offset < u64::from(end) {
                let step = (u64::from(end) - offset).min(STEP as u64) as usize;
                let read = file.read_at(offset, &mut buffer[..step])?;
                if read < step {
                    return Err(BackupError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                copy.write_all(&buffer[..step])?;
                offset += step as u64;
            }
            // As long as it was made, so that a copy which has been cut off does not pass for this; it takes no room.
            copy.set_len(bytes.into())?;
            copy.sync_all()?;
            copied += u64::from(end);
        }
        File::open(to)?.sync_all()?;
        if let Some(parent) = to.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(copied)
    }
}
