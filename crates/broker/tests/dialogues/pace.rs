//! Clients that are too fast, and a process that is too large.

use std::num::NonZeroU32;

use pantala_broker::{Cause, Event, ListenerRate, ListenerSettings, Settings};
use pantala_proto::{Packet, ReasonCode};

use crate::access::{secured, verify};
use crate::support::{Peer, Pub, Received, World, everywhere, settings};

/// No address of this machine, whose clients have no rate.
const ELSEWHERE: &str = "192.0.2.1";

fn slow(messages: Option<u32>, bytes: Option<u32>) -> Settings {
    Settings {
        messages_per_second_max: messages.and_then(NonZeroU32::new),
        bytes_per_second_max: bytes.and_then(NonZeroU32::new),
        ..settings()
    }
}

#[test]
fn a_client_that_is_too_fast_is_read_later_and_loses_nothing() {
    everywhere(&slow(Some(10), None), |world| {
        let reader = world.client("r").connect();
        reader.subscribe("t", 0);
        let publisher = world.client("p").from(ELSEWHERE).keep_alive(2).connect();
        // A second's worth is taken, and what came with the same read; then nothing for a while.
        publisher.send_bytes(&(0..15).flat_map(|number| packet(&number.to_string())).collect::<Vec<u8>>());
        world.run();
        publisher.send_bytes(&packet("15"));
        publisher.send(&Packet::PingReq);
        world.run();
        let mut got = reader.messages();
        assert!((10..16).contains(&got.len()) && world.counters().reads_paused >= 1, "{got:?}");
        assert!(world.events().iter().any(|event| matches!(
            event,
            Event::Paused { client_id, cause: Cause::Setting { key: "messages_per_second_max", value: 10 }, .. }
                if client_id.starts_with("p-")
        )));
        world.seconds(1);
        got.extend(reader.messages());
        let payloads: Vec<_> = got.iter().map(|message| message.payload.parse::<u32>().unwrap()).collect();
        assert_eq!(payloads, (0..16).collect::<Vec<_>>());
        world.seconds(1);
        publisher.expect(&Received::PingResp);
        // Nobody else has to wait for it.
        assert!(!publisher.is_closed());
    });
}

#[test]
fn bytes_have_a_rate_too_and_a_paused_client_is_not_taken_for_silent() {
    everywhere(&slow(None, Some(100)), |world| {
        let publisher = world.client("p").from(ELSEWHERE).keep_alive(1).connect();
        publisher.send_publish(&Pub::new("t", &"x".repeat(1_000)));
        world.run();
        // Ten seconds for a thousand bytes, less the one it may be ahead.
        for _ in 0..8 {
            publisher.send(&Packet::PingReq);
            world.seconds(1);
        }
        assert!(!publisher.is_closed());
        assert!(world.counters().reads_paused >= 1);
        world.seconds(2);
        publisher.expect(&Received::PingResp);
        world.seconds(4);
        assert_eq!(world.counters().keep_alive_timeouts, 1);
    });
}

#[test]
fn within_its_rate_a_client_is_never_paused() {
    everywhere(&slow(Some(10), Some(10_000)), |world| {
        let publisher = world.client("p").from(ELSEWHERE).connect();
        for _ in 0..100 {
            publisher.publish("t", 1, "x");
            world.millis(100);
        }
        assert_eq!((world.counters().reads_paused, world.counters().publish_received), (0, 100));
    });
}

#[test]
fn clients_of_this_machine_have_no_rate() {
    everywhere(&slow(Some(10), Some(1_000)), |world| {
        let clients = [
            world.client("by a Unix socket").connect(),
            world.client("by IPv4").from("127.0.0.9").connect(),
            world.client("by IPv6").from("::1").connect(),
        ];
        for client in clients {
            client.send_bytes(&(0..1_000).flat_map(|number| packet(&number.to_string())).collect::<Vec<u8>>());
            client.send(&Packet::PingReq);
            world.run();
            client.expect(&Received::PingResp);
        }
        assert_eq!((world.counters().reads_paused, world.counters().publish_received), (0, 3_000));
    });
}

