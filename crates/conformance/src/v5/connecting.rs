//! CONNECT and CONNACK of MQTT 5.0.

use crate::case::Case;
use crate::peer::{Event, Outcome, VIOLATION, payloads};
use crate::rules::{connect, label};
use crate::wire::{Connect, Packet, Property, Subscribe, Value, Version, Will, packet, prop, string, text, user};
use crate::{ensure, fail, skip};

/// Clean Start 1 with a Session Expiry Interval begins a new Session that lasts.
pub fn clean_start_begins_a_session(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.resume("a", false)?;
    a.subscribe(t.topic("old"), 1)?;
    a.disconnect()?;
    let mut a = t.connect_with("a", &t.lasting("a").clean(true))?;
    ensure!(!a.connack.as_ref().is_some_and(|c| c.session_present), "Session Present 1 with Clean Start 1");
    a.subscribe(&topic, 1)?;
    a.disconnect()?;
    let mut p = t.connect("p")?;
    p.publish(t.topic("old"), "old", 1)?;
    p.publish(&topic, "new", 1)?;
    let got = t.resume("a", true)?.collect(t, &mut p)?;
    ensure!(payloads(&got) == ["new"], "the new Session got {:?}", payloads(&got));
    Ok(())
}

/// No Response Information unless CONNECT asks for it.
pub fn no_response_information_unless_asked_for(t: &Case<'_>) -> Outcome {
    let zero = (prop::REQUEST_RESPONSE_INFORMATION, Value::Byte(0));
    for connect in [t.hello("a"), t.hello("a").with(zero)] {
        let a = t.connect_with("a", &connect)?;
        let given = a.connack.as_ref().is_some_and(|c| c.property(prop::RESPONSE_INFORMATION).is_some());
        ensure!(!given, "CONNACK with Response Information, which the client did not ask for");
    }
    Ok(())
}

/// The identifier assigned for a zero-length one is told in CONNACK, is unique, and names the Session.
pub fn assigned_client_id(t: &Case<'_>) -> Outcome {
    let connect = Connect { client_id: Vec::new(), ..t.hello("a") }.session_expiry(300);
    let mut ids = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut a = t.send_first("a", connect.encode())?;
        let connack = a.expect_any_connack()?;
        if connack.code == 0x85 {
            skip!("this broker does not take zero-length Client Identifiers");
        }
        ensure!(connack.code == 0, "refused with 0x{:02X}", connack.code);
        let Some(Value::Text(id)) = connack.property(prop::ASSIGNED_CLIENT_IDENTIFIER) else {
            fail!("CONNACK without Assigned Client Identifier");
        };
        ensure!(!id.is_empty() && !ids.contains(id), "Assigned Client Identifier {:?}", String::from_utf8_lossy(id));
        ids.push(id.clone());
        peers.push(a);
    }
    // The Session can be resumed under the assigned identifier.
    let mut a = peers.remove(0);
    a.subscribe(t.topic("x"), 1)?;
    a.disconnect()?;
    t.connect("p")?.publish(t.topic("x"), "waiting", 1)?;
    let again = Connect { client_id: ids.remove(0), ..t.hello("a").clean(false) }.session_expiry(0);
    let mut a = t.connect_with("a", &again)?;
    let connack = a.connack.clone();
    ensure!(connack.as_ref().is_some_and(|c| c.session_present), "the Session of the assigned identifier is gone");
    ensure!(
        connack.is_some_and(|c| c.property(prop::ASSIGNED_CLIENT_IDENTIFIER).is_none()),
        "an identifier was assigned to a client that has one"
    );
    a.receive(t.topic("x"), "waiting")?;
    for id in ids {
        t.connect_with("tidy", &Connect { client_id: id, ..t.hello("tidy") })?.disconnect()?;
    }
    Ok(())
}

/// A rejected Client Identifier is answered by nothing or CONNACK 0x85, then the connection is closed.
pub fn rejected_client_id(t: &Case<'_>) -> Outcome {
    for length in [65_535, 2_000] {
        let id = format!("{:x<length$}", t.id(""));
        let connect = Connect { client_id: id.into_bytes(), ..t.hello("a") };
        let mut a = t.send_first("a", connect.encode())?;
        // A broker may hold the whole packet for too large before it sees the identifier.
        match a.expect_refused(&[0x85, 0x95, 0x97], &[]) {
            Ok(_) => return Ok(()),
            Err(_) => t.connect_with("a", &connect)?.disconnect()?,
        }
    }
    skip!("this broker accepts every Client Identifier tried")
}

