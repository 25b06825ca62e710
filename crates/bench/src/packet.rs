//! The few Control Packets a load generator needs, as bytes: MQTT 5.0, and 3.1.1 where a load asks for it.

use crate::fault::Fault;
use crate::features::{Features, Version};

/// First byte of CONNACK.
pub const CONNACK: u8 = 0x20;
/// First byte of PUBACK.
pub const PUBACK: u8 = 0x40;
/// First byte of PUBREC.
pub const PUBREC: u8 = 0x50;
/// First byte of PUBREL, with the flags the standard demands (v5 MQTT-3.6.1-1).
pub const PUBREL: u8 = 0x62;
/// First byte of PUBCOMP.
pub const PUBCOMP: u8 = 0x70;
/// First byte of SUBACK.
pub const SUBACK: u8 = 0x90;
/// First byte of DISCONNECT.
pub const DISCONNECT: u8 = 0xE0;

/// Bytes at the start of every payload: publisher number (`u32`) and sequence number (`u64`), big endian.
pub const STAMP_BYTES: usize = 12;

/// Keep Alive of every connection, in seconds; longer than any run, so that no PINGREQ is needed.
const KEEP_ALIVE_SECONDS: u16 = 300;

/// Topic Aliases that a subscriber allows where it allows any.
const TOPIC_ALIAS_MAXIMUM: u8 = 10;

/// A Will Message for connections that are to cost as much as real ones.
#[derive(Clone, Debug)]
pub struct Will {
    /// Topic Name the broker would publish to.
    pub topic_name: String,
    /// Payload of that message.
    pub payload: Vec<u8>,
}

/// CONNECT of MQTT 5.0: Clean Start, no Session Expiry, Keep Alive 300 s.
pub fn connect(client_id: &str, will: Option<&Will>) -> Vec<u8> {
    connect_with(client_id, will, Features::default())
}

/// The same with what `features` has.
pub fn connect_with(client_id: &str, will: Option<&Will>, features: Features) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    push_binary(&mut body, b"MQTT");
    body.push(if features.version == Version::V5 { 5 } else { 4 });
    body.push(if will.is_some() { 0b0000_0110 } else { 0b0000_0010 });
    body.extend_from_slice(&KEEP_ALIVE_SECONDS.to_be_bytes());
    match features {
        Features { version: Version::V311, .. } => {}
        Features { alias_out: true, .. } => body.extend_from_slice(&[3, 0x22, 0, TOPIC_ALIAS_MAXIMUM]),
        _ => body.push(0),
    }
    push_binary(&mut body, client_id.as_bytes());
    if let Some(will) = will {
        if features.version == Version::V5 {
            body.push(0);
        }
        push_binary(&mut body, will.topic_name.as_bytes());
        push_binary(&mut body, &will.payload);
    }
    packet(0x10, &body)
}

/// CONNECT of MQTT 5.0 for a Session that is there for ever: no Clean Start, Session Expiry Interval 2^32 - 1.
pub fn connect_to_kept_session(client_id: &str, receive_maximum: u16) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    push_binary(&mut body, b"MQTT");
    body.push(5);
    body.push(0);
    body.extend_from_slice(&KEEP_ALIVE_SECONDS.to_be_bytes());
    body.extend_from_slice(&[8, 0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x21]);
    body.extend_from_slice(&receive_maximum.to_be_bytes());
    push_binary(&mut body, client_id.as_bytes());
    packet(0x10, &body)
}

/// DISCONNECT with which a connection ends as it should: no Will, and the Session stays if it is kept.
pub const GOODBYE: [u8; 2] = [DISCONNECT, 0];

/// SUBSCRIBE with Packet Identifier 1 and one maximum QoS for all Topic Filters.
pub fn subscribe(topic_filters: &[String], qos: u8) -> Vec<u8> {
    subscribe_with(topic_filters, qos, Features::default())
}

