//! Reason Strings: what was behind a Reason Code, for people.

use std::num::NonZeroU32;

use pantala_broker::{ListenerSettings, QueueFull, Settings};
use pantala_proto::{AcknowledgementKind as Kind, QoS, ReasonCode};

use crate::support::{Outcome, Peer, Pub, Received, Sub, Will, World, everywhere, settings};

/// Small limits, to be met.
fn small() -> Settings {
    Settings {
        packet_bytes_max: 2_000,
        connect_packet_bytes_max: 1_000,
        payload_bytes_max: 100,
        client_id_bytes_max: 30,
        topic_bytes_max: 40,
        topic_levels_max: 4,
        subscriptions_per_session_max: 1,
        topic_alias_max: 3,
        receive_maximum: 2,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: false,
        wildcard_subscription_available: false,
        ..settings()
    }
}

/// What a client sends, and what it is told.
type Case<'c> = (&'c dyn Fn(&Peer), ReasonCode, &'c str);

/// What a client is told when a connection of its own ends over what it sends.
fn last_words(world: &World, send: impl FnOnce(&Peer)) -> (ReasonCode, String) {
    let peer = world.client("ends").without_problem_information().connect();
    send(&peer);
    world.run();
    let reason = peer.reason().expect("a DISCONNECT says why, whether or not problem information is asked for");
    let code = match peer.drain().pop() {
        Some(Received::Disconnect(code)) => code,
        other => panic!("{other:?}"),
    };
    assert!(peer.is_closed());
    (code, reason)
}

#[test]
fn disconnect_names_the_limit_that_was_met() {
    use ReasonCode as R;
    everywhere(&small(), |world| {
        let before = world.counters().protocol_errors;
        let long = "l".repeat(41);
        let cases: [Case<'_>; 8] = [
            (&|peer| peer.send_bytes(&[0x30, 0xd0, 0x0f]), R::PacketTooLarge, "packet_bytes_max is 2000"),
            (
                &|peer| {
                    peer.send_publish(&Pub::new(&long, ""));
                },
                R::TopicNameInvalid,
                "topic_bytes_max is 40",
            ),
            (
                &|peer| {
                    peer.send_publish(&Pub::new("1/2/3/4/5", ""));
                },
                R::MalformedPacket,
                "topic_levels_max is 4",
            ),
            (
                &|peer| {
                    peer.send_subscribe(&Sub::new("1/2/3/4/5", 0));
                },
                R::MalformedPacket,
                "topic_levels_max is 4",
            ),
            (
                &|peer| {
                    peer.send_publish(&Pub::new("t", "").alias(4));
                },
                R::TopicAliasInvalid,
                "topic_alias_max is 3",
            ),
            (
                &|peer| {
                    peer.send_publish(&Pub::new("", "").alias(3));
                },
                R::ProtocolError,
                "this Topic Alias has not been set",
            ),
            (
                &|peer| {
                    for _ in 0..3 {
                        peer.send_publish(&Pub::new("t", "").qos(2));
                    }
                },
                R::ReceiveMaximumExceeded,
                "receive_maximum is 2",
            ),
            (
                &|peer| {
                    peer.send_publish(&Pub::new("t", "").retained());
                },
                R::RetainNotSupported,
                "retain_available is false",
            ),
        ];
        let count = cases.len() as u64;
        for (send, code, reason) in cases {
            assert_eq!(last_words(world, send), (code, reason.to_owned()));
        }
        assert_eq!(world.counters().protocol_errors - before, count);
    });
}

#[test]
fn disconnect_says_what_is_wrong_with_a_packet() {
    use ReasonCode as R;
    everywhere(&small(), |world| {
        let cases: [(&[u8], R, &str); 5] = [
            (&[0x36, 5, 0, 1, b't', 0, 1], R::MalformedPacket, "QoS 3"),
            (&[0x32, 6, 0, 1, b't', 0, 0, 0], R::ProtocolError, "Packet Identifier 0"),
            (&[0x30, 4, 0, 1, b'#', 0], R::MalformedPacket, "a Topic Name is empty or holds wildcards"),
            (&[0x30, 6, 0, 1, b't', 2, 0x21, 0], R::MalformedPacket, "property 0x21 is unknown or has no place here"),
            (&[0xd0, 0], R::ProtocolError, "the packet has no place here"),
        ];
        for (bytes, code, reason) in cases {
            assert_eq!(last_words(world, |peer| peer.send_bytes(bytes)), (code, reason.to_owned()), "{bytes:02x?}");
        }
        let old = world.client("twice").connect();
        let _new = world.client("twice").connect();
        assert_eq!(old.reason().as_deref(), Some("a newer connection has the same Client Identifier"));
        // The older versions have no place for it.
        let v3 = world.client("v3").v3().connect();
        v3.send_bytes(&[0xd0, 0]);
        world.run();
        v3.expect_end(R::ProtocolError);
    });
}

