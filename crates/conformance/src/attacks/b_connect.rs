//! B: CONNECT.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Attack;
use super::arena::{Arena, M, P, Raw, Told, bad_connect, ends, first, four_byte, in_parallel, refused, two_byte};
use crate::case::Case;
use crate::peer::{Event, Outcome};
use crate::rules::label;
use crate::wire::{self, Connect, Property, Publish, Value, Version, Will, packet, prop, string, text, user, varint};
use crate::{ensure, fail};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("B1", "wrong Protocol Names", b1),
    Attack::new("B2", "wrong protocol levels", b2),
    Attack::new("B3", "reserved Connect Flag", b3),
    Attack::new("B4", "a second CONNECT", b4),
    Attack::new("B5", "3.1.1 without Client Identifier and Clean Session", b5),
    Attack::new("B6", "assigned Client Identifiers", b6),
    Attack::new("B7", "Client Identifiers beyond the limit", b7),
    Attack::new("B8", "Client Identifiers that are no text", b8),
    Attack::new("B9", "CONNECT cut after each of its bytes", b9),
    Attack::new("B10", "no Session from a refused CONNECT", b10),
    Attack::new("B11", "bytes after the payload", b11),
    Attack::new("B12", "Will QoS or Will Retain without Will Flag", b12),
    Attack::new("B13", "Will QoS 3", b13),
    Attack::new("B14", "wrong Will Topics", b14),
    Attack::new("B15", "Will Flag without Will", b15),
    Attack::new("B16", "User Name Flag without User Name", b16),
    Attack::new("B17", "Password without User Name", b17),
    Attack::new("B18", "properties that stand twice", b18),
    Attack::new("B19", "a Will with a Topic Alias, 10 000 times", b19),
    Attack::new("B20", "Receive Maximum 0, Maximum Packet Size 0", b20),
    Attack::new("B21", "Request Problem Information 2", b21),
    Attack::new("B22", "Authentication Data without method", b22),
    Attack::new("B23", "property lengths that do not fit", b23),
    Attack::new("B24", "unknown properties", b24),
    Attack::new("B25", "a Will Payload of 256 MB announced", b25).peak(4 << 20),
    Attack::new("B26", "Payload Format Indicator of a Will that is no text", b26),
    Attack::new("B27", "Keep Alive beyond the server's maximum", b27),
    Attack::new("B28", "Session Expiry Interval beyond the server's maximum", b28),
    Attack::new("B29", "CONNECT byte by byte, for ever", b29).beside(),
];

fn b1(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for name in [&b"MQTX"[..], b"mqtt", b"", b"MQTTT", b"MQIsdq"] {
            let connect = Connect { protocol_name: name.to_vec(), ..case.hello("a") };
            let told = if case.version.is_v5() { Told::NothingOr(&[0x84]) } else { Told::Nothing };
            first(case, &format!("{:?}", wire::clip(name)), connect.encode(), told)?;
        }
        // A name of 65 535 bytes of which four are there.
        let body = [&[0xff, 0xff][..], b"MQTT", &case.hello("a").body()[6..]].concat();
        first(case, "length 65535", packet(0x10, &body), Told::NothingOr(&[0x81, 0x84]))
    })
}

fn b2(t: &Arena<'_>) -> Outcome {
    let levels = [("MQTT", 0), ("MQTT", 2), ("MQTT", 3), ("MQTT", 6), ("MQTT", 255), ("MQIsdp", 4), ("MQIsdp", 0)];
    for (name, level) in levels {
        let connect = Connect { protocol_name: name.into(), level, ..t.v311.hello("a") };
        // Which form the answer has is the server's choice, as it speaks none of what the client speaks.
        let as_v311 = first(&t.v311, "", connect.encode(), Told::Code(&[0x01]));
        if as_v311.is_err() {
            let what = format!("{name} {level}: neither CONNACK 0x01 in 3.1.1 nor CONNACK 0x84 in 5.0");
            first(&t.v5, &what, connect.encode(), Told::Code(&[0x84]))?;
        }
    }
    Ok(())
}

fn b3(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| bad_connect(case, "flags 0x03", &case.hello("a").flags(0x03), M))
}

