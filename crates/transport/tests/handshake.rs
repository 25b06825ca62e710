//! Requests to upgrade: what is granted, what is refused with which status, and that cuts change nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::net::IpAddr;

use pantala_transport::websocket::{
    HEADERS_MAX, Handshake, Options, Origins, REQUEST_BYTES_MAX, REQUEST_LINE_BYTES_MAX, Refusal, Subprotocol, Upgrade,
};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker.example:9001\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

fn receive(options: &Options, peer: Option<IpAddr>, request: &[u8]) -> Result<Option<(Upgrade, usize)>, Refusal> {
    let whole = Handshake::default().receive(options, peer, request);
    for step in [1, 2, 7, 100] {
        let mut handshake = Handshake::default();
        let mut result = Ok(None);
        for (part, chunk) in request.chunks(step).enumerate() {
            result =
                handshake.receive(options, peer, chunk).map(|done| done.map(|(up, used)| (up, part * step + used)));
            if result != Ok(None) {
                break;
            }
        }
        assert_eq!(result, whole, "in parts of {step}");
    }
    whole
}

fn refusal(request: impl AsRef<[u8]>) -> Option<Refusal> {
    receive(&Options::default(), None, request.as_ref()).err()
}

fn granted(options: &Options, peer: Option<&str>, request: &str) -> Upgrade {
    let peer = peer.map(|peer| peer.parse().unwrap());
    let (upgrade, used) = receive(options, peer, request.as_bytes()).unwrap().expect("the request is whole");
    assert_eq!(used, request.len());
    upgrade
}

/// The request with a line more.
fn with(line: &str) -> String {
    REQUEST.replacen("Host:", &format!("{line}\r\nHost:"), 1)
}

/// The request without the line that begins so.
fn without(name: &str) -> String {
    let lines: Vec<&str> = REQUEST.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect();
    assert_eq!(lines.concat().matches("\r\n").count() + 1, REQUEST.matches("\r\n").count(), "{name}");
    lines.concat()
}

/// The request with one thing in another's place.
fn changed(from: &str, to: &str) -> String {
    assert!(REQUEST.contains(from), "{from}");
    REQUEST.replacen(from, to, 1)
}

#[test]
fn a_browsers_request_is_granted() {
    let upgrade = granted(&Options::default(), None, REQUEST);
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    assert_eq!(String::from_utf8(upgrade.response).unwrap(), expected);
    assert_eq!((upgrade.subprotocol, upgrade.forwarded_for), (Subprotocol::Mqtt, None));
}

#[test]
fn frames_may_follow_the_request_at_once() {
    let stream = [REQUEST.as_bytes(), &[0x82, 0x80, 0, 0, 0, 0]].concat();
    let (_, used) = receive(&Options::default(), None, &stream).unwrap().unwrap();
    assert_eq!(used, REQUEST.len());
}

