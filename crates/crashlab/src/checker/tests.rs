//! Histories made by hand: each breaks one promise, or none.

use std::time::Duration;

use pantala_proto::QoS;

use super::{Promise, Rules, check};
use crate::fault::FaultKind;
use crate::history::{
    ClientFacts, ClientNumber, Drops, Ending, Event, History, MessageFacts, MessageId, Moment, Purpose, Reception,
    SubscriptionFacts, TopicNumber,
};
use crate::payload::Content;

const TOPICS: [&str; 5] = ["lab/p/0", "lab/hot/0", "lab/r/0", "lab/e/0", "lab/w/0"];
const PLAIN: TopicNumber = 0;
const HOT: TopicNumber = 1;
const RETAINED: TopicNumber = 2;
const EXPIRING: TopicNumber = 3;
const WILL: TopicNumber = 4;

const PUBLISHER: ClientNumber = 0;
/// Subscribes at QoS 1.
const ONE: ClientNumber = 1;
/// Subscribes at QoS 2.
const TWO: ClientNumber = 2;
const MEMBERS: [ClientNumber; 2] = [3, 4];
const WATCHER: ClientNumber = 5;
const DOOMED: ClientNumber = 6;
/// Its Session ends a second after its connection.
const SHORT: ClientNumber = 7;
/// Follows the retained topic.
const FOLLOWER: ClientNumber = 8;
/// Speaks MQTT 5, takes two messages at once, follows the topic whose messages expire.
const NARROW: ClientNumber = 9;
/// A member at QoS 2 of a group of its own, and a second one.
const EXACT_MEMBERS: [ClientNumber; 2] = [10, 11];

/// A history in the making. Every event takes a millisecond.
struct Story {
    history: History,
    now: Duration,
}

impl Story {
    fn new() -> Self {
        let mut history = History::default();
        history.cast.topics = TOPICS.map(Into::into).to_vec();
        for (client, subscription) in [
            ("publisher", None),
            ("one", Some(("lab/p/#", QoS::AtLeastOnce, None))),
            ("two", Some(("lab/p/#", QoS::ExactlyOnce, None))),
            ("member-0", Some(("lab/hot/#", QoS::AtLeastOnce, Some("a")))),
            ("member-1", Some(("lab/hot/#", QoS::AtLeastOnce, Some("a")))),
            ("watcher", Some(("lab/w/#", QoS::ExactlyOnce, None))),
            ("doomed", None),
            ("short", Some(("lab/p/#", QoS::AtLeastOnce, None))),
            ("follower", Some(("lab/r/#", QoS::AtLeastOnce, None))),
            ("narrow", Some(("lab/e/#", QoS::ExactlyOnce, None))),
            ("exact-0", Some(("lab/hot/#", QoS::ExactlyOnce, Some("b")))),
            ("exact-1", Some(("lab/hot/#", QoS::ExactlyOnce, Some("b")))),
        ] {
            let subscriptions = subscription.map(|(filter, qos, share)| SubscriptionFacts {
                filter: filter.into(),
                qos,
                share: share.map(Into::into),
            });
            history.cast.clients.push(ClientFacts {
                client_id: client.into(),
                is_v5: client == "narrow",
                receive_maximum: (client == "narrow").then_some(2),
                session_expiry: (client == "short").then_some(Duration::from_secs(1)),
                subscriptions: subscriptions.into_iter().collect(),
            });
        }
        history.cast.messages.resize(history.cast.clients.len(), Vec::new());
        let mut story = Self { history, now: Duration::ZERO };
        story.connect(PUBLISHER, false);
        story
    }

    fn event(&mut self, event: Event) -> &mut Self {
        self.now += Duration::from_millis(1);
        self.history.moments.push(Moment { at: self.now, event });
        self
    }

    fn wait(&mut self, millis: u64) -> &mut Self {
        self.now += Duration::from_millis(millis);
        self
    }

    fn connect_as(&mut self, client: ClientNumber, clean_start: bool, session_present: bool) -> &mut Self {
        self.event(Event::Connecting { client, clean_start });
        self.event(Event::Connected { client, session_present })
    }

    fn connect(&mut self, client: ClientNumber, session_present: bool) -> &mut Self {
        self.connect_as(client, false, session_present)
    }

    fn end(&mut self, client: ClientNumber, ending: Ending) -> &mut Self {
        self.event(Event::Ended { client, ending })
    }

    fn subscribe(&mut self, client: ClientNumber) -> &mut Self {
        self.event(Event::Subscribing { client, subscription: 0 });
        self.event(Event::Subscribed { client, subscription: 0, granted: Some(QoS::AtLeastOnce) })
    }

    fn unsubscribe(&mut self, client: ClientNumber) -> &mut Self {
        self.event(Event::Unsubscribing { client, subscription: 0 });
        self.event(Event::Unsubscribed { client, subscription: 0 })
    }

    /// A new client with its subscription.
    fn subscriber(&mut self, client: ClientNumber) -> &mut Self {
        self.connect(client, false).subscribe(client)
    }

