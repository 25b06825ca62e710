//! Messages between clients of the same worker and of different ones, and connections on their way to their worker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;

use crate::client::{
    Client, PINGREQ, PINGRESP, V5, V311, acknowledgement, client_id_of, connect, publish, subscribe, taken_apart,
};
use crate::process::{Broker, Folder};

fn broker(workers: u8) -> Broker {
    Broker::start(&format!("[broker]\nworkers = {workers}\n"))
}

/// One message with the whole exchange on both sides.
fn pass_on(publisher: &mut Client, subscriber: &mut Client, topic_name: &str, qos: u8, payload: &[u8]) {
    publisher.send(&publish(publisher.level, topic_name, qos, 77, payload));
    match qos {
        0 => {}
        1 => publisher.expect(&acknowledgement(0x40, 77)),
        _ => {
            publisher.expect(&acknowledgement(0x50, 77));
            publisher.send(&acknowledgement(0x62, 77));
            publisher.expect(&acknowledgement(0x70, 77));
        }
    }
    let packet = subscriber.packet();
    let (found_qos, packet_id, found) = taken_apart(subscriber.level, &packet);
    assert_eq!((found_qos, found), (qos, payload));
    match qos {
        0 => {}
        1 => subscriber.send(&acknowledgement(0x40, packet_id)),
        _ => {
            subscriber.send(&acknowledgement(0x50, packet_id));
            subscriber.expect(&acknowledgement(0x62, packet_id));
            subscriber.send(&acknowledgement(0x70, packet_id));
        }
    }
}

#[test]
fn every_quality_of_service_between_every_pair_of_workers() {
    for workers in [1, 2, 3] {
        let mut broker = broker(workers);
        let address = broker.address();
        for from in 0..workers {
            for to in 0..workers {
                for (level, other_level) in [(V311, V5), (V5, V311), (V5, V5)] {
                    let mut publisher = Client::connect(address, level, &client_id_of(from, workers, "publisher"));
                    let mut subscriber =
                        Client::connect(address, other_level, &client_id_of(to, workers, "subscriber"));
                    subscriber.subscribe("a/+", 2);
                    for qos in [0, 1, 2, 0, 2, 1] {
                        pass_on(&mut publisher, &mut subscriber, "a/b", qos, b"hello");
                        pass_on(&mut publisher, &mut subscriber, "a/c", qos, &[b'x'; 3_000]);
                    }
                    // Nothing comes twice.
                    assert_eq!(subscriber.ping(), [] as [Vec<u8>; 0]);
                    assert_eq!(publisher.ping(), [] as [Vec<u8>; 0]);
                }
            }
        }
        broker.check();
    }
}

/// The bytes behind a CONNECT go with the connection to its worker.
#[test]
fn what_comes_with_connect_is_not_lost_on_the_way() {
    for workers in [1, 2, 4] {
        let broker = broker(workers);
        for number in 0..40 {
            let topic_name = format!("topic/{number}");
            let mut segment = connect(V311, &format!("client-{number}"));
            segment.extend(subscribe(V311, 1, &topic_name, 0));
            segment.extend(publish(V311, &topic_name, 0, 0, b"hello"));
            segment.extend(publish(V311, &topic_name, 0, 0, &vec![b'x'; 200_000]));
            segment.extend(PINGREQ);
            let mut client = Client::open(broker.address());
            client.send(&segment);
            client.expect(&[0x20, 2, 0, 0]);
            // SUBACK waits until all workers know of the subscription, and PINGRESP for its turn behind it; the messages of the
            // client's own worker need not.
            let mut answers: Vec<Vec<u8>> = (0..4).map(|_| client.packet()).collect();
            let (messages, others): (Vec<_>, Vec<_>) = answers.drain(..).partition(|packet| packet[0] == 0x30);
            assert_eq!(others, [vec![0x90, 3, 0, 1, 0], PINGRESP.to_vec()]);
            let expected = [&b"hello"[..], &[b'x'; 200_000]];
            assert!(messages == expected.map(|payload| publish(V311, &topic_name, 0, 0, payload)), "{workers} workers");
        }
    }
}

