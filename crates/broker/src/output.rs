//! What waits to be written to one connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::message::Message;

/// Payloads from this size on are shared between receivers and written from where they are; smaller ones are copied,
/// which costs less than another slice per write.
pub(crate) const SHARED_PAYLOAD_BYTES: usize = 1_024;
/// A buffer that has grown beyond this is given back to the allocator when it is empty, not to the pool.
const POOLED_BUFFER_BYTES: usize = 65_536;
const POOLED_BUFFERS_MAX: usize = 1_024;

/// Bytes in order, with payloads of shared messages between them. Holds no buffer while nothing waits.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// Bytes of `bytes` already written.
    start: usize,
    /// Boxed, as few connections ever have any.
    splices: Option<Box<VecDeque<Splice>>>,
    pending: usize,
}

/// A payload that stands before `bytes[at]`.
#[derive(Debug)]
struct Splice {
    at: usize,
    message: Arc<Message>,
    /// Bytes of the payload already written.
    written: usize,
}

/// Empty buffers, for the connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    buffers: Vec<Vec<u8>>,
}

impl Output {
    /// Bytes that wait.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Appends what `write` appends; returns how many bytes that was. If it is more than `bytes_max`, nothing is kept and
    /// None returned. `more` bytes follow by [`Output::append_shared`] and count for the limit.
    #[inline]
    pub(crate) fn append(
        &mut self,
        pool: &mut BufferPool,
        bytes_max: usize,
        more: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<usize> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        let bytes = self.bytes.len() - before;
        if bytes + more > bytes_max {
            self.bytes.truncate(before);
            return None;
        }
        self.pending += bytes;
        Some(bytes)
    }

    /// Appends the payload of a message without copying it.
    pub(crate) fn append_shared(&mut self, message: Arc<Message>) {
        self.pending += message.payload().len();
        let splice = Splice { at: self.bytes.len(), message, written: 0 };
        self.splices.get_or_insert_default().push_back(splice);
    }

    /// What comes next, if no payload is shared; empty if nothing waits.
    #[inline]
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        if self.splices.is_none() { Some(&self.bytes[self.start..]) } else { None }
    }

    /// Fills `slices` with what comes next; returns how many it filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(splices) = &self.splices else {
            let rest = &self.bytes[self.start..];
            return match slices.first_mut() {
                Some(slice) if !rest.is_empty() => {
                    *slice = IoSlice::new(rest);
                    1
                }
                _ => 0,
            };
        };
        let mut filled = 0;
        let mut push = |bytes: &'a [u8]| {
            if let (false, Some(slice)) = (bytes.is_empty(), slices.get_mut(filled)) {
                *slice = IoSlice::new(bytes);
                filled += 1;
            }
        };
        let mut at = self.start;
        for splice in splices.iter() {
            push(&self.bytes[at..splice.at]);
            push(&splice.message.payload()[splice.written..]);
            at = splice.at;
        }
        push(&self.bytes[at..]);
        filled
    }

    /// The socket has taken `count` bytes.
    #[inline]
    pub(crate) fn wrote(&mut self, pool: &mut BufferPool, count: usize) {
        self.pending -= count;
        if self.pending == 0 {
            return self.clear(pool);
        }
        self.wrote_some(count);
    }

    fn wrote_some(&mut self, mut count: usize) {
        while let Some(splice) = self.splices.as_mut().and_then(|splices| splices.front_mut()) {
            let before = count.min(splice.at - self.start);
            self.start += before;
            count -= before;
            let payload = splice.message.payload().len() - splice.written;
            if count < payload {
                splice.written += count;
                count = 0;
                break;
            }
            count -= payload;
            if let Some(splices) = &mut self.splices {
                splices.pop_front();
            }
        }
        self.start += count;
        self.splices.take_if(|splices| splices.is_empty());
        // A reader that never catches up must not make the written part grow without end.
        if self.start > POOLED_BUFFER_BYTES && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            for splice in self.splices.iter_mut().flat_map(|splices| splices.iter_mut()) {
                splice.at -= self.start;
            }
            self.start = 0;
        }
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        pool.give(std::mem::take(&mut self.bytes));
        self.start = 0;
        if self.splices.is_some() {
            self.splices = None;
        }
        self.pending = 0;
    }
}

impl BufferPool {
    #[inline]
    fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(1_024))
    }

    #[inline]
    fn give(&mut self, mut buffer: Vec<u8>) {
        if (1..=POOLED_BUFFER_BYTES).contains(&buffer.capacity()) && self.buffers.len() < POOLED_BUFFERS_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use pantala_proto::{ForwardProperties, QoS};
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Incoming, Room};

    fn message(payload: &[u8]) -> Arc<Message> {
        Message::new(&Incoming {
            topic_name: "t",
            properties: ForwardProperties::default(),
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: None,
            id: None,
            room: Room::Unasked,
        })
    }

    fn gather(output: &Output) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = output.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn what_is_too_large_leaves_no_trace() {
        let (mut output, mut pool) = (Output::default(), BufferPool::default());
        assert_eq!(output.append(&mut pool, 3, 0, |out| out.extend_from_slice(b"abc")), Some(3));
        assert_eq!(output.append(&mut pool, 3, 1, |out| out.extend_from_slice(b"def")), None);
        assert_eq!(gather(&output), b"abc");
    }

    /// The written part was never given back while a shared payload waited, as one always does for a reader that is
    /// always behind.
    #[test]
    fn a_reader_that_is_always_behind_does_not_make_the_written_part_grow() {
        let (mut output, mut pool) = (Output::default(), BufferPool::default());
        let payload = message(&[7; 2_000]);
        for round in 0..20_000 {
            output.append(&mut pool, usize::MAX, 0, |out| out.extend_from_slice(&[round as u8; 30]));
            output.append_shared(Arc::clone(&payload));
            if round > 2 {
                output.wrote(&mut pool, 2_030);
            }
        }
        assert!(output.bytes.capacity() < 4 * POOLED_BUFFER_BYTES, "{}", output.bytes.capacity());
        let expected: Vec<u8> =
            (19_997..20_000).flat_map(|round| [[round as u8; 30].to_vec(), vec![7; 2_000]].concat()).collect();
        assert_eq!(gather(&output), expected);
    }

    proptest! {
        /// Copied and shared parts in any mix, written in pieces of any size, come out as one stream.
        #[test]
        fn the_stream_is_what_was_appended(
            parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..12),
            pieces in proptest::collection::vec(1..30_usize, 1..50),
        ) {
            let (mut output, mut pool) = (Output::default(), BufferPool::default());
            let mut expected = Vec::new();
            for (shared, bytes) in parts {
                expected.extend_from_slice(&bytes);
                if shared {
                    output.append_shared(message(&bytes));
                } else {
                    output.append(&mut pool, usize::MAX, 0, |out| out.extend_from_slice(&bytes));
                }
            }
            let mut written = Vec::new();
            let mut pieces = pieces.into_iter().cycle();
            while output.pending() > 0 {
                let waiting = gather(&output);
                let count = pieces.next().unwrap_or(1).min(waiting.len());
                prop_assert!(count > 0);
                written.extend_from_slice(&waiting[..count]);
                output.wrote(&mut pool, count);
            }
            prop_assert_eq!(written, expected);
        }
    }
}
