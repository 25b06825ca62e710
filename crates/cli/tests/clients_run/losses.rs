//! What is told, and with which status, when a broker is slow, refuses, closes, or breaks the protocol; and when a signal comes.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::bench::{Program, Running, pantala, start};
use crate::peer::{CONNECT, Peer, SUBSCRIBE, broker, broker_of};

/// More than sockets hold.
const LARGE: usize = 24 << 20;
const PUBLISH: u8 = 0x30;
const PUBLISH_1: u8 = 0x32;

fn running(program: &str, port: &str, flags: &[&str], stdin: &[u8]) -> Running {
    let mut command = Program::pantala(program).command();
    command.args(["-V", "311", "-p", port]).args(flags);
    start(command, &std::env::temp_dir(), stdin, None)
}

/// The status was 0, and nothing was said.
#[test]
fn a_message_of_qos_0_that_is_not_taken_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    for flags in [&[][..], &["--reconnect-delay", "0.1"], &["-l"]] {
        let (port, broker) = broker_of(|listener| {
            // It closes when it has seen how large the message is.
            let mut peer = Peer::accept(listener);
            peer.read_some();
            drop(peer);
        });
        let payload = if flags == ["-l"] { &[][..] } else { &["-s"] };
        let arguments = [&["-V", "311", "-p", &port, "-t", "t"], payload, flags].concat();
        let printed = pantala(folder.path(), "pub", &arguments, &vec![b'x'; LARGE]);
        broker.join().unwrap();
        printed.is("", 7);
        assert!(printed.stderr.contains("Error: the "), "{printed:?}");
    }
}

/// A message that sockets hold was out, and the broker threw it away: of that nothing was said.
#[test]
fn a_message_that_is_thrown_away_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (port, broker) = broker(|peer| {
        // More is there, so this resets the connection.
        peer.read_some();
        peer.wait_for_more();
    });
    let printed = pantala(folder.path(), "pub", &["-V", "311", "-p", &port, "-t", "t", "-s"], &vec![b'x'; 64 << 10]);
    broker.join().unwrap();
    printed.is("", 7);
    assert!(printed.stderr.contains("Error: the connection failed: "), "{printed:?}");
}

/// They were dropped, and the broker published the Will.
#[test]
fn what_stands_before_a_line_that_is_wrong_is_published() {
    let folder = tempfile::tempdir().unwrap();
    for qos in ["0", "1"] {
        let (port, broker) = broker(|peer| {
            let mut count = 0;
            loop {
                let (first_byte, body) = peer.next().expect("DISCONNECT comes first");
                match first_byte {
                    PUBLISH => count += 1,
                    PUBLISH_1 => {
                        count += 1;
                        peer.send(&[0x40, 2, body[3], body[4]]);
                    }
                    0xe0 => return count,
                    other => panic!("{other:x}"),
                }
            }
        });
        let lines = "{\"payload\":\"x\"}\n\n".repeat(1_000) + "{\n";
        let arguments = ["-V", "311", "-p", &port, "-t", "t", "-q", qos, "--json"];
        let printed = pantala(folder.path(), "pub", &arguments, lines.as_bytes());
        printed.is("", 1);
        assert!(printed.stderr.contains("standard input, line 2001: "), "{printed:?}");
        assert_eq!(broker.join().unwrap(), 1_000);
    }
}

#[test]
fn a_signal_before_the_work_is_done_is_a_failure() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // Neither is ever acknowledged, or answered.
        for (program, flags, awaited) in [
            ("pub", &["-t", "t", "-q", "1", "-m", "x"][..], PUBLISH_1),
            ("rr", &["-t", "t", "-e", "e", "-m", "x"], PUBLISH),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let running = running(program, &port, flags, b"");
            let mut peer = Peer::accept(&listener);
            if program == "rr" {
                peer.subscribed_behind(&[]);
            }
            peer.expect(awaited);
            running.signal(signal);
            peer.ended();
            let printed = running.end();
            printed.is("", status);
            assert!(printed.stderr.contains("before all was done"), "{printed:?}");
        }
    }
}

/// They tried again for ever, and said nothing.
#[test]
fn who_publishes_or_asks_once_hears_of_a_lost_connection() {
    let folder = tempfile::tempdir().unwrap();
    for (program, flags) in [("pub", &["-q", "1"][..]), ("rr", &["-e", "e"])] {
        let (port, broker) = broker(|peer| {
            peer.next();
            peer.close();
        });
        let arguments = [&["-V", "311", "-p", &port, "-t", "t", "-m", "x"], flags].concat();
        let printed = pantala(folder.path(), program, &arguments, b"");
        broker.join().unwrap();
        printed.is("", 7);
        assert!(printed.stderr.contains("Error: the "), "{printed:?}");
    }
}

