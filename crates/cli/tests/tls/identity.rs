//! Who a client is by its certificate.

use std::time::Duration;

use rcgen::{DistinguishedName, DnType, ExtendedKeyUsagePurpose, date_time_ymd};

use crate::client::{Authority, Client, Signed, TlsBroker, connect_as};

const REQUIRED: &str = "tls_client_ca_files = [\"ca.pem\"]";

/// What the log says of a client that is refused.
fn refusal(running: &TlsBroker, own: Option<&Signed>, expected: &str) {
    let before = running.broker.log().len();
    // With TLS 1.3 the client is through before the broker has seen its certificate.
    if let Ok(mut client) = Client::open(running.tls, running.trusting(own)) {
        assert!(client.is_closed());
    }
    let log = crate::process::wait_for(expected, || {
        Some(running.broker.log()[before..].to_owned()).filter(|log| log.contains(expected))
    });
    assert!(!log.contains("New client connected"), "{log}");
}

#[test]
fn certificates_that_are_refused() {
    let running = TlsBroker::start(REQUIRED, "");
    let authority = &running.authority;
    running.connect(Some(&authority.client("sensor", 1))).connect_mqtt("a").ping();
    refusal(&running, None, "closed: TLS: the client has no certificate, and this listener requires one.");
    let stranger = Authority::new().client("sensor", 1);
    refusal(&running, Some(&stranger), "is from an authority that is not in tls_client_ca_files.");
    let expired = authority.sign(|params| params.not_after = date_time_ymd(2020, 1, 1));
    refusal(&running, Some(&expired), "TLS: the client's certificate has expired.");
    let for_servers = authority.sign(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    refusal(&running, Some(&for_servers), "is not for clients (Extended Key Usage).");
}

/// J14: a chain that is good but for its length costs nothing, and is told apart from one of a stranger.
#[test]
fn chains_of_certificates() {
    let running = TlsBroker::start(REQUIRED, "");
    for others in [0, 1, 4] {
        running.connect(Some(&running.authority.client_behind(others))).connect_mqtt("a").ping();
    }
    for others in [11, 100] {
        let deep = running.authority.client_behind(others);
        let before = running.broker.cpu();
        refusal(&running, Some(&deep), "TLS: the client's certificate comes with a chain of more than 10 others.");
        let spent = running.broker.cpu() - before;
        assert!(spent < Duration::from_millis(200), "{spent:?} of processor time");
    }
    // Too long for what is looked at, and short enough to be looked at.
    refusal(&running, Some(&running.authority.client_behind(10)), "TLS: the client's certificate is");
    running.connect(Some(&running.authority.client("sensor", 1))).connect_mqtt("a").ping();
}

/// With the rule a certificate lets in where anonymous clients are not, and its name has to be a safe one.
#[test]
fn user_names_from_certificates() {
    let listener = format!("{REQUIRED}\nallow_anonymous = false\nuser_name_from_certificate = \"cn\"");
    let running = TlsBroker::start(&listener, "");
    let authority = &running.authority;
    running.connect(Some(&authority.client("sensor-7", 1))).connect_mqtt("a").ping();
    running.broker.wait_for_log(", usensor-7).");
    for (name, expected) in [
        ("", "TLS: the client's certificate has no name that could be its User Name."),
        ("a\0b", "TLS: the name in the client's certificate has a control character."),
        ("*.plant", "TLS: the name in the client's certificate has a wildcard."),
        ("a/#", "TLS: the name in the client's certificate has a wildcard."),
    ] {
        refusal(&running, Some(&authority.client(name, 2)), expected);
    }
    let nobody = authority.sign(|params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Plant");
    });
    refusal(&running, Some(&nobody), "TLS: the client's certificate has no name that could be its User Name.");
    refusal(&running, None, "TLS: the client has no certificate, and this listener requires one.");
}

/// Without the rule a certificate is no User Name: the listener's own rule holds.
#[test]
fn a_certificate_alone_is_no_user_name() {
    let running = TlsBroker::start(&format!("{REQUIRED}\nallow_anonymous = false"), "");
    let mut client = running.connect(Some(&running.authority.client("sensor-7", 1)));
    client.send(&crate::client::connect("a", None));
    client.expect(&[0x20, 2, 0, 5]);
}

/// A certificate revoked while the broker runs is refused from then on, also if its session of TLS is to be resumed; the
/// connection that there is stays.
#[test]
fn revoked_while_running() {
    let authority = Authority::new();
    let server = authority.server("first");
    let listener = format!("{REQUIRED}\ntls_crl_files = [\"crl.pem\"]");
    let crl = authority.revoke(&[99]);
    let running = TlsBroker::start_with_files(authority, &server, &[("crl.pem", &crl)], &listener, "");
    let (sensor, other) = (running.authority.client("sensor", 7), running.authority.client("other", 8));
    let config = running.trusting(Some(&sensor));
    let connect = || Client::open(running.tls, config.clone());
    let mut first = connect().unwrap().connect_mqtt("a");
    connect().unwrap().connect_mqtt("b").ping();
    assert_eq!(running.broker.counter("tls_handshakes_resumed"), 1);
    running.replace("crl.pem", &running.authority.revoke(&[7]));
    running.broker.wait_for_log("New certificates for ");
    if let Ok(mut client) = connect() {
        assert!(client.is_closed());
    }
    running.broker.wait_for_log("TLS: the client's certificate has been revoked.");
    first.ping();
    running.connect(Some(&other)).connect_mqtt("c").ping();
}

/// A user of a password file who had shown a certificate, too, stayed when the user was removed: only a name that is from the
/// certificate needs no line in that file.
#[test]
fn who_is_a_user_by_a_password_goes_with_it_whatever_the_certificate() {
    const FILE: &str = "[[security]]\nchain = [\"certificate\", \"password\"]\npassword_file = \"users\"\n";
    let users = |names: &[&str]| {
        let hash = pantala_password::Hash::new(
            pantala_password::Algorithm::Pbkdf2Sha512 { iterations: 1 },
            b"secret",
            b"0123456789ab",
        );
        let hash = hash.unwrap();
        names.iter().map(|name| format!("{name}:{hash}\n")).collect::<String>()
    };
    for (rule, stays) in [("", false), ("user_name_from_certificate = \"cn\"", true)] {
        let authority = Authority::new();
        let server = authority.server("first");
        let listener = format!("{REQUIRED}\n{rule}");
        let files = [("users", &*users(&["ann", "bob"]))];
        let running = TlsBroker::start_with_files(authority, &server, &files, &listener, FILE);
        let certificate = running.authority.client("ann", 1);
        let mut ann = running.connect(Some(&certificate));
        ann.send(&connect_as("c", "ann", "secret"));
        let (kind, body) = ann.packet();
        assert_eq!((kind, body[1]), (0x20, 0), "{rule}");
        running.replace("users", &users(&["bob"]));
        running.broker.signal(rustix::process::Signal::HUP);
        running.broker.wait_for_log("SIGHUP: configuration read again");
        match stays {
            true => ann.ping(),
            false => {
                running.broker.wait_for_log("the user has been removed");
                assert!(ann.is_closed());
            }
        }
    }
}
