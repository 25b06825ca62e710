//! Handshakes per second of one core, the server's side alone, with an ECDSA P-256 certificate:
//! `cargo run --release -p pantala-tls --example handshakes`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, for whoever asks for it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pantala_tls::{Pem, Session, Settings};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedCipherSuite, SupportedProtocolVersion};

const DURATION: Duration = Duration::from_secs(3);

fn main() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["broker.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = |name: &str, text: String| Pem { name: name.to_owned(), bytes: text.into_bytes() };
    let certificates = vec![(pem("certificate", certificate.pem()), pem("key", key.serialize_pem()))];
    let configuration = Settings { certificates, ..Settings::default() }.build().unwrap();
    // Clients on OpenSSL prefer the first of each version.
    for (version, suite) in [
        (&TLS12, suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        (&TLS13, suites::TLS13_AES_256_GCM_SHA384),
        (&TLS13, suites::TLS13_AES_128_GCM_SHA256),
    ] {
        for resumed in [false, true] {
            let mut client = client(&certificate.pem(), version, suite);
            let (mut spent, mut count, begun) = (Duration::ZERO, 0_u32, Instant::now());
            while begun.elapsed() < DURATION {
                if !resumed {
                    client.resumption = Resumption::disabled();
                }
                spent += handshake(&configuration, &client);
                count += 1;
            }
            let kind = if resumed { "resumed" } else { "full" };
            println!("{:?}, {kind}: {:.0} handshakes/s", suite.suite(), f64::from(count) / spent.as_secs_f64());
        }
    }
}

fn client(certificate: &str, version: &'static SupportedProtocolVersion, suite: SupportedCipherSuite) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots).with_no_client_auth()
}

/// One handshake; how long the server's side has taken.
fn handshake(configuration: &pantala_tls::Configuration, client: &ClientConfig) -> Duration {
    let name = ServerName::try_from("broker.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
    let begun = Instant::now();
    let mut session = Session::new(configuration);
    let mut spent = begun.elapsed();
    let (mut inward, mut outward) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        outward.clear();
        let begun = Instant::now();
        if !bytes.is_empty() {
            session.receive(&mut bytes, &mut inward, &mut outward);
        }
        spent += begun.elapsed();
        let mut rest = &outward[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(session.is_established());
    spent
}
