//! Values for other threads.

use std::io;
use std::sync::Arc;

use super::{Shared, format};
use crate::disk::DiskFile;

/// Reads values of a log, from any thread, while its owner writes and cleans it.
#[derive(Debug)]
pub struct Reader<F> {
    shared: Arc<Shared<F>>,
}

impl<F> Clone for Reader<F> {
    fn clone(&self) -> Self {
        Reader { shared: self.shared.clone() }
    }
}

impl<F: DiskFile> Reader<F> {
    pub(super) fn new(shared: Arc<Shared<F>>) -> Reader<F> {
        Reader { shared }
    }

    /// The value of a key as of the last commit that has returned. It costs one read of the file.
    pub fn get(&self, kind: u8, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.get_entry(kind, key)?.map(|(mut bytes, begin)| {
            bytes.drain(..begin);
            bytes
        }))
    }

    /// The same, with what stands before it; and where it begins.
    pub(crate) fn get_entry(&self, kind: u8, key: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
        let (packed, hash) = self.shared.hashing.key(kind, key);
        let (place, file) = {
            let index = self.shared.read();
            let Some(place) = index.get(&packed, hash) else { return Ok(None) };
            // Whoever holds the file keeps cleaning from using it again.
            let segment = index.segment(place.segment).ok_or(io::ErrorKind::InvalidData)?;
            (place, segment.file.clone())
        };
        let mut bytes = vec![0; place.bytes as usize];
        if file.read_at(u64::from(place.offset), &mut bytes)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match format::entry_at(&bytes, 0) {
            Some(entry) if entry.kind == kind && entry.key == key && entry.end == bytes.len() => {
                let value_bytes = entry.value.map_or(0, <[u8]>::len);
                let begin = bytes.len() - value_bytes;
                Ok(Some((bytes, begin)))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Whether the key has a value.
    pub fn contains(&self, kind: u8, key: &[u8]) -> bool {
        let (key, hash) = self.shared.hashing.key(kind, key);
        self.shared.read().get(&key, hash).is_some()
    }

    pub(super) fn shared(&self) -> &Shared<F> {
        &self.shared
    }
}
