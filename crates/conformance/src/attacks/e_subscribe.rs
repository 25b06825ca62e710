//! E: SUBSCRIBE and UNSUBSCRIBE.

use std::time::Duration;

use super::arena::{Arena, M, P, Raw, ends, in_parallel, live};
use super::oracle::{Canary, Sampler};
use super::{Attack, version_name};
use crate::case::Case;
use crate::peer::{Event, Outcome, Peer, Stop, payloads};
use crate::rules::label;
use crate::wire::{self, Packet, Publish, Subscribe, Value, Version, packet, prop, string};
use crate::{ensure, fail};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("E1", "no Topic Filter", e1),
    Attack::new("E2", "reserved Subscription Options", e2),
    Attack::new("E3", "Packet Identifier 0", e3),
    Attack::new("E4", "wrong Topic Filters among right ones", e4),
    Attack::new("E5", "50 000 Topic Filters in one packet", e5),
    Attack::new("E6", "the same Topic Filter 100 000 times", e6),
    Attack::new("E7", "wrong Subscription Identifiers", e7),
    Attack::new("E8", "No Local with a Shared Subscription", e8),
    Attack::new("E9", "halves of Shared Subscriptions", e9),
    Attack::new("E10", "the longest Share Names, and as many as there can be", e10).peak(256 << 20),
    Attack::new("E11", "UNSUBSCRIBE without and with unknown Topic Filters", e11),
    Attack::new("E12", "UNSUBSCRIBE of what a Shared Subscription matches", e12),
    Attack::new("E13", "Topic Filters of 65 535 bytes", e13),
    Attack::new("E14", "# with a million Retained Messages", e14),
    Attack::new("E15", "Retain Handling 1 in a loop of 100 000", e15),
    Attack::new("E16", "50 clients subscribe and unsubscribe 100 000 times", e16),
    Attack::new("E17", "1 000 Topic Filters that overlap", e17),
    Attack::new("E18", "what is not available", e18),
];

/// A SUBSCRIBE whose variable header ends before the Topic Filters, then `rest`.
fn subscribe(case: &Case<'_>, rest: &[u8]) -> Vec<u8> {
    packet(0x82, &[if case.version.is_v5() { &[0, 1, 0][..] } else { &[0, 1] }, rest].concat())
}

fn e1(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| live(case, "none", subscribe(case, &[]), P))
}

fn e2(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let wrong: &[u8] =
            if case.version.is_v5() { &[0x40, 0x80, 0xc0, 0x03, 0x30, 0x31] } else { &[0x03, 0x04, 0x08, 0x10, 0x80] };
        for options in wrong {
            let filter = [string(case.topic("x")), vec![*options]].concat();
            live(case, &format!("0x{options:02x}"), subscribe(case, &filter), M)?;
            // Behind one that is right, which must not count either.
            let filters = [string(case.topic("y")), vec![0], filter].concat();
            live(case, &format!("0x{options:02x} as the second"), subscribe(case, &filters), M)?;
        }
        Ok(())
    })
}

fn e3(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        live(case, "SUBSCRIBE", Subscribe::to(case.topic("x"), 0).encode(case.version), P)?;
        live(case, "UNSUBSCRIBE", wire::unsubscribe(case.version, 0, &[case.topic("x")]), P)
    })
}

fn e4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let refused = if case.version.is_v5() { 0x8F } else { 0x80 };
        let mut a = case.connect("a")?;
        for wrong in ["", "a#", "a/#/b", "+a", "a+/b", "##", "#/", "++", "a/b+"] {
            let subscribe = Subscribe::to(case.topic("before"), 1).and(wrong, 1).and(case.topic("after"), 2);
            let codes = a.subscribe_with(subscribe)?.codes;
            ensure!(codes == [1, refused, 2], "{wrong:?}: {codes:02X?}");
        }
        for name in ["before", "after"] {
            a.publish(case.topic(name), "m", 1)?;
            a.receive(case.topic(name), "m")?;
        }
        a.expect_nothing()
    })
}

