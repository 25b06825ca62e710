//! Bytes in, bytes out, by a clock that the tests own.

use pantala_proto::{Publish, QoS, SubscriptionOptions};

use super::*;
use crate::Message;
use crate::authentication::{AuthenticationError, Authenticator};
use crate::error::{PublishError, SubscribeError};

const NOW: Instant = Instant(0);
const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];
const RESUMED: &[u8] = &[0x20, 3, 1, 0, 0];

fn settings() -> SessionSettings {
    SessionSettings { client_id: "c".into(), keep_alive: Duration::ZERO, ..SessionSettings::default() }
}

fn kept() -> SessionSettings {
    SessionSettings { clean_start: false, session_expiry_interval: Duration::MAX, ..settings() }
}

/// A machine that has been welcomed with this CONNACK, and whose CONNECT is gone.
fn open(settings: SessionSettings, conn_ack: &[u8]) -> Machine {
    let mut machine = Machine::new(settings);
    connect(&mut machine, conn_ack);
    machine
}

fn connect(machine: &mut Machine, conn_ack: &[u8]) {
    machine.connection_made(NOW);
    machine.take_output(NOW);
    machine.handle_input(NOW, conn_ack);
    assert_eq!(machine.phase(), Phase::Open);
}

fn publish(machine: &mut Machine, topic_name: &str, qos: QoS) {
    machine.publish(NOW, &Message::new(topic_name, "").qos(qos), None).unwrap();
}

fn subscribe(machine: &mut Machine, filter: &str) -> Result<(), SubscribeError> {
    let filters = vec![(filter.to_owned(), SubscriptionOptions::default())];
    machine.subscribe(NOW, SubscribeRequest { filters, ..SubscribeRequest::default() }, 0)
}

/// Takes what is to be written: the packets one by one.
fn packets(machine: &mut Machine) -> Vec<Vec<u8>> {
    let output = machine.take_output(NOW);
    let mut rest = &output[..];
    let mut packets = Vec::new();
    while let Ok(frame::Split::Frame(frame)) = frame::split(rest, u32::MAX) {
        let (packet, after) = rest.split_at(frame.packet_bytes);
        packets.push(packet.to_vec());
        rest = after;
    }
    assert!(rest.is_empty());
    packets
}

fn published(packet: &[u8]) -> Publish<'_> {
    let Ok(frame::Split::Frame(frame)) = frame::split(packet, u32::MAX) else { panic!("half a packet") };
    match Packet::decode(ProtocolVersion::V5, frame.first_byte, frame.body) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("no PUBLISH, but {other:?}"),
    }
}

fn types(machine: &mut Machine) -> Vec<u8> {
    packets(machine).iter().map(|packet| packet[0] >> 4).collect()
}

fn ack(first_byte: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [first_byte, 2, high, low]
}

#[test]
fn connect_is_the_first_packet_and_the_only_one_before_conn_ack() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let mut machine = Machine::new(SessionSettings { version, ..settings() });
        publish(&mut machine, "t", QoS::AtLeastOnce);
        publish(&mut machine, "t", QoS::AtMostOnce);
        subscribe(&mut machine, "t").unwrap();
        assert!(machine.take_output(NOW).is_empty());
        machine.connection_made(NOW);
        publish(&mut machine, "t", QoS::AtMostOnce);
        subscribe(&mut machine, "t").unwrap();
        machine.reauthenticate();
        assert_eq!(types(&mut machine), [1]);
        let conn_ack = if version.is_v5() { WELCOME } else { &[0x20, 2, 0, 0] };
        machine.handle_input(NOW, conn_ack);
        assert_eq!(types(&mut machine), [8, 8, 3, 3, 3]);
    }
}

