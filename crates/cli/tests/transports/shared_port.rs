//! One port for several protocols.

use crate::client::{Client, V311, connect};
use crate::frames::{REQUEST, Socket, binary};
use crate::start_one;

const CONN_ACK: [u8; 4] = [0x20, 2, 0, 0];

#[test]
fn mqtt_and_websocket_share_a_port() {
    let (mut broker, address) = start_one("protocol = \"any\"");
    let mut plain = Client::connect(address, V311, "plain");
    plain.subscribe("t", 0);
    let mut websocket = Socket::upgraded(address);
    websocket.send(&binary(&[connect(V311, "websocket"), crate::client::publish(V311, "t", 0, 0, b"x")].concat()));
    websocket.expect(&CONN_ACK);
    plain.expect(&crate::client::publish(V311, "t", 0, 0, b"x"));
    // However their bytes come.
    let mut plain = Client::open(address);
    for byte in connect(V311, "plain-2") {
        plain.send(&[byte]);
    }
    plain.expect(&CONN_ACK);
    let mut websocket = Socket::open(address);
    for byte in &REQUEST.as_bytes()[..REQUEST.len() - 1] {
        websocket.send(&[*byte]);
    }
    websocket.upgrade(&REQUEST[REQUEST.len() - 1..]);
    websocket.send(&binary(&connect(V311, "websocket-2")));
    websocket.expect(&CONN_ACK);
    broker.check();
}

#[test]
fn what_is_neither_is_closed_with_a_word_in_the_log() {
    let (mut broker, address) = start_one("protocol = \"any\"");
    for (bytes, words) in [
        (&b"\x16\x03\x01\x02\0\x01"[..], "a TLS client on a plain listener"),
        (b"SSH-2.0-x\r\n", "an SSH client on an MQTT listener"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 1\r\n", "a PROXY header, which this listener does not take"),
        (b"\x30\x04\0\x01tx", "the first packet is not CONNECT"),
    ] {
        let mut client = Client::open(address);
        client.send(bytes);
        client.expect_closed();
        broker.wait_for_log(&format!(" closed: {words}."));
    }
    // A plain HTTP request gets an answer in its own words.
    let mut socket = Socket::open(address);
    socket.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(socket.head().starts_with("HTTP/1.1 426 "));
    broker.check();
}

#[test]
fn a_proxy_header_stands_before_either() {
    let (broker, address) = start_one("protocol = \"any\"\nproxy_protocol = \"v1\"\nproxy_trusted = [\"127.0.0.1\"]");
    let line = "PROXY TCP4 192.0.2.7 10.0.0.1 49152 1883\r\n";
    let mut plain = Client::open(address);
    plain.send(&[line.as_bytes(), &connect(V311, "plain")].concat());
    plain.expect(&CONN_ACK);
    broker.wait_for_log("New client connected from 192.0.2.7:49152 as plain");
    let mut websocket = Socket::open(address);
    websocket.upgrade(&format!("{line}{REQUEST}"));
    websocket.send(&binary(&connect(V311, "websocket")));
    websocket.expect(&CONN_ACK);
    broker.wait_for_log("New client connected from 192.0.2.7:49152 as websocket");
}

/// A trusted proxy that passes MQTT on without telling whose is not let in by the trust.
#[test]
fn a_trusted_proxy_does_not_lead_past_the_list() {
    let (broker, address) =
        start_one("protocol = \"any\"\nproxy_trusted = [\"127.0.0.1\"]\nallow_addresses = [\"192.0.2.0/24\"]");
    let mut plain = Client::open(address);
    plain.send(&connect(V311, "plain"));
    plain.expect_closed();
    let mut websocket = Socket::open(address);
    websocket.send(REQUEST.as_bytes());
    assert_eq!(websocket.rest(), b"");
    assert_eq!(broker.counter("transport_failures"), 2);
}
