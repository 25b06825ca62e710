//! The exchange of messages: PUBLISH and its answers, in both directions.

use std::time::Instant;

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Delivery, Packet, PacketId, Property, Publish, PublishProperties, QoS,
    ReasonCode,
};

use super::{Client, Phase, Scene, user_properties};
use crate::history::{Event, MessageId, Reception, UNKNOWN_TOPIC};
use crate::payload::{self, Content};
use crate::plan::Role;

/// How far the exchange of an outgoing message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Neither PUBACK nor PUBREC came.
    Published,
    /// PUBREC came; PUBREL was sent so often.
    Released(u8),
}

/// An outgoing message that is not done.
#[derive(Debug)]
pub struct Exchange {
    /// Its Packet Identifier.
    pub packet_id: PacketId,
    /// Which message.
    pub message: MessageId,
    /// How far it is.
    pub stage: Stage,
    /// The payload, until the broker has it.
    pub payload: Vec<u8>,
}

impl Client {
    /// Sends a new message.
    pub(super) fn begin_exchange(&mut self, scene: &mut Scene<'_>, message: MessageId, payload: Vec<u8>) {
        let packet_id = self.free_id();
        self.send_publish(scene, packet_id, message, &payload, false);
        self.exchanges.push_back(Exchange { packet_id, message, stage: Stage::Published, payload });
    }

    /// Sends again what was not answered, in the order in which it was sent first (v5 MQTT-4.6.0-1).
    pub(super) fn resend(&mut self, scene: &mut Scene<'_>, session_present: bool) {
        let mut exchanges = std::mem::take(&mut self.exchanges);
        if !session_present {
            // The broker no longer knows the identifiers. A message at QoS 2 may have been routed, so it is given up; one
            // at QoS 1 may come twice.
            exchanges.retain(|exchange| {
                let facts = scene.history.cast.message(exchange.message);
                let at_least_once = facts.is_some_and(|facts| facts.qos == QoS::AtLeastOnce);
                if !at_least_once && exchange.stage == Stage::Published {
                    scene.write(Event::Abandoned { message: exchange.message });
                }
                at_least_once
            });
        }
        for exchange in &mut exchanges {
            match &mut exchange.stage {
                Stage::Published => {
                    let Exchange { packet_id, message, ref payload, .. } = *exchange;
                    self.send_publish(scene, packet_id, message, payload, session_present);
                }
                Stage::Released(count) => {
                    *count = count.saturating_add(1);
                    let packet_id = exchange.packet_id;
                    self.send(&Acknowledgement::new(AcknowledgementKind::PubRel, packet_id, ReasonCode::Success));
                }
            }
        }
        self.exchanges = exchanges;
    }

