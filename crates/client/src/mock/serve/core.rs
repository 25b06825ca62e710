//! What the serving broker knows and decides. It opens no socket and reads no clock: bytes and `now` go in, and what is
//! to be written stands in each connection's output.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use pantala_proto::{
    Acknowledgement, AcknowledgementKind, ConnAck, Connect, DecodeError, Disconnect, Packet, PacketId, ProtocolVersion,
    Publish, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions, TopicFilter, UnsubAck,
    Unsubscribe, UserProperties, VARIABLE_BYTE_INTEGER_MAX, frame,
};
use tokio::time::Instant;

use super::super::peer::hex;
use super::super::received::Received;
use super::behaviour::{Behaviour, Cut, Limits};
use super::filter::matches;
use super::incoming::{Incoming, Seen};
use super::message::Message;
use super::outgoing::{Delivered, Outgoing, Receiver};
use super::violation::{Finding, Violation};

/// Packets and messages that are remembered for the test; the oldest beyond are forgotten.
const REMEMBERED_MAX: usize = 1_000_000;
/// Violations that are told; the first are the ones to look at.
const VIOLATIONS_MAX: usize = 1_000;
/// Output a client may leave unread. Beyond it QoS 0 messages are not sent to it, and it is not read.
pub(super) const OUTPUT_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// The whole broker.
#[derive(Default)]
pub(super) struct Core {
    pub(super) behaviour: Behaviour,
    pub(super) connections: BTreeMap<usize, Connection>,
    pub(super) received: VecDeque<Received>,
    pub(super) published: VecDeque<Message>,
    pub(super) violations: Vec<Violation>,
    pub(super) retained: BTreeMap<String, Message>,
    /// Connections ever accepted.
    pub(super) accepted: usize,
    /// Tests that wait for something.
    pub(super) watchers: Vec<Waker>,
    sessions: BTreeMap<String, Session>,
    assigned: usize,
    /// Messages given to Shared Subscriptions: whose turn it is.
    shared_turn: usize,
}

/// A Network Connection.
pub(super) struct Connection {
    pub(super) output: Vec<u8>,
    /// It is to be ended, after its output has been written.
    pub(super) closing: bool,
    pub(super) waker: Option<Waker>,
    stage: Stage,
    client_id: String,
    limits: Limits,
    receiver: Receiver,
    will: Option<Message>,
    input: Vec<u8>,
    input_bytes: usize,
    packets: usize,
    keep_alive: Option<Duration>,
    last_packet: Instant,
    aliases: BTreeMap<u16, String>,
    /// PUBLISH packets that use up the broker's Receive Maximum, counted as v5 section 4.9 does.
    quota_used: usize,
    held: VecDeque<Answer>,
    /// SUBSCRIBE and UNSUBSCRIBE packets without their answer.
    requests: BTreeSet<PacketId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    BeforeConnect,
    Connected,
    /// It has no Session any more; what still comes is only looked at.
    Over,
}

#[derive(Default)]
struct Session {
    connection: Option<usize>,
    /// It outlives its connection.
    lasting: bool,
    subscriptions: BTreeMap<String, Subscription>,
    incoming: Incoming,
    outgoing: Outgoing,
}

#[derive(Clone, Copy)]
struct Subscription {
    options: SubscriptionOptions,
    identifier: Option<NonZeroU32>,
}

/// What can be held back.
enum Answer {
    Acknowledgement(AcknowledgementKind, PacketId, ReasonCode),
    SubAck(PacketId, Vec<ReasonCode>),
    UnsubAck(PacketId, Vec<ReasonCode>),
}

impl Connection {
    fn new(now: Instant) -> Self {
        Self {
            output: Vec::new(),
            closing: false,
            waker: None,
            stage: Stage::BeforeConnect,
            client_id: String::new(),
            limits: Limits::default(),
            receiver: Receiver { version: ProtocolVersion::V5, receive_maximum: 65_535, packet_bytes_max: usize::MAX },
            will: None,
            input: Vec::new(),
            input_bytes: 0,
            packets: 0,
            keep_alive: None,
            last_packet: now,
            aliases: BTreeMap::new(),
            quota_used: 0,
            held: VecDeque::new(),
            requests: BTreeSet::new(),
        }
    }

    fn packet_bytes_max(&self) -> u32 {
        self.limits.maximum_packet_size.map_or(VARIABLE_BYTE_INTEGER_MAX + 5, NonZeroU32::get)
    }

