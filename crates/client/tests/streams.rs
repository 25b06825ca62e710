//! Streams of messages: what is dropped, what is acknowledged and when, who gets what, and what happens when nobody wants it.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/bounded.rs"]
mod bounded;
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use bounded::{bounded, bounded_paused};
use pantala_client::error::{PublishError, SubscribeError};
use pantala_client::mock::{Message as Sent, MockBroker, Peer, ServingBroker};
use pantala_client::{
    Client, Ended, Message, Options, Overflow, ProtocolVersion, QoS, ReasonCode, Reconnect, RequestError, Status,
    Subscribe, Subscription,
};
use pantala_proto::{AcknowledgementKind, PacketId, PacketType};
use tokio::time::Instant;
use wire::{End, acknowledgement, publish, wire};

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn quick() -> Reconnect {
    Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() }
}

async fn served() -> (ServingBroker, Client) {
    let broker = MockBroker::serve().await;
    let client = Client::connect(Options::new(broker.url()).unwrap().client_id("c")).await.unwrap();
    (broker, client)
}

async fn scripted(options: impl FnOnce(Options) -> Options) -> (MockBroker, Client, Peer) {
    let broker = MockBroker::listen().await;
    let client = Client::start(options(Options::new(broker.url()).unwrap().client_id("c").reconnect(quick())));
    let mut peer = broker.accept().await;
    let resumes = !peer.expect_connect().await.connect().clean_start;
    peer.conn_ack(resumes, ReasonCode::Success).await;
    client.connected().await.unwrap();
    (broker, client, peer)
}

/// Subscribes; the broker grants all of it. Also its Subscription Identifier, 0 for none.
async fn subscribed(client: &Client, peer: &mut Peer, subscribe: impl Into<Subscribe>) -> (Subscription, u32) {
    let (stream, identifier) = tokio::join!(client.subscribe(subscribe), async {
        let received = peer.expect_subscribe().await;
        let packet = received.subscribe();
        let codes = vec![ReasonCode::GrantedQoS2; packet.filters.iter().count()];
        peer.sub_ack(packet.packet_id, &codes).await;
        packet.subscription_identifier.map_or(0, u32::from)
    });
    (stream.unwrap(), identifier)
}

/// Whatever was sent before is here after it.
async fn round(client: &Client, peer: &mut Peer) {
    let publishing = client.publish(Message::new("round", "").qos(QoS::AtLeastOnce));
    let answering = async {
        let packet_id = peer.expect_publish().await.publish().delivery.packet_id().unwrap();
        peer.acknowledge(AcknowledgementKind::PubAck, packet_id, ReasonCode::Success).await;
    };
    tokio::join!(publishing, answering).0.unwrap();
}

/// PUBLISH for the subscriptions with these identifiers.
fn publish_for(first_byte: u8, topic_name: &str, packet_id: u16, identifiers: &[u32]) -> Vec<u8> {
    let mut properties = Vec::new();
    for identifier in identifiers {
        properties.push(0x0b);
        let mut rest = *identifier;
        loop {
            let more = if rest > 127 { 0x80 } else { 0 };
            properties.push((rest & 0x7f) as u8 | more);
            rest >>= 7;
            if rest == 0 {
                break;
            }
        }
    }
    let mut body = vec![0, topic_name.len() as u8];
    body.extend(topic_name.as_bytes());
    if first_byte & 0b110 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(properties.len() as u8);
    body.extend(properties);
    [vec![first_byte, body.len() as u8], body].concat()
}

fn is_waiting(future: impl Future) -> bool {
    let mut future = Box::pin(future);
    let waker = std::task::Waker::noop();
    future.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending()
}

