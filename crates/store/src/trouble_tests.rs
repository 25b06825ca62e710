//! Several workers, and disks that do not do what they should.

use std::io::ErrorKind;

use crate::disk::{Disk, DiskFile, Operation, SimDisk};
use crate::log::LogOptions;
use crate::{
    Clock, Durability, Health, LoadError, Message, MessageId, Notice, Opened, Pause, Publish, Receiver, Record,
    SessionNumber, Store, open,
};

const OPTIONS: LogOptions = LogOptions { segment_bytes: 64 * 1024, segments_min: 4 };
const HOUR: u64 = 3_600_000;

fn opened(disk: &SimDisk) -> Opened<SimDisk> {
    open(disk.clone(), OPTIONS, 2, Durability::Fsync).unwrap()
}

fn message<'a>(topic_name: &'a str, payload: &'a [u8]) -> Message<'a> {
    let (properties, message_expiry_at, expires_at) = ([&[][..], &[]], None, None);
    Message { topic_name, properties, message_expiry_at, payload, qos: 1, retain: false, expires_at }
}

/// A Retained Message of a worker's.
fn retain(opened: &mut Opened<SimDisk>, worker: usize, id: MessageId, topic_name: &str, others: u32) {
    let payload = id.number().to_be_bytes();
    opened.stores[worker].append(&Record::Publish(Publish {
        id,
        message: message(topic_name, &payload),
        receivers: &[],
        others,
        opens: None,
        will_of: None,
        retained: true,
        publisher: None,
    }));
}

/// A message that waits for a Session.
fn queue(opened: &mut Opened<SimDisk>, session: SessionNumber, payload: &[u8]) -> MessageId {
    let store = &mut opened.stores[0];
    let id = store.next_message().unwrap();
    let receiver = Receiver { session, qos: 1, retain: false, order: 0, identifiers: Vec::new(), group: None };
    store.append(&Record::Publish(Publish {
        id,
        message: message("t", payload),
        receivers: &[receiver],
        others: 0,
        opens: None,
        will_of: None,
        retained: false,
        publisher: None,
    }));
    id
}

/// Until there is nothing to do, or no sense in it.
fn commit(opened: &mut Opened<SimDisk>, clock: Clock) -> Vec<Notice> {
    opened.stores.iter_mut().for_each(Store::submit);
    let mut notices = Vec::new();
    while opened.committer.step(clock, &mut |notice| notices.push(notice)) == Pause::None {}
    notices
}

fn retained_messages(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let mut retained: Vec<_> = opened(disk)
        .recovered
        .retained
        .iter()
        .map(|retained| {
            let message = retained.message.message();
            (message.topic_name.to_owned(), message.payload.to_vec())
        })
        .collect();
    retained.sort();
    retained
}

/// The first one always had enough for a batch, and the second one's answers did not come for as long as that went on.
#[test]
fn a_worker_with_much_to_write_does_not_keep_another_waiting() {
    let mut opened = opened(&SimDisk::new());
    let session = opened.stores[0].next_session().unwrap();
    for _ in 0..8 {
        queue(&mut opened, session, &[0; 1 << 20]);
    }
    let id = opened.stores[1].next_message().unwrap();
    retain(&mut opened, 1, id, "t", 0);
    opened.stores.iter_mut().for_each(Store::submit);
    assert_eq!(opened.committer.step(Clock::default(), &mut |notice| panic!("{notice:?}")), Pause::None);
    assert_eq!(opened.stores[1].durable(), opened.stores[1].appended());
    assert!(opened.stores[0].durable() < opened.stores[0].appended());
}

