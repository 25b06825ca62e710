//! What an operator may want to read in the log. The core tells; the shell writes.

use std::net::SocketAddr;

use pantala_proto::{DecodeError, PacketType, ProtocolVersion, QoS, ReasonCode};

use crate::authentication::Failure;
use crate::{Cause, ConnectionKey};

/// Something that happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client was let in.
    Connected {
        /// Its connection.
        connection: ConnectionKey,
        /// Where it connects from, if [`Core::introduce`](crate::Core::introduce) has told.
        address: Option<SocketAddr>,
        /// Its Client Identifier: bytes from outside, to be escaped.
        client_id: Box<str>,
        /// Who it has proved to be: bytes from outside, to be escaped. None for an anonymous client.
        user_name: Option<Box<str>>,
        /// Its version.
        version: ProtocolVersion,
        /// Clean Start.
        clean_start: bool,
        /// Keep Alive in seconds.
        keep_alive: u16,
    },
    /// A connection ended; `client_id` is None if it never became a client's.
    Ended {
        /// The connection.
        connection: ConnectionKey,
        /// Where it came from, if it never became a client's and [`Core::introduce`](crate::Core::introduce) has told.
        address: Option<SocketAddr>,
        /// The Client Identifier: bytes from outside, to be escaped.
        client_id: Option<Box<str>>,
        /// Why.
        why: End,
    },
    /// A client has sent faster than it may, and is not read for a while.
    Paused {
        /// The connection.
        connection: ConnectionKey,
        /// The Client Identifier: bytes from outside, to be escaped.
        client_id: Box<str>,
        /// The limit.
        cause: Cause,
    },
    /// Something was dropped or refused because of a limit. Told once until it is taken by [`Core::next_event`](crate::Core::next_event),
    /// however often it happens; the counters have the numbers.
    Tripped {
        /// What happened.
        trip: Trip,
        /// The Client Identifier of whom it happened to, if that is known: bytes from outside, to be escaped.
        client_id: Option<Box<str>>,
        /// The limit.
        cause: Cause,
    },
    /// A subscription was made, or made anew.
    Subscribed {
        /// The Client Identifier: bytes from outside, to be escaped.
        client_id: Box<str>,
        /// The Topic Filter: bytes from outside, to be escaped.
        filter: Box<str>,
        /// The QoS granted.
        qos: QoS,
    },
    /// A subscription was ended by UNSUBSCRIBE.
    Unsubscribed {
        /// The Client Identifier: bytes from outside, to be escaped.
        client_id: Box<str>,
        /// The Topic Filter: bytes from outside, to be escaped.
        filter: Box<str>,
    },
    /// A whole Control Packet has come, which has not been looked into.
    Received {
        /// The connection.
        connection: ConnectionKey,
        /// The Client Identifier, once the client is let in: bytes from outside, to be escaped.
        client_id: Option<Box<str>>,
        /// The packet.
        packet_type: Option<PacketType>,
        /// Its length.
        bytes: usize,
    },
    /// The socket has begun to take a Control Packet.
    Sent {
        /// The connection.
        connection: ConnectionKey,
        /// The Client Identifier, while the client is let in: bytes from outside, to be escaped.
        client_id: Option<Box<str>>,
        /// The packet.
        packet_type: Option<PacketType>,
        /// Its length.
        bytes: usize,
    },
}

/// Events that are told only to those who want them: many, and each costs its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// [`Event::Subscribed`] and [`Event::Unsubscribed`].
    pub subscriptions: bool,
    /// [`Event::Received`] and [`Event::Sent`].
    pub packets: bool,
}

/// What a limit that was met has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// Messages to a client were dropped, the oldest or the newest.
    MessagesTo,
    /// Messages were refused to their publishers, since the queue of a receiver is full.
    MessagesRefused,
    /// A message of a client was dropped.
    MessageFrom,
    /// A Retained Message was not kept.
    Retained,
    /// A client was refused a subscription.
    Subscription,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client said DISCONNECT, with this code.
    Client(ReasonCode),
    /// The network said so.
    Lost,
    /// What stands between the socket and MQTT (TLS, WebSocket) has failed, in words.
    Transport(&'static str),
    /// The client sent what is no MQTT, or broke the protocol.
    Decode(DecodeError),
    /// What came first was not CONNECT.
    NotMqtt(Stranger),
    /// Enhanced authentication failed.
    Authentication(Failure),
    /// We refused or ended it, with this code.
    Reason(ReasonCode),
    /// The same, and what was behind it.
    Because(ReasonCode, Cause),
    /// No complete CONNECT came in time.
    ConnectTimeout,
    /// The client took no byte for too long.
    WriteStall,
    /// Our own code panicked over it.
    Panic,
}

/// What a first packet that is not CONNECT looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// A TLS ClientHello: the client wants a TLS listener.
    Tls,
    /// An HTTP request: perhaps a WebSocket client.
    Http,
    /// An SSH banner.
    Ssh,
    /// A line or header of the PROXY protocol.
    Proxy,
    /// Another MQTT packet.
    OtherPacket,
}

impl Stranger {
    /// Looks at the first bytes of a connection.
    pub(crate) fn recognise(bytes: &[u8]) -> Self {
        const METHODS: [&[u8]; 8] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN"];
        match bytes {
            [0x16, 0x03, ..] => Self::Tls,
            [b'S', b'S', b'H', b'-', ..] => Self::Ssh,
            [b'P', b'R', b'O', b'X', b'Y', ..] | [0x0d, 0x0a, 0x0d, 0x0a, ..] => Self::Proxy,
            _ if METHODS.iter().any(|method| bytes.starts_with(method)) => Self::Http,
            _ => Self::OtherPacket,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(ReasonCode::Success) => f.write_str("disconnected"),
            Self::Client(code) => write!(f, "disconnected with {code:?}"),
            Self::Lost => f.write_str("connection lost"),
            Self::Transport(why) => f.write_str(why),
            Self::Decode(error) => write!(f, "protocol error: {error}"),
            Self::NotMqtt(Stranger::Tls) => f.write_str("a TLS client on a plain listener"),
            Self::NotMqtt(Stranger::Http) => f.write_str("an HTTP client on an MQTT listener"),
            Self::NotMqtt(Stranger::Ssh) => f.write_str("an SSH client on an MQTT listener"),
            Self::NotMqtt(Stranger::Proxy) => f.write_str("a PROXY header, which this listener does not take"),
            Self::NotMqtt(Stranger::OtherPacket) => f.write_str("the first packet is not CONNECT"),
            Self::Authentication(failure) => write!(f, "authentication failed: {failure}"),
            Self::Reason(code) => write!(f, "{code:?}"),
            Self::Because(code, cause) => write!(f, "{code:?}: {cause}"),
            Self::ConnectTimeout => f.write_str("no complete CONNECT in time"),
            Self::WriteStall => f.write_str("the client does not read"),
            Self::Panic => f.write_str("internal error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1"[..], Stranger::Http),
            (&[0x16, 0x03, 0x01, 0x02], Stranger::Tls),
            (b"SSH-2.0-x", Stranger::Ssh),
            (b"PROXY TCP4", Stranger::Proxy),
            (&[0x30, 0x00], Stranger::OtherPacket),
        ] {
            assert_eq!(Stranger::recognise(bytes), expected);
        }
    }
}
