//! Who is let in: password files, tokens, an HTTP service, and what happens to those who guess.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Client, Next, V5, V311, connect, connect_as, packet, text};
use crate::process::{Broker, Folder, PATIENCE, free_port, wait_for};

const NOT_AUTHORIZED: u8 = 0x87;
const SERVER_UNAVAILABLE: u8 = 0x88;
const CONNECTION_RATE_EXCEEDED: u8 = 0x9f;
const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The code of the CONNACK; the connection with it if it is 0.
fn log_in_from(
    from: Ipv4Addr,
    address: SocketAddr,
    client_id: &str,
    user_name: Option<&str>,
    password: Option<&[u8]>,
) -> (u8, Client) {
    let mut client = Client::open_from(from, address);
    client.level = V5;
    client.send(&connect_as(V5, client_id, user_name, password));
    let answer = client.packet();
    assert_eq!(answer[0], 0x20, "CONNACK: {answer:02x?}");
    (answer[3], client)
}

fn log_in(address: SocketAddr, user_name: &str, password: &str) -> u8 {
    log_in_from(HOME, address, "", Some(user_name), Some(password.as_bytes())).0
}

/// The lines of a password file, made by `pantala passwd`.
fn password_lines(folder: &Folder, users: &[(&str, &str, &[&str])]) -> String {
    let file = folder.write("made", "");
    for (name, password, options) in users {
        let status = Command::new(env!("CARGO_BIN_EXE_pantala"))
            .args(["passwd", "-b"])
            .args(*options)
            .arg(&file)
            .args([name, password])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{name}");
    }
    std::fs::read_to_string(file).unwrap()
}

/// Cheap to verify, for tests that are about something else.
const FAST: &[&str] = &["-H", "sha512-pbkdf2", "-I", "1"];

fn start(folder: Folder, toml: &str) -> (Broker, SocketAddr) {
    let file = folder.write("pantala.toml", toml);
    let broker =
        Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str(), "--durability".as_ref(), "memory".as_ref()]);
    let address = broker.address();
    (broker, address)
}

const LISTENER: &str = "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\nallow_anonymous = false\n";

#[test]
fn users_of_a_password_file_get_in_whatever_kind_their_hash_is_of() {
    let folder = Folder::new();
    let mut lines = password_lines(&folder, &[("new", "n w", &[]), ("old", "o\"ö", &["-H", "sha512-pbkdf2"])]);
    // As Mosquitto before 2.0 wrote them; the password is "secret".
    lines += "# The oldest\nold6:$6$xFq8KUkSKoVVaphK$a5Jm+ZToYNqw5ibtEEPabBfoPJtgXJyIIppQ//1TyDubVzHplK9d+41DKABCWWaJQFtsbdE79JEt7ZQATailww==\n";
    let file = folder.write("passwords", &lines);
    let (mut broker, address) =
        start(folder, &format!("{LISTENER}[[security]]\npassword_file = \"{}\"\n", file.display()));
    for (user_name, password, expected) in [
        (Some("new"), Some("n w"), 0),
        (Some("old"), Some("o\"ö"), 0),
        (Some("old6"), Some("secret"), 0),
        (Some("new"), Some("n w "), NOT_AUTHORIZED),
        (Some("new"), Some(""), NOT_AUTHORIZED),
        (Some("new"), None, NOT_AUTHORIZED),
        (Some("NEW"), Some("n w"), NOT_AUTHORIZED),
        (Some(""), Some("n w"), NOT_AUTHORIZED),
        (None, Some("n w"), NOT_AUTHORIZED),
        (None, None, NOT_AUTHORIZED),
    ] {
        let (code, _) = log_in_from(HOME, address, "", user_name, password.map(str::as_bytes));
        assert_eq!(code, expected, "{user_name:?} {password:?}");
    }
    // 3.1.1 has five codes to say it with.
    let mut old = Client::open(address);
    old.send(&connect_as(V311, "c", Some("new"), Some(b"wrong")));
    old.expect(&[0x20, 2, 0, 5]);
    old.expect_closed();
    // A whole packet of password is compared, and no more than a packet is taken.
    let (code, _) = log_in_from(HOME, address, "", Some("old"), Some(&[0; 65_000]));
    assert_eq!(code, NOT_AUTHORIZED);
    // The same again is not hashed again.
    let hashed = broker.security_counter("passwords_hashed");
    assert_eq!(log_in(address, "new", "n w"), 0);
    assert_eq!(broker.security_counter("passwords_hashed"), hashed);
    broker.check();
}

#[test]
fn per_listener_settings_keep_users_apart() {
    let folder = Folder::new();
    let one = folder.write("one", &password_lines(&folder, &[("ann", "a", FAST)]));
    let two = folder.write("two", &password_lines(&folder, &[("bob", "b", FAST)]));
    let ports = [crate::process::free_port(), crate::process::free_port(), crate::process::free_port()];
    let file = folder.write(
        "mosquitto.conf",
        &format!(
            "per_listener_settings true\nlistener {} 127.0.0.1\npassword_file {}\nlistener {} 127.0.0.1\nplugin \
             /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file {}\nlistener {} 127.0.0.1\nallow_anonymous true\n",
            ports[0],
            one.display(),
            ports[1],
            two.display(),
            ports[2]
        ),
    );
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    assert_eq!(broker.listening_on().len(), 3);
    let [first, second, third] = ports.map(|port| SocketAddr::from((HOME, port)));
    assert_eq!((log_in(first, "ann", "a"), log_in(first, "bob", "b")), (0, NOT_AUTHORIZED));
    assert_eq!((log_in(second, "ann", "a"), log_in(second, "bob", "b")), (NOT_AUTHORIZED, 0));
    // Nobody verifies anything there, so a name is as good as none.
    assert_eq!((log_in(third, "ann", "a"), log_in_from(HOME, third, "", None, None).0), (0, 0));
    assert_eq!(log_in_from(HOME, first, "", None, None).0, NOT_AUTHORIZED);
    broker.check();
}

