//! How a client ends, and that everybody who waits hears of it.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/wire.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod wire;

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use pantala_client::authentication::{AuthenticationError, Authenticator};
use pantala_client::error::{ConnectionError, PublishError, SubscribeError};
use pantala_client::machine::Direction;
use pantala_client::mock::MockBroker;
use pantala_client::transport::ConnectError;
use pantala_client::{BoxedStream, Client, Connector, Message, Options, Packet, QoS, Reconnect, Status, blocking};
use tokio::runtime::Builder;
use wire::{End, Listener, acknowledgement, publish, wire};

/// What is waited for longer than this does not come. With tokio's clock paused it costs nothing.
const LONG: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("who waits hears of the end")
}

fn at_least_once() -> Message {
    Message::new("up", "1").qos(QoS::AtLeastOnce)
}

/// Panics when a message comes.
fn observer(direction: Direction, packet: &Packet<'_>) {
    assert!(!matches!((direction, packet), (Direction::Received, Packet::Publish(_))), "as it was told");
}

async fn connected(options: Options, listener: &mut Listener) -> (Client, End) {
    let client = Client::start(options.client_id("c"));
    let end = listener.welcome(false).await;
    client.connected().await.unwrap();
    (client, end)
}

/// Why the client has ended, in words.
async fn why(client: &Client) -> String {
    let mut changes = client.changes();
    loop {
        if let Status::Ended(error) = soon(changes.next()).await.expect("the end comes last") {
            return error.expect("nobody asked it to end").to_string();
        }
    }
}

/// The task of the client was gone, the status stayed, and whoever waited waited for ever.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_ends_the_client() {
    let (options, mut listener) = wire();
    let (client, mut end) = connected(options.observer(observer), &mut listener).await;
    let (stream, ()) = tokio::join!(client.subscribe("t"), async {
        let packet = end.skip_to(0x82).await;
        end.send(&[0x90, 4, packet[2], packet[3], 0, 0]).await;
    });
    let mut stream = stream.unwrap();
    let mut unclaimed = client.unclaimed();
    let waiting = async {
        tokio::join!(
            client.publish(at_least_once()),
            client.settled(),
            stream.recv(),
            unclaimed.recv(),
            client.subscribe("other"),
            client.unsubscribe(["other"]),
        )
    };
    let (ends, ()) = tokio::join!(soon(waiting), async {
        end.skip_to(0xa2).await;
        end.send(&publish(0x30, "t", 0, "x")).await;
    });
    assert_eq!((ends.0, ends.1), (Err(PublishError::Ended), Err(PublishError::Ended)));
    assert!(ends.2.is_err() && ends.3.is_err());
    assert!(matches!((ends.4, ends.5), (Err(SubscribeError::Ended), Err(SubscribeError::Ended))));
    assert!(why(&client).await.contains("panicked"));
    assert_eq!(client.publish(at_least_once()).await, Err(PublishError::Ended));
    assert!(client.connected().await.is_err());
    soon(client.disconnect()).await;
    assert_eq!(end.packet().await, None, "the connection is closed");
}

/// Panics when it is asked for its first word.
struct Panics;

impl Authenticator for Panics {
    fn method(&self) -> &str {
        "PANICS"
    }

    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
        panic!("as it was told")
    }

    fn step(&mut self, _: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
        Ok(None)
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}

