//! Clients do what comes to their mind, the store commits when it likes, and the power fails in the middle of it, several
//! times on the same disk; or the process is killed, or ended, or the disk fails or fills up.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::time::Duration;

use pantala_crashlab::history::{Cast, Ending, MessageFacts, Purpose};
use pantala_proto::QoS;
use pantala_store::disk::Operation;

use super::{Casting, Laboratory};
use crate::support::{Chance, Pub};

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
    // Its Session ends while the broker runs, and while it does not.
    casting.client("shortlived", &[("t/#", drawn[0])]).session_expiry = Some(Duration::from_secs(30));
    casting.client("m0", &[("$share/g/g/#", drawn[7])]);
    casting.client("m1", &[("$share/g/g/#", drawn[7])]);
    casting.client("watcher", &[("w/#", ExactlyOnce)]);
    casting.client("with-will", &[]);
    casting.0
}

/// What happens to the disk in the middle of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The power fails within an operation; what clients do after it is in vain.
    Cut,
    /// A sync fails, and with it all that come after.
    Sync,
    /// There is no room for a while.
    Full,
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
        let trouble = match chance.below(12) {
            0..4 => Some(Trouble::Cut),
            4 => Some(Trouble::Sync),
            // Before MQTT 5 a message that is refused comes again with the next connection, behind later ones.
            5 | 6 if laboratory.history.cast.clients[1].is_v5 => Some(Trouble::Full),
            _ => None,
        };
        let (begins, ends) = (chance.below(steps), chance.below(steps));
        for step in 0..steps {
            let disk = laboratory.world.disk();
            match trouble {
                Some(Trouble::Cut) if step == begins => {
                    disk.cut_at(disk.counts().operations + 1 + chance.below(6) as u64)
                }
                Some(Trouble::Sync) if step == begins => {
                    disk.fail_at(Operation::Sync, disk.counts().syncs + 1, ErrorKind::Other);
                }
                Some(Trouble::Full) if step == begins => disk.full(Some(disk.bytes())),
                Some(Trouble::Full) if step == ends => disk.full(None),
                _ => {}
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
        let is_broken = matches!(trouble, Some(Trouble::Cut | Trouble::Sync));
        if life == lives && !is_broken {
            laboratory.world.disk().full(None);
            break;
        }
        let seconds = if chance.below(4) == 0 { 1 + chance.below(20) as u64 } else { 0 };
        let workers = 1 + chance.below(3) as u8;
        laboratory = match chance.below(6) {
            0 if trouble.is_none() => laboratory.kill(workers, seconds),
            1 if trouble.is_none() => {
                laboratory.world.shut_down();
                laboratory.world.sync();
                laboratory.read();
                laboratory.kill(workers, seconds)
            }
            _ => laboratory.power_cut(workers, seconds, chance.number()),
        };
        if chance.below(3) == 0 {
            settle(&mut laboratory);
        }
    }
    settle(&mut laboratory);
    laboratory
}

/// All finish what they have begun; after that the Wills that are still due have come.
fn settle(laboratory: &mut Laboratory) {
    let will = laboratory.number("with-will");
    laboratory.settle(&[will]);
    for _ in 0..5 {
        laboratory.world.seconds(4);
        tick(laboratory);
    }
    laboratory.settle(&[will]);
}

/// Something is recorded, and with it the time. A real store does so by itself every few seconds.
fn tick(laboratory: &Laboratory) {
    let clock = laboratory.world.client("clock").connect();
    clock.send_publish(&Pub::new("clock", "ticks").qos(1).retained());
    laboratory.world.sync();
    clock.lose();
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
            tick(laboratory);
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
