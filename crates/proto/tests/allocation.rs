//! What decoding costs: memory for what was received, never for what was announced, and time for each byte once.

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use pantala_proto::{Packet, ProtocolVersion, frame};
use proptest::prelude::*;
use support::wire::{Connect, packet, section, string, user_property};
use support::{VERSIONS, receive, samples, strategies};

/// SUBACK and UNSUBACK collect one Reason Code per byte; nothing else is collected. A vector that grows holds its old
/// half and its new one.
fn bytes_max(first_byte: u8, body: usize) -> u64 {
    if matches!(first_byte >> 4, 9 | 11) { 16 + 4 * body as u64 } else { 0 }
}

fn check(version: ProtocolVersion, first_byte: u8, body: &[u8]) {
    let used = measure(|| {
        let _ = black_box(Packet::decode(version, first_byte, body));
    });
    let allowed = bytes_max(first_byte, body.len());
    assert!(used.bytes_total <= allowed, "{version:?} {first_byte:02x} {body:x?}: {used:?}, allowed {allowed}");
}

proptest! {
    #[test]
    fn decoding_allocates_no_more_than_was_received(body in prop::collection::vec(any::<u8>(), 0..48)) {
        for version in VERSIONS {
            for first_byte in 0..=u8::MAX {
                check(version, first_byte, &body);
            }
        }
    }

    #[test]
    fn decoding_a_packet_borrows_it((version, packet) in strategies::versioned()) {
        let bytes = support::encode(version, &packet);
        let Ok(frame::Split::Frame(frame)) = frame::split(&bytes, support::ANY_SIZE) else { panic!() };
        check(version, frame.first_byte, frame.body);
    }
}

#[test]
fn the_counter_counts() {
    let used = measure(|| drop(black_box(Vec::<u8>::with_capacity(1_000))));
    assert_eq!((used.count_total, used.bytes_total), (1, 1_000));
}

/// A1, A4, A5, B25: a length is a claim.
#[test]
fn a4_an_announced_length_allocates_nothing() {
    for first_byte in 0..=u8::MAX {
        for length in [&[0xff, 0xff, 0xff, 0x7f][..], &[0x80, 0x80, 0x80, 0x01], &[0xff, 0xff, 0xff, 0xff], &[0x7f]] {
            for limit in [16, 65_536, u32::MAX] {
                let bytes = [&[first_byte], length, &[0; 8]].concat();
                let used = measure(|| {
                    let _ = black_box(frame::split(&bytes, limit));
                });
                assert_eq!(used.count_total, 0);
            }
        }
    }
}

/// Each length inside a packet: of strings, of binary data, of properties.
#[test]
fn lengths_inside_a_packet_allocate_nothing() {
    for sample in samples::all() {
        let Ok(frame::Split::Frame(whole)) = frame::split(&sample.bytes, support::ANY_SIZE) else { panic!() };
        for at in 0..whole.body.len() {
            let mut body = whole.body.to_vec();
            body[at] = 0xff;
            check(sample.version, whole.first_byte, &body);
            if let Some(next) = body.get_mut(at + 1) {
                *next = 0xff;
                check(sample.version, whole.first_byte, &body);
            }
        }
    }
}

/// Encoding into a buffer with room allocates nothing for the packets of the hot path.
#[test]
fn forwarding_allocates_nothing() {
    for sample in samples::all() {
        let packet = receive(sample.version, &sample.bytes).unwrap();
        if !matches!(packet, Packet::Publish(_) | Packet::PingReq | Packet::PingResp) {
            continue;
        }
        let mut out = Vec::with_capacity(sample.bytes.len() + 8);
        let used = measure(|| packet.encode(sample.version, &mut out));
        assert_eq!((used.count_total, &out), (0, &sample.bytes), "{sample:?}");
    }
}

