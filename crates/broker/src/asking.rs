//! `queue_full = refuse`: a message goes to all who are to have it, or to nobody.
//!
//! Before a QoS 1 or 2 message of a client is routed, everybody who would have to queue it is asked for room: Sessions of
//! this worker at once, those of other workers by [`Frame::Ask`]. The home of a Shared Subscription looks for a member
//! that has room; whoever is found is told to the publisher's worker, which delivers to it.
//!
//! Until all have answered, the PUBLISH stays at the front of its connection's input with all that came after it, and nothing
//! more is read. So a publisher's packets are dealt with in their order, and if the connection ends, the question ends
//! with it: nobody has had the message, and it was not acknowledged. Then the PUBLISH is taken up again, with the verdict.
//!
//! Nobody keeps room for what was only asked about, so it may be gone at delivery. A message that everybody has said yes to
//! is queued all the same ([`Room::Promised`]): a queue may be longer than its limit by one message for each connection that
//! publishes, since a connection asks about one at a time, and for each subscription that this message came by.
//!
//! A Will has no publisher that could be refused: it goes to all who have room for it.

use std::sync::Arc;

use pantala_proto::{QoS, ReasonCode};
use pantala_session::Instant;
use pantala_store::Store;

use crate::access::{self, Permit};
use crate::core::Core;
use crate::mailbox::Frame;
use crate::message::{Incoming, Room};
use crate::persist::Origin;
use crate::route::Routed;
use crate::session::{Grant, Session, SessionKey};
use crate::shared::Member;
use crate::{Cause, ConnectionKey, End, Trip, WorkerId, owner};

/// Members of one Shared Subscription that are asked about one message. Nobody else is asked then: it is refused.
const MEMBERS_ASKED_MAX: u32 = 256;

/// What is asked about, and where the answer goes: to the connection whose PUBLISH waits, if it still waits for `token`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    worker: WorkerId,
    connection: ConnectionKey,
    token: u32,
    /// What the message is charged with in queues.
    bytes: u32,
}

/// A member of a Shared Subscription that has room.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    group: Arc<str>,
    member: Member,
    grant: Grant,
}

#[derive(Debug)]
pub(crate) enum Reply {
    /// From a worker: all its Sessions have room, and so have these members. So many groups at home there answer later.
    Worker { members: Box<[Chosen]>, later: u32 },
    /// From a group that answers later.
    Member(Chosen),
    /// From one that has nobody left.
    Nobody,
    /// There is no room.
    Full,
}

/// A PUBLISH that waits for replies.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    token: u32,
    /// Workers that have not replied.
    workers: u32,
    /// Groups that have not. Below 0 while one was quicker than the worker that tells of it.
    groups: i64,
    members: Vec<Chosen>,
    full: bool,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Room(Vec<Chosen>),
    Full,
}

/// Why a message was not routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unrouted {
    Refused,
    /// The PUBLISH is to be taken up again.
    Waits,
}

impl<S: Store> Core<S> {
    /// Asks whether everybody has room for a QoS 1 or 2 message, or takes up the answer. Returns the members of Shared
    /// Subscriptions that are to have it.
    pub(crate) fn ask_for_room(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        publisher: SessionKey,
        incoming: &Incoming<'_>,
    ) -> Result<Vec<Chosen>, Unrouted> {
        let verdict = match self.verdict.take() {
            Some(verdict) => verdict,
            None => self.ask(now, key, publisher, incoming).ok_or(Unrouted::Waits)?,
        };
        let Verdict::Room(members) = verdict else {
            self.counters.dropped_queue_full_refused += 1;
            self.trip(Trip::MessagesRefused, Some(publisher), Cause::QueueFull);
            return Err(Unrouted::Refused);
        };
        Ok(members)
    }

