//! Message expiry, and acknowledgements that carry an error.

use std::time::Duration;

use crate::case::Case;
use crate::peer::{Outcome, Peer, VIOLATION, payloads};
use crate::wire::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, Value, prop};
use crate::{ensure, skip};

fn expiring(topic: &str, payload: &str, qos: u8, seconds: u32) -> Publish {
    Publish::new(topic, payload, qos).with((prop::MESSAGE_EXPIRY_INTERVAL, Value::FourByte(seconds)))
}

/// Lets `seconds` pass on an idle connection: what these statements speak of is time.
fn let_pass(peer: &mut Peer, seconds: f64) -> Outcome {
    let event = peer.event_within(Duration::from_secs_f64(seconds))?;
    ensure!(event == crate::peer::Event::Silence, "{event:?} on an idle connection");
    Ok(())
}

/// PUBLISH of QoS 0 with DUP closes the connection.
pub fn dup_at_qos_0(t: &Case<'_>) -> Outcome {
    let mut p = t.connect("p")?;
    p.send(Publish::new(t.topic("x"), "m", 0).dup().encode(t.version));
    p.expect_close(VIOLATION)?;
    Ok(())
}

/// A message past its expiry whose delivery has not begun is dropped: for an absent client, and as Retained Message.
pub fn expired_messages_are_dropped(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let retained = t.retained_topic("r");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    s.disconnect()?;
    let mut p = t.connect("p")?;
    p.publish_with(expiring(&topic, "expires", 1, 1))?;
    p.publish_with(expiring(&topic, "expires too", 2, 1))?;
    p.publish_with(expiring(&topic, "stays", 1, 100))?;
    p.publish_with(expiring(&retained, "expires", 1, 1).retained())?;
    let_pass(&mut p, 2.1)?;
    let mut s = t.resume("s", true)?;
    let got = s.collect(t, &mut p)?;
    ensure!(payloads(&got) == ["stays"], "after more than the expiry interval: {:?}", payloads(&got));
    let got = crate::rules::retained::seen_by_newcomer(t, &retained)?;
    ensure!(got.is_empty(), "an expired Retained Message was sent");
    Ok(())
}

/// The expiry interval is passed on less the time spent waiting.
pub fn expiry_interval_is_reduced(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 1)?;
    s.disconnect()?;
    let mut live = t.connect("live")?;
    live.subscribe(&topic, 1)?;
    let mut p = t.connect("p")?;
    p.publish_with(expiring(&topic, "m", 1, 10).retained())?;
    let check = |got: &Publish, range: std::ops::RangeInclusive<u32>| -> Outcome {
        match got.property(prop::MESSAGE_EXPIRY_INTERVAL) {
            Some(Value::FourByte(left)) if range.contains(left) => Ok(()),
            other => crate::fail!("Message Expiry Interval of 10 s came as {other:?}, expected {range:?}"),
        }
    };
    check(&live.receive(&topic, "m")?, 9..=10)?;
    let_pass(&mut p, 2.2)?;
    // 7.8 s are left, and up to a second may go by until it is sent.
    check(&t.resume("s", true)?.receive(&topic, "m")?, 6..=8)?;
    let mut late = t.connect("late")?;
    late.subscribe(&topic, 1)?;
    check(&late.receive(&topic, "m")?, 6..=8)?;
    // A message without an interval gets none.
    p.publish(&topic, "plain", 1)?;
    let plain = live.receive(&topic, "plain")?;
    ensure!(plain.property(prop::MESSAGE_EXPIRY_INTERVAL).is_none(), "an expiry interval that nobody sent");
    Ok(())
}

/// Expiry no longer applies once a PUBLISH was sent: it is sent again, and PUBREL follows PUBREC.
pub fn no_expiry_once_sent(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    p.publish_with(expiring(&topic, "a", 2, 1))?;
    p.publish_with(expiring(&topic, "b", 2, 1))?;
    let a = s.expect_publish(&topic, "a")?;
    let b = s.expect_publish(&topic, "b")?;
    let_pass(&mut p, 2.1)?;
    s.acknowledge(&a)?;
    s.fence()?;
    s.cut()?;
    let mut s = t.resume("s", true)?;
    let again = s.expect_publish(&topic, "b")?;
    ensure!(again.dup && again.packet_id == b.packet_id, "sent again as {again:?}");
    s.acknowledge(&again)?;
    s.expect_nothing()
}

/// As receiver the broker finishes the exchange even if the message has expired.
pub fn handshake_is_finished_after_expiry(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut p = t.resume("p", false)?;
    p.send(expiring(&topic, "m", 2, 1).id(5).encode(t.version));
    p.expect_pubrec(5)?;
    let_pass(&mut p, 2.1)?;
    p.send(expiring(&topic, "m", 2, 1).id(5).dup().encode(t.version));
    p.expect_pubrec(5)?;
    p.cut()?;
    let mut p = t.resume("p", true)?;
    p.send(wire::ack(PUBREL, 5));
    let code = p.expect_pubcomp(5)?.code();
    ensure!(code == 0, "PUBCOMP with Reason Code 0x{code:02X}");
    Ok(())
}

/// After a PUBREC with an error from the broker the identifier begins a new message.
pub fn identifier_is_new_after_a_failed_pubrec(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.connect("s")?;
    s.subscribe(&topic, 2)?;
    // Places where an ordinary client may well not publish; and text that is none.
    let bad_text = Publish::new(t.topic("y"), b"\xFF", 2).with((prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1)));
    for publish in [Publish::new("$SYS/broker/version", "m", 2), bad_text, Publish::new("$CONTROL/x", "m", 2)] {
        let mut p = t.connect("p")?;
        if let Some(0x80..) = p.try_publish(publish.id(5))? {
            p.publish_with(Publish::new(&topic, "new", 2).id(5))?;
            s.receive(&topic, "new")?;
            return Ok(());
        }
    }
    skip!("this broker refuses none of the messages tried by PUBREC")
}

/// PUBACK or PUBREC with an error settles a message: it is not sent again.
pub fn failed_acknowledgements_settle(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    for code in [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        p.publish(&topic, "one", 1)?;
        p.publish(&topic, "two", 2)?;
        let one = s.expect_publish(&topic, "one")?.packet_id.unwrap_or(0);
        let two = s.expect_publish(&topic, "two")?.packet_id.unwrap_or(0);
        s.send(wire::ack_with(PUBACK, one, code));
        s.send(wire::ack_with(PUBREC, two, code));
        // Neither PUBREL nor anything else.
        s.expect_nothing()?;
    }
    s.cut()?;
    let mut s = t.resume("s", true)?;
    s.expect_nothing()?;
    let got = s.collect(t, &mut p)?;
    ensure!(got.is_empty(), "sent again after an acknowledgement with an error: {:?}", payloads(&got));
    // A PUBREC that says "no matching subscribers" is no error.
    p.publish(&topic, "three", 2)?;
    let three = s.expect_publish(&topic, "three")?.packet_id.unwrap_or(0);
    s.send(wire::ack_with(PUBREC, three, 0x10));
    s.expect_pubrel(three)?;
    s.send(wire::ack(PUBCOMP, three));
    s.expect_nothing()
}
