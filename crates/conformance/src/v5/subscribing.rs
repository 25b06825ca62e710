//! Subscription options and Subscription Identifiers.

use crate::case::Case;
use crate::peer::{Outcome, VIOLATION, payloads};
use crate::wire::{Publish, Subscribe, prop};
use crate::{ensure, skip};

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_1: u8 = 0x10;
const RETAIN_HANDLING_2: u8 = 0x20;

/// Retain Handling 0: retained messages come at every SUBSCRIBE.
pub fn retain_handling_0(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut a = t.connect("a")?;
    a.publish_with(Publish::new(&topic, "kept", 1).retained())?;
    for _ in 0..3 {
        a.subscribe(&topic, 1)?;
        a.receive(&topic, "kept")?;
    }
    Ok(())
}

/// Retain Handling 1: only if the subscription is new; again after UNSUBSCRIBE.
pub fn retain_handling_1(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut a = t.resume("a", false)?;
    a.publish_with(Publish::new(&topic, "kept", 1).retained())?;
    a.subscribe(&topic, 1 | RETAIN_HANDLING_1)?;
    a.receive(&topic, "kept")?;
    a.subscribe(&topic, RETAIN_HANDLING_1)?;
    let got = a.collect_own(t)?;
    ensure!(got.is_empty(), "sent to a subscription that stood already");
    a.disconnect()?;
    let mut a = t.resume("a", true)?;
    a.subscribe(&topic, 1 | RETAIN_HANDLING_1)?;
    let got = a.collect_own(t)?;
    ensure!(got.is_empty(), "sent to a subscription that stood already in the resumed Session");
    a.unsubscribe(&[&topic])?;
    a.subscribe(&topic, 1 | RETAIN_HANDLING_1)?;
    a.receive(&topic, "kept")?;
    Ok(())
}

/// Retain Handling 2: never.
pub fn retain_handling_2(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut a = t.connect("a")?;
    a.publish_with(Publish::new(&topic, "kept", 1).retained())?;
    for _ in 0..2 {
        a.subscribe(&topic, 1 | RETAIN_HANDLING_2)?;
        let got = a.collect_own(t)?;
        ensure!(got.is_empty(), "sent in spite of Retain Handling 2");
    }
    a.publish_with(Publish::new(&topic, "live", 1).retained())?;
    a.receive(&topic, "live")?;
    Ok(())
}

/// RETAIN comes as published with Retain As Published 1 and is cleared with 0, whatever its value was.
pub fn retain_as_published(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let (mut plain, mut kept, mut p) = (t.connect("plain")?, t.connect("kept")?, t.connect("p")?);
    plain.subscribe(&topic, 1)?;
    kept.subscribe(&topic, 1 | RETAIN_AS_PUBLISHED)?;
    for qos in 0..2 {
        for retain in [true, false] {
            let mut publish = Publish::new(&topic, "m", qos);
            publish.retain = retain;
            p.publish_with(publish)?;
            ensure!(!plain.receive(&topic, "m")?.retain, "RETAIN 1 with Retain As Published 0");
            let got = kept.receive(&topic, "m")?;
            ensure!(got.retain == retain, "published with RETAIN {retain}, came with {}", got.retain);
        }
    }
    // The deleting message is a message too.
    p.publish_with(Publish::new(&topic, "", 1).retained())?;
    ensure!(kept.receive(&topic, "")?.retain, "the empty message came with RETAIN 0");
    Ok(())
}