    /// Routes a message that everybody has room for.
    pub(crate) fn route_promised(
        &mut self,
        now: Instant,
        publisher: SessionKey,
        incoming: &Incoming<'_>,
        members: Vec<Chosen>,
        origin: Origin,
        permit: Permit,
    ) -> Routed {
        let incoming = Incoming { room: Room::Promised, ..*incoming };
        let mut to_members = Routed::default();
        for Chosen { group, member, grant } in members {
            self.deliver_to(now, member, grant, &group, &incoming);
            to_members.receivers += 1;
        }
        let mut routed = self.route(now, Some(publisher), &incoming, origin, permit);
        routed.receivers += to_members.receivers;
        routed
    }

    /// Asks everybody. None if not all can answer at once.
    fn ask(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        publisher: SessionKey,
        incoming: &Incoming<'_>,
    ) -> Option<Verdict> {
        let token = self.token();
        let question = Question { worker: self.worker, connection: key, token, bytes: incoming.bytes() as u32 };
        self.find_receivers(Some(publisher), incoming.topic_name);
        let mut workers = std::mem::take(&mut self.remote_matches);
        let Some((members, later)) = self.ask_here(now, question, incoming.topic_name) else {
            return Some(Verdict::Full);
        };
        if workers == 0 && later == 0 {
            return Some(Verdict::Room(members));
        }
        let connection = self.connections.get_mut(key as usize)?;
        let (workers_asked, groups) = (workers.count_ones(), i64::from(later));
        let asking = Asking { token, workers: workers_asked, groups, members, full: false };
        connection.extras().asking = Some(Box::new(asking));
        while workers != 0 {
            let to = workers.trailing_zeros() as usize;
            workers &= workers - 1;
            self.outboxes[to].control(Frame::Ask { question, topic_name: incoming.topic_name.into() });
        }
        None
    }

    /// Asks the Sessions and groups that were just found here: members that have room, and how many groups answer later. None
    /// if there is no room.
    fn ask_here(&mut self, now: Instant, question: Question, topic_name: &str) -> Option<(Vec<Chosen>, u32)> {
        if self.would_overflow(now, topic_name, question.bytes as usize) {
            return None;
        }
        let (mut members, mut later) = (Vec::new(), 0);
        for at in 0..self.group_matches.len() {
            match self.ask_group(now, question, topic_name, self.group_matches[at], MEMBERS_ASKED_MAX) {
                Some(Reply::Member(chosen)) => members.push(chosen),
                Some(Reply::Full) => return None,
                Some(_) => {}
                None => later += 1,
            }
        }
        Some((members, later))
    }

    /// Looks for a member with room among those of a group at home here. None if another worker has to say.
    fn ask_group(
        &mut self,
        now: Instant,
        question: Question,
        topic_name: &str,
        number: u32,
        tries: u32,
    ) -> Option<Reply> {
        for left in (0..tries.min(self.groups.members(number))).rev() {
            let Some((member, grant)) = self.groups.choose(number, topic_name) else { return Some(Reply::Nobody) };
            let chosen = Chosen { group: self.groups.filter(number)?, member, grant };
            if grant.qos != QoS::AtMostOnce && member.worker != self.worker {
                let frame = Frame::AskMember { question, topic_name: topic_name.into(), chosen, tries: left };
                self.outboxes[usize::from(member.worker.0)].control(frame);
                return None;
            }
            if grant.qos == QoS::AtMostOnce || self.has_room(now, member, topic_name, question.bytes as usize) {
                return Some(Reply::Member(chosen));
            }
        }
        Some(if self.groups.members(number) == 0 { Reply::Nobody } else { Reply::Full })
    }

    /// Whether a member that is at home here has room; not if its Session has ended, or may not have it.
    fn has_room(&mut self, now: Instant, member: Member, topic_name: &str, bytes: usize) -> bool {
        let session = self.sessions.get(member.session as usize);
        let may = |session: &Session| access::receive(&session.access, topic_name).is_ok();
        session.is_some_and(|session| session.generation == member.generation && may(session))
            && (self.can_start(member.session) || !self.is_queue_full(now, member.session, bytes))
    }

