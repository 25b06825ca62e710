//! The messages a Session is owed, and in which order the client has to acknowledge them.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Delivery, Outgoing as OutgoingPublish, Packet, PacketId, ProtocolVersion,
    QoS, ReasonCode,
};

use super::message::Message;
use super::violation::Finding;

/// Messages a Session keeps for a client that is away or slow; the newest beyond are lost.
const QUEUED_MAX: usize = 65_535;

/// A message on its way to one client, with the QoS and RETAIN it has there.
#[derive(Clone)]
pub(super) struct Delivered {
    pub(super) message: Message,
    pub(super) identifiers: Vec<NonZeroU32>,
}

/// What the client of one connection can take.
#[derive(Clone, Copy)]
pub(super) struct Receiver {
    pub(super) version: ProtocolVersion,
    pub(super) receive_maximum: usize,
    pub(super) packet_bytes_max: usize,
}

/// The QoS 1 and 2 exchanges of one Session that the broker has begun, and those to begin.
#[derive(Default)]
pub(super) struct Outgoing {
    exchanges: VecDeque<Exchange>,
    queue: VecDeque<Delivered>,
    last_packet_id: u16,
    /// PUBLISH packets of this connection that wait for PUBACK, in their order.
    pub_acks_due: VecDeque<PacketId>,
    /// The same for PUBREC.
    pub_recs_due: VecDeque<PacketId>,
}

struct Exchange {
    packet_id: PacketId,
    delivered: Delivered,
    /// PUBREC has come.
    released: bool,
    /// It has been sent on some connection.
    sent_before: bool,
    /// It has been sent on this connection.
    sent: bool,
}

impl Delivered {
    fn encode(&self, delivery: Delivery, receiver: Receiver, out: &mut Vec<u8>) {
        let outgoing = OutgoingPublish {
            delivery,
            retain: self.message.retain,
            topic_name: &self.message.topic_name,
            properties: self.message.forward(),
            message_expiry_interval: None,
            topic_alias: None,
            subscription_identifiers: &self.identifiers,
        };
        outgoing.encode_header(receiver.version, self.message.payload.len(), out);
        out.extend_from_slice(&self.message.payload);
    }

    /// Sends it with QoS 0; not if it is too large (v5 MQTT-3.1.2-24).
    pub(super) fn encode_at_most_once(&self, receiver: Receiver, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(Delivery::AtMostOnce, receiver, out);
        if out.len() - start > receiver.packet_bytes_max {
            out.truncate(start);
        }
    }
}

impl Outgoing {
    /// The client is there (again): what is open is sent again.
    pub(super) fn connected(&mut self) {
        self.exchanges.iter_mut().for_each(|exchange| exchange.sent = false);
        self.pub_acks_due.clear();
        self.pub_recs_due.clear();
    }

    pub(super) fn enqueue(&mut self, delivered: Delivered) {
        if self.queue.len() < QUEUED_MAX {
            self.queue.push_back(delivered);
        }
    }

    /// Messages that the client has not acknowledged to the end, and those waiting.
    pub(super) fn len(&self) -> usize {
        self.exchanges.len() + self.queue.len()
    }

    /// Sends what may be sent now.
    pub(super) fn send(&mut self, receiver: Receiver, out: &mut Vec<u8>) {
        let mut under_way = self.exchanges.iter().filter(|exchange| exchange.sent).count();
        for at in 0..self.exchanges.len() {
            let exchange = &mut self.exchanges[at];
            if exchange.sent {
                continue;
            }
            if exchange.released {
                exchange.sent = true;
                pub_rel(exchange.packet_id, ReasonCode::Success, receiver.version, out);
                continue;
            }
            if under_way >= receiver.receive_maximum {
                return;
            }
            under_way += 1;
            exchange.sent = true;
            let (packet_id, dup) = (exchange.packet_id, exchange.sent_before);
            exchange.sent_before = true;
            let delivery = match exchange.delivered.message.qos {
                QoS::ExactlyOnce => {
                    self.pub_recs_due.push_back(packet_id);
                    Delivery::ExactlyOnce { packet_id, dup }
                }
                _ => {
                    self.pub_acks_due.push_back(packet_id);
                    Delivery::AtLeastOnce { packet_id, dup }
                }
            };
            exchange.delivered.encode(delivery, receiver, out);
        }
        while under_way < receiver.receive_maximum {
            let Some(delivered) = self.queue.pop_front() else { return };
            let packet_id = self.free_packet_id();
            let (delivery, due) = match delivered.message.qos {
                QoS::ExactlyOnce => (Delivery::ExactlyOnce { packet_id, dup: false }, &mut self.pub_recs_due),
                _ => (Delivery::AtLeastOnce { packet_id, dup: false }, &mut self.pub_acks_due),
            };
            let start = out.len();
            delivered.encode(delivery, receiver, out);
            if out.len() - start > receiver.packet_bytes_max {
                // v5 MQTT-3.1.2-25: it counts as delivered.
                out.truncate(start);
                continue;
            }
            due.push_back(packet_id);
            under_way += 1;
            self.exchanges.push_back(Exchange { packet_id, delivered, released: false, sent_before: true, sent: true });
        }
    }

