//! `pub`: payloads, QoS, versions, repetition, properties.

use crate::bench::with_each_suite;

#[test]
fn each_qos_in_each_version() {
    with_each_suite("each_qos_in_each_version", |suite| {
        for version in ["31", "311", "5"] {
            for qos in ["0", "1", "2"] {
                let sub = suite.subscribed(&["-V", version, "-t", "a/b", "-q", "2", "-C", "1", "-F", "%t %q %r %l %p"]);
                suite.published(&["-V", version, "-q", qos, "-t", "a/b", "-m", "hello"]);
                sub.end().is(format!("a/b {qos} 0 5 hello\n"), 0);
            }
        }
    });
}

#[test]
fn payloads_come_from_arguments_files_and_standard_input() {
    with_each_suite("payloads_come_from_arguments_files_and_standard_input", |suite| {
        let binary = b"\x00\x01\xff\n\r\n";
        let sub = suite.subscribed(&["-t", "p/#", "-q", "1", "-C", "7", "-F", "%t %l %x"]);
        suite.published(&["-q", "1", "-t", "p/1", "-m", "argument"]);
        suite.published(&["-q", "1", "-t", "p/2", "-f", &suite.file("payload", binary)]);
        suite.publish_input(&["-q", "1", "-t", "p/3", "-s"], binary).is("", 0);
        // Nothing at all is a mistake of whoever should have written it; an empty file is a payload.
        suite.publish_input(&["-q", "1", "-t", "p/4", "-s"], b"").is("", 1);
        suite.published(&["-q", "1", "-t", "p/4", "-f", &suite.file("empty", "")]);
        suite.published(&["-q", "1", "-t", "p/5", "-n"]);
        suite.published(&["-q", "1", "-t", "p/6", "-m", ""]);
        let large = vec![b'x'; 300_000];
        suite.publish_input(&["-q", "1", "-t", "p/7", "-s"], &large).is("", 0);
        let expected = format!(
            "p/1 8 617267756d656e74\np/2 6 0001ff0a0d0a\np/3 6 0001ff0a0d0a\np/4 0 \np/5 0 \np/6 0 \np/7 300000 {}\n",
            "78".repeat(300_000)
        );
        sub.end().is(expected, 0);
        assert_eq!(suite.publish(&["-t", "p", "-f", "/nonexistent/file"]).status, Some(1));
    });
}

#[test]
fn lines_are_messages() {
    with_each_suite("lines_are_messages", |suite| {
        for qos in ["0", "1", "2"] {
            let sub = suite.subscribed(&["-t", "l", "-q", "2", "-C", "5", "-F", "%l:%p"]);
            suite
                .publish_input(&["-l", "-q", qos, "-t", "l"], b"one\n\ntwo words \r\n\tthree\nlast, without end")
                .is("", 0);
            sub.end().is("3:one\n0:\n11:two words \r\n6:\tthree\n17:last, without end\n", 0);
        }
        // Many, and one that is longer than a buffer.
        let mut input: Vec<String> = (0..1_000).map(|number| format!("line {number}")).collect();
        input.push("y".repeat(100_000));
        let input = input.join("\n") + "\n";
        let sub = suite.subscribed(&["-t", "l", "-q", "1", "-C", "1001"]);
        suite.publish_input(&["-l", "-q", "1", "-t", "l"], input.as_bytes()).is("", 0);
        sub.end().is(input, 0);
        suite.publish_input(&["-l", "-t", "l"], b"").is("", 0);
    });
}

#[test]
fn a_message_is_repeated() {
    with_each_suite("a_message_is_repeated", |suite| {
        for qos in ["0", "1"] {
            let sub = suite.subscribed(&["-t", "r", "-q", "1", "-C", "4"]);
            let began = std::time::Instant::now();
            suite.published(&["-t", "r", "-m", "x", "-q", qos, "--repeat", "3", "--repeat-delay", "0.2"]);
            assert!(began.elapsed() >= std::time::Duration::from_millis(400), "{:?}", began.elapsed());
            suite.published(&["-t", "r", "-m", "end", "-q", qos]);
            sub.end().is("x\nx\nx\nend\n", 0);
        }
    });
}

#[test]
fn properties_arrive() {
    with_each_suite("properties_arrive", |suite| {
        let format = "%t|%C|%R|%D|%F|%E|%P|%p";
        let sub = suite.subscribed(&["-V", "5", "-t", "d", "-q", "1", "-C", "2", "-F", format]);
        let properties = [
            ["content-type", "text/plain"],
            ["response-topic", "re/sponse"],
            ["correlation-data", "corr"],
            ["payload-format-indicator", "1"],
            ["message-expiry-interval", "1000000"],
        ];
        let mut arguments = vec!["-t", "d", "-m", "x", "-q", "1", "-V", "mqttv5"];
        for [name, value] in properties {
            arguments.extend(["-D", "publish", name, value]);
        }
        arguments.extend(["-D", "PUBLISH", "user-property", "k", "v"]);
        arguments.extend(["-D", "publish", "user-property", "k", "w"]);
        suite.published(&arguments);
        suite.published(&["-t", "d", "-m", "bare", "-V", "5"]);
        sub.end().is("d|text/plain|re/sponse|corr|1|1000000|k:v k:w|x\nd||||0||||bare\n".replace("|0||||", "||||"), 0);
    });
}

#[test]
fn several_messages_in_flight_keep_their_order() {
    with_each_suite("several_messages_in_flight_keep_their_order", |suite| {
        let input: String = (0..300).map(|number| format!("{number}\n")).collect();
        // Of more than 20 Mosquitto's broker (2.0) takes no notice.
        for window in ["1", "7", "20"] {
            let sub = suite.subscribed(&["-t", "m", "-q", "2", "-C", "300"]);
            suite.publish_input(&["-l", "-q", "2", "-M", window, "-t", "m"], input.as_bytes()).is("", 0);
            sub.end().is(&input, 0);
        }
    });
}
