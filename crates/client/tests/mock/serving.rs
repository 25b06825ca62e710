//! The broker that works by itself: what it does.

use std::num::{NonZeroU16, NonZeroU32};

use pantala_client::mock::{Behaviour, Cut, Limits, Message, MockBroker, ServingBroker};
use pantala_proto::{PacketType, Property, QoS, ReasonCode};

use crate::raw::{self, CONNECTED, RESUMED, Raw};

async fn client(broker: &ServingBroker, client_id: &str) -> Raw {
    Raw::begin(broker.url(), &raw::connect(client_id), &CONNECTED).await
}

async fn subscriber(broker: &ServingBroker, client_id: &str, filter: &str, options: u8) -> Raw {
    let mut client = client(broker, client_id).await;
    client.send(&raw::subscribe(1, filter, options)).await;
    client.expect(&[0x90, 4, 0, 1, 0, options & 3]).await;
    client
}

fn limited(limits: Limits) -> Behaviour {
    Behaviour { limits, ..Behaviour::default() }
}

#[tokio::test]
async fn messages_of_every_qos_go_from_client_to_client() {
    let broker = MockBroker::serve().await;
    let mut receiver = subscriber(&broker, "r", "a/+", 2).await;
    let mut sender = client(&broker, "s").await;

    sender.send(&raw::publish(0, "a/0", 0, "zero")).await;
    receiver.expect(&raw::publish(0, "a/0", 0, "zero")).await;

    sender.send(&raw::publish(0b0010, "a/1", 9, "one")).await;
    sender.expect(&raw::ack(0x40, 9)).await;
    receiver.expect(&raw::publish(0b0010, "a/1", 1, "one")).await;
    receiver.send(&raw::ack(0x40, 1)).await;

    sender.send(&raw::publish(0b0100, "a/2", 9, "two")).await;
    sender.expect(&raw::ack(0x50, 9)).await;
    sender.send(&raw::ack(0x62, 9)).await;
    sender.expect(&raw::ack(0x70, 9)).await;
    receiver.expect(&raw::publish(0b0100, "a/2", 2, "two")).await;
    receiver.send(&raw::ack(0x50, 2)).await;
    receiver.expect(&raw::ack(0x62, 2)).await;
    assert_eq!(broker.owed_to("r"), 1);
    receiver.send(&raw::ack(0x70, 2)).await;
    receiver.ping().await;
    assert_eq!(broker.owed_to("r"), 0);

    sender.send(&raw::publish(0, "b", 0, "nobody wants it")).await;
    sender.ping().await;
    receiver.ping().await;
    let published: Vec<_> = broker.published().into_iter().map(|message| message.topic_name).collect();
    assert_eq!(published, ["a/0", "a/1", "a/2", "b"]);
    assert_eq!(broker.received_of(PacketType::Publish).len(), 4);
    assert_eq!(broker.received()[0].connect().client_id, "r");
    assert_eq!(broker.connected(), ["r", "s"]);
    assert_eq!(broker.subscriptions_of("r"), ["a/+"]);
    broker.assert_no_violations();
    broker.forget_received();
    assert_eq!((broker.received().len(), broker.published().len()), (0, 0));
}

#[tokio::test]
async fn version_3_1_1_is_served_in_its_own_form() {
    let broker = MockBroker::serve().await;
    let connect = raw::connect_with(4, 0, 0, &[], "c");
    let mut client = Raw::begin(broker.url(), &connect, &[0x20, 2, 0, 0]).await;
    client.send(b"\x82\x06\x00\x01\x00\x01t\x01").await;
    client.expect(&[0x90, 3, 0, 1, 1]).await;
    client.send(b"\x32\x06\x00\x01t\x00\x05!").await;
    client.expect(b"\x32\x06\x00\x01t\x00\x01!\x40\x02\x00\x05").await;
    drop(client);
    // The message was not acknowledged.
    let mut client = Raw::begin(broker.url(), &connect, &[0x20, 2, 1, 0]).await;
    client.expect(b"\x3a\x06\x00\x01t\x00\x01!").await;
    client.send(&raw::ack(0x40, 1)).await;
    client.send(b"\xa2\x05\x00\x02\x00\x01t").await;
    client.expect(&[0xb0, 2, 0, 2]).await;
    assert_eq!(broker.subscriptions_of("c"), <[&str; 0]>::default());
    broker.behave(|behaviour| behaviour.refuse_connect = Some(ReasonCode::NotAuthorized));
    let mut other = Raw::begin(broker.url(), &connect, &[0x20, 2, 0, 5]).await;
    assert_eq!(other.rest().await, (vec![], false));
    broker.assert_no_violations();
}