    fn message(&mut self, facts: MessageFacts) -> MessageId {
        let message = self.history.add_message(PUBLISHER, facts);
        self.event(Event::Published { message });
        message
    }

    /// PUBLISH without an answer.
    fn send(&mut self, topic: TopicNumber, qos: QoS) -> MessageId {
        let purpose = Purpose::Ordinary;
        self.message(MessageFacts { topic, qos, retain: topic == RETAINED, expiry: None, purpose })
    }

    /// PUBLISH with its answers.
    fn publish(&mut self, topic: TopicNumber, qos: QoS) -> MessageId {
        let message = self.send(topic, qos);
        self.accept(message);
        message
    }

    fn delete(&mut self) -> MessageId {
        let (qos, purpose) = (QoS::AtLeastOnce, Purpose::Delete);
        let message = self.message(MessageFacts { topic: RETAINED, qos, retain: true, expiry: None, purpose });
        self.accept(message);
        message
    }

    fn accept(&mut self, message: MessageId) -> &mut Self {
        self.event(Event::Accepted { message });
        let facts = self.history.cast.message(message).copied();
        if facts.is_some_and(|facts| facts.qos == QoS::ExactlyOnce) {
            self.event(Event::Completed { message, releases: 1, found: true });
        }
        self
    }

    fn receive(&mut self, client: ClientNumber, packet_id: u16, message: MessageId) -> &mut Self {
        let packet = self.packet(client, packet_id, message);
        self.event(Event::Received(packet))
    }

    fn repeat(&mut self, client: ClientNumber, packet_id: u16, message: MessageId) -> &mut Self {
        let packet = self.packet(client, packet_id, message);
        self.event(Event::Received(Reception { dup: true, ..packet }))
    }

    /// As a broker should send it.
    fn packet(&self, client: ClientNumber, packet_id: u16, message: MessageId) -> Reception {
        let facts = self.history.cast.message(message).unwrap();
        let subscription = &self.history.cast.clients[usize::from(client)].subscriptions[0];
        Reception {
            client,
            topic: facts.topic,
            packet_id,
            qos: facts.qos.min(subscription.qos),
            dup: false,
            retain: false,
            expiry: facts.expiry,
            content: Content::Message(message),
        }
    }

    fn free(&mut self, client: ClientNumber, packet_id: u16) -> &mut Self {
        self.event(Event::Freed { client, packet_id })
    }

    /// The message comes and is acknowledged.
    fn deliver(&mut self, client: ClientNumber, packet_id: u16, message: MessageId) -> &mut Self {
        self.receive(client, packet_id, message).free(client, packet_id)
    }

    fn crash(&mut self) -> &mut Self {
        self.event(Event::Fault { kind: FaultKind::Kill }).event(Event::BrokerGone)
    }

    fn restart(&mut self) -> &mut Self {
        self.event(Event::BrokerBack { after: Duration::from_millis(50) })
    }

    /// The broker is killed and started; this client sees it.
    fn crash_under(&mut self, client: ClientNumber) -> &mut Self {
        self.crash().end(client, Ending::Lost).restart().connect(client, true)
    }

    fn settle(&mut self, client: ClientNumber) -> &mut Self {
        self.event(Event::Settled { client })
    }

    /// The broker says what it has dropped.
    fn count(&mut self, drops: Drops) -> &mut Self {
        self.event(Event::Counted(drops))
    }

    fn probe(&mut self, found: Option<Content>) -> &mut Self {
        self.event(Event::ProbeBegan { probe: 1 });
        if let Some(content) = found {
            self.event(Event::ProbeFound { probe: 1, topic: RETAINED, content });
        }
        self.event(Event::ProbeEnded { probe: 1 })
    }

    /// A client with a Will connects, and ends so.
    fn doomed(&mut self, delay: u32, ending: Ending) -> MessageId {
        let (qos, purpose) = (QoS::ExactlyOnce, Purpose::Will { delay });
        let facts = MessageFacts { topic: WILL, qos, retain: false, expiry: None, purpose };
        let message = self.history.add_message(DOOMED, facts);
        self.event(Event::Published { message }).connect(DOOMED, false).wait(100).end(DOOMED, ending);
        message
    }

    /// A message that expires.
    fn perishable(&mut self, seconds: u32) -> MessageId {
        let (qos, expiry, purpose) = (QoS::AtLeastOnce, Some(seconds), Purpose::Ordinary);
        let message = self.message(MessageFacts { topic: EXPIRING, qos, retain: false, expiry, purpose });
        self.accept(message);
        message
    }
}

/// What is told, and which promises it breaks.
type Case = (&'static str, &'static [Promise], fn(&mut Story));

fn judge(cases: &[Case]) {
    for (name, expected, tell) in cases {
        let mut story = Story::new();
        tell(&mut story);
        let violations = check(&story.history, Rules { wills_survive: true });
        let mut found: Vec<Promise> = violations.iter().map(|violation| violation.promise).collect();
        found.dedup();
        assert_eq!(found, *expected, "{name}: {violations:#?}");
    }
}

