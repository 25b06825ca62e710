//! Compares what happened with what was promised.
//!
//! [`check`] is a function of a [`History`] and nothing else: no clock, no socket, no chance. One pass builds an
//! `Index` of messages, subscriptions and deliveries, in which all numbers are dense, so that each check
//! is a walk over arrays: its time grows with the length of the history and with clients times messages.
//!
//! A promise is broken only if no order of what the broker may have done explains what was seen. Where an event is open
//! to two readings (a message published while SUBSCRIBE is on its way), the reading that favours the broker counts.

mod delivery;
mod drops;
mod expiry;
mod index;
mod integrity;
mod liveness;
mod loss;
mod order;
mod retained;
mod session;
mod shared;
mod takeover;
#[cfg(test)]
mod tests;
mod will;

use std::fmt;

use serde::Serialize;

use crate::history::{ClientNumber, History, MessageId};

/// A promise, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Promise {
    /// Nothing is delivered that was not published so.
    R1,
    /// Nothing is delivered without a subscription for it.
    R2,
    /// Nothing of a Session that is gone appears in its successor.
    R3,
    /// What was accepted and is owed is delivered.
    Q1a,
    /// QoS 1: no more copies than reconnections explain, and repetitions say DUP.
    Q1c,
    /// No retransmission on a live connection.
    Q1d,
    /// QoS 2: a repeated PUBLISH is routed once.
    Q2a,
    /// QoS 2: the application sees each message once.
    Q2b,
    /// A released Packet Identifier is known until PUBCOMP.
    Q2c,
    /// A Packet Identifier is not used again while it is open.
    Q2d,
    /// First deliveries come in the order of publishing.
    O1,
    /// Retransmissions come in their order, before newer messages.
    O2,
    /// A Retained Message is not older than the last accepted one.
    T1,
    /// The same after a crash, and it is whole.
    T2,
    /// A delete is not undone.
    T3,
    /// What comes live does not say RETAIN.
    T4,
    /// A Will is published exactly once.
    W1,
    /// A Will is not published before its delay.
    W2,
    /// Session Present says what is so.
    S1,
    /// A Session ends when its time is over.
    S2,
    /// What SUBACK and UNSUBACK said survives.
    S3,
    /// A client has one connection: nothing comes on one that has been taken over.
    S4,
    /// No more inflight than the Receive Maximum.
    S5,
    /// A shared message goes to one member.
    H1,
    /// A shared message goes to somebody.
    H3,
    /// An expired message is not delivered, and what is left of the interval is right.
    E1,
    /// What is dropped is counted, under its name.
    E2,
    /// Everything goes on after the fault.
    L1,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which column of the table a broken promise belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Class {
    /// Something that was kept in trust is gone.
    Lost,
    /// Something came too often.
    Duplicated,
    /// Something came in the wrong order.
    Reordered,
    /// Something that was removed came back.
    Resurrected,
    /// Anything else.
    Other,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// In which way.
    pub class: Class,
    /// Place in the history of what it is about: the acceptance of what is lost, the delivery that should not have been.
    pub at: usize,
    /// The client that was wronged.
    pub client: Option<ClientNumber>,
    /// The message.
    pub message: Option<MessageId>,
    /// What is wrong, as a sentence.
    pub what: String,
}

/// What is documented, where the promises leave a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The Will of a client that was connected when the broker was killed, and stays away, is published after the restart.
    pub wills_survive: bool,
}

/// All broken promises of a history.
pub fn check(history: &History, rules: Rules) -> Vec<Violation> {
    let index = index::Index::of(history);
    let mut found = Vec::new();
    integrity::check(&index, &mut found);
    delivery::check(&index, &mut found);
    loss::check(&index, &mut found);
    order::check(&index, &mut found);
    retained::check(&index, &mut found);
    session::check(&index, &mut found);
    shared::check(&index, &mut found);
    takeover::check(&index, &mut found);
    will::check(&index, rules, &mut found);
    expiry::check(&index, &mut found);
    drops::check(&index, &mut found);
    liveness::check(&index, &mut found);
    found.sort_by_key(|violation| violation.at);
    found
}
