//! Full queues, slow readers, and that every message is accounted for.

use pantala_broker::{Cause, Event, QueueFull, Settings, Trip};
use pantala_proto::{Packet, ReasonCode};

use crate::support::{Outcome, Pub, Received, Sub, World, everywhere, settings};

fn full(queue_full: QueueFull) -> Settings {
    Settings { inflight_messages_max: 2, queued_messages_max: 3, queue_full, ..settings() }
}

fn fill(world: &World) -> (crate::support::Client, Vec<Outcome>) {
    let a = world.client("a").persistent();
    let peer = a.connect();
    peer.subscribe("t", 1);
    peer.lose();
    let publisher = world.client("p").connect();
    (a, (0..6).map(|number| publisher.publish_with(&Pub::new("t", &number.to_string()).qos(1))).collect())
}

#[test]
fn a_full_queue_drops_the_newest() {
    everywhere(&full(QueueFull::DropNewest), |world| {
        let (a, outcomes) = fill(world);
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Acknowledged(ReasonCode::Success)));
        let got: Vec<_> = a.resume().take_everything().into_iter().map(|message| message.payload).collect();
        // An absent Session has a window too: what its client may have unacknowledged when it comes back.
        assert_eq!(got, ["0", "1", "2"]);
        assert_eq!(world.counters().dropped_queue_full_newest, 3);
    });
}

/// What was dropped was counted, and the log had no word of it.
#[test]
fn what_a_limit_costs_is_told_once_until_somebody_looks() {
    for queue_full in [QueueFull::DropNewest, QueueFull::DropOldest] {
        let settings = Settings {
            payload_bytes_max: 5,
            retained_messages_max: 1,
            subscriptions_per_session_max: 1,
            ..full(queue_full)
        };
        everywhere(&settings, |world| {
            drop(world.events());
            drop(fill(world));
            let noisy = world.client("n").connect();
            for _ in 0..2 {
                noisy.publish_with(&Pub::new("t", "too long").qos(1));
            }
            noisy.subscribe("one", 0);
            noisy.send_subscribe(&Sub::new("two", 0));
            world.run();
            for topic_name in ["r1", "r2", "r3"] {
                noisy.publish_with(&Pub::new(topic_name, "r").qos(1).retained());
            }
            world.run();
            let mut told: Vec<_> = world
                .events()
                .into_iter()
                .filter_map(|event| match event {
                    Event::Tripped { trip, client_id, cause: Cause::Setting { key, value } } => {
                        let client = client_id.map(|id| id.split('-').next().unwrap_or_default().to_owned());
                        Some((trip, client, key, value))
                    }
                    _ => None,
                })
                .collect();
            // Each worker tells of its own.
            told.dedup();
            let of = |trip: Trip| told.iter().filter(|(it, ..)| *it == trip).collect::<Vec<_>>();
            let one = |client: Option<&str>, trip, key, value| (trip, client.map(str::to_owned), key, value);
            assert_eq!(of(Trip::MessagesTo), [&one(Some("a"), Trip::MessagesTo, "queued_messages_max", 3)]);
            assert_eq!(of(Trip::MessageFrom), [&one(Some("n"), Trip::MessageFrom, "payload_bytes_max", 5)]);
            let subscription = one(Some("n"), Trip::Subscription, "subscriptions_per_session_max", 1);
            assert_eq!(of(Trip::Subscription), [&subscription]);
            assert!(of(Trip::Retained).contains(&&one(None, Trip::Retained, "retained_messages_max", 1)), "{told:?}");
            assert_eq!(world.counters().subscriptions_refused_limit, 1);
        });
    }
}

#[test]
fn a_full_queue_drops_the_oldest() {
    everywhere(&full(QueueFull::DropOldest), |world| {
        let (a, _) = fill(world);
        let got: Vec<_> = a.resume().take_everything().into_iter().map(|message| message.payload).collect();
        assert_eq!(got, ["3", "4", "5"]);
        assert_eq!(world.counters().dropped_queue_full_oldest, 3);
    });
}

