//! A stream of packets gives the same packets wherever it is cut.

mod support;
mod targets;

use pantala_proto::{Packet, ProtocolVersion};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{encode, samples, strategies};
use targets::{Outcome, read_chunks};

fn packets() -> impl Strategy<Value = (ProtocolVersion, Vec<Packet<'static>>)> {
    strategies::version().prop_flat_map(|version| (Just(version), vec(strategies::packet(version), 0..6)))
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_gives_the_same_packets(
        (version, packets) in packets(),
        lengths in vec(prop_oneof![1..16_usize, 1..70_000_usize], 1..8),
    ) {
        let expected: Vec<_> = packets.iter().map(|packet| encode(version, packet)).collect();
        let bytes = expected.concat();
        let expected = Outcome { packets: expected, error: None, left: 0 };
        prop_assert_eq!(&read_chunks(version, &bytes, &lengths), &expected);
        prop_assert_eq!(&read_chunks(version, &bytes, &[bytes.len()]), &expected);
    }

    #[test]
    fn any_cut_of_a_damaged_stream_gives_the_same_packets_and_the_same_error(
        (version, packets) in packets(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        lengths in vec(1..64_usize, 1..8),
    ) {
        let mut bytes: Vec<u8> = packets.iter().flat_map(|packet| encode(version, packet)).collect();
        bytes.push(0x30);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = read_chunks(version, &bytes, &[bytes.len()]);
        prop_assert_eq!(read_chunks(version, &bytes, &lengths), whole);
    }
}

/// A11: every valid packet, one byte at a time.
#[test]
fn a11_each_packet_may_come_in_chunks_of_one_byte() {
    for sample in samples::all() {
        let expected = Outcome { packets: vec![sample.bytes.clone()], error: None, left: 0 };
        assert_eq!(read_chunks(sample.version, &sample.bytes, &[1]), expected, "{sample:?}");
    }
}

/// A12: a thousand packets at once, in their order.
#[test]
fn a12_a_thousand_packets_in_one_chunk() {
    let packets: Vec<Vec<u8>> = (1..=1_000_u16)
        .map(|id| {
            let [high, low] = id.to_be_bytes();
            vec![0x32, 0x06, 0x00, 0x01, b'a', high, low, 0x00]
        })
        .collect();
    let bytes = packets.concat();
    let expected = Outcome { packets, error: None, left: 0 };
    assert_eq!(read_chunks(ProtocolVersion::V5, &bytes, &[bytes.len()]), expected);
}

/// All samples of a version in one stream, cut at each place in turn.
#[test]
fn a_stream_may_be_cut_anywhere() {
    for version in support::VERSIONS {
        let packets: Vec<_> = samples::of(version).into_iter().map(|sample| sample.bytes).collect();
        let bytes = packets.concat();
        let expected = Outcome { packets, error: None, left: 0 };
        for cut in 1..bytes.len() {
            assert_eq!(read_chunks(version, &bytes, &[cut, bytes.len() - cut]), expected, "cut at {cut}");
        }
    }
}
