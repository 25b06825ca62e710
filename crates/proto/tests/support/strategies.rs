//! Packets of every type, made at random as the types allow them, for one version.
//!
//! Packets borrow their strings. Those made here are leaked, which lets a strategy give `Packet<'static>`; a test
//! process ends soon.

use std::num::{NonZeroU16, NonZeroU32};

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Auth, ConnAck, Connect, ConnectProperties, Delivery, Disconnect, Packet,
    PacketId, PacketType, Property, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling,
    SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe, UserProperties, VARIABLE_BYTE_INTEGER_MAX, Will,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Text = &'static str;
type Bytes = &'static [u8];

/// Any packet of the version.
pub fn packet(version: ProtocolVersion) -> BoxedStrategy<Packet<'static>> {
    let mut packets = vec![
        connect(version).prop_map(Packet::Connect).boxed(),
        conn_ack(version).prop_map(Packet::ConnAck).boxed(),
        publish(version).prop_map(Packet::Publish).boxed(),
        acknowledgement(version).prop_map(Packet::Acknowledgement).boxed(),
        subscribe(version).prop_map(Packet::Subscribe).boxed(),
        sub_ack(version).prop_map(Packet::SubAck).boxed(),
        unsubscribe(version).prop_map(Packet::Unsubscribe).boxed(),
        unsub_ack(version).prop_map(Packet::UnsubAck).boxed(),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
        disconnect(version).prop_map(Packet::Disconnect).boxed(),
    ];
    if version.is_v5() {
        packets.push(auth().prop_map(Packet::Auth).boxed());
    }
    proptest::strategy::Union::new(packets).boxed()
}

/// Any version.
pub fn version() -> impl Strategy<Value = ProtocolVersion> {
    proptest::sample::select(super::VERSIONS.to_vec())
}

/// Any packet with its version.
pub fn versioned() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

fn leak(text: String) -> Text {
    Box::leak(text.into_boxed_str())
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![4 => "[a-z]{0,8}", 4 => "[^\\x00]{0,12}", 1 => Just("x".repeat(65_535))].prop_map(leak)
}

fn topic_name() -> impl Strategy<Value = Text> {
    prop_oneof!["[a-z/]{1,12}", "[^\\x00+#]{1,12}"].prop_map(leak)
}

/// Any string: whether it is a filter is not decided by decoding.
fn filter() -> impl Strategy<Value = Text> {
    prop_oneof!["[a-z/+#]{0,12}", "\\$share/[a-z]{1,3}/[a-z/+#]{1,8}", "[^\\x00]{0,12}"].prop_map(leak)
}

fn binary() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => Just(vec![7; 65_535])].prop_map(|bytes| &*bytes.leak())
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(PacketId)
}

fn qos() -> impl Strategy<Value = QoS> {
    proptest::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn subscription_identifier() -> impl Strategy<Value = NonZeroU32> {
    (1..=VARIABLE_BYTE_INTEGER_MAX).prop_map(|number| NonZeroU32::new(number).expect("not 0"))
}

fn user_property_pairs() -> impl Strategy<Value = Vec<(Text, Text)>> {
    vec((text(), text()), 0..4)
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    user_property_pairs().prop_map(|pairs| pairs.into_iter().collect())
}

/// Nothing before MQTT 5.
fn v5_only<S>(version: ProtocolVersion, strategy: S) -> impl Strategy<Value = Option<S::Value>>
where
    S: Strategy,
    S::Value: Clone + 'static,
{
    option::of(strategy).prop_map(move |made| made.filter(|_| version.is_v5()))
}

fn v5_user_properties(version: ProtocolVersion) -> impl Strategy<Value = UserProperties<'static>> {
    v5_only(version, user_properties()).prop_map(Option::unwrap_or_default)
}

fn reason_code(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let codes: Vec<_> = (0..=u8::MAX).filter_map(|byte| ReasonCode::from_byte(byte, packet)).collect();
    proptest::sample::select(codes)
}

