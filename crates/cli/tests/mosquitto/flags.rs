//! Which flags mosquitto_pub, mosquitto_sub and mosquitto_rr take and which they refuse.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

use pantala_cli::clients::flags::{Program, Surroundings};
use pantala_cli::clients::{Prepared, prepare};

use crate::programs;

// Ours alone refuses `-D will` without a topic, and an interval of DISCONNECT where CONNECT has none; see docs/clients.md.

/// Whether ours takes the arguments, by what it says.
fn ours(program: Program, arguments: &[&str]) -> Result<(), String> {
    let surroundings =
        Surroundings { variable: &|_| None, read: &|_: &Path| Err(io::ErrorKind::NotFound.into()), process_id: 1 };
    match prepare(program, "program", arguments.iter().map(OsString::from), &surroundings) {
        Ok(Prepared::Text(_)) => panic!("{arguments:?} asks for help"),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether theirs does: then it tries to connect, to a socket that is not there.
fn theirs(program: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .args(["--unix", "/nonexistent/socket"])
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env_remove("HOME")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    if stderr == "Error: No such file or directory\n" { Ok(()) } else { Err(stderr) }
}

fn compare(program: &Path, which: Program, base: &[&str], cases: &[&[&str]]) {
    let mut different = Vec::new();
    for case in cases {
        let arguments = [base, case].concat();
        let (ours, theirs) = (ours(which, &arguments), theirs(program, &arguments));
        if ours.is_ok() != theirs.is_ok() {
            different.push(format!("{arguments:?}: ours {ours:?}, theirs {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn what_mosquitto_takes_is_taken_and_what_it_refuses_is_refused() {
    let name = "what_mosquitto_takes_is_taken_and_what_it_refuses_is_refused";
    let Some([publish, subscribe, request]) = programs::find(name, ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"])
    else {
        return;
    };
    let connection: &[&[&str]] = &[
        &[],
        &["-q", "2"],
        &["-q", "3"],
        &["-q", "-1"],
        &["-q"],
        &["-k", "5"],
        &["-k", "65535"],
        &["-k", "4"],
        &["-k", "0"],
        &["-k", "65536"],
        &["-k", "x"],
        &["-p", "65535"],
        &["-p", "65536"],
        &["-p", "-1"],
        &["-V", "5"],
        &["-V", "mqttv5"],
        &["-V", "311"],
        &["-V", "mqttv311"],
        &["-V", "31"],
        &["-V", "mqttv31"],
        &["-V", "4"],
        &["-V", "3.1.1"],
        &["-V", "MQTTV5"],
        &["-c"],
        &["-c", "-i", "me"],
        &["--disable-clean-session", "--id", "me"],
        &["-i", "a", "-I", "b"],
        &["-I", "b"],
        &["-x", "0", "-V", "5"],
        &["-x", "4294967294", "-i", "a", "-V", "5"],
        &["-x", "4294967295", "-i", "a", "-V", "5"],
        &["-x", "4294967296", "-i", "a", "-V", "5"],
        &["-x", "-1", "-i", "a", "-V", "5"],
        &["-x", "∞", "-i", "a", "-V", "5"],
        &["-x", "-2", "-i", "a", "-V", "5"],
        &["-x", "abc", "-V", "5"],
        &["-x", "-1", "-V", "5"],
        &["-c", "-V", "5"],
        &["-u", "name"],
        &["-u", "name", "-P", "secret"],
        &["-P", "secret", "-V", "31"],
        &["-P", "secret", "-V", "311"],
        &["-P", "secret", "-V", "5"],
        &["--username", "n", "--pw", "s"],
        &["-h", "host", "--port", "1", "--keepalive", "9", "-A", "127.0.0.1", "--nodelay", "-d"],
        &["--will-topic", "w"],
        &["--will-topic", "w/+"],
        &["--will-topic", "w", "--will-payload", "p", "--will-qos", "1", "--will-retain"],
        &["--will-topic", "w", "--will-qos", "3"],
        &["--will-payload", "p"],
        &["--will-retain"],
        &["-D", "connect", "user-property", "a", "b"],
        &["-D", "CONNECT", "receive-maximum", "65535"],
        &["-D", "connect", "receive-maximum", "65536"],
        &["-D", "connect", "receive-maximum", "0"],
        &["-D", "connect", "maximum-packet-size", "1"],
        &["-D", "connect", "topic-alias-maximum", "0"],
        &["-D", "connect", "request-problem-information", "1"],
        &["-D", "connect", "request-problem-information", "5"],
        &["-D", "connect", "request-response-information", "0"],
        &["-D", "connect", "session-expiry-interval", "60"],
        &["-D", "connect", "authentication-method", "m", "-D", "connect", "authentication-data", "d"],
        &["-D", "connect", "content-type", "x"],
        &["-D", "disconnect", "session-expiry-interval", "1", "-x", "5", "-V", "5"],
        &["-D", "disconnect", "reason-string", "why"],
        &["-D", "disconnect", "user-property", "a", "b"],
        &["-D", "publish", "content-type", "x"],
        &["-D", "publish", "correlation-data", "x"],
        &["-D", "publish", "message-expiry-interval", "4294967295"],
        &["-D", "publish", "payload-format-indicator", "1"],
        &["-D", "publish", "response-topic", "r"],
        &["-D", "publish", "user-property", "a", "b", "-D", "publish", "user-property", "a", "c"],
        &["-D", "publish", "will-delay-interval", "1"],
        &["-D", "publish", "no-such-property", "1"],
        &["-D", "publish", "user-property", "a"],
        &["-D", "publish", "content-type"],
        &["-D", "publish"],
        &["-D", "subscribe", "user-property", "a", "b"],
        &["-D", "subscribe", "content-type", "b"],
        &["-D", "unsubscribe", "user-property", "a", "b"],
        &["-D", "will", "content-type", "b", "--will-topic", "w"],
        &["-D", "will", "will-delay-interval", "5", "--will-topic", "w"],
        &["-D", "no-such-command", "content-type", "b"],
        &["--cert", "c"],
        &["--key", "k"],
        &["--proxy", "http://h"],
        &["--no-such-flag"],
        &["-Z"],
        &["-dr"],
        &["word"],
    ];
    compare(&publish, Program::Publish, &["-t", "t", "-m", "m"], connection);
    compare(&subscribe, Program::Subscribe, &["-t", "t"], connection);
    compare(&request, Program::Request, &["-t", "t", "-e", "e", "-m", "m"], connection);

    compare(
        &publish,
        Program::Publish,
        &[],
        &[
            &["-t", "t"],
            &["-m", "m"],
            &["-t", "t", "-m", ""],
            &["-t", "t", "-n"],
            &["-t", "t", "--null-message", "--retain"],
            &["-t", "t", "-m", "m", "-n"],
            &["-t", "t", "-m", "m", "-m", "m"],
            &["-t", "t", "-l", "-s"],
            &["-t", "t/+", "-m", "m"],
            &["-t", "t", "-t", "u", "-m", "m"],
            &["-t", "t", "-m", "m", "-M", "1"],
            &["-t", "t", "-m", "m", "-M", "0"],
            &["-t", "t", "-m", "m", "--repeat", "2", "--repeat-delay", "0.5"],
            &["-t", "t", "-m", "m", "--repeat", "0"],
            &["-t", "t", "-m", "m", "--repeat", "x"],
            &["-t", "t", "-m", "m", "--repeat-delay", "-1"],
            &["-t", "t", "-m", "m", "-C", "1"],
            &["-t", "t", "-m", "m", "-W", "1"],
            &["-t", "t", "-m", "m", "-v"],
            &["-t"],
            &["-m"],
            &["-L", "mqtt://h/t", "-m", "m"],
            &["-L", "mqtt://u:p@h:99/t/u", "-m", "m"],
            &["-L", "http://h/t", "-m", "m"],
            &["-L", "mqtt://h", "-m", "m"],
        ],
    );
    compare(
        &subscribe,
        Program::Subscribe,
        &["-t", "t"],
        &[
            &["-t", "a/#", "-t", "+/b", "-T", "a/+", "-U", "c/#"],
            &["-t", "a/#/b"],
            &["-t", "a+"],
            &["-T", "a/#/b"],
            &["-U", "a/#/b"],
            &["-C", "1"],
            &["-C", "0"],
            &["-C", "x"],
            &["-W", "1"],
            &["-W", "0"],
            &["-W", "-1"],
            &["-E"],
            &["-R"],
            &["-R", "--retained-only"],
            &["--retained-only", "--remove-retained", "--retain-as-published"],
            &["--random-filter", "0.1"],
            &["--random-filter", "100"],
            &["--random-filter", "0"],
            &["--random-filter", "0.05"],
            &["-F", "%t %p", "-v", "-N", "--pretty"],
            &["-F"],
            &["-F", "%z"],
            &["-m", "m"],
            &["-r"],
            &["-l"],
            &["-M", "1"],
            &["-e", "e"],
        ],
    );
    compare(
        &request,
        Program::Request,
        &["-t", "t"],
        &[
            &["-e", "e"],
            &["-m", "m"],
            &["-e", "e", "-n"],
            &["-e", "e", "-m", "m", "-R", "-v", "-N", "-W", "1", "-F", "%p", "--pretty"],
            &["-e", "e/#", "-m", "m"],
            &["-e", "e", "-m", "m", "-l"],
            &["-e", "e", "-m", "m", "-r"],
            &["-e", "e", "-m", "m", "-C", "1"],
            &["-e", "e", "-m", "m", "-T", "t"],
            &["-e", "e", "-m", "m", "-M", "5"],
            &["-e", "e", "-m", "m", "-t", "t/#"],
        ],
    );
}
