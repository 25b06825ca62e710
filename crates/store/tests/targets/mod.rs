//! What the fuzz targets check, as plain functions: `fuzz/` feeds them what a fuzzer makes up, `corpus.rs` beside this folder the
//! kept inputs, and both fail by a panic.

use std::collections::BTreeMap;

use pantala_store::disk::{Disk, SimDisk};
use pantala_store::log::{Batch, Log, LogOptions, OpenError};
use pantala_store::{Clock, Durability, Entry, Opened, Pause, Recovered, Store, StoredMessage, open};

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
#[allow(dead_code, reason = "the fuzz targets are one program each")]
pub const ALL: [Target; 2] = [("store_entries", store_entries), ("store_log", store_log)];

/// As small as it may be.
pub const OPTIONS: LogOptions = LogOptions { segment_bytes: 4_096, segments_min: 3 };
/// What a file of an input is filled up to with zeros, as segments are.
const SEGMENT_BYTES_MAX: u32 = 16_384;

/// What is in a log.
type Contents = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

fn contents<D: Disk>(log: &Log<D>) -> Contents {
    let mut contents = Contents::new();
    log.for_each(|kind, key, value| assert!(contents.insert((kind, key.to_vec()), value.to_vec()).is_none()))
        .expect("it can be read");
    contents
}

// ---- store_entries --------------------------------------------------------------------------------------------------

/// Appends an entry as [`store_entries`] has it.
#[allow(dead_code, reason = "for seeds")]
pub fn push_entry(input: &mut Vec<u8>, kind: u8, key: &[u8], value: &[u8]) {
    input.extend([kind, key.len() as u8, value.len() as u8]);
    input.extend(key);
    input.extend(value);
}

/// Entries, each with its kind, the lengths of its key and its value, and these: a store that has them in its log, whatever they are,
/// is opened and goes on; and when it is opened again, what it did not understand is still there, and all else is as it was.
pub fn store_entries(input: &[u8]) {
    let disk = SimDisk::new();
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).expect("an empty disk");
    let (mut batch, mut rest) = (Batch::new(), input);
    while let [kind, key, value, after @ ..] = rest {
        let Some((key, after)) = after.split_at_checked((*key).into()) else { break };
        let Some((value, after)) = after.split_at_checked((*value).into()) else { break };
        if let Some(entry) = Entry::read(*kind, key, value) {
            assert_eq!(entry.kind() as u8, *kind);
        }
        batch.put(*kind, key, &[value]);
        rest = after;
    }
    log.commit(&mut batch, true).expect("it has room");
    drop(log);

    let mut opened = opened(&disk);
    let found = shown(&opened.recovered);
    for session in &opened.recovered.sessions {
        let sent = session.outbound.iter().filter_map(|exchange| exchange.message.as_ref());
        for message in session.queue.iter().chain(sent) {
            let loaded = opened.stores[0].load(message.id).expect("it is owed");
            let loaded = loaded.message();
            assert_eq!(loaded.expires_at, message.expires_at);
            let bytes = loaded.topic_name.len() + loaded.properties.concat().len() + loaded.payload.len();
            assert_eq!(bytes, message.bytes as usize);
        }
    }
    step(&mut opened);
    drop(opened);
    let mut again = self::opened(&disk);
    assert_eq!(shown(&again.recovered), found);
    // Nothing is left to be tidied up.
    let before = disk.counts().bytes;
    step(&mut again);
    assert_eq!(disk.counts().bytes, before);
}

fn opened(disk: &SimDisk) -> Opened<SimDisk> {
    let opened: Opened<_> = open(disk.clone(), OPTIONS, 2, Durability::Fsync).expect("it can be opened");
    assert!(opened.report.damages.is_empty() && opened.report.torn_bytes == 0, "{:?}", opened.report);
    opened
}

/// Lets the store do what it has to do at once.
fn step(opened: &mut Opened<SimDisk>) {
    let mut steps = 0;
    while opened.committer.step(Clock { broker: 1, wall: 1 }, &mut |notice| panic!("{notice:?}")) != Pause::Idle {
        steps += 1;
        assert!(steps < 10_000, "it never ends");
    }
}

