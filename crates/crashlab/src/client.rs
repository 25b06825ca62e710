//! A durable client: it keeps its half of the Session, whatever happens to the connection and to the broker.
//!
//! One struct for every role. It publishes with retries under the same Packet Identifier, it remembers QoS 2 identifiers,
//! makes its subscriptions and repeats what was not answered; and it writes down all of it.

mod exchange;
mod script;
mod superseded;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Connect, ConnectProperties, Disconnect, Packet, PacketId, ProtocolVersion,
    ReasonCode, SubscriptionOptions, Will, frame,
};

use crate::history::{ClientFacts, ClientNumber, Ending, Event, History, MessageId, Moment, TopicNumber};
use crate::plan::{Part, Presence};
use crate::random::Random;

pub use script::Phase;

use exchange::Exchange;
use superseded::Old;

/// What a client accepts of a packet: more than a broker does.
const PACKET_BYTES_MAX: u32 = 16 << 20;

/// How long a connection may be without CONNACK.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// How long a client waits until it tries to connect again, in milliseconds.
const RETRY: std::ops::RangeInclusive<u64> = 5..=30;

/// How long until a SUBSCRIBE that was refused is tried again.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(100);

/// What clients share while they work.
pub struct Scene<'a> {
    /// What is written down.
    pub history: &'a mut History,
    /// The beginning of the history.
    pub started: Instant,
    /// The broker.
    pub address: SocketAddr,
    /// Mixed into payloads.
    pub salt: u64,
    /// Topic Names and their numbers.
    pub topics: &'a HashMap<String, TopicNumber>,
    /// Whether there is new work.
    pub phase: Phase,
    /// Set when a message or an acknowledgement of one came.
    pub activity: &'a mut Instant,
}

impl Scene<'_> {
    fn write(&mut self, event: Event) {
        self.history.moments.push(Moment { at: self.started.elapsed(), event });
    }
}

#[derive(Debug)]
enum Link {
    /// Not connected, until then; for ever if None.
    Away(Option<Instant>),
    /// The connection is being made, or CONNECT has not been answered.
    Opening { stream: TcpStream, since: Instant, greeted: bool },
    /// CONNACK came.
    Live(TcpStream),
}

/// Where a subscription stands between client and broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The broker has none, and may be asked from this moment on.
    Absent(Instant),
    /// SUBSCRIBE is on its way under this identifier; None if that connection is gone.
    Asking(Option<PacketId>),
    /// SUBACK came.
    Held,
    /// UNSUBSCRIBE is on its way.
    Removing(Option<PacketId>),
}

struct Subscription {
    wanted: bool,
    standing: Standing,
    whole_filter: String,
}

/// A client with its Session.
pub struct Client {
    number: ClientNumber,
    facts: ClientFacts,
    part: Part,
    random: Random,
    version: ProtocolVersion,
    presence: Presence,
    link: Link,
    /// The connection before, until the broker closes it.
    old: Option<Old>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// PINGREQ without PINGRESP.
    pings: usize,
    /// Messages not yet done, in their order.
    exchanges: VecDeque<Exchange>,
    next_id: PacketId,
    /// QoS 1 and 2 messages that the broker takes at once.
    broker_takes: usize,
    /// QoS 2 identifiers received and not released.
    open: HashSet<u16>,
    /// Answers that are held back, with when they go.
    held: VecDeque<(Instant, Acknowledgement<'static>)>,
    subscriptions: Vec<Subscription>,
    /// Messages published in this cycle.
    published: usize,
    /// When the next change of connection or subscription is due.
    next_change: Instant,
    /// The next CONNECT has Clean Start, and so all after it until one is answered.
    clean_start: bool,
    /// It is to connect anew while it is connected.
    supersedes: bool,
    session_was_kept: bool,
}

impl Client {
    /// The client of this number, not connected.
    pub fn new(number: ClientNumber, facts: ClientFacts, part: Part, random: Random) -> Self {
        let now = Instant::now();
        let subscriptions = facts
            .subscriptions
            .iter()
            .map(|one| Subscription { wanted: true, standing: Standing::Absent(now), whole_filter: one.whole_filter() })
            .collect();
        let version = if facts.is_v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        Self {
            number,
            facts,
            part,
            random,
            version,
            presence: Presence::Present,
            link: Link::Away(Some(now)),
            old: None,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            pings: 0,
            exchanges: VecDeque::new(),
            next_id: PacketId::FIRST,
            broker_takes: 1,
            open: HashSet::new(),
            held: VecDeque::new(),
            subscriptions,
            published: 0,
            next_change: now,
            clean_start: false,
            supersedes: false,
            session_was_kept: false,
        }
    }

