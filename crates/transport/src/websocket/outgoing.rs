//! Frames to the client: one header in front of all MQTT bytes that wait, and control frames between.

use super::incoming::{CLOSE, FRAME_BYTES_MAX, PONG};

const FINAL_BINARY: u8 = 0x82;
const FINAL: u8 = 0x80;
/// The longest header without a mask.
const HEADER_BYTES_MAX: usize = 10;

/// Where we are in writing frames.
///
/// A frame is being written while its header is not out or MQTT bytes of it are `left`; control frames go between, never
/// within.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The header of the frame being written: `header[written..bytes]` is not out.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    header_written: u8,
    /// MQTT bytes of this frame that are not out.
    left: u32,
    /// Control frames that wait. Few connections ever have some, so they are not kept here.
    control: Option<Box<Control>>,
}

/// A control frame that may be partly out, at most one whole frame more, and the last one.
#[derive(Debug, Default)]
struct Control {
    bytes: Vec<u8>,
    written: usize,
    closed: bool,
}

impl Outgoing {
    #[inline]
    fn is_within(&self) -> bool {
        self.left > 0 || self.header_written < self.header_bytes
    }

    #[inline]
    pub(super) fn next(&mut self, pending: usize) -> (&[u8], usize) {
        if !self.is_within() {
            if self.control.is_some() {
                // Empty after a Close is out.
                return (self.control.as_ref().map_or(&[], |control| &control.bytes[control.written..]), 0);
            }
            if pending == 0 {
                return (&[], 0);
            }
            self.begin(pending);
        }
        let header = &self.header[usize::from(self.header_written)..usize::from(self.header_bytes)];
        (header, self.left as usize)
    }

    #[inline]
    fn begin(&mut self, pending: usize) {
        let length = u32::try_from(pending).unwrap_or(u32::MAX).min(FRAME_BYTES_MAX);
        self.header[0] = FINAL_BINARY;
        self.header_bytes = if length < 126 {
            self.header[1] = length as u8;
            2
        } else if let Ok(length) = u16::try_from(length) {
            self.header[1] = 126;
            self.header[2..4].copy_from_slice(&length.to_be_bytes());
            4
        } else {
            self.header[1] = 127;
            self.header[2..10].copy_from_slice(&u64::from(length).to_be_bytes());
            10
        };
        (self.header_written, self.left) = (0, length);
    }

    #[inline]
    pub(super) fn wrote(&mut self, count: usize) -> usize {
        if !self.is_within() {
            self.wrote_control(count);
            return 0;
        }
        let of_header = count.min(usize::from(self.header_bytes - self.header_written));
        self.header_written += of_header as u8;
        let of_mqtt = count - of_header;
        self.left = self.left.saturating_sub(of_mqtt as u32);
        of_mqtt
    }

    fn wrote_control(&mut self, count: usize) {
        if let Some(control) = &mut self.control {
            control.written += count;
            while let Some(length) = control.first_bytes().filter(|length| *length <= control.written) {
                control.bytes.drain(..length);
                control.written -= length;
            }
            // What says that nothing follows the Close has to stay.
            if control.bytes.is_empty() && !control.closed {
                self.control = None;
            }
        }
    }

    pub(super) fn has_own(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.written < control.bytes.len())
            || self.header_written < self.header_bytes
    }

    /// Answers a Ping, in place of an answer that no byte is out of: a client that does not read gets one in the end.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        let control = self.control.get_or_insert_default();
        if control.closed {
            return;
        }
        let begun = if control.written > 0 { control.first_bytes() } else { None };
        control.bytes.truncate(begun.unwrap_or(0));
        control.push(PONG, payload);
    }

    /// Says Close with this code, once.
    pub(super) fn close(&mut self, code: Option<u16>) {
        let control = self.control.get_or_insert_default();
        if control.closed {
            return;
        }
        match code {
            Some(code) => control.push(CLOSE, &code.to_be_bytes()),
            None => control.push(CLOSE, &[]),
        }
        control.closed = true;
    }
}

impl Control {
    /// Bytes of the first frame, if there is one.
    fn first_bytes(&self) -> Option<usize> {
        self.bytes.get(1).map(|length| 2 + usize::from(*length))
    }

    fn push(&mut self, opcode: u8, payload: &[u8]) {
        self.bytes.extend_from_slice(&[FINAL | opcode, payload.len() as u8]);
        self.bytes.extend_from_slice(payload);
    }
}
