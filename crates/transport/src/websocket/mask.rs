//! The mask that clients lay over their bytes, so that no proxy between takes them for something else.

/// Takes the mask off, eight bytes at a time. `mask` begins with the first of `bytes`; what is returned begins with
/// the byte behind the last.
#[inline]
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
    let mut next = mask;
    next.rotate_left(rest.len() % 4);
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_unmasked_one_by_one_or_in_parts(
            bytes in proptest::collection::vec(any::<u8>(), 0..70),
            mask: [u8; 4],
            cut: prop::sample::Index,
        ) {
            let expected: Vec<u8> = bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            let mut parts = bytes;
            let cut = cut.index(parts.len() + 1);
            let mask = unmask(&mut parts[..cut], mask);
            unmask(&mut parts[cut..], mask);
            prop_assert_eq!(parts, expected);
        }
    }
}
