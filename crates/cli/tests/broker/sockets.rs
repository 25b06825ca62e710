//! L21, L22: what a socket can do to a broker, and descriptors that somebody hands over.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{SendFlags, send, sockopt};

use crate::client::{Client, V311, connect, publish, subscribe};
use crate::process::{Broker, Folder, PATIENCE, wait_for};

const MIB: u64 = 1 << 20;

/// So that the next close is a reset.
fn resetting(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    socket
}

fn write_all(socket: &TcpStream, bytes: &[u8]) {
    std::io::Write::write_all(&mut &*socket, bytes).unwrap();
}

/// Reading stops at an urgent byte, and what is behind it may be found with the next that comes: whoever sends one, which MQTT
/// has no use for, is served, or cut off in time, and nobody else is concerned.
#[test]
fn urgent_data_harms_nobody_else() {
    let mut broker = Broker::start("[broker]\nworkers = 1\n[limits]\nconnect_seconds = 1\n");
    let mut other = Client::connect(broker.address(), V311, "other");
    let packet = connect(V311, "urgent");
    for at in 0..packet.len() {
        let socket = TcpStream::connect(broker.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (front, back) = packet.split_at(at);
        write_all(&socket, front);
        assert_eq!(send(&socket, &[0xc0], SendFlags::OOB).unwrap(), 1);
        write_all(&socket, back);
        other.ping();
        if at == packet.len() / 2 {
            // Until the end, in one case for all.
            let mut answer = Vec::new();
            std::io::Read::read_to_end(&mut (&socket).take(4), &mut answer).unwrap();
            assert!(answer.is_empty() || answer == [0x20, 2, 0, 0], "{answer:02x?}");
        }
    }
    wait_for("all of them gone", || (broker.counter("connections") == 1).then_some(()));
    other.ping();
    broker.check();
}

/// Connections that end by a reset, before, in and behind a packet, leave nothing.
#[test]
fn resets_in_mid_packet_leave_nothing() {
    let mut broker = Broker::start("[broker]\nworkers = 2\n");
    let address = broker.address();
    let mut other = Client::connect(address, V311, "other");
    let message = publish(V311, "t", 1, 7, &[b'x'; 4_000]);
    let round = |count: usize| {
        for number in 0..count {
            let socket = resetting(address);
            let hello = connect(V311, &format!("reset-{}", number % 50));
            match number % 4 {
                0 => {}
                1 => write_all(&socket, &hello[..number % hello.len()]),
                2 => write_all(&socket, &[&hello[..], &message[..number % message.len()]].concat()),
                _ => write_all(&socket, &[&hello[..], &subscribe(V311, 1, "#", 1), &message].concat()),
            }
        }
    };
    let flat = |broker: &Broker| {
        wait_for("all of them gone", || {
            let gone = broker.counter("connections") == 1 && broker.counter("sessions") == 1;
            gone.then(|| broker.descriptors_but_files())
        })
    };
    round(200);
    let (descriptors, peak) = (flat(&broker), broker.peak_bytes());
    round(2_000);
    assert_eq!(flat(&broker), descriptors);
    let grown = broker.peak_bytes() - peak;
    assert!(grown < 4 * MIB, "memory has grown by {grown} bytes");
    other.ping();
    broker.check();
}

/// Clients with the smallest window there is, which read nothing, or a byte at a time, and send theirs one by one.
#[test]
fn small_windows_and_segments_cost_little() {
    const CLIENTS: usize = 20;
    let limits = "[limits]\noutgoing_bytes_max = 65536\nwrite_stall_seconds = 2\n";
    let mut broker = Broker::start(&format!("[broker]\nworkers = 1\n{limits}"));
    let address = broker.address();
    let mut publisher = Client::connect(address, V311, "publisher");
    let narrow: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let socket = TcpStream::connect(address).unwrap();
            sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for byte in [connect(V311, &format!("narrow-{number}")), subscribe(V311, 1, "t", 0)].concat() {
                write_all(&socket, &[byte]);
            }
            let mut answer = [0; 9];
            std::io::Read::read_exact(&mut &socket, &mut answer).unwrap();
            assert_eq!(answer[..4], [0x20, 2, 0, 0]);
            socket
        })
        .collect();
    let (peak, before) = (broker.peak_bytes(), broker.cpu());
    let message = publish(V311, "t", 0, 0, &[b'x'; 8_192]);
    publisher.send(&message);
    // One reads what there is for it byte by byte, and gets a whole packet.
    let mut first = vec![0; message.len()];
    for byte in &mut first {
        std::io::Read::read_exact(&mut &narrow[0], std::slice::from_mut(byte)).unwrap();
    }
    assert_eq!(first, message);
    // What the system holds for those who do not read is full some day, and then they are cut off.
    wait_for("the end of those who do not read", || {
        publisher.send(&message.repeat(50));
        publisher.ping();
        (broker.counter("write_stalls") >= CLIENTS as u64 - 1).then_some(())
    });
    publisher.ping();
    let (grown, spent) = (broker.peak_bytes() - peak, broker.cpu() - before);
    assert!(grown < 16 * MIB, "memory has grown by {grown} bytes");
    assert!(spent < Duration::from_secs(3), "{spent:?} of processor time");
    broker.check();
}

/// Sockets are not taken over from a service manager, and what the environment says of them changes nothing, right or wrong.
#[test]
fn descriptors_that_are_handed_over_are_not_looked_at() {
    for (process, count) in [("1", "1"), ("1", "-5"), ("x", "99999999999999999999"), ("", "")] {
        let folder = Folder::new();
        let text = "[broker]\nworkers = 1\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
        let file = folder.write("pantala.toml", text);
        let arguments = ["-c".to_owned(), file.display().to_string()];
        let environment = [("LISTEN_PID", process), ("LISTEN_FDS", count), ("LISTEN_FDNAMES", "mqtt")];
        let mut broker = Broker::with_environment(folder, &arguments, &environment);
        assert_eq!(broker.listening_on().len(), 1);
        Client::connect(broker.address(), V311, "a").ping();
        broker.check();
    }
}
