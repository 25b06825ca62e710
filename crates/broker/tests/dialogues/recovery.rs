//! The power fails, and another broker starts on what the disk has: with any number of workers, after any time.

use std::io::ErrorKind;

use pantala_broker::Settings;
use pantala_proto::{AcknowledgementKind as Kind, ReasonCode};
use pantala_store::disk::Operation;

use crate::support::{Note, Outcome, Pub, Received, Sub, Will, World, settings};

const SUCCESS: Outcome = Outcome::Acknowledged(ReasonCode::Success);

/// Plays a dialogue before a power cut with so many workers, and goes on after it with another number.
fn across(settings: &Settings, seconds: u64, before: impl Fn(&World), after: impl Fn(&World)) {
    for workers in 1..=3 {
        for seed in 0..8 {
            let _note = Note { workers, seed };
            let world = World::new(settings, workers, seed);
            before(&world);
            let world = world.power_cut(1 + (workers + seed as u8) % 3, seconds);
            after(&world);
            world.end();
            // What has come back is written down as it was: it comes back once more.
            let again = world.power_cut(workers, 0);
            again.end();
        }
    }
}

fn payloads(messages: Vec<crate::support::Delivered>) -> Vec<String> {
    messages.into_iter().map(|message| message.payload).collect()
}

#[test]
fn a_session_comes_back_with_its_subscriptions_and_what_waited_for_it() {
    across(
        &settings(),
        0,
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("a/#", 1);
            s.subscribe("b", 2);
            s.subscribe("gone", 1);
            s.unsubscribe("gone");
            s.lose();
            let p = world.client("p").connect();
            for number in 0..10 {
                p.publish("a/x", 1, &format!("a{number}"));
                p.publish("b", 2, &format!("b{number}"));
            }
        },
        |world| {
            let s = world.client("s").persistent().resume();
            let got = payloads(s.take_everything());
            let of =
                |letter: &str| got.iter().filter(|payload| payload.starts_with(letter)).cloned().collect::<Vec<_>>();
            assert_eq!(of("a"), (0..10).map(|number| format!("a{number}")).collect::<Vec<_>>());
            assert_eq!(of("b"), (0..10).map(|number| format!("b{number}")).collect::<Vec<_>>());
            // Subscriptions work on.
            let p = world.client("p2").connect();
            p.publish("a/new", 1, "new");
            p.publish("gone", 1, "not for s");
            assert_eq!(payloads(s.take_everything()), ["new"]);
        },
    );
}

#[test]
fn what_was_acknowledged_by_the_subscriber_does_not_come_again() {
    across(
        &settings(),
        0,
        |world| {
            let s = world.client("s").persistent();
            let peer = s.connect();
            peer.subscribe("t", 1);
            let other = world.client("o").persistent().connect();
            other.subscribe("t", 1);
            other.lose();
            let p = world.client("p").connect();
            for number in 0..5 {
                p.publish("t", 1, &number.to_string());
            }
            assert_eq!(peer.take_everything().len(), 5);
        },
        |world| {
            assert_eq!(payloads(world.client("s").persistent().resume().take_everything()), [] as [&str; 0]);
            assert_eq!(world.client("o").persistent().resume().take_everything().len(), 5);
        },
    );
}

#[test]
fn an_exchange_goes_on_under_its_packet_identifier() {
    across(
        &settings(),
        0,
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("t", 2);
            let p = world.client("p").connect();
            p.publish("t", 1, "one");
            p.publish("t", 2, "two");
            p.publish("t", 2, "three");
            // The third gets as far as PUBREC.
            let messages = s.messages();
            assert_eq!(messages.len(), 3);
            let three = messages.iter().find(|message| message.payload == "three").unwrap();
            s.ack(Kind::PubRec, three.packet_id);
            world.run();
            s.expect(&Received::Ack(Kind::PubRel, three.packet_id, ReasonCode::Success));
        },
        |world| {
            let s = world.client("s").persistent().resume();
            let (one, two) = (s.expect_message("t", "one"), s.expect_message("t", "two"));
            assert_eq!([(one.packet_id, one.dup), (two.packet_id, two.dup)], [(1, true), (2, true)]);
            s.expect(&Received::Ack(Kind::PubRel, 3, ReasonCode::Success));
            // A new message takes an identifier that is free.
            world.client("p2").connect().publish("t", 2, "four");
            assert_eq!(s.messages()[0].packet_id, 4);
        },
    );
}

