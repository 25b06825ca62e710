//! The client for programs without async.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::time::Duration;

use pantala_client::blocking::Client;
use pantala_client::mock::{MockBroker, ServingBroker};
use pantala_client::{Message, Options, QoS};

/// A broker on a thread of its own, and what keeps it there.
fn broker() -> (tokio::runtime::Runtime, ServingBroker) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(MockBroker::serve());
    (runtime, broker)
}

#[test]
fn it_publishes_subscribes_and_ends() {
    let (runtime, broker) = broker();
    let client = Client::connect(Options::new(broker.url()).unwrap()).unwrap();
    let mut stream = client.subscribe(("a/+", QoS::ExactlyOnce)).unwrap();
    client.publish(Message::new("a/b", "1").qos(QoS::ExactlyOnce)).unwrap();
    assert_eq!(stream.recv().unwrap().payload(), "1");
    assert!(stream.recv_timeout(Duration::ZERO).unwrap().is_none());
    client.try_publish(&Message::new("a/b", "2")).unwrap();
    assert_eq!(stream.next().unwrap().payload(), "2");
    stream.unsubscribe().unwrap();
    drop(client);
    let ended = |broker: &ServingBroker| !broker.received_of(pantala_proto::PacketType::Disconnect).is_empty();
    runtime.block_on(broker.wait_until(ended));
    broker.assert_no_violations();
}

#[test]
fn who_asks_gets_an_answer() {
    let (_runtime, broker) = broker();
    let client = Client::connect(Options::new(broker.url()).unwrap()).unwrap();
    let mut questions = client.subscribe(("question", QoS::AtLeastOnce)).unwrap();
    let answering = client.clone();
    let answerer = std::thread::spawn(move || {
        let question = questions.next().unwrap();
        let properties = question.properties();
        let answer = Message::new(properties.response_topic().unwrap(), "42")
            .correlation_data(properties.correlation_data().unwrap());
        answering.publish(answer).unwrap();
    });
    let answer = client.request(Message::new("question", "?").qos(QoS::AtLeastOnce), Duration::from_secs(20)).unwrap();
    assert_eq!(answer.payload(), "42");
    answerer.join().unwrap();
}

#[test]
fn an_error_says_that_nobody_listens() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::connect(Options::new(&format!("mqtt://{free}")).unwrap()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
