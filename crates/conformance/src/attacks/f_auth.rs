//! F: PINGREQ, DISCONNECT, AUTH.

use std::time::{Duration, Instant};

use super::Attack;
use super::arena::{
    Arena, M, P, Raw, SCRAM_USER, Told, challenge, ends, first, four_byte, live, method_and, refused, scram_connect,
    scram_enter,
};
use crate::case::Case;
use crate::peer::{Event, Outcome, Peer, Stop, payloads};
use crate::rules::label;
use crate::scram::{Exchange, METHOD};
use crate::wire::{self, Packet, Publish, Value, Will, prop, text};
use crate::{ensure, fail};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("F1", "a million PINGREQ", f1).peak(24 << 20),
    Attack::new("F2", "DISCONNECT that keeps a Session that was to end", f2),
    Attack::new("F3", "DISCONNECT with and without Will Message", f3),
    Attack::new("F4", "packets after DISCONNECT", f4),
    Attack::new("F5", "DISCONNECT with codes of the server", f5),
    Attack::new("F6", "AUTH without method in CONNECT", f6),
    Attack::new("F7", "another method in mid-exchange", f7),
    Attack::new("F8", "an authentication without end", f8).beside(),
    Attack::new("F9", "SCRAM-SHA-256 with wrong nonces, bindings and proofs", f9),
    Attack::new("F10", "packets before authentication has succeeded", f10),
];

fn f1(t: &Arena<'_>) -> Outcome {
    const TIMES: usize = 1_000_000;
    const CHUNK: usize = 10_000;
    let case = &t.v5;
    let mut raw = Raw::connect(case, &case.hello("a"))?;
    let counts = raw.flood(&wire::PINGREQ.repeat(CHUNK), TIMES / CHUNK, |counts| counts[13] == TIMES)?;
    // All answered, or fewer answers for more questions, and then still there.
    ensure!(counts[13] > 0 && counts[13] <= TIMES, "{} PINGRESP for {TIMES} PINGREQ", counts[13]);
    raw.send(&Publish::new(case.topic("x"), "m", 1).id(1).encode(case.version));
    ensure!(raw.count(|counts| counts[4] == 1)?[4] == 1, "no PUBACK after the flood");
    raw.end()
}

fn f2(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    for seconds in [1, u32::MAX] {
        let bytes = wire::disconnect(0x00, &[four_byte(prop::SESSION_EXPIRY_INTERVAL, seconds)]);
        live(case, &format!("{seconds}"), bytes, P)?;
    }
    // The Session has ended, and the other way round it may.
    let a = case.resume("live", false)?;
    a.end(&wire::disconnect(0x00, &[four_byte(prop::SESSION_EXPIRY_INTERVAL, 0)]))?;
    case.resume("live", false).map(drop)
}

fn f3(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("will");
    let mut watcher = case.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    let with_will = |payload: &str| case.connect_with("a", &case.hello("a").will(Will::new(&topic, payload)));
    with_will("with will")?.end(&wire::disconnect(0x04, &[]))?;
    watcher.receive(&topic, "with will")?;
    with_will("without")?.end(&wire::disconnect(0x00, &[]))?;
    with_will("without")?.end(wire::DISCONNECT)?;
    let seen = watcher.collect(case, &mut case.connect("p")?)?;
    ensure!(seen.is_empty(), "a Will that was given back went out: {:?}", payloads(&seen));
    Ok(())
}

fn f4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let mut spy = case.connect("spy")?;
        spy.subscribe(case.topic("#"), 1)?;
        let mut a = case.connect_with("a", &case.hello("a").will(Will::new(&topic, "will")))?;
        let publish = |id| Publish::new(&topic, "late", 1).id(id).encode(case.version);
        a.send([wire::DISCONNECT, &publish(1), wire::PINGREQ, &case.hello("b").encode(), &publish(2)].concat());
        let deadline = Instant::now() + super::arena::CLOSE_DURATION_MAX;
        match a.event_within(deadline.saturating_duration_since(Instant::now()))? {
            Event::Closed => {}
            event => fail!("{event:?} after DISCONNECT"),
        }
        let seen = spy.collect(case, &mut case.connect("p")?)?;
        ensure!(seen.is_empty(), "taken after DISCONNECT: {:?}", payloads(&seen));
        Ok(())
    })
}

fn f5(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("will");
    let mut watcher = case.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    for code in [0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2] {
        let mut a = case.connect_with("a", &case.hello("a").will(Will::new(&topic, [code])))?;
        a.send(wire::disconnect(code, &[]));
        label(&format!("0x{code:02X}"), ends(&mut a, P))?;
        // It was no DISCONNECT, so the Will goes out.
        watcher.receive(&topic, [code])?;
    }
    for code in [0x01, 0x10, 0x92, 0xff] {
        live(case, &format!("0x{code:02X}"), wire::disconnect(code, &[]), &[0x81, 0x82])?;
    }
    live(case, "a Server Reference", wire::disconnect(0x00, &[text(prop::SERVER_REFERENCE, "evil:1883")]), P)?;
    live(&t.v311, "3.1.1 with a body", wire::disconnect(0x00, &[]), &[])
}