#[test]
fn a_password_file_is_read_again_and_a_wrong_one_changes_nothing() {
    let folder = Folder::new();
    let lines = password_lines(&folder, &[("ann", "old", FAST), ("bob", "b", FAST)]);
    let file = folder.write("passwords", &lines);
    let (mut broker, address) =
        start(folder, &format!("{LISTENER}[[security]]\npassword_file = \"{}\"\n", file.display()));
    let reload = |broker: &Broker, text: &str| {
        std::fs::write(&file, text).unwrap();
        let said = "SIGHUP: ";
        let before = broker.log().matches(said).count();
        broker.signal(Signal::HUP);
        wait_for("a reload", || (broker.log().matches(said).count() > before).then_some(()));
    };
    assert_eq!(log_in(address, "ann", "old"), 0);
    let (code, mut bob) = log_in_from(HOME, address, "bob's", Some("bob"), Some(b"b"));
    assert_eq!(code, 0);

    let megabyte = "x".repeat(1 << 20);
    let twice = format!("{lines}{lines}");
    for (wrong, line) in [
        ("ann\n", "line 1: expected NAME:HASH"),
        ("\n\nann:secret\n", "line 3: not a hash"),
        (megabyte.as_str(), "line 1: "),
        (twice.as_str(), "line 3: this user has a line above"),
        ("\u{FEFF}# Fine\r\n:x\r\n", "line 2: "),
    ] {
        reload(&broker, wrong);
        assert!(broker.log().contains(line), "{line}: {}", broker.log());
        assert_eq!((log_in(address, "ann", "old"), log_in(address, "ann", "new")), (0, NOT_AUTHORIZED), "{line}");
    }
    assert!(!broker.log().contains("xxxx"));
    bob.ping();

    // A mark at its front and the line ends of others do no harm; what was known of the old password is forgotten.
    let new = password_lines(&broker.folder, &[("ann", "new", FAST)]);
    reload(&broker, &format!("\u{FEFF}{}", new.lines().last().unwrap().replace('\n', "\r\n")));
    assert_eq!((log_in(address, "ann", "old"), log_in(address, "ann", "new")), (NOT_AUTHORIZED, 0));
    // And who is no user any more is out.
    let farewell = bob.packet();
    assert_eq!((farewell[0], farewell[2]), (0xe0, NOT_AUTHORIZED));
    bob.expect_closed();
    broker.check();
}

/// A reload that had the domains in another order kept the owners of Sessions under the names of each other's domains, so that the
/// user of that name in the other domain was let into them after a restart.
#[test]
fn domains_in_another_order_keep_the_sessions_of_their_users() {
    for gone in [false, true] {
        let folder = Folder::new();
        let users = password_lines(&folder, &[("ann", "a", FAST)]);
        let file = folder.write("passwords", &users);
        let ports = [crate::process::free_port(), crate::process::free_port()];
        let domain = |name: &str| format!("[[security]]\nname = \"{name}\"\npassword_file = \"{}\"\n", file.display());
        let listener = |name: &str, port: u16| {
            format!(
                "[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"{name}\"\nallow_anonymous = false\n"
            )
        };
        let both = listener("a", ports[0]) + &listener("b", ports[1]);
        let data = format!("[broker]\ndata_dir = \"{}\"\n", folder.path("data").display());
        let text = data.clone() + &domain("a") + &domain("b") + &both;
        // The listener of a domain that is not there any more is the other one's.
        let other = match gone {
            true => data + &domain("b") + &both.replace("\"a\"", "\"b\""),
            false => data + &domain("b") + &domain("a") + &both,
        };
        let config = folder.write("pantala.toml", &text);
        let start = || {
            let broker = Broker::with_arguments(Folder::new(), &["-c".as_ref(), config.as_os_str()]);
            broker.wait_for_log("Try it");
            broker
        };
        let mut broker = start();
        std::fs::write(&config, &other).unwrap();
        broker.signal(Signal::HUP);
        broker.wait_for_log("SIGHUP: ");
        // With Clean Session 0, so that it is there after the end.
        let resume = |port: u16, client_id: &str| {
            let mut client = Client::open(SocketAddr::from((HOME, port)));
            let mut packet = connect_as(V311, client_id, Some("ann"), Some(b"a"));
            packet[9] &= !2;
            client.send(&packet);
            client.packet()
        };
        assert_eq!(resume(ports[1], "of-b"), [0x20, 2, 0, 0]);
        broker.signal(Signal::TERM);
        assert_eq!(broker.wait().code(), Some(0));
        // The file as it was at first: who owns what is said by names, whatever their order.
        std::fs::write(&config, &text).unwrap();
        let mut broker = start();
        assert_eq!(resume(ports[0], "of-b"), [0x20, 2, 0, 5], "the other ann, {gone}");
        assert_eq!(resume(ports[1], "of-b"), [0x20, 2, 1, 0], "{gone}");
        broker.check();
    }
}

#[test]
fn a_broker_does_not_start_with_users_that_it_cannot_read() {
    for (content, said) in [(Some("ann\n"), "line 1: expected NAME:HASH"), (None, "No such file")] {
        let folder = Folder::new();
        let file = folder.path("passwords");
        if let Some(content) = content {
            folder.write("passwords", content);
        }
        let toml = format!("{LISTENER}[[security]]\npassword_file = \"{}\"\n", file.display());
        let config = folder.write("pantala.toml", &toml);
        let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), config.as_os_str()]);
        // As of a mistake in the configuration.
        assert_eq!(broker.wait().code(), Some(3));
        let log = broker.log();
        assert!(log.contains("security \"default\", password_file: ") && log.contains(said), "{log}");
    }
    // A mosquitto.conf has no such sections, but lines.
    const DYNSEC: &str = "plugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file none.json\n";
    for (text, said) in [
        ("password_file none\n", ".conf:2: password_file: none: No such file"),
        ("\nacl_file none\n", ".conf:3: acl_file: none: No such file"),
        (DYNSEC, ".conf:3: plugin_opt_config_file: none.json: "),
        (DYNSEC, "; `pantala dynsec init none.json` makes it, with a user who may change it"),
    ] {
        let folder = Folder::new();
        let config = folder.write("mosquitto.conf", &format!("listener {} 127.0.0.1\n{text}", free_port()));
        let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), config.as_os_str()]);
        assert_eq!(broker.wait().code(), Some(3));
        let log = broker.log();
        assert!(log.contains(said), "{text}: {log}");
    }
}

// ---- tokens ---------------------------------------------------------------------------------------------------

struct Signer {
    key_id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(key_id: &'static str) -> Self {
        Self { key_id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn key(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": x, "y": y})
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let signed = unsigned(&header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn key_set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.key()).collect::<Vec<_>>()}).to_string()
}

fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds
}

