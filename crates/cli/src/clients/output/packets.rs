//! The lines of `-d`: one for each Control Packet, in the words of Mosquitto's clients.

use std::io::Write as _;

use pantala_client::machine::Direction;
use pantala_proto::{
    AcknowledgementKind, Delivery, Packet, PacketId, ProtocolVersion, Publish, RetainHandling, SubscriptionOptions,
};

use super::Escaping;

/// Stands for a name that is not there.
const NONE: &[u8] = b"(null)";

/// Words of packets. It has to see all of them, since a packet does not say everything about itself.
#[derive(Debug, Clone)]
pub struct PacketLines {
    version: ProtocolVersion,
    escaping: Escaping,
    /// A line for what SUBACK grants, as `sub` has it.
    grants: bool,
    client_id: Option<String>,
    /// The Packet Identifier that was used last. Mosquitto's clients count messages of QoS 0 with the others, and show that.
    last_number: u16,
}

impl PacketLines {
    /// For a client that is about to connect.
    pub fn new(version: ProtocolVersion, escaping: Escaping, grants: bool) -> Self {
        Self { version, escaping, grants, client_id: None, last_number: 0 }
    }

    /// Appends the lines of a packet to `out`.
    pub fn put(&mut self, direction: Direction, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match direction {
            Direction::Sent => self.put_sent(packet, out),
            Direction::Received => self.put_received(packet, out),
        }
    }

    fn put_sent(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::Connect(connect) => {
                self.client_id = Some(connect.client_id.to_owned()).filter(|id| !id.is_empty());
                self.begin("sending CONNECT", out);
            }
            Packet::Publish(publish) => {
                let number = match publish.delivery.packet_id().map(PacketId::number) {
                    Some(number) => number,
                    None => self.last_number.checked_add(1).unwrap_or(1),
                };
                self.last_number = number;
                self.put_publish("sending", publish, number, out);
            }
            Packet::Acknowledgement(acknowledgement) => {
                let number = acknowledgement.packet_id.number();
                self.begin("sending", out);
                let code = acknowledgement.reason_code as u8;
                put(
                    out,
                    &match acknowledgement.kind {
                        AcknowledgementKind::PubAck => format!(" PUBACK (m{number}, rc{code})"),
                        AcknowledgementKind::PubRec => format!(" PUBREC (m{number}, rc{code})"),
                        AcknowledgementKind::PubRel => format!(" PUBREL (m{number})"),
                        AcknowledgementKind::PubComp => format!(" PUBCOMP (m{number})"),
                    },
                );
            }
            Packet::Subscribe(subscribe) => {
                self.last_number = subscribe.packet_id.number();
                for (at, (filter, options)) in subscribe.filters.iter().enumerate() {
                    if at > 0 {
                        out.push(b'\n');
                    }
                    self.begin("sending SUBSCRIBE", out);
                    put(out, &format!(" (Mid: {}, Topic: ", self.last_number));
                    self.escaping.put(filter.as_bytes(), out);
                    let (qos, options) = (options.qos as u8, option_bits(options));
                    put(out, &format!(", QoS: {qos}, Options: 0x{options:02x})"));
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.last_number = unsubscribe.packet_id.number();
                for (at, filter) in unsubscribe.filters.iter().enumerate() {
                    if at > 0 {
                        out.push(b'\n');
                    }
                    self.begin("sending UNSUBSCRIBE", out);
                    put(out, &format!(" (Mid: {}, Topic: ", self.last_number));
                    self.escaping.put(filter.as_bytes(), out);
                    out.push(b')');
                }
            }
            Packet::PingReq => self.begin("sending PINGREQ", out),
            Packet::Disconnect(_) => self.begin("sending DISCONNECT", out),
            Packet::Auth(auth) => {
                self.begin("sending AUTH", out);
                put(out, &format!(" ({})", auth.reason_code as u8));
            }
            // A client sends no others.
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => return,
        }
        out.push(b'\n');
    }

    fn put_received(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        match packet {
            Packet::ConnAck(conn_ack) => {
                if let Some(assigned) = conn_ack.assigned_client_identifier {
                    self.client_id = Some(assigned.to_owned());
                }
                let code = conn_ack.reason_code;
                let code = match code.v3_connect_return_code() {
                    Some(code) if !self.version.is_v5() => code,
                    _ => code as u8,
                };
                self.begin("received CONNACK", out);
                put(out, &format!(" ({code})"));
            }
            Packet::Publish(publish) => {
                let number = publish.delivery.packet_id().map_or(0, PacketId::number);
                self.put_publish("received", publish, number, out);
            }
            Packet::Acknowledgement(acknowledgement) => {
                let (number, code) = (acknowledgement.packet_id.number(), acknowledgement.reason_code as u8);
                self.begin("received", out);
                put(
                    out,
                    &match acknowledgement.kind {
                        AcknowledgementKind::PubAck => format!(" PUBACK (Mid: {number}, RC:{code})"),
                        AcknowledgementKind::PubRec => format!(" PUBREC (Mid: {number})"),
                        AcknowledgementKind::PubRel => format!(" PUBREL (Mid: {number})"),
                        AcknowledgementKind::PubComp => format!(" PUBCOMP (Mid: {number}, RC:{code})"),
                    },
                );
            }
            Packet::SubAck(sub_ack) => {
                self.begin("received SUBACK", out);
                if self.grants {
                    let codes: Vec<String> =
                        sub_ack.reason_codes.iter().map(|code| (*code as u8).to_string()).collect();
                    put(out, &format!("\nSubscribed (mid: {}): {}", sub_ack.packet_id.number(), codes.join(", ")));
                }
            }
            Packet::UnsubAck(_) => self.begin("received UNSUBACK", out),
            Packet::PingResp => self.begin("received PINGRESP", out),
            Packet::Disconnect(disconnect) => {
                put(out, &format!("Received DISCONNECT ({})", disconnect.reason_code as u8));
            }
            Packet::Auth(auth) => {
                self.begin("received AUTH", out);
                put(out, &format!(" ({})", auth.reason_code as u8));
            }
            // A broker sends no others, and the connection ends with them.
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => return,
        }
        out.push(b'\n');
    }

