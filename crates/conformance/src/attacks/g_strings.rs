//! G: UTF-8 and topics.

use std::time::{Duration, Instant};

use super::arena::{Arena, M, Told, bad_connect, ends, first, live};
use super::{Attack, version_name};
use crate::case::Case;
use crate::peer::{Event, Outcome, Peer, Stop};
use crate::rules::label;
use crate::wire::{self, Connect, Packet, Publish, Subscribe, Will, packet, prop, text, user};
use crate::{ensure, fail};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("G1", "what is not UTF-8, in PUBLISH", g1),
    Attack::new("G2", "surrogates and overlong forms", g2),
    Attack::new("G3", "U+0000 in any string", g3),
    Attack::new("G4", "control characters and noncharacters", g4),
    Attack::new("G5", "a byte order mark", g5),
    Attack::new("G6", "topics that differ by normal form only", g6),
    Attack::new("G7", "characters that write over a log", g7),
    Attack::new("G8", "topics that begin with $", g8),
    Attack::new("G9", "empty levels", g9),
    Attack::new("G10", "32 767 levels", g10),
    Attack::new("G11", "a tree of 2ⁿ paths", g11),
    Attack::new("G12", "names made to collide", g12),
];

/// Sends a message to each of these topics, each of which ends its connection; nobody hears of it.
fn never_forwarded(t: &Arena<'_>, topics: &[&[u8]]) -> Outcome {
    t.in_both(|case| {
        let root = case.root().as_bytes();
        let mut spy = case.connect("spy")?;
        spy.only = Some(case.root().to_owned());
        spy.subscribe("#", 1)?;
        let mut other = case.connect("other")?;
        for topic in topics {
            let topic = [root, b"/", topic, b"/x"].concat();
            for qos in 0..3 {
                let mut publish = Publish::new(&topic, "m", qos).retained();
                publish.packet_id = (qos > 0).then_some(1);
                live(case, &format!("{topic:02x?}"), publish.encode(case.version), M)?;
            }
        }
        let seen = spy.collect(case, &mut other)?;
        ensure!(seen.is_empty(), "forwarded: {seen:?}");
        Ok(())
    })
}

fn g1(t: &Arena<'_>) -> Outcome {
    never_forwarded(t, &[b"\xc3\x28", b"\xff", b"\xf4\x90\x80\x80", b"\x80", b"\xfe", b"a\xc3"])
}

fn g2(t: &Arena<'_>) -> Outcome {
    never_forwarded(
        t,
        &[
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xed\xa0\xbd\xed\xb8\x80",
            b"\xc0\xaf",
            b"\xc0\x80",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
        ],
    )
}

fn g3(t: &Arena<'_>) -> Outcome {
    never_forwarded(t, &[b"\0", b"a\0b"])?;
    t.in_both(|case| {
        let mut connect = case.hello("a");
        connect.username = Some(b"na\0me".to_vec());
        bad_connect(case, "User Name", &connect, M)?;
        bad_connect(case, "Client Identifier", &Connect { client_id: b"a\0".to_vec(), ..case.hello("a") }, M)?;
        bad_connect(case, "Will Topic", &case.hello("a").will(Will::new("a\0", "w")), M)?;
        let mut subscribe = Subscribe::to("a\0", 0);
        subscribe.packet_id = Some(1);
        live(case, "SUBSCRIBE", subscribe.encode(case.version), M)?;
        live(case, "UNSUBSCRIBE", wire::unsubscribe(case.version, 1, &["a\0"]), M)
    })?;
    let case = &t.v5;
    for property in
        [user("k\0", "v"), user("k", "v\0"), text(prop::CONTENT_TYPE, "a\0"), text(prop::RESPONSE_TOPIC, "a\0")]
    {
        let publish = Publish::new(case.topic("x"), "m", 0).with(property);
        live(case, &format!("{:?}", publish.properties), publish.encode(case.version), M)?;
    }
    bad_connect(case, "User Property of CONNECT", &case.hello("a").with(user("k", "\0")), M)?;
    let method = text(prop::AUTHENTICATION_METHOD, "M\0");
    bad_connect(case, "Authentication Method", &case.hello("a").with(method), M)?;
    live(case, "Reason String", wire::disconnect(0x00, &[text(prop::REASON_STRING, "\0")]), M)
}

