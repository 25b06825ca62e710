//! Wills of MQTT 5.0: the Will Delay Interval, the will's properties.

use std::time::{Duration, Instant};

use crate::case::Case;
use crate::ensure;
use crate::peer::{Event, Outcome, Peer, payloads};
use crate::wire::{self, Connect, Value, Will, prop, text, user};

fn delayed(topic: &str, payload: &str, seconds: u32) -> Will {
    Will::new(topic, payload).with((prop::WILL_DELAY_INTERVAL, Value::FourByte(seconds)))
}

fn watcher(t: &Case<'_>, topic: &str) -> Outcome<Peer> {
    let mut watcher = t.connect("w")?;
    watcher.subscribe(topic, 1)?;
    watcher.be_patient();
    Ok(watcher)
}

/// Cuts a client and expects its will between `from` and `to` seconds later.
fn expect_will(
    t: &Case<'_>,
    watcher: &mut Peer,
    connect: &Connect,
    last: &[u8],
    payload: &str,
    seconds: (f64, f64),
) -> Outcome {
    let a = t.connect_with("a", connect)?;
    let begin = Instant::now();
    a.end(last)?;
    let got = watcher.expect_any_publish()?;
    let took = begin.elapsed();
    watcher.acknowledge(&got)?;
    ensure!(got.payload == payload.as_bytes(), "expected the will {payload:?}, got {:?}", payloads(&[got]));
    let (from, to) = (Duration::from_secs_f64(seconds.0), Duration::from_secs_f64(seconds.1));
    ensure!(took >= from, "{payload}: published after {took:?}, {from:?} at the earliest");
    ensure!(took <= to, "{payload}: published after {took:?}, {to:?} at the latest");
    Ok(())
}

/// The will is kept with the Session and goes out once the delay has passed, not before.
pub fn sent_after_the_delay(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = watcher(t, &topic)?;
    let connect = t.lasting("a").will(delayed(&topic, "delayed", 1));
    expect_will(t, &mut watcher, &connect, &[], "delayed", (1.0, 3.0))?;
    t.resume("a", true)?.disconnect()
}

/// The will goes out when the Session ends, if that comes before the delay has passed.
pub fn sent_when_the_session_ends(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = watcher(t, &topic)?;
    let connect = t.hello("a").will(delayed(&topic, "at once", 100));
    expect_will(t, &mut watcher, &connect, &[], "at once", (0.0, 2.0))?;
    let connect = t.lasting("a").session_expiry(1).will(delayed(&topic, "with the Session", 100));
    expect_will(t, &mut watcher, &connect, &[], "with the Session", (1.0, 3.0))?;
    // A Clean Start ends the Session too.
    t.connect_with("a", &t.lasting("a").will(delayed(&topic, "cleaned", 100)))?.cut()?;
    let _new = t.connect("a")?;
    watcher.receive(&topic, "cleaned")?;
    Ok(())
}

/// DISCONNECT with another code than 0x00 does not remove the will.
pub fn sent_for_disconnect_with_will(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = watcher(t, &topic)?;
    for code in [0x04, 0x80, 0x93] {
        let payload = format!("0x{code:02X}");
        let connect = t.hello("a").will(Will::new(&topic, &payload));
        expect_will(t, &mut watcher, &connect, &wire::disconnect(code, &[]), &payload, (0.0, 2.0))?;
    }
    // 0x00 written out removes it like the short form.
    t.connect_with("a", &t.hello("a").will(Will::new(&topic, "removed")))?.end(&wire::disconnect(0, &[]))?;
    let got = watcher.collect(t, &mut t.connect("p")?)?;
    ensure!(got.is_empty(), "published after DISCONNECT 0x00");
    Ok(())
}

/// A client that is back in its Session before the delay has passed cancels the will.
pub fn not_sent_if_the_client_is_back_in_time(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = watcher(t, &topic)?;
    t.connect_with("a", &t.lasting("a").will(delayed(&topic, "cancelled", 1)))?.cut()?;
    let mut a = t.resume("a", true)?;
    // The same when the new connection takes over the old one.
    let mut old = t.connect_with("b", &t.lasting("b").will(delayed(&topic, "taken over", 1)))?;
    let mut b = t.resume("b", true)?;
    old.expect_close(&[0x8E])?;
    // The statement is about time: nothing until well after the delay.
    let event = watcher.event_within(Duration::from_millis(2200))?;
    ensure!(event == Event::Silence, "although the client was back in time: {event:?}");
    a.fence()?;
    b.fence()
}

/// The will's properties are passed on, User Properties in their order; the delay is not one of them.
pub fn will_properties_are_passed_on(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = watcher(t, &topic)?;
    let users: Vec<_> = ["b", "a", "b", "", "c"].iter().zip(0..).map(|(k, i)| user(k, format!("{i}"))).collect();
    let mut will = Will::new(&topic, "w")
        .with((prop::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1)))
        .with(text(prop::CONTENT_TYPE, "text/plain"))
        .with(text(prop::RESPONSE_TOPIC, "answer"))
        .with((prop::CORRELATION_DATA, Value::Binary(vec![0, 255])));
    let single = will.properties.clone();
    will.properties.extend(users.clone());
    will = will.with((prop::MESSAGE_EXPIRY_INTERVAL, Value::FourByte(100)));
    t.connect_with("a", &t.hello("a").will(will))?.cut()?;
    let got = watcher.receive(&topic, "w")?;
    for (id, value) in &single {
        ensure!(got.property(*id) == Some(value), "property 0x{id:02X} came as {:?}", got.property(*id));
    }
    let came: Vec<_> = got.properties.iter().filter(|(id, _)| *id == prop::USER_PROPERTY).cloned().collect();
    ensure!(came == users, "User Properties came as {came:?}");
    match got.property(prop::MESSAGE_EXPIRY_INTERVAL) {
        Some(Value::FourByte(90..=100)) => Ok(()),
        other => crate::fail!("Message Expiry Interval of 100 s came as {other:?}"),
    }
}
