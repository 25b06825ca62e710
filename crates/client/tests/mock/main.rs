//! The mock itself, against clients that are nothing but bytes.
#![cfg(feature = "mock")]

mod link;
mod raw;
mod scripted;
mod serving;
mod violations;
