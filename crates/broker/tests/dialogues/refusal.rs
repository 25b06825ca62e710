//! `queue_full = refuse`: a message goes to everybody or to nobody, wherever the full queue is.

use pantala_broker::{QueueFull, Settings};
use pantala_proto::{Packet, ReasonCode};

use crate::support::{Client, Outcome, Peer, Pub, Received, Will, World, everywhere, settings};

const SUCCESS: Outcome = Outcome::Acknowledged(ReasonCode::Success);
const REFUSED: Outcome = Outcome::Acknowledged(ReasonCode::QuotaExceeded);
const SHARED: &str = "$share/g/t";

/// Queues of two messages.
fn refusing() -> Settings {
    Settings { inflight_messages_max: 1, queued_messages_max: 2, queue_full: QueueFull::Refuse, ..settings() }
}

/// A client of a certain worker, away, with a subscription and room for so many messages.
fn absent(world: &World, worker: u8, filter: &str, room: usize) -> Client {
    let name = world.name_on(worker, &format!("absent{room}-"));
    let client = world.client(&name).persistent();
    let peer = client.connect();
    peer.subscribe(&name, 1);
    peer.subscribe(filter, 1);
    peer.lose();
    let filler = world.client("filler").connect();
    for _ in room..2 {
        filler.publish(&name, 1, "filling");
    }
    filler.disconnect();
    client
}

fn payloads(peer: &Peer) -> Vec<String> {
    let all = peer.take_everything().into_iter();
    all.map(|message| message.payload).filter(|payload| payload != "filling").collect()
}

#[test]
fn what_one_refuses_nobody_gets_and_nothing_retains() {
    everywhere(&refusing(), |world| {
        for (nth, worker) in (0..world.workers()).enumerate() {
            let topic = format!("t{nth}");
            let live: Vec<Peer> = (0..world.workers())
                .map(|worker| {
                    let peer = world.client(&world.name_on(worker, &format!("live{nth}-"))).connect();
                    peer.subscribe(&topic, 2);
                    peer
                })
                .collect();
            let full = world.client(&world.name_on(worker, &format!("full{nth}-"))).persistent();
            let peer = full.connect();
            peer.subscribe(&topic, 1);
            peer.lose();
            for publisher in 0..world.workers() {
                let prefix = format!("p{nth}-");
                let publisher = world.client(&world.name_on(publisher, &prefix)).connect();
                let mut outcomes = Vec::new();
                for number in 0..4 {
                    let message = Pub::new(&topic, &number.to_string()).qos(1 + number % 2).retained();
                    outcomes.push(publisher.publish_with(&message));
                }
                let taken = if publisher.is_closed() { 0 } else { outcomes.iter().filter(|o| **o == SUCCESS).count() };
                assert!(outcomes[taken..].iter().all(|outcome| *outcome == REFUSED), "{outcomes:?}");
                let expected: Vec<_> = (0..taken).map(|number| number.to_string()).collect();
                for peer in &live {
                    assert_eq!(payloads(peer), expected);
                }
                let late = world.client("late").connect();
                late.subscribe(&topic, 0);
                assert_eq!(payloads(&late), ["1"]);
                late.disconnect();
                publisher.disconnect();
            }
            assert_eq!(payloads(&full.resume()), ["0", "1"]);
        }
    });
}

#[test]
fn a_group_gives_a_message_to_a_member_with_room_and_refuses_it_when_nobody_has() {
    everywhere(&refusing(), |world| {
        let live = world.client("live").connect();
        live.subscribe("t", 1);
        let members: Vec<Client> =
            (0..3).map(|worker| absent(world, worker % world.workers(), SHARED, usize::from(worker))).collect();
        let publisher = world.client("p").connect();
        let outcomes: Vec<_> =
            (0..5).map(|number| publisher.publish_with(&Pub::new("t", &number.to_string()).qos(1))).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == SUCCESS).count(), 3, "{outcomes:?}");
        assert_eq!(outcomes[3..], [REFUSED; 2]);
        assert_eq!(payloads(&live), ["0", "1", "2"]);
        let mut got: Vec<_> = members.iter().flat_map(|member| payloads(&member.resume())).collect();
        got.sort_unstable();
        assert_eq!(got, ["0", "1", "2"]);
        // With everybody back there is room again.
        assert_eq!(publisher.publish_with(&Pub::new("t", "5").qos(2)), SUCCESS);
        let counters = world.counters();
        assert_eq!((counters.dropped_queue_full_refused, counters.dropped_queue_full_newest), (2, 0));
    });
}

