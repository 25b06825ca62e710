//! H: properties.

use std::time::{Duration, Instant};

use super::Attack;
use super::arena::{Arena, M, M_OR_P, Told, ends, first, four_byte, live};
use crate::case::Case;
use crate::peer::{Outcome, Peer, Stop, payloads};
use crate::rules::label;
use crate::wire::{self, Packet, Property, Publish, Subscribe, Value, packet, prop, string, text, user, varint};
use crate::{ensure, fail};

/// The rows of this section.
pub const ATTACKS: &[Attack] = &[
    Attack::new("H1", "a property length of five bytes", h1),
    Attack::new("H2", "property lengths that do not fit", h2),
    Attack::new("H3", "each property in each packet it has no place in", h3),
    Attack::new("H4", "each property cut after each of its bytes", h4),
    Attack::new("H5", "a User Property with a key only", h5),
    Attack::new("H6", "variable byte integers longer than needed", h6),
    Attack::new("H7", "Reason Strings of 65 000 bytes", h7),
    Attack::new("H8", "20 000 User Properties", h8),
    Attack::new("H9", "10 MB of properties, byte by byte", h9),
    Attack::new("H10", "User Properties named like headers of tracing", h10),
    Attack::new("H11", "properties beyond the client's Maximum Packet Size", h11),
];

/// Where a client can put properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Connect,
    Will,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

impl Place {
    const ALL: [Place; 11] = [
        Place::Connect,
        Place::Will,
        Place::Publish,
        Place::PubAck,
        Place::PubRec,
        Place::PubRel,
        Place::PubComp,
        Place::Subscribe,
        Place::Unsubscribe,
        Place::Disconnect,
        Place::Auth,
    ];

    /// A packet that is right but, perhaps, for `section`: the length of the properties and they.
    fn carry(self, case: &Case<'_>, section: &[u8]) -> Vec<u8> {
        let topic = string(case.topic("x"));
        let connect = |flags: u8| [&string("MQTT")[..], &[5, flags, 0, 60]].concat();
        let (first, before, after) = match self {
            Place::Connect => (0x10, connect(0x02), string(case.id("a"))),
            Place::Will => {
                (0x10, [connect(0x06), vec![0], string(case.id("a"))].concat(), [topic, string("bye")].concat())
            }
            Place::Publish => (0x30, topic, Vec::new()),
            Place::PubAck => (wire::PUBACK, vec![0, 1, 0], Vec::new()),
            Place::PubRec => (wire::PUBREC, vec![0, 1, 0], Vec::new()),
            Place::PubRel => (wire::PUBREL, vec![0, 1, 0], Vec::new()),
            Place::PubComp => (wire::PUBCOMP, vec![0, 1, 0], Vec::new()),
            Place::Subscribe => (0x82, vec![0, 1], [topic, vec![0]].concat()),
            Place::Unsubscribe => (0xA2, vec![0, 1], topic),
            Place::Disconnect => (0xE0, vec![0], Vec::new()),
            Place::Auth => (0xF0, vec![0x18], Vec::new()),
        };
        packet(first, &[&before, section, &after].concat())
    }

    /// Sends the packet where it belongs; it has to be refused with one of these codes.
    fn refused(self, case: &Case<'_>, what: &str, section: &[u8], codes: &'static [u8]) -> Outcome {
        let bytes = self.carry(case, section);
        label(
            &format!("{self:?}"),
            match self {
                Place::Connect | Place::Will => first(case, what, bytes, Told::Code(codes)),
                _ => live(case, what, bytes, codes),
            },
        )
    }
}

