use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::engine::general_purpose::STANDARD;
use pantala_session::Instant;
use serde_json::json;

use super::key::element;
use super::*;
use crate::Proof;

const NOW: u64 = 1_700_000_000;
const SECRET: &[u8] = b"a secret of at least 32 bytes, which this is";

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token of these parts.
fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let signed = format!("{}.{}", encoded(header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}").into_bytes()
}

fn hmac_sha256(message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()
}

fn hs256(claims: &Value) -> Vec<u8> {
    token(&json!({"alg": "HS256"}), claims, hmac_sha256)
}

fn shown(token: Vec<u8>) -> Credentials {
    Credentials { client_id: "c1".into(), password: Some(token.into()), ..Credentials::default() }
}

fn secret_keys() -> KeySet {
    let mut keys = KeySet::default();
    keys.add(None, Key::secret(SECRET).expect("it is long enough"));
    keys
}

fn verify(rules: &Rules, keys: &KeySet, token: Vec<u8>) -> Result<Identity, Rejection> {
    match rules.verify(NOW, keys, &shown(token)) {
        Outcome::Accept(identity) => Ok(identity),
        Outcome::Refuse(Refusal::Token(rejection)) => Err(rejection),
        other => panic!("{other:?}"),
    }
}

fn fine() -> Value {
    json!({"sub": "ann", "exp": NOW + 100})
}

#[test]
fn a_token_says_who_how_long_and_what() {
    let rules = Rules {
        groups_claim: Some("realm.roles".to_owned()),
        publish_claim: Some("publish".to_owned()),
        subscribe_claim: Some("subscribe".to_owned()),
        ..Rules::default()
    };
    let claims = json!({"sub": "ann", "exp": NOW + 100, "publish": ["a/#", "b"], "realm": {"roles": "x y"}});
    let identity = Identity {
        user_name: Some("ann".into()),
        groups: Box::new(["x".into(), "y".into()]),
        permissions: Some(Permissions { publish: Box::new(["a/#".into(), "b".into()]), subscribe: Box::default() }),
        superuser: false,
        proof: Proof::Credentials,
        // With the minute that clocks may be apart.
        valid_for: Some(Duration::from_secs(160)),
    };
    assert_eq!(verify(&rules, &secret_keys(), hs256(&claims)), Ok(identity));
}

#[test]
fn a_token_claims_a_name_before_anything_is_verified() {
    let rules = Rules { user_name_claim: "of.user".to_owned(), token_bytes_max: 200, ..Rules::default() };
    let forged = |claims: &Value| token(&json!({"alg": "none"}), claims, |_| Vec::new());
    let long = "x".repeat(200);
    for (shown_token, expected) in [
        (forged(&json!({"of": {"user": "ann"}})), Some("ann")),
        (forged(&json!({"of": {"user": 1}})), None),
        (forged(&json!({"of": {"user": "a\u{0}"}})), None),
        (forged(&json!({"sub": "ann"})), None),
        (forged(&json!({"of": {"user": "ann"}, "x": long})), None),
        (b"ey.!.x".to_vec(), None),
        (b"ey".to_vec(), None),
        (vec![0xff, b'.', 0xff, b'.'], None),
    ] {
        let credentials = shown(shown_token);
        assert_eq!(rules.claimed_name(&credentials).as_deref(), expected, "{:?}", credentials.password);
    }
    assert_eq!(rules.claimed_name(&Credentials::default()), None);
}

