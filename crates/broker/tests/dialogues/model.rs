//! N12: random sequences of what three clients may do, on one to three workers, against a plain list of who is owed what.
//!
//! After each step the world comes to rest, in an order that a seed decides, and every client must have got exactly what
//! the model says: no message invented, none lost that was owed, none twice without a reconnect, all in order, DUP where
//! it belongs, the Session present or not, the Retained Message the last one.

use std::collections::{BTreeMap, VecDeque};

use pantala_broker::Settings;
use pantala_proto::{AcknowledgementKind as Kind, ReasonCode};
use proptest::prelude::*;

use crate::support::{Outcome, Peer, Pub, Received, World, settings};

const CLIENTS: usize = 3;
/// Small, so that queues form.
const WINDOW: usize = 3;
/// Each filter matches one topic, so that the order of replay is known; those of `x/1` overlap.
const FILTERS: [&str; 6] = ["x/1", "x/+", "x/#", "y/1", "y/#", "z/1"];
const TOPICS: [&str; 3] = ["x/1", "y/1", "z/1"];
const EXPIRY_SECONDS: u32 = 100;

#[derive(Debug, Clone)]
enum Step {
    Connect { client: usize, v3: bool, clean: bool, keep: bool },
    Disconnect { client: usize },
    Reset { client: usize },
    Subscribe { client: usize, filter: usize, qos: u8 },
    Unsubscribe { client: usize, filter: usize },
    Publish { client: usize, topic: usize, qos: u8, retain: bool, empty: bool },
    Acknowledge { client: usize, which: prop::sample::Index },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        4 => (client.clone(), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(client, v3, clean, keep)| Step::Connect { client, v3, clean, keep }),
        1 => client.clone().prop_map(|client| Step::Disconnect { client }),
        2 => client.clone().prop_map(|client| Step::Reset { client }),
        5 => (client.clone(), 0..FILTERS.len(), 0..3_u8)
            .prop_map(|(client, filter, qos)| Step::Subscribe { client, filter, qos }),
        2 => (client.clone(), 0..FILTERS.len()).prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        10 => (client.clone(), 0..TOPICS.len(), 0..3_u8, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(client, topic, qos, retain, empty)| Step::Publish { client, topic, qos, retain, empty }),
        6 => (client, any::<prop::sample::Index>()).prop_map(|(client, which)| Step::Acknowledge { client, which }),
        1 => Just(Step::Wait),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    topic: &'static str,
    payload: String,
    qos: u8,
    retain: bool,
}

#[derive(Debug, Clone)]
struct Flight {
    /// None until it has been seen on the wire.
    packet_id: Option<u16>,
    message: Message,
    released: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Message { message: Message, dup: bool },
    Release,
}

#[derive(Debug, Clone)]
struct Retained {
    payload: String,
    qos: u8,
    number: u32,
}

#[derive(Debug, Clone, Default)]
struct Session {
    never_expires: bool,
    persistent: bool,
    subscriptions: BTreeMap<&'static str, u8>,
    inflight: Vec<Flight>,
    queue: VecDeque<Message>,
    /// Filter, QoS, and the last write that belongs to it.
    replays: VecDeque<(&'static str, u8, u32)>,
}

struct Client {
    peer: Option<Peer>,
    v3: bool,
    session: Option<Session>,
    expected: Vec<Expected>,
}

struct Model {
    world: World,
    clients: Vec<Client>,
    retained: BTreeMap<&'static str, Retained>,
    written: u32,
    published: u32,
}

fn matches(filter: &str, topic: &str) -> bool {
    filter.as_bytes().first() == topic.as_bytes().first()
}

impl Client {
    fn deliver(&mut self, message: Message) {
        let Some(session) = &mut self.session else { return };
        if message.qos == 0 {
            if self.peer.is_some() {
                self.expected.push(Expected::Message { message, dup: false });
            }
        } else {
            session.queue.push_back(message);
            self.send_queued();
        }
    }

    /// What goes out now that it can.
    fn send_queued(&mut self) {
        let (Some(session), true) = (&mut self.session, self.peer.is_some()) else { return };
        while session.inflight.len() < WINDOW
            && let Some(message) = session.queue.pop_front()
        {
            self.expected.push(Expected::Message { message: message.clone(), dup: false });
            session.inflight.push(Flight { packet_id: None, message, released: false });
        }
    }