fn b4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let will = case.topic("will");
        let mut watcher = case.connect("w")?;
        watcher.subscribe(&will, 1)?;
        let mut a = case.connect_with("a", &case.lasting("a").will(Will::new(&will, "gone")))?;
        a.subscribe(case.topic("x"), 1)?;
        // The second one asks for another Session, without a Will.
        a.send(case.hello("b").encode());
        ends(&mut a, P)?;
        watcher.receive(&will, "gone")?;
        let mut a = case.resume("a", true)?;
        a.publish(case.topic("x"), "still subscribed", 1)?;
        a.receive(case.topic("x"), "still subscribed")?;
        // And with its own identifier, which would ask for its Session to be discarded.
        let mut a = case.connect_with("a", &case.lasting("a").will(Will::new(&will, "gone again")))?;
        a.send(case.hello("a").encode());
        ends(&mut a, P)?;
        watcher.receive(&will, "gone again")?;
        case.resume("a", true).map(drop)
    })
}

fn b5(t: &Arena<'_>) -> Outcome {
    first(&t.v311, "empty", Connect::new(Version::V311, "").clean(false).encode(), Told::Code(&[0x02]))
}

fn b6(t: &Arena<'_>) -> Outcome {
    const CLIENTS: usize = 64;
    let mut ids: BTreeSet<Vec<u8>> = BTreeSet::new();
    for number in 0..CLIENTS {
        let mut a = t.v5.dial("a")?;
        let connack = a.hello(&Connect::new(Version::V5, ""))?;
        let Some(Value::Text(id)) = connack.property(prop::ASSIGNED_CLIENT_IDENTIFIER) else {
            fail!("no Assigned Client Identifier");
        };
        ensure!(ids.insert(id.clone()), "identifier {number} was assigned before: {:?}", wire::clip(id));
        // Half of them stay away for ever, half leave their identifier free.
        if number % 2 == 0 {
            a.disconnect()?;
        }
    }
    // As many bits as the symbols seen in each place can carry: a little less than the truth.
    let length = ids.iter().map(Vec::len).max().unwrap_or(0);
    let bits: f64 = (0..length)
        .map(|at| (ids.iter().filter_map(|id| id.get(at)).collect::<BTreeSet<_>>().len().max(1) as f64).log2())
        .sum();
    let bits = bits.floor() as u64;
    ensure!(bits >= 96, "{CLIENTS} assigned identifiers vary in {bits} bits only");
    Ok(())
}

fn b7(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let code: &[u8] = if case.version.is_v5() { &[0x85] } else { &[0x02] };
        let of = |bytes: usize| Connect { client_id: vec![b'x'; bytes], ..case.hello("a") }.encode();
        // With the rest of CONNECT this is at the size that one may have at all.
        for bytes in [1_025, 65_000] {
            let mut a = case.send_first("a", of(bytes))?;
            let told = if case.version.is_v5() { Told::Code(&[0x85]) } else { Told::Code(&[0x02]) };
            label(&format!("{bytes} bytes, {code:02x?}"), refused(&mut a, told))?;
        }
        first(case, "65535 bytes", of(65_535), Told::NothingOr(&[0x85, 0x95, 0x02]))?;
        let mut a = case.send_first("a", of(1_024))?;
        a.expect_connack()?;
        Ok(())
    })
}

fn b8(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for id in [
            &b"a\0b"[..],
            b"\0",
            b"a\x01",
            b"a\n",
            b"a\x1b[31m",
            b"\x7f",
            b"\xc2\x85",
            b"\xef\xbf\xbf",
            b"\xef\xb7\x90",
            b"\xed\xa0\x80",
            b"\xc0\x80",
            b"\xff",
            b"a\xc3",
        ] {
            let connect = Connect { client_id: id.to_vec(), ..case.hello("a") };
            bad_connect(case, &format!("{id:02x?}"), &connect, M)?;
        }
        Ok(())
    })
}

/// A CONNECT with everything in it.
fn full(case: &Case<'_>) -> Connect {
    let mut connect = case.hello("a").will(Will::new(case.topic("will"), "gone"));
    connect.username = Some(b"name".to_vec());
    connect.password = Some(b"word".to_vec());
    if case.version.is_v5() {
        connect.properties = vec![two_byte(prop::RECEIVE_MAXIMUM, 9), user("k", "v")];
        connect.will = connect.will.map(|will| will.with(text(prop::CONTENT_TYPE, "t")));
    }
    connect
}

fn b9(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let connect = full(case);
        let (body, whole) = (connect.body(), connect.encode());
        let mut watcher = case.connect("w")?;
        watcher.subscribe(case.topic("will"), 1)?;
        for cut in 0..body.len() {
            // The length agrees with what is there, so the packet is whole and wrong.
            let bytes = packet(0x10, &body[..cut]);
            let told = if case.version.is_v5() { Told::NothingOr(M) } else { Told::Nothing };
            first(case, &format!("{cut} bytes of it"), bytes, told)?;
        }
        for cut in 1..whole.len() {
            // The rest never comes.
            let mut a = case.send_first("a", &whole[..cut])?;
            ensure!(
                a.event_within(Duration::from_millis(1))? == Event::Silence,
                "an answer to the first {cut} bytes of CONNECT"
            );
            label(&format!("{cut} bytes and the end"), a.cut())?;
        }
        watcher.expect_nothing()
    })
}

