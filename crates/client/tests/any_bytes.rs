//! The fuzz targets on random input, on stable.

mod targets;

use pantala_client::transport::dns::question;
use proptest::prelude::*;

/// The front of an answer that fits the question, up to its records.
fn front(records: u8) -> Vec<u8> {
    let mut bytes = question(0, targets::NAME).expect("it is a name");
    bytes.truncate(bytes.len() - 11);
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    bytes[7] = records;
    bytes[11] = 0;
    bytes
}

/// Labels, pointers to the question and into the answer, and what is neither.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => "[a-z_]{1,6}".prop_map(|label| [&[label.len() as u8], label.as_bytes()].concat()),
        1 => any::<[u8; 2]>().prop_map(Vec::from),
    ];
    let end = prop_oneof![
        2 => Just(vec![0]),
        2 => Just(vec![0xc0, 12]),
        1 => (0_u8..=120).prop_map(|to| vec![0xc0, to]),
    ];
    (prop::collection::vec(part, 0..4), end).prop_map(|(parts, end)| [parts.concat(), end].concat())
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    let owner = prop_oneof![3 => Just(vec![0xc0, 12]), 1 => name()];
    let kind = prop_oneof![3 => Just(33_u8), 2 => Just(5), 1 => any::<u8>()];
    (owner, kind, name(), -1_i8..=1).prop_map(|(owner, kind, name, off)| {
        let data = if kind == 33 { [&[0, 1, 0, 2, 7, 91], &name[..]].concat() } else { name };
        // Nearly always its length.
        let length = if off == 1 { data.len() + 1 } else { data.len() } as u16;
        [&owner[..], &[0, kind, 0, 1, 0, 0, 0, 60], &length.to_be_bytes(), &data].concat()
    })
}

proptest! {
    #[test]
    fn answers_of_name_servers(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        targets::dns_answer(&bytes);
    }

    #[test]
    fn answers_that_are_almost_right(records in prop::collection::vec(record(), 0..6), cut in 0_usize..8) {
        let mut bytes = front(records.len() as u8);
        bytes.extend(records.concat());
        bytes.truncate(bytes.len() - cut.saturating_sub(5));
        targets::dns_answer(&bytes);
    }
}
