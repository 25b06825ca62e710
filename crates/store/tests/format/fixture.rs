//! Stores that earlier versions wrote, as they wrote them.
//!
//! `tests/fixtures/v1` was written by the first version of the format, and stays as it is for as long as that can be opened;
//! `v1-users` by a later program of that version, with the kinds that came since.
//! `cargo run -p pantala-store --example write_fixture FOLDER` writes such a one anew, with `users` behind the folder the second: for a later version, beside the old ones.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pantala_store::disk::{Directory, Disk, ReadOnly, SimDisk};
use pantala_store::log::{Batch, Log, LogOptions};
use pantala_store::{
    Durability, Inspection, Kind, Message, Opened, Owner, Receiver, Record, RecoveredMessage, RecoveredOwner, Session,
    Store, StoredMessage, compact, open,
};

use crate::scenario::{OPTIONS, live, live_among_users};

fn fixture(version: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

/// A copy, since opening a store may repair it.
fn copy(version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(version)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn bytes(bytes: &[u8]) -> String {
    let count = bytes.iter().take_while(|byte| **byte == bytes[0]).count();
    match std::str::from_utf8(bytes) {
        Ok(_) if count > 20 => format!("{count} times {:?}", char::from(bytes[0])),
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("{bytes:02x?}"),
    }
}

fn message(message: &Message<'_>) -> String {
    let Message { topic_name, properties, message_expiry_at, payload, qos, retain, expires_at } = message;
    format!(
        "{topic_name:?} QoS {qos} retain {retain} properties {:02x?} expiry at {message_expiry_at:?} expires at {expires_at:?}: {}",
        properties.concat(),
        bytes(payload)
    )
}

fn receiver(receiver: &Receiver) -> String {
    let Receiver { session, qos, retain, order, identifiers, group } = receiver;
    format!("session {session:?} QoS {qos} retain {retain} order {order} identifiers {identifiers:?} group {group:?}")
}

fn waiting<D: Disk>(opened: &Opened<D>, found: &RecoveredMessage) -> String {
    let stored: StoredMessage = opened.stores[0].load(found.id).unwrap();
    assert_eq!(stored.id, Some(found.id));
    format!(
        "{:?}, {} bytes, {}\n      {}",
        found.id,
        found.bytes,
        receiver(&found.receiver),
        message(&stored.message())
    )
}

/// All that was recovered, in words.
fn told<D: Disk>(opened: &Opened<D>) -> String {
    let recovered = &opened.recovered;
    let mut text = format!("clock {:?}\nunreadable {}\n", recovered.clock, recovered.unreadable);
    for session in &recovered.sessions {
        let _ = writeln!(
            text,
            "{:?} {:?} expiry {} detached at {:?}",
            session.number, session.client_id, session.expiry_interval, session.detached_at
        );
        if let Some(will) = &session.will {
            let _ = writeln!(
                text,
                "  will after {} s, for {:?} s\n    {}",
                will.delay_interval,
                will.message_expiry_interval,
                message(&will.message.message())
            );
        }
        for (filter, options, identifier) in &session.subscriptions {
            let _ = writeln!(text, "  subscription {filter:?} options {options:#010b} identifier {identifier:?}");
        }
        let _ = writeln!(text, "  inbound {:?}", session.inbound);
        for exchange in &session.outbound {
            let found = exchange.message.as_ref().map_or("PUBCOMP".into(), |found| waiting(opened, found));
            let _ = writeln!(text, "  outbound {} order {}: {found}", exchange.packet_id, exchange.order);
        }
        for found in &session.queue {
            let _ = writeln!(text, "  queued {}", waiting(opened, found));
        }
    }
    for retained in &recovered.retained {
        let _ = writeln!(text, "retained {:?} {}", retained.message.id, message(&retained.message.message()));
        if let Some(publisher) = &retained.publisher {
            let _ = writeln!(text, "  of {publisher:?}");
        }
    }
    for orphan in &recovered.orphans {
        let _ = writeln!(text, "orphan {:?} {}", orphan.id, receiver(&orphan.receiver));
    }
    text
}

#[test]
fn a_store_of_the_first_version_is_understood() {
    let folder = copy("v1");
    let opened = open(Directory::open(folder.path()).unwrap(), LogOptions::default(), 2, Durability::Fsync).unwrap();
    assert_eq!(opened.report.damages, []);
    assert!(opened.report.segments > 1);
    insta::assert_snapshot!("recovered", told(&opened));
}

#[test]
fn it_has_every_kind_of_entry() {
    let folder = copy("v1");
    let inspection = Inspection::open(ReadOnly::open(folder.path()).unwrap()).unwrap();
    let kinds: BTreeSet<u8> = inspection.keys().unwrap().into_iter().map(|(kind, _)| kind).collect();
    // Later programs of the same version know two more.
    let all = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Owner | Kind::Publisher));
    assert_eq!(kinds, all.map(|kind| kind as u8).collect());
}

