//! What the store held when the broker started.
//!
//! First each worker gets its share, before anything else happens: Sessions, with all they remember, and Retained Messages.
//! Then workers tell each other of their interest, as ever. Messages of Shared Subscriptions that had lost their member
//! come last, when all members are known.

use std::sync::Arc;

use pantala_proto::{PacketId, QoS, TopicFilter};
use pantala_router::RetainedIndex;
use pantala_session::Instant;
use pantala_store::{
    CLOCK_INTERVAL, Durability, KeepRetained, LoadError, MessageId, Orphan, Recovered, RecoveredMessage,
    RecoveredOwner, RecoveredRetained, RecoveredSession, RecoveredWill, Store,
};

use crate::core::{Core, Target, Timer};
use crate::identity::Principal;
use crate::maybe_instant::MaybeInstant;
use crate::message::{Body, Identifiers, Incoming, Message, Queued, Stored, qos_from};
use crate::owner;
use crate::publisher::security_named;
use crate::replay::{Retained, SWEEP_SECONDS};
use crate::session::{Grant, NEVER, SessionKey, Subscription, Will};

/// After a start Wills wait this long at the least for their clients: whoever comes back in time never was away.
const WILL_GRACE_SECONDS: u32 = 10;

/// A Retained Message of the store, as the broker keeps it.
#[derive(Debug)]
pub struct RetainedMessage {
    topic_name: Box<str>,
    message: Arc<Message>,
}

impl AsRef<str> for RetainedMessage {
    fn as_ref(&self) -> &str {
        &self.topic_name
    }
}

impl KeepRetained for RetainedMessage {
    fn keep(id: MessageId, message: &pantala_store::Message<'_>) -> Self {
        let incoming = Incoming::from_store(*message, Some(id));
        Self { topic_name: incoming.topic_name.into(), message: Message::new(&incoming) }
    }
}

/// What belongs to one worker.
#[derive(Debug, Default)]
pub struct Share {
    sessions: Vec<RecoveredSession>,
    retained: Vec<RecoveredRetained<RetainedMessage>>,
    orphans: Vec<Orphan>,
}

/// Divides what was found among so many workers.
pub fn shares(recovered: Recovered<RetainedMessage>, workers: u8) -> Vec<Share> {
    if workers <= 1 {
        let Recovered { sessions, retained, orphans, .. } = recovered;
        return vec![Share { sessions, retained, orphans }];
    }
    let mut shares: Vec<Share> = std::iter::repeat_with(Share::default).take(usize::from(workers)).collect();
    let mut share = |name: &str| usize::from(owner(name, workers).0);
    for session in recovered.sessions {
        shares[share(&session.client_id)].sessions.push(session);
    }
    for retained in recovered.retained {
        shares[share(retained.message.as_ref())].retained.push(retained);
    }
    for orphan in recovered.orphans {
        let home = orphan.receiver.group.as_deref().map_or(0, &mut share);
        shares[home].orphans.push(orphan);
    }
    shares
}

impl<S: Store> Core<S> {
    /// Takes its share, before any client is let in. `stopped` is when the broker ran last; batches for other workers follow.
    /// Returns what is to be given to [`Core::adopt`] when these have been received.
    pub fn restore(&mut self, now: Instant, stopped: Instant, share: Share) -> Vec<Orphan> {
        for session in share.sessions {
            self.restore_session(now, stopped, session);
        }
        self.restore_retained(share.retained);
        if self.retained_expiring > 0 && self.retained_sweep.is_none() {
            self.retained_sweep = Some(pantala_router::Cursor::new());
            self.timers.schedule(now.after_seconds(SWEEP_SECONDS).0, Timer::RetainedSweep);
        }
        self.store.submit();
        share.orphans
    }

    /// Gives messages of Shared Subscriptions that are at home here to other members.
    pub fn adopt(&mut self, now: Instant, orphans: Vec<Orphan>) {
        for Orphan { id, receiver } in orphans {
            let (from, copy) = (receiver.session, receiver.copy());
            match receiver.group.map(|group| (group, self.loaded.get(&self.store, id))) {
                Some((group, Ok(message))) => {
                    self.move_to_another(now, &group, &message.incoming(), Some(from));
                }
                // It stays where it is: the next start may be luckier.
                Some((_, Err(LoadError::Unreadable))) => self.counters.store_read_errors += 1,
                Some((_, Err(LoadError::Damaged))) => {
                    self.counters.dropped_store_damaged += 1;
                    self.record_settled(Some(from), Some((id, copy)), None);
                }
                None => {
                    self.counters.dropped_no_member += 1;
                    self.record_settled(Some(from), Some((id, copy)), None);
                }
            }
        }
        self.store.submit();
    }

    fn restore_retained(&mut self, recovered: Vec<RecoveredRetained<RetainedMessage>>) {
        let has_rules = !self.settings.durability_rules.is_empty();
        let before = self.retained.len();
        let mut expiring = 0;
        // Taken out meanwhile, as what goes into it is looked at on the way.
        let mut index = std::mem::replace(&mut self.retained, RetainedIndex::new(0));
        index.insert_all(recovered.into_iter().map(|RecoveredRetained { message, publisher }| {
            if has_rules && self.level(message.as_ref()) == Some(Durability::Memory) {
                self.totals.retained_before.insert(message.as_ref());
            }
            self.retained_bytes += message.message.payload().len() as u64;
            let publisher = publisher.filter(|_| self.settings.check_retain_source);
            let publisher = publisher.map(|publisher| self.note_recovered_publisher(&publisher));
            let retained = Retained::restored(message.message, publisher);
            expiring += retained.expires();
            (message.topic_name, retained)
        }));
        self.retained = index;
        self.retained_expiring += expiring;
        let more = (self.retained.len() - before) as u32;
        self.totals.retained.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
    }