/// A CONNECT whose body is `before`, property bytes as they are, and the Client Identifier.
fn with_property_bytes(t: &Case<'_>, length: &[u8], properties: &[u8]) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend([5, 2, 0, 60]);
    body.extend_from_slice(length);
    body.extend_from_slice(properties);
    body.extend(string(t.id("a")));
    packet(0x10, &body)
}

/// CONNECT packets with properties that are malformed or must not be there; with what is wrong.
pub fn bad_connect_properties(t: &Case<'_>) -> Vec<(String, Vec<u8>)> {
    let twice: &[Property] = &[
        (prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(0)),
        (prop::RECEIVE_MAXIMUM, Value::TwoByte(5)),
        (prop::MAXIMUM_PACKET_SIZE, Value::FourByte(1000)),
        (prop::TOPIC_ALIAS_MAXIMUM, Value::TwoByte(5)),
        (prop::REQUEST_RESPONSE_INFORMATION, Value::Byte(0)),
        (prop::REQUEST_PROBLEM_INFORMATION, Value::Byte(1)),
        text(prop::AUTHENTICATION_METHOD, "X"),
    ];
    let wrong: &[Property] = &[
        (prop::RECEIVE_MAXIMUM, Value::TwoByte(0)),
        (prop::MAXIMUM_PACKET_SIZE, Value::FourByte(0)),
        (prop::REQUEST_PROBLEM_INFORMATION, Value::Byte(2)),
        (prop::REQUEST_RESPONSE_INFORMATION, Value::Byte(2)),
        (prop::AUTHENTICATION_DATA, Value::Binary(b"data without method".to_vec())),
        (prop::TOPIC_ALIAS, Value::TwoByte(1)),
        (prop::WILL_DELAY_INTERVAL, Value::FourByte(1)),
        (prop::SERVER_KEEP_ALIVE, Value::TwoByte(1)),
        text(prop::REASON_STRING, "no"),
        (0x7F, Value::Byte(0)),
        (0x00, Value::Byte(0)),
    ];
    let connect = |list: &[Property]| Connect { properties: list.to_vec(), ..t.hello("a") }.encode();
    let mut list: Vec<(String, Vec<u8>)> = twice
        .iter()
        .map(|p| (format!("property 0x{:02X} twice", p.0), connect(&[p.clone(), p.clone()])))
        .chain(
            wrong.iter().map(|p| (format!("property 0x{:02X} with {:?}", p.0, p.1), connect(std::slice::from_ref(p)))),
        )
        .collect();
    list.push(("property length beyond the packet".into(), with_property_bytes(t, &[0x7F], &[])));
    list.push(("property length inside a property".into(), with_property_bytes(t, &[3], &[0x11, 0, 0, 0, 5])));
    list.push(("property length of five bytes".into(), with_property_bytes(t, &[0x80, 0x80, 0x80, 0x80, 0x01], &[])));
    let will = Will::new(t.topic("w"), "w").with((prop::TOPIC_ALIAS, Value::TwoByte(1)));
    list.push(("will with Topic Alias".into(), t.hello("a").will(will).encode()));
    let will = Will::new(t.topic("w"), "w").with((prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(1)));
    list.push(("will with Session Expiry Interval".into(), t.hello("a").will(will).encode()));
    list
}

/// Properties are part of the format: wrong ones close the connection.
pub fn malformed_properties(t: &Case<'_>) -> Outcome {
    for (what, bytes) in bad_connect_properties(t) {
        let mut a = t.send_first("a", bytes)?;
        label(&what, a.expect_refused(&[VIOLATION, &[0x8C]].concat(), &[]))?;
    }
    Ok(())
}

/// At most one CONNACK in a connection, whatever else is said.
pub fn one_connack(t: &Case<'_>) -> Outcome {
    // `collect` and `fence` fail on a CONNACK.
    let mut a = t.connect("a")?;
    a.subscribe(t.topic("x"), 1)?;
    a.publish(t.topic("x"), "m", 1)?;
    a.collect_own(t)?;
    a.expect_nothing()?;
    connect::second_connect(t)
}

