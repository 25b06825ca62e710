//! `pantala store`, with what a real broker has left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, DISCONNECT, V311, acknowledgement, connect, publish, taken_apart};
use crate::process::{Broker, Folder};

/// What a command has said, and its status.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    #[track_caller]
    fn with_status(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        self
    }
}

fn command(arguments: &[&str], data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
    command.arg("store").args(arguments).arg("--data-dir").arg(data_dir).env_clear().stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn store(arguments: &[&str], data_dir: &Path) -> Said {
    run(command(arguments, data_dir))
}

fn start(data_dir: &Path) -> Broker {
    Broker::start(&format!("[broker]\nworkers = 2\ndata_dir = \"{}\"\n", data_dir.display()))
}

fn stop(mut broker: Broker) {
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.log());
}

/// CONNECT for a Session that outlives its connection.
fn resume(broker: &Broker, client_id: &str) -> (Client, bool) {
    let mut client = Client::open(broker.address());
    let mut packet = connect(V311, client_id);
    // Without Clean Session.
    packet[9] = 0;
    client.send(&packet);
    let answer = client.packet();
    assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02x?}");
    (client, answer[2] == 1)
}

fn retained(topic_name: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = publish(V311, topic_name, 1, packet_id, payload);
    packet[0] |= 1;
    packet
}

/// A Session that is owed `first` and `second`, and a Retained Message; then the broker is stopped.
fn fill(data_dir: &Path) {
    let broker = start(data_dir);
    let (mut absent, _) = resume(&broker, "absent");
    absent.subscribe("news/#", 1);
    absent.send(&DISCONNECT);
    absent.expect_closed();
    let mut publisher = Client::connect(broker.address(), V311, "publisher");
    for (packet_id, payload) in [(1, "first"), (2, "second")] {
        publisher.send(&publish(V311, "news/now", 1, packet_id, payload.as_bytes()));
        publisher.expect(&acknowledgement(0x40, packet_id));
    }
    publisher.send(&retained("weather", 3, b"\xff fine"));
    publisher.expect(&acknowledgement(0x40, 3));
    stop(broker);
}

/// Starts a broker that has what [`fill`] has left.
#[track_caller]
fn expect_filled(data_dir: &Path) {
    let broker = start(data_dir);
    let (mut absent, is_present) = resume(&broker, "absent");
    assert!(is_present);
    for expected in ["first", "second"] {
        let packet = absent.packet();
        let (qos, packet_id, payload) = taken_apart(V311, &packet);
        assert_eq!((qos, payload), (1, expected.as_bytes()));
        absent.send(&acknowledgement(0x40, packet_id));
    }
    let mut reader = Client::connect(broker.address(), V311, "reader");
    reader.subscribe("weather", 0);
    let packet = reader.packet();
    assert_eq!((packet[0], taken_apart(V311, &packet).2), (0x31, &b"\xff fine"[..]));
    stop(broker);
}

/// Names, lengths and bytes of everything in a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.clone(), fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn a_check_says_what_is_there_and_changes_nothing() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    fill(&data_dir);
    let before = files(&data_dir.join("store"));
    let said = store(&["check"], &data_dir).with_status(0);
    for row in [
        "Sessions           1, 0 of them connected",
        "Subscriptions      1\n",
        "Messages waiting   2: 2 to be sent",
        "Retained Messages  1\n",
        "Unreadable entries 0\n",
        "The store is sound.\n",
    ] {
        assert!(said.stdout.contains(row), "{row} in {}", said.stdout);
    }
    assert_eq!(said.stderr, "");
    store(&["dump"], &data_dir).with_status(0);
    assert!(files(&data_dir.join("store")) == before);
    expect_filled(&data_dir);
}

