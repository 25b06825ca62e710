//! The suite against brokers that are wrong on purpose: a test that such a broker passes shows nothing.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use pantala_conformance::wire::{self, Version};
use pantala_conformance::{Options, Report, Verdict, run};

/// Serves every connection by `serve`, on a thread each, as long as the test program runs.
fn broker(serve: fn(TcpStream) -> std::io::Result<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The other side ends connections as it likes.
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    address
}

fn options() -> Options {
    Options { patience: Duration::from_millis(150), jobs: 16, ..Options::default() }
}

fn passed(report: &Report) -> BTreeSet<(Version, &'static str)> {
    report.rows().iter().filter(|row| row.verdict == Verdict::Pass).map(|row| (row.version, row.id)).collect()
}

/// Takes everything for granted and delivers nothing: acknowledges each packet, closes for none.
fn agree(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut input, mut version) = (Vec::new(), Version::V311);
    loop {
        while let Ok(Some((first, body, size))) = wire::take_frame(&input) {
            let (first, body) = (first, body.to_vec());
            input.drain(..size);
            let v5 = version.is_v5();
            let at = |i: usize| body.get(i).copied().unwrap_or(1);
            let answer = match first >> 4 {
                1 => {
                    version = if at(6) == 5 { Version::V5 } else { Version::V311 };
                    wire::packet(0x20, if version.is_v5() { &[0, 0, 0] } else { &[0, 0] })
                }
                3 if first & 6 != 0 => {
                    let topic = usize::from(u16::from_be_bytes([at(0), at(1)]));
                    let kind = if first & 6 == 2 { wire::PUBACK } else { wire::PUBREC };
                    wire::packet(kind, &[at(2 + topic), at(3 + topic)])
                }
                6 => wire::packet(wire::PUBCOMP, &[at(0), at(1)]),
                8 => {
                    let qos = body.last().map_or(0, |options| options & 3).min(2);
                    let codes: &[u8] = if v5 { &[0, qos] } else { &[qos] };
                    wire::packet(0x90, &[&[at(0), at(1)], codes].concat())
                }
                10 if v5 => wire::packet(0xB0, &[at(0), at(1), 0, 0]),
                10 => wire::packet(0xB0, &[at(0), at(1)]),
                12 => wire::packet(0xD0, &[]),
                _ if first == 0xE0 => return Ok(()),
                _ => Vec::new(),
            };
            stream.write_all(&answer)?;
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            n => input.extend_from_slice(&chunk[..n]),
        }
    }
}

#[test]
fn a_broker_that_closes_every_connection_passes_nothing() {
    let report = run(&broker(|_stream| Ok(())), &options());
    assert_eq!(passed(&report), BTreeSet::new());
    assert_eq!(report.skipped(), 0);
}

/// What such a broker does right: it answers, and what it never sends is never too large.
const ANSWERED: &[(Version, &str)] = &[
    (Version::V311, "MQTT-2.3.1-7"),
    (Version::V311, "MQTT-3.1.3-5"),
    (Version::V311, "MQTT-3.10.4-4"),
    (Version::V311, "MQTT-3.10.4-5"),
    (Version::V311, "MQTT-3.12.4-1"),
    (Version::V311, "MQTT-3.3.4-1"),
    (Version::V311, "MQTT-3.3.5-2"),
    (Version::V5, "MQTT-2.2.1-6"),
    (Version::V5, "MQTT-3.1.2-28"),
    (Version::V5, "MQTT-3.1.3-5"),
    (Version::V5, "MQTT-3.10.4-4"),
    (Version::V5, "MQTT-3.10.4-5"),
    (Version::V5, "MQTT-3.12.4-1"),
    (Version::V5, "MQTT-3.2.2-9"),
    (Version::V5, "MQTT-3.3.4-1"),
    (Version::V5, "MQTT-3.4.2-2"),
    (Version::V5, "MQTT-3.4.2-3"),
    (Version::V5, "MQTT-3.5.2-2"),
    (Version::V5, "MQTT-3.5.2-3"),
    (Version::V5, "MQTT-3.6.2-2"),
    (Version::V5, "MQTT-3.6.2-3"),
    (Version::V5, "MQTT-3.7.2-2"),
    (Version::V5, "MQTT-3.7.2-3"),
];

#[test]
fn a_broker_that_agrees_to_everything_passes_no_more_than_it_answers() {
    let report = run(&broker(agree), &options());
    // A loaded machine may be late with an answer, so some of these may be missing; none may be added.
    let vacuous: Vec<_> = passed(&report).into_iter().filter(|row| !ANSWERED.contains(row)).collect();
    assert_eq!(vacuous, []);
    assert!(report.failed() > 200, "{report}");
    assert!(!report.to_string().contains("panicked"), "{report}");
}
