//! The scripted broker.

use std::panic::AssertUnwindSafe;
use std::task::Poll;
use std::time::Duration;

use pantala_client::mock::{End, MockBroker};
use pantala_proto::{AcknowledgementKind, Packet, PacketId, PacketType, ProtocolVersion, ReasonCode};

use crate::raw::{self, Raw};

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// What a future panics with.
async fn panic_of<T>(future: impl Future<Output = T>) -> String {
    let mut future = Box::pin(future);
    let caught =
        std::future::poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(_)) => Poll::Ready(None),
            Err(payload) => {
                let literal = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                Poll::Ready(payload.downcast_ref::<String>().cloned().or(literal))
            }
        });
    caught.await.expect("a panic with a message")
}

#[tokio::test]
async fn a_dialogue_is_read_and_written_packet_by_packet() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    client.send(&raw::connect("c")).await;
    let mut peer = broker.accept().await;
    let connect = peer.expect_connect().await;
    assert_eq!(connect.connect().client_id, "c");
    assert_eq!(
        (connect.connection(), connect.version(), peer.version()),
        (1, ProtocolVersion::V5, ProtocolVersion::V5)
    );
    peer.conn_ack(true, ReasonCode::Success).await;
    client.expect(&raw::RESUMED).await;

    client.send(&[raw::subscribe(7, "a/+", 1), raw::publish(0b0010, "a/b", 8, "x")].concat()).await;
    let filters: Vec<String> =
        peer.expect_subscribe().await.subscribe().filters.iter().map(|(filter, _)| filter.to_owned()).collect();
    assert_eq!(filters, ["a/+"]);
    peer.sub_ack(id(7), &[ReasonCode::GrantedQoS1]).await;
    client.expect(&[0x90, 4, 0, 7, 0, 1]).await;
    let publish = peer.expect(|packet| matches!(packet, Packet::Publish(it) if it.payload == b"x")).await;
    assert_eq!(publish.publish().topic_name, "a/b");
    assert_eq!(publish.bytes().as_ref(), raw::publish(0b0010, "a/b", 8, "x"));
    peer.acknowledge(AcknowledgementKind::PubAck, id(8), ReasonCode::Success).await;
    client.expect(&raw::ack(0x40, 8)).await;

    client.send(&[0xc0, 0]).await;
    peer.expect_ping_req().await;
    peer.send(&Packet::PingResp).await;
    client.expect(&[0xd0, 0]).await;
    peer.send_bytes(&[0xff, 0x00, 0x80]).await;
    client.expect(&[0xff, 0x00, 0x80]).await;

    client.send(&[0xe0, 0]).await;
    peer.expect_disconnect().await;
    drop(client);
    assert_eq!(peer.expect_end().await, End::Closed);
    assert_eq!(peer.bytes().len(), 16 + 11 + 11 + 2 + 2);
}

#[tokio::test]
async fn packets_are_spoken_in_the_version_of_connect() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    client.send(&raw::connect_with(4, 0b10, 0, &[], "c")).await;
    let mut peer = broker.accept().await;
    peer.expect_connect().await;
    assert_eq!(peer.version(), ProtocolVersion::V311);
    peer.conn_ack(false, ReasonCode::NotAuthorized).await;
    client.expect(&[0x20, 2, 0, 5]).await;
    client.send(b"\x32\x06\x00\x01t\x00\x01!").await;
    assert_eq!(peer.expect_publish().await.publish().payload, b"!");
}

