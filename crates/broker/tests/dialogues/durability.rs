//! Acknowledgements that wait for the store, and stores that fail.

use pantala_broker::{QueueFull, Settings};
use pantala_proto::{AcknowledgementKind as Kind, Packet, ReasonCode};

use crate::support::{Outcome, Pub, Received, Sub, World, everywhere_kept, settings};

const SUCCESS: Outcome = Outcome::Acknowledged(ReasonCode::Success);

#[test]
fn no_answer_to_a_persistent_session_leaves_before_its_record_is_safe() {
    everywhere_kept(&settings(), |world| {
        let a = world.client("a").persistent().connect();
        world.delay_stores();
        let number = a.send_subscribe(&Sub::new("t", 2));
        world.run();
        a.expect_nothing();
        world.sync();
        a.expect(&Received::SubAck(number, vec![ReasonCode::GrantedQoS2]));
        // Its own publications come back to it, so they are records too. At QoS 1 delivery does not wait, acknowledging does;
        // at QoS 2 both do.
        a.send_publish(&Pub::new("t", "one").qos(1).id(1));
        a.send_publish(&Pub::new("t", "two").qos(2).id(2));
        world.run();
        a.expect_message("t", "one");
        a.expect_nothing();
        world.sync();
        let mut answers = a.drain();
        let two =
            answers.iter().position(|answer| matches!(answer, Received::Publish(message) if message.payload == "two"));
        answers.remove(two.expect("two comes when it is safe"));
        assert_eq!(answers[0], Received::Ack(Kind::PubAck, 1, ReasonCode::Success));
        assert_eq!(answers[1], Received::Ack(Kind::PubRec, 2, ReasonCode::Success));
        a.ack(Kind::PubRel, 2);
        world.run();
        a.expect_nothing();
        world.sync();
        a.expect(&Received::Ack(Kind::PubComp, 2, ReasonCode::Success));
        let number = a.send_unsubscribe("t");
        world.run();
        a.expect_nothing();
        world.sync();
        a.expect(&Received::UnsubAck(number, vec![ReasonCode::Success]));
    });
}

/// Exchanges at QoS 2 begin before their PUBLISH may go out, and what was in one counted as sent: it came however old it was.
#[test]
fn a_message_at_qos_2_expires_as_long_as_it_has_not_been_sent() {
    everywhere_kept(&settings(), |world| {
        let s = world.client("s").persistent();
        let peer = s.connect();
        peer.subscribe("t", 2);
        peer.lose();
        let publisher = world.client("p").connect();
        publisher.must_publish(&Pub::new("t", "short").qos(2).expiry(10));
        publisher.must_publish(&Pub::new("t", "long").qos(2).expiry(60));
        world.seconds(20);
        let peer = s.resume();
        peer.take("t", "long");
        // One that waits for the store when its time is over.
        world.delay_stores();
        publisher.send_publish(&Pub::new("t", "waits").qos(2).expiry(10));
        world.run();
        world.seconds(20);
        world.stop_delaying();
        peer.expect_nothing();
        assert_eq!(world.counters().dropped_expired, 2);
        assert_eq!(peer.take_everything(), []);
    });
}

/// What came while CONNACK waited for the store was encoded at once, with the life that it had then.
#[test]
fn a_message_that_waits_behind_a_connack_gets_older() {
    everywhere_kept(&settings(), |world| {
        let s = world.client("s").persistent();
        let peer = s.connect();
        peer.subscribe("t", 2);
        peer.lose();
        let publisher = world.client("p").connect();
        publisher.must_publish(&Pub::new("t", "queued").qos(1).expiry(100));
        world.delay_stores();
        let peer = s.begin();
        world.run();
        publisher.send_publish(&Pub::new("t", "one").qos(1).expiry(60));
        publisher.send_publish(&Pub::new("t", "short").qos(1).expiry(10));
        publisher.send_publish(&Pub::new("t", "two").qos(2).expiry(60));
        world.run();
        peer.expect_nothing();
        world.seconds(20);
        world.stop_delaying();
        peer.expect(&Received::ConnAck { session_present: true, code: ReasonCode::Success });
        let got = peer.take_everything();
        let told: Vec<_> = got.iter().map(|message| (&*message.payload, message.expiry)).collect();
        assert_eq!(told, [("queued", Some(80)), ("one", Some(40)), ("two", Some(40))]);
        assert_eq!(world.counters().dropped_expired, 1);
    });
}

#[test]
fn answers_keep_their_order_behind_one_that_waits() {
    everywhere_kept(&settings(), |world| {
        let a = world.client("a").persistent().connect();
        let absent = world.client("a2").persistent().connect();
        absent.subscribe("x", 0);
        world.delay_stores();
        let first = a.send_subscribe(&Sub::new("t", 1));
        // Nobody has to keep this one, but its turn has not come.
        a.send_publish(&Pub::new("nobody", "x").qos(1).id(7));
        a.send(&Packet::PingReq);
        world.run();
        a.expect_nothing();
        world.sync();
        a.expect(&Received::SubAck(first, vec![ReasonCode::GrantedQoS1]));
        a.expect(&Received::Ack(Kind::PubAck, 7, ReasonCode::NoMatchingSubscribers));
        a.expect(&Received::PingResp);
        a.expect_nothing();
    });
}

