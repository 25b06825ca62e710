//! CONNECT, takeover, Session Present, expiry, Keep Alive.

use pantala_broker::Settings;
use pantala_proto::{Packet, ReasonCode};

use crate::support::{Received, Will, everywhere, settings};

#[test]
fn a_session_is_present_if_it_was_kept_and_not_otherwise() {
    everywhere(&settings(), |world| {
        let a = world.client("a");
        a.clone().clean(false).connect().disconnect();
        // v5 without expiry: it ended with its connection.
        let peer = a.clone().clean(false).expiry(60).connect();
        peer.subscribe("t", 1);
        peer.disconnect();
        let peer = a.clone().clean(false).expiry(60).resume();
        world.client("b").connect().publish("t", 1, "hi");
        peer.take("t", "hi");
        peer.disconnect();
        a.clone().expiry(60).connect().disconnect();
        assert_eq!(world.sessions(), 2);
        let peer = a.clean(false).expiry(60).resume();
        world.client("c").connect().publish("t", 1, "hi");
        peer.expect_nothing();
    });
}

#[test]
fn a_v3_session_is_kept_without_clean_session_and_ends_with_it() {
    everywhere(&settings(), |world| {
        let a = world.client("a").v3();
        a.clone().clean(false).connect().subscribe("t", 1);
        a.clone().clean(false).resume().disconnect();
        world.seconds(1_000_000);
        a.clone().clean(false).resume().disconnect();
        a.clone().connect().disconnect();
        assert_eq!(world.sessions(), 0);
        a.clean(false).connect();
    });
}

#[test]
fn a_second_connection_takes_the_session_over() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let first = a.connect();
        first.subscribe("t", 1);
        let second = a.resume();
        first.expect_end(ReasonCode::SessionTakenOver);
        world.client("b").connect().publish("t", 1, "hi");
        first.expect_nothing();
        second.take("t", "hi");
        assert_eq!(world.counters().sessions_taken_over, 1);
        // Not even a Session without expiry is missed by the client that takes it over: it has ended.
        let third = world.client("a").v3().clean(false).resume();
        second.expect_end(ReasonCode::SessionTakenOver);
        let fourth = world.client("a").connect();
        third.expect_end(ReasonCode::SessionTakenOver);
        fourth.expect_nothing();
        assert_eq!(world.connections(), 2);
    });
}

#[test]
fn a_message_for_a_client_taken_over_with_clean_start_is_not_for_its_successor() {
    everywhere(&settings(), |world| {
        let a = world.client("a").persistent();
        let first = a.connect();
        first.subscribe("t", 2);
        let b = world.client("b").connect();
        for number in 0..30 {
            b.publish("t", 1, &number.to_string());
        }
        let second = world.client("a").expiry(100).connect();
        second.subscribe("t", 2);
        second.expect_nothing();
        assert_eq!(world.counters().dropped_session_ended, 30);
    });
}

#[test]
fn a_session_ends_when_its_expiry_interval_is_over_and_not_before() {
    everywhere(&settings(), |world| {
        let a = world.client("a").clean(false).expiry(10);
        a.connect().lose();
        world.millis(9_999);
        a.resume().lose();
        world.millis(10_002);
        assert_eq!(world.sessions(), 0);
        a.connect();
    });
}

#[test]
fn disconnect_may_change_the_expiry_but_not_from_nothing() {
    everywhere(&settings(), |world| {
        let a = world.client("a").clean(false).expiry(10);
        a.connect().disconnect_with(ReasonCode::Success, Some(100));
        world.seconds(99);
        a.resume().disconnect_with(ReasonCode::Success, Some(0));
        assert_eq!(world.sessions(), 0);
        let b = world.client("b").connect();
        b.disconnect_with(ReasonCode::Success, Some(10));
        b.expect_end(ReasonCode::ProtocolError);
        assert_eq!(world.sessions(), 0);
    });
}

#[test]
fn the_expiry_is_capped() {
    let capped = Settings { session_expiry_max: Some(5), ..settings() };
    everywhere(&capped, |world| {
        world.client("a").clean(false).expiry(u32::MAX).connect().lose();
        world.client("b").v3().clean(false).connect().lose();
        world.client("c").clean(false).expiry(3).connect().disconnect_with(ReasonCode::Success, Some(100));
        world.millis(4_999);
        assert_eq!(world.sessions(), 3);
        world.millis(3);
        assert_eq!(world.sessions(), 0);
    });
}