/// The properties of a message: each once, User Property and Subscription Identifier often, in any order.
fn message_properties(will: bool) -> impl Strategy<Value = Vec<Property<'static>>> {
    let once = (
        option::of(any::<bool>().prop_map(Property::PayloadFormatIndicator)),
        option::of(any::<u32>().prop_map(Property::MessageExpiryInterval)),
        option::of(text().prop_map(Property::ContentType)),
        option::of(topic_name().prop_map(Property::ResponseTopic)),
        option::of(binary().prop_map(Property::CorrelationData)),
        option::of(any::<NonZeroU16>().prop_map(Property::TopicAlias)).prop_map(move |alias| alias.filter(|_| !will)),
    );
    let identifiers = vec(subscription_identifier(), if will { 0..1 } else { 0..3 });
    (once, user_property_pairs(), identifiers)
        .prop_map(|((format, expiry, content_type, response_topic, correlation, alias), user, identifiers)| {
            let once = [format, expiry, content_type, response_topic, correlation, alias].into_iter().flatten();
            let user = user.into_iter().map(|(key, value)| Property::UserProperty(key, value));
            once.chain(user).chain(identifiers.into_iter().map(Property::SubscriptionIdentifier)).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn publish_properties(version: ProtocolVersion, will: bool) -> impl Strategy<Value = PublishProperties<'static>> {
    v5_only(version, message_properties(will)).prop_map(|properties| {
        let mut section = Vec::new();
        for property in properties.unwrap_or_default() {
            property.encode(&mut section);
        }
        PublishProperties::new(section.leak()).expect("each property once, and in its place")
    })
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let numbers = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        any::<bool>(),
        any::<bool>(),
    );
    let authentication = option::of((text(), option::of(binary())));
    (numbers, authentication, user_properties()).prop_map(|(numbers, authentication, user_properties)| {
        let (expiry, receive_maximum, packet_size, topic_alias_maximum, response_information, problem_information) =
            numbers;
        ConnectProperties {
            session_expiry_interval: expiry,
            receive_maximum,
            maximum_packet_size: packet_size,
            topic_alias_maximum,
            request_response_information: response_information,
            request_problem_information: problem_information,
            authentication_method: authentication.map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
            user_properties,
        }
    })
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = Will<'static>> {
    let delay = v5_only(version, any::<u32>()).prop_map(Option::unwrap_or_default);
    (qos(), any::<bool>(), delay, publish_properties(version, true), topic_name(), binary()).prop_map(
        |(qos, retain, delay_interval, properties, topic_name, payload)| Will {
            qos,
            retain,
            delay_interval,
            properties,
            topic_name,
            payload,
        },
    )
}

/// A CONNECT of the version.
pub fn connect(version: ProtocolVersion) -> impl Strategy<Value = Connect<'static>> {
    let properties = v5_only(version, connect_properties()).prop_map(Option::unwrap_or_default);
    let client_id = "[a-zA-Z0-9é -]{0,24}".prop_map(leak);
    let header = (any::<bool>(), any::<bool>(), any::<u16>());
    let login = (option::of(text()), option::of(binary()));
    (header, properties, client_id, option::of(will(version)), login).prop_map(
        move |((bridge, clean_start, keep_alive), properties, client_id, will, (user_name, password))| Connect {
            version,
            bridge: bridge && !version.is_v5(),
            clean_start,
            keep_alive,
            properties,
            client_id,
            will,
            user_name,
            password: password.filter(|_| version.is_v5() || user_name.is_some()),
        },
    )
}

fn conn_ack(version: ProtocolVersion) -> BoxedStrategy<ConnAck<'static>> {
    if !version.is_v5() {
        let present = any::<bool>().prop_map(move |present| present && version != ProtocolVersion::V31);
        let code = (0..=5_u8).prop_filter_map("a return code", ReasonCode::from_v3_connect_return_code);
        return (present, code).prop_map(|(present, code)| ConnAck::new(present, code)).boxed();
    }
    let numbers = (
        option::of(any::<u16>()),
        option::of(any::<u16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<u32>()),
    );
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let flags = (qos(), any::<[bool; 5]>());
    (reason_code(PacketType::ConnAck), numbers, texts, option::of(binary()), flags, user_properties())
        .prop_map(|(code, numbers, texts, authentication_data, (maximum_qos, flags), user_properties)| {
            let [present, retain, wildcard, identifier, shared] = flags;
            let mut ack = ConnAck::new(present, code);
            (
                ack.topic_alias_maximum,
                ack.server_keep_alive,
                ack.maximum_packet_size,
                ack.receive_maximum,
                ack.session_expiry_interval,
            ) = numbers;
            (
                ack.assigned_client_identifier,
                ack.response_information,
                ack.server_reference,
                ack.authentication_method,
                ack.reason_string,
            ) = texts;
            ack.authentication_data = authentication_data;
            ack.maximum_qos = maximum_qos;
            ack.retain_available = retain;
            ack.wildcard_subscription_available = wildcard;
            ack.subscription_identifier_available = identifier;
            ack.shared_subscription_available = shared;
            ack.user_properties = user_properties;
            ack
        })
        .boxed()
}

