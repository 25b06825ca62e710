//! The log of an outbox: records go in, and come back after a restart.

use pantala_proto::PacketId;
use pantala_store::disk::{Directory, DirectoryError, Disk};
use pantala_store::log::{Batch, CommitError, Log, LogOptions, OpenError};

use super::format::{Entries, Owner, put_owner, put_record};
use super::{OutboxDurability, OutboxError, OutboxOptions, OutboxReport};
use crate::machine::{Kept, Record};

/// A segment's file, of which there are three at least. Bytes.
const SEGMENT_BYTES: u32 = 1 << 20;
/// What one step of cleaning copies. Bytes.
const CLEAN_BYTES: usize = 64 << 10;
/// With more than this, a batch is written in several. Bytes.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Writes records in their order.
pub(crate) struct Keeper<D: Disk> {
    log: Log<D>,
    batch: Batch,
    durability: OutboxDurability,
}

/// What was in the log.
pub(crate) struct Recovered {
    /// There was an outbox.
    pub(crate) existed: bool,
    pub(crate) kept: Vec<Kept>,
    pub(crate) opened: Vec<PacketId>,
    pub(crate) report: OutboxReport,
}

impl Keeper<Directory> {
    pub(crate) fn open(options: &OutboxOptions, client_id: &str) -> Result<(Self, Recovered), OutboxError> {
        let directory = options.directory.display().to_string();
        let disk = Directory::open(&options.directory).map_err(|error| match error {
            DirectoryError::InUse(_) => OutboxError::InUse(directory.clone()),
            DirectoryError::Io(error) => OutboxError::Open { directory: directory.clone(), cause: error.to_string() },
        })?;
        Self::open_on(disk, SEGMENT_BYTES, options.durability, &directory, client_id)
    }
}

impl<D: Disk> Keeper<D> {
    pub(crate) fn open_on(
        disk: D,
        segment_bytes: u32,
        durability: OutboxDurability,
        directory: &str,
        client_id: &str,
    ) -> Result<(Self, Recovered), OutboxError> {
        let directory = || directory.to_owned();
        let options = LogOptions { segment_bytes, ..LogOptions::default() };
        let (log, found) = Log::open(disk, options).map_err(|error| match error {
            OpenError::Io(error) => OutboxError::Open { directory: directory(), cause: error.to_string() },
            error @ OpenError::Version { .. } => {
                OutboxError::Version { directory: directory(), cause: error.to_string() }
            }
        })?;
        let mut entries = Entries::new();
        log.for_each(|kind, key, value| entries.add(kind, key, value))
            .map_err(|error| OutboxError::Open { directory: directory(), cause: error.to_string() })?;
        let mut damages: Vec<String> = found.damages.iter().map(ToString::to_string).collect();
        let mut batch = Batch::new();
        match &entries.owner {
            Owner::ClientId(owner) if owner == client_id => {}
            Owner::ClientId(owner) => {
                return Err(OutboxError::Foreign { directory: directory(), client_id: owner.clone() });
            }
            Owner::Version(version) => {
                return Err(OutboxError::Version { directory: directory(), cause: format!("version {version}") });
            }
            // It is new, or the name was in what is damaged.
            Owner::Unknown if entries.strange == 0 && (entries.known == 0 || !damages.is_empty()) => {
                put_owner(&mut batch, client_id);
            }
            Owner::Unknown => return Err(OutboxError::NotAnOutbox(directory())),
        }
        if entries.strange > 0 {
            damages.push(format!("{} entries are not understood", entries.strange));
        }
        let existed = entries.known > 0;
        let (kept, opened) = entries.finish(&mut batch);
        let report = OutboxReport { messages: kept.len(), damages };
        let mut keeper = Self { log, batch, durability };
        if !keeper.batch.is_empty() {
            keeper.commit(true)?;
        }
        Ok((keeper, Recovered { existed, kept, opened, report }))
    }

    /// Makes records safe; if that fails, those up to some point may be. After an error nothing more can be written.
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<(), OutboxError> {
        for record in records {
            put_record(&mut self.batch, record);
            if self.batch.bytes() > BATCH_BYTES_MAX {
                self.commit(false)?;
            }
        }
        // What nothing waits for is safe with the next batch.
        self.commit(records.iter().any(Record::holds_output))?;
        // Files may not grow faster than they are cleaned.
        self.tidy().map(|_| ())
    }

    fn commit(&mut self, needed: bool) -> Result<(), OutboxError> {
        let sync = needed && self.durability == OutboxDurability::Fsync;
        self.log.commit(&mut self.batch, sync).map_err(failure)
    }

    /// A step of what can wait until nothing else does. Whether there is more to do.
    pub(crate) fn tidy(&mut self) -> Result<bool, OutboxError> {
        match self.log.clean(CLEAN_BYTES, false) {
            Ok(more) => Ok(more),
            // Whoever needs room will see.
            Err(CommitError::NoSpace | CommitError::TooLarge) => Ok(false),
            Err(error @ (CommitError::Failed(_) | CommitError::Unreadable(_))) => Err(failure(error)),
        }
    }

    /// Makes files in advance.
    pub(crate) fn prepare(&mut self) -> Result<(), OutboxError> {
        match self.log.prepare() {
            Err(error @ CommitError::Failed(_)) => Err(failure(error)),
            _ => Ok(()),
        }
    }
}

fn failure(error: CommitError) -> OutboxError {
    match error {
        CommitError::NoSpace => OutboxError::Full,
        error => OutboxError::Failed(error.to_string()),
    }
}