/// The flags and the payload go together, and the payload has its order.
#[test]
fn connect_holds_what_its_flags_say() {
    let bytes = |settings: SessionSettings| {
        let mut machine = Machine::new(settings);
        machine.connection_made(NOW);
        machine.take_output(NOW)
    };
    let plain =
        || SessionSettings { receive_maximum: std::num::NonZeroU16::MAX, maximum_packet_size: None, ..settings() };
    let plain = || SessionSettings { topic_alias_maximum: 0, ..plain() };
    assert_eq!(bytes(plain()), b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c");
    let v311 = SessionSettings { version: ProtocolVersion::V311, ..plain() };
    assert_eq!(bytes(v311.clone()), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c");

    let user_name = SessionSettings { user_name: Some("u".into()), ..plain() };
    assert_eq!(bytes(user_name), b"\x10\x11\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01c\x00\x01u");
    let password = SessionSettings { password: Some(b"p".to_vec()), ..plain() };
    assert_eq!(bytes(password), b"\x10\x11\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01c\x00\x01p");

    let full = |settings| SessionSettings {
        will: Some(Message::new("w", "m").qos(QoS::ExactlyOnce).retain().into()),
        user_name: Some("u".into()),
        password: Some(b"p".to_vec()),
        ..settings
    };
    assert_eq!(
        bytes(full(plain())),
        b"\x10\x1b\x00\x04MQTT\x05\xf6\x00\x00\x00\x00\x01c\x00\x00\x01w\x00\x01m\x00\x01u\x00\x01p"
    );
    assert_eq!(bytes(full(v311)), b"\x10\x19\x00\x04MQTT\x04\xf6\x00\x00\x00\x01c\x00\x01w\x00\x01m\x00\x01u\x00\x01p");
}

#[test]
fn packet_identifiers_are_not_zero_and_not_in_use() {
    let mut machine = open(settings(), WELCOME);
    publish(&mut machine, "stays", QoS::AtLeastOnce);
    assert_eq!(published(&packets(&mut machine)[0]).delivery.packet_id().map(PacketId::number), Some(1));
    subscribe(&mut machine, "stays").unwrap();
    assert_eq!(packets(&mut machine)[0][2..4], [0, 2]);
    for _ in 0..140_000 {
        publish(&mut machine, "t", QoS::AtLeastOnce);
        let packets = packets(&mut machine);
        let packet_id = published(&packets[0]).delivery.packet_id().unwrap().number();
        assert!(packet_id > 2);
        machine.handle_input(NOW, &ack(0x40, packet_id));
    }
    assert_eq!(machine.unsettled(), 1);
}

#[test]
fn what_is_sent_again_has_its_identifier_its_order_and_dup() {
    let mut machine = open(kept(), RESUMED);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publish(&mut machine, "t", qos);
    }
    assert_eq!(types(&mut machine), [3, 3, 3, 3]);
    machine.handle_input(NOW, &ack(0x50, 2));
    machine.connection_lost();
    connect(&mut machine, RESUMED);
    let again = packets(&mut machine);
    assert_eq!(again.iter().map(|packet| packet[0]).collect::<Vec<_>>(), [0x3a, 0x62, 0x3a, 0x3c]);
    assert_eq!(again[1], ack(0x62, 2));
    for (at, packet_id) in [(0, 1), (2, 3), (3, 4)] {
        assert_eq!(published(&again[at]).delivery.packet_id().map(PacketId::number), Some(packet_id));
    }
}

#[test]
fn without_its_session_what_was_under_way_begins_anew() {
    let mut machine = open(kept(), RESUMED);
    subscribe(&mut machine, "s").unwrap();
    publish(&mut machine, "a", QoS::AtLeastOnce);
    publish(&mut machine, "b", QoS::ExactlyOnce);
    publish(&mut machine, "c", QoS::ExactlyOnce);
    packets(&mut machine);
    machine.handle_input(NOW, &[0x90, 4, 0, 1, 0, 0]);
    machine.handle_input(NOW, &ack(0x50, 3));
    // A QoS 2 message that is not released.
    machine.handle_input(NOW, b"\x34\x06\x00\x01t\x00\x09\x00");
    machine.connection_lost();
    connect(&mut machine, WELCOME);
    let anew = packets(&mut machine);
    assert_eq!(anew.iter().map(|packet| packet[0]).collect::<Vec<_>>(), [0x82, 0x32, 0x34]);
    assert_eq!((published(&anew[1]).topic_name, published(&anew[2]).topic_name), ("a", "c"));
    while machine.poll_event().is_some() {}
    // The same identifier is another message now.
    machine.handle_input(NOW, b"\x34\x06\x00\x01t\x00\x09\x00");
    assert!(matches!(machine.poll_event(), Some(Event::Message(_))));
}

/// MQTT 3.1 has no Session Present: messages of QoS 2 were published twice after each reconnect.
#[test]
fn before_session_present_exchanges_go_on_and_subscriptions_are_made_again() {
    let v31 = SessionSettings { version: ProtocolVersion::V31, clean_start: false, ..settings() };
    let welcome = &[0x20, 2, 0, 0];
    let mut machine = open(v31, welcome);
    subscribe(&mut machine, "s").unwrap();
    publish(&mut machine, "t", QoS::ExactlyOnce);
    packets(&mut machine);
    machine.handle_input(NOW, &[0x90, 3, 0, 1, 0]);
    machine.connection_lost();
    connect(&mut machine, welcome);
    let again = packets(&mut machine);
    assert_eq!(again.iter().map(|packet| packet[0]).collect::<Vec<_>>(), [0x82, 0x3c]);
}

#[test]
fn the_quota_delays_publish_and_nothing_else() {
    // Receive Maximum 2.
    let mut machine = open(settings(), &[0x20, 6, 0, 0, 3, 0x21, 0, 2]);
    for _ in 0..5 {
        publish(&mut machine, "t", QoS::ExactlyOnce);
    }
    assert_eq!(types(&mut machine), [3, 3]);
    subscribe(&mut machine, "t").unwrap();
    machine.handle_input(NOW, b"\x32\x06\x00\x01t\x00\x09\x00");
    while let Some(event) = machine.poll_event() {
        if let Event::Message(message) = event {
            machine.acknowledge(message.acknowledgement.unwrap());
        }
    }
    assert_eq!(types(&mut machine), [8, 4]);
    // PUBREC frees nothing, PUBCOMP does.
    machine.handle_input(NOW, &ack(0x50, 1));
    assert_eq!(types(&mut machine), [6]);
    machine.handle_input(NOW, &ack(0x70, 1));
    assert_eq!(types(&mut machine), [3]);
}

#[test]
fn releases_go_out_in_the_order_of_what_they_answer() {
    let mut machine = open(settings(), WELCOME);
    for _ in 0..3 {
        publish(&mut machine, "t", QoS::ExactlyOnce);
    }
    packets(&mut machine);
    for packet_id in [2, 3, 1] {
        machine.handle_input(NOW, &ack(0x50, packet_id));
    }
    assert_eq!(packets(&mut machine), [ack(0x62, 2), ack(0x62, 3), ack(0x62, 1)]);
}

#[test]
fn aliases_stay_within_the_brokers_maximum() {
    for (conn_ack, expected) in [
        (WELCOME, [0, 0, 0, 0]),
        (&[0x20, 6, 0, 0, 3, 0x22, 0, 0], [0, 0, 0, 0]),
        (&[0x20, 6, 0, 0, 3, 0x22, 0, 1], [1, 0, 1, 0]),
        (&[0x20, 6, 0, 0, 3, 0x22, 0, 2], [1, 2, 1, 2]),
    ] {
        let mut machine = open(settings(), conn_ack);
        for topic_name in ["first", "second", "first", "second"] {
            publish(&mut machine, topic_name, QoS::AtMostOnce);
        }
        let alias = |packet: &Vec<u8>| published(packet).properties.topic_alias.map_or(0, u16::from);
        assert_eq!(packets(&mut machine).iter().map(alias).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn every_alias_up_to_our_maximum_is_taken() {
    let mut machine = open(SessionSettings { topic_alias_maximum: 300, ..settings() }, WELCOME);
    machine.poll_event();
    for alias in 1..=300_u16 {
        let [high, low] = alias.to_be_bytes();
        machine.handle_input(NOW, &[0x30, 7, 0, 1, b't', 3, 0x23, high, low]);
        machine.handle_input(NOW, &[0x30, 6, 0, 0, 3, 0x23, high, low]);
        for _ in 0..2 {
            let Some(Event::Message(message)) = machine.poll_event() else { panic!("{alias}") };
            assert_eq!(&*message.topic_name, "t");
        }
    }
}

#[test]
fn requests_hold_filters_that_are_filters() {
    let mut machine = open(settings(), WELCOME);
    assert_eq!(machine.subscribe(NOW, SubscribeRequest::default(), 0), Err(SubscribeError::NoFilter));
    assert_eq!(machine.unsubscribe(NOW, UnsubscribeRequest::default(), 0), Err(SubscribeError::NoFilter));
    let too_long = "x".repeat(65_536);
    for filter in
        ["", "a#", "#/a", "a+", "a\0", &too_long, "$share/g", "$share//a", "$share/g/", "$share/+/a", "$share/g#/a"]
    {
        assert!(matches!(subscribe(&mut machine, filter), Err(SubscribeError::TopicFilter(_))), "{filter:?}");
        let request = UnsubscribeRequest { filters: vec![filter.to_owned()], ..UnsubscribeRequest::default() };
        assert!(machine.unsubscribe(NOW, request, 0).is_err(), "{filter:?}");
    }
    assert!(machine.take_output(NOW).is_empty());
    subscribe(&mut machine, "$share/g/a/#").unwrap();
}

#[test]
fn nothing_goes_out_after_disconnect() {
    for conn_ack in [WELCOME, &[0x20, 2, 0, 0]] {
        let version = if conn_ack.len() == 5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut machine = open(SessionSettings { version, ..settings() }, conn_ack);
        publish(&mut machine, "t", QoS::AtMostOnce);
        machine.disconnect(ReasonCode::Success, None);
        publish(&mut machine, "t", QoS::AtMostOnce);
        subscribe(&mut machine, "t").unwrap();
        machine.disconnect(ReasonCode::Success, None);
        machine.handle_input(NOW, b"\x34\x05\x00\x01t\x00\x09");
        machine.handle_timeout(Instant(1_000_000));
        assert_eq!(types(&mut machine), [3, 14]);
        assert_eq!(machine.deadline(), None);
    }
}

/// Says how often it was asked.
struct Counting(u8);

impl Authenticator for Counting {
    fn method(&self) -> &str {
        "m"
    }

    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
        self.step(None)
    }

    fn step(&mut self, _: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
        self.0 += 1;
        Ok(Some(vec![self.0]))
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}

#[test]
fn authentication_goes_on_by_auth_alone_and_begins_anew_by_its_own_code() {
    let mut machine = Machine::new(settings()).with_authenticator(Box::new(Counting(0)));
    machine.connection_made(NOW);
    assert_eq!(types(&mut machine), [1]);
    publish(&mut machine, "t", QoS::AtMostOnce);
    machine.reauthenticate();
    // Continue authentication, method "m".
    let challenge = b"\xf0\x06\x18\x04\x15\x00\x01m";
    machine.handle_input(NOW, challenge);
    assert_eq!(packets(&mut machine), [b"\xf0\x0a\x18\x08\x15\x00\x01m\x16\x00\x01\x02".to_vec()]);
    machine.handle_input(NOW, b"\x20\x07\x00\x00\x04\x15\x00\x01m");
    assert_eq!(types(&mut machine), [3]);
    machine.reauthenticate();
    assert_eq!(packets(&mut machine), [b"\xf0\x0a\x19\x08\x15\x00\x01m\x16\x00\x01\x03".to_vec()]);
    machine.handle_input(NOW, challenge);
    assert_eq!(packets(&mut machine), [b"\xf0\x0a\x18\x08\x15\x00\x01m\x16\x00\x01\x04".to_vec()]);
    // Another method ends it.
    machine.handle_input(NOW, b"\xf0\x06\x18\x04\x15\x00\x01n");
    assert_eq!(types(&mut machine), [14]);
}

#[test]
fn without_a_method_there_is_no_auth() {
    let mut machine = open(settings(), WELCOME);
    machine.reauthenticate();
    assert!(machine.take_output(NOW).is_empty());
    machine.handle_input(NOW, b"\xf0\x06\x18\x04\x15\x00\x01m");
    assert_eq!(types(&mut machine), [14]);
}

/// The answers to what comes again and again are all that grows, and it goes with the output.
#[test]
fn a_message_that_comes_again_and_again_takes_no_memory() {
    let mut machine = open(settings(), WELCOME);
    machine.poll_event();
    let again = b"\x3c\x06\x00\x01t\x00\x09\x00".repeat(1_000);
    machine.handle_input(NOW, &again);
    let Some(Event::Message(message)) = machine.poll_event() else { panic!("no message") };
    assert!(machine.take_output(NOW).is_empty());
    machine.acknowledge(message.acknowledgement.unwrap());
    for _ in 0..100 {
        machine.handle_input(NOW, &again);
        assert!(machine.poll_event().is_none());
        assert!(machine.take_output(NOW).len() <= 4 * 1_001);
    }
    // Behind a message that nobody has acknowledged they wait, as one.
    machine.handle_input(NOW, b"\x32\x06\x00\x01t\x00\x08\x00");
    for _ in 0..100 {
        machine.handle_input(NOW, &again);
    }
    assert!(machine.take_output(NOW).is_empty());
    let Some(Event::Message(message)) = machine.poll_event() else { panic!("no message") };
    machine.acknowledge(message.acknowledgement.unwrap());
    assert_eq!(packets(&mut machine), [ack(0x40, 8), ack(0x50, 9)]);
}

/// They were left out without a word.
#[test]
fn what_cannot_be_subscribed_again_is_told_and_the_rest_goes_out_in_parts() {
    let mut machine = open(kept(), RESUMED);
    let long = "x".repeat(60);
    let filters = ["first/one", "a/#", "second/one", "$share/g/a", &long, "third/one"];
    for filter in filters {
        subscribe(&mut machine, filter).unwrap();
    }
    for packet in packets(&mut machine) {
        machine.handle_input(NOW, &[0x90, 4, packet[2], packet[3], 0, 0]);
    }
    machine.connection_lost();
    while machine.poll_event().is_some() {}
    // Maximum Packet Size 40, no wildcards, no Shared Subscriptions.
    connect(&mut machine, &[0x20, 12, 0, 0, 9, 0x27, 0, 0, 0, 40, 0x28, 0, 0x2a, 0]);
    let again = packets(&mut machine);
    assert!(again.iter().all(|packet| packet.len() <= 40), "{again:02x?}");
    let text = String::from_utf8_lossy(&again.concat()).into_owned();
    for (filter, lost) in filters.into_iter().zip([false, true, false, true, true, false]) {
        assert_eq!(text.contains(filter), !lost, "{filter}");
    }
    let mut lost = Vec::new();
    while let Some(event) = machine.poll_event() {
        if let Event::SubscriptionLost { filter, refusal } = event {
            lost.push((filter, refusal.reason_code));
        }
    }
    let expected = [
        ("a/#".to_owned(), ReasonCode::WildcardSubscriptionsNotSupported),
        ("$share/g/a".to_owned(), ReasonCode::SharedSubscriptionsNotSupported),
        (long, ReasonCode::PacketTooLarge),
    ];
    assert_eq!(lost, expected);
    // They are not asked for again, even if the next broker could.
    machine.connection_lost();
    connect(&mut machine, WELCOME);
    let text = String::from_utf8_lossy(&packets(&mut machine).concat()).into_owned();
    assert!(text.contains("first/one") && text.contains("third/one") && !text.contains("a/#"), "{text}");
}

/// A driver that holds output back takes PINGREQ past it, and patience begins when it has.
#[test]
fn a_ping_that_is_taken_apart_has_its_whole_time() {
    let keep_alive = Duration::from_secs(60);
    let mut machine = Machine::new(SessionSettings { keep_alive, ..settings() });
    machine.report_writes();
    connect(&mut machine, WELCOME);
    let at = |seconds: u64| Instant(seconds * 1_000);
    let mut ping = Vec::new();
    publish(&mut machine, "t", QoS::AtMostOnce);
    assert!(!machine.take_output(at(20)).is_empty());
    // It has been taken, and not been written.
    assert_eq!(machine.deadline(), Some(at(55)));
    machine.handle_timeout(at(55));
    assert_eq!(machine.output_len(), 0);
    // The connection takes nothing for a while.
    assert!(machine.take_ping(at(75), &mut ping) && !machine.take_ping(at(75), &mut ping));
    assert_eq!(ping, [0xc0, 0]);
    assert_eq!(machine.deadline(), Some(at(105)));
    machine.handle_input(at(80), &[0xd0, 0]);
    machine.output_written(at(81), 500);
    // It has not been heard since 80 s.
    assert_eq!(machine.deadline(), Some(at(135)));
    machine.handle_timeout(at(135));
    assert_eq!(machine.deadline(), Some(at(165)));
    machine.handle_timeout(at(165));
    assert!(matches!(
        std::iter::from_fn(|| machine.poll_event()).last(),
        Some(Event::Ended(ConnectionError::TimedOut))
    ));
    assert!(!machine.take_ping(at(165), &mut ping));
}

/// Payloads of messages that were published while others were under way are copied: each has to come out as it went in, and what
/// they were copied into has to go with them.
#[test]
fn payloads_of_any_length_come_out_as_they_went_in() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut machine = open(settings(), WELCOME);
        let payload = |number: usize| vec![number as u8; number % 300];
        for number in 0..1_000 {
            machine.publish(NOW, &Message::new("t", payload(number)).qos(qos), None).unwrap();
        }
        let mut came = 0;
        while machine.unsettled() > 0 {
            let packets = packets(&mut machine);
            assert!(!packets.is_empty());
            let mut answers = Vec::new();
            for packet in packets {
                if packet[0] == 0x62 {
                    answers.extend([0x70, 2, packet[2], packet[3]]);
                    continue;
                }
                let publish = published(&packet);
                assert_eq!(publish.payload, payload(came));
                came += 1;
                let first_byte = if qos == QoS::AtLeastOnce { 0x40 } else { 0x50 };
                answers.extend(ack(first_byte, publish.delivery.packet_id().unwrap().number()));
            }
            machine.handle_input(NOW, &answers);
        }
        assert_eq!((came, machine.waiting_bytes, machine.blocks.room()), (1_000, 0, 0));
    }
}

#[test]
fn a_message_that_finds_no_room_is_still_there() {
    let mut machine = Machine::new(SessionSettings { queue_messages_max: 1, ..settings() });
    let whole = Message::new("t", "payload").qos(QoS::AtLeastOnce);
    let mut message = whole.clone();
    machine.publish_offered(NOW, Offered::Given(&mut message), None).unwrap();
    assert_eq!(message, Message::empty());
    message = whole.clone();
    let result = machine.publish_offered(NOW, Offered::Given(&mut message), None);
    assert_eq!((result, message), (Err(PublishError::QueueFull), whole));
}

/// What came together with an error makes no room any more: nothing begins on a connection that ends.
#[test]
fn acknowledgements_that_come_together_make_room_together() {
    let window = std::num::NonZeroU16::new(3).unwrap();
    let mut machine = open(SessionSettings { inflight_maximum: window, ..settings() }, WELCOME);
    (0..9).for_each(|_| publish(&mut machine, "t", QoS::AtLeastOnce));
    assert_eq!(packets(&mut machine).len(), 3);
    machine.handle_input(NOW, &[ack(0x40, 1), ack(0x40, 2), ack(0x40, 3)].concat());
    let numbers = packets(&mut machine)
        .iter()
        .map(|packet| published(packet).delivery.packet_id().unwrap().number())
        .collect::<Vec<_>>();
    assert_eq!(numbers, [4, 5, 6]);
    // PUBCOMP for a QoS 1 exchange.
    machine.handle_input(NOW, &[ack(0x40, 4), ack(0x70, 5)].concat());
    assert_eq!(types(&mut machine), [0xe]);
    assert_eq!(machine.unsettled(), 5);
}
