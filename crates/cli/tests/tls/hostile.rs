//! Clients that do not mean well, or speak something else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, NamedGroup, StreamOwned};

use crate::client::{Client, TlsBroker, connect};
use crate::process::{PATIENCE, wait_for};

fn raw(running: &TlsBroker) -> TcpStream {
    let socket = TcpStream::connect(running.tls).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end, too.
    drop(socket.read_to_end(&mut rest));
    rest
}

fn client_hello(running: &TlsBroker) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(running.trusting(None)), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn the_wrong_protocol_for_the_port() {
    let running = TlsBroker::start("", "");
    let mut socket = raw(&running);
    socket.write_all(&connect("a", None)).unwrap();
    // An alert, and nothing that could be taken for CONNACK.
    let answer = read_to_end(&mut socket);
    assert_eq!(answer.first(), Some(&0x15), "{answer:02x?}");
    running.broker.wait_for_log("closed: a plain MQTT client on a TLS listener.");
    let mut socket = raw(&running);
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_to_end(&mut socket);
    running.broker.wait_for_log("closed: a client without TLS (HTTP, SSH or a PROXY header) on a TLS listener.");
    assert!(Client::open(running.plain, running.trusting(None)).is_err());
    running.broker.wait_for_log("closed: a TLS client on a plain listener.");
    assert_eq!(running.broker.counter("tls_failures"), 2);
    assert_eq!(running.broker.counter("transport_failures"), 2);
    running.connect(None).connect_mqtt("b").ping();
}

/// Whoever stops in the middle of a handshake, or takes forever for it, is closed after `connect_seconds`, and costs nothing until then.
#[test]
fn handshakes_that_stop_or_crawl() {
    let running = TlsBroker::start("", "[limits]\nconnect_seconds = 2\n[broker]\nworkers = 1");
    let hello = client_hello(&running);
    let before = running.broker.cpu();
    let mut sockets: Vec<TcpStream> = (0..20).map(|_| raw(&running)).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        // Nothing at all, a byte, half a record, and a whole hello whose answer is not read.
        let said = [0, 1, hello.len() / 2, hello.len()][number % 4];
        socket.write_all(&hello[..said]).unwrap();
    }
    let mut crawler = raw(&running);
    crawler.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for byte in hello.iter().cycle() {
        // It ends with a reset, or with the end of the stream.
        if crawler.write_all(&[*byte]).is_err() || matches!(crawler.read(&mut [0; 4_096]), Ok(0)) {
            break;
        }
    }
    for socket in &mut sockets {
        read_to_end(socket);
    }
    let log = wait_for("all of them", || {
        let log = running.broker.log();
        (log.matches("no complete CONNECT in time").count() + lines_held_back(&log) >= 10).then_some(log)
    });
    assert!(!log.contains("panicked"), "{log}");
    let spent = running.broker.cpu() - before;
    assert!(spent < Duration::from_millis(500), "{spent:?} of processor time");
    assert_eq!(running.broker.counter("connect_timeouts"), 21);
}

fn lines_held_back(log: &str) -> usize {
    log.matches("lines more about").count()
}

/// A handshake that is good, in pieces of one byte.
#[test]
fn a_handshake_byte_by_byte() {
    let running = TlsBroker::start("", "");
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(running.trusting(None)), name).unwrap();
    let mut socket = raw(&running);
    socket.set_nodelay(true).unwrap();
    connection.writer().write_all(&connect("a", None)).unwrap();
    let mut answer = Vec::new();
    while answer.len() < 4 {
        let mut out = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut out).unwrap();
        }
        for byte in out {
            socket.write_all(&[byte]).unwrap();
        }
        connection.read_tls(&mut socket).unwrap();
        connection.process_new_packets().unwrap();
        // It would block where there is no more.
        drop(connection.reader().read_to_end(&mut answer));
    }
    assert_eq!(answer, [0x20, 2, 0, 0]);
}

