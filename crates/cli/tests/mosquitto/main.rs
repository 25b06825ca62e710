//! Beside Mosquitto's own programs: what they print and accept is what ours does.
//!
//! They come from Debian's packages `mosquitto` and `mosquitto-clients`, which `cargo xtask unit` installs where it may. Where
//! they are missing these tests say so and check nothing, unless the variable CI is `true`: then they fail.
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]

mod bridge;
mod dynsec;
mod flags;
mod output;
mod passwd;
mod peer;
mod programs;
mod sys;
mod wire;
