//! What the disk alone takes to make four kilobytes safe: the floor of every durable acknowledgement.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 16 << 20;
const WRITE_BYTES: usize = 4_096;

/// A file that was filled before, so that a sync has nothing to write but the data.
#[derive(Debug)]
pub struct RawSync {
    file: File,
    at: usize,
}

impl RawSync {
    /// Makes the file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
        file.write_all(&vec![0; FILE_BYTES])?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// Writes and syncs one piece after the other for `duration`, and appends what each took, in microseconds.
    pub fn run(&mut self, duration: Duration, micros: &mut Vec<u32>) -> io::Result<()> {
        let piece = [b'.'; WRITE_BYTES];
        let started = Instant::now();
        let mut before = started;
        while before - started < duration {
            self.file.write_all_at(&piece, self.at as u64)?;
            self.file.sync_data()?;
            self.at = (self.at + WRITE_BYTES) % FILE_BYTES;
            let now = Instant::now();
            micros.push((now - before).as_micros() as u32);
            before = now;
        }
        Ok(())
    }
}
