//! What a client does of its own accord: its role, played by the seed.

use std::time::{Duration, Instant};

use pantala_proto::QoS;

use super::{Client, Link, PreparedWill, Scene, Standing};
use crate::history::{Ending, Event, MessageFacts, Purpose};
use crate::payload;
use crate::plan::{Presence, Role};

/// Sizes of payloads in bytes: mostly small, and those around the borders of a Remaining Length of one, two and three
/// bytes. Payloads below the header cannot be told apart; the borders at two mebibytes are above what a broker takes.
const SIZES: [usize; 12] = [16, 16, 17, 32, 64, 110, 127, 128, 200, 1_000, 16_350, 16_384];

/// Size of the large ones.
const LARGE_BYTES: usize = 1_000_000;

/// So many of a hundred clients that connect anew do so while they are connected.
const SUPERSEDES_PERCENT: u64 = 40;

/// Whether there is new work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// There is, and so much of it should be done: 0 at the beginning of a cycle, 1 at the end of its workload.
    Working(f64),
    /// Everybody finishes what was begun.
    Draining,
}

impl Client {
    /// Begins a cycle.
    pub fn begin_cycle(&mut self, presence: Presence) {
        let now = Instant::now();
        self.presence = presence;
        self.published = 0;
        self.next_change = now + self.random.millis(10..=300);
        if let (true, Link::Away(until @ None)) = (self.is_expected(), &mut self.link) {
            *until = Some(now);
        }
    }

    /// Whether it has to be connected when all is quiet.
    pub fn is_expected(&self) -> bool {
        self.presence != Presence::Absent && !matches!(self.part.role, Role::WithWill { .. })
    }

    pub(super) fn wants_connection(&self, phase: Phase) -> bool {
        match self.part.role {
            // It would vanish when nobody counts it.
            Role::WithWill { .. } => phase != Phase::Draining,
            _ => self.presence != Presence::Absent,
        }
    }

    pub(super) fn follow_script(&mut self, scene: &mut Scene<'_>, now: Instant) {
        let is_live = matches!(self.link, Link::Live(_));
        if self.presence == Presence::Absent && is_live {
            let ending = self.any_ending();
            return self.leave(scene, ending, None);
        }
        if scene.phase == Phase::Draining {
            // All subscriptions are made again, so that the next cycle begins with them.
            self.subscriptions.iter_mut().for_each(|one| one.wanted = true);
            return;
        }
        if now < self.next_change || !is_live {
            return;
        }
        match self.part.role {
            Role::WithWill { .. } => {
                let ending = self.any_ending();
                let away = match self.random.within(0..=9) {
                    0..=5 => self.random.millis(20..=500),
                    6..=7 => self.random.millis(500..=2_000),
                    _ => self.random.millis(4_000..=16_000),
                };
                self.leave(scene, ending, Some(now + away));
                self.next_change = now + away + self.random.millis(50..=600);
                return;
            }
            Role::Changing => {
                if let Some(last) = self.subscriptions.last_mut() {
                    last.wanted = !last.wanted;
                }
                self.next_change = now + self.random.millis(20..=250);
            }
            Role::Restarting if self.random.percent(20) => {
                self.clean_start = true;
                if self.random.percent(SUPERSEDES_PERCENT) {
                    self.supersedes = true;
                    self.next_change = now + self.random.millis(100..=600);
                    return;
                }
                let ending = self.any_ending();
                self.leave(scene, ending, Some(now + self.random.clone().millis(5..=100)));
                self.next_change = now + self.random.millis(100..=600);
                return;
            }
            _ => self.next_change = now + self.random.millis(50..=400),
        }
        if self.presence == Presence::Reconnecting {
            if self.random.percent(SUPERSEDES_PERCENT) {
                self.supersedes = true;
                self.next_change = now + self.random.millis(30..=400);
                return;
            }
            let ending = self.any_ending();
            let away = self.random.millis(5..=200);
            self.leave(scene, ending, Some(now + away));
            self.next_change = now + away + self.random.millis(30..=400);
        }
    }

    /// Publishes as much as is due, and no more than may be unanswered.
    pub(super) fn publish(&mut self, scene: &mut Scene<'_>) {
        let (Role::Publisher(publishing), Phase::Working(share)) = (&self.part.role, scene.phase) else { return };
        let publishing = publishing.clone();
        let due = (publishing.messages as f64 * share.min(1.5)).ceil() as usize;
        let window = publishing.window.min(self.broker_takes);
        while self.exchanges.len() < window && self.published < due {
            let random = &mut self.random;
            let is_delete = publishing.deletes.is_some_and(|percent| random.percent(percent));
            let expiry = (!publishing.expiries.is_empty()).then(|| random.pick(&publishing.expiries));
            let facts = MessageFacts {
                topic: random.pick(&publishing.topics),
                qos: random.pick(&publishing.qos),
                retain: publishing.deletes.is_some(),
                expiry,
                purpose: if is_delete { Purpose::Delete } else { Purpose::Ordinary },
            };
            let is_large = random.within(1..=10_000) <= publishing.large;
            let bytes = if is_large { LARGE_BYTES } else { random.pick(&SIZES) };
            let message = scene.history.add_message(self.number, facts);
            let payload = if is_delete {
                Vec::new()
            } else {
                payload::encode(scene.salt, message, millis(scene.started.elapsed()), bytes)
            };
            self.published += 1;
            self.begin_exchange(scene, message, payload);
        }
    }

    /// The Will for a CONNECT, a new message each time.
    pub(super) fn prepare_will(&mut self, scene: &mut Scene<'_>) -> Option<PreparedWill> {
        let Role::WithWill { topic } = self.part.role else { return None };
        let delay = self.random.pick(&[0, 0, 1]);
        let purpose = Purpose::Will { delay };
        let facts = MessageFacts { topic, qos: QoS::ExactlyOnce, retain: false, expiry: None, purpose };
        let message = scene.history.add_message(self.number, facts);
        let payload = payload::encode(scene.salt, message, millis(scene.started.elapsed()), 40);
        scene.write(Event::Published { message });
        Some(PreparedWill { topic, delay, payload })
    }

    /// Whether all its subscriptions are there.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.iter().all(|one| one.standing == Standing::Held)
    }

    fn any_ending(&mut self) -> Ending {
        if self.random.percent(60) { Ending::Vanished } else { Ending::Disconnected }
    }
}

fn millis(duration: Duration) -> u32 {
    // A stretch lasts some seconds.
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
