//! A durable client in the simulated world: it keeps its half of the Session, and writes down what it sees.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use pantala_crashlab::history::{
    ClientNumber, Ending, Event, History, MessageFacts, MessageId, Moment, Purpose, Reception, UNKNOWN_TOPIC,
};
use pantala_crashlab::payload::Content;
use pantala_proto::{AcknowledgementKind as Kind, QoS, ReasonCode};

use crate::support::{Client, Delivered, Peer, Pub, Received, Sub, Will, World};

/// Packet Identifiers of a publisher: few, so that they are used again. Those of SUBSCRIBE are above.
const IDS: u16 = 60;

/// How far the exchange of an outgoing message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Published,
    /// PUBREC came; PUBREL was sent so often.
    Released(u8),
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    packet_id: u16,
    message: MessageId,
    stage: Stage,
}

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Absent,
    /// SUBSCRIBE is on its way, perhaps on a connection that is gone.
    Asking(Option<u16>),
    Held,
    Removing(Option<u16>),
}

/// A client.
pub struct Actor {
    pub number: ClientNumber,
    /// Its connection, and whether CONNACK came.
    peer: Option<(Peer, bool)>,
    exchanges: VecDeque<Exchange>,
    next_id: u16,
    /// QoS 2 identifiers received and not released.
    open: BTreeSet<u16>,
    /// Answers not sent yet.
    held: VecDeque<(Kind, u16)>,
    subscriptions: Vec<Standing>,
    /// The next CONNECT has Clean Start, and so all after it until one is answered.
    clean_start: bool,
}

/// What everybody writes in.
pub fn write(history: &mut History, world: &World, event: Event) {
    history.moments.push(Moment { at: Duration::from_millis(world.now().0), event });
}

/// A payload that says which message it is, of a length that follows from it.
pub fn payload(message: MessageId) -> String {
    let filler = message.sequence.wrapping_mul(0x9e37_79b9) >> 23;
    format!("{}:{}:{}", message.publisher, message.sequence, "x".repeat(filler as usize))
}

/// What a payload says.
pub fn content(text: &str) -> Content {
    if text.is_empty() {
        return Content::Empty;
    }
    let mut parts = text.split(':');
    let mut number = || parts.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(publisher), Some(sequence)) => {
            let message = MessageId { publisher: publisher as ClientNumber, sequence };
            if payload(message) == text { Content::Message(message) } else { Content::Damaged }
        }
        _ => Content::Damaged,
    }
}

impl Actor {
    pub fn new(number: ClientNumber, subscriptions: usize) -> Self {
        Self {
            number,
            peer: None,
            exchanges: VecDeque::new(),
            next_id: 1,
            open: BTreeSet::new(),
            held: VecDeque::new(),
            subscriptions: vec![Standing::Absent; subscriptions],
            clean_start: false,
        }
    }

    /// The same client without its connection.
    pub fn cut_off(&self, history: &mut History, world: &World) -> Self {
        if self.peer.is_some() {
            write(history, world, Event::Ended { client: self.number, ending: Ending::Lost });
        }
        let adrift = |standing: &Standing| match standing {
            Standing::Asking(_) => Standing::Asking(None),
            Standing::Removing(_) => Standing::Removing(None),
            other => *other,
        };
        Self {
            peer: None,
            exchanges: self.exchanges.clone(),
            open: self.open.clone(),
            held: VecDeque::new(),
            subscriptions: self.subscriptions.iter().map(adrift).collect(),
            ..*self
        }
    }

    pub fn is_away(&self) -> bool {
        self.peer.is_none()
    }

    pub fn is_live(&self) -> bool {
        matches!(self.peer, Some((_, true)))
    }

    /// Messages that are not done.
    pub fn unanswered(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        let settled = |standing: &Standing| matches!(standing, Standing::Absent | Standing::Held);
        self.is_live()
            && self.exchanges.is_empty()
            && self.open.is_empty()
            && self.held.is_empty()
            && self.subscriptions.iter().all(settled)
    }

    /// The next connection begins a new Session.
    pub fn begin_anew(&mut self) {
        self.clean_start = true;
    }

    /// Sends CONNECT, with a Will if it has a topic for one.
    pub fn connect(&mut self, history: &mut History, world: &World, will: Option<(u16, u32)>) {
        let facts = history.cast.clients[usize::from(self.number)].clone();
        let mut client: Client = world.client(&facts.client_id).clean(self.clean_start);
        if facts.is_v5 {
            client = client.expiry(facts.session_expiry.map_or(u32::MAX, |expiry| expiry.as_secs() as u32));
        } else {
            client = client.v3();
        }
        if let Some(maximum) = facts.receive_maximum {
            client = client.receive_maximum(maximum);
        }
        if let Some((topic, delay)) = will {
            let (qos, purpose) = (QoS::ExactlyOnce, Purpose::Will { delay });
            let facts = MessageFacts { topic, qos, retain: false, expiry: None, purpose };
            let message = history.add_message(self.number, facts);
            write(history, world, Event::Published { message });
            let topic = history.cast.topics[usize::from(topic)].clone();
            let will = Will { topic, payload: payload(message), qos: 2, retain: false, delay, expiry: None };
            client = client.will(will);
        }
        self.peer = Some((client.begin(), false));
        write(history, world, Event::Connecting { client: self.number, clean_start: self.clean_start });
    }