#[test]
fn what_follows_a_message_that_waits_waits_too() {
    everywhere(&Settings { queued_messages_max: 10, ..refusing() }, |world| {
        let subscribers: Vec<Peer> = (0..world.workers())
            .map(|worker| {
                let peer = world.client(&world.name_on(worker, "s")).receive_maximum(100).connect();
                peer.subscribe("t", 2);
                peer
            })
            .collect();
        for v3 in [false, true] {
            let publisher = world.client("p");
            let publisher = if v3 { publisher.v3().connect() } else { publisher.connect() };
            for round in 0..2 {
                for number in 0..6 {
                    publisher.send_publish(&Pub::new("t", &number.to_string()).qos(number % 3));
                    if number == 4 {
                        publisher.send(&Packet::PingReq);
                        world.some(round * 3);
                    }
                }
                world.run();
                for subscriber in &subscribers {
                    let expected = ["0", "1", "2", "3", "4", "5"];
                    let mut got = payloads(subscriber);
                    // Here a window of one holds up QoS 1 and 2, not QoS 0.
                    got.sort_unstable();
                    assert_eq!(got, expected);
                }
                let answers = publisher.drain();
                let fence = answers.iter().position(|answer| *answer == Received::PingResp);
                assert_eq!((answers.len(), fence), (5, Some(3)), "{answers:?}");
            }
            publisher.lose();
        }
        assert_eq!(world.counters().publish_received, 24);
    });
}

#[test]
fn a_client_that_says_goodbye_behind_a_message_that_waits_has_said_it() {
    everywhere(&refusing(), |world| {
        let subscriber = world.client("s").connect();
        subscriber.subscribe("t", 1);
        subscriber.subscribe("will", 1);
        let publisher = world.client("p").will(Will::new("will", "died")).connect();
        publisher.send_publish(&Pub::new("t", "last").qos(1));
        publisher.disconnect();
        assert_eq!(payloads(&subscriber), ["last"]);
    });
}

/// The message that waited is nobody's, or everybody's; with its Packet Identifier it can be sent again.
#[test]
fn a_publisher_that_vanishes_while_its_message_waits_may_send_it_again() {
    for stages in 0..12 {
        everywhere(&refusing(), |world| {
            let subscribers: Vec<Peer> = (0..world.workers())
                .map(|worker| {
                    let peer = world.client(&world.name_on(worker, "s")).connect();
                    peer.subscribe("t", 2);
                    peer
                })
                .collect();
            let publisher = world.client("p").persistent();
            let peer = publisher.connect();
            peer.send_publish(&Pub::new("t", "m").qos(2).id(7));
            world.some(stages);
            peer.lose();
            let before: Vec<_> = subscribers.iter().map(|peer| payloads(peer).len()).collect();
            assert!(before.iter().all(|count| *count == before[0]), "{before:?}");
            let peer = publisher.resume();
            assert_eq!(peer.publish_with(&Pub::new("t", "m").qos(2).id(7).dup()), SUCCESS);
            for (subscriber, before) in subscribers.iter().zip(before) {
                assert_eq!(before + payloads(subscriber).len(), 1);
            }
        });
    }
}

