//! Certificates that change while clients are connected.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{DnType, SanType, date_time_ymd};
use rustix::process::Signal;

use crate::client::{Authority, Client, TlsBroker, publish};
use crate::process::wait_for;

/// The Common Name of the certificate that a new connection is shown: the names are in it as they are.
fn shown_to(running: &TlsBroker, names: &[&'static str]) -> &'static str {
    let mut client = running.connect(None);
    let certificates = client.tls().conn.peer_certificates().unwrap();
    let has = |name: &str| certificates[0].windows(name.len()).any(|bytes| bytes == name.as_bytes());
    names.iter().copied().find(|name| has(name)).unwrap()
}

/// Messages at QoS 1 go on while the certificate is replaced several times, once by what cannot be used: each comes once, and each
/// new connection is shown a certificate that was there.
#[test]
fn a_new_certificate_in_the_middle_of_traffic() {
    let running = TlsBroker::start("", "");
    let (mut reader, mut writer) = (running.connect(None).connect_mqtt("r"), running.connect(None).connect_mqtt("w"));
    reader.subscribe("t", 1);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let traffic = thread::spawn(move || {
        let mut sent = 0_u32;
        while stopped.try_recv().is_err() || sent < 100 {
            let packet_id = (sent % 60_000 + 1) as u16;
            writer.send(&publish("t", Some(packet_id), &sent.to_be_bytes()));
            writer.expect(&[&[0x40, 2][..], &packet_id.to_be_bytes()].concat());
            let (first, body) = reader.packet();
            assert_eq!((first & 0xf6, &body[5..]), (0x32, &sent.to_be_bytes()[..]));
            reader.send(&[&[0x40, 2][..], &body[3..5]].concat());
            sent += 1;
        }
        sent
    });
    assert_eq!(shown_to(&running, &["first"]), "first");
    let second = running.authority.server("second");
    running.replace("broker.key", &second.key);
    // The certificate is still the first one's: nothing changes.
    let log = running.broker.wait_for_log("the old ones stay: the key in broker.key is not that of the certificate");
    assert!(log.contains("Error: the new certificates for 127.0.0.1:0 cannot be used"), "{log}");
    assert_eq!(shown_to(&running, &["first", "second"]), "first");
    running.replace("broker.crt", &second.certificate);
    running.broker.wait_for_log("New certificates for ");
    assert_eq!(shown_to(&running, &["first", "second"]), "second");
    running.replace("broker.crt", "-----BEGIN CERTIFICATE-----\nnonsense");
    running.broker.wait_for_log("broker.crt is not PEM");
    assert_eq!(shown_to(&running, &["first", "second"]), "second");
    std::fs::remove_file(running.path("broker.crt")).unwrap();
    running.broker.wait_for_log("cannot read broker.crt");
    assert_eq!(shown_to(&running, &["first", "second"]), "second");
    let third = running.authority.server("third");
    running.replace("broker.key", &third.key);
    running.replace("broker.crt", &third.certificate);
    wait_for("the third certificate", || (shown_to(&running, &["first", "second", "third"]) == "third").then_some(()));
    stop.send(()).unwrap();
    assert!(traffic.join().unwrap() >= 100);
    let log = running.broker.log();
    assert!(!log.contains("protocol error"), "{log}");
}

/// The log and the counters say what an operator has to know about the end of a certificate.
#[test]
fn certificates_that_come_to_their_end() {
    let authority = Authority::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ending = |days: i64| {
        authority.sign(|params| {
            params.distinguished_name.push(DnType::CommonName, "ending");
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            let seconds = now.as_secs().checked_add_signed(days * 86_400 - 3_600).unwrap();
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        })
    };
    let (soon, over, fine) = (ending(5), ending(-2), ending(100));
    let running = TlsBroker::start_with(authority, &soon, "", "");
    let log = running.broker.wait_for_log("expires in");
    assert!(log.contains("broker.crt (CN=ending) expires in 4 days."), "{log}");
    running.replace("broker.key", &over.key);
    running.replace("broker.crt", &over.certificate);
    running.broker.wait_for_log("broker.crt (CN=ending) has expired.");
    running.broker.signal(Signal::USR1);
    running.broker.wait_for_log("certificates_expired=1 ");
    running.replace("broker.key", &fine.key);
    running.replace("broker.crt", &fine.certificate);
    wait_for("the new one", || {
        running.broker.signal(Signal::USR1);
        running.broker.log().contains("certificates_expired=0 ").then_some(())
    });
}

/// SIGHUP has the files read at once, whatever they look like.
#[test]
fn a_signal_reads_them_again() {
    let running = TlsBroker::start("", "");
    let mut client = running.connect(None).connect_mqtt("a");
    running.broker.signal(Signal::HUP);
    running.broker.wait_for_log("New certificates for ");
    client.ping();
    running.connect(None).connect_mqtt("b").ping();
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    use crate::process::{Broker, Folder};
    let authority = Authority::new();
    let (one, other) = (authority.server("one"), authority.server("other"));
    for (certificate, key, expected) in [
        (
            Some(&one.certificate),
            Some(&other.key),
            "the key in broker.key is not that of the certificate in broker.crt",
        ),
        (None, Some(&one.key), "cannot read broker.crt"),
        (Some(&one.certificate), None, "cannot read broker.key"),
        (Some(&one.key), Some(&one.key), "broker.crt has no certificate"),
    ] {
        let folder = Folder::new();
        if let Some(certificate) = certificate {
            folder.write("broker.crt", certificate);
        }
        if let Some(key) = key {
            folder.write("broker.key", key);
        }
        let text = "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\ntls_certificate_files = [\"broker.crt\"]\n\
             tls_key_files = [\"broker.key\"]\n";
        let file = folder.write("pantala.toml", text);
        let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
        assert!(!broker.wait().success());
        let log = broker.log();
        assert!(log.contains("cannot listen on 127.0.0.1:0 with TLS: ") && log.contains(expected), "{log}");
        assert!(!log.contains("BEGIN"), "no part of a key: {log}");
    }
}

/// One is chosen by the name that is asked for, and clients that ask for another get the first.
#[test]
fn several_certificates() {
    let authority = Authority::new();
    let first = authority.server("first");
    let second = authority.sign(|params| {
        params.distinguished_name.push(DnType::CommonName, "second");
        params.subject_alt_names = vec![SanType::DnsName("*.plant.example".try_into().unwrap())];
    });
    let both = second.certificate + &second.key;
    let running = TlsBroker::start_with_files(authority, &first, &[("2.pem", &both)], "", "");
    assert_eq!(shown_to(&running, &["first", "second"]), "first");
    let mut client = Client::open_named(running.tls, running.trusting(None), "a.plant.example").unwrap();
    let certificates = client.tls().conn.peer_certificates().unwrap();
    assert!(certificates[0].windows(6).any(|bytes| bytes == b"second"));
}
