//! Properties of PUBLISH: passed on unchanged, refused when malformed.

use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, VIOLATION};
use crate::rules::{label, strings};
use crate::wire::{Property, Publish, Subscribe, Value, Version, packet, prop, string, text, user};

/// Sends one message with `list` at each QoS and checks that exactly these come back.
fn passed_on(t: &Case<'_>, list: &[Property]) -> Outcome {
    let topic = t.topic("x");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(&topic, 2)?;
    for qos in 0..3 {
        let mut publish = Publish::new(&topic, "m", qos);
        publish.properties = list.to_vec();
        p.publish_with(publish)?;
        let got = s.receive(&topic, "m")?;
        compare(&got, list)?;
    }
    // The same through the store of Retained Messages and through the queue of an absent client.
    let kept = t.retained_topic(&format!("kept/{}", t.serial()));
    t.connect("absent")?.disconnect()?;
    let mut absent = t.resume("absent", false)?;
    absent.subscribe(&kept, 1)?;
    absent.disconnect()?;
    let mut publish = Publish::new(&kept, "m", 1).retained();
    publish.properties = list.to_vec();
    p.publish_with(publish)?;
    let mut late = t.connect("late")?;
    late.subscribe(&kept, 1)?;
    label("retained", compare(&late.receive(&kept, "m")?, list))?;
    label("queued", compare(&t.resume("absent", true)?.receive(&kept, "m")?, list))
}

/// User Properties in their order; of the others the order does not matter.
fn compare(got: &Publish, list: &[Property]) -> Outcome {
    let users = |list: &[Property]| -> Vec<Property> {
        list.iter().filter(|(id, _)| *id == prop::USER_PROPERTY).cloned().collect()
    };
    ensure!(users(&got.properties) == users(list), "User Properties came as {:?}", users(&got.properties));
    for (id, value) in list.iter().filter(|(id, _)| *id != prop::USER_PROPERTY) {
        ensure!(
            got.property(*id) == Some(value),
            "property 0x{id:02X} sent as {value:?}, came as {:?}",
            got.property(*id)
        );
    }
    for (id, _) in &got.properties {
        ensure!(list.iter().any(|(i, _)| i == id), "property 0x{id:02X} came, but was not sent");
    }
    Ok(())
}

/// Payload Format Indicator is passed on.
pub fn payload_format_indicator(t: &Case<'_>) -> Outcome {
    for value in 0..2 {
        passed_on(t, &[(prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(value))])?;
    }
    Ok(())
}

/// Response Topic is passed on.
pub fn response_topic(t: &Case<'_>) -> Outcome {
    passed_on(t, &[text(prop::RESPONSE_TOPIC, t.topic("answer/ü\u{FEFF}/x"))])
}

/// Correlation Data is passed on, whatever bytes it has.
pub fn correlation_data(t: &Case<'_>) -> Outcome {
    let all: Vec<u8> = (0..=255).collect();
    for data in [all, Vec::new(), vec![0; 20_000]] {
        passed_on(t, &[(prop::CORRELATION_DATA, Value::Binary(data))])?;
    }
    Ok(())
}

/// Content Type is passed on.
pub fn content_type(t: &Case<'_>) -> Outcome {
    for value in ["application/json; charset=utf-8", "", "\u{1F99F}"] {
        passed_on(t, &[text(prop::CONTENT_TYPE, value)])?;
    }
    Ok(())
}

/// All User Properties are passed on in their order, equal keys and empty strings among them.
pub fn user_properties(t: &Case<'_>) -> Outcome {
    let mut list = vec![user("b", "1"), user("a", "2"), user("b", "0"), user("", ""), user("b", "1"), user("ü", "水")];
    passed_on(t, &list)?;
    list.extend((0..20).rev().map(|i| user(format!("k{i}"), format!("v{i}"))));
    list.push(text(prop::CONTENT_TYPE, "between"));
    list.push(user("last", "z"));
    passed_on(t, &list)
}

/// Key and value of a User Property are strings like any other.
pub fn user_property_strings(t: &Case<'_>) -> Outcome {
    for (what, bytes) in strings::ILL_FORMED.iter().chain(&[("U+0000", &b"\0"[..])]) {
        for (part, property) in [("key", user(bytes, "v")), ("value", user("k", bytes))] {
            let publish = Publish::new(t.topic("x"), "m", 0).with(property.clone());
            strings::property_closes(t, &format!("{what} in {part}"), publish)?;
            let mut subscribe = Subscribe::to(t.topic("x"), 0).with(property.clone());
            subscribe.packet_id = Some(1);
            let mut a = t.connect("a")?;
            a.send(subscribe.encode(Version::V5));
            label(&format!("{what} in {part} in SUBSCRIBE"), a.expect_close(VIOLATION))?;
            let mut a = t.send_first("a", t.hello("a").with(property).encode())?;
            label(&format!("{what} in {part} in CONNECT"), a.expect_refused(VIOLATION, &[]))?;
        }
    }
    Ok(())
}

fn text_is_utf8(t: &Case<'_>, id: u8) -> Outcome {
    for (what, bytes) in strings::ILL_FORMED.iter().chain(&[("U+0000", &b"\0"[..])]) {
        let publish = Publish::new(t.topic("x"), "m", 0).with(text(id, bytes));
        strings::property_closes(t, what, publish)?;
    }
    Ok(())
}

