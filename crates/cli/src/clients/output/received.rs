//! An Application Message as it is to be printed.

use std::time::{SystemTime, UNIX_EPOCH};

use pantala_proto::{Delivery, PacketId, Publish, PublishProperties};

/// A moment of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970, without leap seconds.
    pub seconds: i64,
    /// 0..1_000_000_000.
    pub nanoseconds: u32,
}

impl From<SystemTime> for Moment {
    /// A time before 1970 becomes 1970: no message came then.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
    }
}

/// An Application Message and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Topic Name.
    pub topic_name: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS, with Packet Identifier and DUP where there are some.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// Properties, in the order in which they came.
    pub properties: PublishProperties<'a>,
    /// When it came.
    pub received_at: Moment,
}

impl<'a> Received<'a> {
    /// The message of a PUBLISH that came now. A Topic Alias must have been resolved.
    pub fn new(publish: &Publish<'a>, received_at: Moment) -> Self {
        let Publish { delivery, retain, topic_name, properties, payload } = *publish;
        Self { topic_name, payload, delivery, retain, properties, received_at }
    }

    /// The number of the Packet Identifier; 0 without one.
    pub(crate) fn packet_number(&self) -> u16 {
        self.delivery.packet_id().map_or(0, PacketId::number)
    }

    /// The number of the QoS.
    pub(crate) fn qos_number(&self) -> u8 {
        self.delivery.qos() as u8
    }
}