fn b10(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let lasting = || case.lasting("a");
    let reasons: Vec<(&str, Connect, &'static [u8])> = vec![
        ("0x81", lasting().flags(0x01), &[0x81]),
        ("0x82", lasting().with(two_byte(prop::RECEIVE_MAXIMUM, 0)), &[0x82]),
        ("0x84", Connect { level: 7, ..lasting() }, &[0x84]),
        ("0x87", lasting().will(Will::new("$SYS/broker/will", "w")), &[0x87]),
        ("0x8C", lasting().with(text(prop::AUTHENTICATION_METHOD, "PANTALA-NO-SUCH-METHOD")), &[0x8C]),
        ("0x90", lasting().will(Will::new("/".repeat(2_000), "w")), &[0x90]),
        ("0x97", (0..3_000).fold(lasting(), |connect, _| connect.with(user("k", "v"))), &[0x97]),
    ];
    for (what, connect, codes) in reasons {
        first(case, what, connect.encode(), Told::Code(codes))?;
        label(
            what,
            case.connect_with("a", &lasting()).and_then(|a| {
                let present = a.connack.as_ref().is_some_and(|connack| connack.session_present);
                ensure!(!present, "the refused CONNECT has made a Session");
                a.disconnect()?;
                case.connect_with("a", &lasting().session_expiry(0).clean(true)).and_then(crate::peer::Peer::disconnect)
            }),
        )?;
    }
    let connect = Connect { client_id: vec![b'x'; 2_000], ..lasting() };
    first(case, "0x85", connect.encode(), Told::Code(&[0x85]))
}

fn b11(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for more in [&b"\0"[..], b"\0\0", b"\0\x01x"] {
            let bytes = packet(0x10, &[&case.hello("a").body(), more].concat());
            let told = if case.version.is_v5() { Told::Code(M) } else { Told::Nothing };
            first(case, &format!("{more:02x?}"), bytes, told)?;
        }
        Ok(())
    })
}

fn b12(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        [0x0a, 0x12, 0x1a, 0x22, 0x2a]
            .into_iter()
            .try_for_each(|flags| bad_connect(case, &format!("flags 0x{flags:02x}"), &case.hello("a").flags(flags), M))
    })
}

fn b13(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let connect = case.hello("a").will(Will::new(case.topic("will"), "w")).flags(0x1e);
        bad_connect(case, "flags 0x1e", &connect, M)
    })
}

fn b14(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let slashes = "/".repeat(60_000);
        for topic in [&b""[..], b"a/+/b", b"#", b"a#", b"a\0b", b"\xed\xa0\x80", slashes.as_bytes()] {
            let connect = case.hello("a").will(Will::new(topic, "w"));
            bad_connect(case, &format!("{:?}", wire::clip(topic)), &connect, &[0x81, 0x90])?;
        }
        let connect = case.hello("a").will(Will::new("/".repeat(65_535), "w"));
        first(case, "65535 bytes of /", connect.encode(), Told::NothingOr(&[0x81, 0x90, 0x95]))
    })
}

fn b15(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        bad_connect(case, "no Will", &case.hello("a").flags(0x06), M)?;
        let topic_only = [case.hello("a").flags(0x06).body(), {
            let mut rest = if case.version.is_v5() { vec![0] } else { vec![] };
            rest.extend(string("a/b"));
            rest
        }]
        .concat();
        let told = if case.version.is_v5() { Told::Code(M) } else { Told::Nothing };
        first(case, "no Will Payload", packet(0x10, &topic_only), told)
    })
}

fn b16(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        bad_connect(case, "no User Name", &case.hello("a").flags(0x82), M)?;
        let mut connect = case.hello("a").flags(0xc2);
        connect.username = Some(b"name".to_vec());
        bad_connect(case, "no Password", &connect, M)
    })
}

fn b17(t: &Arena<'_>) -> Outcome {
    let with = |case: &Case<'_>| {
        let mut connect = case.hello("a");
        connect.password = Some(b"word".to_vec());
        connect
    };
    bad_connect(&t.v311, "3.1.1", &with(&t.v311), M)?;
    // Allowed, and so it is the authenticator's to say: a listener for everybody lets it in.
    let mut a = t.v5.send_first("a", with(&t.v5).encode())?;
    let connack = a.expect_any_connack()?;
    ensure!(matches!(connack.code, 0x00 | 0x86 | 0x87), "CONNACK 0x{:02X}", connack.code);
    Ok(())
}