fn f6(t: &Arena<'_>) -> Outcome {
    for code in [0x00, 0x18, 0x19] {
        let bytes = wire::auth(code, &method_and(b"data"));
        live(&t.v5, &format!("AUTH 0x{code:02x}"), bytes, P)?;
    }
    live(&t.v5, "AUTH without anything", [0xf0, 0x00], P)
}

/// The beginning of an exchange: connection, exchange, and the server's first message.
fn begun(case: &Case<'_>, name: &str) -> Outcome<(Peer, Exchange, Vec<u8>)> {
    let exchange = Exchange::new(SCRAM_USER.0, SCRAM_USER.1, &case.id("nonce"));
    let mut a = case.send_first(name, scram_connect(case, name, &exchange.client_first()).encode())?;
    let server_first = challenge(&mut a)?;
    Ok((a, exchange, server_first))
}

fn f7(t: &Arena<'_>) -> Outcome {
    let (mut server, case) = t.scram_server("")?;
    for method in [None, Some("SCRAM-SHA-1"), Some("scram-sha-256"), Some("")] {
        let (mut a, mut exchange, server_first) = begun(&case, "a")?;
        let last = exchange.client_final(&server_first).map_err(Stop::Fail)?;
        let mut properties = vec![(prop::AUTHENTICATION_DATA, Value::Binary(last))];
        properties.extend(method.map(|method| text(prop::AUTHENTICATION_METHOD, method)));
        a.send(wire::auth(0x18, &properties));
        label(&format!("{method:?} in CONNECT"), refused(&mut a, Told::Code(P)))?;
        let mut a = scram_enter(&case, case.hello("a"))?;
        let properties: Vec<_> = method.map(|method| text(prop::AUTHENTICATION_METHOD, method)).into_iter().collect();
        a.send(wire::auth(0x19, &properties));
        label(&format!("{method:?} later"), ends(&mut a, P))?;
    }
    server.check()
}

fn f8(t: &Arena<'_>) -> Outcome {
    const TIMEOUT: Duration = Duration::from_secs(2);
    const LATEST: Duration = Duration::from_millis(4_500);
    let (mut server, case) = match t.scram_server("[limits]\nconnect_seconds = 2\n") {
        Ok(server) => server,
        Err(stop) => {
            t.ready();
            return Err(stop);
        }
    };
    let begin = Instant::now();
    let (mut silent, _, _) = begun(&case, "silent")?;
    t.ready();
    // Rounds: neither the same message again and again nor empty ones keep it going.
    for data in [&b""[..], b"n,,n=mallory,r=again", b"c=biws,r=x,p=AAAA"] {
        let (mut a, _, _) = begun(&case, "rounds")?;
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut rounds = 0;
        loop {
            a.send(wire::auth(0x18, &method_and(data)));
            match a.event_within(deadline.saturating_duration_since(Instant::now()))? {
                Event::Packet(Packet::Auth(_)) if rounds < 100 => rounds += 1,
                Event::Packet(Packet::ConnAck(connack)) if connack.code >= 0x80 => {}
                Event::Closed => break,
                event => fail!("{event:?} in round {rounds} of an authentication without end"),
            }
        }
    }
    // Time: who says nothing is closed.
    let left = (begin + LATEST).saturating_duration_since(Instant::now());
    let event = silent.event_within(left)?;
    ensure!(matches!(event, Event::Closed | Event::Packet(Packet::ConnAck(_))), "{event:?} on a silent client");
    ensure!(begin.elapsed() + Duration::from_millis(100) >= TIMEOUT, "closed after {:?} already", begin.elapsed());
    server.check()
}

