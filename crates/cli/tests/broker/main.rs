//! The program `pantala broker` from outside: started as a process, spoken to in raw bytes, stopped by signals.
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]

mod access;
mod client;
mod config;
mod cuts;
mod delivery;
mod import;
mod operations;
mod process;
mod reload;
mod security;
mod sockets;
mod sparkplug;
mod start;
mod stop;
mod store;
#[cfg(target_os = "linux")]
mod strain;
mod timing;