#[test]
fn what_was_not_published_so_is_found() {
    judge(&[
        ("a damaged message", &[Promise::R1], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            let packet = story.packet(ONE, 1, message);
            story.event(Event::Received(Reception { content: Content::Damaged, ..packet }));
        }),
        ("a message that is published later", &[Promise::R1], |story| {
            story.subscriber(ONE).send(PLAIN, QoS::AtLeastOnce);
            let last = story.history.moments.pop().unwrap();
            story.deliver(ONE, 1, MessageId { publisher: PUBLISHER, sequence: 0 }).event(last.event);
        }),
        ("a message of an unknown number", &[Promise::R1], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            let packet = story.packet(ONE, 1, message);
            let content = Content::Message(MessageId { publisher: PUBLISHER, sequence: 77 });
            story.event(Event::Received(Reception { content, ..packet }));
        }),
        ("another topic", &[Promise::R1], |story| {
            let message = story.subscriber(ONE).publish(HOT, QoS::AtLeastOnce);
            let packet = story.packet(ONE, 1, message);
            story.event(Event::Received(Reception { topic: PLAIN, ..packet }));
        }),
        ("another QoS", &[Promise::R1], |story| {
            let message = story.subscriber(TWO).publish(PLAIN, QoS::AtLeastOnce);
            let packet = story.packet(TWO, 1, message);
            story.event(Event::Received(Reception { qos: QoS::ExactlyOnce, ..packet })).free(TWO, 1);
        }),
        ("an empty message where nothing is deleted", &[Promise::R1], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            let packet = story.packet(ONE, 1, message);
            story.event(Event::Received(Reception { content: Content::Empty, ..packet }));
        }),
        ("RETAIN on a live message", &[Promise::T4], |story| {
            let message = story.subscriber(FOLLOWER).publish(RETAINED, QoS::AtLeastOnce);
            let packet = story.packet(FOLLOWER, 1, message);
            story.event(Event::Received(Reception { retain: true, ..packet }));
        }),
        ("RETAIN on an older message is right", &[], |story| {
            let message = story.publish(RETAINED, QoS::AtLeastOnce);
            let packet = story.subscriber(FOLLOWER).packet(FOLLOWER, 1, message);
            story.event(Event::Received(Reception { retain: true, ..packet }));
        }),
        ("the delete of a Retained Message is no damage", &[], |story| {
            let message = story.subscriber(FOLLOWER).delete();
            let packet = story.packet(FOLLOWER, 1, message);
            story.event(Event::Received(Reception { content: Content::Empty, ..packet }));
        }),
    ]);
}

#[test]
fn what_comes_without_a_subscription_is_found() {
    judge(&[
        ("no filter matches", &[Promise::R2], |story| {
            let message = story.subscriber(ONE).publish(HOT, QoS::AtLeastOnce);
            story.deliver(ONE, 1, message);
        }),
        ("older than the subscription", &[Promise::R2], |story| {
            let message = story.publish(PLAIN, QoS::AtLeastOnce);
            story.subscriber(ONE).deliver(ONE, 1, message);
        }),
        ("after UNSUBACK", &[Promise::R2], |story| {
            let message = story.subscriber(ONE).unsubscribe(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, message);
        }),
        ("after UNSUBACK and a crash", &[Promise::S3], |story| {
            story.subscriber(ONE).unsubscribe(ONE).crash_under(ONE);
            let message = story.publish(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, message);
        }),
        ("of the Session before Clean Start", &[Promise::R3], |story| {
            story.subscriber(ONE).end(ONE, Ending::Vanished);
            let message = story.publish(PLAIN, QoS::AtLeastOnce);
            story.connect_as(ONE, true, false).subscribe(ONE).deliver(ONE, 1, message);
        }),
        ("while SUBSCRIBE or UNSUBSCRIBE is on its way it may", &[], |story| {
            story.connect(ONE, false).event(Event::Subscribing { client: ONE, subscription: 0 });
            let early = story.publish(PLAIN, QoS::AtLeastOnce);
            story.event(Event::Subscribed { client: ONE, subscription: 0, granted: Some(QoS::AtLeastOnce) });
            story.event(Event::Unsubscribing { client: ONE, subscription: 0 });
            let late = story.publish(PLAIN, QoS::AtLeastOnce);
            story.event(Event::Unsubscribed { client: ONE, subscription: 0 });
            story.deliver(ONE, 1, early).deliver(ONE, 2, late);
        }),
    ]);
}

