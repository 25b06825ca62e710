//! A plain client over a link that cuts at random bytes: if it is correct every message arrives and nothing is reported;
//! if it has a bug, that is.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use pantala_client::mock::{Behaviour, Cuts, CuttingLink, Limits, Message, MockBroker};
use pantala_proto::{AcknowledgementKind as Kind, Delivery, Packet, ProtocolVersion, QoS, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw;

/// Messages each way.
const MESSAGES: usize = 2_000;
/// Exchanges that the client has open at once.
const WINDOW: usize = 5;

/// The client's half of an exchange it has begun.
struct Exchange {
    packet_id: u16,
    number: usize,
    released: bool,
    /// On this connection.
    sent: bool,
    sent_before: bool,
}

/// A bug that the client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    NoDup,
    ResendsBackwards,
    ResendsPublishAfterPubRel,
    ForgetsExchanges,
    SendsBeyondTheWindow,
    AcknowledgesBackwards,
}

#[derive(Default)]
struct Client {
    bug: Option<Bug>,
    exchanges: VecDeque<Exchange>,
    next_number: usize,
    next_packet_id: u16,
    /// QoS 2 messages that PUBREL has not ended.
    unreleased: Vec<u16>,
    received: Vec<String>,
    had_session: bool,
}

fn is_exactly_once(number: usize) -> bool {
    number % 3 == 1
}

impl Client {
    /// What may be sent now: what is open first.
    fn output(&mut self, out: &mut Vec<u8>) {
        let window = if self.bug == Some(Bug::SendsBeyondTheWindow) { WINDOW + 1 } else { WINDOW };
        while self.exchanges.len() < window && self.next_number < MESSAGES {
            self.next_packet_id = self.next_packet_id % 20 + 1;
            let packet_id = self.next_packet_id;
            if self.exchanges.iter().any(|exchange| exchange.packet_id == packet_id) {
                continue;
            }
            let number = self.next_number;
            self.next_number += 1;
            self.exchanges.push_back(Exchange { packet_id, number, released: false, sent: false, sent_before: false });
        }
        for exchange in self.exchanges.iter_mut().filter(|exchange| !exchange.sent) {
            let Exchange { packet_id, number, released, sent_before, .. } = *exchange;
            (exchange.sent, exchange.sent_before) = (true, true);
            if released && self.bug != Some(Bug::ResendsPublishAfterPubRel) {
                out.extend(raw::ack(0x62, packet_id));
            } else {
                let dup = sent_before && self.bug != Some(Bug::NoDup);
                let flags = if is_exactly_once(number) { 4 } else { 2 } | if dup { 8 } else { 0 };
                out.extend(raw::publish(flags, "up", packet_id, &number.to_string()));
            }
        }
    }

    fn input(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::ConnAck(conn_ack) => {
                assert!(conn_ack.session_present || !self.had_session, "the Session is lost");
                self.had_session = true;
            }
            Packet::Publish(publish) => {
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                match publish.delivery {
                    Delivery::AtMostOnce => panic!("QoS 0"),
                    Delivery::AtLeastOnce { packet_id, .. } => {
                        if !self.received.contains(&payload) {
                            self.received.push(payload);
                        }
                        let at = if self.bug == Some(Bug::AcknowledgesBackwards) { 0 } else { out.len() };
                        out.splice(at..at, raw::ack(0x40, packet_id.number()));
                    }
                    Delivery::ExactlyOnce { packet_id, .. } => {
                        if !self.unreleased.contains(&packet_id.number()) {
                            self.unreleased.push(packet_id.number());
                            assert!(!self.received.contains(&payload), "{payload} came twice");
                            self.received.push(payload);
                        }
                        out.extend(raw::ack(0x50, packet_id.number()));
                    }
                }
            }
            Packet::Acknowledgement(acknowledgement) => {
                let packet_id = acknowledgement.packet_id.number();
                let at = self.exchanges.iter().position(|exchange| exchange.packet_id == packet_id);
                match (acknowledgement.kind, at) {
                    (Kind::PubAck | Kind::PubComp, Some(at)) => {
                        self.exchanges.remove(at);
                    }
                    (Kind::PubRec, Some(at)) => {
                        self.exchanges[at].released = true;
                        out.extend(raw::ack(0x62, packet_id));
                    }
                    (Kind::PubRel, _) => {
                        self.unreleased.retain(|it| *it != packet_id);
                        out.extend(raw::ack(0x70, packet_id));
                    }
                    (kind, None) => panic!("{kind:?} {packet_id} answers nothing"),
                }
            }
            Packet::SubAck(_) => {}
            Packet::Disconnect(_) if self.bug.is_some() => {}
            other => panic!("{other:?}"),
        }
    }

    fn is_done(&self) -> bool {
        self.next_number == MESSAGES && self.exchanges.is_empty() && self.received.len() == MESSAGES
    }

    /// One connection, until it is cut or all is done.
    async fn connection(&mut self, link: &CuttingLink) {
        self.exchanges.iter_mut().for_each(|exchange| exchange.sent = false);
        match self.bug {
            Some(Bug::ResendsBackwards) => self.exchanges.make_contiguous().reverse(),
            Some(Bug::ForgetsExchanges) => self.exchanges.clear(),
            _ => {}
        }
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        let mut connected = false;
        let mut out = raw::resume("c");
        let mut input = Vec::new();
        loop {
            if stream.write_all(&out).await.is_err() || self.is_done() {
                return;
            }
            out.clear();
            match stream.read_buf(&mut input).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
            while let frame::Split::Frame(frame) = frame::split(&input, 1_000).unwrap() {
                let packet = Packet::decode(ProtocolVersion::V5, frame.first_byte, frame.body).unwrap();
                if matches!(packet, Packet::ConnAck(_)) {
                    connected = true;
                    out.extend(raw::subscribe(100, "down", 2));
                }
                self.input(&packet, &mut out);
                input.drain(..frame.packet_bytes);
            }
            if connected {
                self.output(&mut out);
            }
        }
    }
}