#[test]
fn times_are_checked_with_the_leeway() {
    let rules = Rules::default();
    for (claims, expected) in [
        (json!({"sub": "a", "exp": NOW - 59}), Ok(())),
        (json!({"sub": "a", "exp": NOW - 60}), Err(Rejection::Expired)),
        (json!({"sub": "a", "exp": 0}), Err(Rejection::Expired)),
        (json!({"sub": "a", "exp": -1}), Err(Rejection::Expired)),
        (json!({"sub": "a", "exp": 1e300}), Ok(())),
        (json!({"sub": "a", "exp": NOW as f64 + 0.5}), Ok(())),
        (json!({"sub": "a", "exp": "never"}), Err(Rejection::Form)),
        (json!({"sub": "a", "exp": null}), Err(Rejection::Form)),
        (json!({"sub": "a"}), Err(Rejection::NoExpiry)),
        (json!({"sub": "a", "exp": NOW + 9, "nbf": NOW + 60}), Ok(())),
        (json!({"sub": "a", "exp": NOW + 9, "nbf": NOW + 61}), Err(Rejection::NotYet)),
        (json!({"sub": "a", "exp": NOW + 9, "iat": NOW + 61}), Err(Rejection::NotYet)),
        (json!({"sub": "a", "exp": NOW + 9, "nbf": []}), Err(Rejection::Form)),
    ] {
        assert_eq!(verify(&rules, &secret_keys(), hs256(&claims)).map(drop), expected, "{claims}");
    }
    let forever = Rules { require_expiry: false, ..Rules::default() };
    let identity = verify(&forever, &secret_keys(), hs256(&json!({"sub": "a"})));
    assert_eq!(identity.map(|identity| identity.valid_for), Ok(None));
}

#[test]
fn parties_names_and_lists_are_checked() {
    let rules = Rules {
        issuer: Some("us".to_owned()),
        audience: Some("mqtt".to_owned()),
        client_id_claim: Some("client".to_owned()),
        groups_claim: Some("groups".to_owned()),
        ..Rules::default()
    };
    let base = json!({"sub": "a", "exp": NOW + 9, "iss": "us", "aud": ["x", "mqtt"], "client": "c1"});
    assert!(verify(&rules, &secret_keys(), hs256(&base)).is_ok());
    for (claim, value, expected) in [
        ("iss", json!("them"), Rejection::Issuer),
        ("iss", json!(["us"]), Rejection::Issuer),
        ("aud", json!("mqtt2"), Rejection::Audience),
        ("aud", json!([]), Rejection::Audience),
        ("aud", json!({"mqtt": 1}), Rejection::Audience),
        ("client", json!("c2"), Rejection::ClientId),
        ("client", json!(null), Rejection::ClientId),
        ("sub", json!(""), Rejection::UserName),
        ("sub", json!("a\u{0}"), Rejection::UserName),
        ("sub", json!(1), Rejection::UserName),
        ("groups", json!([1]), Rejection::Permissions),
        ("groups", json!(vec!["g"; ENTRIES_MAX + 1]), Rejection::Permissions),
    ] {
        let mut claims = base.clone();
        claims[claim] = value;
        assert_eq!(verify(&rules, &secret_keys(), hs256(&claims)), Err(expected), "{claim}");
    }
}