    /// Another worker asks about a message.
    pub(crate) fn asked(&mut self, now: Instant, question: Question, topic_name: &str) {
        self.find_receivers(None, topic_name);
        let reply = match self.ask_here(now, question, topic_name) {
            Some((members, later)) => Reply::Worker { members: members.into(), later },
            None => Reply::Full,
        };
        self.reply(question, reply);
    }

    /// The home of a group asks about a member here.
    pub(crate) fn member_asked(
        &mut self,
        now: Instant,
        question: Question,
        topic_name: Box<str>,
        chosen: Chosen,
        tries: u32,
    ) {
        if self.has_room(now, chosen.member, &topic_name, question.bytes as usize) {
            return self.reply(question, Reply::Member(chosen));
        }
        let (group, home) = (Arc::clone(&chosen.group), owner(&chosen.group, self.workers));
        self.outboxes[usize::from(home.0)].control(Frame::AskGroup { question, topic_name, group, tries });
    }

    /// The member that a group at home here chose last has no room.
    pub(crate) fn group_asked(&mut self, now: Instant, question: Question, topic_name: &str, group: &str, tries: u32) {
        let reply = match self.groups.find(group) {
            Some(number) => self.ask_group(now, question, topic_name, number, tries),
            None => Some(Reply::Nobody),
        };
        if let Some(reply) = reply {
            self.reply(question, reply);
        }
    }

    fn reply(&mut self, question: Question, reply: Reply) {
        let Question { worker, connection, token, .. } = question;
        if worker == self.worker {
            return self.replied(connection, token, reply);
        }
        self.outboxes[usize::from(worker.0)].control(Frame::Reply { connection, token, reply });
    }

    /// A reply for a PUBLISH that waits here, if it still does.
    pub(crate) fn replied(&mut self, key: ConnectionKey, token: u32, reply: Reply) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let Some(asking) = connection.extras.as_mut().and_then(|extras| extras.asking.as_mut()) else { return };
        if asking.token != token || asking.is_decided() {
            return;
        }
        match reply {
            Reply::Worker { members, later } => {
                asking.members.extend(members);
                asking.groups += i64::from(later);
                asking.workers -= 1;
            }
            Reply::Member(chosen) => {
                asking.members.push(chosen);
                asking.groups -= 1;
            }
            Reply::Nobody => asking.groups -= 1,
            Reply::Full => asking.full = true,
        }
        if asking.is_decided() {
            self.decided.push_back((key, token));
            self.work = true;
        }
    }

    /// After a panic, which may have been over the connection that was being gone on with: nothing more is read from it, and
    /// [`Core::go_on`] ends it.
    pub(crate) fn stop_going_on(&mut self) {
        self.verdict = None;
        if let Some((key, _)) = self.going_on
            && let Some(connection) = self.connections.get_mut(key as usize)
        {
            connection.extras().asking = Some(Box::default());
        }
    }

    /// Goes on with the connections whose question is decided.
    pub(crate) fn go_on(&mut self, now: Instant) {
        if let Some((key, generation)) = self.going_on.take()
            && self.connections.get(key as usize).is_some_and(|connection| connection.generation == generation)
        {
            self.end(now, key, End::Panic, Some(ReasonCode::UnspecifiedError));
        }
        while let Some((key, token)) = self.decided.pop_front() {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            let Some(extras) = connection.extras.as_mut() else { continue };
            let Some(asking) = extras.asking.take_if(|asking| asking.token == token) else { continue };
            let input = std::mem::take(&mut connection.input);
            let paced = connection.paced;
            // So that the shell looks at it, and reads on, even if nothing is answered.
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(key);
            }
            self.verdict = Some(if asking.full { Verdict::Full } else { Verdict::Room(asking.members) });
            self.going_on = Some((key, connection.generation));
            // Its bytes were counted when it came.
            if paced {
                self.receive_at_pace(now, key, &input, 0);
            } else {
                self.take_in(now, key, &input);
            }
            self.going_on = None;
            self.verdict = None;
        }
    }
}

impl Asking {
    fn is_decided(&self) -> bool {
        self.full || self.workers == 0 && self.groups == 0
    }
}
