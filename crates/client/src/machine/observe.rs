//! Looking at packets as they go by.

use pantala_proto::{Packet, ProtocolVersion, frame};

use super::Machine;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the broker.
    Sent,
    /// From the broker.
    Received,
}

/// Is called with each packet. See [`Options::observer`](crate::Options::observer).
pub type Observer = Box<dyn FnMut(Direction, &Packet<'_>) + Send>;

pub(super) struct Observed {
    observer: Observer,
    /// Bytes of the output that it has seen.
    seen: usize,
}

impl Machine {
    /// Has `observer` called with each packet: those received before they are dealt with, those to send once they stand in the
    /// output, and an answer after what it answers. Only sound packets are shown.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observed = Some(Box::new(Observed { observer, seen: 0 }));
        self
    }

    #[inline]
    pub(super) fn observe_received(&mut self, packet: &Packet<'_>) {
        if let Some(observed) = &mut self.observed {
            (observed.observer)(Direction::Received, packet);
        }
    }

    /// Shows a packet that goes out past the output.
    pub(super) fn observe_sent(&mut self, packet: &Packet<'_>) {
        if let Some(observed) = &mut self.observed {
            (observed.observer)(Direction::Sent, packet);
        }
    }

    /// Shows what has been added to the output.
    #[inline]
    pub(super) fn observe_output(&mut self) {
        if let Some(observed) = &mut self.observed {
            observed.look(self.settings.version, &self.output);
        }
    }

    /// The output is another one.
    pub(super) fn observe_anew(&mut self) {
        if let Some(observed) = &mut self.observed {
            observed.seen = 0;
        }
    }
}

impl Observed {
    fn look(&mut self, version: ProtocolVersion, output: &[u8]) {
        while let Some(rest) = output.get(self.seen..)
            && let Ok(frame::Split::Frame(frame)) = frame::split(rest, u32::MAX)
        {
            self.seen += frame.packet_bytes;
            if let Ok(packet) = Packet::decode(version, frame.first_byte, frame.body) {
                (self.observer)(Direction::Sent, &packet);
            }
        }
    }
}