#[test]
fn what_is_lost_is_found() {
    judge(&[
        ("at QoS 1", &[Promise::Q1a], |story| {
            story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.crash_under(ONE).settle(ONE);
        }),
        ("at QoS 2", &[Promise::Q2b], |story| {
            story.subscriber(TWO).publish(PLAIN, QoS::ExactlyOnce);
            story.crash_under(TWO).settle(TWO);
        }),
        ("with the Session, which is a second broken promise", &[Promise::S3, Promise::Q1a], |story| {
            story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.crash().end(ONE, Ending::Lost).restart().connect(ONE, false).subscribe(ONE).settle(ONE);
        }),
        ("published before UNSUBSCRIBE", &[Promise::Q1a], |story| {
            story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.unsubscribe(ONE).settle(ONE);
        }),
        ("nothing is lost that is not accepted, not owed, or not due yet", &[], |story| {
            story.publish(PLAIN, QoS::AtLeastOnce);
            story.subscriber(ONE).send(PLAIN, QoS::AtLeastOnce);
            story.settle(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.unsubscribe(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.end(ONE, Ending::Vanished);
        }),
        ("what a Session had that ended with Clean Start is not owed", &[], |story| {
            story.subscriber(ONE).end(ONE, Ending::Vanished).publish(PLAIN, QoS::AtLeastOnce);
            story.connect_as(ONE, true, false).subscribe(ONE).settle(ONE);
        }),
        ("nor what it had that expired", &[], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).publish(PLAIN, QoS::AtLeastOnce);
            story.wait(3_000).connect(SHORT, false).subscribe(SHORT).settle(SHORT);
        }),
    ]);
}

#[test]
fn what_comes_too_often_is_found() {
    judge(&[
        ("a second copy without a reason", &[Promise::Q1c], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, message).deliver(ONE, 2, message);
        }),
        ("a repetition after a reconnection, without DUP", &[Promise::Q1c], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, message).end(ONE, Ending::Vanished).connect(ONE, true).deliver(ONE, 1, message);
        }),
        ("with DUP it is right", &[], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, message).end(ONE, Ending::Vanished).connect(ONE, true);
            story.repeat(ONE, 1, message).free(ONE, 1);
        }),
        ("a copy for each PUBLISH of a publisher without an answer is right", &[], |story| {
            let message = story.subscriber(ONE).send(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, message).event(Event::Published { message }).accept(message);
            story.deliver(ONE, 2, message);
        }),
        ("after a crash a broker may not know that it has sent", &[], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, message).crash_under(ONE).deliver(ONE, 2, message);
        }),
        ("again on a live connection", &[Promise::Q1d], |story| {
            let message = story.subscriber(TWO).publish(PLAIN, QoS::ExactlyOnce);
            story.receive(TWO, 1, message).repeat(TWO, 1, message).free(TWO, 1);
        }),
        ("QoS 2 under a new identifier", &[Promise::Q2b], |story| {
            let message = story.subscriber(TWO).publish(PLAIN, QoS::ExactlyOnce);
            story.receive(TWO, 1, message).crash_under(TWO).repeat(TWO, 2, message);
        }),
        ("QoS 2 after it was released", &[Promise::Q2b], |story| {
            let message = story.subscriber(TWO).publish(PLAIN, QoS::ExactlyOnce);
            story.deliver(TWO, 1, message).crash_under(TWO).repeat(TWO, 1, message);
        }),
        ("QoS 2 routed twice after the publisher's repetition", &[Promise::Q2a], |story| {
            let message = story.subscriber(TWO).send(PLAIN, QoS::ExactlyOnce);
            story.deliver(TWO, 1, message).crash_under(TWO).event(Event::Published { message }).accept(message);
            story.deliver(TWO, 2, message);
        }),
        ("QoS 2 again under the same identifier is right", &[], |story| {
            let message = story.subscriber(TWO).publish(PLAIN, QoS::ExactlyOnce);
            story.receive(TWO, 1, message).crash_under(TWO).repeat(TWO, 1, message).free(TWO, 1);
        }),
    ]);
}

#[test]
fn wrong_use_of_packet_identifiers_is_found() {
    judge(&[
        ("in use by another message at QoS 1", &[Promise::Q2d], |story| {
            let first = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            let second = story.publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, first).receive(ONE, 1, second);
        }),
        ("in use by another message at QoS 2, after a crash", &[Promise::Q2d], |story| {
            let first = story.subscriber(TWO).publish(PLAIN, QoS::ExactlyOnce);
            let second = story.publish(PLAIN, QoS::ExactlyOnce);
            story.receive(TWO, 1, first).crash_under(TWO).receive(TWO, 1, second);
        }),
        ("forgotten between PUBREC and PUBREL", &[Promise::Q2c], |story| {
            let message = story.send(PLAIN, QoS::ExactlyOnce);
            story.event(Event::Accepted { message }).crash();
            story.event(Event::Completed { message, releases: 1, found: false });
        }),
        ("at the second PUBREL it may be gone", &[], |story| {
            let message = story.send(PLAIN, QoS::ExactlyOnce);
            story.event(Event::Accepted { message }).crash();
            story.event(Event::Completed { message, releases: 2, found: false });
        }),
        ("more inflight than the Receive Maximum", &[Promise::S5], |story| {
            story.subscriber(NARROW);
            for packet_id in 1..=3 {
                let message = story.perishable(100);
                story.receive(NARROW, packet_id, message);
            }
        }),
    ]);
}

