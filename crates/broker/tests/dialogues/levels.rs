//! Durability by Topic Filter: what is worth less than the broker's own level.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use pantala_broker::{DurabilityRule, Settings};
use pantala_proto::{AcknowledgementKind as Kind, ReasonCode};
use pantala_store::Durability;
use pantala_store::disk::Operation;

use crate::support::{Chance, Delivered, Note, Outcome, Peer, Pub, Received, Will, World, everywhere_kept, settings};

const SUCCESS: Outcome = Outcome::Acknowledged(ReasonCode::Success);

fn with_rules(rules: &[(&str, Durability)]) -> Settings {
    let rule = |(filter, level): &(&str, Durability)| DurabilityRule { filter: (*filter).to_owned(), level: *level };
    Settings { durability_rules: rules.iter().map(rule).collect(), ..settings() }
}

/// `m/#` in memory, `o/#` with the operating system.
fn rules() -> Settings {
    with_rules(&[("m/kept", Durability::Os), ("m/#", Durability::Memory), ("o/#", Durability::Os)])
}

fn payloads(messages: Vec<Delivered>) -> Vec<String> {
    messages.into_iter().map(|message| message.payload).collect()
}

fn ack(kind: Kind, number: u16) -> Received {
    Received::Ack(kind, number, ReasonCode::Success)
}

/// Plays a dialogue before a power cut with so many workers, and goes on after it with another number.
fn across(before: impl Fn(&World), after: impl Fn(&World)) {
    for workers in 1..=3 {
        for seed in 0..6 {
            let _note = Note { workers, seed };
            let world = World::new(&rules(), workers, seed);
            before(&world);
            let world = world.power_cut(1 + (workers + seed as u8) % 3, 0);
            after(&world);
            world.end();
        }
    }
}

#[test]
fn what_is_kept_in_memory_only_is_acknowledged_at_once_and_delivered_all_the_same() {
    everywhere_kept(&rules(), |world| {
        let s = world.client("s").persistent();
        let peer = s.connect();
        peer.subscribe("m/#", 2);
        peer.subscribe("kept", 1);
        peer.lose();
        let p = world.client("p").persistent().connect();
        world.delay_stores();
        let written = world.disk().counts().writes;
        // Whole exchanges, without a word from the store.
        p.publish("m/x", 1, "one");
        p.publish("m/x", 2, "two");
        p.retain("m/retained", 1, "three");
        // A repeat waits for nothing either.
        p.send_publish(&Pub::new("m/x", "four").qos(2).id(9));
        p.send_publish(&Pub::new("m/x", "four").qos(2).id(9).dup());
        world.run();
        p.expect(&ack(Kind::PubRec, 9));
        p.expect(&ack(Kind::PubRec, 9));
        p.ack(Kind::PubRel, 9);
        world.run();
        p.expect(&ack(Kind::PubComp, 9));
        world.sync();
        assert_eq!(world.disk().counts().writes, written, "nothing of it is written");
        // The first rule that matches counts, and what none matches is as safe as ever.
        p.send_publish(&Pub::new("kept", "five").qos(1).id(10));
        world.run();
        p.expect_nothing();
        world.stop_delaying();
        p.expect(&ack(Kind::PubAck, 10));
        assert_eq!(payloads(s.resume().take_everything()), ["one", "two", "three", "four", "five"]);
        let fresh = world.client("fresh").persistent().connect();
        fresh.subscribe("m/#", 1);
        assert_eq!(payloads(fresh.take_everything()), ["three"]);
    });
}

#[test]
fn after_a_power_cut_they_are_gone_and_all_else_is_there() {
    across(
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("#", 2);
            s.lose();
            let p = world.client("p").persistent().connect();
            for number in 0..5 {
                p.publish("m/x", 1 + number % 2, "gone");
                p.publish("k", 1 + number % 2, &number.to_string());
            }
            p.retain("m/retained", 1, "gone");
            p.retain("k/retained", 1, "kept");
        },
        |world| {
            assert_eq!(world.retained(), 1);
            let got = payloads(world.client("s").persistent().resume().take_everything());
            assert_eq!(got, ["0", "1", "2", "3", "4", "kept"]);
        },
    );
}

