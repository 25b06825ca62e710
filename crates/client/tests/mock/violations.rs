//! The broker that works by itself: what it sees.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use pantala_client::mock::{Behaviour, Limits, Message, MockBroker, ServingBroker};
use pantala_proto::QoS;
use tokio::io::AsyncWriteExt;

use crate::raw::{self, CONNECTED, RESUMED, Raw};

fn statements(broker: &ServingBroker) -> Vec<&'static str> {
    broker.violations().into_iter().map(|violation| violation.statement.unwrap_or("none")).collect()
}

/// Sends all of it to a broker with these limits that holds its acknowledgements, and ends. The statements violated,
/// and the Reason Code of the broker's DISCONNECT, if that came.
async fn seen(limits: Limits, packets: &[Vec<u8>]) -> (Vec<&'static str>, Option<u8>) {
    let behaviour = Behaviour { limits, hold_acknowledgements: true, ..Behaviour::default() };
    let broker = MockBroker::serve_with(behaviour).await;
    let mut client = Raw::open(broker.url()).await;
    client.send(&packets.concat()).await;
    client.stream().shutdown().await.unwrap();
    let (rest, _) = client.rest().await;
    let code = rest.strip_suffix(&rest[rest.len().saturating_sub(1)..]).filter(|rest| rest.ends_with(&[0xe0, 1]));
    (statements(&broker), code.and(rest.last().copied()))
}

