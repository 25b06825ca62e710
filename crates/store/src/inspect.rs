//! A store that no broker has open, for tools: looked into without a change, or compacted.

use std::io;
use std::path::Path;

use crate::disk::{Disk, ReadOnly, ReadOnlyFile};
use crate::ledger::Ledger;
use crate::log::{BackupError, Batch, CommitError, Log, LogOptions, OpenError, OpenReport, Reader, Statistics};
use crate::recover::{Collector, Recovered};

/// A store that is looked into. Nothing in it is changed, not even repaired.
pub struct Inspection {
    log: Log<ReadOnly>,
    /// How its files were found.
    pub report: OpenReport,
}

impl Inspection {
    /// Reads all files once.
    ///
    /// # Errors
    /// If they cannot be read, or a later version wrote them. Damage is no error: see [`OpenReport`].
    pub fn open(disk: ReadOnly) -> Result<Self, OpenError> {
        let (log, report) = Log::open(disk, LogOptions::default())?;
        Ok(Self { log, report })
    }

    /// What a broker would start with.
    ///
    /// # Errors
    /// If files cannot be read.
    pub fn recovered(&self) -> io::Result<Recovered> {
        recovered(&self.log)
    }

    /// Figures.
    pub fn statistics(&self) -> Statistics {
        self.log.statistics()
    }

    /// Kind and key of every entry, in their order.
    ///
    /// # Errors
    /// If files cannot be read.
    pub fn keys(&self) -> io::Result<Vec<(u8, Box<[u8]>)>> {
        let mut keys = Vec::new();
        self.log.for_each(|kind, key, _| keys.push((kind, key.into())))?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// To read values with.
    pub fn reader(&self) -> Reader<ReadOnlyFile> {
        self.log.reader()
    }

    /// Copies the store into a new folder, from which it can be opened. Returns the bytes copied.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn backup(&self, to: &Path) -> Result<u64, BackupError> {
        self.log.reader().backup(to)
    }
}

/// What compaction has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// How the files were found.
    pub report: OpenReport,
    /// Entries that nothing referred to, and that have been deleted.
    pub deleted: u64,
    /// Figures from before.
    pub before: Statistics,
    /// Figures from after.
    pub after: Statistics,
}

/// Copies what is live together, and gives up all the rest. It can be ended at any moment without harm. `each` is called after
/// each step, with the bytes done and those to be done.
///
/// # Errors
/// If files cannot be read, or written; [`CommitError::NoSpace`] if the disk is full.
pub fn compact<D: Disk>(disk: D, options: LogOptions, each: impl FnMut(u64, u64)) -> Result<Compacted, CompactError> {
    let (mut log, report) = Log::open(disk, options).map_err(CompactError::Open)?;
    let before = log.statistics();
    let recovered = recovered(&log).map_err(|error| CompactError::Open(error.into()))?;
    // What belongs to something that cannot be read is not deleted: it may be looked into yet.
    let is_sound = report.damages.is_empty() && recovered.unreadable == 0;
    let garbage = if is_sound { recovered.garbage } else { Vec::new() };
    let deleted = garbage.len() as u64;
    let mut batch = Batch::new();
    for (kind, key) in garbage {
        batch.delete(kind as u8, &key);
    }
    log.commit(&mut batch, true).map_err(CompactError::Commit)?;
    log.compact(each).map_err(CompactError::Commit)?;
    Ok(Compacted { report, deleted, before, after: log.statistics() })
}

/// Why a store is not compacted.
#[derive(Debug)]
pub enum CompactError {
    /// It cannot be read.
    Open(OpenError),
    /// It cannot be written. Nothing is lost.
    Commit(CommitError),
}

impl std::fmt::Display for CompactError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Commit(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompactError {}

fn recovered<D: Disk>(log: &Log<D>) -> io::Result<Recovered> {
    let mut collector = Collector::new();
    log.for_each(|kind, key, value| collector.entry(kind, key, value))?;
    // Nobody goes on from here, so what the ledger learns is forgotten.
    Ok(collector.finish(&mut Ledger::new(1)))
}