/// Each property with a value that is right, and where it may stand (v5 table 2-4; packets of the server left out).
const TABLE: [(u8, &[u8], &[Place]); 27] = {
    use Place::*;
    [
        (0x01, b"\x01", &[Publish, Will]),
        (0x02, b"\0\0\x01\0", &[Publish, Will]),
        (0x03, b"\0\x04text", &[Publish, Will]),
        (0x08, b"\0\x03r/t", &[Publish, Will]),
        (0x09, b"\0\x02\0\xff", &[Publish, Will]),
        (0x0b, b"\x80\x01", &[Subscribe]),
        (0x11, b"\0\0\0\x01", &[Connect, Disconnect]),
        (0x12, b"\0\x02id", &[]),
        (0x13, b"\0\x3c", &[]),
        (0x15, b"\0\x01M", &[Connect, Auth]),
        (0x16, b"\0\x01x", &[Connect, Auth]),
        (0x17, b"\x01", &[Connect]),
        (0x18, b"\0\0\0\x01", &[Will]),
        (0x19, b"\x01", &[Connect]),
        (0x1a, b"\0\x01r", &[]),
        (0x1c, b"\0\x01s", &[Disconnect]),
        (0x1f, b"\0\x03why", &[PubAck, PubRec, PubRel, PubComp, Disconnect, Auth]),
        (0x21, b"\0\x0a", &[Connect]),
        (0x22, b"\0\x0a", &[Connect]),
        (0x23, b"\0\x01", &[Publish]),
        (0x24, b"\x01", &[]),
        (0x25, b"\x01", &[]),
        (
            0x26,
            b"\0\x01k\0\x01v",
            &[Connect, Will, Publish, PubAck, PubRec, PubRel, PubComp, Subscribe, Unsubscribe, Disconnect, Auth],
        ),
        (0x27, b"\0\x01\0\0", &[Connect]),
        (0x28, b"\x01", &[]),
        (0x29, b"\x01", &[]),
        (0x2a, b"\x01", &[]),
    ]
};

fn h1(t: &Arena<'_>) -> Outcome {
    for place in Place::ALL {
        place.refused(&t.v5, "five bytes of 0", &[0x80, 0x80, 0x80, 0x80, 0x00], M)?;
        place.refused(&t.v5, "five bytes of 1", &[0xff, 0xff, 0xff, 0xff, 0x7f], M)?;
    }
    Ok(())
}

fn h2(t: &Arena<'_>) -> Outcome {
    let property = [&[0x26][..], &string("k"), &string("v")].concat();
    for place in Place::ALL {
        for length in (1..property.len() as u8).chain([property.len() as u8 + 40]) {
            let section = [&[length][..], &property].concat();
            place.refused(&t.v5, &format!("length {length} of {}", property.len()), &section, M)?;
        }
        // After PUBLISH comes the payload, which may look like anything; before a topic or an identifier it may be the
        // length of that which does not fit any more.
        if place != Place::Publish {
            place.refused(&t.v5, "length 0", &[&[0][..], &property].concat(), M_OR_P)?;
        }
    }
    Ok(())
}

fn h3(t: &Arena<'_>) -> Outcome {
    for (id, value, places) in TABLE {
        for place in Place::ALL.into_iter().filter(|place| !places.contains(place)) {
            let section = [&[value.len() as u8 + 1, id][..], value].concat();
            place.refused(&t.v5, &format!("property 0x{id:02x}"), &section, M_OR_P)?;
        }
    }
    Ok(())
}

fn h4(t: &Arena<'_>) -> Outcome {
    for (id, value, places) in TABLE {
        for place in [Place::Connect, Place::Will, Place::Publish, Place::Subscribe, Place::PubAck, Place::Disconnect] {
            if !places.contains(&place) {
                continue;
            }
            for cut in 0..value.len() {
                // The length agrees with what is there.
                let section = [&[cut as u8 + 1, id][..], &value[..cut]].concat();
                place.refused(&t.v5, &format!("property 0x{id:02x}, {cut} bytes"), &section, M)?;
            }
        }
    }
    Ok(())
}

fn h5(t: &Arena<'_>) -> Outcome {
    let half = [&[0x26][..], &string("key")].concat();
    for place in Place::ALL {
        place.refused(&t.v5, "a key", &[&[half.len() as u8][..], &half].concat(), M)?;
        // The other half as a property of its own.
        let rest = [&half[..], &half].concat();
        place.refused(&t.v5, "two keys", &[&[rest.len() as u8][..], &rest].concat(), M)?;
    }
    Ok(())
}

