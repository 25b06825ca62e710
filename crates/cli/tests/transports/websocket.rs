//! MQTT over WebSocket.

use pantala_client::{Client, Message, Options, QoS};

use crate::client::{DISCONNECT, PINGREQ, PINGRESP, V5, V311, connect, connect_with, publish};
use crate::frames::{REQUEST, Socket, binary, frame};
use crate::{client, start, start_one};

const WEBSOCKET: &str = "protocol = \"websocket\"";
const CONN_ACK: [u8; 4] = [0x20, 2, 0, 0];

#[tokio::test]
async fn our_client_speaks_through_a_websocket() {
    let (mut broker, address) = start_one("protocol = \"websocket\"\nwebsocket_path = \"/mqtt\"");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let connect = async || Client::connect(Options::new(&format!("ws://{address}/mqtt")).unwrap()).await.unwrap();
        let (receiver, sender) = (connect().await, connect().await);
        let mut messages = receiver.subscribe(("t", qos)).await.unwrap();
        for bytes in [0, 1, 100, 200, 70_000, 1_000_000] {
            let payload: Vec<u8> = (0..bytes).map(|at: u32| (at % 251) as u8).collect();
            sender.publish(Message::new("t", payload.clone()).qos(qos)).await.unwrap();
            let message = messages.recv().await.unwrap();
            assert!(*message.payload() == payload, "{bytes} bytes, {qos:?}");
        }
        sender.disconnect().await;
        receiver.disconnect().await;
    }
    broker.check();
}

#[test]
fn borders_of_frames_mean_nothing() {
    let (mut broker, address) = start_one(WEBSOCKET);
    let stream = [&connect(V311, "a")[..], &publish(V311, "t", 1, 1, &[7; 1_000]), &PINGREQ].concat();
    let answers = [&CONN_ACK[..], &[0x40, 2, 0, 1], &PINGRESP].concat();

    let mut whole = Socket::upgraded(address);
    whole.send(&binary(&stream));
    whole.expect(&answers);

    // A frame for each byte, with empty ones and Pings between.
    let mut single = Socket::upgraded(address);
    let frames: Vec<u8> = stream.iter().flat_map(|byte| [binary(&[*byte]), binary(&[])].concat()).collect();
    single.send(&frames);
    single.expect(&answers);

    let mut fragments = Socket::upgraded(address);
    fragments.send(&frame(0x02, &stream[..1]));
    for bytes in stream[1..].chunks(100) {
        fragments.send(&frame(0x00, bytes));
    }
    fragments.send(&frame(0x80, b""));
    fragments.expect(&answers);
    broker.check();
}

