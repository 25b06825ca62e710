//! Power cuts at every point.

use pantala_store::disk::SimDisk;
use pantala_store::log::{Batch, Log};

use crate::model::{Bench, OPTIONS, Random, contents};

/// Runs a workload until the power fails in the given operation.
fn run_until_cut(mut bench: Bench, steps: usize, cut: u64) -> Bench {
    let already = bench.disk.counts().operations;
    bench.disk.cut_at(already + cut);
    for _ in 0..steps {
        if bench.step().is_err() {
            break;
        }
    }
    bench
}

#[test]
fn after_a_power_cut_at_any_operation_the_log_has_a_state_since_the_last_sync() {
    for seed in 0..6 {
        let operations = {
            let bench = run_until_cut(Bench::new(seed), 120, u64::MAX / 2);
            bench.disk.counts().operations
        };
        assert!(operations > 100);
        for cut in 1..=operations {
            let bench = run_until_cut(Bench::new(seed), 120, cut);
            for crash in 0..3 {
                let disk = bench.disk.crash(seed * 1_000_000 + cut * 10 + crash);
                let (log, report) = Log::open(disk.clone(), OPTIONS).unwrap();
                let state = bench.check_crashed(&log, &report);
                // What has been seen once stays, whatever comes next.
                let (again, report) = Log::open(disk.crash(crash), OPTIONS).unwrap();
                assert_eq!((contents(&again), report.damages), (state, vec![]));
            }
        }
    }
}

#[test]
fn power_cuts_one_after_the_other_do_no_harm() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut bench = Bench::new(seed);
        for life in 0..6 {
            bench = run_until_cut(bench, 150, 1 + random.below(150));
            // Sometimes only the process dies.
            let disk =
                if random.one_in(4) { bench.disk.crash_prefix(usize::MAX) } else { bench.disk.crash(random.next()) };
            let (log, report) = Log::open(disk.clone(), OPTIONS).unwrap();
            let state = bench.check_crashed(&log, &report);
            bench = Bench::of(disk, log, state, seed * 100 + life);
            bench.check_all();
        }
    }
}

#[test]
fn writes_that_are_kept_in_order_are_seen_in_order() {
    let disk = SimDisk::new();
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    let mut batch = Batch::new();
    for number in 0..20u8 {
        batch.put(0, &[number], &[&[number; 50]]);
        log.commit(&mut batch, number == 0).unwrap();
    }
    for kept in 0..20 {
        let (log, report) = Log::open(disk.crash_prefix(kept), OPTIONS).unwrap();
        assert_eq!((log.statistics().live_entries, report.torn_bytes), (kept as u64 + 1, 0));
    }
}

/// A page in the middle of a value of the last batch never came down. There was an engine that could not be opened then.
#[test]
fn a_last_batch_without_a_page_in_its_middle_is_as_if_it_had_never_been() {
    let disk = SimDisk::new();
    let options = pantala_store::log::LogOptions { segment_bytes: 65_536, ..OPTIONS };
    let (mut log, _) = Log::open(disk.clone(), options).unwrap();
    let mut batch = Batch::new();
    batch.put(0, b"safe", &[b"value"]);
    log.commit(&mut batch, true).unwrap();
    batch.put(0, b"torn", &[&[0xaa; 20_000]]);
    log.commit(&mut batch, false).unwrap();
    drop(log);
    let name = "0000000000000001.log";
    for page in 0..5 {
        let left = disk.crash_prefix(1);
        let mut bytes = left.read(name).unwrap();
        let begin = (page * 4096).max(160);
        bytes[begin..(page + 1) * 4096].fill(0);
        left.overwrite(name, bytes);
        let (mut log, report) = Log::open(left.clone(), options).unwrap();
        assert_eq!((report.live_entries, report.damages.len()), (1, 0), "page {page}");
        assert!(report.torn_bytes > 0);
        // Nor does it come back when the lost page does.
        batch.put(0, b"later", &[b"value"]);
        log.commit(&mut batch, true).unwrap();
        drop(log);
        left.overwrite(name, disk.crash_prefix(1).read(name).unwrap());
        let (log, report) = Log::open(left, options).unwrap();
        assert!(log.contains(0, b"safe") && log.contains(0, b"later") && !log.contains(0, b"torn"));
        assert_eq!(report.damages, []);
    }
}

/// An opened log vouches for what it has: a process killed between write and sync leaves bytes that only the kernel has.
#[test]
fn what_a_killed_process_left_in_the_kernel_is_safe_once_the_log_is_open() {
    for sync_fails in [false, true] {
        let disk = SimDisk::new();
        let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
        let mut batch = Batch::new();
        batch.put(0, b"a", &[b"1"]);
        log.commit(&mut batch, true).unwrap();
        batch.put(0, b"b", &[b"2"]);
        if sync_fails {
            let syncs = disk.counts().syncs;
            disk.fail_at(pantala_store::disk::Operation::Sync, syncs + 1, std::io::ErrorKind::Other);
            assert!(log.commit(&mut batch, true).is_err());
        } else {
            log.commit(&mut batch, false).unwrap();
        }
        drop(log);
        let (log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
        let seen = log.contains(0, b"b");
        assert!(seen);
        for seed in 0..100 {
            let (log, _) = Log::open(disk.crash(seed), OPTIONS).unwrap();
            assert!(log.contains(0, b"b"));
        }
    }
}
