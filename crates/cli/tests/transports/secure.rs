//! WebSocket through TLS, and one port for all four.

use crate::client::{V311, connect};
use crate::frames::{REQUEST, Socket, binary};
use crate::tls_client::{Client, TlsBroker};

const CONN_ACK: [u8; 4] = [0x20, 2, 0, 0];
const CERTIFICATES: &str = "tls_client_ca_files = [\"ca.pem\"]";

/// Sends a request through TLS; the first line of the response.
fn request(client: &mut Client, request: &str) -> String {
    client.send(request.as_bytes());
    head(client).lines().next().unwrap().to_owned()
}

fn head(client: &mut Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        std::io::Read::read_exact(client.tls(), &mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn speak_websocket(mut client: Client, client_id: &str) {
    assert_eq!(request(&mut client, REQUEST), "HTTP/1.1 101 Switching Protocols");
    client.send(&binary(&connect(V311, client_id)));
    client.expect(&[&[0x82, 4][..], &CONN_ACK].concat());
    client.send(&binary(&[0xc0, 0]));
    client.expect(&[0x82, 2, 0xd0, 0]);
}

/// With the ALPN protocol of browsers.
fn as_browser(running: &TlsBroker) -> Client {
    let mut config = running.trusting(None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Client::open(running.tls, config).unwrap()
}

#[test]
fn websocket_through_tls() {
    let running = TlsBroker::start("protocol = \"websocket\"", "");
    speak_websocket(as_browser(&running), "browser");
    // The end is a Close within TLS.
    let mut client = as_browser(&running);
    request(&mut client, REQUEST);
    client.send(&binary(&[&connect(V311, "a")[..], &[0xe0, 0]].concat()));
    client.expect(&[&[0x82, 4][..], &CONN_ACK, &[0x88, 2, 0x03, 0xe8]].concat());
    let mut rest = Vec::new();
    assert_eq!(std::io::Read::read_to_end(client.tls(), &mut rest).unwrap(), 0, "and close_notify behind it");
}

/// They were served in plain text beside it, though the pages said TLS only.
#[test]
fn mqtt_and_websocket_through_tls_share_a_port_and_nothing_gets_round_it() {
    let running = TlsBroker::start("protocol = \"any\"", "");
    running.connect(None).connect_mqtt("tls").ping();
    speak_websocket(as_browser(&running), "websocket-tls");
    const OTHER: &str = "a client without TLS (HTTP, SSH or a PROXY header) on a TLS listener";
    for (bytes, words) in [
        (connect(V311, "a"), "a plain MQTT client on a TLS listener"),
        (REQUEST.as_bytes().to_vec(), OTHER),
        (b"SSH-2.0-x".to_vec(), OTHER),
    ] {
        let mut client = crate::client::Client::open(running.tls);
        // The first byte is enough.
        client.send(&bytes[..1]);
        client.send(&bytes[1..]);
        client.rest();
        running.broker.wait_for_log(&format!(" closed: {words}."));
    }
    assert!(!running.broker.log().contains("WebSocket of"));
}

#[test]
fn where_it_is_asked_for_mqtt_and_websocket_with_and_without_tls_share_a_port() {
    let mut running = TlsBroker::start("protocol = \"any\"\nallow_plain_text = true", "");
    running.connect(None).connect_mqtt("tls").ping();
    speak_websocket(as_browser(&running), "websocket-tls");
    crate::client::Client::connect(running.tls, V311, "plain");
    let mut websocket = Socket::upgraded(running.tls);
    websocket.send(&binary(&connect(V311, "websocket")));
    websocket.expect(&CONN_ACK);
    // A ClientHello in parts is one all the same.
    let mut half = crate::client::Client::open(running.tls);
    half.send(&[0x16]);
    half.send(&[0x03, 0x01, 0, 5]);
    half.send(b"wrong");
    half.rest();
    running.broker.wait_for_log(" closed: TLS: ");
    running.broker.check();
}

/// Nobody gets round a certificate by leaving TLS out.
#[test]
fn where_certificates_are_required_a_shared_port_takes_nobody_without() {
    // One that is to name its user is required, whatever else is said.
    for more in ["", "tls_require_certificate = false\nuser_name_from_certificate = \"cn\""] {
        let running = TlsBroker::start(&format!("protocol = \"any\"\n{CERTIFICATES}\n{more}"), "");
        for bytes in [connect(V311, "a"), REQUEST.as_bytes().to_vec(), b"SSH-2.0-x".to_vec()] {
            let mut client = crate::client::Client::open(running.tls);
            client.send(&bytes);
            client.rest();
        }
        running.broker.wait_for_log(" closed: a plain MQTT client on a TLS listener.");
        running.connect(Some(&running.authority.client("sensor", 1))).connect_mqtt("a").ping();
    }
    // Where it need not be there, it need not be there without TLS either, if that is asked for.
    let keys = format!("protocol = \"any\"\nallow_plain_text = true\n{CERTIFICATES}\ntls_require_certificate = false");
    let running = TlsBroker::start(&keys, "");
    crate::client::Client::connect(running.tls, V311, "plain");
}

/// Attack L12: a page somewhere else whose browser has the user's certificate.
#[test]
fn where_a_certificate_is_enough_other_pages_are_refused() {
    let keys = format!("protocol = \"websocket\"\n{CERTIFICATES}");
    const NAMED: &str = "user_name_from_certificate = \"cn\"";
    for (more, origin, status) in [
        ("", "https://evil.example", "403 Forbidden"),
        ("tls_require_certificate = false", "https://evil.example", "403 Forbidden"),
        (NAMED, "https://evil.example", "403 Forbidden"),
        (NAMED, "https://localhost", "101 Switching Protocols"),
        ("", "https://localhost", "101 Switching Protocols"),
        ("websocket_origins = [\"https://app.example\"]", "https://localhost", "403 Forbidden"),
        ("websocket_origins = [\"https://app.example\"]", "https://app.example", "101 Switching Protocols"),
        ("websocket_origins = []", "https://evil.example", "101 Switching Protocols"),
    ] {
        let running = TlsBroker::start(&format!("{keys}\n{more}"), "");
        let mut config = running.trusting(Some(&running.authority.client("ann", 1)));
        config.alpn_protocols = Vec::new();
        let mut client = Client::open(running.tls, config).unwrap();
        let wanted = REQUEST.replacen("Host:", &format!("Origin: {origin}\r\nHost:"), 1);
        assert_eq!(request(&mut client, &wanted), format!("HTTP/1.1 {status}"), "{more} {origin}");
    }
}
