//! The fuzz target over its corpus, on stable.
//!
//! `fuzz/corpus/dns_answer/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are written anew.

mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use pantala_client::transport::dns::{AnswerError, RECORDS_MAX, Srv, answer, question};

const ID: u16 = 0x1234;
/// Where the name that is asked for stands in every answer.
const ASKED: &[u8] = &[0xc0, 12];
const NO_ERROR: [u8; 2] = [0x81, 0x80];
const CNAME: u8 = 5;
const SRV: u8 = 33;
/// Signatures, which come with records that are signed.
const RRSIG: u8 = 46;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/dns_answer")
}

fn name(labels: &[&str]) -> Vec<u8> {
    let label = |label: &&str| [&[u8::try_from(label.len()).expect("short")], label.as_bytes()].concat();
    [labels.iter().map(label).collect::<Vec<_>>().concat(), vec![0]].concat()
}

fn record(owner: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("short").to_be_bytes();
    [owner, &[0, kind, 0, 1, 0, 0, 0, 60], &length, data].concat()
}

fn srv(owner: &[u8], target: &[u8]) -> Vec<u8> {
    record(owner, SRV, &[&[0, 1, 0, 2, 0x07, 0x5b], target].concat())
}

/// An answer with these records; our own record of additional data goes with it, as servers have it.
fn message(flags: [u8; 2], records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = question(ID, targets::NAME).expect("it is a name");
    let additional = bytes.split_off(bytes.len() - 11);
    bytes[2..4].copy_from_slice(&flags);
    bytes[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
    [bytes, records.concat(), additional].concat()
}

/// The seeds, by name.
fn seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let host = name(&["broker", "example", "org"]);
    // `example.org` behind `_mqtt._tcp` of the question.
    let compressed = [&[6][..], b"broker", &[0xc0, 23]].concat();
    let other = name(&["elsewhere", "example"]);
    let good = message(NO_ERROR, &[srv(ASKED, &host), srv(ASKED, &compressed)]);
    let with_question = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    [
        ("one", message(NO_ERROR, &[srv(ASKED, &host)])),
        ("two", good.clone()),
        ("none", message(NO_ERROR, &[])),
        ("root", message(NO_ERROR, &[srv(ASKED, &[0])])),
        ("alias", message(NO_ERROR, &[record(ASKED, CNAME, &other), srv(&other, &host)])),
        ("alias-behind", message(NO_ERROR, &[srv(&other, &host), record(ASKED, CNAME, &other)])),
        ("alias-of-itself", message(NO_ERROR, &[record(ASKED, CNAME, ASKED), srv(ASKED, &host)])),
        ("of-another", message(NO_ERROR, &[srv(&other, &host)])),
        ("signed", message(NO_ERROR, &[srv(ASKED, &host), record(ASKED, RRSIG, &[7; 40])])),
        ("many", message(NO_ERROR, &vec![srv(ASKED, &compressed); 100])),
        ("upper-case", with_question(|bytes| bytes[12..36].make_ascii_uppercase())),
        ("no-such-name", message([0x81, 0x83], &[])),
        ("refused", message([0x81, 0x85], &[])),
        ("cut", message([0x83, 0x80], &[])),
        ("a-question", message([0x01, 0x00], &[])),
        ("other-name", with_question(|bytes| bytes[13] = b'x')),
        ("no-question", [&ID.to_be_bytes()[..], &[0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]].concat()),
        // The target stands at 58.
        ("loop", message(NO_ERROR, &[srv(ASKED, &[0xc0, 58])])),
        ("ahead", message(NO_ERROR, &[srv(ASKED, &[0xc0, 200])])),
        ("long-name", message(NO_ERROR, &[srv(ASKED, &name(&["a".repeat(63).as_str(); 4]))])),
        ("strange-name", message(NO_ERROR, &[srv(ASKED, &name(&["bro ker"]))])),
        ("short-data", message(NO_ERROR, &[record(ASKED, SRV, &[0, 1, 0, 2])])),
        ("empty", Vec::new()),
    ]
    .into()
}

/// Writes the seeds if that is asked for, once for all tests.
fn update() {
    static UPDATE: Once = Once::new();
    UPDATE.call_once(|| {
        if std::env::var_os("UPDATE_CORPUS").is_none() {
            return;
        }
        fs::create_dir_all(corpus()).expect("the corpus can be written");
        for (name, input) in seeds() {
            fs::write(corpus().join(format!("seed-{name}")), &input).expect("the corpus can be written");
        }
    });
}

#[test]
fn the_seeds_are_those_made_here() {
    update();
    for (name, input) in seeds() {
        let path = corpus().join(format!("seed-{name}"));
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(kept, input, "{}", path.display());
    }
}

#[test]
fn no_input_of_the_corpus_fails() {
    update();
    let mut inputs = 0;
    for entry in fs::read_dir(corpus()).expect("a corpus") {
        let path = entry.expect("readable").path();
        let input = fs::read(&path).expect("readable");
        // The name of the input that fails has to be in the output.
        let result = std::panic::catch_unwind(|| targets::dns_answer(&input));
        assert!(result.is_ok(), "{} fails", path.display());
        inputs += 1;
    }
    assert!(inputs >= seeds().len(), "{inputs} inputs");
}

/// Otherwise a target that refuses everything would hold.
#[test]
fn the_seeds_are_what_their_names_say() {
    let found = Srv { priority: 1, weight: 2, port: 1883, target: "broker.example.org".to_owned() };
    let hosts = |count: usize| Ok(vec![found.clone(); count]);
    for (name, input) in seeds() {
        let expected = match name {
            "one" | "alias" | "alias-behind" | "signed" => hosts(1),
            "two" => hosts(2),
            // What is compressed is in the question's letters.
            "upper-case" => Ok(vec![found.clone(), Srv { target: "broker.EXAMPLE.ORG".to_owned(), ..found.clone() }]),
            "many" => hosts(RECORDS_MAX),
            "none" | "of-another" | "no-such-name" => hosts(0),
            "root" => Ok(vec![Srv { target: String::new(), ..found.clone() }]),
            "alias-of-itself" => hosts(1),
            "refused" => Err(AnswerError::Refused(5)),
            "no-question" => Err(AnswerError::Refused(2)),
            "cut" => Err(AnswerError::Truncated),
            "a-question" | "other-name" => Err(AnswerError::Other),
            _ => Err(AnswerError::Malformed),
        };
        assert_eq!(answer(&input, ID, targets::NAME), expected, "{name}");
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
        usize::try_from(state % (below.max(1) as u64)).expect("it is below a length")
    };
    for (name, seed) in seeds().into_iter().filter(|(_, seed)| !seed.is_empty()) {
        for _ in 0..2_000 {
            let mut input = seed.clone();
            for _ in 0..=random(3) {
                if input.is_empty() {
                    break;
                }
                let at = random(input.len());
                match random(4) {
                    0 => input[at] = [0, 1, 5, 12, 33, 46, 63, 64, 0x80, 0xc0, 0xff][random(11)],
                    1 => input[at] = input[at].wrapping_add(1),
                    2 => drop(input.drain(at..(at + random(20)).min(input.len()))),
                    _ => input.extend_from_within(at..(at + random(20)).min(input.len())),
                }
            }
            let result = std::panic::catch_unwind(|| targets::dns_answer(&input));
            assert!(result.is_ok(), "from {name}: {input:02x?}");
        }
    }
}
