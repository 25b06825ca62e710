//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677).
//!
//! The client sends `n,,n=USER,r=NONCE`; we answer with a longer nonce, a salt and the iteration count; the client
//! proves that it knows the password without sending it; our last message proves that we know its hash.
//!
//! What is kept of a password are two keys derived from it, at 4 096 iterations, when the method is made; an exchange
//! costs a few HMACs. Salts are derived from a secret and the user's name, for users that exist and for users that do
//! not: the answer to an unknown name looks like any other, at each attempt the same, and takes the same work.
//!
//! There is no channel binding: TLS ends below us, and a broker that does not offer SCRAM-SHA-256-PLUS accepts `n`
//! and `y` and refuses `p` (RFC 5802 section 6).

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::{Exchange, Failure, Method, Step};
use crate::SecurityId;
use crate::settings::ScramUser;

/// Authentication Method of SCRAM-SHA-256.
const NAME: &str = "SCRAM-SHA-256";
/// What RFC 7677 section 4 asks for at least, and what most clients expect.
const ITERATIONS: u32 = 4_096;
const SALT_BYTES: usize = 16;
/// Longest message taken, in bytes. A first message of a 1 KiB name in which each character is escaped fits.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// Longest user name, in bytes, after unescaping. RFC 5802 gives no bound.
const USER_NAME_BYTES_MAX: usize = 1_024;
/// Longest nonce of a client, in bytes. Clients in use send 16 to 64.
const CLIENT_NONCE_BYTES_MAX: usize = 512;

/// SHA-256's output.
type Key = [u8; 32];

/// The method SCRAM-SHA-256 with its users.
pub struct ScramSha256 {
    users: Arc<Users>,
}

/// What an exchange is checked against.
struct Users {
    /// By a keyed hash of domain and name: how long a look-up takes then says nothing about names near the one looked for.
    credentials: BTreeMap<Key, Credentials>,
    /// Salts of all users, and keys of those that do not exist, come from it.
    secret: Key,
}

/// What is kept of a password (RFC 5802 section 3).
#[derive(Clone)]
struct Credentials {
    salt: [u8; SALT_BYTES],
    stored_key: Key,
    server_key: Key,
}

/// A user that no client could ever authenticate as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScramUserError {
    /// The name is empty, longer than 1 024 bytes, or holds characters that SASLprep (RFC 4013) forbids.
    Name(String),
    /// The password of the user of this name is empty or holds characters that SASLprep forbids.
    Password(String),
    /// Two users have this name, after SASLprep.
    Duplicate(String),
}

impl ScramSha256 {
    /// The method for these users.
    ///
    /// `secret` must be random, and the same in all workers: a user's salt depends on it. Derives two keys for each
    /// user, which takes about a millisecond of processor time each.
    ///
    /// # Errors
    /// [`ScramUserError`] for the first user that could never log in, or stands twice.
    pub fn new(users: &[ScramUser], secret: [u8; 32]) -> Result<Self, ScramUserError> {
        let mut credentials = BTreeMap::new();
        for user in users {
            let name = prepare_name(&user.name).ok_or_else(|| ScramUserError::Name(user.name.clone()))?;
            let password = prepare(&user.password).ok_or_else(|| ScramUserError::Password(user.name.clone()))?;
            let derived = Credentials::derive(&password, salt(&secret, user.security, &name), ITERATIONS);
            if credentials.insert(index(&secret, user.security, &name), derived).is_some() {
                return Err(ScramUserError::Duplicate(user.name.clone()));
            }
        }
        Ok(Self { users: Arc::new(Users { credentials, secret }) })
    }

    fn begin_with(&self, security: SecurityId, server_nonce: String) -> ServerExchange {
        ServerExchange { users: Arc::clone(&self.users), security, state: State::Begun { server_nonce } }
    }
}

impl Method for ScramSha256 {
    fn name(&self) -> &str {
        NAME
    }

    fn begin(&self, security: SecurityId, server_nonce: [u8; 18]) -> Box<dyn Exchange> {
        Box::new(self.begin_with(security, BASE64.encode(server_nonce)))
    }
}