fn publish(version: ProtocolVersion) -> impl Strategy<Value = Publish<'static>> {
    let delivery = (qos(), packet_id(), any::<bool>()).prop_map(|(qos, packet_id, dup)| match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
        QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
    });
    (delivery, any::<bool>(), topic_name(), any::<bool>(), publish_properties(version, false), binary()).prop_map(
        |(delivery, retain, topic_name, nameless, properties, payload)| Publish {
            delivery,
            retain,
            topic_name: if nameless && properties.topic_alias.is_some() { "" } else { topic_name },
            properties,
            payload,
        },
    )
}

fn acknowledgement(version: ProtocolVersion) -> impl Strategy<Value = Acknowledgement<'static>> {
    let kinds = vec![
        AcknowledgementKind::PubAck,
        AcknowledgementKind::PubRec,
        AcknowledgementKind::PubRel,
        AcknowledgementKind::PubComp,
    ];
    proptest::sample::select(kinds).prop_flat_map(move |kind| {
        let code = v5_only(version, reason_code(kind.packet_type()));
        (packet_id(), code, v5_only(version, text()), v5_user_properties(version)).prop_map(
            move |(packet_id, code, reason_string, user_properties)| Acknowledgement {
                kind,
                packet_id,
                reason_code: code.unwrap_or(ReasonCode::Success),
                reason_string,
                user_properties,
            },
        )
    })
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Subscribe<'static>> {
    let handling = vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    let options = (qos(), any::<bool>(), any::<bool>(), proptest::sample::select(handling)).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| {
            if version.is_v5() {
                SubscriptionOptions { qos, no_local, retain_as_published, retain_handling }
            } else {
                SubscriptionOptions { qos, ..SubscriptionOptions::default() }
            }
        },
    );
    let identifier = v5_only(version, subscription_identifier());
    (packet_id(), identifier, v5_user_properties(version), vec((filter(), options), 1..5)).prop_map(
        |(packet_id, subscription_identifier, user_properties, filters)| Subscribe {
            packet_id,
            subscription_identifier,
            user_properties,
            filters: filters.into_iter().collect(),
        },
    )
}

fn sub_ack(version: ProtocolVersion) -> impl Strategy<Value = SubAck<'static>> {
    let code = reason_code(PacketType::SubAck)
        .prop_map(move |code| if code.is_error() && !version.is_v5() { ReasonCode::UnspecifiedError } else { code });
    (packet_id(), vec(code, 1..5), v5_only(version, text()), v5_user_properties(version)).prop_map(
        |(packet_id, reason_codes, reason_string, user_properties)| SubAck {
            packet_id,
            reason_codes,
            reason_string,
            user_properties,
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Unsubscribe<'static>> {
    (packet_id(), v5_user_properties(version), vec(filter(), 1..5)).prop_map(|(packet_id, user_properties, filters)| {
        Unsubscribe { packet_id, user_properties, filters: filters.into_iter().collect() }
    })
}

fn unsub_ack(version: ProtocolVersion) -> impl Strategy<Value = UnsubAck<'static>> {
    let codes = vec(reason_code(PacketType::UnsubAck), if version.is_v5() { 1..5 } else { 0..1 });
    (packet_id(), codes, v5_only(version, text()), v5_user_properties(version)).prop_map(
        |(packet_id, reason_codes, reason_string, user_properties)| UnsubAck {
            packet_id,
            reason_codes,
            reason_string,
            user_properties,
        },
    )
}

fn disconnect(version: ProtocolVersion) -> impl Strategy<Value = Disconnect<'static>> {
    let code = v5_only(version, reason_code(PacketType::Disconnect));
    let expiry = v5_only(version, any::<u32>());
    (code, expiry, v5_only(version, text()), v5_only(version, text()), v5_user_properties(version)).prop_map(
        |(code, session_expiry_interval, server_reference, reason_string, user_properties)| Disconnect {
            reason_code: code.unwrap_or(ReasonCode::Success),
            session_expiry_interval,
            server_reference,
            reason_string,
            user_properties,
        },
    )
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    let method = option::of((text(), option::of(binary())));
    (reason_code(PacketType::Auth), method, option::of(text()), user_properties()).prop_map(
        |(reason_code, method, reason_string, user_properties)| Auth {
            reason_code,
            authentication_method: method.map(|(method, _)| method),
            authentication_data: method.and_then(|(_, data)| data),
            reason_string,
            user_properties,
        },
    )
}
