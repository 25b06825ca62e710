//! Frames: what is taken, what ends a WebSocket with which code, and how MQTT bytes are written.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod targets;

use pantala_transport::websocket::{CloseCode, End, FRAME_BYTES_MAX, WebSocket};
use proptest::prelude::*;
use targets::read_frames;

const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// A masked frame with this first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..126 => vec![0x80 | short as u8],
        length if length < 65_536 => [&[0xfe], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[0xff], &(length as u64).to_be_bytes()[..]].concat(),
    };
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[first], &length[..], &MASK].concat().into_iter().chain(masked).collect()
}

/// A frame to the client.
fn answer(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

/// Feeds the bytes whole; the MQTT bytes, the end, and the answers.
fn read(bytes: &[u8]) -> (Vec<u8>, Option<End>, Vec<u8>) {
    let (outcome, answers) = read_frames(bytes, &[]);
    (outcome.mqtt, outcome.end, answers)
}

/// Attack L9.
#[test]
fn borders_of_frames_mean_nothing() {
    let packets = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0\xc0\0\xc0\0";
    let whole = frame(0x82, packets);
    assert_eq!(read(&whole), (packets.to_vec(), None, vec![]), "several packets in a frame");
    let single: Vec<u8> = packets.iter().flat_map(|byte| frame(0x82, &[*byte])).collect();
    assert_eq!(read(&single), (packets.to_vec(), None, vec![]), "a frame for each byte");
    let between: Vec<u8> = packets.iter().flat_map(|byte| [frame(0x82, &[]), frame(0x82, &[*byte])].concat()).collect();
    assert_eq!(read(&between), (packets.to_vec(), None, vec![]), "empty frames between");

    let packet: Vec<u8> = (0..1_000_u32).map(|byte| byte as u8).collect();
    let mut fragments = frame(0x02, &packet[..1]);
    packet[1..999].iter().for_each(|byte| fragments.extend(frame(0x00, &[*byte])));
    fragments.extend(frame(0x80, &packet[999..]));
    assert_eq!(read(&fragments), (packet.clone(), None, vec![]), "a packet of 1000 fragments");
    let (parts, _) = read_frames(&fragments, &[1]);
    assert_eq!(parts.mqtt, packet);

    let large = vec![7; 100_000];
    assert_eq!(read(&frame(0x82, &large)), (large, None, vec![]), "a length of eight bytes");
}

/// Attacks L10 and L11.
#[test]
fn what_is_no_frame_ends_the_websocket() {
    let long = |length: u64| [&[0x82, 0xff], &length.to_be_bytes()[..]].concat();
    for (name, bytes, end, code) in [
        ("text", frame(0x81, b"x"), End::Text, 1003),
        ("reserved bit 1", frame(0xc2, b"x"), End::ReservedBits, 1002),
        ("reserved bit 2", frame(0xa2, b"x"), End::ReservedBits, 1002),
        ("reserved bit 3", frame(0x92, b"x"), End::ReservedBits, 1002),
        ("opcode 3", frame(0x83, b"x"), End::Opcode, 1002),
        ("opcode 15", frame(0x8f, b"x"), End::Opcode, 1002),
        ("no mask", vec![0x82, 0x01, b'x'], End::Unmasked, 1002),
        ("no mask on a Ping", vec![0x89, 0x00], End::Unmasked, 1002),
        ("a long Ping", frame(0x89, &[0; 126]), End::Control, 1002),
        ("a Ping in fragments", frame(0x09, b"x"), End::Control, 1002),
        ("a Close in fragments", frame(0x08, b""), End::Control, 1002),
        ("a continuation of nothing", frame(0x80, b"x"), End::Fragment, 1002),
        ("a message within another", [frame(0x02, b""), frame(0x82, b"x")].concat(), End::Fragment, 1002),
        ("a Close of one byte", frame(0x88, &[3]), End::Close, 1002),
        ("a Close with 1005", frame(0x88, &1005_u16.to_be_bytes()), End::Close, 1002),
        ("a Close with 999", frame(0x88, &999_u16.to_be_bytes()), End::Close, 1002),
        ("a Close that is no text", frame(0x88, &[0x03, 0xe8, 0xff]), End::Close, 1002),
        ("a length of 2^63", long(1 << 63), End::Length, 1002),
        ("a length of 2^63 - 1", long((1 << 63) - 1), End::TooLong, 1009),
        ("a length of the most and one", long(u64::from(FRAME_BYTES_MAX) + 1), End::TooLong, 1009),
        ("two bytes for a short length", vec![0x82, 0xfe, 0, 125], End::Length, 1002),
        ("eight bytes for a short length", long(65_535), End::Length, 1002),
    ] {
        let before = frame(0x82, b"before");
        let stream = [before, bytes, frame(0x82, b"after")].concat();
        let close = answer(0x88, &u16::to_be_bytes(code));
        assert_eq!(read(&stream), (b"before".to_vec(), Some(end), close), "{name}");
    }
}

/// Attack L11.
#[test]
fn a_length_is_believed_without_memory_for_it() {
    let info = allocation_counter::measure(|| {
        let mut socket = WebSocket::default();
        let mut bytes = [&[0x82, 0xff][..], &u64::from(FRAME_BYTES_MAX).to_be_bytes(), &MASK, &MASK].concat();
        let received = socket.receive(&mut bytes, &mut Vec::new());
        assert_eq!((&bytes[received.mqtt], received.end), (&[0; 4][..], None));
    });
    assert!(info.bytes_max < 100, "{info:?}");
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    assert_eq!(read(&frame(0x89, b"are you there")), (vec![], None, answer(0x8a, b"are you there")));
    assert_eq!(read(&frame(0x89, b"")), (vec![], None, answer(0x8a, b"")));
    assert_eq!(read(&frame(0x89, &[7; 125])), (vec![], None, answer(0x8a, &[7; 125])));
    assert_eq!(read(&frame(0x8a, b"unasked")), (vec![], None, vec![]));
    let (outcome, answers) = read_frames(&frame(0x89, b"in parts"), &[3]);
    assert_eq!((outcome.mqtt, answers), (vec![], answer(0x8a, b"in parts")));
    let within = [frame(0x02, b"a"), frame(0x89, b"p"), frame(0x80, b"b")].concat();
    assert_eq!(read(&within), (b"ab".to_vec(), None, answer(0x8a, b"p")), "between fragments");
}

#[test]
fn of_many_pings_in_one_read_the_last_is_answered() {
    let pings: Vec<u8> = (0..100).flat_map(|number| frame(0x89, &[number; 125])).collect();
    assert_eq!(read(&pings), (vec![], None, answer(0x8a, &[99; 125])));
    let pings = [frame(0x89, b"first"), frame(0x82, b"mqtt"), frame(0x89, b"last"), frame(0x88, b"")].concat();
    let answers = [answer(0x8a, b"last"), answer(0x88, b"")].concat();
    assert_eq!(read(&pings), (b"mqtt".to_vec(), Some(End::Closed), answers));
}

#[test]
fn a_close_is_answered_with_its_code() {
    assert_eq!(read(&frame(0x88, b"")), (vec![], Some(End::Closed), answer(0x88, b"")));
    let close = frame(0x88, b"\x03\xe9leaving");
    assert_eq!(read(&close), (vec![], Some(End::Closed), answer(0x88, b"\x03\xe9")));
    let (outcome, answers) = read_frames(&close, &[1]);
    assert_eq!((outcome.end, answers), (Some(End::Closed), answer(0x88, b"\x03\xe9")));
}

#[test]
fn a_header_stands_before_all_that_is_written_at_once() {
    for (length, header) in [
        (1, &[0x82, 1][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let (mqtt, mut out) = (vec![7; length], vec![1]);
        WebSocket::default().send(&mqtt, &mut out);
        assert_eq!(out, [&[1], header, &mqtt].concat());
    }
    let mut out = Vec::new();
    WebSocket::default().send(b"", &mut out);
    assert_eq!(out, b"");
}

#[test]
fn a_close_is_said_once_and_last() {
    let (mut socket, mut out) = (WebSocket::default(), Vec::new());
    socket.close(CloseCode::GoingAway, &mut out);
    socket.close(CloseCode::Normal, &mut out);
    socket.send(b"late", &mut out);
    // The client may still have been sending.
    let mut bytes = [frame(0x89, b"p"), frame(0x82, b"x"), frame(0x88, b"")].concat();
    let received = socket.receive(&mut bytes, &mut out);
    assert_eq!((&bytes[received.mqtt], received.end), (&b"x"[..], Some(End::Closed)));
    assert_eq!(out, [0x88, 2, 0x03, 0xe9]);
}

#[test]
fn an_idle_websocket_is_small_and_frames_take_no_allocation() {
    assert!(size_of::<WebSocket>() <= 48, "{}", size_of::<WebSocket>());
    let mut socket = WebSocket::default();
    let mut bytes = [frame(0x82, &[1; 300]), frame(0x02, b""), frame(0x00, b"x"), frame(0x80, &[])].concat();
    let mut out = Vec::with_capacity(400);
    let info = allocation_counter::measure(|| {
        for part in bytes.chunks_mut(7) {
            socket.receive(part, &mut out);
        }
        socket.send(&[7; 300], &mut out);
    });
    assert_eq!(info.count_total, 0);
}

/// Frames, most of them right.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        6 => Just(0x82_u8), 2 => Just(0x02), 3 => Just(0x00), 3 => Just(0x80), 2 => Just(0x89), 1 => Just(0x8a),
        1 => Just(0x88), 1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..4),
        2 => proptest::collection::vec(any::<u8>(), 0..300),
    ];
    (first, payload).prop_map(|(first, payload)| frame(first, &payload))
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        frames in proptest::collection::vec(any_frame(), 0..12),
        lengths in proptest::collection::vec(any::<u8>(), 0..6),
        damage in proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = frames.concat();
        if let (Some((at, byte)), false) = (damage, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        targets::websocket_frames(&[&[lengths.len() as u8], &lengths[..], &bytes].concat());
    }
}