#[tokio::test]
async fn retained_messages_come_with_the_subscription() {
    let broker = MockBroker::serve().await;
    let mut sender = client(&broker, "s").await;
    sender.send(&raw::publish(0b0001, "a/b", 0, "old")).await;
    sender.send(&raw::publish(0b0001, "a/b", 0, "new")).await;
    sender.send(&raw::publish(0b0001, "a/c", 0, "x")).await;
    sender.send(&raw::publish(0b0001, "a/c", 0, "")).await;
    sender.ping().await;
    assert_eq!(broker.retained("a/b").map(|message| message.payload), Some("new".into()));
    assert_eq!(broker.retained("a/c"), None);
    let mut receiver = subscriber(&broker, "r", "a/#", 1).await;
    receiver.expect(&raw::publish(0b0001, "a/b", 0, "new")).await;
    // Only if new: it is not. Not at all.
    receiver.send(&raw::subscribe(1, "a/#", 0b01_0001)).await;
    receiver.expect(&[0x90, 4, 0, 1, 0, 1]).await;
    receiver.send(&raw::subscribe(1, "a/b", 0b10_0001)).await;
    receiver.expect(&[0x90, 4, 0, 1, 0, 1]).await;
    receiver.ping().await;
    // To those who are there already RETAIN is not passed on, unless they ask for it.
    sender.send(&raw::publish(0b0001, "a/d", 0, "y")).await;
    receiver.expect(&raw::publish(0, "a/d", 0, "y")).await;
    receiver.send(&raw::subscribe(1, "a/d", 0b10_1000)).await;
    receiver.expect(&[0x90, 4, 0, 1, 0, 0]).await;
    sender.send(&raw::publish(0b0001, "a/d", 0, "z")).await;
    receiver.expect(&raw::publish(0b0001, "a/d", 0, "z")).await;
    broker.assert_no_violations();
}

#[tokio::test]
async fn a_session_goes_on_where_it_was() {
    let broker = MockBroker::serve().await;
    let mut client = Raw::begin(broker.url(), &raw::resume("c"), &CONNECTED).await;
    client.send(&raw::subscribe(1, "t", 2)).await;
    client.expect(&[0x90, 4, 0, 1, 0, 2]).await;
    let message = |payload: &'static str, qos| Message::new("t", payload).with_qos(qos);
    broker.publish(message("1", QoS::AtLeastOnce));
    broker.publish(message("2", QoS::ExactlyOnce));
    client.expect(&raw::publish(0b0010, "t", 1, "1")).await;
    client.expect(&raw::publish(0b0100, "t", 2, "2")).await;
    client.send(&raw::ack(0x50, 2)).await;
    client.expect(&raw::ack(0x62, 2)).await;
    drop(client);
    broker.wait_until(|broker| broker.connected().is_empty()).await;
    broker.publish(message("3", QoS::AtLeastOnce));
    broker.publish(message("lost", QoS::AtMostOnce));
    assert_eq!(broker.owed_to("c"), 3);

    let mut client = Raw::begin(broker.url(), &raw::resume("c"), &RESUMED).await;
    client.expect(&raw::publish(0b1010, "t", 1, "1")).await;
    client.expect(&raw::ack(0x62, 2)).await;
    client.expect(&raw::publish(0b0010, "t", 3, "3")).await;
    client.send(&[raw::ack(0x40, 1), raw::ack(0x70, 2), raw::ack(0x40, 3)].concat()).await;
    client.ping().await;
    assert_eq!(broker.owed_to("c"), 0);
    client.send(&[0xe0, 0]).await;
    assert_eq!(client.rest().await, (vec![], false));
    // Clean Start ends it.
    drop(Raw::begin(broker.url(), &raw::connect("c"), &CONNECTED).await);
    assert_eq!(broker.connections(), 3);
    broker.assert_no_violations();
}

