//! UTF-8 strings.

use super::connect::connect_with_id;
use super::label;
use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, VIOLATION, payloads};
use crate::wire::{Publish, Subscribe, Will};

/// Byte sequences that are not well-formed UTF-8.
pub const ILL_FORMED: &[(&str, &[u8])] = &[
    ("high surrogate", b"\xED\xA0\x80"),
    ("low surrogate", b"\xED\xBF\xBF"),
    ("overlong slash", b"\xC0\xAF"),
    ("overlong NUL", b"\xC0\x80"),
    ("overlong in three bytes", b"\xE0\x80\xAF"),
    ("above U+10FFFF", b"\xF4\x90\x80\x80"),
    ("byte FF", b"\xFF"),
    ("lone continuation", b"\x80"),
    ("cut sequence", b"\xE2\x82"),
];

const BAD_NAME: &[u8] = &[0x80, 0x81, 0x82, 0x90];
const BAD_FILTER: &[u8] = &[0x80, 0x81, 0x82, 0x8F];

/// Ill-formed UTF-8 in a Client Identifier, a Will Topic, a Topic Name, a Topic Filter closes the connection.
pub fn ill_formed_utf8(t: &Case<'_>) -> Outcome {
    for (what, bytes) in ILL_FORMED {
        closes_everywhere(t, what, bytes)?;
    }
    Ok(())
}

/// U+0000 in such a string closes the connection.
pub fn null_character(t: &Case<'_>) -> Outcome {
    closes_everywhere(t, "U+0000", b"\0")
}

fn closes_everywhere(t: &Case<'_>, what: &str, bytes: &[u8]) -> Outcome {
    let name = [t.topic("x").as_bytes(), bytes, b"y"].concat();
    let id = [t.id("a").as_bytes(), bytes].concat();
    label(
        &format!("{what} in Client Identifier"),
        t.send_first("a", connect_with_id(t, &id))?.expect_refused(&[0x80, 0x81, 0x82, 0x85], &[2]),
    )?;
    let will = t.hello("a").will(Will::new(&name, "w"));
    label(&format!("{what} in Will Topic"), t.send_first("a", will.encode())?.expect_refused(BAD_NAME, &[]))?;
    ill_formed_topic_name(t, what, &name)?;
    ill_formed_topic_filter(t, what, &name)
}

fn ill_formed_topic_name(t: &Case<'_>, what: &str, name: &[u8]) -> Outcome {
    let mut a = t.connect("a")?;
    a.send(Publish::new(name, "p", 0).encode(t.version));
    label(&format!("{what} in Topic Name"), a.expect_close(BAD_NAME))?;
    Ok(())
}

fn ill_formed_topic_filter(t: &Case<'_>, what: &str, filter: &[u8]) -> Outcome {
    let mut a = t.connect("a")?;
    let mut subscribe = Subscribe::to(filter, 0);
    subscribe.packet_id = Some(1);
    a.send(subscribe.encode(t.version));
    label(&format!("{what} in Topic Filter"), a.expect_close(BAD_FILTER))?;
    Ok(())
}

/// Topic Names are checked to be well-formed.
pub fn topic_name_is_utf8(t: &Case<'_>) -> Outcome {
    for (what, bytes) in ILL_FORMED {
        ill_formed_topic_name(t, what, &[t.topic("x").as_bytes(), bytes].concat())?;
    }
    // And comes first in the variable header: the message arrives where its name says.
    let (topic, mut a) = (t.topic("grün/水/🦟"), t.connect("a")?);
    a.subscribe(&topic, 1)?;
    a.publish(&topic, "ü", 1)?;
    a.receive(&topic, "ü")?;
    Ok(())
}

/// U+0000 in names and filters closes the connection.
pub fn null_in_names_and_filters(t: &Case<'_>) -> Outcome {
    let name = [t.topic("x").as_bytes(), b"\0y"].concat();
    ill_formed_topic_name(t, "U+0000", &name)?;
    ill_formed_topic_filter(t, "U+0000", &name)
}

/// EF BB BF is the character U+FEFF wherever it stands, and is not stripped.
pub fn byte_order_mark_is_kept(t: &Case<'_>) -> Outcome {
    let plain = t.topic("x");
    let with = [format!("\u{FEFF}{plain}"), t.topic("\u{FEFF}x"), t.topic("x\u{FEFF}")];
    let mut a = t.connect("a")?;
    a.subscribe(&plain, 1)?;
    for topic in &with {
        a.publish(topic, "stripped", 1)?;
    }
    let got = a.collect_own(t)?;
    ensure!(got.is_empty(), "a Topic Name with U+FEFF matched the filter without it: {:?}", payloads(&got));
    for topic in &with {
        a.subscribe(topic, 1)?;
        a.publish(&plain, "plain", 1)?;
        a.receive(&plain, "plain")?;
        a.publish(topic, "kept", 1)?;
        a.receive(topic, "kept")?;
    }
    Ok(())
}

/// A Topic Name of 65,535 bytes is taken whole or refused, never cut.
pub fn longest_names(t: &Case<'_>) -> Outcome {
    let longest = format!("{:x<65535}", t.topic(""));
    let mut a = t.connect("a")?;
    let granted = match a.subscribe_with(Subscribe::to(&longest, 1)) {
        Ok(answer) => answer.code() < 0x80,
        // Closing is a refusal too; the broker has to go on serving others.
        Err(_) => false,
    };
    if !granted {
        let mut b = t.connect("b")?;
        b.try_publish(Publish::new(&longest, "p", 1))?;
        return t.connect("c")?.fence();
    }
    let shorter = &longest[..65_534];
    if a.try_publish(Publish::new(shorter, "shorter", 1))? == Some(0x00) {
        // In 5.0 0x10 says that nobody matched, which is right here.
    }
    match a.try_publish(Publish::new(&longest, "whole", 1))? {
        Some(code) if code < 0x80 => {
            a.receive(&longest, "whole")?;
        }
        _ => t.connect("c")?.fence()?,
    }
    Ok(())
}

/// For User Properties and the like: each value of `make` closes the connection.
pub fn property_closes(t: &Case<'_>, what: &str, publish: Publish) -> Outcome {
    let mut a = t.connect("a")?;
    a.send(publish.encode(t.version));
    label(what, a.expect_close(&[VIOLATION, &[0x90, 0x99]].concat()))?;
    Ok(())
}
