//! What limits the server's sending: Maximum Packet Size, Topic Alias Maximum, Receive Maximum.

use crate::case::Case;
use crate::peer::{Outcome, payloads};
use crate::rules::label;
use crate::wire::{self, PUBACK, PUBCOMP, PUBREC, Publish, Subscribe, Value, prop};
use crate::{ensure, skip};

/// A Maximum Packet Size into which this broker's CONNACK fits, but not much more.
pub fn small_packet_size(t: &Case<'_>) -> Outcome<u32> {
    let probe = t.connect_with("probe", &t.hello("probe").session_expiry(300))?;
    let bytes = probe.connack.as_ref().map_or(0, |c| c.packet_bytes);
    probe.end(&wire::disconnect(0, &[(prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(0))]))?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// No packet larger than the client's maximum is sent; a message too large is dropped for this client only, and is not
/// waiting for it later; one that fits exactly arrives.
pub fn no_packet_too_large(t: &Case<'_>) -> Outcome {
    let maximum = small_packet_size(t)? as usize + 100;
    let size = (prop::MAXIMUM_PACKET_SIZE, Value::FourByte(u32::try_from(maximum).unwrap_or(u32::MAX)));
    let topic = t.topic("x");
    let mut s = t.dial("s")?;
    s.packet_bytes_max = maximum;
    s.hello(&t.lasting("s").with(size))?;
    s.subscribe(&topic, 2)?;
    let mut other = t.connect("other")?;
    other.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    for qos in 0..3 {
        let mut empty = Publish::new(&topic, "", qos);
        empty.packet_id = (qos > 0).then_some(1);
        // From 128 bytes on the Remaining Length takes a byte more than in the empty packet.
        let room = maximum - empty.encode(t.version).len() - usize::from(maximum - 2 >= 128);
        let exact = vec![b'e'; room];
        let too_large = vec![b'l'; room + 1];
        for payload in [&too_large, &exact] {
            p.publish(&topic, payload, qos)?;
            label(&format!("another client, QoS {qos}"), other.receive(&topic, payload))?;
        }
        label(&format!("QoS {qos}"), s.receive(&topic, &exact))?;
    }
    let got = s.collect(t, &mut p)?;
    ensure!(got.is_empty(), "more than what fits: {} messages", got.len());
    s.cut()?;
    // Treated as delivered: it does not come when the client takes larger packets.
    let got = t.resume("s", true)?.collect(t, &mut p)?;
    ensure!(got.is_empty(), "a message that was too large came after the next CONNECT");
    Ok(())
}

/// Topic Aliases from the server stay within the client's maximum, are never 0, and stand for the right names.
pub fn aliases_within_the_clients_maximum(t: &Case<'_>) -> Outcome {
    let maximum = 2;
    let mut s = t.dial("s")?;
    s.hello(&t.lasting("s").with((prop::TOPIC_ALIAS_MAXIMUM, Value::TwoByte(maximum))))?;
    s.subscribe(t.topic("x/#"), 1)?;
    let mut p = t.connect("p")?;
    for round in 0..3 {
        for i in 0..5 {
            let topic = t.topic(&format!("x/{i}"));
            for qos in 0..2 {
                p.publish(&topic, format!("{round}"), qos)?;
                s.receive(&topic, format!("{round}"))?;
            }
        }
    }
    ensure!(s.highest_alias() <= maximum, "Topic Alias {} with a maximum of {maximum}", s.highest_alias());
    s.cut()?;
    // They do not outlive the connection: the peer knows none in a new one and would say so.
    let mut s = t.resume("s", true)?;
    for i in 0..5 {
        p.publish(t.topic(&format!("x/{i}")), "again", 1)?;
        s.receive(t.topic(&format!("x/{i}")), "again")?;
    }
    ensure!(s.highest_alias() == 0, "Topic Alias {} with a maximum of 0", s.highest_alias());
    Ok(())
}

/// Without a Topic Alias Maximum, or with 0, no alias is sent.
pub fn no_aliases_unless_asked_for(t: &Case<'_>) -> Outcome {
    let zero = (prop::TOPIC_ALIAS_MAXIMUM, Value::TwoByte(0));
    let topic = t.topic("x");
    let mut p = t.connect("p")?;
    for connect in [t.hello("s"), t.hello("s").with(zero)] {
        let mut s = t.connect_with("s", &connect)?;
        s.subscribe(&topic, 1)?;
        for i in 0..10_u8 {
            p.publish(&topic, [i], i % 2)?;
            let got = s.receive(&topic, [i])?;
            ensure!(got.property(prop::TOPIC_ALIAS).is_none(), "a Topic Alias without being asked for");
        }
    }
    Ok(())
}

fn servers_maximum(t: &Case<'_>) -> Outcome<u16> {
    let probe = t.connect("probe")?;
    match probe.connack.as_ref().and_then(|c| c.integer(prop::TOPIC_ALIAS_MAXIMUM)) {
        None | Some(0) => skip!("this broker takes no Topic Aliases"),
        Some(maximum) => Ok(u16::try_from(maximum).unwrap_or(u16::MAX)),
    }
}

fn aliased(topic: &str, payload: &str, alias: u16) -> Publish {
    Publish::new(topic, payload, 1).with((prop::TOPIC_ALIAS, Value::TwoByte(alias)))
}

/// Every alias from 1 to the server's maximum is accepted and may be given a new meaning; one above is refused.
pub fn every_alias_is_accepted(t: &Case<'_>) -> Outcome {
    let maximum = servers_maximum(t)?;
    let mut s = t.connect("s")?;
    s.subscribe(t.topic("#"), 1)?;
    let mut p = t.connect("p")?;
    // All of them if there are not too many, else both ends and the boundaries between.
    let mut aliases: Vec<u16> = (1..=maximum.min(32)).collect();
    aliases.extend([255, 256, 1023, 1024, 32_768].iter().filter(|a| **a < maximum));
    aliases.push(maximum);
    for alias in &aliases {
        let topic = t.topic(&format!("x/{alias}"));
        p.publish_with(aliased(&topic, "set", *alias))?;
        s.receive(&topic, "set")?;
    }
    for alias in aliases.iter().rev() {
        p.publish_with(aliased("", "used", *alias))?;
        s.receive(t.topic(&format!("x/{alias}")), "used")?;
    }
    p.publish_with(aliased(&t.topic("other"), "set", 1))?;
    s.receive(t.topic("other"), "set")?;
    p.publish_with(aliased("", "used", 1))?;
    s.receive(t.topic("other"), "used")?;
    if maximum < u16::MAX {
        p.send(aliased(&t.topic("x"), "above", maximum + 1).id(1000).encode(t.version));
        p.expect_close(&[0x94, 0x81, 0x82])?;
    }
    Ok(())
}

/// Topic Alias 0 closes the connection.
pub fn alias_zero(t: &Case<'_>) -> Outcome {
    for topic in [t.topic("x"), String::new()] {
        let mut p = t.connect("p")?;
        p.send(aliased(&topic, "zero", 0).id(1).encode(t.version));
        p.expect_close(&[0x94, 0x81, 0x82])?;
    }
    Ok(())
}

/// An alias of the connection before is unknown in the next one, be it the same Session.
pub fn aliases_end_with_the_connection(t: &Case<'_>) -> Outcome {
    servers_maximum(t)?;
    let topic = t.topic("x");
    let mut s = t.connect("s")?;
    s.subscribe(&topic, 1)?;
    let mut p = t.resume("p", false)?;
    p.publish_with(aliased(&topic, "set", 1))?;
    p.publish_with(aliased("", "used", 1))?;
    p.disconnect()?;
    let mut p = t.resume("p", true)?;
    p.send(aliased("", "old", 1).id(1000).encode(t.version));
    p.expect_close(&[0x82, 0x81, 0x94])?;
    let mut q = t.connect("q")?;
    let got = s.collect(t, &mut q)?;
    ensure!(payloads(&got) == ["set", "used"], "came: {:?}", payloads(&got));
    Ok(())
}

/// Unacknowledged QoS 1 and 2 messages stay within the client's Receive Maximum, for several maxima and across a
/// reconnect.
pub fn receive_maximum(t: &Case<'_>) -> Outcome {
    for maximum in [1, 3] {
        let name = format!("s{maximum}");
        let topic = t.topic(&name);
        let connect = t.lasting(&name).with((prop::RECEIVE_MAXIMUM, Value::TwoByte(maximum)));
        let mut s = t.connect_with(&name, &connect)?;
        s.subscribe(&topic, 2)?;
        let mut p = t.connect("p")?;
        for i in 0..8_u8 {
            p.publish(&topic, [i], 1 + i % 2)?;
        }
        // The quota is above 0 at first, so that many come; and no more.
        let mut open = Vec::new();
        for i in 0..maximum {
            open.push(s.expect_publish(&topic, [i as u8])?);
        }
        label(&format!("Receive Maximum {maximum}"), s.expect_nothing())?;
        s.cut()?;
        let mut s = t.connect_with(&name, &connect)?;
        for first in &open {
            let again = s.expect_publish(&topic, &first.payload)?;
            ensure!(again.packet_id == first.packet_id && again.dup, "sent again as {again:?}");
        }
        label(&format!("Receive Maximum {maximum}, reconnected"), s.expect_nothing())?;
        for publish in &open {
            s.acknowledge(publish)?;
        }
        let mut rest = Vec::new();
        for _ in usize::from(maximum)..8 {
            let got = s.expect_any_publish()?;
            s.acknowledge(&got)?;
            rest.extend(got.payload);
        }
        rest.sort_unstable();
        ensure!(rest == (maximum as u8..8).collect::<Vec<_>>(), "the rest came as {rest:?}");
    }
    // 0 is a protocol error.
    let connect = t.hello("z").with((prop::RECEIVE_MAXIMUM, Value::TwoByte(0)));
    t.send_first("z", connect.encode())?.expect_refused(&[0x81, 0x82], &[])?;
    Ok(())
}

/// PUBACK, PUBCOMP, and a PUBREC with an error free one place each; PUBREC without an error frees none.
pub fn every_settled_exchange_frees_one_place(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.connect_with("s", &t.hello("s").with((prop::RECEIVE_MAXIMUM, Value::TwoByte(1))))?;
    s.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    for (i, qos) in [1, 2, 2, 1, 1].into_iter().enumerate() {
        p.publish(&topic, [b'0' + i as u8], qos)?;
    }
    let id = |publish: Publish| publish.packet_id.unwrap_or(0);
    let zero = id(s.expect_publish(&topic, "0")?);
    s.expect_nothing()?;
    s.send(wire::ack(PUBACK, zero));
    let one = id(s.expect_publish(&topic, "1")?);
    s.send(wire::ack(PUBREC, one));
    s.expect_pubrel(one)?;
    label("after PUBREC", s.expect_nothing())?;
    s.send(wire::ack(PUBCOMP, one));
    let two = id(s.expect_publish(&topic, "2")?);
    label("after PUBCOMP", s.expect_nothing())?;
    s.send(wire::ack_with(PUBREC, two, 0x83));
    let three = id(s.expect_publish(&topic, "3")?);
    label("after PUBREC with an error", s.expect_nothing())?;
    s.send(wire::ack_with(PUBACK, three, 0x83));
    let four = id(s.expect_publish(&topic, "4")?);
    s.send(wire::ack(PUBACK, four));
    s.expect_nothing()
}

/// With the quota used up, everything but PUBLISH flows as usual.
pub fn full_quota_delays_only_publish(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.connect_with("s", &t.hello("s").with((prop::RECEIVE_MAXIMUM, Value::TwoByte(1))))?;
    s.subscribe(&topic, 1)?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "one", 1)?;
    p.publish(&topic, "two", 1)?;
    let one = s.expect_publish(&topic, "one")?;
    s.expect_nothing()?;
    s.subscribe(t.topic("y"), 1)?;
    s.subscribe_with(Subscribe::to(t.topic("z"), 0))?;
    s.publish(t.topic("nobody"), "m", 1)?;
    s.publish(t.topic("nobody"), "m", 2)?;
    s.unsubscribe(&[t.topic("y")])?;
    s.expect_nothing()?;
    s.acknowledge(&one)?;
    s.receive(&topic, "two")?;
    Ok(())
}
