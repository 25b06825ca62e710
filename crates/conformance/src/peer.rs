//! A scripted peer: one Network Connection to the broker under test.
//!
//! A test reads as a dialogue: `send` says something, `expect_*` hears the answer, and an unexpected answer ends
//! the test with a sentence that names the peer, what it waited for and what came instead. Packets that arrive while
//! another one is awaited are kept in order and handed out by the next `expect_*`. Nothing here sleeps: "nothing was
//! sent" is shown by a PINGREQ whose PINGRESP comes first ([`Peer::expect_nothing`]) or by a marker message that
//! travels the same way ([`Peer::collect`]).

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::case::{Case, MARKER};
use crate::wire::{self, Answer, ConnAck, Connect, Packet, Publish, Subscribe, Value, Version, prop};

/// Why a test ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The broker broke the statement; the sentence says how.
    Fail(String),
    /// The statement could not be tested on this broker; the sentence says why.
    Skip(String),
}

/// What a test, or a step of one, ends with.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Ends the test as failed.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::peer::Stop::Fail(format!($($arg)*))) };
}

/// Ends the test as failed unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($arg:tt)*) => { if !$condition { $crate::fail!($($arg)*); } };
}

/// Ends the test as skipped.
#[macro_export]
macro_rules! skip {
    ($($arg:tt)*) => { return Err($crate::peer::Stop::Skip(format!($($arg)*))) };
}

/// Reason Codes that a server may give for a packet that is malformed or breaks the protocol, where no more special
/// one is meant: unspecified error, malformed packet, protocol error.
pub const VIOLATION: &[u8] = &[0x80, 0x81, 0x82];

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A Control Packet.
    Packet(Packet),
    /// The broker closed the Network Connection.
    Closed,
    /// Nothing came in the time allowed.
    Silence,
}

/// One Network Connection, with what it said and heard.
pub struct Peer {
    /// The version it speaks; decides how packets are decoded.
    pub version: Version,
    /// The CONNACK that accepted it; `None` before.
    pub connack: Option<ConnAck>,
    /// Packets from the broker larger than this are a failure (MQTT-3.1.2-24); `usize::MAX` at first.
    pub packet_bytes_max: usize,
    /// Whether Reason Strings and User Properties are welcome beyond PUBLISH, CONNACK and DISCONNECT
    /// (MQTT-3.1.2-29); true at first.
    pub problem_information: bool,
    /// PUBLISH packets whose Topic Name neither begins like this nor with `$` are overlooked. For tests that
    /// subscribe to everything while other tests run.
    pub only: Option<String>,
    name: String,
    stream: TcpStream,
    input: Vec<u8>,
    pending: VecDeque<Packet>,
    closed: bool,
    aliases: HashMap<u16, Vec<u8>>,
    next_id: u16,
    patience: Duration,
    deadline: Instant,
    trace: bool,
}

impl Peer {
    /// Opens a Network Connection and sends nothing yet.
    pub fn open(case: &Case<'_>, name: &str) -> Outcome<Peer> {
        let target = case.target();
        let fail = |error: std::io::Error| Stop::Fail(format!("{name}: cannot connect to {target}: {error}"));
        let address = target
            .to_socket_addrs()
            .map_err(fail)?
            .next()
            .ok_or_else(|| Stop::Fail(format!("{target} has no address")))?;
        let stream = TcpStream::connect_timeout(&address, case.patience()).map_err(fail)?;
        stream.set_nodelay(true).map_err(fail)?;
        stream.set_write_timeout(Some(case.patience())).map_err(fail)?;
        Ok(Peer {
            version: case.version,
            connack: None,
            packet_bytes_max: usize::MAX,
            problem_information: true,
            only: None,
            name: name.to_owned(),
            stream,
            input: Vec::new(),
            pending: VecDeque::new(),
            closed: false,
            aliases: HashMap::new(),
            next_id: 1,
            patience: case.patience(),
            deadline: case.deadline(),
            trace: case.trace(),
        })
    }