/// Statement, Reason Code of DISCONNECT, limits, packets.
type Case = (&'static str, Option<u8>, Limits, Vec<Vec<u8>>);

#[tokio::test]
async fn each_violation_has_its_statement() {
    let connect = || raw::connect("c");
    let none = Limits::default;
    let aliases = || Limits { topic_alias_maximum: Some(2), ..none() };
    let cases: Vec<Case> = vec![
        ("MQTT-3.1.0-1", None, none(), vec![vec![0xc0, 0]]),
        ("MQTT-3.1.0-2", Some(0x82), none(), vec![connect(), connect()]),
        ("MQTT-2.2.1-3", None, none(), vec![connect(), raw::publish(2, "t", 1, "a"), raw::publish(2, "t", 1, "b")]),
        ("MQTT-2.2.1-3", None, none(), vec![connect(), raw::subscribe(1, "t", 0), raw::publish(2, "t", 1, "b")]),
        ("MQTT-2.2.1-3", None, none(), vec![connect(), raw::publish(2, "t", 1, "b"), raw::subscribe(1, "t", 0)]),
        ("MQTT-2.2.1-3", None, none(), vec![connect(), raw::subscribe(1, "t", 0), raw::subscribe(1, "t", 0)]),
        ("MQTT-2.2.1-3", Some(0x82), none(), vec![connect(), raw::publish(2, "t", 0, "")]),
        ("MQTT-3.3.1-2", Some(0x81), none(), vec![connect(), raw::publish(8, "t", 0, "")]),
        ("MQTT-3.3.1-4", Some(0x81), none(), vec![connect(), raw::publish(6, "t", 1, "")]),
        ("MQTT-4.3.2-2", None, none(), vec![connect(), raw::publish(10, "t", 1, "")]),
        ("MQTT-4.4.0-1", None, none(), vec![connect(), raw::publish(2, "t", 1, ""), raw::publish(10, "t", 1, "")]),
        ("MQTT-2.2.1-5", None, none(), vec![connect(), raw::ack(0x62, 1)]),
        ("MQTT-2.2.1-5", None, none(), vec![connect(), raw::ack(0x40, 1)]),
        ("MQTT-2.2.1-5", None, none(), vec![connect(), raw::ack(0x50, 1)]),
        ("MQTT-4.3.3-4", None, none(), vec![connect(), raw::publish(4, "t", 1, ""), raw::ack(0x62, 1)]),
        ("MQTT-3.3.2-2", Some(0x81), none(), vec![connect(), raw::publish(0, "a/#", 0, "")]),
        ("MQTT-4.7.3-1", Some(0x82), none(), vec![connect(), raw::publish(0, "", 0, "")]),
        ("MQTT-3.2.2-18", Some(0x94), none(), vec![connect(), raw::publish_with(0, "t", 0, &[0x23, 0, 1], "")]),
        ("MQTT-3.3.2-9", Some(0x94), aliases(), vec![connect(), raw::publish_with(0, "t", 0, &[0x23, 0, 3], "")]),
        ("MQTT-3.3.2-7", Some(0x82), aliases(), vec![connect(), raw::publish_with(0, "", 0, &[0x23, 0, 2], "")]),
        ("MQTT-3.3.2-8", Some(0x94), aliases(), vec![connect(), raw::publish_with(0, "t", 0, &[0x23, 0, 0], "")]),
        ("MQTT-3.3.4-6", Some(0x82), none(), vec![connect(), raw::publish_with(0, "t", 0, &[0x0b, 1], "")]),
        (
            "MQTT-3.3.4-7",
            Some(0x93),
            Limits { receive_maximum: NonZeroU16::new(1), ..none() },
            vec![connect(), raw::publish(0, "t", 0, ""), raw::publish(2, "t", 1, ""), raw::publish(4, "t", 2, "")],
        ),
        (
            "MQTT-3.2.2-11",
            Some(0x9b),
            Limits { maximum_qos: QoS::AtMostOnce, ..none() },
            vec![connect(), raw::publish(2, "t", 1, "")],
        ),
        (
            "MQTT-3.2.2-14",
            Some(0x9a),
            Limits { retain_available: false, ..none() },
            vec![connect(), raw::publish(1, "t", 0, "")],
        ),
        (
            "MQTT-3.2.2-15",
            Some(0x95),
            Limits { maximum_packet_size: NonZeroU32::new(10), ..none() },
            vec![connect(), raw::publish(0, "t", 0, "12345")],
        ),
        ("MQTT-3.8.3-2", Some(0x82), none(), vec![connect(), raw::packet(0x82, &[0, 1, 0])]),
        ("MQTT-3.8.3-4", Some(0x82), none(), vec![connect(), raw::subscribe(1, "$share/g/t", 0b100)]),
        ("MQTT-3.8.3-5", Some(0x81), none(), vec![connect(), raw::subscribe(1, "t", 0b1000_0000)]),
        ("MQTT-4.7.1-1", None, none(), vec![connect(), raw::subscribe(1, "a/#/b", 0)]),
        ("MQTT-4.8.2-1", None, none(), vec![connect(), raw::subscribe(1, "$share/g", 0)]),
        (
            "none",
            None,
            Limits { wildcard_subscription_available: false, ..none() },
            vec![connect(), raw::subscribe(1, "a/#", 0)],
        ),
        (
            "none",
            None,
            Limits { shared_subscription_available: false, ..none() },
            vec![connect(), raw::subscribe(1, "$share/g/t", 0)],
        ),
        (
            "none",
            Some(0xa1),
            Limits { subscription_identifier_available: false, ..none() },
            vec![connect(), raw::packet(0x82, &[0, 1, 2, 0x0b, 7, 0, 1, b't', 0])],
        ),
        ("MQTT-2.1.3-1", Some(0x81), none(), vec![connect(), vec![0xc1, 0]]),
        ("MQTT-1.5.5-1", Some(0x81), none(), vec![connect(), vec![0x30, 0x80, 0x80, 0x80, 0x80, 1]]),
        ("MQTT-3.14.4-1", None, none(), vec![connect(), vec![0xe0, 0, 0xc0, 0]]),
        ("MQTT-4.12.0-7", Some(0x82), none(), vec![connect(), vec![0xf0, 0]]),
        ("none", Some(0x82), none(), vec![connect(), vec![0xd0, 0]]),
    ];
    for (number, (statement, code, limits, packets)) in cases.into_iter().enumerate() {
        assert_eq!(seen(limits, &packets).await, (vec![statement], code), "case {number}");
    }
}

#[tokio::test]
async fn what_is_right_violates_nothing() {
    let limits = Limits { receive_maximum: NonZeroU16::new(2), topic_alias_maximum: Some(1), ..Limits::default() };
    let packets = [
        raw::connect("c"),
        raw::publish(2, "t", 1, "a"),
        raw::publish(4, "t", 2, "a"),
        raw::publish_with(0, "t", 0, &[0x23, 0, 1], ""),
        raw::publish_with(0, "", 0, &[0x23, 0, 1], ""),
        raw::subscribe(3, "#", 0),
        vec![0xe0, 0],
    ];
    assert_eq!(seen(limits, &packets).await, (vec![], None));
}

/// A client that gets "1" and "2" with this QoS, as Packet Identifiers 1 and 2.
async fn with_two_messages(broker: &ServingBroker, qos: QoS) -> Raw {
    let mut client = Raw::begin(broker.url(), &raw::connect("c"), &CONNECTED).await;
    client.send(&raw::subscribe(1, "t", 2)).await;
    client.expect(&[0x90, 4, 0, 1, 0, 2]).await;
    for (packet_id, payload) in [(1, "1"), (2, "2")] {
        broker.publish(Message::new("t", payload).with_qos(qos));
        client.expect(&raw::publish((qos as u8) << 1, "t", packet_id, payload)).await;
    }
    client
}

#[tokio::test]
async fn acknowledgements_have_an_order() {
    for (qos, first_byte, statement) in
        [(QoS::AtLeastOnce, 0x40, "MQTT-4.6.0-2"), (QoS::ExactlyOnce, 0x50, "MQTT-4.6.0-3")]
    {
        let broker = MockBroker::serve().await;
        let mut client = with_two_messages(&broker, qos).await;
        client.send(&[raw::ack(first_byte, 2), raw::ack(first_byte, 1)].concat()).await;
        broker.wait_until(|broker| broker.received().len() == 4).await;
        assert_eq!(statements(&broker), [statement]);
    }
}

#[tokio::test]
async fn acknowledgements_fit_what_they_answer() {
    let broker = MockBroker::serve().await;
    let mut client = with_two_messages(&broker, QoS::AtLeastOnce).await;
    client.send(&[raw::ack(0x50, 1), raw::ack(0x40, 1), raw::ack(0x40, 1)].concat()).await;
    client.ping().await;
    assert_eq!(statements(&broker), ["MQTT-3.3.4-1", "MQTT-2.2.1-5"]);

    let broker = MockBroker::serve().await;
    let mut client = with_two_messages(&broker, QoS::ExactlyOnce).await;
    client.send(&[raw::ack(0x70, 1), raw::ack(0x50, 2)].concat()).await;
    client.expect(&raw::ack(0x62, 2)).await;
    // A second PUBREC.
    client.send(&raw::ack(0x50, 2)).await;
    client.expect(&raw::ack(0x62, 2)).await;
    assert_eq!(statements(&broker), ["MQTT-4.3.3-11", "MQTT-2.2.1-5"]);
}

#[tokio::test]
async fn pub_rels_follow_the_pub_recs() {
    let broker = MockBroker::serve().await;
    let mut client = Raw::begin(broker.url(), &raw::connect("c"), &CONNECTED).await;
    client.send(&[raw::publish(4, "t", 5, "a"), raw::publish(4, "t", 6, "b")].concat()).await;
    client.expect(&[raw::ack(0x50, 5), raw::ack(0x50, 6)].concat()).await;
    client.send(&[raw::ack(0x62, 6), raw::ack(0x62, 5)].concat()).await;
    client.expect(&[raw::ack(0x70, 6), raw::ack(0x70, 5)].concat()).await;
    assert_eq!(statements(&broker), ["MQTT-4.6.0-4"]);
    let violation = &broker.violations()[0];
    assert_eq!((violation.connection, violation.client_id.as_str()), (1, "c"));
    let text = violation.to_string();
    assert!(text.starts_with("MQTT-4.6.0-4: connection 1, client \"c\": PUBREL 6"), "{text}");
}

/// What comes on a second connection of a Session whose first left "a" and "b" (1 and 2, QoS 1) unacknowledged.
async fn resumed(distinct_messages: bool, acknowledged: bool, packets: &[Vec<u8>]) -> Vec<&'static str> {
    let broker = MockBroker::serve_with(Behaviour {
        distinct_messages,
        hold_acknowledgements: !acknowledged,
        ..Behaviour::default()
    })
    .await;
    let mut client = Raw::begin(broker.url(), &raw::resume("c"), &CONNECTED).await;
    client.send(&[raw::publish(2, "t", 1, "a"), raw::publish(2, "t", 2, "b")].concat()).await;
    broker.wait_until(|broker| broker.received().len() == 3).await;
    drop(client);
    let mut client = Raw::begin(broker.url(), &raw::resume("c"), &RESUMED).await;
    client.send(&packets.concat()).await;
    broker.wait_until(|broker| broker.received().len() == 4 + packets.len()).await;
    statements(&broker)
}

