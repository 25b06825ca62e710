//! TLS listeners of a real broker: by a client of a few lines, our own programs, Debian's, and OpenSSL's.
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]
// Not all of it is needed here.
#[allow(dead_code, reason = "shared with the other tests of the broker")]
#[path = "../broker/process.rs"]
mod process;

mod client;
mod hostile;
mod identity;
mod own;
mod programs;
mod renewal;
mod traffic;
