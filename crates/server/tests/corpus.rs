//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds and inputs that once failed, which stay for ever. Seeds are files as people have them, and as
//! Mosquitto has written them; with `UPDATE_CORPUS=1` they are copied anew.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tests = root().join("crates/server/tests");
    match target {
        "config_mosquitto" => {
            let folders = fs::read_dir(tests.join("mosquitto-conf")).unwrap().map(|entry| entry.unwrap());
            let seed = |entry: fs::DirEntry| {
                (entry.file_name().into_string().unwrap(), read(entry.path().join("mosquitto.conf")))
            };
            folders.map(seed).collect()
        }
        "config_toml" => vec![("example".to_owned(), read(root().join("examples/pantala.toml")))],
        "mosquitto_db" => {
            let whole = read(tests.join("mosquitto-db/2.0.11.db"));
            vec![("2.0.11".to_owned(), whole.clone()), ("5".to_owned(), database(5)), ("6".to_owned(), database(6))]
        }
        _ => panic!("no such target"),
    }
}

/// A small database with a chunk of each kind, in two states.
fn database(version: u8) -> Vec<u8> {
    let mut bytes = [b"\x00\xb5\x00mosquitto db\0\0\0\0\0\0\0", &[version][..]].concat();
    let mut chunk = |kind: u8, body: &[u8]| {
        bytes.extend([0, 0, 0, kind]);
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
    };
    chunk(1, &[0; 16]);
    let expires_at = 1_700_000_600_u64.to_le_bytes();
    let user = |bytes: &'static [u8]| if version > 5 { bytes } else { b"" };
    for (id, expires_at, interval) in [(b"one", [0; 8], u32::MAX), (b"two", expires_at, 3_600)] {
        let user_fields = user(&[0x07, 0x5b, 0, 3, 0, 0, 0, 0]);
        chunk(6, &[&expires_at[..], &interval.to_be_bytes(), &[0, 9, 0, 3], user_fields, id, user(b"ann")].concat());
    }
    for (number, qos, retain, properties) in [(1_u64, 1, 0, &b""[..]), (2, 2, 1, b"\x03\x01\x01\x00"), (3, 2, 0, b"")] {
        let head = [&number.to_le_bytes()[..], &expires_at, &[0, 0, 0, 2, 0, 0, 0, 1, 0, 3, 0, 3, 0x07, 0x5b]].concat();
        chunk(2, &[&head, &[qos, retain][..], b"p", b"ann", b"a/b", b"42", properties].concat());
    }
    chunk(4, &2_u64.to_le_bytes());
    for (id, filter, identifier) in [(b"one", b"a/#", 0), (b"two", b"a/+", 7)] {
        chunk(5, &[&[0, 0, 0, identifier, 0, 3, 0, 3, 2, 0x14, 0, 0][..], id, filter].concat());
    }
    let owed = [(1_u64, 1, 3, b"one"), (1, 1, 1, b"two"), (2, 2, 5, b"one"), (3, 2, 6, b"one"), (3, 2, 9, b"two")];
    for (packet_id, (number, qos, state, id)) in (1..).zip(owed) {
        let head = [&number.to_le_bytes()[..], &[0, packet_id, 0, 3, qos, state, 0x10, 1]].concat();
        chunk(3, &[&head, &id[..], &[2, 0x0b, 7]].concat());
    }
    bytes
}

fn corpus(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

/// Writes the seeds if that is asked for.
fn update(target: &str) {
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        fs::create_dir_all(corpus(target)).unwrap();
        for (name, input) in seeds(target) {
            fs::write(corpus(target).join(format!("seed-{name}")), &input).unwrap();
        }
    }
}

#[test]
fn no_input_of_a_corpus_fails() {
    for (target, run) in targets::ALL {
        update(target);
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
                        0 => input[at] = b"\n =\"'[],.0a#\\\x00\xff\x01"[random(16)],
                        1 => drop(input.drain(at..(at + random(20)).min(input.len()))),
                        _ => input.extend_from_within(at..(at + random(20)).min(input.len())),
                    }
                    if input.is_empty() {
                        break;
                    }
                }
                let result = std::panic::catch_unwind(|| run(&input));
                assert!(result.is_ok(), "{target}, from {name}: {:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}