/// Were its Packet Identifier free after the crash, the next message would get it, and a client that has answered PUBREC would
/// take that one for a repeat.
#[test]
fn an_exchange_with_a_subscriber_keeps_its_packet_identifier_across_a_crash() {
    across(
        |world| {
            let s = world.client("s").persistent().connect();
            s.subscribe("#", 2);
            let p = world.client("p").connect();
            world.delay_stores();
            p.publish("m/x", 2, "answered");
            p.publish("m/x", 2, "sent");
            p.publish("m/x", 2, "over");
            // Not before it is known that the identifiers are in use.
            s.expect_nothing();
            world.sync();
            world.sync();
            let numbers: Vec<u16> = s.messages().iter().map(|message| message.packet_id).collect();
            assert_eq!(numbers, [1, 2, 3]);
            for number in [1, 3] {
                s.ack(Kind::PubRec, number);
                world.run();
                s.expect(&ack(Kind::PubRel, number));
            }
            s.ack(Kind::PubComp, 3);
            world.stop_delaying();
        },
        |world| {
            let s = world.client("s").persistent().resume();
            s.expect(&ack(Kind::PubRel, 1));
            s.expect(&ack(Kind::PubRel, 2));
            s.expect_nothing();
            s.ack(Kind::PubComp, 1);
            let unknown = Received::Ack(Kind::PubRel, 3, ReasonCode::PacketIdentifierNotFound);
            s.ack(Kind::PubRec, 3);
            world.run();
            s.expect(&unknown);
            world.client("p2").connect().publish("k", 2, "new");
            let new = s.take("k", "new");
            assert!(![1, 2].contains(&new.packet_id), "{new:?}");
        },
    );
}

#[test]
fn queued_messages_at_qos_2_wait_for_their_packet_identifiers() {
    everywhere_kept(&rules(), |world| {
        let s = world.client("s").persistent();
        let peer = s.connect();
        peer.subscribe("m/#", 2);
        peer.lose();
        let p = world.client("p").connect();
        (0..3).for_each(|number| p.publish("m/x", 2, &number.to_string()));
        world.delay_stores();
        let peer = s.begin();
        world.run();
        peer.expect_nothing();
        world.sync();
        world.sync();
        let numbers: Vec<u16> = peer.messages().iter().map(|message| message.packet_id).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let after = world.power_cut(world.workers(), 0);
        let peer = after.client("s").persistent().resume();
        (1..=3).for_each(|number| peer.expect(&ack(Kind::PubRel, number)));
        peer.expect_nothing();
    });
}

#[test]
fn the_exchange_of_a_publisher_is_unknown_after_a_crash_and_can_be_ended() {
    across(
        |world| {
            let p = world.client("p").persistent().connect();
            for (number, topic) in [(7, "m/x"), (8, "k")] {
                p.send_publish(&Pub::new(topic, "begun").qos(2).id(number));
                world.run();
                p.expect(&Received::Ack(Kind::PubRec, number, ReasonCode::NoMatchingSubscribers));
            }
        },
        |world| {
            let p = world.client("p").persistent().resume();
            p.ack(Kind::PubRel, 7);
            p.ack(Kind::PubRel, 8);
            world.run();
            p.expect(&Received::Ack(Kind::PubComp, 7, ReasonCode::PacketIdentifierNotFound));
            p.expect(&ack(Kind::PubComp, 8));
        },
    );
}

#[test]
fn a_retained_message_from_before_the_rule_never_comes_back_over_a_newer_one() {
    for workers in 1..=3 {
        for seed in 0..8 {
            let _note = Note { workers, seed };
            let world = World::new(&settings(), workers, seed);
            let p = world.client("p").connect();
            (0..4).for_each(|number| p.retain(&format!("m/{number}"), 1, "old"));
            let world = World::start(&rules(), workers, seed, world.disk(), world.now());
            // While there is no newer one it stays, however often the broker is started.
            let world = world.power_cut(workers, 0);
            let p = world.client("p").connect();
            world.delay_stores();
            // Replaced, removed, and replaced by one that is not acknowledged.
            p.send_publish(&Pub::new("m/0", "new").qos(1).id(1).retained());
            p.send_publish(&Pub::new("m/1", "").qos(1).id(2).retained());
            world.run();
            p.expect_nothing();
            let cut = world.power_cut(workers, 0);
            let s = cut.client("s").connect();
            s.subscribe("m/#", 1);
            assert_eq!(payloads(s.take_everything()), ["old"; 4], "nothing has been acknowledged");
            world.sync();
            p.expect(&Received::Ack(Kind::PubAck, 1, ReasonCode::NoMatchingSubscribers));
            p.expect(&Received::Ack(Kind::PubAck, 2, ReasonCode::NoMatchingSubscribers));
            // From here on it waits for nothing.
            p.send_publish(&Pub::new("m/0", "newer").qos(1).id(3).retained());
            world.run();
            p.expect(&Received::Ack(Kind::PubAck, 3, ReasonCode::NoMatchingSubscribers));
            let s = world.client("s").connect();
            s.subscribe("m/#", 0);
            let mut got = payloads(s.take_everything());
            got.sort();
            assert_eq!(got, ["newer", "old", "old"]);
            let cut = world.power_cut(workers, 0);
            let s = cut.client("s").connect();
            s.subscribe("m/#", 0);
            let mut topics: Vec<_> = s.take_everything().into_iter().map(|message| message.topic).collect();
            topics.sort();
            assert_eq!(topics, ["m/2", "m/3"]);
        }
    }
}

