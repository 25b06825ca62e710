//! Subscriptions that overlap, replace each other, and carry identifiers.

use std::num::NonZeroU32;

use pantala_broker::Settings;
use pantala_proto::{Packet, PacketId, ReasonCode, Subscribe, SubscriptionOptions, UserProperties};

use crate::support::{Received, Sub, everywhere, settings};

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    everywhere(&settings(), |world| {
        let (a, b) = (world.client("a").connect(), world.client("b").connect());
        a.subscribe_with(&Sub::new("t/#", 0).identifier(1));
        b.subscribe_with(&Sub::new("t/x", 1).identifier(2));
        a.subscribe_with(&Sub::new("t/+", 2).identifier(3));
        a.subscribe("+/x", 1);
        b.subscribe("t/#", 0);
        a.subscribe_with(&Sub::new("#", 1).identifier(3));
        let publisher = world.client("p").connect();
        publisher.publish("t/x", 2, "m");
        publisher.publish("t/x/y", 0, "n");
        let (m, n) = (a.take("t/x", "m"), a.take("t/x/y", "n"));
        assert_eq!((m.qos, m.identifiers), (2, vec![1, 3, 3]));
        assert_eq!((n.qos, n.identifiers), (0, vec![1, 3]));
        let m = b.take("t/x", "m");
        assert_eq!((m.qos, m.identifiers), (1, vec![2]));
        b.take("t/x/y", "n");
        a.expect_nothing();
        b.expect_nothing();
    });
}

#[test]
fn overlapping_subscriptions_give_a_copy_each_if_that_is_allowed() {
    let each = Settings { allow_duplicate_messages: true, ..settings() };
    everywhere(&each, |world| {
        let a = world.client("a").connect();
        a.subscribe_with(&Sub::new("t/#", 0).identifier(1));
        a.subscribe_with(&Sub::new("t/x", 1).identifier(2));
        world.client("p").connect().publish("t/x", 1, "m");
        let mut got: Vec<_> =
            a.take_everything().into_iter().map(|message| (message.qos, message.identifiers)).collect();
        got.sort_unstable();
        assert_eq!(got, [(0, vec![1]), (1, vec![2])]);
    });
}

#[test]
fn a_subscription_made_again_replaces_the_old_one_without_a_gap() {
    everywhere(&settings(), |world| {
        let a = world.client("a").connect();
        let publisher = world.client("p").connect();
        a.subscribe_with(&Sub::new("t", 2).identifier(1));
        a.subscribe_with(&Sub::new("t", 0).identifier(2));
        publisher.publish("t", 2, "m");
        let message = a.take("t", "m");
        assert_eq!((message.qos, message.identifiers), (0, vec![2]));
        a.subscribe("t", 1);
        publisher.publish("t", 2, "n");
        let message = a.take("t", "n");
        assert_eq!((message.qos, message.identifiers), (1, vec![]));
        a.unsubscribe("t");
        publisher.publish("t", 2, "o");
        a.expect_nothing();
    });
}

#[test]
fn no_local_keeps_a_clients_messages_from_itself_only() {
    everywhere(&settings(), |world| {
        let (a, b) = (world.client("a").connect(), world.client("b").connect());
        for peer in [&a, &b] {
            peer.subscribe_with(&Sub::new("t", 1).no_local());
        }
        a.publish("t", 1, "from a");
        b.publish("t", 1, "from b");
        a.take("t", "from b");
        b.take("t", "from a");
        a.expect_nothing();
        b.expect_nothing();
        // Another subscription of the same client still brings it.
        a.subscribe("+", 0);
        a.publish("t", 1, "own");
        a.take("t", "own");
        a.subscribe_with(&Sub::new("$share/g/t", 0));
        a.send_subscribe(&Sub::new("$share/g/u", 0).no_local());
        world.run();
        a.expect_end(ReasonCode::ProtocolError);
    });
}

#[test]
fn each_filter_of_a_subscribe_has_its_answer_in_its_place() {
    let few = Settings { subscriptions_per_session_max: 2, ..settings() };
    everywhere(&few, |world| {
        let a = world.client("a").connect();
        let option = |qos| SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        use pantala_proto::QoS as Q;
        let filters = [
            ("a/#/b", Q::AtMostOnce),
            ("t", Q::AtLeastOnce),
            ("t", Q::ExactlyOnce),
            ("u", Q::AtMostOnce),
            ("v", Q::AtMostOnce),
        ];
        a.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(5).unwrap(),
            subscription_identifier: NonZeroU32::new(7),
            user_properties: UserProperties::none(),
            filters: filters.into_iter().map(|(filter, qos)| (filter, option(qos))).collect(),
        }));
        world.run();
        let codes = vec![
            ReasonCode::TopicFilterInvalid,
            ReasonCode::GrantedQoS1,
            ReasonCode::GrantedQoS2,
            ReasonCode::Success,
            ReasonCode::QuotaExceeded,
        ];
        a.expect(&Received::SubAck(5, codes));
        let publisher = world.client("p").connect();
        for topic in ["t", "u", "v"] {
            publisher.publish(topic, 2, "m");
        }
        assert_eq!(a.take("t", "m").qos, 2);
        assert_eq!(a.take("u", "m").identifiers, [7]);
        a.expect_nothing();
    });
}

#[test]
fn unsuback_says_what_there_was() {
    everywhere(&settings(), |world| {
        let a = world.client("a").connect();
        a.subscribe("t", 1);
        a.subscribe("$share/g/t", 1);
        for (filter, code) in [
            ("t", ReasonCode::Success),
            ("t", ReasonCode::NoSubscriptionExisted),
            ("$share/g/t", ReasonCode::Success),
            ("a/#/b", ReasonCode::TopicFilterInvalid),
        ] {
            let number = a.send_unsubscribe(filter);
            world.run();
            a.expect(&Received::UnsubAck(number, vec![code]));
        }
        world.client("p").connect().publish("t", 1, "m");
        a.expect_nothing();
    });
}

#[test]
fn interest_in_a_filter_ends_with_its_last_subscription() {
    everywhere(&settings(), |world| {
        let publisher = world.client("p").connect();
        for round in 0..3 {
            let peers: Vec<_> = (0..4).map(|number| world.client(&format!("s{number}")).connect()).collect();
            for peer in &peers {
                peer.subscribe("t/+", 1);
            }
            publisher.publish("t/x", 1, &round.to_string());
            for peer in &peers {
                peer.take("t/x", &round.to_string());
            }
            peers[0].unsubscribe("t/+");
            for peer in &peers {
                peer.lose();
            }
            let nobody = crate::support::Outcome::Acknowledged(ReasonCode::NoMatchingSubscribers);
            assert_eq!(publisher.publish_with(&crate::support::Pub::new("t/x", "nobody").qos(1)), nobody);
        }
    });
}
