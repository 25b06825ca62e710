//! Enhanced authentication whose steps take long.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/wire.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pantala_client::authentication::{AuthenticationError, Authenticator, ScramSha256};
use pantala_client::error::{ConnectionError, PublishError, Violation};
use pantala_client::{Client, Message, Options, QoS, ReasonCode, Reconnect, Status};
use pantala_proto::{Auth, ConnAck, Packet, ProtocolVersion, frame};
use wire::{End, Listener, wire};

/// Where a step waits until it is let through. Nobody waits longer than some seconds, so that a lock that is held fails a test
/// instead of stopping it.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(u32, bool)>, Condvar)>, Arc<AtomicBool>);

impl Gate {
    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.0 += 1;
        changed.notify_all();
        let (_state, waited) = changed.wait_timeout_while(state, Duration::from_secs(20), |(_, open)| !*open).unwrap();
        self.1.fetch_or(waited.timed_out(), Ordering::Relaxed);
    }

    fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }

    fn is_open(&self) -> bool {
        self.0.0.lock().unwrap().1
    }

    /// Until somebody is at work for the `n`-th time, in whatever thread that is.
    async fn reached(&self, n: u32) {
        let gate = self.clone();
        let waiting = tokio::task::spawn_blocking(move || {
            let (state, changed) = &*gate.0;
            let state = state.lock().unwrap();
            let limit = Duration::from_secs(20);
            let (_state, waited) = changed.wait_timeout_while(state, limit, |(times, _)| *times < n).unwrap();
            !waited.timed_out()
        });
        assert!(waiting.await.unwrap(), "the step has begun");
    }

    fn assert_in_time(&self) {
        assert!(!self.1.load(Ordering::Relaxed), "somebody waited until the step was over");
    }
}

/// Says its name, and answers a challenge with itself.
struct Slow(Gate);

impl Authenticator for Slow {
    fn method(&self) -> &str {
        "SLOW"
    }

    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
        Ok(Some(b"me".to_vec()))
    }

    fn step(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
        assert_ne!(data, Some(&b"panic"[..]), "as it was told");
        self.0.pass();
        Ok(data.map(<[u8]>::to_vec))
    }

    fn finish(&mut self, _: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(ProtocolVersion::V5, &mut bytes);
    bytes
}

fn challenge(method: &str, data: &[u8]) -> Vec<u8> {
    let auth = Auth {
        authentication_method: Some(method),
        authentication_data: Some(data),
        ..Auth::new(ReasonCode::ContinueAuthentication)
    };
    bytes(&Packet::Auth(auth))
}

fn welcome(method: &str) -> Vec<u8> {
    let conn_ack = ConnAck { authentication_method: Some(method), ..ConnAck::new(false, ReasonCode::Success) };
    bytes(&Packet::ConnAck(conn_ack))
}

/// The data of the client's next packet, which has to be AUTH.
async fn answer(end: &mut End) -> Vec<u8> {
    let packet = end.packet().await.expect("the client answers");
    let Ok(frame::Split::Frame(frame)) = frame::split(&packet, u32::MAX) else { panic!("{packet:?}") };
    match Packet::decode(ProtocolVersion::V5, frame.first_byte, frame.body).unwrap() {
        Packet::Auth(auth) => auth.authentication_data.unwrap().to_vec(),
        other => panic!("{other:?}"),
    }
}

async fn challenged(listener: &mut Listener, data: &[u8]) -> End {
    let mut end = listener.accept().await;
    assert_eq!(end.packet().await.expect("CONNECT")[0], 0x10);
    end.send(&challenge("SLOW", data)).await;
    end
}

fn options() -> (Options, Listener, Gate) {
    let (options, listener) = wire();
    let gate = Gate::default();
    let reconnect = Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() };
    (options.client_id("c").reconnect(reconnect).authenticator(Slow(gate.clone())), listener, gate)
}

/// What the other users of a client do. It is all over at once, or never while somebody holds the client's lock.
async fn use_client(client: &Client) {
    assert!(!matches!(client.status(), Status::Ended(_)));
    let room = client.try_publish(&Message::new("t", "1").qos(QoS::AtLeastOnce));
    assert!(matches!(room, Ok(()) | Err(PublishError::QueueFull)));
    client.enqueue(Message::new("t", "2").qos(QoS::AtLeastOnce)).await.unwrap();
    let _ = (client.outbox_len(), client.unclaimed_dropped());
    client.reauthenticate();
    // It waits for the broker, not for the authenticator.
    let publishing = client.publish(Message::new("t", "3").qos(QoS::ExactlyOnce));
    assert!(tokio::time::timeout(Duration::from_millis(20), publishing).await.is_err());
}

