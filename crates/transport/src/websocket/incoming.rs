//! Frames from the client.

use std::ops::Range;

use super::End;
use super::mask::unmask;

/// The most bytes of a frame from a client: twice the largest MQTT packet. A frame is not collected, so this bounds no
/// memory; whoever announces more has lost count, or is up to no good.
pub const FRAME_BYTES_MAX: u32 = 512 << 20;

/// The most bytes of a control frame's payload (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;

/// Where we are among the frames.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// A header that is not whole yet: this many bytes of it.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    place: Place,
    /// A message has begun whose last fragment has not come.
    in_message: bool,
    /// The mask, beginning with the next byte of the payload.
    mask: [u8; 4],
    /// Bytes of the payload yet to come.
    left: u32,
    /// The payload of a control frame that is not whole yet. Few are cut, so it is not kept here.
    control: Option<Box<Control>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Header,
    Data,
    /// In the payload of a control frame of this kind.
    Control(u8),
    End,
}

/// The payload of a control frame.
#[derive(Debug)]
pub(super) struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    length: u8,
}

/// What came of bytes that were read.
pub(super) struct Outcome {
    pub(super) mqtt: Range<usize>,
    /// The last Ping, to be answered.
    pub(super) pong: Option<Control>,
    pub(super) end: Option<End>,
    /// The code of the client's Close, if it said one.
    pub(super) close: Option<u16>,
}

struct Header {
    opcode: u8,
    is_final: bool,
    length: u32,
    mask: [u8; 4],
    bytes: usize,
}

impl Control {
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn empty() -> Self {
        Self { bytes: [0; CONTROL_BYTES_MAX], length: 0 }
    }

    /// Takes what a header has room for: control frames that are longer are refused before.
    fn push(&mut self, bytes: &[u8]) {
        let before = usize::from(self.length);
        if let Some(place) = self.bytes.get_mut(before..before + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len() as u8;
        }
    }
}

impl Incoming {
    #[inline]
    pub(super) fn receive(&mut self, bytes: &mut [u8]) -> Outcome {
        let mut outcome = Outcome { mqtt: 0..0, pong: None, end: None, close: None };
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Header => match self.header(&bytes[at..]) {
                    Ok(None) => break,
                    Ok(Some(used)) => {
                        at += used;
                        // A frame without payload is whole here: clients send such.
                        if self.left == 0 {
                            self.whole(&[], &mut outcome);
                        }
                    }
                    Err(end) => self.end(end, &mut outcome),
                },
                Place::Data => {
                    let count = (bytes.len() - at).min(self.left as usize);
                    self.mask = unmask(&mut bytes[at..at + count], self.mask);
                    if outcome.mqtt.is_empty() {
                        outcome.mqtt = at..at + count;
                    } else {
                        bytes.copy_within(at..at + count, outcome.mqtt.end);
                        outcome.mqtt.end += count;
                    }
                    at += count;
                    self.left -= count as u32;
                    if self.left == 0 {
                        self.place = Place::Header;
                    }
                }
                Place::Control(_) => {
                    let count = (bytes.len() - at).min(self.left as usize);
                    let part = &mut bytes[at..at + count];
                    self.mask = unmask(part, self.mask);
                    at += count;
                    self.left -= count as u32;
                    if self.left == 0 && self.control.is_none() {
                        self.whole(part, &mut outcome);
                        continue;
                    }
                    let mut control = self.control.take().unwrap_or_else(|| Box::new(Control::empty()));
                    control.push(part);
                    if self.left == 0 {
                        self.whole(control.payload(), &mut outcome);
                    } else {
                        self.control = Some(control);
                    }
                }
                Place::End => break,
            }
        }
        outcome
    }

    /// Takes the bytes of a header; returns how many, and the place is in its payload. None if it is not whole, and then
    /// all are taken.
    #[inline]
    fn header(&mut self, bytes: &[u8]) -> Result<Option<usize>, End> {
        if self.header_bytes == 0
            && let Some(header) = Header::parse(bytes, self.in_message)?
        {
            self.begin(&header);
            return Ok(Some(header.bytes));
        }
        // Once in a while a read ends within a header.
        for (used, byte) in bytes.iter().enumerate() {
            // A header is whole before it is longer than the longest.
            let filled = usize::from(self.header_bytes);
            if let Some(place) = self.header.get_mut(filled) {
                *place = *byte;
            }
            self.header_bytes += 1;
            if let Some(header) = Header::parse(&self.header[..=filled], self.in_message)? {
                self.header_bytes = 0;
                self.begin(&header);
                return Ok(Some(used + 1));
            }
        }
        Ok(None)
    }

    #[inline]
    fn begin(&mut self, header: &Header) {
        (self.mask, self.left) = (header.mask, header.length);
        if header.opcode < CLOSE {
            self.in_message = !header.is_final;
            self.place = if header.length == 0 { Place::Header } else { Place::Data };
        } else {
            self.place = Place::Control(header.opcode);
        }
    }

    /// A frame without payload, or a control frame, is whole.
    fn whole(&mut self, payload: &[u8], outcome: &mut Outcome) {
        let Place::Control(opcode) = std::mem::take(&mut self.place) else { return };
        match opcode {
            PING => {
                let mut pong = Control::empty();
                pong.push(payload);
                outcome.pong = Some(pong);
            }
            CLOSE => match close_code(payload) {
                Ok(code) => {
                    outcome.close = code;
                    self.end(End::Closed, outcome);
                }
                Err(end) => self.end(end, outcome),
            },
            // A Pong needs no answer, asked for or not.
            _ => {}
        }
    }

    fn end(&mut self, end: End, outcome: &mut Outcome) {
        self.place = Place::End;
        outcome.end = Some(end);
    }
}

