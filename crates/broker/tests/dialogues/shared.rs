//! Shared Subscriptions, their members on any worker.

use pantala_broker::Settings;
use pantala_proto::AcknowledgementKind as Kind;

use crate::support::{Peer, Pub, World, everywhere, settings};

const SHARED: &str = "$share/g/t";

fn members(world: &World, count: usize, qos: u8) -> Vec<Peer> {
    let member = |number| {
        let peer = world.client(&format!("m{number}")).persistent().connect();
        peer.subscribe(SHARED, qos);
        peer
    };
    (0..count).map(member).collect()
}

fn numbers(peers: &[Peer]) -> Vec<u32> {
    let all = peers.iter().flat_map(Peer::take_everything);
    let mut numbers: Vec<u32> = all.map(|message| message.payload.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn each_message_goes_to_one_member_and_all_have_their_turn() {
    everywhere(&settings(), |world| {
        let members = members(world, 4, 1);
        let plain = world.client("plain").connect();
        plain.subscribe("t", 1);
        let second = world.client("second").connect();
        second.subscribe("$share/h/t", 0);
        let publisher = world.client("p").connect();
        for number in 0..40_u32 {
            publisher.publish("t", (number % 3) as u8, &number.to_string());
        }
        assert_eq!((plain.take_everything().len(), second.take_everything().len()), (40, 40));
        let shares: Vec<_> = members.iter().map(|member| member.take_everything().len()).collect();
        assert_eq!(shares, [10; 4]);
    });
}

#[test]
fn absent_members_have_no_turn_while_others_are_there() {
    everywhere(&settings(), |world| {
        let members = members(world, 3, 1);
        members[0].lose();
        let publisher = world.client("p").connect();
        for number in 0..10 {
            publisher.publish("t", 1, &number.to_string());
        }
        assert_eq!(numbers(&members), (0..10).collect::<Vec<_>>());
        members[1].lose();
        members[2].lose();
        for number in 10..20 {
            publisher.publish("t", 1, &number.to_string());
        }
        let back: Vec<_> = (0..3).map(|number| world.client(&format!("m{number}")).persistent().resume()).collect();
        assert_eq!(numbers(&back), (10..20).collect::<Vec<_>>());
        publisher.publish("t", 1, "20");
        publisher.publish("t", 1, "21");
        publisher.publish("t", 1, "22");
        assert!(back.iter().all(|member| member.take_everything().len() == 1));
        // Who is back takes part again, and alone while the others are not.
        back.iter().for_each(Peer::lose);
        let alone = world.client("m1").persistent().resume();
        for number in 0..6 {
            publisher.publish("t", 1, &number.to_string());
        }
        assert_eq!(alone.take_everything().len(), 6);
    });
}

#[test]
fn what_an_ended_session_did_not_acknowledge_goes_to_another_member() {
    let narrow = Settings { inflight_messages_max: 3, ..settings() };
    everywhere(&narrow, |world| {
        let members = members(world, 2, 1);
        let publisher = world.client("p").connect();
        for number in 0..20 {
            publisher.publish("t", 1, &number.to_string());
        }
        // Three are under way to the first, seven wait in its queue; one it acknowledges.
        let first = members[0].messages();
        assert_eq!(first.len(), 3);
        members[0].ack(Kind::PubAck, first[0].packet_id);
        world.run();
        members[0].disconnect_with(pantala_proto::ReasonCode::Success, Some(0));
        let mut got = numbers(&members[1..]);
        got.push(first[0].payload.parse().unwrap());
        got.sort_unstable();
        assert_eq!(got, (0..20).collect::<Vec<_>>());
        let counters = world.counters();
        assert_eq!((counters.dropped_session_ended, counters.dropped_no_member), (0, 0));
    });
}

#[test]
fn all_members_may_be_replaced_one_by_one() {
    everywhere(&settings(), |world| {
        let mut member = world.client("m0").persistent().connect();
        member.subscribe(SHARED, 1);
        let publisher = world.client("p").connect();
        for number in 0..10 {
            publisher.publish("t", 1, &number.to_string());
        }
        for number in 1..6 {
            let next = world.client(&format!("m{number}")).persistent().connect();
            next.subscribe(SHARED, 1);
            member.disconnect_with(pantala_proto::ReasonCode::Success, Some(0));
            member = next;
        }
        assert_eq!(numbers(&[member]), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_qos_2_message_once_begun_is_not_given_to_another_member() {
    let narrow = Settings { inflight_messages_max: 2, ..settings() };
    everywhere(&narrow, |world| {
        let members = members(world, 2, 2);
        let publisher = world.client("p").connect();
        for number in 0..8 {
            publisher.publish("t", 2, &number.to_string());
        }
        let begun: Vec<u32> = members[0].messages().into_iter().map(|m| m.payload.parse().unwrap()).collect();
        assert_eq!(begun.len(), 2);
        members[0].disconnect_with(pantala_proto::ReasonCode::Success, Some(0));
        let expected: Vec<u32> = (0..8).filter(|number| !begun.contains(number)).collect();
        assert_eq!(numbers(&members[1..]), expected);
        assert_eq!(world.counters().dropped_session_ended, 2);
    });
}

#[test]
fn the_last_member_takes_what_it_held_with_it_and_that_is_counted() {
    everywhere(&settings(), |world| {
        let members = members(world, 1, 1);
        let publisher = world.client("p").connect();
        for number in 0..5 {
            publisher.publish("t", 1, &number.to_string());
        }
        members[0].disconnect_with(pantala_proto::ReasonCode::Success, Some(0));
        assert_eq!(world.counters().dropped_no_member, 5);
        // A new group begins with nothing.
        let member = world.client("new").connect();
        member.subscribe(SHARED, 1);
        member.expect_nothing();
    });
}

/// N9: members come and go while messages are on their way between workers.
#[test]
fn nothing_is_lost_while_members_come_and_go_during_dispatch() {
    everywhere(&settings(), |world| {
        let stays = world.client("stays").connect();
        stays.subscribe(SHARED, 1);
        let publisher = world.client("p").connect();
        let mut others: Vec<Peer> = (0..3).map(|number| world.client(&format!("o{number}")).connect()).collect();
        for other in &others {
            other.subscribe(SHARED, 1);
        }
        for number in 0..60_u32 {
            publisher.send_publish(&Pub::new("t", &number.to_string()).qos(1));
            world.some(number as usize % 11);
            if number % 9 == 4 {
                // Without expiry its Session ends here, with all it was sent.
                others.remove(0).reset();
                world.some(number as usize % 5);
                let new = world.client(&format!("n{number}")).begin();
                new.send_subscribe(&crate::support::Sub::new(SHARED, 1));
                others.push(new);
            }
        }
        world.run();
        others.push(stays);
        assert_eq!(numbers(&others), (0..60).collect::<Vec<_>>());
    });
}