fn e5(t: &Arena<'_>) -> Outcome {
    const FILTERS: usize = 50_000;
    t.in_both(|case| {
        let quota = if case.version.is_v5() { 0x97 } else { 0x80 };
        let root = case.root();
        let mut subscribe = Subscribe::default();
        for number in 0..FILTERS {
            subscribe.filters.push((format!("{root}/{number}").into_bytes(), 1));
        }
        let mut a = case.connect("a")?;
        let codes = a.subscribe_with(subscribe.clone())?.codes;
        ensure!(codes.len() == FILTERS, "{} codes for {FILTERS} filters", codes.len());
        let granted = codes.iter().take_while(|code| **code == 1).count();
        ensure!(
            codes[granted..].iter().all(|code| *code == quota) && granted < FILTERS,
            "{granted} granted first, then not all 0x{quota:02X}"
        );
        // Where there is room the subscription works; what exists can be replaced; one that goes makes room.
        a.publish(case.topic(&format!("{}", granted - 1)), "m", 1)?;
        a.receive(case.topic(&format!("{}", granted - 1)), "m")?;
        a.subscribe(case.topic("0"), 0)?;
        a.unsubscribe(&[case.topic("1")])?;
        a.subscribe(case.topic("new"), 0)?;
        let codes = a.subscribe_with(Subscribe::to(case.topic("one more"), 0))?.codes;
        ensure!(codes == [quota], "one more than the quota: {codes:02X?}");
        // All of it once more and back again, while the Retained Messages of the first time may still be looked for.
        let mut b = case.connect("b")?;
        let filters: Vec<Vec<u8>> = subscribe.filters.iter().map(|(filter, _)| filter.clone()).collect();
        for id in [1, 2] {
            b.send(Subscribe { packet_id: Some(id), ..subscribe.clone() }.encode(case.version));
        }
        b.send(wire::unsubscribe(case.version, 3, &filters));
        for id in [1, 2] {
            let codes = b.expect_suback(id)?.codes;
            ensure!(codes.iter().filter(|code| **code == 1).count() == granted, "not as many granted as before");
        }
        let codes = b.expect_unsuback(3)?.codes;
        let removed = codes.iter().filter(|code| **code == 0).count();
        ensure!(!case.version.is_v5() || removed == granted, "{removed} of {granted} subscriptions were removed");
        Ok(())
    })
}

fn e6(t: &Arena<'_>) -> Outcome {
    const TIMES: usize = 100_000;
    t.in_both(|case| {
        let topic = case.topic("x");
        let subscribe = Subscribe { filters: vec![(topic.clone().into_bytes(), 0); TIMES], ..Subscribe::default() };
        let mut a = case.connect("a")?;
        let codes = a.subscribe_with(subscribe)?.codes;
        ensure!(codes.len() == TIMES && codes.iter().all(|code| *code == 0), "not all were granted");
        let mut p = case.connect("p")?;
        p.publish(&topic, "m", 1)?;
        let seen = a.collect(case, &mut p)?;
        ensure!(seen.len() == 1, "delivered {} times", seen.len());
        a.unsubscribe(&[&topic])?;
        p.publish(&topic, "m", 1)?;
        let seen = a.collect(case, &mut p)?;
        ensure!(seen.is_empty(), "delivered after UNSUBSCRIBE");
        Ok(())
    })
}

fn e7(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let with = |section: &[u8]| packet(0x82, &[&[0, 1][..], section, &string(case.topic("x")), &[0]].concat());
    live(case, "0", with(&[2, 0x0b, 0]), P)?;
    live(case, "268 435 456", with(&[6, 0x0b, 0x80, 0x80, 0x80, 0x80, 0x01]), M)?;
    live(case, "twice", with(&[4, 0x0b, 1, 0x0b, 1]), P)
}

fn e8(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let mut subscribe = Subscribe::to(format!("$share/g/{}", case.topic("x")), 0x04);
    subscribe.packet_id = Some(1);
    live(case, "No Local", subscribe.encode(case.version), P)
}