#[tokio::test]
async fn a_qos_2_message_sent_again_is_delivered_once() {
    let broker = MockBroker::serve().await;
    broker.hold_acknowledgements();
    let mut client = Raw::begin(broker.url(), &raw::resume("c"), &CONNECTED).await;
    client.send(&raw::publish(0b0100, "t", 1, "x")).await;
    client.ping().await;
    drop(client);
    let mut client = Raw::begin(broker.url(), &raw::resume("c"), &RESUMED).await;
    client.send(&raw::publish(0b1100, "t", 1, "x")).await;
    client.ping().await;
    assert_eq!(broker.held_acknowledgements(), 1);
    broker.release_acknowledgements();
    client.expect(&raw::ack(0x50, 1)).await;
    assert_eq!(broker.published().len(), 1);
    broker.assert_no_violations();
}

#[tokio::test]
async fn acknowledgements_wait_until_they_are_released() {
    let broker = MockBroker::serve().await;
    broker.hold_acknowledgements();
    let mut client = client(&broker, "c").await;
    client.send(&[raw::subscribe(1, "x", 0), raw::publish(2, "t", 2, ""), raw::publish(4, "t", 3, "")].concat()).await;
    client.ping().await;
    assert_eq!(broker.held_acknowledgements(), 3);
    broker.release_one_acknowledgement();
    client.expect(&[0x90, 4, 0, 1, 0, 0]).await;
    client.ping().await;
    broker.release_acknowledgements();
    client.expect(&raw::ack(0x40, 2)).await;
    client.expect(&raw::ack(0x50, 3)).await;
    client.send(&raw::ack(0x62, 3)).await;
    client.expect(&raw::ack(0x70, 3)).await;
    broker.assert_no_violations();
}

#[tokio::test]
async fn the_receive_maximum_of_the_client_is_kept() {
    let broker = MockBroker::serve().await;
    let connect = raw::connect_with(5, 0b10, 0, &[0x21, 0, 1, 0x27, 0, 0, 0, 12], "c");
    let mut client = Raw::begin(broker.url(), &connect, &CONNECTED).await;
    client.send(&raw::subscribe(1, "t", 1)).await;
    client.expect(&[0x90, 4, 0, 1, 0, 1]).await;
    for payload in ["1", "much too large a message", "2"] {
        broker.publish(Message::new("t", payload).with_qos(QoS::AtLeastOnce));
    }
    broker.publish(Message::new("t", "also too large"));
    client.expect(&raw::publish(2, "t", 1, "1")).await;
    client.ping().await;
    client.send(&raw::ack(0x40, 1)).await;
    // The one that is too large took an identifier and counts as delivered.
    client.expect(&raw::publish(2, "t", 3, "2")).await;
    client.ping().await;
}

#[tokio::test]
async fn one_copy_has_the_identifiers_of_all_subscriptions() {
    let broker = MockBroker::serve().await;
    let mut client = client(&broker, "c").await;
    let with_identifier = |filter: &[u8; 3], identifier, options| {
        raw::packet(0x82, &[&[0, 1, 2, 0x0b, identifier, 0, 3], &filter[..], &[options]].concat())
    };
    client.send(&with_identifier(b"a/+", 7, 0)).await;
    client.expect(&[0x90, 4, 0, 1, 0, 0]).await;
    client.send(&with_identifier(b"a/b", 8, 1)).await;
    client.expect(&[0x90, 4, 0, 1, 0, 1]).await;
    let properties = [Property::ContentType("x")];
    broker.publish(Message::new("a/b", "!").with_qos(QoS::ExactlyOnce).with_properties(&properties));
    client.expect(&raw::publish_with(2, "a/b", 1, &[3, 0, 1, b'x', 0x0b, 7, 0x0b, 8], "!")).await;
    // No Local.
    client.send(&raw::subscribe(2, "own", 0b100)).await;
    client.expect(&[0x90, 4, 0, 2, 0, 0]).await;
    client.send(&raw::publish(0, "own", 0, "!")).await;
    client.ping().await;
}

