//! QoS 0, 1 and 2: exchanges in both directions, sending again, order.

use super::label;
use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, Peer, payloads};
use crate::wire::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish};

/// Each QoS gets the answer it calls for: none, PUBACK, PUBREC.
pub fn answer_by_qos(t: &Case<'_>) -> Outcome {
    let mut p = t.connect("p")?;
    p.publish(t.topic("x"), "0", 0)?;
    p.expect_nothing()?;
    p.publish(t.topic("x"), "1", 1)?;
    p.expect_nothing()?;
    p.publish(t.topic("x"), "2", 2)?;
    p.expect_nothing()
}

/// QoS 0 to a subscriber has DUP 0, whatever the publisher's DUP was.
pub fn qos_0_has_no_dup(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 0)?;
    p.publish(&topic, "0", 0)?;
    s.receive(&topic, "0")?;
    for qos in 1..3 {
        p.publish_with(Publish::new(&topic, "dup", qos).dup())?;
        let got = s.receive(&topic, "dup")?;
        ensure!(got.qos == 0 && !got.dup, "came at QoS {} with DUP {}", got.qos, got.dup);
    }
    Ok(())
}

/// DUP of the publisher is not passed on: the first delivery to a subscriber has DUP 0.
pub fn dup_is_not_passed_on(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 2)?;
    for qos in 1..3 {
        p.publish_with(Publish::new(&topic, "dup", qos).dup())?;
        let got = s.receive(&topic, "dup")?;
        ensure!(!got.dup, "a first delivery at QoS {} has DUP 1", got.qos);
    }
    Ok(())
}

/// The lower of published and granted QoS is delivered, for all nine pairs.
pub fn delivered_qos_is_the_lower(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut p = t.connect("p")?;
    for granted in 0..3 {
        let mut s = t.connect("s")?;
        s.subscribe(&topic, granted)?;
        for published in 0..3 {
            p.publish(&topic, "m", published)?;
            let got = s.receive(&topic, "m")?;
            let lower = granted.min(published);
            ensure!(got.qos == lower, "published {published}, granted {granted}: came at QoS {}", got.qos);
        }
    }
    Ok(())
}

/// QoS 1 as receiver: after PUBACK the same Packet Identifier is a new message, whatever DUP says.
pub fn qos_1_receiver(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 1)?;
    for (payload, dup) in [("one", false), ("two", true), ("three", false)] {
        let mut publish = Publish::new(&topic, payload, 1).id(9);
        publish.dup = dup;
        p.publish_with(publish)?;
        s.receive(&topic, payload)?;
    }
    Ok(())
}

/// QoS 1 as sender: identifier, QoS 1, DUP 0; unacknowledged until PUBACK, so sent again after a reconnect and only
/// then; settled after PUBACK.
pub fn qos_1_sender(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 1)?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "m", 1)?;
    let first = s.expect_publish(&topic, "m")?;
    ensure!(first.qos == 1 && !first.dup, "first delivery at QoS {} with DUP {}", first.qos, first.dup);
    s.expect_nothing()?;
    s.cut()?;
    let mut s = t.resume("s", true)?;
    let again = s.expect_publish(&topic, "m")?;
    ensure!(again.dup, "sent again with DUP 0");
    ensure!(again.qos == 1 && again.packet_id == first.packet_id, "sent again as {again:?}, first as {first:?}");
    s.acknowledge(&again)?;
    s.fence()?;
    s.cut()?;
    let got = t.resume("s", true)?.collect(t, &mut p)?;
    ensure!(got.is_empty(), "sent again after PUBACK");
    Ok(())
}