fn e9(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let refused = if case.version.is_v5() { 0x8F } else { 0x80 };
        let mut a = case.connect("a")?;
        let root = case.root();
        for filter in
            ["$share", "$share/", "$share/g", "$share//t", "$share/g/", "$share/g+/t", "$share/g#/t", "$share/g/a#"]
        {
            let codes = a.subscribe_with(Subscribe::to(filter, 1))?.codes;
            ensure!(codes == [refused], "{filter}: {codes:02X?}");
        }
        // Not a Shared Subscription, but a topic like any other that begins with `$`.
        let other = format!("$SHARE/g/{root}");
        let codes = a.subscribe_with(Subscribe::to(&other, 1))?.codes;
        ensure!(codes == [refused] || codes == [1], "{other}: {codes:02X?}");
        let mut p = case.connect("p")?;
        p.publish(root, "m", 1)?;
        if codes == [1] {
            p.try_publish(Publish::new(&other, "m", 1))?;
        }
        let seen = a.collect(case, &mut p)?;
        ensure!(seen.iter().all(|m| m.topic == other.as_bytes()), "{other} matched {:?}", payloads(&seen));
        Ok(())
    })
}

fn e10(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let mut a = case.connect("a")?;
    for number in 0..64 {
        let share = format!("{number:02}{}", "s".repeat(64_998));
        let codes = a.subscribe_with(Subscribe::to(format!("$share/{share}/{}", case.topic("t")), 0))?.codes;
        ensure!(matches!(codes[..], [0] | [0x8F] | [0x97]), "Share Name {number}: {codes:02X?}");
    }
    a.disconnect()?;
    // As many groups as a million clients could ask for; each client has its quota.
    let mut a = case.connect("a")?;
    let (mut granted, mut refused) = (0, 0);
    let root = case.root();
    for packet in 0..100 {
        let filters = (0..1_000).map(|number| (format!("$share/{packet}g{number}/{root}/t").into_bytes(), 0)).collect();
        let codes = a.subscribe_with(Subscribe { filters, ..Subscribe::default() })?.codes;
        granted += codes.iter().filter(|code| **code == 0).count();
        refused += codes.iter().filter(|code| **code == 0x97).count();
    }
    ensure!(
        granted + refused == 100_000 && refused > 0 && granted > 0,
        "of 100 000 groups {granted} were granted and {refused} refused for quota"
    );
    Ok(())
}

fn e11(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        live(case, "none", wire::unsubscribe(case.version, 1, &[] as &[&str]), P)?;
        let mut a = case.connect("a")?;
        let codes = a.unsubscribe(&[case.topic("unknown"), case.topic("+")])?.codes;
        let expected: &[u8] = if case.version.is_v5() { &[0x11, 0x11] } else { &[] };
        ensure!(codes == expected, "unknown filters: {codes:02X?}");
        Ok(())
    })
}

fn e12(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let topic = case.topic("t");
        let mut a = case.connect("a")?;
        a.subscribe(format!("$share/g/{topic}"), 1)?;
        let codes = a.unsubscribe(&[&topic])?.codes;
        ensure!(!case.version.is_v5() || codes == [0x11], "UNSUBSCRIBE of {topic}: {codes:02X?}");
        a.publish(&topic, "m", 1)?;
        a.receive(&topic, "m")?;
        Ok(())
    })
}

fn e13(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let refused = if case.version.is_v5() { 0x8F } else { 0x80 };
        for filter in ["/".repeat(65_535), format!("{}+", "+/".repeat(32_767)), format!("{}#", "+/".repeat(32_767))] {
            let mut a = case.connect("a")?;
            let mut subscribe = Subscribe::to(&filter, 0);
            subscribe.packet_id = Some(1);
            a.send(subscribe.encode(case.version));
            // Some brokers end the connection over levels beyond reason, which is documented where it is so.
            match a.event()? {
                Event::Packet(Packet::SubAck(answer)) => ensure!(answer.codes == [refused], "{:02X?}", answer.codes),
                Event::Packet(Packet::Disconnect(answer)) if answer.code() == 0x81 => ends(&mut a, &[])?,
                Event::Closed if !case.version.is_v5() => {}
                event => fail!("{event:?} for a filter of {} bytes", filter.len()),
            }
        }
        Ok(())
    })
}