#[test]
fn every_algorithm_verifies_what_it_signed_and_nothing_else() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    // A sequence of two integers (RFC 8017 appendix A.1.1).
    let (numbers, _) = element(rsa.public_key().as_ref(), 0x30).expect("DER");
    let (modulus, exponent) = element(numbers, 2).expect("DER");
    let (exponent, _) = element(exponent, 2).expect("DER");
    let (modulus, exponent) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    let curve = |algorithm| EcdsaKeyPair::generate(algorithm).expect("a key");
    let p256 = curve(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let p384 = curve(&signature::ECDSA_P384_SHA384_FIXED_SIGNING);
    let p521 = curve(&signature::ECDSA_P521_SHA512_FIXED_SIGNING);
    let ed25519 = Ed25519KeyPair::generate().expect("a key");
    let point = |kid: &str, name: &str, pair: &EcdsaKeyPair| {
        let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": name, "kid": kid, "x": encode(x), "y": encode(y), "use": "sig"})
    };
    let x = URL_SAFE_NO_PAD.encode(ed25519.public_key().as_ref());
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "rsa", "n": modulus, "e": exponent, "key_ops": ["verify"]},
        point("p256", "P-256", &p256), point("p384", "P-384", &p384), point("p521", "P-521", &p521),
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x, "alg": "EdDSA"},
        // What is passed over.
        {"kty": "oct", "kid": "secret", "k": URL_SAFE_NO_PAD.encode(SECRET)},
        {"kty": "RSA", "kid": "encryption", "n": modulus, "e": exponent, "use": "enc"},
        {"kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "off", "x": "AA", "y": "AA"},
        {"kty": "XYZ"}, 1, {},
    ]});
    let keys = KeySet::from_json(set.to_string().as_bytes()).expect("it is a set");
    assert_eq!(keys.len(), 5);
    let rsa_with = |padding: &'static dyn signature::RsaEncoding, message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(padding, &random, message, &mut signature).expect("it signs");
        signature
    };
    let ecdsa = |pair: &EcdsaKeyPair, message: &[u8]| pair.sign(&random, message).expect("it signs").as_ref().to_vec();
    let sign = |algorithm: Algorithm, message: &[u8]| match algorithm {
        Algorithm::Rs256 => rsa_with(&signature::RSA_PKCS1_SHA256, message),
        Algorithm::Rs384 => rsa_with(&signature::RSA_PKCS1_SHA384, message),
        Algorithm::Rs512 => rsa_with(&signature::RSA_PKCS1_SHA512, message),
        Algorithm::Ps256 => rsa_with(&signature::RSA_PSS_SHA256, message),
        Algorithm::Ps384 => rsa_with(&signature::RSA_PSS_SHA384, message),
        Algorithm::Ps512 => rsa_with(&signature::RSA_PSS_SHA512, message),
        Algorithm::Es256 => ecdsa(&p256, message),
        Algorithm::Es384 => ecdsa(&p384, message),
        Algorithm::Es512 => ecdsa(&p521, message),
        Algorithm::EdDsa => ed25519.sign(message).as_ref().to_vec(),
        Algorithm::Hs256 => hmac_sha256(message),
        Algorithm::Hs384 | Algorithm::Hs512 => Vec::new(),
    };
    let rules = Rules::default();
    for algorithm in Algorithm::ALL {
        let key_id = match algorithm {
            Algorithm::Es256 => "p256",
            Algorithm::Es384 => "p384",
            Algorithm::Es512 => "p521",
            Algorithm::EdDsa => "ed",
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                // The public key of the set is no secret, and the set's secret is none of ours.
                for key_id in ["rsa", "secret", "p256"] {
                    let header = json!({"alg": algorithm.name(), "kid": key_id});
                    let forged = token(&header, &fine(), |message| sign(algorithm, message));
                    assert_eq!(verify(&rules, &keys, forged), Err(Rejection::Key), "{algorithm:?}");
                }
                continue;
            }
            _ => "rsa",
        };
        let header = json!({"alg": algorithm.name(), "kid": key_id});
        let good = token(&header, &fine(), |message| sign(algorithm, message));
        assert!(verify(&rules, &keys, good.clone()).is_ok(), "{algorithm:?}");
        // Without a name all keys that fit are tried.
        let unnamed = token(&json!({"alg": algorithm.name()}), &fine(), |message| sign(algorithm, message));
        assert!(verify(&rules, &keys, unnamed).is_ok(), "{algorithm:?}");
        // Another claim under the same signature.
        let text = String::from_utf8(good).expect("it is text");
        let (signed, signature) = text.rsplit_once('.').expect("three parts");
        let forged =
            format!("{}.{}.{signature}", signed.split('.').next().expect("a part"), encoded(&json!({"sub": "x"})));
        assert_eq!(verify(&rules, &keys, forged.into_bytes()), Err(Rejection::Signature), "{algorithm:?}");
        assert_eq!(
            verify(&rules, &keys, format!("{signed}.").into_bytes()),
            Err(Rejection::Signature),
            "{algorithm:?}"
        );
        // An algorithm that the operator did not want.
        let other = if algorithm == Algorithm::Rs256 { Algorithm::Es256 } else { Algorithm::Rs256 };
        let strict = Rules { algorithms: vec![other], ..Rules::default() };
        assert_eq!(verify(&strict, &keys, text.into_bytes()), Err(Rejection::Algorithm), "{algorithm:?}");
    }

    // The same keys in PEM files.
    let pem = |der: &[u8]| {
        format!("# A key\n-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    };
    let rsa_der: PublicKeyX509Der<'_> = rsa.public_key().as_der().expect("DER");
    let p256_der: PublicKeyX509Der<'_> = p256.public_key().as_der().expect("DER");
    let p384_der: PublicKeyX509Der<'_> = p384.public_key().as_der().expect("DER");
    let ed25519_der: PublicKeyX509Der<'_> = ed25519.public_key().as_der().expect("DER");
    for (der, algorithm) in [
        (rsa_der.as_ref(), Algorithm::Rs256),
        (p256_der.as_ref(), Algorithm::Es256),
        (p384_der.as_ref(), Algorithm::Es384),
        (ed25519_der.as_ref(), Algorithm::EdDsa),
    ] {
        let mut keys = KeySet::default();
        keys.add(None, Key::from_pem(&pem(der)).expect("it is a key"));
        let good = token(&json!({"alg": algorithm.name()}), &fine(), |message| sign(algorithm, message));
        assert!(verify(&rules, &keys, good).is_ok(), "{algorithm:?}");
        // The file of the public key as the secret of an HMAC, which some programs have fallen for.
        let confused = token(&json!({"alg": "HS256"}), &fine(), |message| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pem(der).as_bytes()), message).as_ref().to_vec()
        });
        assert_eq!(verify(&rules, &keys, confused), Err(Rejection::Key));
        for cut in 0..der.len() {
            assert!(Key::from_pem(&pem(&der[..cut])).is_err(), "{algorithm:?} {cut}");
        }
    }
}

