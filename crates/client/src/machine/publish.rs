//! Messages on their way to the broker.

use bytes::{Bytes, BytesMut};
use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Delivery, Outgoing, PacketId, ProtocolVersion, PublishProperties, QoS,
    ReasonCode, VARIABLE_BYTE_INTEGER_MAX, valid_topic_name,
};
use pantala_session::{AckError, Acknowledged, Instant, Place, Send, SentAlias, SentAliases};

use super::journal::{NOT_KEPT, Releasing, take_releasing};
use super::{Details, Event, Machine, Phase, Published, ServerLimits, Token};
use crate::Message;
use crate::error::{ConnectionError, PublishError, Refusal, Violation};
use crate::message::STRING_BYTES_MAX;

/// At most so many QoS 1 and 2 messages are in flight, whatever is asked for: the other Packet Identifiers are for SUBSCRIBE
/// and UNSUBSCRIBE.
const INFLIGHT_MAX: u16 = 64_000;
/// A fixed header and Remaining Length have no more bytes than this.
const FIXED_HEADER_BYTES_MAX: usize = 5;
/// What a Topic Alias adds to a packet at most: the property, and a longer property length and Remaining Length.
const ALIAS_BYTES_MAX: usize = 3 + 2;
/// A Topic Name up to this long is not worth an alias. Bytes.
const ALIAS_TOPIC_BYTES_MIN: usize = 4;
/// What a packet has besides Topic Name, payload and properties, and the alias that it may get, at most.
const PACKET_OVERHEAD_BYTES_MAX: usize = FIXED_HEADER_BYTES_MAX + 2 + 2 + 4 + ALIAS_BYTES_MAX;
/// Of a block of small payloads. A payload that is kept long keeps the whole block.
const BLOCK_BYTES: usize = 2 << 10;
/// A payload up to this long is copied into a block. Bytes.
const BLOCK_PAYLOAD_BYTES_MAX: usize = 128;

/// A message with what goes with it.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    message: Message,
    token: Option<Token>,
    since: Instant,
    /// Its place in the journal.
    pub(super) place: u64,
}

impl Waiting {
    fn bytes(&self) -> usize {
        message_bytes(&self.message)
    }
}

fn message_bytes(message: &Message) -> usize {
    message.topic_name.len() + message.payload.len() + message.properties.section().len()
}

/// A message on its way in.
pub(crate) enum Offered<'m> {
    /// The caller goes on with it.
    Lent(&'m Message),
    /// The caller needs it no more once it is taken: then an empty one stands there.
    Given(&'m mut Message),
}

impl Offered<'_> {
    #[inline]
    pub(crate) fn message(&self) -> &Message {
        match self {
            Self::Lent(message) => message,
            Self::Given(message) => message,
        }
    }
}

/// Small payloads that are kept while others are, one behind the other: a block for many costs less than what each needs to be
/// shared with the caller, and lets the caller have its memory back at once.
#[derive(Default)]
pub(super) struct Blocks {
    open: BytesMut,
}

impl Blocks {
    fn keep(&mut self, payload: &Bytes) -> Bytes {
        // What is shared already costs nothing more to share.
        if payload.len() > BLOCK_PAYLOAD_BYTES_MAX || payload.is_empty() || !payload.is_unique() {
            return payload.clone();
        }
        if self.open.capacity() < payload.len() {
            self.open = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.open.extend_from_slice(payload);
        self.open.split().freeze()
    }

    /// Bytes that are left in the block.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.open.capacity()
    }
}

/// What became of a message that was given to [`Machine::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the output, and that is all that happens at QoS 0.
    Sent,
    /// An event with its token will say more.
    Pending,
}

impl Machine {
    /// Publishes a message, now or when it can. A message with a token ends in [`Event::Published`], unless the answer is
    /// [`Accepted::Sent`]; one without ends silently.
    ///
    /// # Errors
    /// What is wrong with the message, or [`PublishError::QueueFull`]: try again when [`Machine::has_room`].
    pub fn publish(&mut self, now: Instant, message: &Message, token: Option<Token>) -> Result<Accepted, PublishError> {
        self.publish_offered(now, Offered::Lent(message), token)
    }

