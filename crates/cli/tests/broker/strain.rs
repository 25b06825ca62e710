//! Clients that take more than their share: what they get is bounded, and the others do not notice.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{
    Client, DISCONNECT, Next, PINGREQ, PINGRESP, V311, acknowledgement, client_id_of, connect, publish, taken_apart,
};
use crate::process::{Broker, wait_for};

const MIB: u64 = 1 << 20;

/// Without descriptors to accept with, the broker waits for some; it neither spins nor lets its clients down.
#[test]
fn when_descriptors_run_out_others_wait() {
    let mut broker = Broker::start_limited("[broker]\nworkers = 2\n", Some(64));
    let address = broker.address();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0.. {
        // The system takes more connections than the broker does: they are let in later.
        let mut client = Client::open(address);
        client.send(&connect(V311, &format!("client-{number}")));
        clients.push(client);
        if broker.log().contains("Cannot accept a connection") {
            break;
        }
    }
    assert!(clients.len() < 200, "64 descriptors hold {} clients", clients.len());
    let in_reach = 20;
    clients.extend((0..in_reach).map(|number| {
        let mut client = Client::open(address);
        client.send(&connect(V311, &format!("late-{number}")));
        client
    }));
    // Each descriptor that is left over serves one more.
    let served = usize::try_from(broker.counter("connects_accepted")).unwrap();
    assert!((20..60).contains(&served), "{served} clients are served");
    let (before, start) = (broker.cpu(), Instant::now());
    // Those that are in go on, while the others wait.
    while start.elapsed() < Duration::from_secs(1) {
        for client in &mut clients[..10] {
            let mut first = client.next();
            if first == Next::Packet(vec![0x20, 2, 0, 0]) {
                client.send(&PINGREQ);
                first = client.next();
            }
            assert_eq!(first, Next::Packet(PINGRESP.to_vec()));
            client.send(&PINGREQ);
        }
        thread::yield_now();
        if broker.cpu() - before > Duration::from_millis(900) {
            break;
        }
    }
    let quiet = broker.cpu();
    // A wait that has nothing to wait for but time: what is measured is that nothing happens in it.
    let start = Instant::now();
    wait_for("a second", || (start.elapsed() >= Duration::from_secs(1)).then_some(()));
    let used = broker.cpu() - quiet;
    assert!(used < Duration::from_millis(200), "waiting for descriptors took {used:?} of processor time in a second");
    // The descriptors of some are there for the others.
    let rest = clients.split_off(in_reach + 10);
    drop(clients);
    for mut client in rest {
        if client.ping() != [] as [Vec<u8>; 0] {
            // It was let in just now.
        }
        client.send(&DISCONNECT);
        client.expect_closed();
    }
    broker.check();
}