/// The rounds of SCRAM were done under the client's lock, and everybody waited for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_takes_long_holds_up_nobody() {
    let (options, mut listener, gate) = options();
    let client = Client::start(options);
    let mut end = challenged(&mut listener, b"first").await;
    gate.reached(1).await;
    use_client(&client).await;
    gate.assert_in_time();
    gate.open();
    assert_eq!(answer(&mut end).await, b"first");
    end.send(&challenge("SLOW", b"second")).await;
    assert_eq!(answer(&mut end).await, b"second");
    end.send(&welcome("SLOW")).await;
    client.connected().await.unwrap();
    // All three times, what was published is sent now.
    for payload in [b'1', b'2', b'3'] {
        assert_eq!(end.packet().await.unwrap().last(), Some(&payload));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_during_a_step_is_made_again_after_it() {
    let (options, mut listener, gate) = options();
    let mut options = options;
    options.reconnect.retry_first = true;
    let client = Client::start(options);
    let end = challenged(&mut listener, b"first").await;
    gate.reached(1).await;
    drop(end);
    use_client(&client).await;
    gate.assert_in_time();
    gate.open();
    let mut end = challenged(&mut listener, b"second").await;
    // Of the step before nobody hears any more.
    assert_eq!(answer(&mut end).await, b"second");
    end.send(&welcome("SLOW")).await;
    client.connected().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_ends_while_a_step_is_at_work() {
    let (options, mut listener, gate) = options();
    let client = Client::start(options);
    let _end = challenged(&mut listener, b"first").await;
    gate.reached(1).await;
    client.disconnect().await;
    gate.assert_in_time();
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_wait_for_a_step_breaks_the_protocol() {
    for hurry in [welcome("SLOW"), challenge("SLOW", b"second")] {
        let (options, mut listener, gate) = options();
        let client = Client::start(options.reconnect(Reconnect::NEVER));
        let mut end = challenged(&mut listener, b"first").await;
        gate.reached(1).await;
        end.send(&hurry).await;
        // The end of the connection does not wait; the next one would.
        assert_eq!(end.packet().await, None);
        gate.open();
        assert_eq!(client.connected().await.unwrap_err(), ConnectionError::Protocol(Violation::Auth));
        gate.assert_in_time();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_never_comes_to_an_end_is_given_up_with_the_connection() {
    let (options, mut listener, gate) = options();
    let mut options = options.reconnect(Reconnect::NEVER);
    options.session.connect_timeout = Duration::from_millis(50);
    let client = Client::start(options);
    let mut end = challenged(&mut listener, b"first").await;
    gate.reached(1).await;
    assert_eq!(end.packet().await, None);
    assert_eq!(client.connected().await.unwrap_err(), ConnectionError::TimedOut);
    // All that is while the step is still at work.
    gate.assert_in_time();
    assert!(!gate.is_open());
    gate.open();
}

/// The client was said to be connected for as long as the step took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_next_connection_waits_for_a_step_is_not_connected() {
    let (options, mut listener, gate) = options();
    let client = Client::start(options);
    let mut end = listener.accept().await;
    assert_eq!(end.packet().await.expect("CONNECT")[0], 0x10);
    end.send(&welcome("SLOW")).await;
    client.connected().await.unwrap();
    let mut changes = client.changes();
    assert!(matches!(changes.next().await, Some(Status::Connected(_))));
    end.send(&challenge("SLOW", b"again")).await;
    gate.reached(1).await;
    drop(end);
    // A wait, and an attempt.
    while !matches!(changes.next().await, Some(Status::Connecting)) {}
    gate.assert_in_time();
    assert!(!gate.is_open());
    gate.open();
    let mut end = listener.accept().await;
    assert_eq!(end.packet().await.expect("CONNECT")[0], 0x10);
}

/// The task of the client ended with it, and whoever waited waited for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authenticator_that_panics_ends_the_connection_only() {
    let (mut options, mut listener, gate) = options();
    options.reconnect.retry_first = true;
    gate.open();
    let client = Client::start(options);
    let mut end = challenged(&mut listener, b"panic").await;
    assert_eq!(end.packet().await, None);
    let mut end = challenged(&mut listener, b"second").await;
    assert_eq!(answer(&mut end).await, b"second");
    end.send(&welcome("SLOW")).await;
    client.connected().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_rounds_of_scram_are_done_while_others_go_on() {
    let (options, mut listener) = wire();
    let client = Client::start(options.client_id("c").authenticator(ScramSha256::new("user", "pencil").unwrap()));
    let mut end = listener.accept().await;
    let connect = end.packet().await.unwrap();
    let text = String::from_utf8_lossy(&connect).into_owned();
    let nonce = text.split("n=user,r=").nth(1).unwrap().get(..24).unwrap();
    end.send(&challenge("SCRAM-SHA-256", format!("r={nonce}x,s=AAAA,i=600000").as_bytes())).await;
    let answering = answer(&mut end);
    tokio::pin!(answering);
    let mut looks = 0_u32;
    let data = loop {
        tokio::select! {
            biased;
            data = &mut answering => break data,
            () = tokio::time::sleep(Duration::from_millis(1)) => {
                let _ = client.status();
                looks += 1;
            }
        }
    };
    assert!(data.starts_with(format!("c=biws,r={nonce}x,p=").as_bytes()));
    assert!(looks >= 10, "{looks} looks at the client while the rounds were done");
}