/// H8: packets with this many User Properties.
fn with_user_properties(count: usize) -> Vec<(&'static str, Vec<u8>)> {
    let properties = user_property("key", "value").repeat(count);
    let will = [string("w"), string("bye")].concat();
    vec![
        ("CONNECT", Connect { properties: Some(&properties), ..Connect::C5 }.bytes()),
        ("Will", Connect { flags: 0x06, will_properties: Some(&properties), rest: &will, ..Connect::C5 }.bytes()),
        ("PUBLISH", packet(0x30, [string("t"), section(&properties), b"x".to_vec()].concat())),
        ("SUBSCRIBE", packet(0x82, [vec![0, 1], section(&properties), string("t"), vec![0]].concat())),
        ("UNSUBSCRIBE", packet(0xa2, [vec![0, 1], section(&properties), string("t")].concat())),
        ("PUBACK", packet(0x40, [vec![0, 1, 0], section(&properties)].concat())),
        ("DISCONNECT", packet(0xe0, [vec![0], section(&properties)].concat())),
        ("AUTH", packet(0xf0, [vec![0x18], section(&properties)].concat())),
    ]
}

fn time(bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let packet = receive(ProtocolVersion::V5, black_box(bytes)).expect("a valid packet");
    let mut out = Vec::with_capacity(bytes.len() + 8);
    black_box(packet).encode(ProtocolVersion::V5, &mut out);
    black_box(out);
    start.elapsed()
}

/// H8: twice the properties take twice the work. The shortest of many tries is the one that nothing disturbed; work
/// that grows with the square would be four times as much in all of them.
#[test]
fn h8_user_properties_take_linear_time() {
    const TRIES_MAX: usize = 500;
    for ((name, once), (_, twice)) in with_user_properties(10_000).into_iter().zip(with_user_properties(20_000)) {
        let (mut once_min, mut twice_min) = (Duration::MAX, Duration::MAX);
        let linear = (0..TRIES_MAX).any(|tries| {
            once_min = once_min.min(time(&once));
            twice_min = twice_min.min(time(&twice));
            tries >= 10 && twice_min.as_secs_f64() <= 2.5 * once_min.as_secs_f64()
        });
        assert!(linear, "{name}: {once_min:?} for 10 000, {twice_min:?} for 20 000");
    }
}

/// H8: and the properties are all there.
#[test]
fn h8_no_user_property_is_lost() {
    for (name, bytes) in with_user_properties(20_000) {
        let packet = receive(ProtocolVersion::V5, &bytes).unwrap();
        let count = match &packet {
            Packet::Connect(connect) => match &connect.will {
                Some(will) => will.properties.user_property_count(),
                None => connect.properties.user_properties.iter().count(),
            },
            Packet::Publish(publish) => {
                assert_eq!(publish.properties.user_properties().iter().count(), 20_000);
                publish.properties.user_property_count()
            }
            Packet::Subscribe(subscribe) => subscribe.user_properties.iter().count(),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.user_properties.iter().count(),
            Packet::Acknowledgement(acknowledgement) => acknowledgement.user_properties.iter().count(),
            Packet::Disconnect(disconnect) => disconnect.user_properties.iter().count(),
            Packet::Auth(auth) => auth.user_properties.iter().count(),
            other => panic!("{other:?}"),
        };
        assert_eq!(count, 20_000, "{name}");
        assert_eq!(support::encode(ProtocolVersion::V5, &packet), bytes, "{name}");
    }
}

/// H9: while a packet is incomplete, its front is looked at only for its length: a byte more costs no more late in
/// the packet than early.
#[test]
fn h9_an_incomplete_packet_is_not_parsed() {
    let bytes = packet(0x30, [string("t"), section(user_property("k", "v").repeat(100_000))].concat());
    for have in [6, 1_000, 100_000, bytes.len() - 1] {
        let expected = Ok(frame::Split::Incomplete { needed: bytes.len() });
        assert_eq!(frame::split(&bytes[..have], support::ANY_SIZE), expected);
    }
    // Limits come first: one byte too many is refused by the header alone.
    let limit = u32::try_from(bytes.len() - 1).unwrap();
    assert_eq!(frame::split(&bytes[..5], limit), Err(pantala_proto::DecodeError::PacketTooLarge));
}
