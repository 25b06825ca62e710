//! The core of the broker: who is connected, what each Session holds, where each message goes.
//!
//! One [`Core`] is one worker's share of the broker. Bytes, commands, store completions and `now` go in; bytes to send,
//! connections to close, store records, batches for other workers and the next deadline come out. It opens nothing,
//! reads no clock, spawns nothing and owns no source of randomness, so a whole broker with clients, network, disk
//! and clock can run in one thread from one seed.
//!
//! ```
//! use std::sync::Arc;
//! use pantala_broker::{Core, CoreOptions, Settings, ListenerSettings, WorkerId};
//! use pantala_session::Instant;
//! use pantala_store::MemoryStore;
//!
//! let settings = Settings { listeners: vec![ListenerSettings::default()], ..Settings::default() };
//! let options = CoreOptions::alone(Arc::new(settings), Box::new(|bytes| bytes.fill(7)));
//! let mut core = Core::new(options, MemoryStore);
//! let now = Instant(0);
//! let client = core.open(now, 0);
//! core.receive(now, client, &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a']);
//! let mut slices = [std::io::IoSlice::new(&[]); 1];
//! assert_eq!(core.slices(client, &mut slices), 1);
//! assert_eq!(*slices[0], [0x20, 2, 0, 0]);
//! ```
//!
//! Where to look: `core.rs` for inputs and outputs, `connect.rs` for CONNECT and authentication, `publish.rs` for what comes from publishers, `route.rs` for
//! the way from a message to its receivers, `subscribe.rs`, `replay.rs` for Retained Messages, `shared.rs` for Shared
//! Subscriptions, `answer.rs` for acknowledgements that wait, `asking.rs` for `queue_full = refuse`, `ending.rs` for the ends of connections and Sessions,
//! `cause.rs` for what is behind a Reason Code, `own.rs` for what the broker itself publishes, `pace.rs` for clients that are too fast,
//! `census.rs` for what there is of everything, `sent.rs` for a log of what is sent,
//! `cause.rs` for what is behind a Reason Code, `peer.rs` for what the transport knows of a client, `identity.rs` for who it proves to be,
//! `sparkplug.rs` for what a Sparkplug Aware MQTT Server keeps, `rights.rs` for verdicts and rules that change, `publisher.rs` for whose Retained Messages are,
//! `mailbox.rs` and `workers.rs` for what workers tell each other, `persist.rs` for what the store is told and `restore.rs` for
//! what it told at the start, `access.rs` for permission.

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

mod access;
mod answer;
mod asking;
pub mod authentication;
mod cause;
mod census;
mod connect;
mod connection;
mod core;
mod counters;
mod durability;
mod ending;
mod event;
mod identity;
mod loaded;
mod mailbox;
mod maybe_instant;
mod message;
mod output;
mod own;
mod pace;
mod peer;
mod persist;
mod publish;
mod publisher;
mod replay;
mod restore;
mod rights;
mod route;
mod sent;
mod session;
mod settings;
mod shared;
mod sparkplug;
mod subscribe;
mod subscriptions;
mod timers;
mod workers;

pub use self::core::{Action, Core, CoreOptions, Random, Totals};
pub use cause::Cause;
pub use census::Census;
pub use counters::Counters;
pub use event::{End, Event, Stranger, Trip, Wanted};
pub use identity::{
    AuthenticationRequest, Identity, Proof, RightsSource, SecurityId, Standing, Unrestricted, Verdict, Verified,
};
pub use mailbox::{Batch, Phase as BatchPhase};
pub use peer::{CertificateNames, Peer};
pub use restore::{RetainedMessage, Share, shares};
pub use settings::{
    AcceptedVersions, DurabilityRule, ListenerRate, ListenerSettings, QueueFull, Redirect, ScramUser, Settings,
};

/// Index of a listener in [`Settings::listeners`].
pub type ListenerId = u16;

/// One of the connections of a worker, for as long as it lives. Used again afterwards.
pub type ConnectionKey = u32;

/// One of the workers of a broker, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u8);

/// Most workers one broker can have.
pub const WORKERS_MAX: u8 = 64;

/// Partitions that Sessions are divided into: a fixed number for the life of a data directory or a cluster.
pub const PARTITIONS: u64 = 256;

/// The worker that owns what is named so: a Session by its Client Identifier, a Retained Message by its Topic Name, a
/// Shared Subscription by its whole filter.
pub fn owner(name: &str, workers: u8) -> WorkerId {
    // FNV-1a with a final mix: the same everywhere and for ever, which no seeded hash is.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in name.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    let partition = hash % PARTITIONS;
    WorkerId((partition % u64::from(workers.max(1))) as u8)
}
