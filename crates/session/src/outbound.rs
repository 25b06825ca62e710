//! Messages on their way to the peer: QoS 1 and 2 exchanges, Packet Identifiers, quota, resends, and the queue.
//!
//! ```text
//!               QoS 1              PUBACK
//!            ┌────────► AwaitPubAck ──────────────────────────────────────┐
//!   queue ───┤                                                            ├──► settled
//!            └────────► AwaitPubRec ─────────► AwaitPubComp ──────────────┤
//!               QoS 2       │        PUBREC                   PUBCOMP     │
//!                           └─────────────────────────────────────────────┘
//!                              PUBREC of 0x80 or above
//! ```

use std::collections::VecDeque;

use pantala_proto::{Delivery, PacketId, QoS};

/// What an exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A QoS 1 PUBLISH waits for PUBACK.
    AwaitPubAck,
    /// A QoS 2 PUBLISH waits for PUBREC.
    AwaitPubRec,
    /// A PUBREL waits for PUBCOMP.
    AwaitPubComp,
}

#[derive(Debug, Clone)]
struct Exchange<M> {
    packet_id: PacketId,
    stage: Stage,
    /// It has been sent on an earlier connection: DUP (v5 MQTT-3.3.1-1).
    dup: bool,
    /// Its place among all messages that came for the peer.
    order: u64,
    /// Gone once PUBREC has come.
    message: Option<M>,
}

/// Packet Identifiers that are in use for other things than messages: at a client, for SUBSCRIBE and UNSUBSCRIBE, which
/// share the numbers with PUBLISH (v5 MQTT-2.2.1-3). A server has none of those: `()`, which costs nothing.
pub trait OtherPacketIds: Default {
    /// Whether something else has this number.
    fn contain(&self, packet_id: PacketId) -> bool;
}

impl OtherPacketIds for () {
    #[inline]
    fn contain(&self, _: PacketId) -> bool {
        false
    }
}

impl OtherPacketIds for Vec<PacketId> {
    #[inline]
    fn contain(&self, packet_id: PacketId) -> bool {
        !self.is_empty() && self.contains(&packet_id)
    }
}

/// Outgoing half of a Session. `M` is a handle to a message and whatever goes with it; it should be cheap to clone.
///
/// Invariants: `sent <= inflight.len()`; the first `sent` exchanges have been sent on the present connection, those
/// after them have not; Packet Identifiers in `inflight` are distinct.
#[derive(Debug, Clone)]
pub struct Outbound<M, O = ()> {
    /// In the order of their first sending.
    inflight: VecDeque<Exchange<M>>,
    sent: usize,
    /// In the order in which they came, each with its place.
    queue: VecDeque<(QoS, u64, M)>,
    next_packet_id: PacketId,
    /// Packet Identifiers have gone round since `inflight` was last empty, so the next may be in use.
    wrapped: bool,
    next_order: u64,
    others: O,
}

/// A packet to send now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Send<M> {
    /// PUBLISH.
    Publish(Delivery, M),
    /// PUBREL, again, after a reconnect.
    PubRel(PacketId),
}

/// A message that is to be sent.
#[derive(Debug)]
pub enum Place<'m, M> {
    /// It stays until it is acknowledged.
    Kept(&'m M),
    /// It is done with once it is sent.
    Last(M),
}

impl<M> std::ops::Deref for Place<'_, M> {
    type Target = M;

    fn deref(&self) -> &M {
        match self {
            Self::Kept(message) => message,
            Self::Last(message) => message,
        }
    }
}

/// What an acknowledgement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged<M> {
    /// The exchange is over, a slot is free. The message, if it was still held.
    Settled(Option<M>),
    /// PUBREC: answer with PUBREL. The message if this is the first PUBREC.
    Release(Option<M>),
}

/// Why an acknowledgement did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckError {
    /// No exchange has this Packet Identifier.
    Unknown,
    /// The exchange waits for another packet: a Protocol Error.
    Unexpected(Stage),
}