/// QoS 2 as sender: PUBLISH with DUP 0; PUBREL after PUBREC; after that PUBREL, never PUBLISH, is sent again; settled
/// after PUBCOMP.
pub fn qos_2_sender(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "m", 2)?;
    let first = s.expect_publish(&topic, "m")?;
    ensure!(first.qos == 2 && !first.dup, "first delivery at QoS {} with DUP {}", first.qos, first.dup);
    let id = first.packet_id.unwrap_or(0);
    s.cut()?;

    // Before PUBREC: PUBLISH again.
    let mut s = t.resume("s", true)?;
    let again = s.expect_publish(&topic, "m")?;
    ensure!(again.dup && again.packet_id == Some(id), "before PUBREC sent again as {again:?}");
    s.send(wire::ack(PUBREC, id));
    s.expect_pubrel(id)?;
    s.expect_nothing()?;
    s.cut()?;

    // After PUBREC: PUBREL again, twice over.
    for _ in 0..2 {
        let mut s = t.resume("s", true)?;
        s.expect_pubrel(id)?;
        s.expect_nothing()?;
        s.cut()?;
    }
    let mut s = t.resume("s", true)?;
    s.expect_pubrel(id)?;
    s.send(wire::ack(PUBCOMP, id));
    s.fence()?;
    s.cut()?;
    let got = t.resume("s", true)?.collect(t, &mut p)?;
    ensure!(got.is_empty(), "sent again after PUBCOMP");
    Ok(())
}

/// QoS 2 as receiver: repeats before PUBREL are answered and not delivered again; after PUBCOMP the identifier is new.
pub fn qos_2_receiver(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 2)?;
    let publish = Publish::new(&topic, "m", 2).id(5);
    p.send(publish.encode(t.version));
    p.expect_pubrec(5)?;
    for _ in 0..3 {
        p.send(publish.clone().dup().encode(t.version));
        p.expect_pubrec(5)?;
    }
    p.send(wire::ack(PUBREL, 5));
    ensure!(p.expect_pubcomp(5)?.code() == 0, "PUBCOMP with an error");
    let got = s.collect(t, &mut p)?;
    ensure!(got.len() == 1, "one QoS 2 message sent four times before PUBREL came {} times", got.len());
    // PUBREL again is answered again, be it unknown by now.
    p.send(wire::ack(PUBREL, 5));
    p.expect_pubcomp(5)?;
    p.publish_with(Publish::new(&topic, "next", 2).id(5))?;
    s.receive(&topic, "next")?;
    Ok(())
}

/// The publisher's side of a QoS 2 exchange is Session state: a repeat after a reconnect is not delivered again.
pub fn qos_2_receiver_across_reconnect(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.connect("s")?;
    s.subscribe(&topic, 2)?;
    let mut p = t.resume("p", false)?;
    p.send(Publish::new(&topic, "m", 2).id(5).encode(t.version));
    p.expect_pubrec(5)?;
    p.cut()?;
    let mut p = t.resume("p", true)?;
    p.send(Publish::new(&topic, "m", 2).id(5).dup().encode(t.version));
    p.expect_pubrec(5)?;
    p.cut()?;
    let mut p = t.resume("p", true)?;
    p.send(wire::ack(PUBREL, 5));
    ensure!(p.expect_pubcomp(5)?.code() == 0, "PUBCOMP with an error for an exchange of this Session");
    let got = s.collect(t, &mut p)?;
    ensure!(got.len() == 1, "came {} times", got.len());
    Ok(())
}

