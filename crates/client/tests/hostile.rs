//! The client against a hostile broker: whatever it does, the program hears of an error, nothing panics, memory stays bounded,
//! and nobody is called again and again without a pause.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/bounded.rs"]
mod bounded;
#[path = "support/wire.rs"]
mod wire;

use std::num::NonZeroU32;
use std::task::Poll;
use std::time::Duration;

use bounded::{bounded, bounded_paused};
use pantala_client::error::{ConnectionError, PublishError, Violation};
use pantala_client::mock::{Behaviour, Limits, MockBroker, Peer};
use pantala_client::{
    Client, Message, Options, ProtocolVersion, QoS, ReasonCode, Reconnect, Status, Subscribe, UnknownSession,
};
use pantala_proto::{
    AcknowledgementKind, ConnAck, Connect, ConnectProperties, Packet, PacketId, Subscribe as SubscribePacket,
    SubscriptionOptions, Unsubscribe, UserProperties,
};
use tokio::time::Instant;
use wire::{acknowledgement, publish, wire};

/// How the client ends, which must not be because it was asked to.
async fn end_of(client: &Client) -> ConnectionError {
    let mut changes = client.changes();
    while let Some(status) = changes.next().await {
        if let Status::Ended(error) = status {
            return (*error.expect("nobody asked it to end")).clone();
        }
    }
    panic!("it has not ended");
}

/// A client that does not come back, and its connection.
async fn pair(options: impl FnOnce(Options) -> Options) -> (MockBroker, Client, Peer) {
    let broker = MockBroker::listen().await;
    let options = options(Options::new(broker.url()).unwrap().client_id("c").reconnect(Reconnect::NEVER));
    let client = Client::start(options);
    let mut peer = broker.accept().await;
    peer.expect_connect().await;
    peer.conn_ack(false, ReasonCode::Success).await;
    client.connected().await.unwrap();
    (broker, client, peer)
}

/// What the client says and how it ends when these bytes come.
async fn answer_to(bytes: &[u8]) -> (ReasonCode, ConnectionError) {
    let (_broker, client, mut peer) = pair(|options| options).await;
    peer.send_bytes(bytes).await;
    let reason_code = peer.expect_disconnect().await.disconnect().reason_code;
    peer.expect_end().await;
    (reason_code, end_of(&client).await)
}

#[test]
fn o1_a_malformed_conn_ack_is_an_error_to_the_user() {
    bounded(async || {
        for conn_ack in [
            &[0x20, 0][..],
            &[0x20, 1, 0],
            // Reserved flags, in the packet and in the fixed header.
            &[0x20, 3, 2, 0, 0],
            &[0x21, 3, 0, 0, 0],
            // A Reason Code that is none.
            &[0x20, 3, 0, 5, 0],
            // Properties beyond the packet, unknown, not of CONNACK, and zero where that is forbidden.
            &[0x20, 4, 0, 0, 9, 0x21],
            &[0x20, 5, 0, 0, 2, 0x7f, 0],
            &[0x20, 6, 0, 0, 3, 0x23, 0, 1],
            &[0x20, 6, 0, 0, 3, 0x21, 0, 0],
            // Receive Maximum twice.
            &[0x20, 9, 0, 0, 6, 0x21, 0, 5, 0x21, 0, 6],
            // A Remaining Length of five bytes.
            &[0x20, 0xff, 0xff, 0xff, 0xff, 0x7f],
            // Not UTF-8 in a Reason String.
            &[0x20, 7, 0, 0, 4, 0x1f, 0, 1, 0xff],
        ] {
            let broker = MockBroker::listen().await;
            let client = Client::start(Options::new(broker.url()).unwrap());
            let mut peer = broker.accept().await;
            peer.expect_connect().await;
            peer.send_bytes(conn_ack).await;
            let error = client.connected().await.unwrap_err();
            assert!(matches!(error, ConnectionError::Malformed(_)), "{conn_ack:02x?}: {error:?}");
            peer.expect_end().await;
        }
    });
}

#[test]
fn o1_session_present_after_clean_start_is_an_error_to_the_user() {
    bounded(async || {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            let broker = MockBroker::listen().await;
            let client = Client::start(Options::new(broker.url()).unwrap().version(version));
            let mut peer = broker.accept().await;
            peer.expect_connect().await;
            peer.conn_ack(true, ReasonCode::Success).await;
            let error = client.connected().await.unwrap_err();
            assert_eq!(error, ConnectionError::Protocol(Violation::SessionPresent));
            peer.expect_end().await;
        }
    });
}

