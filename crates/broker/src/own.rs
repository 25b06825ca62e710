//! What the broker itself publishes: its state, under `$SYS/`.

use pantala_proto::{ForwardProperties, QoS};
use pantala_session::Instant;
use pantala_store::Store;

use crate::access;
use crate::core::Core;
use crate::message::{Incoming, Room};
use crate::persist::Origin;

impl<S: Store> Core<S> {
    /// Publishes a message of the broker's own, to the subscribers at all workers. To be called at one worker only.
    ///
    /// It is kept in memory only, whatever the durability: after a restart the broker has other things to say. No client
    /// published it, so it is not among the PUBLISH packets received; what is sent of it is among those sent. Retained, it
    /// counts towards no limit. A Topic Name that does not begin with `$SYS/` is left unsaid.
    pub fn publish_own(&mut self, now: Instant, topic_name: &str, payload: &[u8], qos: QoS, retain: bool) {
        let Ok(permit) = access::own(topic_name) else { return };
        let incoming = Incoming {
            topic_name,
            properties: ForwardProperties::default(),
            payload,
            qos,
            retain,
            expires_at: None,
            id: None,
            room: Room::Unasked,
        };
        self.begin_naming();
        self.route(now, None, &incoming, Origin::default(), permit);
    }
}
