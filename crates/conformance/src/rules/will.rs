//! Will Messages.

use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, VIOLATION, payloads};
use crate::wire::{Publish, Will};

/// A will is published when the connection ends without DISCONNECT: cut, or closed for a violation.
pub fn published_when_the_connection_ends(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 2)?;
    for qos in 0..3 {
        let will = Will { qos, ..Will::new(&topic, [b'0' + qos]) };
        t.connect_with("a", &t.hello("a").will(will))?.cut()?;
        let got = watcher.receive(&topic, [b'0' + qos])?;
        ensure!(got.qos == qos, "will of QoS {qos} came at QoS {}", got.qos);
    }
    let mut a = t.connect_with("a", &t.hello("a").will(Will::new(&topic, "violation")))?;
    a.send(Publish::new(&topic, "", 1).id(0).encode(t.version));
    a.expect_close(VIOLATION)?;
    watcher.receive(&topic, "violation")?;
    let mut a = t.connect_with("a", &t.hello("a").will(Will::new(&topic, "taken over")))?;
    let mut b = t.connect("a")?;
    a.expect_close(&[0x8E])?;
    watcher.receive(&topic, "taken over")?;
    b.fence()?;
    // An empty will is a message too.
    t.connect_with("a", &t.hello("a").will(Will::new(&topic, "")))?.cut()?;
    watcher.receive(&topic, "")?;
    Ok(())
}

/// DISCONNECT discards the will unpublished.
pub fn discarded_by_disconnect(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    t.connect_with("a", &t.hello("a").will(Will::new(&topic, "discarded")))?.disconnect()?;
    let mut p = t.connect("p")?;
    let got = watcher.collect(t, &mut p)?;
    ensure!(got.is_empty(), "published although DISCONNECT was sent");
    Ok(())
}

/// A will is forgotten once published: it does not go out again for the next connection of the client.
pub fn forgotten_once_published(t: &Case<'_>) -> Outcome {
    let topic = t.topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    t.connect_with("a", &t.lasting("a").will(Will::new(&topic, "once")).session_expiry(0))?.cut()?;
    watcher.receive(&topic, "once")?;
    t.connect_with("a", &t.lasting("a"))?.cut()?;
    let mut p = t.connect("p")?;
    let got = watcher.collect(t, &mut p)?;
    ensure!(got.is_empty(), "the will went out again: {:?}", payloads(&got));
    // Nor after a DISCONNECT that removed it.
    t.connect_with("b", &t.lasting("b").will(Will::new(&topic, "removed")))?.disconnect()?;
    t.connect_with("b", &t.lasting("b"))?.cut()?;
    let got = watcher.collect(t, &mut p)?;
    ensure!(got.is_empty(), "a removed will went out: {:?}", payloads(&got));
    Ok(())
}

/// Without the Will Flag nothing is published, also if an earlier connection of the client had a will.
pub fn none_without_the_flag(t: &Case<'_>) -> Outcome {
    let mut watcher = t.connect("w")?;
    watcher.subscribe(t.topic("#"), 1)?;
    t.connect_with("a", &t.hello("a").will(Will::new(t.topic("will"), "x")))?.disconnect()?;
    t.connect("a")?.cut()?;
    let mut p = t.connect("p")?;
    let got = watcher.collect(t, &mut p)?;
    ensure!(got.is_empty(), "published: {:?}", payloads(&got));
    Ok(())
}

/// Will Retain 0: an ordinary message, and what was retained there stays.
pub fn not_retained(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    t.connect_with("a", &t.hello("a").will(Will::new(&topic, "w1")))?.cut()?;
    let got = watcher.receive(&topic, "w1")?;
    ensure!(!got.retain, "an ordinary will came with RETAIN 1");
    let mut s = t.connect("s")?;
    s.subscribe(&topic, 1)?;
    let got = s.collect_own(t)?;
    ensure!(got.is_empty(), "an ordinary will was retained");
    s.publish_with(Publish::new(&topic, "kept", 1).retained())?;
    watcher.receive(&topic, "kept")?;
    t.connect_with("a", &t.hello("a").will(Will::new(&topic, "w2")))?.cut()?;
    watcher.receive(&topic, "w2")?;
    let mut late = t.connect("late")?;
    late.subscribe(&topic, 1)?;
    late.receive(&topic, "kept")?;
    Ok(())
}

/// Will Retain 1: the will becomes the Retained Message of its topic.
pub fn retained(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("will");
    let mut watcher = t.connect("w")?;
    watcher.subscribe(&topic, 1)?;
    t.connect_with("a", &t.hello("a").will(Will::new(&topic, "stays").retained()))?.cut()?;
    watcher.receive(&topic, "stays")?;
    let mut late = t.connect("late")?;
    late.subscribe(&topic, 1)?;
    let got = late.receive(&topic, "stays")?;
    ensure!(got.retain, "a retained will came to a new subscription with RETAIN 0");
    Ok(())
}