#[test]
fn a_full_stream_drops_the_oldest_or_the_newest() {
    bounded(async || {
        for (overflow, kept) in [(Overflow::DropOldest, ["7", "8", "9"]), (Overflow::DropNewest, ["0", "1", "2"])] {
            let (broker, client) = served().await;
            let subscribe = Subscribe::new("t", QoS::ExactlyOnce).buffer(3).overflow(overflow);
            let mut stream = client.subscribe(subscribe).await.unwrap();
            let mut end = client.subscribe("end").await.unwrap();
            for number in 0..10 {
                broker.publish(Sent::new("t", number.to_string()));
            }
            // Of QoS 1 nothing is dropped, and it takes no room.
            broker.publish(Sent::new("t", "one").with_qos(QoS::AtLeastOnce));
            broker.publish(Sent::new("end", ""));
            end.recv().await.unwrap();
            for payload in kept {
                assert_eq!(stream.recv().await.unwrap().payload(), payload);
            }
            assert_eq!(stream.recv().await.unwrap().payload(), "one");
            assert_eq!(stream.dropped(), 7);
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

#[test]
fn a_stream_that_waits_loses_nothing() {
    bounded(async || {
        let (broker, client) = served().await;
        let subscribe = Subscribe::new("t", QoS::AtMostOnce).buffer(2).overflow(Overflow::Wait);
        let mut stream = client.subscribe(subscribe).await.unwrap();
        for number in 0..20_000 {
            broker.publish(Sent::new("t", number.to_string()));
        }
        for number in 0..20_000 {
            assert_eq!(stream.recv().await.unwrap().payload(), &number.to_string());
        }
        assert_eq!(stream.dropped(), 0);
    });
}

/// While a stream was full, a new connection came to nothing: its CONNACK was not read either.
#[test]
fn a_full_stream_does_not_prevent_a_new_connection() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.welcome(false).await;
        let subscribe = Subscribe::new("t", QoS::AtMostOnce).buffer(1).overflow(Overflow::Wait);
        let (stream, ()) = tokio::join!(client.subscribe(subscribe), async {
            let packet = end.skip_to(0x82).await;
            end.send(&[0x90, 4, packet[2], packet[3], 0, 0]).await;
            end.send(&publish(0x30, "t", 0, "x").repeat(5)).await;
        });
        let mut stream = stream.unwrap();
        drop(end);
        let mut end = listener.welcome(false).await;
        let packet = end.skip_to(0x82).await;
        let began = Instant::now();
        // No other connection is made while the program takes its time.
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(matches!(client.status(), Status::Connected(_)), "{:?}", client.status());
        end.send(&[0x90, 4, packet[2], packet[3], 0, 0]).await;
        for _ in 0..5 {
            stream.recv().await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(51));
    });
}

#[test]
fn acknowledgements_by_hand_go_out_in_the_order_of_the_messages() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options).await;
        let (mut stream, _) =
            subscribed(&client, &mut peer, Subscribe::new("t", QoS::ExactlyOnce).acknowledge_by_hand()).await;
        let mut messages = Vec::new();
        for packet_id in 1..=6 {
            let first_byte = if packet_id % 2 == 1 { 0x32 } else { 0x34 };
            peer.send_bytes(&publish(first_byte, "t", packet_id, "x")).await;
            messages.push(stream.recv().await.unwrap());
        }
        for at in [5, 3, 1, 2, 4, 0] {
            messages[at].acknowledge();
            messages[at].acknowledge();
        }
        for packet_id in 1..=6 {
            let kind = if packet_id % 2 == 1 { AcknowledgementKind::PubAck } else { AcknowledgementKind::PubRec };
            peer.expect_acknowledgement(kind, id(packet_id)).await;
        }
        client.try_publish(&Message::new("last", "")).unwrap();
        peer.expect_publish().await;
    });
}

#[test]
fn a_message_is_acknowledged_when_the_next_is_asked_for() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options).await;
        let (mut stream, _) = subscribed(&client, &mut peer, ("t", QoS::AtLeastOnce)).await;
        peer.send_bytes(&publish(0x32, "t", 1, "x")).await;
        stream.recv().await.unwrap();
        client.publish(Message::new("first", "")).await.unwrap();
        peer.expect_publish().await;
        assert!(is_waiting(stream.recv()));
        peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(1)).await;
    });
}

#[test]
fn overlapping_streams_both_get_the_message_and_both_acknowledge_it() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options).await;
        let mut identifiers = Vec::new();
        let mut streams = Vec::new();
        for filter in ["a/#", "a/+"] {
            let (stream, identifier) = subscribed(&client, &mut peer, (filter, QoS::AtLeastOnce)).await;
            streams.push(stream);
            identifiers.push(identifier);
        }
        // Once for both, once for each, and once without a word about it.
        peer.send_bytes(&publish_for(0x32, "a/b", 1, &identifiers)).await;
        peer.send_bytes(&publish_for(0x32, "a/b", 2, &identifiers[..1])).await;
        peer.send_bytes(&publish_for(0x32, "a/b", 3, &identifiers[1..])).await;
        peer.send_bytes(&publish_for(0x32, "a/b", 4, &[])).await;
        for (stream, expected) in streams.iter_mut().zip([[1, 2, 4], [1, 3, 4]]) {
            for packet_id in expected {
                assert_eq!(stream.recv().await.unwrap().packet_id(), packet_id);
            }
            client.publish(Message::new("round", "")).await.unwrap();
        }
        // The first stream alone has nothing acknowledged: its first message belongs to the other one, too.
        peer.expect_publish().await;
        for packet_id in 1..=3 {
            peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(packet_id)).await;
        }
        peer.expect_publish().await;
        streams.iter_mut().for_each(Subscription::acknowledge);
        peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(4)).await;
    });
}

/// A stream of two filters that both match has one identifier, and the broker may say it twice: the message came twice.
#[test]
fn an_identifier_that_comes_twice_is_one_stream() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options).await;
        let ask = Subscribe::new("a/#", QoS::AtLeastOnce).filter("a/+", QoS::AtLeastOnce);
        let (mut stream, identifier) = subscribed(&client, &mut peer, ask).await;
        peer.send_bytes(&publish_for(0x32, "a/b", 1, &[identifier, identifier])).await;
        peer.send_bytes(&publish_for(0x32, "a/b", 2, &[identifier])).await;
        assert_eq!(stream.recv().await.unwrap().packet_id(), 1);
        assert_eq!(stream.recv().await.unwrap().packet_id(), 2);
    });
}