fn g4(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let mut spy = case.connect("spy")?;
        spy.subscribe(case.topic("#"), 1)?;
        for character in ["\u{1}", "\u{1f}", "\n", "\u{7f}", "\u{80}", "\u{9f}", "\u{fdd0}", "\u{fffe}", "\u{10ffff}"] {
            let topic = case.topic(&format!("a{character}b"));
            match case.connect("p")?.try_publish(Publish::new(&topic, "m", 1))? {
                // Accepted, and then as it is.
                Some(code) if code < 0x80 => drop(spy.receive(&topic, "m")?),
                Some(code) => fail!("{topic:?}: PUBACK 0x{code:02X}"),
                None => spy.expect_nothing()?,
            }
        }
        Ok(())
    })
}

/// Publishes to each of these topics; a subscriber of exactly one of them gets exactly that, byte for byte.
fn kept_apart(case: &Case<'_>, topics: &[&str]) -> Outcome {
    let mut p = case.connect("p")?;
    let mut subscribers: Vec<Peer> = Vec::new();
    for (number, topic) in topics.iter().enumerate() {
        let mut s = case.connect(&format!("s{number}"))?;
        s.subscribe(case.topic(topic), 1)?;
        subscribers.push(s);
    }
    for topic in topics {
        p.publish(case.topic(topic), topic, 1)?;
    }
    for (topic, s) in topics.iter().zip(&mut subscribers) {
        let seen = s.collect(case, &mut p)?;
        let right =
            matches!(&seen[..], [m] if m.topic == case.topic(topic).as_bytes() && m.payload == topic.as_bytes());
        ensure!(right, "a subscriber of {topic:?} got {seen:?}");
    }
    Ok(())
}

fn g5(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        kept_apart(case, &["\u{feff}x", "x"])?;
        // At the very start of the string.
        let topic = format!("\u{feff}{}", case.root());
        let mut a = case.connect("a")?;
        a.subscribe(&topic, 1)?;
        let mut p = case.connect("p")?;
        p.publish(case.root(), "without", 1)?;
        p.publish(&topic, "with", 1)?;
        a.receive(&topic, "with")?;
        a.expect_nothing()
    })
}

fn g6(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| kept_apart(case, &["é", "e\u{301}", "ﬁ", "fi", "Å", "\u{212b}", "a\u{30a}"]))
}

fn g7(t: &Arena<'_>) -> Outcome {
    // Characters that would move the cursor, begin a line, or turn the text around.
    const EVIL: [char; 6] = ['\u{1b}', '\n', '\r', '\u{202e}', '\u{2066}', '\u{9b}'];
    let (mut server, v5, v311) = t.server("[log]\ntypes = [\"all\"]\n", "allow_anonymous = true")?;
    for case in [&v5, &v311] {
        for (number, evil) in EVIL.into_iter().enumerate() {
            let id = format!("{}evil{number}{evil}[31m2026-01-01 00:00:00 forged", case.root());
            let mut a = case.send_first("a", Connect { client_id: id.into_bytes(), ..case.hello("a") }.encode())?;
            // Refused as malformed, or accepted; what matters is the log.
            match a.event()? {
                Event::Closed => {}
                Event::Packet(Packet::ConnAck(connack)) if connack.code != 0 => {
                    label(version_name(case.version), ends(&mut a, &[]))?;
                }
                Event::Packet(Packet::ConnAck(_)) => {
                    let topic = format!("evil{evil}[31m\u{202e}forged");
                    a.subscribe_with(Subscribe::to(&topic, 1))?;
                    a.publish(&topic, "m", 0)?;
                    a.unsubscribe(&[&topic])?;
                    // An end that has something to be logged.
                    a.send([0x00]);
                    label(version_name(case.version), ends(&mut a, M))?;
                }
                event => fail!("{event:?} in answer to CONNECT"),
            }
        }
        let long = Connect { client_id: vec![b'x'; 60_000], ..case.hello("a") };
        let told = if case.version.is_v5() { &[0x85][..] } else { &[0x02] };
        first(case, "60 000 bytes", long.encode(), Told::Code(if told == [0x85] { &[0x85] } else { &[0x02] }))?;
    }
    // A client that comes last; when it is in the log, so is what came before.
    v5.connect("zzz")?.disconnect()?;
    let log = server.await_log("that the last client has come", |log| log.contains(&v5.id("zzz")))?;
    for line in log.lines() {
        ensure!(line.len() <= 1_024, "a line of {} bytes: {:?}", line.len(), wire::clip(line.as_bytes()));
        ensure!(!line.contains(['\u{1b}', '\r', '\u{202e}', '\u{2066}', '\u{9b}']), "raw in the log: {line:?}");
        ensure!(!line.contains("forged") || line.contains("evil"), "a forged line: {line:?}");
        ensure!(!line.starts_with("[31m"), "a forged line: {line:?}");
    }
    server.check()
}

