//! A Sparkplug Aware MQTT Server: births are kept as certificates (Eclipse Sparkplug 3.0.0, section 10.1.4).

use pantala_broker::{DurabilityRule, ListenerSettings, QueueFull, Settings};
use pantala_proto::{AcknowledgementKind as Kind, ReasonCode};
use pantala_store::Durability;

use crate::access::{Book, verify};
use crate::support::{
    Delivered, Note, Outcome, Peer, Pub, Received, Sub, Will, World, everywhere, everywhere_kept, settings,
};

const SUCCESS: Outcome = Outcome::Acknowledged(ReasonCode::Success);
const NOBODY: Outcome = Outcome::Acknowledged(ReasonCode::NoMatchingSubscribers);
const DENIED: Outcome = Outcome::Acknowledged(ReasonCode::NotAuthorized);
const REFUSED: Outcome = Outcome::Acknowledged(ReasonCode::QuotaExceeded);

const ALL: &str = "$sparkplug/certificates/#";

fn aware() -> Settings {
    Settings { sparkplug_aware: true, ..settings() }
}

fn certificate(birth: &str) -> String {
    format!("$sparkplug/certificates/{birth}")
}

fn nbirth(group: impl std::fmt::Display) -> String {
    format!("spBv1.0/{group}/NBIRTH/node")
}

/// Topic Name, payload and RETAIN.
fn told(peer: &Peer) -> Vec<(String, String, bool)> {
    let all = peer.take_everything().into_iter();
    let mut told: Vec<_> = all.map(|Delivered { topic, payload, retain, .. }| (topic, payload, retain)).collect();
    told.sort_unstable();
    told
}

/// What a new subscription to all certificates gets: Topic Names and payloads.
fn kept(world: &World) -> Vec<(String, String)> {
    let late = world.client("late").receive_maximum(1_000).connect();
    late.subscribe(ALL, 2);
    let told = told(&late);
    assert!(told.iter().all(|(.., retain)| *retain), "{told:?}");
    late.disconnect();
    told.into_iter().map(|(topic, payload, _)| (topic, payload)).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(birth, payload)| (certificate(birth), (*payload).to_owned())).collect()
}

#[test]
fn births_are_kept_as_certificates_and_go_live_too() {
    everywhere(&aware(), |world| {
        let (host, all) = (world.client("host").connect(), world.client("all").connect());
        host.subscribe(ALL, 1);
        all.subscribe("#", 0);
        let mut expected = Vec::new();
        for version in [false, true] {
            let node = world.client("node");
            let node = if version { node.v3().connect() } else { node.connect() };
            // Enough of them for certificates on every worker.
            for group in 0..6 {
                let (nbirth, dbirth) = (nbirth(group), format!("spBv1.0/{group}/DBIRTH/node/device"));
                expected.clear();
                for qos in 0..=2 {
                    node.publish(&nbirth, qos, &format!("n{qos}"));
                    node.publish(&dbirth, qos, &format!("d{qos}"));
                    expected.push((certificate(&dbirth), format!("d{qos}"), false));
                    expected.push((certificate(&nbirth), format!("n{qos}"), false));
                }
                expected.sort_unstable();
                // As any live message, with RETAIN 0; at the QoS of the birth.
                assert_eq!(told(&host), expected);
                let births = all.take_everything();
                assert!(births.len() == 6 && births.iter().all(|birth| birth.topic.starts_with("spBv1.0/")));
            }
        }
        let kept = kept(world);
        assert_eq!(kept.len(), 12);
        assert!(kept.iter().all(|(topic, payload)| *payload == if topic.contains("NBIRTH") { "n2" } else { "d2" }));
        assert_eq!((world.retained(), world.counters().sparkplug_certificates_published), (12, 72));
    });
}

#[test]
fn nothing_else_is_a_birth() {
    everywhere(&aware(), |world| {
        let node = world.client("node").connect();
        for topic in [
            "spBv1.0/g/NDATA/n",
            "spBv1.0/g/NDEATH/n",
            "spBv1.0/g/DDATA/n/d",
            "spBv1.0/g/NBIRTH/n/d",
            "spBv1.0/g/DBIRTH/n",
            "spBv1.0/STATE/host",
            "x/spBv1.0/g/NBIRTH/n",
        ] {
            for qos in 0..=2 {
                node.publish(topic, qos, "x");
            }
        }
        // What goes out when its client is gone is no birth: that comes behind CONNECT.
        world.client("w").will(Will::new(&nbirth("will"), "x")).connect().lose();
        assert_eq!((kept(world), world.counters().sparkplug_certificates_published), (vec![], 0));
    });
}

