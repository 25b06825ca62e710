//! The mock itself, against clients that are nothing but bytes.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod link;
mod raw;
mod reconnects;
mod scripted;
mod serving;
mod violations;