    fn replay(&mut self, retained: &BTreeMap<&'static str, Retained>) {
        loop {
            let Some(session) = &mut self.session else { return };
            if !session.queue.is_empty() {
                return;
            }
            let Some((filter, granted, cutoff)) = session.replays.pop_front() else { return };
            let found = TOPICS.iter().filter(|topic| matches(filter, topic)).find_map(|topic| {
                retained.get(topic).filter(|retained| retained.number <= cutoff).map(|retained| (*topic, retained))
            });
            if let Some((topic, found)) = found {
                let qos = granted.min(found.qos);
                self.deliver(Message { topic, payload: found.payload.clone(), qos, retain: true });
            }
        }
    }

    /// The connection is gone.
    fn detach(&mut self) {
        self.peer = None;
        if let Some(session) = &mut self.session {
            session.replays.clear();
            if !session.persistent {
                self.session = None;
            }
        }
    }

    /// Compares what has come with what was to come.
    fn check(&mut self) {
        let expected = std::mem::take(&mut self.expected);
        let Some(peer) = &self.peer else {
            assert_eq!(expected, []);
            return;
        };
        assert!(!peer.is_closed(), "closed");
        let got = peer.drain();
        let seen: Vec<Expected> = got.iter().map(seen).collect();
        assert_eq!(seen, expected);
        let Some(session) = &mut self.session else { return };
        // Packet Identifiers: old ones with what is repeated, new ones that nothing else has.
        for packet in &got {
            match packet {
                Received::Publish(message) if message.qos > 0 && message.dup => {
                    let same = |flight: &&Flight| flight.packet_id == Some(message.packet_id);
                    let flight = session.inflight.iter().find(same).expect("it had another Packet Identifier before");
                    assert_eq!(flight.message.payload, message.payload);
                }
                Received::Publish(message) if message.qos > 0 => {
                    let used = session.inflight.iter().any(|flight| flight.packet_id == Some(message.packet_id));
                    assert!(!used, "Packet Identifier {} is in use", message.packet_id);
                    let flight = session.inflight.iter_mut().find(|flight| flight.packet_id.is_none());
                    flight.expect("one is new").packet_id = Some(message.packet_id);
                }
                Received::Ack(_, number, _) => {
                    let known = |flight: &Flight| flight.packet_id == Some(*number) && flight.released;
                    assert!(session.inflight.iter().any(known));
                }
                _ => {}
            }
        }
    }
}

fn seen(packet: &Received) -> Expected {
    match packet {
        Received::Publish(got) => Expected::Message {
            message: Message {
                topic: TOPICS.iter().find(|topic| **topic == got.topic).expect("a topic of ours"),
                payload: got.payload.clone(),
                qos: got.qos,
                retain: got.retain,
            },
            dup: got.dup,
        },
        Received::Ack(Kind::PubRel, _, ReasonCode::Success) => Expected::Release,
        other => panic!("{other:?} was not to come"),
    }
}

impl Model {
    fn new(workers: u8, seed: u64) -> Self {
        // Clients come back as often as chance has it.
        let narrow = Settings { inflight_messages_max: WINDOW as u16, takeovers_per_second_max: None, ..settings() };
        let clients = (0..CLIENTS).map(|_| Client { peer: None, v3: false, session: None, expected: Vec::new() });
        Self {
            world: World::in_memory(&narrow, workers, seed),
            clients: clients.collect(),
            retained: BTreeMap::new(),
            written: 0,
            published: 0,
        }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Connect { client, v3, clean, keep } => self.connect(client, v3, clean, keep),
            Step::Disconnect { client } => {
                if let Some(peer) = &self.clients[client].peer {
                    peer.disconnect();
                    self.clients[client].detach();
                }
            }
            Step::Reset { client } => {
                if let Some(peer) = &self.clients[client].peer {
                    peer.lose();
                    self.clients[client].detach();
                }
            }
            Step::Subscribe { client, filter, qos } => self.subscribe(client, FILTERS[filter], qos),
            Step::Unsubscribe { client, filter } => {
                let client = &mut self.clients[client];
                if let (Some(peer), Some(session)) = (&client.peer, &mut client.session) {
                    session.subscriptions.remove(FILTERS[filter]);
                    session.replays.retain(|(of, ..)| *of != FILTERS[filter]);
                    peer.unsubscribe(FILTERS[filter]);
                }
            }
            Step::Publish { client, topic, qos, retain, empty } => {
                self.publish(client, TOPICS[topic], qos, retain, empty)
            }
            Step::Acknowledge { client, which } => self.acknowledge(client, which),
            Step::Wait => {
                self.world.seconds(u64::from(EXPIRY_SECONDS) + 1);
                for client in self.clients.iter_mut().filter(|client| client.peer.is_none()) {
                    client.session.take_if(|session| !session.never_expires);
                }
            }
        }
        self.world.run();
        self.clients.iter_mut().for_each(Client::check);
        let sessions = self.clients.iter().filter(|client| client.session.is_some()).count();
        assert_eq!(self.world.sessions(), sessions, "Sessions");
        assert_eq!(self.world.retained() as usize, self.retained.len(), "Retained Messages");
    }