    /// Whether nothing is under way at a client that should be there; one that is away by plan has nothing to do.
    pub fn is_at_rest(&self) -> bool {
        if !self.is_expected() {
            return true;
        }
        matches!(self.link, Link::Live(_))
            && self.old.is_none()
            && self.outgoing.is_empty()
            && self.pings == 0
            && self.exchanges.is_empty()
            && self.held.is_empty()
            && self.open.is_empty()
            && self.subscriptions.iter().all(|one| match one.standing {
                Standing::Held => one.wanted,
                Standing::Absent(_) => !one.wanted,
                Standing::Asking(_) | Standing::Removing(_) => false,
            })
    }

    /// Why it is not at rest, for people.
    pub fn state(&self) -> String {
        let link = match &self.link {
            Link::Away(_) => "away",
            Link::Opening { .. } => "connecting",
            Link::Live(_) => "connected",
        };
        format!(
            "{} is {link}, {} messages not done, {} identifiers open, {} pings",
            self.facts.client_id,
            self.exchanges.len(),
            self.open.len(),
            self.pings
        )
    }

    /// Sends PINGREQ if it is connected: what was sent before has been dealt with when the answer is there.
    pub fn ping(&mut self) {
        if matches!(self.link, Link::Live(_)) {
            self.pings += 1;
            Packet::PingReq.encode(self.version, &mut self.outgoing);
        }
    }

    /// Reads all there is.
    pub fn read(&mut self, scene: &mut Scene<'_>) {
        self.read_old(scene);
        let mut buffer = [0; READ_BYTES];
        loop {
            let stream = match &mut self.link {
                Link::Away(_) => return,
                Link::Opening { stream, .. } | Link::Live(stream) => stream,
            };
            match stream.read(&mut buffer) {
                Ok(0) => return self.lose(scene, Ending::Lost),
                Ok(count) => {
                    self.incoming.extend_from_slice(&buffer[..count]);
                    if !self.take_packets(scene) {
                        return self.lose(scene, Ending::Lost);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(_) => return self.lose(scene, Ending::Lost),
            }
        }
    }

    /// Does what is due: connects, publishes, answers, and writes.
    pub fn work(&mut self, scene: &mut Scene<'_>, registry: &Registry) {
        let now = Instant::now();
        self.follow_script(scene, now);
        if std::mem::take(&mut self.supersedes) {
            self.supersede(scene, registry, now);
        }
        match &self.link {
            Link::Away(Some(until)) if *until <= now && self.wants_connection(scene.phase) => {
                self.open(scene, registry, now);
            }
            Link::Opening { since, .. } if now.duration_since(*since) > CONNECT_MAX => {
                return self.lose(scene, Ending::Vanished);
            }
            Link::Live(_) => {
                self.change_subscriptions(scene, now);
                self.publish(scene);
                self.answer(scene, now);
            }
            _ => {}
        }
        self.write(scene);
    }

    /// The broker is gone; what is still in the socket counts.
    pub fn collect(&mut self, scene: &mut Scene<'_>) {
        self.read(scene);
        self.old = None;
        if !matches!(self.link, Link::Away(_)) {
            self.lose(scene, Ending::Lost);
        }
    }

    fn open(&mut self, scene: &Scene<'_>, registry: &Registry, now: Instant) {
        let opened = TcpStream::connect(scene.address).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(usize::from(self.number)), interest)?;
            Ok(stream)
        });
        self.link = match opened {
            Ok(stream) => Link::Opening { stream, since: now, greeted: false },
            Err(_) => Link::Away(Some(now + self.random.millis(RETRY))),
        };
    }