fn h6(t: &Arena<'_>) -> Outcome {
    Place::Subscribe.refused(&t.v5, "Subscription Identifier", &[3, 0x0b, 0x81, 0x00], M)?;
    for place in Place::ALL {
        place.refused(&t.v5, "length 0 in two bytes", &[0x80, 0x00], M)?;
        place.refused(&t.v5, "length 0 in four bytes", &[0x80, 0x80, 0x80, 0x00], M)?;
    }
    Ok(())
}

fn h7(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let reason = text(prop::REASON_STRING, "r".repeat(65_535));
    let acknowledge = |kind: u8, id: u16| {
        let [high, low] = id.to_be_bytes();
        packet(kind, &[&[high, low, 0][..], &wire::properties(std::slice::from_ref(&reason))].concat())
    };
    let mut a = case.connect("a")?;
    for _ in 0..50 {
        for kind in [wire::PUBACK, wire::PUBCOMP] {
            a.send(acknowledge(kind, 7));
        }
        a.send(acknowledge(wire::PUBREL, 8));
        a.expect_pubcomp(8)?;
    }
    a.expect_nothing()?;
    a.end(&wire::disconnect(0x00, std::slice::from_ref(&reason)))?;
    // And not in the log, where there is one that can be read.
    let (mut server, v5, _) = match t.server("[log]\ntypes = [\"all\"]\n", "allow_anonymous = true") {
        Ok(server) => server,
        Err(Stop::Skip(_)) => return Ok(()),
        Err(stop) => return Err(stop),
    };
    v5.connect("a")?.end(&wire::disconnect(0x80, std::slice::from_ref(&reason)))?;
    v5.connect("zzz")?.disconnect()?;
    let log = server.await_log("that the last client has come", |log| log.contains(&v5.id("zzz")))?;
    let longest = log.lines().map(str::len).max().unwrap_or(0);
    ensure!(longest <= 1_024, "a line of {longest} bytes in the log");
    server.check()
}

/// So many User Properties.
fn users(count: usize) -> Vec<Property> {
    vec![user("k", "v"); count]
}

/// From sending `bytes` to the end of the connection, with this code; the best of five.
fn time_to_end(case: &Case<'_>, bytes: &[u8], codes: &[u8]) -> Outcome<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut a = case.connect("a")?;
        let begin = Instant::now();
        a.send(bytes);
        ends(&mut a, codes)?;
        best = best.min(begin.elapsed());
    }
    Ok(best)
}

fn h8(t: &Arena<'_>) -> Outcome {
    /// What is lost in measuring.
    const NOISE: Duration = Duration::from_millis(10);
    let case = &t.v5;
    let section = |count: usize| wire::properties(&users(count));
    // Beyond the limit, in the time it takes to count them.
    for place in [Place::Publish, Place::Subscribe, Place::Unsubscribe] {
        let time = |count: usize| {
            label(&format!("{place:?} with {count}"), time_to_end(case, &place.carry(case, &section(count)), &[0x97]))
        };
        let (half, whole) = (time(10_000)?, time(20_000)?);
        ensure!(whole <= half * 5 / 2 + NOISE, "{place:?}: {half:?} for 10 000, {whole:?} for 20 000");
    }
    // DISCONNECT ends the connection anyway, if not with 20 000 of them then without a word.
    for count in [10_000, 20_000] {
        case.connect("a")?.end(&Place::Disconnect.carry(case, &section(count)))?;
    }
    // CONNECT and Will: 20 000 are longer than a CONNECT may be; 9 000 are not.
    for place in [Place::Connect, Place::Will] {
        first(case, "20 000", place.carry(case, &section(20_000)), Told::NothingOr(&[0x95, 0x97]))?;
        first(case, "9 000", place.carry(case, &section(9_000)), Told::Code(&[0x97]))?;
    }
    // Within the limit, in a time that grows as they do.
    let topic = case.topic("x");
    let mut a = case.connect("a")?;
    a.subscribe(&topic, 0)?;
    let mut time = |count: usize| -> Outcome<Duration> {
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let publish = Publish { properties: users(count), ..Publish::new(&topic, "m", 1) };
            let begin = Instant::now();
            a.publish_with(publish)?;
            best = best.min(begin.elapsed());
            let got = a.expect_publish(&topic, "m")?;
            ensure!(got.properties == users(count), "{count} User Properties came as {}", got.properties.len());
        }
        Ok(best)
    };
    let (half, whole) = (time(1_000)?, time(2_000)?);
    ensure!(whole <= half * 5 / 2 + NOISE, "{half:?} for 1 000, {whole:?} for 2 000");
    Ok(())
}

