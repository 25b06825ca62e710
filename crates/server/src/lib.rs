//! The shell around the broker core: event loops, listeners, worker threads, configuration, logs.
//!
//! Decisions are the core's ([`pantala_broker`]); this crate moves bytes, keeps the clock, and tells the operator. Where
//! to look: `worker.rs` for a turn of the loop, `inbox.rs` for what passes between workers, `listen.rs` for sockets,
//! `stage.rs` for what stands between a socket and MQTT, `tls.rs` for certificates, `security` for who is let in, `log.rs` for the log, [`config`] for what an operator can say, [`store_tool`] for what one can do while the broker is
//! stopped.

pub mod config;
mod inbox;
mod listen;
mod log;
mod run;
mod security;
mod socket;
mod stage;
mod storage;
pub mod store_tool;
mod tls;
mod worker;

pub use pantala_store::Durability;
pub use run::{RunError, run};