fn e14(t: &Arena<'_>) -> Outcome {
    const MESSAGES: usize = 1_000_000;
    const CHUNK: usize = 1_000;
    /// A cursor, what waits to be written, and what the kernel does not take.
    const REPLAY_BYTES: u64 = 24 << 20;
    const CANARY_BOUND: Duration = Duration::from_millis(250);
    let (mut server, case, _) = t.server("", "allow_anonymous = true")?;
    let process = server.process()?;
    let mut p = Raw::connect(&case, &case.hello("p"))?;
    for chunk in 0..MESSAGES / CHUNK {
        let bytes: Vec<u8> = (0..CHUNK)
            .flat_map(|number| Publish::new(format!("r/{chunk}/{number}"), "m", 0).retained().encode(case.version))
            .collect();
        p.send(&bytes);
    }
    // Acknowledged when it is stored, and with it all before it: what that takes is not what is asked about.
    p.send(&Publish::new("r/0/0", "m", 1).id(1).retained().encode(case.version));
    ensure!(p.count(|counts| counts[4] == 1)?[4] == 1, "the broker did not take {MESSAGES} Retained Messages");
    let before = process.figures().map_err(Stop::Fail)?;
    let sampler = Sampler::start(&process);

    let all = |name: &str| -> Outcome<Raw> {
        let mut raw = Raw::connect(&case, &case.hello(name))?;
        let mut subscribe = Subscribe::to("#", 0);
        subscribe.packet_id = Some(1);
        raw.send(&subscribe.encode(case.version));
        Ok(raw)
    };
    // Some do not read what they asked for; one does.
    let stuck: Vec<Raw> = (0..8).map(|number| all(&format!("stuck{number}"))).collect::<Outcome<_>>()?;
    let mut reader = all("reader")?;
    // Meanwhile others are served.
    let canary = Canary::start(&server.address, case.root()).map_err(Stop::Fail)?;
    let counts = reader.count(|counts| counts[0] >= MESSAGES)?;
    let peak = sampler.stop();
    canary.judge(0, CANARY_BOUND)?;
    drop(canary);
    ensure!(counts[0] == MESSAGES, "{} of {MESSAGES} Retained Messages came", counts[0]);
    ensure!(
        peak <= before.resident_bytes + REPLAY_BYTES,
        "resident memory grew by {} KiB",
        peak.saturating_sub(before.resident_bytes) >> 10
    );
    drop((stuck, reader));
    match process.settle(&before, Duration::from_secs(5))? {
        None => server.check(),
        // What the allocator keeps of nine replays does not grow with a tenth; what is asked here is the order of size.
        Some(_) if process.resident_bytes().unwrap_or(0) <= before.resident_bytes + REPLAY_BYTES => server.check(),
        Some(why) => fail!("{why}"),
    }
}

fn e15(t: &Arena<'_>) -> Outcome {
    const LOOPS: usize = 100_000;
    const CHUNK: usize = 1_000;
    let case = &t.v5;
    let topic = case.retained_topic("r");
    case.connect("p")?.publish_with(Publish::new(&topic, vec![b'x'; 200], 1).retained())?;
    // QoS 0, Retain Handling 1: sent only if the subscription is new, which it is each time.
    let mut subscribe = Subscribe::to(&topic, 0x10);
    subscribe.packet_id = Some(1);
    let turn = [subscribe.encode(case.version), wire::unsubscribe(case.version, 2, &[&topic])].concat();
    let mut raw = Raw::connect(case, &case.hello("a"))?;
    let counts = raw.flood(&turn.repeat(CHUNK), LOOPS / CHUNK, |counts| counts[11] == LOOPS)?;
    ensure!(counts[11] == LOOPS && counts[9] == LOOPS, "{counts:?} for {LOOPS} loops");
    ensure!(counts[3] <= LOOPS, "{} Retained Messages for {LOOPS} subscriptions", counts[3]);
    raw.end()
}

fn e16(t: &Arena<'_>) -> Outcome {
    const CLIENTS: usize = 50;
    const LOOPS: usize = 2_000;
    let case = &t.v5;
    let hellos: Vec<Vec<u8>> = (0..CLIENTS).map(|number| case.hello(&format!("c{number}")).encode()).collect();
    let (address, patience, root) = (case.target().to_owned(), case.patience(), case.root().to_owned());
    in_parallel(CLIENTS, |client| {
        let mut raw = Raw::dial(&address, patience, &hellos[client])?;
        ensure!(raw.count(|counts| counts[2] == 1)?[2] == 1, "client {client}: no CONNACK");
        let bytes: Vec<u8> = (0..LOOPS)
            .flat_map(|number| {
                let filter = match number % 3 {
                    0 => format!("{root}/{client}/{number}/a/b/c"),
                    1 => format!("{root}/+/{number}/#"),
                    _ => format!("$share/g{client}/{root}/{number}"),
                };
                let mut subscribe = Subscribe::to(&filter, 1);
                subscribe.packet_id = Some(1);
                [subscribe.encode(Version::V5), wire::unsubscribe(Version::V5, 2, &[filter])].concat()
            })
            .collect();
        let counts = raw.flood(&bytes, 1, |counts| counts[11] == LOOPS)?;
        ensure!(counts[9] == LOOPS && counts[11] == LOOPS, "client {client}: {counts:?} for {LOOPS} loops");
        raw.end()
    })
}