impl<M, O: Default> Default for Outbound<M, O> {
    fn default() -> Self {
        Self {
            inflight: VecDeque::new(),
            sent: 0,
            queue: VecDeque::new(),
            next_packet_id: PacketId::FIRST,
            wrapped: false,
            next_order: 1,
            others: O::default(),
        }
    }
}

impl<M: Clone, O: OtherPacketIds> Outbound<M, O> {
    /// Whether a new QoS 1 or 2 message may go out at once, with at most `window` unacknowledged: nothing waits before it.
    #[inline]
    pub fn can_start(&self, window: u16) -> bool {
        self.is_all_sent() && self.sent < usize::from(window)
    }

    /// Begins the exchange of a message that goes out now. Call only if [`Outbound::can_start`].
    #[inline]
    pub fn start(&mut self, qos: QoS, message: M) -> Delivery {
        debug_assert_eq!(self.sent, self.inflight.len());
        let delivery = self.admit(qos, message);
        self.sent += 1;
        delivery
    }

    /// As [`Outbound::start`], with the message where it is kept.
    #[inline]
    pub fn start_in_place(&mut self, qos: QoS, message: M) -> (Delivery, Option<&M>) {
        let delivery = self.start(qos, message);
        (delivery, self.inflight.back().and_then(|exchange| exchange.message.as_ref()))
    }

    /// Begins the exchange of a message that goes out by [`Outbound::next`] later: what comes after it waits behind it.
    #[inline]
    pub fn admit(&mut self, qos: QoS, message: M) -> Delivery {
        let order = self.take_order();
        self.admit_at(order, qos, message)
    }

