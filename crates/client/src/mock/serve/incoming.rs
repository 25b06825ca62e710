//! The QoS 1 and 2 exchanges a client has begun, and what it may send next in each.
//!
//! The broker sees less than the client: it does not know whether an acknowledgement arrived that went out on a
//! connection which is gone. So whatever could be right is taken for right:
//!
//! ```text
//!           PUBLISH                  PUBREC sent           PUBREL                  PUBCOMP sent
//!  (none) ───────────► Received ───────────────► Answered ─────────► Released ───────────────► Over
//!                         │   PUBACK sent                                                        ▲
//!                         └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A PUBREC that refuses makes it forgotten.
//! An exchange that is over is remembered until its Packet Identifier is used again: on a later connection the client
//! may not know yet.

use std::collections::{HashMap, VecDeque};

use pantala_proto::{AcknowledgementKind, PacketId, QoS};

use super::violation::Finding;

/// Exchanges of one Session, begun by the client.
#[derive(Default)]
pub(super) struct Incoming {
    exchanges: HashMap<PacketId, Exchange>,
    next_order: u64,
    /// Which connection of the Session this is.
    connection: u64,
    /// The client was told Session Present.
    resumed: bool,
    /// The place of the last PUBLISH sent again on this connection.
    last_resent: Option<u64>,
    /// That some exchange was not sent again has been told.
    missing_told: bool,
    /// PUBRECs sent on this connection that no PUBREL has answered, in their order.
    pub_rels_due: VecDeque<PacketId>,
}

struct Exchange {
    qos: QoS,
    /// Tells messages apart.
    content: u64,
    stage: Stage,
    /// Its place among all.
    order: u64,
    /// The connection on which its last PUBLISH or PUBREL came.
    seen_on: u64,
    /// The connection on which it came to its stage.
    stage_since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Received,
    Answered,
    Released,
    Over,
}

/// A QoS 1 or 2 PUBLISH.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    pub(super) dup: bool,
    /// Tells messages apart.
    pub(super) content: u64,
    /// See `Behaviour::distinct_messages`.
    pub(super) distinct: bool,
}

impl Incoming {
    /// The client is there (again).
    pub(super) fn connected(&mut self, session_present: bool) {
        self.connection += 1;
        self.resumed = session_present;
        self.last_resent = None;
        self.missing_told = false;
        self.pub_rels_due.clear();
    }

    /// Whether an exchange with this Packet Identifier is open.
    pub(super) fn is_open(&self, packet_id: PacketId) -> bool {
        self.exchanges.get(&packet_id).is_some_and(|exchange| exchange.stage != Stage::Over)
    }

    /// A PUBLISH has come. Whether its message is to be delivered: not if it is one of QoS 2 that was before.
    pub(super) fn publish(&mut self, seen: Seen, findings: &mut Vec<Finding>) -> bool {
        let Seen { packet_id, qos, dup, content, distinct } = seen;
        let number = packet_id.number();
        let connection = self.connection;
        let first_statement = if qos == QoS::ExactlyOnce { "MQTT-4.3.3-2" } else { "MQTT-4.3.2-2" };
        let Some(exchange) = self.exchanges.get_mut(&packet_id) else {
            if dup && !self.resumed {
                findings.push(Finding::new(first_statement, "DUP, and the Session is new"));
            }
            self.begin(seen, findings);
            return true;
        };
        let same = exchange.content == content;
        let on_this_connection = exchange.seen_on == connection;
        if exchange.stage == Stage::Over {
            if exchange.stage_since == connection {
                if dup && same {
                    findings.push(Finding::new("MQTT-4.4.0-1", "sent again after its acknowledgement"));
                } else if dup {
                    findings.push(Finding::new(first_statement, "DUP on the first sending of a message"));
                }
            } else if same && dup && exchange.qos == QoS::ExactlyOnce {
                findings.push(Finding::new("MQTT-4.3.3-6", "PUBLISH sent again after its PUBREL"));
            } else if same && distinct {
                if !dup {
                    findings.push(Finding::new("MQTT-3.3.1-1", "sent again without DUP"));
                }
                let order = exchange.order;
                (exchange.stage, exchange.stage_since, exchange.seen_on) = (Stage::Received, connection, connection);
                self.resent(number, order, findings);
                return true;
            }
            // A message that was lost on the way, or one sent again that cannot be told from such.
            self.begin(seen, findings);
            return true;
        }
        if on_this_connection || !same {
            let finding = match exchange.stage {
                Stage::Released if dup && same => Finding::new("MQTT-4.3.3-6", "PUBLISH sent again after its PUBREL"),
                _ if dup && same => Finding::new("MQTT-4.4.0-1", "sent again without a new connection"),
                _ => Finding::new("MQTT-2.2.1-3", format!("Packet Identifier {number} is in use")),
            };
            findings.push(finding);
            if !same {
                self.begin(seen, findings);
                return true;
            }
            return exchange.qos != QoS::ExactlyOnce;
        }
        if !dup {
            findings.push(Finding::new("MQTT-3.3.1-1", "sent again without DUP"));
        }
        if exchange.stage == Stage::Released {
            findings.push(Finding::new("MQTT-4.3.3-6", "PUBLISH sent again after its PUBREL"));
        }
        exchange.seen_on = connection;
        let order = exchange.order;
        self.resent(number, order, findings);
        qos != QoS::ExactlyOnce
    }

