//! Messages that come from the broker, and their acknowledgements, which go out in the order of the messages
//! (v5 MQTT-4.6.0-2, MQTT-4.6.0-3).

use std::collections::VecDeque;
use std::num::NonZeroU16;

use bytes::Bytes;
use pantala_proto::{AcknowledgementKind, Delivery, ForwardProperties, PacketId, Publish, ReasonCode};
use pantala_session::{ExactlyOnce, Inbound as OpenExchanges};

use super::{Event, Inbound, LastTopic, Machine, Phase, Token};
use crate::error::{ConnectionError, Violation};
use crate::message::Properties;

/// A message that has not been acknowledged to the broker.
#[derive(Debug, Clone, Copy)]
struct Unacknowledged {
    token: Token,
    packet_id: PacketId,
    exactly_once: bool,
    /// How many more times [`Machine::acknowledge`] has to be called.
    waits_for: usize,
}

/// What is received and not finished.
#[derive(Default)]
pub(super) struct Receiver {
    /// QoS 2 messages that have come and are not released.
    open: OpenExchanges,
    /// Of this connection, in the order in which they came.
    unacknowledged: VecDeque<Unacknowledged>,
    /// QoS 2 messages of earlier connections that PUBREC was not sent for: the broker sends them again.
    carried: Vec<Unacknowledged>,
    /// QoS 1 messages among `unacknowledged`.
    at_least_once: usize,
    next_token: Token,
    last_topic: LastTopic,
    last_properties: LastProperties,
}

impl Receiver {
    pub(super) fn connection_lost(&mut self) {
        // At QoS 1 the broker sends the message again, and it is a new one.
        self.carried.extend(self.unacknowledged.drain(..).filter(|one| one.exactly_once));
        self.at_least_once = 0;
    }

    pub(super) fn session_lost(&mut self) {
        self.open = OpenExchanges::default();
        self.carried.clear();
    }

    /// Packet Identifiers that an earlier program has opened.
    pub(super) fn restore(&mut self, opened: impl IntoIterator<Item = PacketId>) {
        for packet_id in opened {
            self.open.publish(packet_id);
        }
    }

    /// Packet Identifiers that are open.
    pub(super) fn opened(&self) -> impl Iterator<Item = PacketId> + '_ {
        self.open.iter()
    }

    fn push(&mut self, packet_id: PacketId, exactly_once: bool) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        self.at_least_once += usize::from(!exactly_once);
        self.unacknowledged.push_back(Unacknowledged { token, packet_id, exactly_once, waits_for: 1 });
        token
    }

    fn find(&mut self, token: Token) -> Option<&mut Unacknowledged> {
        let carried = &mut self.carried;
        self.unacknowledged.iter_mut().chain(carried).find(|one| one.token == token)
    }

    /// The quota that the broker uses up: a QoS 2 message until PUBCOMP, a QoS 1 message until PUBACK (v5 section 4.9).
    fn quota_used(&self) -> usize {
        self.at_least_once + self.open.len()
    }
}

impl Machine {
    pub(super) fn handle_publish(&mut self, publish: &Publish<'_>) -> Result<(), ConnectionError> {
        let alias_error = || ConnectionError::Protocol(Violation::TopicAlias);
        let topic_name = match publish.properties.topic_alias {
            Some(alias) if publish.topic_name.is_empty() => {
                self.received_aliases.resolve(alias).ok_or_else(alias_error)?
            }
            Some(alias) => {
                let maximum = self.settings.topic_alias_maximum;
                if !self.received_aliases.set(alias, maximum, publish.topic_name) {
                    return Err(alias_error());
                }
                publish.topic_name
            }
            None => publish.topic_name,
        };
        let receiver = &mut self.receiver;
        // Before MQTT 5 there are just no more Packet Identifiers than that.
        let quota = if self.settings.version.is_v5() { self.settings.receive_maximum } else { NonZeroU16::MAX };
        let full = receiver.quota_used() >= usize::from(quota.get());
        let over = || ConnectionError::Protocol(Violation::ReceiveMaximum);
        let (acknowledgement, dup) = match publish.delivery {
            Delivery::AtMostOnce => (None, false),
            Delivery::AtLeastOnce { .. } if full => return Err(over()),
            Delivery::AtLeastOnce { packet_id, dup } => (Some(receiver.push(packet_id, false)), dup),
            Delivery::ExactlyOnce { packet_id, .. } if full && !receiver.open.is_open(packet_id) => return Err(over()),
            Delivery::ExactlyOnce { packet_id, dup } => match receiver.open.publish(packet_id) {
                ExactlyOnce::First => (Some(receiver.push(packet_id, true)), dup),
                ExactlyOnce::Repeat => {
                    self.repeat(packet_id);
                    return Ok(());
                }
            },
        };
        let message = Inbound {
            topic_name: receiver.last_topic.intern(topic_name),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.delivery.qos(),
            retain: publish.retain,
            dup,
            // Without the alias, which says nothing beyond its connection.
            properties: receiver.last_properties.intern(publish.properties.forward()),
            packet_id: publish.delivery.packet_id().map_or(0, PacketId::number),
            acknowledgement,
        };
        self.events.push_back(Event::Message(message));
        Ok(())
    }