#[test]
fn o1_a_session_that_nobody_here_knows_is_closed_if_so_told() {
    bounded(async || {
        for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
            for unknown_session in [UnknownSession::Accept, UnknownSession::Close] {
                let broker = MockBroker::listen().await;
                let options = Options::new(broker.url()).unwrap().client_id("c").keep_session(Duration::from_secs(60));
                let quick = Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() };
                let options = options.version(version).unknown_session(unknown_session).reconnect(quick);
                // It is no reason to try again.
                let client = Client::start(options.reconnect(Reconnect { retry_first: true, ..quick }));
                let mut peer = broker.accept().await;
                assert!(!peer.expect_connect().await.connect().clean_start);
                peer.conn_ack(true, ReasonCode::Success).await;
                if unknown_session == UnknownSession::Close {
                    peer.expect_end().await;
                    assert_eq!(end_of(&client).await, ConnectionError::Protocol(Violation::UnknownSession));
                    continue;
                }
                assert!(client.connected().await.unwrap().session_present);
            }
        }
    });
}

#[test]
fn o1_a_session_of_an_earlier_connection_is_known() {
    bounded(async || {
        let broker = MockBroker::listen().await;
        let options = Options::new(broker.url()).unwrap().client_id("c").keep_session(Duration::from_secs(60));
        let quick = Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() };
        let client = Client::start(options.unknown_session(UnknownSession::Close).reconnect(quick));
        for session_present in [false, true, true] {
            let mut peer = broker.accept().await;
            peer.expect_connect().await;
            peer.conn_ack(session_present, ReasonCode::Success).await;
            assert_eq!(client.connected().await.unwrap().session_present, session_present);
            peer.close().await;
            let mut changes = client.changes();
            while matches!(changes.next().await, Some(Status::Connected(_))) {}
        }
    });
}

#[test]
fn o1_an_assigned_identifier_of_64_kib_is_taken() {
    bounded(async || {
        let broker = MockBroker::listen().await;
        let options = Options::new(broker.url())
            .unwrap()
            .reconnect(Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() });
        let client = Client::start(options);
        let mut peer = broker.accept().await;
        peer.expect_connect().await;
        let long = "x".repeat(65_535);
        let conn_ack = ConnAck { assigned_client_identifier: Some(&long), ..ConnAck::new(false, ReasonCode::Success) };
        peer.send(&Packet::ConnAck(conn_ack)).await;
        assert_eq!(client.connected().await.unwrap().client_id, long);
        peer.close().await;
        let mut peer = broker.accept().await;
        assert_eq!(peer.expect_connect().await.connect().client_id, long);
    });
}

/// A broker that gave another name to who had one took over what the client called itself on every later connection.
#[test]
fn o1_an_identifier_of_our_own_is_kept() {
    bounded(async || {
        let broker = MockBroker::listen().await;
        let client = Client::start(Options::new(broker.url()).unwrap().client_id("mine"));
        let mut peer = broker.accept().await;
        peer.expect_connect().await;
        let conn_ack = ConnAck { assigned_client_identifier: Some("its"), ..ConnAck::new(false, ReasonCode::Success) };
        peer.send(&Packet::ConnAck(conn_ack)).await;
        assert_eq!(client.connected().await.unwrap().client_id, "mine");
    });
}

#[test]
fn o2_packets_that_only_a_client_may_send_end_the_connection() {
    bounded(async || {
        let packet_id = PacketId::FIRST;
        let connect = Connect {
            version: ProtocolVersion::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 0,
            properties: ConnectProperties::default(),
            client_id: "c",
            will: None,
            user_name: None,
            password: None,
        };
        let subscribe = SubscribePacket {
            packet_id,
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: [("a", SubscriptionOptions::default())].into_iter().collect(),
        };
        let unsubscribe =
            Unsubscribe { packet_id, user_properties: UserProperties::none(), filters: ["a"].into_iter().collect() };
        for packet in
            [Packet::Connect(connect), Packet::Subscribe(subscribe), Packet::Unsubscribe(unsubscribe), Packet::PingReq]
        {
            let mut bytes = Vec::new();
            packet.encode(ProtocolVersion::V5, &mut bytes);
            let (reason_code, error) = answer_to(&bytes).await;
            assert_eq!(reason_code, ReasonCode::ProtocolError, "{packet:?}");
            assert_eq!(error, ConnectionError::Protocol(Violation::ClientPacket), "{packet:?}");
        }
        let (reason_code, error) = answer_to(&[0x20, 3, 0, 0, 0]).await;
        assert_eq!(reason_code, ReasonCode::ProtocolError);
        assert_eq!(error, ConnectionError::Protocol(Violation::SecondConnAck));
    });
}

