//! Retained Messages: kept, replaced, deleted, expired, replayed, and in order with what comes live.

use pantala_broker::Settings;
use pantala_proto::RetainHandling;

use crate::support::{Chance, Note, Pub, Received, Sub, World, everywhere, settings};

#[test]
fn a_new_subscription_gets_what_was_retained_last() {
    everywhere(&settings(), |world| {
        let publisher = world.client("p").connect();
        for (topic, payload) in [("r/a", "1"), ("r/b", "2"), ("r/a", "3"), ("r/c", "4"), ("r/c", ""), ("s", "5")] {
            publisher.retain(topic, 1, payload);
        }
        publisher.publish("r/b", 1, "live only");
        let a = world.client("a").connect();
        a.subscribe("r/+", 2);
        let mut got = a.take_everything();
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        let got: Vec<_> = got.iter().map(|m| (&*m.topic, &*m.payload, m.qos, m.retain)).collect();
        assert_eq!(got, [("r/a", "3", 1, true), ("r/b", "2", 1, true)]);
        assert_eq!(world.retained(), 3);
    });
}

#[test]
fn live_messages_carry_retain_only_as_published_for_those_who_want_it() {
    everywhere(&settings(), |world| {
        let (plain, asked) = (world.client("plain").connect(), world.client("asked").connect());
        plain.subscribe("t", 0);
        asked.subscribe_with(&Sub::new("t", 0).published_retain());
        let publisher = world.client("p").connect();
        publisher.retain("t", 0, "kept");
        publisher.publish("t", 0, "not kept");
        publisher.retain("t", 0, "");
        for (payload, retain) in [("kept", true), ("not kept", false), ("", true)] {
            assert!(!plain.take("t", payload).retain);
            assert_eq!(asked.take("t", payload).retain, retain);
        }
        assert_eq!(world.retained(), 0);
    });
}

#[test]
fn retain_handling_says_when_it_is_sent() {
    everywhere(&settings(), |world| {
        world.client("p").connect().retain("t", 0, "kept");
        let a = world.client("a").persistent().connect();
        for (handling, first, again) in [
            (RetainHandling::Send, true, true),
            (RetainHandling::SendIfNew, true, false),
            (RetainHandling::DoNotSend, false, false),
        ] {
            for expected in [first, again] {
                a.subscribe_with(&Sub::new("+", 0).handling(handling));
                assert_eq!(a.messages().len(), usize::from(expected), "{handling:?}");
            }
            a.unsubscribe("+");
        }
        a.subscribe_with(&Sub::new("$share/g/+", 0));
        a.expect_nothing();
    });
}

#[test]
fn a_retained_message_expires() {
    everywhere(&settings(), |world| {
        let publisher = world.client("p").connect();
        publisher.must_publish(&Pub::new("t", "short").qos(1).retained().expiry(10));
        publisher.retain("u", 1, "long");
        world.seconds(4);
        let a = world.client("a").connect();
        a.subscribe("t", 1);
        assert_eq!(a.take("t", "short").expiry, Some(6));
        world.millis(6_001);
        a.subscribe("t", 1);
        a.expect_nothing();
        // It is taken out of the index soon, and what does not expire stays.
        world.seconds(30);
        assert_eq!(world.retained(), 1);
        a.subscribe("u", 1);
        a.take("u", "long");
    });
}

#[test]
fn nothing_is_looked_through_while_nothing_can_expire() {
    let world = World::new(&settings(), 1, 0);
    let publisher = world.client("p").connect();
    publisher.must_publish(&Pub::new("t", "short").retained().expiry(10));
    publisher.retain("u", 0, "long");
    world.seconds(60);
    assert_eq!((world.retained(), world.wakes_at()), (1, None));
    publisher.must_publish(&Pub::new("t", "short").retained().expiry(10));
    publisher.retain("t", 0, "long");
    world.seconds(60);
    assert_eq!((world.retained(), world.wakes_at()), (2, None));
}

#[test]
fn there_are_no_more_than_the_limit_and_those_there_are_can_be_replaced() {
    let few = Settings { retained_messages_max: 2, ..settings() };
    everywhere(&few, |world| {
        let publisher = world.client("p").connect();
        for topic in ["a", "b", "c", "a"] {
            publisher.retain(topic, 1, "kept");
        }
        assert_eq!((world.retained(), world.counters().dropped_retained_full), (2, 1));
        publisher.retain("a", 1, "");
        publisher.retain("c", 1, "kept");
        assert_eq!(world.retained(), 2);
    });
}

#[test]
fn a_long_replay_waits_for_the_reader_and_goes_on() {
    let patient = Settings { write_stall_seconds: 0, ..settings() };
    everywhere(&patient, |world| {
        let publisher = world.client("p").connect();
        for number in 0..300 {
            publisher.retain(&format!("r/{number}"), 1, &"x".repeat(1_500));
        }
        for qos in [0, 1] {
            let a = world.client(&format!("a{qos}")).connect();
            a.take_only(10);
            a.send_subscribe(&Sub::new("r/#", qos));
            world.run();
            assert!(world.output_bytes() < 3 * 65_536, "{}", world.output_bytes());
            // Others are served meanwhile.
            let b = world.client(&format!("b{qos}")).connect();
            b.subscribe("r/7", 0);
            b.take("r/7", &"x".repeat(1_500));
            a.take_all();
            let mut topics: Vec<_> = a.take_everything().into_iter().map(|message| message.topic).collect();
            topics.sort_unstable();
            topics.dedup();
            assert_eq!(topics.len(), 300, "QoS {qos}: {:?}", world.counters());
        }
        assert_eq!(world.counters().dropped_queue_full_newest, 0);
    });
}