    fn send(&mut self, packet: &Packet<'_>) {
        packet.encode(self.receiver.version, &mut self.output);
    }
}

impl Core {
    /// A new connection. Its number.
    pub(super) fn opened(&mut self, now: Instant) -> usize {
        self.accepted += 1;
        self.connections.insert(self.accepted, Connection::new(now));
        self.accepted
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, number: usize) {
        self.detach(number, true);
        self.connections.remove(&number);
    }

    /// When the connection will have been silent for too long (v5 MQTT-3.1.2-22).
    pub(super) fn deadline(&self, number: usize) -> Option<Instant> {
        let connection = self.connections.get(&number)?;
        Some(connection.last_packet + connection.keep_alive?.mul_f64(1.5))
    }

    /// The deadline is over.
    pub(super) fn silent(&mut self, number: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let statement = if connection.limits.server_keep_alive.is_some() { "MQTT-3.1.2-21" } else { "MQTT-3.1.2-20" };
        let keep_alive = connection.keep_alive.take().unwrap_or_default();
        let what = format!("no packet for one and a half times the Keep Alive of {keep_alive:?}");
        self.violated(number, Finding::new(statement, what), None);
        self.end(number, ReasonCode::KeepAliveTimeout);
    }

    /// Bytes have come.
    pub(super) fn input(&mut self, now: Instant, number: usize, mut bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.closing {
            return;
        }
        let mut is_cut = false;
        if let Some(Cut::AfterBytes(count)) = self.behaviour.cut {
            let left = count.saturating_sub(connection.input_bytes);
            is_cut = bytes.len() >= left;
            bytes = &bytes[..bytes.len().min(left)];
        }
        connection.input_bytes += bytes.len();
        connection.input.extend_from_slice(bytes);
        while let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.closing) {
            match frame::split(&connection.input, connection.packet_bytes_max()) {
                Ok(frame::Split::Incomplete { .. }) => break,
                Ok(frame::Split::Frame(frame)) => {
                    let bytes: Bytes = connection.input.drain(..frame.packet_bytes).collect();
                    connection.packets += 1;
                    connection.last_packet = now;
                    let packets = connection.packets;
                    self.packet(number, bytes);
                    if matches!(self.behaviour.cut, Some(Cut::AfterPackets(count)) if packets >= count) {
                        self.drop_connection(number);
                    }
                }
                Err(error) => {
                    let bytes = Bytes::copy_from_slice(&connection.input);
                    self.malformed(number, error, &bytes);
                }
            }
        }
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if is_cut {
            connection.output.clear();
        }
        // After DISCONNECT there should be nothing; what came with it has been looked at.
        connection.closing |= is_cut || connection.stage == Stage::Over;
    }

    /// Ends the connection without a word.
    pub(super) fn drop_connection(&mut self, number: usize) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.closing = true;
        }
    }

    /// Ends the connection, with DISCONNECT if it is one of MQTT 5 and has its CONNACK.
    pub(super) fn end(&mut self, number: usize, reason_code: ReasonCode) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.receiver.version.is_v5() && connection.stage == Stage::Connected && !connection.closing {
            connection.send(&Packet::Disconnect(Disconnect::new(reason_code)));
        }
        connection.closing = true;
    }

    /// The connection of this client.
    pub(super) fn connection_of(&self, client_id: &str) -> Option<usize> {
        self.sessions.get(client_id)?.connection
    }

    /// Client Identifiers of those connected.
    pub(super) fn connected(&self) -> impl Iterator<Item = &str> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.connection.is_some())
            .map(|(client_id, _)| client_id.as_str())
    }

    /// Topic Filters of this client's Session.
    pub(super) fn subscriptions_of(&self, client_id: &str) -> impl Iterator<Item = &str> {
        self.sessions.get(client_id).into_iter().flat_map(|session| session.subscriptions.keys().map(String::as_str))
    }

    /// QoS 1 and 2 messages this client has not acknowledged to the end, and those waiting for it.
    pub(super) fn owed_to(&self, client_id: &str) -> usize {
        self.sessions.get(client_id).map_or(0, |session| session.outgoing.len())
    }

    /// Acknowledgements that wait to be released.
    pub(super) fn held(&self) -> usize {
        self.connections.values().map(|connection| connection.held.len()).sum()
    }

    /// Sends the oldest held acknowledgements of each connection, `count` at most.
    pub(super) fn release(&mut self, count: usize) {
        let numbers: Vec<usize> = self.connections.keys().copied().collect();
        for number in numbers {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let count = count.min(connection.held.len());
            let answers: Vec<Answer> = connection.held.drain(..count).collect();
            answers.into_iter().for_each(|answer| self.send_answer(number, answer));
        }
    }

    /// Wakes whoever has something to do or to look at.
    pub(super) fn wake(&mut self) {
        for connection in self.connections.values_mut() {
            if (connection.closing || !connection.output.is_empty())
                && let Some(waker) = connection.waker.take()
            {
                waker.wake();
            }
        }
        self.watchers.drain(..).for_each(Waker::wake);
    }

    fn packet(&mut self, number: usize, bytes: Bytes) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (stage, version) = (connection.stage, connection.receiver.version);
        let received = match Received::decode(number, version, bytes.clone()) {
            Ok(received) => received,
            Err(error) => return self.malformed(number, error, &bytes),
        };
        if self.received.len() == REMEMBERED_MAX {
            self.received.pop_front();
        }
        self.received.push_back(received.clone());
        match (stage, received.packet()) {
            (Stage::Over, _) => {
                let what = "a packet after DISCONNECT";
                self.violated(number, Finding::new("MQTT-3.14.4-1", what), Some(&received));
            }
            (Stage::BeforeConnect, Packet::Connect(connect)) => self.connect(number, &connect, &received),
            (Stage::BeforeConnect, _) => {
                self.violated(number, Finding::new("MQTT-3.1.0-1", "a packet before CONNECT"), Some(&received));
                self.drop_connection(number);
            }
            (Stage::Connected, Packet::Connect(_)) => {
                self.protocol_error(number, Finding::new("MQTT-3.1.0-2", "a second CONNECT"), &received);
            }
            (Stage::Connected, Packet::Publish(publish)) => self.publish(number, &publish, &received),
            (Stage::Connected, Packet::Acknowledgement(acknowledgement)) => {
                self.acknowledgement(number, &acknowledgement, &received);
            }
            (Stage::Connected, Packet::Subscribe(subscribe)) => self.subscribe(number, &subscribe, &received),
            (Stage::Connected, Packet::Unsubscribe(unsubscribe)) => self.unsubscribe(number, &unsubscribe, &received),
            (Stage::Connected, Packet::PingReq) => self.send(number, &Packet::PingResp),
            (Stage::Connected, Packet::Disconnect(disconnect)) => self.disconnect(number, &disconnect, &received),
            (Stage::Connected, Packet::Auth(_)) => {
                let what = "AUTH, and CONNECT had no Authentication Method";
                self.protocol_error(number, Finding::new("MQTT-4.12.0-7", what), &received);
            }
            (Stage::Connected, Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp) => {
                self.protocol_error(number, Finding::unnumbered("a packet that only servers send"), &received);
            }
        }
    }

    fn connect(&mut self, number: usize, connect: &Connect<'_>, received: &Received) {
        let version = connect.version;
        let limits = self.behaviour.limits.for_version(version);
        let expiry = limits.session_expiry_interval.or(connect.properties.session_expiry_interval).unwrap_or(0);
        let lasting = if version.is_v5() { expiry > 0 } else { !connect.clean_start };
        let mut client_id = connect.client_id.to_owned();
        let nameless = client_id.is_empty();
        if nameless {
            self.assigned += 1;
            let assigned = self.assigned;
            client_id = limits.assigned_client_identifier.clone().unwrap_or_else(|| format!("assigned-{assigned}"));
        }
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.receiver = Receiver {
            version,
            receive_maximum: connect.properties.receive_maximum.map_or(65_535, |max| usize::from(max.get())),
            packet_bytes_max: connect.properties.maximum_packet_size.map_or(usize::MAX, |max| max.get() as usize),
        };
        connection.client_id.clone_from(&client_id);
        let mut finding = None;
        let refused = if let Some(code) = self.behaviour.refuse_connect {
            Some(code)
        } else if connect.properties.authentication_method.is_some() {
            Some(ReasonCode::BadAuthenticationMethod)
        } else if nameless && !version.is_v5() && !connect.clean_start {
            // v3.1.1 MQTT-3.1.3-7, MQTT-3.1.3-8.
            finding = Some(Finding::unnumbered("no Client Identifier for a Session that is to last"));
            Some(ReasonCode::ClientIdentifierNotValid)
        } else {
            match &connect.will {
                Some(will) if will.qos > limits.maximum_qos => Some(ReasonCode::QoSNotSupported),
                Some(will) if will.retain && !limits.retain_available => Some(ReasonCode::RetainNotSupported),
                _ => None,
            }
        };
        if let Some(code) = refused {
            if version.is_v5() || code.v3_connect_return_code().is_some() {
                connection.send(&Packet::ConnAck(ConnAck::new(false, code)));
            }
            (connection.stage, connection.closing) = (Stage::Over, true);
            if let Some(finding) = finding {
                self.violated(number, finding, Some(received));
            }
            return;
        }
        let keep_alive = u64::from(limits.server_keep_alive.unwrap_or(connect.keep_alive));
        connection.keep_alive = (keep_alive > 0).then(|| Duration::from_secs(keep_alive));
        connection.will = connect.will.as_ref().map(Message::of_will);
        connection.limits = limits;
        connection.stage = Stage::Connected;
        if let Some(old) = self.connection_of(&client_id) {
            self.end(old, ReasonCode::SessionTakenOver);
            self.detach(old, true);
        }
        if connect.clean_start {
            self.sessions.remove(&client_id);
        }
        let session_present = self.sessions.contains_key(&client_id);
        let session = self.sessions.entry(client_id.clone()).or_default();
        (session.connection, session.lasting) = (Some(number), lasting);
        session.incoming.connected(session_present);
        session.outgoing.connected();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let limits = connection.limits.clone();
        connection.send(&Packet::ConnAck(ConnAck {
            topic_alias_maximum: limits.topic_alias_maximum,
            assigned_client_identifier: nameless.then_some(&client_id),
            server_keep_alive: limits.server_keep_alive,
            maximum_packet_size: limits.maximum_packet_size,
            receive_maximum: limits.receive_maximum,
            session_expiry_interval: limits.session_expiry_interval,
            maximum_qos: limits.maximum_qos,
            retain_available: limits.retain_available,
            wildcard_subscription_available: limits.wildcard_subscription_available,
            subscription_identifier_available: limits.subscription_identifier_available,
            shared_subscription_available: limits.shared_subscription_available,
            ..ConnAck::new(session_present, ReasonCode::Success)
        }));
        self.send_owed(&client_id);
    }

    fn publish(&mut self, number: usize, publish: &Publish<'_>, received: &Received) {
        let refuse = self.behaviour.refuse_publishes;
        let distinct = self.behaviour.distinct_messages;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let topic_name = match resolve_alias(connection, publish) {
            Ok(topic_name) => topic_name,
            Err((code, finding)) => {
                self.violated(number, finding, Some(received));
                return self.end(number, code);
            }
        };
        let qos = publish.delivery.qos();
        let limits = &connection.limits;
        let wrong = if qos > limits.maximum_qos {
            Some((ReasonCode::QoSNotSupported, Finding::new("MQTT-3.2.2-11", "QoS above the Maximum QoS")))
        } else if publish.retain && !limits.retain_available {
            Some((ReasonCode::RetainNotSupported, Finding::new("MQTT-3.2.2-14", "RETAIN is not available")))
        } else if publish.properties.has_subscription_identifier {
            let what = "a Subscription Identifier in a PUBLISH to the server";
            Some((ReasonCode::ProtocolError, Finding::new("MQTT-3.3.4-6", what)))
        } else {
            None
        };
        if let Some((code, finding)) = wrong {
            self.violated(number, finding, Some(received));
            return self.end(number, code);
        }
        let client_id = connection.client_id.clone();
        let message = Message::of_publish(publish, &topic_name);
        let Some(packet_id) = publish.delivery.packet_id() else { return self.route(message, Some(&client_id)) };

        let receive_maximum = limits.receive_maximum.map_or(65_535, |max| usize::from(max.get()));
        connection.quota_used += 1;
        if connection.quota_used > receive_maximum {
            let what = format!(
                "{} PUBLISH packets at once, and the Receive Maximum is {receive_maximum}",
                connection.quota_used
            );
            self.violated(number, Finding::new("MQTT-3.3.4-7", what), Some(received));
            return self.end(number, ReasonCode::ReceiveMaximumExceeded);
        }
        if connection.requests.contains(&packet_id) {
            self.violated(number, in_use(packet_id), Some(received));
        }
        let dup = received.bytes()[0] & 0b1000 != 0;
        let Some(session) = self.sessions.get_mut(&client_id) else { return };
        let mut findings = Vec::new();
        let seen = Seen { packet_id, qos, dup, content: content_of(&message), distinct };
        let is_new = session.incoming.publish(seen, &mut findings);
        self.all_violated(number, findings, received);
        if is_new && refuse.is_none() {
            self.route(message, Some(&client_id));
        }
        let kind = if qos == QoS::ExactlyOnce { AcknowledgementKind::PubRec } else { AcknowledgementKind::PubAck };
        self.answer(number, Answer::Acknowledgement(kind, packet_id, refuse.unwrap_or(ReasonCode::Success)));
    }

    fn acknowledgement(&mut self, number: usize, acknowledgement: &Acknowledgement<'_>, received: &Received) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let client_id = connection.client_id.clone();
        let Some(session) = self.sessions.get_mut(&client_id) else { return };
        let mut findings = Vec::new();
        if acknowledgement.kind == AcknowledgementKind::PubRel {
            let packet_id = acknowledgement.packet_id;
            let known = session.incoming.pub_rel(packet_id, &mut findings);
            let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
            self.answer(number, Answer::Acknowledgement(AcknowledgementKind::PubComp, packet_id, code));
        } else {
            let version = connection.receiver.version;
            session.outgoing.acknowledged(acknowledgement, version, &mut connection.output, &mut findings);
            self.send_owed(&client_id);
        }
        self.all_violated(number, findings, received);
    }

    fn subscribe(&mut self, number: usize, subscribe: &Subscribe<'_>, received: &Received) {
        let refuse = self.behaviour.refuse_subscriptions;
        if !self.request(number, subscribe.packet_id, received) {
            return;
        }
        let Some(connection) = self.connections.get(&number) else { return };
        let (limits, client_id) = (connection.limits.clone(), connection.client_id.clone());
        if subscribe.subscription_identifier.is_some() && !limits.subscription_identifier_available {
            let finding = Finding::unnumbered("a Subscription Identifier, and they are not available");
            self.violated(number, finding, Some(received));
            return self.end(number, ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        let mut reason_codes = Vec::new();
        let mut replays = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            let subscription = Subscription { options, identifier: subscribe.subscription_identifier };
            let code = match self.check_filter(number, filter, options, &limits, received) {
                Err(code) => code,
                Ok(_) if refuse.is_some() => refuse.unwrap_or(ReasonCode::UnspecifiedError),
                Ok(parsed) => {
                    let Some(session) = self.sessions.get_mut(&client_id) else { return };
                    let is_new = session.subscriptions.insert(filter.to_owned(), subscription).is_none();
                    let wanted = match options.retain_handling {
                        RetainHandling::Send => true,
                        RetainHandling::SendIfNew => is_new,
                        RetainHandling::DoNotSend => false,
                    };
                    if wanted && let TopicFilter::Plain(filter) = parsed {
                        replays.push((filter.to_owned(), subscription));
                    }
                    [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2][options.qos as usize]
                }
            };
            reason_codes.push(code);
        }
        self.answer(number, Answer::SubAck(subscribe.packet_id, reason_codes));
        for (filter, subscription) in replays {
            let retained: Vec<Message> =
                self.retained.values().filter(|message| matches(&filter, &message.topic_name)).cloned().collect();
            for message in retained {
                let qos = message.qos.min(subscription.options.qos);
                let identifiers = subscription.identifier.into_iter().collect();
                self.deliver(&client_id, Delivered { message: message.with_qos(qos), identifiers });
            }
        }
    }

    fn check_filter<'f>(
        &mut self,
        number: usize,
        filter: &'f str,
        options: SubscriptionOptions,
        limits: &Limits,
        received: &Received,
    ) -> Result<TopicFilter<'f>, ReasonCode> {
        let parsed =
            TopicFilter::parse(filter).map_err(|error| (ReasonCode::TopicFilterInvalid, filter_finding(error)));
        let (code, finding) = match parsed {
            Err(wrong) => wrong,
            Ok(parsed @ TopicFilter::Shared(_)) if !limits.shared_subscription_available => {
                let finding = Finding::unnumbered(format!("{parsed:?}, and Shared Subscriptions are not available"));
                (ReasonCode::SharedSubscriptionsNotSupported, finding)
            }
            Ok(TopicFilter::Shared(_)) if options.no_local => {
                let finding = Finding::new("MQTT-3.8.3-4", "No Local with a Shared Subscription");
                self.violated(number, finding, Some(received));
                self.end(number, ReasonCode::ProtocolError);
                return Err(ReasonCode::UnspecifiedError);
            }
            Ok(parsed) if parsed.has_wildcard() && !limits.wildcard_subscription_available => {
                let finding = Finding::unnumbered(format!("{parsed:?}, and wildcards are not available"));
                (ReasonCode::WildcardSubscriptionsNotSupported, finding)
            }
            Ok(parsed) => return Ok(parsed),
        };
        self.violated(number, finding, Some(received));
        Err(code)
    }

    fn unsubscribe(&mut self, number: usize, unsubscribe: &Unsubscribe<'_>, received: &Received) {
        if !self.request(number, unsubscribe.packet_id, received) {
            return;
        }
        let Some(connection) = self.connections.get(&number) else { return };
        let Some(session) = self.sessions.get_mut(&connection.client_id) else { return };
        let code = |found: bool| if found { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
        let codes =
            unsubscribe.filters.iter().map(|filter| code(session.subscriptions.remove(filter).is_some())).collect();
        self.answer(number, Answer::UnsubAck(unsubscribe.packet_id, codes));
    }

    /// Whether the Packet Identifier of a SUBSCRIBE or UNSUBSCRIBE is free; it no longer is.
    fn request(&mut self, number: usize, packet_id: PacketId, received: &Received) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else { return false };
        let Some(session) = self.sessions.get(&connection.client_id) else { return false };
        if !connection.requests.insert(packet_id) || session.incoming.is_open(packet_id) {
            self.violated(number, in_use(packet_id), Some(received));
        }
        true
    }

    fn disconnect(&mut self, number: usize, disconnect: &Disconnect<'_>, received: &Received) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.receiver.version.is_v5()
            && let Some(seconds) = disconnect.session_expiry_interval
            && let Some(session) = self.sessions.get_mut(&connection.client_id)
        {
            if seconds > 0 && !session.lasting {
                let what = "DISCONNECT makes a Session last that CONNECT had end with its connection";
                return self.protocol_error(number, Finding::unnumbered(what), received);
            }
            session.lasting = seconds > 0;
        }
        self.detach(number, disconnect.reason_code != ReasonCode::Success);
    }

    /// The client is gone from its Session, which ends if it is not to last. The Will is published if there is one and
    /// it is `wanted`.
    fn detach(&mut self, number: usize, wanted: bool) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.stage = Stage::Over;
        connection.keep_alive = None;
        connection.held.clear();
        let will = connection.will.take().filter(|_| wanted);
        let client_id = connection.client_id.clone();
        if let Some(session) = self.sessions.get_mut(&client_id)
            && session.connection == Some(number)
        {
            session.connection = None;
            if !session.lasting {
                self.sessions.remove(&client_id);
            }
        }
        if let Some(will) = will {
            self.route(will, Some(&client_id));
        }
    }

    /// Gives a message to all who want it.
    pub(super) fn route(&mut self, message: Message, from: Option<&str>) {
        if self.published.len() == REMEMBERED_MAX {
            self.published.pop_front();
        }
        self.published.push_back(message.clone());
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.topic_name);
            } else {
                self.retained.insert(message.topic_name.clone(), message.clone());
            }
        }
        // Each client gets one copy for all its plain subscriptions, and those who are chosen one for each shared one.
        let mut copies: Vec<(String, Delivered)> = Vec::new();
        let mut shared: BTreeMap<&str, Vec<(&str, Subscription)>> = BTreeMap::new();
        for (client_id, session) in &self.sessions {
            let mut best: Option<(QoS, bool)> = None;
            let mut identifiers = Vec::new();
            for (filter, subscription) in &session.subscriptions {
                let Ok(parsed) = TopicFilter::parse(filter) else { continue };
                if !matches(parsed.filter(), &message.topic_name) {
                    continue;
                }
                let options = subscription.options;
                match parsed {
                    TopicFilter::Shared(_) => shared.entry(filter).or_default().push((client_id, *subscription)),
                    TopicFilter::Plain(_) if options.no_local && from == Some(client_id) => {}
                    TopicFilter::Plain(_) if self.behaviour.copy_for_each_subscription => {
                        let identifiers = subscription.identifier.into_iter().collect();
                        let delivered = copy(&message, options.qos, options.retain_as_published, identifiers);
                        copies.push((client_id.clone(), delivered));
                    }
                    TopicFilter::Plain(_) => {
                        let (qos, as_published) = best.unwrap_or_default();
                        best = Some((qos.max(options.qos), as_published || options.retain_as_published));
                        identifiers.extend(subscription.identifier);
                    }
                }
            }
            if let Some((qos, as_published)) = best {
                copies.push((client_id.clone(), copy(&message, qos, as_published, identifiers)));
            }
        }
        for members in shared.into_values() {
            let (client_id, subscription) = members[self.shared_turn % members.len()];
            self.shared_turn += 1;
            let options = subscription.options;
            let identifiers = subscription.identifier.into_iter().collect();
            copies.push((client_id.to_owned(), copy(&message, options.qos, options.retain_as_published, identifiers)));
        }
        for (client_id, delivered) in copies {
            self.deliver(&client_id, delivered);
        }
    }

    fn deliver(&mut self, client_id: &str, delivered: Delivered) {
        let Some(session) = self.sessions.get_mut(client_id) else { return };
        if delivered.message.qos != QoS::AtMostOnce {
            session.outgoing.enqueue(delivered);
            return self.send_owed(client_id);
        }
        if let Some(connection) = session.connection.and_then(|number| self.connections.get_mut(&number))
            && !connection.closing
            && connection.output.len() < OUTPUT_BYTES_MAX
        {
            delivered.encode_at_most_once(connection.receiver, &mut connection.output);
        }
    }

    fn send_owed(&mut self, client_id: &str) {
        if let Some(session) = self.sessions.get_mut(client_id)
            && let Some(connection) = session.connection.and_then(|number| self.connections.get_mut(&number))
            && !connection.closing
        {
            session.outgoing.send(connection.receiver, &mut connection.output);
        }
    }

    fn answer(&mut self, number: usize, answer: Answer) {
        let hold = self.behaviour.hold_acknowledgements;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        // Behind those held already, as order matters.
        if hold || !connection.held.is_empty() {
            connection.held.push_back(answer);
        } else {
            self.send_answer(number, answer);
        }
    }

    fn send_answer(&mut self, number: usize, answer: Answer) {
        let Some(connection) = self.connections.get_mut(&number).filter(|connection| !connection.closing) else {
            return;
        };
        match answer {
            Answer::Acknowledgement(kind, packet_id, code) => {
                if kind != AcknowledgementKind::PubRec || code.is_error() {
                    connection.quota_used = connection.quota_used.saturating_sub(1);
                }
                connection.send(&Packet::Acknowledgement(Acknowledgement::new(kind, packet_id, code)));
                let refused = code.is_error() && connection.receiver.version.is_v5();
                if let Some(session) = self.sessions.get_mut(&connection.client_id) {
                    session.incoming.acknowledged(kind, packet_id, refused);
                }
            }
            Answer::SubAck(packet_id, reason_codes) => {
                connection.requests.remove(&packet_id);
                let user_properties = UserProperties::none();
                connection.send(&Packet::SubAck(SubAck {
                    packet_id,
                    reason_codes,
                    reason_string: None,
                    user_properties,
                }));
            }
            Answer::UnsubAck(packet_id, codes) => {
                connection.requests.remove(&packet_id);
                let reason_codes = if connection.receiver.version.is_v5() { codes } else { Vec::new() };
                let user_properties = UserProperties::none();
                let packet = UnsubAck { packet_id, reason_codes, reason_string: None, user_properties };
                connection.send(&Packet::UnsubAck(packet));
            }
        }
    }

    fn send(&mut self, number: usize, packet: &Packet<'_>) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.send(packet);
        }
    }

    fn malformed(&mut self, number: usize, error: DecodeError, bytes: &[u8]) {
        let what = format!("{error}: {}", hex(bytes));
        self.violated(number, Finding { statement: statement_of(error, bytes), what }, None);
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.stage == Stage::BeforeConnect && bytes.first() == Some(&0x10) {
            let code = error.reason_code();
            if error == DecodeError::ProtocolVersion {
                // Whoever speaks another version understands the oldest answer best.
                connection.output.extend_from_slice(&[0x20, 2, 0, 1]);
            } else if Connect::version_of(bytes.get(2..).unwrap_or_default()) == Some(ProtocolVersion::V5) {
                connection.send(&Packet::ConnAck(ConnAck::new(false, code)));
            }
        }
        self.end(number, error.reason_code());
    }

    fn protocol_error(&mut self, number: usize, finding: Finding, received: &Received) {
        self.violated(number, finding, Some(received));
        self.end(number, ReasonCode::ProtocolError);
    }

    fn all_violated(&mut self, number: usize, findings: Vec<Finding>, received: &Received) {
        findings.into_iter().for_each(|finding| self.violated(number, finding, Some(received)));
    }

    fn violated(&mut self, number: usize, finding: Finding, packet: Option<&Received>) {
        if self.violations.len() == VIOLATIONS_MAX {
            return;
        }
        let client_id =
            self.connections.get(&number).map(|connection| connection.client_id.clone()).unwrap_or_default();
        let Finding { statement, what } = finding;
        self.violations.push(Violation { connection: number, client_id, statement, what, packet: packet.cloned() });
    }
}