#[test]
fn o2_nothing_comes_before_conn_ack() {
    bounded(async || {
        let broker = MockBroker::listen().await;
        let client = Client::start(Options::new(broker.url()).unwrap());
        let mut peer = broker.accept().await;
        peer.expect_connect().await;
        peer.send_bytes(&publish(0x30, "t", 0, "x")).await;
        assert_eq!(client.connected().await.unwrap_err(), ConnectionError::Protocol(Violation::NotConnAck));
        peer.expect_end().await;
    });
}

#[test]
fn o3_a_publish_that_is_wrong_ends_the_connection() {
    bounded(async || {
        for (bytes, wanted) in [
            // The Topic Name goes beyond the packet; is none; holds a wildcard; is not UTF-8; holds U+0000.
            (&[0x30, 4, 0, 9, b't', 0][..], ReasonCode::MalformedPacket),
            (&[0x30, 3, 0, 0, 0], ReasonCode::ProtocolError),
            (&[0x30, 4, 0, 1, b'#', 0], ReasonCode::MalformedPacket),
            (&[0x30, 4, 0, 1, 0xff, 0], ReasonCode::MalformedPacket),
            (&[0x30, 4, 0, 1, 0, 0], ReasonCode::MalformedPacket),
            // QoS 3; DUP at QoS 0; Packet Identifier 0.
            (&[0x36, 6, 0, 1, b't', 0, 1, 0], ReasonCode::MalformedPacket),
            (&[0x38, 4, 0, 1, b't', 0], ReasonCode::MalformedPacket),
            (&[0x32, 6, 0, 1, b't', 0, 0, 0], ReasonCode::ProtocolError),
            // Topic Alias unknown, 0, above our maximum of 16.
            (&[0x30, 6, 0, 0, 3, 0x23, 0, 5], ReasonCode::TopicAliasInvalid),
            (&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0], ReasonCode::TopicAliasInvalid),
            (&[0x30, 7, 0, 1, b't', 3, 0x23, 0, 17], ReasonCode::TopicAliasInvalid),
        ] {
            let (reason_code, error) = answer_to(bytes).await;
            assert_eq!(reason_code, wanted, "{bytes:02x?}: {error:?}");
        }
    });
}

#[test]
fn o4_a_message_that_comes_again_and_again_comes_once() {
    bounded(async || {
        let (_broker, client, mut peer) = pair(|options| options).await;
        let mut unclaimed = client.unclaimed();
        let again = publish(0x3c, "t", 7, "x").repeat(1_000);
        for _ in 0..100 {
            peer.send_bytes(&again).await;
        }
        peer.send_bytes(&publish(0x30, "end", 0, "x")).await;
        assert_eq!(unclaimed.recv().await.unwrap().topic_name(), "t");
        assert_eq!(unclaimed.recv().await.unwrap().topic_name(), "end");
        // It had been acknowledged when the next was asked for.
        peer.expect_acknowledgement(AcknowledgementKind::PubRec, PacketId::new(7).unwrap()).await;
    });
}

/// As long as the broker does not read the answers, the client does not read what has to be answered.
#[test]
fn o4_answers_that_nobody_reads_are_bounded() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c").keep_alive(Duration::ZERO));
        let mut end = listener.welcome(false).await;
        client.connected().await.unwrap();
        let again = publish(0x3c, "t", 7, "").repeat(5_000);
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_secs(1), end.send(&again)).await.is_ok() {
            sent += again.len();
            assert!(sent < 16 << 20, "it takes everything");
        }
        // It ends nevertheless.
        client.disconnect().await;
    });
}

