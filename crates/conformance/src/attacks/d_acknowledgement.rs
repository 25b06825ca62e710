//! D: acknowledgements, and the state they belong to.

use super::Attack;
use super::arena::{Arena, M, M_OR_P, P, Raw, Told, ends, first, live, scram_enter, two_byte};
use crate::case::Case;
use crate::peer::{Event, Outcome, Peer, Stop, payloads};
use crate::rules::label;
use crate::scram::Exchange;
use crate::wire::{self, Packet, Publish, packet, prop, properties, text};
use crate::{ensure, fail};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("D1", "packets that only a server sends", d1),
    Attack::new("D2", "acknowledgements before CONNECT", d2),
    Attack::new("D3", "PUBACK for an unknown identifier", d3),
    Attack::new("D4", "the acknowledgement of another QoS", d4),
    Attack::new("D5", "PUBREL for an unknown identifier", d5),
    Attack::new("D6", "PUBCOMP before PUBREC", d6),
    Attack::new("D7", "acknowledgements with identifier 0", d7),
    Attack::new("D8", "acknowledgements with wrong Reason Codes and properties", d8),
    Attack::new("D9", "65 535 QoS 2 messages never released", d9).peak(32 << 20),
    Attack::new("D10", "the same QoS 2 message a million times", d10).peak(24 << 20),
    Attack::new("D11", "acknowledgements in another order", d11),
    Attack::new("D12", "the same acknowledgement a hundred times", d12),
    Attack::new("D13", "PUBREC with an error", d13),
    Attack::new("D14", "a million PUBREL for unknown identifiers", d14).peak(24 << 20),
    Attack::new("D15", "PUBREC for a Session that is lost", d15),
    Attack::new("D16", "authenticating again while QoS 2 is in flight", d16),
];

fn d1(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let v5 = case.version.is_v5();
        let list: [(&str, Vec<u8>); 4] = [
            ("CONNACK", packet(0x20, if v5 { &[0, 0, 0] } else { &[0, 0] })),
            ("SUBACK", packet(0x90, if v5 { &[0, 1, 0, 0] } else { &[0, 1, 0] })),
            ("UNSUBACK", packet(0xB0, if v5 { &[0, 1, 0, 0] } else { &[0, 1] })),
            ("PINGRESP", packet(0xD0, &[])),
        ];
        for (what, bytes) in list {
            first(case, what, &bytes, Told::Nothing)?;
            live(case, what, &bytes, P)?;
        }
        Ok(())
    })
}

fn d2(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        [wire::PUBACK, wire::PUBREC, wire::PUBREL, wire::PUBCOMP]
            .into_iter()
            .try_for_each(|kind| first(case, &format!("0x{kind:02x}"), wire::ack(kind, 1), Told::Nothing))
    })
}

fn d3(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let mut a = case.connect("a")?;
        for id in [1, 7, 65_535] {
            a.send(wire::ack(wire::PUBACK, id));
        }
        a.expect_nothing()?;
        a.subscribe(&topic, 1)?;
        a.publish(&topic, "m", 1)?;
        a.receive(&topic, "m")?;
        a.send(wire::ack(wire::PUBACK, 300));
        a.expect_nothing()
    })
}

/// A client to which one message of this QoS is on the way; its identifier.
fn with_delivery(case: &Case<'_>, qos: u8) -> Outcome<(Peer, u16)> {
    let topic = case.topic("x");
    let mut a = case.connect("a")?;
    a.subscribe(&topic, qos)?;
    a.publish(&topic, "m", qos)?;
    let got = a.expect_publish(&topic, "m")?;
    match got.packet_id {
        Some(id) if got.qos == qos => Ok((a, id)),
        _ => fail!("published at QoS {qos}, got {}", Packet::Publish(got)),
    }
}

