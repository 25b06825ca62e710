//! QoS 0, 1 and 2 in both directions, resends, windows, expiry.

use pantala_broker::Settings;
use pantala_proto::{AcknowledgementKind as Kind, ReasonCode};

use crate::support::{Outcome, Pub, Received, everywhere, settings};

#[test]
fn every_qos_arrives_once_in_order_at_the_lower_of_both() {
    everywhere(&settings(), |world| {
        let publisher = world.client("publisher").connect();
        let subscribers: Vec<_> = (0..3)
            .map(|qos| {
                let peer = world.client(&format!("s{qos}")).connect();
                peer.subscribe("t/+", qos);
                (qos, peer)
            })
            .collect();
        for qos in 0..3 {
            for number in 0..4 {
                publisher.publish("t/x", qos, &format!("{qos} {number}"));
            }
        }
        for (granted, subscriber) in &subscribers {
            let got = subscriber.take_everything();
            for qos in 0..3_u8 {
                let of_qos: Vec<_> =
                    got.iter().filter(|message| message.payload.starts_with(&qos.to_string())).collect();
                assert_eq!(of_qos.len(), 4);
                for (number, message) in of_qos.iter().enumerate() {
                    assert_eq!(message.payload, format!("{qos} {number}"));
                    assert_eq!((message.qos, message.dup, message.retain), (qos.min(*granted), false, false));
                }
            }
        }
    });
}

#[test]
fn a_qos_2_publish_is_routed_once_however_often_it_comes() {
    everywhere(&settings(), |world| {
        let subscriber = world.client("s").connect();
        subscriber.subscribe("t", 2);
        let a = world.client("a").persistent();
        let peer = a.connect();
        let message = Pub::new("t", "once").qos(2).id(7);
        peer.send_publish(&message);
        peer.send_publish(&message.clone().dup());
        world.run();
        assert_eq!(peer.outcome(Kind::PubRec, 7), Outcome::Acknowledged(ReasonCode::Success));
        assert_eq!(peer.outcome(Kind::PubRec, 7), Outcome::Acknowledged(ReasonCode::Success));
        peer.lose();
        let peer = a.resume();
        peer.send_publish(&message.clone().dup());
        world.run();
        assert_eq!(peer.outcome(Kind::PubRec, 7), Outcome::Acknowledged(ReasonCode::Success));
        for expected in [ReasonCode::Success, ReasonCode::PacketIdentifierNotFound] {
            peer.ack(Kind::PubRel, 7);
            world.run();
            assert_eq!(peer.outcome(Kind::PubComp, 7), Outcome::Acknowledged(expected));
        }
        // The same Packet Identifier is a new message now.
        peer.publish_with(&Pub::new("t", "twice").qos(2).id(7));
        subscriber.take("t", "once");
        subscriber.take("t", "twice");
        subscriber.expect_nothing();
    });
}

#[test]
fn what_is_not_acknowledged_is_sent_again_in_order_with_dup_before_what_is_new() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 2);
        let publisher = world.client("p").connect();
        for (qos, payload) in [(1, "one"), (2, "two"), (2, "released"), (1, "acknowledged"), (1, "three")] {
            publisher.publish("t", qos, payload);
        }
        let got = peer.messages();
        assert_eq!(got.len(), 5);
        peer.ack(Kind::PubRec, got[2].packet_id);
        peer.ack(Kind::PubAck, got[3].packet_id);
        world.run();
        assert_eq!(peer.outcome(Kind::PubRel, got[2].packet_id), Outcome::Acknowledged(ReasonCode::Success));
        world.seconds(1_000);
        // Nothing is sent again on a connection that lives.
        peer.expect_nothing();
        peer.lose();
        publisher.publish("t", 1, "new");
        let peer = a.resume();
        for (at, dup) in [(0, true), (1, true)] {
            let again = peer.expect_message("t", &got[at].payload);
            assert_eq!((again.packet_id, again.dup, again.qos), (got[at].packet_id, dup, got[at].qos));
        }
        peer.expect(&Received::Ack(Kind::PubRel, got[2].packet_id, ReasonCode::Success));
        assert!(peer.expect_message("t", "three").dup);
        assert!(!peer.expect_message("t", "new").dup);
        peer.ack(Kind::PubComp, got[2].packet_id);
        world.run();
        peer.expect_nothing();
    });
}

