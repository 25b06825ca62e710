//! What clients are sent, packet by packet, for a log that wants to know. Where none does, a write costs one look at that.
//!
//! Packets are told apart when the socket takes them, by their fixed headers, so that nothing has to be told where they are made.

use std::collections::HashMap;
use std::io::IoSlice;

use pantala_proto::PacketType;
use pantala_store::Store;

use crate::core::Core;
use crate::{ConnectionKey, Event};

/// Slices that are looked into: as many as one write has.
const SLICES: usize = 64;
/// Bytes of the longest fixed header.
const HEADER_BYTES_MAX: usize = 5;

/// For each connection, bytes still to be taken of a packet whose front the socket has.
#[derive(Debug, Default)]
pub(crate) struct Unsent(HashMap<ConnectionKey, usize>);

impl Unsent {
    /// The key will be another connection's.
    pub(crate) fn forget(&mut self, key: ConnectionKey) {
        if !self.0.is_empty() {
            self.0.remove(&key);
        }
    }
}

impl<S: Store> Core<S> {
    /// Tells of the packets that begin in the next `count` bytes of a connection's output, which the socket has taken.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell_sent(&mut self, key: ConnectionKey, count: usize) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = connection.output.slices(&mut slices);
        let mut rest = self.unsent.0.remove(&key).unwrap_or(0);
        let session = connection.session.and_then(|session| self.sessions.get(session as usize));
        let events = &mut self.events;
        packets(&slices[..filled], count, &mut rest, |first_byte, bytes| {
            let client_id = session.map(|session| session.client_id.clone());
            let packet_type = PacketType::from_bits(first_byte >> 4);
            events.push_back(Event::Sent { connection: key, client_id, packet_type, bytes });
        });
        // Whoever has asked for this in the middle of a packet knows the borders again when nothing is left.
        if rest > 0 && connection.output.pending() > count {
            self.unsent.0.insert(key, rest);
        }
    }
}

/// Calls `begins` for each packet that begins in the first `count` bytes of `slices`, with its first byte and its length. `rest` is how many
/// bytes belong to one that has begun before, and afterwards to one that goes on behind them. A fixed header is in one slice, and
/// all of it.
fn packets(slices: &[IoSlice<'_>], mut count: usize, rest: &mut usize, mut begins: impl FnMut(u8, usize)) {
    for slice in slices {
        let mut bytes: &[u8] = slice;
        while count > 0 && !bytes.is_empty() {
            if *rest == 0 {
                let Some(length) = packet_bytes(bytes) else { return };
                begins(bytes[0], length);
                *rest = length;
            }
            let step = (*rest).min(bytes.len()).min(count);
            bytes = &bytes[step..];
            *rest -= step;
            count -= step;
        }
    }
}

/// The length of the packet that begins here, header and all.
fn packet_bytes(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate().take(HEADER_BYTES_MAX).skip(1) {
        length |= usize::from(byte & 0x7f) << (7 * (index - 1));
        if byte & 0x80 == 0 {
            return Some(1 + index + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the socket takes them, each packet is told of once, with its length.
    #[test]
    fn packets_are_told_apart_wherever_a_write_ends() {
        let mut bytes = vec![0x20, 2, 0, 0, 0xd0, 0, 0x30, 0x82, 0x01];
        bytes.extend_from_slice(&[7; 130]);
        bytes.extend_from_slice(&[0x40, 2, 0, 1]);
        let expected = [(0x20, 4), (0xd0, 2), (0x30, 133), (0x40, 4)];
        for cut in 0..=bytes.len() {
            // The payload of the third one is a slice of its own.
            for start in 0..=bytes.len() - cut {
                let mut told = Vec::new();
                let mut rest = 0;
                let mut at = 0;
                for end in [cut, cut + start, bytes.len()] {
                    let border = 30.max(at);
                    let slices = [IoSlice::new(&bytes[at..border]), IoSlice::new(&bytes[border..])];
                    packets(&slices, end - at, &mut rest, |first_byte, length| told.push((first_byte, length)));
                    at = end;
                }
                assert_eq!(told, expected, "{cut} {start}");
                assert_eq!(rest, 0);
            }
        }
    }
}
