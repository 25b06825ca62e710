//! SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677).
//!
//! We send our name and a nonce; the server answers with a longer nonce, a salt and an iteration count; we prove that we
//! know the password without sending it; its last message proves that it knows the password's hash.
//!
//! Channel binding is not offered: the server is told so by `n`, which is signed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{AuthenticationError, Authenticator, ServerError};

/// Authentication Method of SCRAM-SHA-256.
const NAME: &str = "SCRAM-SHA-256";
/// We support no channel binding, and act for ourselves (RFC 5802 section 7, `gs2-header`).
const HEADER: &str = "n,,";
/// Fewest iterations taken. RFC 7677 section 4 asks servers for as many; with fewer, who poses as the server could
/// guess the password cheaply from our proof.
const ITERATIONS_MIN: u32 = 4_096;
/// Most iterations taken: some tenths of a second of work. What is recommended to servers today for PBKDF2.
const ITERATIONS_MAX: u32 = 600_000;
/// Longest message taken, in bytes.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// Longest user name, in bytes, as servers take it.
const USER_NAME_BYTES_MAX: usize = 1_024;
/// Longest salt taken, in bytes. Servers in use send 12 to 32.
const SALT_BYTES_MAX: usize = 1_024;
/// Longest word of an error that is kept, in bytes.
const SERVER_ERROR_BYTES_MAX: usize = 64;
/// Random bytes in our nonce: 24 characters.
const NONCE_BYTES: usize = 18;

/// SHA-256's output.
type Key = Zeroizing<[u8; 32]>;

/// The method SCRAM-SHA-256: the password is not sent, and the server has to prove that it knows it too.
///
/// The first [`step`](Authenticator::step) derives keys from the password: about a millisecond per 4 096 iterations, the
/// most common count, and some tenths of a second at 600 000, the highest taken. The keys are kept, so that an exchange
/// with the same salt and count, as at a reconnect, costs a few hashes.
///
/// Password and keys are overwritten in memory when they are dropped.
///
/// ```
/// use pantala_client::authentication::{Authenticator, ScramSha256};
///
/// let mut scram = ScramSha256::new("user", "pencil")?;
/// let data = scram.start()?.expect("SCRAM begins with data of the client");
/// assert!(data.starts_with(b"n,,n=user,r="));
/// # Ok::<(), pantala_client::authentication::AuthenticationError>(())
/// ```
pub struct ScramSha256 {
    /// Prepared and escaped.
    user_name: String,
    /// Prepared.
    password: Zeroizing<String>,
    /// Keys of the last exchange.
    derived: Option<Derived>,
    state: State,
    /// In place of a random nonce.
    #[cfg(test)]
    fixed_nonce: Option<String>,
}

/// What a password, a salt and a count make.
struct Derived {
    salt: Vec<u8>,
    iterations: u32,
    client_key: Key,
    server_key: Key,
}

enum State {
    /// No exchange, or one that is over or failed.
    Idle,
    /// Waits for server-first-message.
    Started { bare: String, nonce: String },
    /// Waits for server-final-message.
    Proved { server_signature: Key },
}

/// The server's first message.
struct ServerFirst<'a> {
    /// Ours and what the server adds.
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl ScramSha256 {
    /// The method for this user.
    ///
    /// Name and password are prepared by SASLprep (RFC 4013), so that different ways to write the same characters are the
    /// same.
    ///
    /// # Errors
    /// [`AuthenticationError::UserName`] and [`AuthenticationError::Password`] for what SASLprep forbids, for the empty
    /// string, and for a name of more than 1 024 bytes.
    pub fn new(user_name: &str, password: &str) -> Result<Self, AuthenticationError> {
        let user_name = prepare(user_name).ok_or(AuthenticationError::UserName)?;
        if user_name.len() > USER_NAME_BYTES_MAX {
            return Err(AuthenticationError::UserName);
        }
        let password = Zeroizing::new(prepare(password).ok_or(AuthenticationError::Password)?);
        let user_name = user_name.replace('=', "=3D").replace(',', "=2C");
        Ok(Self {
            user_name,
            password,
            derived: None,
            state: State::Idle,
            #[cfg(test)]
            fixed_nonce: None,
        })
    }

    /// The same with a nonce that is always this one, for tests with given messages.
    #[cfg(test)]
    pub(crate) fn with_nonce(user_name: &str, password: &str, nonce: &str) -> Result<Self, AuthenticationError> {
        let mut scram = Self::new(user_name, password)?;
        scram.fixed_nonce = Some(nonce.to_owned());
        Ok(scram)
    }

    fn nonce(&self) -> Result<String, AuthenticationError> {
        #[cfg(test)]
        if let Some(nonce) = &self.fixed_nonce {
            return Ok(nonce.clone());
        }
        let mut bytes = [0; NONCE_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| AuthenticationError::Random(Box::new(error)))?;
        Ok(BASE64.encode(bytes))
    }

    fn derive(&mut self, salt: Vec<u8>, iterations: u32) -> &Derived {
        let kept = self.derived.take().filter(|derived| derived.salt == salt && derived.iterations == iterations);
        let derived = match kept {
            Some(derived) => derived,
            None => Derived::new(&self.password, salt, iterations),
        };
        self.derived.insert(derived)
    }
}