#[test]
fn o5_answers_that_do_not_go_with_a_request_end_the_connection() {
    bounded(async || {
        for (bytes, wanted) in [
            // For nothing.
            (&[0x90, 4, 0, 9, 0, 0][..], Some(Violation::RequestAnswer)),
            (&[0xb0, 4, 0, 9, 0, 0], Some(Violation::RequestAnswer)),
            // Without any Reason Code.
            (&[0x90, 3, 0, 1, 0], None),
            (&[0xb0, 3, 0, 1, 0], None),
        ] {
            let (reason_code, error) = answer_to(bytes).await;
            assert!(matches!(reason_code, ReasonCode::ProtocolError | ReasonCode::MalformedPacket), "{bytes:02x?}");
            match wanted {
                Some(violation) => assert_eq!(error, ConnectionError::Protocol(violation)),
                None => assert!(matches!(error, ConnectionError::Malformed(_)), "{error:?}"),
            }
        }
    });
}

/// An answer with another number of Reason Codes took the request away, and who had asked waited for ever.
#[test]
fn o5_a_request_with_a_wrong_answer_goes_out_again() {
    bounded(async || {
        let broker = MockBroker::listen().await;
        let options = Options::new(broker.url())
            .unwrap()
            .client_id("c")
            .reconnect(Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() });
        let client = Client::start(options);
        let asking = tokio::spawn({
            let client = client.clone();
            async move {
                let stream = client.subscribe("a").await.unwrap();
                (stream.granted().to_vec(), client.unsubscribe(["b"]).await.unwrap().reason_codes)
            }
        });
        let granted = [ReasonCode::Success; 2];
        for wrong in 0..4 {
            let mut peer = broker.accept().await;
            peer.expect_connect().await;
            peer.conn_ack(false, ReasonCode::Success).await;
            let mut packet_id = peer.expect_subscribe().await.subscribe().packet_id;
            if wrong == 3 {
                // We are subscribed again before anything else.
                peer.sub_ack(packet_id, &granted[..1]).await;
                packet_id = peer.expect_unsubscribe().await.unsubscribe().packet_id;
            }
            match wrong {
                0 => peer.sub_ack(packet_id, &granted).await,
                // Of the other kind.
                1 => peer.unsub_ack(packet_id, &granted[..1]).await,
                2 => {
                    peer.sub_ack(packet_id, &granted[..1]).await;
                    let packet_id = peer.expect_unsubscribe().await.unsubscribe().packet_id;
                    peer.unsub_ack(packet_id, &granted).await;
                }
                _ => {
                    peer.unsub_ack(packet_id, &granted[..1]).await;
                    break;
                }
            }
            assert_eq!(peer.expect_disconnect().await.disconnect().reason_code, ReasonCode::ProtocolError);
        }
        assert_eq!(asking.await.unwrap(), (granted[..1].to_vec(), granted[..1].to_vec()));
    });
}

#[test]
fn o6_acknowledgements_of_nothing_are_ignored_and_wrong_ones_end_the_connection() {
    bounded(async || {
        let (_broker, client, mut peer) = pair(|options| options).await;
        let nine = PacketId::new(9).unwrap();
        peer.acknowledge(AcknowledgementKind::PubAck, nine, ReasonCode::Success).await;
        peer.acknowledge(AcknowledgementKind::PubComp, nine, ReasonCode::Success).await;
        peer.acknowledge(AcknowledgementKind::PubRec, nine, ReasonCode::Success).await;
        let pub_rel = peer.expect_acknowledgement(AcknowledgementKind::PubRel, nine).await;
        assert_eq!(pub_rel.acknowledgement().reason_code, ReasonCode::PacketIdentifierNotFound);
        peer.acknowledge(AcknowledgementKind::PubRel, nine, ReasonCode::Success).await;
        let pub_comp = peer.expect_acknowledgement(AcknowledgementKind::PubComp, nine).await;
        assert_eq!(pub_comp.acknowledgement().reason_code, ReasonCode::PacketIdentifierNotFound);
        drop(client);
        peer.expect_disconnect().await;

        for (qos, wrong) in [
            (QoS::AtLeastOnce, AcknowledgementKind::PubRec),
            (QoS::AtLeastOnce, AcknowledgementKind::PubComp),
            (QoS::ExactlyOnce, AcknowledgementKind::PubAck),
            (QoS::ExactlyOnce, AcknowledgementKind::PubComp),
        ] {
            let (_broker, client, mut peer) = pair(|options| options).await;
            client.try_publish(&Message::new("t", "x").qos(qos)).unwrap();
            let packet_id = peer.expect_publish().await.publish().delivery.packet_id().unwrap();
            peer.acknowledge(wrong, packet_id, ReasonCode::Success).await;
            assert_eq!(peer.expect_disconnect().await.disconnect().reason_code, ReasonCode::ProtocolError);
            assert_eq!(end_of(&client).await, ConnectionError::Protocol(Violation::Acknowledgement), "{wrong:?}");
        }
    });
}

