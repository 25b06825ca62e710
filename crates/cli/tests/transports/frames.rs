//! A WebSocket client in raw bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::process::PATIENCE;

pub const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const MASK: [u8; 4] = [0xa1, 0x5e, 0x07, 0xc3];

pub struct Socket {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Socket {
    /// A connection on which nothing is said.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// A WebSocket.
    pub fn upgraded(address: SocketAddr) -> Self {
        let mut socket = Self::open(address);
        socket.upgrade(REQUEST);
        socket
    }

    pub fn upgrade(&mut self, request: &str) {
        self.send(request.as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn read(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing has come: {error}"),
        }
    }

    /// The head of a response.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return String::from_utf8(self.received.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.read(), "closed in the middle of a response");
        }
    }

    /// All until the broker closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.received)
    }

    /// The next frame: its first byte and its payload. None at the end.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((header, payload)) = extent(&self.received)
                && self.received.len() >= header + payload
            {
                let frame: Vec<u8> = self.received.drain(..header + payload).collect();
                return Some((frame[0], frame[header..].to_vec()));
            }
            if !self.read() {
                assert_eq!(self.received, b"", "the end of a frame is missing");
                return None;
            }
        }
    }

    /// So many MQTT bytes, whatever frames they come in.
    #[track_caller]
    pub fn expect(&mut self, mqtt: &[u8]) {
        let mut found = Vec::new();
        while found.len() < mqtt.len() {
            let (first, payload) = self.frame().expect("more bytes");
            assert_eq!(first, 0x82);
            found.extend(payload);
        }
        assert!(found == mqtt, "{:02x?}", &found[..found.len().min(32)]);
    }

    /// A Close with this code, and the end.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.frame(), Some((0x88, code.to_be_bytes().to_vec())));
        assert_eq!(self.frame(), None);
    }
}

/// Bytes of the header and of the payload of the frame at the front.
fn extent(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)))),
        127 => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?).try_into().unwrap())),
        short => Some((2, usize::from(short))),
    }
}

/// A masked frame.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..126 => vec![0x80 | short as u8],
        length if length < 65_536 => [&[0xfe], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[0xff], &(length as u64).to_be_bytes()[..]].concat(),
    };
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[first], &length[..], &MASK].concat().into_iter().chain(masked).collect()
}

/// The same for MQTT bytes.
pub fn binary(mqtt: &[u8]) -> Vec<u8> {
    frame(0x82, mqtt)
}