fn limits() -> Limits {
    Limits { receive_maximum: NonZeroU16::new(WINDOW as u16), ..Limits::default() }
}

async fn every_message_arrives(seed: u64) {
    let behaviour = Behaviour { distinct_messages: true, limits: limits(), ..Behaviour::default() };
    let broker = MockBroker::serve_with(behaviour).await;
    let link = CuttingLink::to(broker.address(), Cuts::Random { seed, bytes: 0..=400 }).await;
    let mut client = Client::default();
    let mut given = 0;
    while !client.is_done() {
        client.connection(&link).await;
        // The Session has to be there, or the messages are nobody's.
        if given == 0 && broker.subscriptions_of("c").len() == 1 {
            for number in 0..MESSAGES {
                let qos = if is_exactly_once(number) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                broker.publish(Message::new("down", number.to_string()).with_qos(qos));
            }
            given = MESSAGES;
        }
        assert!(link.connections() < 10_000, "seed {seed}: no progress");
    }
    broker.assert_no_violations();
    assert!(link.cut() > 100, "seed {seed}: only {} cuts", link.cut());
    // In order: at least once those of QoS 1, exactly once those of QoS 2.
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(client.received, expected, "seed {seed}");
    let mut came: Vec<usize> = Vec::new();
    for message in broker.published().into_iter().filter(|message| message.topic_name == "up") {
        let number: usize = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
        match came.contains(&number) {
            true => assert!(!is_exactly_once(number), "seed {seed}: {number} was delivered twice"),
            false => came.push(number),
        }
    }
    assert_eq!(came, (0..MESSAGES).collect::<Vec<_>>(), "seed {seed}");
}

#[tokio::test]
async fn a_correct_client_loses_nothing_and_is_not_blamed() {
    for seed in 0..5 {
        every_message_arrives(seed).await;
    }
}

#[tokio::test]
async fn a_client_with_a_bug_is_blamed() {
    for (bug, statement) in [
        (Bug::NoDup, "MQTT-3.3.1-1"),
        (Bug::ResendsBackwards, "MQTT-4.6.0-1"),
        (Bug::ResendsPublishAfterPubRel, "MQTT-4.3.3-6"),
        // It takes the same identifiers for other messages.
        (Bug::ForgetsExchanges, "MQTT-4.4.0-1"),
        (Bug::SendsBeyondTheWindow, "MQTT-3.3.4-7"),
        (Bug::AcknowledgesBackwards, "MQTT-4.6.0-2"),
    ] {
        // Whoever is answered at once has never much under way.
        let hold_acknowledgements = bug == Bug::SendsBeyondTheWindow;
        let behaviour =
            Behaviour { distinct_messages: true, hold_acknowledgements, limits: limits(), ..Behaviour::default() };
        let broker = MockBroker::serve_with(behaviour).await;
        let link = CuttingLink::to(broker.address(), Cuts::Random { seed: 1, bytes: 50..=400 }).await;
        let mut client = Client { bug: Some(bug), ..Client::default() };
        while broker.violations().is_empty() && link.connections() < 1_000 {
            client.connection(&link).await;
            for number in 0..10 {
                let payload = format!("{} {number}", link.connections());
                broker.publish(Message::new("down", payload).with_qos(QoS::AtLeastOnce));
            }
        }
        let first = broker.violations().into_iter().next().and_then(|violation| violation.statement);
        assert_eq!(first, Some(statement), "{bug:?}");
    }
}