impl Header {
    /// Reads the header that `bytes` begin with; None if it is not whole. What is wrong is found with the byte that is.
    #[inline]
    fn parse(bytes: &[u8], in_message: bool) -> Result<Option<Self>, End> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (opcode, is_final) = (first & 0x0f, first & FINAL != 0);
        if first & RESERVED != 0 {
            return Err(End::ReservedBits);
        }
        match opcode {
            BINARY if in_message => return Err(End::Fragment),
            CONTINUATION if !in_message => return Err(End::Fragment),
            CLOSE | PING | PONG if !is_final => return Err(End::Control),
            BINARY | CONTINUATION | CLOSE | PING | PONG => {}
            TEXT => return Err(End::Text),
            _ => return Err(End::Opcode),
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(End::Unmasked);
        }
        let short = second & !MASKED;
        if opcode >= CLOSE && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(End::Control);
        }
        let (length, length_bytes) = match short {
            126 => {
                let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
                let length = u16::from_be_bytes(*length);
                (if length < 126 { None } else { Some(u64::from(length)) }, 2)
            }
            127 => {
                let Some(length) = bytes[2..].first_chunk() else { return Ok(None) };
                let length = u64::from_be_bytes(*length);
                (if length <= u64::from(u16::MAX) || length >> 63 != 0 { None } else { Some(length) }, 8)
            }
            short => (Some(u64::from(short)), 0),
        };
        let length = length.ok_or(End::Length)?;
        let length = u32::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX).ok_or(End::TooLong)?;
        let Some(&mask) = bytes[2 + length_bytes..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { opcode, is_final, length, mask, bytes: 2 + length_bytes + 4 }))
    }
}

/// The code in a Close frame; None if it has none.
fn close_code(payload: &[u8]) -> Result<Option<u16>, End> {
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(End::Close)?;
    let code = u16::from_be_bytes(*code);
    // Others are reserved, or never sent (RFC 6455, 7.4).
    let is_code = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !is_code || std::str::from_utf8(reason).is_err() {
        return Err(End::Close);
    }
    Ok(Some(code))
}