    fn take_order(&mut self) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        order
    }

    #[inline]
    fn admit_at(&mut self, order: u64, qos: QoS, message: M) -> Delivery {
        let packet_id = self.take_packet_id();
        let stage = if qos == QoS::ExactlyOnce { Stage::AwaitPubRec } else { Stage::AwaitPubAck };
        self.inflight.push_back(Exchange { packet_id, stage, dup: false, order, message: Some(message) });
        delivery(stage, packet_id, false)
    }

    /// Begins the exchanges of messages at the front of the queue that `wanted` wants, as many as `window` has room for;
    /// they go out by [`Outbound::next`] later. `begun` gets each with its Packet Identifier and its place.
    pub fn admit_queued(
        &mut self,
        window: u16,
        wanted: impl Fn(QoS, &M) -> bool,
        mut begun: impl FnMut(PacketId, u64, &mut M),
    ) {
        while self.inflight.len() - self.uncounted() < usize::from(window)
            && self.queue.front().is_some_and(|(qos, _, message)| *qos != QoS::AtMostOnce && wanted(*qos, message))
        {
            let Some((qos, order, message)) = self.queue.pop_front() else { return };
            self.admit_at(order, qos, message);
            if let Some(Exchange { packet_id, order, message: Some(message), .. }) = self.inflight.back_mut() {
                begun(*packet_id, *order, message);
            }
        }
    }

    /// Puts an exchange of an earlier process at the end of those that are open: it counts as sent on an earlier
    /// connection. A message belongs to QoS 1 or to a QoS 2 one that no PUBREC has answered.
    pub fn restore(&mut self, qos: QoS, packet_id: PacketId, order: u64, message: Option<M>) {
        let stage = match (&message, qos) {
            (None, _) => Stage::AwaitPubComp,
            (Some(_), QoS::ExactlyOnce) => Stage::AwaitPubRec,
            (Some(_), _) => Stage::AwaitPubAck,
        };
        let dup = !mutant!(DupForgotten);
        self.inflight.push_back(Exchange { packet_id, stage, dup, order, message });
        self.next_order = self.next_order.max(order.saturating_add(1));
        if mutant!(PacketIdReused) {
            return;
        }
        // Which identifiers are free is not known by counting any more.
        self.next_packet_id = packet_id.following();
        self.wrapped = true;
    }

    /// Puts a message of an earlier process at the end of the queue.
    pub fn restore_queued(&mut self, qos: QoS, order: u64, message: M) {
        self.queue.push_back((qos, order, message));
        self.next_order = self.next_order.max(order.saturating_add(1));
    }

    /// The place of the exchange with this Packet Identifier: from 1, larger for what came later.
    pub fn order(&self, packet_id: PacketId) -> Option<u64> {
        let mut latest_first = self.inflight.iter().rev();
        latest_first.find(|exchange| exchange.packet_id == packet_id).map(|exchange| exchange.order)
    }

    /// The message of the exchange with this Packet Identifier.
    pub fn message_mut(&mut self, packet_id: PacketId) -> Option<&mut M> {
        let mut latest_first = self.inflight.iter_mut().rev();
        latest_first.find(|exchange| exchange.packet_id == packet_id)?.message.as_mut()
    }

    /// Puts a message at the end of the queue. Returns its place among all that came for the peer.
    pub fn enqueue(&mut self, qos: QoS, message: M) -> u64 {
        let order = self.take_order();
        self.queue.push_back((qos, order, message));
        order
    }

    /// The next packet that may go out with at most `window` exchanges unacknowledged on this connection: first what an
    /// earlier connection left open, in its order (v5 MQTT-4.4.0-1, MQTT-4.6.0-1), then the queue.
    ///
    /// None, too, if `ready` says that the message which is next must not go out yet.
    #[inline]
    pub fn next(&mut self, window: u16, ready: impl FnOnce(&M) -> bool) -> Option<Send<M>> {
        self.next_in_place(window, ready).map(|send| match send {
            Send::Publish(delivery, Place::Kept(message)) => Send::Publish(delivery, message.clone()),
            Send::Publish(delivery, Place::Last(message)) => Send::Publish(delivery, message),
            Send::PubRel(packet_id) => Send::PubRel(packet_id),
        })
    }

    /// As [`Outbound::next`], without a clone of what is kept.
    #[inline]
    pub fn next_in_place(&mut self, window: u16, ready: impl FnOnce(&M) -> bool) -> Option<Send<Place<'_, M>>> {
        if self.sent < self.inflight.len() {
            if self.sent >= usize::from(window) {
                return None;
            }
            let exchange = &self.inflight[self.sent];
            if exchange.message.as_ref().is_some_and(|message| !ready(message)) {
                return None;
            }
            self.sent += 1;
            return Some(match &exchange.message {
                Some(message) => {
                    Send::Publish(delivery(exchange.stage, exchange.packet_id, exchange.dup), Place::Kept(message))
                }
                None => Send::PubRel(exchange.packet_id),
            });
        }
        let (qos, ..) = self.queue.front()?;
        if *qos != QoS::AtMostOnce && self.sent - self.uncounted() >= usize::from(window) {
            return None;
        }
        let (qos, order, message) = self.queue.pop_front()?;
        if qos == QoS::AtMostOnce {
            return Some(Send::Publish(Delivery::AtMostOnce, Place::Last(message)));
        }
        let delivery = self.admit_at(order, qos, message);
        self.sent += 1;
        let message = self.inflight.back()?.message.as_ref()?;
        Some(Send::Publish(delivery, Place::Kept(message)))
    }

    /// The packet with this identifier, just taken from [`Outbound::next`] or [`Outbound::start`], was not sent after
    /// all (it is too large for the peer, or has expired): it counts as delivered (v5 MQTT-3.1.2-25).
    pub fn abandon(&mut self, packet_id: PacketId) {
        if let Some(at) = self.find(packet_id) {
            self.remove(at);
        }
    }

    /// PUBACK has arrived.
    ///
    /// # Errors
    /// See [`AckError`].
    #[inline]
    pub fn pub_ack(&mut self, packet_id: PacketId) -> Result<Acknowledged<M>, AckError> {
        let at = self.find(packet_id).ok_or(AckError::Unknown)?;
        match self.inflight[at].stage {
            Stage::AwaitPubAck => Ok(Acknowledged::Settled(self.remove(at))),
            stage => Err(AckError::Unexpected(stage)),
        }
    }

    /// PUBREC has arrived; `refused` if its Reason Code is 0x80 or above, which settles the message (v5 MQTT-4.4.0-2).
    ///
    /// # Errors
    /// See [`AckError`].
    pub fn pub_rec(&mut self, packet_id: PacketId, refused: bool) -> Result<Acknowledged<M>, AckError> {
        let at = self.find(packet_id).ok_or(AckError::Unknown)?;
        let exchange = &mut self.inflight[at];
        match exchange.stage {
            Stage::AwaitPubRec if refused => Ok(Acknowledged::Settled(self.remove(at))),
            Stage::AwaitPubRec | Stage::AwaitPubComp => {
                exchange.stage = Stage::AwaitPubComp;
                Ok(Acknowledged::Release(exchange.message.take()))
            }
            stage @ Stage::AwaitPubAck => Err(AckError::Unexpected(stage)),
        }
    }

    /// PUBCOMP has arrived.
    ///
    /// # Errors
    /// See [`AckError`].
    pub fn pub_comp(&mut self, packet_id: PacketId) -> Result<Acknowledged<M>, AckError> {
        let at = self.find(packet_id).ok_or(AckError::Unknown)?;
        match self.inflight[at].stage {
            Stage::AwaitPubComp => Ok(Acknowledged::Settled(self.remove(at))),
            stage => Err(AckError::Unexpected(stage)),
        }
    }

    /// The connection is gone: on the next one all open exchanges are sent again, with DUP.
    pub fn connection_lost(&mut self) {
        for exchange in self.inflight.iter_mut().take(self.sent) {
            exchange.dup = !mutant!(DupForgotten);
        }
        if mutant!(ReorderOnResume) {
            self.inflight.make_contiguous().reverse();
        }
        self.sent = 0;
    }

    /// The peer has lost the Session: exchanges that no PUBREC has answered begin anew, as new messages at the front of the
    /// queue and in their order. `over` gets those that wait for PUBCOMP: their messages had arrived.
    pub fn session_lost(&mut self, mut over: impl FnMut(PacketId)) {
        for exchange in self.inflight.drain(..).rev() {
            match exchange.message {
                Some(message) => {
                    let qos = if exchange.stage == Stage::AwaitPubAck { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                    self.queue.push_front((qos, exchange.order, message));
                }
                None => over(exchange.packet_id),
            }
        }
        self.sent = 0;
        self.wrapped = false;
    }

    /// The message that [`Outbound::next`] sends next, and whether it is one of the queue; None too if that is PUBREL.
    pub fn next_message_mut(&mut self) -> Option<(&mut M, bool)> {
        match self.inflight.get_mut(self.sent) {
            Some(exchange) => exchange.message.as_mut().map(|message| (message, false)),
            None => self.queue.front_mut().map(|(.., message)| (message, true)),
        }
    }

    /// Takes the oldest message of the queue out, to make room.
    pub fn drop_oldest_queued(&mut self) -> Option<(QoS, M)> {
        self.queue.pop_front().map(|(qos, _, message)| (qos, message))
    }

    /// Keeps only the queued messages that `keep` wants, as when some have expired.
    pub fn retain_queued(&mut self, mut keep: impl FnMut(QoS, &M) -> bool) {
        self.queue.retain(|(qos, _, message)| keep(*qos, message));
    }

    /// Whether exchanges of an earlier connection are still to be sent again.
    pub fn has_resends(&self) -> bool {
        self.sent < self.inflight.len()
    }

    /// Open exchanges.
    pub fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// Messages in the queue.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// The place that the next message will have.
    pub fn next_order(&self) -> u64 {
        self.next_order
    }

    /// The place of the oldest message that is open or waits: all places below it are done with.
    pub fn oldest_order(&self) -> Option<u64> {
        // Both are in the order of their places, and what waits came after what is open.
        let open = self.inflight.front().map(|exchange| exchange.order);
        open.or_else(|| self.queue.front().map(|(_, order, _)| *order))
    }

    /// Whether nothing waits to be sent, for the first time or again.
    #[inline]
    pub fn is_all_sent(&self) -> bool {
        self.queue.is_empty() && self.sent == self.inflight.len()
    }

    /// Whether nothing is open and nothing waits.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.inflight.is_empty() && self.queue.is_empty()
    }

    /// The messages of the queue from the one with number `first` on, to be changed in place. Those before it cost nothing.
    pub fn queued_mut(&mut self, first: usize) -> impl DoubleEndedIterator<Item = &mut M> + ExactSizeIterator {
        let first = first.min(self.queue.len());
        self.queue.range_mut(first..).map(|(.., message)| message)
    }

    /// All that is left when the Session ends: open exchanges with their stage, whose message is gone if PUBREC has come,
    /// and the queue.
    pub fn into_rest(self) -> impl Iterator<Item = (Option<(PacketId, Stage)>, Option<M>)> {
        let inflight =
            self.inflight.into_iter().map(|exchange| (Some((exchange.packet_id, exchange.stage)), exchange.message));
        inflight.chain(self.queue.into_iter().map(|(.., message)| (None, Some(message))))
    }

    #[inline]
    fn find(&self, packet_id: PacketId) -> Option<usize> {
        // Acknowledgements come in order, so the first is nearly always the one.
        if self.sent > 0 && self.inflight.front().is_some_and(|exchange| exchange.packet_id == packet_id) {
            return Some(0);
        }
        let sent = self.inflight.iter().take(self.sent);
        sent.enumerate().find_map(|(at, exchange)| (exchange.packet_id == packet_id).then_some(at))
    }

    /// Of the open exchanges, those that do not count against the window: none.
    #[inline]
    fn uncounted(&self) -> usize {
        if mutant!(ReceiveMaximumForgotten) {
            return self.inflight.iter().take(self.sent).filter(|exchange| exchange.dup).count();
        }
        0
    }

    #[inline]
    fn remove(&mut self, at: usize) -> Option<M> {
        // It is nearly always the first.
        let exchange = if at == 0 { self.inflight.pop_front() } else { self.inflight.remove(at) }?;
        if at < self.sent {
            self.sent -= 1;
        }
        if self.inflight.is_empty() {
            self.wrapped = false;
        }
        exchange.message
    }

    /// The Packet Identifiers in use for other things.
    pub fn others_mut(&mut self) -> &mut O {
        &mut self.others
    }

    /// The next Packet Identifier that is not in use (v5 MQTT-2.2.1-4). The caller keeps open exchanges and other uses
    /// together below 65_535, so one is free.
    #[inline]
    pub fn take_packet_id(&mut self) -> PacketId {
        loop {
            let packet_id = self.next_packet_id;
            self.next_packet_id = packet_id.following();
            if self.next_packet_id == PacketId::FIRST {
                self.wrapped = true;
            }
            let open = self.wrapped && self.inflight.iter().any(|exchange| exchange.packet_id == packet_id);
            if !open && !self.others.contain(packet_id) {
                return packet_id;
            }
        }
    }
}

