//! Bytes that nobody wrote.

use pantala_store::{Entry, Kind};
use proptest::collection::vec;
use proptest::prelude::*;

/// The smallest receiver takes three bytes of a value and a few words in memory, and a vector grows by copying.
const ALLOCATED_MAX: u64 = 200;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_or_take_more_memory_than_they_are_worth(
        kind in 0..=13_u8, key in vec(any::<u8>(), 0..24), value in vec(any::<u8>(), 0..200),
    ) {
        let allocated = allocation_counter::measure(|| {
            drop(Entry::read(kind, &key, &value));
        });
        prop_assert!(allocated.bytes_total <= ALLOCATED_MAX * (key.len() + value.len()) as u64, "{allocated:?}");
    }

    /// Keys that fit, so that values are looked at.
    #[test]
    fn nor_under_keys_that_make_sense(
        kind in 0..Kind::ALL.len(), number in 1..1_u64 << 56, value in vec(prop_oneof![any::<u8>(), 0..4_u8, 0xfe..=0xff_u8], 0..200),
    ) {
        let kind = Kind::ALL[kind];
        let mut key = number.to_be_bytes().to_vec();
        match kind {
            Kind::Inbound | Kind::Outbound => key.extend([1, 0]),
            Kind::Receiver | Kind::Settled => key.extend([0, 1, 1, 1, 1, 1, 1, 1]),
            Kind::Subscription => key.extend(b"a/#"),
            Kind::Publisher => key.truncate(0),
            _ => {}
        }
        let allocated = allocation_counter::measure(|| {
            if let Some(entry) = Entry::read(kind as u8, &key, &value) {
                assert_eq!(entry.kind(), kind);
            }
        });
        prop_assert!(allocated.bytes_total <= ALLOCATED_MAX * (key.len() + value.len()) as u64, "{allocated:?}");
    }
}

#[test]
fn a_count_alone_takes_no_memory() {
    // 2^63 receivers, or Subscription Identifiers, and then nothing.
    let many = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let receiver = [&[0x21, 0][..], &many].concat();
    for (kind, key_bytes, value) in [(Kind::Message, 8, &many[..]), (Kind::Receiver, 15, &receiver)] {
        let allocated = allocation_counter::measure(|| {
            assert_eq!(Entry::read(kind as u8, &[1; 15][..key_bytes], value), None);
        });
        assert_eq!(allocated.bytes_total, 0, "{kind:?}");
    }
}
