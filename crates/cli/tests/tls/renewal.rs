//! Certificates that change while clients are connected.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{DnType, SanType, date_time_ymd};
use rustix::process::Signal;

use crate::client::{Authority, Client, TlsBroker, publish};
use crate::process::{Broker, Folder, wait_for};

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
        // Where the file is named.
        let is_certificate = expected.starts_with("broker.crt")
            || expected.ends_with("broker.crt") && key.is_none_or(|key| *key == one.key);
        let place = if is_certificate { "4:25: tls_certificate_files: " } else { "5:17: tls_key_files: " };
        assert!(log.contains(&format!("pantala.toml:{place}")), "{log}");
    }
}

/// They had no place, where files with users and rules have one.
#[test]
fn a_file_that_cannot_be_used_is_said_with_the_line_that_names_it() {
    let authority = Authority::new();
    let server = authority.server("one");
    let folder = Folder::new();
    folder.write("a.crt", &server.certificate);
    folder.write("a.key", &server.key);
    folder.write("junk", "junk");
    std::fs::create_dir(folder.path("empty")).unwrap();
    let port = crate::process::free_port();
    let text = |lines: &str| format!("listener {port} 127.0.0.1\ncertfile a.crt\nkeyfile a.key\n{lines}");
    let asked = "require_certificate true\ncafile a.crt\n";
    for (text, place) in [
        (text("certfile none\n"), "a.conf:4: certfile: "),
        (text("keyfile none\n"), "a.conf:4: keyfile: "),
        (text("keyfile empty\n"), "a.conf:4: keyfile: "),
        (text("require_certificate true\ncafile none\n"), "a.conf:5: cafile: "),
        (text("require_certificate true\ncapath empty\n"), "a.conf:5: capath: "),
        (text(&format!("{asked}crlfile junk\n")), "a.conf:6: crlfile: "),
    ] {
        folder.write("a.conf", &text);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pantala"));
        command.args(["broker", "-c", "a.conf", "--check"]).env_clear().current_dir(folder.path("."));
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}{error}");
        let expected = format!("pantala: {place}cannot listen on 127.0.0.1:{port} with TLS: ");
        assert!(error.starts_with(&expected), "{text}{error}");
    }
}

/// A check said nothing of them, and of one whose time has not come nobody did.
#[test]
fn a_certificate_whose_time_is_over_or_has_not_come_is_spoken_of() {
    let authority = Authority::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |days: i64| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(now.checked_add_signed(days * 86_400 + 3_600).unwrap())
    };
    for (begin, end, words) in [
        (-9, -2, "Error: the certificate of 127.0.0.1:0 in broker.crt (CN=time) has expired."),
        (3, 90, "Error: the certificate of 127.0.0.1:0 in broker.crt (CN=time) is not valid yet, but in 3 days."),
        (-9, 5, "Warning: the certificate of 127.0.0.1:0 in broker.crt (CN=time) expires in 5 days."),
        (-9, 90, ""),
    ] {
        let server = authority.sign(|params| {
            params.distinguished_name.push(DnType::CommonName, "time");
            (params.not_before, params.not_after) = (at(begin), at(end));
        });
        let folder = Folder::new();
        folder.write("broker.crt", &server.certificate);
        folder.write("broker.key", &server.key);
        let listener = "[broker]\ndurability = \"memory\"\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
        let files = "tls_certificate_files = [\"broker.crt\"]\ntls_key_files = [\"broker.key\"]\n";
        folder.write("a.toml", &format!("{listener}{files}"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pantala"));
        command.args(["broker", "-c", "a.toml", "--check"]).env_clear().current_dir(folder.path("."));
        let output = command.output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        // They are no reason not to start.
        assert_eq!(output.status.code(), Some(0), "{out}");
        let warned: Vec<_> = out.lines().filter(|line| line.starts_with("Warning: the certificate")).collect();
        let expected = words.split_once(": ").map(|(_, words)| format!("Warning: {words}"));
        assert_eq!(warned, expected.as_slice(), "{out}");
        let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
        let log = broker.wait_for_log("Listening on ");
        assert!(log.contains(words) && log.contains("the certificate of") != words.is_empty(), "{log}");
        broker.signal(Signal::USR1);
        let (over, not_yet) = (u8::from(end < 0), u8::from(begin > 0));
        broker.wait_for_log(&format!("certificates_expired={over} certificates_not_valid_yet={not_yet} "));
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
