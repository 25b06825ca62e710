//! Shared Subscriptions.

use crate::case::Case;
use crate::peer::{Outcome, Peer, payloads};
use crate::rules::topics::refused_filter;
use crate::wire::{self, PUBACK, PUBCOMP, PUBREC, Subscribe, prop};
use crate::{ensure, skip};

/// Skips the test on a broker without Shared Subscriptions.
pub fn available(peer: &Peer) -> Outcome {
    match peer.connack.as_ref().and_then(|c| c.integer(prop::SHARED_SUBSCRIPTION_AVAILABLE)) {
        Some(0) => skip!("this broker has no Shared Subscriptions"),
        _ => Ok(()),
    }
}

/// Shared filters without a share name, with wildcards in it, or without a filter are not granted.
pub fn bad_shared_filters(t: &Case<'_>) -> Outcome {
    available(&t.connect("a")?)?;
    let x = t.topic("x");
    for filter in ["$share", "$share/", "$share/g", "$share/g/"] {
        refused_filter(t, filter.as_bytes())?;
    }
    for name in ["", "g+", "g#", "+", "#"] {
        refused_filter(t, format!("$share/{name}/{x}").as_bytes())?;
    }
    refused_filter(t, format!("$share/g/{x}/#/y").as_bytes())
}

/// Each member gets shared messages at the lower of published and its own granted QoS.
pub fn granted_qos_is_respected(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut p = t.connect("p")?;
    let mut members = [t.connect("s0")?, t.connect("s1")?, t.connect("s2")?];
    available(&members[0])?;
    for (member, qos) in members.iter_mut().zip(0..) {
        member.subscribe(format!("$share/g/{topic}"), qos)?;
    }
    for qos in 0..3 {
        for _ in 0..6 {
            p.publish(&topic, [b'0' + qos], qos)?;
        }
    }
    let mut count = 0;
    for (member, granted) in members.iter_mut().zip(0..) {
        for got in member.collect(t, &mut p)? {
            let published = got.payload.first().map_or(0, |digit| digit.wrapping_sub(b'0'));
            let lower = granted.min(published);
            ensure!(got.qos == lower, "granted {granted}, published {published}, came at QoS {}", got.qos);
            count += 1;
        }
    }
    ensure!(count == 18, "18 shared messages came {count} times");
    Ok(())
}

/// A, the only member, holds a message of `qos` unacknowledged; then B joins.
fn chosen_and_newcomer(t: &Case<'_>, qos: u8, a: &mut Peer) -> Outcome<(Peer, Peer, u16)> {
    available(a)?;
    let topic = t.topic("x");
    let filter = format!("$share/g/{topic}");
    a.subscribe(&filter, 2)?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "for a", qos)?;
    let id = a.expect_publish(&topic, "for a")?.packet_id.unwrap_or(0);
    let mut b = t.connect("b")?;
    b.subscribe_with(Subscribe::to(&filter, 2))?;
    Ok((p, b, id))
}

/// A QoS 2 delivery that has begun to one member is completed to it after it is back, in both of its halves.
pub fn begun_qos_2_delivery_is_completed(t: &Case<'_>) -> Outcome {
    let mut a = t.resume("a", false)?;
    let (mut p, mut b, id) = chosen_and_newcomer(t, 2, &mut a)?;
    a.cut()?;
    let mut a = t.resume("a", true)?;
    let again = a.expect_publish(t.topic("x"), "for a")?;
    ensure!(again.dup && again.packet_id == Some(id), "sent again as {again:?}");
    a.send(wire::ack(PUBREC, id));
    a.expect_pubrel(id)?;
    a.cut()?;
    let mut a = t.resume("a", true)?;
    a.expect_pubrel(id)?;
    a.send(wire::ack(PUBCOMP, id));
    a.expect_nothing()?;
    let got = b.collect(t, &mut p)?;
    ensure!(got.is_empty(), "the message came to another member too");
    Ok(())
}

/// If the Session of the chosen member ends first, a QoS 2 message whose delivery has begun goes to nobody else.
pub fn begun_qos_2_delivery_stays_with_its_client(t: &Case<'_>) -> Outcome {
    for released in [false, true] {
        let mut a = t.connect("a")?;
        let (mut p, mut b, id) = chosen_and_newcomer(t, 2, &mut a)?;
        if released {
            a.send(wire::ack(PUBREC, id));
            a.expect_pubrel(id)?;
        }
        // The Session ends with the connection.
        a.cut()?;
        let got = b.collect(t, &mut p)?;
        ensure!(got.is_empty(), "the message went to another member: {:?}", payloads(&got));
        b.disconnect()?;
    }
    Ok(())
}

/// A message the chosen member refuses by PUBACK or PUBREC with an error is dropped.
pub fn refused_delivery_is_dropped(t: &Case<'_>) -> Outcome {
    for (qos, packet) in [(1, PUBACK), (2, PUBREC)] {
        let mut a = t.connect("a")?;
        let (mut p, mut b, id) = chosen_and_newcomer(t, qos, &mut a)?;
        a.send(wire::ack_with(packet, id, 0x83));
        a.expect_nothing()?;
        let got = b.collect(t, &mut p)?;
        ensure!(got.is_empty(), "a refused QoS {qos} message went to another member");
        a.disconnect()?;
        let got = b.collect(t, &mut p)?;
        ensure!(got.is_empty(), "a refused QoS {qos} message went to another member later");
        b.disconnect()?;
    }
    Ok(())
}
