//! The MQTT protocol machines: what one end of one Session has to remember and to decide.
//!
//! Each part is a small struct with one reason to change, and broker and client join them as they need:
//!
//! - [`Outbound`]: QoS 1 and 2 messages on their way to the peer, Packet Identifiers, quota, resends, the queue behind it.
//! - [`Inbound`]: Packet Identifiers of QoS 2 messages received and not yet released, and our Receive Maximum.
//! - [`ReceivedAliases`] and [`SentAliases`]: Topic Aliases of one connection.
//! - [`KeepAlive`]: when silence is too long.
//!
//! Nothing here knows a socket, a clock, another Session or a disk. `now` comes in as an [`Instant`], packets to send
//! come out as values.

/// Whether a seeded bug is to show: see `pantala_mutants`. Without the feature it is `false`, and nothing else.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($mutant:ident) => {
        false
    };
}

/// Whether a seeded bug is to show.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($mutant:ident) => {
        pantala_mutants::Mutant::$mutant.is_chosen()
    };
}

mod alias;
mod inbound;
mod keep_alive;
mod outbound;
mod time;

pub use alias::{ReceivedAliases, SentAlias, SentAliases};
pub use inbound::{ExactlyOnce, Inbound};
pub use keep_alive::KeepAlive;
pub use outbound::{AckError, Acknowledged, OtherPacketIds, Outbound, Place, Send, Stage};
pub use time::Instant;
