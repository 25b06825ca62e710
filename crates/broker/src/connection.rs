//! One Network Connection, as the core sees it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use pantala_proto::{AcknowledgementKind, Connect, PacketId, ProtocolVersion, ReasonCode, frame};
use pantala_session::{Instant, KeepAlive, ReceivedAliases, SentAliases};

use crate::asking::Asking;
use crate::authentication::Exchange;
use crate::durability::Until;
use crate::maybe_instant::MaybeInstant;
use crate::output::Output;
use crate::pace::Rates;
use crate::replay::Replay;
use crate::session::SessionKey;
use crate::timers::TimerId;
use crate::{Cause, ListenerId, Peer, SecurityId, Settings, Verified};

/// How far a connection has come.
///
/// ```text
/// AwaitConnect ──► Authenticating ──► Connected ──► Closing
///   ▲  │  └────────────────────────────▲   │           ▲
///   ▼  └───────────────────────────────────┴───────────┤
/// Verifying ───────────────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing but CONNECT is taken.
    AwaitConnect,
    /// Somebody else is looking at the credentials of its CONNECT, which stays at the front of its input until then. Nothing
    /// is taken.
    Verifying,
    /// Nothing but AUTH and DISCONNECT is taken.
    Authenticating,
    /// The client is let in.
    Connected,
    /// What waits is written, then the socket is closed. Nothing is taken.
    Closing,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// Tells it from others that have had the same key.
    pub(crate) generation: u32,
    pub(crate) listener: ListenerId,
    pub(crate) phase: Phase,
    pub(crate) version: ProtocolVersion,
    /// It is in the list of connections with output, or `gated`.
    pub(crate) dirty: bool,
    /// Its output waits for the store.
    pub(crate) gated: bool,
    /// Reason Strings and User Properties are welcome (v5 MQTT-3.1.2-29).
    pub(crate) problem_information: bool,
    /// What it sends is charged: see [`Connection::set_pace`].
    pub(crate) paced: bool,
    /// The client's Session, while `phase` is `Connected`.
    pub(crate) session: Option<SessionKey>,
    /// The front of a packet whose rest has not come.
    pub(crate) input: Vec<u8>,
    pub(crate) place: Place,
    /// Bytes of `input` at which to look again.
    pub(crate) needed: u32,
    pub(crate) output: Output,
    pub(crate) keep_alive: KeepAlive,
    /// When it was opened, in milliseconds of which the upper half is cut off: it counts for `connect_seconds` only.
    opened: u32,
    /// Since when the socket has taken nothing of what waits.
    pub(crate) stalled_since: MaybeInstant,
    pub(crate) timer: Option<TimerId>,
    /// The client's Maximum Packet Size; `u32::MAX` is no limit.
    pub(crate) packet_bytes_max: u32,
    /// QoS 1 and 2 messages it may have unacknowledged.
    pub(crate) window: u16,
    /// Where its last plain PUBLISH went.
    pub(crate) route: Option<Box<Route>>,
    /// What its CONNACK was made from: an MQTT 5 client may count on what it was told until the connection ends.
    pub(crate) told: Arc<Settings>,
    /// What few connections need.
    pub(crate) extras: Option<Box<Extras>>,
}

/// Where the client is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Nobody has said.
    Unknown,
    /// All that the transport knows, until the client is let in.
    Peer(Box<Peer>),
    /// What is left of that afterwards: its address, and whether it has a certificate.
    NoAddress {
        certificate: bool,
    },
    Ipv4 {
        certificate: bool,
        address: Ipv4Addr,
    },
    // Boxed for the sake of all others.
    Ipv6 {
        certificate: bool,
        address: Box<Ipv6Addr>,
    },
}

