//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are written anew.

mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> BTreeMap<&'static str, Vec<u8>> {
    match target {
        "acl_file" => [
            ("all", include_bytes!("mosquitto/acl.txt").to_vec()),
            ("empty", Vec::new()),
            ("marked", b"\xef\xbb\xbf# x\r\ntopic a\r\n".to_vec()),
            ("deny", b"topic deny a/b\ntopic a/#\nuser a\ntopic read #\n".to_vec()),
            ("pattern", b"pattern dev/%c/#\npattern deny %u/x\npattern read a\n".to_vec()),
            ("no-filter", b"topic read\n".to_vec()),
            ("no-user", b"user\n".to_vec()),
            ("no-keyword", b"topic a\nx\n".to_vec()),
            ("no-access", b"topic x y\n".to_vec()),
            ("spaces", b"  topic   read  a b \nuser  a \n".to_vec()),
        ]
        .into(),
        "dynsec" => {
            let with = |requests: &[&str]| {
                let mut input = include_bytes!("mosquitto/dynsec-init.json").to_vec();
                for request in requests {
                    input.push(0);
                    input.extend(request.as_bytes());
                }
                input
            };
            let recorded = include_str!("mosquitto/dynsec.jsonl").lines().step_by(2);
            [
                ("empty", Vec::new()),
                ("init", with(&[])),
                ("saved", include_bytes!("mosquitto/dynsec-saved.json").to_vec()),
                ("rights", include_bytes!("mosquitto/dynsec-rights.json").to_vec()),
                ("recorded", with(&recorded.collect::<Vec<_>>())),
                ("not-json", with(&["{", "[]", "{\"commands\":[7,{},{\"command\":1}]}"])),
                ("create", with(&[r#"{"commands":[{"command":"createClient","username":"a","password":"p"}]}"#])),
                ("list", with(&[r#"{"commands":[{"command":"listRoles","verbose":true,"count":1,"offset":-1}]}"#])),
            ]
            .into()
        }
        "rules_file" => [
            ("empty", Vec::new()),
            (
                "all",
                br##"default_access = "deny"
[[role]]
name = "sensor"
publish = ["dev/%c/#"]
subscribe = ["cmd/%c/+", "$share/g/a/#"]
receive = ["a"]
deny_publish = ["dev/x"]
deny_subscribe = ["#", "$share/+/a"]
deny_receive = ["a/b"]
[[rule]]
users = ["a", "hall-*"]
client_ids = ["c*"]
groups = ["a"]
addresses = ["192.0.2.0/24", "::1"]
certificate = false
anonymous = false
roles = ["sensor"]
[[rule]]
subscribe = ["%u/#"]
"##
                .to_vec(),
            ),
            ("allow", b"default_access = \"allow\"\n[[rule]]\nanonymous = true\ndeny_publish = [\"a/#\"]\n".to_vec()),
            ("no-role", b"[[rule]]\nroles = [\"a\"]\n".to_vec()),
            ("nothing", b"[[rule]]\nusers = [\"a\"]\n".to_vec()),
            ("twice", b"[[role]]\nname = \"a\"\n[[role]]\nname = \"a\"\n".to_vec()),
            ("filter", b"[[rule]]\npublish = [\"a#\", \"\\n\"]\n".to_vec()),
            ("network", b"[[rule]]\naddresses = [\"192.0.2.0/33\"]\npublish = [\"a\"]\n".to_vec()),
            ("a-slip", b"[[rule]]\npublsih = [\"a\"]\n".to_vec()),
        ]
        .into(),
        _ => panic!("no such target"),
    }
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
    for (target, run) in targets::ALL {
        for (name, seed) in seeds(target).into_iter().filter(|(_, seed)| !seed.is_empty()) {
            for _ in 0..60 {
                let mut input = seed.clone();
                for _ in 0..=random(3) {
                    let at = random(input.len());
                    match random(3) {
                        0 => input[at] = b"#+/% \n\"{}[]:,\0a0"[random(16)],
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
