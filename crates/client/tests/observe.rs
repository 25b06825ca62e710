//! What an observer sees of the packets, and what DISCONNECT, UNSUBSCRIBE and Topic Aliases by wish look like there.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pantala_client::error::PublishError;
use pantala_client::machine::{
    Direction, DisconnectRequest, Machine, SessionSettings, SubscribeRequest, UnsubscribeRequest,
};
use pantala_client::{Message, Packet, QoS};
use pantala_proto::AcknowledgementKind;
use pantala_session::Instant;

const NOW: Instant = Instant(0);

/// A machine, and what its observer has seen.
fn observed(settings: SessionSettings) -> (Machine, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let observer = move |direction, packet: &Packet<'_>| {
        let what = match packet {
            Packet::Acknowledgement(acknowledgement) => match acknowledgement.kind {
                AcknowledgementKind::PubRec => "PUBREC".to_owned(),
                AcknowledgementKind::PubRel => "PUBREL".to_owned(),
                kind => format!("{kind:?}"),
            },
            Packet::Publish(publish) => format!("{:?} {:?}", publish.topic_name, publish.properties.topic_alias),
            Packet::Disconnect(disconnect) => {
                let pairs: Vec<_> = disconnect.user_properties.iter().collect();
                format!("{:?} {:?} {pairs:?}", disconnect.session_expiry_interval, disconnect.reason_string)
            }
            Packet::Unsubscribe(unsubscribe) => {
                format!("{:?}", unsubscribe.user_properties.iter().collect::<Vec<_>>())
            }
            Packet::Connect(connect) => format!("CONNECT {}", connect.properties.request_problem_information),
            Packet::ConnAck(_) => "CONNACK".to_owned(),
            other => format!("{other:?}"),
        };
        let way = if direction == Direction::Sent { '>' } else { '<' };
        sees.lock().unwrap().push(format!("{way} {what}"));
    };
    (Machine::new(settings).with_observer(Box::new(observer)), seen)
}

fn connect(machine: &mut Machine, conn_ack: &[u8]) {
    machine.connection_made(NOW);
    machine.take_output(NOW);
    machine.handle_input(NOW, conn_ack);
}

fn take(seen: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut seen.lock().unwrap())
}

/// Two packets that come in one read were both shown before the answers.
#[test]
fn answers_are_shown_behind_what_they_answer() {
    let settings =
        SessionSettings { clean_start: false, session_expiry_interval: Duration::MAX, ..SessionSettings::default() };
    let (mut machine, seen) = observed(settings);
    connect(&mut machine, &[0x20, 3, 0, 0, 0]);
    for topic_name in ["a", "b"] {
        machine.publish(NOW, &Message::new(topic_name, "").qos(QoS::ExactlyOnce), None).unwrap();
    }
    // What is not written yet is not shown yet.
    assert_eq!(take(&seen), ["> CONNECT true", "< CONNACK"]);
    machine.take_output(NOW);
    assert_eq!(take(&seen), [r#"> "a" None"#, r#"> "b" None"#]);
    machine.handle_input(NOW, &[0x50, 2, 0, 1, 0x50, 2, 0, 2]);
    machine.take_output(NOW);
    assert_eq!(take(&seen), ["< PUBREC", "> PUBREL", "< PUBREC", "> PUBREL"]);
    // On a new connection all is shown again.
    machine.connection_lost();
    connect(&mut machine, &[0x20, 3, 1, 0, 0]);
    machine.take_output(NOW);
    assert_eq!(take(&seen), ["> CONNECT true", "< CONNACK", "> PUBREL", "> PUBREL"]);
}

#[test]
fn disconnect_and_unsubscribe_say_what_they_were_given() {
    let settings = SessionSettings {
        session_expiry_interval: Duration::from_secs(1),
        request_problem_information: false,
        ..SessionSettings::default()
    };
    let (mut machine, seen) = observed(settings);
    connect(&mut machine, &[0x20, 3, 0, 0, 0]);
    let pair = |key: &str| vec![(key.to_owned(), "value".to_owned())];
    let request = UnsubscribeRequest { filters: vec!["f".into()], user_properties: pair("k") };
    machine.unsubscribe(NOW, request, 0).unwrap();
    machine.disconnect_with(&DisconnectRequest {
        session_expiry_interval: Some(Duration::from_secs(9)),
        reason_string: Some("why".into()),
        user_properties: [pair("a"), pair("\0")].concat(),
        ..DisconnectRequest::default()
    });
    machine.take_output(NOW);
    assert_eq!(
        take(&seen),
        ["> CONNECT false", "< CONNACK", r#"> [("k", "value")]"#, r#"> Some(9) Some("why") [("a", "value")]"#]
    );
    // A broker that takes 10 bytes gets no sentence (v5 MQTT-3.14.2-3).
    machine.connection_lost();
    connect(&mut machine, &[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 10]);
    machine.disconnect_with(&DisconnectRequest {
        reason_string: Some("a long sentence".into()),
        ..DisconnectRequest::default()
    });
    machine.take_output(NOW);
    assert_eq!(take(&seen).last().unwrap(), "> None None []");
}

#[test]
fn an_alias_that_was_asked_for_is_set_once_for_each_connection() {
    let (mut machine, seen) = observed(SessionSettings { sent_topic_aliases: 0, ..SessionSettings::default() });
    let message = Message::new("t", "").topic_alias(NonZeroU16::new(5).unwrap());
    for _ in 0..2 {
        connect(&mut machine, &[0x20, 6, 0, 0, 3, 0x22, 0, 5]);
        machine.publish(NOW, &message, None).unwrap();
        machine.publish(NOW, &message, None).unwrap();
        machine.publish(NOW, &Message::new("t", ""), None).unwrap();
        machine.take_output(NOW);
        let shown = take(&seen);
        assert_eq!(shown[2..5], [r#"> "t" Some(5)"#, r#"> "" Some(5)"#, r#"> "t" None"#]);
        machine.connection_lost();
    }
    connect(&mut machine, &[0x20, 6, 0, 0, 3, 0x22, 0, 4]);
    assert_eq!(machine.publish(NOW, &message, None), Err(PublishError::TopicAlias { maximum: 4 }));
    // The connection goes on.
    machine
        .subscribe(NOW, SubscribeRequest { filters: vec![("f".into(), Default::default())], ..Default::default() }, 0)
        .unwrap();
}

/// PINGREQ that goes past output that is held back.
#[test]
fn a_ping_that_is_taken_apart_is_shown() {
    let (mut machine, seen) = observed(SessionSettings::default());
    machine.report_writes();
    connect(&mut machine, &[0x20, 3, 0, 0, 0]);
    assert_eq!(take(&seen), ["> CONNECT true", "< CONNACK"]);
    machine.handle_timeout(Instant(60_000));
    let mut ping = Vec::new();
    assert!(machine.take_ping(Instant(60_000), &mut ping));
    assert_eq!(take(&seen), ["> PingReq"]);
}
