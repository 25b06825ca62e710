//! What is to be committed together.

use super::format::{self, FRAME_HEADER};

/// Puts and deletes that take effect together or not at all; of several for one key the last wins.
///
/// The entries lie in one buffer as they will lie in the file, and the buffer is kept for the next batch.
#[derive(Debug)]
pub struct Batch {
    /// Room for the frame's header, and the entries.
    pub(super) frame: Vec<u8>,
    pub(super) puts: u32,
    pub(super) deletes: u32,
}

/// A buffer that has grown beyond this is given back with the batch that needed it.
const KEPT_BYTES_MAX: usize = 4 << 20;

impl Default for Batch {
    fn default() -> Self {
        Batch::new()
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch { frame: vec![0; FRAME_HEADER], puts: 0, deletes: 0 }
    }

    /// Puts a value, given in pieces that are copied one after the other.
    #[inline]
    pub fn put(&mut self, kind: u8, key: &[u8], value: &[&[u8]]) {
        format::push_put(&mut self.frame, kind, key, value);
        self.puts += 1;
    }

    /// Deletes what the key has, if anything.
    #[inline]
    pub fn delete(&mut self, kind: u8, key: &[u8]) {
        format::push_delete(&mut self.frame, kind, key);
        self.deletes += 1;
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.puts == 0 && self.deletes == 0
    }

    /// How many puts and deletes are in it.
    pub fn entries(&self) -> u32 {
        self.puts + self.deletes
    }

    /// The bytes of its entries in the file.
    pub fn bytes(&self) -> usize {
        self.frame.len() - FRAME_HEADER
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.frame.truncate(FRAME_HEADER);
        if self.frame.capacity() > KEPT_BYTES_MAX {
            self.frame.shrink_to(KEPT_BYTES_MAX);
        }
        self.puts = 0;
        self.deletes = 0;
    }

    /// Appends a put as it lies in a file.
    pub(super) fn push_copy(&mut self, entry: &[u8]) {
        self.frame.extend_from_slice(entry);
        self.puts += 1;
    }

    /// Keeps the entries for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&format::Entry<'_>) -> bool) {
        let mut read = FRAME_HEADER;
        let mut written = FRAME_HEADER;
        let (mut puts, mut deletes) = (0, 0);
        while let Some(entry) = format::entry_at(&self.frame, read) {
            let end = entry.end;
            if keep(&entry) {
                match entry.value {
                    Some(_) => puts += 1,
                    None => deletes += 1,
                }
                if written != read {
                    self.frame.copy_within(read..end, written);
                }
                written += end - read;
            }
            read = end;
        }
        self.frame.truncate(written);
        self.puts = puts;
        self.deletes = deletes;
    }
}
