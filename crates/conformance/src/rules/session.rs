//! Sessions that outlive their connection, and those that do not.

use crate::case::Case;
use crate::ensure;
use crate::peer::{Outcome, payloads};
use crate::wire::{Publish, Subscribe};

/// A lasting Session keeps its subscription and the QoS 1 and QoS 2 messages for it while the client is away.
pub fn resumed_session(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.resume("a", false)?;
    a.subscribe(&topic, 2)?;
    a.disconnect()?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "one", 1)?;
    p.publish(&topic, "two", 2)?;
    let mut a = t.resume("a", true)?;
    let one = a.receive(&topic, "one")?;
    let two = a.receive(&topic, "two")?;
    ensure!((one.qos, two.qos) == (1, 2), "came at QoS {} and {}, expected 1 and 2", one.qos, two.qos);
    // The subscription still stands without a new SUBSCRIBE.
    p.publish(&topic, "live", 1)?;
    a.receive(&topic, "live")?;
    a.disconnect()
}

/// An owned message reaches the Session of every client whose subscription matches, present or absent.
pub fn every_matching_session_gets_the_message(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x/y");
    let mut absent = t.resume("absent", false)?;
    absent.subscribe(t.topic("x/+"), 2)?;
    absent.disconnect()?;
    let mut present = [t.connect("b")?, t.connect("c")?, t.resume("d", false)?];
    for (peer, filter) in present.iter_mut().zip(["x/#", "+/y", "x/y"]) {
        peer.subscribe(t.topic(filter), 2)?;
    }
    let mut p = t.connect("p")?;
    p.publish(&topic, "one", 1)?;
    p.publish(&topic, "two", 2)?;
    for peer in &mut present {
        peer.receive(&topic, "one")?;
        peer.receive(&topic, "two")?;
    }
    let mut absent = t.resume("absent", true)?;
    absent.receive(&topic, "one")?;
    absent.receive(&topic, "two")?;
    Ok(())
}

/// A clean CONNECT throws the old Session away: its subscriptions and its waiting messages.
pub fn clean_discards(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.resume("a", false)?;
    a.subscribe(&topic, 1)?;
    a.disconnect()?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "waiting", 1)?;
    let mut a = t.connect("a")?;
    ensure!(!a.connack.as_ref().is_some_and(|c| c.session_present), "Session Present 1 for a clean CONNECT");
    p.publish(&topic, "live", 1)?;
    let got = a.collect(t, &mut p)?;
    ensure!(got.is_empty(), "after a clean CONNECT the old Session's messages came: {:?}", payloads(&got));
    a.disconnect()?;
    // Nor does the old Session come back later.
    let mut a = t.resume("a", false)?;
    let got = a.collect(t, &mut p)?;
    ensure!(got.is_empty(), "the discarded Session came back: {:?}", payloads(&got));
    Ok(())
}

/// The state of a clean Session is not used again.
pub fn clean_session_is_not_reused(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    a.subscribe(&topic, 1)?;
    a.disconnect()?;
    let mut p = t.connect("p")?;
    p.publish(&topic, "away", 1)?;
    let mut a = t.resume("a", false)?;
    p.publish(&topic, "live", 1)?;
    let got = a.collect(t, &mut p)?;
    ensure!(got.is_empty(), "a clean Session's subscription was used again: {:?}", payloads(&got));
    Ok(())
}

/// Session state stays as long as the connection is open, also through quiet and busy times.
pub fn state_lasts_while_connected(t: &Case<'_>) -> Outcome {
    let topic = t.topic("x");
    let mut a = t.connect("a")?;
    a.subscribe(&topic, 2)?;
    let mut p = t.connect("p")?;
    // An exchange is left open while other things happen; it has to be known afterwards.
    p.send(Publish::new(&topic, "open", 2).id(77).encode(t.version));
    p.expect_pubrec(77)?;
    p.subscribe_with(Subscribe::to(t.topic("y"), 0))?;
    for i in 0..20 {
        p.publish(t.topic("z"), format!("{i}"), 1)?;
    }
    a.publish(t.topic("y"), "hello", 0)?;
    p.expect_publish(t.topic("y"), "hello")?;
    p.send(Publish::new(&topic, "open", 2).id(77).dup().encode(t.version));
    p.expect_pubrec(77)?;
    p.send(crate::wire::ack(crate::wire::PUBREL, 77));
    ensure!(p.expect_pubcomp(77)?.code() == 0, "the open QoS 2 exchange was forgotten");
    let got = a.collect(t, &mut p)?;
    ensure!(payloads(&got) == ["open"], "expected the message once, got {:?}", payloads(&got));
    Ok(())
}

/// Retained Messages are no Session state: they survive the end of the Session that published them.
pub fn retained_messages_survive_the_session(t: &Case<'_>) -> Outcome {
    let topic = t.retained_topic("x");
    let mut p = t.connect("p")?;
    p.publish_with(Publish::new(&topic, "stays", 1).retained())?;
    p.disconnect()?;
    t.connect("p")?.disconnect()?;
    let mut s = t.connect("s")?;
    s.subscribe(&topic, 1)?;
    s.receive(&topic, "stays")?;
    Ok(())
}
