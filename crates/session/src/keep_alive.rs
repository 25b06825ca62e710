//! Keep Alive (v5 section 3.1.2.10).

use crate::Instant;

/// When a client's silence is too long. Costs nothing per packet but a store: the timer looks at the last packet when it
/// fires, and is set again.
// Ten bytes, not sixteen: every connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, packed(2))]
pub struct KeepAlive {
    seconds: u16,
    last_packet: Instant,
}

impl KeepAlive {
    /// Keep Alive of `seconds`, 0 for none, on a connection that has just spoken.
    pub fn new(seconds: u16, now: Instant) -> Self {
        Self { seconds, last_packet: now }
    }

    /// A Control Packet has arrived.
    #[inline]
    pub fn packet_received(&mut self, now: Instant) {
        self.last_packet = now;
    }

    /// When the connection ends if nothing more arrives: one and a half times the Keep Alive after the last packet
    /// (v5 MQTT-3.1.2-22, v3.1.1 MQTT-3.1.2-24). None if it is turned off.
    pub fn deadline(&self) -> Option<Instant> {
        (self.seconds > 0).then(|| Instant(self.last_packet.0 + u64::from(self.seconds) * 1_500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_a_half_times() {
        let mut keep_alive = KeepAlive::new(10, Instant(1_000));
        assert_eq!(keep_alive.deadline(), Some(Instant(16_000)));
        keep_alive.packet_received(Instant(9_000));
        assert_eq!(keep_alive.deadline(), Some(Instant(24_000)));
        assert_eq!(KeepAlive::new(0, Instant(0)).deadline(), None);
    }
}
