//! A broker that is played by the test: one connection after another, packet by packet.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use pantala_proto::frame;

use crate::bench::PATIENCE;

pub const CONNECT: u8 = 0x10;
pub const SUBSCRIBE: u8 = 0x82;
pub const DISCONNECT: u8 = 0xe0;

/// One connection of a client of MQTT 3.1.1, in the hands of a test.
pub struct Peer {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Peer {
    /// A connection, before its CONNECT is read.
    pub fn called(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, pending: Vec::new() }
    }

    /// A client that is welcome.
    pub fn accept(listener: &TcpListener) -> Self {
        let mut peer = Self::called(listener);
        peer.expect(CONNECT);
        peer.send(&[0x20, 2, 0, 0]);
        peer
    }

    /// The first byte and the body of the next packet; None at the end of the connection.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Ok(frame::Split::Frame(packet)) = frame::split(&self.pending, u32::MAX) {
                let (first_byte, body, bytes) = (packet.first_byte, packet.body.to_vec(), packet.packet_bytes);
                self.pending.drain(..bytes);
                return Some((first_byte, body));
            }
            let mut bytes = vec![0; 64 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.pending.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Some of what comes.
    pub fn read_some(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).unwrap();
        self.pending.extend_from_slice(&bytes[..count]);
    }

    /// Waits until there is something to read, and leaves it.
    pub fn wait_for_more(&self) {
        assert_eq!(self.stream.peek(&mut [0]).unwrap(), 1);
    }

    /// The body of the next packet, which has to begin with this byte.
    #[track_caller]
    pub fn expect(&mut self, first_byte: u8) -> Vec<u8> {
        let (found, body) = self.next().expect("it has closed the connection");
        assert_eq!(found, first_byte);
        body
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends to a client that may be gone.
    pub fn answer(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// Answers SUBSCRIBE, behind these packets.
    pub fn subscribed_behind(&mut self, packets: &[u8]) {
        let subscribe = self.expect(SUBSCRIBE);
        self.send(&[packets, &[0x90, 3, subscribe[0], subscribe[1], 0]].concat());
    }

    /// The client has said what it had to.
    pub fn ended(&mut self) {
        assert!(self.expect(DISCONNECT).is_empty());
    }

    /// Nothing more comes from here, and what was sent to here is thrown away.
    pub fn close(&self) {
        // The client may have closed.
        let _closed = self.stream.shutdown(Shutdown::Both);
    }
}

/// Where a broker listens that plays this scene; the port, and the end of the scene.
pub fn broker_of<T: Send + 'static>(scene: impl FnOnce(&TcpListener) -> T + Send + 'static) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (port, thread::spawn(move || scene(&listener)))
}

/// The same with its first client.
pub fn broker<T: Send + 'static>(scene: impl FnOnce(&mut Peer) -> T + Send + 'static) -> (String, JoinHandle<T>) {
    broker_of(|listener| scene(&mut Peer::accept(listener)))
}
