//! Readers in other threads, and copies of a log in use.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use pantala_store::disk::{Directory, Disk, SimDisk};
use pantala_store::log::{Batch, Log, Reader};

use crate::model::{Bench, OPTIONS, Random, State, value};

const KEYS: u64 = 50;

/// Reads until told to stop; each value has to be one that the key has had, and never an older one than before.
fn read_on<F: pantala_store::disk::DiskFile>(reader: &Reader<F>, seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = Random(seed);
    let mut versions = vec![0; KEYS as usize];
    let mut found = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = random.below(KEYS);
        let key = number.to_be_bytes();
        let Some(read) = reader.get(0, &key).unwrap() else { continue };
        let version = u64::from_le_bytes(read[10..18].try_into().unwrap());
        assert_eq!(read, value(0, &key, version, read.len()));
        assert!(version >= versions[number as usize], "an older value came back");
        versions[number as usize] = version;
        found += 1;
    }
    found
}

fn write_with_readers<D: Disk>(disk: D, rounds: u64) {
    let (mut log, _) = Log::open(disk, OPTIONS).unwrap();
    let stop = AtomicBool::new(false);
    let found = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (reader, stop, found) = (log.reader(), &stop, &found);
            scope.spawn(move || found.fetch_add(read_on(&reader, seed, stop), Ordering::Relaxed));
        }
        let mut batch = Batch::new();
        let mut random = Random(1);
        let mut version = 0;
        // At least so many rounds, and until the readers have come to something.
        while version < rounds * 5 {
            for _ in 0..5 {
                version += 1;
                let key = random.below(KEYS).to_be_bytes();
                let bytes = 30 + random.below(500) as usize;
                batch.put(0, &key, &[&value(0, &key, version, bytes)]);
            }
            log.commit(&mut batch, false).unwrap();
            while log.clean(4096, false).unwrap() {}
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(log.statistics().cleaned_bytes > 100 * 8192);
    assert_eq!(log.statistics().damaged_entries, 0);
}

#[test]
fn readers_see_whole_values_while_segments_are_cleaned_and_used_again() {
    write_with_readers(SimDisk::new(), 3000);
    let folder = tempfile::tempdir().unwrap();
    write_with_readers(Directory::open(folder.path()).unwrap(), 3000);
}

#[test]
fn a_copy_of_a_log_in_use_can_be_opened() {
    let mut bench = Bench::new(5);
    for _ in 0..500 {
        bench.step().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy");
    bench.log.reader().backup(&to).unwrap();
    assert!(bench.log.reader().backup(&to).is_err());
    let (copy, report) = Log::open(Directory::open(&to).unwrap(), OPTIONS).unwrap();
    assert_eq!((report.damages, report.torn_bytes), (vec![], 0));
    let mut state = State::new();
    copy.for_each(|kind, key, value| {
        state.insert((kind, key.to_vec()), value.to_vec());
    })
    .unwrap();
    assert_eq!(&state, bench.state());
}
