//! A client that connects anew, at a broker that the test plays.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as Socket};
use std::time::Duration;

use mio::Poll;
use pantala_proto::{ConnAck, Delivery, Publish, PublishProperties, QoS};

use super::*;
use crate::checker::{Promise, Rules, check};
use crate::history::{MessageFacts, Purpose, SubscriptionFacts};
use crate::payload;
use crate::plan::Role;

const PATIENCE: Duration = Duration::from_secs(30);
const SALT: u64 = 5;
const NUMBER: ClientNumber = 0;

struct Bench {
    client: Client,
    history: History,
    started: Instant,
    topics: HashMap<String, TopicNumber>,
    poll: Poll,
    listener: TcpListener,
}

impl Bench {
    fn new() -> Self {
        let subscription = SubscriptionFacts { filter: "t".into(), qos: QoS::AtLeastOnce, share: None };
        let facts =
            ClientFacts { client_id: "c".into(), is_v5: true, subscriptions: vec![subscription], ..Default::default() };
        let role = Role::Subscriber { holds: Duration::ZERO };
        let part = Part { role, presences: vec![Presence::Present] };
        let mut history = History::default();
        history.cast.topics = vec!["t".into()];
        history.cast.clients = vec![facts.clone()];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut bench = Self {
            client: Client::new(NUMBER, facts, part, Random::new(1)),
            history,
            started: Instant::now(),
            topics: HashMap::from([("t".into(), 0)]),
            poll: Poll::new().unwrap(),
            listener,
        };
        bench.client.begin_cycle(Presence::Present);
        bench
    }

    /// Lets the client work until it has done something.
    fn until(&mut self, is_done: impl Fn(&Client, &History) -> bool) {
        let began = Instant::now();
        while !is_done(&self.client, &self.history) {
            assert!(began.elapsed() < PATIENCE, "it does not come: {:#?}", self.history.moments);
            let mut scene = Scene {
                history: &mut self.history,
                started: self.started,
                address: self.listener.local_addr().unwrap(),
                salt: SALT,
                topics: &self.topics,
                phase: Phase::Draining,
                activity: &mut Instant::now(),
            };
            self.client.work(&mut scene, self.poll.registry());
            self.client.read(&mut scene);
            std::thread::yield_now();
        }
    }

    /// The client's next connection, with its CONNECT taken out.
    fn accept(&mut self) -> Socket {
        let connects = |history: &History| count(history, |event| matches!(event, Event::Connecting { .. }));
        let before = connects(&self.history);
        self.until(|_, history| connects(history) > before);
        let (mut socket, _) = self.listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = [0; 2];
        socket.read_exact(&mut head).unwrap();
        let mut rest = vec![0; head[1].into()];
        socket.read_exact(&mut rest).unwrap();
        socket
    }

    /// Answers CONNECT.
    fn admit(&mut self, socket: &mut Socket, session_present: bool) {
        let connected = |history: &History| count(history, |event| matches!(event, Event::Connected { .. }));
        let before = connected(&self.history);
        send(socket, Packet::ConnAck(ConnAck::new(session_present, ReasonCode::Success)));
        self.until(|_, history| connected(history) > before);
    }

    fn message(&mut self) -> (MessageId, Vec<u8>) {
        let facts = MessageFacts {
            topic: 0,
            qos: QoS::AtLeastOnce,
            retain: false,
            expiry: None,
            purpose: Purpose::Will { delay: 0 },
        };
        let message = self.history.add_message(NUMBER, facts);
        (message, payload::encode(SALT, message, 0, 20))
    }
}

fn send(socket: &mut Socket, packet: Packet<'_>) {
    let mut bytes = Vec::new();
    packet.encode(ProtocolVersion::V5, &mut bytes);
    socket.write_all(&bytes).unwrap();
}

fn publish(payload: &[u8]) -> Packet<'_> {
    let delivery = Delivery::AtLeastOnce { packet_id: PacketId::FIRST, dup: false };
    let properties = PublishProperties::default();
    Packet::Publish(Publish { delivery, retain: false, topic_name: "t", properties, payload })
}

fn count(history: &History, is: impl Fn(&Event) -> bool) -> usize {
    history.moments.iter().filter(|moment| is(&moment.event)).count()
}

fn broken(history: &History) -> Vec<Promise> {
    let violations = check(history, Rules::default());
    violations.iter().map(|one| one.promise).filter(|promise| *promise == Promise::S4).collect()
}

#[test]
fn what_comes_on_a_connection_that_was_taken_over_is_seen() {
    let mut bench = Bench::new();
    let mut old = bench.accept();
    bench.admit(&mut old, false);
    bench.client.supersedes = true;
    let mut new = bench.accept();
    let ((early, early_payload), (late, late_payload)) = (bench.message(), bench.message());
    // As long as the new connection is not answered the old one is as good as ever.
    send(&mut old, publish(&early_payload));
    bench.admit(&mut new, true);
    let events: Vec<Event> = bench.history.moments.iter().map(|moment| moment.event).collect();
    let place = |is: &dyn Fn(&Event) -> bool| events.iter().rposition(is).unwrap();
    let received =
        place(&|event| matches!(event, Event::Received(one) if one.content == payload::Content::Message(early)));
    assert!(place(&|event| matches!(event, Event::Ended { ending: Ending::Superseded, .. })) < received);
    assert!(received < place(&|event| matches!(event, Event::Connected { .. })));
    assert_eq!(broken(&bench.history), []);
    assert!(bench.client.has_two_connections() && !bench.client.is_at_rest());
    // DISCONNECT is right, and nothing else is.
    send(&mut old, Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver)));
    send(&mut old, publish(&late_payload));
    drop(old);
    bench.until(|client, _| !client.has_two_connections());
    let content = Some(payload::Content::Message(late));
    assert_eq!(count(&bench.history, |event| *event == Event::Stale { client: NUMBER, content }), 1);
    assert_eq!(broken(&bench.history), [Promise::S4]);
}

#[test]
fn nothing_of_the_old_connection_is_answered_on_the_new_one() {
    let mut bench = Bench::new();
    let mut old = bench.accept();
    bench.admit(&mut old, false);
    bench.client.supersedes = true;
    let mut new = bench.accept();
    let (_, payload) = bench.message();
    send(&mut old, publish(&payload));
    bench.admit(&mut new, true);
    drop(old);
    bench.until(|client, _| !client.has_two_connections());
    // PINGREQ is a fence: what was to be said before has been said.
    bench.client.ping();
    bench.until(|client, _| client.outgoing.is_empty());
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(&[0xc0, 0]) {
        new.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    assert!(!said.contains(&0x40), "PUBACK in {said:02x?}");
}
