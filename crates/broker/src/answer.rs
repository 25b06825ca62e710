//! Answers: sent in the order of what they answer, each when what it vouches for is safe.

use pantala_proto::{Acknowledgement, Packet};
use pantala_store::Store;

use crate::ConnectionKey;
use crate::connection::{Answer, Held};
use crate::core::Core;
use crate::durability::Until;

impl<S: Store> Core<S> {
    /// Appends to a connection's output, whatever its length.
    pub(crate) fn send(&mut self, key: ConnectionKey, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.output.append(&mut self.pool, usize::MAX, 0, write);
        self.counters.other_packets_sent += 1;
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Sends an answer once the store has reached `until` and `waiting` confirmations have come, and not before the
    /// answers held already. Returns its number among those held, or None if it went out at once.
    pub(crate) fn answer(
        &mut self,
        key: ConnectionKey,
        until: impl Into<Until>,
        waiting: u32,
        answer: Answer,
    ) -> Option<u32> {
        let until = until.into();
        let safe = is_safe(&self.store, until) || mutant!(AckBeforeCommit);
        let connection = self.connections.get_mut(key as usize)?;
        if waiting == 0 && safe && connection.held_len() == 0 {
            self.send_answer(key, answer);
            return None;
        }
        let generation = connection.generation;
        let extras = connection.extras();
        let number = extras.next_held;
        extras.next_held = number.wrapping_add(1);
        extras.held.push_back(Held { number, until, waiting, answer });
        match until {
            _ if safe => {}
            Until::Durable(position) => self.waiting_for_store.push_back((position, key, generation)),
            Until::Written(position) => self.waiting_for_write.push_back((position, key, generation)),
        }
        Some(number)
    }

    /// Sends what is held and may go.
    pub(crate) fn release_held(&mut self, key: ConnectionKey) {
        loop {
            let Some(connection) = self.connections.get_mut(key as usize) else { return };
            let Some(extras) = &mut connection.extras else { return };
            match extras.held.front() {
                Some(held) if held.waiting == 0 && is_safe(&self.store, held.until) => {}
                _ => return,
            }
            let Some(held) = extras.held.pop_front() else { return };
            self.send_answer(key, held.answer);
        }
    }

    pub(crate) fn send_answer(&mut self, key: ConnectionKey, answer: Answer) {
        match answer {
            Answer::Acknowledgement(kind, packet_id, code) => {
                let version = self.connections[key as usize].version;
                self.send(key, |out| {
                    Acknowledgement::new(kind, packet_id, code).encode(version, out);
                });
            }
            Answer::Refusal(kind, packet_id, code, cause) => {
                let connection = &self.connections[key as usize];
                let (version, bytes_max) = (connection.version, connection.packet_bytes_max);
                // v5 MQTT-3.1.2-29: who does not ask for them is not sent any, but in CONNACK and DISCONNECT.
                let reason = (version.is_v5() && connection.problem_information).then(|| cause.to_string());
                let packet =
                    Acknowledgement { reason_string: reason.as_deref(), ..Acknowledgement::new(kind, packet_id, code) };
                self.send(key, |out| packet.encode_within(version, bytes_max, out));
            }
            Answer::Packet(bytes, replays) => {
                self.send(key, |out| out.extend_from_slice(&bytes));
                if let Some(session) = self.connections[key as usize].session {
                    self.begin_replays(session, replays);
                }
            }
            Answer::PingResp => {
                self.send(key, |out| Packet::PingResp.encode(pantala_proto::ProtocolVersion::V311, out));
            }
        }
    }
}

fn is_safe(store: &impl Store, until: Until) -> bool {
    match until {
        Until::Durable(position) => position <= store.durable(),
        Until::Written(position) => position <= store.written(),
    }
}