/// The same with what `features` has.
pub fn subscribe_with(topic_filters: &[String], qos: u8, features: Features) -> Vec<u8> {
    let mut body = vec![0, 1];
    match features {
        Features { version: Version::V311, .. } => {}
        Features { subscription_identifier: true, .. } => body.extend_from_slice(&[2, 0x0B, 1]),
        _ => body.push(0),
    }
    for topic_filter in topic_filters {
        push_binary(&mut body, topic_filter.as_bytes());
        body.push(if features.no_local { qos | 0b100 } else { qos });
    }
    packet(0x82, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP in the short form that means success.
pub fn acknowledgement(first_byte: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [first_byte, 2, high, low]
}

/// A PUBLISH packet made once, copied and stamped for each message.
#[derive(Clone, Debug)]
pub struct PublishTemplate {
    bytes: Vec<u8>,
    /// Offset of the Packet Identifier; `None` at QoS 0.
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

impl PublishTemplate {
    /// The same with RETAIN set.
    pub fn retained(mut self) -> Self {
        self.bytes[0] |= 1;
        self
    }

    /// A template for `topic_name` with a payload of `payload_bytes` (at least [`STAMP_BYTES`]).
    pub fn new(topic_name: &str, qos: u8, payload_bytes: usize, publisher: u32) -> Self {
        Self::with_properties(topic_name, qos, payload_bytes, publisher, &[])
    }

    /// The same with properties as they stand in a packet, at most 127 bytes of them.
    pub fn with_properties(topic_name: &str, qos: u8, payload_bytes: usize, publisher: u32, properties: &[u8]) -> Self {
        Self::build(topic_name, qos, payload_bytes, publisher, Some(properties))
    }

    /// The same with what `features` has, and as it stands in the packets after the first: with its Topic Alias in place of
    /// its name, if it has one.
    pub fn with_features(
        topic_name: &str,
        qos: u8,
        payload_bytes: usize,
        publisher: u32,
        features: Features,
    ) -> (Self, Self) {
        let mut properties = features.publish_properties();
        if features.alias_in {
            properties.extend_from_slice(&[0x23, 0, 1]);
        }
        let properties = (features.version == Version::V5).then_some(&properties[..]);
        let build = |topic_name| Self::build(topic_name, qos, payload_bytes, publisher, properties);
        (build(topic_name), build(if features.alias_in { "" } else { topic_name }))
    }

    /// Without even their length if there are no properties.
    fn build(topic_name: &str, qos: u8, payload_bytes: usize, publisher: u32, properties: Option<&[u8]>) -> Self {
        let payload_bytes = payload_bytes.max(STAMP_BYTES);
        let mut body = Vec::with_capacity(topic_name.len() + payload_bytes + 8);
        push_binary(&mut body, topic_name.as_bytes());
        let packet_id_in_body = (qos > 0).then_some(body.len());
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        if let Some(properties) = properties {
            body.push(u8::try_from(properties.len()).expect("few properties"));
            body.extend_from_slice(properties);
        }
        let stamp_in_body = body.len();
        body.resize(stamp_in_body + payload_bytes, b'.');
        body[stamp_in_body..stamp_in_body + 4].copy_from_slice(&publisher.to_be_bytes());
        let bytes = packet(0x30 | qos << 1, &body);
        let header = bytes.len() - body.len();
        Self { bytes, packet_id_at: packet_id_in_body.map(|at| at + header), stamp_at: stamp_in_body + header }
    }

    /// Appends one message. `packet_id` is ignored at QoS 0.
    pub fn append(&self, output: &mut Vec<u8>, sequence: u64, packet_id: u16) {
        let start = output.len();
        output.extend_from_slice(&self.bytes);
        if let Some(at) = self.packet_id_at {
            output[start + at..start + at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        let at = start + self.stamp_at + 4;
        output[at..at + 8].copy_from_slice(&sequence.to_be_bytes());
    }

    /// Bytes of one packet on the wire.
    pub fn packet_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// A Control Packet as it was cut from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type and flags.
    pub first_byte: u8,
    /// Variable header and payload.
    pub body: &'a [u8],
}

/// What a received PUBLISH says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// QoS of the delivery, 0 to 2.
    pub qos: u8,
    /// Packet Identifier; 0 at QoS 0.
    pub packet_id: u16,
    /// Number of the publisher, from the payload.
    pub publisher: u32,
    /// Sequence number, from the payload.
    pub sequence: u64,
}

/// Cuts the first packet off `bytes`; gives it and its length, or `None` when it is not complete yet.
pub fn split_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Fault> {
    let Some((&first_byte, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, length_bytes)) = split_variable_byte_integer(rest)? else { return Ok(None) };
    let start = 1 + length_bytes;
    let end = start + length;
    Ok(bytes.get(start..end).map(|body| (Frame { first_byte, body }, end)))
}

impl Frame<'_> {
    /// Reads a PUBLISH of MQTT 5.0 whose payload has `payload_bytes`.
    pub fn delivered(&self, payload_bytes: usize) -> Result<Delivered, Fault> {
        self.delivered_in(Version::V5, payload_bytes)
    }

    /// Reads a PUBLISH whose payload has `payload_bytes`.
    pub fn delivered_in(&self, version: Version, payload_bytes: usize) -> Result<Delivered, Fault> {
        let qos = self.first_byte >> 1 & 0b11;
        let topic_name_bytes = usize::from(self.u16_at(0)?);
        let mut at = 2 + topic_name_bytes;
        let packet_id = if qos > 0 {
            at += 2;
            self.u16_at(at - 2)?
        } else {
            0
        };
        if version == Version::V5 {
            let properties = self.body.get(at..).ok_or(Fault::Malformed)?;
            let (property_bytes, length_bytes) = split_variable_byte_integer(properties)?.ok_or(Fault::Malformed)?;
            at += length_bytes + property_bytes;
        }
        let payload = self.body.get(at..).ok_or(Fault::Malformed)?;
        if payload.len() != payload_bytes {
            return Err(Fault::Malformed);
        }
        let (publisher, rest) = payload.split_first_chunk().ok_or(Fault::Malformed)?;
        let sequence = rest.first_chunk().ok_or(Fault::Malformed)?;
        Ok(Delivered {
            qos,
            packet_id,
            publisher: u32::from_be_bytes(*publisher),
            sequence: u64::from_be_bytes(*sequence),
        })
    }

    /// Packet Identifier and Reason Code of an acknowledgement; the Reason Code is 0 when it is left out.
    pub fn acknowledged(&self) -> Result<(u16, u8), Fault> {
        Ok((self.u16_at(0)?, self.body.get(2).copied().unwrap_or(0)))
    }

    /// Properties and Topic Filters of a SUBSCRIBE: the bytes of the former, and the highest QoS asked for by each filter.
    pub fn subscribed(&self) -> Result<(&[u8], Vec<u8>), Fault> {
        let rest = self.body.get(2..).ok_or(Fault::Malformed)?;
        let (property_bytes, length_bytes) = split_variable_byte_integer(rest)?.ok_or(Fault::Malformed)?;
        let (properties, mut rest) = rest[length_bytes..].split_at_checked(property_bytes).ok_or(Fault::Malformed)?;
        let mut qos = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk() {
            let filter_bytes = usize::from(u16::from_be_bytes(*length));
            let (options, after) = after.get(filter_bytes..).and_then(<[u8]>::split_first).ok_or(Fault::Malformed)?;
            qos.push(options & 0b11);
            rest = after;
        }
        Ok((properties, qos))
    }

    fn u16_at(&self, at: usize) -> Result<u16, Fault> {
        let bytes = self.body.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Fault::Malformed)?;
        Ok(u16::from_be_bytes(*bytes))
    }
}

fn split_variable_byte_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Fault::Malformed) } else { Ok(None) }
}