    /// A QoS 2 message comes again: it is not a second one. PUBREC goes out again if it has gone out before, else when the
    /// message is acknowledged.
    fn repeat(&mut self, packet_id: PacketId) {
        let receiver = &mut self.receiver;
        let carried = receiver.carried.iter().position(|one| one.packet_id == packet_id);
        match carried {
            Some(at) => receiver.unacknowledged.push_back(receiver.carried.remove(at)),
            None if receiver.unacknowledged.iter().any(|one| one.exactly_once && one.packet_id == packet_id) => {}
            None => {
                receiver.push(packet_id, true);
                if let Some(last) = receiver.unacknowledged.back_mut() {
                    last.waits_for = 0;
                }
            }
        }
        self.send_acknowledgements();
    }

    /// The message of [`Event::Message`] has to be acknowledged `times` times before the broker hears of it; without this call
    /// once.
    pub fn expect_acknowledgements(&mut self, token: Token, times: usize) {
        if let Some(one) = self.receiver.find(token) {
            one.waits_for = times;
            self.send_acknowledgements();
        }
    }

    /// A message has been dealt with: PUBACK or PUBREC goes out, once those before it have. Does nothing for a message of an
    /// earlier connection that the broker sends again anyway.
    pub fn acknowledge(&mut self, token: Token) {
        if let Some(one) = self.receiver.find(token) {
            let last = one.waits_for == 1;
            one.waits_for = one.waits_for.saturating_sub(1);
            if last && one.exactly_once {
                // Not when the message came: a program that ends before it has dealt with it is to get it again. And not only
                // with PUBREC, which may have to wait for others or for a connection.
                let packet_id = one.packet_id;
                self.record_opened(packet_id);
            }
            self.send_acknowledgements();
        }
    }

    fn send_acknowledgements(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        while let Some(one) = self.receiver.unacknowledged.pop_front_if(|one| one.waits_for == 0) {
            let kind = if one.exactly_once {
                AcknowledgementKind::PubRec
            } else {
                self.receiver.at_least_once -= 1;
                AcknowledgementKind::PubAck
            };
            self.acknowledge_with(kind, one.packet_id, ReasonCode::Success);
        }
    }

    /// PUBREL has come.
    pub(super) fn handle_release(&mut self, packet_id: PacketId) -> Result<(), ConnectionError> {
        let receiver = &mut self.receiver;
        if receiver.unacknowledged.iter().any(|one| one.exactly_once && one.packet_id == packet_id) {
            return Err(ConnectionError::Protocol(Violation::EarlyRelease));
        }
        receiver.carried.retain(|one| one.packet_id != packet_id);
        let known = receiver.open.release(packet_id);
        self.record_closed(packet_id);
        let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.acknowledge_with(AcknowledgementKind::PubComp, packet_id, code);
        Ok(())
    }
}

/// Properties longer than this are not kept for the next message. Bytes.
const LAST_PROPERTIES_BYTES_MAX: usize = 64;

/// The last properties: most often those of a stream are all the same, a Subscription Identifier and no more.
#[derive(Default)]
struct LastProperties(Properties);

impl LastProperties {
    fn intern(&mut self, properties: ForwardProperties<'_>) -> Properties {
        let [head, tail] = properties.pieces();
        let last = self.0.section();
        if last.len() == properties.len() && last.starts_with(head) && last.ends_with(tail) {
            return self.0.clone();
        }
        let fresh =
            if tail.is_empty() { Properties::of_section(head) } else { Properties::of_section(&[head, tail].concat()) };
        if properties.len() <= LAST_PROPERTIES_BYTES_MAX {
            self.0 = fresh.clone();
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use pantala_proto::{Property, PublishProperties};

    use super::*;

    #[test]
    fn properties_are_those_that_came_without_the_alias() {
        let section = |properties: &[Property<'_>]| {
            let mut section = Vec::new();
            properties.iter().for_each(|property| property.encode(&mut section));
            section
        };
        let alias = Property::TopicAlias(std::num::NonZeroU16::MIN);
        let (long, pair) = ("x".repeat(100), Property::UserProperty("k", "v"));
        let mut last = LastProperties::default();
        for properties in [
            vec![],
            vec![pair],
            vec![pair],
            vec![alias, pair],
            vec![Property::ContentType("a"), alias, pair],
            vec![Property::ContentType("b"), pair],
            vec![Property::ContentType(&long), pair],
            vec![Property::ContentType("b"), pair],
            vec![alias],
        ] {
            let came = section(&properties);
            let interned = last.intern(PublishProperties::new(&came).unwrap().forward());
            let without_alias: Vec<_> = properties.into_iter().filter(|property| *property != alias).collect();
            assert_eq!(interned.section(), section(&without_alias));
        }
    }
}