fn h9(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    // The limit comes first.
    let header = [&[0x30][..], &varint(10_000_010), &string(case.topic("x")), &varint(10_000_000)].concat();
    live(case, "10 MB", header, &[0x95])?;
    // Byte by byte within the limit: each byte costs as much as the one before.
    let time = |bytes: usize| -> Outcome<Duration> {
        let value = "v".repeat(bytes);
        let publish = Publish::new(case.topic("x"), "m", 1).id(1).with(user("k", value)).encode(case.version);
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let mut a = case.connect("a")?;
            let begin = Instant::now();
            for byte in &publish {
                a.send([*byte]);
            }
            a.expect_puback(1)?;
            best = best.min(begin.elapsed());
        }
        Ok(best)
    };
    let (half, whole) = (time(4_000)?, time(8_000)?);
    ensure!(
        whole <= half * 5 / 2 + Duration::from_millis(50),
        "{half:?} for 4 000 bytes one by one, {whole:?} for 8 000"
    );
    Ok(())
}

fn h10(t: &Arena<'_>) -> Outcome {
    let case = &t.v5;
    let topic = case.topic("x");
    let mut a = case.connect("a")?;
    a.subscribe(&topic, 1)?;
    let long = "f".repeat(60_000);
    for value in [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ff-00000000000000000000000000000000-0000000000000000-ff",
        "'; DROP TABLE spans; --",
        "\u{202e}\u{1}%s%n{{7*7}}",
        "",
        &long,
    ] {
        let hostile: Vec<Property> =
            ["traceparent", "tracestate", "baggage"].into_iter().map(|key| user(key, value)).collect();
        a.publish_with(Publish { properties: hostile.clone(), ..Publish::new(&topic, "m", 1) })?;
        let got = a.receive(&topic, "m")?;
        ensure!(got.properties == hostile, "{:?} was changed on the way", wire::clip(value.as_bytes()));
    }
    Ok(())
}

fn h11(t: &Arena<'_>) -> Outcome {
    const BYTES_MAX: usize = 64;
    let case = &t.v5;
    let small = |name: &str| -> Outcome<Peer> {
        let connect = case.hello(name).with(four_byte(prop::MAXIMUM_PACKET_SIZE, BYTES_MAX as u32));
        let mut peer = case.dial(name)?;
        peer.packet_bytes_max = BYTES_MAX;
        peer.hello(&connect)?;
        Ok(peer)
    };
    let topic = case.topic("x");
    let mut s = small("s")?;
    s.subscribe(&topic, 1)?;
    // Reason Strings are left out if they do not fit; the codes are not.
    for wrong in ["a#", "+a/b", "$share/g"] {
        let codes = s.subscribe_with(Subscribe::to(wrong, 1))?.codes;
        ensure!(codes == [0x8F], "{wrong}: {codes:02X?}");
    }
    let mut p = case.connect("p")?;
    for (payload, property) in [
        ("small", None),
        ("User Property", Some(user("key", "v".repeat(BYTES_MAX)))),
        ("Content Type", Some(text(prop::CONTENT_TYPE, "t".repeat(BYTES_MAX)))),
        ("Correlation Data", Some((prop::CORRELATION_DATA, Value::Binary(vec![0; BYTES_MAX])))),
        ("small again", None),
    ] {
        let mut publish = Publish::new(&topic, payload, 1);
        publish.properties.extend(property);
        p.publish_with(publish)?;
    }
    // A message that is too large is not sent, and not cut either; the others are.
    let seen = payloads(&s.collect(case, &mut p)?);
    ensure!(seen == ["small", "small again"], "a client that takes {BYTES_MAX} bytes got {seen:?}");
    // The last words fit too.
    s.send([0x00]);
    match s.next("DISCONNECT")? {
        Packet::Disconnect(answer) if answer.code() == 0x81 => ends(&mut s, &[]),
        other => fail!("expected DISCONNECT 0x81, got {other}"),
    }
}