fn delivery(stage: Stage, packet_id: PacketId, dup: bool) -> Delivery {
    match stage {
        Stage::AwaitPubAck => Delivery::AtLeastOnce { packet_id, dup },
        Stage::AwaitPubRec | Stage::AwaitPubComp => Delivery::ExactlyOnce { packet_id, dup },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).unwrap()
    }

    fn publish(qos: u8, number: u16, dup: bool, message: u32) -> Option<Send<u32>> {
        let packet_id = id(number);
        let delivery = match qos {
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce { packet_id, dup },
            _ => Delivery::ExactlyOnce { packet_id, dup },
        };
        Some(Send::Publish(delivery, message))
    }

    #[test]
    fn the_queue_is_changed_from_any_message_on() {
        let mut outbound = Outbound::<_>::default();
        (1..=4).for_each(|message| outbound.restore_queued(QoS::AtLeastOnce, message, message));
        outbound.queued_mut(2).for_each(|message| *message += 10);
        assert_eq!(outbound.queued_mut(9).len(), 0);
        assert_eq!(outbound.queued_mut(0).map(|message| *message).collect::<Vec<_>>(), [1, 2, 13, 14]);
    }

    #[test]
    fn the_oldest_place_is_that_of_what_is_open_and_then_of_what_waits() {
        let mut outbound = Outbound::<_>::default();
        assert_eq!((outbound.oldest_order(), outbound.next_order()), (None, 1));
        outbound.start(QoS::AtLeastOnce, 1);
        outbound.start(QoS::ExactlyOnce, 2);
        outbound.enqueue(QoS::AtMostOnce, 3);
        outbound.enqueue(QoS::AtLeastOnce, 4);
        assert_eq!((outbound.oldest_order(), outbound.next_order()), (Some(1), 5));
        outbound.pub_ack(id(1)).unwrap();
        outbound.pub_rec(id(2), false).unwrap();
        // Until PUBCOMP it is not over, nor when the Session is lost and what is left begins anew.
        assert_eq!(outbound.oldest_order(), Some(2));
        outbound.session_lost(|_| {});
        assert_eq!(outbound.oldest_order(), Some(3));
        assert_eq!(outbound.next(9, |_| true), publish(0, 1, false, 3));
        assert_eq!(outbound.next(9, |_| true), publish(1, 3, false, 4));
        assert_eq!(outbound.oldest_order(), Some(4));
        outbound.connection_lost();
        outbound.session_lost(|_| {});
        assert_eq!((outbound.oldest_order(), outbound.next_order()), (Some(4), 5));
    }

    /// What every packet does to an exchange in every stage.
    #[test]
    fn the_table_of_stages() {
        let mut table = String::new();
        for stage in ["AwaitPubAck", "AwaitPubRec", "AwaitPubComp", "none"] {
            for packet in ["PUBACK", "PUBREC", "PUBREC 0x80", "PUBCOMP", "reconnect"] {
                let mut outbound = Outbound::<_>::default();
                match stage {
                    "AwaitPubAck" => drop(outbound.start(QoS::AtLeastOnce, 7)),
                    "AwaitPubRec" => drop(outbound.start(QoS::ExactlyOnce, 7)),
                    "AwaitPubComp" => {
                        outbound.start(QoS::ExactlyOnce, 7);
                        outbound.pub_rec(id(1), false).unwrap();
                    }
                    _ => {}
                }
                let result = match packet {
                    "PUBACK" => format!("{:?}", outbound.pub_ack(id(1))),
                    "PUBREC" => format!("{:?}", outbound.pub_rec(id(1), false)),
                    "PUBREC 0x80" => format!("{:?}", outbound.pub_rec(id(1), true)),
                    "PUBCOMP" => format!("{:?}", outbound.pub_comp(id(1))),
                    _ => {
                        outbound.connection_lost();
                        format!("{:?}", outbound.next(10, |_| true))
                    }
                };
                let left = outbound.inflight_len();
                table += &format!("{stage:12} | {packet:11} | {result}, {left} inflight\n");
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn the_window_bounds_what_is_unacknowledged() {
        let mut outbound = Outbound::<_>::default();
        for message in 0..4 {
            outbound.enqueue(QoS::AtLeastOnce, message);
        }
        assert_eq!(outbound.next(2, |_| true), publish(1, 1, false, 0));
        assert_eq!(outbound.next(2, |_| true), publish(1, 2, false, 1));
        assert_eq!(outbound.next(2, |_| true), None);
        // The same acknowledgement twice frees one slot.
        assert_eq!(outbound.pub_ack(id(2)), Ok(Acknowledged::Settled(Some(1))));
        assert_eq!(outbound.pub_ack(id(2)), Err(AckError::Unknown));
        assert_eq!(outbound.next(2, |_| true), publish(1, 3, false, 2));
        assert_eq!(outbound.next(2, |_| true), None);
    }

    #[test]
    fn a_reconnect_resends_in_order_with_dup_within_the_new_window() {
        let mut outbound = Outbound::<_>::default();
        outbound.start(QoS::AtLeastOnce, 0);
        outbound.start(QoS::ExactlyOnce, 1);
        outbound.start(QoS::ExactlyOnce, 2);
        outbound.pub_rec(id(2), false).unwrap();
        outbound.enqueue(QoS::AtMostOnce, 3);
        outbound.connection_lost();
        assert_eq!(outbound.next(2, |_| true), publish(1, 1, true, 0));
        assert_eq!(outbound.next(2, |_| true), Some(Send::PubRel(id(2))));
        assert_eq!(outbound.next(2, |_| true), None);
        assert_eq!(outbound.pub_comp(id(2)), Ok(Acknowledged::Settled(None)));
        assert_eq!(outbound.next(2, |_| true), publish(2, 3, true, 2));
        assert_eq!(outbound.next(2, |_| true), publish(0, 1, false, 3));
    }

    #[test]
    fn what_was_never_sent_goes_without_dup() {
        let mut outbound = Outbound::<_>::default();
        outbound.start(QoS::AtLeastOnce, 0);
        outbound.start(QoS::AtLeastOnce, 1);
        outbound.connection_lost();
        // The second connection takes only one at a time, and is lost as well.
        assert_eq!(outbound.next(1, |_| true), publish(1, 1, true, 0));
        outbound.connection_lost();
        assert_eq!(outbound.next(2, |_| true), publish(1, 1, true, 0));
        assert_eq!(outbound.next(2, |_| true), publish(1, 2, true, 1));
    }

    #[test]
    fn identifiers_in_use_are_passed_over_after_going_round() {
        let mut outbound = Outbound::<_>::default();
        outbound.start(QoS::ExactlyOnce, 0);
        for round in 0..2 {
            for number in 2..=u16::MAX {
                let delivery = outbound.start(QoS::AtLeastOnce, 1);
                assert_eq!(delivery.packet_id(), Some(id(number)), "round {round}");
                outbound.pub_ack(id(number)).unwrap();
            }
        }
        assert_eq!(outbound.inflight_len(), 1);
    }

    #[test]
    fn what_is_admitted_waits_until_it_is_ready_and_holds_up_what_follows() {
        let mut outbound = Outbound::<_>::default();
        outbound.admit(QoS::ExactlyOnce, 0);
        assert!(!outbound.can_start(10));
        outbound.enqueue(QoS::AtLeastOnce, 1);
        assert_eq!(outbound.next(10, |_| false), None);
        assert_eq!(outbound.next(10, |_| true), publish(2, 1, false, 0));
        assert_eq!(outbound.next(10, |_| true), publish(1, 2, false, 1));
        assert_eq!((outbound.order(id(1)), outbound.order(id(2)), outbound.order(id(3))), (Some(1), Some(2), None));
    }

    #[test]
    fn a_lost_session_begins_anew_in_order() {
        let mut outbound = Outbound::<_>::default();
        outbound.start(QoS::AtLeastOnce, 0);
        outbound.start(QoS::ExactlyOnce, 1);
        outbound.start(QoS::ExactlyOnce, 2);
        outbound.pub_rec(id(2), false).unwrap();
        outbound.enqueue(QoS::AtLeastOnce, 3);
        outbound.connection_lost();
        let mut over = Vec::new();
        outbound.session_lost(|packet_id| over.push(packet_id));
        assert_eq!(over, [id(2)]);
        assert_eq!(outbound.next(10, |_| true), publish(1, 4, false, 0));
        assert_eq!(outbound.next(10, |_| true), publish(2, 5, false, 2));
        assert_eq!(outbound.next(10, |_| true), publish(1, 6, false, 3));
    }

    #[test]
    fn numbers_of_other_packets_are_passed_over() {
        let mut outbound = Outbound::<u32, Vec<PacketId>>::default();
        let subscribe = outbound.take_packet_id();
        outbound.others_mut().push(subscribe);
        for _ in 2..=u16::MAX {
            let packet_id = outbound.start(QoS::AtLeastOnce, 0).packet_id().unwrap();
            outbound.pub_ack(packet_id).unwrap();
        }
        assert_eq!(outbound.start(QoS::AtLeastOnce, 0).packet_id(), Some(id(2)));
    }

    #[test]
    fn exchanges_of_an_earlier_process_go_on_under_their_identifiers() {
        let mut outbound = Outbound::<_>::default();
        outbound.restore(QoS::ExactlyOnce, id(65_535), 3, Some(0));
        outbound.restore(QoS::ExactlyOnce, id(1), 4, None);
        outbound.restore(QoS::AtLeastOnce, id(2), 5, Some(1));
        outbound.enqueue(QoS::AtLeastOnce, 2);
        assert_eq!(outbound.next(10, |_| true), publish(2, 65_535, true, 0));
        assert_eq!(outbound.next(10, |_| true), Some(Send::PubRel(id(1))));
        assert_eq!(outbound.next(10, |_| true), publish(1, 2, true, 1));
        assert_eq!(outbound.next(10, |_| true), publish(1, 3, false, 2));
        assert_eq!(outbound.order(id(3)), Some(6));
    }

    proptest! {
        /// Whatever is acknowledged, lost and resumed: identifiers are distinct, the window holds, nothing is lost,
        /// and first deliveries are in order.
        #[test]
        fn nothing_is_lost_or_reordered(steps in proptest::collection::vec((0..6_u8, 0..8_usize), 1..300), window in 1..6_u16) {
            let mut outbound = Outbound::<_>::default();
            let mut offered = 0_u32;
            let mut open: Vec<(PacketId, QoS, bool)> = Vec::new();
            let mut first_deliveries = Vec::new();
            let send = |outbound: &mut Outbound<u32>, open: &mut Vec<(PacketId, QoS, bool)>, first: &mut Vec<u32>| {
                while let Some(send) = outbound.next(window, |_| true) {
                    match send {
                        Send::Publish(delivery, message) => {
                            let packet_id = delivery.packet_id().unwrap();
                            assert!(open.iter().all(|(open, ..)| *open != packet_id));
                            open.push((packet_id, delivery.qos(), false));
                            if !first.contains(&message) {
                                first.push(message);
                            }
                        }
                        Send::PubRel(packet_id) => open.push((packet_id, QoS::ExactlyOnce, true)),
                    }
                }
                assert!(open.len() <= usize::from(window));
            };
            for (step, which) in steps {
                match step {
                    0..=2 => {
                        let qos = if step == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                        outbound.enqueue(qos, offered);
                        offered += 1;
                    }
                    3 | 4 if which < open.len() => {
                        let (packet_id, qos, released) = open[which];
                        let settled = match (qos, released) {
                            (QoS::ExactlyOnce, false) => {
                                outbound.pub_rec(packet_id, false).unwrap();
                                open[which].2 = true;
                                false
                            }
                            (QoS::ExactlyOnce, true) => outbound.pub_comp(packet_id).is_ok(),
                            _ => outbound.pub_ack(packet_id).is_ok(),
                        };
                        if settled {
                            open.remove(which);
                        }
                    }
                    5 => {
                        outbound.connection_lost();
                        open.clear();
                    }
                    _ => {}
                }
                send(&mut outbound, &mut open, &mut first_deliveries);
            }
            outbound.connection_lost();
            open.clear();
            loop {
                send(&mut outbound, &mut open, &mut first_deliveries);
                let Some((packet_id, qos, released)) = open.pop() else { break };
                if qos == QoS::ExactlyOnce {
                    if !released {
                        outbound.pub_rec(packet_id, false).unwrap();
                    }
                    outbound.pub_comp(packet_id).unwrap();
                } else {
                    outbound.pub_ack(packet_id).unwrap();
                }
            }
            prop_assert!(outbound.is_idle());
            prop_assert_eq!(first_deliveries, (0..offered).collect::<Vec<_>>());
        }
    }
}