#[test]
fn connect_may_be_cut_anywhere() {
    const WORKERS: u8 = 2;
    let broker = broker(WORKERS);
    let address = broker.address();
    // Their answers tell that their workers have had a turn.
    let mut others: Vec<Client> =
        (0..WORKERS).map(|worker| Client::connect(address, V311, &client_id_of(worker, WORKERS, "other"))).collect();
    for worker in 0..WORKERS {
        for level in [V311, V5] {
            let mut stream = connect(level, &client_id_of(worker, WORKERS, "cut"));
            stream.extend(PINGREQ);
            for cut in 1..stream.len() {
                let mut client = Client::open(address);
                client.send(&stream[..cut]);
                for other in &mut others {
                    other.ping();
                }
                client.send(&stream[cut..]);
                let answer = client.packet();
                assert_eq!((answer[0], answer[3]), (0x20, 0), "cut at {cut}: {answer:02x?}");
                client.expect(&PINGRESP);
            }
        }
    }
    // And in single bytes.
    let mut client = Client::open(address);
    for byte in connect(V311, "byte by byte") {
        client.send(&[byte]);
        others[0].ping();
    }
    client.expect(&[0x20, 2, 0, 0]);
}

#[test]
fn a_burst_of_connections_is_answered() {
    for workers in [1, 2] {
        let mut broker = broker(workers);
        let address = broker.address();
        let mut clients: Vec<Client> = (0..500).map(|_| Client::open(address)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&connect(V311, &format!("client-{number}")));
        }
        for client in &mut clients {
            client.expect(&[0x20, 2, 0, 0]);
        }
        for client in &mut clients {
            client.send(&PINGREQ);
        }
        for client in &mut clients {
            client.expect(&PINGRESP);
        }
        assert_eq!(broker.counter("connections"), 500);
        broker.check();
    }
}

#[test]
fn a_client_is_taken_over_on_another_listener() {
    let folder = Folder::new();
    let path = folder.path("broker.sock");
    let tcp = "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
    let unix = format!("[[listener]]\nunix_path = \"{}\"\n", path.display());
    folder.write("a.toml", &format!("[broker]\nworkers = 2\n{tcp}{unix}"));
    let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    let address = broker.address();
    for worker in 0..2 {
        let client_id = client_id_of(worker, 2, "client");
        let mut old = Client::connect(address, V5, &client_id);
        for round in 0..4 {
            let mut new = if round % 2 == 0 { Client::open_unix(&path) } else { Client::open(address) };
            new.let_in(V5, &client_id);
            // Session taken over, and a Reason String.
            let last = old.packet();
            assert_eq!((last[0], last[2]), (0xe0, 0x8e), "{last:02x?}");
            old.expect_closed();
            new.subscribe("a", 1);
            old = new;
        }
        old.send(&publish(V5, "a", 0, 0, b"self"));
        old.expect(&publish(V5, "a", 0, 0, b"self"));
    }
}

const PAIRS: u8 = 20;
const MESSAGES: u32 = 2_000;
const WINDOW: usize = 50;

/// Publishes numbers at QoS 1 and waits for every acknowledgement, in order.
fn publish_numbers(address: SocketAddr, client_id: &str, topic_name: &str) {
    let mut client = Client::connect(address, V311, client_id);
    let mut open = VecDeque::new();
    for number in 0..MESSAGES {
        let packet_id = u16::try_from(number + 1).unwrap();
        client.send(&publish(V311, topic_name, 1, packet_id, &number.to_be_bytes()));
        open.push_back(packet_id);
        if open.len() == WINDOW {
            client.expect(&acknowledgement(0x40, open.pop_front().unwrap()));
        }
    }
    for packet_id in open {
        client.expect(&acknowledgement(0x40, packet_id));
    }
}

/// Takes and acknowledges numbers, which have to come in order and once.
fn take_numbers(client: &mut Client) {
    for expected in 0..MESSAGES {
        let packet = client.packet();
        let (qos, packet_id, payload) = taken_apart(V311, &packet);
        assert_eq!((qos, payload), (1, &expected.to_be_bytes()[..]));
        client.send(&acknowledgement(0x40, packet_id));
    }
    assert_eq!(client.ping(), [] as [Vec<u8>; 0]);
}

#[test]
fn under_load_nothing_is_lost_or_overtaken_between_workers() {
    let mut broker = broker(2);
    let address = broker.address();
    thread::scope(|scope| {
        for pair in 0..PAIRS {
            // Each of the four ways from worker to worker.
            let (from, to) = (pair % 2, pair / 2 % 2);
            let topic_name = format!("pair/{pair}");
            let mut subscriber = Client::connect(address, V311, &client_id_of(to, 2, &format!("subscriber-{pair}")));
            subscriber.subscribe(&topic_name, 1);
            scope.spawn(move || take_numbers(&mut subscriber));
            scope.spawn(move || {
                publish_numbers(address, &client_id_of(from, 2, &format!("publisher-{pair}")), &topic_name);
            });
        }
    });
    assert_eq!(broker.counter("publish_received"), u64::from(PAIRS) * u64::from(MESSAGES));
    assert_eq!(broker.counter("publish_sent"), u64::from(PAIRS) * u64::from(MESSAGES));
    broker.check();
}