#[test]
fn connack_says_why_not() {
    let one = NonZeroU32::new(1);
    let narrow = ListenerSettings { connections_max: one, ..ListenerSettings::default() };
    let closed = ListenerSettings { allow_anonymous: false, ..ListenerSettings::default() };
    let cases = [
        (Settings { connections_max: one, ..small() }, ReasonCode::QuotaExceeded, "connections_max is 1"),
        (
            Settings { listeners: vec![narrow], ..small() },
            ReasonCode::QuotaExceeded,
            "connections_max of the listener is 1",
        ),
        (Settings { sessions_max: one, ..small() }, ReasonCode::QuotaExceeded, "sessions_max is 1"),
    ];
    for (settings, code, reason) in cases {
        everywhere(&settings, |world| {
            let _first = world.client("first").connect();
            let refused = world.client("second").without_problem_information().begin();
            world.run();
            assert_eq!(refused.reason().as_deref(), Some(reason));
            assert_eq!(refused.next(), Some(Received::ConnAck { session_present: false, code }));
        });
    }
    everywhere(&Settings { listeners: vec![closed], ..small() }, |world| {
        let refused = world.client("a").begin();
        world.run();
        assert_eq!(refused.reason().as_deref(), Some("the listener is not for anonymous clients"));
    });
    everywhere(&small(), |world| {
        let reason_of = |client: crate::support::Client| {
            let peer = client.begin();
            world.run();
            peer.reason()
        };
        assert_eq!(reason_of(world.client(&"l".repeat(40))).as_deref(), Some("client_id_bytes_max is 30"));
        let will = |topic: &str, payload: &str| world.client("w").will(Will::new(topic, payload));
        assert_eq!(reason_of(will("1/2/3/4/5", "")).as_deref(), Some("topic_levels_max is 4"));
        assert_eq!(reason_of(will("t", &"x".repeat(101))).as_deref(), Some("payload_bytes_max is 100"));
        assert_eq!(reason_of(will("$SYS/x", "")).as_deref(), Some("not authorized for this Topic Name"));
        // CONNECT with a reserved flag.
        let peer =
            world.client("malformed").begin_with(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 60, 0, 0, 0]);
        world.run();
        assert_eq!(peer.reason().as_deref(), Some("reserved or contradictory Connect Flags"));
        // The same with a Maximum Packet Size, and with one that stands behind what is wrong.
        for (properties, expected) in [
            (&[0x27, 0, 0, 0, 100, 0x21, 0, 0][..], Some("property 0x21 has a forbidden value")),
            (&[0x27, 0, 0, 0, 20, 0x21, 0, 0], None),
            (&[0x21, 0, 0, 0x27, 0, 0, 0, 100], None),
        ] {
            let mut bytes = vec![0x10, 21, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 8];
            bytes.extend_from_slice(properties);
            bytes.extend_from_slice(&[0, 0]);
            let peer = world.client("malformed").begin_with(&bytes);
            world.run();
            assert_eq!(peer.reason().as_deref(), expected, "{properties:02x?}");
            assert!(matches!(peer.next(), Some(Received::ConnAck { .. })));
        }
        // A success needs no words, and one that does not fit is left out.
        assert_eq!(reason_of(world.client("fine")), None);
        assert_eq!(reason_of(will("t", &"x".repeat(101)).packet_bytes_max(20)), None);
    });
}

#[test]
fn acknowledgements_say_why_not_to_those_who_ask() {
    let full = Settings { queued_messages_max: 1, queue_full: QueueFull::Refuse, ..small() };
    everywhere(&full, |world| {
        let absent = world.client("absent").persistent().connect();
        absent.subscribe("full", 1);
        absent.lose();
        let asks = world.client("asks").connect();
        let asks_not = world.client("asks not").without_problem_information().connect();
        let short = world.client("short").packet_bytes_max(20).connect();
        let v3 = world.client("v3").v3().connect();
        asks.publish("full", 1, "fills");
        let large = "x".repeat(101);
        for (topic, payload, code, reason) in [
            ("full", "", ReasonCode::QuotaExceeded, "the queue of a receiver is full"),
            ("t", &*large, ReasonCode::QuotaExceeded, "payload_bytes_max is 100"),
            ("$SYS/x", "", ReasonCode::NotAuthorized, "not authorized for this Topic Name"),
        ] {
            for (qos, kind) in [(1, Kind::PubAck), (2, Kind::PubRec)] {
                for peer in [&asks, &asks_not, &short] {
                    let number = peer.send_publish(&Pub::new(topic, payload).qos(qos));
                    world.run();
                    let expected = std::ptr::eq(peer, &asks).then(|| reason.to_owned());
                    assert_eq!(peer.reason(), expected);
                    assert_eq!(peer.outcome(kind, number), Outcome::Acknowledged(code));
                }
            }
        }
        asks.publish("t", 1, "");
        assert_eq!(v3.publish_with(&Pub::new("$SYS/x", "").qos(1)), Outcome::Acknowledged(ReasonCode::Success));
        for (filter, reason) in [
            ("a/#", "wildcard_subscription_available is false"),
            ("a#", "a wildcard must have its level for itself, and # must be the last"),
            (&*"l".repeat(41), "topic_bytes_max is 40"),
            ("second", "subscriptions_per_session_max is 1"),
        ] {
            if filter == "second" {
                asks.subscribe("first", 1);
            }
            asks.send_subscribe(&Sub::new(filter, 1));
            world.run();
            assert_eq!(asks.reason().as_deref(), Some(reason));
            asks.drain();
        }
    });
}

/// Whoever reads a key in a Reason String finds it in the documentation.
#[test]
fn the_keys_in_reason_strings_are_documented() {
    let documented = [include_str!("../../../../docs/limits.md"), include_str!("../../../../docs/configuration.md")];
    let sources = [
        include_str!("../../src/connect.rs"),
        include_str!("../../src/publish.rs"),
        include_str!("../../src/subscribe.rs"),
    ];
    let mut count = 0;
    for source in sources {
        for after in source.split("Cause::setting(").skip(1) {
            let key = after.split('"').nth(1).unwrap();
            assert!(documented.iter().any(|text| text.contains(key)), "{key}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}
