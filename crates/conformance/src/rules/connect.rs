//! CONNECT and CONNACK: what is accepted, what is refused, and how.

use std::time::{Duration, Instant};

use super::label;
use crate::case::Case;
use crate::peer::{Event, Outcome, VIOLATION, payloads};
use crate::wire::{self, Connect, Packet, Publish, Subscribe, Will, packet, prop, string};
use crate::{ensure, skip};

/// What a server may answer to a protocol name or version it does not speak.
const UNSUPPORTED: &[u8] = &[0x80, 0x81, 0x82, 0x84];

/// A second CONNECT closes the connection, and gets no second CONNACK.
pub fn second_connect(t: &Case<'_>) -> Outcome {
    let connect = t.hello("a");
    let mut a = t.connect_with("a", &connect)?;
    a.send(connect.encode());
    a.expect_close(VIOLATION)?;
    Ok(())
}

/// Protocol names other than `MQTT` are not served.
pub fn wrong_protocol_name(t: &Case<'_>) -> Outcome {
    for name in [&b"MQTX"[..], b"mqtt", b"MQTTT", b"", b"HTTP"] {
        let connect = Connect { protocol_name: name.to_vec(), ..t.hello("a") };
        label(&format!("protocol name {:?}", wire::clip(name)), refused_by_version(t, &connect))?;
    }
    Ok(())
}

/// Protocol versions nobody speaks are not served. Bit 7 is left alone: bridges mark themselves by it.
pub fn unknown_protocol_version(t: &Case<'_>) -> Outcome {
    for level in [0, 2, 6, 0x7F] {
        let connect = Connect { level, ..t.hello("a") };
        label(&format!("protocol version {level}"), refused_by_version(t, &connect))?;
    }
    Ok(())
}

/// A server that does not know the version cannot know the form of CONNACK either, so both forms of refusal pass.
fn refused_by_version(t: &Case<'_>, connect: &Connect) -> Outcome {
    let mut a = t.send_first("a", connect.encode())?;
    let mut other = t.dial("a")?;
    other.version = if t.version.is_v5() { wire::Version::V311 } else { wire::Version::V5 };
    other.send(connect.encode());
    if let Err(first) = a.expect_refused(UNSUPPORTED, &[1]) {
        other.expect_refused(UNSUPPORTED, &[1]).map_err(|_| first)?;
    }
    Ok(())
}

/// The reserved bit of the Connect Flags has to be 0.
pub fn reserved_connect_flag(t: &Case<'_>) -> Outcome {
    let connect = t.hello("a");
    let flags = connect.flag_byte() | 1;
    t.send_first("a", connect.flags(flags).encode())?.expect_refused(VIOLATION, &[])?;
    Ok(())
}

/// CONNECT packets of wrong format, each with its fault.
pub fn malformed_connects(t: &Case<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let plain = || Connect::new(t.version, t.id("a"));
    let whole = plain().body();
    let id_at = whole.len() - t.id("a").len() - 2;
    let with_will = plain().will(Will::new(t.topic("will"), "w"));
    let will_body = with_will.body();
    let mut list = vec![
        ("reserved connect flag", plain().flags(0x03).encode()),
        ("Will QoS 3", with_will.clone().flags(0x02 | 0x04 | 0x18).encode()),
        ("Will Flag 0 with Will QoS 1", plain().flags(0x0A).encode()),
        ("Will Flag 0 with Will Retain", plain().flags(0x22).encode()),
        ("Will Flag 1 without will fields", plain().flags(0x06).encode()),
        ("will without payload", packet(0x10, &will_body[..will_body.len() - 3])),
        ("User Name Flag without User Name", plain().flags(0x82).encode()),
        ("no Client Identifier", packet(0x10, &whole[..id_at])),
        ("Client Identifier cut short", packet(0x10, &whole[..whole.len() - 1])),
        ("bytes after the payload", packet(0x10, &[whole.as_slice(), b"x"].concat())),
        ("ends in the protocol name", packet(0x10, &whole[..4])),
        ("ends before Keep Alive", packet(0x10, &whole[..9])),
        ("wrong fixed header flags", packet(0x11, &whole)),
    ];
    if !t.version.is_v5() {
        // 5.0 allows a Password without a User Name.
        let password = Connect { password: Some(b"p".to_vec()), ..plain() };
        list.push(("Password Flag without User Name Flag", password.encode()));
    }
    list
}

