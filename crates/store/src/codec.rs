//! Numbers and texts as bytes, for what stands in the log and for what is on its way there.
//!
//! Reading never trusts: whatever is too short, too long or no UTF-8 is None.

use std::num::NonZeroU32;

/// Appends an unsigned number, seven bits a byte, the lowest first; all but the last byte have the high bit.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a text with its length before it.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends 0 for None, else the number and one.
pub(crate) fn put_option(out: &mut Vec<u8>, number: Option<u64>) {
    put_varint(out, number.map_or(0, |number| number.saturating_add(1)));
}

/// Bytes to be read from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn number<N: TryFrom<u64>>(&mut self) -> Option<N> {
        N::try_from(self.varint()?).ok()
    }

    pub(crate) fn option(&mut self) -> Option<Option<u64>> {
        Some(self.varint()?.checked_sub(1))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(crate) fn identifier(&mut self) -> Option<Option<NonZeroU32>> {
        Some(NonZeroU32::new(self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(number in any::<u64>(), shift in 0..64_u32, rest in proptest::collection::vec(any::<u8>(), 0..4)) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            bytes.extend_from_slice(&rest);
            let mut reader = Reader(&bytes);
            prop_assert_eq!(reader.varint(), Some(number));
            prop_assert_eq!(reader.0, &rest[..]);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader(&bytes);
            let _ = (reader.varint(), reader.text(), reader.option(), reader.bytes(), reader.number::<u8>());
        }
    }
}
