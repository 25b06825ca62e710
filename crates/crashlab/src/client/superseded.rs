//! A connection in whose place its client makes another: what still comes on it.

use std::io::{ErrorKind, Read};
use std::time::Instant;

use mio::Registry;
use mio::net::TcpStream;
use pantala_proto::{AcknowledgementKind, Packet, frame};

use super::{Client, Link, PACKET_BYTES_MAX, READ_BYTES, Scene};
use crate::history::{Ending, Event};
use crate::payload;

/// A connection that is there while its client connects anew. Nothing is said on it any more.
pub struct Old {
    stream: TcpStream,
    incoming: Vec<u8>,
    /// CONNACK has come on the new one.
    is_replaced: bool,
}

impl Client {
    /// Connects anew, and leaves it to the broker to close the connection that is there.
    pub(super) fn supersede(&mut self, scene: &mut Scene<'_>, registry: &Registry, now: Instant) {
        if !matches!(self.link, Link::Live(_)) {
            return;
        }
        let Link::Live(stream) = std::mem::replace(&mut self.link, Link::Away(Some(now))) else { return };
        scene.write(Event::Ended { client: self.number, ending: Ending::Superseded });
        let incoming = std::mem::take(&mut self.incoming);
        self.forget_connection();
        self.old = Some(Old { stream, incoming, is_replaced: false });
        self.open(scene, registry, now);
    }

    /// The new connection has been answered: what had come on the old one is read first, and nothing may come from now on.
    pub(super) fn replace_old(&mut self, scene: &mut Scene<'_>) {
        self.read_old(scene);
        if let Some(old) = &mut self.old {
            old.is_replaced = true;
        }
    }

    /// Whether the broker has not closed a connection that it should have.
    pub fn has_two_connections(&self) -> bool {
        self.old.as_ref().is_some_and(|old| old.is_replaced)
    }

    /// Reads all there is on the old connection.
    pub(super) fn read_old(&mut self, scene: &mut Scene<'_>) {
        let Some(mut old) = self.old.take() else { return };
        let mut buffer = [0; READ_BYTES];
        let is_open = loop {
            match old.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => {
                    old.incoming.extend_from_slice(&buffer[..count]);
                    if !self.take_old_packets(&mut old, scene) {
                        break false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };
        self.old = is_open.then_some(old);
    }

    /// False if the bytes are no packets.
    fn take_old_packets(&mut self, old: &mut Old, scene: &mut Scene<'_>) -> bool {
        let mut at = 0;
        let fine = loop {
            match frame::split(&old.incoming[at..], PACKET_BYTES_MAX) {
                Ok(frame::Split::Frame(frame)) => {
                    at += frame.packet_bytes;
                    match Packet::decode(self.version, frame.first_byte, frame.body) {
                        Ok(packet) => self.take_old(&packet, old.is_replaced, scene),
                        Err(_) => break false,
                    }
                }
                Ok(frame::Split::Incomplete { .. }) => break true,
                Err(_) => break false,
            }
        };
        old.incoming.drain(..at);
        fine
    }

    fn take_old(&mut self, packet: &Packet<'_>, is_replaced: bool, scene: &mut Scene<'_>) {
        if is_replaced {
            let content = match packet {
                Packet::Disconnect(_) => return,
                Packet::Publish(publish) => Some(payload::decode(scene.salt, publish.payload)),
                _ => None,
            };
            return scene.write(Event::Stale { client: self.number, content });
        }
        // Answers have no connection to go out on. What they are for comes again on the new one.
        let (said, held) = (self.outgoing.len(), self.held.len());
        match packet {
            Packet::Publish(publish) => drop(self.receive(publish, scene)),
            Packet::Acknowledgement(ack) if ack.kind == AcknowledgementKind::PubRel => {
                self.release(ack.packet_id, scene);
            }
            Packet::Acknowledgement(ack) => self.acknowledged(ack, scene),
            _ => {}
        }
        self.outgoing.truncate(said);
        self.held.truncate(held);
    }
}
