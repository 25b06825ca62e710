//! What the broker itself publishes, and what it tells of what it has.

use pantala_broker::{Event, Settings, Wanted};
use pantala_proto::{Packet, PacketType, QoS};

use crate::support::{Outcome, Pub, everywhere, everywhere_kept, settings};

#[test]
fn the_brokers_own_messages_reach_subscribers_of_their_topics_everywhere() {
    everywhere(&settings(), |world| {
        let readers: Vec<_> = ["a", "b", "c", "d"].map(|name| world.client(name).connect()).into();
        let all = world.client("all").connect();
        all.subscribe("#", 2);
        for (qos, reader) in (0..).zip(&readers) {
            reader.subscribe("$SYS/#", qos % 3);
        }
        world.publish_own("$SYS/broker/uptime", QoS::ExactlyOnce, true, "7 seconds");
        for (qos, reader) in (0..).zip(&readers) {
            let message = reader.take("$SYS/broker/uptime", "7 seconds");
            assert_eq!((message.qos, message.retain), (qos % 3, false));
        }
        // v5 4.7.2: a wildcard at the front does not match a name that begins with $.
        assert_eq!(all.take_everything().len(), 0);
        // It is nobody's PUBLISH.
        assert_eq!((world.counters().publish_received, world.counters().publish_sent), (0, 4));
        let late = world.client("late").connect();
        late.subscribe("$SYS/broker/+", 0);
        assert!(late.take("$SYS/broker/uptime", "7 seconds").retain);
    });
}

#[test]
fn nobody_else_speaks_there_and_it_speaks_nowhere_else() {
    everywhere(&settings(), |world| {
        let a = world.client("a").connect();
        a.subscribe("$SYS/#", 0);
        a.subscribe("t", 0);
        let forged = a.publish_with(&Pub::new("$SYS/broker/uptime", "forged").qos(1).retained());
        assert_eq!(forged, Outcome::Acknowledged(pantala_proto::ReasonCode::NotAuthorized));
        world.publish_own("t", QoS::AtMostOnce, false, "not mine");
        a.expect_nothing();
        assert_eq!(world.counters().dropped_not_authorized, 1);
    });
}

#[test]
fn what_it_retains_counts_towards_no_limit_and_is_gone_after_a_restart() {
    let tight = Settings { retained_messages_max: 1, ..settings() };
    everywhere_kept(&tight, |world| {
        for number in 0..5 {
            world.publish_own(&format!("$SYS/broker/{number}"), QoS::ExactlyOnce, true, "x");
        }
        let a = world.client("a").persistent().connect();
        a.retain("kept", 1, "kept");
        a.retain("too many", 1, "dropped");
        a.subscribe("$SYS/#", 2);
        assert_eq!(a.take_everything().len(), 5);
        assert_eq!((world.retained(), world.counters().dropped_retained_full), (1, 1));
        assert_eq!(world.census().retained_messages, 6);
        world.publish_own("$SYS/broker/0", QoS::ExactlyOnce, true, "");
        assert_eq!((world.retained(), world.census().retained_messages), (1, 5));
        a.take("$SYS/broker/0", "");

        let again = world.power_cut(world.workers(), 1);
        assert_eq!((again.retained(), again.census().retained_messages, again.census().retained_bytes), (1, 1, 4));
        let b = again.client("b").connect();
        b.subscribe("$SYS/#", 0);
        b.expect_nothing();
        again.end();
    });
}

#[test]
fn it_goes_on_telling_while_the_disk_is_full() {
    everywhere_kept(&settings(), |world| {
        let (persistent, plain) = (world.client("a").persistent().connect(), world.client("b").connect());
        persistent.subscribe("$SYS/#", 1);
        plain.subscribe("$SYS/#", 2);
        world.disk().full(Some(0));
        // The store learns of it by the next thing that it is to keep.
        world.client("p").connect().publish("$SYS2/x", 1, "x");
        world.publish_own("$SYS/broker/pantala/store/state", QoS::ExactlyOnce, true, "full");
        for reader in [&persistent, &plain] {
            reader.take("$SYS/broker/pantala/store/state", "full");
        }
        world.disk().full(None);
        world.sync();
    });
}