/// The broker has one subscription for each filter: with the second stream the first one had nothing more, and when the second
/// was dropped, nobody had.
#[test]
fn streams_with_the_same_filter_all_get_its_messages() {
    bounded(async || {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            let broker = MockBroker::serve().await;
            let options = Options::new(broker.url()).unwrap().client_id("c").version(version);
            let client = Client::connect(options).await.unwrap();
            let mut first = client.subscribe(("a/#", QoS::ExactlyOnce)).await.unwrap();
            let mut second = client.subscribe(("a/#", QoS::ExactlyOnce)).await.unwrap();
            let third =
                client.subscribe(Subscribe::new("a/#", QoS::ExactlyOnce).filter("b", QoS::AtLeastOnce)).await.unwrap();
            client.publish(Message::new("a/1", "").qos(QoS::ExactlyOnce)).await.unwrap();
            assert_eq!(first.recv().await.unwrap().topic_name(), "a/1");
            assert_eq!(second.recv().await.unwrap().topic_name(), "a/1");
            third.unsubscribe().await.unwrap();
            assert_eq!(broker.subscriptions_of("c"), ["a/#"]);
            drop(second);
            client.publish(Message::new("a/2", "").qos(QoS::ExactlyOnce)).await.unwrap();
            assert_eq!(first.recv().await.unwrap().topic_name(), "a/2");
            drop(first);
            broker.wait_until(|broker| broker.subscriptions_of("c").is_empty()).await;
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

/// Where the last message went is remembered; with each stream that comes or goes that is another question.
#[test]
fn streams_that_come_and_go_between_messages_of_one_topic_all_get_theirs() {
    bounded(async || {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            let broker = MockBroker::serve().await;
            let options = Options::new(broker.url()).unwrap().client_id("c").version(version);
            let client = Client::connect(options).await.unwrap();
            let publish = async |payload: &'static str| {
                for _ in 0..2 {
                    client.publish(Message::new("a/1", payload).qos(QoS::AtLeastOnce)).await.unwrap();
                }
            };
            let mut first = client.subscribe(("a/#", QoS::AtLeastOnce)).await.unwrap();
            publish("1").await;
            let mut second = client.subscribe(("a/#", QoS::AtLeastOnce)).await.unwrap();
            publish("2").await;
            assert_eq!(next_payloads(&mut second, 2).await, ["2"; 2], "{version:?}");
            second.unsubscribe().await.unwrap();
            publish("3").await;
            let mut third = client.subscribe(("a/1", QoS::AtLeastOnce)).await.unwrap();
            publish("4").await;
            assert_eq!(next_payloads(&mut first, 8).await, ["1", "1", "2", "2", "3", "3", "4", "4"], "{version:?}");
            drop(first);
            broker.wait_until(|broker| broker.subscriptions_of("c") == ["a/1"]).await;
            publish("5").await;
            assert_eq!(next_payloads(&mut third, 4).await, ["4", "4", "5", "5"], "{version:?}");
            client.unsubscribe(["a/1"]).await.unwrap();
            assert_eq!(third.recv().await.unwrap_err(), Ended::Unsubscribed);
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

async fn next_payloads(stream: &mut Subscription, messages: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < messages {
        let waiting = tokio::time::timeout(Duration::from_secs(60), stream.recv());
        let received = waiting.await.unwrap_or_else(|_| panic!("nothing came after {payloads:?}")).unwrap();
        payloads.push(String::from_utf8(received.payload().to_vec()).unwrap());
    }
    payloads
}

/// The payloads that come to a stream before the one that says "end".
async fn until_end(stream: &mut Subscription) -> Vec<String> {
    let mut payloads = Vec::new();
    loop {
        let received = stream.recv().await.unwrap();
        if received.payload() == "end" {
            return payloads;
        }
        payloads.push(String::from_utf8(received.payload().to_vec()).unwrap());
    }
}

fn times(times: usize) -> Vec<String> {
    (1..=3).flat_map(|number| vec![number.to_string(); times]).collect()
}

/// With a broker that sends a copy for each subscription, streams with a filter in common had a message twice: the identifier of a
/// stream said no more which of its filters a copy was for.
#[test]
fn with_identifiers_overlapping_streams_get_each_message_once_whatever_copies_the_broker_sends() {
    bounded(async || {
        let filters: [&[&str]; 6] = [&["a/#"], &["a/+"], &["a/#"], &["a/#", "b"], &["c", "a/b", "a/#"], &["a/b"]];
        for (several, first) in [(false, 0), (true, 0), (true, 1), (true, 2), (true, 3), (true, 4), (true, 5)] {
            let (broker, client) = served().await;
            broker.behave(|behaviour| behaviour.copy_for_each_subscription = several);
            let mut streams = Vec::new();
            for number in (0..6).map(|number| (number + first) % 6) {
                let ask = |ask: Subscribe, filter: &&str| ask.filter(*filter, QoS::ExactlyOnce);
                let stream = client.subscribe(filters[number].iter().fold(Subscribe::default(), ask)).await.unwrap();
                assert_eq!(stream.granted(), vec![ReasonCode::GrantedQoS2; filters[number].len()]);
                streams.push((number, stream));
            }
            for payload in ["1", "2", "3", "end"] {
                broker.publish(Sent::new("a/b", payload).with_qos(QoS::ExactlyOnce));
            }
            for (number, stream) in &mut streams {
                // The filters of the one overlap with each other.
                let copies = if several && *number == 4 { 2 } else { 1 };
                assert_eq!(until_end(stream).await, times(copies), "stream {number}, {several}, from {first}");
                stream.acknowledge();
            }
            // Without the others each still has what it had, and the last takes the subscriptions with it.
            while let Some((number, stream)) = streams.pop() {
                drop(stream);
                client.unsubscribe(["nothing"]).await.unwrap();
                for payload in ["1", "2", "3", "end"] {
                    broker.publish(Sent::new("a/b", payload).with_qos(QoS::ExactlyOnce));
                }
                for (left, stream) in streams.iter_mut().filter(|(left, _)| !several || *left != 4) {
                    assert_eq!(
                        until_end(stream).await,
                        times(1),
                        "stream {left} without {number}, {several}, from {first}"
                    );
                }
            }
            broker.wait_until(|broker| broker.subscriptions_of("c").is_empty()).await;
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

/// Without identifiers nobody can tell copies from messages: each copy goes to each stream that matches.
#[test]
fn without_identifiers_streams_get_as_many_copies_as_the_broker_sends() {
    bounded(async || {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            for several in [false, true] {
                let broker = MockBroker::serve().await;
                broker.behave(|behaviour| {
                    behaviour.copy_for_each_subscription = several;
                    behaviour.limits.subscription_identifier_available = false;
                });
                let options = Options::new(broker.url()).unwrap().client_id("c").version(version);
                let client = Client::connect(options).await.unwrap();
                let mut streams = Vec::new();
                // Equal ones are one subscription.
                for filter in ["a/#", "a/b", "a/#", "a/b"] {
                    streams.push(client.subscribe((filter, QoS::ExactlyOnce)).await.unwrap());
                }
                for payload in ["1", "2", "3", "end"] {
                    broker.publish(Sent::new("a/b", payload).with_qos(QoS::ExactlyOnce));
                }
                for stream in &mut streams {
                    assert_eq!(until_end(stream).await, times(if several { 2 } else { 1 }));
                }
                streams.iter_mut().for_each(Subscription::acknowledge);
                client.disconnect().await;
                broker.assert_no_violations();
            }
        }
    });
}

/// What a dropped stream had left was given to the others that match, which had had it, when the next one subscribed.
#[test]
fn what_a_dropped_stream_leaves_comes_to_no_stream_that_had_it() {
    bounded(async || {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            let broker = MockBroker::serve().await;
            let options = Options::new(broker.url()).unwrap().client_id("c").version(version);
            let client = Client::connect(options.keep_session(Duration::from_secs(100))).await.unwrap();
            let all = client.subscribe(("a/#", QoS::ExactlyOnce)).await.unwrap();
            let mut one = client.subscribe(("a/b", QoS::ExactlyOnce)).await.unwrap();
            broker.publish(Sent::new("a/b", "1").with_qos(QoS::ExactlyOnce));
            assert_eq!(one.recv().await.unwrap().payload(), "1");
            one.acknowledge();
            drop(all);
            let _other = client.subscribe(("x", QoS::ExactlyOnce)).await.unwrap();
            let mut again = client.subscribe(("a/#", QoS::ExactlyOnce)).await.unwrap();
            assert_eq!(again.recv().await.unwrap().payload(), "1");
            again.acknowledge();
            broker.publish(Sent::new("a/b", "2").with_qos(QoS::ExactlyOnce));
            assert_eq!(one.recv().await.unwrap().payload(), "2");
            assert_eq!(again.recv().await.unwrap().payload(), "2");
            one.acknowledge();
            again.acknowledge();
            broker.wait_until(|broker| broker.owed_to("c") == 0).await;
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

/// The broker sends Retained Messages for each SUBSCRIBE, and a stream that had them had them again when another subscribed.
#[test]
fn retained_messages_come_once_to_each_stream() {
    bounded(async || {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            let broker = MockBroker::serve().await;
            let options = Options::new(broker.url()).unwrap().client_id("c").version(version).reconnect(quick());
            let client = Client::connect(options).await.unwrap();
            for topic_name in ["a/1", "a/2"] {
                broker.publish(Sent::new(topic_name, "kept").with_qos(QoS::AtLeastOnce).retained());
            }
            let mut streams = Vec::new();
            for filter in ["a/#", "a/#", "a/1"] {
                streams.push(client.subscribe((filter, QoS::AtLeastOnce)).await.unwrap());
            }
            for round in 0..2 {
                broker.publish(Sent::new("a/1", "end").with_qos(QoS::AtLeastOnce));
                for (number, stream) in streams.iter_mut().enumerate() {
                    let kept = until_end(stream).await.len();
                    let expected = if number == 2 { 1 } else { 2 };
                    // Before MQTT 5 nothing tells which of the filters that we subscribed to again it comes for.
                    let more = usize::from(round == 1 && version == ProtocolVersion::V311);
                    assert!((expected..=expected + more).contains(&kept), "stream {number}, round {round}: {kept}");
                }
                streams.iter_mut().for_each(Subscription::acknowledge);
                if round == 0 {
                    // A lost Session: they come again, since they may have changed meanwhile.
                    let mut changes = client.changes();
                    broker.drop_connections();
                    while matches!(changes.next().await, Some(Status::Connected(_))) {}
                    client.connected().await.unwrap();
                    broker.wait_until(|broker| broker.subscriptions_of("c").len() == 2).await;
                }
            }
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

#[test]
fn before_mqtt_5_streams_get_what_their_filters_match() {
    bounded(async || {
        let broker = MockBroker::serve().await;
        let options = Options::new(broker.url()).unwrap().client_id("c").version(ProtocolVersion::V311);
        let client = Client::connect(options).await.unwrap();
        let mut all = client.subscribe(("a/#", QoS::AtMostOnce)).await.unwrap();
        let mut one = client.subscribe(("a/b", QoS::AtMostOnce)).await.unwrap();
        let mut other = client.subscribe(("a/c", QoS::AtMostOnce)).await.unwrap();
        broker.publish(Sent::new("a/b", ""));
        broker.publish(Sent::new("a/c", ""));
        assert_eq!(one.recv().await.unwrap().topic_name(), "a/b");
        assert_eq!(other.recv().await.unwrap().topic_name(), "a/c");
        assert_eq!(all.recv().await.unwrap().topic_name(), "a/b");
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

/// What came between the end of a stream and UNSUBACK was nobody's, and all acknowledgements after it waited for ever.
#[test]
fn what_still_comes_for_a_dropped_stream_is_acknowledged() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options).await;
        drop(subscribed(&client, &mut peer, ("t", QoS::AtLeastOnce)).await);
        let packet_id = peer.expect_unsubscribe().await.unsubscribe().packet_id;
        peer.send_bytes(&publish(0x32, "t", 1, "x")).await;
        peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(1)).await;
        peer.unsub_ack(packet_id, &[ReasonCode::Success]).await;
        // And if a broker is late with it.
        peer.send_bytes(&publish(0x34, "t", 2, "x")).await;
        peer.expect_acknowledgement(AcknowledgementKind::PubRec, id(2)).await;
        // It is kept a while all the same, if somebody still asks.
        assert_eq!(client.unclaimed().recv().await.unwrap().packet_id(), 2);
    });
}

#[test]
fn what_still_comes_for_a_stream_that_unsubscribes_is_acknowledged() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options.keep_session(Duration::from_secs(100))).await;
        let (stream, _) = subscribed(&client, &mut peer, ("t", QoS::AtLeastOnce)).await;
        peer.send_bytes(&publish(0x32, "t", 1, "x")).await;
        let (answer, ()) = tokio::join!(stream.unsubscribe(), async {
            let mut acknowledged = 0;
            let packet_id = loop {
                let received = peer.next_packet().await.unwrap();
                match received.packet_type() {
                    PacketType::PubAck => acknowledged += 1,
                    _ => break received.unsubscribe().packet_id,
                }
            };
            peer.send_bytes(&publish(0x32, "t", 2, "x")).await;
            for packet_id in acknowledged + 1..=2 {
                peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(packet_id)).await;
            }
            peer.unsub_ack(packet_id, &[ReasonCode::Success]).await;
        });
        assert_eq!(answer.unwrap().reason_codes, [ReasonCode::Success]);
    });
}

#[test]
fn in_a_session_that_lives_on_a_dropped_stream_leaves_its_messages_to_the_next() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options.keep_session(Duration::from_secs(100))).await;
        for time in 0..2 {
            let (mut stream, _) = subscribed(&client, &mut peer, ("t", QoS::AtLeastOnce)).await;
            if time == 0 {
                peer.send_bytes(&publish(0x32, "t", 1, "x")).await;
                assert_eq!(stream.recv().await.unwrap().packet_id(), 1);
                stream.acknowledge();
                peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(1)).await;
                drop(stream);
                peer.send_bytes(&publish(0x32, "t", 2, "x")).await;
                // A round, so that it is here.
                round(&client, &mut peer).await;
            } else {
                assert_eq!(stream.recv().await.unwrap().packet_id(), 2);
                stream.acknowledge();
                peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(2)).await;
            }
        }
    });
}

#[test]
fn messages_of_an_earlier_program_wait_for_who_asks() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options.keep_session(Duration::from_secs(100))).await;
        peer.send_bytes(&publish_for(0x32, "old", 1, &[77])).await;
        peer.send_bytes(&publish_for(0x34, "old", 2, &[])).await;
        let mut unclaimed = client.unclaimed();
        assert_eq!(unclaimed.recv().await.unwrap().packet_id(), 1);
        assert_eq!(unclaimed.recv().await.unwrap().packet_id(), 2);
        peer.expect_acknowledgement(AcknowledgementKind::PubAck, id(1)).await;
        let mut again = client.unclaimed();
        assert!(unclaimed.recv().await.is_err());
        peer.send_bytes(&publish(0x32, "old", 3, "")).await;
        assert_eq!(again.recv().await.unwrap().packet_id(), 3);
    });
}

