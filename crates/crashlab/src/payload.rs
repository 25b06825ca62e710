//! Payloads that say who made them and show whether they are whole.
//!
//! Sixteen bytes of header: publisher, sequence number, publish time, check sum, each 32 bits, big endian. The rest is
//! derived from these, so a payload that was cut, mixed or invented does not pass.

use std::fmt;

use crate::history::MessageId;
use crate::random::Random;

/// Bytes of the header, and so of the shortest payload.
pub const HEADER_BYTES: usize = 16;

/// What a payload turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A whole message of ours.
    Message(MessageId),
    /// No bytes: the delete of a Retained Message.
    Empty,
    /// Anything else.
    Damaged,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => message.fmt(f),
            Self::Empty => f.write_str("nothing"),
            Self::Damaged => f.write_str("something damaged"),
        }
    }
}

/// The payload of a message, `bytes` long but at least a header.
pub fn encode(salt: u64, message: MessageId, publish_millis: u32, bytes: usize) -> Vec<u8> {
    let bytes = bytes.max(HEADER_BYTES);
    let mut payload = Vec::with_capacity(bytes + 8);
    payload.extend(u32::from(message.publisher).to_be_bytes());
    payload.extend(message.sequence.to_be_bytes());
    payload.extend(publish_millis.to_be_bytes());
    let mut derived = derived(salt, message, publish_millis, bytes);
    payload.extend(((derived.number() >> 32) as u32).to_be_bytes());
    while payload.len() < bytes {
        payload.extend(derived.number().to_be_bytes());
    }
    payload.truncate(bytes);
    payload
}

/// Looks at every byte.
pub fn decode(salt: u64, payload: &[u8]) -> Content {
    if payload.is_empty() {
        return Content::Empty;
    }
    let word = |at: usize| {
        let bytes = payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let (Some(publisher), Some(sequence), Some(publish_millis)) = (word(0), word(4), word(8)) else {
        return Content::Damaged;
    };
    let Ok(publisher) = u16::try_from(publisher) else { return Content::Damaged };
    let message = MessageId { publisher, sequence };
    if encode(salt, message, publish_millis, payload.len()) == payload {
        Content::Message(message)
    } else {
        Content::Damaged
    }
}

fn derived(salt: u64, message: MessageId, publish_millis: u32, bytes: usize) -> Random {
    let seed = u64::from(message.publisher) << 32 ^ u64::from(message.sequence);
    Random::new(salt).branch(seed).branch(u64::from(publish_millis)).branch(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: MessageId = MessageId { publisher: 3, sequence: 70_000 };

    #[test]
    fn what_is_whole_is_recognised_whatever_its_length() {
        for bytes in [0, 16, 17, 127, 16_384] {
            let payload = encode(9, MESSAGE, 1_234, bytes);
            assert_eq!(payload.len(), bytes.max(HEADER_BYTES));
            assert_eq!(decode(9, &payload), Content::Message(MESSAGE));
        }
        assert_eq!(decode(9, &[]), Content::Empty);
    }

    #[test]
    fn what_is_cut_mixed_or_invented_is_not() {
        let payload = encode(9, MESSAGE, 1_234, 100);
        assert_eq!(decode(9, &payload[..99]), Content::Damaged);
        assert_eq!(decode(8, &payload), Content::Damaged, "of another run");
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_eq!(decode(9, &changed), Content::Damaged, "byte {at}");
        }
        assert_eq!(decode(9, b"short"), Content::Damaged);
    }
}