impl Connector for Panics {
    fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>> {
        panic!("as it was told")
    }
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_panics_at_once_ends_the_client() {
    let (options, _listener) = wire();
    let error = soon(Client::connect(options.authenticator(Panics))).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_panics_ends_the_client() {
    let client = Client::start(Options::with_connector(Panics));
    let (published, connected) = tokio::join!(soon(client.publish(at_least_once())), soon(client.connected()));
    assert_eq!(published, Err(PublishError::Ended));
    assert!(connected.unwrap_err().to_string().contains("panicked"));
}

/// A handle that lived longer than the runtime of the client's task waited for ever.
#[test]
fn a_client_ends_with_the_runtime_of_its_task() {
    let of_task = Builder::new_current_thread().enable_all().build().unwrap();
    let (options, mut listener) = wire();
    let (client, _end) = of_task.block_on(connected(options, &mut listener));
    let mut unclaimed = client.unclaimed();
    let of_program = Builder::new_current_thread().enable_all().build().unwrap();
    let publishing = of_program.spawn({
        let client = client.clone();
        async move { client.publish(at_least_once()).await }
    });
    // It waits for the broker by now.
    of_program.block_on(tokio::task::yield_now());
    drop(of_task);
    of_program.block_on(async {
        assert_eq!(soon(publishing).await.unwrap(), Err(PublishError::Ended));
        assert!(soon(unclaimed.recv()).await.is_err());
        assert!(why(&client).await.contains("runtime"));
        soon(client.disconnect()).await;
    });
}

#[test]
fn a_blocking_client_whose_task_is_gone_can_be_dropped() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(MockBroker::serve());
    let options = Options::new(broker.url()).unwrap().observer(|direction, packet| {
        let acknowledged = matches!((direction, packet), (Direction::Received, Packet::Acknowledgement(_)));
        assert!(!acknowledged, "as it was told");
    });
    let (sender, receiver) = mpsc::channel();
    // A thread of its own, so that a client that waits for ever fails the test instead of stopping it.
    std::thread::spawn(move || {
        let client = blocking::Client::connect(options).unwrap();
        let published = client.publish(at_least_once());
        drop(client);
        sender.send(published).unwrap();
    });
    assert_eq!(receiver.recv_timeout(LONG).expect("it is dropped"), Err(PublishError::Ended));
}

/// The end of the connection came together with the acknowledgement, and the answer was that there was none.
#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_before_the_end_is_acknowledged() {
    let (options, mut listener) = wire();
    let (client, mut end) = connected(options.reconnect(Reconnect::NEVER), &mut listener).await;
    let (published, settled, unsubscribed, ()) =
        tokio::join!(client.publish(at_least_once()), client.settled(), client.unsubscribe(["other"]), async {
            let publish = end.packet().await.unwrap();
            assert_eq!(publish[0], 0x32);
            let unsubscribe = end.packet().await.unwrap();
            end.send(&acknowledgement(0x40, u16::from_be_bytes([publish[6], publish[7]]))).await;
            end.send(&[0xb0, 4, unsubscribe[2], unsubscribe[3], 0, 0x11]).await;
            drop(end);
        });
    assert!(published.is_ok(), "{published:?}");
    assert!(settled.is_ok(), "{settled:?}");
    assert!(unsubscribed.is_ok(), "{unsubscribed:?}");
    assert_eq!(why(&client).await, ConnectionError::Closed.to_string());
    // Nothing is owed to anybody.
    assert!(client.settled().await.is_ok());
    assert_eq!(client.publish(at_least_once()).await, Err(PublishError::Ended));
}

/// What was published while somebody waited kept them waiting, for ever if it did not stop.
#[tokio::test(start_paused = true)]
async fn settled_waits_for_what_was_published_before() {
    let (options, mut listener) = wire();
    let (client, mut end) = connected(options, &mut listener).await;
    client.try_publish(&at_least_once()).unwrap();
    let first = end.packet().await.unwrap();
    let mut settled = Box::pin(client.settled());
    assert!(settled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    client.try_publish(&at_least_once()).unwrap();
    end.packet().await.unwrap();
    end.send(&acknowledgement(0x40, u16::from_be_bytes([first[6], first[7]]))).await;
    soon(settled).await.unwrap();
    assert!(tokio::time::timeout(LONG, client.settled()).await.is_err(), "the second is not acknowledged");
}

/// A message of QoS 0 counts as published before the broker has taken it.
#[tokio::test(start_paused = true)]
async fn flushed_waits_until_everything_is_out() {
    let (options, mut listener) = wire();
    let (client, mut end) = connected(options, &mut listener).await;
    let large = Message::new("t", vec![b'x'; 10 * wire::WIRE_BYTES]);
    client.flushed().await.unwrap();
    client.publish(large.clone()).await.unwrap();
    client.settled().await.unwrap();
    let mut flushed = Box::pin(client.flushed());
    assert!(tokio::time::timeout(LONG, &mut flushed).await.is_err(), "nobody reads");
    let (flushed, _) = tokio::join!(soon(flushed), end.skip_to(0x30));
    flushed.unwrap();
    // Nobody reads, and then nobody is there: said once.
    client.publish(large).await.unwrap();
    let lost = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(end);
        listener.welcome(false).await
    };
    let (flushed, _end) = tokio::join!(soon(client.flushed()), lost);
    assert!(matches!(flushed, Err(ConnectionError::Network(_) | ConnectionError::Closed)), "{flushed:?}");
    soon(client.flushed()).await.unwrap();
}

