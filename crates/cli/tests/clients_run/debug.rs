//! `-d`: a line for each packet, the same from Debian's clients and from ours.

use rustix::process::Signal;

use crate::bench::{Broker, Maker, Printed, Program, start, with_each_suite};
use crate::relay::{PUBACK, PUBREL, Relay, SUBACK, UNSUBACK};

/// The lines of `-d`. The messages of `sub` stand between them: ours prints them before it acknowledges, Mosquitto's after.
#[track_caller]
fn lines(printed: &Printed) -> Vec<String> {
    let stdout = String::from_utf8(printed.stdout.clone()).unwrap();
    let is_line = |line: &&str| ["Client ", "Subscribed ", "Received "].iter().any(|word| line.starts_with(word));
    stdout.lines().filter(is_line).map(str::to_owned).collect()
}

#[track_caller]
fn are(printed: &Printed, expected: &str) {
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines(printed), expected, "it said: {}", printed.stderr);
}

#[test]
fn pub_tells_of_each_packet() {
    with_each_suite("pub_tells_of_each_packet", |suite| {
        for version in ["311", "5"] {
            let publish = |more: &[&str]| {
                let arguments = [&["-d", "-V", version, "-i", "me", "-t", "a/ü", "-m", "hello"], more].concat();
                let printed = suite.publish(&arguments);
                assert_eq!((printed.status, printed.stderr.as_str()), (Some(0), ""), "{printed:?}");
                printed
            };
            are(
                &publish(&["-q", "0", "-r"]),
                "Client me sending CONNECT
                Client me received CONNACK (0)
                Client me sending PUBLISH (d0, q0, r1, m1, 'a/ü', ... (5 bytes))
                Client me sending DISCONNECT",
            );
            // Nobody has subscribed.
            let code = if version == "5" { 16 } else { 0 };
            are(
                &publish(&["-q", "1"]),
                &format!(
                    "Client me sending CONNECT
                    Client me received CONNACK (0)
                    Client me sending PUBLISH (d0, q1, r0, m1, 'a/ü', ... (5 bytes))
                    Client me received PUBACK (Mid: 1, RC:{code})
                    Client me sending DISCONNECT"
                ),
            );
            are(
                &publish(&["-q", "2"]),
                "Client me sending CONNECT
                Client me received CONNACK (0)
                Client me sending PUBLISH (d0, q2, r0, m1, 'a/ü', ... (5 bytes))
                Client me received PUBREC (Mid: 1)
                Client me sending PUBREL (m1)
                Client me received PUBCOMP (Mid: 1, RC:0)
                Client me sending DISCONNECT",
            );
        }
        let printed = suite.publish_input(&["-d", "--quiet", "-i", "me", "-t", "t", "-l"], b"1\n22\n");
        are(
            &printed,
            "Client me sending CONNECT
            Client me received CONNACK (0)
            Client me sending PUBLISH (d0, q0, r0, m1, 't', ... (1 bytes))
            Client me sending PUBLISH (d0, q0, r0, m2, 't', ... (2 bytes))
            Client me sending DISCONNECT",
        );
    });
}

#[test]
fn a_client_without_a_name_has_the_one_that_the_broker_gives() {
    with_each_suite("a_client_without_a_name_has_the_one_that_the_broker_gives", |suite| {
        are(
            &suite.publish(&["-d", "-V", "311", "-t", "t", "-n"]),
            "Client (null) sending CONNECT
            Client (null) received CONNACK (0)
            Client (null) sending PUBLISH (d0, q0, r0, m1, 't', ... (0 bytes))
            Client (null) sending DISCONNECT",
        );
        let lines = lines(&suite.publish(&["-d", "-V", "5", "-t", "t", "-n"]));
        assert_eq!(lines[0], "Client (null) sending CONNECT");
        assert!(lines.len() == 4 && lines[1..].iter().all(|line| line.starts_with("Client auto-")), "{lines:?}");
    });
}