/// After a reconnect all that was not acknowledged is sent again: with its identifiers, in its order, with DUP, before
/// newer messages; and nothing is sent again at any other time.
pub fn resends_after_reconnect(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    let mut first = Vec::new();
    for i in 0..6_u8 {
        p.publish(&topic, [b'0' + i], 1 + i % 2)?;
        first.push(s.expect_publish(&topic, [b'0' + i])?);
    }
    // The third (QoS 1) is acknowledged, the fourth (QoS 2) up to PUBREL.
    s.send(wire::ack(PUBACK, first[2].packet_id.unwrap_or(0)));
    let released = first[3].packet_id.unwrap_or(0);
    s.send(wire::ack(PUBREC, released));
    s.expect_pubrel(released)?;
    s.expect_nothing()?;
    s.cut()?;
    p.publish(&topic, "new", 1)?;
    let mut s = t.resume("s", true)?;
    // The PUBREL may come before, between or after the PUBLISHes; `expect_pubrel` finds it.
    s.expect_pubrel(released)?;
    s.send(wire::ack(PUBCOMP, released));
    for i in [0, 1, 4, 5] {
        let again = s.expect_publish(&topic, [b'0' + i as u8])?;
        ensure!(again.dup, "message {i} sent again with DUP 0");
        ensure!(again.packet_id == first[i].packet_id, "message {i} sent again with another Packet Identifier");
        ensure!(again.qos == first[i].qos, "message {i} sent again at another QoS");
        s.acknowledge(&again)?;
    }
    let new = s.receive(&topic, "new")?;
    // A broker may have taken `new` for in flight on the connection that was just gone, so DUP is not judged.
    ensure!(new.qos == 1, "came at QoS {}", new.qos);
    s.expect_nothing()
}

/// Messages of one publisher, topic and QoS reach every subscriber in the order of publishing.
pub fn order_is_kept(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut p = t.connect("p")?;
    let mut subscribers = [t.connect("s1")?, t.connect("s2")?];
    for s in &mut subscribers {
        s.subscribe(&topic, 2)?;
    }
    for qos in 0..3 {
        for batch in 0..3_u8 {
            label(&format!("QoS {qos}"), batch_in_order(&mut p, &mut subscribers, &topic, qos, batch * 10))?;
        }
    }
    Ok(())
}

fn batch_in_order(p: &mut Peer, subscribers: &mut [Peer], topic: &str, qos: u8, from: u8) -> Outcome {
    let mut ids = Vec::new();
    let mut bytes = Vec::new();
    for i in from..from + 10 {
        let mut publish = Publish::new(topic, [i], qos);
        if qos > 0 {
            let id = p.packet_id();
            ids.push(id);
            publish.packet_id = Some(id);
        }
        bytes.extend(publish.encode(p.version));
    }
    // Ten in one segment; the answers are read afterwards.
    p.send(bytes);
    for id in &ids {
        if qos == 1 {
            p.expect_puback(*id)?;
        } else {
            p.expect_pubrec(*id)?;
            p.send(wire::ack(PUBREL, *id));
        }
    }
    if qos == 2 {
        for id in &ids {
            p.expect_pubcomp(*id)?;
        }
    }
    for s in subscribers {
        for i in from..from + 10 {
            s.receive(topic, [i])?;
        }
    }
    Ok(())
}

/// Messages that waited for an absent client come in the order of publishing.
pub fn order_is_kept_for_absent(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    s.disconnect()?;
    let mut p = t.connect("p")?;
    for qos in 1..3 {
        for i in 0..15 {
            p.publish(&topic, format!("{qos}:{i}"), qos)?;
        }
    }
    let mut s = t.resume("s", true)?;
    let got = s.collect(t, &mut p)?;
    for qos in ["1:", "2:"] {
        let of_qos: Vec<_> = payloads(&got).into_iter().filter(|m| m.starts_with(qos)).collect();
        let expected: Vec<_> = (0..15).map(|i| format!("{qos}{i}")).collect();
        ensure!(of_qos == expected, "order at QoS {qos} {of_qos:?}");
    }
    Ok(())
}

/// PUBLISH of a client that may not publish there is acknowledged as usual or closes the connection; what a broker
/// keeps to itself (`$SYS`) serves as the place.
pub fn unauthorised_publish(t: &Case<'_>) -> Outcome {
    for qos in 0..3 {
        // Either answer is right; `try_publish` fails if neither comes.
        t.connect("p")?.try_publish(Publish::new("$SYS/broker/version", "mine", qos))?;
    }
    t.connect("q")?.fence()
}
