//! C: PUBLISH.

use super::a_framing::packet_bytes_max;
use super::arena::{Arena, M, M_OR_P, P, Raw, ends, four_byte, in_parallel, live, two_byte};
use super::{Attack, version_name};
use crate::case::Case;
use crate::peer::{Outcome, payloads};
use crate::wire::{self, Property, Publish, Subscribe, Value, packet, prop, string, text};
use crate::{ensure, fail, skip};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("C1", "an empty topic without Topic Alias", c1),
    Attack::new("C2", "topics with wildcards or U+0000", c2),
    Attack::new("C3", "QoS 3", c3),
    Attack::new("C4", "DUP with QoS 0", c4),
    Attack::new("C5", "Packet Identifier 0", c5),
    Attack::new("C6", "QoS above the server's maximum", c6),
    Attack::new("C7", "RETAIN where it is not available", c7),
    Attack::new("C8", "a topic longer than the packet", c8),
    Attack::new("C9", "a packet that ends before its Packet Identifier", c9),
    Attack::new("C10", "Topic Alias 0, above the maximum, or where the maximum is 0", c10),
    Attack::new("C11", "a Topic Alias that was not set", c11),
    Attack::new("C12", "a Topic Alias set anew while its message waits", c12),
    Attack::new("C13", "a Subscription Identifier from a client", c13),
    Attack::new("C14", "wrong Response Topics", c14),
    Attack::new("C15", "Correlation Data of 65 535 bytes", c15),
    Attack::new("C16", "properties that stand twice", c16),
    Attack::new("C17", "Message Expiry Interval 0", c17),
    Attack::new("C18", "Payload Format Indicator of what is no text", c18),
    Attack::new("C19", "more unacknowledged messages than the Receive Maximum", c19),
    Attack::new("C20", "a Packet Identifier in use, without DUP", c20),
    Attack::new("C21", "QoS 1 and 2 with the same Packet Identifier", c21),
    Attack::new("C22", "topics of the server", c22),
    // The peak is bounded in the test itself, after the subscribers are there.
    Attack::new("C23", "the largest payload to 1 000 subscribers", c23),
];

/// A PUBLISH of this version: first byte, topic, what follows it.
fn raw(first: u8, topic: impl AsRef<[u8]>, rest: &[u8]) -> Vec<u8> {
    packet(first, &[&string(topic), rest].concat())
}

/// No properties, as far as the version has a place for them.
fn none(case: &Case<'_>) -> &'static [u8] {
    if case.version.is_v5() { &[0] } else { &[] }
}

fn c1(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| live(case, "empty", raw(0x30, "", none(case)), P))
}

fn c2(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let mut spy = case.connect("spy")?;
        spy.subscribe(case.topic("#"), 1)?;
        let mut other = case.connect("other")?;
        for level in ["+", "#", "a+", "#a", "a\0b"] {
            let topic = case.topic(level);
            let publish = Publish::new(&topic, "m", 1).id(1).encode(case.version);
            live(case, &format!("{topic:?}"), publish, &[0x81, 0x90])?;
        }
        let seen = spy.collect(case, &mut other)?;
        ensure!(seen.is_empty(), "passed on: {seen:?}");
        Ok(())
    })
}

fn c3(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        [0x36, 0x37, 0x3e, 0x3f].into_iter().try_for_each(|first| {
            live(case, &format!("0x{first:02x}"), raw(first, case.topic("x"), &[&[0, 1], none(case)].concat()), M)
        })
    })
}

fn c4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| live(case, "0x38", raw(0x38, case.topic("x"), none(case)), M))
}

fn c5(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for qos in [1, 2] {
            let publish = Publish::new(case.topic("x"), "m", qos).id(0).encode(case.version);
            live(case, &format!("QoS {qos}"), publish, P)?;
        }
        Ok(())
    })
}

fn c6(t: &Arena<'_>) -> Outcome {
    for maximum in [0, 1] {
        let configuration = format!("[features]\nmaximum_qos = {maximum}\n");
        let (mut server, v5, v311) = t.server(&configuration, "allow_anonymous = true")?;
        for case in [&v5, &v311] {
            for qos in maximum + 1..=2 {
                let publish = Publish::new(case.topic("x"), "m", qos).id(1).encode(case.version);
                let what = format!("{}, QoS {qos} of {maximum}", version_name(case.version));
                live(case, &what, publish, &[0x9B])?;
            }
            case.connect("a")?.publish(case.topic("x"), "m", maximum)?;
        }
        server.check()?;
    }
    Ok(())
}