#[test]
fn unacknowledged_messages_stay_within_the_window() {
    let narrow = Settings { inflight_messages_max: 3, ..settings() };
    everywhere(&narrow, |world| {
        let publisher = world.client("p").connect();
        let clients = [
            (world.client("a").receive_maximum(2), 2),
            (world.client("b").receive_maximum(50), 3),
            (world.client("c").v3(), 3),
        ];
        for (client, window) in clients {
            let peer = client.connect();
            peer.subscribe("t", 2);
            for number in 0..8 {
                publisher.publish("t", 1 + number % 2, &number.to_string());
            }
            publisher.publish("t", 0, "now");
            // QoS 0 does not wait for the window (v5 MQTT-3.3.4-9).
            let first = peer.messages();
            assert_eq!(first.len(), window + 1, "{first:?}");
            assert_eq!(first[window].payload, "now");
            let second = first.iter().find(|message| message.qos == 2).unwrap();
            peer.ack(Kind::PubRec, second.packet_id);
            world.run();
            // PUBREC gives no room (v5 section 4.9).
            assert_eq!(peer.drain().len(), 1);
            for message in &first[..window] {
                match message.qos {
                    1 => peer.ack(Kind::PubAck, message.packet_id),
                    _ if message.packet_id == second.packet_id => peer.ack(Kind::PubComp, message.packet_id),
                    _ => peer.acknowledge(message),
                }
            }
            let rest: Vec<String> = peer.take_everything().into_iter().map(|message| message.payload).collect();
            let expected: Vec<String> = (window..8).map(|number| number.to_string()).collect();
            assert_eq!(rest, expected);
            peer.disconnect();
        }
    });
}

#[test]
fn what_is_sent_again_stays_within_the_window_of_the_new_connection() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 2);
        let publisher = world.client("p").connect();
        for (qos, payload) in [(1, "one"), (2, "two"), (1, "three")] {
            publisher.publish("t", qos, payload);
        }
        assert_eq!(peer.messages().len(), 3);
        peer.lose();
        publisher.publish("t", 1, "four");
        let peer = a.clone().receive_maximum(1).resume();
        for (payload, dup) in [("one", true), ("two", true), ("three", true), ("four", false)] {
            let message = peer.expect_message("t", payload);
            assert_eq!(message.dup, dup);
            peer.expect_nothing();
            peer.acknowledge(&message);
        }
        peer.expect_nothing();
    });
}

#[test]
fn unacknowledged_bytes_are_bounded_but_one_message_always_passes() {
    let narrow = Settings { inflight_bytes_max: 100, ..settings() };
    everywhere(&narrow, |world| {
        let publisher = world.client("p").connect();
        let peer = world.client("a").persistent().connect();
        peer.subscribe("t", 2);
        publisher.publish("t", 2, &"x".repeat(1_000));
        publisher.publish("t", 1, &"y".repeat(59));
        publisher.publish("t", 1, &"z".repeat(59));
        publisher.publish("t", 2, "last");
        let large = peer.expect_message("t", &"x".repeat(1_000));
        peer.expect_nothing();
        peer.lose();
        let peer = world.client("a").persistent().resume();
        assert!(peer.expect_message("t", &"x".repeat(1_000)).dup);
        peer.expect_nothing();
        peer.acknowledge(&large);
        let (y, z) = (peer.expect_message("t", &"y".repeat(59)), peer.expect_message("t", &"z".repeat(59)));
        peer.expect_nothing();
        peer.acknowledge(&z);
        peer.take("t", "last");
        peer.acknowledge(&y);
        peer.expect_nothing();
    });
}

#[test]
fn acknowledgements_of_nothing_are_counted_and_wrong_ones_end_the_connection() {
    everywhere(&settings(), |world| {
        let a = world.client("a").connect();
        a.subscribe("t", 2);
        a.ack(Kind::PubAck, 9);
        a.ack(Kind::PubComp, 9);
        world.run();
        a.expect_nothing();
        a.ack(Kind::PubRec, 9);
        a.ack(Kind::PubRel, 9);
        world.run();
        a.expect(&Received::Ack(Kind::PubRel, 9, ReasonCode::PacketIdentifierNotFound));
        a.expect(&Received::Ack(Kind::PubComp, 9, ReasonCode::PacketIdentifierNotFound));
        assert_eq!(world.counters().acknowledgements_unknown, 4);
        world.client("p").connect().publish("t", 2, "x");
        let message = a.expect_message("t", "x");
        a.ack(Kind::PubAck, message.packet_id);
        world.run();
        a.expect_end(ReasonCode::ProtocolError);
    });
}

#[test]
fn a_client_that_sends_beyond_our_receive_maximum_is_cut_off() {
    let narrow = Settings { receive_maximum: 2, ..settings() };
    everywhere(&narrow, |world| {
        let v3 = world.client("v3").v3().connect();
        let v5 = world.client("v5").connect();
        for peer in [&v3, &v5] {
            for _ in 0..3 {
                peer.send_publish(&Pub::new("t", "x").qos(2));
            }
        }
        world.run();
        assert!(!v3.is_closed());
        assert_eq!(v5.drain().last(), Some(&Received::Disconnect(ReasonCode::ReceiveMaximumExceeded)));
        assert!(v5.is_closed());
    });
}