#[test]
fn a_client_that_does_not_wait_for_the_response_is_served() {
    let (_broker, address) = start_one(WEBSOCKET);
    let mut socket = Socket::open(address);
    socket.send(&[REQUEST.as_bytes(), &binary(&connect(V5, "a"))].concat());
    assert!(socket.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(socket.frame().unwrap().1[0], 0x20);
}

/// They were left waiting for ten seconds, and the log said no more than that CONNECT had not come.
#[test]
fn who_speaks_something_else_is_closed_at_once_and_told_apart() {
    let (broker, address) = start_one("protocol = \"websocket\"");
    let log = broker.log();
    assert!(log.contains(&format!("Listening on {address} (WebSocket, anonymous clients allowed).")), "{log}");
    for (bytes, what) in [
        (&connect(V311, "a")[..], "an MQTT client without WebSocket on a listener for WebSocket"),
        (&[0x10], "an MQTT client without WebSocket on a listener for WebSocket"),
        (&[0x16, 3, 1, 2, 0], "a TLS client on a listener without TLS"),
    ] {
        let before = broker.log().matches(what).count();
        let mut client = client::Client::open(address);
        client.send(bytes);
        // Without a response, which it would not understand.
        client.expect_closed();
        crate::process::wait_for("a line that says so", || (broker.log().matches(what).count() > before).then_some(()));
    }
    assert!(!broker.log().contains("no complete CONNECT"), "{}", broker.log());
    let shared = "protocol = \"any\"\nproxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\"]";
    let (broker, address) = start_one(shared);
    let log = broker.log();
    assert!(log.contains(&format!("Listening on {address} (PROXY, MQTT and WebSocket, anonymous")), "{log}");
}

#[test]
fn a_ping_is_answered_also_before_connect() {
    let (_broker, address) = start_one(WEBSOCKET);
    let mut socket = Socket::upgraded(address);
    socket.send(&frame(0x89, b"are you there"));
    assert_eq!(socket.frame(), Some((0x8a, b"are you there".to_vec())));
}

#[test]
fn a_disconnect_ends_with_a_close() {
    let (_broker, address) = start_one(WEBSOCKET);
    let mut socket = Socket::upgraded(address);
    socket.send(&binary(&[&connect(V311, "a")[..], &DISCONNECT].concat()));
    socket.expect(&CONN_ACK);
    socket.expect_close(1000);
}

#[test]
fn a_close_without_disconnect_publishes_the_will() {
    let (_broker, addresses) = start(
        "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\nprotocol = \"websocket\"\n\
         [[listener]]\nhost = \"127.0.0.1\"\nport = 0\n",
    );
    let mut watcher = client::Client::connect(addresses[1], V311, "watcher");
    watcher.subscribe("will", 0);
    let mut socket = Socket::upgraded(addresses[0]);
    socket.send(&binary(&connect_with(V311, "a", Some(("will", "gone")))));
    socket.expect(&CONN_ACK);
    socket.send(&frame(0x88, b"\x03\xe9leaving"));
    socket.expect_close(1001);
    watcher.expect(&publish(V311, "will", 0, 0, b"gone"));
}

/// Attacks L10 and L11.
#[test]
fn what_is_no_frame_is_closed_with_a_code_and_the_rest_goes_on() {
    let (mut broker, address) = start_one(WEBSOCKET);
    let mut steady = Socket::upgraded(address);
    steady.send(&binary(&connect(V311, "steady")));
    steady.expect(&CONN_ACK);
    for (bytes, code, words) in [
        (frame(0x81, b"text"), 1003, "a WebSocket message of text; MQTT is binary"),
        (frame(0xc2, b"x"), 1002, "a WebSocket frame with reserved bits set"),
        (vec![0x82, 1, b'x'], 1002, "a WebSocket frame without a mask"),
        (frame(0x89, &[0; 126]), 1002, "a WebSocket control frame in fragments or too long"),
        (frame(0x80, b"x"), 1002, "a fragment of a WebSocket message out of order"),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002, "a length of a WebSocket frame that is not one"),
        (vec![0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0], 1009, "a WebSocket frame that is too long"),
    ] {
        let mut socket = Socket::upgraded(address);
        socket.send(&bytes);
        socket.expect_close(code);
        broker.wait_for_log(&format!(" closed: {words}."));
    }
    // After CONNECT as well.
    let mut socket = Socket::upgraded(address);
    socket.send(&binary(&connect(V311, "a")));
    socket.expect(&CONN_ACK);
    socket.send(&frame(0x81, b"text"));
    socket.expect_close(1003);
    broker.wait_for_log("Client a disconnected: a WebSocket message of text; MQTT is binary.");
    steady.send(&binary(&PINGREQ));
    steady.expect(&PINGRESP);
    assert_eq!(broker.counter("transport_failures"), 8);
    broker.check();
}

