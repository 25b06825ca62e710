//! K12: a Retained Message is delivered as long as its publisher may publish to its topic.

use std::sync::Arc;

use pantala_broker::{ListenerSettings, Settings, Unrestricted};

use crate::access::{Book, secured, verify};
use crate::support::{Peer, Pub, Will, World, everywhere, everywhere_kept, settings};

/// Rules under which these users may publish to everything, and `reader` may read it.
fn book(publishers: &[&str]) -> Book {
    let reader = Book::new().user("reader", &[], &["#", "$SYS/#"]);
    publishers.iter().fold(reader, |book, user| book.user(user, &["#"], &[]))
}

fn secured_world(world: &World, book: &Book) {
    world.set_authenticator(verify);
    book.hold(world);
}

/// What a new subscription of the reader to a filter gets.
fn read(world: &World, filter: &str) -> Vec<String> {
    let reader = world.client("reader").user("reader").receive_maximum(1_000).connect();
    reader.subscribe(filter, 2);
    let mut payloads: Vec<String> = reader.take_everything().into_iter().map(|message| message.payload).collect();
    payloads.sort_unstable();
    reader.disconnect();
    payloads
}

fn connect(world: &World, user: &str) -> Peer {
    world.client(user).user(user).connect()
}

#[test]
fn a_retained_message_goes_and_comes_with_its_publishers_right() {
    everywhere(&secured(), |world| {
        secured_world(world, &book(&["ann", "bob"]));
        let (ann, bob) = (connect(world, "ann"), connect(world, "bob"));
        // On every worker, at every QoS.
        for worker in 0..world.workers() {
            for qos in 0..=2 {
                ann.retain(&world.topic_on(worker, &format!("a{qos}/")), qos, "ann");
                bob.retain(&world.topic_on(worker, &format!("b{qos}/")), qos, "bob");
            }
        }
        let of = |names: &[&str]| -> Vec<String> {
            let each = usize::from(world.workers()) * 3;
            names.iter().flat_map(|name| std::iter::repeat_n((*name).to_owned(), each)).collect()
        };
        assert_eq!(read(world, "#"), of(&["ann", "bob"]));
        book(&["bob"]).hold(world);
        assert_eq!(read(world, "#"), of(&["bob"]));
        assert_eq!(world.counters().withheld_publisher_not_authorized, of(&["ann"]).len() as u64);
        // The right to one topic, and not by a wildcard either.
        let (mine, yours) = (world.topic_on(0, "a0/"), world.topic_on(0, "a1/"));
        book(&["bob"]).user("ann", &[&mine], &[]).hold(world);
        assert_eq!((read(world, &mine), read(world, &yours)), (vec!["ann".to_owned()], vec![]));
        // It has stayed where it was.
        book(&["ann", "bob"]).hold(world);
        assert_eq!(read(world, "#"), of(&["ann", "bob"]));
        // Gone and banned.
        book(&["ann", "bob"]).removed("ann").hold(world);
        assert_eq!(read(world, "#"), of(&["bob"]));
        book(&["ann", "bob"]).banned("bob").hold(world);
        assert_eq!(read(world, "#"), of(&["ann"]));
    });
}

/// Whoever replaces a message is its publisher from then on.
#[test]
fn a_retained_message_is_of_its_last_publisher() {
    everywhere(&secured(), |world| {
        secured_world(world, &book(&["ann", "bob"]));
        let (ann, bob) = (connect(world, "ann"), connect(world, "bob"));
        for worker in 0..world.workers() {
            let topic = world.topic_on(worker, "t/");
            ann.retain(&topic, 1, "ann");
            bob.retain(&topic, 1, "bob");
        }
        book(&["bob"]).hold(world);
        assert_eq!(read(world, "#").len(), usize::from(world.workers()));
        book(&["ann"]).hold(world);
        assert_eq!(read(world, "#"), Vec::<String>::new());
        let root = connect(world, "root");
        for worker in 0..world.workers() {
            root.retain(&world.topic_on(worker, "t/"), 1, "");
        }
        assert_eq!(world.retained(), 0);
    });
}

