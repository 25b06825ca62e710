//! Programs against a TLS listener: our own, Debian's where they are installed, and OpenSSL's.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::client::{Authority, TlsBroker};
use crate::process::{Broker, Folder};

/// A program, or None if it is missing here; the test is then skipped by its name.
fn find(test: &str, name: &str, package: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let is_ci = env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!is_ci, "{test} needs {name}, of Debian's package {package}");
        // Past the test harness, which shows what a test prints only when it fails.
        drop(writeln!(std::io::stderr(), "{test}: skipped, since there is no {name} (Debian's package is {package})"));
    }
    found
}

/// A broker with a mosquitto.conf, as one comes from Mosquitto, and certificates for it and a client.
fn with_mosquitto_conf(lines: &str) -> (Broker, String) {
    let authority = Authority::new();
    let (server, client) = (authority.server("broker"), authority.client("sensor-7", 7));
    let folder = Folder::new();
    for (name, text) in [
        ("ca.pem", &authority.pem()),
        ("broker.crt", &server.certificate),
        ("broker.key", &server.key),
        ("client.crt", &client.certificate),
        ("client.key", &client.key),
    ] {
        folder.write(name, text);
    }
    let port = crate::process::free_port();
    let text = format!("listener {port} 127.0.0.1\ncafile ca.pem\ncertfile broker.crt\nkeyfile broker.key\n{lines}\n");
    let file = folder.write("mosquitto.conf", &text);
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    broker.listening_on();
    (broker, port.to_string())
}

fn run(broker: &Broker, program: &PathBuf, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(broker.folder.path(".")).stdin(Stdio::null());
    command.output().unwrap()
}

/// A retained message goes in and comes out, with both versions of TLS; who has no certificate, or does not trust the broker, fails.
fn publish_and_subscribe(publisher: (&PathBuf, &[&str]), subscriber: (&PathBuf, &[&str])) {
    let (broker, port) = with_mosquitto_conf("require_certificate true\nuse_identity_as_username true");
    let address = ["-h", "localhost", "-p", &port, "--cafile", "ca.pem"];
    let own = ["--cert", "client.crt", "--key", "client.key"];
    for version in ["tlsv1.2", "tlsv1.3"] {
        let tls = ["--tls-version", version, "-t", "t", "-q", "1"];
        let arguments = [publisher.1, &address, &own, &tls, &["-r", "-m", version]].concat();
        let published = run(&broker, publisher.0, &arguments);
        assert!(published.status.success(), "{published:?}");
        let arguments = [subscriber.1, &address, &own, &tls, &["-C", "1", "-W", "10"]].concat();
        let received = run(&broker, subscriber.0, &arguments);
        assert_eq!(String::from_utf8_lossy(&received.stdout), format!("{version}\n"), "{received:?}");
    }
    let refused = run(&broker, publisher.0, &[publisher.1, &address, &["-t", "t", "-q", "1", "-m", "x"]].concat());
    assert!(!refused.status.success(), "{refused:?}");
    broker.wait_for_log("the client has no certificate, and this listener requires one");
    // Its own certificate is no authority.
    let arguments =
        [publisher.1, &["-h", "localhost", "-p", &port, "--cafile", "client.crt", "-t", "t", "-m", "x"]].concat();
    let refused = run(&broker, publisher.0, &arguments);
    assert!(!refused.status.success(), "{refused:?}");
    broker.wait_for_log("TLS: the client does not trust this listener's certificate");
}

#[test]
fn our_own_programs() {
    let pantala = PathBuf::from(env!("CARGO_BIN_EXE_pantala"));
    publish_and_subscribe((&pantala, &["pub"]), (&pantala, &["sub"]));
}

#[test]
fn debians_programs() {
    let find = |name| find("debians_programs", name, "mosquitto-clients");
    let (Some(publisher), Some(subscriber)) = (find("mosquitto_pub"), find("mosquitto_sub")) else { return };
    publish_and_subscribe((&publisher, &[]), (&subscriber, &[]));
}

