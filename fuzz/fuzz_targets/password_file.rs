//! Mosquitto's password file.
#![no_main]

#[allow(dead_code, reason = "a fuzz target is one of them")]
#[path = "../../crates/password/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::password_file(input));
