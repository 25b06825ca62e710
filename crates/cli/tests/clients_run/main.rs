//! `pantala pub`, `sub`, `rr`, `record`, `replay` and `probe` as processes, against brokers that are processes too.
//!
//! What has a counterpart among Mosquitto's programs is played three times with the same expectations: ours with our broker,
//! ours with Debian's, and Debian's with Debian's. See [`bench`].
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]
#![allow(clippy::print_stdout, reason = "what a test that fails has to say")]

mod bench;
mod debug;
mod early;
mod endings;
mod losses;
mod names;
mod peer;
mod probe;
#[path = "../mosquitto/programs.rs"]
mod programs;
mod proxy;
mod publish;
mod recording;
mod relay;
mod request;
mod secure;
#[path = "../../../client/tests/support/socks.rs"]
mod socks;
mod srv;
mod subscribe;
mod terminal;