#[test]
fn o7_more_than_our_receive_maximum_ends_the_connection() {
    bounded(async || {
        for first_byte in [0x32, 0x34] {
            let (_broker, client, mut peer) = pair(|mut options| {
                options.session.receive_maximum = 3.try_into().unwrap();
                options
            })
            .await;
            let _unread = client.unclaimed();
            for packet_id in 1..=4 {
                peer.send_bytes(&publish(first_byte, "t", packet_id, "x")).await;
            }
            assert_eq!(peer.expect_disconnect().await.disconnect().reason_code, ReasonCode::ReceiveMaximumExceeded);
            assert_eq!(end_of(&client).await, ConnectionError::Protocol(Violation::ReceiveMaximum));
        }
    });
}

/// Before MQTT 5 there is no Receive Maximum: a broker could have the client keep any number of messages with one identifier.
#[test]
fn o7_before_mqtt_5_no_more_than_there_are_identifiers() {
    bounded(async || {
        let (_broker, client, mut peer) =
            pair(|options| options.version(ProtocolVersion::V311).keep_session(Duration::MAX)).await;
        let same = [0x32, 5, 0, 1, b't', 0, 1].repeat(10_000);
        for _ in 0..7 {
            peer.send_bytes(&same).await;
        }
        assert_eq!(end_of(&client).await, ConnectionError::Protocol(Violation::ReceiveMaximum));
    });
}