#[test]
fn a_broker_that_is_not_aware_keeps_nothing_and_reserves_nothing() {
    everywhere(&settings(), |world| {
        let node = world.client("node").connect();
        for qos in 0..=2 {
            node.publish(&nbirth("g"), qos, "birth");
        }
        assert_eq!(kept(world), []);
        // Something else may keep certificates.
        node.retain(&certificate(&nbirth("g")), 1, "by another");
        assert_eq!(kept(world), pairs(&[(&nbirth("g"), "by another")]));
    });
}

/// A certificate is as its birth in all but name and RETAIN.
#[test]
fn a_certificate_has_the_properties_of_its_birth() {
    everywhere(&aware(), |world| {
        let (host, node) = (world.client("host").connect(), world.client("node").connect());
        host.subscribe(ALL, 2);
        node.must_publish(&Pub::new(&nbirth("g"), "1").qos(2).expiry(100).alias(1));
        node.must_publish(&Pub::new("", "2").qos(1).expiry(50).alias(1));
        let live: Vec<_> = host.take_everything().into_iter().map(|it| (it.payload, it.qos, it.expiry)).collect();
        assert_eq!(live, [("1".to_owned(), 2, Some(100)), ("2".to_owned(), 1, Some(50))]);
        world.seconds(60);
        assert_eq!(kept(world), []);
        // It is the broker's, so that No Local is nothing to it.
        node.subscribe_with(&Sub::new(ALL, 0).no_local());
        node.publish(&nbirth("g"), 0, "own");
        node.take(&certificate(&nbirth("g")), "own");
    });
}

#[test]
fn an_empty_birth_ends_its_certificate() {
    everywhere(&aware(), |world| {
        let node = world.client("node").connect();
        node.publish(&nbirth("a"), 1, "a");
        node.publish(&nbirth("b"), 0, "b");
        node.publish(&nbirth("a"), 0, "");
        assert_eq!((kept(world), world.retained()), (pairs(&[(&nbirth("b"), "b")]), 1));
    });
}

/// A publisher remembers where its last message went: a birth that went there, too, was forgotten to be kept.
#[test]
fn the_short_way_to_the_only_receiver_leaves_no_birth_out() {
    everywhere(&settings(), |world| {
        let host = world.client("host").connect();
        host.subscribe("spBv1.0/#", 0);
        let node = world.client("node").connect();
        let publish = |payload: &str| {
            for topic in [nbirth("g"), nbirth("g"), "spBv1.0/g/NDATA/node".to_owned(), nbirth("g")] {
                node.publish(&topic, 0, payload);
                host.take(&topic, payload);
            }
        };
        publish("before");
        assert_eq!(kept(world), []);
        // Whoever looked has changed the subscriptions: the way is remembered anew.
        publish("before");
        world.reconfigure(&aware());
        node.publish(&nbirth("g"), 0, "at once");
        host.take(&nbirth("g"), "at once");
        assert_eq!(kept(world), pairs(&[(&nbirth("g"), "at once")]));
        publish("later");
        assert_eq!(kept(world), pairs(&[(&nbirth("g"), "later")]));
        assert_eq!(world.counters().sparkplug_certificates_published, 4);
        // And back: what is kept stays.
        world.reconfigure(&settings());
        publish("after");
        assert_eq!(kept(world), pairs(&[(&nbirth("g"), "later")]));
    });
}

#[test]
fn clients_cannot_forge_a_certificate_and_may_remove_one() {
    everywhere(&aware(), |world| {
        let (node, other) = (world.client("node").connect(), world.client("other").connect());
        node.publish(&nbirth("g"), 0, "true");
        let name = certificate(&nbirth("g"));
        for topic in [&*name, "$sparkplug/certificates/x", "$sparkplug/certificates"] {
            for qos in 1..=2 {
                assert_eq!(other.publish_with(&Pub::new(topic, "forged").qos(qos).retained()), DENIED, "{topic}");
                assert_eq!(other.publish_with(&Pub::new(topic, "forged").qos(qos)), DENIED, "{topic}");
                // Without RETAIN it would only tell lies.
                assert_eq!(other.publish_with(&Pub::new(topic, "").qos(qos)), DENIED, "{topic}");
            }
            other.publish(topic, 0, "forged");
            other.retain(topic, 0, "forged");
            let will = Will { retain: true, ..Will::new(topic, "forged") };
            world.client("w").will(will).refused(ReasonCode::NotAuthorized);
        }
        assert_eq!(world.counters().dropped_not_authorized, 3 * 8);
        assert_eq!(kept(world), pairs(&[(&nbirth("g"), "true")]));
        assert!([SUCCESS, NOBODY].contains(&other.publish_with(&Pub::new(&name, "").qos(1).retained())));
        assert_eq!(kept(world), []);
    });
}