#[test]
fn a_retained_message_is_safe_before_it_is_acknowledged() {
    let world = World::new(&settings(), 1, 0);
    let a = world.client("a").connect();
    world.delay_stores();
    for (number, payload) in [(1, "kept"), (2, "")] {
        a.send_publish(&Pub::new("t", payload).qos(1).id(number).retained());
        world.run();
        a.expect_nothing();
        world.sync();
        a.expect(&Received::Ack(Kind::PubAck, number, ReasonCode::NoMatchingSubscribers));
    }
    world.end();
}

#[test]
fn a_message_for_a_shared_subscription_is_safe_before_it_is_acknowledged() {
    let world = World::new(&settings(), 1, 0);
    let member = world.client("m").persistent().connect();
    member.subscribe("$share/g/t", 1);
    let a = world.client("a").connect();
    world.delay_stores();
    a.send_publish(&Pub::new("t", "one").qos(1).id(1));
    world.run();
    a.expect_nothing();
    world.sync();
    a.expect(&Received::Ack(Kind::PubAck, 1, ReasonCode::Success));
    world.end();
}

#[test]
fn a_repeat_is_not_acknowledged_before_what_it_repeats_is_safe() {
    let world = World::new(&settings(), 1, 0);
    let s = world.client("s").persistent().connect();
    s.subscribe("t", 2);
    let a = world.client("a").persistent();
    let peer = a.connect();
    world.delay_stores();
    let message = Pub::new("t", "once").qos(2).id(7);
    peer.send_publish(&message);
    world.run();
    peer.lose();
    // Nor is the CONNACK sent before.
    let (peer, None) = a.try_connect() else { panic!("the CONNACK has to wait") };
    peer.send_publish(&message.dup());
    world.run();
    peer.expect_nothing();
    world.sync();
    peer.expect(&Received::ConnAck { session_present: true, code: ReasonCode::Success });
    assert_eq!(peer.outcome(Kind::PubRec, 7), SUCCESS);
    peer.ack(Kind::PubRel, 7);
    world.run();
    peer.lose();
    let (peer, None) = a.try_connect() else { panic!("the CONNACK has to wait") };
    peer.ack(Kind::PubRel, 7);
    world.run();
    peer.expect_nothing();
    world.sync();
    peer.expect(&Received::ConnAck { session_present: true, code: ReasonCode::Success });
    peer.expect(&Received::Ack(Kind::PubComp, 7, ReasonCode::PacketIdentifierNotFound));
    world.stop_delaying();
    assert_eq!(s.take_everything().len(), 1);
    world.end();
}

#[test]
fn answers_of_a_connection_that_is_gone_go_to_nobody() {
    everywhere_kept(&settings(), |world| {
        let a = world.client("a").persistent();
        let peer = a.connect();
        peer.subscribe("t", 1);
        world.delay_stores();
        peer.send_publish(&Pub::new("t", "m").qos(1).id(1));
        world.run();
        peer.lose();
        // The key is used again, by itself or by another.
        let ((again, _), other) = (a.try_connect(), world.client("b").connect());
        world.sync();
        again.expect(&Received::ConnAck { session_present: true, code: ReasonCode::Success });
        assert!(again.expect_message("t", "m").dup);
        again.expect_nothing();
        other.expect_nothing();
    });
}

#[test]
fn a_refusal_of_another_worker_reaches_the_publisher() {
    let refuse = Settings { queued_messages_max: 1, queue_full: QueueFull::Refuse, ..settings() };
    for seed in 0..20 {
        let _note = crate::support::Note { workers: 2, seed };
        let world = World::new(&refuse, 2, seed);
        let absent = world.client(&world.name_on(0, "s")).persistent().connect();
        absent.subscribe("t", 1);
        absent.lose();
        let (v5, v3) =
            (world.client(&world.name_on(1, "p")).connect(), world.client(&world.name_on(1, "q")).v3().connect());
        assert_eq!(v5.publish_with(&Pub::new("t", "fits").qos(1)), SUCCESS);
        let quota = Outcome::Acknowledged(ReasonCode::QuotaExceeded);
        assert_eq!(v5.publish_with(&Pub::new("t", "x").qos(1)), quota);
        assert_eq!(v5.publish_with(&Pub::new("t", "x").qos(2).id(5)), quota);
        // The Packet Identifier is free: this is a new message, not a repeat of the refused one.
        assert_eq!(
            v5.publish_with(&Pub::new("elsewhere", "y").qos(2).id(5)),
            Outcome::Acknowledged(ReasonCode::NoMatchingSubscribers)
        );
        assert_eq!(v3.publish_with(&Pub::new("t", "x").qos(1)), Outcome::Withheld);
        assert_eq!(v3.publish_with(&Pub::new("t", "x").qos(2).id(6)), Outcome::Withheld);
        v3.send(&Packet::PingReq);
        world.run();
        v3.expect(&Received::PingResp);
        assert_eq!(world.counters().dropped_queue_full_refused, 4);
        world.end();
    }
}