/// The Topic Name of a PUBLISH, or what is wrong with its Topic Alias.
fn resolve_alias(connection: &mut Connection, publish: &Publish<'_>) -> Result<String, (ReasonCode, Finding)> {
    let Some(alias) = publish.properties.topic_alias.map(|alias| alias.get()) else {
        return Ok(publish.topic_name.to_owned());
    };
    let maximum = connection.limits.topic_alias_maximum.unwrap_or(0);
    if alias > maximum {
        let statement = if maximum == 0 { "MQTT-3.2.2-18" } else { "MQTT-3.3.2-9" };
        let what = format!("Topic Alias {alias}, and the Topic Alias Maximum is {maximum}");
        return Err((ReasonCode::TopicAliasInvalid, Finding::new(statement, what)));
    }
    if !publish.topic_name.is_empty() {
        connection.aliases.insert(alias, publish.topic_name.to_owned());
    }
    connection.aliases.get(&alias).cloned().ok_or_else(|| {
        let what = format!("Topic Alias {alias} was not set on this connection");
        (ReasonCode::ProtocolError, Finding::new("MQTT-3.3.2-7", what))
    })
}

fn copy(message: &Message, qos: QoS, retain_as_published: bool, identifiers: Vec<NonZeroU32>) -> Delivered {
    let retain = message.retain && retain_as_published;
    let mut message = message.clone();
    (message.qos, message.retain) = (qos.min(message.qos), retain);
    Delivered { message, identifiers }
}

