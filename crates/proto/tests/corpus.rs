//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are written anew.

mod support;
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use support::wire::{self, packet, section, string, user_property};
use support::{VERSIONS, samples};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The byte by which the targets choose this sample's version.
fn version_byte(sample: &samples::Sample) -> u8 {
    let index = VERSIONS.iter().position(|version| *version == sample.version).expect("one of them");
    u8::try_from(index).expect("one of three")
}

fn sample_name(sample: &samples::Sample) -> String {
    format!("{:?}-{}", sample.version, sample.name).to_lowercase()
}

/// Bytes after the fixed header.
fn body(bytes: &[u8]) -> &[u8] {
    &bytes[2 + bytes[1..].iter().take_while(|byte| **byte >= 0x80).count()..]
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut add = |name: &str, input: Vec<u8>| assert!(seeds.insert(name.to_owned(), input).is_none(), "{name} twice");
    match target {
        "decode" => {
            for sample in samples::all() {
                let input = [&[version_byte(&sample), sample.bytes[0]], body(&sample.bytes)].concat();
                add(&sample_name(&sample), input);
            }
            for (name, first_byte, body) in damaged() {
                add(name, [&[2, first_byte], &body[..]].concat());
            }
        }
        "connect" => {
            for sample in samples::all().into_iter().filter(|sample| sample.bytes[0] == 0x10) {
                add(&sample_name(&sample), body(&sample.bytes).to_vec());
            }
            let no_login = wire::Connect { flags: 0xc2, ..wire::Connect::C3 };
            add("v31-login-missing", body(&no_login.bytes()).to_vec());
            let twice = wire::Connect { properties: Some(&[0x21, 0, 1, 0x21, 0, 1]), ..wire::Connect::C5 };
            add("v5-property-twice", body(&twice.bytes()).to_vec());
        }
        "filter" => {
            for (name, text) in [
                ("empty", ""),
                ("plain", "a/b/c"),
                ("separators", "//"),
                ("plus", "+/a/+"),
                ("number", "a/#"),
                ("all", "#"),
                ("not-last", "a/#/b"),
                ("not-alone", "a+/b#"),
                ("shared", "$share/g/a/+/#"),
                ("shared-separator", "$share/g//"),
                ("share-alone", "$share"),
                ("share-no-name", "$share//t"),
                ("share-no-filter", "$share/g/"),
                ("share-wildcard-name", "$share/g+/t"),
                ("share-capitals", "$SHARE/g/t"),
                ("system", "$SYS/#"),
                ("unicode", "é/+/😀"),
            ] {
                add(name, text.into());
            }
        }
        "stream" => {
            for (index, version) in VERSIONS.into_iter().enumerate() {
                let index = u8::try_from(index).expect("one of three");
                let all: Vec<u8> = samples::of(version).into_iter().flat_map(|sample| sample.bytes).collect();
                add(&format!("{version:?}-all").to_lowercase(), [&[index, 3, 0, 6, 200], &all[..]].concat());
            }
            add("length-too-long", vec![2, 1, 0, 0xc0, 0x00, 0x30, 0xff, 0xff, 0xff, 0xff]);
            add("packet-too-large", vec![2, 0, 0xc0, 0x00, 0x30, 0xff, 0xff, 0xff, 0x7f]);
            add("cut", vec![2, 0, 0xc0, 0x00, 0x30, 0x05, 0x00]);
            add("type-0", vec![0, 1, 2, 0xc0, 0x00, 0x00, 0x00]);
        }
        _ => panic!("no such target"),
    }
    seeds
}

/// Packets of MQTT 5 with something wrong: first byte and body.
fn damaged() -> Vec<(&'static str, u8, Vec<u8>)> {
    let publish = |properties: &[u8]| [string("t"), section(properties), b"x".to_vec()].concat();
    vec![
        ("bad-alias-0", 0x30, publish(&[0x23, 0, 0])),
        ("bad-alias-twice", 0x30, publish(&[0x23, 0, 1, 0x23, 0, 2])),
        ("bad-property-cut", 0x30, publish(&user_property("key", "value")[..7])),
        ("bad-property-length", 0x30, [string("t"), vec![0xff, 0xff, 0xff, 0x7f]].concat()),
        ("bad-property-unknown", 0x30, publish(&[0x7f, 0])),
        ("bad-property-elsewhere", 0x30, publish(&[0x21, 0, 1])),
        ("bad-utf8", 0x30, [string([0xed, 0xa0, 0x80]), vec![0]].concat()),
        ("bad-integer", 0x82, [vec![0, 1, 3, 0x0b, 0x81, 0x00], string("t"), vec![0]].concat()),
        ("bad-options", 0x82, [vec![0, 1, 0], string("t"), vec![0xff]].concat()),
        ("bad-packet-id", 0x40, vec![0, 0]),
        ("bad-reason-code", 0x40, vec![0, 1, 0x92]),
        ("bad-trailing", 0xc0, vec![0]),
        ("nested-length", 0x30, body(&packet(0x30, publish(&user_property("k", "v").repeat(20)))).to_vec()),
    ]
}

/// Writes the seeds if that is asked for, once for all tests.
fn update() {
    static UPDATE: Once = Once::new();
    UPDATE.call_once(|| {
        if std::env::var_os("UPDATE_CORPUS").is_none() {
            return;
        }
        for (target, _) in targets::ALL {
            let folder = corpus(target);
            fs::create_dir_all(&folder).expect("the corpus can be written");
            for (name, input) in seeds(target) {
                fs::write(folder.join(format!("seed-{name}")), &input).expect("the corpus can be written");
            }
        }
    });
}

#[test]
fn the_seeds_are_those_made_here() {
    update();
    for (target, _) in targets::ALL {
        for (name, input) in seeds(target) {
            let path = corpus(target).join(format!("seed-{name}"));
            let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(kept, input, "{}", path.display());
        }
    }
}

#[test]
fn no_input_of_a_corpus_fails() {
    update();
    for (target, run) in targets::ALL {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus(target)).expect("a corpus for each target") {
            let path = entry.expect("readable").path();
            let input = fs::read(&path).expect("readable");
            // The name of the input that fails has to be in the output.
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{} fails", path.display());
            inputs += 1;
        }
        assert!(inputs >= seeds(target).len(), "{target}: {inputs} inputs");
    }
}