    /// PUBACK, PUBREC or PUBCOMP has come. PUBREC is answered.
    pub(super) fn acknowledged(
        &mut self,
        acknowledgement: &Acknowledgement<'_>,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
        findings: &mut Vec<Finding>,
    ) {
        let Acknowledgement { kind, packet_id, reason_code, .. } = *acknowledgement;
        let number = packet_id.number();
        let at = self.exchanges.iter().position(|exchange| exchange.packet_id == packet_id);
        let qos = at.map(|at| self.exchanges[at].delivered.message.qos);
        let fits = match qos {
            None => {
                findings.push(Finding::new("MQTT-2.2.1-5", format!("no exchange has Packet Identifier {number}")));
                if kind == AcknowledgementKind::PubRec {
                    pub_rel(packet_id, ReasonCode::PacketIdentifierNotFound, version, out);
                }
                return;
            }
            Some(QoS::ExactlyOnce) => kind != AcknowledgementKind::PubAck,
            Some(_) => kind == AcknowledgementKind::PubAck,
        };
        if !fits {
            let what = format!("{kind:?} does not belong to the QoS of PUBLISH {number}");
            findings.push(Finding::new("MQTT-3.3.4-1", what));
            return;
        }
        let at = at.expect("its QoS was found");
        match kind {
            AcknowledgementKind::PubAck => {
                take_due(&mut self.pub_acks_due, packet_id, "MQTT-4.6.0-2", findings);
                self.exchanges.remove(at);
            }
            AcknowledgementKind::PubRec => {
                take_due(&mut self.pub_recs_due, packet_id, "MQTT-4.6.0-3", findings);
                if reason_code.is_error() {
                    self.exchanges.remove(at);
                } else {
                    self.exchanges[at].released = true;
                    pub_rel(packet_id, ReasonCode::Success, version, out);
                }
            }
            AcknowledgementKind::PubComp | AcknowledgementKind::PubRel => {
                if !self.exchanges[at].released {
                    findings.push(Finding::new("MQTT-4.3.3-11", format!("PUBCOMP {number}, and no PUBREL was sent")));
                    self.pub_recs_due.retain(|due| *due != packet_id);
                }
                self.exchanges.remove(at);
            }
        }
    }

    fn free_packet_id(&mut self) -> PacketId {
        // Fewer than 65_535 are in use: the window is not larger.
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(packet_id) = PacketId::new(self.last_packet_id)
                && self.exchanges.iter().all(|exchange| exchange.packet_id != packet_id)
            {
                return packet_id;
            }
        }
    }
}

fn pub_rel(packet_id: PacketId, reason_code: ReasonCode, version: ProtocolVersion, out: &mut Vec<u8>) {
    let packet = Acknowledgement::new(AcknowledgementKind::PubRel, packet_id, reason_code);
    Packet::Acknowledgement(packet).encode(version, out);
}

/// Takes `packet_id` out of what is due, where it has to be the first.
fn take_due(due: &mut VecDeque<PacketId>, packet_id: PacketId, statement: &'static str, findings: &mut Vec<Finding>) {
    let number = packet_id.number();
    match due.iter().position(|it| *it == packet_id) {
        Some(0) => {
            due.pop_front();
        }
        Some(at) => {
            let what = format!("PUBLISH {number} is acknowledged before {}, which was sent earlier", due[0].number());
            findings.push(Finding::new(statement, what));
            due.remove(at);
        }
        None => {
            let what =
                format!("PUBLISH {number} is acknowledged, and was not sent on this connection or was answered before");
            findings.push(Finding::new("MQTT-2.2.1-5", what));
        }
    }
}
