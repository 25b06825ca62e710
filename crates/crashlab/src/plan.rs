//! Who takes part and what is done to the broker: drawn from a seed, and from nothing else.

use std::time::Duration;

use pantala_proto::QoS;

use crate::fault::FaultKind;
use crate::history::{Cast, ClientFacts, ClientNumber, SubscriptionFacts, TopicNumber};
use crate::random::Random;

/// Cycles that a stretch has at most.
const STRETCH_CYCLES_MAX: usize = 8;

/// Length of a workload in milliseconds. Short ones are frequent: a crash soon after a beginning finds other bugs.
const WORKLOADS: [(u64, u64); 4] = [(200, 400), (200, 700), (400, 1_200), (800, 3_000)];

/// What a client does with a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Connected whenever it can be.
    Present,
    /// Not there.
    Absent,
    /// Leaves and comes back all the time.
    Reconnecting,
}

/// What a client is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes.
    Publisher(Publishing),
    /// Receives, and holds each acknowledgement back for so long.
    Subscriber {
        /// Between a PUBLISH and the answer.
        holds: Duration,
    },
    /// Receives, and removes and makes its last subscription anew all the time.
    Changing,
    /// Receives; sometimes it connects with Clean Start.
    Restarting,
    /// Connects with a Will on this topic, and mostly vanishes.
    WithWill {
        /// Topic of the Will.
        topic: TopicNumber,
    },
}

/// How a publisher publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// Which topics.
    pub topics: Vec<TopicNumber>,
    /// At which QoS; one is drawn for each message.
    pub qos: Vec<QoS>,
    /// Messages not answered at once.
    pub window: usize,
    /// Messages of a cycle.
    pub messages: usize,
    /// They are retained, and so many of a hundred are deletes.
    pub deletes: Option<u64>,
    /// Message Expiry Intervals in seconds, one of which is drawn for each message; none for messages that stay.
    pub expiries: Vec<u32>,
    /// So many of ten thousand messages are as large as a broker takes.
    pub large: u64,
}

/// A client and what it is for.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it does.
    pub role: Role,
    /// How it may spend a cycle; one is drawn for each.
    pub presences: Vec<Presence>,
}

/// What happens in one cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CyclePlan {
    /// How long the broker works before the fault.
    pub workload: Duration,
    /// The fault.
    pub fault: FaultKind,
    /// How long it lasts, for those that last.
    pub lasts: Duration,
    /// Whether a pause, a full disk or a failing one is followed by a power cut rather than a kill; for a pause, whether
    /// anything follows.
    pub worse: bool,
    /// Seconds by which the wall clock jumps.
    pub clock_jump: i64,
    /// At which sync EIO begins.
    pub eio_from: u64,
    /// How long the broker is down.
    pub down: Duration,
    /// A second kill, so long after the restart.
    pub second_kill: Option<Duration>,
    /// How long the work goes on after the restart.
    pub aftermath: Duration,
    /// How each client spends it.
    pub presences: Vec<Presence>,
}

/// Several cycles on one data directory.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Who takes part; no messages yet.
    pub cast: Cast,
    /// What for, by client.
    pub parts: Vec<Part>,
    /// What happens.
    pub cycles: Vec<CyclePlan>,
    /// For what the clients draw while they work.
    pub random: Random,
    /// Mixed into payloads, so that what another stretch left behind is not taken for ours.
    pub salt: u64,
}

