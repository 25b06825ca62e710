//! Topic Aliases and Maximum Packet Size.

use pantala_broker::Settings;
use pantala_proto::ReasonCode;

use crate::support::{Pub, Received, everywhere, settings};

#[test]
fn a_clients_aliases_stand_for_what_they_were_set_to_last() {
    everywhere(&settings(), |world| {
        let subscriber = world.client("s").connect();
        subscriber.subscribe("#", 2);
        let a = world.client("a").persistent().connect();
        for (topic, alias, payload) in
            [("x", 1, "1"), ("", 1, "2"), ("y", 1, "3"), ("", 1, "4"), ("x", 10, "5"), ("", 10, "6")]
        {
            a.must_publish(&Pub::new(topic, payload).qos(1).alias(alias));
        }
        for (topic, payload) in [("x", "1"), ("x", "2"), ("y", "3"), ("y", "4"), ("x", "5"), ("x", "6")] {
            assert_eq!(subscriber.take(topic, payload).alias, None);
        }
        // They do not outlive the connection (v5 MQTT-3.3.2-7).
        a.lose();
        let a = world.client("a").persistent().resume();
        a.send_publish(&Pub::new("", "7").alias(1));
        world.run();
        a.expect_end(ReasonCode::ProtocolError);
        subscriber.expect_nothing();
    });
}

#[test]
fn an_alias_above_the_maximum_ends_the_connection_with_a_name_and_without() {
    let few = Settings { topic_alias_max: 2, ..settings() };
    everywhere(&few, |world| {
        for topic in ["x", ""] {
            let a = world.client("a").connect();
            a.send_publish(&Pub::new(topic, "").alias(3));
            world.run();
            a.expect_end(ReasonCode::TopicAliasInvalid);
        }
    });
}

#[test]
fn the_broker_gives_aliases_to_the_first_topics_as_far_as_both_want() {
    let two = Settings { topic_alias_broker_max: 2, ..settings() };
    everywhere(&two, |world| {
        let publisher = world.client("p").connect();
        for (maximum, given) in [(0, 0), (1, 1), (9, 2)] {
            let peer = world.client("a").alias_max(maximum).persistent().connect_with(maximum > 0);
            peer.subscribe("#", 1);
            for topic in ["x", "y", "z", "x", "y", "z"] {
                publisher.publish(topic, 1, "m");
            }
            let got = peer.take_everything();
            for (at, message) in got.iter().enumerate() {
                let alias = (at as u16 % 3 < given).then_some(at as u16 % 3 + 1);
                assert_eq!((&*message.topic, message.alias), (["x", "y", "z"][at % 3], alias));
                assert_eq!(message.by_alias, alias.is_some() && at >= 3);
            }
            assert_eq!(got.len(), 6);
            peer.lose();
        }
    });
}

#[test]
fn an_alias_is_known_only_if_the_packet_that_sets_it_was_sent() {
    everywhere(&settings(), |world| {
        let a = world.client("a").alias_max(5).packet_bytes_max(40).connect();
        a.subscribe("#", 1);
        let publisher = world.client("p").connect();
        for qos in [0, 1] {
            // The limit is met exactly, and passed by one, with and without the alias.
            for payload in 10..45 {
                publisher.publish(&format!("topic/{qos}"), qos, &"x".repeat(payload));
            }
        }
        let got = a.take_everything();
        assert!(got.iter().any(|message| message.by_alias));
        assert!(got.iter().all(|message| message.topic == format!("topic/{}", message.qos)));
        let dropped = world.counters().dropped_too_large_for_client;
        assert_eq!(got.len() as u64 + dropped, 70);
        assert!(dropped > 10, "{dropped}");
    });
}

#[test]
fn what_is_larger_than_the_client_takes_is_dropped_for_it_alone_and_counted() {
    everywhere(&settings(), |world| {
        let publisher = world.client("p").connect();
        let small = world.client("small").packet_bytes_max(100).receive_maximum(1).connect();
        let large = world.client("large").connect();
        for peer in [&small, &large] {
            peer.subscribe("t", 2);
        }
        for payload in [2_000, 200, 10] {
            for qos in 0..3 {
                publisher.publish("t", qos, &"x".repeat(payload));
            }
        }
        assert_eq!(large.take_everything().len(), 9);
        let got = small.take_everything();
        assert_eq!(got.len(), 3);
        assert!(got.iter().all(|message| message.payload.len() == 10));
        assert_eq!(world.counters().dropped_too_large_for_client, 6);
    });
}

#[test]
fn a_message_too_large_after_a_reconnect_counts_as_delivered() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 2);
        let publisher = world.client("p").connect();
        publisher.publish("t", 1, &"x".repeat(500));
        publisher.publish("t", 2, &"y".repeat(500));
        publisher.publish("t", 2, "z");
        assert_eq!(peer.messages().len(), 3);
        peer.lose();
        let peer = a.clone().packet_bytes_max(100).receive_maximum(1).resume();
        assert!(peer.take("t", "z").dup);
        publisher.publish("t", 1, "on we go");
        peer.take("t", "on we go");
        peer.lose();
        a.resume().expect_nothing();
    });
}

#[test]
fn a_packet_larger_than_we_take_ends_the_connection() {
    let small = Settings { packet_bytes_max: 100, ..settings() };
    everywhere(&small, |world| {
        let a = world.client("a").connect();
        a.send_publish(&Pub::new("t", &"x".repeat(93)));
        world.run();
        a.expect_nothing();
        assert!(!a.is_closed());
        a.send_bytes(&[0x30, 99]);
        world.run();
        a.expect(&Received::Disconnect(ReasonCode::PacketTooLarge));
        assert!(a.is_closed());
    });
}
