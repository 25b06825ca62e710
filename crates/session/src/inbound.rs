//! Messages on their way from the peer: which QoS 2 Packet Identifiers are open, and how many may be.

use pantala_proto::PacketId;

/// Packet Identifiers of QoS 2 messages that were received and not yet released. Part of the Session: it outlives
/// the connection.
///
/// ```text
///            PUBLISH: First                PUBREL: true
///  free  ───────────────────►  open  ───────────────────►  free
///                              │  ▲
///                              └──┘ PUBLISH: Repeat
/// ```
#[derive(Debug, Clone, Default)]
pub struct Inbound {
    /// Sorted. Clients count upwards, so a new one nearly always goes to the end.
    open: Vec<PacketId>,
}

/// Whether a QoS 2 PUBLISH is the first with its Packet Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExactlyOnce {
    /// It begins a new message.
    First,
    /// It repeats one that was received already: PUBREC again, no second delivery (v5 MQTT-4.3.3-10).
    Repeat,
}

impl Inbound {
    /// A QoS 2 PUBLISH has arrived.
    pub fn publish(&mut self, packet_id: PacketId) -> ExactlyOnce {
        match self.open.binary_search(&packet_id) {
            Ok(_) => ExactlyOnce::Repeat,
            Err(at) => {
                self.open.insert(at, packet_id);
                ExactlyOnce::First
            }
        }
    }

    /// Whether a message with this Packet Identifier is open.
    pub fn is_open(&self, packet_id: PacketId) -> bool {
        self.open.binary_search(&packet_id).is_ok()
    }

    /// PUBREL has arrived, or the message was refused: the Packet Identifier is free again. False if it was free already.
    pub fn release(&mut self, packet_id: PacketId) -> bool {
        match self.open.binary_search(&packet_id) {
            Ok(at) => {
                self.open.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// Those that are open.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> + '_ {
        self.open.iter().copied()
    }

    /// How many are open: each counts against the Receive Maximum (v5 section 4.9).
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_second_publish_is_a_repeat_until_released() {
        let id = PacketId::FIRST;
        let mut inbound = Inbound::default();
        assert_eq!(inbound.publish(id), ExactlyOnce::First);
        assert_eq!(inbound.publish(id), ExactlyOnce::Repeat);
        assert!(inbound.release(id));
        assert!(!inbound.release(id));
        assert_eq!(inbound.publish(id), ExactlyOnce::First);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in proptest::collection::vec((any::<bool>(), 1..20_u16), 0..200)) {
            let mut inbound = Inbound::default();
            let mut model = std::collections::BTreeSet::new();
            for (publish, number) in steps {
                let id = PacketId::new(number).unwrap();
                if publish {
                    let expected = if model.insert(id) { ExactlyOnce::First } else { ExactlyOnce::Repeat };
                    prop_assert_eq!(inbound.publish(id), expected);
                } else {
                    prop_assert_eq!(inbound.release(id), model.remove(&id));
                }
                prop_assert_eq!(inbound.len(), model.len());
            }
        }
    }
}
