//! The client against the mock broker working by itself.

use std::time::Duration;

use pantala_client::mock::MockBroker;
use pantala_client::{Client, Message, Options, ProtocolVersion, QoS, ReasonCode, Subscribe};
use pantala_proto::{Delivery, Packet, Property, Publish, PublishProperties};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];

#[tokio::test]
async fn what_is_published_comes_to_who_subscribed() {
    for version in VERSIONS {
        let broker = MockBroker::serve().await;
        let options = Options::new(broker.url()).unwrap().version(version).client_id("one");
        let client = Client::connect(options).await.unwrap();
        let mut stream = client.subscribe(("a/#", QoS::ExactlyOnce)).await.unwrap();
        for qos in QOS {
            client.publish(Message::new("a/b", format!("{qos:?}")).qos(qos)).await.unwrap();
        }
        for qos in QOS {
            let message = stream.recv().await.unwrap();
            assert_eq!((message.qos(), message.topic_name()), (qos, "a/b"));
            assert_eq!(message.payload(), &format!("{qos:?}"));
        }
        stream.acknowledge();
        client.disconnect().await;
        broker.assert_no_violations();
    }
}

#[tokio::test]
async fn many_messages_in_flight_keep_their_order() {
    let broker = MockBroker::serve().await;
    let client = Client::connect(Options::new(broker.url()).unwrap().client_id("one")).await.unwrap();
    let mut stream = client.subscribe(Subscribe::new("n", QoS::ExactlyOnce).buffer(10_000)).await.unwrap();
    for number in 0..3_000_u32 {
        let qos = QOS[number as usize % 3];
        client.try_publish(&Message::new("n", number.to_string()).qos(qos)).unwrap();
    }
    let mut last = [None; 3];
    for _ in 0..3_000 {
        let message = stream.recv().await.unwrap();
        let number: u32 = std::str::from_utf8(message.payload()).unwrap().parse().unwrap();
        let last = &mut last[number as usize % 3];
        assert!(*last < Some(number), "{number} after {last:?}");
        *last = Some(number);
    }
    drop(stream);
    client.settled().await.unwrap();
    client.disconnect().await;
    broker.assert_no_violations();
}

#[tokio::test]
async fn a_request_gets_its_answer() {
    let broker = MockBroker::serve().await;
    let client = Client::connect(Options::new(broker.url()).unwrap()).await.unwrap();
    let mut questions = client.subscribe(("question", QoS::AtLeastOnce)).await.unwrap();
    let answering = client.clone();
    let answerer = tokio::spawn(async move {
        for _ in 0..10 {
            let question = questions.recv().await.unwrap();
            let properties = question.properties();
            let answer = Message::new(properties.response_topic().unwrap(), question.payload().clone())
                .correlation_data(properties.correlation_data().unwrap());
            answering.publish(answer).await.unwrap();
        }
    });
    let requester = client.requester().await.unwrap();
    let asking: Vec<_> = (0..10)
        .map(|number| {
            let requester = requester.clone();
            tokio::spawn(async move {
                let question = Message::new("question", number.to_string()).qos(QoS::AtLeastOnce);
                let answer = requester.request(question, Duration::from_secs(20)).await.unwrap();
                assert_eq!(answer.payload(), &number.to_string());
            })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
    answerer.await.unwrap();
    client.disconnect().await;
    broker.assert_no_violations();
}

/// A broker may send one message with the identifiers of both subscriptions, which are the same.
#[tokio::test]
async fn two_filters_of_a_stream_that_match_do_not_double_a_message() {
    let broker = MockBroker::listen().await;
    let client = Client::start(Options::new(broker.url()).unwrap());
    let subscribing = {
        let client = client.clone();
        let both = Subscribe::new("a/b", QoS::AtMostOnce).filter("a/+", QoS::AtMostOnce);
        tokio::spawn(async move { client.subscribe(both).await })
    };
    let mut peer = broker.accept().await;
    peer.expect_connect().await;
    peer.conn_ack(false, ReasonCode::Success).await;
    let subscribe = peer.expect_subscribe().await;
    let (packet_id, identifier) = {
        let subscribe = subscribe.subscribe();
        (subscribe.packet_id, subscribe.subscription_identifier.unwrap())
    };
    peer.sub_ack(packet_id, &[ReasonCode::Success, ReasonCode::Success]).await;
    let mut stream = subscribing.await.unwrap().unwrap();
    for payload in ["1", "2"] {
        let mut properties = Vec::new();
        Property::SubscriptionIdentifier(identifier).encode(&mut properties);
        Property::SubscriptionIdentifier(identifier).encode(&mut properties);
        peer.send(&Packet::Publish(Publish {
            delivery: Delivery::AtMostOnce,
            retain: false,
            topic_name: "a/b",
            properties: PublishProperties::new(&properties).unwrap(),
            payload: payload.as_bytes(),
        }))
        .await;
    }
    assert_eq!(stream.recv().await.unwrap().payload(), "1");
    assert_eq!(stream.recv().await.unwrap().payload(), "2");
}