fn d4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for (qos, kind) in [(1, wire::PUBREC), (1, wire::PUBCOMP), (2, wire::PUBACK)] {
            let (mut a, id) = with_delivery(case, qos)?;
            a.send(wire::ack(kind, id));
            label(&format!("0x{kind:02x} for QoS {qos}"), ends(&mut a, P))?;
        }
        Ok(())
    })
}

fn d5(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let mut a = case.connect("a")?;
        for id in [1, 9, 65_535] {
            a.send(wire::ack(wire::PUBREL, id));
            let code = a.expect_pubcomp(id)?.code();
            let expected = if case.version.is_v5() { 0x92 } else { 0x00 };
            ensure!(code == expected, "PUBCOMP {id} with 0x{code:02X}");
        }
        Ok(())
    })
}

fn d6(t: &Arena<'_>) -> Outcome {
    // In 3.1.1 a client cannot say that it takes one message at a time.
    let case = &t.v5;
    let topic = case.topic("x");
    let connect = case.hello("s").with(two_byte(prop::RECEIVE_MAXIMUM, 1));
    let mut s = case.connect_with("s", &connect)?;
    s.subscribe(&topic, 2)?;
    let mut p = case.connect("p")?;
    p.publish(&topic, "1", 2)?;
    p.publish(&topic, "2", 2)?;
    let id = s.expect_publish(&topic, "1")?.packet_id.unwrap_or(0);
    s.send(wire::ack(wire::PUBCOMP, id));
    s.send(wire::PINGREQ);
    match s.event()? {
        Event::Packet(Packet::Disconnect(answer)) => {
            ensure!(answer.code() == 0x82, "DISCONNECT 0x{:02X}", answer.code());
            ends(&mut s, &[])
        }
        Event::Packet(Packet::PingResp) => Ok(()),
        Event::Packet(Packet::Publish(publish)) => {
            fail!("a slot was freed: {}", Packet::Publish(publish));
        }
        event => fail!("{event:?} after PUBCOMP"),
    }
}

fn d7(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        [wire::PUBACK, wire::PUBREC, wire::PUBREL, wire::PUBCOMP]
            .into_iter()
            .try_for_each(|kind| live(case, &format!("0x{kind:02x}"), wire::ack(kind, 0), P))
    })
}

fn d8(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let kinds = [wire::PUBACK, wire::PUBREC, wire::PUBREL, wire::PUBCOMP];
    for kind in kinds {
        for code in [0x01, 0x18, 0x81, 0xff] {
            live(case, &format!("0x{kind:02x}, code 0x{code:02x}"), wire::ack_with(kind, 1, code), M)?;
        }
        let reason = text(prop::REASON_STRING, "why");
        let twice = [&[0, 1, 0][..], &properties(&[reason.clone(), reason])].concat();
        live(case, &format!("0x{kind:02x}, twice"), packet(kind, &twice), M_OR_P)?;
        live(case, &format!("0x{kind:02x}, one byte"), packet(kind, &[0]), M)?;
        live(case, &format!("0x{kind:02x}, bytes after"), packet(kind, &[0, 1, 0, 0, 0]), M)?;
        // 0x10 belongs to PUBACK and PUBREC.
        if kind == wire::PUBREL || kind == wire::PUBCOMP {
            live(case, &format!("0x{kind:02x}, code 0x10"), wire::ack_with(kind, 1, 0x10), M)?;
        }
    }
    for kind in kinds {
        live(&t.v311, &format!("3.1.1, 0x{kind:02x}, three bytes"), wire::ack_with(kind, 1, 0), &[])?;
    }
    // Right: a code without properties, and with properties of length 0.
    let (mut a, id) = with_delivery(case, 1)?;
    a.send(wire::ack_with(wire::PUBACK, id, 0x10));
    a.expect_nothing()?;
    let [high, low] = id.to_be_bytes();
    a.send(packet(wire::PUBACK, &[high, low, 0, 0]));
    a.expect_nothing()
}