#[test]
fn a_refusal_that_comes_after_the_connection_has_gone_still_frees_the_packet_identifier() {
    let refuse = Settings { queued_messages_max: 1, queue_full: QueueFull::Refuse, ..settings() };
    let world = World::new(&refuse, 2, 0);
    let absent = world.client(&world.name_on(0, "s")).persistent();
    let peer = absent.connect();
    peer.subscribe("t", 2);
    peer.lose();
    let p = world.client(&world.name_on(1, "p")).persistent();
    let peer = p.connect();
    peer.publish("t", 1, "fits");
    peer.send_publish(&Pub::new("t", "refused").qos(2).id(5));
    peer.reset_after_reading();
    world.run();
    let peer = p.resume();
    absent.resume().take_everything();
    assert_eq!(peer.publish_with(&Pub::new("t", "refused").qos(2).id(5).dup()), SUCCESS);
    let payloads: Vec<_> = absent.resume().take_everything().into_iter().map(|message| message.payload).collect();
    assert_eq!(payloads, ["refused"]);
    world.end();
}

#[test]
fn a_panic_of_the_store_ends_the_connection_it_happened_on_and_nothing_else() {
    everywhere_kept(&settings(), |world| {
        let name = world.name_on(0, "same");
        // Publisher and subscribers belong to one worker: the panic happens in the publisher's packet.
        let (kept, grouped) = (world.name_on(0, "kept"), world.name_on(0, "grouped"));
        let kept = world.client(&kept).persistent().connect();
        kept.subscribe("t", 1);
        let grouped = world.client(&grouped).connect();
        grouped.subscribe("$share/g/t", 1);
        let victim = world.client(&name).connect();
        world.panic_at_append(1);
        victim.send_publish(&Pub::new("t", "panics").qos(1));
        world.run();
        victim.expect_end(ReasonCode::UnspecifiedError);
        // It was not acknowledged, so it may have been delivered or not.
        kept.take_everything();
        grouped.take_everything();
        world.forget_panics();
        let publisher = world.client(&name).connect();
        publisher.publish("elsewhere", 1, "for nobody");
        // Nothing is left of the message that panicked.
        grouped.expect_nothing();
        publisher.publish("t", 1, "goes on");
        kept.take("t", "goes on");
        grouped.take("t", "goes on");
        world.expect_panics(1);
    });
}

#[test]
fn a_panic_while_a_client_connects_leaves_no_session_that_points_at_another_client() {
    everywhere_kept(&settings(), |world| {
        let a = world.client("a").persistent();
        a.connect().lose();
        world.panic_at_append(1);
        let (peer, answer) = a.try_connect();
        assert!(!matches!(answer, Some(Received::ConnAck { code: ReasonCode::Success, .. })), "{answer:?}");
        assert!(peer.is_closed());
        world.forget_panics();
        // Whoever gets the key of that connection is not taken for the client.
        let others: Vec<_> = (0..4).map(|number| world.client(&format!("o{number}")).connect()).collect();
        let peer = a.resume();
        peer.subscribe("t", 1);
        others[0].publish("t", 1, "m");
        peer.take("t", "m");
        for other in &others {
            other.expect_nothing();
            assert!(!other.is_closed());
        }
        world.expect_panics(1);
    });
}

#[test]
fn a_panic_over_one_message_of_another_worker_costs_no_other() {
    for seed in 0..10 {
        let _note = crate::support::Note { workers: 2, seed };
        let world = World::new(&settings(), 2, seed);
        let kept = world.client(&world.name_on(0, "kept")).persistent().connect();
        kept.subscribe("t/#", 1);
        let publisher = world.client(&world.name_on(1, "p")).connect();
        world.panic_at_append_on(0, 2);
        for number in 0..4 {
            publisher.send_publish(&Pub::new("t/x", &number.to_string()).qos(1));
        }
        world.run();
        assert!(!publisher.is_closed() && !kept.is_closed());
        let got: Vec<_> = kept.take_everything().into_iter().map(|message| message.payload).collect();
        assert_eq!(got, ["0", "1", "2", "3"]);
        // All of them are acknowledged: the store does not wait for what will not come.
        let acknowledged = publisher.drain();
        let success = |answer: &&Received| matches!(answer, Received::Ack(Kind::PubAck, _, ReasonCode::Success));
        assert_eq!(acknowledged.iter().filter(success).count(), 4);
        world.expect_panics(1);
        world.end();
    }
}
