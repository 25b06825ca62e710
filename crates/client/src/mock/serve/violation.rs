//! What a client did and must not have done.

use std::fmt;

use super::super::received::Received;

/// A statement of the standard that a client has violated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The connection it happened on: the first is 1.
    pub connection: usize,
    /// The client's Client Identifier; empty before CONNECT.
    pub client_id: String,
    /// The statement, by its number in MQTT 5, for clients of 3.1.1 too; None if it has none of its own.
    pub statement: Option<&'static str>,
    /// What happened.
    pub what: String,
    /// The packet in question; None if it is malformed, or was missing.
    pub packet: Option<Received>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statement = self.statement.unwrap_or("no statement");
        write!(f, "{statement}: connection {}, client {:?}: {}", self.connection, self.client_id, self.what)?;
        match &self.packet {
            Some(packet) => write!(f, ": {packet:?}"),
            None => Ok(()),
        }
    }
}

/// A violation before it is known whose it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) statement: Option<&'static str>,
    pub(super) what: String,
}

impl Finding {
    pub(super) fn new(statement: &'static str, what: impl Into<String>) -> Self {
        Self { statement: Some(statement), what: what.into() }
    }

    /// One without a number of its own.
    pub(super) fn unnumbered(what: impl Into<String>) -> Self {
        Self { statement: None, what: what.into() }
    }
}
