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
