//! What a broker sends: messages passed on with other aliases, identifiers and expiries, and answers that have to fit
//! the client's Maximum Packet Size.

mod support;

use std::num::{NonZeroU16, NonZeroU32};

use pantala_proto::{
    Delivery, ForwardProperties, Outgoing, Packet, PacketId, Property, ProtocolVersion, Publish, UserProperties,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use support::{encode, receive, strategies};

const V5: ProtocolVersion = ProtocolVersion::V5;

fn publish() -> impl Strategy<Value = Publish<'static>> {
    strategies::packet(V5).prop_filter_map("a PUBLISH", |packet| match packet {
        Packet::Publish(publish) if !publish.topic_name.is_empty() => Some(publish),
        _ => None,
    })
}

fn send(outgoing: &Outgoing<'_>, version: ProtocolVersion, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    outgoing.encode_header(version, payload.len(), &mut out);
    out.extend_from_slice(payload);
    assert_eq!(out.len(), outgoing.packet_bytes(version, payload.len()));
    out
}

proptest! {
    /// v5 MQTT-3.3.2-17, MQTT-3.3.2-18 and their like: what the publisher said arrives, in its order; MQTT-3.3.2-6:
    /// but the expiry is what is left of it.
    #[test]
    fn a_message_passed_on_is_the_same_but_for_what_is_the_brokers(
        publish in publish(),
        expiry in any::<u32>(),
        alias in option::of(any::<NonZeroU16>()),
        identifiers in vec((1..=268_435_455_u32).prop_map(|number| NonZeroU32::new(number).expect("not 0")), 0..4),
        kept in any::<bool>(),
    ) {
        // A message that waits is kept as bytes, and where its expiry stands in them.
        let received = publish.properties.forward();
        let bytes: Vec<u8> = received.bytes().collect();
        prop_assert_eq!(bytes.len(), received.len());
        prop_assert_eq!(received.pieces().concat(), bytes.clone());
        let kept = kept.then(|| ForwardProperties::from_parts(&bytes, received.message_expiry_at()));
        let left = publish.properties.message_expiry_interval.map(|seconds| seconds.min(expiry));
        let outgoing = Outgoing {
            delivery: Delivery::AtLeastOnce { packet_id: PacketId::FIRST, dup: false },
            retain: publish.retain,
            topic_name: publish.topic_name,
            properties: kept.unwrap_or(received),
            message_expiry_interval: left,
            topic_alias: alias,
            subscription_identifiers: &identifiers,
        };
        let mut expected: Vec<Property<'_>> = publish
            .properties
            .iter()
            .filter(|property| !matches!(property, Property::TopicAlias(_)))
            .map(|property| match (property, left) {
                (Property::MessageExpiryInterval(_), Some(left)) => Property::MessageExpiryInterval(left),
                (other, _) => other,
            })
            .collect();
        expected.extend(alias.map(Property::TopicAlias));
        expected.extend(identifiers.iter().copied().map(Property::SubscriptionIdentifier));

        let bytes = send(&outgoing, V5, publish.payload);
        let Ok(Packet::Publish(arrived)) = receive(V5, &bytes) else { panic!("{bytes:x?}") };
        prop_assert_eq!(arrived.properties.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(arrived.delivery, outgoing.delivery);
        let what = |publish: &Publish<'_>| (publish.topic_name.to_owned(), publish.payload.to_vec(), publish.retain);
        prop_assert_eq!(what(&arrived), what(&publish));

        // The older versions have none of it.
        let bytes = send(&outgoing, ProtocolVersion::V311, publish.payload);
        let Ok(Packet::Publish(arrived)) = receive(ProtocolVersion::V311, &bytes) else { panic!("{bytes:x?}") };
        prop_assert_eq!(what(&arrived), what(&publish));
        prop_assert_eq!(arrived.properties.iter().count(), 0);
    }

    /// Reason String and User Properties stand whole or not at all, and nothing else is left out.
    #[test]
    fn an_answer_fits_or_is_as_short_as_it_can_be((version, packet) in strategies::versioned(), limit in 1..4_000_u32) {
        let whole = encode(version, &packet);
        let Some(bare) = without_explanation(&packet) else { return Ok(()) };
        let bare = encode(version, &bare);
        let length = u32::try_from(whole.len()).expect("a packet's length");
        for limit in [limit, length - 1, length] {
            let mut out = vec![0xaa];
            encode_within(version, &packet, limit, &mut out);
            let expected = if length <= limit { &whole } else { &bare };
            prop_assert_eq!(&out[..1], &[0xaa]);
            prop_assert_eq!(&out[1..], expected);
        }
    }
}

/// An answer without Reason String and User Properties; None for other packets.
fn without_explanation(packet: &Packet<'static>) -> Option<Packet<'static>> {
    let mut packet = packet.clone();
    let (reason_string, user_properties) = match &mut packet {
        Packet::ConnAck(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::Acknowledgement(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::SubAck(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::UnsubAck(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::Disconnect(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::Auth(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        _ => return None,
    };
    (*reason_string, *user_properties) = (None, UserProperties::none());
    Some(packet)
}

fn encode_within(version: ProtocolVersion, packet: &Packet<'_>, limit: u32, out: &mut Vec<u8>) {
    match packet {
        Packet::ConnAck(packet) => packet.encode_within(version, limit, out),
        Packet::Acknowledgement(packet) => packet.encode_within(version, limit, out),
        Packet::SubAck(packet) => packet.encode_within(version, limit, out),
        Packet::UnsubAck(packet) => packet.encode_within(version, limit, out),
        Packet::Disconnect(packet) => packet.encode_within(version, limit, out),
        Packet::Auth(packet) => packet.encode_within(limit, out),
        _ => panic!("{packet:?} is no answer"),
    }
}

#[test]
fn a_text_too_long_for_a_property_is_cut_between_two_characters() {
    let long = "é".repeat(40_000);
    let properties: UserProperties<'_> = [(long.as_str(), "v"), ("next", "w")].into_iter().collect();
    let kept: Vec<_> = properties.iter().collect();
    assert_eq!(kept, [(&long[..65_534], "v"), ("next", "w")]);
}
