//! What an HTTP back end is asked, and what its answer means. Sending and waiting are the caller's.
//!
//! The request is a POST with `client_id`, `user_name`, `password`, `address` and `listener`, as JSON or as a form. The
//! answer is its status, and with 200 a JSON object:
//!
//! | status | means |
//! |---|---|
//! | 200 with an object | what `result` says: `allow`, `deny`, or `ignore`, which asks the next back end |
//! | 200 without a body, 204 | allow |
//! | 401, 403 | deny |
//! | any other, or a body that cannot be read | no answer: nobody is let in |
//!
//! Besides `result` the object may have `user_name` (else that of CONNECT), `superuser`, `publish` and `subscribe` (lists
//! of Topic Filters), `groups` (a list of texts), and `expires_in` (seconds after which the client is disconnected).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::jwt::can_be_name;
use crate::{Credentials, Identity, Outcome, Permissions, Refusal, Unavailable};

/// The longest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 65_536;
/// The most groups, or Topic Filters of one kind, in an answer.
const ENTRIES_MAX: usize = 1_024;

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A JSON object. A password that is not UTF-8 is in `password_base64` in place of `password`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`, all bytes of the password as they are.
    Form,
}

impl Format {
    /// The Content-Type of requests.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }

    /// The body of a request. What a client has not shown is left out.
    pub fn body(self, credentials: &Credentials) -> Vec<u8> {
        let address = credentials.address.map(|address| address.to_string());
        let listener = credentials.listener.to_string();
        match self {
            Self::Json => {
                let mut body = Map::new();
                body.insert("client_id".to_owned(), json!(&*credentials.client_id));
                if let Some(user_name) = &credentials.user_name {
                    body.insert("user_name".to_owned(), json!(&**user_name));
                }
                match credentials.password.as_deref().map(|password| (std::str::from_utf8(password), password)) {
                    None => {}
                    Some((Ok(text), _)) => drop(body.insert("password".to_owned(), json!(text))),
                    Some((Err(_), bytes)) => {
                        drop(body.insert("password_base64".to_owned(), json!(STANDARD.encode(bytes))));
                    }
                }
                if let Some(name) = &credentials.certificate_name {
                    body.insert("certificate_name".to_owned(), json!(&**name));
                }
                if let Some(address) = address {
                    body.insert("address".to_owned(), json!(address));
                }
                body.insert("listener".to_owned(), json!(credentials.listener));
                Value::Object(body).to_string().into_bytes()
            }
            Self::Form => {
                let pairs = [
                    ("client_id", Some(credentials.client_id.as_bytes())),
                    ("user_name", credentials.user_name.as_deref().map(str::as_bytes)),
                    ("password", credentials.password.as_deref()),
                    ("certificate_name", credentials.certificate_name.as_deref().map(str::as_bytes)),
                    ("address", address.as_deref().map(str::as_bytes)),
                    ("listener", Some(listener.as_bytes())),
                ];
                let mut body = Vec::new();
                for (name, value) in pairs {
                    let Some(value) = value else { continue };
                    if !body.is_empty() {
                        body.push(b'&');
                    }
                    body.extend_from_slice(name.as_bytes());
                    body.push(b'=');
                    form_encode(value, &mut body);
                }
                body
            }
        }
    }
}

fn form_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A status that means nothing to us.
    #[error("status {0}")]
    Status(u16),
    /// The body is not an object with what it may have.
    #[error("a body that cannot be read: {0}")]
    Body(&'static str),
}

/// What an answer means.
///
/// # Errors
/// If it is none. Nobody is to be let in then: see [`unavailable`].
pub fn read_answer(status: u16, body: &[u8], credentials: &Credentials) -> Result<Outcome, AnswerError> {
    match status {
        204 => Ok(allow(&Map::new(), credentials)?),
        200 if body.iter().all(u8::is_ascii_whitespace) => Ok(allow(&Map::new(), credentials)?),
        200 if body.len() > ANSWER_BYTES_MAX => Err(AnswerError::Body("it is too long")),
        200 => {
            let answer = serde_json::from_slice(body).map_err(|_| AnswerError::Body("it is no JSON object"))?;
            let Value::Object(answer) = answer else { return Err(AnswerError::Body("it is no JSON object")) };
            match answer.get("result").and_then(Value::as_str) {
                Some("allow") => allow(&answer, credentials),
                Some("deny") => Ok(Outcome::Refuse(Refusal::Http)),
                Some("ignore") => Ok(Outcome::NotMine),
                _ => Err(AnswerError::Body("\"result\" has to be \"allow\", \"deny\" or \"ignore\"")),
            }
        }
        401 | 403 => Ok(Outcome::Refuse(Refusal::Http)),
        _ => Err(AnswerError::Status(status)),
    }
}

/// The outcome where there is no answer.
pub fn unavailable() -> Outcome {
    Outcome::Refuse(Refusal::Unavailable(Unavailable::Http))
}

fn allow(answer: &Map<String, Value>, credentials: &Credentials) -> Result<Outcome, AnswerError> {
    let user_name = match answer.get("user_name") {
        None | Some(Value::Null) => credentials.user_name.clone(),
        Some(Value::String(name)) if can_be_name(name) => Some(name.as_str().into()),
        Some(_) => return Err(AnswerError::Body("\"user_name\" cannot be one")),
    };
    let superuser = match answer.get("superuser") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(superuser)) => *superuser,
        Some(_) => return Err(AnswerError::Body("\"superuser\" has to be true or false")),
    };
    let list = |name: &str, wrong| match answer.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(texts)) if texts.len() <= ENTRIES_MAX => {
            let texts: Option<Box<[Box<str>]>> = texts.iter().map(|text| text.as_str().map(Box::from)).collect();
            texts.map(Some).ok_or(AnswerError::Body(wrong))
        }
        Some(_) => Err(AnswerError::Body(wrong)),
    };
    let publish = list("publish", "\"publish\" has to be a list of at most 1024 texts")?;
    let subscribe = list("subscribe", "\"subscribe\" has to be a list of at most 1024 texts")?;
    let groups = list("groups", "\"groups\" has to be a list of at most 1024 texts")?;
    let valid_for = match answer.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(seconds) => {
            let seconds = seconds.as_u64().filter(|seconds| *seconds > 0);
            Some(Duration::from_secs(seconds.ok_or(AnswerError::Body("\"expires_in\" has to be a number of seconds"))?))
        }
    };
    // Who is given the one is not given the other by silence.
    let permissions = (publish.is_some() || subscribe.is_some())
        .then(|| Permissions { publish: publish.unwrap_or_default(), subscribe: subscribe.unwrap_or_default() });
    let groups = groups.unwrap_or_default();
    Ok(Outcome::Accept(Identity { user_name, groups, permissions, superuser, valid_for, ..Identity::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Proof;

    fn credentials() -> Credentials {
        Credentials {
            client_id: "c&1".into(),
            user_name: Some("änn".into()),
            password: Some(b"a b=\"\0"[..].into()),
            certificate_name: None,
            address: Some([127, 0, 0, 1].into()),
            listener: 3,
        }
    }

    #[test]
    fn requests_hold_what_the_client_has_shown() {
        let json: Value = serde_json::from_slice(&Format::Json.body(&credentials())).expect("it is JSON");
        let expected = json!({
            "client_id": "c&1", "user_name": "änn", "password": "a b=\"\u{0}", "address": "127.0.0.1", "listener": 3
        });
        assert_eq!(json, expected);
        let form = String::from_utf8(Format::Form.body(&credentials())).expect("it is ASCII");
        assert_eq!(form, "client_id=c%261&user_name=%C3%A4nn&password=a+b%3D%22%00&address=127.0.0.1&listener=3");
        let bytes = Credentials { password: Some(b"\xff"[..].into()), ..Credentials::default() };
        let json: Value = serde_json::from_slice(&Format::Json.body(&bytes)).expect("it is JSON");
        assert_eq!(json, json!({"client_id": "", "password_base64": "/w==", "listener": 0}));
    }

    #[test]
    fn an_answer_says_all_there_is_to_say() {
        let body = br#"{"result":"allow","user_name":"bob","superuser":true,"publish":["a/#"],"groups":["g"],
                        "expires_in":60,"more":1}"#;
        let identity = Identity {
            user_name: Some("bob".into()),
            groups: Box::new(["g".into()]),
            permissions: Some(Permissions { publish: Box::new(["a/#".into()]), subscribe: Box::default() }),
            superuser: true,
            proof: Proof::Credentials,
            valid_for: Some(Duration::from_secs(60)),
        };
        assert_eq!(read_answer(200, body, &credentials()), Ok(Outcome::Accept(identity)));
    }

    #[test]
    fn a_status_alone_may_be_an_answer() {
        let accepted = Ok(Outcome::Accept(Identity::named("änn")));
        for (status, body, expected) in [
            (200, "", accepted.clone()),
            (204, "", accepted.clone()),
            (200, "\r\n", accepted.clone()),
            (200, r#"{"result":"allow"}"#, accepted),
            (200, r#"{"result":"deny"}"#, Ok(Outcome::Refuse(Refusal::Http))),
            (200, r#"{"result":"ignore"}"#, Ok(Outcome::NotMine)),
            (401, "whatever", Ok(Outcome::Refuse(Refusal::Http))),
            (403, "", Ok(Outcome::Refuse(Refusal::Http))),
            (302, "", Err(AnswerError::Status(302))),
            (404, "", Err(AnswerError::Status(404))),
            (500, r#"{"result":"allow"}"#, Err(AnswerError::Status(500))),
        ] {
            assert_eq!(read_answer(status, body.as_bytes(), &credentials()), expected, "{status} {body}");
        }
    }

    #[test]
    fn what_cannot_be_read_lets_nobody_in() {
        for body in [
            "allow",
            "[]",
            "{}",
            r#"{"result":"ALLOW"}"#,
            r#"{"result":true}"#,
            r#"{"result":"allow","superuser":"yes"}"#,
            r#"{"result":"allow","user_name":""}"#,
            r#"{"result":"allow","user_name":"a\u0000"}"#,
            r#"{"result":"allow","user_name":1}"#,
            r#"{"result":"allow","publish":"a"}"#,
            r#"{"result":"allow","publish":[1]}"#,
            r#"{"result":"allow","groups":{}}"#,
            r#"{"result":"allow","expires_in":0}"#,
            r#"{"result":"allow","expires_in":-1}"#,
            r#"{"result":"allow","expires_in":"60"}"#,
            &format!("{{\"result\":\"allow\",\"publish\":[{}\"x\"]}}", "\"x\",".repeat(ENTRIES_MAX)),
            &format!("{{\"result\":\"allow\",\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)),
            &format!("{{\"result\":\"allow\"}}{}", " ".repeat(ANSWER_BYTES_MAX)),
        ] {
            let answer = read_answer(200, body.as_bytes(), &credentials());
            assert!(matches!(answer, Err(AnswerError::Body(_))), "{answer:?} for {}", &body[..body.len().min(80)]);
        }
    }
}
