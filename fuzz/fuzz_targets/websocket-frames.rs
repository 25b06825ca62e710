//! Lengths of chunks, and frames of a WebSocket client.
#![no_main]

#[allow(dead_code, reason = "a fuzz target is one of them")]
#[path = "../../crates/transport/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::websocket_frames(input));
