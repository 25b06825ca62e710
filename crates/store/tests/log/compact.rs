//! Compaction: all that can be gained, and nothing lost for it.

use pantala_store::disk::SimDisk;
use pantala_store::log::{Batch, CommitError, Log};

use crate::model::{Bench, OPTIONS, contents};

/// A log with a past, opened again, and what it has.
fn worked(seed: u64) -> Bench {
    let mut bench = Bench::new(seed);
    for _ in 0..200 {
        bench.step().unwrap();
    }
    bench.log.sync().unwrap();
    let (log, _) = Log::open(bench.disk.clone(), OPTIONS).unwrap();
    let state = bench.state().clone();
    Bench::of(bench.disk, log, state, seed)
}

#[test]
fn only_what_is_live_is_left_and_the_log_goes_on() {
    for seed in 0..30 {
        let mut bench = worked(seed);
        let before = bench.log.statistics();
        let mut last = 0;
        bench
            .log
            .compact(|done, total| {
                assert!(last <= done && done <= total);
                last = done;
            })
            .unwrap();
        bench.check_all();
        let after = bench.log.statistics();
        assert!(after.log_bytes <= before.log_bytes, "{before:?} {after:?}");
        assert!(after.spares <= before.spares);
        // Headers of segments and frames; and what is not worth it.
        let bound = 88 * after.segments + 32 * after.frames + before.log_bytes / 16;
        assert!(after.log_bytes - after.live_bytes <= bound, "{after:?}");
        let files = bench.disk.bytes();
        bench.log.compact(|_, _| {}).unwrap();
        assert!(bench.disk.bytes() <= files);
        for _ in 0..50 {
            bench.step().unwrap();
        }
        bench.check_all();
        bench.log.sync().unwrap();
        let (log, report) = Log::open(bench.disk.clone(), OPTIONS).unwrap();
        assert_eq!((&contents(&log), report.damages), (bench.state(), vec![]));
    }
}

#[test]
fn a_log_without_anything_live_becomes_one_empty_segment() {
    let (mut log, _) = Log::open(SimDisk::new(), OPTIONS).unwrap();
    log.compact(|_, _| {}).unwrap();
    assert_eq!(log.statistics().segments, 0);
    let mut batch = Batch::new();
    for number in 0..20u8 {
        batch.put(0, &[number], &[&[number; 3000]]);
        log.commit(&mut batch, true).unwrap();
    }
    for number in 0..20u8 {
        batch.delete(0, &[number]);
    }
    log.commit(&mut batch, true).unwrap();
    log.compact(|_, _| {}).unwrap();
    let statistics = log.statistics();
    assert_eq!((statistics.segments, statistics.live_entries, statistics.spares), (1, 0, 0));
    let (log, report) = Log::open(log.disk().clone(), OPTIONS).unwrap();
    assert_eq!((contents(&log).len(), report.damages), (0, vec![]));
}

#[test]
fn a_power_cut_during_compaction_loses_nothing() {
    for seed in 0..4 {
        let operations = {
            let mut bench = worked(seed);
            let before = bench.disk.counts().operations;
            bench.log.compact(|_, _| {}).unwrap();
            bench.disk.counts().operations - before
        };
        assert!(operations > 5);
        for cut in 1..=operations {
            let mut bench = worked(seed);
            bench.disk.cut_at(bench.disk.counts().operations + cut);
            assert!(bench.log.compact(|_, _| {}).is_err());
            for crash in 0..3 {
                let (mut log, report) = Log::open(bench.disk.crash(cut * 10 + crash), OPTIONS).unwrap();
                assert_eq!((&contents(&log), report.damages), (bench.state(), vec![]));
                log.compact(|_, _| {}).unwrap();
                assert_eq!(&contents(&log), bench.state());
            }
        }
    }
}

#[test]
fn compaction_of_a_full_disk_loses_nothing() {
    for room in 0..4 {
        let mut bench = worked(3);
        bench.disk.full(Some(bench.disk.bytes() + room * 8192));
        let result = bench.log.compact(|_, _| {});
        assert!(matches!(result, Ok(()) | Err(CommitError::NoSpace)), "{result:?}");
        bench.check_all();
        bench.disk.full(None);
        bench.log.compact(|_, _| {}).unwrap();
        bench.check_all();
    }
}
