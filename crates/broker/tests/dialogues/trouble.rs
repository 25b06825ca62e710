//! Disks that are full, have failed, or cannot be read.

use std::io::ErrorKind;

use pantala_broker::Settings;
use pantala_proto::ReasonCode;
use pantala_store::disk::{Disk, DiskFile, Operation};

use crate::support::{Pub, Will, World, settings};

/// With RETAIN at QoS 0 nothing is promised: it was kept in memory all the time that the disk was full.
#[test]
fn with_the_disk_full_messages_at_qos_0_are_delivered_and_not_retained() {
    for workers in 1..=2 {
        let world = World::new(&settings(), workers, 0);
        let (p, s) = (world.client("p").connect(), world.client("s").connect());
        p.retain("t", 1, "before");
        s.subscribe("t", 0);
        s.take("t", "before");
        let sleeper = world.client("sleeper").persistent().connect();
        sleeper.subscribe("kept", 1);
        sleeper.lose();
        world.disk().full(Some(world.disk().bytes()));
        for number in 0..2_000 {
            p.send_publish(&Pub::new("kept", &format!("{number:0>200}")).qos(1).id(9));
            world.run();
            if p.take_everything().is_empty() && p.is_closed() {
                break;
            }
        }
        let p = world.client("another").connect();
        p.retain("t", 0, "while it is full");
        s.take("t", "while it is full");
        assert_eq!(world.counters().dropped_retained_store_refused, 1);
        let late = world.client("late").connect();
        late.subscribe("t", 0);
        late.take("t", "before");
        world.disk().full(None);
        world.sync();
        p.retain("t", 0, "after");
        late.take("t", "after");
        let after = world.kill(workers, 0);
        let late = after.client("late").connect();
        late.subscribe("t", 0);
        late.take("t", "after");
    }
}

/// Who met the failing disk with a CONNECT was never answered, and was left there until its Keep Alive was over.
#[test]
fn who_waits_to_be_let_in_when_the_disk_fails_is_refused() {
    for workers in 1..=2 {
        for v3 in [false, true] {
            let world = World::new(&settings(), workers, 0);
            let watcher = world.client("watcher").connect();
            watcher.subscribe("will", 0);
            let away = world.client("away").persistent().connect();
            away.disconnect();
            world.disk().fail_at(Operation::Sync, world.disk().counts().syncs + 1, ErrorKind::Other);
            // Nothing of what is withheld comes before or behind the refusal, and who was not let in has no Will.
            let client = world.client("client").persistent().will(Will::new("will", "dead"));
            let client = if v3 { client.v3() } else { client };
            client.refused(ReasonCode::ServerUnavailable);
            watcher.expect_nothing();
            // So is everybody who comes later, and everybody else is served.
            world.client("away").persistent().refused(ReasonCode::ServerUnavailable);
            world.client("passing").connect().publish("will", 0, "a message");
            watcher.take("will", "a message");
            assert_eq!(world.connections(), 2);
        }
    }
}

/// Three messages for a Session, which wait on the disk only, as its broker has been started since.
fn waiting_on_disk() -> World {
    let world = World::new(&settings(), 1, 0);
    let s = world.client("s").persistent().connect();
    s.subscribe("t", 1);
    s.lose();
    let p = world.client("p").connect();
    ["one", "two", "three"].into_iter().for_each(|payload| p.publish("t", 1, payload));
    world.kill(1, 0)
}

#[test]
fn what_cannot_be_read_waits_until_it_can() {
    let world = waiting_on_disk();
    world.disk().fail_reads(Some(ErrorKind::Other));
    let s = world.client("s").persistent().resume();
    s.expect_nothing();
    assert!(world.counters().store_read_errors > 0);
    s.lose();
    world.disk().fail_reads(None);
    let s = world.client("s").persistent().resume();
    ["one", "two", "three"].into_iter().for_each(|payload| drop(s.take("t", payload)));
    assert_eq!(world.counters().dropped_store_damaged, 0);
    world.end();
}

/// One message that was damaged kept all behind it from their receiver, and nobody was told.
#[test]
fn what_is_damaged_is_dropped_and_counted_and_what_came_after_it_goes_out() {
    let world = waiting_on_disk();
    let disk = world.disk();
    // The entry of a message ends with its payload; what stands before it tells whose it is.
    for name in disk.list().unwrap() {
        let bytes = disk.read(&name).unwrap();
        for (at, _) in bytes.windows(3).enumerate().filter(|(_, window)| window == b"two") {
            disk.open(&name).unwrap().write_at(at as u64 - 16, &[0; 19]).unwrap();
        }
    }
    let s = world.client("s").persistent().resume();
    s.take("t", "one");
    s.take("t", "three");
    assert_eq!(world.counters().dropped_store_damaged, 1);
    // It is settled: nobody asks for it again.
    s.lose();
    world.client("s").persistent().resume().expect_nothing();
    assert_eq!(world.counters().dropped_store_damaged, 1);
}

/// What waits in a queue at QoS 0 is none of the store's business: when it went, the store took the message for settled.
#[test]
fn the_end_of_a_queue_at_qos_0_takes_nothing_from_others() {
    let settings = Settings { queue_qos0_messages: true, ..settings() };
    for workers in 1..=3 {
        let world = World::new(&settings, workers, 0);
        for (name, qos) in [("kept", 1), ("passing", 0)] {
            let s = world.client(name).persistent().connect();
            s.subscribe("t", qos);
            s.lose();
        }
        let p = world.client("p").connect();
        p.publish("t", 1, "one");
        // With Clean Start, its Session ends.
        world.client("passing").connect().disconnect();
        p.publish("t", 1, "two");
        let world = world.power_cut(workers, 0);
        let s = world.client("kept").persistent().resume();
        s.take("t", "one");
        s.take("t", "two");
        world.end();
    }
}