#[test]
fn forged_headers_get_nobody_in() {
    let (rules, keys) = (Rules::default(), secret_keys());
    for (header, expected) in [
        (json!({"alg": "none"}), Rejection::Algorithm),
        (json!({"alg": "None"}), Rejection::Algorithm),
        (json!({"alg": "hs256"}), Rejection::Algorithm),
        (json!({"alg": ""}), Rejection::Algorithm),
        (json!({"alg": null}), Rejection::Form),
        (json!({"alg": ["HS256"]}), Rejection::Form),
        (json!({"typ": "JWT"}), Rejection::Form),
        (json!({"alg": "RS256"}), Rejection::Key),
        (json!({"alg": "HS256", "crit": ["b64"], "b64": false}), Rejection::Critical),
        (json!({"alg": "HS256", "kid": 1}), Rejection::Form),
    ] {
        for sign in [hmac_sha256 as fn(&[u8]) -> Vec<u8>, |_: &[u8]| Vec::new()] {
            assert_eq!(verify(&rules, &keys, token(&header, &fine(), sign)), Err(expected), "{header}");
        }
    }
    // A name is a name, whatever it looks like: the key that the operator gave has none and serves all.
    let path = json!({"alg": "HS256", "kid": "../../../../dev/null", "jku": "http://evil.example/", "jwk": {}});
    assert!(verify(&rules, &keys, token(&path, &fine(), hmac_sha256)).is_ok());
    let empty = hmac::Key::new(hmac::HMAC_SHA256, b"");
    let forged = token(&path, &fine(), |message| hmac::sign(&empty, message).as_ref().to_vec());
    assert_eq!(verify(&rules, &keys, forged), Err(Rejection::Signature));
}