#[test]
fn a_message_at_qos_2_is_not_routed_again_when_its_publisher_repeats_it() {
    across(
        &settings(),
        0,
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("t", 2);
            s.lose();
            let p = world.client("p").persistent().connect();
            p.send_publish(&Pub::new("t", "once").qos(2).id(7));
            p.send_publish(&Pub::new("t", "released").qos(2).id(8));
            world.run();
            assert_eq!(p.outcome(Kind::PubRec, 7), SUCCESS);
            assert_eq!(p.outcome(Kind::PubRec, 8), SUCCESS);
            p.ack(Kind::PubRel, 8);
            world.run();
            p.expect(&Received::Ack(Kind::PubComp, 8, ReasonCode::Success));
        },
        |world| {
            let p = world.client("p").persistent().resume();
            p.send_publish(&Pub::new("t", "once").qos(2).id(7).dup());
            world.run();
            assert_eq!(p.outcome(Kind::PubRec, 7), SUCCESS);
            p.ack(Kind::PubRel, 7);
            world.run();
            p.expect(&Received::Ack(Kind::PubComp, 7, ReasonCode::Success));
            // This one was released, so its identifier names a new message.
            p.send_publish(&Pub::new("t", "new").qos(2).id(8));
            world.run();
            assert_eq!(
                payloads(world.client("s").persistent().resume().take_everything()),
                ["once", "released", "new"]
            );
        },
    );
}

#[test]
fn retained_messages_come_back_and_deleted_ones_do_not() {
    across(
        &settings(),
        0,
        |world| {
            let p = world.client("p").connect();
            for number in 0..20 {
                p.retain(&format!("r/{number}"), 1, "old");
            }
            for number in 0..10 {
                p.retain(&format!("r/{number}"), 1, "new");
            }
            for number in 5..15 {
                p.retain(&format!("r/{number}"), 1, "");
            }
        },
        |world| {
            assert_eq!(world.retained(), 10);
            let s = world.client("s").connect();
            s.subscribe("r/#", 0);
            let mut got: Vec<_> =
                s.messages().into_iter().map(|message| (message.topic, message.payload, message.retain)).collect();
            got.sort();
            let mut expected: Vec<_> = (0..5)
                .map(|number| (format!("r/{number}"), "new".to_owned(), true))
                .chain((15..20).map(|number| (format!("r/{number}"), "old".to_owned(), true)))
                .collect();
            expected.sort();
            assert_eq!(got, expected);
        },
    );
}

#[test]
fn time_goes_on_while_the_broker_does_not_run() {
    across(
        &settings(),
        100,
        |world| {
            for (name, expiry) in [("short", 50), ("long", 200)] {
                let s = world.client(name).clean(false).expiry(expiry).connect();
                s.subscribe("t", 2);
                s.lose();
            }
            let p = world.client("p").connect();
            p.must_publish(&Pub::new("t", "brief").qos(1).expiry(60));
            p.must_publish(&Pub::new("t", "brief").qos(2).expiry(60));
            p.must_publish(&Pub::new("t", "lasting").qos(1).expiry(160));
        },
        |world| {
            world.millis(10);
            world.client("short").persistent().connect();
            let messages = world.client("long").persistent().resume().take_everything();
            assert_eq!(messages.len(), 1);
            assert_eq!(messages[0].payload, "lasting");
            assert!(messages[0].expiry.is_some_and(|seconds| (58..=60).contains(&seconds)), "{:?}", messages[0].expiry);
        },
    );
}

/// What was recorded last may be older than the end of the process, and a Session counted from there ended too early.
#[test]
fn a_session_that_was_connected_is_kept_for_its_interval_after_the_crash() {
    across(
        &settings(),
        9,
        |world| {
            let _connected = world.client("s").clean(false).expiry(10).connect();
            let _gone = world.client("other").clean(false).expiry(4).connect();
            world.seconds(1);
        },
        |world| {
            world.millis(10);
            world.client("s").clean(false).expiry(10).resume();
            world.client("other").clean(false).expiry(10).connect();
        },
    );
}

