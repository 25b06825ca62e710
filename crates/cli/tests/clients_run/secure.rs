//! TLS and WebSocket, against Debian's broker.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::bench::{Maker, free_port, wait_for, with_brokers};

/// Writes an authority, and certificates for a server and a client; and an authority that signed nothing.
fn write_certificates(folder: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let issuer = authority("authority of the test");
    let stranger = authority("stranger");
    fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
    fs::write(folder.join("stranger.pem"), stranger.pem()).unwrap();
    let sign = |name: &str, host: &str, usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    sign("server", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    sign("other", "somebody.invalid", ExtendedKeyUsagePurpose::ServerAuth);
    sign("client", "client", ExtendedKeyUsagePurpose::ClientAuth);
}

fn tls_lines(folder: &Path, server: &str) -> String {
    write_certificates(folder);
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (path(&format!("{server}.pem")), path(&format!("{server}.key")));
    format!("allow_anonymous true\ncafile {}\ncertfile {certificate}\nkeyfile {key}", path("ca.pem"))
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let lines = |folder: &Path| tls_lines(folder, "server");
    with_brokers("tls_with_an_authority_of_ones_own", &[Maker::Debian], lines, |suite| {
        let path = |name: &str| suite.folder.path().join(name).display().to_string();
        let (ca, stranger) = (path("ca.pem"), path("stranger.pem"));
        for version in ["tlsv1.2", "tlsv1.3"] {
            let tls = ["--cafile", &ca, "--tls-version", version];
            suite.published(&[&["-t", "tls", "-q", "1", "-r", "-m", version], &tls[..]].concat());
            suite.subscribe(&[&["-t", "tls", "-C", "1"], &tls[..]].concat()).is(format!("{version}\n"), 0);
        }
        let response = suite.request(&["-t", "a", "-e", "a", "-m", "x", "--cafile", &ca]).end();
        response.is("x\n", 0);
        // An authority that is not the broker's, no TLS at all, and no such file.
        for wrong in [&["--cafile", &stranger][..], &["-V", "5", "-W", "3"], &["--cafile", "/nonexistent"]] {
            let printed = suite.subscribe(&[&["-t", "tls", "-C", "1"], wrong].concat());
            assert!(printed.stdout.is_empty() && printed.status != Some(0), "{wrong:?} {printed:?}");
        }
        let printed = suite.publish(&["-t", "tls", "-m", "x", "--cafile", &stranger]);
        assert!(!matches!(printed.status, Some(0) | None), "{printed:?}");
    });
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_insecure() {
    let lines = |folder: &Path| tls_lines(folder, "other");
    let name = "a_certificate_for_another_name_is_refused_unless_insecure";
    with_brokers(name, &[Maker::Debian], lines, |suite| {
        let ca = suite.folder.path().join("ca.pem").display().to_string();
        let arguments = ["-t", "a", "-q", "1", "-m", "x", "--cafile", &ca];
        let refused = suite.publish(&arguments);
        assert!(!matches!(refused.status, Some(0) | None), "{refused:?}");
        suite.published(&[&arguments[..], &["--insecure"]].concat());
    });
}

#[test]
fn a_client_shows_its_certificate() {
    let lines = |folder: &Path| tls_lines(folder, "server") + "\nrequire_certificate true";
    with_brokers("a_client_shows_its_certificate", &[Maker::Debian], lines, |suite| {
        let path = |name: &str| suite.folder.path().join(name).display().to_string();
        let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
        let arguments = ["-t", "a", "-q", "1", "-m", "x", "--cafile", &ca];
        let refused = suite.publish(&arguments);
        assert!(!matches!(refused.status, Some(0) | None), "{refused:?}");
        suite.published(&[&arguments[..], &["--cert", &certificate, "--key", &key]].concat());
    });
}

#[test]
fn web_socket() {
    let port = free_port();
    let lines = |_: &Path| format!("allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol websockets");
    with_brokers("web_socket", &[Maker::Debian], lines, |suite| {
        if suite.clients == Maker::Debian {
            // Theirs speak it from 2.1 on.
            return;
        }
        wait_for("a broker that accepts", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        for version in ["311", "5"] {
            let address = ["-h", "127.0.0.1", "-p", &port.to_string(), "--ws", "-V", version];
            let published =
                suite.run_bare("pub", &[&address[..], &["-t", "w", "-q", "2", "-r", "-m", version]].concat());
            published.is("", 0);
            suite.run_bare("sub", &[&address[..], &["-t", "w", "-C", "1"]].concat()).is(format!("{version}\n"), 0);
            let url = format!("ws://127.0.0.1:{port}/w");
            suite.run_bare("sub", &["-L", &url, "-C", "1", "-v"]).is(format!("w {version}\n"), 0);
            let large = suite.file("large", vec![b'z'; 200_000]);
            suite.run_bare("pub", &[&address[..], &["-t", "big", "-q", "1", "-r", "-f", &large]].concat()).is("", 0);
            suite.run_bare("sub", &[&address[..], &["-t", "big", "-C", "1", "-F", "%l"]].concat()).is("200000\n", 0);
        }
    });
}
