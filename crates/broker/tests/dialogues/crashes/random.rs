//! Clients do what comes to their mind, the store commits when it likes, and the power fails in the middle of it, several
//! times on the same disk.

use std::fmt::Write as _;

use pantala_crashlab::history::{Cast, Ending, MessageFacts, Purpose};
use pantala_proto::QoS;

use super::{Casting, Laboratory};
use crate::support::Chance;

/// Seeds of the ordinary test run; [`SEEDS_VARIABLE`] asks for others, as `FIRST..END`.
const SEEDS: std::ops::Range<u64> = 0..300;
const SEEDS_VARIABLE: &str = "PANTALA_CRASH_SEEDS";
/// Steps of one life at most.
const STEPS_MAX: usize = 120;
/// Messages that a publisher may have open.
const WINDOW: usize = 6;

const PUBLISHERS: [&str; 2] = ["p0", "p1"];
const TOPICS: [&str; 4] = ["t/0", "t/1", "t/2", "g/0"];

fn cast(chance: &mut Chance) -> Cast {
    use QoS::{AtLeastOnce, ExactlyOnce};
    let mut casting = Casting::default().topics(&["t/0", "t/1", "t/2", "g/0", "r/0", "r/1", "e/0", "w/0"]);
    let mut qos = || if chance.below(2) == 0 { AtLeastOnce } else { ExactlyOnce };
    let drawn = [qos(), qos(), qos(), qos(), qos(), qos(), qos(), qos()];
    casting.client("p0", &[]);
    casting.client("p1", &[]).is_v5 = chance.below(2) == 0;
    casting.client("retaining", &[]);
    casting.client("all", &[("t/#", drawn[0]), ("r/#", drawn[1])]).is_v5 = chance.below(2) == 0;
    casting.client("slow", &[("t/+", drawn[2]), ("e/#", drawn[3])]).receive_maximum = Some(1 + chance.below(3) as u16);
    casting.client("changing", &[("t/0", drawn[4]), ("t/1", drawn[5])]).is_v5 = chance.below(2) == 0;
    casting.client("restarting", &[("t/#", drawn[6])]);
    casting.client("m0", &[("$share/g/g/#", drawn[7])]);
    casting.client("m1", &[("$share/g/g/#", drawn[7])]);
    casting.client("watcher", &[("w/#", ExactlyOnce)]);
    casting.client("with-will", &[]);
    casting.0
}

/// Plays one seed.
pub fn play(seed: u64) -> Laboratory {
    let mut chance = Chance::new(seed);
    let cast = cast(&mut chance);
    let mut laboratory = Laboratory::new(cast, 1 + chance.below(3) as u8, seed);
    let lives = 2 + chance.below(3);
    for life in 1..=lives {
        if chance.below(4) > 0 {
            laboratory.world.delay_stores();
        }
        let steps = 10 + chance.below(STEPS_MAX);
        // Some lives end in the middle of an operation on the disk.
        let cut = (chance.below(3) == 0).then(|| chance.below(steps));
        for step in 0..steps {
            if cut == Some(step) {
                let disk = laboratory.world.disk();
                disk.cut_at(disk.counts().operations + 1 + chance.below(6) as u64);
            }
            act(&mut laboratory, &mut chance);
            match chance.below(8) {
                0..3 => laboratory.world.some(chance.below(12)),
                3..6 => laboratory.world.run(),
                6 => laboratory.world.sync(),
                _ => {}
            }
            laboratory.read();
        }
        if life < lives {
            let seconds = if chance.below(4) == 0 { 1 + chance.below(20) as u64 } else { 0 };
            laboratory = laboratory.power_cut(1 + chance.below(3) as u8, seconds, chance.number());
            if chance.below(3) == 0 {
                settle(&mut laboratory);
            }
        } else if cut.is_some() {
            laboratory = laboratory.power_cut(1 + chance.below(3) as u8, 0, chance.number());
        }
    }
    settle(&mut laboratory);
    laboratory
}

