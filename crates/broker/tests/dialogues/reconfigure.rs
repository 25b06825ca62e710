//! Settings that change while clients are connected.

use std::num::NonZeroU32;

use pantala_broker::{ListenerSettings, Settings};
use pantala_proto::{Packet, ProtocolVersion, QoS, ReasonCode};

use crate::support::{Outcome, Peer, Pub, Received, Sub, World, everywhere, settings};

const REFUSED: Option<Received> = Some(Received::ConnAck { session_present: false, code: ReasonCode::QuotaExceeded });

/// A PUBLISH of so many bytes of payload at QoS 0, and whether the connection is still there.
fn survives(world: &World, peer: &Peer, payload: usize) -> bool {
    peer.send_publish(&Pub::new("t", &"x".repeat(payload)));
    peer.send(&Packet::PingReq);
    world.run();
    peer.expect(&Received::PingResp);
    !peer.is_closed()
}

#[test]
fn limits_hold_from_the_next_packet_on() {
    everywhere(&settings(), |world| {
        let peer = world.client("a").connect();
        peer.must_publish(&Pub::new("t", "12345").qos(1));
        world.reconfigure(&Settings { payload_bytes_max: 4, sessions_max: NonZeroU32::new(1), ..settings() });
        assert_eq!(peer.publish_with(&Pub::new("t", "12345").qos(1)), Outcome::Acknowledged(ReasonCode::QuotaExceeded));
        // Who is there stays, who comes is refused.
        assert_eq!(world.client("b").try_connect().1, REFUSED);
        world.reconfigure(&settings());
        world.client("b").connect();
        peer.must_publish(&Pub::new("t", "12345").qos(1));
    });
}

#[test]
fn a_client_may_count_on_what_its_connack_said() {
    everywhere(&settings(), |world| {
        let old = world.client("old").connect();
        let less = Settings {
            packet_bytes_max: 100,
            maximum_qos: QoS::AtMostOnce,
            retain_available: false,
            wildcard_subscription_available: false,
            topic_alias_max: 0,
            connect_packet_bytes_max: 100,
            ..settings()
        };
        world.reconfigure(&less);
        let new = world.client("new").connect();
        old.must_publish(&Pub::new("t", "x").qos(1).retained());
        old.must_publish(&Pub::new("t", "x").qos(1).alias(1));
        old.subscribe_with(&Sub::new("a/#", 1));
        assert!(survives(world, &old, 200));
        assert!(survives(world, &new, 20));
        new.send_publish(&Pub::new("t", &"x".repeat(200)));
        world.run();
        new.expect_end(ReasonCode::PacketTooLarge);
        // A client that comes back is told anew.
        let old = world.client("old").connect();
        old.send_publish(&Pub::new("t", "x").qos(1));
        world.run();
        old.expect_end(ReasonCode::QoSNotSupported);
    });
}

#[test]
fn packets_of_a_listener_have_a_size_of_its_own() {
    let at = |packet_bytes_max| ListenerSettings { packet_bytes_max, ..settings().listeners[0].clone() };
    let listeners = vec![at(None), at(Some(100)), at(Some(300))];
    let all = Settings { packet_bytes_max: 200, connect_packet_bytes_max: 200, listeners, ..settings() };
    everywhere(&all, |world| {
        for (listener, payload, survived) in
            [(0, 150, true), (0, 250, false), (1, 50, true), (1, 150, false), (2, 250, true), (2, 350, false)]
        {
            let peer = world.client("a").at(listener).connect();
            if survived {
                assert!(survives(world, &peer, payload));
                continue;
            }
            peer.send_publish(&Pub::new("t", &"x".repeat(payload)));
            world.run();
            peer.expect_end(ReasonCode::PacketTooLarge);
        }
        // CONNECT is bounded by what is less, as it is without a size of the listener.
        let long = "c".repeat(150);
        world.client(&long).at(2).connect();
        assert_eq!(world.client(&long).at(1).try_connect().1, None);
        // Who was told the old size may count on it.
        let old = world.client("old").at(1).connect();
        world.reconfigure(&Settings { listeners: vec![at(None), at(Some(50)), at(Some(300))], ..all.clone() });
        assert!(survives(world, &old, 80));
        let new = world.client("new").at(1).connect();
        new.send_publish(&Pub::new("t", &"x".repeat(80)));
        world.run();
        new.expect_end(ReasonCode::PacketTooLarge);
    });
}

#[test]
fn a_connection_that_is_not_let_in_yet_gets_the_new_settings() {
    everywhere(&Settings { connect_seconds: 100, ..settings() }, |world| {
        let peer = Peer::open(world, ProtocolVersion::V5, 0, None);
        world.seconds(5);
        assert!(!peer.is_closed());
        world.reconfigure(&Settings { connect_seconds: 6, ..settings() });
        world.seconds(2);
        assert!(peer.is_closed(), "the shorter time counts from its beginning");
    });
}

#[test]
fn listeners_are_added_and_counted() {
    everywhere(&settings(), |world| {
        world.client("a").connect();
        let full = ListenerSettings { connections_max: NonZeroU32::new(1), ..settings().listeners[0].clone() };
        world.reconfigure(&Settings { listeners: vec![full.clone(), full], ..settings() });
        assert_eq!(world.client("b").try_connect().1, REFUSED);
        world.client("c").at(1).connect();
        assert_eq!(world.client("d").at(1).try_connect().1, REFUSED);
    });
}