/// An anonymous publisher is one, and so is the client of a Will. The broker itself is asked for no right.
#[test]
fn wills_and_anonymous_clients_have_a_publisher_and_the_broker_has_none() {
    let listener = ListenerSettings { verify_credentials: true, allow_anonymous: true, ..ListenerSettings::default() };
    let settings = Settings { listeners: vec![listener], ..settings() };
    everywhere(&settings, |world| {
        secured_world(world, &book(&["ann"]).anonymous(&["#"], &[]));
        world.client("nobody").connect().retain("t/nobody", 1, "nobody");
        world.publish_own("$SYS/broker/state", pantala_proto::QoS::AtMostOnce, true, "broker");
        let will = Will { retain: true, ..Will::new("t/will", "will") };
        world.client("ann").user("ann").will(will).connect().lose();
        assert_eq!(read(world, "t/+"), ["nobody", "will"]);
        book(&["ann"]).hold(world);
        assert_eq!((read(world, "t/+"), read(world, "$SYS/#")), (vec!["will".to_owned()], vec!["broker".to_owned()]));
        book(&[]).anonymous(&["#"], &[]).hold(world);
        assert_eq!((read(world, "t/+"), read(world, "$SYS/#")), (vec!["nobody".to_owned()], vec!["broker".to_owned()]));
    });
}

/// The rights of a publisher are those of its names at that time, Client Identifier included.
#[test]
fn a_publisher_is_known_by_its_client_identifier_too() {
    everywhere(&secured(), |world| {
        secured_world(world, &book(&[]).user("dev", &["dev/%c/#"], &[]));
        for name in ["one", "two"] {
            let dev = world.client(name).user("dev").connect();
            dev.must_publish(&Pub::new(&format!("dev/{name}-{}/state", world.seed()), name).qos(1).retained());
        }
        assert_eq!(read(world, "#"), ["one", "two"]);
        book(&[]).user("dev", &[&format!("dev/two-{}/#", world.seed())], &[]).hold(world);
        assert_eq!(read(world, "#"), ["two"]);
    });
}

#[test]
fn what_is_said_of_publishers_outlives_the_process() {
    everywhere_kept(&secured(), |world| {
        secured_world(world, &book(&["ann", "bob"]));
        for user in ["ann", "bob"] {
            let peer = connect(world, user);
            for worker in 0..world.workers() {
                peer.must_publish(&Pub::new(&world.topic_on(worker, &format!("{user}/")), user).qos(1).retained());
            }
            // Replaced by somebody else.
            peer.must_publish(&Pub::new("last", user).qos(1).retained());
        }
        let will = Will { retain: true, ..Will::new("will", "will") };
        world.client("w").user("ann").persistent().will(will).connect();
        let each = usize::from(world.workers());
        let mut ends = Vec::new();
        for (number, workers) in [1, 2, 3].into_iter().enumerate() {
            ends.push(if number == 1 { world.power_cut(workers, 1) } else { world.kill(workers, 1) });
        }
        for world in ends {
            book(&["bob"]).hold(&world);
            assert_eq!(read(&world, "#"), vec!["bob"; each + 1]);
            // The Will's Session has not come back; it is published by the rules of now.
            book(&["ann"]).hold(&world);
            world.seconds(30);
            let mut expected = vec!["ann"; each];
            expected.push("will");
            assert_eq!(read(&world, "#"), expected);
            book(&["bob"]).hold(&world);
            assert_eq!(read(&world, "#"), vec!["bob"; each + 1]);
            world.end();
        }
    });
}

/// Where there are no rules nobody is noted: what is retained there is delivered, whatever rules come later. The same goes for
/// a broker that is told not to.
#[test]
fn without_rules_nobody_is_noted() {
    everywhere(&secured(), |world| {
        world.set_authenticator(verify);
        world.set_rights(Arc::new(Unrestricted));
        let ann = connect(world, "ann");
        ann.retain("t", 1, "before");
        book(&[]).hold(world);
        assert_eq!(read(world, "#"), ["before"]);
        book(&["ann"]).hold(world);
        ann.retain("t", 1, "after");
        book(&[]).hold(world);
        assert_eq!(read(world, "#"), Vec::<String>::new());
    });
    let careless = Settings { check_retain_source: false, ..secured() };
    everywhere(&careless, |world| {
        secured_world(world, &book(&["ann"]));
        connect(world, "ann").retain("t", 1, "ann");
        book(&[]).hold(world);
        assert_eq!(read(world, "#"), ["ann"]);
        // Of what is retained from then on it is known.
        world.reconfigure(&secured());
        assert_eq!(read(world, "#"), ["ann"]);
        book(&["ann"]).hold(world);
        connect(world, "ann").retain("t", 1, "ann");
        book(&[]).hold(world);
        assert_eq!(read(world, "#"), Vec::<String>::new());
    });
}