/// Strange names, sizes and versions in a ClientHello, and bytes changed at every place of it.
#[test]
fn strange_hellos() {
    let running = TlsBroker::start("", "");
    let hello = client_hello(&running);
    let at = hello.windows(9).position(|bytes| bytes == b"localhost").unwrap();
    let mut hellos = Vec::new();
    for byte in [0, 0xff, b' ', b'*'] {
        let mut changed = hello.clone();
        changed[at] = byte;
        hellos.push(changed);
    }
    // A handshake message of 64 KiB and more, which begins well.
    let mut large = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    large.resize(5 + 0x4000, 0);
    hellos.push(large);
    // SSL 3, TLS 1.0 and TLS 1.1, each without an extension.
    for minor in [0, 1, 2] {
        let mut old = vec![0x16, 3, minor, 0, 45, 1, 0, 0, 41, 3, minor];
        old.extend_from_slice(&[7; 32]);
        old.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
        hellos.push(old);
    }
    let strange = hellos.len();
    hellos.extend((0..hello.len()).step_by(7).map(|place| {
        let mut changed = hello.clone();
        changed[place] ^= 0x55;
        changed
    }));
    for (number, hello) in hellos.iter().enumerate() {
        let mut socket = raw(&running);
        socket.write_all(hello).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&mut socket);
        if number < strange {
            assert_ne!(answer.first(), Some(&0x16), "hello {number} is answered by {answer:02x?}");
        }
    }
    running.broker.wait_for_log("TLS: the client offers no version that this listener takes");
    assert_eq!(running.broker.counter("panics"), 0);
    running.connect(None).connect_mqtt("b").ping();
}

/// Records that were changed on the way end the connection, and are not MQTT.
#[test]
fn a_damaged_record() {
    let running = TlsBroker::start("", "");
    let mut client = running.connect(None).connect_mqtt("a");
    let stream = client.tls();
    stream.conn.writer().write_all(&[0xc0, 0]).unwrap();
    let mut record = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut record).unwrap();
    }
    *record.last_mut().unwrap() ^= 1;
    stream.sock.write_all(&record).unwrap();
    assert!(client.is_closed());
    running.broker.wait_for_log("Client a disconnected: TLS: a record that was damaged on the way.");
}

/// Sessions of TLS 1.3 to go on with, each changed to say that the broker takes early data.
#[derive(Debug, Default)]
struct Lies {
    tickets: Mutex<Vec<Tls13ClientSessionValue>>,
    /// What the broker itself said.
    said: Mutex<Vec<u32>>,
}

impl ClientSessionStore for Lies {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server_name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server_name: ServerName<'static>, mut value: Tls13ClientSessionValue) {
        self.said.lock().unwrap().push(value.max_early_data_size());
        value._private_set_max_early_data_size(16_384);
        self.tickets.lock().unwrap().push(value);
    }

    fn take_tls13_ticket(&self, _server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets.lock().unwrap().pop()
    }
}

/// L5: the broker offers nobody to send data before the handshake is over. A client that does so all the same, as one that
/// repeats what somebody else has sent would, is not heard.
#[test]
fn early_data_is_never_acted_upon() {
    let running = TlsBroker::start("", "");
    let lies = Arc::new(Lies::default());
    let mut config = running.trusting(None);
    config.enable_early_data = true;
    config.resumption = Resumption::store(Arc::clone(&lies) as Arc<dyn ClientSessionStore>);
    let config = Arc::new(config);
    // The tickets come with the first answer.
    Client::open(running.tls, (*config).clone()).unwrap().connect_mqtt("first").ping();
    let said = lies.said.lock().unwrap().clone();
    assert!(!said.is_empty() && said.iter().all(|bytes| *bytes == 0), "{said:?}");
    let before = running.broker.counter("connects_accepted");
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    connection.early_data().expect("a ticket").write_all(&connect("zero-rtt-a", None)).unwrap();
    let mut socket = raw(&running);
    // All that there is to say, early data included, in front of the broker's first word.
    let mut out = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut out).unwrap();
    }
    assert!(out.windows(2).any(|bytes| bytes == [0x17, 3]), "no early data has been written");
    socket.write_all(&out).unwrap();
    // Then the handshake may go on, or may not; CONNECT has not come in either case.
    let end = Instant::now() + PATIENCE;
    while connection.is_handshaking() && Instant::now() < end {
        if !matches!(connection.read_tls(&mut socket), Ok(1..)) || connection.process_new_packets().is_err() {
            break;
        }
        let mut out = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut out).unwrap();
        }
        if socket.write_all(&out).is_err() {
            break;
        }
    }
    assert!(!connection.is_early_data_accepted());
    if !connection.is_handshaking() {
        // On the same connection, what comes after the handshake is the first that the broker hears.
        connection.writer().write_all(&connect("zero-rtt-b", None)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        stream.flush().unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0]);
    }
    running.connect(None).connect_mqtt("others").ping();
    let log = running.broker.log();
    assert!(!log.contains("zero-rtt-a"), "{log}");
    let late = u64::from(log.contains("as zero-rtt-b "));
    assert_eq!(running.broker.counter("connects_accepted"), before + 1 + late);
    assert_eq!(running.broker.counter("panics"), 0);
}
