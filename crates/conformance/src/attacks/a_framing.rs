//! A: framing, before anybody is known.

use std::time::Duration;

use super::Attack;
use super::arena::{Arena, M, Noise, Raw, Told, ends, first, in_parallel, live};
use crate::case::Case;
use crate::peer::{Event, Outcome, Peer};
use crate::rules::label;
use crate::wire::{self, Packet, Publish, Subscribe, Will, prop, varint};
use crate::{ensure, fail, skip};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("A1", "PUBLISH before CONNECT", a1).peak(4 << 20),
    Attack::new("A2", "SUBSCRIBE, PINGREQ, DISCONNECT, AUTH before CONNECT", a2),
    Attack::new("A3", "packet types 0 and 15", a3),
    Attack::new("A4", "256 MB announced before CONNECT, then silence", a4).peak(4 << 20),
    Attack::new("A5", "CONNECT of 256 MB announced", a5).peak(4 << 20),
    Attack::new("A6", "Remaining Length of five bytes", a6),
    Attack::new("A7", "Remaining Length longer than needed", a7),
    Attack::new("A8", "a packet smuggled behind a PUBLISH that ends inside its topic", a8),
    Attack::new("A9", "reserved flag bits", a9),
    Attack::new("A10", "PINGREQ with a body", a10),
    Attack::new("A11", "every packet in segments of one byte", a11),
    Attack::new("A12", "1 000 packets in one segment", a12),
    Attack::new("A13", "a packet larger than the Maximum Packet Size is announced", a13).peak(4 << 20),
    Attack::new("A14", "packets of exactly the limit, and one byte more", a14),
    Attack::new("A15", "other protocols", a15),
    Attack::new("A16", "64 KiB of random bytes, 10 000 seeds", a16),
];

fn a1(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| first(case, "PUBLISH", [0x30, 0x05, 0x00, 0x01, 0x61, 0x78, 0x79], Told::Nothing))
}

fn a2(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let mut subscribe = Subscribe::to(case.topic("x"), 0);
        subscribe.packet_id = Some(1);
        first(case, "SUBSCRIBE", subscribe.encode(case.version), Told::Nothing)?;
        first(case, "PINGREQ", wire::PINGREQ, Told::Nothing)?;
        first(case, "DISCONNECT", wire::DISCONNECT, Told::Nothing)?;
        first(case, "AUTH", [0xf0, 0x00], Told::Nothing)
    })
}

fn a3(t: &Arena<'_>) -> Outcome {
    first(&t.v5, "type 0 first", [0x00, 0x00], Told::Nothing)?;
    // Only the first byte: nothing that could follow would make it right.
    live(&t.v5, "type 0 in 5.0", [0x00], M)?;
    live(&t.v311, "type 0 in 3.1.1", [0x00], &[])?;
    live(&t.v311, "type 15 in 3.1.1", [0xf0], &[])
}

fn a4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| first(case, "PUBLISH", [0x30, 0xff, 0xff, 0xff, 0x7f], Told::Nothing))
}

fn a5(t: &Arena<'_>) -> Outcome {
    first(&t.v5, "256 MB", [0x10, 0xff, 0xff, 0xff, 0x7f], Told::NothingOr(&[0x95]))?;
    first(&t.v5, "1 MB", [&[0x10][..], &varint(1_000_000)].concat(), Told::NothingOr(&[0x95]))?;
    // Byte by byte: closed when the length is known, and not only at the end.
    let mut peer = t.v5.dial("slow")?;
    for byte in [0x10, 0xff, 0xff, 0xff] {
        peer.send([byte]);
        ensure!(
            peer.event_within(Duration::from_millis(20))? == Event::Silence,
            "closed before the length of the packet was known"
        );
    }
    peer.send([0x7f]);
    super::arena::refused(&mut peer, Told::NothingOr(&[0x95]))
}

fn a6(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        // The fifth byte is not sent: the fourth is wrong already.
        first(case, "CONNECT", [0x10, 0xff, 0xff, 0xff, 0xff], Told::NothingOr(M))?;
        first(case, "CONNECT", [0x10, 0xff, 0xff, 0xff, 0xff, 0x01], Told::NothingOr(M))?;
        live(case, "PUBLISH", [0x30, 0xff, 0xff, 0xff, 0xff], M)
    })
}

fn a7(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        live(case, "PINGREQ", [0xc0, 0x80, 0x00], M)?;
        let body = [wire::string(case.topic("x")), vec![0]].concat();
        let length = [body.len() as u8 | 0x80, 0x80, 0x00];
        live(case, "PUBLISH", [&[0x30][..], &length, &body].concat(), M)?;
        let body = case.hello("a").body();
        let length = [body.len() as u8 | 0x80, 0x00];
        first(case, "CONNECT", [&[0x10][..], &length, &body].concat(), Told::NothingOr(M))
    })
}

