//! Will Messages: when they go out, when they do not, and never twice.

use pantala_proto::ReasonCode;

use crate::support::{Peer, Will, World, everywhere, settings};

fn watcher(world: &World) -> Peer {
    let watcher = world.client("watcher").connect();
    watcher.subscribe("will/#", 1);
    watcher
}

fn will() -> Will {
    Will::new("will/a", "gone")
}

fn delayed(delay: u32) -> Will {
    Will { delay, ..will() }
}

#[test]
fn a_lost_connection_publishes_the_will_and_a_normal_disconnect_does_not() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        for client in [world.client("a"), world.client("a").v3(), world.client("a").v3().clean(false)] {
            let client = client.will(will());
            client.try_connect().0.disconnect();
            watcher.expect_nothing();
            client.try_connect().0.lose();
            watcher.take("will/a", "gone");
        }
        assert_eq!(world.counters().wills_published, 3);
    });
}

#[test]
fn disconnect_with_will_publishes_it_and_so_does_any_error() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        world.client("a").will(will()).connect().disconnect_with(ReasonCode::DisconnectWithWillMessage, None);
        watcher.take("will/a", "gone");
        world.client("a").will(will()).connect().disconnect_with(ReasonCode::UnspecifiedError, None);
        watcher.take("will/a", "gone");
        let broken = world.client("a").will(will()).connect();
        broken.send_bytes(&[0x00, 0x00]);
        world.run();
        broken.expect_end(ReasonCode::MalformedPacket);
        watcher.take("will/a", "gone");
        let silent = world.client("a").will(will()).keep_alive(1).connect();
        world.seconds(2);
        silent.expect_end(ReasonCode::KeepAliveTimeout);
        watcher.take("will/a", "gone");
        watcher.expect_nothing();
    });
}

#[test]
fn a_delayed_will_waits_and_goes_out_once() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        world.client("a").expiry(100).will(delayed(10)).connect().lose();
        world.millis(9_999);
        watcher.expect_nothing();
        world.millis(3);
        watcher.take("will/a", "gone");
        // Neither the end of the Session nor its resumption publishes it again.
        world.client("a").clean(false).expiry(100).resume().lose();
        world.seconds(200);
        watcher.expect_nothing();
        assert_eq!(world.sessions(), 1);
    });
}

#[test]
fn a_client_back_in_time_has_no_will_published() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        let a = world.client("a").clean(false).expiry(100);
        a.clone().will(delayed(10)).connect().lose();
        world.seconds(5);
        let back = a.resume();
        world.seconds(50);
        back.lose();
        world.seconds(50);
        watcher.expect_nothing();
    });
}

#[test]
fn a_will_that_goes_out_does_not_take_its_session_with_it() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        world.client("a").expiry(6).will(delayed(5)).connect().lose();
        world.millis(5_500);
        watcher.take("will/a", "gone");
        world.client("a").clean(false).expiry(6).resume();
    });
}

#[test]
fn the_end_of_the_session_publishes_a_will_that_still_waits() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        // Without expiry it ends with the connection.
        world.client("a").will(delayed(10)).connect().lose();
        watcher.take("will/a", "gone");
        // By its expiry, sooner than its delay; at the same moment; and far later.
        for (expiry, delay, due) in [(5, 10, 5_002), (5, 5, 5_002), (50, 5, 5_002)] {
            world.client("a").expiry(expiry).will(delayed(delay)).connect().lose();
            world.millis(due - 3);
            watcher.expect_nothing();
            world.millis(3);
            watcher.take("will/a", "gone");
            world.seconds(100);
            watcher.expect_nothing();
        }
        // By a Clean Start.
        let a = world.client("a").expiry(100);
        a.clone().will(delayed(10)).connect().lose();
        a.connect();
        watcher.take("will/a", "gone");
        world.seconds(20);
        watcher.expect_nothing();
    });
}

#[test]
fn takeover_publishes_the_will_unless_it_is_delayed_and_the_session_goes_on() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        let a = world.client("a").expiry(100);
        a.clone().will(will()).connect();
        a.clone().clean(false).will(delayed(10)).resume();
        watcher.take("will/a", "gone");
        a.clone().clean(false).will(delayed(10)).resume();
        world.seconds(20);
        watcher.expect_nothing();
        a.clone().connect();
        watcher.take("will/a", "gone");
        world.seconds(200);
        watcher.expect_nothing();
    });
}

#[test]
fn a_will_is_a_publication_like_any_other() {
    everywhere(&settings(), |world| {
        let watcher = watcher(world);
        let retained = Will { retain: true, qos: 2, expiry: Some(30), ..delayed(10) };
        world.client("a").expiry(100).will(retained).connect().lose();
        world.seconds(11);
        let live = watcher.take("will/a", "gone");
        assert_eq!((live.qos, live.retain, live.expiry), (1, false, Some(30)));
        world.seconds(10);
        let late = world.client("late").connect();
        late.subscribe("will/+", 2);
        let kept = late.take("will/a", "gone");
        assert_eq!((kept.qos, kept.retain), (2, true));
        // Its life began when it was published, not when it was given to the broker.
        assert!(kept.expiry.is_some_and(|seconds| (19..=20).contains(&seconds)), "{:?}", kept.expiry);
        world.seconds(20);
        let later = world.client("later").connect();
        later.subscribe("will/+", 2);
        later.expect_nothing();
        let denied = world.client("b").will(Will::new("$SYS/x", "no")).try_connect().1;
        assert!(matches!(denied, Some(crate::support::Received::ConnAck { code: ReasonCode::NotAuthorized, .. })));
    });
}
