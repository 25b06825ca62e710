//! What workers tell each other: one batch for each pair of workers, turn and [`Phase`], with one arena for the bytes
//! of its messages.

use std::collections::VecDeque;
use std::sync::Arc;

use pantala_proto::{ForwardProperties, QoS};
use pantala_router::Cursor;
use pantala_session::Instant;
use pantala_store::{MessageId, SessionNumber};

use crate::access::Access;
use crate::asking::{Chosen, Question, Reply};
use crate::message::{Incoming, Room};
use crate::publisher::Publisher;
use crate::session::Grant;
use crate::shared::Member;
use crate::{ConnectionKey, WorkerId};

/// The order in which a worker hands its batches over at the end of a turn: those of one phase to all workers, then
/// those of the next.
///
/// It is what keeps Retained Messages and live ones apart without a clock: the live copies of a message are in everybody's
/// inbox before its retained copy can be seen anywhere, and a confirmation leaves after everything its sender did before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Messages to route or deliver.
    Messages = 0,
    /// Retained Messages to keep.
    Retained = 1,
    /// Interest, Shared Subscriptions, queries, and confirmations.
    Control = 2,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Retained, Self::Control];
}

/// Frames from one worker to another.
#[derive(Debug)]
pub struct Batch {
    pub(crate) from: WorkerId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: VecDeque<Frame>,
}

/// A message whose bytes stand in the arena of its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    start: u32,
    topic_bytes: u32,
    properties_bytes: u32,
    payload_bytes: u32,
    message_expiry_at: Option<u32>,
    qos: QoS,
    retain: bool,
    expires_at: Option<Instant>,
    room: Room,
    id: Option<MessageId>,
}

/// `written` is how many Retained Messages the sender's clients had written until then: see `replay.rs`.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Deliver to the receiver's own Sessions and groups. With `name_receivers` the store waits for the receiver to name
    /// those that the message is owed to.
    Route { message: Packed, written: u64, name_receivers: bool },
    /// Keep as Retained Message, with who published it if that is kept.
    Retain { message: Packed, written: u64, publisher: Option<Box<Publisher>> },
    /// Deliver to the member that a group's home has chosen. The home has named it to the store, if there is a need to.
    Deliver { member: Member, grant: Grant, group: Arc<str>, message: Packed },
    /// The member chosen is gone, `from` for the store: choose another.
    Redispatch { group: Arc<str>, message: Packed, from: Option<SessionNumber> },
    /// The sender wants, or no longer wants, messages that match the filter; if `kept`, some of them outlive the process.
    Interest { filter: Box<str>, wanted: bool, kept: bool, token: Option<u32> },
    /// A Session joins a group that is at home with the receiver, or has other options or rights now.
    Join { whole_filter: Box<str>, member: Member, grant: Grant, access: Access, connected: bool, token: u32 },
    /// A Session leaves a group.
    Leave { whole_filter: Box<str>, member: Member },
    /// A member's client has come or gone.
    Presence { whole_filter: Box<str>, member: Member, connected: bool },
    /// Asks for confirmation that all that was for anybody has been passed on, which it has by the time that the
    /// confirmation arrives.
    Flush { token: u32 },
    /// Asks for Retained Messages.
    Query { token: u32, filter: Box<str>, cursor: Box<Cursor>, cutoffs: Box<[u64]> },
    /// One that was asked for.
    Found { token: u32, message: Packed },
    /// As many as go into one answer; `cursor` goes on, None is the end.
    Answered { token: u32, cursor: Option<Box<Cursor>> },
    /// What was asked for with `token` is done.
    Done { token: u32, written: u64 },
    /// Have the receiver's own Sessions and groups room for a message on this topic? See `asking.rs`.
    Ask { question: Question, topic_name: Box<str> },
    /// Has this member, or else another one of up to `tries`?
    AskMember { question: Question, topic_name: Box<str>, chosen: Chosen, tries: u32 },
    /// The member that was asked has not; has one of up to `tries` others of the group?
    AskGroup { question: Question, topic_name: Box<str>, group: Arc<str>, tries: u32 },
    /// The answer to [`Frame::Ask`], or what a group has come to.
    Reply { connection: ConnectionKey, token: u32, reply: Reply },
}

impl Batch {
    pub(crate) fn new(from: WorkerId) -> Self {
        Self { from, bytes: Vec::new(), frames: VecDeque::new() }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What it weighs, for bounding what is under way between two workers.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.frames.len() * std::mem::size_of::<Frame>()
    }

    pub(crate) fn pack(&mut self, message: &Incoming<'_>) -> Packed {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(message.topic_name.as_bytes());
        for piece in message.properties.pieces() {
            self.bytes.extend_from_slice(piece);
        }
        self.bytes.extend_from_slice(message.payload);
        Packed {
            start,
            topic_bytes: message.topic_name.len() as u32,
            properties_bytes: message.properties.len() as u32,
            payload_bytes: message.payload.len() as u32,
            message_expiry_at: message.properties.message_expiry_at().map(|at| at as u32),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            room: message.room,
            id: message.id,
        }
    }

    pub(crate) fn unpack(bytes: &[u8], packed: Packed) -> Incoming<'_> {
        let rest = &bytes[packed.start as usize..];
        let (topic, rest) = rest.split_at(packed.topic_bytes as usize);
        let (properties, rest) = rest.split_at(packed.properties_bytes as usize);
        let expiry_at = packed.message_expiry_at.map(|at| at as usize);
        Incoming {
            topic_name: std::str::from_utf8(topic).expect("the bytes were copied from a string"),
            properties: ForwardProperties::from_parts(properties, expiry_at),
            payload: &rest[..packed.payload_bytes as usize],
            qos: packed.qos,
            retain: packed.retain,
            expires_at: packed.expires_at,
            room: packed.room,
            id: packed.id,
        }
    }
}

/// The batches that a worker fills for one other.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) batches: [Batch; 3],
}

impl Outbox {
    pub(crate) fn new(from: WorkerId) -> Self {
        Self { batches: [Batch::new(from), Batch::new(from), Batch::new(from)] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.iter().all(Batch::is_empty)
    }

    pub(crate) fn messages(&mut self) -> &mut Batch {
        &mut self.batches[Phase::Messages as usize]
    }

    pub(crate) fn retained(&mut self) -> &mut Batch {
        &mut self.batches[Phase::Retained as usize]
    }

    pub(crate) fn control(&mut self, frame: Frame) {
        self.batches[Phase::Control as usize].frames.push_back(frame);
    }
}