/// No Local: what a client publishes does not come back to it, but reaches others; also across a reconnect.
pub fn no_local(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.resume("a", false)?;
    let mut b = t.connect("b")?;
    a.subscribe(&topic, 2 | NO_LOCAL)?;
    b.subscribe(&topic, 2 | NO_LOCAL)?;
    for qos in 0..3 {
        a.publish(&topic, "a's", qos)?;
        b.receive(&topic, "a's")?;
    }
    let got = a.collect_own(t)?;
    ensure!(got.is_empty(), "came back: {:?}", payloads(&got));
    b.publish(&topic, "b's", 1)?;
    a.receive(&topic, "b's")?;
    a.cut()?;
    let mut a = t.resume("a", true)?;
    a.publish(&topic, "a's", 1)?;
    b.receive(&topic, "a's")?;
    let got = a.collect_own(t)?;
    ensure!(got.is_empty(), "came back after a reconnect: {:?}", payloads(&got));
    // A subscription without the option beside it does get the message.
    a.subscribe(t.topic("+"), 1)?;
    a.publish(&topic, "through the other", 1)?;
    a.receive(&topic, "through the other")?;
    Ok(())
}

/// No Local on a Shared Subscription is a protocol error.
pub fn no_local_on_shared(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    super::shared::available(&a)?;
    let mut subscribe = Subscribe::to(format!("$share/g/{}", t.topic("x")), 1 | NO_LOCAL);
    subscribe.packet_id = Some(1);
    a.send(subscribe.encode(t.version));
    a.expect_close(VIOLATION)?;
    Ok(())
}

/// Overlapping subscriptions with Subscription Identifiers: one copy with all of them, or one copy for each with its own.
pub fn overlapping_subscription_identifiers(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x/y");
    let mut s = t.connect("s")?;
    if s.connack.as_ref().and_then(|c| c.integer(prop::SUBSCRIPTION_IDENTIFIER_AVAILABLE)) == Some(0) {
        skip!("this broker has no Subscription Identifiers");
    }
    let mut p = t.connect("p")?;
    s.subscribe_with(Subscribe::to(t.topic("x/+"), 1).subscription_id(11))?;
    s.subscribe_with(Subscribe::to(t.topic("x/#"), 1).subscription_id(300))?;
    s.subscribe_with(Subscribe::to(t.topic("other"), 1).subscription_id(5))?;
    let ids = |got: &[Publish]| -> Vec<Vec<u32>> {
        let mut ids: Vec<_> = got.iter().map(Publish::subscription_ids).collect();
        ids.sort();
        ids
    };
    for qos in 0..3 {
        p.publish(&topic, "m", qos)?;
        let got = ids(&s.collect(t, &mut p)?);
        ensure!(got == [vec![11, 300]] || got == [vec![11], vec![300]], "Subscription Identifiers {got:?}");
    }
    // One without an identifier, and the same filter with another one.
    s.subscribe_with(Subscribe::to(t.topic("+/y"), 1))?;
    s.subscribe_with(Subscribe::to(t.topic("x/+"), 1).subscription_id(12))?;
    p.publish(&topic, "m", 1)?;
    let got = ids(&s.collect(t, &mut p)?);
    ensure!(
        got == [vec![12, 300]] || got == [vec![], vec![12], vec![300]],
        "after replacing 11 by 12 and adding one without: {got:?}"
    );
    // A single one, and on a Retained Message.
    let kept = t.retained_topic("kept");
    p.publish_with(Publish::new(&kept, "m", 1).retained())?;
    s.subscribe_with(Subscribe::to(&kept, 1).subscription_id(268_435_455))?;
    let got = s.receive(&kept, "m")?;
    ensure!(got.subscription_ids() == [268_435_455], "Subscription Identifiers {:?}", got.subscription_ids());
    Ok(())
}

/// UNSUBACK has one listed code for each filter, in their order.
pub fn unsuback_codes(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    a.subscribe_with(Subscribe::to(t.topic("a"), 1).and(t.topic("c/+"), 1))?;
    let answer = a.unsubscribe(&[t.topic("never"), t.topic("a"), t.topic("b"), t.topic("c/+"), t.topic("a")])?;
    ensure!(answer.codes == [0x11, 0x00, 0x11, 0x00, 0x11], "codes {:02X?}", answer.codes);
    Ok(())
}
