//! A stage for a port that several protocols share: it looks at the first bytes and makes way for what they ask for.

use std::net::SocketAddr;
use std::sync::Arc;

use pantala_broker::Peer;
use pantala_transport::first_bytes::{self, FirstBytes};

use super::tls::Tls;
use super::websocket::WebSocket;
use super::{NOT_ALLOWED, Progress, Stage, is_allowed};
use crate::config::Transport;
use crate::tls::TlsListener;

/// Waits for enough bytes to tell.
#[derive(Debug)]
pub(crate) struct Choice {
    transport: Arc<Transport>,
    /// TLS as one of the choices; None where it is not spoken, or is begun already.
    tls: Option<Arc<TlsListener>>,
    kept: [u8; first_bytes::BYTES_MAX],
    kept_bytes: u8,
    found: Option<FirstBytes>,
}

impl Choice {
    pub(super) fn new(transport: Arc<Transport>, tls: Option<Arc<TlsListener>>) -> Self {
        Self { transport, tls, kept: Default::default(), kept_bytes: 0, found: None }
    }

    pub(super) fn receive(&mut self, bytes: &[u8], inward: &mut Vec<u8>, peer: &Peer) -> Progress {
        let before = usize::from(self.kept_bytes);
        inward.extend_from_slice(&self.kept[..before]);
        inward.extend_from_slice(bytes);
        self.found = first_bytes::recognise(inward);
        let Some(found) = self.found else {
            // As long as they do not tell, there are fewer than there is room for.
            if let Some(place) = self.kept.get_mut(before..inward.len()) {
                place.copy_from_slice(bytes);
                self.kept_bytes = inward.len() as u8;
            }
            inward.clear();
            return Progress::Open;
        };
        let refusal = match (found, &self.tls) {
            // What is in it is looked at when it is taken off.
            (FirstBytes::Tls, Some(_)) => None,
            // Whose request it is, its header may tell.
            (FirstBytes::Http, _) => None,
            _ if is_allowed(&self.transport, peer.address.map(|address| address.ip())) => None,
            _ => Some(NOT_ALLOWED),
        };
        match refusal {
            None => Progress::Done,
            Some(why) => {
                inward.clear();
                Progress::Failed(why)
            }
        }
    }

    /// Whether a WebSocket that begins here could be that of another address than this one.
    pub(super) fn may_tell_address(&self, address: Option<SocketAddr>) -> bool {
        self.transport.websocket.trusts(address.map(|address| address.ip()))
    }

    /// What stands in its place from now on. What is none of these and not MQTT is for the core to refuse, which knows what to
    /// say.
    pub(super) fn successors(&mut self) -> Vec<Stage> {
        let transport = Arc::clone(&self.transport);
        match (self.found, self.tls.take()) {
            (Some(FirstBytes::Tls), Some(tls)) => {
                vec![Stage::Tls(Box::new(Tls::new(&tls))), Stage::FirstBytes(Self::new(transport, None))]
            }
            (Some(FirstBytes::Http), _) => vec![Stage::WebSocket(WebSocket::new(transport))],
            _ => Vec::new(),
        }
    }
}
