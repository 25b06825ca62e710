//! Frames to the client.

use super::incoming::{CLOSE, PONG};

const FINAL: u8 = 0x80;
const BINARY: u8 = 0x2;

/// Appends a frame with all of `bytes`.
#[inline]
pub(super) fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    // The longest header without a mask has ten bytes.
    out.reserve(10 + bytes.len());
    out.push(FINAL | BINARY);
    if let short @ 0..126 = bytes.len() {
        out.push(short as u8);
    } else if let Ok(length) = u16::try_from(bytes.len()) {
        out.push(126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(bytes);
}

/// Appends the answer to a Ping.
pub(super) fn pong(payload: &[u8], out: &mut Vec<u8>) {
    control(PONG, payload, out);
}

/// Appends a Close, with a code if there is one.
pub(super) fn close(code: Option<u16>, out: &mut Vec<u8>) {
    match code {
        Some(code) => control(CLOSE, &code.to_be_bytes(), out),
        None => control(CLOSE, &[], out),
    }
}

fn control(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[FINAL | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}