impl Place {
    /// Of a client that is let in.
    pub(crate) fn of(peer: Option<&Peer>) -> Self {
        let Some(peer) = peer else { return Self::Unknown };
        let certificate = peer.certificate.is_some();
        match peer.address.map(|address| address.ip().to_canonical()) {
            None => Self::NoAddress { certificate },
            Some(IpAddr::V4(address)) => Self::Ipv4 { certificate, address },
            Some(IpAddr::V6(address)) => Self::Ipv6 { certificate, address: Box::new(address) },
        }
    }

    /// The address as its own protocol has it: one of IPv4 that came to a socket for both is one of IPv4.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Unknown | Self::NoAddress { .. } => None,
            Self::Peer(peer) => peer.address.map(|address| address.ip().to_canonical()),
            Self::Ipv4 { address, .. } => Some(IpAddr::V4(*address)),
            Self::Ipv6 { address, .. } => Some(IpAddr::V6(**address)),
        }
    }

    pub(crate) fn has_certificate(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Peer(peer) => peer.certificate.is_some(),
            Self::NoAddress { certificate } | Self::Ipv4 { certificate, .. } | Self::Ipv6 { certificate, .. } => {
                *certificate
            }
        }
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    pub(crate) fn take_peer(&mut self) -> Option<Box<Peer>> {
        match std::mem::replace(self, Self::Unknown) {
            Self::Peer(peer) => Some(peer),
            place => {
                *self = place;
                None
            }
        }
    }
}

/// Where the plain PUBLISH packets of one connection go that begin with the same Topic Name: most publishers have one or
/// two, and need no look into the filter tree while no subscription changes.
#[derive(Debug)]
pub(crate) struct Route {
    /// [`FilterTree::changes`](pantala_router::FilterTree::changes) when it was found.
    pub(crate) changes: u64,
    /// The only receiver.
    pub(crate) session: SessionKey,
    /// How the body of such a packet begins: Topic Name with its length, and in MQTT 5 no properties.
    pub(crate) body_start: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) received_aliases: ReceivedAliases,
    pub(crate) sent_aliases: Option<SentAliases>,
    pub(crate) held: VecDeque<Held>,
    pub(crate) next_held: u32,
    /// The PUBLISH at the front of `input` waits for other workers; nothing more is read.
    pub(crate) asking: Option<Box<Asking>>,
    pub(crate) authentication: Option<Authentication>,
    /// The Authentication Method of CONNECT, which later AUTH packets repeat.
    pub(crate) authentication_method: Option<Box<str>>,
    /// The client is a bridge of an older version: its own messages do not go back to it.
    pub(crate) bridge: bool,
    /// It has sent faster than it may, and is not read until then.
    pub(crate) paused_until: Option<Instant>,
    /// Who the client proved to be by enhanced authentication.
    pub(crate) user_name: Option<Box<str>>,
    /// The domain that is asked about the client's credentials.
    pub(crate) asked: SecurityId,
    /// Who the client has been found to be, while its CONNECT has not been dealt with.
    pub(crate) verified: Option<Box<Verified>>,
    /// When its credentials expire.
    pub(crate) expires_at: Option<Instant>,
}

/// An answer that must not be sent yet. Answers go out in the order in which they were held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) number: u32,
    /// The store has to reach this.
    pub(crate) until: Until,
    /// Confirmations from other workers still to come.
    pub(crate) waiting: u32,
    pub(crate) answer: Answer,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Acknowledgement(AcknowledgementKind, PacketId, ReasonCode),
    /// The same for a message that was not taken.
    Refusal(AcknowledgementKind, PacketId, ReasonCode, Cause),
    /// SUBACK or UNSUBACK, encoded, and the Retained Messages that follow it.
    Packet(Box<[u8]>, Vec<Replay>),
    PingResp,
}

