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
