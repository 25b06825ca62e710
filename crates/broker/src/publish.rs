//! PUBLISH from clients, and the packets that acknowledge.

use std::num::NonZeroU16;

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Delivery, PacketId, PlainPublish, ProtocolVersion, Publish, ReasonCode,
    topic_levels,
};
use pantala_session::{AckError, Acknowledged, Instant};
use pantala_store::{Durability, Position, Record, Store};

use crate::asking::Unrouted;
use crate::connection::{Answer, Route};
use crate::core::{Core, Flow};
use crate::durability::Until;
use crate::message::{Incoming, Queued, Room};
use crate::persist::Origin;
use crate::route::Routed;
use crate::session::SessionKey;
use crate::sparkplug::{self, Certificates};
use crate::{Cause, ConnectionKey, QueueFull, Trip, access};

/// The longest Topic Name that MQTT has.
const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// Why a message is not to be routed.
#[derive(Debug, Clone, Copy)]
enum Unpermitted {
    Refused(ReasonCode, Cause),
    /// It is a command to the broker.
    Command,
}

impl<S: Store> Core<S> {
    /// A PUBLISH from a client that is let in.
    #[inline]
    pub(crate) fn publish(&mut self, now: Instant, key: ConnectionKey, publish: &Publish<'_>) -> Flow {
        let flow = match publish.properties.topic_alias {
            None => self.publish_to(now, key, publish, publish.topic_name),
            Some(alias) => self.publish_by_alias(now, key, publish, alias),
        };
        // One that waits is counted when it has been taken up again.
        if flow != Flow::Wait {
            self.counters.publish_received += 1;
            self.counters.publish_bytes_received += publish.payload.len() as u64;
        }
        flow
    }

    /// A PUBLISH with nothing special about it; `packet` is all its bytes. False, and nothing has been done, if it has to go
    /// the general way.
    #[inline]
    pub(crate) fn publish_plain(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        publisher: SessionKey,
        version: ProtocolVersion,
        plain: &PlainPublish<'_>,
        packet: &[u8],
    ) -> bool {
        let settings = &*self.settings;
        // A name shorter than both limits has fewer levels, and fewer bytes, than either allows.
        let short = settings.topic_levels_max.min(settings.topic_bytes_max);
        if plain.topic_name.len() >= usize::from(short) || settings.payload_bytes_max > 0 {
            return false;
        }
        let access = &self.sessions[publisher as usize].access;
        if access.has_mount_point() {
            return false;
        }
        let certificates = || Certificates::of(settings, false, plain.payload);
        let Ok(permit) = access::publish(access, plain.topic_name, certificates) else { return false };
        // Nor is one remembered, so that none goes the short way.
        if settings.sparkplug_aware && sparkplug::is_birth(plain.topic_name) {
            return false;
        }
        self.counters.publish_received += 1;
        self.counters.publish_bytes_received += plain.payload.len() as u64;
        if let Some(session) = self.route_plain(now, publisher, version, plain, packet, permit) {
            self.remember_route(key, session, version, plain.topic_name);
        }
        true
    }

    /// The next message on the same topic goes to the same Session, as long as no subscription changes.
    fn remember_route(&mut self, key: ConnectionKey, session: SessionKey, version: ProtocolVersion, topic_name: &str) {
        let changes = self.tree.changes() + self.rights_changes;
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let empty = || Box::new(Route { changes, session, body_start: Vec::new() });
        let route = connection.route.get_or_insert_with(empty);
        (route.changes, route.session) = (changes, session);
        route.body_start.clear();
        route.body_start.extend_from_slice(&(topic_name.len() as u16).to_be_bytes());
        route.body_start.extend_from_slice(topic_name.as_bytes());
        if version.is_v5() {
            route.body_start.push(0);
        }
    }