    /// Ends the connection: with DISCONNECT, or without a word.
    pub fn leave(&mut self, history: &mut History, world: &World, ending: Ending) {
        let Some((peer, live)) = &self.peer else { return };
        if ending == Ending::Disconnected && *live {
            peer.disconnect();
        } else {
            peer.lose();
        }
        self.read(history, world);
        let Some((_, live)) = self.peer.take() else { return };
        let ending = if live { ending } else { Ending::Vanished };
        self.lost(history, world, ending);
    }

    fn lost(&mut self, history: &mut History, world: &World, ending: Ending) {
        self.peer = None;
        self.held.clear();
        for standing in &mut self.subscriptions {
            match standing {
                Standing::Asking(id) | Standing::Removing(id) => *id = None,
                Standing::Absent | Standing::Held => {}
            }
        }
        write(history, world, Event::Ended { client: self.number, ending });
    }

    /// Sends a new message.
    pub fn publish(&mut self, history: &mut History, world: &World, facts: MessageFacts) {
        if !self.is_live() {
            return;
        }
        while self.exchanges.iter().any(|exchange| exchange.packet_id == self.next_id) {
            self.next_id = self.next_id % IDS + 1;
        }
        let message = history.add_message(self.number, facts);
        let exchange = Exchange { packet_id: self.next_id, message, stage: Stage::Published };
        self.next_id = self.next_id % IDS + 1;
        self.send(history, world, exchange, false);
        self.exchanges.push_back(exchange);
    }

    fn send(&self, history: &mut History, world: &World, exchange: Exchange, dup: bool) {
        let Some((peer, _)) = &self.peer else { return };
        let Some(facts) = history.cast.message(exchange.message).copied() else { return };
        let text = if facts.purpose == Purpose::Delete { String::new() } else { payload(exchange.message) };
        let topic = &history.cast.topics[usize::from(facts.topic)];
        let mut publish = Pub::new(topic, &text).qos(facts.qos as u8).id(exchange.packet_id);
        (publish.retain, publish.dup, publish.expiry) = (facts.retain, dup, facts.expiry);
        peer.send_publish(&publish);
        write(history, world, Event::Published { message: exchange.message });
    }

    /// Sends the oldest answer that is due.
    pub fn answer(&mut self, history: &mut History, world: &World) {
        let Some((peer, true)) = &self.peer else { return };
        let Some((kind, packet_id)) = self.held.pop_front() else { return };
        peer.ack(kind, packet_id);
        if kind == Kind::PubAck {
            write(history, world, Event::Freed { client: self.number, packet_id });
        }
    }

    /// Answers that are due.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Makes a subscription, or removes it.
    pub fn change(&mut self, history: &mut History, world: &World, place: usize, wanted: bool) {
        let Some((peer, true)) = &self.peer else { return };
        let (client, subscription) = (self.number, place as u8);
        let facts = &history.cast.clients[usize::from(client)].subscriptions[place];
        let whole_filter = facts.whole_filter();
        match (self.subscriptions[place], wanted) {
            (Standing::Absent | Standing::Asking(None), true) => {
                let id = peer.send_subscribe(&Sub::new(&whole_filter, facts.qos as u8));
                self.subscriptions[place] = Standing::Asking(Some(id));
                write(history, world, Event::Subscribing { client, subscription });
            }
            (Standing::Held, false) | (Standing::Removing(None), _) => {
                self.subscriptions[place] = Standing::Removing(Some(peer.send_unsubscribe(&whole_filter)));
                write(history, world, Event::Unsubscribing { client, subscription });
            }
            // One that was not answered is made before anything else is done with it.
            (Standing::Asking(None), false) => self.change(history, world, place, true),
            _ => {}
        }
    }

    /// Takes all that has come.
    pub fn read(&mut self, history: &mut History, world: &World) {
        while let Some((peer, _)) = &self.peer {
            match peer.next() {
                Some(packet) => self.take(history, world, packet),
                None if peer.is_closed() => return self.lost(history, world, Ending::Lost),
                None => return,
            }
        }
    }

