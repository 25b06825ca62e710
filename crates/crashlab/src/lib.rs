//! Crash laboratory: a real broker, many clients, seeded faults in a loop, and after each restart a checker of promises.
//!
//! A *cycle* is a workload, a fault, a restart and a check. Several cycles on the same data directory with the same
//! clients are a *stretch*, so that what was stored before the first crash has to survive them all; a stretch ends early
//! when a promise was broken, so that one fault is not counted twice.
//!
//! * [`plan`] draws who takes part and what happens to the broker, from a seed and nothing else.
//! * [`fleet`] is all clients in one thread: publishers and subscribers with the memory of a durable client, which
//!   survives the broker's crash because it is here. It writes down every packet in a [`history`].
//! * [`checker`] reads a history and says which promises it breaks. It knows neither sockets nor the plan.
//! * [`drops`] reads what a broker says it has dropped, to be compared with what did not come.
//! * [`expectation`] says which of them each seeded bug breaks: the checker is tested by those.
//! * [`laboratory`] runs the cycles and counts; [`report`] shows it.
//!
//! Power cuts are real ones for the file system: ext4 on a loop device, stopped by its shutdown ioctl without a flush of
//! its journal. What the laboratory cannot see are writes torn within a sector, and a disk that lies about syncs.

// Printing is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod broker;
pub mod checker;
pub mod client;
pub mod command;
pub mod drops;
pub mod expectation;
pub mod fault;
pub mod fleet;
pub mod history;
pub mod laboratory;
pub mod payload;
pub mod plan;
pub mod probe;
pub mod random;
pub mod report;
pub mod shutdown;
pub mod volume;

pub use command::run;
