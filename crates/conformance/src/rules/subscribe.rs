//! SUBSCRIBE and UNSUBSCRIBE.

use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, VIOLATION, payloads};
use crate::wire::{self, PUBCOMP, PUBREC, Subscribe};

/// Every SUBSCRIBE is answered by a SUBACK with its identifier, one code for each filter, in their order.
pub fn suback(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    for codes in [&[0][..], &[1], &[2], &[2, 0, 1], &[0, 0, 1, 2, 1, 0, 2]] {
        let mut subscribe = Subscribe::default();
        for (i, qos) in codes.iter().enumerate() {
            subscribe = subscribe.and(t.topic(&format!("x/{i}")), *qos);
        }
        let answer = a.subscribe_with(subscribe)?;
        ensure!(answer.codes == codes, "asked for {codes:?}, granted {:02X?}", answer.codes);
    }
    Ok(())
}

/// The granted QoS of each filter is where its filter is, also beside one that is refused.
pub fn suback_order_with_a_refusal(t: &Case<'_>) -> Outcome {
    let bad = t.topic("x/#/y");
    let subscribe = Subscribe::to(t.topic("a"), 2).and(&bad, 1).and(t.topic("b"), 1).and(t.topic("c"), 0);
    let mut a = t.connect("a")?;
    // Closing for the bad filter is right as well.
    match a.subscribe_with(subscribe) {
        Ok(answer) => {
            ensure!(answer.codes.len() == 4, "{} codes for 4 filters", answer.codes.len());
            ensure!(answer.codes[1] >= 0x80, "{bad} was granted");
            ensure!(
                [answer.codes[0], answer.codes[2], answer.codes[3]] == [2, 1, 0],
                "asked for 2, (bad), 1, 0: {:02X?}",
                answer.codes
            );
        }
        Err(_) => t.connect("b")?.fence()?,
    }
    suback(t)
}

/// Several filters in one SUBSCRIBE act as several SUBSCRIBEs.
pub fn several_filters(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    let subscribe = Subscribe::to(t.topic("a"), 0).and(t.topic("b/+"), 1).and(t.topic("c/#"), 2);
    ensure!(a.subscribe_with(subscribe)?.codes == [0, 1, 2], "not all filters were granted");
    for (topic, qos) in [("a", 0), ("b/x", 1), ("c/y/z", 2)] {
        let topic = t.topic(topic);
        a.publish(&topic, "m", 2)?;
        let got = a.receive(&topic, "m")?;
        ensure!(got.qos == qos, "{topic}: QoS {} instead of {qos}", got.qos);
    }
    Ok(())
}

/// The same filter again replaces the subscription: one delivery, at the new QoS.
pub fn same_filter_replaces(t: &Case<'_>) -> Outcome {
    let (filter, topic) = (t.topic("x/+"), t.topic("x/y"));
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    for qos in [0, 2, 1, 1] {
        s.subscribe(&filter, qos)?;
        p.publish(&topic, "m", 2)?;
        let got = s.collect(t, &mut p)?;
        ensure!(got.len() == 1, "{} deliveries for one subscription", got.len());
        ensure!(got[0].qos == qos, "QoS {} after subscribing again with QoS {qos}", got[0].qos);
    }
    Ok(())
}

/// A filter with reserved option bits or QoS 3 is malformed and closes the connection.
pub fn bad_subscribe_options(t: &Case<'_>) -> Outcome {
    let bad: &[u8] = if t.version.is_v5() { &[0x03, 0x40, 0x80, 0xC1, 0x30] } else { &[0x03, 0x04, 0x80, 0x41] };
    for options in bad {
        let mut a = t.connect("a")?;
        let mut subscribe = Subscribe::to(t.topic("x"), *options);
        subscribe.packet_id = Some(1);
        a.send(subscribe.encode(t.version));
        super::label(&format!("options 0x{options:02X}"), a.expect_close(VIOLATION))?;
    }
    Ok(())
}

/// Overlapping subscriptions: the message comes at the highest QoS of those that match.
pub fn overlapping_subscriptions(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x/y");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(t.topic("x/#"), 0)?;
    s.subscribe(t.topic("x/+"), 2)?;
    s.subscribe(t.topic("+/y"), 1)?;
    for qos in 0..3 {
        p.publish(&topic, "m", qos)?;
        let got = s.collect(t, &mut p)?;
        let highest = got.iter().map(|m| m.qos).max();
        ensure!(highest == Some(qos), "published at QoS {qos}, came at {highest:?}, with a QoS 2 subscription");
        ensure!(got.len() <= 3, "{} copies for three subscriptions", got.len());
    }
    Ok(())
}

/// A server without wildcard support must refuse wildcard filters; one with it delivers by them.
pub fn wildcards_work_or_are_refused(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    for (filter, topic) in [(t.topic("x/+"), t.topic("x/y")), (t.topic("z/#"), t.topic("z/y"))] {
        let code = a.subscribe_with(Subscribe::to(filter, 1))?.code();
        a.publish(&topic, "m", 1)?;
        if code < 0x80 {
            a.receive(&topic, "m")?;
        } else {
            let got = a.collect_own(t)?;
            ensure!(got.is_empty(), "delivered by a refused filter");
        }
    }
    Ok(())
}

