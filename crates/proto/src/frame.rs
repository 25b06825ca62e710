//! Where one Control Packet ends and the next begins.

use crate::primitive::decode_variable_byte_integer;
use crate::{DecodeError, PacketType, ProtocolVersion};

/// A whole Control Packet, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type and flags.
    pub first_byte: u8,
    /// All that follows the fixed header.
    pub body: &'a [u8],
    /// Bytes of the packet with its fixed header.
    pub packet_bytes: usize,
}

/// What stands at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole packet.
    Frame(Frame<'a>),
    /// Not yet a whole packet: with fewer than `needed` bytes in all another try is useless. `needed` comes from the
    /// peer; it says when to look again and is no reason to allocate.
    Incomplete {
        /// Total length at which to look again.
        needed: usize,
    },
}

/// Finds the first packet in `bytes`. `packet_bytes_max` counts the fixed header too.
///
/// # Errors
/// [`DecodeError::VariableByteInteger`] for a wrong Remaining Length and [`DecodeError::PacketTooLarge`] as soon as it
/// is known, before the body has arrived.
#[inline]
pub fn split(bytes: &[u8], packet_bytes_max: u32) -> Result<Split<'_>, DecodeError> {
    let Some((&first_byte, after)) = bytes.split_first() else { return Ok(Split::Incomplete { needed: 2 }) };
    let Some((length, length_bytes)) = decode_variable_byte_integer(after)? else {
        return Ok(Split::Incomplete { needed: bytes.len() + 1 });
    };
    let header = 1 + length_bytes;
    let packet_bytes = header + length as usize;
    if packet_bytes > packet_bytes_max as usize {
        return Err(DecodeError::PacketTooLarge);
    }
    match bytes.get(header..packet_bytes) {
        Some(body) => Ok(Split::Frame(Frame { first_byte, body, packet_bytes })),
        None => Ok(Split::Incomplete { needed: packet_bytes }),
    }
}

/// Checks packet type and reserved flags, which can be done as soon as the first byte is there.
///
/// # Errors
/// [`DecodeError::PacketType`] or [`DecodeError::HeaderFlags`].
#[inline]
pub fn check_first_byte(version: ProtocolVersion, first_byte: u8) -> Result<PacketType, DecodeError> {
    let packet_type = PacketType::from_bits(first_byte >> 4).ok_or(DecodeError::PacketType)?;
    match packet_type {
        PacketType::Publish => {}
        PacketType::Auth if !version.is_v5() => return Err(DecodeError::PacketType),
        // MQTT 3.1 let clients set DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE.
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => {
            let dup = if version == ProtocolVersion::V31 { 0b1000 } else { 0 };
            if first_byte & 0x0f & !dup != 0b0010 {
                return Err(DecodeError::HeaderFlags);
            }
        }
        _ => {
            if first_byte & 0x0f != 0 {
                return Err(DecodeError::HeaderFlags);
            }
        }
    }
    Ok(packet_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_whatever_follows() {
        let bytes = [0xc0, 0x00, 0xe0, 0x00];
        assert_eq!(split(&bytes, 10), Ok(Split::Frame(Frame { first_byte: 0xc0, body: &[], packet_bytes: 2 })));
    }

    #[test]
    fn a_cut_packet_says_how_much_it_needs() {
        assert_eq!(split(&[], 10), Ok(Split::Incomplete { needed: 2 }));
        assert_eq!(split(&[0x30], 10), Ok(Split::Incomplete { needed: 2 }));
        assert_eq!(split(&[0x30, 0x80], 1000), Ok(Split::Incomplete { needed: 3 }));
        assert_eq!(split(&[0x30, 0x05, 0x00], 10), Ok(Split::Incomplete { needed: 7 }));
    }

    #[test]
    fn a_length_at_the_limit_passes_and_one_more_does_not() {
        assert_eq!(split(&[0x30, 0x08], 10), Ok(Split::Incomplete { needed: 10 }));
        assert_eq!(split(&[0x30, 0x09], 10), Err(DecodeError::PacketTooLarge));
    }
}
