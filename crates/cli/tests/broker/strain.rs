//! Clients that take more than their share: what they get is bounded, and the others do not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, DISCONNECT, V311, acknowledgement, client_id_of, connect, publish, taken_apart};
use crate::process::{Broker, Folder, wait_for};

const MIB: u64 = 1 << 20;
const LET_IN: [u8; 4] = [0x20, 2, 0, 0];

/// Without descriptors to accept with, the broker waits for some; it neither spins nor lets its clients down.
#[test]
fn when_descriptors_run_out_others_wait() {
    const CLIENTS: usize = 100;
    let mut broker = Broker::start_limited("[broker]\nworkers = 2\n", Some(64));
    let address = broker.address();
    // The system takes all of them, and holds those that the broker cannot take.
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = Client::open(address);
            client.send(&connect(V311, &format!("client-{number}")));
            client
        })
        .collect();
    broker.wait_for_log("Cannot accept a connection");
    wait_for("all descriptors in use", || (broker.descriptors() >= 64).then_some(()));
    let served = wait_for("those that are in", || {
        let served = broker.counter("connects_accepted");
        (served == broker.counter("connections")).then_some(usize::try_from(served).unwrap())
    });
    assert!((30..64).contains(&served), "{served} clients are served with 64 descriptors");
    for client in &mut clients[..served] {
        client.expect(&LET_IN);
        client.ping();
    }
    // A second in which there is nothing to do but to wait.
    let (before, start) = (broker.cpu(), Instant::now());
    wait_for("a second", || (start.elapsed() >= Duration::from_secs(1)).then_some(()));
    let used = broker.cpu() - before;
    assert!(used < Duration::from_millis(150), "waiting for descriptors took {used:?} of processor time in a second");
    for client in &mut clients[..served] {
        client.ping();
    }
    // Places that become free are taken by those that have waited.
    let mut waiting = clients.split_off(served);
    let gone = clients.drain(..waiting.len().min(served - 10));
    let free = gone.len();
    drop(gone);
    for client in waiting.iter_mut().take(free) {
        client.expect(&LET_IN);
        client.ping();
    }
    for client in &mut clients {
        client.ping();
    }
    broker.check();
}

/// A subscriber that does not read costs a bounded amount of memory, nobody else anything, and is closed in the end.
#[test]
fn a_subscriber_that_does_not_read_is_cut_off() {
    const MESSAGE_BYTES: usize = 65_536;
    const ROUNDS: u32 = 64;
    for workers in [1, 2] {
        let limits = "[limits]\noutgoing_bytes_max = 1048576\nwrite_stall_seconds = 1\n";
        let mut broker = Broker::start(&format!("[broker]\nworkers = {workers}\n{limits}"));
        let address = broker.address();
        let mut stalled = Client::connect(address, V311, &client_id_of(workers - 1, workers, "stalled"));
        stalled.subscribe("flood", 0);
        let mut reader = Client::connect(address, V311, &client_id_of(workers - 1, workers, "reader"));
        reader.subscribe("flood", 0);
        let mut publisher = Client::connect(address, V311, &client_id_of(0, workers, "publisher"));
        let before = broker.peak_bytes();
        for round in 0..ROUNDS {
            // 1 MiB, and no more before the one who reads has read it: so that it is owed every byte.
            let payload = vec![round as u8; MESSAGE_BYTES];
            let message = publish(V311, "flood", 0, 0, &payload);
            publisher.send(&message.repeat(14));
            for _ in 0..14 {
                reader.expect(&message);
            }
        }
        wait_for("the end of the one who does not read", || (broker.counter("write_stalls") == 1).then_some(()));
        assert!(broker.counter("dropped_outgoing_full") > 100, "{}", broker.counter("dropped_outgoing_full"));
        let grown = broker.peak_bytes() - before;
        assert!(grown < 16 * MIB, "memory has grown by {grown} bytes");
        // What it has of the stream is whole, but for the end.
        for packet in stalled.rest() {
            assert_eq!(packet.len(), publish(V311, "flood", 0, 0, &[0; MESSAGE_BYTES]).len());
        }
        assert!(broker.log().contains("Client stalled-"), "{}", broker.log());
        assert!(broker.log().contains("the client does not read"), "{}", broker.log());
        publisher.ping();
        broker.check();
    }
}

