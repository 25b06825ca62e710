//! Mosquitto as a bridge, which is a client here.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::programs;
use crate::sys::{PATIENCE, start};

/// The payload of the first message with this Topic Filter.
fn take(mosquitto_sub: &Path, port: u16, topic_filter: &str) -> String {
    let port = port.to_string();
    let arguments = ["-p", &port, "-t", topic_filter, "-C", "1", "-W", "20", "-F", "%p"];
    let output = Command::new(mosquitto_sub).args(arguments).output().unwrap();
    assert!(output.status.success(), "{topic_filter}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_bridge_connects_says_so_and_passes_messages_both_ways() {
    let test = "a_bridge_connects_says_so_and_passes_messages_both_ways";
    let programs = programs::find(test, ["mosquitto", "mosquitto_pub", "mosquitto_sub"]);
    let Some([mosquitto, mosquitto_pub, mosquitto_sub]) = programs else { return };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (_ours, port) = start(Path::new(env!("CARGO_BIN_EXE_pantala")), &["broker"], folders[0].path(), "");
    for version in ["mqttv311", "mqttv50"] {
        let bridge = format!(
            "connection edge\naddress 127.0.0.1:{port}\nremote_clientid edge-{version}\nbridge_protocol_version {version}\n\
             topic {version}/# both 1\nrestart_timeout 1\nkeepalive_interval 5\n"
        );
        let (theirs, edge) = start(&mosquitto, &[], folders[1].path(), &bridge);
        let state = format!("$SYS/broker/connection/edge-{version}/state");
        // Retained, or live when it connects.
        assert_eq!(take(&mosquitto_sub, port, &state), "1");
        for (from, to, topic) in [(edge, port, "up"), (port, edge, "down")] {
            let topic = format!("{version}/{topic}");
            let port = from.to_string();
            let arguments = ["-p", &port, "-q", "1", "-r", "-t", &topic, "-m", "passed on"];
            assert!(Command::new(&mosquitto_pub).args(arguments).status().unwrap().success());
            assert_eq!(take(&mosquitto_sub, to, &topic), "passed on");
        }
        // Killed: its Will is what is left.
        drop(theirs);
        let deadline = Instant::now() + PATIENCE;
        while take(&mosquitto_sub, port, &state) != "0" {
            assert!(Instant::now() < deadline, "the Will of the bridge has not come");
        }
    }
}