#[test]
fn a_will_in_memory_is_published_while_the_broker_runs_and_lost_with_it() {
    across(
        |world| {
            let w = world.client("w").persistent().connect();
            w.subscribe("#", 1);
            let will = |topic: &str| Will::new(topic, topic);
            world.client("a").persistent().will(will("m/a")).connect().lose();
            w.take("m/a", "m/a");
            let _m = world.client("m").persistent().will(will("m/m")).connect();
            let _k = world.client("k").persistent().will(will("k")).connect();
            // The one of the connection before is over.
            let changes = world.client("c").persistent();
            changes.clone().will(Will { delay: 100, ..will("before") }).connect();
            changes.will(will("m/c")).resume();
        },
        |world| {
            world.seconds(200);
            assert_eq!(payloads(world.client("w").persistent().resume().take_everything()), ["k"]);
        },
    );
}

#[test]
fn with_the_disk_full_they_are_taken_as_before() {
    let world = World::new(&rules(), 1, 0);
    let s = world.client("s").persistent();
    let peer = s.connect();
    peer.subscribe("#", 1);
    peer.lose();
    let p = world.client("p").connect();
    world.disk().full(Some(world.disk().bytes()));
    let refused = Outcome::Acknowledged(ReasonCode::QuotaExceeded);
    let fills = (0..2_000).find(|number| {
        p.send_publish(&Pub::new("k", &format!("{number:0>200}")).qos(1).id(1));
        world.run();
        p.drain().is_empty()
    });
    assert!(fills.is_some(), "the disk is full some time");
    let p = world.client("q").connect();
    assert_eq!(p.publish_with(&Pub::new("k", "x").qos(1)), refused);
    assert_eq!(p.publish_with(&Pub::new("m/x", "one").qos(1)), SUCCESS);
    assert_eq!(p.publish_with(&Pub::new("m/x", "two").qos(2)), SUCCESS);
    world.disk().full(None);
    world.sync();
    let got = payloads(s.resume().take_everything());
    assert_eq!(got[got.len() - 2..], ["one", "two"]);
}

#[test]
fn with_the_operating_system_is_before_the_sync_and_after_the_write() {
    for workers in 1..=2 {
        let _note = Note { workers, seed: 0 };
        let world = World::new(&rules(), workers, 0);
        let s = world.client("s").persistent().connect();
        s.subscribe("#", 1);
        s.lose();
        let (p, q) = (world.client("p").persistent().connect(), world.client("q").persistent().connect());
        world.delay_stores();
        p.send_publish(&Pub::new("o/x", "one").qos(1).id(1));
        p.send_publish(&Pub::new("o/x", "two").qos(2).id(2));
        p.send_publish(&Pub::new("m/kept", "three").qos(1).id(3));
        q.send_publish(&Pub::new("k", "four").qos(1).id(1));
        // Behind an answer that waits for the sync nothing overtakes.
        q.send_publish(&Pub::new("o/x", "five").qos(1).id(2));
        world.run();
        p.expect_nothing();
        q.expect_nothing();
        world.disk().fail_at(Operation::Sync, world.disk().counts().syncs + 1, ErrorKind::Other);
        world.sync();
        p.expect(&ack(Kind::PubAck, 1));
        p.expect(&ack(Kind::PubRec, 2));
        p.expect(&ack(Kind::PubAck, 3));
        q.expect_nothing();
        // The process ends, the system does not.
        let after = world.kill(workers, 0);
        let got = payloads(after.client("s").persistent().resume().take_everything());
        let mut sorted = got.clone();
        sorted.sort();
        assert_eq!(sorted, ["five", "four", "one", "three", "two"]);
        let place = |payload: &str| got.iter().position(|got| got == payload);
        assert!(place("one") < place("two") && place("two") < place("three") && place("four") < place("five"));
        // What it has begun at QoS 2 is known.
        let p = after.client("p").persistent().resume();
        p.send_publish(&Pub::new("o/x", "two").qos(2).id(2).dup());
        after.run();
        p.expect(&ack(Kind::PubRec, 2));
        assert_eq!(payloads(after.client("s").persistent().resume().take_everything()), [] as [&str; 0]);
    }
}