/// Response Topic is well-formed UTF-8.
pub fn response_topic_is_utf8(t: &Case<'_>) -> Outcome {
    text_is_utf8(t, prop::RESPONSE_TOPIC)
}

/// Content Type is well-formed UTF-8.
pub fn content_type_is_utf8(t: &Case<'_>) -> Outcome {
    text_is_utf8(t, prop::CONTENT_TYPE)
}

/// Response Topic holds no wildcard characters.
pub fn response_topic_has_no_wildcards(t: &Case<'_>) -> Outcome {
    for name in ["a/#", "a/+", "+", "#"] {
        let publish = Publish::new(t.topic("x"), "m", 0).with(text(prop::RESPONSE_TOPIC, name));
        strings::property_closes(t, &format!("Response Topic {name}"), publish)?;
    }
    Ok(())
}

/// No properties are a property length of 0 in both directions.
pub fn property_length_zero(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    // The decoder would take the payload for properties if the length were left out, and fails on a CONNACK or SUBACK
    // without one.
    a.subscribe(&topic, 1)?;
    for qos in 0..2 {
        a.publish(&topic, "\u{1}payload", qos)?;
        let got = a.receive(&topic, "\u{1}payload")?;
        ensure!(got.properties.is_empty(), "properties that were not sent: {:?}", got.properties);
    }
    // A client that leaves it out sends something else than it means, or something malformed.
    let mut b = t.connect("b")?;
    let body = [string(&topic), vec![0x7F, b'x']].concat();
    b.send(packet(0x30, &body));
    b.expect_close(VIOLATION)?;
    let mut body = crate::wire::Connect::new(Version::V311, t.id("c")).body();
    body[6] = 5;
    t.send_first("c", packet(0x10, &body))?.expect_refused(VIOLATION, &[])?;
    Ok(())
}

/// Property lengths are written in the fewest bytes; the decoder judges.
pub fn shortest_property_lengths(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    a.subscribe(&topic, 0)?;
    // Five bytes are identifier and lengths of a User Property with a key of no bytes.
    for length in [5, 127, 128, 16_383, 16_384] {
        let property = user("", vec![b'v'; length - 5]);
        a.publish_with(Publish::new(&topic, "m", 0).with(property.clone()))?;
        let got = a.expect_publish(&topic, "m")?;
        ensure!(got.properties == [property], "the User Property was changed");
    }
    let mut s = t.connect("s")?;
    for id in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
        let answer = s.subscribe_with(Subscribe::to(&topic, 0).subscription_id(id))?;
        if answer.code() == 0xA1 {
            break;
        }
        a.publish(&topic, "m", 0)?;
        let got = s.expect_publish(&topic, "m")?;
        ensure!(got.subscription_ids() == [id], "Subscription Identifier {id} came as {:?}", got.subscription_ids());
        s.unsubscribe(&[&topic])?;
    }
    Ok(())
}

/// Properties that make PUBLISH, SUBSCRIBE, an acknowledgement or DISCONNECT malformed or a protocol error.
pub fn protocol_errors_in_properties(t: &Case<'_>) -> Outcome {
    let publish: &[(&str, &[Property])] = &[
        ("Subscription Identifier from a client", &[(prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(1))]),
        (
            "Message Expiry Interval twice",
            &[(prop::MESSAGE_EXPIRY_INTERVAL, Value::FourByte(1)), (prop::MESSAGE_EXPIRY_INTERVAL, Value::FourByte(1))],
        ),
        ("Content Type twice", &[text_static(prop::CONTENT_TYPE), text_static(prop::CONTENT_TYPE)]),
        ("Payload Format Indicator 2", &[(prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(2))]),
        ("Session Expiry Interval in PUBLISH", &[(prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(1))]),
        ("unknown property", &[(0x7F, Value::Byte(1))]),
    ];
    for (what, list) in publish {
        let mut message = Publish::new(t.topic("x"), "m", 0);
        message.properties = list.to_vec();
        strings::property_closes(t, what, message)?;
    }
    let subscribe: &[(&str, Property)] = &[
        ("Subscription Identifier 0", (prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(0))),
        ("Topic Alias in SUBSCRIBE", (prop::TOPIC_ALIAS, Value::TwoByte(1))),
    ];
    for (what, property) in subscribe {
        let mut a = t.connect("a")?;
        let mut packet = Subscribe::to(t.topic("x"), 0).with(property.clone());
        packet.packet_id = Some(1);
        a.send(packet.encode(Version::V5));
        label(what, a.expect_close(&[VIOLATION, &[0xA1]].concat()))?;
    }
    for (what, bytes) in [
        ("PUBREL with an unlisted code", crate::wire::ack_with(0x62, 1, 0x10)),
        ("PUBACK with a property of another packet", packet(0x40, &[0, 1, 0, 3, 0x23, 0, 1])),
        ("DISCONNECT with a server's code", crate::wire::disconnect(0x8E, &[])),
        ("DISCONNECT with a Session Expiry Interval where CONNECT had 0", {
            crate::wire::disconnect(0, &[(prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(10))])
        }),
    ] {
        let mut a = t.connect("a")?;
        a.send(bytes);
        label(what, a.expect_close(VIOLATION))?;
    }
    Ok(())
}

fn text_static(id: u8) -> Property {
    (id, Value::Text(Vec::new()))
}