#[test]
fn a_replay_does_not_overflow_a_short_queue() {
    let short = Settings { inflight_messages_max: 2, queued_messages_max: 5, ..settings() };
    everywhere(&short, |world| {
        let publisher = world.client("p").connect();
        for number in 0..60 {
            publisher.retain(&format!("r/{number}"), 1, "kept");
        }
        let a = world.client("a").connect();
        a.subscribe("r/#", 1);
        assert_eq!(a.take_everything().len(), 60);
        assert_eq!(world.counters().dropped_queue_full_newest, 0);
    });
}

#[test]
fn a_replay_ends_with_its_subscription_and_others_go_on() {
    everywhere(&settings(), |world| {
        let publisher = world.client("p").connect();
        for number in 0..100 {
            publisher.retain(&format!("r/{number}"), 0, &"x".repeat(1_500));
            publisher.retain(&format!("s/{number}"), 0, "s");
        }
        let a = world.client("a").connect();
        a.take_only(0);
        a.send_subscribe(&Sub::new("r/#", 0));
        a.send_subscribe(&Sub::new("s/#", 0));
        world.run();
        a.send_unsubscribe("r/#");
        world.run();
        a.take_all();
        let packets = a.drain();
        let unsuback = packets.iter().position(|packet| matches!(packet, Received::UnsubAck(..))).unwrap();
        let of = |packets: &[Received], topic: &str| {
            let here = |packet: &&Received| matches!(packet, Received::Publish(m) if m.topic.starts_with(topic));
            packets.iter().filter(here).count()
        };
        assert_eq!(of(&packets[unsuback..], "r/"), 0);
        assert_eq!(of(&packets, "s/"), 100);
        assert!(of(&packets, "r/") < 100);
    });
}

#[test]
fn unsubscribing_before_suback_has_gone_out_stops_the_replay_too() {
    everywhere(&settings(), |world| {
        world.client("p").connect().retain("t", 0, "kept");
        for number in 0..4 {
            let a = world.client(&format!("a{number}")).connect();
            a.send_subscribe(&Sub::new("+", 0));
            a.send_unsubscribe("+");
            world.run();
            let packets = a.drain();
            let last = packets.iter().rposition(|packet| matches!(packet, Received::UnsubAck(..))).unwrap();
            assert_eq!(packets.len(), last + 1, "{packets:?}");
        }
    });
}

/// N8: a retained message is replaced while it is replayed. Each subscriber gets the old one, or the new one, or both in
/// order; never the new one and then an older one. And T4: once it has got one, it gets every later one.
#[test]
fn a_replay_never_goes_back_in_time_and_leaves_no_gap() {
    for workers in 1..=3 {
        for seed in 1..150 {
            let _note = Note { workers, seed };
            let world = World::new(&settings(), workers, seed);
            let mut chance = Chance::new(seed);
            let publisher = world.client(&world.name_on(chance.below(usize::from(workers)) as u8, "p"));
            // Its first message may come with its CONNECT, by way of another worker.
            let publisher = if seed % 2 == 0 { publisher.begin() } else { publisher.connect() };
            let topic = world.topic_on(chance.below(usize::from(workers)) as u8, "t");
            let others: Vec<_> = (0..3).map(|other| format!("other/{other}")).collect();
            for topic in &others {
                publisher.retain(topic, 0, "x");
            }
            let subscribers: Vec<_> = (0..5).map(|number| world.client(&format!("s{number}")).connect()).collect();
            let mut value = 0;
            let rewrite = |value: &mut u32| {
                *value += 1;
                publisher.send_publish(&Pub::new(&topic, &value.to_string()).qos((*value % 3) as u8).retained());
            };
            rewrite(&mut value);
            for (number, subscriber) in subscribers.iter().enumerate() {
                world.some(chance.below(40));
                let filter = if number % 2 == 0 { "#" } else { &topic };
                subscriber.send_subscribe(&Sub::new(filter, (number % 3) as u8).published_retain());
                for _ in 0..chance.below(4) {
                    world.some(chance.below(20));
                    rewrite(&mut value);
                }
            }
            for _ in 0..3 {
                world.some(chance.below(60));
                rewrite(&mut value);
            }
            world.run();
            for subscriber in &subscribers {
                let got = subscriber.take_everything();
                let values: Vec<u32> =
                    got.iter().filter(|m| m.topic == topic).map(|m| m.payload.parse().unwrap()).collect();
                assert!(values.is_sorted(), "{values:?}");
                let mut distinct = values.clone();
                distinct.dedup();
                let first = distinct[0];
                // Of one QoS all, in order; messages of different QoS have no order between them, but none is lost.
                assert_eq!(distinct, (first..=value).collect::<Vec<_>>());
            }
            world.end();
        }
    }
}