impl fmt::Debug for ScramSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSha256").field("users", &self.users.credentials.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for ScramUserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} cannot be a user name"),
            Self::Password(name) => write!(f, "the password of {name:?} is empty or holds forbidden characters"),
            Self::Duplicate(name) => write!(f, "user {name:?} stands twice"),
        }
    }
}

impl std::error::Error for ScramUserError {}

impl Users {
    /// The credentials of the user, and whether the domain has such a user. Both cases take the same steps.
    fn find(&self, security: SecurityId, name: &str) -> (Credentials, bool) {
        let unknown = Credentials {
            salt: salt(&self.secret, security, name),
            stored_key: hmac(&self.secret, &[b"stored key ", name.as_bytes()]),
            server_key: hmac(&self.secret, &[b"server key ", name.as_bytes()]),
        };
        match self.credentials.get(&index(&self.secret, security, name)) {
            Some(known) => (known.clone(), true),
            None => (unknown, false),
        }
    }
}

impl Credentials {
    fn derive(password: &str, salt: [u8; SALT_BYTES], iterations: u32) -> Self {
        let salted: Key = pbkdf2::pbkdf2_array::<Hmac<Sha256>, 32>(password.as_bytes(), &salt, iterations)
            .expect("HMAC takes keys of any length");
        let client_key = hmac(&salted, &[b"Client Key"]);
        Self { salt, stored_key: Sha256::digest(client_key).into(), server_key: hmac(&salted, &[b"Server Key"]) }
    }
}

/// The server's side of one exchange.
struct ServerExchange {
    users: Arc<Users>,
    security: SecurityId,
    state: State,
}

enum State {
    /// Waits for the first message.
    Begun { server_nonce: String },
    /// Waits for the last.
    Challenged(Box<Challenge>),
    /// Is over.
    Finished,
}

/// What the last message is checked against.
struct Challenge {
    user_name: String,
    known: bool,
    credentials: Credentials,
    /// The first message's header, which `c=` repeats.
    header: String,
    /// The client's nonce and ours.
    nonce: String,
    /// `client-first-message-bare,server-first-message,`: how the signed text begins.
    signed: String,
}

impl Exchange for ServerExchange {
    fn step(&mut self, client_data: &[u8]) -> Step {
        let result = match std::mem::replace(&mut self.state, State::Finished) {
            State::Begun { server_nonce } => Challenge::new(&self.users, self.security, client_data, &server_nonce)
                .map(|(challenge, message)| {
                    self.state = State::Challenged(Box::new(challenge));
                    Step::Continue(message.into_bytes())
                }),
            State::Challenged(challenge) => challenge.check(client_data),
            State::Finished => Err(Failure::Finished),
        };
        result.unwrap_or_else(Step::Failure)
    }

    fn user_name(&self) -> Option<&str> {
        match &self.state {
            State::Challenged(challenge) => Some(&challenge.user_name),
            State::Begun { .. } | State::Finished => None,
        }
    }
}

impl Challenge {
    /// Reads client-first-message and makes server-first-message.
    fn new(
        users: &Users,
        security: SecurityId,
        client_data: &[u8],
        server_nonce: &str,
    ) -> Result<(Self, String), Failure> {
        let message = text(client_data)?;
        // gs2-header = gs2-cbind-flag "," [ authzid ] ","
        let (flag, rest) = message.split_once(',').ok_or(Failure::Malformed)?;
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(Failure::ChannelBinding),
            _ => return Err(Failure::Malformed),
        }
        let (authzid, bare) = rest.split_once(',').ok_or(Failure::Malformed)?;
        let header = &message[..message.len() - bare.len()];

        // client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]
        let mut attributes = bare.split(',');
        let mut next = || attributes.next().ok_or(Failure::Malformed);
        let first = next()?;
        if first.starts_with("m=") {
            return Err(Failure::Extension);
        }
        let user_name = user_name(first.strip_prefix("n=").ok_or(Failure::Malformed)?)?;
        let client_nonce = next()?.strip_prefix("r=").ok_or(Failure::Malformed)?;
        let printable = client_nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if client_nonce.is_empty() || client_nonce.len() > CLIENT_NONCE_BYTES_MAX || !printable {
            return Err(Failure::Malformed);
        }
        attributes.try_for_each(extension)?;
        if let Some(authzid) = authzid.strip_prefix("a=") {
            if self::user_name(authzid)? != user_name {
                return Err(Failure::AuthorizationIdentity);
            }
        } else if !authzid.is_empty() {
            return Err(Failure::Malformed);
        }

