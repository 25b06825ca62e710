//! `sub`: which messages are printed, and when it ends.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;

use crate::bench::{Maker, PATIENCE, Suite, wait_for, with_brokers, with_each_suite};
use crate::relay::UNSUBACK;

/// A clean end of the subscriber, when all that was published before has been printed.
const END: &str = "end of the test";

fn anybody(_: &Path) -> String {
    "allow_anonymous true".to_owned()
}

fn publish_end(suite: &Suite, topic_name: &str) {
    // At the Will's QoS: messages of QoS 2 are printed when they are complete, which may be after later ones of QoS 1.
    suite.published(&["-q", "1", "-t", topic_name, "-m", END]);
}

#[test]
fn retained_messages_are_hidden_picked_and_removed() {
    with_each_suite("retained_messages_are_hidden_picked_and_removed", |suite| {
        for topic_name in ["k/1", "k/2"] {
            suite.published(&["-q", "1", "-r", "-t", topic_name, "-m", topic_name]);
        }
        let format = "%t %r %p";
        let hidden = suite.subscribed(&["-R", "-t", "k/#", "-q", "1", "-C", "1", "-F", format]);
        suite.published(&["-q", "1", "-t", "k/3", "-m", "live"]);
        hidden.end().is("k/3 0 live\n", 0);

        // The first message that is not retained ends it.
        let only = suite.subscribed(&["--retained-only", "-t", "k/1", "-t", "k/2", "-q", "1", "-F", format]);
        suite.published(&["-q", "1", "-t", "k/1", "-m", "live"]);
        only.end().is("k/1 1 k/1\nk/2 1 k/2\n", 0);

        // It sees the removals too. Mosquitto's (2.0) hangs with -C, where it is to end after a message it has removed.
        let removing = suite.subscribe(&["--remove-retained", "-t", "k/1", "-t", "k/2", "-W", "3", "-F", format]);
        removing.is("k/1 1 k/1\nk/2 1 k/2\nk/1 0 \nk/2 0 \n", 27);
        suite.subscribe(&["-t", "k/#", "-W", "1"]).is("", 27);

        // By an empty payload too.
        suite.published(&["-q", "1", "-r", "-t", "k/1", "-m", "again"]);
        suite.subscribe(&["-t", "k/#", "-C", "1"]).is("again\n", 0);
        suite.published(&["-q", "1", "-r", "-t", "k/1", "-n"]);
        suite.subscribe(&["-t", "k/#", "-W", "1"]).is("", 27);
    });
}