fn d9(t: &Arena<'_>) -> Outcome {
    let publish = |case: &Case<'_>, id: u16| Publish::new(case.topic("x"), "m", 2).id(id).encode(case.version);
    let flood = |case: &Case<'_>| {
        let bytes: Vec<u8> = (1..=u16::MAX).flat_map(|id| publish(case, id)).collect();
        let mut raw = Raw::connect(case, &case.hello("a"))?;
        raw.flood(&bytes, 1, |counts| counts[5] == 65_535)
    };
    let counts = flood(&t.v5)?;
    ensure!(counts[14] == 1 || counts[5] == 65_535, "5.0: neither all taken nor cut off: {counts:?}");
    // 3.1.1 knows no Receive Maximum: all are taken, each for a few bytes.
    let counts = flood(&t.v311)?;
    ensure!(counts[5] == 65_535, "3.1.1: {} PUBREC for 65 535 PUBLISH", counts[5]);
    Ok(())
}

fn d10(t: &Arena<'_>) -> Outcome {
    const TIMES: usize = 1_000_000;
    const CHUNK: usize = 1_000;
    let case = &t.v5;
    let mut s = case.connect("s")?;
    s.subscribe(case.topic("x"), 0)?;
    let chunk = Publish::new(case.topic("x"), "m", 2).id(7).encode(case.version).repeat(CHUNK);
    let mut raw = Raw::connect(case, &case.hello("a"))?;
    let counts = raw.flood(&chunk, TIMES / CHUNK, |counts| counts[5] == TIMES)?;
    ensure!(counts[5] == TIMES, "{} PUBREC for {TIMES} PUBLISH", counts[5]);
    let seen = s.collect(case, &mut case.connect("p")?)?;
    ensure!(seen.len() == 1, "delivered {} times", seen.len());
    Ok(())
}

fn d11(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let mut s = case.resume("s", false)?;
        s.subscribe(&topic, 1)?;
        let mut p = case.connect("p")?;
        for number in 0..10_u8 {
            p.publish(&topic, [b'0' + number], 1)?;
        }
        let ids: Vec<u16> = (0..10_u8)
            .map(|number| Ok(s.expect_publish(&topic, [b'0' + number])?.packet_id.unwrap_or(0)))
            .collect::<Outcome<_>>()?;
        for number in [9, 1, 7, 3, 5] {
            s.send(wire::ack(wire::PUBACK, ids[number]));
        }
        s.fence()?;
        s.cut()?;
        let mut s = case.resume("s", true)?;
        let seen = payloads(&s.collect(case, &mut p)?);
        ensure!(seen == ["0", "2", "4", "6", "8"], "1, 3, 5, 7 and 9 were acknowledged; delivered again: {seen:?}");
        s.cut()?;
        let mut s = case.resume("s", true)?;
        s.expect_nothing()
    })
}

fn d12(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let connect = case.hello("s").with(two_byte(prop::RECEIVE_MAXIMUM, 2));
    let mut s = case.connect_with("s", &connect)?;
    s.subscribe(&topic, 1)?;
    let mut p = case.connect("p")?;
    for number in 0..10_u8 {
        p.publish(&topic, [b'0' + number], 1)?;
    }
    let mut on_the_way = Vec::new();
    for number in 0..2_u8 {
        on_the_way.push(s.expect_publish(&topic, [b'0' + number])?.packet_id.unwrap_or(0));
    }
    s.expect_nothing()?;
    for number in 2..10_u8 {
        let id = on_the_way.remove(0);
        s.send(wire::ack(wire::PUBACK, id).repeat(100));
        let got = s.expect_publish(&topic, [b'0' + number])?.packet_id.unwrap_or(0);
        ensure!(got != id, "identifier {id} was given out again at once");
        on_the_way.push(got);
        label(&format!("after 100 PUBACK {id}"), s.expect_nothing())?;
    }
    Ok(())
}