impl Authenticator for ScramSha256 {
    fn method(&self) -> &str {
        NAME
    }

    fn start(&mut self) -> Result<Option<Vec<u8>>, AuthenticationError> {
        self.state = State::Idle;
        let nonce = self.nonce()?;
        let bare = format!("n={},r={nonce}", self.user_name);
        let message = format!("{HEADER}{bare}");
        self.state = State::Started { bare, nonce };
        Ok(Some(message.into_bytes()))
    }

    fn step(&mut self, data: Option<&[u8]>) -> Result<Option<Vec<u8>>, AuthenticationError> {
        let State::Started { bare, nonce } = std::mem::replace(&mut self.state, State::Idle) else {
            return Err(AuthenticationError::Unexpected);
        };
        let message = text(data)?;
        let first = ServerFirst::parse(message, &nonce)?;
        // client-final-message-without-proof = channel-binding "," nonce
        let without_proof = format!("c={},r={}", BASE64.encode(HEADER), first.nonce);
        let signed = format!("{bare},{message},{without_proof}");
        let derived = self.derive(first.salt, first.iterations);
        let stored_key: Key = Zeroizing::new(Sha256::digest(*derived.client_key).into());
        let client_signature = hmac(&stored_key, signed.as_bytes());
        let proof: Key = Zeroizing::new(std::array::from_fn(|at| derived.client_key[at] ^ client_signature[at]));
        let server_signature = hmac(&derived.server_key, signed.as_bytes());
        self.state = State::Proved { server_signature };
        Ok(Some(format!("{without_proof},p={}", BASE64.encode(*proof)).into_bytes()))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError> {
        let State::Proved { server_signature } = std::mem::replace(&mut self.state, State::Idle) else {
            // Let in before the server has proved anything: it is none that knows the password.
            return Err(AuthenticationError::ServerSignature);
        };
        if data.is_none_or(<[u8]>::is_empty) {
            return Err(AuthenticationError::ServerSignature);
        }
        // server-final-message = (server-error / verifier) ["," extensions]
        let mut attributes = text(data)?.split(',');
        let first = attributes.next().unwrap_or_default();
        if let Some(word) = first.strip_prefix("e=") {
            return Err(AuthenticationError::Refused(server_error(word)));
        }
        let verifier = first.strip_prefix("v=").ok_or(AuthenticationError::Malformed)?;
        let verifier = BASE64.decode(verifier).map_err(|_| AuthenticationError::Malformed)?;
        attributes.try_for_each(extension)?;
        if equal(&verifier, &server_signature) { Ok(()) } else { Err(AuthenticationError::ServerSignature) }
    }
}

impl fmt::Debug for ScramSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSha256").field("user_name", &self.user_name).finish_non_exhaustive()
    }
}

impl Derived {
    fn new(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let salted: Key = Zeroizing::new(
            pbkdf2::pbkdf2_array::<Hmac<Sha256>, 32>(password.as_bytes(), &salt, iterations)
                .expect("HMAC takes keys of any length"),
        );
        let (client_key, server_key) = (hmac(&salted, b"Client Key"), hmac(&salted, b"Server Key"));
        Self { salt, iterations, client_key, server_key }
    }
}

