//! Disks that are full or fail.

use std::io::ErrorKind;

use pantala_store::disk::{Operation, SimDisk};
use pantala_store::log::{Batch, CommitError, Log};

use crate::model::{Bench, OPTIONS, contents};

#[test]
fn after_a_failed_operation_the_log_takes_nothing_more_and_opens_again() {
    for operation in [Operation::Write, Operation::Sync, Operation::Create, Operation::Rename] {
        for nth in 1..100 {
            let disk = SimDisk::new();
            disk.fail_at(operation, nth, ErrorKind::Other);
            let mut bench = Bench::on(disk, nth * 7);
            let mut error = None;
            for _ in 0..250 {
                error = bench.step().err();
                if error.is_some() {
                    break;
                }
            }
            let Some(error) = error else { continue };
            assert!(matches!(error, CommitError::Failed(_)), "{error}");
            let syncs = bench.disk.counts();
            let (mut batch, _) = bench.fill();
            assert!(matches!(bench.log.commit(&mut batch, true), Err(CommitError::Failed(_))));
            assert!(matches!(bench.log.sync(), Err(CommitError::Failed(_))));
            assert!(matches!(bench.log.clean(1, true), Err(CommitError::Failed(_))));
            assert_eq!(bench.disk.counts(), syncs, "the disk was asked again");
            // Reading goes on.
            bench.check_some();
            // The next process finds what the kernel has; a power cut what the disk has.
            let crashed = bench.disk.crash(nth);
            let (log, report) = Log::open(bench.disk.clone(), OPTIONS).unwrap();
            let state = bench.check_crashed(&log, &report);
            let (log, report) = Log::open(crashed, OPTIONS).unwrap();
            bench.check_crashed(&log, &report);
            let (log, report) = Log::open(bench.disk.crash(nth), OPTIONS).unwrap();
            assert_eq!((contents(&log), report.damages), (state, vec![]));
        }
    }
}

#[test]
fn a_full_disk_refuses_puts_takes_deletes_and_recovers() {
    let disk = SimDisk::new();
    disk.full(Some(20 * 8192));
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    log.prepare().unwrap();
    let mut batch = Batch::new();
    let mut number = 0u32;
    let value = [7; 500];
    for _round in 0..5 {
        let refused = loop {
            batch.put(0, &number.to_be_bytes(), &[&value]);
            match log.commit(&mut batch, true) {
                Ok(()) => number += 1,
                Err(error) => break error,
            }
            let _ = log.prepare();
            while matches!(log.clean(4096, true), Ok(true)) {}
        };
        assert!(matches!(refused, CommitError::NoSpace));
        assert_eq!(batch.entries(), 1, "the batch is kept");
        // What is there is intact, now and after a power cut.
        let live = log.statistics().live_entries;
        let (copy, report) = Log::open(disk.crash(1), OPTIONS).unwrap();
        assert_eq!((copy.statistics().live_entries, report.damages), (live, vec![]));
        // Deletes one by one, and cleaning, all find room.
        let mut deletes = Batch::new();
        for gone in number.saturating_sub(live as u32)..number - 10 {
            deletes.delete(0, &gone.to_be_bytes());
            log.commit(&mut deletes, true).unwrap();
            while log.clean(4096, true).unwrap() {}
        }
        assert_eq!(log.statistics().live_entries, 10);
        log.prepare().unwrap();
        // The refused batch goes now.
        log.commit(&mut batch, true).unwrap();
        number += 1;
    }
}

#[test]
fn with_a_full_disk_what_fits_into_the_head_and_a_spare_still_goes() {
    let disk = SimDisk::new();
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    log.prepare().unwrap();
    let mut batch = Batch::new();
    batch.put(0, b"first", &[b"x"]);
    log.commit(&mut batch, true).unwrap();
    log.prepare().unwrap();
    disk.full(Some(disk.bytes()));
    let mut bytes = 0;
    let refused = loop {
        batch.put(0, &(bytes as u32).to_be_bytes(), &[&[1; 400]]);
        match log.commit(&mut batch, true) {
            Ok(()) => bytes += 400,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, CommitError::NoSpace));
    assert!(bytes > 2 * 8192 * 8 / 10, "{bytes}");
    assert!(matches!(log.prepare(), Err(CommitError::NoSpace)));
    disk.full(None);
    log.commit(&mut batch, true).unwrap();
}

/// File systems that copy on write can be full within a file.
#[test]
fn no_space_within_a_file_is_no_failure() {
    for nth in 2..40 {
        let disk = SimDisk::new();
        disk.fail_at(Operation::Write, nth, ErrorKind::StorageFull);
        let mut bench = Bench::on(disk, nth);
        let mut refused = 0;
        for _ in 0..200 {
            match bench.step() {
                Ok(()) => {}
                Err(CommitError::NoSpace) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(refused, 1);
        bench.check_all();
        let (log, report) = Log::open(bench.disk.clone(), OPTIONS).unwrap();
        assert_eq!((&contents(&log), report.damages), (bench.state(), vec![]));
    }
}

#[test]
fn a_batch_larger_than_a_segment_has_one_of_its_own() {
    let disk = SimDisk::new();
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    let mut batch = Batch::new();
    for number in 0..4u8 {
        batch.put(0, b"large", &[&[number; 100_000]]);
        log.commit(&mut batch, true).unwrap();
        batch.put(0, &[number], &[b"small"]);
        log.commit(&mut batch, true).unwrap();
        while log.clean(1, true).unwrap() {}
    }
    let (log, report) = Log::open(disk.crash(3), OPTIONS).unwrap();
    assert_eq!((report.live_entries, report.damages.len()), (5, 0));
    assert_eq!(log.reader().get(0, b"large").unwrap().unwrap(), [3; 100_000]);
    assert!(disk.bytes() < 250_000, "{} bytes: {:?}", disk.bytes(), log.statistics());
}