/// With each connection the broker sends what is not acknowledged again: unread, it piled up.
#[test]
fn what_nobody_has_taken_does_not_pile_up_over_connections() {
    bounded(async || {
        let (broker, client, mut peer) = scripted(|options| options.keep_session(Duration::from_secs(100))).await;
        let (mut stream, _) = subscribed(&client, &mut peer, ("t", QoS::ExactlyOnce)).await;
        let mut dup = 0;
        for _ in 0..5 {
            peer.send_bytes(&publish(0x32 | dup, "t", 1, "")).await;
            peer.send_bytes(&publish(0x34 | dup, "t", 2, "")).await;
            peer.send_bytes(&publish(0x32 | dup, "other", 3, "")).await;
            round(&client, &mut peer).await;
            peer.close().await;
            peer = broker.accept().await;
            peer.expect_connect().await;
            peer.conn_ack(true, ReasonCode::Success).await;
            dup = 8;
        }
        round(&client, &mut peer).await;
        let mut unclaimed = client.unclaimed();
        peer.send_bytes(&publish(0x3a, "t", 1, "")).await;
        peer.send_bytes(&publish(0x3c, "t", 2, "")).await;
        peer.send_bytes(&publish(0x3a, "other", 3, "")).await;
        peer.send_bytes(&publish(0x30, "t", 0, "end")).await;
        peer.send_bytes(&publish(0x30, "other", 0, "end")).await;
        let mut came = Vec::new();
        loop {
            let message = stream.recv().await.unwrap();
            came.push(message.packet_id());
            if message.payload() == "end" {
                break;
            }
        }
        came.sort_unstable();
        assert_eq!(came, [0, 1, 2]);
        assert_eq!(unclaimed.recv().await.unwrap().packet_id(), 3);
        assert_eq!(unclaimed.recv().await.unwrap().payload(), "end");
    });
}