/// A CONNECT of wrong format closes the connection; in 3.1.1 without a CONNACK.
pub fn malformed_connect(t: &Case<'_>) -> Outcome {
    for (what, bytes) in malformed_connects(t) {
        let mut a = t.send_first("a", bytes)?;
        label(what, a.expect_refused(VIOLATION, &[]))?;
    }
    Ok(())
}

/// With the Will Flag the will fields have to be there; all of them are taken from the payload in their order.
pub fn will_flag_needs_will_fields(t: &Case<'_>) -> Outcome {
    for (what, bytes) in malformed_connects(t).into_iter().filter(|(what, _)| what.to_lowercase().contains("without")) {
        let mut a = t.send_first("a", bytes)?;
        label(what, a.expect_refused(VIOLATION, &[]))?;
    }
    Ok(())
}

/// Without the Will Flag, Will QoS and Will Retain have to be 0.
pub fn will_bits_need_the_will_flag(t: &Case<'_>) -> Outcome {
    for flags in [0x0A, 0x12, 0x22] {
        let mut a = t.send_first("a", t.hello("a").flags(flags).encode())?;
        label(&format!("connect flags 0x{flags:02X}"), a.expect_refused(VIOLATION, &[]))?;
    }
    Ok(())
}

/// Client Identifiers of 1 to 23 bytes of 0-9, a-z, A-Z are accepted.
pub fn ordinary_client_ids(t: &Case<'_>) -> Outcome {
    let long = format!("{:0<23}", t.id("Z"));
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut ids = vec![long];
    // Each of the 62 characters, behind the prefix that keeps tests apart.
    for chunk in letters.as_bytes().chunks(10) {
        ids.push(t.id(&String::from_utf8_lossy(chunk)));
    }
    for id in ids {
        let connect = Connect { client_id: id.clone().into_bytes(), ..t.hello("a") };
        label(&id, t.connect_with("a", &connect)?.disconnect())?;
    }
    // One byte: another client on the same broker may use it too, so nothing but the CONNACK is looked at.
    let connect = Connect { client_id: b"7".to_vec(), ..t.hello("a") };
    t.send_first("one byte", connect.encode())?.expect_connack()?;
    Ok(())
}

/// A zero-length Client Identifier, if taken, is replaced by a unique one: two such clients do not meet.
pub fn zero_length_client_id(t: &Case<'_>) -> Outcome {
    let connect = Connect { client_id: Vec::new(), ..t.hello("a") };
    let mut a = t.send_first("a", connect.encode())?;
    let connack = a.expect_any_connack()?;
    if connack.code != 0 {
        let refusals: &[u8] = if t.version.is_v5() { &[0x85] } else { &[2] };
        ensure!(refusals.contains(&connack.code), "refused with 0x{:02X}", connack.code);
        skip!("this broker does not take zero-length Client Identifiers");
    }
    let mut b = t.connect_with("b", &connect)?;
    a.subscribe(t.topic("x"), 1)?;
    b.publish(t.topic("x"), "hello", 1)?;
    a.receive(t.topic("x"), "hello")?;
    a.fence()?;
    b.fence()
}