#[tokio::test]
async fn what_is_sent_again_keeps_its_order_and_has_dup() {
    let (a, b) = (raw::publish(10, "t", 1, "a"), raw::publish(10, "t", 2, "b"));
    let a_without_dup = raw::publish(2, "t", 1, "a");
    let new = raw::publish(2, "t", 3, "new");
    for acknowledged in [false, true] {
        let right = resumed(true, acknowledged, &[a.clone(), b.clone(), new.clone()]).await;
        assert_eq!(right, <[&str; 0]>::default());
        assert_eq!(resumed(true, acknowledged, &[b.clone(), a.clone()]).await, ["MQTT-4.6.0-1"]);
        assert_eq!(resumed(true, acknowledged, &[a_without_dup.clone(), b.clone()]).await, ["MQTT-3.3.1-1"]);
    }
    assert_eq!(resumed(false, false, &[b.clone(), a.clone()]).await, ["MQTT-4.6.0-1"]);
    assert_eq!(resumed(false, false, &[a.clone(), new]).await, ["MQTT-4.4.0-1"]);
    // An acknowledgement may have been lost, or not; without distinct messages nobody can tell.
    assert_eq!(resumed(false, true, &[a_without_dup, b]).await, <[&str; 0]>::default());
}

#[tokio::test(start_paused = true)]
async fn silence_beyond_the_keep_alive_ends_the_connection() {
    for (keep_alive, server_keep_alive, statement, seconds) in
        [(10, None, "MQTT-3.1.2-20", 15), (10, Some(4), "MQTT-3.1.2-21", 6), (0, Some(2), "MQTT-3.1.2-21", 3)]
    {
        let limits = Limits { server_keep_alive, ..Limits::default() };
        let broker = MockBroker::serve_with(Behaviour { limits, ..Behaviour::default() }).await;
        let began = tokio::time::Instant::now();
        let mut client = Raw::open(broker.url()).await;
        client.send(&raw::connect_with(5, 2, keep_alive, &[], "c")).await;
        broker.wait_until(|broker| !broker.violations().is_empty()).await;
        let waited = began.elapsed();
        assert!((seconds..=seconds + 1).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(statements(&broker), [statement]);
        broker.wait_until(|broker| broker.connected().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_pings_in_time_stays() {
    let broker = MockBroker::serve().await;
    let mut client = Raw::open(broker.url()).await;
    client.send(&raw::connect_with(5, 2, 10, &[], "c")).await;
    broker.wait_until(|broker| !broker.connected().is_empty()).await;
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(10)).await;
        client.send(&[0xc0, 0]).await;
        let before = broker.received().len();
        broker.wait_until(|broker| broker.received().len() > before).await;
    }
    broker.assert_no_violations();
}

#[tokio::test]
#[should_panic(expected = "1 violations of the standard:\n    MQTT-2.2.1-5: connection 1, client \"c\"")]
async fn a_test_can_ask_for_a_well_behaved_client() {
    let broker = MockBroker::serve().await;
    let mut client = Raw::begin(broker.url(), &raw::connect("c"), &CONNECTED).await;
    client.send(&raw::ack(0x40, 1)).await;
    client.ping().await;
    broker.assert_no_violations();
}