        let (credentials, known) = users.find(security, &user_name);
        let nonce = format!("{client_nonce}{server_nonce}");
        let message = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(credentials.salt));
        let signed = format!("{bare},{message},");
        Ok((Self { user_name, known, credentials, header: header.to_owned(), nonce, signed }, message))
    }

    /// Reads client-final-message and makes server-final-message.
    fn check(&self, client_data: &[u8]) -> Result<Step, Failure> {
        let message = text(client_data)?;
        // client-final-message = channel-binding "," nonce ["," extensions] "," proof
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Failure::Malformed)?;
        let mut attributes = without_proof.split(',');
        let mut next = || attributes.next().ok_or(Failure::Malformed);
        let binding = next()?;
        if binding.starts_with("m=") {
            return Err(Failure::Extension);
        }
        let binding = binding.strip_prefix("c=").ok_or(Failure::Malformed)?;
        let binding = BASE64.decode(binding).map_err(|_| Failure::Malformed)?;
        let nonce = next()?.strip_prefix("r=").ok_or(Failure::Malformed)?;
        attributes.try_for_each(extension)?;
        let proof: Key = BASE64.decode(proof).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(Failure::Malformed)?;
        if binding != self.header.as_bytes() {
            return Err(Failure::ChannelBinding);
        }
        if nonce != self.nonce {
            return Err(Failure::Nonce);
        }

        let signed: [&[u8]; 2] = [self.signed.as_bytes(), without_proof.as_bytes()];
        let client_signature = hmac(&self.credentials.stored_key, &signed);
        let client_key: Key = std::array::from_fn(|at| proof[at] ^ client_signature[at]);
        let right = equal(&Sha256::digest(client_key).into(), &self.credentials.stored_key);
        let server_signature = hmac(&self.credentials.server_key, &signed);
        if !(right & self.known) {
            return Err(Failure::Credentials);
        }
        let data = format!("v={}", BASE64.encode(server_signature)).into_bytes();
        Ok(Step::Success { data, user_name: self.user_name.clone() })
    }
}

/// A message as text: UTF-8, not too long.
fn text(data: &[u8]) -> Result<&str, Failure> {
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(Failure::Malformed);
    }
    std::str::from_utf8(data).map_err(|_| Failure::Malformed)
}

/// A `saslname`, unescaped and prepared: `=2C` is a comma, `=3D` an equals sign, and no other `=` may stand.
fn user_name(escaped: &str) -> Result<String, Failure> {
    let mut name = String::with_capacity(escaped.len());
    let mut parts = escaped.split('=');
    name.extend(parts.next());
    for part in parts {
        let (character, rest) = match part.as_bytes() {
            [b'2', b'C', ..] => (',', &part[2..]),
            [b'3', b'D', ..] => ('=', &part[2..]),
            _ => return Err(Failure::Malformed),
        };
        name.push(character);
        name.push_str(rest);
    }
    prepare_name(&name).ok_or(Failure::Malformed)
}

/// What a [`ScramUser`] of this name is called when it has authenticated: the name by SASLprep (RFC 4013), which makes one of
/// those that look alike. None if nobody can have it.
pub fn prepared_user_name(name: &str) -> Option<String> {
    prepare_name(name)
}

fn prepare_name(name: &str) -> Option<String> {
    let name = prepare(name)?;
    (name.len() <= USER_NAME_BYTES_MAX).then_some(name)
}

/// SASLprep (RFC 4013), which leaves printable ASCII as it is; None for what it forbids, and for nothing at all.
fn prepare(text: &str) -> Option<String> {
    let prepared = stringprep::saslprep(text).ok()?;
    if prepared.is_empty() { None } else { Some(prepared.into_owned()) }
}

