//! Retained Messages.

use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, Peer, payloads};
use crate::wire::{Publish, Subscribe};

fn retain(p: &mut Peer, topic: &str, payload: &str, qos: u8) -> Outcome {
    p.publish_with(Publish::new(topic, payload, qos).retained())?;
    Ok(())
}

/// What a new subscriber to `filter` gets although nothing is published any more.
pub fn seen_by_newcomer(t: &Case<'_>, filter: &str) -> Outcome<Vec<Publish>> {
    let mut newcomer = t.connect("newcomer")?;
    newcomer.subscribe(filter, 2)?;
    newcomer.collect_own(t)
}

/// A retained PUBLISH is stored with its QoS, at each QoS, and replaces the one before.
pub fn stored_and_replaced(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut p = t.connect("p")?;
    for (payload, qos) in [("one", 1), ("two", 2), ("zero", 0), ("again", 1)] {
        retain(&mut p, &topic, payload, qos)?;
        let mut s = t.connect("s")?;
        s.subscribe(&topic, 2)?;
        let got = s.receive(&topic, payload)?;
        ensure!(got.retain, "RETAIN 0 on a message sent because of a new subscription");
        ensure!(got.qos == qos, "stored at QoS {qos}, came at QoS {}", got.qos);
        let more = s.collect_own(t)?;
        ensure!(more.is_empty(), "more than the last one: {:?}", payloads(&more));
    }
    Ok(())
}

/// A new subscription gets the last Retained Message of each matching topic.
pub fn sent_for_each_matching_topic(t: &Case<'_>) -> Outcome {
    let topics = [t.retained_topic("x/a"), t.retained_topic("x/b"), t.retained_topic("x/b/c"), t.retained_topic("y/a")];
    let mut p = t.connect("p")?;
    for topic in &topics {
        retain(&mut p, topic, "old", 1)?;
        retain(&mut p, topic, topic, 1)?;
    }
    for (filter, expected) in [("x/+", 2), ("x/#", 3), ("+/a", 2), ("#", 4), ("x/b", 1)] {
        let mut s = t.connect("s")?;
        s.subscribe(t.topic(filter), 1)?;
        let mut got = Vec::new();
        for _ in 0..expected {
            let publish = s.expect_any_publish()?;
            ensure!(publish.retain, "RETAIN 0 on a message sent because of a new subscription");
            ensure!(publish.payload == publish.topic, "not the last message: {:?}", publish.payload);
            s.acknowledge(&publish)?;
            got.push(publish.topic);
        }
        got.sort();
        got.dedup();
        ensure!(got.len() == expected, "{filter}: {} different topics of {expected}", got.len());
        let more = s.collect_own(t)?;
        ensure!(more.is_empty(), "{filter}: too many: {:?}", payloads(&more));
    }
    Ok(())
}

/// RETAIN is 0 on messages sent to a subscription that stood already, and each comes once.
///
/// A subscription stands once its SUBACK has come. A broker that looks for Retained Messages later than that may find
/// one published in between, and send it with RETAIN 1 or a second time; that is a race, so it is tried often.
pub fn flag_cleared_for_established_subscriptions(t: &Case<'_>) -> Outcome {
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    for i in 0..40 {
        let topic = t.retained_topic(&format!("x/{i}"));
        s.subscribe(&topic, 1)?;
        let mut live = Publish::new(&topic, "live", i % 2).retained();
        live.packet_id = (live.qos > 0).then_some(1000 + u16::from(i));
        p.send(live.encode(t.version));
        let got = s.receive(&topic, "live")?;
        ensure!(!got.retain, "RETAIN 1 on a message published after SUBACK");
    }
    for i in (1..40).step_by(2) {
        p.expect_puback(1000 + i)?;
    }
    let more = s.collect(t, &mut p)?;
    ensure!(more.is_empty(), "a message published after SUBACK came {} times more", more.len());
    Ok(())
}

/// A QoS 0 retained PUBLISH discards the one stored before.
pub fn qos_0_discards_the_old_one(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut p = t.connect("p")?;
    retain(&mut p, &topic, "old", 1)?;
    retain(&mut p, &topic, "new", 0)?;
    let got = seen_by_newcomer(t, &topic)?;
    // Keeping the new one is a SHOULD; discarding the old one is the statement.
    ensure!(!payloads(&got).contains(&"old".to_owned()), "the old message is still there");
    ensure!(got.len() <= 1, "{:?}", payloads(&got));
    Ok(())
}

/// An empty retained payload is forwarded like any message and removes what was stored.
pub fn empty_payload_removes(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut p = t.connect("p")?;
    for qos in 0..3 {
        retain(&mut p, &topic, "stored", 1)?;
        let mut s = t.connect("s")?;
        s.subscribe(&topic, 2)?;
        s.receive(&topic, "stored")?;
        retain(&mut p, &topic, "", qos)?;
        let got = s.receive(&topic, "")?;
        ensure!(!got.retain, "the empty message came with RETAIN 1 to an established subscription");
        let got = seen_by_newcomer(t, &topic)?;
        ensure!(got.is_empty(), "still stored after an empty message of QoS {qos}: {:?}", payloads(&got));
    }
    Ok(())
}

/// An empty retained message is not stored.
pub fn empty_payload_is_not_stored(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut p = t.connect("p")?;
    for qos in 0..3 {
        retain(&mut p, &topic, "", qos)?;
        let got = seen_by_newcomer(t, &topic)?;
        ensure!(got.is_empty(), "an empty message of QoS {qos} was stored");
    }
    Ok(())
}

/// RETAIN 0 neither stores nor replaces nor removes.
pub fn unretained_changes_nothing(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut p = t.connect("p")?;
    p.publish(&topic, "passing", 1)?;
    let got = seen_by_newcomer(t, &topic)?;
    ensure!(got.is_empty(), "stored without RETAIN: {:?}", payloads(&got));
    retain(&mut p, &topic, "kept", 1)?;
    for payload in ["passing", ""] {
        p.publish(&topic, payload, 1)?;
        let mut s = t.connect("s")?;
        s.subscribe(&topic, 1)?;
        s.receive(&topic, "kept")?;
    }
    Ok(())
}

/// The same Topic Filter again: retained messages are sent again, and the live flow does not stop.
pub fn resubscribing_resends(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x/retained");
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    retain(&mut p, &topic, "kept", 1)?;
    let filter = t.topic("x/#");
    s.subscribe(&filter, 1)?;
    s.receive(&topic, "kept")?;
    // Messages flow while the subscription is replaced.
    let live = t.topic("x/live");
    let mut subscribe = Subscribe::to(&filter, 1);
    subscribe.packet_id = Some(500);
    for i in 0..10_u8 {
        if i == 5 {
            s.send(subscribe.encode(t.version));
        }
        p.publish(&live, [i], 1)?;
    }
    ensure!(s.expect_suback(500)?.codes == [1], "the second SUBSCRIBE was not granted");
    let (mut again, mut flow) = (0, Vec::new());
    while again == 0 || flow.len() < 10 {
        let got = s.expect_any_publish()?;
        s.acknowledge(&got)?;
        if got.topic == topic.as_bytes() {
            again += 1;
        } else {
            flow.extend(got.payload);
        }
    }
    ensure!(flow == (0..10).collect::<Vec<u8>>(), "the live messages came as {flow:?}");
    let more = s.collect(t, &mut p)?;
    ensure!(more.is_empty() && again == 1, "the replaced subscription delivers more than once");
    Ok(())
}
