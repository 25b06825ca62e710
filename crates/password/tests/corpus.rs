//! The fuzz target over its corpus, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are written anew.

mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

// Of Mosquitto 2.0.11's mosquitto_passwd, for "secret".
const PBKDF2: &str =
    "$7$101$DDDyLXDhMzKKAbhN$i5Fepe195ino+vvxW8HrVag80sTkHaQFR0+iRreBMgSFHrFW7t7rwdh4hmIK/PwMYwtX0GX6dEGXnWJDG6L7RQ==";
const SHA512: &str =
    "$6$xFq8KUkSKoVVaphK$a5Jm+ZToYNqw5ibtEEPabBfoPJtgXJyIIppQ//1TyDubVzHplK9d+41DKABCWWaJQFtsbdE79JEt7ZQATailww==";
const ARGON2ID: &str = "$argon2id$v=19$m=64,t=1,p=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The seeds, by name.
fn seeds() -> BTreeMap<&'static str, String> {
    [
        ("empty", String::new()),
        ("all", format!("# of the plant\nkitchen:{PBKDF2}\n\ncellar:{SHA512}\n  \nroof:{ARGON2ID}\n")),
        ("crlf", format!("kitchen:{PBKDF2}\r\n# x\r\ncellar:{SHA512}\r")),
        ("spaces", format!(" a b :{PBKDF2}  \t\nünïcode ☂:{SHA512}\u{3000}")),
        ("marked", format!("\u{feff}kitchen:{PBKDF2}\n")),
        ("twice", format!("a:{SHA512}\nb:{SHA512}\na:{SHA512}\n")),
        ("plain", "kitchen:secret\ncellar:se:cret \nroof:\n".to_owned()),
        (
            "plus",
            format!("a:{}\nb:{}\n", PBKDF2.replace("$101", "$+101"), ARGON2ID.replace("m=64,t=1", "m=8,m=64,t=+1")),
        ),
        ("costly", format!("a:{}\n", ARGON2ID.replace("m=64,t=1", "m=1048576,t=10000000"))),
        ("too-costly", format!("a:{}\n", ARGON2ID.replace("m=64", "m=1048577"))),
        ("short-salt", "a:$argon2id$v=19$m=8,t=1,p=1$AAAA$CTFhFdXP\n".to_owned()),
        ("no-hash", "a\n".to_owned()),
        ("no-name", format!(":{PBKDF2}\n")),
        ("other-kind", "a:$5$rounds=5000$usesomesalt$KqJWpanXZHKq2BOB43TSaYhEWsQ1Lr5QNyPCDH/Tp.6\n".to_owned()),
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
        for (target, _) in targets::ALL {
            let folder = corpus(target);
            fs::create_dir_all(&folder).expect("the corpus can be written");
            for (name, input) in seeds() {
                fs::write(folder.join(format!("seed-{name}")), &input).expect("the corpus can be written");
            }
        }
    });
}

#[test]
fn the_seeds_are_those_made_here() {
    update();
    for (target, _) in targets::ALL {
        for (name, input) in seeds() {
            let path = corpus(target).join(format!("seed-{name}"));
            let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(kept, input.as_bytes(), "{}", path.display());
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
        assert!(inputs >= seeds().len(), "{target}: {inputs} inputs");
    }
}

/// Otherwise a target that refuses everything would hold.
#[test]
fn the_seeds_that_are_password_files_can_be_read() {
    let seeds = seeds();
    let read = seeds.iter().filter(|(_, text)| pantala_password::File::parse(text).is_ok()).map(|(name, _)| *name);
    assert_eq!(read.collect::<Vec<_>>(), ["all", "costly", "crlf", "empty", "marked", "plus", "short-salt", "spaces"]);
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
        for (name, seed) in seeds().into_iter().filter(|(_, seed)| !seed.is_empty()) {
            for _ in 0..200 {
                let mut input = seed.clone().into_bytes();
                for _ in 0..=random(3) {
                    if input.is_empty() {
                        break;
                    }
                    let at = random(input.len());
                    match random(3) {
                        0 => input[at] = b"$:,=#+\n\r 0167m\t/"[random(16)],
                        1 => drop(input.drain(at..(at + random(20)).min(input.len()))),
                        _ => input.extend_from_within(at..(at + random(20)).min(input.len())),
                    }
                }
                let result = std::panic::catch_unwind(|| run(&input));
                assert!(result.is_ok(), "{target}, from {name}: {:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}