#[test]
fn dropped_futures_lose_nothing() {
    bounded(async || {
        let (broker, client) = served().await;
        broker.hold_acknowledgements();
        // Taken, and published though nobody waits for the answer.
        assert!(is_waiting(client.publish(Message::new("t", "dropped").qos(QoS::ExactlyOnce))));
        broker.expect_published("t").await;
        // The subscription ends.
        assert!(is_waiting(client.subscribe("never")));
        broker.release_acknowledgements();
        client.settled().await.unwrap();
        let mut stream = client.subscribe(("s", QoS::AtLeastOnce)).await.unwrap();
        broker.wait_until(|broker| broker.subscriptions_of("c") == ["s"]).await;
        for number in 0..100 {
            assert!(is_waiting(stream.recv()));
            broker.publish(Sent::new("s", number.to_string()).with_qos(QoS::AtLeastOnce));
            assert_eq!(stream.recv().await.unwrap().payload(), &number.to_string());
        }
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

#[test]
fn publishing_while_a_message_is_handled_never_locks_up() {
    bounded(async || {
        let broker = MockBroker::serve().await;
        let mut options = Options::new(broker.url()).unwrap().client_id("c");
        options.session.receive_maximum = 1.try_into().unwrap();
        options.session.inflight_maximum = 1.try_into().unwrap();
        options.session.queue_messages_max = 1;
        options.session.output_bytes_max = 1;
        let client = Client::connect(options).await.unwrap();
        let mut stream = client.subscribe(Subscribe::new("question", QoS::ExactlyOnce).buffer(1)).await.unwrap();
        for number in 0..500 {
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][number % 2];
            broker.publish(Sent::new("question", number.to_string()).with_qos(qos));
        }
        for number in 0..500 {
            let message = stream.recv().await.unwrap();
            assert_eq!(message.payload(), &number.to_string());
            for _ in 0..3 {
                let answer = Message::new("answer", message.payload().clone()).qos(QoS::ExactlyOnce);
                client.publish(answer).await.unwrap();
            }
        }
        client.settled().await.unwrap();
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

#[test]
fn the_last_handle_ends_the_client() {
    bounded(async || {
        let (broker, client) = served().await;
        let other = client.clone();
        let stream = client.subscribe("t").await.unwrap();
        drop(client);
        drop(other);
        broker.publish(Sent::new("t", "still there"));
        let mut stream = stream;
        assert_eq!(stream.recv().await.unwrap().payload(), "still there");
        drop(stream);
        broker.wait_until(|broker| broker.connected().is_empty()).await;
        assert_eq!(broker.received().last().unwrap().packet_type(), PacketType::Disconnect);
        broker.assert_no_violations();
    });
}

/// Answers that came too late were taken by nobody, and all acknowledgements waited behind theirs.
#[test]
fn answers_that_come_too_late_hold_up_nothing() {
    bounded(async || {
        let (broker, client) = served().await;
        let requester = client.requester().await.unwrap();
        let mut stream = client.subscribe(("t", QoS::AtLeastOnce)).await.unwrap();
        let question = Message::new("question", "").qos(QoS::AtLeastOnce);
        let error = requester.request(question, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, RequestError::TimedOut), "{error:?}");
        for number in 0..3_000 {
            let late = Sent::new(requester.response_topic(), "late").with_qos(QoS::AtLeastOnce);
            broker.publish(late);
            broker.publish(Sent::new("t", number.to_string()).with_qos(QoS::AtLeastOnce));
        }
        for number in 0..3_000 {
            assert_eq!(stream.recv().await.unwrap().payload(), &number.to_string());
        }
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

#[test]
fn requests_need_mqtt_5() {
    bounded(async || {
        let broker = MockBroker::serve().await;
        let options = Options::new(broker.url()).unwrap().client_id("c").version(ProtocolVersion::V311);
        let client = Client::connect(options).await.unwrap();
        assert!(matches!(client.requester().await, Err(SubscribeError::NeedsV5)));
    });
}

/// Acknowledges a message of QoS 1, and returns the next packet.
async fn acknowledged(end: &mut End, packet: &[u8]) -> Vec<u8> {
    let at = 4 + usize::from(packet[3]);
    end.send(&acknowledgement(0x40, u16::from_be_bytes([packet[at], packet[at + 1]]))).await;
    end.packet().await.unwrap()
}

/// The time that a message had waited was counted from when the connection had last done something.
#[test]
fn a_message_expires_by_the_time_it_has_waited_itself() {
    bounded_paused(async || {
        let (mut options, mut listener) = wire();
        options.session.inflight_maximum = 1.try_into().unwrap();
        let client = Client::start(options.client_id("c").keep_alive(Duration::ZERO));
        let expiring = |topic: &str| {
            Message::new(topic, "").qos(QoS::AtLeastOnce).message_expiry_interval(Duration::from_secs(10))
        };
        // Without a connection.
        let mut end = listener.accept().await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        client.try_publish(&expiring("early")).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        end.packet().await;
        end.send(&[0x20, 3, 0, 0, 0]).await;
        let early = end.packet().await.unwrap();
        assert_eq!(early[4..9], *b"early");
        assert_eq!(early[11..], [5, 2, 0, 0, 0, 10]);
        // Behind another that is not acknowledged.
        tokio::time::sleep(Duration::from_secs(100)).await;
        client.try_publish(&expiring("b")).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        client.try_publish(&expiring("c")).unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        // The one has waited for eleven seconds, the other for eight.
        let packet = acknowledged(&mut end, &early).await;
        assert_eq!((packet[4], &packet[7..]), (b'c', &[5, 2, 0, 0, 0, 2][..]));
        client.try_publish(&Message::new("d", "")).unwrap();
        end.expect(&publish(0x30, "d", 0, "")).await;
    });
}

/// The broker took such a message for a Protocol Error, and got it again on each connection.
#[test]
fn properties_that_mqtt_cannot_carry_are_refused() {
    bounded(async || {
        let (broker, client) = served().await;
        for message in [
            Message::new("t", "").user_property("k\0", "v"),
            Message::new("t", "").content_type("\0"),
            Message::new("t", "").response_topic("a/+"),
            Message::new("t", "").response_topic(""),
        ] {
            assert_eq!(client.publish(message.qos(QoS::AtLeastOnce)).await, Err(PublishError::PropertyMalformed));
        }
        let subscribe = Subscribe::new("t", QoS::AtMostOnce).user_property("k", "\0");
        assert!(matches!(client.subscribe(subscribe).await, Err(SubscribeError::UserProperty)));
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

#[test]
fn a_refused_subscription_is_an_error_and_leaves_nothing() {
    bounded(async || {
        let (broker, client) = served().await;
        broker.behave(|behaviour| behaviour.refuse_subscriptions = Some(ReasonCode::NotAuthorized));
        let error = client.subscribe("t").await.unwrap_err();
        assert!(matches!(error, SubscribeError::Refused(refusal) if refusal.reason_code == ReasonCode::NotAuthorized));
        broker.behave(|behaviour| behaviour.refuse_subscriptions = None);
        client.subscribe("t").await.unwrap();
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

/// SUBACK to this SUBSCRIBE, with one Reason Code.
fn sub_ack(packet: &[u8], v5: bool) -> Vec<u8> {
    if v5 { vec![0x90, 4, packet[2], packet[3], 0, 0] } else { vec![0x90, 3, packet[2], packet[3], 0] }
}

/// A stream that waits was full before the broker had said yes: its answer was not read, and nobody had the stream yet to make
/// room.
#[test]
fn a_stream_is_not_full_before_its_subscription_is_answered() {
    bounded_paused(async || {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            let v5 = version == ProtocolVersion::V5;
            let message = |number: u32| {
                let text = number.to_string();
                if v5 {
                    publish(0x30, "a/b", 0, &text)
                } else {
                    [&[0x30, 5 + text.len() as u8], &b"\0\x03a/b"[..], text.as_bytes()].concat()
                }
            };
            let (options, mut listener) = wire();
            let client = Client::start(options.client_id("c").version(version));
            let mut end = listener.welcome(false).await;
            let (overlapping, ()) = tokio::join!(client.subscribe("a/#"), async {
                let packet = end.skip_to(0x82).await;
                end.send(&sub_ack(&packet, v5)).await;
            });
            let mut overlapping = overlapping.unwrap();
            let ask = Subscribe::new("a/+", QoS::AtMostOnce).buffer(2).overflow(Overflow::Wait);
            let subscribing = tokio::time::timeout(Duration::from_secs(60), client.subscribe(ask));
            let (stream, end) = tokio::join!(subscribing, async move {
                let packet = end.skip_to(0x82).await;
                for number in 0..100 {
                    end.send(&message(number)).await;
                }
                // They have been read by then.
                tokio::time::sleep(Duration::from_secs(1)).await;
                end.send(&sub_ack(&packet, v5)).await;
                // From here on it waits.
                for number in 100..20_000 {
                    let sent = tokio::time::timeout(Duration::from_secs(1), end.send(&message(number))).await;
                    if sent.is_err() {
                        return (end, number);
                    }
                }
                panic!("nothing waits")
            });
            let mut stream = stream.expect("the answer is read").unwrap();
            for number in 0..100 {
                assert_eq!(stream.recv().await.unwrap().payload(), &number.to_string());
                assert_eq!(overlapping.recv().await.unwrap().payload(), &number.to_string());
            }
            assert_eq!(stream.dropped(), 0);
            drop(end.0.stream);
            // What was on the wire still comes.
            for number in 100..end.1 {
                assert_eq!(stream.recv().await.unwrap().payload(), &number.to_string());
            }
        }
    });
}

/// The same by what had waited for a stream.
#[test]
fn what_was_unclaimed_does_not_keep_a_subscription_from_its_answer() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.welcome(false).await;
        client.connected().await.unwrap();
        end.send(&publish(0x30, "t", 0, "x").repeat(1_000)).await;
        // Behind them, so that they have come.
        let (published, ()) = tokio::join!(client.publish(Message::new("up", "").qos(QoS::AtLeastOnce)), async {
            end.skip_to(0x32).await;
            end.send(&acknowledgement(0x40, 1)).await;
        });
        published.unwrap();
        let ask = Subscribe::new("t", QoS::AtMostOnce).overflow(Overflow::Wait);
        let (stream, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(60), client.subscribe(ask)), async {
            let packet = end.skip_to(0x82).await;
            end.send(&sub_ack(&packet, true)).await;
        });
        let mut stream = stream.expect("the answer is read").unwrap();
        for _ in 0..1_000 {
            stream.recv().await.unwrap();
        }
        assert_eq!(stream.dropped(), 0);
    });
}

/// Who waited for the next message waited for ever.
#[test]
fn a_stream_ends_when_the_last_of_its_filters_is_unsubscribed() {
    bounded(async || {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            let broker = MockBroker::serve().await;
            let options = Options::new(broker.url()).unwrap().client_id("c").version(version);
            let client = Client::connect(options).await.unwrap();
            let ask = Subscribe::new("a", QoS::AtLeastOnce).filter("b", QoS::AtLeastOnce);
            let mut both = client.subscribe(ask).await.unwrap();
            let mut other = client.subscribe("b").await.unwrap();
            let waiting = tokio::spawn(async move {
                let mut payloads = Vec::new();
                loop {
                    match both.recv().await {
                        Ok(received) => payloads.push(received.payload().clone()),
                        Err(ended) => return (payloads, ended.to_string(), both),
                    }
                }
            });
            client.unsubscribe(["a"]).await.unwrap();
            client.publish(Message::new("a", "nobody").qos(QoS::AtLeastOnce)).await.unwrap();
            client.publish(Message::new("b", "1").qos(QoS::AtLeastOnce)).await.unwrap();
            client.unsubscribe(["b", "c"]).await.unwrap();
            let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it ends").unwrap();
            assert_eq!((&ended.0[..], ended.1.as_str()), (&["1"].map(Into::into)[..], "its filters were unsubscribed"));
            assert_eq!(other.recv().await.unwrap().payload(), "1");
            assert_eq!(other.recv().await.unwrap_err().to_string(), "its filters were unsubscribed");
            // They can be had again, by streams of their own.
            let mut again = client.subscribe(("b", QoS::AtLeastOnce)).await.unwrap();
            drop((ended.2, other));
            client.publish(Message::new("b", "2").qos(QoS::AtLeastOnce)).await.unwrap();
            assert_eq!(again.recv().await.unwrap().payload(), "2");
            client.disconnect().await;
            broker.assert_no_violations();
        }
    });
}

/// An UNSUBSCRIBE that is not answered yet says nothing of a stream that subscribes after it.
#[test]
fn a_stream_outlives_an_earlier_unsubscribe_of_its_filter() {
    bounded(async || {
        let (_broker, client, mut peer) = scripted(|options| options).await;
        let (first, mut ended) = (client.clone(), subscribed(&client, &mut peer, "a").await.0);
        let unsubscribing = tokio::spawn(async move { first.unsubscribe(["a"]).await });
        let packet_id = peer.expect_unsubscribe().await.unsubscribe().packet_id;
        let (mut stream, identifier) = subscribed(&client, &mut peer, "a").await;
        peer.unsub_ack(packet_id, &[ReasonCode::Success]).await;
        unsubscribing.await.unwrap().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), ended.recv()).await.expect("it ends");
        assert_eq!(ended.unwrap_err().to_string(), "its filters were unsubscribed");
        peer.send_bytes(&publish_for(0x30, "a", 0, &[identifier])).await;
        assert_eq!(stream.recv().await.unwrap().topic_name(), "a");
        // One that was refused changes nothing.
        let (refused, ()) = tokio::join!(client.unsubscribe(["a"]), async {
            let packet_id = peer.expect_unsubscribe().await.unsubscribe().packet_id;
            peer.unsub_ack(packet_id, &[ReasonCode::NotAuthorized]).await;
        });
        assert!(matches!(refused, Err(SubscribeError::Refused(_))));
        peer.send_bytes(&publish_for(0x30, "a", 0, &[identifier])).await;
        assert_eq!(stream.recv().await.unwrap().topic_name(), "a");
    });
}

/// A broker that knows no wildcards any more was not asked again, and the stream stayed silent.
#[test]
fn a_subscription_that_cannot_be_made_again_ends_its_stream() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.welcome(false).await;
        let mut streams = Vec::new();
        for filter in ["a/#", "a/b"] {
            let (stream, ()) = tokio::join!(client.subscribe(filter), async {
                let packet = end.skip_to(0x82).await;
                end.send(&sub_ack(&packet, true)).await;
            });
            streams.push(stream.unwrap());
        }
        drop(end);
        let mut end = listener.accept().await;
        end.packet().await;
        // Wildcard Subscription Available is 0.
        end.send(&[0x20, 5, 0, 0, 2, 0x28, 0]).await;
        let waiting = tokio::time::timeout(Duration::from_secs(60), streams[0].recv());
        let ended = waiting.await.expect("it ends").unwrap_err();
        assert!(ended.to_string().contains("wildcard subscriptions not supported"), "{ended}");
        let packet = end.skip_to(0x82).await;
        end.send(&sub_ack(&packet, true)).await;
        end.send(&publish(0x30, "a/b", 0, "x")).await;
        assert_eq!(streams[1].recv().await.unwrap().topic_name(), "a/b");
    });
}