fn content_of(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&message.topic_name, &message.payload, message.qos, message.retain).hash(&mut hasher);
    hasher.finish()
}

fn in_use(packet_id: PacketId) -> Finding {
    Finding::new("MQTT-2.2.1-3", format!("Packet Identifier {} is in use", packet_id.number()))
}

fn filter_finding(error: pantala_proto::FilterError) -> Finding {
    use pantala_proto::FilterError;
    let statement = match error {
        FilterError::Empty => "MQTT-4.7.3-1",
        FilterError::Wildcard => "MQTT-4.7.1-1",
        FilterError::Share => "MQTT-4.8.2-1",
    };
    Finding::new(statement, error.to_string())
}

/// The statement that bytes violate which do not decode.
fn statement_of(error: DecodeError, bytes: &[u8]) -> Option<&'static str> {
    let packet_type = bytes.first().map_or(0, |byte| byte >> 4);
    Some(match error {
        DecodeError::Utf8 => "MQTT-1.5.4-1",
        DecodeError::VariableByteInteger => "MQTT-1.5.5-1",
        DecodeError::PacketIdZero => "MQTT-2.2.1-3",
        DecodeError::HeaderFlags => "MQTT-2.1.3-1",
        DecodeError::ConnectFlags => "MQTT-3.1.2-3",
        DecodeError::DupAtMostOnce => "MQTT-3.3.1-2",
        DecodeError::QoS if packet_type == 3 => "MQTT-3.3.1-4",
        DecodeError::TopicName if packet_type == 3 => "MQTT-3.3.2-2",
        DecodeError::TopicAliasZero => "MQTT-3.3.2-8",
        DecodeError::PacketTooLarge => "MQTT-3.2.2-15",
        DecodeError::Options => "MQTT-3.8.3-5",
        DecodeError::NoFilters if packet_type == 8 => "MQTT-3.8.3-2",
        DecodeError::NoFilters => "MQTT-3.10.3-2",
        DecodeError::NoTopic => "MQTT-4.7.3-1",
        _ => return None,
    })
}
