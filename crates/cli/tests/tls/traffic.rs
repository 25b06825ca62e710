//! MQTT through TLS: whole, in order, and with an end that is one.

use std::net::Shutdown;
use std::thread;

use crate::client::{Client, TlsBroker, connect, publish};

/// Clients of all workers hear each other, whoever has a certificate of its own or none.
#[test]
fn messages_pass_between_tls_and_plain_clients() {
    let running = TlsBroker::start("", "[broker]\nworkers = 3");
    let mut clients: Vec<Client> =
        (0..12).map(|number| running.connect(None).connect_mqtt(&format!("c{number}"))).collect();
    clients.push(running.plain().connect_mqtt("plain"));
    for client in &mut clients {
        client.subscribe("t", 0);
    }
    for sender in [0, 12] {
        let message = publish("t", None, &[b'0' + sender as u8; 300]);
        clients[sender].send(&message);
        for client in &mut clients {
            client.expect(&message);
        }
    }
    assert_eq!(running.broker.counter("tls_handshakes"), 12);
    let log = running.broker.log();
    assert!(log.contains(&format!("Listening on {} (TLS, anonymous clients allowed)", running.tls)), "{log}");
}

/// Messages of many records, more than the sockets hold, to a client that reads late: nothing is lost or out of order, and what
/// waits is counted where it is without TLS.
#[test]
fn large_messages_to_a_slow_reader() {
    let running = TlsBroker::start("", "");
    let (mut reader, mut writer) = (running.connect(None).connect_mqtt("r"), running.connect(None).connect_mqtt("w"));
    reader.subscribe("t", 0);
    let messages: Vec<Vec<u8>> =
        (0..40_u8).map(|number| publish("t", None, &vec![number; if number % 4 == 0 { 7 } else { 200_000 }])).collect();
    for message in &messages {
        writer.send(message);
    }
    writer.ping();
    for message in &messages {
        reader.expect(message);
    }
    reader.ping();
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let running = TlsBroker::start("", "[limits]\nwrite_stall_seconds = 1\n[broker]\nworkers = 1");
    let (mut reader, mut writer) = (running.connect(None).connect_mqtt("r"), running.connect(None).connect_mqtt("w"));
    reader.subscribe("t", 0);
    let message = publish("t", None, &vec![7; 500_000]);
    // Enough for the buffers of both sockets.
    for _ in 0..30 {
        writer.send(&message);
        writer.ping();
    }
    running.broker.wait_for_log("Client r disconnected: the client does not read");
    writer.ping();
}

/// A Will goes out unless DISCONNECT was said: close_notify is none, and its absence changes nothing.
#[test]
fn wills_of_clients_that_vanish() {
    let running = TlsBroker::start("", "");
    let mut watcher = running.plain().connect_mqtt("watcher");
    watcher.subscribe("w", 0);
    let gone = publish("w", None, b"gone");
    let with_will = |name: &str| {
        let mut client = running.connect(None);
        client.send(&connect(name, Some("w")));
        client.expect(&[0x20, 2, 0, 0]);
        client
    };
    // The stream is cut off, in the middle of nothing.
    let client = with_will("cut");
    client.socket().shutdown(Shutdown::Write).unwrap();
    watcher.expect(&gone);
    // The stream ends as it should, the Session does not.
    let mut client = with_will("close-notify");
    let stream = client.tls();
    stream.conn.send_close_notify();
    stream.conn.complete_io(&mut stream.sock).unwrap();
    watcher.expect(&gone);
    // Both, in one packet of the network.
    let mut client = with_will("disconnect");
    let stream = client.tls();
    std::io::Write::write_all(&mut stream.conn.writer(), &[0xe0, 0]).unwrap();
    stream.conn.send_close_notify();
    stream.conn.complete_io(&mut stream.sock).unwrap();
    assert!(client.is_closed());
    running.broker.wait_for_log("Client disconnect disconnected.");
    let mut other = running.plain().connect_mqtt("other");
    other.send(&publish("w", None, b"alive"));
    watcher.expect(&publish("w", None, b"alive"));
}

/// Our own last words come through, and close_notify behind them.
#[test]
fn the_end_of_the_broker_is_told() {
    let mut running = TlsBroker::start("", "");
    let mut client = running.connect(None);
    // MQTT 5, which is told why.
    client.send(&[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 1, b'a']);
    let (first, _) = client.packet();
    assert_eq!(first, 0x20);
    running.broker.signal(rustix::process::Signal::TERM);
    let (first, body) = client.packet();
    assert_eq!((first, body[0]), (0xe0, 0x8b));
    let stream = client.tls();
    // An end without close_notify would be an error.
    let mut rest = Vec::new();
    assert_eq!(std::io::Read::read_to_end(stream, &mut rest).unwrap(), 0);
    drop(client);
    assert!(running.broker.wait().success());
}

/// Many handshakes at the same time, from several threads, on connections that move between workers.
#[test]
fn many_handshakes_at_once() {
    let running = TlsBroker::start("", "[broker]\nworkers = 2");
    thread::scope(|scope| {
        for number in 0..4 {
            let running = &running;
            scope.spawn(move || {
                let config = running.trusting(None);
                for round in 0..25 {
                    let client = Client::open(running.tls, config.clone()).unwrap();
                    client.connect_mqtt(&format!("c{number}-{round}")).ping();
                }
            });
        }
    });
    assert_eq!(running.broker.counter("tls_handshakes"), 100);
    assert_eq!(running.broker.counter("tls_handshakes_resumed"), 96, "all but the first of each thread");
}

