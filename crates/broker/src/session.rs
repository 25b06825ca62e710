//! One Session: what the broker remembers of a client, connected or not.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use pantala_proto::{PacketId, QoS, SubscriptionOptions};
use pantala_session::{Inbound, Instant, Outbound};
use pantala_store::SessionNumber;

use crate::access::Access;
use crate::identity::Principal;
use crate::maybe_instant::MaybeInstant;
use crate::message::{Message, Queued, qos_from};
use crate::replay::Replay;
use crate::shared::Member;
use crate::subscriptions::Subscriptions;
use crate::timers::TimerId;
use crate::{ConnectionKey, Proof, SecurityId, WorkerId};

/// One of the Sessions of a worker. Used again when the Session has ended; `generation` tells them apart.
pub(crate) type SessionKey = u32;

/// A Session that never expires.
pub(crate) const NEVER: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client_id: Box<str>,
    pub(crate) generation: u32,
    /// Its connection, if the client is there.
    pub(crate) connection: Option<ConnectionKey>,
    /// Seconds it outlives its connection; [`NEVER`] is for ever.
    pub(crate) expiry_interval: u32,
    /// The store's name for it, if that knows of it: then it has to learn of all that the Session promises.
    pub(crate) number: Option<SessionNumber>,
    /// When it ends, while the client is away.
    pub(crate) expires_at: MaybeInstant,
    /// For its end or its Will, while the client is away.
    pub(crate) timer: Option<TimerId>,
    pub(crate) will: Option<Box<Will>>,
    /// Boxed, as few of those that are idle have ever been owed anything.
    pub(crate) owed: Option<Box<Owed>>,
    /// Boxed, as few clients publish with QoS 2.
    pub(crate) received: Option<Box<Received>>,
    pub(crate) subscriptions: Subscriptions,
    /// How many of the subscriptions are shared.
    pub(crate) shared_subscriptions: u32,
    pub(crate) replays: Option<Box<VecDeque<Replay>>>,
    /// The routing that last met this Session, and where it stands in the list of matches: for merging overlapping
    /// subscriptions.
    pub(crate) match_epoch: u32,
    pub(crate) match_index: u32,
    /// What its client may do. Changed by [`Core::set_access`](crate::Core) alone.
    pub(crate) access: Access,
    /// The security domain that `principal` is of.
    pub(crate) security: SecurityId,
    /// Who its client is, if it is anybody: the Session belongs to that user.
    pub(crate) principal: Option<Box<Principal>>,
    /// How it is known who its client is.
    pub(crate) proof: Proof,
    /// It is from before the last start, and its client has not come back: what that may do is not known.
    pub(crate) restored: bool,
}

/// What a client is still to get, or to acknowledge.
#[derive(Debug)]
pub(crate) struct Owed {
    /// Exchanges that are open, and the queue behind them.
    pub(crate) exchanges: Outbound<Queued>,
    /// Bytes of the messages whose exchange is open.
    pub(crate) inflight_bytes: u64,
    /// Bytes of the messages in the queue.
    pub(crate) queued_bytes: u64,
    /// Messages at the front of the queue whose bytes are in the store only, or cannot be.
    pub(crate) evicted: u32,
    /// No queued message expires before this: a full queue is not searched in vain for what has.
    pub(crate) queue_expires_at: Instant,
}

impl Default for Owed {
    fn default() -> Self {
        Self {
            exchanges: Outbound::default(),
            inflight_bytes: 0,
            queued_bytes: 0,
            evicted: 0,
            queue_expires_at: Instant(u64::MAX),
        }
    }
}

/// The QoS 2 exchanges that are open with the client as their sender.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) open: Inbound,
    /// Those of them that the store does not know of, as their messages are kept in memory only.
    unrecorded: Inbound,
}

/// A message to be published should the client vanish.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// Its life begins when it is published.
    pub(crate) message_expiry_interval: Option<u32>,
    pub(crate) delay_interval: u32,
    /// When it goes out, while the client is away.
    pub(crate) due: MaybeInstant,
    /// The store's name for a Session that ends with its connection, of which the store has to know this alone: its Will is not to
    /// be lost with the process.
    pub(crate) number: Option<SessionNumber>,
}

impl Will {
    /// As the store has it.
    pub(crate) fn to_store(&self) -> pantala_store::Will<'_> {
        pantala_store::Will {
            message: self.message.incoming().to_store(),
            message_expiry_interval: self.message_expiry_interval,
            delay_interval: self.delay_interval,
        }
    }
}

