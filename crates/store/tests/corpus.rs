//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are made anew; each time a log has another mark.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use pantala_store::disk::{Disk as _, SimDisk};
use pantala_store::log::{Batch, Log};
use targets::{OPTIONS, push_entry, push_file};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// A store of an earlier version, with every kind of entry.
fn fixture(name: &str) -> SimDisk {
    let disk = SimDisk::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        disk.overwrite(&entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    disk
}

/// The entries of a store, as far as they are short.
fn entries(name: &str) -> Vec<u8> {
    let (log, _) = Log::open(fixture(name), OPTIONS).unwrap();
    let mut entries = Vec::new();
    log.for_each(|kind, key, value| {
        if key.len().max(value.len()) < 256 {
            entries.push((kind, key.to_vec(), value.to_vec()));
        }
    })
    .unwrap();
    entries.sort_unstable();
    let mut input = Vec::new();
    entries.iter().for_each(|(kind, key, value)| push_entry(&mut input, *kind, key, value));
    input
}

/// The segments of a log to which so many small batches have been written, without the zeros at their ends.
fn segments(batches: u8, sync: bool) -> Vec<u8> {
    let disk = SimDisk::new();
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    for number in 0..batches {
        let mut batch = Batch::new();
        batch.put(1, &[number % 3], &[&[number; 20]]);
        batch.delete(1, &[(number + 1) % 3]);
        batch.put(2, &[], &[&[0; 300][..usize::from(number) * 50 % 300]]);
        log.commit(&mut batch, sync).unwrap();
    }
    drop(log);
    let mut input = vec![3];
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".log")) {
        let mut bytes = disk.read(name).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end.max(88));
        push_file(&mut input, name[..16].parse().unwrap(), &bytes);
    }
    input
}

fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "store_entries" => {
            vec![("empty", Vec::new()), ("v1", entries("v1")), ("v1-users", entries("v1-users"))]
        }
        "store_log" => vec![
            ("empty", vec![0]),
            ("one", segments(4, true)),
            ("unsynced", segments(4, false)),
            ("two", segments(18, true)),
        ],
        _ => panic!("no such target"),
    }
}

#[test]
fn no_input_of_a_corpus_fails() {
    for (target, run) in targets::ALL {
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::create_dir_all(corpus(target)).unwrap();
            for (name, input) in seeds(target) {
                fs::write(corpus(target).join(format!("seed-{name}")), &input).unwrap();
            }
        }
        let mut inputs = 0;
        for entry in fs::read_dir(corpus(target)).unwrap() {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            // The name of the input that fails has to be in the output.
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{} fails", path.display());
            inputs += 1;
        }
        assert!(inputs >= seeds(target).len(), "{target}: {inputs} inputs");
    }
}

/// What is made here is not refused at the first byte.
#[test]
fn seeds_say_something() {
    for (target, _) in targets::ALL {
        let longest = seeds(target).iter().map(|(_, input)| input.len()).max();
        assert!((500..4_096).contains(&longest.unwrap()), "{target}: {longest:?}");
    }
}

/// Seeds with some bytes changed, cut or doubled: what a fuzzer does in its first second.
#[test]
fn no_damaged_seed_fails() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (below.max(1) as u64)).unwrap()
    };
    for (target, run) in targets::ALL {
        for (name, seed) in seeds(target).into_iter().filter(|(_, seed)| !seed.is_empty()) {
            for _ in 0..60 {
                let mut input = seed.clone();
                for _ in 0..=random(3) {
                    let at = random(input.len());
                    match random(3) {
                        0 => input[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)],
                        1 => drop(input.drain(at..(at + random(20)).min(input.len()))),
                        _ => input.extend_from_within(at..(at + random(20)).min(input.len())),
                    }
                    if input.is_empty() {
                        break;
                    }
                }
                let result = std::panic::catch_unwind(|| run(&input));
                assert!(result.is_ok(), "{target}, from {name}: {input:?}");
            }
        }
    }
}