/// An extension that may be ignored: a letter, `=`, and a value. All but the mandatory one may (RFC 5802 section 5.1).
fn extension(attribute: &str) -> Result<(), Failure> {
    match attribute.as_bytes() {
        [b'm', b'=', ..] => Err(Failure::Extension),
        [name, b'=', value @ ..] if name.is_ascii_alphabetic() && !value.is_empty() && !value.contains(&0) => Ok(()),
        _ => Err(Failure::Malformed),
    }
}

fn index(secret: &Key, security: SecurityId, name: &str) -> Key {
    hmac(secret, &[b"name ", &security.0.to_le_bytes(), name.as_bytes()])
}

fn salt(secret: &Key, security: SecurityId, name: &str) -> [u8; SALT_BYTES] {
    let derived = hmac(secret, &[b"salt ", &security.0.to_le_bytes(), name.as_bytes()]);
    std::array::from_fn(|at| derived[at])
}

fn hmac(key: &Key, parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether the keys are equal, in a time that does not tell where they differ.
fn equal(left: &Key, right: &Key) -> bool {
    let difference = left.iter().zip(right).fold(0, |bits, (left, right)| black_box(bits | (left ^ right)));
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use pantala_proto::ReasonCode;
    use proptest::prelude::*;

    const HOME: SecurityId = SecurityId(0);

    /// The client's side, as far as tests need it.
    struct Client {
        header: &'static str,
        bare: String,
        nonce: String,
        password: &'static str,
    }

    /// A last message, and the signature that the server must answer it with.
    struct Final {
        message: String,
        server_signature: Key,
    }

    impl Client {
        fn new(user_name: &str, password: &'static str) -> Self {
            let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
            Self { header: "n,,", bare: format!("n={user_name},r={nonce}"), nonce, password }
        }

        fn first(&self) -> String {
            format!("{}{}", self.header, self.bare)
        }

        fn last(&self, server_first: &[u8]) -> Final {
            let server_first = std::str::from_utf8(server_first).unwrap();
            let [nonce, salt, iterations] = attributes(server_first);
            assert!(nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len());
            let without_proof = format!("c={},r={nonce}", BASE64.encode(self.header));
            let text = format!("{},{server_first},{without_proof}", self.bare);
            let salt = BASE64.decode(salt).unwrap();
            let salted =
                pbkdf2::pbkdf2_array::<Hmac<Sha256>, 32>(self.password.as_bytes(), &salt, iterations.parse().unwrap())
                    .unwrap();
            let client_key = hmac(&salted, &[b"Client Key"]);
            let signature = hmac(&Sha256::digest(client_key).into(), &[text.as_bytes()]);
            let proof: Key = std::array::from_fn(|at| client_key[at] ^ signature[at]);
            let server_signature = hmac(&hmac(&salted, &[b"Server Key"]), &[text.as_bytes()]);
            Final { message: format!("{without_proof},p={}", BASE64.encode(proof)), server_signature }
        }
    }

    /// The values of server-first-message.
    fn attributes(server_first: &str) -> [&str; 3] {
        let values: Vec<&str> = server_first.splitn(3, ',').collect();
        let value = |at: usize, name: &str| values[at].strip_prefix(name).unwrap();
        [value(0, "r="), value(1, "s="), value(2, "i=")]
    }

    fn user(name: &str, password: &str) -> ScramUser {
        ScramUser { name: name.to_owned(), password: password.to_owned(), security: HOME }
    }

    fn method() -> ScramSha256 {
        ScramSha256::new(&[user("user", "pencil"), user("a=b,c", "secret"), user("zoë", "p\u{e9}")], [7; 32]).unwrap()
    }

    fn nonce(number: u8) -> [u8; 18] {
        [number; 18]
    }

    fn challenge(exchange: &mut dyn Exchange, first: &str) -> Vec<u8> {
        match exchange.step(first.as_bytes()) {
            Step::Continue(data) => data,
            other => panic!("{first}: {other:?}"),
        }
    }

    fn first_of(message: &[u8]) -> Step {
        method().begin(HOME, nonce(1)).step(message)
    }

    /// Begins an exchange of `client`, and gives its last message as `change` leaves it.
    fn last_of(client: &Client, change: impl FnOnce(&str) -> String) -> Step {
        let mut exchange = method().begin(HOME, nonce(1));
        let server_first = challenge(exchange.as_mut(), &client.first());
        exchange.step(change(&client.last(&server_first).message).as_bytes())
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let credentials = [(index(&[0; 32], HOME, "user"), Credentials::derive("pencil", salt, 4_096))];
        let users = Arc::new(Users { credentials: credentials.into(), secret: [0; 32] });
        let mut exchange = ScramSha256 { users }.begin_with(HOME, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned());
        let server_first = challenge(&mut exchange, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(
            String::from_utf8(server_first).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let data = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec();
        assert_eq!(exchange.step(last.as_bytes()), Step::Success { data, user_name: "user".to_owned() });
    }

    #[test]
    fn a_client_with_the_password_is_let_in_and_can_tell_the_server() {
        for (user_name, password, header, expected) in [
            ("user", "pencil", "n,,", "user"),
            ("user", "pencil", "y,,", "user"),
            ("user", "pencil", "n,a=user,", "user"),
            ("a=3Db=2Cc", "secret", "n,,", "a=b,c"),
            // Another way to write the same name and password: SASLprep composes them (RFC 4013 section 2.2).
            ("zoe\u{308}", "p\u{e9}", "n,,", "zo\u{eb}"),
        ] {
            let client = Client { header, ..Client::new(user_name, password) };
            let mut exchange = method().begin(HOME, nonce(1));
            let last = client.last(&challenge(exchange.as_mut(), &client.first()));
            let data = format!("v={}", BASE64.encode(last.server_signature)).into_bytes();
            assert_eq!(
                exchange.step(last.message.as_bytes()),
                Step::Success { data, user_name: expected.to_owned() },
                "{user_name} {header}"
            );
            assert_eq!(exchange.step(last.message.as_bytes()), Step::Failure(Failure::Finished));
        }
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_fail_alike() {
        for client in [Client::new("user", "pencils"), Client::new("nobody", "pencil"), Client::new("User", "pencil")] {
            assert_eq!(last_of(&client, str::to_owned), Step::Failure(Failure::Credentials), "{}", client.bare);
        }
        assert_eq!(Failure::Credentials.reason_code(), ReasonCode::NotAuthorized);
    }

    #[test]
    fn an_unknown_user_is_challenged_like_a_known_one() {
        let method = method();
        let challenge = |name: &str, number| {
            let first = challenge(method.begin(HOME, nonce(number)).as_mut(), &Client::new(name, "").first());
            String::from_utf8(first).unwrap()
        };
        let [known, unknown, other] = [challenge("user", 1), challenge("nobody", 1), challenge("nobodx", 1)];
        assert_eq!(known.len(), unknown.len());
        let salt = |message: &str| attributes(message)[1].to_owned();
        assert_ne!(salt(&known), salt(&unknown));
        assert_ne!(salt(&unknown), salt(&other));
        // The salt stays when the client asks again, as that of a known user does.
        assert_eq!(salt(&unknown), salt(&challenge("nobody", 2)));
        assert_eq!(salt(&known), salt(&challenge("user", 2)));
    }

    /// A name alone is no proof, and neither is that of another domain's user: tenants may have users of one name.
    #[test]
    fn a_user_of_one_domain_is_unknown_in_another() {
        let other = ScramUser { security: SecurityId(1), ..user("user", "pen") };
        let method = ScramSha256::new(&[user("user", "pencil"), other], [7; 32]).unwrap();
        let try_in = |security, password| {
            let client = Client::new("user", password);
            let mut exchange = method.begin(security, nonce(1));
            let last = client.last(&challenge(exchange.as_mut(), &client.first()));
            matches!(exchange.step(last.message.as_bytes()), Step::Success { .. })
        };
        for (security, password, expected) in
            [(0, "pencil", true), (0, "pen", false), (1, "pencil", false), (1, "pen", true), (2, "pencil", false)]
        {
            assert_eq!(try_in(SecurityId(security), password), expected, "{security} {password}");
        }
    }

    #[test]
    fn who_is_about_to_give_a_proof_is_known() {
        let client = Client::new("user", "pencil");
        let mut exchange = method().begin(HOME, nonce(1));
        assert_eq!(exchange.user_name(), None);
        let last = client.last(&challenge(exchange.as_mut(), &client.first()));
        assert_eq!(exchange.user_name(), Some("user"));
        assert!(matches!(exchange.step(last.message.as_bytes()), Step::Success { .. }));
        assert_eq!(exchange.user_name(), None);
    }

    /// F9: what was recorded in one exchange is of no use in another.
    #[test]
    fn f9_a_recorded_last_message_is_refused_in_another_exchange() {
        let method = method();
        let client = Client::new("user", "pencil");
        let mut recorded = method.begin(HOME, nonce(1));
        let last = client.last(&challenge(recorded.as_mut(), &client.first()));
        assert!(matches!(recorded.step(last.message.as_bytes()), Step::Success { .. }));
        let mut replayed = method.begin(HOME, nonce(2));
        challenge(replayed.as_mut(), &client.first());
        assert_eq!(replayed.step(last.message.as_bytes()), Step::Failure(Failure::Nonce));
    }

    #[test]
    fn f9_another_nonce_than_the_one_of_the_exchange_is_refused() {
        let client = Client::new("user", "pencil");
        let replace = |by: &str| {
            last_of(&client, |message| {
                let (before, after) = message.split_once(",r=").unwrap();
                let (_, proof) = after.split_once(",p=").unwrap();
                format!("{before},r={by},p={proof}")
            })
        };
        let whole = format!("{}{}", client.nonce, BASE64.encode(nonce(1)));
        for wrong in ["", &client.nonce, &whole[..whole.len() - 1], &format!("{whole}A"), &whole.to_lowercase()] {
            assert_eq!(replace(wrong), Step::Failure(Failure::Nonce), "{wrong}");
        }
        assert!(matches!(replace(&whole), Step::Success { .. }));
    }

    #[test]
    fn f9_another_channel_binding_than_in_the_first_message_is_refused() {
        for (header, claimed) in [("n,,", "y,,"), ("y,,", "n,,"), ("n,,", "n,a=user,"), ("n,,", ""), ("n,,", "p=x,,")] {
            let client = Client { header, ..Client::new("user", "pencil") };
            let step = last_of(&client, |message| {
                message.replace(&format!("c={}", BASE64.encode(header)), &format!("c={}", BASE64.encode(claimed)))
            });
            assert_eq!(step, Step::Failure(Failure::ChannelBinding), "{claimed}");
        }
    }

    #[test]
    fn f9_channel_binding_is_refused_at_once() {
        for header in ["p=tls-unique,,", "p=tls-exporter,a=user,", "p=,,"] {
            let client = Client { header, ..Client::new("user", "pencil") };
            assert_eq!(first_of(client.first().as_bytes()), Step::Failure(Failure::ChannelBinding), "{header}");
        }
    }

    #[test]
    fn f9_a_proof_of_another_length_is_refused() {
        let client = Client::new("user", "pencil");
        let with_proof = |proof: &[u8]| {
            let proof = BASE64.encode(proof);
            last_of(&client, |message| format!("{},p={proof}", message.rsplit_once(",p=").unwrap().0))
        };
        for bytes in [0, 1, 31, 33, 64] {
            assert_eq!(with_proof(&vec![0; bytes]), Step::Failure(Failure::Malformed), "{bytes}");
        }
        assert_eq!(with_proof(&[0; 32]), Step::Failure(Failure::Credentials));
        let cut = last_of(&client, |message| message[..message.len() - 1].to_owned());
        assert_eq!(cut, Step::Failure(Failure::Malformed));
    }

    #[test]
    fn f9_the_iteration_count_is_ours() {
        for count in ["1", "2147483648", "0", "-1"] {
            let client = Client::new("user", "pencil");
            let first = format!("{},i={count}", client.first());
            let server_first = challenge(method().begin(HOME, nonce(1)).as_mut(), &first);
            assert_eq!(attributes(std::str::from_utf8(&server_first).unwrap())[2], "4096");
        }
    }

    #[test]
    fn f9_each_bit_of_the_proof_counts() {
        let client = Client::new("user", "pencil");
        for bit in 0..256 {
            let step = last_of(&client, |message| {
                let (before, proof) = message.rsplit_once(",p=").unwrap();
                let mut proof = BASE64.decode(proof).unwrap();
                proof[bit / 8] ^= 1 << (bit % 8);
                format!("{before},p={}", BASE64.encode(proof))
            });
            assert_eq!(step, Step::Failure(Failure::Credentials), "bit {bit}");
        }
    }

    #[test]
    fn first_messages_that_are_none() {
        let long_name = format!("n,,n={},r=abc", "x".repeat(USER_NAME_BYTES_MAX + 1));
        let long_nonce = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE_BYTES_MAX + 1));
        let long_message = format!("n,,n=user,r=abc,x={}", "x".repeat(MESSAGE_BYTES_MAX));
        for (message, failure) in [
            ("", Failure::Malformed),
            ("n", Failure::Malformed),
            ("n,,", Failure::Malformed),
            ("n,n=user,r=abc", Failure::Malformed),
            ("x,,n=user,r=abc", Failure::Malformed),
            ("n,,r=abc,n=user", Failure::Malformed),
            ("n,,n=user", Failure::Malformed),
            ("n,,n=user,", Failure::Malformed),
            ("n,,n=user,r=", Failure::Malformed),
            ("n,,n=user,r=a\u{e9}", Failure::Malformed),
            ("n,,n=user,r=a b", Failure::Malformed),
            ("n,,n=user,r=a\u{7f}", Failure::Malformed),
            ("n,,n=,r=abc", Failure::Malformed),
            ("n,,n=a=b,r=abc", Failure::Malformed),
            ("n,,n=a=,r=abc", Failure::Malformed),
            ("n,,n=a=2,r=abc", Failure::Malformed),
            ("n,,n=a=2c,r=abc", Failure::Malformed),
            ("n,,n=a\u{0},r=abc", Failure::Malformed),
            ("n,,n=a\u{7},r=abc", Failure::Malformed),
            ("n,,n=\u{ad},r=abc", Failure::Malformed),
            ("n,,n=user,r=abc,", Failure::Malformed),
            ("n,,n=user,r=abc,x", Failure::Malformed),
            ("n,,n=user,r=abc,x=", Failure::Malformed),
            ("n,,n=user,r=abc,1=x", Failure::Malformed),
            ("n,user,n=user,r=abc", Failure::Malformed),
            ("n,a=,n=user,r=abc", Failure::Malformed),
            ("n,,m=x,n=user,r=abc", Failure::Extension),
            ("n,,n=user,r=abc,m=x", Failure::Extension),
            ("n,a=admin,n=user,r=abc", Failure::AuthorizationIdentity),
            (&long_name, Failure::Malformed),
            (&long_nonce, Failure::Malformed),
            (&long_message, Failure::Malformed),
        ] {
            assert_eq!(first_of(message.as_bytes()), Step::Failure(failure), "{message}");
        }
        assert_eq!(first_of(b"n,,n=user\xff,r=abc"), Step::Failure(Failure::Malformed));
        assert!(matches!(first_of(b"n,,n=user,r=abc,x=1,y=2"), Step::Continue(_)));
    }

    #[test]
    fn last_messages_that_are_none() {
        let client = Client::new("user", "pencil");
        let replaced = |from: &str, to: &str| last_of(&client, |message| message.replace(from, to));
        for (from, to, failure) in [
            ("c=", "x=", Failure::Malformed),
            ("c=biws", "c=bi", Failure::Malformed),
            ("c=biws", "c=", Failure::ChannelBinding),
            ("c=biws,", "", Failure::Malformed),
            ("c=biws,", "m=x,c=biws,", Failure::Extension),
            ("r=", "x=", Failure::Malformed),
            (",p=", ",q=", Failure::Malformed),
            (",p=", ",m=x,p=", Failure::Extension),
            (",p=", ",,p=", Failure::Malformed),
            // An extension is signed too: added on the way, it breaks the proof.
            (",p=", ",x=y,p=", Failure::Credentials),
        ] {
            assert_eq!(replaced(from, to), Step::Failure(failure), "{from} -> {to}");
        }
        assert_eq!(last_of(&client, |_| String::new()), Step::Failure(Failure::Malformed));
        let long = last_of(&client, |message| message.replace(",p=", &format!(",x={},p=", "x".repeat(5_000))));
        assert_eq!(long, Step::Failure(Failure::Malformed));
    }

    #[test]
    fn a_failure_ends_the_exchange() {
        let client = Client::new("user", "pencil");
        let mut exchange = method().begin(HOME, nonce(1));
        assert_eq!(exchange.step(b"nonsense"), Step::Failure(Failure::Malformed));
        assert_eq!(exchange.step(client.first().as_bytes()), Step::Failure(Failure::Finished));
        let mut exchange = method().begin(HOME, nonce(1));
        let last = client.last(&challenge(exchange.as_mut(), &client.first()));
        assert_eq!(exchange.step(b"c=biws"), Step::Failure(Failure::Malformed));
        assert_eq!(exchange.step(last.message.as_bytes()), Step::Failure(Failure::Finished));
    }

    #[test]
    fn users_that_could_never_log_in_are_refused() {
        let error = |users: &[ScramUser]| ScramSha256::new(users, [0; 32]).err();
        assert_eq!(error(&[user("", "x")]), Some(ScramUserError::Name(String::new())));
        assert_eq!(error(&[user("a\u{7}", "x")]), Some(ScramUserError::Name("a\u{7}".to_owned())));
        assert_eq!(error(&[user("a", "")]), Some(ScramUserError::Password("a".to_owned())));
        assert_eq!(error(&[user("a", "x\u{0}")]), Some(ScramUserError::Password("a".to_owned())));
        let twice = [user("zo\u{eb}", "x"), user("zoe\u{308}", "y")];
        assert_eq!(error(&twice), Some(ScramUserError::Duplicate("zoe\u{308}".to_owned())));
        assert_eq!(error(&[]), None);
    }

    #[test]
    fn no_password_is_kept_or_printed() {
        let printed = format!("{:?}", method());
        assert!(printed.contains("users: 3") && !printed.contains("pencil"), "{printed}");
    }

    proptest! {
        #[test]
        fn no_message_panics(first: Vec<u8>, second: Vec<u8>) {
            let method = ScramSha256::new(&[], [1; 32]).unwrap();
            let mut exchange = method.begin(HOME, nonce(1));
            let answered = exchange.step(&first);
            prop_assert!(!matches!(answered, Step::Success { .. }), "{answered:?}");
            prop_assert!(matches!(exchange.step(&second), Step::Failure(_)));
        }

        /// Pieces of real messages, in any order: closer to the parser's branches than bytes are.
        #[test]
        fn no_mixture_of_pieces_gets_in(
            first in proptest::collection::vec(piece(), 0..8),
            second in proptest::collection::vec(piece(), 0..8),
        ) {
            let method = ScramSha256::new(&[], [1; 32]).unwrap();
            let mut exchange = method.begin(HOME, nonce(1));
            let answered = exchange.step(first.concat().as_bytes());
            prop_assert!(!matches!(answered, Step::Success { .. }), "{answered:?}");
            prop_assert!(matches!(exchange.step(second.concat().as_bytes()), Step::Failure(_)));
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("n,,".to_owned()),
            Just("y,,".to_owned()),
            Just("n,a=user,".to_owned()),
            Just("n=user,".to_owned()),
            Just("r=abc".to_owned()),
            Just("c=biws,".to_owned()),
            Just(",p=".to_owned()),
            Just("m=x,".to_owned()),
            Just(",".to_owned()),
            Just("=2C".to_owned()),
            Just("=".to_owned()),
            Just(BASE64.encode([0; 32])),
            "\\PC{0,6}",
        ]
    }
}
