//! What workers ask of each other, and what they do when they are asked.

use std::sync::Arc;

use pantala_proto::QoS;
use pantala_session::Instant;
use pantala_store::{Record, SessionNumber, Store};

use crate::connection::Answer;
use crate::core::{Core, Interest, Pending, Target, Then};
use crate::mailbox::{Batch, Frame};
use crate::session::{Grant, SessionKey};
use crate::{ConnectionKey, WorkerId, owner};

impl<S: Store> Core<S> {
    pub(crate) fn token(&mut self) -> u32 {
        self.next_token = self.next_token.wrapping_add(1);
        self.next_token
    }

    /// Expects `remaining` confirmations with the token, and then does `then`.
    pub(crate) fn expect(&mut self, remaining: u16, then: Vec<Then>) -> u32 {
        let token = self.token();
        self.pending.insert(token, Pending { remaining, then });
        token
    }

    /// Retained Messages that clients of this worker have written.
    pub(crate) fn written(&self) -> u64 {
        self.writes_seen[usize::from(self.worker.0)]
    }

    pub(crate) fn confirmed(&mut self, from: WorkerId, token: u32, written: u64) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        // A subscription that waits for this worker's word is live from here on.
        for then in &pending.then {
            if let Then::Held { connection, generation, number, replay: Some(replay) } = *then
                && let Some(connection) = self.connections.get_mut(connection as usize)
                && connection.generation == generation
                && let Some(held) = connection.held(number)
                && let Answer::Packet(_, replays) = &mut held.answer
                && let Some(replay) = replays.get_mut(replay as usize)
            {
                replay.announced(token, usize::from(from.0), written);
            }
        }
        pending.remaining = pending.remaining.saturating_sub(1);
        if pending.remaining > 0 {
            return;
        }
        let Some(pending) = self.pending.remove(&token) else { return };
        for then in pending.then {
            match then {
                Then::Confirm { worker, token } => {
                    let frame = Frame::Done { token, written: self.written() };
                    self.outboxes[usize::from(worker.0)].control(frame);
                }
                Then::Flushed { session, generation } => self.flushed(session, generation, token),
                Then::Held { connection, generation, number, .. } => {
                    self.held_confirmed(connection, generation, number);
                }
            }
        }
    }

    pub(crate) fn held_confirmed(&mut self, key: ConnectionKey, generation: u32, number: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.generation != generation {
            return;
        }
        let Some(held) = connection.held(number) else { return };
        held.waiting = held.waiting.saturating_sub(1);
        self.release_held(key);
    }

    /// Counts one more wish for messages of a filter. Returns the token of the announcement that has not been confirmed
    /// by all other workers, if there is one.
    ///
    /// The others have to know, too, whether messages may have to be `kept`: then the store waits for what we find.
    pub(crate) fn interest_added(&mut self, filter: &str, kept: bool) -> Option<u32> {
        if self.workers == 1 {
            return None;
        }
        if let Some(interest) = self.interests.get_mut(filter) {
            interest.count += 1;
            interest.kept += u32::from(kept);
            if !kept || interest.kept > 1 {
                return interest.announcement.filter(|token| self.pending.contains_key(token));
            }
        }
        let token = self.expect(u16::from(self.workers) - 1, Vec::new());
        let first = || Interest { count: 1, kept: u32::from(kept), announcement: None };
        self.interests.entry(filter.into()).or_insert_with(first).announcement = Some(token);
        self.announce_interest(filter, true, kept, Some(token));
        Some(token)
    }

    pub(crate) fn interest_removed(&mut self, filter: &str, kept: bool) {
        if self.workers == 1 {
            return;
        }
        let Some(interest) = self.interests.get_mut(filter) else { return };
        interest.count -= 1;
        interest.kept -= u32::from(kept);
        if interest.count == 0 {
            self.interests.remove(filter);
            self.announce_interest(filter, false, false, None);
        } else if kept && interest.kept == 0 {
            self.announce_interest(filter, true, false, None);
        }
    }

    pub(crate) fn announce_interest(&mut self, filter: &str, wanted: bool, kept: bool, token: Option<u32>) {
        for to in 0..self.workers {
            if to != self.worker.0 {
                self.outboxes[usize::from(to)].control(Frame::Interest { filter: filter.into(), wanted, kept, token });
            }
        }
    }

    /// A Session's client has come or gone: the homes of its groups choose members by that.
    pub(crate) fn announce_presence(&mut self, key: SessionKey, connected: bool) {
        let session = &self.sessions[key as usize];
        if session.shared_subscriptions == 0 {
            return;
        }
        let member = session.member(self.worker, key);
        for (filter, _) in session.subscriptions.iter().filter(|(_, subscription)| subscription.shared) {
            let home = owner(filter, self.workers);
            if home == self.worker {
                self.groups.set_connected(filter, member, connected);
            } else {
                let frame = Frame::Presence { whole_filter: filter.into(), member, connected };
                self.outboxes[usize::from(home.0)].control(frame);
            }
        }
    }

    pub(crate) fn receive_frame(&mut self, now: Instant, from: WorkerId, bytes: &[u8], frame: Frame) {
        match frame {
            Frame::Route { message, written, name_receivers } => {
                self.see(from, written);
                let message = Batch::unpack(bytes, message);
                self.naming_for = message.id.filter(|_| name_receivers);
                self.begin_naming();
                self.route_locally(now, None, &message, crate::access::from_worker());
                self.naming_for = None;
                self.name_receivers_to_store(message.id, name_receivers);
            }
            Frame::Retain { message, written, publisher } => {
                let publisher = publisher.map(|publisher| self.publishers.note(&publisher.described()));
                self.retain(now, &Batch::unpack(bytes, message), from, written, publisher);
                self.record_retained_ended();
            }
            Frame::Deliver { member, grant, group, message } => {
                let message = Batch::unpack(bytes, message);
                self.begin_naming();
                self.deliver_to_member(now, member, grant, &group, &message, true);
                self.record_begun();
            }
            Frame::Redispatch { group, message, from } => {
                self.dispatch(now, &group, &Batch::unpack(bytes, message), from);
            }
            Frame::Interest { filter, wanted, kept, token } => {
                let qos = if kept { QoS::ExactlyOnce } else { QoS::AtMostOnce };
                let grant = Grant { qos, no_local: false, retain_as_published: false, identifier: None };
                if wanted {
                    self.tree.insert(&filter, Target::Worker(from), grant);
                } else {
                    self.tree.remove(&filter, Target::Worker(from));
                }
                if let Some(token) = token {
                    let frame = Frame::Done { token, written: self.written() };
                    self.outboxes[usize::from(from.0)].control(frame);
                }
            }
            Frame::Join { whole_filter, member, grant, access, connected, token } => {
                let announcement = self.join_here(&whole_filter, member, grant, &access, connected);
                let then = Then::Confirm { worker: from, token };
                match announcement.and_then(|announcement| self.pending.get_mut(&announcement)) {
                    Some(pending) => pending.then.push(then),
                    None => {
                        let frame = Frame::Done { token, written: self.written() };
                        self.outboxes[usize::from(from.0)].control(frame);
                    }
                }
            }
            Frame::Leave { whole_filter, member } => self.leave_here(&whole_filter, member),
            Frame::Presence { whole_filter, member, connected } => {
                self.groups.set_connected(&whole_filter, member, connected);
            }
            Frame::Flush { token } => {
                let frame = Frame::Done { token, written: self.written() };
                self.outboxes[usize::from(from.0)].control(frame);
            }
            Frame::Query { token, filter, cursor, cutoffs } => {
                self.answer_query(now, from, token, &filter, *cursor, &cutoffs);
            }
            Frame::Found { token, message } => self.found(now, token, &Batch::unpack(bytes, message)),
            Frame::Answered { token, cursor } => self.answered(now, token, cursor.map(|cursor| *cursor)),
            Frame::Done { token, written } => {
                self.confirmed(from, token, written);
                self.see(from, written);
            }
            Frame::Ask { question, topic_name } => self.asked(now, question, &topic_name),
            Frame::AskMember { question, topic_name, chosen, tries } => {
                self.member_asked(now, question, topic_name, chosen, tries);
            }
            Frame::AskGroup { question, topic_name, group, tries } => {
                self.group_asked(now, question, &topic_name, &group, tries);
            }
            Frame::Reply { connection, token, reply } => self.replied(connection, token, reply),
        }
    }

    /// All that another worker's clients had written until its write number `written` has been matched here, if it was for us.
    pub(crate) fn see(&mut self, from: WorkerId, written: u64) {
        let seen = &mut self.writes_seen[usize::from(from.0)];
        *seen = written.max(*seen);
    }

    /// A member's message for a group: at its home another member is chosen, elsewhere its home is told. `from` is the Session
    /// that the store has it for.
    pub(crate) fn dispatch(
        &mut self,
        now: Instant,
        group: &Arc<str>,
        message: &crate::message::Incoming<'_>,
        from: Option<SessionNumber>,
    ) {
        let home = owner(group, self.workers);
        if home == self.worker {
            return self.move_to_another(now, group, message, from);
        }
        let batch = self.outboxes[usize::from(home.0)].messages();
        let (message, group) = (batch.pack(message), Arc::clone(group));
        batch.frames.push_back(Frame::Redispatch { group, message, from });
    }

    /// Chooses another member of a group at home here for a message.
    pub(crate) fn move_to_another(
        &mut self,
        now: Instant,
        group: &str,
        message: &crate::message::Incoming<'_>,
        from: Option<SessionNumber>,
    ) {
        let mut message = *message;
        let copy = pantala_store::copy_of(Some(group));
        let Some(group) = self.groups.find(group) else {
            self.counters.dropped_no_member += 1;
            return self.record_settled(from, message.id.map(|id| (id, copy)), None);
        };
        match (from, message.id) {
            (Some(from), Some(id)) => {
                self.begin_naming();
                self.dispatch_here(now, group, &message);
                let to = std::mem::take(&mut self.naming.receivers);
                self.store.append(&Record::Moved { message: id, from, copy, to: &to });
                self.record_begun();
            }
            _ => {
                // Nobody has had it in the store so far: it is a new message to that.
                let retain = std::mem::take(&mut message.retain);
                self.begin_routing(&mut message);
                message.retain = retain;
                self.dispatch_here(now, group, &message);
                message.retain = false;
                if message.id.is_some() {
                    self.record_publish(&message, false, 0, crate::persist::Origin::default(), None);
                }
            }
        }
    }
}