/// All ways to write this topic of ten levels with `+` in the place of some of them.
fn overlapping(root: &str) -> (String, Vec<Vec<u8>>) {
    const LEVELS: usize = 10;
    let topic = format!("{root}{}", "/a".repeat(LEVELS));
    let filters = (0..1 << LEVELS)
        .map(|bits| {
            let levels = (0..LEVELS).map(|level| if bits >> level & 1 == 1 { "/+" } else { "/a" });
            format!("{root}{}", levels.collect::<String>()).into_bytes()
        })
        .collect();
    (topic, filters)
}

fn e17(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let (topic, filters) = overlapping(case.root());
        let subscribe = Subscribe { filters: filters.into_iter().map(|f| (f, 1)).collect(), ..Subscribe::default() };
        let mut a = case.connect("a")?;
        let subscribed = subscribe.filters.len();
        let codes = a.subscribe_with(subscribe.and(case.topic("#"), 1))?.codes;
        ensure!(codes.iter().all(|code| *code == 1), "not all of {subscribed} filters were granted");
        let mut p = case.connect("p")?;
        for _ in 0..10 {
            p.publish(&topic, "m", 1)?;
        }
        // One copy of each, as documented; a broker may also be set to send one for each subscription.
        let seen = a.collect(case, &mut p)?.len();
        ensure!(seen == 10 || seen == 10 * (subscribed + 1), "10 messages came {seen} times");
        Ok(())
    })
}

fn e18(t: &Arena<'_>) -> Outcome {
    let (mut server, v5, v311) = t.server(
        "[features]\nwildcard_subscription_available = false\nshared_subscription_available = false\n\
         subscription_identifiers_available = false\n",
        "allow_anonymous = true",
    )?;
    for case in [&v5, &v311] {
        let mut a = case.connect("a")?;
        let v5 = case.version.is_v5();
        if v5 {
            for id in [
                prop::WILDCARD_SUBSCRIPTION_AVAILABLE,
                prop::SHARED_SUBSCRIPTION_AVAILABLE,
                prop::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            ] {
                let told = a.connack.as_ref().and_then(|connack| connack.integer(id));
                ensure!(told == Some(0), "CONNACK says {told:?} of property 0x{id:02x}");
            }
        }
        for (filter, code) in [("+/x", 0xA2), ("#", 0xA2), ("$share/g/x", 0x9E)] {
            let expected = if v5 { code } else { 0x80 };
            let codes = subscribe_or_end(&mut a, Subscribe::to(filter, 0))?;
            ensure!(codes == [expected], "{}, {filter}: {codes:02X?}", version_name(case.version));
            if codes.is_empty() {
                a = case.connect("a")?;
            }
        }
        if v5 {
            let subscribe = Subscribe::to("x", 0).with((prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(1)));
            let codes = subscribe_or_end(&mut a, subscribe)?;
            ensure!(codes == [0xA1], "Subscription Identifier: {codes:02X?}");
        }
        case.connect("b")?.subscribe("x", 1)?;
    }
    server.check()
}

/// The codes of SUBACK, or the one of the DISCONNECT that the broker may send in its place.
fn subscribe_or_end(a: &mut Peer, mut subscribe: Subscribe) -> Outcome<Vec<u8>> {
    subscribe.packet_id = Some(a.packet_id());
    a.send(subscribe.encode(a.version));
    match a.event()? {
        Event::Packet(Packet::SubAck(answer)) => Ok(answer.codes),
        Event::Packet(Packet::Disconnect(answer)) => label("after DISCONNECT", ends(a, &[])).map(|()| answer.codes),
        event => fail!("{event:?} in answer to SUBSCRIBE"),
    }
}
