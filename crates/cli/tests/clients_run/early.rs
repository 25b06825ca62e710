//! Messages that come before SUBACK, and many of them: a broker may send Retained Messages so, and those of a Session.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use pantala_proto::frame;

use crate::bench::{PATIENCE, pantala};

/// More than `sub` and `rr` hold before they wait for somebody to take them.
const MESSAGES: usize = 20_000;
const SUBSCRIBE: u8 = 0x82;
const PUBLISH: u8 = 0x32;
const RETAINED: u8 = 0x31;

/// One connection of a client of MQTT 3.1.1, in the hands of a test.
struct Peer {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Self { stream, pending: Vec::new() };
        peer.expect(0x10);
        peer.send(&[0x20, 2, 0, 0]);
        peer
    }

    /// The body of the next packet, which has to begin with this byte.
    fn expect(&mut self, first_byte: u8) -> Vec<u8> {
        loop {
            if let Ok(frame::Split::Frame(packet)) = frame::split(&self.pending, u32::MAX) {
                assert_eq!(packet.first_byte, first_byte);
                let (body, bytes) = (packet.body.to_vec(), packet.packet_bytes);
                self.pending.drain(..bytes);
                return body;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "it has closed the connection");
            self.pending.extend_from_slice(&bytes[..count]);
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Answers SUBSCRIBE behind many messages.
    fn subscribed_late(&mut self) {
        let subscribe = self.expect(SUBSCRIBE);
        self.send(&[&retained(), &[0x90, 3, subscribe[0], subscribe[1], 0][..]].concat());
    }

    /// The client has said what it had to.
    fn ended(&mut self) {
        assert!(self.expect(0xe0).is_empty());
    }
}

fn retained() -> Vec<u8> {
    [RETAINED, 4, 0, 1, b't', b'x'].repeat(MESSAGES)
}

/// Where a broker listens that plays this scene with its first client.
fn broker(scene: impl FnOnce(&mut Peer) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (port, thread::spawn(move || scene(&mut Peer::accept(&listener))))
}

#[test]
fn sub_takes_messages_while_it_waits_for_sub_ack() {
    let folder = tempfile::tempdir().unwrap();
    for flags in [&["-C", &MESSAGES.to_string()][..], &["-E"]] {
        let (port, broker) = broker(|peer| {
            peer.subscribed_late();
            peer.ended();
        });
        let printed = pantala(folder.path(), "sub", &[&["-p", &port, "-t", "t"], flags].concat(), b"");
        // `-E` is for who wants no message.
        printed.is(if flags[0] == "-E" { String::new() } else { "x\n".repeat(MESSAGES) }, 0);
        broker.join().unwrap();
    }
}

#[test]
fn rr_takes_messages_while_it_waits_for_sub_ack_and_pub_ack() {
    let folder = tempfile::tempdir().unwrap();
    let (port, broker) = broker(|peer| {
        peer.subscribed_late();
        let request = peer.expect(PUBLISH);
        assert_eq!(request, b"\0\x03ask\0\x02?");
        let answer = [0x30, 9, 0, 1, b't', b'a', b'n', b's', b'w', b'e', b'r'];
        peer.send(&[&retained(), &[0x40, 2, 0, 2][..], &answer].concat());
        peer.ended();
    });
    // Retained Messages are no response.
    let arguments = ["-V", "311", "-p", &port, "-q", "1", "-t", "ask", "-e", "t", "-m", "?", "-R"];
    pantala(folder.path(), "rr", &arguments, b"").is("answer\n", 0);
    broker.join().unwrap();
}