#[test]
fn a_store_with_publishers_is_understood() {
    let folder = copy("v1-users");
    let disk = Directory::open(folder.path()).unwrap();
    let opened = open(disk, LogOptions::default(), 2, Durability::Fsync).unwrap();
    assert_eq!(opened.report.damages, []);
    insta::assert_snapshot!("recovered_users", told_in_order(&opened));
    drop(opened);
    let today = SimDisk::new();
    live_among_users(today.clone());
    let opened = open(today, OPTIONS, 2, Durability::Fsync).unwrap();
    insta::assert_snapshot!("recovered_users", told_in_order(&opened));
}

/// Publishers go with their messages; one whose message is another by now is nobody's, as a program leaves it that does not
/// know of publishers.
#[test]
fn a_publisher_is_of_one_message() {
    let disk = SimDisk::new();
    live_among_users(disk.clone());
    let publishers = |disk: &SimDisk| {
        let (log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
        let mut topics = Vec::new();
        log.for_each(|kind, key, _| {
            if kind == Kind::Publisher as u8 {
                topics.push(String::from_utf8(key.to_vec()).unwrap());
            }
        })
        .unwrap();
        topics.sort();
        topics
    };
    assert_eq!(publishers(&disk), ["of/anna", "of/ben", "of/nobody", "to/ben"]);
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    let mut batch = Batch::new();
    let reader = log.reader();
    let value = |kind: Kind, topic: &str| reader.get(kind as u8, topic.as_bytes()).unwrap().unwrap();
    // The message of another topic, and then no message at all.
    batch.put(Kind::Publisher as u8, b"of/anna", &[&value(Kind::Publisher, "of/ben")]);
    batch.delete(Kind::Retained as u8, b"of/nobody");
    drop(reader);
    log.commit(&mut batch, true).unwrap();
    drop(log);
    let mut opened = open::<_, StoredMessage>(disk.clone(), OPTIONS, 1, Durability::Fsync).unwrap();
    let known: Vec<_> = opened.recovered.retained.iter().filter(|it| it.publisher.is_some()).collect();
    let topics: BTreeSet<&str> = known.iter().map(|it| it.message.message().topic_name).collect();
    // One of both entries of ben's message is the right one.
    assert!(topics.is_subset(&BTreeSet::from(["of/ben", "to/ben"])) && topics.contains("to/ben"), "{topics:?}");
    let clock = opened.recovered.clock.unwrap();
    opened.committer.step(clock, &mut |notice| panic!("{notice:?}"));
    drop(opened);
    assert!(publishers(&disk).len() <= 2);
}

/// As they are found is as they hash.
fn told_in_order<D: Disk>(opened: &Opened<D>) -> String {
    let text = told(opened);
    let mut parts: Vec<&str> = text.split("retained ").collect();
    parts[1..].sort_unstable();
    parts.join("retained ")
}

/// If this fails and the test before does not, the store is written in another way than it was.
#[test]
fn a_store_of_today_says_the_same() {
    let disk = SimDisk::new();
    live(disk.clone());
    let opened = open(disk, OPTIONS, 2, Durability::Fsync).unwrap();
    insta::assert_snapshot!("recovered", told(&opened));
}

#[test]
fn a_look_changes_nothing() {
    let folder = copy("v1");
    // What opening it to write would repair.
    let name = folder.path().join("0000000000000001.log");
    let mut torn = fs::read(&name).unwrap();
    torn[200] ^= 1;
    fs::write(&name, &torn).unwrap();
    let before = list(folder.path());
    let inspection = Inspection::open(ReadOnly::open(folder.path()).unwrap()).unwrap();
    assert_eq!(inspection.report.damages.len(), 1);
    inspection.recovered().unwrap();
    assert_eq!(list(folder.path()), before);
}

fn list(folder: &Path) -> BTreeSet<(std::ffi::OsString, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect()
}

#[test]
fn compaction_deletes_what_nothing_refers_to_and_leaves_the_rest() {
    let disk = SimDisk::new();
    live(disk.clone());
    let compacted = compact(disk.clone(), OPTIONS, |_, _| {}).unwrap();
    assert!(compacted.deleted > 3, "{compacted:?}");
    assert!(compacted.after.live_entries + compacted.deleted == compacted.before.live_entries);
    let opened = open::<_, StoredMessage>(disk.clone(), OPTIONS, 2, Durability::Fsync).unwrap();
    let was = SimDisk::new();
    live(was.clone());
    let told_before = told(&open(was, OPTIONS, 2, Durability::Fsync).unwrap());
    assert_eq!(told(&opened), told_before);
    drop(opened);
    assert_eq!(compact(disk, OPTIONS, |_, _| {}).unwrap().deleted, 0);
}

#[test]
fn a_session_comes_back_with_the_user_that_it_belongs_to() {
    let disk = SimDisk::new();
    live(disk.clone());
    let mut opened = open::<_, StoredMessage>(disk.clone(), OPTIONS, 1, Durability::Fsync).unwrap();
    let numbers: Vec<_> = opened.recovered.sessions.iter().map(|session| session.number).collect();
    assert!(opened.recovered.sessions.iter().all(|session| session.owner.is_none()));
    let [whose, given_up] = numbers[..2] else { panic!("two Sessions were to be there") };
    let ended = opened.stores[0].next_session().unwrap();
    let session = Session { number: ended, client_id: "brief", expiry_interval: 1, detached_at: None };
    opened.stores[0].append(&Record::Session(session));
    let owner = Some(Owner { security_domain: "plant", user_name: "anna ☕" });
    for session in [whose, given_up, ended] {
        opened.stores[0].append(&Record::Owner { session, owner });
    }
    opened.stores[0].append(&Record::Owner { session: given_up, owner: None });
    opened.stores[0].append(&Record::SessionEnded { session: ended });
    opened.stores[0].submit();
    let clock = opened.recovered.clock.unwrap();
    // The first step deletes what was left over.
    while opened.stores[0].durable() < opened.stores[0].appended() {
        opened.committer.step(clock, &mut |notice| panic!("{notice:?}"));
    }
    drop(opened);
    let opened = open::<_, StoredMessage>(disk.clone(), OPTIONS, 1, Durability::Fsync).unwrap();
    let owners: Vec<_> = opened.recovered.sessions.iter().map(|it| (it.number, it.owner.clone())).collect();
    let mut expected: Vec<_> = numbers.into_iter().map(|number| (number, None)).collect();
    expected[0].1 = Some(RecoveredOwner { security_domain: "plant".into(), user_name: "anna ☕".into() });
    assert_eq!(owners, expected);
    drop(opened);
    let (log, _) = Log::open(disk, OPTIONS).unwrap();
    let mut kept = 0;
    log.for_each(|kind, _, _| kept += u32::from(kind == Kind::Owner as u8)).unwrap();
    assert_eq!(kept, 1);
}

#[test]
fn an_entry_of_an_unknown_kind_is_counted_and_left_as_it_is() {
    let disk = SimDisk::new();
    live(disk.clone());
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    let mut batch = Batch::new();
    batch.put(200, b"of tomorrow", &[b"value"]);
    log.commit(&mut batch, true).unwrap();
    drop(log);
    let opened = open::<_, StoredMessage>(disk.clone(), OPTIONS, 2, Durability::Fsync).unwrap();
    assert_eq!(opened.recovered.unreadable, 1);
    drop(opened);
    compact(disk.clone(), OPTIONS, |_, _| {}).unwrap();
    let (log, _) = Log::open(disk, OPTIONS).unwrap();
    assert_eq!(log.reader().get(200, b"of tomorrow").unwrap().unwrap(), b"value");
}