#[test]
fn tokens_are_verified_with_keys_that_change_during_the_run() {
    let (old, new, stranger) = (Signer::new("old"), Signer::new("new"), Signer::new("../../../dev/null"));
    let service = Service::start();
    service.answer(200, &key_set(&[&old]));
    let (mut broker, address) = start(
        Folder::new(),
        &format!(
            "{LISTENER}[[security]]\njwt_jwks_url = \"{}\"\njwt_leeway_seconds = 0\njwt_audience = \"mqtt\"\n\
             jwt_publish_claim = \"publish\"\njwt_subscribe_claim = \"subscribe\"\n",
            service.url("/keys")
        ),
    );
    let claims = |seconds: u64| json!({"sub": "ann", "aud": "mqtt", "exp": in_seconds(seconds), "subscribe": ["in/#"]});
    let show = |token: &str| log_in_from(HOME, address, "ann's", None, Some(token.as_bytes()));
    let (code, mut ann) = show(&old.token(&claims(1_000)));
    assert_eq!(code, 0);
    // What the token grants is what may be done.
    ann.subscribe("in/#", 0);
    ann.send(&crate::client::subscribe(V5, 2, "#", 0));
    assert_eq!(ann.packet().last(), Some(&NOT_AUTHORIZED));

    let none = unsigned(&json!({"alg": "none"}), &claims(1_000)) + ".";
    let confused = unsigned(&json!({"alg": "HS256", "kid": "old"}), &claims(1_000));
    let public_key = hmac::Key::new(hmac::HMAC_SHA256, old.pair.public_key().as_ref());
    let tag = hmac::sign(&public_key, confused.as_bytes());
    let confused = format!("{confused}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
    let huge = json!({"sub": "ann", "aud": "mqtt", "exp": in_seconds(9), "x": "x".repeat(20_000)});
    for (token, what) in [
        (none, "no signature"),
        (confused, "the public key as a secret"),
        (old.token(&json!({"sub": "ann", "aud": "mqtt", "exp": in_seconds(0) - 10})), "expired"),
        (old.token(&json!({"sub": "ann", "aud": "mqtt"})), "no expiry"),
        (old.token(&json!({"sub": "ann", "aud": "http", "exp": in_seconds(1_000)})), "another audience"),
        (old.token(&json!({"sub": "ann", "aud": "mqtt", "exp": in_seconds(99), "nbf": in_seconds(50)})), "not yet"),
        (old.token(&huge), "too long"),
        (stranger.token(&claims(1_000)), "a key that is not there"),
        ("secret".to_owned(), "no token"),
    ] {
        assert_eq!(show(&token).0, NOT_AUTHORIZED, "{what}");
    }
    // The key that was not there has been asked for, though not as often as it was named.
    let asked = service.requests().len();
    assert!(asked <= 2, "{asked}");

    // A token ends, and with it the connection, wherever in it that happens.
    let (code, mut short) = log_in_from(HOME, address, "short", None, Some(old.token(&claims(2)).as_bytes()));
    assert_eq!(code, 0);
    let begun = Instant::now();
    let farewell = short.packet();
    assert_eq!((farewell[0], farewell[2]), (0xe0, NOT_AUTHORIZED));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    // The keys change. The new one is fetched with the first token that needs it, at most every ten seconds.
    service.answer(200, &key_set(&[&new]));
    wait_for("the new key", || (show(&new.token(&claims(1_000))).0 == 0).then_some(()));
    assert_eq!(show(&old.token(&claims(1_000))).0, NOT_AUTHORIZED);
    // While the keys cannot be fetched those that are there serve on.
    drop(service);
    assert_eq!(show(&new.token(&claims(1_000))).0, 0);
    broker.check();
}

// ---- an HTTP service ------------------------------------------------------------------------------------------

#[test]
fn an_http_service_decides_and_nobody_gets_in_without_its_answer() {
    let service = Service::start();
    let folder = Folder::new();
    let authorization = folder.write("authorization", "Bearer s3cr3t\n");
    let passwords = folder.write("passwords", &password_lines(&folder, &[("local", "l", FAST)]));
    let (mut broker, address) = start(
        folder,
        &format!(
            "{LISTENER}[[security]]\nchain = [\"http\", \"password\"]\nhttp_url = \"{}\"\nhttp_timeout_seconds = 1\n\
             http_cache_seconds = 600\nhttp_authorization_file = \"{}\"\npassword_file = \"{}\"\n",
            service.url("/auth?key=1"),
            authorization.display(),
            passwords.display()
        ),
    );
    service.answer(200, r#"{"result":"allow","subscribe":["in/#"],"expires_in":3600}"#);
    let (code, mut ann) = log_in_from(HOME, address, "c1", Some("ann"), Some(b"a"));
    assert_eq!(code, 0);
    ann.subscribe("in/x", 0);
    ann.send(&crate::client::subscribe(V5, 2, "out/x", 0));
    assert_eq!(ann.packet().last(), Some(&NOT_AUTHORIZED));
    let request = service.requests().remove(0);
    assert!(request.starts_with("POST /auth?key=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("\r\nauthorization: bearer s3cr3t\r\n"), "{request}");
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let expected =
        json!({"client_id": "c1", "user_name": "ann", "password": "a", "address": "127.0.0.1", "listener": 0});
    assert_eq!(body, expected);

    service.answer(403, "");
    assert_eq!(log_in(address, "eve", "e"), NOT_AUTHORIZED);
    service.answer(200, r#"{"result":"ignore"}"#);
    assert_eq!((log_in(address, "local", "l"), log_in(address, "local", "wrong")), (0, NOT_AUTHORIZED));
    for wrong in [(500, r#"{"result":"allow"}"#), (200, r#"{"result":"perhaps"}"#), (302, ""), (404, "")] {
        service.answer(wrong.0, wrong.1);
        assert_eq!(log_in(address, "bob", "b"), SERVER_UNAVAILABLE, "{wrong:?}");
        // Not even by what would have been asked next.
        assert_eq!(log_in(address, "local", "l2"), SERVER_UNAVAILABLE, "{wrong:?}");
    }
    // Too slow is no answer, and what waits for it holds up nobody.
    service.hold();
    let begun = Instant::now();
    assert_eq!(log_in(address, "bob", "b"), SERVER_UNAVAILABLE);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    ann.ping();
    // Down is no answer either; what it has said before holds for its time.
    drop(service);
    assert_eq!(log_in(address, "bob", "b"), SERVER_UNAVAILABLE);
    let (code, _) = log_in_from(HOME, address, "c1", Some("ann"), Some(b"a"));
    assert_eq!(code, 0);
    let (code, _) = log_in_from(HOME, address, "c1", Some("ann"), Some(b"b"));
    assert_eq!(code, SERVER_UNAVAILABLE);
    assert!(broker.security_counter("http_failures") >= 10);
    broker.check();
}

/// Two services, of which the first one has not answered yet when a reload comes; what the client was told then,
/// and how often the second was asked.
fn reload_while_a_service_is_asked(before: &str, after: &str) -> (u8, usize, Broker) {
    let (first, second) = (Service::start(), Service::start());
    let toml = |domains: &str| {
        let domains = domains.replace("FIRST", &first.url("/")).replace("SECOND", &second.url("/"));
        format!("[limits]\nconnect_seconds = 600\n{LISTENER}{domains}")
    };
    second.answer(403, "");
    let (mut broker, address) = start(Folder::new(), &toml(before));
    let mut client = Client::open(address);
    client.level = V5;
    client.send(&connect_as(V5, "c", Some("ann"), Some(b"a")));
    wait_for("the question", || (!first.requests().is_empty()).then_some(()));
    broker.folder.write("pantala.toml", &toml(after));
    broker.signal(Signal::HUP);
    broker.wait_for_log("SIGHUP: configuration read again");
    first.answer(200, r#"{"result":"allow"}"#);
    let answer = client.packet();
    assert_eq!(answer[0], 0x20, "{answer:02x?}");
    broker.check();
    (answer[3], second.requests().len(), broker)
}

/// What one tenant's service says of ann let her in as the other tenant's.
#[test]
fn a_verdict_for_one_security_domain_is_none_for_another() {
    const DOMAIN: &str = "http_timeout_seconds = 60\nhttp_url = ";
    let domains =
        format!("[[security]]\nname = \"one\"\n{DOMAIN}\"FIRST\"\n[[security]]\nname = \"two\"\n{DOMAIN}\"SECOND\"\n");
    let with = |name: &str| format!("security = \"{name}\"\n{domains}");
    let (code, asked, broker) = reload_while_a_service_is_asked(&with("one"), &with("two"));
    assert_eq!((code, asked), (NOT_AUTHORIZED, 0));
    broker.wait_for_log("the listener has another security domain now");
}

/// Who was in the queue when a reload took its password away was let in by the old one.
#[test]
fn who_is_right_by_what_is_not_in_force_any_more_is_asked_about_anew() {
    let domain = |url: &str| format!("[[security]]\nhttp_timeout_seconds = 60\nhttp_url = \"{url}\"\n");
    let (code, asked, broker) = reload_while_a_service_is_asked(&domain("FIRST"), &domain("SECOND"));
    assert_eq!((code, asked), (NOT_AUTHORIZED, 1), "{}", broker.log());
}

// ---- guesses and floods ---------------------------------------------------------------------------------------

#[test]
fn who_guesses_waits_and_nobody_else_does() {
    let folder = Folder::new();
    let file = folder.write("passwords", &password_lines(&folder, &[("canary", "c", FAST), ("ann", "a", FAST)]));
    let (mut broker, address) = start(
        folder,
        &format!(
            "[limits]\nfailures_per_address_max = 20\nfailures_per_user_max = 10\n{LISTENER}[[security]]\npassword_file = \"{}\"\n",
            file.display()
        ),
    );
    let away = |last: u8| Ipv4Addr::new(127, 0, 1, last);
    assert_eq!(log_in_from(away(1), address, "", Some("canary"), Some(b"c")).0, 0);
    // Many users from one address.
    let guess = |from: Ipv4Addr, user_name: &str| log_in_from(from, address, "", Some(user_name), Some(b"guess")).0;
    let codes: Vec<u8> = (0..40).map(|number| guess(away(1), &format!("user{number}"))).collect();
    assert!(codes[..20].iter().all(|code| *code == NOT_AUTHORIZED), "{codes:02x?}");
    assert!(codes[20..].iter().filter(|code| **code == CONNECTION_RATE_EXCEEDED).count() >= 15, "{codes:02x?}");
    // The canary lives behind that address; others live elsewhere.
    assert_eq!(log_in_from(away(1), address, "", Some("canary"), Some(b"c")).0, 0);
    assert_eq!(log_in_from(away(2), address, "", Some("ann"), Some(b"a")).0, 0);
    // One user from many addresses.
    let codes: Vec<u8> = (10..60).map(|last| guess(away(last), "canary")).collect();
    assert!(codes.iter().filter(|code| **code == CONNECTION_RATE_EXCEEDED).count() >= 30, "{codes:02x?}");
    assert_eq!(log_in_from(away(1), address, "", Some("canary"), Some(b"c")).0, 0);
    // What was refused so was not verified.
    assert!(broker.security_counter("passwords_hashed") < 60);
    assert!(broker.security_counter("credentials_braked") >= 45);
    // A v3 client is told in its own words.
    let mut old = Client::open_from(away(1), address);
    old.send(&connect_as(V311, "c", Some("user"), Some(b"guess")));
    assert!(matches!(old.next(), Next::Packet(packet) if packet == [0x20, 2, 0, 3]));
    broker.check();
}

/// Guesses that came before the first was known to be wrong were all verified: some five hundred in place of those that are
/// free.
#[test]
fn guesses_that_come_at_once_are_braked_in_the_queue() {
    const GUESSERS: usize = 100;
    let folder = Folder::new();
    let slow: &[&str] = &["-H", "sha512-pbkdf2", "-I", "20000"];
    let file = folder.write("passwords", &password_lines(&folder, &[("ann", "a", slow)]));
    let (mut broker, address) = start(
        folder,
        &format!(
            "[limits]\nfailures_per_address_max = 10\nfailures_per_user_max = 0\nverification_threads = 1\n\
             connect_seconds = 120\n{LISTENER}[[security]]\npassword_file = \"{}\"\n",
            file.display()
        ),
    );
    let mut guessers: Vec<Client> = (0..GUESSERS).map(|_| Client::open(address)).collect();
    for (number, client) in guessers.iter_mut().enumerate() {
        client.level = V5;
        client.send(&connect_as(V5, "", Some("ann"), Some(format!("guess {number}").as_bytes())));
    }
    let codes: Vec<u8> = guessers.iter_mut().map(|client| client.packet()[3]).collect();
    let refused = |code| codes.iter().filter(|it| **it == code).count();
    // One more for each wait that has ended meanwhile.
    assert!((10..=15).contains(&refused(NOT_AUTHORIZED)), "{codes:02x?}");
    assert_eq!(refused(NOT_AUTHORIZED) + refused(CONNECTION_RATE_EXCEEDED), GUESSERS, "{codes:02x?}");
    assert_eq!(broker.security_counter("passwords_hashed"), refused(NOT_AUTHORIZED) as u64);
    // A neighbour's address has its own.
    let neighbour = Ipv4Addr::new(127, 0, 4, 1);
    assert_eq!(log_in_from(neighbour, address, "", Some("ann"), Some(b"a")).0, 0);
    broker.check();
}

/// A fleet with tokens may have one User Name, and a stranger who showed rubbish in that name kept all of it out.
#[test]
fn rubbish_in_the_user_name_of_tokens_locks_nobody_out() {
    let folder = Folder::new();
    let secret = folder.write("secret", "a secret of at least 32 bytes, which this is\n");
    let (mut broker, address) = start(
        folder,
        &format!(
            "[limits]\nfailures_per_address_max = 5\nfailures_per_user_max = 5\n{LISTENER}[[security]]\n\
             jwt_secret_file = \"{}\"\njwt_user_name = \"jwt\"\n",
            secret.display()
        ),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret of at least 32 bytes, which this is");
    let token = |user_name: &str| {
        let signed = unsigned(&json!({"alg": "HS256"}), &json!({"sub": user_name, "exp": in_seconds(1_000)}));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref()))
    };
    let show = |from, token: &str| log_in_from(from, address, "", Some("jwt"), Some(token.as_bytes())).0;
    assert_eq!(show(Ipv4Addr::new(127, 0, 5, 1), &token("known")), 0);
    let rubbish = |from| show(from, &format!("{}.x", unsigned(&json!({"alg": "HS256"}), &json!({"sub": "new"}))));
    for last in 10..60 {
        assert_eq!(rubbish(Ipv4Addr::new(127, 0, 5, last)), NOT_AUTHORIZED, "{last}");
    }
    assert_eq!(show(Ipv4Addr::new(127, 0, 5, 2), &token("new")), 0);
    // Its own address is braked, but for those who have shown a good token there.
    let codes: Vec<u8> = (0..20).map(|_| rubbish(Ipv4Addr::new(127, 0, 5, 1))).collect();
    assert!(codes[..5].iter().all(|code| *code == NOT_AUTHORIZED), "{codes:02x?}");
    assert!(codes[5..].iter().filter(|code| **code == CONNECTION_RATE_EXCEEDED).count() >= 10, "{codes:02x?}");
    assert_eq!(show(Ipv4Addr::new(127, 0, 5, 1), &token("known")), 0);
    broker.check();
}

/// While a key set did not come, tokens that nobody had signed took all threads that ask services, in their turn for the one
/// who fetched it.
#[test]
fn tokens_with_invented_keys_take_no_threads_and_are_braked_once_the_keys_have_come() {
    const FORGERS: usize = 20;
    let (keys, auth) = (Service::start(), Service::start());
    keys.hold();
    auth.answer(200, r#"{"result":"allow"}"#);
    let port = crate::process::free_port();
    let (mut broker, address) = start(
        Folder::new(),
        &format!(
            "[limits]\nfailures_per_address_max = 5\nhttp_requests_max = 2\nverification_threads = 1\nconnect_seconds = 120\n\
             {LISTENER}[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\nallow_anonymous = false\nsecurity = \"web\"\n\
             [[security]]\njwt_jwks_url = \"{}\"\n[[security]]\nname = \"web\"\nhttp_url = \"{}\"\n",
            keys.url("/keys"),
            auth.url("/auth")
        ),
    );
    let (good, forger) = (Signer::new("good"), Signer::new("invented"));
    let claims = json!({"sub": "ann", "exp": in_seconds(1_000)});
    let show = |last: u8, token: &str| {
        let mut client = Client::open_from(Ipv4Addr::new(127, 0, 6, last), address);
        client.level = V5;
        client.send(&connect_as(V5, "", None, Some(token.as_bytes())));
        client
    };
    let mut ann = show(1, &good.token(&claims));
    wait_for("a question for the keys", || (keys.requests().len() == 1).then_some(()));
    let forgers = (0..FORGERS).map(|number| show(2, &forger.token(&json!({"sub": format!("x{number}"), "exp": 1}))));
    let mut forgers: Vec<Client> = forgers.collect();
    // Users of another domain are let in meanwhile: nobody has been told of the keys.
    for number in 0..4 {
        assert_eq!(log_in(SocketAddr::from((HOME, port)), &format!("user{number}"), "p"), 0);
    }
    assert_eq!(broker.security_counter("http_failures"), 0);
    keys.answer(200, &key_set(&[&good]));
    let packet = ann.packet();
    assert_eq!((packet[0], packet[3]), (0x20, 0));
    let codes: Vec<u8> = forgers.iter_mut().map(|client| client.packet()[3]).collect();
    let refused = |code| codes.iter().filter(|it| **it == code).count();
    assert_eq!((refused(NOT_AUTHORIZED), refused(CONNECTION_RATE_EXCEEDED)), (5, FORGERS - 5), "{codes:02x?}");
    assert_eq!(keys.requests().len(), 1);
    // A key that might be newer than the set is no failure: when keys change, clients are ahead of the broker.
    for _ in 0..10 {
        assert_eq!(show(3, &forger.token(&claims)).packet()[3], NOT_AUTHORIZED);
    }
    broker.check();
}

/// A client whose token is good waited for a key set that was to be fetched again, though the old keys serve.
#[test]
fn nobody_waits_for_keys_that_are_only_old() {
    let service = Service::start();
    let signer = Signer::new("key");
    service.answer(200, &key_set(&[&signer]));
    let toml =
        format!("{LISTENER}[[security]]\njwt_jwks_url = \"{}\"\njwt_refresh_seconds = 10\n", service.url("/keys"));
    let (mut broker, address) = start(Folder::new(), &toml);
    let token = signer.token(&json!({"sub": "ann", "exp": in_seconds(1_000)}));
    let show = || log_in_from(HOME, address, "", None, Some(token.as_bytes())).0;
    assert_eq!(show(), 0);
    service.hold();
    wait_for("a question for newer keys", || {
        assert_eq!(show(), 0);
        (service.requests().len() > 1).then_some(())
    });
    // It has no answer yet, and has not been given up.
    assert_eq!(show(), 0);
    assert_eq!(broker.security_counter("http_failures"), 0);
    broker.check();
}

/// A reload that took a way in away left those connected who had come by it, while its log said that it was in force.
#[test]
fn a_reload_sends_away_who_could_not_come_in_again_as_it_did() {
    const ADMINISTRATIVE_ACTION: u8 = 0x98;
    let folder = Folder::new();
    let users = [("ann", "old", FAST), ("bob", "b", FAST), ("eve", "e", FAST)];
    let file = folder.write("passwords", &password_lines(&folder, &users));
    let port = free_port();
    let toml = |listener: &str| {
        format!(
            "[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n{listener}\n[[security]]\npassword_file = \"{}\"\n",
            file.display()
        )
    };
    let (mut broker, address) = start(folder, &toml("allow_anonymous = true"));
    let reload = |broker: &Broker, text: &str| {
        broker.folder.write("pantala.toml", text);
        let before = broker.log().len();
        broker.signal(Signal::HUP);
        wait_for("a reload", || broker.log()[before..].contains("SIGHUP: configuration read again").then_some(()));
    };
    let come = |from: Ipv4Addr, user_name: Option<&str>, password: &str| {
        let password = user_name.map(|_| password.as_bytes());
        let client_id = format!("{user_name:?}{from}").replace('"', "");
        let (code, client) = log_in_from(from, address, &client_id, user_name, password);
        assert_eq!(code, 0, "{user_name:?}");
        client
    };
    let expect_sent_away = |client: &mut Client, code: u8| {
        let farewell = client.packet();
        assert_eq!((farewell[0], farewell[2]), (0xe0, code), "{farewell:02x?}");
        client.expect_closed();
    };
    let away = Ipv4Addr::new(127, 0, 0, 7);
    let (mut ann, mut bob, mut eve) =
        (come(HOME, Some("ann"), "old"), come(HOME, Some("bob"), "b"), come(away, Some("eve"), "e"));
    // An empty User Name is what libraries send where there is none.
    let (mut nobody, mut empty) = (come(HOME, None, ""), come(HOME, Some(""), ""));

    // Another password, and nothing else.
    let lines = std::fs::read_to_string(&file).unwrap();
    let new = password_lines(&broker.folder, &[("ann", "new", FAST)]);
    let new = new.lines().last().unwrap();
    let changed: String =
        lines.lines().map(|line| format!("{}\n", if line.starts_with("ann:") { new } else { line })).collect();
    std::fs::write(&file, changed).unwrap();
    reload(&broker, &toml("allow_anonymous = true"));
    expect_sent_away(&mut ann, ADMINISTRATIVE_ACTION);
    for client in [&mut bob, &mut eve, &mut nobody, &mut empty] {
        client.ping();
    }
    let mut ann = come(HOME, Some("ann"), "new");

    reload(&broker, &toml("allow_anonymous = false"));
    expect_sent_away(&mut nobody, NOT_AUTHORIZED);
    expect_sent_away(&mut empty, NOT_AUTHORIZED);
    for client in [&mut ann, &mut bob, &mut eve] {
        client.ping();
    }

    // Who was about to come is no better off.
    let mut late = Client::open_from(away, address);
    reload(&broker, &toml(&format!("allow_anonymous = false\ndeny_addresses = [\"{away}\"]")));
    eve.expect_closed();
    late.send(&connect_as(V5, "late", Some("eve"), Some(b"e")));
    while late.next() != Next::Closed {}
    for client in [&mut ann, &mut bob] {
        client.ping();
    }
    reload(&broker, &toml(&format!("allow_anonymous = false\nallow_addresses = [\"{away}\"]")));
    ann.expect_closed();
    bob.expect_closed();
    broker.check();
}

/// Whose word was believed stayed what it had said, when users and passwords came.
#[test]
fn whose_name_was_only_believed_goes_when_names_are_verified() {
    let folder = Folder::new();
    let port = free_port();
    let passwords = folder.write("passwords", &password_lines(&folder, &[("ann", "a", FAST)]));
    let rules = folder.write("rules", "user ann\ntopic readwrite #\n");
    let conf = |more: &str| format!("listener {port} 127.0.0.1\nacl_file {}\n{more}\n", rules.display());
    let file = folder.write("mosquitto.conf", &conf("allow_anonymous true"));
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    let address = broker.address();
    let (code, mut mallory) = log_in_from(HOME, address, "m", Some("ann"), None);
    assert_eq!(code, 0);
    mallory.subscribe("t", 0);
    broker.folder.write("mosquitto.conf", &conf(&format!("password_file {}", passwords.display())));
    broker.signal(Signal::HUP);
    let farewell = mallory.packet();
    assert_eq!((farewell[0], farewell[2]), (0xe0, NOT_AUTHORIZED));
    mallory.expect_closed();
    assert_eq!((log_in(address, "ann", "a"), log_in(address, "ann", "b")), (0, NOT_AUTHORIZED));
    broker.check();
}

/// With a new key whose set could not be fetched, clients were told that they are not authorized, and gave up.
#[test]
fn a_token_with_a_key_that_cannot_be_had_now_is_for_another_time() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let service = Service::start();
    service.answer(200, &key_set(&[&old]));
    let toml = format!("{LISTENER}[[security]]\njwt_jwks_url = \"{}\"\n", service.url("/keys"));
    let (mut broker, address) = start(Folder::new(), &toml);
    let claims = json!({"sub": "ann", "exp": in_seconds(1_000)});
    let show = |signer: &Signer| log_in_from(HOME, address, "", None, Some(signer.token(&claims).as_bytes())).0;
    assert_eq!(show(&old), 0);
    // Fetched a moment ago.
    assert_eq!(show(&new), NOT_AUTHORIZED);
    service.answer(500, "");
    wait_for("a fetch that fails", || (show(&new) == SERVER_UNAVAILABLE).then_some(()));
    assert_eq!((show(&new), show(&old)), (SERVER_UNAVAILABLE, 0));
    service.answer(200, &key_set(&[&old, &new]));
    wait_for("the new key", || (show(&new) == 0).then_some(()));
    broker.check();
}

/// The client's side of SCRAM-SHA-256 up to where it waits for the challenge.
struct Scram {
    client: Client,
    user_name: &'static str,
}

impl Scram {
    const METHOD: &str = "SCRAM-SHA-256";

    fn property(identifier: u8, value: &str) -> Vec<u8> {
        [&[identifier][..], &text(value)].concat()
    }

    fn properties(data: &str) -> Vec<u8> {
        let properties = [Self::property(0x15, Self::METHOD), Self::property(0x16, data)].concat();
        let length = u8::try_from(properties.len()).unwrap();
        // A length below 128 has one byte.
        let length = if length < 0x80 { vec![length] } else { vec![length, 1] };
        [length, properties].concat()
    }

    fn begin(from: Ipv4Addr, address: SocketAddr, user_name: &'static str) -> Self {
        let mut client = Client::open_from(from, address);
        client.level = V5;
        let front = [&text("MQTT")[..], &[V5, 0x02, 0, 0]].concat();
        let properties = Self::properties(&format!("n,,n={user_name},r=nonce"));
        client.send(&packet(0x10, &[front, properties, text("")].concat()));
        Self { client, user_name }
    }

    /// The code of the CONNACK that follows the proof.
    fn prove(self, password: &str) -> u8 {
        self.log_in(password).0
    }

    /// The same, and the connection.
    fn log_in(mut self, password: &str) -> (u8, Client) {
        let auth = self.client.packet();
        assert_eq!(auth[0], 0xf0, "{auth:02x?}");
        let at = auth.windows(2).position(|bytes| bytes == b"r=").unwrap();
        let length = u16::from_be_bytes([auth[at - 2], auth[at - 1]]);
        let challenge = std::str::from_utf8(&auth[at..at + usize::from(length)]).unwrap();
        let parts: Vec<&str> = challenge.splitn(3, ',').collect();
        let (salt, iterations) = (STANDARD.decode(&parts[1][2..]).unwrap(), parts[2][2..].parse().unwrap());
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let without_proof = format!("c=biws,{}", parts[0]);
        let signed = format!("n={},r=nonce,{challenge},{without_proof}", self.user_name);
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let data = format!("{without_proof},p={}", STANDARD.encode(proof));
        self.client.send(&packet(0xf0, &[vec![0x18], Self::properties(&data)].concat()));
        let answer = self.client.packet();
        assert_eq!(answer[0], 0x20, "{answer:02x?}");
        // Behind the length, which may have two bytes.
        (answer[if answer[1] & 0x80 == 0 { 3 } else { 4 }], self.client)
    }
}

fn scram(from: Ipv4Addr, address: SocketAddr, user_name: &'static str, password: &str) -> u8 {
    Scram::begin(from, address, user_name).prove(password)
}

/// Guesses by SCRAM were not counted.
#[test]
fn who_guesses_by_scram_waits_as_well() {
    let (mut broker, address) = start(
        Folder::new(),
        &format!(
            "[limits]\nfailures_per_address_max = 20\nfailures_per_user_max = 10\n{LISTENER}\
             [[scram_user]]\nname = \"ann\"\npassword = \"a\"\n[[scram_user]]\nname = \"bob\"\npassword = \"b\"\n"
        ),
    );
    let away = |last: u8| Ipv4Addr::new(127, 0, 7, last);
    assert_eq!(scram(away(1), address, "ann", "a"), 0);
    // From one address, all of them challenged before the first proof: as many are looked at as are free.
    let begun: Vec<Scram> = (0..40).map(|number| Scram::begin(away(1), address, ["x", "y", "z"][number % 3])).collect();
    let codes: Vec<u8> = begun.into_iter().map(|exchange| exchange.prove("guess")).collect();
    assert!(codes[..20].iter().all(|code| *code == NOT_AUTHORIZED), "{codes:02x?}");
    assert!(codes[20..].iter().filter(|code| **code == CONNECTION_RATE_EXCEEDED).count() >= 15, "{codes:02x?}");
    // Who is known there is not concerned, nor is anybody elsewhere.
    assert_eq!((scram(away(1), address, "ann", "a"), scram(away(2), address, "bob", "b")), (0, 0));
    // At one user from many addresses.
    let codes: Vec<u8> = (10..60).map(|last| scram(away(last), address, "ann", "guess")).collect();
    assert!(codes.iter().filter(|code| **code == CONNECTION_RATE_EXCEEDED).count() >= 30, "{codes:02x?}");
    assert_eq!(scram(away(1), address, "ann", "a"), 0);
    assert!(broker.security_counter("credentials_braked") >= 45);
    assert!(broker.counter("connects_refused_credentials") >= 90);
    broker.check();
}

#[test]
fn a_user_by_scram_is_one_of_its_domain_alone() {
    let port = crate::process::free_port();
    let (mut broker, address) = start(
        Folder::new(),
        &format!(
            "{LISTENER}[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\nallow_anonymous = false\nsecurity = \"tenant\"\n\
             [[security]]\nname = \"tenant\"\n[[scram_user]]\nname = \"admin\"\npassword = \"t\"\nsecurity = \"tenant\"\n\
             [[scram_user]]\nname = \"admin\"\npassword = \"ours\"\n"
        ),
    );
    let tenant = SocketAddr::from((HOME, port));
    assert_eq!((scram(HOME, address, "admin", "ours"), scram(HOME, tenant, "admin", "t")), (0, 0));
    assert_eq!(scram(HOME, address, "admin", "t"), NOT_AUTHORIZED);
    assert_eq!(scram(HOME, tenant, "admin", "ours"), NOT_AUTHORIZED);
    broker.check();
}

/// Users of a password file who are gone were sent away by a reload, those by SCRAM stayed for as long as they liked.
#[test]
fn a_user_by_scram_goes_as_soon_as_a_reload_takes_it_away() {
    let user = |name: &str| format!("[[scram_user]]\nname = \"{name}\"\npassword = \"p\"\n");
    let all = ["ann", "late", "bob", "I\u{ad}X"].map(user).concat();
    let (mut broker, address) = start(Folder::new(), &format!("{LISTENER}{all}"));
    let log_in = |name| {
        let (code, client) = Scram::begin(HOME, address, name).log_in("p");
        assert_eq!(code, 0, "{name}");
        client
    };
    // The last one is called otherwise when it has come in.
    let (mut ann, mut bob, mut prepared) = (log_in("ann"), log_in("bob"), log_in("I\u{ad}X"));
    let late = Scram::begin(HOME, address, "late");
    let reload = |broker: &Broker, users: &[&str]| {
        let before = broker.log().len();
        broker
            .folder
            .write("pantala.toml", &format!("{LISTENER}{}", users.iter().copied().map(user).collect::<String>()));
        broker.signal(Signal::HUP);
        wait_for("a reload", || broker.log()[before..].contains("SIGHUP: configuration read again").then_some(()));
    };
    let expect_sent_away = |client: &mut Client| {
        assert!(matches!(client.next(), Next::Packet(packet) if packet[0] == 0xe0 && packet[2] == NOT_AUTHORIZED));
        client.expect_closed();
    };
    reload(&broker, &["bob", "I\u{ad}X"]);
    expect_sent_away(&mut ann);
    // Not even who had begun before.
    assert_eq!(late.prove("p"), NOT_AUTHORIZED);
    bob.ping();
    prepared.ping();
    // The last ones, too.
    reload(&broker, &[]);
    expect_sent_away(&mut bob);
    expect_sent_away(&mut prepared);
    broker.check();
}

#[test]
fn a_flood_of_passwords_to_be_hashed_leaves_everybody_else_alone() {
    const FLOODERS: usize = 100;
    let folder = Folder::new();
    let file = folder.write("passwords", &password_lines(&folder, &[("ann", "a", &[]), ("late", "l", &[])]));
    let (mut broker, address) = start(
        folder,
        &format!(
            "[limits]\nverifications_waiting_max = 40\nverification_threads = 1\nconnect_seconds = 60\n\
             failures_per_address_max = 0\nfailures_per_user_max = 0\n{LISTENER}[[security]]\npassword_file = \"{}\"\n",
            file.display()
        ),
    );
    let (code, mut steady) = log_in_from(HOME, address, "steady", Some("ann"), Some(b"a"));
    assert_eq!(code, 0);
    steady.subscribe("beat", 0);
    // All of them at once, each with a password of its own.
    let flood = Ipv4Addr::new(127, 0, 2, 1);
    let mut flooders: Vec<Client> = (0..FLOODERS).map(|_| Client::open_from(flood, address)).collect();
    for (number, client) in flooders.iter_mut().enumerate() {
        client.send(&connect_as(V5, "", Some("ann"), Some(format!("guess {number}").as_bytes())));
    }
    // Half of the queue and one that is being hashed is what an address can have; the others are told at once.
    let crowded = wait_for("a full queue", || {
        Some(broker.security_counter("credentials_crowded")).filter(|count| *count >= FLOODERS as u64 / 2)
    });
    assert!(crowded <= FLOODERS as u64 - 20, "{crowded}");
    // A client that is there already does not notice.
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let begun = Instant::now();
        steady.send(&crate::client::publish(V5, "beat", 0, 0, b"x"));
        let packet = steady.packet();
        assert_eq!(packet[0], 0x30);
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    // And who comes from elsewhere is served before those who wait.
    let hashed = broker.security_counter("passwords_hashed");
    assert_eq!(log_in(address, "late", "l"), 0);
    let hashed = broker.security_counter("passwords_hashed") - hashed;
    assert!(hashed <= 4, "{hashed} were hashed meanwhile");
    // One address, one user, one password: known after the first time, however many come.
    let before = broker.security_counter("passwords_hashed");
    for _ in 0..200 {
        assert_eq!(log_in(address, "late", "l"), 0);
    }
    assert!(broker.security_counter("passwords_hashed") - before < 50);
    drop(flooders);
    broker.check();
}

// ---- secrets --------------------------------------------------------------------------------------------------

#[test]
fn no_secret_is_ever_written() {
    const MARK: &str = "cAnArY";
    let service = Service::start();
    service.answer(500, "cAnArY-answer");
    let folder = Folder::new();
    let secret = folder.write("secret", "cAnArY-secret-of-at-least-32-bytes\n");
    let authorization = folder.write("authorization", "Bearer cAnArY\n");
    let users = password_lines(&folder, &[("ann", "cAnArY-password", FAST)]);
    let hash = users.split('$').next_back().unwrap().trim().to_owned();
    let passwords = folder.write("passwords", &users);
    let (mut broker, address) = {
        let url = service.url("/auth?key=cAnArY").replace("http://", "http://cAnArY:cAnArY@");
        let toml = format!(
            "[log]\ntypes = [\"all\"]\n{LISTENER}[[security]]\npassword_file = \"{}\"\njwt_secret_file = \"{}\"\n\
             http_url = \"{url}\"\nhttp_authorization_file = \"{}\"\n[[scram_user]]\nname = \"bob\"\npassword = \"cAnArY-scram\"\n",
            passwords.display(),
            secret.display(),
            authorization.display()
        );
        start(folder, &toml)
    };
    assert_eq!(log_in(address, "ann", "cAnArY-password"), 0);
    assert_eq!(log_in(address, "ann", "cAnArY-wrong"), NOT_AUTHORIZED);
    assert_eq!(log_in(address, "eve", "cAnArY-guess"), SERVER_UNAVAILABLE);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"cAnArY-secret-of-at-least-32-bytes");
    let signed = unsigned(&json!({"alg": "HS256"}), &json!({"sub": "ann", "exp": in_seconds(99)}));
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()).as_ref()));
    assert_eq!(log_in(address, "x", &token), 0);
    let forged = format!("{token}AAAA");
    assert_eq!(log_in(address, "x", &forged), NOT_AUTHORIZED);
    // Files that cannot be used are said to be wrong, without what is in them.
    std::fs::write(&passwords, "ann:cAnArY-in-the-open\n").unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_log("SIGHUP: nothing has changed, the configuration cannot be used: ");
    // Nor is what a URL has, when it cannot be used.
    let good = std::fs::read_to_string(broker.folder.path("pantala.toml")).unwrap();
    for (url, said) in [
        ("http_url = \"https://svc:cAnArY@auth/ x?key=cAnArY\"", "\"http_url\" cannot be \"https://auth/ x\""),
        ("http_url = \"http://svc:cAnArY@[::1/\"", "it is no URL"),
        ("http_url = \"svc:cAnArY@auth\"", "it has to begin with http://"),
        ("jwt_jwks_url = \"ftp://id/keys?token=cAnArY\"", "\"jwt_jwks_url\" cannot be \"ftp://id/keys\""),
    ] {
        broker.folder.write("pantala.toml", &format!("{good}[[security]]\nname = \"other\"\n{url}\n"));
        broker.signal(Signal::HUP);
        broker.wait_for_log(said);
    }
    broker.signal(Signal::USR1);
    broker.wait_for_log("Credentials: ");
    let log = broker.log();
    assert!(log.contains("line 1") && log.contains("No answer of an HTTP back end"), "{log}");
    for hidden in [MARK, &token, signed.as_str(), hash.as_str()] {
        assert!(!log.contains(hidden), "{hidden} is in {log}");
    }
    broker.check();
}

// ---- an HTTP server for tests ---------------------------------------------------------------------------------

/// Answers every request alike, one connection each. Ends when dropped.
struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// None: requests are read, and not answered.
    answer: Option<(u16, String)>,
    requests: VecDeque<String>,
    ending: bool,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind((HOME, 0)).unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.state.lock().unwrap().ending {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.serve(stream.unwrap()));
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answer(&self, status: u16, body: &str) {
        self.shared.state.lock().unwrap().answer = Some((status, body.to_owned()));
        self.shared.changed.notify_all();
    }

    /// Answers nothing any more.
    fn hold(&self) {
        self.shared.state.lock().unwrap().answer = None;
    }

    /// All requests so far, head and body.
    fn requests(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().requests.iter().cloned().collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().ending = true;
        self.shared.changed.notify_all();
        // So that it looks up.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
                });
                if body.len() >= length.unwrap_or(0) {
                    self.state.lock().unwrap().requests.push_back(text);
                    break;
                }
            }
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        let mut state = self.state.lock().unwrap();
        while state.answer.is_none() && !state.ending {
            state = self.changed.wait(state).unwrap();
        }
        let Some((status, body)) = state.answer.clone() else { return };
        drop(state);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        // The client may have given up.
        drop(stream.write_all((head + &body).as_bytes()));
    }
}

/// Not used for logging in, and so without credentials.
#[test]
fn a_public_listener_without_users_lets_nobody_in_and_says_so() {
    let (mut broker, address) = start(Folder::new(), "[[listener]]\nhost = \"0.0.0.0\"\nport = 0\n");
    let address = SocketAddr::from((HOME, address.port()));
    let mut client = Client::open(address);
    client.send(&connect(V5, "x"));
    assert_eq!(client.packet()[3], NOT_AUTHORIZED);
    assert!(broker.log().contains("lets nobody in"), "{}", broker.log());
    broker.check();
}