#[test]
fn clients_of_a_listener_have_a_rate_of_its_own() {
    let at = |messages, bytes| ListenerSettings {
        messages_per_second_max: messages,
        bytes_per_second_max: bytes,
        ..settings().listeners[0].clone()
    };
    let (as_elsewhere, unlimited) = (ListenerRate::AsElsewhere, ListenerRate::Unlimited);
    let per_second = |max| ListenerRate::PerSecond(NonZeroU32::new(max).unwrap());
    let listeners = vec![
        at(as_elsewhere, as_elsewhere),
        at(unlimited, as_elsewhere),
        at(per_second(100), unlimited),
        at(as_elsewhere, per_second(30)),
    ];
    let all = Settings { listeners, ..slow(Some(10), None) };
    let is_paused = |world: &World, publisher: &Peer, count: usize| {
        let before = world.counters().reads_paused;
        publisher.send_bytes(&packet("x").repeat(count));
        world.run();
        let paused = world.counters().reads_paused - before;
        world.seconds(60);
        paused > 0
    };
    everywhere(&all, |world| {
        let publishers: Vec<Peer> =
            (0..4).map(|at| world.client(&format!("p{at}")).from(ELSEWHERE).at(at).connect()).collect();
        for (publisher, count, paused) in [
            (0, 9, false),
            (0, 15, true),
            // Its own limit is none.
            (1, 1_000, false),
            // More than elsewhere.
            (2, 90, false),
            (2, 150, true),
            // A limit of bytes where others have none; that of messages is as elsewhere.
            (3, 4, false),
            (3, 9, true),
        ] {
            drop(world.events());
            assert_eq!(is_paused(world, &publishers[publisher], count), paused, "{publisher} {count}");
            let said = world.events().iter().find_map(|event| match event {
                Event::Paused { cause, .. } => Some(cause.to_string()),
                _ => None,
            });
            let expected = [
                "messages_per_second_max is 10",
                "",
                "messages_per_second_max of the listener is 100",
                "bytes_per_second_max of the listener is 30",
            ];
            assert_eq!(said.as_deref(), paused.then_some(expected[publisher]));
        }
    });
}

/// Other rates hold for clients that are connected as well: nobody was told of them.
#[test]
fn other_rates_of_a_listener_hold_at_once() {
    let with = |rate| {
        let listener = ListenerSettings { messages_per_second_max: rate, ..settings().listeners[0].clone() };
        Settings { listeners: vec![listener], ..slow(None, None) }
    };
    everywhere(&with(ListenerRate::AsElsewhere), |world| {
        let publisher = world.client("p").from(ELSEWHERE).connect();
        for (rate, paused) in [
            (ListenerRate::AsElsewhere, false),
            (ListenerRate::PerSecond(NonZeroU32::new(10).unwrap()), true),
            (ListenerRate::Unlimited, false),
        ] {
            world.reconfigure(&with(rate));
            let before = world.counters().reads_paused;
            publisher.send_bytes(&packet("x").repeat(50));
            world.run();
            world.seconds(60);
            assert_eq!(world.counters().reads_paused > before, paused, "{rate:?}");
        }
    });
}

/// What is in force where nothing is said: an honest fleet does not meet it, a flood does.
#[test]
fn by_default_a_flood_is_read_later() {
    everywhere(&settings(), |world| {
        let publisher = world.client("p").from(ELSEWHERE).connect();
        let flood = packet("x").repeat(10_000);
        for _ in 0..9 {
            publisher.send_bytes(&flood);
            world.run();
        }
        assert_eq!(world.counters().reads_paused, 0);
        for _ in 0..2 {
            publisher.send_bytes(&flood);
            world.run();
        }
        assert!(world.events().iter().any(|event| matches!(
            event,
            Event::Paused { cause: Cause::Setting { key: "messages_per_second_max", value: 100_000 }, .. }
        )));
        world.seconds(2);
        assert_eq!(world.counters().publish_received, 110_000);
        // Large messages have the other limit, of 64 MiB.
        let large = world.client("l").from(ELSEWHERE).connect();
        for _ in 0..68 {
            large.send_publish(&Pub::new("t", &"x".repeat(1_000_000)));
            world.run();
        }
        assert!(world.events().iter().any(|event| matches!(
            event,
            Event::Paused { cause: Cause::Setting { key: "bytes_per_second_max", value: 67_108_864 }, .. }
        )));
    });
}