#[test]
fn a_will_is_published_once_after_the_start_unless_its_client_is_back() {
    across(
        &settings(),
        0,
        |world| {
            let watcher = world.client("w").persistent().connect();
            watcher.subscribe("will/#", 1);
            for name in ["stays", "returns", "leaves"] {
                let peer = world.client(name).persistent().will(Will::new(&format!("will/{name}"), "dead")).connect();
                if name == "leaves" {
                    peer.disconnect();
                }
            }
        },
        |world| {
            let watcher = world.client("w").persistent().resume();
            let _returned = world.client("returns").persistent().resume();
            watcher.expect_nothing();
            world.seconds(11);
            assert_eq!(payloads(watcher.take_everything()), ["dead"]);
            let after = world.power_cut(2, 0);
            after.seconds(30);
            // Again once: that of the client which was connected without one has none, the other has gone out.
            assert_eq!(payloads(after.client("w").persistent().resume().take_everything()), [] as [&str; 0]);
        },
    );
}

/// Clients whose Sessions end with their connections have Wills too, and these do not end with the process.
#[test]
fn the_will_of_a_session_that_ended_with_the_process_is_published_once() {
    for (qos, retain) in [(0, false), (1, false), (2, true)] {
        across(
            &settings(),
            0,
            |world| {
                world.client("w").persistent().connect().subscribe("will/#", 1);
                let names = ["stays", "old", "returns", "persists", "leaves", "lost", "taken-over"];
                for (name, number) in names.iter().zip(0..) {
                    let will = Will { qos, retain, ..Will::new(&format!("will/{name}"), name) };
                    let client = world.client(name).clean(true).will(will);
                    let peer = if number == 1 { client.v3().connect() } else { client.connect() };
                    match *name {
                        "leaves" => peer.disconnect(),
                        "lost" => peer.lose(),
                        // The newer one has no Will, and the older one's goes out now.
                        "taken-over" => drop(world.client(name).clean(true).connect()),
                        _ => {}
                    }
                }
            },
            |world| {
                let watcher = world.client("w").persistent().resume();
                let mut before = payloads(watcher.take_everything());
                before.sort();
                assert_eq!(before, if qos == 0 { vec![] } else { vec!["lost", "taken-over"] });
                // Whoever is back within ten seconds was never away. What is left is no Session to go on with.
                world.client("returns").clean(true).connect();
                let persists = world.client("persists").clean(false).expiry(1_000);
                persists.connect_with(false);
                watcher.expect_nothing();
                world.seconds(11);
                let mut after = payloads(watcher.take_everything());
                after.sort();
                assert_eq!(after, ["old", "stays"], "QoS {qos}");
                assert_eq!(world.sessions(), 3);
                let again = world.power_cut(2, 0);
                again.seconds(30);
                let watcher = again.client("w").persistent().resume();
                assert_eq!(payloads(watcher.take_everything()), [] as [&str; 0]);
            },
        );
    }
}

/// A stop of the broker is no end of its clients: their Wills wait for them as after any other end of the process.
#[test]
fn wills_go_on_after_a_stop() {
    across(
        &settings(),
        0,
        |world| {
            world.client("w").persistent().connect().subscribe("will", 1);
            world.client("a").clean(true).will(Will { qos: 1, ..Will::new("will", "dead") }).connect();
            world.shut_down();
        },
        |world| {
            let watcher = world.client("w").persistent().resume();
            watcher.expect_nothing();
            world.seconds(11);
            assert_eq!(payloads(watcher.take_everything()), ["dead"]);
        },
    );
}

#[test]
fn shared_subscriptions_come_back_and_a_message_goes_to_one_member_still() {
    across(
        &settings(),
        0,
        |world| {
            for name in ["m1", "m2", "m3"] {
                let m = world.client(name).persistent().connect();
                m.subscribe("$share/g/t", 1);
                m.lose();
            }
            let p = world.client("p").connect();
            for number in 0..9 {
                p.publish("t", 1, &number.to_string());
            }
            // What it had goes to the others.
            world.client("m3").connect().disconnect();
        },
        |world| {
            let mut got = Vec::new();
            for name in ["m1", "m2"] {
                got.extend(payloads(world.client(name).persistent().resume().take_everything()));
            }
            got.sort();
            assert_eq!(got, (0..9).map(|number| number.to_string()).collect::<Vec<_>>());
            // And one that ends after the start hands on what it has got.
            world.client("m1").clean(true).connect().disconnect();
            let m2 = world.client("m2").persistent();
            m2.connect_with(true).lose();
            let p = world.client("p2").connect();
            p.publish("t", 1, "only m2 is left");
            assert_eq!(payloads(m2.resume().take_everything()), ["only m2 is left"]);
        },
    );
}

