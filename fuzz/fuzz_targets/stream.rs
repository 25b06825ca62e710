//! A version, lengths of chunks, and a stream of packets that is cut by them.
#![no_main]

#[allow(dead_code, reason = "a fuzz target is one of them")]
#[path = "../../crates/proto/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::stream(input));
