//! How programs end: refused, with nobody there, by a signal, by a reader that goes away.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::bench::{Maker, free_port, start, wait_for, with_brokers, with_each_suite};

#[test]
fn a_refusal_is_the_status() {
    // Our broker has no password file yet, and Mosquitto no other hash before 2.1.
    let lines = |folder: &std::path::Path| {
        let file = folder.join("passwords");
        let passwd = ["-H", "sha512-pbkdf2", "-b", "-c", file.to_str().unwrap(), "me", "secret"];
        crate::bench::pantala(folder, "passwd", &passwd, b"").is("", 0);
        format!("allow_anonymous false\npassword_file {}", file.display())
    };
    with_brokers("a_refusal_is_the_status", &[Maker::Debian], lines, |suite| {
        for (version, status) in [("31", 5), ("311", 5), ("5", 135)] {
            let credentials: [(&[&str], i32); 4] = [
                (&[], status),
                (&["-u", "me", "-P", "wrong"], status),
                (&["-u", "you", "-P", "secret"], status),
                (&["-u", "me", "-P", "secret"], 0),
            ];
            for (credentials, status) in credentials {
                let arguments = [&["-V", version, "-t", "a", "-q", "1", "-m", "x"], credentials].concat();
                suite.publish(&arguments).is("", status);
                let arguments = [&["-V", version, "-t", "a", "-E"], credentials].concat();
                suite.subscribe(&arguments).is("", status);
                let arguments = [&["-V", version, "-t", "a", "-e", "a", "-m", "x"], credentials].concat();
                suite.request(&arguments).end().is(if status == 0 { "x\n" } else { "" }, status);
            }
        }
    });
}

#[test]
fn nobody_there() {
    with_each_suite("nobody_there", |suite| {
        let port = free_port().to_string();
        for (program, arguments) in [
            ("pub", &["-t", "a", "-m", "x"][..]),
            ("pub", &["-t", "a", "-m", "x", "-q", "2", "-V", "5"]),
            ("sub", &["-t", "a"]),
            ("sub", &["-t", "a", "-W", "5", "-V", "5"]),
            ("rr", &["-t", "a", "-e", "b", "-m", "x"]),
        ] {
            let printed = suite.run_bare(program, &[&["-h", "127.0.0.1", "-p", &port], arguments].concat());
            printed.is("", 1);
            assert!(printed.stderr.contains("refused"), "{printed:?}");
            let quiet = suite.run_bare(program, &[&["--quiet", "-h", "127.0.0.1", "-p", &port], arguments].concat());
            quiet.is("", 1);
            assert_eq!(quiet.stderr, "");
        }
    });
}

#[test]
fn wrong_flags() {
    with_each_suite("wrong_flags", |suite| {
        for program in ["pub", "sub", "rr"] {
            for arguments in [
                &["--no-such-flag"][..],
                &["-t"],
                &["-t", "a", "-q", "3", "-m", "x"],
                &["-p", "70000", "-t", "a"],
                &["-V", "4", "-t", "a"],
            ] {
                assert_eq!(suite.run_bare(program, arguments).status, Some(1), "{program} {arguments:?}");
            }
        }
    });
}

#[test]
fn signals_end_them_well() {
    with_each_suite("signals_end_them_well", |suite| {
        for signal in [Signal::INT, Signal::TERM] {
            for version in ["311", "5"] {
                suite.published(&["-t", "s", "-r", "-q", "1", "-m", "x"]);
                let sub = suite.subscribed(&["-V", version, "-t", "s", "-q", "1", "-v"]);
                suite.published(&["-t", "s", "-q", "1", "-m", "live"]);
                // Its acknowledgement has come: so has what is in front of it.
                sub.signal(signal);
                assert_eq!(sub.end().status, Some(0));
            }
        }
    });
}

#[test]
fn a_reader_that_has_seen_enough() {
    with_each_suite("a_reader_that_has_seen_enough", |suite| {
        for topic_name in ["h/1", "h/2"] {
            suite.published(&["-t", topic_name, "-r", "-q", "1", "-m", &"x".repeat(100_000)]);
        }
        let status = suite.folder.path().join("status");
        let script = format!(
            "{{ {} -t h/1 -t h/2 -F '%t %p'; echo $? > {}; }} | head -c 4",
            suite.subscribe_words(),
            status.display()
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]);
        start(shell, suite.folder.path(), b"", None).end().is("h/1 ", 0);
        let status = wait_for("the status", || fs::read_to_string(&status).ok().filter(|text| text.ends_with('\n')));
        assert_eq!(status, "0\n");
    });
}