/// The second worker's record comes when nobody remembers that its topic has had a later message, in a batch of its own or in one
/// with all the others.
#[test]
fn an_older_retained_message_does_not_come_back_however_late_it_is_written() {
    for at_once in [false, true] {
        let disk = SimDisk::new();
        let mut opened = opened(&disk);
        let old = opened.stores[1].next_message().unwrap();
        let new = opened.stores[0].next_message().unwrap();
        retain(&mut opened, 0, new, "t", 0);
        if !at_once {
            commit(&mut opened, Clock::default());
        }
        for number in 0..20_000 {
            let id = opened.stores[0].next_message().unwrap();
            retain(&mut opened, 0, id, &format!("other/{number}"), 0);
            if !at_once && number % 1_000 == 0 {
                commit(&mut opened, Clock::default());
            }
        }
        retain(&mut opened, 1, old, "t", 0);
        commit(&mut opened, Clock::default());
        drop(opened);
        let retained = retained_messages(&disk);
        assert_eq!(retained.len(), 20_001);
        assert_eq!(retained.last(), Some(&("t".to_owned(), new.number().to_be_bytes().to_vec())));
    }
}

/// Of a Retained Message that is ended the log has nothing, so whoever has a later end in mind has to keep it there.
#[test]
fn a_retained_message_that_was_ended_does_not_come_back_however_late_an_older_one_is_written() {
    let disk = SimDisk::new();
    let mut opened = opened(&disk);
    let id = opened.stores[1].next_message().unwrap();
    // More than a batch before it.
    let session = opened.stores[1].next_session().unwrap();
    for _ in 0..30 {
        let store = &mut opened.stores[1];
        let big = store.next_message().unwrap();
        let receiver = Receiver { session, qos: 1, retain: false, order: 0, identifiers: Vec::new(), group: None };
        store.append(&Record::Publish(Publish {
            id: big,
            message: message("t", &[0; 1 << 19]),
            receivers: &[receiver],
            others: 0,
            opens: None,
            will_of: None,
            retained: false,
            publisher: None,
        }));
    }
    retain(&mut opened, 1, id, "t", 0);
    let end = opened.stores[0].next_message().unwrap();
    let publish = Publish {
        id: end,
        message: message("t", b""),
        receivers: &[],
        others: 0,
        opens: None,
        will_of: None,
        retained: true,
        publisher: None,
    };
    opened.stores[0].append(&Record::Publish(publish));
    opened.stores.iter_mut().for_each(Store::submit);
    let step = |opened: &mut Opened<SimDisk>| {
        opened.stores[0].submit();
        opened.committer.step(Clock::default(), &mut |notice| panic!("{notice:?}"))
    };
    for round in 0..10 {
        for number in 0..3_000 {
            let id = opened.stores[0].next_message().unwrap();
            retain(&mut opened, 0, id, &format!("other/{round}/{number}"), 0);
        }
        assert_eq!(step(&mut opened), Pause::None);
    }
    assert!(opened.stores[1].durable() < opened.stores[1].appended());
    while step(&mut opened) == Pause::None {}
    assert_eq!(opened.stores[1].durable(), opened.stores[1].appended());
    drop(opened);
    let retained = retained_messages(&disk);
    assert_eq!(retained.len(), 30_000);
    assert_ne!(retained.last().unwrap().0, "t");
}

/// Who keeps the Retained Messages of a topic has no room for one, and says so before the store has it.
#[test]
fn a_retained_message_that_was_ended_before_it_was_written_stays_ended() {
    let disk = SimDisk::new();
    let mut opened = opened(&disk);
    let id = opened.stores[1].next_message().unwrap();
    retain(&mut opened, 1, id, "t", 1);
    opened.stores[0].append(&Record::RetainedEnded { topic_name: "t", message: id });
    commit(&mut opened, Clock::default());
    opened.stores[0].add_receivers(id, Vec::new());
    commit(&mut opened, Clock::default());
    assert_eq!(opened.stores[0].durable(), opened.stores[0].appended());
    drop(opened);
    assert_eq!(retained_messages(&disk), []);
}

