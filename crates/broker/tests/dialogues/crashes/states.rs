//! Short stories, cut at every operation on the disk, with several of the states that the disk may be in then.

use pantala_crashlab::history::{Cast, Ending, Purpose};
use pantala_proto::QoS::{self, AtLeastOnce, ExactlyOnce};

use super::{Casting, Laboratory};

/// States of the disk that are tried for each cut.
const STATES: u64 = 8;

/// One story: what is there before, and what is cut. The publisher is client 0, the subscriber client 1.
struct Story {
    name: &'static str,
    qos: QoS,
    before: fn(&mut Laboratory),
    story: fn(&mut Laboratory),
}

const P: usize = 0;
const S: usize = 1;
const W: usize = 2;

fn cast(qos: QoS) -> Cast {
    let mut casting = Casting::default().topics(&["t/0", "r/0", "w/0"]);
    casting.client("publisher", &[]);
    casting.client("subscriber", &[("t/#", qos)]);
    casting.client("watcher", &[("w/#", ExactlyOnce)]);
    casting.client("with-will", &[]);
    casting.0
}

fn publish(laboratory: &mut Laboratory, qos: QoS) {
    laboratory.publish(P, "t/0", qos, false, Purpose::Ordinary);
    laboratory.world.run();
    laboratory.read();
}

fn retain(laboratory: &mut Laboratory, purpose: Purpose) {
    laboratory.publish(P, "r/0", AtLeastOnce, true, purpose);
    laboratory.world.run();
    laboratory.read();
}

/// Connects the subscriber, with its subscription, and the publisher.
fn both(laboratory: &mut Laboratory) {
    for client in [P, S] {
        laboratory.connect(client, None);
    }
    laboratory.rest();
    subscribe(laboratory, S, true);
}

fn subscribe(laboratory: &mut Laboratory, client: usize, wanted: bool) {
    laboratory.act(client, |actor, history, world| actor.change(history, world, 0, wanted));
    laboratory.rest();
}

fn absent_subscriber(laboratory: &mut Laboratory) {
    both(laboratory);
    laboratory.leave(S, Ending::Vanished);
}

fn answer(laboratory: &mut Laboratory) {
    laboratory.act(S, super::Actor::answer);
    laboratory.world.run();
    laboratory.read();
}