fn d13(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let connect = || case.lasting("s").with(two_byte(prop::RECEIVE_MAXIMUM, 1));
    let mut s = case.connect_with("s", &connect())?;
    s.subscribe(&topic, 2)?;
    let mut p = case.connect("p")?;
    for payload in ["1", "2", "3"] {
        p.publish(&topic, payload, 2)?;
    }
    for payload in ["1", "2"] {
        let id = s.expect_publish(&topic, payload)?.packet_id.unwrap_or(0);
        s.send(wire::ack_with(wire::PUBREC, id, 0x97));
    }
    s.receive(&topic, "3")?;
    s.expect_nothing()?;
    s.cut()?;
    let mut s = case.connect_with("s", &connect())?;
    s.expect_nothing()
}

fn d14(t: &Arena<'_>) -> Outcome {
    const TIMES: usize = 1_000_000;
    const CHUNK: usize = 1_000;
    let case = &t.v5;
    let chunk: Vec<u8> = (1..=CHUNK as u16).flat_map(|id| wire::ack(wire::PUBREL, id)).collect();
    let mut raw = Raw::connect(case, &case.hello("a"))?;
    let counts = raw.flood(&chunk, TIMES / CHUNK, |counts| counts[7] == TIMES)?;
    ensure!(
        counts[7] == TIMES || counts[14] == 1,
        "neither answered nor cut off: {} PUBCOMP for {TIMES} PUBREL",
        counts[7]
    );
    Ok(())
}

fn d15(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let mut s = case.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    s.publish(&topic, "m", 2)?;
    let id = s.expect_publish(&topic, "m")?.packet_id.unwrap_or(0);
    s.cut()?;
    // The Session is discarded; the client does not know and goes on.
    let mut s = case.connect_with("s", &case.lasting("s").clean(true))?;
    s.send(wire::ack(wire::PUBREC, id));
    match s.next("PUBREL")? {
        Packet::PubRel(answer) if answer.packet_id == id && answer.code() == 0x92 => {}
        other => fail!("expected PUBREL {id} with 0x92, got {other}"),
    }
    s.send(wire::ack_with(wire::PUBCOMP, id, 0x92));
    s.expect_nothing()
}

fn d16(t: &Arena<'_>) -> Outcome {
    let (mut server, case) = t.scram_server("")?;
    let topic = case.topic("x");
    let mut a = scram_enter(&case, case.hello("a"))?;
    a.subscribe(&topic, 2)?;
    // Both ways: ours not released, theirs not acknowledged.
    a.send(Publish::new(&topic, "m", 2).id(5).encode(case.version));
    a.expect_pubrec(5)?;
    let id = a.expect_publish(&topic, "m")?.packet_id.unwrap_or(0);

    let (user, password) = super::arena::SCRAM_USER;
    let mut exchange = Exchange::new(user, password, &case.id("again"));
    a.send(wire::auth(0x19, &super::arena::method_and(&exchange.client_first())));
    let server_first = super::arena::challenge(&mut a)?;
    // In the middle of it the exchanges go on.
    a.send(Publish::new(&topic, "m", 2).id(5).dup().encode(case.version));
    a.expect_pubrec(5)?;
    let last = exchange.client_final(&server_first).map_err(Stop::Fail)?;
    a.send(wire::auth(0x18, &super::arena::method_and(&last)));
    match a.next("AUTH 0x00")? {
        Packet::Auth(answer) if answer.code() == 0 => {}
        other => fail!("expected AUTH 0x00, got {other}"),
    }
    a.send(wire::ack(wire::PUBREL, 5));
    let code = a.expect_pubcomp(5)?.code();
    ensure!(code == 0, "our message was forgotten: PUBCOMP 0x{code:02X}");
    a.send(wire::ack(wire::PUBREC, id));
    a.expect_pubrel(id)?;
    a.send(wire::ack(wire::PUBCOMP, id));
    a.expect_nothing()?;
    server.check()
}