/// What a subscription grants: what routing has to know, and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<NonZeroU32>,
}

impl Grant {
    pub(crate) fn new(options: SubscriptionOptions, identifier: Option<NonZeroU32>) -> Self {
        Self {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
        }
    }

    /// As the store writes it: QoS, No Local and Retain As Published where SUBSCRIBE has them.
    pub(crate) fn options(self) -> u8 {
        self.qos as u8 | u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3
    }

    pub(crate) fn from_options(options: u8, identifier: Option<NonZeroU32>) -> Self {
        Self {
            qos: qos_from(options & 3),
            no_local: options & 1 << 2 != 0,
            retain_as_published: options & 1 << 3 != 0,
            identifier,
        }
    }
}

/// A subscription as the Session remembers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscription {
    pub(crate) shared: bool,
    /// The client may not have it any more: the router does not know of it.
    pub(crate) disabled: bool,
    /// Subscription Options as the store writes them: with `identifier` all of the [`Grant`].
    pub(crate) options: u8,
    pub(crate) identifier: Option<NonZeroU32>,
}

impl Subscription {
    pub(crate) fn new(shared: bool, grant: Grant) -> Self {
        Self { shared, disabled: false, options: grant.options(), identifier: grant.identifier }
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant::from_options(self.options, self.identifier)
    }
}

impl Session {
    pub(crate) fn new(client_id: &str, generation: u32) -> Self {
        Self {
            client_id: client_id.into(),
            generation,
            connection: None,
            expiry_interval: 0,
            number: None,
            expires_at: MaybeInstant::NONE,
            timer: None,
            will: None,
            owed: None,
            received: None,
            subscriptions: Subscriptions::default(),
            shared_subscriptions: 0,
            replays: None,
            match_epoch: 0,
            match_index: 0,
            access: Access::default(),
            security: SecurityId::default(),
            principal: None,
            proof: Proof::default(),
            restored: false,
        }
    }

    /// Whether all that is left of it is a Will: it ended with the process, and so did its client's connection.
    pub(crate) fn is_only_will(&self) -> bool {
        self.restored && !self.is_persistent()
    }

    /// Whether it goes on when the connection is gone.
    #[inline]
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry_interval > 0
    }

    /// This Session as a member of a Shared Subscription.
    pub(crate) fn member(&self, worker: WorkerId, key: SessionKey) -> Member {
        Member { worker, session: key, generation: self.generation, number: self.number }
    }

    /// A QoS 2 PUBLISH has arrived that is the first with its Packet Identifier. If it is not `recorded`, the store knows nothing
    /// of it, as its message is kept in memory only.
    pub(crate) fn receive(&mut self, packet_id: PacketId, recorded: bool) {
        let Received { open, unrecorded } = &mut **self.received.get_or_insert_default();
        open.publish(packet_id);
        if !recorded && self.number.is_some() {
            unrecorded.publish(packet_id);
        }
    }

    /// PUBREL has arrived: whether the Packet Identifier was open, and whether the store does not know of it.
    pub(crate) fn release(&mut self, packet_id: PacketId) -> (bool, bool) {
        match &mut self.received {
            Some(received) => (received.open.release(packet_id), received.unrecorded.release(packet_id)),
            None => (false, false),
        }
    }

    /// Whether a QoS 2 exchange with the client as its sender is open.
    pub(crate) fn has_received(&self, packet_id: PacketId) -> bool {
        self.received.as_ref().is_some_and(|received| received.open.is_open(packet_id))
    }

    /// How many of them are open.
    pub(crate) fn received_len(&self) -> usize {
        self.received.as_ref().map_or(0, |received| received.open.len())
    }

    /// Whether the store does not know of a Packet Identifier that is open.
    pub(crate) fn is_unrecorded(&self, packet_id: PacketId) -> bool {
        self.received.as_ref().is_some_and(|received| received.unrecorded.is_open(packet_id))
    }

    /// Whether something waits that could not go out before: resends, queued messages, Retained Messages.
    pub(crate) fn has_waiting(&self, window: u16) -> bool {
        self.replays.is_some() || self.owed.as_ref().is_some_and(|owed| !owed.exchanges.can_start(window))
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.owed.as_ref().map_or(0, |owed| owed.exchanges.queue_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be millions of them.
    #[test]
    fn they_are_small() {
        assert_eq!(size_of::<Session>(), 136);
        assert_eq!(size_of::<Queued>(), 80);
        assert_eq!(size_of::<Will>(), 88);
    }
}
