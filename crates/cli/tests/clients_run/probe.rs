//! `probe`.

use serde_json::Value;

use crate::bench::{Maker, free_port, pantala, with_each_suite};
use crate::peer::{Peer, SUBSCRIBE, broker_of};

fn answers(json: &[u8]) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|finding| (text(&finding["question"]), text(&finding["answer"]))).collect()
}

#[test]
fn a_broker_is_described() {
    with_each_suite("a_broker_is_described", |suite| {
        if suite.clients == Maker::Debian {
            return;
        }
        let url = format!("mqtt://{}", suite.broker.address);
        let printed = pantala(suite.folder.path(), "probe", &["--json", &url], b"");
        assert_eq!(printed.status, Some(0), "{printed:?}");
        let answers = answers(&printed.stdout);
        let answer = |question: &str| {
            let found = answers.iter().find(|(asked, _)| asked == question);
            &*found.unwrap_or_else(|| panic!("{question} is not in {answers:?}")).1
        };
        for (question, beginning) in [
            ("MQTT 3.1", "yes"),
            ("MQTT 3.1.1", "yes"),
            ("MQTT 5.0", "yes"),
            ("Receive Maximum", "20"),
            ("Maximum QoS", "2"),
            ("Topic Alias Maximum", "10"),
            ("Retain Available", "yes"),
            ("assigned Client Identifier", "yes, as auto-"),
            ("wildcards", "yes, up to QoS 2"),
            ("Shared Subscriptions", "yes, up to QoS 2"),
            ("delivery at QoS 0", "yes, "),
            ("delivery at QoS 1", "yes, "),
            ("delivery at QoS 2", "yes, "),
            ("Retained Messages", "yes"),
            ("Will", "yes, "),
            ("queue for an absent Session", "keeps QoS 1"),
            ("unacknowledged messages after a reconnect", "sent again, with DUP"),
            ("nobody subscribed (PUBACK)", "0x10"),
            ("Message Expiry Interval passed on", "yes"),
            ("No Local", "yes"),
            ("Receive Maximum obeyed", "yes"),
        ] {
            assert!(answer(question).starts_with(beginning), "{question}: {}", answer(question));
        }
        if suite.maker == Maker::Pantala {
            assert_eq!(answer("overlapping subscriptions"), "one copy, at QoS 1");
        }

        let printed = pantala(suite.folder.path(), "probe", &[&url], b"");
        assert_eq!(printed.status, Some(0), "{printed:?}");
        let table = String::from_utf8(printed.stdout).unwrap();
        assert!(table.starts_with(&format!("{url}\n\n")), "{table}");
        for (question, _) in &answers {
            assert!(table.lines().any(|line| line.starts_with(&format!("{question}  "))), "{question}: {table}");
        }
        // Nothing of it stays behind.
        suite.subscribe(&["-t", "pantala/probe/#", "-W", "1"]).is("", 27);
    });
}

#[test]
fn a_broker_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("mqtt://127.0.0.1:{}", free_port());
    for flags in [&[&*url][..], &["--json", &url]] {
        let printed = pantala(folder.path(), "probe", flags, b"");
        printed.is("", 1);
        assert!(printed.stderr.contains(&url) && printed.stderr.contains("refused"), "{printed:?}");
    }
    assert_eq!(pantala(folder.path(), "probe", &["no://such"], b"").status, Some(3));
}

/// It waited for ever.
#[test]
fn a_broker_that_does_not_answer_is_described_too() {
    let folder = tempfile::tempdir().unwrap();
    for silent in [SUBSCRIBE, 0x32] {
        let (port, _broker) = broker_of(move |listener| {
            loop {
                let mut peer = Peer::accept(listener);
                std::thread::spawn(move || {
                    while let Some((first_byte, body)) = peer.next() {
                        match first_byte {
                            SUBSCRIBE if silent != SUBSCRIBE => peer.answer(&[0x90, 3, body[0], body[1], 2]),
                            0xa2 => peer.answer(&[0xb0, 2, body[0], body[1]]),
                            _ => {}
                        }
                    }
                });
            }
        });
        let url = format!("mqtt://127.0.0.1:{port}");
        let printed = pantala(folder.path(), "probe", &["--json", "--answer-timeout", "0.05", &url], b"");
        assert_eq!(printed.status, Some(0), "{printed:?}");
        let answers = answers(&printed.stdout);
        let silences = answers.iter().filter(|(_, answer)| answer.contains("no answer")).count();
        assert!(silences > 4, "{answers:?}");
    }
}