#[test]
fn what_other_clients_write_differently_is_granted() {
    for request in [
        changed("Host: broker.example:9001", "hOST:broker.example:9001"),
        changed("/mqtt", "/mqtt?token=x"),
        changed("/mqtt", "ws://broker.example/mqtt"),
        changed("keep-alive, Upgrade", "upgrade"),
        changed("Connection: keep-alive, Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        changed("Upgrade: WebSocket", "Upgrade: h2c, websocket"),
        with("Cookie: é"),
        with("X-Empty:"),
        with("Content-Length: 0"),
        with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        with("Origin: https://anybody.example"),
    ] {
        let options = Options { path: Some("/mqtt".into()), ..Options::default() };
        granted(&options, None, &request);
    }
}

#[test]
fn the_first_subprotocol_that_we_speak_is_chosen() {
    for (offer, chosen) in [
        ("mqtt, mqttv3.1", Subprotocol::Mqtt),
        ("mqttv3.1, mqtt", Subprotocol::MqttV31),
        ("mqttv3.1", Subprotocol::MqttV31),
        ("chat,mqtt", Subprotocol::Mqtt),
        ("chat\r\nSec-WebSocket-Protocol: mqtt", Subprotocol::Mqtt),
    ] {
        let request = changed("Protocol: mqtt", &format!("Protocol: {offer}"));
        let upgrade = granted(&Options::default(), None, &request);
        assert_eq!(upgrade.subprotocol, chosen, "{offer}");
        let header = format!("\r\nSec-WebSocket-Protocol: {}\r\n\r\n", chosen.name());
        assert!(upgrade.response.ends_with(header.as_bytes()), "{offer}");
    }
}

/// Attacks L8 and L13.
#[test]
fn wrong_requests_are_refused() {
    for (request, expected, status) in [
        (without("Sec-WebSocket-Protocol"), Refusal::Subprotocol, 400),
        (changed("Protocol: mqtt", "Protocol: MQTT"), Refusal::Subprotocol, 400),
        (changed("Protocol: mqtt", "Protocol: mqtt5;mqtt"), Refusal::Subprotocol, 400),
        (changed("Version: 13", "Version: 8"), Refusal::WebSocketVersion, 426),
        (changed("Version: 13", "Version: 13, 8"), Refusal::WebSocketVersion, 426),
        (without("Sec-WebSocket-Version"), Refusal::WebSocketVersion, 426),
        (without("Sec-WebSocket-Key"), Refusal::Key, 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), Refusal::Key, 400),
        (changed("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), Refusal::Key, 400),
        (changed("dGhlIHNhbXBsZSBub25jZQ==", "?"), Refusal::Key, 400),
        (without("Upgrade:"), Refusal::NoUpgrade, 426),
        (without("Connection:"), Refusal::NoUpgrade, 426),
        (changed("Upgrade: WebSocket", "Upgrade: h2c"), Refusal::NoUpgrade, 426),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), Refusal::NoUpgrade, 426),
        (without("Host:"), Refusal::Host, 400),
        (with("Host: other"), Refusal::Host, 400),
        (changed("GET", "POST"), Refusal::Method, 405),
        (changed("GET", "get"), Refusal::Method, 405),
        (changed("HTTP/1.1", "HTTP/1.0"), Refusal::Version, 505),
        ("PRI * HTTP/2.0\r\n\r\n".into(), Refusal::Version, 505),
        // HTTP/0.9 has no more than this line.
        ("GET /mqtt\r\n".into(), Refusal::RequestLine, 400),
        ("GET /mqtt\n".into(), Refusal::RequestLine, 400),
        (changed("GET /mqtt", "GET  /mqtt"), Refusal::RequestLine, 400),
        (changed("/mqtt", "mqtt"), Refusal::RequestLine, 400),
        (changed("/mqtt", "ftp://x/mqtt"), Refusal::RequestLine, 400),
        (changed("/mqtt", "/mq\0tt"), Refusal::RequestLine, 400),
        (changed("HTTP/1.1\r\n", "HTTP/1.1\n"), Refusal::RequestLine, 400),
        (changed("HTTP/1.1", "HTTP/1.1x"), Refusal::RequestLine, 400),
        ("\r\n".to_owned() + REQUEST, Refusal::RequestLine, 400),
        // What two readers could take for two requests.
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked"), Refusal::Body, 400),
        (with("Transfer-Encoding: identity"), Refusal::Body, 400),
        (with("Content-Length: 5"), Refusal::Body, 400),
        (with("Content-Length: 0\r\nContent-Length: 0"), Refusal::Body, 400),
        (with("Content-Length: +0"), Refusal::Body, 400),
        (with("X: a\n"), Refusal::Header, 400),
        (with("X: a\nContent-Length: 5"), Refusal::Header, 400),
        (with("X: a\rY: b"), Refusal::Header, 400),
        (with("X: a\0"), Refusal::Header, 400),
        (with("Content-Length : 0"), Refusal::Header, 400),
        (with(" folded: x"), Refusal::Header, 400),
        (with(": x"), Refusal::Header, 400),
        (with("no colon"), Refusal::Header, 400),
        (changed("\r\n\r\n", "\n\n"), Refusal::Header, 400),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(65_536)), Refusal::RequestLineTooLong, 414),
        (with(&format!("X: {}", "x".repeat(65_536))), Refusal::TooLong, 431),
        (with(&vec!["X: y"; 1_000].join("\r\n")), Refusal::TooManyHeaders, 431),
    ] {
        assert_eq!(refusal(&request), Some(expected), "{:?}", &request[..request.len().min(200)]);
        assert_eq!(expected.status(), status);
        let response = String::from_utf8(expected.response()).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{response}");
        assert!(head.contains("\r\nConnection: close"), "{response}");
        assert_eq!(status == 405, head.contains("\r\nAllow: GET"), "{response}");
        assert_eq!(status == 426, head.contains("\r\nSec-WebSocket-Version: 13"), "{response}");
    }
}

#[test]
fn a_request_of_each_greatest_size_is_granted_and_one_more_is_not() {
    let line = |bytes: usize| changed("/mqtt", &format!("/{}", "x".repeat(bytes - "GET / HTTP/1.1\r\n".len())));
    granted(&Options::default(), None, &line(REQUEST_LINE_BYTES_MAX));
    assert_eq!(refusal(line(REQUEST_LINE_BYTES_MAX + 1)), Some(Refusal::RequestLineTooLong));

    let request = |bytes: usize| with(&format!("X:{}", "x".repeat(bytes - REQUEST.len() - "X:\r\n".len())));
    assert_eq!(request(REQUEST_BYTES_MAX).len(), REQUEST_BYTES_MAX);
    granted(&Options::default(), None, &request(REQUEST_BYTES_MAX));
    assert_eq!(refusal(request(REQUEST_BYTES_MAX + 1)), Some(Refusal::TooLong));

    let own = REQUEST.matches("\r\n").count() - 2;
    let headers = |count: usize| with(&vec!["X: y"; count - own].join("\r\n"));
    granted(&Options::default(), None, &headers(HEADERS_MAX));
    assert_eq!(refusal(headers(HEADERS_MAX + 1)), Some(Refusal::TooManyHeaders));
}