/// Fifty clients that have yet to read the same messages hold them together, not each for itself.
#[test]
fn a_large_message_is_there_once() {
    const SUBSCRIBERS: u8 = 50;
    const MESSAGES: u8 = 6;
    for (workers, qos) in [(1, 0), (2, 0), (1, 1), (2, 1)] {
        let mut broker = Broker::start(&format!("[broker]\nworkers = {workers}\n"));
        let address = broker.address();
        let mut subscribers: Vec<Client> = (0..SUBSCRIBERS)
            .map(|number| {
                let client_id = client_id_of(number % workers, workers, &format!("subscriber-{number}"));
                let mut client = Client::connect(address, V311, &client_id);
                client.subscribe("large", qos);
                client
            })
            .collect();
        let mut publisher = Client::connect(address, V311, "publisher");
        let before = broker.peak_bytes();
        let payload = |number: u8| -> Vec<u8> { (0..1_u32 << 20).map(|at| (at / 7) as u8 ^ number).collect() };
        for number in 0..MESSAGES {
            publisher.send(&publish(V311, "large", qos, 1 + u16::from(number), &payload(number)));
        }
        publisher.ping();
        let expected = u64::from(SUBSCRIBERS) * u64::from(MESSAGES);
        wait_for("all messages sent", || (broker.counter("publish_sent") == expected).then_some(()));
        let grown = broker.peak_bytes() - before;
        assert!(grown < 30 * MIB, "{workers} workers, QoS {qos}: memory has grown by {grown} bytes");
        for number in 0..MESSAGES {
            let expected = payload(number);
            for subscriber in &mut subscribers {
                let packet = subscriber.packet();
                let (found_qos, packet_id, found) = taken_apart(V311, &packet);
                assert!(found_qos == qos && *found == expected, "message {number} is not what was sent");
                if qos == 1 {
                    subscriber.send(&acknowledgement(0x40, packet_id));
                }
            }
        }
        broker.check();
    }
}

/// A publisher that never reads its acknowledgements is not read from any more, and then closed.
#[test]
fn acknowledgements_that_nobody_reads_are_bounded() {
    let folder = Folder::new();
    let path = folder.path("broker.sock");
    let tcp = "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
    let unix = format!("[[listener]]\nunix_path = \"{}\"\n", path.display());
    let limits = "[limits]\noutgoing_bytes_max = 1048576\nwrite_stall_seconds = 1\n";
    folder.write("a.toml", &format!("[broker]\nworkers = 1\n{limits}{tcp}{unix}"));
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    let mut other = Client::connect(broker.address(), V311, "other");
    // A Unix socket holds no more than some 200 KiB, whereas TCP would hold all of them.
    let mut client = Client::open_unix(&path);
    client.let_in(V311, "client");
    let before = broker.peak_bytes();
    let batch = publish(V311, "t", 1, 1, b"").repeat(1_000);
    let sent = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // It is cut off on the way, which it notices by an error or, if it is quick enough, not before it reads.
            drop((0..1_000).try_for_each(|_| client.try_send(&batch)));
            sent.store(true, Ordering::Relaxed);
        });
        while !sent.load(Ordering::Relaxed) {
            let start = Instant::now();
            other.ping();
            assert!(start.elapsed() < Duration::from_millis(500), "another client waits for {:?}", start.elapsed());
        }
    });
    assert_eq!(broker.counter("write_stalls"), 1);
    let acknowledgements = client.rest().len();
    assert!(acknowledgements < 500_000, "{acknowledgements} of a million messages were acknowledged unread");
    let grown = broker.peak_bytes() - before;
    assert!(grown < 8 * MIB, "memory has grown by {grown} bytes");
    other.ping();
    broker.check();
}