    /// As [`Machine::publish`].
    pub(crate) fn publish_offered(
        &mut self,
        now: Instant,
        offered: Offered<'_>,
        token: Option<Token>,
    ) -> Result<Accepted, PublishError> {
        let message = offered.message();
        self.check(message)?;
        let qos = message.qos;
        let kept = self.journal.is_some() && qos != QoS::AtMostOnce;
        if kept && !self.has_room() {
            return Err(PublishError::QueueFull);
        }
        let mut at_once = false;
        if self.phase == Phase::Open {
            self.encoder().check_limits(message)?;
            let free = self.output.len() < self.settings.output_bytes_max();
            if free && qos == QoS::AtMostOnce && self.outbound.is_all_sent() {
                self.encoder().encode(now, Delivery::AtMostOnce, message, now)?;
                return Ok(Accepted::Sent);
            }
            at_once = free && qos != QoS::AtMostOnce && self.outbound.can_start(self.window());
        }
        if !at_once && !self.has_room() {
            return Err(PublishError::QueueFull);
        }
        let message = self.take(offered);
        let bytes = message_bytes(&message);
        self.waiting_bytes += bytes;
        let place = if kept { self.record_taken(now, &message) } else { NOT_KEPT };
        let waiting = Waiting { message, token, since: now, place };
        if !at_once {
            self.outbound.enqueue(qos, waiting);
            return Ok(Accepted::Pending);
        }
        let Self { settings, limits, sent_aliases, output, outbound, .. } = self;
        let (delivery, waiting) = outbound.start_in_place(qos, waiting);
        let mut encoder = Encoder { version: settings.version, limits, sent_aliases, output };
        let encoded = waiting.map_or(Ok(()), |waiting| encoder.encode(now, delivery, &waiting.message, now));
        self.encoded(delivery, encoded, token, bytes, place);
        Ok(Accepted::Pending)
    }

    /// The message, to be kept.
    #[inline]
    fn take(&mut self, offered: Offered<'_>) -> Message {
        match offered {
            // One alone is not worth a block.
            Offered::Lent(message) if self.outbound.is_idle() => message.clone(),
            Offered::Lent(message) => Message {
                topic_name: message.topic_name.clone(),
                payload: self.blocks.keep(&message.payload),
                qos: message.qos,
                retain: message.retain,
                properties: message.properties.clone(),
            },
            Offered::Given(message) => std::mem::replace(message, Message::empty()),
        }
    }

    /// A message of an earlier program.
    pub(super) fn restored(&mut self, place: u64, since: Instant, message: Message) -> Waiting {
        let waiting = Waiting { message, token: None, since, place };
        self.waiting_bytes += waiting.bytes();
        waiting
    }

    /// Whether one more message is taken to wait.
    pub fn has_room(&self) -> bool {
        self.outbound.queue_len().max(self.kept()) < self.settings.queue_messages_max.max(1)
            && self.waiting_bytes < self.settings.queue_bytes_max.max(1)
    }

    /// Messages that the broker has not acknowledged, or that have not been sent.
    pub fn unsettled(&self) -> usize {
        self.outbound.inflight_len() + self.outbound.queue_len()
    }

    /// A mark behind all messages that were taken so far, for [`Machine::is_settled`].
    pub fn mark(&self) -> u64 {
        self.outbound.next_order()
    }

    /// Whether all messages that were taken before this mark are acknowledged, or sent at QoS 0.
    pub fn is_settled(&self, mark: u64) -> bool {
        self.outbound.oldest_order().is_none_or(|oldest| oldest >= mark)
    }

    fn window(&self) -> u16 {
        self.limits.receive_maximum.min(self.settings.inflight_maximum).get().min(INFLIGHT_MAX)
    }