/// An exchange of AUTH packets that has not ended.
pub(crate) struct Authentication {
    pub(crate) exchange: Box<dyn Exchange>,
    /// Whose users it knows.
    pub(crate) security: SecurityId,
    /// The body of the CONNECT that waits for it; None when it is a re-authentication.
    pub(crate) connect: Option<Box<[u8]>>,
    pub(crate) rounds: u8,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authentication").field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(generation: u32, listener: ListenerId, told: Arc<Settings>, now: Instant) -> Self {
        Self {
            generation,
            listener,
            phase: Phase::AwaitConnect,
            version: ProtocolVersion::V311,
            dirty: false,
            gated: false,
            problem_information: true,
            paced: false,
            session: None,
            input: Vec::new(),
            place: Place::Unknown,
            needed: 0,
            output: Output::default(),
            keep_alive: KeepAlive::default(),
            opened: now.0 as u32,
            stalled_since: MaybeInstant::NONE,
            timer: None,
            packet_bytes_max: u32::MAX,
            route: None,
            window: u16::MAX,
            told,
            extras: None,
        }
    }

    /// When it was opened. Right for the 49 days after that.
    pub(crate) fn opened(&self, now: Instant) -> Instant {
        Instant(now.0 - u64::from((now.0 as u32).wrapping_sub(self.opened)))
    }

    /// Decides whether what it sends is charged, so that a read need not ask again: where its listener has a limit to how fast a
    /// client may send, and the client is not on this machine. To be called when either may be new.
    pub(crate) fn set_pace(&mut self, rates: &Rates) {
        self.paced =
            rates.at(self.listener).is_limit() && self.place.address().is_some_and(|address| !address.is_loopback());
    }

    /// Whether somebody looks at its credentials, and they may be found to be those of this user of a security domain.
    pub(crate) fn may_become(&self, security: SecurityId, user_name: Option<&str>) -> bool {
        if self.phase != Phase::Verifying || self.extras.as_ref().is_none_or(|extras| extras.asked != security) {
            return false;
        }
        let Ok(frame::Split::Frame(frame)) = frame::split(&self.input, u32::MAX) else { return false };
        let Ok(connect) = Connect::decode(frame.body) else { return false };
        let by_certificate = self.place.peer().and_then(|peer| peer.user_name_by_certificate.as_deref());
        connect.user_name.filter(|name| !name.is_empty()) == user_name
            || by_certificate.is_some() && by_certificate == user_name
    }

    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Whether a QoS 0 PUBLISH of so many bytes can be appended to its output as it is: no limit is near, no Topic Alias
    /// to be put in.
    #[inline]
    pub(crate) fn takes_plain(&self, packet_bytes: usize, outgoing_bytes_max: u32) -> bool {
        let pending = self.output.pending();
        packet_bytes <= self.packet_bytes_max as usize
            && (pending == 0 || pending + packet_bytes <= outgoing_bytes_max as usize)
            && self.extras.as_ref().is_none_or(|extras| extras.sent_aliases.is_none())
    }

    /// The held answer with this number.
    pub(crate) fn held(&mut self, number: u32) -> Option<&mut Held> {
        // They are numbered one by one and leave from the front.
        let held = &mut self.extras.as_mut()?.held;
        let place = number.wrapping_sub(held.front()?.number);
        held.get_mut(place as usize)
    }

    /// Whether a PUBLISH of it waits for other workers.
    pub(crate) fn is_asking(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.asking.is_some())
    }

    /// Answers that are held.
    #[inline]
    pub(crate) fn held_len(&self) -> usize {
        self.extras.as_ref().map_or(0, |extras| extras.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a hundred thousand of them.
    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Place>(), 16);
        assert_eq!(size_of::<Connection>(), 176);
    }

    #[test]
    fn opened_is_right_when_its_half_has_run_over() {
        for opened in [0, 1_000, (1 << 32) - 1, 1 << 32, (5 << 32) + 7] {
            let connection = Connection::new(0, 0, Arc::new(Settings::default()), Instant(opened));
            for later in [0, 1, 10_000, u64::from(u32::MAX)] {
                assert_eq!(connection.opened(Instant(opened + later)), Instant(opened));
            }
        }
    }
}
