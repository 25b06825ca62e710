//! An answer of a name server.
#![no_main]

#[allow(dead_code, reason = "a fuzz target is one of them")]
#[path = "../../crates/client/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::dns_answer(input));