#[test]
fn the_store_knows_which_sessions_would_come_back() {
    everywhere(&settings(), |world| {
        if world.recorded_sessions().is_none() {
            return;
        }
        let recorded = || world.recorded_sessions().unwrap_or_default().into_values().collect::<Vec<_>>();
        let a = world.client("a").clean(false).expiry(10);
        a.connect().disconnect();
        assert_eq!(recorded(), [10]);
        // Taken up again by a client that does not want it kept.
        let peer = world.client("a").clean(false).resume();
        assert_eq!(recorded(), [0]);
        peer.disconnect();
        assert_eq!(recorded(), [] as [u32; 0]);
        a.connect().disconnect_with(ReasonCode::Success, Some(0));
        assert_eq!(recorded(), [] as [u32; 0]);
        a.connect().disconnect_with(ReasonCode::Success, Some(20));
        assert_eq!(recorded(), [20]);
        world.client("a").connect();
        assert_eq!(recorded(), [] as [u32; 0]);
    });
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_a_connection() {
    everywhere(&settings(), |world| {
        let silent = world.client("silent").keep_alive(10).connect();
        let v3 = world.client("v3").v3().keep_alive(10).connect();
        let talking = world.client("talking").keep_alive(10).connect();
        let without = world.client("without").connect();
        world.seconds(9);
        talking.send(&Packet::PingReq);
        world.millis(5_999);
        assert!(!silent.is_closed() && !v3.is_closed());
        world.millis(3);
        silent.expect_end(ReasonCode::KeepAliveTimeout);
        v3.expect_end(ReasonCode::KeepAliveTimeout);
        talking.expect(&Received::PingResp);
        world.seconds(8);
        assert!(!talking.is_closed());
        world.seconds(2);
        talking.expect_end(ReasonCode::KeepAliveTimeout);
        world.seconds(1_000_000);
        assert!(!without.is_closed());
        assert_eq!(world.counters().keep_alive_timeouts, 3);
    });
}

#[test]
fn half_a_packet_does_not_count_as_life() {
    everywhere(&settings(), |world| {
        let a = world.client("a").keep_alive(10).connect();
        world.seconds(9);
        a.send_bytes(&[0x30]);
        world.seconds(7);
        a.expect_end(ReasonCode::KeepAliveTimeout);
    });
}

#[test]
fn a_connection_without_a_complete_connect_is_closed() {
    everywhere(&settings(), |world| {
        let half = world.client("a").bytes();
        let (silent, slow) = (world.client("a").begin_with(&[]), world.client("b").begin_with(&half[..half.len() - 1]));
        world.millis(9_999);
        assert!(!silent.is_closed() && !slow.is_closed());
        world.millis(3);
        silent.expect_nothing();
        assert!(silent.is_closed() && slow.is_closed());
        assert_eq!(world.counters().connect_timeouts, 2);
    });
}

#[test]
fn what_follows_connect_at_once_is_not_lost_on_the_way_to_another_worker() {
    everywhere(&settings(), |world| {
        let b = world.client("b").connect();
        b.subscribe("t", 1);
        for number in 0..5 {
            let a = world.client(&format!("a{number}")).begin();
            a.publish("t", 1, "one");
            a.publish("t", 1, "two");
            b.take("t", "one");
            b.take("t", "two");
        }
        assert_eq!(world.counters().connections_opened, 6);
    });
}

#[test]
fn bytes_are_counted_once_although_their_connection_moves() {
    everywhere(&settings(), |world| {
        let client = world.client("a");
        let bytes = client.bytes().len() as u64;
        client.connect();
        assert_eq!(world.counters().bytes_received, bytes);
    });
}

#[test]
fn simultaneous_connects_of_one_client_leave_one() {
    everywhere(&settings(), |world| {
        let a = world.client("a").clean(false).expiry(60).will(Will::new("w", "gone"));
        let peers: Vec<_> = (0..6).map(|_| a.begin()).collect();
        world.run();
        assert_eq!(peers.iter().filter(|peer| !peer.is_closed()).count(), 1);
        assert_eq!((world.sessions(), world.counters().sessions_taken_over), (1, 5));
    });
}

#[test]
fn a_stop_of_the_broker_says_so_and_keeps_sessions_and_wills_quiet() {
    everywhere(&settings(), |world| {
        let watcher = world.client("w").persistent().connect();
        watcher.subscribe("will", 1);
        let a = world.client("a").persistent().will(Will::new("will", "gone")).connect();
        let v3 = world.client("b").v3().clean(false).connect();
        world.shut_down();
        for peer in [&watcher, &a, &v3] {
            peer.expect_end(ReasonCode::ServerShuttingDown);
        }
        assert_eq!((world.sessions(), world.counters().wills_published), (3, 0));
    });
}