    /// What can be known without a connection.
    pub(super) fn check(&self, message: &Message) -> Result<(), PublishError> {
        if !valid_topic_name(&message.topic_name) || message.topic_name.len() > STRING_BYTES_MAX {
            return Err(PublishError::TopicName);
        }
        if !message.properties.is_empty() {
            if !self.version().is_v5() {
                return Err(PublishError::PropertiesNeedV5);
            }
            if !message.properties.fit() {
                return Err(PublishError::PropertyTooLong);
            }
            if !message.properties.well_formed() {
                return Err(PublishError::PropertyMalformed);
            }
        }
        let bytes = message_bytes(message) + 2 + 2 + FIXED_HEADER_BYTES_MAX;
        if bytes > VARIABLE_BYTE_INTEGER_MAX as usize {
            return Err(PublishError::PacketTooLarge {
                bytes: bytes as u64,
                maximum: u64::from(VARIABLE_BYTE_INTEGER_MAX),
            });
        }
        Ok(())
    }

    /// Encodes what may go out, while there is room in the output.
    pub(super) fn pump(&mut self, now: Instant) {
        if self.phase != Phase::Open || self.outbound.is_all_sent() {
            return;
        }
        let window = self.window();
        self.make_room_in_output(window);
        while self.output.len() < self.settings.output_bytes_max() {
            let Self { settings, limits, sent_aliases, output, outbound, .. } = self;
            match outbound.next_in_place(window, |_| true) {
                Some(Send::Publish(delivery, waiting)) => {
                    let mut encoder = Encoder { version: settings.version, limits, sent_aliases, output };
                    let encoded = encoder
                        .check_limits(&waiting.message)
                        .and_then(|()| encoder.encode(now, delivery, &waiting.message, waiting.since));
                    let (token, bytes, place) = (waiting.token, waiting.bytes(), waiting.place);
                    if encoded.is_ok() && matches!(waiting, Place::Kept(_)) {
                        self.record_sent(place, delivery);
                        continue;
                    }
                    drop(waiting);
                    self.encoded(delivery, encoded, token, bytes, place);
                }
                Some(Send::PubRel(packet_id)) => {
                    self.acknowledge_with(AcknowledgementKind::PubRel, packet_id, ReasonCode::Success);
                }
                None => break,
            }
        }
    }

    /// Room for all messages that may go out now, so that the output need not grow with each.
    fn make_room_in_output(&mut self, window: u16) {
        let free = usize::from(window).saturating_sub(self.outbound.inflight_len());
        let fresh = self.outbound.queue_len().min(free);
        if fresh > 1 {
            let typical = self.waiting_bytes / self.unsettled() + PACKET_OVERHEAD_BYTES_MAX;
            let room = self.settings.output_bytes_max().saturating_sub(self.output.len());
            self.output.reserve(fresh.saturating_mul(typical).min(room));
        }
    }

    /// A message from `outbound` has been encoded, or is not sent after all.
    #[inline]
    fn encoded(
        &mut self,
        delivery: Delivery,
        encoded: Result<(), PublishError>,
        token: Option<Token>,
        bytes: usize,
        place: u64,
    ) {
        if encoded.is_ok() && delivery != Delivery::AtMostOnce {
            return self.record_sent(place, delivery);
        }
        self.waiting_bytes -= bytes;
        if encoded.is_err() {
            if let Some(packet_id) = delivery.packet_id() {
                self.outbound.abandon(packet_id);
            }
            self.record_settled(place);
        }
        self.settle(token, encoded.map(|()| Published::SUCCESS));
    }

