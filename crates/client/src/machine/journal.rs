//! What of a [`Machine`] has to outlive the program, as records, and the way back.
//!
//! ```text
//!   publish         PUBLISH goes out      PUBREC has come       PUBACK, PUBCOMP, or given up
//!    Taken ──────────►  Sent  ──────────►   Answered  ──────────►  Settled
//!                        │ ▲                                          ▲
//!                        ▼ │ (on the next connection)                 │
//!                       Unsent ──────────────────────────────────────┘
//!               the broker has lost the Session
//!
//!   acknowledged, PUBREC goes out   Opened ──────────►  Closed   PUBCOMP goes out
//! ```
//!
//! With a journal, whoever drives the machine takes the records after each call, and keeps one rule: **no byte of output goes
//! out before the records that were made before it are safe**, [`Record::Settled`] excepted. CONNECT, AUTH and PINGREQ follow
//! from no record, and need not wait: see [`Machine::take_ping`]. After a restart the net effect of
//! the records is given to [`Machine::restore`].

use std::collections::VecDeque;

use pantala_proto::{Delivery, PacketId, QoS};
use pantala_session::Instant;

use super::{Event, Machine, Published, Token};
use crate::Message;

/// What has happened to a message of QoS 1 or 2. Each has a *place* that no other gets, from 1 and larger for what came later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It was taken.
    Taken {
        /// Its place.
        place: u64,
        /// `now` of [`Machine::publish`]. Its Message Expiry Interval is counted from here.
        since: Instant,
        /// The message.
        message: Message,
    },
    /// Its PUBLISH is in the output for the first time, or again.
    Sent {
        /// Its place.
        place: u64,
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// The broker has lost the Session, and what this PUBLISH began with it.
    Unsent {
        /// Its place.
        place: u64,
    },
    /// PUBREC has come: the broker has the message, which is not needed any more.
    Answered {
        /// Its place.
        place: u64,
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// It is over. If this is lost, the exchange goes on and ends again, so nothing need wait for it.
    Settled {
        /// Its place.
        place: u64,
    },
    /// A QoS 2 message of the broker has been dealt with, and PUBREC is to follow: it is not to be delivered again.
    Opened {
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
    /// The broker has released such a message: its next one with this Packet Identifier is another.
    Closed {
        /// Its Packet Identifier.
        packet_id: PacketId,
    },
}

impl Record {
    /// Whether the output after it has to wait until it is safe.
    pub fn holds_output(&self) -> bool {
        !matches!(self, Self::Settled { .. })
    }
}

/// A message of an earlier program that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its place.
    pub place: u64,
    /// How far it has got.
    pub progress: Progress,
}

/// How far a [`Kept`] message has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has not been sent.
    Taken {
        /// When it was taken.
        since: Instant,
        /// The message.
        message: Message,
    },
    /// It may have been sent.
    Sent {
        /// When it was taken.
        since: Instant,
        /// The message.
        message: Message,
        /// With this Packet Identifier.
        packet_id: PacketId,
    },
    /// The broker has it, and is to be told PUBREL.
    Answered {
        /// For this Packet Identifier.
        packet_id: PacketId,
    },
}

pub(super) struct Journal {
    records: Vec<Record>,
    next_place: u64,
    /// Messages that are taken and not settled.
    kept: usize,
}

/// A QoS 2 message that PUBREC has come for.
pub(super) struct Releasing {
    pub(super) packet_id: PacketId,
    /// Who waits for PUBCOMP.
    pub(super) token: Option<Token>,
    pub(super) place: u64,
}

/// The place of a message that no journal knows of.
pub(super) const NOT_KEPT: u64 = 0;

impl Machine {
    /// Keeps a journal from here on: to be called before the first message. `now` is to be milliseconds since 1970 then, as
    /// far as the wall clock knew when the program began, so that times can be compared with those of earlier programs.
    ///
    /// The limits of the queue then count messages in flight too, and hold for all messages of QoS 1 and 2.
    pub fn keep_journal(&mut self) {
        self.journal.get_or_insert(Box::new(Journal { records: Vec::new(), next_place: 1, kept: 0 }));
    }

    /// Appends the records that were made since the last call.
    pub fn take_records(&mut self, records: &mut Vec<Record>) {
        if let Some(journal) = &mut self.journal {
            records.append(&mut journal.records);
        }
    }