fn secured() -> Settings {
    let listener = ListenerSettings { verify_credentials: true, ..ListenerSettings::default() };
    Settings { listeners: vec![listener], ..aware() }
}

#[test]
fn rules_are_about_births_for_publishers_and_about_certificates_for_readers() {
    everywhere(&secured(), |world| {
        world.set_authenticator(verify);
        let book = |node: &[&str]| {
            let book = Book::new().user("node", node, &[]).user("reader", &[], &[ALL]);
            book.user("blind", &["$sparkplug/#"], &["#"]).anonymous(&[], &[ALL])
        };
        book(&["spBv1.0/mine/#"]).hold(world);
        let [node, reader, blind] = ["node", "reader", "blind"].map(|user| world.client(user).user(user).connect());
        reader.subscribe(ALL, 1);
        for qos in 0..=2 {
            node.publish(&nbirth("mine"), qos, "mine");
            reader.take(&certificate(&nbirth("mine")), "mine");
            assert_ne!(node.publish_with(&Pub::new(&nbirth("yours"), "yours").qos(qos)), NOBODY);
            reader.expect_nothing();
        }
        blind.send_subscribe(&Sub::new(ALL, 0));
        world.run();
        assert!(matches!(blind.next(), Some(Received::SubAck(_, codes)) if codes == [ReasonCode::NotAuthorized]));
        let name = certificate(&nbirth("mine"));
        // Only who may publish there may remove.
        assert_eq!(node.publish_with(&Pub::new(&name, "").qos(1).retained()), DENIED);
        assert_eq!(blind.publish_with(&Pub::new(&name, "forged").qos(1).retained()), DENIED);
        assert_eq!(kept(world), pairs(&[(&nbirth("mine"), "mine")]));
        // The broker has published it: it stays when its node may publish no more.
        book(&["nothing"]).hold(world);
        assert_eq!(kept(world), pairs(&[(&nbirth("mine"), "mine")]));
        blind.must_publish(&Pub::new(&name, "").qos(1).retained());
        assert_eq!(kept(world), []);
    });
}

/// A certificate below a mount point is there for those who live there, under the name that they know.
#[test]
fn below_a_mount_point_certificates_are_below_it() {
    let at = |mount_point: &str| ListenerSettings { mount_point: Some(mount_point.into()), ..Default::default() };
    let mounted = Settings { listeners: vec![ListenerSettings::default(), at("one/"), at("two/")], ..aware() };
    everywhere(&mounted, |world| {
        let (one, two) = (world.client("1").at(1).connect(), world.client("2").at(2).connect());
        let above = world.client("above").connect();
        let name = certificate(&nbirth("g"));
        for peer in [&one, &two, &above] {
            peer.subscribe(ALL, 1);
        }
        above.subscribe("one/$sparkplug/#", 1);
        for qos in 0..=2 {
            one.publish(&nbirth("g"), qos, "1");
            assert_eq!(told(&one), [(name.clone(), "1".to_owned(), false)]);
            assert_eq!(told(&above), [(format!("one/{name}"), "1".to_owned(), false)]);
            two.expect_nothing();
            // From above it is a name as any other.
            above.publish(&format!("one/{}", nbirth("g")), qos, "above");
            one.expect_nothing();
            assert_eq!(one.publish_with(&Pub::new(&name, "forged").qos(1).retained()), DENIED);
        }
        world.client("w").at(1).will(Will::new(&name, "forged")).refused(ReasonCode::NotAuthorized);
        let late = world.client("late1").at(1).connect();
        late.subscribe(ALL, 1);
        assert_eq!(told(&late), [(name.clone(), "1".to_owned(), true)]);
        assert_eq!((kept(world), world.retained()), (vec![], 1));
        // Each removes its own.
        two.retain(&name, 1, "");
        assert_eq!(world.retained(), 1);
        one.retain(&name, 1, "");
        assert_eq!(world.retained(), 0);
    });
}

#[test]
fn certificates_count_towards_the_limit_of_retained_messages() {
    everywhere(&Settings { retained_messages_max: 2, ..aware() }, |world| {
        let (host, node) = (world.client("host").connect(), world.client("node").connect());
        host.subscribe(ALL, 0);
        for group in ["a", "b", "c"] {
            node.publish(&nbirth(group), 1, group);
            host.take(&certificate(&nbirth(group)), group);
        }
        node.publish(&nbirth("a"), 0, "again");
        assert_eq!(kept(world), pairs(&[(&nbirth("a"), "again"), (&nbirth("b"), "b")]));
        assert_eq!((world.retained(), world.counters().dropped_retained_full), (2, 1));
    });
}