    fn greet(&mut self, scene: &mut Scene<'_>) {
        let mut properties = ConnectProperties::default();
        if self.version.is_v5() {
            let expiry = self.facts.session_expiry.map_or(u64::from(u32::MAX), |expiry| expiry.as_secs());
            properties.session_expiry_interval = Some(u32::try_from(expiry).unwrap_or(u32::MAX));
            properties.receive_maximum = self.facts.receive_maximum.and_then(NonZeroU16::new);
        }
        let will = self.prepare_will(scene);
        let topic_name = will.as_ref().map(|will| scene.history.cast.topics[usize::from(will.topic)].clone());
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean_start,
            keep_alive: 0,
            properties,
            client_id: &self.facts.client_id,
            will: will.as_ref().zip(topic_name.as_deref()).map(|(will, topic_name)| Will {
                qos: pantala_proto::QoS::ExactlyOnce,
                retain: false,
                delay_interval: will.delay,
                properties: Default::default(),
                topic_name,
                payload: &will.payload,
            }),
            user_name: None,
            password: None,
        };
        connect.encode(&mut self.outgoing);
        scene.write(Event::Connecting { client: self.number, clean_start: self.clean_start });
    }

    /// Ends the connection from this side.
    fn leave(&mut self, scene: &mut Scene<'_>, ending: Ending, until: Option<Instant>) {
        if ending == Ending::Disconnected && matches!(self.link, Link::Live(_)) {
            Packet::Disconnect(Disconnect::new(ReasonCode::Success)).encode(self.version, &mut self.outgoing);
            self.write(scene);
        }
        // DISCONNECT must have gone as a whole, or the connection just vanishes.
        let ending = if self.outgoing.is_empty() { ending } else { Ending::Vanished };
        if !matches!(self.link, Link::Away(_)) {
            self.lose(scene, ending);
        }
        self.link = Link::Away(until);
    }

    /// The connection is gone.
    fn lose(&mut self, scene: &mut Scene<'_>, ending: Ending) {
        self.old = None;
        let had_begun = match &self.link {
            Link::Away(_) => return,
            Link::Opening { greeted, .. } => *greeted,
            Link::Live(_) => true,
        };
        if had_begun {
            scene.write(Event::Ended { client: self.number, ending });
        }
        self.link = Link::Away(Some(Instant::now() + self.random.millis(RETRY)));
        self.forget_connection();
    }

    /// Nothing of the last connection concerns the next one.
    fn forget_connection(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        self.held.clear();
        self.pings = 0;
        for one in &mut self.subscriptions {
            match one.standing {
                Standing::Asking(_) => one.standing = Standing::Asking(None),
                Standing::Removing(_) => one.standing = Standing::Removing(None),
                Standing::Absent(_) | Standing::Held => {}
            }
        }
    }

    fn write(&mut self, scene: &mut Scene<'_>) {
        if let Link::Opening { stream, greeted: greeted @ false, .. } = &mut self.link {
            match stream.take_error() {
                Ok(None) if stream.peer_addr().is_ok() => {
                    *greeted = true;
                    // Packets are small and wait for each other.
                    drop(stream.set_nodelay(true));
                    self.greet(scene);
                }
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => return self.lose(scene, Ending::Lost),
            }
        }
        while !self.outgoing.is_empty() {
            let stream = match &mut self.link {
                Link::Away(_) => return,
                Link::Opening { stream, .. } | Link::Live(stream) => stream,
            };
            match stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    // What came before the end is still there to be read.
                    self.outgoing.clear();
                    self.read(scene);
                    return self.lose(scene, Ending::Lost);
                }
            }
        }
    }

    /// False if the bytes are no packets.
    fn take_packets(&mut self, scene: &mut Scene<'_>) -> bool {
        let incoming = std::mem::take(&mut self.incoming);
        let mut at = 0;
        let fine = loop {
            match frame::split(&incoming[at..], PACKET_BYTES_MAX) {
                Ok(frame::Split::Frame(frame)) => {
                    at += frame.packet_bytes;
                    let packet = Packet::decode(self.version, frame.first_byte, frame.body);
                    if !packet.is_ok_and(|packet| self.take(packet, scene)) {
                        break false;
                    }
                }
                Ok(frame::Split::Incomplete { .. }) => break true,
                Err(_) => break false,
            }
        };
        if fine {
            self.incoming = incoming;
            self.incoming.drain(..at);
        }
        fine
    }

    /// False if the packet has no place here, or ends the connection.
    fn take(&mut self, packet: Packet<'_>, scene: &mut Scene<'_>) -> bool {
        match packet {
            Packet::ConnAck(ack) => {
                if ack.reason_code != ReasonCode::Success {
                    return false;
                }
                let Link::Opening { .. } = self.link else { return false };
                let Link::Opening { stream, .. } = std::mem::replace(&mut self.link, Link::Away(None)) else {
                    return false;
                };
                self.link = Link::Live(stream);
                self.replace_old(scene);
                self.broker_takes = ack.receive_maximum.map_or(20, |maximum| usize::from(maximum.get())).min(20);
                scene.write(Event::Connected { client: self.number, session_present: ack.session_present });
                self.clean_start = false;
                self.session_was_kept = ack.session_present;
                self.resume(scene, ack.session_present);
                true
            }
            Packet::Publish(publish) => self.receive(&publish, scene),
            Packet::Acknowledgement(ack) => {
                *scene.activity = Instant::now();
                match ack.kind {
                    AcknowledgementKind::PubRel => self.release(ack.packet_id, scene),
                    _ => self.acknowledged(&ack, scene),
                }
                true
            }
            Packet::SubAck(ack) => {
                let granted = ack.reason_codes.first().copied().filter(|code| !code.is_error());
                let granted = granted.and_then(|code| pantala_proto::QoS::from_bits(code as u8));
                let asked = Standing::Asking(Some(ack.packet_id));
                let Some(place) = self.subscriptions.iter().position(|one| one.standing == asked) else { return true };
                self.subscriptions[place].standing = match granted {
                    Some(_) => Standing::Held,
                    None => Standing::Absent(Instant::now() + SUBSCRIBE_RETRY),
                };
                scene.write(Event::Subscribed { client: self.number, subscription: place as u8, granted });
                true
            }
            Packet::UnsubAck(ack) => {
                let asked = Standing::Removing(Some(ack.packet_id));
                let Some(place) = self.subscriptions.iter().position(|one| one.standing == asked) else { return true };
                if ack.reason_codes.first().is_some_and(|code| code.is_error()) {
                    // Refused, so it is asked again, at the next connection at the latest.
                    self.subscriptions[place].standing = Standing::Removing(None);
                    return true;
                }
                self.subscriptions[place].standing = Standing::Absent(Instant::now());
                scene.write(Event::Unsubscribed { client: self.number, subscription: place as u8 });
                true
            }
            Packet::PingResp => {
                self.pings = self.pings.saturating_sub(1);
                true
            }
            _ => false,
        }
    }

    /// Takes up the Session, or begins anew if the broker has none.
    fn resume(&mut self, scene: &mut Scene<'_>, session_present: bool) {
        if !session_present {
            self.open.clear();
            for one in &mut self.subscriptions {
                match one.standing {
                    Standing::Removing(_) => one.standing = Standing::Absent(Instant::now()),
                    _ => one.standing = Standing::Absent(Instant::now()),
                }
            }
        }
        self.resend(scene, session_present);
    }

    fn change_subscriptions(&mut self, scene: &mut Scene<'_>, now: Instant) {
        for place in 0..self.subscriptions.len() {
            let one = &self.subscriptions[place];
            let (wanted, standing) = (one.wanted, one.standing);
            let asks = match standing {
                Standing::Absent(from) => wanted && from <= now,
                Standing::Asking(None) => true,
                _ => false,
            };
            let removes = matches!(standing, Standing::Removing(None)) || (standing == Standing::Held && !wanted);
            if !asks && !removes {
                continue;
            }
            let packet_id = self.free_id();
            let filter = self.subscriptions[place].whole_filter.clone();
            // A client has a handful of subscriptions.
            let (client, subscription) = (self.number, place as u8);
            if asks {
                let qos = self.facts.subscriptions[place].qos;
                let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
                let packet = pantala_proto::Subscribe {
                    packet_id,
                    subscription_identifier: None,
                    user_properties: Default::default(),
                    filters: [(filter.as_str(), options)].into_iter().collect(),
                };
                Packet::Subscribe(packet).encode(self.version, &mut self.outgoing);
                self.subscriptions[place].standing = Standing::Asking(Some(packet_id));
                scene.write(Event::Subscribing { client, subscription });
            } else {
                let packet = pantala_proto::Unsubscribe {
                    packet_id,
                    user_properties: Default::default(),
                    filters: [filter.as_str()].into_iter().collect(),
                };
                Packet::Unsubscribe(packet).encode(self.version, &mut self.outgoing);
                self.subscriptions[place].standing = Standing::Removing(Some(packet_id));
                scene.write(Event::Unsubscribing { client, subscription });
            }
        }
    }

    /// A Packet Identifier that no exchange of this client uses.
    fn free_id(&mut self) -> PacketId {
        loop {
            let id = self.next_id;
            self.next_id = id.following();
            let subscribes = self.subscriptions.iter().any(|one| {
                matches!(one.standing, Standing::Asking(Some(used)) | Standing::Removing(Some(used)) if used == id)
            });
            if !subscribes && self.exchanges.iter().all(|exchange| exchange.packet_id != id) {
                return id;
            }
        }
    }
}

/// A Will on its way into CONNECT.
struct PreparedWill {
    topic: TopicNumber,
    delay: u32,
    payload: Vec<u8>,
}

/// Errors of sockets that only say "not now" are no errors; this is for those who poll.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut)
}

/// User Properties of a message, derived from it; the same name twice, since order counts.
pub fn user_properties(message: MessageId) -> Vec<(String, String)> {
    if !message.sequence.is_multiple_of(3) {
        return Vec::new();
    }
    let pair = |name: &str, value: String| (name.to_owned(), value);
    vec![pair("b", message.to_string()), pair("a", "1".into()), pair("b", "2".into())]
}