    fn begin(&self, what: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Client ");
        match &self.client_id {
            Some(id) => self.escaping.put(id.as_bytes(), out),
            None => out.extend_from_slice(NONE),
        }
        out.push(b' ');
        put(out, what);
    }

    fn put_publish(&self, way: &str, publish: &Publish<'_>, number: u16, out: &mut Vec<u8>) {
        let (qos, retain) = (publish.delivery.qos() as u8, u8::from(publish.retain));
        let dup = match publish.delivery {
            Delivery::AtMostOnce => 0,
            Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => u8::from(dup),
        };
        self.begin(way, out);
        put(out, &format!(" PUBLISH (d{dup}, q{qos}, r{retain}, m{number}, '"));
        match publish.topic_name {
            "" => out.extend_from_slice(NONE),
            topic_name => self.escaping.put(topic_name.as_bytes(), out),
        }
        put(out, &format!("', ... ({} bytes))", publish.payload.len()));
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    // Writing into a vector does not fail.
    drop(out.write_all(text.as_bytes()));
}

/// Subscription Options as they stand in the packet, without QoS.
fn option_bits(options: SubscriptionOptions) -> u8 {
    let handling = match options.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DoNotSend => 2,
    };
    u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3 | handling << 4
}

#[cfg(test)]
mod tests {
    use pantala_proto::{ConnAck, QoS, ReasonCode};

    use super::*;

    fn line(lines: &mut PacketLines, direction: Direction, packet: &Packet<'_>) -> String {
        let mut out = Vec::new();
        lines.put(direction, packet, &mut out);
        String::from_utf8(out).expect("it was text")
    }

    fn publish<'p>(topic_name: &'p str, qos: QoS) -> Packet<'p> {
        let packet_id = PacketId::new(7).expect("it is not zero");
        Packet::Publish(Publish {
            delivery: match qos {
                QoS::AtMostOnce => Delivery::AtMostOnce,
                QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup: true },
                QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup: false },
            },
            retain: false,
            topic_name,
            properties: pantala_proto::PublishProperties::default(),
            payload: b"payload",
        })
    }

    #[test]
    fn the_client_has_the_name_that_the_broker_gives() {
        let mut lines = PacketLines::new(ProtocolVersion::V5, Escaping::Raw, false);
        assert_eq!(line(&mut lines, Direction::Sent, &Packet::PingReq), "Client (null) sending PINGREQ\n");
        let mut conn_ack = ConnAck::new(false, ReasonCode::Success);
        conn_ack.assigned_client_identifier = Some("given");
        let connected = line(&mut lines, Direction::Received, &Packet::ConnAck(conn_ack));
        assert_eq!(connected, "Client given received CONNACK (0)\n");
    }

    #[test]
    fn a_refusal_has_the_code_of_the_version() {
        for (version, code) in [(ProtocolVersion::V311, 5), (ProtocolVersion::V5, 135)] {
            let mut lines = PacketLines::new(version, Escaping::Raw, false);
            let refused = Packet::ConnAck(ConnAck::new(false, ReasonCode::NotAuthorized));
            let expected = format!("Client (null) received CONNACK ({code})\n");
            assert_eq!(line(&mut lines, Direction::Received, &refused), expected);
        }
    }

    #[test]
    fn messages_of_qos_0_are_counted_with_the_others() {
        let mut lines = PacketLines::new(ProtocolVersion::V5, Escaping::Raw, false);
        let mut sent = |qos| line(&mut lines, Direction::Sent, &publish("t", qos));
        assert_eq!(sent(QoS::AtMostOnce), "Client (null) sending PUBLISH (d0, q0, r0, m1, 't', ... (7 bytes))\n");
        assert_eq!(sent(QoS::AtLeastOnce), "Client (null) sending PUBLISH (d1, q1, r0, m7, 't', ... (7 bytes))\n");
        assert_eq!(sent(QoS::AtMostOnce), "Client (null) sending PUBLISH (d0, q0, r0, m8, 't', ... (7 bytes))\n");
    }

    #[test]
    fn a_terminal_gets_one_line_without_orders() {
        let mut lines = PacketLines::new(ProtocolVersion::V5, Escaping::OneLine, false);
        let received = line(&mut lines, Direction::Received, &publish("a\n\u{1b}[2J", QoS::AtMostOnce));
        assert_eq!(received, "Client (null) received PUBLISH (d0, q0, r0, m0, 'a\\n\\x1b[2J', ... (7 bytes))\n");
        let received = line(&mut lines, Direction::Received, &publish("", QoS::AtMostOnce));
        assert_eq!(received, "Client (null) received PUBLISH (d0, q0, r0, m0, '(null)', ... (7 bytes))\n");
    }
}