#[test]
fn messages_expire_in_the_queue_and_are_sent_on_with_what_is_left_of_their_life() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 1);
        let publisher = world.client("p").connect();
        publisher.must_publish(&Pub::new("t", "at once").qos(1).expiry(10));
        assert_eq!(peer.take("t", "at once").expiry, Some(10));
        peer.lose();
        for (payload, expiry) in [("short", 5), ("long", 20)] {
            publisher.must_publish(&Pub::new("t", payload).qos(1).expiry(expiry));
        }
        publisher.publish("t", 1, "for ever");
        world.millis(5_001);
        let peer = a.resume();
        let long = peer.expect_message("t", "long");
        assert!(long.expiry.is_some_and(|left| (14..=15).contains(&left)), "{:?}", long.expiry);
        assert_eq!(peer.expect_message("t", "for ever").expiry, None);
        peer.expect_nothing();
        assert_eq!(world.counters().dropped_expired, 1);
        // What has been sent once goes on whatever its age.
        peer.lose();
        world.seconds(30);
        let again = a.resume();
        assert_eq!(again.expect_message("t", "long").expiry, Some(0));
    });
}

#[test]
fn qos_0_waits_for_absent_clients_only_if_it_is_to() {
    for queue_qos0_messages in [false, true] {
        let choice = Settings { queue_qos0_messages, ..settings() };
        everywhere(&choice, |world| {
            let a = world.client("a").persistent();
            let peer = a.connect();
            peer.subscribe("t", 1);
            peer.lose();
            let publisher = world.client("p").connect();
            publisher.publish("t", 0, "zero");
            publisher.publish("t", 1, "one");
            let peer = a.resume();
            if queue_qos0_messages {
                peer.take("t", "zero");
            }
            peer.take("t", "one");
            peer.expect_nothing();
            assert_eq!(world.counters().dropped_client_absent, u64::from(!queue_qos0_messages));
        });
    }
}

#[test]
fn packet_identifiers_go_round_past_one_that_is_in_use() {
    let world = crate::support::World::new(&settings(), 2, 1);
    let peer = world.client("a").connect();
    peer.subscribe("t", 1);
    let publisher = world.client("p").connect();
    publisher.publish("t", 1, "held");
    let held = peer.expect_message("t", "held");
    for _ in 0..66_000 {
        publisher.send_publish(&Pub::new("t", "x").qos(1).id(1));
        world.run();
        let message = peer.expect_message("t", "x");
        assert_ne!(message.packet_id, held.packet_id);
        peer.ack(Kind::PubAck, message.packet_id);
        publisher.next();
    }
    world.end();
}

#[test]
fn messages_published_to_nobody_say_so() {
    everywhere(&settings(), |world| {
        let a = world.client("a").connect();
        let none = Outcome::Acknowledged(ReasonCode::NoMatchingSubscribers);
        assert_eq!(a.publish_with(&Pub::new("t", "x").qos(1)), none);
        let b = world.client("b").connect();
        b.subscribe("t", 0);
        assert_eq!(a.publish_with(&Pub::new("t", "x").qos(2)), Outcome::Acknowledged(ReasonCode::Success));
        b.unsubscribe("t");
        assert_eq!(a.publish_with(&Pub::new("t", "x").qos(1)), none);
        b.take("t", "x");
    });
}

#[test]
fn order_is_kept_for_each_publisher_and_qos_over_reconnects() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let mut peer = a.connect();
        peer.subscribe("t/#", 1);
        let publishers = [world.client("p").connect(), world.client("q").connect()];
        let mut seen: [Vec<u32>; 2] = Default::default();
        for number in 0..60_u32 {
            for (publisher, name) in publishers.iter().zip(["p", "q"]) {
                publisher.send_publish(&Pub::new(&format!("t/{name}"), &number.to_string()).qos(1));
            }
            if number % 7 == 3 {
                // Some are acknowledged, in any order, then the connection goes.
                world.run();
                for message in peer.messages().into_iter().step_by(3) {
                    peer.ack(Kind::PubAck, message.packet_id);
                    note(&mut seen, &message);
                }
                peer.lose();
                peer = a.resume();
            }
        }
        world.run();
        let mut rest = peer.take_everything();
        rest.retain(|message| message.qos == 1);
        for pair in rest.windows(2) {
            assert!(pair[0].dup || !pair[1].dup, "a repetition after something new");
        }
        let mut last = [None, None];
        for message in &rest {
            let which = usize::from(message.topic == "t/q");
            let number: u32 = message.payload.parse().unwrap();
            assert!(last[which] < Some(number), "{message:?} after {:?}", last[which]);
            last[which] = Some(number);
            note(&mut seen, message);
        }
        for numbers in &mut seen {
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(*numbers, (0..60).collect::<Vec<_>>());
        }
    });
}

fn note(seen: &mut [Vec<u32>; 2], message: &crate::support::Delivered) {
    seen[usize::from(message.topic == "t/q")].push(message.payload.parse().unwrap());
}