fn b18(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let method = || text(prop::AUTHENTICATION_METHOD, "SCRAM-SHA-256");
    let list: Vec<Property> = vec![
        four_byte(prop::SESSION_EXPIRY_INTERVAL, 5),
        two_byte(prop::RECEIVE_MAXIMUM, 5),
        four_byte(prop::MAXIMUM_PACKET_SIZE, 500),
        two_byte(prop::TOPIC_ALIAS_MAXIMUM, 5),
        (prop::REQUEST_PROBLEM_INFORMATION, Value::Byte(1)),
        (prop::REQUEST_RESPONSE_INFORMATION, Value::Byte(1)),
        method(),
    ];
    for property in list {
        let connect = case.hello("a").with(property.clone()).with(user("k", "v")).with(property.clone());
        bad_connect(case, &format!("0x{:02x}", property.0), &connect, P)?;
    }
    let data = (prop::AUTHENTICATION_DATA, Value::Binary(b"x".to_vec()));
    let connect = case.hello("a").with(data.clone()).with(method()).with(data);
    bad_connect(case, "0x16", &connect, P)
}

fn b19(t: &Arena<'_>) -> Outcome {
    const TIMES: usize = 10_000;
    let case = &t.v5;
    let will = Will::new(case.topic("will"), "gone").with(two_byte(prop::TOPIC_ALIAS, 1));
    let connect = case.hello("a").will(will);
    bad_connect(case, "Topic Alias", &connect, M)?;
    let (address, patience, bytes) = (case.target().to_owned(), case.patience(), connect.encode());
    in_parallel(TIMES, |number| {
        let mut raw = Raw::dial(&address, patience, &bytes)?;
        let counts = raw.count(|_| false)?;
        ensure!(counts[2] == 1 && counts.iter().sum::<usize>() == 1, "attempt {number}: heard {counts:?}");
        Ok(())
    })
}

fn b20(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    bad_connect(case, "Receive Maximum", &case.hello("a").with(two_byte(prop::RECEIVE_MAXIMUM, 0)), P)?;
    bad_connect(case, "Maximum Packet Size", &case.hello("a").with(four_byte(prop::MAXIMUM_PACKET_SIZE, 0)), P)
}

fn b21(t: &Arena<'_>) -> Outcome {
    for id in [prop::REQUEST_PROBLEM_INFORMATION, prop::REQUEST_RESPONSE_INFORMATION] {
        for value in [2, 0xff] {
            let connect = t.v5.hello("a").with((id, Value::Byte(value)));
            bad_connect(&t.v5, &format!("0x{id:02x} = {value}"), &connect, P)?;
        }
    }
    Ok(())
}

fn b22(t: &Arena<'_>) -> Outcome {
    let connect = t.v5.hello("a").with((prop::AUTHENTICATION_DATA, Value::Binary(b"data".to_vec())));
    bad_connect(&t.v5, "data alone", &connect, P)
}

/// A CONNECT of MQTT 5.0 with these bytes in the place of the property length and the properties.
fn with_section(case: &Case<'_>, section: &[u8]) -> Vec<u8> {
    packet(0x10, &[&string("MQTT")[..], &[5, 2, 0, 60], section, &string(case.id("a"))].concat())
}

fn b23(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let expiry = [0x11, 0, 0, 0, 5];
    for length in [200_u32, 20_000, 268_435_455] {
        let section = [&varint(length)[..], &expiry].concat();
        first(case, &format!("length {length}"), with_section(case, &section), Told::Code(M))?;
    }
    for length in 1..5 {
        let section = [&[length][..], &expiry].concat();
        first(case, &format!("length {length} of 5"), with_section(case, &section), Told::Code(M))?;
    }
    Ok(())
}

fn b24(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    for section in [
        &[2, 0x7f, 0][..],
        &[2, 0x00, 0],
        &[2, 0x2b, 0],
        &[3, 0xff, 0x01, 0],
        // 0x11 in two bytes.
        &[6, 0x91, 0x00, 0, 0, 0, 5],
    ] {
        first(case, &format!("{section:02x?}"), with_section(case, section), Told::Code(M))?;
    }
    Ok(())
}