const STORIES: [Story; 14] = [
    Story {
        name: "one message at QoS 1 for an absent client",
        qos: AtLeastOnce,
        before: absent_subscriber,
        story: |laboratory| publish(laboratory, AtLeastOnce),
    },
    Story {
        name: "one message at QoS 1 to a client that is there, and its PUBACK",
        qos: AtLeastOnce,
        before: both,
        story: |laboratory| {
            publish(laboratory, AtLeastOnce);
            answer(laboratory);
        },
    },
    Story {
        name: "one message at QoS 2, step by step at both ends",
        qos: ExactlyOnce,
        before: both,
        story: |laboratory| {
            publish(laboratory, ExactlyOnce);
            answer(laboratory);
            laboratory.rest();
        },
    },
    Story {
        name: "one message at QoS 2 for an absent client, who comes and takes it",
        qos: ExactlyOnce,
        before: absent_subscriber,
        story: |laboratory| {
            publish(laboratory, ExactlyOnce);
            laboratory.connect(S, None);
            laboratory.rest();
        },
    },
    Story {
        name: "a Retained Message that is replaced",
        qos: AtLeastOnce,
        before: |laboratory| {
            both(laboratory);
            retain(laboratory, Purpose::Ordinary);
        },
        story: |laboratory| {
            retain(laboratory, Purpose::Ordinary);
            retain(laboratory, Purpose::Ordinary);
        },
    },
    Story {
        name: "a Retained Message that is deleted, and one that comes after it",
        qos: AtLeastOnce,
        before: |laboratory| {
            both(laboratory);
            retain(laboratory, Purpose::Ordinary);
        },
        story: |laboratory| {
            retain(laboratory, Purpose::Delete);
            retain(laboratory, Purpose::Ordinary);
            retain(laboratory, Purpose::Delete);
        },
    },
    Story {
        name: "a Session that begins, and its subscription",
        qos: AtLeastOnce,
        before: |laboratory| {
            laboratory.connect(P, None);
            laboratory.rest();
        },
        story: |laboratory| {
            laboratory.connect(S, None);
            laboratory.rest();
            subscribe(laboratory, S, true);
            publish(laboratory, AtLeastOnce);
        },
    },
    Story {
        name: "a subscription that ends",
        qos: AtLeastOnce,
        before: both,
        story: |laboratory| {
            subscribe(laboratory, S, false);
            publish(laboratory, AtLeastOnce);
        },
    },
    Story {
        name: "a Session that ends with all it has, and the next one",
        qos: AtLeastOnce,
        before: |laboratory| {
            absent_subscriber(laboratory);
            publish(laboratory, AtLeastOnce);
        },
        story: |laboratory| {
            laboratory.actors[S].begin_anew();
            laboratory.connect(S, None);
            laboratory.rest();
            subscribe(laboratory, S, true);
            publish(laboratory, AtLeastOnce);
        },
    },
    Story {
        name: "a queue that is taken",
        qos: AtLeastOnce,
        before: |laboratory| {
            absent_subscriber(laboratory);
            (0..8).for_each(|_| publish(laboratory, AtLeastOnce));
        },
        story: |laboratory| {
            laboratory.connect(S, None);
            laboratory.rest();
        },
    },
    Story {
        name: "a segment that is full, and the next one",
        qos: AtLeastOnce,
        before: |laboratory| {
            absent_subscriber(laboratory);
            (0..30).for_each(|_| publish(laboratory, AtLeastOnce));
        },
        story: |laboratory| (0..16).for_each(|_| publish(laboratory, AtLeastOnce)),
    },
    Story {
        name: "segments of messages that are done, and get cleaned",
        qos: AtLeastOnce,
        before: |laboratory| {
            absent_subscriber(laboratory);
            (0..120).for_each(|_| publish(laboratory, AtLeastOnce));
        },
        story: |laboratory| {
            laboratory.connect(S, None);
            laboratory.rest();
            publish(laboratory, AtLeastOnce);
        },
    },
    Story {
        name: "a client that vanishes, and its Will",
        qos: AtLeastOnce,
        before: |laboratory| {
            laboratory.connect(W, None);
            laboratory.connect(W + 1, Some((2, 0)));
            laboratory.rest();
            subscribe(laboratory, W, true);
        },
        story: |laboratory| {
            laboratory.leave(W + 1, Ending::Vanished);
            laboratory.rest();
        },
    },
    Story {
        name: "a client that takes its Will with it",
        qos: AtLeastOnce,
        before: |laboratory| {
            laboratory.connect(W, None);
            laboratory.rest();
            subscribe(laboratory, W, true);
        },
        story: |laboratory| {
            laboratory.connect(W + 1, Some((2, 0)));
            laboratory.rest();
            laboratory.leave(W + 1, Ending::Disconnected);
            laboratory.rest();
        },
    },
];

/// The same story in the same world, cut at an operation.
fn told(story: &Story, workers: u8, cut: Option<u64>) -> (Laboratory, u64) {
    let mut laboratory = Laboratory::new(cast(story.qos), workers, 0);
    (story.before)(&mut laboratory);
    let disk = laboratory.world.disk();
    let before = disk.counts().operations;
    if let Some(cut) = cut {
        disk.cut_at(before + cut);
    }
    (story.story)(&mut laboratory);
    let operations = disk.counts().operations - before;
    (laboratory, operations)
}

#[test]
fn at_whatever_operation_the_power_fails_what_was_acknowledged_is_there_and_nothing_else() {
    for story in &STORIES {
        for workers in 1..=2 {
            let (whole, operations) = told(story, workers, None);
            assert!((1..1_000).contains(&operations), "{}: {operations}", story.name);
            // One more: the power fails when all is over.
            for cut in 1..=operations + 1 {
                let (laboratory, _) = told(story, workers, Some(cut));
                for state in 0..STATES {
                    let mut next = laboratory.power_cut(3 - workers, 0, cut * STATES + state);
                    next.settle(&[W + 1]);
                    next.world.seconds(15);
                    next.settle(&[W + 1]);
                    let about =
                        format!("{}, {workers} workers, cut at {cut} of {operations}, state {state}", story.name);
                    next.must_hold(&about);
                }
            }
            drop(whole);
        }
    }
}