#[test]
fn sub_tells_of_each_packet() {
    with_each_suite("sub_tells_of_each_packet", |suite| {
        // One message at a time: those that come together are answered together.
        let exchanges = [
            ("0", "Client s received PUBLISH (d0, q0, r0, m0, 'd/ü', ... (9 bytes))"),
            (
                "1",
                "Client s received PUBLISH (d0, q1, r0, m1, 'd/ü', ... (9 bytes))
                Client s sending PUBACK (m1, rc0)",
            ),
            (
                "2",
                "Client s received PUBLISH (d0, q2, r0, m1, 'd/ü', ... (9 bytes))
                Client s sending PUBREC (m1, rc0)
                Client s received PUBREL (Mid: 1)
                Client s sending PUBCOMP (m1)
                Client s received PUBLISH (d0, q0, r0, m0, 'e/0', ... (3 bytes))",
            ),
        ];
        for (version, (qos, exchange)) in ["311", "5"].into_iter().flat_map(|v| exchanges.map(|exchange| (v, exchange)))
        {
            let flags: &[&str] = if version == "5" { &["--retain-as-published"] } else { &[] };
            let options = if version == "5" { "0x08" } else { "0x00" };
            // QoS 2 is over when the next message has come.
            let count = if qos == "2" { "2" } else { "1" };
            let arguments = ["-V", version, "-i", "s", "-q", "2", "-t", "d/#", "-t", "e/+", "-U", "x", "-U", "y"];
            let sub = suite.subscribed(&[&["-d", "-C", count], &arguments[..], flags].concat());
            sub.wait_for_packet(UNSUBACK);
            suite.published(&["-V", version, "-q", qos, "-t", "d/ü", "-m", "a message"]);
            if qos == "2" {
                sub.wait_for_packet(PUBREL);
                suite.published(&["-t", "e/0", "-m", "end"]);
            }
            are(
                &sub.end(),
                &format!(
                    "Client s sending CONNECT
                    Client s received CONNACK (0)
                    Client s sending SUBSCRIBE (Mid: 1, Topic: d/#, QoS: 2, Options: {options})
                    Client s sending SUBSCRIBE (Mid: 1, Topic: e/+, QoS: 2, Options: {options})
                    Client s sending UNSUBSCRIBE (Mid: 2, Topic: x)
                    Client s sending UNSUBSCRIBE (Mid: 3, Topic: y)
                    Client s received SUBACK
                    Subscribed (mid: 1): 2, 2
                    Client s received UNSUBACK
                    Client s received UNSUBACK
                    {exchange}
                    Client s sending DISCONNECT"
                ),
            );
        }
    });
}

#[test]
fn sub_tells_of_pings_and_of_what_quiet_leaves() {
    with_each_suite("sub_tells_of_pings_and_of_what_quiet_leaves", |suite| {
        let printed = suite.subscribe(&["-d", "--quiet", "-i", "s", "-t", "t", "-k", "6", "-W", "8"]);
        assert_eq!((printed.status, printed.stderr.as_str()), (Some(27), ""));
        are(
            &printed,
            "Client s sending CONNECT
            Client s received CONNACK (0)
            Client s sending SUBSCRIBE (Mid: 1, Topic: t, QoS: 0, Options: 0x00)
            Client s received SUBACK
            Client s sending PINGREQ
            Client s received PINGRESP
            Client s sending DISCONNECT",
        );
    });
}

#[test]
fn rr_tells_of_each_packet() {
    with_each_suite("rr_tells_of_each_packet", |suite| {
        for (version, code) in [("311", 0), ("5", 16)] {
            let arguments = ["-d", "-V", version, "-i", "rr", "-q", "1", "-t", "ask", "-e", "re", "-m", "question"];
            let request = suite.request(&arguments);
            request.wait_for_packet(SUBACK);
            request.wait_for_packet(PUBACK);
            suite.published(&["-q", "1", "-t", "re", "-m", "answer"]);
            let mut printed = request.end();
            assert_eq!(printed.status, Some(0), "{printed:?}");
            // Mosquitto's ends without this line when a response has come.
            let goodbye = b"Client rr sending DISCONNECT\n";
            if let Some(stdout) = printed.stdout.strip_suffix(goodbye) {
                printed.stdout = stdout.to_vec();
            }
            are(
                &printed,
                &format!(
                    "Client rr sending CONNECT
                    Client rr received CONNACK (0)
                    Client rr sending SUBSCRIBE (Mid: 1, Topic: re, QoS: 1, Options: 0x00)
                    Client rr received SUBACK
                    Client rr sending PUBLISH (d0, q1, r0, m2, 'ask', ... (8 bytes))
                    Client rr received PUBACK (Mid: 2, RC:{code})
                    Client rr received PUBLISH (d0, q1, r0, m1, 're', ... (6 bytes))
                    Client rr sending PUBACK (m1, rc0)"
                ),
            );
        }
    });
}

#[test]
fn options_of_subscriptions_are_told_as_they_are_sent() {
    with_each_suite("options_of_subscriptions_are_told_as_they_are_sent", |suite| {
        if suite.clients == Maker::Debian {
            // They have no other handling before 2.1.
            return;
        }
        for (flags, options) in [
            (&[][..], "0x00"),
            (&["--retain-handling", "new"], "0x10"),
            (&["--retain-as-published", "--retain-handling", "never"], "0x28"),
        ] {
            let printed = suite.subscribe(&[&["-d", "-V", "5", "-i", "s", "-t", "t", "-E"], flags].concat());
            let expected = format!("Client s sending SUBSCRIBE (Mid: 1, Topic: t, QoS: 0, Options: {options})");
            assert!(lines(&printed).contains(&expected), "{printed:?}");
        }
    });
}

/// No packet tells of it.
#[test]
fn a_lost_connection_is_told_of_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&Program::pantala("broker"), folder.path(), "allow_anonymous true");
    let running = [&["-d"][..], &["-d", "--quiet"]].map(|flags| {
        let relay = Relay::new(broker.address);
        let mut command = Program::pantala("sub").command();
        command.args(["-t", "t", "-p", &relay.address.port().to_string()]).args(flags);
        let running = start(command, folder.path(), b"", Some(relay));
        running.wait_for_packet(SUBACK);
        running
    });
    drop(broker);
    let [loud, quiet] = running;
    loud.wait_for_stderr("Connection lost: the broker closed the connection; next attempt in ");
    for (running, says) in [(loud, true), (quiet, false)] {
        running.signal(Signal::INT);
        let printed = running.end();
        assert_eq!((printed.status, !printed.stderr.is_empty()), (Some(0), says), "{printed:?}");
    }
}