fn a8(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let mut spy = case.connect("spy")?;
        spy.subscribe(case.topic("#"), 1)?;
        let mut other = case.connect("other")?;
        // The topic has 20 bytes, of which the packet holds 2; the others look like packets of their own.
        let torn = [0x30, 0x04, 0x00, 0x14, b'a', b'/'];
        let mut subscribe = Subscribe::to("#", 0);
        subscribe.packet_id = Some(1);
        let smuggled = Publish::new(case.topic("secret"), "m", 0).encode(case.version);
        let bytes = [&torn[..], &smuggled, &subscribe.encode(case.version), &smuggled].concat();
        live(case, "on a live connection", bytes, M)?;
        let bytes = [&torn[..], &case.hello("first").encode(), &smuggled].concat();
        first(case, "before CONNECT", bytes, Told::Nothing)?;
        let seen = spy.collect(case, &mut other)?;
        ensure!(seen.is_empty(), "the smuggled packet was taken for one: {seen:?}");
        Ok(())
    })
}

fn a9(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let v5 = case.version.is_v5();
        let with = |first: u8, mut bytes: Vec<u8>| {
            bytes[0] = first;
            bytes
        };
        first(case, "CONNECT 0x11", with(0x11, case.hello("a").encode()), Told::NothingOr(M))?;
        let mut subscribe = Subscribe::to(case.topic("x"), 0);
        subscribe.packet_id = Some(1);
        live(case, "PUBREL 0x60", wire::ack(0x60, 1), M)?;
        live(case, "SUBSCRIBE 0x80", with(0x80, subscribe.encode(case.version)), M)?;
        live(case, "UNSUBSCRIBE 0xa0", with(0xa0, wire::unsubscribe(case.version, 1, &[case.topic("x")])), M)?;
        for first in [0x41, 0x42, 0x51, 0x58, 0x71, 0x72] {
            live(case, &format!("acknowledgement 0x{first:02x}"), wire::ack(first, 1), M)?;
        }
        live(case, "PINGREQ 0xc1", [0xc1, 0x00], M)?;
        live(case, "DISCONNECT 0xe1", [0xe1, 0x00], M)?;
        if v5 { live(case, "AUTH 0xf1", [0xf1, 0x00], M) } else { Ok(()) }
    })
}

fn a10(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| live(case, "PINGREQ", [0xc0, 0x01, 0x00], M))
}

fn slowly(peer: &mut Peer, bytes: impl AsRef<[u8]>) {
    for byte in bytes.as_ref() {
        peer.send([*byte]);
    }
}

fn a11(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let connect = case.hello("a").will(Will::new(case.topic("will"), "gone"));
        let mut a = case.dial("a")?;
        slowly(&mut a, connect.encode());
        a.expect_connack()?;
        let mut subscribe = Subscribe::to(&topic, 2);
        subscribe.packet_id = Some(1);
        slowly(&mut a, subscribe.encode(case.version));
        ensure!(a.expect_suback(1)?.codes == [2], "SUBSCRIBE was not granted");
        for qos in 0..3_u8 {
            let mut publish = Publish::new(&topic, [qos], qos);
            publish.packet_id = (qos > 0).then_some(9);
            slowly(&mut a, publish.encode(case.version));
            if qos == 1 {
                a.expect_puback(9)?;
            } else if qos == 2 {
                a.expect_pubrec(9)?;
                slowly(&mut a, wire::ack(wire::PUBREL, 9));
                a.expect_pubcomp(9)?;
            }
            let got = a.expect_publish(&topic, [qos])?;
            match (got.qos, got.packet_id) {
                (1, Some(id)) => slowly(&mut a, wire::ack(wire::PUBACK, id)),
                (2, Some(id)) => {
                    slowly(&mut a, wire::ack(wire::PUBREC, id));
                    a.expect_pubrel(id)?;
                    slowly(&mut a, wire::ack(wire::PUBCOMP, id));
                }
                _ => {}
            }
        }
        slowly(&mut a, wire::unsubscribe(case.version, 2, &[&topic]));
        a.expect_unsuback(2)?;
        slowly(&mut a, wire::PINGREQ);
        ensure!(a.next("PINGRESP")? == Packet::PingResp, "no PINGRESP");
        slowly(&mut a, wire::DISCONNECT);
        ends(&mut a, &[])
    })
}

