//! `-S`: the DNS names the broker.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use crate::bench::{Maker, with_each_suite};

/// A name server that answers every question with SRV records for `localhost`, one for each port, the first before the
/// second. It ends with the test.
fn name_server(ports: [u16; 2]) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            // Without the additional record of 11 bytes.
            let mut answer = bytes[..count - 11].to_vec();
            assert!(answer[12..].starts_with(b"\x05_mqtt\x04_tcp\x07example\x04test\0"), "{answer:?}");
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            (answer[7], answer[11]) = (2, 0);
            for (priority, port) in ports.iter().enumerate() {
                answer.extend(b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x11");
                answer.extend([0, u8::try_from(priority).unwrap(), 0, 0]);
                answer.extend(port.to_be_bytes());
                answer.extend(b"\x09localhost\0");
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    address.to_string()
}

#[test]
fn the_broker_is_found_by_srv_records() {
    with_each_suite("the_broker_is_found_by_srv_records", |suite| {
        if suite.clients == Maker::Debian {
            // Built without it.
            assert!(suite.run_bare("pub", &["-S", "-t", "t", "-m", "m"]).stderr.contains("Unknown option '-S'"));
            return;
        }
        let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let server = name_server([nobody, suite.broker.address.port()]);
        let address = ["-S", "-h", "example.test", "--name-server", &server];
        suite.run_bare("pub", &[&address[..], &["-t", "srv", "-r", "-q", "1", "-m", "found"]].concat()).is("", 0);
        suite.run_bare("sub", &[&address[..], &["-t", "srv", "-C", "1"]].concat()).is("found\n", 0);
    });
}

#[test]
fn what_goes_with_srv_records_and_what_does_not() {
    with_each_suite("what_goes_with_srv_records_and_what_does_not", |suite| {
        if suite.clients == Maker::Debian {
            return;
        }
        for (arguments, words) in [
            (&["-S"][..], "-h is missing: -S needs a domain"),
            (&["-S", "-h", "d", "-p", "1"], "-S and -p cannot be used together"),
            (&["-S", "-h", "d", "--ws"], "-S and --ws cannot be used together"),
            (&["-S", "-h", "d", "--unix", "/s"], "-S and --unix cannot be used together"),
            (&["--name-server", "127.0.0.1"], "-S is missing"),
            (&["-S", "-h", "d", "--name-server", "one"], "expected an address"),
            (&["-S", "-h", "::1"], "no name of the DNS"),
        ] {
            let printed = suite.run_bare("sub", &[&["-t", "t", "--no-reconnect"], arguments].concat());
            printed.is("", 1);
            assert!(printed.stderr.contains(words), "{arguments:?}: {}", printed.stderr);
        }
    });
}