fn g8(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let root = case.root();
        let mut all = case.connect("all")?;
        all.only = Some(root.to_owned());
        for filter in ["#", "+/#", &format!("+/{root}/x"), &format!("+/{root}/#")] {
            all.subscribe_with(Subscribe::to(filter, 1))?;
        }
        let mut p = case.connect("p")?;
        for first in ["$", "$x", "$SYS2", "$$", "$share2"] {
            let topic = format!("{first}/{root}/x");
            let mut one = case.connect("one")?;
            one.subscribe(format!("{first}/{root}/#"), 1)?;
            p.publish(&topic, "m", 1)?;
            label(first, one.receive(&topic, "m").map(drop))?;
        }
        let seen = all.collect(case, &mut p)?;
        let seen: Vec<_> = seen.iter().filter(|m| m.topic.ends_with(format!("/{root}/x").as_bytes())).collect();
        ensure!(seen.is_empty(), "a wildcard in the first level matched {seen:?}");
        Ok(())
    })
}

fn g9(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        kept_apart(case, &["", "/", "//", "a//b", "a/b", "a/b/", "/a/b", "a///b"])?;
        let mut a = case.connect("a")?;
        a.subscribe(case.topic("+/+"), 1)?;
        let mut p = case.connect("p")?;
        for (topic, matches) in [("/", true), ("a/", true), ("/a", true), ("//", false), ("a", false)] {
            p.publish(case.topic(topic), "m", 1)?;
            let seen = a.collect(case, &mut p)?.len();
            ensure!(seen == usize::from(matches), "{topic:?} matched +/+ {seen} times");
        }
        Ok(())
    })
}

fn g10(t: &Arena<'_>) -> Outcome {
    t.in_both(|case| {
        let mut all = case.connect("all")?;
        all.subscribe(case.topic("#"), 1)?;
        for levels in [32_767, 60_000] {
            let topic = format!("{}{}", case.root(), "/".repeat(levels));
            for retain in [false, true] {
                let publish = Publish { retain, ..Publish::new(&topic, "m", 1).id(1) };
                // 0x81 where a broker takes levels beyond reason for malformed, as is documented then.
                live(case, &format!("{levels} levels"), publish.encode(case.version), &[0x90, 0x81])?;
            }
        }
        // What is within reason is served.
        let topic = format!("{}{}", case.root(), "/l".repeat(127));
        let mut p = case.connect("p")?;
        p.publish(&topic, "m", 1)?;
        all.receive(&topic, "m")?;
        all.expect_nothing()
    })
}

