//! The outbox: messages that are accepted survive the end of the program, however it ends.
//!
//! ```text
//!    publish, enqueue            records                    one batch, one sync
//!   ───────────────►  Machine  ───────────►  writer thread ───────────────────► log in a directory
//!                        │                         │
//!                        │ output                  │ "safe up to here"
//!                        ▼                         ▼
//!                      driver ── waits for it ── socket
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use pantala_client::{Client, Message, Options, QoS};
//!
//! let mut options = Options::new("mqtt://localhost")?
//!     .client_id("meter-17")
//!     .keep_session(Duration::MAX)
//!     .outbox("/var/lib/meter/outbox");
//! // Else the client ends if there is no broker at the start.
//! options.reconnect.retry_first = true;
//! let client = Client::start(options);
//! // Returns when the reading is on the disk, whether there is a connection or not.
//! client.enqueue(Message::new("meters/17", "1205.3 kWh").qos(QoS::AtLeastOnce)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - A message of QoS 1 or 2 for which [`Client::enqueue`] has returned, or [`Client::publish`] (which returns later), reaches
//!   the broker: once or more often at QoS 1, exactly once at QoS 2, in the order in which the messages were taken. With
//!   [`OutboxDurability::Fsync`] a power cut may come in between, with [`OutboxDurability::Os`] any end of the program.
//! - To keep that, nothing goes to the broker before what it follows from is written: PUBLISH of QoS 1 and 2, PUBREL, PUBREC
//!   and PUBCOMP. What is to be written meanwhile goes with the next batch, so a slow disk makes larger batches.
//! - A message of QoS 2 that was received does not come to a second program once its acknowledgement is written, which begins
//!   when the program acknowledges it. One that was received, and not acknowledged when the program ended, does.
//! - The Message Expiry Interval is counted from when the message was taken, also while no program runs, by the wall clock.
//! - After a failed write or sync, or when the disk is full, the client ends with [`ConnectionError::Outbox`]: nothing is
//!   acknowledged or sent that could not be kept, and no sync is tried again, since after a failed one nobody knows what is
//!   on the disk. A later start goes on with what is there.
//! - A damaged file does no harm beyond itself: it is set aside, [`Client::outbox_report`] tells, and the rest goes on.
//!
//! # What is not
//!
//! - QoS 0 is not kept. It can be delayed: what is sent after a message of QoS 1 or 2 waits with it for the disk. That is so for
//!   DISCONNECT too, see [`Client::disconnect`]; not for CONNECT and PINGREQ, so a disk that stalls ends no connection.
//! - [`Client::try_publish`] returns before its message is safe.
//! - When the broker has lost the Session (its interval was over, or the broker forgot), what was sent and not acknowledged goes
//!   out again as new messages, also at QoS 2: whether they had arrived only the lost Session knew. Ask for a Session Expiry
//!   Interval longer than any time the program may be away. If the connection breaks before CONNACK has told of the loss, the
//!   next CONNACK speaks of a Session, the new one: MQTT cannot tell, and what was open goes on in it.
//! - Answers do not survive: the next program does not hear that the broker refused a message of this one.
//! - Subscriptions, and messages that came and were not acknowledged, are the broker's to keep, in its Session.
//! - The messages are in memory as well.
//!
//! Without an outbox none of this costs anything: no thread, no lock, one branch for each message.
//!
//! [`Client::disconnect`]: crate::Client::disconnect
//! [`Client::enqueue`]: crate::Client::enqueue
//! [`Client::publish`]: crate::Client::publish
//! [`Client::try_publish`]: crate::Client::try_publish
//! [`Client::outbox_report`]: crate::Client::outbox_report
//! [`ConnectionError::Outbox`]: crate::error::ConnectionError::Outbox

mod format;
mod keeper;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

pub(crate) use keeper::{Keeper, Recovered};
pub(crate) use writer::{Outbox, Position};

use crate::machine::SessionSettings;

/// Where messages are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxOptions {
    /// A directory of its own for this client, made if it does not exist. Only one program can use it at a time, and only with
    /// the Client Identifier that it was first used with. On a local file system.
    pub directory: PathBuf,
    /// Messages of QoS 1 and 2 that are kept; above it [`Client::publish`](crate::Client::publish) and
    /// [`Client::enqueue`](crate::Client::enqueue) wait, and [`Client::try_publish`](crate::Client::try_publish) fails with
    /// [`QueueFull`](crate::error::PublishError::QueueFull). It takes the place of
    /// [`queue_messages_max`](SessionSettings::queue_messages_max), for QoS 0 too. From 1; 0 is taken for 1.
    /// Default: 10 000.
    pub messages_max: usize,
    /// Bytes of topics, properties and payloads that are kept; when there are as many, no message is taken, as above, so the last
    /// may go beyond. The files may be twice as large, and some MiB. It takes the place of
    /// [`queue_bytes_max`](SessionSettings::queue_bytes_max). From 1; 0 is taken for 1. Default: 64 MiB.
    pub bytes_max: usize,
    /// What is survived. Default: a power cut.
    pub durability: OutboxDurability,
}