#[test]
fn a_birth_whose_certificate_would_have_too_long_a_name_is_refused() {
    everywhere(&aware(), |world| {
        let name = |bytes: usize| nbirth("g".repeat(bytes - nbirth("").len()));
        let node = world.client("node").connect();
        node.publish(&name(65_511), 1, "just so");
        assert_eq!(kept(world), pairs(&[(&name(65_511), "just so")]));
        // What is no birth may be as long as it likes.
        node.publish(&name(65_511).replace("NBIRTH", "NDEATH!"), 1, "x");
        node.send_publish(&Pub::new(&name(65_512), "too long").qos(1));
        world.run();
        node.expect_end(ReasonCode::TopicNameInvalid);
    });
}

// ---- durability ---------------------------------------------------------------------------------------------------------

#[test]
fn an_acknowledged_birth_has_a_certificate_after_a_power_cut() {
    for workers in 1..=3 {
        for seed in 0..6 {
            let _note = Note { workers, seed };
            let world = World::new(&aware(), workers, seed);
            let node = world.client("node").connect();
            for group in 0..6 {
                node.publish(&nbirth(group), 2 - group % 3, "old");
                node.publish(&nbirth(group), group % 3, "new");
            }
            node.publish(&nbirth(0), 1, "");
            let again = world.power_cut(1 + (workers + seed as u8) % 3, 1);
            let names: Vec<String> = (1..6).map(nbirth).collect();
            let expected: Vec<_> = names.iter().map(|name| (&**name, "new")).collect();
            assert_eq!((kept(&again), again.retained()), (pairs(&expected), 5));
            again.end();
        }
    }
}

#[test]
fn a_birth_is_acknowledged_when_its_certificate_is_safe() {
    everywhere_kept(&aware(), |world| {
        // Nobody has to be sent the birth itself.
        let node = world.client("node").connect();
        world.delay_stores();
        for (qos, kind) in [(1, Kind::PubAck), (2, Kind::PubRec)] {
            node.send_publish(&Pub::new(&nbirth("g"), "birth").qos(qos).id(7));
            world.run();
            node.expect_nothing();
            world.sync();
            node.expect(&Received::Ack(kind, 7, ReasonCode::NoMatchingSubscribers));
        }
        world.stop_delaying();
    });
}

/// A message that is kept in memory only, and a certificate that is not: what is acknowledged is both.
#[test]
fn rules_of_durability_are_about_the_certificate_by_its_own_name() {
    let rule = |filter: &str| DurabilityRule { filter: filter.to_owned(), level: Durability::Memory };
    let of_births = Settings { durability_rules: vec![rule("spBv1.0/#")], ..aware() };
    let of_certificates = Settings { durability_rules: vec![rule("$sparkplug/#")], ..aware() };
    for workers in 1..=2 {
        for (settings, kept_then) in [(&of_births, pairs(&[(&nbirth("g"), "birth")])), (&of_certificates, vec![])] {
            let world = World::new(settings, workers, 0);
            let node = world.client("node").connect();
            world.delay_stores();
            node.send_publish(&Pub::new(&nbirth("g"), "birth").qos(1).id(7));
            world.run();
            if !kept_then.is_empty() {
                node.expect_nothing();
            }
            world.sync();
            node.expect(&Received::Ack(Kind::PubAck, 7, ReasonCode::NoMatchingSubscribers));
            assert_eq!(kept(&world), pairs(&[(&nbirth("g"), "birth")]));
            assert_eq!(kept(&world.power_cut(workers, 0)), kept_then);
            world.end();
        }
    }
}

/// Both records may be written one after the other. Had the birth been the first, its publisher, which repeats it after a crash,
/// would be answered for an identifier that is known, and there would never be a certificate.
#[test]
fn a_birth_at_qos_2_has_its_certificate_wherever_the_power_fails() {
    let payload = "b".repeat(1_200_000);
    let mut halfway = 0;
    for workers in 1..=2 {
        for nth in 1..16 {
            let _note = Note { workers, seed: nth };
            let world = World::new(&aware(), workers, 0);
            let client = world.client("node").persistent();
            let node = client.connect();
            world.disk().cut_at(world.disk().counts().operations + nth);
            node.send_publish(&Pub::new(&nbirth("g"), &payload).qos(2).id(7));
            world.run();
            let again = world.power_cut_to(workers, 0, nth);
            halfway += usize::from(!kept(&again).is_empty());
            let node = again.client("node").persistent().resume();
            node.send_publish(&Pub::new(&nbirth("g"), &payload).qos(2).id(7).dup());
            again.run();
            assert!(matches!(node.outcome(Kind::PubRec, 7), Outcome::Acknowledged(code) if !code.is_error()));
            assert_eq!(kept(&again).len(), 1);
            again.end();
        }
    }
    assert!(halfway > 0, "the power failed too early each time");
}