    fn send_publish(
        &mut self,
        scene: &mut Scene<'_>,
        packet_id: PacketId,
        message: MessageId,
        payload: &[u8],
        dup: bool,
    ) {
        let Some(facts) = scene.history.cast.message(message).copied() else { return };
        let delivery = match facts.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
            QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
        };
        let mut section = Vec::new();
        if self.version.is_v5() {
            if let Some(seconds) = facts.expiry {
                Property::MessageExpiryInterval(seconds).encode(&mut section);
            }
            for (name, value) in user_properties(message) {
                Property::UserProperty(&name, &value).encode(&mut section);
            }
        }
        let properties = PublishProperties::new(&section).unwrap_or_default();
        let topic_name = &scene.history.cast.topics[usize::from(facts.topic)];
        let publish = Publish { delivery, retain: facts.retain, topic_name, properties, payload };
        publish.encode(self.version, &mut self.outgoing);
        scene.write(Event::Published { message });
    }

    /// PUBACK, PUBREC or PUBCOMP.
    pub(super) fn acknowledged(&mut self, ack: &Acknowledgement<'_>, scene: &mut Scene<'_>) {
        let Some(place) = self.exchanges.iter().position(|exchange| exchange.packet_id == ack.packet_id) else {
            return;
        };
        let exchange = &mut self.exchanges[place];
        let message = exchange.message;
        let exactly_once = scene.history.cast.message(message).is_some_and(|facts| facts.qos == QoS::ExactlyOnce);
        match (ack.kind, exchange.stage) {
            (AcknowledgementKind::PubAck, Stage::Published) if !exactly_once => {
                self.exchanges.remove(place);
                let refused = ack.reason_code.is_error();
                scene.write(if refused { Event::Refused { message } } else { Event::Accepted { message } });
            }
            (AcknowledgementKind::PubRec, Stage::Published) if exactly_once => {
                if ack.reason_code.is_error() {
                    self.exchanges.remove(place);
                    scene.write(Event::Refused { message });
                    return;
                }
                exchange.stage = Stage::Released(1);
                exchange.payload = Vec::new();
                scene.write(Event::Accepted { message });
                self.send(&Acknowledgement::new(AcknowledgementKind::PubRel, ack.packet_id, ReasonCode::Success));
            }
            (AcknowledgementKind::PubRec, Stage::Released(count)) => {
                exchange.stage = Stage::Released(count.saturating_add(1));
                self.send(&Acknowledgement::new(AcknowledgementKind::PubRel, ack.packet_id, ReasonCode::Success));
            }
            (AcknowledgementKind::PubComp, Stage::Released(releases)) => {
                self.exchanges.remove(place);
                let found = ack.reason_code != ReasonCode::PacketIdentifierNotFound;
                scene.write(Event::Completed { message, releases, found });
            }
            _ => {}
        }
    }

    /// PUBLISH. False if it breaks the protocol.
    pub(super) fn receive(&mut self, publish: &Publish<'_>, scene: &mut Scene<'_>) -> bool {
        let now = Instant::now();
        *scene.activity = now;
        let mut content = payload::decode(scene.salt, publish.payload);
        if let Content::Message(message) = content {
            let publisher = scene.history.cast.clients.get(usize::from(message.publisher));
            let both_v5 = self.version.is_v5() && publisher.is_some_and(|publisher| publisher.is_v5);
            let is_will = usize::from(message.publisher) < scene.history.cast.clients.len()
                && scene
                    .history
                    .cast
                    .message(message)
                    .is_some_and(|facts| matches!(facts.purpose, crate::history::Purpose::Will { .. }));
            let expected = if both_v5 && !is_will { user_properties(message) } else { Vec::new() };
            let found = publish.properties.user_properties();
            let same = found.iter().eq(expected.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            if !same {
                content = Content::Damaged;
            }
        }
        let packet_id = publish.delivery.packet_id();
        let dup = match publish.delivery {
            Delivery::AtMostOnce => false,
            Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
        };
        scene.write(Event::Received(Reception {
            client: self.number,
            topic: scene.topics.get(publish.topic_name).copied().unwrap_or(UNKNOWN_TOPIC),
            packet_id: packet_id.map_or(0, PacketId::number),
            qos: publish.delivery.qos(),
            dup,
            retain: publish.retain,
            expiry: publish.properties.message_expiry_interval,
            content,
        }));
        let Some(packet_id) = packet_id else { return true };
        let kind = if publish.delivery.qos() == QoS::ExactlyOnce {
            self.open.insert(packet_id.number());
            AcknowledgementKind::PubRec
        } else {
            AcknowledgementKind::PubAck
        };
        let hold = match self.part.role {
            Role::Subscriber { holds } if scene.phase != Phase::Draining => holds,
            _ => std::time::Duration::ZERO,
        };
        self.held.push_back((now + hold, Acknowledgement::new(kind, packet_id, ReasonCode::Success)));
        true
    }

    /// PUBREL.
    pub(super) fn release(&mut self, packet_id: PacketId, scene: &mut Scene<'_>) {
        let known = self.open.remove(&packet_id.number());
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.send(&Acknowledgement::new(AcknowledgementKind::PubComp, packet_id, reason));
        scene.write(Event::Freed { client: self.number, packet_id: packet_id.number() });
    }

    /// Sends the answers that are due.
    pub(super) fn answer(&mut self, scene: &mut Scene<'_>, now: Instant) {
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, ack)) = self.held.pop_front() else { return };
            self.send(&ack);
            if ack.kind == AcknowledgementKind::PubAck {
                scene.write(Event::Freed { client: self.number, packet_id: ack.packet_id.number() });
            }
        }
    }

    fn send(&mut self, ack: &Acknowledgement<'static>) {
        Packet::Acknowledgement(ack.clone()).encode(self.version, &mut self.outgoing);
    }
}