impl Stretch {
    /// The stretch that begins with this cycle of a run, of so many cycles at most.
    pub fn draw(seed: u64, first_cycle: u32, faults: &[FaultKind], cycles_max: usize) -> Self {
        let origin = Random::new(seed).branch(u64::from(first_cycle));
        let (cast, parts) = Casting::draw(&mut origin.branch(1));
        let mut random = origin.branch(2);
        let count = random.count(2..=STRETCH_CYCLES_MAX).min(cycles_max.max(1));
        let numbers = (u64::from(first_cycle)..).take(count);
        let mut cycles: Vec<CyclePlan> =
            numbers.map(|number| CyclePlan::draw(&mut random, fault_of(seed, number, faults), &parts)).collect();
        if let Some(last) = cycles.last_mut() {
            // Everybody comes back in the end, so that nothing stays unseen.
            last.presences.iter_mut().filter(|one| **one == Presence::Absent).for_each(|one| *one = Presence::Present);
        }
        Self { cast, parts, cycles, random: origin.branch(3), salt: origin.branch(4).number() }
    }
}

impl CyclePlan {
    fn draw(random: &mut Random, fault: FaultKind, parts: &[Part]) -> Self {
        let (shortest, longest) = random.pick(&WORKLOADS);
        Self {
            workload: random.millis(shortest..=longest),
            fault,
            lasts: random.millis(if fault == FaultKind::Pause { 100..=2_000 } else { 100..=600 }),
            worse: random.percent(50),
            clock_jump: random.pick(&[-86_400, -3_600, -60, 60, 3_600, 86_400]),
            eio_from: random.within(1..=6),
            down: random.millis(5..=120),
            second_kill: random.percent(20).then(|| random.millis(0..=60)),
            aftermath: random.millis(100..=400),
            presences: parts.iter().map(|part| random.pick(&part.presences)).collect(),
        }
    }
}

/// The fault of a cycle. All kinds are dealt out, in an order of chance, before the first comes again: so a short run has
/// each of them.
fn fault_of(seed: u64, cycle: u64, faults: &[FaultKind]) -> FaultKind {
    let count = faults.len() as u64;
    // Stretches branch off by their first cycle, which has fewer bits.
    let mut random = Random::new(seed).branch(u64::MAX - cycle / count);
    let mut deck = faults.to_vec();
    for last in (1..deck.len()).rev() {
        deck.swap(last, random.count(0..=last));
    }
    deck[(cycle % count) as usize]
}

/// Collects the cast.
#[derive(Default)]
struct Casting {
    cast: Cast,
    parts: Vec<Part>,
}

