//! A connected client that speaks bytes and is read like a dialogue.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Auth, Delivery, Disconnect, Packet, PacketId, Property, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe,
    UserProperties, frame,
};

use pantala_broker::ListenerId;

use super::World;
use super::method::Word;

/// A packet from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    ConnAck { session_present: bool, code: ReasonCode },
    Publish(Delivered),
    Ack(AcknowledgementKind, u16, ReasonCode),
    SubAck(u16, Vec<ReasonCode>),
    UnsubAck(u16, Vec<ReasonCode>),
    PingResp,
    Disconnect(ReasonCode),
    Auth(ReasonCode),
}

/// A message from the broker, its Topic Alias resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub packet_id: u16,
    pub dup: bool,
    pub retain: bool,
    pub alias: Option<u16>,
    /// The packet had no Topic Name of its own.
    pub by_alias: bool,
    pub expiry: Option<u32>,
    pub identifiers: Vec<u32>,
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Pub {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: Option<u16>,
    pub expiry: Option<u32>,
    pub alias: Option<u16>,
}

impl Pub {
    pub fn new(topic: &str, payload: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            qos: 0,
            retain: false,
            dup: false,
            packet_id: None,
            expiry: None,
            alias: None,
        }
    }

    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    pub fn id(mut self, packet_id: u16) -> Self {
        self.packet_id = Some(packet_id);
        self
    }

    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub fn expiry(mut self, seconds: u32) -> Self {
        self.expiry = Some(seconds);
        self
    }

    pub fn alias(mut self, alias: u16) -> Self {
        self.alias = Some(alias);
        self
    }
}

/// A subscription to be made.
#[derive(Debug, Clone)]
pub struct Sub {
    pub filter: String,
    pub options: SubscriptionOptions,
    pub identifier: Option<u32>,
}

impl Sub {
    pub fn new(filter: &str, qos: u8) -> Self {
        let qos = QoS::from_bits(qos).unwrap();
        Self { filter: filter.to_owned(), options: SubscriptionOptions { qos, ..Default::default() }, identifier: None }
    }

    pub fn no_local(mut self) -> Self {
        self.options.no_local = true;
        self
    }

    pub fn published_retain(mut self) -> Self {
        self.options.retain_as_published = true;
        self
    }

    pub fn handling(mut self, handling: RetainHandling) -> Self {
        self.options.retain_handling = handling;
        self
    }

    pub fn identifier(mut self, identifier: u32) -> Self {
        self.identifier = Some(identifier);
        self
    }
}

/// How a QoS 1 or 2 publication ended for the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    Acknowledged(ReasonCode),
    /// No answer came.
    Withheld,
}

/// The client's end of a connection.
pub struct Peer {
    world: World,
    link: usize,
    version: ProtocolVersion,
    next_packet_id: Cell<u16>,
    aliases: RefCell<HashMap<u16, String>>,
}