#[test]
fn a_census_counts_what_waits_and_what_is_subscribed() {
    everywhere(&Settings { inflight_messages_max: 2, ..settings() }, |world| {
        let peer = world.client("a").persistent().connect();
        for filter in ["t/1", "t/2", "$share/g/t/3"] {
            peer.subscribe(filter, 1);
        }
        let publisher = world.client("p").connect();
        for payload in ["one", "two", "three", "four", "five"] {
            publisher.publish("t/1", 1, payload);
        }
        publisher.retain("r", 0, "retained");
        let census = world.census();
        assert_eq!((census.subscriptions, census.shared_subscriptions), (3, 1));
        assert_eq!((census.inflight_messages, census.queued_messages), (2, 3));
        assert_eq!((census.inflight_bytes, census.queued_bytes), (6 + 6, 3 * 3 + 5 + 4 + 4));
        assert_eq!((census.retained_messages, census.retained_bytes), (1, 8));
        publisher.retain("r", 0, "new");
        assert_eq!(world.census().retained_bytes, 3);
        assert_eq!(peer.take_everything().len(), 5);
        peer.unsubscribe("t/1");
        publisher.retain("r", 0, "");
        let census = world.census();
        assert_eq!((census.subscriptions, census.inflight_messages, census.queued_messages), (2, 0, 0));
        assert_eq!((census.queued_bytes, census.inflight_bytes, census.retained_bytes), (0, 0, 0));
    });
}

#[test]
fn packets_and_bytes_are_counted_once_each() {
    everywhere(&settings(), |world| {
        let (a, b) = (world.client("a").v3().connect(), world.client("b").connect());
        a.subscribe("t", 1);
        for qos in 0..=1 {
            b.publish("t", qos, "12345");
        }
        a.take("t", "12345");
        a.take("t", "12345");
        b.send(&Packet::PingReq);
        world.run();
        let counters = world.counters();
        assert_eq!((counters.publish_received, counters.publish_bytes_received), (2, 10));
        assert_eq!((counters.publish_sent, counters.publish_bytes_sent), (2, 10));
        // CONNECT twice, SUBSCRIBE, PUBACK, PINGREQ; CONNACK twice, SUBACK, PUBACK, PINGRESP.
        assert_eq!((counters.connect_received, counters.other_packets_received), (2, 5));
        assert_eq!(counters.other_packets_sent, 5);
        assert!(counters.bytes_sent > 10 && counters.bytes_received > 10, "{counters:?}");
    });
}

#[test]
fn a_session_that_expires_is_counted() {
    everywhere(&settings(), |world| {
        let peer = world.client("a").expiry(5).connect();
        peer.lose();
        world.seconds(4);
        assert_eq!(world.counters().sessions_expired, 0);
        world.seconds(2);
        assert_eq!((world.counters().sessions_expired, world.sessions()), (1, 0));
    });
}

#[test]
fn subscriptions_and_packets_are_told_to_those_who_want_them() {
    everywhere(&settings(), |world| {
        let peer = world.client("a").connect();
        peer.subscribe("quiet", 0);
        assert!(world.events().iter().all(|event| matches!(event, Event::Connected { .. })));
        world.want(Wanted { subscriptions: true, packets: true });
        peer.subscribe("s/+", 2);
        peer.publish("x", 0, "y");
        peer.unsubscribe("s/+");
        let events = world.events();
        let told = |wanted: PacketType| {
            let of = |event: &&Event| matches!(event, Event::Received { packet_type: Some(it), client_id: Some(_), .. } if *it == wanted);
            events.iter().filter(of).count()
        };
        assert_eq!([PacketType::Subscribe, PacketType::Publish, PacketType::Unsubscribe].map(told), [1, 1, 1]);
        let filters: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Subscribed { filter, qos, .. } => Some((&**filter, Some(*qos))),
                Event::Unsubscribed { filter, .. } => Some((&**filter, None)),
                _ => None,
            })
            .collect();
        assert_eq!(filters, [("s/+", Some(QoS::ExactlyOnce)), ("s/+", None)]);
    });
}