/// A header of the PROXY protocol stands in front of TLS, and what it tells and what the certificate tells are known together.
#[test]
fn a_proxy_in_front_of_tls() {
    let listener = "proxy_protocol = \"v1\"\nproxy_trusted = [\"127.0.0.1\"]\ntls_client_ca_files = [\"ca.pem\"]\n\
         user_name_from_certificate = \"cn\"";
    let running = TlsBroker::start(listener, "");
    let config = running.trusting(Some(&running.authority.client("sensor-7", 7)));
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.8 49152 8883\r\n";
    let client = Client::open_behind(header, running.tls, config.clone(), "localhost").unwrap();
    client.connect_mqtt("a").ping();
    let log = running.broker.wait_for_log("New client connected");
    assert!(log.contains("New client connected from 192.0.2.7:49152 as a ") && log.contains(", usensor-7)."), "{log}");
    // Without one nothing is taken, TLS or not.
    assert!(Client::open(running.tls, config).is_err());
}

/// A listener behind a proxy that passes TLS on asks for certificates of its own: the address is what the header tells, and who the
/// client is says the certificate alone, whatever the header has of another one.
#[test]
fn a_certificate_behind_a_header_of_version_2() {
    let listener = "proxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\"]\ntls_client_ca_files = [\"ca.pem\"]\n\
         tls_require_certificate = true\nuser_name_from_certificate = \"cn\"\nallow_anonymous = false";
    let running = TlsBroker::start(listener, "");
    // 203.0.113.7:49152, and the proxy has verified a certificate for \"proxied\" on its own side.
    let name = b"\x22\0\x07proxied";
    let tls = [&[0x20, 0, 15, 0x07, 0, 0, 0, 0][..], name].concat();
    let addresses = [203, 0, 113, 7, 10, 0, 0, 1, 0xc0, 0x00, 0x22, 0xb3];
    let header = |values: &[u8]| {
        let length = (addresses.len() + values.len()) as u8;
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", &[length][..], &addresses, values].concat()
    };
    let own = running.authority.client("sensor-7", 7);
    for values in [&[][..], &tls] {
        let client = Client::open_behind(&header(values), running.tls, running.trusting(Some(&own)), "localhost");
        client.unwrap().connect_mqtt("a").ping();
    }
    let log = running.broker.wait_for_log("New client connected");
    assert!(
        log.contains("New client connected from 203.0.113.7:49152 as a ") && log.contains(", usensor-7)."),
        "{log}"
    );
    assert!(!log.contains("proxied"), "{log}");
    // What the proxy says of a certificate is no certificate here.
    if let Ok(mut client) = Client::open_behind(&header(&tls), running.tls, running.trusting(None), "localhost") {
        assert!(client.is_closed());
    }
    running.broker.wait_for_log(
        "Connection from 203.0.113.7:49152 closed: TLS: the client has no certificate, and this listener requires one.",
    );
}

/// A tool that has what went over the wire can read it with this file.
#[test]
fn secrets_go_to_a_file_where_that_is_asked_for() {
    let running = TlsBroker::start_with_arguments("", &["--tls-keylog", "keys"]);
    running.broker.wait_for_log("Warning: the secrets of TLS connections are written to keys: ");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(running.path("keys")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = running.trusting_versions(&[version]);
        Client::open(running.tls, config).unwrap().connect_mqtt("a").ping();
    }
    let text = std::fs::read_to_string(running.path("keys")).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    for (label, secret_bytes) in [
        ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", 48),
        ("SERVER_HANDSHAKE_TRAFFIC_SECRET", 48),
        ("CLIENT_TRAFFIC_SECRET_0", 48),
        ("SERVER_TRAFFIC_SECRET_0", 48),
        ("CLIENT_RANDOM", 48),
    ] {
        let line = lines.iter().find(|line| line[0] == label).unwrap_or_else(|| panic!("{label}: {text}"));
        let hexadecimal = |text: &str, bytes: usize| {
            text.len() == 2 * bytes && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
        };
        assert!(line.len() == 3 && hexadecimal(line[1], 32) && hexadecimal(line[2], secret_bytes), "{line:?}");
    }
    // The secrets of one handshake have the random bytes of its ClientHello.
    let of = |label: &str| lines.iter().find(|line| line[0] == label).map(|line| line[1]);
    assert_eq!(of("CLIENT_HANDSHAKE_TRAFFIC_SECRET"), of("SERVER_TRAFFIC_SECRET_0"));
    assert_ne!(of("CLIENT_RANDOM"), of("SERVER_TRAFFIC_SECRET_0"));
}

#[test]
fn a_broker_that_cannot_write_secrets_does_not_start() {
    let folder = crate::process::Folder::new();
    std::os::unix::fs::symlink("/dev/null", folder.path("link")).unwrap();
    let mut broker = crate::process::Broker::with_arguments(folder, &["-p", "0", "--tls-keylog", "link"]);
    assert_eq!(broker.wait().code(), Some(1));
    assert!(broker.log().contains("cannot write TLS secrets to link: "), "{}", broker.log());
}
