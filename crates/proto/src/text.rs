//! The one place with unsafe code: strings that are known to be ASCII need no second look as UTF-8.
//!
//! Every PUBLISH has a Topic Name, nearly all of them are short and ASCII, and `str::from_utf8` takes some seven
//! instructions a byte for those. Looking at eight bytes at a time for what must not be there finds out at once whether
//! a name is plain; the rest goes the usual way.

#![allow(unsafe_code, reason = "see above; the check and its use are next to each other")]

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The bytes as a string if all are ASCII and none is U+0000, `+` or `#`; None says nothing but that it is not so simple.
#[inline]
pub(crate) fn plain_topic_name(bytes: &[u8]) -> Option<&str> {
    if !is_plain(bytes) {
        return None;
    }
    // SAFETY: `is_plain` has found no byte of 0x80 or above, and ASCII is UTF-8.
    Some(unsafe { core::str::from_utf8_unchecked(bytes) })
}

#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let mut suspicious = 0;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        suspicious |= marks(u64::from_le_bytes(*chunk));
    }
    if let Some(last) = bytes.last_chunk::<8>() {
        // Some bytes are seen twice, which is cheaper than one by one.
        suspicious |= marks(u64::from_le_bytes(*last));
    } else {
        for &byte in rest {
            suspicious |= marks(ONES * u64::from(byte));
        }
    }
    suspicious & HIGHS == 0
}

/// The high bit of a byte is set if that byte of `word` is not ASCII, or 0, `+` or `#`. A byte after such a one may be
/// marked as well, which makes no difference to the question whether there is any.
#[inline]
fn marks(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    word | zero(word) | zero(word ^ (ONES * b'+' as u64)) | zero(word ^ (ONES * b'#' as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Each byte at each place of names of each length around the chunk's borders.
    #[test]
    fn plain_is_what_the_definition_says() {
        for length in 0..=20 {
            assert!(plain_topic_name(&vec![b'a'; length]).is_some());
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut name = vec![b'a'; length];
                    name[place] = byte;
                    let plain = byte.is_ascii() && !matches!(byte, 0 | b'+' | b'#');
                    assert_eq!(plain_topic_name(&name).is_some(), plain, "{byte:02x} at {place} of {length}");
                }
            }
        }
    }
}