#[test]
fn a_refusal_that_will_not_pass_ends_those_who_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for (program, flags) in [("pub", &["-l", "-q", "1"][..]), ("sub", &[])] {
        // Once it is not to be had, once it is not allowed.
        let (port, broker) = broker_of(|listener| {
            Peer::accept(listener).next();
            for code in [3, 5] {
                let mut peer = Peer::called(listener);
                peer.expect(CONNECT);
                peer.send(&[0x20, 2, 0, code]);
            }
        });
        let start = ["-V", "311", "-p", &port, "-t", "t", "--reconnect-delay", "0.05"];
        let printed = pantala(folder.path(), program, &[&start, flags].concat(), b"x\n");
        broker.join().unwrap();
        printed.is("", 5);
        let lines: Vec<_> = printed.stderr.lines().collect();
        assert!(lines[0].starts_with("Connection lost: the "), "{printed:?}");
        assert!(lines[1].starts_with("No connection: the broker refused"), "{printed:?}");
        assert!(lines[2].starts_with("Error: the broker refused the connection: "), "{printed:?}");
    }
}

#[test]
fn a_broker_that_breaks_the_protocol_is_not_called_again() {
    let folder = tempfile::tempdir().unwrap();
    // PINGREQ, and no packet at all.
    for wrong in [[0xc0, 0], [0, 0]] {
        let (port, broker) = broker(move |peer| {
            peer.expect(SUBSCRIBE);
            peer.send(&wrong);
            while peer.next().is_some() {}
        });
        let printed = pantala(folder.path(), "sub", &["-V", "311", "-p", &port, "-t", "t"], b"");
        printed.is("", 2);
        broker.join().unwrap();
    }
}

/// "malformed packet: ReasonCode(1)".
#[test]
fn a_broker_that_does_not_know_mqtt_5_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let url = |port: &str| format!("mqtt://127.0.0.1:{port}");
    for program in ["pub", "rr", "record"] {
        let (port, broker) = broker_of(|listener| {
            let mut peer = Peer::called(listener);
            peer.expect(CONNECT);
            peer.send(&[0x20, 2, 0, 1]);
        });
        let url = url(&port);
        let arguments: &[&str] = match program {
            "record" => &["-", &url],
            "rr" => &["-p", &port, "-t", "t", "-e", "e", "-m", "x"],
            _ => &["-V", "5", "-p", &port, "-t", "t", "-m", "x"],
        };
        let printed = pantala(folder.path(), program, arguments, b"");
        broker.join().unwrap();
        printed.is("", if program == "record" { 1 } else { 132 });
        assert!(
            printed.stderr.contains("unsupported protocol version") && printed.stderr.contains("-V 311"),
            "{printed:?}"
        );
    }
    // As it says.
    let (port, broker) = broker(|peer| {
        peer.subscribed_behind(&[PUBLISH, 4, 0, 1, b't', b'x']);
        peer.ended();
    });
    let printed = pantala(folder.path(), "record", &["-", &url(&port), "-V", "311", "-C", "1"], b"");
    assert_eq!(printed.status, Some(0), "{printed:?}");
    broker.join().unwrap();
}

/// A disk that is full ended with status 0.
#[test]
fn what_cannot_be_printed_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let message = [PUBLISH, 4, 0, 1, b'e', b'x'];
    for (program, flags) in [("sub", "-t e"), ("rr", "-t t -e e -m x")] {
        let (port, broker) = broker(move |peer| {
            peer.subscribed_behind(&message);
            while peer.next().is_some() {}
        });
        let program = Program::pantala(program).words();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{program} -V 311 -p {port} {flags} > /dev/full")]);
        let printed = start(shell, folder.path(), b"", None).end();
        printed.is("", 1);
        assert!(printed.stderr.contains("cannot write standard output: "), "{printed:?}");
        broker.join().unwrap();
    }
}

/// It named the broker's address, as if that were wrong.
#[test]
fn an_address_that_is_not_ours_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["-h", "127.0.0.1", "-A", "192.0.2.1", "-t", "t", "-m", "x"];
    let printed = pantala(folder.path(), "pub", &flags, b"");
    printed.is("", 1);
    assert!(printed.stderr.contains("cannot connect to 127.0.0.1:1883: from 192.0.2.1: "), "{printed:?}");
}

/// Everybody could read it, and with it what went over the wire.
#[test]
fn the_secrets_of_a_session_are_for_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets");
    let (port, broker) = broker_of(|listener| drop(listener.accept().unwrap()));
    let secrets = file.to_str().unwrap();
    let flags = ["-p", &port, "--tls-use-os-certs", "--tls-keylog", secrets, "-t", "t", "-m", "x"];
    assert_eq!(pantala(folder.path(), "pub", &flags, b"").status, Some(1));
    broker.join().unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}
