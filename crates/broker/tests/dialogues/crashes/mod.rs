//! Lives of a broker that end with a power cut, and what clients may expect of the next one.
//!
//! Clients write down what they see as those of the crash laboratory do, and its checker judges it: one list of promises
//! for real processes and for the simulated world. Here a seed decides everything, down to the sectors that a power
//! cut leaves, so whatever fails once fails again.
//!
//! `random.rs` lets clients do whatever comes to their mind; `states.rs` tries every moment of short stories, and
//! `mutants.rs`, with the feature of that name, checks whether bugs are found.

mod actor;
#[cfg(feature = "mutants")]
mod mutants;
mod random;
mod states;

use std::time::Duration;

use pantala_crashlab::checker::{self, Rules, Violation};
use pantala_crashlab::history::{
    Cast, ClientFacts, ClientNumber, Ending, Event, History, MessageFacts, Purpose, SubscriptionFacts, UNKNOWN_TOPIC,
};
use pantala_proto::QoS;

use crate::support::{Received, Sub, World, settings};
use actor::{Actor, content, write};

/// Where Retained Messages are: one filter for all.
const RETAINED: &str = "r/#";

/// Rounds in which everybody answers what has come. A message takes a few, and a queue goes by the Receive Maximum.
const ROUNDS_MAX: usize = 4_000;

/// A world with its clients, and what has happened so far, over all its lives.
struct Laboratory {
    world: World,
    history: History,
    actors: Vec<Actor>,
    probes: u16,
}

/// Who takes part.
#[derive(Default)]
struct Casting(Cast);

impl Casting {
    fn topics(mut self, names: &[&str]) -> Self {
        self.0.topics = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    fn client(&mut self, name: &str, filters: &[(&str, QoS)]) -> &mut ClientFacts {
        let subscriptions = filters.iter().map(|(filter, qos)| {
            let (share, filter) = match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
                Some((share, filter)) => (Some(share.to_owned()), filter),
                None => (None, *filter),
            };
            SubscriptionFacts { filter: filter.to_owned(), qos: *qos, share }
        });
        self.0.clients.push(ClientFacts {
            client_id: name.to_owned(),
            is_v5: true,
            subscriptions: subscriptions.collect(),
            ..ClientFacts::default()
        });
        self.0.messages.push(Vec::new());
        self.0.clients.last_mut().unwrap()
    }
}

impl Laboratory {
    fn new(cast: Cast, workers: u8, seed: u64) -> Self {
        let actors = cast.clients.iter().enumerate();
        let actors = actors.map(|(number, facts)| Actor::new(number as ClientNumber, facts.subscriptions.len()));
        let actors = actors.collect();
        let world = World::new(&settings(), workers, seed);
        Self { world, history: History { cast, moments: Vec::new() }, actors, probes: 0 }
    }

    fn write(&mut self, event: Event) {
        write(&mut self.history, &self.world, event);
    }

    /// The number of a client.
    fn number(&self, name: &str) -> usize {
        self.history.cast.clients.iter().position(|facts| facts.client_id == name).unwrap()
    }

    fn act<T>(&mut self, client: usize, act: impl FnOnce(&mut Actor, &mut History, &World) -> T) -> T {
        act(&mut self.actors[client], &mut self.history, &self.world)
    }

    /// Everybody takes what has come.
    fn read(&mut self) {
        for client in 0..self.actors.len() {
            self.act(client, Actor::read);
        }
    }

    fn connect(&mut self, client: usize, will: Option<(u16, u32)>) {
        self.act(client, |actor, history, world| actor.connect(history, world, will));
    }

    fn publish(&mut self, client: usize, topic: &str, qos: QoS, retain: bool, purpose: Purpose) {
        let topic = self.history.cast.topics.iter().position(|name| name == topic).unwrap() as u16;
        let facts = MessageFacts { topic, qos, retain, expiry: None, purpose };
        self.act(client, |actor, history, world| actor.publish(history, world, facts));
    }