#[test]
fn a_connect_without_an_answer_proves_little() {
    judge(&[
        ("it may have begun a Session in the place of one whose time was over", &[], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).publish(PLAIN, QoS::AtLeastOnce);
            story.wait(2_000).event(Event::Connecting { client: SHORT, clean_start: false });
            story.end(SHORT, Ending::Vanished).connect(SHORT, true).settle(SHORT);
        }),
        ("in time it may not", &[Promise::Q1a], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).publish(PLAIN, QoS::AtLeastOnce);
            story.wait(500).event(Event::Connecting { client: SHORT, clean_start: false });
            story.end(SHORT, Ending::Vanished).connect(SHORT, true).settle(SHORT);
        }),
        ("it may not have come, and so the time of the Session be over", &[], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).wait(900);
            story.event(Event::Connecting { client: SHORT, clean_start: false }).end(SHORT, Ending::Lost).wait(900);
            story.connect(SHORT, false);
        }),
    ]);
}

#[test]
fn wrong_order_is_found() {
    judge(&[
        ("first deliveries", &[Promise::O1], |story| {
            let first = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            let second = story.publish(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, second).deliver(ONE, 2, first);
        }),
        ("messages of different QoS are not compared", &[], |story| {
            let first = story.subscriber(ONE).publish(PLAIN, QoS::ExactlyOnce);
            let second = story.publish(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, second).deliver(ONE, 2, first);
        }),
        ("retransmissions among themselves", &[Promise::O2], |story| {
            let first = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            let second = story.publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, first).receive(ONE, 2, second).end(ONE, Ending::Vanished).connect(ONE, true);
            story.repeat(ONE, 2, second).repeat(ONE, 1, first);
        }),
        ("a retransmission after a newer message", &[Promise::O2], |story| {
            let first = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, first).end(ONE, Ending::Vanished).connect(ONE, true);
            let second = story.publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 2, second).repeat(ONE, 1, first);
        }),
        ("a message whose routing a crash had undone before it was acknowledged", &[], |story| {
            let first = story.subscriber(ONE).send(PLAIN, QoS::ExactlyOnce);
            story.receive(ONE, 1, first).crash_under(ONE);
            let second = story.publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, second).event(Event::Published { message: first }).accept(first);
            story.receive(ONE, 2, first);
        }),
        ("two copies, and a crash that took what was known of their sending", &[], |story| {
            let message = story.subscriber(ONE).send(PLAIN, QoS::AtLeastOnce);
            story.event(Event::Published { message }).receive(ONE, 1, message).receive(ONE, 2, message);
            story.crash_under(ONE).accept(message).receive(ONE, 1, message).receive(ONE, 2, message);
        }),
        ("messages that were sent while the subscription began, and again", &[], |story| {
            let first = story.connect(ONE, false).send(PLAIN, QoS::AtLeastOnce);
            let second = story.event(Event::Subscribing { client: ONE, subscription: 0 }).send(PLAIN, QoS::AtLeastOnce);
            let granted = Some(QoS::AtLeastOnce);
            story.event(Event::Subscribed { client: ONE, subscription: 0, granted }).deliver(ONE, 1, second);
            for (packet_id, message) in [(2, first), (3, second)] {
                story.event(Event::Published { message }).accept(message).deliver(ONE, packet_id, message);
            }
        }),
    ]);
}

#[test]
fn wrong_retained_messages_are_found() {
    judge(&[
        ("an older value", &[Promise::T1], |story| {
            let old = story.publish(RETAINED, QoS::AtLeastOnce);
            story.publish(RETAINED, QoS::AtLeastOnce);
            story.probe(Some(Content::Message(old)));
        }),
        ("an older value after a crash", &[Promise::T2], |story| {
            let old = story.publish(RETAINED, QoS::AtLeastOnce);
            story.publish(RETAINED, QoS::AtLeastOnce);
            story.crash().restart().probe(Some(Content::Message(old)));
        }),
        ("no value after a crash", &[Promise::T2], |story| {
            story.publish(RETAINED, QoS::AtLeastOnce);
            story.crash().restart().probe(None);
        }),
        ("a torn value", &[Promise::T2], |story| {
            story.publish(RETAINED, QoS::AtLeastOnce);
            story.crash().restart().probe(Some(Content::Damaged));
        }),
        ("a deleted value", &[Promise::T3], |story| {
            let old = story.publish(RETAINED, QoS::AtLeastOnce);
            story.delete();
            story.crash().restart().probe(Some(Content::Message(old)));
        }),
        ("a newer value that was not accepted is right", &[], |story| {
            story.publish(RETAINED, QoS::AtLeastOnce);
            let newer = story.send(RETAINED, QoS::AtLeastOnce);
            story.crash().restart().probe(Some(Content::Message(newer)));
        }),
        ("so is the accepted one", &[], |story| {
            let accepted = story.publish(RETAINED, QoS::AtLeastOnce);
            story.send(RETAINED, QoS::AtLeastOnce);
            story.crash().restart().probe(Some(Content::Message(accepted)));
        }),
        ("so is nothing after a delete", &[], |story| {
            story.publish(RETAINED, QoS::AtLeastOnce);
            story.delete();
            story.crash().restart().probe(None);
        }),
    ]);
}

