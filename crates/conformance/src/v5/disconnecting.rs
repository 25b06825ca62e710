//! Reason Codes, Reason Strings and User Properties of what the server answers, and DISCONNECT.

use super::flow::small_packet_size;
use crate::case::Case;
use crate::peer::{Event, Outcome, VIOLATION};
use crate::rules::framing::{drain, violations};
use crate::rules::label;
use crate::wire::{self, PUBACK, PUBREC, PUBREL, Packet, Property, Publish, Subscribe, Value, prop, user};
use crate::{ensure, skip};

/// What a client can say to be answered by something with a Reason Code.
fn provocations(t: &Case<'_>, kind: &str) -> Vec<Vec<u8>> {
    let v = t.version;
    let subscribe = |filter: &str, id| {
        let mut packet = Subscribe::to(filter, 1);
        packet.packet_id = Some(id);
        packet.encode(v)
    };
    let publish = |qos| -> Vec<Vec<u8>> {
        let text = (prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1));
        [
            Publish::new(t.topic("nobody"), "m", qos),
            Publish::new("$SYS/broker/version", "m", qos),
            Publish::new("$CONTROL/x/v1", "m", qos),
            Publish::new(t.topic("x"), b"\xFF", qos).with(text),
            Publish::new(t.topic("a/+"), "m", qos),
            Publish::new(t.topic("u"), "m", qos).with(user("k", "v")),
        ]
        .into_iter()
        .map(|p| p.id(1).encode(v))
        .collect()
    };
    match kind {
        "PUBLISH" => [publish(1), publish(2)].concat(),
        "release" => vec![wire::ack(PUBREL, 77), wire::ack(PUBREC, 77), wire::ack_with(PUBREL, 78, 0x92)],
        "SUBSCRIBE" => ["a/#/b", "", "$share//x", "$SYS/#", "$share/g/#/x", "ordinary"]
            .iter()
            .map(|filter| subscribe(filter, 1))
            .collect(),
        "UNSUBSCRIBE" => ["a/#/b", "never", "$share//x"].iter().map(|f| wire::unsubscribe(v, 1, &[f])).collect(),
        _ => violations(t).into_iter().map(|(_, bytes)| bytes).collect(),
    }
}

/// All answers to provocations of a kind, with the decoder judging codes and, if `maximum` is given, sizes.
fn answers(t: &Case<'_>, kind: &str, maximum: Option<u32>, problem_information: bool) -> Outcome<Vec<Packet>> {
    let mut heard = Vec::new();
    for bytes in provocations(t, kind) {
        let mut connect = t.hello("a");
        if let Some(maximum) = maximum {
            connect = connect.with((prop::MAXIMUM_PACKET_SIZE, Value::FourByte(maximum)));
        }
        if !problem_information {
            connect = connect.with((prop::REQUEST_PROBLEM_INFORMATION, Value::Byte(0)));
        }
        let mut a = t.dial("a")?;
        a.packet_bytes_max = maximum.map_or(usize::MAX, |m| m as usize);
        a.problem_information = problem_information;
        a.hello(&connect)?;
        a.send(bytes);
        heard.extend(drain(&mut a)?);
    }
    Ok(heard)
}

fn fit(t: &Case<'_>, kind: &str) -> Outcome {
    let maximum = small_packet_size(t)?.max(5);
    answers(t, kind, Some(maximum), true)?;
    // With room for more they are sent in some form as well.
    answers(t, kind, Some(maximum + 20), true)?;
    Ok(())
}

/// PUBACK and PUBREC have listed codes, and every listed code of a client's is understood.
pub fn publish_answers(t: &Case<'_>) -> Outcome {
    let heard = answers(t, "PUBLISH", None, true)?;
    ensure!(heard.iter().any(|p| matches!(p, Packet::PubAck(_))), "no PUBACK at all");
    ensure!(heard.iter().any(|p| matches!(p, Packet::PubRec(_))), "no PUBREC at all");
    let topic = t.topic("listed");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 1)?;
    for code in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        p.publish(&topic, "m", 1)?;
        let id = s.expect_publish(&topic, "m")?.packet_id.unwrap_or(0);
        s.send(wire::ack_with(PUBACK, id, code));
        label(&format!("PUBACK 0x{code:02X}"), s.expect_nothing())?;
    }
    Ok(())
}

/// PUBACK and PUBREC are no larger than the client allows.
pub fn publish_answers_fit(t: &Case<'_>) -> Outcome {
    fit(t, "PUBLISH")
}