fn f9(t: &Arena<'_>) -> Outcome {
    let (mut server, case) = t.scram_server("")?;
    const CODES: &[u8] = &[0x80, 0x81, 0x82, 0x86, 0x87];
    // Wrong from the first message on.
    let long = format!("n,,n=mallory,r={}", "n".repeat(10_000));
    for message in [
        "p=tls-unique,,n=mallory,r=nonce",
        "n,a=admin,n=mallory,r=nonce",
        "n,,n=mallory",
        "n,,n=mallory,r=",
        "n,,n=,r=nonce",
        "n,,m=ext,n=mallory,r=nonce",
        "n,,n=mal=lory,r=nonce",
        "",
        "n,,",
        &long,
    ] {
        let what = format!("first message {:?}", wire::clip(message.as_bytes()));
        first(&case, &what, scram_connect(&case, "a", message.as_bytes()).encode(), Told::Code(CODES))?;
    }
    // Wrong in the last one.
    type Tamper = fn(&str) -> String;
    let tampers: [(&str, Tamper); 8] = [
        ("another channel binding", |last| last.replacen("c=biws", "c=eSws", 1)),
        ("no channel binding", |last| last.replacen("c=biws,", "", 1)),
        ("the client's nonce alone", |last| last.replacen(",r=", ",r=x", 1)),
        ("a truncated proof", |last| last[..last.len() - 8].to_owned()),
        ("a proof of nothing", |last| format!("{}p=", &last[..last.find("p=").unwrap_or(0)])),
        ("a proof of zeros", |last| format!("{}p={}=", &last[..last.find("p=").unwrap_or(0)], "A".repeat(43))),
        ("no proof", |last| last[..last.find(",p=").unwrap_or(0)].to_owned()),
        ("a longer proof", |last| format!("{last}AAAA")),
    ];
    for (what, tamper) in tampers {
        let (mut a, mut exchange, server_first) = begun(&case, "a")?;
        let last = exchange.client_final(&server_first).map_err(Stop::Fail)?;
        a.send(wire::auth(0x18, &method_and(tamper(&String::from_utf8_lossy(&last)).as_bytes())));
        label(what, refused(&mut a, Told::Code(CODES)))?;
    }
    // The last message of an exchange that has succeeded, in another one with the same nonce of the client.
    let (mut a, mut exchange, server_first) = begun(&case, "a")?;
    let last = exchange.client_final(&server_first).map_err(Stop::Fail)?;
    a.send(wire::auth(0x18, &method_and(&last)));
    a.expect_connack()?;
    let (mut b, _, second) = begun(&case, "b")?;
    ensure!(second != server_first, "the server has used its nonce again");
    b.send(wire::auth(0x18, &method_and(&last)));
    label("a replay", refused(&mut b, Told::Code(CODES)))?;

    // The count is the server's to choose, and it is reasonable; nobody learns who exists.
    let field = |message: &[u8], name: &str| {
        let text = String::from_utf8_lossy(message).into_owned();
        text.split(',').find_map(|field| field.strip_prefix(name).map(str::to_owned)).unwrap_or_default()
    };
    let count: u32 = field(&second, "i=").parse().unwrap_or(0);
    ensure!((4_096..=1_000_000).contains(&count), "iteration count {count}");
    let ask = |user: &str| -> Outcome<Vec<u8>> {
        let exchange = Exchange::new(user, "x", &case.id("nonce"));
        challenge(&mut case.send_first("c", scram_connect(&case, "c", &exchange.client_first()).encode())?)
    };
    let (one, two, other) = (ask("nobody")?, ask("nobody")?, ask("no other")?);
    ensure!(field(&one, "i=") == field(&second, "i="), "the iteration count tells who exists");
    ensure!(field(&one, "s=") == field(&two, "s="), "the salt of who does not exist changes");
    ensure!(field(&one, "s=") != field(&other, "s="), "all who do not exist have the same salt");
    ensure!(field(&one, "s=").len() == field(&second, "s=").len(), "the length of the salt tells who exists");
    server.check()
}

fn f10(t: &Arena<'_>) -> Outcome {
    let (mut server, case) = t.scram_server("")?;
    let topic = case.topic("x");
    let mut spy = case.connect("spy")?;
    spy.subscribe(case.topic("#"), 1)?;
    let publish = Publish::new(&topic, "too early", 1).id(1).retained().encode(case.version);
    let mut subscribe = wire::Subscribe::to("#", 0);
    subscribe.packet_id = Some(2);
    for (what, early) in [
        ("PUBLISH", publish.clone()),
        ("SUBSCRIBE", subscribe.encode(case.version)),
        ("PINGREQ", wire::PINGREQ.to_vec()),
        ("PUBREL", wire::ack(wire::PUBREL, 1)),
    ] {
        // In the segment of CONNECT, and after the challenge.
        let exchange = Exchange::new(SCRAM_USER.0, SCRAM_USER.1, &case.id("nonce"));
        let connect = scram_connect(&case, "a", &exchange.client_first()).encode();
        let mut a = case.send_first("a", [connect, early.clone()].concat())?;
        match a.event()? {
            Event::Packet(Packet::Auth(answer)) if answer.code() == 0x18 => {}
            event => fail!("{event:?} in place of AUTH"),
        }
        label(what, refused(&mut a, Told::NothingOr(P)))?;
        let (mut a, _, _) = begun(&case, "a")?;
        a.send(&early);
        label(what, refused(&mut a, Told::NothingOr(P)))?;
    }
    // A wrong proof, with the message behind it in the same segment.
    let (mut a, _, _) = begun(&case, "a")?;
    a.send([wire::auth(0x18, &method_and(b"c=biws,r=x,p=AAAA")), publish].concat());
    refused(&mut a, Told::Code(&[0x80, 0x81, 0x82, 0x86, 0x87]))?;
    let seen = spy.collect(&case, &mut case.connect("p")?)?;
    ensure!(seen.is_empty(), "taken before the client was let in: {:?}", payloads(&seen));
    let mut late = case.connect("late")?;
    late.subscribe(&topic, 1)?;
    late.expect_nothing()?;
    live(&case, METHOD, wire::auth(0x18, &method_and(b"x")), P)?;
    first(
        &case,
        "a CONNECT of another method",
        case.hello("a").with(text(prop::AUTHENTICATION_METHOD, "PLAIN")).encode(),
        Told::Code(&[0x8C]),
    )?;
    first(&case, "AUTH first", wire::auth(0x18, &method_and(b"x")), Told::NothingOr(M))?;
    server.check()
}