fn g11(t: &Arena<'_>) -> Outcome {
    /// 2^13 filters, no two of which share a path.
    const LEVELS: usize = 13;
    const MESSAGES: usize = 20;
    /// For one message to be matched; the nodes are some ten thousands.
    const MATCH_DURATION_MAX: Duration = Duration::from_millis(100);
    let case = &t.v5;
    let root = case.root();
    let mut a = case.connect("a")?;
    let filters: Vec<_> = (0..1_usize << LEVELS)
        .map(|bits| {
            let levels = (0..LEVELS).map(|level| if bits >> level & 1 == 1 { "/+" } else { "/a" });
            // Each ends in a level that no topic has, so that all paths are walked for nothing.
            (format!("{root}{}/z", levels.collect::<String>()).into_bytes(), 0)
        })
        .collect();
    let codes = a.subscribe_with(Subscribe { filters, ..Subscribe::default() })?.codes;
    ensure!(codes.iter().all(|code| *code == 0), "not all filters were granted");
    a.subscribe(format!("{root}/{}#", "+/".repeat(98)), 0)?;
    a.subscribe(format!("{root}/{}z", "+/#".replace('#', "+/").repeat(40)), 0)?;
    let mut p = case.connect("p")?;
    let topic = format!("{root}{}", "/a".repeat(LEVELS));
    for deep in [String::new(), "/y".into(), "/a".repeat(100 - LEVELS)] {
        let begin = Instant::now();
        for _ in 0..MESSAGES {
            p.publish(format!("{topic}{deep}"), "m", 1)?;
        }
        let each = begin.elapsed() / MESSAGES as u32;
        ensure!(each <= MATCH_DURATION_MAX, "a message took {each:?}");
    }
    let seen = a.collect(case, &mut p)?;
    ensure!(seen.len() == MESSAGES, "{} messages matched the filter of 100 levels, expected {MESSAGES}", seen.len());
    Ok(())
}

fn g12(t: &Arena<'_>) -> Outcome {
    const BITS: usize = 14;
    let case = &t.v5;
    let root = case.root();
    // "Aa" and "BB" have the same value under the polynomials that many hash functions are, and so have all their chains.
    let colliding: Vec<String> = (0..1_usize << BITS)
        .map(|bits| (0..BITS).map(|bit| if bits >> bit & 1 == 1 { "Aa" } else { "BB" }).collect())
        .collect();
    let plain: Vec<String> = (0..1_usize << BITS).map(|number| format!("{number:028}")).collect();
    let time = |names: &[String]| -> Outcome<Duration> {
        let mut a = case.connect("a")?;
        let mut p = case.connect("p")?;
        let begin = Instant::now();
        for part in names.chunks(4_096) {
            let filters = part.iter().map(|name| (format!("{root}/{name}").into_bytes(), 0)).collect();
            let codes = a.subscribe_with(Subscribe { filters, ..Subscribe::default() })?.codes;
            ensure!(codes.iter().all(|code| *code == 0), "not all filters were granted");
            for name in part.iter().step_by(8) {
                p.send(Publish::new(format!("{root}/{name}"), "m", 0).encode(case.version));
            }
            p.fence()?;
        }
        let took = begin.elapsed();
        a.disconnect()?;
        p.disconnect()?;
        Ok(took)
    };
    // The best of three, so that a busy machine does not decide.
    let best = |names: &[String]| -> Outcome<Duration> {
        let times = (0..3).map(|_| time(names)).collect::<Outcome<Vec<_>>>()?;
        times.into_iter().min().ok_or_else(|| Stop::Fail("nothing was measured".into()))
    };
    let (usual, evil) = (best(&plain)?, best(&colliding)?);
    ensure!(
        evil <= usual * 5 / 2 + Duration::from_millis(50),
        "{evil:?} for names made to collide, {usual:?} for others"
    );
    // The same for Client Identifiers, which nobody has looked at yet.
    for name in colliding.iter().step_by(32) {
        let connect = Connect { client_id: format!("{root}{name}").into_bytes(), ..case.hello("c") };
        case.connect_with("c", &connect)?;
    }
    // What is no filter at all is not kept either.
    live(case, "UNSUBSCRIBE of no text", packet(0xa2, &[0, 1, 0, 0, 2, 0xc3, 0x28]), M)
}