    /// Messages that the journal has as taken and not settled.
    pub fn kept(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.kept)
    }

    /// Goes on where an earlier program ended: with its messages, in the order of their places, and with the Packet Identifiers
    /// that were opened and not closed. To be called right after [`Machine::keep_journal`]. The Session counts as known from
    /// then on, see [`UnknownSession`](super::UnknownSession).
    pub fn restore(&mut self, mut kept: Vec<Kept>, opened: impl IntoIterator<Item = PacketId>) {
        self.was_restored = true;
        kept.sort_by_key(|kept| kept.place);
        if let Some(journal) = &mut self.journal {
            journal.kept = kept.len();
            journal.next_place = kept.last().map_or(1, |last| last.place.saturating_add(1));
        }
        for Kept { place, progress } in kept {
            match progress {
                Progress::Taken { since, message } => {
                    let qos = message.qos;
                    let waiting = self.restored(place, since, message);
                    self.outbound.restore_queued(qos, place, waiting);
                }
                Progress::Sent { since, message, packet_id } => {
                    let qos = message.qos;
                    let waiting = self.restored(place, since, message);
                    self.outbound.restore(qos, packet_id, place, Some(waiting));
                }
                Progress::Answered { packet_id } => {
                    self.releasing.push_back(Releasing { packet_id, token: None, place });
                    self.outbound.restore(QoS::ExactlyOnce, packet_id, place, None);
                }
            }
        }
        self.receiver.restore(opened);
    }

    /// A message is taken: its place.
    pub(super) fn record_taken(&mut self, since: Instant, message: &Message) -> u64 {
        let Some(journal) = &mut self.journal else { return NOT_KEPT };
        let place = journal.next_place;
        journal.next_place += 1;
        journal.kept += 1;
        journal.records.push(Record::Taken { place, since, message: message.clone() });
        place
    }

    #[inline]
    pub(super) fn record_sent(&mut self, place: u64, delivery: Delivery) {
        if place != NOT_KEPT
            && let (Some(journal), Some(packet_id)) = (&mut self.journal, delivery.packet_id())
        {
            journal.records.push(Record::Sent { place, packet_id });
        }
    }

    pub(super) fn record_answered(&mut self, place: u64, packet_id: PacketId) {
        if let Some(journal) = self.journal.as_mut().filter(|_| place != NOT_KEPT) {
            journal.records.push(Record::Answered { place, packet_id });
        }
    }

    #[inline]
    pub(super) fn record_settled(&mut self, place: u64) {
        if let Some(journal) = self.journal.as_mut().filter(|_| place != NOT_KEPT) {
            journal.kept -= 1;
            journal.records.push(Record::Settled { place });
        }
    }

    pub(super) fn record_opened(&mut self, packet_id: PacketId) {
        if let Some(journal) = &mut self.journal {
            journal.records.push(Record::Opened { packet_id });
        }
    }

    pub(super) fn record_closed(&mut self, packet_id: PacketId) {
        if let Some(journal) = &mut self.journal {
            journal.records.push(Record::Closed { packet_id });
        }
    }

    /// The broker has lost the Session: what waits for PUBCOMP is over, what waits for less begins anew.
    pub(super) fn exchanges_lost(&mut self) {
        let Self { outbound, releasing, events, journal, receiver, .. } = self;
        let queued = outbound.queue_len();
        outbound.session_lost(|packet_id| {
            let Some(over) = take_releasing(releasing, packet_id) else { return };
            if let Some(token) = over.token {
                events.push_back(Event::Published { token, outcome: Ok(Published::SUCCESS) });
            }
            if let Some(journal) = journal.as_mut().filter(|_| over.place != NOT_KEPT) {
                journal.kept -= 1;
                journal.records.push(Record::Settled { place: over.place });
            }
        });
        if let Some(journal) = journal {
            let again = outbound.queue_len() - queued;
            let places = outbound.queued_mut(0).take(again).map(|waiting| waiting.place);
            journal.records.extend(places.filter(|place| *place != NOT_KEPT).map(|place| Record::Unsent { place }));
            journal.records.extend(receiver.opened().map(|packet_id| Record::Closed { packet_id }));
        }
    }
}

/// The message that waits for the PUBCOMP with this identifier.
pub(super) fn take_releasing(releasing: &mut VecDeque<Releasing>, packet_id: PacketId) -> Option<Releasing> {
    // PUBCOMP come in the order of PUBREL, so the first is nearly always the one.
    let at = releasing.iter().position(|known| known.packet_id == packet_id)?;
    releasing.remove(at)
}