#[test]
fn with_the_disk_full_a_birth_is_refused_and_at_qos_0_not_kept() {
    for workers in 1..=2 {
        let world = World::new(&aware(), workers, 0);
        let (host, node) = (world.client("host").connect(), world.client("node").connect());
        host.subscribe(ALL, 1);
        node.publish(&nbirth("g"), 1, "before");
        host.take(&certificate(&nbirth("g")), "before");
        world.disk().full(Some(world.disk().bytes()));
        let mut outcome = SUCCESS;
        for _ in 0..2_000 {
            outcome = node.publish_with(&Pub::new(&nbirth("h"), &"x".repeat(200)).qos(1));
            if outcome != NOBODY {
                break;
            }
        }
        // That one had been taken when the store learned of it.
        assert_eq!(outcome, Outcome::Withheld);
        let (host, node) = (world.client("host2").connect(), world.client("node2").connect());
        host.subscribe(ALL, 1);
        host.take_everything();
        assert_eq!(node.publish_with(&Pub::new(&nbirth("g"), "refused").qos(1)), REFUSED);
        assert_eq!(node.publish_with(&Pub::new(&nbirth("g"), "refused").qos(2)), REFUSED);
        host.expect_nothing();
        node.publish(&nbirth("g"), 0, "live");
        host.take(&certificate(&nbirth("g")), "live");
        let counters = world.counters();
        assert_eq!((counters.dropped_store_refused, counters.dropped_retained_store_refused), (2, 1));
        assert!(kept(&world).contains(&(certificate(&nbirth("g")), "before".to_owned())));
        world.disk().full(None);
        world.sync();
        node.publish(&nbirth("g"), 1, "after");
        assert!(kept(&world.kill(workers, 0)).contains(&(certificate(&nbirth("g")), "after".to_owned())));
    }
}

/// What is refused leaves no certificate, and one that is taken leaves one.
#[test]
fn a_birth_that_a_full_queue_refuses_leaves_no_certificate() {
    let refusing =
        Settings { inflight_messages_max: 1, queued_messages_max: 2, queue_full: QueueFull::Refuse, ..aware() };
    everywhere(&refusing, |world| {
        for worker in 0..world.workers() {
            let group = format!("g{worker}");
            let away = world.client(&world.name_on(worker, "away")).persistent().connect();
            away.subscribe(&nbirth(&group), 1);
            // By a group as well, whose member is named before the message is routed.
            away.subscribe(&format!("$share/s/spBv1.0/{group}/DBIRTH/#"), 1);
            away.lose();
            let publisher = world.client("node").connect();
            publisher.must_publish(&Pub::new(&format!("spBv1.0/{group}/DBIRTH/node/device"), "device").qos(2));
            publisher.must_publish(&Pub::new(&nbirth(&group), "taken").qos(1));
            let refused = publisher.publish_with(&Pub::new(&nbirth(&group), "refused").qos(2));
            assert_eq!(refused, REFUSED);
            publisher.disconnect();
        }
        let kept = kept(world);
        assert_eq!(kept.len(), 2 * usize::from(world.workers()));
        assert!(kept.iter().all(|(_, payload)| payload == "taken" || payload == "device"), "{kept:?}");
        assert_eq!(world.counters().dropped_queue_full_refused, u64::from(world.workers()));
    });
}

/// Who has no room for a certificate does not keep its birth from others.
#[test]
fn a_certificate_that_a_full_queue_has_no_room_for_is_dropped_there() {
    let refusing = Settings { queued_messages_max: 1, queue_full: QueueFull::Refuse, ..aware() };
    everywhere(&refusing, |world| {
        let away = world.client("away").persistent().connect();
        away.subscribe(ALL, 1);
        away.lose();
        let node = world.client("node").connect();
        for payload in ["1", "2", "3"] {
            node.must_publish(&Pub::new(&nbirth("g"), payload).qos(1));
        }
        assert_eq!(world.counters().dropped_queue_full_newest, 2);
        assert_eq!(kept(world), pairs(&[(&nbirth("g"), "3")]));
    });
}