    fn restore_session(&mut self, now: Instant, stopped: Instant, recovered: RecoveredSession) {
        if self.find_session(&recovered.client_id).is_some() {
            // Its end and the next one's beginning are one record after the other; this is the older one.
            self.counters.dropped_session_ended += recovered.queue.len() as u64;
        }
        let key = self.begin_session(&recovered.client_id);
        // Of a connection that ended with the process it is known that it was there when the clock was last written down; as
        // it may have been there until that was due again, it counts as that long, so that no Session ends too early.
        let ended_with_process = || now.min(stopped.after(CLOCK_INTERVAL));
        let detached_at = recovered.detached_at.map_or_else(ended_with_process, Instant);
        let session = &mut self.sessions[key as usize];
        session.number = Some(recovered.number);
        session.restored = true;
        if let Some(RecoveredOwner { security_domain: domain, user_name }) = recovered.owner {
            session.principal = Some(Box::new(Principal { user_name: Some(user_name), ..Principal::default() }));
            session.security = security_named(&self.settings, &domain);
        }
        session.expiry_interval = recovered.expiry_interval;
        session.expires_at = match recovered.expiry_interval {
            NEVER => MaybeInstant::NONE,
            seconds => detached_at.after_seconds(seconds).into(),
        };
        session.will = recovered.will.map(|will| Box::new(restore_will(&will, now, detached_at)));
        if !session.is_persistent()
            && let Some(will) = &session.will
        {
            // It is there for its Will alone.
            session.expires_at = will.due;
        }
        for packet_id in recovered.inbound.iter().filter_map(|packet_id| PacketId::new(*packet_id)) {
            session.receive(packet_id, true);
        }
        if recovered.detached_at.is_none() {
            // So that it is not taken for the next end of the process as well.
            self.record_session(key, Some(detached_at.0));
        }
        for (filter, options, identifier) in recovered.subscriptions {
            self.restore_subscription(key, &filter, Grant::from_options(options, identifier));
        }
        for exchange in recovered.outbound {
            let Some(packet_id) = PacketId::new(exchange.packet_id) else { continue };
            let (qos, queued) = match exchange.message {
                Some(message) => (qos_from(message.receiver.qos), Some(Self::restore_message(message))),
                None => (QoS::ExactlyOnce, None),
            };
            let session = &mut self.sessions[key as usize];
            let owed = session.owed.get_or_insert_default();
            owed.inflight_bytes += queued.as_ref().map_or(0, |queued| queued.bytes() as u64);
            owed.exchanges.restore(qos, packet_id, exchange.order, queued);
        }
        for message in recovered.queue {
            let (qos, order) = (qos_from(message.receiver.qos), message.receiver.order);
            let queued = Self::restore_message(message);
            let session = &mut self.sessions[key as usize];
            let owed = session.owed.get_or_insert_default();
            owed.queued_bytes += queued.bytes() as u64;
            owed.evicted += 1;
            if let Some(at) = queued.expires_at() {
                owed.queue_expires_at = owed.queue_expires_at.min(at);
            }
            owed.exchanges.restore_queued(qos, order, queued);
        }
        self.arm_session(key);
    }

    fn restore_subscription(&mut self, key: SessionKey, text: &str, grant: Grant) {
        let Ok(filter) = TopicFilter::parse(text) else { return };
        let shared = matches!(filter, TopicFilter::Shared(_));
        let session = &mut self.sessions[key as usize];
        session.subscriptions.insert(text, Subscription::new(shared, grant));
        session.shared_subscriptions += u32::from(shared);
        self.route_subscription(key, text, filter, grant);
    }

    /// Tells the router of a subscription that the Session has; nobody has to be told when it is confirmed.
    pub(crate) fn route_subscription(&mut self, key: SessionKey, text: &str, filter: TopicFilter<'_>, grant: Grant) {
        if matches!(filter, TopicFilter::Shared(_)) {
            self.join(key, text, grant);
        } else {
            self.tree.insert(filter.filter(), Target::Session(key), grant);
            let kept = self.sessions[key as usize].number.is_some();
            self.interest_added(filter.filter(), kept);
        }
    }

    fn restore_message(message: RecoveredMessage) -> Queued {
        let RecoveredMessage { id, bytes, expires_at, receiver } = message;
        let mut identifiers = Identifiers::None;
        receiver.identifiers.iter().for_each(|identifier| identifiers.add(*identifier));
        let group = receiver.group;
        let body = Body::Stored(Stored { id, bytes, expires_at: expires_at.map(Instant).into() });
        Queued { body, retain: receiver.retain, identifiers, group, ready_at: pantala_store::Position::default() }
    }
}

fn restore_will(will: &RecoveredWill, now: Instant, detached_at: Instant) -> Will {
    let due = detached_at.after_seconds(will.delay_interval);
    Will {
        message: Message::alone(&Incoming::from_store(will.message.message(), will.message.id)),
        message_expiry_interval: will.message_expiry_interval,
        delay_interval: will.delay_interval,
        due: due.max(now.after_seconds(WILL_GRACE_SECONDS)).into(),
        number: None,
    }
}