fn c7(t: &Arena<'_>) -> Outcome {
    let (mut server, v5, v311) = t.server("[features]\nretain_available = false\n", "allow_anonymous = true")?;
    for case in [&v5, &v311] {
        for qos in [0, 1] {
            let mut publish = Publish::new(case.topic("x"), "m", qos).retained();
            publish.packet_id = (qos > 0).then_some(1);
            live(case, version_name(case.version), publish.encode(case.version), &[0x9A])?;
        }
        let mut a = case.connect("a")?;
        a.subscribe(case.topic("#"), 0)?;
        a.expect_nothing()?;
    }
    server.check()
}

fn c8(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for length in [[0, 9], [0, 2], [0xff, 0xff]] {
            live(case, &format!("{length:02x?}"), packet(0x30, &[&length[..], b"a"].concat()), M)?;
        }
        live(case, "no length", packet(0x30, &[0]), M)?;
        live(case, "nothing", packet(0x30, &[]), M)
    })
}

fn c9(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        for first in [0x32, 0x34] {
            live(case, "none", raw(first, case.topic("x"), &[]), M)?;
            live(case, "half", raw(first, case.topic("x"), &[0]), M)?;
        }
        Ok(())
    })
}

fn alias(topic: &str, alias: u16) -> Publish {
    Publish::new(topic, "m", 0).with(two_byte(prop::TOPIC_ALIAS, alias))
}

fn c10(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let maximum = {
        let a = case.connect("a")?;
        a.connack.as_ref().and_then(|connack| connack.integer(prop::TOPIC_ALIAS_MAXIMUM)).unwrap_or(0)
    };
    let topic = case.topic("x");
    for number in [0, maximum.saturating_add(1).min(65_535) as u16, 65_535] {
        if u32::from(number) <= maximum && number > 0 {
            continue;
        }
        live(case, &format!("alias {number}"), alias(&topic, number).encode(case.version), &[0x94])?;
        live(case, &format!("alias {number} alone"), alias("", number).encode(case.version), &[0x94])?;
    }
    let (mut server, v5, _) = t.server("[limits]\ntopic_alias_max = 0\n", "allow_anonymous = true")?;
    let a = v5.connect("a")?;
    let maximum = a.connack.as_ref().and_then(|connack| connack.integer(prop::TOPIC_ALIAS_MAXIMUM)).unwrap_or(0);
    ensure!(maximum == 0, "Topic Alias Maximum {maximum} where it is configured to be 0");
    live(&v5, "alias 1 of 0", alias(&topic, 1).encode(v5.version), &[0x94])?;
    live(&v5, "alias 1 of 0 alone", alias("", 1).encode(v5.version), &[0x94])?;
    server.check()
}

fn c11(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    live(case, "never set", alias("", 1).encode(case.version), P)?;
    let mut a = case.resume("a", false)?;
    a.send(alias(&case.topic("x"), 1).encode(case.version));
    a.send(alias("", 1).encode(case.version));
    a.fence()?;
    a.disconnect()?;
    // It belonged to the Network Connection, not to the Session.
    let mut a = case.resume("a", true)?;
    a.send(alias("", 1).encode(case.version));
    ends(&mut a, P)
}

fn c12(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let lasting = || case.lasting("s").with(two_byte(prop::TOPIC_ALIAS_MAXIMUM, 10));
    let mut s = case.connect_with("s", &lasting())?;
    s.subscribe(case.topic("x/#"), 1)?;
    s.disconnect()?;
    let mut p = case.connect("p")?;
    let (one, two) = (case.topic("x/one"), case.topic("x/two"));
    let set = |topic: &str, payload: &str| Publish::new(topic, payload, 1).with(two_byte(prop::TOPIC_ALIAS, 1));
    p.publish_with(set(&one, "1"))?;
    p.publish_with(set("", "2"))?;
    p.publish_with(set(&two, "3"))?;
    p.publish_with(set("", "4"))?;
    for round in 0..2 {
        let mut s = case.connect_with("s", &lasting())?;
        for (topic, payload) in [(&one, "1"), (&one, "2"), (&two, "3"), (&two, "4")] {
            let got = s.expect_publish(topic, payload)?;
            ensure!(got.dup == (round > 0), "{payload}: DUP {} on delivery {}", got.dup, round + 1);
        }
        // Not acknowledged, so all is delivered again.
        s.cut()?;
    }
    Ok(())
}

fn with(case: &Case<'_>, properties: &[Property]) -> Vec<u8> {
    let publish = Publish { properties: properties.to_vec(), ..Publish::new(case.topic("x"), "m", 0) };
    publish.encode(case.version)
}

fn c13(t: &Arena<'_>) -> Outcome {
    live(&t.v5, "7", with(&t.v5, &[(prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(7))]), P)
}

fn c14(t: &Arena<'_>) -> Outcome {
    for topic in ["", "a/+", "#", "a\0b", "a+"] {
        let bytes = with(&t.v5, &[text(prop::RESPONSE_TOPIC, topic)]);
        live(&t.v5, &format!("{topic:?}"), bytes, if topic.contains('\0') { M_OR_P } else { P })?;
    }
    Ok(())
}