    fn encoder(&mut self) -> Encoder<'_> {
        Encoder {
            version: self.settings.version,
            limits: &self.limits,
            sent_aliases: &mut self.sent_aliases,
            output: &mut self.output,
        }
    }

    fn settle(&mut self, token: Option<Token>, outcome: Result<Published, PublishError>) {
        if let Some(token) = token {
            self.events.push_back(Event::Published { token, outcome });
        }
    }

    pub(super) fn acknowledge_with(&mut self, kind: AcknowledgementKind, packet_id: PacketId, reason_code: ReasonCode) {
        Acknowledgement::new(kind, packet_id, reason_code).encode(self.settings.version, &mut self.output);
    }

    pub(super) fn handle_acknowledgement(
        &mut self,
        acknowledgement: &Acknowledgement<'_>,
    ) -> Result<(), ConnectionError> {
        let packet_id = acknowledgement.packet_id;
        let refused = acknowledgement.reason_code.is_error();
        let unexpected = |_| ConnectionError::Protocol(Violation::Acknowledgement);
        match acknowledgement.kind {
            AcknowledgementKind::PubAck => match self.outbound.pub_ack(packet_id) {
                // It may answer what was sent before a Session was lost.
                Err(AckError::Unknown) => {}
                Err(AckError::Unexpected(stage)) => return Err(unexpected(stage)),
                Ok(Acknowledged::Settled(waiting) | Acknowledged::Release(waiting)) => {
                    self.settle_message(waiting, acknowledgement);
                }
            },
            AcknowledgementKind::PubRec => match self.outbound.pub_rec(packet_id, refused) {
                Err(AckError::Unknown) => {
                    let code = ReasonCode::PacketIdentifierNotFound;
                    self.acknowledge_with(AcknowledgementKind::PubRel, packet_id, code);
                }
                Err(AckError::Unexpected(stage)) => return Err(unexpected(stage)),
                Ok(Acknowledged::Settled(waiting)) => self.settle_message(waiting, acknowledgement),
                Ok(Acknowledged::Release(first)) => {
                    if let Some(waiting) = first {
                        self.waiting_bytes -= waiting.bytes();
                        self.record_answered(waiting.place, packet_id);
                        let Waiting { token, place, .. } = waiting;
                        self.releasing.push_back(Releasing { packet_id, token, place });
                    }
                    self.acknowledge_with(AcknowledgementKind::PubRel, packet_id, ReasonCode::Success);
                }
            },
            AcknowledgementKind::PubComp => match self.outbound.pub_comp(packet_id) {
                Err(AckError::Unknown) => {}
                Err(AckError::Unexpected(stage)) => return Err(unexpected(stage)),
                Ok(_) => {
                    // That the broker does not know the identifier any more (0x92) says that it was done with it before.
                    if let Some(over) = take_releasing(&mut self.releasing, packet_id) {
                        self.record_settled(over.place);
                        self.settle(over.token, Ok(Published::SUCCESS));
                    }
                }
            },
            AcknowledgementKind::PubRel => return self.handle_release(packet_id),
        }
        Ok(())
    }

    fn settle_message(&mut self, waiting: Option<Waiting>, acknowledgement: &Acknowledgement<'_>) {
        let Some(waiting) = waiting else { return };
        self.waiting_bytes -= waiting.bytes();
        self.record_settled(waiting.place);
        if waiting.token.is_none() {
            return;
        }
        let reason_code = acknowledgement.reason_code;
        let details = Details::of(acknowledgement.reason_string, &acknowledgement.user_properties);
        let outcome = if reason_code.is_error() {
            Err(PublishError::Refused(Box::new(Refusal { reason_code, details })))
        } else {
            Ok(Published { reason_code, details: (!details.is_empty()).then(|| Box::new(details)) })
        };
        self.settle(waiting.token, outcome);
    }
}

/// What it takes to encode a message, apart from where messages are kept.
struct Encoder<'m> {
    version: ProtocolVersion,
    limits: &'m ServerLimits,
    sent_aliases: &'m mut SentAliases,
    output: &'m mut Vec<u8>,
}

