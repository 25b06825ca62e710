//! What must hold for any bytes; used by the tests beside it and by the fuzz targets.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pantala_identity::http::read_answer;
use pantala_identity::jwt::{Key, KeySet, Rejection, Rules};
use pantala_identity::{Credentials, Outcome, Refusal};

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 4] = [("token", token), ("claims", claims), ("key_set", key_set), ("http_answer", http_answer)];

/// The one that the broker knows.
const SECRET: [u8; 64] = [0xA5; 64];
const NOW: u64 = 1_700_000_000;

/// A password shown to a broker that knows one secret: what it did not sign lets nobody in.
pub fn token(input: &[u8]) {
    let mut keys = KeySet::default();
    // Of no use to the input, which is not made with it.
    keys.add(Some("1"), Key::secret(&SECRET).expect("it is long enough"));
    let rules = Rules { user_name: Some("jwt".to_owned()), require_expiry: false, ..Rules::default() };
    let credentials =
        Credentials { user_name: Some("jwt".into()), password: Some(input.into()), ..Credentials::default() };
    let outcome = rules.verify(NOW, &keys, &credentials);
    assert!(matches!(outcome, Outcome::Refuse(Refusal::Token(_))), "{outcome:?}");
}

/// The claims of a token that is signed as it has to be: who is let in has a name that can be one, the same that was claimed; it may be no
/// more than it says; without an expiry nobody is let in who needs one; and with a wrong signature nobody is.
pub fn claims(input: &[u8]) {
    let mut keys = KeySet::default();
    keys.add(None, Key::secret(&SECRET).expect("it is long enough"));
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(input)).into_bytes();
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), &signed);
    let shown = |signature: &[u8]| {
        let token = [&signed[..], b".", URL_SAFE_NO_PAD.encode(signature).as_bytes()].concat();
        Credentials { client_id: "c".into(), password: Some(token.into()), ..Credentials::default() }
    };
    let claim = |name: &str| Some(name.to_owned());
    let rules = Rules {
        require_expiry: false,
        groups_claim: claim("groups"),
        publish_claim: claim("mqtt.publish"),
        subscribe_claim: claim("mqtt.subscribe"),
        ..Rules::default()
    };
    let credentials = shown(signature.as_ref());
    match rules.verify(NOW, &keys, &credentials) {
        Outcome::Accept(identity) => {
            let name = identity.user_name.as_deref().expect("a name");
            assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}");
            assert_eq!(rules.claimed_name(&credentials).as_deref(), Some(name));
            assert!(
                !identity.superuser && identity.valid_for.is_none_or(|valid_for| valid_for >= Duration::from_secs(1))
            );
            let says = |word: &[u8]| input.windows(word.len()).any(|window| window == word) || input.contains(&b'\\');
            assert!(identity.permissions.is_none() || says(b"mqtt"));
            assert!(identity.groups.is_empty() || says(b"groups"));
            let accepts = |rules: Rules| matches!(rules.verify(NOW, &keys, &credentials), Outcome::Accept(_));
            assert_eq!(accepts(Rules { require_expiry: true, ..rules.clone() }), identity.valid_for.is_some());
            assert!(!accepts(Rules { issuer: claim("us"), ..rules.clone() }) || says(b"us"));
            assert!(!accepts(Rules { audience: claim("mqtt"), ..rules.clone() }) || says(b"mqtt"));
            assert!(!accepts(Rules { client_id_claim: claim("id"), ..rules.clone() }) || says(b"id"));
        }
        Outcome::Refuse(Refusal::Token(rejection)) => {
            assert!(!matches!(rejection, Rejection::Algorithm | Rejection::Key | Rejection::Signature), "{rejection}");
        }
        outcome => panic!("{outcome:?}"),
    }
    let mut wrong = signature.as_ref().to_vec();
    wrong[input.len() % 32] ^= 1;
    assert!(!matches!(rules.verify(NOW, &keys, &shown(&wrong)), Outcome::Accept(_)));
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