fn c15(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let mut a = case.connect("a")?;
    a.subscribe(&topic, 1)?;
    let data = (prop::CORRELATION_DATA, Value::Binary(vec![0xa5; 65_535]));
    for _ in 0..20 {
        a.publish_with(Publish::new(&topic, "m", 1).with(data.clone()))?;
        let got = a.receive(&topic, "m")?;
        ensure!(got.property(prop::CORRELATION_DATA) == Some(&data.1), "the Correlation Data has changed");
    }
    Ok(())
}

fn c16(t: &Arena<'_>) -> Outcome {
    let list = [
        text(prop::CONTENT_TYPE, "t"),
        four_byte(prop::MESSAGE_EXPIRY_INTERVAL, 9),
        (prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1)),
        text(prop::RESPONSE_TOPIC, "r"),
        two_byte(prop::TOPIC_ALIAS, 1),
        (prop::CORRELATION_DATA, Value::Binary(b"x".to_vec())),
    ];
    for property in list {
        let bytes = with(&t.v5, &[property.clone(), wire::user("k", "v"), property.clone()]);
        live(&t.v5, &format!("0x{:02x}", property.0), bytes, P)?;
    }
    Ok(())
}

fn c17(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let mut away = case.resume("away", false)?;
    away.subscribe(&topic, 1)?;
    away.disconnect()?;
    let mut here = case.connect("here")?;
    here.subscribe(&topic, 1)?;
    let mut p = case.connect("p")?;
    p.publish_with(Publish::new(&topic, "now or never", 1).with(four_byte(prop::MESSAGE_EXPIRY_INTERVAL, 0)))?;
    here.receive(&topic, "now or never")?;
    let mut away = case.resume("away", true)?;
    let seen = away.collect(case, &mut p)?;
    ensure!(seen.is_empty(), "stored for a client that was away: {:?}", payloads(&seen));
    // As a Retained Message it is gone too.
    let topic = case.retained_topic("retained");
    p.publish_with(Publish::new(&topic, "old", 1).retained().with(four_byte(prop::MESSAGE_EXPIRY_INTERVAL, 0)))?;
    here.subscribe(&topic, 1)?;
    let seen = here.collect(case, &mut p)?;
    ensure!(seen.is_empty(), "retained: {:?}", payloads(&seen));
    Ok(())
}

fn c18(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let mut a = case.connect("a")?;
    a.subscribe(&topic, 1)?;
    let format = (prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1));
    let publish = Publish::new(&topic, [0xff, 0xfe], 1).with(format);
    match case.connect("p")?.try_publish(publish)? {
        Some(code) if code < 0x80 => a.receive(&topic, [0xff, 0xfe]).map(drop),
        Some(0x99) | None => a.expect_nothing(),
        Some(code) => fail!("PUBACK 0x{code:02X}"),
    }
}

fn receive_maximum(case: &Case<'_>) -> Outcome<u16> {
    let a = case.connect("a")?;
    let maximum = a.connack.as_ref().and_then(|connack| connack.integer(prop::RECEIVE_MAXIMUM)).unwrap_or(65_535);
    u16::try_from(maximum).map_err(|_| crate::peer::Stop::Fail(format!("Receive Maximum {maximum}")))
}

fn c19(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let maximum = receive_maximum(case)?;
    if maximum == 65_535 {
        skip!("there are no more Packet Identifiers than the Receive Maximum");
    }
    let mut a = case.connect("a")?;
    for id in 1..=maximum {
        a.send(Publish::new(case.topic("x"), "m", 2).id(id).encode(case.version));
    }
    for id in 1..=maximum {
        a.expect_pubrec(id)?;
    }
    // One that is complete makes room for one.
    a.send(wire::ack(wire::PUBREL, 1));
    a.expect_pubcomp(1)?;
    a.publish_with(Publish::new(case.topic("x"), "m", 1).id(maximum + 1))?;
    a.send(Publish::new(case.topic("x"), "m", 2).id(maximum + 1).encode(case.version));
    a.expect_pubrec(maximum + 1)?;
    a.send(Publish::new(case.topic("x"), "m", 1).id(maximum + 2).encode(case.version));
    ends(&mut a, &[0x93])
}

fn c20(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let mut s = case.connect("s")?;
        s.subscribe(&topic, 2)?;
        let mut p = case.connect("p")?;
        for payload in ["first", "second", "third"] {
            p.send(Publish::new(&topic, payload, 2).id(5).encode(case.version));
            p.expect_pubrec(5)?;
        }
        p.send(wire::ack(wire::PUBREL, 5));
        p.expect_pubcomp(5)?;
        let seen = payloads(&s.collect(case, &mut p)?);
        ensure!(seen == ["first"], "delivered {seen:?}");
        Ok(())
    })
}

