//! `record` and `replay`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::bench::{Broker, Printed, Program, Running, free_port, pantala, start};
use crate::relay::{Relay, SUBACK};

struct Scene {
    folder: tempfile::TempDir,
    broker: Broker,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(&Program::pantala("broker"), folder.path(), "allow_anonymous true");
        Self { folder, broker }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A program that subscribes, once it has.
    fn subscribed(&self, program: &str, arguments: impl FnOnce(&Relay) -> Vec<String>) -> Running {
        let relay = Relay::new(self.broker.address);
        let mut command = Program::pantala(program).command();
        command.args(arguments(&relay));
        let running = start(command, self.folder.path(), b"", Some(relay));
        running.wait_for_packet(SUBACK);
        running
    }

    fn record(&self, file: &str, flags: &[&str]) -> Running {
        self.subscribed("record", |relay| {
            let start = [file.to_owned(), format!("mqtt://{}", relay.address)];
            start.into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).collect()
        })
    }

    fn subscribe(&self, flags: &[&str]) -> Running {
        self.subscribed("sub", |relay| {
            let start = ["-h", "127.0.0.1", "-p", &relay.address.port().to_string(), "-V", "5"].map(str::to_owned);
            start.into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).collect()
        })
    }

    fn publish(&self, flags: &[&str], stdin: &[u8]) {
        let port = self.broker.address.port().to_string();
        let arguments = [&["-h", "127.0.0.1", "-p", &port, "-V", "5"], flags].concat();
        pantala(self.folder.path(), "pub", &arguments, stdin).is("", 0);
    }

    fn replay(&self, file: &str, flags: &[&str], stdin: &[u8]) -> Printed {
        let url = format!("mqtt://{}", self.broker.address);
        pantala(self.folder.path(), "replay", &[&[file, &url], flags].concat(), stdin)
    }
}

fn lines(file: impl AsRef<Path>) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const BINARY: &[u8] = b"\x00\xff\xfe\n\x1b";
const FORMAT: &str = "%t|%q|%r|%C|%R|%D|%F|%P|%x";

#[test]
fn what_was_recorded_is_replayed_with_all_that_belongs_to_it() {
    let scene = Scene::new();
    let file = scene.path("recording");
    let recording = scene.record(&file, &["-t", "r/#", "-q", "2", "-C", "4"]);
    scene.publish(&["-t", "r/text", "-m", "grüße \"1\"\n"], b"");
    scene.publish(&["-t", "r/binary", "-q", "1", "-r", "-s"], BINARY);
    let mut properties = vec!["-t", "r/properties", "-q", "2", "-m", "x"];
    for property in [
        &["content-type", "text/plain"][..],
        &["response-topic", "re"],
        &["correlation-data", "data"],
        &["payload-format-indicator", "1"],
        &["message-expiry-interval", "100000"],
        &["user-property", "k", "v"],
        &["user-property", "k", "w"],
    ] {
        properties.extend(["-D", "publish"]);
        properties.extend(property);
    }
    scene.publish(&properties, b"");
    scene.publish(&["-t", "r/empty", "-q", "1", "-n"], b"");
    let printed = recording.end();
    printed.is("", 0);
    assert!(printed.stderr.contains("4 messages recorded"), "{printed:?}");

    let recorded = lines(&file);
    assert_eq!(recorded[0], serde_json::json!({"pantala_recording": 1}));
    assert_eq!(recorded.len(), 5);
    assert_eq!(recorded[1]["ms"], 0);
    assert!(recorded.windows(2).skip(1).all(|pair| pair[0]["ms"].as_u64() <= pair[1]["ms"].as_u64()), "{recorded:?}");
    assert_eq!(recorded[2]["payload_base64"], "AP/+Chs=");

    let expected = format!(
        "copy/r/text|0|0||||||{}\ncopy/r/binary|1|1||||||00fffe0a1b\n\
         copy/r/properties|2|0|text/plain|re|data|1|k:v k:w|78\ncopy/r/empty|1|0||||||\n",
        "6772c3bcc39f65202231220a"
    );
    let sub = scene.subscribe(&["-t", "copy/#", "-q", "2", "-C", "4", "--retain-as-published", "-F", FORMAT]);
    let printed = scene.replay(&file, &["--prefix", "copy/"], b"");
    printed.is("", 0);
    assert!(printed.stderr.contains("4 messages published, 0 failed"), "{printed:?}");
    sub.end().is(&expected, 0);

    // From standard input, without waiting.
    let sub = scene.subscribe(&["-t", "copy/#", "-R", "-q", "2", "-C", "3", "-F", FORMAT]);
    scene.replay("-", &["--prefix", "copy/", "--speed", "max"], &fs::read(&file).unwrap()).is("", 0);
    let printed = sub.end();
    assert_eq!(printed.status, Some(0));
}

