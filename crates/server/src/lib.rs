//! The shell around the broker core: event loops, listeners, worker threads, configuration, logs.
//!
//! Decisions are the core's ([`pantala_broker`]); this crate moves bytes, keeps the clock, and tells the operator. Where
//! to look: `worker.rs` for a turn of the loop, `inbox.rs` for what passes between workers, `listen.rs` for sockets,
//! `log.rs` for the log, `sys.rs` for what is told below `$SYS/` and `reporter.rs` for who gathers it, `guard.rs` for who is not
//! let in, `user.rs` for who the process becomes, [`config`] for what an operator can say, [`store_tool`] for what one can do while the broker is
//! stopped.

pub mod config;
mod guard;
mod inbox;
mod listen;
mod log;
mod pid_file;
mod reporter;
mod run;
mod socket;
mod storage;
pub mod store_tool;
mod sys;
mod system_log;
mod user;
mod worker;

pub use pantala_store::Durability;
pub use run::{RunError, run, run_then};
