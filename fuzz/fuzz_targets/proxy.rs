//! Lengths of chunks, and a stream that begins with a PROXY header.
#![no_main]

#[allow(dead_code, reason = "a fuzz target is one of them")]
#[path = "../../crates/transport/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::proxy(input));