/// Refusals of many kinds: a listed code, flags 0, no DISCONNECT before the CONNACK, and the end of the connection.
pub fn refusing_connacks(t: &Case<'_>) -> Outcome {
    // A Session that could be present.
    t.resume("a", false)?.disconnect()?;
    let unknown = text(prop::AUTHENTICATION_METHOD, "PANTALA-NO-SUCH-METHOD");
    let mut seen = 0;
    let mut all: Vec<(String, Vec<u8>)> = bad_connect_properties(t);
    all.extend(connect::malformed_connects(t).into_iter().map(|(what, bytes)| (what.to_owned(), bytes)));
    all.push(("unknown method".into(), t.hello("a").clean(false).with(unknown).encode()));
    for (what, bytes) in all {
        let mut a = t.send_first("a", bytes)?;
        // What has to be refused at all is judged elsewhere; here it is how. The decoder fails on codes that are not
        // listed and on flag bits 7 to 1.
        let Event::Packet(packet) = label(&what, a.event())? else { continue };
        let Packet::ConnAck(connack) = packet else { fail!("{what}: {packet} instead of CONNACK") };
        if connack.code == 0 {
            a.disconnect()?;
            continue;
        }
        ensure!(connack.code >= 0x80, "{what}: CONNACK with Reason Code 0x{:02X}", connack.code);
        ensure!(!connack.session_present, "{what}: Session Present 1 in a refusing CONNACK");
        ensure!(label(&what, a.event())? == Event::Closed, "{what}: the connection is open after a refusing CONNACK");
        seen += 1;
    }
    ensure!(seen > 0, "the broker refuses nothing by a CONNACK");
    Ok(())
}

fn limited<'a>(t: &Case<'a>, id: u8, target: &Option<String>, flag: &str) -> Outcome<(Case<'a>, u32)> {
    for case in target.iter().map(|target| t.at(target)).chain([t.at(t.target())]) {
        let peer = case.connect("probe")?;
        if let Some(value) = peer.connack.as_ref().and_then(|c| c.integer(id))
            && value < 2
            && !(id == prop::RETAIN_AVAILABLE && value == 1)
        {
            return Ok((case, value));
        }
    }
    if target.is_some() {
        fail!("the listener given by {flag} does not announce property 0x{id:02X} in CONNACK");
    }
    skip!("this broker does not announce such a limit; {flag} can name a listener that does")
}

/// A server without QoS 1 or QoS 2 announces its Maximum QoS, and one that announces none takes QoS 2.
pub fn maximum_qos_is_announced(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    if a.connack.as_ref().and_then(|c| c.integer(prop::MAXIMUM_QOS)).is_none() {
        for qos in 0..3 {
            a.publish(t.topic("x"), "m", qos)?;
        }
    }
    if t.options().max_qos_target.is_some() {
        let (limited, maximum) = limited(t, prop::MAXIMUM_QOS, &t.options().max_qos_target, "--max-qos-target")?;
        let mut p = limited.connect("p")?;
        for qos in 0..=u8::try_from(maximum).unwrap_or(1) {
            p.publish(t.topic("x"), "m", qos)?;
        }
        let mut p = limited.connect("q")?;
        let mut publish = crate::wire::Publish::new(t.topic("x"), "m", u8::try_from(maximum).unwrap_or(1) + 1);
        publish.packet_id = Some(1);
        p.send(publish.encode(Version::V5));
        p.expect_close(&[0x9B, 0x81, 0x82])?;
    }
    Ok(())
}

/// Such a server takes SUBSCRIBE for every QoS, and grants what it can.
pub fn every_qos_may_be_subscribed(t: &Case<'_>) -> Outcome {
    let (case, maximum) = limited(t, prop::MAXIMUM_QOS, &t.options().max_qos_target, "--max-qos-target")?;
    let mut a = case.connect("a")?;
    for qos in 0..3_u8 {
        let answer = a.subscribe_with(Subscribe::to(t.topic("x"), qos))?;
        ensure!(answer.code() <= qos, "SUBSCRIBE with QoS {qos} was answered by 0x{:02X}", answer.code());
        a.publish(t.topic("x"), "m", u8::try_from(maximum).unwrap_or(0))?;
        a.receive(t.topic("x"), "m")?;
    }
    Ok(())
}

