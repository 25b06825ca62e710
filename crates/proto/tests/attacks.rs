//! The attacks that decoding alone decides, by the ids of the catalogue: A framing, B CONNECT, C PUBLISH,
//! D acknowledgements, E SUBSCRIBE and UNSUBSCRIBE, F the small packets, G strings and topics, H properties.
//!
//! "M" is a Malformed Packet (0x81), "P" a Protocol Error (0x82).

mod support;

use std::num::NonZeroU16;

use pantala_proto::{
    Connect, DecodeError, FilterError, Packet, PacketType, ProtocolVersion, ReasonCode, TopicFilter, frame,
    valid_topic_name,
};
use proptest::prelude::*;
use support::wire::{self, integer, packet, section, string, user_property};
use support::{ANY_SIZE, VERSIONS, receive, samples};

use ProtocolVersion::{V5, V31, V311};
use ReasonCode::{MalformedPacket as M, ProtocolError as P};

/// `C3`, `C4`, `C5`: the least CONNECT of each version.
const C3: wire::Connect<'static> = wire::Connect::C3;
const C4: wire::Connect<'static> = wire::Connect::C4;
const C5: wire::Connect<'static> = wire::Connect::C5;

/// The packet is refused with this Reason Code.
#[track_caller]
fn refused(version: ProtocolVersion, bytes: &[u8], reason_code: ReasonCode) {
    match receive(version, bytes) {
        Ok(packet) => panic!("{version:?} {bytes:02x?} is accepted: {packet:?}"),
        Err(error) => assert_eq!(error.reason_code(), reason_code, "{version:?} {bytes:02x?}: {error}"),
    }
}

/// The packet is refused with this Reason Code in all versions.
#[track_caller]
fn refused_in_all(bytes: &[u8], reason_code: ReasonCode) {
    VERSIONS.into_iter().for_each(|version| refused(version, bytes, reason_code));
}

#[track_caller]
fn accepted(version: ProtocolVersion, bytes: &[u8]) -> Packet<'_> {
    receive(version, bytes).unwrap_or_else(|error| panic!("{version:?} {bytes:02x?}: {error}"))
}

/// A QoS 0 PUBLISH of this version without properties.
fn publish(version: ProtocolVersion, topic_name: &[u8]) -> Vec<u8> {
    packet(0x30, [string(topic_name), if version.is_v5() { vec![0] } else { vec![] }, b"x".to_vec()].concat())
}

/// A QoS 0 PUBLISH of MQTT 5 with these properties.
fn publish_with(properties: &[u8]) -> Vec<u8> {
    packet(0x30, [string("a"), section(properties), b"x".to_vec()].concat())
}

/// A SUBSCRIBE of this version for one filter.
fn subscribe(version: ProtocolVersion, filter: &[u8], options: u8) -> Vec<u8> {
    let properties = if version.is_v5() { vec![0] } else { vec![] };
    packet(0x82, [vec![0, 1], properties, string(filter), vec![options]].concat())
}

/// A CONNECT with a Will of this topic.
fn connect_with_will(topic_name: &[u8]) -> [Vec<u8>; 3] {
    let rest = [string(topic_name), string("bye")].concat();
    [C3, C4, C5].map(|connect| {
        let will_properties = connect.properties;
        wire::Connect { flags: 0x06, will_properties, rest: &rest, ..connect }.bytes()
    })
}

mod a_framing {
    use super::*;

    #[test]
    fn a3_reserved_types_are_refused_at_the_first_byte() {
        for flags in 0..16 {
            for version in VERSIONS {
                assert_eq!(frame::check_first_byte(version, flags), Err(DecodeError::PacketType));
            }
            for version in [V31, V311] {
                assert_eq!(frame::check_first_byte(version, 0xf0 | flags), Err(DecodeError::PacketType));
            }
        }
        assert_eq!(frame::check_first_byte(V5, 0xf0), Ok(PacketType::Auth));
        assert_eq!(DecodeError::PacketType.reason_code(), M);
    }

    #[test]
    fn a4_a5_a_length_beyond_the_limit_is_refused_before_the_body() {
        for first_byte in [0x10, 0x30] {
            let header = [first_byte, 0xff, 0xff, 0xff, 0x7f];
            assert_eq!(frame::split(&header, 65_536), Err(DecodeError::PacketTooLarge));
            for cut in 0..header.len() {
                assert_eq!(
                    frame::split(&header[..cut], 65_536),
                    Ok(frame::Split::Incomplete { needed: cut.max(1) + 1 })
                );
            }
        }
        assert_eq!(DecodeError::PacketTooLarge.reason_code(), ReasonCode::PacketTooLarge);
    }

    #[test]
    fn a6_a_fifth_byte_of_remaining_length_is_refused_at_the_fourth() {
        for rest in [&[][..], &[0x01], &[0x7f, 0x00, 0x00]] {
            let bytes = [&[0x10, 0xff, 0xff, 0xff, 0xff], rest].concat();
            assert_eq!(frame::split(&bytes, ANY_SIZE), Err(DecodeError::VariableByteInteger));
        }
        assert_eq!(frame::split(&[0x10, 0xff, 0xff, 0xff], ANY_SIZE), Ok(frame::Split::Incomplete { needed: 5 }));
        assert_eq!(DecodeError::VariableByteInteger.reason_code(), M);
    }

    #[test]
    fn a7_lengths_longer_than_needed_are_refused() {
        for length in [&[0x80, 0x00][..], &[0x82, 0x00], &[0x80, 0x80, 0x00], &[0xff, 0xff, 0x80, 0x00]] {
            let bytes = [&[0xc0], length, &[0, 0]].concat();
            assert_eq!(frame::split(&bytes, ANY_SIZE), Err(DecodeError::VariableByteInteger), "{length:02x?}");
        }
    }

    #[test]
    fn a8_a_packet_that_ends_inside_its_topic_takes_the_connection_with_it() {
        for version in VERSIONS {
            // The Topic Name has 20 bytes, of which the packet holds 4; a SUBSCRIBE stands in the place of the others.
            let smuggled = subscribe(version, b"secret/#", 0);
            let bytes = [packet(0x30, [0, 20, b'a', b'/', b'b', b'/']), smuggled].concat();
            let Ok(frame::Split::Frame(frame)) = frame::split(&bytes, ANY_SIZE) else { panic!() };
            assert_eq!(frame.packet_bytes, 8);
            let error = Packet::decode(version, frame.first_byte, frame.body).expect_err("no topic");
            assert_eq!((error, error.reason_code()), (DecodeError::Truncated, M));
        }
    }