#[test]
fn o7_a_packet_larger_than_our_maximum_ends_the_connection() {
    bounded(async || {
        let (_broker, client, mut peer) = pair(|mut options| {
            options.session.maximum_packet_size = NonZeroU32::new(1_000);
            options
        })
        .await;
        // Its header says so; the rest is not waited for.
        peer.send_bytes(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
        assert_eq!(peer.expect_disconnect().await.disconnect().reason_code, ReasonCode::PacketTooLarge);
        assert!(matches!(end_of(&client).await, ConnectionError::Malformed(_)));
    });
}

#[test]
fn o8_a_broker_that_does_not_read_makes_publish_wait() {
    bounded_paused(async || {
        let (mut options, mut listener) = wire();
        options.session.queue_messages_max = 50;
        options.session.output_bytes_max = 10_000;
        let client = Client::start(options.client_id("c").keep_alive(Duration::ZERO));
        let mut end = listener.welcome(false).await;
        client.connected().await.unwrap();
        let mut taken = 0;
        loop {
            let message = Message::new("t", vec![b'x'; 1_000]);
            // In time or not: then it was taken and is only not sent yet, or there was no room.
            if let Ok(outcome) = tokio::time::timeout(Duration::from_secs(5), client.publish(message)).await {
                outcome.unwrap();
            }
            taken += 1;
            if client.try_publish(&Message::new("t", "")) == Err(PublishError::QueueFull) {
                break;
            }
            assert!(taken < 1_000, "it takes everything");
        }
        // Some of them are dropped while they wait for room: these are not published.
        for _ in 0..1_000 {
            let mut waiting = Box::pin(client.publish(Message::new("never", "")));
            assert!(std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
        }
        // And one that stays is published when there is room.
        let last = tokio::spawn({
            let client = client.clone();
            async move { client.publish(Message::new("last", "")).await }
        });
        loop {
            let packet = end.packet().await.unwrap();
            assert_ne!(packet[4..].first_chunk(), Some(b"never"));
            if packet[4..].first_chunk() == Some(b"last") {
                break;
            }
        }
        assert!(last.await.unwrap().is_ok());
    });
}

/// The last packet waited for room in the connection for as long as the broker liked, and so did whoever wanted to end.
#[test]
fn o8_a_broker_that_does_not_read_cannot_keep_the_client() {
    bounded_paused(async || {
        for ending_by_itself in [false, true] {
            let (options, mut listener) = wire();
            let client = Client::start(options.client_id("c").reconnect(Reconnect::NEVER));
            let _end = listener.welcome(false).await;
            client.connected().await.unwrap();
            let began = Instant::now();
            for _ in 0..20 {
                client.try_publish(&Message::new("t", vec![b'x'; 10_000])).unwrap();
            }
            if ending_by_itself {
                assert_eq!(end_of(&client).await, ConnectionError::TimedOut);
                assert!(began.elapsed() < Duration::from_secs(60 + 30 + 10), "{:?}", began.elapsed());
            } else {
                client.disconnect().await;
                assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
                assert_eq!(client.status(), Status::Ended(None));
            }
        }
    });
}

#[test]
fn o10_no_redirect_is_followed() {
    bounded(async || {
        let elsewhere = MockBroker::listen().await;
        let other = elsewhere.address().to_string();
        for code in [ReasonCode::UseAnotherServer, ReasonCode::ServerMoved] {
            let broker = MockBroker::listen().await;
            let options = Options::new(broker.url()).unwrap().credentials("me", "secret").reconnect(Reconnect {
                first_wait_max: Duration::from_millis(1),
                wait_max: Duration::from_millis(1),
                attempts_max: None,
                retry_first: true,
                only_passing: false,
            });
            let client = Client::start(options);
            for _ in 0..5 {
                let mut peer = broker.accept().await;
                peer.expect_connect().await;
                let conn_ack = ConnAck { server_reference: Some(&other), ..ConnAck::new(false, code) };
                peer.send(&Packet::ConnAck(conn_ack)).await;
                peer.expect_end().await;
            }
            let mut peer = broker.accept().await;
            peer.expect_connect().await;
            peer.conn_ack(false, ReasonCode::Success).await;
            client.connected().await.unwrap();
            let disconnect =
                pantala_proto::Disconnect { server_reference: Some(&other), ..pantala_proto::Disconnect::new(code) };
            peer.send(&Packet::Disconnect(disconnect)).await;
            peer.expect_end().await;
            broker.accept().await.expect_connect().await;
            let mut elsewhere = Box::pin(elsewhere.accept());
            assert!(std::future::poll_fn(|context| Poll::Ready(elsewhere.as_mut().poll(context).is_pending())).await);
        }
    });
}

/// How many connections come within an hour from a client whose connections the broker ends so.
async fn attempts_in_an_hour(conn_ack: Option<&[u8]>) -> usize {
    let (options, mut listener) = wire();
    let client =
        Client::start(options.client_id("c").reconnect(Reconnect { retry_first: true, ..Reconnect::default() }));
    let mut attempts = 0;
    let hour = async {
        loop {
            let mut end = listener.accept().await;
            end.packet().await;
            attempts += 1;
            if let Some(conn_ack) = conn_ack {
                end.send(conn_ack).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), hour).await.unwrap_err();
    client.disconnect().await;
    attempts
}

#[test]
fn o11_a_broker_that_refuses_or_closes_is_called_at_growing_intervals() {
    bounded_paused(async || {
        for conn_ack in
            [None, Some(&[0x20, 3, 0, 0x87, 0][..]), Some(&[0x20, 3, 0, 0, 0]), Some(&[0x20, 3, 0, 0x97, 0])]
        {
            let attempts = attempts_in_an_hour(conn_ack).await;
            // Thirty seconds apart on average, and some quick ones at first.
            assert!((60..250).contains(&attempts), "{conn_ack:02x?}: {attempts}");
        }
    });
}

/// A connection that came about and was lost soon counted as an attempt in vain.
#[test]
fn o11_only_attempts_in_vain_are_counted() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let reconnect = Reconnect { attempts_max: Some(2), ..Reconnect::default() };
        let client = Client::start(options.client_id("c").reconnect(reconnect));
        for _ in 0..10 {
            drop(listener.welcome(false).await);
        }
        for _ in 0..2 {
            drop(listener.accept().await);
        }
        assert_eq!(end_of(&client).await, ConnectionError::Closed);
    });
}

fn is_taken_over(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::Disconnected { refusal, .. } if refusal.reason_code == ReasonCode::SessionTakenOver)
}

#[test]
fn o11_a_client_whose_session_was_taken_over_ends() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.welcome(false).await;
        client.connected().await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        end.send(&[0xe0, 1, 0x8e]).await;
        let error = end_of(&client).await;
        assert!(is_taken_over(&error), "{error:?}");
        assert_eq!(client.publish(Message::new("t", "")).await, Err(PublishError::Ended));
    });
}