/// A will with a QoS above the maximum is refused with 0x9B.
pub fn will_qos_above_the_maximum(t: &Case<'_>) -> Outcome {
    let (case, maximum) = limited(t, prop::MAXIMUM_QOS, &t.options().max_qos_target, "--max-qos-target")?;
    for qos in 0..3_u8 {
        let will = Will { qos, ..Will::new(t.topic("w"), "w") };
        let connect = case.hello("a").will(will);
        if u32::from(qos) > maximum {
            case.send_first("a", connect.encode())?.expect_refused(&[0x9B], &[])?;
        } else {
            case.connect_with("a", &connect)?.disconnect()?;
        }
    }
    Ok(())
}

/// A retained will is refused with 0x9A where there are no Retained Messages.
pub fn retained_will_without_retain(t: &Case<'_>) -> Outcome {
    let target = &t.options().no_retain_target;
    let (case, _) = limited(t, prop::RETAIN_AVAILABLE, target, "--no-retain-target")?;
    let will = Will::new(t.topic("w"), "w");
    case.send_first("a", case.hello("a").will(will.clone().retained()).encode())?.expect_refused(&[0x9A], &[])?;
    case.connect_with("a", &case.hello("a").will(will))?.disconnect()
}

/// A refusing CONNACK is no larger than the client's Maximum Packet Size; 5 bytes are enough for one without
/// properties.
pub fn refusing_connack_fits(t: &Case<'_>) -> Outcome {
    for maximum in [5, 8, 16, 40] {
        let size = (prop::MAXIMUM_PACKET_SIZE, Value::FourByte(maximum));
        let method = text(prop::AUTHENTICATION_METHOD, "PANTALA-NO-SUCH-METHOD");
        let refused = [
            t.hello("a").with(size.clone()).with(method).with(user("k", "v")),
            Connect { level: 6, ..t.hello("a").with(size.clone()) },
            t.hello("a").with(size.clone()).flags(0x03),
            t.hello("a").with(size).with((prop::RECEIVE_MAXIMUM, Value::TwoByte(0))),
        ];
        for (i, connect) in refused.iter().enumerate() {
            let mut a = t.dial("a")?;
            a.packet_bytes_max = maximum as usize;
            a.send(connect.encode());
            let codes: Vec<u8> = (0x80..=0x9F).collect();
            match a.expect_refused(&codes, &[]) {
                Ok(_) => {}
                // The form of another version, of four bytes, is right for an unknown version.
                Err(_) if i == 1 => {}
                failed => {
                    label(&format!("Maximum Packet Size {maximum}"), failed)?;
                }
            }
        }
    }
    Ok(())
}

/// A Session is dropped once its connection is closed and its expiry interval has passed; at 0 with the connection.
pub fn session_expires(t: &Case<'_>) -> Outcome {
    for (seconds, clean) in [(0, false), (1, false), (1, true)] {
        let connect = t.lasting("a").session_expiry(seconds).clean(clean);
        let mut a = t.connect_with("a", &connect)?;
        a.subscribe(t.topic("x"), 1)?;
        a.disconnect()?;
        let mut p = t.connect("p")?;
        p.publish(t.topic("x"), "waiting", 1)?;
        // Time itself is what the statement is about; an idle connection passes it. Brokers that count whole seconds
        // may be up to one late.
        if seconds > 0 {
            p.event_within(std::time::Duration::from_millis(u64::from(seconds) * 1000 + 1200))?;
        }
        let mut a = t.resume("a", false)?;
        let got = a.collect(t, &mut p)?;
        ensure!(got.is_empty(), "messages of an expired Session came: {:?}", payloads(&got));
        a.end(&crate::wire::disconnect(0, &[(prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(0))]))?;
    }
    // While the connection is open, nothing expires.
    let mut a = t.connect_with("a", &t.lasting("a").session_expiry(1))?;
    a.subscribe(t.topic("x"), 1)?;
    a.event_within(std::time::Duration::from_millis(1500))?;
    a.publish(t.topic("x"), "still", 1)?;
    a.receive(t.topic("x"), "still")?;
    a.disconnect()?;
    // And within the interval it is still there.
    let a = t.connect_with("a", &t.lasting("a"))?;
    ensure!(a.connack.as_ref().is_some_and(|c| c.session_present), "the Session expired too early");
    a.disconnect()
}
