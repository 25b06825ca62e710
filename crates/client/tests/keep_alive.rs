//! Keep Alive on connections that are slow: what moves lives, what only trickles does not.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/wire.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod wire;

use std::time::Duration;

use pantala_client::error::ConnectionError;
use pantala_client::{Client, Message, QoS, Reconnect, Status, Subscribe};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};
use wire::{End, Listener, acknowledgement, wire};

const SECOND: Duration = Duration::from_secs(1);

/// A client with the default Keep Alive of 60 s, which does not come back.
async fn pair() -> (Client, End, Listener) {
    let (options, mut listener) = wire();
    let client = Client::start(options.client_id("c").reconnect(Reconnect::NEVER));
    let end = listener.welcome(false).await;
    client.connected().await.unwrap();
    (client, end, listener)
}

/// How the client ends, after how many seconds.
async fn end_of(client: &Client, began: Instant) -> (ConnectionError, u64) {
    let mut changes = client.changes();
    while let Some(status) = changes.next().await {
        if let Status::Ended(error) = status {
            return ((*error.expect("nobody asked it to end")).clone(), began.elapsed().as_secs());
        }
    }
    panic!("it has not ended");
}

/// PINGRESP came behind a message of many seconds, and the client gave up, came back, and sent it all again.
#[tokio::test(start_paused = true)]
async fn a_large_message_may_go_out_for_longer_than_the_keep_alive() {
    let (client, mut end, _listener) = pair().await;
    let began = Instant::now();
    let (published, ()) =
        tokio::join!(client.publish(Message::new("t", vec![0; 8 << 20]).qos(QoS::AtLeastOnce)), async {
            // Fixed header, Topic Name, Packet Identifier and properties besides.
            let mut left = (8 << 20) + 5 + 3 + 2 + 1;
            let mut bytes = vec![0; 64 << 10];
            // A third of what the wire holds, each second.
            while left > 0 {
                let read = end.stream.read(&mut bytes[..left.min(20 << 10)]).await.unwrap();
                assert!(read > 0, "it is cut with {left} bytes left");
                left -= read;
                sleep(SECOND).await;
            }
            end.skip_to(0xc0).await;
            assert!(began.elapsed() > 300 * SECOND, "it takes long");
            end.send(&[0xd0, 0]).await;
            end.send(&acknowledgement(0x40, 1)).await;
        });
    published.unwrap();
    assert!(matches!(client.status(), Status::Connected(_)));
}

/// The same the other way: the broker cannot answer before its message is out.
#[tokio::test(start_paused = true)]
async fn a_large_message_may_come_in_for_longer_than_the_keep_alive() {
    let (client, mut end, _listener) = pair().await;
    let mut stream = client.unclaimed_with(&Subscribe::default());
    let began = Instant::now();
    let message = [&[0x30, 0x84, 0x80, 0x40, 0, 1, b't', 0][..], &vec![b'x'; 1 << 20]].concat();
    for bytes in message.chunks(4 << 10) {
        end.send(bytes).await;
        sleep(2 * SECOND).await;
    }
    assert!(began.elapsed() > 300 * SECOND, "it takes long");
    assert_eq!(stream.recv().await.unwrap().payload().len(), 1 << 20);
    end.send(&[0xd0, 0]).await;
    sleep(20 * SECOND).await;
    assert!(matches!(client.status(), Status::Connected(_)));
}

/// A byte now and then is no sign of life.
#[tokio::test(start_paused = true)]
async fn a_broker_that_lets_bytes_trickle_and_never_answers_is_given_up() {
    let (client, mut end, _listener) = pair().await;
    let began = Instant::now();
    // The beginning of a message that never comes to its end.
    end.send(&[0x30, 0xff, 0xff, 0xff, 0x03, 0, 1, b't', 0]).await;
    let trickling = async {
        loop {
            end.send(b"x").await;
            sleep(SECOND).await;
        }
    };
    let (error, seconds) = tokio::select! {
        end = end_of(&client, began) => end,
        () = trickling => unreachable!("it goes on for ever"),
    };
    assert_eq!(error, ConnectionError::TimedOut);
    // PINGREQ, and half the Keep Alive.
    assert!((55 + 30..55 + 32).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_takes_a_byte_now_and_then_is_given_up() {
    let (client, mut end, _listener) = pair().await;
    client.try_publish(&Message::new("t", vec![0; 1 << 20])).unwrap();
    let began = Instant::now();
    let trickling = async {
        loop {
            let _ = end.stream.read_u8().await;
            sleep(SECOND).await;
        }
    };
    let (error, seconds) = tokio::select! {
        end = end_of(&client, began) => end,
        () = trickling => unreachable!("it goes on for ever"),
    };
    assert_eq!(error, ConnectionError::TimedOut);
    assert!((55 + 30..55 + 35).contains(&seconds), "{seconds}");
}

/// What was fast once, and stands still now, has half the Keep Alive.
#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_to_a_stop_is_given_up() {
    let (client, mut end, _listener) = pair().await;
    client.try_publish(&Message::new("t", vec![0; 8 << 20])).unwrap();
    let mut bytes = vec![0; 32 << 10];
    // PINGREQ is due at 55 s.
    for _ in 0..120 {
        end.stream.read_exact(&mut bytes).await.unwrap();
        sleep(SECOND).await;
    }
    assert!(matches!(client.status(), Status::Connected(_)));
    let (error, seconds) = timeout(1_000 * SECOND, end_of(&client, Instant::now())).await.unwrap();
    assert_eq!(error, ConnectionError::TimedOut);
    // And some for DISCONNECT, which does not get through.
    assert!((28..35).contains(&seconds), "{seconds}");
}
