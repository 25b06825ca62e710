//! What must hold for any bytes; used by the tests beside it and by the fuzz targets.

use std::time::Duration;

use pantala_identity::http::read_answer;
use pantala_identity::jwt::{Key, KeySet, Rules};
use pantala_identity::{Credentials, Outcome, Refusal};

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 3] = [("token", token), ("key_set", key_set), ("http_answer", http_answer)];

/// A password shown to a broker that knows one secret: what it did not sign lets nobody in.
pub fn token(input: &[u8]) {
    let mut keys = KeySet::default();
    // Of no use to the input, which is not made with it.
    keys.add(Some("1"), Key::secret(&[0xA5; 64]).expect("it is long enough"));
    let rules = Rules { user_name: Some("jwt".to_owned()), require_expiry: false, ..Rules::default() };
    let credentials =
        Credentials { user_name: Some("jwt".into()), password: Some(input.into()), ..Credentials::default() };
    let outcome = rules.verify(1_700_000_000, &keys, &credentials);
    assert!(matches!(outcome, Outcome::Refuse(Refusal::Token(_))), "{outcome:?}");
}

/// A key set, or a PEM file: either is read or refused.
pub fn key_set(input: &[u8]) {
    if let Ok(keys) = KeySet::from_json(input) {
        assert!(!keys.is_empty() && keys.len() <= pantala_identity::jwt::KEYS_MAX);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        drop(Key::from_pem(text));
    }
}

/// The status and the body of an answer: nobody is let in by one that does not say so.
pub fn http_answer(input: &[u8]) {
    let Some((status, body)) = input.split_at_checked(2) else { return };
    let status = u16::from_be_bytes([status[0], status[1]]);
    let credentials = Credentials { user_name: Some("ann".into()), ..Credentials::default() };
    if let Ok(Outcome::Accept(identity)) = read_answer(status, body, &credentials) {
        let silent = body.iter().all(u8::is_ascii_whitespace);
        let says_so = body.windows(5).any(|window| window == b"allow") || body.contains(&b'\\');
        assert!(status == 204 || status == 200 && (silent || says_so), "{status} {body:?}");
        assert!(identity.valid_for.is_none_or(|valid_for| valid_for >= Duration::from_secs(1)));
    }
}
