//! Fixed headers and Packet Identifiers.

use super::label;
use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, Peer, VIOLATION};
use crate::wire::{self, Packet, Publish, Subscribe, Will, packet};

fn flags_close(t: &Case<'_>, what: &str, bytes: Vec<u8>) -> Outcome {
    let mut a = t.connect("a")?;
    a.send(&bytes);
    label(&format!("{what} 0x{:02X}", bytes[0]), a.expect_close(VIOLATION))?;
    Ok(())
}

fn first_byte(mut bytes: Vec<u8>, first: u8) -> Vec<u8> {
    bytes[0] = first;
    bytes
}

fn subscribe(t: &Case<'_>) -> Vec<u8> {
    let mut subscribe = Subscribe::to(t.topic("x"), 0);
    subscribe.packet_id = Some(1);
    subscribe.encode(t.version)
}

/// Reserved flag bits that are set close the connection, in every packet a client sends.
pub fn reserved_flags(t: &Case<'_>) -> Outcome {
    let mut connect = t.send_first("a", first_byte(t.hello("a").encode(), 0x11))?;
    label("CONNECT 0x11", connect.expect_refused(VIOLATION, &[]))?;
    for flag in [1, 2, 4, 8] {
        flags_close(t, "PINGREQ", packet(0xC0 | flag, &[]))?;
    }
    flags_close(t, "PUBACK", wire::ack(0x41, 1))?;
    flags_close(t, "PUBREC", wire::ack(0x52, 1))?;
    flags_close(t, "PUBCOMP", wire::ack(0x72, 1))?;
    pubrel_flags(t)?;
    subscribe_flags(t)?;
    unsubscribe_flags(t)?;
    disconnect_flags(t)
}

/// PUBREL flags are 0010.
pub fn pubrel_flags(t: &Case<'_>) -> Outcome {
    for flags in [0x0, 0x1, 0x3, 0x6, 0xA] {
        flags_close(t, "PUBREL", wire::ack(0x60 | flags, 1))?;
    }
    Ok(())
}

/// SUBSCRIBE flags are 0010.
pub fn subscribe_flags(t: &Case<'_>) -> Outcome {
    for flags in [0x0, 0x1, 0x3, 0x6, 0xA] {
        flags_close(t, "SUBSCRIBE", first_byte(subscribe(t), 0x80 | flags))?;
    }
    Ok(())
}

/// UNSUBSCRIBE flags are 0010.
pub fn unsubscribe_flags(t: &Case<'_>) -> Outcome {
    for flags in [0x0, 0x1, 0x3, 0x6, 0xA] {
        let bytes = wire::unsubscribe(t.version, 1, &[t.topic("x")]);
        flags_close(t, "UNSUBSCRIBE", first_byte(bytes, 0xA0 | flags))?;
    }
    Ok(())
}

/// DISCONNECT flags are 0000; otherwise it is no DISCONNECT, and the will goes out.
pub fn disconnect_flags(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    for flags in [0x1, 0x2, 0x4, 0x8] {
        let mut a = t.connect_with("a", &t.hello("a").will(Will::new(&topic, [flags])))?;
        a.send(packet(0xE0 | flags, &[]));
        label(&format!("DISCONNECT 0x{:02X}", 0xE0 | flags), a.expect_close(VIOLATION))?;
        watcher.receive(&topic, [flags])?;
    }
    Ok(())
}

/// Packet Identifier 0 closes the connection.
pub fn packet_id_zero(t: &Case<'_>) -> Outcome {
    flags_close(t, "PUBLISH QoS 1 id 0", Publish::new(t.topic("x"), "p", 1).id(0).encode(t.version))?;
    flags_close(t, "PUBLISH QoS 2 id 0", Publish::new(t.topic("x"), "p", 2).id(0).encode(t.version))?;
    flags_close(t, "SUBSCRIBE id 0", Subscribe::to(t.topic("x"), 0).encode(t.version))?;
    flags_close(t, "UNSUBSCRIBE id 0", wire::unsubscribe(t.version, 0, &[t.topic("x")]))
}

/// QoS 0 has no Packet Identifier in either direction: what looks like one is payload.
pub fn no_packet_id_at_qos_0(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    a.subscribe(&topic, 2)?;
    for payload in [&b"\x00\x05"[..], b"", b"\x00\x01abc"] {
        a.publish(&topic, payload, 0)?;
        let got = a.expect_publish(&topic, payload)?;
        ensure!(got.qos == 0, "a message published at QoS 0 came at QoS {}", got.qos);
    }
    Ok(())
}

/// Identifiers of messages in flight to a client are all different and none is 0, at QoS 1 and QoS 2.
pub fn server_packet_ids_are_unique(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.connect("s")?;
    let mut p = t.connect("p")?;
    s.subscribe(&topic, 2)?;
    let mut ids = Vec::new();
    for i in 0..8_u8 {
        p.publish(&topic, [i], 1 + i % 2)?;
        // Nothing is acknowledged, so all are in use.
        let got = s.expect_publish(&topic, [i])?;
        ensure!(got.qos == 1 + i % 2, "published at QoS {}, came at QoS {}", 1 + i % 2, got.qos);
        let id = got.packet_id.unwrap_or(0);
        ensure!(id != 0 && !ids.contains(&id), "Packet Identifier {id} while {ids:?} are in use");
        ids.push(id);
    }
    Ok(())
}