/// A connection begins with a rate of its own, whoever had its place before.
#[test]
fn a_debt_ends_with_its_connection() {
    everywhere(&slow(Some(10), None), |world| {
        for _ in 0..5 {
            let publisher = world.client("p").from(ELSEWHERE).connect();
            publisher.send_bytes(&packet("x").repeat(10));
            publisher.send(&Packet::PingReq);
            world.run();
            publisher.expect(&Received::PingResp);
            publisher.lose();
            world.run();
        }
        assert_eq!(world.counters().reads_paused, 0);
    });
}

#[test]
fn two_clients_with_one_name_do_not_go_on_for_ever() {
    let settings = Settings { takeovers_per_second_max: NonZeroU32::new(3), ..settings() };
    everywhere(&settings, |world| {
        let mut last = world.client("twin").connect();
        for _ in 0..3 {
            last = world.client("twin").connect();
        }
        let (refused, answer) = world.client("twin").try_connect();
        assert!(
            matches!(answer, Some(Received::ConnAck { code: ReasonCode::ConnectionRateExceeded, .. })),
            "{answer:?}"
        );
        assert!(refused.is_closed());
        assert!(!last.is_closed());
        assert_eq!((world.counters().takeovers_refused, world.counters().sessions_taken_over), (1, 3));
        // Others are let in, and in the next second the twin is.
        world.client("other").connect();
        world.seconds(2);
        world.client("twin").connect();
        assert!(last.is_closed());
    });
}

#[test]
fn who_may_not_take_over_keeps_nobody_from_coming_back() {
    let settings = Settings { takeovers_per_second_max: NonZeroU32::new(2), ..secured() };
    everywhere(&settings, |world| {
        world.set_authenticator(verify);
        world.client("a").user("ann").connect();
        for _ in 0..5 {
            world.client("a").user("ann").password("wrong").refused(ReasonCode::BadUserNameOrPassword);
            world.client("a").user("eve").refused(ReasonCode::NotAuthorized);
        }
        // Each is one, though its CONNECT is taken up twice.
        world.client("a").user("ann").connect();
        world.client("a").user("ann").connect();
        world.client("a").user("ann").refused(ReasonCode::ConnectionRateExceeded);
        let counters = world.counters();
        assert_eq!((counters.takeovers_refused, counters.sessions_taken_over), (1, 2));
        assert_eq!((counters.connect_received, counters.other_packets_received), (14, 14));
    });
}

#[test]
fn short_of_memory_nobody_new_is_let_in_and_queues_shed_what_nobody_was_promised() {
    let settings = Settings { queue_qos0_messages: true, ..settings() };
    everywhere(&settings, |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 1);
        peer.lose();
        let publisher = world.client("p").connect();
        publisher.publish("t", 0, "before");
        publisher.publish("t", 1, "promised");
        world.memory_short(true);
        world.shed();
        publisher.publish("t", 0, "meanwhile");
        publisher.publish("t", 1, "promised too");
        assert_eq!(world.counters().dropped_memory_short, 2);
        let (_, answer) = world.client("new").try_connect();
        assert!(matches!(answer, Some(Received::ConnAck { code: ReasonCode::QuotaExceeded, .. })), "{answer:?}");
        assert_eq!(world.counters().connects_memory_short, 1);
        world.memory_short(false);
        publisher.publish("t", 0, "after");
        let got: Vec<_> = a.resume().take_everything().into_iter().map(|message| message.payload).collect();
        assert_eq!(got.len(), 3, "{got:?}");
        for expected in ["promised", "promised too", "after"] {
            assert!(got.iter().any(|payload| payload == expected), "{got:?}");
        }
    });
}

/// A PUBLISH packet at QoS 0 of MQTT 5.
fn packet(payload: &str) -> Vec<u8> {
    let mut packet = vec![0x30, 4 + payload.len() as u8, 0, 1, b't', 0];
    packet.extend_from_slice(payload.as_bytes());
    packet
}