/// What the messages in an outbox survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutboxDurability {
    /// A power cut: each batch is synced.
    #[default]
    Fsync,
    /// Any end of the program, `kill -9` too, but not of the operating system: a batch is handed to it, and that is all.
    ///
    /// After a power cut the outbox opens, with all that was recorded up to some moment, and nothing from after it: the last
    /// messages may be missing, of those sent some are sent again, also at QoS 2, and of those received some may come again.
    /// Nothing comes that was not published, and at QoS 1 the order stays. At QoS 2 the broker may still have exchanges open of
    /// which the records are lost, under Packet Identifiers that are given to other messages then: it takes such a message for the
    /// one that it had, so a later one can be missing or late, and a received one of the same kind likewise. Where that matters,
    /// [`OutboxDurability::Fsync`], or QoS 1.
    Os,
}

impl OutboxOptions {
    /// An outbox in this directory, else as by default.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self {
            directory: directory.as_ref().to_owned(),
            messages_max: 10_000,
            bytes_max: 64 << 20,
            durability: OutboxDurability::default(),
        }
    }

    /// Messages that are kept. At least 1.
    #[must_use]
    pub fn messages_max(mut self, messages: usize) -> Self {
        self.messages_max = messages.max(1);
        self
    }

    /// Bytes that are kept. At least 1.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes.max(1);
        self
    }

    /// What is survived.
    #[must_use]
    pub fn durability(mut self, durability: OutboxDurability) -> Self {
        self.durability = durability;
        self
    }
}

impl From<&str> for OutboxOptions {
    fn from(directory: &str) -> Self {
        Self::new(directory)
    }
}

impl From<&Path> for OutboxOptions {
    fn from(directory: &Path) -> Self {
        Self::new(directory)
    }
}

impl From<PathBuf> for OutboxOptions {
    fn from(directory: PathBuf) -> Self {
        Self::new(directory)
    }
}

/// Why there is no outbox, or none any more. All but [`OutboxError::Full`] and [`OutboxError::Failed`] come at the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// Who we are has to be the same at each start.
    #[error("an outbox needs a Client Identifier of your own: set one with Options::client_id")]
    NoClientId,
    /// The broker is to know, after a restart, what had arrived.
    #[error("an outbox needs a Session that outlives its connection: ask for one with Options::keep_session")]
    NoSession,
    /// Another program has it open, or another client of this one.
    #[error("the outbox in {0} is in use: give each client a directory of its own")]
    InUse(String),
    /// It was made by another client, for whose Session its messages are.
    #[error(
        "the outbox in {directory} belongs to the Client Identifier {client_id:?}: use that one, or another directory; \
         removing the directory loses the messages in it"
    )]
    Foreign {
        /// Where it is.
        directory: String,
        /// Whose it is.
        client_id: String,
    },
    /// There is something else in the directory.
    #[error("{0} has files of something else in it: give the outbox a directory of its own")]
    NotAnOutbox(String),
    /// It was written by a later version of this crate. Nothing has been changed.
    #[error("the outbox in {directory} has a format that this version does not know: {cause}")]
    Version {
        /// Where it is.
        directory: String,
        /// What is not known.
        cause: String,
    },
    /// The operating system says no.
    #[error("the outbox in {directory} cannot be opened: {cause}")]
    Open {
        /// Where it is.
        directory: String,
        /// In the operating system's words.
        cause: String,
    },
    /// There is no room on the disk for what has to be kept.
    #[error("the disk is full: messages cannot be kept in the outbox")]
    Full,
    /// A write or sync has failed.
    #[error("the outbox cannot be written any more: {0}")]
    Failed(String),
    /// The client is ending.
    #[error("the client is ending")]
    Closed,
}

/// What was found in the outbox at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutboxReport {
    /// Messages that were not over.
    pub messages: usize,
    /// What could not be read, for people: messages may be missing. The files are set aside beside the others, under their
    /// names with `.damaged`.
    pub damages: Vec<String>,
}

/// Whether a client with these settings can have an outbox.
pub(crate) fn check(settings: &SessionSettings) -> Result<(), OutboxError> {
    if settings.client_id.is_empty() {
        return Err(OutboxError::NoClientId);
    }
    if settings.clean_start || !settings.outlives_connection() {
        return Err(OutboxError::NoSession);
    }
    Ok(())
}
