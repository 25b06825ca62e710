//! Bytes from outside, whatever they are: the checks of the fuzz targets, on inputs that get further than chance would.

use proptest::prelude::*;

#[allow(dead_code, reason = "the list of them is for the corpora")]
mod targets;

fn pieces(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_token_that_nobody_signed_lets_nobody_in(
        input in pieces(&[
            "eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ", ".", "e30",
            "eyJzdWIiOiJhIn0", "AAAA", "=",
        ]),
    ) {
        targets::token(&input);
    }

    #[test]
    fn a_key_set_is_read_or_refused(
        input in pieces(&[
            "{\"keys\":[", "]}", "{", "}", ",", "\"kty\":\"RSA\"", "\"kty\":\"EC\"", "\"kty\":\"OKP\"", "\"crv\":\"P-256\"",
            "\"crv\":\"Ed25519\"", "\"n\":\"AQAB\"", "\"e\":\"AQAB\"",
            "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"", "\"y\":\"AA\"", "\"alg\":\"RS256\"", "\"kid\":\"1\"",
            "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
        ]),
    ) {
        targets::key_set(&input);
    }

    #[test]
    fn an_answer_that_does_not_say_so_lets_nobody_in(
        status in prop::sample::select(&[200_u16, 204, 401, 403, 500, 0, 65_535][..]),
        body in pieces(&[
            "{", "}", "\"result\"", ":", "\"allow\"", "\"deny\"", "\"ignore\"", ",", "\"user_name\"", "\"superuser\"", "true",
            "null", "\"publish\"", "\"subscribe\"", "\"groups\"", "[", "]", "\"a/#\"", "\"expires_in\"", "60", "0", "-1",
        ]),
    ) {
        targets::http_answer(&[&status.to_be_bytes()[..], &body].concat());
    }
}