impl Casting {
    fn draw(random: &mut Random) -> (Cast, Vec<Part>) {
        use Presence::{Absent, Present, Reconnecting};
        use QoS::{AtLeastOnce, ExactlyOnce};
        let mut this = Self::default();
        let publishers = random.count(3..=6);
        let hot: Vec<TopicNumber> = (0..2).map(|number| this.topic(format!("lab/hot/{number}"))).collect();
        for number in 0..publishers {
            let own = (0..3).map(|place| this.topic(format!("lab/p/{number}/{place}")));
            let topics = own.chain(hot.iter().copied()).collect();
            let qos = random.pick(&[&[AtLeastOnce][..], &[ExactlyOnce], &[AtLeastOnce, ExactlyOnce]]).to_vec();
            let window = random.pick(&[1, 2, 5, 20, 20]);
            let messages = random.count(20..=300);
            let large = if random.percent(15) { 20 } else { 0 };
            let publishing = Publishing { topics, qos, window, messages, deletes: None, expiries: Vec::new(), large };
            this.publisher(random, publishing, vec![Present, Present, Present, Reconnecting]);
        }
        for number in 0..2 {
            let topics = (0..3).map(|place| this.topic(format!("lab/r/{number}/{place}"))).collect();
            let qos = vec![random.pick(&[AtLeastOnce, ExactlyOnce])];
            let (window, messages) = (random.pick(&[1, 5, 20]), random.count(5..=60));
            let publishing =
                Publishing { topics, qos, window, messages, deletes: Some(15), expiries: Vec::new(), large: 0 };
            this.publisher(random, publishing, vec![Present, Present, Reconnecting]);
        }
        let topics = vec![this.topic("lab/e/0".into())];
        let publishing = Publishing {
            topics,
            qos: vec![AtLeastOnce],
            window: 5,
            messages: random.count(20..=60),
            deletes: None,
            expiries: vec![1, 1, 2, 3_600],
            large: 0,
        };
        let number = this.publisher(random, publishing, vec![Present]);
        this.cast.clients[usize::from(number)].is_v5 = true;

        // Everything, by clients that stay, that come and go, that are slow, and that miss whole cycles.
        let slow = Duration::from_millis(random.within(1..=15));
        for (name, filters, presences, holds) in [
            ("all", &["lab/p/#"][..], &[Present][..], Duration::ZERO),
            ("slow", &["lab/p/#", "lab/hot/#"], &[Present, Present, Reconnecting], slow),
            ("absent", &["lab/p/+/0", "lab/hot/#"], &[Absent, Absent, Present], Duration::ZERO),
            ("fickle", &["lab/hot/#", "lab/p/+/1"], &[Reconnecting], Duration::ZERO),
            ("expiring", &["lab/e/#"], &[Absent, Absent, Present, Reconnecting], Duration::ZERO),
            ("follower", &["lab/r/#"], &[Present, Reconnecting, Absent], Duration::ZERO),
        ] {
            let qos = random.pick(&[AtLeastOnce, ExactlyOnce]);
            let subscriptions = filters.iter().map(|filter| plain(filter, qos)).collect();
            let number = this.client(random, name, subscriptions, Role::Subscriber { holds }, presences);
            if matches!(name, "slow" | "expiring") {
                let facts = &mut this.cast.clients[usize::from(number)];
                facts.is_v5 = true;
                facts.receive_maximum = Some(random.pick(&[1, 2, 5, 10]));
            }
        }
        // A Session that ends soon.
        let subscriptions = vec![plain("lab/p/+/2", random.pick(&[AtLeastOnce, ExactlyOnce]))];
        let role = Role::Subscriber { holds: Duration::ZERO };
        let number = this.client(random, "shortlived", subscriptions, role, &[Absent, Absent, Absent, Reconnecting]);
        let facts = &mut this.cast.clients[usize::from(number)];
        (facts.is_v5, facts.session_expiry) = (true, Some(Duration::from_secs(random.pick(&[1, 2]))));
        // Subscriptions that change, Sessions that begin anew.
        let qos = random.pick(&[AtLeastOnce, ExactlyOnce]);
        let subscriptions = vec![plain("lab/p/0/#", qos), plain("lab/p/1/#", qos)];
        this.client(random, "changing", subscriptions, Role::Changing, &[Present, Reconnecting]);
        let subscriptions = vec![plain("lab/p/+/0", random.pick(&[AtLeastOnce, ExactlyOnce]))];
        let presences = [Present, Reconnecting, Absent];
        let number = this.client(random, "restarting", subscriptions, Role::Restarting, &presences);
        // With Clean Session 1 the Session of an MQTT 3.1.1 client would end with its connection.
        this.cast.clients[usize::from(number)].is_v5 = true;
        // A group.
        let qos = random.pick(&[AtLeastOnce, ExactlyOnce]);
        for member in 0..random.count(2..=3) {
            let subscription = SubscriptionFacts { share: Some("group".into()), ..plain("lab/hot/#", qos) };
            let role = Role::Subscriber { holds: Duration::ZERO };
            let name = format!("member-{member}");
            let number = this.client(random, &name, vec![subscription], role, &[Present, Reconnecting]);
            this.cast.clients[usize::from(number)].is_v5 = true;
        }
        // Wills, and who watches them.
        for number in 0..2 {
            let topic = this.topic(format!("lab/w/{number}"));
            let name = format!("will-{number}");
            let is_brief = number == 1;
            let number = this.client(random, &name, Vec::new(), Role::WithWill { topic }, &[Present]);
            let facts = &mut this.cast.clients[usize::from(number)];
            facts.is_v5 = true;
            if is_brief {
                // After a restart its Will, should it still be there, comes with the end of the Session, and so soon.
                facts.session_expiry = Some(Duration::from_secs(random.within(1..=2)));
            }
        }
        let subscriptions = vec![plain("lab/w/#", ExactlyOnce)];
        let role = Role::Subscriber { holds: Duration::ZERO };
        this.client(random, "watcher", subscriptions, role, &[Present]);
        this.cast.messages.resize(this.cast.clients.len(), Vec::new());
        (this.cast, this.parts)
    }