    /// PUBREL has come. Whether its exchange is known.
    pub(super) fn pub_rel(&mut self, packet_id: PacketId, findings: &mut Vec<Finding>) -> bool {
        let number = packet_id.number();
        let connection = self.connection;
        let due = self.pub_rels_due.iter().position(|due| *due == packet_id);
        let exchange = self.exchanges.get_mut(&packet_id).filter(|exchange| exchange.qos == QoS::ExactlyOnce);
        let Some(exchange) = exchange else {
            findings.push(Finding::new("MQTT-2.2.1-5", format!("no exchange has Packet Identifier {number}")));
            return false;
        };
        match exchange.stage {
            Stage::Over if exchange.stage_since == connection => {
                findings.push(Finding::new("MQTT-4.4.0-1", "PUBREL sent again after its PUBCOMP"));
                return false;
            }
            // Its PUBCOMP may have been lost.
            Stage::Over => {
                exchange.stage_since = connection;
                return false;
            }
            Stage::Received => findings.push(Finding::new("MQTT-4.3.3-4", "PUBREL, and no PUBREC was sent")),
            Stage::Released if exchange.seen_on == connection => {
                findings.push(Finding::new("MQTT-4.4.0-1", "PUBREL sent again without a new connection"));
            }
            Stage::Released | Stage::Answered => {}
        }
        (exchange.stage, exchange.stage_since, exchange.seen_on) = (Stage::Released, connection, connection);
        if let Some(at) = due {
            self.pub_rels_due.remove(at);
            if at != 0 {
                let first = self.pub_rels_due[0].number();
                let what = format!("PUBREL {number}, and the PUBREC of {first} was sent before");
                findings.push(Finding::new("MQTT-4.6.0-4", what));
            }
        }
        true
    }

    /// An acknowledgement goes out; `refused` if its Reason Code is 0x80 or above.
    pub(super) fn acknowledged(&mut self, kind: AcknowledgementKind, packet_id: PacketId, refused: bool) {
        let connection = self.connection;
        let Some(exchange) = self.exchanges.get_mut(&packet_id) else { return };
        let stage = match (kind, exchange.stage) {
            (AcknowledgementKind::PubRec, Stage::Received | Stage::Answered) if !refused => {
                if !self.pub_rels_due.contains(&packet_id) {
                    self.pub_rels_due.push_back(packet_id);
                }
                Stage::Answered
            }
            // PUBREL came before: sending PUBREC changes nothing.
            (AcknowledgementKind::PubRec, Stage::Released) => return,
            // No PUBREL will follow, so what comes with DUP later may be right.
            (AcknowledgementKind::PubRec, _) => {
                self.exchanges.remove(&packet_id);
                return;
            }
            _ => Stage::Over,
        };
        (exchange.stage, exchange.stage_since) = (stage, connection);
    }