    fn connect(&mut self, number: usize, v3: bool, clean: bool, keep: bool) {
        let asked = self.world.client(&format!("c{number}")).clean(clean);
        let asked = match (v3, keep) {
            (true, _) => asked.v3(),
            (false, true) => asked.expiry(EXPIRY_SECONDS),
            (false, false) => asked,
        };
        let client = &mut self.clients[number];
        let old = client.peer.take();
        client.detach();
        if clean {
            client.session = None;
        }
        let peer = asked.connect_with(client.session.is_some());
        if let Some(old) = old {
            assert!(old.is_closed(), "taken over");
        }
        let session = client.session.get_or_insert_default();
        session.persistent = if v3 { !clean } else { keep };
        session.never_expires = v3 && !clean;
        for flight in &session.inflight {
            client.expected.push(match flight.released {
                true => Expected::Release,
                false => Expected::Message { message: flight.message.clone(), dup: true },
            });
        }
        (client.peer, client.v3) = (Some(peer), v3);
        client.send_queued();
    }

    fn subscribe(&mut self, client: usize, filter: &'static str, qos: u8) {
        let client = &mut self.clients[client];
        let (Some(peer), Some(session)) = (&client.peer, &mut client.session) else { return };
        peer.subscribe(filter, qos);
        session.subscriptions.insert(filter, qos);
        session.replays.retain(|(of, ..)| *of != filter);
        session.replays.push_back((filter, qos, self.written));
        client.replay(&self.retained);
    }

    fn publish(&mut self, client: usize, topic: &'static str, qos: u8, retain: bool, empty: bool) {
        let Some(peer) = &self.clients[client].peer else { return };
        self.published += 1;
        let payload = if empty { String::new() } else { self.published.to_string() };
        let mut message = Pub::new(topic, &payload).qos(qos);
        message.retain = retain;
        let outcome = peer.publish_with(&message);
        let mut receivers = 0;
        for client in &mut self.clients {
            let Some(session) = &client.session else { continue };
            let granted =
                session.subscriptions.iter().filter(|(filter, _)| matches(filter, topic)).map(|(_, qos)| *qos).max();
            if let Some(granted) = granted {
                receivers += 1;
                client.deliver(Message { topic, payload: payload.clone(), qos: qos.min(granted), retain: false });
            }
        }
        let code = if receivers > 0 || self.clients[client].v3 {
            ReasonCode::Success
        } else {
            ReasonCode::NoMatchingSubscribers
        };
        assert_eq!(outcome, if qos == 0 { Outcome::Sent } else { Outcome::Acknowledged(code) });
        if retain {
            self.written += 1;
            if empty {
                self.retained.remove(topic);
            } else {
                self.retained.insert(topic, Retained { payload, qos, number: self.written });
            }
        }
    }

    fn acknowledge(&mut self, client: usize, which: prop::sample::Index) {
        let client = &mut self.clients[client];
        let (Some(peer), Some(session)) = (&client.peer, &mut client.session) else { return };
        if session.inflight.is_empty() {
            return;
        }
        let at = which.index(session.inflight.len());
        let flight = &mut session.inflight[at];
        let packet_id = flight.packet_id.expect("it has been received");
        match (flight.message.qos, flight.released) {
            (2, false) => {
                peer.ack(Kind::PubRec, packet_id);
                flight.released = true;
                client.expected.push(Expected::Release);
                return;
            }
            (2, true) => peer.ack(Kind::PubComp, packet_id),
            _ => peer.ack(Kind::PubAck, packet_id),
        }
        session.inflight.remove(at);
        client.send_queued();
        client.replay(&self.retained);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_clients_get_what_they_are_owed(
        workers in 1..=3_u8,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new(workers, seed);
        for client in 0..CLIENTS {
            model.play(&Step::Connect { client, v3: false, clean: true, keep: client > 0 });
        }
        for step in &steps {
            model.play(step);
        }
        model.world.end();
    }
}