/// Tried again for ever, which serves no script.
#[tokio::test(start_paused = true)]
async fn what_will_not_pass_ends_a_client_that_wants_it_so() {
    for (code, ends) in [(0x88, false), (0x86, true), (0x87, true), (0x84, true)] {
        let (options, mut listener) = wire();
        let options = options.reconnect(Reconnect { only_passing: true, ..Reconnect::default() });
        let (client, end) = connected(options, &mut listener).await;
        drop(end);
        let mut end = listener.accept().await;
        end.packet().await.unwrap();
        end.send(&[0x20, 3, 0, code, 0]).await;
        if ends {
            assert!(why(&client).await.contains("refused"));
        } else {
            listener.welcome(false).await;
        }
    }
}

/// The form of MQTT 3 was "a malformed packet".
#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_know_mqtt_5_is_understood() {
    let (options, mut listener) = wire();
    let client = Client::start(options);
    let mut end = listener.accept().await;
    end.packet().await.unwrap();
    end.send(&[0x20, 2, 0, 1]).await;
    let error = soon(client.connected()).await.unwrap_err();
    assert!(error.to_string().contains("unsupported protocol version (0x84)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn unclaimed_messages_of_a_client_that_has_ended_do_not_come() {
    let (options, mut listener) = wire();
    let (client, _end) = connected(options, &mut listener).await;
    client.disconnect().await;
    let error = soon(client.unclaimed().recv()).await.unwrap_err();
    assert_eq!(error.to_string(), "the client has ended");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_unclaimed_messages_that_is_replaced_says_so() {
    let (options, mut listener) = wire();
    let (client, mut end) = connected(options, &mut listener).await;
    let mut first = client.unclaimed();
    let mut second = client.unclaimed();
    let error = soon(first.recv()).await.unwrap_err();
    assert!(error.to_string().contains("another stream"), "{error}");
    drop(first);
    end.send(&publish(0x30, "t", 0, "x")).await;
    assert_eq!(soon(second.recv()).await.unwrap().topic_name(), "t");
}

/// They were sent, and refused by ourselves, again and again.
#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_sent_are_not_tried_again() {
    let (mut options, _listener) = wire();
    options.session.user_name = Some("\0".to_owned());
    options.reconnect.retry_first = true;
    let error = soon(Client::connect(options)).await.unwrap_err();
    assert!(matches!(error, ConnectionError::Settings(_)), "{error:?}");
}

/// Nothing was taken at all: neither to wait nor to be sent.
#[tokio::test]
async fn limits_of_0_are_taken_for_1() {
    let broker = MockBroker::serve().await;
    let mut options = Options::new(broker.url()).unwrap();
    options.session.queue_messages_max = 0;
    options.session.queue_bytes_max = 0;
    options.session.output_bytes_max = 0;
    options.session.inflight_maximum = 1.try_into().unwrap();
    let client = Client::start(options);
    let publishing = (0..30).map(|number| {
        let client = client.clone();
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number % 3];
        tokio::spawn(async move { client.publish(Message::new("t", number.to_string()).qos(qos)).await })
    });
    for publishing in publishing.collect::<Vec<_>>() {
        soon(publishing).await.unwrap().unwrap();
    }
    client.disconnect().await;
    broker.assert_no_violations();
}

/// Looks at the client when it is woken, as an executor does that drops a future of the client's then.
struct Looks(Mutex<Option<Client>>, tokio::sync::mpsc::UnboundedSender<bool>);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let client = self.0.lock().unwrap().take();
        let _ = client.map(|client| self.1.send(matches!(client.status(), Status::Connected(_))));
    }
}

/// Wakers were woken with the client locked.
#[test]
fn whoever_is_woken_can_use_the_client() {
    let (done, is_done) = mpsc::channel();
    // A thread of its own, so that one that locks up fails the test instead of stopping it.
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = MockBroker::serve().await;
            let client = Client::connect(Options::new(broker.url()).unwrap()).await.unwrap();
            let mut stream = client.subscribe("t").await.unwrap();
            let (sender, mut looks) = tokio::sync::mpsc::unbounded_channel();
            let waker = || Waker::from(Arc::new(Looks(Mutex::new(Some(client.clone())), sender.clone())));
            // By an answer, by a mark that is reached, and by a message.
            let mut publishing = Box::pin(client.publish(at_least_once()));
            assert!(publishing.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
            let mut settled = Box::pin(client.settled());
            assert!(settled.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
            assert!(stream.poll_recv(&mut Context::from_waker(&waker())).is_pending());
            broker.publish(pantala_client::mock::Message::new("t", "x"));
            for _ in 0..3 {
                assert_eq!(looks.recv().await, Some(true));
            }
            done.send(()).unwrap();
        });
    });
    is_done.recv_timeout(LONG).expect("the client is not locked");
}
