//! The core under test: scripted clients, a virtual clock, one to three workers in one thread, stores that wait or fail.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(clippy::print_stderr, reason = "a failing dialogue says with which seed it failed")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod aliases;
mod crashes;
mod delivery;
mod durability;
mod levels;
mod limits;
mod model;
mod own;
mod pace;
mod publishers;
mod reasons;
mod reconfigure;
mod recovery;
mod refusal;
mod retained;
mod rules;
mod sessions;
mod shared;
mod sparkplug;
mod subscriptions;
mod trouble;
mod wills;