/// What OpenSSL says about the listener: versions, ALPN, the chain, and a session that is resumed.
#[test]
fn openssl_s_client() {
    let Some(openssl) = find("openssl_s_client", "openssl", "openssl") else { return };
    let running = TlsBroker::start("", "");
    let address = running.tls.to_string();
    let connect = ["s_client", "-connect", &address, "-CAfile", "ca.pem", "-verify_return_error"];
    let s_client = |arguments: &[&str]| {
        let output = run(&running.broker, &openssl, &[&connect[..], arguments].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // First, as the log has so many lines a second.
    for refused in [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AES256-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA"],
        &["-alpn", "h2"],
    ] {
        let (done, text) = s_client(refused);
        assert!(!done && !text.contains("BEGIN CERTIFICATE"), "{refused:?}: {text}");
    }
    running.broker.wait_for_log("TLS: none of the client's ALPN protocols is one of this listener (tls_alpn)");
    running.broker.wait_for_log("TLS: no cipher suite in common");
    running.broker.wait_for_log("TLS: the client offers no version that this listener takes");
    for (arguments, expected) in [
        (&["-tls1_3", "-alpn", "mqtt"][..], "ALPN protocol: mqtt"),
        (&["-tls1_2", "-alpn", "mqtt"], "ALPN protocol: mqtt"),
        (&["-tls1_2"], "No ALPN negotiated"),
        (&["-tls1_3"], "Verify return code: 0 (ok)"),
        (&["-tls1_3"], "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"),
    ] {
        let (done, text) = s_client(arguments);
        assert!(done && text.contains(expected), "{arguments:?}: {text}");
    }
    let (done, text) = s_client(&["-tls1_2", "-sess_out", "session"]);
    assert!(done, "{text}");
    let (done, text) = s_client(&["-tls1_2", "-sess_in", "session"]);
    assert!(done && text.contains("Reused, TLSv1.2"), "{text}");
    assert_eq!(running.broker.counter("tls_handshakes_resumed"), 1);
    assert_eq!(running.broker.counter("panics"), 0);
}

/// One port for MQTT and WebSocket, both through TLS; ALPN names the one that the client speaks.
#[test]
fn websocket_through_tls() {
    let running = TlsBroker::start("protocol = \"any\"", "");
    let pantala = PathBuf::from(env!("CARGO_BIN_EXE_pantala"));
    let port = running.tls.port().to_string();
    let address = ["-h", "localhost", "-p", &port, "--cafile", "ca.pem", "-t", "t", "-q", "1"];
    for (number, how) in [&["--ws"][..], &[]].iter().enumerate() {
        let payload = number.to_string();
        let arguments = [&["pub"][..], &address, how, &["-r", "-m", &payload]].concat();
        let published = run(&running.broker, &pantala, &arguments);
        assert!(published.status.success(), "{published:?}");
        let received =
            run(&running.broker, &pantala, &[&["sub"][..], &address, how, &["-C", "1", "-W", "10"]].concat());
        assert_eq!(String::from_utf8_lossy(&received.stdout), format!("{payload}\n"), "{received:?}");
    }
    let large = "x".repeat(300_000);
    running.broker.folder.write("large", &large);
    let arguments = [&["pub"][..], &address, &["--ws", "-r", "-f", "large"]].concat();
    assert!(run(&running.broker, &pantala, &arguments).status.success());
    let received = run(&running.broker, &pantala, &[&["sub"][..], &address, &["--ws", "-C", "1", "-W", "10"]].concat());
    assert_eq!(received.stdout.len(), large.len() + 1);
    let Some(openssl) = find("websocket_through_tls", "openssl", "openssl") else { return };
    for (offered, expected) in [("mqtt", "mqtt"), ("http/1.1", "http/1.1"), ("http/1.1,mqtt", "mqtt")] {
        let address = running.tls.to_string();
        let arguments = ["s_client", "-connect", &address, "-CAfile", "ca.pem", "-alpn", offered];
        let output = run(&running.broker, &openssl, &arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("ALPN protocol: {expected}\n")), "{offered}: {text}");
    }
}