#[test]
fn a_full_queue_refuses_the_publisher() {
    everywhere(&full(QueueFull::Refuse), |world| {
        let (a, outcomes) = fill(world);
        let codes: Vec<_> =
            outcomes.iter().map(|outcome| *outcome == Outcome::Acknowledged(ReasonCode::Success)).collect();
        assert_eq!(codes, [true, true, true, false, false, false]);
        assert_eq!(outcomes[5], Outcome::Acknowledged(ReasonCode::QuotaExceeded));
        let refused = world.client("q").connect();
        assert_eq!(refused.publish_with(&Pub::new("t", "x").qos(2)), Outcome::Acknowledged(ReasonCode::QuotaExceeded));
        // QoS 0 is nobody's promise.
        refused.publish("t", 0, "x");
        let v3 = world.client("v3").v3().connect();
        for qos in [1, 2] {
            assert_eq!(v3.publish_with(&Pub::new("t", "x").qos(qos).id(9)), Outcome::Withheld);
        }
        // Later answers are not held up by one that never comes.
        assert_eq!(v3.publish_with(&Pub::new("elsewhere", "x").qos(1)), Outcome::Acknowledged(ReasonCode::Success));
        v3.send(&Packet::PingReq);
        world.run();
        v3.expect(&Received::PingResp);
        assert_eq!(world.counters().dropped_queue_full_refused, 6);
        let got: Vec<_> = a.resume().take_everything().into_iter().map(|message| message.payload).collect();
        assert_eq!(got, ["0", "1", "2"]);
        // With room again what was refused is taken.
        assert_eq!(v3.publish_with(&Pub::new("t", "x").qos(2).id(9).dup()), Outcome::Acknowledged(ReasonCode::Success));
    });
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    for queue_full in [QueueFull::DropNewest, QueueFull::DropOldest] {
        let tight = Settings { queued_bytes_max: 100, queue_full, ..settings() };
        everywhere(&tight, |world| {
            let a = world.client("a").persistent();
            let peer = a.connect();
            peer.subscribe("t", 1);
            peer.lose();
            let publisher = world.client("p").connect();
            for letter in ["a", "b", "c"] {
                publisher.publish("t", 1, &letter.repeat(49));
            }
            // Larger than the whole queue: nothing makes way for it.
            publisher.publish("t", 1, &"d".repeat(100));
            let got: Vec<_> =
                a.resume().take_everything().into_iter().map(|message| message.payload[..1].to_owned()).collect();
            let (expected, counters) =
                (if queue_full == QueueFull::DropNewest { ["a", "b"] } else { ["b", "c"] }, world.counters());
            assert_eq!(got, expected);
            assert_eq!(counters.dropped_queue_full_newest + counters.dropped_queue_full_oldest, 2);
        });
    }
}

#[test]
fn what_has_expired_makes_room_first() {
    everywhere(&full(QueueFull::DropNewest), |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 1);
        peer.lose();
        let publisher = world.client("p").connect();
        publisher.publish("t", 1, "first");
        publisher.must_publish(&Pub::new("t", "short").qos(1).expiry(1));
        publisher.must_publish(&Pub::new("t", "long").qos(1).expiry(100));
        publisher.publish("t", 1, "too early");
        world.seconds(2);
        publisher.publish("t", 1, "last");
        publisher.publish("t", 1, "too late");
        let got: Vec<_> = a.resume().take_everything().into_iter().map(|message| message.payload).collect();
        assert_eq!(got, ["first", "long", "last"]);
        let counters = world.counters();
        assert_eq!((counters.dropped_expired, counters.dropped_queue_full_newest), (1, 2));
    });
}

#[test]
fn a_slow_reader_has_bounded_output_and_loses_only_qos_0() {
    let tight = Settings { outgoing_bytes_max: 10_000, write_stall_seconds: 0, ..settings() };
    everywhere(&tight, |world| {
        let (slow, quick) = (world.client("slow").connect(), world.client("quick").connect());
        for peer in [&slow, &quick] {
            peer.subscribe("t", 1);
        }
        slow.take_only(0);
        let publisher = world.client("p").connect();
        for number in 0..100 {
            publisher.publish("t", 0, &format!("{number:01000}"));
            publisher.publish("t", 1, &format!("{number:01000}"));
            assert!(world.output_bytes() < 12_000, "{}", world.output_bytes());
        }
        assert_eq!(quick.take_everything().len(), 200);
        let dropped = world.counters().dropped_outgoing_full;
        assert!(dropped > 80, "{dropped}");
        slow.take_all();
        let got = slow.take_everything();
        let of = |qos| got.iter().filter(|message| message.qos == qos).count() as u64;
        assert_eq!((of(0) + dropped, of(1)), (100, 100));
        let ones: Vec<_> =
            got.iter().filter(|message| message.qos == 1).map(|message| message.payload.clone()).collect();
        assert!(ones.is_sorted());
    });
}