/// The Client Identifier names the Session: two clients with different ones do not share anything.
pub fn client_id_names_the_session(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.resume("a", false)?;
    let b = t.resume("b", false)?;
    a.subscribe(&topic, 1)?;
    a.disconnect()?;
    b.disconnect()?;
    let mut b = t.resume("b", true)?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "for a", 1)?;
    let got = b.collect(t, &mut p)?;
    ensure!(got.is_empty(), "b got what a subscribed to: {:?}", payloads(&got));
    t.resume("a", true)?.receive(&topic, "for a")?;
    Ok(())
}

/// A CONNECT with the Client Identifier of a connected client ends the old connection, in 5.0 with 0x8E.
pub fn takeover(t: &Case<'_>) -> Outcome {
    let mut old = t.connect("a")?;
    old.fence()?;
    let mut new = t.connect("a")?;
    let code = old.expect_close(&[0x8E])?;
    ensure!(!t.version.is_v5() || code == Some(0x8E), "the old connection was closed without DISCONNECT 0x8E");
    new.fence()
}

/// An accepted CONNECT gets CONNACK 0x00, and that is the first packet.
pub fn connack_comes_first(t: &Case<'_>) -> Outcome {
    // All in one segment, so that the broker has other packets to answer at once.
    let topic = t.topic("x");
    let mut subscribe = Subscribe::to(&topic, 0);
    subscribe.packet_id = Some(1);
    let bytes = [
        t.hello("a").encode(),
        subscribe.encode(t.version),
        Publish::new(&topic, "early", 0).encode(t.version),
        wire::PINGREQ.to_vec(),
    ]
    .concat();
    let mut a = t.send_first("a", bytes)?;
    a.expect_connack()?;
    a.expect_suback(1)?;
    a.expect_publish(&topic, "early")?;

    // A Session with a message waiting: the message comes after CONNACK.
    let mut b = t.resume("b", false)?;
    b.subscribe(&topic, 1)?;
    b.disconnect()?;
    t.connect("p")?.publish(&topic, "waiting", 1)?;
    let mut b = t.resume("b", true)?;
    b.receive(&topic, "waiting")?;
    Ok(())
}

/// Nothing is processed after a CONNECT that is refused.
pub fn nothing_is_processed_after_a_refusal(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    let bad = Connect { level: 6, ..t.hello("a") };
    let malformed = t.hello("b").flags(0x03);
    for connect in [bad, malformed] {
        let bytes = [connect.encode(), Publish::new(&topic, "smuggled", 0).encode(t.version)].concat();
        let mut a = t.send_first("a", bytes)?;
        loop {
            match a.event() {
                Ok(Event::Closed) => break,
                Ok(Event::Silence) => crate::fail!("a refused CONNECT left the connection open"),
                Ok(Event::Packet(Packet::ConnAck(c))) => ensure!(c.code != 0, "accepted a CONNECT to be refused"),
                Ok(Event::Packet(other)) => crate::fail!("{other} on a refused connection"),
                // A CONNACK in the form of another version.
                Err(_) => {}
            }
        }
    }
    let mut p = t.connect("p")?;
    let got = watcher.collect(t, &mut p)?;
    ensure!(got.is_empty(), "published after a refused CONNECT: {:?}", payloads(&got));
    Ok(())
}

/// Before CONNECT nothing else is served.
pub fn first_packet_must_be_connect(t: &Case<'_>) -> Outcome {
    let mut subscribe = Subscribe::to("x", 0);
    subscribe.packet_id = Some(1);
    for (what, bytes) in [
        ("PUBLISH", Publish::new("x", "y", 0).encode(t.version)),
        ("SUBSCRIBE", subscribe.encode(t.version)),
        ("PINGREQ", wire::PINGREQ.to_vec()),
        ("DISCONNECT", wire::DISCONNECT.to_vec()),
        ("PUBREL", wire::ack(wire::PUBREL, 1)),
        ("packet type 0", packet(0x00, &[])),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        let mut a = t.send_first("a", bytes)?;
        match label(what, a.event())? {
            Event::Closed => {}
            other => crate::fail!("{what} as first packet was answered by {other:?}"),
        }
    }
    Ok(())
}

