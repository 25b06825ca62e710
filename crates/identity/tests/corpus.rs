//! The fuzz targets over their corpora, on stable.
//!
//! `fuzz/corpus/<target>/` holds seeds, which are made here, and inputs that once failed, which stay for ever. With
//! `UPDATE_CORPUS=1` the seeds are written anew.

mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn token(header: &str, claims: &str, signature: &[u8]) -> Vec<u8> {
    let parts = [header.as_bytes(), claims.as_bytes(), signature];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".").into_bytes()
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    [&status.to_be_bytes()[..], body.as_bytes()].concat()
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> BTreeMap<&'static str, Vec<u8>> {
    const CLAIMS: &str = r#"{"sub":"ann","exp":1700000100,"nbf":1,"iat":1.5,"iss":"us","aud":["mqtt"],"scope":"a b"}"#;
    const EC: &str = r#"{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"1","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}"#;
    const ED: &str =
        r#"{"kty":"OKP","crv":"Ed25519","key_ops":["verify"],"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let set = |keys: &[&str]| format!("{{\"keys\":[{}]}}", keys.join(",")).into_bytes();
    match target {
        "token" => [
            ("empty", Vec::new()),
            ("hs256", token(r#"{"alg":"HS256"}"#, CLAIMS, &[7; 32])),
            ("key-id", token(r#"{"alg":"HS256","kid":"1","typ":"JWT"}"#, CLAIMS, &[7; 32])),
            ("other-key-id", token(r#"{"alg":"HS256","kid":"2"}"#, CLAIMS, &[7; 32])),
            ("key-id-no-text", token(r#"{"alg":"HS256","kid":[]}"#, CLAIMS, &[7; 32])),
            ("none", token(r#"{"alg":"none"}"#, CLAIMS, &[])),
            ("es256", token(r#"{"alg":"ES256"}"#, CLAIMS, &[7; 64])),
            ("critical", token(r#"{"alg":"HS256","crit":["exp"]}"#, CLAIMS, &[7; 32])),
            ("no-claims", token(r#"{"alg":"HS256"}"#, "[]", &[7; 32])),
            ("two-parts", b"eyJhbGciOiJIUzI1NiJ9.e30".to_vec()),
            ("padded", b"eyJhbGciOiJIUzI1NiJ9.e30=.AAAA".to_vec()),
        ]
        .into(),
        "claims" => [
            ("empty", Vec::new()),
            ("many", CLAIMS.into()),
            (
                "permissions",
                br#"{"sub":"ann","mqtt":{"publish":["a/#"],"subscribe":"b c"},"groups":["g"],"id":"c"}"#.to_vec(),
            ),
            ("path", br#"{"sub":"ann","mqtt.publish":["a/#"],"exp":1.8e9}"#.to_vec()),
            ("expired", br#"{"sub":"ann","exp":1}"#.to_vec()),
            ("not-yet", br#"{"sub":"ann","nbf":1e300}"#.to_vec()),
            ("no-name", br#"{"sub":"a\u0000"}"#.to_vec()),
            ("no-times", br#"{"sub":"ann","exp":"1800000000"}"#.to_vec()),
            ("no-lists", br#"{"sub":"ann","groups":[1],"mqtt":{"publish":{}}}"#.to_vec()),
        ]
        .into(),
        "key_set" => [
            ("empty", Vec::new()),
            ("keys", set(&[EC, ED])),
            ("no-keys", set(&[])),
            ("rsa", set(&[r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256"}"#])),
            ("secret", set(&[r#"{"kty":"oct","k":"AAAA"}"#])),
            ("other-use", set(&[&ED.replacen('{', r#"{"use":"enc","#, 1)])),
            ("other-curve", set(&[&EC.replace("P-256", "P-384")])),
            ("no-list", br#"{"keys":{}}"#.to_vec()),
            ("pem", include_bytes!("public_key.pem").to_vec()),
        ]
        .into(),
        "http_answer" => [
            ("empty", Vec::new()),
            ("allow", answer(200, r#"{"result":"allow"}"#)),
            (
                "allow-much",
                answer(200, r#"{"result":"allow","user_name":"a","publish":["a/#"],"subscribe":["b"],"groups":["g"],"superuser":true,"expires_in":60}"#),
            ),
            ("deny", answer(200, r#"{"result":"deny"}"#)),
            ("ignore", answer(200, r#"{"result":"ignore"}"#)),
            ("silent", answer(200, "")),
            ("no-content", answer(204, "")),
            ("forbidden", answer(403, "no")),
            ("moved", answer(302, r#"{"result":"allow"}"#)),
            ("not-json", answer(200, "allow")),
            ("wrong-types", answer(200, r#"{"result":"allow","publish":"a","expires_in":-1}"#)),
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
                        0 => input[at] = b"{}[]:,\".-_=e0A\n\0"[random(16)],
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
