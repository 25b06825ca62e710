//! What can go wrong between generator and broker. Each of them makes a result invalid.

use std::fmt;
use std::io;

/// Why a run has no valid result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operating system refused something.
    Io(io::ErrorKind),
    /// The broker closed a connection.
    ConnectionClosed,
    /// The broker sent DISCONNECT with this Reason Code.
    Disconnected(u8),
    /// CONNACK, SUBACK, PUBACK, PUBREC or PUBCOMP carried this Reason Code.
    Refused(u8),
    /// The broker does not know a Session that it is to have kept.
    SessionLost,
    /// The broker did not take a ticket of its own.
    NotResumed,
    /// The broker did not tell its counters.
    NoCounters,
    /// The broker's disk was not as slow as it was to be, so what was measured is not what the figure is about.
    NotSlowed(&'static str),
    /// A packet that has no place here; its first byte.
    Unexpected(u8),
    /// Bytes that are no packet, or a payload other than the one that was sent.
    Malformed,
    /// A message of a publisher this subscriber has no subscription for.
    Misrouted {
        /// Number of the publisher.
        publisher: u32,
    },
    /// Messages are missing: a later one came instead.
    Lost {
        /// Number of the publisher.
        publisher: u32,
        /// How many are missing.
        messages: u64,
    },
    /// A message came a second time, or after a later one.
    RepeatedOrReordered {
        /// Number of the publisher.
        publisher: u32,
        /// Sequence number that was due.
        expected: u64,
        /// Sequence number that came.
        received: u64,
    },
    /// An acknowledgement for a Packet Identifier that is not in flight.
    StrayAcknowledgement(u16),
    /// Nothing arrived for too long although deliveries or acknowledgements were outstanding.
    Stalled {
        /// Messages sent and not yet delivered to all their subscribers; 0 if only answers are missing.
        messages: u64,
    },
    /// It took longer than it may.
    OutOfTime {
        /// What was being done.
        step: &'static str,
    },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Which of these it is depends on whether bytes of ours were under way.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::ConnectionClosed,
            kind => Self::Io(kind),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(kind) => write!(f, "input/output: {kind}"),
            Self::ConnectionClosed => write!(f, "the broker closed a connection"),
            Self::Disconnected(code) => write!(f, "the broker sent DISCONNECT 0x{code:02X}"),
            Self::Refused(code) => write!(f, "the broker answered with Reason Code 0x{code:02X}"),
            Self::SessionLost => write!(f, "a Session is gone that was to be kept"),
            Self::NotResumed => write!(f, "the broker did not resume a TLS session"),
            Self::NoCounters => write!(f, "the broker did not write its counters into its log"),
            Self::NotSlowed(why) => write!(f, "the broker's disk was not slowed: {why}"),
            Self::Unexpected(first_byte) => write!(f, "unexpected packet, first byte 0x{first_byte:02X}"),
            Self::Malformed => write!(f, "malformed packet or altered payload"),
            Self::Misrouted { publisher } => write!(f, "a message of publisher {publisher} reached a stranger"),
            Self::Lost { publisher, messages } => write!(f, "{messages} messages of publisher {publisher} lost"),
            Self::RepeatedOrReordered { publisher, expected, received } => {
                write!(f, "publisher {publisher}: message {received} came where {expected} was due")
            }
            Self::StrayAcknowledgement(packet_id) => write!(f, "acknowledgement for {packet_id}, not in flight"),
            Self::Stalled { messages: 0 } => write!(f, "an answer or acknowledgement is missing and nothing arrives"),
            Self::OutOfTime { step } => write!(f, "out of time, while {step}; see --within"),
            Self::Stalled { messages } => write!(f, "{messages} messages outstanding and nothing arrives"),
        }
    }
}

impl std::error::Error for Fault {}