/// Once one of the two copies was settled, both counted as settled, and the other was lost with the process.
#[test]
fn a_session_that_gets_a_message_by_itself_and_by_a_group_is_owed_both() {
    let one_at_a_time = Settings { inflight_messages_max: 1, ..settings() };
    across(
        &one_at_a_time,
        0,
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("t", 1);
            s.subscribe("$share/g/t", 1);
            // Somebody else is owed it too, so that the message stays.
            let o = world.client("o").persistent().connect();
            o.subscribe("t", 1);
            o.lose();
            s.lose();
            world.client("p").connect().publish("t", 1, "twice");
            let s = world.client("s").persistent().resume();
            s.take("t", "twice");
        },
        |world| {
            assert_eq!(payloads(world.client("s").persistent().resume().take_everything()), ["twice"]);
            assert_eq!(payloads(world.client("o").persistent().resume().take_everything()), ["twice"]);
        },
    );
}

/// The copies of groups had numbers of eight bits, and these two the same: with one settled, both were.
#[test]
fn a_session_that_gets_a_message_by_two_groups_is_owed_both() {
    let one_at_a_time = Settings { inflight_messages_max: 1, ..settings() };
    across(
        &one_at_a_time,
        0,
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("$share/g5/t", 1);
            s.subscribe("$share/g20/t", 1);
            let o = world.client("o").persistent().connect();
            o.subscribe("t", 1);
            o.lose();
            s.lose();
            world.client("p").connect().publish("t", 1, "twice");
            world.client("s").persistent().resume().take("t", "twice");
        },
        |world| {
            assert_eq!(payloads(world.client("s").persistent().resume().take_everything()), ["twice"]);
        },
    );
}

#[test]
fn a_session_that_was_cleaned_leaves_nothing_to_its_successor() {
    across(
        &settings(),
        0,
        |world| {
            let s = world.client("s").persistent();
            let peer = s.connect();
            peer.subscribe("t", 1);
            peer.lose();
            world.client("p").connect().publish("t", 1, "for the first");
            world.client("s").clean(true).expiry(1_000).connect();
        },
        |world| {
            let peer = world.client("s").persistent().resume();
            peer.expect_nothing();
            world.client("p").connect().publish("t", 1, "nobody");
            peer.expect_nothing();
        },
    );
}

#[test]
fn subscription_identifiers_and_options_come_back() {
    across(
        &settings(),
        0,
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe_with(&Sub::new("a/#", 1).identifier(7).published_retain());
            s.subscribe_with(&Sub::new("a/b", 1).identifier(9));
            s.subscribe_with(&Sub::new("own", 1).no_local());
            s.lose();
            world.client("p").connect().publish("a/b", 1, "waited");
        },
        |world| {
            let s = world.client("s").persistent().resume();
            let waited = s.take("a/b", "waited");
            let mut identifiers = waited.identifiers;
            identifiers.sort_unstable();
            assert_eq!(identifiers, [7, 9]);
            s.publish("own", 1, "no echo");
            s.expect_nothing();
            world.client("p").connect().must_publish(&Pub::new("a/c", "kept").qos(1).retained());
            assert!(s.take("a/c", "kept").retain);
        },
    );
}

#[test]
fn with_the_disk_full_what_would_be_kept_is_refused_and_all_else_goes_on() {
    for workers in 1..=2 {
        let _note = Note { workers, seed: 0 };
        let world = World::new(&settings(), workers, 0);
        let s = world.client("s").persistent().connect();
        s.subscribe("kept", 1);
        s.lose();
        let live = world.client("live").connect();
        live.subscribe("#", 1);
        let (v5, v3) = (world.client("v5").connect(), world.client("v3").v3().connect());
        v5.publish("kept", 1, "before");
        world.disk().full(Some(world.disk().bytes()));
        // What is prepared is used up first. The message that there is no room for was accepted in good faith: its answer waits.
        let fits = |number: &usize| {
            v5.send_publish(&Pub::new("kept", &format!("{number:0>200}")).qos(1).id(9));
            world.run();
            live.take_everything();
            let answer = v5.take_first(|answer| matches!(answer, Received::Ack(..)));
            assert!(answer.is_none() || answer == Some(Received::Ack(Kind::PubAck, 9, ReasonCode::Success)));
            answer.is_some()
        };
        let fitting = (0..2_000).take_while(fits).count();
        assert!((1..2_000).contains(&fitting), "the disk is full some time");
        let waiting = v5;
        let v5 = world.client("another").connect();
        // Before MQTT 5 it cannot be told, and its connection ends.
        assert_eq!(v3.publish_with(&Pub::new("kept", "x").qos(1)), Outcome::Withheld);
        assert!(v3.is_closed());
        assert_eq!(
            v5.publish_with(&Pub::new("kept", "x").qos(1).retained()),
            Outcome::Acknowledged(ReasonCode::QuotaExceeded)
        );
        // A Session that would be kept cannot be promised; a client that wants none is let in.
        let unavailable = |answer: Option<Received>| {
            matches!(answer, Some(Received::ConnAck { code: ReasonCode::ServerUnavailable, .. }))
        };
        assert!(unavailable(world.client("new").persistent().try_connect().1));
        assert!(unavailable(world.client("s").persistent().try_connect().1));
        world.client("passing").connect().disconnect();
        live.take_everything();
        v5.publish("elsewhere", 1, "for nobody who is away");
        live.take("elsewhere", "for nobody who is away");
        // There is room again: what waits is acknowledged, and nothing of it is lost.
        world.disk().full(None);
        world.sync();
        waiting.expect(&Received::Ack(Kind::PubAck, 9, ReasonCode::Success));
        live.take_everything();
        v5.publish("kept", 1, "after");
        let after = world.power_cut(workers, 0);
        let got = payloads(after.client("s").persistent().resume().take_everything());
        assert_eq!(got.first().map(String::as_str), Some("before"));
        assert_eq!(got.last().map(String::as_str), Some("after"));
        assert_eq!(got.len(), fitting + 3);
        after.end();
    }
}