    fn take(&mut self, history: &mut History, world: &World, packet: Received) {
        let client = self.number;
        match packet {
            // The disk is full or has failed: there is no Session to be promised. The connection is about to be closed.
            Received::ConnAck { code: ReasonCode::ServerUnavailable, .. } => {}
            Received::ConnAck { session_present, code } => {
                assert_eq!(code, ReasonCode::Success);
                if let Some((_, live)) = &mut self.peer {
                    *live = true;
                }
                self.clean_start = false;
                write(history, world, Event::Connected { client, session_present });
                self.resume(history, world, session_present);
            }
            Received::Publish(message) => self.receive(history, world, &message),
            Received::Ack(Kind::PubRel, packet_id, _) => {
                self.open.remove(&packet_id);
                if let Some((peer, _)) = &self.peer {
                    peer.ack(Kind::PubComp, packet_id);
                }
                write(history, world, Event::Freed { client, packet_id });
            }
            Received::Ack(kind, packet_id, code) => self.acknowledged(history, world, kind, packet_id, code),
            Received::SubAck(id, codes) => {
                let asked = Standing::Asking(Some(id));
                let Some(place) = self.subscriptions.iter().position(|one| *one == asked) else { return };
                let granted =
                    codes.first().filter(|code| !code.is_error()).and_then(|code| QoS::from_bits(*code as u8));
                self.subscriptions[place] = if granted.is_some() { Standing::Held } else { Standing::Absent };
                write(history, world, Event::Subscribed { client, subscription: place as u8, granted });
            }
            Received::UnsubAck(id, _) => {
                let asked = Standing::Removing(Some(id));
                let Some(place) = self.subscriptions.iter().position(|one| *one == asked) else { return };
                self.subscriptions[place] = Standing::Absent;
                write(history, world, Event::Unsubscribed { client, subscription: place as u8 });
            }
            Received::PingResp | Received::Auth(_) => {}
            // The connection is about to be closed.
            Received::Disconnect(ReasonCode::ServerShuttingDown) => {}
            Received::Disconnect(code) => panic!("client {client} is sent away: {code:?}"),
        }
    }

    fn receive(&mut self, history: &mut History, world: &World, message: &Delivered) {
        let topic = history.cast.topics.iter().position(|name| *name == message.topic);
        let qos = QoS::from_bits(message.qos).unwrap();
        let reception = Reception {
            client: self.number,
            topic: topic.map_or(UNKNOWN_TOPIC, |place| place as u16),
            packet_id: message.packet_id,
            qos,
            dup: message.dup,
            retain: message.retain,
            expiry: message.expiry,
            content: content(&message.payload),
        };
        write(history, world, Event::Received(reception));
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.held.push_back((Kind::PubAck, message.packet_id)),
            QoS::ExactlyOnce => {
                self.open.insert(message.packet_id);
                self.held.push_back((Kind::PubRec, message.packet_id));
            }
        }
    }

    fn acknowledged(&mut self, history: &mut History, world: &World, kind: Kind, packet_id: u16, code: ReasonCode) {
        let Some(place) = self.exchanges.iter().position(|exchange| exchange.packet_id == packet_id) else { return };
        let Exchange { message, stage, .. } = self.exchanges[place];
        let exactly_once = history.cast.message(message).is_some_and(|facts| facts.qos == QoS::ExactlyOnce);
        let refused = code.is_error();
        match (kind, stage) {
            (Kind::PubAck, Stage::Published) if !exactly_once => {
                self.exchanges.remove(place);
                write(history, world, if refused { Event::Refused { message } } else { Event::Accepted { message } });
            }
            (Kind::PubRec, Stage::Published) if exactly_once && refused => {
                self.exchanges.remove(place);
                write(history, world, Event::Refused { message });
            }
            (Kind::PubRec, stage) if exactly_once => {
                if stage == Stage::Published {
                    write(history, world, Event::Accepted { message });
                }
                self.release(place);
            }
            (Kind::PubComp, Stage::Released(releases)) => {
                self.exchanges.remove(place);
                let found = code != ReasonCode::PacketIdentifierNotFound;
                write(history, world, Event::Completed { message, releases, found });
            }
            _ => {}
        }
    }

    fn release(&mut self, place: usize) {
        let exchange = &mut self.exchanges[place];
        exchange.stage = match exchange.stage {
            Stage::Published => Stage::Released(1),
            Stage::Released(count) => Stage::Released(count.saturating_add(1)),
        };
        if let Some((peer, _)) = &self.peer {
            peer.ack(Kind::PubRel, exchange.packet_id);
        }
    }

    /// Takes up the Session, or begins anew if the broker has none.
    fn resume(&mut self, history: &mut History, world: &World, session_present: bool) {
        if !session_present {
            self.open.clear();
            self.subscriptions.fill(Standing::Absent);
            // A message at QoS 2 may have been routed, so it is given up; one at QoS 1 may come twice.
            let exchanges = std::mem::take(&mut self.exchanges);
            for exchange in exchanges {
                let exactly_once = history.cast.message(exchange.message).is_some_and(|facts| facts.qos as u8 == 2);
                if !exactly_once {
                    self.exchanges.push_back(exchange);
                } else if exchange.stage == Stage::Published {
                    write(history, world, Event::Abandoned { message: exchange.message });
                }
            }
        }
        for place in 0..self.exchanges.len() {
            match self.exchanges[place].stage {
                Stage::Published => self.send(history, world, self.exchanges[place], session_present),
                Stage::Released(_) => self.release(place),
            }
        }
    }
}