    /// Lets all happen that can happen, without any new work; clients answer all they get.
    fn rest(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.world.run();
            self.read();
            let mut busy = false;
            for client in 0..self.actors.len() {
                while self.actors[client].is_live() && self.actors[client].held() > 0 {
                    self.act(client, Actor::answer);
                    busy = true;
                }
            }
            self.world.run();
            let answered = self.history.moments.len();
            self.read();
            if !busy && self.history.moments.len() == answered {
                return;
            }
        }
        panic!("clients and broker do not come to rest");
    }

    /// The power fails. Of what the disk may have then, `state` chooses; another broker starts on that.
    fn power_cut(&self, workers: u8, seconds: u64, state: u64) -> Self {
        self.next_life(|world| world.power_cut_to(workers, seconds, state))
    }

    /// The process is killed, and another broker starts on the same disk.
    fn kill(&self, workers: u8, seconds: u64) -> Self {
        self.next_life(|world| world.kill(workers, seconds))
    }

    fn next_life(&self, end: impl FnOnce(&World) -> World) -> Self {
        let mut history = self.history.clone();
        let actors = self.actors.iter().map(|actor| actor.cut_off(&mut history, &self.world)).collect();
        write(&mut history, &self.world, Event::BrokerGone);
        assert_eq!(self.world.panics(), 0);
        let world = end(&self.world);
        write(&mut history, &world, Event::BrokerBack { after: Duration::ZERO });
        Self { world, history, actors, probes: self.probes }
    }

    /// Everybody comes and finishes what was begun, but for those who stay away.
    fn settle(&mut self, absent: &[usize]) {
        self.world.stop_delaying();
        let expected: Vec<usize> = (0..self.actors.len()).filter(|client| !absent.contains(client)).collect();
        for _ in 0..10 {
            for &client in &expected {
                if self.actors[client].is_away() {
                    self.connect(client, None);
                }
            }
            self.rest();
            for &client in &expected {
                for place in 0..self.history.cast.clients[client].subscriptions.len() {
                    self.act(client, |actor, history, world| actor.change(history, world, place, true));
                }
            }
            self.rest();
            let busy: Vec<usize> =
                expected.iter().copied().filter(|client| !self.actors[*client].is_at_rest()).collect();
            if busy.is_empty() {
                break;
            }
            // Before MQTT 5 what is refused is not answered, and comes again with the next connection.
            for client in busy {
                self.leave(client, Ending::Vanished);
            }
        }
        for &client in &expected {
            self.write(Event::Settled { client: client as ClientNumber });
        }
        self.probe();
    }

    /// A fresh client reads all Retained Messages.
    fn probe(&mut self) {
        self.probes += 1;
        let probe = self.probes;
        self.write(Event::ProbeBegan { probe });
        let peer = self.world.client(&format!("probe-{probe}")).connect();
        peer.send_subscribe(&Sub::new(RETAINED, 0));
        self.world.run();
        for packet in peer.drain() {
            if let Received::Publish(message) = packet {
                let topic = self.history.cast.topics.iter().position(|name| *name == message.topic);
                let topic = topic.map_or(UNKNOWN_TOPIC, |place| place as u16);
                self.write(Event::ProbeFound { probe, topic, content: content(&message.payload) });
            }
        }
        peer.disconnect();
        self.write(Event::ProbeEnded { probe });
    }

    fn leave(&mut self, client: usize, ending: Ending) {
        self.act(client, |actor, history, world| actor.leave(history, world, ending));
    }

    /// What the checker has to say.
    fn check(&self) -> Vec<Violation> {
        checker::check(&self.history, Rules::default())
    }

    /// Nothing is broken, or it is said what.
    #[track_caller]
    fn must_hold(&self, about: &str) {
        let violations = self.check();
        if let Some(first) = violations.first() {
            panic!("{about}: {} broken: {}\n{}", first.promise, first.what, self.around(first));
        }
    }

    /// The events that a violation is about.
    fn around(&self, violation: &Violation) -> String {
        let moments = self.history.moments.iter().enumerate();
        let concerned = moments.filter(|(_, moment)| {
            matches!(moment.event, Event::BrokerGone | Event::BrokerBack { .. })
                || self.history.concerns(&moment.event, violation.client, violation.message)
        });
        concerned
            .map(|(at, moment)| format!("{at:>6} {:>9.3} s  {}\n", moment.at.as_secs_f64(), moment.event))
            .collect()
    }
}