#[test]
fn a_group_gets_what_is_kept_in_memory_when_its_member_has_gone() {
    everywhere_kept(&rules(), |world| {
        let (one, two) = (world.client("one").persistent(), world.client("two").persistent());
        let peer = one.connect();
        peer.subscribe("$share/g/m/#", 1);
        peer.lose();
        let p = world.client("p").connect();
        (0..4).for_each(|number| p.publish("m/x", 1, &number.to_string()));
        let peer = two.connect();
        peer.subscribe("$share/g/m/#", 1);
        world.client("one").connect().disconnect();
        assert_eq!(payloads(peer.take_everything()), ["0", "1", "2", "3"]);
    });
}

/// A subscriber that remembers over connections which Packet Identifiers it has answered with PUBREC, as the standard asks.
#[derive(Default)]
struct Careful {
    open: BTreeSet<u16>,
    got: BTreeMap<String, u32>,
}

impl Careful {
    /// Takes what has come; answers each packet, or not.
    fn read(&mut self, world: &World, peer: &Peer, mut answers: impl FnMut() -> bool) {
        world.run();
        for packet in peer.drain() {
            let answer = match packet {
                Received::Publish(message) if message.qos == 2 => {
                    if self.open.insert(message.packet_id) {
                        *self.got.entry(message.payload).or_default() += 1;
                    }
                    (Kind::PubRec, message.packet_id)
                }
                Received::Publish(message) => {
                    *self.got.entry(message.payload).or_default() += 1;
                    (Kind::PubAck, message.packet_id)
                }
                Received::Ack(Kind::PubRel, number, _) => {
                    self.open.remove(&number);
                    (Kind::PubComp, number)
                }
                _ => continue,
            };
            if answers() {
                peer.ack(answer.0, answer.1);
            }
        }
        world.run();
    }
}

/// Whatever is kept in memory between them, no message that was accepted at the broker's level is lost, or comes twice at QoS 2.
#[test]
fn what_is_kept_in_memory_never_costs_another_message() {
    for seed in 0..200_u64 {
        let workers = 1 + (seed % 3) as u8;
        let _note = Note { workers, seed };
        let mut chance = Chance::new(seed);
        let mut world = World::new(&rules(), workers, seed);
        let mut s = Careful::default();
        let mut accepted = BTreeSet::new();
        let mut published = 0;
        world.client("s").persistent().connect().subscribe("#", 2);
        for life in 0..4 {
            let mut peer = world.client("s").persistent().resume();
            let p = world.client(&format!("p{life}")).connect();
            world.delay_stores();
            let mut waiting = BTreeMap::new();
            for _ in 0..chance.below(40) {
                match chance.below(8) {
                    0..=2 => {
                        published += 1;
                        let (level, qos) = (["m", "k"][chance.below(2)], 1 + chance.below(2) as u8);
                        let payload = format!("{level}{qos}-{published}");
                        p.send_publish(&Pub::new(&format!("{level}/x"), &payload).qos(qos).id(published));
                        waiting.insert(published, payload);
                    }
                    3 => {
                        // The connection is lost, with all that was not answered.
                        peer.lose();
                        peer = world.client("s").persistent().begin();
                    }
                    4 => world.sync(),
                    _ => s.read(&world, &peer, || chance.below(4) > 0),
                }
                world.run();
                for packet in p.drain() {
                    let Received::Ack(kind, number, code) = packet else { continue };
                    if kind == Kind::PubRec {
                        p.ack(Kind::PubRel, number);
                    }
                    if let (false, Some(payload)) = (code.is_error(), waiting.remove(&number)) {
                        accepted.insert(payload);
                    }
                }
            }
            world = world.power_cut(1 + chance.below(3) as u8, 0);
        }
        // An answer may be lost with its connection only.
        let peer = world.client("s").persistent().resume();
        for _ in 0..100 {
            s.read(&world, &peer, || true);
        }
        for payload in accepted.iter().filter(|payload| payload.starts_with('k')) {
            assert!(s.got.contains_key(payload), "{payload} is lost: {:?}", s.got);
        }
        for (payload, times) in s.got.iter().filter(|(payload, _)| payload[1..].starts_with('2')) {
            assert_eq!(*times, 1, "{payload}");
        }
    }
}