#[test]
fn a_dump_is_a_line_of_json_for_each_entry() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    fill(&data_dir);
    let all = store(&["dump"], &data_dir).with_status(0).stdout;
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["clock", "session", "subscription", "message", "message", "retained"]);
    assert_eq!((&lines[1]["client_id"], &lines[2]["filter"]), (&"absent".into(), &"news/#".into()));
    assert_eq!(lines[3]["message"]["payload"], "first");
    assert_eq!(lines[3]["receivers"][0]["session"], lines[1]["session"]);
    assert_eq!(lines[5]["message"]["payload_base64"], "/yBmaW5l");
    assert_eq!(store(&["dump"], &data_dir).stdout, all);
    let messages = store(&["dump", "--kind", "message"], &data_dir).with_status(0).stdout;
    assert_eq!(messages.lines().count(), 2);
    assert!(all.contains(&messages));
    let said = store(&["dump", "--kind", "unreadable"], &data_dir).with_status(0);
    assert_eq!(said.stdout, "");
    let said = store(&["dump", "--kind", "nonsense"], &data_dir).with_status(3);
    assert!(said.stderr.contains("subscription"), "{}", said.stderr);
}

#[test]
fn a_store_in_use_is_left_alone() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    let broker = start(&data_dir);
    let copy = folder.path("copy");
    for arguments in [&["check"][..], &["dump"], &["compact"], &["backup", copy.to_str().unwrap()]] {
        let said = store(arguments, &data_dir).with_status(3);
        assert!(said.stderr.contains("in use, by a broker perhaps: stop it first"), "{}", said.stderr);
    }
    assert!(!copy.exists() && !folder.path("copy.partial").exists());
    stop(broker);
}

#[test]
fn where_there_is_no_store_none_is_made() {
    let folder = Folder::new();
    let data_dir = folder.path("nothing");
    for arguments in [&["check"][..], &["dump"], &["compact"], &["backup", "copy"]] {
        let said = store(arguments, &data_dir).with_status(3);
        assert!(said.stderr.contains("there is no store in "), "{}", said.stderr);
    }
    assert!(!data_dir.exists());
}

#[test]
fn the_data_directory_is_found_as_the_broker_finds_it() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    stop(start(&data_dir));
    let config = folder.write("a.toml", &format!("[broker]\ndata_dir = \"{}\"\n", data_dir.display()));
    let plain = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
        command.args(["store", "check"]).env_clear();
        command
    };
    let mut by_file = plain();
    by_file.arg("-c").arg(&config);
    let mut by_variable = plain();
    by_variable.env("PANTALA_DATA_DIR", &data_dir);
    let mut by_home = plain();
    fs::create_dir_all(folder.path("state")).unwrap();
    std::os::unix::fs::symlink(&data_dir, folder.path("state/pantala")).unwrap();
    by_home.env("XDG_STATE_HOME", folder.path("state"));
    for command in [by_file, by_variable, by_home] {
        let said = run(command).with_status(0);
        assert!(said.stdout.contains("The store is sound."), "{}", said.stdout);
    }
    let said = run(plain()).with_status(3);
    assert!(said.stderr.contains("--data-dir names a place"), "{}", said.stderr);
}

#[test]
fn damage_is_found_and_named() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    fill(&data_dir);
    let segment = data_dir.join("store/0000000000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    // In the first frame, behind its header.
    bytes[130] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let before = files(&data_dir.join("store"));
    let said = store(&["check"], &data_dir).with_status(1);
    let damage = "Damage: 0000000000000001.log, byte 88: frames are damaged\nThe store is damaged.\n";
    assert!(said.stdout.ends_with(damage), "{}", said.stdout);
    assert!(said.stderr.contains("docs/store.md"), "{}", said.stderr);
    store(&["dump"], &data_dir).with_status(1);
    assert!(files(&data_dir.join("store")) == before);
    // The broker starts with the rest, and keeps what it found.
    let broker = start(&data_dir);
    let place = format!("{}: 0000000000000001.log, byte 88: frames are damaged\n", data_dir.join("store").display());
    let said = broker.wait_for_log("Damaged data set aside in ");
    assert!(said.contains(&format!("Damaged data set aside in {place}")), "{said}");
    stop(broker);
    let said = store(&["check"], &data_dir).with_status(1);
    assert!(said.stdout.contains("Set aside earlier  0000000000000001.log.damaged\n"), "{}", said.stdout);
    // The damage is gone with what is copied together; the file that was set aside is not.
    store(&["compact"], &data_dir).with_status(1);
    let said = store(&["check"], &data_dir).with_status(0);
    assert!(said.stdout.contains("Set aside earlier  0000000000000001.log.damaged\n"), "{}", said.stdout);
}