    #[test]
    fn a9_reserved_flags_are_malformed() {
        for version in VERSIONS {
            for kind in 1..=if version.is_v5() { 15_u8 } else { 14 } {
                if kind == PacketType::Publish as u8 {
                    continue;
                }
                for flags in 0..16_u8 {
                    let first_byte = kind << 4 | flags;
                    let right = if [6, 8, 10].contains(&kind) { 2 } else { 0 };
                    // MQTT 3.1 has DUP in these.
                    let dup = version == V31 && right == 2 && flags == 0b1010;
                    let result = frame::check_first_byte(version, first_byte);
                    assert_eq!(result.is_ok(), flags == right || dup, "{version:?} {first_byte:02x}");
                    if let Err(error) = result {
                        assert_eq!(error.reason_code(), M);
                    }
                }
            }
        }
    }

    #[test]
    fn a10_pingreq_with_a_body() {
        refused_in_all(&[0xc0, 0x01, 0x00], M);
        refused_in_all(&[0xd0, 0x01, 0x00], M);
    }

    #[test]
    fn a13_a14_the_limit_counts_the_whole_packet() {
        for bytes in [publish(V5, b"a/b"), packet(0x30, vec![0; 127]), packet(0x30, vec![0; 128]), vec![0xc0, 0]] {
            let size = u32::try_from(bytes.len()).unwrap();
            let body = &bytes[header(&bytes)..];
            let frame = frame::Frame { first_byte: bytes[0], body, packet_bytes: bytes.len() };
            let whole = Ok(frame::Split::Frame(frame));
            assert_eq!(frame::split(&bytes, size), whole);
            assert_eq!(frame::split(&bytes, size - 1), Err(DecodeError::PacketTooLarge));
        }
    }

    /// Bytes of the fixed header.
    fn header(bytes: &[u8]) -> usize {
        1 + bytes[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1
    }

    #[test]
    fn a15_other_protocols_are_no_connect() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-OpenSSH_10.0\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"\r\n\r\n\x00\r\nQUIT\n",
            b"\x00\x00",
        ] {
            for version in VERSIONS {
                assert_ne!(frame::check_first_byte(version, bytes[0]), Ok(PacketType::Connect));
            }
        }
    }
}

mod b_connect {
    use super::*;

    #[test]
    fn b1_b2_protocol_names_and_levels() {
        for (name, level, code) in [
            (&b"MQTX"[..], 4, ReasonCode::UnsupportedProtocolVersion),
            (b"mqtt", 4, ReasonCode::UnsupportedProtocolVersion),
            (b"", 4, ReasonCode::UnsupportedProtocolVersion),
            (b"MQTT\0", 4, ReasonCode::UnsupportedProtocolVersion),
            (b"MQTT", 0, ReasonCode::UnsupportedProtocolVersion),
            (b"MQTT", 2, ReasonCode::UnsupportedProtocolVersion),
            (b"MQTT", 6, ReasonCode::UnsupportedProtocolVersion),
            (b"MQTT", 255, ReasonCode::UnsupportedProtocolVersion),
            (b"MQTT", 3, ReasonCode::UnsupportedProtocolVersion),
            (b"MQIsdp", 4, ReasonCode::UnsupportedProtocolVersion),
            (b"MQIsdp", 5, ReasonCode::UnsupportedProtocolVersion),
        ] {
            let bytes = wire::Connect { name, level, ..C4 }.bytes();
            refused_in_all(&bytes, code);
            assert_eq!(Connect::version_of(&bytes[2..]), None);
        }
        refused_in_all(&packet(0x10, [&[0xff, 0xff], &b"MQTT\x04\x02\0\0"[..]].concat()), M);
    }

    #[test]
    fn b3_the_reserved_connect_flag() {
        for connect in [C3, C4, C5] {
            refused_in_all(&wire::Connect { flags: 0x03, ..connect }.bytes(), M);
        }
    }

    #[test]
    fn b7_a_client_identifier_may_be_as_long_as_a_string() {
        let long = [b'x'; 65_535];
        let bytes = wire::Connect { client_id: &long, ..C5 }.bytes();
        let Packet::Connect(connect) = accepted(V5, &bytes) else { panic!() };
        assert_eq!(connect.client_id.len(), 65_535);
    }

    #[test]
    fn b8_client_identifiers_that_are_none() {
        for client_id in [
            &b"a\0"[..],
            b"\x01",
            b"a\nb",
            b"\x1b[2J",
            b"\x7f",
            b"\xc2\x85",         // U+0085
            b"\xef\xbf\xbf",     // U+FFFF
            b"\xef\xbf\xbe",     // U+FFFE
            b"\xef\xb7\x90",     // U+FDD0
            b"\xf0\x9f\xbf\xbf", // U+1FFFF
            b"\xed\xa0\x80",     // a surrogate
            b"\xc0\x80",         // U+0000, too long
            b"\xff",
        ] {
            for connect in [C3, C4, C5] {
                refused_in_all(&wire::Connect { client_id, ..connect }.bytes(), M);
            }
        }
        for client_id in ["é", "日本", "\u{feff}", "\u{fffd}", "\u{1f600}", " ", "+", "#", "a/b"] {
            for (version, connect) in [(V31, C3), (V311, C4), (V5, C5)] {
                accepted(version, &wire::Connect { client_id: client_id.as_bytes(), ..connect }.bytes());
            }
        }
    }