/// A program that had been killed just after its CONNECT, and was started again, ended: the broker read the two CONNECT in the
/// other order, and had the connection that was dead take over the one that lived.
#[test]
fn o11_a_client_taken_over_right_at_the_beginning_comes_back_once() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        for _ in 0..2 {
            let mut end = listener.welcome(false).await;
            client.connected().await.unwrap();
            end.send(&[0xe0, 1, 0x8e]).await;
        }
        let error = end_of(&client).await;
        assert!(is_taken_over(&error), "{error:?}");
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c").reconnect(Reconnect::NEVER));
        listener.welcome(false).await.send(&[0xe0, 1, 0x8e]).await;
        assert!(is_taken_over(&end_of(&client).await));
    });
}

#[test]
fn o11_a_broker_that_never_answers_connect_is_given_up() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.reconnect(Reconnect::NEVER));
        let began = Instant::now();
        let _end = listener.accept().await;
        assert_eq!(client.connected().await.unwrap_err(), ConnectionError::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
    });
}

#[test]
fn o11_a_broker_that_never_answers_pings_is_given_up() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c").reconnect(Reconnect::NEVER));
        let mut end = listener.welcome(false).await;
        client.connected().await.unwrap();
        let began = Instant::now();
        end.expect(&[0xc0, 0]).await;
        assert_eq!(began.elapsed().as_secs(), 55);
        assert_eq!(end.packet().await.unwrap()[0], 0xe0);
        assert_eq!(began.elapsed().as_secs(), 55 + 30);
        assert_eq!(end_of(&client).await, ConnectionError::TimedOut);
    });
}

#[test]
fn o14_the_brokers_keep_alive_holds() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.accept().await;
        end.packet().await;
        end.send(&[0x20, 6, 0, 0, 3, 0x13, 0, 1]).await;
        assert_eq!(client.connected().await.unwrap().keep_alive, 1);
        let mut last = Instant::now();
        for _ in 0..10 {
            end.expect(&[0xc0, 0]).await;
            assert!(last.elapsed() <= Duration::from_secs(1), "{:?}", last.elapsed());
            last = Instant::now();
            end.send(&[0xd0, 0]).await;
        }
        // Slow answers are no reason to be silent.
        for _ in 0..4 {
            end.expect(&[0xc0, 0]).await;
            assert!(last.elapsed() <= Duration::from_secs(1), "{:?}", last.elapsed());
            last = Instant::now();
        }

        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.accept().await;
        end.packet().await;
        end.send(&[0x20, 6, 0, 0, 3, 0x13, 0, 0]).await;
        assert_eq!(client.connected().await.unwrap().keep_alive, 0);
        tokio::time::timeout(Duration::from_secs(1_000_000), end.packet()).await.unwrap_err();
    });
}

/// A program that does not take its messages, and has asked that none be dropped, was silent until the broker gave it up.
#[test]
fn o14_the_keep_alive_holds_while_nothing_is_read() {
    bounded_paused(async || {
        let (options, mut listener) = wire();
        let client = Client::start(options.client_id("c"));
        let mut end = listener.welcome(false).await;
        let subscribe = Subscribe::new("t", QoS::AtMostOnce).buffer(1).overflow(pantala_client::Overflow::Wait);
        let subscribing = client.subscribe(subscribe);
        let answering = async {
            let packet_id = end.skip_to(0x82).await[3];
            end.send(&[0x90, 4, 0, packet_id, 0, 0]).await;
            for _ in 0..5 {
                end.send(&publish(0x30, "t", 0, "x")).await;
            }
        };
        let (mut stream, ()) = tokio::join!(async { subscribing.await.unwrap() }, answering);
        for _ in 0..10 {
            let last = Instant::now();
            end.expect(&[0xc0, 0]).await;
            assert!(last.elapsed() <= Duration::from_secs(60), "{:?}", last.elapsed());
            end.send(&[0xd0, 0]).await;
        }
        for _ in 0..5 {
            stream.recv().await.unwrap();
        }
        assert!(matches!(client.status(), Status::Connected(_)));
    });
}

