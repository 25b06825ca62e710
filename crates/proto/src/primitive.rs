//! Integers, strings and binary data as MQTT writes them (v5 section 1.5).

use alloc::vec::Vec;

use crate::{DecodeError, PacketId, VARIABLE_BYTE_INTEGER_MAX};

/// Reads fields from the front of a byte slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that is left.
    #[inline]
    pub(crate) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.bytes.split_first().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(first)
    }

    #[inline]
    pub(crate) fn two_bytes(&mut self) -> Result<u16, DecodeError> {
        let (first, rest) = self.bytes.split_first_chunk::<2>().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(u16::from_be_bytes(*first))
    }

    pub(crate) fn four_bytes(&mut self) -> Result<u32, DecodeError> {
        let (first, rest) = self.bytes.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(u32::from_be_bytes(*first))
    }

    /// A flag property: 0 or 1.
    pub(crate) fn flag(&mut self, property: u8) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue(property)),
        }
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.two_bytes()?).ok_or(DecodeError::PacketIdZero)
    }

    #[inline]
    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        match decode_variable_byte_integer(self.bytes)? {
            Some((value, length)) => {
                self.bytes = &self.bytes[length..];
                Ok(value)
            }
            None => Err(DecodeError::Truncated),
        }
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.two_bytes()?;
        self.take(usize::from(length))
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        check_string(self.binary()?)
    }

    /// A property section: its length, then that many bytes.
    #[inline]
    pub(crate) fn properties(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.variable_byte_integer()?;
        self.take(length as usize)
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

/// A valid MQTT string: UTF-8 without U+0000. Surrogates are no UTF-8 already.
#[inline]
pub(crate) fn check_string(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = core::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
    if memchr::memchr(0, bytes).is_some() { Err(DecodeError::Utf8) } else { Ok(text) }
}

/// The variable byte integer at the front of `bytes` and its length in bytes; None if more bytes are needed.
///
/// # Errors
/// [`DecodeError::VariableByteInteger`] for a fourth byte with its high bit set, and for longer forms than needed.
#[inline]
pub(crate) fn decode_variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    if let Some(&byte) = bytes.first()
        && byte < 0x80
    {
        return Ok(Some((u32::from(byte), 1)));
    }
    decode_long_variable_byte_integer(bytes)
}

fn decode_long_variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for index in 0..4 {
        let Some(&byte) = bytes.get(index) else { return Ok(None) };
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return if byte == 0 && index > 0 {
                Err(DecodeError::VariableByteInteger)
            } else {
                Ok(Some((value, index + 1)))
            };
        }
    }
    Err(DecodeError::VariableByteInteger)
}

/// How many bytes the variable byte integer takes.
#[inline]
pub(crate) fn variable_byte_integer_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer. Values beyond [`VARIABLE_BYTE_INTEGER_MAX`] are a bug of the caller.
#[inline]
pub(crate) fn put_variable_byte_integer(out: &mut Vec<u8>, mut value: u32) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX);
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn put_two_bytes(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_four_bytes(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a two-byte length and the bytes. What is longer than 65_535 bytes is cut there: callers that take
/// text from outside have checked before, and a cut is the harmless way to be wrong.
#[inline]
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    put_two_bytes(out, length);
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

/// As [`put_binary`] for text, which is cut between two characters: half of one would not be UTF-8.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_binary(out, &text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))]);
}

/// Appends what `write` appends, with its length in front as a variable byte integer.
pub(crate) fn put_with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let length_at = out.len();
    out.push(0);
    write(out);
    let length = u32::try_from(out.len() - length_at - 1).unwrap_or(u32::MAX);
    let mut encoded = Vec::with_capacity(4);
    put_variable_byte_integer(&mut encoded, length.min(VARIABLE_BYTE_INTEGER_MAX));
    out.splice(length_at..=length_at, encoded);
}

/// Appends a whole packet: first byte, Remaining Length, and the body that `write` appends.
pub(crate) fn put_packet(out: &mut Vec<u8>, first_byte: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(first_byte);
    put_with_length(out, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_at_their_borders() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARIABLE_BYTE_INTEGER_MAX, &[0xff, 0xff, 0xff, 0x7f]),
        ] {
            let mut out = Vec::new();
            put_variable_byte_integer(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(variable_byte_integer_len(value), bytes.len());
            assert_eq!(decode_variable_byte_integer(bytes), Ok(Some((value, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(decode_variable_byte_integer(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn variable_byte_integers_that_are_too_long_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0x80; 4], &[0xff, 0xff, 0xff, 0xff, 0x01]] {
            assert_eq!(decode_variable_byte_integer(bytes), Err(DecodeError::VariableByteInteger));
        }
    }

    #[test]
    fn a_long_body_gets_a_long_length() {
        let mut out = Vec::from([1, 2]);
        put_with_length(&mut out, |out| out.extend_from_slice(&[7; 200]));
        assert_eq!(out[..5], [1, 2, 0xc8, 0x01, 7]);
        assert_eq!(out.len(), 204);
    }
}