    #[test]
    fn b9_b15_b16_a_connect_cut_at_each_byte() {
        for sample in samples::all().into_iter().filter(|sample| sample.bytes[0] == 0x10) {
            let Ok(frame::Split::Frame(whole)) = frame::split(&sample.bytes, ANY_SIZE) else { panic!() };
            for cut in 0..whole.body.len() {
                let bytes = packet(0x10, &whole.body[..cut]);
                match receive(sample.version, &bytes) {
                    Err(error) => assert_eq!(error.reason_code(), M, "{bytes:02x?}"),
                    // MQTT 3.1: user name and password may be missing whatever the flags say.
                    Ok(Packet::Connect(connect)) => {
                        assert_eq!(sample.version, V31);
                        assert_eq!(connect.password, None);
                    }
                    Ok(other) => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn b11_bytes_after_the_payload() {
        for connect in [C3, C4, C5] {
            refused_in_all(&wire::Connect { rest: &[0], ..connect.clone() }.bytes(), M);
            refused_in_all(&wire::Connect { rest: &string("x"), ..connect }.bytes(), M);
        }
    }

    #[test]
    fn b12_will_flags_without_a_will() {
        for connect in [C3, C4, C5] {
            for flags in [0x08, 0x10, 0x18, 0x20, 0x38] {
                refused_in_all(&wire::Connect { flags: flags | 0x02, ..connect.clone() }.bytes(), M);
            }
        }
    }

    #[test]
    fn b13_will_qos_3() {
        let rest = [string("w"), string("bye")].concat();
        for connect in [C3, C4, C5] {
            let will_properties = connect.properties;
            refused_in_all(&wire::Connect { flags: 0x1e, will_properties, rest: &rest, ..connect }.bytes(), M);
        }
    }

    #[test]
    fn b14_will_topics_that_are_none() {
        for topic_name in [&b""[..], b"+", b"#", b"a/+/b", b"a/#", b"a\0b", b"\xff"] {
            for bytes in connect_with_will(topic_name) {
                refused_in_all(&bytes, M);
            }
        }
        // How many levels there may be is for the broker to limit.
        for (version, bytes) in VERSIONS.into_iter().zip(connect_with_will(&[b'/'; 65_535])) {
            accepted(version, &bytes);
        }
    }

    #[test]
    fn b15_a_will_flag_without_will() {
        for (version, connect) in [(V31, C3), (V311, C4), (V5, C5)] {
            refused(version, &wire::Connect { flags: 0x06, ..connect }.bytes(), M);
        }
        refused(V5, &wire::Connect { flags: 0x06, will_properties: Some(&[]), ..C5 }.bytes(), M);
        refused(V311, &wire::Connect { flags: 0x06, rest: &string("w"), ..C4 }.bytes(), M);
    }

    #[test]
    fn b16_a_user_name_flag_without_user_name() {
        refused(V311, &wire::Connect { flags: 0x82, ..C4 }.bytes(), M);
        refused(V5, &wire::Connect { flags: 0x82, ..C5 }.bytes(), M);
        refused(V5, &wire::Connect { flags: 0xc2, rest: &string("user"), ..C5 }.bytes(), M);
        // MQTT 3.1: the Remaining Length goes before the flags.
        for (flags, rest, expected) in
            [(0x82, vec![], None), (0xc2, vec![], None), (0xc2, string("user"), Some("user"))]
        {
            let bytes = wire::Connect { flags, rest: &rest, ..C3 }.bytes();
            let Packet::Connect(connect) = accepted(V31, &bytes) else { panic!() };
            assert_eq!((connect.user_name, connect.password), (expected, None));
        }
        refused(V31, &wire::Connect { flags: 0x82, rest: &[0], ..C3 }.bytes(), M);
    }

    #[test]
    fn b17_a_password_without_user_name() {
        let rest = string("token");
        refused(V31, &wire::Connect { flags: 0x42, rest: &rest, ..C3 }.bytes(), M);
        refused(V311, &wire::Connect { flags: 0x42, rest: &rest, ..C4 }.bytes(), M);
        let bytes = wire::Connect { flags: 0x42, rest: &rest, ..C5 }.bytes();
        let Packet::Connect(connect) = accepted(V5, &bytes) else { panic!() };
        assert_eq!((connect.user_name, connect.password), (None, Some(&b"token"[..])));
    }

    #[test]
    fn b18_each_property_of_connect_twice() {
        let method = [vec![0x15], string("M")].concat();
        for property in [
            vec![0x11, 0, 0, 0, 1],
            vec![0x21, 0, 1],
            vec![0x27, 0, 0, 0, 1],
            vec![0x22, 0, 1],
            vec![0x17, 1],
            vec![0x19, 1],
            method.clone(),
            [vec![0x16], string("x")].concat(),
        ] {
            let once = if property[0] == 0x16 { [method.clone(), property.clone()].concat() } else { property.clone() };
            accepted(V5, &wire::Connect { properties: Some(&once), ..C5 }.bytes());
            let twice = [once, property].concat();
            refused(V5, &wire::Connect { properties: Some(&twice), ..C5 }.bytes(), P);
        }
    }

    #[test]
    fn b19_a_will_with_a_property_of_publish() {
        let rest = [string("w"), string("bye")].concat();
        for property in [&[0x23, 0, 1][..], &[0x0b, 1], &[0x11, 0, 0, 0, 1]] {
            let connect = wire::Connect { flags: 0x06, will_properties: Some(property), rest: &rest, ..C5 };
            refused(V5, &connect.bytes(), M);
        }
    }

    #[test]
    fn b20_maxima_of_0() {
        refused(V5, &wire::Connect { properties: Some(&[0x21, 0, 0]), ..C5 }.bytes(), P);
        refused(V5, &wire::Connect { properties: Some(&[0x27, 0, 0, 0, 0]), ..C5 }.bytes(), P);
        accepted(V5, &wire::Connect { properties: Some(&[0x22, 0, 0]), ..C5 }.bytes());
    }

    #[test]
    fn b21_flags_that_are_neither_0_nor_1() {
        for id in [0x17, 0x19] {
            for value in 2..=u8::MAX {
                refused(V5, &wire::Connect { properties: Some(&[id, value]), ..C5 }.bytes(), P);
            }
        }
    }

    #[test]
    fn b22_authentication_data_without_method() {
        let data = [vec![0x16], string("x")].concat();
        refused(V5, &wire::Connect { properties: Some(&data), ..C5 }.bytes(), P);
        refused(V5, &packet(0xf0, [vec![0x18], section(&data)].concat()), P);
    }

    #[test]
    fn b23_a_property_length_that_is_wrong() {
        let body = |length: &[u8]| {
            let start = [&string("MQTT")[..], &[5, 2, 0, 60]].concat();
            packet(0x10, [&start, length, &[0x11, 0, 0, 0, 1], &string("a")[..]].concat())
        };
        accepted(V5, &body(&[5]));
        for length in (0..5).chain(6..=8) {
            refused(V5, &body(&[length]), M);
        }
        // Longer than the packet.
        for length in [&[9][..], &[0x7f], &[0xff, 0x7f], &[0xff, 0xff, 0xff, 0x7f]] {
            refused(V5, &body(length), M);
        }
    }

    #[test]
    fn b24_unknown_properties() {
        for id in 0..=u8::MAX {
            let known = h_properties::TABLE.iter().any(|row| row.id == id);
            if !known {
                refused(V5, &wire::Connect { properties: Some(&[id, 0, 0, 0, 0]), ..C5 }.bytes(), M);
            }
        }
        // An identifier in two bytes is not in its shortest form.
        refused(V5, &wire::Connect { properties: Some(&[0x91, 0x00, 0, 0, 0, 1]), ..C5 }.bytes(), M);
    }

    #[test]
    fn b26_a_will_payload_that_is_not_utf8_is_passed_through() {
        let rest = [string("w"), string([0xff])].concat();
        let bytes = wire::Connect { flags: 0x06, will_properties: Some(&[0x01, 1]), rest: &rest, ..C5 }.bytes();
        let Packet::Connect(connect) = accepted(V5, &bytes) else { panic!() };
        let will = connect.will.expect("a Will");
        assert_eq!((will.properties.payload_is_utf8, will.payload), (true, &[0xff][..]));
    }
}

mod c_publish {
    use super::*;

    #[test]
    fn c1_neither_topic_name_nor_alias() {
        refused(V5, &publish(V5, b""), P);
        refused(V31, &publish(V31, b""), M);
        refused(V311, &publish(V311, b""), M);
        let bytes = packet(0x30, [string(""), section([0x23, 0, 1])].concat());
        let Packet::Publish(publish) = accepted(V5, &bytes) else { panic!() };
        assert_eq!((publish.topic_name, publish.properties.topic_alias), ("", NonZeroU16::new(1)));
    }

    #[test]
    fn c2_topic_names_with_wildcards() {
        for topic_name in
            [&b"+"[..], b"#", b"a/+", b"a/#", b"a+b", b"a#b", b"\0", b"a\0b", b"\xc3\xa9/+", b"\xc3\xa9\0"]
        {
            for version in VERSIONS {
                refused(version, &publish(version, topic_name), M);
            }
        }
    }

    #[test]
    fn c3_qos_3() {
        for flags in [0x06, 0x07, 0x0e, 0x0f] {
            for body in [[string("a"), vec![0, 1, 0]].concat(), string("a")] {
                refused_in_all(&packet(0x30 | flags, body), M);
            }
        }
    }

    #[test]
    fn c4_dup_with_qos_0() {
        for first_byte in [0x38, 0x39] {
            refused_in_all(&packet(first_byte, [string("a"), vec![0]].concat()), M);
        }
    }

    #[test]
    fn c5_packet_identifier_0() {
        for first_byte in [0x32, 0x34, 0x3a, 0x3d] {
            refused_in_all(&packet(first_byte, [string("a"), vec![0, 0, 0]].concat()), P);
        }
    }

    #[test]
    fn c8_a_topic_name_longer_than_the_packet() {
        for length in [2_u16, 3, 255, 65_535] {
            refused_in_all(&packet(0x30, [&length.to_be_bytes()[..], b"a"].concat()), M);
        }
        refused_in_all(&packet(0x30, [0]), M);
        refused_in_all(&packet(0x30, []), M);
    }

    #[test]
    fn c9_an_end_before_the_packet_identifier() {
        for packet_id in [&[][..], &[0], &[1]] {
            refused_in_all(&packet(0x32, [&string("a")[..], packet_id].concat()), M);
        }
        refused(V5, &packet(0x32, [string("a"), vec![0, 1]].concat()), M);
        accepted(V311, &packet(0x32, [string("a"), vec![0, 1]].concat()));
    }

    #[test]
    fn c10_topic_alias_0() {
        refused(V5, &publish_with(&[0x23, 0, 0]), ReasonCode::TopicAliasInvalid);
    }

    #[test]
    fn c13_a_subscription_identifier_is_seen() {
        let with = publish_with(&[0x0b, 1]);
        let without = publish_with(&user_property("k", "v"));
        for (bytes, expected) in [(with, true), (without, false)] {
            let Packet::Publish(publish) = accepted(V5, &bytes) else { panic!() };
            assert_eq!(publish.properties.has_subscription_identifier, expected);
        }
    }

    #[test]
    fn c14_response_topics_that_are_none() {
        for (topic_name, code) in [(&b"+"[..], P), (b"a/#", P), (b"", P), (b"a\0", M), (b"\xff", M)] {
            let property = [vec![0x08], string(topic_name)].concat();
            refused(V5, &publish_with(&property), code);
            let rest = [string("w"), string("bye")].concat();
            refused(
                V5,
                &wire::Connect { flags: 0x06, will_properties: Some(&property), rest: &rest, ..C5 }.bytes(),
                code,
            );
        }
    }

    #[test]
    fn c15_correlation_data_of_any_bytes_and_any_length() {
        let property = [vec![0x09], string([0; 65_535])].concat();
        let bytes = publish_with(&property);
        let Packet::Publish(publish) = accepted(V5, &bytes) else { panic!() };
        assert!(publish.properties.iter().eq([pantala_proto::Property::CorrelationData(&[0; 65_535])]));
    }

    #[test]
    fn c16_each_property_of_publish_twice() {
        for property in [
            vec![0x01, 1],
            vec![0x02, 0, 0, 0, 1],
            [vec![0x03], string("x")].concat(),
            [vec![0x08], string("x")].concat(),
            [vec![0x09], string("x")].concat(),
            vec![0x23, 0, 1],
        ] {
            accepted(V5, &publish_with(&property));
            refused(V5, &publish_with(&[property.clone(), property.clone()].concat()), P);
            let between = [property.clone(), user_property("k", "v"), property].concat();
            refused(V5, &publish_with(&between), P);
        }
    }

    #[test]
    fn c17_a_message_expiry_interval_of_0_is_one() {
        let bytes = publish_with(&[0x02, 0, 0, 0, 0]);
        let Packet::Publish(publish) = accepted(V5, &bytes) else { panic!() };
        assert_eq!(publish.properties.message_expiry_interval, Some(0));
    }

    #[test]
    fn c18_a_payload_that_is_not_utf8_is_passed_through() {
        let bytes = packet(0x30, [string("a"), section([0x01, 1]), vec![0xff]].concat());
        let Packet::Publish(publish) = accepted(V5, &bytes) else { panic!() };
        assert_eq!((publish.properties.payload_is_utf8, publish.payload), (true, &[0xff][..]));
        for value in 2..=u8::MAX {
            refused(V5, &publish_with(&[0x01, value]), P);
        }
    }
}

mod d_acknowledgements {
    use super::*;

    const FIRST_BYTES: [u8; 4] = [0x40, 0x50, 0x62, 0x70];

    #[test]
    fn d7_packet_identifier_0() {
        for first_byte in FIRST_BYTES.into_iter().chain([0x90, 0xb0]) {
            refused_in_all(&packet(first_byte, [0, 0]), P);
            refused(V5, &packet(first_byte, [0, 0, 0, 0]), P);
        }
    }

    #[test]
    fn d8_lengths() {
        for first_byte in FIRST_BYTES {
            for body in [&[][..], &[0]] {
                refused_in_all(&packet(first_byte, body), M);
            }
            for version in [V31, V311] {
                accepted(version, &packet(first_byte, [0, 1]));
                refused(version, &packet(first_byte, [0, 1, 0]), M);
                refused(version, &packet(first_byte, [0, 1, 0, 0]), M);
            }
            for body in [&[0, 1][..], &[0, 1, 0], &[0, 1, 0, 0]] {
                accepted(V5, &packet(first_byte, body));
            }
            refused(V5, &packet(first_byte, [0, 1, 0, 1]), M);
            refused(V5, &packet(first_byte, [0, 1, 0, 0, 0]), M);
        }
    }

    #[test]
    fn d8_reason_codes() {
        let publish: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        let release: &[u8] = &[0x00, 0x92];
        for (first_byte, codes) in FIRST_BYTES.into_iter().zip([publish, publish, release, release]) {
            for code in 0..=u8::MAX {
                let bytes = packet(first_byte, [0, 1, code]);
                if codes.contains(&code) { drop(accepted(V5, &bytes)) } else { refused(V5, &bytes, M) }
            }
        }
    }

    #[test]
    fn d8_a_reason_string_twice() {
        let reason = [vec![0x1f], string("why")].concat();
        for first_byte in FIRST_BYTES {
            let with = |properties: &[u8]| packet(first_byte, [vec![0, 1, 0], section(properties)].concat());
            accepted(V5, &with(&reason));
            refused(V5, &with(&[reason.clone(), reason.clone()].concat()), P);
        }
    }

    /// The tables of v5 sections 3.2.2.2, 3.9.3, 3.11.3, 3.14.2.1 (with 0x8C from table 2-6) and 3.15.2.1.
    #[test]
    fn d8_reason_codes_of_the_other_packets() {
        let conn_ack: &[u8] = &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a,
            0x9b, 0x9c, 0x9d, 0x9f,
        ];
        let disconnect: &[u8] = &[
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96,
            0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
        ];
        let sub_ack: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
        let unsub_ack: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
        for code in 0..=u8::MAX {
            for (bytes, codes) in [
                (packet(0x20, [0, code, 0]), conn_ack),
                (packet(0x90, [0, 1, 0, code]), sub_ack),
                (packet(0xb0, [0, 1, 0, code]), unsub_ack),
                (packet(0xe0, [code]), disconnect),
                (packet(0xe0, [code, 0]), disconnect),
                (packet(0xf0, [code, 0]), &[0x00, 0x18, 0x19]),
            ] {
                if codes.contains(&code) { drop(accepted(V5, &bytes)) } else { refused(V5, &bytes, M) }
            }
            let v3 = packet(0x90, [0, 1, code]);
            if [0, 1, 2, 0x80].contains(&code) { drop(accepted(V311, &v3)) } else { refused(V311, &v3, M) }
        }
    }
}

mod e_subscriptions {
    use super::*;

    #[test]
    fn e1_e11_no_filter() {
        for first_byte in [0x82, 0xa2] {
            refused(V31, &packet(first_byte, [0, 1]), P);
            refused(V311, &packet(first_byte, [0, 1]), P);
            refused(V5, &packet(first_byte, [0, 1, 0]), P);
            refused(V5, &packet(first_byte, [0, 1]), M);
        }
    }

    #[test]
    fn e2_options() {
        for options in 0..=u8::MAX {
            let v5 = options & 0xc0 == 0 && options & 0x30 != 0x30 && options & 0x03 != 0x03;
            for (version, right) in [(V31, options < 3), (V311, options < 3), (V5, v5)] {
                let bytes = subscribe(version, b"a", options);
                if right {
                    drop(accepted(version, &bytes))
                } else {
                    refused(version, &bytes, M)
                }
                // The second filter's options count as much as the first's.
                let bytes = packet(0x82, [&subscribe(version, b"a", 0)[2..], &string("b"), &[options]].concat());
                if right { drop(accepted(version, &bytes)) } else { refused(version, &bytes, M) }
            }
        }
    }

    #[test]
    fn e3_packet_identifier_0() {
        for version in VERSIONS {
            let properties = if version.is_v5() { vec![0] } else { vec![] };
            refused(version, &packet(0x82, [vec![0, 0], properties.clone(), string("a"), vec![0]].concat()), P);
            refused(version, &packet(0xa2, [vec![0, 0], properties, string("a")].concat()), P);
        }
    }

    #[test]
    fn e4_wrong_filters_are_answered_one_by_one() {
        let filters = ["", "a#", "a/#/b", "+a", "a+/b", "##", "#/", "a/##", "++", "/+a/", "#a"];
        for filter in filters {
            let expected = if filter.is_empty() { FilterError::Empty } else { FilterError::Wildcard };
            assert_eq!(TopicFilter::parse(filter), Err(expected), "{filter}");
        }
        for version in VERSIONS {
            let mut body = subscribe(version, b"good/#", 1)[2..].to_vec();
            for filter in filters {
                body.extend([string(filter), vec![0]].concat());
            }
            let bytes = packet(0x82, &body);
            let Packet::Subscribe(subscribe) = accepted(version, &bytes) else { panic!() };
            let good = subscribe.filters.iter().map(|(filter, _)| TopicFilter::parse(filter).is_ok());
            assert!(good.eq([true].into_iter().chain([false; 11])));
        }
    }

    #[test]
    fn e4_filters_that_are_no_strings() {
        for filter in [&b"a\0"[..], b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"] {
            for version in VERSIONS {
                refused(version, &subscribe(version, filter, 0), M);
                let properties = if version.is_v5() { vec![0] } else { vec![] };
                refused(version, &packet(0xa2, [vec![0, 1], properties, string(filter)].concat()), M);
            }
        }
    }

    #[test]
    fn e5_all_filters_of_a_packet_are_seen() {
        let filters: Vec<u8> = (0..50_000).flat_map(|number| [string(number.to_string()), vec![0]].concat()).collect();
        let bytes = packet(0x82, [vec![0, 1, 0], filters].concat());
        let Packet::Subscribe(subscribe) = accepted(V5, &bytes) else { panic!() };
        assert_eq!(subscribe.filters.iter().count(), 50_000);
    }

    #[test]
    fn e7_subscription_identifiers() {
        let with = |properties: &[u8]| packet(0x82, [vec![0, 1], section(properties), string("a"), vec![0]].concat());
        refused(V5, &with(&[0x0b, 0]), P);
        refused(V5, &with(&[0x0b, 0x80, 0x80, 0x80, 0x80, 0x01]), M);
        refused(V5, &with(&[0x0b, 1, 0x0b, 2]), P);
        refused(V5, &with(&[0x0b, 0x81, 0x00]), M);
        for number in [1, 127, 128, 268_435_455] {
            let bytes = with(&[vec![0x0b], integer(number)].concat());
            let Packet::Subscribe(subscribe) = accepted(V5, &bytes) else { panic!() };
            assert_eq!(subscribe.subscription_identifier.map(|number| number.get() as usize), Some(number));
        }
    }

    #[test]
    fn e9_shared_subscriptions_are_whole_or_refused() {
        for filter in
            ["$share", "$share/", "$share/g", "$share//t", "$share/g/", "$share/g+/t", "$share/g#/t", "$share/+/t"]
        {
            assert_eq!(TopicFilter::parse(filter), Err(FilterError::Share), "{filter}");
        }
        for filter in ["$share/g/a#", "$share/g/+a", "$share/g/#/b"] {
            assert_eq!(TopicFilter::parse(filter), Err(FilterError::Wildcard), "{filter}");
        }
        for filter in ["$SHARE/g/t", "$Share/g", "$shared/g/t", "$share2", "share/g/t", " $share/g/t"] {
            assert_eq!(TopicFilter::parse(filter), Ok(TopicFilter::Plain(filter)));
        }
    }

    #[test]
    fn e13_the_longest_filters() {
        let separators = "/".repeat(65_535);
        let wildcards = format!("{}+", "+/".repeat(32_767));
        for (filter, levels) in [(separators, 65_536), (wildcards, 32_768)] {
            assert_eq!(TopicFilter::parse(&filter), Ok(TopicFilter::Plain(&filter)));
            assert_eq!(pantala_proto::topic_levels(&filter), levels);
        }
    }
}

mod f_small_packets {
    use super::*;

    #[test]
    fn f2_f3_disconnect_in_its_lengths() {
        for version in [V31, V311] {
            accepted(version, &packet(0xe0, []));
            refused(version, &packet(0xe0, [0]), M);
        }
        for body in [&[][..], &[0], &[4], &[0, 0], &[0, 5, 0x11, 0, 0, 0, 9]] {
            accepted(V5, &packet(0xe0, body));
        }
        for body in [&[0, 1][..], &[0, 0, 0], &[0, 5, 0x11, 0, 0, 0], &[0, 4, 0x11, 0, 0, 0, 9]] {
            refused(V5, &packet(0xe0, body), M);
        }
        refused(V5, &packet(0xe0, [0, 10, 0x11, 0, 0, 0, 9, 0x11, 0, 0, 0, 9]), P);
    }

    #[test]
    fn f6_auth_in_its_lengths() {
        accepted(V5, &packet(0xf0, []));
        // A Reason Code needs a Property Length here (v5 section 3.15.2.1).
        refused(V5, &packet(0xf0, [0x18]), M);
        accepted(V5, &packet(0xf0, [0x18, 0]));
        refused(V5, &packet(0xf0, [0x18, 0, 0]), M);
        let method = [vec![0x15], string("M")].concat();
        refused(V5, &packet(0xf0, [vec![0x18], section(method.repeat(2))].concat()), P);
    }

    #[test]
    fn conn_ack_flags() {
        for flags in 2..=u8::MAX {
            refused(V311, &packet(0x20, [flags, 0]), M);
            refused(V5, &packet(0x20, [flags, 0, 0]), M);
            // MQTT 3.1 leaves the byte unused.
            accepted(V31, &packet(0x20, [flags, 0]));
        }
    }
}

mod g_strings {
    use super::*;

    /// Where strings stand, each with the packet that carries this one.
    fn places(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let rest = [string(text), string("bye")].concat();
        let user_name = string(text);
        let method = [vec![0x15], string(text)].concat();
        let key = [vec![0x26], string(text), string("v")].concat();
        let value = [vec![0x26], string("k"), string(text)].concat();
        let reason = [vec![0x1f], string(text)].concat();
        let server = [vec![0x1c], string(text)].concat();
        vec![
            ("Client Identifier", wire::Connect { client_id: text, ..C5 }.bytes()),
            ("Will Topic", wire::Connect { flags: 0x06, will_properties: Some(&[]), rest: &rest, ..C5 }.bytes()),
            ("User Name", wire::Connect { flags: 0x82, rest: &user_name, ..C5 }.bytes()),
            ("Authentication Method", wire::Connect { properties: Some(&method), ..C5 }.bytes()),
            ("User Property of CONNECT, key", wire::Connect { properties: Some(&key), ..C5 }.bytes()),
            ("User Property of CONNECT, value", wire::Connect { properties: Some(&value), ..C5 }.bytes()),
            ("Topic Name", publish(V5, text)),
            ("Content Type", publish_with(&[vec![0x03], string(text)].concat())),
            ("Response Topic", publish_with(&[vec![0x08], string(text)].concat())),
            ("User Property of PUBLISH, key", publish_with(&key)),
            ("User Property of PUBLISH, value", publish_with(&value)),
            ("Topic Filter of SUBSCRIBE", subscribe(V5, text, 0)),
            ("Topic Filter of UNSUBSCRIBE", packet(0xa2, [vec![0, 1, 0], string(text)].concat())),
            ("Reason String", packet(0x40, [vec![0, 1, 0], section(&reason)].concat())),
            ("Server Reference", packet(0xe0, [vec![0], section(&server)].concat())),
            (
                "Assigned Client Identifier",
                packet(0x20, [vec![0, 0], section([vec![0x12], string(text)].concat())].concat()),
            ),
            ("Response Information", packet(0x20, [vec![0, 0], section([vec![0x1a], string(text)].concat())].concat())),
        ]
    }

    #[test]
    fn g1_g2_g3_what_is_not_utf8_or_holds_u0000_is_malformed_everywhere() {
        for text in [
            &b"\xc3\x28"[..],
            b"\xff",
            b"\xf4\x90\x80\x80",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xc0\x80",
            b"\x80",
            b"a\xc3",
            b"\0",
            b"a\0",
            b"\xc3\xa9\0",
            b"\xed\xa0\xbd\xed\xb8\x80", // a character as two surrogates
        ] {
            for (place, bytes) in places(text) {
                let error = receive(V5, &bytes).expect_err(place);
                assert_eq!((error, error.reason_code()), (DecodeError::Utf8, M), "{place}: {text:02x?}");
            }
        }
    }

    /// The choice that the standard leaves: control characters and noncharacters are accepted in all strings but the
    /// Client Identifier.
    #[test]
    fn g4_control_characters_and_noncharacters_are_accepted_but_in_client_identifiers() {
        for text in ["\u{1}", "\u{1f}", "\n", "\u{7f}", "\u{80}", "\u{9f}", "\u{fdd0}", "\u{fffe}", "\u{10ffff}"] {
            for (place, bytes) in places(text.as_bytes()) {
                assert_eq!(receive(V5, &bytes).is_ok(), place != "Client Identifier", "{place}: {text:?}");
            }
        }
    }

    #[test]
    fn g5_a_byte_order_mark_is_kept() {
        for version in VERSIONS {
            let bytes = publish(version, b"\xef\xbb\xbfa");
            let Packet::Publish(publish) = accepted(version, &bytes) else { panic!() };
            assert_eq!(publish.topic_name, "\u{feff}a");
        }
    }

    #[test]
    fn g6_normal_forms_are_different_topics() {
        let (composed, decomposed) = (publish(V5, "é".as_bytes()), publish(V5, "e\u{301}".as_bytes()));
        let name = |bytes| match accepted(V5, bytes) {
            Packet::Publish(publish) => publish.topic_name.as_bytes().to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!((name(&composed).as_slice(), name(&decomposed).as_slice()), (&b"\xc3\xa9"[..], &b"e\xcc\x81"[..]));
    }

    #[test]
    fn g9_empty_levels_are_levels() {
        for (topic_name, levels) in [("/", 2), ("//", 3), ("a//b", 3), ("a/", 2), ("/a", 2), ("a", 1)] {
            assert!(valid_topic_name(topic_name));
            assert_eq!(TopicFilter::parse(topic_name), Ok(TopicFilter::Plain(topic_name)));
            assert_eq!(pantala_proto::topic_levels(topic_name), levels);
            for version in VERSIONS {
                let bytes = publish(version, topic_name.as_bytes());
                let Packet::Publish(publish) = accepted(version, &bytes) else { panic!() };
                assert_eq!(publish.topic_name, topic_name);
            }
        }
    }

    proptest! {
        /// The quick way through ASCII and the long way agree with what the standard says.
        #[test]
        fn a_topic_name_is_utf8_without_three_characters(topic in proptest::collection::vec(any::<u8>(), 1..24)) {
            let right = std::str::from_utf8(&topic).is_ok_and(|text| !text.contains(['+', '#', '\0']));
            prop_assert_eq!(receive(V311, &publish(V311, &topic)).is_ok(), right);
        }

        #[test]
        fn a_text_is_a_topic_name_without_three_characters(topic in "[a+#\\x00/é€😀]{1,12}") {
            let right = !topic.contains(['+', '#', '\0']);
            prop_assert_eq!(receive(V5, &publish(V5, topic.as_bytes())).is_ok(), right);
            prop_assert_eq!(valid_topic_name(&topic), right);
        }
    }
}

mod h_properties {
    use super::*;

    /// Where properties can stand: in each packet type, and in the Will.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Place {
        Packet(PacketType),
        Will,
    }

    use PacketType::*;

    /// A row of v5 table 2-4.
    pub struct Row {
        pub id: u8,
        /// A value of more than no bytes.
        value: &'static [u8],
        packets: &'static [PacketType],
        will: bool,
    }

    const fn row(id: u8, value: &'static [u8], packets: &'static [PacketType], will: bool) -> Row {
        Row { id, value, packets, will }
    }

    /// v5 table 2-4.
    pub const TABLE: [Row; 27] = [
        row(0x01, b"\x01", &[Publish], true),
        row(0x02, b"\0\0\x01\0", &[Publish], true),
        row(0x03, b"\0\x04text", &[Publish], true),
        row(0x08, b"\0\x03r/t", &[Publish], true),
        row(0x09, b"\0\x02\0\xff", &[Publish], true),
        row(0x0b, b"\x80\x01", &[Publish, Subscribe], false),
        row(0x11, b"\0\0\0\x01", &[PacketType::Connect, ConnAck, Disconnect], false),
        row(0x12, b"\0\x02id", &[ConnAck], false),
        row(0x13, b"\0\x3c", &[ConnAck], false),
        row(0x15, b"\0\x01M", &[PacketType::Connect, ConnAck, Auth], false),
        row(0x16, b"\0\x01x", &[PacketType::Connect, ConnAck, Auth], false),
        row(0x17, b"\x01", &[PacketType::Connect], false),
        row(0x18, b"\0\0\0\x01", &[], true),
        row(0x19, b"\x01", &[PacketType::Connect], false),
        row(0x1a, b"\0\x01r", &[ConnAck], false),
        row(0x1c, b"\0\x01s", &[ConnAck, Disconnect], false),
        row(0x1f, b"\0\x03why", &[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth], false),
        row(0x21, b"\0\x0a", &[PacketType::Connect, ConnAck], false),
        row(0x22, b"\0\x0a", &[PacketType::Connect, ConnAck], false),
        row(0x23, b"\0\x01", &[Publish], false),
        row(0x24, b"\x01", &[ConnAck], false),
        row(0x25, b"\x01", &[ConnAck], false),
        row(
            0x26,
            b"\0\x01k\0\x01v",
            &[
                PacketType::Connect,
                ConnAck,
                Publish,
                PubAck,
                PubRec,
                PubRel,
                PubComp,
                Subscribe,
                SubAck,
                Unsubscribe,
                UnsubAck,
                Disconnect,
                Auth,
            ],
            true,
        ),
        row(0x27, b"\0\x01\0\0", &[PacketType::Connect, ConnAck], false),
        row(0x28, b"\x01", &[ConnAck], false),
        row(0x29, b"\x01", &[ConnAck], false),
        row(0x2a, b"\x01", &[ConnAck], false),
    ];

    impl Row {
        fn property(&self) -> Vec<u8> {
            [&[self.id], self.value].concat()
        }

        fn allowed_in(&self, place: Place) -> bool {
            match place {
                Place::Packet(packet) => self.packets.contains(&packet),
                Place::Will => self.will,
            }
        }
    }

    fn places() -> impl Iterator<Item = Place> {
        PacketType::ALL.into_iter().map(Place::Packet).chain([Place::Will])
    }

    /// A packet that is valid but, perhaps, for `properties`: their length and they.
    fn carry(place: Place, properties: &[u8]) -> Vec<u8> {
        let packet_type = match place {
            Place::Packet(packet_type) => packet_type,
            Place::Will => {
                let start = [&string("MQTT")[..], &[5, 0x06, 0, 60, 0], &string("a")].concat();
                return packet(0x10, [&start, properties, &string("w")[..], &string("bye")].concat());
            }
        };
        let reserved = if matches!(packet_type, PubRel | Subscribe | Unsubscribe) { 2 } else { 0 };
        let (before, after) = match packet_type {
            PacketType::Connect => ([&string("MQTT")[..], &[5, 2, 0, 60]].concat(), string("a")),
            ConnAck => (vec![0, 0], vec![]),
            Publish => (string("a"), vec![]),
            PubAck | PubRec | PubRel | PubComp => (vec![0, 1, 0], vec![]),
            Subscribe => (vec![0, 1], [string("a"), vec![0]].concat()),
            SubAck | UnsubAck => (vec![0, 1], vec![0]),
            Unsubscribe => (vec![0, 1], string("a")),
            PingReq | PingResp => (vec![], vec![]),
            Disconnect => (vec![0], vec![]),
            Auth => (vec![0x18], vec![]),
        };
        packet((packet_type as u8) << 4 | reserved, [&before, properties, &after[..]].concat())
    }

    fn has_properties(place: Place) -> bool {
        !matches!(place, Place::Packet(PingReq | PingResp))
    }

    #[test]
    fn the_carriers_are_valid() {
        for place in places() {
            if has_properties(place) {
                accepted(V5, &carry(place, &[0]));
            } else {
                accepted(V5, &carry(place, &[]));
                refused(V5, &carry(place, &[0]), M);
            }
        }
    }

    #[test]
    fn h1_a_property_length_of_five_bytes() {
        for place in places() {
            refused(V5, &carry(place, &[0x80, 0x80, 0x80, 0x80, 0x00]), M);
            refused(V5, &carry(place, &[0xff, 0xff, 0xff, 0xff, 0x7f]), M);
        }
    }

    #[test]
    fn h2_a_property_length_that_is_too_short_or_too_long() {
        let property = user_property("k", "v");
        for place in places().filter(|place| has_properties(*place)) {
            let with_length = |length: u8| carry(place, &[&[length], &property[..]].concat());
            let length = u8::try_from(property.len()).unwrap();
            if place != Place::Packet(Unsubscribe) && place != Place::Packet(Subscribe) {
                accepted(V5, &with_length(length));
            }
            for wrong in 1..length {
                refused(V5, &with_length(wrong), M);
            }
            refused(V5, &with_length(0x7f), M);
            // Where a payload follows, what the length leaves out is payload: nothing marks it as properties.
            match place {
                Place::Packet(Publish) => drop(accepted(V5, &with_length(0))),
                Place::Packet(SubAck | UnsubAck) => refused(V5, &with_length(0), M),
                _ => assert!(receive(V5, &with_length(0)).is_err(), "{place:?}"),
            }
        }
    }

    #[test]
    fn h3_each_property_in_each_packet() {
        for row in &TABLE {
            for place in places() {
                let property = row.property();
                // Authentication Data needs a method, where it may stand.
                let with_method = row.id == 0x16 && row.allowed_in(place);
                let method: &[u8] = if with_method { b"\x15\0\x01M" } else { b"" };
                let bytes = carry(place, &section([&property, method].concat()));
                let result = receive(V5, &bytes);
                if row.allowed_in(place) {
                    assert!(result.is_ok(), "{:02x} in {place:?}: {result:?}", row.id);
                } else {
                    let expected =
                        if has_properties(place) { DecodeError::Property(row.id) } else { DecodeError::TrailingBytes };
                    assert_eq!(result.as_ref().err(), Some(&expected), "{:02x} in {place:?}", row.id);
                    assert_eq!(expected.reason_code(), M);
                }
            }
        }
    }

    #[test]
    fn h3_each_property_twice() {
        for row in &TABLE {
            for place in places().filter(|place| row.allowed_in(*place)) {
                let method: &[u8] = if row.id == 0x16 { b"\x15\0\x01M" } else { b"" };
                let bytes = carry(place, &section([&row.property(), method, &row.property()].concat()));
                // User Property; and a server's PUBLISH may match several subscriptions.
                let repeatable = row.id == 0x26 || (row.id == 0x0b && place == Place::Packet(Publish));
                if repeatable {
                    accepted(V5, &bytes);
                } else {
                    assert_eq!(receive(V5, &bytes), Err(DecodeError::DuplicateProperty(row.id)), "{place:?}");
                    refused(V5, &bytes, P);
                }
            }
        }
    }

    #[test]
    fn h4_each_property_cut_at_each_byte() {
        for row in &TABLE {
            for place in places().filter(|place| row.allowed_in(*place)) {
                let property = row.property();
                for cut in 1..property.len() {
                    // The section ends where the property is cut; or the whole packet does.
                    refused(V5, &carry(place, &section(&property[..cut])), M);
                    let whole = carry(place, &section(&property));
                    let Ok(frame::Split::Frame(frame)) = frame::split(&whole, ANY_SIZE) else { panic!() };
                    let at = frame.body.windows(property.len()).position(|window| window == property);
                    let body = &frame.body[..at.expect("the property is there") + cut];
                    refused(V5, &packet(frame.first_byte, body), M);
                }
            }
        }
    }

    #[test]
    fn h5_a_user_property_without_value() {
        for place in places().filter(|place| has_properties(*place)) {
            refused(V5, &carry(place, &section([&[0x26][..], &string("k")].concat())), M);
            refused(V5, &carry(place, &section([&[0x26][..], &string("k"), &[0]].concat())), M);
            refused(V5, &carry(place, &section([0x26])), M);
        }
    }

    /// The choice: what is not in its shortest form is malformed, as a length is.
    #[test]
    fn h6_integers_longer_than_needed() {
        for place in [Place::Packet(Publish), Place::Packet(Subscribe)] {
            refused(V5, &carry(place, &section([0x0b, 0x81, 0x00])), M);
            refused(V5, &carry(place, &section([0x0b, 0x80, 0x80, 0x00])), M);
        }
        for place in places() {
            refused(V5, &carry(place, &[0x80, 0x00]), M);
        }
    }

    #[test]
    fn h7_the_longest_reason_string() {
        let property = [&[0x1f][..], &string([b'x'; 65_535])].concat();
        for place in places().filter(|place| TABLE[16].allowed_in(*place)) {
            accepted(V5, &carry(place, &section(&property)));
        }
    }

    #[test]
    fn properties_are_no_part_of_older_versions() {
        // What is a Property Length in MQTT 5 is a payload, a filter's length, or one byte too many.
        for version in [V31, V311] {
            for place in [PubAck, PubRec, PubRel, PubComp, ConnAck, UnsubAck, Disconnect] {
                refused(version, &carry(Place::Packet(place), &[0]), M);
            }
        }
    }
}