/// Every UNSUBSCRIBE is answered, also when there was nothing to remove.
pub fn unsuback(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    a.subscribe(t.topic("x"), 0)?;
    for filter in ["x", "x", "never"] {
        let answer = a.unsubscribe(&[t.topic(filter)])?;
        let expected = usize::from(t.version.is_v5());
        ensure!(answer.codes.len() == expected, "{} codes for one filter", answer.codes.len());
    }
    Ok(())
}

/// Several filters in one UNSUBSCRIBE act as several, and those not named stay.
pub fn several_filters_removed(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    let subscribe = Subscribe::to(t.topic("a"), 1).and(t.topic("b"), 1).and(t.topic("c/+"), 1).and(t.topic("d"), 1);
    ensure!(a.subscribe_with(subscribe)?.codes == [1, 1, 1, 1], "not granted");
    a.unsubscribe(&[t.topic("a"), t.topic("c/+"), t.topic("never"), t.topic("d")])?;
    for topic in ["a", "b", "c/x", "d"] {
        a.publish(t.topic(topic), topic, 1)?;
    }
    let got = a.collect_own(t)?;
    ensure!(payloads(&got) == ["b"], "after removing a, c/+, d: {:?}", payloads(&got));
    Ok(())
}

/// Filters are compared character by character; only the exact one is removed.
pub fn exact_filter_is_removed(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x/y");
    let mut a = t.connect("a")?;
    a.subscribe(t.topic("x/+"), 1)?;
    a.unsubscribe(&[t.topic("x/y"), t.topic("x/#"), t.topic("X/+"), t.topic("+/+"), t.topic("x/+/"), t.topic("x")])?;
    a.publish(&topic, "still", 1)?;
    a.receive(&topic, "still")?;
    a.unsubscribe(&[t.topic("x/+")])?;
    a.publish(&topic, "gone", 1)?;
    let got = a.collect_own(t)?;
    ensure!(got.is_empty(), "delivered after the exact filter was removed");
    // Both of two overlapping ones have to go.
    a.subscribe(t.topic("x/+"), 1)?;
    a.subscribe(t.topic("x/y"), 1)?;
    a.unsubscribe(&[t.topic("x/+")])?;
    a.publish(&topic, "other", 1)?;
    let got = a.collect_own(t)?;
    ensure!(payloads(&got) == ["other"], "the other subscription delivers {:?}", payloads(&got));
    Ok(())
}

/// After UNSUBSCRIBE no new message is queued, present or absent.
pub fn nothing_new_after_unsubscribe(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut p = t.connect("p")?;
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 1)?;
    p.publish(&topic, "before", 1)?;
    s.receive(&topic, "before")?;
    s.unsubscribe(&[&topic])?;
    for qos in 0..3 {
        p.publish(&topic, "after", qos)?;
    }
    let got = s.collect(t, &mut p)?;
    ensure!(got.is_empty(), "delivered after UNSUBACK: {:?}", payloads(&got));
    s.disconnect()?;
    p.publish(&topic, "away", 1)?;
    let got = t.resume("s", true)?.collect(t, &mut p)?;
    ensure!(got.is_empty(), "queued after UNSUBACK: {:?}", payloads(&got));
    Ok(())
}

/// Deliveries of QoS 1 and 2 that have begun are completed after UNSUBSCRIBE, across a reconnect too.
pub fn begun_deliveries_are_completed(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut p = t.connect("p")?;
    let mut s = t.resume("s", false)?;
    s.subscribe(&topic, 2)?;
    p.publish(&topic, "one", 1)?;
    p.publish(&topic, "two", 2)?;
    p.publish(&topic, "three", 2)?;
    let one = s.expect_publish(&topic, "one")?;
    let two = s.expect_publish(&topic, "two")?;
    let three = s.expect_publish(&topic, "three")?;
    s.unsubscribe(&[&topic])?;
    s.acknowledge(&two)?;
    let id = three.packet_id.unwrap_or(0);
    s.send(wire::ack(PUBREC, id));
    s.expect_pubrel(id)?;
    s.cut()?;
    let mut s = t.resume("s", true)?;
    s.expect_pubrel(id)?;
    s.send(wire::ack(PUBCOMP, id));
    let again = s.receive(&topic, "one")?;
    ensure!(again.packet_id == one.packet_id && again.dup, "completed as {again:?}");
    s.expect_nothing()
}

/// PINGREQ is answered by PINGRESP.
pub fn pingreq(t: &Case<'_>) -> Outcome {
    let mut a = t.connect("a")?;
    for _ in 0..3 {
        a.fence()?;
    }
    a.send([wire::PINGREQ, wire::PINGREQ].concat());
    for _ in 0..2 {
        let packet = a.next("PINGRESP")?;
        ensure!(packet == wire::Packet::PingResp, "{packet} in answer to PINGREQ");
    }
    Ok(())
}