#[test]
fn wrong_sessions_are_found() {
    judge(&[
        ("none where one was acknowledged, after a crash", &[Promise::S3], |story| {
            story.subscriber(ONE).crash().end(ONE, Ending::Lost).restart().connect(ONE, false);
        }),
        ("none where one was acknowledged", &[Promise::S1], |story| {
            story.subscriber(ONE).end(ONE, Ending::Vanished).connect(ONE, false);
        }),
        ("none where PUBREC was received", &[Promise::S1], |story| {
            story.publish(PLAIN, QoS::ExactlyOnce);
            story.crash().end(PUBLISHER, Ending::Lost).restart().connect(PUBLISHER, false);
        }),
        ("one where there was none", &[Promise::S1], |story| {
            story.connect(ONE, true);
        }),
        ("one after Clean Start", &[Promise::S1], |story| {
            story.subscriber(ONE).end(ONE, Ending::Vanished).connect_as(ONE, true, true);
        }),
        ("one that has expired", &[Promise::S2], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).wait(10_000).connect(SHORT, true);
        }),
        ("none before it expires", &[Promise::S1], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).wait(500).connect(SHORT, false);
        }),
        ("about its end both are right", &[], |story| {
            story.subscriber(SHORT).end(SHORT, Ending::Vanished).wait(3_000).connect(SHORT, true);
            story.end(SHORT, Ending::Vanished).wait(3_000).connect(SHORT, false);
        }),
        ("none where nothing was acknowledged is right", &[], |story| {
            story.connect(ONE, false).crash().end(ONE, Ending::Lost).restart().connect(ONE, false);
        }),
    ]);
}

#[test]
fn connections_that_go_on_are_found() {
    judge(&[
        ("a message after the new connection was answered", &[Promise::S4], |story| {
            let message =
                story.subscriber(ONE).end(ONE, Ending::Superseded).connect(ONE, true).publish(PLAIN, QoS::AtLeastOnce);
            story
                .event(Event::Stale { client: ONE, content: Some(Content::Message(message)) })
                .deliver(ONE, 1, message);
        }),
        ("any other packet", &[Promise::S4], |story| {
            story.subscriber(ONE).end(ONE, Ending::Superseded).connect(ONE, true);
            story.event(Event::Stale { client: ONE, content: None });
        }),
        ("one that is not closed", &[Promise::S4], |story| {
            story.subscriber(ONE).end(ONE, Ending::Superseded).connect(ONE, true);
            story.event(Event::Outlived { client: ONE }).settle(ONE);
        }),
        ("a message before that, and again on the new one, is right", &[], |story| {
            let connecting = Event::Connecting { client: ONE, clean_start: false };
            story.subscriber(ONE).end(ONE, Ending::Superseded).event(connecting);
            let message = story.publish(PLAIN, QoS::AtLeastOnce);
            story.receive(ONE, 1, message).event(Event::Connected { client: ONE, session_present: true });
            story.repeat(ONE, 1, message).free(ONE, 1).settle(ONE);
        }),
        ("a Session that is lost in a takeover", &[Promise::S1], |story| {
            story.subscriber(ONE).end(ONE, Ending::Superseded).connect(ONE, false);
        }),
    ]);
}

