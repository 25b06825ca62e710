//! The stage of MQTT over WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use pantala_transport::websocket::{self, CloseCode, End, Handshake};

use super::{Learnt, NOT_ALLOWED, Progress, Told, is_allowed};
use crate::config::Transport;

/// One connection.
#[derive(Debug)]
pub(crate) enum WebSocket {
    /// The request has not come, or not all of it.
    Request(Box<(Handshake, Arc<Transport>)>),
    /// Frames.
    Open(websocket::WebSocket),
}

/// Who begins in a way that no request does: what would be left waiting for the rest of its first line.
fn stranger(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x10, ..] => Some("an MQTT client without WebSocket on a listener for WebSocket"),
        [0x16, ..] => Some("a TLS client on a listener without TLS"),
        _ => None,
    }
}

impl WebSocket {
    pub(super) fn new(transport: Arc<Transport>) -> Self {
        Self::Request(Box::new((Handshake::default(), transport)))
    }

    pub(super) fn receive(
        &mut self,
        bytes: &mut [u8],
        inward: &mut Vec<u8>,
        outward: &mut Vec<u8>,
        learnt: &mut Learnt<'_>,
    ) -> Progress {
        let Learnt { peer, told, .. } = learnt;
        let mut used = 0;
        if let Self::Request(request) = self {
            let (handshake, transport) = &mut **request;
            if !handshake.has_begun()
                && let Some(why) = stranger(bytes)
            {
                // It would not understand a response.
                told.push(Told::Refused(why));
                return Progress::Failed(why);
            }
            let address = peer.address.map(|address| address.ip());
            let upgrade = match handshake.receive(&transport.websocket, address, bytes) {
                Ok(None) => return Progress::Open,
                Ok(Some((upgrade, of_request))) => {
                    used = of_request;
                    upgrade
                }
                Err(refusal) => {
                    outward.append(&mut refusal.response());
                    told.push(Told::Refused(refusal.words()));
                    return Progress::Failed(refusal.words());
                }
            };
            if let Some(client) = upgrade.forwarded_for {
                // Proxies do not tell the port.
                peer.address = Some(SocketAddr::new(client, 0));
            }
            if !is_allowed(transport, peer.address.map(|address| address.ip())) {
                told.push(Told::Refused(NOT_ALLOWED));
                return Progress::Failed(NOT_ALLOWED);
            }
            told.push(Told::Accepted(upgrade.subprotocol.name()));
            outward.extend_from_slice(&upgrade.response);
            *self = Self::Open(websocket::WebSocket::default());
        }
        let Self::Open(open) = self else { return Progress::Open };
        let bytes = &mut bytes[used..];
        let received = open.receive(bytes, outward);
        inward.extend_from_slice(&bytes[received.mqtt]);
        match received.end {
            None => Progress::Open,
            Some(End::Closed) => {
                told.push(Told::ClosedByClient(received.code));
                Progress::Ended
            }
            Some(end) => {
                told.push(Told::Closed(received.code.unwrap_or_default(), end.words()));
                Progress::Failed(end.words())
            }
        }
    }

    /// Whether the request could say that the client is at another address than this one.
    pub(super) fn may_tell_address(&self, address: Option<SocketAddr>) -> bool {
        let Self::Request(request) = self else { return false };
        request.1.websocket.trusts(address.map(|address| address.ip()))
    }

    pub(super) fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) {
        if let Self::Open(open) = self {
            open.send(bytes, outward);
        }
    }

    pub(super) fn close(&mut self, code: CloseCode, outward: &mut Vec<u8>, told: &mut Vec<Told>) {
        if let Self::Open(open) = self
            && open.close(code, outward)
        {
            let words = if code == CloseCode::GoingAway { "the broker stops" } else { "all is done" };
            told.push(Told::Closed(code as u16, words));
        }
    }
}