    /// Sends bytes as they are. A connection that the broker has closed already is no failure here: what the broker
    /// did is judged by what is heard from it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.note("->", bytes);
        // The error shows as a closed connection at the next read.
        let _ = self.stream.write_all(bytes);
    }

    /// Waits up to 5 s for each answer even in a hasty run: for tests about intervals of whole seconds.
    pub fn be_patient(&mut self) {
        self.patience = self.patience.max(Duration::from_secs(5));
    }

    /// A Packet Identifier this peer has not used yet.
    pub fn packet_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn note(&self, arrow: &str, bytes: &[u8]) {
        if self.trace {
            let mut line = format!("{} {arrow}", self.name);
            for byte in bytes.iter().take(200) {
                line += &format!(" {byte:02x}");
            }
            if bytes.len() > 200 {
                line += &format!(" … {} bytes", bytes.len());
            }
            crate::case::print_trace(&line);
        }
    }

    // --- hearing ---------------------------------------------------------------------------------------------

    /// The next event within `wait`, packets kept back first. Fails on bytes that no server may send.
    pub fn event_within(&mut self, wait: Duration) -> Outcome<Event> {
        match self.pending.pop_front() {
            Some(packet) => Ok(Event::Packet(packet)),
            None => self.next_from_wire(wait),
        }
    }

    fn next_from_wire(&mut self, wait: Duration) -> Outcome<Event> {
        let until = (Instant::now() + wait).min(self.deadline);
        loop {
            let frame = wire::take_frame(&self.input)
                .map(|f| f.map(|(first, body, size)| (wire::decode(self.version, first, body), size)));
            match frame {
                Err(error) => fail!("{}: the broker sent a {error}", self.name),
                Ok(Some((packet, size))) => {
                    let bytes: Vec<u8> = self.input.drain(..size).collect();
                    self.note("<-", &bytes);
                    let packet =
                        packet.map_err(|e| Stop::Fail(format!("{}: the broker sent a bad packet: {e}", self.name)))?;
                    ensure!(
                        size <= self.packet_bytes_max,
                        "{}: {packet} has {size} bytes, more than the Maximum Packet Size of {}",
                        self.name,
                        self.packet_bytes_max
                    );
                    let free = matches!(packet, Packet::Publish(_) | Packet::ConnAck(_) | Packet::Disconnect(_));
                    ensure!(
                        self.problem_information
                            || free
                            || !packet
                                .properties()
                                .iter()
                                .any(|(id, _)| matches!(*id, prop::REASON_STRING | prop::USER_PROPERTY)),
                        "{}: {packet} with a Reason String or User Property, which the client did not want",
                        self.name
                    );
                    let packet = self.resolve_alias(packet)?;
                    if let (Packet::Publish(p), Some(only)) = (&packet, &self.only)
                        && !p.topic.starts_with(only.as_bytes())
                        && !p.topic.starts_with(b"$")
                    {
                        if p.qos > 0 {
                            let p = p.clone();
                            self.acknowledge_blindly(&p);
                        }
                        continue;
                    }
                    return Ok(Event::Packet(packet));
                }
                Ok(None) => {}
            }
            if self.closed {
                return Ok(Event::Closed);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::Silence);
            }
            let _ = self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))));
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => self.closed = true,
            }
            if self.closed {
                self.note("<- closed", &[]);
            }
        }
    }

    fn resolve_alias(&mut self, packet: Packet) -> Outcome<Packet> {
        let Packet::Publish(mut p) = packet else { return Ok(packet) };
        if let Some(Value::TwoByte(alias)) = p.property(prop::TOPIC_ALIAS) {
            let alias = *alias;
            if p.topic.is_empty() {
                p.topic = match self.aliases.get(&alias) {
                    Some(topic) => topic.clone(),
                    None => fail!("{}: PUBLISH with Topic Alias {alias}, which stands for nothing yet", self.name),
                };
            } else {
                self.aliases.insert(alias, p.topic.clone());
            }
        }
        Ok(Packet::Publish(p))
    }

    /// Highest Topic Alias the broker has used on this connection; 0 if none.
    pub fn highest_alias(&self) -> u16 {
        self.aliases.keys().copied().max().unwrap_or(0)
    }

    /// Acknowledges in the simplest way, without waiting; PUBREL that follows is read as an ordinary packet.
    fn acknowledge_blindly(&mut self, p: &Publish) {
        if let Some(id) = p.packet_id {
            self.send(wire::ack(if p.qos == 1 { wire::PUBACK } else { wire::PUBREC }, id));
        }
    }

    /// The next event within the patience of the run.
    pub fn event(&mut self) -> Outcome<Event> {
        self.event_within(self.patience)
    }

    /// The next packet, whatever it is.
    pub fn next(&mut self, expected: &str) -> Outcome<Packet> {
        match self.event()? {
            Event::Packet(packet) => Ok(packet),
            Event::Closed => fail!("{}: expected {expected}, but the broker closed the connection", self.name),
            Event::Silence => fail!("{}: expected {expected}, but nothing came", self.name),
        }
    }

    fn unexpected<T>(&self, expected: &str, packet: &Packet) -> Outcome<T> {
        fail!("{}: expected {expected}, got {packet}", self.name)
    }

    /// Waits for the first packet that `pick` takes; PUBLISH and PUBREL that come before it are kept for later,
    /// anything else fails.
    fn await_packet<T>(&mut self, expected: &str, mut pick: impl FnMut(&Packet) -> Option<T>) -> Outcome<T> {
        for i in 0..self.pending.len() {
            if let Some(found) = pick(&self.pending[i]) {
                self.pending.remove(i);
                return Ok(found);
            }
        }
        loop {
            match self.next_from_wire(self.patience)? {
                Event::Packet(packet) => match pick(&packet) {
                    Some(found) => return Ok(found),
                    None if matches!(packet, Packet::Publish(_) | Packet::PubRel(_)) => self.pending.push_back(packet),
                    None => return self.unexpected(expected, &packet),
                },
                Event::Closed => fail!("{}: expected {expected}, but the broker closed the connection", self.name),
                Event::Silence => fail!("{}: expected {expected}, but it did not come", self.name),
            }
        }
    }

    /// Expects CONNACK 0x00 and keeps it.
    pub fn expect_connack(&mut self) -> Outcome<ConnAck> {
        let connack = self.expect_any_connack()?;
        ensure!(connack.code == 0, "{}: the broker refused CONNECT with 0x{:02X}", self.name, connack.code);
        self.connack = Some(connack.clone());
        Ok(connack)
    }

    /// Expects CONNACK with any code.
    pub fn expect_any_connack(&mut self) -> Outcome<ConnAck> {
        match self.next("CONNACK")? {
            Packet::ConnAck(connack) => Ok(connack),
            other => self.unexpected("CONNACK", &other),
        }
    }

    /// Expects the next packet to be a PUBLISH.
    pub fn expect_any_publish(&mut self) -> Outcome<Publish> {
        match self.next("PUBLISH")? {
            Packet::Publish(publish) => Ok(publish),
            other => self.unexpected("PUBLISH", &other),
        }
    }

    /// Expects the next packet to be a PUBLISH with this Topic Name and payload. Does not acknowledge it.
    pub fn expect_publish(&mut self, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Outcome<Publish> {
        let publish = self.expect_any_publish()?;
        let (topic, payload) = (topic.as_ref(), payload.as_ref());
        ensure!(
            publish.topic == topic && publish.payload == payload,
            "{}: expected PUBLISH to {:?} with {:?}, got {}",
            self.name,
            wire::clip(topic),
            wire::clip(payload),
            Packet::Publish(publish)
        );
        Ok(publish)
    }

    /// Expects such a PUBLISH and completes its QoS 1 or QoS 2 exchange.
    pub fn receive(&mut self, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Outcome<Publish> {
        let publish = self.expect_publish(topic, payload)?;
        self.acknowledge(&publish)?;
        Ok(publish)
    }

    /// Completes the QoS 1 or QoS 2 exchange of a received PUBLISH.
    pub fn acknowledge(&mut self, publish: &Publish) -> Outcome {
        let Some(id) = publish.packet_id else { return Ok(()) };
        if publish.qos == 1 {
            self.send(wire::ack(wire::PUBACK, id));
        } else {
            self.send(wire::ack(wire::PUBREC, id));
            self.expect_pubrel(id)?;
            self.send(wire::ack(wire::PUBCOMP, id));
        }
        Ok(())
    }

    /// Expects PUBACK with this Packet Identifier and a Reason Code below 0x80.
    pub fn expect_puback(&mut self, id: u16) -> Outcome<Answer> {
        self.await_answer("PUBACK", id, true, |p| if let Packet::PubAck(a) = p { Some(a) } else { None })
    }

    /// Expects PUBREC with this Packet Identifier and a Reason Code below 0x80.
    pub fn expect_pubrec(&mut self, id: u16) -> Outcome<Answer> {
        self.await_answer("PUBREC", id, true, |p| if let Packet::PubRec(a) = p { Some(a) } else { None })
    }

    /// Expects PUBREL with this Packet Identifier and a Reason Code below 0x80.
    pub fn expect_pubrel(&mut self, id: u16) -> Outcome<Answer> {
        self.await_answer("PUBREL", id, true, |p| if let Packet::PubRel(a) = p { Some(a) } else { None })
    }

    /// Expects PUBCOMP with this Packet Identifier and any Reason Code.
    pub fn expect_pubcomp(&mut self, id: u16) -> Outcome<Answer> {
        self.await_answer("PUBCOMP", id, false, |p| if let Packet::PubComp(a) = p { Some(a) } else { None })
    }

    /// Expects SUBACK with this Packet Identifier.
    pub fn expect_suback(&mut self, id: u16) -> Outcome<Answer> {
        self.await_answer("SUBACK", id, false, |p| if let Packet::SubAck(a) = p { Some(a) } else { None })
    }

    /// Expects UNSUBACK with this Packet Identifier.
    pub fn expect_unsuback(&mut self, id: u16) -> Outcome<Answer> {
        self.await_answer("UNSUBACK", id, false, |p| if let Packet::UnsubAck(a) = p { Some(a) } else { None })
    }

    fn await_answer(
        &mut self,
        kind: &str,
        id: u16,
        success: bool,
        pick: impl Fn(&Packet) -> Option<&Answer>,
    ) -> Outcome<Answer> {
        let answer = self.await_packet(&format!("{kind} {id}"), |p| pick(p).cloned())?;
        ensure!(
            answer.packet_id == id,
            "{}: expected {kind} with Packet Identifier {id}, got {}",
            self.name,
            answer.packet_id
        );
        ensure!(!success || answer.code() < 0x80, "{}: {kind} with Reason Code 0x{:02X}", self.name, answer.code());
        Ok(answer)
    }

    // --- hearing nothing, hearing the end --------------------------------------------------------------------

    /// PINGREQ, and everything up to its PINGRESP is kept. When it returns, the broker has dealt with all that
    /// this peer sent before.
    pub fn fence(&mut self) -> Outcome {
        self.send(wire::PINGREQ);
        self.await_packet("PINGRESP", |p| matches!(p, Packet::PingResp).then_some(()))
    }

    /// Fails if the broker has sent anything that was not taken yet, as far as a fence can tell.
    pub fn expect_nothing(&mut self) -> Outcome {
        self.fence()?;
        match self.pending.front() {
            Some(packet) => fail!("{}: expected nothing, got {packet}", self.name),
            None => Ok(()),
        }
    }

    /// Expects the broker to close the Network Connection, in MQTT 5.0 perhaps after a DISCONNECT with one of these
    /// Reason Codes. Packets in answer to what came before may still arrive first. Returns the Reason Code.
    pub fn expect_close(&mut self, codes: &[u8]) -> Outcome<Option<u8>> {
        loop {
            match self.event()? {
                Event::Closed => return Ok(None),
                Event::Silence => fail!("{}: the broker left the connection open", self.name),
                Event::Packet(Packet::Disconnect(answer)) => {
                    let code = answer.code();
                    ensure!(
                        codes.contains(&code),
                        "{}: DISCONNECT with Reason Code 0x{code:02X}, not one of {codes:02X?}",
                        self.name
                    );
                    return match self.event()? {
                        Event::Closed => Ok(Some(code)),
                        Event::Silence => fail!("{}: the broker sent DISCONNECT but did not close", self.name),
                        Event::Packet(packet) => fail!("{}: {packet} after the broker's DISCONNECT", self.name),
                    };
                }
                Event::Packet(packet @ (Packet::PingResp | Packet::ConnAck(_))) => {
                    fail!("{}: expected the connection to be closed, got {packet}", self.name)
                }
                Event::Packet(_) => {}
            }
        }
    }

    /// Expects CONNECT to be refused: the connection closed, perhaps after a CONNACK with one of these codes
    /// (`v5` or `v311`, by the version of the peer), Session Present 0. With an empty list no CONNACK may come.
    /// A server that is not given any of its versions may answer in the form of 3.1.1 in either case. Returns the code.
    pub fn expect_refused(&mut self, v5: &[u8], v311: &[u8]) -> Outcome<Option<u8>> {
        let codes = if self.version.is_v5() { v5 } else { v311 };
        match self.event()? {
            Event::Closed => Ok(None),
            Event::Silence => fail!("{}: a CONNECT that had to be refused got no answer, connection open", self.name),
            Event::Packet(Packet::ConnAck(connack)) => {
                let code = connack.code;
                ensure!(code != 0, "{}: a CONNECT that had to be refused was accepted", self.name);
                ensure!(
                    codes.contains(&code),
                    "{}: CONNACK with code 0x{code:02X}, {}",
                    self.name,
                    if codes.is_empty() { "where none may be sent".into() } else { format!("not one of {codes:02X?}") }
                );
                ensure!(!connack.session_present, "{}: Session Present 1 in a refusing CONNACK", self.name);
                match self.event()? {
                    Event::Closed => Ok(Some(code)),
                    Event::Silence => fail!("{}: CONNACK 0x{code:02X}, but the connection stayed open", self.name),
                    Event::Packet(packet) => fail!("{}: {packet} after a refusing CONNACK", self.name),
                }
            }
            Event::Packet(packet) => fail!("{}: {packet} in answer to a CONNECT to be refused", self.name),
        }
    }

    // --- doing whole exchanges -------------------------------------------------------------------------------

    /// SUBSCRIBE for one Topic Filter, granted the QoS asked for. `options` is the options byte; its two lowest bits
    /// are the QoS.
    pub fn subscribe(&mut self, filter: impl AsRef<[u8]>, options: u8) -> Outcome<Answer> {
        let filter = filter.as_ref();
        let answer = self.subscribe_with(Subscribe::to(filter, options))?;
        ensure!(
            answer.codes == [options & 3],
            "{}: SUBSCRIBE to {:?} with QoS {} was answered by {:02X?}",
            self.name,
            wire::clip(filter),
            options & 3,
            answer.codes
        );
        Ok(answer)
    }

    /// SUBSCRIBE and its SUBACK, whatever the codes.
    pub fn subscribe_with(&mut self, mut subscribe: Subscribe) -> Outcome<Answer> {
        let id = subscribe.packet_id.unwrap_or_else(|| self.packet_id());
        subscribe.packet_id = Some(id);
        self.send(subscribe.encode(self.version));
        self.expect_suback(id)
    }

    /// UNSUBSCRIBE and its UNSUBACK.
    pub fn unsubscribe<F: AsRef<[u8]>>(&mut self, filters: &[F]) -> Outcome<Answer> {
        let id = self.packet_id();
        self.send(wire::unsubscribe(self.version, id, filters));
        self.expect_unsuback(id)
    }

    /// Publishes and completes the exchange; at QoS 0 a fence takes the place of the acknowledgement. Returns the
    /// Reason Code of PUBACK or PUBREC, which is below 0x80.
    pub fn publish(&mut self, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, qos: u8) -> Outcome<u8> {
        self.publish_with(Publish::new(topic, payload, qos))
    }

    /// The same for a message with properties or flags.
    pub fn publish_with(&mut self, mut publish: Publish) -> Outcome<u8> {
        if publish.qos == 0 {
            self.send(publish.encode(self.version));
            self.fence()?;
            return Ok(0);
        }
        let id = publish.packet_id.unwrap_or_else(|| self.packet_id());
        publish.packet_id = Some(id);
        self.send(publish.encode(self.version));
        if publish.qos == 1 {
            return Ok(self.expect_puback(id)?.code());
        }
        let code = self.expect_pubrec(id)?.code();
        self.send(wire::ack(wire::PUBREL, id));
        let answer = self.expect_pubcomp(id)?;
        ensure!(answer.code() == 0, "{}: PUBCOMP {id} with Reason Code 0x{:02X}", self.name, answer.code());
        Ok(code)
    }

    /// Publishes and returns the Reason Code of the acknowledgement, or `None` if the broker closed the connection;
    /// both are ways to say no. In 3.1.1 the code is 0x00. Completes the QoS 2 exchange.
    pub fn try_publish(&mut self, mut publish: Publish) -> Outcome<Option<u8>> {
        let id = publish.packet_id.unwrap_or_else(|| self.packet_id());
        publish.packet_id = (publish.qos > 0).then_some(id);
        self.send(publish.encode(self.version));
        if publish.qos == 0 {
            self.send(wire::PINGREQ);
        }
        loop {
            match self.next_from_wire(self.patience)? {
                Event::Closed | Event::Packet(Packet::Disconnect(_)) => return Ok(None),
                Event::Packet(Packet::PingResp) if publish.qos == 0 => return Ok(Some(0)),
                Event::Packet(Packet::PubAck(a)) if publish.qos == 1 && a.packet_id == id => return Ok(Some(a.code())),
                Event::Packet(Packet::PubRec(a)) if publish.qos == 2 && a.packet_id == id => {
                    if a.code() < 0x80 {
                        self.send(wire::ack(wire::PUBREL, id));
                        self.expect_pubcomp(id)?;
                    }
                    return Ok(Some(a.code()));
                }
                Event::Packet(p @ (Packet::Publish(_) | Packet::PubRel(_))) => self.pending.push_back(p),
                Event::Packet(p) => return self.unexpected("an acknowledgement", &p),
                Event::Silence => fail!("{}: PUBLISH got no answer, and the connection stayed open", self.name),
            }
        }
    }

    /// All messages that reach this peer before a marker that `from` publishes now; each is acknowledged. Because
    /// the marker comes from the same publisher, what is missing then was not sent.
    pub fn collect(&mut self, case: &Case<'_>, from: &mut Peer) -> Outcome<Vec<Publish>> {
        let marker = case.marker_topic();
        self.subscribe(&marker, 1)?;
        from.publish(&marker, "marker", 1)?;
        let messages = self.read_up_to(marker.as_bytes())?;
        self.unsubscribe(&[&marker])?;
        Ok(messages)
    }

    /// The same with the marker published by this peer itself.
    pub fn collect_own(&mut self, case: &Case<'_>) -> Outcome<Vec<Publish>> {
        let marker = case.marker_topic();
        self.subscribe(&marker, 1)?;
        self.publish(&marker, "marker", 1)?;
        let messages = self.read_up_to(marker.as_bytes())?;
        self.unsubscribe(&[&marker])?;
        Ok(messages)
    }

    fn read_up_to(&mut self, marker: &[u8]) -> Outcome<Vec<Publish>> {
        let mut messages = Vec::new();
        loop {
            match self.next("a marker message")? {
                Packet::Publish(publish) => {
                    self.acknowledge(&publish)?;
                    if publish.topic == marker {
                        return Ok(messages);
                    }
                    // A filter like `#` may have matched an earlier marker as well.
                    if publish.topic.split(|b| *b == b'/').next().is_none_or(|l| !l.ends_with(MARKER.as_bytes())) {
                        messages.push(publish);
                    }
                }
                other => return self.unexpected("PUBLISH", &other),
            }
        }
    }

    /// DISCONNECT, then waits until the broker has closed its side, so that the broker is known to have noticed.
    pub fn disconnect(self) -> Outcome {
        self.end(wire::DISCONNECT)
    }

    /// Sends `last` and ends the connection from this side; returns when the broker has closed its own.
    pub fn end(mut self, last: &[u8]) -> Outcome {
        self.send(last);
        let _ = self.stream.shutdown(Shutdown::Write);
        loop {
            match self.next_from_wire(self.patience)? {
                Event::Closed => return Ok(()),
                Event::Packet(_) => {}
                Event::Silence => fail!("{}: the broker does not close a connection its client has ended", self.name),
            }
        }
    }

    /// Ends the Network Connection without DISCONNECT, as a crashed client would; returns when the broker has noticed.
    pub fn cut(self) -> Outcome {
        self.end(&[])
    }

    /// Sends CONNECT and expects CONNACK 0x00.
    pub fn hello(&mut self, connect: &Connect) -> Outcome<ConnAck> {
        self.send(connect.encode());
        self.expect_connack()
    }
}

/// The texts of messages, in order: for comparisons that read well.
pub fn payloads(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect()
}
