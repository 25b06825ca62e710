//! The client for programs without async.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::sync::mpsc;
use std::time::Duration;

use pantala_client::authentication::{AuthenticationError, Authenticator};
use pantala_client::blocking::Client;
use pantala_client::mock::{MockBroker, ServingBroker};
use pantala_client::{Message, Options, QoS, ReasonCode, RequestError, Status};
use pantala_proto::{Auth, Packet};

/// A broker that nobody listens at.
const NOWHERE: &str = "mqtt://127.0.0.1:1";
/// Time in which nothing happens.
const SOON: Duration = Duration::from_millis(20);
/// Time in which all happens that is to happen.
const LATE: Duration = Duration::from_secs(60);

/// What `work` comes to, which must not take for ever.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(LATE).expect("it blocks")
}

/// A client that looks for a broker in vain.
fn without_a_broker(change: impl FnOnce(Options) -> Options) -> Client {
    let mut options = change(Options::new(NOWHERE).unwrap());
    options.reconnect.retry_first = true;
    Client::start(options).unwrap()
}

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

/// A request waited for a connection, and for the subscription to its Response Topic, without a limit.
#[test]
fn a_request_ends_in_time_without_a_connection_and_without_an_answer() {
    let client = without_a_broker(|options| options);
    let error = in_time(move || client.request(Message::new("question", "?"), SOON)).unwrap_err();
    assert!(matches!(error, RequestError::TimedOut), "{error}");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(MockBroker::listen());
    let client = Client::start(Options::new(broker.url()).unwrap()).unwrap();
    let mut peer = runtime.block_on(async {
        let mut peer = broker.accept().await;
        peer.expect_connect().await;
        peer.conn_ack(false, ReasonCode::Success).await;
        peer
    });
    assert!(client.connected_timeout(LATE).unwrap().is_some());
    let asking = client.clone();
    let error = in_time(move || asking.request(Message::new("question", "?"), SOON)).unwrap_err();
    assert!(matches!(error, RequestError::TimedOut), "{error}");
    // It was not for want of asking.
    runtime.block_on(peer.expect_subscribe());
}

#[test]
fn what_waits_for_a_broker_can_be_given_a_time() {
    let client = without_a_broker(|options| options);
    let (connected, published, settled, subscribed) = in_time(move || {
        (
            client.connected_timeout(SOON).unwrap().is_some(),
            client.publish_timeout(Message::new("a", "1").qos(QoS::AtLeastOnce), SOON).unwrap().is_some(),
            client.settled_timeout(SOON).unwrap(),
            client.subscribe_timeout("a", SOON).unwrap().is_some(),
        )
    });
    assert_eq!((connected, published, settled, subscribed), (false, false, false, false));

    let (_runtime, broker) = broker();
    let client = Client::connect(Options::new(broker.url()).unwrap()).unwrap();
    assert!(client.connected_timeout(LATE).unwrap().is_some());
    let mut stream = client.subscribe_timeout(("a", QoS::AtLeastOnce), LATE).unwrap().unwrap();
    broker.hold_acknowledgements();
    let message = |payload: &'static str| Message::new("a", payload).qos(QoS::AtLeastOnce);
    assert!(client.publish_timeout(message("1"), SOON).unwrap().is_none());
    assert!(!client.settled_timeout(SOON).unwrap());
    broker.release_acknowledgements();
    assert!(client.settled_timeout(LATE).unwrap());
    assert!(client.publish_timeout(message("2"), LATE).unwrap().is_some());
    // The first had been published all the same, once.
    assert_eq!((stream.recv().unwrap().payload(), stream.recv().unwrap().payload()), (&"1".into(), &"2".into()));
    assert_eq!(broker.published().len(), 2);
    broker.assert_no_violations();
}

#[test]
fn what_is_enqueued_without_a_broker_arrives_from_the_next_program() {
    let directory = tempfile::tempdir().unwrap();
    let keeping = |options: Options| options.client_id("meter").keep_session(Duration::MAX).outbox(directory.path());
    let client = without_a_broker(keeping);
    let program = client.clone();
    in_time(move || {
        program.enqueue(Message::new("n", "1").qos(QoS::ExactlyOnce)).unwrap();
        assert!(program.enqueue_timeout(Message::new("n", "2").qos(QoS::ExactlyOnce), LATE).unwrap());
    });
    assert_eq!(client.outbox_len(), 2);
    assert!(matches!(client.status(), Status::Connecting | Status::Waiting { .. }));
    // Whoever ends it waits for the disk, and not for a broker.
    in_time(move || drop(client));

    let (_runtime, broker) = broker();
    let client = Client::connect(keeping(Options::new(broker.url()).unwrap())).unwrap();
    assert_eq!(client.outbox_report().unwrap().messages, 2);
    client.settled().unwrap();
    assert_eq!(client.outbox_len(), 0);
    let payloads: Vec<_> = broker.published().into_iter().map(|message| message.payload).collect();
    assert_eq!(payloads, ["1", "2"]);
    broker.assert_no_violations();
}

/// No room: the message is not taken, and nobody waits for ever.
#[test]
fn enqueueing_into_a_full_outbox_can_be_given_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let client = without_a_broker(|options| {
        let mut options = options.client_id("meter").keep_session(Duration::MAX).outbox(directory.path());
        options.outbox.as_mut().unwrap().messages_max = 1;
        options
    });
    in_time(move || {
        let message = || Message::new("n", "").qos(QoS::AtLeastOnce);
        client.enqueue(message()).unwrap();
        assert!(!client.enqueue_timeout(message(), SOON).unwrap());
        assert_eq!(client.outbox_len(), 1);
    });
}

/// Says that it is at work, and goes on when it is let.
struct Slow {
    begun: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Authenticator for Slow {
    fn method(&self) -> &str {
        "SLOW"
    }

    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
        Ok(None)
    }

    fn step(&mut self, _: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
        self.begun.send(()).unwrap();
        // Until the test is over.
        let _gone = self.go_on.recv();
        Ok(None)
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}

/// Dropping the client waited for whatever had begun on a thread for blocking work: a step, or a name that is resolved.
#[test]
fn dropping_it_does_not_wait_for_an_authenticator() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(MockBroker::listen());
    let ((begun, has_begun), (_test, go_on)) = (mpsc::channel(), mpsc::channel());
    let client = Client::start(Options::new(broker.url()).unwrap().authenticator(Slow { begun, go_on })).unwrap();
    let _peer = runtime.block_on(async {
        let mut peer = broker.accept().await;
        peer.expect_connect().await;
        let auth = Auth { authentication_method: Some("SLOW"), ..Auth::new(ReasonCode::ContinueAuthentication) };
        peer.send(&Packet::Auth(auth)).await;
        peer
    });
    has_begun.recv_timeout(LATE).unwrap();
    in_time(move || drop(client));
}