#[tokio::test]
async fn members_of_a_shared_subscription_take_turns() {
    let broker = MockBroker::serve().await;
    let mut one = subscriber(&broker, "1", "$share/g/t", 0).await;
    let mut two = subscriber(&broker, "2", "$share/g/t", 0).await;
    for payload in ["a", "b", "c"] {
        broker.publish(Message::new("t", payload));
    }
    one.expect(&[raw::publish(0, "t", 0, "a"), raw::publish(0, "t", 0, "c")].concat()).await;
    two.expect(&raw::publish(0, "t", 0, "b")).await;
    two.ping().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let broker = MockBroker::serve().await;
    let connect = raw::packet(0x10, b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x00\x00\x01w\x00\x04gone");
    let mut client = Raw::begin(broker.url(), &connect, &CONNECTED).await;
    client.send(&[0xe0, 0]).await;
    client.rest().await;
    assert_eq!(broker.published(), []);
    drop(Raw::begin(broker.url(), &connect, &CONNECTED).await);
    assert_eq!(broker.expect_published("w").await.payload, "gone");
    // And with the words that ask for it.
    let mut client = Raw::begin(broker.url(), &connect, &CONNECTED).await;
    client.send(&[0xe0, 1, 4]).await;
    client.rest().await;
    assert_eq!(broker.published().len(), 2);
    broker.assert_no_violations();
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let broker = MockBroker::serve().await;
    let mut old = Raw::begin(broker.url(), &raw::resume("c"), &CONNECTED).await;
    let _new = Raw::begin(broker.url(), &raw::resume("c"), &RESUMED).await;
    assert_eq!(old.rest().await, (vec![0xe0, 1, 0x8e], false));
    assert_eq!(broker.connected(), ["c"]);
}

#[tokio::test]
async fn requests_are_refused_as_told() {
    let broker = MockBroker::serve().await;
    let mut client = client(&broker, "c").await;
    broker.behave(|behaviour| {
        behaviour.refuse_subscriptions = Some(ReasonCode::QuotaExceeded);
        behaviour.refuse_publishes = Some(ReasonCode::NotAuthorized);
        behaviour.refuse_connect = Some(ReasonCode::ServerBusy);
    });
    client.send(&raw::subscribe(1, "t", 0)).await;
    client.expect(&[0x90, 4, 0, 1, 0, 0x97]).await;
    client.send(&raw::publish(4, "t", 1, "")).await;
    client.expect(&[0x50, 3, 0, 1, 0x87]).await;
    client.send(&raw::publish(2, "t", 1, "")).await;
    client.expect(&[0x40, 3, 0, 1, 0x87]).await;
    client.send(b"\xa2\x06\x00\x01\x00\x00\x01t").await;
    client.expect(&[0xb0, 4, 0, 1, 0, 0x11]).await;
    let mut other = Raw::open(broker.url()).await;
    other.send(&raw::connect("o")).await;
    assert_eq!(other.rest().await, (vec![0x20, 3, 0, 0x89, 0], false));
    assert_eq!(broker.published(), []);
    assert_eq!(broker.subscriptions_of("c"), <[&str; 0]>::default());
    broker.assert_no_violations();
}

#[tokio::test]
async fn connections_end_as_told() {
    let broker = MockBroker::serve().await;
    broker.behave(|behaviour| behaviour.cut = Some(Cut::AfterPackets(2)));
    let mut cut = client(&broker, "c").await;
    cut.send(&[raw::publish(2, "t", 1, ""), raw::publish(2, "t", 2, "")].concat()).await;
    assert_eq!(cut.rest().await, (raw::ack(0x40, 1), false));
    assert_eq!(broker.received().len(), 2);

    let (connect, publish) = (raw::connect("c"), raw::publish(2, "t", 1, ""));
    broker.behave(|behaviour| behaviour.cut = Some(Cut::AfterBytes(connect.len() + publish.len() + 1)));
    let mut cut = client(&broker, "c").await;
    cut.send(&[publish.clone(), publish].concat()).await;
    assert_eq!(cut.rest().await, (vec![], false));
    assert_eq!(broker.received().len(), 4);

    broker.behave(|behaviour| behaviour.cut = None);
    let mut told = client(&broker, "t").await;
    assert!(broker.disconnect("t", ReasonCode::ServerShuttingDown));
    assert!(!broker.disconnect("nobody", ReasonCode::ServerShuttingDown));
    assert_eq!(told.rest().await, (vec![0xe0, 1, 0x8b], false));
    drop(told);
    let mut untold = client(&broker, "t").await;
    assert!(broker.drop_connections() > 0);
    assert_eq!(untold.rest().await, (vec![], false));
}

#[tokio::test]
async fn limits_are_announced_and_names_given() {
    let limits = Limits {
        receive_maximum: NonZeroU16::new(3),
        maximum_qos: QoS::AtLeastOnce,
        retain_available: false,
        maximum_packet_size: NonZeroU32::new(100),
        topic_alias_maximum: Some(5),
        server_keep_alive: Some(9),
        session_expiry_interval: Some(2),
        assigned_client_identifier: Some("yours".into()),
        wildcard_subscription_available: false,
        subscription_identifier_available: false,
        shared_subscription_available: false,
    };
    let broker = MockBroker::serve_with(limited(limits)).await;
    let conn_ack = [
        &[0x20, 44, 0, 0, 41, 0x22, 0, 5, 0x12, 0, 5][..],
        b"yours",
        &[0x13, 0, 9, 0x27, 0, 0, 0, 100, 0x21, 0, 3, 0x11, 0, 0, 0, 2],
        &[0x24, 1, 0x25, 0, 0x28, 0, 0x29, 0, 0x2a, 0],
    ]
    .concat();
    let conn_ack = [&[0x20, conn_ack.len() as u8 - 2, 0, 0, conn_ack.len() as u8 - 5], &conn_ack[5..]].concat();
    let mut client = Raw::begin(broker.url(), &raw::connect(""), &conn_ack).await;
    client.send(&raw::publish_with(0, "long/topic", 0, &[0x23, 0, 5], "1")).await;
    client.send(&raw::publish_with(0, "", 0, &[0x23, 0, 5], "2")).await;
    client.ping().await;
    let published: Vec<_> = broker.published().into_iter().map(|it| (it.topic_name, it.payload)).collect();
    assert_eq!(published, [("long/topic".to_owned(), "1".into()), ("long/topic".to_owned(), "2".into())]);
    assert_eq!(broker.connected(), ["yours"]);
    broker.assert_no_violations();
    // Without a name of the test's, each gets its own.
    broker.behave(|behaviour| behaviour.limits = Limits::default());
    for name in [b"assigned-2", b"assigned-3"] {
        let conn_ack = [&[0x20, 16, 0, 0, 13, 0x12, 0, 10], &name[..]].concat();
        Raw::begin(broker.url(), &raw::connect(""), &conn_ack).await;
    }
    // A Will beyond the limits.
    broker.behave(|behaviour| behaviour.limits.maximum_qos = QoS::AtMostOnce);
    let connect = raw::packet(0x10, b"\x00\x04MQTT\x05\x0e\x00\x00\x00\x00\x01c\x00\x00\x01w\x00\x04gone");
    let mut client = Raw::open(broker.url()).await;
    client.send(&connect).await;
    assert_eq!(client.rest().await.0[3], 0x9b);
}

#[tokio::test]
async fn a_dropped_broker_ends_its_connections() {
    let broker = MockBroker::serve().await;
    let mut client = client(&broker, "c").await;
    drop(broker);
    client.rest().await;
}