impl Peer {
    pub fn open(world: &World, version: ProtocolVersion, listener: ListenerId, address: Option<SocketAddr>) -> Self {
        let link = world.open(version, listener, address);
        // Not from 1, so that identifiers of both directions differ.
        Self { world: world.clone(), link, version, next_packet_id: Cell::new(100), aliases: RefCell::default() }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn packet_id(&self) -> u16 {
        self.next_packet_id.set(self.next_packet_id.get() + 1);
        self.next_packet_id.get()
    }

    // ---- sending ----------------------------------------------------------------------------------------------

    pub fn send_bytes(&self, bytes: &[u8]) {
        self.world.link(self.link, |link| link.to_broker.extend_from_slice(bytes));
    }

    /// Sends a packet and waits for nothing.
    pub fn send(&self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_bytes(&bytes);
    }

    /// Sends PUBLISH and waits for nothing. Returns its Packet Identifier.
    pub fn send_publish(&self, message: &Pub) -> u16 {
        let number = if message.qos == 0 { 1 } else { message.packet_id.unwrap_or_else(|| self.packet_id()) };
        let packet_id = PacketId::new(number).unwrap();
        let mut section = Vec::new();
        if let Some(seconds) = message.expiry {
            Property::MessageExpiryInterval(seconds).encode(&mut section);
        }
        if let Some(alias) = message.alias.and_then(NonZeroU16::new) {
            Property::TopicAlias(alias).encode(&mut section);
        }
        self.send(&Packet::Publish(Publish {
            delivery: match message.qos {
                0 => Delivery::AtMostOnce,
                1 => Delivery::AtLeastOnce { packet_id, dup: message.dup },
                _ => Delivery::ExactlyOnce { packet_id, dup: message.dup },
            },
            retain: message.retain,
            topic_name: &message.topic,
            properties: PublishProperties::new(&section).unwrap(),
            payload: message.payload.as_bytes(),
        }));
        number
    }

    /// Publishes with the whole exchange.
    pub fn publish_with(&self, message: &Pub) -> Outcome {
        let number = self.send_publish(message);
        self.world.run();
        match message.qos {
            0 => Outcome::Sent,
            1 => self.outcome(AcknowledgementKind::PubAck, number),
            _ => {
                let outcome = self.outcome(AcknowledgementKind::PubRec, number);
                if matches!(outcome, Outcome::Acknowledged(code) if !code.is_error()) {
                    self.ack(AcknowledgementKind::PubRel, number);
                    self.world.run();
                    let code = self.outcome(AcknowledgementKind::PubComp, number);
                    assert_eq!(code, Outcome::Acknowledged(ReasonCode::Success), "PUBCOMP");
                }
                outcome
            }
        }
    }

    /// Publishes, and is not refused.
    pub fn publish(&self, topic: &str, qos: u8, payload: &str) {
        self.must_publish(&Pub::new(topic, payload).qos(qos));
    }

    pub fn retain(&self, topic: &str, qos: u8, payload: &str) {
        self.must_publish(&Pub::new(topic, payload).qos(qos).retained());
    }

    pub fn must_publish(&self, message: &Pub) {
        match self.publish_with(message) {
            Outcome::Withheld => panic!("{message:?} was not acknowledged"),
            Outcome::Acknowledged(code) => assert!(!code.is_error(), "{message:?}: {code:?}"),
            Outcome::Sent => {}
        }
    }

    /// The acknowledgement of a packet, which may stand anywhere among what has come: what it says.
    pub fn outcome(&self, kind: AcknowledgementKind, number: u16) -> Outcome {
        let found = self.take_first(|packet| matches!(packet, Received::Ack(k, n, _) if *k == kind && *n == number));
        match found {
            Some(Received::Ack(_, _, code)) => Outcome::Acknowledged(code),
            _ => Outcome::Withheld,
        }
    }

    pub fn ack(&self, kind: AcknowledgementKind, number: u16) {
        let packet_id = PacketId::new(number).unwrap();
        self.send(&Packet::Acknowledgement(Acknowledgement::new(kind, packet_id, ReasonCode::Success)));
    }

    /// Says a word in an AUTH packet, and waits for nothing.
    pub fn send_word(&self, reason_code: ReasonCode, word: &str) {
        self.send(&Packet::Auth(Auth {
            authentication_method: Some(Word::NAME),
            authentication_data: Some(word.as_bytes()),
            ..Auth::new(reason_code)
        }));
    }

    /// Acknowledges a message as its QoS asks, up to PUBCOMP.
    pub fn acknowledge(&self, message: &Delivered) {
        match message.qos {
            0 => {}
            1 => {
                self.ack(AcknowledgementKind::PubAck, message.packet_id);
                self.world.run();
            }
            _ => {
                self.ack(AcknowledgementKind::PubRec, message.packet_id);
                self.world.run();
                let release = self.outcome(AcknowledgementKind::PubRel, message.packet_id);
                assert_eq!(release, Outcome::Acknowledged(ReasonCode::Success), "PUBREL");
                self.ack(AcknowledgementKind::PubComp, message.packet_id);
                self.world.run();
            }
        }
    }

    /// Sends SUBSCRIBE and waits for nothing.
    pub fn send_subscribe(&self, subscription: &Sub) -> u16 {
        let number = self.packet_id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(number).unwrap(),
            subscription_identifier: subscription.identifier.and_then(NonZeroU32::new),
            user_properties: UserProperties::none(),
            filters: [(&*subscription.filter, subscription.options)].into_iter().collect(),
        }));
        number
    }

    /// Subscribes, and is granted what it asks for. SUBACK is taken out of what has come, the rest stays.
    pub fn subscribe_with(&self, subscription: &Sub) {
        let number = self.send_subscribe(subscription);
        self.world.run();
        let granted = match subscription.options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        };
        let found = self.take_first(|packet| matches!(packet, Received::SubAck(..)));
        assert_eq!(found, Some(Received::SubAck(number, vec![granted])), "{}", subscription.filter);
    }

    pub fn subscribe(&self, filter: &str, qos: u8) {
        self.subscribe_with(&Sub::new(filter, qos));
    }

    pub fn send_unsubscribe(&self, filter: &str) -> u16 {
        let number = self.packet_id();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::new(number).unwrap(),
            user_properties: UserProperties::none(),
            filters: [filter].into_iter().collect(),
        }));
        number
    }

    /// Unsubscribes; the answer is taken out of what has come.
    pub fn unsubscribe(&self, filter: &str) {
        let number = self.send_unsubscribe(filter);
        self.world.run();
        let found = self.take_first(|packet| matches!(packet, Received::UnsubAck(n, _) if *n == number));
        assert!(found.is_some(), "no UNSUBACK for {filter}");
    }

    /// DISCONNECT with Normal disconnection.
    pub fn disconnect(&self) {
        self.disconnect_with(ReasonCode::Success, None);
    }

    pub fn disconnect_with(&self, reason_code: ReasonCode, expiry: Option<u32>) {
        let packet = Disconnect { session_expiry_interval: expiry, ..Disconnect::new(reason_code) };
        self.send(&Packet::Disconnect(packet));
        self.world.run();
        assert!(self.is_closed(), "still open after DISCONNECT");
    }

    /// The network goes away.
    pub fn lose(&self) {
        self.reset();
        self.world.run();
    }

    /// The network goes away, and nothing has happened yet.
    pub fn reset(&self) {
        self.world.link(self.link, |link| link.reset = !link.closed);
    }

    /// As [`Peer::reset`], but what has been sent still arrives.
    pub fn reset_after_reading(&self) {
        self.world.link(self.link, |link| link.reads_first = true);
        self.reset();
    }

    // ---- receiving --------------------------------------------------------------------------------------------

    /// From here on the client's socket takes so many bytes and no more.
    pub fn take_only(&self, bytes: usize) {
        self.world.link(self.link, |link| (link.room, link.unblocked) = (bytes, bytes > 0 && !link.closed));
        self.world.run();
    }

    /// The client reads all that comes again.
    pub fn take_all(&self) {
        self.take_only(usize::MAX);
    }

    pub fn is_closed(&self) -> bool {
        self.world.link(self.link, |link| link.closed)
    }

    /// Bytes that the client has not sent because the broker does not want them.
    pub fn unsent(&self) -> usize {
        self.world.link(self.link, |link| link.to_broker.len())
    }

    /// The Reason String of the last packet that has come, which stays.
    pub fn reason(&self) -> Option<String> {
        let (version, bytes) = self.world.link(self.link, |link| (link.version, link.from_broker.clone()));
        let (mut at, mut reason) = (0, None);
        while let frame::Split::Frame(frame) = frame::split(&bytes[at..], u32::MAX).unwrap() {
            reason = match Packet::decode(version, frame.first_byte, frame.body).unwrap() {
                Packet::ConnAck(packet) => packet.reason_string.map(str::to_owned),
                Packet::Acknowledgement(packet) => packet.reason_string.map(str::to_owned),
                Packet::SubAck(packet) => packet.reason_string.map(str::to_owned),
                Packet::Disconnect(packet) => packet.reason_string.map(str::to_owned),
                _ => None,
            };
            at += frame.packet_bytes;
        }
        reason
    }

    /// The next packet that has come.
    pub fn next(&self) -> Option<Received> {
        self.take_first(|_| true)
    }

    /// Takes the first packet that fits out of what has come.
    pub fn take_first(&self, fits: impl Fn(&Received) -> bool) -> Option<Received> {
        let (version, bytes) = self.world.link(self.link, |link| (link.version, link.from_broker.clone()));
        let mut at = 0;
        while let frame::Split::Frame(frame) = frame::split(&bytes[at..], u32::MAX).unwrap() {
            let packet = Packet::decode(version, frame.first_byte, frame.body).unwrap();
            let received = self.owned(&packet);
            if fits(&received) {
                let end = at + frame.packet_bytes;
                self.world.link(self.link, |link| drop(link.from_broker.drain(at..end)));
                return Some(received);
            }
            at += frame.packet_bytes;
        }
        None
    }

    /// All that has come.
    pub fn drain(&self) -> Vec<Received> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// All messages that have come; the rest is dropped.
    pub fn messages(&self) -> Vec<Delivered> {
        let messages = self.drain().into_iter().filter_map(|packet| match packet {
            Received::Publish(message) => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// Takes messages and acknowledges them until none comes any more.
    pub fn take_everything(&self) -> Vec<Delivered> {
        let mut all = Vec::new();
        self.world.run();
        while let Some(packet) = self.take_first(|packet| matches!(packet, Received::Publish(_))) {
            let Received::Publish(message) = packet else { unreachable!("only messages are taken") };
            self.acknowledge(&message);
            all.push(message);
        }
        all
    }

    /// The next packet is this message.
    pub fn expect_message(&self, topic: &str, payload: &str) -> Delivered {
        match self.next() {
            Some(Received::Publish(message)) => {
                assert_eq!((&*message.topic, &*message.payload), (topic, payload));
                message
            }
            other => panic!("{topic} {payload} was to come, not {other:?}"),
        }
    }

    /// The next packet is this message; it is acknowledged.
    pub fn take(&self, topic: &str, payload: &str) -> Delivered {
        let message = self.expect_message(topic, payload);
        self.acknowledge(&message);
        message
    }

    #[track_caller]
    pub fn expect(&self, packet: &Received) {
        assert_eq!(self.next().as_ref(), Some(packet));
    }

    #[track_caller]
    pub fn expect_nothing(&self) {
        assert_eq!(self.next(), None);
    }

    /// The broker says why and closes; before MQTT 5 it only closes.
    #[track_caller]
    pub fn expect_end(&self, code: ReasonCode) {
        if self.version.is_v5() {
            self.expect(&Received::Disconnect(code));
        }
        self.expect_nothing();
        assert!(self.is_closed());
    }

    fn owned(&self, packet: &Packet<'_>) -> Received {
        match packet {
            Packet::ConnAck(packet) => {
                Received::ConnAck { session_present: packet.session_present, code: packet.reason_code }
            }
            Packet::Publish(publish) => Received::Publish(self.delivered(publish)),
            Packet::Acknowledgement(packet) => {
                Received::Ack(packet.kind, packet.packet_id.number(), packet.reason_code)
            }
            Packet::SubAck(packet) => Received::SubAck(packet.packet_id.number(), packet.reason_codes.clone()),
            Packet::UnsubAck(packet) => Received::UnsubAck(packet.packet_id.number(), packet.reason_codes.clone()),
            Packet::PingResp => Received::PingResp,
            Packet::Disconnect(packet) => Received::Disconnect(packet.reason_code),
            Packet::Auth(packet) => Received::Auth(packet.reason_code),
            other => panic!("a broker does not send {other:?}"),
        }
    }

    fn delivered(&self, publish: &Publish<'_>) -> Delivered {
        let (mut expiry, mut identifiers) = (None, Vec::new());
        for property in publish.properties.iter() {
            match property {
                Property::MessageExpiryInterval(seconds) => expiry = Some(seconds),
                Property::SubscriptionIdentifier(identifier) => identifiers.push(identifier.get()),
                _ => {}
            }
        }
        identifiers.sort_unstable();
        let alias = publish.properties.topic_alias.map(NonZeroU16::get);
        let mut aliases = self.aliases.borrow_mut();
        if let Some(alias) = alias
            && !publish.topic_name.is_empty()
        {
            aliases.insert(alias, publish.topic_name.to_owned());
        }
        let topic = match (publish.topic_name, alias) {
            ("", Some(alias)) => aliases.get(&alias).expect("the alias was set before").clone(),
            (name, _) => name.to_owned(),
        };
        let dup = match publish.delivery {
            Delivery::AtMostOnce => false,
            Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
        };
        Delivered {
            topic,
            payload: String::from_utf8(publish.payload.to_vec()).expect("the tests speak text"),
            qos: publish.delivery.qos() as u8,
            packet_id: publish.delivery.packet_id().map_or(0, PacketId::number),
            dup,
            retain: publish.retain,
            alias,
            by_alias: publish.topic_name.is_empty(),
            expiry,
            identifiers,
        }
    }
}
