//! The log against a plain map, and what crashes, full disks, errors and damage may and may not do to it.

#![allow(clippy::unwrap_used, reason = "a test has nobody to tell of errors")]

mod allocations;
mod compact;
mod crash;
mod damage;
mod errors;
mod model;
mod readers;
mod spares;