#[test]
fn a_request_without_end_waits_within_its_bounds() {
    // How long it may wait is the caller's to say.
    assert_eq!(receive(&Options::default(), None, &REQUEST.as_bytes()[..REQUEST.len() - 1]), Ok(None));
    assert_eq!(receive(&Options::default(), None, b""), Ok(None));
    let info = allocation_counter::measure(|| {
        let mut handshake = Handshake::default();
        for _ in 0..REQUEST_LINE_BYTES_MAX - 1 {
            assert_eq!(handshake.receive(&Options::default(), None, b"G"), Ok(None));
        }
        assert_eq!(handshake.receive(&Options::default(), None, b"G"), Err(Refusal::RequestLineTooLong));
    });
    assert!(info.bytes_max <= 3 * REQUEST_LINE_BYTES_MAX as u64, "{info:?}");
}

#[test]
fn another_path_is_not_found() {
    let options = Options { path: Some("/mqtt".into()), ..Options::default() };
    for path in ["/", "/mqtt/", "/MQTT", "/%6dqtt", "ws://broker.example", "ws://broker.example?/mqtt"] {
        let request = changed("/mqtt", path);
        assert_eq!(receive(&options, None, request.as_bytes()), Err(Refusal::Path), "{path}");
    }
}

/// Attack L12.
#[test]
fn pages_of_other_origins_are_refused_where_a_list_says_so() {
    let listed = Origins::Listed(["https://app.example".into(), "null".into()].into());
    let own = Origins::Listed(["https://app.example".into()].into());
    for (origins, origin, welcome) in [
        (&Origins::Any, "https://evil.example", true),
        (&own, "https://app.example", true),
        (&own, "https://evil.example", false),
        (&own, "https://app.example.evil.example", false),
        (&own, "https://app.example:443", false),
        (&own, "http://app.example", false),
        (&own, "null", false),
        (&own, "https://app.example\r\nOrigin: https://app.example", false),
        (&listed, "null", true),
        (&Origins::SameHost, "http://broker.example:9001", true),
        (&Origins::SameHost, "https://Broker.example:9001", true),
        (&Origins::SameHost, "https://broker.example", false),
        (&Origins::SameHost, "https://evil.example", false),
        (&Origins::SameHost, "null", false),
    ] {
        let options = Options { origins: origins.clone(), ..Options::default() };
        let result = receive(&options, None, with(&format!("Origin: {origin}")).as_bytes());
        assert_eq!(result.is_ok(), welcome, "{origins:?} {origin}");
        if !welcome {
            assert_eq!(result, Err(Refusal::Origin));
        }
        // Other programs than browsers send none.
        granted(&options, None, REQUEST);
    }
    assert_eq!(Refusal::Origin.status(), 403);
}

/// Attack L14.
#[test]
fn only_trusted_proxies_tell_whose_connection_it_is() {
    let trusted = Options {
        trusted: ["10.0.0.0/8", "2001:db8::1"].map(|network| network.parse().unwrap()).into(),
        ..Options::default()
    };
    let nobody = Options::default();
    for (options, peer, header, expected) in [
        (&trusted, Some("10.0.0.1"), "192.0.2.7", Some("192.0.2.7")),
        (&trusted, Some("::ffff:10.0.0.1"), "192.0.2.7", Some("192.0.2.7")),
        (&trusted, Some("192.0.2.1"), "198.51.100.9", None),
        (&nobody, Some("10.0.0.1"), "192.0.2.7", None),
        (&nobody, None, "192.0.2.7", None),
        (&trusted, None, "192.0.2.7", Some("192.0.2.7")),
        // What the client itself has written stands left of what the proxy has.
        (&trusted, Some("10.0.0.1"), "127.0.0.1, 192.0.2.7", Some("192.0.2.7")),
        (&trusted, Some("10.0.0.1"), "127.0.0.1\r\nX-Forwarded-For: 192.0.2.7", Some("192.0.2.7")),
        (&trusted, Some("10.0.0.1"), "192.0.2.7, 2001:db8::1, 10.1.1.1", Some("192.0.2.7")),
        (&trusted, Some("10.0.0.1"), "10.0.0.2, 10.0.0.3", Some("10.0.0.2")),
        (&trusted, Some("10.0.0.1"), "192.0.2.7:4711", Some("192.0.2.7")),
        (&trusted, Some("10.0.0.1"), "[2001:db8::7]:4711", Some("2001:db8::7")),
        (&trusted, Some("10.0.0.1"), "[2001:db8::7]", Some("2001:db8::7")),
        (&trusted, Some("10.0.0.1"), "::ffff:192.0.2.7", Some("192.0.2.7")),
        (&trusted, Some("10.0.0.1"), "192.0.2.7, unknown", None),
        (&trusted, Some("10.0.0.1"), "", None),
    ] {
        let upgrade = granted(options, peer, &with(&format!("X-Forwarded-For: {header}")));
        assert_eq!(upgrade.forwarded_for, expected.map(|text| text.parse().unwrap()), "{peer:?} {header}");
    }
}