/// A worker that cannot keep up is not given more than it can hold.
#[test]
fn what_waits_between_workers_is_bounded() {
    const SUBSCRIBERS: u32 = 400;
    const MESSAGES: u64 = 400_000;
    const PAYLOAD_BYTES: usize = 256;
    const FLOOD_BYTES: u64 = MESSAGES * PAYLOAD_BYTES as u64;
    let mut broker = Broker::start("[broker]\nworkers = 2\n[limits]\noutgoing_bytes_max = 8192\n");
    let address = broker.address();
    // For each message that the publisher's worker passes on, theirs has four hundred to deliver.
    let subscribers: Vec<Client> = (0..SUBSCRIBERS)
        .map(|number| {
            let mut client = Client::connect(address, V311, &client_id_of(1, 2, &format!("subscriber-{number}")));
            client.subscribe("flood", 0);
            client
        })
        .collect();
    let mut publisher = Client::connect(address, V311, &client_id_of(0, 2, "publisher"));
    let before = broker.peak_bytes();
    let batch = publish(V311, "flood", 0, 0, &[b'x'; PAYLOAD_BYTES]).repeat(1_000);
    for _ in 0..MESSAGES / 1_000 {
        publisher.send(&batch);
    }
    publisher.ping();
    let expected = MESSAGES * u64::from(SUBSCRIBERS);
    wait_for("all messages delivered or dropped", || {
        let done = broker.counter("publish_sent") + broker.counter("dropped_outgoing_full");
        (done == expected).then_some(())
    });
    let grown = broker.peak_bytes() - before;
    assert!(grown < FLOOD_BYTES / 3, "memory has grown by {grown} bytes of {FLOOD_BYTES}");
    drop(subscribers);
    broker.check();
}

/// Connections that come and go leave nothing behind but counters, and few lines.
#[test]
fn ten_thousand_short_connections_leave_nothing() {
    const THREADS: u32 = 4;
    const CONNECTIONS: u32 = 2_500;
    let mut broker = Broker::start("[broker]\nworkers = 2\n");
    let address = broker.address();
    Client::connect(address, V311, "first").send(&DISCONNECT);
    wait_for("an idle broker", || (broker.counter("connections") == 0).then_some(()));
    let (descriptors, start) = (broker.descriptors_but_files(), Instant::now());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..CONNECTIONS {
                    let mut client = Client::open(address);
                    match number % 5 {
                        // Gone before a word is said.
                        0 => {}
                        1 => client.send(&connect(V311, "lost")[..9]),
                        // Not MQTT.
                        2 => {
                            client.send(b"GET / HTTP/1.1\r\n\r\n");
                            client.expect_closed();
                        }
                        _ => {
                            client.let_in(V311, &format!("client-{thread}-{number}"));
                            client.send(&DISCONNECT);
                        }
                    }
                }
            });
        }
    });
    let opened = u64::from(THREADS * CONNECTIONS);
    wait_for("all connections to be over", || {
        (broker.counter("connections_opened") > opened && broker.counter("connections") == 0).then_some(())
    });
    wait_for("descriptors to be closed", || (broker.descriptors_but_files() <= descriptors).then_some(()));
    // It tells what it has held back when it is asked for a report.
    let log = broker.wait_for_log("lines more about: connected clients");
    let seconds = start.elapsed().as_secs() + 2;
    for cause in ["New client connected", "disconnected", "Connection from", "lines more about"] {
        let lines = log.lines().filter(|line| line.contains(cause)).count() as u64;
        assert!((1..=11 * seconds).contains(&lines), "{lines} lines with \"{cause}\" in {seconds} s");
    }
    broker.check();
}