/// It stood still when more came than it holds: the acknowledgement that it waited for was behind them.
#[test]
fn any_number_of_retained_messages_is_removed() {
    const MESSAGES: usize = 20_000;
    with_brokers("any_number_of_retained_messages_is_removed", &[Maker::Pantala], anybody, |suite| {
        let line = |n| format!("{{\"topic\":\"many/{n}\",\"payload\":\"x\"}}\n");
        let lines: String = (0..MESSAGES).map(line).collect();
        suite.publish_input(&["--json", "-q", "1", "-r"], lines.as_bytes()).is("", 0);
        let removing = suite.subscribed(&["--remove-retained", "-t", "many/#"]);
        let (mut left, mut since) = (MESSAGES, Instant::now());
        while left > 0 {
            let printed = suite.subscribe(&["-t", "many/#", "-F", "%r", "-W", "1"]);
            assert_eq!(printed.status, Some(27), "{}", printed.stderr);
            let now_left = printed.stdout.iter().filter(|byte| **byte == b'1').count();
            if now_left < left {
                (left, since) = (now_left, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{left} are left");
        }
        removing.signal(Signal::INT);
        assert_eq!(removing.end().status, Some(0));
    });
}

#[test]
fn what_is_counted_only_is_removed_too() {
    with_brokers("what_is_counted_only_is_removed_too", &[Maker::Pantala], anybody, |suite| {
        suite.published(&["-q", "1", "-r", "-t", "k/1", "-m", "x"]);
        let counted = suite.subscribe(&["--remove-retained", "--message-rate", "-t", "k/1", "-C", "1"]);
        assert_eq!(counted.status, Some(0), "{}", counted.stderr);
        suite.subscribe(&["-t", "k/#", "-W", "1"]).is("", 27);
    });
}

#[test]
fn retain_as_published_and_retain_handling() {
    with_each_suite("retain_as_published_and_retain_handling", |suite| {
        let sub = |flags: &[&str]| {
            let arguments = [&["-V", "5", "-q", "1", "-t", "ra", "-C", "1", "-F", "%r %p"], flags].concat();
            suite.subscribed(&arguments)
        };
        let (plain, as_published) = (sub(&[]), sub(&["--retain-as-published"]));
        suite.published(&["-V", "5", "-q", "1", "-r", "-t", "ra", "-m", "x"]);
        plain.end().is("0 x\n", 0);
        as_published.end().is("1 x\n", 0);
        if suite.clients == Maker::Debian {
            // They have no other handling before 2.1.
            return;
        }
        suite.subscribe(&["-V", "5", "-t", "ra", "--retain-handling", "never", "-W", "1"]).is("", 27);
        suite.subscribe(&["-V", "5", "-t", "ra", "--retain-handling", "always", "-C", "1"]).is("x\n", 0);
    });
}

#[test]
fn several_filters_and_what_is_filtered_out() {
    with_each_suite("several_filters_and_what_is_filtered_out", |suite| {
        let arguments = ["-t", "f/+/x", "-t", "g", "-T", "f/2/#", "-T", "f/+/y", "-q", "1", "-v", "-C", "3"];
        let sub = suite.subscribed(&arguments);
        for topic_name in ["f/1/x", "f/2/x", "f/1/y", "g", "h", "f/3/x"] {
            suite.published(&["-q", "1", "-t", topic_name, "-m", "m"]);
        }
        sub.end().is("f/1/x m\ng m\nf/3/x m\n", 0);
    });
}

#[test]
fn messages_are_counted_and_printed_as_asked() {
    with_each_suite("messages_are_counted_and_printed_as_asked", |suite| {
        for topic_name in ["o/1", "o/2", "o/3"] {
            suite.published(&["-q", "1", "-r", "-t", topic_name, "-m", topic_name]);
        }
        suite.published(&["-q", "1", "-r", "-t", "empty", "-m", "x"]);
        let of_two: [(&[&str], &str); 6] = [
            (&[], "o/1\no/2\n"),
            (&["-v"], "o/1 o/1\no/2 o/2\n"),
            (&["-N"], "o/1o/2"),
            (&["-N", "-v"], "o/1 o/1o/2 o/2"),
            (&["-F", "[%10t]\\t%l"], "[       o/1]\t3\n[       o/2]\t3\n"),
            (&["-N", "-F", "%q%r"], "0101"),
        ];
        for (flags, expected) in of_two {
            suite.subscribe(&[&["-t", "o/1", "-t", "o/2", "-C", "2"], flags].concat()).is(expected, 0);
        }
        suite.subscribe(&["-t", "o/1", "-C", "1", "-W", "20"]).is("o/1\n", 0);
        suite.subscribe(&["-t", "o/1", "-C", "2", "-W", "1"]).is("o/1\n", 27);
        // No message is printed, though one is there.
        suite.subscribe(&["-t", "o/1", "-E"]).is("", 0);
        if suite.clients == Maker::Pantala {
            // Mosquitto's (2.0) prints nothing at 100 per cent.
            suite.subscribe(&["-t", "o/1", "-C", "1", "--random-filter", "100"]).is("o/1\n", 0);
        }
    });
}

#[test]
fn a_session_keeps_messages_while_nobody_is_there() {
    with_each_suite("a_session_keeps_messages_while_nobody_is_there", |suite| {
        let sessions: [&[&str]; 3] = [
            &["-c", "-i", "keeps-311", "-q", "1"],
            &["-c", "-i", "keeps-5", "-q", "1", "-V", "5"],
            &["-c", "-i", "keeps-x", "-q", "1", "-V", "5", "-x", "60"],
        ];
        for session in sessions {
            let arguments = |more: &[&'static str]| [session, &["-t", "q"], more].concat();
            suite.subscribe(&arguments(&["-E"])).is("", 0);
            for payload in ["1", "2", "3"] {
                suite.published(&["-t", "q", "-q", "1", "-m", payload]);
            }
            suite.subscribe(&arguments(&["-C", "3"])).is("1\n2\n3\n", 0);
            if suite.clients == Maker::Pantala {
                // They are not sent twice. Mosquitto's (2.0) acknowledges only what came before the last that -C counts.
                suite.subscribe(&arguments(&["-W", "1"])).is("", 27);
            }
            // A clean start ends the session.
            suite.subscribe(&["-i", session[2], "-t", "other", "-E"]).is("", 0);
            suite.published(&["-t", "q", "-q", "1", "-m", "lost"]);
            suite.subscribe(&arguments(&["-W", "1"])).is("", 27);
            suite.subscribe(&["-i", session[2], "-t", "other", "-E"]).is("", 0);
        }
        // Without -x a Session of MQTT 5 that began clean is over with the connection.
        suite.subscribe(&["-i", "once", "-V", "5", "-q", "1", "-t", "q", "-E"]).is("", 0);
        suite.published(&["-t", "q", "-q", "1", "-m", "lost"]);
        suite.subscribe(&["-i", "once", "-V", "5", "-c", "-q", "1", "-t", "other", "-W", "1"]).is("", 27);
    });
}

#[test]
fn subscriptions_of_a_session_are_ended_by_unsubscribe() {
    with_each_suite("subscriptions_of_a_session_are_ended_by_unsubscribe", |suite| {
        for version in ["311", "5"] {
            let session = ["-V", version, "-c", "-i", "member", "-q", "1"];
            suite.subscribe(&[&session[..], &["-t", "u/1", "-t", "u/2", "-t", "u/3", "-E"]].concat()).is("", 0);
            let sub =
                suite.subscribed(&[&session[..], &["-U", "u/1", "-U", "u/2", "-t", "u/3", "-v", "-C", "1"]].concat());
            sub.wait_for_packet(UNSUBACK);
            for topic_name in ["u/1", "u/2", "u/3"] {
                suite.published(&["-t", topic_name, "-q", "1", "-m", "x"]);
            }
            sub.end().is("u/3 x\n", 0);
        }
    });
}

#[test]
fn a_client_that_is_killed_leaves_its_will() {
    with_each_suite("a_client_that_is_killed_leaves_its_will", |suite| {
        for version in ["311", "5"] {
            let heir = suite.subscribed(&["-V", "5", "-t", "will/#", "-q", "2", "-C", "2", "-F", "%t %q %r %C %p"]);
            let will = ["--will-topic", "will/1", "--will-payload", "gone", "--will-qos", "1", "--will-retain"];
            let v5: &[&str] = if version == "5" { &["-D", "will", "content-type", "text/plain"] } else { &[] };
            let arguments = [&["-V", version, "-t", "nothing"], &will[..], v5].concat();
            if suite.clients == Maker::Pantala || version == "311" {
                // One that is asked to end says goodbye, and leaves none. Of Mosquitto's (2.0) it is published in MQTT 5.
                let client = suite.subscribed(&arguments);
                client.signal(Signal::TERM);
                client.end().is("", 0);
            }
            publish_end(suite, "will/2");
            let client = suite.subscribed(&arguments);
            client.signal(Signal::KILL);
            assert_eq!(client.end().status, None);
            let content_type = if version == "5" { "text/plain" } else { "" };
            heir.end().is(format!("will/2 1 0  {END}\nwill/1 1 0 {content_type} gone\n"), 0);
            let format = "%t %r %p";
            suite.subscribe(&["-t", "will/1", "-C", "1", "-F", format]).is("will/1 1 gone\n", 0);
            suite.published(&["-t", "will/1", "-r", "-n", "-q", "1"]);
        }
    });
}

#[test]
fn a_filter_that_is_none_is_an_error() {
    with_each_suite("a_filter_that_is_none_is_an_error", |suite| {
        for wrong in ["a/#/b", "a+"] {
            suite.subscribe(&["-t", wrong]).is("", 1);
        }
        for wrong in ["a/#", "a/+"] {
            suite.publish(&["-t", wrong, "-m", "x"]).is("", 1);
        }
    });
}

#[test]
fn options_come_from_a_file() {
    with_each_suite("options_come_from_a_file", |suite| {
        suite.published(&["-t", "file", "-r", "-q", "1", "-m", "x"]);
        let folder = suite.folder.path().join("config");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("mosquitto_sub"), "-t file\n-C 1\n-v\n").unwrap();
        suite.subscribe_in(&folder, &[]).is("file x\n", 0);
    });
}

#[test]
fn payloads_go_into_files_and_nowhere_else() {
    with_each_suite("payloads_go_into_files_and_nowhere_else", |suite| {
        if suite.clients == Maker::Debian {
            return;
        }
        let folder = suite.folder.path().join("payloads");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(suite.folder.path().join("outside"), folder.join("link")).unwrap();
        let long = format!("out/{}", "x".repeat(1_000));
        let arguments =
            ["-t", "out/#", "-t", "../#", "-t", "/etc/#", "-t", "link", "-q", "1", "-C", "7", "--output-dir"];
        let sub = suite.subscribed(&[&arguments[..], &[folder.to_str().unwrap()]].concat());
        for topic_name in ["out/../../b", "out/a", "out/a", "../x", "/etc/passwd", "link", &long] {
            suite.published(&["-q", "1", "-t", topic_name, "-m", topic_name]);
        }
        let printed = sub.end();
        printed.is("", 0);
        assert_eq!(printed.stderr, "Warning: link is no plain file (topic link)\n");
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "link")
            .collect();
        files.sort();
        assert_eq!(files[..4], ["%2E.+x", "+etc+passwd", "out+..+..+b", "out+a"]);
        assert!(files.len() == 5 && files[4].starts_with("out+xxx") && files[4].len() == 255, "{files:?}");
        for (file, topic_name) in files.iter().zip(["../x", "/etc/passwd", "out/../../b", "out/a", &long]) {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), topic_name);
        }
        assert!(!suite.folder.path().join("outside").exists());
        let missing = suite.subscribe(&["-t", "t", "--output-dir", "/nonexistent"]);
        missing.is("", 1);
        assert!(missing.stderr.starts_with("Error: --output-dir /nonexistent: "), "{}", missing.stderr);
    });
}