impl<'a> ServerFirst<'a> {
    /// server-first-message = [reserved-mext ","] nonce "," salt "," iteration-count ["," extensions]
    fn parse(message: &'a str, client_nonce: &str) -> Result<Self, AuthenticationError> {
        let mut attributes = message.split(',');
        let mut next = || attributes.next().ok_or(AuthenticationError::Malformed);
        let first = next()?;
        if first.starts_with("m=") {
            return Err(AuthenticationError::Extension);
        }
        if let Some(word) = first.strip_prefix("e=") {
            return Err(AuthenticationError::Refused(server_error(word)));
        }
        let nonce = first.strip_prefix("r=").ok_or(AuthenticationError::Malformed)?;
        let salt = next()?.strip_prefix("s=").ok_or(AuthenticationError::Malformed)?;
        let salt = BASE64.decode(salt).map_err(|_| AuthenticationError::Malformed)?;
        let count = next()?.strip_prefix("i=").ok_or(AuthenticationError::Malformed)?;
        attributes.try_for_each(extension)?;

        if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) || salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(AuthenticationError::Malformed);
        }
        if nonce.strip_prefix(client_nonce).is_none_or(str::is_empty) {
            return Err(AuthenticationError::Nonce);
        }
        // posit-number = %x31-39 *DIGIT
        let digits = count.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || count.is_empty() || count.starts_with('0') {
            return Err(AuthenticationError::Malformed);
        }
        let iterations = count.parse().unwrap_or(u32::MAX);
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(AuthenticationError::Iterations(iterations));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

/// A message as text: there, UTF-8, not too long.
fn text(data: Option<&[u8]>) -> Result<&str, AuthenticationError> {
    let data = data.ok_or(AuthenticationError::Unexpected)?;
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(AuthenticationError::Malformed);
    }
    std::str::from_utf8(data).map_err(|_| AuthenticationError::Malformed)
}

/// SASLprep (RFC 4013), which leaves printable ASCII as it is; None for what it forbids, and for nothing at all.
fn prepare(text: &str) -> Option<String> {
    let prepared = stringprep::saslprep(text).ok()?;
    if prepared.is_empty() { None } else { Some(prepared.into_owned()) }
}

/// An extension that may be ignored: a letter, `=`, and a value. All but the mandatory one may (RFC 5802 section 5.1).
fn extension(attribute: &str) -> Result<(), AuthenticationError> {
    match attribute.as_bytes() {
        [b'm', b'=', ..] => Err(AuthenticationError::Extension),
        [name, b'=', value @ ..] if name.is_ascii_alphabetic() && !value.is_empty() => Ok(()),
        _ => Err(AuthenticationError::Malformed),
    }
}

/// The word that follows `e=`, safe to print.
fn server_error(word: &str) -> ServerError {
    let word = word.split(',').next().unwrap_or_default();
    ServerError(word.chars().filter(char::is_ascii_graphic).take(SERVER_ERROR_BYTES_MAX).collect())
}

fn hmac(key: &Key, data: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_slice()).expect("HMAC takes keys of any length");
    mac.update(data);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Whether they are equal, in a time that does not tell where they differ. Lengths are no secret.