    fn publish_by_alias(&mut self, now: Instant, key: ConnectionKey, publish: &Publish<'_>, alias: NonZeroU16) -> Flow {
        let maximum = self.topic_alias_max(key);
        let too_high = Cause::setting("topic_alias_max", maximum);
        let connection = &mut self.connections[key as usize];
        let extras = connection.extras();
        if !publish.topic_name.is_empty() {
            if !extras.received_aliases.set(alias, maximum, publish.topic_name) {
                return self.break_off(now, key, ReasonCode::TopicAliasInvalid, too_high);
            }
            return self.publish_to(now, key, publish, publish.topic_name);
        }
        if alias.get() > maximum {
            return self.break_off(now, key, ReasonCode::TopicAliasInvalid, too_high);
        }
        // Lent out while the message is routed, which may need the connection.
        let aliases = std::mem::take(&mut extras.received_aliases);
        let flow = match aliases.resolve(alias) {
            Some(topic_name) => self.publish_to(now, key, publish, topic_name),
            None => self.break_off(now, key, ReasonCode::ProtocolError, Cause::TopicAliasUnknown),
        };
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.extras().received_aliases = aliases;
        }
        flow
    }

    #[inline]
    fn publish_to(&mut self, now: Instant, key: ConnectionKey, publish: &Publish<'_>, topic_name: &str) -> Flow {
        if let Err((code, cause)) = self.check_publish(key, publish, topic_name) {
            return self.break_off(now, key, code, cause);
        }
        let Some(session) = self.connections[key as usize].session else { return Flow::Stop };
        let certificates = || Certificates::of(&self.settings, publish.retain, publish.payload);
        let mounted = self.sessions[session as usize].access.mounted_name(topic_name, certificates);
        let topic_name = mounted.as_deref().unwrap_or(topic_name);
        // Most are shorter than any that could become too long.
        if topic_name.len() > TOPIC_BYTES_MAX - sparkplug::CERTIFICATES_BYTES
            && let Err(cause) = self.check_whole_name(session, topic_name)
        {
            return self.break_off(now, key, ReasonCode::TopicNameInvalid, cause);
        }
        let expiry = publish.properties.message_expiry_interval;
        let mut incoming = Incoming {
            topic_name,
            properties: publish.properties.forward(),
            payload: publish.payload,
            qos: publish.delivery.qos(),
            retain: publish.retain,
            expires_at: expiry.map(|seconds| now.after_seconds(seconds)),
            id: None,
            room: Room::Unasked,
        };
        match publish.delivery {
            Delivery::AtMostOnce => {
                match self.check_message(session, &incoming) {
                    Ok(permit) => {
                        if self.settings.sparkplug_aware {
                            self.publish_certificate(now, session, &incoming);
                        }
                        self.begin_routing(&mut incoming);
                        self.route(now, Some(session), &incoming, Origin::default(), permit);
                    }
                    Err(Unpermitted::Command) => self.command(key, session, &incoming),
                    Err(Unpermitted::Refused(..)) => {}
                }
                Flow::Continue
            }
            Delivery::AtLeastOnce { packet_id, .. } => {
                if let Err(flow) = self.check_receive_maximum(now, key, session) {
                    return flow;
                }
                self.publish_acknowledged(now, key, session, packet_id, AcknowledgementKind::PubAck, incoming)
            }
            Delivery::ExactlyOnce { packet_id, .. } => {
                if self.sessions[session as usize].has_received(packet_id) {
                    // A repeat: acknowledged once more, not routed once more (v5 MQTT-4.3.3-10), and not before what was
                    // recorded for the first one is safe.
                    let recorded = !self.sessions[session as usize].is_unrecorded(packet_id);
                    let position = if recorded { self.store.appended() } else { Position::default() };
                    let answer = Answer::Acknowledgement(AcknowledgementKind::PubRec, packet_id, ReasonCode::Success);
                    self.answer(key, position, 0, answer);
                    return Flow::Continue;
                }
                if let Err(flow) = self.check_receive_maximum(now, key, session) {
                    return flow;
                }
                self.publish_acknowledged(now, key, session, packet_id, AcknowledgementKind::PubRec, incoming)
            }
        }
    }

    /// What ends the connection.
    #[inline]
    fn check_publish(
        &self,
        key: ConnectionKey,
        publish: &Publish<'_>,
        topic_name: &str,
    ) -> Result<(), (ReasonCode, Cause)> {
        let settings = &*self.settings;
        // A name has no more levels than bytes and one: most need no counting.
        if topic_name.len() >= usize::from(settings.topic_levels_max)
            && topic_levels(topic_name) > usize::from(settings.topic_levels_max)
        {
            return Err((ReasonCode::MalformedPacket, Cause::setting("topic_levels_max", settings.topic_levels_max)));
        }
        if topic_name.len() > usize::from(settings.topic_bytes_max) {
            return Err((ReasonCode::TopicNameInvalid, Cause::setting("topic_bytes_max", settings.topic_bytes_max)));
        }
        if publish.properties.has_subscription_identifier {
            return Err((ReasonCode::ProtocolError, Cause::SubscriptionIdentifier));
        }
        if publish.properties.user_property_count() > usize::from(settings.user_properties_per_packet_max) {
            let cause = Cause::setting("user_properties_per_packet_max", settings.user_properties_per_packet_max);
            return Err((ReasonCode::QuotaExceeded, cause));
        }
        if publish.retain && !self.connections[key as usize].told.retain_available {
            return Err((ReasonCode::RetainNotSupported, Cause::setting("retain_available", false)));
        }
        if publish.delivery != Delivery::AtMostOnce && publish.delivery.qos() > self.maximum_qos(key) {
            return Err((ReasonCode::QoSNotSupported, Cause::setting("maximum_qos", self.maximum_qos(key) as u8)));
        }
        Ok(())
    }

    /// Whether a Topic Name is one that MQTT can still carry when all has been put before it.
    #[cold]
    fn check_whole_name(&self, session: SessionKey, topic_name: &str) -> Result<(), Cause> {
        if topic_name.len() > TOPIC_BYTES_MAX {
            return Err(Cause::ListenerSetting { key: "mount_point", value: topic_name.len() as u64 });
        }
        let name = self.sessions[session as usize].access.client_name(topic_name);
        if self.settings.sparkplug_aware && sparkplug::is_birth(name) {
            return Err(Cause::setting("sparkplug_aware", true));
        }
        Ok(())
    }

    /// What ends the message only: permission, and its size.
    #[inline]
    fn check_message(&mut self, publisher: SessionKey, incoming: &Incoming<'_>) -> Result<access::Permit, Unpermitted> {
        let bytes_max = self.settings.payload_bytes_max as usize;
        if bytes_max > 0 && incoming.payload.len() > bytes_max {
            self.counters.dropped_payload_too_large += 1;
            // PUBACK and PUBREC have no code for "too large"; this is the nearest that they have.
            let cause = Cause::setting("payload_bytes_max", self.settings.payload_bytes_max);
            self.trip(Trip::MessageFrom, Some(publisher), cause);
            return Err(Unpermitted::Refused(ReasonCode::QuotaExceeded, cause));
        }
        let access = &self.sessions[publisher as usize].access;
        let certificates = || Certificates::of(&self.settings, incoming.retain, incoming.payload);
        access::publish(access, incoming.topic_name, certificates).map_err(|access::Denied| {
            if access::control(access, incoming.topic_name).is_ok() {
                return Unpermitted::Command;
            }
            self.counters.dropped_not_authorized += 1;
            Unpermitted::Refused(ReasonCode::NotAuthorized, Cause::TopicName)
        })
    }

    /// MQTT 5 clients that go on with as many QoS 2 messages open as our Receive Maximum are cut off (v5 section 4.9).
    ///
    /// At QoS 1 what is open is what we have not answered yet, which may be because of our own disk. Several client libraries
    /// do not count these; they would be cut off for our slowness. They are not: with `HELD_MAX` answers held, reading
    /// from such a client pauses.
    fn check_receive_maximum(&mut self, now: Instant, key: ConnectionKey, session: SessionKey) -> Result<(), Flow> {
        let connection = &self.connections[key as usize];
        if !connection.version.is_v5() {
            return Ok(());
        }
        let open = self.sessions[session as usize].received_len();
        let max = connection.told.receive_maximum;
        if open >= usize::from(max) {
            let cause = Cause::setting("receive_maximum", max);
            return Err(self.break_off(now, key, ReasonCode::ReceiveMaximumExceeded, cause));
        }
        Ok(())
    }

    /// Routes a QoS 1 or 2 message and acknowledges it, when it may be acknowledged.
    fn publish_acknowledged(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        session: SessionKey,
        packet_id: PacketId,
        kind: AcknowledgementKind,
        mut incoming: Incoming<'_>,
    ) -> Flow {
        let exactly_once = kind == AcknowledgementKind::PubRec;
        let v5 = self.connections[key as usize].version.is_v5();
        let permit = match self.check_message(session, &incoming) {
            Ok(permit) => permit,
            Err(Unpermitted::Command) => {
                self.command(key, session, &incoming);
                if exactly_once {
                    // The store never hears of it.
                    self.sessions[session as usize].receive(packet_id, false);
                }
                let answer = Answer::Acknowledgement(kind, packet_id, ReasonCode::Success);
                self.answer(key, Position::default(), 0, answer);
                return Flow::Continue;
            }
            Err(Unpermitted::Refused(code, cause)) => {
                // v3.1.1 MQTT-3.3.5-2: the older versions are acknowledged as if it had been routed.
                if exactly_once && !v5 {
                    self.sessions[session as usize].receive(packet_id, true);
                }
                self.answer(key, Position::default(), 0, Answer::Refusal(kind, packet_id, code, cause));
                return Flow::Continue;
            }
        };
        let number = self.sessions[session as usize].number;
        let level = self.level(incoming.topic_name);
        let in_memory = level == Some(Durability::Memory);
        let opens = if exactly_once && !in_memory { number.map(|number| (number, packet_id)) } else { None };
        let origin = Origin { opens, will_of: None };
        if !self.store.accepts()
            && (!in_memory && (opens.is_some() || self.has_to_be_kept(session, &incoming))
                || self.certificate_has_to_be_kept(session, &incoming))
        {
            self.counters.dropped_store_refused += 1;
            if !v5 {
                // It cannot be told. Were it only left without an answer, later messages could be taken before it comes again.
                return self.break_off(now, key, ReasonCode::QuotaExceeded, Cause::Store);
            }
            return self.refuse_publish(key, kind, packet_id, Cause::Store);
        }
        // What has to be looked at more closely is looked at elsewhere, so that all else is not held up.
        let routed = if self.settings.sparkplug_aware || self.settings.queue_full == QueueFull::Refuse {
            match self.route_with_care(now, key, session, level, incoming, origin, permit) {
                Ok(routed) => routed,
                Err(Unrouted::Waits) => return Flow::Wait,
                Err(Unrouted::Refused) => return self.refuse_publish(key, kind, packet_id, Cause::QueueFull),
            }
        } else {
            if self.store.keeps() {
                self.begin_routing_at(level, &mut incoming);
            }
            self.route(now, Some(session), &incoming, origin, permit)
        };
        if exactly_once {
            self.sessions[session as usize].receive(packet_id, !in_memory);
        }
        let until = match level {
            Some(Durability::Os) => Until::Written(routed.position),
            _ => Until::Durable(routed.position),
        };
        let code = if routed.receivers > 0 { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
        self.answer(key, until, 0, Answer::Acknowledgement(kind, packet_id, code));
        Flow::Continue
    }

    /// Routes a QoS 1 or 2 message if everybody has room for it, where that is asked, and as a certificate before, where it is one.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "the rest of `publish_acknowledged`")]
    fn route_with_care(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        session: SessionKey,
        level: Option<Durability>,
        mut incoming: Incoming<'_>,
        origin: Origin,
        permit: access::Permit,
    ) -> Result<Routed, Unrouted> {
        let asks = self.settings.queue_full == QueueFull::Refuse;
        let members = if asks { Some(self.ask_for_room(now, key, session, &incoming)?) } else { None };
        let mut certificate = Position::default();
        if self.settings.sparkplug_aware {
            certificate = self.publish_certificate(now, session, &incoming);
        }
        if self.store.keeps() {
            self.begin_routing_at(level, &mut incoming);
        }
        let mut routed = match members {
            Some(members) => self.route_promised(now, session, &incoming, members, origin, permit),
            None => self.route(now, Some(session), &incoming, origin, permit),
        };
        routed.position = routed.position.max(certificate);
        Ok(routed)
    }

    /// Older versions cannot be told: no acknowledgement, and the client sends it again on its next connection. A queue that is
    /// full concerns the topics of one receiver, so its connection stays.
    fn refuse_publish(
        &mut self,
        key: ConnectionKey,
        kind: AcknowledgementKind,
        packet_id: PacketId,
        cause: Cause,
    ) -> Flow {
        if self.connections[key as usize].version.is_v5() {
            let answer = Answer::Refusal(kind, packet_id, ReasonCode::QuotaExceeded, cause);
            self.answer(key, Position::default(), 0, answer);
        }
        Flow::Continue
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub(crate) fn acknowledgement(&mut self, now: Instant, key: ConnectionKey, packet: &Acknowledgement<'_>) -> Flow {
        let connection = &self.connections[key as usize];
        let (v5, window) = (connection.version.is_v5(), connection.window);
        let Some(session_key) = connection.session else { return Flow::Stop };
        let session = &mut self.sessions[session_key as usize];
        let packet_id = packet.packet_id;
        if packet.kind == AcknowledgementKind::PubRel {
            let mut position = Position::default();
            let (known, unrecorded) = session.release(packet_id);
            if let (Some(session), false) = (session.number, unrecorded) {
                // If it is a repeat, the record of the first one may not be safe yet.
                position = if known {
                    self.store.append(&Record::ExactlyOnceReleased { session, packet_id: packet_id.number() })
                } else {
                    self.store.appended()
                };
            }
            let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
            self.counters.acknowledgements_unknown += u64::from(!known);
            let answer = Answer::Acknowledgement(AcknowledgementKind::PubComp, packet_id, code);
            self.answer(key, position, 0, answer);
            return Flow::Continue;
        }
        let order = match (&session.owed, packet.kind) {
            (Some(owed), AcknowledgementKind::PubRec) => owed.exchanges.order(packet_id).unwrap_or_default(),
            _ => 0,
        };
        let result: Result<Acknowledged<Queued>, AckError> = match &mut session.owed {
            None => Err(AckError::Unknown),
            Some(owed) => {
                let result = match packet.kind {
                    AcknowledgementKind::PubAck => owed.exchanges.pub_ack(packet_id),
                    AcknowledgementKind::PubRec => owed.exchanges.pub_rec(packet_id, packet.reason_code.is_error()),
                    _ => owed.exchanges.pub_comp(packet_id),
                };
                if let Ok(Acknowledged::Settled(Some(queued)) | Acknowledged::Release(Some(queued))) = &result {
                    owed.inflight_bytes -= queued.bytes() as u64;
                }
                result
            }
        };
        let number = session.number;
        match result {
            Ok(Acknowledged::Settled(queued)) => {
                // With a slot free now there is something to do only if something waits.
                let waiting = session.queue_len() > 0 || session.has_waiting(window);
                let kept = queued.as_ref().and_then(Queued::kept);
                // Of a message at QoS 1 that is kept in memory only the store never knew.
                let unrecorded = packet.kind == AcknowledgementKind::PubAck && kept.is_none();
                if number.is_some() && self.store.keeps() && !unrecorded {
                    self.record_settled(number, kept, Some(packet_id));
                }
                if waiting {
                    self.pump(now, session_key);
                }
            }
            Ok(Acknowledged::Release(queued)) => {
                let Some(session) = number else {
                    self.send_pub_rel(key, packet_id, ReasonCode::Success);
                    return Flow::Continue;
                };
                // Not before it is safe that PUBREC has come: after a crash the message must not be sent again.
                let position = match queued {
                    Some(_) if mutant!(PubRecForgotten) => self.store.appended(),
                    Some(queued) => match queued.kept() {
                        Some((message, copy)) => {
                            let (message, packet_id) = (Some(message), packet_id.number());
                            self.store.append(&Record::Released { session, message, copy, packet_id, order })
                        }
                        // The store has it so from the beginning.
                        None => Position::default(),
                    },
                    None => self.store.appended(),
                };
                let answer = Answer::Acknowledgement(AcknowledgementKind::PubRel, packet_id, ReasonCode::Success);
                self.answer(key, position, 0, answer);
            }
            Err(AckError::Unknown) => {
                self.counters.acknowledgements_unknown += 1;
                if packet.kind == AcknowledgementKind::PubRec && !packet.reason_code.is_error() {
                    let code = if v5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
                    self.send_pub_rel(key, packet_id, code);
                }
            }
            Err(AckError::Unexpected(_)) => {
                return self.break_off(now, key, ReasonCode::ProtocolError, Cause::Acknowledgement);
            }
        }
        Flow::Continue
    }

    pub(crate) fn send_pub_rel(&mut self, key: ConnectionKey, packet_id: PacketId, code: ReasonCode) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let version = connection.version;
        self.send(key, |out| {
            Acknowledgement::new(AcknowledgementKind::PubRel, packet_id, code).encode(version, out);
        });
    }
}
