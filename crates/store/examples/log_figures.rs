//! What the log costs on this machine: `cargo run --release -p pantala-store --example log_figures [FOLDER]`.
//!
//! Values of 150 bytes under keys of 8, in batches of 500. The folder should be on the disk that is asked about; it is
//! made and left behind empty of anything else.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it is there to print, and has nobody to tell of errors")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pantala_store::disk::{Directory, Disk};
use pantala_store::log::{Batch, Log, LogOptions};

const VALUE: [u8; 150] = [0x5a; 150];
const BATCH: u64 = 500;
const ENTRIES: u64 = 2_000_000;
const SYNCED_BATCHES: u64 = 400;

fn main() {
    let folder = std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("log_figures"), PathBuf::from);
    assert!(!folder.exists(), "{} exists", folder.display());
    let open = || Log::open(Directory::open(&folder).unwrap(), LogOptions::default()).unwrap();

    let (mut log, _) = open();
    log.prepare().unwrap();
    let begun = Instant::now();
    let prepared = put(&mut log, 0..ENTRIES / BATCH, false);
    let elapsed = begun.elapsed() - prepared;
    println!(
        "put without sync: {:.0} ns each, and {:.0} ns for making files",
        elapsed.as_nanos() as f64 / ENTRIES as f64,
        prepared.as_nanos() as f64 / ENTRIES as f64
    );
    log.sync().unwrap();
    let statistics = log.statistics();
    println!("index: {:.1} bytes an entry", statistics.index_bytes as f64 / statistics.live_entries as f64);
    drop(log);

    for attempt in ["first", "second"] {
        let begun = Instant::now();
        let (log, report) = open();
        println!(
            "open, {attempt} time: {:.3} s for {} entries, {} MB",
            begun.elapsed().as_secs_f64(),
            report.live_entries,
            report.log_bytes / 1_000_000
        );
        let begun = Instant::now();
        let mut bytes = 0;
        log.for_each(|_, key, value| bytes += key.len() + value.len()).unwrap();
        println!("for each: {:.3} s for {} MB", begun.elapsed().as_secs_f64(), bytes / 1_000_000);
    }

    let (mut log, _) = open();
    let begun = Instant::now();
    log.prepare().unwrap();
    println!("prepare: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    put(&mut log, 0..1, true);
    let begun = Instant::now();
    let prepared = put(&mut log, 1..SYNCED_BATCHES, true);
    let elapsed = (begun.elapsed() - prepared) / (SYNCED_BATCHES - 1) as u32;
    println!(
        "put with sync: {:.0} ns each, {:.0} us a batch",
        elapsed.as_nanos() as f64 / BATCH as f64,
        elapsed.as_secs_f64() * 1e6
    );
    let mut batch = Batch::new();
    for number in (0..ENTRIES).filter(|number| number % 10 < 7) {
        batch.delete(1, &number.to_be_bytes());
        if batch.entries() == BATCH as u32 {
            log.commit(&mut batch, false).unwrap();
        }
    }
    log.commit(&mut batch, true).unwrap();
    let begun = Instant::now();
    let mut longest = 0f64;
    loop {
        let step = Instant::now();
        let more = log.clean(1 << 20, false).unwrap();
        longest = longest.max(step.elapsed().as_secs_f64());
        if !more {
            break;
        }
    }
    let statistics = log.statistics();
    println!(
        "clean: {:.3} s for {} MB, of which {} MB copied; longest step {:.1} ms",
        begun.elapsed().as_secs_f64(),
        statistics.cleaned_bytes / 1_000_000,
        statistics.copied_bytes / 1_000_000,
        longest * 1e3
    );
    let names = log.disk().list().unwrap();
    drop(log);
    for name in names {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    std::fs::remove_dir(folder).unwrap();
}

/// Puts, and returns the time that went into files made in advance.
fn put(log: &mut Log<Directory>, batches: std::ops::Range<u64>, sync: bool) -> Duration {
    let mut batch = Batch::new();
    let mut prepared = Duration::ZERO;
    for number in batches {
        for entry in 0..BATCH {
            batch.put(1, &(number * BATCH + entry).to_be_bytes(), &[&VALUE]);
        }
        log.commit(&mut batch, sync).unwrap();
        if log.needs_preparing() {
            let begun = Instant::now();
            log.prepare().unwrap();
            prepared += begun.elapsed();
        }
    }
    prepared
}