#[test]
fn times_are_kept_and_scaled() {
    let scene = Scene::new();
    let file = scene.path("recording");
    let recording = scene.record(&file, &["-t", "r", "-q", "1", "-C", "3"]);
    scene.publish(&["-t", "r", "-q", "1", "-m", "x", "--repeat", "3", "--repeat-delay", "0.3"], b"");
    recording.end().is("", 0);
    let last = lines(&file)[3]["ms"].as_u64().unwrap();
    assert!(last >= 500, "{last} ms");

    let took = |speed: &str, file: &str| {
        let began = Instant::now();
        scene.replay(file, &["--speed", speed], b"").is("", 0);
        began.elapsed()
    };
    assert!(took("1", &file) >= Duration::from_millis(last));
    assert!(took("0.5", &file) >= Duration::from_millis(2 * last));
    // Two days of waiting: to be done at once.
    let file = scene.path("days");
    let line = |ms: u64| format!("{{\"ms\":{ms},\"topic\":\"r\",\"qos\":1,\"retain\":false,\"payload\":\"x\"}}\n");
    fs::write(&file, format!("{{\"pantala_recording\":1}}\n{}{}", line(0), line(172_800_000))).unwrap();
    let duration = took("1000000", &file);
    assert!(duration >= Duration::from_millis(172), "{duration:?}");
    took("max", &file);
}

#[test]
fn what_is_no_recording_is_refused() {
    let scene = Scene::new();
    let message = r#"{"ms":0,"topic":"r","qos":0,"retain":false}"#;
    for (text, words) in [
        ("", "not a recording"),
        ("hello\n", "not a recording"),
        (message, "not a recording"),
        ("\u{fffd}\n", "not a recording"),
        (r#"{"pantala_recording":2}"#, "format 2"),
        ("{\"pantala_recording\":1}\n{\"topic\":\"a\"}\n", "line 2"),
        ("{\"pantala_recording\":1}\n\n", "line 2"),
    ] {
        let file = scene.path("file");
        fs::write(&file, text).unwrap();
        let printed = scene.replay(&file, &[], b"");
        printed.is("", 1);
        assert!(printed.stderr.contains(words), "{text:?}: {printed:?}");
    }
    let file = scene.path("file");
    fs::write(&file, BINARY).unwrap();
    let printed = scene.replay(&file, &[], b"");
    printed.is("", 1);
    let printed = scene.replay("/nonexistent/file", &[], b"");
    assert!(printed.status == Some(1) && printed.stderr.contains("cannot read /nonexistent/file"), "{printed:?}");
}

/// A disk that was full cuts the last line. What stood before it was lost, and so was the goodbye.
#[test]
fn what_stands_before_a_line_that_is_cut_is_replayed() {
    let scene = Scene::new();
    let file = scene.path("cut");
    let line = r#"{"ms":0,"topic":"r","qos":1,"retain":false,"payload":"x"}"#;
    fs::write(&file, format!("{{\"pantala_recording\":1}}\n{}{}", format!("{line}\n").repeat(50), &line[..20]))
        .unwrap();
    let sub = scene.subscribe(&["-t", "r", "-q", "1", "-C", "50"]);
    let printed = scene.replay(&file, &["--speed", "max"], b"");
    printed.is("", 1);
    assert!(
        printed.stderr.contains("line 52: ") && printed.stderr.contains("50 messages published, 0 failed"),
        "{printed:?}"
    );
    sub.end().is("x\n".repeat(50), 0);
}

/// It counted the lines of an error for ever.
#[test]
fn a_folder_is_no_recording() {
    let scene = Scene::new();
    let folder = scene.path("");
    let printed = scene.replay(&folder, &[], b"");
    printed.is("", 1);
    assert!(printed.stderr.contains(&format!("cannot read {folder}: ")), "{printed:?}");
}

#[test]
fn a_file_that_exists_is_not_overwritten() {
    let scene = Scene::new();
    let file = scene.path("precious");
    fs::write(&file, "precious").unwrap();
    let url = format!("mqtt://{}", scene.broker.address);
    let printed = pantala(scene.folder.path(), "record", &[&*file, &url, "-C", "1"], b"");
    printed.is("", 1);
    assert!(printed.stderr.contains("exists; --force overwrites it"), "{printed:?}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let recording = scene.record(&file, &["--force", "-C", "1", "-t", "r"]);
    scene.publish(&["-t", "r", "-m", "x"], b"");
    recording.end().is("", 0);
    assert_eq!(lines(&file).len(), 2);
}

#[test]
fn a_recording_is_ended_by_a_signal_or_after_a_time() {
    let scene = Scene::new();
    for signal in [Signal::INT, Signal::TERM] {
        let recording = scene.record("-", &["-t", "r", "-q", "1"]);
        scene.publish(&["-t", "r", "-m", "x", "-q", "1"], b"");
        recording.wait_for_stdout("\"payload\":\"x\"");
        recording.signal(signal);
        let printed = recording.end();
        assert_eq!(printed.status, Some(0), "{printed:?}");
        assert_eq!(String::from_utf8_lossy(&printed.stdout).lines().count(), 2);
    }
    let recording = scene.record("-", &["-W", "1"]);
    recording.end().is("{\"pantala_recording\":1}\n", 0);
}

#[test]
fn nobody_to_record_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording");
    let url = format!("mqtt://127.0.0.1:{}", free_port());
    let printed = pantala(folder.path(), "record", &[file.to_str().unwrap(), &url], b"");
    printed.is("", 1);
    assert!(printed.stderr.contains(&url), "{printed:?}");
    assert!(!file.exists());
}