#[test]
fn compaction_gives_up_what_is_not_needed() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    fill(&data_dir);
    // Starts and stops leave a segment each.
    for _ in 0..3 {
        let broker = start(&data_dir);
        let mut publisher = Client::connect(broker.address(), V311, "publisher");
        for packet_id in 1..20 {
            publisher.send(&retained("large", packet_id, &[b'x'; 100_000]));
            publisher.expect(&acknowledgement(0x40, packet_id));
        }
        publisher.send(&retained("large", 20, b""));
        publisher.expect(&acknowledgement(0x40, 20));
        stop(broker);
    }
    let segments = || {
        let names = files(&data_dir.join("store")).into_keys();
        names.filter(|path| path.extension().is_some_and(|extension| extension == "log")).count()
    };
    let bytes = || files(&data_dir.join("store")).into_values().map(|bytes| bytes.len()).sum::<usize>();
    let (segments_before, bytes_before) = (segments(), bytes());
    assert!(segments_before > 2);
    let dump = store(&["dump"], &data_dir).stdout;
    let said = store(&["compact"], &data_dir).with_status(0);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[1].contains(&format!("in {segments_before} segments")), "{}", said.stdout);
    assert!(lines[2].contains("in 1 segments"), "{}", said.stdout);
    assert_eq!(segments(), 1);
    assert!(bytes() < bytes_before);
    assert_eq!(store(&["dump"], &data_dir).stdout, dump);
    store(&["check"], &data_dir).with_status(0);
    expect_filled(&data_dir);
}

#[test]
fn a_backup_is_served_by_another_broker() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    fill(&data_dir);
    let copy = folder.path("copy");
    let backup = || store(&["backup", copy.to_str().unwrap()], &data_dir);
    let said = backup().with_status(0);
    assert!(said.stdout.starts_with("Copied ") && said.stdout.contains("with 6 entries"), "{}", said.stdout);
    let said = backup().with_status(1);
    assert!(said.stderr.contains("exists, and is not overwritten"), "{}", said.stderr);
    assert!(!folder.path("copy.partial").exists());
    store(&["check"], &copy).with_status(0);
    assert_eq!(store(&["dump"], &copy).stdout, store(&["dump"], &data_dir).stdout);
    expect_filled(&copy);
    // What the copy has been through since does not concern the original, and it can be put in place of it.
    expect_filled(&data_dir);
    let another = folder.path("another");
    store(&["backup", another.to_str().unwrap()], &data_dir).with_status(0);
    fs::remove_dir_all(data_dir.join("store")).unwrap();
    fs::rename(another.join("store"), data_dir.join("store")).unwrap();
    stop(start(&data_dir));
}

#[test]
fn a_backup_that_cannot_be_finished_leaves_nothing() {
    let folder = Folder::new();
    let data_dir = folder.path("data");
    fill(&data_dir);
    let nowhere = folder.path("missing/copy");
    let said = store(&["backup", nowhere.to_str().unwrap()], &data_dir).with_status(1);
    assert!(said.stderr.contains("cannot copy to "), "{}", said.stderr);
    // One that was killed before.
    fs::create_dir(folder.path("copy.partial")).unwrap();
    let said = store(&["backup", folder.path("copy").to_str().unwrap()], &data_dir).with_status(1);
    assert!(said.stderr.contains("copy.partial exists"), "{}", said.stderr);
    assert!(!folder.path("copy").exists());
}