/// A Control Packet around `body`.
pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    let mut rest = body.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        bytes.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn push_binary(output: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("the generator's own strings are short");
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_is_clean_start_without_properties() {
        let expected = [
            &[0x10, 15, 0, 4][..],
            b"MQTT",
            &[5, 0b10, 0x01, 0x2C], // version, Clean Start, 300 s
            &[0, 0, 2],             // no properties, length of the Client Identifier
            b"c1",
        ];
        assert_eq!(connect("c1", None), expected.concat());
    }

    #[test]
    fn connect_with_will_carries_it_after_the_client_identifier() {
        let will = Will { topic_name: "w".into(), payload: vec![7; 3] };
        let bytes = connect("c1", Some(&will));
        assert_eq!(bytes[9], 0b110);
        assert!(bytes.ends_with(&[b'c', b'1', 0, 0, 1, b'w', 0, 3, 7, 7, 7]));
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
    }

    #[test]
    fn connect_to_a_kept_session_has_its_expiry_and_receive_maximum() {
        let expected = [
            &[0x10, 23, 0, 4][..],
            b"MQTT",
            &[5, 0, 0x01, 0x2C],
            &[8, 0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x21, 0, 20],
            &[0, 2],
            b"c1",
        ];
        assert_eq!(connect_to_kept_session("c1", 20), expected.concat());
    }

    #[test]
    fn subscribe_lists_each_topic_filter_with_its_qos() {
        assert_eq!(
            subscribe(&["a".into(), "b/#".into()], 1),
            [&[0x82, 13, 0, 1, 0, 0, 1][..], b"a", &[1, 0, 3], b"b/#", &[1]].concat()
        );
    }

    #[test]
    fn a_stamped_publish_reads_back_at_every_qos_and_length() {
        for qos in 0..=2 {
            for payload_bytes in [12, 64, 100, 16_000] {
                let template = PublishTemplate::new("some/topic", qos, payload_bytes, 0xA1B2_C3D4);
                let mut bytes = Vec::new();
                template.append(&mut bytes, 0x0102_0304_0506_0708, 513);
                assert_eq!(bytes.len(), template.packet_bytes());
                let (frame, length) = split_frame(&bytes).unwrap().unwrap();
                assert_eq!(length, bytes.len());
                let packet_id = if qos == 0 { 0 } else { 513 };
                assert_eq!(
                    frame.delivered(payload_bytes),
                    Ok(Delivered { qos, packet_id, publisher: 0xA1B2_C3D4, sequence: 0x0102_0304_0506_0708 })
                );
                assert_eq!(frame.delivered(payload_bytes + 1), Err(Fault::Malformed));
            }
        }
    }

    #[test]
    fn features_are_in_the_packets() {
        let all = Features {
            alias_in: true,
            alias_out: true,
            subscription_identifier: true,
            no_local: true,
            user_properties: 1,
            ..Features::default()
        };
        assert!(connect_with("c1", None, all)[10..].starts_with(&[0x01, 0x2C, 3, 0x22, 0, 10, 0, 2]));
        assert_eq!(subscribe_with(&["a".into()], 1, all), [0x82, 9, 0, 1, 2, 0x0B, 1, 0, 1, b'a', 0b101]);
        let (first, later) = PublishTemplate::with_features("a", 0, 12, 7, all);
        let property_bytes = 14 + 3;
        assert!(first.bytes.starts_with(&[0x30, 33, 0, 1, b'a', property_bytes, 0x26]));
        assert!(later.bytes.starts_with(&[0x30, 32, 0, 0, property_bytes, 0x26]));
        let old = Features { version: Version::V311, ..Features::default() };
        assert_eq!(
            connect_with("c1", None, old),
            [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 1, 0x2C, 0, 2, b'c', b'1']
        );
        assert_eq!(subscribe_with(&["a".into()], 1, old), [0x82, 6, 0, 1, 0, 1, b'a', 1]);
        let (first, later) = PublishTemplate::with_features("a", 0, 12, 7, old);
        assert_eq!((first.bytes.len(), later.bytes.len()), (17, 17));
        let (frame, _) = split_frame(&later.bytes).unwrap().unwrap();
        let delivered = Delivered { qos: 0, packet_id: 0, publisher: 7, sequence: u64::from_be_bytes([b'.'; 8]) };
        assert_eq!(frame.delivered_in(Version::V311, 12), Ok(delivered));
    }

    #[test]
    fn properties_before_the_payload_are_passed_over() {
        // Subscription Identifier 5 (0x0B), as a broker may add it.
        let body = [&[0, 1, b't', 2, 0x0B, 5][..], &[0, 0, 0, 9], &[0, 0, 0, 0, 0, 0, 0, 4]].concat();
        let frame = Frame { first_byte: 0x30, body: &body };
        assert_eq!(frame.delivered(12), Ok(Delivered { qos: 0, packet_id: 0, publisher: 9, sequence: 4 }));
    }

    #[test]
    fn every_cut_of_a_packet_is_incomplete_and_never_an_error() {
        let mut bytes = Vec::new();
        PublishTemplate::new("some/topic", 1, 200, 3).append(&mut bytes, 1, 1);
        for cut in 0..bytes.len() {
            assert_eq!(split_frame(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn a_remaining_length_of_five_bytes_is_malformed() {
        assert_eq!(split_frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]), Err(Fault::Malformed));
    }

    #[test]
    fn acknowledgements_without_reason_code_mean_success() {
        assert_eq!(Frame { first_byte: PUBACK, body: &[1, 2] }.acknowledged(), Ok((258, 0)));
        assert_eq!(Frame { first_byte: PUBACK, body: &[1, 2, 0x97] }.acknowledged(), Ok((258, 0x97)));
        assert_eq!(Frame { first_byte: PUBACK, body: &[1] }.acknowledged(), Err(Fault::Malformed));
    }
}
