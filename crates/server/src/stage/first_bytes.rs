//! A stage for a port that several protocols share: it looks at the first bytes and makes way for what they ask for.

use std::sync::Arc;

use pantala_broker::Peer;
use pantala_transport::first_bytes::{self, FirstBytes};

use super::websocket::WebSocket;
use super::{NOT_ALLOWED, Progress, Stage, is_allowed};
use crate::config::Transport;

/// Waits for enough bytes to tell.
#[derive(Debug)]
pub(crate) struct Choice {
    transport: Arc<Transport>,
    kept: [u8; first_bytes::BYTES_MAX],
    kept_bytes: u8,
    found: Option<FirstBytes>,
}

impl Choice {
    pub(super) fn new(transport: Arc<Transport>) -> Self {
        Self { transport, kept: Default::default(), kept_bytes: 0, found: None }
    }

    pub(super) fn receive(&mut self, bytes: &[u8], inward: &mut Vec<u8>, peer: &Peer) -> Progress {
        let before = usize::from(self.kept_bytes);
        inward.extend_from_slice(&self.kept[..before]);
        inward.extend_from_slice(bytes);
        self.found = first_bytes::recognise(inward);
        match self.found {
            // Whose request it is, its header may tell.
            Some(FirstBytes::Http) => return Progress::Done,
            Some(_) if is_allowed(&self.transport, peer.address) => return Progress::Done,
            Some(_) => return Progress::Failed(NOT_ALLOWED),
            None => {}
        }
        // As long as they do not tell, there are fewer than there is room for.
        if let Some(place) = self.kept.get_mut(before..inward.len()) {
            place.copy_from_slice(bytes);
            self.kept_bytes = inward.len() as u8;
        }
        inward.clear();
        Progress::Open
    }

    /// What stands in its place from now on. What is neither HTTP nor MQTT is for the core to refuse, which knows what to say.
    pub(super) fn successors(&self) -> Option<Stage> {
        match self.found {
            Some(FirstBytes::Http) => Some(Stage::WebSocket(WebSocket::new(Arc::clone(&self.transport)))),
            _ => None,
        }
    }
}