fn b25(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let connect = case.hello("a").will(Will::new(case.topic("will"), vec![b'x'; 4_096]));
        let bytes = [&[0x10][..], &varint(268_435_455), &connect.body()].concat();
        first(case, "256 MB", bytes, Told::NothingOr(&[0x95]))?;
        let bytes = [&[0x10][..], &varint(10_000_000), &connect.body()].concat();
        first(case, "10 MB", bytes, Told::NothingOr(&[0x95]))
    })
}

fn b26(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("will");
    let format = (prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1));
    let mut watcher = case.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    let publish = Publish::new(&topic, [0xff, 0xfe], 1).with(format.clone());
    let published = case.connect("p")?.try_publish(publish)?.is_some_and(|code| code < 0x80);
    if published {
        watcher.receive(&topic, [0xff, 0xfe])?;
    }
    let mut a = case.send_first("a", case.hello("a").will(Will::new(&topic, [0xff, 0xfe]).with(format)).encode())?;
    let connack = a.expect_any_connack()?;
    ensure!(
        (connack.code == 0 && published) || (connack.code == 0x99 && !published),
        "PUBLISH was {}, the Will was answered with 0x{:02X}",
        if published { "passed on" } else { "refused" },
        connack.code
    );
    if published {
        a.cut()?;
        watcher.receive(&topic, [0xff, 0xfe])?;
    }
    Ok(())
}

fn b27(t: &Arena<'_>) -> Outcome {
    let (mut server, v5, v311) = t.server("[limits]\nkeep_alive_max = 30\n", "allow_anonymous = true")?;
    for (asked, expected) in [(0, Some(30)), (65_535, Some(30)), (31, Some(30)), (30, None), (5, None)] {
        let a = v5.connect_with("a", &v5.hello("a").keep_alive(asked))?;
        let got = a.connack.as_ref().and_then(|connack| connack.integer(prop::SERVER_KEEP_ALIVE));
        ensure!(got == expected, "asked for {asked}: Server Keep Alive {got:?}, expected {expected:?}");
    }
    // 3.1.1 cannot be told: who asks for more is refused, as the documentation says.
    for asked in [0, 65_535, 31] {
        first(&v311, &format!("3.1.1, {asked}"), v311.hello("a").keep_alive(asked).encode(), Told::Code(&[0x03]))?;
    }
    v311.connect_with("a", &v311.hello("a").keep_alive(30))?;
    server.check()
}

fn b28(t: &Arena<'_>) -> Outcome {
    let (mut server, v5, _) = t.server("[limits]\nsession_expiry_max = 100\n", "allow_anonymous = true")?;
    for (asked, expected) in [(u32::MAX, Some(100)), (101, Some(100)), (100, None), (1, None)] {
        let connect = v5.hello("a").with(four_byte(prop::SESSION_EXPIRY_INTERVAL, asked));
        let a = v5.connect_with("a", &connect)?;
        let got = a.connack.as_ref().and_then(|connack| connack.integer(prop::SESSION_EXPIRY_INTERVAL));
        ensure!(got == expected, "asked for {asked}: Session Expiry Interval {got:?}, expected {expected:?}");
    }
    server.check()
}

fn b29(t: &Arena<'_>) -> Outcome {
    // The default of the handshake timeout, and what a busy machine may add to it.
    const TIMEOUT: Duration = Duration::from_secs(10);
    const LATEST: Duration = Duration::from_millis(12_500);
    const BYTE_INTERVAL: Duration = Duration::from_millis(500);
    let begin = Instant::now();
    let connect = full(&t.v5).encode();
    // One that sends a byte now and then, one that stops in the middle, one that says nothing.
    let mut slow = t.v5.dial("slow")?;
    let mut stuck = t.v5.send_first("stuck", &connect[..20])?;
    let mut silent = t.v5.dial("silent")?;
    t.ready();
    let mut bytes = connect.iter();
    loop {
        if let Some(byte) = bytes.next() {
            slow.send([*byte]);
        }
        let event = slow.event_within(BYTE_INTERVAL)?;
        let took = begin.elapsed();
        if event == Event::Closed {
            ensure!(took >= TIMEOUT - Duration::from_secs(1), "closed after {took:?} already");
            break;
        }
        ensure!(event == Event::Silence, "{event:?} before CONNECT was complete");
        ensure!(took < LATEST, "still open after {took:?}");
    }
    for peer in [&mut stuck, &mut silent] {
        let left = (begin + LATEST).saturating_duration_since(Instant::now());
        let event = peer.event_within(left)?;
        ensure!(event == Event::Closed, "{event:?} on a connection that has sent no CONNECT");
    }
    Ok(())
}