/// PUBREL and PUBCOMP have listed codes; PUBREL for an unknown identifier is answered by PUBCOMP.
pub fn release_answers(t: &Case<'_>) -> Outcome {
    let heard = answers(t, "release", None, true)?;
    ensure!(heard.iter().any(|p| matches!(p, Packet::PubComp(_))), "PUBREL for an unknown identifier got no PUBCOMP");
    // And in an ordinary exchange both say 0x00.
    let topic = t.topic("x");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 2)?;
    p.publish(&topic, "m", 2)?;
    let got = s.expect_publish(&topic, "m")?;
    let id = got.packet_id.unwrap_or(0);
    s.send(wire::ack(PUBREC, id));
    let code = s.expect_pubrel(id)?.code();
    ensure!(code == 0, "PUBREL with Reason Code 0x{code:02X}");
    s.send(wire::ack(wire::PUBCOMP, id));
    s.expect_nothing()
}

/// PUBREL and PUBCOMP are no larger than the client allows.
pub fn release_answers_fit(t: &Case<'_>) -> Outcome {
    fit(t, "release")
}

/// SUBACK is no larger than the client allows.
pub fn subscribe_answers_fit(t: &Case<'_>) -> Outcome {
    fit(t, "SUBSCRIBE")
}

/// UNSUBACK is no larger than the client allows.
pub fn unsubscribe_answers_fit(t: &Case<'_>) -> Outcome {
    fit(t, "UNSUBSCRIBE")
}

/// With Request Problem Information 0 only PUBLISH, CONNACK and DISCONNECT have Reason Strings or User Properties.
pub fn no_problem_information(t: &Case<'_>) -> Outcome {
    for kind in ["PUBLISH", "release", "SUBSCRIBE", "UNSUBSCRIBE", "violation"] {
        answers(t, kind, None, false)?;
    }
    // User Properties of a message are no problem information: they still come.
    let topic = t.topic("x");
    let mut s = t.connect_with("s", &t.hello("s").with((prop::REQUEST_PROBLEM_INFORMATION, Value::Byte(0))))?;
    s.subscribe(&topic, 1)?;
    t.connect("p")?.publish_with(Publish::new(&topic, "m", 1).with(user("k", "v")))?;
    let got = s.receive(&topic, "m")?;
    ensure!(got.properties == [user("k", "v")], "properties {:?}", got.properties);
    Ok(())
}

/// The server's DISCONNECT: a listed code, no Session Expiry Interval, nothing after it, then the end.
pub fn servers_disconnect(t: &Case<'_>) -> Outcome {
    let mut taken_over = t.connect("taken-over")?;
    let _new = t.connect("taken-over")?;
    let mut seen = usize::from(taken_over.expect_close(&[0x8E])?.is_some());
    for (what, bytes) in violations(t) {
        let mut a = t.connect("a")?;
        // More to answer, which must not be answered any more.
        a.send([bytes.as_slice(), wire::PINGREQ, wire::PINGREQ].concat());
        // Whether the violation is noticed at all is judged elsewhere; here it is how the broker ends.
        let code = loop {
            match label(what, a.event())? {
                Event::Packet(Packet::Disconnect(answer)) => break answer.code(),
                Event::Packet(Packet::PingResp) | Event::Closed | Event::Silence => break 0,
                Event::Packet(_) => {}
            }
        };
        if code != 0 {
            seen += 1;
            ensure!(VIOLATION.contains(&code), "{what}: DISCONNECT with Reason Code 0x{code:02X}");
            let event = label(what, a.event())?;
            ensure!(event == Event::Closed, "{what}: {event:?} after the broker's DISCONNECT");
        }
    }
    if seen == 0 {
        skip!("this broker never says DISCONNECT");
    }
    Ok(())
}

/// DISCONNECT is no larger than the client allows.
pub fn servers_disconnect_fits(t: &Case<'_>) -> Outcome {
    fit(t, "violation")?;
    let maximum = small_packet_size(t)?;
    let mut a = t.dial("a")?;
    a.packet_bytes_max = maximum as usize;
    a.hello(&t.hello("a").with((prop::MAXIMUM_PACKET_SIZE, Value::FourByte(maximum))))?;
    let _new = t.connect("a")?;
    a.expect_close(&[0x8E])?;
    Ok(())
}

/// Every DISCONNECT a client may send ends the connection, and nothing comes in answer; a wrong one ends it as well.
pub fn clients_disconnect(t: &Case<'_>) -> Outcome {
    let reason: &[Property] = &[wire::text(prop::REASON_STRING, "enough"), user("k", "v")];
    for code in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        for list in [&[][..], reason] {
            let mut a = t.connect("a")?;
            a.send(wire::disconnect(code, list));
            // Open on this side: the broker closes when it has read DISCONNECT, without a DISCONNECT of its own.
            let answer = label(&format!("DISCONNECT 0x{code:02X}"), a.expect_close(&[]));
            answer?;
        }
    }
    for code in [0x05, 0x8E, 0xFF] {
        let mut a = t.connect("a")?;
        a.send(wire::disconnect(code, &[]));
        label(&format!("DISCONNECT 0x{code:02X}"), a.expect_close(VIOLATION))?;
    }
    Ok(())
}