    fn topic(&mut self, name: String) -> TopicNumber {
        self.cast.topics.push(name);
        // There are a few dozen.
        self.cast.topics.len() as TopicNumber - 1
    }

    fn publisher(&mut self, random: &mut Random, publishing: Publishing, presences: Vec<Presence>) -> ClientNumber {
        let name = format!("publisher-{}", self.parts.len());
        self.client(random, &name, Vec::new(), Role::Publisher(publishing), &presences)
    }

    fn client(
        &mut self,
        random: &mut Random,
        name: &str,
        subscriptions: Vec<SubscriptionFacts>,
        role: Role,
        presences: &[Presence],
    ) -> ClientNumber {
        self.parts.push(Part { role, presences: presences.to_vec() });
        self.cast.clients.push(ClientFacts {
            client_id: name.to_owned(),
            is_v5: random.percent(50),
            receive_maximum: None,
            session_expiry: None,
            subscriptions,
        });
        // There are a few dozen.
        self.cast.clients.len() as ClientNumber - 1
    }
}

fn plain(filter: &str, qos: QoS) -> SubscriptionFacts {
    SubscriptionFacts { filter: filter.into(), qos, share: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::matches;

    #[test]
    fn a_seed_gives_the_same_plan_again() {
        let draw = |seed| Stretch::draw(seed, 5, &[FaultKind::Kill, FaultKind::Power], 20);
        let (one, two) = (draw(3), draw(3));
        assert_eq!((&one.cast, &one.cycles, one.salt), (&two.cast, &two.cycles, two.salt));
        assert_ne!(one.salt, draw(4).salt);
    }

    #[test]
    fn no_fault_comes_again_before_all_have_come() {
        use FaultKind::{Clock, Eio, Enospc, Kill, Pause, Power, Term};
        let faults = [Kill, Power, Pause, Term, Enospc, Eio, Clock];
        let mut orders = std::collections::BTreeSet::new();
        for seed in 0..20 {
            for round in 0..3 {
                let mut dealt: Vec<FaultKind> =
                    (round * 7..(round + 1) * 7).map(|cycle| fault_of(seed, cycle, &faults)).collect();
                orders.insert(dealt.clone());
                dealt.sort_unstable();
                assert_eq!(dealt, faults);
            }
        }
        assert!(orders.len() > 50, "{} orders", orders.len());
        // A stretch has those of its own cycles, wherever it begins.
        for plan in Stretch::draw(3, 5, &faults, 20).cycles.iter().zip(5..) {
            assert_eq!(plan.0.fault, fault_of(3, plan.1, &faults));
        }
    }

    #[test]
    fn everybody_is_there_in_the_last_cycle() {
        for seed in 0..50 {
            let stretch = Stretch::draw(seed, 0, &[FaultKind::Kill], 20);
            let last = stretch.cycles.last().unwrap();
            assert!(!last.presences.contains(&Presence::Absent));
        }
    }

    #[test]
    fn no_client_has_two_filters_for_one_topic() {
        for seed in 0..50 {
            let stretch = Stretch::draw(seed, 0, &[FaultKind::Kill], 20);
            for client in &stretch.cast.clients {
                for topic in &stretch.cast.topics {
                    let count = client.subscriptions.iter().filter(|one| matches(&one.filter, topic)).count();
                    assert!(count <= 1, "{} {topic}", client.client_id);
                }
            }
        }
    }
}