fn equal(left: &[u8], right: &Key) -> bool {
    use std::hint::black_box;
    let difference = left.iter().zip(right.iter()).fold(0, |bits, (left, right)| black_box(bits | (left ^ right)));
    left.len() == right.len() && black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn started() -> ScramSha256 {
        let mut scram = ScramSha256::with_nonce("user", "pencil", NONCE).unwrap();
        assert_eq!(scram.start().unwrap().unwrap(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        scram
    }

    fn proved() -> ScramSha256 {
        let mut scram = started();
        scram.step(Some(SERVER_FIRST.as_bytes())).unwrap();
        scram
    }

    fn step(message: &str) -> String {
        match started().step(Some(message.as_bytes())) {
            Ok(data) => String::from_utf8(data.unwrap()).unwrap(),
            Err(error) => format!("{error:?}"),
        }
    }

    fn finish(message: &str) -> String {
        format!("{:?}", proved().finish(Some(message.as_bytes())))
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut scram = started();
        assert_eq!(scram.method(), "SCRAM-SHA-256");
        let last = scram.step(Some(SERVER_FIRST.as_bytes())).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.finish(Some(SERVER_FINAL.as_bytes())).unwrap();
    }

    #[test]
    fn each_exchange_has_its_own_nonce() {
        let mut scram = ScramSha256::new("user", "pencil").unwrap();
        let first = scram.start().unwrap().unwrap();
        assert_eq!(first.len(), "n,,n=user,r=".len() + 24);
        assert_ne!(scram.start().unwrap().unwrap(), first);
    }

    #[test]
    fn names_are_prepared_and_escaped() {
        for (name, sent) in [("a=b,c", "a=3Db=2Cc"), ("zoe\u{308}", "zo\u{eb}"), ("=2C", "=3D2C")] {
            let mut scram = ScramSha256::with_nonce(name, "x", "n").unwrap();
            assert_eq!(scram.start().unwrap().unwrap(), format!("n,,n={sent},r=n").into_bytes());
        }
        for (name, password, error) in [
            ("", "x", "UserName"),
            ("a\u{7}", "x", "UserName"),
            (&"x".repeat(1_025), "x", "UserName"),
            ("a", "", "Password"),
            ("a", "\u{0}", "Password"),
        ] {
            assert_eq!(format!("{:?}", ScramSha256::new(name, password).unwrap_err()), error);
        }
    }

    #[test]
    fn keys_are_derived_anew_for_another_salt_or_count_only() {
        let mut scram = proved();
        // What is derived from now on is derived from another password, and shows.
        scram.password = Zeroizing::new("pencils".to_owned());
        let mut proof = |server_first: &str| {
            scram.start().unwrap();
            String::from_utf8(scram.step(Some(server_first.as_bytes())).unwrap().unwrap()).unwrap()
        };
        assert_eq!(proof(SERVER_FIRST), step(SERVER_FIRST));
        for other in [SERVER_FIRST.replace("i=4096", "i=4097"), SERVER_FIRST.replace("s=W", "s=X")] {
            assert_ne!(proof(&other), step(&other));
        }
        assert_ne!(proof(SERVER_FIRST), step(SERVER_FIRST), "one set of keys is kept, the last");
    }

    #[test]
    fn first_messages_that_are_none() {
        let whole = |nonce: &str, salt: &str, count: &str| format!("r={nonce},s={salt},i={count}");
        let good = format!("{NONCE}x");
        let long_salt = BASE64.encode([1; 1_025]);
        for (message, error) in [
            (String::new(), "Malformed"),
            ("r=".to_owned(), "Malformed"),
            (format!("r={good}"), "Malformed"),
            (format!("r={good},s=AAAA"), "Malformed"),
            (format!("s=AAAA,r={good},i=4096"), "Malformed"),
            (whole(&good, "", "4096"), "Malformed"),
            (whole(&good, "A", "4096"), "Malformed"),
            (whole(&good, "@@@@", "4096"), "Malformed"),
            (whole(&good, &long_salt, "4096"), "Malformed"),
            (whole(&format!("{NONCE} x"), "AAAA", "4096"), "Malformed"),
            (whole(&good, "AAAA", ""), "Malformed"),
            (whole(&good, "AAAA", "x"), "Malformed"),
            (whole(&good, "AAAA", "+4096"), "Malformed"),
            (whole(&good, "AAAA", "-4096"), "Malformed"),
            (whole(&good, "AAAA", "04096"), "Malformed"),
            (whole(&good, "AAAA", "0"), "Malformed"),
            (whole(&good, "AAAA", "1"), "Iterations(1)"),
            (whole(&good, "AAAA", "4095"), "Iterations(4095)"),
            (whole(&good, "AAAA", "600001"), "Iterations(600001)"),
            (whole(&good, "AAAA", "99999999999999999999"), "Iterations(4294967295)"),
            // Ours and nothing more, another one, ours in the middle, and one of nothing.
            (whole(NONCE, "AAAA", "4096"), "Nonce"),
            (whole("abcdefghijklmnopqrstuvwxyz", "AAAA", "4096"), "Nonce"),
            (whole(&format!("x{NONCE}x"), "AAAA", "4096"), "Nonce"),
            (whole(&NONCE.to_lowercase(), "AAAA", "4096"), "Nonce"),
            (whole("", "AAAA", "4096"), "Nonce"),
            (format!("m=x,{SERVER_FIRST}"), "Extension"),
            (format!("{SERVER_FIRST},m=x"), "Extension"),
            (format!("{SERVER_FIRST},"), "Malformed"),
            (format!("{SERVER_FIRST},x"), "Malformed"),
            (format!("{SERVER_FIRST},x={}", "x".repeat(4_096)), "Malformed"),
            ("e=unknown-user".to_owned(), "Refused(ServerError(\"unknown-user\"))"),
            (SERVER_FINAL.to_owned(), "Malformed"),
        ] {
            assert_eq!(step(&message), error, "{message}");
        }
        assert!(step(&format!("{SERVER_FIRST},x=y")).starts_with("c=biws,"));
        assert!(matches!(started().step(Some(b"r=\xff")), Err(AuthenticationError::Malformed)));
        assert!(matches!(started().step(None), Err(AuthenticationError::Unexpected)));
    }

    #[test]
    fn last_messages_that_are_none() {
        let other = SERVER_FINAL.replace("v=6", "v=7");
        for (message, result) in [
            (SERVER_FINAL, "Ok(())"),
            (&format!("{SERVER_FINAL},x=y"), "Ok(())"),
            (&other, "Err(ServerSignature)"),
            ("v=", "Err(ServerSignature)"),
            ("", "Err(ServerSignature)"),
            ("v=6rri", "Err(ServerSignature)"),
            ("v=@", "Err(Malformed)"),
            ("x=y", "Err(Malformed)"),
            (&format!("{SERVER_FINAL},"), "Err(Malformed)"),
            (&format!("{SERVER_FINAL},m=x"), "Err(Extension)"),
            ("e=invalid-proof", "Err(Refused(ServerError(\"invalid-proof\")))"),
            ("e=a\u{1b}[2Jb,x=y", "Err(Refused(ServerError(\"a[2Jb\")))"),
        ] {
            assert_eq!(finish(message), result, "{message}");
        }
    }

    #[test]
    fn each_bit_of_the_signature_counts() {
        let signature = BASE64.decode(&SERVER_FINAL[2..]).unwrap();
        for bit in 0..256 {
            let mut wrong = signature.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(finish(&format!("v={}", BASE64.encode(wrong))), "Err(ServerSignature)", "bit {bit}");
        }
    }

    /// Who poses as the server may let us in without asking for a proof, or without giving one.
    #[test]
    fn success_without_the_servers_proof_is_an_error() {
        for mut scram in [ScramSha256::new("user", "pencil").unwrap(), started(), proved()] {
            assert!(matches!(scram.finish(None), Err(AuthenticationError::ServerSignature)));
        }
        for data in ["", SERVER_FINAL] {
            assert!(matches!(started().finish(Some(data.as_bytes())), Err(AuthenticationError::ServerSignature)));
        }
    }

    #[test]
    fn an_exchange_that_is_over_takes_nothing_more() {
        let mut scram = proved();
        assert!(matches!(scram.step(Some(SERVER_FIRST.as_bytes())), Err(AuthenticationError::Unexpected)));
        assert!(matches!(scram.finish(Some(SERVER_FINAL.as_bytes())), Err(AuthenticationError::ServerSignature)));
        let mut scram = proved();
        scram.finish(Some(SERVER_FINAL.as_bytes())).unwrap();
        assert!(matches!(scram.finish(Some(SERVER_FINAL.as_bytes())), Err(AuthenticationError::ServerSignature)));
        // It can be begun again.
        scram.start().unwrap();
        scram.step(Some(SERVER_FIRST.as_bytes())).unwrap();
        scram.finish(Some(SERVER_FINAL.as_bytes())).unwrap();
    }

    #[test]
    fn no_password_is_printed() {
        let printed = format!("{:?}", proved());
        assert!(printed.contains("user") && !printed.contains("pencil"), "{printed}");
    }

    proptest! {
        #[test]
        fn no_message_of_a_server_panics_or_is_believed(first: Vec<u8>, second: Vec<u8>) {
            let mut scram = started();
            prop_assert!(scram.step(Some(&first)).is_err());
            prop_assert!(scram.finish(Some(&second)).is_err());
            prop_assert!(proved().finish(Some(&second)).is_err());
        }

        /// Pieces of real messages, in any order.
        #[test]
        fn no_mixture_of_pieces_is_believed(pieces in proptest::collection::vec(piece(), 0..8)) {
            let message = pieces.concat();
            let _ = started().step(Some(message.as_bytes()));
            prop_assert!(proved().finish(Some(message.as_bytes())).is_err());
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(format!("r={NONCE}")),
            Just("x,s=AAAA,i=4096".to_owned()),
            Just(",i=".to_owned()),
            Just("v=".to_owned()),
            Just("e=x".to_owned()),
            Just("m=x,".to_owned()),
            Just(",".to_owned()),
            Just("=".to_owned()),
            Just(BASE64.encode([0; 32])),
            "\\PC{0,6}",
        ]
    }
}
