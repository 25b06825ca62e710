//! Rules, users and changes of both at random, and a model of what may come of it.
//!
//! The model knows who may publish and receive what, at each moment, and who has subscribed to what. Every message that
//! comes has to be one that it allows; and what it says must come, comes.

use std::collections::{BTreeMap, BTreeSet};

use pantala_router::topic_matches;

use crate::access::{Book, secured, verify};
use crate::support::{Chance, Client, Note, Outcome, Peer, Pub, Received, Sub, Will, World};

const USERS: [&str; 4] = ["ann", "bob", "cid", "dan"];
const TOPICS: [&str; 6] = ["a", "a/x", "a/y", "b", "b/x", "$c"];
const FILTERS: [&str; 10] = ["#", "a", "a/#", "a/x", "+/x", "b", "b/+", "$c", "$share/g/a/#", "$share/g/b"];
const RULES: [&str; 7] = ["#", "a/#", "a", "b", "+/x", "$c", "b/#"];
const STEPS: usize = 150;
const SEEDS: u64 = 120;

/// What one user may do.
#[derive(Clone, Default)]
struct May {
    publish: Vec<&'static str>,
    subscribe: Vec<&'static str>,
    banned: bool,
}

impl May {
    fn draw(chance: &mut Chance) -> Self {
        let mut some = || RULES.into_iter().filter(|_| chance.below(3) == 0).collect();
        let (publish, subscribe) = (some(), some());
        Self { publish, subscribe, banned: chance.below(12) == 0 }
    }

    fn publishes(&self, topic: &str) -> bool {
        !self.banned && self.publish.iter().any(|filter| topic_matches(filter, topic))
    }

    fn receives(&self, topic: &str) -> bool {
        !self.banned && self.subscribe.iter().any(|filter| topic_matches(filter, topic))
    }
}

struct User {
    client: Client,
    peer: Option<Peer>,
    /// Filters that SUBACK has granted.
    filters: BTreeSet<&'static str>,
    may: May,
}

/// A message that somebody was permitted to publish.
struct Said {
    topic: &'static str,
    /// Users that might have received it by the rules at some moment since.
    receivers: BTreeSet<usize>,
}

struct Model<'w> {
    world: &'w World,
    users: Vec<User>,
    /// By payload.
    said: BTreeMap<String, Said>,
    /// What nobody was permitted to publish.
    unsaid: BTreeSet<String>,
    next: u32,
    delivered: u32,
    withheld: u32,
}

