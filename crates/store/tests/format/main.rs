//! What stands in the log, and the page that says so.

#![allow(clippy::unwrap_used, reason = "a test has nobody to tell of errors")]

mod any_bytes;
mod fixture;
mod page;
mod scenario;