/// What came after a failure was kept in memory, until workers read no more from anybody.
#[test]
fn a_disk_that_has_failed_holds_nobody_up() {
    let disk = SimDisk::new();
    disk.fail_at(Operation::Sync, 1, ErrorKind::Other);
    let mut opened = opened(&disk);
    let session = opened.stores[0].next_session().unwrap();
    queue(&mut opened, session, b"lost");
    assert!(matches!(commit(&mut opened, Clock::default())[..], [Notice::Failed(_)]));
    for _ in 0..80 {
        queue(&mut opened, session, &[0; 1 << 20]);
        assert_eq!(commit(&mut opened, Clock::default()).len(), 0);
        assert!(!opened.stores[0].is_crowded());
    }
    assert_eq!((opened.stores[0].health(), opened.stores[0].durable().0), (Health::Failed, 0));
}

/// A Session whose client was there all the time counted as left alone since the disk had failed.
#[test]
fn time_goes_on_while_nothing_can_be_written() {
    let clock = Clock { broker: 1_000, wall: 500_000 };
    let later = |hours: u64| Clock { broker: clock.broker + hours * HOUR, wall: clock.wall + hours * HOUR };
    for full in [false, true] {
        let disk = SimDisk::new();
        let mut opened = opened(&disk);
        let session = opened.stores[0].next_session().unwrap();
        queue(&mut opened, session, b"before");
        commit(&mut opened, clock);
        if full {
            disk.full(Some(disk.bytes()));
        } else {
            disk.fail_at(Operation::Sync, disk.counts().syncs + 1, ErrorKind::Other);
        }
        for hour in 0..6 {
            queue(&mut opened, session, &[0; 60_000]);
            commit(&mut opened, later(hour));
        }
        assert_ne!(opened.stores[0].health(), Health::Working);
        drop(opened);
        disk.full(None);
        let recovered = self::opened(&disk).recovered;
        assert_eq!(recovered.clock.unwrap().lived(recovered.last_alive, later(6).wall, u64::MAX), later(5));
    }
}

#[test]
fn what_cannot_be_read_now_is_told_from_what_is_damaged() {
    let disk = SimDisk::new();
    let mut opened = opened(&disk);
    let session = opened.stores[0].next_session().unwrap();
    let id = queue(&mut opened, session, b"payload");
    commit(&mut opened, Clock::default());
    disk.fail_reads(Some(ErrorKind::Other));
    assert_eq!(opened.stores[0].load(id), Err(LoadError::Unreadable));
    disk.fail_reads(None);
    assert_eq!(opened.stores[0].load(id).unwrap().message().payload, b"payload");
    let name = "0000000000000001.log";
    let zeros = vec![0; disk.read(name).unwrap().len()];
    disk.open(name).unwrap().write_at(0, &zeros).unwrap();
    assert_eq!(opened.stores[0].load(id), Err(LoadError::Damaged));
}

/// A bad place in an old file closed the log for all that is new.
#[test]
fn an_old_segment_that_cannot_be_read_stops_cleaning_and_nothing_else() {
    let disk = SimDisk::new();
    let mut opened = opened(&disk);
    let session = opened.stores[0].next_session().unwrap();
    let mut waiting = Vec::new();
    let mut notices = Vec::new();
    let mut round = |opened: &mut Opened<SimDisk>, waiting: &mut Vec<MessageId>| {
        for _ in 0..8 {
            waiting.push(queue(opened, session, &[0; 4_000]));
        }
        notices.extend(commit(opened, Clock::default()));
        // One in eight stays, so that cleaning has something to copy.
        for id in waiting.extract_if(.., |id| id.count() % 8 != 0) {
            opened.stores[0].append(&Record::Settled { session, message: Some(id), copy: 0, packet_id: None });
        }
        notices.extend(commit(opened, Clock::default()));
    };
    for _ in 0..4 {
        round(&mut opened, &mut waiting);
    }
    disk.fail_reads(Some(ErrorKind::Other));
    for _ in 0..100 {
        round(&mut opened, &mut waiting);
    }
    assert!(matches!(notices[..], [Notice::Cleaning(_)]), "{notices:?}");
    assert_eq!(opened.stores[0].durable(), opened.stores[0].appended());
}