fn c21(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("x");
        let mut s = case.connect("s")?;
        s.subscribe(&topic, 0)?;
        let mut p = case.connect("p")?;
        for round in 0..200_u16 {
            p.send(Publish::new(&topic, [b'2'], 2).id(7).encode(case.version));
            p.expect_pubrec(7)?;
            // The identifier is in use for QoS 2; a QoS 1 message with it is one of its own.
            p.send(Publish::new(&topic, [b'1'], 1).id(7).encode(case.version));
            p.expect_puback(7)?;
            p.send(Publish::new(&topic, [b'2'], 2).id(7).dup().encode(case.version));
            p.expect_pubrec(7)?;
            p.send(wire::ack(wire::PUBREL, 7));
            let answer = p.expect_pubcomp(7)?;
            ensure!(answer.code() == 0, "round {round}: PUBCOMP 0x{:02X}", answer.code());
        }
        let seen = payloads(&s.collect(case, &mut p)?);
        ensure!(seen == ["2", "1"].repeat(200), "{} messages delivered, expected 400", seen.len());
        Ok(())
    })
}

fn c22(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let tag = case.root();
        let mut spy = case.connect("spy")?;
        for filter in [format!("$SYS/{tag}/#"), format!("$CONTROL/{tag}/#"), format!("$queue/{tag}"), case.topic("#")] {
            spy.subscribe_with(Subscribe::to(&filter, 1))?;
        }
        // Whoever subscribes to all, `$` topics apart.
        spy.subscribe_with(Subscribe::to(case.topic("t"), 1))?;
        let mut other = case.connect("other")?;
        for topic in
            [format!("$SYS/{tag}/x"), format!("$CONTROL/{tag}/x"), format!("$share/g/{tag}/t"), format!("$queue/{tag}")]
        {
            for qos in 0..3 {
                for retain in [false, true] {
                    let mut p = case.connect("p")?;
                    let publish = Publish { retain, ..Publish::new(&topic, "m", qos) };
                    let code = p.try_publish(publish)?;
                    let right = match (case.version.is_v5(), qos) {
                        (_, 0) | (false, _) => code == Some(0),
                        (true, _) => code == Some(0x87),
                    };
                    ensure!(right, "{topic} at QoS {qos}: {code:02x?}");
                }
            }
            let mut late = case.connect("late")?;
            late.subscribe_with(Subscribe::to(&topic, 1))?;
            late.expect_nothing()?;
        }
        let seen = spy.collect(case, &mut other)?;
        ensure!(seen.is_empty(), "routed: {seen:?}");
        Ok(())
    })
}

fn c23(t: &Arena<'_>) -> Outcome {
    const SUBSCRIBERS: usize = 1_000;
    const BYTES_PER_SUBSCRIBER: u64 = 256;
    // The packet is held while it arrives, as a message, and by each worker that has receivers for it.
    const COPIES: u64 = 6;
    let Some(process) = t.process else { skip!("nothing but memory is at stake here, which needs --pid") };
    let max = packet_bytes_max(t)?.min(4 << 20) as usize;
    let case = &t.v5;
    let topic = case.topic("x");
    let mut subscribers = Vec::new();
    for number in 0..SUBSCRIBERS {
        let mut raw = Raw::connect(case, &case.hello(&format!("s{number}")))?;
        let mut subscribe = Subscribe::to(&topic, 0);
        subscribe.packet_id = Some(1);
        raw.send(&subscribe.encode(case.version));
        ensure!(raw.count(|counts| counts[9] == 1)?[9] == 1, "no SUBACK for subscriber {number}");
        subscribers.push(std::sync::Mutex::new(raw));
    }
    let before = process.resident_bytes().unwrap_or(0);
    let sampler = super::oracle::Sampler::start(process);
    let mut p = case.connect("p")?;
    let bytes = super::a_framing::publish_of(case, &topic, max);
    let received = std::thread::scope(|scope| {
        let readers = scope.spawn(|| {
            in_parallel(SUBSCRIBERS, |number| {
                let mut raw = subscribers[number].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                ensure!(raw.count(|counts| counts[3] == 1)?[3] == 1, "subscriber {number} did not get the message");
                Ok(())
            })
        });
        p.send(&bytes);
        let acknowledged = p.expect_puback(1).map(drop);
        readers.join().unwrap_or_else(|_| fail!("the test itself panicked")).and(acknowledged)
    });
    let peak = sampler.stop();
    received?;
    let allowed = COPIES * max as u64 + SUBSCRIBERS as u64 * BYTES_PER_SUBSCRIBER;
    ensure!(
        peak <= before + allowed,
        "resident memory grew by {} KiB for a payload of {} KiB to {SUBSCRIBERS} subscribers",
        (peak - before) >> 10,
        max >> 10
    );
    Ok(())
}