/// Whoever publishes decides how many topics there are, but neither how many files nor how many warnings.
#[test]
fn files_are_bounded_and_one_warning_says_so() {
    const FILES: usize = 10_000;
    with_brokers("files_are_bounded_and_one_warning_says_so", &[Maker::Pantala], anybody, |suite| {
        let folder = suite.folder.path().join("payloads");
        fs::create_dir(&folder).unwrap();
        let line = |n| format!("{{\"topic\":\"m/{n}\",\"payload\":\"x\"}}\n");
        let lines: String = (0..FILES + 3).map(line).collect();
        // Retained, since the broker waits with these for a subscriber that is slow.
        suite.publish_input(&["--json", "-q", "1", "-r"], lines.as_bytes()).is("", 0);
        let count = (FILES + 3).to_string();
        let arguments = ["-t", "m/#", "-q", "1", "-C", &count, "--output-dir", folder.to_str().unwrap()];
        let sub = suite.subscribed(&arguments);
        let progress = || fs::read_dir(&folder).unwrap().count();
        for files in [FILES / 4, FILES / 2, FILES] {
            wait_for(&format!("{files} files"), || (progress() >= files).then_some(()));
        }
        let printed = sub.end();
        printed.is("", 0);
        let warning = format!("Warning: there are {FILES} files, and no more are made (topic m/");
        assert!(printed.stderr.starts_with(&warning) && printed.stderr.lines().count() == 1, "{}", printed.stderr);
        assert_eq!(progress(), FILES);
    });
}
