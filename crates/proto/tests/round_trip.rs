//! Packets of all types and versions, to bytes and back.

mod support;
mod targets;

use pantala_proto::{DecodeError, Packet, PacketType, ProtocolVersion, frame};
use proptest::prelude::*;
use support::{VERSIONS, encode, receive, samples, strategies};

proptest! {
    #[test]
    fn a_packet_encoded_and_decoded_is_the_same((version, packet) in strategies::versioned()) {
        let bytes = encode(version, &packet);
        let decoded = receive(version, &bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&packet));
        prop_assert_eq!(encode(version, &packet), encode(version, &decoded.expect("equal to an Ok")));
    }

    /// No prefix of a packet is a packet, or the end of a frame; and a body cut short does not decode to the packet
    /// that it was, but to an error, or to less payload where the payload is what the cut took.
    #[test]
    fn a_prefix_is_incomplete((version, packet) in strategies::versioned(), at in any::<prop::sample::Index>()) {
        let bytes = encode(version, &packet);
        check_prefix(version, &bytes, at.index(bytes.len()));
    }

    #[test]
    fn a_changed_byte_never_panics_and_stays_consistent(
        (version, packet) in strategies::versioned(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(version, &packet);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(frame::Split::Frame(frame)) = frame::split(&bytes, support::ANY_SIZE) {
            let version_byte = VERSIONS.iter().position(|known| *known == version).expect("one of them") as u8;
            targets::decode(&[&[version_byte, frame.first_byte], frame.body].concat());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_in_any_decoder(body in prop::collection::vec(any::<u8>(), 0..64)) {
        for version_byte in 0..3 {
            for first_byte in 0..=u8::MAX {
                targets::decode(&[&[version_byte, first_byte], &body[..]].concat());
            }
        }
        targets::connect(&body);
    }

    /// Bytes near a valid packet reach further than bytes of no kind.
    #[test]
    fn small_numbers_never_panic_in_any_decoder(body in prop::collection::vec(0..0x30_u8, 0..32)) {
        for version_byte in 0..3 {
            for first_byte in 0..=u8::MAX {
                targets::decode(&[&[version_byte, first_byte], &body[..]].concat());
            }
        }
    }

    #[test]
    fn any_string_is_a_filter_or_is_not(text in "[$share/+#ab]{0,16}|\\$share/[a+#]{0,2}/[/+#a]{0,6}|\\PC*") {
        targets::filter(text.as_bytes());
    }
}

fn check_prefix(version: ProtocolVersion, bytes: &[u8], cut: usize) {
    let prefix = &bytes[..cut];
    match frame::split(prefix, support::ANY_SIZE) {
        Ok(frame::Split::Incomplete { needed }) => assert!(needed > cut && needed <= bytes.len()),
        other => panic!("{cut} of {} bytes: {other:?}", bytes.len()),
    }
    // The same cut, as a packet that says it is so short.
    let Ok(frame::Split::Frame(whole)) = frame::split(bytes, support::ANY_SIZE) else { panic!("not a packet") };
    let header = bytes.len() - whole.body.len();
    let Some(body) = bytes.get(header..cut) else { return };
    if let Ok(packet) = Packet::decode(version, whole.first_byte, body) {
        assert!(may_end_early(version, &packet), "{cut} of {} bytes: {packet:?}", bytes.len());
        assert_ne!(Ok(packet), Packet::decode(version, whole.first_byte, whole.body));
    }
}

/// Packets whose last field has no length of its own, or may be absent.
fn may_end_early(version: ProtocolVersion, packet: &Packet<'_>) -> bool {
    match packet {
        // The payload, Reason Codes and filters go on to the end of the packet.
        Packet::Publish(_) | Packet::SubAck(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) => true,
        Packet::UnsubAck(_) | Packet::Acknowledgement(_) | Packet::Disconnect(_) | Packet::Auth(_) => version.is_v5(),
        // Remaining Length goes before the flags in MQTT 3.1.
        Packet::Connect(_) => version == ProtocolVersion::V31,
        Packet::ConnAck(_) | Packet::PingReq | Packet::PingResp => false,
    }
}

#[test]
fn packets_written_by_hand_are_decoded_and_encoded_to_the_same_bytes() {
    for sample in samples::all() {
        let packet = receive(sample.version, &sample.bytes).unwrap_or_else(|error| panic!("{sample:x?}: {error}"));
        assert_eq!(encode(sample.version, &packet), sample.bytes, "{sample:?}");
    }
}

#[test]
fn the_samples_are_of_all_types() {
    for version in VERSIONS {
        let types = samples::of(version).into_iter().map(|sample| sample.bytes[0] >> 4);
        let types: std::collections::BTreeSet<_> = types.collect();
        assert!(types.into_iter().eq(1..if version.is_v5() { 16 } else { 15 }));
    }
}

#[test]
fn each_prefix_of_each_sample_is_incomplete() {
    for sample in samples::all() {
        for cut in 0..sample.bytes.len() {
            check_prefix(sample.version, &sample.bytes, cut);
        }
    }
}

/// A10, B11, H2: each packet whose end is known refuses what follows it.
#[test]
fn a_packet_whose_end_is_known_refuses_a_byte_more() {
    for sample in samples::all() {
        let Ok(frame::Split::Frame(whole)) = frame::split(&sample.bytes, support::ANY_SIZE) else { panic!() };
        for byte in [0x00, 0x01, 0xff] {
            let body = [whole.body, &[byte]].concat();
            match Packet::decode(sample.version, whole.first_byte, &body) {
                Err(error) => assert!(!matches!(error, DecodeError::PacketTooLarge), "{sample:?}"),
                Ok(packet) => assert!(may_end_early(sample.version, &packet), "{sample:?}"),
            }
        }
    }
}

/// All first bytes in all versions, with bodies that fit the type.
#[test]
fn first_bytes_are_judged_as_the_standard_says() {
    for version in VERSIONS {
        for first_byte in 0..=u8::MAX {
            let (kind, flags) = (first_byte >> 4, first_byte & 0x0f);
            let known = kind != 0 && (kind != 15 || version.is_v5());
            let dup = if version == ProtocolVersion::V31 { 0b1000 } else { 0 };
            let expected = match PacketType::from_bits(kind).filter(|_| known) {
                None => Err(DecodeError::PacketType),
                Some(PacketType::Publish) => Ok(PacketType::Publish),
                Some(kind @ (PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe)) => {
                    if flags == 2 || flags == 2 | dup { Ok(kind) } else { Err(DecodeError::HeaderFlags) }
                }
                Some(kind) => {
                    if flags == 0 {
                        Ok(kind)
                    } else {
                        Err(DecodeError::HeaderFlags)
                    }
                }
            };
            assert_eq!(frame::check_first_byte(version, first_byte), expected, "{version:?} {first_byte:02x}");
        }
    }
}