#[test]
fn wrong_counts_are_found() {
    judge(&[
        ("a message that expired and was not counted", &[Promise::E2], |story| {
            story.subscriber(NARROW).end(NARROW, Ending::Vanished).perishable(1);
            story.wait(2_000).connect(NARROW, true).settle(NARROW).count(Drops::default());
        }),
        ("one that was counted under another name", &[Promise::E2], |story| {
            story.subscriber(NARROW).end(NARROW, Ending::Vanished).perishable(1);
            story.wait(2_000).connect(NARROW, true).settle(NARROW);
            story.count(Drops { other: 1, ..Drops::default() });
        }),
        ("more than can have expired", &[Promise::E2], |story| {
            story.subscriber(NARROW).end(NARROW, Ending::Vanished).perishable(1);
            story.wait(2_000).connect(NARROW, true).settle(NARROW);
            story.count(Drops { expired: 2, ..Drops::default() });
        }),
        ("one counted as expired that came", &[Promise::E2], |story| {
            let message = story.subscriber(NARROW).perishable(100);
            story.deliver(NARROW, 1, message).settle(NARROW).count(Drops { expired: 1, ..Drops::default() });
        }),
        ("one that went with its Session and was not counted", &[Promise::E2], |story| {
            story.subscriber(ONE).end(ONE, Ending::Vanished).publish(PLAIN, QoS::AtLeastOnce);
            story.connect_as(ONE, true, false).subscribe(ONE).settle(ONE).count(Drops::default());
        }),
        ("one counted so where no Session has ended", &[Promise::E2], |story| {
            let message = story.subscriber(ONE).publish(PLAIN, QoS::AtLeastOnce);
            story.deliver(ONE, 1, message).settle(ONE).count(Drops { session_ended: 1, ..Drops::default() });
        }),
        ("one that was refused and was not counted", &[Promise::E2], |story| {
            let message = story.send(PLAIN, QoS::AtLeastOnce);
            story.event(Event::Refused { message }).count(Drops::default());
        }),
        ("one counted as refused while the disk was well", &[Promise::E2], |story| {
            story.publish(PLAIN, QoS::AtLeastOnce);
            story.count(Drops { refused: 1, ..Drops::default() });
        }),
        ("what is there for a reason is right, each by its name", &[], |story| {
            story.subscriber(NARROW).end(NARROW, Ending::Vanished).perishable(1);
            story.subscriber(ONE).end(ONE, Ending::Vanished).publish(PLAIN, QoS::AtLeastOnce);
            story.connect_as(ONE, true, false).subscribe(ONE).event(Event::Fault { kind: FaultKind::Enospc });
            let refused = story.send(PLAIN, QoS::AtLeastOnce);
            story.event(Event::Refused { message: refused });
            story.wait(2_000).connect(NARROW, true).settle(NARROW);
            // A client before MQTT 5 got no answer.
            story.count(Drops { expired: 1, session_ended: 1, refused: 2, other: 0 });
        }),
        ("another process has counted what was before it", &[], |story| {
            story.subscriber(NARROW).end(NARROW, Ending::Vanished).perishable(1);
            story.wait(2_000).crash().restart().connect(NARROW, true).settle(NARROW).count(Drops::default());
        }),
        ("a client that is away may have it yet", &[], |story| {
            story.subscriber(NARROW).end(NARROW, Ending::Vanished).perishable(1);
            story.wait(2_000).count(Drops::default());
        }),
    ]);
}

#[test]
fn wrong_shares_are_found() {
    judge(&[
        ("to two members", &[Promise::H1], |story| {
            let message = story.subscriber(MEMBERS[0]).subscriber(MEMBERS[1]).publish(HOT, QoS::AtLeastOnce);
            story.deliver(MEMBERS[0], 1, message).deliver(MEMBERS[1], 1, message);
        }),
        ("to two members at QoS 2, even after a crash", &[Promise::H1], |story| {
            let [first, second] = EXACT_MEMBERS;
            let message = story.subscriber(first).subscriber(second).publish(HOT, QoS::ExactlyOnce);
            story.receive(first, 1, message).crash_under(second).deliver(second, 1, message);
        }),
        ("to nobody", &[Promise::H3], |story| {
            story.subscriber(MEMBERS[0]).subscriber(MEMBERS[1]).publish(HOT, QoS::AtLeastOnce);
            story.crash().restart().settle(MEMBERS[0]).settle(MEMBERS[1]);
        }),
        ("a member that is not settled may have it", &[], |story| {
            story.subscriber(MEMBERS[0]).subscriber(MEMBERS[1]).publish(HOT, QoS::AtLeastOnce);
            story.settle(MEMBERS[0]);
        }),
        ("to one each", &[], |story| {
            let first = story.subscriber(MEMBERS[0]).subscriber(MEMBERS[1]).publish(HOT, QoS::AtLeastOnce);
            let second = story.publish(HOT, QoS::AtLeastOnce);
            story.deliver(MEMBERS[0], 1, second).deliver(MEMBERS[1], 1, first);
            story.settle(MEMBERS[0]).settle(MEMBERS[1]);
        }),
    ]);
}