    /// A message that was not known. Those from before the connection have to come first.
    fn begin(&mut self, seen: Seen, findings: &mut Vec<Finding>) {
        let connection = self.connection;
        let open = |exchange: &&Exchange| exchange.stage != Stage::Over && exchange.seen_on != connection;
        let missing = self.exchanges.values().filter(open).count();
        if !seen.dup && missing > 0 && !self.missing_told {
            self.missing_told = true;
            let what =
                format!("a new message, and {missing} open exchanges of earlier connections were not sent again");
            findings.push(Finding::new("MQTT-4.4.0-1", what));
        }
        let order = self.next_order;
        self.next_order += 1;
        if seen.dup {
            self.last_resent = Some(order);
        }
        self.pub_rels_due.retain(|due| *due != seen.packet_id);
        let Seen { packet_id, qos, content, .. } = seen;
        let stage = Stage::Received;
        let exchange = Exchange { qos, content, stage, order, seen_on: connection, stage_since: connection };
        self.exchanges.insert(packet_id, exchange);
    }

    /// A known message has come again, on a new connection.
    fn resent(&mut self, number: u16, order: u64, findings: &mut Vec<Finding>) {
        if self.last_resent.is_some_and(|last| order < last) {
            let what = format!("PUBLISH {number} is sent again after one that had followed it");
            findings.push(Finding::new("MQTT-4.6.0-1", what));
        }
        self.last_resent = self.last_resent.max(Some(order));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AcknowledgementKind::{PubAck, PubComp, PubRec};

    enum Step {
        /// QoS, Packet Identifier, DUP, content.
        Publish(QoS, u16, bool, u64),
        PubRel(u16),
        Sent(AcknowledgementKind, u16),
        Refused(u16),
        Reconnected,
        Forgotten,
    }
    use Step::{Forgotten, PubRel, Publish, Reconnected, Refused, Sent};
    const Q1: QoS = QoS::AtLeastOnce;
    const Q2: QoS = QoS::ExactlyOnce;

    fn statements(distinct: bool, steps: &[Step]) -> Vec<&'static str> {
        let id = |number| PacketId::new(number).expect("not 0");
        let mut incoming = Incoming::default();
        incoming.connected(false);
        let mut findings = Vec::new();
        for step in steps {
            match *step {
                Publish(qos, number, dup, content) => {
                    incoming.publish(Seen { packet_id: id(number), qos, dup, content, distinct }, &mut findings);
                }
                PubRel(number) => {
                    incoming.pub_rel(id(number), &mut findings);
                }
                Sent(kind, number) => incoming.acknowledged(kind, id(number), false),
                Refused(number) => incoming.acknowledged(PubRec, id(number), true),
                Reconnected => incoming.connected(true),
                Forgotten => {
                    incoming = Incoming::default();
                    incoming.connected(false);
                }
            }
        }
        findings.into_iter().map(|finding| finding.statement.expect("all have one")).collect()
    }