/// What was refused got no answer, and later messages were taken when there was room again: it came behind them when the client
/// sent it once more.
#[test]
fn a_client_that_cannot_be_told_of_a_full_disk_keeps_its_order() {
    for (workers, qos) in [(1, 1), (2, 1), (1, 2), (3, 2)] {
        let _note = Note { workers, seed: 0 };
        let world = World::new(&settings(), workers, 0);
        let s = world.client("s").persistent().connect();
        s.subscribe("kept", 2);
        s.lose();
        let (v3, filler) = (world.client("v3").v3(), world.client("filler").connect());
        let p = v3.connect();
        world.disk().full(Some(world.disk().bytes()));
        let fits = |number: &usize| {
            filler.send_publish(&Pub::new("kept", &format!("{number:0>200}")).qos(1).id(9));
            world.run();
            filler.take_first(|answer| matches!(answer, Received::Ack(..))).is_some()
        };
        let fitting = (0..2_000).take_while(fits).count();
        // Together, as a client with a window sends them: the first one ends the connection, and nobody looks at the second.
        p.send_publish(&Pub::new("kept", "one").qos(qos).id(1));
        p.send_publish(&Pub::new("elsewhere", "for nobody").qos(qos).id(2));
        world.run();
        p.expect_nothing();
        assert!(p.is_closed());
        let counters = world.counters();
        let (closed, refused) = (counters.closed_store_refused, counters.dropped_store_refused);
        assert_eq!((closed, refused, counters.protocol_errors), (1, 1, 0));
        world.disk().full(None);
        world.sync();
        let p = v3.connect();
        p.must_publish(&Pub::new("kept", "one").qos(qos).id(1).dup());
        p.must_publish(&Pub::new("kept", "two").qos(qos).id(2));
        let got = payloads(world.client("s").persistent().resume().take_everything());
        assert_eq!(got[fitting + 1..], ["one", "two"]);
        world.end();
    }
}

#[test]
fn after_a_sync_that_failed_nothing_is_acknowledged_any_more() {
    let world = World::new(&settings(), 1, 3);
    let s = world.client("s").persistent().connect();
    s.subscribe("kept", 1);
    s.lose();
    let p = world.client("p").connect();
    p.publish("kept", 1, "safe");
    world.disk().fail_at(Operation::Sync, world.disk().counts().syncs + 1, ErrorKind::Other);
    p.send_publish(&Pub::new("kept", "perhaps").qos(1).id(1));
    world.run();
    p.expect_nothing();
    // It is known now, so what follows is refused at once; and behind the answer that is held nothing overtakes.
    p.send_publish(&Pub::new("kept", "refused").qos(1).id(2));
    world.run();
    p.expect_nothing();
    let q = world.client("q").connect();
    assert_eq!(q.publish_with(&Pub::new("kept", "x").qos(1)), Outcome::Acknowledged(ReasonCode::QuotaExceeded));
    q.publish("elsewhere", 1, "goes on");
    let after = world.power_cut(1, 0);
    let got = payloads(after.client("s").persistent().resume().take_everything());
    assert!(got == ["safe"] || got == ["safe", "perhaps"], "{got:?}");
}
