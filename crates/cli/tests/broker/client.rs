//! A client that speaks raw bytes, in blocking calls that do not wait for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use pantala_broker::owner;
use rustix::net::{AddressFamily, SocketType};

use crate::process::PATIENCE;

/// Protocol levels.
pub const V311: u8 = 4;
pub const V5: u8 = 5;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub struct Client {
    stream: Stream,
    received: Vec<u8>,
    /// Bytes of `received` that have been given out.
    taken: usize,
    pub level: u8,
}

/// What is left of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Packet(Vec<u8>),
    /// Closed by the broker, in order or by a reset.
    Closed,
}

impl Client {
    /// A connection without CONNECT.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Tcp(stream), received: Vec::new(), taken: 0, level: V311 }
    }

    /// The same from an address of this machine, of which Linux has all that begin with 127.
    pub fn open_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        if from == Ipv4Addr::LOCALHOST {
            return Self::open(address);
        }
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Tcp(stream), received: Vec::new(), taken: 0, level: V311 }
    }

    pub fn open_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Stream::Unix(stream), received: Vec::new(), taken: 0, level: V311 }
    }

    /// A client that has been let in.
    pub fn connect(address: SocketAddr, level: u8, client_id: &str) -> Self {
        let mut client = Self::open(address);
        client.let_in(level, client_id);
        client
    }

    /// Sends CONNECT, and takes the CONNACK.
    pub fn let_in(&mut self, level: u8, client_id: &str) {
        self.level = level;
        self.send(&connect(level, client_id));
        let answer = self.packet();
        assert_eq!((answer[0], answer[3]), (0x20, 0), "CONNACK for {client_id}: {answer:02x?}");
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// No more will be sent.
    pub fn finish(&self) {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// The next packet, or the end.
    pub fn next(&mut self) -> Next {
        loop {
            if let Some(bytes) = packet_bytes(&self.received[self.taken..]) {
                let packet = self.received[self.taken..self.taken + bytes].to_vec();
                self.taken += bytes;
                return Next::Packet(packet);
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            let mut buffer = [0; 65_536];
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut buffer),
                Stream::Unix(stream) => stream.read(&mut buffer),
            };
            match read {
                Ok(0) => return Next::Closed,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Next::Closed;
                }
                Err(error) => panic!("no packet has come: {error}"),
            }
        }
    }

    #[track_caller]
    pub fn packet(&mut self) -> Vec<u8> {
        match self.next() {
            Next::Packet(packet) => packet,
            Next::Closed => panic!("the broker has closed the connection"),
        }
    }

    #[track_caller]
    pub fn expect(&mut self, packet: &[u8]) {
        let found = self.next();
        assert!(found == Next::Packet(packet.to_vec()), "{packet:02x?} expected, not {found:02x?}");
    }

    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert_eq!(self.next(), Next::Closed);
    }

    /// Everything until the broker closes the connection.
    pub fn rest(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Next::Packet(packet) = self.next() {
            packets.push(packet);
        }
        packets
    }

    /// Everything sent so far has been dealt with, when this returns. What else comes is given back.
    #[track_caller]
    pub fn ping(&mut self) -> Vec<Vec<u8>> {
        self.send(&PINGREQ);
        let mut others = Vec::new();
        loop {
            match self.packet() {
                packet if packet == PINGRESP => return others,
                packet => others.push(packet),
            }
        }
    }

    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(&subscribe(self.level, 1, filter, qos));
        let answer = self.packet();
        assert_eq!((answer[0], answer.last()), (0x90, Some(&qos)), "SUBACK: {answer:02x?}");
    }
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const PINGRESP: [u8; 2] = [0xd0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Bytes of the packet at the front, if all of it is there.
fn packet_bytes(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + length;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    None
}

pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first_byte];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        packet.push(u8::try_from(length & 0x7f).unwrap() | more);
        length >>= 7;
        if length == 0 {
            packet.extend_from_slice(body);
            return packet;
        }
    }
}

pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// CONNECT with a new Session that ends with the connection, and without Keep Alive.
pub fn connect(level: u8, client_id: &str) -> Vec<u8> {
    connect_with(level, client_id, None)
}

/// The same with a Will Message at QoS 1.
pub fn connect_with(level: u8, client_id: &str, will: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = text("MQTT");
    let will_flags = if will.is_some() { 0x0c } else { 0 };
    body.extend([level, 0x02 | will_flags, 0, 0]);
    body.extend((level == V5).then_some(0));
    body.extend(text(client_id));
    if let Some((topic_name, payload)) = will {
        body.extend((level == V5).then_some(0));
        body.extend(text(topic_name));
        body.extend(text(payload));
    }
    packet(0x10, &body)
}

/// CONNECT with credentials.
pub fn connect_as(level: u8, client_id: &str, user_name: Option<&str>, password: Option<&[u8]>) -> Vec<u8> {
    let mut body = text("MQTT");
    let flags = 0x02 | if user_name.is_some() { 0x80 } else { 0 } | if password.is_some() { 0x40 } else { 0 };
    body.extend([level, flags, 0, 0]);
    body.extend((level == V5).then_some(0));
    body.extend(text(client_id));
    body.extend(user_name.map(text).unwrap_or_default());
    if let Some(password) = password {
        body.extend(u16::try_from(password.len()).unwrap().to_be_bytes());
        body.extend_from_slice(password);
    }
    packet(0x10, &body)
}

pub fn subscribe(level: u8, packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.extend((level == V5).then_some(0));
    body.extend(text(filter));
    body.push(qos);
    packet(0x82, &body)
}

/// PUBLISH; `packet_id` counts at QoS 1 and 2 only.
pub fn publish(level: u8, topic_name: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic_name);
    if qos > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend((level == V5).then_some(0));
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70) with Success.
pub fn acknowledgement(first_byte: u8, packet_id: u16) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    vec![first_byte, 2, high, low]
}

/// QoS, Packet Identifier (0 at QoS 0) and payload of a PUBLISH.
#[track_caller]
pub fn taken_apart(level: u8, packet: &[u8]) -> (u8, u16, &[u8]) {
    assert_eq!(packet[0] >> 4, 3, "not a PUBLISH: {:02x?}", &packet[..packet.len().min(16)]);
    let qos = packet[0] >> 1 & 3;
    let header = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let topic = usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
    let mut at = header + 2 + topic;
    let mut packet_id = 0;
    if qos > 0 {
        packet_id = u16::from_be_bytes([packet[at], packet[at + 1]]);
        at += 2;
    }
    if level == V5 {
        at += 1 + usize::from(packet[at]);
    }
    (qos, packet_id, &packet[at..])
}

/// A Client Identifier that belongs to this one of so many workers.
pub fn client_id_of(worker: u8, workers: u8, name: &str) -> String {
    (0..).map(|number| format!("{name}-{number}")).find(|id| owner(id, workers).0 == worker).unwrap()
}