    #[test]
    fn what_is_right_is_not_reported() {
        let dialogues: [&[Step]; 10] = [
            &[Publish(Q1, 1, false, 7), Sent(PubAck, 1), Publish(Q1, 1, false, 7)],
            &[Publish(Q2, 1, false, 7), Sent(PubRec, 1), PubRel(1), Sent(PubComp, 1), Publish(Q2, 1, false, 8)],
            &[Publish(Q2, 1, false, 7), Refused(1), Publish(Q2, 1, false, 8)],
            // PUBACK lost, or not: either is right.
            &[Publish(Q1, 1, false, 7), Sent(PubAck, 1), Reconnected, Publish(Q1, 1, true, 7)],
            &[Publish(Q1, 1, false, 7), Sent(PubAck, 1), Reconnected, Publish(Q1, 1, false, 8)],
            &[Publish(Q1, 1, false, 7), Sent(PubAck, 1), Reconnected, Publish(Q1, 2, false, 8)],
            // A message that never came before.
            &[Publish(Q1, 1, false, 7), Reconnected, Publish(Q1, 1, true, 7), Publish(Q1, 2, true, 8)],
            // PUBREC lost, or not.
            &[
                Publish(Q2, 1, false, 7),
                Sent(PubRec, 1),
                Reconnected,
                Publish(Q2, 1, true, 7),
                Sent(PubRec, 1),
                PubRel(1),
            ],
            &[
                Publish(Q2, 1, false, 7),
                Sent(PubRec, 1),
                Reconnected,
                PubRel(1),
                Sent(PubComp, 1),
                Reconnected,
                PubRel(1),
            ],
            &[Publish(Q1, 1, false, 7), Forgotten, Publish(Q1, 1, false, 7)],
        ];
        for (number, dialogue) in dialogues.iter().enumerate() {
            for distinct in [false, true] {
                // Without Reconnected, the first says the same twice.
                if !(distinct && number == 0) {
                    assert_eq!(statements(distinct, dialogue), <[&str; 0]>::default(), "dialogue {number}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_reported_with_its_statement() {
        let dialogues: [(&str, &[Step]); 17] = [
            ("MQTT-2.2.1-3", &[Publish(Q1, 1, false, 7), Publish(Q1, 1, false, 8)]),
            ("MQTT-2.2.1-3", &[Publish(Q1, 1, false, 7), Publish(Q2, 1, false, 8)]),
            ("MQTT-2.2.1-3", &[Publish(Q1, 1, false, 7), Reconnected, Publish(Q1, 1, true, 8)]),
            ("MQTT-4.3.2-2", &[Publish(Q1, 1, true, 7)]),
            ("MQTT-4.3.3-2", &[Publish(Q2, 1, true, 7)]),
            ("MQTT-4.3.2-2", &[Publish(Q1, 1, false, 7), Sent(PubAck, 1), Publish(Q1, 1, true, 8)]),
            ("MQTT-4.4.0-1", &[Publish(Q1, 1, false, 7), Publish(Q1, 1, true, 7)]),
            ("MQTT-4.4.0-1", &[Publish(Q1, 1, false, 7), Reconnected, Publish(Q1, 2, false, 8)]),
            ("MQTT-3.3.1-1", &[Publish(Q1, 1, false, 7), Reconnected, Publish(Q1, 1, false, 7)]),
            (
                "MQTT-4.6.0-1",
                &[
                    Publish(Q1, 2, false, 7),
                    Publish(Q1, 1, false, 8),
                    Reconnected,
                    Publish(Q1, 1, true, 8),
                    Publish(Q1, 2, true, 7),
                ],
            ),
            ("MQTT-2.2.1-5", &[PubRel(1)]),
            ("MQTT-2.2.1-5", &[Publish(Q1, 1, false, 7), PubRel(1)]),
            ("MQTT-4.3.3-4", &[Publish(Q2, 1, false, 7), PubRel(1)]),
            ("MQTT-4.4.0-1", &[Publish(Q2, 1, false, 7), Sent(PubRec, 1), PubRel(1), PubRel(1)]),
            ("MQTT-4.3.3-6", &[Publish(Q2, 1, false, 7), Sent(PubRec, 1), PubRel(1), Publish(Q2, 1, true, 7)]),
            (
                "MQTT-4.3.3-6",
                &[Publish(Q2, 1, false, 7), Sent(PubRec, 1), PubRel(1), Reconnected, Publish(Q2, 1, true, 7)],
            ),
            (
                "MQTT-4.6.0-4",
                &[
                    Publish(Q2, 1, false, 7),
                    Publish(Q2, 2, false, 8),
                    Sent(PubRec, 1),
                    Sent(PubRec, 2),
                    PubRel(2),
                    PubRel(1),
                ],
            ),
        ];
        for (number, (statement, dialogue)) in dialogues.iter().enumerate() {
            assert_eq!(statements(false, dialogue), [*statement], "dialogue {number}");
        }
    }

    #[test]
    fn with_distinct_messages_acknowledged_ones_are_known_again() {
        let sent =
            || [Publish(Q1, 1, false, 7), Publish(Q1, 2, false, 8), Sent(PubAck, 1), Sent(PubAck, 2), Reconnected];
        let with = |more: Vec<Step>| sent().into_iter().chain(more).collect::<Vec<_>>();
        assert_eq!(statements(true, &with(vec![Publish(Q1, 1, false, 7)])), ["MQTT-3.3.1-1"]);
        let other_order = || with(vec![Publish(Q1, 2, true, 8), Publish(Q1, 1, true, 7)]);
        assert_eq!(statements(true, &other_order()), ["MQTT-4.6.0-1"]);
        assert_eq!(statements(false, &other_order()), <[&str; 0]>::default());
    }
}
