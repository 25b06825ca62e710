//! The shell around the broker core: event loops, listeners, worker threads, configuration, logs.
//!
//! Decisions are the core's ([`pantala_broker`]); this crate moves bytes, keeps the clock, and tells the operator. Where
//! to look: `worker.rs` for a turn of the loop, `inbox.rs` for what passes between workers, `listen.rs` for sockets,
//! `stage.rs` for what stands between a socket and MQTT, `tls.rs` for certificates, `security` for who is let in, `guard.rs` for
//! who is turned away before that, `file.rs` for files that an operator names, `log.rs` for the log, `sys.rs` for what is told below `$SYS/` and `reporter.rs` for who
//! gathers it, `user.rs` for who the process becomes, `import.rs` for what a Mosquitto broker has left, `reload.rs` for SIGHUP, [`config`] for what an operator can say, [`store_tool`] for what one can do while the broker is
//! stopped.

mod check;
pub mod config;
mod file;
mod guard;
mod import;
mod inbox;
mod key_log;
mod listen;
mod log;
mod mosquitto_db;
mod pid_file;
mod reload;
mod reporter;
mod run;
mod security;
mod socket;
mod stage;
mod storage;
pub mod store_tool;
mod sys;
mod system_log;
mod text;
mod tls;
mod user;
mod worker;

pub use check::{Checked, check};
#[doc(hidden)]
pub use import::import_mosquitto_db;
pub use pantala_store::Durability;
pub use reload::{Running, RunningError, running};
pub use run::{RunError, run, run_then};