impl Model<'_> {
    fn hold(&mut self) {
        let mut book = Book::new();
        for (user, name) in self.users.iter().zip(USERS) {
            book = book.user(name, &user.may.publish, &user.may.subscribe);
            if user.may.banned {
                book = book.banned(name);
            }
        }
        book.hold(self.world);
        for (number, user) in self.users.iter_mut().enumerate() {
            if user.may.banned {
                user.peer = None;
            }
            for said in self.said.values_mut().filter(|said| user.may.receives(said.topic)) {
                said.receivers.insert(number);
            }
        }
        self.settle();
    }

    /// Rules change while messages are under way: what the old or the new ones allow may come, and nothing else.
    fn change(&mut self, chance: &mut Chance) {
        let mut under_way = Vec::new();
        for _ in 0..chance.below(4) {
            let (user, topic) = (chance.below(USERS.len()), TOPICS[chance.below(TOPICS.len())]);
            let payload = self.payload();
            if let Some(peer) = &self.users[user].peer {
                // Not at QoS 2: that exchange would stay open, and its Packet Identifier be used again.
                peer.send_publish(&Pub::new(topic, &payload).qos(chance.below(2) as u8));
                self.note(user, topic, &payload);
                under_way.push((user, topic, payload));
            }
        }
        self.world.some(chance.below(8));
        for user in &mut self.users {
            if chance.below(2) == 0 {
                user.may = May::draw(chance);
            }
        }
        for (user, topic, payload) in under_way {
            if self.users[user].may.publishes(topic) && self.unsaid.remove(&payload) {
                self.note(user, topic, &payload);
            }
        }
        self.hold();
    }

    fn payload(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }

    /// Somebody publishes, or tries to. Returns the payload.
    fn note(&mut self, user: usize, topic: &'static str, payload: &str) -> bool {
        let permitted = self.users[user].may.publishes(topic);
        if permitted {
            let receivers = (0..self.users.len()).filter(|it| self.users[*it].may.receives(topic)).collect();
            self.said.insert(payload.to_owned(), Said { topic, receivers });
        } else {
            self.unsaid.insert(payload.to_owned());
        }
        permitted
    }

    /// Everything that has come is something that may come. Returns it by user.
    fn settle(&mut self) -> Vec<Vec<String>> {
        self.world.run();
        let mut all = Vec::new();
        for (number, user) in self.users.iter().enumerate() {
            let Some(peer) = &user.peer else {
                all.push(Vec::new());
                continue;
            };
            let got = peer.take_everything();
            for message in &got {
                assert!(!self.unsaid.contains(&message.payload), "{message:?} was not to be published");
                let said = self.said.get(&message.payload).unwrap_or_else(|| panic!("{message:?} was never published"));
                assert_eq!(said.topic, message.topic);
                assert!(said.receivers.contains(&number), "{} got {message:?}", USERS[number]);
                self.delivered += 1;
            }
            all.push(got.into_iter().map(|message| message.payload).collect());
        }
        all
    }

    fn publish(&mut self, chance: &mut Chance) {
        let (user, topic) = (chance.below(USERS.len()), TOPICS[chance.below(TOPICS.len())]);
        if self.users[user].peer.is_none() {
            return;
        }
        self.settle();
        let payload = self.payload();
        let mut message = Pub::new(topic, &payload).qos(chance.below(3) as u8);
        message.retain = chance.below(4) == 0;
        let permitted = self.note(user, topic, &payload);
        let outcome = self.users[user].peer.as_ref().map(|peer| peer.publish_with(&message));
        if let Some(Outcome::Acknowledged(code)) = outcome {
            assert_eq!(permitted, !code.is_error(), "{message:?}: {code:?}");
        }
        let got = self.settle();
        for (number, got) in got.into_iter().enumerate() {
            let User { peer, filters, may, .. } = &self.users[number];
            let subscribed = filters.iter().any(|filter| topic_matches(filter, topic) && contained(may, filter));
            let expected = permitted && peer.is_some() && subscribed && may.receives(topic);
            self.withheld += u32::from(permitted && peer.is_some() && !may.receives(topic));
            if expected {
                // Shared Subscriptions may bring more.
                let copies = got.iter().filter(|it| **it == payload).count();
                assert!((1..=3).contains(&copies), "{} got {copies} of {message:?}", USERS[number]);
            }
        }
    }

    fn subscribe(&mut self, chance: &mut Chance) {
        let (user, filter) = (chance.below(USERS.len()), FILTERS[chance.below(FILTERS.len())]);
        self.settle();
        let User { peer: Some(peer), filters, .. } = &mut self.users[user] else { return };
        if chance.below(3) == 0 {
            peer.unsubscribe(filter);
            filters.remove(filter);
        } else {
            peer.send_subscribe(&Sub::new(filter, chance.below(3) as u8));
            self.world.run();
            match peer.take_first(|packet| matches!(packet, Received::SubAck(..))) {
                Some(Received::SubAck(_, codes)) if !codes[0].is_error() => drop(filters.insert(filter)),
                Some(Received::SubAck(..)) => {}
                other => panic!("no SUBACK, but {other:?}"),
            }
        }
        self.settle();
    }

    fn come_or_go(&mut self, chance: &mut Chance) {
        self.settle();
        let number = chance.below(USERS.len());
        let topic = TOPICS[chance.below(TOPICS.len())];
        if self.users[number].peer.is_some() {
            // Its Will, should it have had one, goes out by the rules of now.
            let User { peer, .. } = &mut self.users[number];
            if let Some(peer) = peer.take() {
                peer.lose();
            }
        } else {
            let payload = self.payload();
            let client = self.users[number].client.clone();
            let client = if chance.below(2) == 0 { client.will(Will::new(topic, &payload)) } else { client };
            // By the time that it goes out it may be permitted, or not.
            let receivers = (0..USERS.len()).collect();
            self.said.insert(payload, Said { topic, receivers });
            let (peer, answer) = client.try_connect();
            if let Some(Received::ConnAck { code, .. }) = answer
                && !code.is_error()
            {
                self.users[number].peer = Some(peer);
            }
        }
        self.settle();
    }
}

/// Whether one of the rules, alone, covers the filter. What more than one cover together the model leaves open.
fn contained(may: &May, filter: &str) -> bool {
    may.subscribe.contains(&filter) || may.subscribe.contains(&"#") && !filter.starts_with('$')
}

#[test]
fn nobody_ever_gets_what_he_may_not() {
    let (mut delivered, mut withheld) = (0, 0);
    for workers in [1, 3] {
        for seed in 0..SEEDS {
            let _note = Note { workers, seed };
            let world = World::new(&secured(), workers, seed);
            world.set_authenticator(verify);
            let mut chance = Chance::new(seed ^ 0x1234);
            let users = USERS.map(|name| {
                let client = world.client(name).user(name).persistent().receive_maximum(100);
                User { client, peer: None, filters: BTreeSet::new(), may: May::default() }
            });
            let mut model = Model {
                world: &world,
                users: users.into(),
                said: BTreeMap::new(),
                unsaid: BTreeSet::new(),
                next: 0,
                delivered: 0,
                withheld: 0,
            };
            model.hold();
            for _ in 0..STEPS {
                match chance.below(10) {
                    0 => model.change(&mut chance),
                    1..=2 => model.come_or_go(&mut chance),
                    3..=5 => model.subscribe(&mut chance),
                    _ => model.publish(&mut chance),
                }
            }
            delivered += model.delivered;
            withheld += model.withheld;
            world.end();
        }
    }
    // So that it is about something.
    assert!(delivered > 2_000 && withheld > 2_000, "{delivered} delivered, {withheld} withheld");
}