impl Encoder<'_> {
    /// What CONNACK forbids.
    #[inline]
    fn check_limits(&self, message: &Message) -> Result<(), PublishError> {
        let limits = self.limits;
        let plain = message.qos <= limits.maximum_qos && !message.retain && message.properties.is_empty();
        let maximum = limits.maximum_packet_size.map_or(usize::MAX, |maximum| maximum.get() as usize);
        if plain && message_bytes(message) + PACKET_OVERHEAD_BYTES_MAX <= maximum {
            return Ok(());
        }
        self.check_all_limits(message)
    }

    fn check_all_limits(&self, message: &Message) -> Result<(), PublishError> {
        if message.qos > self.limits.maximum_qos {
            return Err(PublishError::QosUnsupported { maximum: self.limits.maximum_qos });
        }
        if message.retain && !self.limits.retain_available {
            return Err(PublishError::RetainUnsupported);
        }
        let form = outgoing(message, some_delivery(message.qos));
        if form.topic_alias.is_some_and(|alias| alias.get() > self.limits.topic_alias_maximum) {
            return Err(PublishError::TopicAlias { maximum: self.limits.topic_alias_maximum });
        }
        if let Some(maximum) = self.limits.maximum_packet_size {
            let bytes = form.packet_bytes(self.version, message.payload.len());
            if bytes > maximum.get() as usize {
                return Err(PublishError::PacketTooLarge { bytes: bytes as u64, maximum: u64::from(maximum.get()) });
            }
        }
        Ok(())
    }

    /// Appends the PUBLISH of a message that has waited from `since` on.
    fn encode(
        &mut self,
        now: Instant,
        delivery: Delivery,
        message: &Message,
        since: Instant,
    ) -> Result<(), PublishError> {
        let version = self.version;
        let mut form = outgoing(message, delivery);
        if let Some(interval) = form.message_expiry_interval {
            let waited = u32::try_from(now.0.saturating_sub(since.0) / 1_000).unwrap_or(u32::MAX);
            // One that has been sent before must go on, or its exchange would never end.
            let again =
                matches!(delivery, Delivery::AtLeastOnce { dup: true, .. } | Delivery::ExactlyOnce { dup: true, .. });
            if waited >= interval && waited > 0 && !again {
                return Err(PublishError::Expired);
            }
            form.message_expiry_interval = Some(interval.saturating_sub(waited));
        }
        if let Some(alias) = form.topic_alias {
            if let SentAlias::Known(_) = self.sent_aliases.choose(alias, &message.topic_name) {
                form.topic_name = "";
            }
        } else if version.is_v5()
            && self.limits.topic_alias_maximum > 0
            && message.topic_name.len() >= ALIAS_TOPIC_BYTES_MIN
        {
            let maximum = self.limits.maximum_packet_size.map_or(u32::MAX, u32::from) as usize;
            if message_bytes(message) + PACKET_OVERHEAD_BYTES_MAX <= maximum
                || form.packet_bytes(version, message.payload.len()) + ALIAS_BYTES_MAX <= maximum
            {
                match self.sent_aliases.alias(&message.topic_name) {
                    Some(SentAlias::Known(alias)) => {
                        form.topic_name = "";
                        form.topic_alias = Some(alias);
                    }
                    Some(SentAlias::New(alias)) => form.topic_alias = Some(alias),
                    None => {}
                }
            }
        }
        self.output.reserve(message_bytes(message) + PACKET_OVERHEAD_BYTES_MAX);
        form.encode_header(version, message.payload.len(), self.output);
        self.output.extend_from_slice(&message.payload);
        Ok(())
    }
}

fn some_delivery(qos: QoS) -> Delivery {
    let (packet_id, dup) = (PacketId::FIRST, false);
    match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
        QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
    }
}

/// The packet of a message, with no alias but one that it asks for.
#[inline]
fn outgoing(message: &Message, delivery: Delivery) -> Outgoing<'_> {
    let properties = match message.properties.section() {
        // Most messages have none.
        [] => PublishProperties::default(),
        section => PublishProperties::new(section).unwrap_or_default(),
    };
    Outgoing {
        delivery,
        retain: message.retain,
        topic_name: &message.topic_name,
        properties: properties.forward(),
        message_expiry_interval: properties.message_expiry_interval,
        topic_alias: properties.topic_alias,
        subscription_identifiers: &[],
    }
}
