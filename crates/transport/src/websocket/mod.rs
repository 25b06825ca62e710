//! The server's side of WebSocket (RFC 6455), for MQTT: binary messages whose borders mean nothing (v5 MQTT-6.0.0-1,
//! MQTT-6.0.0-2).
//!
//! [`Handshake`] reads the request and writes the response; [`WebSocket`] is what a connection keeps after it: 48 bytes
//! while no control frame is cut. MQTT bytes are unmasked where they were read; all that is to be written at once goes into
//! one frame. Extensions are not taken, so nothing is compressed: MQTT over TLS with secrets in it is better
//! off without, and a broker cannot bound what a few bytes unpack to.

mod handshake;
mod incoming;
mod mask;
mod outgoing;

use std::ops::Range;

pub use handshake::{
    HEADERS_MAX, Handshake, Options, Origins, REQUEST_BYTES_MAX, REQUEST_LINE_BYTES_MAX, Refusal, Subprotocol, Upgrade,
};
pub use incoming::FRAME_BYTES_MAX;

use incoming::Incoming;

/// One end of an established WebSocket.
#[derive(Debug, Default)]
pub struct WebSocket {
    incoming: Incoming,
    /// Close is said: nothing follows it.
    closed: bool,
}

/// What came of bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where the MQTT bytes are, in place of what was read.
    pub mqtt: Range<usize>,
    /// Set if nothing is read after them.
    pub end: Option<End>,
    /// The code that is answered to that, if nothing was said before: what the client's Close has, or what is wrong. None where
    /// it has none.
    pub code: Option<u16>,
}

/// Why a WebSocket ends. It is answered with a Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The client said Close.
    Closed,
    /// A frame that is not masked.
    Unmasked,
    /// Bits are set that only an extension would set.
    ReservedBits,
    /// A kind of frame that does not exist.
    Opcode,
    /// A message of text (v5 MQTT-6.0.0-1).
    Text,
    /// A control frame in fragments, or longer than 125 bytes.
    Control,
    /// A continuation of nothing, or a new message within another.
    Fragment,
    /// A length with its first bit set, or written longer than needed.
    Length,
    /// A frame longer than [`FRAME_BYTES_MAX`].
    TooLong,
    /// A Close frame whose code or reason is not one.
    Close,
}

impl End {
    /// In words, for the log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Closed => "the client closed the WebSocket",
            Self::Unmasked => "a WebSocket frame without a mask",
            Self::ReservedBits => "a WebSocket frame with reserved bits set",
            Self::Opcode => "a WebSocket frame of an unknown kind",
            Self::Text => "a WebSocket message of text; MQTT is binary",
            Self::Control => "a WebSocket control frame in fragments or too long",
            Self::Fragment => "a fragment of a WebSocket message out of order",
            Self::Length => "a length of a WebSocket frame that is not one",
            Self::TooLong => "a WebSocket frame that is too long",
            Self::Close => "a WebSocket Close frame that cannot be read",
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}

impl std::error::Error for End {}

/// The code in a Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCode {
    /// All is done.
    Normal = 1000,
    /// The broker stops.
    GoingAway = 1001,
    /// The peer broke RFC 6455.
    Protocol = 1002,
    /// A text message.
    Unsupported = 1003,
    /// A frame that is too long.
    TooBig = 1009,
}

impl End {
    /// The code that we close with; None if the client closed, and is answered with what it said.
    fn code(self) -> Option<CloseCode> {
        match self {
            Self::Closed => None,
            Self::Text => Some(CloseCode::Unsupported),
            Self::TooLong => Some(CloseCode::TooBig),
            _ => Some(CloseCode::Protocol),
        }
    }
}

impl WebSocket {
    /// Takes bytes as they were read. The MQTT bytes among them are moved together, unmasked; answers to Ping and Close
    /// are appended to `out`. Of several Pings in `bytes` the last is answered, as RFC 6455 allows (5.5.3), so that a
    /// client gets less than it sends.
    ///
    /// After an [`End`] all bytes are ignored.
    #[inline]
    pub fn receive(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Received {
        let outcome = self.incoming.receive(bytes);
        if let Some(pong) = &outcome.pong
            && !self.closed
        {
            outgoing::pong(pong.payload(), out);
        }
        let code = outcome.end.and_then(|end| end.code().map_or(outcome.close, |code| Some(code as u16)));
        if outcome.end.is_some() {
            self.say_close(code, out);
        }
        Received { mqtt: outcome.mqtt, end: outcome.end, code }
    }

    /// Appends a frame with these MQTT bytes to `out`. None for no bytes, and none after a Close.
    #[inline]
    pub fn send(&mut self, mqtt: &[u8], out: &mut Vec<u8>) {
        if !mqtt.is_empty() && !self.closed {
            outgoing::binary(mqtt, out);
        }
    }

    /// Says goodbye; false if that was said before.
    pub fn close(&mut self, code: CloseCode, out: &mut Vec<u8>) -> bool {
        self.say_close(Some(code as u16), out)
    }

    fn say_close(&mut self, code: Option<u16>, out: &mut Vec<u8>) -> bool {
        let says = !std::mem::replace(&mut self.closed, true);
        if says {
            outgoing::close(code, out);
        }
        says
    }
}