/// Room that several have been promised: a little more is queued than fits, and nothing is dropped.
#[test]
fn what_is_acknowledged_is_delivered_however_many_publish_at_once() {
    everywhere(&refusing(), |world| {
        let plain: Vec<Client> = (0..world.workers()).map(|worker| absent(world, worker, "t", 2)).collect();
        let members: Vec<Peer> = (0..4)
            .map(|number| {
                let peer = world.client(&format!("m{number}")).connect();
                peer.subscribe(SHARED, 1);
                peer
            })
            .collect();
        let publishers: Vec<Peer> = (0..5).map(|number| world.client(&format!("p{number}")).connect()).collect();
        let mut sent = Vec::new();
        for round in 0..3_usize {
            for (number, publisher) in publishers.iter().enumerate() {
                let payload = format!("{number}-{round}");
                let id = publisher.send_publish(&Pub::new("t", &payload).qos(1));
                sent.push((publisher, id, payload));
                world.some((number + round) % 4);
            }
        }
        world.run();
        let kind = pantala_proto::AcknowledgementKind::PubAck;
        let mut taken: Vec<_> = sent
            .into_iter()
            .filter_map(|(publisher, id, payload)| match publisher.outcome(kind, id) {
                SUCCESS => Some(payload),
                outcome => {
                    assert_eq!(outcome, REFUSED);
                    None
                }
            })
            .collect();
        taken.sort_unstable();
        assert!((2..=7).contains(&taken.len()), "{taken:?}");
        let sorted = |mut payloads: Vec<String>| {
            payloads.sort_unstable();
            payloads
        };
        for client in &plain {
            assert_eq!(sorted(payloads(&client.resume())), taken);
        }
        assert_eq!(sorted(members.iter().flat_map(payloads).collect()), taken);
        let counters = world.counters();
        assert_eq!(counters.dropped_queue_full_newest, 0);
        assert_eq!(counters.dropped_queue_full_refused as usize + taken.len(), 15);
    });
}

#[test]
fn members_that_leave_while_they_are_asked_lose_nothing() {
    everywhere(&refusing(), |world| {
        let stays = world.client("stays").receive_maximum(1).connect();
        stays.subscribe(SHARED, 1);
        let mut others: Vec<Peer> = (0..3).map(|number| world.client(&format!("o{number}")).connect()).collect();
        for other in &others {
            other.subscribe(SHARED, 1);
        }
        let publisher = world.client("p").connect();
        let mut taken = Vec::new();
        for number in 0..12_usize {
            let id = publisher.send_publish(&Pub::new("t", &number.to_string()).qos(1));
            world.some(number % 7);
            if number % 4 == 1
                && let Some(other) = others.pop()
            {
                // What it has not acknowledged goes to the others; what does not fit there is counted.
                other.lose();
            }
            world.run();
            if publisher.outcome(pantala_proto::AcknowledgementKind::PubAck, id) == SUCCESS {
                taken.push(number);
            }
        }
        let got = payloads(&stays).len();
        let counters = world.counters();
        assert_eq!(got + counters.dropped_queue_full_newest as usize, taken.len());
        assert_eq!(counters.dropped_queue_full_refused as usize + taken.len(), 12);
    });
}

#[test]
fn a_will_goes_to_all_who_have_room() {
    everywhere(&refusing(), |world| {
        let full = absent(world, 0, "will", 0);
        let live = world.client("live").connect();
        live.subscribe("will", 1);
        world.client("p").will(Will::new("will", "died")).connect().lose();
        assert_eq!(payloads(&live), ["died"]);
        assert_eq!(payloads(&full.resume()), [""; 0]);
        assert_eq!(world.counters().dropped_queue_full_newest, 1);
    });
}

#[test]
fn a_panic_over_a_message_that_has_waited_ends_its_connection() {
    for seed in 0..6 {
        let _note = crate::support::Note { workers: 2, seed };
        let world = World::new(&refusing(), 2, seed);
        let kept = world.client(&world.name_on(0, "kept")).persistent().connect();
        kept.subscribe("t", 1);
        let elsewhere = world.client(&world.name_on(1, "live")).connect();
        elsewhere.subscribe("t", 1);
        let victim = world.client(&world.name_on(0, "p")).connect();
        world.panic_at_append(1);
        victim.send_publish(&Pub::new("t", "panics").qos(1));
        victim.send(&Packet::PingReq);
        world.run();
        victim.expect_end(ReasonCode::UnspecifiedError);
        world.forget_panics();
        // It was not acknowledged, so it may have been delivered or not.
        kept.take_everything();
        elsewhere.take_everything();
        world.client(&world.name_on(0, "q")).connect().publish("t", 1, "goes on");
        assert_eq!((payloads(&kept), payloads(&elsewhere)), (vec!["goes on".to_owned()], vec!["goes on".to_owned()]));
        world.expect_panics(1);
        world.end();
    }
}