/// Attacks L8, L12 and L13.
#[test]
fn wrong_requests_are_answered_with_their_status() {
    let (broker, address) = start_one(
        "protocol = \"websocket\"\nwebsocket_path = \"/mqtt\"\nwebsocket_origins = [\"https://app.example\"]",
    );
    let with = |line: &str| REQUEST.replacen("Host:", &format!("{line}\r\nHost:"), 1);
    for (request, status) in [
        (REQUEST.replace("Protocol: mqtt", "Protocol: chat"), 400),
        (REQUEST.replace("Version: 13", "Version: 8"), 426),
        (REQUEST.replace("Sec-WebSocket-Key", "X"), 400),
        (REQUEST.replace("GET", "POST"), 405),
        (REQUEST.replace("/mqtt", "/other"), 404),
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (with("Origin: https://evil.example"), 403),
        (with(&"X: y\r\n".repeat(1_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(65_536)), 414),
        ("GET /mqtt\r\n".to_owned(), 400),
    ] {
        let mut socket = Socket::open(address);
        socket.send(request.as_bytes());
        let head = socket.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(!socket.rest().is_empty(), "the reason");
    }
    broker.wait_for_log(" closed: pages of this origin may not connect.");
    let mut socket = Socket::open(address);
    socket.upgrade(&with("Origin: https://app.example"));
    socket.send(&binary(&connect(V311, "page")));
    socket.expect(&CONN_ACK);
}

/// Attack L13: what comes slowly, or never.
#[test]
fn a_request_and_a_connect_have_connect_seconds() {
    let (broker, addresses) = start(
        "[limits]\nconnect_seconds = 1\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\nprotocol = \"websocket\"\n",
    );
    let mut silent = Socket::open(addresses[0]);
    let mut half = Socket::open(addresses[0]);
    half.send(&REQUEST.as_bytes()[..100]);
    let mut upgraded = Socket::upgraded(addresses[0]);
    upgraded.send(&frame(0x89, b""));
    assert_eq!(upgraded.frame(), Some((0x8a, vec![])));
    assert_eq!((silent.rest(), half.rest()), (vec![], vec![]));
    upgraded.expect_close(1000);
    assert_eq!(broker.counter("connect_timeouts"), 3);
}

/// Attack L14.
#[test]
fn only_trusted_proxies_tell_by_x_forwarded_for() {
    let request = REQUEST.replacen("Host:", "X-Forwarded-For: 127.0.0.9, 192.0.2.7\r\nHost:", 1);
    let connected = |keys: &str, expected: &str| {
        let (broker, address) = start_one(&format!("{WEBSOCKET}\n{keys}"));
        let mut socket = Socket::open(address);
        socket.upgrade(&request);
        socket.send(&binary(&connect(V311, "a")));
        socket.expect(&CONN_ACK);
        broker.wait_for_log(&format!("New client connected from {expected}"));
    };
    connected("proxy_trusted = [\"127.0.0.0/8\"]", "192.0.2.7:0 as a");
    connected("proxy_trusted = [\"10.0.0.0/8\"]", "127.0.0.1:");
    connected("", "127.0.0.1:");
    // The proxy's own address need not be allowed, and the client's has to.
    connected("proxy_trusted = [\"127.0.0.1\"]\nallow_addresses = [\"192.0.2.0/24\"]", "192.0.2.7:0 as a");
    let keys = "proxy_trusted = [\"127.0.0.1\"]\ndeny_addresses = [\"192.0.2.7\"]";
    let (broker, address) = start_one(&format!("{WEBSOCKET}\n{keys}"));
    let mut socket = Socket::open(address);
    socket.send(request.as_bytes());
    assert_eq!(socket.rest(), b"");
    broker.wait_for_log("Connection from 192.0.2.7:0 closed: clients of this address are not let in.");
}

#[test]
fn a_flood_of_pings_that_are_not_read_takes_little_memory() {
    let (mut broker, address) = start_one(WEBSOCKET);
    let mut socket = Socket::upgraded(address);
    socket.send(&binary(&connect(V311, "a")));
    socket.expect(&CONN_ACK);
    let before = broker.peak_bytes();
    // Nothing of the answers is read, until the broker takes no more.
    socket.stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let pings = frame(0x89, &[7; 125]);
    for _ in 0..1_000_000 {
        if std::io::Write::write_all(&mut socket.stream, &pings).is_err() {
            break;
        }
    }
    assert!(broker.peak_bytes() < before + (8 << 20), "{before} {}", broker.peak_bytes());
    broker.check();
}

/// A client that is told 1001 knows that it can come back: the broker goes, and nothing was wrong with the connection.
#[test]
fn a_stop_of_the_broker_is_going_away() {
    let (mut broker, address) = start_one(WEBSOCKET);
    let mut connected = Socket::upgraded(address);
    connected.send(&binary(&connect(V5, "a")));
    assert_eq!(connected.frame().unwrap().1[0], 0x20);
    let mut silent = Socket::upgraded(address);
    broker.signal(rustix::process::Signal::TERM);
    // Server shutting down.
    connected.expect(&[0xe0, 1, 0x8b]);
    connected.expect_close(1001);
    silent.expect_close(1001);
    drop((connected, silent));
    assert!(broker.wait().success());
}

/// Behind a proxy each client is counted by its own address, and the proxy's is nobody's.
#[test]
fn clients_behind_a_proxy_are_counted_by_x_forwarded_for() {
    for protocol in ["websocket", "any"] {
        let (broker, addresses) = start(&format!(
            "[broker]\nworkers = 1\n[limits]\nconnections_per_address_max = 1\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n\
             protocol = \"{protocol}\"\nproxy_trusted = [\"127.0.0.1\"]\n"
        ));
        let from = |address: &str| {
            let mut socket = Socket::open(addresses[0]);
            socket.send(REQUEST.replacen("Host:", &format!("X-Forwarded-For: {address}\r\nHost:"), 1).as_bytes());
            socket
        };
        let mut first = from("203.0.113.1");
        assert!(first.head().starts_with("HTTP/1.1 101 "));
        // It is counted before it has said a word of MQTT.
        assert_eq!(from("203.0.113.1").rest(), b"");
        broker.wait_for_log("Connection from 203.0.113.1:0 closed: connections_per_address_max is 1.");
        let mut other = from("2001:db8::1");
        assert!(other.head().starts_with("HTTP/1.1 101 "));
        for (socket, name) in [(&mut first, "first"), (&mut other, "other")] {
            socket.send(&binary(&connect(V311, name)));
            socket.expect(&CONN_ACK);
        }
        // Whom a proxy says nothing about is the proxy, on this machine.
        let local: Vec<_> = (0..3).map(|_| Socket::upgraded(addresses[0])).collect();
        assert_eq!(broker.counter("connections_refused_address"), 1);
        drop(local);
    }
}

#[test]
fn the_log_tells_of_websockets_where_that_is_asked_for() {
    let (broker, addresses) = start(
        "[log]\ntypes = [\"notice\", \"information\", \"websockets\"]\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n\
         protocol = \"websocket\"\n",
    );
    let address = addresses[0];
    let mut socket = Socket::upgraded(address);
    let local = socket.stream.local_addr().unwrap();
    broker.wait_for_log(&format!("WebSocket of {local} accepted, subprotocol mqtt.\n"));
    socket.send(&binary(&connect(V311, "sensor")));
    socket.expect(&CONN_ACK);
    socket.send(&frame(0x88, b"\x03\xe9leaving"));
    broker.wait_for_log("WebSocket of sensor closed by the client with 1001.\n");
    let mut text = Socket::upgraded(address);
    text.send(&binary(&connect(V311, "browser")));
    text.expect(&CONN_ACK);
    text.send(&frame(0x81, b"hello"));
    broker.wait_for_log("WebSocket of browser closed with 1003: a WebSocket message of text; MQTT is binary.\n");
    let mut leaving = Socket::upgraded(address);
    leaving.send(&binary(&[&connect(V311, "a")[..], &DISCONNECT].concat()));
    broker.wait_for_log("closed with 1000: all is done.\n");
    let mut refused = Socket::open(address);
    refused.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let local = refused.stream.local_addr().unwrap();
    broker.wait_for_log(&format!("WebSocket of {local} refused: "));
    broker.signal(rustix::process::Signal::TERM);
    // By default there are no such lines.
    let (broker, address) = start_one(WEBSOCKET);
    let mut socket = Socket::upgraded(address);
    socket.send(&binary(&connect(V311, "sensor")));
    broker.wait_for_log("New client connected");
    assert!(!broker.log().contains("WebSocket of"), "{}", broker.log());
}
