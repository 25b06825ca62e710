//! The codec against an independent client: tungstenite, over pipes in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use pantala_transport::websocket::{CloseCode, End, Handshake, Options, WebSocket};
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Message, Role, WebSocket as Peer};
use tungstenite::{ClientRequestBuilder, Error, HandshakeError};

/// The client's socket: what it writes, and what it is to read.
#[derive(Debug, Default, Clone)]
struct Pipe(Rc<RefCell<(Vec<u8>, Vec<u8>)>>);

impl Pipe {
    fn written(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().0)
    }

    fn send(&self, bytes: &[u8]) {
        self.0.borrow_mut().1.extend_from_slice(bytes);
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let unread = &mut self.0.borrow_mut().1;
        let count = unread.len().min(out.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        out[..count].copy_from_slice(&unread[..count]);
        unread.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client and a server that have shaken hands.
struct Pair {
    pipe: Pipe,
    client: Peer<Pipe>,
    server: WebSocket,
    /// MQTT bytes that have come to the server.
    mqtt: Vec<u8>,
    end: Option<End>,
}

impl Pair {
    fn new() -> Self {
        let pipe = Pipe::default();
        let request = ClientRequestBuilder::new("ws://broker.example/mqtt".parse().unwrap()).with_sub_protocol("mqtt");
        let request = tungstenite::client::IntoClientRequest::into_client_request(request).unwrap();
        let Err(HandshakeError::Interrupted(half)) =
            ClientHandshake::start(pipe.clone(), request, None).unwrap().handshake()
        else {
            panic!("no response can have come")
        };
        let request = pipe.written();
        let (upgrade, used) = Handshake::default().receive(&Options::default(), None, &request).unwrap().unwrap();
        assert_eq!(used, request.len());
        pipe.send(&upgrade.response);
        // It checks the proof and the subprotocol.
        let (client, _) = half.handshake().unwrap();
        Self { pipe, client, server: WebSocket::default(), mqtt: Vec::new(), end: None }
    }

    /// Brings what the client has written to the server, in parts, and the answers back.
    fn pass_on(&mut self, part: usize) {
        let mut bytes = self.pipe.written();
        let mut answers = Vec::new();
        for bytes in bytes.chunks_mut(part) {
            let received = self.server.receive(bytes, &mut answers);
            self.mqtt.extend_from_slice(&bytes[received.mqtt]);
            self.end = self.end.or(received.end);
        }
        self.pipe.send(&answers);
    }

    /// Sends MQTT bytes from the server, in frames of at most `part` bytes.
    fn write(&mut self, mqtt: &[u8], part: usize) {
        let mut bytes = Vec::new();
        mqtt.chunks(part).for_each(|mqtt| self.server.send(mqtt, &mut bytes));
        self.pipe.send(&bytes);
    }

    /// All MQTT bytes that the client can read.
    fn read(&mut self) -> Vec<u8> {
        let mut mqtt = Vec::new();
        loop {
            match self.client.read() {
                Ok(Message::Binary(bytes)) => mqtt.extend_from_slice(&bytes),
                Ok(message) => panic!("{message:?}"),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return mqtt,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

#[test]
fn bytes_of_any_length_pass_in_both_directions() {
    for part in [1, 5, 1_000, usize::MAX] {
        let mut pair = Pair::new();
        for length in [1, 2, 125, 126, 127, 65_535, 65_536, 70_000] {
            pair.client.send(Message::Binary(bytes(length).into())).unwrap();
            pair.client.send(Message::Binary(Vec::new().into())).unwrap();
            pair.pass_on(part);
            assert_eq!(std::mem::take(&mut pair.mqtt), bytes(length), "{length} bytes in parts of {part}");
            pair.write(&bytes(length), part);
            assert_eq!(pair.read(), bytes(length), "{length} bytes in parts of {part}");
        }
        assert_eq!(pair.end, None);
    }
}

#[test]
fn fragments_with_a_ping_between_pass() {
    let mut pair = Pair::new();
    let fragment = |bytes: &'static [u8], kind, last| Message::Frame(Frame::message(bytes, OpCode::Data(kind), last));
    pair.client.send(fragment(b"abc", Data::Binary, false)).unwrap();
    pair.client.send(fragment(b"", Data::Continue, false)).unwrap();
    pair.client.send(Message::Ping(b"p".as_slice().into())).unwrap();
    pair.client.send(fragment(b"de", Data::Continue, true)).unwrap();
    pair.pass_on(usize::MAX);
    assert_eq!(pair.mqtt, b"abcde");
    assert_eq!(pair.client.read().unwrap(), Message::Pong(b"p".as_slice().into()));
}

#[test]
fn a_ping_from_a_client_is_answered() {
    let mut pair = Pair::new();
    pair.client.send(Message::Ping(bytes(125).into())).unwrap();
    pair.pass_on(9);
    assert_eq!(pair.client.read().unwrap(), Message::Pong(bytes(125).into()));
}

#[test]
fn either_side_closes() {
    let mut pair = Pair::new();
    let leaving = CloseFrame { code: 1001.into(), reason: "leaving".into() };
    pair.client.close(Some(leaving)).unwrap();
    pair.pass_on(usize::MAX);
    assert_eq!(pair.end, Some(End::Closed));
    let Ok(Message::Close(Some(answer))) = pair.client.read() else { panic!("no Close in answer") };
    assert_eq!(u16::from(answer.code), 1001);

    let mut pair = Pair::new();
    pair.write(b"last words", usize::MAX);
    let mut close = Vec::new();
    pair.server.close(CloseCode::Normal, &mut close);
    pair.pipe.send(&close);
    assert_eq!(pair.client.read().unwrap(), Message::Binary(b"last words".as_slice().into()));
    let Ok(Message::Close(Some(close))) = pair.client.read() else { panic!("no Close") };
    assert_eq!(u16::from(close.code), 1000);
    pair.client.flush().ok();
    pair.pass_on(usize::MAX);
    assert_eq!(pair.end, Some(End::Closed), "it answers the Close");
}

#[test]
fn text_is_refused_with_a_code_that_the_client_reads() {
    let mut pair = Pair::new();
    pair.client.send(Message::Text("hello".into())).unwrap();
    pair.pass_on(usize::MAX);
    assert_eq!(pair.end, Some(End::Text));
    let Ok(Message::Close(Some(close))) = pair.client.read() else { panic!("no Close") };
    assert_eq!(u16::from(close.code), 1003);
}

#[test]
fn frames_of_a_server_are_refused() {
    let pipe = Pipe::default();
    let mut server = Peer::from_raw_socket(pipe.clone(), Role::Server, None);
    server.send(Message::Binary(bytes(3).into())).unwrap();
    assert_eq!(WebSocket::default().receive(&mut pipe.written(), &mut Vec::new()).end, Some(End::Unmasked));
}