/// All finish what they have begun; after that the Wills that are still due have come.
fn settle(laboratory: &mut Laboratory) {
    let will = laboratory.number("with-will");
    laboratory.settle(&[will]);
    laboratory.world.seconds(20);
    laboratory.settle(&[will]);
}

fn act(laboratory: &mut Laboratory, chance: &mut Chance) {
    let client = chance.below(laboratory.actors.len());
    let name = laboratory.history.cast.clients[client].client_id.clone();
    if laboratory.actors[client].is_away() {
        let topic = laboratory.history.cast.topics.iter().position(|topic| topic == "w/0").unwrap() as u16;
        let will = (name == "with-will").then(|| (topic, [0, 0, 2][chance.below(3)]));
        return laboratory.connect(client, will);
    }
    let subscriptions = laboratory.history.cast.clients[client].subscriptions.len();
    match chance.below(24) {
        0 => laboratory.leave(client, Ending::Vanished),
        1 => laboratory.leave(client, Ending::Disconnected),
        2 if name == "restarting" => {
            laboratory.leave(client, Ending::Vanished);
            laboratory.actors[client].begin_anew();
        }
        3 => {
            // The clock of a store that stands still does so too, and what it holds back is not sent.
            for _ in 0..3 {
                laboratory.world.sync();
                laboratory.read();
            }
            laboratory.world.millis([1, 30, 700, 2_500][chance.below(4)]);
        }
        4..7 if subscriptions > 0 => {
            let place = chance.below(subscriptions);
            let wanted = name != "changing" || chance.below(3) > 0;
            laboratory.act(client, |actor, history, world| actor.change(history, world, place, wanted));
        }
        _ if subscriptions > 0 => {
            for _ in 0..1 + chance.below(4) {
                laboratory.act(client, super::Actor::answer);
            }
        }
        _ => publish(laboratory, chance, client, &name),
    }
}

fn publish(laboratory: &mut Laboratory, chance: &mut Chance, client: usize, name: &str) {
    let qos = if chance.below(2) == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
    for _ in 0..1 + chance.below(3) {
        if laboratory.actors[client].unanswered() >= WINDOW {
            return;
        }
        if name == "retaining" {
            if chance.below(4) == 0 {
                let topic = laboratory.history.cast.topics.iter().position(|topic| topic == "e/0").unwrap() as u16;
                let expiry = Some([3, 8, 3_600][chance.below(3)]);
                let facts = MessageFacts { topic, qos, retain: false, expiry, purpose: Purpose::Ordinary };
                laboratory.act(client, |actor, history, world| actor.publish(history, world, facts));
                continue;
            }
            let purpose = if chance.below(5) == 0 { Purpose::Delete } else { Purpose::Ordinary };
            // One QoS for all writes of a topic: order holds within each QoS only.
            let place = chance.below(2);
            let qos = if place == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            laboratory.publish(client, ["r/0", "r/1"][place], qos, true, purpose);
        } else if PUBLISHERS.contains(&name) {
            laboratory.publish(client, TOPICS[chance.below(TOPICS.len())], qos, false, Purpose::Ordinary);
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var(SEEDS_VARIABLE) else { return SEEDS };
    let (first, end) = text.split_once("..").expect("FIRST..END");
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn whatever_clients_do_and_whenever_the_power_fails_promises_hold() {
    let mut told = String::new();
    let mut broken = 0;
    let seeds = seeds();
    for seed in seeds.clone() {
        let laboratory = play(seed);
        let violations = laboratory.check();
        let Some(first) = violations.first() else { continue };
        broken += 1;
        let _ = writeln!(told, "seed {seed}: {} broken: {} (of {})", first.promise, first.what, violations.len());
        if broken == 1 {
            told += &laboratory.around(first);
        }
    }
    assert!(broken == 0, "{broken} of seeds {seeds:?}\n{told}");
}