/// A silent client is cut after 1.5 times its Keep Alive and its will goes out; one that pings in time is not.
pub fn keep_alive(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    let mut a = t.connect_with("a", &t.hello("a").keep_alive(1).will(Will::new(&topic, "gone")))?;
    let seconds = a.connack.as_ref().and_then(|c| c.integer(prop::SERVER_KEEP_ALIVE)).unwrap_or(1);
    if seconds > 2 {
        skip!("the broker turns a Keep Alive of 1 s into {seconds} s");
    }
    let interval = Duration::from_secs(seconds.into());
    a.be_patient();
    watcher.be_patient();
    // The time itself is under test here: alive beyond 1.5 intervals thanks to PINGREQ.
    for _ in 0..3 {
        ensure!(
            a.event_within(interval.mul_f64(0.7))? == Event::Silence,
            "the broker spoke to or closed a client that keeps its Keep Alive"
        );
        a.fence()?;
    }
    let last = Instant::now();
    a.expect_close(&[0x8D])?;
    let took = last.elapsed();
    ensure!(took >= interval, "closed {took:?} after the last packet, earlier than the Keep Alive of {interval:?}");
    // 1.5 intervals and a margin for coarse timers and loaded machines.
    let limit = interval.mul_f64(1.5) + Duration::from_secs(2);
    ensure!(took <= limit, "closed only {took:?} after the last packet");
    watcher.receive(&topic, "gone")?;
    Ok(())
}

/// A strange but legal CONNECT arrives one byte at a time, and is taken as usual.
pub fn bytes_one_by_one(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut subscribe = Subscribe::to(&topic, 1);
    subscribe.packet_id = Some(9);
    let mut a = t.dial("a")?;
    for byte in t.hello("a").encode() {
        a.send([byte]);
    }
    a.expect_connack()?;
    for byte in subscribe.encode(t.version) {
        a.send([byte]);
    }
    ensure!(a.expect_suback(9)?.codes == [1], "SUBACK with another code than 0x01");
    // And a message of 300 kB in one go, byte for byte.
    let payload: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    a.publish(&topic, &payload, 1)?;
    a.receive(&topic, &payload)?;
    Ok(())
}

/// What CONNACK says of Session Present: 0 for clean, 0 for a new Session, 1 for a known one, 0 after cleaning.
pub fn session_present(t: &Case<'_>) -> Outcome {
    let clean = |name: &str| -> Outcome {
        let peer = t.connect(name)?;
        let present = peer.connack.as_ref().is_some_and(|c| c.session_present);
        ensure!(!present, "Session Present 1 for a clean CONNECT");
        peer.disconnect()
    };
    clean("a")?;
    t.resume("a", false)?.disconnect()?;
    t.resume("a", true)?.disconnect()?;
    t.resume("a", true)?.cut()?;
    t.resume("a", true)?.disconnect()?;
    clean("a")?;
    t.resume("a", false)?.disconnect()
}

/// Every refused CONNECT is followed by the end of the connection, and what comes before is at most one CONNACK.
pub fn refusals_close(t: &Case<'_>) -> Outcome {
    malformed_connect(t)?;
    unknown_protocol_version(t)
}

/// A client needs nothing beyond the standard: a plain dialogue of all packets.
pub fn plain_dialogue(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    a.subscribe(&topic, 2)?;
    for qos in 0..3 {
        a.publish(&topic, [b'0' + qos], qos)?;
        a.receive(&topic, [b'0' + qos])?;
    }
    a.unsubscribe(&[&topic])?;
    a.expect_nothing()?;
    a.disconnect()
}

/// Bytes of a CONNECT whose Client Identifier is `id`.
pub fn connect_with_id(t: &Case<'_>, id: &[u8]) -> Vec<u8> {
    let mut body = Connect::new(t.version, "").body();
    body.truncate(body.len() - 2);
    body.extend(string(id));
    packet(0x10, &body)
}