#[test]
fn what_is_no_token_is_refused_or_left_to_others() {
    let (rules, keys) = (Rules::default(), secret_keys());
    let good = hs256(&fine());
    for password in [&b"secret"[..], b"", b"ey.ab", b"ey.ab.cd.ef", b"ey.a b.c", b"a.b.c", &good[1..]] {
        assert_eq!(rules.verify(NOW, &keys, &shown(password.to_vec())), Outcome::NotMine, "{password:?}");
    }
    assert_eq!(rules.verify(NOW, &keys, &Credentials::default()), Outcome::NotMine);
    for password in ["ey..", "eyJ.eyJ.x", "eyJhbGciOiJIUzI1NiJ9.W10.x"] {
        let outcome = verify(&rules, &keys, password.as_bytes().to_vec());
        assert!(matches!(outcome, Err(Rejection::Form | Rejection::Signature)), "{password} {outcome:?}");
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{}.{}.x", URL_SAFE_NO_PAD.encode(&deep), encoded(&fine()));
    let wide = Rules { token_bytes_max: usize::MAX, ..Rules::default() };
    let credentials = shown([b"ey".as_slice(), deep.as_bytes()].concat());
    assert_eq!(wide.verify(NOW, &keys, &credentials), Outcome::Refuse(Refusal::Token(Rejection::Form)));
    let huge = json!({"sub": "ann", "exp": NOW + 9, "x": "x".repeat(8_192)});
    assert_eq!(verify(&rules, &keys, hs256(&huge)), Err(Rejection::Size));

    // A User Name that says that there is a token.
    let named = Rules { user_name: Some("jwt".to_owned()), ..Rules::default() };
    assert_eq!(named.verify(NOW, &keys, &shown(good.clone())), Outcome::NotMine);
    let with_name = |password: &[u8]| Credentials { user_name: Some("jwt".into()), ..shown(password.to_vec()) };
    assert!(matches!(named.verify(NOW, &keys, &with_name(&good)), Outcome::Accept(_)));
    let refused = Outcome::Refuse(Refusal::Token(Rejection::Form));
    assert_eq!(named.verify(NOW, &keys, &with_name(b"secret")), refused);
}

#[test]
fn a_key_is_asked_for_by_its_name() {
    let mut keys = KeySet::default();
    keys.add(Some("old"), Key::secret(&[1; 32]).expect("long enough"));
    keys.add(Some("new"), Key::secret(SECRET).expect("long enough"));
    let rules = Rules::default();
    let named = |name: &str| token(&json!({"alg": "HS256", "kid": name}), &fine(), hmac_sha256);
    assert!(verify(&rules, &keys, named("new")).is_ok());
    assert_eq!(verify(&rules, &keys, named("old")), Err(Rejection::Signature));
    assert_eq!(verify(&rules, &keys, named("other")), Err(Rejection::Key));
    assert!(Key::secret(&[1; 31]).is_err());
    assert_eq!(format!("{:?}", Key::secret(SECRET).expect("long enough")), "Key(secret)");
}

#[test]
fn what_is_no_key_set_is_refused() {
    let many = json!({"keys": vec![json!({"kty": "XYZ"}); KEYS_MAX + 1]}).to_string();
    for (text, expected) in [
        ("", KeySetError::Form),
        ("[]", KeySetError::Form),
        ("{\"keys\":{}}", KeySetError::Form),
        ("{\"keys\":[]}", KeySetError::NoneFits),
        (many.as_str(), KeySetError::TooMany),
    ] {
        assert_eq!(KeySet::from_json(text.as_bytes()).map(drop), Err(expected));
    }
}

#[test]
fn keys_are_fetched_when_due_and_no_more_often_than_may_be() {
    let mut cache = KeyCache::new(Duration::from_hours(1));
    let hour = 3_600_000;
    assert!(cache.is_due(Instant(0)) && cache.keys(Instant(0)).is_empty());
    assert!(cache.try_now(Instant(0)));
    assert!(!cache.try_now(Instant(9_999)), "an invented name is no reason for a flood");
    assert!(cache.try_now(Instant(10_000)));
    cache.renew(Instant(10_000), secret_keys());
    assert_eq!(cache.keys(Instant(10_000)).len(), 1);
    assert!(!cache.is_due(Instant(10_000 + hour - 1)) && cache.is_due(Instant(10_000 + hour)));
    // They go on to serve while they cannot be fetched, but not for ever.
    assert_eq!(cache.keys(Instant(10_000 + 24 * hour - 1)).len(), 1);
    assert!(cache.keys(Instant(10_000 + 24 * hour)).is_empty());
}