/// PUBACK, PUBREC, PUBCOMP to a client repeat the identifier of its PUBLISH, whatever it is.
pub fn acknowledgements_repeat_the_packet_id(t: &Case<'_>) -> Outcome {
    let mut p = t.connect("p")?;
    for id in [1, 2, 255, 256, 0x1234, 0x8000, 0xFFFF] {
        p.publish_with(Publish::new(t.topic("x"), "p", 1).id(id))?;
        p.publish_with(Publish::new(t.topic("x"), "p", 2).id(id))?;
    }
    // PUBREL from the server repeats the identifier of the server's own PUBLISH; `acknowledge` expects it.
    let mut s = t.connect("s")?;
    s.subscribe(t.topic("x"), 2)?;
    p.publish(t.topic("x"), "q", 2)?;
    s.receive(t.topic("x"), "q")?;
    Ok(())
}

/// SUBACK and UNSUBACK repeat the identifier of the request, also when several are under way.
pub fn suback_and_unsuback_repeat_the_packet_id(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    let ids = [7, 0xFFFF, 0x0100, 1];
    for id in ids {
        let mut subscribe = Subscribe::to(t.topic("x"), 0);
        subscribe.packet_id = Some(id);
        a.send(subscribe.encode(t.version));
    }
    for id in ids {
        a.expect_suback(id)?;
    }
    for id in ids {
        a.send(wire::unsubscribe(t.version, id, &[t.topic("x")]));
    }
    for id in ids {
        a.expect_unsuback(id)?;
    }
    Ok(())
}

/// A packet with both QoS bits set closes the connection.
pub fn qos_3(t: &Case<'_>) -> Outcome {
    for first in [0x36, 0x37, 0x3E] {
        flags_close(t, "PUBLISH", first_byte(Publish::new(t.topic("x"), "p", 1).id(1).encode(t.version), first))?;
    }
    Ok(())
}

/// Malformed packets and packets out of place, each of which closes the connection.
pub fn violations(t: &Case<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let topic = t.topic("x");
    let publish = Publish::new(&topic, "p", 1).id(1).encode(t.version);
    let mut list = vec![
        ("CONNECT again", t.hello("a").encode()),
        ("packet type 0", packet(0x00, &[])),
        ("CONNACK from a client", packet(0x20, if t.version.is_v5() { &[0, 0, 0] } else { &[0, 0] })),
        ("SUBACK from a client", packet(0x90, if t.version.is_v5() { &[0, 1, 0, 0] } else { &[0, 1, 0] })),
        ("UNSUBACK from a client", packet(0xB0, if t.version.is_v5() { &[0, 1, 0, 0] } else { &[0, 1] })),
        ("PINGRESP from a client", packet(0xD0, &[])),
        ("Remaining Length of five bytes", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
        ("PINGREQ with a body", packet(0xC0, &[0])),
        ("PUBLISH QoS 3", first_byte(publish.clone(), 0x36)),
        ("PUBLISH with a topic longer than the packet", packet(0x30, &[0, 9, b'a'])),
        ("PUBLISH that ends before its Packet Identifier", packet(0x32, &wire::string(&topic))),
        ("PUBACK of one byte", packet(0x40, &[0])),
        ("SUBSCRIBE without a Topic Filter", wire::packet(0x82, if t.version.is_v5() { &[0, 1, 0] } else { &[0, 1] })),
        ("UNSUBSCRIBE without a Topic Filter", wire::unsubscribe(t.version, 1, &[] as &[&str])),
        ("SUBSCRIBE that ends before the options", {
            let mut body = vec![0, 1];
            if t.version.is_v5() {
                body.push(0);
            }
            body.extend(wire::string(&topic));
            packet(0x82, &body)
        }),
    ];
    if !t.version.is_v5() {
        list.push(("AUTH in 3.1.1", packet(0xF0, &[])));
    }
    list
}

/// A violation closes the connection it came on, and no other.
pub fn violations_close_their_connection(t: &Case<'_>) -> Outcome {
    let mut other = t.connect("other")?;
    for (what, bytes) in violations(t) {
        let mut a = t.connect("a")?;
        a.send(bytes);
        label(what, a.expect_close(VIOLATION))?;
        label(what, other.fence())?;
    }
    super::connect::first_packet_must_be_connect(t)?;
    other.fence()
}

/// Lengths are written in the fewest bytes, at all boundaries of the Remaining Length. The decoder judges.
pub fn shortest_lengths(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    a.subscribe(&topic, 0)?;
    let overhead = Publish::new(&topic, "", 0).encode(t.version).len() - 2;
    for remaining in [overhead, 127, 128, 16_383, 16_384] {
        let payload = vec![b'x'; remaining - overhead];
        a.publish(&topic, &payload, 0)?;
        a.expect_publish(&topic, &payload)?;
    }
    Ok(())
}

/// All that is heard up to PINGRESP or the end of the connection.
pub fn drain(peer: &mut Peer) -> Outcome<Vec<Packet>> {
    peer.send(wire::PINGREQ);
    let mut heard = Vec::new();
    loop {
        match peer.event()? {
            crate::peer::Event::Packet(Packet::PingResp) | crate::peer::Event::Closed => return Ok(heard),
            crate::peer::Event::Packet(packet) => heard.push(packet),
            crate::peer::Event::Silence => crate::fail!("neither PINGRESP nor the end of the connection"),
        }
    }
}