#[test]
fn o14_the_brokers_limits_are_obeyed() {
    bounded(async || {
        let limits = Limits {
            maximum_qos: QoS::AtMostOnce,
            retain_available: false,
            maximum_packet_size: NonZeroU32::new(100),
            wildcard_subscription_available: false,
            shared_subscription_available: false,
            subscription_identifier_available: false,
            topic_alias_maximum: Some(1),
            ..Limits::default()
        };
        let broker = MockBroker::serve_with(Behaviour { limits, ..Behaviour::default() }).await;
        let client = Client::start(Options::new(broker.url()).unwrap().client_id("c"));
        // Before CONNACK nobody knows; then the outcome says so.
        let early = client.publish(Message::new("t", "x").qos(QoS::AtLeastOnce)).await;
        assert_eq!(early, Err(PublishError::QosUnsupported { maximum: QoS::AtMostOnce }));
        let exactly_once = Message::new("t", "x").qos(QoS::ExactlyOnce);
        assert!(matches!(client.try_publish(&exactly_once), Err(PublishError::QosUnsupported { .. })));
        assert_eq!(client.try_publish(&Message::new("t", "x").retain()), Err(PublishError::RetainUnsupported));
        let large = Message::new("t", vec![0; 100]);
        assert!(matches!(client.try_publish(&large), Err(PublishError::PacketTooLarge { maximum: 100, .. })));
        assert!(client.subscribe("a/#").await.is_err());
        assert!(client.subscribe("$share/g/a").await.is_err());
        client.subscribe("a".repeat(200).as_str()).await.unwrap_err();
        let mut stream = client.subscribe("a/long/topic").await.unwrap();
        for _ in 0..3 {
            client.publish(Message::new("a/long/topic", "x")).await.unwrap();
            client.publish(Message::new("another/topic", "x")).await.unwrap();
            stream.recv().await.unwrap();
        }
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

/// The Session ends with the connection if the broker says so, whatever we asked for: a stream that is dropped unsubscribes.
#[test]
fn o14_the_brokers_session_expiry_is_obeyed() {
    bounded(async || {
        let limits = Limits { session_expiry_interval: Some(0), ..Limits::default() };
        let broker = MockBroker::serve_with(Behaviour { limits, ..Behaviour::default() }).await;
        let options = Options::new(broker.url()).unwrap().client_id("c").keep_session(Duration::from_secs(100));
        let client = Client::connect(options).await.unwrap();
        assert_eq!(client.connected().await.unwrap().session_expiry_interval, 0);
        drop(client.subscribe("a").await.unwrap());
        broker.wait_until(|broker| broker.subscriptions_of("c").is_empty()).await;
        client.disconnect().await;
        broker.assert_no_violations();
    });
}

#[test]
fn what_connect_cannot_say_is_an_error_to_the_user() {
    bounded(async || {
        let long = "x".repeat(65_536);
        let tweaks: [fn(&mut Options, &str); 7] = [
            |options, long| options.session.client_id = long.to_owned(),
            |options, _| options.session.client_id = "\0".to_owned(),
            |options, long| options.session.user_name = Some(long.to_owned()),
            |options, long| options.session.password = Some(long.as_bytes().to_vec()),
            |options, long| options.session.will = Some(Message::new("t", long.to_owned()).into()),
            |options, _| options.session.will = Some(Message::new("t/#", "").into()),
            |options, long| options.session.user_properties = vec![("k".to_owned(), long.to_owned())],
        ];
        for tweak in tweaks {
            let broker = MockBroker::listen().await;
            let mut options = Options::new(broker.url()).unwrap();
            tweak(&mut options, &long);
            let error = Client::connect(options).await.unwrap_err();
            assert!(matches!(error, ConnectionError::Settings(_)), "{error:?}");
            broker.accept().await.expect_end().await;
        }
        // Before MQTT 5: no Password without a User Name, no Session without a name.
        for tweak in [
            |options: &mut Options| options.session.password = Some(b"p".to_vec()),
            |options: &mut Options| options.session.clean_start = false,
        ] {
            let broker = MockBroker::listen().await;
            let mut options = Options::new(broker.url()).unwrap().version(ProtocolVersion::V311);
            tweak(&mut options);
            assert!(matches!(Client::connect(options).await.unwrap_err(), ConnectionError::Settings(_)));
        }
    });
}

#[test]
fn acknowledgement_bytes_are_what_they_are_named() {
    bounded(async || {
        // The bytes of the tests themselves.
        assert_eq!(acknowledgement(0x62, 258), [0x62, 2, 1, 2]);
        assert_eq!(publish(0x32, "t", 1, "x"), [0x32, 7, 0, 1, b't', 0, 1, 0, b'x']);
    });
}