#[test]
fn a_reader_that_takes_nothing_is_closed_and_one_that_takes_a_little_is_not() {
    everywhere(&settings(), |world| {
        let (stuck, slow) = (world.client("stuck").persistent().connect(), world.client("slow").connect());
        for peer in [&stuck, &slow] {
            peer.subscribe("t", 1);
            peer.take_only(0);
        }
        world.client("p").connect().publish("t", 1, &"x".repeat(50));
        for _ in 0..29 {
            world.seconds(1);
            slow.take_only(1);
        }
        world.millis(999);
        assert!(!stuck.is_closed());
        world.millis(3);
        assert!(stuck.is_closed());
        assert!(!slow.is_closed());
        world.seconds(28);
        assert!(!slow.is_closed());
        world.seconds(2);
        assert!(slow.is_closed());
        assert_eq!(world.counters().write_stalls, 2);
        // What it did not take is sent again.
        world.client("stuck").persistent().resume().take("t", &"x".repeat(50));
    });
}

#[test]
fn nothing_is_read_from_a_client_that_does_not_read_our_answers() {
    let tight = Settings { outgoing_bytes_max: 1_000, write_stall_seconds: 0, ..settings() };
    everywhere(&tight, |world| {
        let a = world.client("a").connect();
        a.take_only(0);
        for _ in 0..100 {
            for _ in 0..10 {
                a.send(&Packet::PingReq);
            }
            world.run();
        }
        assert!(a.unsent() > 0, "all was read");
        assert!(world.output_bytes() <= 1_020);
        a.take_all();
        assert_eq!((a.drain().len(), a.unsent()), (1_000, 0));
    });
}

#[test]
fn the_limit_of_connections_counts_clients_and_gives_back() {
    let few = Settings { connections_max: std::num::NonZeroU32::new(2), ..settings() };
    everywhere(&few, |world| {
        let a = world.client("a").connect();
        let _b = world.client("b").connect();
        let code = ReasonCode::QuotaExceeded;
        let refused = Some(Received::ConnAck { session_present: false, code });
        assert_eq!(world.client("c").try_connect().1, refused);
        // A client that takes its own place is not one more.
        let second = world.client("a").connect();
        a.expect_end(ReasonCode::SessionTakenOver);
        second.disconnect();
        let _c = world.client("c").connect();
        assert_eq!(world.client("a").try_connect().1, refused);
        assert_eq!(world.counters().connects_refused, 2);
    });
}

/// E2: each copy that a Session was owed was delivered, or dropped for one reason that was counted.
#[test]
fn every_message_is_delivered_or_counted() {
    for queue_full in [QueueFull::DropNewest, QueueFull::DropOldest] {
        let tight = Settings {
            inflight_messages_max: 4,
            queued_messages_max: 10,
            queued_bytes_max: 4_000,
            outgoing_bytes_max: 3_000,
            write_stall_seconds: 0,
            queue_full,
            ..settings()
        };
        everywhere(&tight, |world| {
            let names = ["absent", "slow", "small", "quick", "leaving"];
            let clients = names.map(|name| {
                let client = world.client(name).persistent();
                if name == "small" { client.packet_bytes_max(300) } else { client }
            });
            let [absent, slow, small, quick, leaving] = &clients.clone().map(|client| {
                let peer = client.connect();
                peer.subscribe("t", 2);
                peer
            });
            absent.lose();
            slow.take_only(0);
            let publisher = world.client("p").connect();
            let mut chance = crate::support::Chance::new(world.seed());
            let mut got = 0;
            let owed = 200;
            for number in 0..owed {
                let mut message = Pub::new("t", &"x".repeat(chance.below(600))).qos(number % 3);
                if chance.below(4) == 0 {
                    message = message.expiry(1 + chance.below(3) as u32);
                }
                publisher.must_publish(&message);
                if chance.below(10) == 0 {
                    world.millis(700);
                }
                for peer in [small, quick, leaving] {
                    got += peer.take_everything().len();
                }
            }
            slow.take_all();
            got += slow.take_everything().len();
            leaving.disconnect_with(ReasonCode::Success, Some(0));
            got += clients[0].resume().take_everything().len();
            let counters = world.counters();
            let dropped: u64 =
                counters.iter().filter(|(name, _)| name.starts_with("dropped_")).map(|(_, value)| value).sum();
            assert_eq!(got as u64 + dropped, u64::from(owed) * 5, "{counters:?}");
        });
    }
}
