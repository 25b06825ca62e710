//! Signals, and what they leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, PINGREQ, PINGRESP, V5, V311, client_id_of, connect_with, publish};
use crate::process::{Broker, Folder, wait_for};

/// Server shutting down.
const FAREWELL: [u8; 3] = [0xe0, 1, 0x8b];
const STOP_DURATION_MAX: Duration = Duration::from_secs(2);

#[test]
fn it_takes_its_leave_of_every_client() {
    for (signal, workers) in [(Signal::TERM, 1), (Signal::INT, 2), (Signal::TERM, 2)] {
        let mut broker = Broker::start(&format!("[broker]\nworkers = {workers}\n"));
        let address = broker.address();
        let mut clients: Vec<Client> = (0..10)
            .map(|number| {
                let level = if number % 2 == 0 { V5 } else { V311 };
                let worker = number / 2 % workers;
                Client::connect(address, level, &client_id_of(worker, workers, &format!("client-{number}")))
            })
            .collect();
        let mut silent = Client::open(address);
        broker.signal(signal);
        for client in &mut clients {
            if client.level == V5 {
                client.expect(&FAREWELL);
            }
            client.expect_closed();
        }
        silent.expect_closed();
        drop((clients, silent));
        assert_eq!(broker.wait_at_most(STOP_DURATION_MAX).code(), Some(0));
        assert!(broker.log().ends_with("Stopped.\n"), "{}", broker.log());
    }
}

/// Neither clients that do not read nor those that never stop sending hold up the end.
#[test]
fn it_ends_in_time_whatever_its_clients_do() {
    let mut broker = Broker::start("[broker]\nworkers = 2\n[limits]\noutgoing_bytes_max = 65536\n");
    let address = broker.address();
    let stalled: Vec<Client> = (0..2)
        .map(|worker| {
            let mut client = Client::connect(address, V5, &client_id_of(worker, 2, "stalled"));
            client.subscribe("flood", 0);
            client
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|number| {
            let mut client = Client::connect(address, V5, &client_id_of(number % 2, 2, &format!("flood-{number}")));
            let stop = Arc::clone(&stop);
            let batch = publish(V5, "flood", 0, 0, &[b'x'; 1_000]).repeat(100);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && client.try_send(&batch).is_ok() {}
                // Told, however busy: the last words stand before the end.
                client.rest()
            })
        })
        .collect();
    wait_for("clients that are given no more", || (broker.counter("dropped_outgoing_full") > 1_000).then_some(()));
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait_at_most(STOP_DURATION_MAX).code(), Some(0), "{}", broker.log());
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        assert_eq!(flood.join().unwrap(), [FAREWELL]);
    }
    for mut client in stalled {
        // Whole packets until the connection ends, in the middle of one if need be.
        let packets = client.rest();
        assert!(packets.iter().all(|packet| packet[0] == 0x30 || *packet == FAREWELL));
    }
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let mut broker = Broker::start("");
    let address = broker.address();
    // As long as this client does not close its side, the broker waits a moment for it.
    let mut client = Client::connect(address, V5, "client");
    broker.signal(Signal::TERM);
    client.expect(&FAREWELL);
    client.expect_closed();
    broker.signal(Signal::INT);
    let status = broker.wait_at_most(STOP_DURATION_MAX);
    let log = broker.log();
    assert!(log.contains("Stopping; a second signal stops at once."), "{log}");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.ends_with("Stopped at once.\n"), "{log}");
}

#[test]
fn other_signals_do_not_end_it() {
    let mut broker = Broker::start("[broker]\nworkers = 2\n");
    let mut client = Client::connect(broker.address(), V5, "client");
    broker.signal(Signal::HUP);
    broker.wait_for_log("SIGHUP: ");
    assert_eq!(broker.counter("connects_accepted"), 1);
    assert_eq!(broker.counter("connections"), 1);
    client.ping();
    Client::connect(broker.address(), V5, "another");
    assert_eq!(broker.counter("connects_accepted"), 2);
    broker.check();
}

/// What was sent before the end of the stream is acted upon and answered, and the end is noticed: the Will Message
/// goes out.
///
/// The end was missed when the poller told of it together with more bytes than one read takes.
#[test]
fn the_end_of_a_stream_is_seen_behind_its_bytes() {
    let folder = Folder::new();
    let path = folder.path("broker.sock");
    let tcp = "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
    let unix = format!("[[listener]]\nunix_path = \"{}\"\n", path.display());
    folder.write("a.toml", &format!("[broker]\nworkers = 1\n{tcp}{unix}"));
    let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    let mut watcher = Client::connect(broker.address(), V311, "watcher");
    watcher.subscribe("will", 0);
    watcher.subscribe("count", 0);
    // An answer makes the poller tell of the end once more, when it is taken: without one it has to be known.
    let cases = [0, 1_000, 131_000, 140_000].map(|bytes| [(bytes, false), (bytes, true)]);
    for (bytes, answered) in cases.into_iter().flatten() {
        let mut client = Client::open_unix(&path);
        client.send(&connect_with(V311, "leaving", Some(("will", "gone"))));
        client.expect(&[0x20, 2, 0, 0]);
        let mut stream = publish(V311, "nobody", 0, 0, &vec![b'x'; bytes]);
        stream.extend(publish(V311, "count", 0, 0, b"1"));
        stream.extend(PINGREQ.into_iter().filter(|_| answered));
        // The broker sees all of it at once.
        broker.pause();
        client.send(&stream);
        client.finish();
        broker.signal(Signal::CONT);
        // Closed on one side only: it still gets its answer.
        if answered {
            client.expect(&PINGRESP);
        }
        client.expect_closed();
        watcher.expect(&publish(V311, "count", 0, 0, b"1"));
        watcher.expect(&publish(V311, "will", 0, 0, b"gone"));
    }
}