#[tokio::test]
async fn packets_come_in_any_pieces() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    let mut peer = broker.accept().await;
    for byte in raw::connect("c") {
        client.send(&[byte]).await;
        assert_eq!(peer.expect_bytes(1).await, [byte]);
    }
    let bytes = raw::publish(0, "t", 0, "x");
    client.send(&bytes[..3]).await;
    let mut expecting = Box::pin(peer.expect_publish());
    // Cancelled in the middle of the packet: nothing is lost.
    std::future::poll_fn(|cx| {
        assert!(expecting.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(expecting);
    client.send(&bytes[3..]).await;
    assert_eq!(peer.expect_publish().await.publish().payload, b"x");
}

#[tokio::test]
async fn closing_delivers_what_was_sent_and_resetting_resets() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    client.send(&raw::connect("c")).await;
    let mut peer = broker.accept().await;
    peer.conn_ack(false, ReasonCode::ServerBusy).await;
    // With the CONNECT unread, which alone would make it a reset.
    peer.close().await;
    assert_eq!(client.rest().await, (vec![0x20, 3, 0, 0x89, 0], false));

    let mut client = Raw::open(broker.url()).await;
    broker.accept().await.reset();
    assert_eq!(client.rest().await, (vec![], true));
}

#[tokio::test]
async fn a_reset_by_the_client_is_told_from_a_close() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    let mut peer = broker.accept().await;
    client.stream().set_zero_linger().unwrap();
    drop(client);
    assert_eq!(peer.expect_end().await, End::Reset);
    assert_eq!(peer.next_packet().await, None);
}

#[tokio::test]
async fn a_peer_that_stops_reading_blocks_the_client() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    let mut peer = broker.accept().await;
    peer.stop_reading();
    let chunk = [0; 64 * 1_024];
    let mut written = 0_usize;
    client.stream().writable().await.unwrap();
    // Until the kernel has no room any more.
    while let Ok(count) = client.stream().try_write(&chunk) {
        written += count;
        assert!(written < 64 * 1_024 * 1_024, "nothing blocks");
    }
    let text = panic_of(peer.next_packet()).await;
    assert!(text.contains("stopped to read"), "{text}");
    peer.resume_reading();
    assert_eq!(peer.expect_bytes(written).await.len(), written);
}

#[tokio::test]
async fn two_that_only_write_do_not_wait_for_each_other_for_ever() {
    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    let mut peer = broker.accept().await;
    let much = vec![0xd0; 8 * 1_024 * 1_024];
    // The client reads nothing until all of its bytes are out.
    let of_client = much.clone();
    let client = tokio::spawn(async move {
        client.send(&of_client).await;
        client.expect(&of_client).await;
    });
    peer.send_bytes(&much).await;
    assert_eq!(peer.expect_bytes(much.len()).await.len(), much.len());
    client.await.unwrap();
}

#[tokio::test]
async fn a_failed_expectation_tells_where_and_what_came_instead() {
    let broker = MockBroker::listen().await.with_patience(Duration::ZERO);
    assert!(panic_of(broker.accept()).await.contains("expected a connection"));

    let broker = MockBroker::listen().await;
    let mut client = Raw::open(broker.url()).await;
    client.send(&[raw::connect("c"), vec![0xc0, 0]].concat()).await;
    let mut peer = broker.accept().await;
    peer.expect_connect().await;
    let text = panic_of(peer.expect_publish()).await;
    for part in ["scripted.rs:", "expected PUBLISH, and PingReq came", "packets before:", "client_id: \"c\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    client.send(&[0x36, 0, 0]).await;
    drop(client);
    let text = panic_of(peer.expect_end()).await;
    assert!(text.contains("expected the end of the connection, and a malformed packet came"), "{text}");
    assert!(text.contains("unread is 360000"), "{text}");
}

/// The clock of tokio jumps to the next timer while bytes are on their way: waiting by it would fail at once.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_end_the_patience() {
    let broker = MockBroker::listen().await;
    let address = broker.address();
    let client = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(&raw::connect("c")).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        stream.write_all(&[0xc0, 0]).unwrap();
        answer
    });
    let mut peer = broker.accept().await;
    peer.expect_connect().await;
    peer.conn_ack(false, ReasonCode::Success).await;
    assert_eq!(peer.next_packet().await.map(|packet| packet.packet_type()), Some(PacketType::PingReq));
    assert_eq!(client.join().unwrap(), raw::CONNECTED);
}