fn a12(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let mut a = case.connect("a")?;
        a.subscribe(&topic, 0)?;
        let mut segment = Vec::new();
        for number in 0..500_u16 {
            segment.extend(Publish::new(&topic, number.to_be_bytes(), 0).encode(case.version));
            segment.extend(wire::PINGREQ);
        }
        a.send(segment);
        for number in 0..500_u16 {
            a.expect_publish(&topic, number.to_be_bytes())?;
            match a.next("PINGRESP")? {
                Packet::PingResp => {}
                other => fail!("after message {number}: {other} in place of PINGRESP"),
            }
        }
        a.expect_nothing()
    })
}

/// The Maximum Packet Size that the broker announces.
pub(super) fn packet_bytes_max(t: &Arena<'_>) -> Outcome<u32> {
    let a = t.v5.connect("size")?;
    match a.connack.as_ref().and_then(|connack| connack.integer(prop::MAXIMUM_PACKET_SIZE)) {
        Some(size) => Ok(size),
        None => skip!("the broker announces no Maximum Packet Size"),
    }
}

/// A QoS 1 PUBLISH of exactly `bytes` bytes, fixed header and all.
pub(super) fn publish_of(case: &Case<'_>, topic: &str, bytes: usize) -> Vec<u8> {
    let of = |payload: usize| Publish::new(topic, vec![b'x'; payload], 1).id(1).encode(case.version);
    let overhead = of(bytes - 64).len() - (bytes - 64);
    of(bytes - overhead)
}

fn a13(t: &Arena<'_>) -> Outcome {
    let max = packet_bytes_max(t)?;
    t.in_both(|case| {
        // Nothing but the header.
        live(case, "PUBLISH", [&[0x30][..], &varint(max)].concat(), &[0x95])?;
        live(case, "PUBLISH of 256 MB", [0x3b, 0xff, 0xff, 0xff, 0x7f], &[0x95])?;
        live(case, "SUBSCRIBE", [&[0x82][..], &varint(max)].concat(), &[0x95])
    })
}

fn a14(t: &Arena<'_>) -> Outcome {
    let max = packet_bytes_max(t)? as usize;
    if max > 16 << 20 {
        skip!("the Maximum Packet Size is {max}");
    }
    t.in_both(|case| {
        let topic = case.topic("x");
        let right = publish_of(case, &topic, max);
        ensure!(right.len() == max, "a packet of {} bytes for a limit of {max}", right.len());
        let mut a = case.connect("a")?;
        a.send(right);
        a.expect_puback(1)?;
        live(case, "one byte more", publish_of(case, &topic, max + 1), &[0x95])
    })
}

/// What other protocols begin with, and the word for each that a log should have.
const STRANGERS: &[(&str, &[u8])] = &[
    ("HTTP", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
    (
        "TLS",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
    ),
    ("SSH", b"SSH-2.0-OpenSSH_10.0\r\n"),
    ("PROXY", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    ("PROXY", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"),
];

fn a15(t: &Arena<'_>) -> Outcome {
    for (what, bytes) in STRANGERS {
        first(&t.v5, what, bytes, Told::Nothing)?;
    }
    let (mut server, v5, _) = match t.server("", "allow_anonymous = true") {
        Ok(server) => server,
        // The log is a part that needs a broker whose log can be read; the rest has been seen.
        Err(crate::peer::Stop::Skip(_)) => return Ok(()),
        Err(stop) => return Err(stop),
    };
    for (what, bytes) in STRANGERS {
        first(&v5, what, bytes, Told::Nothing)?;
    }
    for (what, _) in STRANGERS {
        label(what, server.await_log(what, |log| log.contains(what)))?;
    }
    server.check()
}

fn a16(t: &Arena<'_>) -> Outcome {
    const SEEDS: usize = 10_000;
    const BYTES: usize = 65_536;
    // Names are made before, as a case belongs to one thread.
    let connects: Vec<Vec<u8>> = [&t.v5, &t.v311].map(|case| case.hello("noise").encode()).to_vec();
    let address = t.v5.target().to_owned();
    let patience = t.v5.patience();
    in_parallel(SEEDS, |seed| {
        let mut noise = Noise::new(seed as u64);
        let mut bytes = match seed % 4 {
            // Nothing but noise.
            0 => Vec::new(),
            // Noise in the place of what CONNECT holds.
            1 => vec![0x10],
            // Noise after CONNECT.
            form => connects[form - 2].clone(),
        };
        if seed % 8 == 5 {
            // A CONNECT of which a few bytes are wrong.
            bytes = connects[0].clone();
            for _ in 0..1 + noise.number() % 4 {
                let at = noise.number() as usize % bytes.len();
                bytes[at] = noise.number() as u8;
            }
        }
        bytes.extend(noise.bytes(BYTES - bytes.len()));
        label(&format!("seed {seed}"), Raw::dial(&address, patience, &bytes).and_then(Raw::end))
    })
}