/// All that says what the broker begins with. The clock goes on.
fn shown(recovered: &Recovered<StoredMessage>) -> String {
    let Recovered { sessions, retained, orphans, unreadable, .. } = recovered;
    let mut retained: Vec<_> = retained.iter().map(|retained| format!("{retained:?}")).collect();
    retained.sort_unstable();
    let mut orphans: Vec<_> = orphans.iter().map(|orphan| format!("{orphan:?}")).collect();
    orphans.sort_unstable();
    format!("{sessions:?}\n{retained:?}\n{orphans:?}\n{unreadable}")
}

// ---- store_log ------------------------------------------------------------------------------------------------------

/// Appends a file as [`store_log`] has it.
#[allow(dead_code, reason = "for seeds")]
pub fn push_file(input: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    input.push(number);
    input.extend((bytes.len() as u16).to_le_bytes());
    input.extend(bytes);
}

/// Two bits of a byte, 1 for headers and 2 for frames whose checksums are to be made right, then segments, each with its number, its
/// length and its bytes: whatever they are, the log is opened or is of a later version, all that is in it stays, and what is written to it
/// is there after a power cut.
pub fn store_log(input: &[u8]) {
    let [right, rest @ ..] = input else { return };
    let disk = SimDisk::new();
    let mut rest = rest;
    while let [number, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (bytes, after) = after.split_at(length);
        // The last number that there can be is one of them.
        let number = if *number == 255 { u32::MAX } else { u32::from(*number) };
        disk.overwrite(&format!("{number:016}.log"), segment(bytes, *right));
        rest = after;
    }
    let (log, report) = match Log::open(disk.clone(), OPTIONS) {
        Ok(opened) => opened,
        Err(OpenError::Version { version, .. }) => return assert_ne!(version, 1),
        Err(error) => panic!("{error}"),
    };
    let found = contents(&log);
    assert_eq!(report.live_entries, found.len() as u64);
    for ((kind, key), value) in &found {
        assert_eq!(log.reader().get(*kind, key).expect("it can be read").as_ref(), Some(value));
    }
    drop(log);
    // What has been repaired holds the same.
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).expect("as before");
    assert_eq!(contents(&log), found);

    let mut expected = found;
    for number in 0..3_u8 {
        let mut batch = Batch::new();
        batch.put(200, &[number], &[&[number; 1_500]]);
        match log.commit(&mut batch, true) {
            Ok(()) => drop(expected.insert((200, vec![number]), vec![number; 1_500])),
            Err(error) => {
                // Nothing can be written behind the last number; what is there stays.
                assert!(error.to_string().contains("are used up"), "{error}");
                drop(log);
                let (log, _) = Log::open(disk, OPTIONS).expect("as before");
                return assert_eq!(contents(&log), expected);
            }
        }
    }
    assert_eq!(contents(&log), expected);
    drop(log);
    let disk = disk.crash(u64::from(*right));
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).expect("as before");
    assert_eq!(contents(&log), expected);
    if let Err(error) = log.compact(|_, _| {}) {
        return assert!(error.to_string().contains("are used up"), "{error}");
    }
    assert_eq!(contents(&log), expected);
    drop(log);
    let (log, report) = Log::open(disk, OPTIONS).expect("as before");
    assert_eq!(contents(&log), expected);
    assert_eq!(report.damages, [], "all of it has been copied");
}

/// The file, with checksums that are right where that is wished, and as long as its header says.
fn segment(bytes: &[u8], right: u8) -> Vec<u8> {
    const HEADER: usize = 88;
    let mut bytes = bytes.to_vec();
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map_or(0, |number| u32::from_le_bytes(number.try_into().expect("four bytes")))
    };
    if !bytes.starts_with(b"PANTALOG") || bytes.len() < HEADER {
        return bytes;
    }
    let length = number(&bytes, 12).min(SEGMENT_BYTES_MAX) as usize;
    if bytes.len() < length {
        bytes.resize(length, 0);
    }
    if right & 1 > 0 {
        let checksum = crc32(&[&bytes[..84]]);
        bytes[84..HEADER].copy_from_slice(&checksum.to_le_bytes());
    }
    let mark = bytes[24..32].to_vec();
    let mut at = HEADER;
    while right & 2 > 0 && at + 32 <= bytes.len() {
        let end = at + 32 + number(&bytes, at + 16) as usize;
        if bytes[at..at + 8] != mark[..] || end > bytes.len() {
            at += 1;
            continue;
        }
        let checksum = crc32(&[&bytes[at..at + 28], &bytes[at + 32..end]]);
        bytes[at + 28..at + 32].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
    bytes
}

/// CRC-32.
fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize()
}
