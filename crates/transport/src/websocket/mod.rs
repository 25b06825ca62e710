//! The server's side of WebSocket (RFC 6455), for MQTT: binary messages whose borders mean nothing (v5 MQTT-6.0.0-1,
//! MQTT-6.0.0-2).
//!
//! [`Handshake`] reads the request and writes the response; [`WebSocket`] is what a connection keeps after it: 64 bytes
//! while no control frame is cut or waits. MQTT bytes are unmasked where they were read, and written from where they are behind a frame
//! header of their own. Extensions are not taken, so nothing is compressed: MQTT over TLS with secrets in it is better
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
use outgoing::Outgoing;

/// One end of an established WebSocket.
#[derive(Debug, Default)]
pub struct WebSocket {
    incoming: Incoming,
    outgoing: Outgoing,
}

/// What came of bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where the MQTT bytes are, in place of what was read.
    pub mqtt: Range<usize>,
    /// Set if nothing is read after them.
    pub end: Option<End>,
}

/// Why a WebSocket ends. A Close frame in answer waits in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The client said Close.
    #[error("the client closed the WebSocket")]
    Closed,
    /// A frame that is not masked.
    #[error("a WebSocket frame without a mask")]
    Unmasked,
    /// Bits are set that only an extension would set.
    #[error("a WebSocket frame with reserved bits set")]
    ReservedBits,
    /// A kind of frame that does not exist.
    #[error("a WebSocket frame of an unknown kind")]
    Opcode,
    /// A message of text (v5 MQTT-6.0.0-1).
    #[error("a WebSocket message of text; MQTT is binary")]
    Text,
    /// A control frame in fragments, or longer than 125 bytes.
    #[error("a WebSocket control frame in fragments or too long")]
    Control,
    /// A continuation of nothing, or a new message within another.
    #[error("a fragment of a WebSocket message out of order")]
    Fragment,
    /// A length with its first bit set, or written longer than needed.
    #[error("a length of a WebSocket frame that is not one")]
    Length,
    /// A frame longer than [`FRAME_BYTES_MAX`].
    #[error("a WebSocket frame that is too long")]
    TooLong,
    /// A Close frame whose code or reason is not one.
    #[error("a WebSocket Close frame that cannot be read")]
    Close,
}

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
    /// wait in the output. Of several Pings in `bytes` the last is answered, as RFC 6455 allows (5.5.3), so that the
    /// output never grows with them.
    ///
    /// After an [`End`] all bytes are ignored.
    #[inline]
    pub fn receive(&mut self, bytes: &mut [u8]) -> Received {
        let outcome = self.incoming.receive(bytes);
        if let Some(pong) = &outcome.pong {
            self.outgoing.pong(pong.payload());
        }
        match (outcome.end, outcome.close) {
            (Some(End::Closed), code) => self.outgoing.close(code),
            (Some(end), _) => self.outgoing.close(end.code().map(|code| code as u16)),
            (None, _) => {}
        }
        Received { mqtt: outcome.mqtt, end: outcome.end }
    }

    /// What to write now, if `pending` MQTT bytes wait: first the bytes returned, then so many of the MQTT bytes. Those
    /// `pending` bytes have to come in the end, though not at once: a frame once begun has its length.
    ///
    /// Empty, and 0, if nothing is to be written.
    #[inline]
    pub fn output(&mut self, pending: usize) -> (&[u8], usize) {
        self.outgoing.next(pending)
    }

    /// Notes that `count` of the bytes that [`WebSocket::output`] spoke of are written; returns how many of them were
    /// MQTT bytes.
    #[inline]
    pub fn wrote(&mut self, count: usize) -> usize {
        self.outgoing.wrote(count)
    }

    /// Whether something other than MQTT bytes waits to be written.
    #[must_use]
    pub fn has_own_output(&self) -> bool {
        self.outgoing.has_own()
    }

    /// Says goodbye after the frame that is being written: the last bytes of this end. Nothing follows, MQTT bytes neither.
    pub fn close(&mut self, code: CloseCode) {
        self.outgoing.close(Some(code as u16));
    }
}
