//! Load generator for MQTT 5.0 brokers, and the figures Pantala publishes about itself.
//!
//! But for [`clients`], one process is one thread with one `epoll` set (through `mio`). It knows only as much MQTT as it needs to load a
//! broker and to see whether every message came, once and in order; that little it encodes and parses by itself, so that
//! a mistake in the broker's codec cannot hide in the measurement.
//!
//! * [`load`] publishes and receives: pairs, fan-in, fan-out, at any QoS, closed loop. A publisher is never more than a
//!   window ahead of its slowest receiver, so that no broker has a reason to drop anything.
//! * [`figures`] starts the brokers under test, pins them, repeats, interleaves, and prints medians. It never fails
//!   because of a time; it does fail when messages were lost, doubled or reordered.
//!
//! * [`durable`] does the same for what outlives the broker's process: it publishes to clients that are absent, has them
//!   come back, and accepts nothing less than all that was acknowledged.
//!
//! * [`clients`] measures client libraries, ours beside others, against a broker that does next to nothing.
//!
//! It leaves latency alone, save that of acknowledgements, beside a raw sync or at a fixed rate: a closed loop cannot tell it
//! (the load waits for the broker, so stalls hide themselves).

// Printing is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod backlog;
pub mod broker;
pub mod callgrind;
pub mod clients;
pub mod command;
pub mod durable;
pub mod fault;
pub mod features;
pub mod figures;
pub mod fleet;
pub mod floor;
pub mod load;
pub mod machine;
pub mod packet;
pub mod pinning;
pub mod progress;
pub mod publishing;
pub mod raw_sync;
pub mod report;
pub mod scenario;
pub mod stage;
pub mod usage;

pub use command::run;