#[test]
fn wrong_wills_are_found() {
    judge(&[
        ("twice", &[Promise::W1], |story| {
            let will = story.subscriber(WATCHER).doomed(0, Ending::Vanished);
            story.deliver(WATCHER, 1, will).deliver(WATCHER, 2, will);
        }),
        ("never", &[Promise::W1], |story| {
            story.subscriber(WATCHER).doomed(0, Ending::Vanished);
            story.wait(4_000).settle(WATCHER);
        }),
        ("after DISCONNECT", &[Promise::W1], |story| {
            let will = story.subscriber(WATCHER).doomed(0, Ending::Disconnected);
            story.wait(1_000).deliver(WATCHER, 1, will);
        }),
        ("of a living client", &[Promise::W1], |story| {
            let will = story.subscriber(WATCHER).doomed(0, Ending::Vanished);
            story.history.moments.pop();
            story.deliver(WATCHER, 1, will);
        }),
        ("before its delay", &[Promise::W2], |story| {
            let will = story.subscriber(WATCHER).doomed(1, Ending::Vanished);
            story.wait(500).deliver(WATCHER, 1, will);
        }),
        ("lost in a crash, where wills survive", &[Promise::W1], |story| {
            let will = story.subscriber(WATCHER).doomed(0, Ending::Lost);
            // The client had been there for a while, and stays away.
            let end = story.history.moments.pop().unwrap();
            story.wait(2_000).crash().end(WATCHER, Ending::Lost).event(end.event).restart();
            story.connect(WATCHER, true).wait(14_000).settle(WATCHER);
            assert_eq!(will.publisher, DOOMED);
        }),
        ("not yet there after a restart, as its client may come back", &[], |story| {
            story.subscriber(WATCHER).doomed(0, Ending::Lost);
            let end = story.history.moments.pop().unwrap();
            story.wait(2_000).crash().end(WATCHER, Ending::Lost).event(end.event).restart();
            story.connect(WATCHER, true).wait(9_000).settle(WATCHER);
        }),
        ("once, when it is due", &[], |story| {
            let will = story.subscriber(WATCHER).doomed(1, Ending::Vanished);
            story.wait(1_000).deliver(WATCHER, 1, will).wait(4_000).settle(WATCHER);
        }),
        ("none, as the client came back in time", &[], |story| {
            story.subscriber(WATCHER).doomed(1, Ending::Vanished);
            story.wait(300).connect(DOOMED, true).wait(5_000).settle(WATCHER);
        }),
        ("none after DISCONNECT", &[], |story| {
            story.subscriber(WATCHER).doomed(0, Ending::Disconnected);
            story.wait(5_000).settle(WATCHER);
        }),
        ("one that was repeated under an open identifier", &[], |story| {
            let will = story.subscriber(WATCHER).doomed(0, Ending::Vanished);
            story.receive(WATCHER, 1, will).crash_under(WATCHER).repeat(WATCHER, 1, will).free(WATCHER, 1);
        }),
    ]);
}

#[test]
fn wrong_expiry_is_found() {
    judge(&[
        ("an expired message", &[Promise::E1], |story| {
            let message = story.subscriber(NARROW).perishable(1);
            let packet = story.wait(3_000).packet(NARROW, 1, message);
            story.event(Event::Received(Reception { expiry: Some(0), ..packet }));
        }),
        ("an interval that was not decremented", &[Promise::E1], |story| {
            let message = story.subscriber(NARROW).perishable(100);
            story.wait(10_000).deliver(NARROW, 1, message);
        }),
        ("an interval that grew", &[Promise::E1], |story| {
            let message = story.subscriber(NARROW).perishable(100);
            let packet = story.packet(NARROW, 1, message);
            story.event(Event::Received(Reception { expiry: Some(101), ..packet }));
        }),
        ("no interval", &[Promise::E1], |story| {
            let message = story.subscriber(NARROW).perishable(100);
            let packet = story.packet(NARROW, 1, message);
            story.event(Event::Received(Reception { expiry: None, ..packet }));
        }),
        ("the rest of the interval", &[], |story| {
            let message = story.subscriber(NARROW).perishable(100);
            let packet = story.wait(10_000).packet(NARROW, 1, message);
            story.event(Event::Received(Reception { expiry: Some(90), ..packet }));
        }),
        ("one that was on its way before it expired", &[], |story| {
            let message = story.subscriber(NARROW).perishable(1);
            story.receive(NARROW, 1, message).end(NARROW, Ending::Vanished).wait(5_000).connect(NARROW, true);
            let packet = story.packet(NARROW, 1, message);
            story.event(Event::Received(Reception { dup: true, expiry: Some(0), ..packet }));
        }),
    ]);
}

#[test]
fn what_is_stuck_is_found() {
    judge(&[
        ("a message without an answer", &[Promise::L1], |story| {
            story.send(PLAIN, QoS::AtLeastOnce);
            story.settle(PUBLISHER);
        }),
        ("a slow start", &[Promise::L1], |story| {
            story.crash().event(Event::BrokerBack { after: Duration::from_secs(6) });
        }),
        ("a death without a cause", &[Promise::L1], |story| {
            story.event(Event::BrokerDied).restart();
        }),
        ("a refused message is answered, and a given-up one is nobody's", &[], |story| {
            let refused = story.send(PLAIN, QoS::AtLeastOnce);
            let abandoned = story.send(PLAIN, QoS::ExactlyOnce);
            story.event(Event::Refused { message: refused }).event(Event::Abandoned { message: abandoned });
            story.settle(PUBLISHER);
        }),
    ]);
}

#[test]
fn a_long_history_is_checked_in_time() {
    const MESSAGES: u32 = 200_000;
    let mut story = Story::new();
    story.subscriber(ONE).subscriber(TWO);
    for number in 0..MESSAGES {
        let message = story.publish(PLAIN, QoS::AtLeastOnce);
        let packet_id = (number % 60_000) as u16 + 1;
        story.deliver(ONE, packet_id, message).deliver(TWO, packet_id, message);
    }
    story.settle(ONE).settle(TWO);
    let began = std::time::Instant::now();
    assert_eq!(check(&story.history, Rules::default()), []);
    // Ten million in ten seconds are wanted, of optimised code; this may be a build without optimisation.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
